//! `kontiki status`: how every replica is, as one of them knows it.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use http::Method;
use serde_json::Value;

use crate::client;
use crate::object::Fields;
use crate::serve::STATUS;

const TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Args)]
#[command(after_help = "Examples:\n  \
    kontiki status --kubeconfig ./data/admin.kubeconfig\n  \
    kontiki status -o json")]
pub struct StatusFlags {
    /// The kubeconfig to use. By default $KUBECONFIG, or else ~/.kube/config
    #[arg(long, value_name = "file")]
    kubeconfig: Option<PathBuf>,
    /// How to print it
    #[arg(short, long, value_enum)]
    output: Option<Output>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Output {
    Json,
}

pub fn run(flags: StatusFlags) -> anyhow::Result<()> {
    let kubeconfig = client::kubeconfig(flags.kubeconfig)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let answer = runtime.block_on(async {
        let asked = tokio::time::timeout(TIMEOUT, client::json(&kubeconfig, Method::GET, STATUS)).await;
        asked.unwrap_or_else(|_| bail!("no answer in {} seconds", TIMEOUT.as_secs()))
    });
    let mut answer = answer.with_context(|| format!("asking {}", kubeconfig.server))?;
    add_lag(&mut answer);
    match flags.output {
        Some(Output::Json) => println!("{}", serde_json::to_string_pretty(&answer)?),
        None => {
            print!("{}", table(&answer));
            println!("\nFeature level {}: what all of them can do", answer.int_at(&["featureLevel"]).unwrap_or(0));
        }
    }
    Ok(())
}

/// How far each replica is behind the most that any replica knows to be in the log.
fn add_lag(answer: &mut Value) {
    let newest = answer.list_at(&["replicas"]).iter().filter_map(|replica| replica.int_at(&["lastLogIndex"])).max();
    for replica in answer.items_mut(&["replicas"]) {
        if let (Some(newest), Some(applied)) = (newest, replica.int_at(&["appliedIndex"])) {
            replica.set(&["lag"], newest - applied);
        }
    }
}

fn table(answer: &Value) -> String {
    let mut rows = vec![
        ["NAME", "ID", "ADDRESS", "ROLE", "TERM", "APPLIED", "REVISION", "LAG", "DB SIZE", "VERSION"]
            .map(str::to_owned)
            .to_vec(),
    ];
    let replicas = answer.list_at(&["replicas"]);
    for replica in replicas {
        let text = |field: &str| match replica.at(&[field]) {
            Some(Value::String(text)) if !text.is_empty() => text.clone(),
            Some(Value::Number(number)) => number.to_string(),
            _ => "-".to_owned(),
        };
        let error = replica.text_at(&["error"]);
        let size = replica.int_at(&["databaseBytes"]).map(|bytes| size(bytes as f64));
        rows.push(vec![
            text("name"),
            text("id"),
            text("address"),
            match (error.is_empty(), replica.bool_at(&["diverged"])) {
                (false, _) => format!("Unreachable: {error}"),
                _ if replica.text_at(&["role"]) == "NoQuorum" => "no quorum".to_owned(),
                (true, Some(true)) => format!("{} (diverged)", text("role")),
                _ => text("role"),
            },
            text("term"),
            text("appliedIndex"),
            text("revision"),
            text("lag"),
            size.unwrap_or("-".into()),
            text("version"),
        ]);
    }
    super::table(&rows)
}

fn size(bytes: f64) -> String {
    match bytes {
        b if b < 1024.0 => format!("{b}B"),
        b if b < 1024.0 * 1024.0 => format!("{:.0}KiB", b / 1024.0),
        b if b < 1024.0 * 1024.0 * 1024.0 => format!("{:.1}MiB", b / 1024.0 / 1024.0),
        b => format!("{:.1}GiB", b / 1024.0 / 1024.0 / 1024.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_for_every_replica() {
        let mut answer = serde_json::json!({"replicas": [
            {"name": "n1", "id": 1, "address": "127.0.0.1:7001", "role": "Leader", "term": 2, "lastLogIndex": 12,
             "appliedIndex": 12, "revision": 7, "databaseBytes": 2_621_440, "version": "0.1.0"},
            {"name": "n2", "address": "127.0.0.1:7002", "error": "connection refused"},
        ]});
        let expected = "NAME   ID   ADDRESS          ROLE                              TERM   APPLIED   REVISION   LAG   DB SIZE   VERSION\n\
                        n1     1    127.0.0.1:7001   Leader                            2      12        7          0     2.5MiB    0.1.0\n\
                        n2     -    127.0.0.1:7002   Unreachable: connection refused   -      -         -          -     -         -\n";
        add_lag(&mut answer);
        assert_eq!(answer["replicas"][0]["lag"], 0);
        assert_eq!(table(&answer), expected);
    }
}

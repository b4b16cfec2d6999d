//! `kontiki status`: how every replica is, as one of them knows it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use clap::{Args, ValueEnum};
use http::header::{AUTHORIZATION, HOST};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::kubeconfig::Kubeconfig;
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
    let path = match flags.kubeconfig {
        Some(path) => path,
        None => default_kubeconfig().context("--kubeconfig: there is no kubeconfig; name one, or set KUBECONFIG")?,
    };
    let kubeconfig = Kubeconfig::read(&path)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let answer = runtime.block_on(async {
        let asked = tokio::time::timeout(TIMEOUT, get(&kubeconfig, STATUS)).await;
        asked.unwrap_or_else(|_| bail!("no answer in {} seconds", TIMEOUT.as_secs()))
    });
    let answer = answer.with_context(|| format!("asking {}", kubeconfig.server))?;
    match flags.output {
        Some(Output::Json) => println!("{}", serde_json::to_string_pretty(&answer)?),
        None => print!("{}", table(&answer)),
    }
    Ok(())
}

fn default_kubeconfig() -> Option<PathBuf> {
    let listed = std::env::var_os("KUBECONFIG").filter(|value| !value.is_empty());
    match listed {
        Some(value) => std::env::split_paths(&value).find(|path| path.exists()),
        None => std::env::home_dir().map(|home| home.join(".kube/config")).filter(|path| path.exists()),
    }
}

async fn get(kubeconfig: &Kubeconfig, path: &str) -> anyhow::Result<Value> {
    let uri: http::Uri = kubeconfig.server.parse().context("the server's URL")?;
    let host = uri.host().context("the server's URL names no host")?.trim_matches(['[', ']']).to_owned();
    let stream = TcpStream::connect((host.as_str(), uri.port_u16().unwrap_or(443))).await?;
    let connector = TlsConnector::from(Arc::new(tls(kubeconfig)?));
    let stream = connector.connect(ServerName::try_from(host)?, stream).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let mut request = http::Request::get(path).header(HOST, uri.authority().map_or("", |authority| authority.as_str()));
    if let Some(token) = &kubeconfig.token {
        request = request.header(AUTHORIZATION, format!("Bearer {token}"));
    }
    let response = sender.send_request(request.body(Empty::<Bytes>::new())?).await?;
    let code = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    let answer = serde_json::from_slice::<Value>(&body);
    match answer {
        Ok(answer) if code.is_success() => Ok(answer),
        Ok(status) if !status.text_at(&["message"]).is_empty() => bail!("{}", status.text_at(&["message"])),
        _ => bail!("{code}; is it Kontiki?"),
    }
}

fn tls(kubeconfig: &Kubeconfig) -> anyhow::Result<ClientConfig> {
    let Some(authority) = &kubeconfig.certificate_authority else {
        bail!("the kubeconfig has no certificate-authority: the server can't be told from another");
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authority.as_bytes()) {
        roots.add(certificate.context("certificate-authority")?)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    Ok(match &kubeconfig.client {
        Some((certificate, key)) => {
            let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect();
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).context("client-key")?;
            builder.with_client_auth_cert(chain.context("client-certificate")?, key)?
        }
        None => builder.with_no_client_auth(),
    })
}

fn table(answer: &Value) -> String {
    let mut rows = vec![
        ["NAME", "ID", "ADDRESS", "ROLE", "TERM", "APPLIED", "REVISION", "LAG", "DB SIZE", "VERSION"]
            .map(str::to_owned)
            .to_vec(),
    ];
    let replicas = answer.list_at(&["replicas"]);
    // The most that any replica knows to be in the log.
    let newest = replicas.iter().filter_map(|replica| replica.int_at(&["lastLogIndex"])).max().unwrap_or(0);
    for replica in replicas {
        let text = |field: &str| match replica.at(&[field]) {
            Some(Value::String(text)) if !text.is_empty() => text.clone(),
            Some(Value::Number(number)) => number.to_string(),
            _ => "-".to_owned(),
        };
        let error = replica.text_at(&["error"]);
        let lag = replica.int_at(&["appliedIndex"]).map(|applied| (newest - applied).to_string());
        let size = replica.int_at(&["databaseBytes"]).map(|bytes| size(bytes as f64));
        rows.push(vec![
            text("name"),
            text("id"),
            text("address"),
            match (error.is_empty(), replica.bool_at(&["diverged"])) {
                (false, _) => format!("Unreachable: {error}"),
                (true, Some(true)) => format!("{} (diverged)", text("role")),
                _ => text("role"),
            },
            text("term"),
            text("appliedIndex"),
            text("revision"),
            lag.unwrap_or("-".into()),
            size.unwrap_or("-".into()),
            text("version"),
        ]);
    }
    let widths: Vec<usize> = (0..rows[0].len())
        .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
        .collect();
    let line = |row: &Vec<String>| {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}", width = *width)).collect();
        format!("{}\n", cells.join("   ").trim_end())
    };
    rows.iter().map(line).collect()
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
        let answer = serde_json::json!({"replicas": [
            {"name": "n1", "id": 1, "address": "127.0.0.1:7001", "role": "Leader", "term": 2, "lastLogIndex": 12,
             "appliedIndex": 12, "revision": 7, "databaseBytes": 2_621_440, "version": "0.1.0"},
            {"name": "n2", "address": "127.0.0.1:7002", "error": "connection refused"},
        ]});
        let expected = "NAME   ID   ADDRESS          ROLE                              TERM   APPLIED   REVISION   LAG   DB SIZE   VERSION\n\
                        n1     1    127.0.0.1:7001   Leader                            2      12        7          0     2.5MiB    0.1.0\n\
                        n2     -    127.0.0.1:7002   Unreachable: connection refused   -      -         -          -     -         -\n";
        assert_eq!(table(&answer), expected);
    }
}

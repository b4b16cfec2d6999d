//! `kontiki snapshot`: save what a cluster holds while it serves, look at what was saved, begin a new cluster with it.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use clap::{Args, Subcommand, ValueEnum};
use http::Method;
use http_body_util::BodyExt;
use kontiki_raft::{Restore, RestoreError, restore};
use kontiki_storage::{SnapshotHeader, check_archive};
use serde_json::{Value, json};

use super::{peer_address, replica_name};
use crate::client;
use crate::kubeconfig::Kubeconfig;
use crate::serve::SNAPSHOT;
use crate::time::Time;

/// How long the server may say nothing.
const SILENCE: Duration = Duration::from_secs(30);

#[derive(Args)]
#[command(after_help = "Examples:\n  \
    # Save what the cluster holds; any replica will do\n  \
    kontiki snapshot save backup.snapshot --kubeconfig ./data/admin.kubeconfig\n\n  \
    # What is in it, and whether it is whole\n  \
    kontiki snapshot status backup.snapshot\n\n  \
    # A new cluster that begins with it\n  \
    kontiki snapshot restore backup.snapshot --data-dir ./restored\n  \
    kontiki serve --data-dir ./restored")]
pub struct SnapshotCommand {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write all objects to a file, as they are at one revision
    Save(Save),
    /// Read a file to its end, check it, and say what it holds
    Status(Status),
    /// Make the data directory of a new cluster of one replica from a file
    Restore(RestoreFlags),
}

#[derive(Args)]
struct Save {
    /// Where to save it. It holds every secret of the cluster
    file: PathBuf,
    /// The kubeconfig to use. By default $KUBECONFIG, or else ~/.kube/config
    #[arg(long, value_name = "file")]
    kubeconfig: Option<PathBuf>,
    /// Take what the replica has without asking the others whether it is current: for when there is no quorum
    #[arg(long)]
    stale: bool,
}

#[derive(Args)]
struct Status {
    /// What `kontiki snapshot save` has written
    file: PathBuf,
    /// How to print it
    #[arg(short, long, value_enum)]
    output: Option<Output>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Output {
    Json,
}

#[derive(Args)]
struct RestoreFlags {
    /// What `kontiki snapshot save` has written
    file: PathBuf,
    /// Where the new replica keeps its state. There may be certificates in it, and no state yet
    #[arg(long, value_name = "dir")]
    data_dir: PathBuf,
    /// The name of the new replica
    #[arg(long, value_name = "string", default_value = "kontiki", value_parser = replica_name)]
    name: String,
    /// Where other replicas that are to join will reach this one
    #[arg(long, value_name = "host:port", value_parser = peer_address)]
    peer_address: Option<String>,
    /// How far revisions go on after the snapshot's: more than were made since, so that a client that knows a newer one
    /// lists again and takes nothing old for it
    #[arg(long, value_name = "int", default_value_t = 1_000_000_000)]
    bump_revision: u64,
}

pub fn run(command: SnapshotCommand) -> anyhow::Result<()> {
    match command.command {
        Command::Save(flags) => {
            let kubeconfig = client::kubeconfig(flags.kubeconfig)?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let header = runtime.block_on(save(&kubeconfig, &flags.file, flags.stale))?;
            println!(
                "{}: {} objects at revision {}, state hash {:016x}",
                flags.file.display(),
                header.records,
                header.revision,
                header.hash
            );
        }
        Command::Status(flags) => {
            let header = check(&flags.file)?;
            let size = std::fs::metadata(&flags.file)?.len();
            let shown = shown(&header, size)?;
            match flags.output {
                Some(Output::Json) => println!("{}", serde_json::to_string_pretty(&shown)?),
                None => print!("{}", lines(&shown)),
            }
        }
        Command::Restore(flags) => {
            let what = Restore {
                file: &flags.file,
                data_dir: &flags.data_dir,
                name: &flags.name,
                peer_address: flags.peer_address.as_deref().unwrap_or_default(),
                bump_revision: flags.bump_revision,
            };
            let done = restore(&what).map_err(|error| match error {
                RestoreError::Archive { .. } => anyhow::Error::new(error),
                error => anyhow::Error::new(error).context("--data-dir"),
            })?;
            println!(
                "{}: a new cluster {:016x} of replica {}, {} objects, which begins at revision {}",
                flags.data_dir.display(),
                done.cluster,
                flags.name,
                done.snapshot.records,
                done.revision
            );
        }
    }
    Ok(())
}

fn check(file: &Path) -> anyhow::Result<SnapshotHeader> {
    check_archive(file).with_context(|| file.display().to_string())
}

/// To a file beside the one that is asked for, which takes its name once it is whole, checked and durable.
async fn save(kubeconfig: &Kubeconfig, file: &Path, stale: bool) -> anyhow::Result<SnapshotHeader> {
    let mut partial = file.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let saved = fetch(kubeconfig, &partial, stale).await.and_then(|()| check(&partial)).and_then(|header| {
        std::fs::rename(&partial, file).with_context(|| file.display().to_string())?;
        let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(directory)?.sync_all()?;
        Ok(header)
    });
    if saved.is_err() {
        // It is of no use; where it can't be removed the error that counts is the first one.
        let _ = std::fs::remove_file(&partial);
    }
    saved
}

async fn fetch(kubeconfig: &Kubeconfig, partial: &Path, stale: bool) -> anyhow::Result<()> {
    let at = |error: std::io::Error| anyhow::anyhow!("{}: {error}", partial.display());
    let path = if stale { format!("{SNAPSHOT}?resourceVersion=0") } else { SNAPSHOT.to_owned() };
    let silent = || format!("{} says nothing", kubeconfig.server);
    let asked = client::send(kubeconfig, Method::GET, &path, Bytes::new());
    let response = tokio::time::timeout(SILENCE, asked).await.with_context(silent)?;
    let mut body = response.with_context(|| format!("asking {}", kubeconfig.server))?.into_body();
    // It holds every secret.
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(partial).map_err(at)?;
    while let Some(frame) = tokio::time::timeout(SILENCE, body.frame()).await.with_context(silent)? {
        if let Ok(data) = frame.context("the snapshot broke off")?.into_data() {
            file.write_all(&data).map_err(at)?;
        }
    }
    file.sync_all().map_err(at)
}

fn shown(header: &SnapshotHeader, size: u64) -> anyhow::Result<Value> {
    let Ok(taken_at) = i64::try_from(header.taken_at) else { bail!("the snapshot was taken at no time") };
    Ok(json!({
        "cluster": format!("{:016x}", header.cluster),
        "revision": header.revision,
        "hash": format!("{:016x}", header.hash),
        "objects": header.records,
        "bytes": size,
        "takenAt": Time::from_unix(taken_at).to_string(),
        "takenBy": header.taken_by,
    }))
}

fn lines(shown: &Value) -> String {
    let Some(fields) = shown.as_object() else { return String::new() };
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    ["cluster", "revision", "hash", "objects", "bytes", "takenAt", "takenBy"]
        .into_iter()
        .filter_map(|name| Some(format!("{name:<10}{}\n", text(fields.get(name)?))))
        .collect()
}

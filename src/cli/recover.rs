//! `kontiki recover`: goes on with one replica when a quorum is lost for good.

use std::net::{TcpStream, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use kontiki_raft::Survivor;

use super::peer_address;

/// How long another member has to answer.
const ANSWER: Duration = Duration::from_secs(2);

#[derive(Args)]
#[command(after_help = "\
    Of the replicas that are left, take the one with the newest log (`kontiki verify` shows its last entry and term). What \
    only the lost ones had acknowledged is lost. Revisions go on far after the last one, so that no client takes something \
    new for what it knew.\n\n\
    Examples:\n  \
    # Whom it would leave behind, and whether it may\n  \
    kontiki recover --data-dir ./data --dry-run\n  \
    kontiki recover --data-dir ./data\n  \
    # Then start it without --initial-cluster, and let new replicas join\n  \
    kontiki serve --data-dir ./data --name n1 --peer-address 10.0.0.1:7001\n  \
    kontiki token create")]
pub struct RecoverFlags {
    /// The data directory of the replica to go on with, which must be stopped
    #[arg(long, value_name = "dir")]
    data_dir: PathBuf,
    /// Where other replicas will reach this one. By default where they did
    #[arg(long, value_name = "host:port", value_parser = peer_address)]
    peer_address: Option<String>,
    /// How far the revision goes on from the last one that this replica has: more than the lost replicas can have made
    #[arg(long, value_name = "number", default_value_t = 1_000_000_000)]
    bump_revision: u64,
    /// Only ask the others and say what would be done
    #[arg(long)]
    dry_run: bool,
    /// Recover even though so many others answer that with this replica they are a quorum. They must be stopped first and
    /// never run again with their data
    #[arg(long)]
    abandon_quorum: bool,
    /// Recover even though the state of this replica was found to be another than most replicas had
    #[arg(long)]
    accept_divergence: bool,
}

pub fn run(flags: RecoverFlags) -> anyhow::Result<()> {
    let survivor = Survivor::read(&flags.data_dir).context("--data-dir")?;
    let (name, quorum) = (survivor.name().to_owned(), survivor.quorum_with());
    let mut answering = 0;
    for other in &survivor.others {
        let there = answers(&other.address);
        answering += usize::from(there);
        println!("{}\t{}\t{}", other.name, other.address, if there { "answers" } else { "does not answer" });
    }
    if answering >= quorum && !flags.abandon_quorum {
        let others = match answering {
            0 => "it needs no other voter".to_owned(),
            _ => format!("{answering} of the other voters answer, and {quorum} of them with {name} are a quorum"),
        };
        bail!(
            "{name} is not recovered: {others}. Start it again and nothing is lost; if its data is damaged, remove it from \
             the cluster and let it join anew. --abandon-quorum recovers it nevertheless"
        );
    }
    if let Some(found) = survivor.divergence
        && !flags.accept_divergence
    {
        bail!(
            "{name} is not recovered: at revision {} its state was not the one that most replicas had, so what it would go \
             on with is wrong. Recover another replica, or restore a snapshot; --accept-divergence goes on with this state \
             nevertheless",
            found.revision
        );
    }
    if flags.dry_run {
        println!("{name} would become a cluster of its own; nothing was changed");
        return Ok(());
    }
    let address = flags.peer_address.as_deref().unwrap_or(survivor.address()).to_owned();
    let cluster = survivor.recover(&flags.data_dir, flags.peer_address.as_deref(), flags.bump_revision)?;
    println!("{name} is the only member of the new cluster {cluster:016x}. Start it without --initial-cluster:");
    let peers = if address.is_empty() { String::new() } else { format!(" --peer-address {address}") };
    println!("  kontiki serve --data-dir {} --name {name}{peers} …", flags.data_dir.display());
    Ok(())
}

fn answers(address: &str) -> bool {
    let mut resolved = address.to_socket_addrs().into_iter().flatten();
    resolved.any(|address| TcpStream::connect_timeout(&address, ANSWER).is_ok())
}

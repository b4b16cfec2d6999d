//! What a replica is started with, and why it may refuse to start.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kontiki_storage::codec::{CodecError, FORMAT};

use crate::identity::Invitation;
use crate::peer::PeerTls;
use crate::types::LEVEL;

#[derive(Clone)]
pub struct Config {
    pub name: String,
    pub data_dir: PathBuf,
    /// Where peers are listened for. None: a cluster of one.
    pub peer_listen: Option<SocketAddr>,
    /// host:port under which the other replicas reach this one.
    pub peer_address: String,
    /// Names and addresses of all replicas, this one among them. Empty: a cluster of one. Counts on an empty data
    /// directory; later the members are those that the log says.
    pub initial_cluster: Vec<(String, String)>,
    /// The cluster that has taken this replica in. Counts on an empty data directory only.
    pub invitation: Option<Invitation>,
    /// What peers know each other by. Needed with `peer_listen`.
    pub tls: Option<PeerTls>,
    /// Announced to peers and in the status.
    pub version: String,
    /// Where clients reach this replica; announced likewise.
    pub client_url: String,
    /// What this replica says it can apply: [`LEVEL`], or less, as an earlier release does.
    pub level: u32,
    pub storage: kontiki_storage::Options,
    pub timing: Timing,
    pub limits: Limits,
    pub reads: Reads,
}

/// How a leader makes sure, before a linearizable read, that it still is the leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reads {
    /// It asks a quorum (ReadIndex). Holds whatever clocks do.
    #[default]
    Quorum,
    /// It counts on the lease that its last heartbeats brought: a follower that has heard from it elects nobody else for
    /// [`Timing::election_max`]. Holds as long as no replica's monotonic clock runs faster than the leader's by so much that
    /// it sees `election_max` pass before the leader does, and none stands still while the machine is suspended.
    Lease,
}

impl Config {
    /// A cluster of one, with nothing announced.
    pub fn new(name: impl Into<String>, data_dir: impl Into<PathBuf>) -> Config {
        Config {
            name: name.into(),
            data_dir: data_dir.into(),
            peer_listen: None,
            peer_address: String::new(),
            initial_cluster: Vec::new(),
            invitation: None,
            tls: None,
            version: String::new(),
            client_url: String::new(),
            level: LEVEL,
            storage: kontiki_storage::Options::default(),
            timing: Timing::default(),
            limits: Limits::default(),
            reads: Reads::default(),
        }
    }
}

/// A leader that is gone is missed after `election_max`, and another is elected between `election_min` and `election_max`
/// after that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    pub heartbeat: Duration,
    pub election_min: Duration,
    pub election_max: Duration,
    /// How long a snapshot may take from the first byte sent to the new state's use.
    pub snapshot: Duration,
    /// How often a replica compares its state with the others'.
    pub audit: Duration,
}

impl Default for Timing {
    fn default() -> Timing {
        Timing {
            heartbeat: Duration::from_millis(75),
            election_min: Duration::from_millis(200),
            election_max: Duration::from_millis(350),
            snapshot: Duration::from_secs(600),
            audit: Duration::from_secs(5),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Proposals that wait for their outcome, and their bytes; more are refused.
    pub pending: usize,
    pub pending_bytes: usize,
    /// What a log entry holds at most, unless a single proposal is larger.
    pub batch: usize,
    pub batch_bytes: usize,
    /// A larger proposal is refused.
    pub proposal_bytes: usize,
    /// The state is made durable, so that the log can be cut, once this much of it isn't.
    pub checkpoint_bytes: u64,
    pub checkpoint_entries: u64,
    /// What is kept of the log behind that, for replicas that were away for a moment.
    pub trailing_bytes: u64,
    pub trailing_entries: u64,
    /// With less space than this on the disk of its data directory a replica writes nothing: what it has under way, and
    /// RocksDB in the background, must fit into it.
    pub reserve_bytes: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            pending: 4096,
            pending_bytes: 64 << 20,
            batch: 512,
            batch_bytes: 1 << 20,
            proposal_bytes: 16 << 20,
            checkpoint_bytes: 16 << 20,
            checkpoint_entries: 20_000,
            trailing_bytes: 16 << 20,
            trailing_entries: 20_000,
            reserve_bytes: 128 << 20,
        }
    }
}

impl Limits {
    /// Whether the log has grown enough since the last checkpoint. What isn't applied a checkpoint can't cover.
    pub(crate) fn asks_for_checkpoint(
        &self,
        (bytes, entries): (u64, u64),
        checkpoint: Option<u64>,
        applied: Option<u64>,
    ) -> bool {
        applied > checkpoint && (bytes >= self.checkpoint_bytes || entries >= self.checkpoint_entries)
    }
}

impl StartError {
    /// What is wrong with something that was read.
    pub(crate) fn unreadable(path: &Path, what: impl Into<String>, error: CodecError) -> StartError {
        let (path, what) = (path.to_owned(), what.into());
        match error {
            CodecError::Version { found } if found > FORMAT => StartError::Newer { path, what, found },
            error => StartError::Corrupt { path, what, detail: error.to_string() },
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("{0}")]
    Config(String),
    #[error("{path}: {source}", path = path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{path}: a replica runs on this data directory: stop it first", path = path.display())]
    Busy { path: PathBuf },
    #[error("{path}: {detail}", path = path.display())]
    Database { path: PathBuf, detail: String },
    #[error(
        "{path}: {what} is damaged: {detail}. This replica's log can't be trusted: remove it from the cluster, empty its \
         data directory and let it join again, or restore a snapshot",
        path = path.display()
    )]
    Corrupt { path: PathBuf, what: String, detail: String },
    #[error(
        "{path}: {what} was written by a newer release, in format {found}; this one reads formats up to {FORMAT}. Start \
         that release or a later one",
        path = path.display()
    )]
    Newer { path: PathBuf, what: String, found: u8 },
    #[error(
        "the cluster is at feature level {has}, and this release knows only those up to {own}: start the release that the \
         other replicas run"
    )]
    TooOld { has: u32, own: u32 },
    #[error(transparent)]
    Store(#[from] kontiki_storage::OpenError),
    /// The data directory is another replica's or another cluster's, or a part of it is missing.
    #[error("{path}: {detail}", path = path.display())]
    Foreign { path: PathBuf, detail: String },
    /// The others know this replica with a log that it no longer has.
    #[error(
        "replica {name} has an empty data directory, but {peer} knows it with a log. Its vote could undo what was \
         acknowledged, so it must not come back under this name: restore the data directory, or remove the replica from \
         the cluster and add it again as a new one"
    )]
    Wiped { name: String, peer: String },
    /// The others no longer count it as a member.
    #[error(
        "replica {0} was removed from the cluster. To take part again it must join as a new member: empty its data \
         directory and start it with --join and --token"
    )]
    Removed(String),
    #[error("the peer address {address} can't be listened on: {source}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("the peers' certificates: {0}")]
    Tls(String),
    #[error("a thread can't be started: {0}")]
    Thread(io::Error),
    #[error("Raft can't be started: {0}")]
    Raft(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A replica that has a log full of entries and nothing applied, since it doesn't know that they are committed, has
    /// nothing to make durable.
    #[test]
    fn a_checkpoint_is_asked_for_where_it_can_cover_something() {
        let limits = Limits { checkpoint_bytes: 100, checkpoint_entries: 10, ..Limits::default() };
        for (since, checkpoint, applied, expected) in [
            ((100, 1), None, Some(0), true),
            ((1, 10), Some(4), Some(5), true),
            ((99, 9), Some(4), Some(5), false),
            ((100, 10), None, None, false),
            ((100, 10), Some(5), Some(5), false),
        ] {
            assert_eq!(limits.asks_for_checkpoint(since, checkpoint, applied), expected, "{since:?}");
        }
    }
}

//! What a log entry asks of the state machine, and what it answers.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{Key, Revision};

/// Where in the log something stands; opaque here but for the index, which only rises.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LogPosition {
    pub index: u64,
    pub term: u64,
    pub node: u64,
}

/// All conditions hold and all writes happen at one revision, or nothing does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transaction {
    pub conditions: Vec<Condition>,
    /// Where a key comes twice the last write counts.
    pub writes: Vec<Write>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Condition {
    Absent(Key),
    /// The key's version is the one that this revision wrote.
    At(Key, Revision),
    Exists(Key),
    /// No key starts with this.
    EmptyPrefix(String),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Write {
    Put {
        key: Key,
        value: Bytes,
        /// The byte offset in `value` where the decimal revision is inserted.
        revision_at: Option<u32>,
        /// Unix seconds.
        expires_at: Option<u64>,
    },
    /// Deleting what isn't there is no error and makes no event.
    Delete { key: Key },
}

impl Write {
    pub fn key(&self) -> &Key {
        match self {
            Write::Put { key, .. } | Write::Delete { key } => key,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    Transact(Transaction),
    /// Forget the history before this revision: views at it and events after it remain.
    Compact {
        before: Revision,
    },
    /// Leave out so many revisions, and forget the history: whoever has seen a revision that was lost with its replicas is
    /// told to look again, and doesn't take another one for it.
    Skip {
        revisions: Revision,
    },
}

impl Command {
    /// The feature level that a replica must have to apply this. A new kind of command gets the next level.
    pub fn level(&self) -> u32 {
        match self {
            Command::Transact(_) | Command::Compact { .. } | Command::Skip { .. } => 1,
        }
    }
}

/// A command with the name under which its outcome is remembered, so that a retry is answered and not repeated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proposal {
    /// Unique to one run of a proposer. 0: nothing is remembered.
    pub client: u64,
    /// Counts from 1.
    pub sequence: u64,
    /// All sequences below are settled: their outcomes may be forgotten.
    pub acknowledged: u64,
    pub command: Command,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    Committed {
        revision: Revision,
    },
    /// The first condition that failed, and the revision that wrote what stands there (None: nothing does).
    Conflict {
        condition: u32,
        current: Option<Revision>,
    },
    Compacted {
        revision: Revision,
    },
    /// This sequence is no longer remembered: whether it was applied is unknown. Whoever gets this for a sequence that
    /// it did not acknowledge goes on under a new client.
    TooOld,
}

//! The replicated state machine: tables of records at one rising revision, applied from a log, held in memory as
//! immutable views, kept in RocksDB for restarts. It knows neither Raft nor HTTP nor Kubernetes.
#![forbid(unsafe_code)]

mod archive;
pub mod codec;
mod command;
mod dedup;
mod disk;
mod event;
mod fill;
#[doc(hidden)]
pub mod fuzz;
mod key;
mod meter;
mod record;
mod snapshot;
mod state;
mod store;
mod stored;
mod survey;
mod view;

pub use archive::{Archive, ArchiveError, Beginning, SnapshotHeader, check_archive, restore_archive};
pub use command::{Command, Condition, LogPosition, Outcome, Proposal, Transaction, Write};
pub use disk::create_private_dir;
pub use event::{Compacted, Cursor, Event};
pub use key::Key;
pub use meter::{DatabaseStats, Meter};
pub use record::Record;
pub use snapshot::{Export, Ready, SnapshotError, Staged};
pub use state::HistoryBound;
pub use store::{Fatal, OpenError, Options, Stats, Store, TableStats, Witness};
pub use survey::Survey;
pub use view::View;

/// Counts successful transactions; 0 is the empty store.
pub type Revision = u64;

//! What a disk holds of a state, read while nobody writes to it.

use std::path::Path;

use bytes::Bytes;

use crate::disk::Disk;
use crate::{LogPosition, OpenError, Options, Revision, Store};

/// What is kept of a state on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Survey {
    pub position: Option<LogPosition>,
    pub membership: Bytes,
    pub revision: Revision,
    pub compacted: Revision,
    pub hash: u64,
    pub records: u64,
    pub events: u64,
}

impl Store {
    /// Reads all that is kept at `dir` and changes nothing. `defect` gets what is wrong, as far as it doesn't prevent
    /// reading on; what is returned is what could be read.
    pub fn survey(dir: &Path, mut defect: impl FnMut(OpenError)) -> Result<Survey, OpenError> {
        let disk = Disk::open_read_only(dir, &Options::default())?;
        let state = disk.load(&mut |error| {
            defect(error);
            Ok(())
        })?;
        Ok(Survey {
            position: state.position,
            membership: state.membership.clone(),
            revision: state.revision,
            compacted: state.compacted,
            hash: state.hash,
            records: state.tables.values().map(|table| table.rows.len() as u64).sum(),
            events: state.history.events.len() as u64,
        })
    }
}

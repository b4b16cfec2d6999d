//! Snapshots: a whole state as a sequence of chunks, and the way such a sequence becomes the state of another store. The
//! rows are those that the disk keeps, each with its checksum; a chunk has one too, under its ordinal, so that none is
//! missing, repeated or out of order unnoticed. How chunks are framed is up to who carries them.

use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::codec::{self, Blob, CodecError};
use crate::disk::{
    Disk, Reading, Row, applied_row, client_row, event_row, family_named, membership_row, outcome_row, record_row,
};
use crate::fill::Fill;
use crate::state::{Rows, State};
use crate::{Fatal, Key, LogPosition, OpenError, Revision};

/// A chunk is closed once it has this many bytes. With four times as many the moments in which it is made, and taken, were
/// felt by whoever shares the processors: a leader had 2.0 times its p99 instead of 1.3.
const CHUNK: usize = 64 << 10;

#[derive(Serialize, Deserialize)]
pub(crate) struct Chunk<'a> {
    /// Family, key, value.
    #[serde(borrow)]
    pub(crate) rows: Vec<(&'a str, Blob<'a>, Blob<'a>)>,
    pub(crate) last: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error("chunk {chunk} of the snapshot is damaged: {source}")]
    Chunk { chunk: u64, source: CodecError },
    #[error("chunk {chunk} of the snapshot has a row of an unknown kind, {kind:?}")]
    Kind { chunk: u64, kind: String },
    #[error("the snapshot goes on after its end")]
    Trailing,
    #[error("the snapshot is cut short")]
    Short,
    #[error(transparent)]
    Write(#[from] Fatal),
    /// The rows don't make up a state.
    #[error(transparent)]
    State(#[from] OpenError),
}

/// A state being written out. It stays what it was when this was made, whatever the store applies meanwhile.
pub struct Export {
    state: Arc<State>,
    next: u64,
    stage: Stage,
    records_only: bool,
}

enum Stage {
    Meta,
    /// The tables still to come, the current one last, and the last key that was written.
    Records(Vec<Rows>, Option<Key>),
    Events(usize),
    Clients(Bound<u64>),
    Done,
}

impl Export {
    pub(crate) fn new(state: Arc<State>) -> Export {
        Export { state, next: 0, stage: Stage::Meta, records_only: false }
    }

    /// Without history, outcomes and membership.
    pub(crate) fn records(state: Arc<State>) -> Export {
        let stage = Stage::Records(tables(&state), None);
        Export { state, next: 0, stage, records_only: true }
    }

    pub fn position(&self) -> Option<LogPosition> {
        self.state.position
    }

    pub fn revision(&self) -> Revision {
        self.state.revision
    }

    pub fn membership(&self) -> &Bytes {
        &self.state.membership
    }

    /// None after the last chunk.
    pub fn next_chunk(&mut self) -> Result<Option<Vec<u8>>, CodecError> {
        let Some(rows) = self.next_rows()? else { return Ok(None) };
        let chunk = Chunk {
            rows: rows.iter().map(|row| (row.family, Blob(&row.key), Blob(&row.value))).collect(),
            last: matches!(self.stage, Stage::Done),
        };
        let bytes = codec::seal(&self.next.to_be_bytes(), &chunk)?;
        self.next += 1;
        Ok(Some(bytes))
    }

    /// The rows of the next chunk.
    pub(crate) fn next_rows(&mut self) -> Result<Option<Vec<Row>>, CodecError> {
        if matches!(self.stage, Stage::Done) {
            return Ok(None);
        }
        let mut rows = Vec::new();
        let mut bytes = 0;
        while bytes < CHUNK && !matches!(self.stage, Stage::Done) {
            let from = rows.len();
            self.step(&mut rows)?;
            bytes += rows[from..].iter().map(|row| row.key.len() + row.value.len()).sum::<usize>();
        }
        Ok(Some(rows))
    }

    /// Adds the next row, or those of the next client, or goes to the next stage.
    fn step(&mut self, rows: &mut Vec<Row>) -> Result<(), CodecError> {
        match &mut self.stage {
            Stage::Meta => {
                rows.push(applied_row(&self.state)?);
                rows.push(membership_row(&self.state)?);
                self.stage = Stage::Records(tables(&self.state), None);
            }
            Stage::Records(tables, last) => {
                let Some(table) = tables.last() else {
                    self.stage = if self.records_only { Stage::Done } else { Stage::Events(0) };
                    return Ok(());
                };
                let from = last.as_ref().map_or(Bound::Unbounded, |key| Bound::Excluded(key.as_str()));
                match table.range::<_, str>((from, Bound::Unbounded)).next() {
                    Some((key, record)) => {
                        rows.push(record_row(record)?);
                        *last = Some(key.clone());
                    }
                    None => {
                        tables.pop();
                        *last = None;
                    }
                }
            }
            Stage::Events(index) => match self.state.history.events.get(*index) {
                Some(event) => {
                    rows.push(event_row(*index as u32, event)?);
                    *index += 1;
                }
                None => self.stage = Stage::Clients(Bound::Unbounded),
            },
            Stage::Clients(from) => match self.state.dedup.clients.range((*from, Bound::Unbounded)).next() {
                Some((id, client)) => {
                    rows.push(client_row(*id, &client.head)?);
                    for (sequence, outcome) in &client.outcomes {
                        rows.push(outcome_row(*id, *sequence, *outcome)?);
                    }
                    *from = Bound::Excluded(*id);
                }
                None => self.stage = Stage::Done,
            },
            Stage::Done => {}
        }
        Ok(())
    }
}

/// The last comes first in the order of keys, which isn't that of the tables' names: a database takes it as one run.
fn tables(state: &State) -> Vec<Rows> {
    let mut tables: Vec<Rows> = state.tables.values().map(|table| table.rows.clone()).collect();
    tables.sort_by(|one, other| other.keys().next().cmp(&one.keys().next()));
    tables
}

/// A snapshot being read in, beside the state that it may replace. Dropped before its end it leaves nothing behind.
pub struct Staged {
    fill: Fill,
    reading: Reading,
    next: u64,
    complete: bool,
}

impl Staged {
    pub(crate) fn new(disk: Disk) -> Staged {
        Staged { fill: Fill::new(disk), reading: Reading::default(), next: 0, complete: false }
    }

    /// Takes the chunks in order. The state is made as they come, as far as that can be: not at the end from the disk, all at
    /// once, at the expense of whoever else uses it.
    pub fn add(&mut self, chunk: &[u8]) -> Result<(), SnapshotError> {
        if self.complete {
            return Err(SnapshotError::Trailing);
        }
        let ordinal = self.next;
        let read: Chunk = codec::unseal(&ordinal.to_be_bytes(), chunk)
            .map_err(|source| SnapshotError::Chunk { chunk: ordinal, source })?;
        for (kind, key, value) in read.rows {
            let family = family_named(kind)
                .ok_or_else(|| SnapshotError::Kind { chunk: ordinal, kind: kind.chars().take(32).collect() })?;
            let taken = self.reading.row(family, key.0, value.0);
            taken.map_err(|defect| self.fill.disk().found(family, key.0, defect))?;
            self.fill.add(Row { family, key: key.0.to_vec(), value: value.0.to_vec() })?;
        }
        self.next += 1;
        self.complete = read.last;
        Ok(())
    }

    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// Checks what is left to be checked.
    pub fn finish(self) -> Result<Ready, SnapshotError> {
        if !self.complete {
            return Err(SnapshotError::Short);
        }
        let disk = self.fill.finish()?;
        let state = disk.load_rest(self.reading, &mut Err)?;
        let position = state.position.ok_or(SnapshotError::Short)?;
        Ok(Ready { position, state, disk })
    }
}

/// A whole state, checked and durable, that [`crate::Store::install`] can put in the place of the current one. Dropped it
/// leaves nothing behind.
pub struct Ready {
    position: LogPosition,
    pub(crate) state: State,
    pub(crate) disk: Disk,
}

impl Ready {
    pub fn position(&self) -> LogPosition {
        self.position
    }

    pub fn revision(&self) -> Revision {
        self.state.revision
    }

    pub fn membership(&self) -> &Bytes {
        &self.state.membership
    }
}

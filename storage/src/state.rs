//! The replicated state as one immutable value, and the pure function that turns it into the next one.

use std::collections::HashSet;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use imbl::{OrdMap, OrdSet};

use crate::dedup::{Dedup, DedupChanges};
use crate::event::{Event, History};
use crate::key::table_of;
use crate::{Command, Condition, Key, LogPosition, Outcome, Proposal, Record, Revision, Transaction, Witness, Write};

pub(crate) type Rows = OrdMap<Key, Arc<Record>>;

/// How much history is retained at most, whatever the commands to compact say. Part of what replicas must agree on:
/// it decides which revisions are retained, so it is the same in all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistoryBound {
    pub events: usize,
    /// Superseded versions and what their events weigh.
    pub bytes: u64,
}

impl Default for HistoryBound {
    fn default() -> HistoryBound {
        HistoryBound { events: 500_000, bytes: 256 << 20 }
    }
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Table {
    pub(crate) rows: Rows,
    pub(crate) bytes: u64,
    pub(crate) history: Arc<History>,
}

/// Cloning is O(1) and what clones share they share for good, so a view of it costs nothing and a failed apply is
/// undone by dropping the clone it worked on.
#[derive(Debug, Clone, Default)]
pub(crate) struct State {
    pub(crate) position: Option<LogPosition>,
    pub(crate) revision: Revision,
    pub(crate) compacted: Revision,
    /// The sum of all records' hashes.
    pub(crate) hash: u64,
    pub(crate) tables: OrdMap<Key, Arc<Table>>,
    /// The events of all tables.
    pub(crate) history: Arc<History>,
    pub(crate) history_bytes: u64,
    pub(crate) expiry: OrdSet<(u64, Key)>,
    pub(crate) dedup: Dedup,
    /// Raft's own record of who is a member, opaque here.
    pub(crate) membership: Bytes,
    /// Events up to here were gone before this state was read from a disk or a snapshot.
    pub(crate) gap: Revision,
}

/// What one apply did, for the disk and the followers.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    pub(crate) events: Vec<Arc<Event>>,
    /// Of each revision that was made, in order.
    pub(crate) witnesses: Vec<Witness>,
    pub(crate) dedup: DedupChanges,
    /// What was trimmed, kept so that it is dropped where nobody waits for it.
    pub(crate) trimmed: Option<Arc<History>>,
    pub(crate) membership: bool,
}

impl State {
    pub(crate) fn apply<'a>(
        &mut self,
        position: LogPosition,
        proposals: impl IntoIterator<Item = &'a Proposal>,
        bound: HistoryBound,
        changes: &mut Changes,
    ) -> Vec<Outcome> {
        self.position = Some(position);
        let one = |proposal| {
            let outcome = self.propose(proposal, changes);
            // After each, for what is applied at once differs between replicas.
            if self.history.events.len() > bound.events || self.history_bytes > bound.bytes {
                self.shrink(bound, changes);
            }
            outcome
        };
        proposals.into_iter().map(one).collect()
    }

    fn propose(&mut self, proposal: &Proposal, changes: &mut Changes) -> Outcome {
        if let Some(outcome) = self.dedup.known(proposal, &mut changes.dedup) {
            return outcome;
        }
        let outcome = match &proposal.command {
            Command::Transact(transaction) => self.transact(transaction, changes),
            Command::Compact { before } => {
                self.compact((*before).min(self.revision), changes);
                Outcome::Compacted { revision: self.compacted }
            }
            Command::Skip { revisions } => {
                self.skip(*revisions, changes);
                Outcome::Compacted { revision: self.compacted }
            }
        };
        self.dedup.remember(proposal, outcome, &mut changes.dedup);
        outcome
    }

    fn transact(&mut self, transaction: &Transaction, changes: &mut Changes) -> Outcome {
        for (index, condition) in transaction.conditions.iter().enumerate() {
            if let Err(current) = self.check(condition) {
                return Outcome::Conflict { condition: index as u32, current };
            }
        }
        let writes = &transaction.writes;
        if writes.is_empty() {
            return Outcome::Committed { revision: self.revision };
        }
        self.revision += 1;
        let overwritten = overwritten(writes);
        for write in writes.iter().enumerate().filter(|(i, _)| !overwritten.contains(i)).map(|(_, write)| write) {
            self.write(write, changes);
        }
        changes.witnesses.push(Witness { hash: self.hash, compacted: Some(self.compacted) });
        Outcome::Committed { revision: self.revision }
    }

    fn check(&self, condition: &Condition) -> Result<(), Option<Revision>> {
        let modified = |key: &Key| self.get(key.as_str()).map(|record| record.modified);
        let (holds, current) = match condition {
            Condition::Absent(key) => {
                let current = modified(key);
                (current.is_none(), current)
            }
            Condition::At(key, revision) => {
                let current = modified(key);
                (current == Some(*revision), current)
            }
            Condition::Exists(key) => {
                let current = modified(key);
                (current.is_some(), current)
            }
            Condition::EmptyPrefix(prefix) => {
                let current = self.first_of(prefix);
                (current.is_none(), current)
            }
        };
        if holds { Ok(()) } else { Err(current) }
    }

    fn write(&mut self, write: &Write, changes: &mut Changes) {
        let key = write.key();
        let previous = self.get(key.as_str()).cloned();
        let record = match write {
            Write::Put { value, revision_at, expires_at, .. } => {
                let created = previous.as_ref().map_or(self.revision, |previous| previous.created);
                let key = previous.as_ref().map_or(key, |previous| &previous.key).clone();
                Some(Arc::new(Record::write(key, value, *revision_at, *expires_at, created, self.revision)))
            }
            Write::Delete { .. } if previous.is_none() => return,
            Write::Delete { .. } => None,
        };
        let key = record.as_ref().or(previous.as_ref()).map_or(key, |record| &record.key).clone();
        self.place(key.clone(), record.clone());
        let event = Arc::new(Event::new(self.revision, key, record, previous));
        self.follow(event.clone());
        changes.events.push(event);
    }

    /// Puts the record in the key's place, or clears it, and keeps what is derived from all records in step.
    pub(crate) fn place(&mut self, key: Key, record: Option<Arc<Record>>) {
        if let Some(record) = &record {
            self.hash = self.hash.wrapping_add(record.hash());
            if let Some(at) = record.expires_at {
                self.expiry.insert((at, key.clone()));
            }
        }
        let added = record.as_ref().map_or(0, |record| record.weight());
        let table = self.table_mut(key.table());
        let previous = match record {
            Some(record) => table.rows.insert(key.clone(), record),
            None => table.rows.remove(key.as_str()),
        };
        table.bytes += added;
        if let Some(previous) = previous {
            table.bytes -= previous.weight();
            self.hash = self.hash.wrapping_sub(previous.hash());
            let now = self.get(key.as_str()).and_then(|record| record.expires_at);
            if let Some(at) = previous.expires_at.filter(|at| now != Some(*at)) {
                self.expiry.remove(&(at, key));
            }
        }
    }

    /// Appends an event to the histories it belongs to.
    pub(crate) fn follow(&mut self, event: Arc<Event>) {
        self.history_bytes += event.weight();
        let table = self.table_mut(event.key.table());
        Arc::make_mut(&mut table.history).events.push_back(event.clone());
        Arc::make_mut(&mut self.history).events.push_back(event);
    }

    pub(crate) fn table_mut(&mut self, name: &str) -> &mut Table {
        let gap = self.gap;
        if !self.tables.contains_key(name) {
            let history = Arc::new(History::missing_before(gap));
            self.tables.insert(Key::from(name), Arc::new(Table { history, ..Table::default() }));
        }
        match self.tables.get_mut(name) {
            Some(table) => Arc::make_mut(table),
            None => unreachable!("the table was inserted above"),
        }
    }

    pub(crate) fn compact(&mut self, revision: Revision, changes: &mut Changes) {
        if revision <= self.compacted {
            return;
        }
        self.compacted = revision;
        let before = self.history.clone();
        Arc::make_mut(&mut self.history).trim(revision);
        let gone = before.events.len() - self.history.events.len();
        let mut tables = HashSet::new();
        for event in before.events.iter().take(gone) {
            self.history_bytes -= event.weight();
            tables.insert(event.key.table());
        }
        for table in tables {
            Arc::make_mut(&mut self.table_mut(table).history).trim(revision);
        }
        changes.trimmed.get_or_insert(before);
    }

    fn skip(&mut self, revisions: Revision, changes: &mut Changes) {
        self.revision = self.revision.saturating_add(revisions);
        self.compact(self.revision, changes);
        // Also where there was no event: nobody goes on from a revision that never was.
        self.gap = self.revision;
        Arc::make_mut(&mut self.history).trimmed = self.revision;
        let tables: Vec<_> = self.tables.keys().cloned().collect();
        for table in tables {
            Arc::make_mut(&mut self.table_mut(table.as_str()).history).trimmed = self.revision;
        }
    }

    /// Brings the history a little below its bound, so that this isn't needed at every command and never takes long.
    fn shrink(&mut self, bound: HistoryBound, changes: &mut Changes) {
        let (events, bytes) = (bound.events - bound.events / 128, bound.bytes - bound.bytes / 128);
        let (mut left, mut weight) = (self.history.events.len(), self.history_bytes);
        let mut revision = self.compacted;
        for event in self.history.events.iter() {
            if left <= events && weight <= bytes && event.revision > revision {
                break;
            }
            left -= 1;
            weight -= event.weight();
            revision = event.revision;
        }
        self.compact(revision, changes);
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Arc<Record>> {
        self.tables.get(table_of(key))?.rows.get(key)
    }

    /// The revision that wrote the first key with this prefix.
    fn first_of(&self, prefix: &str) -> Option<Revision> {
        let first = |rows: &Rows| {
            let (key, record) = rows.range::<_, str>((Bound::Included(prefix), Bound::Unbounded)).next()?;
            key.as_str().starts_with(prefix).then_some(record.modified)
        };
        if prefix.contains('/') {
            first(&self.tables.get(table_of(prefix))?.rows)
        } else {
            self.tables.values().find_map(|table| first(&table.rows))
        }
    }
}

/// Which writes a later write to the same key makes void.
fn overwritten(writes: &[Write]) -> HashSet<usize> {
    let mut void = HashSet::new();
    if writes.len() > 1 {
        let mut seen = HashSet::with_capacity(writes.len());
        void.extend((0..writes.len()).rev().filter(|index| !seen.insert(writes[*index].key())));
    }
    void
}

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::codec::{CodecError, FORMAT};
use crate::disk::{Disk, Probe};
use crate::event::{Feed, History};
use crate::fill::Fill;
use crate::state::{Changes, HistoryBound, State};
use crate::view::Past;
use crate::{
    Archive, Compacted, Cursor, DatabaseStats, Export, Key, LogPosition, Outcome, Proposal, Ready, Revision, Staged,
    View,
};

/// Views of the past that are kept for the next page of a list.
const PAST_VIEWS: usize = 8;
/// A history longer than this is dropped by a thread of its own.
const LONG: usize = 2048;
/// Revisions whose witness is known, the newest ones.
const WITNESSES: usize = 16 << 10;

#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// What RocksDB may use for its blocks and write buffers together; the objects themselves come on top. A replica
    /// gives a third of it to its log.
    pub memory_budget: usize,
    pub history: HistoryBound,
}

impl Default for Options {
    fn default() -> Options {
        Options { memory_budget: 48 << 20, history: HistoryBound::default() }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{path}: {source}", path = path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{path}: {detail}", path = path.display())]
    Database { path: PathBuf, detail: String },
    #[error(
        "{path}: {what} is damaged: {detail}. This replica's state can't be trusted: remove it from the cluster, empty \
         its data directory and let it join again, or restore a snapshot",
        path = path.display()
    )]
    Corrupt { path: PathBuf, what: String, detail: String },
    #[error(
        "{path}: {what} was written by a newer release, in format {found}; this one reads formats up to {FORMAT}. Start \
         that release or a later one",
        path = path.display()
    )]
    Newer { path: PathBuf, what: String, found: u8 },
}

/// Why an apply was not done. The state is what it was before, in memory and on disk.
#[derive(Debug, thiserror::Error)]
pub enum Fatal {
    #[error("log position {given} was to be applied after {applied}")]
    OutOfOrder { applied: u64, given: u64 },
    /// The same apply may be tried again once there is space.
    #[error("no space is left for the state: {0}")]
    NoSpace(String),
    #[error("the state can't be written: {0}")]
    Disk(String),
}

impl From<rocksdb::Error> for Fatal {
    fn from(error: rocksdb::Error) -> Fatal {
        let text = error.into_string();
        if text.to_ascii_lowercase().contains("no space") { Fatal::NoSpace(text) } else { Fatal::Disk(text) }
    }
}

impl From<std::io::Error> for Fatal {
    fn from(error: std::io::Error) -> Fatal {
        match error.kind() {
            std::io::ErrorKind::StorageFull => Fatal::NoSpace(error.to_string()),
            _ => Fatal::Disk(error.to_string()),
        }
    }
}

impl From<OpenError> for Fatal {
    fn from(error: OpenError) -> Fatal {
        let full = match &error {
            OpenError::Io { source, .. } => source.kind() == std::io::ErrorKind::StorageFull,
            OpenError::Database { detail, .. } => detail.to_ascii_lowercase().contains("no space"),
            OpenError::Corrupt { .. } | OpenError::Newer { .. } => false,
        };
        if full { Fatal::NoSpace(error.to_string()) } else { Fatal::Disk(error.to_string()) }
    }
}

impl From<CodecError> for Fatal {
    fn from(error: CodecError) -> Fatal {
        Fatal::Disk(error.to_string())
    }
}

/// What an operator wants to know.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    pub revision: Revision,
    pub compacted: Revision,
    pub tables: Vec<TableStats>,
    pub history_events: u64,
    /// Superseded versions and what their events weigh.
    pub history_bytes: u64,
    pub dedup_clients: u64,
    pub database: DatabaseStats,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableStats {
    pub name: Key,
    pub keys: u64,
    /// Of keys and values.
    pub bytes: u64,
    pub history_events: u64,
}

/// The replicated state machine of one replica. A handle: clones are the same store.
#[derive(Clone)]
pub struct Store(Arc<Shared>);

struct Shared {
    state: ArcSwap<State>,
    /// Held by whoever changes the state.
    disk: Mutex<Disk>,
    /// Into the current database.
    probe: Mutex<Probe>,
    feeds: RwLock<HashMap<Key, Arc<Feed>>>,
    all: Arc<Feed>,
    revisions: watch::Sender<Revision>,
    pasts: Mutex<Vec<Arc<Past>>>,
    witnesses: Mutex<Witnesses>,
    bound: HistoryBound,
    /// The newest generation that was staged. Held while the state on disk is flushed, so that it isn't replaced then.
    generations: Mutex<u64>,
}

/// What replicas agree on at each revision, whatever they have been through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Witness {
    /// Of all records.
    pub hash: u64,
    /// The oldest revision that was retained when this one was made. None: the state was read from a disk or a snapshot
    /// since, which show what is retained now.
    pub compacted: Option<Revision>,
}

/// The witnesses of the newest revisions; the last is that of `newest`.
struct Witnesses {
    newest: Revision,
    all: VecDeque<Witness>,
}

impl Witnesses {
    fn of(state: &State) -> Witnesses {
        Witnesses { newest: state.revision, all: VecDeque::from([Witness { hash: state.hash, compacted: None }]) }
    }

    fn add(&mut self, witness: Witness) {
        if self.all.len() == WITNESSES {
            self.all.pop_front();
        }
        self.all.push_back(witness);
        self.newest += 1;
    }

    fn at(&self, revision: Revision) -> Option<Witness> {
        let back = usize::try_from(self.newest.checked_sub(revision)?).ok()?;
        self.all.get(self.all.len().checked_sub(back + 1)?).copied()
    }
}

impl Store {
    pub fn open(dir: &Path, options: Options) -> Result<Store, OpenError> {
        let (disk, state) = Disk::open(dir, &options)?;
        Ok(Store(Arc::new(Shared {
            all: Arc::new(Feed::new(state.history.clone())),
            revisions: watch::Sender::new(state.revision),
            witnesses: Mutex::new(Witnesses::of(&state)),
            state: ArcSwap::from_pointee(state),
            probe: Mutex::new(disk.probe()),
            disk: Mutex::new(disk),
            feeds: RwLock::default(),
            pasts: Mutex::default(),
            bound: options.history,
            generations: Mutex::default(),
        })))
    }

    /// Applies the proposals of a stretch of the log that ends at `position`, in order: one atomic batch on disk, one
    /// view published at the end. Without proposals it records the position. Meant for one thread.
    pub fn apply<'a>(
        &self,
        position: LogPosition,
        proposals: impl IntoIterator<Item = &'a Proposal>,
    ) -> Result<Vec<Outcome>, Fatal> {
        self.advance(position, |state, bound, changes| state.apply(position, proposals, bound, changes))
    }

    /// The same, unless it had to wait for the disk: then it does nothing.
    pub fn try_apply<'a>(
        &self,
        position: LogPosition,
        proposals: impl IntoIterator<Item = &'a Proposal>,
    ) -> Result<Option<Vec<Outcome>>, Fatal> {
        let Some(mut disk) = self.0.disk.try_lock().filter(|disk| !disk.owes_much()) else { return Ok(None) };
        let change = |state: &mut State, bound, changes: &mut Changes| state.apply(position, proposals, bound, changes);
        self.change(&mut disk, position, change).map(Some)
    }

    /// Records who is a member, as of `position`.
    pub fn apply_membership(&self, position: LogPosition, membership: Bytes) -> Result<(), Fatal> {
        self.advance(position, |state, _, changes| {
            state.position = Some(position);
            state.membership = membership;
            changes.membership = true;
        })
    }

    /// The position that the published state has; after a crash that may be an earlier one than before.
    pub fn applied(&self) -> Option<LogPosition> {
        self.0.state.load().position
    }

    /// What [`Store::apply_membership`] was last given; empty at first.
    pub fn membership(&self) -> Bytes {
        self.0.state.load().membership.clone()
    }

    /// Makes the state durable and returns the position that it will have after a crash: the log may be purged up to it.
    /// Others go on applying meanwhile.
    pub fn flush(&self) -> Result<Option<LogPosition>, Fatal> {
        let _one_at_a_time = self.0.generations.lock();
        let (position, flusher) = {
            let mut disk = self.0.disk.lock();
            let state = self.0.state.load_full();
            disk.write(&state)?;
            (state.position, disk.flusher())
        };
        flusher.flush()?;
        Ok(position)
    }

    /// Writes the whole state out anew, durably, into a database that takes the place of the current one: the way on
    /// after that one has failed to write.
    pub fn rewrite(&self) -> Result<(), Fatal> {
        let mut newest = self.0.generations.lock();
        let mut disk = self.0.disk.lock();
        *newest = disk.generation().max(*newest) + 1;
        let mut fill = Fill::new(disk.stage(*newest)?);
        let mut export = self.export();
        while let Some(rows) = export.next_rows()? {
            rows.into_iter().try_for_each(|row| fill.add(row))?;
        }
        self.switch(&mut disk, fill.finish()?)
    }

    fn switch(&self, disk: &mut Disk, staged: Disk) -> Result<(), Fatal> {
        disk.switch(staged)?;
        *self.0.probe.lock() = disk.probe();
        Ok(())
    }

    /// The current state, to be written out as a snapshot.
    pub fn export(&self) -> Export {
        Export::new(self.0.state.load_full())
    }

    /// The records of the current state, to be written out as a snapshot file.
    pub fn archive(&self, cluster: u64, taken_at: u64, taken_by: &str) -> Archive {
        Archive::new(self.0.state.load_full(), cluster, taken_at, taken_by)
    }

    /// Where a snapshot is read in.
    pub fn stage(&self) -> Result<Staged, OpenError> {
        let mut newest = self.0.generations.lock();
        let disk = self.0.disk.lock();
        *newest = disk.generation().max(*newest) + 1;
        Ok(Staged::new(disk.stage(*newest)?))
    }

    /// Puts a snapshot in the place of the state, durably and at once: a crash leaves one or the other. Whoever follows
    /// events goes on, unless one that was still to come is no longer retained.
    pub fn install(&self, ready: Ready) -> Result<(), Fatal> {
        let _not_while_flushing = self.0.generations.lock();
        let mut disk = self.0.disk.lock();
        let before = self.0.state.load_full();
        let Ready { state, disk: staged, .. } = ready;
        if state.position <= before.position {
            let index = |state: &State| state.position.map_or(0, |position| position.index);
            return Err(Fatal::OutOfOrder { applied: index(&before), given: index(&state) });
        }
        self.switch(&mut disk, staged)?;
        *self.0.witnesses.lock() = Witnesses::of(&state);
        self.publish(state, Changes { trimmed: Some(before.history.clone()), ..Changes::default() });
        Ok(())
    }

    pub fn view(&self) -> View {
        View::now(self.0.state.load_full())
    }

    /// The view at an earlier revision. A revision that hasn't been applied yet gives the current view: wait for it.
    pub fn view_at(&self, revision: Revision) -> Result<View, Compacted> {
        let state = self.0.state.load_full();
        check(&state, revision)?;
        if revision >= state.revision {
            return Ok(View::now(state));
        }
        let mut pasts = self.0.pasts.lock();
        if let Some(index) = pasts.iter().position(|past| past.revision == revision) {
            let past = pasts.remove(index);
            pasts.push(past.clone());
            return Ok(View::then(past));
        }
        let past = Arc::new(Past::new(state, revision));
        if pasts.len() == PAST_VIEWS {
            pasts.remove(0);
        }
        pasts.push(past.clone());
        Ok(View::then(past))
    }

    /// Waits until `revision` has been applied.
    pub async fn wait_for(&self, revision: Revision) -> View {
        // Fails only when the sender is gone, and `self` holds it.
        let _ = self.0.revisions.subscribe().wait_for(|applied| *applied >= revision).await;
        self.view()
    }

    /// All events of the table after the revision.
    pub fn subscribe(&self, table: &str, after: Revision) -> Result<Cursor, Compacted> {
        check(&self.0.state.load(), after)?;
        Ok(Cursor::new(self.feed(table), after))
    }

    /// All events after the revision.
    pub fn subscribe_all(&self, after: Revision) -> Result<Cursor, Compacted> {
        check(&self.0.state.load(), after)?;
        Ok(Cursor::new(self.0.all.clone(), after))
    }

    pub fn applied_revision(&self) -> Revision {
        self.0.state.load().revision
    }

    /// The oldest revision that can be viewed, and after which all events are retained.
    pub fn compacted_revision(&self) -> Revision {
        self.0.state.load().compacted
    }

    /// The applied revision as it moves.
    pub fn revisions(&self) -> watch::Receiver<Revision> {
        self.0.revisions.subscribe()
    }

    /// Keys whose time has come, with the revisions that wrote them, those due first.
    pub fn expired(&self, now_unix: u64, limit: usize) -> Vec<(Key, Revision)> {
        let state = self.0.state.load();
        let due = state.expiry.iter().take_while(|(at, _)| *at <= now_unix).take(limit);
        due.filter_map(|(_, key)| state.get(key.as_str())).map(|record| (record.key.clone(), record.modified)).collect()
    }

    /// A hash of all records that replicas at the same revision agree on.
    pub fn state_hash(&self) -> (Revision, u64) {
        let state = self.0.state.load();
        (state.revision, state.hash)
    }

    /// What replicas agree on at a revision; None: it isn't known any more, or not yet.
    pub fn witness_at(&self, revision: Revision) -> Option<Witness> {
        self.0.witnesses.lock().at(revision)
    }

    pub fn disk_size(&self) -> u64 {
        self.0.probe.lock().size()
    }

    pub fn stats(&self) -> Stats {
        let state = self.0.state.load_full();
        let tables = state.tables.iter().map(|(name, table)| TableStats {
            name: name.clone(),
            keys: table.rows.len() as u64,
            bytes: table.bytes,
            history_events: table.history.events.len() as u64,
        });
        Stats {
            revision: state.revision,
            compacted: state.compacted,
            tables: tables.collect(),
            history_events: state.history.events.len() as u64,
            history_bytes: state.history_bytes,
            dedup_clients: state.dedup.clients.len() as u64,
            database: self.0.probe.lock().stats(),
        }
    }

    fn advance<T>(
        &self,
        position: LogPosition,
        change: impl FnOnce(&mut State, HistoryBound, &mut Changes) -> T,
    ) -> Result<T, Fatal> {
        let mut disk = self.0.disk.lock();
        // Before anything is changed, so that what fails can be tried again.
        if disk.owes_much() {
            disk.write(&self.0.state.load())?;
        }
        self.change(&mut disk, position, change)
    }

    fn change<T>(
        &self,
        disk: &mut Disk,
        position: LogPosition,
        change: impl FnOnce(&mut State, HistoryBound, &mut Changes) -> T,
    ) -> Result<T, Fatal> {
        let before = self.0.state.load_full();
        if let Some(applied) = before.position.filter(|applied| position.index <= applied.index) {
            return Err(Fatal::OutOfOrder { applied: applied.index, given: position.index });
        }
        let mut state = State::clone(&before);
        let mut changes = Changes::default();
        let result = change(&mut state, self.0.bound, &mut changes);
        disk.owe(&changes);
        drop(before);
        self.publish(state, changes);
        Ok(result)
    }

    /// Shows the new state: to readers first, so that whoever hears of an event finds it in the view.
    fn publish(&self, state: State, changes: Changes) {
        let state = Arc::new(state);
        {
            let mut witnesses = self.0.witnesses.lock();
            changes.witnesses.iter().for_each(|witness| witnesses.add(*witness));
            // Revisions were left out.
            if witnesses.newest != state.revision {
                *witnesses = Witnesses::of(&state);
            }
        }
        self.0.state.store(state.clone());
        if let Some(trimmed) = changes.trimmed {
            self.0.pasts.lock().retain(|past| past.revision >= state.compacted);
            for (table, feed) in self.0.feeds.read().iter() {
                feed.publish(history_of(&state, table.as_str()));
            }
            self.drop_unused_feeds();
            if trimmed.events.len() > LONG {
                // Freeing a minute's events takes milliseconds that the next apply need not wait for.
                std::thread::spawn(move || drop(trimmed));
            }
            self.0.all.publish(state.history.clone());
        } else if !changes.events.is_empty() {
            let feeds = self.0.feeds.read();
            let mut last = "";
            for name in changes.events.iter().map(|event| event.key.table()) {
                if name != last
                    && let (Some(feed), Some(table)) = (feeds.get(name), state.tables.get(name))
                {
                    feed.publish(table.history.clone());
                }
                last = name;
            }
            self.0.all.publish(state.history.clone());
        }
        self.0.revisions.send_if_modified(|revision| std::mem::replace(revision, state.revision) != state.revision);
    }

    fn feed(&self, table: &str) -> Arc<Feed> {
        if let Some(feed) = self.0.feeds.read().get(table) {
            return feed.clone();
        }
        let mut feeds = self.0.feeds.write();
        // Read under the lock that publishing takes: what this misses is published to the feed made here.
        let state = self.0.state.load();
        let new = || Arc::new(Feed::new(history_of(&state, table)));
        feeds.entry(Key::from(table)).or_insert_with(new).clone()
    }

    fn drop_unused_feeds(&self) {
        self.0.feeds.write().retain(|_, feed| Arc::strong_count(feed) > 1);
    }
}

fn history_of(state: &State, table: &str) -> Arc<History> {
    match state.tables.get(table) {
        Some(table) => table.history.clone(),
        None => Arc::new(History::missing_before(state.gap)),
    }
}

fn check(state: &State, requested: Revision) -> Result<(), Compacted> {
    if requested < state.compacted {
        return Err(Compacted { requested, compacted: state.compacted });
    }
    Ok(())
}

#[cfg(test)]
mod tests;

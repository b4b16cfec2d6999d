use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use rocksdb::WriteBatch;
use tokio::sync::watch;

use crate::codec::{CodecError, FORMAT};
use crate::disk::{Disk, Probe};
use crate::event::{Feed, History};
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
/// Revisions whose state hash is known, the newest ones.
const HASHES: usize = 16 << 10;

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
    hashes: Mutex<Hashes>,
    bound: HistoryBound,
    /// The newest generation that was staged. Held while the state on disk is flushed, so that it isn't replaced then.
    generations: Mutex<u64>,
}

/// The state's hash at the newest revisions; the last is that of `newest`.
struct Hashes {
    newest: Revision,
    hashes: VecDeque<u64>,
}

impl Hashes {
    fn of(state: &State) -> Hashes {
        Hashes { newest: state.revision, hashes: VecDeque::from([state.hash]) }
    }

    fn add(&mut self, hash: u64) {
        if self.hashes.len() == HASHES {
            self.hashes.pop_front();
        }
        self.hashes.push_back(hash);
        self.newest += 1;
    }

    fn at(&self, revision: Revision) -> Option<u64> {
        let back = usize::try_from(self.newest.checked_sub(revision)?).ok()?;
        self.hashes.get(self.hashes.len().checked_sub(back + 1)?).copied()
    }
}

impl Store {
    pub fn open(dir: &Path, options: Options) -> Result<Store, OpenError> {
        let (disk, state) = Disk::open(dir, &options)?;
        Ok(Store(Arc::new(Shared {
            all: Arc::new(Feed::new(state.history.clone())),
            revisions: watch::Sender::new(state.revision),
            hashes: Mutex::new(Hashes::of(&state)),
            state: ArcSwap::from_pointee(state),
            probe: Mutex::new(disk.probe()),
            disk: Mutex::new(disk),
            feeds: RwLock::default(),
            pasts: Mutex::default(),
            bound: options.history,
            generations: Mutex::default(),
        })))
    }

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

    /// Applies the proposals of a stretch of the log that ends at `position`, in order: one atomic batch on disk, one
    /// view published at the end. Without proposals it records the position. Meant for one thread.
    pub fn apply<'a>(
        &self,
        position: LogPosition,
        proposals: impl IntoIterator<Item = &'a Proposal>,
    ) -> Result<Vec<Outcome>, Fatal> {
        self.advance(position, |state, bound, changes| state.apply(position, proposals, bound, changes))
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
            let disk = self.0.disk.lock();
            (self.applied(), disk.flusher())
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
        let staged = disk.stage(*newest)?;
        let mut export = self.export();
        let written = loop {
            match export.next_rows() {
                Ok(Some(rows)) => {
                    let mut batch = WriteBatch::default();
                    rows.into_iter().for_each(|row| staged.put(&mut batch, row));
                    if let Err(error) = staged.commit(batch) {
                        break Err(error);
                    }
                }
                Ok(None) => break staged.flush(),
                Err(error) => break Err(error.into()),
            }
        };
        match written {
            Ok(()) => self.switch(&mut disk, staged),
            Err(error) => {
                staged.discard();
                Err(error)
            }
        }
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
        let Some((state, staged)) = ready.take() else { return Ok(()) };
        if state.position <= before.position {
            staged.discard();
            let index = |state: &State| state.position.map_or(0, |position| position.index);
            return Err(Fatal::OutOfOrder { applied: index(&before), given: index(&state) });
        }
        self.switch(&mut disk, staged)?;
        *self.0.hashes.lock() = Hashes::of(&state);
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

    /// That hash at an earlier revision; None: it isn't known any more, or not yet.
    pub fn hash_at(&self, revision: Revision) -> Option<u64> {
        self.0.hashes.lock().at(revision)
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
        let disk = self.0.disk.lock();
        let before = self.0.state.load_full();
        if let Some(applied) = before.position.filter(|applied| position.index <= applied.index) {
            return Err(Fatal::OutOfOrder { applied: applied.index, given: position.index });
        }
        let mut state = State::clone(&before);
        let mut changes = Changes::default();
        let result = change(&mut state, self.0.bound, &mut changes);
        disk.write(&state, &changes)?;
        drop(before);
        self.publish(state, changes);
        Ok(result)
    }

    /// Shows the new state: to readers first, so that whoever hears of an event finds it in the view.
    fn publish(&self, state: State, changes: Changes) {
        let state = Arc::new(state);
        {
            let mut hashes = self.0.hashes.lock();
            changes.hashes.iter().for_each(|hash| hashes.add(*hash));
            // Revisions were left out.
            if hashes.newest != state.revision {
                *hashes = Hashes::of(&state);
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
mod tests {
    use super::*;
    use crate::{Command, Condition, SnapshotError, Transaction, Write};

    fn at(index: u64) -> LogPosition {
        LogPosition { index, term: 1, node: 1 }
    }

    fn put(key: &str, value: &str) -> Write {
        let revision_at = value.find("()").map(|at| at as u32 + 1);
        Write::Put { key: key.into(), value: Bytes::copy_from_slice(value.as_bytes()), revision_at, expires_at: None }
    }

    fn delete(key: &str) -> Write {
        Write::Delete { key: key.into() }
    }

    fn transact(conditions: Vec<Condition>, writes: Vec<Write>) -> Proposal {
        let command = Command::Transact(Transaction { conditions, writes });
        Proposal { client: 0, sequence: 0, acknowledged: 0, command }
    }

    fn compact(before: Revision) -> Proposal {
        Proposal { client: 0, sequence: 0, acknowledged: 0, command: Command::Compact { before } }
    }

    struct Fixture {
        dir: tempfile::TempDir,
        store: Store,
        index: u64,
    }

    impl Fixture {
        fn new() -> Fixture {
            let dir = tempfile::tempdir().unwrap();
            Fixture { store: Store::open(dir.path(), Options::default()).unwrap(), dir, index: 0 }
        }

        fn apply(&mut self, proposals: &[Proposal]) -> Vec<Outcome> {
            self.index += 1;
            self.store.apply(at(self.index), proposals).unwrap()
        }

        fn writes(&mut self, writes: Vec<Write>) -> Outcome {
            self.apply(&[transact(vec![], writes)])[0]
        }

        fn reopen(mut self) -> Fixture {
            drop(self.store);
            self.store = Store::open(self.dir.path(), Options::default()).unwrap();
            self.index = self.store.applied().map_or(0, |position| position.index);
            self
        }
    }

    fn keys(view: &View, prefix: &str) -> Vec<String> {
        view.prefix(prefix).map(|record| record.key.to_string()).collect()
    }

    fn drain(cursor: &mut Cursor) -> Vec<(Revision, String)> {
        std::iter::from_fn(|| cursor.try_next().unwrap()).map(|e| (e.revision, e.key.to_string())).collect()
    }

    #[test]
    fn a_transaction_happens_at_one_revision_or_not_at_all() {
        let mut f = Fixture::new();
        assert_eq!(f.writes(vec![put("a/1", "v()"), put("b/1", "w")]), Outcome::Committed { revision: 1 });
        let view = f.store.view();
        assert_eq!(&view.get("a/1").unwrap().value[..], b"v(1)");
        assert_eq!(view.get("a/1").unwrap().revision_span, Some((2, 1)));
        assert_eq!(view.get("a/1").unwrap().value_at(1234), "v(1234)");
        let outcomes = f.apply(&[
            transact(vec![Condition::Exists("a/1".into()), Condition::Absent("b/1".into())], vec![delete("a/1")]),
            transact(vec![Condition::At("a/1".into(), 7)], vec![delete("a/1")]),
            transact(vec![Condition::EmptyPrefix("b/".into())], vec![delete("a/1")]),
            transact(vec![Condition::Exists("c/1".into())], vec![delete("a/1")]),
            transact(vec![Condition::At("a/1".into(), 1)], vec![put("a/1", "x()")]),
        ]);
        let conflict = |condition, current| Outcome::Conflict { condition, current };
        assert_eq!(
            outcomes,
            [
                conflict(1, Some(1)),
                conflict(0, Some(1)),
                conflict(0, Some(1)),
                conflict(0, None),
                Outcome::Committed { revision: 2 }
            ]
        );
        assert_eq!(view.revision(), 1, "a view stays what it was");
        assert_eq!(&view.get("a/1").unwrap().value[..], b"v(1)");
        let record = f.store.view().get("a/1").unwrap().clone();
        assert_eq!((record.created, record.modified, &record.value[..]), (1, 2, &b"x(2)"[..]));
    }

    #[test]
    fn replicas_that_batch_differently_agree_on_the_hash_of_each_revision() {
        let (mut one, mut other) = (Fixture::new(), Fixture::new());
        let proposals: Vec<_> = (0..50).map(|n| transact(vec![], vec![put(&format!("a/{}", n % 7), "()")])).collect();
        one.apply(&proposals);
        proposals.chunks(3).for_each(|some| drop(other.apply(some)));
        let hashes = |store: &Store| (0..=51).map(|revision| store.hash_at(revision)).collect::<Vec<_>>();
        assert_eq!(hashes(&one.store), hashes(&other.store));
        assert_eq!((one.store.hash_at(0), one.store.hash_at(51)), (Some(0), None));
        assert_eq!(one.store.state_hash(), (50, one.store.hash_at(50).unwrap()));
        assert_ne!(one.store.hash_at(49), one.store.hash_at(50));
        one.store.flush().unwrap();
        let one = one.reopen();
        assert_eq!((one.store.hash_at(50), one.store.hash_at(49)), (other.store.hash_at(50), None));
    }

    #[test]
    fn the_last_write_to_a_key_counts() {
        let mut f = Fixture::new();
        f.writes(vec![put("a/1", "1"), put("a/2", "2"), put("a/1", "3"), delete("a/2")]);
        assert_eq!(keys(&f.store.view(), ""), ["a/1"]);
        assert_eq!(f.store.view().get("a/1").unwrap().value, "3");
        assert_eq!(drain(&mut f.store.subscribe_all(0).unwrap()), [(1, "a/1".into())]);
    }

    #[test]
    fn ranges_stay_within_their_prefix() {
        let mut f = Fixture::new();
        f.writes(["pods/a/1", "pods/a/2", "pods/ab/1", "pods.x/a/1", "pod/1"].map(|key| put(key, "")).to_vec());
        let view = f.store.view();
        assert_eq!(keys(&view, "pods/a/"), ["pods/a/1", "pods/a/2"]);
        assert_eq!(keys(&view, "pods/"), ["pods/a/1", "pods/a/2", "pods/ab/1"]);
        assert_eq!((view.count("pods/"), view.count("pods/a/"), view.count("pod"), view.count("nodes/")), (3, 2, 5, 0));
        let from: Vec<_> = view.range("pods/", std::ops::Bound::Excluded("pods/a/1")).map(|r| r.key.as_str()).collect();
        assert_eq!(from, ["pods/a/2", "pods/ab/1"]);
    }

    #[test]
    fn a_state_flushed_is_found_again_and_the_rest_is_replayed() {
        let mut f = Fixture::new();
        f.writes(vec![put("a/1", "one()"), put("a/2", "two")]);
        f.writes(vec![put("a/1", "uno()")]);
        f.writes(vec![delete("a/2")]);
        f.store.apply_membership(at(4), "us".into()).unwrap();
        assert_eq!(f.store.flush().unwrap(), Some(at(4)));
        let hash = f.store.state_hash();
        let mut f = f.reopen();
        assert_eq!((f.store.applied(), f.store.membership()), (Some(at(4)), "us".into()));
        assert_eq!(f.store.state_hash(), hash);
        assert_eq!(f.store.view_at(1).unwrap().get("a/1").unwrap().value, "one(1)");
        assert_eq!(keys(&f.store.view_at(2).unwrap(), "a/"), ["a/1", "a/2"]);
        let mut cursor = f.store.subscribe("a", 1).unwrap();
        assert_eq!(drain(&mut cursor), [(2, "a/1".into()), (3, "a/2".into())]);
        f.index = 4;
        f.writes(vec![put("a/3", "three")]);
        assert!(matches!(f.store.apply(at(5), &[]), Err(Fatal::OutOfOrder { applied: 5, given: 5 })));
        assert_eq!(drain(&mut cursor), [(4, "a/3".into())]);
    }

    #[test]
    fn compaction_takes_old_views_and_events_and_spares_cursors_that_miss_nothing() {
        let mut f = Fixture::new();
        let mut quiet = f.store.subscribe("b", 0).unwrap();
        let mut slow = f.store.subscribe("a", 0).unwrap();
        for n in 0..5 {
            f.writes(vec![put("a/1", &format!("{n}()"))]);
        }
        assert_eq!(f.apply(&[compact(3)]), [Outcome::Compacted { revision: 3 }]);
        assert_eq!(f.apply(&[compact(2)]), [Outcome::Compacted { revision: 3 }]);
        let gone = Compacted { requested: 2, compacted: 3 };
        assert_eq!(f.store.view_at(2).unwrap_err(), gone);
        assert_eq!(f.store.subscribe("a", 2).unwrap_err(), gone);
        assert_eq!(f.store.view_at(3).unwrap().get("a/1").unwrap().value, "2(3)");
        assert!(slow.try_next().is_err());
        f.writes(vec![put("b/1", "")]);
        assert_eq!(drain(&mut quiet), [(6, "b/1".into())]);
        f.store.flush().unwrap();
        let f = f.reopen();
        assert_eq!(f.store.compacted_revision(), 3);
        assert_eq!(drain(&mut f.store.subscribe_all(3).unwrap()).len(), 3);
    }

    #[test]
    fn who_has_seen_a_revision_that_is_left_out_looks_again() {
        let mut f = Fixture::new();
        f.writes(vec![put("a/1", "v()"), put("b/1", "")]);
        let mut slow = f.store.subscribe("b", 1).unwrap();
        let skip = Proposal { client: 0, sequence: 0, acknowledged: 0, command: Command::Skip { revisions: 1000 } };
        let after = [skip, transact(vec![], vec![put("a/1", "w()")])];
        let left = [Outcome::Compacted { revision: 1001 }, Outcome::Committed { revision: 1002 }];
        assert_eq!(f.apply(&after), left);
        assert_eq!(f.store.state_hash(), (1002, f.store.hash_at(1002).unwrap()));
        assert!(slow.try_next().is_err());
        let check = |store: &Store| {
            for table in ["a", "b", "c"] {
                assert!(store.subscribe(table, 7).is_err(), "{table}");
            }
            assert_eq!(store.view_at(1001).unwrap().get("a/1").unwrap().value, "v(1)");
            assert_eq!(drain(&mut store.subscribe("a", 1001).unwrap()), [(1002, "a/1".into())]);
        };
        check(&f.store);
        f.store.flush().unwrap();
        check(&f.reopen().store);
    }

    #[test]
    fn a_retry_is_answered_and_not_repeated_even_after_a_restart() {
        let mut f = Fixture::new();
        let proposal = |sequence, acknowledged, writes| Proposal {
            client: 9,
            sequence,
            acknowledged,
            ..transact(vec![Condition::Absent("a/1".into())], writes)
        };
        let create = proposal(1, 1, vec![put("a/1", "")]);
        let done = Outcome::Committed { revision: 1 };
        assert_eq!(f.apply(&[create.clone(), create.clone()]), [done, done]);
        f.store.flush().unwrap();
        let mut f = f.reopen();
        assert_eq!(f.apply(std::slice::from_ref(&create)), [done]);
        let conflict = Outcome::Conflict { condition: 0, current: Some(1) };
        assert_eq!(f.apply(&[proposal(3, 2, vec![]), create]), [conflict, Outcome::TooOld]);
    }

    #[tokio::test]
    async fn a_cursor_wakes_and_the_view_already_shows_what_it_hears() {
        let mut f = Fixture::new();
        let store = f.store.clone();
        let mut cursor = store.subscribe("a", 0).unwrap();
        let follower = tokio::spawn(async move {
            let mut seen = Vec::new();
            while seen.len() < 100 {
                let event = cursor.next().await.unwrap();
                assert!(store.applied_revision() >= event.revision);
                seen.push(event.revision);
            }
            seen
        });
        for _ in 0..100 {
            f.writes(vec![put("a/1", "")]);
            tokio::task::yield_now().await;
        }
        assert_eq!(follower.await.unwrap(), (1..=100).collect::<Vec<_>>());
        assert_eq!(f.store.wait_for(100).await.revision(), 100);
    }

    #[test]
    fn a_state_that_is_written_anew_is_the_same() {
        let mut f = Fixture::new();
        let retry = Proposal { client: 9, sequence: 1, acknowledged: 1, ..transact(vec![], vec![put("c/1", "()")]) };
        let outcome = f.apply(std::slice::from_ref(&retry))[0];
        f.writes(vec![put("c/1", "()")]);
        f.store.rewrite().unwrap();
        f.writes(vec![delete("c/1")]);
        f.store.flush().unwrap();
        let hash = f.store.state_hash();
        let mut f = f.reopen();
        assert_eq!(f.store.state_hash(), hash);
        assert_eq!(f.store.view_at(1).unwrap().get("c/1").unwrap().value, "(1)");
        assert_eq!(f.apply(&[retry]), [outcome]);
    }

    #[test]
    fn what_expires_is_named_when_due_and_no_longer_once_renewed() {
        let mut f = Fixture::new();
        let lease = |expires_at| Write::Put { key: "e/1".into(), value: Bytes::new(), revision_at: None, expires_at };
        f.writes(vec![lease(Some(10))]);
        assert_eq!(f.store.expired(9, 10), []);
        assert_eq!(f.store.expired(10, 10), [("e/1".into(), 1)]);
        f.writes(vec![lease(Some(20))]);
        assert_eq!(f.store.expired(19, 10), []);
        f.store.flush().unwrap();
        let mut f = f.reopen();
        assert_eq!(f.store.expired(20, 10), [("e/1".into(), 2)]);
        f.writes(vec![delete("e/1")]);
        assert_eq!(f.store.expired(99, 10), []);
    }

    #[test]
    fn a_damaged_row_is_named_and_nothing_is_opened() {
        let mut f = Fixture::new();
        f.writes(vec![put("a/1", "one()")]);
        f.store.flush().unwrap();
        let path = f.dir.path().join("state-1");
        drop(f.store);
        let families = ["default", "objects", "history", "dedup", "meta"];
        let db = rocksdb::DB::open_cf(&rocksdb::Options::default(), &path, families).unwrap();
        let family = db.cf_handle("objects").unwrap();
        let mut row = db.get_cf(family, "a/1").unwrap().unwrap();
        *row.last_mut().unwrap() ^= 1;
        db.put_cf(family, "a/1", row).unwrap();
        drop(db);
        let error = Store::open(f.dir.path(), Options::default()).err().unwrap().to_string();
        assert!(error.contains("the row a/1 in objects is damaged: the checksum"), "{error}");
    }

    fn snapshot_of(store: &Store) -> Vec<Vec<u8>> {
        let mut export = store.export();
        std::iter::from_fn(|| export.next_chunk().unwrap()).collect()
    }

    fn read_in(store: &Store, chunks: &[Vec<u8>]) -> Result<Ready, SnapshotError> {
        let mut staged = store.stage().unwrap();
        chunks.iter().try_for_each(|chunk| staged.add(chunk))?;
        staged.finish()
    }

    #[test]
    fn a_snapshot_becomes_the_state_of_another_store_with_its_history_and_its_outcomes() {
        let mut source = Fixture::new();
        for n in 0..2000 {
            source.writes(vec![put(&format!("a/{n}"), &"x".repeat(300)), put("b/1", &format!("{n}()"))]);
        }
        source.apply(&[compact(500)]);
        let retry = Proposal { client: 9, sequence: 1, acknowledged: 1, ..transact(vec![], vec![put("c/1", "")]) };
        let outcome = source.apply(std::slice::from_ref(&retry))[0];
        source.store.apply_membership(at(source.index + 1), "us".into()).unwrap();
        let chunks = snapshot_of(&source.store);
        assert!(chunks.len() > 2, "{}", chunks.len());

        let mut target = Fixture::new();
        target.writes(vec![put("b/1", "0(1)")]);
        let mut behind = target.store.subscribe("b", 1).unwrap();
        let mut quiet = target.store.subscribe("z", 1).unwrap();
        target.store.install(read_in(&target.store, &chunks).unwrap()).unwrap();
        assert_eq!(target.store.state_hash(), source.store.state_hash());
        assert_eq!(target.store.applied(), source.store.applied());
        assert!(
            behind.try_next().is_err() && quiet.try_next().is_err(),
            "what they were to hear is no longer retained"
        );
        let mut target = target.reopen();
        assert_eq!(target.store.state_hash(), source.store.state_hash());
        assert_eq!(target.store.membership(), "us");
        assert_eq!(target.apply(&[retry]), [outcome]);
        assert_eq!(target.store.view_at(700).unwrap().get("b/1").unwrap().value, "699(700)");
        assert_eq!(drain(&mut target.store.subscribe("b", 1990).unwrap()).len(), 10);
        assert_eq!(std::fs::read_dir(target.dir.path()).unwrap().count(), 2, "the state and its name");
        let older = read_in(&target.store, &chunks).unwrap();
        assert!(matches!(target.store.install(older), Err(Fatal::OutOfOrder { .. })));
    }

    fn copy_dir(from: &Path, to: &Path) {
        std::fs::create_dir_all(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            match entry.file_type().unwrap().is_dir() {
                true => copy_dir(&entry.path(), &to.join(entry.file_name())),
                false => drop(std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap()),
            }
        }
    }

    #[test]
    fn a_crash_at_any_step_of_an_installation_leaves_the_old_state_or_the_new_one() {
        let mut source = Fixture::new();
        for n in 0..500 {
            source.writes(vec![put(&format!("a/{n}"), &"x".repeat(3000))]);
        }
        let chunks = snapshot_of(&source.store);
        let mut target = Fixture::new();
        target.writes(vec![put("b/1", "old")]);
        target.store.flush().unwrap();
        let (old, new) = (target.store.state_hash(), source.store.state_hash());
        let crashes = tempfile::tempdir().unwrap();
        let crash = |step: &str| {
            copy_dir(target.dir.path(), &crashes.path().join(step));
            step.to_owned()
        };
        let mut steps = vec![(crash("before"), old)];
        let mut staged = target.store.stage().unwrap();
        steps.push((crash("staged"), old));
        for (n, chunk) in chunks.iter().enumerate() {
            staged.add(chunk).unwrap();
            steps.push((crash(&format!("chunk {n}")), old));
        }
        let ready = staged.finish().unwrap();
        steps.push((crash("finished"), old));
        // A torn new name beside the old one.
        std::fs::write(crashes.path().join("finished/generation.new"), b"x").unwrap();
        let state_before = crashes.path().join("finished/state-1");
        target.store.install(ready).unwrap();
        steps.push((crash("installed"), new));
        steps.push((crash("not cleared away"), new));
        copy_dir(&state_before, &crashes.path().join("not cleared away/state-1"));
        for (step, expected) in steps {
            let path = crashes.path().join(&step);
            let store = Store::open(&path, Options::default()).unwrap();
            assert_eq!(store.state_hash(), expected, "{step}");
            drop(store);
            let left = std::fs::read_dir(&path).unwrap();
            let states =
                left.filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("state-"));
            assert_eq!(states.count(), 1, "{step}");
        }
    }

    #[test]
    fn a_snapshot_that_is_damaged_is_refused_and_leaves_nothing_behind() {
        let mut f = Fixture::new();
        for n in 0..3000 {
            f.writes(vec![put(&format!("a/{n}"), &"x".repeat(300))]);
        }
        let chunks = snapshot_of(&f.store);
        let target = Fixture::new();
        assert!(matches!(read_in(&target.store, &chunks[..1]), Err(SnapshotError::Short)));
        assert!(matches!(read_in(&target.store, &chunks[1..]), Err(SnapshotError::Chunk { chunk: 0, .. })));
        let twice = [chunks.clone(), chunks.clone()].concat();
        assert!(matches!(read_in(&target.store, &twice), Err(SnapshotError::Trailing)));
        let mut flipped = chunks.clone();
        *flipped[1].last_mut().unwrap() ^= 1;
        assert!(matches!(read_in(&target.store, &flipped), Err(SnapshotError::Chunk { chunk: 1, .. })));
        assert_eq!(std::fs::read_dir(target.dir.path()).unwrap().count(), 1);
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(16))]
        #[test]
        fn garbage_is_no_snapshot(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200), sealed: bool) {
            let f = Fixture::new();
            let mut staged = f.store.stage().unwrap();
            let chunk = if sealed { [&[crate::codec::FORMAT][..], &crate::codec::checksum(&[0; 8], &bytes).to_le_bytes(), &bytes].concat() } else { bytes };
            if staged.add(&chunk).is_ok() {
                assert!(!staged.is_complete() || staged.finish().is_err());
            }
        }
    }

    #[test]
    fn history_is_bounded_without_any_command() {
        let dir = tempfile::tempdir().unwrap();
        let history = HistoryBound { events: 100, bytes: 1 << 20 };
        let store = Store::open(dir.path(), Options { history, ..Options::default() }).unwrap();
        for index in 1..=1000 {
            store.apply(at(index), &[transact(vec![], vec![put("a/1", &"x".repeat(500))])]).unwrap();
            assert!(store.stats().history_events <= 100);
        }
        assert!(store.compacted_revision() >= 900);
        assert_eq!(store.stats().tables[0].bytes, 503);
    }
}

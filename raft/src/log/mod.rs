//! The Raft log, the vote and this replica's identity in RocksDB. All writes go through one thread (`writer`) that syncs
//! once for everything that waits; what was written last is kept in memory, so that applying and replicating it reads
//! nothing back.

mod ahead;
mod tail;
mod writer;

use std::collections::VecDeque;
use std::fmt::Debug;
use std::future::ready;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, TryStreamExt, stream};
use kontiki_storage::codec::{self, CodecError};
use kontiki_storage::{DatabaseStats, LogPosition, Meter};
use openraft::entry::RaftEntry;
use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use openraft::{OptionalSend, RaftLogReader};
use parking_lot::{Mutex, RwLock};
use rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompressionType, DEFAULT_COLUMN_FAMILY_NAME, Direction, IteratorMode, LogLevel,
    ReadOptions, WriteBatch, WriteOptions,
};
use serde::de::DeserializeOwned;

#[cfg(test)]
pub(crate) use self::tail::{SECTOR, files, written};
use self::writer::{Done, Job, Writer};
use crate::config::StartError;
use crate::format::{EntryForm, VoteForm};
use crate::identity::Identity;
use crate::metrics::Metrics;
use crate::strand;
use crate::types::{Entry, LogId, Payload, TypeConfig, Vote, log_id, position};
use crate::watch;

/// Entries in memory, by their weight. Those that aren't durable yet come on top.
const TAIL: usize = 4 << 20;
/// A larger entry takes the disk a while.
const SMALL: usize = 64 << 10;
/// What one read for replication returns at most, beyond its first entry.
const READ: usize = 1 << 20;
/// The log's size is known in steps of this many bytes.
const MARK: u64 = 256 << 10;
/// What reading a log once takes.
const MEMORY: usize = 16 << 20;
const CHECKPOINT: Duration = Duration::from_secs(10);

const ENTRY: u8 = b'e';
pub(crate) const IDENTITY: &[u8] = b"m/identity";
/// There once this replica has heard that it was removed from the cluster.
pub(crate) const REMOVED: &[u8] = b"m/removed";
/// Whether, and where, this replica's state was found to be another than most replicas have.
pub(crate) const DIVERGENCE: &[u8] = b"m/divergence";
const VOTE: &[u8] = b"m/vote";
const COMMITTED: &[u8] = b"m/committed";
const PURGED: &[u8] = b"m/purged";

/// A handle; clones are the same log.
#[derive(Clone)]
pub(crate) struct Log(Arc<Shared>);

struct Shared {
    path: PathBuf,
    db: Arc<DB>,
    meter: Meter,
    tail: RwLock<Tail>,
    vote: Mutex<Option<Vote>>,
    sizes: Mutex<Sizes>,
    checkpoint: watch::Sender<Option<u64>>,
    /// One more than the index of the last entry that was applied.
    applied: AtomicU64,
    /// One more than [`Log::alone`]. 0: none.
    alone: AtomicU64,
    writer: Writer,
}

/// The log's bounds and its newest entries.
#[derive(Default)]
struct Tail {
    entries: VecDeque<Entry>,
    bytes: usize,
    last: Option<LogId>,
    purged: Option<LogId>,
    /// Entries up to here are on disk.
    durable: Option<u64>,
}

/// How many bytes the entries take, in marks: the first index of each stretch and the sum up to it.
#[derive(Default)]
struct Sizes {
    marks: VecDeque<(u64, u64)>,
    total: u64,
}

impl Log {
    /// Reads and checks the whole log.
    pub(crate) fn open(path: &Path, memory_budget: usize, metrics: Metrics) -> Result<Log, StartError> {
        let mut options = options(path, memory_budget)?;
        let meter = Meter::of(&mut options);
        let db = Arc::new(open_db(path, &options)?);
        let mut tail = Tail::default();
        let mut sizes = Sizes::default();
        let notes = scan(&db, path, &mut Err, |entry, bytes| {
            sizes.add(entry.log_id.index, bytes);
            tail.durable = Some(entry.log_id.index);
            tail.push(entry);
            tail.shrink();
        })?;
        let Notes { vote, committed, purged } = notes;
        tail.purged = purged;
        tail.last = tail.last.max(purged);
        let writer = Writer::start(db.clone(), path, committed, metrics).map_err(StartError::Thread)?;
        let log = Log(Arc::new(Shared {
            path: path.to_owned(),
            db,
            meter,
            tail: RwLock::new(tail),
            vote: Mutex::new(vote),
            sizes: Mutex::new(sizes),
            checkpoint: watch::Sender::new(None),
            applied: AtomicU64::new(0),
            alone: AtomicU64::new(0),
            writer,
        }));
        Ok(log)
    }

    /// Nothing was ever written here.
    pub(crate) fn is_pristine(&self) -> bool {
        self.0.tail.read().last.is_none() && self.vote().is_none()
    }

    /// This replica's vote, and another as soon as there will be one: before it is durable, so before anybody hears of it.
    pub(crate) fn vote(&self) -> Option<Vote> {
        *self.0.vote.lock()
    }

    pub(crate) fn last(&self) -> Option<LogId> {
        self.0.tail.read().last
    }

    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StartError> {
        let error =
            |error: rocksdb::Error| StartError::Database { path: self.0.path.clone(), detail: error.to_string() };
        self.0.db.get(key).map_err(error)
    }

    /// A row of this replica's own, checked. `what` says what it is.
    pub(crate) fn row<T: DeserializeOwned>(&self, key: &[u8], what: &str) -> Result<Option<T>, StartError> {
        let Some(row) = self.get(key)? else { return Ok(None) };
        let row = codec::unseal(key, &row).map_err(|error| StartError::unreadable(&self.0.path, what, error))?;
        Ok(Some(row))
    }

    /// Has a row written, in its turn; what is returned waits until it is durable.
    pub(crate) fn put(&self, key: &[u8], row: Vec<u8>) -> impl Future<Output = io::Result<()>> + use<> {
        let (done, wait) = Done::reply();
        self.0.writer.submit(Job::Put { key: key.to_vec(), row, done });
        async { wait.await.unwrap_or_else(|_| Err(writer::stopped())) }
    }

    /// Why the log can't be written any more, once it can't.
    pub(crate) fn failure(&self) -> watch::Receiver<Option<String>> {
        self.0.writer.failure()
    }

    /// Stops the thread that writes, after all that waits was written.
    pub(crate) fn stop(&self) {
        self.0.writer.stop();
    }

    /// The bytes of all entries.
    pub(crate) fn size(&self) -> u64 {
        let sizes = self.0.sizes.lock();
        sizes.total - sizes.marks.front().map_or(sizes.total, |(_, sum)| *sum)
    }

    /// What waits for the next sync.
    pub(crate) fn waiting(&self) -> usize {
        self.0.writer.waiting()
    }

    /// How its database is.
    pub(crate) fn stats(&self) -> DatabaseStats {
        self.0.meter.read(&self.0.db, &[DEFAULT_COLUMN_FAMILY_NAME])
    }

    /// Bytes and entries after `index`.
    pub(crate) fn since(&self, index: Option<u64>) -> (u64, u64) {
        let next = index.map_or(0, |index| index + 1);
        let end = self.last().map_or(0, |last| last.index + 1);
        let sizes = self.0.sizes.lock();
        (sizes.total - sizes.before(next), end.saturating_sub(next))
    }

    /// The newest index that can be purged when `bytes` and `entries` are to stay.
    pub(crate) fn surplus(&self, bytes: u64, entries: u64) -> Option<u64> {
        let last = self.last()?.index;
        let sizes = self.0.sizes.lock();
        let upto = sizes.total.saturating_sub(bytes);
        let mark = sizes.marks.iter().take_while(|(_, sum)| *sum <= upto).last().map_or(0, |(index, _)| *index);
        mark.max((last + 1).saturating_sub(entries)).checked_sub(1)
    }

    /// The state machine shows everything up to `index`.
    pub(crate) fn applied(&self, index: u64) {
        self.0.applied.store(index + 1, Ordering::Release);
    }

    /// Where this replica is the only member: an index from which on its state shows all that was ever acknowledged. To take
    /// in another, or to vote for one, is written here first, and ends it; so as long as it lasts nobody else can have
    /// acknowledged anything, and reads need to ask nobody.
    pub(crate) fn alone(&self) -> Option<u64> {
        self.0.alone.load(Ordering::Acquire).checked_sub(1)
    }

    /// Only Raft's own task may say so, which writes the log as well.
    pub(crate) fn set_alone(&self, committed: u64) {
        self.0.alone.store(committed + 1, Ordering::Release);
    }

    /// Nothing else is under way, and no peer hears from this replica: it may as well wait for the disk with what it does.
    fn may_block(&self, entries: &[Entry]) -> bool {
        let undisturbed = strand::take_undisturbed();
        let [entry] = entries else { return false };
        undisturbed
            && matches!(entry.payload, Payload::Normal(_))
            && size(entry) <= SMALL
            && entry.log_id.index == self.0.applied.load(Ordering::Acquire)
            && self.alone().is_some()
    }

    /// The state machine holds everything up to `index` durably: the log up to there may go.
    pub(crate) fn checkpointed(&self, index: u64) {
        self.0.checkpoint.send_if_modified(|checkpoint| {
            let newer = *checkpoint < Some(index);
            *checkpoint = (*checkpoint).max(Some(index));
            newer
        });
    }

    pub(crate) fn checkpoint(&self) -> Option<u64> {
        *self.0.checkpoint.borrow()
    }

    /// Waits for a newer checkpoint than this, but not for ever: there is none where nothing was applied since.
    pub(crate) async fn wait_for_checkpoint(&self, newer_than: Option<u64>) {
        let mut checkpoint = self.0.checkpoint.subscribe();
        let newer = checkpoint.wait_for(|checkpoint| *checkpoint > newer_than);
        // Whether or not it came, the next look at the log decides what to do.
        drop(tokio::time::timeout(CHECKPOINT, newer).await);
    }

    pub(crate) fn purged(&self) -> Option<u64> {
        self.0.tail.read().purged.map(|id| id.index)
    }

    fn bounds(&self) -> (u64, u64) {
        self.0.tail.read().bounds()
    }

    /// Entries from `start` that are on disk only come from there, the rest from memory. Stops after `limit` bytes. What has
    /// been cut is left out: whoever can't be sure that nothing was has to look.
    pub(crate) fn read(&self, start: u64, end: u64, limit: usize) -> io::Result<Vec<Entry>> {
        let (kept, split) = {
            let tail = self.0.tail.read();
            let (first, next) = tail.bounds();
            let (start, end) = (start.max(first), end.min(next));
            if start >= end {
                return Ok(Vec::new());
            }
            let first = tail.entries.front().map_or(end, |entry| entry.log_id.index).min(end);
            let skip = start.saturating_sub(first) as usize;
            let kept: Vec<_> =
                tail.entries.iter().skip(skip).take((end - start.max(first)) as usize).cloned().collect();
            (kept, start..first)
        };
        let mut entries = Vec::new();
        let mut bytes = 0;
        for index in split {
            let key = row_key(index);
            let Some(row) = self.0.db.get(key).map_err(io::Error::other)? else {
                let (first, next) = self.bounds();
                if index < first || index >= next {
                    // It was purged or truncated meanwhile.
                    return self.read(start, end, limit);
                }
                return Err(io::Error::other(format!("log entry {index} is missing")));
            };
            bytes += row.len();
            if bytes > limit && !entries.is_empty() {
                return Ok(entries);
            }
            let entry = read_entry(&key, &Bytes::from(row));
            entries.push(entry.map_err(|detail| io::Error::other(format!("log entry {index} is damaged: {detail}")))?);
        }
        for entry in kept {
            bytes += size(&entry);
            if bytes > limit && !entries.is_empty() {
                break;
            }
            entries.push(entry);
        }
        Ok(entries)
    }
}

/// What a log says beside its entries.
#[derive(Default)]
pub(crate) struct Notes {
    pub(crate) vote: Option<Vote>,
    pub(crate) committed: Option<LogId>,
    pub(crate) purged: Option<LogId>,
}

/// Reads a log whole: every row must have its checksum, and the entries must follow each other without a gap. `defect`
/// gives up with an error, or notes it and has the rest read.
pub(crate) fn scan(
    db: &DB,
    path: &Path,
    defect: &mut dyn FnMut(StartError) -> Result<(), StartError>,
    mut each: impl FnMut(Entry, u64),
) -> Result<Notes, StartError> {
    let corrupt = |what: &str, detail: String| StartError::Corrupt { path: path.to_owned(), what: what.into(), detail };
    let mut notes = Notes::default();
    match note::<VoteForm>(db, VOTE) {
        Ok(vote) => notes.vote = vote.map(Vote::from),
        Err(error) => defect(StartError::unreadable(path, "the vote", error))?,
    }
    match note::<LogPosition>(db, COMMITTED) {
        Ok(position) => notes.committed = position.map(log_id),
        Err(error) => defect(StartError::unreadable(path, "the commit index", error))?,
    }
    match note::<LogPosition>(db, PURGED) {
        Ok(position) => notes.purged = position.map(log_id),
        Err(error) => defect(StartError::unreadable(path, "the log's start", error))?,
    }
    let mut options = ReadOptions::default();
    options.set_iterate_upper_bound([ENTRY + 1]);
    options.set_readahead_size(1 << 20);
    let mut expected = notes.purged.map_or(0, |id| id.index + 1);
    let mut before = notes.purged;
    for row in db.iterator_opt(IteratorMode::From(&row_key(expected), Direction::Forward), options) {
        let (key, row) = match row {
            Ok(row) => row,
            Err(error) => {
                defect(corrupt("the log", error.to_string()))?;
                break;
            }
        };
        let what = format!("log entry {expected}");
        let found = key.get(1..).and_then(|rest| rest.try_into().ok()).map(u64::from_be_bytes);
        if found != Some(expected) {
            defect(corrupt(&what, format!("it is missing, and {} is there", key.escape_ascii())))?;
            expected = found.unwrap_or(expected);
        }
        let row = Bytes::from(row);
        match read_entry(&key, &row) {
            Ok(entry) if entry.log_id.index != expected => {
                defect(corrupt(&what, format!("it says that it is {}", entry.log_id)))?;
            }
            Ok(entry) if before.is_some_and(|before| before.leader_id > entry.log_id.leader_id) => {
                defect(corrupt(&what, "its term is older than that of the entry before it".into()))?;
            }
            Ok(entry) => {
                before = Some(entry.log_id);
                each(entry, row.len() as u64);
            }
            Err(error) => defect(StartError::unreadable(path, what, error))?,
        }
        expected += 1;
    }
    if let (Some(vote), Some(last)) = (&notes.vote, &before)
        && vote.leader_id < last.leader_id
    {
        defect(corrupt("the vote", format!("it is older than the last entry, {last}")))?;
    }
    Ok(notes)
}

pub(crate) fn note<T: DeserializeOwned>(db: &DB, key: &[u8]) -> Result<Option<T>, CodecError> {
    let row = db.get(key).map_err(|error| CodecError::Malformed(error.to_string()))?;
    row.map(|row| codec::unseal(key, &row)).transpose()
}

/// Reads a log without changing anything.
pub(crate) fn open_read_only(path: &Path) -> Result<DB, StartError> {
    DB::open_for_read_only(&options(path, MEMORY)?, path, false).map_err(|error| broken(path, error))
}

/// Makes the log of a replica that begins with a state and no entries.
pub(crate) fn begin(path: &Path, identity: &Identity, vote: &Vote, purged: LogPosition) -> Result<(), StartError> {
    let sealed = |key: &'static [u8], row: Result<Vec<u8>, codec::CodecError>| match row {
        Ok(row) => Ok((key, row)),
        Err(error) => Err(StartError::Database { path: path.to_owned(), detail: error.to_string() }),
    };
    let rows = [
        sealed(IDENTITY, codec::seal(IDENTITY, identity))?,
        sealed(VOTE, codec::seal(VOTE, &VoteForm::from(vote)))?,
        sealed(PURGED, codec::seal(PURGED, &purged))?,
    ];
    let mut batch = WriteBatch::default();
    rows.iter().for_each(|(key, row)| batch.put(key, row));
    open_db(path, &options(path, MEMORY)?)?.write_opt(batch, &write_options(true)).map_err(|error| broken(path, error))
}

/// Gives a log to a replica that goes on alone, with the entries that make it so. Where the state is ahead of the log, the
/// log begins anew behind it.
pub(crate) fn take_over(
    path: &Path,
    identity: &Identity,
    vote: &Vote,
    ahead: Option<LogId>,
    entries: &[Entry],
) -> Result<(), StartError> {
    let unencoded = |error: CodecError| StartError::Database { path: path.to_owned(), detail: error.to_string() };
    let mut batch = WriteBatch::default();
    batch.put(IDENTITY, codec::seal(IDENTITY, identity).map_err(unencoded)?);
    batch.put(VOTE, codec::seal(VOTE, &VoteForm::from(vote)).map_err(unencoded)?);
    if let Some(ahead) = ahead {
        batch.delete_range(&[ENTRY][..], &[ENTRY + 1][..]);
        batch.put(PURGED, codec::seal(PURGED, &position(&ahead)).map_err(unencoded)?);
    }
    for entry in entries {
        let key = row_key(entry.log_id.index);
        batch.put(key, codec::seal(&key, &EntryForm::of(entry)).map_err(unencoded)?);
    }
    // What the old cluster said of this replica.
    batch.delete(REMOVED);
    batch.delete(DIVERGENCE);
    open_db(path, &options(path, MEMORY)?)?.write_opt(batch, &write_options(true)).map_err(|error| broken(path, error))
}

impl Tail {
    /// The first index there is, and the next one to come.
    fn bounds(&self) -> (u64, u64) {
        (self.purged.map_or(0, |purged| purged.index + 1), self.last.map_or(0, |last| last.index + 1))
    }

    fn push(&mut self, entry: Entry) {
        self.last = Some(entry.log_id);
        self.bytes += weight(&entry);
        self.entries.push_back(entry);
    }

    fn shrink(&mut self) {
        while self.bytes > TAIL
            && let Some(oldest) = self.entries.front()
            && self.durable >= Some(oldest.log_id.index)
        {
            self.bytes -= weight(oldest);
            self.entries.pop_front();
        }
    }
}

impl Sizes {
    fn add(&mut self, index: u64, bytes: u64) {
        if self.marks.back().is_none_or(|(_, sum)| self.total - sum >= MARK) {
            self.marks.push_back((index, self.total));
        }
        self.total += bytes;
    }

    /// The bytes of all entries before `index`, to the mark.
    fn before(&self, index: u64) -> u64 {
        let later = self.marks.partition_point(|(first, _)| *first <= index);
        self.marks.get(later.saturating_sub(1)).map_or(self.total, |(_, sum)| *sum)
    }

    fn purge(&mut self, upto: u64, last: u64) {
        if upto >= last {
            self.marks.clear();
        }
        while self.marks.get(1).is_some_and(|(first, _)| *first <= upto + 1) {
            self.marks.pop_front();
        }
    }

    fn truncate(&mut self, next: u64) {
        while let Some((_, sum)) = self.marks.back().filter(|(first, _)| *first >= next) {
            self.total = *sum;
            self.marks.pop_back();
        }
    }
}

/// In memory.
fn weight(entry: &Entry) -> usize {
    match &entry.payload {
        Payload::Normal(batch) => batch.weight() + 64,
        _ => 256,
    }
}

/// On disk, or on the wire.
fn size(entry: &Entry) -> usize {
    match &entry.payload {
        Payload::Normal(batch) => batch.bytes().len() + 64,
        _ => 256,
    }
}

fn row_key(index: u64) -> [u8; 9] {
    let mut key = [ENTRY; 9];
    key[1..].copy_from_slice(&index.to_be_bytes());
    key
}

pub(crate) fn read_entry(key: &[u8], row: &Bytes) -> Result<Entry, CodecError> {
    codec::unseal::<EntryForm>(key, row)?.restore(row)
}

fn bounds_of(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(start) => start + 1,
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(end) => end + 1,
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    (start, end)
}

impl RaftLogReader<TypeConfig> for Log {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<Entry>> {
        let (start, end) = bounds_of(&range);
        self.read(start, end, usize::MAX)
    }

    async fn entries_stream<RB>(&mut self, range: RB) -> impl Stream<Item = io::Result<Entry>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (start, end) = bounds_of(&range);
        let log = self.clone();
        let chunks = stream::try_unfold(start, move |start| {
            let chunk = if start < end { log.read(start, end, READ) } else { Ok(Vec::new()) };
            ready(chunk.map(|chunk| {
                let next = chunk.last()?.log_id.index + 1;
                Some((stream::iter(chunk.into_iter().map(Ok)), next))
            }))
        });
        chunks.try_flatten()
    }

    /// Where all of these were cut, the first that was not: openraft takes no entries for a heartbeat, and would go on with it.
    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        self.read(start, end.max(self.bounds().0.saturating_add(1)), READ)
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.vote())
    }
}

impl RaftLogStorage<TypeConfig> for Log {
    type LogReader = Log;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let tail = self.0.tail.read();
        Ok(LogState { last_purged_log_id: tail.purged, last_log_id: tail.last })
    }

    async fn get_log_reader(&mut self) -> Log {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        self.0.alone.store(0, Ordering::Release);
        *self.0.vote.lock() = Some(*vote);
        self.put(VOTE, codec::seal(VOTE, &VoteForm::from(vote)).map_err(io::Error::other)?).await
    }

    /// Written with the next entries: what it saves is applying some of them again only once the leader is known.
    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        self.0.writer.set_committed(committed);
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        // A crash of the machine can leave a commit index without its entries.
        Ok(self.0.writer.committed().min(self.last()))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<_> = entries.into_iter().collect();
        let next = self.bounds().1;
        if let Some((gap, index)) = entries.iter().zip(next..).find(|(entry, index)| entry.log_id.index != *index) {
            return Err(io::Error::other(format!("entry {} comes where {index} is to be appended", gap.log_id)));
        }
        if entries.iter().any(|entry| matches!(entry.payload, Payload::Membership(_))) {
            self.0.alone.store(0, Ordering::Release);
        }
        let here = self.may_block(&entries);
        {
            let mut tail = self.0.tail.write();
            let durable = self.0.writer.durable();
            tail.durable = tail.durable.max(durable);
            entries.iter().for_each(|entry| tail.push(entry.clone()));
            tail.shrink();
        }
        {
            let mut sizes = self.0.sizes.lock();
            entries.iter().for_each(|entry| sizes.add(entry.log_id.index, size(entry) as u64));
        }
        let job = Job::Append { entries, done: Done::Flushed(callback) };
        if here {
            self.0.writer.submit_here(job)
        } else {
            self.0.writer.submit(job)
        }
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        let next = last.map_or(0, |last| last.index + 1);
        {
            let mut tail = self.0.tail.write();
            while let Some(entry) = tail.entries.back().filter(|entry| entry.index() >= next) {
                tail.bytes -= weight(entry);
                tail.entries.pop_back();
            }
            tail.last = last;
            tail.durable = tail.durable.min(next.checked_sub(1));
        }
        self.0.sizes.lock().truncate(next);
        let (done, wait) = Done::reply();
        self.0.writer.submit(Job::Truncate { next, done });
        wait.await.unwrap_or_else(|_| Err(writer::stopped()))
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        if Some(upto.index) > self.checkpoint() {
            return Err(io::Error::other(format!("the log up to {upto} is needed: the state is not durable there")));
        }
        let last = self.bounds().1.saturating_sub(1);
        {
            let mut tail = self.0.tail.write();
            while let Some(entry) = tail.entries.front().filter(|entry| entry.index() <= upto.index) {
                tail.bytes -= weight(entry);
                tail.entries.pop_front();
            }
            tail.purged = Some(upto);
            if tail.last.is_none_or(|last| last.index < upto.index) {
                tail.last = Some(upto);
            }
        }
        self.0.sizes.lock().purge(upto.index, last);
        let row = codec::seal(PURGED, &position(&upto)).map_err(io::Error::other)?;
        self.0.writer.submit(Job::Purge { next: upto.index + 1, row });
        Ok(())
    }
}

fn write_options(sync: bool) -> WriteOptions {
    let mut options = WriteOptions::default();
    options.set_sync(sync);
    options
}

fn open_db(path: &Path, options: &rocksdb::Options) -> Result<DB, StartError> {
    DB::open(options, path).map_err(|error| broken(path, error))
}

/// What RocksDB finds to be damaged is told as such.
fn broken(path: &Path, error: rocksdb::Error) -> StartError {
    let (path, detail) = (path.to_owned(), error.to_string());
    match error.kind() {
        rocksdb::ErrorKind::Corruption => StartError::Corrupt { path, what: "the log's database".into(), detail },
        _ => StartError::Database { path, detail },
    }
}

fn options(path: &Path, memory_budget: usize) -> Result<rocksdb::Options, StartError> {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&Cache::new_lru_cache(memory_budget / 8));
    table.set_format_version(5);
    let mut options = rocksdb::Options::default();
    options.create_if_missing(true);
    options.set_block_based_table_factory(&table);
    options.set_wal_recovery_mode(tail::recovery_mode(path)?);
    // One that is written to and one that is on its way to the disk.
    options.set_write_buffer_size(memory_budget * 7 / 16);
    options.set_max_write_buffer_number(2);
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_max_background_jobs(2);
    options.set_max_open_files(64);
    options.set_keep_log_file_num(2);
    options.set_max_log_file_size(1 << 20);
    options.set_log_level(LogLevel::Warn);
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::LeaderId;

    #[tokio::test]
    async fn what_was_cut_shows_as_a_gap_and_none_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = Log::open(dir.path(), MEMORY, Metrics::new().unwrap()).unwrap();
        let id = |index| LogId { leader_id: LeaderId { term: 1, node_id: 7 }, index };
        let entries = |indexes: std::ops::Range<u64>| {
            indexes.map(move |index| Entry { log_id: id(index), payload: Payload::Blank })
        };
        log.append(entries(0..1000), IOFlushed::noop()).await.unwrap();
        log.checkpointed(999);
        log.purge(id(899)).await.unwrap();
        for (start, end, expected) in
            [(1, 301, 900..901), (850, 902, 900..902), (900, 903, 900..903), (990, 1200, 990..1000)]
        {
            let read = log.limited_get_log_entries(start, end).await.unwrap();
            assert_eq!(read.iter().map(|entry| entry.log_id.index).collect::<Vec<_>>(), expected.collect::<Vec<_>>());
        }
        for gap in [1001..1003, 999..1001, 0..1] {
            assert!(log.append(entries(gap), IOFlushed::noop()).await.is_err());
        }
        let skips = entries(1000..1002).chain(entries(1003..1004));
        assert!(log.append(skips, IOFlushed::noop()).await.is_err());
        assert_eq!(log.bounds(), (900, 1000));
        log.append(entries(1000..1001), IOFlushed::noop()).await.unwrap();
        assert_eq!(log.bounds(), (900, 1001));
        // A snapshot goes further than entries of a higher term that were never committed.
        let before = LogId { leader_id: LeaderId { term: 0, node_id: 7 }, index: 1500 };
        log.checkpointed(1500);
        log.purge(before).await.unwrap();
        assert_eq!(log.bounds(), (1501, 1501));
        log.append(entries(1501..1502), IOFlushed::noop()).await.unwrap();
    }
}

//! The state in RocksDB: for restarts, not for reads. Applies are written a few at a time, as one atomic batch that carries
//! its log position, and there is no write-ahead log: what a crash takes away, the Raft log replays. All column families
//! are flushed together, so what is found after a crash is the state exactly as it was at some earlier position.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Weak};

use bytes::Bytes;
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBCompressionType, FlushOptions,
    IngestExternalFileOptions, IteratorMode, LogLevel, ReadOptions, WriteBatch, WriteBufferManager, WriteOptions,
};
use serde::{Deserialize, Serialize};

use crate::codec::{self, CodecError};
use crate::dedup::{Client, ClientHead, DedupChanges};
use crate::event::Event;
use crate::meter;
use crate::state::{Changes, State};
use crate::stored::{StoredEvent, StoredRecord, store_event};
use crate::{DatabaseStats, Fatal, Key, LogPosition, Meter, OpenError, Options, Outcome, Record, Revision};

pub(crate) const OBJECTS: &str = "objects";
const HISTORY: &str = "history";
const DEDUP: &str = "dedup";
const META: &str = "meta";
const FAMILIES: [&str; 4] = [OBJECTS, HISTORY, DEDUP, META];

const APPLIED: &[u8] = b"applied";
const MEMBERSHIP: &[u8] = b"membership";
/// Names the directory that holds the current state.
const GENERATION: &str = "generation";

#[derive(Debug, Serialize, Deserialize)]
struct Applied {
    position: LogPosition,
    revision: Revision,
    compacted: Revision,
    hash: u64,
    tick: u64,
    evictions: u64,
}

pub(crate) struct Disk {
    root: PathBuf,
    generation: u64,
    db: Arc<DB>,
    resources: Resources,
    owed: Owed,
    /// After `db`: that is closed first.
    directory: Directory,
}

/// Where a database is.
struct Directory {
    path: PathBuf,
    /// Otherwise it is removed with its [`Disk`].
    kept: bool,
}

impl Drop for Directory {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        if let Err(error) = fs::remove_dir_all(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "an unused state is left behind until the next start");
        }
    }
}

/// What has been applied and not written yet.
#[derive(Default)]
struct Owed {
    applies: usize,
    events: Vec<Arc<Event>>,
    bytes: u64,
    dedup: DedupChanges,
    trimmed: bool,
    membership: bool,
}

/// So many applies, or bytes, are owed before they are written: the rows that each apply writes again are written once for
/// all of these, and a lone writer is answered without them.
const OWED: usize = 64;
const OWED_BYTES: u64 = 256 << 10;

/// What the databases of all generations share.
#[derive(Clone)]
struct Resources {
    budget: usize,
    meter: Meter,
    cache: Cache,
    buffers: WriteBufferManager,
}

/// What a reader does about a defect: it gives up with the error, or notes it and goes on.
pub(crate) type OnDefect<'a> = &'a mut dyn FnMut(OpenError) -> Result<(), OpenError>;

impl Resources {
    fn new(options: &Options) -> Resources {
        let cache = Cache::new_lru_cache(options.memory_budget);
        let buffers =
            WriteBufferManager::new_write_buffer_manager_with_cache(options.memory_budget / 2, false, cache.clone());
        let meter = Meter::of(&mut rocksdb::Options::default());
        Resources { budget: options.memory_budget, meter, cache, buffers }
    }
}

/// Makes a directory, and those above it that are missing, for what only its owner may read: keys, and every secret of
/// the cluster.
pub fn create_private_dir(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

impl Disk {
    pub(crate) fn open(root: &Path, options: &Options) -> Result<(Disk, State), OpenError> {
        let cannot = |source| OpenError::Io { path: root.to_owned(), source };
        create_private_dir(root).map_err(cannot)?;
        let generation = read_generation(root)?;
        remove_others(root, generation).map_err(cannot)?;
        let disk = Disk::create(root, generation, Resources::new(options), true)?;
        let state = disk.load(&mut Err)?;
        Ok((disk, state))
    }

    /// The current database as it is, with nothing made, cleared away or written.
    pub(crate) fn open_read_only(root: &Path, options: &Options) -> Result<Disk, OpenError> {
        let generation = read_generation(root)?;
        let path = path_of(root, generation);
        let resources = Resources::new(options);
        let (db_options, families) = options_of(&resources);
        let db = DB::open_cf_descriptors_read_only(&db_options, &path, families, false)
            .map_err(|error| broken(&path, error))?;
        let directory = Directory { path, kept: true };
        Ok(Disk { root: root.to_owned(), generation, db: Arc::new(db), resources, owed: Owed::default(), directory })
    }

    fn create(root: &Path, generation: u64, resources: Resources, kept: bool) -> Result<Disk, OpenError> {
        let path = path_of(root, generation);
        let db = Arc::new(open_db(&path, &resources)?);
        let directory = Directory { path, kept };
        Ok(Disk { root: root.to_owned(), generation, db, resources, owed: Owed::default(), directory })
    }

    /// Takes note of what an apply changed.
    pub(crate) fn owe(&mut self, changes: &Changes) {
        let owed = &mut self.owed;
        owed.applies += 1;
        owed.bytes +=
            changes.events.iter().map(|event| event.record.as_ref().map_or(0, |record| record.weight())).sum::<u64>();
        owed.events.extend(changes.events.iter().cloned());
        owed.dedup.extend(&changes.dedup);
        owed.trimmed |= changes.trimmed.is_some();
        owed.membership |= changes.membership;
    }

    /// Whether that is enough to be written.
    pub(crate) fn owes_much(&self) -> bool {
        let owed = &self.owed;
        owed.applies.max(owed.events.len()) >= OWED || owed.bytes >= OWED_BYTES
    }

    /// Writes what is owed up to `state`, the current one. When this fails nothing was written.
    pub(crate) fn write(&mut self, state: &State) -> Result<(), Fatal> {
        let owed = &self.owed;
        if owed.applies == 0 {
            return Ok(());
        }
        let mut batch = WriteBatch::default();
        for (ordinal, event) in owed.events.iter().enumerate() {
            self.put(&mut batch, event_row(ordinal as u32, event)?);
            // A key written again by the same batch is left to its last event.
            match (&event.record, state.get(event.key.as_str())) {
                (Some(record), Some(current)) if Arc::ptr_eq(record, current) => {
                    self.put(&mut batch, record_row(record)?);
                }
                (None, None) => batch.delete_cf(self.family(OBJECTS), event.key.as_str()),
                _ => {}
            }
        }
        if owed.trimmed {
            let end = (state.compacted + 1).to_be_bytes();
            batch.delete_range_cf(self.family(HISTORY), &[0; 8][..], &end[..]);
        }
        self.put_dedup(&mut batch, state, &owed.dedup)?;
        if owed.membership {
            self.put(&mut batch, membership_row(state)?);
        }
        self.put(&mut batch, applied_row(state)?);
        self.commit(batch)?;
        self.owed = Owed::default();
        Ok(())
    }

    /// Makes all that was written durable.
    pub(crate) fn flush(&self) -> Result<(), Fatal> {
        self.flusher().flush()
    }

    pub(crate) fn flusher(&self) -> Flusher {
        Flusher(self.db.clone())
    }

    /// To ask the database how it is without keeping anyone from writing.
    pub(crate) fn probe(&self) -> Probe {
        Probe { db: Arc::downgrade(&self.db), meter: self.resources.meter.clone() }
    }

    /// An empty database for a state that is to replace this one. Nothing refers to it until [`Disk::switch`], and it is
    /// gone when that doesn't come.
    pub(crate) fn stage(&self, generation: u64) -> Result<Disk, OpenError> {
        let path = path_of(&self.root, generation);
        if path.exists() {
            fs::remove_dir_all(&path).map_err(|source| OpenError::Io { path, source })?;
        }
        Disk::create(&self.root, generation, self.resources.clone(), false)
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// Makes a staged database the current one, durably, and removes the one before it.
    pub(crate) fn switch(&mut self, mut staged: Disk) -> Result<(), Fatal> {
        staged.flush()?;
        // Should this fail, either may be the current one at the next start.
        staged.directory.kept = true;
        write_generation(&self.root, staged.generation)?;
        let mut old = std::mem::replace(self, staged);
        old.directory.kept = false;
        Ok(())
    }

    /// Where tables are written that [`Disk::ingest`] takes.
    pub(crate) fn incoming(&self) -> PathBuf {
        self.directory.path.join("incoming")
    }

    /// Makes tables with sorted rows part of a family, durably. Where a key is in several the last of these counts.
    pub(crate) fn ingest(&self, family: &str, tables: Vec<PathBuf>) -> Result<(), Fatal> {
        let mut options = IngestExternalFileOptions::default();
        options.set_move_files(true);
        Ok(self.db.ingest_external_file_cf_opts(self.family(family), &options, tables)?)
    }

    fn put(&self, batch: &mut WriteBatch, row: Row) {
        batch.put_cf(self.family(row.family), row.key, row.value);
    }

    fn put_dedup(&self, batch: &mut WriteBatch, state: &State, changes: &DedupChanges) -> Result<(), Fatal> {
        let family = self.family(DEDUP);
        for client in &changes.evicted {
            batch.delete_range_cf(family, &dedup_key(*client, 0)[..], &dedup_key(client.saturating_add(1), 0)[..]);
        }
        for (client, from, to) in &changes.swept {
            // Row 0 is its head.
            batch.delete_range_cf(family, &dedup_key(*client, (*from).max(1))[..], &dedup_key(*client, *to)[..]);
        }
        let floor = |client: &u64| state.dedup.clients.get(client).map_or(u64::MAX, |client| client.head.floor);
        for (client, sequence, outcome) in &changes.outcomes {
            // What is settled by now may have been swept already.
            if *sequence >= floor(client) {
                self.put(batch, outcome_row(*client, *sequence, *outcome)?);
            }
        }
        for id in &changes.touched {
            if let Some(client) = state.dedup.clients.get(id) {
                self.put(batch, client_row(*id, &client.head)?);
            }
        }
        Ok(())
    }

    fn commit(&self, batch: WriteBatch) -> Result<(), Fatal> {
        let mut options = WriteOptions::default();
        options.disable_wal(true);
        Ok(self.db.write_opt(batch, &options)?)
    }

    fn family(&self, name: &str) -> &ColumnFamily {
        match self.db.cf_handle(name) {
            Some(family) => family,
            None => unreachable!("all families were opened"),
        }
    }

    /// Reads everything, checks every row by itself and against the others, and makes the state of it.
    pub(crate) fn load(&self, defect: OnDefect) -> Result<State, OpenError> {
        let mut reading = Reading::default();
        for family in [META, OBJECTS] {
            self.each(family, IteratorMode::Start, defect, |key, row| reading.row(family, key, row))?;
        }
        self.load_rest(reading, defect)
    }

    /// [`Disk::load`] from where the rows have been read that a [`Reading`] takes.
    pub(crate) fn load_rest(&self, reading: Reading, defect: OnDefect) -> Result<State, OpenError> {
        let Reading { mut state, hash } = reading;
        if hash != state.hash {
            let detail = "the records are not those that were last applied: some are missing or old";
            defect(self.corrupt("the table of objects".into(), detail.into()))?;
        }
        self.load_history(&mut state, defect)?;
        self.load_dedup(&mut state, defect)?;
        Ok(state)
    }

    fn load_history(&self, state: &mut State, defect: OnDefect) -> Result<(), OpenError> {
        let mut events = Vec::new();
        // What each key held before the events read so far, from the newest backwards.
        let mut held: HashMap<Key, Option<Arc<Record>>> = HashMap::new();
        self.each(HISTORY, IteratorMode::End, defect, |key, row| {
            let (revision, _) = key.split_first_chunk::<8>().ok_or("its key is cut short")?;
            let stored: StoredEvent = codec::unseal(key, row)?;
            let record = match held.get(stored.key) {
                Some(record) => record.clone(),
                None => state.get(stored.key).cloned(),
            };
            let event = stored.restore(u64::from_be_bytes(*revision), record)?;
            if event.revision > state.revision || event.revision <= state.compacted {
                return Err("it is not of a revision that is retained".into());
            }
            held.insert(event.key.clone(), event.previous.clone());
            events.push(Arc::new(event));
            Ok(())
        })?;
        let records = state.tables.values().flat_map(|table| table.rows.values());
        let silent = records.filter(|record| record.modified > state.compacted && !held.contains_key(&record.key));
        for record in silent {
            let what = format!("the history of {}", record.key);
            let detail = format!("there is no event for what revision {} wrote", record.modified);
            defect(self.corrupt(what, detail))?;
        }
        events.into_iter().rev().for_each(|event| state.follow(event));
        Ok(())
    }

    fn load_dedup(&self, state: &mut State, defect: OnDefect) -> Result<(), OpenError> {
        self.each(DEDUP, IteratorMode::Start, defect, |key, row| {
            let (client, rest) = key.split_first_chunk::<8>().ok_or("its key is cut short")?;
            let sequence = rest.first_chunk::<8>().map(|bytes| u64::from_be_bytes(*bytes)).ok_or("its key is short")?;
            let client = u64::from_be_bytes(*client);
            if sequence == 0 {
                let head = codec::unseal(key, row)?;
                state.dedup.clients.insert(client, Client { head, ..Client::default() });
                return Ok(());
            }
            let outcome = codec::unseal(key, row)?;
            let client = state.dedup.clients.get_mut(&client).ok_or("its client is missing")?;
            if sequence >= client.head.floor {
                client.outcomes.insert(sequence, outcome);
            }
            Ok(())
        })
    }

    fn each(
        &self,
        family: &str,
        mode: IteratorMode,
        defect: OnDefect,
        mut row: impl FnMut(&[u8], &[u8]) -> Result<(), Defect>,
    ) -> Result<(), OpenError> {
        let mut options = ReadOptions::default();
        options.fill_cache(false);
        options.set_readahead_size(1 << 20);
        for entry in self.db.iterator_cf_opt(self.family(family), options, mode) {
            match entry {
                Ok((key, value)) => row(&key, &value).or_else(|error| defect(self.found(family, &key, error)))?,
                Err(error) => {
                    defect(self.corrupt(format!("the table of {family}"), error.to_string()))?;
                    break;
                }
            }
        }
        Ok(())
    }

    fn corrupt(&self, what: String, detail: String) -> OpenError {
        OpenError::Corrupt { path: self.directory.path.clone(), what, detail }
    }

    pub(crate) fn found(&self, family: &str, key: &[u8], defect: Defect) -> OpenError {
        let what = format!("the row {} in {family}", key.escape_ascii());
        match defect.0 {
            CodecError::Version { found } if found > codec::FORMAT => {
                OpenError::Newer { path: self.directory.path.clone(), what, found }
            }
            error => self.corrupt(what, error.to_string()),
        }
    }
}

/// A state being made of rows: of what describes it, first, and of its objects. The others can't be read before all of these.
#[derive(Default)]
pub(crate) struct Reading {
    state: State,
    /// What the hashes of all records should come to.
    hash: u64,
}

impl Reading {
    /// Takes note of a row if it is one of those.
    pub(crate) fn row(&mut self, family: &str, key: &[u8], row: &[u8]) -> Result<(), Defect> {
        let state = &mut self.state;
        match (family, key) {
            (META, APPLIED) => {
                let applied: Applied = codec::unseal(key, row)?;
                state.position = Some(applied.position);
                state.revision = applied.revision;
                state.compacted = applied.compacted;
                state.gap = applied.compacted;
                state.dedup.tick = applied.tick;
                state.dedup.evictions = applied.evictions;
                self.hash = applied.hash;
            }
            (META, MEMBERSHIP) => state.membership = codec::unseal::<Bytes>(key, row)?,
            (META, _) => return Err("this build knows of no such row".into()),
            (OBJECTS, _) => {
                let stored: StoredRecord = codec::unseal(key, row)?;
                let key = Key::from(std::str::from_utf8(key).map_err(|_| "its key is not text")?);
                let record = stored.restore(key.clone())?;
                if record.modified > state.revision {
                    return Err("it is newer than the state".into());
                }
                state.place(key, Some(Arc::new(record)));
            }
            _ => {}
        }
        Ok(())
    }
}

/// What is wrong with a row.
pub(crate) struct Defect(CodecError);

impl From<&str> for Defect {
    fn from(detail: &str) -> Defect {
        Defect(CodecError::Malformed(detail.to_owned()))
    }
}

impl From<CodecError> for Defect {
    fn from(error: CodecError) -> Defect {
        Defect(error)
    }
}

/// A row as it is on disk and in a snapshot.
pub(crate) struct Row {
    pub(crate) family: &'static str,
    pub(crate) key: Vec<u8>,
    pub(crate) value: Vec<u8>,
}

impl Row {
    fn new<T: Serialize>(family: &'static str, key: &[u8], value: &T) -> Result<Row, CodecError> {
        Ok(Row { family, key: key.to_vec(), value: codec::seal(key, value)? })
    }
}

pub(crate) fn record_row(record: &Record) -> Result<Row, CodecError> {
    Row::new(OBJECTS, record.key.as_str().as_bytes(), &StoredRecord::of(record))
}

/// `ordinal` orders the events of one revision.
pub(crate) fn event_row(ordinal: u32, event: &Event) -> Result<Row, CodecError> {
    let mut key = [0; 12];
    key[..8].copy_from_slice(&event.revision.to_be_bytes());
    key[8..].copy_from_slice(&ordinal.to_be_bytes());
    store_event(event, |stored| Row::new(HISTORY, &key, stored))
}

/// Row 0 of a client is its head; sequences count from 1.
pub(crate) fn client_row(client: u64, head: &ClientHead) -> Result<Row, CodecError> {
    Row::new(DEDUP, &dedup_key(client, 0), head)
}

pub(crate) fn outcome_row(client: u64, sequence: u64, outcome: Outcome) -> Result<Row, CodecError> {
    Row::new(DEDUP, &dedup_key(client, sequence.max(1)), &outcome)
}

pub(crate) fn membership_row(state: &State) -> Result<Row, CodecError> {
    Row::new(META, MEMBERSHIP, &state.membership)
}

pub(crate) fn applied_row(state: &State) -> Result<Row, CodecError> {
    let applied = Applied {
        position: state.position.unwrap_or_default(),
        revision: state.revision,
        compacted: state.compacted,
        hash: state.hash,
        tick: state.dedup.tick,
        evictions: state.dedup.evictions,
    };
    Row::new(META, APPLIED, &applied)
}

/// The family that a snapshot's row names.
pub(crate) fn family_named(name: &str) -> Option<&'static str> {
    FAMILIES.into_iter().find(|family| *family == name)
}

/// Doesn't keep the database from being closed.
pub(crate) struct Probe {
    db: Weak<DB>,
    meter: Meter,
}

impl Probe {
    pub(crate) fn size(&self) -> u64 {
        self.db.upgrade().map_or(0, |db| meter::sum(&db, &FAMILIES, "rocksdb.total-sst-files-size"))
    }

    pub(crate) fn stats(&self) -> DatabaseStats {
        self.db.upgrade().map(|db| self.meter.read(&db, &FAMILIES)).unwrap_or_default()
    }
}

/// Makes durable what a database holds, without keeping anyone from writing to it.
pub(crate) struct Flusher(Arc<DB>);

impl Flusher {
    pub(crate) fn flush(&self) -> Result<(), Fatal> {
        let mut options = FlushOptions::default();
        options.set_wait(true);
        let families: Vec<_> = FAMILIES.iter().filter_map(|name| self.0.cf_handle(name)).collect();
        Ok(self.0.flush_cfs_opt(&families, &options)?)
    }
}

fn dedup_key(client: u64, sequence: u64) -> [u8; 16] {
    let mut row = [0; 16];
    row[..8].copy_from_slice(&client.to_be_bytes());
    row[8..].copy_from_slice(&sequence.to_be_bytes());
    row
}

fn path_of(root: &Path, generation: u64) -> PathBuf {
    root.join(format!("state-{generation}"))
}

fn read_generation(root: &Path) -> Result<u64, OpenError> {
    let path = root.join(GENERATION);
    match fs::read(&path) {
        Ok(bytes) => codec::unseal(GENERATION.as_bytes(), &bytes).map_err(|error| OpenError::Corrupt {
            path,
            what: "the file that names the current state".into(),
            detail: error.to_string(),
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(1),
        Err(source) => Err(OpenError::Io { path, source }),
    }
}

fn write_generation(root: &Path, generation: u64) -> Result<(), Fatal> {
    let bytes = codec::seal(GENERATION.as_bytes(), &generation)?;
    let fresh = root.join("generation.new");
    let mut file = fs::File::create(&fresh)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    fs::rename(&fresh, root.join(GENERATION))?;
    Ok(fs::File::open(root)?.sync_all()?)
}

/// Clears away what an install that a crash cut short, or one that was just finished, has left.
fn remove_others(root: &Path, generation: u64) -> std::io::Result<()> {
    let current = path_of(root, generation);
    for entry in fs::read_dir(root)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.strip_prefix("state-").is_some_and(|n| n.parse::<u64>().is_ok()) && path != current {
            fs::remove_dir_all(&path)?;
        }
    }
    Ok(())
}

fn open_db(path: &Path, resources: &Resources) -> Result<DB, OpenError> {
    let (options, families) = options_of(resources);
    DB::open_cf_descriptors(&options, path, families).map_err(|error| broken(path, error))
}

/// What RocksDB finds to be damaged is told as such.
fn broken(path: &Path, error: rocksdb::Error) -> OpenError {
    let (path, detail) = (path.to_owned(), error.to_string());
    match error.kind() {
        rocksdb::ErrorKind::Corruption => OpenError::Corrupt { path, what: "the state's database".into(), detail },
        _ => OpenError::Database { path, detail },
    }
}

fn options_of(resources: &Resources) -> (rocksdb::Options, Vec<ColumnFamilyDescriptor>) {
    let mut options = resources.meter.options();
    // Closing it is no different from a crash: what must be durable is flushed by name.
    if let Ok(unflushed) = options.get_options_from_string("avoid_flush_during_shutdown=true") {
        options = unflushed;
    }
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_atomic_flush(true);
    options.set_write_buffer_manager(&resources.buffers);
    options.set_max_background_jobs(2);
    options.set_max_open_files(256);
    options.set_bytes_per_sync(1 << 20);
    options.set_keep_log_file_num(2);
    options.set_max_log_file_size(1 << 20);
    options.set_log_level(LogLevel::Warn);
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    let families = FAMILIES.iter().map(|name| ColumnFamilyDescriptor::new(*name, family_options(resources)));
    (options, families.collect())
}

fn family_options(resources: &Resources) -> rocksdb::Options {
    let mut options = table_options(Some(&resources.cache));
    options.set_write_buffer_size(resources.budget / 2);
    // Small files and levels: a compaction needs little space beside them, and gives back what was deleted soon.
    options.set_target_file_size_base(16 << 20);
    options.set_max_bytes_for_level_base(64 << 20);
    options
}

/// What tables are written with that [`Disk::ingest`] takes.
pub(crate) static TABLE_OPTIONS: LazyLock<rocksdb::Options> = LazyLock::new(|| table_options(None));

fn table_options(cache: Option<&Cache>) -> rocksdb::Options {
    let mut table = BlockBasedOptions::default();
    match cache {
        Some(cache) => table.set_block_cache(cache),
        None => table.disable_cache(),
    }
    table.set_block_size(16 << 10);
    table.set_format_version(5);
    let mut options = rocksdb::Options::default();
    options.set_block_based_table_factory(&table);
    options.set_compression_type(DBCompressionType::Lz4);
    options
}

//! What RocksDB says of a database: how much memory and disk it takes, and how much it has written to get there.

use rocksdb::statistics::{StatsLevel, Ticker};
use rocksdb::{DB, DEFAULT_COLUMN_FAMILY_NAME, Options};

/// Counters count from the start of the process, sizes are those of the moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DatabaseStats {
    /// Of all files with rows, and of those that aren't superseded.
    pub sst_bytes: u64,
    pub live_sst_bytes: u64,
    pub memtable_bytes: u64,
    pub block_cache_bytes: u64,
    /// What compaction has before it.
    pub pending_compaction_bytes: u64,
    /// Written to the write-ahead log, from write buffers to files, and from files to files.
    pub wal_bytes: u64,
    pub flushed_bytes: u64,
    pub compacted_bytes: u64,
    /// How long writers were held up.
    pub stalled_micros: u64,
    /// RocksDB refuses writes until it has caught up.
    pub writes_stopped: bool,
    /// RocksDB slows writes to this many bytes a second; 0: it doesn't.
    pub write_rate: u64,
    pub background_errors: u64,
}

/// Counts what is done by databases that are opened with its options, one after the other.
#[derive(Clone)]
pub struct Meter(Options);

impl Meter {
    /// `options` are to be opened with.
    pub fn of(options: &mut Options) -> Meter {
        options.enable_statistics();
        options.set_statistics_level(StatsLevel::ExceptHistogramOrTimers);
        Meter(options.clone())
    }

    /// Options to open the next database with.
    pub(crate) fn options(&self) -> Options {
        self.0.clone()
    }

    /// Takes no lock that a writer waits for.
    pub fn read(&self, db: &DB, families: &[&str]) -> DatabaseStats {
        let ticker = |ticker| self.0.get_ticker_count(ticker);
        let whole = |property: &str| db.property_int_value(property).ok().flatten().unwrap_or(0);
        DatabaseStats {
            sst_bytes: sum(db, families, "rocksdb.total-sst-files-size"),
            live_sst_bytes: sum(db, families, "rocksdb.live-sst-files-size"),
            memtable_bytes: sum(db, families, "rocksdb.size-all-mem-tables"),
            block_cache_bytes: whole("rocksdb.block-cache-usage"),
            pending_compaction_bytes: sum(db, families, "rocksdb.estimate-pending-compaction-bytes"),
            wal_bytes: ticker(Ticker::WalFileBytes),
            flushed_bytes: ticker(Ticker::FlushWriteBytes),
            compacted_bytes: ticker(Ticker::CompactWriteBytes),
            stalled_micros: ticker(Ticker::StallMicros),
            writes_stopped: whole("rocksdb.is-write-stopped") > 0,
            write_rate: whole("rocksdb.actual-delayed-write-rate"),
            background_errors: whole("rocksdb.background-errors"),
        }
    }
}

/// A property summed over families; 0 where there is none. A database that was opened without names has only the default
/// one, and no handle for it.
pub(crate) fn sum(db: &DB, families: &[&str], property: &str) -> u64 {
    let of = |family: &&str| match db.cf_handle(family) {
        Some(handle) => db.property_int_value_cf(handle, property),
        None if *family == DEFAULT_COLUMN_FAMILY_NAME => db.property_int_value(property),
        None => Ok(None),
    };
    families.iter().filter_map(|family| of(family).ok().flatten()).sum()
}

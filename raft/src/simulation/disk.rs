//! The disk of a simulated replica. The files are real ones, in memory where the machine has such a place, and RocksDB
//! writes them; what is simulated is when they are durable. The state's database has no log of its own, so a crash
//! takes away what wasn't flushed; of the Raft log it takes away any part of what wasn't synced.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rand::Rng;
use rand::rngs::StdRng;
use tokio::time::sleep;

use crate::log::{SECTOR, files, written};

pub(crate) struct Disk {
    /// Of the Raft log.
    dir: PathBuf,
    /// The file that RocksDB last wrote to, and how much of it is durable.
    synced: Mutex<(PathBuf, usize)>,
    /// Milliseconds that a sync takes.
    pub(crate) sync_takes: AtomicU64,
    /// Every write and sync fails, until the next life.
    pub(crate) fails: AtomicBool,
}

impl Disk {
    pub(crate) fn new(data_dir: &Path) -> Disk {
        Disk {
            dir: data_dir.join("log"),
            synced: Mutex::default(),
            sync_takes: AtomicU64::new(1),
            fails: AtomicBool::new(false),
        }
    }

    /// The moment between writing and knowing that it is durable.
    pub(crate) async fn syncing(&self) {
        sleep(Duration::from_millis(self.sync_takes.load(Ordering::Relaxed))).await;
    }

    pub(crate) fn check(&self) -> io::Result<()> {
        if self.fails.load(Ordering::Relaxed) { Err(io::Error::other("the disk fails")) } else { Ok(()) }
    }

    /// What the log holds now is durable.
    pub(crate) fn synced(&self) {
        if let Ok(Some((file, bytes))) = self.newest() {
            *self.synced.lock() = (file, written(&bytes));
        }
    }

    /// Takes away what isn't durable, or some of it: what comes last, or, where it is a single write, any of its sectors.
    /// Nobody may have the database open.
    pub(crate) fn crash(&self, rng: &mut StdRng, single: bool) -> io::Result<()> {
        self.fails.store(false, Ordering::Relaxed);
        let Some((file, mut bytes)) = self.newest()? else { return Ok(()) };
        let durable = match &*self.synced.lock() {
            (synced, durable) if *synced == file => *durable,
            _ => 0,
        };
        let end = written(&bytes).max(durable);
        // A file that grows as it is written is cut anywhere; one that was longer before keeps its length.
        let longer = bytes.len() + 50_000;
        match rng.random_range(0..if single { 5 } else { 4 }) {
            0 => {}
            1 => bytes.truncate(rng.random_range(durable..=end)),
            2 => bytes.resize(longer, 0),
            3 => {
                bytes[durable..].fill(0);
                bytes.resize(longer, 0);
            }
            _ => {
                for sector in (durable - durable % SECTOR..end).step_by(SECTOR) {
                    if rng.random() {
                        bytes[sector.max(durable)..end.min(sector + SECTOR)].fill(0);
                    }
                }
                bytes.resize(longer, 0);
            }
        }
        fs::write(file, bytes)
    }

    /// The newest file of RocksDB's own log, and what is in it.
    fn newest(&self) -> io::Result<Option<(PathBuf, Vec<u8>)>> {
        let newest = files(&self.dir)?.pop();
        newest.map(|newest| fs::read(&newest).map(|bytes| (newest, bytes))).transpose()
    }
}

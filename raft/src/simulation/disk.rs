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

pub(crate) struct Disk {
    /// Of the Raft log.
    dir: PathBuf,
    /// The file that RocksDB last wrote to, and how much of it is durable.
    synced: Mutex<(PathBuf, u64)>,
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
        if let Some(newest) = self.newest() {
            *self.synced.lock() = newest;
        }
    }

    /// Takes away what isn't durable, or some of it. Nobody may have the database open.
    pub(crate) fn crash(&self, rng: &mut StdRng) -> io::Result<()> {
        self.fails.store(false, Ordering::Relaxed);
        let Some((file, length)) = self.newest() else { return Ok(()) };
        let durable = match &*self.synced.lock() {
            (synced, durable) if *synced == file => *durable,
            _ => 0,
        };
        let kept = match rng.random_range(0..3) {
            0 => durable,
            1 => length,
            _ => rng.random_range(durable..=length),
        };
        fs::OpenOptions::new().write(true).open(file)?.set_len(kept)
    }

    /// The newest file of RocksDB's own log, and its length.
    fn newest(&self) -> Option<(PathBuf, u64)> {
        let files = fs::read_dir(&self.dir).ok()?.filter_map(|file| Some(file.ok()?.path()));
        let newest = files.filter(|file| file.extension().is_some_and(|extension| extension == "log")).max()?;
        let length = fs::metadata(&newest).ok()?.len();
        Some((newest, length))
    }
}

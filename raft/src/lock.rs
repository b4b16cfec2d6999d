//! A data directory is one process's at a time: from before anything in it is written until that process ends, however it
//! ends. RocksDB's own locks, which come later, know nothing of certificates.

use std::fs::File;
use std::io;
use std::path::Path;
use std::time::Duration;

use kontiki_storage::create_private_dir;
use rustix::fs::{FlockOperation, fcntl_lock, flock};
use rustix::io::Errno;

use crate::config::StartError;

const FILE: &str = "lock";

/// Takes the data directory, and makes it where there is none. It is held as long as the file is.
pub fn lock(data_dir: &Path) -> Result<File, StartError> {
    let cannot = |source: io::Error| StartError::Io { path: data_dir.to_owned(), source };
    create_private_dir(data_dir).map_err(cannot)?;
    let file = File::options().create(true).truncate(false).write(true).open(data_dir.join(FILE)).map_err(cannot)?;
    // Who only looks holds it for a moment.
    for last in [false, false, true] {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(Errno::AGAIN) if last => break,
            Err(Errno::AGAIN) => std::thread::sleep(Duration::from_millis(50)),
            Err(error) => return Err(cannot(error.into())),
        }
    }
    Err(StartError::Busy { path: data_dir.to_owned() })
}

/// Whether no replica runs here. For those who only read, and leave nothing behind.
pub(crate) fn idle(data_dir: &Path) -> Result<(), StartError> {
    let taken = |error| matches!(error, Errno::AGAIN | Errno::ACCESS);
    let lock = File::open(data_dir.join(FILE));
    let locked = lock.is_ok_and(|file| flock(&file, FlockOperation::NonBlockingLockShared).is_err_and(taken));
    // A replica that was not started by the program has only RocksDB's lock.
    let database = File::options().write(true).open(data_dir.join("log/LOCK"));
    let open = database.is_ok_and(|file| fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive).is_err_and(taken));
    if locked || open { Err(StartError::Busy { path: data_dir.to_owned() }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_directory_has_one_owner_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new");
        idle(&path).unwrap();
        let held = lock(&path).unwrap();
        for refused in [lock(&path).map(drop), idle(&path)] {
            assert!(matches!(refused, Err(StartError::Busy { .. })), "{refused:?}");
        }
        drop(held);
        idle(&path).unwrap();
        lock(&path).unwrap();
    }
}

//! The write-ahead log's file is made longer before it is written to: a sync then writes what the file holds and not also
//! how long it is, which on ext4 and XFS is a write of its own to the file system's journal. RocksDB has the blocks allocated
//! already, cuts the file to what it wrote when it closes it, and passes over zeros at its end.

use std::fs::OpenOptions;
use std::io;
use std::path::PathBuf;

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use super::tail::{BLOCK, HEADER, files};

/// By how much. A file that RocksDB has just begun is found when as much has been written since the last step. The
/// simulated disk reads the file at each sync.
const STEP: u64 = if cfg!(test) { 8 << 10 } else { 256 << 10 };

pub(super) struct Ahead {
    dir: PathBuf,
    /// Bytes to be written before the file needs to be longer, or may be another.
    left: u64,
    /// This file system can't do it.
    unsupported: bool,
}

impl Ahead {
    pub(super) fn new(dir: PathBuf) -> Ahead {
        Ahead { dir, left: 0, unsupported: false }
    }

    /// A batch of so many bytes is about to be written.
    pub(super) fn make_room(&mut self, bytes: usize) {
        // With the headers of its pieces.
        let bytes = (bytes + HEADER * (2 + bytes / BLOCK)) as u64;
        if self.left < bytes && !self.unsupported {
            let by = bytes.max(STEP);
            self.left += by;
            // Without it the file grows as it is written; where there is no space, the write itself finds out.
            if let Err(error) = self.extend(by) {
                self.unsupported = error == Errno::OPNOTSUPP;
            }
        }
        self.left = self.left.saturating_sub(bytes);
    }

    /// Never makes a file shorter, whatever has been written to it meanwhile.
    fn extend(&self, by: u64) -> Result<(), Errno> {
        let errno = |error: io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
        let Some(path) = files(&self.dir).map_err(errno)?.pop() else { return Ok(()) };
        let file = OpenOptions::new().write(true).open(path).map_err(errno)?;
        let length = file.metadata().map_err(errno)?.len();
        fallocate(&file, FallocateFlags::empty(), length, by)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_file_is_longer_than_what_is_written_and_keeps_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut ahead = Ahead::new(dir.path().to_owned());
        ahead.make_room(100);
        let (old, new) = (dir.path().join("000004.log"), dir.path().join("000011.log"));
        std::fs::write(&old, "old").unwrap();
        std::fs::write(&new, "").unwrap();
        let mut ahead = Ahead::new(dir.path().to_owned());
        let mut longer = 0;
        for n in 0..3000 {
            ahead.make_room(1000);
            let length = std::fs::metadata(&new).unwrap().len();
            assert!(length >= (n + 1) * 1007, "{length} after {n}");
            longer = length;
        }
        assert!(longer < 3000 * 1014 + 2 * STEP, "{longer}");
        std::fs::write(&new, vec![7; 3 * STEP as usize]).unwrap();
        ahead.make_room(5 * STEP as usize);
        let written = std::fs::read(&new).unwrap();
        assert!(written.len() as u64 >= 8 * STEP && written.starts_with(&vec![7; 3 * STEP as usize]));
        assert_eq!(std::fs::read(&old).unwrap(), b"old");
    }
}

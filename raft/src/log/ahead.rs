//! The write-ahead log's file is written ahead of itself with zeros: a sync then writes what the file holds, and neither how
//! long it is nor that its blocks are in use, both of which on ext4 and XFS are a write to the file system's journal and wait
//! for the data first. (Blocks that are only allocated count as unused until they are written.) It costs every byte once more,
//! but a commit of the journal is three blocks. RocksDB cuts the file to what it wrote when it closes it, and passes over
//! zeros at its end.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::PathBuf;

use super::tail::{BLOCK, HEADER, files};

/// By how much. A file that RocksDB has just begun is found when as much has been written since the last step. The
/// simulated disk reads the file at each sync.
const STEP: usize = if cfg!(test) { 8 << 10 } else { 128 << 10 };
/// What is written at once, the page cache keeps, and syncs, as one piece where it can: it has to be a small one.
const PAGE: usize = 4 << 10;
/// More at a time costs more than the journal.
const SMALL: usize = 4 << 10;

pub(super) struct Ahead {
    dir: PathBuf,
    /// Bytes to be written before the file needs to be longer, or may be another.
    left: usize,
}

impl Ahead {
    pub(super) fn new(dir: PathBuf) -> Ahead {
        Ahead { dir, left: 0 }
    }

    /// A batch of so many bytes is about to be written.
    pub(super) fn make_room(&mut self, bytes: usize) {
        // With the headers of its pieces.
        let bytes = bytes + HEADER * (2 + bytes / BLOCK);
        if self.left < bytes && bytes <= SMALL {
            // Without it the file grows as it is written; where there is no space, the write itself finds out.
            let _ = self.extend();
            self.left += STEP;
        }
        self.left = self.left.saturating_sub(bytes);
    }

    /// Never touches what the file holds, whatever has been written to it meanwhile.
    fn extend(&self) -> io::Result<()> {
        let Some(path) = files(&self.dir)?.pop() else { return Ok(()) };
        let mut file = OpenOptions::new().append(true).open(path)?;
        (0..STEP / PAGE).try_for_each(|_| file.write_all(&[0; PAGE]))
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
            longer = std::fs::metadata(&new).unwrap().len() as usize;
            assert!(longer >= (n + 1) * 1007, "{longer} after {n}");
        }
        assert!(longer < 3000 * 1014 + 2 * STEP, "{longer}");
        std::fs::write(&new, vec![7; 3 * STEP]).unwrap();
        let mut ahead = Ahead::new(dir.path().to_owned());
        ahead.make_room(10 * SMALL);
        assert_eq!(std::fs::metadata(&new).unwrap().len() as usize, 3 * STEP);
        ahead.make_room(SMALL / 2);
        assert_eq!(std::fs::read(&new).unwrap(), [vec![7; 3 * STEP], vec![0; STEP]].concat());
        assert_eq!(std::fs::read(&old).unwrap(), b"old");
    }
}

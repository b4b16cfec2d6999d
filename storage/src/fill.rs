//! Whole states on their way into a database that is empty. Their rows are sorted into tables that become the database's
//! as they are. Through its write buffers they would be written a second time and a third, by compactions that share disk
//! and processor with whoever is served meanwhile.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use rocksdb::SstFileWriter;

use crate::Fatal;
use crate::disk::{Disk, Row, create_private_dir};

/// Tables are written once rows of so many bytes wait for them. Each is synced, and whoever shares the disk waits for that.
const WAITING: usize = 1 << 20;

pub(crate) struct Fill {
    disk: Disk,
    waiting: Vec<Row>,
    waiting_bytes: usize,
    written: BTreeMap<&'static str, Vec<PathBuf>>,
}

impl Fill {
    pub(crate) fn new(disk: Disk) -> Fill {
        Fill { disk, waiting: Vec::new(), waiting_bytes: 0, written: BTreeMap::new() }
    }

    pub(crate) fn disk(&self) -> &Disk {
        &self.disk
    }

    /// Rows may come in any order. Where a key comes again its last row counts.
    pub(crate) fn add(&mut self, row: Row) -> Result<(), Fatal> {
        self.waiting_bytes += row.key.len() + row.value.len();
        self.waiting.push(row);
        if self.waiting_bytes < WAITING { Ok(()) } else { self.write() }
    }

    fn write(&mut self) -> Result<(), Fatal> {
        let mut rows = std::mem::take(&mut self.waiting);
        self.waiting_bytes = 0;
        rows.sort_by(|one, other| (one.family, &one.key).cmp(&(other.family, &other.key)));
        let directory = self.disk.incoming();
        create_private_dir(&directory)?;
        let options = self.disk.table_options();
        for rows in rows.chunk_by(|one, other| one.family == other.family) {
            let tables = self.written.entry(rows[0].family).or_default();
            let path = directory.join(format!("{}-{}", rows[0].family, tables.len()));
            let mut table = SstFileWriter::create(&options);
            table.open(&path)?;
            for same in rows.chunk_by(|one, other| one.key == other.key) {
                let last = &same[same.len() - 1];
                table.put(&last.key, &last.value)?;
            }
            table.finish()?;
            tables.push(path);
        }
        Ok(())
    }

    /// The database with all of the rows, durably.
    pub(crate) fn finish(mut self) -> Result<Disk, Fatal> {
        self.write()?;
        for (family, tables) in self.written {
            self.disk.ingest(family, tables)?;
        }
        fs::remove_dir_all(self.disk.incoming())?;
        Ok(self.disk)
    }
}

#[cfg(test)]
mod tests {
    use rocksdb::{DB, IteratorMode};

    use super::*;
    use crate::Options;
    use crate::disk::OBJECTS;

    #[test]
    fn the_last_row_of_a_key_counts_in_whatever_order_they_come() {
        let dir = tempfile::tempdir().unwrap();
        let (disk, _) = Disk::open(dir.path(), &Options::default()).unwrap();
        let mut fill = Fill::new(disk.stage(2).unwrap());
        // More than one table's worth between a key and the next time that it comes, and less.
        let keys = (0..4000).rev().map(|n| n * 7919 % 4000).chain(0..1500).chain([3, 3]);
        let mut last = BTreeMap::new();
        for (n, key) in keys.enumerate() {
            let (key, value) = (format!("a/{key:05}").into_bytes(), format!("{n:01000}").into_bytes());
            last.insert(key.clone(), value.clone());
            fill.add(Row { family: OBJECTS, key, value }).unwrap();
        }
        let disk = fill.finish().unwrap();
        let path = dir.path().join("state-2");
        let families = ["default", "objects", "history", "dedup", "meta"];
        let db = DB::open_cf_for_read_only(&rocksdb::Options::default(), &path, families, false).unwrap();
        let rows = db.iterator_cf(db.cf_handle(OBJECTS).unwrap(), IteratorMode::Start);
        let rows: Vec<_> = rows.map(|row| row.map(|(key, value)| (key.to_vec(), value.to_vec())).unwrap()).collect();
        assert!(rows == last.into_iter().collect::<Vec<_>>(), "{}", rows.len());
        assert!(!disk.incoming().exists());
        drop(disk);
        assert!(!path.exists(), "nothing refers to it");
    }
}

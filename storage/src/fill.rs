//! Whole states on their way into a database that is empty. Their rows are written to tables that become the database's as
//! they are. Through its write buffers they would be written a second time and a third, by compactions that share disk
//! and processor with whoever is served meanwhile.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use rocksdb::SstFileWriter;

use crate::Fatal;
use crate::disk::{Disk, Row, TABLE_OPTIONS, create_private_dir};

/// A table is closed and synced once rows of so many bytes are in it. What it has of them by then is on its way to the disk:
/// the writer tells the system with every MiB that it won't read it again.
const TABLE: usize = 16 << 20;

pub(crate) struct Fill {
    disk: Disk,
    open: Option<Table>,
    tables: BTreeMap<&'static str, Vec<PathBuf>>,
}

/// One that is being written.
struct Table {
    family: &'static str,
    last: Vec<u8>,
    bytes: usize,
    writer: SstFileWriter<'static>,
}

impl Fill {
    pub(crate) fn new(disk: Disk) -> Fill {
        Fill { disk, open: None, tables: BTreeMap::new() }
    }

    pub(crate) fn disk(&self) -> &Disk {
        &self.disk
    }

    /// Rows should come in the order of their keys, as far as they are of one family: each time that they don't begins another
    /// table. Where a key comes again its last row counts.
    pub(crate) fn add(&mut self, row: Row) -> Result<(), Fatal> {
        let fits = |table: &Table| table.family == row.family && table.last < row.key && table.bytes < TABLE;
        if !self.open.as_ref().is_some_and(fits) {
            self.close()?;
        }
        let table = match &mut self.open {
            Some(table) => table,
            None => self.open.insert(begin(&self.disk, row.family, self.tables.entry(row.family).or_default())?),
        };
        table.writer.put(&row.key, &row.value)?;
        table.bytes += row.key.len() + row.value.len();
        table.last = row.key;
        Ok(())
    }

    fn close(&mut self) -> Result<(), Fatal> {
        Ok(self.open.take().map_or(Ok(()), |mut table| table.writer.finish())?)
    }

    /// The database with all of the rows, durably.
    pub(crate) fn finish(mut self) -> Result<Disk, Fatal> {
        self.close()?;
        if self.tables.is_empty() {
            return Ok(self.disk);
        }
        for (family, tables) in self.tables {
            self.disk.ingest(family, tables)?;
        }
        fs::remove_dir_all(self.disk.incoming())?;
        Ok(self.disk)
    }
}

fn begin(disk: &Disk, family: &'static str, tables: &mut Vec<PathBuf>) -> Result<Table, Fatal> {
    let directory = disk.incoming();
    create_private_dir(&directory)?;
    let path = directory.join(format!("{family}-{}", tables.len()));
    let writer = SstFileWriter::create(&TABLE_OPTIONS);
    writer.open(&path)?;
    tables.push(path);
    Ok(Table { family, last: Vec::new(), bytes: 0, writer })
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
        // More than one table's worth, and keys that come again in the same order and at once.
        let keys = (0..18_000).step_by(9).rev().chain(0..18_000).chain(0..1500).chain([3, 3]);
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

//! What replicas keep and send each other.

use bytes::Bytes;
use kontiki_storage::fuzz::{Row, archived, file, read, read_file, rows, settles, stored};
use kontiki_storage::{
    Command, Condition, Key, LogPosition, Options, Proposal, SnapshotHeader, Store, Transaction, Write,
};

use crate::source::Source;

/// The proposals of a log entry.
pub fn command(bytes: &[u8]) {
    settles::<Vec<Proposal>>(bytes);
}

/// A record, and an event that superseded it.
pub fn stored_row(bytes: &[u8]) {
    let (record, event) = bytes.split_at(bytes.len() / 2);
    stored(record, event, 7);
}

struct Exported {
    store: Store,
    rows: Vec<Row>,
    /// Of the file that `kontiki snapshot save` writes.
    header: SnapshotHeader,
    records: Vec<Row>,
    _dir: tempfile::TempDir,
}

thread_local! {
    static EXPORTED: Exported = exported().expect("a small store");
}

/// A store with all kinds of rows.
fn exported() -> Result<Exported, Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let store = Store::open(dir.path(), Options::default())?;
    let put = |key: &str, expires_at| Write::Put {
        key: Key::from(key),
        value: Bytes::from_static(b"{\"metadata\":{\"resourceVersion\":\"\"}}"),
        revision_at: Some(32),
        expires_at,
    };
    let transactions = [
        Transaction {
            conditions: vec![Condition::Absent(Key::from("t/a"))],
            writes: vec![put("t/a", None), put("t/b", Some(1))],
        },
        Transaction { conditions: Vec::new(), writes: vec![put("t/a", None)] },
        Transaction { conditions: Vec::new(), writes: vec![Write::Delete { key: Key::from("t/b") }, put("u/c", None)] },
    ];
    let proposals: Vec<Proposal> = (1..)
        .zip(transactions)
        .map(|(sequence, transaction)| Proposal {
            client: 5,
            sequence,
            acknowledged: 1,
            command: Command::Transact(transaction),
        })
        .collect();
    store.apply(LogPosition { index: 1, term: 1, node: 1 }, &proposals)?;
    let rows = rows(store.export())?;
    let (header, records) = archived(store.archive(3, 1_700_000_000, "v1"))?;
    Ok(Exported { store, rows, header, records, _dir: dir })
}

/// Rows of which some are changed, gone or there twice.
fn damaged(rows: &[Row], bytes: &[u8]) -> Vec<Row> {
    let mut rows = rows.to_vec();
    let mut source = Source(bytes);
    while !source.0.is_empty() {
        let at = source.byte() % rows.len();
        let (how, place, value) = (source.byte(), source.byte(), source.byte() as u8);
        let row = &mut rows[at];
        let changed = if how & 8 == 0 { &mut row.body } else { &mut row.key };
        match how & 7 {
            0..=3 if !changed.is_empty() => {
                let place = place % changed.len();
                changed[place] = value;
            }
            4 => changed.truncate(place % (changed.len() + 1)),
            5 => changed.push(value),
            6 if rows.len() > 1 => drop(rows.remove(at)),
            _ => rows.push(rows[at].clone()),
        }
    }
    rows
}

pub fn snapshot(bytes: &[u8]) {
    EXPORTED.with(|exported| {
        let rows = damaged(&exported.rows, bytes);
        let _ = exported.store.stage().map(|staged| read(staged, &rows));
    });
}

/// A snapshot file. One that was damaged after it was written is never taken for whole.
pub fn archive(bytes: &[u8]) {
    EXPORTED.with(|exported| {
        let mut source = Source(bytes);
        let (place, value) = (source.byte() * 256 + source.byte(), source.byte() as u8);
        let rows = damaged(&exported.records, source.0);
        let mut whole = file(&exported.header, &rows).expect("rows");
        let read = read_file(&whole);
        assert!(read.is_ok() || !source.0.is_empty(), "{read:?}");
        let at = place % whole.len();
        if whole[at] != value {
            whole[at] = value;
            assert!(read_file(&whole).is_err(), "byte {at} was changed");
        }
        assert!(read_file(&whole[..at]).is_err(), "it ended at byte {at}");
    });
    let _ = read_file(bytes);
}

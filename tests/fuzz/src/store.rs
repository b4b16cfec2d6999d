//! What replicas keep and send each other.

use bytes::Bytes;
use kontiki_storage::fuzz::{Row, read, rows, settles, stored};
use kontiki_storage::{Command, Condition, Key, LogPosition, Options, Proposal, Store, Transaction, Write};

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
    Ok(Exported { store, rows, _dir: dir })
}

/// A snapshot of which some rows are changed, gone or there twice.
pub fn snapshot(bytes: &[u8]) {
    EXPORTED.with(|exported| {
        let mut rows = exported.rows.clone();
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
        let _ = exported.store.stage().map(|staged| read(staged, &rows));
    });
}

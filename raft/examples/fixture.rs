//! Makes the data directory by which later releases show that they read this one's format: see `tests/fixtures/README.md`.

#![allow(clippy::unwrap_used, reason = "what can't go on fails")]

#[path = "../tests/common/mod.rs"]
mod common;

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use common::{Cluster, copy_dir, put, soon};
use kontiki_raft::Limits;
use kontiki_storage::codec::FORMAT;
use kontiki_storage::{Transaction, Write};

/// As the test expects them.
const KEYS: usize = 40;

#[tokio::main]
async fn main() {
    let limits = Limits { checkpoint_entries: 60, trailing_entries: 20, ..Limits::default() };
    let mut cluster = Cluster::found(&["n1"], limits).await;
    let replica = cluster.nodes[0].replica();
    for n in 0..3 * KEYS {
        replica.propose(put(&format!("a/{:02}", n % KEYS), &format!("value {n}")), soon()).await.unwrap();
    }
    replica.compact(30, soon()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    // These come after the last checkpoint.
    let key = |n: usize| format!("a/{n:02}").into();
    let delete = Transaction { conditions: vec![], writes: vec![Write::Delete { key: key(0) }] };
    replica.propose(delete, soon()).await.unwrap();
    let value = Bytes::from_static(b"{\"resourceVersion\":\"\"}");
    let write = Write::Put { key: key(1), value, revision_at: Some(20), expires_at: Some(4_000_000_000) };
    replica.propose(Transaction { conditions: vec![], writes: vec![write] }, soon()).await.unwrap();
    drop(replica);
    cluster.nodes[0].crash();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let to = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/format-{FORMAT}"));
    let _ = std::fs::remove_dir_all(&to);
    copy_dir(&cluster.path(0), &to);
    for file in ["log", "state/state-1"].into_iter().flat_map(|part| std::fs::read_dir(to.join(part)).unwrap()) {
        let path = file.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        // RocksDB's notes to people, which it makes again.
        if name.starts_with("LOG") || name.starts_with("OPTIONS") || name == "LOCK" {
            std::fs::remove_file(path).unwrap();
        }
    }
    println!("{}", to.display());
}

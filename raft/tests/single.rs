//! A cluster of one: what it acknowledged is there after a restart, once.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use kontiki_raft::{Config, Limits, ProposeError, Replica, Role, StartError};
use kontiki_storage::{Condition, Outcome, Transaction, Write};
use tokio::time::Instant;

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

fn put(key: &str, value: &str) -> Transaction {
    let value = Bytes::copy_from_slice(value.as_bytes());
    let write = Write::Put { key: key.into(), value, revision_at: None, expires_at: None };
    Transaction { conditions: vec![], writes: vec![write] }
}

async fn start(dir: &Path) -> Replica {
    Replica::start(Config::new("n1", dir)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let replica = start(dir.path()).await;
    for n in 1..=50 {
        let outcome = replica.propose(put(&format!("a/{n}"), "x"), soon()).await.unwrap();
        assert_eq!(outcome, Outcome::Committed { revision: n });
    }
    let again = Transaction { conditions: vec![Condition::Absent("a/1".into())], ..put("a/1", "y") };
    let conflict = Outcome::Conflict { condition: 0, current: Some(1) };
    assert_eq!(replica.propose(again, soon()).await, Ok(conflict));
    let hash = replica.store().state_hash();
    replica.shutdown().await;
    assert_eq!(replica.propose(put("a/1", ""), soon()).await, Err(ProposeError::ShuttingDown));
    drop(replica);

    let replica = start(dir.path()).await;
    let view = replica.read_barrier(soon()).await.unwrap();
    assert_eq!((view.revision(), view.count("a/")), (50, 50));
    assert_eq!(replica.store().state_hash(), hash);
    let status = replica.status();
    assert_eq!((status.role, status.revision, status.leader.as_deref()), (Role::Leader, 50, Some("n1")));
    replica.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_share_entries_and_each_gets_its_own_outcome() {
    let dir = tempfile::tempdir().unwrap();
    let replica = start(dir.path()).await;
    replica.read_barrier(soon()).await.unwrap();
    let before = replica.status().last_log_index;
    let writers: Vec<_> = (0..64)
        .map(|writer| {
            let replica = replica.clone();
            tokio::spawn(async move {
                let mut revisions = Vec::new();
                for n in 0..10 {
                    match replica.propose(put(&format!("a/{writer}-{n}"), "x"), soon()).await {
                        Ok(Outcome::Committed { revision }) => revisions.push(revision),
                        other => panic!("{other:?}"),
                    }
                }
                revisions
            })
        })
        .collect();
    let mut revisions = Vec::new();
    for writer in writers {
        revisions.extend(writer.await.unwrap());
    }
    revisions.sort_unstable();
    assert_eq!(revisions, (1..=640).collect::<Vec<_>>());
    let entries = replica.status().last_log_index - before;
    eprintln!("{entries} entries for 640 proposals");
    assert!(entries < 160, "{entries} entries for 640 proposals");
    replica.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_cut_and_the_rest_is_enough() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { checkpoint_entries: 50, trailing_entries: 20, ..Limits::default() };
    let config = Config { limits, ..Config::new("n1", dir.path()) };
    let replica = Replica::start(config.clone()).await.unwrap();
    let registry = prometheus::Registry::new();
    replica.register_metrics(&registry).unwrap();
    let purged = || {
        let families = registry.gather();
        let family = families.iter().find(|family| family.name() == "kontiki_raft_purged_index").unwrap();
        family.get_metric()[0].get_gauge().get_value() as u64
    };
    for n in 0..300 {
        replica.propose(put("a/1", &n.to_string()), soon()).await.unwrap();
    }
    while purged() < 200 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let hash = replica.store().state_hash();
    replica.shutdown().await;
    drop(replica);
    let replica = Replica::start(config).await.unwrap();
    replica.read_barrier(soon()).await.unwrap();
    assert_eq!(replica.store().state_hash(), hash);
    replica.shutdown().await;
}

#[tokio::test]
async fn a_directory_is_one_replicas() {
    let dir = tempfile::tempdir().unwrap();
    let replica = start(dir.path()).await;
    replica.read_barrier(soon()).await.unwrap();
    replica.shutdown().await;
    drop(replica);
    let other = Replica::start(Config::new("n2", dir.path())).await;
    assert!(matches!(other, Err(StartError::Foreign { .. })));
    std::fs::remove_dir_all(dir.path().join("log")).unwrap();
    let halved = Replica::start(Config::new("n1", dir.path())).await;
    assert!(matches!(halved, Err(StartError::Foreign { .. })));
}

//! What an earlier release has left on a disk is read by this one, and its replica runs beside current ones.
//!
//! `fixtures/README.md` says what there is, and how it was made.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod common;

use std::path::{Path, PathBuf};
use std::time::Duration;

use common::{Cluster, copy_dir, put, soon};
use kontiki_raft::{Config, LEVEL, Limits, Replica, StartError, verify};
use kontiki_storage::codec::FORMAT;

const KEYS: usize = 40;

fn fixture(format: u8) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/format-{format}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_format_that_was_ever_written_is_read_beside_current_replicas() {
    for format in 1..=FORMAT {
        let verified = tempfile::tempdir().unwrap();
        copy_dir(&fixture(format), verified.path());
        let report = verify(verified.path()).unwrap();
        assert!(report.is_sound(), "{:?}", report.defects);

        let mut cluster = Cluster::open("n1", &fixture(format)).await;
        let replica = cluster.nodes[0].replica();
        let view = replica.read_barrier(soon()).await.unwrap();
        assert_eq!((view.count("a/"), view.revision()), (KEYS - 1, 3 * KEYS as u64 + 2));
        let renewed = view.get("a/01").unwrap();
        let (value, expires) = (format!("{{\"resourceVersion\":\"{}\"}}", view.revision()), Some(4_000_000_000));
        assert_eq!((&renewed.value[..], renewed.expires_at), (value.as_bytes(), expires));
        assert_eq!(&view.get("a/39").unwrap().value[..], b"value 119");
        assert!(replica.store().compacted_revision() >= 30);

        cluster.grow("n2").await;
        cluster.grow("n3").await;
        cluster.nodes[2].replica().propose(put("a/40", "x"), soon()).await.unwrap();
        cluster.agree().await;
        drop((replica, view));
        // It leads, and it follows.
        let old = cluster.leader().await;
        cluster.nodes[old].stop().await;
        cluster.leader().await;
        cluster.nodes[old].start().await;
        cluster.agree().await;
    }
}

/// All agree that the cluster has come to this level.
async fn wait_for_level(cluster: &Cluster, level: u32) {
    let end = soon();
    for node in &cluster.nodes {
        let replica = node.replica();
        while replica.status().feature_level != level {
            assert!(tokio::time::Instant::now() < end, "{:?}", replica.status());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_level_rises_once_all_members_have_it_and_none_falls_behind_it() {
    let mut cluster = Cluster::found(&["n1"], Limits::default()).await;
    cluster.grow("n2").await;
    cluster.grow("n3").await;
    let raise = |cluster: &mut Cluster, node: usize, level| cluster.nodes[node].config.level = level;
    for node in [2, 1] {
        cluster.nodes[node].stop().await;
        raise(&mut cluster, node, LEVEL + 1);
        cluster.nodes[node].start().await;
        cluster.agree().await;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    wait_for_level(&cluster, LEVEL).await;
    cluster.nodes[0].stop().await;
    raise(&mut cluster, 0, LEVEL + 1);
    cluster.nodes[0].start().await;
    wait_for_level(&cluster, LEVEL + 1).await;

    // An older build can't come back, nor join.
    cluster.nodes[2].stop().await;
    raise(&mut cluster, 2, LEVEL);
    let older = cluster.nodes[2].try_start().await;
    assert!(matches!(older, Err(StartError::TooOld { .. })), "{older:?}");
    std::fs::remove_dir_all(cluster.path(2)).unwrap();
    cluster.remove(0, "n3").await.unwrap();
    let level = LEVEL;
    let joined = cluster.join_as("n4", |config| config.level = level).await.unwrap();
    let soon = tokio::time::Instant::now() + Duration::from_secs(2);
    assert!(cluster.nodes[joined].replica().read_barrier(soon).await.is_err());
    cluster.nodes[joined].stop().await;
    raise(&mut cluster, joined, LEVEL + 1);
    cluster.nodes[joined].start().await;
    cluster.agree().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_newer_release_has_written_is_not_touched() {
    for (part, row) in [("log", &b"m/identity"[..]), ("log", &b"m/vote"[..])] {
        let dir = tempfile::tempdir().unwrap();
        copy_dir(&fixture(FORMAT), dir.path());
        let db = rocksdb::DB::open_default(dir.path().join(part)).unwrap();
        let mut value = db.get(row).unwrap().unwrap();
        value[0] = FORMAT + 1;
        db.put(row, value).unwrap();
        drop(db);
        let refused = Replica::start(Config::new("n1", dir.path())).await.err();
        assert!(matches!(refused, Some(StartError::Newer { .. })), "{refused:?}");
        assert!(refused.unwrap().to_string().contains("newer release"));
    }
}

//! One replica is all that is left: it goes on as a cluster of its own.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod common;

use std::time::Duration;

use common::{Cluster, put, soon};
use kontiki_raft::{Limits, StartError, Survivor};

#[tokio::test(flavor = "multi_thread")]
async fn the_last_replica_goes_on_with_all_that_it_has() {
    let mut cluster = Cluster::start(Limits::default()).await;
    let survivor = cluster.follower().await;
    for n in 0..100 {
        cluster.nodes[n % 3].replica().propose(put(&format!("a/{n}"), "x"), soon()).await.unwrap();
    }
    cluster.agree().await;
    for node in (0..3).filter(|node| *node != survivor) {
        cluster.nodes[node].crash();
    }
    let revision = cluster.nodes[survivor].replica().store().applied_revision();
    cluster.nodes[survivor].stop().await;

    let path = cluster.path(survivor);
    let found = Survivor::read(&path).unwrap();
    assert_eq!((found.name(), found.others.len(), found.quorum_with()), (&*cluster.nodes[survivor].config.name, 2, 1));
    found.recover(&path, None, 1000).unwrap();
    // The cluster that it was started for is another one.
    let refused = cluster.nodes[survivor].try_start().await;
    assert!(matches!(refused, Err(StartError::Foreign { .. })), "{refused:?}");
    cluster.nodes[survivor].config.initial_cluster.clear();
    cluster.nodes[survivor].start().await;
    let replica = cluster.nodes[survivor].replica();
    let view = replica.read_barrier(soon()).await.unwrap();
    assert_eq!((view.count("a/"), view.revision()), (100, revision + 1000));
    assert_eq!(replica.store().compacted_revision(), view.revision());
    assert_eq!(replica.members().len(), 1);

    // Whoever turns up again with the old data is not spoken with, and does no harm.
    let old = (0..3).find(|node| *node != survivor).unwrap();
    cluster.nodes[old].start().await;
    // If it was the leader it takes a moment to find out that it has no quorum.
    let mut leadership = cluster.nodes[old].replica().leadership();
    let alone = leadership.wait_for(|now| now.leader.is_none());
    drop(tokio::time::timeout(Duration::from_secs(10), alone).await.unwrap().unwrap());
    replica.propose(put("a/100", "x"), soon()).await.unwrap();
    cluster.nodes[old].crash();
    drop((replica, view));
    cluster.grow("n4").await;
    cluster.grow("n5").await;
    cluster.agree().await;
}

//! A replica whose state is not what the others have finds that out, and stays out of the way.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod common;

use std::time::Duration;

use common::{Cluster, copy_dir, metric, open_store, put, soon};
use kontiki_raft::{Limits, Role, Survivor};
use kontiki_storage::{Command, Proposal};

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_with_another_state_finds_out_and_remembers() {
    let mut cluster = Cluster::start(Limits::default()).await;
    cluster.nodes.iter_mut().for_each(|node| node.config.timing.audit = Duration::from_millis(100));
    let wrong = cluster.follower().await;
    let leader = cluster.nodes[cluster.leader().await].replica();
    let state = cluster.path(wrong).join("state");
    let kept = cluster.path(wrong).join("kept");
    leader.propose(put("a/1", "x"), soon()).await.unwrap();
    cluster.agree().await;
    cluster.nodes[wrong].stop().await;
    drop(open_store(&state).await);
    copy_dir(&state, &kept);
    cluster.nodes[wrong].start().await;
    leader.propose(put("a/1", "right"), soon()).await.unwrap();
    cluster.agree().await;
    cluster.nodes[wrong].stop().await;

    // Its log is right; what it made of the last entry is not.
    let last = open_store(&state).await.applied().unwrap();
    std::fs::remove_dir_all(&state).unwrap();
    std::fs::rename(&kept, &state).unwrap();
    let store = open_store(&state).await;
    let command = Command::Transact(put("a/1", "wrong"));
    store.apply(last, &[Proposal { client: 0, sequence: 0, acknowledged: 0, command }]).unwrap();
    store.flush().unwrap();
    drop(store);

    cluster.nodes[wrong].start().await;
    let replica = cluster.nodes[wrong].replica();
    let mut divergence = replica.divergence();
    let found = tokio::time::timeout(Duration::from_secs(10), divergence.wait_for(Option::is_some)).await;
    let found = found.expect("it is not found").unwrap().unwrap();
    assert_eq!(found.expected, leader.store().witness_at(found.revision).unwrap().hash);
    assert!(leader.divergence().borrow().is_none());
    assert_eq!(metric(&replica, "kontiki_raft_state_diverged"), 1.0);
    assert!(metric(&replica, "kontiki_raft_state_mismatches_total") >= 1.0);

    // It knows at once after a restart; its log still counts, but it doesn't lead.
    drop((replica, divergence));
    cluster.nodes[wrong].stop().await;
    cluster.nodes[wrong].start().await;
    let replica = cluster.nodes[wrong].replica();
    assert!(replica.divergence().borrow().is_some() && replica.status().diverged);
    let other = cluster.leader().await;
    cluster.nodes[other].stop().await;
    leader_is_not(&mut cluster, wrong).await;
    let right = 3 - wrong - other;
    cluster.nodes[right].replica().propose(put("a/2", "x"), soon()).await.unwrap();

    // Whoever goes on with its state for want of a better one makes it the right one.
    drop(replica);
    cluster.nodes[right].crash();
    cluster.nodes[wrong].stop().await;
    let path = cluster.path(wrong);
    let survivor = Survivor::read(&path).unwrap();
    assert_eq!(survivor.divergence, Some(found));
    survivor.recover(&path, None, 1000).unwrap();
    cluster.nodes[wrong].config.initial_cluster.clear();
    cluster.nodes[wrong].start().await;
    let replica = cluster.nodes[wrong].replica();
    assert!(!replica.status().diverged);
    replica.propose(put("a/3", "x"), soon()).await.unwrap();
}

async fn leader_is_not(cluster: &mut Cluster, node: usize) {
    let leader = cluster.leader().await;
    assert_ne!(leader, node);
    assert_eq!(cluster.nodes[leader].replica().status().role, Role::Leader);
}

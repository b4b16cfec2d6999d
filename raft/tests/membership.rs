//! Replicas come and go, and who is left knows who is a member.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::{Cluster, create, metric, put, soon, write_until};
use kontiki_raft::{Limits, ManageError, Operation, Refusal, Replica, StartError};
use kontiki_storage::Outcome;
use tokio::time::{Instant, timeout};

fn refusal(result: Result<(), ManageError>) -> Refusal {
    match result {
        Err(ManageError::Refused(refusal)) => refusal,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_grows_to_five_and_shrinks_to_one_under_load() {
    let limits = Limits { checkpoint_entries: 200, trailing_entries: 50, ..Limits::default() };
    let mut cluster = Cluster::found(&["n1"], limits).await;
    let stop = Arc::new(AtomicBool::new(false));
    let writing = tokio::spawn(write_until(stop.clone(), vec![cluster.nodes[0].replica()]));
    for name in ["n2", "n3", "n4", "n5"] {
        cluster.grow(name).await;
    }
    let all: Vec<_> = ["n1", "n2", "n3", "n4", "n5"].map(|name| (name.to_owned(), true)).into();
    assert_eq!(cluster.roles(3).await, all);
    // The leader, too, whoever that is; n1 takes the writes.
    for (at, name) in [(4, "n5"), (3, "n4"), (2, "n3"), (1, "n2")] {
        let leave = cluster.nodes[at].replica();
        leave.manage(Operation::Lead { name: Some(name.into()) }, soon()).await.unwrap();
        cluster.remove(0, name).await.unwrap();
        let reason = timeout(Duration::from_secs(5), leave.failed()).await.unwrap();
        assert!(reason.contains("removed from the cluster"), "{reason}");
        drop(leave);
        cluster.nodes[at].crash();
    }
    stop.store(true, Ordering::Relaxed);
    let (keys, gap) = writing.await.unwrap();
    eprintln!("{} writes, the longest gap {gap:?}", keys.len());
    assert_eq!(cluster.roles(0).await, [("n1".to_owned(), true)]);
    let view = cluster.nodes[0].replica().read_barrier(soon()).await.unwrap();
    assert_eq!(view.count("a/"), keys.len());
    assert_eq!(refusal(cluster.remove(0, "n1").await), Refusal::LastVoter("n1".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_is_alone_reads_without_a_round_until_it_takes_in_another() {
    let mut cluster = Cluster::found(&["n1"], Limits::default()).await;
    let replica = cluster.nodes[0].replica();
    let key = |n: u32| format!("a/{n}");
    let write_and_read = async |from: u32| {
        let rounds = metric(&replica, "kontiki_raft_read_barrier_rounds_total");
        for n in from..from + 20 {
            replica.propose(put(&key(n), "x"), soon()).await.unwrap();
            assert!(replica.read_barrier(soon()).await.unwrap().get(&key(n)).is_some());
        }
        metric(&replica, "kontiki_raft_read_barrier_rounds_total") - rounds
    };
    replica.read_barrier(soon()).await.unwrap();
    assert_eq!(write_and_read(0).await, 0.0);
    cluster.grow("n2").await;
    assert!(write_and_read(20).await >= 20.0);
    // Without the other there is no quorum, so nothing that it could prove.
    cluster.nodes[1].crash();
    let read = replica.read_barrier(Instant::now() + Duration::from_secs(2)).await;
    assert!(read.is_err(), "it read {:?}", read.map(|view| view.revision()));
    cluster.nodes[1].start().await;
    cluster.remove(0, "n2").await.unwrap();
    assert!(soon_alone(&cluster.nodes[0].replica()).await);
    assert_eq!(write_and_read(40).await, 0.0);
}

/// Its reads begin to need no rounds.
async fn soon_alone(replica: &Replica) -> bool {
    let end = soon();
    while Instant::now() < end {
        replica.read_barrier(soon()).await.unwrap();
        let rounds = metric(replica, "kontiki_raft_read_barrier_rounds_total");
        replica.read_barrier(soon()).await.unwrap();
        if metric(replica, "kontiki_raft_read_barrier_rounds_total") == rounds {
            return true;
        }
    }
    false
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_lose_the_quorum_is_refused() {
    let mut cluster = Cluster::start(Limits::default()).await;
    let leader = cluster.leader().await;
    let others: Vec<_> = (0..3).filter(|node| *node != leader).collect();
    let (away, left) = (others[0], others[1]);
    let (away_name, left_name) = (cluster.nodes[away].config.name.clone(), cluster.nodes[left].config.name.clone());
    cluster.nodes[away].crash();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let refused = refusal(cluster.remove(left, &left_name).await);
    let Refusal::Quorum { voters: 2, quorum: 2, reachable } = &refused else { panic!("{refused:?}") };
    assert_eq!(reachable.len(), 1);
    assert!(matches!(refusal(cluster.remove(left, "n9").await), Refusal::NotFound(_)));

    // A learner that isn't there is not promoted; one of a name that is taken isn't added.
    let replica = cluster.nodes[left].replica();
    let add = |name: &str, address: &str| Operation::Add { name: name.into(), address: address.into(), incarnation: 1 };
    replica.manage(add("n4", "127.0.0.1:1"), soon()).await.unwrap();
    let promoted = replica.manage(Operation::Promote { name: "n4".into() }, soon()).await;
    assert_eq!(refusal(promoted), Refusal::Unreachable("n4".into()));
    assert_eq!(refusal(replica.manage(add(&left_name, "x:1"), soon()).await), Refusal::NameTaken(left_name.clone()));
    assert!(matches!(refusal(replica.manage(add("n5", "127.0.0.1:1"), soon()).await), Refusal::AddressTaken { .. }));
    let lead = replica.manage(Operation::Lead { name: Some("n4".into()) }, soon()).await;
    assert_eq!(refusal(lead), Refusal::Learner("n4".into()));
    replica.manage(Operation::Remove { name: "n4".into() }, soon()).await.unwrap();

    // The dead one may go: that makes the quorum smaller.
    cluster.remove(left, &away_name).await.unwrap();
    replica.propose(put("a/1", "x"), soon()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_replica_is_told_and_its_name_may_join_again() {
    let mut cluster = Cluster::start(Limits::default()).await;
    let leader = cluster.leader().await;
    let away = cluster.follower().await;
    let name = cluster.nodes[away].config.name.clone();
    cluster.nodes[away].crash();
    tokio::time::sleep(Duration::from_millis(1600)).await;
    cluster.remove(leader, &name).await.unwrap();
    // It was away; it hears of it when it comes back, and does not forget.
    cluster.nodes[away].start().await;
    let back = cluster.nodes[away].replica();
    let reason = timeout(Duration::from_secs(10), back.failed()).await.unwrap();
    assert!(reason.contains("removed from the cluster"), "{reason}");
    drop(back);
    cluster.nodes[away].crash();
    let end = soon();
    while tokio::time::Instant::now() < end {
        match cluster.nodes[away].try_start().await {
            Err(StartError::Removed(_)) => break,
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            Ok(()) => panic!("it runs"),
        }
    }
    // With an empty directory it is not taken for its former self either.
    let path = cluster.path(away);
    std::fs::remove_dir_all(&path).unwrap();
    match cluster.nodes[away].try_start().await {
        Err(StartError::Removed(_)) => {}
        other => panic!("{other:?}"),
    }
    let again = cluster.grow(&name).await;
    let done = cluster.nodes[again].replica().propose(create("a/1", "x"), soon()).await.unwrap();
    assert!(matches!(done, Outcome::Committed { .. }));
    assert_eq!(cluster.roles(again).await.len(), 3);
    cluster.agree().await;
    // It is a member like the others: the leader may go.
    let leader = cluster.leader().await;
    cluster.nodes[leader].crash();
    let other = cluster.follower().await;
    cluster.nodes[other].replica().propose(put("a/2", "x"), soon()).await.unwrap();
}

/// Emptied, it founds a cluster with the same id, of which the others are no members.
#[tokio::test(flavor = "multi_thread")]
async fn a_founder_that_lost_its_data_sends_nobody_away() {
    let mut cluster = Cluster::found(&["n1"], Limits::default()).await;
    for name in ["n2", "n3"] {
        cluster.grow(name).await;
    }
    cluster.nodes[1].replica().propose(put("a/1", "x"), soon()).await.unwrap();
    cluster.nodes[0].crash();
    // Once its process has let go of it.
    cluster.nodes[0].start().await;
    cluster.nodes[0].stop().await;
    std::fs::remove_dir_all(cluster.path(0)).unwrap();
    cluster.nodes[0].start().await;
    assert_eq!(cluster.nodes[0].replica().read_barrier(soon()).await.unwrap().count("a/"), 0, "it is alone");
    for node in [1, 2] {
        let other = cluster.nodes[node].replica();
        assert!(timeout(Duration::from_secs(3), other.failed()).await.is_err(), "it was sent away");
        other.propose(put("a/2", "x"), soon()).await.unwrap();
        assert_eq!(other.read_barrier(soon()).await.unwrap().count("a/"), 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_learner_reads_and_watches_without_a_vote() {
    let mut cluster = Cluster::found(&["n1"], Limits::default()).await;
    cluster.nodes[0].replica().propose(put("a/1", "x"), soon()).await.unwrap();
    let learner = cluster.join("n2").await.unwrap();
    let view = cluster.nodes[learner].replica().read_barrier(soon()).await.unwrap();
    assert_eq!(view.count("a/"), 1);
    assert_eq!(cluster.roles(learner).await, [("n1".to_owned(), true), ("n2".to_owned(), false)]);
    // It comes back as what it was, and the voter needs nobody meanwhile.
    cluster.nodes[learner].crash();
    cluster.nodes[0].replica().propose(put("a/2", "x"), soon()).await.unwrap();
    cluster.nodes[learner].config.invitation = None;
    cluster.nodes[learner].start().await;
    cluster.agree().await;
    // At another address.
    cluster.nodes[learner].crash();
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    cluster.nodes[learner].config.peer_listen = Some(address);
    cluster.nodes[learner].config.peer_address = address.to_string();
    cluster.nodes[learner].start().await;
    cluster.nodes[0].replica().propose(put("a/3", "x"), soon()).await.unwrap();
    cluster.agree().await;
}

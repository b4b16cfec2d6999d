//! Three replicas: whatever one of them acknowledged, all of them have, once, whoever comes and goes.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::{Ca, Cluster, create, metric, put, soon, until, write_until};
use futures_util::FutureExt;
use kontiki_raft::{BarrierError, Config, Limits, ProposeError, Reads, Replica, Role, StartError};
use kontiki_storage::Outcome;
use tokio::runtime::Runtime;
use tokio::time::Instant;

#[tokio::test(flavor = "multi_thread")]
async fn any_replica_takes_writes_and_shows_all_of_them() {
    let cluster = Cluster::start(Limits::default()).await;
    for round in 0..10 {
        for (n, node) in cluster.nodes.iter().enumerate() {
            let done = node.replica().propose(create(&format!("a/{round}-{n}"), "x"), soon()).await.unwrap();
            let Outcome::Committed { revision } = done else { panic!("{done:?}") };
            for other in &cluster.nodes {
                assert!(other.replica().read_barrier(soon()).await.unwrap().revision() >= revision);
            }
        }
    }
    cluster.agree().await;
    let all = cluster.nodes[0].replica().cluster_status().await;
    let mut roles: Vec<_> = all.iter().map(|status| status.as_ref().unwrap().role).collect();
    roles.sort_by_key(|role| *role != Role::Leader);
    assert_eq!(roles, [Role::Leader, Role::Follower, Role::Follower]);
}

/// Whether it led or not.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_quorum_nobody_is_made_to_wait_for_long() {
    for led in [true, false] {
        let mut cluster = Cluster::start(Limits::default()).await;
        let left = if led { cluster.leader().await } else { cluster.follower().await };
        let replica = cluster.nodes[left].replica();
        replica.propose(put("a/1", "x"), soon()).await.unwrap();
        for (_, node) in cluster.nodes.iter_mut().enumerate().filter(|(node, _)| *node != left) {
            node.crash_whole().await;
        }
        let start = Instant::now();
        // Each reader has a deadline of its own, also behind one that has more patience.
        let patient = || {
            let replica = replica.clone();
            async move { replica.read_barrier(soon()).await }
        };
        let begins = Runtime::new().unwrap();
        let mut first = Box::pin(patient());
        {
            let _entered = begins.enter();
            assert!(first.as_mut().now_or_never().is_none());
        }
        let second = tokio::spawn(patient());
        for _ in 0..3 {
            let asked = Instant::now();
            let read = replica.read_barrier(asked + Duration::from_millis(50)).await;
            assert!(matches!(read, Err(BarrierError::Timeout)), "{read:?}");
            assert!((50..300).contains(&asked.elapsed().as_millis()), "{:?}", asked.elapsed());
        }
        assert!(!second.is_finished());
        // Nor does anyone wait in vain when the task that asks for all is cut off.
        begins.shutdown_background();
        for read in [first.await, second.await.unwrap()] {
            assert!(matches!(read, Err(BarrierError::Stopped)), "{read:?}");
        }
        let read = replica.read_barrier(Instant::now() + Duration::from_millis(50)).await;
        assert!(matches!(read, Err(BarrierError::Timeout)), "{read:?}");
        until("it knows of no quorum", || replica.status().role == Role::NoQuorum).await;
        assert!(start.elapsed() < Duration::from_secs(6), "{led}");
        assert_eq!(replica.status().leader, None);
        let shortly = || Instant::now() + Duration::from_millis(500);
        while !matches!(replica.propose(put("a/1", "x"), shortly()).await, Err(ProposeError::NoQuorum)) {}
        assert!(start.elapsed() < Duration::from_secs(15), "{led}");
        let asked = Instant::now();
        assert!(matches!(replica.read_barrier(soon()).await, Err(BarrierError::NoQuorum)));
        assert!(asked.elapsed() < Duration::from_millis(100));

        let back = (0..3).find(|node| *node != left).unwrap();
        cluster.nodes[back].start().await;
        cluster.nodes[back].replica().read_barrier(soon()).await.unwrap();
        let there = Instant::now();
        while replica.read_barrier(soon()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(there.elapsed() < Duration::from_secs(1), "{led}");
        replica.propose(put("a/2", "x"), soon()).await.unwrap();

        // What still answers may be handed the leadership.
        cluster.nodes[back].crash_whole().await;
        drop(replica);
        let stopping = Instant::now();
        cluster.nodes[left].stop().await;
        assert!(stopping.elapsed() < Duration::from_secs(1), "{led}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_was_away_catches_up_by_the_log() {
    let mut cluster = Cluster::start(Limits::default()).await;
    let away = cluster.follower().await;
    cluster.nodes[away].crash();
    let leader = cluster.nodes[cluster.leader().await].replica();
    for n in 0..200 {
        leader.propose(put(&format!("a/{n}"), "x"), soon()).await.unwrap();
    }
    let statuses = leader.cluster_status().await;
    assert_eq!(statuses.iter().filter(|status| status.is_err()).count(), 1);
    cluster.nodes[away].start().await;
    cluster.agree().await;
    assert_eq!(metric(&cluster.nodes[away].replica(), "kontiki_raft_snapshots_installed_total"), 0.0);
}

/// However seldom the leader tried to reach it meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_is_back_catches_up_at_once() {
    let mut cluster = Cluster::start(Limits::default()).await;
    let leader = cluster.nodes[cluster.leader().await].replica();
    let writing = tokio::spawn(async move {
        loop {
            leader.propose(put("a", "x"), soon()).await.unwrap();
        }
    });
    let away = cluster.follower().await;
    let mut times = Vec::new();
    for _ in 0..4 {
        cluster.nodes[away].crash();
        tokio::time::sleep(Duration::from_millis(1200)).await;
        cluster.nodes[away].start().await;
        let start = Instant::now();
        cluster.nodes[away].replica().read_barrier(soon()).await.unwrap();
        times.push(start.elapsed());
    }
    writing.abort();
    // A slow machine may take its time, but not each time.
    times.sort_unstable();
    assert!(times[1] < Duration::from_millis(150), "{times:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_was_away_too_long_gets_a_snapshot() {
    let limits = Limits { checkpoint_entries: 50, trailing_entries: 20, ..Limits::default() };
    let mut cluster = Cluster::start(limits).await;
    let away = cluster.follower().await;
    cluster.nodes[cluster.leader().await].replica().propose(put("a/0", "x"), soon()).await.unwrap();
    let leader = cluster.nodes[cluster.leader().await].replica();
    let mut rounds = 0;
    // A leader may still hold what it read before it cut its log, and it may be all that is missing: then nothing is installed.
    let back = loop {
        cluster.nodes[away].crash();
        for n in 0..300 {
            leader.propose(put(&format!("a/{n}"), &"x".repeat(5000)), soon()).await.unwrap();
        }
        let written = leader.status().applied_index as f64;
        // Whichever of them leads when it comes back.
        for node in (0..3).filter(|node| *node != away) {
            let replica = cluster.nodes[node].replica();
            until("the log is cut", || metric(&replica, "kontiki_raft_purged_index") >= written - 100.0).await;
        }
        cluster.nodes[away].start().await;
        cluster.agree().await;
        let back = cluster.nodes[away].replica();
        if metric(&back, "kontiki_raft_snapshots_installed_total") >= 1.0 {
            break back;
        }
        rounds += 1;
        assert!(rounds < 10, "nothing is ever installed");
    };
    // What came by the snapshot is there after a crash, and the log goes on from it.
    leader.propose(put("a/1", "y"), soon()).await.unwrap();
    drop(back);
    cluster.nodes[away].crash();
    cluster.nodes[away].start().await;
    cluster.agree().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_survive_the_crash_of_the_leader_once_each() {
    let mut cluster = Cluster::start(Limits::default()).await;
    for _ in 0..3 {
        let leader = cluster.leader().await;
        let others: Vec<_> = (0..3).filter(|node| *node != leader).map(|node| cluster.nodes[node].replica()).collect();
        let stop = Arc::new(AtomicBool::new(false));
        let before = cluster.nodes[leader].replica().read_barrier(soon()).await.unwrap().count("a/");
        let writing = tokio::spawn(write_until(stop.clone(), others));
        tokio::time::sleep(Duration::from_millis(300)).await;
        cluster.nodes[leader].crash();
        tokio::time::sleep(Duration::from_millis(2500)).await;
        stop.store(true, Ordering::Relaxed);
        let (keys, gap) = writing.await.unwrap();
        eprintln!("{} writes, the longest gap {gap:?}", keys.len());
        cluster.nodes[leader].start().await;
        cluster.agree().await;
        let survivor = cluster.nodes[cluster.leader().await].replica();
        let view = survivor.read_barrier(soon()).await.unwrap();
        assert!(keys.iter().all(|key| view.get(key).is_some()));
        assert_eq!(view.count("a/"), before + keys.len());
        let clear = kontiki_storage::Transaction {
            conditions: vec![],
            writes: view
                .prefix("a/")
                .map(|record| kontiki_storage::Write::Delete { key: record.key.clone() })
                .collect(),
        };
        survivor.propose(clear, soon()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_stopped_hands_over_without_a_pause() {
    let mut cluster = Cluster::start(Limits::default()).await;
    let mut shortest = Duration::MAX;
    // A busy machine may pause once; an election would be waited for each time.
    for _ in 0..3 {
        let leader = cluster.leader().await;
        let others = (0..3).filter(|node| *node != leader).map(|node| cluster.nodes[node].replica());
        let stop = Arc::new(AtomicBool::new(false));
        let writing = tokio::spawn(write_until(stop.clone(), others.collect()));
        tokio::time::sleep(Duration::from_millis(300)).await;
        cluster.nodes[leader].stop().await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        stop.store(true, Ordering::Relaxed);
        let (keys, gap) = writing.await.unwrap();
        eprintln!("{} writes, the longest gap {gap:?}", keys.len());
        cluster.nodes[leader].start().await;
        cluster.agree().await;
        shortest = shortest.min(gap);
        if shortest < Duration::from_millis(450) {
            return;
        }
    }
    panic!("{shortest:?}: an election was waited for");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_answers_reads_while_it_lasts_and_is_given_up_with_the_leadership() {
    let mut cluster = Cluster::found(&["n1", "n2", "n3"], Limits::default()).await;
    for node in &mut cluster.nodes {
        node.stop().await;
        node.config.reads = Reads::Lease;
        // Long enough for a test on a machine that is busy.
        node.config.timing.election_min = Duration::from_secs(1);
        node.config.timing.election_max = Duration::from_secs(2);
    }
    let starting: Vec<_> = cluster.nodes.iter_mut().map(|node| node.start()).collect();
    futures_util::future::join_all(starting).await;
    let shortly = || Instant::now() + Duration::from_millis(500);
    let leader = cluster.leader().await;
    let alone = cluster.nodes[leader].replica();
    alone.propose(put("a/1", "x"), soon()).await.unwrap();
    for node in &cluster.nodes {
        assert_eq!(node.replica().read_barrier(soon()).await.unwrap().count("a/"), 1);
    }

    for node in (0..3).filter(|node| *node != leader) {
        cluster.nodes[node].crash();
    }
    assert_eq!(alone.read_barrier(shortly()).await.unwrap().count("a/"), 1, "the others promised to wait");
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(alone.read_barrier(shortly()).await.unwrap_err(), BarrierError::Timeout, "another may lead by now");

    for node in (0..3).filter(|node| *node != leader) {
        cluster.nodes[node].start().await;
    }
    let leader = cluster.leader().await;
    let rounds = |replica: &Replica| metric(replica, "kontiki_raft_read_barrier_rounds_total");
    cluster.nodes[leader].replica().transfer_leadership().await.unwrap();
    let before = rounds(&cluster.nodes[leader].replica());
    let next = cluster.leader().await;
    assert_ne!(next, leader);
    cluster.nodes[next].replica().propose(put("a/2", "x"), soon()).await.unwrap();
    assert_eq!(cluster.nodes[leader].replica().read_barrier(soon()).await.unwrap().count("a/"), 2);
    assert_eq!(rounds(&cluster.nodes[leader].replica()), before, "whoever leads now confirms it");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_replicas_may_crash_at_once() {
    let mut cluster = Cluster::start(Limits::default()).await;
    let replicas: Vec<_> = cluster.nodes.iter().map(|node| node.replica()).collect();
    let mut written = 0;
    for n in 0..100 {
        replicas[n % 3].propose(create(&format!("a/{n}"), "x"), soon()).await.unwrap();
        written += 1;
    }
    drop(replicas);
    cluster.nodes.iter_mut().for_each(|node| node.crash());
    let starting: Vec<_> = cluster.nodes.iter_mut().map(|node| node.start()).collect();
    futures_util::future::join_all(starting).await;
    for node in &cluster.nodes {
        assert_eq!(node.replica().read_barrier(soon()).await.unwrap().count("a/"), written);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_lost_its_data_is_refused() {
    let mut cluster = Cluster::start(Limits::default()).await;
    cluster.nodes[0].replica().propose(put("a/1", "x"), soon()).await.unwrap();
    cluster.agree().await;
    let wiped = cluster.follower().await;
    cluster.nodes[wiped].stop().await;
    std::fs::remove_dir_all(cluster.path(wiped)).unwrap();
    for _ in 0..2 {
        match cluster.nodes[wiped].try_start().await {
            Err(StartError::Wiped { .. }) => {}
            Err(StartError::Database { .. }) => tokio::time::sleep(Duration::from_millis(500)).await,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_members_are_spoken_with() {
    let ca = Ca::new();
    let dir = tempfile::tempdir().unwrap();
    let config = |tls| Config {
        peer_listen: Some("127.0.0.1:0".parse().unwrap()),
        peer_address: "127.0.0.1:1".into(),
        tls: Some(tls),
        ..Config::new("n1", dir.path())
    };
    for tls in [ca.member("n2"), ca.sign("system:masters", "kontiki:member:n1"), ca.sign("kontiki:members", "n1")] {
        let started = Replica::start(config(tls)).await;
        assert!(matches!(started, Err(StartError::Tls(_))), "{:?}", started.err());
    }
    Replica::start(config(ca.member("n1"))).await.unwrap().shutdown().await;
}

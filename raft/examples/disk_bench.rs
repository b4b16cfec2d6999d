//! What three replicas write to their disks, and what a snapshot to one of them costs the others:
//! `cargo run --release --example disk_bench`, with TMPDIR on a real disk.

#![allow(clippy::unwrap_used, reason = "a measurement that can't go on ends")]

#[path = "../tests/common/mod.rs"]
mod common;

use std::time::Duration;

use common::{Cluster, metric, put, soon};
use kontiki_raft::{Limits, Replica};
use tokio::time::Instant;

#[tokio::main]
async fn main() {
    for writers in [1, 16, 64] {
        let cluster = Cluster::start(Limits::default()).await;
        let leader = cluster.nodes[cluster.leader().await].replica();
        renew(&leader, writers, 1000).await;
        let before = written();
        let count = 20_000;
        let start = Instant::now();
        renew(&leader, writers, count).await;
        let took = start.elapsed();
        let running = written() - before;
        for node in &cluster.nodes {
            node.replica().store().flush().unwrap();
        }
        println!(
            "{writers} writers: {count} renewals of 500 bytes in {took:?}; {:.0} bytes each on three disks, {:.0} once flushed",
            running as f64 / count as f64,
            (written() - before) as f64 / count as f64,
        );
    }
    snapshot().await;
}

async fn snapshot() {
    let limits =
        Limits { checkpoint_entries: 1000, trailing_entries: 100, trailing_bytes: 1 << 20, ..Limits::default() };
    let mut cluster = Cluster::start(limits).await;
    let away = cluster.follower().await;
    let leader = cluster.nodes[cluster.leader().await].replica();
    cluster.nodes[away].stop().await;
    let filling = (0..64).map(|writer| {
        let leader = leader.clone();
        tokio::spawn(async move {
            for n in 0..1600 {
                leader.propose(put(&format!("objects/{writer}-{n}"), &"x".repeat(2048)), soon()).await.unwrap();
            }
        })
    });
    for writer in filling.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    let alone = latencies(&leader, || true, 5).await;
    cluster.nodes[away].start().await;
    let fresh = cluster.nodes[away].replica();
    let start = Instant::now();
    let beside = latencies(&leader, || metric(&fresh, "kontiki_raft_snapshots_installed_total") < 1.0, 120).await;
    println!(
        "a write, 8 writers: p99 {alone:?}; while a replica of 200 MB is brought up by a snapshot ({:?}): p99 {beside:?}",
        start.elapsed()
    );
}

/// The 99th percentile for as long as it is to go on.
async fn latencies(leader: &Replica, on: impl Fn() -> bool, seconds: u64) -> Duration {
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let writers: Vec<_> = (0..8)
        .map(|writer| {
            let (leader, stopped) = (leader.clone(), stopped.clone());
            tokio::spawn(async move {
                let mut all = Vec::new();
                while !*stopped.borrow() {
                    let start = Instant::now();
                    leader.propose(put(&format!("leases/{writer}"), &"y".repeat(500)), soon()).await.unwrap();
                    all.push(start.elapsed());
                }
                all
            })
        })
        .collect();
    let end = Instant::now() + Duration::from_secs(seconds);
    while on() && Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    stop.send_replace(true);
    let mut all = Vec::new();
    for writer in writers {
        all.extend(writer.await.unwrap());
    }
    all.sort_unstable();
    all[all.len() * 99 / 100]
}

async fn renew(leader: &Replica, writers: usize, count: usize) {
    let writers = (0..writers).map(|writer| {
        let (leader, count) = (leader.clone(), count / writers);
        tokio::spawn(async move {
            for n in 0..count {
                let value = format!("{n:08} {}", "y".repeat(491));
                leader.propose(put(&format!("leases/{}", n % 100 * 100 + writer), &value), soon()).await.unwrap();
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
}

/// What this process has had written to disks.
fn written() -> u64 {
    let io = std::fs::read_to_string("/proc/self/io").unwrap();
    let line = io.lines().find_map(|line| line.strip_prefix("write_bytes: ")).unwrap();
    line.parse().unwrap()
}

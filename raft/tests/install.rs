//! A follower that dies while it takes a snapshot in starts again with the old state or the new one, and catches up.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod common;

use std::path::{Path, PathBuf};
use std::time::Duration;

use common::{Cluster, copy_dir, metric, open_store, put, soon, until};
use kontiki_raft::{Limits, Replica, Survivor, verify};
use tokio::time::Instant;

/// The states in a data directory, the newest last.
fn states(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir.join("state")).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut states: Vec<_> = entries.filter(|path| path.is_dir()).collect();
    states.sort();
    states
}

fn has_rows(state: &Path) -> bool {
    let files = std::fs::read_dir(state).into_iter().flatten().flatten();
    files.into_iter().any(|file| file.path().extension().is_some_and(|extension| extension == "sst"))
}

/// Where the state was before, and the name of the current one then.
struct Before {
    dir: PathBuf,
    state: PathBuf,
    generation: Vec<u8>,
}

impl Before {
    fn read(dir: &Path) -> Before {
        let all = states(dir);
        assert_eq!(all.len(), 1, "{all:?}");
        let generation = std::fs::read(dir.join("state/generation")).unwrap_or_default();
        Before { dir: dir.to_owned(), state: all[0].clone(), generation }
    }

    fn next(&self) -> Option<PathBuf> {
        states(&self.dir).into_iter().find(|state| *state != self.state)
    }

    fn is_named(&self) -> bool {
        std::fs::read(self.dir.join("state/generation")).is_ok_and(|now| now != self.generation)
    }
}

type Step = (&'static str, fn(&Before) -> bool);

/// As they show on the disk.
const STEPS: [Step; 5] = [
    ("at once", |_| true),
    ("a second state is begun", |before| before.next().is_some()),
    ("the second state has rows", |before| before.next().is_some_and(|state| has_rows(&state))),
    ("the second state is named", Before::is_named),
    ("the first state is gone", |before| before.is_named() && !before.state.exists()),
];

/// Until the log of the leader no longer reaches back to what has been before.
async fn write_much(leader: &Replica, round: u32) {
    for n in 0..150 {
        leader.propose(put(&format!("a/{n}"), &format!("{round} {}", "x".repeat(20_000))), soon()).await.unwrap();
    }
    let purged = f64::from(round * 150 + 100);
    until("the log is cut", || metric(leader, "kontiki_raft_purged_index") >= purged).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_dies_at_any_step_of_an_installation_starts_again_clean() {
    let limits = Limits { checkpoint_entries: 50, trailing_entries: 20, ..Limits::default() };
    let mut cluster = Cluster::start(limits).await;
    let node = cluster.follower().await;
    let dir = cluster.path(node);
    let leader = cluster.nodes[cluster.leader().await].replica();
    leader.propose(put("a/0", "x"), soon()).await.unwrap();
    cluster.agree().await;
    stop(&mut cluster, node).await;

    for (round, (step, reached)) in (0..).zip(STEPS) {
        write_much(&leader, round).await;
        let before = Before::read(&dir);
        cluster.nodes[node].start().await;
        let end = Instant::now() + Duration::from_secs(10);
        while !reached(&before) && Instant::now() < end {
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
        cluster.nodes[node].crash();
        cluster.nodes[node].start().await;
        cluster.agree().await;
        stop(&mut cluster, node).await;
        let verified = verify(&dir).unwrap();
        assert!(verified.is_sound() && states(&dir).len() == 1, "{step}: {verified:?}");
    }

    // What a crash after the last step and before the log is cut leaves: the new state beside the old log.
    let log = dir.with_extension("log");
    copy_dir(&dir.join("log"), &log);
    write_much(&leader, STEPS.len() as u32).await;
    cluster.nodes[node].start().await;
    cluster.agree().await;
    stop(&mut cluster, node).await;
    std::fs::remove_dir_all(dir.join("log")).unwrap();
    std::fs::rename(&log, dir.join("log")).unwrap();
    let verified = verify(&dir).unwrap();
    assert!(verified.is_sound() && verified.state_is_ahead, "{verified:?}");
    recover_alone(&dir, &leader).await;
    cluster.nodes[node].start().await;
    leader.propose(put("b/1", "x"), soon()).await.unwrap();
    cluster.agree().await;
    stop(&mut cluster, node).await;
    let verified = verify(&dir).unwrap();
    assert!(verified.is_sound(), "{verified:?}");
}

/// Such a directory can be gone on with when all others are lost: the log begins anew behind the state.
async fn recover_alone(dir: &Path, leader: &Replica) {
    let alone = dir.with_extension("alone");
    copy_dir(dir, &alone);
    let survivor = Survivor::read(&alone).unwrap();
    let name = survivor.name().to_owned();
    survivor.recover(&alone, None, 1000).unwrap();
    let verified = verify(&alone).unwrap();
    assert!(verified.is_sound() && !verified.state_is_ahead && verified.entries == 2, "{verified:?}");
    let mut cluster = Cluster::open(&name, &alone).await;
    let view = cluster.nodes[0].replica().read_barrier(soon()).await.unwrap();
    assert_eq!(view.revision(), leader.store().applied_revision() + 1000);
    drop(view);
    cluster.nodes[0].stop().await;
}

/// Returns when nothing holds the data directory any more.
async fn stop(cluster: &mut Cluster, node: usize) {
    cluster.nodes[node].stop().await;
    drop(open_store(&cluster.path(node).join("state")).await);
}

//! Clusters that run in one thread, on simulated clocks, disks and a simulated network, from a seed: whatever goes wrong
//! goes wrong again in the same way. All that the replicas do is the real code, RocksDB included; `host`, `network` and
//! `disk` stand where a process has threads, sockets and a disk.
//!
//! `cargo test -p kontiki-raft simulation` runs some seeds. With `SEEDS=1000..3000` it runs those, on all cores; `SEED=7`
//! repeats one, and with `RUST_LOG=kontiki_raft=info` and `-- --nocapture` it tells what happens.

mod client;
mod cluster;
mod disk;
pub(crate) mod host;
mod network;
mod witness;

use std::num::NonZero;
use std::ops::Range;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::time::timeout;
use tracing_subscriber::EnvFilter;

use self::cluster::{CALM, Cluster, Report, runtime};
use self::disk::Disk;
pub(crate) use self::host::Host;
use self::network::Network;
use crate::config::Config;
use crate::replica::Replica;

/// The seeds that are run where nothing is said.
const SEEDS: Range<u64> = 0..200;
/// Among how many seeds each mistake must be found.
const PATIENCE: u64 = 400;

/// What the line of a seed's process begins with that says how it went.
const REPORT: &str = "report: ";

/// What replicas or their clients are made to do wrong, to see that it is found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mistake {
    /// Entries and votes are said to be durable when they are only written.
    AnswersBeforeSync,
    /// Only votes are: a replica may vote again after a crash.
    VotesBeforeSync,
    /// Reads show what the replica has, without a barrier.
    ReadsAtOnce,
    /// A leader reads without asking the others whether it still leads.
    LeadsOnTrust,
    /// Leaders count on their leases where clocks don't go alike.
    TrustsClocks,
    /// A proposal that is tried again isn't recognised.
    ForgetsProposals,
}

const MISTAKES: [Mistake; 6] = [
    Mistake::AnswersBeforeSync,
    Mistake::VotesBeforeSync,
    Mistake::ReadsAtOnce,
    Mistake::LeadsOnTrust,
    Mistake::TrustsClocks,
    Mistake::ForgetsProposals,
];

const TEST: &str = "simulation::whatever_happens_nothing_acknowledged_is_lost_or_done_twice";

/// Runs a seed in a process of its own: Tokio numbers the tasks of a process, and ends those of a runtime in the order of
/// these numbers.
fn run(seed: u64, mistake: Option<Mistake>) -> Result<Report, String> {
    let mut command = Command::new(std::env::current_exe().map_err(|error| error.to_string())?);
    command.args([TEST, "--exact", "--nocapture"]).env("SEED", seed.to_string()).env_remove("RUST_LOG");
    if let Some(mistake) = mistake {
        command.env("MISTAKE", format!("{mistake:?}"));
    }
    let output = command.output().map_err(|error| error.to_string())?;
    let report =
        String::from_utf8_lossy(&output.stdout).lines().find_map(|line| line.split_once(REPORT)?.1.parse().ok());
    report.ok_or_else(|| String::from_utf8_lossy(&output.stderr).into_owned())
}

/// What is run in that process.
fn run_here(seed: u64) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("off"));
    tracing_subscriber::fmt().without_time().with_writer(std::io::stderr).with_env_filter(filter).init();
    let mistake = std::env::var("MISTAKE").ok();
    let mistake = mistake.and_then(|name| MISTAKES.into_iter().find(|mistake| format!("{mistake:?}") == name));
    match Cluster::new(seed, mistake).run() {
        Ok(report) => println!("{REPORT}{report}"),
        Err(error) => {
            eprintln!("{error}");
            std::process::exit(1);
        }
    }
}

/// Runs the seeds on all cores, until `each` has had enough.
fn run_all(seeds: Range<u64>, mistake: Option<Mistake>, each: impl Fn(u64, Result<Report, String>) -> bool + Sync) {
    let next = AtomicU64::new(seeds.start);
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return;
            }
            if !each(seed, run(seed, mistake)) {
                next.store(seeds.end, Ordering::Relaxed);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, NonZero::get) {
            scope.spawn(work);
        }
    });
}

fn number(text: &str) -> u64 {
    text.parse().expect("SEED=7 or SEEDS=1000..3000")
}

#[test]
fn whatever_happens_nothing_acknowledged_is_lost_or_done_twice() {
    if let Ok(seed) = std::env::var("SEED") {
        return run_here(number(&seed));
    }
    let seeds = match std::env::var("SEEDS") {
        Ok(seeds) => seeds.split_once("..").map(|(start, end)| number(start)..number(end)).expect("SEEDS=1000..3000"),
        Err(_) => SEEDS,
    };
    let start = Instant::now();
    let (total, failed) = (Mutex::new(Report::default()), Mutex::new(Vec::new()));
    run_all(seeds.clone(), None, |seed, result| {
        match result {
            Ok(report) => total.lock().add(&report),
            Err(error) => {
                eprintln!("seed {seed} (SEED={seed} cargo test -p kontiki-raft {TEST} repeats it): {error}");
                failed.lock().push(seed);
            }
        }
        true
    });
    println!("seeds {seeds:?} in {:.1} s: {}", start.elapsed().as_secs_f64(), total.into_inner());
    let failed = failed.into_inner();
    assert!(failed.is_empty(), "seeds that failed: {failed:?}");
}

#[test]
fn a_seed_repeats_itself() {
    for seed in 1..=5 {
        assert_eq!(run(seed, None), run(seed, None), "seed {seed}");
    }
}

/// A simulator that finds nothing must be one that would find something.
#[test]
fn mistakes_are_found_out() {
    for mistake in MISTAKES {
        let found = Mutex::new(None);
        run_all(0..PATIENCE, Some(mistake), |seed, result| match result {
            Ok(_) => true,
            Err(error) => {
                found.lock().get_or_insert((seed, error));
                false
            }
        });
        let found = found.into_inner();
        let (seed, error) = found.unwrap_or_else(|| panic!("{mistake:?} is not found out by {PATIENCE} seeds"));
        println!("{mistake:?} is found out by seed {seed}: {}", error.lines().next().unwrap_or_default());
    }
}

/// Raft need not have anything to write for its replica to be of no use.
#[test]
fn a_replica_whose_log_fails_stops() {
    let dir = tempfile::tempdir().expect("a directory");
    let host = Host::new(0, Arc::new(Disk::new(dir.path())), None);
    let network = Network::new(0, vec!["n1".into()], CALM, None);
    let run = async {
        let replica = Replica::start_on(Config::new("n1", dir.path()), network.of(0)).await.expect("a replica");
        host.disk.fails.store(true, Ordering::Relaxed);
        assert!(replica.log().put(b"m/row", Vec::new()).await.is_err());
        let reason = timeout(Duration::from_secs(10), replica.failed()).await;
        assert!(reason.is_ok_and(|reason| reason.contains("the disk fails")));
    };
    let runtime = runtime();
    host.run(|| {
        runtime.block_on(run);
        drop(runtime);
    });
}

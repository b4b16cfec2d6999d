//! What the store takes for restarts, memory, compaction and snapshots: `cargo run --release --example store_bench`.

#![allow(clippy::unwrap_used, reason = "a measurement that can't go on ends")]

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kontiki_storage::{Command as Ask, LogPosition, Options, Proposal, Store, Transaction, Write};

const OBJECTS: u64 = 100_000;
const SIZE: usize = 2048;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    match args.get(1).map(String::as_str) {
        Some("open") => open(Path::new(&args[2])),
        _ => all(),
    }
}

fn all() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Options::default()).unwrap();
    let mut index = 0;
    let start = Instant::now();
    let per_apply = 100;
    for first in (0..OBJECTS).step_by(per_apply) {
        apply(&store, &mut index, first..first + per_apply as u64);
    }
    println!("{OBJECTS} objects of {SIZE} bytes applied in {:?}", start.elapsed());
    store.flush().unwrap();

    let alone = applies(&store, &mut index, 5000);
    println!("apply of one renewal: {}", shown(&alone));
    let (stop, chunks) = (AtomicBool::new(false), std::sync::atomic::AtomicUsize::new(0));
    let beside = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let mut export = store.export();
                while export.next_chunk().unwrap().is_some() && !stop.load(Ordering::Relaxed) {
                    chunks.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        let beside = applies(&store, &mut index, 5000);
        stop.store(true, Ordering::Relaxed);
        beside
    });
    println!("  beside a snapshot being written: {} ({} chunks)", shown(&beside), chunks.into_inner());

    while store.stats().history_events < 400_000 {
        apply(&store, &mut index, 0..1000);
    }
    let events = store.stats().history_events;
    let before = store.applied_revision() - 1000;
    let stop = AtomicBool::new(false);
    let (compaction, reads) = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut longest = Duration::ZERO;
            while !stop.load(Ordering::Relaxed) {
                let start = Instant::now();
                assert!(store.view().get("leases/7").is_some());
                longest = longest.max(start.elapsed());
            }
            longest
        });
        index += 1;
        let start = Instant::now();
        store.apply(at(index), &[proposal(Ask::Compact { before })]).unwrap();
        let took = start.elapsed();
        std::thread::sleep(Duration::from_millis(200));
        stop.store(true, Ordering::Relaxed);
        (took, reader.join().unwrap())
    });
    println!("compaction of {events} events: writes waited {compaction:?}, the longest read beside it {reads:?}");
    store.flush().unwrap();
    drop(store);
    let ran = Command::new(std::env::current_exe().unwrap()).arg("open").arg(dir.path()).status().unwrap();
    assert!(ran.success());
}

/// In a process of its own, so that the memory is that of what it opened.
fn open(dir: &Path) {
    let empty = resident();
    let start = Instant::now();
    let store = Store::open(dir, Options::default()).unwrap();
    let took = start.elapsed();
    let bytes: u64 = store.stats().tables.iter().map(|table| table.bytes).sum();
    let more = resident() - empty;
    println!(
        "opened in {took:?}: {:.1} MB of objects, {:.1} MB resident ({:.2} times), {} events, {:.1} MB on disk",
        bytes as f64 / 1e6,
        more as f64 / 1e6,
        more as f64 / bytes as f64,
        store.stats().history_events,
        store.disk_size() as f64 / 1e6,
    );
}

fn at(index: u64) -> LogPosition {
    LogPosition { index, term: 1, node: 1 }
}

fn proposal(command: Ask) -> Proposal {
    Proposal { client: 0, sequence: 0, acknowledged: 0, command }
}

/// Objects that don't compress to nothing, each by a transaction of its own.
fn apply(store: &Store, index: &mut u64, objects: std::ops::Range<u64>) {
    let write = |n: u64| {
        let mut value =
            format!("{{\"metadata\":{{\"name\":\"{n}\",\"resourceVersion\":\"\"}},\"data\":\"").into_bytes();
        let at = value.len() as u32 - 11;
        let mut x = n + *index;
        while value.len() < SIZE {
            x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            value.extend_from_slice(format!("{:08x} some text ", x >> 32).as_bytes());
        }
        Write::Put { key: format!("objects/{n}").into(), value: value.into(), revision_at: Some(at), expires_at: None }
    };
    let proposals: Vec<_> =
        objects.map(|n| proposal(Ask::Transact(Transaction { conditions: vec![], writes: vec![write(n)] }))).collect();
    *index += 1;
    store.apply(at(*index), &proposals).unwrap();
}

/// How long each of so many renewals takes.
fn applies(store: &Store, index: &mut u64, count: u64) -> Vec<Duration> {
    let mut all: Vec<_> = (0..count)
        .map(|n| {
            let value = format!("{{\"metadata\":{{\"resourceVersion\":\"\"}},\"spec\":\"{n}{}\"}}", "y".repeat(400));
            let write = Write::Put {
                key: format!("leases/{}", n % 100).into(),
                value: value.into(),
                revision_at: Some(32),
                expires_at: None,
            };
            let renewal = proposal(Ask::Transact(Transaction { conditions: vec![], writes: vec![write] }));
            *index += 1;
            let start = Instant::now();
            store.apply(at(*index), &[renewal]).unwrap();
            start.elapsed()
        })
        .collect();
    all.sort_unstable();
    all
}

fn shown(sorted: &[Duration]) -> String {
    let at = |part: f64| sorted[((sorted.len() - 1) as f64 * part) as usize];
    format!("p50 {:?}, p99 {:?}, longest {:?}", at(0.5), at(0.99), at(1.0))
}

fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

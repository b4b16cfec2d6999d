//! What a proposal and a linearizable read cost: operations a second, latencies, and CPU time of this process for each; and
//! beside them what it takes to write and sync as much to a file in the same place.
//! `cargo run --release -p kontiki-raft --example propose_bench [DIRECTORY [ONLY]]`, where ONLY is part of a line's title.

use std::fs::File;
use std::io::Write as _;
use std::net::TcpListener;
use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

use bytes::Bytes;
use kontiki_raft::{Config, MEMBER_DNS_NAME, MEMBER_ORGANIZATION, PeerTls, Replica, member_common_name};
use kontiki_storage::{Transaction, Write};
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair};
use tokio::time::Instant;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const LENGTH: Duration = Duration::from_secs(3);
const TURNS: usize = 40;
const TURN: Duration = Duration::from_millis(100);
/// Of a proposal.
const SIZE: usize = 1024;
/// LZ4 finds nothing in it.
static NOISE: LazyLock<Bytes> = LazyLock::new(|| {
    let mut noise = vec![0; 4096 * SIZE];
    StdRng::seed_from_u64(0).fill_bytes(&mut noise);
    noise.into()
});

#[tokio::main]
async fn main() {
    let dir = tempfile::tempdir_in(std::env::args().nth(1).unwrap_or_else(|| ".".into())).expect("a directory");
    let alone = Replica::start(Config::new("n1", dir.path().join("alone"))).await.expect("the replica starts");
    lone(&alone, dir.path()).await;
    report("1 replica", std::slice::from_ref(&alone)).await;
    alone.shutdown().await;
    report("3 replicas", &cluster(dir.path()).await).await;
}

/// One proposer, and what a write and its sync cost with a pause before each, as a proposer makes one; by turns, since disks
/// have moods.
async fn lone(replica: &Replica, dir: &Path) {
    if !wanted("1 replica, 1 proposer") {
        return;
    }
    let mut file = File::create(dir.join("file")).expect("a file");
    let (mut synced, mut proposed) = (Vec::new(), Vec::new());
    let mut cpu = 0.0;
    for _ in 0..TURNS {
        let start = Instant::now();
        while start.elapsed() < TURN {
            std::thread::sleep(Duration::from_micros(50));
            let bytes = noise(synced.len());
            let before = Instant::now();
            file.write_all(&bytes).and_then(|()| file.sync_data()).expect("a disk");
            synced.push(before.elapsed());
        }
        let before = cpu_seconds();
        let (replica, first) = (replica.clone(), proposed.len());
        let turn = tokio::spawn(async move {
            let (mut took, start) = (Vec::new(), Instant::now());
            while start.elapsed() < TURN {
                let before = Instant::now();
                propose(&replica, 0, first + took.len()).await;
                took.push(before.elapsed());
            }
            took
        });
        proposed.extend(turn.await.expect("a proposer ends"));
        cpu += cpu_seconds() - before;
    }
    synced.sort_unstable();
    proposed.sort_unstable();
    let micros = |took: &[Duration], share| quantile(took, share).as_micros();
    println!("a file, 1 KB written and synced: p50 {} us, p99 {} us", micros(&synced, 50), micros(&synced, 99));
    println!(
        "1 replica, 1 proposer, 1 KB, by turns with it: p50 {} us, p99 {} us, {:.1} us CPU each; {:.2} times the p50",
        micros(&proposed, 50),
        micros(&proposed, 99),
        cpu * 1e6 / proposed.len() as f64,
        quantile(&proposed, 50).as_secs_f64() / quantile(&synced, 50).as_secs_f64(),
    );
}

fn quantile(sorted: &[Duration], percent: usize) -> Duration {
    sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)]
}

async fn propose(replica: &Replica, caller: usize, n: usize) {
    let key = format!("bench/{caller}-{}", n % 1000).as_str().into();
    let write = Write::Put { key, value: noise(64 * n + caller), revision_at: None, expires_at: None };
    let transaction = Transaction { conditions: vec![], writes: vec![write] };
    replica.propose(transaction, Instant::now() + Duration::from_secs(10)).await.expect("an outcome");
}

fn noise(n: usize) -> Bytes {
    let start = n % (NOISE.len() / SIZE) * SIZE;
    NOISE.slice(start..start + SIZE)
}

/// Three replicas in this process, the leader first.
async fn cluster(dir: &Path) -> Vec<Replica> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a CA");
    let sockets: Vec<_> = (0..3).map(|_| TcpListener::bind("127.0.0.1:0").expect("a port")).collect();
    let address = |socket: &TcpListener| socket.local_addr().expect("an address");
    let founders = sockets.iter().enumerate().map(|(n, socket)| (format!("n{n}"), address(socket).to_string()));
    let founders: Vec<_> = founders.collect();
    let addresses: Vec<_> = sockets.iter().map(address).collect();
    drop(sockets);
    let starting = founders.iter().zip(addresses).map(|((name, address), listen)| {
        let mut params = CertificateParams::new(vec![MEMBER_DNS_NAME.to_owned()]).expect("a name");
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, MEMBER_ORGANIZATION);
        params.distinguished_name.push(DnType::CommonName, member_common_name(name));
        let key = KeyPair::generate().expect("a key");
        let chain = params.signed_by(&key, &ca).expect("a certificate").der().to_vec();
        Replica::start(Config {
            peer_listen: Some(listen),
            peer_address: address.clone(),
            initial_cluster: founders.clone(),
            tls: Some(PeerTls { chain, key: key.serialize_der(), ca: ca.der().to_vec() }),
            ..Config::new(name, dir.join(name))
        })
    });
    let mut replicas = Vec::new();
    for started in futures_util::future::join_all(starting).await {
        replicas.push(started.expect("the replica starts"));
    }
    replicas[0].read_barrier(Instant::now() + Duration::from_secs(10)).await.expect("a leader");
    replicas.sort_by_key(|replica| !replica.is_leader());
    replicas
}

/// Whether a line is to be measured.
fn wanted(title: &str) -> bool {
    std::env::args().nth(2).is_none_or(|only| title.contains(&only))
}

async fn report(title: &str, replicas: &[Replica]) {
    for callers in [1, 64] {
        measure(&format!("{title}, {callers} proposers, 1 KB"), replicas, callers, |replica, caller, n| async move {
            propose(&replica, caller, n).await;
        })
        .await;
        // The leader is the first and answers for itself; the others ask it.
        for (place, readers) in
            [("the leader", &replicas[..1]), ("one follower", replicas.get(1..2).unwrap_or_default())]
        {
            if readers.is_empty() {
                continue;
            }
            measure(&format!("{title}, {callers} readers at {place}"), readers, callers, |replica, _, _| async move {
                replica.read_barrier(Instant::now() + Duration::from_secs(10)).await.expect("a view");
            })
            .await;
        }
    }
}

async fn measure<F: Future<Output = ()> + Send>(
    title: &str,
    replicas: &[Replica],
    callers: usize,
    call: impl Fn(Replica, usize, usize) -> F + Copy + Send + 'static,
) {
    if !wanted(title) {
        return;
    }
    for replica in replicas {
        replica.read_barrier(Instant::now() + Duration::from_secs(10)).await.expect("a view");
    }
    let (start, cpu) = (Instant::now(), cpu_seconds());
    let tasks: Vec<_> = (0..callers)
        .map(|caller| {
            let replica = replicas[caller % replicas.len()].clone();
            tokio::spawn(async move {
                let mut took = Vec::new();
                while start.elapsed() < LENGTH {
                    let before = Instant::now();
                    call(replica.clone(), caller, took.len()).await;
                    took.push(before.elapsed());
                }
                took
            })
        })
        .collect();
    let mut took = Vec::new();
    for task in tasks {
        took.extend(task.await.expect("a caller ends"));
    }
    let (seconds, cpu) = (start.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    took.sort_unstable();
    let micros = |percent| quantile(&took, percent).as_micros();
    println!(
        "{title}: {:.0} a second, p50 {} us, p99 {} us, {:.1} us CPU each",
        took.len() as f64 / seconds,
        micros(50),
        micros(99),
        cpu * 1e6 / took.len() as f64,
    );
}

/// User and system time of this process, to the tick of 10 ms.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<_> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}

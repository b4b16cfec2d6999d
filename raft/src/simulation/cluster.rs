//! A simulated cluster and what befalls it. Replicas are the real ones, each on a runtime with a clock of its own; one
//! thread lets each of them run for a millisecond in turn, delivers what the network has, and looks at what came of it.

use std::fmt;
use std::num::ParseIntError;
use std::ops::Range;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

use kontiki_chaos::linearizability::check_all;

use super::Mistake;
use super::client::{Book, Client, Doors};
use super::disk::Disk;
use super::host::Host;
use super::network::{Network, Weather};
use super::witness::Witness;
use crate::config::{Config, Limits, Reads, StartError};
use crate::peer::PeerTls;
use crate::replica::{Replica, Role};

pub(super) const CALM: Weather = Weather { delay: (1, 2), long_delay: (1, 2), delayed: 0.0, lost: 0.0, repeated: 0.0 };
/// How long a cluster without faults may take until all replicas agree, in milliseconds.
const RECOVERY: u64 = 30_000;
/// One seed in so many is of a replica that is alone.
const ALONE: u64 = 10;
/// How often each replica is then asked until it must have answered.
const READS: usize = 2;

/// What a seed decides before anything happens; times are milliseconds.
#[derive(Debug)]
struct Plan {
    replicas: usize,
    clients: usize,
    keys: usize,
    /// Between two operations of a client, at most.
    pause: u64,
    length: u64,
    weather: Weather,
    /// Between two faults, at most, and how often one comes while the last is still there.
    quiet: u64,
    piled: f64,
    limits: Limits,
    /// Microseconds that a replica's clock goes forward in a millisecond.
    clocks: Range<u64>,
    reads: Reads,
}

impl Plan {
    fn draw(rng: &mut StdRng) -> Plan {
        let slow = rng.random_bool(0.2);
        let delay = if slow { (5, 30) } else { (1, rng.random_range(1..6)) };
        let entries = rng.random_range(10..100);
        let clocks = if rng.random_bool(0.3) { 900..1100 } else { 1000..1001 };
        // A lease is longer than clocks like these differ.
        let reads = if rng.random_bool(0.4) { Reads::Lease } else { Reads::Quorum };
        Plan {
            replicas: if rng.random_bool(0.35) { 5 } else { 3 },
            clients: rng.random_range(2..8),
            keys: rng.random_range(1..5),
            pause: [5, 20, 100][rng.random_range(0..3)],
            length: rng.random_range(4_000..12_000),
            weather: Weather {
                delay,
                long_delay: (20, rng.random_range(30..400)),
                delayed: [0.0, 0.01, 0.1][rng.random_range(0..3)],
                lost: [0.0, 0.005, 0.05][rng.random_range(0..3)],
                repeated: [0.0, 0.01, 0.1][rng.random_range(0..3)],
            },
            quiet: [200, 500, 1500][rng.random_range(0..3)],
            piled: [0.0, 0.3, 0.6][rng.random_range(0..3)],
            limits: Limits {
                batch: rng.random_range(1..64),
                checkpoint_entries: entries,
                trailing_entries: rng.random_range(1..entries),
                reserve_bytes: 0,
                ..Limits::default()
            },
            clocks,
            reads,
        }
    }
}

/// What a run that found nothing wrong was like.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Report {
    /// A hash of everything that happened; of several runs, those of all.
    trace: u64,
    counts: [u64; COUNTED.len()],
}

const COUNTED: [&str; 9] =
    ["ms", "messages", "crashes", "snapshots", "revisions", "acknowledged", "unknown", "reads", "leaders"];

impl Report {
    pub(super) fn add(&mut self, other: &Report) {
        self.trace ^= other.trace;
        self.counts.iter_mut().zip(other.counts).for_each(|(mine, other)| *mine += other);
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "trace {:016x}", self.trace)?;
        COUNTED.iter().zip(self.counts).try_for_each(|(what, count)| write!(f, ", {count} {what}"))
    }
}

impl FromStr for Report {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Report, ParseIntError> {
        let mut report = Report::default();
        let mut parts = text.split(", ").map(|part| part.split(' ').collect::<Vec<_>>());
        let trace = parts.next().unwrap_or_default();
        report.trace = u64::from_str_radix(trace.last().unwrap_or(&""), 16)?;
        for (count, part) in report.counts.iter_mut().zip(parts) {
            *count = part.first().unwrap_or(&"").parse()?;
        }
        Ok(report)
    }
}

pub(super) struct Cluster {
    rng: StdRng,
    plan: Plan,
    network: Network,
    nodes: Vec<Node>,
    doors: Doors,
    clients: Runtime,
    book: Arc<Mutex<Book>>,
    witness: Witness,
    healing: Vec<(u64, Fault)>,
    crashes: u64,
    /// The next replica that leads crashes at once.
    ambush: bool,
    mistake: Option<Mistake>,
    _dir: TempDir,
}

struct Node {
    config: Config,
    host: Arc<Host>,
    life: Option<Life>,
    /// When it does something again, where it is down or paused.
    wakes: u64,
    /// Microseconds that its clock goes forward in a millisecond, and what is left of them.
    rate: u64,
    credit: u64,
}

struct Life {
    replica: Option<Replica>,
    starting: Option<JoinHandle<Result<Replica, StartError>>>,
    stopping: Option<JoinHandle<()>>,
    paused: Option<u64>,
    runtime: Runtime,
}

/// What ends again by itself.
#[derive(Debug, Clone, Copy)]
enum Fault {
    Cut(usize, usize),
    SlowDisk(usize),
    Storm,
}

impl Cluster {
    pub(super) fn new(seed: u64, mistake: Option<Mistake>) -> Cluster {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut plan = Plan::draw(&mut rng);
        if mistake.is_none() && seed.is_multiple_of(ALONE) {
            plan.replicas = 1;
        }
        if mistake == Some(Mistake::TrustsClocks) {
            plan = Plan { reads: Reads::Lease, clocks: 200..1800, ..plan };
        }
        let memory = std::path::Path::new("/dev/shm");
        let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let dir = dir.expect("a directory");
        let names: Vec<_> = (1..=plan.replicas).map(|n| format!("n{n}")).collect();
        let founders: Vec<_> = names.iter().map(|name| (name.clone(), name.clone())).collect();
        let network = Network::new(rng.random(), names.clone(), plan.weather, mistake);
        let node = |name: &String| {
            let config = Config {
                // Neither is used on this network.
                peer_listen: Some(([0, 0, 0, 0], 0).into()),
                tls: Some(PeerTls { chain: Vec::new(), key: Vec::new(), ca: Vec::new() }),
                peer_address: name.clone(),
                initial_cluster: founders.clone(),
                limits: plan.limits,
                reads: plan.reads,
                ..Config::new(name, dir.path().join(name))
            };
            let disk = Arc::new(Disk::new(&config.data_dir));
            let rate =
                if plan.clocks.end - plan.clocks.start == 1 { 1000 } else { rng.random_range(plan.clocks.clone()) };
            Node { host: Host::new(rng.random(), disk, mistake), config, life: None, wakes: 0, rate, credit: 0 }
        };
        let nodes: Vec<_> = names.iter().map(node).collect();
        Cluster {
            doors: Arc::new(Mutex::new(nodes.iter().map(|_| None).collect())),
            nodes,
            clients: runtime(),
            book: Arc::default(),
            witness: Witness::default(),
            healing: Vec::new(),
            crashes: 0,
            ambush: false,
            mistake,
            network,
            plan,
            rng,
            _dir: dir,
        }
    }

    pub(super) fn run(mut self) -> Result<Report, String> {
        tracing::info!(plan = ?self.plan, "starting");
        let result = self.play();
        self.nodes.iter_mut().for_each(|node| node.end());
        result.map_err(|error| format!("{error} (after {} ms; {:?})", self.network.now(), self.plan))
    }

    fn play(&mut self) -> Result<Report, String> {
        let working: Vec<_> = (0..self.plan.clients as u64).map(|id| self.client(id)).collect();
        let mut next_fault = self.rng.random_range(200..self.plan.quiet + 200);
        while self.network.now() < self.plan.length {
            if self.network.now() >= next_fault {
                let until = self.fault();
                let from = if self.rng.random_bool(self.plan.piled) { self.network.now() } else { until };
                next_fault = from + self.rng.random_range(10..self.plan.quiet);
            }
            self.step()?;
        }
        self.heal();
        let end = self.network.now() + RECOVERY;
        while !(working.iter().all(JoinHandle::is_finished) && self.agrees()) {
            if self.network.now() >= end {
                return Err(format!("the replicas don't come to agree:\n{}", self.describe()));
            }
            self.step()?;
        }
        self.read_all()?;
        let book = self.book.lock();
        if let Some(wrong) = &book.wrong {
            return Err(wrong.clone());
        }
        self.witness.compare(&book)?;
        check_all(book.history.iter().copied())
            .map_err(|(key, violation)| format!("key {key} is not linearizable: {violation}"))?;
        let counts = [
            self.network.now(),
            self.network.delivered(),
            self.crashes,
            self.network.snapshots(),
            self.witness.revision(),
            book.acknowledged.len() as u64,
            book.unknown,
            book.reads,
            self.witness.leaders(),
        ];
        Ok(Report { trace: self.network.trace(), counts })
    }

    fn client(&mut self, id: u64) -> JoinHandle<()> {
        let client = self.new_client(id);
        let rng = StdRng::seed_from_u64(self.rng.random());
        self.clients.spawn(client.run(rng, self.plan.length, self.plan.pause))
    }

    fn new_client(&self, id: u64) -> Client {
        Client {
            id,
            network: self.network.clone(),
            doors: self.doors.clone(),
            book: self.book.clone(),
            keys: self.plan.keys,
            mistake: self.mistake,
        }
    }

    /// Every replica shows everything.
    fn read_all(&mut self) -> Result<(), String> {
        for replica in 0..self.nodes.len() {
            let client = self.new_client(u64::MAX);
            let mut rng = StdRng::seed_from_u64(0);
            // An answer that was lost earlier is waited for by all who read at that replica, for a second.
            let reading = self.clients.spawn(async move {
                for _ in 0..READS {
                    if client.read(&mut rng, replica, &mut Vec::new()).await {
                        return true;
                    }
                }
                false
            });
            while !reading.is_finished() {
                self.step()?;
            }
            if !matches!(self.clients.block_on(reading), Ok(true)) {
                return Err(format!("replica {replica} gives no answer at the end:\n{}", self.describe()));
            }
        }
        Ok(())
    }

    /// Lets a millisecond pass.
    fn step(&mut self) -> Result<(), String> {
        self.network.step();
        let now = self.network.now();
        for at in 0..self.nodes.len() {
            let node = &mut self.nodes[at];
            if node.wakes > now {
                continue;
            }
            match &node.life {
                None => node.start(&self.network, at),
                Some(_) => match node.step(now) {
                    Ok(true) => {
                        self.end(at, false);
                        continue;
                    }
                    Ok(false) => {}
                    Err(_) if node.host.disk.fails.load(Ordering::Relaxed) => {
                        self.crash(at, now);
                        continue;
                    }
                    Err(error) => return Err(error),
                },
            }
            self.look(at)?;
        }
        self.clients.block_on(async { tokio::time::sleep(Duration::from_millis(1)).await });
        let over: Vec<_> = self.healing.extract_if(.., |(until, _)| *until <= now).collect();
        over.into_iter().for_each(|(_, fault)| self.set(fault, false));
        Ok(())
    }

    fn look(&mut self, at: usize) -> Result<(), String> {
        let node = &self.nodes[at];
        let Some(life) = &node.life else { return Ok(()) };
        let Some(replica) = &life.replica else { return Ok(()) };
        if life.stopping.is_none() {
            let door = || (replica.clone(), life.runtime.handle().clone());
            self.doors.lock()[at].get_or_insert_with(door);
        }
        self.witness.look(at, replica)?;
        let failure = node.host.run(|| futures_util::FutureExt::now_or_never(replica.failed()));
        if let Some(reason) = failure {
            if !node.host.disk.fails.load(Ordering::Relaxed) {
                return Err(format!("replica {at} has stopped: {reason}"));
            }
            self.crash(at, self.network.now());
        } else if self.ambush && replica.is_leader() {
            self.ambush = false;
            let until = self.network.now() + self.rng.random_range(5..200);
            self.crash(at, until);
        }
        Ok(())
    }

    /// Something goes wrong, and lasts until the time that is returned.
    fn fault(&mut self) -> u64 {
        let (now, count) = (self.network.now(), self.nodes.len());
        let leader = self.nodes.iter().position(|node| node.replica().is_some_and(Replica::is_leader));
        let at = match leader {
            Some(leader) if self.rng.random_bool(0.5) => leader,
            _ => self.rng.random_range(0..count),
        };
        let kind = self.rng.random_range(0..100);
        let until = now + [20, 400, 1500][self.rng.random_range(0..3)] + self.rng.random_range(0..200);
        self.network.note(("fault", kind, at));
        tracing::info!(now, kind, at, until, "fault");
        match kind {
            0..25 => self.crash(at, until),
            25..30 => (0..count).for_each(|at| self.crash(at, until)),
            30..35 => {
                self.ambush = true;
                self.crash(leader.unwrap_or(at), until);
            }
            35..45 => {
                for other in (0..count).filter(|other| *other != at) {
                    self.begin(until, Fault::Cut(at, other));
                    self.begin(until, Fault::Cut(other, at));
                }
            }
            45..55 => {
                let apart: Vec<bool> = (0..count).map(|_| self.rng.random()).collect();
                for (from, to) in (0..count).flat_map(|from| (0..count).map(move |to| (from, to))) {
                    if apart[from] != apart[to] {
                        self.begin(until, Fault::Cut(from, to));
                    }
                }
            }
            55..65 => {
                let outwards = self.rng.random();
                for other in (0..count).filter(|other| *other != at) {
                    let (from, to) = if outwards { (at, other) } else { (other, at) };
                    self.begin(until, Fault::Cut(from, to));
                }
            }
            65..73 => self.pause(at, until),
            73..79 => {
                self.nodes[at].host.disk.sync_takes.store(self.rng.random_range(20..400), Ordering::Relaxed);
                self.begin(until, Fault::SlowDisk(at));
            }
            79..83 => self.nodes[at].host.disk.fails.store(true, Ordering::Relaxed),
            83..88 => self.begin(until, Fault::Storm),
            88..95 => self.transfer(),
            _ => self.stop(at),
        }
        until
    }

    fn begin(&mut self, until: u64, fault: Fault) {
        self.set(fault, true);
        self.healing.push((until, fault));
    }

    fn set(&mut self, fault: Fault, on: bool) {
        match fault {
            Fault::Cut(from, to) => self.network.cut(from, to, on),
            Fault::SlowDisk(at) if !on => self.nodes[at].host.disk.sync_takes.store(1, Ordering::Relaxed),
            Fault::SlowDisk(_) => {}
            Fault::Storm if on => self.network.weather(Weather {
                long_delay: (50, 600),
                delayed: 0.3,
                lost: 0.1,
                repeated: 0.2,
                ..self.plan.weather
            }),
            Fault::Storm => self.network.weather(self.plan.weather),
        }
    }

    fn crash(&mut self, at: usize, until: u64) {
        if self.nodes[at].life.is_none() {
            return;
        }
        self.end(at, true);
        self.crashes += 1;
        self.nodes[at].wakes = until;
    }

    /// The replica's process is gone; with a crash so is what its disk wasn't certain of.
    fn end(&mut self, at: usize, crash: bool) {
        self.doors.lock()[at] = None;
        self.witness.forget(at);
        self.network.hang_up(at);
        self.nodes[at].end();
        if crash {
            let single = self.mistake.is_none();
            self.nodes[at].host.disk.crash(&mut self.rng, single).expect("files that can be cut");
        }
        self.nodes[at].wakes = self.network.now() + 10;
    }

    fn pause(&mut self, at: usize, until: u64) {
        let now = self.network.now();
        let node = &mut self.nodes[at];
        if let Some(life) = node.life.as_mut().filter(|life| life.paused.is_none()) {
            life.paused = Some(now);
            node.wakes = until;
        }
    }

    fn transfer(&mut self) {
        let leads = |node: &&Node| node.replica().is_some_and(Replica::is_leader);
        if let Some((node, replica)) = self.nodes.iter().find(leads).and_then(|node| Some((node, node.replica()?))) {
            let (replica, life) = (replica.clone(), node.life.as_ref());
            if let Some(life) = life {
                // Whether it comes to pass is seen by who leads then.
                life.runtime.spawn(async move { drop(replica.transfer_leadership().await) });
            }
        }
    }

    fn stop(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        if let Some(life) = &mut node.life
            && let Some(replica) = life.replica.clone()
            && life.stopping.is_none()
        {
            life.stopping = Some(life.runtime.spawn(async move { replica.shutdown().await }));
            self.doors.lock()[at] = None;
        }
    }

    fn heal(&mut self) {
        let over = std::mem::take(&mut self.healing);
        over.into_iter().for_each(|(_, fault)| self.set(fault, false));
        self.network.weather(CALM);
        self.ambush = false;
        // A disk that was to fail and has had nothing to write.
        for node in &self.nodes {
            if node.replica().is_some_and(|replica| replica.log().failure().borrow().is_none()) {
                node.host.disk.fails.store(false, Ordering::Relaxed);
            }
        }
        let now = self.network.now();
        self.nodes.iter_mut().for_each(|node| node.wakes = node.wakes.min(now));
        self.network.note("healed");
    }

    /// All replicas run, know who leads, and have applied the same.
    fn agrees(&self) -> bool {
        let replicas: Option<Vec<_>> = self.nodes.iter().map(Node::replica).collect();
        let Some(replicas) = replicas else { return false };
        let applied = replicas[0].store().applied();
        let last = replicas[0].log().last();
        replicas.iter().any(|replica| replica.is_leader())
            && replicas.iter().all(|replica| {
                replica.store().applied() == applied
                    && replica.log().last() == last
                    && replica.leadership().borrow().leader.is_some()
            })
            && applied.map(|applied| applied.index) == last.map(|last| last.index)
    }

    fn describe(&self) -> String {
        let node = |node: &Node| match (&node.life, node.replica()) {
            (None, _) => format!("{}: down until {}", node.config.name, node.wakes),
            (Some(_), None) => format!("{}: starting", node.config.name),
            (Some(_), Some(replica)) => format!("{:?}", replica.status()),
        };
        self.nodes.iter().map(node).collect::<Vec<_>>().join("\n")
    }
}

impl Node {
    fn replica(&self) -> Option<&Replica> {
        let life = self.life.as_ref()?;
        life.replica.as_ref().filter(|replica| life.stopping.is_none() && replica.status().role != Role::Stopped)
    }

    fn start(&mut self, network: &Network, at: usize) {
        let runtime = runtime();
        let starting = runtime.spawn(Replica::start_on(self.config.clone(), network.of(at)));
        self.life = Some(Life { replica: None, starting: Some(starting), stopping: None, paused: None, runtime });
    }

    /// Lets it run for a millisecond. True: it has stopped, as it was asked to.
    fn step(&mut self, now: u64) -> Result<bool, String> {
        let Some(life) = &mut self.life else { return Ok(false) };
        self.credit += self.rate;
        let millis = Duration::from_millis(self.credit / 1000);
        self.credit %= 1000;
        self.host.run(|| {
            life.runtime.block_on(async {
                if let Some(since) = life.paused.take() {
                    tokio::time::advance(Duration::from_millis(now - since)).await;
                }
                tokio::time::sleep(millis).await;
            });
            if let Some(starting) = life.starting.take_if(|starting| starting.is_finished()) {
                let started = life.runtime.block_on(starting).map_err(|error| error.to_string())?;
                let replica = started.map_err(|error| format!("{} can't start: {error}", self.config.name))?;
                life.replica = Some(replica);
            }
            Ok(life.stopping.as_ref().is_some_and(JoinHandle::is_finished))
        })
    }

    fn end(&mut self) {
        let life = self.life.take();
        self.host.run(|| drop(life));
    }
}

pub(super) fn runtime() -> Runtime {
    Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime")
}

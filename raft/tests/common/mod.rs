//! Clusters in one process, over loopback and TLS. Each replica has a runtime of its own, so that one can be crashed: its
//! tasks end wherever they are.
#![allow(dead_code, reason = "each test binary uses its own part of this module")]

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use kontiki_raft::{
    Config, Limits, MEMBER_DNS_NAME, MEMBER_ORGANIZATION, ManageError, Operation, PeerTls, Replica, StartError,
    member_common_name,
};
use kontiki_storage::{Condition, OpenError, Options, Outcome, Store, Transaction, Write};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::time::Instant;

pub fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

/// Waits for what comes by itself.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < end, "it takes too long: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub fn put(key: &str, value: &str) -> Transaction {
    let value = Bytes::copy_from_slice(value.as_bytes());
    let write = Write::Put { key: key.into(), value, revision_at: None, expires_at: None };
    Transaction { conditions: vec![], writes: vec![write] }
}

pub fn create(key: &str, value: &str) -> Transaction {
    Transaction { conditions: vec![Condition::Absent(key.into())], ..put(key, value) }
}

pub struct Ca(CertifiedIssuer<'static, KeyPair>);

impl Ca {
    pub fn new() -> Ca {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "kontiki peers");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        Ca(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub fn sign(&self, organization: &str, common_name: &str) -> PeerTls {
        let mut params = CertificateParams::new(vec![MEMBER_DNS_NAME.to_owned()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, organization);
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let chain = params.signed_by(&key, &self.0).unwrap().pem().into_bytes();
        PeerTls { chain, key: key.serialize_pem().into_bytes(), ca: self.0.pem().into_bytes() }
    }

    pub fn member(&self, name: &str) -> PeerTls {
        self.sign(MEMBER_ORGANIZATION, &member_common_name(name))
    }
}

pub struct Node {
    pub config: Config,
    runtime: Option<Runtime>,
    replica: Option<Replica>,
    /// Threads that wait for the end of the runtimes before.
    ending: Vec<JoinHandle<()>>,
}

impl Node {
    pub fn replica(&self) -> Replica {
        self.replica.clone().unwrap()
    }

    pub fn is_up(&self) -> bool {
        self.replica.is_some()
    }

    pub async fn try_start(&mut self) -> Result<(), StartError> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let started = runtime.spawn(Replica::start(self.config.clone())).await.unwrap();
        self.runtime = Some(runtime);
        match started {
            Ok(replica) => {
                self.replica = Some(replica);
                Ok(())
            }
            Err(error) => {
                self.crash();
                Err(error)
            }
        }
    }

    /// Starts, once the process that had the directory before has let go of it.
    pub async fn start(&mut self) {
        let mut last = None;
        for _ in 0..100 {
            match self.try_start().await {
                Ok(()) => return,
                Err(
                    error @ (StartError::Database { .. }
                    | StartError::Listen { .. }
                    | StartError::Store(OpenError::Io { .. } | OpenError::Database { .. })),
                ) => {
                    last = Some(error);
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Err(error) => panic!("{error}"),
            }
        }
        panic!("the directory is still in use: {last:?}");
    }

    pub fn crash(&mut self) {
        self.replica = None;
        if let Some(runtime) = self.runtime.take() {
            self.ending.push(std::thread::spawn(move || runtime.shutdown_timeout(Duration::from_secs(20))));
        }
    }

    /// The same, and nothing of it is left when this returns.
    pub async fn crash_whole(&mut self) {
        self.crash();
        let ending = std::mem::take(&mut self.ending);
        let ended = tokio::task::spawn_blocking(|| ending.into_iter().for_each(|ended| ended.join().unwrap()));
        ended.await.unwrap();
    }

    pub async fn stop(&mut self) {
        let replica = self.replica();
        self.runtime.as_ref().unwrap().spawn(async move { replica.shutdown().await }).await.unwrap();
        self.crash();
    }
}

/// RocksDB aborts a process that ends while a thread still closes a database.
impl Drop for Node {
    fn drop(&mut self) {
        self.crash();
        self.ending.drain(..).for_each(|ended| ended.join().unwrap());
    }
}

pub struct Cluster {
    pub nodes: Vec<Node>,
    pub ca: Ca,
    dir: TempDir,
}

impl Cluster {
    pub async fn start(limits: Limits) -> Cluster {
        Cluster::found(&["n1", "n2", "n3"], limits).await
    }

    pub async fn found(names: &[&str], limits: Limits) -> Cluster {
        let (dir, ca) = (tempfile::tempdir().unwrap(), Ca::new());
        let sockets: Vec<_> = names.iter().map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let addresses: Vec<_> = sockets.iter().map(|socket| socket.local_addr().unwrap()).collect();
        drop(sockets);
        let initial_cluster: Vec<_> =
            names.iter().zip(&addresses).map(|(name, address)| (name.to_string(), address.to_string())).collect();
        let node = |(name, address): (&&str, _)| Node {
            config: Config {
                peer_listen: Some(address),
                peer_address: address.to_string(),
                initial_cluster: initial_cluster.clone(),
                tls: Some(ca.member(name)),
                limits,
                ..Config::new(*name, dir.path().join(name))
            },
            runtime: None,
            replica: None,
            ending: Vec::new(),
        };
        let nodes = names.iter().zip(addresses.iter().copied()).map(node).collect();
        let mut cluster = Cluster { nodes, ca, dir };
        let starting: Vec<_> = cluster.nodes.iter_mut().map(|node| node.start()).collect();
        futures_util::future::join_all(starting).await;
        cluster
    }

    /// A cluster of one from a copy of a data directory, at an address of its own.
    pub async fn open(name: &str, data_dir: &Path) -> Cluster {
        let (dir, ca) = (tempfile::tempdir().unwrap(), Ca::new());
        copy_dir(data_dir, &dir.path().join(name));
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let config = Config {
            peer_listen: Some(address),
            peer_address: address.to_string(),
            tls: Some(ca.member(name)),
            ..Config::new(name, dir.path().join(name))
        };
        let mut node = Node { config, runtime: None, replica: None, ending: Vec::new() };
        node.start().await;
        Cluster { nodes: vec![node], ca, dir }
    }

    /// A further replica, as a learner that runs.
    pub async fn join(&mut self, name: &str) -> Result<usize, ManageError> {
        self.join_as(name, |_| ()).await
    }

    pub async fn join_as(&mut self, name: &str, with: impl FnOnce(&mut Config)) -> Result<usize, ManageError> {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let member = self.nodes[self.leader().await].replica();
        let incarnation = rand::random();
        let operation = Operation::Add { name: name.into(), address: address.to_string(), incarnation };
        member.manage(operation, soon()).await?;
        let mut node = Node {
            config: Config {
                peer_listen: Some(address),
                peer_address: address.to_string(),
                invitation: Some(member.invite(incarnation)),
                tls: Some(self.ca.member(name)),
                limits: self.nodes[0].config.limits,
                ..Config::new(name, self.dir.path().join(format!("{name}-{incarnation}")))
            },
            runtime: None,
            replica: None,
            ending: Vec::new(),
        };
        with(&mut node.config);
        node.start().await;
        self.nodes.push(node);
        Ok(self.nodes.len() - 1)
    }

    /// A further replica, as a voter.
    pub async fn grow(&mut self, name: &str) -> usize {
        let node = self.join(name).await.unwrap();
        self.nodes[node].replica().read_barrier(soon()).await.unwrap();
        self.nodes[node].replica().manage(Operation::Promote { name: name.into() }, soon()).await.unwrap();
        node
    }

    pub async fn remove(&self, through: usize, name: &str) -> Result<(), ManageError> {
        self.nodes[through].replica().manage(Operation::Remove { name: name.into() }, soon()).await
    }

    /// Of all members, as one of them that is up to date sees them.
    pub async fn roles(&self, through: usize) -> Vec<(String, bool)> {
        let replica = self.nodes[through].replica();
        replica.read_barrier(soon()).await.unwrap();
        replica.members().into_iter().map(|info| (info.member.name, info.voter)).collect()
    }

    pub fn path(&self, node: usize) -> PathBuf {
        self.nodes[node].config.data_dir.clone()
    }

    pub async fn leader(&self) -> usize {
        let leads = |node: &Node| node.replica.as_ref().is_some_and(|replica| replica.is_leader());
        let mut leader = None;
        until("one of them leads", || {
            leader = self.nodes.iter().position(leads);
            leader.is_some()
        })
        .await;
        leader.unwrap()
    }

    pub async fn follower(&self) -> usize {
        let leader = self.leader().await;
        (0..self.nodes.len()).find(|node| *node != leader && self.nodes[*node].is_up()).unwrap()
    }

    /// Waits until all that run have applied the same.
    pub async fn agree(&self) {
        let end = soon();
        let running: Vec<_> = self.nodes.iter().filter_map(|node| node.replica.clone()).collect();
        let expected = running[0].read_barrier(end).await.unwrap().revision();
        let states = || running.iter().map(|replica| replica.store().state_hash()).collect::<Vec<_>>();
        until("all apply what one has", || {
            assert!(running.iter().all(|replica| replica.divergence().borrow().is_none()), "{:?}", states());
            states().iter().all(|(revision, _)| *revision >= expected)
        })
        .await;
        let states = states();
        assert!(states.windows(2).all(|pair| pair[0] == pair[1]), "{states:?}");
    }
}

/// Opens a store once the process that had the directory before has let go of it.
pub async fn open_store(path: &Path) -> Store {
    for _ in 0..100 {
        match Store::open(path, Options::default()) {
            Ok(store) => return store,
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
    panic!("the store is still in use");
}

pub fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        match entry.file_type().unwrap().is_dir() {
            true => copy_dir(&entry.path(), &to.join(entry.file_name())),
            false => drop(std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap()),
        }
    }
}

/// Writers create keys through the replicas given, until told to stop. Returns the keys acknowledged and the longest time
/// between two acknowledgements.
pub async fn write_until(stop: Arc<AtomicBool>, replicas: Vec<Replica>) -> (Vec<String>, Duration) {
    let writers = (0..2).map(|writer| {
        let (stop, replica) = (stop.clone(), replicas[writer % replicas.len()].clone());
        tokio::spawn(async move {
            let mut keys = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let key = format!("a/{writer}-{}", keys.len());
                // A retry that was applied twice would find the key there.
                match replica.propose(create(&key, "x"), soon()).await {
                    Ok(Outcome::Committed { .. }) => keys.push((key, Instant::now())),
                    other => panic!("{key}: {other:?}"),
                }
            }
            keys
        })
    });
    let mut all = Vec::new();
    for writer in writers.collect::<Vec<_>>() {
        all.extend(writer.await.unwrap());
    }
    all.sort_by_key(|(_, at)| *at);
    let gap = all.windows(2).map(|pair| pair[1].1 - pair[0].1).max().unwrap_or_default();
    (all.into_iter().map(|(key, _)| key).collect(), gap)
}

/// The value of a replica's counter or gauge.
pub fn metric(replica: &Replica, name: &str) -> f64 {
    let registry = prometheus::Registry::new();
    replica.register_metrics(&registry).unwrap();
    let families = registry.gather();
    let family = families.iter().find(|family| family.name() == name).unwrap();
    let metric = &family.get_metric()[0];
    metric.get_counter().get_value() + metric.get_gauge().get_value()
}

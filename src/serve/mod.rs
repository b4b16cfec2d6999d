//! A replica's life: certificates, consensus, listener, what every cluster has, and in the end a clean stop.

mod discovery;
pub mod farewell;
mod handle;
mod limits;
mod listen;
mod members;
mod openapi;
mod paths;
pub mod tls;

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use kontiki_raft::{BarrierError, PeerTls, Reads, Replica, StartError, TransferError, lock};
use rustls::ServerConfig;
use rustls::sign::CertifiedKey;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

pub use limits::InFlight;
use listen::Connections;
pub use members::{LEADER, MEMBERS, TOKENS};
pub use paths::{SNAPSHOT, STATUS};

use crate::auth::rbac::Rbac;
use crate::auth::{Authenticator, Authorizer};
use crate::bootstrap;
use crate::cli::AuthorizationMode;
use crate::config::{Config, ConfigError};
use crate::discovery::Registry;
use crate::health::Health;
use crate::join::{self, Joining};
use crate::loops::{self, Identity};
use crate::metrics::METRICS;
use crate::openapi::OpenApi;
use crate::pki::{ClusterPki, ReplicaPki};
use crate::server::Server;
use crate::version;

/// How long requests that are under way may take once the replica stops.
const DRAIN: Duration = Duration::from_secs(60);
/// How long they may take when nothing can be written any more, since the replica has stopped or there is no quorum.
const LAST_WORDS: Duration = Duration::from_secs(3);
/// How often a starting replica looks for a quorum again.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often certificates are looked at.
const RENEWAL: Duration = Duration::from_secs(60);
const AGAIN: Duration = Duration::from_millis(500);

pub async fn run(config: Config) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let _lock = lock(&config.data_dir).map_err(|error| no_directory(&config, error))?;
    // What it has done so far is taken up again by the next start.
    let joining = tokio::select! {
        joining = join::begin(&config) => joining?,
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    let pki = Pki::ensure(&config)?;
    let authenticator = Authenticator::new(
        &config.authentication,
        &pki.cluster.authority.certificate,
        &pki.cluster.service_account_key,
    )?;
    let certificate = tls::Certificate::new(serving_certificate(&config, &pki)?);
    let tls = tls::server_config(
        config.tls_min_version,
        &config.tls_cipher_suites,
        certificate.clone(),
        authenticator.verifier(),
    )?;
    // Before the state is opened, which takes longer than to see that somebody else listens there.
    let listener = bind(config.listen)?;
    let replica =
        Replica::start(raft_config(&config, &pki, joining.as_ref())).await.map_err(|error| no_start(&config, error))?;
    replica.register_metrics(&METRICS.registry)?;

    let address = SocketAddr::new(config.advertise, config.listen.port());
    let stopping = CancellationToken::new();
    let rbac = Rbac::follow(replica.store(), &stopping);
    let registry = Arc::new(Registry::builtin());
    let server = Arc::new(Server {
        replica: replica.clone(),
        openapi: OpenApi::new(registry.clone()),
        registry: ArcSwap::new(registry),
        settings: config.settings.clone(),
        address: address.to_string(),
        shared_pki: pki.cluster.dir.clone(),
        joining: Default::default(),
        authenticator,
        authorizer: Authorizer::new(&config.authorization, rbac.clone()),
        rbac,
        health: Health::default(),
        inflight: InFlight::new(config.max_reading, config.max_writing),
        serving: stopping.child_token(),
        stopping: stopping.clone(),
    });
    tokio::spawn(stop_showing(server.clone()));
    if config.authorization.contains(&AuthorizationMode::Node) {
        tracing::warn!("--authorization-mode: there is no Node authorizer yet; nodes have the rights that RBAC gives");
    }
    let identity = Arc::new(Identity::new(&config.name, address));
    let connections = Connections::new();
    let tls = Arc::new(ArcSwap::from_pointee(tls));
    tokio::spawn(listen::serve(server.clone(), listener, tls.clone(), config.http2_streams, connections.clone()));
    tokio::spawn(renew(server.clone(), config.clone(), certificate, tls, signal(SignalKind::hangup())?));
    tracing::info!(address = %config.listen, "serving");

    let stopped = tokio::select! {
        never = get_ready(&server, &config, &pki, &identity, joining) => match never {},
        reason = replica.failed() => Err(reason),
        _ = terminate.recv() => Ok("SIGTERM"),
        _ = interrupt.recv() => Ok("SIGINT"),
    };
    let reason = match stopped {
        Ok(reason) => reason,
        Err(reason) => {
            server.health.set_terminating();
            stopping.cancel();
            // For those who only read; nothing can be written here any more.
            let _ = timeout(LAST_WORDS, connections.closed()).await;
            replica.shutdown().await;
            anyhow::bail!("the replica has stopped: {reason}");
        }
    };
    tracing::info!(reason, "stopping");
    server.health.set_terminating();
    tokio::time::sleep(config.shutdown_delay).await;
    // Others lead before this replica refuses anything; what is under way goes to the new leader.
    match replica.transfer_leadership().await {
        Ok(()) | Err(TransferError::NotLeader | TransferError::NoTarget) => {}
        Err(error) => tracing::warn!(%error, "the leadership was not handed over"),
    }
    stopping.cancel();
    identity.resign(&server).await;
    let drain = if replica.has_quorum() { DRAIN } else { LAST_WORDS };
    if timeout(drain, connections.closed()).await.is_err() {
        tracing::warn!(connections = connections.open(), "requests are still under way; stopping without them");
    }
    replica.shutdown().await;
    Ok(())
}

/// Ends watches and loops once the state is found to be wrong.
async fn stop_showing(server: Arc<Server>) {
    let mut divergence = server.replica.divergence();
    if divergence.wait_for(Option::is_some).await.is_ok() {
        server.serving.cancel();
    }
}

/// Catches up, makes what every cluster has, tells the person who started it, and keeps the loops running.
async fn get_ready(
    server: &Arc<Server>,
    config: &Config,
    pki: &Pki,
    identity: &Arc<Identity>,
    joining: Option<Joining>,
) -> Infallible {
    loop {
        match server.replica.read_barrier(Instant::now() + PATIENCE).await {
            Ok(_) => break,
            // That has been said.
            Err(BarrierError::NoQuorum) => tokio::time::sleep(AGAIN).await,
            Err(error) => tracing::warn!(%error, "waiting for a quorum of replicas"),
        }
    }
    server.health.set_caught_up();
    if let Some(joining) = joining {
        tokio::spawn(joining.finish(server.clone(), config.clone()));
    }
    while let Err(error) = bootstrap::ensure(server).await {
        tracing::warn!(%error, "making what every cluster has");
        tokio::time::sleep(AGAIN).await;
    }
    server.health.set_bootstrapped();
    loops::start(server, identity.clone());
    announce(config, pki);
    std::future::pending().await
}

/// The three lines that a person needs next.
fn announce(config: &Config, pki: &Pki) {
    println!(
        "Kontiki {} is ready: {} serves Kubernetes {} at {}",
        version::OWN,
        config.name,
        version::GIT,
        config.local_url()
    );
    println!("  export KUBECONFIG={}", pki.admin.display());
    println!("  kubectl get namespaces");
}

fn serving_certificate(config: &Config, pki: &Pki) -> anyhow::Result<CertifiedKey> {
    match &config.serving_files {
        Some((certificate, key)) => Ok(tls::read_files(certificate, key)?),
        None => tls::certified_key(&pki.replica.serving).map_err(anyhow::Error::msg),
    }
}

/// Shows clients and peers new certificates, and trusts other authorities, when there are any: files were replaced, or
/// their time had come. SIGHUP has them looked at at once.
async fn renew(
    server: Arc<Server>,
    config: Config,
    certificate: Arc<tls::Certificate>,
    tls: Arc<ArcSwap<ServerConfig>>,
    mut hangup: Signal,
) {
    loop {
        // It makes no difference which.
        let _ = timeout(RENEWAL, hangup.recv()).await;
        match look_at_files(&server, &config, &certificate, &tls) {
            Ok(false) => {}
            // API servers behind this one are told whom to trust.
            Ok(true) => {
                if let Err(error) = bootstrap::ensure(&server).await {
                    tracing::warn!(%error, "telling others which clients to trust");
                }
            }
            Err(error) => tracing::warn!(error = format!("{error:#}"), "looking for new certificates"),
        }
    }
}

/// Says whether other clients are trusted than before.
fn look_at_files(
    server: &Server,
    config: &Config,
    certificate: &Arc<tls::Certificate>,
    tls: &ArcSwap<ServerConfig>,
) -> anyhow::Result<bool> {
    let pki = Pki::ensure(config)?;
    if certificate.replace(serving_certificate(config, &pki)?) {
        tracing::info!("serving with a new certificate");
    }
    let clients = server.authenticator.renew(&pki.cluster.authority.certificate)?;
    if clients {
        let verifier = server.authenticator.verifier();
        tls.store(Arc::new(tls::server_config(
            config.tls_min_version,
            &config.tls_cipher_suites,
            certificate.clone(),
            verifier,
        )?));
        tracing::info!("clients of other authorities are trusted");
    }
    if server.replica.renew_tls(&pki.for_peers())? {
        tracing::info!("peers are shown a new certificate, or another authority is trusted");
    }
    Ok(clients)
}

/// All certificates and keys.
struct Pki {
    cluster: ClusterPki,
    replica: ReplicaPki,
    admin: std::path::PathBuf,
}

impl Pki {
    /// What this replica shows its peers, and what it knows them by.
    fn for_peers(&self) -> PeerTls {
        PeerTls {
            chain: self.replica.peer.certificate.clone().into_bytes(),
            key: self.replica.peer.key.clone().into_bytes(),
            ca: self.cluster.peer_authority.certificate.clone().into_bytes(),
        }
    }

    fn ensure(config: &Config) -> anyhow::Result<Pki> {
        let own = config.data_dir.join("pki");
        let cluster = match &config.pki_dir {
            None => ClusterPki::create(&own)?,
            Some(dir) if !dir.join("ca.crt").exists() => {
                return Err(ConfigError {
                    flag: "--pki-dir",
                    problem: format!("{} holds no cluster authority", dir.display()),
                    fix: format!("run `kontiki pki init --pki-dir {}` once", dir.display()),
                }
                .into());
            }
            Some(dir) => ClusterPki::open(dir)?,
        };
        let (admin, server) = match &config.pki_dir {
            None => (config.data_dir.join("admin.kubeconfig"), Some(config.local_url())),
            Some(_) => (cluster.admin_kubeconfig(), None),
        };
        cluster.ensure_admin(&admin, server.as_deref())?;
        let replica = ReplicaPki::ensure(&own, &cluster, &config.name, &config.serving_hosts())?;
        // For people, who change directories.
        let admin = std::path::absolute(&admin).unwrap_or(admin);
        Ok(Pki { cluster, replica, admin })
    }
}

fn bind(address: SocketAddr) -> Result<TcpListener, ConfigError> {
    listen::bind(address).map_err(|error| no_listener("--secure-port", "--bind-address", address, &error))
}

/// The flags are those that say the port and the address.
fn no_listener(port: &'static str, host: &'static str, address: SocketAddr, error: &io::Error) -> ConfigError {
    let (flag, problem, fix) = match error.kind() {
        io::ErrorKind::AddrInUse => {
            (port, format!("something else listens on {address}"), "stop it, or choose another port")
        }
        io::ErrorKind::PermissionDenied => {
            (port, format!("this user may not listen on {address}"), "choose a port from 1024 on")
        }
        _ => (host, format!("{address}: {error}"), "choose an address of this machine"),
    };
    ConfigError { flag, problem, fix: fix.into() }
}

fn no_directory(config: &Config, error: StartError) -> ConfigError {
    let path = config.data_dir.display();
    let (problem, fix) = match error {
        StartError::Busy { .. } => (format!("a replica runs on {path}"), "stop it first"),
        StartError::Io { source, .. } => {
            (format!("{path} can't be made or written: {source}"), "name a directory that this user may write to")
        }
        error => (error.to_string(), "name another directory"),
    };
    ConfigError { flag: "--data-dir", problem, fix: fix.into() }
}

fn no_start(config: &Config, error: StartError) -> anyhow::Error {
    match error {
        StartError::Listen { address, source } => {
            let flag = if config.cluster.peer_bind.is_some() { "--peer-bind-address" } else { "--peer-address" };
            no_listener(flag, flag, address, &source).into()
        }
        error => anyhow::Error::new(error).context("the replica can't start"),
    }
}

fn raft_config(config: &Config, pki: &Pki, joining: Option<&Joining>) -> kontiki_raft::Config {
    let mut raft = kontiki_raft::Config::new(&config.name, &config.data_dir);
    raft.storage.memory_budget = config.storage_memory_budget;
    raft.version = version::OWN.into();
    raft.invitation = joining.and_then(|joining| joining.invitation.clone());
    raft.reads = if config.lease_reads { Reads::Lease } else { Reads::Quorum };
    raft.client_url = format!("https://{}", SocketAddr::new(config.advertise, config.listen.port()));
    if let Some(address) = &config.cluster.peer_address {
        raft.peer_address = address.clone();
        raft.peer_listen = Some(config.cluster.peer_bind.unwrap_or_else(|| peer_listen(address)));
        raft.initial_cluster = config.cluster.members.clone().into_iter().collect();
        raft.tls = Some(pki.for_peers());
    }
    raft
}

/// A host name may stand for any of this machine's addresses.
fn peer_listen(address: &str) -> SocketAddr {
    address.parse().unwrap_or_else(|_| {
        let port = address.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).unwrap_or_default();
        SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port)
    })
}

//! One replica: its log, its store, its Raft and its peers, put together.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kontiki_storage::{
    Archive, Command, DatabaseStats, Outcome, Revision, Store, Transaction, View, create_private_dir,
};
use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::errors::{InitializeError, RaftError};
use parking_lot::Mutex;
use prometheus::Registry;
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, sleep_until, timeout, timeout_at};

use crate::audit::{Audit, Divergence, Standing};
use crate::barrier::{Barrier, BarrierError};
use crate::config::{Config, Limits, StartError};
use crate::format::decode_membership;
use crate::host;
use crate::identity::{self, Founders, Identity, Invitation};
use crate::level::{self, Raise};
use crate::log::{Log, REMOVED};
use crate::machine::Machine;
use crate::membership::{self, HANDOVER, ManageError, Manager, MemberInfo, Operation, Step};
use crate::metrics::{Metrics, Scrape};
use crate::peer::{Exclusion, Http, Network, PeerTls, Peers, Service, Transport};
use crate::proposer::{ProposeError, Proposer};
use crate::quorum::{self, Quorum};
use crate::route::{Leader, Leadership, Raft, Route};
use crate::space::{Lookout, Space};
use crate::strand;
use crate::types::{LogId, NodeId, TypeConfig};
use crate::watch;

/// How often the size of the log is looked at.
const UPKEEP: Duration = Duration::from_millis(500);
/// How long a replica that has nothing yet waits to hear whether its peers know better.
const GREETING: Duration = Duration::from_millis(1500);
/// How long there may be no leader before it is told: an election takes less, and who wins it is news enough.
const ELECTION: Duration = Duration::from_secs(1);
/// How often a replica that knows no leader asks whether it is still a member.
const LOOK: Duration = Duration::from_secs(1);

/// A handle; clones are the same replica. It runs until [`Replica::shutdown`].
#[derive(Clone)]
pub struct Replica(Arc<Inner>);

struct Inner {
    observer: Observer,
    raft: Raft,
    log: Log,
    store: Store,
    peers: Peers,
    transport: Arc<dyn Transport>,
    proposer: Proposer,
    barrier: Barrier,
    manager: Manager,
    leadership: watch::Receiver<Leadership>,
    failure: watch::Receiver<Option<String>>,
    space: Arc<Space>,
    metrics: Metrics,
    running: Mutex<Running>,
}

/// What ends with the replica.
#[derive(Default)]
struct Running(Vec<JoinHandle<()>>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

/// Knows how the replica is.
#[derive(Clone)]
pub(crate) struct Observer {
    identity: Identity,
    level: u32,
    announced: Announced,
    raft: Raft,
    log: Log,
    store: Store,
    leadership: watch::Receiver<Leadership>,
    quorum: Quorum,
    standing: Standing,
}

/// What a replica tells of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announced {
    pub address: String,
    pub version: String,
    pub client_url: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    Leader,
    Follower,
    Candidate,
    Learner,
    Stopped,
    /// Whatever it was, a quorum doesn't answer.
    NoQuorum,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaStatus {
    pub name: String,
    pub id: NodeId,
    pub announced: Announced,
    pub role: Role,
    /// What its build can apply.
    pub level: u32,
    /// What every member can.
    pub feature_level: u32,
    pub term: u64,
    /// The leader's name.
    pub leader: Option<String>,
    pub last_log_index: u64,
    pub committed_index: u64,
    pub applied_index: u64,
    pub revision: Revision,
    /// Of the state at that revision.
    pub state_hash: u64,
    /// Most replicas have another state: this one serves nothing.
    pub diverged: bool,
    /// Bytes of the state and of the log on disk.
    pub state_bytes: u64,
    pub log_bytes: u64,
}

/// A member that gave no status, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreachable {
    pub name: String,
    pub address: String,
    pub error: String,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransferError {
    #[error("this replica does not lead")]
    NotLeader,
    #[error("there is no other voter that could lead")]
    NoTarget,
    #[error("the leadership was not taken over in time")]
    Timeout,
}

impl Replica {
    /// Opens the data directory, or makes it, and starts. A cluster of one leads as soon as it has replayed its log.
    /// Nothing should be served before a first [`Replica::read_barrier`] has come through: until then the state may be
    /// older than what this replica has shown before it was stopped.
    pub async fn start(config: Config) -> Result<Replica, StartError> {
        let transport = Arc::new(Http::listen(&config).await?);
        Replica::start_on(config, transport).await
    }

    pub(crate) async fn start_on(config: Config, transport: Arc<dyn Transport>) -> Result<Replica, StartError> {
        let begun = Instant::now();
        let founders = Founders::of(&config)?;
        let metrics = Metrics::new().map_err(|error| StartError::Config(error.to_string()))?;
        let (log, store) = open(&config, metrics.clone()).await?;
        let identity = match identity::read(&config, &founders, &log)? {
            Some(identity) => identity,
            None if !log.is_pristine() || store.applied().is_some() => {
                let detail = "there is a state but no identity: a part of the data directory is missing".into();
                return Err(StartError::Foreign { path: config.data_dir, detail });
            }
            None => identity::found(&config, &founders, &log).await?,
        };
        if log.get(REMOVED)?.is_some() {
            return Err(StartError::Removed(config.name));
        }
        let members = decode_membership(&store.membership()).map_err(|error| StartError::Raft(error.to_string()))?;
        if members.nodes().count() > 1 && config.peer_listen.is_none() {
            return Err(StartError::Config("this replica is one of several: it needs a peer address".into()));
        }
        let applied = store.applied().map(|position| position.index);
        if log.purged() > applied {
            let (first, applied) = (log.purged().unwrap_or(0) + 1, applied.unwrap_or(0));
            let detail = format!("it begins with entry {first}, and the state has applied entries up to {applied}");
            return Err(StartError::Corrupt { path: config.data_dir, what: "the log".into(), detail });
        }
        if let Some(index) = applied {
            log.checkpointed(index);
        }
        if level::of(&store) > config.level {
            return Err(StartError::TooOld { has: level::of(&store), own: config.level });
        }
        let announced = Announced {
            address: config.peer_address.clone(),
            version: config.version.clone(),
            client_url: config.client_url.clone(),
        };
        let peers = Peers::new(
            &identity,
            config.level,
            announced.clone(),
            transport.clone(),
            log.clone(),
            store.clone(),
            metrics.clone(),
        );
        if config.invitation.is_some() || identity.is_founder() {
            peers.update(founders.members.iter().map(|(id, member)| (id, member)));
        }
        if log.is_pristine() {
            peers.greet(GREETING).await;
            match peers.excluded().borrow().clone() {
                Some(Exclusion::Wiped(peer)) => return Err(StartError::Wiped { name: config.name, peer }),
                Some(Exclusion::Removed(_)) => return Err(StartError::Removed(config.name)),
                None => {}
            }
        }
        let (applied, applied_seen) = watch::channel(store.applied().map(|position| position.index));
        let standing = Standing::read(&log)?;
        let machine = Machine::new(store.clone(), log.clone(), applied, standing.clone(), metrics.clone());
        let network = Network::new(peers.clone());
        if config.peer_listen.is_some() && log.vote().is_some() {
            // What this replica promised a leader before it stopped, it doesn't know any more, nor whether that leader counts
            // on it, which is up to its flags.
            sleep_until(begun + config.timing.election_max).await;
        }
        let raft = openraft::Raft::build(identity.node, raft_config(&config)?, network, log.clone(), machine).await;
        let raft: Raft = raft.map_err(|error| StartError::Raft(error.to_string()))?;
        let ((), strand) = strand::make(|| raft.run());
        if log.is_pristine() && identity.is_founder() {
            let members: BTreeMap<_, _> = founders.members.into_iter().collect();
            match raft.initialize(members).await {
                // Another founder has been quicker and is the leader already.
                Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => {}
                Err(error) => return Err(StartError::Raft(error.to_string())),
            }
        }

        let (lead, leadership) = watch::channel(Leadership::default());
        let (fail, failure) = watch::channel(None);
        let route = Route {
            raft: raft.clone(),
            strand,
            log: log.clone(),
            peers: peers.clone(),
            leadership: leadership.clone(),
            reads: config.reads,
            transferred: Arc::default(),
            quorum: Quorum::default(),
            metrics: metrics.clone(),
        };
        let manager = Manager::new(route.clone());
        let space = Arc::new(Space::default());
        let upkeep = Upkeep {
            raft: raft.clone(),
            log: log.clone(),
            limits: config.limits,
            space: space.clone(),
            metrics: metrics.clone(),
        };
        let lookout = Lookout {
            raft: raft.clone(),
            peers: peers.clone(),
            manager: manager.clone(),
            node: identity.node,
            data_dir: config.data_dir.clone(),
            reserve: config.limits.reserve_bytes,
            space: space.clone(),
            metrics: metrics.clone(),
        };
        let audit = Audit {
            route: route.clone(),
            store: store.clone(),
            standing: standing.clone(),
            every: config.timing.audit,
        };
        let fail = Arc::new(fail);
        let mut tasks = vec![
            tokio::spawn(watch_leadership(raft.clone(), peers.clone(), lead, fail.clone(), metrics.clone())),
            tokio::spawn(watch_log(raft.clone(), log.clone(), fail.clone())),
            tokio::spawn(watch_for_exclusion(raft.clone(), log.clone(), peers.clone(), leadership.clone(), fail)),
            tokio::spawn(upkeep.run()),
            tokio::spawn(lookout.run()),
            tokio::spawn(audit.run()),
            tokio::spawn(quorum::watch(route.clone())),
        ];
        let proposer = Proposer::new(route.clone(), config.limits, metrics.clone());
        let raise = Raise {
            raft: raft.clone(),
            peers: peers.clone(),
            store: store.clone(),
            proposer: proposer.clone(),
            node: identity.node,
            level: config.level,
        };
        tasks.push(tokio::spawn(raise.run()));
        let observer = Observer {
            identity,
            level: config.level,
            announced,
            raft: raft.clone(),
            log: log.clone(),
            store: store.clone(),
            leadership: leadership.clone(),
            quorum: route.quorum.clone(),
            standing,
        };
        let barrier = Barrier::new(route, store.clone(), applied_seen, metrics.clone());
        if config.peer_listen.is_some() {
            let address = config.peer_address.clone();
            tasks.push(tokio::spawn(announce_address(raft.clone(), manager.clone(), peers.clone(), address)));
        }
        let (answering, low) = (observer.clone(), space.clone());
        let service =
            Service::new(&peers, raft.clone(), store.clone(), barrier.clone(), answering, manager.clone(), low);
        tasks.push(transport.serve(Arc::new(service)));
        Ok(Replica(Arc::new(Inner {
            observer,
            proposer,
            barrier,
            manager,
            raft,
            log,
            store,
            peers,
            transport,
            leadership,
            failure,
            space,
            metrics,
            running: Mutex::new(Running(tasks)),
        })))
    }

    pub fn name(&self) -> &str {
        &self.0.observer.identity.name
    }

    pub fn id(&self) -> NodeId {
        self.0.observer.identity.node
    }

    pub fn store(&self) -> &Store {
        &self.0.store
    }

    #[cfg(test)]
    pub(crate) fn log(&self) -> &Log {
        &self.0.log
    }

    /// The objects of this replica's state as a snapshot file, to be written out while everything goes on.
    pub fn archive(&self, taken_at: u64, taken_by: &str) -> Archive {
        self.0.store.archive(self.0.observer.identity.cluster, taken_at, taken_by)
    }

    /// Ends with the outcome on which all replicas agree. It is tried again, with whoever leads, until the deadline;
    /// however often, it is applied once.
    pub async fn propose(&self, transaction: Transaction, deadline: Instant) -> Result<Outcome, ProposeError> {
        self.submit(Command::Transact(transaction), deadline).await
    }

    /// Gives up the history before this revision, and returns the oldest revision that is retained.
    pub async fn compact(&self, before: Revision, deadline: Instant) -> Result<Revision, ProposeError> {
        match self.submit(Command::Compact { before }, deadline).await? {
            Outcome::Compacted { revision } => Ok(revision),
            _ => Err(ProposeError::Unknown),
        }
    }

    async fn submit(&self, command: Command, deadline: Instant) -> Result<Outcome, ProposeError> {
        if !self.0.space.takes_proposals() && self.is_leader() {
            return Err(ProposeError::NoSpace);
        }
        if self.0.observer.quorum.is_given_up() {
            return Err(ProposeError::NoQuorum);
        }
        let needed = command.level();
        if needed > level::FIRST {
            let has = level::of(&self.0.store);
            if needed > has {
                return Err(ProposeError::Unsupported { needed, has });
            }
        }
        self.0.proposer.propose(command, deadline).await
    }

    /// A view that shows everything that was acknowledged, anywhere, before the call.
    pub async fn read_barrier(&self, deadline: Instant) -> Result<View, BarrierError> {
        if self.0.observer.quorum.is_given_up() {
            return Err(BarrierError::NoQuorum);
        }
        Ok(self.0.barrier.wait(deadline).await?.1)
    }

    pub fn is_leader(&self) -> bool {
        self.0.leadership.borrow().is_leader
    }

    /// Whether a quorum of the replicas answers, as far as this one knows.
    pub fn has_quorum(&self) -> bool {
        !self.0.observer.quorum.is_lost()
    }

    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.0.leadership.clone()
    }

    /// Whether this replica's state is found to be another than most replicas have: nothing of it should be shown.
    pub fn divergence(&self) -> watch::Receiver<Option<Divergence>> {
        self.0.observer.standing.watch()
    }

    /// Ends when this replica has stopped for a reason that only a person can remove, and says which.
    pub async fn failed(&self) -> String {
        let mut failure = self.0.failure.clone();
        loop {
            if let Some(reason) = failure.borrow_and_update().clone() {
                return reason;
            }
            if failure.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    pub fn status(&self) -> ReplicaStatus {
        self.0.observer.status()
    }

    /// How the log's database is.
    pub fn log_stats(&self) -> DatabaseStats {
        self.0.log.stats()
    }

    /// Every member's status, this replica's first.
    pub async fn cluster_status(&self) -> Vec<Result<ReplicaStatus, Unreachable>> {
        let mut all = vec![Ok(self.status())];
        all.extend(self.0.peers.statuses().await);
        all
    }

    /// Shows peers other certificates, from the next connection on. Says whether they are others than before.
    pub fn renew_tls(&self, tls: &PeerTls) -> Result<bool, StartError> {
        self.0.transport.renew(tls, self.name())
    }

    /// All members by name, as far as this replica knows. After a [`Replica::read_barrier`] that is all of them.
    pub fn members(&self) -> Vec<MemberInfo> {
        let raft = self.0.raft.metrics().borrow_watched().clone();
        membership::list(&raft.committed_membership_config, raft.current_leader)
    }

    /// Changes the members or the leader, through whoever leads.
    pub async fn manage(&self, operation: Operation, deadline: Instant) -> Result<(), ManageError> {
        self.0.manager.carry_out(&operation, deadline).await
    }

    /// What a replica that has been added needs to know to take part.
    pub fn invite(&self, incarnation: u64) -> Invitation {
        let members = self.members().into_iter().map(|info| (info.id, info.member)).collect();
        Invitation { cluster: self.0.observer.identity.cluster, incarnation, members }
    }

    /// Hands the leadership to the voter that has most of the log, and waits until it is taken over.
    pub async fn transfer_leadership(&self) -> Result<(), TransferError> {
        self.0.manager.hand_over(None).await
    }

    /// Takes no more proposals, lets those under way end, hands the leadership over, stops, and makes the state durable.
    pub async fn shutdown(&self) {
        self.0.proposer.close();
        let end = Instant::now() + HANDOVER;
        while self.0.proposer.pending() > 0
            && Instant::now() < end
            && self.has_quorum()
            && self.0.failure.borrow().is_none()
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        match self.transfer_leadership().await {
            Ok(()) | Err(TransferError::NotLeader | TransferError::NoTarget) => {}
            Err(error) => tracing::warn!(%error, "leaving as the leader"),
        }
        if let Err(error) = self.0.raft.shutdown().await {
            tracing::warn!(%error, "Raft did not stop cleanly");
        }
        drop(std::mem::take(&mut *self.0.running.lock()));
        let (store, log) = (self.0.store.clone(), self.0.log.clone());
        let flushed = host::blocking(move || {
            log.stop();
            store.flush()
        });
        match flushed.await {
            Ok(Ok(_)) => tracing::info!("the replica has stopped"),
            Ok(Err(error)) => tracing::warn!(%error, "the state was not made durable; the log will be replayed"),
            Err(error) => tracing::warn!(%error, "the state was not made durable; the log will be replayed"),
        }
    }

    /// Registers Raft's metrics. Once for each registry.
    pub fn register_metrics(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        let inner = Arc::downgrade(&self.0);
        let refresh = move |metrics: &Metrics| {
            if let Some(inner) = inner.upgrade() {
                inner.refresh(metrics);
            }
        };
        registry.register(Box::new(Scrape { metrics: self.0.metrics.clone(), refresh }))
    }
}

impl Observer {
    pub(crate) fn is_leader(&self) -> bool {
        self.leadership.borrow().is_leader
    }

    pub(crate) fn has_diverged(&self) -> bool {
        self.standing.has_diverged()
    }

    pub(crate) fn status(&self) -> ReplicaStatus {
        let raft = self.raft.metrics().borrow_watched().clone();
        let lost = self.quorum.is_lost();
        let role = match raft.state {
            _ if raft.running_state.is_err() => Role::Stopped,
            ServerState::Shutdown => Role::Stopped,
            _ if lost => Role::NoQuorum,
            ServerState::Leader => Role::Leader,
            ServerState::Follower => Role::Follower,
            ServerState::Candidate => Role::Candidate,
            ServerState::Learner => Role::Learner,
        };
        let leadership = self.leadership.borrow();
        let leader = leadership.leader.as_ref().filter(|_| !lost).map(|leader| leader.name.clone());
        let (revision, state_hash) = self.store.state_hash();
        ReplicaStatus {
            name: self.identity.name.clone(),
            id: self.identity.node,
            announced: self.announced.clone(),
            role,
            level: self.level,
            feature_level: level::of(&self.store),
            term: raft.current_term,
            leader,
            last_log_index: raft.last_log_index.unwrap_or(0),
            committed_index: index(&raft.cluster_committed),
            applied_index: self.store.applied().map_or(0, |position| position.index),
            revision,
            state_hash,
            diverged: self.has_diverged(),
            state_bytes: self.store.disk_size(),
            log_bytes: self.log.size(),
        }
    }
}

impl Inner {
    fn refresh(&self, metrics: &Metrics) {
        let raft = self.raft.metrics().borrow_watched().clone();
        let leadership = self.leadership.borrow().clone();
        metrics.term.set(raft.current_term as i64);
        metrics.is_leader.set(leadership.is_leader.into());
        metrics.has_leader.set(leadership.leader.is_some().into());
        metrics.has_quorum.set((!self.observer.quorum.is_lost()).into());
        metrics.last_log_index.set(raft.last_log_index.unwrap_or(0) as i64);
        metrics.committed_index.set(index(&raft.cluster_committed) as i64);
        metrics.applied_index.set(index(&raft.last_applied) as i64);
        metrics.purged_index.set(index(&raft.purged) as i64);
        metrics.state_diverged.set(self.observer.has_diverged().into());
        metrics.feature_level.set(level::of(&self.store).into());
        metrics.log_bytes.set(self.log.size() as i64);
        metrics.proposals_pending.set(self.proposer.pending() as i64);
        metrics.proposals_pending_bytes.set(self.proposer.pending_bytes() as i64);
        metrics.reads_waiting.set(self.barrier.waiting() as i64);
        metrics.writes_waiting.set(self.log.waiting() as i64);
        metrics.match_index.reset();
        for (id, matching) in raft.replication.unwrap_or_default() {
            if id != self.observer.identity.node {
                metrics.match_index.with_label_values(&[&self.peers.name_of(id)]).set(index(&matching) as i64);
            }
        }
    }
}

fn index(id: &Option<LogId>) -> u64 {
    id.as_ref().map_or(0, |id| id.index)
}

async fn open(config: &Config, metrics: Metrics) -> Result<(Log, Store), StartError> {
    let (dir, mut options) = (config.data_dir.clone(), config.storage);
    let log_budget = options.memory_budget / 3;
    options.memory_budget -= log_budget;
    let opening = host::blocking(move || {
        let path = dir.join("log");
        create_private_dir(&path).map_err(|source| StartError::Io { path: path.clone(), source })?;
        let log = Log::open(&path, log_budget, metrics)?;
        let store = Store::open(&dir.join("state"), options)?;
        Ok((log, store))
    });
    opening.await.map_err(|error| StartError::Thread(error.into()))?
}

fn raft_config(config: &Config) -> Result<Arc<openraft::Config>, StartError> {
    let millis = |duration: Duration| duration.as_millis() as u64;
    let timing = &config.timing;
    let raft = openraft::Config {
        cluster_name: "kontiki".into(),
        heartbeat_interval: millis(timing.heartbeat),
        election_timeout_min: millis(timing.election_min),
        election_timeout_max: millis(timing.election_max),
        install_snapshot_timeout: millis(timing.snapshot),
        enable_pre_vote: Some(true),
        // A leader that restarts may have applied more than its state shows: it must be elected to learn what is committed.
        enable_leader_restore: Some(false),
        broadcast_submitted_on_append: Some(true),
        // When the log is cut is decided here, by its bytes.
        snapshot_policy: openraft::SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX,
        replication_lag_threshold: u64::MAX,
        backoff: "20ms 40ms 80ms ..500ms".into(),
        ..openraft::Config::default()
    };
    Ok(Arc::new(raft.validate().map_err(|error| StartError::Config(error.to_string()))?))
}

/// Follows who leads, and whether Raft still runs, and tells the operator.
async fn watch_leadership(
    raft: Raft,
    peers: Peers,
    lead: watch::Sender<Leadership>,
    fail: Arc<watch::Sender<Option<String>>>,
    metrics: Metrics,
) {
    let mut changes = raft.server_metrics();
    let mut told = None;
    let mut without_since = None;
    loop {
        let now = {
            let server = changes.borrow_watched();
            peers.update(server.membership_config.nodes());
            let name = |id: NodeId| match server.membership_config.get_node(&id) {
                Some(member) => member.name.clone(),
                None => peers.name_of(id),
            };
            let leader = server.current_leader.map(|id| Leader { id, name: name(id) });
            let is_leader = server.state == ServerState::Leader && server.current_leader.as_ref() == Some(&server.id);
            Leadership { leader, is_leader, term: server.vote.leader_id.term }
        };
        lead.send_if_modified(|before| std::mem::replace(before, now.clone()) != now);
        let leader = now.leader.clone().map(|leader| (leader.name, now.term));
        let changed = match &leader {
            None if told.is_some() => {
                let since = *without_since.get_or_insert_with(Instant::now);
                timeout_at(since + ELECTION, changes.changed()).await.unwrap_or_else(|_| {
                    tracing::warn!(term = now.term, "no leader");
                    told = None;
                    Ok(())
                })
            }
            None => changes.changed().await,
            Some((name, term)) => {
                if leader != told {
                    match now.is_leader {
                        true => tracing::info!(term, name, "this replica leads"),
                        false => tracing::info!(term, leader = name, "following"),
                    }
                    metrics.leader_changes.inc();
                    told.clone_from(&leader);
                }
                without_since = None;
                changes.changed().await
            }
        };
        if changed.is_err() {
            break;
        }
    }
    lead.set(Leadership::default());
    let state = raft.metrics().borrow_watched().running_state.clone();
    if let Err(error) = state
        && !matches!(error, openraft::errors::Fatal::Stopped)
    {
        tracing::error!(%error, "this replica has stopped");
        fail.set(Some(error.to_string()));
    }
}

/// Stops the replica once its log can't be written. Raft itself hears of it only when it writes, and a replica that peers
/// don't speak with, since it can't write down who they are, may never come to that.
async fn watch_log(raft: Raft, log: Log, fail: Arc<watch::Sender<Option<String>>>) {
    let Ok(Some(reason)) = log.failure().wait_for(Option::is_some).await.map(|reason| reason.clone()) else { return };
    fail.set(Some(format!("the log can't be written: {reason}")));
    if let Err(error) = raft.shutdown().await {
        tracing::warn!(%error, "Raft did not stop cleanly");
    }
}

/// Stops the replica once a peer says that it is no member, or that it has lost its data.
async fn watch_for_exclusion(
    raft: Raft,
    log: Log,
    peers: Peers,
    leadership: watch::Receiver<Leadership>,
    fail: Arc<watch::Sender<Option<String>>>,
) {
    let mut excluded = peers.excluded();
    let why = loop {
        if let Ok(why) = timeout(LOOK, excluded.wait_for(Option::is_some)).await {
            match why {
                Ok(why) => break why.clone(),
                Err(_) => return,
            }
        }
        let lost = leadership.borrow().leader.is_none();
        if lost {
            peers.greet(LOOK).await;
        }
    };
    let reason = match why {
        Some(Exclusion::Removed(peer)) => {
            // So that a restart says the same even where nobody can be asked.
            if let Err(error) = log.put(REMOVED, REMOVED.to_vec()).await {
                tracing::warn!(%error, "the removal was not written down");
            }
            format!("it was removed from the cluster, as {peer} says")
        }
        Some(Exclusion::Wiped(peer)) => {
            format!("{peer} knows this replica with another data directory: it must not come back under its name")
        }
        None => return,
    };
    tracing::error!(reason, "this replica stops");
    fail.set(Some(reason));
    if let Err(error) = raft.shutdown().await {
        tracing::warn!(%error, "Raft did not stop cleanly");
    }
}

/// Has the others reach this replica where it listens now, if that is another address than they know.
async fn announce_address(raft: Raft, manager: Manager, peers: Peers, address: String) {
    let mut changes = raft.server_metrics();
    loop {
        let known = {
            let server = changes.borrow_watched();
            server.membership_config.get_node(&server.id).map(|member| (server.id, member.address.clone()))
        };
        match known {
            Some((_, known)) if known == address => return,
            Some((id, known)) => {
                let operation = Operation::Move { id, address: address.clone() };
                // The leader doesn't reach this replica, so it may not know who leads: all are asked.
                let step = match manager.here(&operation).await {
                    Step::Again => peers.manage_anywhere(&operation).await,
                    step => step,
                };
                match step {
                    Step::Done => tracing::info!(from = known, to = address, "peers know this replica's new address"),
                    Step::Refused(refusal) => {
                        tracing::error!(%refusal, address, "peers can't be told this replica's address");
                        return;
                    }
                    Step::Again | Step::Unclear => {}
                }
            }
            None => {}
        }
        if timeout(LOOK, changes.changed()).await.is_ok_and(|changed| changed.is_err()) {
            return;
        }
    }
}

/// Makes the state durable and cuts the log when it has grown.
struct Upkeep {
    raft: Raft,
    log: Log,
    limits: Limits,
    space: Arc<Space>,
    metrics: Metrics,
}

impl Upkeep {
    async fn run(self) {
        let mut ticks = tokio::time::interval(UPKEEP);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if self.look_at_log().await.is_err() {
                return;
            }
        }
    }

    async fn look_at_log(&self) -> Result<(), openraft::errors::Fatal<TypeConfig>> {
        let limits = &self.limits;
        let checkpoint = self.log.checkpoint();
        let applied = self.raft.metrics().borrow_watched().last_applied.map(|id| id.index);
        let due = limits.asks_for_checkpoint(self.log.since(checkpoint), checkpoint, applied);
        // A checkpoint writes before it gives anything back.
        if due && self.space.takes_entries() {
            let start = Instant::now();
            self.raft.trigger().snapshot().await?;
            self.log.wait_for_checkpoint(checkpoint).await;
            self.metrics.checkpoint_seconds.inc_by(start.elapsed().as_secs_f64());
        }
        let surplus = self.log.surplus(limits.trailing_bytes, limits.trailing_entries);
        if let Some(upto) = surplus.min(self.log.checkpoint())
            && upto > self.log.purged().unwrap_or(0)
        {
            self.raft.trigger().purge_log(upto).await?;
        }
        Ok(())
    }
}

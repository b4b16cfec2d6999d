//! The other replicas: connections to them, what is asked of them, and what they are answered.

pub(crate) mod fuzz;
mod http;
mod link;
mod message;
mod network;
mod server;
mod tls;
mod transport;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use hyper::StatusCode;
use kontiki_storage::{Revision, Store, Witness, codec};
use parking_lot::{Mutex, RwLock};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use self::link::Link;
#[cfg(not(test))]
use self::message::PROPOSE;
use self::message::{CAN_LEAD, DISMISS, Hello, MANAGE, ProposeAnswer, READ_INDEX, STATUS, WITNESS};
pub(crate) use self::transport::PeerError;
use crate::format::VoteForm;
use crate::identity::Identity;
use crate::level;
use crate::log::Log;
use crate::membership::{Operation, Step};
use crate::metrics::Metrics;
use crate::replica::{Announced, ReplicaStatus, Unreachable};
use crate::route::Answer;
use crate::types::{Batch, Member, NodeId};
use crate::watch;

pub(crate) use self::http::Http;
pub(crate) use self::network::Network;
pub(crate) use self::server::Service;
pub use self::tls::{MEMBER_DNS_NAME, MEMBER_ORGANIZATION, NotMember, PeerTls, member_common_name, member_name};
pub(crate) use self::transport::Transport;
#[cfg(test)]
pub(crate) use self::{
    message::{APPEND_STREAM, PROPOSE, SNAPSHOT},
    server::Caller,
    transport::{Body, Connection, Ended, full},
};

/// How long a leader may take for a batch before its answer is no longer waited for. Who leads may change before that.
const PROPOSE_TIMEOUT: Duration = Duration::from_secs(10);
/// A leader that hasn't confirmed a read by then is asked again: its answer may be lost, and all who read here wait for it.
const READ_INDEX_TIMEOUT: Duration = Duration::from_secs(1);
const STATUS_TIMEOUT: Duration = Duration::from_millis(800);
/// A leader that goes doesn't wait for a peer that takes longer.
const CAN_LEAD_TIMEOUT: Duration = Duration::from_millis(500);

/// This replica as its peers see it, and which of them it has met.
pub(crate) struct Me {
    hello: Hello,
    transport: Arc<dyn Transport>,
    log: Log,
    known: Mutex<BTreeMap<NodeId, u64>>,
    levels: Mutex<BTreeMap<NodeId, u32>>,
    store: Store,
    excluded: watch::Sender<Option<Exclusion>>,
    metrics: Metrics,
}

/// Why the others don't take this replica for a member, and which of them says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Exclusion {
    /// It was known with another data directory.
    Wiped(String),
    Removed(String),
}

/// Why a peer is not spoken with.
#[derive(Debug)]
enum Refusal {
    Stranger,
    Wiped,
    TooOld { has: u32, own: u32 },
    Log(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Stranger => f.write_str("it belongs to another cluster"),
            Refusal::Wiped => f.write_str("its data directory is not the one that it had"),
            Refusal::TooOld { has, own } => {
                write!(f, "its release knows feature levels up to {own}, and the cluster is at {has}")
            }
            Refusal::Log(error) => write!(f, "who it is can't be written down: {error}"),
        }
    }
}

impl Me {
    fn exclude(&self, why: Exclusion) {
        self.excluded.send_if_modified(|known| {
            let first = known.is_none();
            known.get_or_insert(why);
            first
        });
    }

    /// Whether the peer may be spoken with. Before the first word with it, which data directory it has is written down:
    /// it can't come back with an empty one and vote as if it had never seen what it acknowledged.
    async fn admit(&self, peer: &Hello) -> Result<(), Refusal> {
        if peer.cluster != self.hello.cluster {
            return Err(Refusal::Stranger);
        }
        let level = level::of(&self.store);
        if peer.level < level {
            return Err(Refusal::TooOld { has: level, own: peer.level });
        }
        let key = [&b"m/peer/"[..], &peer.node.to_be_bytes()].concat();
        let mut known = self.known.lock().get(&peer.node).copied();
        if known.is_none()
            && let Some(row) = self.log.get(&key).map_err(|error| Refusal::Log(error.to_string()))?
        {
            known = Some(codec::unseal(&key, &row).map_err(|error| Refusal::Log(error.to_string()))?);
        }
        match known {
            Some(incarnation) if incarnation != peer.incarnation => {
                tracing::error!(peer = peer.name, "a replica came back without the data that it had: it is refused");
                return Err(Refusal::Wiped);
            }
            Some(_) => {}
            None => {
                let row = codec::seal(&key, &peer.incarnation).map_err(|error| Refusal::Log(error.to_string()))?;
                self.log.put(&key, row).await.map_err(|error| Refusal::Log(error.to_string()))?;
            }
        }
        self.known.lock().insert(peer.node, peer.incarnation);
        self.levels.lock().insert(peer.node, peer.level);
        Ok(())
    }
}

/// A handle; clones are the same peers.
#[derive(Clone)]
pub(crate) struct Peers(Arc<Shared>);

struct Shared {
    me: Arc<Me>,
    all: RwLock<BTreeMap<NodeId, Arc<Peer>>>,
}

/// Two connections to one replica: what must be quick doesn't wait behind what is long.
struct Peer {
    control: Link,
    bulk: Link,
    /// It takes no entries, since it has no space for them.
    full: AtomicBool,
}

impl Peers {
    pub(crate) fn new(
        identity: &Identity,
        level: u32,
        announced: Announced,
        transport: Arc<dyn Transport>,
        log: Log,
        store: Store,
        metrics: Metrics,
    ) -> Peers {
        let hello = Hello {
            cluster: identity.cluster,
            node: identity.node,
            name: identity.name.clone(),
            incarnation: identity.incarnation,
            level,
            announced,
        };
        let me = Me {
            hello,
            transport,
            log,
            known: Mutex::default(),
            levels: Mutex::default(),
            store,
            excluded: watch::Sender::new(None),
            metrics,
        };
        Peers(Arc::new(Shared { me: Arc::new(me), all: RwLock::default() }))
    }

    /// Takes note of who is a member, and where. Whoever isn't any more is forgotten, unless nobody is known yet.
    pub(crate) fn update<'a>(&self, members: impl Iterator<Item = (&'a NodeId, &'a Member)>) {
        let mut ids = BTreeSet::new();
        for (id, member) in members {
            ids.insert(*id);
            if *id != self.0.me.hello.node {
                self.peer(*id, member);
            }
        }
        if !ids.is_empty() {
            self.0.all.write().retain(|id, _| ids.contains(id));
        }
    }

    /// Filled once a peer doesn't take this replica for a member.
    pub(crate) fn excluded(&self) -> watch::Receiver<Option<Exclusion>> {
        self.0.me.excluded.subscribe()
    }

    /// Asks all how they are: that is how this replica hears that it is no member.
    pub(crate) async fn greet(&self, within: Duration) {
        // Whoever can't be reached is greeted when it is first needed.
        let _ = tokio::time::timeout(within, self.statuses()).await;
    }

    /// What a peer could apply when it last said hello. None: it hasn't yet.
    pub(crate) fn level_of(&self, id: NodeId) -> Option<u32> {
        self.0.me.levels.lock().get(&id).copied()
    }

    pub(crate) fn name_of(&self, id: NodeId) -> String {
        match self.0.all.read().get(&id) {
            Some(peer) => peer.control.member.name.clone(),
            None => id.to_string(),
        }
    }

    pub(crate) async fn propose(&self, leader: NodeId, batch: &Batch) -> Answer {
        let Some(peer) = self.get(leader) else { return Answer::NotTaken };
        let deadline = Instant::now() + PROPOSE_TIMEOUT;
        let answer = peer.control.call(PROPOSE, batch.bytes().to_vec(), deadline).await;
        match answer.map(|bytes| codec::decode(&bytes)) {
            Ok(Ok(ProposeAnswer::Outcomes(outcomes))) => Answer::Outcomes(outcomes),
            Ok(Ok(ProposeAnswer::NotTaken)) | Err(PeerError::Unreachable(_) | PeerError::Refused { .. }) => {
                Answer::NotTaken
            }
            Ok(Ok(ProposeAnswer::NoSpace)) => Answer::NoSpace,
            Ok(Ok(ProposeAnswer::Unclear) | Err(_)) | Err(PeerError::Lost(_) | PeerError::Timeout) => Answer::Unclear,
        }
    }

    /// The index that the leader confirms; None: it doesn't lead, or can't be reached. `vote` is what this replica's vote
    /// was after the readers came.
    pub(crate) async fn read_index(&self, leader: NodeId, vote: VoteForm) -> Option<u64> {
        let peer = self.get(leader)?;
        let start = Instant::now();
        let bytes = peer.control.call(READ_INDEX, codec::encode(&vote).ok()?, start + READ_INDEX_TIMEOUT).await.ok()?;
        self.0.me.metrics.peer_seconds.observe(start.elapsed().as_secs_f64());
        codec::decode::<Option<u64>>(&bytes).ok()?
    }

    /// Asks the leader for a change of members or leader.
    pub(crate) async fn manage(&self, leader: NodeId, operation: &Operation) -> Step {
        let Some(peer) = self.get(leader) else { return Step::Again };
        match ask(&peer.control, MANAGE, operation, PROPOSE_TIMEOUT).await {
            Ok(step) => step,
            Err(PeerError::Unreachable(_) | PeerError::Refused { .. }) => Step::Again,
            Err(PeerError::Lost(_) | PeerError::Timeout) => Step::Unclear,
        }
    }

    /// Asks all: one of them leads.
    pub(crate) async fn manage_anywhere(&self, operation: &Operation) -> Step {
        let all: Vec<_> = self.0.all.read().keys().copied().collect();
        let steps = join_all(all.into_iter().map(|id| self.manage(id, operation))).await;
        steps.into_iter().find(|step| matches!(step, Step::Done | Step::Refused(_))).unwrap_or(Step::Again)
    }

    /// Tells a replica that it is no member any more. If it can't be reached it hears so when it asks for something.
    pub(crate) async fn dismiss(&self, id: NodeId, member: &Member) {
        let link = Link::new(self.0.me.clone(), id, member.clone(), false);
        if let Err(error) = link.call(DISMISS, Vec::new(), Instant::now() + STATUS_TIMEOUT).await {
            tracing::info!(peer = member.name, %error, "a removed replica was not told");
        }
    }

    pub(crate) async fn statuses(&self) -> Vec<Result<ReplicaStatus, Unreachable>> {
        let all: Vec<_> = self.0.all.read().values().cloned().collect();
        let ask = all.iter().map(|peer| async {
            let deadline = Instant::now() + STATUS_TIMEOUT;
            let answer = peer.control.call(STATUS, Vec::new(), deadline).await;
            let answer = answer.map_err(|error| error.to_string());
            answer.and_then(|bytes| codec::decode(&bytes).map_err(|error| error.to_string())).map_err(|error| {
                let Member { name, address } = peer.control.member.clone();
                Unreachable { name, address, error }
            })
        });
        join_all(ask).await
    }

    /// What the others say of the revision, those that know it.
    pub(crate) async fn witnesses(&self, revision: Revision, within: Duration) -> BTreeMap<NodeId, Witness> {
        let all: Vec<_> = self.0.all.read().values().cloned().collect();
        let ask = all.iter().map(|peer| async {
            let witness = ask::<_, Option<Witness>>(&peer.control, WITNESS, &revision, within).await.ok()??;
            Some((peer.control.id, witness))
        });
        join_all(ask).await.into_iter().flatten().collect()
    }

    /// Those of these replicas that answer, and whether they would lead.
    pub(crate) async fn ready_to_lead(&self, ids: &[NodeId]) -> BTreeMap<NodeId, bool> {
        let ask = ids.iter().map(|id| async {
            match ask::<_, bool>(&self.get(*id)?.control, CAN_LEAD, &(), CAN_LEAD_TIMEOUT).await {
                Ok(ready) => Some((*id, ready)),
                // One that is not asked yet by its release.
                Err(PeerError::Refused { status: StatusCode::NOT_FOUND, .. }) => Some((*id, true)),
                Err(_) => None,
            }
        });
        join_all(ask).await.into_iter().flatten().collect()
    }

    /// The peer was heard of: it is tried again at once.
    pub(crate) fn retry(&self, id: NodeId) {
        if let Some(peer) = self.get(id) {
            peer.control.retry();
            peer.bulk.retry();
        }
    }

    /// As far as the peer has said.
    pub(crate) fn has_room(&self, id: NodeId) -> bool {
        self.get(id).is_none_or(|peer| !peer.full.load(Ordering::Relaxed))
    }

    fn get(&self, id: NodeId) -> Option<Arc<Peer>> {
        self.0.all.read().get(&id).cloned()
    }

    fn peer(&self, id: NodeId, member: &Member) -> Arc<Peer> {
        if let Some(peer) = self.get(id).filter(|peer| peer.control.member == *member) {
            return peer;
        }
        let link = |announces| Link::new(self.0.me.clone(), id, member.clone(), announces);
        let peer = Arc::new(Peer { control: link(true), bulk: link(false), full: AtomicBool::new(false) });
        self.0.all.write().insert(id, peer.clone());
        peer
    }
}

/// A call with a typed question and answer.
async fn ask<Q: Serialize, A: DeserializeOwned>(
    link: &Link,
    path: &'static str,
    question: &Q,
    within: Duration,
) -> Result<A, PeerError> {
    let message = codec::encode(question).map_err(|error| PeerError::Unreachable(error.to_string()))?;
    let bytes = link.call(path, message, Instant::now() + within).await?;
    codec::decode(&bytes).map_err(|error| PeerError::Lost(error.to_string()))
}

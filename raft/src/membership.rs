//! Who is a member: what can be asked for, what speaks against it, and how whoever leads carries it out. Voters come and go
//! one at a time, each change as one log entry: any majority of the old voters meets any majority of the new ones.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::errors::{ChangeMembershipError, ClientWriteError, RaftError};
use openraft::raft::Precondition;
use openraft::{ChangeMembers, Instant as _, RaftMetrics, ServerState};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use crate::identity::joined_id;
use crate::replica::TransferError;
use crate::route::{Route, pause};
use crate::types::{Member, Membership, NodeId, Payload, StoredMembership, TypeConfig};

/// A member that has answered the leader within this time can be reached.
const REACHABLE: Duration = Duration::from_millis(1500);
/// How often a leader looks whether it has heard from more members.
const LOOK: Duration = Duration::from_millis(50);
/// A learner that lacks more entries than this is not promoted: the cluster would wait for it.
const BEHIND: u64 = 1000;
/// How long a leader that goes waits for another to take over.
pub(crate) const HANDOVER: Duration = Duration::from_secs(2);

/// A change of who is a member or who leads. Each can be asked for again after an unclear end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operation {
    /// Adds a learner. Its id follows from its name and its data directory's incarnation, so that a name that comes back
    /// with another directory is another member.
    Add {
        name: String,
        address: String,
        incarnation: u64,
    },
    /// Makes a voter of a learner that has caught up.
    Promote {
        name: String,
    },
    Remove {
        name: String,
    },
    /// A member is reached at another address from now on.
    Move {
        id: NodeId,
        address: String,
    },
    /// Hands the leadership to this voter, or to any other than the one that leads.
    Lead {
        name: Option<String>,
    },
}

/// What speaks against an operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    #[error("there is no member {0}")]
    NotFound(String),
    #[error(
        "{0} is a member already, with another data directory; if that one is lost, remove the member first \
         (kontiki member remove {0})"
    )]
    NameTaken(String),
    #[error("{address} is the peer address of {name}")]
    AddressTaken { name: String, address: String },
    #[error("{0} is the only voter: without it there is no cluster")]
    LastVoter(String),
    #[error(
        "of the {voters} voters that there would be only {} can be reached ({}), and a quorum is {quorum}",
        reachable.len(),
        if reachable.is_empty() { "none".to_owned() } else { reachable.join(", ") }
    )]
    Quorum { voters: usize, quorum: usize, reachable: Vec<String> },
    #[error("{0} can't be reached by the leader")]
    Unreachable(String),
    #[error("{name} has not caught up: it lacks {entries} entries of the log")]
    Behind { name: String, entries: u64 },
    #[error("{0} is a learner: only a voter can lead")]
    Learner(String),
    #[error("there is no other voter that could lead")]
    NoTarget,
    #[error("the leadership was not taken over in time")]
    NotTakenOver,
    #[error("{0} would not lead: it does not answer, has no space on its disk or has diverged")]
    NotReady(String),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManageError {
    #[error("{0}")]
    Refused(Refusal),
    #[error("no leader has carried it out in time")]
    NotDone,
    #[error("no leader has confirmed it in time; it may have been carried out, or may be yet")]
    Unclear,
}

/// What came of one attempt.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Step {
    Done,
    /// Not here, or not now.
    Again,
    Unclear,
    Refused(Refusal),
}

/// A member and its part in the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberInfo {
    pub id: NodeId,
    pub member: Member,
    pub voter: bool,
    pub leader: bool,
}

/// A handle; clones are the same.
#[derive(Clone)]
pub(crate) struct Manager(Arc<Shared>);

struct Shared {
    route: Route,
    /// One operation at a time.
    turn: Mutex<()>,
}

impl Manager {
    pub(crate) fn new(route: Route) -> Manager {
        Manager(Arc::new(Shared { route, turn: Mutex::default() }))
    }

    /// Asks one leader after another until one has carried it out or says what speaks against it.
    pub(crate) async fn carry_out(&self, operation: &Operation, until: Instant) -> Result<(), ManageError> {
        let route = &self.0.route;
        let mut unclear = false;
        let mut leadership = route.leadership.clone();
        loop {
            let step =
                route.at_leader(&mut leadership, until, || Step::Unclear, |leader| self.ask(leader, operation)).await;
            match step.unwrap_or(Step::Again) {
                Step::Done => return Ok(()),
                // It is gone because an earlier attempt has removed it.
                Step::Refused(Refusal::NotFound(_)) if unclear && matches!(operation, Operation::Remove { .. }) => {
                    return Ok(());
                }
                // The leader that was lost meanwhile has handed over.
                Step::Unclear if matches!(operation, Operation::Lead { name: None }) => return Ok(()),
                Step::Refused(refusal) => return Err(ManageError::Refused(refusal)),
                Step::Again => {}
                Step::Unclear => unclear = true,
            }
            if !pause(&mut leadership, until).await {
                return Err(if unclear { ManageError::Unclear } else { ManageError::NotDone });
            }
        }
    }

    async fn ask(&self, leader: Option<NodeId>, operation: &Operation) -> Step {
        match leader {
            // On a task of its own: whoever asked may go when the leader changes.
            None => {
                let (this, operation) = (self.clone(), operation.clone());
                tokio::spawn(async move { this.here(&operation).await }).await.unwrap_or(Step::Unclear)
            }
            Some(leader) => self.0.route.peers.manage(leader, operation).await,
        }
    }

    /// Carries the operation out, if this replica leads.
    pub(crate) async fn here(&self, operation: &Operation) -> Step {
        let _turn = self.0.turn.lock().await;
        let patience = Instant::now() + REACHABLE;
        loop {
            match self.attempt(operation).await {
                // A new leader has not heard from everybody yet; a new learner may be about to catch up.
                Step::Refused(Refusal::Quorum { .. } | Refusal::Unreachable(_) | Refusal::Behind { .. })
                    if Instant::now() < patience =>
                {
                    tokio::time::sleep(LOOK).await;
                }
                step => return step,
            }
        }
    }

    async fn attempt(&self, operation: &Operation) -> Step {
        let raft = &self.0.route.raft;
        let metrics = raft.metrics().borrow_watched().clone();
        if metrics.state != ServerState::Leader
            || metrics.membership_config.log_id() != metrics.committed_membership_config.log_id()
        {
            return Step::Again;
        }
        let found = Situation { metrics: &metrics, nodes: metrics.membership_config.nodes().collect() };
        let change = match found.decide(operation) {
            Ok(change) => change,
            Err(refusal) => return Step::Refused(refusal),
        };
        let step = match change {
            Change::None => return Step::Done,
            Change::HandOver { to, then } => {
                return match self.hand_over(to).await {
                    Ok(()) => then,
                    Err(TransferError::NotLeader) => Step::Again,
                    Err(TransferError::NoTarget) => Step::Refused(match to {
                        Some(to) => Refusal::NotReady(self.0.route.peers.name_of(to)),
                        None => Refusal::NoTarget,
                    }),
                    Err(TransferError::Timeout) => Step::Refused(Refusal::NotTakenOver),
                };
            }
            Change::Address(id, member) => {
                let change = ChangeMembers::SetNodes(BTreeMap::from([(id, member)]));
                let unchanged =
                    Precondition::LastMembershipLogId { last_membership_log_id: *metrics.membership_config.log_id() };
                answer(raft.change_membership_if(change, true, [unchanged]).await.map(drop))
            }
            Change::To(membership) => {
                let unchanged =
                    Precondition::LastMembershipLogId { last_membership_log_id: *metrics.membership_config.log_id() };
                answer(raft.append_membership(membership, Payload::Blank, [unchanged]).await.map(drop))
            }
        };
        if let Step::Done = step {
            tracing::info!(?operation, "the membership has changed");
            if let Operation::Remove { name } = operation
                && let Some((id, member)) = found.named(name)
            {
                let (peers, id, member) = (self.0.route.peers.clone(), *id, (*member).clone());
                tokio::spawn(async move { peers.dismiss(id, &member).await });
            }
        }
        step
    }

    /// Hands the leadership to `to`, or else to the voter that has most of the log, and waits until it is taken over. To
    /// one that answers, has the right state and room for entries, and only where it can be elected: a leader that has
    /// begun to hand over takes no more proposals.
    pub(crate) async fn hand_over(&self, to: Option<NodeId>) -> Result<(), TransferError> {
        let route = &self.0.route;
        let raft = route.raft.metrics().borrow_watched().clone();
        if raft.state != ServerState::Leader {
            return Err(TransferError::NotLeader);
        }
        let voters: Vec<_> = raft.membership_config.voter_ids().filter(|id| *id != raft.id).collect();
        let answers = route.peers.ready_to_lead(&voters).await;
        // With this replica's own vote they must be a quorum.
        if answers.len() < voters.len().div_ceil(2) {
            return Err(TransferError::NoTarget);
        }
        let ready = answers.into_iter().filter(|(id, ready)| *ready && to.is_none_or(|to| to == *id)).map(|(id, _)| id);
        let ready: Vec<_> = ready.collect();
        let patience = Instant::now() + REACHABLE;
        let to = loop {
            let raft = route.raft.metrics().borrow_watched().clone();
            if raft.state != ServerState::Leader {
                return Err(TransferError::NotLeader);
            }
            let situation = Situation { metrics: &raft, nodes: BTreeMap::new() };
            let last = raft.last_log_index.unwrap_or(0);
            // Nobody would lead until it had caught up.
            let near = |id: &&NodeId| last.saturating_sub(situation.matching(**id).unwrap_or(0)) <= BEHIND;
            match ready.iter().filter(near).max_by_key(|id| situation.matching(**id)) {
                Some(to) => break *to,
                // A new leader doesn't know yet what the others have.
                None if !ready.is_empty() && Instant::now() < patience => tokio::time::sleep(LOOK).await,
                None => return Err(TransferError::NoTarget),
            }
        };
        let mut leadership = route.leadership.clone();
        tracing::info!(to = route.peers.name_of(to), "handing the leadership over");
        route.transfer_leader(to).await.map_err(|_| TransferError::NotLeader)?;
        let taken = leadership.wait_for(|now| !now.is_leader && now.leader.is_some());
        match timeout(HANDOVER, taken).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(TransferError::Timeout),
        }
    }
}

fn answer(result: Result<(), RaftError<TypeConfig, ClientWriteError<TypeConfig>>>) -> Step {
    match result {
        Ok(()) => Step::Done,
        Err(RaftError::APIError(ClientWriteError::ChangeMembershipError(
            error @ (ChangeMembershipError::EmptyMembership(_)
            | ChangeMembershipError::LearnerNotFound(_)
            | ChangeMembershipError::UnsupportedMembershipTransition(_)
            | ChangeMembershipError::NodeMetadataChanged(_)),
        ))) => {
            tracing::error!(%error, "a change of the membership was decided that Raft refuses");
            Step::Again
        }
        // Another leads, or changes the membership, or the leader is too new to.
        Err(RaftError::APIError(_)) => Step::Again,
        Err(RaftError::Fatal(_)) => Step::Unclear,
    }
}

/// What an operation comes to.
enum Change {
    None,
    To(Membership),
    Address(NodeId, Member),
    /// The leadership goes first; what is to be said when it has.
    HandOver {
        to: Option<NodeId>,
        then: Step,
    },
}

/// The cluster as its leader sees it.
struct Situation<'a> {
    metrics: &'a RaftMetrics<TypeConfig>,
    nodes: BTreeMap<&'a NodeId, &'a Member>,
}

impl Situation<'_> {
    fn decide(&self, operation: &Operation) -> Result<Change, Refusal> {
        let voters: BTreeSet<NodeId> = self.metrics.membership_config.voter_ids().collect();
        match operation {
            Operation::Add { name, address, incarnation } => {
                let id = joined_id(name, *incarnation);
                if self.nodes.contains_key(&id) {
                    return Ok(Change::None);
                }
                if self.named(name).is_some() {
                    return Err(Refusal::NameTaken(name.clone()));
                }
                self.address_is_free(id, address)?;
                let learner = Member { name: name.clone(), address: address.clone() };
                let nodes = self.all().chain([(id, learner)]).collect();
                self.change(voters, nodes)
            }
            Operation::Promote { name } => {
                let (id, _) = self.named(name).ok_or_else(|| Refusal::NotFound(name.clone()))?;
                if voters.contains(id) {
                    return Ok(Change::None);
                }
                if !self.reaches(*id) {
                    return Err(Refusal::Unreachable(name.clone()));
                }
                let last = self.metrics.last_log_index.unwrap_or(0);
                let entries = last.saturating_sub(self.matching(*id).unwrap_or(0));
                if entries > BEHIND {
                    return Err(Refusal::Behind { name: name.clone(), entries });
                }
                let voters = voters.into_iter().chain([*id]).collect();
                self.check_quorum(&voters)?;
                self.change(voters, self.all().collect())
            }
            Operation::Remove { name } => {
                let (id, _) = self.named(name).ok_or_else(|| Refusal::NotFound(name.clone()))?;
                let left: BTreeSet<_> = voters.iter().copied().filter(|voter| voter != id).collect();
                if left.is_empty() {
                    return Err(Refusal::LastVoter(name.clone()));
                }
                if voters.contains(id) {
                    self.check_quorum(&left)?;
                }
                if *id == self.metrics.id {
                    return Ok(Change::HandOver { to: None, then: Step::Again });
                }
                self.change(left, self.all().filter(|(node, _)| node != id).collect())
            }
            Operation::Move { id, address } => {
                let member = self.nodes.get(id).ok_or_else(|| Refusal::NotFound(id.to_string()))?;
                if member.address == *address {
                    return Ok(Change::None);
                }
                self.address_is_free(*id, address)?;
                Ok(Change::Address(*id, Member { address: address.clone(), ..(*member).clone() }))
            }
            Operation::Lead { name: None } => Ok(Change::HandOver { to: None, then: Step::Done }),
            Operation::Lead { name: Some(name) } => {
                let (id, _) = self.named(name).ok_or_else(|| Refusal::NotFound(name.clone()))?;
                if *id == self.metrics.id {
                    return Ok(Change::None);
                }
                if !voters.contains(id) {
                    return Err(Refusal::Learner(name.clone()));
                }
                if !self.reaches(*id) {
                    return Err(Refusal::Unreachable(name.clone()));
                }
                Ok(Change::HandOver { to: Some(*id), then: Step::Done })
            }
        }
    }

    fn change(&self, voters: BTreeSet<NodeId>, nodes: BTreeMap<NodeId, Member>) -> Result<Change, Refusal> {
        // Every voter was a node before, and is one now.
        Membership::new(vec![voters], nodes).map(Change::To).map_err(|error| Refusal::NotFound(error.to_string()))
    }

    fn all(&self) -> impl Iterator<Item = (NodeId, Member)> {
        self.nodes.iter().map(|(id, member)| (**id, (*member).clone()))
    }

    fn named(&self, name: &str) -> Option<(&NodeId, &Member)> {
        self.nodes.iter().find(|(_, member)| member.name == name).map(|(id, member)| (*id, *member))
    }

    fn address_is_free(&self, id: NodeId, address: &str) -> Result<(), Refusal> {
        match self.nodes.iter().find(|(node, member)| ***node != id && member.address == address) {
            Some((_, member)) => Err(Refusal::AddressTaken { name: member.name.clone(), address: address.to_owned() }),
            None => Ok(()),
        }
    }

    fn check_quorum(&self, voters: &BTreeSet<NodeId>) -> Result<(), Refusal> {
        let quorum = voters.len() / 2 + 1;
        let reachable: Vec<_> = voters.iter().filter(|id| self.reaches(**id)).collect();
        if reachable.len() >= quorum {
            return Ok(());
        }
        let name = |id: &NodeId| self.nodes.get(id).map_or(id.to_string(), |member| member.name.clone());
        Err(Refusal::Quorum { voters: voters.len(), quorum, reachable: reachable.into_iter().map(name).collect() })
    }

    fn reaches(&self, id: NodeId) -> bool {
        let answered = self.metrics.heartbeat.as_ref().and_then(|all| all.get(&id).copied().flatten());
        id == self.metrics.id || answered.is_some_and(|at| at.elapsed() < REACHABLE)
    }

    /// The last entry that a member is known to have.
    fn matching(&self, id: NodeId) -> Option<u64> {
        self.metrics.replication.as_ref().and_then(|all| all.get(&id).copied().flatten()).map(|id| id.index)
    }
}

/// All members, by name.
pub(crate) fn list(membership: &StoredMembership, leader: Option<NodeId>) -> Vec<MemberInfo> {
    let voters: BTreeSet<NodeId> = membership.voter_ids().collect();
    let mut all: Vec<_> = membership
        .nodes()
        .map(|(id, member)| MemberInfo {
            id: *id,
            member: member.clone(),
            voter: voters.contains(id),
            leader: leader == Some(*id),
        })
        .collect();
    all.sort_by(|a, b| a.member.name.cmp(&b.member.name));
    all
}

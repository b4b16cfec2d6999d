//! The way to whoever leads: this replica itself, or a peer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use kontiki_storage::Outcome;
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::errors::{ClientWriteError, Fatal, RaftError};
use openraft::{ReadPolicy, ServerState};
use tokio::time::{Instant, sleep_until};

use crate::config::Reads;
use crate::format::VoteForm;
use crate::log::Log;
use crate::machine::Machine;
use crate::metrics::Metrics;
use crate::peer::Peers;
use crate::quorum::Quorum;
use crate::strand::Strand;
use crate::types::{Batch, NodeId, TypeConfig, Vote};
use crate::watch;

pub(crate) type Raft = openraft::Raft<TypeConfig, Machine>;

/// How long to wait before the same leader is asked again, if no other appears.
const PAUSE: Duration = Duration::from_millis(10);

/// Who leads, as far as this replica knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Leadership {
    pub leader: Option<Leader>,
    /// The leader is this replica.
    pub is_leader: bool,
    pub term: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leader {
    pub id: NodeId,
    pub name: String,
}

/// What came of one attempt to propose a batch.
#[derive(Debug)]
pub(crate) enum Answer {
    Outcomes(Vec<Outcome>),
    /// It is in no log.
    NotTaken,
    /// It may have been appended.
    Unclear,
    /// The leader has no space for it; it is in no log.
    NoSpace,
}

/// What came of all attempts.
pub(crate) struct Delivery {
    pub(crate) answer: Answer,
    /// How many attempts before the last may have been appended.
    pub(crate) unclear: usize,
}

#[derive(Clone)]
pub(crate) struct Route {
    pub(crate) raft: Raft,
    pub(crate) strand: Strand,
    pub(crate) log: Log,
    pub(crate) peers: Peers,
    pub(crate) leadership: watch::Receiver<Leadership>,
    pub(crate) reads: Reads,
    /// The last term in which this replica led and allowed another to stand for election at once.
    pub(crate) transferred: Arc<AtomicU64>,
    pub(crate) quorum: Quorum,
    pub(crate) metrics: Metrics,
}

impl Route {
    /// Proposes the batch to one leader after another until one answers or the time is over.
    pub(crate) async fn deliver(&self, batch: &Batch, until: Instant) -> Delivery {
        let mut unclear = 0;
        let mut leadership = self.leadership.clone();
        loop {
            let answer =
                self.at_leader(&mut leadership, until, || Answer::Unclear, |leader| self.propose(leader, batch)).await;
            match answer.unwrap_or(Answer::NotTaken) {
                Answer::NotTaken => {}
                Answer::Unclear => unclear += 1,
                answer => return Delivery { answer, unclear },
            }
            if !pause(&mut leadership, until).await {
                return Delivery { answer: if unclear > 0 { Answer::Unclear } else { Answer::NotTaken }, unclear };
            }
            self.metrics.proposal_retries.inc();
        }
    }

    /// The index that a read must wait for, from one leader after another. None: the time was over.
    pub(crate) async fn read_index(&self, until: Instant) -> Option<u64> {
        let mut leadership = self.leadership.clone();
        loop {
            let index = self.at_leader(&mut leadership, until, || None, |leader| self.confirm(leader)).await;
            if let Some(Some(index)) = index {
                self.quorum.proved();
                return Some(index);
            }
            if !pause(&mut leadership, until).await {
                return None;
            }
        }
    }

    /// Asks the current leader, if there is one, for as long as it is the leader. `leadership` has been seen up to then.
    pub(crate) async fn at_leader<T, F: Future<Output = T>>(
        &self,
        leadership: &mut watch::Receiver<Leadership>,
        until: Instant,
        lost: impl Fn() -> T,
        ask: impl FnOnce(Option<NodeId>) -> F,
    ) -> Option<T> {
        let now = leadership.borrow_and_update().clone();
        let mut leadership = leadership.clone();
        let leader = if now.is_leader { None } else { Some(now.leader.as_ref()?.id) };
        let ended = async {
            // An error means that the replica has stopped: the same end.
            drop(leadership.wait_for(|current| *current != now).await);
        };
        tokio::select! {
            biased;
            answer = ask(leader) => Some(answer),
            () = ended => Some(lost()),
            () = sleep_until(until) => Some(lost()),
        }
    }

    /// `leader` is None where it is this replica. In boxes: what is large is moved with each future around it.
    async fn propose(&self, leader: Option<NodeId>, batch: &Batch) -> Answer {
        match leader {
            None => self.strand.with(Box::pin(propose_here(&self.raft, batch.clone()))).await,
            Some(leader) => Box::pin(self.peers.propose(leader, batch)).await,
        }
    }

    /// Lets `to` stand for election at once, whatever the voters promised this leader: its lease is worth nothing for the
    /// rest of its term.
    pub(crate) async fn transfer_leader(&self, to: NodeId) -> Result<(), Fatal<TypeConfig>> {
        let term = self.raft.metrics().borrow_watched().current_term;
        self.transferred.fetch_max(term, Ordering::AcqRel);
        self.raft.trigger().transfer_leader(to).await
    }

    /// The index that a read at `voter` must wait for, if this replica leads and the two are a quorum: `vote` is the voter's,
    /// from after the read began. As long as it is for this leader no other was elected before, so whatever has been
    /// acknowledged by then is committed here. Nobody else needs to be asked: the request is what a heartbeat's answer would
    /// be (Raft, section 6.4, step 2).
    pub(crate) async fn vouched(&self, voter: NodeId, vote: Vote) -> Option<u64> {
        let index = self.raft.with_raft_state(move |state| {
            let own = state.vote_ref();
            let membership = state.membership_state.effective().membership();
            let quorum = membership.get_joint_config().iter().all(|voters| {
                let agreed = [own.leader_id.node_id, voter].iter().filter(|id| voters.contains(id)).count();
                agreed > voters.len() / 2
            });
            let committed = state.local_committed()?;
            let leads = state.server_state == ServerState::Leader && own.committed && own.leader_id == vote.leader_id;
            // What this leader took over is committed with the first entry of its own.
            (quorum && leads && committed.leader_id == own.leader_id).then_some(committed.index)
        });
        self.strand.with(Box::pin(index)).await.ok()?
    }

    async fn confirm(&self, leader: Option<NodeId>) -> Option<u64> {
        match leader {
            None => {
                if let Some(index) = self.log.alone() {
                    return Some(index);
                }
                self.metrics.read_rounds.inc();
                if self.raft.server_metrics().borrow_watched().membership_config.nodes().count() == 1 {
                    return alone(&self.raft, &self.log).await;
                }
                let term = self.leadership.borrow().term;
                let leased = self.reads == Reads::Lease && term > self.transferred.load(Ordering::Acquire);
                let policy = if leased { ReadPolicy::LeaseRead } else { ReadPolicy::ReadIndex };
                let linearizer = Box::pin(self.raft.get_read_linearizer(policy)).await.ok()?;
                Some(linearizer.read_log_id().index())
            }
            Some(leader) => {
                let vote = self.log.vote()?;
                Box::pin(self.peers.read_index(leader, VoteForm::from(&vote))).await
            }
        }
    }
}

/// The index that a read must wait for, if this replica leads and is the only member; the log keeps it in mind for as long as
/// that is so. What was acknowledged before is committed here, and what will be is shown here first.
async fn alone(raft: &Raft, log: &Log) -> Option<u64> {
    let log = log.clone();
    let index = raft.with_raft_state(move |state| {
        let own = state.vote_ref();
        let leads = state.server_state == ServerState::Leader && own.committed;
        let mut nodes = state.membership_state.effective().membership().nodes().map(|(id, _)| *id);
        let only = nodes.next() == Some(own.leader_id.node_id) && nodes.next().is_none();
        let committed = state.local_committed().filter(|id| leads && only && id.leader_id == own.leader_id)?;
        log.set_alone(committed.index);
        Some(committed.index)
    });
    index.await.ok()?
}

/// Waits a moment, or for another leader than was asked last. False: the time is over, or the replica has stopped.
pub(crate) async fn pause(leadership: &mut watch::Receiver<Leadership>, until: Instant) -> bool {
    let end = until.min(Instant::now() + PAUSE);
    tokio::select! {
        biased;
        changed = leadership.changed() => changed.is_ok(),
        () = sleep_until(end) => end < until,
    }
}

/// Proposes to the Raft of this process.
pub(crate) async fn propose_here(raft: &Raft, batch: Batch) -> Answer {
    match raft.client_write(batch).await {
        Ok(response) => Answer::Outcomes(response.data),
        Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_))) => Answer::NotTaken,
        Err(_) => Answer::Unclear,
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    /// A retry that never waits fills the log of a leader whose answers get lost.
    #[tokio::test]
    async fn a_pause_ends_early_only_for_another_leader() {
        let (sender, receiver) = watch::channel(Leadership::default());
        let mut leadership = receiver.clone();
        sender.set(Leadership { term: 1, ..Leadership::default() });
        drop(leadership.borrow_and_update());
        let (start, until) = (Instant::now(), Instant::now() + Duration::from_secs(1));
        assert!(pause(&mut leadership, until).await);
        assert!(start.elapsed() >= PAUSE);
        sender.set(Leadership { term: 2, ..Leadership::default() });
        assert!(matches!(pause(&mut leadership, until).now_or_never(), Some(true)));
        drop(sender);
        assert!(!pause(&mut leadership, until).await);
    }
}

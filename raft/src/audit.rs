//! Replicas compare their states. Each asks the others every now and then for the hash of their state at the revision
//! that it has itself, and judges nobody but itself: one that most of the members contradict has diverged. It says so,
//! writes it down, gives up the leadership and does not stand for election. Its log is as good as before, so it goes on
//! keeping and voting for it; what its state shows is for nobody to see, until a snapshot replaces it.
//!
//! They compare as well from which revision on they retain the history. There a difference only sounds the alarm: what is
//! shown is right, and the next compaction brings them together.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kontiki_storage::{Revision, Store, Witness, codec};
use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver as _;
use serde::{Deserialize, Serialize};
use tokio::time::MissedTickBehavior;

use crate::config::StartError;
use crate::log::{DIVERGENCE, Log};
use crate::route::Route;
use crate::types::NodeId;
use crate::watch;

/// The state of this replica is not what most members have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Divergence {
    pub revision: Revision,
    pub hash: u64,
    /// The others' hash at that revision.
    pub expected: u64,
}

/// Whether this replica has diverged, as its data directory says too. Clones share it.
#[derive(Clone)]
pub(crate) struct Standing {
    log: Log,
    divergence: Arc<watch::Sender<Option<Divergence>>>,
}

impl Standing {
    pub(crate) fn read(log: &Log) -> Result<Standing, StartError> {
        let divergence = log.row(DIVERGENCE, "the note of a divergence")?.flatten();
        Ok(Standing { log: log.clone(), divergence: Arc::new(watch::Sender::new(divergence)) })
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Option<Divergence>> {
        self.divergence.subscribe()
    }

    pub(crate) fn has_diverged(&self) -> bool {
        self.divergence.borrow().is_some()
    }

    /// Nobody is shown anything from here on; a failure to write it down leaves it to be found again after a restart.
    pub(crate) async fn set(&self, divergence: Option<Divergence>) {
        if *self.divergence.borrow() == divergence {
            return;
        }
        // On its way before anybody hears of it, who may stop this replica for that.
        let writing = codec::seal(DIVERGENCE, &divergence).map(|row| self.log.put(DIVERGENCE, row));
        self.divergence.set(divergence);
        let written = match writing {
            Ok(writing) => writing.await,
            Err(error) => Err(std::io::Error::other(error)),
        };
        if let Err(error) = written {
            tracing::warn!(%error, "whether this replica has diverged is not written down");
        }
    }
}

pub(crate) struct Audit {
    pub(crate) route: Route,
    pub(crate) store: Store,
    pub(crate) standing: Standing,
    pub(crate) every: Duration,
}

impl Audit {
    pub(crate) async fn run(self) {
        let mut ticks = tokio::time::interval(self.every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let diverged = self.standing.has_diverged();
            self.route.raft.runtime_config().elect(!diverged);
            let revision = self.store.applied_revision();
            let Some(own) = self.store.witness_at(revision) else { continue };
            let witnesses = self.route.peers.witnesses(revision, self.every).await;
            if witnesses.is_empty() {
                continue;
            }
            self.route.metrics.state_comparisons.inc();
            if let Some((compacted, other)) = retains_otherwise(&own, witnesses.values()) {
                self.route.metrics.state_mismatches.inc();
                tracing::error!(revision, compacted, other, "replicas differ in the history that they retain");
            }
            let hash = own.hash;
            let others: BTreeMap<_, _> = witnesses.into_iter().map(|(id, witness)| (id, witness.hash)).collect();
            let members = self.route.raft.metrics().borrow_watched().membership_config.nodes().count();
            let hashes: Vec<_> = others.values().copied().collect();
            match judge(hash, &hashes, members) {
                Verdict::Agreed => {}
                Verdict::Unclear => {
                    self.route.metrics.state_mismatches.inc();
                    let hashes = format!("{hashes:016x?}");
                    tracing::error!(revision, hash = format!("{hash:016x}"), hashes, "replicas differ in their state");
                }
                // Another state has been taken in while the others were asked.
                Verdict::Contradicted(_) if self.store.witness_at(revision) != Some(own) => {}
                Verdict::Contradicted(expected) => {
                    self.route.metrics.state_mismatches.inc();
                    if !diverged {
                        tracing::error!(
                            revision,
                            hash = format!("{hash:016x}"),
                            expected = format!("{expected:016x}"),
                            "this replica's state is not the one that most replicas have: it serves nothing more. \
                             Remove it from the cluster, empty its data directory and let it join again"
                        );
                        self.standing.set(Some(Divergence { revision, hash, expected })).await;
                    }
                    self.give_up_leadership(&others, expected).await;
                }
            }
        }
    }

    /// In favour of a voter with the right state.
    async fn give_up_leadership(&self, others: &BTreeMap<NodeId, u64>, expected: u64) {
        self.route.raft.runtime_config().elect(false);
        let raft = self.route.raft.metrics().borrow_watched().clone();
        if raft.state != ServerState::Leader {
            return;
        }
        let heir = raft.membership_config.voter_ids().find(|id| others.get(id) == Some(&expected));
        if let Some(heir) = heir
            && let Err(error) = self.route.transfer_leader(heir).await
        {
            tracing::warn!(%error, "the leadership was not handed over");
        }
    }
}

/// What this replica and another had compacted, as far as both know.
fn retains_otherwise<'a>(own: &Witness, others: impl IntoIterator<Item = &'a Witness>) -> Option<(Revision, Revision)> {
    let own = own.compacted?;
    others.into_iter().filter_map(|other| other.compacted).find(|other| *other != own).map(|other| (own, other))
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Agreed,
    /// There are different states, and it can't be said that this one is wrong. It may be right.
    Unclear,
    /// By most members, who agree with each other.
    Contradicted(u64),
}

fn judge(mine: u64, others: &[u64], members: usize) -> Verdict {
    if others.iter().all(|hash| *hash == mine) {
        return Verdict::Agreed;
    }
    let of = |wanted: u64| others.iter().filter(|hash| **hash == wanted).count();
    match others.iter().find(|hash| **hash != mine && of(**hash) * 2 > members) {
        Some(most) => Verdict::Contradicted(*most),
        None => Verdict::Unclear,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_most_members_can_convict() {
        for (mine, others, members, expected) in [
            (1, &[1, 1][..], 3, Verdict::Agreed),
            (1, &[1], 3, Verdict::Agreed),
            (1, &[2, 2], 3, Verdict::Contradicted(2)),
            (1, &[2], 3, Verdict::Unclear),
            (1, &[2, 1], 3, Verdict::Unclear),
            (1, &[2, 3], 3, Verdict::Unclear),
            (1, &[2, 2, 1], 5, Verdict::Unclear),
            (1, &[2, 2, 2, 1], 5, Verdict::Contradicted(2)),
            (1, &[2], 2, Verdict::Unclear),
        ] {
            assert_eq!(judge(mine, others, members), expected, "{mine} {others:?} {members}");
        }
    }

    #[test]
    fn who_does_not_know_what_was_retained_differs_from_nobody() {
        let witness = |compacted| Witness { hash: 1, compacted };
        let differs = |own, others: &[_]| {
            retains_otherwise(&witness(own), &others.iter().copied().map(witness).collect::<Vec<_>>())
        };
        assert_eq!(differs(Some(5), &[Some(5), None]), None);
        assert_eq!(differs(Some(5), &[None, Some(5), Some(7)]), Some((5, 7)));
        assert_eq!(differs(None, &[Some(7)]), None);
    }
}

//! The cluster's feature level: what every member can apply. It is a record of the replicated state, so all replicas agree
//! on it at each point of the log. The leader raises it once every member has said that it can do more, and only then is
//! a command proposed that needs more; it never falls, so a release that can do less is not taken back.

use std::time::Duration;

use kontiki_storage::{Command, Condition, Key, Outcome, Store, Transaction, Write};
use openraft::async_runtime::watch::WatchReceiver as _;
use tokio::time::{Instant, MissedTickBehavior};

use crate::peer::Peers;
use crate::proposer::Proposer;
use crate::route::Raft;
use crate::types::NodeId;

/// A table of Raft's own.
const KEY: &str = "_raft/level";
/// Of the first release, which doesn't write it down.
pub(crate) const FIRST: u32 = 1;

const LOOK: Duration = Duration::from_secs(1);
const DEADLINE: Duration = Duration::from_secs(10);

/// The cluster's level in this state.
pub(crate) fn of(store: &Store) -> u32 {
    let view = store.view();
    let level = view.get(KEY).and_then(|record| std::str::from_utf8(&record.value).ok()?.parse().ok());
    level.unwrap_or(FIRST)
}

/// Raises the level while this replica leads.
pub(crate) struct Raise {
    pub(crate) raft: Raft,
    pub(crate) peers: Peers,
    pub(crate) store: Store,
    pub(crate) proposer: Proposer,
    pub(crate) node: NodeId,
    /// This replica's own.
    pub(crate) level: u32,
}

impl Raise {
    pub(crate) async fn run(self) {
        let mut ticks = tokio::time::interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let level = self.lowest();
            if level > of(&self.store) {
                self.raise(level).await;
            }
        }
    }

    /// Of all members, learners too, since all apply what is committed. One that hasn't said hello may be of any release.
    fn lowest(&self) -> u32 {
        let raft = self.raft.metrics().borrow_watched().clone();
        if raft.current_leader != Some(self.node) {
            return FIRST;
        }
        let others = raft.membership_config.nodes().map(|(id, _)| *id).filter(|id| *id != self.node);
        others.map(|id| self.peers.level_of(id).unwrap_or(FIRST)).fold(self.level, u32::min)
    }

    async fn raise(&self, level: u32) {
        let key = Key::from(KEY);
        let condition = match self.store.view().get(KEY) {
            Some(record) => Condition::At(key.clone(), record.modified),
            None => Condition::Absent(key.clone()),
        };
        let write = Write::Put { key, value: level.to_string().into(), revision_at: None, expires_at: None };
        let raise = Command::Transact(Transaction { conditions: vec![condition], writes: vec![write] });
        match self.proposer.propose(raise, Instant::now() + DEADLINE).await {
            Ok(Outcome::Committed { .. }) => {
                tracing::info!(level, "every replica can do more: the feature level rises")
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, level, "the feature level is not raised yet"),
        }
    }
}

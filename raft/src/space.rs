//! Room on the disks. A replica stops taking entries while there is still enough for what it has under way, since RocksDB
//! does not come back from a disk that is really full by itself. A leader without room hands over to a voter that has
//! some; it refuses proposals where there is none, or when too many voters have none. Reads, watches and heartbeats go on,
//! and so does everything once there is room again.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver as _;
use tokio::time::{Instant, MissedTickBehavior};

use crate::membership::Manager;
use crate::metrics::Metrics;
use crate::peer::Peers;
use crate::route::Raft;
use crate::types::NodeId;

/// How often the disk is looked at: what others write in this time must fit into the reserve.
const EVERY: Duration = Duration::from_millis(100);
/// How long a leader without room waits before it tries again to hand over.
const AGAIN: Duration = Duration::from_secs(5);

#[derive(Default)]
pub(crate) struct Space {
    low: AtomicBool,
    /// This replica leads, and too few of the voters have room for a quorum.
    quorum_low: AtomicBool,
}

impl Space {
    pub(crate) fn takes_entries(&self) -> bool {
        !self.low.load(Ordering::Relaxed)
    }

    pub(crate) fn takes_proposals(&self) -> bool {
        self.takes_entries() && !self.quorum_low.load(Ordering::Relaxed)
    }
}

/// Keeps [`Space`] true.
pub(crate) struct Lookout {
    pub(crate) raft: Raft,
    pub(crate) peers: Peers,
    pub(crate) manager: Manager,
    pub(crate) node: NodeId,
    pub(crate) data_dir: PathBuf,
    pub(crate) reserve: u64,
    pub(crate) space: Arc<Space>,
    pub(crate) metrics: Metrics,
}

impl Lookout {
    pub(crate) async fn run(self) {
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut tried = None;
        loop {
            ticks.tick().await;
            match rustix::fs::statvfs(&self.data_dir) {
                Ok(stat) => self.found(stat.f_bavail.saturating_mul(stat.f_frsize)),
                Err(error) => tracing::warn!(%error, "the free space on the disk can't be read"),
            }
            if !self.count_voters() {
                tried = None;
            } else if tried.is_none_or(|at: Instant| at.elapsed() >= AGAIN) {
                if let Err(error) = self.manager.hand_over(None).await
                    && tried.is_none()
                {
                    tracing::warn!(%error, "the leadership stays with a replica that has no space on its disk");
                }
                tried = Some(Instant::now());
            }
        }
    }

    fn found(&self, available: u64) {
        self.metrics.disk_available.set(available as f64);
        let low = available < self.reserve;
        if self.space.low.swap(low, Ordering::Relaxed) != low {
            self.metrics.disk_low.set(low.into());
            match low {
                true => {
                    tracing::error!(available, reserve = self.reserve, "the disk is nearly full: nothing is written")
                }
                false => tracing::info!(available, "there is space on the disk again"),
            }
        }
    }

    /// Says whether this replica leads without room while a quorum has some.
    fn count_voters(&self) -> bool {
        let raft = self.raft.metrics().borrow_watched().clone();
        let has_room =
            |id: &NodeId| if *id == self.node { self.space.takes_entries() } else { self.peers.has_room(*id) };
        let (mut voters, mut with_room) = (0, 0);
        for id in raft.membership_config.voter_ids() {
            voters += 1;
            with_room += usize::from(has_room(&id));
        }
        let leads = raft.state == ServerState::Leader;
        let low = leads && with_room * 2 <= voters;
        if self.space.quorum_low.swap(low, Ordering::Relaxed) != low {
            match low {
                true => {
                    tracing::error!(voters, with_room, "too few replicas have space on their disks: nothing is written")
                }
                false => tracing::info!(voters, with_room, "enough replicas have space on their disks again"),
            }
        }
        leads && !low && !self.space.takes_entries()
    }
}

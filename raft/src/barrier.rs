//! Linearizable reads by ReadIndex. All readers that wait share a round: one that starts after they came and confirms
//! both who leads and how far the log was committed then. At a replica that is alone nobody waits.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use kontiki_storage::{Revision, Store, View};
use parking_lot::Mutex;
use tokio::time::{Instant, timeout, timeout_at};

use crate::metrics::Metrics;
use crate::route::Route;
use crate::types::{NodeId, Vote};
use crate::watch;

/// Readers that may wait at a time.
const READERS: usize = 65_536;
/// Rounds mostly take less, so readers look to their deadlines only after this, and may hear of one that much late: a timer
/// costs as much as the rest of a read.
const SOON: Duration = Duration::from_millis(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BarrierError {
    #[error("no leader could confirm in time how fresh this replica is")]
    Timeout,
    #[error("no quorum of the replicas answers, so nothing can tell how fresh this one is")]
    NoQuorum,
    #[error("too many reads are waiting")]
    Overloaded,
    #[error("the replica has stopped")]
    Stopped,
}

#[derive(Clone)]
pub(crate) struct Barrier(Arc<Shared>);

struct Shared {
    route: Route,
    store: Store,
    applied: watch::Receiver<Option<u64>>,
    metrics: Metrics,
    readers: Mutex<Readers>,
}

#[derive(Default)]
struct Readers {
    /// Those who read wait for it.
    next: watch::Sender<Round>,
    /// The last of their deadlines.
    until: Option<Instant>,
    running: bool,
}

#[derive(Default)]
struct Round {
    /// It, or the one before it, takes its time.
    late: bool,
    confirmed: Option<(u64, View)>,
}

impl Barrier {
    pub(crate) fn new(route: Route, store: Store, applied: watch::Receiver<Option<u64>>, metrics: Metrics) -> Barrier {
        Barrier(Arc::new(Shared { route, store, applied, metrics, readers: Mutex::default() }))
    }

    /// A view that shows everything acknowledged before the call, and the index it was read at.
    pub(crate) async fn wait(&self, deadline: Instant) -> Result<(u64, View), BarrierError> {
        if let Some(index) = self.0.route.log.alone().filter(|index| *self.0.applied.borrow() >= Some(*index)) {
            return Ok((index, self.0.store.view()));
        }
        self.0.metrics.read_barriers.inc();
        let (mut round, start) = {
            let mut readers = self.0.readers.lock();
            if readers.next.receivers() >= READERS {
                return Err(BarrierError::Overloaded);
            }
            readers.until = readers.until.max(Some(deadline));
            (readers.next.subscribe(), !std::mem::replace(&mut readers.running, true))
        };
        if start {
            tokio::spawn(self.0.clone().rounds());
        }
        let early = round.wait_for(|round| round.late || round.confirmed.is_some()).await;
        let mut confirmed = early.map(|round| round.confirmed.clone());
        if let Ok(None) = confirmed {
            let later = timeout_at(deadline, round.wait_for(|round| round.confirmed.is_some())).await;
            confirmed = later.map_err(|_| BarrierError::Timeout)?.map(|round| round.confirmed.clone());
        }
        match confirmed {
            Ok(Some(confirmed)) => Ok(confirmed),
            // A round ends with the last of its readers' deadlines.
            _ if Instant::now() < deadline => Err(BarrierError::Stopped),
            _ => Err(BarrierError::Timeout),
        }
    }

    /// The index that a read at a follower must wait for, at the leader; `vouches` is the follower and its vote.
    pub(crate) async fn confirm(&self, vouches: Option<(NodeId, Vote)>, deadline: Instant) -> Option<u64> {
        if let Some((voter, vote)) = vouches
            && let Some(index) = self.0.route.vouched(voter, vote).await
        {
            return Some(index);
        }
        self.wait(deadline).await.ok().map(|(index, _)| index)
    }

    /// Waits until the state of this replica has the revision.
    pub(crate) async fn reach(&self, revision: Revision) {
        let mut applied = self.0.applied.clone();
        // An error means that the replica has stopped, and will have no newer state.
        drop(applied.wait_for(|_| self.0.store.applied_revision() >= revision).await);
    }

    /// How many wait for the next round; those of the one that is under way come on top.
    pub(crate) fn waiting(&self) -> usize {
        self.0.readers.lock().next.receivers()
    }
}

impl Shared {
    /// One round after another for as long as anyone waits.
    async fn rounds(self: Arc<Shared>) {
        // Goes last: who hears of its end finds that the next can begin.
        let mut round;
        let cut_off = CutOff(&self);
        loop {
            // Those who got their answers from one round come back together: not the first of them alone.
            tokio::task::yield_now().await;
            let until = {
                let mut readers = self.readers.lock();
                let until = readers.until.take().filter(|_| readers.next.receivers() > 0);
                readers.running = until.is_some();
                let Some(until) = until else { return std::mem::forget(cut_off) };
                round = std::mem::take(&mut readers.next);
                until
            };
            let mut confirmed = pin!(self.confirmed(until));
            let confirmed = match timeout(SOON, &mut confirmed).await {
                Ok(confirmed) => confirmed,
                Err(_) => {
                    round.be_late();
                    self.readers.lock().next.be_late();
                    confirmed.await
                }
            };
            if confirmed.is_some() {
                round.send_if_modified(|round| {
                    round.confirmed = confirmed;
                    true
                });
            }
        }
    }

    /// None: the time was over, or the replica has stopped.
    async fn confirmed(&self, until: Instant) -> Option<(u64, View)> {
        let index = self.route.read_index(until).await?;
        let mut applied = self.applied.clone();
        let shown = timeout_at(until, applied.wait_for(|applied| *applied >= Some(index))).await;
        shown.is_ok_and(|shown| shown.is_ok()).then(|| (index, self.store.view()))
    }
}

/// The rounds, should they end while somebody may wait: by a panic, or with the runtime of the reader who began them.
struct CutOff<'a>(&'a Shared);

impl Drop for CutOff<'_> {
    fn drop(&mut self) {
        // Those who wait are told when the sender goes, and whoever comes next begins anew.
        *self.0.readers.lock() = Readers::default();
    }
}

impl watch::Sender<Round> {
    fn be_late(&self) {
        self.send_if_modified(|round| !std::mem::replace(&mut round.late, true));
    }
}

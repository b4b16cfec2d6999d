//! Linearizable reads by ReadIndex. All readers that wait share a round: one that starts after they came and confirms
//! both who leads and how far the log was committed then. At a replica that is alone nobody waits.

use std::sync::Arc;

use kontiki_storage::{Revision, Store, View};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use crate::metrics::Metrics;
use crate::route::Route;
use crate::watch;

/// Readers that may wait at a time.
const READERS: usize = 65_536;

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
    waiting: Vec<Reader>,
    running: bool,
}

struct Reader {
    deadline: Instant,
    reply: oneshot::Sender<(u64, View)>,
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
        let (reply, answer) = oneshot::channel();
        let start = {
            let mut readers = self.0.readers.lock();
            if readers.waiting.len() >= READERS {
                return Err(BarrierError::Overloaded);
            }
            readers.waiting.push(Reader { deadline, reply });
            !std::mem::replace(&mut readers.running, true)
        };
        if start {
            tokio::spawn(self.0.clone().rounds());
        }
        match timeout_at(deadline, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            // A round ends with the last of its readers' deadlines.
            Ok(Err(_)) if Instant::now() < deadline => Err(BarrierError::Stopped),
            Ok(Err(_)) | Err(_) => Err(BarrierError::Timeout),
        }
    }

    /// Waits until the state of this replica has the revision.
    pub(crate) async fn reach(&self, revision: Revision) {
        let mut applied = self.0.applied.clone();
        // An error means that the replica has stopped, and will have no newer state.
        let _ = applied.wait_for(|_| self.0.store.applied_revision() >= revision).await;
    }

    /// How many wait for the next round; those of the one that is under way come on top.
    pub(crate) fn waiting(&self) -> usize {
        self.0.readers.lock().waiting.len()
    }
}

impl Shared {
    /// One round after another for as long as anyone waits.
    async fn rounds(self: Arc<Shared>) {
        loop {
            // Those who got their answers from one round come back together: not the first of them alone.
            tokio::task::yield_now().await;
            let mut readers = {
                let mut readers = self.readers.lock();
                readers.waiting.retain(|reader| !reader.reply.is_closed());
                readers.running = !readers.waiting.is_empty();
                std::mem::take(&mut readers.waiting)
            };
            let Some(until) = readers.iter().map(|reader| reader.deadline).max() else { return };
            let Some(index) = self.route.read_index(until).await else { continue };
            let mut applied = self.applied.clone();
            match timeout_at(until, applied.wait_for(|applied| *applied >= Some(index))).await {
                Ok(Ok(_)) => {}
                Ok(Err(_)) => return,
                Err(_) => continue,
            }
            let view = self.store.view();
            for reader in readers.drain(..) {
                // Whoever has gone needs no answer.
                let _ = reader.reply.send((index, view.clone()));
            }
        }
    }
}

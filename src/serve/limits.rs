//! How many requests run at a time: those that read and those that write have a limit each, long-running ones have none.

use std::sync::Arc;

use prometheus::IntGauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::metrics::METRICS;

pub struct InFlight {
    reading: Lane,
    writing: Lane,
}

struct Lane {
    limit: Option<Arc<Semaphore>>,
    running: IntGauge,
}

/// Held while a request runs.
pub struct Running {
    _permit: Option<OwnedSemaphorePermit>,
    running: IntGauge,
}

impl InFlight {
    /// Zero: no limit.
    pub fn new(reading: usize, writing: usize) -> InFlight {
        let lane = |kind: &str, limit: usize| Lane {
            limit: (limit > 0).then(|| Arc::new(Semaphore::new(limit.min(Semaphore::MAX_PERMITS)))),
            running: METRICS.inflight.with_label_values(&[kind]),
        };
        InFlight { reading: lane("readOnly", reading), writing: lane("mutating", writing) }
    }

    /// None where there are too many already, except for those who must always get through.
    pub fn enter(&self, writes: bool, always: bool) -> Option<Running> {
        let lane = if writes { &self.writing } else { &self.reading };
        let permit = match &lane.limit {
            None => None,
            Some(limit) => match limit.clone().try_acquire_owned() {
                Ok(permit) => Some(permit),
                Err(_) if always => None,
                Err(_) => return None,
            },
        };
        lane.running.inc();
        Some(Running { _permit: permit, running: lane.running.clone() })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.running.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_its_limit() {
        let inflight = InFlight::new(0, 1);
        let one = inflight.enter(true, false);
        assert!(one.is_some());
        assert!(inflight.enter(true, false).is_none());
        assert!(inflight.enter(true, true).is_some());
        assert!(inflight.enter(false, false).is_some());
        drop(one);
        assert!(inflight.enter(true, false).is_some());
    }
}

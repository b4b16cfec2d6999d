//! Whether a quorum of the replicas answers. A read index is the proof of it; reads bring one all the time, and where nobody
//! reads this replica asks for one itself. Missed proofs are counted rather than time, so that a process that stood still
//! for a while blames nobody.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::route::Route;

/// How often there must be a proof.
const EVERY: Duration = Duration::from_secs(1);
/// Proofs missed in a row after which the quorum is lost: an election doesn't take so long.
const LOST: u32 = 3;
/// After these nobody is made to wait for it any more.
const GIVEN_UP: u32 = 10;

/// Clones are the same.
#[derive(Clone, Default)]
pub(crate) struct Quorum(Arc<Proofs>);

#[derive(Default)]
struct Proofs {
    /// There was one since it was looked for last.
    any: AtomicBool,
    missed: AtomicU32,
}

impl Quorum {
    pub(crate) fn proved(&self) {
        self.0.any.store(true, Ordering::Relaxed);
        self.0.missed.store(0, Ordering::Relaxed);
    }

    pub(crate) fn is_lost(&self) -> bool {
        self.0.missed.load(Ordering::Relaxed) >= LOST
    }

    pub(crate) fn is_given_up(&self) -> bool {
        self.0.missed.load(Ordering::Relaxed) >= GIVEN_UP
    }

    fn missed(&self) -> u32 {
        self.0.missed.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// Looks for proofs, and tells the operator.
pub(crate) async fn watch(route: Route) {
    let quorum = route.quorum.clone();
    let mut lost = false;
    loop {
        let until = Instant::now() + EVERY;
        let proved = quorum.0.any.load(Ordering::Relaxed) || route.read_index(until).await.is_some();
        // From here on it takes another.
        quorum.0.any.store(false, Ordering::Relaxed);
        if proved && std::mem::take(&mut lost) {
            tracing::info!("a quorum of the replicas answers again");
        }
        if !proved && quorum.missed() == LOST {
            lost = true;
            tracing::warn!(
                "no quorum of the replicas answers: nothing is written, and no read answered that has to be up to date"
            );
        }
        sleep_until(until).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quorum_is_lost_by_missed_proofs_and_back_with_the_first() {
        let quorum = Quorum::default();
        let mut states = Vec::new();
        for _ in 0..GIVEN_UP {
            quorum.missed();
            states.push((quorum.is_lost(), quorum.is_given_up()));
        }
        let lost = states.iter().position(|(lost, _)| *lost).map(|index| index as u32 + 1);
        assert_eq!((lost, states.iter().filter(|(_, given_up)| *given_up).count()), (Some(LOST), 1));
        quorum.proved();
        assert!(!quorum.is_lost() && !quorum.is_given_up());
    }
}

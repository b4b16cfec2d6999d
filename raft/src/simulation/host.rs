//! What simulated replicas have in the place of their process (`crate::host`): everything happens on one thread, and
//! chance comes from the seed. Tests that simulate nothing get the real things.

use std::cell::RefCell;
use std::sync::Arc;

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rand_of_openraft::SeedableRng as _;
pub(crate) use rand_of_openraft::rngs::SmallRng as ThreadRng;
use tokio::task::JoinError;

use super::Mistake;
use super::disk::Disk;

/// One replica's process, through all its lives.
pub(crate) struct Host {
    rng: Mutex<StdRng>,
    pub(crate) disk: Arc<Disk>,
    pub(crate) mistake: Option<Mistake>,
}

thread_local! {
    static HOST: RefCell<Option<Arc<Host>>> = const { RefCell::new(None) };
}

impl Host {
    pub(crate) fn new(seed: u64, disk: Arc<Disk>, mistake: Option<Mistake>) -> Arc<Host> {
        Arc::new(Host { rng: Mutex::new(StdRng::seed_from_u64(seed)), disk, mistake })
    }

    /// Does `work` as a part of this process.
    pub(crate) fn run<T>(self: &Arc<Host>, work: impl FnOnce() -> T) -> T {
        let before = HOST.replace(Some(self.clone()));
        let result = work();
        HOST.set(before);
        result
    }

    /// The process that this is a part of, if it is simulated.
    pub(crate) fn current() -> Option<Arc<Host>> {
        HOST.with_borrow(Option::clone)
    }
}

fn draw() -> u64 {
    Host::current().map_or_else(rand::random, |host| host.rng.lock().random())
}

pub(crate) fn rng() -> impl Rng {
    StdRng::seed_from_u64(draw())
}

pub(crate) fn thread_rng() -> ThreadRng {
    ThreadRng::seed_from_u64(draw())
}

pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, JoinError> {
    if Host::current().is_some() { Ok(work()) } else { tokio::task::spawn_blocking(work).await }
}

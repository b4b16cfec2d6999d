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

/// `tokio::sync::watch` with a queue for those who wait: Tokio wakes them in an order that differs from run to run.
pub(crate) mod watch {
    use std::sync::Arc;

    use tokio::sync::{Notify, watch};

    pub(crate) use tokio::sync::watch::Ref;
    pub(crate) use tokio::sync::watch::error::RecvError;

    #[derive(Debug)]
    pub struct Sender<T> {
        inner: watch::Sender<T>,
        /// Dropped after the channel is closed, so that whoever waits hears of it.
        queue: Queue,
    }

    #[derive(Debug)]
    pub struct Receiver<T> {
        inner: watch::Receiver<T>,
        queue: Arc<Notify>,
    }

    #[derive(Debug)]
    struct Queue(Arc<Notify>);

    impl Drop for Queue {
        fn drop(&mut self) {
            self.0.notify_waiters();
        }
    }

    pub(crate) fn channel<T>(value: T) -> (Sender<T>, Receiver<T>) {
        let sender = Sender::new(value);
        let receiver = sender.subscribe();
        (sender, receiver)
    }

    impl<T> Sender<T> {
        pub(crate) fn new(value: T) -> Sender<T> {
            Sender { inner: watch::Sender::new(value), queue: Queue(Arc::default()) }
        }

        pub(crate) fn subscribe(&self) -> Receiver<T> {
            Receiver { inner: self.inner.subscribe(), queue: self.queue.0.clone() }
        }

        pub(crate) fn borrow(&self) -> Ref<'_, T> {
            self.inner.borrow()
        }

        pub(crate) fn send_replace(&self, value: T) -> T {
            let before = self.inner.send_replace(value);
            self.queue.0.notify_waiters();
            before
        }

        pub(crate) fn send_if_modified(&self, modify: impl FnOnce(&mut T) -> bool) -> bool {
            let modified = self.inner.send_if_modified(modify);
            if modified {
                self.queue.0.notify_waiters();
            }
            modified
        }
    }

    impl<T> Clone for Receiver<T> {
        fn clone(&self) -> Receiver<T> {
            Receiver { inner: self.inner.clone(), queue: self.queue.clone() }
        }
    }

    impl<T> Receiver<T> {
        pub(crate) fn borrow(&self) -> Ref<'_, T> {
            self.inner.borrow()
        }

        pub(crate) fn borrow_and_update(&mut self) -> Ref<'_, T> {
            self.inner.borrow_and_update()
        }

        pub(crate) async fn changed(&mut self) -> Result<(), RecvError> {
            let queue = self.queue.clone();
            loop {
                let mut news = std::pin::pin!(queue.notified());
                news.as_mut().enable();
                if self.inner.has_changed()? {
                    self.inner.mark_unchanged();
                    return Ok(());
                }
                news.await;
            }
        }

        pub(crate) async fn wait_for(&mut self, mut wanted: impl FnMut(&T) -> bool) -> Result<Ref<'_, T>, RecvError> {
            loop {
                if wanted(&self.inner.borrow_and_update()) {
                    return Ok(self.inner.borrow());
                }
                self.changed().await?;
            }
        }
    }
}

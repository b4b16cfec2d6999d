//! A value that changes, and those who wait until it does: how far Raft's tasks are, who leads, what has failed. Raft's tell each
//! other a dozen things for each entry, and mostly nobody waits. Tokio's channel for this has eight queues of those who wait,
//! looks at all of them each time, and wakes from them in any order; this has one, in order, so that simulated runs can be
//! repeated.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Poll, Waker};

pub use openraft::rt::watch::RecvError;
use openraft::rt::watch::{SendError, WatchReceiver, WatchSender};
use openraft::rt::{OptionalSend, OptionalSync, Watch};
use parking_lot::{Mutex, RwLock, RwLockReadGuard};

/// The value, which doesn't change as long as this is held.
pub type Ref<'a, T> = RwLockReadGuard<'a, T>;

pub(crate) struct Sender<T>(Arc<Channel<T>>);

pub struct Receiver<T> {
    channel: Arc<Channel<T>>,
    seen: u64,
}

struct Channel<T> {
    value: RwLock<T>,
    /// How often it was changed. It moves with the value, while nobody can look at that.
    changes: AtomicU64,
    queue: Mutex<Queue>,
    senders: AtomicUsize,
    receivers: AtomicUsize,
}

#[derive(Default)]
struct Queue {
    /// By their numbers.
    waiting: Vec<(u64, Waker)>,
    next: u64,
}

impl Queue {
    fn at(&self, number: u64) -> Option<usize> {
        self.waiting.binary_search_by_key(&number, |(number, _)| *number).ok()
    }
}

pub(crate) fn channel<T>(value: T) -> (Sender<T>, Receiver<T>) {
    let sender = Sender::new(value);
    let receiver = sender.subscribe();
    (sender, receiver)
}

impl<T> Channel<T> {
    fn wake(&self) {
        let waiting = std::mem::take(&mut self.queue.lock().waiting);
        waiting.into_iter().for_each(|(_, waker)| waker.wake());
    }

    /// What has become of a value that was seen after so many changes.
    fn look(&self, seen: u64) -> Poll<Result<u64, RecvError>> {
        // Closed before the last look, that one saw the last value.
        let closed = self.senders.load(Ordering::Acquire) == 0;
        match self.changes.load(Ordering::Acquire) {
            changes if changes != seen => Poll::Ready(Ok(changes)),
            _ if closed => Poll::Ready(Err(RecvError(()))),
            _ => Poll::Pending,
        }
    }
}

impl<T> Sender<T> {
    pub(crate) fn new(value: T) -> Sender<T> {
        Sender(Arc::new(Channel {
            value: RwLock::new(value),
            changes: AtomicU64::new(0),
            queue: Mutex::default(),
            senders: AtomicUsize::new(1),
            receivers: AtomicUsize::new(0),
        }))
    }

    /// Has seen the value that is there now.
    pub(crate) fn subscribe(&self) -> Receiver<T> {
        self.0.receivers.fetch_add(1, Ordering::AcqRel);
        Receiver { seen: self.0.changes.load(Ordering::Acquire), channel: self.0.clone() }
    }

    pub(crate) fn borrow(&self) -> Ref<'_, T> {
        self.0.value.read()
    }

    pub(crate) fn receivers(&self) -> usize {
        self.0.receivers.load(Ordering::Acquire)
    }

    /// Whether or not anybody hears of it.
    pub(crate) fn set(&self, value: T) {
        {
            let mut current = self.0.value.write();
            *current = value;
            self.0.changes.fetch_add(1, Ordering::Release);
        }
        self.0.wake();
    }

    /// `modify` says whether it has.
    pub(crate) fn send_if_modified(&self, modify: impl FnOnce(&mut T) -> bool) -> bool {
        let modified = {
            let mut current = self.0.value.write();
            let modified = modify(&mut current);
            self.0.changes.fetch_add(u64::from(modified), Ordering::Release);
            modified
        };
        if modified {
            self.0.wake();
        }
        modified
    }
}

impl<T> Receiver<T> {
    pub fn borrow(&self) -> Ref<'_, T> {
        self.channel.value.read()
    }

    /// The value, which has been seen then.
    pub fn borrow_and_update(&mut self) -> Ref<'_, T> {
        let value = self.channel.value.read();
        self.seen = self.channel.changes.load(Ordering::Acquire);
        value
    }

    /// Waits for another value than has been seen. An error means that there will be none.
    pub async fn changed(&mut self) -> Result<(), RecvError> {
        let mut place = Place { channel: &self.channel, number: None };
        let changes = poll_fn(|context| {
            if let Poll::Ready(changes) = self.channel.look(self.seen) {
                // Whoever has changed it empties the queue.
                place.number = None;
                return Poll::Ready(changes);
            }
            place.take(context.waker());
            self.channel.look(self.seen)
        });
        self.seen = changes.await?;
        Ok(())
    }

    /// Waits for such a value, if it isn't there, and returns the newest, which may be another already. An error means that there
    /// will be none.
    pub async fn wait_for(&mut self, mut wanted: impl FnMut(&T) -> bool) -> Result<Ref<'_, T>, RecvError> {
        while !wanted(&self.borrow_and_update()) {
            self.changed().await?;
        }
        Ok(self.borrow())
    }
}

/// A place in the queue, which is left when whoever waits no longer does.
struct Place<'a, T> {
    channel: &'a Channel<T>,
    number: Option<u64>,
}

impl<T> Place<'_, T> {
    fn take(&mut self, waker: &Waker) {
        let mut queue = self.channel.queue.lock();
        match self.number.and_then(|number| queue.at(number)) {
            Some(at) => queue.waiting[at].1.clone_from(waker),
            None => {
                self.number = Some(queue.next);
                let place = (queue.next, waker.clone());
                queue.next += 1;
                queue.waiting.push(place);
            }
        }
    }
}

impl<T> Drop for Place<'_, T> {
    fn drop(&mut self) {
        if let Some(left) = self.number {
            let mut queue = self.channel.queue.lock();
            if let Some(at) = queue.at(left) {
                queue.waiting.remove(at);
            }
        }
    }
}

impl<T: Default> Default for Sender<T> {
    fn default() -> Sender<T> {
        Sender::new(T::default())
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Sender<T> {
        self.0.senders.fetch_add(1, Ordering::AcqRel);
        Sender(self.0.clone())
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        if self.0.senders.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.wake();
        }
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Receiver<T> {
        self.channel.receivers.fetch_add(1, Ordering::AcqRel);
        Receiver { channel: self.channel.clone(), seen: self.seen }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.channel.receivers.fetch_sub(1, Ordering::AcqRel);
    }
}

/// As openraft has it.
pub(crate) struct InOrder;

impl Watch for InOrder {
    type Sender<T: OptionalSend + OptionalSync> = Sender<T>;
    type Receiver<T: OptionalSend + OptionalSync> = Receiver<T>;
    type Ref<'a, T: OptionalSend + 'a> = Ref<'a, T>;

    fn channel<T: OptionalSend + OptionalSync>(value: T) -> (Sender<T>, Receiver<T>) {
        channel(value)
    }
}

impl<T: OptionalSend + OptionalSync> WatchSender<InOrder, T> for Sender<T> {
    fn send(&self, value: T) -> Result<(), SendError<T>> {
        match self.receivers() {
            0 => Err(SendError(value)),
            _ => {
                self.set(value);
                Ok(())
            }
        }
    }

    fn send_if_modified<F: FnOnce(&mut T) -> bool>(&self, modify: F) -> bool {
        self.send_if_modified(modify)
    }

    fn borrow_watched(&self) -> Ref<'_, T> {
        self.borrow()
    }

    fn subscribe(&self) -> Receiver<T> {
        self.subscribe()
    }
}

impl<T: OptionalSend + OptionalSync> WatchReceiver<InOrder, T> for Receiver<T> {
    async fn changed(&mut self) -> Result<(), RecvError> {
        self.changed().await
    }

    fn borrow_watched(&self) -> Ref<'_, T> {
        self.borrow()
    }

    fn borrow_and_update(&mut self) -> Ref<'_, T> {
        self.borrow_and_update()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn who_no_longer_waits_has_left_the_queue() {
        let (sender, mut receiver) = channel(0);
        for _ in 0..3 {
            assert!(receiver.changed().now_or_never().is_none());
        }
        assert!(receiver.channel.queue.lock().waiting.is_empty());
        sender.set(1);
        assert_eq!(receiver.changed().now_or_never(), Some(Ok(())));
        assert!(receiver.channel.queue.lock().waiting.is_empty());
    }

    #[test]
    fn the_last_value_is_seen_before_the_end() {
        let (sender, mut receiver) = channel(0);
        let other = sender.clone();
        sender.set(1);
        drop(sender);
        assert_eq!(receiver.changed().now_or_never(), Some(Ok(())));
        assert!(receiver.changed().now_or_never().is_none());
        drop(other);
        assert_eq!(receiver.changed().now_or_never(), Some(Err(RecvError(()))));
        assert_eq!(*receiver.borrow_watched(), 1);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn no_change_is_missed_between_threads() {
        let (sender, receiver) = channel(0u32);
        let waiting = (0..4).map(|_| {
            let mut receiver = receiver.clone();
            tokio::spawn(async move { receiver.wait_until_ge(&10_000).await.is_ok() })
        });
        let waiting: Vec<_> = waiting.collect();
        for n in 1..=10_000 {
            sender.set(n);
            if n % 64 == 0 {
                tokio::task::yield_now().await;
            }
        }
        for waits in waiting {
            assert!(waits.await.unwrap());
        }
    }
}

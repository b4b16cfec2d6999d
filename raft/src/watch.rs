//! The channels by which Raft's tasks tell each other, and whoever asks, how far they are: a dozen for each entry, and mostly
//! nobody waits. Tokio's has eight queues of those who wait, which all are looked at, and wakes from them in any order; this
//! has one, in order, so that simulated runs can be repeated.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Poll, Waker};

use openraft::rt::watch::{RecvError, SendError, WatchReceiver, WatchSender};
use openraft::rt::{OptionalSend, OptionalSync, Watch};
use parking_lot::{MappedRwLockReadGuard, Mutex, RwLock, RwLockReadGuard};

pub(crate) struct InOrder;

pub(crate) struct Sender<T>(Arc<Channel<T>>);

pub(crate) struct Receiver<T> {
    channel: Arc<Channel<T>>,
    seen: u64,
}

struct Channel<T> {
    /// And how often it was changed.
    value: RwLock<(T, u64)>,
    queue: Mutex<Queue>,
    senders: AtomicUsize,
    receivers: AtomicUsize,
}

#[derive(Default)]
struct Queue {
    waiting: Vec<(u64, Waker)>,
    next: u64,
}

impl<T> Channel<T> {
    fn wake(&self) {
        let waiting = std::mem::take(&mut self.queue.lock().waiting);
        waiting.into_iter().for_each(|(_, waker)| waker.wake());
    }

    fn borrow(&self) -> MappedRwLockReadGuard<'_, T> {
        RwLockReadGuard::map(self.value.read(), |value| &value.0)
    }
}

impl Watch for InOrder {
    type Sender<T: OptionalSend + OptionalSync> = Sender<T>;
    type Receiver<T: OptionalSend + OptionalSync> = Receiver<T>;
    type Ref<'a, T: OptionalSend + 'a> = MappedRwLockReadGuard<'a, T>;

    fn channel<T: OptionalSend + OptionalSync>(value: T) -> (Sender<T>, Receiver<T>) {
        let channel = Arc::new(Channel {
            value: RwLock::new((value, 0)),
            queue: Mutex::default(),
            senders: AtomicUsize::new(1),
            receivers: AtomicUsize::new(1),
        });
        (Sender(channel.clone()), Receiver { channel, seen: 0 })
    }
}

impl<T: OptionalSend + OptionalSync> WatchSender<InOrder, T> for Sender<T> {
    fn send(&self, value: T) -> Result<(), SendError<T>> {
        if self.0.receivers.load(Ordering::Acquire) == 0 {
            return Err(SendError(value));
        }
        let before = {
            let mut current = self.0.value.write();
            current.1 += 1;
            std::mem::replace(&mut current.0, value)
        };
        self.0.wake();
        drop(before);
        Ok(())
    }

    fn send_if_modified<F: FnOnce(&mut T) -> bool>(&self, modify: F) -> bool {
        let modified = {
            let mut current = self.0.value.write();
            let modified = modify(&mut current.0);
            current.1 += u64::from(modified);
            modified
        };
        if modified {
            self.0.wake();
        }
        modified
    }

    fn borrow_watched(&self) -> MappedRwLockReadGuard<'_, T> {
        self.0.borrow()
    }

    fn subscribe(&self) -> Receiver<T> {
        self.0.receivers.fetch_add(1, Ordering::AcqRel);
        Receiver { seen: self.0.value.read().1, channel: self.0.clone() }
    }
}

impl<T: OptionalSend + OptionalSync> WatchReceiver<InOrder, T> for Receiver<T> {
    async fn changed(&mut self) -> Result<(), RecvError> {
        let mut place = Place { channel: &self.channel, number: None };
        let changes = poll_fn(|context| {
            place.take(context.waker());
            // Closed before the last look, that one saw the last value.
            let closed = self.channel.senders.load(Ordering::Acquire) == 0;
            match self.channel.value.read().1 {
                changes if changes != self.seen => Poll::Ready(Ok(changes)),
                _ if closed => Poll::Ready(Err(RecvError(()))),
                _ => Poll::Pending,
            }
        });
        self.seen = changes.await?;
        Ok(())
    }

    fn borrow_watched(&self) -> MappedRwLockReadGuard<'_, T> {
        self.channel.borrow()
    }

    fn borrow_and_update(&mut self) -> MappedRwLockReadGuard<'_, T> {
        let value = self.channel.value.read();
        self.seen = value.1;
        RwLockReadGuard::map(value, |value| &value.0)
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
        match queue.waiting.iter_mut().find(|(number, _)| Some(*number) == self.number) {
            Some((_, waiting)) => waiting.clone_from(waker),
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
            self.channel.queue.lock().waiting.retain(|(number, _)| *number != left);
        }
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

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn who_no_longer_waits_has_left_the_queue() {
        let (sender, mut receiver) = InOrder::channel(0);
        for _ in 0..3 {
            assert!(receiver.changed().now_or_never().is_none());
        }
        assert!(receiver.channel.queue.lock().waiting.is_empty());
        sender.send(1).unwrap();
        assert_eq!(receiver.changed().now_or_never(), Some(Ok(())));
        assert!(receiver.channel.queue.lock().waiting.is_empty());
    }

    #[test]
    fn the_last_value_is_seen_before_the_end() {
        let (sender, mut receiver) = InOrder::channel(0);
        let other = sender.clone();
        sender.send(1).unwrap();
        drop(sender);
        assert_eq!(receiver.changed().now_or_never(), Some(Ok(())));
        assert!(receiver.changed().now_or_never().is_none());
        drop(other);
        assert_eq!(receiver.changed().now_or_never(), Some(Err(RecvError(()))));
        assert_eq!(*receiver.borrow_watched(), 1);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn no_change_is_missed_between_threads() {
        let (sender, receiver) = InOrder::channel(0u32);
        let waiting = (0..4).map(|_| {
            let mut receiver = receiver.clone();
            tokio::spawn(async move { receiver.wait_until_ge(&10_000).await.is_ok() })
        });
        let waiting: Vec<_> = waiting.collect();
        for n in 1..=10_000 {
            sender.send(n).unwrap();
            if n % 64 == 0 {
                tokio::task::yield_now().await;
            }
        }
        for waits in waiting {
            assert!(waits.await.unwrap());
        }
    }
}

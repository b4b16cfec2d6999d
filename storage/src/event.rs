//! Events, the retained history of them, and the cursors that follow it.

use std::collections::VecDeque;
use std::sync::Arc;

use arc_swap::ArcSwap;
use imbl::Vector;
use tokio::sync::Notify;

use crate::record::Derived;
use crate::{Key, Record, Revision};

/// How many events a cursor holds at a time. What it has not fetched yet it holds no part of, so a cursor that nobody
/// reads keeps nothing else in memory.
const FETCH: usize = 32;
/// What an event is taken to weigh beside the version it superseded.
const EVENT_WEIGHT: u64 = 256;

/// One key changed at one revision.
#[derive(Debug)]
pub struct Event {
    pub revision: Revision,
    pub key: Key,
    /// None: the key was deleted.
    pub record: Option<Arc<Record>>,
    /// None: the key was created.
    pub previous: Option<Arc<Record>>,
    derived: Derived,
}

impl Event {
    pub(crate) fn new(
        revision: Revision,
        key: Key,
        record: Option<Arc<Record>>,
        previous: Option<Arc<Record>>,
    ) -> Event {
        Event { revision, key, record, previous, derived: Derived::default() }
    }

    /// What the embedding layer makes of the event once, such as its encoding.
    ///
    /// # Panics
    /// When two different types are derived from one event: an event has one slot.
    pub fn derived<T: Send + Sync + 'static>(&self, make: impl FnOnce(&Event) -> T) -> &T {
        self.derived.get(|| make(self))
    }

    /// What the history's bound counts. It must come out the same on every replica and after a restart.
    pub(crate) fn weight(&self) -> u64 {
        EVENT_WEIGHT + self.previous.as_ref().map_or(0, |record| record.weight())
    }
}

/// What was asked for is no longer retained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("revision {requested} has been compacted; the oldest retained is {compacted}")]
pub struct Compacted {
    pub requested: Revision,
    pub compacted: Revision,
}

/// The retained events of one table (or of all) in revision order.
#[derive(Debug, Clone, Default)]
pub(crate) struct History {
    pub(crate) events: Vector<Arc<Event>>,
    /// The revision of the newest event that is no longer here.
    pub(crate) trimmed: Revision,
}

impl History {
    pub(crate) fn missing_before(trimmed: Revision) -> History {
        History { events: Vector::new(), trimmed }
    }

    /// The index of the first event after `revision`. Gallops from the end, where nearly all callers look.
    pub(crate) fn first_after(&self, revision: Revision) -> usize {
        let after = |index: usize| self.events.get(index).is_some_and(|event| event.revision > revision);
        let len = self.events.len();
        let mut step = 1;
        let mut high = len;
        while step <= len && after(len - step) {
            high = len - step;
            step *= 2;
        }
        let mut low = len.saturating_sub(step);
        while low < high {
            let middle = low + (high - low) / 2;
            if after(middle) { high = middle } else { low = middle + 1 }
        }
        high
    }

    pub(crate) fn last(&self) -> Revision {
        self.events.last().map_or(self.trimmed, |event| event.revision)
    }

    /// Drops the events up to and with `revision`.
    pub(crate) fn trim(&mut self, revision: Revision) {
        let keep = self.first_after(revision);
        if let Some(newest) = keep.checked_sub(1).and_then(|index| self.events.get(index)) {
            self.trimmed = newest.revision;
            self.events = self.events.skip(keep);
        }
    }
}

/// Where a table's history is published for those who follow it.
#[derive(Debug, Default)]
pub(crate) struct Feed {
    history: ArcSwap<History>,
    notify: Notify,
}

impl Feed {
    pub(crate) fn new(history: Arc<History>) -> Feed {
        Feed { history: ArcSwap::new(history), notify: Notify::new() }
    }

    pub(crate) fn publish(&self, history: Arc<History>) {
        self.history.store(history);
        self.notify.notify_waiters();
    }
}

/// A place in the events of one table or of all. Reading takes no lock, however many read.
#[derive(Debug)]
pub struct Cursor {
    feed: Arc<Feed>,
    /// Fetched and not handed out yet; always whole revisions.
    fetched: VecDeque<Arc<Event>>,
    fetched_to: Revision,
    position: Revision,
}

impl Cursor {
    pub(crate) fn new(feed: Arc<Feed>, after: Revision) -> Cursor {
        Cursor { feed, fetched: VecDeque::new(), fetched_to: after, position: after }
    }

    /// The revision of the last event handed out, at first the one to start after.
    pub fn position(&self) -> Revision {
        self.position
    }

    /// The next event if it has happened. Fails once an event that was still to come has been compacted.
    pub fn try_next(&mut self) -> Result<Option<Arc<Event>>, Compacted> {
        if self.fetched.is_empty() {
            self.fetch()?;
        }
        let event = self.fetched.pop_front();
        if let Some(event) = &event {
            self.position = event.revision;
        }
        Ok(event)
    }

    /// Waits for the next event. Safe to cancel.
    pub async fn next(&mut self) -> Result<Arc<Event>, Compacted> {
        loop {
            if let Some(event) = self.try_next()? {
                return Ok(event);
            }
            let feed = self.feed.clone();
            let mut news = std::pin::pin!(feed.notify.notified());
            news.as_mut().enable();
            if let Some(event) = self.try_next()? {
                return Ok(event);
            }
            news.await;
        }
    }

    fn fetch(&mut self) -> Result<(), Compacted> {
        let history = self.feed.history.load();
        if self.fetched_to < history.trimmed {
            return Err(Compacted { requested: self.fetched_to, compacted: history.trimmed });
        }
        if history.last() <= self.fetched_to {
            return Ok(());
        }
        for index in history.first_after(self.fetched_to).. {
            match history.events.get(index) {
                Some(event) if self.fetched.len() < FETCH || event.revision == self.fetched_to => {
                    self.fetched_to = event.revision;
                    self.fetched.push_back(event.clone());
                }
                _ => break,
            }
        }
        Ok(())
    }
}

//! Watch: what happens to the objects of a collection from a revision on, from this replica's own applied state.
//!
//! A watch is a cursor on the history that all watches of a table share; it holds no queue of its own. Revisions are
//! those of the log, so a watch that ends here goes on at the same revision on any other replica.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use kontiki_storage::{Compacted, Cursor, Event, Record, Revision};
use rand::Rng;
use tokio::sync::watch as channel;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::list::{self, Options, Version};
use super::{Answer, Request};
use crate::discovery::Resource;
use crate::facts::{Change, Selection};
use crate::metrics::{self, METRICS};
use crate::status::{ApiError, Result};

/// How often a client that takes bookmarks gets one.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// How long before its end a watch gets its last bookmark.
const LAST_BOOKMARK: Duration = Duration::from_secs(2);

/// One thing that a watcher is to be told.
pub enum Notice {
    /// An object that was there when the watch began.
    Initial(Arc<Record>),
    Event(Arc<Event>, Change),
    /// All events up to the revision have been told; with `initial_end` all objects that were there have.
    Bookmark {
        revision: Revision,
        initial_end: bool,
    },
    /// The last notice.
    Error(ApiError),
}

/// A watch under way.
pub struct Watch {
    resource: Arc<Resource>,
    selection: Selection,
    initial: VecDeque<Arc<Record>>,
    /// The bookmark that ends the initial objects, while it is to come.
    initial_end: Option<InitialEnd>,
    source: Source,
    /// The applied revision, which moves after the events have been published.
    applied: channel::Receiver<Revision>,
    bookmarks: bool,
    next_bookmark: Instant,
    ends: Instant,
    serving: CancellationToken,
}

struct InitialEnd {
    revision: Revision,
    began: Instant,
    scope: &'static str,
}

enum Source {
    Cursor(Cursor),
    /// Only this is left to tell.
    Failed(ApiError),
    Over,
}

pub async fn watch(request: &mut Request) -> Result<Answer> {
    let began = Instant::now();
    let options = Options::read(request)?;
    let query = &request.query;
    let timeout = list::int(query.text("timeoutSeconds"))?;
    let initial_asked = options.initial_events;
    let bookmarks = query.flag("allowWatchBookmarks");
    let text = query.text("resourceVersion");
    let server = &request.server;
    let store = server.replica.store();
    let settings = &server.settings;

    // Before the view is taken, so that what is applied in between is told.
    let applied = store.revisions();
    let revision = list::uint("resourceVersion", if text.is_empty() { "0" } else { text })
        .map_err(|why| ApiError::new(500, "", why))?;
    let shows_state = initial_asked.unwrap_or(revision == 0);
    let subscribe = |after| match store.subscribe(&request.resource.table, after) {
        Ok(cursor) => Source::Cursor(cursor),
        Err(compacted) => Source::Failed(too_old(compacted)),
    };
    let (initial, after, source) = if shows_state || revision == 0 {
        let version = match (text, revision) {
            ("", _) => Version::Latest,
            (_, 0) => Version::Any,
            _ => Version::NotOlderThan(revision),
        };
        match list::view(request, version).await {
            Ok(view) => {
                let after = view.revision();
                let records = if shows_state {
                    list::page(request, &view, &options.selection, None, 0).records
                } else {
                    Vec::new()
                };
                (records, after, subscribe(after))
            }
            // A revision that isn't there yet is told on the watch.
            Err(error) if revision > 0 => (Vec::new(), revision, Source::Failed(error)),
            Err(error) => return Err(error),
        }
    } else {
        (Vec::new(), revision, subscribe(revision))
    };
    let told = matches!(source, Source::Cursor(_)) && bookmarks && initial_asked == Some(true);
    let lasts = match u64::try_from(timeout) {
        Ok(seconds @ 1..) => Duration::from_secs(seconds),
        _ => settings.min_request_timeout.mul_f64(rand::rng().random_range(1.0..2.0)),
    };
    let now = Instant::now();
    Ok(Answer::Watch(Watch {
        resource: request.resource.clone(),
        selection: options.selection,
        initial: initial.into(),
        initial_end: told.then(|| InitialEnd { revision: after, began, scope: metrics::scope(&request.info) }),
        source,
        applied,
        bookmarks,
        next_bookmark: now + BOOKMARK_EVERY,
        ends: now + lasts,
        serving: server.serving.clone(),
    }))
}

fn too_old(Compacted { requested, compacted }: Compacted) -> ApiError {
    ApiError::expired(format!("too old resource version: {requested} ({compacted})"))
}

impl Watch {
    pub fn resource(&self) -> &Arc<Resource> {
        &self.resource
    }

    /// What can be told without waiting.
    pub fn ready(&mut self) -> Option<Notice> {
        if let Some(record) = self.initial.pop_front() {
            return Some(Notice::Initial(record));
        }
        if let Some(InitialEnd { revision, began, scope }) = self.initial_end.take() {
            METRICS.watch_listed(&self.resource, scope, began.elapsed());
            return Some(Notice::Bookmark { revision, initial_end: true });
        }
        loop {
            match &mut self.source {
                Source::Cursor(cursor) => match cursor.try_next() {
                    Ok(Some(event)) => {
                        if let Some(change) = Change::of(&event, &self.resource, &self.selection) {
                            return Some(Notice::Event(event, change));
                        }
                    }
                    Ok(None) => return None,
                    Err(compacted) => self.source = Source::Failed(too_old(compacted)),
                },
                Source::Failed(_) => {
                    if let Source::Failed(error) = std::mem::replace(&mut self.source, Source::Over) {
                        return Some(Notice::Error(error));
                    }
                }
                Source::Over => return None,
            }
        }
    }

    /// The next notice; none when the watch is over.
    pub async fn next(&mut self) -> Option<Notice> {
        loop {
            if let Some(notice) = self.ready() {
                return Some(notice);
            }
            let Source::Cursor(cursor) = &mut self.source else { return None };
            let wakes = if self.bookmarks { self.next_bookmark.min(self.ends) } else { self.ends };
            tokio::select! {
                biased;
                () = self.serving.cancelled() => return None,
                event = cursor.next() => match event {
                    Ok(event) => {
                        if let Some(change) = Change::of(&event, &self.resource, &self.selection) {
                            return Some(Notice::Event(event, change));
                        }
                    }
                    Err(compacted) => self.source = Source::Failed(too_old(compacted)),
                },
                () = tokio::time::sleep_until(wakes) => {
                    if Instant::now() >= self.ends {
                        return None;
                    }
                    // Read before the events are looked at once more: what it counts has been published.
                    let revision = *self.applied.borrow_and_update();
                    if let Some(notice) = self.ready() {
                        return Some(notice);
                    }
                    let last = self.ends - LAST_BOOKMARK;
                    let now = Instant::now();
                    self.next_bookmark = if now < last { last.min(now + BOOKMARK_EVERY) } else { self.ends };
                    return Some(Notice::Bookmark { revision, initial_end: false });
                }
            }
        }
    }
}

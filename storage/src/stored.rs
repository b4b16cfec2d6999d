//! How records and events look where they are kept: in RocksDB and in snapshots.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::codec::Blob;
use crate::event::Event;
use crate::record::splice;
use crate::{Key, Record, Revision};

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct StoredRecord<'a> {
    created: Revision,
    modified: Revision,
    span: Option<(u32, u32)>,
    expires_at: Option<u64>,
    #[serde(borrow)]
    value: Blob<'a>,
}

impl<'a> StoredRecord<'a> {
    pub(crate) fn of(record: &'a Record) -> StoredRecord<'a> {
        StoredRecord {
            created: record.created,
            modified: record.modified,
            span: record.revision_span,
            expires_at: record.expires_at,
            value: Blob(&record.value),
        }
    }

    pub(crate) fn restore(&self, key: Key) -> Result<Record, &'static str> {
        let value = Bytes::copy_from_slice(self.value.0);
        let record = Record::restore(key, value, self.span, self.expires_at, self.created, self.modified);
        if record.span().is_some() != self.span.is_some() {
            return Err("its revision lies outside of its value");
        }
        if self.created > self.modified {
            return Err("it was modified before it was created");
        }
        Ok(record)
    }
}

/// An event keeps the version it superseded as the difference to the one it wrote, for most writes change little: a
/// renewed lease is a few dozen bytes here. So histories are read from the newest event to the oldest.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct StoredEvent<'a> {
    pub(crate) key: &'a str,
    deleted: bool,
    #[serde(borrow)]
    previous: Option<StoredPrevious<'a>>,
}

/// Both values are compared without their revisions.
#[derive(Debug, Serialize, Deserialize)]
struct StoredPrevious<'a> {
    created: Revision,
    modified: Revision,
    /// Where the revision goes back in.
    revision_at: Option<u32>,
    expires_at: Option<u64>,
    /// Leading and trailing bytes in common with the version that the event wrote.
    prefix: u32,
    suffix: u32,
    #[serde(borrow)]
    middle: Blob<'a>,
    /// Of the whole version.
    hash: u64,
}

/// Calls `store` with the stored form of `event`.
pub(crate) fn store_event<T>(event: &Event, store: impl FnOnce(&StoredEvent) -> T) -> T {
    let base = event.record.as_ref().map_or(Cow::Borrowed(&[][..]), |record| stripped(record));
    let value = event.previous.as_ref().map_or(Cow::Borrowed(&[][..]), |record| stripped(record));
    let prefix = common(&base, &value);
    let suffix = common_end(&base[prefix..], &value[prefix..]);
    let previous = event.previous.as_ref().map(|record| StoredPrevious {
        created: record.created,
        modified: record.modified,
        revision_at: record.revision_span.map(|(at, _)| at),
        expires_at: record.expires_at,
        prefix: prefix as u32,
        suffix: suffix as u32,
        middle: Blob(&value[prefix..value.len() - suffix]),
        hash: record.hash(),
    });
    store(&StoredEvent { key: event.key.as_str(), deleted: event.record.is_none(), previous })
}

impl StoredEvent<'_> {
    /// `record` is what the key held right after the event.
    pub(crate) fn restore(&self, revision: Revision, record: Option<Arc<Record>>) -> Result<Event, &'static str> {
        match &record {
            Some(_) if self.deleted => return Err("a later version follows its deletion without a creation"),
            None if !self.deleted => return Err("the version that it wrote is missing"),
            Some(record) if record.modified != revision => return Err("the version that it wrote is another one"),
            _ => {}
        }
        let key = record.as_ref().map_or_else(|| Key::from(self.key), |record| record.key.clone());
        let previous = match &self.previous {
            Some(previous) => Some(Arc::new(previous.restore(key.clone(), record.as_deref())?)),
            None => None,
        };
        if previous.as_ref().is_some_and(|previous| previous.modified >= revision) {
            return Err("the version that it superseded is newer than itself");
        }
        Ok(Event::new(revision, key, record, previous))
    }
}

impl StoredPrevious<'_> {
    fn restore(&self, key: Key, successor: Option<&Record>) -> Result<Record, &'static str> {
        const MISFIT: &str = "the version that it superseded does not fit the one that it wrote";
        let base = successor.map_or(Cow::Borrowed(&[][..]), stripped);
        let (prefix, suffix) = (self.prefix as usize, self.suffix as usize);
        if prefix.saturating_add(suffix) > base.len() {
            return Err(MISFIT);
        }
        let value = [&base[..prefix], self.middle.0, &base[base.len() - suffix..]].concat();
        let (value, span) = match self.revision_at {
            None => (Bytes::from(value), None),
            Some(at) if at as usize > value.len() => return Err(MISFIT),
            Some(at) => {
                let (before, after) = value.split_at(at as usize);
                let (value, digits) = splice(before, self.modified, after);
                (value, Some((at, digits as u32)))
            }
        };
        let record = Record::restore(key, value, span, self.expires_at, self.created, self.modified);
        if record.hash() == self.hash { Ok(record) } else { Err(MISFIT) }
    }
}

/// The value without its revision.
fn stripped(record: &Record) -> Cow<'_, [u8]> {
    match record.span() {
        None => Cow::Borrowed(&record.value),
        Some(span) => Cow::Owned([&record.value[..span.start], &record.value[span.end..]].concat()),
    }
}

/// The length of the common beginning; blocks first, for those compare at the speed of memory.
fn common(a: &[u8], b: &[u8]) -> usize {
    const BLOCK: usize = 64;
    let start = a.chunks_exact(BLOCK).zip(b.chunks_exact(BLOCK)).take_while(|(a, b)| a == b).count() * BLOCK;
    start + a[start..].iter().zip(&b[start..]).take_while(|(a, b)| a == b).count()
}

fn common_end(a: &[u8], b: &[u8]) -> usize {
    const BLOCK: usize = 64;
    let end = a.rchunks_exact(BLOCK).zip(b.rchunks_exact(BLOCK)).take_while(|(a, b)| a == b).count() * BLOCK;
    let (a, b) = (&a[..a.len() - end], &b[..b.len() - end]);
    end + a.iter().rev().zip(b.iter().rev()).take_while(|(a, b)| a == b).count()
}

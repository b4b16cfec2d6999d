//! Response bodies: whole, lists that are put together as they are sent, and watches.

use std::io::Write;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::Stream;
use http_body::{Frame, SizeHint};
use kontiki_storage::Record;

use super::represent::Representation;
use crate::metrics::METRICS;
use crate::verbs::{list, watch};

/// How much of a list is put together at a time.
const CHUNK: usize = 128 << 10;
/// Watch notices that are ready go out together up to this size.
const WATCH_CHUNK: usize = 32 << 10;

#[allow(clippy::large_enum_variant, reason = "one for each response, and most responses are the small ones")]
pub enum Body {
    Full(Option<Bytes>),
    List(List),
    Stream(Pin<Box<dyn Stream<Item = Bytes> + Send>>),
}

impl Body {
    pub fn full(bytes: impl Into<Bytes>) -> Body {
        Body::Full(Some(bytes.into()).filter(|bytes| !bytes.is_empty()))
    }

    pub fn stream(stream: impl Stream<Item = Bytes> + Send + 'static) -> Body {
        Body::Stream(Box::pin(stream))
    }

    pub(super) fn watch(representation: Arc<Representation>, watch: watch::Watch) -> Body {
        let encoder = representation.watch_encoder();
        let sent = METRICS.watched(watch.resource());
        Body::stream(futures_util::stream::unfold(
            (watch, encoder, sent),
            |(mut watch, mut encoder, sent)| async move {
                let first = encoder.encode(watch.next().await?);
                sent.event(first.len());
                if first.len() >= WATCH_CHUNK {
                    return Some((first, (watch, encoder, sent)));
                }
                let mut more: Option<Vec<u8>> = None;
                while let Some(notice) = watch.ready() {
                    let chunk = more.get_or_insert_with(|| first.to_vec());
                    let next = encoder.encode(notice);
                    sent.event(next.len());
                    chunk.extend_from_slice(&next);
                    if chunk.len() >= WATCH_CHUNK {
                        break;
                    }
                }
                Some((more.map_or(first, Bytes::from), (watch, encoder, sent)))
            },
        ))
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let next = match self.get_mut() {
            Body::Full(bytes) => bytes.take(),
            Body::List(list) => list.next(),
            Body::Stream(stream) => std::task::ready!(stream.as_mut().poll_next(cx)),
        };
        Poll::Ready(next.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Body::Full(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Body::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Body::List(list) if list.encoder.is_none() => SizeHint::with_exact(list.left as u64),
            _ => SizeHint::default(),
        }
    }
}

/// A list in JSON: the stored bytes of its objects, less their `kind` and `apiVersion`, which items of a list leave out.
pub struct List {
    head: Vec<u8>,
    records: std::vec::IntoIter<Arc<Record>>,
    /// How much of each object's bytes is `{"kind":…,"apiVersion":…,`.
    skip: usize,
    started: bool,
    ended: bool,
    /// Bytes still to come, before compression.
    left: usize,
    encoder: Option<GzEncoder<Vec<u8>>>,
}

impl List {
    pub(super) fn new(representation: &Representation, list: list::List) -> List {
        let head = representation.list_head(&list);
        let skip = representation.item_prefix();
        let items: usize =
            list.records.iter().map(|record| record.value.len() - skip.min(record.value.len()) + 1).sum();
        let left = head.len() + items + list.records.len().saturating_sub(1) + TAIL.len();
        List { head, records: list.records.into_iter(), skip, started: false, ended: false, left, encoder: None }
    }

    pub(super) fn len(&self) -> usize {
        self.left
    }

    pub(super) fn compressed(mut self) -> List {
        self.encoder = Some(GzEncoder::new(Vec::with_capacity(CHUNK / 4), Compression::fast()));
        self
    }

    fn next(&mut self) -> Option<Bytes> {
        loop {
            let chunk = self.chunk()?;
            let Some(encoder) = &mut self.encoder else { return Some(chunk.into()) };
            // Writing into memory can't fail.
            let _ = encoder.write_all(&chunk);
            if self.ended {
                let done = self.encoder.take()?;
                return Some(done.finish().unwrap_or_default().into());
            }
            let ready = encoder.get_mut();
            if !ready.is_empty() {
                return Some(std::mem::take(ready).into());
            }
        }
    }

    fn chunk(&mut self) -> Option<Vec<u8>> {
        if self.ended {
            return None;
        }
        let mut chunk = Vec::with_capacity(self.left.min(CHUNK + (CHUNK >> 1)));
        if !self.started {
            self.started = true;
            chunk.append(&mut self.head);
            self.item(&mut chunk);
        }
        while chunk.len() < CHUNK {
            if self.records.as_slice().is_empty() {
                chunk.extend_from_slice(TAIL);
                self.ended = true;
                break;
            }
            chunk.push(b',');
            self.item(&mut chunk);
        }
        self.left = self.left.saturating_sub(chunk.len());
        Some(chunk)
    }

    fn item(&mut self, chunk: &mut Vec<u8>) {
        if let Some(record) = self.records.next() {
            chunk.push(b'{');
            chunk.extend_from_slice(record.value.get(self.skip..).unwrap_or_default());
        }
    }
}

const TAIL: &[u8] = b"]}\n";

pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 4), Compression::fast());
    // Writing into memory can't fail.
    let _ = encoder.write_all(bytes);
    encoder.finish().unwrap_or_default()
}

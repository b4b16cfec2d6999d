//! The network between simulated replicas. It carries what they really send, encoded as they encode it, and delays,
//! reorders, loses and repeats it. Calls are carried each by itself, in any order; the messages of a stream stay in
//! order, and a stream that loses one breaks.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, stream};
use http_body_util::{BodyExt, StreamBody};
use hyper::Response;
use hyper::body::Frame;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, JoinHandle};

use super::Mistake;
use crate::peer::{
    APPEND_STREAM, Body, Caller, Connection, Ended, PROPOSE, PeerError, SNAPSHOT, Service, Transport, full,
};
use crate::types::{Batch, Member};

type Action = Box<dyn FnOnce() + Send>;
type Reply<T> = Arc<Mutex<Option<oneshot::Sender<T>>>>;
type Sender = mpsc::UnboundedSender<io::Result<Bytes>>;
type Feed = Arc<Mutex<Option<Sender>>>;

/// How it carries messages; times are milliseconds, the others probabilities.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Weather {
    pub(crate) delay: (u64, u64),
    pub(crate) long_delay: (u64, u64),
    pub(crate) delayed: f64,
    pub(crate) lost: f64,
    pub(crate) repeated: f64,
}

/// A handle; clones are the same network. Whoever isn't a replica has the first number that is none's.
#[derive(Clone)]
pub(crate) struct Network(Arc<Mutex<State>>);

struct State {
    now: u64,
    rng: StdRng,
    weather: Weather,
    names: Vec<String>,
    /// From, to: nothing gets through.
    cut: Vec<Vec<bool>>,
    places: Vec<Place>,
    /// By the time of arrival and the order of sending.
    parcels: BTreeMap<(u64, u64), Parcel>,
    sent: u64,
    /// What was lost, until those who wait for it notice.
    lost: Vec<(u64, Action)>,
    trace: DefaultHasher,
    delivered: u64,
    snapshots: u64,
    mistake: Option<Mistake>,
}

#[derive(Default)]
struct Place {
    /// Counts a replica's lives: connections don't outlive one.
    life: u64,
    listens: Option<(Arc<Service>, Handle)>,
}

struct Parcel {
    from: usize,
    to: usize,
    what: &'static str,
    content: u64,
    stream: Option<Arc<Stream>>,
    action: Action,
}

/// What both directions of a stream share.
#[derive(Default)]
struct Stream {
    broken: AtomicBool,
    /// For as long as anybody can still feed them.
    feeds: Mutex<Vec<Weak<Mutex<Option<Sender>>>>>,
}

impl Stream {
    /// Whoever still reads hears that nothing more comes.
    fn end(&self) {
        for feed in std::mem::take(&mut *self.feeds.lock()) {
            if let Some(feed) = feed.upgrade().and_then(|feed| feed.lock().take()) {
                // Whoever reads no more misses nothing.
                let _ = feed.send(Err(io::Error::other("the connection has broken")));
            }
        }
    }
}

impl Network {
    pub(crate) fn new(seed: u64, names: Vec<String>, weather: Weather, mistake: Option<Mistake>) -> Network {
        let ends = names.len() + 1;
        Network(Arc::new(Mutex::new(State {
            now: 0,
            rng: StdRng::seed_from_u64(seed),
            weather,
            cut: vec![vec![false; ends]; ends],
            places: names.iter().map(|_| Place::default()).collect(),
            names,
            parcels: BTreeMap::new(),
            sent: 0,
            lost: Vec::new(),
            trace: DefaultHasher::new(),
            delivered: 0,
            snapshots: 0,
            mistake,
        })))
    }

    /// The transport of replica `at`.
    pub(crate) fn of(&self, at: usize) -> Arc<dyn Transport> {
        Arc::new(End { network: self.clone(), at })
    }

    pub(crate) fn outside(&self) -> usize {
        self.0.lock().names.len()
    }

    pub(crate) fn weather(&self, weather: Weather) {
        self.0.lock().weather = weather;
    }

    pub(crate) fn cut(&self, from: usize, to: usize, cut: bool) {
        self.0.lock().cut[from][to] = cut;
    }

    pub(crate) fn now(&self) -> u64 {
        self.0.lock().now
    }

    /// Notes what happened, for the comparison of two runs.
    pub(crate) fn note(&self, event: impl Hash) {
        let mut state = self.0.lock();
        let now = state.now;
        (now, event).hash(&mut state.trace);
    }

    /// A hash of everything that has happened.
    pub(crate) fn trace(&self) -> u64 {
        self.0.lock().trace.finish()
    }

    pub(crate) fn delivered(&self) -> u64 {
        self.0.lock().delivered
    }

    /// How many were begun to be sent.
    pub(crate) fn snapshots(&self) -> u64 {
        self.0.lock().snapshots
    }

    /// The replica's process ends: connections to it are closed, and it listens no more.
    pub(crate) fn hang_up(&self, at: usize) {
        let place = {
            let mut state = self.0.lock();
            let place = &mut state.places[at];
            place.life += 1;
            place.listens.take()
        };
        drop(place);
    }

    /// Lets a millisecond pass and delivers what has come.
    pub(crate) fn step(&self) {
        let noticed: Vec<_> = {
            let mut state = self.0.lock();
            state.now += 1;
            let now = state.now;
            state.lost.extract_if(.., |(until, _)| *until <= now).collect()
        };
        drop(noticed);
        while let Some(parcel) = self.next() {
            (parcel.action)();
        }
    }

    /// The next message that has arrived.
    fn next(&self) -> Option<Parcel> {
        loop {
            let mut state = self.0.lock();
            let state = &mut *state;
            let entry = state.parcels.first_entry().filter(|entry| entry.key().0 <= state.now)?;
            let parcel = entry.remove();
            if parcel.stream.as_ref().is_some_and(|stream| stream.broken.load(Ordering::Relaxed)) {
                state.lose(parcel.action);
                continue;
            }
            let lost = match &parcel.stream {
                _ if parcel.from == parcel.to => false,
                // Lost bits are sent again on a stream; it takes more to break it.
                Some(_) => state.rng.random_bool(state.weather.lost / 20.0),
                None => state.rng.random_bool(state.weather.lost),
            };
            let Parcel { from, to, what, .. } = parcel;
            if lost || state.cut[from][to] {
                tracing::trace!(now = state.now, from, to, what, "lost");
                if let Some(stream) = parcel.stream {
                    stream.broken.store(true, Ordering::Relaxed);
                    let at = state.now + state.rng.random_range(100..3000);
                    let Parcel { from, content, .. } = parcel;
                    let action = Box::new(move || stream.end());
                    state.post(at, Parcel { from, to: from, what: "break", content, stream: None, action });
                }
                state.lose(parcel.action);
                continue;
            }
            tracing::trace!(now = state.now, from, to, what, "delivered");
            state.delivered += 1;
            (state.now, from, to, what, parcel.content).hash(&mut state.trace);
            return Some(parcel);
        }
    }

    /// Sends something; `action` is what its arrival does.
    pub(crate) fn send(
        &self,
        from: usize,
        to: usize,
        what: &'static str,
        content: u64,
        action: impl FnOnce() + Send + 'static,
    ) {
        let mut state = self.0.lock();
        let at = state.now + state.delay();
        state.post(at, Parcel { from, to, what, content, stream: None, action: Box::new(action) });
    }

    fn repeats(&self) -> bool {
        let mut state = self.0.lock();
        let repeated = state.weather.repeated;
        state.rng.random_bool(repeated)
    }

    fn life(&self, at: usize) -> u64 {
        self.0.lock().places[at].life
    }

    /// Where requests to a replica go, if it is in the same life.
    fn listener(&self, at: usize, life: u64) -> Option<(Arc<Service>, Handle)> {
        let state = self.0.lock();
        let place = &state.places[at];
        place.listens.clone().filter(|_| place.life == life)
    }
}

impl State {
    fn delay(&mut self) -> u64 {
        let delayed = self.rng.random_bool(self.weather.delayed);
        let (low, high) = if delayed { self.weather.long_delay } else { self.weather.delay };
        self.rng.random_range(low..=high)
    }

    fn post(&mut self, at: u64, parcel: Parcel) {
        self.sent += 1;
        self.parcels.insert((at, self.sent), parcel);
    }

    fn lose(&mut self, action: Action) {
        let until = self.now + self.rng.random_range(100..3000);
        self.lost.push((until, action));
    }
}

fn digest(content: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    content.hash(&mut hasher);
    hasher.finish()
}

/// A batch of proposals without what they would be recognised by.
fn anonymous(batch: Bytes) -> Bytes {
    let mut proposals = Batch::stored(batch.clone()).proposals().map(Cow::into_owned).unwrap_or_default();
    proposals.iter_mut().for_each(|proposal| proposal.client = 0);
    Batch::new(proposals).map_or(batch, |batch| batch.bytes().clone())
}

/// One replica's end of the network.
struct End {
    network: Network,
    at: usize,
}

impl Transport for End {
    fn connect<'a>(&'a self, member: &'a Member, ended: Ended) -> BoxFuture<'a, Result<Arc<dyn Connection>, String>> {
        async move {
            let (network, from) = (&self.network, self.at);
            let (to, name) = {
                let state = network.0.lock();
                let to = state.names.iter().position(|name| *name == member.address);
                (to.ok_or("there is no such address")?, state.names[from].clone())
            };
            let (reply, answer) = oneshot::channel();
            let back = network.clone();
            network.send(from, to, "connect", 0, move || {
                let life = back.life(to);
                let listens = back.listener(to, life).is_some();
                back.send(to, from, "accept", listens.into(), move || {
                    // Whoever has given up meanwhile gets no connection.
                    let _ = reply.send(listens.then_some(life));
                });
            });
            let life = answer.await.ok().flatten().ok_or_else(|| format!("{} refuses", member.address))?;
            let caller = Arc::new(Caller::new(name));
            let link = Link { network: network.clone(), from, to, life, caller, ended: Mutex::new(Some(ended)) };
            Ok(Arc::new(link) as Arc<dyn Connection>)
        }
        .boxed()
    }

    fn serve(&self, service: Arc<Service>) -> JoinHandle<()> {
        self.network.0.lock().places[self.at].listens = Some((service, Handle::current()));
        tokio::spawn(std::future::pending())
    }
}

struct Link {
    network: Network,
    from: usize,
    to: usize,
    life: u64,
    caller: Arc<Caller>,
    ended: Mutex<Option<Ended>>,
}

impl Drop for Link {
    fn drop(&mut self) {
        if let Some(ended) = self.ended.lock().take() {
            ended(None);
        }
    }
}

impl Connection for Link {
    fn is_closed(&self) -> bool {
        self.network.life(self.to) != self.life
    }

    fn send(&self, path: &'static str, body: Body) -> BoxFuture<'_, Result<Response<Body>, PeerError>> {
        async move {
            match path {
                APPEND_STREAM | SNAPSHOT => self.stream(path, body).await,
                _ => self.call(path, body).await,
            }
        }
        .boxed()
    }
}

impl Link {
    async fn call(&self, path: &'static str, body: Body) -> Result<Response<Body>, PeerError> {
        let bytes = body.collect().await.map_err(|error| PeerError::Unreachable(error.to_string()))?.to_bytes();
        let bytes = match self.network.0.lock().mistake {
            Some(Mistake::ForgetsProposals) if path == PROPOSE => anonymous(bytes),
            _ => bytes,
        };
        let (reply, answer) = oneshot::channel();
        let reply: Reply<Response<Body>> = Arc::new(Mutex::new(Some(reply)));
        for _ in 0..1 + usize::from(self.network.repeats()) {
            let (network, from, to, life) = (self.network.clone(), self.from, self.to, self.life);
            let (caller, bytes, reply) = (self.caller.clone(), bytes.clone(), reply.clone());
            self.network.send(from, to, path, digest(&bytes), move || {
                let Some((service, handle)) = network.listener(to, life) else { return };
                handle.spawn(async move {
                    let response = service.answer(&caller, path, full(bytes)).await;
                    let (head, body) = response.into_parts();
                    let Ok(body) = body.collect().await else { return };
                    let bytes = body.to_bytes();
                    network.send(to, from, "answer", digest((head.status, &bytes)), move || {
                        if let Some(reply) = reply.lock().take() {
                            // Whoever has given up meanwhile needs no answer.
                            let _ = reply.send(Response::from_parts(head, full(bytes)));
                        }
                    });
                });
            });
        }
        drop(reply);
        answer.await.map_err(|_| PeerError::Lost("the connection has broken".into()))
    }

    async fn stream(&self, path: &'static str, body: Body) -> Result<Response<Body>, PeerError> {
        let (reply, answer) = oneshot::channel();
        let (network, to, life, caller) = (self.network.clone(), self.to, self.life, self.caller.clone());
        let there = Arc::new(Pipe::new(self.network.clone(), self.from, self.to));
        let back = Arc::new(there.back());
        let (feed, received) = there.channel();
        let task: Arc<Mutex<Option<AbortHandle>>> = Arc::default();
        let answering = task.clone();
        if path == SNAPSHOT {
            self.network.0.lock().snapshots += 1;
        }
        there.send(path, 0, move || {
            let Some((service, handle)) = network.listener(to, life) else { return };
            let answering_task = handle.spawn(async move {
                let response = service.answer(&caller, path, received).await;
                let (head, body) = response.into_parts();
                let (feed, received) = back.channel();
                back.send("stream answer", digest(head.status), move || {
                    // Whoever has given up meanwhile needs no answer.
                    let _ = reply.send(Response::from_parts(head, received));
                });
                pump(body, &back, &feed).await;
            });
            *answering.lock() = Some(answering_task.abort_handle());
        });
        let sending = tokio::spawn({
            let (there, feed) = (there.clone(), feed.clone());
            async move { pump(body, &there, &feed).await }
        });
        let guard = Guard { there, feed, sending: sending.abort_handle(), answering: task };
        let response = answer.await.map_err(|_| PeerError::Lost("the stream has broken".into()))?;
        Ok(response.map(|body| guarded(body, guard)))
    }
}

/// One direction of a stream: what goes in comes out in order, until it breaks.
struct Pipe {
    network: Network,
    from: usize,
    to: usize,
    stream: Arc<Stream>,
    last: AtomicU64,
}

impl Pipe {
    fn new(network: Network, from: usize, to: usize) -> Pipe {
        Pipe { network, from, to, stream: Arc::default(), last: AtomicU64::new(0) }
    }

    fn back(&self) -> Pipe {
        let Pipe { network, from, to, stream, .. } = self;
        Pipe { network: network.clone(), from: *to, to: *from, stream: stream.clone(), last: AtomicU64::new(0) }
    }

    fn send(&self, what: &'static str, content: u64, action: impl FnOnce() + Send + 'static) {
        let mut state = self.network.0.lock();
        let at = (state.now + state.delay()).max(self.last.load(Ordering::Relaxed));
        self.last.store(at, Ordering::Relaxed);
        let stream = Some(self.stream.clone());
        state.post(at, Parcel { from: self.from, to: self.to, what, content, stream, action: Box::new(action) });
    }

    /// A body that is fed by what arrives.
    fn channel(&self) -> (Feed, Body) {
        let (feed, received) = mpsc::unbounded_channel::<io::Result<Bytes>>();
        let messages = stream::unfold(received, |mut received| async move {
            let message = received.recv().await?;
            Some((message.map(Frame::data), received))
        });
        let feed: Feed = Arc::new(Mutex::new(Some(feed)));
        self.stream.feeds.lock().push(Arc::downgrade(&feed));
        (feed, StreamBody::new(messages).boxed_unsync())
    }
}

/// Carries a body to whoever is fed.
async fn pump(mut body: Body, pipe: &Pipe, feed: &Feed) {
    while let Some(frame) = body.frame().await {
        let feed = feed.clone();
        let Some(data) = frame.ok().and_then(|frame| frame.into_data().ok()) else { return };
        pipe.send("message", digest(&data), move || {
            if let Some(feed) = &*feed.lock() {
                // Whoever reads no more misses nothing.
                let _ = feed.send(Ok(data));
            }
        });
    }
    let feed = feed.clone();
    pipe.send("end", 0, move || drop(feed.lock().take()));
}

/// Ends a stream when the one who opened it wants no more of it.
struct Guard {
    there: Arc<Pipe>,
    feed: Feed,
    sending: AbortHandle,
    answering: Arc<Mutex<Option<AbortHandle>>>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.sending.abort();
        let (feed, answering) = (self.feed.clone(), self.answering.clone());
        self.there.send("close", 0, move || {
            drop(feed.lock().take());
            if let Some(answering) = answering.lock().take() {
                answering.abort();
            }
        });
    }
}

fn guarded(body: Body, guard: Guard) -> Body {
    let frames = stream::unfold((body, guard), |(mut body, guard)| async move {
        let frame = body.frame().await?;
        Some((frame, (body, guard)))
    });
    StreamBody::new(frames).boxed_unsync()
}

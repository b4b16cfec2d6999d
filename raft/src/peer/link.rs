//! One connection to a peer: made when it is needed, made again with a growing pause after it failed.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use http_body_util::{BodyExt, Limited, StreamBody};
use hyper::body::Frame;
use hyper::{Response, StatusCode};
use kontiki_storage::codec;
use rand::Rng;
use tokio::time::{Instant, timeout, timeout_at};

use super::message::{FRAME, HELLO, Hello, Welcome};
use super::transport::{Body, Connection, Ended, PeerError, full};
use super::{Exclusion, Me};
use crate::host;
use crate::types::{Member, NodeId};

const CONNECT: Duration = Duration::from_millis(1000);
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

pub(super) struct Link {
    me: Arc<Me>,
    pub(super) id: NodeId,
    pub(super) member: Member,
    /// Peers come and go on this one, for the operator; the others go with it.
    announces: bool,
    state: tokio::sync::Mutex<State>,
}

#[derive(Default)]
struct State {
    connection: Option<Arc<dyn Connection>>,
    failed: Option<Failed>,
}

struct Failed {
    pause: Duration,
    until: Instant,
    error: String,
}

impl Link {
    pub(super) fn new(me: Arc<Me>, id: NodeId, member: Member, announces: bool) -> Link {
        Link { me, id, member, announces, state: Default::default() }
    }

    /// A message and the answer to it.
    pub(super) async fn call(
        &self,
        path: &'static str,
        message: Vec<u8>,
        deadline: Instant,
    ) -> Result<Bytes, PeerError> {
        let response = timeout_at(deadline, self.send(path, full(message))).await.map_err(|_| PeerError::Timeout)??;
        let answer = timeout_at(deadline, collect(response)).await.map_err(|_| PeerError::Timeout)?;
        if let Err(PeerError::Refused { status: StatusCode::GONE, .. }) = &answer {
            self.me.exclude(Exclusion::Removed(self.member.name.clone()));
        }
        answer
    }

    /// A stream of messages, and the answer as it comes.
    pub(super) async fn stream(
        &self,
        path: &'static str,
        messages: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    ) -> Result<Body, PeerError> {
        use futures_util::TryStreamExt;
        let response = self.send(path, StreamBody::new(messages.map_ok(Frame::data)).boxed_unsync()).await?;
        if response.status() == StatusCode::OK {
            return Ok(response.into_body());
        }
        Err(collect(response).await.err().unwrap_or(PeerError::Timeout))
    }

    /// The next attempt is made without a pause. One that is under way goes on.
    pub(super) fn retry(&self) {
        if let Ok(mut state) = self.state.try_lock()
            && let Some(failed) = &mut state.failed
        {
            (failed.pause, failed.until) = (FIRST_PAUSE, Instant::now());
        }
    }

    async fn send(&self, path: &'static str, body: Body) -> Result<Response<Body>, PeerError> {
        self.connection().await?.send(path, body).await
    }

    async fn connection(&self) -> Result<Arc<dyn Connection>, PeerError> {
        let mut state = self.state.lock().await;
        if let Some(connection) = state.connection.as_ref().filter(|connection| !connection.is_closed()) {
            return Ok(connection.clone());
        }
        if let Some(failed) = state.failed.as_ref().filter(|failed| Instant::now() < failed.until) {
            return Err(PeerError::Unreachable(failed.error.clone()));
        }
        let error = match timeout(CONNECT, self.connect()).await {
            Ok(Ok((connection, hello))) => {
                if self.announces {
                    tracing::info!(peer = hello.name, version = hello.announced.version, "connected to a peer");
                }
                *state = State { connection: Some(connection.clone()), failed: None };
                return Ok(connection);
            }
            Ok(Err(error)) => error,
            Err(_) => format!("no connection to {} in time", self.member.address),
        };
        let pause = match &state.failed {
            Some(failed) => (failed.pause * 2).min(LONGEST_PAUSE),
            None => {
                if self.announces {
                    tracing::warn!(peer = self.member.name, address = self.member.address, error, "a peer is away");
                }
                FIRST_PAUSE
            }
        };
        let until = Instant::now() + pause.mul_f64(host::rng().random_range(0.75..1.25));
        *state = State { connection: None, failed: Some(Failed { pause, until, error: error.clone() }) };
        Err(PeerError::Unreachable(error))
    }

    async fn connect(&self) -> Result<(Arc<dyn Connection>, Hello), String> {
        let address = &self.member.address;
        let connection = self.me.transport.connect(&self.member, self.ended()).await?;
        if self.announces {
            self.me.metrics.peer_connected.with_label_values(&[&self.member.name]).set(1);
        }
        let hello = codec::encode(&self.me.hello).map_err(|error| error.to_string())?;
        let response = connection.send(HELLO, full(hello)).await.map_err(|error| format!("{address}: {error}"))?;
        let answer = collect(response).await.map_err(|error| format!("{address}: {error}"))?;
        match codec::decode(&answer).map_err(|error| format!("{address}: {error}"))? {
            Welcome::Hello(hello) => {
                self.admit(&hello).await?;
                Ok((connection, hello))
            }
            Welcome::Stranger => Err(format!("{address} belongs to another cluster")),
            Welcome::Wiped => {
                self.me.exclude(Exclusion::Wiped(self.member.name.clone()));
                Err(format!("{address} knows this replica with another data directory"))
            }
            Welcome::Removed(hello) => {
                // One that has lost its data may lead a cluster of its own by now, and has removed nobody.
                self.admit(&hello).await?;
                self.me.exclude(Exclusion::Removed(self.member.name.clone()));
                Err(format!("{address} no longer takes this replica for a member"))
            }
        }
    }

    async fn admit(&self, hello: &Hello) -> Result<(), String> {
        let address = &self.member.address;
        if hello.node != self.id {
            return Err(format!("{address} is replica {} with another id", hello.name));
        }
        self.me.admit(hello).await.map_err(|refusal| format!("{address}: {refusal}"))
    }

    fn ended(&self) -> Ended {
        let (announces, peer, metrics) = (self.announces, self.member.name.clone(), self.me.metrics.clone());
        Box::new(move |error| {
            if announces {
                metrics.peer_connected.with_label_values(&[&peer]).set(0);
                // If there is no other it is told that the peer is away.
                tracing::info!(peer, error, "the connection to a peer has ended");
            }
        })
    }
}

async fn collect(response: Response<Body>) -> Result<Bytes, PeerError> {
    let status = response.status();
    let body = Limited::new(response.into_body(), FRAME).collect().await;
    let body = body.map_err(|error| PeerError::Lost(error.to_string()))?.to_bytes();
    if status == StatusCode::OK {
        return Ok(body);
    }
    Err(PeerError::Refused { status, text: String::from_utf8_lossy(&body[..body.len().min(512)]).into_owned() })
}

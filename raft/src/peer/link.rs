//! One HTTP/2 connection to a peer: made when it is needed, made again with a growing pause after it failed.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http2::SendRequest;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use kontiki_storage::codec;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;

use super::message::{FRAME, HELLO, Hello, Welcome};
use super::{Me, tls};
use crate::types::{Member, NodeId};

const CONNECT: Duration = Duration::from_millis(1000);
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// A peer that answers no ping for this long is taken for gone.
const PING_EVERY: Duration = Duration::from_secs(1);
const PING_TIMEOUT: Duration = Duration::from_secs(2);
pub(super) const WINDOW: u32 = 4 << 20;

pub(super) type RequestBody = UnsyncBoxBody<Bytes, io::Error>;

#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum PeerError {
    /// Nothing was sent.
    #[error("{0}")]
    Unreachable(String),
    /// The peer may have acted on it.
    #[error("{0}")]
    Lost(String),
    #[error("no answer in time")]
    Timeout,
    /// The peer didn't act on it.
    #[error("{status}: {text}")]
    Refused { status: StatusCode, text: String },
}

pub(super) struct Link {
    me: Arc<Me>,
    pub(super) id: NodeId,
    pub(super) member: Member,
    /// Peers come and go on this one, for the operator; the others go with it.
    announces: bool,
    connection: tokio::sync::Mutex<Connection>,
}

#[derive(Default)]
struct Connection {
    sender: Option<SendRequest<RequestBody>>,
    failed: Option<Failed>,
}

struct Failed {
    pause: Duration,
    until: Instant,
    error: String,
}

impl Link {
    pub(super) fn new(me: Arc<Me>, id: NodeId, member: Member, announces: bool) -> Link {
        Link { me, id, member, announces, connection: Default::default() }
    }

    /// A message and the answer to it.
    pub(super) async fn call(&self, path: &str, message: Vec<u8>, deadline: Instant) -> Result<Bytes, PeerError> {
        let body = Full::new(Bytes::from(message)).map_err(|never| match never {}).boxed_unsync();
        let response = timeout_at(deadline, self.send(path, body)).await.map_err(|_| PeerError::Timeout)??;
        timeout_at(deadline, collect(response)).await.map_err(|_| PeerError::Timeout)?
    }

    /// A stream of messages, and the answer as it comes.
    pub(super) async fn stream(
        &self,
        path: &str,
        messages: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    ) -> Result<Response<Incoming>, PeerError> {
        use futures_util::TryStreamExt;
        let response = self.send(path, StreamBody::new(messages.map_ok(Frame::data)).boxed_unsync()).await?;
        if response.status() == StatusCode::OK {
            return Ok(response);
        }
        Err(collect(response).await.err().unwrap_or(PeerError::Timeout))
    }

    async fn send(&self, path: &str, body: RequestBody) -> Result<Response<Incoming>, PeerError> {
        let mut sender = self.sender().await?;
        let lost = |error: hyper::Error| PeerError::Lost(error.to_string());
        sender.ready().await.map_err(|error| PeerError::Unreachable(error.to_string()))?;
        let request = Request::post(path).body(body).map_err(|error| PeerError::Unreachable(error.to_string()))?;
        match sender.try_send_request(request).await {
            Ok(response) => Ok(response),
            Err(error) if error.message().is_some() => Err(PeerError::Unreachable(error.error().to_string())),
            Err(error) => Err(lost(error.into_error())),
        }
    }

    async fn sender(&self) -> Result<SendRequest<RequestBody>, PeerError> {
        let mut connection = self.connection.lock().await;
        if let Some(sender) = connection.sender.as_ref().filter(|sender| !sender.is_closed()) {
            return Ok(sender.clone());
        }
        if let Some(failed) = connection.failed.as_ref().filter(|failed| Instant::now() < failed.until) {
            return Err(PeerError::Unreachable(failed.error.clone()));
        }
        let error = match timeout(CONNECT, self.connect()).await {
            Ok(Ok((sender, hello))) => {
                if self.announces {
                    tracing::info!(peer = hello.name, version = hello.announced.version, "connected to a peer");
                }
                *connection = Connection { sender: Some(sender.clone()), failed: None };
                return Ok(sender);
            }
            Ok(Err(error)) => error,
            Err(_) => format!("no connection to {} in time", self.member.address),
        };
        let pause = match &connection.failed {
            Some(failed) => (failed.pause * 2).min(LONGEST_PAUSE),
            None => {
                if self.announces {
                    tracing::warn!(peer = self.member.name, address = self.member.address, error, "a peer is away");
                }
                FIRST_PAUSE
            }
        };
        let until = Instant::now() + pause.mul_f64(rand::random_range(0.75..1.25));
        *connection = Connection { sender: None, failed: Some(Failed { pause, until, error: error.clone() }) };
        Err(PeerError::Unreachable(error))
    }

    async fn connect(&self) -> Result<(SendRequest<RequestBody>, Hello), String> {
        let Some(ends) = &self.me.ends else { return Err("this replica has no certificate for peers".into()) };
        let address = &self.member.address;
        let at = |error: io::Error| format!("{address}: {error}");
        let socket = TcpStream::connect(address).await.map_err(at)?;
        socket.set_nodelay(true).map_err(at)?;
        let name = tls::server_name().map_err(|error| error.to_string())?;
        let stream = TlsConnector::from(ends.client.clone()).connect(name, socket).await.map_err(at)?;
        let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let name = certificate.map(tls::member_name).transpose().map_err(|error| format!("{address}: {error}"))?;
        if name.as_deref() != Some(&self.member.name) {
            let name = name.unwrap_or_default();
            return Err(format!("{address} is replica {name}, not {}", self.member.name));
        }
        let (mut sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(2 * WINDOW)
            .max_frame_size(256 << 10)
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_TIMEOUT)
            .keep_alive_while_idle(true)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| format!("{address}: {error}"))?;
        let (announces, peer, metrics) = (self.announces, self.member.name.clone(), self.me.metrics.clone());
        tokio::spawn(async move {
            let connected = metrics.peer_connected.with_label_values(&[&peer]);
            if announces {
                connected.set(1);
            }
            let ended = connection.await;
            if announces {
                connected.set(0);
                let error = ended.err().map(|error| error.to_string());
                tracing::warn!(peer, error, "the connection to a peer has ended");
            }
        });
        let hello = codec::encode(&self.me.hello).map_err(|error| error.to_string())?;
        let body = Full::new(Bytes::from(hello)).map_err(|never| match never {}).boxed_unsync();
        let request = Request::post(HELLO).body(body).map_err(|error| error.to_string())?;
        let response = sender.send_request(request).await.map_err(|error| format!("{address}: {error}"))?;
        let answer = collect(response).await.map_err(|error| format!("{address}: {error}"))?;
        match codec::decode(&answer).map_err(|error| format!("{address}: {error}"))? {
            Welcome::Hello(hello) => {
                if hello.node != self.id {
                    return Err(format!("{address} is replica {} with another id", hello.name));
                }
                self.me.admit(&hello).await.map_err(|refusal| format!("{address}: {refusal}"))?;
                Ok((sender, hello))
            }
            Welcome::Stranger => Err(format!("{address} belongs to another cluster")),
            Welcome::Wiped => {
                self.me.wiped.send_replace(Some(self.member.name.clone()));
                Err(format!("{address} knows this replica with another data directory"))
            }
        }
    }
}

async fn collect(response: Response<Incoming>) -> Result<Bytes, PeerError> {
    let status = response.status();
    let body = Limited::new(response.into_body(), FRAME).collect().await;
    let body = body.map_err(|error| PeerError::Lost(error.to_string()))?.to_bytes();
    if status == StatusCode::OK {
        return Ok(body);
    }
    Err(PeerError::Refused { status, text: String::from_utf8_lossy(&body[..body.len().min(512)]).into_owned() })
}

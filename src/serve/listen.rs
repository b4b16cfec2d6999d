//! The listener: from a TCP connection to requests.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::header::{CONNECTION, HeaderValue};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::rt::{Read, Write};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use super::farewell::Farewell;
use super::handle::handle;
use crate::auth::Peer;
use crate::metrics::METRICS;
use crate::respond::Body;
use crate::server::Server;

const CONNECTIONS: usize = 16384;
const BACKLOG: u32 = 1024;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// To read the headers of the next request, the time that a connection is idle included.
const HEADER_TIMEOUT: Duration = Duration::from_secs(90);
/// What clients have, once the server stops, to send a request that they may have begun: the first of a connection, or one
/// in HTTP/1, which knows no other way to tell them that it would come too late.
const LAST_REQUEST: Duration = Duration::from_millis(250);
const HEADER_BYTES: usize = 64 << 10;
/// What a client may send of one request, and of all on a connection, before it is read.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 2 << 20;
/// What is kept of one response before the client has taken it.
const SEND_BUFFER: usize = 256 << 10;

pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// The connections that are open.
#[derive(Clone)]
pub struct Connections(Arc<Semaphore>);

impl Connections {
    pub fn new() -> Connections {
        Connections(Arc::new(Semaphore::new(CONNECTIONS)))
    }

    pub fn open(&self) -> usize {
        CONNECTIONS - self.0.available_permits()
    }

    /// Waits until there are none; no more are taken then.
    pub async fn closed(&self) {
        if let Ok(all) = self.0.acquire_many(CONNECTIONS as u32).await {
            all.forget();
        }
    }
}

/// Accepts connections until the server stops, and those that wait then: their clients think that they are connected.
pub async fn serve(
    server: Arc<Server>,
    listener: TcpListener,
    tls: Arc<ArcSwap<ServerConfig>>,
    streams: u32,
    connections: Connections,
) {
    let take = |stream, address, permit| {
        let (server, tls) = (server.clone(), TlsAcceptor::from(tls.load_full()));
        tokio::spawn(async move {
            METRICS.connections.inc();
            connection(server, tls, stream, address, streams).await;
            METRICS.connections.dec();
            drop(permit);
        });
    };
    loop {
        let Ok(permit) = connections.0.clone().acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = server.stopping.cancelled() => break,
        };
        match accepted {
            Ok((stream, address)) => take(stream, address, permit),
            Err(error) => {
                // Out of file descriptors, as a rule: to try again at once would only burn time.
                tracing::warn!(%error, "a connection can't be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    // The runtime may not have heard of them yet: the kernel is asked itself, until there are none.
    let Ok(listener) = listener.into_std() else { return };
    while let Ok((stream, address)) = listener.accept() {
        let Ok(permit) = connections.0.clone().try_acquire_owned() else { return };
        if let Ok(stream) = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream)) {
            take(stream, address, permit);
        }
    }
}

async fn connection(server: Arc<Server>, tls: TlsAcceptor, stream: TcpStream, address: SocketAddr, streams: u32) {
    let greeted = Instant::now() + LAST_REQUEST;
    let _ = stream.set_nodelay(true);
    let stream = match tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            METRICS.handshake_errors.inc();
            tracing::debug!(%address, %error, "TLS handshake");
            return;
        }
        Err(_) => {
            METRICS.handshake_errors.inc();
            tracing::debug!(%address, "the TLS handshake took too long");
            return;
        }
    };
    let session = stream.get_ref().1;
    let peer = Arc::new(server.authenticator.peer(address, session.peer_certificates()));
    let http2 = session.alpn_protocol() == Some(b"h2");
    let served = match http2 {
        true => serve_http2(server, peer, stream, streams, greeted).await,
        false => serve_http1(server, peer, TokioIo::new(stream), greeted).await,
    };
    if let Err(error) = served {
        tracing::debug!(%address, %error, "connection");
    }
}

async fn serve_http2<S>(
    server: Arc<Server>,
    peer: Arc<Peer>,
    stream: S,
    streams: u32,
    greeted: Instant,
) -> hyper::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(streams)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_header_list_size(HEADER_BYTES as u32)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(15));
    let io = TokioIo::new(Farewell::new(stream));
    let mut connection = std::pin::pin!(builder.serve_connection(io, service_fn(service(server.clone(), peer))));
    tokio::select! {
        result = connection.as_mut() => return result,
        () = ends(&server, greeted) => {}
    }
    connection.as_mut().graceful_shutdown();
    connection.await
}

async fn serve_http1<I>(server: Arc<Server>, peer: Arc<Peer>, io: I, greeted: Instant) -> hyper::Result<()>
where
    I: Read + Write + Unpin + Send + 'static,
{
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).max_buf_size(HEADER_BYTES);
    let answers = service(server.clone(), peer);
    let last = service_fn(|request| {
        let (server, answered) = (server.clone(), answers(request));
        async move {
            let mut response = answered.await?;
            if server.stopping.is_cancelled() {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, std::convert::Infallible>(response)
        }
    });
    let mut connection = std::pin::pin!(builder.serve_connection(io, last));
    tokio::select! {
        result = connection.as_mut() => return result,
        () = ends(&server, greeted) => {}
    }
    tokio::select! {
        result = connection.as_mut() => return result,
        () = tokio::time::sleep(LAST_REQUEST) => connection.as_mut().graceful_shutdown(),
    }
    connection.await
}

/// When a connection's clients are told that it takes no more requests: not before a new one could have brought its first.
async fn ends(server: &Server, greeted: Instant) {
    server.stopping.cancelled().await;
    tokio::time::sleep_until(greeted).await;
}

type Answered = Pin<Box<dyn Future<Output = Result<Response<Body>, std::convert::Infallible>> + Send>>;

fn service(server: Arc<Server>, peer: Arc<Peer>) -> impl Fn(Request<Incoming>) -> Answered {
    move |request| {
        let (server, peer) = (server.clone(), peer.clone());
        Box::pin(async move { Ok(handle(server, peer, request).await) })
    }
}

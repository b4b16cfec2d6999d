//! HTTP/2 over mutual TLS: connections to peers, and the listener for theirs.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http_body_util::BodyExt;
use hyper::client::conn::http2::SendRequest;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::server::{Caller, Service};
use super::tls::{self, PeerTls};
use super::transport::{Body, Connection, Ended, PeerError, Transport};
use crate::config::{Config, StartError};
use crate::types::Member;

/// A peer that answers no ping for this long is taken for gone.
const PING_EVERY: Duration = Duration::from_secs(1);
const PING_TIMEOUT: Duration = Duration::from_secs(2);
const HANDSHAKE: Duration = Duration::from_secs(5);
const CONNECTIONS: usize = 256;
const WINDOW: u32 = 4 << 20;

/// What is shown and trusted, and what it was made of.
struct Ends {
    tls: PeerTls,
    ends: tls::Ends,
}

pub(crate) struct Http {
    /// None: a cluster of one.
    ends: Option<Arc<Mutex<Ends>>>,
    listener: Mutex<Option<TcpListener>>,
}

impl Http {
    /// Takes the address that peers are to find this replica at; they are answered once it serves.
    pub(crate) async fn listen(config: &Config) -> Result<Http, StartError> {
        let ends = match &config.tls {
            Some(tls) => {
                let ends = tls::Ends::new(tls, &config.name)?;
                Some(Arc::new(Mutex::new(Ends { tls: tls.clone(), ends })))
            }
            None => None,
        };
        let listener = match config.peer_listen {
            Some(address) => Some(bind(address).await?),
            None => None,
        };
        Ok(Http { ends, listener: Mutex::new(listener) })
    }

    async fn dial(&self, member: &Member, ended: Ended) -> Result<Arc<dyn Connection>, String> {
        let Some(ends) = &self.ends else { return Err("this replica has no certificate for peers".into()) };
        let address = &member.address;
        let at = |error: io::Error| format!("{address}: {error}");
        let socket = TcpStream::connect(address).await.map_err(at)?;
        socket.set_nodelay(true).map_err(at)?;
        let name = tls::server_name().map_err(|error| error.to_string())?;
        let client = ends.lock().ends.client.clone();
        let stream = TlsConnector::from(client).connect(name, socket).await.map_err(at)?;
        let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let name = certificate.map(tls::member_name).transpose().map_err(|error| format!("{address}: {error}"))?;
        if name.as_deref() != Some(&member.name) {
            let name = name.unwrap_or_default();
            return Err(format!("{address} is replica {name}, not {}", member.name));
        }
        let (sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
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
        tokio::spawn(async move { ended(connection.await.err().map(|error| error.to_string())) });
        Ok(Arc::new(sender))
    }
}

impl Transport for Http {
    fn connect<'a>(&'a self, member: &'a Member, ended: Ended) -> BoxFuture<'a, Result<Arc<dyn Connection>, String>> {
        self.dial(member, ended).boxed()
    }

    fn renew(&self, tls: &PeerTls, name: &str) -> Result<bool, StartError> {
        let Some(current) = &self.ends else { return Ok(false) };
        if current.lock().tls == *tls {
            return Ok(false);
        }
        *current.lock() = Ends { tls: tls.clone(), ends: tls::Ends::new(tls, name)? };
        Ok(true)
    }

    fn serve(&self, service: Arc<Service>) -> JoinHandle<()> {
        let (listener, ends) = (self.listener.lock().take(), self.ends.clone());
        tokio::spawn(async move {
            if let (Some(listener), Some(ends)) = (listener, ends) {
                accept(listener, ends, service).await;
            }
        })
    }
}

impl Connection for SendRequest<Body> {
    fn is_closed(&self) -> bool {
        SendRequest::is_closed(self)
    }

    fn send(&self, path: &'static str, body: Body) -> BoxFuture<'_, Result<Response<Body>, PeerError>> {
        let mut sender = self.clone();
        let unreachable = |error: &dyn ToString| PeerError::Unreachable(error.to_string());
        async move {
            sender.ready().await.map_err(|error| unreachable(&error))?;
            let request = Request::post(path).body(body).map_err(|error| unreachable(&error))?;
            match sender.try_send_request(request).await {
                Ok(response) => Ok(response.map(|body| body.map_err(io::Error::other).boxed_unsync())),
                Err(error) if error.message().is_some() => Err(unreachable(error.error())),
                Err(error) => Err(PeerError::Lost(error.into_error().to_string())),
            }
        }
        .boxed()
    }
}

async fn bind(address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|source| StartError::Listen { address, source })
}

async fn accept(listener: TcpListener, ends: Arc<Mutex<Ends>>, service: Arc<Service>) {
    let mut connections = JoinSet::new();
    loop {
        match listener.accept().await {
            Ok((socket, from)) if connections.len() < CONNECTIONS => {
                let (tls, service) = (TlsAcceptor::from(ends.lock().ends.server.clone()), service.clone());
                connections.spawn(async move {
                    if let Err(error) = serve_one(socket, tls, service).await {
                        tracing::debug!(%from, error, "a peer connection has ended");
                    }
                });
            }
            Ok((_, from)) => tracing::warn!(%from, "too many peer connections"),
            Err(error) => {
                tracing::warn!(%error, "peers can't be accepted");
                sleep(Duration::from_millis(100)).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn serve_one(socket: TcpStream, tls: TlsAcceptor, service: Arc<Service>) -> Result<(), String> {
    socket.set_nodelay(true).map_err(|error| error.to_string())?;
    let stream = timeout(HANDSHAKE, tls.accept(socket)).await;
    let stream = stream.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
    let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let certificate = certificate.ok_or("there is no certificate")?;
    let caller = Arc::new(Caller::new(tls::member_name(certificate).map_err(|error| error.to_string())?));
    let handle = service_fn(move |request: Request<hyper::body::Incoming>| {
        let (service, caller) = (service.clone(), caller.clone());
        async move {
            let (head, body) = request.into_parts();
            let body = body.map_err(io::Error::other).boxed_unsync();
            Ok::<_, Infallible>(service.answer(&caller, head.uri.path(), body).await)
        }
    });
    hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(2 * WINDOW)
        .max_frame_size(256 << 10)
        .max_concurrent_streams(1024)
        // A leader gives up on heartbeats that a replica was too slow for; that is no attack.
        .max_pending_accept_reset_streams(1024)
        .keep_alive_interval(Duration::from_secs(5))
        .serve_connection(TokioIo::new(stream), handle)
        .await
        .map_err(|error| error.to_string())
}

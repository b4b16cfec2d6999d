//! How a request gets to a peer and the answer back, whatever they say. Replicas use HTTP/2 (`http`); the simulator has
//! a network of its own.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::{Response, StatusCode};
use tokio::task::JoinHandle;

use super::server::Service;
use super::tls::PeerTls;
use crate::config::StartError;
use crate::types::Member;

/// One message, or a stream of framed ones.
pub(crate) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// Called once a connection has ended, with the reason if there is one.
pub(crate) type Ended = Box<dyn FnOnce(Option<String>) + Send>;

pub(crate) trait Transport: Send + Sync {
    /// Connects to what has shown that it is this member.
    fn connect<'a>(&'a self, member: &'a Member, ended: Ended) -> BoxFuture<'a, Result<Arc<dyn Connection>, String>>;

    /// Shows these certificates from the next connection on, and trusts what they say is to be trusted. Says whether
    /// they are others than before.
    fn renew(&self, _tls: &PeerTls, _name: &str) -> Result<bool, StartError> {
        Ok(false)
    }

    /// Lets `service` answer peers until the task is aborted; their connections end with it.
    fn serve(&self, service: Arc<Service>) -> JoinHandle<()>;
}

pub(crate) trait Connection: Send + Sync {
    fn is_closed(&self) -> bool;

    fn send(&self, path: &'static str, body: Body) -> BoxFuture<'_, Result<Response<Body>, PeerError>>;
}

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

pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

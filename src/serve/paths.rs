//! Paths that are no resource: health, version, metrics, discovery, OpenAPI, and how the replicas are.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::handle::plain;
use super::members::{self, LEADER, MEMBERS, TOKENS};
use super::{discovery, openapi};
use crate::discovery::documents;
use crate::join::{AUTHORITY, JOIN};
use crate::metrics::{METRICS, State};
use crate::object::Fields;
use crate::request::{Query, RequestInfo};
use crate::respond::Body;
use crate::server::Server;
use crate::status::{ApiError, Result};

/// How long `/readyz` waits for a leader: longer than an election takes.
const PROOF: Duration = Duration::from_secs(1);

/// Where `kontiki status` asks. Only those who may read any path get an answer.
pub const STATUS: &str = "/kontiki/status";
/// Where `kontiki snapshot save` asks. It is everything, secrets included, for those who may read any path.
pub const SNAPSHOT: &str = "/kontiki/snapshot";
/// How long a snapshot may wait for a quorum.
const QUORUM: Duration = Duration::from_secs(10);

/// None where there is nothing.
pub async fn answer(
    server: &Arc<Server>,
    head: &Parts,
    info: &RequestInfo,
    query: &Query,
) -> Result<Option<Response<Body>>> {
    let path = match info.path.trim_end_matches('/') {
        "" => "/",
        path => path,
    };
    let health = server.health.answer(path, query, obstacle(server, path).await);
    if let Some(told) = health {
        let code = StatusCode::from_u16(told.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        return Ok(Some(plain(code, told.text)));
    }
    let answer: fn(&Server) -> Response<Body> = match path {
        "/" => index,
        "/version" => version,
        "/metrics" => metrics,
        "/.well-known/openid-configuration" => issuer,
        "/openid/v1/jwks" => key_set,
        STATUS => {
            only_get(head)?;
            return Ok(Some(status(server).await));
        }
        SNAPSHOT => {
            only_get(head)?;
            return snapshot(server, query).await.map(Some);
        }
        _ if path.starts_with("/kontiki/") => return members::answer(server, head, path, query).await,
        _ if path.starts_with("/openapi/") => {
            only_get(head)?;
            return openapi::answer(server, path, &head.headers).await;
        }
        _ => return discovery::answer(server, path, query, head),
    };
    only_get(head)?;
    Ok(Some(answer(server)))
}

fn only_get(head: &Parts) -> Result<()> {
    match head.method {
        Method::GET | Method::HEAD => Ok(()),
        _ => Err(ApiError::method_not_allowed()),
    }
}

/// What keeps this replica from being up to date; None: nothing. Readiness asks for a proof, as linearizable reads do:
/// a replica that is cut off still knows the leader that it had.
async fn obstacle(server: &Server, path: &str) -> Option<&'static str> {
    if !path.starts_with("/readyz") {
        return None;
    }
    if let Some(divergence) = server.divergence() {
        return Some(divergence);
    }
    let proof = server.replica.read_barrier(Instant::now() + PROOF).await;
    proof.is_err().then_some("no leader confirms that this replica is up to date")
}

/// All paths, as far as they are known beforehand.
fn index(server: &Server) -> Response<Body> {
    let checks: Vec<String> = crate::health::paths().collect();
    let others = [
        "/.well-known/openid-configuration",
        "/metrics",
        "/openapi/v2",
        "/openapi/v3",
        "/openapi/v3/",
        "/openid/v1/jwks",
        "/version",
        AUTHORITY,
        JOIN,
        LEADER,
        MEMBERS,
        SNAPSHOT,
        STATUS,
        TOKENS,
    ];
    let others = others.into_iter().chain(checks.iter().map(String::as_str));
    pretty(&documents::root_paths(&server.registry(), others))
}

fn version(_: &Server) -> Response<Body> {
    pretty(&documents::version())
}

/// Who issues the tokens of service accounts.
fn issuer(server: &Server) -> Response<Body> {
    let document = server.authenticator.service_accounts.discovery(&server.address);
    public("application/json", &document)
}

/// The keys to verify them with.
fn key_set(server: &Server) -> Response<Body> {
    public("application/jwk-set+json", &server.authenticator.service_accounts.key_set())
}

/// What others may keep for a while.
fn public(content_type: &'static str, document: &Value) -> Response<Body> {
    let mut response = with_type(content_type, document.to_string().into());
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600"));
    response
}

fn metrics(server: &Server) -> Response<Body> {
    let store = server.replica.store();
    let (stats, log, view) = (store.stats(), server.replica.log_stats(), store.view());
    let text = METRICS.render(&State { store: &stats, log: &log, view: &view, settings: &server.settings });
    with_type("text/plain; version=0.0.4; charset=utf-8", text.into())
}

/// Every replica, as this one knows it.
async fn status(server: &Server) -> Response<Body> {
    let replicas = server.replica.cluster_status().await.into_iter().map(|replica| match replica {
        Ok(status) => json!({
            "name": status.name,
            "id": status.id,
            "address": status.announced.address,
            "clientURL": status.announced.client_url,
            "role": format!("{:?}", status.role),
            "term": status.term,
            "leader": status.leader,
            "lastLogIndex": status.last_log_index,
            "committedIndex": status.committed_index,
            "appliedIndex": status.applied_index,
            "revision": status.revision,
            // As text: not every reader of JSON has 64 bits.
            "stateHash": format!("{:016x}", status.state_hash),
            "diverged": status.diverged,
            "databaseBytes": status.state_bytes + status.log_bytes,
            "version": status.announced.version,
            "level": status.level,
        }),
        Err(missing) => json!({ "name": missing.name, "address": missing.address, "error": missing.error }),
    });
    let mut replicas: Vec<Value> = replicas.collect();
    replicas.sort_by(|a, b| a.text_at(&["name"]).cmp(b.text_at(&["name"])));
    pretty(&json!({ "replicas": replicas, "featureLevel": server.replica.status().feature_level }))
}

/// All objects as they are at one revision, in the form of a snapshot file. `resourceVersion=0` takes what this replica
/// has; else it has everything that was acknowledged. What breaks off has no end, which whoever reads it finds out.
async fn snapshot(server: &Server, query: &Query) -> Result<Response<Body>> {
    if let Some(why) = server.divergence() {
        return Err(ApiError::unavailable(why));
    }
    if query.text("resourceVersion") != "0" {
        server.replica.read_barrier(Instant::now() + QUORUM).await?;
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let archive = server.replica.archive(now, crate::version::OWN);
    let pieces = futures_util::stream::unfold(archive, |mut archive| async move {
        let piece = archive.next_piece().inspect_err(|error| tracing::error!(%error, "writing a snapshot"));
        piece.ok().flatten().map(|piece| (Bytes::from(piece), archive))
    });
    let mut response = Response::new(Body::stream(pieces));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    Ok(response)
}

/// JSON for the eyes, as Go's `json.MarshalIndent` writes it.
pub(super) fn pretty(value: &Value) -> Response<Body> {
    with_type("application/json", crate::codec::to_pretty(value).into())
}

pub(super) fn with_type(content_type: &'static str, bytes: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::full(bytes));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

//! Who is a member, who leads, and how others join: paths for the administrator, whom RBAC lets through like on any path
//! that is no resource, and two for replicas that join, which need no more than a token.

use std::sync::Arc;
use std::time::Duration;

use http::header::AUTHORIZATION;
use http::request::Parts;
use http::{Method, Response};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use kontiki_raft::{BarrierError, ManageError, Operation, Refusal};
use kontiki_storage::Outcome;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::paths::{pretty, with_type};
use crate::join::{self, AUTHORITY, JOIN, Token, Welcome};
use crate::pki;
use crate::request::Query;
use crate::respond::Body;
use crate::server::Server;
use crate::status::{ApiError, Result};
use crate::time::parse_duration;

pub const MEMBERS: &str = "/kontiki/members";
pub const LEADER: &str = "/kontiki/leader";
pub const TOKENS: &str = "/kontiki/tokens";

/// How long an operation may take; a leader may have to be elected first.
const DEADLINE: Duration = Duration::from_secs(15);
const TOKEN_LIFETIME: Duration = Duration::from_secs(24 * 3600);
const REQUEST_BYTES: usize = 16 << 10;

/// None where there is nothing.
pub async fn answer(server: &Server, head: &Parts, path: &str, query: &Query) -> Result<Option<Response<Body>>> {
    let name = path.strip_prefix(MEMBERS).and_then(|rest| rest.strip_prefix('/'));
    let done = match (path, name) {
        (MEMBERS, _) => {
            allow(head, &Method::GET)?;
            return list(server).await.map(Some);
        }
        (TOKENS, _) => {
            allow(head, &Method::POST)?;
            return create_token(server, query).await.map(Some);
        }
        (LEADER, _) => {
            allow(head, &Method::POST)?;
            let name = query.get("name").filter(|name| !name.is_empty()).map(str::to_owned);
            manage(server, Operation::Lead { name }).await
        }
        (_, Some(rest)) => match rest.strip_suffix("/promote") {
            Some(name) => {
                allow(head, &Method::POST)?;
                manage(server, Operation::Promote { name: name.to_owned() }).await
            }
            None => {
                allow(head, &Method::DELETE)?;
                manage(server, Operation::Remove { name: rest.to_owned() }).await
            }
        },
        _ => return Ok(None),
    };
    done?;
    list(server).await.map(Some)
}

fn allow(head: &Parts, method: &Method) -> Result<()> {
    if head.method == *method { Ok(()) } else { Err(ApiError::method_not_allowed()) }
}

/// Who is a member, as the whole cluster sees it. Where no leader can confirm that, it is what this replica knows.
async fn list(server: &Server) -> Result<Response<Body>> {
    let confirmed = server.replica.read_barrier(Instant::now() + DEADLINE).await.is_ok();
    let members = server.replica.members().into_iter().map(|info| {
        json!({
            "name": info.member.name,
            "id": info.id,
            "peerAddress": info.member.address,
            "role": if info.voter { "Voter" } else { "Learner" },
            "leader": info.leader,
        })
    });
    Ok(pretty(&json!({ "confirmed": confirmed, "members": members.collect::<Vec<Value>>() })))
}

async fn manage(server: &Server, operation: Operation) -> Result<()> {
    server.replica.manage(operation, Instant::now() + DEADLINE).await.map_err(|error| match error {
        ManageError::Refused(refusal @ Refusal::NotFound(_)) => ApiError::new(404, "NotFound", refusal.to_string()),
        ManageError::Refused(refusal) => ApiError::new(409, "Conflict", refusal.to_string()),
        ManageError::NotDone => ApiError::unavailable(error.to_string()),
        ManageError::Unclear => ApiError::timeout(error.to_string()),
    })
}

async fn create_token(server: &Server, query: &Query) -> Result<Response<Body>> {
    let lifetime = match query.text("ttl") {
        "" => TOKEN_LIFETIME,
        text => parse_duration(text)
            .ok()
            .and_then(|nanos| u64::try_from(nanos).ok())
            .map(Duration::from_nanos)
            .filter(|lifetime| lifetime.as_secs() > 0)
            .ok_or_else(|| ApiError::bad_request(format!("ttl: {text:?} is no duration like 90s, 5m or 24h")))?,
    };
    let authority = pki::read(&server.shared_pki.join("ca.crt")).map_err(ApiError::internal)?;
    let token = Token::new(&authority).map_err(ApiError::internal)?;
    let (transaction, expires) = token.keep(lifetime);
    match server.replica.propose(transaction, Instant::now() + DEADLINE).await {
        Ok(Outcome::Committed { .. }) => {}
        Ok(other) => return Err(ApiError::internal(format!("the token was not kept: {other:?}"))),
        Err(error) => return Err(ApiError::unavailable(error.to_string())),
    }
    Ok(pretty(&json!({
        "token": token.to_string(),
        "expires": expires.to_string(),
        "server": format!("https://{}", server.address),
    })))
}

/// Whether a path is for replicas that join.
pub fn is_for_joining(path: &str) -> bool {
    matches!(path, AUTHORITY | JOIN)
}

/// What replicas that join ask, before anybody is authenticated.
pub async fn joining(server: &Arc<Server>, head: &Parts, body: Incoming) -> Result<Response<Body>> {
    if head.uri.path() == AUTHORITY {
        allow(head, &Method::GET)?;
        let authority = pki::read(&server.shared_pki.join("ca.crt")).map_err(ApiError::internal)?;
        return Ok(with_type("application/x-pem-file", authority.into()));
    }
    allow(head, &Method::POST)?;
    // One at a time: an answer holds the cluster's keys, and nobody needs many.
    let _turn = server.joining.lock().await;
    let token = head.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = token.and_then(|value| value.strip_prefix("Bearer ")).and_then(|text| text.parse::<Token>().ok());
    let unknown = || {
        let text =
            "the token is not known: it has expired, or another cluster has made it; `kontiki token create` makes one";
        ApiError::new(401, "Unauthorized", text)
    };
    let token = token.ok_or_else(unknown)?;
    let view = server.replica.read_barrier(Instant::now() + DEADLINE).await.map_err(|error| match error {
        BarrierError::Timeout => ApiError::unavailable("no leader can confirm the token"),
        error => ApiError::unavailable(error.to_string()),
    })?;
    if !view.get(token.key().as_str()).is_some_and(|record| token.is(record)) {
        return Err(unknown());
    }
    let body = Limited::new(body, REQUEST_BYTES).collect().await;
    let body = body.map_err(|error| ApiError::bad_request(error.to_string()))?.to_bytes();
    let request: join::Request =
        serde_json::from_slice(&body).map_err(|error| ApiError::bad_request(error.to_string()))?;
    if let Some(info) = server.replica.members().iter().find(|info| info.member.address.is_empty()) {
        let name = &info.member.name;
        let text = format!("{name} was started without --peer-address: restart it with one, so that others reach it");
        return Err(ApiError::new(409, "Conflict", text));
    }
    let join::Request { name, peer_address: address, incarnation } = request;
    tracing::info!(name, address, ?token, "a replica joins");
    manage(server, Operation::Add { name, address, incarnation }).await?;
    let files = pki::pack(&server.shared_pki).map_err(ApiError::internal)?;
    let welcome = Welcome { invitation: server.replica.invite(incarnation), files };
    Ok(with_type("application/json", serde_json::to_vec(&welcome).map_err(ApiError::internal)?.into()))
}

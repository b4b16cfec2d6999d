//! The life of a request, from its headers to the response.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, USER_AGENT};
use http::request::Parts;
use http::{HeaderMap, Method, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use prometheus::IntGauge;
use tokio::time::Instant;

use super::{members, paths};
use crate::auth::impersonate::impersonated;
use crate::auth::{Attributes, MASTERS, Peer, User};
use crate::metrics::{self, Labels, METRICS};
use crate::request::negotiate::Offer;
use crate::request::{Accept, Query, RequestInfo, Verb};
use crate::respond::{self, Body};
use crate::server::Server;
use crate::status::{ApiError, Result};
use crate::verbs::{self, Request};

const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");
const NOSNIFF: HeaderName = HeaderName::from_static("x-content-type-options");

/// How long a request waits for the replicas, whatever it may take besides; kube-apiserver gives its storage as long.
const STORAGE: Duration = Duration::from_secs(34);

/// How long a request waits for a replica that was just started.
const STARTING: Duration = Duration::from_secs(5);

/// Answers a request. Whatever happens, it is counted, and logged where that is wanted.
pub async fn handle(server: Arc<Server>, peer: Arc<Peer>, request: http::Request<Incoming>) -> Response<Body> {
    let started = Instant::now();
    let (head, body) = request.into_parts();
    let query = Query::read(head.uri.query());
    let info = RequestInfo::read(&head.method, head.uri.path(), &query);
    let audit_id = audit_id(&head.headers);
    let verb = metrics::verb(&info, &head.headers);
    let mut exchange = Exchange { server, head, query, info, verb, started, known: false, answered: false };
    let answered = exchange.answer(&peer, body).await;
    let mut response = match answered {
        Ok(response) => response,
        Err(error) => exchange.failure(&error),
    };
    let headers = response.headers_mut();
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-cache, private"));
    headers.insert(AUDIT_ID, audit_id);
    exchange.record(&peer, &response);
    if exchange.head.method == Method::HEAD {
        // hyper leaves it out in HTTP/1 only; in HTTP/2 it breaks the stream.
        *response.body_mut() = Body::full(Bytes::new());
    }
    response
}

/// A request on its way.
struct Exchange {
    server: Arc<Server>,
    head: Parts,
    query: Query,
    info: RequestInfo,
    started: Instant,
    /// As metrics call it.
    verb: &'static str,
    /// The path is one that is served.
    known: bool,
    answered: bool,
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if !self.answered {
            METRICS.aborted(&self.labels());
        }
    }
}

impl Exchange {
    async fn answer(&mut self, peer: &Peer, body: Incoming) -> Result<Response<Body>> {
        let long_running = is_long_running(&self.info);
        let end = match long_running {
            // Watches end by their own clock; this is for what precedes them.
            true => self.started + self.server.settings.request_timeout,
            false => self.started + timeout(&self.query, self.server.settings.request_timeout)?,
        };
        // A collection may take long to delete.
        let deadline = match self.info.verb {
            Verb::DeleteCollection => end,
            _ => end.min(self.started + STORAGE),
        };
        if members::is_for_joining(&self.info.path) {
            self.known = true;
            let answered = tokio::time::timeout_at(end, members::joining(&self.server, &self.head, body)).await;
            return answered.unwrap_or_else(|_| Err(ApiError::timeout("the replica was not taken in in time")));
        }
        let mut user = self.authenticate(peer)?;
        if let Some(other) = impersonated(&user, &self.head.headers, &self.server.authorizer)? {
            user = Arc::new(other);
        }
        let writes = !matches!(self.head.method, Method::GET | Method::HEAD | Method::OPTIONS);
        let running = match long_running {
            true => None,
            false => match self.server.inflight.enter(writes, user.in_group(MASTERS)) {
                Some(running) => Some(running),
                None => return Ok(self.refuse()),
            },
        };
        self.authorize(&user)?;
        let answered = tokio::time::timeout_at(end, self.serve(user, body, deadline)).await;
        drop(running);
        answered.unwrap_or_else(|_| {
            self.terminated(504);
            Err(ApiError::timeout(verbs::TIMED_OUT))
        })
    }

    fn authenticate(&self, peer: &Peer) -> Result<Arc<User>> {
        let began = Instant::now();
        let user = self.server.authenticator.authenticate(peer, &self.head.headers, self.server.replica.store());
        METRICS.authentication.count(user.is_ok(), began.elapsed());
        if let Ok(user) = &user {
            METRICS.user(&user.name);
        }
        user
    }

    fn authorize(&self, user: &User) -> Result<()> {
        let began = Instant::now();
        let checked = self.server.authorizer.check(&Attributes::of(user, &self.info, &self.query));
        METRICS.authorization.count(checked.is_ok(), began.elapsed());
        checked
    }

    async fn serve(&mut self, user: Arc<User>, body: Incoming, deadline: Instant) -> Result<Response<Body>> {
        if !self.info.is_resource {
            let answered = paths::answer(&self.server, &self.head, &self.info, &self.query).await;
            self.known = matches!(&answered, Ok(Some(_)));
            return answered.map(|response| response.unwrap_or_else(not_found));
        }
        let registry = self.server.registry();
        let Some(resource) = verbs::resolve(&registry, &self.info, &self.head.method) else { return Ok(not_found()) };
        let resource = resource?;
        self.known = true;
        if !self.server.health.is_caught_up() {
            let _waiting = Counted::new(METRICS.waiting_for_start.clone());
            let until = deadline.min(Instant::now() + STARTING);
            if tokio::time::timeout_at(until, self.server.health.caught_up()).await.is_err() {
                let why = "this replica has not caught up with the others yet";
                return Err(ApiError::unavailable(why).retry_after(1));
            }
        }
        if let Some(why) = self.server.divergence() {
            return Err(ApiError::unavailable(why));
        }
        let offer = match self.info.verb {
            Verb::List | Verb::Watch => Offer::Collection,
            // What is answered and not kept has no table.
            Verb::Create if resource.stored.is_none() => Offer::Plain,
            _ => Offer::Object,
        };
        let accept = Accept::negotiate(self.accept(), offer)?;
        let body = match self.info.verb {
            Verb::Get | Verb::List | Verb::Watch => Bytes::new(),
            _ => read_body(body, self.server.settings.max_body).await?,
        };
        let mut request = Request {
            server: self.server.clone(),
            info: self.info.clone(),
            resource,
            user,
            query: std::mem::take(&mut self.query),
            headers: std::mem::take(&mut self.head.headers),
            accept,
            body,
            deadline,
            warnings: Vec::new(),
        };
        let answer = verbs::run(&mut request).await;
        let response = respond::answer(&request, answer);
        self.query = request.query;
        self.head.headers = request.headers;
        Ok(if is_long_running(&self.info) { self.counted(response) } else { response })
    }

    fn accept(&self) -> Option<&str> {
        self.head.headers.get(ACCEPT).and_then(|value| value.to_str().ok())
    }

    /// Errors are told in the representation that was asked for, or else in JSON.
    fn failure(&self, error: &ApiError) -> Response<Body> {
        let accept = Accept::negotiate(self.accept(), Offer::Object).unwrap_or_default();
        respond::failure(error, accept, &self.query, &self.head.headers)
    }

    /// Too many requests already.
    fn refuse(&mut self) -> Response<Body> {
        let resolved = verbs::resolve(&self.server.registry(), &self.info, &self.head.method);
        self.known = self.info.is_resource && matches!(resolved, Some(Ok(_)));
        self.terminated(429);
        let mut response = plain(StatusCode::TOO_MANY_REQUESTS, format!("{}\n", verbs::TOO_MANY));
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        response
    }

    fn terminated(&self, code: u16) {
        METRICS.terminated(&self.labels(), code);
    }

    fn labels(&self) -> Labels<'_> {
        Labels::of(&self.info, self.verb, &self.query, self.known)
    }

    /// Counts a long-running request until its response ends.
    fn counted(&self, response: Response<Body>) -> Response<Body> {
        let labels = self.labels();
        let counted = Counted::new(METRICS.long_running.with_label_values(&labels.place));
        response.map(|body| match body {
            Body::Stream(stream) => Body::stream(Counting { stream, _counted: counted }),
            other => other,
        })
    }

    fn record(&mut self, peer: &Peer, response: &Response<Body>) {
        self.answered = true;
        let took = self.started.elapsed();
        let code = response.status().as_u16();
        let sized = matches!(self.info.verb, Verb::Get | Verb::List);
        let size = Some(response.body()).filter(|_| sized).and_then(|body| body.size_hint().exact());
        METRICS.request(&self.labels(), code, took, size);
        tracing::debug!(
            target: "kontiki::http",
            verb = self.info.verb_name,
            uri = %self.head.uri,
            latency = ?took,
            user_agent = self.head.headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default(),
            audit_id = response.headers().get(AUDIT_ID).and_then(|id| id.to_str().ok()).unwrap_or_default(),
            from = %peer.address,
            resp = code,
            "HTTP"
        );
    }
}

/// Requests that are not expected to end soon.
fn is_long_running(info: &RequestInfo) -> bool {
    info.verb == Verb::Watch
        || matches!(&*info.subresource, "attach" | "exec" | "proxy" | "log" | "portforward") && info.is_resource
}

/// What the client gives it, at most what the server does.
fn timeout(query: &Query, most: Duration) -> Result<Duration> {
    let text = query.text("timeout");
    if text.is_empty() {
        return Ok(most);
    }
    let nanos = crate::time::parse_duration(text)
        .map_err(|e| ApiError::bad_request(format!("invalid timeout specified in the request URL - {e}")))?;
    let asked = Duration::from_nanos(u64::try_from(nanos).unwrap_or(0));
    Ok(if asked.is_zero() { most } else { asked.min(most) })
}

/// The client's, so that it can follow its request over several servers, or a new one.
fn audit_id(headers: &HeaderMap) -> HeaderValue {
    let given = headers.get(AUDIT_ID).filter(|id| !id.is_empty() && id.len() <= 64);
    given.cloned().unwrap_or_else(|| {
        let id = uuid::Builder::from_random_bytes(rand::random()).into_uuid();
        let mut buffer = uuid::Uuid::encode_buffer();
        let text = id.as_hyphenated().encode_lower(&mut buffer);
        HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""))
    })
}

/// The whole body, if it is within the limit. Of one that isn't as much again is read and forgotten: a client that is
/// still sending when the connection closes would not see the answer.
async fn read_body(mut body: Incoming, limit: usize) -> Result<Bytes> {
    // Most bodies come in one piece, which is not copied.
    let mut whole = Bytes::new();
    let mut pieces = BytesMut::new();
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| ApiError::bad_request(format!("the body can't be read: {e}")))?;
        let Ok(data) = frame.into_data() else { continue };
        length += data.len();
        if length > 2 * limit {
            break;
        }
        if length > limit {
            continue;
        }
        if length == data.len() {
            whole = data;
            continue;
        }
        if pieces.is_empty() {
            let rest = usize::try_from(body.size_hint().lower()).unwrap_or(limit);
            pieces.reserve((length + rest).min(limit));
            pieces.extend_from_slice(&whole);
        }
        pieces.extend_from_slice(&data);
    }
    if length > limit {
        return Err(ApiError::too_large(format!("Request entity too large: limit is {limit}")));
    }
    Ok(if pieces.is_empty() { whole } else { pieces.freeze() })
}

/// Text, as Go's `http.Error` sends it.
pub(super) fn plain(code: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::full(text));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(NOSNIFF, HeaderValue::from_static("nosniff"));
    response
}

fn not_found() -> Response<Body> {
    plain(StatusCode::NOT_FOUND, "404 page not found\n")
}

struct Counted(IntGauge);

impl Counted {
    fn new(gauge: IntGauge) -> Counted {
        gauge.inc();
        Counted(gauge)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

struct Counting<S> {
    stream: S,
    _counted: Counted,
}

impl<S: futures_util::Stream + Unpin> futures_util::Stream for Counting<S> {
    type Item = S::Item;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<S::Item>> {
        std::pin::Pin::new(&mut self.stream).poll_next(cx)
    }
}

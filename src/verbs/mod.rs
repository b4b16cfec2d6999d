//! What is done about a request on a resource, once it is known who asks and that they may.
//!
//! [`run`] finds the resource and hands the [`Request`] to its verb; a verb gives an [`Answer`], which `respond` turns
//! into the representation that the client accepts.

pub mod commit;
pub mod connect;
pub mod create;
pub mod delete;
pub mod delete_collection;
pub mod fields;
pub mod get;
pub mod input;
pub mod list;
pub mod options;
pub mod patch;
pub mod pods;
pub mod reviews;
pub mod services;
pub mod subresource;
pub mod tokens;
pub mod update;
pub mod watch;

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method};
use kontiki_raft::BarrierError;
use kontiki_storage::{Key, Record, View};
use serde_json::Value;
use tokio::time::Instant;

use crate::auth::User;
use crate::codec::{Target, decode_untyped};
use crate::discovery::{Registry, Resource, Subresource, Verbs};
use crate::field::{Errors, go_quote};
use crate::kinds::{self, Kind};
use crate::metrics::METRICS;
use crate::request::{Accept, Query, RequestInfo, Verb};
use crate::schema::{Node, builtin};
use crate::server::Server;
use crate::status::{ApiError, Details, Result, qualified};

/// A request on a resource. The body has been read whole, within its limit.
pub struct Request {
    pub server: Arc<Server>,
    pub info: RequestInfo,
    pub resource: Arc<Resource>,
    pub user: Arc<User>,
    pub query: Query,
    pub headers: HeaderMap,
    pub accept: Accept,
    pub body: Bytes,
    /// When the client is told that it took too long.
    pub deadline: Instant,
    /// Texts of `Warning: 299` headers.
    pub warnings: Vec<String>,
}

impl Request {
    pub fn namespace(&self) -> &str {
        &self.info.namespace
    }

    pub fn name(&self) -> &str {
        &self.info.name
    }

    /// The rules of the kind of the resource in the version that the request speaks.
    pub fn kind(&self) -> Result<&'static dyn Kind> {
        let resource = &self.resource;
        kinds::find(&resource.group, &resource.kind)
            .ok_or_else(|| ApiError::internal(format!("kind {} has no rules", resource.kind)))
    }

    /// The schema of the resource in the version that the request speaks.
    pub fn node(&self) -> Result<Node<'static>> {
        let resource = &self.resource;
        builtin()
            .kind(&resource.group, &resource.version, &resource.kind)
            .ok_or_else(|| ApiError::internal(format!("kind {} has no schema", resource.kind)))
    }

    /// The schema of the objects as they are stored.
    pub fn stored_node(&self) -> Result<Node<'static>> {
        let stored = self.resource.stored.as_ref();
        let node = stored.and_then(|gvk| builtin().kind(&gvk.group, &gvk.version, &gvk.kind));
        node.ok_or_else(|| ApiError::internal(format!("kind {} is not stored", self.resource.kind)))
    }

    /// The error for an object that is not valid. It names the stored kind, whichever face of it was sent.
    pub fn invalid(&self, name: &str, mut errors: Errors) -> ApiError {
        if let (Ok(given), Ok(node)) = (decode_untyped(&self.body), self.stored_node()) {
            errors.show_as_given(&given, node);
        }
        ApiError::invalid(self.stored_group(), &self.resource.kind, name, &errors.0)
    }

    fn stored_group(&self) -> &str {
        self.resource.stored.as_ref().map_or(&self.resource.group, |stored| &stored.group)
    }

    /// A request like this one about another object of the namespace, without a body.
    pub fn about(&self, name: &str) -> Request {
        Request {
            server: self.server.clone(),
            info: RequestInfo { name: name.to_owned(), ..self.info.clone() },
            resource: self.resource.clone(),
            user: self.user.clone(),
            query: self.query.clone(),
            headers: self.headers.clone(),
            accept: self.accept,
            body: Bytes::new(),
            deadline: self.deadline,
            warnings: Vec::new(),
        }
    }

    pub fn subresource(&self) -> Option<&Subresource> {
        self.resource.subresource(&self.info.subresource)
    }

    /// Where the object that the path names is stored.
    pub fn key(&self) -> Result<Key> {
        place(&self.resource, &self.info.namespace, &self.info.name)
    }

    pub fn not_found(&self) -> ApiError {
        // Upstream's store of these says their name in the singular.
        let named = match &*self.resource.plural {
            "componentstatuses" => &self.resource.singular,
            plural => plural,
        };
        ApiError::not_found(&self.resource.group, named, &self.info.name)
    }

    /// A view that has everything which was acknowledged to anybody before now.
    pub async fn fresh_view(&self) -> Result<View> {
        Ok(self.server.replica.read_barrier(self.deadline).await?)
    }
}

impl From<BarrierError> for ApiError {
    fn from(error: BarrierError) -> ApiError {
        match error {
            BarrierError::Timeout => ApiError::timeout(TIMED_OUT),
            BarrierError::NoQuorum => ApiError::unavailable(error.to_string()).retry_after(1),
            BarrierError::Overloaded => ApiError::too_many_requests(TOO_MANY, 1),
            BarrierError::Stopped => ApiError::unavailable(error.to_string()),
        }
    }
}

/// In kube-apiserver's words.
pub const TIMED_OUT: &str = "request did not complete within the allotted timeout";
pub const TOO_MANY: &str = "Too many requests, please try again later.";

/// The kind that bodies sent to a resource or subresource must be of.
pub fn target<'r>(resource: &'r Resource, subresource: &str) -> Target<'r> {
    match resource.subresource(subresource) {
        Some(sub) => Target { group: &sub.kind.group, version: &sub.kind.version, kind: &sub.kind.kind },
        None => Target { group: &resource.group, version: &resource.version, kind: &resource.kind },
    }
}

/// `table/namespace/name`, or `table/name` for what is in no namespace.
pub fn key(resource: &Resource, namespace: &str, name: &str) -> Key {
    match resource.namespaced {
        true => format!("{}/{namespace}/{name}", resource.table).into(),
        false => format!("{}/{name}", resource.table).into(),
    }
}

/// The key of an object that a client names. Not every text can be a name, since names are segments of paths.
pub fn place(resource: &Resource, namespace: &str, name: &str) -> Result<Key> {
    if name.is_empty() {
        return Err(ApiError::bad_request("Name parameter required."));
    }
    let wrong = match name {
        "." | ".." => format!("may not be '{name}'"),
        _ => {
            let found = ['/', '%'].into_iter().filter(|c| name.contains(*c));
            found.map(|c| format!("may not contain '{c}'")).collect::<Vec<_>>().join(";")
        }
    };
    if !wrong.is_empty() {
        return Err(ApiError::bad_request(format!("Name parameter invalid: {}: {wrong}", go_quote(name))));
    }
    Ok(key(resource, namespace, name))
}

/// Namespace (empty where there is none) and name of what a key stores.
pub fn place_of<'k>(resource: &Resource, key: &'k Key) -> (&'k str, &'k str) {
    let rest = key.as_str().split_once('/').map_or("", |(_, rest)| rest);
    if resource.namespaced { rest.split_once('/').unwrap_or(("", rest)) } else { ("", rest) }
}

/// One object of an answer.
pub enum Object {
    /// As it is stored: JSON in the stored version.
    Stored(Bytes),
    /// In the version that it is to be shown in, `kind` and `apiVersion` included.
    Made(Value),
}

#[allow(clippy::large_enum_variant, reason = "one for each request, moved a few times")]
pub enum Answer {
    Object {
        code: u16,
        object: Object,
    },
    List(list::List),
    Watch(watch::Watch),
    /// 204.
    Nothing,
}

/// The bytes of a record, decoded in the stored version.
pub fn decode_stored(record: &Record) -> Result<Value> {
    serde_json::from_slice(&record.value).map_err(|e| ApiError::internal(format!("the stored {}: {e}", record.key)))
}

/// The resource that a path names, if the method may be used there. None where even the group is unknown.
pub fn resolve(registry: &Registry, info: &RequestInfo, method: &Method) -> Option<Result<Arc<Resource>>> {
    let group = registry.group(&info.group)?;
    let found = group.version(&info.version).and_then(|version| version.resource(&info.resource));
    let Some(resource) = found else { return Some(Err(ApiError::unknown_path())) };
    Some(match allowed(resource, info) {
        None => Err(ApiError::unknown_path()),
        Some(verbs) if info.verb != Verb::Other && *method != Method::HEAD && verbs.has(needed(info)) => {
            Ok(resource.clone())
        }
        Some(_) => Err(ApiError::method_not_allowed()),
    })
}

/// The verbs that the path takes; none where there is no such path.
fn allowed(resource: &Resource, info: &RequestInfo) -> Option<Verbs> {
    let in_place = resource.namespaced == info.within;
    // Nothing of the cluster is within a namespace.
    if info.within && !in_place {
        return None;
    }
    if !info.subresource.is_empty() {
        let goes_on = info.rest.is_empty() || info.subresource == "proxy";
        let subresource = resource.subresource(&info.subresource);
        let taken = subresource.filter(|_| in_place && goes_on && !info.watch_path);
        return taken.map(|subresource| subresource.verbs);
    }
    // Of these verbs, those that the resource has.
    let on = |verbs: &[Verbs]| {
        let taken = verbs.iter().filter(|verb| resource.verbs.has(**verb));
        taken.copied().reduce(Verbs::or)
    };
    const COLLECTION: &[Verbs] = &[Verbs::LIST, Verbs::WATCH, Verbs::CREATE, Verbs::DELETE_COLLECTION];
    match (info.name.is_empty(), in_place) {
        (false, false) => None,
        _ if info.watch_path => on(&[Verbs::WATCH]),
        (false, true) => on(&[Verbs::GET, Verbs::UPDATE, Verbs::PATCH, Verbs::DELETE]),
        (true, true) => on(COLLECTION),
        // Across namespaces there is only reading.
        (true, false) => on(COLLECTION).map(|_| on(&[Verbs::LIST, Verbs::WATCH]).unwrap_or_default()),
    }
}

fn needed(info: &RequestInfo) -> Verbs {
    match info.verb {
        // A list that goes on: the path is that of the list.
        Verb::Watch if !info.watch_path => Verbs::LIST,
        Verb::Get => Verbs::GET,
        Verb::List => Verbs::LIST,
        Verb::Watch => Verbs::WATCH,
        Verb::Create => Verbs::CREATE,
        Verb::Update => Verbs::UPDATE,
        Verb::Patch => Verbs::PATCH,
        Verb::Delete => Verbs::DELETE,
        Verb::DeleteCollection => Verbs::DELETE_COLLECTION,
        Verb::Other => Verbs::default(),
    }
}

/// Does what the request asks.
pub async fn run(request: &mut Request) -> Result<Answer> {
    if let Some(text) = kinds::find(&request.resource.group, &request.resource.kind).and_then(|kind| kind.deprecated())
    {
        request.warnings.push(text.to_owned());
        METRICS.deprecated(&request.resource, &request.info.subresource);
    }
    if connect::CONNECTIONS.contains(&request.info.subresource.as_str()) {
        return connect::connect(request).await;
    }
    match request.info.verb {
        Verb::Get => get::get(request).await,
        Verb::List => list::list(request).await,
        Verb::Watch if request.resource.verbs.has(Verbs::WATCH) => watch::watch(request).await,
        Verb::Watch => Err(unwatched(request)),
        Verb::Create => post(request).await,
        Verb::Update => update::update(request).await,
        Verb::Patch => patch::patch(request).await,
        Verb::Delete => delete::delete(request).await,
        Verb::DeleteCollection => delete_collection::delete_collection(request).await,
        _ => Err(ApiError::method_not_allowed()),
    }
}

/// The error for a watch of what is only listed.
fn unwatched(request: &Request) -> ApiError {
    if let Err(error) = list::Options::read(request) {
        return error;
    }
    let Resource { group, plural, .. } = &*request.resource;
    let what = go_quote(&qualified(plural, group));
    let details = Details { group: group.to_string(), kind: plural.to_string(), ..Details::default() };
    let why = format!("watch is not supported on resources of kind {what}");
    ApiError::new(405, "MethodNotAllowed", why).with_details(details)
}

/// Creates an object, or does what is asked for by creating one that is not kept.
async fn post(request: &mut Request) -> Result<Answer> {
    match (&*request.resource.plural, request.info.subresource.as_str()) {
        ("bindings", "") | ("pods", "binding") => pods::binding(request).await,
        ("pods", "eviction") => pods::eviction(request).await,
        ("serviceaccounts", "token") => tokens::create(request).await,
        (_, "") if request.resource.stored.is_some() => create::create(request).await,
        (_, "") => reviews::review(request),
        _ => Err(ApiError::method_not_allowed()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_that_upstream_routes_are_served() {
        let registry = Registry::builtin();
        for (method, uri, code) in [
            (Method::GET, "/api/v1/nodes", 200),
            (Method::GET, "/api/v1/namespaces/a/nodes", 404),
            (Method::POST, "/api/v1/namespaces/a/nodes", 404),
            (Method::GET, "/api/v1/namespaces/a/nodes/n", 404),
            (Method::GET, "/api/v1/namespaces/a/nodes/n/status", 404),
            (Method::GET, "/api/v1/namespaces/a", 200),
            (Method::PUT, "/api/v1/namespaces/a/status", 200),
            (Method::PUT, "/api/v1/namespaces/a/finalize", 200),
            (Method::GET, "/api/v1/namespaces/a/namespaces", 404),
            (Method::GET, "/api/v1/namespaces/a/namespaces/a", 404),
            (Method::GET, "/api/v1/pods", 200),
            (Method::POST, "/api/v1/pods", 405),
            (Method::GET, "/api/v1/pods/p", 404),
            (Method::GET, "/api/v1/namespaces/a/configmaps/c%2Fd", 404),
            (Method::GET, "/api/v1/namespaces/a/pods/p/status", 200),
            (Method::GET, "/api/v1/namespaces/a/pods/p/status/more", 404),
            (Method::GET, "/api/v1/namespaces/a/pods/p/proxy/more", 200),
            (Method::GET, "/api/v1/watch/pods", 200),
            (Method::GET, "/api/v1/watch/nodes/n", 200),
            (Method::GET, "/api/v1/watch/pods/p", 404),
            (Method::GET, "/api/v1/watch/namespaces/a/pods/p", 200),
            (Method::GET, "/api/v1/watch/namespaces/a/pods/p/status", 404),
            (Method::POST, "/api/v1/watch/namespaces/a/pods", 405),
            (Method::GET, "/api/v1/watch/componentstatuses", 404),
            // Routed, and then refused in other words.
            (Method::GET, "/api/v1/componentstatuses?watch=1", 200),
            (Method::GET, "/api/v1/namespaces/a/bindings?watch=1", 405),
        ] {
            let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
            let info = RequestInfo::read(&method, path, &Query::read(Some(query)));
            let found = resolve(&registry, &info, &method).expect("the core group");
            assert_eq!(found.map_or_else(|error| error.code, |_| 200), code, "{method} {uri}");
        }
    }

    #[test]
    fn names_are_segments_of_paths() {
        let registry = Registry::builtin();
        let config_maps = registry.find("", "v1", "configmaps").expect("configmaps");
        let told = |name: &str| match place(config_maps, "a", name) {
            Ok(key) => key.as_str().to_owned(),
            Err(error) => error.message,
        };
        for (name, expected) in [
            ("b", "configmaps/a/b"),
            ("...", "configmaps/a/..."),
            ("", "Name parameter required."),
            ("..", r#"Name parameter invalid: "..": may not be '..'"#),
            ("a%b", r#"Name parameter invalid: "a%b": may not contain '%'"#),
            ("a/%", r#"Name parameter invalid: "a/%": may not contain '/';may not contain '%'"#),
        ] {
            assert_eq!(told(name), expected);
        }
    }
}

//! Discovery: the documents at `/api`, `/apis` and below.

use http::header::{ACCEPT, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue, IF_NONE_MATCH, VARY};
use http::request::Parts;
use http::{Method, Response, StatusCode};

use crate::discovery::documents::{self, Aggregated};
use crate::request::negotiate::{self, Offer};
use crate::request::{Accept, Query};
use crate::respond::{self, Body};
use crate::server::Server;
use crate::status::{ApiError, Result};

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// None where the path is none of discovery's.
pub fn answer(server: &Server, path: &str, query: &Query, head: &Parts) -> Result<Option<Response<Body>>> {
    let registry = server.registry();
    let headers = &head.headers;
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    // These two are the aggregator's, which looks at no method and has words of its own for what it can't give.
    let aggregators = matches!(parts.as_slice(), ["apis"] | ["apis", _]);
    if !aggregators && !matches!(head.method, Method::GET | Method::HEAD) && matches!(parts[0], "api" | "apis") {
        return Err(ApiError::method_not_allowed());
    }
    let document = match parts.as_slice() {
        ["api"] if wants_aggregated(headers) => return Ok(Some(aggregated(registry.aggregated_core(), headers))),
        ["apis"] if wants_aggregated(headers) => return Ok(Some(aggregated(registry.aggregated_groups(), headers))),
        ["api"] => documents::api_versions(&registry, &server.address),
        ["apis"] => documents::api_group_list(&registry),
        ["apis", group] if !group.is_empty() => match registry.group(group) {
            Some(group) => documents::api_group(group),
            None => return Ok(None),
        },
        ["api", version] => match registry.version("", version).zip(registry.group("")) {
            Some((version, group)) => documents::api_resource_list(group, version),
            None => return Err(ApiError::unknown_path()),
        },
        ["apis", group, version] if !group.is_empty() => match registry.group(group) {
            Some(group) => match group.version(version) {
                Some(version) => documents::api_resource_list(group, version),
                None => return Err(ApiError::unknown_path()),
            },
            None => return Ok(None),
        },
        _ => return Ok(None),
    };
    let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok());
    let accept = Accept::negotiate(accept, Offer::Plain).map_err(|error| match aggregators {
        true => negotiate::unsupported(),
        false => error,
    })?;
    Ok(Some(respond::document(200, &document, accept, query, headers)))
}

fn aggregated(document: &Aggregated, headers: &HeaderMap) -> Response<Body> {
    let known = headers.get(IF_NONE_MATCH).is_some_and(|etag| etag.as_bytes() == document.etag.as_bytes());
    let mut response = match known {
        true => {
            let mut response = Response::new(Body::full(""));
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(AGGREGATED));
            response
        }
        false => respond::whole(200, AGGREGATED, document.json.clone(), respond::accepts_gzip(headers)),
    };
    if let Ok(etag) = HeaderValue::from_str(&document.etag) {
        response.headers_mut().insert(ETAG, etag);
    }
    response.headers_mut().append(VARY, HeaderValue::from_static("Accept"));
    response
}

/// Whether the first of the representations that the client takes and that are there is the aggregated one.
fn wants_aggregated(headers: &HeaderMap) -> bool {
    let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    for clause in accept.split(',') {
        let mut parts = clause.split(';').map(str::trim);
        if !matches!(parts.next(), Some("application/json" | "application/*" | "*/*")) {
            continue;
        }
        let (mut kind, mut group, mut version) = ("", "", "");
        for (name, value) in parts.filter_map(|part| part.split_once('=')) {
            match name {
                "as" => kind = value,
                "g" => group = value,
                "v" => version = value,
                _ => {}
            }
        }
        match (kind, group, version) {
            ("APIGroupDiscoveryList", "apidiscovery.k8s.io", "v2") => return true,
            ("", ..) => return false,
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_that_is_there_counts() {
        let wants = |accept: &'static str| {
            wants_aggregated(&[(ACCEPT, HeaderValue::from_static(accept))].into_iter().collect())
        };
        assert!(wants("application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"));
        assert!(wants(
            "application/json;g=apidiscovery.k8s.io;v=v9;as=APIGroupDiscoveryList,\
                       application/json;as=APIGroupDiscoveryList;v=v2;g=apidiscovery.k8s.io"
        ));
        assert!(!wants("application/json, application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"));
        assert!(!wants("application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json"));
        assert!(!wants(""));
    }
}

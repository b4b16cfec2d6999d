//! OpenAPI: the documents at `/openapi/v2` and `/openapi/v3`.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_ENCODING, ETAG, HeaderMap, HeaderValue, IF_NONE_MATCH, VARY};
use http::{Response, StatusCode};

use crate::openapi::Document;
use crate::request::negotiate::first_of;
use crate::respond::{self, Body};
use crate::server::Server;
use crate::status::{ApiError, Result};

const JSON: &str = "application/json";
const PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
/// What version 2 is asked for by. The name with `@` is no valid media type, and is still asked for.
const SERVED: &[(&str, &str)] =
    &[(JSON, JSON), ("application/com.github.proto-openapi.spec.v2@v1.0+protobuf", PROTOBUF), (PROTOBUF, PROTOBUF)];

/// None where the path is none of OpenAPI's. The first request makes the documents, off the threads that serve.
pub async fn answer(server: &Arc<Server>, path: &str, headers: &HeaderMap) -> Result<Option<Response<Body>>> {
    let Some(path) = path.strip_prefix("/openapi/").filter(|path| matches!(path.get(..2), Some("v2" | "v3"))) else {
        return Ok(None);
    };
    let (server, path, headers) = (server.clone(), path.to_owned(), headers.clone());
    let made = tokio::task::spawn_blocking(move || {
        let openapi = &server.openapi;
        match path.as_str() {
            "v2" => Some(match first_of(headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()), SERVED) {
                Some(JSON) => document(openapi.v2(), JSON, &headers),
                Some(protobuf) => document(openapi.v2_protobuf(), protobuf, &headers),
                None => respond::whole(406, JSON, Bytes::new(), false),
            }),
            "v3" => {
                Some(respond::whole(200, JSON, openapi.index().to_string().into(), respond::accepts_gzip(&headers)))
            }
            path => openapi.document(path.strip_prefix("v3/")?).map(|found| document(found, JSON, &headers)),
        }
    });
    made.await.map_err(|error| ApiError::internal(format!("making the OpenAPI documents: {error}")))
}

fn document(document: &Document, content_type: &'static str, headers: &HeaderMap) -> Response<Body> {
    let etag = document.etag();
    let mut response = if headers.get(IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == etag.as_bytes()) {
        let mut response = Response::new(Body::full(""));
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else if respond::accepts_gzip(headers) {
        let mut response = respond::whole(200, content_type, document.gzip.clone(), false);
        response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        response
    } else {
        respond::whole(200, content_type, document.plain().into(), false)
    };
    let headers = response.headers_mut();
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        headers.insert(ETAG, etag);
    }
    headers.insert(VARY, HeaderValue::from_static("Accept, Accept-Encoding"));
    response
}

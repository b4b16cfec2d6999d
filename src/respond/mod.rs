//! Answers as HTTP responses: the representation that was negotiated, made of the stored bytes.
//!
//! The common case, JSON of the stored version, is a copy of bytes. Everything else (another version, YAML, protobuf,
//! tables, partial metadata) goes through the decoded object.

mod body;
mod represent;

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER, VARY, WARNING};
use http::{Response, StatusCode};
use serde_json::Value;

pub use body::Body;
pub use represent::Representation;

use crate::codec::Media;
use crate::request::{Accept, Query};
use crate::status::{ApiError, Result};
use crate::verbs::{Answer, Request};

/// Bodies from this size on are compressed for clients that take it.
const COMPRESS_FROM: usize = 128 << 10;

/// The response to a request on a resource.
pub fn answer(request: &Request, answer: Result<Answer>) -> Response<Body> {
    let mut response = match answer.and_then(|answer| respond(request, answer)) {
        Ok(response) => response,
        Err(error) => failure(&error, request.accept, &request.query, &request.headers),
    };
    for text in &request.warnings {
        if let Ok(value) = HeaderValue::from_str(&warning(text)) {
            response.headers_mut().append(WARNING, value);
        }
    }
    response
}

fn respond(request: &Request, answer: Answer) -> Result<Response<Body>> {
    let representation = Arc::new(Representation::new(request)?);
    let gzip = accepts_gzip(&request.headers);
    match answer {
        Answer::Object { code, object } => {
            let bytes = representation.object(object)?;
            Ok(whole(code, representation.content_type(), bytes, gzip))
        }
        Answer::List(list) => {
            if representation.is_stored() {
                let body = body::List::new(&representation, list);
                let compress = gzip && body.len() >= COMPRESS_FROM;
                let body = if compress { Body::List(body.compressed()) } else { Body::List(body) };
                let mut response = with_type(200, representation.content_type(), body);
                if gzip_offered(&request.headers) {
                    response.headers_mut().insert(VARY, HeaderValue::from_static("Accept-Encoding"));
                }
                if compress {
                    response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
                }
                return Ok(response);
            }
            let bytes = representation.list(list)?;
            Ok(whole(200, representation.content_type(), bytes, gzip))
        }
        Answer::Nothing => {
            let mut response = Response::new(Body::full(Bytes::new()));
            *response.status_mut() = StatusCode::NO_CONTENT;
            Ok(response)
        }
        Answer::Watch(watch) => {
            let content_type = representation.watch_content_type()?;
            Ok(with_type(200, content_type, Body::watch(representation, watch)))
        }
    }
}

/// A `Status` object. Errors are told in the representation that was asked for, or else in JSON.
pub fn failure(error: &ApiError, accept: Accept, query: &Query, headers: &HeaderMap) -> Response<Body> {
    let mut response = document(error.code, &error.to_status(), accept, query, headers);
    let seconds = error.details.as_ref().map_or(0, |details| details.retry_after_seconds);
    if seconds > 0 {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// A document that is no object of a resource.
pub fn document(code: u16, value: &Value, accept: Accept, query: &Query, headers: &HeaderMap) -> Response<Body> {
    let (content_type, bytes) = represent::plain(accept.media, value, pretty(accept, query, headers));
    whole(code, content_type, bytes, accepts_gzip(headers))
}

/// A response whose body is known as a whole.
pub fn whole(code: u16, content_type: &'static str, bytes: Bytes, gzip: bool) -> Response<Body> {
    if gzip && bytes.len() >= COMPRESS_FROM {
        let mut response = with_type(code, content_type, Body::full(body::gzip(&bytes)));
        let headers = response.headers_mut();
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        headers.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
        return response;
    }
    with_type(code, content_type, Body::full(bytes))
}

fn with_type(code: u16, content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

fn gzip_offered(headers: &HeaderMap) -> bool {
    headers.contains_key(http::header::ACCEPT_ENCODING)
}

pub fn accepts_gzip(headers: &HeaderMap) -> bool {
    let accepted = headers.get(http::header::ACCEPT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or_default();
    accepted.split(',').any(|coding| coding.split(';').next().is_some_and(|coding| coding.trim() == "gzip"))
}

/// Whether a person is likely to read it: asked for, or sent by a tool that shows it as it is.
pub fn pretty(accept: Accept, query: &Query, headers: &HeaderMap) -> bool {
    if accept.pretty {
        return true;
    }
    if query.get("pretty").is_some() {
        return query.flag("pretty");
    }
    let agent = headers.get(http::header::USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    ["curl", "Wget", "Mozilla/5.0"].iter().any(|person| agent.starts_with(person))
}

/// RFC 7234, section 5.5, with the code that Kubernetes uses for all.
fn warning(text: &str) -> String {
    let mut out = String::from("299 - \"");
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// The media type's name as a response has it.
pub fn content_type(media: Media) -> &'static str {
    match media {
        Media::Json => "application/json",
        Media::Yaml => "application/yaml",
        Media::Protobuf => "application/vnd.kubernetes.protobuf",
    }
}

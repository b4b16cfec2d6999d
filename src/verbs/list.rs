//! List: the objects of a collection at one revision, whole or page by page.
//!
//! A page says in its `continue` token at which revision the list began and after which key it goes on, so any replica
//! can serve the next one from the same revision.

use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use base64::engine::general_purpose::{GeneralPurpose, NO_PAD};
use base64::{Engine, alphabet};
use kontiki_storage::{Compacted, Record, Revision, View};
use serde::Serialize;
use serde_json::Value;
use tokio::time::Instant;

use super::{Answer, Request};
use crate::codec::json::{Syntax, decode_untyped, kind_of};
use crate::facts::Selection;
use crate::field::{Errors, Path, go_quote};
use crate::metrics::METRICS;
use crate::request::Query;
use crate::selector::{FieldSelector, LabelSelector};
use crate::status::{ApiError, Cause, Details, Result};

/// How long a list waits for a revision that this replica hasn't applied.
const CATCH_UP: Duration = Duration::from_secs(3);

/// Objects in key order and the metadata of the list.
pub struct List {
    pub records: Vec<Arc<Record>>,
    pub revision: Revision,
    pub continues: Option<String>,
    pub remaining: Option<u64>,
    /// How many objects were looked at for it.
    pub read: usize,
}

/// `ListOptions` as the query has them.
pub struct Options {
    pub selection: Selection,
    limit: usize,
    continues: String,
    /// Only a watch has them: what it asks for, or what one that names no version gets.
    pub initial_events: Option<bool>,
}

/// Which state of the collection is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// Everything acknowledged so far.
    Latest,
    /// Whatever this replica has.
    Any,
    NotOlderThan(Revision),
    Exact(Revision),
}

pub async fn list(request: &mut Request) -> Result<Answer> {
    let options = Options::read(request)?;
    let (view, from) = if options.continues.is_empty() {
        (view(request, options.version(request)?).await?, None)
    } else {
        let (view, from) = continued(request, &options.continues).await?;
        (view, Some(from))
    };
    let list = page(request, &view, &options.selection, from, options.limit);
    METRICS.listed(&request.resource, list.read, list.records.len());
    Ok(Answer::List(list))
}

/// The selected objects of `view`, at most `limit` (0: all), from the key `from` on.
pub fn page(request: &Request, view: &View, selection: &Selection, from: Option<String>, limit: usize) -> List {
    let resource = &request.resource;
    let mut list = List { records: Vec::new(), revision: view.revision(), continues: None, remaining: None, read: 0 };
    let prefix = match (resource.namespaced, selection.namespace.is_empty()) {
        (true, false) => format!("{}/{}/", resource.table, selection.namespace),
        _ => format!("{}/", resource.table),
    };
    if let Some(name) = &selection.name
        && (!resource.namespaced || !selection.namespace.is_empty())
    {
        let record = view.get(&format!("{prefix}{name}")).filter(|record| selection.matches(resource, record));
        list.records.extend(record.cloned());
        list.read = list.records.len();
        return list;
    }
    let start = from.as_deref().map_or(Bound::Unbounded, Bound::Included);
    let plain = !selection.selects() && selection.name.is_none();
    let mut rows = view.range(&prefix, start);
    if plain && limit == 0 {
        list.records = rows.cloned().collect();
        list.read = list.records.len();
        return list;
    }
    for record in rows.by_ref() {
        list.read += 1;
        if !plain && !selection.matches(resource, record) {
            continue;
        }
        list.records.push(record.clone());
        if limit != 0 && list.records.len() == limit {
            break;
        }
    }
    // Upstream looks no further than one key ahead, so a page that selects may be followed by an empty one.
    if rows.next().is_some()
        && let Some(last) = list.records.last()
    {
        if plain {
            list.remaining = Some(1 + rows.count() as u64);
        }
        list.continues = Some(Token::after(list.revision, &prefix, last).encode());
    }
    list
}

impl Options {
    pub fn read(request: &Request) -> Result<Options> {
        let query = &request.query;
        for name in ["timeoutSeconds", "limit"] {
            int(query.text(name))?;
        }
        let labels = LabelSelector::parse(query.text("labelSelector")).map_err(ApiError::bad_request)?;
        let fields = FieldSelector::parse(query.text("fieldSelector")).map_err(ApiError::bad_request)?;
        let initial_events = initial_events(query)?;
        let namespace = if request.resource.namespaced { request.namespace() } else { "" };
        Ok(Options {
            selection: Selection::new(&request.resource, namespace, request.name(), labels, fields)?,
            limit: usize::try_from(int(query.text("limit"))?).unwrap_or(0),
            continues: query.text("continue").to_owned(),
            initial_events,
        })
    }

    /// The version that a list asks for.
    fn version(&self, request: &Request) -> Result<Version> {
        let text = request.query.text("resourceVersion");
        if text.is_empty() {
            return Ok(Version::Latest);
        }
        let revision = uint("resourceVersion", text)
            .map_err(|why| ApiError::bad_request(format!("invalid resource version: {why}")))?;
        Ok(match request.query.text("resourceVersionMatch") {
            "Exact" => Version::Exact(revision),
            _ if revision == 0 => Version::Any,
            // Before there was a match parameter a page of a given version was of exactly that version.
            "" if self.limit > 0 => Version::Exact(revision),
            _ => Version::NotOlderThan(revision),
        })
    }
}

/// Checks how `ListOptions` go together (KEP-2523 and KEP-3157), and says whether a watch is to begin with what is there.
fn initial_events(query: &Query) -> Result<Option<bool>> {
    let (version, mut matching) = (query.text("resourceVersion"), query.text("resourceVersionMatch"));
    let mut initial = query.get("sendInitialEvents").map(|_| query.flag("sendInitialEvents"));
    // Not for the paths that say watch themselves: to upstream their options are those of a list.
    let watch = query.flag("watch");
    if watch && initial.is_none() && matching.is_empty() && matches!(version, "" | "0") {
        (initial, matching) = (Some(true), "NotOlderThan");
    }
    let mut errors = Errors::default();
    let (match_path, initial_path) = (Path::new("resourceVersionMatch"), Path::new("sendInitialEvents"));
    let continues = !query.text("continue").is_empty();
    if watch {
        if initial.is_some() && matching != "NotOlderThan" {
            errors.forbidden(&match_path, "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan");
        }
        if !matching.is_empty() {
            if initial.is_none() {
                errors.forbidden(
                    &match_path,
                    "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
                );
            }
            if matching != "NotOlderThan" {
                errors.not_supported(&match_path, matching, &["NotOlderThan"]);
            }
            if continues {
                errors.forbidden(&match_path, "resourceVersionMatch is forbidden when continue is provided");
            }
        }
    } else {
        if !matching.is_empty() {
            if version.is_empty() {
                errors.forbidden(&match_path, "resourceVersionMatch is forbidden unless resourceVersion is provided");
            }
            if continues {
                errors.forbidden(&match_path, "resourceVersionMatch is forbidden when continue is provided");
            }
            if !matches!(matching, "Exact" | "NotOlderThan") {
                errors.not_supported(&match_path, matching, &["Exact", "NotOlderThan", ""]);
            }
            if matching == "Exact" && version == "0" {
                errors.forbidden(&match_path, "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"");
            }
        }
        if initial.is_some() {
            errors.forbidden(&initial_path, "sendInitialEvents is forbidden for list");
        }
    }
    if errors.is_empty() { Ok(initial) } else { Err(ApiError::invalid("meta.k8s.io", "ListOptions", "", &errors.0)) }
}

/// The state that a list or the start of a watch shows.
pub async fn view(request: &Request, version: Version) -> Result<View> {
    let store = request.server.replica.store();
    match version {
        Version::Latest => request.fresh_view().await,
        Version::Any => Ok(store.view()),
        Version::NotOlderThan(revision) => settled_view(request, revision).await,
        Version::Exact(revision) => {
            settled_view(request, revision).await?;
            store
                .view_at(revision)
                .map_err(|Compacted { .. }| ApiError::expired("The resourceVersion for the provided list is too old."))
        }
    }
}

/// A view in which `revision` has been applied.
pub async fn settled_view(request: &Request, revision: Revision) -> Result<View> {
    let store = request.server.replica.store();
    let view = store.view();
    if view.revision() >= revision {
        return Ok(view);
    }
    let until = request.deadline.min(Instant::now() + CATCH_UP);
    match tokio::time::timeout_at(until, store.wait_for(revision)).await {
        Ok(view) => Ok(view),
        Err(_) => Err(too_large(revision, store.applied_revision())),
    }
}

fn too_large(asked: Revision, current: Revision) -> ApiError {
    let cause = Cause {
        reason: "ResourceVersionTooLarge".into(),
        message: "Too large resource version".into(),
        field: String::new(),
    };
    ApiError::timeout(format!("Too large resource version: {asked}, current: {current}")).with_details(Details {
        causes: vec![cause],
        retry_after_seconds: 1,
        ..Details::default()
    })
}

/// The view in which a paged list goes on, and the key at which it does.
async fn continued(request: &Request, token: &str) -> Result<(View, String)> {
    let token = Token::decode(token)
        .map_err(|why| ApiError::bad_request(format!("invalid continue token: continue key is not valid: {why}")))?;
    if !matches!(request.query.text("resourceVersion"), "" | "0") {
        return Err(ApiError::bad_request("specifying resource version is not allowed when using continue"));
    }
    let resource = &request.resource;
    let prefix = match (resource.namespaced, request.namespace()) {
        (true, namespace) if !namespace.is_empty() => format!("{}/{namespace}/", resource.table),
        _ => format!("{}/", resource.table),
    };
    let from = format!("{prefix}{}", token.start.strip_prefix('/').unwrap_or(&token.start));
    if token.revision < 0 {
        // The client has chosen an inconsistent list over none.
        return Ok((request.fresh_view().await?, from));
    }
    let revision = token.revision as Revision;
    settled_view(request, revision).await?;
    match request.server.replica.store().view_at(revision) {
        Ok(view) => Ok((view, from)),
        Err(Compacted { .. }) => {
            let anyway = Token { revision: -1, ..token }.encode();
            let mut error = ApiError::expired(EXPIRED);
            error.continues = Some(anyway);
            Err(error)
        }
    }
}

const EXPIRED: &str = "The provided continue parameter is too old to display a consistent list result. You can start a \
                       new list without the continue parameter, or use the continue token in this response to \
                       retrieve the remainder of the results. Continuing with the provided token results in an \
                       inconsistent list - objects that were created, modified, or deleted between the time the \
                       first chunk was returned and now may show up in the list.";

#[derive(Serialize)]
pub struct Token {
    #[serde(rename = "v")]
    format: String,
    /// Negative: whatever is there now.
    #[serde(rename = "rv")]
    revision: i64,
    /// Relative to the collection; a NUL byte after the last key makes it the first possible one behind it.
    start: String,
}

const FORMAT: &str = "meta.k8s.io/v1";

/// As Go reads it: bits that are left over are not looked at.
const BASE64: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, NO_PAD.with_decode_allow_trailing_bits(true));

impl Token {
    fn after(revision: Revision, prefix: &str, last: &Record) -> Token {
        let key = last.key.as_str().strip_prefix(prefix).unwrap_or_default();
        Token { format: FORMAT.into(), revision: revision as i64, start: format!("{key}\0") }
    }

    pub fn encode(&self) -> String {
        BASE64.encode(serde_json::to_vec(self).unwrap_or_default())
    }

    /// The errors are Go's, which clients see.
    pub fn decode(text: &str) -> std::result::Result<Token, String> {
        let bytes = BASE64.decode(text).map_err(|_| {
            let foreign = |byte: u8| !byte.is_ascii_alphanumeric() && byte != b'-' && byte != b'_';
            let at = text.bytes().position(foreign).unwrap_or(text.len().saturating_sub(1));
            format!("illegal base64 data at input byte {at}")
        })?;
        let json = decode_untyped(&bytes).map_err(|Syntax(why)| why)?;
        let unmarshal = |value: &Value, into: &str| {
            let what = match value {
                Value::Number(number) => format!("number {number}"),
                other => kind_of(other).to_owned(),
            };
            Err(format!("json: cannot unmarshal {what} into Go {into}"))
        };
        let mut token = Token { format: String::new(), revision: 0, start: String::new() };
        match &json {
            Value::Object(members) => {
                for (name, value) in members {
                    match (name.as_str(), value) {
                        (_, Value::Null) => {}
                        ("v", Value::String(text)) => token.format = text.clone(),
                        ("start", Value::String(text)) => token.start = text.clone(),
                        ("rv", Value::Number(number)) if number.is_i64() => {
                            token.revision = number.as_i64().unwrap_or_default();
                        }
                        ("v" | "start", Value::Number(_)) => {
                            return Err(format!(
                                "json: cannot unmarshal number into Go struct field continueToken.{name} of type string"
                            ));
                        }
                        ("v" | "start", _) => {
                            return unmarshal(value, &format!("struct field continueToken.{name} of type string"));
                        }
                        ("rv", _) => return unmarshal(value, "struct field continueToken.rv of type int64"),
                        _ => {}
                    }
                }
            }
            Value::Null => {}
            Value::Number(_) => {
                return Err("json: cannot unmarshal number into Go value of type storage.continueToken".into());
            }
            other => return unmarshal(other, "value of type storage.continueToken"),
        }
        if token.format != FORMAT {
            return Err(format!("server does not recognize this encoded version {}", token.format));
        }
        if token.revision == 0 {
            return Err(format!("incorrect encoded start resourceVersion (version {FORMAT})"));
        }
        if token.start.is_empty() {
            return Err(format!("encoded start key empty (version {FORMAT})"));
        }
        // Nothing outside of the collection.
        let path = token.start.strip_prefix('/').unwrap_or(&token.start);
        if !path.is_empty() && path.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(token.start);
        }
        Ok(token)
    }
}

/// A parameter that is read as Go's `strconv.ParseUint` does.
pub fn uint(name: &str, text: &str) -> std::result::Result<u64, String> {
    let why = match text.parse::<u64>() {
        Ok(number) if text.bytes().all(|b| b.is_ascii_digit()) => return Ok(number),
        Err(e) if *e.kind() == std::num::IntErrorKind::PosOverflow => "value out of range",
        _ => "invalid syntax",
    };
    let text = go_quote(text);
    Err(format!("{name}: Invalid value: {text}: strconv.ParseUint: parsing {text}: {why}"))
}

/// 0 where it is absent.
pub fn int(text: &str) -> Result<i64> {
    if text.is_empty() {
        return Ok(0);
    }
    text.parse::<i64>().map_err(|e| {
        let why = match e.kind() {
            std::num::IntErrorKind::PosOverflow | std::num::IntErrorKind::NegOverflow => "value out of range",
            _ => "invalid syntax",
        };
        ApiError::bad_request(format!("strconv.ParseInt: parsing {}: {why}", go_quote(text)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn tokens_name_where_to_go_on() {
        let token = Token { format: FORMAT.into(), revision: 7, start: "ns/a\0".into() };
        let read = Token::decode(&token.encode()).expect("a token");
        assert_eq!((read.revision, read.start), (7, "ns/a\0".to_owned()));
        let with = |json: &str| BASE64.encode(json);
        let json = |rv: &str, start: &str| with(&format!(r#"{{"v":"{FORMAT}","rv":{rv},"start":{start}}}"#));
        for (bad, why) in [
            ("x", "illegal base64 data at input byte 0"),
            ("abcde", "illegal base64 data at input byte 4"),
            ("ab=", "illegal base64 data at input byte 2"),
            ("abc", "invalid character 'i' looking for beginning of value"),
            ("e30", "server does not recognize this encoded version "),
            (&with(r#"{"v":"x"}"#), "server does not recognize this encoded version x"),
            (&with("[]"), "json: cannot unmarshal array into Go value of type storage.continueToken"),
            (&json("0", r#""a""#), "incorrect encoded start resourceVersion (version meta.k8s.io/v1)"),
            (
                &json(r#""5""#, r#""a""#),
                "json: cannot unmarshal string into Go struct field continueToken.rv of type int64",
            ),
            (
                &json("1.5", r#""a""#),
                "json: cannot unmarshal number 1.5 into Go struct field continueToken.rv of type int64",
            ),
            (&json("5", r#""""#), "encoded start key empty (version meta.k8s.io/v1)"),
            (&json("5", r#""../x""#), "../x"),
            (&json("5", r#""a//b""#), "a//b"),
            (&json("5", r#""a/""#), "a/"),
        ] {
            assert_eq!(Token::decode(bad).err().as_deref(), Some(why), "{bad}");
        }
        assert!(Token::decode(&json("5", r#""/a""#)).is_ok());
    }

    proptest! {
        #[test]
        fn any_token_is_read_or_refused(text in ".{0,60}") {
            let _ = Token::decode(&text);
        }
    }
}

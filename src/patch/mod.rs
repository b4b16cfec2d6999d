//! Patches: JSON patch, JSON merge patch and strategic merge patch, as kube-apiserver applies them.
//!
//! A patch changes a copy of the current object, which then has to fit the schema again: what it holds afterwards is
//! canonical, and what the schema doesn't know is dropped and reported. These are pure functions of object and patch.

pub(crate) mod conform;
mod json_patch;
mod merge;
pub(crate) mod print;
mod strategic;

#[cfg(test)]
pub(crate) mod tests;

use serde_json::{Value, json};

use crate::codec::{self, Target, Validation, decode_untyped};
use crate::field::{Errors, Path, go_quote};
use crate::schema::Node;
use crate::status::{ApiError, Details};

/// How a patch is written, by the `Content-Type` of its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatchKind {
    Json,
    Merge,
    Strategic,
    /// Server-side apply.
    Apply,
}

/// The media types, with whether custom resources take them too.
const MEDIA_TYPES: &[(&str, PatchKind, bool)] = &[
    ("application/json-patch+json", PatchKind::Json, true),
    ("application/merge-patch+json", PatchKind::Merge, true),
    ("application/strategic-merge-patch+json", PatchKind::Strategic, false),
    ("application/apply-patch+yaml", PatchKind::Apply, true),
];

impl PatchKind {
    /// Custom resources have no strategic merge patch.
    pub fn of(content_type: &str, custom_resource: bool) -> Result<PatchKind, ApiError> {
        let media = content_type.split(';').next().unwrap_or_default().trim();
        let taken = MEDIA_TYPES.iter().filter(|(_, _, custom)| *custom || !custom_resource);
        if let Some((_, kind, _)) = taken.clone().find(|(name, _, _)| *name == media) {
            return Ok(*kind);
        }
        const REASON: &str = "UnsupportedMediaType";
        if custom_resource {
            let names: Vec<&str> = taken.map(|(name, _, _)| *name).collect();
            let names = names.join(", ");
            let what = "the body of the request was in an unknown format - accepted media types include";
            return Err(ApiError::new(415, REASON, format!("{what}: {names}")));
        }
        // The router of the built-in kinds refuses these before anything else looks at them.
        Err(ApiError::new(415, REASON, "415: Unsupported Media Type").with_details(Details::default()))
    }
}

/// What a patch made of an object: canonical, before defaults.
#[derive(Debug)]
pub struct Patched {
    pub object: Value,
    pub warnings: Vec<String>,
}

/// Applies a JSON patch, a merge patch or a strategic merge patch to an object of the kind `target`, whose schema is
/// `node`. `current` is canonical and in the version of `target`; it is copied once.
///
/// What the patch may not change (names, versions, what the kind protects) is for the caller to look at.
pub fn apply(
    kind: PatchKind,
    target: Target<'_>,
    node: Node<'_>,
    current: &Value,
    body: &[u8],
    validation: Validation,
) -> Result<Patched, ApiError> {
    match kind {
        PatchKind::Json => {
            let (operations, findings) = json_patch::read(body, validation)?;
            let patched = |trace| {
                let mut object = current.clone();
                let done = json_patch::run(&operations, &mut object, trace);
                done.map(|()| object).map_err(|json_patch::Failed| unprocessable())
            };
            settle(target, node, patched, findings, validation)
        }
        PatchKind::Merge => {
            let (patch, findings) = read_merge_patch(body, validation)?;
            let patched = |trace| {
                let mut object = current.clone();
                merge::merge(&mut object, &patch, trace);
                Ok(object)
            };
            settle(target, node, patched, findings, validation)
        }
        PatchKind::Strategic => strategic_merge(target, node, current, body, validation),
        PatchKind::Apply => Err(ApiError::internal("an applied configuration is no patch")),
    }
}

fn unprocessable() -> ApiError {
    ApiError::new(422, "Invalid", "the server rejected our request due to an error in our request")
        .with_details(Details::default())
}

/// The patched object isn't one of its kind. The value is quoted as the patch left it.
fn invalid(patched: &str, why: &str) -> ApiError {
    let mut errors = Errors::default();
    errors.invalid(&Path::new("patch"), patched, why);
    ApiError::invalid("", "", "", &errors.0)
}

/// What is unknown or there twice is ignored, told, or refused.
fn judge(
    object: Value,
    findings: Vec<String>,
    validation: Validation,
    patched: impl FnOnce() -> String,
) -> Result<Patched, ApiError> {
    match validation {
        Validation::Ignore => Ok(Patched { object, warnings: Vec::new() }),
        Validation::Strict if !findings.is_empty() => {
            Err(invalid(&patched(), &format!("strict decoding error: {}", findings.join(", "))))
        }
        _ => Ok(Patched { object, warnings: findings }),
    }
}

/// Reads the outcome of a patch of JSON text again. Only where that has something to tell is it done as upstream does
/// it, from text: `patched` then makes the object with its traces, by which the text is ordered.
fn settle(
    target: Target<'_>,
    node: Node<'_>,
    patched: impl Fn(bool) -> Result<Value, ApiError>,
    mut findings: Vec<String>,
    validation: Validation,
) -> Result<Patched, ApiError> {
    let mut object = patched(false)?;
    let said = target.is_said_by(&object);
    if said && has_no_version(&object) {
        let text = print::json(node, &patched(true)?);
        findings.extend(unknown_to_internal(node, &object));
        return judge(json!({ "metadata": {} }), findings, validation, || text);
    }
    if said
        && let Ok(fit) = conform::conform(node, &mut object)
        && fit.is_perfect()
        && findings.is_empty()
    {
        target.name_kind(&mut object);
        return Ok(Patched { object, warnings: findings });
    }
    let text = print::json(node, &patched(true)?);
    let decoded = codec::decode_again(target, node, text.as_bytes()).map_err(|why| invalid(&text, &why))?;
    findings.extend(decoded.findings);
    judge(decoded.value, findings, validation, || text)
}

fn has_no_version(object: &Value) -> bool {
    let no_version = |version: &Value| version.is_null() || version == "";
    object.as_object().is_some_and(|map| map.get("apiVersion").is_none_or(no_version))
}

/// Upstream reads an object of no version as if it were of its internal one, which has the metadata among its own
/// fields and the other fields under other names. So nothing is left of the object, its name neither, but what is told
/// of unknown fields.
fn unknown_to_internal(node: Node<'_>, object: &Value) -> Vec<String> {
    let metadata = node.field("metadata").and_then(|metadata| metadata.as_struct());
    let known =
        |name: &str| matches!(name, "apiVersion" | "kind") || metadata.is_some_and(|entry| entry.field(name).is_some());
    let names = object.as_object().into_iter().flat_map(|map| map.keys());
    names.filter(|name| !known(name)).map(|name| format!("unknown field {}", go_quote(name))).collect()
}

fn read_merge_patch(body: &[u8], validation: Validation) -> Result<(Value, Vec<String>), ApiError> {
    const NO_PATCH: &str = "Invalid JSON Patch";
    if validation == Validation::Ignore {
        return match decode_untyped(body) {
            Ok(patch @ (Value::Object(_) | Value::Array(_))) => Ok((patch, Vec::new())),
            _ => Err(ApiError::bad_request(NO_PATCH)),
        };
    }
    match read_map(body) {
        Ok(Some((patch, findings))) => Ok((patch, findings)),
        Ok(None) => Err(ApiError::bad_request(NO_PATCH)),
        Err(why) => Err(ApiError::bad_request(format!("error decoding patch: {why}"))),
    }
}

/// A JSON object and the fields that it has twice; none for `null`.
fn read_map(body: &[u8]) -> Result<Option<(Value, Vec<String>)>, String> {
    let (value, findings) = codec::decode_untyped_strict(body).map_err(|syntax| syntax.0)?;
    match value {
        Value::Null => Ok(None),
        Value::Object(_) => Ok(Some((value, findings))),
        other => {
            let what = codec::json::kind_of(&other);
            Err(format!("json: cannot unmarshal {what} into Go value of type map[string]interface {{}}"))
        }
    }
}

fn strategic_merge(
    target: Target<'_>,
    node: Node<'_>,
    current: &Value,
    body: &[u8],
    validation: Validation,
) -> Result<Patched, ApiError> {
    let read = read_map(body).map_err(ApiError::bad_request)?;
    let Some((Value::Object(patch), mut findings)) = read else {
        return Ok(Patched { object: current.clone(), warnings: Vec::new() });
    };
    let Value::Object(original) = current.clone() else {
        return Err(ApiError::internal("an object to patch is a map"));
    };
    let mut object = Value::Object(strategic::merge(node, original, patch)?);
    // Merging uses the patch up; the messages that quote it read it again.
    let quoted = || match read_map(body) {
        Ok(Some((mut patch, _))) => {
            strategic::strip_directives(&mut patch);
            print::go(&patch)
        }
        _ => String::new(),
    };
    let fit = conform::conform(node, &mut object).map_err(|why| invalid(&quoted(), &why))?;
    findings.extend(fit.findings());
    // What the object says of its kind is not looked at.
    target.name_kind(&mut object);
    judge(object, findings, validation, quoted)
}

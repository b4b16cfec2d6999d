//! The object in a write's body: its media type, its kind, and whether it agrees with the path that it was sent to.

use std::collections::BTreeSet;

use http::{HeaderMap, header};
use serde_json::Value;

use super::Request;
use super::options::WriteOptions;
use crate::codec::{self, Media, Target};
use crate::object::Fields;
use crate::status::{ApiError, Result};

const MEDIA: &[(&str, Media)] = &[
    ("application/json", Media::Json),
    ("application/yaml", Media::Yaml),
    ("application/vnd.kubernetes.protobuf", Media::Protobuf),
];

/// The media type that the body says it has, without parameters; empty where it says none.
pub fn content_type(headers: &HeaderMap) -> &str {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim()
}

pub fn unsupported<'m>(accepted: impl Iterator<Item = &'m str>) -> ApiError {
    let accepted: Vec<&str> = accepted.collect();
    let accepted = accepted.join(", ");
    ApiError::new(
        415,
        "UnsupportedMediaType",
        format!("the body of the request was in an unknown format - accepted media types include: {accepted}"),
    )
}

/// How the body is encoded.
pub fn media(headers: &HeaderMap) -> Result<Media> {
    match content_type(headers) {
        "" => Ok(Media::Json),
        name => match MEDIA.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)) {
            Some((_, media)) => Ok(*media),
            None => Err(unsupported(MEDIA.iter().map(|(name, _)| *name))),
        },
    }
}

/// Reads the body as an object of the kind that `target` names. What is odd about it goes to the warnings.
pub fn decode(request: &mut Request, target: Target<'_>, options: &WriteOptions) -> Result<Value> {
    let media = media(&request.headers)?;
    let (object, findings) = codec::decode_body(target, media, &request.body, options.validation)?;
    request.warnings.extend(findings);
    Ok(object)
}

/// The namespace of the object is that of the path; one of another namespace is refused, and of resources that are in
/// none it is forgotten.
pub fn agree_on_namespace(request: &Request, object: &mut Value) -> Result<()> {
    let expected = if request.resource.namespaced { request.namespace() } else { "" };
    let found = object.text_at(&["metadata", "namespace"]);
    if found == expected {
        return Ok(());
    }
    if expected.is_empty() {
        object.take_at(&["metadata", "namespace"]);
    } else if found.is_empty() {
        object.set(&["metadata", "namespace"], expected);
    } else {
        let why = "the namespace of the provided object does not match the namespace sent on the request";
        return Err(ApiError::bad_request(why));
    }
    Ok(())
}

/// The object's name is that of the path.
pub fn agree_on_name(request: &Request, object: &Value) -> Result<()> {
    let (found, expected) = (object.text_at(&["metadata", "name"]), request.name());
    if found.is_empty() {
        let why = format!("the name of the object ({expected} based on URL) was undeterminable: name must be provided");
        return Err(ApiError::bad_request(why));
    }
    if found != expected {
        let why = format!("the name of the object ({found}) does not match the name on the URL ({expected})");
        return Err(ApiError::bad_request(why));
    }
    Ok(())
}

/// What only the server decides about a new object.
pub fn forget_system_fields(object: &mut Value) {
    if let Some(metadata) = object.at_mut(&["metadata"]).and_then(Value::as_object_mut) {
        for field in ["creationTimestamp", "uid", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"] {
            metadata.remove(field);
        }
    }
}

/// Owners that are named twice are kept once, with a warning.
pub fn single_owners(object: &mut Value, admitted: bool, warnings: &mut Vec<String>) {
    let Some(Value::Array(owners)) = object.at_mut(&["metadata", "ownerReferences"]) else { return };
    let mut repeated = BTreeSet::new();
    let mut kept: Vec<Value> = Vec::with_capacity(owners.len());
    for owner in owners.drain(..) {
        if kept.contains(&owner) {
            repeated.insert(owner.text_at(&["uid"]).to_owned());
        } else {
            kept.push(owner);
        }
    }
    *owners = kept;
    if !repeated.is_empty() {
        let after = if admitted { " after mutating admission happens" } else { "" };
        let uids: Vec<String> = repeated.into_iter().collect();
        warnings.push(format!(
            ".metadata.ownerReferences contains duplicate entries{after}; API server dedups owner references in 1.20+, \
             and may reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: {}",
            uids.join(", ")
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn owners_are_kept_once() {
        let owner = json!({"apiVersion": "v1", "kind": "Pod", "name": "a", "uid": "u"});
        let mut object = json!({"metadata": {"ownerReferences": [owner, owner, {"uid": "v"}]}});
        let mut warnings = Vec::new();
        single_owners(&mut object, false, &mut warnings);
        assert_eq!(object["metadata"]["ownerReferences"], json!([owner, {"uid": "v"}]));
        assert!(warnings[0].ends_with("duplicate UID(s) observed: u"), "{warnings:?}");
    }
}

//! The faces of an object: the whole, and the subresources through which a part of it is changed.

use std::borrow::Cow;

use bytes::Bytes;
use serde_json::Value;

use super::Request;
use super::commit::Reply;
use crate::field::Errors;
use crate::kinds::Kind;
use crate::kinds::certificates::CertificateSigningRequest;
use crate::kinds::config::Namespace;
use crate::kinds::pods::subresources as pods;
use crate::kinds::workloads::scale;
use crate::status::{ApiError, Result};

/// Through what an object is changed.
#[derive(Clone, Copy)]
pub enum Face {
    Main,
    Status,
    /// The count of replicas, as an object of its own kind.
    Scale,
    Part(&'static Part),
}

/// A subresource with rules of its own; it takes and shows the whole object.
pub struct Part {
    kind: &'static str,
    name: &'static str,
    prepare: fn(&mut Value, &Value),
    validate: fn(&Value, &Value, &mut Errors),
}

static PARTS: &[Part] = &[
    Part {
        kind: "CertificateSigningRequest",
        name: "approval",
        prepare: CertificateSigningRequest::prepare_approval,
        validate: CertificateSigningRequest::validate_approval,
    },
    Part {
        kind: "Namespace",
        name: "finalize",
        prepare: Namespace::prepare_finalize,
        validate: |object, _, errors| Namespace::validate_finalize(object, errors),
    },
    Part {
        kind: "Pod",
        name: "ephemeralcontainers",
        prepare: pods::prepare_ephemeral_update,
        validate: pods::validate_ephemeral_update,
    },
    Part { kind: "Pod", name: "resize", prepare: pods::prepare_resize, validate: pods::validate_resize },
];

impl Face {
    pub fn of(request: &Request) -> Result<Face> {
        let kind = &*request.resource.kind;
        match request.info.subresource.as_str() {
            "" => Ok(Face::Main),
            "status" => Ok(Face::Status),
            "scale" if scale::is_scalable(&request.resource.group, kind) => Ok(Face::Scale),
            name => match PARTS.iter().find(|part| part.name == name && part.kind == kind) {
                Some(part) => Ok(Face::Part(part)),
                None => Err(ApiError::method_not_allowed()),
            },
        }
    }

    /// Whether the rules are those of the whole object.
    pub fn is_whole(self) -> bool {
        matches!(self, Face::Main | Face::Scale)
    }

    /// The object as the face shows it.
    pub fn show(self, object: &Value) -> Cow<'_, Value> {
        match self {
            Face::Scale => Cow::Owned(scale::to_scale(object)),
            _ => Cow::Borrowed(object),
        }
    }

    /// What becomes of the stored object when the client sends `sent`, which has no defaults yet.
    pub fn take(self, request: &Request, mut sent: Value, old: Option<&Value>) -> Result<Value> {
        let rules = request.kind()?;
        match self {
            Face::Scale => {
                let mut object = old.ok_or_else(|| request.not_found())?.clone();
                scale::apply_scale(&mut object, &sent, &request.resource.group, &request.resource.plural)?;
                Ok(object)
            }
            _ => {
                rules.default(&mut sent);
                rules.to_storage(&mut sent);
                Ok(sent)
            }
        }
    }

    pub fn prepare(self, rules: &dyn Kind, object: &mut Value, old: &Value) {
        match self {
            Face::Main | Face::Scale => rules.prepare_update(object, old),
            Face::Status => rules.prepare_status_update(object, old),
            Face::Part(part) => (part.prepare)(object, old),
        }
    }

    pub fn validate(self, rules: &dyn Kind, object: &Value, old: &Value, errors: &mut Errors) {
        match self {
            Face::Main | Face::Scale => rules.validate_update(object, old, errors),
            Face::Status => rules.validate_status_update(object, old, errors),
            Face::Part(part) => (part.validate)(object, old, errors),
        }
    }

    pub fn warnings(self, rules: &dyn Kind, object: &Value, old: &Value) -> Vec<String> {
        match self {
            Face::Main | Face::Scale => rules.warnings(object, Some(old)),
            _ => Vec::new(),
        }
    }

    pub fn moves_generation(self) -> bool {
        !matches!(self, Face::Status)
    }

    pub fn reply(self, object: &Value, value: Bytes, revision_at: u32) -> Reply {
        match self {
            Face::Scale => Reply::Shown { code: 200, object: scale::to_scale(object) },
            _ => Reply::Stored { code: 200, value, revision_at },
        }
    }
}

//! The faces of an object: the whole, and the subresources through which a part of it is changed.

use bytes::Bytes;
use serde_json::Value;

use super::Request;
use super::commit::Reply;
use crate::field::Errors;
use crate::kinds::Kind;
use crate::kinds::certificates::CertificateSigningRequest;
use crate::kinds::config::Namespace;
use crate::kinds::pods::subresources as pods;
use crate::status::{ApiError, Result};

/// Through what an object is changed.
#[derive(Clone, Copy)]
pub enum Face {
    Main,
    Status,
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
            name => match PARTS.iter().find(|part| part.name == name && part.kind == kind) {
                Some(part) => Ok(Face::Part(part)),
                None => Err(ApiError::method_not_allowed()),
            },
        }
    }

    pub fn is_main(self) -> bool {
        matches!(self, Face::Main)
    }

    /// Fills in defaults and turns the object of a body into the form that [`Face::merge`] takes.
    pub fn complete(self, rules: &dyn Kind, object: &mut Value) {
        rules.default(object);
        rules.to_storage(object);
    }

    pub fn prepare(self, rules: &dyn Kind, object: &mut Value, old: &Value) {
        match self {
            Face::Main => rules.prepare_update(object, old),
            Face::Status => rules.prepare_status_update(object, old),
            Face::Part(part) => (part.prepare)(object, old),
        }
    }

    pub fn validate(self, rules: &dyn Kind, object: &Value, old: &Value, errors: &mut Errors) {
        match self {
            Face::Main => rules.validate_update(object, old, errors),
            Face::Status => rules.validate_status_update(object, old, errors),
            Face::Part(part) => (part.validate)(object, old, errors),
        }
    }

    pub fn warnings(self, rules: &dyn Kind, object: &Value, old: &Value) -> Vec<String> {
        match self {
            Face::Main => rules.warnings(object, Some(old)),
            _ => Vec::new(),
        }
    }

    pub fn moves_generation(self) -> bool {
        !matches!(self, Face::Status)
    }

    pub fn reply(self, value: Bytes, revision_at: u32) -> Reply {
        Reply::Stored { code: 200, value, revision_at }
    }
}

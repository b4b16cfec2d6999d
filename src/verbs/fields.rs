//! Field management of a write: what `managed` needs to know of a request.

use std::borrow::Cow;

use serde_json::Value;

use super::Request;
use super::options::WriteOptions;
use super::subresource::Face;
use crate::kinds;
use crate::kinds::workloads::scale::to_scale;
use crate::managed::{self, Versions, Write, reset};
use crate::object::Fields;
use crate::schema::{Node, builtin};
use crate::time;

/// The versions of a built-in kind. An object says which one it is in.
pub struct BuiltIn;

impl Versions for BuiltIn {
    fn see<'o>(&self, object: &'o Value, api_version: &str) -> Option<(Node<'_>, Cow<'o, Value>)> {
        let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
        let kind = object.text_at(&["kind"]);
        let node = builtin().kind(group, version, kind)?;
        if object.text_at(&["apiVersion"]) == api_version {
            return Some((node, Cow::Borrowed(object)));
        }
        let mut converted = object.clone();
        kinds::find(group, kind)?.from_storage(&mut converted, version);
        Some((node, Cow::Owned(converted)))
    }
}

/// Says in the object, which is in the stored version and about to be admitted, who manages its fields.
pub fn manage(request: &Request, options: &WriteOptions, face: Face, old: Option<&Value>, object: &mut Value) {
    let resource = &request.resource;
    let api_version = resource.api_version();
    let write = Write {
        versions: &BuiltIn,
        api_version: &api_version,
        subresource: &request.info.subresource,
        manager: &options.manager,
        reset: reset::of(&resource.kind, &request.info.subresource),
        now: &time::now(),
    };
    match (face, old) {
        (Face::Scale, Some(old)) => {
            let write = Write { api_version: "autoscaling/v1", ..write };
            let shown = (to_scale(old), to_scale(object));
            managed::scale::update(write, shown, old, object, &api_version, &["spec", "replicas"]);
        }
        _ => managed::update(write, old, object),
    }
}

//! Field management of a write: what `managed` needs to know of a request.

use std::borrow::Cow;

use serde_json::Value;

use super::options::WriteOptions;
use super::subresource::Face;
use super::{Request, input, target};
use crate::kinds;
use crate::kinds::workloads::scale::to_scale;
use crate::managed::scale::Scaled;
use crate::managed::{self, Versions, Write, reset};
use crate::object::Fields;
use crate::schema::{Node, builtin};
use crate::status::{ApiError, Result};
use crate::time;

/// The versions of a built-in kind. An object says which one it is in.
pub struct BuiltIn;

impl Versions for BuiltIn {
    fn node(&self, api_version: &str, kind: &str) -> Option<Node<'_>> {
        let (group, version) = split(api_version);
        builtin().kind(group, version, kind)
    }

    fn convert<'o>(&self, object: &'o Value, api_version: &str) -> Option<Cow<'o, Value>> {
        let said = object.text_at(&["apiVersion"]);
        if said == api_version {
            return Some(Cow::Borrowed(object));
        }
        let (kind, (group, version)) = (object.text_at(&["kind"]), split(api_version));
        let mut converted = object.clone();
        kinds::find(split(said).0, kind)?.to_storage(&mut converted);
        if converted.text_at(&["apiVersion"]) != api_version {
            kinds::find(group, kind)?.from_storage(&mut converted, version);
        }
        Some(Cow::Owned(converted))
    }
}

fn split(api_version: &str) -> (&str, &str) {
    api_version.rsplit_once('/').unwrap_or(("", api_version))
}

const REPLICAS: &[&str] = &["spec", "replicas"];

/// Says in the object, which is in the stored version and about to be admitted, who manages its fields.
pub fn manage(request: &Request, options: &WriteOptions, face: Face, old: Option<&Value>, object: &mut Value) {
    let (api_version, now) = (request.resource.api_version(), time::now());
    let write = write(request, options, face, &api_version, &now);
    match (face, old) {
        (Face::Scale, Some(old)) => {
            let scaled = Scaled { object: old, api_version: &api_version, replicas: REPLICAS };
            let (mut before, mut after) = (to_scale(old), to_scale(object));
            scaled.lend(&mut before);
            managed::update(write, Some(&before), &mut after);
            scaled.take_back(&after, object);
        }
        _ => managed::update(write, old, object),
    }
}

/// Says the same of a status that the server itself writes.
pub fn manage_own_status(old: &Value, object: &mut Value) {
    let (api_version, kind) = (old.text_at(&["apiVersion"]), old.text_at(&["kind"]));
    let (reset, now) = (reset::of(kind, "status"), &time::now());
    let write = Write { versions: &BuiltIn, api_version, subresource: "status", manager: "kube-apiserver", reset, now };
    managed::update(write, Some(old), object);
}

/// The object after the configuration in the body is applied, in the stored version and with defaults.
pub fn apply(request: &mut Request, options: &WriteOptions, face: Face, old: Option<&Value>) -> Result<Value> {
    let (resource, subresource) = (request.resource.clone(), request.info.subresource.clone());
    let (api_version, now) = (resource.api_version(), time::now());
    let target = target(&resource, &subresource);
    let mut shown = old.map(|old| face.show(old));
    let scaled = old.map(|object| Scaled { object, api_version: &api_version, replicas: REPLICAS });
    if let (Face::Scale, Some(scaled), Some(shown)) = (face, scaled, &mut shown) {
        scaled.lend(shown.to_mut());
    }
    let write = write(request, options, face, &api_version, &now);
    let applied = managed::apply(write, target, shown.as_deref(), &request.body, options.validation, options.force);
    let (mut applied, warnings) = applied?;
    request.warnings.extend(warnings);
    let uid = applied.text_at(&["metadata", "uid"]);
    if old.is_none() && !uid.is_empty() {
        let why = format!("uid mismatch: the provided object specified uid {uid}, and no existing object was found");
        return Err(ApiError::conflict(&resource.group, &resource.plural, request.name(), why));
    }
    input::agree_on_namespace(request, &mut applied)?;
    input::agree_on_name(request, &applied)?;
    if old.is_none() {
        // Whatever version the client thinks there is.
        applied.take_at(&["metadata", "resourceVersion"]);
    }
    match (face, scaled) {
        (Face::Scale, Some(scaled)) => {
            let mut object = face.take(request, applied.clone(), old)?;
            scaled.take_back(&applied, &mut object);
            Ok(object)
        }
        _ => face.take(request, applied, old),
    }
}

fn write<'w>(
    request: &'w Request,
    options: &'w WriteOptions,
    face: Face,
    api_version: &'w str,
    now: &'w str,
) -> Write<'w> {
    let subresource = &request.info.subresource;
    Write {
        versions: &BuiltIn,
        api_version: if matches!(face, Face::Scale) { "autoscaling/v1" } else { api_version },
        subresource,
        manager: &options.manager,
        reset: reset::of(&request.resource.kind, subresource),
        now,
    }
}

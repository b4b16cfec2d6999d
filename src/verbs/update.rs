//! Update: what `PUT` and `PATCH` have in common once it is known what the new object is to be.

use bytes::Bytes;
use kontiki_storage::{Condition, Record, Revision, View};
use serde_json::Value;

use super::commit::{Plan, carry_out};
use super::create::{self, again, expiry, parse_version};
use super::options::WriteOptions;
use super::subresource::Face;
use super::{Answer, Request, decode_stored, delete, fields, input, services, target};
use crate::admission::{self, Operation};
use crate::codec::{canonicalize, encode_for_store};
use crate::field::{Errors, Path};
use crate::kinds::meta;
use crate::object::Fields;
use crate::status::{ApiError, Result};

pub async fn update(request: &mut Request) -> Result<Answer> {
    let options = WriteOptions::read(request, "UpdateOptions", None)?;
    let face = Face::of(request)?;
    let mut first = Some(read(request, &options)?);
    carry_out(request, options.dry_run, |request, view| {
        let sent = match first.take() {
            Some(object) => object,
            None => again(request, |request| read(request, &options))?,
        };
        let create = request.info.subresource.is_empty() && request.kind()?.create_on_update();
        let uid = sent.text_at(&["metadata", "uid"]).to_owned();
        decide(request, view, &options, face, create, &uid, |request, old| {
            let mut object = face.take(request, sent, old)?;
            input::single_owners(&mut object, false, &mut request.warnings);
            fields::manage(request, &options, face, old, &mut object);
            Ok(object)
        })
    })
    .await
}

/// The object of the body, in the form in which the face shows it.
fn read(request: &mut Request, options: &WriteOptions) -> Result<Value> {
    let resource = request.resource.clone();
    let subresource = request.info.subresource.clone();
    let mut object = input::decode(request, target(&resource, &subresource), options)?;
    input::agree_on_namespace(request, &mut object)?;
    input::agree_on_name(request, &object)?;
    Ok(object)
}

/// Decides on a change. `make` makes the new object, in the stored version, from the one that is there; where none is
/// and `create` allows it, a new one. `uid` is the client's precondition, empty where it has none.
pub fn decide(
    request: &mut Request,
    view: &View,
    options: &WriteOptions,
    face: Face,
    create: bool,
    uid: &str,
    make: impl FnOnce(&mut Request, Option<&Value>) -> Result<Value>,
) -> Result<Plan> {
    let resource = request.resource.clone();
    let rules = request.kind()?;
    let key = request.key()?;
    let record = view.get(key.as_str());
    if record.is_none() && !create {
        return Err(request.not_found());
    }
    let Some(record) = record else {
        if !uid.is_empty() {
            return Err(uid_conflict(request, uid, ""));
        }
        let mut object = make(request, None)?;
        input::forget_system_fields(&mut object);
        return create::decide(request, view, options, object);
    };
    let old = decode_stored(record)?;
    let old_uid = old.text_at(&["metadata", "uid"]);
    if !uid.is_empty() && uid != old_uid {
        return Err(uid_conflict(request, uid, old_uid));
    }
    let mut object = make(request, Some(&old))?;
    let write = admission::Write { operation: Operation::Update, old: Some(&old) };
    let admitted = admission::mutate(request, view, write, &mut object)?;
    input::single_owners(&mut object, true, &mut request.warnings);
    check_version(request, &object, record, rules.unconditional_update())?;
    let claims = match face {
        Face::Main => services::update(request, view, &mut object, &old, options.dry_run)?,
        _ => services::Effects::default(),
    };
    input::agree_on_namespace(request, &mut object)?;
    keep(&mut object, &old, "generation");
    face.prepare(rules, &mut object, &old);
    keep_system_fields(&mut object, &old);
    canonicalize(request.stored_node()?, &mut object);
    if face.moves_generation() && rules.counts_generation() && rules.generation_moves(&object, &old) {
        let generation = old.int_at(&["metadata", "generation"]).unwrap_or_default();
        object.set(&["metadata", "generation"], generation + 1);
    }
    let mut errors = Errors::default();
    if face.is_whole() {
        meta::validate_update(rules, resource.namespaced, &object, &old, &mut errors);
    } else {
        meta::validate_subresource_update(resource.namespaced, &object, &old, &mut errors);
    }
    face.validate(rules, &object, &old, &mut errors);
    if !errors.is_empty() {
        let name = object.text_at(&["metadata", "name"]);
        return Err(request.invalid(name, errors));
    }
    request.warnings.extend(face.warnings(rules, &object, &old));
    let validated = admission::validate(request, view, write, &object)?;
    let (value, revision_at) = encode_for_store(&object);
    let value = Bytes::from(value);
    let reply = face.reply(&object, value.clone(), revision_at);
    let mut plan = Plan::new(reply, Some(record.modified)).on(Condition::At(key.clone(), record.modified));
    if delete::is_finished(request, &object, &old) {
        // Clients expect the object that they sent, as it was before it went.
        plan.shows_old = true;
        plan.delete(key);
        services::delete(request, &old).enter(&mut plan, &old);
        return Ok(plan);
    }
    if same(&value, revision_at, record) {
        return Ok(plan);
    }
    plan.join(admitted);
    plan.join(validated);
    plan.put(key, value, revision_at, expiry(request));
    claims.enter(&mut plan, &object);
    Ok(plan)
}

/// An update without a version overwrites whatever is there, where the kind allows that.
fn check_version(request: &Request, object: &Value, record: &Record, unconditional: bool) -> Result<()> {
    let resource = &request.resource;
    let wanted: Revision = match object.text_at(&["metadata", "resourceVersion"]) {
        "" => 0,
        text => parse_version(text)?,
    };
    if wanted == record.modified || wanted == 0 && unconditional {
        return Ok(());
    }
    if wanted == 0 {
        let mut errors = Errors::default();
        let metadata = Path::new("metadata");
        errors.invalid(&metadata.child("resourceVersion"), 0i64, "must be specified for an update");
        return Err(ApiError::invalid(&resource.group, &resource.plural, request.name(), &errors.0));
    }
    Err(modified(request))
}

pub fn modified(request: &Request) -> ApiError {
    let why = "the object has been modified; please apply your changes to the latest version and try again";
    let resource = &request.resource;
    ApiError::conflict(&resource.group, &resource.plural, request.name(), why)
}

/// Where upstream keeps objects, for the one error that tells.
const PREFIXES: &[(&str, &str)] = &[
    ("services", "services/specs"),
    ("endpoints", "services/endpoints"),
    ("nodes", "minions"),
    ("replicationcontrollers", "controllers"),
    ("ingresses.networking.k8s.io", "ingress"),
    ("customresourcedefinitions.apiextensions.k8s.io", "apiextensions.k8s.io/customresourcedefinitions"),
    ("apiservices.apiregistration.k8s.io", "apiregistration.k8s.io/apiservices"),
];

fn uid_conflict(request: &Request, wanted: &str, found: &str) -> ApiError {
    let resource = &request.resource;
    let table = &*resource.table;
    let prefix = PREFIXES.iter().find(|(name, _)| *name == table).map(|(_, prefix)| *prefix);
    let prefix = prefix.unwrap_or_else(|| table.split('.').next().unwrap_or(table));
    let namespace = if resource.namespaced { format!("{}/", request.namespace()) } else { String::new() };
    let name = request.name();
    let why = format!(
        "StorageError: invalid object, Code: 4, Key: /registry/{prefix}/{namespace}{name}, ResourceVersion: 0, \
         AdditionalErrorMsg: Precondition failed: UID in precondition: {wanted}, UID in object meta: {found}"
    );
    ApiError::conflict(&resource.group, &resource.plural, name, why)
}

/// Makes a field of the metadata what it is in `old`.
fn keep(object: &mut Value, old: &Value, field: &str) {
    match old.at(&["metadata", field]) {
        Some(value) => object.set(&["metadata", field], value.clone()),
        None => drop(object.take_at(&["metadata", field])),
    }
}

/// What no update changes. A client may leave these out; that it changes them is told by validation or forgotten.
fn keep_system_fields(object: &mut Value, old: &Value) {
    object.take_at(&["metadata", "selfLink"]);
    keep(object, old, "creationTimestamp");
    let has = |value: &Value, field: &str| value.at(&["metadata", field]).is_some();
    if object.text_at(&["metadata", "uid"]).is_empty() {
        keep(object, old, "uid");
    }
    if has(old, "deletionTimestamp") {
        keep(object, old, "deletionTimestamp");
    }
    if has(old, "deletionGracePeriodSeconds") && !has(object, "deletionGracePeriodSeconds") {
        keep(object, old, "deletionGracePeriodSeconds");
    }
}

/// Whether these bytes are what the record has, revision aside.
pub fn same(value: &[u8], revision_at: u32, record: &Record) -> bool {
    let Some((at, length)) = record.revision_span else { return false };
    let (at, end) = (at as usize, (at + length) as usize);
    at == revision_at as usize
        && value.len() + (end - at) == record.value.len()
        && value[..at] == record.value[..at]
        && value[at..] == record.value[end..]
}

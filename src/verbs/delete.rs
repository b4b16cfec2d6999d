//! Delete: at once, or by marking the object until its grace period is over and its finalizers are gone.

use std::sync::Arc;

use bytes::Bytes;
use kontiki_storage::{Condition, Record, View};
use serde_json::{Value, json};

use super::commit::{Plan, Reply, carry_out};
use super::options::{DeleteOptions, Propagation};
use super::{Answer, Request, decode_stored, services};
use crate::admission::{self, Operation};
use crate::codec::encode_for_store;
use crate::kinds::Kind;
use crate::object::Fields;
use crate::status::{ApiError, Result};
use crate::time;

/// Kinds of which a deletion answers with the object, not with a Status. Upstream has no rule for it.
const RETURNED: &[(&str, &str)] = &[
    ("", "Namespace"),
    ("", "PersistentVolume"),
    ("", "PersistentVolumeClaim"),
    ("", "Pod"),
    ("", "PodTemplate"),
    ("", "ResourceQuota"),
    ("", "Service"),
    ("", "ServiceAccount"),
    ("resource.k8s.io", "DeviceClass"),
    ("resource.k8s.io", "ResourceClaim"),
    ("resource.k8s.io", "ResourceClaimTemplate"),
    ("resource.k8s.io", "ResourceSlice"),
    ("storage.k8s.io", "CSIDriver"),
    ("storage.k8s.io", "CSINode"),
    ("storage.k8s.io", "StorageClass"),
    ("storage.k8s.io", "VolumeAttachment"),
    ("storage.k8s.io", "VolumeAttributesClass"),
];

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

pub async fn delete(request: &mut Request) -> Result<Answer> {
    let options = DeleteOptions::read(request)?;
    warn_of_default(request, &options)?;
    if let Some(why) = request.kind()?.undeletable(request.name()) {
        return Err(ApiError::forbidden(&request.resource.group, &request.resource.plural, request.name(), why));
    }
    carry(request, options).await
}

/// Deletes the object that the path names.
pub async fn carry(request: &mut Request, mut options: DeleteOptions) -> Result<Answer> {
    let mut next = Next::Nothing;
    let answer = carry_out(request, options.dry_run, |request, view| {
        let (plan, then) = decide(request, view, &options)?;
        next = then;
        Ok(plan)
    })
    .await?;
    if next == Next::Nothing || options.dry_run {
        return Ok(answer);
    }
    // The grace period is over as it begins. That is a change of its own: watchers see why the object goes.
    options.version = None;
    match carry_out(request, false, |request, view| Ok(decide(request, view, &options)?.0)).await {
        Err(error) if error.code == 404 => Ok(answer),
        other => other,
    }
}

pub fn warn_of_default(request: &mut Request, options: &DeleteOptions) -> Result<()> {
    if options.propagation.is_none() && &*request.resource.kind == "Job" && request.kind()?.orphans_by_default() {
        request.warnings.push(
            "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove \
             them or set propagationPolicy=Orphan to suppress this warning"
                .to_owned(),
        );
    }
    Ok(())
}

/// What follows a plan once it is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    Nothing,
    /// The object is marked and nothing holds it any more.
    Remove,
}

fn decide(request: &mut Request, view: &View, options: &DeleteOptions) -> Result<(Plan, Next)> {
    let key = request.key()?;
    let record = view.get(key.as_str()).ok_or_else(|| request.not_found())?;
    let mut object = decode_stored(record)?;
    let rules = request.kind()?;
    let namespace = &*request.resource.table == "namespaces";
    if namespace {
        check_namespace(options, &object)?;
    } else {
        options.check(request.stored_group(), rules.kind(), &object)?;
    }
    let write = admission::Write { operation: Operation::Delete, old: Some(&object) };
    admission::validate(request, view, write, &Value::Null)?;
    if namespace {
        if object.at(&["metadata", "deletionTimestamp"]).is_none() {
            terminate(&mut object, options);
            return Ok((mark(record, &object, 200), Next::Nothing));
        }
        if !object.list_at(&["spec", "finalizers"]).is_empty() {
            return Ok((
                Plan::new(Reply::Record { code: 200, record: record.clone() }, Some(record.modified)),
                Next::Nothing,
            ));
        }
    }
    let record = record.clone();
    remove(request, &record, object, options)
}

/// Decides on the end of an object, which may have been changed already.
pub fn remove(
    request: &Request,
    record: &Arc<Record>,
    mut object: Value,
    options: &DeleteOptions,
) -> Result<(Plan, Next)> {
    let rules = request.kind()?;
    // Tells clients that asked for a plain deletion that it isn't over; upstream does so in this one case.
    let code = if options.orphan_false { 202 } else { 200 };
    let graceful = match grace(rules, &mut object, options) {
        Grace::Pending => {
            let reply = gone(request, record, &object, code);
            return Ok((Plan::new(reply, Some(record.modified)), Next::Nothing));
        }
        Grace::None => None,
        Grace::Seconds(seconds) => Some(seconds),
    };
    set_finalizers(request, rules, &mut object, options);
    let held = !object.list_at(&["metadata", "finalizers"]).is_empty();
    match graceful {
        Some(0) if !held => Ok((mark(record, &object, 200), Next::Remove)),
        Some(_) => Ok((mark(record, &object, code), Next::Nothing)),
        None if held => {
            mark_deleted(&mut object);
            Ok((mark(record, &object, code), Next::Nothing))
        }
        None => {
            let mut plan = Plan::new(gone(request, record, &object, 200), Some(record.modified))
                .on(Condition::At(record.key.clone(), record.modified));
            plan.delete(record.key.clone());
            services::delete(request, &object).enter(&mut plan, &object);
            Ok((plan, Next::Nothing))
        }
    }
}

/// Writes the marked object.
fn mark(record: &Arc<Record>, object: &Value, code: u16) -> Plan {
    let (value, revision_at) = encode_for_store(object);
    let value = Bytes::from(value);
    let mut plan = Plan::new(Reply::Stored { code, value: value.clone(), revision_at }, Some(record.modified));
    if !super::update::same(&value, revision_at, record) {
        plan = plan.on(Condition::At(record.key.clone(), record.modified));
        plan.put(record.key.clone(), value, revision_at, record.expires_at);
    }
    plan
}

/// The answer about an object that is gone, or will be without anybody's doing.
fn gone(request: &Request, record: &Arc<Record>, object: &Value, code: u16) -> Reply {
    let resource = &request.resource;
    if RETURNED.iter().any(|(group, kind)| *group == &*resource.group && *kind == &*resource.kind) {
        return Reply::Record { code, record: record.clone() };
    }
    let mut details = json!({ "name": request.name(), "kind": &*resource.plural });
    if !resource.group.is_empty() {
        details.set(&["group"], &*resource.group);
    }
    if let Some(uid) = object.at(&["metadata", "uid"]) {
        details.set(&["uid"], uid.clone());
    }
    let status =
        json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details });
    Reply::Ready { code, object: status }
}

enum Grace {
    /// This kind goes at once, or its time is over.
    None,
    /// The object is marked as going away in as many seconds.
    Seconds(i64),
    /// It has been marked before, and not for longer than is asked for now.
    Pending,
}

fn grace(rules: &dyn Kind, object: &mut Value, options: &DeleteOptions) -> Grace {
    let asked = options.grace.map(|seconds| if seconds < 0 { 1 } else { seconds });
    let Some(period) = rules.grace(object, asked) else { return Grace::None };
    let Some(until) = object.at(&["metadata", "deletionTimestamp"]).and_then(Value::as_str) else {
        raise_generation(object);
        object.set(&["metadata", "deletionTimestamp"], in_seconds(&time::now(), period));
        object.set(&["metadata", "deletionGracePeriodSeconds"], period);
        return Grace::Seconds(period);
    };
    let left = object.int_at(&["metadata", "deletionGracePeriodSeconds"]).unwrap_or_default();
    match asked {
        _ if left == 0 => Grace::None,
        Some(asked) if asked < left => {
            let until = in_seconds(until, asked - left);
            object.set(&["metadata", "deletionTimestamp"], until);
            object.set(&["metadata", "deletionGracePeriodSeconds"], asked);
            Grace::Seconds(asked)
        }
        _ => Grace::Pending,
    }
}

/// A time as the API writes it, so many seconds later.
fn in_seconds(time: &str, seconds: i64) -> String {
    match time.parse::<jiff::Timestamp>() {
        Ok(at) => at
            .saturating_add(jiff::SignedDuration::from_secs(seconds))
            .unwrap_or(at)
            .strftime("%Y-%m-%dT%H:%M:%SZ")
            .to_string(),
        Err(_) => time.to_owned(),
    }
}

fn raise_generation(object: &mut Value) {
    if let Some(generation) = object.int_at(&["metadata", "generation"]).filter(|n| *n > 0) {
        object.set(&["metadata", "generation"], generation + 1);
    }
}

/// Of a kind without grace periods, whose finalizers hold it.
fn mark_deleted(object: &mut Value) {
    let now = time::now();
    match object.at(&["metadata", "deletionTimestamp"]).and_then(Value::as_str) {
        None => {
            raise_generation(object);
            object.set(&["metadata", "deletionTimestamp"], now);
        }
        // Both are of the same form, which sorts as time does.
        Some(until) if until > now.as_str() => object.set(&["metadata", "deletionTimestamp"], now),
        Some(_) => {}
    }
    object.set(&["metadata", "deletionGracePeriodSeconds"], 0);
}

/// Asks the garbage collector for what the client wants done with dependents.
fn set_finalizers(request: &Request, rules: &dyn Kind, object: &mut Value, options: &DeleteOptions) {
    let finalizers = object.list_at(&["metadata", "finalizers"]);
    let has = |name: &str| finalizers.iter().any(|f| f == name);
    let wanted = match options.propagation {
        // Nothing depends on events.
        _ if &*request.resource.table == "events" => None,
        Some(Propagation::Orphan) => Some(ORPHAN),
        Some(Propagation::Foreground) => Some(FOREGROUND),
        Some(Propagation::Background) => None,
        None if has(ORPHAN) => Some(ORPHAN),
        None if has(FOREGROUND) => Some(FOREGROUND),
        None if rules.orphans_by_default() => Some(ORPHAN),
        None => None,
    };
    replace_finalizers(object, wanted);
}

fn replace_finalizers(object: &mut Value, wanted: Option<&str>) {
    let has = |name: &str| object.list_at(&["metadata", "finalizers"]).iter().any(|f| f == name);
    let as_wanted = [ORPHAN, FOREGROUND].iter().all(|name| has(name) == (wanted == Some(*name)));
    if as_wanted {
        return;
    }
    let mut finalizers = object.list_at(&["metadata", "finalizers"]).to_vec();
    finalizers.retain(|f| f != ORPHAN && f != FOREGROUND);
    finalizers.extend(wanted.map(Value::from));
    if finalizers.is_empty() {
        object.take_at(&["metadata", "finalizers"]);
    } else {
        object.set(&["metadata", "finalizers"], finalizers);
    }
}

/// Namespaces are checked in words of their own.
fn check_namespace(options: &DeleteOptions, old: &Value) -> Result<()> {
    for (wanted, field, word) in
        [(&options.uid, "uid", "UID"), (&options.version, "resourceVersion", "ResourceVersion")]
    {
        let found = old.text_at(&["metadata", field]);
        if let Some(wanted) = wanted.as_deref().filter(|wanted| *wanted != found) {
            let why = format!("Precondition failed: {word} in precondition: {wanted}, {word} in object meta: {found}");
            return Err(ApiError::conflict("", "namespaces", old.text_at(&["metadata", "name"]), why));
        }
    }
    Ok(())
}

/// The first step of the end of a namespace: from now on nothing is created in it.
fn terminate(namespace: &mut Value, options: &DeleteOptions) {
    namespace.set(&["metadata", "deletionTimestamp"], time::now());
    namespace.set(&["status", "phase"], "Terminating");
    let finalizers = namespace.list_at(&["metadata", "finalizers"]);
    let has = |name: &str| finalizers.iter().any(|f| f == name);
    let wanted = match options.propagation {
        Some(Propagation::Orphan) => Some(ORPHAN),
        Some(Propagation::Foreground) => Some(FOREGROUND),
        Some(Propagation::Background) => None,
        None if has(ORPHAN) => Some(ORPHAN),
        None if has(FOREGROUND) => Some(FOREGROUND),
        None => None,
    };
    replace_finalizers(namespace, wanted);
}

/// Whether an update has removed the last that held an object which is being deleted.
pub fn is_finished(request: &Request, object: &Value, old: &Value) -> bool {
    let meta = |value: &Value, field: &str| value.at(&["metadata", field]).cloned();
    object.list_at(&["metadata", "finalizers"]).is_empty()
        && meta(old, "deletionTimestamp").is_some()
        && meta(old, "deletionGracePeriodSeconds").is_none_or(|seconds| seconds == 0)
        && (&*request.resource.table != "namespaces" || object.list_at(&["spec", "finalizers"]).is_empty())
}

//! Objects that the server writes on its own behalf, as if it were its own client: no admission, no validation.

use std::sync::Arc;

use kontiki_storage::{Condition, Key, Record, Transaction, View, Write};
use serde_json::Value;

use crate::codec::{canonicalize, encode_for_store};
use crate::discovery::{Registry, Resource};
use crate::kinds;
use crate::managed::{self, reset};
use crate::object::Fields;
use crate::schema::builtin;
use crate::status::{ApiError, Result};
use crate::time;
use crate::verbs::fields::BuiltIn;
use crate::verbs::{self, create, decode_stored};

/// The field manager of what the server writes.
pub const MANAGER: &str = "kube-apiserver";

/// Makes an object that isn't there.
pub fn create(registry: &Registry, mut object: Value, manager: &str) -> Result<Transaction> {
    let resource = resource_of(registry, &object)?;
    let key = key_of(&resource, &object);
    let now = time::now();
    object.set(&["metadata", "uid"], create::new_uid());
    object.set(&["metadata", "creationTimestamp"], now.as_str());
    let kind = kinds::find(&resource.group, &resource.kind);
    if let Some(kind) = kind {
        kind.default(&mut object);
        if kind.counts_generation() {
            object.set(&["metadata", "generation"], 1);
        }
    }
    manage(&resource, manager, &now, None, &mut object);
    // What comes with a status is complete.
    if let Some(kind) = kind.filter(|_| object.at(&["status"]).is_none()) {
        kind.prepare_create(&mut object);
    }
    Ok(Transaction { conditions: vec![Condition::Absent(key.clone())], writes: vec![put(&resource, key, object)?] })
}

/// Changes an object, provided that it is still as it was read.
pub fn update(registry: &Registry, record: &Record, change: impl FnOnce(&mut Value)) -> Result<Transaction> {
    let old = decode_stored(record)?;
    let resource = resource_of(registry, &old)?;
    let mut object = old.clone();
    change(&mut object);
    if let Some(kind) = kinds::find(&resource.group, &resource.kind)
        && kind.counts_generation()
        && kind.generation_moves(&object, &old)
    {
        object.set(&["metadata", "generation"], old.int_at(&["metadata", "generation"]).unwrap_or(0) + 1);
    }
    manage(&resource, MANAGER, &time::now(), Some(&old), &mut object);
    Ok(Transaction {
        conditions: vec![Condition::At(record.key.clone(), record.modified)],
        writes: vec![put(&resource, record.key.clone(), object)?],
    })
}

/// Removes an object, provided that it is still as it was read.
pub fn delete(record: &Record) -> Transaction {
    Transaction {
        conditions: vec![Condition::At(record.key.clone(), record.modified)],
        writes: vec![Write::Delete { key: record.key.clone() }],
    }
}

/// The stored object, if it is there.
pub fn find<'v>(registry: &Registry, view: &'v View, object: &Value) -> Result<Option<&'v Arc<Record>>> {
    let resource = resource_of(registry, object)?;
    Ok(view.get(key_of(&resource, object).as_str()))
}

fn manage(resource: &Resource, manager: &str, now: &str, old: Option<&Value>, object: &mut Value) {
    let write = managed::Write {
        versions: &BuiltIn,
        api_version: &resource.api_version(),
        subresource: "",
        manager,
        reset: reset::of(&resource.kind, ""),
        now,
    };
    managed::update(write, old, object);
}

fn put(resource: &Resource, key: Key, mut object: Value) -> Result<Write> {
    let node = builtin().kind(&resource.group, &resource.version, &resource.kind);
    let node = node.ok_or_else(|| ApiError::internal(format!("kind {} has no schema", resource.kind)))?;
    canonicalize(node, &mut object);
    let (value, at) = encode_for_store(&object);
    Ok(Write::Put { key, value: value.into(), revision_at: Some(at), expires_at: None })
}

fn resource_of(registry: &Registry, object: &Value) -> Result<Arc<Resource>> {
    let api_version = object.text_at(&["apiVersion"]);
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let kind = object.text_at(&["kind"]);
    let found = registry.find_kind(group, version, kind).filter(|resource| resource.is_stored_version());
    found.cloned().ok_or_else(|| ApiError::internal(format!("no resource is stored as {api_version} {kind}")))
}

fn key_of(resource: &Resource, object: &Value) -> Key {
    let metadata = |field| object.text_at(&["metadata", field]);
    verbs::key(resource, metadata("namespace"), metadata("name"))
}

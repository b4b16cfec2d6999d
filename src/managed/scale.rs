//! Who manages the number of replicas, as the scale subresource tells it: its objects have only that field.

use serde_json::Value;

use super::set::{self, Set};
use super::shape::path;
use super::{Write, entries};
use crate::object::Fields;

/// The version of the scale subresource.
const SCALE: &str = "autoscaling/v1";
const REPLICAS: &[&str] = &["spec", "replicas"];

/// Keeps the entries of an object whose scale was written: `write` is that of the scale, `before` and `after` are what
/// it showed. `api_version` and `replicas` are the object's version and where it has them.
pub fn update(
    write: Write<'_>,
    (mut before, mut after): (Value, Value),
    live: &Value,
    object: &mut Value,
    api_version: &str,
    replicas: &[&str],
) {
    let managed = entries::of(live);
    entries::put(&mut before, to_scale(managed, replicas));
    super::update(write, Some(&before), &mut after);
    let managed = to_object(managed.to_vec(), entries::of(&after).to_vec(), api_version, replicas);
    entries::take(object);
    entries::put(object, managed);
}

/// The entries of a scale, from those of its object. `replicas` is the field of the object, in all versions.
fn to_scale(managed: &[Value], replicas: &[&str]) -> Vec<Value> {
    let entry = |entry: &Value| {
        let time = entry.at(&["time"]).and_then(Value::as_str);
        entries::new(entries::id(entry), SCALE, time, one(REPLICAS))
    };
    managed.iter().filter(|entry| has(entry, replicas)).map(entry).collect()
}

/// The entries of an object after its scale was written. `api_version` is that of the object.
fn to_object(managed: Vec<Value>, mut scale: Vec<Value>, api_version: &str, replicas: &[&str]) -> Vec<Value> {
    let mut out = Vec::with_capacity(managed.len() + 1);
    for mut entry in managed {
        if has(&entry, replicas) {
            // Of an applier, an entry is the same on both sides; those of updates have another version there, so that
            // upstream takes them for new ones.
            match scale.iter().position(|other| entries::id(other) == entries::id(&entry)) {
                Some(index) => drop(scale.remove(index)),
                None => set::subtract(entries::fields_mut(&mut entry), &one(replicas)),
            }
        }
        if entries::fields(&entry).is_some_and(|fields| !fields.is_empty()) {
            out.push(entry);
        }
    }
    let added = scale.iter().filter(|entry| has(entry, REPLICAS));
    out.extend(added.map(|entry| entries::new(entries::id(entry), api_version, None, one(replicas))));
    out
}

fn has(entry: &Value, field: &[&str]) -> bool {
    let path = path(field);
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    entries::fields(entry).is_some_and(|fields| set::has(fields, &path))
}

fn one(field: &[&str]) -> Set {
    path(field).into_iter().rev().fold(Set::new(), |below, element| Set::from_iter([(element, Value::Object(below))]))
}

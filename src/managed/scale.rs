//! Who manages the number of replicas, as the scale subresource tells it: its objects have only that field.

use serde_json::Value;

use super::entries;
use super::set::{self, Set};
use super::shape::path;

/// The version of the scale subresource.
const SCALE: &str = "autoscaling/v1";
const REPLICAS: &[&str] = &["spec", "replicas"];

/// The object whose scale is written: its version, and where that has the number of replicas.
#[derive(Clone, Copy)]
pub struct Scaled<'s> {
    pub object: &'s Value,
    pub api_version: &'s str,
    pub replicas: &'s [&'s str],
}

impl Scaled<'_> {
    /// Gives the scale that the object shows the entries of the object.
    pub fn lend(self, scale: &mut Value) {
        entries::put(scale, to_scale(entries::of(self.object), self.replicas));
    }

    /// Gives the object, as it is to be, the entries that its scale has after the write.
    pub fn take_back(self, scale: &Value, object: &mut Value) {
        let managed = entries::of(self.object).to_vec();
        let managed = to_object(managed, entries::of(scale).to_vec(), self.api_version, self.replicas);
        entries::take(object);
        entries::put(object, managed);
    }
}

/// The entries of a scale, from those of its object. `replicas` is the field of the object, in all versions.
fn to_scale(managed: &[Value], replicas: &[&str]) -> Vec<Value> {
    let entry = |entry: &Value| entries::new(entries::id(entry), SCALE, entries::time(entry), one(REPLICAS));
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

//! What becomes of an object when a configuration is applied to it: the configuration's fields and elements over its own.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use super::shape::{Form, Shape};
use crate::schema::Node;

pub fn merge(node: Node<'_>, live: &Value, applied: &Value) -> Result<Value, String> {
    Ok(merge_at(Shape::Typed(node), Some(live), Some(applied))?.unwrap_or_default())
}

fn merge_at(shape: Shape<'_>, old: Option<&Value>, new: Option<&Value>) -> Result<Option<Value>, String> {
    match shape.form(new.or(old)) {
        Form::Map => {
            let map =
                |value: Option<&'_ Value>| value.and_then(Value::as_object).filter(|map| !map.is_empty()).cloned();
            let (before, after) = (map(old), map(new));
            if before.is_some() || after.is_some() {
                return merge_maps(shape, before.unwrap_or_default(), after.unwrap_or_default());
            }
        }
        Form::List => {
            let list = |value: Option<&'_ Value>| value.and_then(Value::as_array).cloned().unwrap_or_default();
            let (before, after) = (list(old), list(new));
            if !before.is_empty() || !after.is_empty() {
                return merge_lists(shape, &before, &after);
            }
        }
        Form::Scalar | Form::AtomicList | Form::AtomicMap => {}
    }
    Ok(new.or(old).cloned())
}

fn merge_maps(shape: Shape<'_>, old: Map<String, Value>, new: Map<String, Value>) -> Result<Option<Value>, String> {
    let mut out = Map::new();
    let added = new.keys().filter(|name| !old.contains_key(*name));
    for name in old.keys().chain(added) {
        if let Some(value) = merge_at(shape.member(name).0, old.get(name), new.get(name))? {
            out.insert(name.clone(), value);
        }
    }
    Ok((!out.is_empty()).then_some(Value::Object(out)))
}

/// Elements that both have come in the order of the new list; the others stay between those they were between.
fn merge_lists(shape: Shape<'_>, old: &[Value], new: &[Value]) -> Result<Option<Value>, String> {
    let names = |list: &[Value]| list.iter().map(|value| shape.element(value)).collect::<Result<Vec<String>, String>>();
    let (old_names, new_names) = (names(old)?, names(new)?);
    let null = Value::Null;
    let mut before: HashMap<&str, &Value> = HashMap::new();
    for (name, value) in old_names.iter().zip(old) {
        // What is there twice isn't merged with anything.
        before.entry(name).and_modify(|there| *there = &null).or_insert(value);
    }
    let after: HashMap<&str, &Value> = new_names.iter().map(String::as_str).zip(new).collect();
    let mut shared = new_names.iter().filter(|name| before.contains_key(name.as_str()));
    let mut next_shared = shared.next();
    let mut merged: HashSet<&str> = HashSet::new();
    let mut out = Vec::with_capacity(old.len().max(new.len()));
    let (mut at_old, mut at_new) = (0, 0);
    while at_old < old.len() || at_new < new.len() {
        if let (Some(ours), Some(theirs)) = (old_names.get(at_old), new_names.get(at_new)) {
            if ours == theirs {
                merged.insert(ours);
                out.extend(merge_at(shape.item(), before.get(ours.as_str()).copied(), Some(&new[at_new]))?);
                at_old += 1;
                at_new += 1;
                next_shared = shared.next();
                continue;
            }
            if after.contains_key(ours.as_str()) && next_shared.is_some_and(|next| next != ours) {
                at_old += 1;
                continue;
            }
        }
        if let Some(ours) = old_names.get(at_old) {
            if !after.contains_key(ours.as_str()) {
                out.extend(merge_at(shape.item(), Some(&old[at_old]), None)?);
                at_old += 1;
                continue;
            }
            if merged.contains(ours.as_str()) {
                at_old += 1;
            }
        }
        if let Some(theirs) = new_names.get(at_new) {
            merged.insert(theirs);
            out.extend(merge_at(shape.item(), before.get(theirs.as_str()).copied(), Some(&new[at_new]))?);
            at_new += 1;
            if next_shared == Some(theirs) {
                next_shared = shared.next();
            }
        }
    }
    Ok((!out.is_empty()).then_some(Value::Array(out)))
}

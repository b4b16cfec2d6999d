//! Strategic merge patch: a merge patch that knows from the schema which lists are merged by a key, with directives.
//!
//! `$patch` replaces or deletes the map or list element that it stands in, `$retainKeys` clears all other fields,
//! `$deleteFromPrimitiveList/F` takes elements out of the list `F`, `$setElementOrder/F` says how `F` is ordered.

use serde_json::{Map, Value};

use super::print::{go, go_type};
use super::unprocessable;
use crate::schema::{Node, Type};
use crate::status::ApiError;

type Object = Map<String, Value>;
type Result<T> = std::result::Result<T, ApiError>;

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM: &str = "$deleteFromPrimitiveList";
const SET_ORDER: &str = "$setElementOrder";

/// An error that upstream passes on as it is: it has no reason, and is the server's.
fn plain(message: impl Into<String>) -> ApiError {
    ApiError::new(500, "", message)
}

fn bad_format(what: &str) -> ApiError {
    ApiError::bad_request(format!("invalid patch format of {what}"))
}

fn bad_type(expected: &str, actual: &Value) -> ApiError {
    plain(format!("expected a {expected}, but received a {}", go_type(actual)))
}

const MAP: &str = "map[string]interface {}";
const LIST: &str = "[]interface {}";

fn no_merge_key(element: &Object, key: &str) -> ApiError {
    let element = go(&Value::Object(element.clone()));
    plain(format!("map: {element} does not contain declared merge key: {key}"))
}

fn unknown_directive(directive: &Value, patch: &Object) -> ApiError {
    let patch = go(&Value::Object(patch.clone()));
    plain(format!("unknown patch type: {} in map: {patch}", go(directive)))
}

/// Merges a patch into a map of the type `node`.
pub fn merge(node: Node<'_>, mut original: Object, mut patch: Object) -> Result<Object> {
    if let Some(directive) = patch.get(PATCH) {
        return match directive.as_str() {
            Some("replace") => {
                patch.remove(PATCH);
                Ok(patch)
            }
            Some("delete") => Ok(Object::new()),
            _ => Err(unknown_directive(directive, &patch)),
        };
    }
    retain_keys(&mut original, &mut patch)?;
    set_orders(node, &mut original, &mut patch)?;
    for (key, change) in patch {
        let (key, deletes) = match key.strip_prefix(DELETE_FROM) {
            Some(name) => (name.strip_prefix('/').ok_or_else(|| bad_format("primitive list"))?.to_owned(), true),
            None => (key, false),
        };
        if change.is_null() {
            original.remove(&key);
            continue;
        }
        let Some(value) = original.get_mut(&key) else {
            if !deletes && let Some(value) = fresh(change) {
                original.insert(key, value);
            }
            continue;
        };
        match (value, change) {
            (Value::Object(map), Value::Object(change)) => {
                let inner = field(node, &key)?;
                let old = std::mem::take(map);
                *map = if inner.patch_strategy().replace { change } else { merge(inner, old, change)? };
            }
            (Value::Array(list), Value::Array(change)) => {
                let inner = list_field(node, &key)?;
                let old = std::mem::take(list);
                *list = if inner.patch_strategy().merge || deletes {
                    merge_list(inner, old, change, deletes)?
                } else {
                    change
                };
            }
            (value, change) => {
                let same_type = go_type(value) == go_type(&change);
                if same_type || !deletes {
                    match fresh(change) {
                        Some(change) => *value = change,
                        None => drop(original.remove(&key)),
                    }
                }
            }
        }
    }
    Ok(original)
}

/// A value that stands where nothing stood: without nulls, and without what only directs.
fn fresh(mut value: Value) -> Option<Value> {
    discard_nulls(&mut value);
    strip_directives(&mut value).then_some(value)
}

fn discard_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => map.retain(|_, value| {
            discard_nulls(value);
            !value.is_null()
        }),
        Value::Array(list) => list.iter_mut().for_each(discard_nulls),
        _ => {}
    }
}

/// Drops the maps that have a `$patch`; says whether this value is to stay.
pub fn strip_directives(value: &mut Value) -> bool {
    match value {
        Value::Object(map) => {
            if map.contains_key(PATCH) {
                return false;
            }
            map.retain(|_, value| strip_directives(value));
        }
        Value::Array(list) => list.retain_mut(strip_directives),
        _ => {}
    }
    true
}

fn field<'n>(node: Node<'n>, name: &str) -> Result<Node<'n>> {
    let entry = match node.ty() {
        Type::Struct(id) => node.struct_at(id),
        Type::Map(_) | Type::List(_) => {
            let kind = if node.item().is_some() { "slice" } else { "map" };
            let message = "merging an object in json but data type is not struct, instead is";
            return Err(plain(format!("{message}: {kind}")));
        }
        _ => return Err(no_field(node.def().go.rsplit('.').next().unwrap_or_default(), name)),
    };
    entry.field(name).map(|field| node.of_field(field)).ok_or_else(|| no_field(&entry.name, name))
}

fn no_field(owner: &str, name: &str) -> ApiError {
    plain(format!("unable to find api field in struct {owner} for the json field \"{name}\""))
}

fn list_field<'n>(node: Node<'n>, name: &str) -> Result<Node<'n>> {
    let inner = field(node, name)?;
    match inner.item() {
        Some(item) if item.item().is_some() => Err(plain("unexpected slice of slice")),
        Some(_) => Ok(inner),
        None => Err(plain("expected slice or array type, but got: struct")),
    }
}

fn retain_keys(original: &mut Object, patch: &mut Object) -> Result<()> {
    let Some(kept) = patch.remove(RETAIN_KEYS) else { return Ok(()) };
    let Value::Array(kept) = kept else { return Err(bad_format("retainKeys")) };
    let is_kept = |name: &String| kept.iter().any(|kept| kept == name);
    let directs = |name: &str| name.starts_with(DELETE_FROM) || name.starts_with(SET_ORDER);
    if patch.iter().any(|(name, change)| !change.is_null() && !directs(name) && !is_kept(name)) {
        return Err(bad_format("retainKeys"));
    }
    original.retain(|name, _| is_kept(name));
    Ok(())
}

/// Merges and orders the lists that have a `$setElementOrder`.
fn set_orders(node: Node<'_>, original: &mut Object, patch: &mut Object) -> Result<()> {
    let directives: Vec<String> = patch.keys().filter(|name| name.starts_with(SET_ORDER)).cloned().collect();
    for directive in directives {
        let Some(order) = patch.remove(&directive) else { continue };
        let Value::Array(order) = order else { return Err(bad_type(LIST, &order)) };
        let name = directive[SET_ORDER.len()..].strip_prefix('/');
        let name = name.ok_or_else(|| bad_format("setElementOrder list"))?;
        let list = |from: Option<Value>| match from {
            None => Ok(None),
            Some(Value::Array(list)) => Ok(Some(list)),
            Some(other) => Err(bad_type(LIST, &other)),
        };
        let (old, change) = (list(original.remove(name))?, list(patch.remove(name))?);
        let inner = list_field(node, name)?;
        let key = inner.merge_key();
        check_order(change.as_deref().unwrap_or_default(), &order, key)?;
        one_type(&[old.as_deref().unwrap_or_default(), change.as_deref().unwrap_or_default()], || {
            old.is_some() || change.is_some()
        })?;
        let server = places(old.as_deref().unwrap_or_default(), key);
        let merged = match (old, change) {
            (None, None) => continue,
            (Some(old), None) => old,
            (None, Some(mut change)) => {
                change.retain_mut(strip_directives);
                change
            }
            (Some(old), Some(change)) if inner.patch_strategy().merge => merge_list(inner, old, change, false)?,
            (Some(_), Some(change)) => change,
        };
        original.insert(name.to_owned(), Value::Array(arrange(merged, &order, &server, key)?));
    }
    Ok(())
}

/// The patch's elements must come in the order that it sets, and all of them must be in it.
fn check_order(patch: &[Value], order: &[Value], key: Option<&str>) -> Result<()> {
    if patch.is_empty() || order.is_empty() {
        return Ok(());
    }
    let mut named = order.iter();
    for element in patch {
        if key.is_some() && !element.is_object() {
            return Err(bad_type(MAP, element));
        }
        if element.get(PATCH).is_some() {
            continue;
        }
        loop {
            let Some(next) = named.next() else {
                let (patch, order) = (go(&Value::Array(patch.to_vec())), go(&Value::Array(order.to_vec())));
                return Err(plain(format!(
                    "The order in patch list:\n{patch}\n doesn't match {SET_ORDER} list:\n{order}\n"
                )));
            };
            if key_of(element, key)? == key_of(next, key)? {
                break;
            }
        }
    }
    Ok(())
}

/// What tells an element from others: the value of its merge key, or itself.
fn key_of<'v>(element: &'v Value, key: Option<&str>) -> Result<&'v Value> {
    let Some(key) = key else { return Ok(element) };
    let Value::Object(map) = element else { return Err(bad_type(MAP, element)) };
    map.get(key).ok_or_else(|| no_merge_key(map, key))
}

/// The keys of the elements that have one, in order.
fn places(list: &[Value], key: Option<&str>) -> Vec<Value> {
    list.iter().map(|element| key_of(element, key).cloned().unwrap_or_default()).collect()
}

/// All elements must be of one type, which isn't a list. Says whether they are maps.
fn one_type(lists: &[&[Value]], needed: impl FnOnce() -> bool) -> Result<bool> {
    let mut elements = lists.iter().copied().flatten();
    let Some(first) = elements.next() else {
        return if needed() { Err(plain("no elements in any of the given slices")) } else { Ok(false) };
    };
    if first.is_array() {
        return Err(unprocessable());
    }
    if elements.any(|element| go_type(element) != go_type(first)) {
        let shown: Vec<String> = lists.iter().map(|list| go(&Value::Array(list.to_vec()))).collect();
        return Err(plain(format!("list element types are not identical: [{}]", shown.join(" "))));
    }
    Ok(first.is_object())
}

fn merge_list(list: Node<'_>, old: Vec<Value>, patch: Vec<Value>, deletes: bool) -> Result<Vec<Value>> {
    if old.is_empty() && patch.is_empty() {
        return Ok(old);
    }
    let key = list.merge_key();
    if !one_type(&[&old, &patch], || true)? {
        if deletes {
            return Ok(old.into_iter().filter(|element| !patch.contains(element)).collect());
        }
        let server = places(&old, None);
        let mut merged: Vec<Value> = Vec::with_capacity(old.len() + patch.len());
        for element in old.into_iter().chain(patch.iter().cloned()) {
            if !merged.contains(&element) {
                merged.push(element);
            }
        }
        return arrange(merged, &patch, &server, key);
    }
    let Some(key) = key else { return Err(plain("cannot merge lists without merge key for struct")) };
    let item = list.item().unwrap_or(list);
    let (mut merged, patch) = special_elements(old, patch, key)?;
    let server = places(&merged, Some(key));
    let mut order = Vec::with_capacity(patch.len());
    for change in patch {
        let place = key_of(&change, Some(key))?.clone();
        let found = merged.iter_mut().find(|element| element.get(key) == Some(&place));
        match (found, change) {
            (Some(Value::Object(element)), Value::Object(change)) => {
                *element = merge(item, std::mem::take(element), change)?;
            }
            (_, change) => merged.push(change),
        }
        order.push(Value::Object(Map::from_iter([(key.to_owned(), place)])));
    }
    arrange(merged, &order, &server, Some(key))
}

/// Does what the elements with a `$patch` direct; what remains of the list and of the patch.
fn special_elements(mut old: Vec<Value>, patch: Vec<Value>, key: &str) -> Result<(Vec<Value>, Vec<Value>)> {
    let mut rest = Vec::with_capacity(patch.len());
    let mut replace = false;
    for change in patch {
        let Some(directive) = change.get(PATCH) else {
            rest.push(change);
            continue;
        };
        match directive.as_str() {
            Some("delete") => {
                let place = key_of(&change, Some(key))?;
                old.retain(|element| element.get(key) != Some(place));
            }
            Some("replace") => replace = true,
            Some("merge") => return Err(plain("merging lists cannot yet be specified in the patch")),
            _ => return Err(unknown_directive(directive, change.as_object().unwrap_or(&Map::new()))),
        }
    }
    if replace { Ok((rest, Vec::new())) } else { Ok((old, rest)) }
}

/// Puts the elements that `order` names into its order, and the server's others between them, each before the first
/// that came after it in the server's list.
fn arrange(merged: Vec<Value>, order: &[Value], server: &[Value], key: Option<&str>) -> Result<Vec<Value>> {
    let order: Vec<&Value> = order.iter().map(|element| key_of(element, key)).collect::<Result<_>>()?;
    // (place in the order, place on the server, element)
    let (mut named, mut others) = (Vec::new(), Vec::new());
    for element in merged {
        let place = key_of(&element, key)?;
        let on_server = server.iter().position(|other| other == place);
        match order.iter().position(|other| *other == place) {
            Some(at) => named.push((at, on_server, element)),
            None => others.push((on_server, element)),
        }
    }
    named.sort_by_key(|(at, _, _)| *at);
    others.sort_by_key(|(at, _)| *at);
    let mut out = Vec::with_capacity(named.len() + others.len());
    let mut others = others.into_iter().peekable();
    for (_, place, element) in named {
        while let Some((_, other)) = others.next_if(|(other, _)| other.is_some() && place.is_some() && *other < place) {
            out.push(other);
        }
        out.push(element);
    }
    out.extend(others.map(|(_, element)| element));
    Ok(out)
}

//! The one form of an object: as Go prints the struct that was read from it.
//!
//! Zero values of fields that are left out when empty are dropped, those of all others are there, and quantities, times
//! and durations have the text that they are printed as.

use std::borrow::Cow;

use serde_json::{Map, Value};

use crate::schema::{Field, Node, Struct, Type, Unknown};
use crate::{quantity, time};

/// Brings an object that may have been changed by defaults or a patch into its canonical form. What it can't read as the
/// type that the schema asks for stays as it is.
pub fn canonicalize(node: Node<'_>, value: &mut Value) {
    match node.ty() {
        Type::Struct(id) => {
            if let Value::Object(map) = value {
                structure(node, node.struct_at(id), map);
            }
        }
        Type::List(item) => {
            if let Value::Array(list) = value {
                let item = node.at(item);
                for value in list {
                    if value.is_null() && !item.def().nullable {
                        *value = zero(item);
                    }
                    canonicalize(item, value);
                }
            }
        }
        Type::Map(item) => {
            if let Value::Object(map) = value {
                let item = node.at(item);
                for (_, value) in map.iter_mut() {
                    if value.is_null() && !item.def().nullable {
                        *value = zero(item);
                    }
                    canonicalize(item, value);
                }
            }
        }
        _ => {
            let printed = match (node.ty(), &*value) {
                (Type::Quantity, Value::String(text)) => quantity::canonical(text.trim()).ok().and_then(changed),
                (Type::Quantity, Value::Number(number)) => {
                    let text = number.to_string();
                    quantity::canonical(&text).ok().map(Cow::into_owned)
                }
                (Type::Time, Value::String(text)) => time::canonical(text).ok().and_then(changed),
                (Type::MicroTime, Value::String(text)) => time::canonical_micro(text).ok().and_then(changed),
                (Type::Duration, Value::String(text)) => time::parse_duration(text).ok().map(time::print_duration),
                _ => None,
            };
            if let Some(text) = printed {
                *value = Value::String(text);
            }
        }
    }
}

/// The text where it isn't what was read.
pub(crate) fn changed(text: Cow<'_, str>) -> Option<String> {
    match text {
        Cow::Borrowed(_) => None,
        Cow::Owned(text) => Some(text),
    }
}

fn structure(node: Node<'_>, entry: &Struct, map: &mut Map<String, Value>) {
    map.retain(|name, value| match entry.field(name) {
        Some(field) => {
            let inner = node.of_field(field);
            if !value.is_null() {
                canonicalize(inner, value);
            }
            !left_out(field, inner, value)
        }
        None => {
            if let Unknown::As(ty) = entry.unknown {
                canonicalize(node.at(ty), value);
            }
            entry.unknown != Unknown::Drop
        }
    });
    complete(node, entry, map);
}

/// Adds the fields that are printed even when nobody set them.
pub(crate) fn complete(node: Node<'_>, entry: &Struct, map: &mut Map<String, Value>) {
    for field in entry.printed() {
        if !map.contains_key(&*field.name) {
            map.insert(field.name.to_string(), zero_of_field(field, node.of_field(field)));
        }
    }
}

/// Whether a field with this (canonical) value is not printed, or is printed as the zero value that [`complete`] adds.
pub(crate) fn left_out(field: &Field, node: Node<'_>, value: &Value) -> bool {
    if value.is_null() {
        return !node.def().nullable;
    }
    if field.pointer {
        return false;
    }
    let empty = match (node.ty(), value) {
        (Type::List(_), Value::Array(list)) => list.is_empty(),
        (Type::Map(_), Value::Object(map)) => map.is_empty(),
        (Type::String | Type::Bytes, Value::String(text)) => field.omit_empty && text.is_empty(),
        (Type::Int32 | Type::Int64 | Type::Float, Value::Number(number)) => {
            field.omit_empty && number.as_f64() == Some(0.0)
        }
        (Type::Bool, Value::Bool(set)) => field.omit_empty && !set,
        _ => false,
    };
    empty || (field.omit_zero && is_zero(node, value))
}

/// Whether this says no more than nothing does when a client sends it. An empty list where one is always printed does,
/// and so does one of managed fields, until the object is stored: see [`crate::managed`].
pub(crate) fn says_nothing(field: &Field, node: Node<'_>, value: &Value) -> bool {
    let empty = match value {
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty() && matches!(node.ty(), Type::Map(_)),
        _ => false,
    };
    let told = empty && (!field.omit_empty || field.name == "managedFields");
    !told && left_out(field, node, value)
}

fn is_zero(node: Node<'_>, value: &Value) -> bool {
    match (node.ty(), value) {
        (_, Value::Null) => true,
        (Type::Struct(id), Value::Object(map)) => {
            let entry = node.struct_at(id);
            map.iter().all(|(name, value)| match entry.field(name) {
                Some(field) => !field.pointer && is_zero(node.of_field(field), value),
                None => false,
            })
        }
        (Type::Time, Value::String(text)) => text == "0001-01-01T00:00:00Z",
        _ => *value == zero(node),
    }
}

fn zero_of_field(field: &Field, node: Node<'_>) -> Value {
    if field.pointer { Value::Null } else { zero(node) }
}

/// What Go prints for a variable of this type that nobody set.
pub(crate) fn zero(node: Node<'_>) -> Value {
    match node.ty() {
        Type::Struct(id) => {
            let mut map = Map::new();
            complete(node, node.struct_at(id), &mut map);
            Value::Object(map)
        }
        Type::String => Value::String(String::new()),
        Type::Int32 | Type::Int64 | Type::Float | Type::IntOrString => 0.into(),
        Type::Bool => false.into(),
        Type::Quantity => "0".into(),
        Type::Duration => "0s".into(),
        Type::SchemaOrBool(_) => false.into(),
        _ => Value::Null,
    }
}

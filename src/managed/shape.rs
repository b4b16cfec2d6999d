//! How a place of an object is owned: as one piece, or field by field and element by element.

use serde_json::Value;

use super::set::{self, field};
use crate::schema::{ListType, Node, Type, Unknown};

/// A place in a schema, or one of which no schema says anything.
#[derive(Clone, Copy)]
pub enum Shape<'s> {
    Typed(Node<'s>),
    Untyped,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Scalar,
    AtomicList,
    AtomicMap,
    /// A list whose elements are told apart by their keys or by themselves.
    List,
    Map,
}

impl<'s> Shape<'s> {
    /// Where no schema says it, the value does.
    pub fn form(self, value: Option<&Value>) -> Form {
        let Shape::Typed(node) = self else { return form_of(value) };
        match node.ty() {
            Type::Struct(_) | Type::Map(_) if node.atomic() => Form::AtomicMap,
            Type::Struct(_) | Type::Map(_) => Form::Map,
            Type::List(_) if node.list_type() == ListType::Atomic => Form::AtomicList,
            Type::List(_) => Form::List,
            Type::FieldsV1 | Type::RawExtension | Type::Json => form_of(value),
            Type::SchemaOrBool(_) | Type::SchemaOrArray(_) | Type::SchemaOrStrings(_) => form_of(value),
            _ => Form::Scalar,
        }
    }

    /// A member of a map, and whether the schema names it.
    pub fn member(self, name: &str) -> (Shape<'s>, bool) {
        let Shape::Typed(node) = self else { return (Shape::Untyped, false) };
        match node.ty() {
            Type::Struct(id) => {
                let entry = node.struct_at(id);
                match (entry.field(name), entry.unknown) {
                    (Some(field), _) => (Shape::Typed(node.of_field(field)), true),
                    (None, Unknown::As(ty)) => (Shape::Typed(node.at(ty)), false),
                    _ => (Shape::Untyped, false),
                }
            }
            Type::Map(value) => (Shape::Typed(node.at(value)), false),
            _ => (Shape::Untyped, false),
        }
    }

    /// The elements of a list.
    pub fn item(self) -> Shape<'s> {
        match self {
            Shape::Typed(node) => node.item().map_or(Shape::Untyped, Shape::Typed),
            Shape::Untyped => Shape::Untyped,
        }
    }

    /// The path element of an element of a list that isn't atomic, or why it can have none.
    pub fn element(self, item: &Value) -> Result<String, String> {
        let Shape::Typed(node) = self else { return Err("invalid indexing of non-associative list".into()) };
        if node.list_type() == ListType::Set {
            return match item {
                Value::Object(_) => Err("associative list without keys has an element that's a map type".into()),
                Value::Array(_) => Err("not supported: associative list with lists as elements".into()),
                Value::Null => Err("associative list without keys has an element that's an explicit null".into()),
                plain => Ok(format!("v:{}", set::json(plain))),
            };
        }
        let Value::Object(map) = item else {
            let what = if item.is_null() { "a null element" } else { "non-map elements" };
            return Err(format!("associative list with keys may not have {what}"));
        };
        let keys = node.keys().filter_map(|(key, default)| Some((key, map.get(key).or(default)?)));
        let mut keys: Vec<(&str, &Value)> = keys.collect();
        if keys.is_empty() {
            let names: Vec<String> = node.keys().map(|(key, _)| format!("\"{key}\"")).collect();
            return Err(format!(
                "associative list with keys has an element that omits all key fields [{}] (and doesn't have default \
                 values for any key fields)",
                names.join(" ")
            ));
        }
        keys.sort_unstable_by_key(|(key, _)| *key);
        let mut out = String::from("k:{");
        for (index, (key, value)) in keys.iter().enumerate() {
            out.push_str(if index > 0 { ",\"" } else { "\"" });
            out.push_str(key);
            out.push_str("\":");
            set::write_json(&mut out, value);
        }
        out.push('}');
        Ok(out)
    }

    /// Whether two elements have the same keys (or are the same, in a set), without telling them.
    pub fn are_one(self, a: &Value, b: &Value) -> bool {
        let Shape::Typed(node) = self else { return false };
        match node.list_type() {
            ListType::Map => node.keys().all(|(key, default)| {
                let (ours, theirs) = (a.get(key).or(default), b.get(key).or(default));
                ours.is_some() && ours == theirs
            }),
            _ => a == b,
        }
    }
}

fn form_of(value: Option<&Value>) -> Form {
    match value {
        Some(Value::Array(_)) => Form::AtomicList,
        None | Some(Value::Null | Value::Object(_)) => Form::Map,
        Some(_) => Form::Scalar,
    }
}

/// The path elements of the fields of an object.
pub fn path(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| field(name)).collect()
}

//! An object seen as the fields that it has: whether it fits its schema, which fields those are, and taking some away.

use serde_json::Value;

use super::set::{self, Branch, Set, children, field, is_member};
use super::shape::{Form, Shape};
use crate::field::go_quote;
use crate::patch::print::{go, go_type};
use crate::schema::{Node, Type};

/// What is wrong with an applied configuration, in upstream's words; none where it fits the schema.
pub fn check(node: Node<'_>, value: &Value) -> Result<(), String> {
    let mut wrong = Vec::new();
    check_at(Shape::Typed(node), value, &mut String::new(), &mut wrong);
    match &*wrong {
        [] => Ok(()),
        [one] => Err(one.clone()),
        many => Err(format!("errors:\n  {}", many.join("\n  "))),
    }
}

fn check_at(shape: Shape<'_>, value: &Value, path: &mut String, wrong: &mut Vec<String>) {
    let Shape::Typed(node) = shape else { return };
    let end = path.len();
    match (node.ty(), value) {
        (_, Value::Null) => {}
        (Type::Struct(_) | Type::Map(_), Value::Object(map)) => {
            for (name, value) in map {
                let (inner, declared) = shape.member(name);
                path.push_str(&format!(".{name}"));
                if !declared && matches!(inner, Shape::Untyped) && !keeps_unknown(node) {
                    wrong.push(format!("{path}: field not declared in schema"));
                    path.truncate(end);
                    return;
                }
                check_at(inner, value, path, wrong);
                path.truncate(end);
            }
        }
        (Type::List(_), Value::Array(list)) => {
            let mut seen = std::collections::HashSet::new();
            for (index, value) in list.iter().enumerate() {
                let element = if shape.form(None) == Form::List {
                    match shape.element(value) {
                        Ok(element) => shown(&element),
                        Err(why) => {
                            say(wrong, path, format!("element {index}: {why}"));
                            return;
                        }
                    }
                } else {
                    format!("[{index}]")
                };
                if !seen.insert(element.clone()) {
                    wrong.push(format!("{path}: duplicate entries for key {element}"));
                }
                path.push_str(&element);
                check_at(shape.item(), value, path, wrong);
                path.truncate(end);
            }
        }
        (Type::Struct(_) | Type::Map(_), other) => say(wrong, path, format!("expected map, got &{{{}}}", go(other))),
        (Type::List(_), other) => say(wrong, path, format!("expected list, got &{{{}}}", go(other))),
        (Type::String | Type::Bytes | Type::Duration, value) if !value.is_string() => {
            let value = go_syntax(value);
            say(wrong, path, format!("expected string, got &value.valueUnstructured{{Value:{value}}}"));
        }
        (Type::Int32 | Type::Int64 | Type::Float, value) if !value.is_number() => {
            say(wrong, path, format!("expected numeric (int or float), got {}", go_type(value)));
        }
        (Type::Bool, value) if !value.is_boolean() => {
            say(wrong, path, format!("expected boolean, got &{{{}}}", go(value)));
        }
        (Type::Quantity | Type::IntOrString | Type::Time | Type::MicroTime, Value::Array(_) | Value::Object(_)) => {
            say(wrong, path, format!("expected any scalar, got &{{{}}}", go(value)));
        }
        _ => {}
    }
}

fn say(wrong: &mut Vec<String>, path: &str, what: String) {
    wrong.push(if path.is_empty() { what } else { format!("{path}: {what}") });
}

fn keeps_unknown(node: Node<'_>) -> bool {
    node.as_struct().is_some_and(|entry| entry.unknown == crate::schema::Unknown::Keep)
}

/// Go's `%#v` of what was read from JSON.
fn go_syntax(value: &Value) -> String {
    match value {
        Value::Null => "interface {}(nil)".into(),
        Value::String(text) => go_quote(text),
        Value::Array(list) => {
            format!("[]interface {{}}{{{}}}", list.iter().map(go_syntax).collect::<Vec<_>>().join(", "))
        }
        Value::Object(map) => {
            let members: Vec<String> =
                map.iter().map(|(name, value)| format!("{}:{}", go_quote(name), go_syntax(value))).collect();
            format!("map[string]interface {{}}{{{}}}", members.join(", "))
        }
        plain => go(plain),
    }
}

/// A path element as messages show it: `.name`, `[name="a"]`, `[="a"]`.
pub fn shown(element: &str) -> String {
    let value = |value: &Value| match value {
        Value::String(text) => go_quote(text),
        Value::Null => "null".into(),
        other => go(other),
    };
    let (kind, content) = element.split_at_checked(2).unwrap_or(("", element));
    match kind {
        "f:" => format!(".{content}"),
        "i:" => format!("[{content}]"),
        "v:" => format!("[={}]", value(&serde_json::from_str(content).unwrap_or_default())),
        _ => {
            let keys: serde_json::Map<String, Value> = serde_json::from_str(content).unwrap_or_default();
            let keys: Vec<String> = keys.iter().map(|(name, key)| format!("{name}={}", value(key))).collect();
            format!("[{}]", keys.join(","))
        }
    }
}

/// The fields that an object has.
pub fn fields(node: Node<'_>, value: &Value) -> Result<Set, String> {
    fields_at(Shape::Typed(node), value).map(Branch::into_set)
}

fn fields_at(shape: Shape<'_>, value: &Value) -> Result<Branch, String> {
    let mut out = Branch::default();
    match shape.form(Some(value)) {
        Form::Scalar | Form::AtomicList | Form::AtomicMap => out.mark(),
        Form::Map => {
            for (name, value) in value.as_object().into_iter().flatten() {
                let (inner, declared) = shape.member(name);
                let mut below = fields_at(inner, value)?;
                let empty = value.is_null() || value.as_object().is_some_and(|map| map.is_empty());
                if empty || !declared {
                    below.mark();
                }
                out.attach(field(name), below);
            }
        }
        Form::List => {
            let list = value.as_array().map(Vec::as_slice).unwrap_or_default();
            let mut named = Vec::with_capacity(list.len());
            for value in list {
                named.push((shape.element(value)?, value));
            }
            named.sort_by(|(a, _), (b, _)| a.cmp(b));
            for same in named.chunk_by(|(a, _), (b, _)| a == b) {
                // What is there twice is one piece.
                let mut below = match same {
                    [(_, value)] => fields_at(shape.item(), value)?,
                    _ => Branch::default(),
                };
                below.mark();
                if let Some((element, _)) = same.first() {
                    out.attach(element.clone(), below);
                }
            }
        }
    }
    Ok(out)
}

/// Makes the fields that the schema names members where something below them is one.
pub fn name_fields(node: Node<'_>, set: &Set) -> Set {
    name_at(Shape::Typed(node), set)
}

fn name_at(shape: Shape<'_>, node: &Set) -> Set {
    let mut out = Set::new();
    for (element, below) in children(node) {
        let (inner, declared) = match element.strip_prefix("f:") {
            Some(name) => shape.member(name),
            None => (shape.item(), false),
        };
        let mut named = name_at(inner, below);
        if is_member(below) || declared {
            set::mark(&mut named);
        }
        out.insert(element.clone(), Value::Object(named));
    }
    out
}

/// Takes fields out of an object; what becomes empty by that is null.
pub fn remove(node: Node<'_>, value: &mut Value, fields: &Set) {
    remove_at(Shape::Typed(node), value, fields);
}

fn remove_at(shape: Shape<'_>, value: &mut Value, fields: &Set) {
    // Whether the field or element stays.
    let keep = |inner: Shape<'_>, element: &str, value: &mut Value| match set::child(fields, element) {
        Some(below) if is_member(below) => false,
        Some(below) => {
            remove_at(inner, value, below);
            true
        }
        None => true,
    };
    let empty = match (shape.form(Some(value)), &mut *value) {
        (Form::Map, Value::Object(map)) => {
            map.retain(|name, value| keep(shape.member(name).0, &field(name), value));
            map.is_empty()
        }
        (Form::List, Value::Array(list)) => {
            list.retain_mut(|value| match shape.element(value) {
                Ok(element) => keep(shape.item(), &element, value),
                Err(_) => true,
            });
            list.is_empty()
        }
        (Form::Scalar, _) => false,
        _ => true,
    };
    if empty {
        *value = Value::Null;
    }
}

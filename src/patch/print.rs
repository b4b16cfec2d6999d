//! Objects as kube-apiserver's messages about patches show them.

use serde_json::{Map, Number, Value};

use crate::codec::escape_html;
use crate::schema::Node;

/// Marks a map whose members upstream holds in a Go map: it prints them in the order of their names. All others are
/// text that was written from a struct, in the order of its fields.
pub const TRACE: &str = "\u{0}";

/// JSON as Go writes it, of an object with marks.
pub fn json(node: Node<'_>, value: &Value) -> String {
    let mut out = String::new();
    write(&mut out, Some(node), value);
    escape_html(out)
}

fn write(out: &mut String, node: Option<Node<'_>>, value: &Value) {
    match value {
        Value::Object(map) => {
            out.push('{');
            let entry = node.and_then(|node| node.as_struct());
            match entry {
                Some(entry) if !map.contains_key(TRACE) => {
                    let known = entry.fields().iter().filter_map(|field| map.get_key_value(&*field.name));
                    let others = map.iter().filter(|(name, _)| entry.field(name).is_none());
                    members(out, node, known.chain(others));
                }
                _ => members(out, node, map.iter().filter(|(name, _)| *name != TRACE)),
            }
            out.push('}');
        }
        Value::Array(list) => {
            let item = node.and_then(|node| node.item());
            out.push('[');
            for (index, value) in list.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write(out, item, value);
            }
            out.push(']');
        }
        plain => out.push_str(&plain.to_string()),
    }
}

fn members<'v>(out: &mut String, node: Option<Node<'_>>, members: impl Iterator<Item = (&'v String, &'v Value)>) {
    for (index, (name, value)) in members.enumerate() {
        if index > 0 {
            out.push(',');
        }
        out.push_str(&Value::String(name.clone()).to_string());
        out.push(':');
        write(out, node.and_then(|node| node.field(name)), value);
    }
}

/// A value as Go's `%v` prints it: `map[a:1 b:[x y]]`.
pub fn go(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".into(),
        Value::Bool(set) => set.to_string(),
        Value::Number(number) => go_number(number),
        Value::String(text) => text.clone(),
        Value::Array(list) => format!("[{}]", list.iter().map(go).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => go_map(map),
    }
}

fn go_map(map: &Map<String, Value>) -> String {
    let members: Vec<String> = map.iter().map(|(name, value)| format!("{name}:{}", go(value))).collect();
    format!("map[{}]", members.join(" "))
}

/// `%v` of a float64 has an exponent below 1e-4 and from 1e21 on.
fn go_number(number: &Number) -> String {
    let Some(float) = number.as_f64().filter(|_| number.is_f64()) else { return number.to_string() };
    let size = float.abs();
    if float == 0.0 || (1e-4..1e21).contains(&size) {
        return float.to_string();
    }
    let text = format!("{float:e}");
    match text.split_once('e') {
        Some((digits, exponent)) => {
            let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |exponent| ('-', exponent));
            format!("{digits}e{sign}{exponent:0>2}")
        }
        None => text,
    }
}

/// The Go type of a value that was read from JSON.
pub fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "%!s(<nil>)",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

/// Its `reflect.Kind`.
pub fn go_kind(value: &Value) -> &'static str {
    match value {
        Value::Array(_) => "slice",
        Value::Object(_) => "map",
        plain => go_type(plain),
    }
}

//! What a Go struct without JSON names looks like where a message shows it.
//!
//! Upstream validates internal types, whose fields carry Go's names and are never left out, so a message prints
//! `{"Key":"a","Value":"","TimeAdded":null}`. A [`Shape`] is such a type's field list, in its order.

use serde_json::Value;

use crate::field::Raw;

/// The fields of a Go struct: its name in Go, its name in JSON, and what it is.
pub type Shape = &'static [(&'static str, &'static str, Part)];

#[derive(Clone, Copy)]
pub enum Part {
    Text,
    Int,
    Bool,
    /// A pointer, list or map whose content prints as plain JSON.
    Plain,
    Struct(Shape),
    Pointer(Shape),
    List(Shape),
}

/// The text of a whole value, `null` where it is absent.
pub fn pointer(value: Option<&Value>, shape: Shape) -> Raw {
    let mut out = String::new();
    print(&mut out, value, Part::Pointer(shape));
    Raw(escaped(out))
}

/// The text of a struct that Go holds by value: zero, not `null`, where it is absent.
pub fn by_value(value: Option<&Value>, shape: Shape) -> Raw {
    let mut out = String::new();
    print(&mut out, value, Part::Struct(shape));
    Raw(escaped(out))
}

/// Go's JSON writer keeps HTML out of its strings.
fn escaped(text: String) -> String {
    if text.contains(['<', '>', '&']) {
        return text.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026");
    }
    text
}

fn print(out: &mut String, value: Option<&Value>, part: Part) {
    let value = value.filter(|v| !v.is_null());
    match (part, value) {
        (Part::Text, None) => out.push_str("\"\""),
        (Part::Int, None) => out.push('0'),
        (Part::Bool, None) => out.push_str("false"),
        (Part::Plain | Part::Pointer(_) | Part::List(_), None) => out.push_str("null"),
        (Part::Text | Part::Int | Part::Bool | Part::Plain, Some(value)) => out.push_str(&value.to_string()),
        (Part::Struct(shape) | Part::Pointer(shape), value) => {
            out.push('{');
            for (i, (go, json, part)) in shape.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                out.push('"');
                out.push_str(go);
                out.push_str("\":");
                // An embedded struct has no name of its own: its fields stand among its owner's.
                print(out, value.and_then(|v| if json.is_empty() { Some(v) } else { v.get(*json) }), *part);
            }
            out.push('}');
        }
        (Part::List(shape), Some(value)) => {
            out.push('[');
            for (i, item) in value.as_array().into_iter().flatten().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                print(out, Some(item), Part::Struct(shape));
            }
            out.push(']');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn zero_fields_are_printed() {
        const INNER: Shape = &[("Name", "name", Part::Text)];
        const OUTER: Shape =
            &[("Ref", "ref", Part::Pointer(INNER)), ("By", "by", Part::Struct(INNER)), ("N", "n", Part::Int)];
        assert_eq!(by_value(Some(&json!({"n": 2})), OUTER).0, r#"{"Ref":null,"By":{"Name":""},"N":2}"#);
        assert_eq!(pointer(None, OUTER).0, "null");
    }
}

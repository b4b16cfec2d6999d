//! What a Go struct without JSON names looks like where a message shows it.
//!
//! Upstream validates internal types, whose fields carry Go's names and are never left out, so a message prints
//! `{"Key":"a","Value":"","TimeAdded":null}`. A [`Shape`] is such a type's field list, in its order.

use serde_json::Value;

use super::diff;
use crate::codec::escape_html;
use crate::field::Raw;
use crate::schema::{Node, builtin};

/// The fields of a Go struct: its name in Go, its name in JSON, and what it is.
pub type Shape = &'static [Row];
pub type Row = (&'static str, &'static str, Part);

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
    Map(Shape),
    /// A schema of custom resources, or whether anything is allowed.
    SchemaOrBool(Shape),
    SchemaOrArray(Shape),
    SchemaOrStrings(Shape),
    /// A type of `meta/v1`, which has JSON names, or a pointer to it.
    Meta(&'static str),
}

/// A value as Go prints it: with its fields in order.
enum Printed {
    Text(String),
    Struct(Vec<(String, Printed)>),
    List(Vec<Printed>),
}

/// The text of a whole value, `null` where it is absent.
pub fn pointer(value: Option<&Value>, shape: Shape) -> Raw {
    compact(value, Part::Pointer(shape))
}

/// The text of a struct that Go holds by value: zero, not `null`, where it is absent.
pub fn by_value(value: Option<&Value>, shape: Shape) -> Raw {
    compact(value, Part::Struct(shape))
}

/// The text of a value of a type of `meta/v1`: with JSON names, its fields in Go's order; `null` where it is
/// absent.
pub fn versioned(value: Option<&Value>, name: &'static str) -> Raw {
    compact(value, Part::Meta(name))
}

fn ordered(value: &Value, node: Option<Node<'_>>) -> Printed {
    match (value, node, node.and_then(|node| node.as_struct())) {
        (Value::Object(map), Some(node), Some(entry)) => {
            let fields = entry.fields().iter().filter_map(|field| {
                let value = map.get(&*field.name)?;
                Some((field.name.to_string(), ordered(value, Some(node.of_field(field)))))
            });
            Printed::Struct(fields.collect())
        }
        (Value::Array(items), Some(node), _) => {
            Printed::List(items.iter().map(|item| ordered(item, node.item())).collect())
        }
        _ => plain(value),
    }
}

fn compact(value: Option<&Value>, part: Part) -> Raw {
    let mut out = String::new();
    write(&mut out, &printed(value, part), None);
    Raw(escape_html(out))
}

/// The unified diff of two structs, line by line.
pub fn diff(old: Option<&Value>, new: Option<&Value>, shape: Shape) -> String {
    let pretty = |value| {
        let mut out = String::new();
        write(&mut out, &printed(value, Part::Struct(shape)), Some(0));
        escape_html(out)
    };
    diff::unified(&pretty(old), &pretty(new))
}

fn printed(value: Option<&Value>, part: Part) -> Printed {
    let value = value.filter(|v| !v.is_null());
    let zero = |text: &str| Printed::Text(text.to_owned());
    match (part, value) {
        (Part::Text, None) => zero("\"\""),
        (Part::Int, None) => zero("0"),
        (Part::Bool, None) => zero("false"),
        (part, None) if !matches!(part, Part::Struct(_)) => zero("null"),
        (Part::Meta(name), Some(value)) => ordered(value, builtin().type_named("meta/v1", name)),
        (Part::Text | Part::Int | Part::Bool | Part::Plain, Some(value)) => plain(value),
        (Part::Struct(shape) | Part::Pointer(shape), value) => {
            let field = |(go, json, part): &(&str, &str, Part)| {
                ((*go).to_owned(), printed(value.and_then(|value| value.get(*json)), *part))
            };
            Printed::Struct(shape.iter().map(field).collect())
        }
        (Part::Map(shape), Some(value)) => {
            let entries = value.as_object().into_iter().flatten();
            let mut fields: Vec<(String, Printed)> =
                entries.map(|(key, value)| (key.clone(), printed(Some(value), Part::Struct(shape)))).collect();
            fields.sort_by(|a, b| a.0.cmp(&b.0));
            Printed::Struct(fields)
        }
        (Part::SchemaOrBool(shape), Some(value)) => {
            let allows = value.as_bool().unwrap_or(true);
            let schema = printed(Some(value).filter(|value| value.is_object()), Part::Pointer(shape));
            Printed::Struct(vec![("Allows".to_owned(), zero(&allows.to_string())), ("Schema".to_owned(), schema)])
        }
        (Part::SchemaOrArray(shape) | Part::SchemaOrStrings(shape), Some(value)) => {
            let list = Some(value).filter(|value| value.is_array());
            let (name, list) = match part {
                Part::SchemaOrArray(_) => ("JSONSchemas", printed(list, Part::List(shape))),
                _ => ("Property", printed(list, Part::Plain)),
            };
            let schema = printed(Some(value).filter(|value| value.is_object()), Part::Pointer(shape));
            Printed::Struct(vec![("Schema".to_owned(), schema), (name.to_owned(), list)])
        }
        (Part::List(shape), Some(value)) => {
            let items = value.as_array().into_iter().flatten();
            Printed::List(items.map(|item| printed(Some(item), Part::Struct(shape))).collect())
        }
        // Nothing else is without a value here.
        (_, None) => zero("null"),
    }
}

fn plain(value: &Value) -> Printed {
    match value {
        Value::Array(items) => Printed::List(items.iter().map(plain).collect()),
        Value::Object(map) => {
            let mut fields: Vec<(String, Printed)> =
                map.iter().map(|(key, value)| (key.clone(), plain(value))).collect();
            fields.sort_by(|a, b| a.0.cmp(&b.0));
            Printed::Struct(fields)
        }
        other => Printed::Text(other.to_string()),
    }
}

/// `indent`: how deep the value stands, where it is to be spread over lines.
fn write(out: &mut String, value: &Printed, indent: Option<usize>) {
    let inner = indent.map(|depth| depth + 1);
    let line = |out: &mut String, depth: Option<usize>| {
        if let Some(depth) = depth {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', depth));
        }
    };
    match value {
        Printed::Text(text) => out.push_str(text),
        Printed::Struct(fields) if fields.is_empty() => out.push_str("{}"),
        Printed::List(items) if items.is_empty() => out.push_str("[]"),
        Printed::Struct(fields) => {
            for (i, (name, value)) in fields.iter().enumerate() {
                out.push(if i == 0 { '{' } else { ',' });
                line(out, inner);
                out.push_str(&Value::from(name.as_str()).to_string());
                out.push_str(if indent.is_some() { ": " } else { ":" });
                write(out, value, inner);
            }
            line(out, indent);
            out.push('}');
        }
        Printed::List(items) => {
            for (i, value) in items.iter().enumerate() {
                out.push(if i == 0 { '[' } else { ',' });
                line(out, inner);
                write(out, value, inner);
            }
            line(out, indent);
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

    #[test]
    fn differences_stand_in_their_lines() {
        const SPEC: Shape = &[("Name", "name", Part::Text), ("Tags", "tags", Part::Plain), ("N", "n", Part::Int)];
        let old = json!({"name": "a", "tags": {"b": "1", "a": "2"}});
        let new = json!({"name": "a", "n": 3});
        assert_eq!(
            diff(Some(&old), Some(&new), SPEC),
            "@@ -1,8 +1,5 @@\n {\n  \"Name\": \"a\",\n- \"Tags\": {\n-  \"a\": \"2\",\n-  \"b\": \"1\"\n- },\n- \"N\": 0\n\
             + \"Tags\": null,\n+ \"N\": 3\n }\n"
        );
    }
}

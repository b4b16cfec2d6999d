//! Defaults in the schemas of custom resources: they must have what the schema knows, and nothing else.

use serde_json::Value;

use super::custom_schemas::{EMBEDDED, INT_OR_STRING, PRESERVE, is_set};
use crate::field::{ErrorKind, Errors, Path};
use crate::object::Fields;

/// The defaults of a schema of whole objects.
pub fn check(schema: &Value, path: &Path<'_>, errors: &mut Errors) {
    check_within(schema, Inside { root: true, meta: false }, path, errors);
}

#[derive(Clone, Copy)]
struct Inside {
    /// The schema is of a whole object.
    root: bool,
    /// Of its type or metadata.
    meta: bool,
}

/// Defaults must have what the schema knows and nothing else.
fn check_within(schema: &Value, inside: Inside, path: &Path<'_>, errors: &mut Errors) {
    let object = inside.root || is_set(schema, EMBEDDED);
    let meta = inside.meta && !is_set(schema, EMBEDDED);
    if let Some(default) = schema.at(&["default"]) {
        let at = path.child("default");
        if !meta && !is_pruned(default, schema, object) {
            errors.invalid(&at, default, "must not have unknown fields");
        }
        check_value(default, schema, &at, "", errors);
    }
    let next = Inside { root: false, meta };
    if let Some(items) = schema.at(&["items"]) {
        check_within(items, next, &path.child("items"), errors);
    }
    let list = path.child("properties");
    for (name, property) in schema.map_at(&["properties"]).into_iter().flatten() {
        let own = object && matches!(name.as_str(), "metadata" | "apiVersion" | "kind");
        check_within(property, Inside { root: false, meta: meta || own }, &list.key(name), errors);
    }
}

fn is_pruned(value: &Value, schema: &Value, object: bool) -> bool {
    match value {
        Value::Object(map) => map.iter().all(|(key, value)| {
            if object && matches!(key.as_str(), "apiVersion" | "kind" | "metadata") {
                return true;
            }
            match schema.at(&["properties", key]).or_else(|| schema.at(&["additionalProperties"])) {
                Some(child) if child.is_object() => is_pruned(value, child, is_set(child, EMBEDDED)),
                Some(Value::Bool(true)) => true,
                _ => is_set(schema, PRESERVE),
            }
        }),
        Value::Array(items) => match schema.at(&["items"]) {
            Some(child) => items.iter().all(|item| is_pruned(item, child, is_set(child, EMBEDDED))),
            None => true,
        },
        _ => true,
    }
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// A value against its type and enumeration; `name` is where in the default it stands.
fn check_value(value: &Value, schema: &Value, path: &Path<'_>, name: &str, errors: &mut Errors) {
    let found = type_name(value);
    let wanted = if is_set(schema, INT_OR_STRING) { "integer,string" } else { schema.text_at(&["type"]) };
    let fits = wanted.is_empty()
        || wanted.split(',').any(|kind| kind == found || (kind == "number" && found == "integer"))
        || (value.is_null() && is_set(schema, "nullable"));
    if !fits {
        let detail = format!("{name} in body must be of type {wanted}: \"{found}\"");
        return errors.push(ErrorKind::TypeInvalid, path, found, detail);
    }
    let choices = schema.list_at(&["enum"]);
    if !choices.is_empty() && !choices.contains(value) && !value.is_null() {
        let texts: Vec<String> =
            choices.iter().map(|choice| choice.as_str().map_or_else(|| choice.to_string(), str::to_owned)).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        errors.not_supported(path, value, &texts);
    }
    check_limits(value, schema, path, name, errors);
    let inner = |key: &str| if name.is_empty() { key.to_owned() } else { format!("{name}.{key}") };
    match value {
        Value::Object(map) => {
            for required in schema.list_at(&["required"]).iter().filter_map(Value::as_str) {
                if !map.contains_key(required) {
                    errors.required(&path.child(required), "");
                }
            }
            for (key, value) in map {
                let child = schema.at(&["properties", key]).or_else(|| schema.at(&["additionalProperties"]));
                if let Some(child) = child.filter(|child| child.is_object()) {
                    check_value(value, child, &path.child(key), &inner(key), errors);
                }
            }
        }
        Value::Array(items) => {
            for (i, item) in items.iter().enumerate() {
                if let Some(child) = schema.at(&["items"]) {
                    check_value(item, child, &path.index(i), &format!("{name}[{i}]"), errors);
                }
            }
        }
        _ => {}
    }
}

/// A value against the bounds of its schema.
fn check_limits(value: &Value, schema: &Value, path: &Path<'_>, name: &str, errors: &mut Errors) {
    let bound = |field: &str| schema.at(&[field]).and_then(Value::as_f64);
    let count = |field: &str| schema.int_at(&[field]).map(|n| usize::try_from(n).unwrap_or_default());
    let mut wrong = |what: String| errors.invalid(path, value, format!("{name} in body should {what}"));
    if let Some(number) = value.as_f64() {
        let (above, below) = (is_set(schema, "exclusiveMinimum"), is_set(schema, "exclusiveMaximum"));
        if let Some(min) = bound("minimum").filter(|min| number < *min || (above && number == *min)) {
            wrong(format!("be greater than {}{min}", if above { "" } else { "or equal to " }));
        }
        if let Some(max) = bound("maximum").filter(|max| number > *max || (below && number == *max)) {
            wrong(format!("be less than {}{max}", if below { "" } else { "or equal to " }));
        }
        if let Some(factor) = bound("multipleOf").filter(|factor| (number / factor).fract() != 0.0) {
            wrong(format!("be a multiple of {factor}"));
        }
    }
    if let Some(text) = value.as_str() {
        let length = text.chars().count();
        if let Some(min) = count("minLength").filter(|min| length < *min) {
            wrong(format!("be at least {min} chars long"));
        }
        let pattern = schema.text_at(&["pattern"]);
        if regex::Regex::new(pattern).is_ok_and(|regex| !regex.is_match(text)) {
            wrong(format!("match '{pattern}'"));
        }
        if let Some(max) = count("maxLength").filter(|max| length > *max) {
            errors.too_long(path, max);
        }
        return;
    }
    let (size, least, most, what) = match value {
        Value::Array(items) => (items.len(), "minItems", "maxItems", "items"),
        Value::Object(map) => (map.len(), "minProperties", "maxProperties", "properties"),
        _ => return,
    };
    if let Some(min) = count(least).filter(|min| size < *min) {
        wrong(format!("have at least {min} {what}"));
    }
    if let Some(max) = count(most).filter(|max| size > *max) {
        errors.too_many(path, size, max);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn run(property: Value) -> Vec<String> {
        let mut errors = Errors::default();
        check(&json!({"properties": {"a": property}}), &Path::new("s"), &mut errors);
        errors.0.iter().map(|error| error.to_string().replace("s.properties", "")).collect()
    }

    #[test]
    fn defaults_fit() {
        assert_eq!(
            run(json!({"type": "object", "properties": {"x": {"type": "string"}}, "default": {"y": 1}})),
            ["[a].default: Invalid value: {\"y\":1}: must not have unknown fields"]
        );
        assert_eq!(
            run(json!({"type": "string", "default": 1})),
            ["[a].default: Invalid value: \"integer\":  in body must be of type string: \"integer\""]
        );
        assert_eq!(
            run(json!({"type": "string", "enum": ["x"], "default": "y"})),
            ["[a].default: Unsupported value: \"y\": supported values: \"x\""]
        );
        assert_eq!(
            run(json!({"type": "integer", "minimum": 1, "multipleOf": 2, "default": -1})),
            [
                "[a].default: Invalid value: -1:  in body should be greater than or equal to 1",
                "[a].default: Invalid value: -1:  in body should be a multiple of 2",
            ]
        );
    }
}

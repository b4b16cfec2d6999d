//! The OpenAPI schemas of custom resources: what makes one structural, what of OpenAPI it may use, whether its defaults fit.

use serde_json::Value;

use super::cel::{self, Output, Scope};
use super::custom_defaults;
use super::go_shape::{self, Part, Shape};
use crate::field::{Errors, Path, Raw};
use crate::object::Fields;

const TYPES: &[&str] = &["array", "boolean", "integer", "number", "object", "string"];
const REASONS: &[&str] = &["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];

pub const RULE: Shape = &[
    ("Rule", "rule", Part::Text),
    ("Message", "message", Part::Text),
    ("MessageExpression", "messageExpression", Part::Text),
    ("Reason", "reason", Part::Plain),
    ("FieldPath", "fieldPath", Part::Text),
    ("OptionalOldSelf", "optionalOldSelf", Part::Plain),
];

/// A schema as messages show it. It holds itself.
pub static SCHEMA: [(&str, &str, Part); 44] = [
    ("ID", "id", Part::Text),
    ("Schema", "$schema", Part::Text),
    ("Ref", "$ref", Part::Plain),
    ("Description", "description", Part::Text),
    ("Type", "type", Part::Text),
    ("Nullable", "nullable", Part::Bool),
    ("Format", "format", Part::Text),
    ("Title", "title", Part::Text),
    ("Default", "default", Part::Plain),
    ("Maximum", "maximum", Part::Plain),
    ("ExclusiveMaximum", "exclusiveMaximum", Part::Bool),
    ("Minimum", "minimum", Part::Plain),
    ("ExclusiveMinimum", "exclusiveMinimum", Part::Bool),
    ("MaxLength", "maxLength", Part::Plain),
    ("MinLength", "minLength", Part::Plain),
    ("Pattern", "pattern", Part::Text),
    ("MaxItems", "maxItems", Part::Plain),
    ("MinItems", "minItems", Part::Plain),
    ("UniqueItems", "uniqueItems", Part::Bool),
    ("MultipleOf", "multipleOf", Part::Plain),
    ("Enum", "enum", Part::Plain),
    ("MaxProperties", "maxProperties", Part::Plain),
    ("MinProperties", "minProperties", Part::Plain),
    ("Required", "required", Part::Plain),
    ("Items", "items", Part::SchemaOrArray(&SCHEMA)),
    ("AllOf", "allOf", Part::List(&SCHEMA)),
    ("OneOf", "oneOf", Part::List(&SCHEMA)),
    ("AnyOf", "anyOf", Part::List(&SCHEMA)),
    ("Not", "not", Part::Pointer(&SCHEMA)),
    ("Properties", "properties", Part::Map(&SCHEMA)),
    ("AdditionalProperties", "additionalProperties", Part::SchemaOrBool(&SCHEMA)),
    ("PatternProperties", "patternProperties", Part::Map(&SCHEMA)),
    ("Dependencies", "dependencies", Part::Plain),
    ("AdditionalItems", "additionalItems", Part::SchemaOrBool(&SCHEMA)),
    ("Definitions", "definitions", Part::Map(&SCHEMA)),
    (
        "ExternalDocs",
        "externalDocs",
        Part::Pointer(&[("Description", "description", Part::Text), ("URL", "url", Part::Text)]),
    ),
    ("Example", "example", Part::Plain),
    ("XPreserveUnknownFields", "x-kubernetes-preserve-unknown-fields", Part::Plain),
    ("XEmbeddedResource", "x-kubernetes-embedded-resource", Part::Bool),
    ("XIntOrString", "x-kubernetes-int-or-string", Part::Bool),
    ("XListMapKeys", "x-kubernetes-list-map-keys", Part::Plain),
    ("XListType", "x-kubernetes-list-type", Part::Plain),
    ("XMapType", "x-kubernetes-map-type", Part::Plain),
    ("XValidations", "x-kubernetes-validations", Part::List(RULE)),
];

/// What may stand at the root beside `status` when that is a subresource, in Go's names.
const ROOT_FIELDS: &[&str] = &[
    "Description",
    "Type",
    "Format",
    "Title",
    "Maximum",
    "ExclusiveMaximum",
    "Minimum",
    "ExclusiveMinimum",
    "MaxLength",
    "MinLength",
    "Pattern",
    "MaxItems",
    "MinItems",
    "UniqueItems",
    "MultipleOf",
    "Required",
    "Items",
    "Properties",
    "ExternalDocs",
    "Example",
    "XPreserveUnknownFields",
    "XValidations",
];

pub const EMBEDDED: &str = "x-kubernetes-embedded-resource";
pub const INT_OR_STRING: &str = "x-kubernetes-int-or-string";
pub const PRESERVE: &str = "x-kubernetes-preserve-unknown-fields";
const LIST_TYPE: &str = "x-kubernetes-list-type";
const LIST_KEYS: &str = "x-kubernetes-list-map-keys";
const MAP_TYPE: &str = "x-kubernetes-map-type";
const RULES: &str = "x-kubernetes-validations";

pub fn is_set(schema: &Value, field: &str) -> bool {
    schema.bool_at(&[field]) == Some(true)
}

/// A field that holds anything but Go's zero.
fn has(schema: &Value, field: &str) -> bool {
    match schema.at(&[field]) {
        None | Some(Value::Bool(false)) => field == PRESERVE && schema.at(&[field]).is_some(),
        Some(Value::String(text)) => !text.is_empty() || field == "$ref",
        Some(Value::Array(items)) => !items.is_empty(),
        Some(Value::Object(map)) => {
            !map.is_empty() || !matches!(field, "properties" | "patternProperties" | "definitions")
        }
        Some(_) => true,
    }
}

/// The schemas directly within, each with where it stands: `properties`, its key.
fn children(schema: &Value) -> Vec<(&str, Option<Key<'_>>, &Value)> {
    let mut found = Vec::new();
    for field in ["items", "additionalProperties", "additionalItems", "not"] {
        match schema.at(&[field]) {
            Some(child @ Value::Object(_)) => found.push((field, None, child)),
            Some(Value::Array(list)) => {
                found.extend(list.iter().enumerate().map(|(i, child)| (field, Some(Key::Index(i)), child)));
            }
            _ => {}
        }
    }
    for field in ["allOf", "anyOf", "oneOf"] {
        let list = schema.list_at(&[field]).iter().enumerate();
        found.extend(list.map(|(i, child)| (field, Some(Key::Index(i)), child)));
    }
    for field in ["properties", "patternProperties", "definitions", "dependencies"] {
        let map = schema.map_at(&[field]).into_iter().flatten().filter(|(_, child)| child.is_object());
        found.extend(map.map(|(key, child)| (field, Some(Key::Name(key)), child)));
    }
    found
}

#[derive(Clone, Copy)]
enum Key<'a> {
    Index(usize),
    Name(&'a str),
}

/// Calls `visit` for a schema and all within it.
pub fn walk(schema: &Value, visit: &mut dyn FnMut(&Value)) {
    visit(schema);
    for (_, _, child) in children(schema) {
        walk(child, visit);
    }
}

/// A schema of a version, or of all versions where they are the same.
pub fn check(schema: &Value, has_status: bool, path: &Path<'_>, errors: &mut Errors) {
    let before = errors.0.len();
    let at = path.child("openAPIV3Schema");
    if has_status {
        check_root_fields(schema, path, errors);
    }
    if is_set(schema, "nullable") {
        errors.forbidden(&path.child("openAPIV3Schema.nullable"), "nullable cannot be true at the root");
    }
    let unsupported = unsupported(schema);
    let mut compile = false;
    if unsupported.is_none() {
        let found = errors.0.len();
        structural(schema, Level::Root, &at, errors);
        if errors.0.len() == found {
            custom_defaults::check(schema, &at, errors);
            compile = errors.0.len() == found;
        }
    }
    let context = Context { defaults: None, meta: false, root: true, compile, uncorrelated: None };
    open_api(schema, &context, &at, errors);
    if let Some(why) = unsupported.filter(|_| errors.0.len() == before) {
        errors.invalid(&at, "", why);
    }
}

fn check_root_fields(schema: &Value, path: &Path<'_>, errors: &mut Errors) {
    for (go, ..) in SCHEMA.iter().filter(|(_, field, _)| has(schema, field)) {
        if *go == "Type" {
            let kind = schema.text_at(&["type"]);
            if kind != "object" {
                let detail = "only \"object\" is allowed as the type at the root of the schema if the status subresource is enabled";
                return errors.invalid(&path.child("openAPIV3Schema.type"), kind, detail);
            }
        } else if !ROOT_FIELDS.contains(go) {
            let detail = format!(
                "only [{}] fields are allowed at the root of the schema if the status subresource is enabled",
                ROOT_FIELDS.join(" ")
            );
            let shown = go_shape::by_value(Some(schema), &SCHEMA);
            return errors.invalid(&path.child("openAPIV3Schema"), shown, detail);
        }
    }
}

/// What no structural schema can be made of.
fn unsupported(schema: &Value) -> Option<String> {
    let names = [
        ("id", "id"),
        ("$schema", "schema"),
        ("$ref", "$ref"),
        ("patternProperties", "patternProperties"),
        ("dependencies", "dependencies"),
        ("additionalItems", "additionalItems"),
        ("definitions", "definitions"),
    ];
    if let Some((_, shown)) = names.iter().find(|(field, _)| has(schema, field)) {
        return Some(format!("OpenAPIV3Schema '{shown}' is not supported"));
    }
    if schema.at(&["items"]).is_some_and(Value::is_array) {
        return Some("OpenAPIV3Schema 'items' must be a schema, but is an array".to_owned());
    }
    if schema.bool_at(&[PRESERVE]) == Some(false) {
        return Some(format!("internal error: '{PRESERVE}' must be true or undefined"));
    }
    children(schema).into_iter().find_map(|(_, _, child)| unsupported(child))
}

#[derive(Clone, Copy, PartialEq)]
enum Level {
    Root,
    Item,
    Field,
}

const QUANTIFIERS: &[&str] = &["anyOf", "allOf", "oneOf"];

/// The invariants of a structural schema: every field has its one type, outside of what only validates.
fn structural(schema: &Value, level: Level, path: &Path<'_>, errors: &mut Errors) {
    invariants(schema, level, path, errors);
    complete(schema, schema, path, path, errors);
}

fn invariants(schema: &Value, level: Level, path: &Path<'_>, errors: &mut Errors) {
    let kind = schema.text_at(&["type"]);
    if kind == "array" && schema.at(&["items"]).is_none() {
        errors.required(&path.child("items"), "must be specified");
    }
    if let Some(items) = schema.at(&["items"]) {
        invariants(items, Level::Item, &path.child("items"), errors);
    }
    let list = path.child("properties");
    for (name, property) in schema.map_at(&["properties"]).into_iter().flatten() {
        invariants(property, Level::Field, &list.key(name), errors);
    }
    let more = path.child("additionalProperties");
    if let Some(values) = schema.at(&["additionalProperties"]) {
        if level == Level::Root {
            errors.forbidden(&more, "must not be used at the root");
        }
        if values.is_object() {
            invariants(values, Level::Field, &more, errors);
        }
    }
    if is_set(schema, INT_OR_STRING) {
        for field in [PRESERVE, EMBEDDED].into_iter().filter(|field| is_set(schema, field)) {
            errors.invalid(&path.child(field), true, "must be false if x-kubernetes-int-or-string is true");
        }
    }
    let either = |schema: &Value| {
        schema.list_at(&["anyOf"]) == [serde_json::json!({"type": "integer"}), serde_json::json!({"type": "string"})]
    };
    let skip_first = schema.list_at(&["allOf"]).first().is_some_and(either);
    value_validation(schema, either(schema), skip_first, path, errors);
    let embedded = is_set(schema, EMBEDDED);
    let at = path.child("type");
    if embedded && kind != "object" {
        let detail = "must be object if x-kubernetes-embedded-resource is true";
        if kind.is_empty() { errors.required(&at, detail) } else { errors.invalid(&at, kind, detail) }
    } else if kind.is_empty() && !is_set(schema, INT_OR_STRING) && !is_set(schema, PRESERVE) {
        let what = match level {
            Level::Root => "at the root",
            Level::Item => "for specified array items",
            Level::Field => "for specified object fields",
        };
        errors.required(&at, format!("must not be empty {what}"));
    }
    if embedded && schema.at(&["additionalProperties"]).is_some() {
        errors.forbidden(&more, "must not be used if x-kubernetes-embedded-resource is set");
    }
    if level == Level::Root && !matches!(kind, "" | "object") {
        errors.invalid(&at, kind, "must be object at the root");
    }
    check_meta(schema, level, embedded, &list, errors);
    if embedded && !is_set(schema, PRESERVE) && !has(schema, "properties") {
        let detail = "must not be empty if x-kubernetes-embedded-resource is true without \
                      x-kubernetes-preserve-unknown-fields";
        errors.required(&list, detail);
    }
}

/// What a schema may say of the fields that every object has.
fn check_meta(schema: &Value, level: Level, embedded: bool, list: &Path<'_>, errors: &mut Errors) {
    let checked = level == Level::Root || embedded;
    for field in ["kind", "apiVersion"] {
        if let Some(property) = schema.at(&["properties", field]).filter(|_| checked) {
            let kind = property.text_at(&["type"]);
            if kind != "string" {
                errors.invalid(&list.key(field).child("type"), kind, "must be string");
            }
        }
    }
    let Some(metadata) = schema.at(&["properties", "metadata"]) else { return };
    let path = list.key("metadata");
    let kind = metadata.text_at(&["type"]);
    if checked && kind != "object" {
        errors.invalid(&path.child("type"), kind, "must be object");
    }
    let names = metadata.map_at(&["properties"]);
    let plain_names =
        names.is_none_or(|names| names.keys().all(|name| matches!(name.as_str(), "name" | "generateName")));
    let others =
        SCHEMA.iter().any(|(_, field, _)| !matches!(*field, "type" | "default" | "properties") && has(metadata, field));
    if level == Level::Root && (!plain_names || others) {
        let detail = "must not specify anything other than name and generateName, but metadata is implicitly specified";
        errors.forbidden(&path, detail);
    }
}

fn value_validation(schema: &Value, skip_any: bool, skip_first: bool, path: &Path<'_>, errors: &mut Errors) {
    for field in QUANTIFIERS.iter().filter(|field| !(skip_any && **field == "anyOf")) {
        let list = path.child(field);
        for (i, nested) in schema.list_at(&[field]).iter().enumerate() {
            nested_validation(nested, skip_first && *field == "allOf" && i == 0, &list.index(i), errors);
        }
    }
    if let Some(nested) = schema.at(&["not"]) {
        nested_validation(nested, false, &path.child("not"), errors);
    }
    let pattern = schema.text_at(&["pattern"]);
    if let Err(why) = regex::Regex::new(pattern) {
        let detail =
            format!("must be a valid regular expression, but isn't: {}", go_regex_error(pattern, &why.to_string()));
        errors.invalid(&path.child("pattern"), pattern, detail);
    }
}

/// What Go's `regexp` says of a malformed expression.
fn go_regex_error(pattern: &str, why: &str) -> String {
    let (what, shown) = if why.contains("unclosed character class") {
        ("missing closing ]", &pattern[pattern.rfind('[').unwrap_or_default()..])
    } else if why.contains("unclosed group") {
        ("missing closing )", pattern)
    } else if why.contains("unopened group") {
        ("unexpected )", pattern)
    } else if why.contains("repetition operator missing expression") {
        ("missing argument to repetition operator", &pattern[..pattern.len().min(1)])
    } else if why.contains("look-around") {
        let at = pattern.find("(?").unwrap_or_default();
        ("invalid or unsupported Perl syntax", pattern.get(at..at + 3).unwrap_or("(?"))
    } else {
        ("invalid escape sequence", pattern)
    };
    format!("error parsing regexp: {what}: `{shown}`")
}

/// What only validates must not say what something is.
fn nested_validation(schema: &Value, skip_any: bool, path: &Path<'_>, errors: &mut Errors) {
    value_validation(schema, skip_any, false, path, errors);
    if let Some(items) = schema.at(&["items"]) {
        nested_validation(items, false, &path.child("items"), errors);
    }
    let list = path.child("properties");
    for (name, property) in schema.map_at(&["properties"]).into_iter().flatten() {
        nested_validation(property, false, &list.key(name), errors);
    }
    const FORBIDDEN: &[(&str, &str)] = &[
        ("type", "empty"),
        ("additionalProperties", "undefined"),
        ("default", "undefined"),
        ("title", "empty"),
        ("description", "empty"),
        ("nullable", "false"),
        (PRESERVE, "false"),
        (EMBEDDED, "false"),
        (INT_OR_STRING, "false"),
        (LIST_KEYS, "empty"),
        (LIST_TYPE, "undefined"),
        (MAP_TYPE, "undefined"),
        (RULES, "empty"),
    ];
    for (field, wanted) in FORBIDDEN.iter().filter(|(field, _)| has(schema, field)) {
        errors.forbidden(&path.child(field), format!("must be {wanted} to be structural"));
    }
    if schema.at(&["properties", "metadata"]).is_some() {
        errors.forbidden(&list.key("metadata"), "must not be specified in a nested context");
    }
}

/// What validations at the root are about must be specified outside of them too.
fn complete(validation: &Value, structure: &Value, at: &Path<'_>, from: &Path<'_>, errors: &mut Errors) {
    for field in QUANTIFIERS {
        let list = from.child(field);
        for (i, nested) in validation.list_at(&[field]).iter().enumerate() {
            complete_nested(nested, Some(structure), at, &list.index(i), errors);
        }
    }
    if let Some(nested) = validation.at(&["not"]) {
        complete_nested(nested, Some(structure), at, &from.child("not"), errors);
    }
}

fn complete_nested(validation: &Value, structure: Option<&Value>, at: &Path<'_>, from: &Path<'_>, errors: &mut Errors) {
    let Some(structure) = structure else {
        return errors.required(at, format!("because it is defined in {from}"));
    };
    complete(validation, structure, at, from, errors);
    if let Some(items) = validation.at(&["items"]) {
        complete_nested(items, structure.at(&["items"]), &at.child("items"), &from.child("items"), errors);
    }
    let (list, origin) = (at.child("properties"), from.child("properties"));
    for (name, property) in validation.map_at(&["properties"]).into_iter().flatten() {
        let found = structure.at(&["properties", name]);
        complete_nested(property, found, &list.key(name), &origin.key(name), errors);
    }
}

/// Where in a schema one is, as far as its rules depend on it.
#[derive(Clone)]
struct Context {
    /// Why defaults are forbidden, if they are.
    defaults: Option<String>,
    /// Within type or metadata of an object.
    meta: bool,
    root: bool,
    /// Whether rules are compiled.
    compile: bool,
    /// The list or map whose parts can't be followed from one version of an object to the next.
    uncorrelated: Option<String>,
}

/// What of OpenAPI a schema uses. Says whether it is free of errors, rules aside.
fn open_api(schema: &Value, context: &Context, path: &Path<'_>, errors: &mut Errors) -> bool {
    let before = errors.0.len();
    let mut compiled = 0;
    features(schema, context, path, errors);
    let mut inner = |child: &Value, context: &Context, path: &Path<'_>, errors: &mut Errors| {
        let start = errors.0.len();
        if open_api(child, context, path, errors) {
            compiled += errors.0.len() - start;
        }
    };
    let plain = Context { root: false, ..context.clone() };
    for (field, key, child) in children(schema) {
        if matches!(field, "patternProperties" | "additionalItems") {
            continue;
        }
        let at = path.child(field);
        let mut next = plain.clone();
        match field {
            "additionalProperties" if context.meta => {
                next.defaults = Some("inside additionalProperties applying to object metadata".to_owned());
            }
            "properties" => {
                if schema.text_at(&[MAP_TYPE]) == "atomic" && next.uncorrelated.is_none() {
                    next.uncorrelated = Some(path.to_string());
                }
                if let Some(Key::Name(name @ ("metadata" | "kind" | "apiVersion"))) = key
                    && (context.root || is_set(schema, EMBEDDED))
                {
                    next.meta = true;
                    if context.root {
                        next.defaults = Some(format!("in top-level {name}"));
                    }
                }
            }
            "items" if schema.text_at(&[LIST_TYPE]) != "map" && next.uncorrelated.is_none() => {
                next.uncorrelated = Some(path.to_string());
            }
            "additionalProperties" | "items" => {}
            _ => next.compile = false,
        }
        match key {
            None => inner(child, &next, &at, errors),
            Some(Key::Index(i)) => inner(child, &next, &at.index(i), errors),
            Some(Key::Name(name)) => inner(child, &next, &at.key(name), errors),
        }
    }
    extensions(schema, path, errors);
    check_rules(schema, path, errors);
    let clean = errors.0.len() - before == compiled;
    if clean && context.compile {
        compile_rules(schema, context, path, errors);
    }
    clean
}

fn features(schema: &Value, context: &Context, path: &Path<'_>, errors: &mut Errors) {
    let kind = schema.text_at(&["type"]);
    if !kind.is_empty() && !TYPES.contains(&kind) {
        errors.not_supported(&path.child("type"), kind, TYPES);
    }
    if let Some(reason) = context.defaults.as_ref().filter(|_| schema.at(&["default"]).is_some()) {
        errors.forbidden(&path.child("default"), format!("must not be set {reason}"));
    }
    for field in ["id", "additionalItems", "patternProperties", "definitions", "dependencies", "$ref"] {
        if has(schema, field) {
            errors.forbidden(&path.child(field), format!("{field} is not supported"));
        }
    }
    if kind == "null" {
        errors.forbidden(&path.child("type"), "type cannot be set to null, use nullable as an alternative");
    }
    if schema.at(&["items"]).is_some_and(Value::is_array) {
        errors.forbidden(&path.child("items"), "items must be a schema object and not an array");
    }
    if context.meta && is_set(schema, EMBEDDED) {
        errors.forbidden(&path.child(EMBEDDED), "must not be used inside of resource meta");
    }
    if is_set(schema, "uniqueItems") {
        let detail = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        errors.forbidden(&path.child("uniqueItems"), detail);
    }
    let more = schema.at(&["additionalProperties"]);
    if has(schema, "properties") && more.is_some_and(|more| *more != Value::Bool(true)) {
        let detail = "additionalProperties and properties are mutual exclusive";
        errors.forbidden(&path.child("additionalProperties"), detail);
    }
}

/// How lists and maps are merged.
fn extensions(schema: &Value, path: &Path<'_>, errors: &mut Errors) {
    if schema.bool_at(&[PRESERVE]) == Some(false) {
        errors.invalid(&path.child(PRESERVE), false, "must be true or undefined");
    }
    let kind = schema.text_at(&["type"]);
    let mut typed = |field: &str, wanted: &str, known: &[&str]| {
        let Some(value) = schema.at(&[field]).and_then(Value::as_str) else { return };
        let at = path.child("type");
        let detail = format!("must be {wanted} if {field} is specified");
        match kind {
            "" => errors.required(&at, detail),
            _ if kind != wanted => errors.invalid(&at, kind, detail),
            _ => {}
        }
        if !known.contains(&value) {
            errors.not_supported(&path.child(field), value, known);
        }
    };
    typed(MAP_TYPE, "object", &["atomic", "granular"]);
    typed(LIST_TYPE, "array", &["atomic", "set", "map"]);
    let list = schema.at(&[LIST_TYPE]).and_then(Value::as_str);
    let items = schema.at(&["items"]);
    let item = items.filter(|items| items.is_object());
    let at = path.child("items");
    if let Some(item) = item.filter(|_| kind == "array" && list == Some("set")) {
        const DETAIL: &str = "must be atomic as item of a list with x-kubernetes-list-type=set";
        let shown = item.at(&[LIST_TYPE]).map_or(Raw("null".to_owned()), |value| Raw(value.to_string()));
        match item.text_at(&["type"]) {
            "array" if !matches!(item.text_at(&[LIST_TYPE]), "" | "atomic") => {
                errors.invalid(&at.child(LIST_TYPE), shown, DETAIL);
            }
            "object" if item.text_at(&[MAP_TYPE]) != "atomic" => errors.invalid(&at.child(MAP_TYPE), shown, DETAIL),
            _ => {}
        }
    }
    let keys = schema.list_at(&[LIST_KEYS]);
    if !keys.is_empty() && list != Some("map") {
        let detail = "must be map if x-kubernetes-list-map-keys is non-empty";
        match list {
            None => errors.required(&path.child(LIST_TYPE), detail),
            Some(list) => errors.invalid(&path.child(LIST_TYPE), list, detail),
        }
    }
    if list == Some("map") {
        if keys.is_empty() {
            errors.required(&path.child(LIST_KEYS), "must not be empty if x-kubernetes-list-type is map");
        }
        match (items, item) {
            (None, _) => errors.required(&at, "must have a schema if x-kubernetes-list-type is map"),
            (Some(items), None) => {
                errors.invalid(&at, items, "must only have a single schema if x-kubernetes-list-type is map");
            }
            (_, Some(item)) => check_keys(schema, item, keys, path, errors),
        }
    }
    if let (Some(list @ ("map" | "set")), Some(item)) = (list, item) {
        check_items(list, item, keys, &at, errors);
    }
}

/// The keys of a list that is a map are scalar properties of its items.
fn check_keys(schema: &Value, item: &Value, keys: &[Value], path: &Path<'_>, errors: &mut Errors) {
    let at = path.child("items");
    let kind = item.text_at(&["type"]);
    if kind != "object" {
        let detail = "must be object if parent array's x-kubernetes-list-type is map";
        return errors.invalid(&at.child("type"), kind, detail);
    }
    for (i, key) in keys.iter().enumerate() {
        let name = key.as_str().unwrap_or_default();
        let list = path.child(LIST_KEYS);
        match item.at(&["properties", name]) {
            None => errors.invalid(&list, &schema[LIST_KEYS], "entries must all be names of item properties"),
            Some(property) if matches!(property.text_at(&["type"]), "array" | "object") => {
                let detail = "must be a scalar type if parent array's x-kubernetes-list-type is map";
                let properties = at.child("properties");
                errors.invalid(&properties.key(name).child("type"), kind, detail);
            }
            Some(_) => {}
        }
        if keys[..i].contains(key) {
            errors.invalid(&list, &schema[LIST_KEYS], "must not contain duplicate entries");
        }
    }
}

fn check_items(list: &str, item: &Value, keys: &[Value], path: &Path<'_>, errors: &mut Errors) {
    if is_set(item, "nullable") {
        errors.forbidden(&path.child("nullable"), format!("cannot be nullable when x-kubernetes-list-type is {list}"));
    }
    if list != "map" {
        return;
    }
    let properties = path.child("properties");
    for name in keys.iter().filter_map(Value::as_str) {
        let Some(property) = item.at(&["properties", name]) else { continue };
        let at = properties.key(name);
        let required = item.list_at(&["required"]).iter().any(|required| required == name);
        if !required && property.at(&["default"]).is_none() {
            let detail =
                "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
            errors.required(&at.child("default"), detail);
        }
        if is_set(property, "nullable") {
            let detail = "this property is in x-kubernetes-list-map-keys, so it cannot be nullable";
            errors.forbidden(&at.child("nullable"), detail);
        }
    }
}

/// What a rule must have, before it is compiled.
fn check_rules(schema: &Value, path: &Path<'_>, errors: &mut Errors) {
    let list = path.child(RULES);
    let broken = |text: &str| text.contains(['\n', '\r']);
    for (i, rule) in schema.list_at(&[RULES]).iter().enumerate() {
        let path = list.index(i);
        let (text, message) = (rule.text_at(&["rule"]).trim(), rule.text_at(&["message"]));
        if text.is_empty() {
            errors.required(&path.child("rule"), "rule is not specified");
        } else if !message.is_empty() && message.trim().is_empty() {
            errors.invalid(&path.child("message"), message, "must be non-empty if specified");
        } else if broken(message.trim()) {
            errors.invalid(&path.child("message"), message, "must not contain line breaks");
        } else if broken(text) && message.trim().is_empty() {
            errors.required(&path.child("message"), "message must be specified if rule contains line breaks");
        }
        let expression = rule.text_at(&["messageExpression"]);
        if !expression.is_empty() && expression.trim().is_empty() {
            let detail = "messageExpression must be non-empty if specified";
            errors.required(&path.child("messageExpression"), detail);
        }
        if let Some(reason) = rule.at(&["reason"]).and_then(Value::as_str).filter(|reason| !REASONS.contains(reason)) {
            errors.not_supported(&path.child("reason"), reason, REASONS);
        }
        let field = rule.text_at(&["fieldPath"]);
        let at = path.child("fieldPath");
        if !field.is_empty() && field.trim().is_empty() {
            errors.invalid(&at, field, "must be non-empty if specified");
        }
        if broken(field) {
            errors.invalid(&at, field, "must not contain line breaks");
        }
        if !field.is_empty() && find(schema, field, true).is_err() {
            errors.invalid(&at, field, "must be a valid path");
        }
    }
}

fn compile_rules(schema: &Value, context: &Context, path: &Path<'_>, errors: &mut Errors) {
    let scope = Scope::schema_rule();
    let list = path.child(RULES);
    for (i, rule) in schema.list_at(&[RULES]).iter().enumerate() {
        let path = list.index(i);
        let shown = || go_shape::by_value(Some(rule), RULE);
        let text = rule.text_at(&["rule"]);
        if let Some(why) = cel::problem(text, &scope, Output::Rule) {
            errors.invalid(&path.child("rule"), shown(), why);
        }
        let expression = rule.text_at(&["messageExpression"]);
        if !expression.is_empty()
            && let Some(why) = cel::problem(expression, &scope, Output::RuleMessage)
        {
            errors.invalid(&path.child("messageExpression"), shown(), why);
        }
        let (optional, old) = (rule.at(&["optionalOldSelf"]), cel::uses(text, "oldSelf"));
        if let Some(place) = context.uncorrelated.as_ref().filter(|_| old) {
            let detail = format!("oldSelf cannot be used on the uncorrelatable portion of the schema within {place}");
            errors.invalid(&path.child("rule"), text, detail);
        }
        if let Some(optional) = optional.filter(|_| !old) {
            let detail = "may not be set if oldSelf is not used in rule";
            errors.invalid(&path.child("optionalOldSelf"), optional, detail);
        }
    }
}

/// The schema of the field that a simple path leads to.
pub fn find<'a>(schema: &'a Value, path: &str, brackets: bool) -> Result<&'a Value, String> {
    const NOWHERE: &str = "does not refer to a valid field";
    const SHORT: &str = "unexpected end of JSON path";
    let step = |schema: &'a Value, name: &str| {
        let next = match schema.map_at(&["properties"]) {
            Some(properties) => properties.get(name),
            None => schema.at(&["additionalProperties"]).filter(|values| values.is_object()),
        };
        next.ok_or_else(|| NOWHERE.to_owned())
    };
    let mut at = schema;
    let mut rest = path;
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('.') {
            if after.is_empty() {
                return Err(SHORT.to_owned());
            }
            let end = after.find(['.', '[', ']']).unwrap_or(after.len()).max(1);
            at = step(at, &after[..end])?;
            rest = &after[end..];
        } else if let Some(after) = rest.strip_prefix('[') {
            if !brackets {
                return Err("array notation is not allowed".to_owned());
            }
            let Some((name, after)) = after.strip_prefix('\'').and_then(|quoted| quoted.split_once("']")) else {
                return Err(if after.is_empty() {
                    SHORT.to_owned()
                } else {
                    format!("expected single quoted string but got {after}")
                });
            };
            at = step(at, &name.replace("\\'", "'"))?;
            rest = after;
        } else {
            let end = rest.find(['.', '[', ']']).unwrap_or(rest.len()).max(1);
            return Err(format!("expected [ or . but got: {}", rest.get(..end).unwrap_or(rest)));
        }
    }
    Ok(at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn run(property: Value) -> Vec<String> {
        let mut errors = Errors::default();
        let schema = json!({"type": "object", "properties": {"a": property}});
        check(&schema, true, &Path::new("s"), &mut errors);
        errors.0.iter().map(|error| error.to_string().replace("s.openAPIV3Schema.properties", "")).collect()
    }

    #[test]
    fn a_schema_is_structural() {
        assert_eq!(run(json!({"type": "string"})), Vec::<String>::new());
        assert_eq!(run(json!({})), ["[a].type: Required value: must not be empty for specified object fields"]);
        assert_eq!(
            run(json!({"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]})).len(),
            0
        );
        assert_eq!(
            run(json!({"type": "string", "anyOf": [{"type": "integer"}], "pattern": "["})),
            [
                "[a].anyOf[0].type: Forbidden: must be empty to be structural",
                "[a].pattern: Invalid value: \"[\": must be a valid regular expression, but isn't: error parsing regexp: missing closing ]: `[`",
            ]
        );
        assert_eq!(
            {
                let mut errors = Errors::default();
                let nested = json!([{"properties": {"x": {"minimum": 1}}}]);
                check(&json!({"type": "object", "allOf": nested}), false, &Path::new("s"), &mut errors);
                errors.0[0].to_string()
            },
            "s.openAPIV3Schema.properties[x]: Required value: because it is defined in \
             s.openAPIV3Schema.allOf[0].properties[x]"
        );
    }

    #[test]
    fn rules_compile_where_they_can_be_followed() {
        let rule = |rule: &str| json!([{"rule": rule}]);
        assert_eq!(run(json!({"type": "string", "x-kubernetes-validations": rule("self == oldSelf")})).len(), 0);
        let item = json!({"type": "string", "x-kubernetes-validations": rule("self == oldSelf")});
        let errors = run(json!({"type": "array", "items": item}));
        assert!(errors[0].ends_with("uncorrelatable portion of the schema within [a]"), "{errors:?}");
        let errors = run(json!({"type": "string", "x-kubernetes-validations": rule("nope == 1")}));
        assert!(errors[0].contains(r#"{"Rule":"nope == 1","Message":"","#));
    }

    #[test]
    fn paths_lead_to_fields() {
        let schema = json!({"properties": {"spec": {"properties": {"a b": {"type": "string"}}}}});
        assert!(find(&schema, ".spec['a b']", true).is_ok());
        assert_eq!(find(&schema, ".spec['a b']", false), Err("array notation is not allowed".to_owned()));
        assert_eq!(find(&schema, ".spec.x", true), Err("does not refer to a valid field".to_owned()));
        assert_eq!(find(&schema, "spec", true), Err("expected [ or . but got: spec".to_owned()));
    }
}

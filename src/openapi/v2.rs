//! OpenAPI version 2, made out of the documents of version 3.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::proto;

/// Gathers paths and definitions as text: as values, all of them together would take much more memory.
#[derive(Default)]
pub(super) struct Collector {
    paths: BTreeMap<String, String>,
    definitions: BTreeMap<String, String>,
}

impl Collector {
    pub(super) fn add(&mut self, mut document: Value) {
        for (path, item) in take_map(document.get_mut("paths")) {
            self.paths.insert(path, path_item(item).to_string());
        }
        for (name, schema) in take_map(document.pointer_mut("/components/schemas")) {
            let definition = || definition(schema.clone()).to_string();
            // The kinds that every group has tell of more groups in each document.
            let known = self.definitions.entry(name).or_insert_with(definition);
            if schema["x-kubernetes-group-version-kind"].as_array().is_some_and(|kinds| kinds.len() > 1) {
                *known = merge_kinds(known, &schema);
            }
        }
    }

    pub(super) fn protobuf(self) -> Vec<u8> {
        proto::document(&head(), &self.paths, &self.definitions)
    }

    pub(super) fn json(self) -> Vec<u8> {
        let mut out = head().to_string().into_bytes();
        out.pop();
        for (name, members) in [("paths", self.paths), ("definitions", self.definitions)] {
            out.extend_from_slice(format!(",\"{name}\":{{").as_bytes());
            for (index, (name, value)) in members.into_iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                out.extend_from_slice(Value::String(name).to_string().as_bytes());
                out.push(b':');
                out.extend_from_slice(value.as_bytes());
            }
            out.push(b'}');
        }
        out.push(b'}');
        out
    }
}

fn head() -> Value {
    json!({
        "info": {"title": "Kubernetes", "version": "1.36"},
        "security": [{"BearerToken": []}],
        "securityDefinitions": {"BearerToken": {
            "description": "Bearer Token authentication",
            "in": "header",
            "name": "authorization",
            "type": "apiKey",
        }},
        "swagger": "2.0",
    })
}

fn take_map(value: Option<&mut Value>) -> Map<String, Value> {
    match value.map(Value::take) {
        Some(Value::Object(map)) => map,
        _ => Map::new(),
    }
}

fn merge_kinds(known: &str, schema: &Value) -> String {
    const KINDS: &str = "x-kubernetes-group-version-kind";
    let mut merged: Value = serde_json::from_str(known).unwrap_or_default();
    if let (Some(all), Some(more)) = (merged.get_mut(KINDS).and_then(Value::as_array_mut), schema[KINDS].as_array()) {
        for kind in more {
            if !all.contains(kind) {
                all.push(kind.clone());
            }
        }
    }
    merged.to_string()
}

/// A schema: no defaults, no wrapped references, and one type where version 3 knows several.
fn definition(schema: Value) -> Value {
    match schema {
        Value::Object(mut map) => {
            if let Some(properties) = map.get_mut("properties") {
                let converted = take_map(Some(properties)).into_iter().map(|(name, value)| (name, definition(value)));
                *properties = Value::Object(converted.collect());
            }
            for inner in ["items", "additionalProperties"] {
                if let Some(value) = map.get_mut(inner) {
                    *value = definition(value.take());
                }
            }
            map.remove("default");
            if map.remove("oneOf").is_some() {
                map.insert("type".to_owned(), "string".into());
            }
            if let Some(Value::Array(wrapped)) = map.remove("allOf") {
                for inner in wrapped {
                    map.extend(take_map(Some(&mut definition(inner))));
                }
            }
            if let Some(Value::String(reference)) = map.get_mut("$ref") {
                *reference = reference.replace("#/components/schemas/", "#/definitions/");
            }
            Value::Object(map)
        }
        other => other,
    }
}

fn path_item(mut item: Value) -> Value {
    for (method, value) in item.as_object_mut().into_iter().flatten() {
        *value = match &**method {
            "parameters" => parameters(value.take()).into(),
            _ => operation(value.take()),
        };
    }
    item
}

fn operation(mut operation: Value) -> Value {
    let mut produces: Vec<String> = Vec::new();
    for response in operation["responses"].as_object_mut().into_iter().flat_map(|map| map.values_mut()) {
        let content = take_map(response.get_mut("content"));
        if let Some(fields) = response.as_object_mut() {
            fields.remove("content");
        }
        for (media, schema) in content {
            response["schema"] = definition(schema["schema"].clone());
            if !produces.contains(&media) {
                produces.push(media);
            }
        }
    }
    let mut all = parameters(operation["parameters"].take());
    let discovery = operation.get("x-kubernetes-action").is_none();
    let mut consumes = if discovery { produces.clone() } else { vec!["*/*".to_owned()] };
    if let Some(fields) = operation.as_object_mut() {
        if let Some(mut body) = fields.remove("requestBody") {
            let required = body["required"].as_bool().unwrap_or(false);
            let content = take_map(body.get_mut("content"));
            let schema = content.values().next().map(|content| definition(content["schema"].clone()));
            let mut parameter = json!({"name": "body", "in": "body", "schema": schema});
            if required {
                parameter["required"] = true.into();
            }
            all.insert(0, parameter);
            consumes = content.into_iter().map(|(media, _)| media).collect();
        }
        fields.remove("parameters");
        fields.insert("consumes".to_owned(), consumes.into());
        fields.insert("produces".to_owned(), produces.into());
        fields.insert("schemes".to_owned(), json!(["https"]));
        if !all.is_empty() {
            fields.insert("parameters".to_owned(), all.into());
        }
    }
    operation
}

fn parameters(parameters: Value) -> Vec<Value> {
    let Value::Array(mut list) = parameters else { return Vec::new() };
    for parameter in &mut list {
        let schema = take_map(parameter.get_mut("schema"));
        if let Some(fields) = parameter.as_object_mut() {
            fields.remove("schema");
            fields.extend(schema);
        }
    }
    list
}

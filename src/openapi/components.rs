//! `components.schemas`: the schema table as OpenAPI has it.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Map, Value, json};

use super::descriptions::Descriptions;
use crate::schema::{Field, ListType, Node, Schema, Struct, Type};

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
const APIEXTENSIONS: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1";
const REFERENCE: &str = "#/components/schemas/";

/// The kinds that each type has: `DeleteOptions` has one in every group.
pub(super) type Kinds = HashMap<String, Vec<(String, String, String)>>;

pub(super) fn kinds(schema: &Schema) -> Kinds {
    let mut kinds = Kinds::new();
    for (group, version, kind) in schema.kinds() {
        let node = schema.kind(if group == "core" { "" } else { group }, version, kind);
        if let Some(entry) = node.and_then(|node| node.as_struct()) {
            let found = (group.to_owned(), version.to_owned(), kind.to_owned());
            kinds.entry(struct_name(entry)).or_default().push(found);
        }
    }
    kinds
}

/// Collects the schemas that one document refers to.
pub(super) struct Components<'a> {
    schema: &'a Schema,
    descriptions: &'a Descriptions,
    kinds: &'a Kinds,
    group: &'a str,
    version: &'a str,
    done: BTreeMap<String, Value>,
    open: Vec<(String, Node<'a>)>,
}

impl<'a> Components<'a> {
    pub(super) fn new(
        schema: &'a Schema,
        descriptions: &'a Descriptions,
        kinds: &'a Kinds,
        group: &'a str,
        version: &'a str,
    ) -> Self {
        Components { schema, descriptions, kinds, group, version, done: BTreeMap::new(), open: Vec::new() }
    }

    /// A reference to a kind, whose schema will be among the components.
    pub(super) fn kind(&mut self, group: &str, version: &str, kind: &str) -> Value {
        match self.schema.kind(group, version, kind) {
            Some(node) => Value::Object(self.expression(node)),
            None => json!({"type": "object"}),
        }
    }

    pub(super) fn meta(&mut self, kind: &str) -> Value {
        self.kind("", "v1", kind)
    }

    /// Types that only OpenAPI has: the body of a PATCH, the version's.
    pub(super) fn named(&mut self, name: &str) -> Value {
        if let Some(schema) = self.descriptions.schema(name) {
            self.done.entry(name.to_owned()).or_insert_with(|| schema.clone());
        }
        reference(name)
    }

    pub(super) fn patch(&mut self) -> Value {
        self.named(&format!("{META}.Patch"))
    }

    pub(super) fn finish(mut self) -> BTreeMap<String, Value> {
        while let Some((name, node)) = self.open.pop() {
            let schema = self.component(&name, node);
            self.done.insert(name, schema);
        }
        self.done
    }

    fn component(&mut self, name: &str, node: Node<'a>) -> Value {
        let mut out = Map::new();
        if let Some(text) = self.descriptions.of_type(name).map(str::to_owned).or_else(|| described_list(node)) {
            out.insert("description".to_owned(), text.into());
        }
        match node.ty() {
            Type::Struct(_) => {
                out.insert("type".to_owned(), "object".into());
                if let Some(entry) = node.as_struct() {
                    self.members(name, node, entry, &mut out);
                }
            }
            Type::Time | Type::MicroTime => {
                out.insert("type".to_owned(), "string".into());
                out.insert("format".to_owned(), "date-time".into());
            }
            Type::Duration => {
                out.insert("type".to_owned(), "string".into());
            }
            Type::FieldsV1 | Type::RawExtension => {
                out.insert("type".to_owned(), "object".into());
            }
            Type::Quantity => {
                out.insert("oneOf".to_owned(), json!([{"type": "string"}, {"type": "number"}]));
            }
            Type::IntOrString => {
                out.insert("format".to_owned(), "int-or-string".into());
                out.insert("oneOf".to_owned(), json!([{"type": "integer"}, {"type": "string"}]));
            }
            // JSON of any form: whatever could be said here, some value breaks it.
            _ => {}
        }
        Value::Object(out)
    }

    fn members(&mut self, name: &str, node: Node<'a>, entry: &'a Struct, out: &mut Map<String, Value>) {
        let properties: Map<String, Value> = entry
            .fields()
            .iter()
            .map(|field| (field.name.to_string(), self.property(name, node.of_field(field), field)))
            .collect();
        let required: Vec<&str> = entry.fields().iter().filter(|f| f.required).map(|f| &*f.name).collect();
        if !required.is_empty() {
            out.insert("required".to_owned(), required.into());
        }
        if !properties.is_empty() {
            out.insert("properties".to_owned(), properties.into());
        }
        if entry.atomic {
            out.insert("x-kubernetes-map-type".to_owned(), "atomic".into());
        }
        let kinds: Vec<Value> = self.kinds.get(name).into_iter().flatten().flat_map(|kind| self.told(kind)).collect();
        if !kinds.is_empty() {
            out.insert("x-kubernetes-group-version-kind".to_owned(), kinds.into());
        }
    }

    /// Of a kind that every group has, the core group's is told and this document's group's.
    fn told(&self, (group, version, kind): &(String, String, String)) -> Vec<Value> {
        let entry = |group: &str, version: &str| json!({"group": group, "version": version, "kind": kind});
        match &**group {
            "*" if matches!(&**kind, "DeleteOptions" | "WatchEvent") && !self.group.is_empty() => {
                vec![entry("", version), entry(self.group, self.version)]
            }
            "*" | "core" => vec![entry("", version)],
            _ => vec![entry(group, version)],
        }
    }

    fn property(&mut self, owner: &str, node: Node<'a>, field: &'a Field) -> Value {
        let mut base = self.expression(node);
        if !field.values.is_empty() {
            let at = match node.ty() {
                Type::List(_) => base.get_mut("items").and_then(Value::as_object_mut),
                Type::Map(_) => base.get_mut("additionalProperties").and_then(Value::as_object_mut),
                _ => Some(&mut base),
            };
            if let Some(at) = at {
                at.insert("enum".to_owned(), field.values.iter().map(|value| &**value).collect());
            }
        }
        let mut said = Map::new();
        if let Some(text) = self.describe_field(owner, field) {
            said.insert("description".to_owned(), text.into());
        }
        if let Some(default) = default(node, field) {
            said.insert("default".to_owned(), default);
        }
        if let Type::List(_) = node.ty() {
            let (kind, keys) = match node.list_type() {
                ListType::Atomic => ("atomic", None),
                ListType::Set => ("set", None),
                ListType::Map => ("map", Some(node.keys().map(|(key, _)| key).collect::<Vec<_>>())),
            };
            said.insert("x-kubernetes-list-type".to_owned(), kind.into());
            if let Some(keys) = keys {
                said.insert("x-kubernetes-list-map-keys".to_owned(), keys.into());
            }
        }
        if node.atomic() && !node.as_struct().is_some_and(|entry| entry.atomic) {
            said.insert("x-kubernetes-map-type".to_owned(), "atomic".into());
        }
        let strategy = field.patch;
        let names = [(strategy.merge, "merge"), (strategy.replace, "replace"), (strategy.retain_keys, "retainKeys")];
        let names: Vec<&str> = names.iter().filter(|(set, _)| *set).map(|(_, name)| *name).collect();
        if !names.is_empty() {
            said.insert("x-kubernetes-patch-strategy".to_owned(), names.join(",").into());
        }
        if let Some(key) = &field.merge_key {
            said.insert("x-kubernetes-patch-merge-key".to_owned(), key.as_ref().into());
        }
        // A reference stands alone or is wrapped, since what is beside it would be ignored.
        if base.contains_key("$ref") && !said.is_empty() {
            said.insert("allOf".to_owned(), json!([base]));
        } else {
            said.extend(base);
        }
        Value::Object(said)
    }

    fn describe_field(&self, owner: &str, field: &Field) -> Option<String> {
        if let Some(text) = self.descriptions.of_field(owner, &field.name) {
            return Some(text.to_owned());
        }
        // Lists are one generic type in the crate.
        match &*field.name {
            "apiVersion" | "kind" => self.descriptions.of_field("io.k8s.api.core.v1.Pod", &field.name).map(str::to_owned),
            "metadata" if owner.ends_with("List") => Some(
                "Standard list metadata. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds".to_owned(),
            ),
            "items" if owner.ends_with("List") => Some("The objects of the list.".to_owned()),
            _ => None,
        }
    }

    /// What a type is, with the components that it refers to.
    fn expression(&mut self, node: Node<'a>) -> Map<String, Value> {
        let plain = |value: Value| match value {
            Value::Object(map) => map,
            _ => Map::new(),
        };
        match node.ty() {
            Type::List(item) => {
                let items = self.expression(node.at(item));
                plain(json!({"type": "array", "items": items}))
            }
            Type::Map(value) => {
                let values = self.expression(node.at(value));
                plain(json!({"type": "object", "additionalProperties": values}))
            }
            Type::String => plain(json!({"type": "string"})),
            Type::Bytes => plain(json!({"type": "string", "format": "byte"})),
            Type::Int32 => plain(json!({"type": "integer", "format": "int32"})),
            Type::Int64 => plain(json!({"type": "integer", "format": "int64"})),
            Type::Bool => plain(json!({"type": "boolean"})),
            Type::Float => plain(json!({"type": "number", "format": "double"})),
            _ => {
                let name = type_name(node);
                if !self.done.contains_key(&name) {
                    // Holds the place, so that a type that contains itself ends.
                    self.done.insert(name.clone(), Value::Null);
                    self.open.push((name.clone(), node));
                }
                plain(reference(&name))
            }
        }
    }
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("{REFERENCE}{name}")})
}

fn struct_name(entry: &Struct) -> String {
    let package = match &*entry.package {
        "meta/v1" => META.to_owned(),
        "apiextensions/v1" => APIEXTENSIONS.to_owned(),
        "apiregistration/v1" => "io.k8s.kube-aggregator.pkg.apis.apiregistration.v1".to_owned(),
        package => format!("io.k8s.api.{}", package.replace('/', ".")),
    };
    format!("{package}.{}", entry.name)
}

fn type_name(node: Node<'_>) -> String {
    let (package, name) = match node.ty() {
        Type::Quantity => ("io.k8s.apimachinery.pkg.api.resource", "Quantity"),
        Type::IntOrString => ("io.k8s.apimachinery.pkg.util.intstr", "IntOrString"),
        Type::RawExtension => ("io.k8s.apimachinery.pkg.runtime", "RawExtension"),
        Type::Time => (META, "Time"),
        Type::MicroTime => (META, "MicroTime"),
        Type::Duration => (META, "Duration"),
        Type::FieldsV1 => (META, "FieldsV1"),
        Type::SchemaOrBool(_) => (APIEXTENSIONS, "JSONSchemaPropsOrBool"),
        Type::SchemaOrArray(_) => (APIEXTENSIONS, "JSONSchemaPropsOrArray"),
        Type::SchemaOrStrings(_) => (APIEXTENSIONS, "JSONSchemaPropsOrStringArray"),
        _ => match node.as_struct() {
            Some(entry) => return struct_name(entry),
            None => (APIEXTENSIONS, "JSON"),
        },
    };
    format!("{package}.{name}")
}

/// The default: the field's own, else Go's zero value of a field that is always there.
fn default(node: Node<'_>, field: &Field) -> Option<Value> {
    if let Some(default) = &field.default {
        return Some(default.clone());
    }
    if field.pointer {
        return None;
    }
    match node.ty() {
        Type::Struct(_) => Some(json!({})),
        _ if field.omit_empty => None,
        Type::String => Some("".into()),
        Type::Int32 | Type::Int64 | Type::Float => Some(0.into()),
        Type::Bool => Some(false.into()),
        _ => None,
    }
}

fn described_list(node: Node<'_>) -> Option<String> {
    let item = node.field("items")?.item()?.as_struct()?;
    Some(format!("{} is a list of {} objects.", node.as_struct()?.name, item.name))
}

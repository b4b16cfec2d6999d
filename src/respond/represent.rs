//! The representation of objects: version, shape (whole, partial metadata, table) and encoding.

use std::sync::Arc;

use bytes::Bytes;
use kontiki_storage::Record;
use serde_json::{Map, Value, json};

use super::{content_type, pretty};
use crate::codec::{self, Media};
use crate::discovery::{Name, Resource};
use crate::facts;
use crate::kinds;
use crate::object::Fields;
use crate::request::{Accept, Shape};
use crate::schema::builtin;
use crate::status::{ApiError, Result};
use crate::table;
use crate::verbs::watch::Notice;
use crate::verbs::{Object, Request, list};

/// `includeObject` of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Include {
    None,
    Metadata,
    Object,
}

pub struct Representation {
    resource: Arc<Resource>,
    accept: Accept,
    table: Name,
    include: Include,
    pretty: bool,
    /// Whether stored bytes are what is asked for.
    stored: bool,
}

/// An object in a representation: bytes in the media type, of `kind` and `apiVersion` as they say.
pub(super) fn plain(media: Media, value: &Value, pretty: bool) -> (&'static str, Bytes) {
    let bytes = match media {
        Media::Json if pretty => codec::to_pretty(value),
        Media::Json => {
            let mut bytes = serde_json::to_vec(value).unwrap_or_default();
            bytes.push(b'\n');
            bytes
        }
        Media::Yaml => codec::to_yaml(value),
        Media::Protobuf => {
            let (group, version) = group_version(value.text_at(&["apiVersion"]));
            let kind = value.text_at(&["kind"]);
            // Of what has no schema (nothing that is served) only JSON can tell.
            match builtin().kind(group, version, kind).or_else(|| builtin().kind("*", "v1", kind)) {
                Some(node) => codec::protobuf::to_body(node, value),
                None => return plain(Media::Json, value, pretty),
            }
        }
    };
    (content_type(media), bytes.into())
}

fn group_version(api_version: &str) -> (&str, &str) {
    api_version.split_once('/').unwrap_or(("", api_version))
}

impl Representation {
    pub fn new(request: &Request) -> Result<Representation> {
        let include = match (request.accept.shape, request.query.text("includeObject")) {
            (Shape::Table, "None") => Include::None,
            (Shape::Table, "" | "Metadata") => Include::Metadata,
            (Shape::Table, "Object") => Include::Object,
            (Shape::Table, other) => {
                let why = format!(
                    "Unable to convert to Table as requested: includeObject: Invalid value: {}: must be 'Metadata', \
                     'Object', 'None', or empty",
                    crate::field::go_quote(other)
                );
                return Err(ApiError::bad_request(why));
            }
            _ => Include::Metadata,
        };
        let pretty = pretty(request.accept, &request.query, &request.headers);
        let stored = request.accept.media == Media::Json
            && request.accept.shape == Shape::Object
            && !pretty
            && request.resource.is_stored_version();
        let table = table::name(&request.resource, &request.info.subresource);
        let resource = request.resource.clone();
        Ok(Representation { resource, accept: request.accept, table, include, pretty, stored })
    }

    pub(super) fn is_stored(&self) -> bool {
        self.stored
    }

    pub(super) fn content_type(&self) -> &'static str {
        content_type(self.accept.media)
    }

    pub(super) fn watch_content_type(&self) -> Result<&'static str> {
        match self.accept.media {
            Media::Json => Ok("application/json"),
            Media::Protobuf => Ok("application/vnd.kubernetes.protobuf;stream=watch"),
            Media::Yaml => Err(ApiError::new(
                406,
                "NotAcceptable",
                "only the following media types are accepted: application/json;stream=watch, \
                 application/vnd.kubernetes.protobuf;stream=watch",
            )),
        }
    }

    /// Stored bytes, decoded and in the version that was asked for.
    fn decode(&self, bytes: &[u8]) -> Result<Value> {
        let mut value: Value =
            serde_json::from_slice(bytes).map_err(|e| ApiError::internal(format!("a stored object: {e}")))?;
        if !self.resource.is_stored_version() {
            let stored = self.resource.stored.as_ref();
            let kind = stored.and_then(|_| kinds::find(&self.resource.group, &self.resource.kind));
            if let Some(kind) = kind {
                kind.from_storage(&mut value, &self.resource.version);
            }
        }
        Ok(value)
    }

    pub(super) fn object(&self, object: Object) -> Result<Bytes> {
        let value = match object {
            Object::Stored(bytes) if self.stored => {
                let mut line = Vec::with_capacity(bytes.len() + 1);
                line.extend_from_slice(&bytes);
                line.push(b'\n');
                return Ok(line.into());
            }
            Object::Stored(bytes) => self.decode(&bytes)?,
            Object::Made(value) => value,
        };
        let value = match self.accept.shape {
            _ if value.text_at(&["kind"]) == "Status" && value.text_at(&["apiVersion"]) == "v1" => value,
            Shape::Object => value,
            Shape::Partial => self.partial(value),
            Shape::PartialList => return Err(self.not_a("PartialObjectMetadataList", "not a list", "")),
            Shape::Table => {
                let version = value.at(&["metadata", "resourceVersion"]).cloned();
                let metadata = version.map_or_else(|| json!({}), |version| json!({ "resourceVersion": version }));
                let row = self.row(value);
                self.table(metadata, vec![row], true)
            }
        };
        Ok(plain(self.accept.media, &value, self.pretty).1)
    }

    fn not_a(&self, asked: &str, what: &str, suffix: &str) -> ApiError {
        let package = match &*self.resource.group {
            "" => "core",
            group => group.split('.').next().unwrap_or(group),
        };
        let kind = &self.resource.kind;
        let why = format!("you requested {asked}, but the requested object is {what} (*{package}.{kind}{suffix})");
        ApiError::new(406, "NotAcceptable", why)
    }

    /// `{"kind":"PodList",…,"items":[`
    pub(super) fn list_head(&self, list: &list::List) -> Vec<u8> {
        let mut head = Map::new();
        head.insert("kind".into(), (*self.resource.list_kind).into());
        head.insert("apiVersion".into(), self.resource.api_version().into());
        let mut text = String::from("{");
        for (name, value) in [("kind", &*self.resource.list_kind), ("apiVersion", self.resource.api_version().as_str())]
        {
            text.push_str(&format!("\"{name}\":\"{value}\","));
        }
        text.push_str(&format!("\"metadata\":{},\"items\":[", list_meta(list)));
        text.into_bytes()
    }

    /// How many bytes of a stored object come before its metadata.
    pub(super) fn item_prefix(&self) -> usize {
        let version = self.resource.api_version();
        "{\"kind\":\"\",\"apiVersion\":\"\",".len() + self.resource.kind.len() + version.len()
    }

    /// A list in anything but JSON of the stored version.
    pub(super) fn list(&self, list: list::List) -> Result<Bytes> {
        let metadata = list_meta(&list);
        let decode = |record: &Arc<Record>| self.decode(&record.value);
        let value = match self.accept.shape {
            Shape::Partial => return Err(self.not_a("PartialObjectMetadata", "a list", "List")),
            Shape::Object => {
                let mut items = Vec::with_capacity(list.records.len());
                for record in &list.records {
                    let mut item = decode(record)?;
                    item.take_at(&["kind"]);
                    item.take_at(&["apiVersion"]);
                    items.push(item);
                }
                json!({
                    "kind": self.resource.list_kind,
                    "apiVersion": self.resource.api_version(),
                    "metadata": metadata,
                    "items": items,
                })
            }
            Shape::PartialList => {
                let mut items = Vec::with_capacity(list.records.len());
                for record in &list.records {
                    items.push(self.partial(decode(record)?));
                }
                json!({
                    "kind": "PartialObjectMetadataList",
                    "apiVersion": self.meta_version(),
                    "metadata": metadata,
                    // Go's nil slice.
                    "items": if items.is_empty() { Value::Null } else { items.into() },
                })
            }
            Shape::Table => {
                let mut objects = list.records.iter().map(decode).collect::<Result<Vec<_>>>()?;
                table::arrange(&self.table, &mut objects);
                let rows = objects.into_iter().map(|object| self.row(object)).collect();
                self.table(metadata, rows, true)
            }
        };
        Ok(plain(self.accept.media, &value, self.pretty).1)
    }

    fn meta_version(&self) -> String {
        format!("meta.k8s.io/{}", self.accept.meta_version)
    }

    /// Only the metadata, of the stored version.
    fn partial(&self, mut object: Value) -> Value {
        let kind = kinds::find(&self.resource.group, &self.resource.kind);
        if let Some(kind) = kind.filter(|_| !self.resource.is_stored_version()) {
            kind.to_storage(&mut object);
        }
        let mut metadata = object.take_at(&["metadata"]).unwrap_or_else(|| json!({}));
        for annotation in kind.map_or(&[][..], |kind| kind.field_annotations()) {
            metadata.take_at(&["annotations", annotation]);
            if metadata.map_at(&["annotations"]).is_some_and(Map::is_empty) {
                metadata.take_at(&["annotations"]);
            }
        }
        json!({ "kind": "PartialObjectMetadata", "apiVersion": self.meta_version(), "metadata": metadata })
    }

    fn row(&self, object: Value) -> Value {
        let mut row = json!({ "cells": self.cells(&object) });
        if let Some(conditions) = table::conditions(&self.table, &object) {
            row["conditions"] = conditions;
        }
        row["object"] = match self.include {
            Include::None => Value::Null,
            Include::Metadata => self.partial(object),
            Include::Object => object,
        };
        row
    }

    fn cells(&self, object: &Value) -> table::Cells {
        match kinds::find(&self.resource.group, &self.resource.kind) {
            Some(kind) if !self.resource.is_stored_version() => {
                let mut stored = object.clone();
                kind.to_storage(&mut stored);
                table::cells(&self.table, &stored)
            }
            _ => table::cells(&self.table, object),
        }
    }

    fn table(&self, metadata: Value, rows: Vec<Value>, columns: bool) -> Value {
        json!({
            "kind": "Table",
            "apiVersion": self.meta_version(),
            "metadata": metadata,
            "columnDefinitions": if columns { table::columns(&self.table) } else { Value::Null },
            "rows": rows,
        })
    }

    pub(super) fn watch_encoder(self: Arc<Self>) -> WatchEncoder {
        WatchEncoder { representation: self, columns: true }
    }
}

fn list_meta(list: &list::List) -> Value {
    let mut metadata = Map::new();
    metadata.insert("resourceVersion".into(), list.revision.to_string().into());
    if let Some(token) = &list.continues {
        metadata.insert("continue".into(), token.as_str().into());
    }
    if let Some(remaining) = list.remaining {
        metadata.insert("remainingItemCount".into(), remaining.into());
    }
    Value::Object(metadata)
}

/// Makes the frames of one watch.
pub struct WatchEncoder {
    representation: Arc<Representation>,
    /// Whether the next table has to say what its columns are.
    columns: bool,
}

impl WatchEncoder {
    pub(super) fn encode(&mut self, notice: Notice) -> Bytes {
        let representation = self.representation.clone();
        match notice {
            Notice::Event(event, change) if representation.stored => facts::line(&event, change),
            Notice::Initial(record) if representation.stored => facts::json_line("ADDED", &record.value),
            Notice::Event(event, change) => self.object(change.name(), &facts::shown(&event, change)),
            Notice::Initial(record) => self.object("ADDED", &record.value),
            Notice::Bookmark { revision, initial_end } => {
                let mut metadata = json!({ "resourceVersion": revision.to_string() });
                if initial_end {
                    metadata["annotations"] = json!({ "k8s.io/initial-events-end": "true" });
                }
                let resource = &representation.resource;
                let mut object = json!({
                    "kind": resource.kind,
                    "apiVersion": resource.api_version(),
                    "metadata": metadata,
                });
                if let Some(node) = builtin().kind(&resource.group, &resource.version, &resource.kind) {
                    codec::canonicalize(node, &mut object);
                }
                self.shaped("BOOKMARK", object)
            }
            Notice::Error(error) => frame(representation.accept.media, "ERROR", &error.to_status()),
        }
    }

    fn object(&mut self, change: &str, stored: &[u8]) -> Bytes {
        match self.representation.decode(stored) {
            Ok(object) => self.shaped(change, object),
            Err(error) => frame(self.representation.accept.media, "ERROR", &error.to_status()),
        }
    }

    fn shaped(&mut self, change: &str, object: Value) -> Bytes {
        let representation = &self.representation;
        let value = match representation.accept.shape {
            Shape::Object => object,
            Shape::Partial | Shape::PartialList => representation.partial(object),
            Shape::Table => {
                let version = object.at(&["metadata", "resourceVersion"]).cloned().unwrap_or(Value::Null);
                let row = representation.row(object);
                let columns = std::mem::take(&mut self.columns);
                representation.table(json!({ "resourceVersion": version }), vec![row], columns)
            }
        };
        frame(representation.accept.media, change, &value)
    }
}

fn frame(media: Media, change: &str, object: &Value) -> Bytes {
    if media != Media::Protobuf {
        return facts::json_line(change, &serde_json::to_vec(object).unwrap_or_default());
    }
    // A length of four bytes, then `WatchEvent{type: 1, object: 2{raw: 1}}`, whose object is a message with its prefix.
    let (_, raw) = plain(Media::Protobuf, object, false);
    let mut extension = Vec::with_capacity(raw.len() + 8);
    codec::protobuf::write_bytes(&mut extension, 1, &raw);
    let mut event = Vec::with_capacity(extension.len() + 16);
    codec::protobuf::write_bytes(&mut event, 1, change.as_bytes());
    codec::protobuf::write_bytes(&mut event, 2, &extension);
    let length = u32::try_from(event.len()).unwrap_or(u32::MAX);
    [&length.to_be_bytes()[..], &event].concat().into()
}

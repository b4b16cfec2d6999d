//! What reads ask of a stored object besides its bytes, taken from them once and kept beside them.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::OnceLock;

use bytes::Bytes;
use kontiki_storage::{Event, Record};
use serde::Deserialize;
use serde_json::Value;

use crate::discovery::Resource;
use crate::kinds::{self, Selectable};
use crate::selector::{FieldSelector, LabelSelector};
use crate::status::{ApiError, Result};
use crate::verbs::place_of;

/// Key and value; a record's are sorted.
type Label = (Box<str>, Box<str>);

/// Kept in a [`Record`]'s slot.
#[derive(Default)]
struct Facts {
    labels: OnceLock<Box<[Label]>>,
    /// The values of the stored kind's selectable fields, in the order in which it lists them.
    fields: OnceLock<Box<[String]>>,
}

impl Facts {
    fn of(record: &Record) -> &Facts {
        record.derived(|_| Facts::default())
    }

    fn labels(record: &Record) -> &[Label] {
        Facts::of(record).labels.get_or_init(|| {
            #[derive(Deserialize)]
            struct Object<'a> {
                #[serde(borrow)]
                metadata: Metadata<'a>,
            }
            #[derive(Deserialize)]
            struct Metadata<'a> {
                #[serde(borrow, default)]
                labels: HashMap<Cow<'a, str>, Cow<'a, str>>,
            }
            let object: Option<Object<'_>> = serde_json::from_slice(&record.value).ok();
            let mut labels: Vec<Label> = object
                .into_iter()
                .flat_map(|object| object.metadata.labels)
                .map(|(key, value)| (Box::from(&*key), Box::from(&*value)))
                .collect();
            labels.sort();
            labels.into()
        })
    }
}

/// Which objects of a resource a list or watch is about.
pub struct Selection {
    /// Empty: all.
    pub namespace: String,
    /// The one object that can match.
    pub name: Option<String>,
    labels: LabelSelector,
    fields: Vec<Wanted>,
}

struct Wanted {
    field: Field,
    value: String,
    equal: bool,
}

enum Field {
    Name,
    Namespace,
    /// A place in the stored kind's list of selectable fields.
    Stored(usize, &'static [Selectable]),
    /// Of another face of the stored object.
    Other(fn(&Value) -> String),
}

impl Selection {
    /// `namespace` and `name` are those of the path, empty where it has none.
    pub fn new(
        resource: &Resource,
        namespace: &str,
        name: &str,
        labels: LabelSelector,
        parsed: FieldSelector,
    ) -> Result<Selection> {
        let selectable = |group: &str, kind: &str| kinds::find(group, kind).map_or(&[][..], |kind| kind.selectable());
        let shown = selectable(&resource.group, &resource.kind);
        let stored = resource.stored.as_ref().map_or(&[][..], |stored| selectable(&stored.group, &stored.kind));
        let mut wanted = Vec::with_capacity(parsed.0.len());
        let exact = parsed.exact("metadata.name").map(str::to_owned);
        for requirement in parsed.0 {
            let field = match requirement.field.as_str() {
                "metadata.name" => Field::Name,
                "metadata.namespace" => Field::Namespace,
                field => {
                    let get = shown.iter().find(|(name, _)| *name == field).map(|(_, get)| *get);
                    let get = get.ok_or_else(|| unsupported(resource, field, shown.is_empty()))?;
                    match stored.iter().position(|(name, _)| *name == field) {
                        Some(index) if std::ptr::eq(shown, stored) => Field::Stored(index, stored),
                        _ => Field::Other(get),
                    }
                }
            };
            wanted.push(Wanted { field, value: requirement.value, equal: requirement.equal });
        }
        if !name.is_empty() && !wanted.is_empty() && exact.as_deref() != Some(name) {
            return Err(ApiError::bad_request("fieldSelector metadata.name doesn't match requested name"));
        }
        let name = if name.is_empty() { exact } else { Some(name.to_owned()) };
        Ok(Selection { namespace: namespace.to_owned(), name, labels, fields: wanted })
    }

    /// Whether anything beside the place decides.
    pub fn selects(&self) -> bool {
        !self.labels.is_empty() || !self.fields.is_empty()
    }

    /// Whether `record` is selected; that it lies in the namespace is checked too.
    pub fn matches(&self, resource: &Resource, record: &Record) -> bool {
        let (namespace, name) = place_of(resource, &record.key);
        if !self.namespace.is_empty() && self.namespace != namespace {
            return false;
        }
        if self.name.as_deref().is_some_and(|wanted| wanted != name) {
            return false;
        }
        if !self.labels.is_empty() {
            let labels = Facts::labels(record);
            let label = |key: &str| {
                let index = labels.binary_search_by(|(k, _)| (**k).cmp(key)).ok()?;
                Some(&*labels[index].1)
            };
            if !self.labels.matches(label) {
                return false;
            }
        }
        self.fields.iter().all(|wanted| {
            let equal = match &wanted.field {
                Field::Name => wanted.value == name,
                Field::Namespace => wanted.value == namespace,
                Field::Stored(index, stored) => {
                    let values = Facts::of(record).fields.get_or_init(|| {
                        let object = serde_json::from_slice(&record.value).unwrap_or(Value::Null);
                        stored.iter().map(|(_, get)| get(&object)).collect()
                    });
                    values.get(*index).is_some_and(|value| *value == wanted.value)
                }
                Field::Other(get) => {
                    let object = serde_json::from_slice(&record.value).unwrap_or(Value::Null);
                    get(&object) == wanted.value
                }
            };
            equal == wanted.equal
        })
    }
}

/// Upstream's conversion functions of field labels differ in their words.
fn unsupported(resource: &Resource, field: &str, only_metadata: bool) -> ApiError {
    let kind = &resource.kind;
    ApiError::bad_request(match &*resource.group {
        _ if only_metadata => {
            format!("\"{field}\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\"")
        }
        "batch" => format!("field label \"{field}\" not supported for {kind}"),
        group @ "resource.k8s.io" => {
            format!("field label not supported for {group}/{}, Kind={kind}: {field}", resource.version)
        }
        _ => format!("field label not supported: {field}"),
    })
}

/// What an event does to the objects that a watcher sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    Added,
    Modified,
    Deleted,
}

impl Change {
    pub fn name(self) -> &'static str {
        match self {
            Change::Added => "ADDED",
            Change::Modified => "MODIFIED",
            Change::Deleted => "DELETED",
        }
    }

    /// None where neither what was nor what is belongs to the selection.
    pub fn of(event: &Event, resource: &Resource, selection: &Selection) -> Option<Change> {
        let selected = |record: &Record| selection.matches(resource, record);
        let before = event.previous.as_deref().is_some_and(selected);
        let after = event.record.as_deref().is_some_and(selected);
        match (before, after) {
            (false, true) => Some(Change::Added),
            (true, true) => Some(Change::Modified),
            (true, false) => Some(Change::Deleted),
            (false, false) => None,
        }
    }
}

/// The object that an event shows under `change`: what goes is shown as it was, at the revision at which it went.
pub fn shown(event: &Event, change: Change) -> Bytes {
    match (change, &event.record, &event.previous) {
        (Change::Deleted, _, Some(previous)) => previous.value_at(event.revision),
        (_, Some(record), _) => record.value.clone(),
        (_, None, Some(previous)) => previous.value_at(event.revision),
        (_, None, None) => Bytes::new(),
    }
}

/// Kept in an [`Event`]'s slot: the lines of a JSON watch, one for each [`Change`] that somebody saw in it.
#[derive(Default)]
struct Lines([OnceLock<Bytes>; 3]);

/// The event as a line of a watch that shows objects as they are stored.
pub fn line(event: &Event, change: Change) -> Bytes {
    let lines = event.derived(|_| Lines::default());
    lines.0[change as usize].get_or_init(|| json_line(change.name(), &shown(event, change))).clone()
}

pub fn json_line(change: &str, object: &[u8]) -> Bytes {
    let mut line = Vec::with_capacity(object.len() + 32);
    line.extend_from_slice(b"{\"type\":\"");
    line.extend_from_slice(change.as_bytes());
    line.extend_from_slice(b"\",\"object\":");
    line.extend_from_slice(object);
    line.extend_from_slice(b"}\n");
    line.into()
}

//! `metadata.managedFields`: who manages which fields. The entries stay JSON; most of them pass through a write untouched.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::set::{self, Set};
use crate::object::Fields;

/// Of one entry: a manager is known by these. What an applier applied in whatever version is one entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Id<'e> {
    pub manager: &'e str,
    pub operation: Operation,
    pub api_version: &'e str,
    pub subresource: &'e str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    Apply,
    Update,
}

impl Operation {
    fn name(self) -> &'static str {
        match self {
            Operation::Apply => "Apply",
            Operation::Update => "Update",
        }
    }
}

pub fn id(entry: &Value) -> Id<'_> {
    let apply = entry.text_at(&["operation"]) == Operation::Apply.name();
    Id {
        manager: entry.text_at(&["manager"]),
        operation: if apply { Operation::Apply } else { Operation::Update },
        api_version: if apply { "" } else { entry.text_at(&["apiVersion"]) },
        subresource: entry.text_at(&["subresource"]),
    }
}

/// The fields that an entry manages.
pub fn fields(entry: &Value) -> Option<&Set> {
    entry.get("fieldsV1").and_then(Value::as_object)
}

/// When its manager last changed something.
pub fn time(entry: &Value) -> Option<&str> {
    entry.at(&["time"])?.as_str()
}

pub fn fields_mut(entry: &mut Value) -> &mut Set {
    entry.make_map(&["fieldsV1"])
}

pub fn new(id: Id<'_>, api_version: &str, time: Option<&str>, fields: Set) -> Value {
    let mut entry = Map::new();
    let mut text = |name: &str, value: &str| {
        if !value.is_empty() {
            entry.insert(name.to_owned(), value.into());
        }
    };
    text("manager", id.manager);
    text("operation", id.operation.name());
    text("apiVersion", api_version);
    text("time", time.unwrap_or_default());
    text("fieldsType", "FieldsV1");
    text("subresource", id.subresource);
    entry.insert("fieldsV1".to_owned(), Value::Object(fields));
    Value::Object(entry)
}

/// The entries of an object, taken out of it.
pub fn take(object: &mut Value) -> Option<Value> {
    object.take_at(&["metadata", "managedFields"])
}

pub fn of(object: &Value) -> &[Value] {
    object.list_at(&["metadata", "managedFields"])
}

/// Puts them back, in their order.
pub fn put(object: &mut Value, mut entries: Vec<Value>) {
    if entries.is_empty() {
        return;
    }
    entries.sort_by(|a, b| {
        let key = |entry| {
            let Id { manager, operation, subresource, .. } = id(entry);
            (operation, entry.text_at(&["time"]), manager, entry.text_at(&["apiVersion"]), subresource)
        };
        key(a).cmp(&key(b))
    });
    object.make_map(&["metadata"]).insert("managedFields".to_owned(), Value::Array(entries));
}

/// An empty list, or a list of one empty entry: a client wants nothing to be managed.
pub fn is_reset(sent: &Value) -> bool {
    match sent.as_array().map(Vec::as_slice) {
        Some([]) => true,
        Some([entry]) => entry.as_object().is_some_and(Map::is_empty),
        _ => false,
    }
}

/// Reads entries that a client sent; none where one of them is wrong.
pub fn read(sent: &Value) -> Option<Vec<Value>> {
    let mut entries: Vec<Value> = Vec::new();
    for entry in sent.as_array()? {
        let text = |name: &str| entry.text_at(&[name]);
        let known = matches!(text("operation"), "Apply" | "Update");
        if !known || text("apiVersion").is_empty() || text("fieldsType") != "FieldsV1" {
            return None;
        }
        let read =
            new(id(entry), text("apiVersion"), time(entry), set::read(entry.get("fieldsV1").unwrap_or(&Value::Null))?);
        // The last of several that are one.
        match entries.iter_mut().find(|other| id(other) == id(&read)) {
            Some(other) => *other = read,
            None => entries.push(read),
        }
    }
    Some(entries)
}

/// At most so many entries are of updates.
const MAX_UPDATERS: usize = 10;
/// Whose the fields are that the oldest of more than that managed.
const ANCIENT: &str = "ancient-changes";

/// Merges the oldest entries of updates where there are too many: those of one version into one.
pub fn cap(entries: &mut Vec<Value>) {
    let updates = |entry: &&Value| id(entry).operation == Operation::Update;
    let mut count = entries.iter().filter(updates).count();
    if count <= MAX_UPDATERS {
        return;
    }
    // Upstream breaks ties by an entry's identity as JSON, which begins with the manager.
    entries.sort_by(|a, b| {
        let key = |entry| {
            let Id { manager, operation, api_version, subresource } = id(entry);
            (operation, entry.text_at(&["time"]), manager, api_version, subresource)
        };
        key(a).cmp(&key(b))
    });
    let mut kept: Vec<Value> = Vec::with_capacity(entries.len());
    // Where the merged entry of a version is, or the first that will be in it.
    let mut places: HashMap<String, usize> = HashMap::new();
    for mut entry in entries.drain(..) {
        if id(&entry).operation == Operation::Apply || count <= MAX_UPDATERS {
            kept.push(entry);
            continue;
        }
        let api_version = id(&entry).api_version.to_owned();
        let Some(&place) = places.get(&api_version) else {
            places.insert(api_version, kept.len());
            kept.push(entry);
            continue;
        };
        let bucket = Id { manager: ANCIENT, operation: Operation::Update, api_version: &api_version, subresource: "" };
        let time = time(&entry).map(str::to_owned);
        let mut fields = std::mem::take(fields_mut(&mut kept[place]));
        set::unite(&mut fields, std::mem::take(fields_mut(&mut entry)));
        kept[place] = new(bucket, &api_version, time.as_deref(), fields);
        count -= 1;
    }
    *entries = kept;
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn update(manager: &str, version: &str, time: &str, field: &str) -> Value {
        let id = Id { manager, operation: Operation::Update, api_version: version, subresource: "" };
        new(id, version, Some(time), set::read(&json!({"f:data": {field: {}}})).expect("a set"))
    }

    #[test]
    fn the_oldest_updates_become_one() {
        let time = |n: usize| format!("2020-01-01T00:00:{n:02}Z");
        let mut entries: Vec<Value> =
            (0..11).map(|n| update(&format!("m{n:02}"), "v1", &time(n), &format!("f:k{n}"))).collect();
        entries[0]["apiVersion"] = "old/v1".into();
        entries.reverse();
        cap(&mut entries);
        assert_eq!(entries.len(), 10);
        let ancient: Vec<&Value> = entries.iter().filter(|entry| entry["manager"] == "ancient-changes").collect();
        assert_eq!(ancient.len(), 1);
        assert_eq!(ancient[0]["fieldsV1"], json!({"f:data": {"f:k1": {}, "f:k2": {}}}));
        assert_eq!((&ancient[0]["time"], &ancient[0]["apiVersion"]), (&json!(time(2)), &json!("v1")));
    }

    #[test]
    fn wrong_entries_are_not_taken() {
        let good = json!({"manager": "m", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1"});
        assert!(read(&json!([good])).is_some_and(|entries| entries[0]["fieldsV1"] == json!({})));
        for (field, value) in
            [("operation", "Bad"), ("apiVersion", ""), ("fieldsType", "FieldsV9"), ("fieldsV1", "no map")]
        {
            let mut bad = good.clone();
            bad[field] = value.into();
            assert_eq!(read(&json!([bad])), None, "{field}");
        }
        assert!(is_reset(&json!([])) && is_reset(&json!([{}])) && !is_reset(&json!([good])));
    }
}

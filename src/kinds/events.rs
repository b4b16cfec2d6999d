//! Events, which two API groups serve: `v1` and `events.k8s.io/v1` are two faces of one stored object, of which the
//! first is the one that is stored.

use serde_json::{Value, json};

use super::go_shape::{self, Part, Shape};
use super::meta;
use super::names;
use super::{Kind, NameForm, Selectable};
use crate::field::{self, Errors, Path};
use crate::object::Fields;

pub static KINDS: &[&dyn Kind] = &[&Event { group: "", strict: false }, &Event { group: GROUP, strict: true }];

const GROUP: &str = "events.k8s.io";

/// Field names: in the newer face, in the stored one.
const RENAMED: &[(&str, &str)] = &[
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("reportingController", "reportingComponent"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
];

/// The newer face was made with rules; the old one keeps taking what it always took.
struct Event {
    group: &'static str,
    strict: bool,
}

const REFERENCE: Shape = &[
    ("Kind", "kind", Part::Text),
    ("Namespace", "namespace", Part::Text),
    ("Name", "name", Part::Text),
    ("UID", "uid", Part::Text),
    ("APIVersion", "apiVersion", Part::Text),
    ("ResourceVersion", "resourceVersion", Part::Text),
    ("FieldPath", "fieldPath", Part::Text),
];

const SOURCE: Shape = &[("Component", "component", Part::Text), ("Host", "host", Part::Text)];

fn rename(object: &mut Value, version: &str, pairs: impl Iterator<Item = (&'static str, &'static str)>) {
    let Some(map) = object.as_object_mut() else { return };
    for (from, to) in pairs {
        if let Some(value) = map.remove(from) {
            map.insert(to.to_owned(), value);
        }
    }
    map.insert("apiVersion".to_owned(), version.into());
}

/// The object as it is stored, whichever face it shows.
fn stored(object: &Value) -> std::borrow::Cow<'_, Value> {
    if !object.text_at(&["apiVersion"]).starts_with(GROUP) {
        return std::borrow::Cow::Borrowed(object);
    }
    let mut object = object.clone();
    rename(&mut object, "v1", RENAMED.iter().copied());
    std::borrow::Cow::Owned(object)
}

impl Kind for Event {
    fn group(&self) -> &'static str {
        self.group
    }

    fn kind(&self) -> &'static str {
        "Event"
    }

    fn has_status(&self) -> bool {
        false
    }

    fn create_on_update(&self) -> bool {
        true
    }

    fn to_storage(&self, object: &mut Value) {
        if object.text_at(&["apiVersion"]).starts_with(GROUP) {
            rename(object, "v1", RENAMED.iter().copied());
        }
    }

    fn from_storage(&self, object: &mut Value, _version: &str) {
        if self.strict && !object.text_at(&["apiVersion"]).starts_with(GROUP) {
            rename(object, "events.k8s.io/v1", RENAMED.iter().map(|(new, old)| (*old, *new)));
        }
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        let event = stored(object);
        check_common(&event, errors);
        if !self.strict {
            return;
        }
        check_series(&event, errors);
        if event.text_at(&["eventTime"]).is_empty() {
            errors.required(&Path::new("eventTime"), "");
        }
        let kind = event.text_at(&["type"]);
        if !matches!(kind, "Normal" | "Warning") {
            errors.invalid(&Path::new("type"), "", format!("has invalid value: {kind}"));
        }
        for field in ["firstTimestamp", "lastTimestamp", "count", "source"] {
            let unset = match event.at(&[field]) {
                None => true,
                Some(Value::Number(n)) => n.as_i64() == Some(0),
                Some(Value::Object(source)) => source.values().all(|v| v == ""),
                Some(_) => false,
            };
            if !unset {
                errors.invalid(&Path::new(field), "", "needs to be unset");
            }
        }
    }

    fn validate_update(&self, object: &Value, old: &Value, errors: &mut Errors) {
        let (event, old) = (stored(object), stored(old));
        check_common(&event, errors);
        if !self.strict {
            return;
        }
        if event.at(&["series"]) != old.at(&["series"]) {
            check_series(&event, errors);
        }
        let mut frozen = |field: &str, shown: Option<field::Raw>| {
            let (new, old) = (event.at(&[field]), old.at(&[field]));
            let same = new == old || is_zero(new) && is_zero(old);
            if !same {
                match shown {
                    Some(text) => errors.invalid(&Path::new(reported(field)), text, meta::FIELD_IMMUTABLE),
                    None => {
                        errors.invalid(&Path::new(reported(field)), new.unwrap_or(&json!("")), meta::FIELD_IMMUTABLE)
                    }
                }
            }
        };
        frozen("involvedObject", Some(go_shape::by_value(event.at(&["involvedObject"]), REFERENCE)));
        frozen("source", Some(go_shape::by_value(event.at(&["source"]), SOURCE)));
        frozen("related", Some(go_shape::pointer(event.at(&["related"]), REFERENCE)));
        for field in ["firstTimestamp", "lastTimestamp", "eventTime"] {
            frozen(field, event.at(&[field]).is_none().then(|| field::Raw("null".to_owned())));
        }
        frozen("count", event.at(&["count"]).is_none().then(|| field::Raw("0".to_owned())));
        // The reason is compared twice upstream, and so it is reported twice.
        for field in ["reason", "message", "reason", "type", "action", "reportingComponent", "reportingInstance"] {
            frozen(field, None);
        }
    }

    fn name_form(&self) -> NameForm {
        if self.strict { NameForm::Subdomain } else { NameForm::PathSegment }
    }

    fn meta_looks(&self) -> meta::MetaLooks {
        meta::MetaLooks { finalizers: self.strict, change: self.strict, whole: 0 }
    }

    fn selectable(&self) -> &'static [Selectable] {
        if self.strict { &NEWER_FIELDS } else { &CORE_FIELDS }
    }
}

/// Whether a field has the value that Go gives it when nobody sets it.
fn is_zero(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => true,
        Some(Value::String(text)) => text.is_empty(),
        Some(Value::Number(n)) => n.as_i64() == Some(0),
        Some(Value::Object(map)) => map.values().all(|v| is_zero(Some(v))),
        Some(_) => false,
    }
}

/// The name that upstream's internal type gives a field, where it is not the stored one.
fn reported(field: &str) -> &str {
    if field == "reportingComponent" { "reportingController" } else { field }
}

fn check_series(event: &Value, errors: &mut Errors) {
    if event.at(&["series"]).is_none() {
        return;
    }
    if event.int_at(&["series", "count"]).unwrap_or_default() < 2 {
        errors.invalid(&Path::new("series.count"), "", "should be at least 2");
    }
    if event.text_at(&["series", "lastObservedTime"]).is_empty() {
        errors.required(&Path::new("series.lastObservedTime"), "");
    }
}

fn check_common(event: &Value, errors: &mut Errors) {
    let namespace = event.text_at(&["metadata", "namespace"]);
    let involved = event.text_at(&["involvedObject", "namespace"]);
    let new_style = !event.text_at(&["eventTime"]).is_empty();
    let agrees = match (new_style, involved) {
        (false, "") => matches!(namespace, "" | "default"),
        (false, _) => involved == namespace,
        (true, "") => matches!(namespace, "default" | "kube-system"),
        (true, _) => true,
    };
    if !agrees {
        let path = Path::new("involvedObject");
        errors.invalid(&path.child("namespace"), involved, "does not match event.namespace");
    }
    if new_style {
        let controller = event.text_at(&["reportingComponent"]);
        let path = Path::new("reportingController");
        if controller.is_empty() {
            errors.required(&path, "");
        }
        names::invalid_each(errors, &path, controller, names::qualified_name(controller));
        for (field, required, limit) in
            [("reportingInstance", true, 128), ("action", true, 128), ("reason", true, 128), ("message", false, 1024)]
        {
            let text = event.text_at(&[field]);
            if required && text.is_empty() {
                errors.required(&Path::new(field), "");
            }
            if text.len() > limit {
                errors.invalid(&Path::new(field), "", format!("can have at most {limit} characters"));
            }
        }
    }
    names::invalid_each(errors, &Path::new("namespace"), namespace, names::dns_subdomain(namespace));
}

fn either(object: &Value, stored: &[&str], newer: &[&str]) -> String {
    let text = object.text_at(stored);
    if text.is_empty() { object.text_at(newer).to_owned() } else { text.to_owned() }
}

macro_rules! fields {
    ($involved:literal, $controller:literal $(, $more:expr)*) => {
        [
            (concat!($involved, ".kind"), |o| either(o, &["involvedObject", "kind"], &["regarding", "kind"])),
            (concat!($involved, ".namespace"), |o| either(o, &["involvedObject", "namespace"], &["regarding", "namespace"])),
            (concat!($involved, ".name"), |o| either(o, &["involvedObject", "name"], &["regarding", "name"])),
            (concat!($involved, ".uid"), |o| either(o, &["involvedObject", "uid"], &["regarding", "uid"])),
            (concat!($involved, ".apiVersion"), |o| either(o, &["involvedObject", "apiVersion"], &["regarding", "apiVersion"])),
            (concat!($involved, ".resourceVersion"), |o| {
                either(o, &["involvedObject", "resourceVersion"], &["regarding", "resourceVersion"])
            }),
            (concat!($involved, ".fieldPath"), |o| either(o, &["involvedObject", "fieldPath"], &["regarding", "fieldPath"])),
            ("reason", |o| o.text_at(&["reason"]).to_owned()),
            ($controller, |o| either(o, &["reportingComponent"], &["reportingController"])),
            ("type", |o| o.text_at(&["type"]).to_owned()),
            $($more),*
        ]
    };
}

static CORE_FIELDS: [Selectable; 11] = fields!(
    "involvedObject",
    "reportingComponent",
    ("source", |o| {
        let component = either(o, &["source", "component"], &["deprecatedSource", "component"]);
        if component.is_empty() { either(o, &["reportingComponent"], &["reportingController"]) } else { component }
    })
);
static NEWER_FIELDS: [Selectable; 10] = fields!("regarding", "reportingController");

#[cfg(test)]
mod tests {
    use super::*;

    fn newer() -> Value {
        json!({
            "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"namespace": "n"},
            "regarding": {"kind": "Pod", "name": "p", "namespace": "n"}, "note": "hi", "type": "Normal",
            "reason": "R", "action": "A", "eventTime": "2020-01-02T03:04:05.000006Z",
            "reportingController": "x.io/c", "reportingInstance": "i",
        })
    }

    #[test]
    fn both_faces_are_one_object() {
        let kind = KINDS[1];
        let mut event = newer();
        kind.to_storage(&mut event);
        assert_eq!(event["apiVersion"], "v1");
        assert_eq!(event["involvedObject"]["name"], "p");
        assert_eq!(event["message"], "hi");
        let value_of =
            |kind: &dyn Kind, name: &str| kind.selectable().iter().find(|(n, _)| *n == name).map(|(_, of)| of(&event));
        assert_eq!(value_of(KINDS[0], "source").as_deref(), Some("x.io/c"));
        assert_eq!(value_of(kind, "regarding.name").as_deref(), Some("p"));
        kind.from_storage(&mut event, "v1");
        assert_eq!(event, newer());
    }

    #[test]
    fn the_newer_face_is_strict() {
        let (old_face, new_face) = (KINDS[0], KINDS[1]);
        let mut event = newer();
        event["deprecatedCount"] = json!(2);
        event["type"] = json!("Odd");
        let run = |kind: &dyn Kind| {
            let mut errors = Errors::default();
            kind.validate(&event, &mut errors);
            errors.0.iter().map(|e| e.field.clone()).collect::<Vec<_>>()
        };
        assert_eq!(run(new_face), ["type", "count"]);
        assert!(run(old_face).is_empty());

        let mut errors = Errors::default();
        event["reason"] = json!("Other");
        new_face.validate_update(&event, &newer(), &mut errors);
        let fields: Vec<&str> = errors.0.iter().map(|e| e.field.as_str()).collect();
        assert_eq!(fields, ["count", "reason", "reason", "type"]);
    }
}

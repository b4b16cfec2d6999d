//! What kinds check alike: `metadata`, labels, selectors, finalizers, fields that must stay.

use serde_json::Value;

use super::names;
use super::{Kind, NameForm};
use crate::field::{Errors, Path, Raw, go_quote};
use crate::object::Fields;

pub const FIELD_IMMUTABLE: &str = "field is immutable";

/// Now, as the API writes times.
pub fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A field that keeps the value it was created with.
pub fn immutable(errors: &mut Errors, path: &Path<'_>, new: Option<&Value>, old: Option<&Value>) {
    if new == old {
        return;
    }
    match new {
        Some(value) => errors.invalid(path, value, FIELD_IMMUTABLE),
        None => errors.invalid(path, Raw("null".to_owned()), FIELD_IMMUTABLE),
    }
}

/// The same for a text that Go holds by value: absent is empty.
pub fn immutable_text(errors: &mut Errors, path: &Path<'_>, new: &str, old: &str) {
    if new != old {
        errors.invalid(path, new, FIELD_IMMUTABLE);
    }
}

pub fn labels(errors: &mut Errors, path: &Path<'_>, labels: &Value) {
    for (key, value) in labels.as_object().into_iter().flatten() {
        names::invalid_each(errors, path, key, names::qualified_name(key));
        let value = value.as_str().unwrap_or_default();
        names::invalid_each(errors, path, value, names::label_value(value));
    }
}

pub fn annotations(errors: &mut Errors, path: &Path<'_>, annotations: &Value) {
    let mut total = 0;
    for (key, value) in annotations.as_object().into_iter().flatten() {
        names::invalid_each(errors, path, key, names::qualified_name(&key.to_lowercase()));
        total += key.len() + value.as_str().map_or(0, str::len);
    }
    if total > MAX_ANNOTATIONS {
        errors.too_long(path, MAX_ANNOTATIONS);
    }
}

/// A `metav1.LabelSelector`.
pub fn label_selector(errors: &mut Errors, path: &Path<'_>, selector: &Value) {
    if let Some(wanted) = selector.at(&["matchLabels"]) {
        labels(errors, &path.child("matchLabels"), wanted);
    }
    let list = path.child("matchExpressions");
    for (i, requirement) in selector.list_at(&["matchExpressions"]).iter().enumerate() {
        let path = list.index(i);
        let values = requirement.list_at(&["values"]);
        let at = path.child("values");
        match requirement.text_at(&["operator"]) {
            "In" | "NotIn" if values.is_empty() => {
                errors.required(&at, "must be specified when `operator` is 'In' or 'NotIn'");
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                errors.forbidden(&at, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            operator => errors.invalid(&path.child("operator"), operator, "not a valid selector operator"),
        }
        let key = requirement.text_at(&["key"]);
        names::invalid_each(errors, &path.child("key"), key, names::qualified_name(key));
        for (j, value) in values.iter().enumerate() {
            let value = value.as_str().unwrap_or_default();
            names::invalid_each(errors, &at.index(j), value, names::label_value(value));
        }
    }
}

const MAX_REASON: usize = 1024;
const MAX_CONDITION_MESSAGE: usize = 32 * 1024;

/// A list of `metav1.Condition`.
pub fn conditions(errors: &mut Errors, list: &Path<'_>, conditions: &[Value]) {
    for (i, condition) in conditions.iter().enumerate() {
        let path = list.index(i);
        let kind = condition.text_at(&["type"]);
        if conditions[..i].iter().any(|other| other.text_at(&["type"]) == kind) {
            errors.duplicate(&path.child("type"), kind);
        }
        names::invalid_each(errors, &path.child("type"), kind, names::qualified_name(kind));
        let status = condition.text_at(&["status"]);
        if !CONDITION_STATUSES.contains(&status) {
            errors.not_supported(&path.child("status"), status, CONDITION_STATUSES);
        }
        if let Some(n) = condition.int_at(&["observedGeneration"]).filter(|n| *n < 0) {
            errors.invalid(&path.child("observedGeneration"), n, "must be greater than or equal to zero");
        }
        if condition.at(&["lastTransitionTime"]).is_none() {
            errors.required(&path.child("lastTransitionTime"), "must be set");
        }
        let reason = condition.text_at(&["reason"]);
        if reason.is_empty() {
            errors.required(&path.child("reason"), "must be set");
        } else {
            names::invalid_each(errors, &path.child("reason"), reason, names::condition_reason(reason));
            if reason.len() > MAX_REASON {
                errors.too_long(&path.child("reason"), MAX_REASON);
            }
        }
        if condition.text_at(&["message"]).len() > MAX_CONDITION_MESSAGE {
            errors.too_long(&path.child("message"), MAX_CONDITION_MESSAGE);
        }
    }
}

pub const CONDITION_STATUSES: &[&str] = &["False", "True", "Unknown"];

const STANDARD_FINALIZERS: &[&str] = &["kubernetes", "orphan", "foregroundDeletion"];

/// The name of a finalizer: one of Kubernetes' own, or one with a domain.
pub fn finalizer(errors: &mut Errors, path: &Path<'_>, name: &str) {
    names::invalid_each(errors, path, name, names::qualified_name(name));
    foreign_finalizer(errors, path, name);
}

fn foreign_finalizer(errors: &mut Errors, path: &Path<'_>, name: &str) {
    if !name.contains('/') && !STANDARD_FINALIZERS.contains(&name) {
        errors.invalid(path, name, "name is neither a standard finalizer name nor is it fully qualified");
    }
}

/// How often upstream looks at the metadata of one write. Each look reports what it finds anew, and so answers repeat
/// errors; a kind differs in which of its own functions look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MetaLooks {
    /// Finalizers without a domain must be Kubernetes' own.
    pub finalizers: bool,
    /// The check of a change is made once more.
    pub change: bool,
    /// How many times the new object as a whole is looked at again on update.
    pub whole: usize,
}

impl MetaLooks {
    pub const ALL: MetaLooks = MetaLooks { finalizers: true, change: true, whole: 1 };
}

const METADATA: Path<'static> = Path::new("metadata");
const MAX_ANNOTATIONS: usize = 256 * 1024;

fn name_messages(form: NameForm, name: &str, prefix: bool) -> Vec<String> {
    let masked = if prefix { names::masked(name) } else { name.to_owned() };
    match form {
        NameForm::Subdomain => names::dns_subdomain(&masked),
        NameForm::Label => names::dns_label(&masked),
        NameForm::Label1035 => names::dns1035_label(&masked),
        NameForm::PathSegment if prefix => names::path_segment_prefix(name),
        NameForm::PathSegment => names::path_segment(name),
        NameForm::Own => Vec::new(),
    }
}

/// A name that upstream checks by its newer, declarative rules: they count bytes, and do not look at what a name is
/// generated from.
pub fn long_name(errors: &mut Errors, object: &Value) {
    let name = object.text_at(&["metadata", "name"]);
    if !name.is_empty() {
        let messages = names::dns_subdomain(name).into_iter();
        let messages = messages.map(|message| message.replace("253 characters", "253 bytes")).collect();
        names::invalid_each(errors, &METADATA.child("name"), name, messages);
    }
}

/// The metadata of a new object, whose name has been generated already.
pub fn validate_create(rules: &dyn Kind, namespaced: bool, object: &Value, errors: &mut Errors) {
    check_whole(rules.name_form(), namespaced, object, errors);
    if rules.meta_looks().finalizers {
        check_kubernetes_finalizers(object, errors);
    }
}

/// The metadata of a changed object.
pub fn validate_update(rules: &dyn Kind, namespaced: bool, object: &Value, old: &Value, errors: &mut Errors) {
    check_whole(NameForm::PathSegment, namespaced, object, errors);
    check_change(object, old, errors);
    let looks = rules.meta_looks();
    for whole in looks.change.then_some(false).into_iter().chain(std::iter::repeat_n(true, looks.whole)) {
        if whole {
            check_whole(rules.name_form(), namespaced, object, errors);
        } else {
            check_change(object, old, errors);
        }
        if looks.finalizers {
            check_kubernetes_finalizers(object, errors);
        }
    }
}

/// The metadata in a change of a subresource.
pub fn validate_subresource_update(namespaced: bool, object: &Value, old: &Value, errors: &mut Errors) {
    check_whole(NameForm::PathSegment, namespaced, object, errors);
    check_change(object, old, errors);
    check_change(object, old, errors);
}

fn check_whole(form: NameForm, namespaced: bool, object: &Value, errors: &mut Errors) {
    let generate = object.text_at(&["metadata", "generateName"]);
    if !generate.is_empty() {
        names::invalid_each(errors, &METADATA.child("generateName"), generate, name_messages(form, generate, true));
    }
    let name = object.text_at(&["metadata", "name"]);
    if name.is_empty() {
        errors.required(&METADATA.child("name"), "name or generateName is required");
    } else {
        names::invalid_each(errors, &METADATA.child("name"), name, name_messages(form, name, false));
    }
    let namespace = object.text_at(&["metadata", "namespace"]);
    let path = METADATA.child("namespace");
    match (namespaced, namespace) {
        (true, "") => errors.required(&path, ""),
        (true, _) => names::invalid_each(errors, &path, namespace, names::dns_label(namespace)),
        (false, "") => {}
        (false, _) => errors.forbidden(&path, "not allowed on this type"),
    }
    check_generation(object, errors);
    check_maps_and_owners(object, errors);
    let path = METADATA.child("finalizers");
    let finalizers: Vec<&str> = texts(object, "finalizers");
    for name in &finalizers {
        names::invalid_each(errors, &path, name, names::qualified_name(name));
    }
    if finalizers.contains(&"orphan") && finalizers.contains(&"foregroundDeletion") {
        let detail = "finalizer orphan and foregroundDeletion cannot be both set";
        errors.invalid(&path, &object["metadata"]["finalizers"], detail);
    }
}

fn texts<'a>(object: &'a Value, field: &str) -> Vec<&'a str> {
    object.list_at(&["metadata", field]).iter().filter_map(Value::as_str).collect()
}

fn check_generation(object: &Value, errors: &mut Errors) {
    if let Some(n) = object.int_at(&["metadata", "generation"]).filter(|n| *n < 0) {
        errors.invalid(&METADATA.child("generation"), n, "must be greater than or equal to 0");
    }
}

fn check_change(object: &Value, old: &Value, errors: &mut Errors) {
    if old.at(&["metadata", "deletionTimestamp"]).is_some() {
        let before = texts(old, "finalizers");
        let mut extra = texts(object, "finalizers");
        extra.retain(|name| !before.contains(name));
        extra.sort_unstable();
        extra.dedup();
        if !extra.is_empty() {
            let quoted: Vec<String> = extra.iter().map(|name| go_quote(name)).collect();
            let detail = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                quoted.join(", ")
            );
            errors.forbidden(&METADATA.child("finalizers"), detail);
        }
    }
    check_generation(object, errors);
    let generation = ["metadata", "generation"];
    let (new, before) = (object.int_at(&generation).unwrap_or_default(), old.int_at(&generation).unwrap_or_default());
    if new < before {
        errors.invalid(&METADATA.child("generation"), new, "must not be decremented");
    }
    for field in ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        let path = ["metadata", field];
        immutable(errors, &METADATA.child(field), object.at(&path), old.at(&path));
    }
    check_maps_and_owners(object, errors);
}

fn check_maps_and_owners(object: &Value, errors: &mut Errors) {
    if let Some(map) = object.at(&["metadata", "labels"]) {
        labels(errors, &METADATA.child("labels"), map);
    }
    if let Some(map) = object.at(&["metadata", "annotations"]) {
        annotations(errors, &METADATA.child("annotations"), map);
    }
    check_owners(object, errors);
    check_managers(object, errors);
}

/// The server's own entries are well-formed; these are the client's.
fn check_managers(object: &Value, errors: &mut Errors) {
    let list = METADATA.child("managedFields");
    for (i, entry) in object.list_at(&["metadata", "managedFields"]).iter().enumerate() {
        let path = list.index(i);
        match entry.text_at(&["operation"]) {
            "Apply" | "Update" => {}
            operation => errors.invalid(&path.child("operation"), operation, "must be `Apply` or `Update`"),
        }
        let kind = entry.text_at(&["fieldsType"]);
        if !matches!(kind, "" | "FieldsV1") {
            errors.invalid(&path.child("fieldsType"), kind, "must be `FieldsV1`");
        }
    }
}

fn check_owners(object: &Value, errors: &mut Errors) {
    let path = METADATA.child("ownerReferences");
    let owners = object.list_at(&["metadata", "ownerReferences"]);
    let mut controller: Option<String> = None;
    for owner in owners {
        let version = owner.text_at(&["apiVersion"]);
        if version.is_empty() || version.ends_with('/') || version.matches('/').count() > 1 {
            errors.invalid(&path.child("apiVersion"), version, "version must not be empty");
        }
        for field in ["kind", "name", "uid"] {
            if owner.text_at(&[field]).is_empty() {
                errors.invalid(&path.child(field), "", "must not be empty");
            }
        }
        let kind = owner.text_at(&["kind"]);
        if version == "v1" && kind == "Event" {
            errors.invalid(&path, owner, "/v1, Kind=Event is disallowed from being an owner");
        }
        if owner.bool_at(&["controller"]) == Some(true) {
            let this = format!("{kind}/{}", owner.text_at(&["name"]));
            match &controller {
                None => controller = Some(this),
                Some(first) => errors.invalid(
                    &path,
                    Raw(shown_owners(owners)),
                    format!(
                        "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {this}"
                    ),
                ),
            }
        }
    }
}

/// Owner references as Go writes them: in the order of its fields.
fn shown_owners(owners: &[Value]) -> String {
    let one = |owner: &Value| {
        let mut parts: Vec<String> = ["apiVersion", "kind", "name", "uid"]
            .iter()
            .map(|field| format!("\"{field}\":{}", Value::from(owner.text_at(&[field]))))
            .collect();
        for field in ["controller", "blockOwnerDeletion"] {
            parts.extend(owner.at(&[field]).map(|value| format!("\"{field}\":{value}")));
        }
        format!("{{{}}}", parts.join(","))
    };
    format!("[{}]", owners.iter().map(one).collect::<Vec<_>>().join(","))
}

fn check_kubernetes_finalizers(object: &Value, errors: &mut Errors) {
    let path = METADATA.child("finalizers");
    for (i, name) in texts(object, "finalizers").into_iter().enumerate() {
        foreign_finalizer(errors, &path.index(i), name);
    }
}

#[cfg(test)]
mod tests {
    use super::super::config::ConfigMap;
    use super::*;
    use serde_json::json;

    #[test]
    fn a_bad_label_is_reported_as_often_as_upstream_looks() {
        let object = |labels: Value| json!({"metadata": {"name": "a", "namespace": "n", "labels": labels}});
        let bad = object(json!({"bad key!": "x"}));
        let mut errors = Errors::default();
        validate_create(&ConfigMap, true, &bad, &mut errors);
        assert_eq!(errors.0.len(), 1);
        let mut errors = Errors::default();
        validate_update(&ConfigMap, true, &bad, &object(json!({})), &mut errors);
        assert_eq!(errors.0.len(), 4);
    }

    #[test]
    fn generated_names_may_end_in_a_dash() {
        let mut errors = Errors::default();
        let object = json!({"metadata": {"name": "ab-x", "generateName": "ab-", "namespace": "n"}});
        validate_create(&ConfigMap, true, &object, &mut errors);
        assert_eq!(errors.0, []);
    }

    #[test]
    fn one_controller_and_no_new_finalizers_at_the_end() {
        let owner =
            |name: &str| json!({"apiVersion": "v1", "kind": "Pod", "name": name, "uid": "u", "controller": true});
        let old = json!({"metadata": {"name": "a", "namespace": "n", "deletionTimestamp": "t", "finalizers": ["a/b"]}});
        let mut new = old.clone();
        new["metadata"]["finalizers"] = json!(["a/b", "c/d"]);
        new["metadata"]["ownerReferences"] = json!([owner("x"), owner("y")]);
        let mut errors = Errors::default();
        check_change(&new, &old, &mut errors);
        let text: Vec<String> = errors.0.iter().map(ToString::to_string).collect();
        assert!(text[0].ends_with("found new finalizers []string{\"c/d\"}"));
        assert!(text[1].contains(r#"[{"apiVersion":"v1","kind":"Pod","name":"x","uid":"u","controller":true},"#));
        assert!(text[1].ends_with("in references for Pod/x and Pod/y"));
    }
}

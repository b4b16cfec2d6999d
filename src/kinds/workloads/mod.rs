//! What the workloads share: rules of templates and their selectors, of rolling updates, of counted replicas.

pub mod autoscaling;
mod autoscaling_v1;
pub mod budgets;
pub mod cron;
pub mod deployments;
pub mod job_status;
pub mod jobs;
pub mod scale;
pub mod sets;

use serde_json::Value;

use crate::field::{Errors, Path, Raw};
use crate::kinds::{copy_field, meta, names, pods, reset_status, selector};
use crate::object::Fields;

pub fn nonnegative(errors: &mut Errors, path: &Path<'_>, number: Option<i64>) {
    if let Some(number) = number.filter(|number| *number < 0) {
        errors.invalid(path, number, "must be greater than or equal to 0");
    }
}

/// Numbers in a spec or status that can't be negative.
pub fn nonnegative_fields(errors: &mut Errors, path: &Path<'_>, holder: &Value, fields: &[&str]) {
    for field in fields {
        nonnegative(errors, &path.child(field), holder.int_at(&[field]));
    }
}

/// The status of a workload: nothing is negative, no part is larger than the whole. `parts` are counted among the replicas.
pub fn check_replicas(errors: &mut Errors, status: &Value, numbers: &[&str], parts: &[&str], ready: &str) {
    let path = Path::new("status");
    nonnegative_fields(errors, &path, status, numbers);
    let count = |field: &str| status.int_at(&[field]).unwrap_or_default();
    for part in parts.iter().filter(|part| count(part) > count("replicas")) {
        errors.invalid(&path.child(part), count(part), "cannot be greater than status.replicas");
    }
    let available = "availableReplicas";
    if count(available) > count("readyReplicas") {
        errors.invalid(&path.child(available), count(available), format!("cannot be greater than {ready}"));
    }
}

/// A counter of hash collisions only grows.
pub fn check_collisions(errors: &mut Errors, object: &Value, old: &Value) {
    let path = ["status", "collisionCount"];
    let (new, before) = (object.int_at(&path), old.int_at(&path));
    if before.is_some_and(|before| new.is_none_or(|new| new < before)) {
        let status = Path::new("status");
        errors.invalid(&status.child(path[1]), new.unwrap_or_default(), "cannot be decremented");
    }
}

/// What a workload says about its selector.
pub struct SelectorWords {
    /// The kind that the message about an empty selector names.
    pub kind: &'static str,
    /// Of a selector that is not valid.
    pub invalid: &'static str,
}

/// A selector that is required, strict, and not empty.
pub fn check_selector(errors: &mut Errors, path: &Path<'_>, spec: &Value, words: &SelectorWords) {
    let path = path.child("selector");
    let Some(found) = spec.at(&["selector"]) else { return errors.required(&path, "") };
    meta::label_selector(errors, &path, found);
    if selector::is_empty(found) {
        errors.invalid(&path, selector::shown(Some(found)), format!("empty selector is invalid for {}", words.kind));
    }
    if selector::fits(Some(found), None).is_none() {
        errors.invalid(&path, selector::shown(Some(found)), words.invalid);
    }
}

/// The labels of the template fit the selector.
pub fn check_labels(errors: &mut Errors, path: &Path<'_>, fits: Option<bool>, template: Option<&Value>) {
    if fits == Some(false) {
        let metadata = path.child("metadata");
        let labels = template.and_then(|template| template.at(&["metadata", "labels"]));
        let shown = labels.map_or("null".to_owned(), Value::to_string);
        errors.invalid(&metadata.child("labels"), Raw(shown), "`selector` does not match template `labels`");
    }
}

/// The pods of a workload restart for ever, and have no end.
pub fn check_endless(errors: &mut Errors, path: &Path<'_>, template: &Value, kind: &str) {
    let spec = path.child("spec");
    let policy = template.text_at(&["spec", "restartPolicy"]);
    if policy != "Always" {
        errors.not_supported(&spec.child("restartPolicy"), policy, &["Always"]);
    }
    if template.at(&["spec", "activeDeadlineSeconds"]).is_some() {
        let detail = format!("activeDeadlineSeconds in {kind} is not Supported");
        errors.forbidden(&spec.child("activeDeadlineSeconds"), detail);
    }
}

/// The template of a workload that selects its pods with a label selector.
pub fn check_template(errors: &mut Errors, path: &Path<'_>, spec: &Value, old: Option<&Value>, kind: &str) {
    let found = spec.at(&["selector"]);
    let template = &spec["template"];
    let path = path.child("template");
    let Some(fits) = selector::fits(found, template.at(&["metadata", "labels"])) else { return };
    check_labels(errors, &path, Some(fits), Some(template));
    pods::validate_template(template, old.map(|old| &old["spec"]["template"]), &path, errors);
    check_endless(errors, &path, template, kind);
}

/// Defaults of a template that stands in `spec`, which is made where it is absent.
pub fn default_template(object: &mut Value) {
    object.make_map(&["spec", "template"]);
    if let Some(template) = object.at_mut(&["spec", "template"]) {
        pods::default_template(template);
    }
}

/// A new workload has no status, and nothing in its template of features that are off.
pub fn prepare_create(object: &mut Value) {
    reset_status(object);
    drop_disabled_fields(object);
}

/// The same for a changed one, whose status stays.
pub fn prepare_update(object: &mut Value, old: &Value) {
    copy_field(object, old, "status");
    drop_disabled_fields(object);
}

fn drop_disabled_fields(object: &mut Value) {
    if let Some(template) = object.at_mut(&["spec", "template"]) {
        pods::drop_disabled_fields(template);
    }
}

/// The warnings of a template, where the object is new or has changed.
pub fn template_warnings(object: &Value, old: Option<&Value>, moved: bool) -> Vec<String> {
    if !moved {
        return Vec::new();
    }
    pods::template_warnings(&object["spec"]["template"], old.map(|old| &old["spec"]["template"]), "spec.template")
}

/// Pods and their host names are called after these objects, so a name that is no DNS label leads to surprises.
pub fn name_warning(object: &Value) -> Option<String> {
    let messages = names::dns_label(object.text_at(&["metadata", "name"]));
    (!messages.is_empty()).then(|| {
        format!(
            "metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS \
             label is recommended: [{}]",
            messages.join(" ")
        )
    })
}

/// The number of an int-or-percentage: of the percents, where it is one.
pub fn amount(value: Option<&Value>) -> i64 {
    match value {
        Some(Value::Number(number)) => number.as_i64().unwrap_or_default(),
        Some(Value::String(text)) => text.strip_suffix('%').unwrap_or(text).parse().unwrap_or_default(),
        _ => 0,
    }
}

/// A number of pods, or a share of them.
pub fn int_or_percent(errors: &mut Errors, path: &Path<'_>, value: Option<&Value>) {
    match value {
        Some(Value::String(text)) => names::invalid_each(errors, path, text.as_str(), names::percent(text)),
        other => nonnegative(errors, path, other.and_then(Value::as_i64)),
    }
}

/// A share can't be more than all.
pub fn at_most_all(errors: &mut Errors, path: &Path<'_>, value: Option<&Value>) {
    if let Some(Value::String(text)) = value
        && names::percent(text).is_empty()
        && amount(value) > 100
    {
        errors.invalid(path, text.as_str(), "must not be greater than 100%");
    }
}

/// Makes an annotation what it is in `old`.
pub fn keep_annotation(object: &mut Value, old: &Value, name: &str) {
    let path = ["metadata", "annotations", name];
    match old.at(&path) {
        Some(value) => object.set(&path, value.clone()),
        None => drop(object.take_at(&path)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn shares_are_percents() {
        let said = |value: Value| {
            let mut errors = Errors::default();
            int_or_percent(&mut errors, &Path::new("f"), Some(&value));
            at_most_all(&mut errors, &Path::new("f"), Some(&value));
            errors.0.len()
        };
        for (value, wrong) in [(json!(5), 0), (json!(-1), 1), (json!("50%"), 0), (json!("5"), 1), (json!("101%"), 1)] {
            assert_eq!(said(value.clone()), wrong, "{value}");
        }
        assert_eq!(amount(Some(&json!("25%"))), 25);
    }

    #[test]
    fn a_status_adds_up() {
        let mut errors = Errors::default();
        let status = json!({"replicas": 2, "readyReplicas": 1, "availableReplicas": 3});
        check_replicas(&mut errors, &status, &["replicas"], &["readyReplicas", "availableReplicas"], "readyReplicas");
        let fields: Vec<&str> = errors.0.iter().map(|e| e.field.as_str()).collect();
        assert_eq!(fields, ["status.availableReplicas", "status.availableReplicas"]);
    }
}

//! What kinds check alike: labels, selectors, finalizers, fields that must stay.

use serde_json::Value;

use super::names;
use crate::field::{Errors, Path, Raw};
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

pub fn labels(errors: &mut Errors, path: &Path<'_>, labels: &Value) {
    for (key, value) in labels.as_object().into_iter().flatten() {
        names::invalid_each(errors, path, key, names::qualified_name(key));
        let value = value.as_str().unwrap_or_default();
        names::invalid_each(errors, path, value, names::label_value(value));
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

const STANDARD_FINALIZERS: &[&str] = &["kubernetes", "orphan", "foregroundDeletion"];

/// The name of a finalizer: one of Kubernetes' own, or one with a domain.
pub fn finalizer(errors: &mut Errors, path: &Path<'_>, name: &str) {
    names::invalid_each(errors, path, name, names::qualified_name(name));
    if !name.contains('/') && !STANDARD_FINALIZERS.contains(&name) {
        errors.invalid(path, name, "name is neither a standard finalizer name nor is it fully qualified");
    }
}

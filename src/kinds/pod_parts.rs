//! Pieces of a pod's spec that other kinds carry too.

use serde_json::Value;

use super::go_shape::{self, Part, Shape};
use super::names;
use crate::field::{Errors, Path};
use crate::object::Fields;

const EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];

pub const TOLERATION: Shape = &[
    ("Key", "key", Part::Text),
    ("Operator", "operator", Part::Text),
    ("Value", "value", Part::Text),
    ("Effect", "effect", Part::Text),
    ("TolerationSeconds", "tolerationSeconds", Part::Plain),
];

/// What a runtime class adds to the tolerations of its pods.
pub fn tolerations(errors: &mut Errors, list: &Path<'_>, tolerations: &[Value]) {
    for (i, toleration) in tolerations.iter().enumerate() {
        let path = list.index(i);
        let key = toleration.text_at(&["key"]);
        let operator = toleration.text_at(&["operator"]);
        let effect = toleration.text_at(&["effect"]);
        if !key.is_empty() {
            names::invalid_each(errors, &path.child("key"), key, names::qualified_name(key));
        } else if operator != "Exists" {
            errors.invalid(
                &path.child("operator"),
                operator,
                "operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
            );
        }
        if toleration.at(&["tolerationSeconds"]).is_some() && effect != "NoExecute" {
            errors.invalid(&path.child("effect"), effect, "effect must be 'NoExecute' when `tolerationSeconds` is set");
        }
        let value = toleration.text_at(&["value"]);
        match operator {
            "" | "Equal" => {
                let messages = names::label_value(value);
                if !messages.is_empty() {
                    errors.invalid(&path.child("operator"), value, messages.join(";"));
                }
            }
            "Exists" if !value.is_empty() => errors.invalid(
                &path.child("operator"),
                go_shape::by_value(Some(toleration), TOLERATION),
                "value must be empty when `operator` is 'Exists'",
            ),
            "Exists" => {}
            _ => errors.not_supported(&path.child("operator"), operator, &["Equal", "Exists"]),
        }
        if !effect.is_empty() && !EFFECTS.contains(&effect) {
            errors.not_supported(&path.child("effect"), effect, EFFECTS);
        }
    }
}

/// The terms that a node must match one of.
pub fn node_selector(errors: &mut Errors, path: &Path<'_>, selector: &Value) {
    let list = path.child("nodeSelectorTerms");
    let terms = selector.list_at(&["nodeSelectorTerms"]);
    if terms.is_empty() {
        return errors.required(&list, "must have at least one node selector term");
    }
    for (i, term) in terms.iter().enumerate() {
        node_term(errors, &list.index(i), term);
    }
}

/// One term of a node selector, or what a pod would rather have.
pub fn node_term(errors: &mut Errors, path: &Path<'_>, term: &Value) {
    let expressions = path.child("matchExpressions");
    for (i, requirement) in term.list_at(&["matchExpressions"]).iter().enumerate() {
        node_requirement(errors, &expressions.index(i), requirement);
    }
    let fields = path.child("matchFields");
    for (i, requirement) in term.list_at(&["matchFields"]).iter().enumerate() {
        field_requirement(errors, &fields.index(i), requirement);
    }
}

fn node_requirement(errors: &mut Errors, path: &Path<'_>, requirement: &Value) {
    let values = requirement.list_at(&["values"]);
    let at = path.child("values");
    match requirement.text_at(&["operator"]) {
        "In" | "NotIn" if values.is_empty() => {
            errors.required(&at, "must be specified when `operator` is 'In' or 'NotIn'");
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            errors.forbidden(&at, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
        }
        "Gt" | "Lt" if values.len() != 1 => {
            errors.required(&at, "must be specified single value when `operator` is 'Lt' or 'Gt'");
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
        operator => errors.invalid(&path.child("operator"), operator, "not a valid selector operator"),
    }
    let key = requirement.text_at(&["key"]);
    names::invalid_each(errors, &path.child("key"), key, names::qualified_name(key));
    for (i, value) in values.iter().enumerate() {
        let value = value.as_str().unwrap_or_default();
        names::invalid_each(errors, &at.index(i), value, names::label_value(value));
    }
}

fn field_requirement(errors: &mut Errors, path: &Path<'_>, requirement: &Value) {
    let values = requirement.list_at(&["values"]);
    match requirement.text_at(&["operator"]) {
        "In" | "NotIn" => {
            if values.len() != 1 {
                let detail = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
                errors.required(&path.child("values"), detail);
            }
        }
        operator => errors.invalid(&path.child("operator"), operator, "not a valid selector operator"),
    }
    let key = requirement.text_at(&["key"]);
    if key == "metadata.name" {
        let at = path.child("values");
        for (i, value) in values.iter().enumerate() {
            let value = value.as_str().unwrap_or_default();
            names::invalid_each(errors, &at.index(i), value, names::dns_subdomain(value));
        }
    } else {
        errors.invalid(&path.child("key"), key, "not a valid field selector key");
    }
}

//! Where a pod may run: affinity, and how it is spread.

use serde_json::{Value, json};

use super::Latitude;
use crate::field::{Error, Errors, Path};
use crate::kinds::{meta, names, pod_parts};
use crate::object::Fields;

pub const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
pub const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

/// Whether an error is about a label's value that an expression compares with.
fn about_a_value(error: &Error) -> bool {
    error.field.contains("matchExpressions[") && error.field.contains("].values[")
}

/// Adds what a check finds, without what it has to say of the values where these may be anything.
fn leniently(lenient: bool, errors: &mut Errors, check: impl FnOnce(&mut Errors)) {
    let mut found = Errors::default();
    check(&mut found);
    errors.0.extend(found.0.into_iter().filter(|error| !lenient || !about_a_value(error)));
}

/// Whether a check objects to a value.
fn objects(check: impl FnOnce(&mut Errors)) -> bool {
    let mut found = Errors::default();
    check(&mut found);
    found.0.iter().any(about_a_value)
}

const ROOT: Path<'static> = Path::new("");

/// Whether a spec requires of nodes what no label can be.
pub fn has_odd_node_values(spec: &Value) -> bool {
    let selector = spec.at(&["affinity", "nodeAffinity", REQUIRED]);
    selector.is_some_and(|selector| objects(|errors| pod_parts::node_selector(errors, &ROOT, selector)))
}

/// The terms of affinity to other pods, with the weight of those that are only preferred.
fn pod_terms<'s>(spec: &'s Value, kind: &str) -> impl Iterator<Item = (&'static str, usize, &'s Value)> + use<'s> {
    let list = |list: &'static str| spec.list_at(&["affinity", kind, list]).iter().enumerate();
    let required = list(REQUIRED).map(|(i, term)| (REQUIRED, i, term));
    required.chain(list(PREFERRED).map(|(i, term)| (PREFERRED, i, term)))
}

fn term_of(term: &Value) -> Option<&Value> {
    term.at(&["podAffinityTerm"])
}

/// Whether a spec selects pods by what no label can be.
pub fn has_odd_pod_values(spec: &Value) -> bool {
    let odd = |term: &Value| {
        ["labelSelector", "namespaceSelector"].into_iter().filter_map(|field| term.at(&[field])).any(has_odd_values)
    };
    ["podAffinity", "podAntiAffinity"]
        .iter()
        .flat_map(|kind| pod_terms(spec, kind))
        .any(|(list, _, term)| if list == PREFERRED { term_of(term).is_some_and(odd) } else { odd(term) })
}

fn has_odd_values(selector: &Value) -> bool {
    objects(|errors| meta::label_selector(errors, &ROOT, selector))
}

/// Whether the selector of a constraint is malformed.
pub fn has_odd_spread(spec: &Value) -> bool {
    let selectors = spec.list_at(&["topologySpreadConstraints"]).iter().filter_map(|c| c.at(&["labelSelector"]));
    let mut found = Errors::default();
    selectors.for_each(|selector| meta::label_selector(&mut found, &ROOT, selector));
    !found.is_empty()
}

pub fn check_affinity(spec: &Value, path: &Path<'_>, latitude: &Latitude, errors: &mut Errors) {
    let node = path.child("nodeAffinity");
    if let Some(selector) = spec.at(&["affinity", "nodeAffinity", REQUIRED]) {
        let at = node.child(REQUIRED);
        leniently(latitude.any_node_values, errors, |errors| pod_parts::node_selector(errors, &at, selector));
    }
    let list = node.child(PREFERRED);
    for (i, term) in spec.list_at(&["affinity", "nodeAffinity", PREFERRED]).iter().enumerate() {
        let at = list.index(i);
        check_weight(term, &at, errors);
        let empty = Value::Null;
        let preference = term.at(&["preference"]).unwrap_or(&empty);
        leniently(true, errors, |errors| pod_parts::node_term(errors, &at.child("preference"), preference));
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        let path = path.child(kind);
        for (list, i, term) in pod_terms(spec, kind) {
            let list_path = path.child(list);
            let at = list_path.index(i);
            if list == REQUIRED {
                check_pod_term(term, &at, latitude, errors);
            } else {
                check_weight(term, &at, errors);
                let empty = Value::Null;
                let inner = term_of(term).unwrap_or(&empty);
                check_pod_term(inner, &at.child("podAffinityTerm"), latitude, errors);
            }
        }
    }
}

fn check_weight(term: &Value, path: &Path<'_>, errors: &mut Errors) {
    let weight = term.int_at(&["weight"]).unwrap_or_default();
    if !(1..=100).contains(&weight) {
        errors.invalid(&path.child("weight"), weight, "must be in the range 1-100");
    }
}

fn check_pod_term(term: &Value, path: &Path<'_>, latitude: &Latitude, errors: &mut Errors) {
    for field in ["labelSelector", "namespaceSelector"] {
        if let Some(selector) = term.at(&[field]) {
            let at = path.child(field);
            leniently(latitude.any_pod_values, errors, |errors| meta::label_selector(errors, &at, selector));
        }
    }
    for namespace in term.list_at(&["namespaces"]).iter().filter_map(Value::as_str) {
        names::invalid_each(errors, &path.child("namespace"), namespace, names::dns_label(namespace));
    }
    check_label_keys(term, path, errors);
    let key = term.text_at(&["topologyKey"]);
    let at = path.child("topologyKey");
    if key.is_empty() {
        errors.required(&at, "can not be empty");
    }
    names::invalid_each(errors, &at, key, names::qualified_name(key));
}

fn texts<'v>(value: &'v Value, field: &str) -> Vec<&'v str> {
    value.list_at(&[field]).iter().filter_map(Value::as_str).collect()
}

const IN_BOTH: &str = "exists in both matchLabelKeys and labelSelector";
const NO_SELECTOR: &str = "must not be specified when labelSelector is not set";

fn check_label_keys(term: &Value, path: &Path<'_>, errors: &mut Errors) {
    let selector = term.at(&["labelSelector"]);
    for field in ["matchLabelKeys", "mismatchLabelKeys"] {
        let keys = texts(term, field);
        let at = path.child(field);
        if !keys.is_empty() && selector.is_none() {
            errors.forbidden(&at, NO_SELECTOR);
            continue;
        }
        for (i, key) in keys.into_iter().enumerate() {
            names::invalid_each(errors, &at.index(i), key, names::qualified_name(key));
        }
    }
    let (matching, mismatching) = (texts(term, "matchLabelKeys"), texts(term, "mismatchLabelKeys"));
    for (i, key) in selected_twice(selector, &matching) {
        errors.invalid(&path.index(i), key, IN_BOTH);
    }
    let at = path.child("matchLabelKeys");
    for (i, key) in matching.iter().enumerate().filter(|(_, key)| mismatching.contains(key)) {
        errors.invalid(&at.index(i), *key, "exists in both matchLabelKeys and mismatchLabelKeys");
    }
}

/// Keys by which a selector selects beside the expression that creation has added for them.
fn selected_twice<'k>(selector: Option<&Value>, keys: &[&'k str]) -> Vec<(usize, &'k str)> {
    let Some(selector) = selector else { return Vec::new() };
    let mut seen: Vec<&str> = selector.map_at(&["matchLabels"]).into_iter().flatten().map(|(key, _)| &**key).collect();
    let mut twice = Vec::new();
    for expression in selector.list_at(&["matchExpressions"]) {
        let key = expression.text_at(&["key"]);
        if let Some(i) = keys.iter().rposition(|k| *k == key).filter(|_| seen.contains(&key)) {
            twice.push((i, keys[i]));
        }
        seen.push(key);
    }
    twice
}

const ACTIONS: &[&str] = &["DoNotSchedule", "ScheduleAnyway"];
const POSITIVE: &str = "must be greater than zero";

pub fn check_spread_constraints(spec: &Value, path: &Path<'_>, latitude: &Latitude, errors: &mut Errors) {
    let constraints = spec.list_at(&["topologySpreadConstraints"]);
    for (i, constraint) in constraints.iter().enumerate() {
        let at = path.index(i);
        let skew = constraint.int_at(&["maxSkew"]).unwrap_or_default();
        if skew <= 0 {
            errors.invalid(&at.child("maxSkew"), skew, POSITIVE);
        }
        let key = constraint.text_at(&["topologyKey"]);
        if key.is_empty() {
            errors.required(&at.child("topologyKey"), "can not be empty");
        }
        let action = constraint.text_at(&["whenUnsatisfiable"]);
        if !ACTIONS.contains(&action) {
            errors.not_supported(&at.child("whenUnsatisfiable"), action, ACTIONS);
        }
        let same = |other: &Value| {
            ["topologyKey", "whenUnsatisfiable"].iter().all(|f| other.text_at(&[f]) == constraint.text_at(&[f]))
        };
        if constraints[i + 1..].iter().any(same) {
            errors.duplicate(&at.child("{topologyKey, whenUnsatisfiable}"), format!("{{{key}, {action}}}"));
        }
        if let Some(domains) = constraint.int_at(&["minDomains"]) {
            let at = at.child("minDomains");
            if domains <= 0 {
                errors.invalid(&at, domains, POSITIVE);
            }
            if action != "DoNotSchedule" {
                let detail = format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}");
                errors.invalid(&at, domains, detail);
            }
        }
        for field in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            let policy = constraint.at(&[field]).and_then(Value::as_str);
            if let Some(policy) = policy.filter(|policy| !matches!(*policy, "Honor" | "Ignore")) {
                errors.not_supported(&at.child(field), policy, &["Honor", "Ignore"]);
            }
        }
        check_spread_keys(constraint, &at.child("matchLabelKeys"), errors);
        if let Some(selector) = constraint.at(&["labelSelector"]).filter(|_| !latitude.any_spread_selector) {
            meta::label_selector(errors, &at.child("labelSelector"), selector);
        }
    }
}

fn check_spread_keys(constraint: &Value, path: &Path<'_>, errors: &mut Errors) {
    let keys = texts(constraint, "matchLabelKeys");
    if keys.is_empty() {
        return;
    }
    let selector = constraint.at(&["labelSelector"]);
    if selector.is_none() {
        errors.forbidden(path, NO_SELECTOR);
    }
    for (i, key) in keys.iter().enumerate() {
        names::invalid_each(errors, &path.index(i), *key, names::qualified_name(key));
    }
    for (i, key) in selected_twice(selector, &keys) {
        errors.invalid(&path.index(i), key, IN_BOTH);
    }
}

/// At creation a pod's own labels are written into the selectors that name their keys.
pub fn merge_label_keys(pod: &mut Value) {
    let labels = pod.at(&["metadata", "labels"]).cloned().unwrap_or_default();
    let Some(spec) = pod.at_mut(&["spec"]) else { return };
    for kind in ["podAffinity", "podAntiAffinity"] {
        spec.items_mut(&["affinity", kind, REQUIRED]).for_each(|term| merge_keys(term, &labels));
        for term in spec.items_mut(&["affinity", kind, PREFERRED]) {
            if let Some(term) = term.at_mut(&["podAffinityTerm"]) {
                merge_keys(term, &labels);
            }
        }
    }
    spec.items_mut(&["topologySpreadConstraints"]).for_each(|constraint| merge_keys(constraint, &labels));
}

fn merge_keys(term: &mut Value, labels: &Value) {
    if term.at(&["labelSelector"]).is_none() {
        return;
    }
    let mut added = Vec::new();
    for (field, operator) in [("matchLabelKeys", "In"), ("mismatchLabelKeys", "NotIn")] {
        for key in texts(term, field) {
            if let Some(value) = labels.get(key) {
                added.push(json!({"key": key, "operator": operator, "values": [value]}));
            }
        }
    }
    if !added.is_empty() {
        let selector = term.make_map(&["labelSelector"]);
        if let Value::Array(list) = selector.entry("matchExpressions").or_insert_with(|| Value::Array(Vec::new())) {
            list.extend(added);
        }
    }
}

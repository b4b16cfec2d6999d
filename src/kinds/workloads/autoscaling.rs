//! HorizontalPodAutoscaler. Two versions are served; the newer one is stored, and the older one is made from it.

use serde_json::{Value, json};

use super::{autoscaling_v1, nonnegative_fields};
use crate::field::{Errors, Path};
use crate::kinds::{Kind, meta, names, quantity};
use crate::object::Fields;

pub static KINDS: &[&dyn Kind] = &[&HorizontalPodAutoscaler];

const MAX_WINDOW: i64 = 3600;
const MAX_PERIOD: i64 = 1800;

/// The kinds of metrics with the fields that describe them.
const SOURCES: &[(&str, &str)] = &[
    ("Object", "object"),
    ("External", "external"),
    ("Pods", "pods"),
    ("Resource", "resource"),
    ("ContainerResource", "containerResource"),
];

const SOURCE_TYPES: &[&str] = &["ContainerResource", "External", "Object", "Pods", "Resource"];

pub struct HorizontalPodAutoscaler;

/// How much a version is asked to say.
#[derive(Clone, Copy, PartialEq)]
enum ApiVersionCheck {
    None,
    /// It can be read.
    Form,
    /// And it has a group.
    Group,
}

fn check_api_version(version: &str, check: ApiVersionCheck) -> Result<(), String> {
    let slashes = version.matches('/').count();
    match check {
        ApiVersionCheck::None => Ok(()),
        _ if slashes > 1 => Err(format!("unexpected GroupVersion string: {version}")),
        ApiVersionCheck::Group if slashes == 0 || version.starts_with('/') => {
            Err("apiVersion must specify API group".to_owned())
        }
        _ => Ok(()),
    }
}

fn check_reference(errors: &mut Errors, path: &Path<'_>, reference: &Value, check: ApiVersionCheck) {
    for field in ["kind", "name"] {
        let text = reference.text_at(&[field]);
        if text.is_empty() {
            errors.required(&path.child(field), "");
        }
        names::invalid_each(errors, &path.child(field), text, names::path_segment(text));
    }
    let version = reference.text_at(&["apiVersion"]);
    if let Err(why) = check_api_version(version, check) {
        errors.invalid(&path.child("apiVersion"), version, why);
    }
}

fn check_spec(object: &Value, old: Option<&Value>, errors: &mut Errors) {
    let spec = &object["spec"];
    let path = Path::new("spec");
    let (min, max) = (spec.int_at(&["minReplicas"]), spec.int_at(&["maxReplicas"]).unwrap_or_default());
    let lowest = i64::from(old.is_none_or(|old| old.int_at(&["spec", "minReplicas"]) != Some(0)));
    if let Some(min) = min.filter(|min| *min < lowest) {
        errors.invalid(&path.child("minReplicas"), min, format!("must be greater than or equal to {lowest}"));
    }
    let at = path.child("maxReplicas");
    match max {
        0 => errors.required(&at, "must be set and greater than 0"),
        ..0 => errors.invalid(&at, max, "must be greater than or equal to 1"),
        _ => {}
    }
    if min.is_some_and(|min| max < min) {
        errors.invalid(&at, max, "must be greater than or equal to `minReplicas`");
    }
    let target = &spec["scaleTargetRef"];
    let same = |old: &Value| {
        let target = |object: &'_ Value, field: &str| object.text_at(&["spec", "scaleTargetRef", field]).to_owned();
        ["apiVersion", "kind"].iter().all(|field| target(old, field) == target(object, field))
    };
    let check = if old.is_some_and(same) {
        ApiVersionCheck::None
    } else if target.text_at(&["kind"]) == "ReplicationController" {
        ApiVersionCheck::Form
    } else {
        ApiVersionCheck::Group
    };
    check_reference(errors, &path.child("scaleTargetRef"), target, check);
    check_metrics(errors, &path.child("metrics"), spec, old);
    for (field, rules) in spec.map_at(&["behavior"]).into_iter().flatten() {
        let behavior = path.child("behavior");
        check_rules(errors, &behavior.child(field), rules);
    }
}

fn check_metrics(errors: &mut Errors, path: &Path<'_>, spec: &Value, old: Option<&Value>) {
    let metrics = spec.list_at(&["metrics"]);
    // What could be read of objects before must still be.
    let had_bad = |old: &Value| {
        old.list_at(&["spec", "metrics"]).iter().any(|metric| {
            let version = metric.text_at(&["object", "describedObject", "apiVersion"]);
            check_api_version(version, ApiVersionCheck::Form).is_err()
        })
    };
    let check = if old.is_some_and(had_bad) { ApiVersionCheck::None } else { ApiVersionCheck::Form };
    for (i, metric) in metrics.iter().enumerate() {
        check_metric(errors, &path.index(i), metric, check);
    }
    let counts = |metric: &Value| matches!(metric.text_at(&["type"]), "Object" | "External");
    if spec.int_at(&["minReplicas"]) == Some(0) && !metrics.iter().any(counts) {
        let detail = "must specify at least one Object or External metric to support scaling to zero replicas";
        errors.forbidden(path, detail);
    }
}

fn check_metric(errors: &mut Errors, path: &Path<'_>, metric: &Value, check: ApiVersionCheck) {
    let kind = metric.text_at(&["type"]);
    let at = path.child("type");
    if kind.is_empty() {
        errors.required(&at, "must specify a metric source type");
    }
    let expected = SOURCES.iter().find(|(name, _)| *name == kind).map(|(_, field)| *field);
    let given: Vec<&str> =
        SOURCES.iter().map(|(_, field)| *field).filter(|field| metric.at(&[field]).is_some()).collect();
    if expected.is_none() {
        // It is looked at twice.
        errors.not_supported(&at, kind, SOURCE_TYPES);
        errors.not_supported(&at, kind, SOURCE_TYPES);
    }
    if let Some(first) = given.first() {
        check_source(errors, &path.child(first), first, &metric[*first], check);
    }
    if let Some(expected) = expected.filter(|expected| !given.contains(expected)) {
        errors.required(&path.child(expected), "must populate information for the given metric source");
    }
    if given.len() > 1 {
        for extra in given.into_iter().filter(|field| Some(*field) != expected) {
            errors.forbidden(&path.child(extra), "must populate the given metric source only");
        }
    }
}

fn check_source(errors: &mut Errors, path: &Path<'_>, kind: &str, source: &Value, check: ApiVersionCheck) {
    if kind == "object" {
        check_reference(errors, &path.child("describedObject"), &source["describedObject"], check);
    }
    let resource = matches!(kind, "resource" | "containerResource");
    let name = source.text_at(&["name"]);
    if resource && name.is_empty() {
        errors.required(&path.child("name"), "must specify a resource name");
    }
    if kind == "containerResource" {
        if !name.is_empty() {
            quantity::container_resource_name(errors, &path.child("name"), name);
        }
        let container = source.text_at(&["container"]);
        let at = path.child("container");
        if container.is_empty() {
            errors.required(&at, "must specify a container");
        } else {
            names::invalid_each(errors, &at, container, names::dns_label(container));
        }
    }
    if !resource {
        let metric = path.child("metric");
        let name = source.text_at(&["metric", "name"]);
        if name.is_empty() {
            errors.required(&metric.child("name"), "must specify a metric name");
        }
        names::invalid_each(errors, &metric.child("name"), name, names::path_segment(name));
    }
    let at = path.child("target");
    let target = &source["target"];
    check_target(errors, &at, target);
    let has = |field: &str| target.at(&[field]).is_some();
    match kind {
        "object" if !has("value") && !has("averageValue") => {
            errors.required(&at.child("averageValue"), "must set either a target value or averageValue");
        }
        "external" if !has("value") && !has("averageValue") => {
            let detail = "must set either a target value for metric or a per-pod target";
            errors.required(&at.child("averageValue"), detail);
        }
        "external" if has("value") && has("averageValue") => {
            let detail = "may not set both a target value for metric and a per-pod target";
            errors.forbidden(&at.child("value"), detail);
        }
        "pods" if !has("averageValue") => {
            errors.required(&at.child("averageValue"), "must specify a positive target averageValue");
        }
        _ if resource && !has("averageUtilization") && !has("averageValue") => {
            let detail = "must set either a target raw value or a target utilization";
            errors.required(&at.child("averageUtilization"), detail);
        }
        _ if resource && has("averageUtilization") && has("averageValue") => {
            let detail = "may not set both a target raw value and a target utilization";
            errors.forbidden(&at.child("averageValue"), detail);
        }
        _ => {}
    }
}

fn check_target(errors: &mut Errors, path: &Path<'_>, target: &Value) {
    let kind = target.text_at(&["type"]);
    if kind.is_empty() {
        errors.required(&path.child("type"), "must specify a metric target type");
    }
    if !matches!(kind, "Utilization" | "Value" | "AverageValue") {
        errors.invalid(&path.child("type"), kind, "must be either Utilization, Value, or AverageValue");
    }
    for field in ["value", "averageValue"] {
        if let Some(amount) = target.at(&[field])
            && quantity::compare(amount, &json!("0")).is_le()
        {
            errors.invalid(&path.child(field), amount, "must be positive");
        }
    }
    if let Some(share) = target.int_at(&["averageUtilization"]).filter(|share| *share < 1) {
        errors.invalid(&path.child("averageUtilization"), share, "must be greater than 0");
    }
}

fn check_rules(errors: &mut Errors, path: &Path<'_>, rules: &Value) {
    let at = path.child("stabilizationWindowSeconds");
    match rules.int_at(&["stabilizationWindowSeconds"]) {
        Some(window @ ..0) => errors.invalid(&at, window, "must be greater than or equal to zero"),
        Some(window) if window > MAX_WINDOW => {
            errors.invalid(&at, window, format!("must be less than or equal to {MAX_WINDOW}"));
        }
        _ => {}
    }
    let policies = &["Disabled", "Max", "Min"];
    if let Some(policy) = rules.at(&["selectPolicy"]).and_then(Value::as_str).filter(|p| !policies.contains(p)) {
        errors.not_supported(&path.child("selectPolicy"), policy, policies);
    }
    let list = path.child("policies");
    if rules.list_at(&["policies"]).is_empty() {
        errors.required(&list, "must specify at least one Policy");
    }
    for (i, policy) in rules.list_at(&["policies"]).iter().enumerate() {
        let path = list.index(i);
        let kind = policy.text_at(&["type"]);
        if !matches!(kind, "Pods" | "Percent") {
            errors.not_supported(&path.child("type"), kind, &["Percent", "Pods"]);
        }
        for field in ["value", "periodSeconds"] {
            let number = policy.int_at(&[field]).unwrap_or_default();
            if number <= 0 {
                errors.invalid(&path.child(field), number, "must be greater than zero");
            }
            if field == "periodSeconds" && number > MAX_PERIOD {
                errors.invalid(&path.child(field), number, format!("must be less than or equal to {MAX_PERIOD}"));
            }
        }
    }
    if let Some(tolerance) = rules.at(&["tolerance"]) {
        quantity::nonnegative(errors, &path.child("tolerance"), tolerance);
    }
}

/// What the rules of one direction are where they do not say. Scaling down waits as long as the controller is told to.
fn default_rules(behavior: &mut Value, direction: &str) {
    let up = direction == "scaleUp";
    behavior.make_map(&[direction]);
    let Some(rules) = behavior.at_mut(&[direction]) else { return };
    let policy = |kind: &str, value: u32| json!({ "type": kind, "value": value, "periodSeconds": 15 });
    if up {
        rules.set_default("stabilizationWindowSeconds", 0);
        rules.set_default("policies", json!([policy("Pods", 4), policy("Percent", 100)]));
    } else {
        rules.set_default("policies", json!([policy("Percent", 100)]));
    }
    rules.set_default("selectPolicy", "Max");
}

/// The metric that an autoscaler has that names none.
pub fn default_metrics() -> Value {
    json!([autoscaling_v1::cpu_metric(80)])
}

impl Kind for HorizontalPodAutoscaler {
    fn group(&self) -> &'static str {
        "autoscaling"
    }

    fn kind(&self) -> &'static str {
        "HorizontalPodAutoscaler"
    }

    fn default(&self, object: &mut Value) {
        object.make_map(&["spec"]);
        let newer = object.text_at(&["apiVersion"]) != "autoscaling/v1";
        let Some(spec) = object.at_mut(&["spec"]) else { return };
        spec.set_default("minReplicas", 1);
        if newer {
            if spec.list_at(&["metrics"]).is_empty() {
                spec.set(&["metrics"], default_metrics());
            }
            if let Some(behavior) = spec.at_mut(&["behavior"]) {
                default_rules(behavior, "scaleUp");
                default_rules(behavior, "scaleDown");
            }
        }
    }

    fn to_storage(&self, object: &mut Value) {
        if object.text_at(&["apiVersion"]) == "autoscaling/v1" {
            autoscaling_v1::to_v2(object);
        } else {
            autoscaling_v1::drop_annotations(object);
        }
    }

    fn from_storage(&self, object: &mut Value, version: &str) {
        if version == "v1" && object.text_at(&["apiVersion"]) != "autoscaling/v1" {
            autoscaling_v1::to_v1(object);
        }
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        check_spec(object, None, errors);
    }

    fn validate_update(&self, object: &Value, old: &Value, errors: &mut Errors) {
        check_spec(object, Some(old), errors);
    }

    fn validate_status_update(&self, object: &Value, _old: &Value, errors: &mut Errors) {
        let numbers = ["currentReplicas", "desiredReplicas"];
        nonnegative_fields(errors, &Path::new("status"), &object["status"], &numbers);
    }

    fn meta_looks(&self) -> meta::MetaLooks {
        meta::MetaLooks { finalizers: true, change: true, whole: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(spec: Value) -> Vec<String> {
        let mut errors = Errors::default();
        HorizontalPodAutoscaler.validate(&json!({ "spec": spec }), &mut errors);
        errors.0.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn one_source_for_each_metric() {
        let target = json!({"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"});
        let metric = json!({"type": "Pods", "pods": {"metric": {"name": "m"}, "target": {"type": "Value", "value": "0"}},
            "external": {"metric": {"name": "m"}, "target": {"type": "Value", "value": "1"}}});
        assert_eq!(
            said(json!({"maxReplicas": 1, "scaleTargetRef": target, "metrics": [metric]})),
            ["spec.metrics[0].external: Forbidden: must populate the given metric source only"]
        );
        assert_eq!(
            said(json!({"maxReplicas": 1, "scaleTargetRef": {"kind": "X", "name": "d", "apiVersion": "v1"}})).len(),
            1
        );
    }

    #[test]
    fn behaviour_is_filled_in_where_there_is_some() {
        let mut scaler =
            json!({"apiVersion": "autoscaling/v2", "spec": {"behavior": {"scaleDown": {"selectPolicy": "Min"}}}});
        HorizontalPodAutoscaler.default(&mut scaler);
        let behavior = &scaler["spec"]["behavior"];
        assert_eq!(behavior["scaleUp"]["policies"][1]["type"], "Percent");
        assert_eq!(behavior["scaleDown"]["selectPolicy"], "Min");
        assert!(behavior["scaleDown"].get("stabilizationWindowSeconds").is_none());
    }
}

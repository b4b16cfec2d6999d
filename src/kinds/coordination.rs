//! Leases and runtime classes.

use serde_json::Value;

use super::Kind;
use super::go_shape;
use super::meta;
use super::names;
use super::node;
use super::pod_parts;
use super::quantity;
use crate::field::{Errors, Path};
use crate::object::Fields;

pub static KINDS: &[&dyn Kind] = &[&Lease, &RuntimeClass];

pub struct Lease;

impl Kind for Lease {
    fn group(&self) -> &'static str {
        "coordination.k8s.io"
    }

    fn kind(&self) -> &'static str {
        "Lease"
    }

    fn has_status(&self) -> bool {
        false
    }

    fn create_on_update(&self) -> bool {
        true
    }

    fn unconditional_update(&self) -> bool {
        false
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        let spec = Path::new("spec");
        if let Some(n) = object.int_at(&["spec", "leaseDurationSeconds"]).filter(|n| *n <= 0) {
            errors.invalid(&spec.child("leaseDurationSeconds"), n, "must be greater than 0");
        }
        if let Some(n) = object.int_at(&["spec", "leaseTransitions"]).filter(|n| *n < 0) {
            errors.invalid(&spec.child("leaseTransitions"), n, "must be greater than or equal to 0");
        }
        let strategy = object.at(&["spec", "strategy"]).and_then(Value::as_str);
        if let Some(strategy) = strategy {
            check_strategy(strategy, &spec.child("strategy"), errors);
        }
        let preferred = object.text_at(&["spec", "preferredHolder"]);
        if !preferred.is_empty() && strategy.unwrap_or_default().is_empty() {
            errors.forbidden(&spec.child("preferredHolder"), "may only be specified if `strategy` is defined");
        }
    }

    fn meta_looks(&self) -> meta::MetaLooks {
        meta::MetaLooks { finalizers: false, change: true, whole: 0 }
    }
}

fn check_strategy(strategy: &str, path: &Path<'_>, errors: &mut Errors) {
    match strategy.matches('/').count() {
        0 if strategy != "OldestEmulationVersion" => {
            errors.not_supported(path, strategy, &["OldestEmulationVersion"]);
        }
        0 => {}
        1 => names::invalid_each(errors, path, strategy, names::qualified_name(strategy)),
        _ => errors.invalid(path, strategy, "must be a fully qualified name"),
    }
}

pub struct RuntimeClass;

impl Kind for RuntimeClass {
    fn group(&self) -> &'static str {
        "node.k8s.io"
    }

    fn kind(&self) -> &'static str {
        "RuntimeClass"
    }

    fn has_status(&self) -> bool {
        false
    }

    fn create_on_update(&self) -> bool {
        true
    }

    fn unconditional_update(&self) -> bool {
        false
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        let handler = object.text_at(&["handler"]);
        let path = Path::new("handler");
        if handler.is_empty() {
            errors.required(&path, "");
        } else {
            names::invalid_each(errors, &path, handler, names::dns_label(handler));
        }
        let overhead = Path::new("overhead");
        for (name, amount) in object.map_at(&["overhead", "podFixed"]).into_iter().flatten() {
            let fixed = overhead.child("podFixed");
            let limits = fixed.child("limits");
            quantity::container_resource_name(errors, &limits.key(name), name);
            quantity::resource_value(errors, &limits.key(name), name, amount);
        }
        let scheduling = Path::new("scheduling");
        if let Some(selector) = object.at(&["scheduling", "nodeSelector"]) {
            meta::labels(errors, &scheduling.child("nodeSelector"), selector);
        }
        let path = scheduling.child("tolerations");
        let tolerations = object.list_at(&["scheduling", "tolerations"]);
        pod_parts::tolerations(errors, &path, tolerations);
        let key = |of: &Value| ["key", "operator", "value", "effect"].map(|field| of.text_at(&[field]).to_owned());
        for (i, toleration) in tolerations.iter().enumerate() {
            if tolerations[..i].iter().any(|other| key(other) == key(toleration)) {
                errors.duplicate(&path.index(i), go_shape::by_value(Some(toleration), pod_parts::TOLERATION));
            }
        }
    }

    fn warnings(&self, object: &Value, _old: Option<&Value>) -> Vec<String> {
        let selector = object.map_at(&["scheduling", "nodeSelector"]).into_iter().flatten();
        selector
            .filter_map(|(key, _)| Some(format!("scheduling.nodeSelector[{key}]: {}", node::better_label(key)?)))
            .collect()
    }

    fn validate_update(&self, object: &Value, old: &Value, errors: &mut Errors) {
        self.validate(object, errors);
        meta::immutable_text(errors, &Path::new("handler"), object.text_at(&["handler"]), old.text_at(&["handler"]));
    }

    fn meta_looks(&self) -> meta::MetaLooks {
        meta::MetaLooks { finalizers: false, change: true, whole: 1 }
    }
}

//! PodDisruptionBudget.

use serde_json::Value;

use super::{at_most_all, int_or_percent, nonnegative_fields};
use crate::field::{Errors, Path};
use crate::kinds::go_shape::{self, Part, Shape};
use crate::kinds::{Kind, NameForm, meta};
use crate::object::Fields;

pub static KINDS: &[&dyn Kind] = &[&PodDisruptionBudget];

pub struct PodDisruptionBudget;

const SPEC: Shape = &[
    ("MinAvailable", "minAvailable", Part::Plain),
    ("Selector", "selector", Part::Meta("LabelSelector")),
    ("MaxUnavailable", "maxUnavailable", Part::Plain),
    ("UnhealthyPodEvictionPolicy", "unhealthyPodEvictionPolicy", Part::Plain),
];

const POLICIES: &[&str] = &["AlwaysAllow", "IfHealthyBudget"];

impl Kind for PodDisruptionBudget {
    fn group(&self) -> &'static str {
        "policy"
    }

    fn kind(&self) -> &'static str {
        "PodDisruptionBudget"
    }

    /// Upstream never looked at the names of budgets.
    fn name_form(&self) -> NameForm {
        NameForm::PathSegment
    }

    fn counts_generation(&self) -> bool {
        true
    }

    fn unconditional_update(&self) -> bool {
        false
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        let spec = &object["spec"];
        let path = Path::new("spec");
        let fields = ["minAvailable", "maxUnavailable"];
        if fields.iter().all(|field| spec.at(&[field]).is_some()) {
            let shown = go_shape::by_value(Some(spec), SPEC);
            errors.invalid(&path, shown, "minAvailable and maxUnavailable cannot be both set");
        }
        for field in fields {
            if let Some(value) = spec.at(&[field]) {
                int_or_percent(errors, &path.child(field), Some(value));
                at_most_all(errors, &path.child(field), Some(value));
            }
        }
        if let Some(selector) = spec.at(&["selector"]) {
            meta::label_selector(errors, &path.child("selector"), selector);
        }
        let policy = spec.at(&["unhealthyPodEvictionPolicy"]).and_then(Value::as_str);
        if let Some(policy) = policy.filter(|policy| !POLICIES.contains(policy)) {
            errors.not_supported(&path.child("unhealthyPodEvictionPolicy"), policy, POLICIES);
        }
    }

    fn validate_status_update(&self, object: &Value, _old: &Value, errors: &mut Errors) {
        let status = Path::new("status");
        meta::conditions(errors, &status.child("conditions"), object.list_at(&["status", "conditions"]));
        let numbers = ["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"];
        nonnegative_fields(errors, &status, &object["status"], &numbers);
    }

    fn meta_looks(&self) -> meta::MetaLooks {
        meta::MetaLooks { finalizers: false, change: false, whole: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_budget_says_one_of_two_things() {
        let mut errors = Errors::default();
        let spec = json!({"minAvailable": 1, "maxUnavailable": "50%", "selector": {"matchLabels": {"a": "b"}}});
        PodDisruptionBudget.validate(&json!({ "spec": spec }), &mut errors);
        assert_eq!(
            errors.0[0].to_string(),
            "spec: Invalid value: {\"MinAvailable\":1,\"Selector\":{\"matchLabels\":{\"a\":\"b\"}},\"MaxUnavailable\":\"50%\",\
             \"UnhealthyPodEvictionPolicy\":null}: minAvailable and maxUnavailable cannot be both set"
        );
    }
}

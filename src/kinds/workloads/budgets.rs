//! PodDisruptionBudget, and what the eviction of a pod takes from it.

use serde_json::{Value, json};

use super::{at_most_all, int_or_percent, nonnegative_fields};
use crate::field::{Errors, Path};
use crate::kinds::go_shape::{self, Part, Shape};
use crate::kinds::pods::subresources::set_condition;
use crate::kinds::{Kind, NameForm, meta};
use crate::object::Fields;
use crate::status::{ApiError, Cause, Details, Result};

pub static KINDS: &[&dyn Kind] = &[&PodDisruptionBudget];

pub struct PodDisruptionBudget;

/// The most pods whose eviction the budget's controller may not have seen yet.
const MOST_DISRUPTED: usize = 2000;

const DISRUPTION_ALLOWED: &str = "DisruptionAllowed";

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
        meta::MetaLooks { finalizers: false, change: false, whole: 0 }
    }
}

/// A pod that has ended, has not begun, or is going anyway disrupts nothing.
pub fn disrupts_nothing(pod: &Value) -> bool {
    matches!(pod.text_at(&["status", "phase"]), "Succeeded" | "Failed" | "Pending")
        || pod.at(&["metadata", "deletionTimestamp"]).is_some()
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod.list_at(&["status", "conditions"]);
    conditions.iter().any(|c| c.text_at(&["type"]) == "Ready" && c.text_at(&["status"]) == "True")
}

/// Takes one disruption from the budget that a pod is under. Says whether the budget has changed: a pod that isn't ready
/// counts for nothing, as long as the others are enough.
pub fn spend(budget: &mut Value, pod: &Value, now: &str) -> Result<bool> {
    let count = |field: &str| budget.int_at(&["status", field]).unwrap_or_default();
    let (current, desired) = (count("currentHealthy"), count("desiredHealthy"));
    let (allowed, observed) = (count("disruptionsAllowed"), count("observedGeneration"));
    if !is_ready(pod) {
        let always = budget.text_at(&["spec", "unhealthyPodEvictionPolicy"]) == "AlwaysAllow";
        if always || current >= desired && desired > 0 {
            return Ok(false);
        }
    }
    let name = budget.text_at(&["metadata", "name"]);
    if observed < budget.int_at(&["metadata", "generation"]).unwrap_or_default() {
        return Err(refused(format!("The disruption budget {name} is still being processed by the server."), 10));
    }
    let forbidden = |why: &str| Err(ApiError::forbidden("policy", "poddisruptionbudget", name, why));
    if allowed < 0 {
        return forbidden("pdb disruptions allowed is negative");
    }
    if budget.map_at(&["status", "disruptedPods"]).is_some_and(|pods| pods.len() > MOST_DISRUPTED) {
        return forbidden("DisruptedPods map too big - too many evictions not confirmed by PDB controller");
    }
    if allowed == 0 {
        return Err(refused(denial(budget, current, desired), 0));
    }
    budget.set(&["status", "disruptionsAllowed"], allowed - 1);
    if allowed == 1 {
        let exhausted = json!({
            "type": DISRUPTION_ALLOWED,
            "status": "False",
            "observedGeneration": observed,
            "reason": "InsufficientPods",
            "message": "",
        });
        set_condition(budget, exhausted);
    }
    // The controller counts the pod as gone until it is, or until it has taken too long.
    budget.set(&["status", "disruptedPods", pod.text_at(&["metadata", "name"])], now);
    Ok(true)
}

/// Why a budget has nothing to spend. What its controller could not work out comes first: then the numbers mean nothing.
fn denial(budget: &Value, current: i64, desired: i64) -> String {
    let name = budget.text_at(&["metadata", "name"]);
    let conditions = budget.list_at(&["status", "conditions"]).iter();
    let told = conditions.into_iter().find(|c| c.text_at(&["type"]) == DISRUPTION_ALLOWED);
    let told = told.filter(|c| c.text_at(&["status"]) == "False" && !c.text_at(&["message"]).is_empty());
    let (reason, message) = told.map_or(("", ""), |c| (c.text_at(&["reason"]), c.text_at(&["message"])));
    let not_now = format!("The disruption budget {name} does not allow evicting pods currently");
    match told {
        Some(_) if reason == "SyncFailed" => format!("{not_now} because it failed sync: {message}"),
        _ if current <= desired => {
            format!("The disruption budget {name} needs {desired} healthy pods and has {current} currently")
        }
        Some(_) => format!("{not_now} ({reason}): {message}"),
        None => not_now,
    }
}

fn refused(why: String, retry_after_seconds: u32) -> ApiError {
    let cause = Cause { reason: "DisruptionBudget".to_owned(), message: why, field: String::new() };
    ApiError::new(429, "TooManyRequests", "Cannot evict pod as it would violate the pod's disruption budget.")
        .with_details(Details { causes: vec![cause], retry_after_seconds, ..Details::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cause(budget: &mut Value, pod: &Value) -> Option<String> {
        let error = spend(budget, pod, "2026-01-01T00:00:00Z").err()?;
        assert_eq!(error.code, 429);
        error.details.map(|details| details.causes[0].message.clone())
    }

    #[test]
    fn an_eviction_spends_a_disruption() {
        let ready = json!({"metadata": {"name": "p"}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        let unready = json!({"metadata": {"name": "p"}});
        let mut budget = json!({
            "metadata": {"name": "b", "generation": 1},
            "status": {"observedGeneration": 1, "disruptionsAllowed": 1, "currentHealthy": 2, "desiredHealthy": 1},
        });
        let free = budget.clone();
        assert_eq!(spend(&mut budget, &unready, "now"), Ok(false));
        assert_eq!(budget, free);
        assert_eq!(spend(&mut budget, &ready, "now"), Ok(true));
        assert_eq!(budget["status"]["disruptionsAllowed"], 0);
        assert_eq!(budget["status"]["disruptedPods"], json!({"p": "now"}));
        assert_eq!(budget["status"]["conditions"][0]["reason"], "InsufficientPods");
        assert_eq!(
            cause(&mut budget, &ready).as_deref(),
            Some("The disruption budget b does not allow evicting pods currently")
        );
        budget["status"]["conditions"][0]["message"] = "m".into();
        assert!(cause(&mut budget, &ready).is_some_and(|why| why.ends_with("currently (InsufficientPods): m")));
        budget["status"]["conditions"][0]["reason"] = "SyncFailed".into();
        assert!(cause(&mut budget, &ready).is_some_and(|why| why.ends_with("because it failed sync: m")));
        budget["metadata"]["generation"] = 2.into();
        assert!(cause(&mut budget, &ready).is_some_and(|why| why.contains("still being processed")));
    }
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

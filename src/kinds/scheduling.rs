//! PriorityClass.

use serde_json::Value;

use super::Kind;
use super::meta;
use crate::field::{Errors, Path};
use crate::object::Fields;

pub static KINDS: &[&dyn Kind] = &[&PriorityClass];

pub struct PriorityClass;

/// The classes that Kubernetes itself makes.
pub const SYSTEM_CLASSES: &[(&str, i64)] =
    &[("system-node-critical", 2_000_001_000), ("system-cluster-critical", 2_000_000_000)];

const HIGHEST: i64 = 1_000_000_000;

const POLICIES: &[&str] = &["PreemptLowerPriority", "Never"];

/// Why a class may not have a name that begins with `system-`.
fn not_system(object: &Value) -> Option<String> {
    let name = object.text_at(&["metadata", "name"]);
    match SYSTEM_CLASSES.iter().find(|(system, _)| *system == name) {
        None => Some(format!("{name} is not a known system priority class")),
        Some((_, value)) if object.int_at(&["value"]).unwrap_or_default() != *value => {
            Some(format!("value of {name} PriorityClass must be {value}"))
        }
        Some(_) if object.bool_at(&["globalDefault"]) == Some(true) => {
            Some(format!("globalDefault of {name} PriorityClass must be false"))
        }
        Some(_) => None,
    }
}

impl Kind for PriorityClass {
    fn group(&self) -> &'static str {
        "scheduling.k8s.io"
    }

    fn kind(&self) -> &'static str {
        "PriorityClass"
    }

    fn has_status(&self) -> bool {
        false
    }

    fn counts_generation(&self) -> bool {
        true
    }

    fn generation_moves(&self, _object: &Value, _old: &Value) -> bool {
        false
    }

    fn default(&self, object: &mut Value) {
        object.set_default("preemptionPolicy", "PreemptLowerPriority");
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        if object.text_at(&["metadata", "name"]).starts_with("system-") {
            if let Some(why) = not_system(object) {
                let metadata = Path::new("metadata");
                let detail = format!(
                    "priority class names with 'system-' prefix are reserved for system use only. error: {why}"
                );
                errors.forbidden(&metadata.child("name"), detail);
            }
        } else if object.int_at(&["value"]).is_some_and(|value| value > HIGHEST) {
            let detail = format!("maximum allowed value of a user defined priority is {HIGHEST}");
            errors.forbidden(&Path::new("value"), detail);
        }
        if let Some(policy) = object.at(&["preemptionPolicy"]).and_then(Value::as_str) {
            let path = Path::new("preemptionPolicy");
            match policy {
                "" => errors.required(&path, ""),
                policy if !POLICIES.contains(&policy) => errors.not_supported(&path, policy, POLICIES),
                _ => {}
            }
        }
    }

    fn validate_update(&self, object: &Value, old: &Value, errors: &mut Errors) {
        if object.int_at(&["value"]) != old.int_at(&["value"]) {
            errors.forbidden(&Path::new("value"), "may not be changed in an update.");
        }
        let policy = ["preemptionPolicy"];
        meta::immutable(errors, &Path::new(policy[0]), object.at(&policy), old.at(&policy));
    }

    fn undeletable(&self, name: &str) -> Option<&'static str> {
        let system = SYSTEM_CLASSES.iter().any(|(known, _)| *known == name);
        system.then_some("this is a system priority class and cannot be deleted")
    }

    fn meta_looks(&self) -> meta::MetaLooks {
        meta::MetaLooks { finalizers: true, change: true, whole: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn system_names_are_for_system_classes() {
        let said = |name: &str, value: i64| {
            let mut errors = Errors::default();
            PriorityClass.validate(&json!({"metadata": {"name": name}, "value": value}), &mut errors);
            errors.0.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert!(said("system-node-critical", 2_000_001_000).is_empty());
        assert!(
            said("system-node-critical", 1)[0]
                .ends_with("value of system-node-critical PriorityClass must be 2000001000")
        );
        assert!(said("system-x", 1)[0].ends_with("error: system-x is not a known system priority class"));
        assert_eq!(
            said("a", 1_000_000_001),
            ["value: Forbidden: maximum allowed value of a user defined priority is 1000000000"]
        );
    }
}

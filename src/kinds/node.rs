//! Node.

use serde_json::{Value, json};

use super::go_shape::{self, Part, Shape};
use super::names;
use super::quantity;
use super::{Kind, Selectable, copy_field};
use crate::field::{ErrorKind, Errors, Path};
use crate::object::Fields;

pub static KINDS: &[&dyn Kind] = &[&Node];

pub struct Node;

const NOT_READY: &str = "node.kubernetes.io/not-ready";

const TAINT: Shape = &[
    ("Key", "key", Part::Text),
    ("Value", "value", Part::Text),
    ("Effect", "effect", Part::Text),
    ("TimeAdded", "timeAdded", Part::Plain),
];

const ADDRESS: Shape = &[("Type", "type", Part::Text), ("Address", "address", Part::Text)];

impl Kind for Node {
    fn group(&self) -> &'static str {
        ""
    }

    fn kind(&self) -> &'static str {
        "Node"
    }

    fn default(&self, object: &mut Value) {
        // The old singular field wins over the list, and always shows its first entry.
        let single = object.text_at(&["spec", "podCIDR"]).to_owned();
        let first =
            object.list_at(&["spec", "podCIDRs"]).first().and_then(Value::as_str).unwrap_or_default().to_owned();
        if !single.is_empty() && single != first {
            object.set(&["spec", "podCIDRs"], json!([single]));
        } else if single.is_empty() && !first.is_empty() {
            object.set(&["spec", "podCIDR"], first);
        }
        if object.at(&["status", "allocatable"]).is_none()
            && let Some(capacity) = object.at(&["status", "capacity"]).cloned()
        {
            object.set(&["status", "allocatable"], capacity);
        }
    }

    /// A kubelet registers its node together with its status. Until that says ready, nothing is scheduled there.
    fn prepare_create(&self, object: &mut Value) {
        let spec = object.make_map(&["spec"]);
        if let Value::Array(taints) = spec.entry("taints").or_insert_with(|| json!([]))
            && !taints.iter().any(|t| t.text_at(&["key"]) == NOT_READY && t.text_at(&["effect"]) == "NoSchedule")
        {
            taints.push(json!({ "key": NOT_READY, "effect": "NoSchedule" }));
        }
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        check_taints(object, errors);
        check_resources(object, errors);
        let spec = Path::new("spec");
        let path = spec.child("podCIDRs");
        let cidrs = object.list_at(&["spec", "podCIDRs"]);
        for (i, cidr) in cidrs.iter().enumerate() {
            names::cidr(errors, &path.index(i), cidr.as_str().unwrap_or_default());
        }
        if cidrs.len() > 1 {
            let texts: Vec<&str> = cidrs.iter().filter_map(Value::as_str).collect();
            let v6 = texts.iter().filter(|text| text.contains(':')).count();
            if texts.len() != 2 || v6 != 1 {
                errors.invalid(
                    &path,
                    &object["spec"]["podCIDRs"],
                    "may specify no more than one CIDR for each IP family",
                );
            }
        }
    }

    fn validate_update(&self, object: &Value, old: &Value, errors: &mut Errors) {
        self.validate(object, errors);
        check_change(object, old, errors);
    }

    fn prepare_status_update(&self, object: &mut Value, old: &Value) {
        copy_field(object, old, "spec");
    }

    fn validate_status_update(&self, object: &Value, old: &Value, errors: &mut Errors) {
        check_change(object, old, errors);
    }

    fn warnings(&self, object: &Value, _old: Option<&Value>) -> Vec<String> {
        let mut warnings = names::spelling_warnings("spec.podCIDRs", object.list_at(&["spec", "podCIDRs"]));
        if object.at(&["spec", "configSource"]).is_some() {
            warnings.push("spec.configSource: the field is deprecated, and is unused by Kubernetes".to_owned());
        }
        if !object.text_at(&["spec", "externalID"]).is_empty() {
            warnings.push("spec.externalID: this field is deprecated, and is unused by Kubernetes".to_owned());
        }
        warnings
    }

    fn selectable(&self) -> &'static [Selectable] {
        &[("spec.unschedulable", |object| object.bool_at(&["spec", "unschedulable"]).unwrap_or_default().to_string())]
    }
}

/// Node labels that have better names by now.
const DEPRECATED_LABELS: &[(&str, &str, &str)] = &[
    ("beta.kubernetes.io/arch", "v1.14", "kubernetes.io/arch"),
    ("beta.kubernetes.io/os", "v1.14", "kubernetes.io/os"),
    ("failure-domain.beta.kubernetes.io/region", "v1.17", "topology.kubernetes.io/region"),
    ("failure-domain.beta.kubernetes.io/zone", "v1.17", "topology.kubernetes.io/zone"),
    ("beta.kubernetes.io/instance-type", "v1.17", "node.kubernetes.io/instance-type"),
];

/// What to say of a node label that has a better name.
pub fn better_label(label: &str) -> Option<String> {
    let (_, since, instead) = DEPRECATED_LABELS.iter().find(|(name, ..)| *name == label)?;
    Some(format!("deprecated since {since}; use \"{instead}\" instead"))
}

/// The warning for a node label that the expression at `path` selects by.
pub fn deprecated_label(path: &str, label: &str) -> Option<String> {
    Some(format!("{path}: {label} is {}", better_label(label)?))
}

/// What a node may become, and the status that it has.
fn check_change(object: &Value, old: &Value, errors: &mut Errors) {
    check_resources(object, errors);
    let spec = Path::new("spec");
    let status = Path::new("status");
    let addresses = object.list_at(&["status", "addresses"]);
    for (i, address) in addresses.iter().enumerate().filter(|(i, address)| addresses[..*i].contains(address)) {
        let path = status.child("addresses");
        errors.duplicate(&path.index(i), go_shape::by_value(Some(address), ADDRESS));
    }
    let (before, after) = (old.list_at(&["spec", "podCIDRs"]), object.list_at(&["spec", "podCIDRs"]));
    let changed = match before.len() {
        0 => 0,
        n if n != after.len() => 1,
        _ => before.iter().zip(after).filter(|(a, b)| a != b).count(),
    };
    for _ in 0..changed {
        errors.forbidden(&spec.child("podCIDRs"), "node updates may not change podCIDR except from \"\" to valid");
    }
    let provider = old.text_at(&["spec", "providerID"]);
    if !provider.is_empty() && provider != object.text_at(&["spec", "providerID"]) {
        errors.forbidden(&spec.child("providerID"), "node updates may not change providerID except from \"\" to valid");
    }
    check_taints(object, errors);
    if old.text_at(&["spec", "externalID"]) != object.text_at(&["spec", "externalID"]) {
        errors.forbidden(&spec.child("externalID"), "may not be updated");
    }
}

/// Upstream reports taints under `metadata`, where they once were annotations.
fn check_taints(object: &Value, errors: &mut Errors) {
    let metadata = Path::new("metadata");
    let list = metadata.child("taints");
    let taints = object.list_at(&["spec", "taints"]);
    for (i, taint) in taints.iter().enumerate() {
        let path = list.index(i);
        let key = taint.text_at(&["key"]);
        names::invalid_each(errors, &path.child("key"), key, names::qualified_name(key));
        let value = taint.text_at(&["value"]);
        let wrong = names::label_value(value);
        if !wrong.is_empty() {
            errors.invalid(&path.child("value"), value, wrong.join(";"));
        }
        let effect = taint.text_at(&["effect"]);
        match effect {
            "" => errors.required(&path.child("effect"), ""),
            "NoSchedule" | "PreferNoSchedule" | "NoExecute" => {}
            _ => errors.not_supported(&path.child("effect"), effect, &["NoSchedule", "PreferNoSchedule", "NoExecute"]),
        }
        if taints[..i].iter().any(|t| t.text_at(&["key"]) == key && t.text_at(&["effect"]) == effect) {
            errors.push(
                ErrorKind::Duplicate,
                &path,
                go_shape::by_value(Some(taint), TAINT),
                "taints must be unique by key and effect pair",
            );
        }
    }
}

fn check_resources(object: &Value, errors: &mut Errors) {
    let status = Path::new("status");
    for list in ["capacity", "allocatable"] {
        for (name, amount) in object.map_at(&["status", list]).into_iter().flatten() {
            let path = status.child(list);
            quantity::resource_value(errors, &path.child(name), name, amount);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_node_waits_for_its_first_report() {
        let mut node = json!({"spec": {"podCIDR": "10.1.0.0/24", "podCIDRs": ["10.2.0.0/24"]}});
        Node.default(&mut node);
        assert_eq!(node["spec"]["podCIDRs"], json!(["10.1.0.0/24"]));
        Node.prepare_create(&mut node);
        Node.prepare_create(&mut node);
        assert_eq!(node["spec"]["taints"], json!([{"key": NOT_READY, "effect": "NoSchedule"}]));
    }

    #[test]
    fn taints_are_unique_and_addresses_stay() {
        let taint = json!({"key": "a", "effect": "NoSchedule"});
        let node = json!({"spec": {"taints": [taint, taint], "podCIDRs": ["10.2.0.0/24"]}});
        let mut errors = Errors::default();
        check_change(&node, &json!({"spec": {"podCIDRs": ["10.1.0.0/24"], "providerID": "p"}}), &mut errors);
        let fields: Vec<&str> = errors.0.iter().map(|e| e.field.as_str()).collect();
        assert_eq!(fields, ["spec.podCIDRs", "spec.providerID", "metadata.taints[1]"]);
        assert!(errors.0[2].value.contains(r#""TimeAdded":null"#));
    }
}

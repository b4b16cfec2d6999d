//! Plugins about pods: ServiceAccount, DefaultTolerationSeconds, RuntimeClass, PodTopologyLabels. What they know of pods
//! is in `kinds::pods::admission`.

use serde_json::{Map, Value};

use super::{Admission, Operation, Plugin, admitted};
use crate::kinds::pods::admission as rules;
use crate::object::Fields;
use crate::status::Result;
use crate::verbs::create::generated;

fn is_new_pod(admission: &Admission<'_>) -> bool {
    admission.operation == Operation::Create && admission.is_whole("pods")
}

pub(super) const SERVICE_ACCOUNT: Plugin =
    Plugin { handles: is_new_pod, mutate: add_service_account, validate: check_service_account };

fn account(admission: &Admission<'_>, pod: &Value) -> Result<Value> {
    let (namespace, name) = (admission.request.namespace(), rules::account_name(pod));
    let record = admission.view.get(&format!("serviceaccounts/{namespace}/{name}"));
    let account = record.and_then(|record| serde_json::from_slice(&record.value).ok());
    account.ok_or_else(|| admission.forbidden(pod, rules::account_missing(namespace, name)))
}

fn add_service_account(admission: &mut Admission<'_>, pod: &mut Value) -> Result<()> {
    if !rules::is_mirror(pod) {
        let account = account(admission, pod)?;
        rules::add_service_account(pod, &account, &generated(rules::TOKEN_VOLUME));
    }
    Ok(())
}

fn check_service_account(admission: &mut Admission<'_>, pod: &Value) -> Result<()> {
    let verdict = if rules::is_mirror(pod) {
        rules::check_mirror(pod)
    } else {
        rules::check_service_account(pod, &account(admission, pod)?)
    };
    verdict.map_err(|why| admission.forbidden(pod, why))
}

pub(super) const TOLERATIONS: Plugin = Plugin {
    handles: |admission| admission.operation != Operation::Delete && admission.is_whole("pods"),
    mutate: |_, pod| {
        rules::add_tolerations(pod);
        Ok(())
    },
    validate: admitted,
};

pub(super) const TOPOLOGY_LABELS: Plugin = Plugin {
    handles: |admission| {
        let info = &admission.request.info;
        let binding = info.resource == "pods" && info.subresource == "binding" || info.resource == "bindings";
        is_new_pod(admission) || binding && admission.operation == Operation::Create
    },
    mutate: |admission, object| {
        let bound = object.text_at(&["target", "name"]);
        let node = if bound.is_empty() { object.text_at(&["spec", "nodeName"]) } else { bound };
        let record = admission.view.get(&format!("nodes/{node}")).filter(|_| !node.is_empty());
        if let Some(node) = record.and_then(|record| serde_json::from_slice::<Value>(&record.value).ok()) {
            rules::add_topology_labels(object, &node);
        }
        Ok(())
    },
    validate: admitted,
};

pub(super) const RUNTIME_CLASS: Plugin = Plugin { handles: is_new_pod, mutate: apply_class, validate: check_overhead };

/// The runtime class that a pod names; none where it names none.
fn class(admission: &Admission<'_>, pod: &Value) -> Result<Option<Value>> {
    let Some(name) = pod.at(&["spec", "runtimeClassName"]).and_then(Value::as_str) else { return Ok(None) };
    let record = admission.view.get(&format!("runtimeclasses.node.k8s.io/{name}"));
    match record.and_then(|record| serde_json::from_slice(&record.value).ok()) {
        Some(class) => Ok(Some(class)),
        None => Err(admission.forbidden(pod, format!("pod rejected: RuntimeClass \"{name}\" not found"))),
    }
}

const OVERHEAD: [&str; 2] = ["spec", "overhead"];
const OTHER_OVERHEAD: &str = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";

fn apply_class(admission: &mut Admission<'_>, pod: &mut Value) -> Result<()> {
    let Some(class) = class(admission, pod)? else { return Ok(()) };
    if class.at(&["overhead"]).is_some() {
        let fixed = class.at(&["overhead", "podFixed"]).cloned().unwrap_or_else(|| Map::new().into());
        if pod.at(&OVERHEAD).is_some_and(|own| *own != fixed) {
            return Err(admission.forbidden(pod, OTHER_OVERHEAD));
        }
        pod.set(&OVERHEAD, fixed);
    }
    let selector = ["spec", "nodeSelector"];
    for (key, value) in class.map_at(&["scheduling", "nodeSelector"]).into_iter().flatten() {
        if let Some(own) = pod.at(&selector).and_then(|own| own.get(key)).filter(|own| *own != value) {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let why = format!(
                "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {}; pod.spec.nodeSelector[{key}] = {}",
                text(value),
                text(own)
            );
            return Err(admission.forbidden(pod, why));
        }
        pod.make_map(&selector).insert(key.clone(), value.clone());
    }
    let more = class.list_at(&["scheduling", "tolerations"]);
    if !more.is_empty() {
        let all = [pod.list_at(&["spec", "tolerations"]), more].concat();
        pod.set(&["spec", "tolerations"], merged(&all));
    }
    Ok(())
}

fn check_overhead(admission: &mut Admission<'_>, pod: &Value) -> Result<()> {
    let class = class(admission, pod)?;
    let own = pod.at(&OVERHEAD);
    let why = match class.as_ref().and_then(|class| class.at(&["overhead"])) {
        Some(overhead) if overhead.at(&["podFixed"]) != own => OTHER_OVERHEAD,
        None if own.is_some() => "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead",
        _ => return Ok(()),
    };
    Err(admission.forbidden(pod, why))
}

/// Tolerations without those that others of them cover; of equal ones the first stays.
fn merged(all: &[Value]) -> Vec<Value> {
    let mut kept: Vec<Value> = Vec::with_capacity(all.len());
    for (i, toleration) in all.iter().enumerate() {
        let earlier = kept.iter().any(|other| covers(other, toleration));
        let later = all[i + 1..].iter().any(|other| other != toleration && covers(other, toleration));
        if !earlier && !later {
            kept.push(toleration.clone());
        }
    }
    kept
}

fn covers(whole: &Value, part: &Value) -> bool {
    let text = |value: &Value, field: &str| value.text_at(&[field]).to_owned();
    let seconds = |value: &Value| value.int_at(&["tolerationSeconds"]);
    if whole == part {
        return true;
    }
    let exists = text(whole, "operator") == "Exists";
    let any_key = text(whole, "key").is_empty() && exists;
    if text(part, "key") != text(whole, "key") && !any_key {
        return false;
    }
    let effect = text(whole, "effect");
    if text(part, "effect") != effect && !effect.is_empty() {
        return false;
    }
    if effect == "NoExecute"
        && let Some(most) = seconds(whole)
        && seconds(part).is_none_or(|seconds| seconds > most)
    {
        return false;
    }
    exists || text(part, "operator") == text(whole, "operator") && text(part, "value") == text(whole, "value")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn covered_tolerations_are_merged() {
        let all = [
            json!({"key": "a", "operator": "Equal", "value": "x", "effect": "NoExecute", "tolerationSeconds": 5}),
            json!({"key": "b", "operator": "Exists"}),
            json!({"key": "b", "operator": "Exists", "effect": "NoSchedule"}),
            json!({"key": "a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 4}),
        ];
        assert_eq!(merged(&all), [all[0].clone(), all[1].clone(), all[3].clone()]);
        let any = json!({"operator": "Exists"});
        assert_eq!(merged(&[all[0].clone(), any.clone()]), [any]);
    }
}

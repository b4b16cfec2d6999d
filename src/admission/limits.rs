//! LimitRanger: what limit ranges give to the containers of new pods, and what they let pods and claims ask for.

use std::collections::BTreeMap;

use kontiki_storage::View;
use serde_json::Value;

use super::{Admission, Operation, Plugin};
use crate::field::aggregate;
use crate::kinds::pods::resources::{Amounts, aggregate as total, amounts, fits_whole_pod};
use crate::object::Fields;
use crate::quantity::Quantity;
use crate::status::Result;

pub(super) const PLUGIN: Plugin = Plugin { handles, mutate, validate };

fn handles(admission: &Admission<'_>) -> bool {
    let info = &admission.request.info;
    let ends = admission.old.is_some_and(|old| old.at(&["metadata", "deletionTimestamp"]).is_some());
    let looks = match (admission.operation, admission.table(), info.subresource.as_str()) {
        // The containers of a pod stay what they are but for their resizing.
        (Operation::Create, "pods" | "persistentvolumeclaims", "") => true,
        (Operation::Update, "persistentvolumeclaims", "") | (Operation::Update, "pods", "resize") => true,
        _ => false,
    };
    looks && !ends
}

/// The limits of all limit ranges of the namespace, range by range.
fn ranges(view: &View, namespace: &str) -> Vec<Value> {
    let records = view.prefix(&format!("limitranges/{namespace}/"));
    records.filter_map(|record| serde_json::from_slice(&record.value).ok()).collect()
}

fn mutate(admission: &mut Admission<'_>, object: &mut Value) -> Result<()> {
    if admission.table() != "pods" {
        return Ok(());
    }
    for range in ranges(admission.view, admission.request.namespace()) {
        let of_containers = |limit: &&Value| limit.text_at(&["type"]) == "Container";
        let limits: Vec<&Value> = range.list_at(&["spec", "limits"]).iter().filter(of_containers).collect();
        let mut notes = Vec::new();
        for (list, what) in [("containers", "container"), ("initContainers", "init container")] {
            for container in object.items_mut(&["spec", list]) {
                let name = container.text_at(&["name"]).to_owned();
                let requested = fill(container, "requests", "defaultRequest", &limits);
                let limited = fill(container, "limits", "default", &limits);
                for (set, kind) in [(requested, "request"), (limited, "limit")] {
                    if !set.is_empty() {
                        notes.push(format!("{} {kind} for {what} {name}", set.join(", ")));
                    }
                }
            }
        }
        if !notes.is_empty() {
            let note = format!("LimitRanger plugin set: {}", notes.join("; "));
            object.set(&["metadata", "annotations", "kubernetes.io/limit-ranger"], note);
        }
    }
    Ok(())
}

/// Sets the defaults that a container leaves out; says which.
fn fill(container: &mut Value, list: &str, default: &str, limits: &[&Value]) -> Vec<String> {
    let mut set = Vec::new();
    for (name, amount) in limits.iter().filter_map(|limit| limit.map_at(&[default])).flatten() {
        let path = ["resources", list, name];
        if container.at(&path).is_none() {
            container.set(&path, amount.clone());
            set.push(name.clone());
        }
    }
    set.sort();
    set
}

fn validate(admission: &mut Admission<'_>, object: &Value) -> Result<()> {
    let pod = admission.table() == "pods";
    for range in ranges(admission.view, admission.request.namespace()) {
        let mut errors = Vec::new();
        for limit in range.list_at(&["spec", "limits"]) {
            match (limit.text_at(&["type"]), pod) {
                ("Container", true) => {
                    for list in ["containers", "initContainers"] {
                        for container in object.list_at(&["spec", list]) {
                            let [requests, limits] = ["requests", "limits"].map(|list| amounts(container, list));
                            check(limit, &requests, Some(&limits), &mut errors);
                        }
                    }
                }
                ("Pod", true) => {
                    let [requests, limits] = ["requests", "limits"].map(|list| of_pod(&object["spec"], list));
                    check(limit, &requests, Some(&limits), &mut errors);
                }
                ("PersistentVolumeClaim", false) => {
                    check(limit, &amounts(&object["spec"], "requests"), None, &mut errors);
                }
                _ => {}
            }
        }
        if !errors.is_empty() {
            return Err(admission.forbidden(object, aggregate(&errors)));
        }
    }
    Ok(())
}

fn of_pod(spec: &Value, list: &str) -> Amounts {
    let mut sum = total(spec, list);
    sum.extend(amounts(spec, list).into_iter().filter(|(name, _)| fits_whole_pod(name)));
    sum
}

/// Holds amounts against one limit. Claims have no limits of their own, only requests.
fn check(limit: &Value, requests: &Amounts, limits: Option<&Amounts>, errors: &mut Vec<String>) {
    let kind = limit.text_at(&["type"]);
    let bounds = |list: &str| -> BTreeMap<String, Quantity> {
        let map = limit.map_at(&[list]).into_iter().flatten();
        map.filter_map(|(name, amount)| Some((name.clone(), Quantity::parse(amount.as_str()?).ok()?))).collect()
    };
    for (name, least) in bounds("min") {
        let rule = format!("minimum {name} usage per {kind} is {least}");
        let limited = limits.and_then(|limits| limits.get(&name));
        match (requests.get(&name), limited) {
            (None, _) => errors.push(format!("{rule}.  No request is specified")),
            (Some(request), _) if *request < least => errors.push(format!("{rule}, but request is {request}")),
            (_, Some(limit)) if *limit < least => errors.push(format!("{rule}, but limit is {limit}")),
            _ => {}
        }
    }
    for (name, most) in bounds("max") {
        let rule = format!("maximum {name} usage per {kind} is {most}");
        let request = requests.get(&name);
        match (limits.map(|limits| limits.get(&name)), request) {
            (Some(None), _) => errors.push(format!("{rule}.  No limit is specified")),
            (None, None) => errors.push(format!("{rule}.  No request is specified")),
            (Some(Some(limit)), _) if *limit > most => errors.push(format!("{rule}, but limit is {limit}")),
            (_, Some(request)) if *request > most => errors.push(format!("{rule}, but request is {request}")),
            _ => {}
        }
    }
    let Some(limits) = limits else { return };
    for (name, most) in bounds("maxLimitRequestRatio") {
        let rule = format!("{name} max limit to request ratio per {kind} is {most}");
        let given = |amounts: &Amounts| amounts.get(&name).copied().filter(|amount| !amount.is_zero());
        let (Some(request), Some(limit)) = (given(requests), given(limits)) else {
            let what = if given(requests).is_none() { "request" } else { "limit" };
            errors.push(format!("{rule}, but no {what} is specified or {what} is 0"));
            continue;
        };
        let ratio = limit.nanos() as f64 / request.nanos() as f64;
        if ratio * 1000.0 > most.milli_value() as f64 {
            errors.push(format!("{rule}, but provided ratio is {ratio:.6}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn amounts_are_held_against_limits() {
        let limit = json!({
            "type": "Container", "min": {"cpu": "50m"}, "max": {"cpu": "2"}, "maxLimitRequestRatio": {"memory": "2"},
        });
        let said = |requests: Value, limits: Value| {
            let container = json!({"resources": {"requests": requests, "limits": limits}});
            let mut errors = Vec::new();
            check(&limit, &amounts(&container, "requests"), Some(&amounts(&container, "limits")), &mut errors);
            errors
        };
        let fine = json!({"cpu": "1", "memory": "1Mi"});
        assert_eq!(said(fine.clone(), fine.clone()), [""; 0]);
        assert_eq!(
            said(json!({"memory": "1Mi"}), json!({"cpu": "3", "memory": "4Mi"})),
            [
                "minimum cpu usage per Container is 50m.  No request is specified",
                "maximum cpu usage per Container is 2, but limit is 3",
                "memory max limit to request ratio per Container is 2, but provided ratio is 4.000000",
            ]
        );
    }
}

//! The status of a pod, which its kubelet and scheduler write.

use serde_json::Value;

use super::security::check_id;
use super::update::check_annotation_change;
use super::{Latitude, drop_disabled_fields};
use crate::field::{Errors, Path, Raw};
use crate::kinds::{copy_field, meta, names};
use crate::object::Fields;

const STATUS: Path<'static> = Path::new("status");

pub fn prepare(pod: &mut Value, old: &Value) {
    copy_field(pod, old, "spec");
    pod.make_map(&["metadata"]);
    pod.make_map(&["status"]);
    if let (Some(metadata), Some(before)) = (pod.at_mut(&["metadata"]), old.at(&["metadata"])) {
        copy_field(metadata, before, "deletionTimestamp");
        copy_field(metadata, before, "ownerReferences");
    }
    if let (Some(status), Some(before)) = (pod.at_mut(&["status"]), old.at(&["status"])) {
        if status.text_at(&["qosClass"]).is_empty() {
            copy_field(status, before, "qosClass");
        }
        keep_observed_generations(status, before);
    }
    drop_disabled_fields(pod);
}

/// What was once observed stays so: clients that do not know the field must not clear it.
fn keep_observed_generations(status: &mut Value, before: &Value) {
    let field = "observedGeneration";
    let unset = |value: &Value| value.int_at(&[field]).unwrap_or_default() == 0;
    if unset(status) {
        copy_field(status, before, field);
    }
    let mut old: Vec<&Value> = before.list_at(&["conditions"]).iter().collect();
    for condition in status.items_mut(&["conditions"]) {
        let kind = condition.text_at(&["type"]);
        let Some(at) = old.iter().position(|other| other.text_at(&["type"]) == kind) else { continue };
        let before = old.remove(at);
        if unset(condition) {
            copy_field(condition, before, field);
        }
    }
}

const OWN_CONDITIONS: &[&str] = &["PodScheduled", "Ready", "Initialized"];

pub fn check_update(pod: &Value, old: &Value, errors: &mut Errors) {
    check_annotation_change(pod, old, &Latitude::of(Some(old), true), errors);
    let (status, before) = (&pod["status"], &old["status"]);
    let conditions = Path::new("metadata");
    let conditions = conditions.child("conditions");
    for (i, condition) in status.list_at(&["conditions"]).iter().enumerate() {
        let kind = condition.text_at(&["type"]);
        if !OWN_CONDITIONS.contains(&kind) {
            // Upstream reports these under the metadata.
            let at = conditions.index(i);
            names::invalid_each(errors, &at.child("Type"), kind, names::qualified_name(kind));
        }
    }
    let nominated = status.text_at(&["nominatedNodeName"]);
    if !nominated.is_empty() && nominated != before.text_at(&["nominatedNodeName"]) {
        let at = STATUS.child("nominatedNodeName");
        names::invalid_each(errors, &at, nominated, names::dns_subdomain(nominated));
        if !pod.text_at(&["spec", "nodeName"]).is_empty() {
            errors.forbidden(&at, "may not be set on pods that are already bound to a node");
        }
    }
    let class = ["qosClass"];
    meta::immutable(errors, &STATUS.child("qosClass"), status.at(&class), before.at(&class));
    check_transitions(pod, old, errors);
    check_claim_statuses(pod, errors);
    check_addresses(status, "podIPs", errors);
    check_addresses(status, "hostIPs", errors);
    for list in ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"] {
        check_users(pod, list, errors);
        check_allocated(pod, list, errors);
    }
}

/// Containers that are done stay so, where the pod does not restart them.
fn check_transitions(pod: &Value, old: &Value, errors: &mut Errors) {
    let policy = old.text_at(&["spec", "restartPolicy"]);
    let spec = &old["spec"];
    for list in ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"] {
        let policy = if list == "ephemeralContainerStatuses" { "Never" } else { policy };
        if policy == "Always" {
            continue;
        }
        let path = STATUS.child(list);
        for (i, before) in old.list_at(&["status", list]).iter().enumerate() {
            let name = before.text_at(&["name"]);
            let Some(ended) = before.at(&["state", "terminated"]) else { continue };
            let failed = ended.int_at(&["exitCode"]).unwrap_or_default() != 0;
            if failed && policy == "OnFailure" || restarts_itself(spec, list, name, ended) {
                continue;
            }
            let again = |now: &&Value| now.text_at(&["name"]) == name && now.at(&["state", "terminated"]).is_none();
            for _ in pod.list_at(&["status", list]).iter().filter(again) {
                let at = path.index(i);
                errors.forbidden(&at.child("state"), "may not be transitioned to non-terminated state");
            }
        }
    }
}

/// Whether the container itself says that it is to be restarted, whatever the pod says.
fn restarts_itself(spec: &Value, list: &str, name: &str, ended: &Value) -> bool {
    let field = match list {
        "containerStatuses" => "containers",
        "initContainerStatuses" => "initContainers",
        _ => return false,
    };
    let containers = spec.list_at(&[field]);
    let Some(container) = containers.iter().find(|container| container.text_at(&["name"]) == name) else {
        return false;
    };
    let code = ended.int_at(&["exitCode"]).unwrap_or_default();
    match container.text_at(&["restartPolicy"]) {
        "Always" => true,
        "OnFailure" if code != 0 => true,
        "" => false,
        _ => container.list_at(&["restartPolicyRules"]).iter().any(|rule| {
            let named = rule.list_at(&["exitCodes", "values"]).iter().any(|value| value.as_i64() == Some(code));
            named == (rule.text_at(&["exitCodes", "operator"]) == "In")
        }),
    }
}

fn check_claim_statuses(pod: &Value, errors: &mut Errors) {
    let path = STATUS.child("resourceClaimStatuses");
    let claims = pod.list_at(&["spec", "resourceClaims"]);
    let statuses = pod.list_at(&["status", "resourceClaimStatuses"]);
    for (i, status) in statuses.iter().enumerate() {
        let at = path.index(i);
        let at = at.child("name");
        let name = status.text_at(&["name"]);
        if !claims.iter().any(|claim| claim.text_at(&["name"]) == name) {
            errors.invalid(&at, name, "must match the name of an entry in `spec.resourceClaims`");
        }
        if statuses[..i].iter().any(|other| other.text_at(&["name"]) == name) {
            errors.duplicate(&at, name);
        }
        if let Some(claim) = status.at(&["resourceClaimName"]).and_then(Value::as_str) {
            names::invalid_each(errors, &at, claim, names::dns_subdomain(claim));
        }
    }
}

/// At most one address of each family.
fn check_addresses(status: &Value, list: &str, errors: &mut Errors) {
    let path = STATUS.child(list);
    let items = status.list_at(&[list]);
    let texts: Vec<&str> = items.iter().map(|item| item.text_at(&["ip"])).collect();
    if let Some(first) = texts.first().filter(|ip| list == "hostIPs" && **ip != status.text_at(&["hostIP"])) {
        let at = path.index(0);
        errors.invalid(&at.child("ip"), *first, "must be equal to `hostIP`");
    }
    for (i, ip) in texts.iter().enumerate() {
        names::ip(errors, &path.index(i), ip);
    }
    if texts.len() < 2 {
        return;
    }
    let families = texts.iter().filter(|ip| ip.contains(':')).count();
    if texts.len() > 2 || families != 1 {
        let shown: Vec<String> = texts.iter().map(|ip| format!("{{\"IP\":{}}}", Value::from(*ip))).collect();
        let shown = Raw(format!("[{}]", shown.join(",")));
        errors.invalid(&path, shown, "may specify no more than one IP for each IP family");
    }
    for (i, ip) in texts.iter().enumerate().filter(|(i, ip)| texts[..*i].contains(ip)) {
        errors.duplicate(&path.index(i), Raw(format!("{{\"IP\":{}}}", Value::from(*ip))));
    }
}

fn check_users(pod: &Value, list: &str, errors: &mut Errors) {
    let path = STATUS.child(list);
    let windows = pod.text_at(&["spec", "os", "name"]) == "windows";
    for (i, status) in pod.list_at(&["status", list]).iter().enumerate() {
        let Some(user) = status.at(&["user", "linux"]) else { continue };
        let at = path.index(i);
        let at = at.child("linux");
        if windows {
            errors.forbidden(&at, "cannot be set for a windows pod");
            continue;
        }
        for field in ["uid", "gid"] {
            check_id(errors, &at.child(field), user.int_at(&[field]).unwrap_or_default());
        }
        let groups = at.child("supplementalGroups");
        for (j, group) in user.list_at(&["supplementalGroups"]).iter().enumerate() {
            check_id(errors, &groups.index(j), group.as_i64().unwrap_or_default());
        }
    }
}

/// The health of what was allocated to a container is told of what it asked for.
fn check_allocated(pod: &Value, list: &str, errors: &mut Errors) {
    const HEALTH: &[&str] = &["Healthy", "Unhealthy", "Unknown"];
    let path = STATUS.child(list);
    let field = if list == "containerStatuses" { "containers" } else { "initContainers" };
    for (i, status) in pod.list_at(&["status", list]).iter().enumerate() {
        let at = path.index(i);
        let at = at.child("allocatedResourcesStatus");
        let allocated = status.list_at(&["allocatedResourcesStatus"]);
        if list == "ephemeralContainerStatuses" {
            if !allocated.is_empty() {
                errors.forbidden(&at, "must not be specified in container status");
            }
            continue;
        }
        let name = status.text_at(&["name"]);
        let container = pod.list_at(&["spec", field]).iter().find(|container| container.text_at(&["name"]) == name);
        for (j, resource) in allocated.iter().enumerate() {
            let at = at.index(j);
            let name = resource.text_at(&["name"]);
            if let Some((false, detail)) = container.map(|container| is_asked_for(container, name)) {
                errors.invalid(&at.child("name"), name, detail);
            }
            let items = resource.list_at(&["resources"]);
            let list = at.child("resources");
            for (k, item) in items.iter().enumerate() {
                let at = list.index(k);
                let health = item.text_at(&["health"]);
                if !HEALTH.contains(&health) {
                    errors.not_supported(&at.child("health"), health, HEALTH);
                }
                let id = item.text_at(&["resourceID"]);
                if items[..k].iter().any(|other| other.text_at(&["resourceID"]) == id) {
                    errors.duplicate(&at.child("resourceID"), id);
                }
            }
        }
    }
}

fn is_asked_for(container: &Value, name: &str) -> (bool, &'static str) {
    let Some(claim) = name.strip_prefix("claim:") else {
        let requests = container.map_at(&["resources", "requests"]);
        let found = requests.is_some_and(|requests| requests.contains_key(name));
        return (found, "must match one of the container's resource requests");
    };
    let named = |own: &Value| match own.text_at(&["request"]) {
        "" => claim == own.text_at(&["name"]),
        request => claim == format!("{}/{request}", own.text_at(&["name"])),
    };
    let detail = "must match one of the container's resource claims in a format 'claim:<claimName>/<request>' or \
                  'claim:<claimName>' if request is empty";
    (container.list_at(&["resources", "claims"]).iter().any(named), detail)
}

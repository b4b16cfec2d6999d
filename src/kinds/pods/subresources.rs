//! What the subresources of a pod change: its ephemeral containers, its resources, its node; and how long it may take
//! to end.

use serde_json::{Map, Value, json};

use super::resources::{Amounts, amounts, is_sidecar, qos_class};
use super::shapes::ephemeral_diff;
use super::update::{MIRROR, check_annotation_change, check_pod};
use super::{Latitude, drop_disabled_fields};
use crate::field::{Errors, Path, go_quote};
use crate::kinds::{copy_field, meta};
use crate::object::Fields;
use crate::status::ApiError;

const SPEC: Path<'static> = Path::new("spec");
const ROOT: Path<'static> = Path::new("[]");

/// What the metadata of a pod keep when a subresource is written.
const KEPT_METADATA: &[&str] =
    &["deletionTimestamp", "generation", "selfLink", "labels", "annotations", "finalizers", "ownerReferences"];

fn keep_all_but(pod: &mut Value, old: &Value) {
    copy_field(pod, old, "status");
    pod.make_map(&["metadata"]);
    if let (Some(metadata), Some(before)) = (pod.at_mut(&["metadata"]), old.at(&["metadata"])) {
        for field in KEPT_METADATA {
            copy_field(metadata, before, field);
        }
    }
}

/// `pods/ephemeralcontainers` changes these containers and nothing else.
pub fn prepare_ephemeral_update(pod: &mut Value, old: &Value) {
    let containers = pod.at(&["spec", "ephemeralContainers"]).cloned();
    copy_field(pod, old, "spec");
    keep_all_but(pod, old);
    match containers {
        Some(containers) => pod.set(&["spec", "ephemeralContainers"], containers),
        None => drop(pod.take_at(&["spec", "ephemeralContainers"])),
    }
    drop_disabled_fields(pod);
}

pub fn validate_ephemeral_update(pod: &Value, old: &Value, errors: &mut Errors) {
    if is_mirror(old) {
        errors.0.clear();
        return errors.forbidden(&ROOT, "static pods do not support ephemeral containers");
    }
    let latitude = Latitude::of(Some(old), true);
    check_pod(pod, &latitude, errors);
    check_annotation_change(pod, old, &latitude, errors);
    let path = SPEC.child("ephemeralContainers");
    let containers = pod.list_at(&["spec", "ephemeralContainers"]);
    for before in old.list_at(&["spec", "ephemeralContainers"]) {
        let name = before.text_at(&["name"]);
        let what = format!("existing ephemeral containers {}", go_quote(name));
        match containers.iter().rfind(|container| container.text_at(&["name"]) == name) {
            None => errors.forbidden(&path, format!("{what} may not be removed\n")),
            Some(now) if now != before => {
                errors.forbidden(&path, format!("{what} may not be changed\n{}", ephemeral_diff(before, now)));
            }
            Some(_) => {}
        }
    }
}

fn is_mirror(pod: &Value) -> bool {
    pod.at(&["metadata", "annotations", MIRROR]).is_some()
}

/// `pods/resize` changes resources and resize policies. Where the containers are not the same ones, all stays as it was
/// sent, for validation to object.
pub fn prepare_resize(pod: &mut Value, old: &Value) {
    const LISTS: &[&str] = &["containers", "initContainers"];
    let same = |list: &&str| {
        let (new, old) = (pod.list_at(&["spec", list]), old.list_at(&["spec", list]));
        new.len() == old.len()
    };
    if !LISTS.iter().all(same) {
        return;
    }
    let sent = pod.at(&["spec"]).cloned().unwrap_or_default();
    copy_field(pod, old, "spec");
    keep_all_but(pod, old);
    let Some(spec) = pod.at_mut(&["spec"]) else { return };
    copy_field(spec, &sent, "resources");
    for list in LISTS {
        let sent = sent.list_at(&[list]);
        let named = spec.list_at(&[list]).iter().zip(sent).all(|(a, b)| a.text_at(&["name"]) == b.text_at(&["name"]));
        if !named {
            spec.set(&[list], sent);
            continue;
        }
        for (container, sent) in spec.items_mut(&[list]).zip(sent) {
            copy_field(container, sent, "resources");
            copy_field(container, sent, "resizePolicy");
        }
    }
    drop_disabled_fields(pod);
}

const ONLY_USUAL: &str = "only cpu and memory resources are mutable";

pub fn validate_resize(pod: &Value, old: &Value, errors: &mut Errors) {
    let impossible = if is_mirror(old) {
        Some("static pods cannot be resized")
    } else if old.text_at(&["spec", "os", "name"]) == "windows" {
        Some("windows pods cannot be resized")
    } else {
        None
    };
    if let Some(why) = impossible {
        errors.0.clear();
        return errors.forbidden(&ROOT, why);
    }
    let start = errors.0.len();
    check_pod(pod, &Latitude::of(Some(old), true), errors);
    let (spec, before) = (&pod["spec"], &old["spec"]);
    for list in ["containers", "initContainers"] {
        if spec.list_at(&[list]).len() != before.list_at(&[list]).len() {
            return errors.forbidden(&SPEC.child(list), "pod updates may not add or remove containers");
        }
    }
    if qos_class(before) != qos_class(spec) {
        let class = pod.text_at(&["status", "qosClass"]);
        errors.invalid(&SPEC, class, "Pod QOS Class may not change as a result of resizing");
    }
    if !node_resizes(old) {
        errors.forbidden(&SPEC, "Pod running on node without support for resize");
    }
    let mut rest = spec.clone();
    check_kept_resources(spec, before, &SPEC.child("resources"), errors);
    keep_usual_resources(&mut rest, before);
    for list in ["initContainers", "containers"] {
        let path = SPEC.child(list);
        for (i, (container, before)) in rest.items_mut(&[list]).zip(before.list_at(&[list])).enumerate() {
            let init = list == "initContainers";
            if init && !is_sidecar(container) {
                if container != before {
                    errors.forbidden(&SPEC, "resources for non-sidecar init containers are immutable");
                }
                continue;
            }
            let at = path.index(i);
            check_kept_resources(container, before, &at.child("resources"), errors);
            keep_usual_resources(container, before);
            if container != before {
                let what =
                    if init { "only cpu and memory resources for sidecar containers are mutable" } else { ONLY_USUAL };
                errors.forbidden(&SPEC, what);
            }
        }
    }
    if errors.0.len() == start && rest != *before {
        errors.forbidden(&SPEC, ONLY_USUAL);
    }
}

/// A running container whose status tells its resources is on a node that can resize it.
fn node_resizes(pod: &Value) -> bool {
    let statuses = pod.list_at(&["status", "containerStatuses"]);
    let running = statuses.iter().find(|status| status.at(&["state", "running"]).is_some());
    running.is_none_or(|status| status.at(&["resources"]).is_some())
}

fn check_kept_resources(owner: &Value, before: &Value, path: &Path<'_>, errors: &mut Errors) {
    for list in ["requests", "limits"] {
        let (now, then): (Amounts, Amounts) = (amounts(owner, list), amounts(before, list));
        if then.keys().any(|name| !now.contains_key(name)) {
            errors.forbidden(&path.child(list), format!("resource {list} cannot be removed"));
        }
    }
}

/// Puts back the amounts that may change.
fn keep_usual_resources(owner: &mut Value, before: &Value) {
    for list in ["requests", "limits"] {
        for name in ["cpu", "memory"] {
            let path = ["resources", list, name];
            match before.at(&path) {
                Some(amount) => owner.set(&path, amount.clone()),
                None => drop(owner.take_at(&path)),
            }
        }
        let path = ["resources", list];
        if owner.map_at(&path).is_some_and(Map::is_empty) && before.at(&path).is_none() {
            owner.take_at(&path);
        }
    }
}

/// `pods/binding`: assigns a pod to a node, and takes over the annotations and labels of the binding.
pub fn bind(pod: &mut Value, binding: &Value) -> Result<(), ApiError> {
    let name = pod.text_at(&["metadata", "name"]).to_owned();
    let refuse = |why: String| Err(ApiError::conflict("", "pods/binding", &name, why));
    if pod.at(&["metadata", "deletionTimestamp"]).is_some() {
        return refuse(format!("pod {name} is being deleted, cannot be assigned to a host"));
    }
    let node = pod.text_at(&["spec", "nodeName"]);
    if !node.is_empty() {
        return refuse(format!("pod {name} is already assigned to node {}", go_quote(node)));
    }
    if !pod.list_at(&["spec", "schedulingGates"]).is_empty() {
        return refuse(format!("pod {name} has non-empty .spec.schedulingGates"));
    }
    pod.set(&["spec", "nodeName"], binding.text_at(&["target", "name"]));
    pod.take_at(&["status", "nominatedNodeName"]);
    for field in ["annotations", "labels"] {
        if let Some(more) = binding.map_at(&["metadata", field]).filter(|more| !more.is_empty()) {
            pod.make_map(&["metadata", field]).extend(more.clone());
        }
    }
    set_condition(pod, json!({ "type": "PodScheduled", "status": "True" }));
    Ok(())
}

/// Sets a condition of a pod. Its time of transition stays where its status does.
pub fn set_condition(pod: &mut Value, mut condition: Value) {
    let status = pod.make_map(&["status"]);
    let list = status.entry("conditions").or_insert_with(|| json!([]));
    let Value::Array(conditions) = list else { return };
    let before = conditions.iter_mut().find(|other| other.text_at(&["type"]) == condition.text_at(&["type"]));
    match before {
        Some(before) if before.text_at(&["status"]) == condition.text_at(&["status"]) => {
            copy_field(&mut condition, before, "lastTransitionTime");
            *before = condition;
        }
        before => {
            condition.set(&["lastTransitionTime"], meta::now());
            match before {
                Some(before) => *before = condition,
                None => conditions.push(condition),
            }
        }
    }
}

/// How many seconds a pod has from its deletion to its end, when `asked` is what the client said. A pod that no kubelet
/// runs, or that has ended, goes at once.
pub fn grace_period(pod: &Value, asked: Option<i64>) -> i64 {
    let ended = matches!(pod.text_at(&["status", "phase"]), "Failed" | "Succeeded");
    if pod.text_at(&["spec", "nodeName"]).is_empty() || ended {
        return 0;
    }
    match asked.or_else(|| pod.int_at(&["spec", "terminationGracePeriodSeconds"])).unwrap_or_default() {
        negative if negative < 0 => 1,
        period => period,
    }
}

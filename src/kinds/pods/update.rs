//! What a pod may become: the few fields of its spec that change after creation.

use serde_json::Value;

use super::Latitude;
use super::containers::check_image_padding;
use super::scheduling::REQUIRED;
use super::security::{APP_ARMOR, check_security_annotations};
use super::shapes::spec_diff;
use super::spec::check_spec;
use crate::field::{Errors, Path, Raw};
use crate::kinds::volume_shapes::NODE_SELECTOR_TERM;
use crate::kinds::{copy_field, go_shape, pod_parts};
use crate::object::Fields;

pub const MIRROR: &str = "kubernetes.io/config.mirror";
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
const SPEC: Path<'static> = Path::new("spec");
const METADATA: Path<'static> = Path::new("metadata");

fn annotations(pod: &Value) -> &Value {
    pod.at(&["metadata", "annotations"]).unwrap_or(&Value::Null)
}

/// What it costs to delete a pod, for the controller that chooses among several. Fails where it is no plain number.
pub fn deletion_cost(pod: &Value) -> Result<i32, ()> {
    let Some(text) = annotations(pod).get(DELETION_COST).and_then(Value::as_str) else { return Ok(0) };
    let plain = text == "0" || text.starts_with(['-', '1', '2', '3', '4', '5', '6', '7', '8', '9']);
    text.parse().ok().filter(|_| plain).ok_or(())
}

/// Annotations that mean something to a pod or template.
pub fn check_pod_annotations(pod: &Value, path: &Path<'_>, latitude: &Latitude, errors: &mut Errors) {
    let annotations = annotations(pod);
    let spec = pod.at(&["spec"]).unwrap_or(&Value::Null);
    if let Some(mirror) = annotations.get(MIRROR).filter(|_| spec.text_at(&["nodeName"]).is_empty()) {
        errors.invalid(&path.key(MIRROR), mirror, "must set spec.nodeName if mirror pod annotation is set");
    }
    if deletion_cost(pod).is_err() && !latitude.any_deletion_cost {
        errors.invalid(&path.key(DELETION_COST), &annotations[DELETION_COST], "must be a 32bit integer");
    }
    check_security_annotations(annotations, spec, path, errors);
}

/// A pod on its own, without what its metadata have in common with everyone's.
pub fn check_pod(pod: &Value, latitude: &Latitude, errors: &mut Errors) {
    let spec = pod.at(&["spec"]).unwrap_or(&Value::Null);
    check_pod_annotations(pod, &METADATA.child("annotations"), latitude, errors);
    check_spec(spec, Some(pod.text_at(&["metadata", "name"])), &SPEC, latitude, errors);
    if spec.text_at(&["serviceAccountName"]).is_empty() {
        let volumes = SPEC.child("volumes");
        for (i, volume) in spec.list_at(&["volumes"]).iter().enumerate() {
            let at = volumes.index(i);
            let at = at.child("projected");
            let sources = at.child("sources");
            for (j, source) in volume.list_at(&["projected", "sources"]).iter().enumerate() {
                if source.at(&["serviceAccountToken"]).is_some() {
                    let at = sources.index(j);
                    let detail = "must not be specified when serviceAccountName is not set";
                    errors.forbidden(&at.child("serviceAccountToken"), detail);
                }
            }
        }
    }
    for list in ["containers", "initContainers"] {
        let path = SPEC.child(list);
        for (i, container) in spec.list_at(&[list]).iter().enumerate() {
            check_image_padding(container, &path.index(i), errors);
        }
    }
}

/// Annotations that stay as they were.
pub fn check_annotation_change(pod: &Value, old: &Value, latitude: &Latitude, errors: &mut Errors) {
    let path = METADATA.child("annotations");
    let (new, before) = (annotations(pod), annotations(old));
    let mut each = |key: &str, verb: &str| {
        if key.starts_with(APP_ARMOR) {
            errors.forbidden(&path.key(key), format!("may not {verb} AppArmor annotations"));
        }
        if key == MIRROR {
            errors.forbidden(&path.key(key), format!("may not {verb} mirror pod annotation"));
        }
    };
    for (key, value) in before.as_object().into_iter().flatten() {
        if new.get(key) != Some(value) {
            each(key, "remove or update");
        }
    }
    for (key, _) in new.as_object().into_iter().flatten() {
        if before.get(key).is_none() {
            each(key, "add");
        }
    }
    check_pod_annotations(pod, &path, latitude, errors);
}

/// What a client may change of a pod, as the message lists it.
const MAY_CHANGE: &str = "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,\
                          `spec.tolerations` (only additions to existing tolerations),\
                          `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

pub fn check_update(pod: &Value, old: &Value, errors: &mut Errors) {
    let latitude = Latitude::of(Some(old), true);
    check_pod(pod, &latitude, errors);
    check_annotation_change(pod, old, &latitude, errors);
    let (spec, before) = (&pod["spec"], &old["spec"]);
    for list in ["containers", "initContainers"] {
        if !check_container_change(spec, before, list, errors) {
            return;
        }
    }
    if !check_deadline(spec, before, errors) {
        return;
    }
    check_added_tolerations(spec, before, errors);
    check_removed_gates(spec, before, errors);
    if spec == before {
        return;
    }
    // What may change is put back before the rest is compared.
    let mut rest = spec.clone();
    for list in ["containers", "initContainers"] {
        for (container, before) in rest.items_mut(&[list]).zip(before.list_at(&[list])) {
            copy_field(container, before, "image");
        }
    }
    for field in ["activeDeadlineSeconds", "schedulingGates", "tolerations"] {
        copy_field(&mut rest, before, field);
    }
    let grace = "terminationGracePeriodSeconds";
    if before.int_at(&[grace]).is_some_and(|seconds| seconds < 0) && spec.int_at(&[grace]) == Some(1) {
        copy_field(&mut rest, before, grace);
    }
    if !before.list_at(&["schedulingGates"]).is_empty() {
        check_gated(&mut rest, before, errors);
    }
    if rest != *before {
        let diff = spec_diff(Some(before), Some(&rest));
        errors.forbidden(&SPEC, format!("pod updates may not change fields other than {MAY_CHANGE}\n{diff}"));
    }
}

/// Containers stay the same ones. False where they don't, and nothing more can be compared.
fn check_container_change(spec: &Value, before: &Value, list: &str, errors: &mut Errors) -> bool {
    let path = SPEC.child(list);
    let containers = spec.list_at(&[list]);
    if containers.len() != before.list_at(&[list]).len() {
        errors.forbidden(&path, "pod updates may not add or remove containers");
        return false;
    }
    for (i, container) in containers.iter().enumerate() {
        if container.text_at(&["image"]).is_empty() {
            let at = path.index(i);
            errors.required(&at.child("image"), "");
        }
        check_image_padding(container, &path.index(i), errors);
    }
    true
}

fn check_deadline(spec: &Value, before: &Value, errors: &mut Errors) -> bool {
    let path = SPEC.child("activeDeadlineSeconds");
    let deadline = |spec: &Value| spec.int_at(&["activeDeadlineSeconds"]);
    match (deadline(spec), deadline(before)) {
        (Some(new), _) if !(0..=i64::from(i32::MAX)).contains(&new) => {
            errors.invalid(&path, new, "must be between 0 and 2147483647, inclusive");
            false
        }
        (Some(new), Some(old)) if old < new => {
            errors.invalid(&path, new, "must be less than or equal to previous value");
            false
        }
        (None, Some(_)) => {
            let detail = "must not update from a positive integer to nil value";
            errors.invalid(&path, Raw("null".to_owned()), detail);
            true
        }
        _ => true,
    }
}

fn check_added_tolerations(spec: &Value, before: &Value, errors: &mut Errors) {
    let path = SPEC.child("tolerations");
    let without_seconds = |toleration: &Value| {
        let mut toleration = toleration.clone();
        toleration.take_at(&["tolerationSeconds"]);
        toleration
    };
    let tolerations = spec.list_at(&["tolerations"]);
    let kept: Vec<Value> = tolerations.iter().map(without_seconds).collect();
    if before.list_at(&["tolerations"]).iter().any(|old| !kept.contains(&without_seconds(old))) {
        errors.forbidden(&path, "existing toleration can not be modified except its tolerationSeconds");
    } else {
        pod_parts::tolerations(errors, &path, tolerations);
    }
}

fn check_removed_gates(spec: &Value, before: &Value, errors: &mut Errors) {
    let path = SPEC.child("schedulingGates");
    let known = before.list_at(&["schedulingGates"]);
    for (i, gate) in spec.list_at(&["schedulingGates"]).iter().enumerate() {
        let name = gate.text_at(&["name"]);
        if !known.iter().any(|old| old.text_at(&["name"]) == name) {
            let at = path.index(i);
            let detail = format!("only deletion is allowed, but found new scheduling gate '{name}'");
            errors.forbidden(&at.child("name"), detail);
        }
    }
}

/// Where a pod that still waits at a gate may run can be narrowed down.
fn check_gated(rest: &mut Value, before: &Value, errors: &mut Errors) {
    let (selector, old) = (rest.at(&["nodeSelector"]), before.map_at(&["nodeSelector"]));
    let kept = |(key, value): (&String, &Value)| selector.and_then(|selector| selector.get(key)) == Some(value);
    if !old.into_iter().flatten().all(kept) {
        let shown = Raw(selector.map_or("null".to_owned(), Value::to_string));
        let detail = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
        errors.invalid(&SPEC.child("nodeSelector"), shown, detail);
    }
    copy_field(rest, before, "nodeSelector");
    let affinity = ["affinity", "nodeAffinity"];
    if rest.at(&affinity) == before.at(&affinity) {
        return;
    }
    check_narrowed_affinity(rest, before, errors);
    match before.at(&affinity) {
        Some(old) => rest.set(&affinity, old.clone()),
        None => {
            rest.take_at(&affinity);
            if rest.map_at(&["affinity"]).is_some_and(|map| map.is_empty()) && before.at(&["affinity"]).is_none() {
                rest.take_at(&["affinity"]);
            }
        }
    }
}

fn check_narrowed_affinity(spec: &Value, before: &Value, errors: &mut Errors) {
    let terms = ["affinity", "nodeAffinity", REQUIRED, "nodeSelectorTerms"];
    let (new, old) = (spec.list_at(&terms), before.list_at(&terms));
    let affinity = SPEC.child("affinity");
    let node = affinity.child("nodeAffinity");
    let required = node.child(REQUIRED);
    let path = required.child("nodeSelectorTerms");
    let shown = |term: &Value| go_shape::by_value(Some(term), NODE_SELECTOR_TERM).0;
    if !old.is_empty() && old.len() != new.len() {
        let all: Vec<String> = new.iter().map(shown).collect();
        let all = if new.is_empty() { "null".to_owned() } else { format!("[{}]", all.join(",")) };
        errors.invalid(&path, Raw(all), "no additions/deletions to non-empty NodeSelectorTerms list are allowed");
        return;
    }
    for (i, (new, old)) in new.iter().zip(old).enumerate() {
        let lists = ["matchExpressions", "matchFields"];
        let only_added = |list: &&str| {
            let (new, old) = (new.list_at(&[list]), old.list_at(&[list]));
            new.get(..old.len()).is_some_and(|start| start == old)
        };
        let was_empty = lists.iter().all(|list| old.list_at(&[list]).is_empty());
        if was_empty && new != old || !lists.iter().all(only_added) {
            let detail = "only additions are allowed (no mutations or deletions)";
            errors.invalid(&path.index(i), Raw(shown(new)), detail);
        }
    }
}

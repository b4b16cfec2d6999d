//! Scale: the face through which the replicas of a workload are counted and set, whatever its kind.

use serde_json::{Value, json};

use super::nonnegative;
use crate::field::{Errors, Path};
use crate::kinds::{Kind, meta, selector};
use crate::object::Fields;
use crate::status::{ApiError, Result};

pub static KINDS: &[&dyn Kind] = &[&Scale];

/// The kinds that have the face; of them all, only the selector differs in its form.
const SCALABLE: &[(&str, &str)] =
    &[("apps", "Deployment"), ("apps", "ReplicaSet"), ("apps", "StatefulSet"), ("", "ReplicationController")];

const REPLICAS: [&str; 2] = ["spec", "replicas"];

pub struct Scale;

impl Kind for Scale {
    fn group(&self) -> &'static str {
        "autoscaling"
    }

    fn kind(&self) -> &'static str {
        "Scale"
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        let spec = Path::new("spec");
        nonnegative(errors, &spec.child("replicas"), object.int_at(&REPLICAS));
    }
}

pub fn is_scalable(group: &str, kind: &str) -> bool {
    SCALABLE.contains(&(group, kind))
}

/// The face of a workload as it is stored.
pub fn to_scale(object: &Value) -> Value {
    let mut scale = json!({ "kind": "Scale", "apiVersion": "autoscaling/v1", "spec": {}, "status": { "replicas": 0 } });
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = object.at(&["metadata", field]) {
            scale.set(&["metadata", field], value.clone());
        }
    }
    if let Some(replicas) = object.int_at(&REPLICAS).filter(|replicas| *replicas != 0) {
        scale.set(&REPLICAS, replicas);
    }
    scale.set(&["status", "replicas"], object.int_at(&["status", "replicas"]).unwrap_or_default());
    let found = object.at(&["spec", "selector"]);
    let shown = if object.text_at(&["kind"]) == "ReplicationController" {
        selector::text(found.map(|labels| json!({ "matchLabels": labels })).as_ref())
    } else {
        selector::text(found)
    };
    if !shown.is_empty() {
        scale.set(&["status", "selector"], shown);
    }
    scale
}

/// Sets the replicas of a workload to what a scale that a client sent asks for. `resource` is the plural. The revision
/// that the scale names becomes that of the workload, for the caller to hold against the stored one.
pub fn apply_scale(object: &mut Value, scale: &Value, group: &str, resource: &str) -> Result<()> {
    let name = object.text_at(&["metadata", "name"]).to_owned();
    let mut errors = Errors::default();
    meta::validate_create(&Scale, true, scale, &mut errors);
    Scale.validate(scale, &mut errors);
    if !errors.is_empty() {
        return Err(ApiError::invalid(Scale.group(), Scale.kind(), &name, &errors.0));
    }
    let (asked, uid) = (scale.text_at(&["metadata", "uid"]), object.text_at(&["metadata", "uid"]));
    if !asked.is_empty() && asked != uid {
        let why = format!("Precondition failed: UID in precondition: {asked}, UID in object meta: {uid}");
        return Err(ApiError::conflict(group, &format!("{resource}/scale"), &name, why));
    }
    object.set(&REPLICAS, scale.int_at(&REPLICAS).unwrap_or_default());
    match scale.at(&["metadata", "resourceVersion"]) {
        Some(version) => object.set(&["metadata", "resourceVersion"], version.clone()),
        None => drop(object.take_at(&["metadata", "resourceVersion"])),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn controller() -> Value {
        json!({
            "kind": "ReplicationController",
            "metadata": {"name": "a", "namespace": "n", "uid": "u", "generation": 3},
            "spec": {"replicas": 3, "selector": {"v": "1", "app": "a"}},
            "status": {"replicas": 2},
        })
    }

    #[test]
    fn a_workload_shows_its_replicas() {
        let scale = to_scale(&controller());
        assert_eq!(scale["metadata"], json!({"name": "a", "namespace": "n", "uid": "u"}));
        assert_eq!(scale["spec"], json!({"replicas": 3}));
        assert_eq!(scale["status"], json!({"replicas": 2, "selector": "app=a,v=1"}));
    }

    #[test]
    fn a_scale_sets_replicas_only() {
        let mut object = controller();
        let mut scale = to_scale(&object);
        scale["status"]["replicas"] = 40.into();
        scale["spec"] = json!({});
        apply_scale(&mut object, &scale, "", "replicationcontrollers").expect("fine");
        assert_eq!((&object["spec"]["replicas"], &object["status"]["replicas"]), (&json!(0), &json!(2)));
        scale["metadata"]["uid"] = "other".into();
        let error = apply_scale(&mut object, &scale, "", "replicationcontrollers").expect_err("another");
        assert!(
            error.message.starts_with("Operation cannot be fulfilled on replicationcontrollers/scale \"a\": Precond")
        );
        scale["spec"]["replicas"] = (-1).into();
        let error = apply_scale(&mut object, &scale, "", "replicationcontrollers").expect_err("negative");
        assert_eq!(
            error.message,
            "Scale.autoscaling \"a\" is invalid: spec.replicas: Invalid value: -1: must be greater than or equal to 0"
        );
    }
}

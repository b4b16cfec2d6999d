//! Pod: its life from creation through updates of its spec and status.

use serde_json::{Value, json};

use super::defaults::default_pod;
use super::resources::qos_class;
use super::scheduling::merge_label_keys;
use super::security::{APP_ARMOR, app_armor_field, check_profile_annotations};
use super::subresources::grace_period;
use super::template::{PodTemplate, drop_disabled_fields};
use super::update::{check_pod, check_update};
use super::warnings::{app_armor_warning, warnings};
use super::{Latitude, status};
use crate::field::{Errors, Path};
use crate::kinds::{Kind, Selectable, copy_field, meta, names};
use crate::object::Fields;

pub static KINDS: &[&dyn Kind] = &[&Pod, &PodTemplate];

pub struct Pod;

impl Kind for Pod {
    fn group(&self) -> &'static str {
        ""
    }

    fn kind(&self) -> &'static str {
        "Pod"
    }

    fn default(&self, object: &mut Value) {
        default_pod(object);
    }

    fn prepare_create(&self, object: &mut Value) {
        let class = object.at(&["spec"]).map_or("BestEffort", qos_class);
        object.set(&["status"], json!({ "phase": "Pending", "qosClass": class }));
        drop_disabled_fields(object);
        if !object.list_at(&["spec", "schedulingGates"]).is_empty() {
            let condition = json!({
                "type": "PodScheduled",
                "status": "False",
                "reason": "SchedulingGated",
                "message": "Scheduling is blocked due to non-empty scheduling gates",
                "lastTransitionTime": meta::now(),
            });
            object.set(&["status", "conditions"], json!([condition]));
        }
        merge_label_keys(object);
        adopt_app_armor_annotations(object);
    }

    fn prepare_update(&self, object: &mut Value, old: &Value) {
        copy_field(object, old, "status");
        drop_disabled_fields(object);
    }

    fn prepare_status_update(&self, object: &mut Value, old: &Value) {
        status::prepare(object, old);
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        check_pod(object, &Latitude::of(None, true), errors);
        let spec_path = Path::new("spec");
        let spec = object.at(&["spec"]).unwrap_or(&Value::Null);
        if !spec.list_at(&["ephemeralContainers"]).is_empty() {
            errors.forbidden(&spec_path.child("ephemeralContainers"), "cannot be set on create");
        }
        if !spec.text_at(&["nodeName"]).is_empty() && !spec.list_at(&["schedulingGates"]).is_empty() {
            let detail = "cannot be set until all schedulingGates have been cleared";
            errors.forbidden(&spec_path.child("nodeName"), detail);
        }
        let annotations = object.at(&["metadata", "annotations"]).unwrap_or(&Value::Null);
        check_profile_annotations(annotations, spec, &spec_path, errors);
    }

    fn validate_update(&self, object: &Value, old: &Value, errors: &mut Errors) {
        check_update(object, old, errors);
    }

    fn validate_status_update(&self, object: &Value, old: &Value, errors: &mut Errors) {
        status::check_update(object, old, errors);
    }

    /// Updates of pods are left alone: they come too often, and rarely from people.
    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        if old.is_some() {
            return Vec::new();
        }
        let mut found = Vec::new();
        let name = names::dns_label(object.text_at(&["metadata", "name"]));
        if !name.is_empty() {
            found.push(format!(
                "metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; a DNS \
                 label is recommended: [{}]",
                name.join(" ")
            ));
        }
        found.extend(adopted_annotations(object));
        found.extend(warnings(object, ""));
        found
    }

    fn counts_generation(&self) -> bool {
        true
    }

    fn grace(&self, object: &Value, asked: Option<i64>) -> Option<i64> {
        Some(grace_period(object, asked))
    }

    fn selectable(&self) -> &'static [Selectable] {
        &[
            ("spec.nodeName", |pod| pod.text_at(&["spec", "nodeName"]).to_owned()),
            ("spec.restartPolicy", |pod| pod.text_at(&["spec", "restartPolicy"]).to_owned()),
            ("spec.schedulerName", |pod| pod.text_at(&["spec", "schedulerName"]).to_owned()),
            ("spec.serviceAccountName", |pod| pod.text_at(&["spec", "serviceAccountName"]).to_owned()),
            ("spec.hostNetwork", |pod| pod.bool_at(&["spec", "hostNetwork"]).unwrap_or_default().to_string()),
            ("status.phase", |pod| pod.text_at(&["status", "phase"]).to_owned()),
            ("status.podIP", |pod| pod.text_at(&["status", "podIP"]).to_owned()),
            ("status.nominatedNodeName", |pod| pod.text_at(&["status", "nominatedNodeName"]).to_owned()),
        ]
    }
}

fn annotated_profile(pod: &Value, container: &Value) -> Option<Value> {
    let key = format!("{APP_ARMOR}{}", container.text_at(&["name"]));
    pod.at(&["metadata", "annotations", &key]).and_then(Value::as_str).and_then(app_armor_field)
}

/// AppArmor profiles that stand in annotations become the fields of their containers, unless the pod says the same.
fn adopt_app_armor_annotations(pod: &mut Value) {
    if pod.text_at(&["spec", "os", "name"]) == "windows" {
        return;
    }
    let own = ["securityContext", "appArmorProfile"];
    let whole = pod.at(&["spec", "securityContext", "appArmorProfile"]).cloned();
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        let containers = pod.list_at(&["spec", list]);
        let adopted: Vec<Option<Value>> = containers
            .iter()
            .map(|container| {
                let profile = annotated_profile(pod, container).filter(|_| container.at(&own).is_none());
                profile.filter(|profile| Some(profile) != whole.as_ref())
            })
            .collect();
        for (container, profile) in pod.items_mut(&["spec", list]).zip(adopted) {
            if let Some(profile) = profile {
                container.set(&own, profile);
            }
        }
    }
}

/// Warnings about the annotations that were adopted, or could not be.
fn adopted_annotations(pod: &Value) -> Vec<String> {
    if pod.text_at(&["spec", "os", "name"]) == "windows" {
        return Vec::new();
    }
    let spec = pod.at(&["spec"]).unwrap_or(&Value::Null);
    let mut found = Vec::new();
    for (_, _, container) in super::security::containers(spec) {
        let name = container.text_at(&["name"]);
        let annotated = pod.at(&["metadata", "annotations", &format!("{APP_ARMOR}{name}")]).is_some();
        let profile = annotated_profile(pod, container);
        let own = container.at(&["securityContext", "appArmorProfile"]);
        if annotated && (profile.is_none() && own.is_none() || profile.is_some() && profile.as_ref() == own) {
            found.push(app_armor_warning(name));
        }
    }
    found
}

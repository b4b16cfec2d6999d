//! Deployment, ReplicaSet, ReplicationController, ControllerRevision.

use serde_json::{Value, json};

use super::{
    SelectorWords, amount, at_most_all, check_collisions, check_endless, check_labels, check_replicas, check_selector,
    check_template, default_template, int_or_percent, keep_annotation, name_warning, nonnegative, nonnegative_fields,
    prepare_create, prepare_update, template_warnings,
};
use crate::field::{Errors, Path};
use crate::kinds::go_shape::{self, Part, Shape};
use crate::kinds::{Kind, NameForm, Selectable, copy_field, meta, pods, selector};
use crate::object::Fields;

pub static KINDS: &[&dyn Kind] = &[&Deployment, &ReplicaSet, &ReplicationController, &ControllerRevision];

const SELECTOR: SelectorWords = SelectorWords { kind: "deployment", invalid: "invalid label selector" };

const LOOKS: meta::MetaLooks = meta::MetaLooks { finalizers: true, change: true, whole: 0 };

pub struct Deployment;

/// Once a field, and still part of the spec for those who read it.
const ROLLBACK: &str = "deprecated.deployment.rollback.revision";

const STRATEGY: Shape = &[
    ("Type", "type", Part::Text),
    (
        "RollingUpdate",
        "rollingUpdate",
        Part::Pointer(&[("MaxUnavailable", "maxUnavailable", Part::Int), ("MaxSurge", "maxSurge", Part::Int)]),
    ),
];

fn check_strategy(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let path = path.child("strategy");
    let rolling = path.child("rollingUpdate");
    let update = spec.at(&["strategy", "rollingUpdate"]);
    match (spec.text_at(&["strategy", "type"]), update) {
        ("Recreate", Some(_)) => {
            errors.forbidden(&rolling, "may not be specified when strategy `type` is 'Recreate'");
        }
        ("Recreate", None) => {}
        ("RollingUpdate", None) => errors.required(&rolling, "this should be defaulted and never be nil"),
        ("RollingUpdate", Some(update)) => {
            let (unavailable, surge) = (update.at(&["maxUnavailable"]), update.at(&["maxSurge"]));
            let at = rolling.child("maxUnavailable");
            int_or_percent(errors, &at, unavailable);
            int_or_percent(errors, &rolling.child("maxSurge"), surge);
            if amount(unavailable) == 0 && amount(surge) == 0 {
                errors.invalid(&at, unavailable.unwrap_or(&json!(0)), "may not be 0 when `maxSurge` is 0");
            }
            at_most_all(errors, &at, unavailable);
        }
        _ => {
            let shown = go_shape::by_value(spec.at(&["strategy"]), STRATEGY);
            errors.not_supported(&path, shown, &["Recreate", "RollingUpdate"]);
        }
    }
}

impl Deployment {
    fn check(object: &Value, old: Option<&Value>, errors: &mut Errors) {
        let spec = &object["spec"];
        let path = Path::new("spec");
        nonnegative(errors, &path.child("replicas"), spec.int_at(&["replicas"]));
        check_selector(errors, &path, spec, &SELECTOR);
        check_template(errors, &path, spec, old.map(|old| &old["spec"]), "ReplicaSet");
        check_strategy(spec, &path, errors);
        nonnegative_fields(
            errors,
            &path,
            spec,
            &["minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"],
        );
        let deadline = spec.int_at(&["progressDeadlineSeconds"]);
        if let Some(deadline) = deadline.filter(|d| *d <= spec.int_at(&["minReadySeconds"]).unwrap_or_default()) {
            errors.invalid(&path.child("progressDeadlineSeconds"), deadline, "must be greater than minReadySeconds");
        }
    }
}

impl Kind for Deployment {
    fn group(&self) -> &'static str {
        "apps"
    }

    fn kind(&self) -> &'static str {
        "Deployment"
    }

    fn counts_generation(&self) -> bool {
        true
    }

    /// Annotations count too: controllers take over some of them.
    fn generation_moves(&self, object: &Value, old: &Value) -> bool {
        let differs = |path: &[&str]| object.at(path) != old.at(path);
        differs(&["spec"]) || differs(&["metadata", "annotations"])
    }

    fn default(&self, object: &mut Value) {
        let spec = object.make_map(&["spec"]);
        spec.entry("strategy").or_insert_with(|| json!({}));
        if let Some(spec) = object.at_mut(&["spec"]) {
            spec.set_default("replicas", 1);
            if spec.text_at(&["strategy", "type"]).is_empty() {
                spec.set(&["strategy", "type"], "RollingUpdate");
            }
            if spec.text_at(&["strategy", "type"]) == "RollingUpdate" {
                spec.make_map(&["strategy", "rollingUpdate"]);
                if let Some(update) = spec.at_mut(&["strategy", "rollingUpdate"]) {
                    update.set_default("maxUnavailable", "25%");
                    update.set_default("maxSurge", "25%");
                }
            }
            spec.set_default("revisionHistoryLimit", 10);
            spec.set_default("progressDeadlineSeconds", 600);
        }
        default_template(object);
    }

    fn prepare_create(&self, object: &mut Value) {
        prepare_create(object);
    }

    fn prepare_update(&self, object: &mut Value, old: &Value) {
        prepare_update(object, old);
    }

    fn prepare_status_update(&self, object: &mut Value, old: &Value) {
        copy_field(object, old, "spec");
        keep_annotation(object, old, ROLLBACK);
        match old.at(&["metadata", "labels"]) {
            Some(labels) => object.set(&["metadata", "labels"], labels.clone()),
            None => drop(object.take_at(&["metadata", "labels"])),
        }
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        Self::check(object, None, errors);
    }

    fn validate_update(&self, object: &Value, old: &Value, errors: &mut Errors) {
        Self::check(object, Some(old), errors);
        immutable_selector(errors, object, old);
    }

    fn validate_status_update(&self, object: &Value, old: &Value, errors: &mut Errors) {
        let numbers = [
            "observedGeneration",
            "replicas",
            "updatedReplicas",
            "readyReplicas",
            "availableReplicas",
            "unavailableReplicas",
            "terminatingReplicas",
            "collisionCount",
        ];
        let parts = ["updatedReplicas", "readyReplicas", "availableReplicas"];
        check_replicas(errors, &object["status"], &numbers, &parts, "readyReplicas");
        check_collisions(errors, object, old);
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        let name = name_warning(object).filter(|_| old.is_none());
        let moved = old.is_none_or(|old| self.generation_moves(object, old));
        name.into_iter().chain(template_warnings(object, old, moved)).collect()
    }

    fn meta_looks(&self) -> meta::MetaLooks {
        LOOKS
    }
}

/// The pods that a workload has are those that it selected at first.
pub fn immutable_selector(errors: &mut Errors, object: &Value, old: &Value) {
    let path = ["spec", "selector"];
    if object.at(&path) != old.at(&path) {
        let spec = Path::new("spec");
        errors.invalid(&spec.child("selector"), selector::shown(object.at(&path)), meta::FIELD_IMMUTABLE);
    }
}

pub struct ReplicaSet;

impl ReplicaSet {
    fn check(object: &Value, old: Option<&Value>, errors: &mut Errors) {
        let spec = &object["spec"];
        let path = Path::new("spec");
        nonnegative_fields(errors, &path, spec, &["replicas", "minReadySeconds"]);
        check_selector(errors, &path, spec, &SELECTOR);
        check_template(errors, &path, spec, old.map(|old| &old["spec"]), "ReplicaSet");
    }
}

/// The status of a replica set, and of its older sibling.
fn check_replica_set_status(object: &Value, errors: &mut Errors) {
    let numbers = [
        "replicas",
        "fullyLabeledReplicas",
        "readyReplicas",
        "availableReplicas",
        "observedGeneration",
        "terminatingReplicas",
    ];
    let parts = ["fullyLabeledReplicas", "readyReplicas", "availableReplicas"];
    check_replicas(errors, &object["status"], &numbers, &parts, "readyReplicas");
}

impl Kind for ReplicaSet {
    fn group(&self) -> &'static str {
        "apps"
    }

    fn kind(&self) -> &'static str {
        "ReplicaSet"
    }

    fn counts_generation(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        object.make_map(&["spec"]);
        if let Some(spec) = object.at_mut(&["spec"]) {
            spec.set_default("replicas", 1);
        }
        default_template(object);
    }

    fn prepare_create(&self, object: &mut Value) {
        prepare_create(object);
    }

    fn prepare_update(&self, object: &mut Value, old: &Value) {
        prepare_update(object, old);
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        Self::check(object, None, errors);
    }

    fn validate_update(&self, object: &Value, old: &Value, errors: &mut Errors) {
        Self::check(object, Some(old), errors);
        immutable_selector(errors, object, old);
    }

    fn validate_status_update(&self, object: &Value, _old: &Value, errors: &mut Errors) {
        check_replica_set_status(object, errors);
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        let name = name_warning(object).filter(|_| old.is_none());
        let moved = old.is_none_or(|old| self.generation_moves(object, old));
        name.into_iter().chain(template_warnings(object, old, moved)).collect()
    }

    fn meta_looks(&self) -> meta::MetaLooks {
        LOOKS
    }
}

pub struct ReplicationController;

impl Kind for ReplicationController {
    fn group(&self) -> &'static str {
        ""
    }

    fn kind(&self) -> &'static str {
        "ReplicationController"
    }

    /// Its generated name is looked at, but not what it is generated from.
    fn name_form(&self) -> NameForm {
        NameForm::Own
    }

    fn counts_generation(&self) -> bool {
        true
    }

    /// What the client leaves out is taken from the labels of the template.
    fn default(&self, object: &mut Value) {
        object.make_map(&["spec"]);
        if object.at(&["spec", "template"]).is_some() {
            default_template(object);
        }
        if let Some(labels) = object.at(&["spec", "template", "metadata", "labels"]).cloned() {
            for path in [["spec", "selector"], ["metadata", "labels"]] {
                if object.map_at(&path).is_none_or(|map| map.is_empty()) {
                    object.set(&path, labels.clone());
                }
            }
        }
        if let Some(spec) = object.at_mut(&["spec"]) {
            spec.set_default("replicas", 1);
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        prepare_create(object);
    }

    fn prepare_update(&self, object: &mut Value, old: &Value) {
        prepare_update(object, old);
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        meta::long_name(errors, object);
        let spec = &object["spec"];
        let path = Path::new("spec");
        nonnegative_fields(errors, &path, spec, &["replicas", "minReadySeconds"]);
        let wanted = spec.map_at(&["selector"]).filter(|map| !map.is_empty());
        if wanted.is_none() {
            errors.required(&path.child("selector"), "");
        }
        let path = path.child("template");
        let Some(template) = spec.at(&["template"]) else { return errors.required(&path, "") };
        let labels = template.at(&["metadata", "labels"]);
        let fits = wanted.is_none_or(|wanted| wanted.iter().all(|(k, v)| labels.and_then(|l| l.get(k)) == Some(v)));
        check_labels(errors, &path, Some(fits), Some(template));
        pods::validate_template(template, None, &path, errors);
        check_endless(errors, &path, template, "ReplicationController");
    }

    fn validate_status_update(&self, object: &Value, _old: &Value, errors: &mut Errors) {
        check_replica_set_status(object, errors);
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        let name = name_warning(object).filter(|_| old.is_none());
        let moved = old.is_none_or(|old| self.generation_moves(object, old));
        let moved = moved && object.at(&["spec", "template"]).is_some();
        name.into_iter().chain(template_warnings(object, old, moved)).collect()
    }

    fn orphans_by_default(&self) -> bool {
        true
    }

    fn selectable(&self) -> &'static [Selectable] {
        &[("status.replicas", |object| object.int_at(&["status", "replicas"]).unwrap_or_default().to_string())]
    }

    fn meta_looks(&self) -> meta::MetaLooks {
        meta::MetaLooks::ALL
    }
}

pub struct ControllerRevision;

impl Kind for ControllerRevision {
    fn group(&self) -> &'static str {
        "apps"
    }

    fn kind(&self) -> &'static str {
        "ControllerRevision"
    }

    fn has_status(&self) -> bool {
        false
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        nonnegative(errors, &Path::new("revision"), object.int_at(&["revision"]));
        let path = Path::new("data");
        match object.at(&["data"]) {
            None => errors.required(&path, "data is mandatory"),
            Some(Value::Object(_)) => {}
            Some(_) => errors.required(&path, "data must be a valid JSON object"),
        }
    }

    fn validate_update(&self, object: &Value, old: &Value, errors: &mut Errors) {
        nonnegative(errors, &Path::new("revision"), object.int_at(&["revision"]));
        meta::immutable(errors, &Path::new("data"), object.at(&["data"]), old.at(&["data"]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(kind: &dyn Kind, object: &Value) -> Vec<String> {
        let mut errors = Errors::default();
        kind.validate(object, &mut errors);
        errors.0.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_deployment_has_a_strategy_and_fitting_labels() {
        let mut deployment = json!({
            "spec": {
                "selector": {"matchLabels": {"app": "a"}},
                "template": {
                    "metadata": {"labels": {"app": "b"}},
                    "spec": {"containers": [{"name": "c", "image": "x:1"}]},
                },
            },
        });
        Deployment.default(&mut deployment);
        assert_eq!(deployment["spec"]["strategy"]["rollingUpdate"]["maxSurge"], "25%");
        assert_eq!(
            said(&Deployment, &deployment),
            [
                r#"spec.template.metadata.labels: Invalid value: {"app":"b"}: `selector` does not match template `labels`"#
            ]
        );
        deployment["spec"]["template"]["metadata"]["labels"]["app"] = "a".into();
        deployment["spec"]["strategy"] = json!({"type": "Odd"});
        assert_eq!(
            said(&Deployment, &deployment),
            [
                r#"spec.strategy: Unsupported value: {"Type":"Odd","RollingUpdate":null}: supported values: "Recreate", "RollingUpdate""#
            ]
        );
    }

    #[test]
    fn a_replication_controller_takes_labels_from_its_template() {
        let mut controller = json!({"spec": {"template": {"metadata": {"labels": {"app": "a"}}}}});
        ReplicationController.default(&mut controller);
        assert_eq!(controller["spec"]["selector"], json!({"app": "a"}));
        assert_eq!(controller["metadata"]["labels"], json!({"app": "a"}));
        let moved = json!({"spec": {"replicas": 1}, "metadata": {"annotations": {"a": "b"}}});
        let before = json!({"spec": {"replicas": 1}});
        assert!(Deployment.generation_moves(&moved, &before));
        assert!(!ReplicaSet.generation_moves(&moved, &before));
    }
}

//! DaemonSet and StatefulSet.

use serde_json::{Value, json};

use super::deployments::immutable_selector;
use super::{
    SelectorWords, amount, at_most_all, check_collisions, check_endless, check_labels, check_replicas, check_selector,
    default_template, int_or_percent, keep_annotation, nonnegative, nonnegative_fields, prepare_create, prepare_update,
    template_warnings,
};
use crate::field::{Errors, Path};
use crate::kinds::go_shape::{self, Part, Shape};
use crate::kinds::persistent::{check_claim_spec, claim_spec_warnings, default_claim_spec};
use crate::kinds::{Kind, NameForm, copy_field, meta, names, pods, selector};
use crate::object::Fields;

pub static KINDS: &[&dyn Kind] = &[&DaemonSet, &StatefulSet];

const LOOKS: meta::MetaLooks = meta::MetaLooks { finalizers: true, change: true, whole: 0 };

pub struct DaemonSet;

/// How often the template has changed: once a field of the spec.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

const DAEMON_STRATEGY: Shape = &[
    ("Type", "type", Part::Text),
    (
        "RollingUpdate",
        "rollingUpdate",
        Part::Pointer(&[("MaxUnavailable", "maxUnavailable", Part::Int), ("MaxSurge", "maxSurge", Part::Int)]),
    ),
];

fn template_generation(object: &Value) -> i64 {
    object.text_at(&["metadata", "annotations", TEMPLATE_GENERATION]).parse().unwrap_or_default()
}

fn set_template_generation(object: &mut Value, generation: i64) {
    object.set(&["metadata", "annotations", TEMPLATE_GENERATION], generation.to_string());
}

impl DaemonSet {
    fn check(object: &Value, old: Option<&Value>, errors: &mut Errors) {
        let spec = &object["spec"];
        let path = Path::new("spec");
        let template = &spec["template"];
        let found = spec.at(&["selector"]);
        let at = path.child("selector");
        if let Some(found) = found {
            meta::label_selector(errors, &at, found);
            if selector::is_empty(found) {
                errors.invalid(&at, selector::shown(Some(found)), "empty selector is invalid for daemonset");
            }
        }
        let at = path.child("template");
        check_labels(errors, &at, selector::fits(found, template.at(&["metadata", "labels"])), Some(template));
        pods::validate_template(template, old.map(|old| &old["spec"]["template"]), &at, errors);
        check_endless(errors, &at, template, "DaemonSet");
        nonnegative_fields(errors, &path, spec, &["minReadySeconds", "revisionHistoryLimit"]);
        Self::check_strategy(spec, &path.child("updateStrategy"), errors);
    }

    fn check_strategy(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
        let rolling = path.child("rollingUpdate");
        match (spec.text_at(&["updateStrategy", "type"]), spec.at(&["updateStrategy", "rollingUpdate"])) {
            ("OnDelete", _) => {}
            ("RollingUpdate", None) => errors.required(&rolling, ""),
            ("RollingUpdate", Some(update)) => {
                for check in [int_or_percent, at_most_all] {
                    for field in ["maxUnavailable", "maxSurge"] {
                        check(errors, &rolling.child(field), update.at(&[field]));
                    }
                }
                let surge = update.at(&["maxSurge"]);
                match (amount(update.at(&["maxUnavailable"])) != 0, amount(surge) != 0) {
                    (true, true) => {
                        let shown = surge.unwrap_or(&Value::Null);
                        errors.invalid(
                            &rolling.child("maxSurge"),
                            shown,
                            "may not be set when maxUnavailable is non-zero",
                        );
                    }
                    (false, false) => {
                        errors.required(&rolling.child("maxUnavailable"), "cannot be 0 when maxSurge is 0");
                    }
                    _ => {}
                }
            }
            _ => {
                let shown = go_shape::by_value(spec.at(&["updateStrategy"]), DAEMON_STRATEGY);
                errors.not_supported(path, shown, &["RollingUpdate", "OnDelete"]);
            }
        }
    }
}

impl Kind for DaemonSet {
    fn group(&self) -> &'static str {
        "apps"
    }

    fn kind(&self) -> &'static str {
        "DaemonSet"
    }

    fn counts_generation(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        object.make_map(&["spec", "updateStrategy"]);
        if let Some(spec) = object.at_mut(&["spec"]) {
            if spec.text_at(&["updateStrategy", "type"]).is_empty() {
                spec.set(&["updateStrategy", "type"], "RollingUpdate");
            }
            if spec.text_at(&["updateStrategy", "type"]) == "RollingUpdate" {
                spec.make_map(&["updateStrategy", "rollingUpdate"]);
                if let Some(update) = spec.at_mut(&["updateStrategy", "rollingUpdate"]) {
                    update.set_default("maxUnavailable", 1);
                    update.set_default("maxSurge", 0);
                }
            }
            spec.set_default("revisionHistoryLimit", 10);
        }
        default_template(object);
        if object.at(&["metadata", "annotations", TEMPLATE_GENERATION]).is_none() {
            set_template_generation(object, 0);
        }
    }

    fn field_annotations(&self) -> &'static [&'static str] {
        &[TEMPLATE_GENERATION]
    }

    fn prepare_create(&self, object: &mut Value) {
        prepare_create(object);
        let generation = template_generation(object).max(1);
        set_template_generation(object, generation);
    }

    fn prepare_update(&self, object: &mut Value, old: &Value) {
        prepare_update(object, old);
        let template = ["spec", "template"];
        let moved = object.at(&template) != old.at(&template);
        set_template_generation(object, template_generation(old) + i64::from(moved));
    }

    fn prepare_status_update(&self, object: &mut Value, old: &Value) {
        copy_field(object, old, "spec");
        keep_annotation(object, old, TEMPLATE_GENERATION);
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        Self::check(object, None, errors);
    }

    fn validate_update(&self, object: &Value, old: &Value, errors: &mut Errors) {
        immutable_selector(errors, object, old);
        Self::check(object, Some(old), errors);
    }

    fn validate_status_update(&self, object: &Value, old: &Value, errors: &mut Errors) {
        let numbers = [
            "currentNumberScheduled",
            "numberMisscheduled",
            "desiredNumberScheduled",
            "numberReady",
            "observedGeneration",
            "updatedNumberScheduled",
            "numberAvailable",
            "numberUnavailable",
            "collisionCount",
        ];
        nonnegative_fields(errors, &Path::new("status"), &object["status"], &numbers);
        check_collisions(errors, object, old);
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        template_warnings(object, old, old.is_none_or(|old| self.generation_moves(object, old)))
    }

    fn meta_looks(&self) -> meta::MetaLooks {
        LOOKS
    }
}

pub struct StatefulSet;

const STATEFUL_SELECTOR: SelectorWords = SelectorWords { kind: "statefulset", invalid: "" };

const STATEFUL_UPDATE: Shape =
    &[("Partition", "partition", Part::Int), ("MaxUnavailable", "maxUnavailable", Part::Plain)];

const STATEFUL_STRATEGY: Shape =
    &[("Type", "type", Part::Text), ("RollingUpdate", "rollingUpdate", Part::Pointer(STATEFUL_UPDATE))];

/// What of the spec may change.
const MUTABLE: &[&str] = &[
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
];

/// The pods have volumes for the claims of the set, and names that it gives: the template as its pods will be.
fn pod_template(spec: &Value) -> Value {
    let mut template = spec["template"].clone();
    for field in ["subdomain", "hostname"] {
        template.take_at(&["spec", field]);
    }
    let claims = spec.list_at(&["volumeClaimTemplates"]);
    if !claims.is_empty() {
        let mut volumes: Vec<Value> = Vec::new();
        for name in claims.iter().map(|claim| claim.text_at(&["metadata", "name"])) {
            if !volumes.iter().any(|volume| volume.text_at(&["name"]) == name) {
                volumes.push(json!({"name": name, "persistentVolumeClaim": {"claimName": name}}));
            }
        }
        for volume in template.list_at(&["spec", "volumes"]) {
            if !volumes[..].iter().any(|claimed| claimed.text_at(&["name"]) == volume.text_at(&["name"])) {
                volumes.push(volume.clone());
            }
        }
        template.set(&["spec", "volumes"], volumes);
    }
    template
}

impl StatefulSet {
    /// How much is looked at: on update, what can't change or was not right before is left alone.
    fn check(object: &Value, old: Option<&Value>, errors: &mut Errors) {
        let spec = &object["spec"];
        let path = Path::new("spec");
        match spec.text_at(&["podManagementPolicy"]) {
            "" => errors.required(&path.child("podManagementPolicy"), ""),
            "OrderedReady" | "Parallel" => {}
            policy => {
                errors.invalid(&path.child("podManagementPolicy"), policy, "must be 'OrderedReady' or 'Parallel'");
            }
        }
        Self::check_strategy(spec, &path.child("updateStrategy"), errors);
        if let Some(policy) = spec.at(&["persistentVolumeClaimRetentionPolicy"]) {
            let path = path.child("persistentVolumeClaimRetentionPolicy");
            for field in ["whenDeleted", "whenScaled"] {
                let when = policy.text_at(&[field]);
                if !matches!(when, "Retain" | "Delete") {
                    errors.not_supported(&path.child(field), when, &["Retain", "Delete"]);
                }
            }
        }
        if old.is_none() {
            let list = path.child("volumeClaimTemplates");
            for (i, claim) in spec.list_at(&["volumeClaimTemplates"]).iter().enumerate() {
                check_claim_spec(&claim["spec"], &list.index(i).child("spec"), errors);
            }
        }
        nonnegative_fields(errors, &path, spec, &["replicas", "minReadySeconds"]);
        nonnegative(errors, &path.child("ordinals.start"), spec.int_at(&["ordinals", "start"]));
        let service = spec.text_at(&["serviceName"]);
        if old.is_none() && !service.is_empty() {
            names::invalid_each(errors, &path.child("serviceName"), service, names::dns_label(service));
        }
        check_selector(errors, &path, spec, &STATEFUL_SELECTOR);
        Self::check_template(spec, old.map(|old| &old["spec"]), &path.child("template"), errors);
        check_endless(errors, &path.child("template"), &spec["template"], "StatefulSet");
    }

    fn check_template(spec: &Value, old: Option<&Value>, path: &Path<'_>, errors: &mut Errors) {
        let template = pod_template(spec);
        let labels = template.at(&["metadata", "labels"]);
        let Some(fits) = selector::fits(spec.at(&["selector"]), labels) else { return };
        check_labels(errors, path, Some(fits), Some(&template));
        let old = old.map(pod_template);
        // Sets made before templates were looked at stay as they are.
        let accepted = old.as_ref().is_none_or(|old| {
            let mut before = Errors::default();
            pods::validate_template(old, None, path, &mut before);
            before.is_empty()
        });
        if accepted {
            pods::validate_template(&template, old.as_ref(), path, errors);
        }
        if let Some(labels) = labels {
            meta::labels(errors, &path.child("labels"), labels);
        }
    }

    fn check_strategy(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
        let rolling = path.child("rollingUpdate");
        let update = spec.at(&["updateStrategy", "rollingUpdate"]);
        match spec.text_at(&["updateStrategy", "type"]) {
            "" => errors.required(path, ""),
            "OnDelete" if update.is_some() => {
                let shown = go_shape::pointer(update, STATEFUL_UPDATE);
                errors.invalid(&rolling, shown, "only allowed for updateStrategy 'RollingUpdate'");
            }
            "OnDelete" => {}
            "RollingUpdate" => {
                let Some(update) = update else { return };
                nonnegative(errors, &rolling.child("partition"), update.int_at(&["partition"]));
                if let Some(most) = update.at(&["maxUnavailable"]) {
                    let path = rolling.child("maxUnavailable");
                    int_or_percent(errors, &path, Some(most));
                    if amount(Some(most)) == 0 {
                        errors.invalid(&path, most, "cannot be 0");
                    }
                    at_most_all(errors, &path, Some(most));
                }
            }
            _ => {
                let shown = go_shape::by_value(spec.at(&["updateStrategy"]), STATEFUL_STRATEGY);
                errors.invalid(path, shown, "must be 'RollingUpdate' or 'OnDelete'");
            }
        }
    }
}

/// Behind a gate that is off by default.
fn drop_max_unavailable(object: &mut Value, old: Option<&Value>) {
    let path = ["spec", "updateStrategy", "rollingUpdate", "maxUnavailable"];
    if old.is_none_or(|old| old.at(&path).is_none()) {
        object.take_at(&path);
    }
}

impl Kind for StatefulSet {
    fn group(&self) -> &'static str {
        "apps"
    }

    fn kind(&self) -> &'static str {
        "StatefulSet"
    }

    fn name_form(&self) -> NameForm {
        NameForm::Label
    }

    fn counts_generation(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        object.make_map(&["spec", "updateStrategy"]);
        object.make_map(&["spec", "persistentVolumeClaimRetentionPolicy"]);
        if let Some(spec) = object.at_mut(&["spec"]) {
            if spec.text_at(&["podManagementPolicy"]).is_empty() {
                spec.set(&["podManagementPolicy"], "OrderedReady");
            }
            if spec.text_at(&["updateStrategy", "type"]).is_empty() {
                spec.set(&["updateStrategy", "type"], "RollingUpdate");
                spec.make_map(&["updateStrategy", "rollingUpdate"]);
            }
            if spec.text_at(&["updateStrategy", "type"]) == "RollingUpdate"
                && let Some(update) = spec.at_mut(&["updateStrategy", "rollingUpdate"])
            {
                update.set_default("partition", 0);
            }
            for when in ["whenDeleted", "whenScaled"] {
                let path = ["persistentVolumeClaimRetentionPolicy", when];
                if spec.text_at(&path).is_empty() {
                    spec.set(&path, "Retain");
                }
            }
            spec.set_default("replicas", 1);
            spec.set_default("revisionHistoryLimit", 10);
            for claim in spec.items_mut(&["volumeClaimTemplates"]) {
                claim.set(&["apiVersion"], "v1");
                claim.set(&["kind"], "PersistentVolumeClaim");
                claim.make_map(&["spec"]);
                if let Some(spec) = claim.at_mut(&["spec"]) {
                    default_claim_spec(spec);
                }
                if claim.text_at(&["status", "phase"]).is_empty() {
                    claim.set(&["status", "phase"], "Pending");
                }
            }
        }
        default_template(object);
    }

    fn prepare_create(&self, object: &mut Value) {
        prepare_create(object);
        drop_max_unavailable(object, None);
    }

    fn prepare_update(&self, object: &mut Value, old: &Value) {
        prepare_update(object, old);
        drop_max_unavailable(object, Some(old));
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        Self::check(object, None, errors);
    }

    fn validate_update(&self, object: &Value, old: &Value, errors: &mut Errors) {
        Self::check(object, Some(old), errors);
        let fixed = |object: &Value| {
            let mut spec = object["spec"].clone();
            for field in MUTABLE {
                spec.take_at(&[field]);
            }
            spec
        };
        if fixed(object) != fixed(old) {
            let (last, first) = (MUTABLE[MUTABLE.len() - 1], &MUTABLE[..MUTABLE.len() - 1]);
            let detail = format!(
                "updates to statefulset spec for fields other than '{}' and '{last}' are forbidden",
                first.join("', '")
            );
            errors.forbidden(&Path::new("spec"), detail);
        }
    }

    fn validate_status_update(&self, object: &Value, old: &Value, errors: &mut Errors) {
        let numbers = [
            "replicas",
            "readyReplicas",
            "currentReplicas",
            "updatedReplicas",
            "availableReplicas",
            "observedGeneration",
            "collisionCount",
        ];
        let parts = ["readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas"];
        check_replicas(errors, &object["status"], &numbers, &parts, "status.readyReplicas");
        check_collisions(errors, object, old);
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        let moved = old.is_none_or(|old| self.generation_moves(object, old));
        let mut warnings = template_warnings(object, old, moved);
        for (i, claim) in object.list_at(&["spec", "volumeClaimTemplates"]).iter().enumerate() {
            warnings.extend(claim_spec_warnings(&claim["spec"], &format!("spec.volumeClaimTemplates[{i}].spec")));
        }
        if object.int_at(&["spec", "revisionHistoryLimit"]).is_some_and(|limit| limit < 0) {
            warnings.push(
                "spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended"
                    .to_owned(),
            );
        }
        warnings
    }

    fn meta_looks(&self) -> meta::MetaLooks {
        LOOKS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_set_counts_its_templates() {
        let set = |image: &str| json!({"spec": {"template": {"spec": {"containers": [{"image": image}]}}}});
        let mut first = set("a");
        DaemonSet.prepare_create(&mut first);
        assert_eq!(template_generation(&first), 1);
        let mut second = set("b");
        DaemonSet.prepare_update(&mut second, &first);
        assert_eq!(template_generation(&second), 2);
        let mut same = set("b");
        DaemonSet.prepare_update(&mut same, &second);
        assert_eq!(template_generation(&same), 2);
    }

    #[test]
    fn the_claims_of_a_stateful_set_are_volumes_of_its_pods() {
        let spec = json!({
            "template": {"spec": {"hostname": "h", "volumes": [{"name": "data", "emptyDir": {}}, {"name": "tmp", "emptyDir": {}}]}},
            "volumeClaimTemplates": [{"metadata": {"name": "data"}}],
        });
        let template = pod_template(&spec);
        let names: Vec<&str> = template.list_at(&["spec", "volumes"]).iter().map(|v| v.text_at(&["name"])).collect();
        assert_eq!(names, ["data", "tmp"]);
        assert!(
            template.at(&["spec", "volumes"]).is_some_and(|v| v[0]["persistentVolumeClaim"]["claimName"] == "data")
        );
        assert!(template.at(&["spec", "hostname"]).is_none());
    }

    #[test]
    fn only_some_of_a_stateful_set_may_change() {
        let mut old = json!({"spec": {"selector": {"matchLabels": {"a": "b"}}, "serviceName": "s"}});
        StatefulSet.default(&mut old);
        let mut new = old.clone();
        new["spec"]["replicas"] = 5.into();
        let run = |new: &Value| {
            let mut errors = Errors::default();
            StatefulSet.validate_update(new, &old, &mut errors);
            errors.0.iter().any(|e| e.field == "spec")
        };
        assert!(!run(&new));
        new["spec"]["serviceName"] = "t".into();
        assert!(run(&new));
    }
}

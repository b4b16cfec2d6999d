//! What workloads ask of the pod template that they carry, and PodTemplate, which is nothing else.

use serde_json::Value;

use super::security::check_profile_annotations;
use super::spec::check_spec;
use super::update::check_pod_annotations;
use super::{Latitude, warnings};
use crate::field::{Errors, Path};
use crate::kinds::{Kind, meta};
use crate::object::Fields;

/// Validation of a template `{metadata, spec}`. `old` is what stood there before, where this is an update: what was
/// accepted then still is.
pub fn validate_template(template: &Value, old: Option<&Value>, path: &Path<'_>, errors: &mut Errors) {
    let latitude = Latitude::of(old, false);
    if let Some(labels) = template.at(&["metadata", "labels"]) {
        meta::labels(errors, &path.child("labels"), labels);
    }
    let annotations_path = path.child("annotations");
    let empty = Value::Null;
    let annotations = template.at(&["metadata", "annotations"]).unwrap_or(&empty);
    meta::annotations(errors, &annotations_path, annotations);
    check_pod_annotations(template, &annotations_path, &latitude, errors);
    let spec = template.at(&["spec"]).unwrap_or(&empty);
    let spec_path = path.child("spec");
    check_spec(spec, None, &spec_path, &latitude, errors);
    check_profile_annotations(annotations, spec, &spec_path, errors);
    if !spec.list_at(&["ephemeralContainers"]).is_empty() {
        errors.forbidden(&spec_path.child("ephemeralContainers"), "ephemeral containers not allowed in pod template");
    }
}

/// Warnings about a template at `path`, such as `spec.template`.
pub fn template_warnings(template: &Value, _old: Option<&Value>, path: &str) -> Vec<String> {
    warnings::warnings(template, path)
}

/// Takes out of a pod or template the fields of features that are off. For the preparation of a write.
pub fn drop_disabled_fields(owner: &mut Value) {
    let Some(spec) = owner.at_mut(&["spec"]) else { return };
    spec.take_at(&["schedulingGroup"]);
    for volume in spec.items_mut(&["volumes"]) {
        for source in volume.items_mut(&["projected", "sources"]) {
            source.take_at(&["clusterTrustBundle"]);
            source.take_at(&["podCertificate"]);
        }
    }
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        for container in spec.items_mut(&[list]) {
            container.take_at(&["lifecycle", "stopSignal"]);
        }
    }
}

pub struct PodTemplate;

impl Kind for PodTemplate {
    fn group(&self) -> &'static str {
        ""
    }

    fn kind(&self) -> &'static str {
        "PodTemplate"
    }

    fn has_status(&self) -> bool {
        false
    }

    fn default(&self, object: &mut Value) {
        object.make_map(&["template"]);
        if let Some(template) = object.at_mut(&["template"]) {
            super::default_template(template);
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        if let Some(template) = object.at_mut(&["template"]) {
            drop_disabled_fields(template);
        }
    }

    fn prepare_update(&self, object: &mut Value, _old: &Value) {
        self.prepare_create(object);
    }

    fn counts_generation(&self) -> bool {
        true
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        validate_template(&object["template"], None, &Path::new("template"), errors);
    }

    fn validate_update(&self, object: &Value, old: &Value, errors: &mut Errors) {
        validate_template(&object["template"], old.at(&["template"]), &Path::new("template"), errors);
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        template_warnings(&object["template"], old.and_then(|old| old.at(&["template"])), "template")
    }

    fn meta_looks(&self) -> meta::MetaLooks {
        meta::MetaLooks { whole: 0, ..meta::MetaLooks::ALL }
    }
}

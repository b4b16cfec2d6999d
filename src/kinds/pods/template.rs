//! What workloads ask of the pod template that they carry.

use serde_json::Value;

use crate::field::{Errors, Path};
use crate::kinds::meta;
use crate::object::Fields;

/// Validation of a template `{metadata, spec}`. `old` is what stood there before, where this is an update: what was
/// accepted then still is.
pub fn validate_template(template: &Value, _old: Option<&Value>, path: &Path<'_>, errors: &mut Errors) {
    let metadata = path.child("metadata");
    if let Some(labels) = template.at(&["metadata", "labels"]) {
        meta::labels(errors, &metadata.child("labels"), labels);
    }
}

/// Warnings about a template at `path`, such as `spec.template`.
pub fn template_warnings(_template: &Value, _old: Option<&Value>, _path: &str) -> Vec<String> {
    Vec::new()
}

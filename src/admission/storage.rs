//! DefaultStorageClass and PersistentVolumeClaimResize.

use serde_json::Value;

use super::{Admission, Operation, Plugin, admitted, newest_marked, unchanged};
use crate::kinds::quantity;
use crate::object::Fields;
use crate::status::Result;

const CLASSES: &str = "storageclasses.storage.k8s.io/";
/// The place of the class in claims of old.
const CLASS_ANNOTATION: [&str; 3] = ["metadata", "annotations", "volume.beta.kubernetes.io/storage-class"];

pub(super) const DEFAULT_CLASS: Plugin = Plugin {
    handles: |admission| admission.operation == Operation::Create && admission.is_whole("persistentvolumeclaims"),
    mutate: set_class,
    validate: admitted,
};

pub(super) const RESIZE: Plugin = Plugin {
    handles: |admission| admission.operation == Operation::Update && admission.is_whole("persistentvolumeclaims"),
    mutate: unchanged,
    validate: check_resize,
};

fn set_class(admission: &mut Admission<'_>, claim: &mut Value) -> Result<()> {
    if claim.at(&["spec", "storageClassName"]).is_some() || claim.at(&CLASS_ANNOTATION).is_some() {
        return Ok(());
    }
    let marks = ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];
    if let Some(class) = newest_marked(admission.view, CLASSES, &marks) {
        claim.set(&["spec", "storageClassName"], class);
    }
    Ok(())
}

fn class_of(claim: &Value) -> &str {
    match claim.text_at(&CLASS_ANNOTATION) {
        "" => claim.text_at(&["spec", "storageClassName"]),
        class => class,
    }
}

fn check_resize(admission: &mut Admission<'_>, claim: &Value) -> Result<()> {
    let Some(old) = admission.old else { return Ok(()) };
    let size = ["spec", "resources", "requests", "storage"];
    let zero = Value::from(0);
    let (new, before) = (claim.at(&size).unwrap_or(&zero), old.at(&size).unwrap_or(&zero));
    if quantity::compare(new, before).is_le() {
        return Ok(());
    }
    if old.text_at(&["status", "phase"]) != "Bound" {
        return Err(admission.forbidden(claim, "Only bound persistent volume claims can be expanded"));
    }
    let class = class_of(claim);
    let record = admission.view.get(&format!("{CLASSES}{class}")).filter(|_| !class.is_empty());
    let record = record.filter(|_| class == class_of(old));
    let class: Option<Value> = record.and_then(|record| serde_json::from_slice(&record.value).ok());
    if class.is_some_and(|class| class.bool_at(&["allowVolumeExpansion"]) == Some(true)) {
        return Ok(());
    }
    let why = "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must \
               support resize";
    Err(admission.forbidden(claim, why))
}

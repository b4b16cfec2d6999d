//! Volumes, claims, and storage.k8s.io.

use serde_json::Value;

use super::Cells;
use super::cells::*;
use crate::object::Fields;

/// The annotation that named the class before there was a field.
const CLASS: &str = "volume.beta.kubernetes.io/storage-class";

fn class(object: &Value) -> Value {
    match object.at(&["metadata", "annotations", CLASS]) {
        Some(class) => class.clone(),
        None => text(object, &["spec", "storageClassName"]),
    }
}

fn access_modes(object: &Value, path: &[&str]) -> String {
    const SHORT: [(&str, &str); 4] =
        [("ReadWriteOnce", "RWO"), ("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOncePod", "RWOP")];
    let modes = object.list_at(path);
    let shown = SHORT.iter().filter(|(mode, _)| modes.iter().any(|listed| listed == mode)).map(|(_, short)| *short);
    shown.collect::<Vec<_>>().join(",")
}

fn phase(object: &Value) -> Value {
    if is_deleted(object) { "Terminating".into() } else { text(object, &["status", "phase"]) }
}

pub fn persistent_volume(object: &Value) -> Cells {
    let claim = object
        .at(&["spec", "claimRef"])
        .map_or_else(String::new, |claim| format!("{}/{}", claim.text_at(&["namespace"]), claim.text_at(&["name"])));
    vec![
        name(object),
        shown(object.at(&["spec", "capacity", "storage"]), "0").into(),
        access_modes(object, &["spec", "accessModes"]).into(),
        text(object, &["spec", "persistentVolumeReclaimPolicy"]),
        phase(object),
        claim.into(),
        class(object),
        shown(object.at(&["spec", "volumeAttributesClassName"]), UNSET).into(),
        text(object, &["status", "reason"]),
        age(object),
        shown(object.at(&["spec", "volumeMode"]), UNSET).into(),
    ]
}

pub fn persistent_volume_claim(object: &Value) -> Cells {
    let volume = object.text_at(&["spec", "volumeName"]);
    // What a claim got is known once it has a volume.
    let (capacity, modes) = match volume {
        "" => (String::new(), String::new()),
        _ => {
            let capacity = shown(object.at(&["status", "capacity", "storage"]), "0");
            (capacity, access_modes(object, &["status", "accessModes"]))
        }
    };
    vec![
        name(object),
        phase(object),
        volume.into(),
        capacity.into(),
        modes.into(),
        class(object),
        shown(object.at(&["spec", "volumeAttributesClassName"]), UNSET).into(),
        age(object),
        shown(object.at(&["spec", "volumeMode"]), UNSET).into(),
    ]
}

/// The name, marked where an annotation makes the object the default one.
fn marked_name(object: &Value, annotations: &[&str]) -> Value {
    let name = object.text_at(&["metadata", "name"]);
    let is_default = annotations.iter().any(|key| object.text_at(&["metadata", "annotations", key]) == "true");
    if is_default { format!("{name} (default)").into() } else { name.into() }
}

pub fn storage_class(object: &Value) -> Cells {
    const DEFAULT: &[&str] =
        &["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];
    vec![
        marked_name(object, DEFAULT),
        text(object, &["provisioner"]),
        shown(object.at(&["reclaimPolicy"]), "Delete").into(),
        shown(object.at(&["volumeBindingMode"]), "Immediate").into(),
        flag(object, &["allowVolumeExpansion"]),
        age(object),
    ]
}

pub fn volume_attributes_class(object: &Value) -> Cells {
    const DEFAULT: &[&str] = &["volumeattributesclass.alpha.kubernetes.io/is-default-class"];
    vec![marked_name(object, DEFAULT), text(object, &["driverName"]), age(object)]
}

pub fn volume_attachment(object: &Value) -> Cells {
    vec![
        name(object),
        text(object, &["spec", "attacher"]),
        text(object, &["spec", "source", "persistentVolumeName"]),
        text(object, &["spec", "nodeName"]),
        flag(object, &["status", "attached"]),
        age(object),
    ]
}

pub fn csi_node(object: &Value) -> Cells {
    vec![name(object), count(object, &["spec", "drivers"]), age(object)]
}

pub fn csi_driver(object: &Value) -> Cells {
    let tokens = match object.at(&["spec", "tokenRequests"]) {
        Some(_) => {
            let requests = object.list_at(&["spec", "tokenRequests"]).iter();
            requests.map(|request| request.text_at(&["audience"])).collect::<Vec<_>>().join(",")
        }
        None => UNSET.to_owned(),
    };
    vec![
        name(object),
        object.bool_at(&["spec", "attachRequired"]).unwrap_or(true).into(),
        flag(object, &["spec", "podInfoOnMount"]),
        flag(object, &["spec", "storageCapacity"]),
        tokens.into(),
        flag(object, &["spec", "requiresRepublish"]),
        or(&joined(object.list_at(&["spec", "volumeLifecycleModes"]), ","), NONE).into(),
        age(object),
    ]
}

pub fn csi_storage_capacity(object: &Value) -> Cells {
    vec![name(object), text(object, &["storageClassName"]), shown(object.at(&["capacity"]), UNSET).into()]
}

//! The volumes of a pod.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Latitude;
use super::containers::{field_ref, pull_policy, resource_ref};
use crate::field::{Errors, Path};
use crate::kinds::persistent::check_claim_spec;
use crate::kinds::volume_sources::{PORTAL_TOO_LONG, SOURCES, check_source, csi_driver_name, no_backsteps};
use crate::kinds::{meta, names, quantity};
use crate::object::Fields;

/// The volumes that containers may mount: those that are as they should be, by name.
pub type Volumes<'v> = BTreeMap<&'v str, &'v Value>;

/// The volume types of pods in the order in which upstream looks at them, with the name under which one too many is
/// reported.
const TYPES: &[(&str, &str)] = &[
    ("emptyDir", ""),
    ("hostPath", "hostPath"),
    ("gitRepo", "gitRepo"),
    ("gcePersistentDisk", "gcePersistentDisk"),
    ("awsElasticBlockStore", "awsElasticBlockStore"),
    ("secret", "secret"),
    ("nfs", "nfs"),
    ("iscsi", "iscsi"),
    ("glusterfs", "glusterfs"),
    ("flocker", "flocker"),
    ("persistentVolumeClaim", "persistentVolumeClaim"),
    ("rbd", "rbd"),
    ("cinder", "cinder"),
    ("cephfs", "cephFS"),
    ("quobyte", "quobyte"),
    ("downwardAPI", "downwarAPI"),
    ("fc", "fc"),
    ("flexVolume", "flexVolume"),
    ("configMap", "configMap"),
    ("azureFile", "azureFile"),
    ("vsphereVolume", "vsphereVolume"),
    ("photonPersistentDisk", "photonPersistentDisk"),
    ("portworxVolume", "portworxVolume"),
    ("azureDisk", "azureDisk"),
    ("storageos", "storageos"),
    ("projected", "projected"),
    ("scaleIO", "scaleIO"),
    ("csi", "csi"),
    ("ephemeral", "ephemeral"),
    ("image", "image"),
];

/// What a file in a volume may show of its pod.
const FILE_FIELDS: &[&str] =
    &["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];

const MAX_TOKEN_SECONDS: i64 = 1 << 32;
const MIN_TOKEN_SECONDS: i64 = 600;

/// `pod` is the name of the pod, where it is one: claims are made under it.
pub fn check_volumes<'v>(
    spec: &'v Value,
    pod: Option<&str>,
    path: &Path<'_>,
    latitude: &Latitude,
    errors: &mut Errors,
) -> Volumes<'v> {
    let volumes = spec.list_at(&["volumes"]);
    let pod = pod.filter(|name| !name.is_empty());
    let made = |claim: &str| {
        let ephemeral = volumes.iter().filter(|volume| volume.at(&["ephemeral"]).is_some());
        let names = ephemeral.map(|volume| volume.text_at(&["name"]));
        pod.is_some_and(|pod| names.into_iter().any(|name| claim == format!("{pod}-{name}")))
    };
    let mut usable = Volumes::new();
    for (i, volume) in volumes.iter().enumerate() {
        let at = path.index(i);
        let before = errors.0.len();
        check_type(volume, pod, &at, latitude, errors);
        let name = volume.text_at(&["name"]);
        if name.is_empty() {
            errors.required(&at.child("name"), "");
        } else {
            names::invalid_each(errors, &at.child("name"), name, names::dns_label(name));
        }
        if usable.contains_key(name) {
            errors.duplicate(&at.child("name"), name);
        }
        if errors.0.len() == before {
            usable.insert(name, volume);
        }
        let claim = volume.text_at(&["persistentVolumeClaim", "claimName"]);
        if made(claim) {
            let at = at.child("persistentVolumeClaim");
            let detail = "must not reference a PVC that gets created for an ephemeral volume";
            errors.invalid(&at.child("claimName"), claim, detail);
        }
    }
    usable
}

fn check_type(volume: &Value, pod: Option<&str>, path: &Path<'_>, latitude: &Latitude, errors: &mut Errors) {
    let mut found = false;
    for (field, extra) in TYPES {
        let Some(source) = volume.at(&[field]) else { continue };
        if found {
            errors.forbidden(&path.child(extra), "may not specify more than 1 volume type");
        } else {
            check_content(field, source, volume, pod, path, latitude, errors);
        }
        found = true;
        let name = volume.text_at(&["name"]);
        if *field == "iscsi"
            && source.at(&["initiatorName"]).is_some()
            && name.len() + 1 + source.text_at(&["targetPortal"]).len() > 64
        {
            errors.invalid(&path.child("name"), name, PORTAL_TOO_LONG);
        }
    }
    if !found {
        errors.required(path, "must specify a volume type");
    }
}

fn check_content(
    kind: &str,
    source: &Value,
    volume: &Value,
    pod: Option<&str>,
    parent: &Path<'_>,
    latitude: &Latitude,
    errors: &mut Errors,
) {
    if let Some((_, _, own, required)) = SOURCES.iter().find(|(field, ..)| *field == kind && kind != "csi") {
        return check_source(kind, required, source, None, &parent.child(own), errors);
    }
    let path = parent.child(kind);
    let text = |field: &str| source.text_at(&[field]);
    let require = |field: &str, errors: &mut Errors| {
        if text(field).is_empty() {
            errors.required(&path.child(field), "");
        }
    };
    match kind {
        "emptyDir" => {
            let zero = Value::from("0");
            let limit = source.at(&["sizeLimit"]).filter(|limit| quantity::compare(limit, &zero).is_lt());
            if limit.is_some() {
                errors.forbidden(&path.child("sizeLimit"), "SizeLimit field must be a valid resource quantity");
            }
        }
        "gitRepo" => {
            require("repository", errors);
            descending_path(&path.child("directory"), text("directory"), errors);
        }
        "secret" | "configMap" => {
            require(if kind == "secret" { "secretName" } else { "name" }, errors);
            file_mode(source, "defaultMode", &path, errors);
            let items = path.child("items");
            for (i, item) in source.list_at(&["items"]).iter().enumerate() {
                key_to_path(item, &items.index(i), errors);
            }
        }
        "persistentVolumeClaim" => require("claimName", errors),
        "downwardAPI" => {
            file_mode(source, "defaultMode", &path, errors);
            for file in source.list_at(&["items"]) {
                downward_file(file, &path, errors);
            }
        }
        "projected" => {
            file_mode(source, "defaultMode", &path, errors);
            check_projections(source, &path, latitude, errors);
        }
        "csi" => {
            csi_driver_name(text("driver"), &path.child("driver"), errors);
            if source.at(&["nodePublishSecretRef"]).is_some() {
                let reference = path.child("nodePublishSecretRef");
                match source.text_at(&["nodePublishSecretRef", "name"]) {
                    "" => errors.required(&reference.child("name"), ""),
                    name => names::invalid_each(errors, &path.child("name"), name, names::dns_subdomain(name)),
                }
            }
        }
        "ephemeral" => {
            check_claim_template(source, &path, errors);
            let name = volume.text_at(&["name"]);
            if let Some(pod) = pod.filter(|_| !name.is_empty()) {
                let claim = format!("{pod}-{name}");
                for message in names::dns_subdomain(&claim) {
                    errors.invalid(&parent.child("name"), name, format!("PVC name {claim:?}: {message}"));
                }
            }
        }
        "image" => {
            if latitude.pod {
                require("reference", errors);
            }
            pull_policy(text("pullPolicy"), &path.child("pullPolicy"), errors);
        }
        _ => {}
    }
}

/// What the metadata of a claim template can't say, by the name of the field in Go.
const NOT_IN_TEMPLATES: &[(&str, &str)] = &[
    ("name", "name"),
    ("generateName", "generateName"),
    ("namespace", "namespace"),
    ("selfLink", "selfLink"),
    ("uid", "uID"),
    ("resourceVersion", "resourceVersion"),
    ("generation", "generation"),
    ("creationTimestamp", "creationTimestamp"),
    ("deletionTimestamp", "deletionTimestamp"),
    ("deletionGracePeriodSeconds", "deletionGracePeriodSeconds"),
    ("ownerReferences", "ownerReferences"),
    ("finalizers", "finalizers"),
    ("managedFields", "managedFields"),
];

fn check_claim_template(source: &Value, path: &Path<'_>, errors: &mut Errors) {
    let path = path.child("volumeClaimTemplate");
    let Some(template) = source.at(&["volumeClaimTemplate"]) else { return errors.required(&path, "") };
    let metadata = path.child("metadata");
    if let Some(annotations) = template.at(&["metadata", "annotations"]) {
        meta::annotations(errors, &metadata.child("annotations"), annotations);
    }
    if let Some(labels) = template.at(&["metadata", "labels"]) {
        meta::labels(errors, &metadata.child("labels"), labels);
    }
    for (field, shown) in NOT_IN_TEMPLATES {
        if template.at(&["metadata", field]).is_some() {
            errors.forbidden(&metadata.child(shown), "cannot be set");
        }
    }
    let empty = Value::Null;
    check_claim_spec(template.at(&["spec"]).unwrap_or(&empty), &path.child("spec"), errors);
}

pub fn file_mode(source: &Value, field: &str, path: &Path<'_>, errors: &mut Errors) {
    if let Some(mode) = source.int_at(&[field]).filter(|mode| !(0..=0o777).contains(mode)) {
        errors.invalid(&path.child(field), mode, "must be a number between 0 and 0777 (octal), both inclusive");
    }
}

/// A path that stays below where it starts.
pub fn descending_path(path: &Path<'_>, text: &str, errors: &mut Errors) {
    if text.starts_with('/') {
        errors.invalid(path, text, "must be a relative path");
    }
    no_backsteps(path, text, errors);
}

/// The same, and not one of the names that the kubelet keeps for itself.
pub fn local_path(path: &Path<'_>, text: &str, errors: &mut Errors) {
    descending_path(path, text, errors);
    if text.starts_with("..") && !text.starts_with("../") {
        errors.invalid(path, text, "must not start with '..'");
    }
}

fn key_to_path(item: &Value, path: &Path<'_>, errors: &mut Errors) {
    for field in ["key", "path"] {
        if item.text_at(&[field]).is_empty() {
            errors.required(&path.child(field), "");
        }
    }
    local_path(&path.child("path"), item.text_at(&["path"]), errors);
    file_mode(item, "mode", path, errors);
}

fn downward_file(file: &Value, path: &Path<'_>, errors: &mut Errors) {
    let text = file.text_at(&["path"]);
    if text.is_empty() {
        errors.required(&path.child("path"), "");
    }
    local_path(&path.child("path"), text, errors);
    match (file.at(&["fieldRef"]), file.at(&["resourceFieldRef"])) {
        (Some(reference), resource) => {
            field_ref(reference, FILE_FIELDS, &path.child("fieldRef"), errors);
            if resource.is_some() {
                let detail = "fieldRef and resourceFieldRef can not be specified simultaneously";
                errors.invalid(path, "resource", detail);
            }
        }
        (None, Some(reference)) => resource_ref(reference, true, &path.child("resourceFieldRef"), errors),
        (None, None) => errors.required(path, "one of fieldRef and resourceFieldRef is required"),
    }
    file_mode(file, "mode", path, errors);
}

fn check_projections(projected: &Value, path: &Path<'_>, latitude: &Latitude, errors: &mut Errors) {
    let mut taken: Vec<&str> = Vec::new();
    let list = path.child("sources");
    for (i, source) in projected.list_at(&["sources"]).iter().enumerate() {
        let at = list.index(i);
        let mut found = 0;
        for kind in ["secret", "configMap", "downwardAPI"] {
            let Some(content) = source.at(&[kind]) else { continue };
            found += 1;
            let at = at.child(kind);
            let name = content.text_at(&["name"]);
            if kind != "downwardAPI" && name.is_empty() {
                errors.required(&at.child("name"), "");
            }
            let items = at.child("items");
            for (j, item) in content.list_at(&["items"]).iter().enumerate() {
                let file = item.text_at(&["path"]);
                let shown = if kind == "downwardAPI" {
                    downward_file(item, &at, errors);
                    file
                } else {
                    key_to_path(item, &items.index(j), errors);
                    name
                };
                if file.is_empty() {
                    continue;
                }
                if taken.contains(&file) {
                    errors.invalid(path, shown, "conflicting duplicate paths");
                } else {
                    taken.push(file);
                }
            }
        }
        if let Some(token) = source.at(&["serviceAccountToken"]) {
            found += 1;
            let seconds = token.int_at(&["expirationSeconds"]).unwrap_or_default();
            let at = at.child("serviceAccountToken");
            let at = at.child("expirationSeconds");
            if seconds < MIN_TOKEN_SECONDS {
                errors.invalid(&at, seconds, "may not specify a duration less than 10 minutes");
            }
            if seconds > MAX_TOKEN_SECONDS {
                errors.invalid(&at, seconds, "may not specify a duration larger than 2^32 seconds");
            }
            match token.text_at(&["path"]) {
                "" => errors.required(&path.child("path"), ""),
                text if !latitude.any_token_path => local_path(&path.child("path"), text, errors),
                _ => {}
            }
        }
        if found > 1 {
            errors.forbidden(&at, "may not specify more than 1 volume type per source");
        }
    }
}

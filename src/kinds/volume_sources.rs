//! What a persistent volume is made of: the volume types, of which it has exactly one.

use serde_json::Value;

use super::names;
use crate::field::{Errors, Path, Raw};
use crate::object::Fields;

/// The volume types: the field, the name upstream reports it under when it is one too many, the name under which its
/// own errors stand, and the fields in it that must not be empty.
pub const SOURCES: &[(&str, &str, &str, &[&str])] = &[
    ("hostPath", "hostPath", "hostPath", &["path"]),
    ("gcePersistentDisk", "gcePersistentDisk", "persistentDisk", &["pdName"]),
    ("awsElasticBlockStore", "awsElasticBlockStore", "awsElasticBlockStore", &["volumeID"]),
    ("glusterfs", "glusterfs", "glusterfs", &["endpoints", "path"]),
    ("flocker", "flocker", "flocker", &[]),
    ("nfs", "nfs", "nfs", &["server", "path"]),
    ("rbd", "rbd", "rbd", &["monitors", "image"]),
    ("quobyte", "quobyte", "quobyte", &["volume"]),
    ("cephfs", "cephFS", "cephfs", &["monitors"]),
    ("iscsi", "iscsi", "iscsi", &["targetPortal", "iqn"]),
    ("cinder", "cinder", "cinder", &["volumeID"]),
    ("fc", "fc", "fc", &[]),
    ("flexVolume", "", "flexVolume", &["driver"]),
    ("azureFile", "azureFile", "azureFile", &["secretName", "shareName"]),
    ("vsphereVolume", "vsphereVolume", "vsphereVolume", &["volumePath"]),
    ("photonPersistentDisk", "photonPersistentDisk", "photonPersistentDisk", &["pdID"]),
    ("portworxVolume", "portworxVolume", "portworxVolume", &["volumeID"]),
    ("azureDisk", "azureDisk", "azureDisk", &["diskName", "diskURI"]),
    ("scaleIO", "scaleIO", "scaleIO", &["gateway", "system", "volumeName"]),
    ("local", "local", "local", &["path"]),
    ("storageos", "storageos", "storageos", &["volumeName"]),
    ("csi", "csi", "csi", &[]),
];

/// Defaults that a volume type brings with it.
const SOURCE_DEFAULTS: &[(&str, &[(&str, &str)])] = &[
    ("hostPath", &[("type", "")]),
    ("iscsi", &[("iscsiInterface", "default")]),
    ("rbd", &[("pool", "rbd"), ("user", "admin"), ("keyring", "/etc/ceph/keyring")]),
    ("azureDisk", &[("cachingMode", "ReadWrite"), ("kind", "Shared"), ("fsType", "ext4")]),
    ("scaleIO", &[("storageMode", "ThinProvisioned"), ("fsType", "xfs")]),
];

pub fn default_sources(spec: &mut Value) {
    for (source, fields) in SOURCE_DEFAULTS {
        if let Some(source_value) = spec.at_mut(&[source]).filter(|v| v.is_object()) {
            for (field, value) in *fields {
                source_value.set_default(field, *value);
            }
            if *source == "azureDisk" {
                source_value.set_default("readOnly", false);
            }
        }
    }
}

/// `may not be more than 63 bytes` and a DNS name, whatever its case.
pub fn csi_driver_name(name: &str, path: &Path<'_>, errors: &mut Errors) {
    if name.is_empty() {
        errors.required(path, "");
    }
    if name.len() > 63 {
        errors.too_long(path, 63);
    }
    // An empty name is said to be missing, not also to be malformed.
    if !name.is_empty() {
        names::invalid_each(errors, path, name, names::dns_subdomain(&name.to_lowercase()));
    }
}

/// Exactly one type, which has what it needs.
pub fn check_sources(spec: &Value, name: &str, path: &Path<'_>, errors: &mut Errors) {
    let mut found = 0;
    for (field, extra, own, required) in SOURCES {
        let Some(source) = spec.at(&[field]) else { continue };
        if found > 0 && !extra.is_empty() {
            errors.forbidden(&path.child(extra), "may not specify more than 1 volume type");
            continue;
        }
        found += 1;
        let at = path.child(own);
        check_source(field, required, source, Some((spec, name)), &at, errors);
        if *field == "local" && spec.at(&["nodeAffinity"]).is_none() {
            errors.required(&path.child("nodeAffinity"), "Local volume requires node affinity");
        }
    }
    if found == 0 {
        errors.required(path, "must specify a volume type");
    }
}

pub(super) fn no_backsteps(path: &Path<'_>, text: &str, errors: &mut Errors) {
    if text.split('/').any(|part| part == "..") {
        errors.invalid(path, text, "must not contain '..'");
    }
}

/// What a volume type wants. It is of a persistent volume with a spec and a name, or else of a pod, whose secrets are
/// of the pod's own namespace.
pub(super) fn check_source(
    kind: &str,
    required: &[&str],
    source: &Value,
    volume: Option<(&Value, &str)>,
    path: &Path<'_>,
    errors: &mut Errors,
) {
    for field in required {
        let empty = match source.at(&[field]) {
            Some(Value::String(text)) => text.is_empty(),
            Some(Value::Array(items)) => items.is_empty(),
            Some(_) => false,
            None => true,
        };
        if empty {
            errors.required(&path.child(field), "");
        }
    }
    let text = |field: &str| source.text_at(&[field]);
    let namespaced = volume.is_some();
    let secret = |errors: &mut Errors, field: &str| {
        if source.at(&[field]).is_some() {
            let at = path.child(field);
            for part in ["name", "namespace"].iter().take(if namespaced { 2 } else { 1 }) {
                if source.text_at(&[field, part]).is_empty() {
                    errors.required(&at.child(part), "");
                }
            }
        }
    };
    match kind {
        "hostPath" => {
            if !text("path").is_empty() {
                no_backsteps(&path.child("path"), text("path"), errors);
                if text("path").trim_end_matches('/').is_empty()
                    && volume.is_some_and(|(spec, _)| spec.text_at(&["persistentVolumeReclaimPolicy"]) == "Recycle")
                {
                    let policy = Path::new("spec");
                    errors.forbidden(
                        &policy.child("persistentVolumeReclaimPolicy"),
                        "may not be 'recycle' for a hostPath mount of '/'",
                    );
                }
            }
            let known =
                ["", "DirectoryOrCreate", "Directory", "FileOrCreate", "File", "Socket", "CharDevice", "BlockDevice"];
            if !known.contains(&text("type")) {
                let mut sorted = known;
                sorted.sort_unstable();
                errors.not_supported(&path.child("type"), text("type"), &sorted);
            }
        }
        "local" if !text("path").is_empty() => no_backsteps(&path.child("path"), text("path"), errors),
        "nfs" if !text("path").is_empty() && !text("path").starts_with('/') => {
            errors.invalid(&path.child("path"), text("path"), "must be an absolute path");
        }
        "gcePersistentDisk" | "awsElasticBlockStore" => {
            if let Some(n) = source.int_at(&["partition"]).filter(|n| !(0..=255).contains(n)) {
                errors.invalid(&path.child("partition"), n, "must be between 1 and 255, inclusive");
            }
        }
        "flocker" => {
            let (by_name, by_id) = (!text("datasetName").is_empty(), !text("datasetUUID").is_empty());
            if !by_name && !by_id {
                errors.required(path, "one of datasetName and datasetUUID is required");
            }
            if by_name && by_id {
                errors.invalid(path, "resource", "datasetName and datasetUUID can not be specified simultaneously");
            }
            if text("datasetName").contains('/') {
                errors.invalid(&path.child("datasetName"), text("datasetName"), "must not contain '/'");
            }
        }
        "quobyte" => check_quobyte(source, path, errors),
        "iscsi" => check_iscsi(source, volume.map(|(_, name)| name), path, errors),
        "fc" => check_fibre_channel(source, path, errors),
        "cinder" => secret(errors, "secretRef"),
        "storageos" => {
            for field in ["volumeName", "volumeNamespace"] {
                if !text(field).is_empty() {
                    names::invalid_each(errors, &path.child(field), text(field), names::dns_label(text(field)));
                }
            }
            secret(errors, "secretRef");
        }
        "flexVolume" => {
            for key in source.map_at(&["options"]).into_iter().flatten().map(|(key, _)| key) {
                let namespace = format!(".{}", key.split_once('/').map_or(key.as_str(), |(n, _)| n).to_lowercase());
                if namespace.ends_with(".kubernetes.io") || namespace.ends_with(".k8s.io") {
                    let options = path.child("options");
                    errors.invalid(&options.key(key), key, "kubernetes.io and k8s.io namespaces are reserved");
                }
            }
        }
        "azureFile" if source.at(&["secretNamespace"]).is_some_and(|v| v == "") => {
            errors.required(&path.child("secretNamespace"), "");
        }
        "azureDisk" => check_azure_disk(source, path, errors),
        "csi" if namespaced => {
            csi_driver_name(text("driver"), &path.child("driver"), errors);
            if text("volumeHandle").is_empty() {
                errors.required(&path.child("volumeHandle"), "");
            }
            for field in [
                "controllerPublishSecretRef",
                "controllerExpandSecretRef",
                "nodePublishSecretRef",
                "nodeExpandSecretRef",
            ] {
                if source.at(&[field]).is_some() {
                    check_secret_reference(source, field, path, errors);
                }
            }
        }
        _ => {}
    }
}

fn check_secret_reference(source: &Value, field: &str, path: &Path<'_>, errors: &mut Errors) {
    let at = path.child(field);
    let checks: [(&str, names::Check); 2] = [("name", names::dns_subdomain), ("namespace", names::dns_label)];
    for (part, check) in checks {
        let text = source.text_at(&[field, part]);
        if text.is_empty() {
            errors.required(&at.child(part), "");
        } else {
            names::invalid_each(errors, &at.child(part), text, check(text));
        }
    }
}

fn check_quobyte(source: &Value, path: &Path<'_>, errors: &mut Errors) {
    let at = path.child("registry");
    let registry = source.text_at(&["registry"]);
    if registry.is_empty() {
        return errors.required(&at, "must be a host:port pair or multiple pairs separated by commas");
    }
    if source.text_at(&["tenant"]).len() >= 65 {
        errors.required(&path.child("tenant"), "must be a UUID and may not exceed a length of 64 characters");
    }
    for pair in registry.split(',') {
        if pair.rsplit_once(':').is_none_or(|(_, port)| port.parse::<u16>().is_err()) {
            errors.invalid(&at, registry, "must be a host:port pair or multiple pairs separated by commas");
        }
    }
}

pub(super) const PORTAL_TOO_LONG: &str = "Total length of <volume name>:<iscsi.targetPortal> must be under 64 \
                                          characters if iscsi.initiatorName is specified.";

fn check_iscsi(source: &Value, volume: Option<&str>, path: &Path<'_>, errors: &mut Errors) {
    let iqn = source.text_at(&["iqn"]);
    if !iqn.is_empty() && !["iqn", "eui", "naa"].iter().any(|prefix| iqn.starts_with(prefix)) {
        errors.invalid(&path.child("iqn"), iqn, "must be valid format starting with iqn, eui, or naa");
    }
    if let Some(n) = source.int_at(&["lun"]).filter(|n| !(0..=255).contains(n)) {
        errors.invalid(&path.child("lun"), n, "must be between 0 and 255, inclusive");
    }
    let discovery = source.bool_at(&["chapAuthDiscovery"]) == Some(true);
    let session = source.bool_at(&["chapAuthSession"]) == Some(true);
    let secret = source.at(&["secretRef"]).is_some();
    if (discovery || session) && !secret {
        errors.required(&path.child("secretRef"), "");
    }
    let Some(name) = volume else { return };
    if secret && source.text_at(&["secretRef", "name"]).is_empty() {
        let at = path.child("secretRef");
        errors.required(&at.child("name"), "");
    }
    let target = source.text_at(&["targetPortal"]);
    if source.at(&["initiatorName"]).is_some() && name.len() + 1 + target.len() > 64 {
        let metadata = Path::new("metadata");
        errors.invalid(&metadata.child("name"), name, PORTAL_TOO_LONG);
    }
}

fn check_fibre_channel(source: &Value, path: &Path<'_>, errors: &mut Errors) {
    let targets = !source.list_at(&["targetWWNs"]).is_empty();
    let wwids = !source.list_at(&["wwids"]).is_empty();
    if !targets && !wwids {
        errors.required(&path.child("targetWWNs"), "must specify either targetWWNs or wwids, but not both");
    }
    if targets && wwids {
        let shown = Raw(source["targetWWNs"].to_string());
        errors.invalid(&path.child("targetWWNs"), shown, "targetWWNs and wwids can not be specified simultaneously");
    }
    if targets {
        match source.int_at(&["lun"]) {
            None => errors.required(&path.child("lun"), "lun is required if targetWWNs is specified"),
            Some(n) if !(0..=255).contains(&n) => {
                errors.invalid(&path.child("lun"), n, "must be between 0 and 255, inclusive");
            }
            Some(_) => {}
        }
    }
}

fn check_azure_disk(source: &Value, path: &Path<'_>, errors: &mut Errors) {
    for (field, known) in
        [("cachingMode", ["None", "ReadOnly", "ReadWrite"]), ("kind", ["Dedicated", "Managed", "Shared"])]
    {
        if let Some(text) = source.at(&[field]).and_then(Value::as_str)
            && !known.contains(&text)
        {
            errors.not_supported(&path.child(field), text, &known);
        }
    }
    let uri = source.text_at(&["diskURI"]);
    let (prefix, example) = match source.at(&["kind"]).and_then(Value::as_str) {
        None => return,
        Some("Managed") => (
            "/subscriptions/",
            "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}",
        ),
        Some(_) => ("https://", "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd"),
    };
    if !uri.starts_with(prefix) {
        errors.not_supported(&path.child("diskURI"), uri, &[example]);
    }
}

/// Types whose code is gone, or is going.
pub const DEPRECATED_SOURCES: &[(&str, &str)] = &[
    ("cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("storageos", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("rbd", "deprecated in v1.28, non-functional in v1.31+"),
];

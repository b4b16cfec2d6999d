//! PersistentVolume and PersistentVolumeClaim.

use serde_json::{Value, json};

use super::go_shape;
use super::meta;
use super::names;
use super::node;
use super::pod_parts;
use super::quantity;
use super::volume_shapes::{CLAIM_SPEC, NODE_AFFINITY, PERSISTENT_VOLUME_SPEC, VOLUME_SOURCES};
use super::volume_sources::{DEPRECATED_SOURCES, SOURCES, check_sources, default_sources};
use super::{Kind, add_finalizer, copy_field};
use crate::field::{Errors, Path, Raw};
use crate::object::Fields;

pub static KINDS: &[&dyn Kind] = &[&PersistentVolume, &PersistentVolumeClaim];

const ACCESS_MODES: &[&str] = &["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
const VOLUME_MODES: &[&str] = &["Block", "Filesystem"];
const RECLAIM_POLICIES: &[&str] = &["Delete", "Recycle", "Retain"];

fn check_access_modes(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let modes: Vec<&str> = spec.list_at(&["accessModes"]).iter().filter_map(Value::as_str).collect();
    let path = path.child("accessModes");
    for mode in modes.iter().filter(|mode| !ACCESS_MODES.contains(mode)) {
        errors.not_supported(&path, *mode, ACCESS_MODES);
    }
    let (alone, others): (Vec<&str>, Vec<&str>) =
        modes.iter().filter(|m| ACCESS_MODES.contains(m)).partition(|m| **m == "ReadWriteOncePod");
    if !alone.is_empty() && !others.is_empty() {
        errors.forbidden(&path, "may not use ReadWriteOncePod with other access modes");
    }
}

fn check_class_name(spec: &Value, field: &str, path: &Path<'_>, errors: &mut Errors) {
    let name = spec.text_at(&[field]);
    if !name.is_empty() {
        names::invalid_each(errors, &path.child(field), name, names::dns_subdomain(name));
    }
}

fn check_volume_mode(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    if let Some(mode) = spec.at(&["volumeMode"]).and_then(Value::as_str)
        && !VOLUME_MODES.contains(&mode)
    {
        errors.not_supported(&path.child("volumeMode"), mode, VOLUME_MODES);
    }
}

/// The spec of a persistent volume, which may also stand inline in a volume attachment.
pub fn check_volume_spec(spec: &Value, name: &str, inline: bool, path: &Path<'_>, errors: &mut Errors) {
    const INLINE: &str = "may not be specified in the context of inline volumes";
    if inline {
        for field in ["claimRef", "capacity", "nodeAffinity"] {
            if spec.at(&[field]).is_some() {
                errors.forbidden(&path.child(field), INLINE);
            }
        }
        if !spec.text_at(&["storageClassName"]).is_empty() {
            errors.forbidden(&path.child("storageClassName"), INLINE);
        }
        if spec.at(&["csi"]).is_none() {
            errors.required(&path.child("csi"), "has to be specified in the context of inline volumes");
        }
        if !matches!(spec.text_at(&["persistentVolumeReclaimPolicy"]), "" | "Retain") {
            let path = path.child("persistentVolumeReclaimPolicy");
            errors.forbidden(&path, "may only be Retain in the context of inline volumes");
        }
        if !matches!(spec.text_at(&["volumeMode"]), "" | "Filesystem") {
            let path = path.child("volumeMode");
            errors
                .forbidden(&path, "may not specify volumeMode other than Filesystem in the context of inline volumes");
        }
    } else {
        check_capacity(spec, path, errors);
        let policy = spec.text_at(&["persistentVolumeReclaimPolicy"]);
        if !policy.is_empty() && !RECLAIM_POLICIES.contains(&policy) {
            errors.not_supported(&path.child("persistentVolumeReclaimPolicy"), policy, RECLAIM_POLICIES);
        }
        if spec.at(&["nodeAffinity"]).is_some() {
            let affinity = path.child("nodeAffinity");
            match spec.at(&["nodeAffinity", "required"]) {
                Some(required) => pod_parts::node_selector(errors, &affinity.child("required"), required),
                None => errors.required(&affinity.child("required"), "must specify required node constraints"),
            }
        }
        check_class_name(spec, "storageClassName", path, errors);
        check_volume_mode(spec, path, errors);
    }
    if spec.list_at(&["accessModes"]).is_empty() {
        errors.required(&path.child("accessModes"), "");
    }
    check_access_modes(spec, path, errors);
    check_sources(spec, name, path, errors);
    if let Some(class) = spec.at(&["volumeAttributesClassName"]).and_then(Value::as_str) {
        if class.is_empty() {
            errors.required(&path.child("volumeAttributesClassName"), "an empty string is disallowed");
        }
        check_class_name(spec, "volumeAttributesClassName", path, errors);
        if spec.at(&["csi"]).is_none() {
            errors.required(&path.child("csi"), "has to be specified when using volumeAttributesClassName");
        }
    }
}

fn check_capacity(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let capacity = spec.map_at(&["capacity"]);
    let path = path.child("capacity");
    let count = capacity.map_or(0, |map| map.len());
    if count == 0 {
        errors.required(&path, "");
    }
    if count != 1 || spec.at(&["capacity", "storage"]).is_none() {
        let shown = spec.get("capacity").map_or("null".to_owned(), Value::to_string);
        errors.not_supported(&path, Raw(shown), &["storage"]);
    }
    for (name, amount) in capacity.into_iter().flatten() {
        quantity::basic(errors, &path.key(name), amount);
        quantity::positive(errors, &path.key(name), amount);
    }
}

pub struct PersistentVolume;

impl PersistentVolume {
    /// A volume's source in the spec: what of it is not a volume type.
    fn source(object: &Value) -> Vec<(&str, &Value)> {
        let spec = object.map_at(&["spec"]);
        spec.into_iter()
            .flatten()
            .filter(|(key, _)| SOURCES.iter().any(|(field, ..)| field == key))
            .map(|(key, value)| (key.as_str(), value))
            .collect()
    }
}

impl Kind for PersistentVolume {
    fn group(&self) -> &'static str {
        ""
    }

    fn kind(&self) -> &'static str {
        "PersistentVolume"
    }

    fn default(&self, object: &mut Value) {
        object.make_map(&["spec"]);
        if let Some(spec) = object.at_mut(&["spec"]) {
            spec.set_default("persistentVolumeReclaimPolicy", "Retain");
            spec.set_default("volumeMode", "Filesystem");
            default_sources(spec);
        }
        if object.text_at(&["status", "phase"]).is_empty() {
            object.set(&["status", "phase"], "Pending");
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        object.set(&["status"], json!({ "phase": "Pending", "lastPhaseTransitionTime": meta::now() }));
        add_finalizer(object, "kubernetes.io/pv-protection");
    }

    fn prepare_status_update(&self, object: &mut Value, old: &Value) {
        copy_field(object, old, "spec");
        let moved = object.at(&["status", "phase"]) != old.at(&["status", "phase"]);
        let time = object.at(&["status", "lastPhaseTransitionTime"]);
        let before = old.at(&["status", "lastPhaseTransitionTime"]);
        match (moved, time.is_none(), before) {
            (false, true, Some(before)) => object.set(&["status", "lastPhaseTransitionTime"], before.clone()),
            (true, missing, _) if missing || time == before => {
                object.set(&["status", "lastPhaseTransitionTime"], meta::now());
            }
            _ => {}
        }
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        let empty = json!({});
        let spec = object.at(&["spec"]).unwrap_or(&empty);
        check_volume_spec(spec, object.text_at(&["metadata", "name"]), false, &Path::new("spec"), errors);
    }

    fn validate_update(&self, object: &Value, old: &Value, errors: &mut Errors) {
        // Upstream's strategy asks for it, and the check of the change once more.
        self.validate(object, errors);
        self.validate(object, errors);
        let spec = Path::new("spec");
        let mut new = object.clone();
        let expand = ["spec", "csi", "controllerExpandSecretRef"];
        if old.at(&["spec", "csi"]).is_some() && old.at(&expand).is_none() {
            new.take_at(&expand);
        }
        if Self::source(&new) != Self::source(old) {
            let sources = &PERSISTENT_VOLUME_SPEC[VOLUME_SOURCES];
            let diff = go_shape::diff(old.at(&["spec"]), new.at(&["spec"]), sources);
            let detail = format!("spec.persistentvolumesource is immutable after creation\n{diff}");
            errors.forbidden(&spec.child("persistentvolumesource"), detail);
        }
        let mode = ["spec", "volumeMode"];
        meta::immutable(errors, &Path::new("volumeMode"), object.at(&mode), old.at(&mode));
        let affinity = ["spec", "nodeAffinity"];
        if old.at(&affinity).is_some() && object.at(&affinity) != old.at(&affinity) {
            errors.invalid(
                &Path::new("nodeAffinity"),
                go_shape::pointer(object.at(&affinity), NODE_AFFINITY),
                format!("{}, except for updating from beta label to GA", meta::FIELD_IMMUTABLE),
            );
        }
        let class = ["spec", "volumeAttributesClassName"];
        if old.at(&class).is_some() && object.at(&class).is_none() {
            errors.forbidden(&spec.child(class[1]), "update from non-nil value to nil is forbidden");
        }
    }

    fn warnings(&self, object: &Value, _old: Option<&Value>) -> Vec<String> {
        let mut warnings = beta_class_warning(object);
        let terms = object.list_at(&["spec", "nodeAffinity", "required", "nodeSelectorTerms"]);
        for (i, term) in terms.iter().enumerate() {
            for (j, requirement) in term.list_at(&["matchExpressions"]).iter().enumerate() {
                let path = format!("spec.nodeAffinity.required.nodeSelectorTerms[{i}].matchExpressions[{j}].key");
                warnings.extend(node::deprecated_label(&path, requirement.text_at(&["key"])));
            }
        }
        if object.at(&["metadata", "annotations", MOUNT_OPTIONS]).is_some() {
            warnings.push(format!(
                "metadata.annotations[{MOUNT_OPTIONS}]: deprecated since v1.31; use \"mountOptions\" attribute instead"
            ));
        }
        if object.text_at(&["spec", "persistentVolumeReclaimPolicy"]) == "Recycle" {
            warnings.push(
                "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the \
                 recommended approach is to use dynamic provisioning."
                    .to_owned(),
            );
        }
        for (field, what) in DEPRECATED_SOURCES {
            if object.at(&["spec", field]).is_some() {
                warnings.push(format!("spec.{field}: {what}"));
            }
        }
        warnings
    }

    fn meta_looks(&self) -> meta::MetaLooks {
        meta::MetaLooks { finalizers: true, change: false, whole: 2 }
    }
}

const BETA_CLASS: &str = "volume.beta.kubernetes.io/storage-class";
const MOUNT_OPTIONS: &str = "volume.beta.kubernetes.io/mount-options";

fn beta_class_warning(object: &Value) -> Vec<String> {
    let used = object.at(&["metadata", "annotations", BETA_CLASS]).is_some();
    let text = "deprecated since v1.8; use \"storageClassName\" attribute instead";
    used.then(|| format!("metadata.annotations[{BETA_CLASS}]: {text}")).into_iter().collect()
}

pub struct PersistentVolumeClaim;

/// Warnings about a claim's spec at `path`, also where it stands in a template.
pub fn claim_spec_warnings(spec: &Value, path: &str) -> Vec<String> {
    let fractional = ["requests", "limits"].into_iter().filter_map(|list| {
        let amount = spec.at(&["resources", list, "storage"]).filter(|amount| !quantity::is_whole_amount(amount))?;
        let path = format!("{path}.resources.{list}[storage]");
        Some(format!("{path}: fractional byte value {amount} is invalid, must be an integer"))
    });
    fractional.collect()
}

/// Defaults of a claim's spec, also where it stands in a template.
pub fn default_claim_spec(spec: &mut Value) {
    spec.set_default("volumeMode", "Filesystem");
}

/// The spec of a claim, also where it stands in a template.
pub fn check_claim_spec(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    if spec.list_at(&["accessModes"]).is_empty() {
        errors.required(&path.child("accessModes"), "at least 1 access mode is required");
    }
    if let Some(selector) = spec.at(&["selector"]) {
        meta::label_selector(errors, &path.child("selector"), selector);
    }
    check_access_modes(spec, path, errors);
    let resources = path.child("resources");
    let storage = resources.key("storage");
    match spec.at(&["resources", "requests", "storage"]) {
        None => errors.required(&storage, ""),
        Some(amount) => {
            let before = errors.0.len();
            quantity::positive(errors, &storage, amount);
            if errors.0.len() == before {
                quantity::resource_value(errors, &storage, "storage", amount);
            }
        }
    }
    check_class_name(spec, "storageClassName", path, errors);
    check_volume_mode(spec, path, errors);
    for field in ["dataSource", "dataSourceRef"] {
        if spec.at(&[field]).is_some() {
            check_data_source(spec, field, path, errors);
        }
    }
    if spec.at(&["dataSource"]).is_some() && spec.at(&["dataSourceRef"]).is_some() {
        let pair = ["apiGroup", "kind", "name"];
        let same = pair.iter().all(|f| spec.at(&["dataSource", f]) == spec.at(&["dataSourceRef", f]));
        // Upstream prints the path object itself here, whose fields Go keeps private.
        if !spec.text_at(&["dataSourceRef", "namespace"]).is_empty() {
            errors.invalid(
                path,
                Raw("{}".to_owned()),
                "may not be specified when dataSourceRef.namespace is specified",
            );
        } else if !same {
            errors.invalid(path, Raw("{}".to_owned()), "must match dataSourceRef");
        }
    }
    check_class_name(spec, "volumeAttributesClassName", path, errors);
}

fn check_data_source(spec: &Value, field: &str, path: &Path<'_>, errors: &mut Errors) {
    let at = path.child(field);
    let text = |part: &str| spec.text_at(&[field, part]);
    for part in ["name", "kind"] {
        if text(part).is_empty() {
            errors.required(&at.child(part), "");
        }
    }
    if text("apiGroup").is_empty() && text("kind") != "PersistentVolumeClaim" {
        errors.invalid(&at, text("kind"), "must be 'PersistentVolumeClaim' when referencing the default apiGroup");
    }
    let mut each = |part: &str, check: names::Check| {
        if !text(part).is_empty() {
            names::invalid_each(errors, &at.child(part), text(part), check(text(part)));
        }
    };
    each("apiGroup", names::dns_subdomain);
    if field == "dataSourceRef" {
        each("namespace", names::dns_label);
    }
}

/// `dataSource` only ever named claims and snapshots, and ignored the rest; `dataSourceRef` mirrors it.
fn settle_data_source(object: &mut Value, old: Option<&Value>) {
    let Some(spec) = object.at_mut(&["spec"]) else { return };
    let in_use = old
        .is_some_and(|old| old.at(&["spec", "dataSource"]).is_some() || old.at(&["spec", "dataSourceRef"]).is_some());
    if !in_use && spec.at(&["dataSource"]).is_some() && spec.at(&["dataSourceRef"]).is_none() {
        let known = matches!(
            (spec.text_at(&["dataSource", "kind"]), spec.text_at(&["dataSource", "apiGroup"])),
            ("PersistentVolumeClaim", "") | ("VolumeSnapshot", "snapshot.storage.k8s.io")
        );
        if !known {
            spec.take_at(&["dataSource"]);
        }
    }
    match (spec.at(&["dataSource"]).cloned(), spec.at(&["dataSourceRef"]).cloned()) {
        (Some(source), None) => spec.set(&["dataSourceRef"], source),
        (None, Some(mut reference)) if reference.text_at(&["namespace"]).is_empty() => {
            reference.take_at(&["namespace"]);
            spec.set(&["dataSource"], reference);
        }
        _ => {}
    }
}

impl Kind for PersistentVolumeClaim {
    fn group(&self) -> &'static str {
        ""
    }

    fn kind(&self) -> &'static str {
        "PersistentVolumeClaim"
    }

    fn default(&self, object: &mut Value) {
        object.make_map(&["spec"]);
        if let Some(spec) = object.at_mut(&["spec"]) {
            default_claim_spec(spec);
        }
        if object.text_at(&["status", "phase"]).is_empty() {
            object.set(&["status", "phase"], "Pending");
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        object.set(&["status"], json!({ "phase": "Pending" }));
        settle_data_source(object, None);
        add_finalizer(object, "kubernetes.io/pvc-protection");
    }

    fn prepare_update(&self, object: &mut Value, old: &Value) {
        copy_field(object, old, "status");
        settle_data_source(object, Some(old));
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        let empty = json!({});
        check_claim_spec(object.at(&["spec"]).unwrap_or(&empty), &Path::new("spec"), errors);
    }

    fn validate_update(&self, object: &Value, old: &Value, errors: &mut Errors) {
        // Upstream's strategy asks for it, and the check of the change once more.
        self.validate(object, errors);
        self.validate(object, errors);
        let spec = Path::new("spec");
        let bound = object.text_at(&["status", "phase"]) == "Bound";
        let beta = ["metadata", "annotations", BETA_CLASS];
        // The claim that is compared has the fields that may change as they were.
        let (mut new, mut before) = (object.clone(), old.clone());
        let copy = |to: &mut Value, from: &Value, path: &[&str]| match from.at(path) {
            Some(value) => to.set(path, value.clone()),
            None => drop(to.take_at(path)),
        };
        if old.text_at(&["spec", "volumeName"]).is_empty() {
            copy(&mut before, object, &["spec", "volumeName"]);
        }
        if object.text_at(&beta) != old.text_at(&beta) {
            let metadata = Path::new("metadata");
            let annotations = metadata.child("annotations");
            errors.invalid(&annotations.key(beta[2]), object.text_at(&beta), meta::FIELD_IMMUTABLE);
        }
        let class = ["spec", "storageClassName"];
        let upgrade = old.at(&class).is_none()
            && object.at(&class).is_some()
            && (old.at(&beta).is_none() || object.text_at(&class) == old.text_at(&beta));
        if upgrade {
            copy(&mut new, old, &class);
        }
        if bound {
            for path in [&["spec", "resources", "requests", "storage"][..], &["spec", "volumeAttributesClassName"]] {
                if new.at(path).is_some() {
                    copy(&mut new, old, path);
                }
            }
        }
        if new.at(&["spec"]) != before.at(&["spec"]) {
            let diff = go_shape::diff(before.at(&["spec"]), new.at(&["spec"]), CLAIM_SPEC);
            let detail = format!(
                "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound \
                 claims\n{diff}"
            );
            errors.forbidden(&spec, detail);
        }
        let request = ["spec", "resources", "requests", "storage"];
        let zero = json!("0");
        let size = |object: &Value, path: &[&str]| object.at(path).unwrap_or(&zero).clone();
        let asked = size(object, &request);
        if quantity::compare(&asked, &size(old, &request)).is_lt()
            && quantity::compare(&asked, &size(old, &["status", "capacity", "storage"])).is_le()
        {
            let resources = spec.child("resources");
            let requests = resources.child("requests");
            errors.forbidden(&requests.child("storage"), "field can not be less than status.capacity");
        }
        let mode = ["spec", "volumeMode"];
        meta::immutable(errors, &Path::new("volumeMode"), object.at(&mode), old.at(&mode));
        let class = ["spec", "volumeAttributesClassName"];
        if old.at(&class).is_some() && object.at(&class) != old.at(&class) {
            match object.at(&class).and_then(Value::as_str) {
                None => errors.forbidden(&spec.child(class[1]), "update from non-nil value to nil is forbidden"),
                Some("") => {
                    errors.forbidden(&spec.child(class[1]), "update from non-nil value to an empty string is forbidden")
                }
                Some(_) => {}
            }
        }
    }

    fn meta_looks(&self) -> meta::MetaLooks {
        meta::MetaLooks { whole: 2, ..meta::MetaLooks::ALL }
    }

    fn warnings(&self, object: &Value, _old: Option<&Value>) -> Vec<String> {
        let mut warnings = beta_class_warning(object);
        warnings.extend(claim_spec_warnings(&object["spec"], "spec"));
        warnings
    }

    fn validate_status_update(&self, object: &Value, _old: &Value, errors: &mut Errors) {
        let status = Path::new("status");
        for (name, amount) in object.map_at(&["status", "capacity"]).into_iter().flatten() {
            let capacity = status.child("capacity");
            quantity::basic(errors, &capacity.key(name), amount);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(errors: &Errors) -> Vec<&str> {
        errors.0.iter().map(|e| e.field.as_str()).collect()
    }

    #[test]
    fn a_volume_has_exactly_one_type() {
        let mut volume = json!({"spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}}});
        let run = |volume: &Value| {
            let mut errors = Errors::default();
            PersistentVolume.validate(volume, &mut errors);
            errors
        };
        assert_eq!(fields(&run(&volume)), ["spec"]);
        volume["spec"]["hostPath"] = json!({"path": "/a/../b"});
        volume["spec"]["nfs"] = json!({});
        assert_eq!(fields(&run(&volume)), ["spec.hostPath.path", "spec.nfs"]);
    }

    #[test]
    fn a_claim_mirrors_its_data_source() {
        let mut claim = json!({"spec": {"dataSource": {"kind": "PersistentVolumeClaim", "name": "o"}}});
        PersistentVolumeClaim.prepare_create(&mut claim);
        assert_eq!(claim["spec"]["dataSourceRef"]["name"], "o");
        let mut odd = json!({"spec": {"dataSource": {"kind": "Odd", "name": "o"}}});
        PersistentVolumeClaim.prepare_create(&mut odd);
        assert_eq!(odd["spec"], json!({}));
    }

    #[test]
    fn a_bound_claim_may_only_grow() {
        let claim = |size: &str, phase: &str| {
            json!({
                "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}},
                "status": {"phase": phase, "capacity": {"storage": "5Gi"}},
            })
        };
        let run = |new: &Value, old: &Value| {
            let mut errors = Errors::default();
            PersistentVolumeClaim.validate_update(new, old, &mut errors);
            fields(&errors).into_iter().map(str::to_owned).collect::<Vec<_>>()
        };
        assert!(run(&claim("10Gi", "Bound"), &claim("5Gi", "Bound")).is_empty());
        assert_eq!(run(&claim("10Gi", "Pending"), &claim("5Gi", "Pending")), ["spec"]);
        assert_eq!(run(&claim("1Gi", "Bound"), &claim("5Gi", "Bound")), ["spec.resources.requests.storage"]);
    }
}

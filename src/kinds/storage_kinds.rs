//! storage.k8s.io: classes, CSI drivers and their nodes, capacities, attachments.

use serde_json::{Value, json};

use super::go_shape::{self, Part, Shape};
use super::meta;
use super::names;
use super::node;
use super::persistent;
use super::quantity;
use super::volume_shapes::PERSISTENT_VOLUME_SPEC;
use super::volume_sources::csi_driver_name;
use super::{Kind, Selectable, add_finalizer};
use crate::field::{Errors, Path, Raw};
use crate::object::Fields;

const GROUP: &str = "storage.k8s.io";

pub static KINDS: &[&dyn Kind] =
    &[&StorageClass, &CsiDriver, &CsiNode, &CsiStorageCapacity, &VolumeAttachment, &VolumeAttributesClass];

const MAX_PARAMETERS: usize = 512;
const MAX_PARAMETER_BYTES: usize = 256 * 1024;

fn check_provisioner(name: &str, path: &Path<'_>, errors: &mut Errors) {
    if name.is_empty() {
        return errors.required(path, "");
    }
    let lower = name.to_lowercase();
    names::invalid_each(errors, path, &lower, names::qualified_name(&lower));
}

fn check_parameters(object: &Value, may_be_empty: bool, errors: &mut Errors) {
    let path = Path::new("parameters");
    let parameters = object.map_at(&["parameters"]);
    let count = parameters.map_or(0, |map| map.len());
    if count > MAX_PARAMETERS {
        return errors.too_long(&path, MAX_PARAMETERS);
    }
    let mut total = 0;
    for (key, value) in parameters.into_iter().flatten() {
        if key.is_empty() {
            errors.invalid(&path, key, "field can not be empty.");
        }
        total += key.len() + value.as_str().map_or(0, str::len);
    }
    if total > MAX_PARAMETER_BYTES {
        errors.too_long(&path, MAX_PARAMETER_BYTES);
    }
    if count == 0 && !may_be_empty {
        errors.required(&path, "must contain at least one key/value pair");
    }
}

pub struct StorageClass;

impl Kind for StorageClass {
    fn group(&self) -> &'static str {
        GROUP
    }

    fn kind(&self) -> &'static str {
        "StorageClass"
    }

    fn has_status(&self) -> bool {
        false
    }

    fn default(&self, object: &mut Value) {
        object.set_default("reclaimPolicy", "Delete");
        object.set_default("volumeBindingMode", "Immediate");
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        check_provisioner(object.text_at(&["provisioner"]), &Path::new("provisioner"), errors);
        check_parameters(object, true, errors);
        let policy = object.text_at(&["reclaimPolicy"]);
        if !matches!(policy, "" | "Delete" | "Retain") {
            errors.not_supported(&Path::new("reclaimPolicy"), policy, &["Delete", "Retain"]);
        }
        let mode = object.text_at(&["volumeBindingMode"]);
        if !matches!(mode, "Immediate" | "WaitForFirstConsumer") {
            errors.not_supported(&Path::new("volumeBindingMode"), mode, &["Immediate", "WaitForFirstConsumer"]);
        }
        check_topologies(object, errors);
    }

    fn validate_update(&self, object: &Value, old: &Value, errors: &mut Errors) {
        let (path, provisioner) = (Path::new("provisioner"), object.text_at(&["provisioner"]));
        if provisioner.is_empty() {
            errors.required(&path, "");
        }
        meta::immutable_text(errors, &path, provisioner, old.text_at(&["provisioner"]));
        for field in ["parameters", "reclaimPolicy", "volumeBindingMode"] {
            meta::immutable(errors, &Path::new(field), object.at(&[field]), old.at(&[field]));
        }
    }

    fn warnings(&self, object: &Value, _old: Option<&Value>) -> Vec<String> {
        let mut warnings = Vec::new();
        for (i, term) in object.list_at(&["allowedTopologies"]).iter().enumerate() {
            for (j, expression) in term.list_at(&["matchLabelExpressions"]).iter().enumerate() {
                let path = format!("allowedTopologies[{i}].matchLabelExpressions[{j}].key");
                warnings.extend(node::deprecated_label(&path, expression.text_at(&["key"])));
            }
        }
        warnings
    }

    fn meta_looks(&self) -> meta::MetaLooks {
        meta::MetaLooks { finalizers: true, change: true, whole: 0 }
    }
}

fn check_topologies(object: &Value, errors: &mut Errors) {
    let root = Path::new("allowedTopologies");
    let mut seen: Vec<Vec<(&str, Vec<&str>)>> = Vec::new();
    let terms = object.list_at(&["allowedTopologies"]);
    for (i, term) in terms.iter().enumerate() {
        let at = root.index(i);
        let list = at.child("matchLabelExpressions");
        let mut expressions: Vec<(&str, Vec<&str>)> = Vec::new();
        for (j, expression) in term.list_at(&["matchLabelExpressions"]).iter().enumerate() {
            let path = list.index(j);
            let key = expression.text_at(&["key"]);
            let mut values: Vec<&str> = Vec::new();
            let given = expression.list_at(&["values"]);
            if given.is_empty() {
                errors.required(&path.child("values"), "");
            }
            for (k, value) in given.iter().enumerate() {
                let value = value.as_str().unwrap_or_default();
                if values.contains(&value) {
                    let values = path.child("values");
                    errors.duplicate(&values.index(k), value);
                }
                values.push(value);
            }
            names::invalid_each(errors, &path.child("key"), key, names::qualified_name(key));
            if expressions.iter().any(|(k, _)| *k == key) {
                errors.duplicate(&path.child("key"), key);
            }
            values.sort_unstable();
            values.dedup();
            expressions.push((key, values));
        }
        expressions.sort_unstable();
        // Upstream compares with one empty term for each term there is, beside those before this one.
        let empty = if expressions.is_empty() { terms.len() } else { 0 };
        for _ in 0..empty + seen.iter().filter(|other| **other == expressions).count() {
            errors.duplicate(&list, "");
        }
        seen.push(expressions);
    }
}

pub struct CsiDriver;

/// What of a driver may change, and then moves its generation, which nothing sets before.
const DRIVER_COUNTED: &[&str] = &[
    "podInfoOnMount",
    "storageCapacity",
    "fsGroupPolicy",
    "tokenRequests",
    "requiresRepublish",
    "seLinuxMount",
    "nodeAllocatableUpdatePeriodSeconds",
    "serviceAccountTokenInSecrets",
    "preventPodSchedulingIfMissing",
];

impl Kind for CsiDriver {
    fn group(&self) -> &'static str {
        GROUP
    }

    fn kind(&self) -> &'static str {
        "CSIDriver"
    }

    fn has_status(&self) -> bool {
        false
    }

    fn unconditional_update(&self) -> bool {
        false
    }

    fn default(&self, object: &mut Value) {
        object.make_map(&["spec"]);
        let Some(spec) = object.at_mut(&["spec"]) else { return };
        spec.set_default("attachRequired", true);
        for field in ["podInfoOnMount", "storageCapacity", "requiresRepublish", "seLinuxMount"] {
            spec.set_default(field, false);
        }
        spec.set_default("fsGroupPolicy", "ReadWriteOnceWithFSType");
        if spec.list_at(&["volumeLifecycleModes"]).is_empty() {
            spec.set(&["volumeLifecycleModes"], json!(["Persistent"]));
        }
    }

    fn prepare_update(&self, object: &mut Value, old: &Value) {
        let generation = old.int_at(&["metadata", "generation"]).unwrap_or_default();
        if DRIVER_COUNTED.iter().any(|field| object.at(&["spec", field]) != old.at(&["spec", field])) {
            object.set(&["metadata", "generation"], generation + 1);
        }
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        let spec = Path::new("spec");
        for (field, reported) in [
            ("attachRequired", "attachedRequired"),
            ("podInfoOnMount", "podInfoOnMount"),
            ("storageCapacity", "storageCapacity"),
            ("seLinuxMount", "seLinuxMount"),
        ] {
            if object.at(&["spec", field]).is_none() {
                errors.required(&spec.child(reported), "");
            }
        }
        if let Some(policy) = object.at(&["spec", "fsGroupPolicy"]).and_then(Value::as_str) {
            let known = ["File", "None", "ReadWriteOnceWithFSType"];
            if !known.contains(&policy) {
                errors.not_supported(&spec.child("fsGroupPolicy"), policy, &known);
            }
        }
        let requests = object.list_at(&["spec", "tokenRequests"]);
        let list = spec.child("tokenRequests");
        for (i, request) in requests.iter().enumerate() {
            let path = list.index(i);
            let audience = request.text_at(&["audience"]);
            if requests[..i].iter().any(|r| r.text_at(&["audience"]) == audience) {
                errors.duplicate(&path.child("audience"), audience);
                continue;
            }
            let Some(seconds) = request.int_at(&["expirationSeconds"]) else { continue };
            let path = path.child("expirationSeconds");
            if seconds < 600 {
                errors.invalid(&path, seconds, "may not specify a duration less than 10 minutes");
            }
            if seconds > 1 << 32 {
                errors.invalid(&path, seconds, "may not specify a duration larger than 2^32 seconds");
            }
        }
        for mode in object.list_at(&["spec", "volumeLifecycleModes"]) {
            let mode = mode.as_str().unwrap_or_default();
            if !matches!(mode, "Persistent" | "Ephemeral") {
                errors.not_supported(&spec.child("volumeLifecycleModes"), mode, &["Persistent", "Ephemeral"]);
            }
        }
        let field = "nodeAllocatableUpdatePeriodSeconds";
        if let Some(seconds) = object.int_at(&["spec", field]).filter(|n| *n < 10) {
            errors.invalid(&spec.child(field), seconds, "must be greater than or equal to 10 seconds");
        }
        if object.bool_at(&["spec", "serviceAccountTokenInSecrets"]).is_some() && requests.is_empty() {
            errors.invalid(
                &spec.child("serviceAccountTokenInSecrets"),
                &object["spec"]["serviceAccountTokenInSecrets"],
                "serviceAccountTokenInSecrets is set but no tokenRequests are specified",
            );
        }
    }

    fn validate_update(&self, object: &Value, old: &Value, errors: &mut Errors) {
        self.validate(object, errors);
        let spec = Path::new("spec");
        for (field, reported) in
            [("attachRequired", "attachedRequired"), ("volumeLifecycleModes", "volumeLifecycleModes")]
        {
            meta::immutable(errors, &spec.child(reported), object.at(&["spec", field]), old.at(&["spec", field]));
        }
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        let requests = object.list_at(&["spec", "tokenRequests"]);
        let asks = !requests.is_empty() && old.is_none_or(|old| old.list_at(&["spec", "tokenRequests"]) != requests);
        if asks && object.at(&["spec", "serviceAccountTokenInSecrets"]).is_none() {
            return vec![
                "spec.serviceAccountTokenInSecrets is unset; if supported by this CSI driver, set to true to prevent \
                 possible logging of tokens in volume attributes"
                    .to_owned(),
            ];
        }
        Vec::new()
    }

    fn meta_looks(&self) -> meta::MetaLooks {
        meta::MetaLooks { finalizers: true, change: true, whole: 0 }
    }
}

pub struct CsiNode;

const NODE_DRIVER: Shape = &[
    ("Name", "name", Part::Text),
    ("NodeID", "nodeID", Part::Text),
    ("TopologyKeys", "topologyKeys", Part::Plain),
    ("Allocatable", "allocatable", Part::Pointer(&[("Count", "count", Part::Plain)])),
];

impl Kind for CsiNode {
    fn group(&self) -> &'static str {
        GROUP
    }

    fn kind(&self) -> &'static str {
        "CSINode"
    }

    fn has_status(&self) -> bool {
        false
    }

    fn unconditional_update(&self) -> bool {
        false
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        let spec = Path::new("spec");
        let list = spec.child("drivers");
        let drivers = object.list_at(&["spec", "drivers"]);
        for (i, driver) in drivers.iter().enumerate() {
            let path = list.index(i);
            let name = driver.text_at(&["name"]);
            csi_driver_name(name, &path.child("name"), errors);
            let id = driver.text_at(&["nodeID"]);
            if id.is_empty() {
                errors.required(&path.child("nodeID"), "");
            }
            if id.len() > 256 {
                errors.invalid(&path.child("nodeID"), id, "must be 256 characters or less");
            }
            if let Some(count) = driver.int_at(&["allocatable", "count"]).filter(|n| *n < 0) {
                let allocatable = path.child("allocatable");
                errors.invalid(&allocatable.child("count"), count, "must be greater than or equal to 0");
            }
            if drivers[..i].iter().any(|d| d.text_at(&["name"]) == name) {
                errors.duplicate(&path.child("name"), name);
            }
            let keys = driver.list_at(&["topologyKeys"]);
            for (j, key) in keys.iter().enumerate() {
                let text = key.as_str().unwrap_or_default();
                if text.is_empty() {
                    errors.required(&path, "");
                }
                if keys[..j].contains(key) {
                    errors.duplicate(&path, text);
                }
                names::invalid_each(errors, &path, text, names::qualified_name(text));
            }
        }
    }

    fn validate_update(&self, object: &Value, old: &Value, errors: &mut Errors) {
        // Upstream's strategy asks for it, and the check of the change once more.
        self.validate(object, errors);
        self.validate(object, errors);
        let spec = Path::new("spec");
        let bare = |driver: &Value| {
            let mut driver = driver.clone();
            driver.take_at(&["allocatable"]);
            driver
        };
        for before in old.list_at(&["spec", "drivers"]) {
            for after in object.list_at(&["spec", "drivers"]) {
                let after = bare(after);
                if before.text_at(&["name"]) == after.text_at(&["name"]) && bare(before) != after {
                    let shown = go_shape::pointer(Some(&after), NODE_DRIVER);
                    errors.invalid(&spec.child("drivers"), shown, meta::FIELD_IMMUTABLE);
                }
            }
        }
    }

    fn meta_looks(&self) -> meta::MetaLooks {
        meta::MetaLooks { finalizers: true, change: false, whole: 2 }
    }
}

pub struct CsiStorageCapacity;

impl Kind for CsiStorageCapacity {
    fn group(&self) -> &'static str {
        GROUP
    }

    fn kind(&self) -> &'static str {
        "CSIStorageCapacity"
    }

    fn has_status(&self) -> bool {
        false
    }

    fn unconditional_update(&self) -> bool {
        false
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        if let Some(selector) = object.at(&["nodeTopology"]) {
            meta::label_selector(errors, &Path::new("nodeTopology"), selector);
        }
        let class = object.text_at(&["storageClassName"]);
        names::invalid_each(errors, &Path::new("storageClassName"), class, names::dns_subdomain(class));
        if let Some(capacity) = object.at(&["capacity"]) {
            quantity::nonnegative(errors, &Path::new("capacity"), capacity);
        }
    }

    fn validate_update(&self, object: &Value, old: &Value, errors: &mut Errors) {
        self.validate(object, errors);
        if object.at(&["nodeTopology"]) != old.at(&["nodeTopology"]) {
            let shown = object.at(&["nodeTopology"]).map_or("null".to_owned(), Value::to_string);
            errors.invalid(&Path::new("nodeTopology"), Raw(shown), meta::FIELD_IMMUTABLE);
        }
        let field = "storageClassName";
        if object.text_at(&[field]) != old.text_at(&[field]) {
            errors.invalid(&Path::new(field), object.text_at(&[field]), meta::FIELD_IMMUTABLE);
        }
    }

    fn meta_looks(&self) -> meta::MetaLooks {
        meta::MetaLooks::ALL
    }
}

pub struct VolumeAttachment;

const ATTACHMENT_SPEC: Shape = &[
    ("Attacher", "attacher", Part::Text),
    (
        "Source",
        "source",
        Part::Struct(&[
            ("PersistentVolumeName", "persistentVolumeName", Part::Plain),
            ("InlineVolumeSpec", "inlineVolumeSpec", Part::Pointer(PERSISTENT_VOLUME_SPEC)),
        ]),
    ),
    ("NodeName", "nodeName", Part::Text),
];

const MAX_ATTACHMENT_METADATA: usize = 256 * 1024;
const MAX_ATTACHMENT_MESSAGE: usize = 1024;

impl VolumeAttachment {
    fn check(&self, object: &Value, errors: &mut Errors) {
        let spec = Path::new("spec");
        let path = spec.child("source");
        let inline = object.at(&["spec", "source", "inlineVolumeSpec"]);
        let name = object.at(&["spec", "source", "persistentVolumeName"]).and_then(Value::as_str);
        let exactly_one = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
        if object.text_at(&["spec", "attacher"]).is_empty() {
            errors.required(&spec.child("attacher"), "");
        }
        match (inline, name) {
            (None, None) => errors.required(&path, exactly_one),
            (Some(_), Some(_)) => errors.forbidden(&path, exactly_one),
            (None, Some("")) => {
                errors.required(&path.child("persistentVolumeName"), "must specify non empty persistentVolumeName");
            }
            (None, Some(_)) => {}
            (Some(inline), None) => {
                persistent::check_volume_spec(inline, "", true, &path.child("inlineVolumeSpec"), errors);
            }
        }
        let node = object.text_at(&["spec", "nodeName"]);
        names::invalid_each(errors, &spec.child("nodeName"), node, names::dns_subdomain(node));
        self.check_status(object, errors);
    }

    fn check_status(&self, object: &Value, errors: &mut Errors) {
        let status = Path::new("status");
        let metadata = object.map_at(&["status", "attachmentMetadata"]);
        let size: usize = metadata.into_iter().flatten().map(|(k, v)| k.len() + v.as_str().map_or(0, str::len)).sum();
        if size > MAX_ATTACHMENT_METADATA {
            errors.too_long(&status.child("attachmentMetadata"), MAX_ATTACHMENT_METADATA);
        }
        for field in ["attachError", "detachError"] {
            let path = status.child(field);
            if object.text_at(&["status", field, "message"]).len() > MAX_ATTACHMENT_MESSAGE {
                errors.too_long(&path.child("message"), MAX_ATTACHMENT_METADATA);
            }
            if let Some(code) = object.int_at(&["status", field, "errorCode"]).filter(|n| *n < 0) {
                errors.invalid(&path.child("errorCode"), code, "must be between 0 and 2147483647, inclusive");
            }
        }
    }
}

impl Kind for VolumeAttachment {
    fn group(&self) -> &'static str {
        GROUP
    }

    fn kind(&self) -> &'static str {
        "VolumeAttachment"
    }

    fn unconditional_update(&self) -> bool {
        false
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        self.check(object, errors);
        let spec = Path::new("spec");
        let attacher = object.text_at(&["spec", "attacher"]);
        if !attacher.is_empty() {
            csi_driver_name(attacher, &spec.child("attacher"), errors);
        }
        if let Some(name) = object.at(&["spec", "source", "persistentVolumeName"]).and_then(Value::as_str) {
            let source = spec.child("source");
            names::invalid_each(errors, &source.child("persistentVolumeName"), name, names::dns_subdomain(name));
        }
    }

    fn validate_update(&self, object: &Value, old: &Value, errors: &mut Errors) {
        self.check(object, errors);
        if object.at(&["spec"]) != old.at(&["spec"]) {
            let shown = go_shape::by_value(object.at(&["spec"]), ATTACHMENT_SPEC);
            errors.invalid(&Path::new("spec"), shown, meta::FIELD_IMMUTABLE);
        }
    }

    fn validate_status_update(&self, object: &Value, old: &Value, errors: &mut Errors) {
        self.validate_update(object, old, errors);
    }

    fn selectable(&self) -> &'static [Selectable] {
        &[]
    }

    fn meta_looks(&self) -> meta::MetaLooks {
        meta::MetaLooks { finalizers: true, change: false, whole: 1 }
    }
}

pub struct VolumeAttributesClass;

impl Kind for VolumeAttributesClass {
    fn group(&self) -> &'static str {
        GROUP
    }

    fn kind(&self) -> &'static str {
        "VolumeAttributesClass"
    }

    fn has_status(&self) -> bool {
        false
    }

    fn prepare_create(&self, object: &mut Value) {
        add_finalizer(object, "kubernetes.io/vac-protection");
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        check_provisioner(object.text_at(&["driverName"]), &Path::new("driverName"), errors);
        check_parameters(object, false, errors);
    }

    fn validate_update(&self, object: &Value, old: &Value, errors: &mut Errors) {
        for field in ["driverName", "parameters"] {
            if object.at(&[field]) != old.at(&[field]) {
                errors.forbidden(&Path::new(field), format!("updates to {field} are forbidden."));
            }
        }
        self.validate(object, errors);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_driver_gets_defaults_and_counts_its_changes() {
        let mut driver = json!({"spec": {}});
        CsiDriver.default(&mut driver);
        assert_eq!(driver["spec"]["attachRequired"], true);
        assert_eq!(driver["spec"]["volumeLifecycleModes"], json!(["Persistent"]));
        let mut changed = driver.clone();
        changed["spec"]["podInfoOnMount"] = json!(true);
        CsiDriver.prepare_update(&mut changed, &driver);
        assert_eq!(changed["metadata"]["generation"], 1);
    }

    #[test]
    fn an_attachment_shows_its_spec_as_go_does() {
        let old = json!({"spec": {"attacher": "a", "nodeName": "n", "source": {"persistentVolumeName": "v"}}});
        let mut errors = Errors::default();
        VolumeAttachment.validate_update(&json!({"spec": {"attacher": "b", "nodeName": "n"}}), &old, &mut errors);
        assert_eq!(
            errors.0[1].value,
            r#"{"Attacher":"b","Source":{"PersistentVolumeName":null,"InlineVolumeSpec":null},"NodeName":"n"}"#
        );
    }

    #[test]
    fn topologies_are_compared_whatever_their_order() {
        let class =
            |terms: Value| json!({"provisioner": "a", "volumeBindingMode": "Immediate", "allowedTopologies": terms});
        let mut errors = Errors::default();
        let term = |values: Value| json!({"matchLabelExpressions": [{"key": "zone", "values": values}]});
        StorageClass.validate(&class(json!([term(json!(["a", "b"])), term(json!(["b", "a"]))])), &mut errors);
        assert_eq!(errors.0.len(), 1);
        assert_eq!(errors.0[0].field, "allowedTopologies[1].matchLabelExpressions");
    }
}

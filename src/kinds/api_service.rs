//! APIService: where a version of an API group is served.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::meta;
use super::names;
use super::{Kind, NameForm, copy_field};
use crate::field::{Errors, Path};
use crate::object::Fields;

pub static KINDS: &[&dyn Kind] = &[&ApiService];

pub struct ApiService;

impl Kind for ApiService {
    fn group(&self) -> &'static str {
        "apiregistration.k8s.io"
    }

    fn kind(&self) -> &'static str {
        "APIService"
    }

    fn name_form(&self) -> NameForm {
        NameForm::Own
    }

    fn unconditional_update(&self) -> bool {
        false
    }

    fn default(&self, object: &mut Value) {
        if let Some(service) = object.at_mut(&["spec", "service"]) {
            service.set_default("port", 443);
        }
    }

    /// What this server serves itself is there at once.
    fn prepare_create(&self, object: &mut Value) {
        super::reset_status(object);
        if object.at(&["spec", "service"]).is_none() {
            let available = json!({
                "type": "Available", "status": "True", "lastTransitionTime": meta::now(),
                "reason": "Local", "message": "Local APIServices are always available",
            });
            object.set(&["status"], json!({ "conditions": [available] }));
        }
    }

    fn prepare_status_update(&self, object: &mut Value, old: &Value) {
        copy_field(object, old, "spec");
        for field in ["labels", "annotations", "finalizers", "ownerReferences"] {
            match old.at(&["metadata", field]) {
                Some(value) => object.set(&["metadata", field], value.clone()),
                None => drop(object.take_at(&["metadata", field])),
            }
        }
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        let path = Path::new("spec");
        let (group, version) = (object.text_at(&["spec", "group"]), object.text_at(&["spec", "version"]));
        check_name(object, &format!("{version}.{group}"), errors);
        if group.is_empty() && version != "v1" {
            let detail = "only v1 may have an empty group and it better be legacy kube";
            errors.required(&path.child("group"), detail);
        }
        if !group.is_empty() {
            names::invalid_each(errors, &path.child("group"), group, names::dns_subdomain(group));
        }
        names::invalid_each(errors, &path.child("version"), version, names::dns1035_label(version));
        for (field, max) in [("groupPriorityMinimum", 20_000), ("versionPriority", 1000)] {
            let priority = object.int_at(&["spec", field]).unwrap_or_default();
            if !(1..=max).contains(&priority) {
                errors.invalid(&path.child(field), priority, format!("must be positive and less than {max}"));
            }
        }
        let bundle = STANDARD.decode(object.text_at(&["spec", "caBundle"])).map_or(0, |bytes| bytes.len());
        let insecure = object.bool_at(&["spec", "insecureSkipTLSVerify"]) == Some(true);
        let Some(service) = object.at(&["spec", "service"]) else {
            if bundle > 0 {
                let detail = "local APIServices may not have a caBundle";
                errors.invalid(&path.child("caBundle"), format!("{bundle} bytes"), detail);
            }
            if insecure {
                let detail = "local APIServices may not have insecureSkipTLSVerify";
                errors.invalid(&path.child("insecureSkipTLSVerify"), true, detail);
            }
            return;
        };
        check_service(service, &path.child("service"), errors);
        if insecure && bundle > 0 {
            errors.invalid(&path.child("insecureSkipTLSVerify"), true, "may not be true if caBundle is present");
        }
    }

    fn validate_status_update(&self, object: &Value, _old: &Value, errors: &mut Errors) {
        let status = Path::new("status");
        let list = status.child("conditions");
        for (i, condition) in object.list_at(&["status", "conditions"]).iter().enumerate() {
            let value = condition.text_at(&["status"]);
            if !meta::CONDITION_STATUSES.contains(&value) {
                errors.not_supported(&list.index(i).child("status"), value, &["True", "False", "Unknown"]);
            }
        }
    }

    fn meta_looks(&self) -> meta::MetaLooks {
        meta::MetaLooks { finalizers: false, change: true, whole: 1 }
    }
}

/// The name says what is served.
fn check_name(object: &Value, wanted: &str, errors: &mut Errors) {
    let metadata = Path::new("metadata");
    for field in ["generateName", "name"] {
        let name = object.text_at(&["metadata", field]);
        if name.is_empty() {
            continue;
        }
        let mut messages = names::path_segment(name);
        if messages.is_empty() && name != wanted {
            let wanted = crate::field::go_quote(wanted);
            messages.push(format!("must be `spec.version+\".\"+spec.group`: {wanted}"));
        }
        names::invalid_each(errors, &metadata.child(field), name, messages);
    }
}

fn check_service(service: &Value, path: &Path<'_>, errors: &mut Errors) {
    for field in ["namespace", "name"] {
        if service.text_at(&[field]).is_empty() {
            errors.required(&path.child(field), "");
        }
    }
    let port = service.int_at(&["port"]).unwrap_or_default();
    if !(1..=65535).contains(&port) {
        errors.invalid(&path.child("port"), port, "port is not valid: must be between 1 and 65535, inclusive");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_local_version_is_available_and_has_no_secrets() {
        let mut object = json!({
            "metadata": {"name": "v1.a"},
            "spec": {"group": "b", "version": "v1", "groupPriorityMinimum": 1, "versionPriority": 1001, "caBundle": "eA=="},
        });
        ApiService.prepare_create(&mut object);
        assert_eq!(object["status"]["conditions"][0]["reason"], "Local");
        let mut errors = Errors::default();
        ApiService.validate(&object, &mut errors);
        assert_eq!(
            errors.0.iter().map(ToString::to_string).collect::<Vec<_>>(),
            [
                r#"metadata.name: Invalid value: "v1.a": must be `spec.version+"."+spec.group`: "v1.b""#,
                "spec.versionPriority: Invalid value: 1001: must be positive and less than 1000",
                r#"spec.caBundle: Invalid value: "1 bytes": local APIServices may not have a caBundle"#,
            ]
        );
    }
}

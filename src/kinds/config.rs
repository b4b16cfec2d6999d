//! ConfigMap, Secret, ServiceAccount, Namespace, and the core kinds with next to no rules.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::meta;
use super::names;
use super::{Kind, NameForm, Selectable, copy_field};
use crate::field::{Errors, Path};
use crate::object::Fields;

pub static KINDS: &[&dyn Kind] = &[&ConfigMap, &Secret, &ServiceAccount, &Namespace, &ComponentStatus, &Binding];

/// What the values of one config map or secret may come to.
const MAX_CONTENT: usize = 1024 * 1024;

const IMMUTABLE: &str = "field is immutable when `immutable` is set";

fn decoded_len(value: &Value) -> usize {
    value.as_str().and_then(|text| STANDARD.decode(text).ok()).map_or(0, |bytes| bytes.len())
}

/// An object that says `immutable` keeps these fields, and keeps saying so.
fn check_immutable(object: &Value, old: &Value, fields: &[&str], errors: &mut Errors) {
    if old.bool_at(&["immutable"]) != Some(true) {
        return;
    }
    if object.bool_at(&["immutable"]) != Some(true) {
        errors.forbidden(&Path::new("immutable"), IMMUTABLE);
    }
    for field in fields {
        if object.at(&[field]) != old.at(&[field]) {
            errors.forbidden(&Path::new(field), IMMUTABLE);
        }
    }
}

pub struct ConfigMap;

impl Kind for ConfigMap {
    fn group(&self) -> &'static str {
        ""
    }

    fn kind(&self) -> &'static str {
        "ConfigMap"
    }

    fn has_status(&self) -> bool {
        false
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        let mut total = 0;
        for bag in ["data", "binaryData"] {
            let path = Path::new(bag);
            for (key, value) in object.map_at(&[bag]).into_iter().flatten() {
                names::invalid_each(errors, &path.key(key), key, names::config_map_key(key));
                if bag == "data" {
                    if object.at(&["binaryData", key]).is_some() {
                        errors.invalid(&path.key(key), key, "duplicate of key present in binaryData");
                    }
                    total += value.as_str().map_or(0, str::len);
                } else {
                    total += decoded_len(value);
                }
            }
        }
        if total > MAX_CONTENT {
            errors.too_long(&Path::new("[]"), MAX_CONTENT);
        }
    }

    fn validate_update(&self, object: &Value, old: &Value, errors: &mut Errors) {
        check_immutable(object, old, &["data", "binaryData"], errors);
        self.validate(object, errors);
    }
}

pub struct Secret;

impl Kind for Secret {
    fn group(&self) -> &'static str {
        ""
    }

    fn kind(&self) -> &'static str {
        "Secret"
    }

    fn has_status(&self) -> bool {
        false
    }

    fn default(&self, object: &mut Value) {
        if object.text_at(&["type"]).is_empty() {
            object.set(&["type"], "Opaque");
        }
        // `stringData` is for writing only: it overrides `data` and is never stored.
        if let Some(Value::Object(plain)) = object.take_at(&["stringData"]) {
            let data = object.make_map(&["data"]);
            for (key, value) in plain {
                data.insert(key, STANDARD.encode(value.as_str().unwrap_or_default()).into());
            }
        }
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        let data = Path::new("data");
        let mut total = 0;
        for (key, value) in object.map_at(&["data"]).into_iter().flatten() {
            names::invalid_each(errors, &data.key(key), key, names::config_map_key(key));
            total += decoded_len(value);
        }
        if total > MAX_CONTENT {
            errors.too_long(&data, MAX_CONTENT);
        }
        let has = |key: &str| object.at(&["data", key]).is_some();
        let mut require = |key: &str| errors.required(&data.key(key), "");
        match object.text_at(&["type"]) {
            "kubernetes.io/service-account-token" => {
                let name = "kubernetes.io/service-account.name";
                if object.text_at(&["metadata", "annotations", name]).is_empty() {
                    let metadata = Path::new("metadata");
                    errors.required(&metadata.child("annotations").key(name), "");
                }
            }
            "kubernetes.io/dockercfg" => check_docker_config(object, ".dockercfg", errors),
            "kubernetes.io/dockerconfigjson" => check_docker_config(object, ".dockerconfigjson", errors),
            "kubernetes.io/basic-auth" if !has("username") && !has("password") => {
                require("username");
                require("password");
            }
            "kubernetes.io/ssh-auth" if object.text_at(&["data", "ssh-privatekey"]).is_empty() => {
                require("ssh-privatekey")
            }
            "kubernetes.io/tls" => ["tls.crt", "tls.key"].into_iter().filter(|key| !has(key)).for_each(require),
            _ => {}
        }
    }

    fn validate_update(&self, object: &Value, old: &Value, errors: &mut Errors) {
        meta::immutable_text(errors, &Path::new("type"), object.text_at(&["type"]), old.text_at(&["type"]));
        check_immutable(object, old, &["data"], errors);
        self.validate(object, errors);
    }

    fn warnings(&self, object: &Value, _old: Option<&Value>) -> Vec<String> {
        if object.text_at(&["type"]) != "kubernetes.io/tls" {
            return Vec::new();
        }
        let has_pem = |key: &str| {
            let bytes = STANDARD.decode(object.text_at(&["data", key])).unwrap_or_default();
            String::from_utf8_lossy(&bytes).contains("-----BEGIN ")
        };
        let missing = [("tls.crt", "certificate"), ("tls.key", "key")].into_iter().find(|(key, _)| !has_pem(key));
        let warning = missing.map(|(_, what)| format!("tls: failed to find any PEM data in {what} input"));
        warning.into_iter().collect()
    }

    fn selectable(&self) -> &'static [Selectable] {
        &[("type", |object| object.text_at(&["type"]).to_owned())]
    }
}

fn check_docker_config(object: &Value, key: &str, errors: &mut Errors) {
    let data = Path::new("data");
    let Some(text) = object.at(&["data", key]).and_then(Value::as_str) else {
        return errors.required(&data.key(key), "");
    };
    let bytes = STANDARD.decode(text).unwrap_or_default();
    let what = match serde_json::from_slice::<Value>(&bytes) {
        Ok(Value::Object(_) | Value::Null) => return,
        Ok(other) => {
            let go = match other {
                Value::Bool(_) => "bool",
                Value::Number(_) => "number",
                Value::String(_) => "string",
                _ => "array",
            };
            format!("json: cannot unmarshal {go} into Go value of type map[string]interface {{}}")
        }
        Err(error) => match (error.is_eof(), bytes.iter().find(|b| !b.is_ascii_whitespace())) {
            (false, Some(first)) if !matches!(first, b'{' | b'[' | b'"') => {
                format!("invalid character '{}' looking for beginning of value", char::from(*first))
            }
            _ => "unexpected end of JSON input".to_owned(),
        },
    };
    errors.invalid(&data.key(key), "<secret contents redacted>", what);
}

pub struct ServiceAccount;

impl ServiceAccount {
    /// A reference to a secret is its name: it can't leave the namespace.
    fn only_names(object: &mut Value) {
        for secret in object.items_mut(&["secrets"]) {
            let name = secret.text_at(&["name"]);
            *secret = if name.is_empty() { json!({}) } else { json!({ "name": name }) };
        }
    }
}

impl Kind for ServiceAccount {
    fn group(&self) -> &'static str {
        ""
    }

    fn kind(&self) -> &'static str {
        "ServiceAccount"
    }

    fn has_status(&self) -> bool {
        false
    }

    fn prepare_create(&self, object: &mut Value) {
        Self::only_names(object);
    }

    fn prepare_update(&self, object: &mut Value, _old: &Value) {
        Self::only_names(object);
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        let annotation = ["metadata", "annotations", "kubernetes.io/enforce-mountable-secrets"];
        let mut warnings = Vec::new();
        if object.at(&annotation).is_some() && old.is_none_or(|old| old.at(&annotation).is_none()) {
            warnings.push(
                "metadata.annotations[kubernetes.io/enforce-mountable-secrets]: deprecated in v1.32+; \
                 prefer separate namespaces to isolate access to mounted secrets"
                    .to_owned(),
            );
        }
        warnings
    }
}

pub struct Namespace;

const NAMESPACE_LABEL: &str = "kubernetes.io/metadata.name";
const NAMESPACE_FINALIZER: &str = "kubernetes";

impl Namespace {
    fn label(object: &mut Value) {
        let name = object.text_at(&["metadata", "name"]).to_owned();
        if !name.is_empty() {
            object.set(&["metadata", "labels", NAMESPACE_LABEL], name);
        }
    }

    /// What the `finalize` subresource leaves alone.
    pub fn prepare_finalize(object: &mut Value, old: &Value) {
        copy_field(object, old, "status");
    }

    pub fn validate_finalize(object: &Value, errors: &mut Errors) {
        let spec = Path::new("spec");
        let path = spec.child("finalizers");
        for (i, finalizer) in object.list_at(&["spec", "finalizers"]).iter().enumerate() {
            meta::finalizer(errors, &path.index(i), finalizer.as_str().unwrap_or_default());
        }
    }
}

impl Kind for Namespace {
    fn group(&self) -> &'static str {
        ""
    }

    fn kind(&self) -> &'static str {
        "Namespace"
    }

    fn name_form(&self) -> NameForm {
        NameForm::Label
    }

    fn default(&self, object: &mut Value) {
        Self::label(object);
    }

    fn prepare_create(&self, object: &mut Value) {
        Self::label(object);
        object.set(&["status"], json!({ "phase": "Active" }));
        let finalizers = object.make_map(&["spec"]).entry("finalizers").or_insert_with(|| json!([]));
        if let Value::Array(finalizers) = finalizers
            && !finalizers.iter().any(|f| f == NAMESPACE_FINALIZER)
        {
            finalizers.push(NAMESPACE_FINALIZER.into());
        }
    }

    fn prepare_update(&self, object: &mut Value, old: &Value) {
        copy_field(object, old, "spec");
        copy_field(object, old, "status");
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        let spec = Path::new("spec");
        for finalizer in object.list_at(&["spec", "finalizers"]) {
            meta::finalizer(errors, &spec.child("finalizers"), finalizer.as_str().unwrap_or_default());
        }
    }

    fn validate_update(&self, _object: &Value, _old: &Value, _errors: &mut Errors) {}

    fn validate_status_update(&self, object: &Value, _old: &Value, errors: &mut Errors) {
        let (phase, detail) = if object.at(&["metadata", "deletionTimestamp"]).is_none() {
            ("Active", "may only be 'Active' if `deletionTimestamp` is empty")
        } else {
            ("Terminating", "may only be 'Terminating' if `deletionTimestamp` is not empty")
        };
        let found = object.text_at(&["status", "phase"]);
        if found != phase {
            errors.invalid(&Path::new("status").child("Phase"), found, detail);
        }
    }

    fn selectable(&self) -> &'static [Selectable] {
        &[("status.phase", |object| object.text_at(&["status", "phase"]).to_owned())]
    }
}

pub struct ComponentStatus;

impl Kind for ComponentStatus {
    fn group(&self) -> &'static str {
        ""
    }

    fn kind(&self) -> &'static str {
        "ComponentStatus"
    }

    fn has_status(&self) -> bool {
        false
    }

    fn deprecated(&self) -> Option<&'static str> {
        Some("v1 ComponentStatus is deprecated in v1.19+")
    }
}

pub struct Binding;

impl Kind for Binding {
    fn group(&self) -> &'static str {
        ""
    }

    fn kind(&self) -> &'static str {
        "Binding"
    }

    fn has_status(&self) -> bool {
        false
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        let target = Path::new("target");
        let kind = object.text_at(&["target", "kind"]);
        if !matches!(kind, "" | "Node") {
            errors.not_supported(&target.child("kind"), kind, &["Node", "<empty>"]);
        }
        if object.text_at(&["target", "name"]).is_empty() {
            errors.required(&target.child("name"), "");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors_of(kind: &dyn Kind, object: &Value) -> Vec<String> {
        let mut errors = Errors::default();
        kind.validate(object, &mut errors);
        errors.0.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn string_data_overrides_data() {
        let mut secret = json!({"data": {"a": "eA==", "b": "eA=="}, "stringData": {"a": "y"}});
        Secret.default(&mut secret);
        assert_eq!(secret, json!({"type": "Opaque", "data": {"a": "eQ==", "b": "eA=="}}));
    }

    #[test]
    fn a_secret_has_what_its_type_needs() {
        let of = |kind: &str, data: Value| errors_of(&Secret, &json!({"type": kind, "data": data}));
        assert_eq!(of("kubernetes.io/basic-auth", json!({})).len(), 2);
        assert!(of("kubernetes.io/basic-auth", json!({"username": ""})).is_empty());
        assert_eq!(of("kubernetes.io/tls", json!({"tls.crt": ""})), ["data[tls.key]: Required value"]);
        assert_eq!(
            of("kubernetes.io/dockerconfigjson", json!({".dockerconfigjson": "bm8="})),
            ["data[.dockerconfigjson]: Invalid value: \"<secret contents redacted>\": \
              invalid character 'n' looking for beginning of value"]
        );
    }

    #[test]
    fn an_immutable_config_map_stays_as_it_is() {
        let old = json!({"immutable": true, "data": {"a": "b"}});
        let mut errors = Errors::default();
        ConfigMap.validate_update(&json!({"data": {"a": "c"}}), &old, &mut errors);
        let fields: Vec<&str> = errors.0.iter().map(|e| e.field.as_str()).collect();
        assert_eq!(fields, ["immutable", "data"]);
    }

    #[test]
    fn a_namespace_is_born_active_with_its_finalizer_and_label() {
        let mut namespace = json!({"metadata": {"name": "a"}, "spec": {"finalizers": ["x.io/y"]}});
        Namespace.prepare_create(&mut namespace);
        assert_eq!(namespace["spec"]["finalizers"], json!(["x.io/y", "kubernetes"]));
        assert_eq!(namespace["status"]["phase"], "Active");
        assert_eq!(namespace["metadata"]["labels"][NAMESPACE_LABEL], "a");
    }
}

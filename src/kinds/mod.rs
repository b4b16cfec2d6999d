//! What no table can say of the built-in kinds: their defaults, what a write may change, and what makes an object invalid.
//!
//! A kind is a unit struct that implements [`Kind`]; each API group's module lists its own in a `KINDS` slice and
//! [`find`] looks them up. Everything has a default that suits a plain kind, so a kind says only what is special.
//! Objects here have been decoded against the schema table: types are right, unknown fields are gone, and fields
//! that Go would leave out (`omitempty` at its zero value, `null`) are absent.

use std::collections::HashMap;
use std::sync::LazyLock;

use serde_json::Value;

use crate::field::Errors;
use crate::object::Fields;

pub mod admission_policies;
pub mod api_service;
pub mod cel;
pub mod certificates;
pub mod config;
pub mod coordination;
pub mod custom_defaults;
pub mod custom_resources;
pub mod custom_schemas;
pub mod device_claims;
pub mod device_slices;
pub mod diff;
pub mod endpoints;
pub mod events;
pub mod flowcontrol;
pub mod go_shape;
#[cfg(test)]
mod golden_tests;
pub mod meta;
pub mod names;
pub mod networking;
pub mod node;
pub mod persistent;
pub mod pod_parts;
pub mod pods;
pub mod quantity;
pub mod quota;
pub mod rbac;
pub mod scheduling;
pub mod selector;
pub mod service;
pub mod service_alloc;
pub mod storage_kinds;
pub mod volume_shapes;
pub mod volume_sources;
pub mod webhooks;
pub mod workloads;

/// The form that `metadata.name` must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameForm {
    /// RFC 1123 subdomain, at most 253 characters.
    Subdomain,
    /// RFC 1123 label, at most 63 characters.
    Label,
    /// RFC 1035 label, at most 63 characters (services).
    Label1035,
    /// Anything that may stand as one segment of a path (RBAC).
    PathSegment,
    /// The kind checks the name itself in `validate`.
    Own,
}

/// The rules of one kind. `group` and `kind` name it; the rest follows the life of a write.
pub trait Kind: Sync {
    /// API group, empty for core.
    fn group(&self) -> &'static str;
    fn kind(&self) -> &'static str;

    fn name_form(&self) -> NameForm {
        NameForm::Subdomain
    }

    /// Fills in defaults. The object is of the version that the request speaks (its `apiVersion` says which).
    fn default(&self, _object: &mut Value) {}

    /// Turns an object of another served version into the version that is stored (in place, `apiVersion` included).
    fn to_storage(&self, _object: &mut Value) {}

    /// The reverse, to `version` (in place, `apiVersion` included).
    #[allow(clippy::wrong_self_convention, reason = "it converts the object, not the kind")]
    fn from_storage(&self, _object: &mut Value, _version: &str) {}

    /// Annotations that stand for fields of upstream's internal version. Metadata that is shown alone lacks them.
    fn field_annotations(&self) -> &'static [&'static str] {
        &[]
    }

    /// Clears or sets what a client can't decide at creation (status, generation-like counters), before validation.
    /// `metadata.generation` is set by the caller where [`Kind::counts_generation`] says so.
    fn prepare_create(&self, object: &mut Value) {
        if self.has_status() {
            reset_status(object);
        }
    }

    /// Restores what an update through the main resource can't change (status by default), before validation.
    fn prepare_update(&self, object: &mut Value, old: &Value) {
        if self.has_status() {
            copy_field(object, old, "status");
        }
    }

    /// The same for the status subresource: everything but status (and what this kind allows beside it) comes from `old`.
    fn prepare_status_update(&self, object: &mut Value, old: &Value) {
        copy_field(object, old, "spec");
    }

    /// Validation of a whole object; `metadata` in general has been checked already.
    fn validate(&self, _object: &Value, _errors: &mut Errors) {}

    /// Validation of a change. kube-apiserver validates the new object too: call `self.validate` where it does.
    fn validate_update(&self, object: &Value, _old: &Value, errors: &mut Errors) {
        self.validate(object, errors);
    }

    fn validate_status_update(&self, _object: &Value, _old: &Value, _errors: &mut Errors) {}

    /// Warnings for the client (`Warning: 299 - "…"` headers), without changing the outcome.
    fn warnings(&self, _object: &Value, _old: Option<&Value>) -> Vec<String> {
        Vec::new()
    }

    /// Whether the main resource leaves `status` alone because there is a status subresource.
    fn has_status(&self) -> bool {
        true
    }

    /// Whether `metadata.generation` starts at 1 and moves when [`Kind::generation_moves`] says so.
    fn counts_generation(&self) -> bool {
        false
    }

    /// Whether this change moves the generation: by default, when anything but metadata and status differs.
    fn generation_moves(&self, object: &Value, old: &Value) -> bool {
        let differs = |a: &Value, b: &Value| {
            a.as_object().into_iter().flatten().any(|(key, value)| {
                !matches!(key.as_str(), "metadata" | "status" | "apiVersion" | "kind") && b.get(key) != Some(value)
            })
        };
        differs(object, old) || differs(old, object)
    }

    /// PUT to a name that does not exist creates it.
    fn create_on_update(&self) -> bool {
        false
    }

    /// PUT without a resourceVersion overwrites whatever is there.
    fn unconditional_update(&self) -> bool {
        true
    }

    /// What deletion leaves to the garbage collector when the client does not say (`propagationPolicy`).
    fn orphans_by_default(&self) -> bool {
        false
    }

    /// Why the object of this name can't be deleted.
    fn undeletable(&self, _name: &str) -> Option<&'static str> {
        None
    }

    /// How many seconds an object of this kind is given to go away, when so many are asked for; none where it goes at
    /// once. 0 is an answer too: it is marked before it goes.
    fn grace(&self, _object: &Value, _asked: Option<i64>) -> Option<i64> {
        None
    }

    /// The fields that a field selector may name beside `metadata.name` and `metadata.namespace`, with their values.
    fn selectable(&self) -> &'static [Selectable] {
        &[]
    }

    /// Whether a name is drawn for `generateName`; otherwise the prefix is taken for the name.
    fn generates_names(&self) -> bool {
        true
    }

    /// Which of upstream's looks at the metadata this kind takes.
    fn meta_looks(&self) -> meta::MetaLooks {
        meta::MetaLooks::ALL
    }

    /// What every answer about this kind warns of, because the whole API is on its way out.
    fn deprecated(&self) -> Option<&'static str> {
        None
    }
}

/// A field that a field selector may name, and how to read it.
pub type Selectable = (&'static str, fn(&Value) -> String);

/// Adds a finalizer that the server itself waits for.
pub fn add_finalizer(object: &mut Value, name: &str) {
    let metadata = object.make_map(&["metadata"]);
    if let Value::Array(finalizers) = metadata.entry("finalizers").or_insert_with(|| Value::Array(Vec::new()))
        && !finalizers.iter().any(|finalizer| finalizer == name)
    {
        finalizers.push(name.into());
    }
}

/// `status` as it is in a new object: empty where the schema always prints it (canonicalisation adds it), else absent.
pub fn reset_status(object: &mut Value) {
    if let Some(map) = object.as_object_mut() {
        map.remove("status");
    }
}

/// Makes `field` of `object` what it is in `old`, absent where it is absent there.
pub fn copy_field(object: &mut Value, old: &Value, field: &str) {
    if let Some(map) = object.as_object_mut() {
        match old.get(field) {
            Some(value) => {
                map.insert(field.to_owned(), value.clone());
            }
            None => {
                map.remove(field);
            }
        }
    }
}

/// Makes the metadata what it is in `old`, but for the managers of fields, who saw a change.
pub fn keep_metadata(object: &mut Value, old: &Value) {
    let managers = object.take_at(&["metadata", "managedFields"]);
    copy_field(object, old, "metadata");
    match managers {
        Some(managers) => object.set(&["metadata", "managedFields"], managers),
        None => drop(object.take_at(&["metadata", "managedFields"])),
    }
}

static TABLE: LazyLock<HashMap<(&'static str, &'static str), &'static dyn Kind>> = LazyLock::new(|| {
    let groups: &[&[&'static dyn Kind]] = &[
        admission_policies::KINDS,
        api_service::KINDS,
        certificates::KINDS,
        config::KINDS,
        coordination::KINDS,
        custom_resources::KINDS,
        device_claims::KINDS,
        device_slices::KINDS,
        endpoints::KINDS,
        events::KINDS,
        flowcontrol::KINDS,
        networking::KINDS,
        node::KINDS,
        persistent::KINDS,
        pods::KINDS,
        quota::KINDS,
        rbac::KINDS,
        scheduling::KINDS,
        service::KINDS,
        storage_kinds::KINDS,
        webhooks::KINDS,
        workloads::autoscaling::KINDS,
        workloads::budgets::KINDS,
        workloads::deployments::KINDS,
        workloads::jobs::KINDS,
        workloads::scale::KINDS,
        workloads::sets::KINDS,
    ];
    groups.iter().flat_map(|kinds| kinds.iter()).map(|kind| ((kind.group(), kind.kind()), *kind)).collect()
});

/// The rules of a built-in kind.
pub fn find(group: &str, kind: &str) -> Option<&'static dyn Kind> {
    TABLE.get(&(group, kind)).copied()
}

//! NamespaceLifecycle: nothing is created in a namespace that is not there or on its way out, and the namespaces that
//! the cluster needs stay.

use kontiki_storage::Condition;
use serde::Deserialize;
use serde_json::Value;

use super::{Admission, Operation, Plugin};
use crate::status::{ApiError, Result};

pub(super) const PLUGIN: Plugin = Plugin { handles, mutate, validate };

const IMMORTAL: &[&str] = &["default", "kube-system", "kube-public"];

fn handles(admission: &Admission<'_>) -> bool {
    match admission.operation {
        // What is only answered and not kept doesn't need its namespace (access reviews).
        Operation::Create => {
            let resource = &admission.request.resource;
            resource.namespaced && (resource.stored.is_some() || &*resource.kind == "Binding")
        }
        Operation::Update => false,
        Operation::Delete => admission.table() == "namespaces",
    }
}

#[derive(Deserialize)]
struct Namespace<'a> {
    #[serde(borrow, default)]
    status: Status<'a>,
}

#[derive(Deserialize, Default)]
struct Status<'a> {
    #[serde(borrow, default)]
    phase: std::borrow::Cow<'a, str>,
}

fn mutate(admission: &mut Admission<'_>, object: &mut Value) -> Result<()> {
    let namespace = admission.request.namespace();
    let record = admission.view.get(&format!("namespaces/{namespace}"));
    let record = record.ok_or_else(|| ApiError::not_found("", "namespaces", namespace))?;
    let found: Namespace<'_> = serde_json::from_slice(&record.value)
        .map_err(|e| ApiError::internal(format!("the stored {}: {e}", record.key)))?;
    if found.status.phase == "Terminating" {
        let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
        let cause = format!("namespace {namespace} is being terminated");
        let error = admission.forbidden(object, why);
        return Err(error.with_cause("NamespaceTerminating", cause, "metadata.namespace"));
    }
    // Were the namespace to end between this decision and the write, nobody would ever remove what was written.
    let unchanged = Condition::At(record.key.clone(), record.modified);
    admission.on(unchanged);
    Ok(())
}

fn validate(admission: &mut Admission<'_>, _: &Value) -> Result<()> {
    let name = admission.request.name();
    if admission.operation == Operation::Delete && IMMORTAL.contains(&name) {
        return Err(ApiError::forbidden("", "namespaces", name, "this namespace may not be deleted"));
    }
    Ok(())
}

//! Nobody grants by roles and bindings what they don't have, unless they may `escalate` or `bind`.

use std::fmt::Display;

use serde::Deserialize;
use serde_json::Value;

use super::{Admission, Operation, Plugin, admitted};
use crate::auth::authorize::Target;
use crate::auth::cover::{missing, quoted};
use crate::auth::rbac::{Role, Rule};
use crate::auth::{Attributes, Decision, MASTERS};
use crate::codec::canonicalize;
use crate::field::{aggregate, go_quote};
use crate::object::Fields;
use crate::status::{ApiError, Result};
use crate::verbs::decode_stored;

const GROUP: &str = "rbac.authorization.k8s.io";

/// Subject to it are objects as they come out of the other plugins.
pub(super) const PLUGIN: Plugin = Plugin { handles: is_grant, mutate: check, validate: admitted };

fn is_grant(admission: &Admission<'_>) -> bool {
    let request = admission.request;
    let resource = &request.resource;
    &*resource.group == GROUP && admission.operation != Operation::Delete && !request.user.in_group(MASTERS)
}

fn check(admission: &mut Admission<'_>, object: &mut Value) -> Result<()> {
    let object = &*object;
    let resource = admission.request.resource.clone();
    let binds = matches!(&*resource.plural, "rolebindings" | "clusterrolebindings");
    if binds {
        let bound = bound(object)?;
        if only_collected(admission, object)? || may(admission, "bind", bound) {
            return Ok(());
        }
        return confirm(admission, object, &rules_of_bound(admission, bound)?);
    }
    if may(admission, "escalate", (&resource.plural, admission.request.name())) || only_collected(admission, object)? {
        return Ok(());
    }
    confirm(admission, object, &read(object))?;
    // It gathers whatever comes, and keeps the role from being narrowed.
    let gathers = |object: &Value| !object.list_at(&["aggregationRule", "clusterRoleSelectors"]).is_empty();
    if (gathers(object) || admission.old.is_some_and(gathers))
        && confirm(admission, object, &Rule::everything()).is_err()
    {
        let why = "must have cluster-admin privileges to use the aggregationRule";
        return Err(refused(admission, object, why));
    }
    Ok(())
}

/// Resource and name of the role that a binding binds.
fn bound(binding: &Value) -> Result<(&str, &str)> {
    let resource = match binding.text_at(&["roleRef", "kind"]) {
        "ClusterRole" => "clusterroles",
        "Role" => "roles",
        other => return Err(ApiError::internal(format!("unsupported role reference kind: {}", go_quote(other)))),
    };
    Ok((resource, binding.text_at(&["roleRef", "name"])))
}

fn may(admission: &Admission<'_>, verb: &str, (resource, name): (&str, &str)) -> bool {
    let request = admission.request;
    let namespace = request.namespace();
    let what = Target::Resource { group: GROUP, resource, subresource: "", namespace, name };
    let attributes = Attributes { user: &request.user, verb, what };
    matches!(request.server.authorizer.authorize(&attributes), Decision::Allow(_))
}

/// Whether nothing changes but what garbage collection needs.
fn only_collected(admission: &Admission<'_>, object: &Value) -> Result<bool> {
    let Some(old) = admission.old else { return Ok(false) };
    let node = admission.request.stored_node()?;
    let rest = |object: &Value| {
        let mut object = object.clone();
        for field in ["ownerReferences", "finalizers", "managedFields", "selfLink"] {
            object.take_at(&["metadata", field]);
        }
        canonicalize(node, &mut object);
        object
    };
    Ok(rest(object) == rest(old))
}

fn rules_of_bound(admission: &Admission<'_>, (resource, name): (&str, &str)) -> Result<Vec<Rule>> {
    let key = match resource {
        "roles" => format!("roles.{GROUP}/{}/{name}", admission.request.namespace()),
        _ => format!("clusterroles.{GROUP}/{name}"),
    };
    match admission.view.get(&key) {
        Some(record) => Ok(read(&decode_stored(record)?)),
        // In the singular, as clients' caches call what they don't have.
        None => Err(ApiError::not_found(GROUP, resource.trim_end_matches('s'), name)),
    }
}

/// The rules of a role; of one that is not valid, which validation tells, none.
fn read(role: &Value) -> Vec<Rule> {
    Role::deserialize(role).map(|role| role.rules).unwrap_or_default()
}

/// Refuses rules that the user doesn't hold.
fn confirm(admission: &Admission<'_>, object: &Value, rules: &[Rule]) -> Result<()> {
    let request = admission.request;
    let (held, errors) = request.server.rbac.rules(&request.user, request.namespace());
    let missing = missing(&held, rules);
    if missing.is_empty() {
        return Ok(());
    }
    let mut why = format!(
        "user {} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
        go_quote(&request.user.name),
        quoted(&request.user.groups),
        missing.into_iter().collect::<Vec<_>>().join("\n")
    );
    if !errors.is_empty() {
        why += &format!("; resolution errors: [{}]", aggregate(&errors));
    }
    Err(refused(admission, object, why))
}

fn refused(admission: &Admission<'_>, object: &Value, why: impl Display) -> ApiError {
    ApiError::forbidden(GROUP, &admission.request.resource.plural, object.text_at(&["metadata", "name"]), why)
}

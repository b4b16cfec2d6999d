//! Reviews: questions about users and what they may do, asked by creating an object that comes back with the answer.

use serde_json::{Map, Value, json};

use super::options::WriteOptions;
use super::subresource::Face;
use super::{Answer, Object, Request, fields, input, target};
use crate::auth::authorize::Target;
use crate::auth::rbac::Rule;
use crate::auth::{Attributes, Decision, User};
use crate::codec::canonicalize;
use crate::field::{Errors, Path, Raw};
use crate::kinds::go_shape::{self, Part, Shape};
use crate::kinds::names;
use crate::object::Fields;
use crate::status::{ApiError, Result};
use crate::time;

const NON_RESOURCE: Shape = &[("Path", "path", Part::Text), ("Verb", "verb", Part::Text)];

/// Answers the question of the body.
pub fn review(request: &mut Request) -> Result<Answer> {
    let options = WriteOptions::read(request, "CreateOptions", None)?;
    let resource = request.resource.clone();
    let mut object = input::decode(request, target(&resource, ""), &options)?;
    input::agree_on_namespace(request, &mut object)?;
    object.take_at(&["status"]);
    match &*resource.kind {
        "SelfSubjectReview" => {
            object.set(&["metadata"], json!({ "creationTimestamp": time::now() }));
            object.set(&["status"], json!({ "userInfo": user_info(&request.user) }));
        }
        "SelfSubjectRulesReview" => {
            let namespace = object.text_at(&["spec", "namespace"]);
            if namespace.is_empty() {
                return Err(ApiError::bad_request("no namespace on request"));
            }
            let status = rules(request, namespace);
            object.set(&["metadata"], json!({}));
            object.set(&["spec"], json!({}));
            object.set(&["status"], status);
        }
        "TokenReview" => {
            let token = object.text_at(&["spec", "token"]);
            if token.is_empty() {
                return Err(ApiError::bad_request("token is required for TokenReview in authentication"));
            }
            let server = &request.server;
            let asked = texts(object.list_at(&["spec", "audiences"]));
            let audiences = if asked.is_empty() { &server.authenticator.service_accounts.audiences } else { &asked };
            let status = match server.authenticator.token(token, server.replica.store(), audiences) {
                Ok((user, meant)) => json!({ "authenticated": true, "user": user_info(&user), "audiences": meant }),
                Err(error) => json!({ "user": {}, "error": error }),
            };
            fields::manage(request, &options, Face::Main, None, &mut object);
            object.set(&["status"], status);
        }
        kind @ ("SubjectAccessReview" | "LocalSubjectAccessReview" | "SelfSubjectAccessReview") => {
            let mut errors = Errors::default();
            check_access(kind, &object, &mut errors);
            if !errors.is_empty() {
                // Upstream has lost the kind here.
                return Err(ApiError::invalid(&resource.group, "", "", &errors.0));
            }
            let status = access(request, kind, &object["spec"]);
            fields::manage(request, &options, Face::Main, None, &mut object);
            object.set(&["status"], status);
        }
        _ => return Err(ApiError::method_not_allowed()),
    }
    canonicalize(request.node()?, &mut object);
    Ok(Answer::Object { code: 201, object: Object::Made(object) })
}

fn user_info(user: &User) -> Value {
    let User { name, uid, groups, extra } = user;
    json!({ "username": name, "uid": uid, "groups": groups, "extra": extra })
}

/// What is asked about, and for whom.
fn check_access(kind: &str, object: &Value, errors: &mut Errors) {
    let spec = Path::new("spec");
    let (resource, path) = (object.at(&["spec", "resourceAttributes"]), object.at(&["spec", "nonResourceAttributes"]));
    let shown = || go_shape::pointer(path, NON_RESOURCE);
    match (resource, path) {
        (Some(_), Some(_)) => {
            let detail = "cannot be specified in combination with resourceAttributes";
            errors.invalid(&spec.child("nonResourceAttributes"), shown(), detail);
        }
        (None, None) => {
            let detail = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
            errors.invalid(&spec.child("resourceAttributes"), Raw("null".to_owned()), detail);
        }
        _ => {}
    }
    for name in ["fieldSelector", "labelSelector"] {
        if let Some(selector) = object.at(&["spec", "resourceAttributes", name]) {
            check_selector(selector, &spec.child("resourceAttributes").child(name), name == "labelSelector", errors);
        }
    }
    let nobody = object.text_at(&["spec", "user"]).is_empty() && object.list_at(&["spec", "groups"]).is_empty();
    if kind != "SelfSubjectAccessReview" && nobody {
        errors.invalid(&spec.child("user"), "", "at least one of user or group must be specified");
    }
    let local = kind == "LocalSubjectAccessReview";
    let mut metadata = object.map_at(&["metadata"]).cloned().unwrap_or_default();
    metadata.remove("managedFields");
    if local {
        metadata.remove("namespace");
    }
    if !metadata.is_empty() {
        let except = if local { " except for namespace" } else { "" };
        let shown = go_shape::versioned(object.at(&["metadata"]), "ObjectMeta");
        errors.invalid(&Path::new("metadata"), shown, format!("must be empty{except}"));
    }
    if !local {
        return;
    }
    let namespace = object.text_at(&["spec", "resourceAttributes", "namespace"]);
    if resource.is_some() && namespace != object.text_at(&["metadata", "namespace"]) {
        let at = spec.child("resourceAttributes");
        errors.invalid(&at.child("namespace"), namespace, "must match metadata.namespace");
    }
    if path.is_some() {
        errors.invalid(&spec.child("nonResourceAttributes"), shown(), "disallowed on this kind of request");
    }
}

/// Operators that this server doesn't know pass: who asks may be newer.
fn check_selector(selector: &Value, path: &Path<'_>, of_labels: bool, errors: &mut Errors) {
    let (raw, requirements) = (selector.text_at(&["rawSelector"]), selector.list_at(&["requirements"]));
    let list = path.child("requirements");
    if !raw.is_empty() && !requirements.is_empty() {
        errors.invalid(&path.child("rawSelector"), raw, "may not specified at the same time as requirements");
    }
    if raw.is_empty() && requirements.is_empty() {
        errors.required(&list, format!("when {path} is specified, requirements or rawSelector is required"));
    }
    for (i, requirement) in requirements.iter().enumerate() {
        let path = list.index(i);
        let (key, values) = (requirement.text_at(&["key"]), requirement.list_at(&["values"]));
        if key.is_empty() && !of_labels {
            errors.required(&path.child("key"), "must be specified");
        }
        let at = path.child("values");
        match requirement.text_at(&["operator"]) {
            "In" | "NotIn" if values.is_empty() => {
                errors.required(&at, "must be specified when `operator` is 'In' or 'NotIn'");
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                errors.forbidden(&at, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
            }
            _ => {}
        }
        if of_labels {
            names::invalid_each(errors, &path.child("key"), key, names::qualified_name(key));
            for (j, value) in values.iter().enumerate() {
                let value = value.as_str().unwrap_or_default();
                names::invalid_each(errors, &at.index(j), value, names::label_value(value));
            }
        }
    }
}

/// Whether it is allowed, and why.
fn access(request: &Request, kind: &str, spec: &Value) -> Value {
    let asked = match kind {
        "SelfSubjectAccessReview" => (*request.user).clone(),
        _ => subject(spec),
    };
    let (what, verb) = match spec.at(&["resourceAttributes"]) {
        Some(of) => {
            let text = |field: &str| of.text_at(&[field]);
            let what = Target::Resource {
                group: text("group"),
                resource: text("resource"),
                subresource: text("subresource"),
                namespace: text("namespace"),
                name: text("name"),
            };
            (what, text("verb"))
        }
        None => {
            let text = |field: &str| spec.text_at(&["nonResourceAttributes", field]);
            (Target::Path(text("path")), text("verb"))
        }
    };
    match request.server.authorizer.authorize(&Attributes { user: &asked, verb, what }) {
        Decision::Allow(None) => json!({ "allowed": true }),
        Decision::Allow(Some(grant)) => json!({ "allowed": true, "reason": grant.to_string() }),
        Decision::Deny(reason) => json!({ "allowed": false, "reason": reason }),
    }
}

fn texts(values: &[Value]) -> Vec<String> {
    values.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn subject(spec: &Value) -> User {
    let extra = spec.map_at(&["extra"]).into_iter().flatten();
    User {
        name: spec.text_at(&["user"]).to_owned(),
        uid: spec.text_at(&["uid"]).to_owned(),
        groups: texts(spec.list_at(&["groups"])),
        extra: extra.map(|(key, values)| (key.to_lowercase(), texts(values.list_at(&[])))).collect(),
    }
}

/// All that the user may do in a namespace.
fn rules(request: &Request, namespace: &str) -> Value {
    let (rules, errors) = request.server.authorizer.rules(&request.user, namespace);
    let (mut resources, mut paths) = (Vec::new(), Vec::new());
    for Rule { verbs, api_groups, resources: names, resource_names, non_resource_urls } in rules {
        if names.is_empty() {
            paths.push(json!({ "verbs": verbs, "nonResourceURLs": non_resource_urls }));
        } else {
            let mut rule = Map::new();
            for (field, values) in
                [("verbs", verbs), ("apiGroups", api_groups), ("resources", names), ("resourceNames", resource_names)]
            {
                rule.insert(field.to_owned(), json!(values));
            }
            resources.push(Value::Object(rule));
        }
    }
    let mut status = json!({ "resourceRules": resources, "nonResourceRules": paths, "incomplete": !errors.is_empty() });
    if !errors.is_empty() {
        status.set(&["evaluationError"], errors.join(", "));
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(kind: &str, object: Value) -> Vec<String> {
        let mut errors = Errors::default();
        check_access(kind, &object, &mut errors);
        errors.0.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_question_is_about_one_thing_and_somebody() {
        assert_eq!(
            errors("SubjectAccessReview", json!({"spec": {}})),
            [
                "spec.resourceAttributes: Invalid value: null: exactly one of nonResourceAttributes or \
                 resourceAttributes must be specified",
                "spec.user: Invalid value: \"\": at least one of user or group must be specified",
            ]
        );
        let local =
            json!({"metadata": {"namespace": "a"}, "spec": {"user": "u", "resourceAttributes": {"namespace": "b"}}});
        assert_eq!(
            errors("LocalSubjectAccessReview", local),
            ["spec.resourceAttributes.namespace: Invalid value: \"b\": must match metadata.namespace"]
        );
        let own = json!({"spec": {"nonResourceAttributes": {"path": "/", "verb": "get"}}});
        assert_eq!(errors("SelfSubjectAccessReview", own), Vec::<String>::new());
    }

    #[test]
    fn the_subject_may_be_a_group_with_extra_data() {
        let user = subject(&json!({"groups": ["g"], "extra": {"Scopes": ["a", "b"]}}));
        assert_eq!(user.groups, ["g"]);
        assert_eq!(user.extra["scopes"], ["a", "b"]);
    }
}

//! `serviceaccounts/token`: tokens of a service account, possibly good only as long as something else is there.

use kontiki_storage::View;
use serde_json::{Value, json};

use super::options::WriteOptions;
use super::{Answer, Object, Request, decode_stored, fields, input, place, target};
use crate::auth::service_accounts::{Bound, Grant};
use crate::field::{Errors, Path};
use crate::managed;
use crate::object::Fields;
use crate::status::{ApiError, Result};
use crate::time::{self, Time};

const AUTHENTICATION: &str = "authentication.k8s.io/v1";

/// Answers a `TokenRequest`.
pub async fn create(request: &mut Request) -> Result<Answer> {
    const LEAST: i64 = 600;
    const MOST: i64 = 1 << 32;
    let options = WriteOptions::read(request, "CreateOptions", None)?;
    let resource = request.resource.clone();
    let mut asked = input::decode(request, target(&resource, "token"), &options)?;
    if asked.int_at(&["spec", "expirationSeconds"]).is_none() {
        asked.set(&["spec", "expirationSeconds"], 3600);
    }
    let write = managed::Write {
        versions: &fields::BuiltIn,
        api_version: AUTHENTICATION,
        subresource: "token",
        manager: &options.manager,
        reset: &[&["status"]],
        now: &time::now(),
    };
    managed::update(write, None, &mut asked);
    let (name, namespace) = (request.name().to_owned(), request.namespace().to_owned());
    let invalid =
        |name: &str, errors: Errors| ApiError::invalid("authentication.k8s.io", "TokenRequest", name, &errors.0);
    for (field, expected) in [("name", &name), ("namespace", &namespace)] {
        let given = asked.text_at(&["metadata", field]);
        if !given.is_empty() && given != expected {
            let mut errors = Errors::default();
            let path = Path::new("metadata");
            let whose = if field == "name" { "name" } else { "namespace" };
            errors.invalid(&path.child(field), given, format!("must match the service account {whose} if specified"));
            return Err(invalid(&name, errors));
        }
    }
    let view = request.fresh_view().await?;
    let record = view.get(request.key()?.as_str()).ok_or_else(|| request.not_found())?;
    let account = bound(&decode_stored(record)?);
    let server = request.server.clone();
    let accounts = &server.authenticator.service_accounts;
    if asked.list_at(&["spec", "audiences"]).is_empty() {
        asked.set(&["spec", "audiences"], json!(accounts.audiences));
    }
    let now = Time::now().unix();
    asked.set(&["metadata", "name"], name.as_str());
    asked.set(&["metadata", "namespace"], namespace.as_str());
    asked.set(&["metadata", "uid"], account.uid.as_str());
    asked.set(&["metadata", "creationTimestamp"], Time::from_unix(now).to_string());
    let mut seconds = asked.int_at(&["spec", "expirationSeconds"]).unwrap_or_default();
    let mut errors = Errors::default();
    let path = Path::new("spec");
    if seconds < LEAST {
        let why = "may not specify a duration less than 10 minutes";
        errors.invalid(&path.child("expirationSeconds"), seconds, why);
    }
    if seconds > MOST {
        let why = "may not specify a duration larger than 2^32 seconds";
        errors.invalid(&path.child("expirationSeconds"), seconds, why);
    }
    if !errors.is_empty() {
        return Err(invalid("", errors));
    }
    let mut grant = Grant {
        namespace,
        account,
        pod: None,
        secret: None,
        node: None,
        audiences: asked.list_at(&["spec", "audiences"]).iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        issued: now,
        expires: now,
    };
    if let Some(reference) = asked.at(&["spec", "boundObjectRef"]) {
        bind(request, &view, reference, &mut grant)?;
    }
    if let Some(most) = accounts.max_expiration.filter(|most| seconds > *most) {
        request.warnings.push(format!("requested expiration of {seconds} seconds shortened to {most} seconds"));
        seconds = most;
        asked.set(&["spec", "expirationSeconds"], seconds);
    }
    grant.expires = now + seconds;
    let token = accounts.sign(grant).map_err(ApiError::internal)?;
    let expires = Time::from_unix(now + seconds).to_string();
    // A pointer without omitempty is always printed.
    if asked.at(&["spec", "boundObjectRef"]).is_none() {
        asked.set(&["spec", "boundObjectRef"], Value::Null);
    }
    asked.set(&["status"], json!({"token": token, "expirationTimestamp": expires}));
    Ok(Answer::Object { code: 201, object: Object::Made(asked) })
}

fn bound(object: &Value) -> Bound {
    Bound {
        name: object.text_at(&["metadata", "name"]).to_owned(),
        uid: object.text_at(&["metadata", "uid"]).to_owned(),
    }
}

/// What the token is to be bound to must be there.
fn bind(request: &Request, view: &View, reference: &Value, grant: &mut Grant) -> Result<()> {
    let (kind, api_version) = (reference.text_at(&["kind"]), reference.text_at(&["apiVersion"]));
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let name = reference.text_at(&["name"]);
    let resource = match (group, kind) {
        ("", "Pod") => "pods",
        ("", "Secret") => "secrets",
        ("", "Node") => "nodes",
        _ => {
            let what = format!("{group}/{version}, Kind={kind}");
            return Err(ApiError::bad_request(format!("cannot bind token to object of type {what}")));
        }
    };
    let registry = request.server.registry();
    let find = |resource: &str, name: &str| -> Result<Option<Value>> {
        let served = registry.find("", "v1", resource);
        let served = served.ok_or_else(|| ApiError::internal(format!("{resource} are not served")))?;
        let key = place(served, request.namespace(), name)?;
        view.get(key.as_str()).map(|record| decode_stored(record)).transpose()
    };
    let object = find(resource, name)?.ok_or_else(|| ApiError::not_found("", resource, name))?;
    let there = bound(&object);
    let given = reference.text_at(&["uid"]);
    let differs = !given.is_empty() && given != there.uid;
    match resource {
        "pods" => {
            if object.text_at(&["spec", "serviceAccountName"]) != grant.account.name {
                return Err(ApiError::bad_request(format!(
                    "cannot bind token for serviceaccount {:?} to pod running with different serviceaccount name.",
                    grant.account.name
                )));
            }
            let node = object.text_at(&["spec", "nodeName"]);
            if !node.is_empty() {
                let known = find("nodes", node)?.map(|node| bound(&node));
                grant.node = Some(known.unwrap_or(Bound { name: node.to_owned(), uid: String::new() }));
            }
            grant.pod = Some(there);
        }
        "secrets" => grant.secret = Some(there),
        _ => grant.node = Some(there),
    }
    if differs {
        let why = format!(
            "the UID in the bound object reference ({given}) does not match the UID in record. The object might have \
             been deleted and then recreated"
        );
        return Err(ApiError::conflict(group, kind, name, why));
    }
    Ok(())
}

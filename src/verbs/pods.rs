//! What is done to pods by creating something on them: a binding assigns them to a node, an eviction deletes them if
//! their disruption budget allows it.

use std::sync::Arc;

use kontiki_storage::{Condition, Record, View};
use serde_json::{Value, json};

use super::commit::{Plan, Reply, carry_out};
use super::create::again;
use super::delete::{self, Next};
use super::options::{DeleteOptions, WriteOptions};
use super::{Answer, Request, decode_stored, fields, input, place, target};
use crate::admission::{self, Operation};
use crate::codec::{canonicalize, encode_for_store};
use crate::discovery::Resource;
use crate::field::{self, Errors};
use crate::kinds::pods::subresources::{bind, set_condition};
use crate::kinds::workloads::budgets;
use crate::kinds::{self, selector};
use crate::object::Fields;
use crate::schema::{self, Node};
use crate::status::{ApiError, Result};
use crate::time;

/// `Binding`s: posted to a pod, or to the resource of that name.
pub async fn binding(request: &mut Request) -> Result<Answer> {
    let options = WriteOptions::read(request, "CreateOptions", None)?;
    let mut first = Some(read(request, &options)?);
    carry_out(request, options.dry_run, |request, view| {
        let mut binding = match first.take() {
            Some(binding) => binding,
            None => again(request, |request| read(request, &options))?,
        };
        let write = admission::Write { operation: Operation::Create, old: None };
        let admitted = admission::mutate(request, view, write, &mut binding)?;
        named(request, &binding)?;
        let mut errors = Errors::default();
        let rules = kinds::find("", "Binding").ok_or_else(|| ApiError::internal("kind Binding has no rules"))?;
        rules.validate(&binding, &mut errors);
        if !errors.is_empty() {
            return Err(ApiError::new(500, "", field::aggregate(&errors.0)));
        }
        let name = binding.text_at(&["metadata", "name"]);
        let pods = pods(request)?;
        let key = place(&pods, request.namespace(), name)?;
        let record = view.get(key.as_str()).ok_or_else(|| ApiError::not_found("", "pods", name))?;
        let mut pod = decode_stored(record)?;
        let preconditions = DeleteOptions {
            uid: given(&binding, "uid"),
            version: given(&binding, "resourceVersion"),
            ..DeleteOptions::default()
        };
        preconditions.check("", "pods", &pod)?;
        bind(&mut pod, &binding)?;
        canonicalize(pod_node()?, &mut pod);
        let (value, revision_at) = encode_for_store(&pod);
        let mut plan = Plan::new(success(), None).on(Condition::At(key.clone(), record.modified));
        plan.join(admitted);
        plan.put(key, value.into(), revision_at, None);
        Ok(plan)
    })
    .await
}

fn pod_node() -> Result<Node<'static>> {
    schema::builtin().kind("", "v1", "Pod").ok_or_else(|| ApiError::internal("no schema for kind Pod"))
}

fn given(object: &Value, field: &str) -> Option<String> {
    object.at(&["metadata", field]).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned)
}

fn pods(request: &Request) -> Result<Arc<Resource>> {
    let registry = request.server.registry();
    registry.find("", "v1", "pods").cloned().ok_or_else(|| ApiError::internal("pods are not served"))
}

fn read(request: &mut Request, options: &WriteOptions) -> Result<Value> {
    let (resource, subresource) = (request.resource.clone(), request.info.subresource.clone());
    let mut object = input::decode(request, target(&resource, &subresource), options)?;
    input::agree_on_namespace(request, &mut object)?;
    Ok(object)
}

/// The object is of the pod that the path names.
fn named(request: &Request, object: &Value) -> Result<()> {
    if !request.name().is_empty() && request.name() != object.text_at(&["metadata", "name"]) {
        let kind = object.text_at(&["kind"]);
        return Err(ApiError::bad_request(format!("name in URL does not match name in {kind} object")));
    }
    Ok(())
}

fn success() -> Reply {
    let object = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201 });
    Reply::Ready { code: 201, object }
}

pub async fn eviction(request: &mut Request) -> Result<Answer> {
    let options = WriteOptions::read(request, "CreateOptions", None)?;
    let eviction = read(request, &options)?;
    named(request, &eviction)?;
    let wanted = deletion(&eviction, request.query.all("dryRun").collect())?;
    let dry_run = !wanted.list_at(&["dryRun"]).is_empty();
    // What is wrong with the options of the deletion is told where that begins.
    let delete = DeleteOptions::from_value(&wanted);
    // A budget is spent before the pod goes, as a write of its own: were this replica to end between the two, the
    // budget's controller would take back what it doesn't see happen. Where none is spent, it is because of what the pod
    // is like, and then it goes as it is.
    let (mut spent, mut next) = (false, Next::Nothing);
    let mut answer = carry_out(request, dry_run, |request, view| {
        let write = admission::Write { operation: Operation::Create, old: None };
        admission::mutate(request, view, write, &mut eviction.clone())?;
        let (record, pod) = found(request, view)?;
        let budget = if budgets::disrupts_nothing(&pod) { None } else { spend_budget(request, view, &pod)? };
        let delete = delete.as_ref().map_err(ApiError::clone)?;
        delete.check("", "Pod", &pod)?;
        spent = budget.is_some();
        match budget {
            Some(plan) => Ok(plan),
            None => evict(request, &record, pod, delete, &mut next),
        }
    })
    .await?;
    let mut delete = delete?;
    if spent {
        answer = carry_out(request, dry_run, |request, view| {
            let (record, pod) = found(request, view)?;
            delete.check("", "Pod", &pod)?;
            evict(request, &record, pod, &delete, &mut next)
        })
        .await?;
    }
    if next == Next::Remove && !dry_run {
        delete.version = None;
        match delete::carry(request, delete).await {
            Err(error) if error.code == 404 => {}
            other => drop(other?),
        }
    }
    Ok(answer)
}

/// The `DeleteOptions` of an eviction. It is dry if they or the request say so, which may not say different things.
fn deletion(eviction: &Value, dry_run: Vec<&str>) -> Result<Value> {
    let mut options = eviction.at(&["deleteOptions"]).cloned().unwrap_or_else(|| json!({}));
    let said: Vec<&str> = options.list_at(&["dryRun"]).iter().filter_map(Value::as_str).collect();
    if !dry_run.is_empty() && !said.is_empty() && dry_run != said {
        let (asked, said) = (dry_run.join(" "), said.join(" "));
        let why = format!("Non-matching dry-run options in request and content: [{asked}] and [{said}]");
        return Err(ApiError::new(500, "", why));
    }
    if said.is_empty() && !dry_run.is_empty() {
        options.set(&["dryRun"], dry_run);
    }
    Ok(options)
}

/// The deletion of a pod that says why it is deleted.
fn evict(
    request: &Request,
    record: &Arc<Record>,
    mut pod: Value,
    delete: &DeleteOptions,
    next: &mut Next,
) -> Result<Plan> {
    let condition = json!({
        "type": "DisruptionTarget",
        "status": "True",
        "reason": "EvictionByEvictionAPI",
        "message": "Eviction API: evicting",
    });
    set_condition(&mut pod, condition);
    canonicalize(pod_node()?, &mut pod);
    let (mut plan, then) = delete::remove(request, record, pod, delete)?;
    *next = then;
    plan.reply = success();
    Ok(plan)
}

fn found(request: &Request, view: &View) -> Result<(Arc<Record>, Value)> {
    let record = view.get(request.key()?.as_str()).ok_or_else(|| request.not_found())?;
    Ok((record.clone(), decode_stored(record)?))
}

/// Takes one disruption from the budget that the pod is under, if it is under one.
fn spend_budget(request: &Request, view: &View, pod: &Value) -> Result<Option<Plan>> {
    let Some(labels) = pod.at(&["metadata", "labels"]) else { return Ok(None) };
    let prefix = format!("poddisruptionbudgets.policy/{}/", request.namespace());
    let mut found = None;
    for record in view.prefix(&prefix) {
        let budget = decode_stored(record)?;
        if selector::fits(budget.at(&["spec", "selector"]), Some(labels)) != Some(true) {
            continue;
        }
        if found.is_some() {
            let why =
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
            return Err(ApiError::new(500, "", why));
        }
        found = Some((record, budget));
    }
    let Some((record, mut budget)) = found else { return Ok(None) };
    let before = budget.clone();
    if !budgets::spend(&mut budget, pod, &time::now())? {
        return Ok(None);
    }
    fields::manage_own_status(&before, &mut budget);
    let (value, revision_at) = encode_for_store(&budget);
    let mut plan = Plan::new(success(), None).on(Condition::At(record.key.clone(), record.modified));
    plan.put(record.key.clone(), value.into(), revision_at, None);
    Ok(Some(plan))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_eviction_and_its_request_agree_on_whether_they_are_dry() {
        let told = |said: Value, asked: &[&str]| match deletion(&json!({ "deleteOptions": said }), asked.to_vec()) {
            Ok(options) => options.at(&["dryRun"]).cloned().unwrap_or_default().to_string(),
            Err(error) => error.message,
        };
        assert_eq!(told(json!({}), &[]), "null");
        assert_eq!(told(json!({}), &["All"]), r#"["All"]"#);
        assert_eq!(told(json!({ "dryRun": ["x"] }), &[]), r#"["x"]"#);
        assert_eq!(
            told(json!({ "dryRun": ["All", "All"] }), &["All"]),
            "Non-matching dry-run options in request and content: [All] and [All All]"
        );
    }
}

//! Field management against recorded answers of kube-apiserver, where these are at hand.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::{Write, apply, entries, reset, update};
use crate::codec::{Target, Validation, canonicalize, decode};
use crate::kinds;
use crate::object::Fields;
use crate::patch::tests::{concrete, scenarios, target_of};
use crate::verbs::fields::BuiltIn;

pub fn write<'w>(api_version: &'w str, kind: &str, subresource: &'w str, manager: &'w str) -> Write<'w> {
    let reset = reset::of(kind, subresource);
    Write { versions: &BuiltIn, api_version, subresource, manager, reset, now: "2020-01-01T00:00:00Z" }
}

fn sorted(object: &Value) -> Vec<String> {
    let mut all: Vec<String> = entries::of(object).iter().map(Value::to_string).collect();
    all.sort();
    all
}

fn manager_of(request: &Value) -> String {
    let query = request.text_at(&["path"]).split_once('?').map_or("", |(_, query)| query);
    let said = query.split('&').find_map(|part| part.strip_prefix("fieldManager="));
    let agent = request.at(&["headers", "User-Agent"]).and_then(Value::as_str).unwrap_or("golden/1.0");
    said.unwrap_or(agent.split('/').next().unwrap_or_default()).to_owned()
}

fn subresource_of(path: &str) -> &str {
    let names: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let rest = match names.as_slice() {
        ["api", _, rest @ ..] | ["apis", _, _, rest @ ..] => rest,
        _ => return "",
    };
    match rest {
        ["namespaces", _, _, _, sub] => sub,
        ["namespaces", _, sub @ ("status" | "finalize")] => sub,
        ["namespaces", ..] => "",
        [_, _, sub] => sub,
        _ => "",
    }
}

/// Checks the entries after each write of a scenario whose objects are known before and after.
fn replay(scenario: &Value, wrong: &mut Vec<String>) -> usize {
    let mut known: HashMap<String, Value> = HashMap::new();
    let mut checked = 0;
    for step in scenario.list_at(&["steps"]) {
        let mut step = step.clone();
        concrete(&mut step);
        let (request, response) = (&step["request"], &step["response"]);
        let path = request.text_at(&["path"]).split('?').next().unwrap_or_default().to_owned();
        let status = response.int_at(&["status"]).unwrap_or_default();
        let mut answer = response.get("body").cloned().unwrap_or_default();
        let is_apply = request.text_at(&["headers", "Content-Type"]).contains("apply");
        if is_apply {
            checked += usize::from(applied(scenario, request, &answer, &known, wrong));
        }
        let Some((_, node)) = target_of(&answer) else { continue };
        canonicalize(node, &mut answer);
        let Some((target, _)) = target_of(&answer) else { continue };
        let (api_version, kind) = (answer.text_at(&["apiVersion"]), target.kind);
        let subresource = subresource_of(&path);
        if answer.at(&["metadata"]).is_none() || status >= 300 || kind.ends_with("List") || kind == "Scale" {
            continue;
        }
        let manager = manager_of(request);
        let write = write(api_version, kind, subresource, &manager);
        let name = answer.text_at(&["metadata", "name"]);
        let key = |path: &str| path.trim_end_matches(&format!("/{subresource}")).to_owned();
        let here = if request.text_at(&["method"]) == "POST" { format!("{path}/{name}") } else { key(&path) };
        let method = request.text_at(&["method"]);
        let compare = |made: &Value, wrong: &mut Vec<String>| {
            if sorted(made) != sorted(&answer) {
                let (ours, theirs) = (sorted(made).join("\n    "), sorted(&answer).join("\n    "));
                wrong
                    .push(format!("{} {method} {path}:\n  ours\n    {ours}\n  theirs\n    {theirs}", scenario["name"]));
            }
        };
        match (method, known.get(&here)) {
            ("POST", _) if subresource.is_empty() => {
                let body = request.get("body").map(Value::to_string).unwrap_or_default();
                let Ok(decoded) = decode(node, body.as_bytes()) else { continue };
                let mut object = decoded.value;
                object["kind"] = kind.into();
                object["apiVersion"] = api_version.into();
                if let Some(rules) = kinds::find(target.group, kind) {
                    rules.default(&mut object);
                }
                for field in ["deletionTimestamp", "deletionGracePeriodSeconds"] {
                    object.take_at(&["metadata", field]);
                }
                update(write, None, &mut object);
                checked += 1;
                compare(&object, wrong);
            }
            ("PUT" | "PATCH", Some(live)) if !is_apply => {
                let mut object = answer.clone();
                entries::take(&mut object);
                if let Some(sent) = request.at(&["body_from", "set", "metadata.managedFields"]) {
                    object.set(&["metadata", "managedFields"], sent.clone());
                }
                if let Some(sent) = request.at(&["body_from", "patch", "metadata", "managedFields"]) {
                    object.set(&["metadata", "managedFields"], sent.clone());
                }
                update(write, Some(live), &mut object);
                checked += 1;
                compare(&object, wrong);
            }
            _ => {}
        }
        known.insert(here, answer.clone());
    }
    checked
}

/// Checks what an apply makes of the object that is known, and who then manages its fields; or why it is refused.
fn applied(
    scenario: &Value,
    request: &Value,
    answer: &Value,
    known: &HashMap<String, Value>,
    wrong: &mut Vec<String>,
) -> bool {
    let (path, query) = request.text_at(&["path"]).split_once('?').unwrap_or_default();
    let subresource = subresource_of(path);
    let live = known.get(path.trim_end_matches(&format!("/{subresource}")));
    let body = match request.get("body") {
        Some(body) => body.to_string(),
        None => request.text_at(&["body_raw"]).to_owned(),
    };
    // Of a refused body, only what the path takes tells the kind.
    let shown = live.or(Some(answer)).filter(|shown| shown["kind"] != "Status");
    let Some((target, _)) = shown.and_then(target_of).filter(|_| subresource != "scale") else { return false };
    let api_version = shown.map(|shown| shown.text_at(&["apiVersion"])).unwrap_or_default();
    let manager = manager_of(request);
    let write = write(api_version, target.kind, subresource, &manager);
    let force = query.contains("force=true");
    let told = match apply(write, target, live, body.as_bytes(), Validation::Warn, force) {
        Ok((object, _)) if answer["kind"] == "Status" => {
            // What is wrong with the object itself is found later.
            let later = answer["code"] == 422
                || answer.text_at(&["message"]).contains("on the ")
                || answer.text_at(&["message"]).contains("has been modified");
            (!later).then(|| format!("not refused: {object}"))
        }
        Ok((object, _)) => {
            let (ours, theirs) = (sorted(&object), sorted(answer));
            (ours != theirs)
                .then(|| format!("ours\n    {}\n  theirs\n    {}", ours.join("\n    "), theirs.join("\n    ")))
        }
        Err(error) => {
            let ours = error.to_status();
            (ours != *answer).then(|| format!("ours\n    {ours}\n  theirs\n    {answer}"))
        }
    };
    wrong.extend(told.map(|told| format!("{} {body}:\n  {told}", scenario["name"])));
    true
}

/// Of these, the objects that were compared can't be told from the answers: a part of what was sent wasn't taken, or
/// somebody else wrote in between.
const UNTOLD: &[&str] = &[
    "apply-kind-flowschema",
    "defaults-customresourcedefinition-min",
    "defaults-horizontalpodautoscalerv1-min",
    "sub-namespace-finalize",
    "sub-resize",
];

#[test]
fn recorded_writes_are_managed_as_recorded() {
    let mut wrong = Vec::new();
    let mut checked = 0;
    for category in ["patch", "write-options", "defaults", "subresources", "apply"] {
        for scenario in scenarios(category).iter().filter(|scenario| !UNTOLD.contains(&scenario.text_at(&["name"]))) {
            checked += replay(scenario, &mut wrong);
        }
    }
    eprintln!("{checked} writes");
    assert!(wrong.is_empty(), "{} of {checked}:\n{}", wrong.len(), wrong.join("\n"));
}

fn config_map(data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "uid": "u"}, "data": data})
}

fn fields_of<'o>(object: &'o Value, manager: &str) -> Option<&'o Value> {
    entries::of(object).iter().find(|entry| entry["manager"] == manager).map(|entry| &entry["fieldsV1"])
}

#[test]
fn nothing_changes_where_nothing_changed() {
    let mut first = config_map(json!({"k": "v"}));
    update(write("v1", "ConfigMap", "", "m"), None, &mut first);
    let mut again = first.clone();
    update(Write { now: "2021-01-01T00:00:00Z", ..write("v1", "ConfigMap", "", "m") }, Some(&first), &mut again);
    assert_eq!(again, first);
    let mut taken = config_map(json!({"k": "w"}));
    update(write("v1", "ConfigMap", "", "n"), Some(&first), &mut taken);
    assert_eq!(fields_of(&taken, "m"), Some(&json!({"f:data": {}})));
    assert_eq!(fields_of(&taken, "n"), Some(&json!({"f:data": {"f:k": {}}})));
}

#[test]
fn an_object_that_is_not_managed_stays_so() {
    let live = config_map(json!({"k": "v"}));
    let mut object = config_map(json!({"k": "w"}));
    update(write("v1", "ConfigMap", "", "m"), Some(&live), &mut object);
    assert_eq!(object, config_map(json!({"k": "w"})));
}

#[test]
fn entries_of_another_version_lose_its_fields() {
    let hpa = |replicas: i64| {
        json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "a", "uid": "u"},
            "spec": {"maxReplicas": replicas, "scaleTargetRef": {"kind": "Deployment", "name": "d"}}})
    };
    let kind = "HorizontalPodAutoscaler";
    let mut first = hpa(1);
    update(write("autoscaling/v1", kind, "", "one"), None, &mut first);
    assert_eq!(fields_of(&first, "one"), Some(&json!({"f:spec": {"f:maxReplicas": {}, "f:scaleTargetRef": {}}})));
    first["metadata"]["managedFields"].as_array_mut().expect("a list").push(json!({"manager": "gone",
        "operation": "Update", "apiVersion": "autoscaling/v2beta9", "fieldsType": "FieldsV1", "fieldsV1": {"f:x": {}}}));
    let mut second = hpa(2);
    update(write("autoscaling/v2", kind, "", "two"), Some(&first), &mut second);
    assert_eq!(fields_of(&second, "one"), Some(&json!({"f:spec": {"f:scaleTargetRef": {}}})));
    assert_eq!(fields_of(&second, "two"), Some(&json!({"f:spec": {"f:maxReplicas": {}}})));
    assert_eq!(fields_of(&second, "gone"), None);
}

const CONFIG_MAP: Target<'static> = Target { group: "", version: "v1", kind: "ConfigMap" };
const DEPLOYMENT: Target<'static> = Target { group: "apps", version: "v1", kind: "Deployment" };

fn applied_by(
    manager: &str,
    target: Target<'_>,
    live: Option<&Value>,
    said: Value,
    force: bool,
) -> Result<Value, String> {
    let api_version = if target.group.is_empty() { "v1" } else { "apps/v1" };
    let mut configuration = said;
    configuration["apiVersion"] = api_version.into();
    configuration["kind"] = target.kind.into();
    let body = configuration.to_string();
    let write = write(api_version, target.kind, "", manager);
    let applied = apply(write, target, live, body.as_bytes(), Validation::Strict, force);
    applied.map(|(object, _)| object).map_err(|error| error.message)
}

#[test]
fn what_an_applier_no_longer_says_goes_unless_somebody_owns_it() {
    let data = |live: Option<&Value>, manager: &str, data: Value| {
        applied_by(manager, CONFIG_MAP, live, json!({"metadata": {"name": "a"}, "data": data}), false)
            .expect("no conflict")
    };
    let first = data(None, "one", json!({"a": "1", "b": "1", "c": "1"}));
    let second = data(Some(&first), "two", json!({"b": "1"}));
    assert_eq!(fields_of(&second, "two"), Some(&json!({"f:data": {"f:b": {}}})));
    let third = data(Some(&second), "one", json!({"c": "1"}));
    assert_eq!(third["data"], json!({"b": "1", "c": "1"}));
    let last = data(Some(&third), "one", json!({}));
    assert_eq!(last["data"], json!({"b": "1"}));
    let mut updated = last.clone();
    updated["data"]["b"] = "2".into();
    update(write("v1", "ConfigMap", "", "three"), Some(&last), &mut updated);
    let refused =
        applied_by("two", CONFIG_MAP, Some(&updated), json!({"metadata": {"name": "a"}, "data": {"b": "1"}}), false);
    assert_eq!(
        refused.expect_err("a conflict"),
        r#"Apply failed with 1 conflict: conflict with "three" using v1: .data.b"#
    );
}

#[test]
fn elements_are_merged_by_their_keys() {
    let containers = |containers: Value| json!({"metadata": {"name": "d"}, "spec": {"template": {"spec": {"containers": containers}}}});
    let by = |live: Option<&Value>, manager: &str, said: Value, force: bool| {
        applied_by(manager, DEPLOYMENT, live, containers(said), force)
    };
    let names = |object: &Value| {
        let list = object.list_at(&["spec", "template", "spec", "containers"]).iter();
        list.map(|container| container.text_at(&["name"]).to_owned()).collect::<Vec<_>>().join(" ")
    };
    let first =
        by(None, "one", json!([{"name": "a", "image": "a"}, {"name": "b", "image": "b"}]), false).expect("created");
    let second = by(Some(&first), "two", json!([{"name": "z", "image": "z"}, {"name": "b"}]), false).expect("merged");
    assert_eq!(names(&second), "a z b");
    let third = by(Some(&second), "two", json!([{"name": "b"}, {"name": "a"}]), false).expect("reordered");
    assert_eq!(names(&third), "b a");
    let told = by(Some(&third), "two", json!([{"name": "a", "image": "other"}]), false).expect_err("a conflict");
    assert_eq!(
        told,
        r#"Apply failed with 1 conflict: conflict with "one": .spec.template.spec.containers[name="a"].image"#
    );
    let forced = by(Some(&third), "two", json!([{"name": "a", "image": "other"}]), true).expect("forced");
    let own = json!({"k:{\"name\":\"a\"}": {".": {}, "f:image": {}, "f:name": {}}});
    assert_eq!(
        fields_of(&forced, "two").and_then(|fields| fields.at(&["f:spec", "f:template", "f:spec", "f:containers"])),
        Some(&own)
    );
    let told = by(None, "one", json!([{"name": "a"}, {"name": "a"}]), false).expect_err("twice");
    assert!(told.ends_with(r#".spec.template.spec.containers: duplicate entries for key [name="a"]"#), "{told}");
}

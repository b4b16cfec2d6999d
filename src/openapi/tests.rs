//! The documents against those that kube-apiserver published.
//!
//! Not compared: the words (many are ours), and what means the same with or without being said: lists without a type are
//! atomic, maps are granular, zero values are the default. `x-kubernetes-unions` is in no table.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::codec::tests::shared;

/// Service account issuer discovery isn't served yet.
const ABSENT: &[&str] = &[".well-known/openid-configuration", "openid/v1/jwks"];

fn recorded(file: &str) -> Option<Value> {
    let path = shared("kubernetes-1.36")?.join(file);
    let Ok(text) = std::fs::read_to_string(&path) else {
        eprintln!("skipped: no {}", path.display());
        return None;
    };
    Some(serde_json::from_str(&text).expect("JSON"))
}

/// Leaves out what isn't compared, and puts sets in order.
fn plain(mut value: Value) -> Value {
    match &mut value {
        Value::Object(map) => {
            for word in ["description", "x-kubernetes-unions", "summary"] {
                if map.get(word).is_some_and(|said| said.is_string() || said.is_array()) {
                    map.remove(word);
                }
            }
            let is = |field: &str, texts: &[Value]| texts.contains(map.get(field).unwrap_or(&Value::Null));
            let atomic = is("x-kubernetes-list-type", &["atomic".into()]);
            let granular = is("x-kubernetes-map-type", &["granular".into()]);
            let zero = is("default", &[json!({}), "".into(), 0.into(), false.into()]);
            for (said, word) in
                [(atomic, "x-kubernetes-list-type"), (granular, "x-kubernetes-map-type"), (zero, "default")]
            {
                if said {
                    map.remove(word);
                }
            }
            for inner in map.values_mut() {
                *inner = plain(inner.take());
            }
            // Wrapped for the sake of words that are gone now.
            if map.len() == 1
                && let Some([one]) = map.get("allOf").and_then(Value::as_array).map(Vec::as_slice)
            {
                return one.clone();
            }
        }
        Value::Array(list) => {
            for inner in list.iter_mut() {
                *inner = plain(inner.take());
            }
            list.sort_by_key(Value::to_string);
        }
        _ => {}
    }
    value
}

/// Says where two values differ.
fn differences(path: &str, ours: &Value, theirs: &Value, out: &mut Vec<String>) {
    match (ours, theirs) {
        (Value::Object(a), Value::Object(b)) => {
            let names: BTreeSet<_> = a.keys().chain(b.keys()).collect();
            for name in names {
                let (a, b) = (a.get(name).unwrap_or(&Value::Null), b.get(name).unwrap_or(&Value::Null));
                differences(&format!("{path} {name}"), a, b, out);
            }
        }
        _ if ours != theirs => out.push(format!("{path}: {ours:.300} instead of {theirs:.300}")),
        _ => {}
    }
}

fn compare(what: &str, ours: Value, theirs: Value) {
    let mut found = Vec::new();
    differences(what, &plain(ours), &plain(theirs), &mut found);
    // Two maps whose keys name enum values: the table tells enums of fields and of lists.
    found.retain(|line| !line.contains("llocatedResourceStatuses"));
    // Version 2 tells the options of every group, even of versions that aren't served any more.
    let optional = |line: &str, kind: &str| {
        line.starts_with(&format!("v2 definitions io.k8s.apimachinery.pkg.apis.meta.v1.{kind} x-"))
    };
    found.retain(|line| !optional(line, "DeleteOptions") && !optional(line, "WatchEvent"));
    assert!(found.is_empty(), "{} differences:\n{}", found.len(), found[..found.len().min(40)].join("\n"));
}

#[test]
fn version_3_is_that_of_kube_apiserver() {
    let Some(index) = recorded("openapi-v3/_index.json") else { return };
    let openapi = OpenApi::new(Arc::new(Registry::builtin()));
    let paths = |index: &Value| -> BTreeSet<String> {
        let paths = index["paths"].as_object().expect("paths").keys();
        paths.filter(|path| !ABSENT.contains(&path.as_str())).cloned().collect()
    };
    let ours = openapi.index();
    assert_eq!(paths(&ours), paths(&index));
    for path in paths(&index) {
        let document = openapi.document(&path).expect("a document");
        let url = ours["paths"][&path]["serverRelativeURL"].as_str().expect("a URL");
        assert_eq!(url, format!("/openapi/v3/{path}?hash={}", document.hash));
        let Some(theirs) = recorded(&format!("openapi-v3/{}.json", path.replace('/', "_"))) else { continue };
        compare(&path, serde_json::from_slice(&document.plain()).expect("JSON"), theirs);
    }
}

#[test]
fn version_2_is_that_of_kube_apiserver() {
    let Some(mut theirs) = recorded("openapi-v2.json") else { return };
    let openapi = OpenApi::new(Arc::new(Registry::builtin()));
    let ours: Value = serde_json::from_slice(&openapi.v2().plain()).expect("JSON");
    // Theirs says common parameters in one place.
    let shared = take(&mut theirs, "parameters");
    let resolve = |parameters: &mut Value| {
        for parameter in parameters.as_array_mut().into_iter().flatten() {
            if let Some(name) = parameter["$ref"].as_str().and_then(|name| name.strip_prefix("#/parameters/")) {
                *parameter = shared[name].clone();
            }
        }
    };
    if let Some(paths) = theirs["paths"].as_object_mut() {
        paths.retain(|path, _| !ABSENT.contains(&path.trim_matches('/')));
        for item in paths.values_mut() {
            for (method, operation) in item.as_object_mut().into_iter().flatten() {
                resolve(if method == "parameters" { operation } else { &mut operation["parameters"] });
                if operation["parameters"].is_null() && method != "parameters" {
                    take(operation, "parameters");
                }
            }
        }
    }
    compare("v2", ours, theirs);
}

fn take(value: &mut Value, field: &str) -> BTreeMap<String, Value> {
    match value.as_object_mut().and_then(|map| map.remove(field)) {
        Some(Value::Object(map)) => map.into_iter().collect(),
        _ => BTreeMap::new(),
    }
}

#[test]
fn everything_is_described() {
    let openapi = OpenApi::new(Arc::new(Registry::builtin()));
    let document: Value =
        serde_json::from_slice(&openapi.document("apis/apps/v1").expect("apps/v1").plain()).expect("JSON");
    let deployment = &document["components"]["schemas"]["io.k8s.api.apps.v1.Deployment"];
    assert_eq!(deployment["description"], "Deployment enables declarative updates for Pods and ReplicaSets.");
    assert_eq!(
        deployment["properties"]["spec"]["description"],
        "Specification of the desired behavior of the Deployment."
    );
    let mut bare = Vec::new();
    for (name, schema) in document["components"]["schemas"].as_object().expect("schemas") {
        for (field, property) in schema["properties"].as_object().into_iter().flatten() {
            if property["description"].is_null() && !name.ends_with(".WatchEvent") {
                bare.push(format!("{name}.{field}"));
            }
        }
    }
    assert!(bare.is_empty(), "{bare:?}");
}

#[test]
fn what_is_kept_is_small() {
    let openapi = OpenApi::new(Arc::new(Registry::builtin()));
    let kept: usize = openapi.documents().values().map(|document| document.gzip.len()).sum();
    assert!(kept < 1_000_000, "{kept} bytes");
}

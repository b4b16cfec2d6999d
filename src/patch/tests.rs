//! Patches against recorded answers of kube-apiserver, where these are at hand, and the rules that they show.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{PatchKind, apply};
use crate::codec::{Target, Validation, canonicalize, decode};
use crate::kinds;
use crate::object::Fields;
use crate::schema::{Node, builtin};
use crate::status::ApiError;

/// The recorded scenarios of a category.
pub(crate) fn scenarios(category: &str) -> Vec<Value> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().map(|dir| dir.join("shared/golden").join(category));
    let Some(dir) = beside.into_iter().find(|dir| dir.is_dir()) else {
        eprintln!("SKIPPED: no ../shared/golden/{category}");
        return Vec::new();
    };
    let mut files: Vec<PathBuf> = std::fs::read_dir(dir)
        .expect("a directory")
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .collect();
    files.sort();
    files.iter().map(|file| serde_json::from_slice(&std::fs::read(file).expect("readable")).expect("JSON")).collect()
}

/// What changes from run to run is given some value that the schema can read.
pub(crate) fn concrete(value: &mut Value) {
    match value {
        Value::String(text) if text.starts_with("<port:") => *value = 30_000.into(),
        Value::String(text) => {
            while let Some((before, rest)) = text.split_once('<')
                && let Some((name, after)) = rest.split_once('>')
            {
                let some = match name.split(':').next().unwrap_or_default() {
                    "time" => "2020-01-01T00:00:00Z",
                    "mtime" => "2020-01-01T00:00:00.000000Z",
                    "port" => "30000",
                    name => name,
                };
                *text = format!("{before}{some}{after}");
            }
        }
        Value::Array(list) => list.iter_mut().for_each(concrete),
        Value::Object(map) => map.iter_mut().for_each(|(_, value)| concrete(value)),
        _ => {}
    }
}

pub(crate) fn target_of(object: &Value) -> Option<(Target<'_>, Node<'static>)> {
    let (group, version) =
        object.text_at(&["apiVersion"]).rsplit_once('/').unwrap_or(("", object.text_at(&["apiVersion"])));
    let kind = object.text_at(&["kind"]);
    let node = builtin().kind(group, version, kind)?;
    Some((Target { group, version, kind }, node))
}

pub(crate) fn defaulted(mut object: Value) -> Value {
    if let Some((target, node)) = target_of(&object.clone()) {
        if let Some(kind) = kinds::find(target.group, target.kind) {
            kind.default(&mut object);
        }
        canonicalize(node, &mut object);
    }
    object
}

/// The part of an object that a patch of the object or of its status decides.
fn decided(object: &Value, status: bool) -> Value {
    let mut object = object.clone();
    if status {
        return object.take_at(&["status"]).unwrap_or_default();
    }
    object.take_at(&["status"]);
    for field in ["managedFields", "resourceVersion", "generation", "namespace", "uid", "creationTimestamp"] {
        object.take_at(&["metadata", field]);
    }
    // What the kind itself and admission add.
    object.take_at(&["metadata", "annotations", "deprecated.daemonset.template.generation"]);
    if let Some(Value::Array(tolerations)) = object.at_mut(&["spec", "tolerations"]) {
        tolerations.retain(|toleration| !toleration.text_at(&["key"]).starts_with("node.kubernetes.io/"));
    }
    object
}

/// Whether `whole` has all that `part` has: it may have defaults beside that.
fn has(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => {
            part.iter().all(|(name, part)| whole.get(name).is_some_and(|whole| has(whole, part)))
        }
        (Value::Array(whole), Value::Array(part)) => {
            whole.len() == part.len() && whole.iter().zip(part).all(|(whole, part)| has(whole, part))
        }
        _ => whole == part,
    }
}

fn body_of(request: &Value) -> Option<Vec<u8>> {
    // As the recorder sent it: Python's json.dumps, whose order of keys serde_json has lost; only errors quote it.
    match request.get("body") {
        Some(body) => Some(body.to_string().into_bytes()),
        None => request.get("body_raw").and_then(Value::as_str).map(|text| text.as_bytes().to_vec()),
    }
}

/// Runs the patches of a scenario on the objects that its answers show.
fn replay(scenario: &Value, wrong: &mut Vec<String>) -> usize {
    let mut known: HashMap<String, Value> = HashMap::new();
    let mut checked = 0;
    for step in scenario.list_at(&["steps"]) {
        let mut step = step.clone();
        concrete(&mut step);
        let (request, response) = (&step["request"], &step["response"]);
        let path = request.text_at(&["path"]).split('?').next().unwrap_or_default().to_owned();
        let status = response.int_at(&["status"]).unwrap_or_default();
        let answer = response.get("body").cloned().unwrap_or_default();
        if path.ends_with("/resize") {
            continue;
        }
        let kind = PatchKind::of(request.text_at(&["headers", "Content-Type"]), false);
        if let (Ok(kind @ (PatchKind::Json | PatchKind::Merge | PatchKind::Strategic)), Some(before), Some(body)) =
            (kind, known.get(&path), body_of(request))
            && let Some((target, node)) = target_of(before)
        {
            let query = request.text_at(&["path"]);
            let validation = match () {
                () if query.contains("fieldValidation=Strict") => Validation::Strict,
                () if query.contains("fieldValidation=Ignore") => Validation::Ignore,
                () => Validation::Warn,
            };
            let name = scenario.text_at(&["name"]);
            let shown = String::from_utf8_lossy(&body).into_owned();
            match apply(kind, target, node, before, &body, validation) {
                Ok(patched) if status == 200 => {
                    checked += 1;
                    let expected: Vec<String> = response.list_at(&["headers", "warning"]).iter().map(told).collect();
                    let of_status = path.ends_with("/status");
                    let ours = decided(&defaulted(patched.object), of_status);
                    let theirs = decided(&answer, of_status);
                    if !has(&theirs, &ours) || patched.warnings != expected {
                        wrong.push(format!("{name} {shown}: {:?}\n  {ours}\n  {theirs}", patched.warnings));
                    }
                }
                // What is wrong with the object itself is found later.
                Ok(_)
                    if status == 409
                        || ["undeterminable", "does not match the name", "is invalid: metadata."]
                            .iter()
                            .any(|w| answer.text_at(&["message"]).contains(w)) => {}
                Ok(_)
                    if status == 422
                        && !answer.text_at(&["message"]).contains("patch:")
                        && answer.text_at(&["message"]).contains(" is invalid: ") => {}
                Ok(_) => wrong.push(format!("{name} {shown}: not refused: {}", answer.text_at(&["message"]))),
                // Of what is quoted, not everything is known.
                Err(error) if error.message.contains("apiVersion") && before.at(&["metadata", "uid"]).is_none() => {}
                Err(error) => {
                    checked += 1;
                    // An object whose answer is not recorded lacks what the server sets, so its text is not quoted alike.
                    let made_here = before.at(&["metadata", "uid"]).is_none();
                    let why = |message: &str| message.rsplit("}\": ").next().unwrap_or_default().to_owned();
                    let same = match made_here {
                        true => why(&error.message) == why(answer.text_at(&["message"])),
                        false => error.to_status() == answer,
                    };
                    if !same {
                        wrong.push(format!("{name} {shown}:\n  {}\n  {answer}", error.to_status()));
                    }
                }
            }
        }
        if status < 300 && target_of(&answer).is_some() {
            known.insert(path, answer);
        } else if status == 201
            && let Some(mut body) = request.get("body").cloned()
            && let Some((target, node)) = target_of(&body.clone())
        {
            let name = body.text_at(&["metadata", "name"]).to_owned();
            let decoded = decode(node, body.to_string().as_bytes()).map(|decoded| decoded.value);
            body = defaulted(decoded.unwrap_or_default());
            let known_defaults = kinds::find(target.group, target.kind).is_some() || target.kind == "ConfigMap";
            if known_defaults {
                known.insert(format!("{path}/{name}"), body);
            }
        }
    }
    checked
}

fn told(header: &Value) -> String {
    let text = header.as_str().unwrap_or_default();
    let quoted = text.strip_prefix("299 - ").unwrap_or_default();
    serde_json::from_str(quoted).unwrap_or_default()
}

#[test]
fn recorded_patches_have_their_recorded_outcome() {
    let mut wrong = Vec::new();
    let mut checked = 0;
    for category in ["patch", "subresources"] {
        for scenario in scenarios(category) {
            checked += replay(&scenario, &mut wrong);
        }
    }
    eprintln!("{checked} patches");
    assert!(wrong.is_empty(), "{} of {checked}:\n{}", wrong.len(), wrong.join("\n"));
}

fn config_map() -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "v"}})
}

fn on_config_map(kind: PatchKind, body: &str, validation: Validation) -> Result<(Value, Vec<String>), ApiError> {
    let object = config_map();
    let (target, node) = target_of(&object).expect("a known kind");
    apply(kind, target, node, &object, body.as_bytes(), validation).map(|patched| (patched.object, patched.warnings))
}

#[test]
fn what_is_wrong_with_a_patch_itself_is_told() {
    use PatchKind::{Json, Merge, Strategic};
    let told = |kind, body: &str| {
        let warned = on_config_map(kind, body, Validation::Warn).expect(body).1;
        let refused = on_config_map(kind, body, Validation::Strict).expect_err(body).message;
        assert!(refused.ends_with(&format!("strict decoding error: {}", warned.join(", "))), "{refused}");
        assert_eq!(on_config_map(kind, body, Validation::Ignore).expect(body).1, Vec::<String>::new());
        warned.join(", ")
    };
    let twice = r#"{"data": {"x": "1", "x": "2"}, "spec": 1}"#;
    assert_eq!(told(Merge, twice), r#"duplicate field "data.x", unknown field "spec""#);
    assert_eq!(told(Strategic, twice), r#"duplicate field "data.x", unknown field "spec""#);
    let more =
        r#"[{"op": "add", "path": "/data/x", "value": "1", "why": "?"}, {"op": "add", "path": "/y", "value": {}}]"#;
    assert_eq!(told(Json, more), r#"json patch unknown field "[0].why", unknown field "y""#);
}

#[test]
fn a_json_patch_has_a_limit() {
    let operation = r#"{"op":"test","path":"/data/k","value":"v"}"#;
    let patch = |count| format!("[{}]", vec![operation; count].join(","));
    assert!(on_config_map(PatchKind::Json, &patch(10_000), Validation::Warn).is_ok());
    let error = on_config_map(PatchKind::Json, &patch(10_001), Validation::Warn).expect_err("too many");
    assert_eq!(error.code, 413);
}

#[test]
fn only_known_media_types_are_patches() {
    assert_eq!(PatchKind::of("application/merge-patch+json; charset=utf-8", true).ok(), Some(PatchKind::Merge));
    let error = PatchKind::of("application/strategic-merge-patch+json", true).expect_err("no table of strategies");
    assert_eq!(
        error.message,
        "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, \
         application/merge-patch+json, application/apply-patch+yaml"
    );
    assert_eq!(PatchKind::of("", false).expect_err("none").message, "415: Unsupported Media Type");
}

#[test]
fn a_patch_may_take_the_kind_but_not_the_version() {
    let current = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"b": "c"}});
    let (target, node) = target_of(&current).expect("a kind");
    for (kind, patch) in [
        (PatchKind::Merge, r#"{"kind": null}"#),
        (PatchKind::Json, r#"[{"op": "remove", "path": "/kind"}]"#),
        (PatchKind::Json, r#"[{"op": "replace", "path": "/kind", "value": null}]"#),
    ] {
        let patched = apply(kind, target, node, &current, patch.as_bytes(), Validation::Strict).expect(patch);
        assert_eq!((patched.object, patched.warnings.len()), (current.clone(), 0), "{patch}");
    }
    let patch = |validation| apply(PatchKind::Merge, target, node, &current, br#"{"apiVersion": null}"#, validation);
    let patched = patch(Validation::Warn).expect("an object without a name");
    assert_eq!(patched.object, json!({"metadata": {}}));
    assert_eq!(patched.warnings, [r#"unknown field "data""#, r#"unknown field "metadata""#]);
    let error = patch(Validation::Strict).expect_err("unknown fields");
    assert!(error.message.ends_with(r#"strict decoding error: unknown field "data", unknown field "metadata""#));
}

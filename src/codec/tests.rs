//! The codecs against recorded answers of kube-apiserver, where these are at hand, and the rules that they show.

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::decode::{Error, decode};
use super::{canonicalize, decode_untyped, protobuf};
use crate::schema::{Node, builtin};

/// A directory of the reference data that stands beside the repository.
pub(crate) fn shared(name: &str) -> Option<PathBuf> {
    let found = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().map(|dir| dir.join("shared").join(name));
    let found = found.into_iter().find(|dir| dir.is_dir());
    if found.is_none() {
        eprintln!("SKIPPED: no ../shared/{name}");
    }
    found
}

pub(crate) fn files(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(dir)
        .expect("a directory")
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|e| e == extension))
        .collect();
    found.sort();
    found
}

fn node_of(object: &Value) -> Option<Node<'static>> {
    let (api_version, kind) = (object["apiVersion"].as_str()?, object["kind"].as_str()?);
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
    builtin().kind(group, version, kind)
}

fn error_of(object: &Value) -> String {
    let node = node_of(object).expect("a known kind");
    match decode(node, object.to_string().as_bytes()) {
        Err(error) => error.to_string(),
        Ok(decoded) => decoded.findings.join(", "),
    }
}

#[test]
fn reference_objects_are_read_whole_and_stay_as_they_are() {
    let Some(dir) = shared("kubernetes-1.36/roundtrip") else { return };
    let mut wrong = Vec::new();
    for file in files(&dir, "json") {
        let text = std::fs::read(&file).expect("readable");
        let original: Value = serde_json::from_slice(&text).expect("JSON");
        // Of a watch event only its place in a stream tells the kind.
        let Some(node) = node_of(&original).or_else(|| builtin().kind("", "v1", "WatchEvent")) else { continue };
        match decode(node, &text) {
            Ok(decoded) => {
                let mut again = decoded.value.clone();
                canonicalize(node, &mut again);
                if again != decoded.value {
                    wrong.push(format!("{}: not idempotent", file.display()));
                }
                if !decoded.findings.is_empty() || decoded.value != original {
                    let differing = differences("", &original, &decoded.value);
                    wrong.push(format!("{}: {:?} {differing:?}", file.display(), decoded.findings));
                }
            }
            Err(error) => wrong.push(format!("{}: {error}", file.display())),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn reference_messages_are_the_reference_objects() {
    let Some(dir) = shared("kubernetes-1.36/roundtrip") else { return };
    let mut wrong = Vec::new();
    for file in files(&dir, "json") {
        let bytes = std::fs::read(file.with_extension("pb")).expect("a message for each object");
        let original: Value = serde_json::from_slice(&std::fs::read(&file).expect("readable")).expect("JSON");
        let Some(node) = node_of(&original) else { continue };
        let read = protobuf::unwrap(&bytes).and_then(|envelope| {
            let mut object = protobuf::decode(node, &envelope.raw)?;
            object["apiVersion"] = envelope.api_version.into();
            object["kind"] = envelope.kind.into();
            Ok(object)
        });
        match read {
            Ok(object) if object == original => {}
            Ok(object) => {
                wrong.push(format!("{}: {:?}", file.display(), differences("", &original, &object)));
            }
            Err(error) => wrong.push(format!("{}: {error}", file.display())),
        }
        let ours = protobuf::to_body(node, &original);
        if ours != bytes {
            let at = ours.iter().zip(&bytes).take_while(|(a, b)| a == b).count();
            wrong.push(format!(
                "{}: written otherwise from byte {at} of {}, {}",
                file.display(),
                bytes.len(),
                ours.len()
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn differences(at: &str, a: &Value, b: &Value) -> Vec<String> {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            let names: std::collections::BTreeSet<_> = a.keys().chain(b.keys()).collect();
            let null = Value::Null;
            let of = |name: &String| {
                let at = format!("{at}.{name}");
                match (a.get(name), b.get(name)) {
                    (Some(a), Some(b)) => differences(&at, a, b),
                    (a, b) => vec![format!("{at}: {} {}", a.unwrap_or(&null), b.unwrap_or(&null))],
                }
            };
            names.into_iter().flat_map(of).collect()
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            a.iter().zip(b).flat_map(|(a, b)| differences(&format!("{at}[]"), a, b)).collect()
        }
        _ if a == b => Vec::new(),
        _ => vec![format!("{at}: {a} {b}")],
    }
}

/// Every recorded create or update that the decoder of kube-apiserver refused is refused in the same words, and every one
/// that it warned of is warned of.
#[test]
fn recorded_errors_and_warnings_are_the_same() {
    let Some(dir) = shared("golden") else { return };
    let (mut wrong, mut checked) = (Vec::new(), 0);
    for category in ["validation", "write-options", "defaults", "services"] {
        for file in files(&dir.join(category), "json") {
            let scenario: Value = serde_json::from_slice(&std::fs::read(&file).expect("readable")).expect("JSON");
            for step in scenario["steps"].as_array().into_iter().flatten() {
                let body = &step["request"]["body"];
                let method = step["request"]["method"].as_str().unwrap_or_default();
                let Some(node) = node_of(body).filter(|_| matches!(method, "POST" | "PUT")) else { continue };
                let message = step["response"]["body"]["message"].as_str().unwrap_or_default();
                let (api_version, kind) =
                    (body["apiVersion"].as_str().unwrap_or_default(), body["kind"].as_str().unwrap_or_default());
                let version = api_version.rsplit('/').next().unwrap_or_default();
                let prefix = format!("{kind} in version \"{version}\" cannot be handled as a {kind}: ");
                let expected = message.strip_prefix(&prefix);
                let refused = expected.is_some_and(|e| !e.starts_with("no kind ") && !e.starts_with("strict "));
                let text = body.to_string();
                let decoded = decode(node, text.as_bytes());
                checked += 1;
                match decoded {
                    Err(error) if !refused || Some(&*error.to_string()) != expected => {
                        wrong.push(format!("{}: {expected:?}, but {error}", file.display()));
                    }
                    Ok(_) if refused => wrong.push(format!("{}: {expected:?}, but fine", file.display())),
                    Ok(decoded) if message.is_empty() || expected.is_some() => {
                        // Maps of serde_json are sorted, so the order is not that of the recorded text.
                        let mut theirs = match expected.and_then(|e| e.strip_prefix("strict decoding error: ")) {
                            Some(list) => list.split(", ").map(str::to_owned).collect(),
                            None => warned(&step["response"]),
                        };
                        let mut ours = decoded.findings;
                        if step["request"]["path"].as_str().is_some_and(|path| path.contains("Validation=Ignore")) {
                            ours.clear();
                        }
                        theirs.sort_unstable();
                        ours.sort();
                        if ours != theirs && !expected.is_some_and(|e| e.starts_with("no kind ")) {
                            wrong.push(format!("{}: {theirs:?}, but {ours:?}", file.display()));
                        }
                    }
                    _ => {}
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {checked}:\n{}", wrong.len(), wrong.join("\n"));
    assert!(checked > 100, "only {checked}");
}

/// The unknown and repeated fields that an answer warns of.
fn warned(response: &Value) -> Vec<String> {
    let texts = response["headers"]["warning"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let inner = texts.filter_map(|text| text.strip_prefix("299 - \"")?.strip_suffix('"'));
    let plain = inner.map(|text| text.replace("\\\"", "\""));
    plain.filter(|text| text.starts_with("unknown field") || text.starts_with("duplicate field")).collect()
}

#[test]
fn type_errors_are_gos() {
    let pod = |spec: Value| json!({"apiVersion": "v1", "kind": "Pod", "spec": spec});
    let container = |fields: Value| pod(json!({"containers": [fields]}));
    for (object, expected) in [
        (pod(json!("x")), "json: cannot unmarshal string into Go struct field Pod.spec of type v1.PodSpec"),
        (
            pod(json!({"activeDeadlineSeconds": "x"})),
            "json: cannot unmarshal string into Go struct field PodSpec.spec.activeDeadlineSeconds of type int64",
        ),
        (
            pod(json!({"containers": ["x"]})),
            "json: cannot unmarshal string into Go struct field PodSpec.spec.containers of type v1.Container",
        ),
        (
            container(json!({"livenessProbe": {"exec": 1}})),
            "json: cannot unmarshal number into Go struct field Probe.spec.containers.livenessProbe.ProbeHandler.exec of type v1.ExecAction",
        ),
        (
            pod(json!({"priority": 99999999999i64})),
            "json: cannot unmarshal number 99999999999 into Go struct field PodSpec.spec.priority of type int32",
        ),
        (
            pod(json!({"restartPolicy": true})),
            "json: cannot unmarshal bool into Go struct field PodSpec.spec.restartPolicy of type v1.RestartPolicy",
        ),
        (
            pod(json!({"nodeSelector": {"a": []}})),
            "json: cannot unmarshal array into Go struct field PodSpec.spec.nodeSelector of type string",
        ),
        (
            container(json!({"resources": {"limits": {"cpu": {}}}})),
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ),
        (
            container(json!({"livenessProbe": {"httpGet": {"port": true}}})),
            "json: cannot unmarshal bool into Go struct field HTTPGetAction.spec.containers.livenessProbe.ProbeHandler.httpGet.port of type int32",
        ),
        (
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"creationTimestamp": 1}}),
            "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.creationTimestamp of type string",
        ),
        (json!({"apiVersion": "v1", "kind": "Secret", "data": {"a": "!"}}), "illegal base64 data at input byte 0"),
        (
            json!({"apiVersion": "v1", "kind": "Secret", "data": {"a": 1}}),
            "json: cannot unmarshal number into Go struct field Secret.data of type []uint8",
        ),
    ] {
        assert_eq!(error_of(&object), expected);
    }
    let pod = node_of(&pod(Value::Null)).expect("Pod");
    let list = decode(pod, b"[]");
    assert_eq!(list, Err(Error::Value("json: cannot unmarshal array into Go value of type v1.Pod".into())));
    // A text that is no JSON is told before anything else.
    assert!(matches!(decode(pod, b"{\"spec\": 1, x"), Err(Error::Syntax(_))));
}

#[test]
fn unknown_and_repeated_fields_are_reported_in_order() {
    let pod = builtin().kind("", "v1", "Pod").expect("Pod");
    let text = r#"{"metadata": {"name": "a", "name": "b", "labels": {"x": "1", "x": "2"}}, "Spec": {},
        "spec": {"containers": [{"name": "c"}, {"imagee": {"deep": [1]}, "ports": [{"nope": null}]}]}, "spec": {}}"#;
    let decoded = decode(pod, text.as_bytes()).expect("well-formed");
    assert_eq!(
        decoded.findings,
        [
            r#"duplicate field "metadata.name""#,
            r#"duplicate field "metadata.labels.x""#,
            r#"unknown field "Spec""#,
            r#"unknown field "spec.containers[1].imagee""#,
            r#"unknown field "spec.containers[1].ports[0].nope""#,
            r#"duplicate field "spec""#,
        ]
    );
    assert_eq!(decoded.value["metadata"]["name"], "b");
    assert_eq!(decoded.value["metadata"]["labels"]["x"], "2");
}

#[test]
fn an_object_is_as_go_prints_it() {
    let text = r#"{"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "a", "labels": {}, "creationTimestamp": null},
        "spec": {"hostNetwork": false, "priority": 0, "nodeSelector": null, "containers": [{"name": "c", "image": "",
        "env": [], "resources": {"limits": {"cpu": 0.5, "memory": "1024Mi"}}, "ports": [{"hostPort": 0}]}]}}"#;
    let pod = builtin().kind("", "v1", "Pod").expect("Pod");
    let expected = json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "a"}, "status": {},
        "spec": {"priority": 0, "containers": [{"name": "c", "resources": {"limits": {"cpu": "500m", "memory": "1Gi"}},
        "ports": [{"containerPort": 0}]}]}});
    let mut value = decode(pod, text.as_bytes()).expect("well-formed").value;
    assert_eq!(value, expected);
    value["spec"]["hostNetwork"] = false.into();
    value["spec"]["containers"][0]["resources"]["limits"]["cpu"] = 0.5.into();
    value.as_object_mut().expect("an object").remove("status");
    canonicalize(pod, &mut value);
    assert_eq!(value, expected);
    let role = builtin().kind("rbac.authorization.k8s.io", "v1", "Role").expect("Role");
    let mut value = decode(role, b"{\"rules\": []}").expect("well-formed").value;
    assert_eq!(value, json!({"metadata": {}, "rules": []}));
    canonicalize(role, &mut value);
    assert_eq!(value, json!({"metadata": {}, "rules": null}));
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        let pod = builtin().kind("", "v1", "Pod").expect("Pod");
        let _ = protobuf::decode(pod, &bytes);
        prop_assert_eq!(decode_untyped(&bytes).is_err(), matches!(decode(pod, &bytes), Err(Error::Syntax(_))));
    }
}

//! Objects as JSON bytes.

use serde_json::{Map, Value};

/// Compact JSON with room for the revision: the answer's offset is where the digits of `metadata.resourceVersion` go,
/// which is written empty. An object without metadata gets some.
pub fn encode_for_store(object: &Value) -> (Vec<u8>, u32) {
    let mut out = Vec::with_capacity(2048);
    let mut at = 0;
    let empty = Map::new();
    let fields = object.as_object().unwrap_or(&empty);
    out.push(b'{');
    // These come first, as they do in upstream's answers.
    for name in ["kind", "apiVersion"] {
        if let Some(value) = fields.get(name) {
            member(&mut out, name, value);
        }
    }
    key(&mut out, "metadata");
    out.push(b'{');
    key(&mut out, "resourceVersion");
    out.push(b'"');
    at += out.len();
    out.push(b'"');
    for (name, value) in fields.get("metadata").and_then(Value::as_object).unwrap_or(&empty) {
        if name != "resourceVersion" {
            member(&mut out, name, value);
        }
    }
    out.push(b'}');
    for (name, value) in fields {
        if !matches!(name.as_str(), "kind" | "apiVersion" | "metadata") {
            member(&mut out, name, value);
        }
    }
    out.push(b'}');
    (out, u32::try_from(at).unwrap_or(u32::MAX))
}

/// JSON as Go's writer escapes it: HTML stays out of strings, and these characters don't occur elsewhere.
pub fn escape_html(json: String) -> String {
    if json.contains(['<', '>', '&']) {
        return json.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026");
    }
    json
}

/// JSON indented by two spaces, as Go's `json.Indent` does it: empty objects and lists stay on one line.
pub fn to_pretty(value: &Value) -> Vec<u8> {
    serde_json::to_vec_pretty(value).unwrap_or_default()
}

fn key(out: &mut Vec<u8>, name: &str) {
    if out.last() != Some(&b'{') {
        out.push(b',');
    }
    text(out, name);
    out.push(b':');
}

fn member(out: &mut Vec<u8>, name: &str, value: &Value) {
    key(out, name);
    // Writing a Value into memory can't fail.
    let _ = serde_json::to_writer(out, value);
}

fn text(out: &mut Vec<u8>, value: &str) {
    let _ = serde_json::to_writer(out, value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_revision_has_its_place() {
        for object in [
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "resourceVersion": "7"}, "spec": {"a": "{}"}}),
            json!({"metadata": {}}),
            json!({"data": {"metadata": "x"}}),
        ] {
            let (mut bytes, at) = encode_for_store(&object);
            bytes.splice(at as usize..at as usize, *b"123");
            let read: Value = serde_json::from_slice(&bytes).expect("JSON");
            let mut expected = object.clone();
            expected["metadata"]["resourceVersion"] = "123".into();
            assert_eq!(read, expected);
        }
    }
}

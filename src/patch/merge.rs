//! JSON merge patch (RFC 7386).

use serde_json::Value;

use super::print::TRACE;

/// Merges the patch into the object. With `trace`, every map that the patch opens is marked.
pub fn merge(object: &mut Value, patch: &Value, trace: bool) {
    let Value::Object(changes) = patch else {
        *object = without_nulls(patch, trace && !object.is_object());
        return;
    };
    let Value::Object(map) = object else {
        *object = without_nulls(patch, trace);
        return;
    };
    if trace {
        map.insert(TRACE.into(), Value::Null);
    }
    for (key, change) in changes {
        match (change, map.get_mut(key)) {
            (Value::Null, _) => drop(map.remove(key)),
            (change, Some(value)) => merge(value, change, trace),
            (change, None) => drop(map.insert(key.clone(), without_nulls(change, trace))),
        }
    }
}

/// A new value: null members say that nothing is there. Elements of lists stay.
fn without_nulls(value: &Value, trace: bool) -> Value {
    match value {
        Value::Object(map) => {
            let kept = map.iter().filter(|(_, value)| !value.is_null());
            let mark = trace.then(|| (TRACE.to_owned(), Value::Null));
            kept.map(|(key, value)| (key.clone(), without_nulls(value, trace))).chain(mark).collect()
        }
        Value::Array(list) => list.iter().map(|value| without_nulls(value, trace)).collect(),
        plain => plain.clone(),
    }
}

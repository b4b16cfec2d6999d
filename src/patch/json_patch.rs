//! JSON patch (RFC 6902) as evanphx/json-patch v4 does it: `replace` and `copy` take a missing member for null, indexes
//! may count from the end, and what stands before the first slash of a path is ignored.

use std::borrow::Cow;
use std::sync::LazyLock;

use serde_json::{Map, Value};

use super::print::TRACE;
use crate::codec::{Validation, decode, decode_untyped, json};
use crate::schema::{Field, Name, Schema, Struct, Type, TypeDef, TypeId};
use crate::status::ApiError;

const MAX_OPERATIONS: usize = 10_000;

/// The patch doesn't apply. Clients aren't told why.
pub struct Failed;

type Result<T> = std::result::Result<T, Failed>;

/// Reads a patch and what is unknown or repeated in it.
pub fn read(body: &[u8], validation: Validation) -> std::result::Result<(Vec<Value>, Vec<String>), ApiError> {
    let mut findings = Vec::new();
    if validation != Validation::Ignore {
        let decoded = decode(SCHEMA.0.node(SCHEMA.1), body);
        let decoded = decoded.map_err(|why| ApiError::bad_request(format!("error decoding patch: {why}")))?;
        findings = decoded.findings.into_iter().map(|finding| format!("json patch {finding}")).collect();
    }
    let cannot = |what: &str, ty: &str| {
        ApiError::bad_request(format!("json: cannot unmarshal {what} into Go value of type {ty}"))
    };
    let operations = match decode_untyped(body) {
        Ok(Value::Array(operations)) => operations,
        Ok(Value::Null) => Vec::new(),
        Ok(other) => return Err(cannot(json::kind_of(&other), "jsonpatch.Patch")),
        Err(syntax) => return Err(ApiError::bad_request(syntax.0)),
    };
    if let Some(other) = operations.iter().find(|operation| !operation.is_object() && !operation.is_null()) {
        return Err(cannot(json::kind_of(other), "jsonpatch.Operation"));
    }
    let count = operations.len();
    if count > MAX_OPERATIONS {
        return Err(ApiError::too_large(format!(
            "Request entity too large: The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {count}"
        )));
    }
    Ok((operations, findings))
}

/// The operations as upstream's handler decodes them, for the errors and findings of that.
static SCHEMA: LazyLock<(Schema, TypeId)> = LazyLock::new(|| {
    let mut schema = Schema::default();
    let mut plain = |of, go: &'static str| schema.add_type(TypeDef::new(of, go));
    let (text, any) = (plain(Type::String, "string"), plain(Type::Json, "interface {}"));
    let operation = schema.add_struct(Struct::new("jsonPatchOp"));
    for (name, ty) in [("op", text), ("path", text), ("from", text), ("value", any)] {
        schema.add_field(operation, Field::new(Name::Borrowed(name), ty));
    }
    let operation = schema.add_type(TypeDef::new(Type::Struct(operation), "handlers.jsonPatchOp"));
    let list = schema.add_type(TypeDef::new(Type::List(operation), "[]handlers.jsonPatchOp"));
    schema.finish();
    (schema, list)
});

/// Applies the operations one after the other. With `trace`, every map on the way to a change is marked.
pub fn run(operations: &[Value], object: &mut Value, trace: bool) -> Result<()> {
    if trace && let Value::Object(map) = object {
        map.insert(TRACE.into(), Value::Null);
    }
    operations.iter().try_for_each(|operation| Run { object, trace }.one(operation))
}

struct Run<'o> {
    object: &'o mut Value,
    trace: bool,
}

impl Run<'_> {
    fn one(&mut self, operation: &Value) -> Result<()> {
        let text = |name: &str| operation.get(name).and_then(Value::as_str).ok_or(Failed);
        let value = operation.get("value");
        match text("op")? {
            "add" => self.add(text("path")?, value.cloned().unwrap_or_default()),
            "remove" => {
                let (container, key) = self.find(text("path")?)?;
                remove(container, &key).map(drop)
            }
            "replace" => self.replace(text("path")?, value.cloned().unwrap_or_default()),
            "move" => {
                let (container, key) = self.find(text("from")?)?;
                let value = remove(container, &key)?;
                self.add(text("path")?, value)
            }
            "test" => self.test(text("path")?, value.unwrap_or(&Value::Null)),
            "copy" => {
                let (container, key) = self.find(text("from")?)?;
                let value = get(container, &key)?.cloned().unwrap_or_default();
                self.add(text("path")?, value)
            }
            _ => Err(Failed),
        }
    }

    /// The list or map that a path's last step is in, and that step.
    fn find<'p>(&mut self, path: &'p str) -> Result<(&mut Value, Cow<'p, str>)> {
        let mut steps = path.split('/').skip(1).peekable();
        let mut at = &mut *self.object;
        while let Some(step) = steps.next() {
            let step = unescape(step);
            if steps.peek().is_none() {
                return Ok((at, step));
            }
            at = match at {
                Value::Object(map) => map.get_mut(&*step).ok_or(Failed)?,
                Value::Array(list) => {
                    let index = index(&step, list.len())?;
                    list.get_mut(index).ok_or(Failed)?
                }
                _ => return Err(Failed),
            };
            match at {
                Value::Object(map) if self.trace => drop(map.insert(TRACE.into(), Value::Null)),
                Value::Object(_) | Value::Array(_) => {}
                _ => return Err(Failed),
            }
        }
        Err(Failed)
    }

    fn add(&mut self, path: &str, value: Value) -> Result<()> {
        let (container, key) = self.find(path)?;
        match container {
            Value::Object(map) => drop(map.insert(key.into_owned(), value)),
            Value::Array(list) if key == "-" => list.push(value),
            // The new element may stand behind all others, and a negative index counts it in.
            Value::Array(list) => list.insert(index(&key, list.len() + 1)?, value),
            _ => return Err(Failed),
        }
        Ok(())
    }

    fn replace(&mut self, path: &str, mut value: Value) -> Result<()> {
        if path.is_empty() {
            if let Value::Object(map) = &mut value
                && self.trace
            {
                map.insert(TRACE.into(), Value::Null);
            }
            if !value.is_object() && !value.is_array() {
                return Err(Failed);
            }
            *self.object = value;
            return Ok(());
        }
        let (container, key) = self.find(path)?;
        match container {
            Value::Object(map) => drop(map.insert(key.into_owned(), value)),
            Value::Array(list) => {
                let index = index(&key, list.len())?;
                list[index] = value;
            }
            _ => return Err(Failed),
        }
        Ok(())
    }

    fn test(&mut self, path: &str, expected: &Value) -> Result<()> {
        let equal = if path.is_empty() {
            same(self.object, expected)
        } else {
            let (container, key) = self.find(path)?;
            same(get(container, &key)?.unwrap_or(&Value::Null), expected)
        };
        if equal { Ok(()) } else { Err(Failed) }
    }
}

/// Equality past the marks of a trace.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            let real = |map: &Map<String, Value>| map.keys().filter(|key| *key != TRACE).count();
            let mut within = a.iter().filter(|(key, _)| *key != TRACE);
            real(a) == real(b) && within.all(|(key, value)| b.get(key).is_some_and(|other| same(value, other)))
        }
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        _ => a == b,
    }
}

fn unescape(step: &str) -> Cow<'_, str> {
    if step.contains('~') { Cow::Owned(step.replace("~1", "/").replace("~0", "~")) } else { Cow::Borrowed(step) }
}

/// A member that is missing is null; an element must be there.
fn get<'v>(container: &'v Value, key: &str) -> Result<Option<&'v Value>> {
    match container {
        Value::Object(map) => Ok(map.get(key)),
        Value::Array(list) => Ok(Some(&list[index(key, list.len())?])),
        _ => Err(Failed),
    }
}

fn remove(container: &mut Value, key: &str) -> Result<Value> {
    match container {
        Value::Object(map) => map.remove(key).ok_or(Failed),
        Value::Array(list) => Ok(list.remove(index(key, list.len())?)),
        _ => Err(Failed),
    }
}

/// A place among `len`; a negative one counts from the end.
fn index(text: &str, len: usize) -> Result<usize> {
    let number: i64 = text.parse().map_err(|_| Failed)?;
    let from_start = if number < 0 { number.checked_add_unsigned(len as u64).ok_or(Failed)? } else { number };
    usize::try_from(from_start).ok().filter(|index| *index < len).ok_or(Failed)
}

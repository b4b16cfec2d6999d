//! YAML in and out, with the errors of the YAML package of Go.

use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// What YAML says, and which keys it says twice.
#[derive(Debug, PartialEq)]
pub struct Yaml {
    pub value: Value,
    /// `line 7: key "x" already set in map`.
    pub repeated: Vec<String>,
}

/// Reads the first document. The last of repeated keys counts.
pub fn from_yaml(bytes: &[u8]) -> Result<Yaml, String> {
    let text = super::json::text_of(bytes);
    let (value, keys) = read(&text, None)?;
    // A reader of YAML knows where it is only when it fails: so it is made to fail at each repeated key in turn.
    let line = |(index, key): (usize, &String)| {
        let line = read(&text, Some(index)).err().map_or(0, |failed| failed.1);
        format!("line {line}: key \"{key}\" already set in map")
    };
    let repeated = keys.iter().enumerate().take(MAX_REPEATED).map(line).collect();
    Ok(Yaml { value, repeated })
}

/// At most so many repeated keys are reported.
const MAX_REPEATED: usize = 100;

/// Block style with sorted keys.
pub fn to_yaml(value: &Value) -> Vec<u8> {
    serde_yaml_ng::to_string(value).unwrap_or_default().into_bytes()
}

/// Why a text is no YAML, and the line.
struct Failed(String, usize);

impl From<Failed> for String {
    fn from(failed: Failed) -> String {
        failed.0
    }
}

fn read(text: &str, stop: Option<usize>) -> Result<(Value, Vec<String>), Failed> {
    let mut state = State { repeated: Vec::new(), stop };
    let Some(document) = serde_yaml_ng::Deserializer::from_str(text).next() else {
        return Ok((Value::Null, Vec::new()));
    };
    match (Reader { state: &mut state }).deserialize(document) {
        Ok(value) => Ok((value, state.repeated)),
        Err(error) => Err(Failed(in_go(&error.to_string()), error.location().map_or(0, |at| at.line()))),
    }
}

/// `PROBLEM at line L column C, CONTEXT at line L column C` in Go's form: `yaml: line L: PROBLEM`.
fn in_go(error: &str) -> String {
    let (problem, context) = error.split_once(", while ").unwrap_or((error, ""));
    let line_in = |text: &str| -> usize {
        let (_, at) = text.rsplit_once(" at line ").unwrap_or_default();
        at.split(' ').next().and_then(|line| line.parse().ok()).unwrap_or(1)
    };
    let message = problem.split(" at line ").next().unwrap_or_default();
    let message = message.split(" at position ").next().unwrap_or_default();
    // Lines count from 0 in both; Go takes the context's unless it is 0, and adds one for errors of its scanner.
    let line = match (line_in(context) - 1, line_in(problem) - 1) {
        (0, problem) => problem,
        (context, _) => context,
    };
    let scanner = !message.starts_with("did not find expected");
    match line {
        0 => format!("yaml: {message}"),
        line => format!("yaml: line {}: {message}", line + usize::from(scanner)),
    }
}

struct State {
    repeated: Vec<String>,
    /// The repeated key to fail at.
    stop: Option<usize>,
}

struct Reader<'s> {
    state: &'s mut State,
}

impl<'de> DeserializeSeed<'de> for Reader<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reader<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any YAML")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(super::json::number_of(&value.to_string()).map_or_else(|| value.to_string().into(), Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(value) = seq.next_element_seed(Reader { state: self.state })? {
            list.push(value);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        let mut seen = HashSet::new();
        while let Some(key) = entries.next_key_seed(Key { state: self.state, seen: &mut seen })? {
            let value = entries.next_value_seed(Reader { state: self.state })?;
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

/// A key: whatever it is, it becomes a string.
struct Key<'s> {
    state: &'s mut State,
    seen: &'s mut HashSet<String>,
}

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Key<'_> {
    fn take<E: serde::de::Error>(self, key: String) -> Result<String, E> {
        if !self.seen.insert(key.clone()) {
            if self.state.stop == Some(self.state.repeated.len()) {
                return Err(E::custom("repeated key"));
            }
            self.state.repeated.push(key.clone());
        }
        Ok(key)
    }
}

impl<'de> Visitor<'de> for Key<'_> {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a plain key")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<String, E> {
        self.take("null".into())
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<String, E> {
        self.take(value.to_string())
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<String, E> {
        self.take(value.to_string())
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<String, E> {
        self.take(value.to_string())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<String, E> {
        self.take(value.to_string())
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<String, E> {
        self.take(value.to_owned())
    }

    fn visit_map<A: MapAccess<'de>>(self, _: A) -> Result<String, A::Error> {
        Err(A::Error::custom("unsupported map key of type: map"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<String, A::Error> {
        Err(A::Error::custom("unsupported map key of type: slice"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn yaml_becomes_json() {
        let text = "a: 1\nb: [x, 'y', 1.5, null, true]\n1: {c: d}\nt: &t {e: f}\nu: *t\n";
        let expected =
            json!({"a": 1, "b": ["x", "y", 1.5, null, true], "1": {"c": "d"}, "t": {"e": "f"}, "u": {"e": "f"}});
        assert_eq!(from_yaml(text.as_bytes()), Ok(Yaml { value: expected.clone(), repeated: vec![] }));
        assert_eq!(from_yaml(&to_yaml(&expected)).map(|yaml| yaml.value), Ok(expected));
        assert_eq!(from_yaml(b"").map(|yaml| yaml.value), Ok(Value::Null));
    }

    #[test]
    fn repeated_keys_are_told_with_their_lines() {
        let text = "a:\n  x: 1\n  x: 2\nb: 3\na:\n  y: 1\n";
        let yaml = from_yaml(text.as_bytes()).expect("YAML");
        assert_eq!(yaml.value, json!({"a": {"y": 1}, "b": 3}));
        assert_eq!(yaml.repeated, ["line 3: key \"x\" already set in map", "line 5: key \"a\" already set in map"]);
    }

    #[test]
    fn errors_are_gos() {
        for (text, error) in [
            ("a: b: c", "yaml: mapping values are not allowed in this context"),
            ("{bad json", "yaml: line 1: did not find expected ',' or '}'"),
            ("a: 1\nb: c: d", "yaml: line 2: mapping values are not allowed in this context"),
        ] {
            assert_eq!(from_yaml(text.as_bytes()), Err(error.to_owned()), "{text}");
        }
    }

    #[test]
    fn yaml_out_is_in_block_style() {
        let value = json!({"kind": "Pod", "a": {"list": [{"name": "x", "v": "1"}, "y"], "empty": {}, "none": []}});
        let text = String::from_utf8(to_yaml(&value)).expect("UTF-8");
        assert_eq!(text, "a:\n  empty: {}\n  list:\n  - name: x\n    v: '1'\n  - y\n  none: []\nkind: Pod\n");
    }
}

//! JSON bytes into a canonical object in one pass, by the schema, with the errors and findings of kube-apiserver's decoder.

use std::borrow::Cow;
use std::collections::HashSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Value};

use super::canonical::{complete, says_nothing, zero};
use super::json::{self, Parser, Step, Syntax};
use crate::schema::{Field, Node, Struct, StructId, Type, Unknown};
use crate::{quantity, time};

/// At most so many findings are reported.
const MAX_FINDINGS: usize = 100;

#[derive(Debug, PartialEq)]
pub struct Decoded {
    pub value: Value,
    /// `unknown field "…"` and `duplicate field "…"`, in the order of the text.
    pub findings: Vec<String>,
}

/// Why an object can't be read, in Go's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The text is no JSON.
    #[error("{0}")]
    Syntax(String),
    /// A value is not of its field's type; the first that was met.
    #[error("{0}")]
    Value(String),
}

impl From<Syntax> for Error {
    fn from(syntax: Syntax) -> Error {
        Error::Syntax(syntax.0)
    }
}

/// Reads an object: fields that the schema doesn't know are dropped and reported, null is as if it weren't there.
pub fn decode(node: Node<'_>, bytes: &[u8]) -> Result<Decoded, Error> {
    let text = json::text_of(bytes);
    let mut decoder = Decoder { parser: Parser::new(&text), findings: Vec::new(), error: None, outside: None };
    let value = decoder.value(node, &Path { parent: None, step: Way::Top }, 0)?;
    decoder.parser.end()?;
    match decoder.error {
        Some(error) => Err(Error::Value(error)),
        None => Ok(Decoded { value: value.unwrap_or_else(|| zero(node)), findings: decoder.findings }),
    }
}

/// The way to a value, as a list on the stack: nothing is allocated unless it is told.
struct Path<'p> {
    parent: Option<&'p Path<'p>>,
    step: Way<'p>,
}

enum Way<'p> {
    Top,
    /// A field and the struct that has it.
    Field(&'p Field, &'p Struct),
    Key(&'p str),
    Index(usize),
}

impl<'p> Path<'p> {
    fn then<'q>(&'q self, step: Way<'q>) -> Path<'q>
    where
        'p: 'q,
    {
        Path { parent: Some(self), step }
    }

    fn up(&self) -> impl Iterator<Item = &Way<'_>> {
        let mut next = Some(self);
        std::iter::from_fn(move || {
            let path = next?;
            next = path.parent;
            Some(&path.step)
        })
    }

    /// `spec.containers[0].image`.
    fn strict(&self) -> String {
        let steps: Vec<&Way<'_>> = self.up().collect();
        let mut out = String::new();
        for step in steps.iter().rev() {
            match step {
                Way::Top => {}
                Way::Field(Field { name, .. }, _) => dotted(&mut out, name),
                Way::Key(name) => dotted(&mut out, name),
                Way::Index(index) => out.push_str(&format!("[{index}]")),
            }
        }
        out
    }

    /// `Go struct field PodSpec.spec.containers`, or `Go value` where there is no struct around.
    fn go(&self) -> String {
        let mut names: Vec<&str> = Vec::new();
        let mut owner = "";
        for step in self.up() {
            if let Way::Field(field, entry) = step {
                if names.is_empty() {
                    owner = &entry.name;
                }
                names.push(&field.name);
                if !field.within.is_empty() {
                    names.push(&field.within);
                }
            }
        }
        if names.is_empty() {
            return "Go value".into();
        }
        names.reverse();
        format!("Go struct field {owner}.{}", names.join("."))
    }
}

fn dotted(out: &mut String, name: &str) {
    if !out.is_empty() {
        out.push('.');
    }
    out.push_str(name);
}

/// Which fields of a struct have been seen.
#[derive(Default)]
struct Seen {
    first: u128,
    others: HashSet<usize>,
}

impl Seen {
    /// Whether it is there for the first time.
    fn insert(&mut self, index: usize) -> bool {
        if index < 128 {
            let bit = 1 << index;
            let new = self.first & bit == 0;
            self.first |= bit;
            new
        } else {
            self.others.insert(index)
        }
    }
}

struct Decoder<'t> {
    parser: Parser<'t>,
    findings: Vec<String>,
    error: Option<String>,
    /// Where a type that reads itself stands: Go knows no way within.
    outside: Option<String>,
}

type Read = Result<Option<Value>, Syntax>;

impl<'t> Decoder<'t> {
    fn find(&mut self, what: &str, path: &Path<'_>, name: &str) {
        if self.findings.len() >= MAX_FINDINGS {
            return;
        }
        let mut at = path.strict();
        if !at.is_empty() {
            at.push('.');
        }
        let finding = format!("{what} field \"{at}{name}\"");
        if !self.findings.contains(&finding) {
            self.findings.push(finding);
        }
    }

    fn fail(&mut self, error: impl FnOnce() -> String) {
        if self.error.is_none() {
            self.error = Some(error());
        }
    }

    /// What is next is not of the type that is wanted.
    fn mismatch(&mut self, what: &str, ty: &str, path: &Path<'_>) {
        if self.error.is_none() {
            let place = self.outside.clone().unwrap_or_else(|| path.go());
            self.error = Some(format!("json: cannot unmarshal {what} into {place} of type {ty}"));
        }
    }

    /// Steps over the next value and reports it as one of the wrong type.
    fn wrong(&mut self, ty: &str, path: &Path<'_>, depth: usize) -> Read {
        let what = match self.parser.peek() {
            b'{' => "object",
            b'[' => "array",
            b'"' => "string",
            b't' | b'f' => "bool",
            _ => "number",
        };
        self.parser.skip(depth)?;
        self.mismatch(what, ty, path);
        Ok(None)
    }

    /// None stands for null, and for what was reported as an error.
    fn value(&mut self, node: Node<'_>, path: &Path<'_>, depth: usize) -> Read {
        let next = self.parser.peek();
        if next == b'n' {
            self.parser.literal("null")?;
            return Ok(node.def().nullable.then_some(Value::Null));
        }
        let go = &*node.def().go;
        match (node.ty(), next) {
            (Type::Struct(id), b'{') => self.structure(node, node.struct_at(id), path, depth).map(Some),
            (Type::List(item), b'[') => self.list(node.at(item), path, depth).map(Some),
            (Type::Map(value), b'{') => self.map(node.at(value), path, depth).map(Some),
            (Type::String, b'"') => Ok(Some(Value::String(self.parser.string()?.into_owned()))),
            (Type::Bool, b't') => self.parser.literal("true").map(|()| Some(Value::Bool(true))),
            (Type::Bool, b'f') => self.parser.literal("false").map(|()| Some(Value::Bool(false))),
            (Type::Int32 | Type::Int64, b'-' | b'0'..=b'9') => {
                let text = self.parser.number()?;
                let number = text.parse::<i64>().ok();
                let fits = number.filter(|n| node.ty() == Type::Int64 || i32::try_from(*n).is_ok());
                if fits.is_none() {
                    self.mismatch(&format!("number {text}"), go, path);
                }
                Ok(fits.map(Value::from))
            }
            (Type::Float, b'-' | b'0'..=b'9') => {
                let text = self.parser.number()?;
                let number = json::number_of(text);
                if number.is_none() {
                    self.mismatch(&format!("number {text}"), go, path);
                }
                Ok(number.map(Value::Number))
            }
            (Type::Bytes, b'"') => {
                let text = self.parser.string()?;
                Ok(self.bytes(&text))
            }
            (Type::Bytes, b'[') => self.byte_list(path, depth),
            (Type::Quantity, _) => self.quantity(depth),
            (Type::IntOrString, b'"') => Ok(Some(Value::String(self.parser.string()?.into_owned()))),
            (Type::IntOrString, b'-' | b'0'..=b'9') => {
                let text = self.parser.number()?;
                let number = text.parse::<i32>().ok();
                if number.is_none() {
                    self.mismatch(&format!("number {text}"), "int32", path);
                }
                Ok(number.map(Value::from))
            }
            (Type::IntOrString, _) => self.wrong("int32", path, depth),
            (Type::Time | Type::MicroTime | Type::Duration, b'"') => {
                let text = self.parser.string()?;
                let read = match node.ty() {
                    Type::Time => time::canonical(&text).map(Cow::into_owned),
                    Type::MicroTime => time::canonical_micro(&text).map(Cow::into_owned),
                    _ => time::parse_duration(&text).map(time::print_duration),
                };
                Ok(self.own(read))
            }
            (Type::Time | Type::MicroTime | Type::Duration, _) => self.wrong("string", path, depth),
            (Type::FieldsV1 | Type::RawExtension | Type::Json, _) => self.parser.untyped(depth).map(Some),
            (Type::SchemaOrBool(id), _) => self.schema_or(id, b't', node, path, depth),
            (Type::SchemaOrArray(id) | Type::SchemaOrStrings(id), _) => self.schema_or(id, b'[', node, path, depth),
            (_, b'{' | b'[' | b'"' | b't' | b'f' | b'-' | b'0'..=b'9') => self.wrong(go, path, depth),
            _ => self.parser.no_value(),
        }
    }

    /// A text that a type read by itself.
    fn own(&mut self, read: Result<String, String>) -> Option<Value> {
        match read {
            Ok(text) => Some(Value::String(text)),
            Err(error) => {
                self.fail(|| error);
                None
            }
        }
    }

    fn structure(&mut self, node: Node<'_>, entry: &Struct, path: &Path<'_>, depth: usize) -> Result<Value, Syntax> {
        let depth = self.parser.deeper(depth)?;
        let mut map = Map::new();
        let mut seen = Seen::default();
        let mut first = true;
        while let Step::Item(key) = self.parser.key(first)? {
            first = false;
            let Some(index) = entry.index_of(&key) else {
                self.unknown(node, entry, &key, &mut map, path, depth)?;
                continue;
            };
            let field = &entry.fields()[index];
            let again = !seen.insert(index);
            if again {
                self.find("duplicate", path, &key);
            }
            let inner = node.of_field(field);
            let value = self.value(inner, &path.then(Way::Field(field, entry)), depth)?;
            match value {
                Some(value) if again => match (map.get_mut(&*key), value) {
                    // Go reads the second over the first.
                    (Some(Value::Object(old)), Value::Object(new)) => old.extend(new),
                    (_, value) => drop(map.insert(key.into_owned(), value)),
                },
                Some(value) if !says_nothing(field, inner, &value) => drop(map.insert(key.into_owned(), value)),
                _ => {}
            }
        }
        complete(node, entry, &mut map);
        Ok(Value::Object(map))
    }

    fn unknown(
        &mut self,
        node: Node<'_>,
        entry: &Struct,
        key: &str,
        map: &mut Map<String, Value>,
        path: &Path<'_>,
        depth: usize,
    ) -> Result<(), Syntax> {
        match entry.unknown {
            Unknown::Drop => {
                self.find("unknown", path, key);
                self.parser.skip(depth)?;
            }
            Unknown::Keep => {
                let value = self.parser.untyped(depth)?;
                if map.insert(key.to_owned(), value).is_some() {
                    self.find("duplicate", path, key);
                }
            }
            Unknown::As(ty) => {
                let inner = node.at(ty);
                let value = self.value(inner, &path.then(Way::Key(key)), depth)?;
                if map.insert(key.to_owned(), value.unwrap_or_else(|| zero(inner))).is_some() {
                    self.find("duplicate", path, key);
                }
            }
        }
        Ok(())
    }

    fn list(&mut self, item: Node<'_>, path: &Path<'_>, depth: usize) -> Result<Value, Syntax> {
        let depth = self.parser.deeper(depth)?;
        let mut list = Vec::new();
        while let Step::Item(()) = self.parser.element(list.is_empty())? {
            let value = self.value(item, &path.then(Way::Index(list.len())), depth)?;
            list.push(value.unwrap_or_else(|| zero(item)));
        }
        Ok(Value::Array(list))
    }

    fn map(&mut self, item: Node<'_>, path: &Path<'_>, depth: usize) -> Result<Value, Syntax> {
        let depth = self.parser.deeper(depth)?;
        let mut map = Map::new();
        let mut first = true;
        while let Step::Item(key) = self.parser.key(first)? {
            first = false;
            let value = self.value(item, &path.then(Way::Key(&key)), depth)?.unwrap_or_else(|| zero(item));
            if map.contains_key(&*key) {
                self.find("duplicate", path, &key);
            }
            map.insert(key.into_owned(), value);
        }
        Ok(Value::Object(map))
    }

    fn quantity(&mut self, depth: usize) -> Read {
        let read = if self.parser.peek() == b'"' {
            let text = self.parser.string()?;
            quantity::canonical(text.trim()).map(Cow::into_owned)
        } else {
            quantity::canonical(self.parser.skip(depth)?).map(Cow::into_owned)
        };
        Ok(self.own(read.map_err(|error| error.to_string())))
    }

    /// Base64 with line breaks ignored, as Go reads it.
    fn bytes(&mut self, text: &str) -> Option<Value> {
        if BASE64.decode(text).is_ok() {
            return Some(Value::String(text.to_owned()));
        }
        let joined: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
        if BASE64.decode(&joined).is_ok() {
            return Some(Value::String(joined));
        }
        self.fail(|| format!("illegal base64 data at input byte {}", illegal_base64(text.as_bytes())));
        None
    }

    /// Go reads a list of small numbers as bytes, too.
    fn byte_list(&mut self, path: &Path<'_>, depth: usize) -> Read {
        let mut bytes = Vec::new();
        let mut first = true;
        while let Step::Item(()) = self.parser.element(first)? {
            first = false;
            match self.parser.peek() {
                b'-' | b'0'..=b'9' => {
                    let text = self.parser.number()?;
                    match text.parse::<u8>() {
                        Ok(byte) => bytes.push(byte),
                        Err(_) => self.mismatch(&format!("number {text}"), "uint8", path),
                    }
                }
                _ => drop(self.wrong("uint8", path, depth)?),
            }
        }
        Ok(Some(Value::String(BASE64.encode(bytes))))
    }

    /// A JSON schema, or what may stand in its place: a bool, or a list of schemas or strings. These types read
    /// themselves, and nothing is found within.
    fn schema_or(&mut self, id: StructId, other: u8, node: Node<'_>, path: &Path<'_>, depth: usize) -> Read {
        let findings = self.findings.len();
        let outermost = self.outside.is_none();
        if outermost {
            self.outside = Some(path.go());
        }
        let read = self.schema_within(id, other, node, path, depth);
        if outermost {
            self.outside = None;
        }
        self.findings.truncate(findings);
        read
    }

    fn schema_within(&mut self, id: StructId, other: u8, node: Node<'_>, path: &Path<'_>, depth: usize) -> Read {
        let entry = node.struct_at(id);
        match self.parser.peek() {
            b'{' => self.structure(node, entry, path, depth).map(Some),
            b't' if other == b't' => self.parser.literal("true").map(|()| Some(Value::Bool(true))),
            b'f' if other == b't' => self.parser.literal("false").map(|()| Some(Value::Bool(false))),
            b'[' if other == b'[' => {
                let depth = self.parser.deeper(depth)?;
                let mut list = Vec::new();
                while let Step::Item(()) = self.parser.element(list.is_empty())? {
                    let value = match (node.ty(), self.parser.peek()) {
                        (Type::SchemaOrArray(_), b'{') => self.structure(node, entry, path, depth)?,
                        (Type::SchemaOrArray(_), _) => {
                            self.wrong("v1.JSONSchemaProps", path, depth)?.unwrap_or_default()
                        }
                        (_, b'"') => Value::String(self.parser.string()?.into_owned()),
                        _ => self.wrong("string", path, depth)?.unwrap_or_default(),
                    };
                    list.push(value);
                }
                Ok(Some(Value::Array(list)))
            }
            _ => {
                self.parser.skip(depth)?;
                if other == b't' {
                    self.fail(|| "boolean or JSON schema expected".to_owned());
                }
                Ok(None)
            }
        }
    }
}

/// Where Go's decoder of padded base64 stops.
fn illegal_base64(text: &[u8]) -> usize {
    let mut quantum = 0;
    let mut at = 0;
    let line_break = |b: &u8| matches!(b, b'\r' | b'\n');
    while at < text.len() {
        match text[at] {
            b'\r' | b'\n' => {}
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'+' | b'/' => quantum = (quantum + 1) % 4,
            b'=' if quantum == 2 || quantum == 3 => {
                let mut next = at + 1;
                if quantum == 2 {
                    next += text[next..].iter().take_while(|b| line_break(b)).count();
                    match text.get(next) {
                        None => return text.len(),
                        Some(b'=') => next += 1,
                        Some(_) => return next,
                    }
                }
                next += text[next..].iter().take_while(|b| line_break(b)).count();
                return next;
            }
            _ => return at,
        }
        at += 1;
    }
    // The end came within a group: Go tells where that group began.
    text.len() - quantum
}

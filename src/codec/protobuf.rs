//! Objects as Kubernetes' protobuf, by the numbers in the schema table.
//!
//! On the wire stand the Go structs: what isn't a pointer is written even when it is zero, embedded structs are messages
//! of their own, and the types that read themselves in JSON are small messages. A body is `k8s\0` and a
//! `runtime.Unknown`, which names the kind.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Value};

use super::canonical::{complete, left_out};
use super::json::MAX_DEPTH;
use crate::schema::{Field, Node, Struct, StructId, Type};
use crate::{quantity, time};

const PREFIX: &[u8] = b"k8s\0";

/// Wire types.
const VARINT: u8 = 0;
const FIXED64: u8 = 1;
const BYTES: u8 = 2;
const FIXED32: u8 = 5;

/// Why bytes are no message, in the words of Go's decoder where it has some.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("empty data")]
    Empty,
    #[error("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")]
    Prefix,
    #[error("empty body")]
    EmptyBody,
    #[error("unexpected EOF")]
    End,
    #[error("proto: illegal wireType {0}")]
    WireType(u8),
    #[error("proto: wrong wireType = {0} for field {1}")]
    Wrong(u8, String),
    #[error("proto: integer overflow")]
    Overflow,
    #[error("exceeded max depth")]
    Depth,
    #[error("{0}")]
    Value(String),
}

/// `runtime.Unknown`.
#[derive(Debug, Default, PartialEq)]
pub struct Envelope {
    pub api_version: String,
    pub kind: String,
    pub raw: Vec<u8>,
}

/// Reads the envelope of a body.
pub fn unwrap(body: &[u8]) -> Result<Envelope, Error> {
    if body.is_empty() {
        return Err(Error::Empty);
    }
    let message = body.strip_prefix(PREFIX).ok_or(Error::Prefix)?;
    if message.is_empty() {
        return Err(Error::EmptyBody);
    }
    let mut envelope = Envelope::default();
    let mut reader = Reader(message);
    while let Some((number, item)) = reader.next()? {
        match (number, item) {
            (1, Item::Bytes(meta)) => {
                let mut meta = Reader(meta);
                while let Some((number, item)) = meta.next()? {
                    match (number, item) {
                        (1, Item::Bytes(text)) => envelope.api_version = String::from_utf8_lossy(text).into_owned(),
                        (2, Item::Bytes(text)) => envelope.kind = String::from_utf8_lossy(text).into_owned(),
                        _ => {}
                    }
                }
            }
            (2, Item::Bytes(raw)) => envelope.raw = raw.to_vec(),
            _ => {}
        }
    }
    Ok(envelope)
}

/// A body: the object in its envelope, which takes `apiVersion` and `kind`.
pub fn to_body(node: Node<'_>, object: &Value) -> Vec<u8> {
    let text = |name: &str| object.get(name).and_then(Value::as_str).unwrap_or_default().as_bytes();
    let mut meta = Vec::new();
    write_bytes(&mut meta, 1, text("apiVersion"));
    write_bytes(&mut meta, 2, text("kind"));
    let mut out = PREFIX.to_vec();
    write_bytes(&mut out, 1, &meta);
    write_bytes(&mut out, 2, &encode(node, object));
    write_bytes(&mut out, 3, b"");
    write_bytes(&mut out, 4, b"");
    out
}

/// Reads a message into a canonical object; of what the schema doesn't know nothing is kept.
pub fn decode(node: Node<'_>, bytes: &[u8]) -> Result<Value, Error> {
    message(node, bytes, 0)
}

/// A canonical object as a message.
pub fn encode(node: Node<'_>, object: &Value) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024);
    write_message(&mut out, node, object);
    out
}

enum Item<'b> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'b [u8]),
    Fixed32,
}

impl Item<'_> {
    fn wire_type(&self) -> u8 {
        match self {
            Item::Varint(_) => VARINT,
            Item::Fixed64(_) => FIXED64,
            Item::Bytes(_) => BYTES,
            Item::Fixed32 => FIXED32,
        }
    }
}

struct Reader<'b>(&'b [u8]);

impl<'b> Reader<'b> {
    fn varint(&mut self) -> Result<u64, Error> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first().ok_or(Error::End)?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Error::Overflow)
    }

    fn take(&mut self, count: u64) -> Result<&'b [u8], Error> {
        let count = usize::try_from(count).map_err(|_| Error::End)?;
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Error::End)?;
        self.0 = rest;
        Ok(taken)
    }

    fn next(&mut self) -> Result<Option<(u32, Item<'b>)>, Error> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).map_err(|_| Error::Overflow)?;
        let item = match (tag & 7) as u8 {
            VARINT => Item::Varint(self.varint()?),
            FIXED64 => {
                let bytes = self.take(8)?;
                Item::Fixed64(bytes.iter().rev().fold(0, |n, byte| n << 8 | u64::from(*byte)))
            }
            BYTES => {
                let length = self.varint()?;
                Item::Bytes(self.take(length)?)
            }
            FIXED32 => self.take(4).map(|_| Item::Fixed32)?,
            other => return Err(Error::WireType(other)),
        };
        Ok(Some((number, item)))
    }

    /// All items with a number.
    fn all(bytes: &'b [u8]) -> Result<Vec<(u32, Item<'b>)>, Error> {
        let mut reader = Reader(bytes);
        std::iter::from_fn(|| reader.next().transpose()).collect()
    }
}

fn message(node: Node<'_>, bytes: &[u8], depth: usize) -> Result<Value, Error> {
    let Type::Struct(id) = node.ty() else { return Err(Error::Value("not a message".into())) };
    structure(node, id, bytes, depth)
}

fn structure(node: Node<'_>, id: StructId, bytes: &[u8], depth: usize) -> Result<Value, Error> {
    let entry = node.struct_at(id);
    let mut map = Map::new();
    fields(node, entry, 0, bytes, &mut map, depth + 1)?;
    map.retain(|name, value| entry.field(name).is_some_and(|field| !left_out(field, node.of_field(field), value)));
    complete(node, entry, &mut map);
    Ok(Value::Object(map))
}

fn fields(
    node: Node<'_>,
    entry: &Struct,
    embedded: u32,
    bytes: &[u8],
    map: &mut Map<String, Value>,
    depth: usize,
) -> Result<(), Error> {
    if depth > MAX_DEPTH {
        return Err(Error::Depth);
    }
    let mut reader = Reader(bytes);
    while let Some((number, item)) = reader.next()? {
        if let Item::Bytes(inner) = item
            && number < 256
            && entry.embeds.contains(&Field::nested(embedded, number))
        {
            fields(node, entry, Field::nested(embedded, number), inner, map, depth + 1)?;
            continue;
        }
        let at = entry.fields().iter().find(|field| field.number == number && field.embedded == embedded);
        let Some(field) = at.filter(|_| number != 0) else { continue };
        let inner = node.of_field(field);
        match inner.ty() {
            Type::List(of) if !inner.def().message => {
                let list = map.entry(&*field.name).or_insert_with(|| Value::Array(Vec::new()));
                let of = inner.at(of);
                if let Value::Array(list) = list {
                    match (of.ty(), item) {
                        // Numbers may come packed.
                        (Type::Int32 | Type::Int64 | Type::Bool, Item::Bytes(packed)) => {
                            let mut packed = Reader(packed);
                            while !packed.0.is_empty() {
                                list.push(value(of, Item::Varint(packed.varint()?), field, depth)?);
                            }
                        }
                        (_, item) => list.push(value(of, item, field, depth)?),
                    }
                }
            }
            Type::Map(of) => {
                let Item::Bytes(pair) = item else { return Err(wrong(&item, field)) };
                let of = inner.at(of);
                let (mut key, mut content) = (String::new(), None);
                for (number, item) in Reader::all(pair)? {
                    match (number, item) {
                        (1, Item::Bytes(text)) => key = String::from_utf8_lossy(text).into_owned(),
                        (2, item) => content = Some(value(of, item, field, depth)?),
                        _ => {}
                    }
                }
                let content = content.unwrap_or_else(|| empty(of));
                if let Value::Object(pairs) = map.entry(&*field.name).or_insert_with(|| Value::Object(Map::new())) {
                    pairs.insert(key, content);
                }
            }
            _ => {
                let value = value(inner, item, field, depth)?;
                map.insert(field.name.to_string(), value);
            }
        }
    }
    Ok(())
}

/// The value of a map's pair that has none.
fn empty(node: Node<'_>) -> Value {
    match node.ty() {
        Type::Bytes => Value::String(String::new()),
        _ => super::canonical::zero(node),
    }
}

fn wrong(item: &Item<'_>, field: &Field) -> Error {
    Error::Wrong(item.wire_type(), field.go_name())
}

fn value(node: Node<'_>, item: Item<'_>, field: &Field, depth: usize) -> Result<Value, Error> {
    match (node.ty(), item) {
        (Type::Int32, Item::Varint(n)) => Ok((n as i32).into()),
        (Type::Int64, Item::Varint(n)) => Ok((n as i64).into()),
        (Type::Bool, Item::Varint(n)) => Ok((n != 0).into()),
        (Type::Float, Item::Fixed64(bits)) => {
            let float = f64::from_bits(bits);
            let number = super::json::number_of(&float.to_string());
            number.map(Value::Number).ok_or_else(|| Error::Value(format!("json: unsupported value: {float}")))
        }
        (Type::String, Item::Bytes(text)) => Ok(String::from_utf8_lossy(text).into()),
        (Type::Bytes, Item::Bytes(bytes)) => Ok(BASE64.encode(bytes).into()),
        (Type::Struct(id), Item::Bytes(bytes)) => structure(node, id, bytes, depth),
        (Type::List(of), Item::Bytes(bytes)) => {
            let of = node.at(of);
            let items = Reader::all(bytes)?.into_iter().filter(|(number, _)| *number == 1);
            items.map(|(_, item)| value(of, item, field, depth)).collect()
        }
        (ty, Item::Bytes(bytes)) => itself(node, ty, Reader::all(bytes)?, depth),
        (_, item) => Err(wrong(&item, field)),
    }
}

/// The messages of the types that read themselves in JSON.
fn itself(node: Node<'_>, ty: Type, items: Vec<(u32, Item<'_>)>, depth: usize) -> Result<Value, Error> {
    let varint = |wanted: u32| {
        items.iter().find_map(|(number, item)| match item {
            Item::Varint(n) if *number == wanted => Some(*n as i64),
            _ => None,
        })
    };
    let bytes = |wanted: u32| {
        items.iter().find_map(|(number, item)| match item {
            Item::Bytes(bytes) if *number == wanted => Some(*bytes),
            _ => None,
        })
    };
    let each = |wanted: u32| {
        items.iter().filter_map(move |(number, item)| match item {
            Item::Bytes(bytes) if *number == wanted => Some(*bytes),
            _ => None,
        })
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(match ty {
        Type::Quantity => {
            let text = text(bytes(1).unwrap_or_default());
            let printed = quantity::canonical(&text).map_err(|error| Error::Value(error.to_string()))?;
            Value::String(printed.into_owned())
        }
        Type::IntOrString if varint(1) == Some(1) => text(bytes(3).unwrap_or_default()).into(),
        Type::IntOrString => (varint(2).unwrap_or_default() as i32).into(),
        Type::Time | Type::MicroTime if items.is_empty() => Value::Null,
        Type::Time | Type::MicroTime => {
            let nanos = varint(2).unwrap_or_default().clamp(0, 999_999_999);
            // Within the years that can be printed.
            let seconds = varint(1).unwrap_or_default().clamp(-62_135_596_800, 253_402_300_799);
            let time = time::Time { seconds, micros: (nanos / 1000) as u32 };
            Value::String(if ty == Type::Time { time.to_string() } else { time.to_micro_string() })
        }
        Type::Duration => time::print_duration(varint(1).unwrap_or_default()).into(),
        Type::FieldsV1 | Type::RawExtension | Type::Json => match bytes(1) {
            Some(raw) if !raw.is_empty() => raw_json(raw)?,
            _ => Value::Null,
        },
        Type::SchemaOrBool(id) => match bytes(2) {
            Some(schema) => structure(node, id, schema, depth)?,
            None => (varint(1) == Some(1)).into(),
        },
        Type::SchemaOrArray(id) => match bytes(1) {
            Some(schema) => structure(node, id, schema, depth)?,
            None => each(2).map(|schema| structure(node, id, schema, depth)).collect::<Result<Value, Error>>()?,
        },
        Type::SchemaOrStrings(id) => match bytes(1) {
            Some(schema) => structure(node, id, schema, depth)?,
            None => each(2).map(text).collect(),
        },
        _ => return Err(Error::Value("not a message".into())),
    })
}

/// What a RawExtension holds: JSON, or a protobuf body of a kind that is known.
fn raw_json(raw: &[u8]) -> Result<Value, Error> {
    if !raw.starts_with(PREFIX) {
        return super::decode_untyped(raw).map_err(|error| Error::Value(error.0));
    }
    let envelope = unwrap(raw)?;
    let (group, version) = envelope.api_version.rsplit_once('/').unwrap_or(("", &envelope.api_version));
    let node = crate::schema::builtin().kind(group, version, &envelope.kind);
    let node = node.ok_or_else(|| Error::Value(format!("no kind {:?} is registered", envelope.kind)))?;
    let mut object = message(node, &envelope.raw, 0)?;
    object["apiVersion"] = envelope.api_version.as_str().into();
    object["kind"] = envelope.kind.into();
    Ok(object)
}

fn write_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn write_tag(out: &mut Vec<u8>, number: u32, wire_type: u8) {
    write_varint(out, u64::from(number) << 3 | u64::from(wire_type));
}

pub fn write_number(out: &mut Vec<u8>, number: u32, value: i64) {
    write_tag(out, number, VARINT);
    write_varint(out, value as u64);
}

pub fn write_bytes(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    write_tag(out, number, BYTES);
    write_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

pub fn write_nested(out: &mut Vec<u8>, number: u32, write: impl FnOnce(&mut Vec<u8>)) {
    let mut inner = Vec::new();
    write(&mut inner);
    write_bytes(out, number, &inner);
}

fn write_message(out: &mut Vec<u8>, node: Node<'_>, value: &Value) {
    if let Some(entry) = node.as_struct() {
        write_fields(out, node, entry, 0, value);
    }
}

/// In the order of the numbers, as Go writes them.
fn write_fields(out: &mut Vec<u8>, node: Node<'_>, entry: &Struct, embedded: u32, value: &Value) {
    let here = entry.fields().iter().filter(|field| field.embedded == embedded && field.number != 0);
    let mut order: Vec<(u32, Option<&Field>)> = here.map(|field| (field.number, Some(field))).collect();
    order.extend(entry.embeds.iter().filter(|inner| **inner >> 8 == embedded).map(|inner| (inner & 0xff, None)));
    order.sort_by_key(|(number, _)| *number);
    for (number, field) in order {
        match field {
            Some(field) => write_field(out, node.of_field(field), field, value.get(&*field.name)),
            None => {
                write_nested(out, number, |out| write_fields(out, node, entry, Field::nested(embedded, number), value))
            }
        }
    }
}

fn write_field(out: &mut Vec<u8>, node: Node<'_>, field: &Field, value: Option<&Value>) {
    let value = value.filter(|value| !value.is_null());
    match (node.ty(), value) {
        (Type::List(of), Some(Value::Array(list))) if !node.def().message => {
            let of = node.at(of);
            list.iter().for_each(|value| write_value(out, of, field.number, value));
        }
        (Type::Map(of), Some(Value::Object(map))) => {
            let of = node.at(of);
            let mut pairs: Vec<_> = map.iter().collect();
            pairs.sort_by_key(|(key, _)| *key);
            for (key, value) in pairs {
                write_nested(out, field.number, |out| {
                    write_bytes(out, 1, key.as_bytes());
                    write_value(out, of, 2, value);
                });
            }
        }
        (Type::List(_) | Type::Map(_) | Type::Bytes, None) => {}
        (_, Some(value)) => write_value(out, node, field.number, value),
        (_, None) if field.pointer => {}
        (_, None) => write_value(out, node, field.number, &super::canonical::zero(node)),
    }
}

fn write_value(out: &mut Vec<u8>, node: Node<'_>, number: u32, value: &Value) {
    let text = value.as_str().unwrap_or_default();
    match node.ty() {
        Type::Int32 | Type::Int64 => write_number(out, number, value.as_i64().unwrap_or_default()),
        Type::Bool => write_number(out, number, i64::from(value.as_bool().unwrap_or_default())),
        Type::Float => {
            write_tag(out, number, FIXED64);
            out.extend_from_slice(&value.as_f64().unwrap_or_default().to_le_bytes());
        }
        Type::String => write_bytes(out, number, text.as_bytes()),
        Type::Bytes => write_bytes(out, number, &BASE64.decode(text).unwrap_or_default()),
        Type::Struct(_) => write_nested(out, number, |out| write_message(out, node, value)),
        Type::List(of) => write_nested(out, number, |out| {
            let of = node.at(of);
            value.as_array().into_iter().flatten().for_each(|value| write_value(out, of, 1, value));
        }),
        Type::Map(_) => {}
        ty => write_nested(out, number, |out| write_itself(out, node, ty, value)),
    }
}

fn write_itself(out: &mut Vec<u8>, node: Node<'_>, ty: Type, value: &Value) {
    let text = value.as_str().unwrap_or_default();
    let mut schema = |number: u32, id: StructId, value: &Value| {
        write_nested(out, number, |out| write_fields(out, node, node.struct_at(id), 0, value));
    };
    match (ty, value) {
        (Type::SchemaOrBool(id), Value::Object(_)) => {
            // Beside a schema upstream sets the bool, too.
            write_number(out, 1, 1);
            write_nested(out, 2, |out| write_fields(out, node, node.struct_at(id), 0, value));
        }
        (Type::SchemaOrBool(_), _) => write_number(out, 1, i64::from(value.as_bool().unwrap_or_default())),
        (Type::SchemaOrArray(id) | Type::SchemaOrStrings(id), Value::Object(_)) => schema(1, id, value),
        (Type::SchemaOrArray(id), Value::Array(list)) => list.iter().for_each(|value| schema(2, id, value)),
        (Type::SchemaOrStrings(_), Value::Array(list)) => {
            list.iter().for_each(|value| write_bytes(out, 2, value.as_str().unwrap_or_default().as_bytes()));
        }
        (Type::Quantity, _) => write_bytes(out, 1, text.as_bytes()),
        (Type::IntOrString, Value::String(text)) => {
            write_number(out, 1, 1);
            write_number(out, 2, 0);
            write_bytes(out, 3, text.as_bytes());
        }
        (Type::IntOrString, _) => {
            write_number(out, 1, 0);
            write_number(out, 2, value.as_i64().unwrap_or_default());
            write_bytes(out, 3, b"");
        }
        (Type::Time | Type::MicroTime, Value::String(text)) => {
            let read = if ty == Type::Time { time::parse(text) } else { time::parse_micro(text) };
            if let Ok(time) = read {
                write_number(out, 1, time.seconds);
                write_number(out, 2, i64::from(time.micros) * 1000);
            }
        }
        (Type::Duration, _) => write_number(out, 1, time::parse_duration(text).unwrap_or_default()),
        (Type::FieldsV1 | Type::RawExtension | Type::Json, value) if !value.is_null() => {
            write_bytes(out, 1, value.to_string().as_bytes());
        }
        _ => {}
    }
}

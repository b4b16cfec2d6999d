//! OpenAPI version 2 as protobuf, which older clients and Go's discovery client ask for: what Kubernetes' document uses
//! of gnostic's `OpenAPIv2.proto`, as a table, and functions that write a message by it.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::codec::protobuf::{write_bytes, write_nested, write_number};
use crate::codec::yaml::to_yaml;

struct Message {
    fields: &'static [Field],
    /// The number of what begins with `x-`.
    extensions: u32,
}

/// A field by its name in JSON. Where it is wrapped in messages of its own, the numbers lead through them.
struct Field(&'static str, &'static [u32], Form);

enum Form {
    Text,
    Flag,
    Integer,
    /// Any value, as YAML.
    Any,
    Texts,
    Message(&'static Message),
    /// A map: messages with the name, and the value at these numbers.
    Named(&'static [u32], &'static Form),
    SchemaOrFlag,
    Parameter,
}

use Form::{Any, Flag, Integer, Named, Parameter, SchemaOrFlag, Text, Texts};

static HEAD: Message = Message {
    fields: &[
        Field("swagger", &[1], Text),
        Field("info", &[2], Form::Message(&INFO)),
        Field("security", &[12], Named(&[2], &Texts)),
        Field("securityDefinitions", &[13], Named(&[2, 2], &Form::Message(&API_KEY))),
    ],
    extensions: 16,
};
static INFO: Message = Message { fields: &[Field("title", &[1], Text), Field("version", &[2], Text)], extensions: 7 };
static API_KEY: Message = Message {
    fields: &[
        Field("type", &[1], Text),
        Field("name", &[2], Text),
        Field("in", &[3], Text),
        Field("description", &[4], Text),
    ],
    extensions: 5,
};
static PATH_ITEM: Message = Message {
    fields: &[
        Field("get", &[2], Form::Message(&OPERATION)),
        Field("put", &[3], Form::Message(&OPERATION)),
        Field("post", &[4], Form::Message(&OPERATION)),
        Field("delete", &[5], Form::Message(&OPERATION)),
        Field("options", &[6], Form::Message(&OPERATION)),
        Field("head", &[7], Form::Message(&OPERATION)),
        Field("patch", &[8], Form::Message(&OPERATION)),
        Field("parameters", &[9], Parameter),
    ],
    extensions: 10,
};
static OPERATION: Message = Message {
    fields: &[
        Field("tags", &[1], Text),
        Field("summary", &[2], Text),
        Field("description", &[3], Text),
        Field("operationId", &[5], Text),
        Field("produces", &[6], Text),
        Field("consumes", &[7], Text),
        Field("parameters", &[8], Parameter),
        Field("responses", &[9], Named(&[2, 1], &Form::Message(&RESPONSE))),
        Field("schemes", &[10], Text),
        Field("deprecated", &[11], Flag),
    ],
    extensions: 13,
};
static RESPONSE: Message = Message {
    fields: &[Field("description", &[1], Text), Field("schema", &[2, 1], Form::Message(&SCHEMA))],
    extensions: 5,
};
static BODY_PARAMETER: Message = Message {
    fields: &[
        Field("description", &[1], Text),
        Field("name", &[2], Text),
        Field("in", &[3], Text),
        Field("required", &[4], Flag),
        Field("schema", &[5], Form::Message(&SCHEMA)),
    ],
    extensions: 6,
};
static QUERY_PARAMETER: Message = Message {
    fields: &[
        Field("required", &[1], Flag),
        Field("in", &[2], Text),
        Field("description", &[3], Text),
        Field("name", &[4], Text),
        Field("type", &[6], Text),
        Field("format", &[7], Text),
        Field("uniqueItems", &[20], Flag),
    ],
    extensions: 23,
};
static PATH_PARAMETER: Message = Message {
    fields: &[
        Field("required", &[1], Flag),
        Field("in", &[2], Text),
        Field("description", &[3], Text),
        Field("name", &[4], Text),
        Field("type", &[5], Text),
        Field("format", &[6], Text),
        Field("uniqueItems", &[19], Flag),
    ],
    extensions: 22,
};
static SCHEMA: Message = Message {
    fields: &[
        Field("$ref", &[1], Text),
        Field("format", &[2], Text),
        Field("title", &[3], Text),
        Field("description", &[4], Text),
        Field("default", &[5], Any),
        Field("maxLength", &[11], Integer),
        Field("minLength", &[12], Integer),
        Field("pattern", &[13], Text),
        Field("maxItems", &[14], Integer),
        Field("minItems", &[15], Integer),
        Field("uniqueItems", &[16], Flag),
        Field("maxProperties", &[17], Integer),
        Field("minProperties", &[18], Integer),
        Field("required", &[19], Text),
        Field("enum", &[20], Any),
        Field("additionalProperties", &[21], SchemaOrFlag),
        Field("type", &[22, 1], Text),
        Field("items", &[23, 1], Form::Message(&SCHEMA)),
        Field("properties", &[25], Named(&[2], &Form::Message(&SCHEMA))),
    ],
    extensions: 31,
};

/// The document, out of its parts as text: as values, all of them together would take much more memory.
pub(super) fn document(
    head: &Value,
    paths: &BTreeMap<String, String>,
    definitions: &BTreeMap<String, String>,
) -> Vec<u8> {
    let mut out = Vec::new();
    write_message(&mut out, &HEAD, head);
    for (number, list, parts, of) in [(8, 2, paths, &PATH_ITEM), (9, 1, definitions, &SCHEMA)] {
        write_nested(&mut out, number, |out| {
            for (name, text) in parts {
                let part = serde_json::from_str(text).unwrap_or_default();
                write_named(out, list, name, &[2], &Form::Message(of), &part);
            }
        });
    }
    out
}

fn write_message(out: &mut Vec<u8>, message: &Message, value: &Value) {
    for Field(name, way, form) in message.fields {
        match value.get(name) {
            None => {}
            Some(Value::Array(list)) if !matches!(form, Texts) => {
                list.iter().for_each(|value| write(out, way, form, value));
            }
            Some(value) => write(out, way, form, value),
        }
    }
    for (name, value) in value.as_object().into_iter().flatten().filter(|(name, _)| name.starts_with("x-")) {
        write_named(out, message.extensions, name, &[2], &Any, value);
    }
}

fn write_named(out: &mut Vec<u8>, number: u32, name: &str, way: &[u32], form: &Form, value: &Value) {
    write_nested(out, number, |out| {
        write_bytes(out, 1, name.as_bytes());
        write(out, way, form, value);
    });
}

fn write(out: &mut Vec<u8>, way: &[u32], form: &Form, value: &Value) {
    let number = match way {
        [] => return,
        [number] => *number,
        [wrapper, inner @ ..] => return write_nested(out, *wrapper, |out| write(out, inner, form, value)),
    };
    match form {
        Text => write_bytes(out, number, value.as_str().unwrap_or_default().as_bytes()),
        Flag => write_number(out, number, i64::from(value.as_bool().unwrap_or_default())),
        Integer => write_number(out, number, value.as_i64().unwrap_or_default()),
        Any => write_nested(out, number, |out| write_bytes(out, 2, &to_yaml(value))),
        Texts => write_nested(out, number, |out| {
            value.as_array().into_iter().flatten().for_each(|text| write(out, &[1], &Text, text));
        }),
        Form::Message(message) => write_nested(out, number, |out| write_message(out, message, value)),
        Named(way, form) => write_nested(out, number, |out| {
            for (name, value) in value.as_object().into_iter().flatten() {
                write_named(out, 1, name, way, form, value);
            }
        }),
        SchemaOrFlag => match value {
            Value::Bool(_) => write(out, &[number, 2], &Flag, value),
            _ => write(out, &[number, 1], &Form::Message(&SCHEMA), value),
        },
        Parameter => match value["in"].as_str() {
            Some("body") => write(out, &[number, 1, 1], &Form::Message(&BODY_PARAMETER), value),
            Some("path") => write(out, &[number, 1, 2, 4], &Form::Message(&PATH_PARAMETER), value),
            _ => write(out, &[number, 1, 2, 3], &Form::Message(&QUERY_PARAMETER), value),
        },
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Written by hand by the numbers in gnostic's file.
    #[test]
    fn a_schema_is_wrapped_as_gnostic_has_it() {
        let schema = json!({
            "type": "object",
            "required": ["a"],
            "properties": {"a": {"items": {"$ref": "#/d"}, "type": "array"}},
            "additionalProperties": true,
            "x-kubernetes-map-type": "atomic",
        });
        let mut out = Vec::new();
        write_message(&mut out, &SCHEMA, &schema);
        let expected: &[&[u8]] = &[
            b"\x9a\x01\x01a",
            b"\xaa\x01\x02\x10\x01",
            b"\xb2\x01\x08\x0a\x06object",
            b"\xca\x01\x1b\x0a\x19\x0a\x01a\x12\x14\xb2\x01\x07\x0a\x05array\xba\x01\x07\x0a\x05\x0a\x03#/d",
            b"\xfa\x01\x22\x0a\x15x-kubernetes-map-type\x12\x09\x12\x07atomic\n",
        ];
        assert_eq!(out, expected.concat());
    }
}

//! Brings an object that a patch has changed back to its schema, in place: the types are checked, what is unknown is
//! dropped and reported, and what remains is canonical.
//!
//! Errors and findings are those of upstream's converter, which a strategic merge patch goes through.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Value};

use super::print::go_kind;
use crate::codec::canonical::{changed, complete, says_nothing, zero};
use crate::codec::decode;
use crate::schema::{Field, Node, Struct, Type, Unknown};
use crate::{quantity, time};

/// What was found on the way.
#[derive(Default)]
pub struct Fit {
    unknown: Vec<String>,
    /// A number didn't fit its type; the converter cuts it off without a word.
    cut: bool,
}

impl Fit {
    pub fn is_perfect(&self) -> bool {
        self.unknown.is_empty() && !self.cut
    }

    /// `unknown field "…"`, in order of the text.
    pub fn findings(mut self) -> Vec<String> {
        self.unknown.sort();
        self.unknown
    }
}

pub fn conform(node: Node<'_>, value: &mut Value) -> Result<Fit, String> {
    let mut fit = Fit::default();
    fit.value(node, value, &Way { parent: None, step: Step::Top })?;
    Ok(fit)
}

struct Way<'w> {
    parent: Option<&'w Way<'w>>,
    step: Step<'w>,
}

enum Step<'w> {
    /// The top, and the keys of maps, which the converter doesn't tell.
    Top,
    Field(&'w str),
    Index(usize),
}

impl Way<'_> {
    fn then<'w>(&'w self, step: Step<'w>) -> Way<'w> {
        Way { parent: Some(self), step }
    }

    fn write(&self, out: &mut String) {
        if let Some(parent) = self.parent {
            parent.write(out);
        }
        match self.step {
            Step::Top => {}
            Step::Field(name) => {
                if !out.is_empty() {
                    out.push('.');
                }
                out.push_str(name);
            }
            Step::Index(index) => out.push_str(&format!("[{index}]")),
        }
    }
}

type Done = Result<(), String>;

impl Fit {
    fn value(&mut self, node: Node<'_>, value: &mut Value, way: &Way<'_>) -> Done {
        match (node.ty(), &mut *value) {
            (Type::Struct(id), Value::Object(map)) => self.structure(node, node.struct_at(id), map, way),
            (Type::List(item), Value::Array(list)) => {
                let item = node.at(item);
                for (index, value) in list.iter_mut().enumerate() {
                    self.element(item, value, &way.then(Step::Index(index)))?;
                }
                Ok(())
            }
            (Type::Map(item), Value::Object(map)) => {
                let item = node.at(item);
                map.iter_mut().try_for_each(|(_, value)| self.element(item, value, &way.then(Step::Top)))
            }
            (Type::String, Value::String(_)) | (Type::Bool, Value::Bool(_)) | (Type::Float, Value::Number(_)) => Ok(()),
            (Type::IntOrString, Value::String(_)) => Ok(()),
            (Type::Int64, Value::Number(number)) if number.is_i64() => Ok(()),
            (Type::Int32 | Type::IntOrString, Value::Number(number))
                if number.as_i64().is_some_and(|number| i32::try_from(number).is_ok()) =>
            {
                Ok(())
            }
            (Type::Int32, Value::Number(number)) if number.is_i64() => {
                self.cut = true;
                // As Go's conversion does it.
                *value = (number.as_i64().unwrap_or_default() as i32).into();
                Ok(())
            }
            (Type::Int32 | Type::Int64, Value::Number(number)) if number.as_f64().is_some_and(|n| n.fract() == 0.0) => {
                self.cut = true;
                let whole = number.as_f64().unwrap_or_default() as i64;
                *value = if node.ty() == Type::Int32 { (whole as i32).into() } else { whole.into() };
                Ok(())
            }
            (Type::Bytes, Value::String(text)) if BASE64.decode(&*text).is_ok() => Ok(()),
            (Type::Bytes, Value::String(_)) => {
                self.by_itself(node, value).map_err(|why| format!("error decoding from json: {why}"))
            }
            (Type::Quantity, Value::String(text)) => match quantity::canonical(text.trim()).map(changed) {
                Ok(canonical) => {
                    replace(value, canonical);
                    Ok(())
                }
                Err(_) => self.by_itself(node, value),
            },
            (Type::Time, Value::String(text)) => time::canonical(text).map(changed).map(|text| replace(value, text)),
            (Type::MicroTime, Value::String(text)) => {
                time::canonical_micro(text).map(changed).map(|text| replace(value, text))
            }
            (Type::FieldsV1 | Type::RawExtension | Type::Json, _) => Ok(()),
            (Type::Struct(_), other) => Err(format!("cannot restore struct from: {}", go_kind(other))),
            (Type::List(_) | Type::Bytes, other) => Err(format!("cannot restore slice from {}", go_kind(other))),
            (Type::Map(_), other) => Err(format!("cannot restore map from {}", go_kind(other))),
            (Type::String, Value::Number(number)) if number.is_i64() => {
                Err(format!("cannot convert int64 to {}", node.def().go))
            }
            (Type::Int32 | Type::Int64, Value::Number(_)) => {
                Err(format!("cannot convert float64 to {}", node.def().go))
            }
            (Type::String, _) => Err("unrecognized type: string".into()),
            (Type::Bool, _) => Err("unrecognized type: bool".into()),
            (Type::Int32, _) => Err("unrecognized type: int32".into()),
            (Type::Int64, _) => Err("unrecognized type: int64".into()),
            (Type::Float, _) => Err("unrecognized type: float64".into()),
            _ => self.by_itself(node, value),
        }
    }

    /// An element of a list or map; null is zero.
    fn element(&mut self, node: Node<'_>, value: &mut Value, way: &Way<'_>) -> Done {
        if !value.is_null() {
            return self.value(node, value, way);
        }
        if !node.def().nullable {
            *value = zero(node);
        }
        Ok(())
    }

    fn structure(&mut self, node: Node<'_>, entry: &Struct, map: &mut Map<String, Value>, way: &Way<'_>) -> Done {
        let mut first = Ok(());
        map.retain(|name, value| {
            if first.is_err() {
                return true;
            }
            match entry.field(name) {
                Some(field) => match self.field(field, node.of_field(field), value, way) {
                    Ok(kept) => kept,
                    Err(why) => {
                        first = Err(why);
                        true
                    }
                },
                None => match entry.unknown {
                    Unknown::Keep => true,
                    Unknown::As(ty) => {
                        first = self.element(node.at(ty), value, &way.then(Step::Field(name)));
                        true
                    }
                    Unknown::Drop => {
                        let mut at = String::new();
                        way.then(Step::Field(name)).write(&mut at);
                        self.unknown.push(format!("unknown field \"{at}\""));
                        false
                    }
                },
            }
        });
        first?;
        complete(node, entry, map);
        Ok(())
    }

    /// Whether the field stays.
    fn field(&mut self, field: &Field, node: Node<'_>, value: &mut Value, way: &Way<'_>) -> Result<bool, String> {
        if !value.is_null() {
            self.value(node, value, &way.then(Step::Field(&field.name)))?;
        }
        Ok(!says_nothing(field, node, value))
    }

    /// A type that reads itself from JSON, and knows no way to itself.
    fn by_itself(&mut self, node: Node<'_>, value: &mut Value) -> Done {
        *value = decode(node, value.to_string().as_bytes()).map_err(|why| why.to_string())?.value;
        Ok(())
    }
}

fn replace(value: &mut Value, text: Option<String>) {
    if let Some(text) = text {
        *value = Value::String(text);
    }
}

//! Reads `builtin.txt`, the generated table of the built-in types.
//!
//! `kind GROUP VERSION KIND STRUCT` names a served kind; group `core` has no name, `*` stands for every group.
//! `struct PACKAGE.NAME [atomic] [embeds=N,…]` starts a struct; its fields follow, each `NAME TYPE WORD…`:
//!
//! - types: `s` string, `i` int32, `l` int64, `b` bool, `f` float64, `y` bytes, `q` Quantity, `I` IntOrString, `t` Time,
//!   `u` MicroTime, `d` Duration, `F` FieldsV1, `R` RawExtension, `J` any JSON, `B`/`A`/`S` a JSON schema or a
//!   bool/schemas/strings, `@STRUCT`, `[]TYPE`, `map[GO-KEY]TYPE`; `*` before an element is a Go pointer, `{NAME}` gives
//!   Go's name, `!` makes a list a message of its own in protobuf;
//! - words: `*` pointer, `o` omitempty, `z` omitzero, `r` required, `#N` protobuf number (`#N.M`: in the embedded message
//!   N), `g=` Go name, `w=` Go names of the structs that it is embedded in, `L=` list type, `K=` map keys, `M=` map type, `P=` patch strategy, `k=` merge key, `E=` enum,
//!   (`~` for a blank), `D=` default (the rest of the line).

use std::collections::HashMap;

use super::{Field, ListType, Name, Schema, Struct, StructId, Type, TypeDef, TypeId};

/// The words of a field that belong to its type rather than to the field.
#[derive(Default)]
struct Topology<'t> {
    list: &'t str,
    keys: &'t str,
    map: &'t str,
}

pub(super) fn read(text: &'static str) -> Schema {
    let mut schema = Schema::default();
    let mut ids = HashMap::new();
    for head in text.lines().filter_map(|line| line.strip_prefix("struct ")) {
        let mut words = head.split(' ');
        let full = words.next().unwrap_or_default();
        let (package, name) = full.rsplit_once('.').unwrap_or(("", full));
        let mut entry = Struct::new(Name::Borrowed(name));
        entry.package = Name::Borrowed(package);
        for word in words {
            match word.strip_prefix("embeds=") {
                Some(numbers) => entry.embeds = numbers.split(',').map(embedding).collect(),
                None => entry.atomic = word == "atomic",
            }
        }
        ids.insert(full, schema.add_struct(entry));
    }
    let mut reader = Reader { schema, ids, types: HashMap::new() };
    let mut current = None;
    for line in text.lines() {
        if let Some(field) = line.strip_prefix(' ') {
            if let Some(id) = current {
                let field = reader.field(field);
                reader.schema.add_field(id, field);
            }
        } else if let Some(head) = line.strip_prefix("struct ") {
            current = reader.ids.get(head.split(' ').next().unwrap_or_default()).copied();
        } else if let Some(kind) = line.strip_prefix("kind ") {
            reader.kind(kind);
        }
    }
    reader.schema.finish();
    reader.schema
}

/// The numbers of nested messages, such as `2.1`, as one: see [`Field::embedded`].
fn embedding(path: &str) -> u32 {
    let numbers = path.split('.').filter_map(|number| number.parse::<u32>().ok());
    numbers.fold(0, Field::nested)
}

struct Reader {
    schema: Schema,
    ids: HashMap<&'static str, StructId>,
    /// Types that were met before, by what the table says of them.
    types: HashMap<(&'static str, &'static str, &'static str, &'static str), TypeId>,
}

impl Reader {
    fn kind(&mut self, line: &'static str) {
        let mut words = line.split(' ');
        let mut word = || words.next().unwrap_or_default();
        let (group, version, kind, name) = (word(), word(), word(), word());
        if let Some(&id) = self.ids.get(name) {
            let ty = self.struct_type(id);
            let group = if group == "core" { "" } else { group };
            self.schema.add_kind(Name::Borrowed(group), Name::Borrowed(version), Name::Borrowed(kind), ty);
        }
    }

    fn struct_type(&mut self, id: StructId) -> TypeId {
        let entry = self.schema.structure(id);
        let package = entry.package.rsplit('/').next().unwrap_or_default();
        let go = format!("{package}.{}", entry.name);
        let atomic = entry.atomic;
        self.schema.add_type(TypeDef { atomic, ..TypeDef::new(Type::Struct(id), go) })
    }

    fn field(&mut self, line: &'static str) -> Field {
        let (line, default) = line.split_once(" D=").unwrap_or((line, ""));
        let mut words = line.split(' ');
        let name = words.next().unwrap_or_default();
        let expression = words.next().unwrap_or_default();
        let mut field = Field::new(Name::Borrowed(name), TypeId::default());
        let mut topology = Topology::default();
        let list = |words: &'static str| words.split(',').map(Name::Borrowed).collect::<Box<[Name]>>();
        for word in words {
            match word {
                "*" => field.pointer = true,
                "o" => field.omit_empty = true,
                "z" => field.omit_zero = true,
                "r" => field.required = true,
                _ => match word.split_at_checked(2) {
                    Some(("g=", go)) => field.go = Name::Borrowed(go),
                    Some(("w=", names)) => field.within = Name::Borrowed(names),
                    Some(("L=", kind)) => topology.list = kind,
                    Some(("K=", keys)) => topology.keys = keys,
                    Some(("M=", kind)) => topology.map = kind,
                    Some(("k=", key)) => field.merge_key = Some(Name::Borrowed(key)),
                    Some(("E=", values)) => {
                        field.values = list(values);
                        for value in field.values.iter_mut().filter(|value| value.contains('~')) {
                            *value = Name::Owned(value.replace('~', " "));
                        }
                    }
                    Some(("P=", strategies)) => {
                        for strategy in strategies.split(',') {
                            match strategy {
                                "merge" => field.patch.merge = true,
                                "replace" => field.patch.replace = true,
                                _ => field.patch.retain_keys = true,
                            }
                        }
                    }
                    _ => {
                        let Some(number) = word.strip_prefix('#') else { continue };
                        let (outer, inner) = number.rsplit_once('.').unwrap_or(("", number));
                        field.embedded = embedding(outer);
                        field.number = inner.parse().unwrap_or_default();
                    }
                },
            }
        }
        field.default = serde_json::from_str(default).ok();
        field.ty = self.ty(expression, &topology);
        field
    }

    fn ty(&mut self, expression: &'static str, topology: &Topology<'static>) -> TypeId {
        let key = (expression, topology.list, topology.keys, topology.map);
        if let Some(&ty) = self.types.get(&key) {
            return ty;
        }
        let (pointer, rest) = match expression.strip_prefix('*') {
            Some(rest) => ("*", rest),
            None => ("", expression),
        };
        let (go, rest) = rest.strip_prefix('{').and_then(|r| r.split_once('}')).unwrap_or(("", rest));
        let (message, rest) = match rest.strip_prefix('!') {
            Some(rest) => (true, rest),
            None => (false, rest),
        };
        let inner = Topology::default();
        let (of, natural) = if let Some(item) = rest.strip_prefix("[]") {
            let item = self.ty(item, &inner);
            (Type::List(item), format!("[]{}", self.schema.ty(item).go))
        } else if let Some((key, value)) = rest.strip_prefix("map[").and_then(|r| r.split_once(']')) {
            let value = self.ty(value, &inner);
            (Type::Map(value), format!("map[{key}]{}", self.schema.ty(value).go))
        } else if let Some(id) = rest.strip_prefix('@').and_then(|name| self.ids.get(name)) {
            let ty = self.struct_type(*id);
            (self.schema.ty(ty).of, self.schema.ty(ty).go.to_string())
        } else {
            let (of, go) = match rest {
                "i" => (Type::Int32, "int32"),
                "l" => (Type::Int64, "int64"),
                "b" => (Type::Bool, "bool"),
                "f" => (Type::Float, "float64"),
                "y" => (Type::Bytes, "[]uint8"),
                "q" => (Type::Quantity, "resource.Quantity"),
                "I" => (Type::IntOrString, "intstr.IntOrString"),
                "t" => (Type::Time, "v1.Time"),
                "u" => (Type::MicroTime, "v1.MicroTime"),
                "d" => (Type::Duration, "v1.Duration"),
                "F" => (Type::FieldsV1, "v1.FieldsV1"),
                "R" => (Type::RawExtension, "runtime.RawExtension"),
                "J" => (Type::Json, "v1.JSON"),
                "B" => (Type::SchemaOrBool(self.json_schema()), "v1.JSONSchemaPropsOrBool"),
                "A" => (Type::SchemaOrArray(self.json_schema()), "v1.JSONSchemaPropsOrArray"),
                "S" => (Type::SchemaOrStrings(self.json_schema()), "v1.JSONSchemaPropsOrStringArray"),
                _ => (Type::String, "string"),
            };
            (of, go.to_owned())
        };
        let atomic = match of {
            Type::Struct(id) if topology.map.is_empty() => self.schema.structure(id).atomic,
            _ => topology.map == "atomic",
        };
        let mut def = TypeDef::new(of, if go.is_empty() { natural } else { go.to_owned() });
        if !pointer.is_empty() {
            def.go = Name::Owned(format!("*{}", def.go));
        }
        def.message = message;
        def.atomic = atomic;
        def.list = match topology.list {
            "set" => ListType::Set,
            "map" => ListType::Map,
            _ => ListType::Atomic,
        };
        def.keys = topology.keys.split(',').filter(|key| !key.is_empty()).map(Name::Borrowed).collect();
        let ty = self.schema.add_type(def);
        self.types.insert(key, ty);
        ty
    }

    fn json_schema(&mut self) -> StructId {
        self.ids.get("apiextensions/v1.JSONSchemaProps").copied().unwrap_or_default()
    }
}

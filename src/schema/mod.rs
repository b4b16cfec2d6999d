//! What the fields of a kind are, as data: JSON name, type, protobuf number, list type, patch strategy, enum, default.
//!
//! The built-in kinds come from a generated table; a custom resource's schema is built at run time in the same form.
//! Everything that walks objects (decoding, pruning, patches, apply, protobuf) walks a [`Node`] beside the value.

mod table;

use std::borrow::Cow;
use std::sync::LazyLock;

use serde_json::Value;

/// A name that the built-in table lends and a custom resource owns.
pub type Name = Cow<'static, str>;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct StructId(u32);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct TypeId(u32);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    Struct(StructId),
    List(TypeId),
    /// Keys are strings.
    Map(TypeId),
    String,
    Int32,
    Int64,
    Bool,
    Float,
    /// Base64 in JSON.
    Bytes,
    Quantity,
    IntOrString,
    Time,
    MicroTime,
    Duration,
    /// A field set of managed fields: any object, kept as it is.
    FieldsV1,
    /// Any object with its own `apiVersion` and `kind`, kept as it is.
    RawExtension,
    /// Anything.
    Json,
    SchemaOrBool(StructId),
    SchemaOrArray(StructId),
    SchemaOrStrings(StructId),
}

impl Type {
    fn is_go_struct(self) -> bool {
        !matches!(
            self,
            Type::List(_)
                | Type::Map(_)
                | Type::String
                | Type::Int32
                | Type::Int64
                | Type::Bool
                | Type::Float
                | Type::Bytes
        )
    }
}

/// How the elements of a list are told apart when it is merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ListType {
    #[default]
    Atomic,
    Set,
    Map,
}

/// `patchStrategy` of a strategic merge patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PatchStrategy {
    pub merge: bool,
    pub replace: bool,
    pub retain_keys: bool,
}

/// A type with what the place where it is used says about merging it.
#[derive(Debug, Clone, PartialEq)]
pub struct TypeDef {
    pub of: Type,
    /// Go's name, as its decoder writes it in errors.
    pub go: Name,
    pub list: ListType,
    /// The keys of a list of type map.
    pub keys: Box<[Name]>,
    /// The map or struct is owned and replaced as a whole.
    pub atomic: bool,
    /// A list that is a message of its own in protobuf (`items = 1`).
    pub message: bool,
    /// `null` is a value of its own (custom resources).
    pub nullable: bool,
    /// An object with `apiVersion`, `kind` and `metadata` (custom resources).
    pub embedded_resource: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    /// The name in JSON.
    pub name: Name,
    pub ty: TypeId,
    /// Zero is a value that is told apart from absence.
    pub pointer: bool,
    pub omit_empty: bool,
    pub omit_zero: bool,
    pub required: bool,
    /// The protobuf number; 0 where the field isn't on the wire.
    pub number: u32,
    /// The embedded message that the field is in on the wire ([`Field::nested`]); 0: directly in its struct's.
    pub embedded: u32,
    /// The Go name where it isn't the JSON name with a capital letter, else empty: see [`Field::go_name`].
    pub go: Name,
    /// Go's names of the embedded structs that the field is in, joined by dots: Go tells them in errors.
    pub within: Name,
    pub patch: PatchStrategy,
    pub merge_key: Option<Name>,
    /// The enum's values (of the elements where the field is a list).
    pub values: Box<[Name]>,
    pub default: Option<Value>,
}

/// What happens to fields that a struct doesn't name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Unknown {
    #[default]
    Drop,
    /// Kept as they are (`x-kubernetes-preserve-unknown-fields`).
    Keep,
    /// Kept as values of this type (`additionalProperties` beside `properties`).
    As(TypeId),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Struct {
    /// The Go name: `PodSpec`.
    pub name: Name,
    /// `core/v1`, `meta/v1`.
    pub package: Name,
    pub atomic: bool,
    pub unknown: Unknown,
    /// Embedded messages ([`Field::nested`]): on the wire even where they are empty.
    pub embeds: Vec<u32>,
    fields: Vec<Field>,
    /// Open addressing from a cheap hash of the name to its place in `fields`, plus one.
    slots: Box<[u16]>,
    /// The fields that are printed even where they are zero.
    printed: Box<[u16]>,
}

#[derive(Debug, Default, Clone)]
pub struct Schema {
    structs: Vec<Struct>,
    types: Vec<TypeDef>,
    kinds: Vec<((Name, Name, Name), TypeId)>,
}

/// A place in a schema: a type and, below the top, the field that has it. Cheap to copy.
#[derive(Debug, Clone, Copy)]
pub struct Node<'a> {
    schema: &'a Schema,
    def: &'a TypeDef,
    field: Option<&'a Field>,
}

/// The schema of the built-in kinds.
pub fn builtin() -> &'static Schema {
    static BUILTIN: LazyLock<Schema> = LazyLock::new(|| table::read(include_str!("builtin.txt")));
    &BUILTIN
}

impl TypeDef {
    pub fn new(of: Type, go: impl Into<Name>) -> Self {
        TypeDef {
            of,
            go: go.into(),
            list: ListType::Atomic,
            keys: Box::default(),
            atomic: false,
            message: false,
            nullable: false,
            embedded_resource: false,
        }
    }
}

impl Field {
    pub fn new(name: impl Into<Name>, ty: TypeId) -> Self {
        Field {
            name: name.into(),
            ty,
            pointer: false,
            omit_empty: false,
            omit_zero: false,
            required: false,
            number: 0,
            embedded: 0,
            go: Name::Borrowed(""),
            within: Name::Borrowed(""),
            patch: PatchStrategy::default(),
            merge_key: None,
            values: Box::default(),
            default: None,
        }
    }

    /// The embedded message with this number in another: its numbers from the outside in, a byte each.
    pub fn nested(outer: u32, number: u32) -> u32 {
        outer << 8 | number
    }

    /// The field's name in its Go struct.
    pub fn go_name(&self) -> String {
        let mut chars = self.name.chars();
        match (self.go.is_empty(), chars.next()) {
            (true, Some(first)) => first.to_uppercase().chain(chars).collect(),
            _ => self.go.to_string(),
        }
    }
}

fn hash(name: &[u8]) -> usize {
    let at = |i: usize| name.get(i).copied().map_or(0, usize::from);
    let n = name.len();
    n.wrapping_mul(31) ^ at(0).wrapping_mul(7) ^ at(n / 2).wrapping_mul(131) ^ at(n.wrapping_sub(1)).wrapping_mul(521)
}

impl Struct {
    pub fn new(name: impl Into<Name>) -> Self {
        Struct {
            name: name.into(),
            package: Name::Borrowed(""),
            atomic: false,
            unknown: Unknown::Drop,
            embeds: Vec::new(),
            fields: Vec::new(),
            slots: Box::default(),
            printed: Box::default(),
        }
    }

    /// The fields that are printed even where nobody set them.
    pub fn printed(&self) -> impl Iterator<Item = &Field> {
        self.printed.iter().map(|index| &self.fields[usize::from(*index)])
    }

    /// In Go's order.
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    pub fn index_of(&self, name: &str) -> Option<usize> {
        let mask = self.slots.len().checked_sub(1)?;
        let mut slot = hash(name.as_bytes()) & mask;
        loop {
            match self.slots[slot] {
                0 => return None,
                found => {
                    let index = usize::from(found) - 1;
                    if self.fields[index].name == name {
                        return Some(index);
                    }
                }
            }
            slot = (slot + 1) & mask;
        }
    }

    pub fn field(&self, name: &str) -> Option<&Field> {
        self.index_of(name).map(|index| &self.fields[index])
    }

    /// Rebuilds the index; at most half of the slots are taken, so that a search ends.
    fn index(&mut self) {
        let size = (self.fields.len() * 2).next_power_of_two().max(2);
        let mut slots = vec![0u16; size].into_boxed_slice();
        for (index, field) in self.fields.iter().enumerate() {
            let mut slot = hash(field.name.as_bytes()) & (size - 1);
            while slots[slot] != 0 {
                slot = (slot + 1) & (size - 1);
            }
            slots[slot] = u16::try_from(index + 1).unwrap_or(0);
        }
        self.slots = slots;
    }
}

impl Schema {
    pub fn add_struct(&mut self, entry: Struct) -> StructId {
        self.structs.push(entry);
        StructId((self.structs.len() - 1) as u32)
    }

    /// Adds a field to a struct; call [`Schema::finish`] when all are there. Beyond 65,534 fields they are ignored.
    pub fn add_field(&mut self, to: StructId, field: Field) {
        let fields = &mut self.structs[to.0 as usize].fields;
        if fields.len() < usize::from(u16::MAX) - 1 {
            fields.push(field);
        }
    }

    pub fn add_type(&mut self, def: TypeDef) -> TypeId {
        self.types.push(def);
        TypeId((self.types.len() - 1) as u32)
    }

    pub fn add_kind(&mut self, group: Name, version: Name, kind: Name, ty: TypeId) {
        self.kinds.push(((group, version, kind), ty));
    }

    /// Makes the indexes, after the last addition.
    pub fn finish(&mut self) {
        self.kinds.sort_by(|a, b| a.0.cmp(&b.0));
        for entry in &mut self.structs {
            entry.index();
            let shown = |field: &Field| {
                // Go's omitempty leaves out no structs, and many a simple type is a struct there.
                let kept = !field.omit_empty || (!field.pointer && self.types[field.ty.0 as usize].of.is_go_struct());
                kept && !field.omit_zero
            };
            entry.printed = (0u16..).zip(&entry.fields).filter(|(_, f)| shown(f)).map(|(index, _)| index).collect();
        }
    }

    /// Copies a struct of another schema, with all that it refers to: `ObjectMeta` into a custom resource's. To be
    /// followed by [`Schema::finish`].
    pub fn import(&mut self, from: &Schema, id: StructId) -> StructId {
        self.import_struct(from, id, &mut Vec::new())
    }

    fn import_struct(&mut self, from: &Schema, id: StructId, done: &mut Vec<(StructId, StructId)>) -> StructId {
        if let Some((_, copy)) = done.iter().find(|(original, _)| *original == id) {
            return *copy;
        }
        let original = from.structure(id);
        let copy = self.add_struct(Struct { fields: Vec::new(), ..original.clone() });
        done.push((id, copy));
        for field in &original.fields {
            let ty = self.import_type(from, field.ty, done);
            self.add_field(copy, Field { ty, ..field.clone() });
        }
        copy
    }

    fn import_type(&mut self, from: &Schema, ty: TypeId, done: &mut Vec<(StructId, StructId)>) -> TypeId {
        let def = from.ty(ty);
        let of = match def.of {
            Type::Struct(id) => Type::Struct(self.import_struct(from, id, done)),
            Type::SchemaOrBool(id) => Type::SchemaOrBool(self.import_struct(from, id, done)),
            Type::SchemaOrArray(id) => Type::SchemaOrArray(self.import_struct(from, id, done)),
            Type::SchemaOrStrings(id) => Type::SchemaOrStrings(self.import_struct(from, id, done)),
            Type::List(item) => Type::List(self.import_type(from, item, done)),
            Type::Map(value) => Type::Map(self.import_type(from, value, done)),
            plain => plain,
        };
        self.add_type(TypeDef { of, ..def.clone() })
    }

    pub fn structure(&self, id: StructId) -> &Struct {
        &self.structs[id.0 as usize]
    }

    pub fn ty(&self, ty: TypeId) -> &TypeDef {
        &self.types[ty.0 as usize]
    }

    pub fn node(&self, ty: TypeId) -> Node<'_> {
        Node { schema: self, def: self.ty(ty), field: None }
    }

    /// A kind of this group; kinds such as `DeleteOptions` and `Status` are in every group.
    pub fn kind(&self, group: &str, version: &str, kind: &str) -> Option<Node<'_>> {
        let find = |group: &str, version: &str| {
            let at = self.kinds.binary_search_by(|((g, v, k), _)| (&**g, &**v, &**k).cmp(&(group, version, kind)));
            at.ok().map(|index| self.node(self.kinds[index].1))
        };
        find(group, version).or_else(|| find("*", "v1"))
    }

    /// A type that is no kind of its own, by its Go package and name: `("meta/v1", "ObjectMeta")`.
    pub fn type_named(&self, package: &str, name: &str) -> Option<Node<'_>> {
        let found = self.types.iter().find(|def| match def.of {
            Type::Struct(id) => self.structure(id).name == name && self.structure(id).package == package,
            _ => false,
        })?;
        Some(Node { schema: self, def: found, field: None })
    }

    /// Group, version and kind of all that is served.
    pub fn kinds(&self) -> impl Iterator<Item = (&str, &str, &str)> {
        self.kinds.iter().map(|((group, version, kind), _)| (&**group, &**version, &**kind))
    }
}

impl<'a> Node<'a> {
    pub fn ty(&self) -> Type {
        self.def.of
    }

    pub fn def(&self) -> &'a TypeDef {
        self.def
    }

    /// The field that has this type; none at the top, and for the elements of lists and maps.
    pub fn as_field(&self) -> Option<&'a Field> {
        self.field
    }

    pub fn as_struct(&self) -> Option<&'a Struct> {
        match self.def.of {
            Type::Struct(id) => Some(self.schema.structure(id)),
            _ => None,
        }
    }

    /// The node of another type of the same schema.
    pub fn at(&self, ty: TypeId) -> Node<'a> {
        self.schema.node(ty)
    }

    pub fn struct_at(&self, id: StructId) -> &'a Struct {
        self.schema.structure(id)
    }

    pub fn of_field(&self, field: &'a Field) -> Node<'a> {
        Node { schema: self.schema, def: self.schema.ty(field.ty), field: Some(field) }
    }

    /// The field of a struct, or the value of a map.
    pub fn field(&self, name: &str) -> Option<Node<'a>> {
        match self.def.of {
            Type::Struct(id) => {
                let entry = self.schema.structure(id);
                match (entry.field(name), entry.unknown) {
                    (Some(field), _) => Some(self.of_field(field)),
                    (None, Unknown::As(ty)) => Some(self.at(ty)),
                    _ => None,
                }
            }
            Type::Map(value) => Some(self.at(value)),
            _ => None,
        }
    }

    /// Steps through fields; lists are stepped into by themselves.
    pub fn path(&self, names: &[&str]) -> Option<Node<'a>> {
        names.iter().try_fold(*self, |node, name| node.item().unwrap_or(node).field(name))
    }

    /// The element of a list.
    pub fn item(&self) -> Option<Node<'a>> {
        match self.def.of {
            Type::List(item) => Some(self.at(item)),
            _ => None,
        }
    }

    /// The value of a map.
    pub fn value(&self) -> Option<Node<'a>> {
        match self.def.of {
            Type::Map(value) => Some(self.at(value)),
            _ => None,
        }
    }

    pub fn list_type(&self) -> ListType {
        self.def.list
    }

    /// The keys of a list of type map, with the default that an element without the key has. A field that Go always
    /// prints has its zero value.
    pub fn keys(&self) -> impl Iterator<Item = (&'a str, Option<&'a Value>)> + use<'a> {
        static EMPTY: Value = Value::String(String::new());
        static ZERO: LazyLock<Value> = LazyLock::new(|| 0.into());
        let item = self.item();
        self.def.keys.iter().map(move |key| {
            let default = item.and_then(|item| {
                let entry = item.as_struct()?;
                let field = entry.field(key)?;
                // In a custom resource's schema, what is required has no value of its own.
                let printed = field.required && !entry.package.is_empty();
                match item.of_field(field).ty() {
                    _ if field.default.is_some() => field.default.as_ref(),
                    Type::String if printed => Some(&EMPTY),
                    Type::Int32 | Type::Int64 if printed => Some(&*ZERO),
                    _ => None,
                }
            });
            (&**key, default)
        })
    }

    pub fn atomic(&self) -> bool {
        self.def.atomic
    }

    pub fn patch_strategy(&self) -> PatchStrategy {
        self.field.map(|field| field.patch).unwrap_or_default()
    }

    /// `patchMergeKey`.
    pub fn merge_key(&self) -> Option<&'a str> {
        self.field.and_then(|field| field.merge_key.as_deref())
    }

    pub fn required(&self) -> bool {
        self.field.is_some_and(|field| field.required)
    }

    pub fn default(&self) -> Option<&'a Value> {
        self.field.and_then(|field| field.default.as_ref())
    }

    /// The enum's values; none where any will do.
    pub fn values(&self) -> &'a [Name] {
        self.field.map(|field| &*field.values).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> Node<'static> {
        builtin().kind("", "v1", "Pod").expect("Pod is in the table")
    }

    #[test]
    fn lists_tell_how_they_are_merged() {
        let ports = pod().path(&["spec", "containers", "ports"]).expect("ports");
        assert_eq!(ports.list_type(), ListType::Map);
        let keys: Vec<_> = ports.keys().collect();
        assert_eq!(keys, [("containerPort", Some(&Value::from(0))), ("protocol", Some(&Value::from("TCP")))]);
        assert_eq!(ports.merge_key(), Some("containerPort"));
        assert!(ports.patch_strategy().merge);
        let finalizers = pod().path(&["metadata", "finalizers"]).expect("finalizers");
        assert_eq!(finalizers.list_type(), ListType::Set);
        assert!(pod().path(&["spec", "nodeSelector"]).is_some_and(|node| node.atomic()));
        let deployment = builtin().kind("apps", "v1", "Deployment").expect("Deployment is in the table");
        assert!(deployment.path(&["spec", "selector"]).is_some_and(|node| node.atomic()));
        assert!(deployment.path(&["spec", "strategy"]).is_some_and(|node| node.patch_strategy().retain_keys));
    }

    #[test]
    fn fields_tell_what_go_knows() {
        let at = |path: &[&str]| pod().path(path).and_then(|node| node.as_field()).expect("field");
        assert!(at(&["spec", "activeDeadlineSeconds"]).pointer);
        assert_eq!(at(&["spec", "containers", "livenessProbe", "httpGet"]).embedded, 1);
        assert_eq!(at(&["spec", "containers", "livenessProbe", "httpGet"]).go_name(), "HTTPGet");
        assert!(at(&["metadata", "creationTimestamp"]).omit_zero);
        assert!(!at(&["spec", "containers"]).omit_empty);
        let policy = pod().path(&["spec", "restartPolicy"]).expect("restartPolicy");
        assert_eq!(policy.def().go, "v1.RestartPolicy");
        assert_eq!(policy.values(), ["Always", "Never", "OnFailure"]);
        let limits = pod().path(&["spec", "containers", "resources", "limits"]).expect("limits");
        assert_eq!(limits.def().go, "v1.ResourceList");
        assert_eq!(limits.value().map(|value| value.ty()), Some(Type::Quantity));
    }

    #[test]
    fn every_field_is_found_by_name_and_no_other() {
        for entry in &builtin().structs {
            for (index, field) in entry.fields.iter().enumerate() {
                assert_eq!(entry.index_of(&field.name), Some(index), "{}.{}", entry.name, field.name);
                assert_eq!(entry.index_of(&format!("{}x", field.name)), None);
            }
            assert_eq!(entry.index_of(""), None);
        }
        assert!(builtin().kind("apps", "v1", "DeleteOptions").is_some());
        assert!(builtin().kind("apps", "v1", "Pod").is_none());
    }

    #[test]
    fn a_struct_can_be_copied_into_another_schema() {
        let meta = pod().field("metadata").expect("metadata");
        let Type::Struct(id) = meta.ty() else { panic!("metadata is a struct") };
        let mut other = Schema::default();
        let copy = other.import(builtin(), id);
        let ty = other.add_type(TypeDef::new(Type::Struct(copy), "v1.ObjectMeta"));
        other.finish();
        let owners = other.node(ty).field("ownerReferences").expect("ownerReferences");
        assert_eq!(owners.keys().next(), Some(("uid", Some(&Value::from("")))));
        assert!(owners.item().and_then(|item| item.field("controller")).is_some_and(|n| n.ty() == Type::Bool));
    }
}

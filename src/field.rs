//! Field errors: what validation says about one field of an object, in the words of Kubernetes' `field.Error`.

use std::fmt;

use serde_json::Value;

use crate::schema::{Node, Type};

/// Where a field stands, without allocating until it is printed: `spec.containers[0].ports[1].name`.
#[derive(Clone, Copy)]
pub struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    segment: Segment<'a>,
}

#[derive(Clone, Copy)]
enum Segment<'a> {
    Child(&'a str),
    Index(usize),
    Key(&'a str),
}

impl<'a> Path<'a> {
    pub const fn new(name: &'a str) -> Path<'a> {
        Path { parent: None, segment: Segment::Child(name) }
    }

    pub const fn child(&'a self, name: &'a str) -> Path<'a> {
        Path { parent: Some(self), segment: Segment::Child(name) }
    }

    pub const fn index(&'a self, index: usize) -> Path<'a> {
        Path { parent: Some(self), segment: Segment::Index(index) }
    }

    pub const fn key(&'a self, key: &'a str) -> Path<'a> {
        Path { parent: Some(self), segment: Segment::Key(key) }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
        }
        match self.segment {
            // A nameless root lets a caller validate the object itself: its children print without a leading dot.
            Segment::Child(name) => match self.parent {
                Some(p) if !p.is_empty_root() => write!(f, ".{name}"),
                _ => f.write_str(name),
            },
            Segment::Index(index) => write!(f, "[{index}]"),
            Segment::Key(key) => write!(f, "[{key}]"),
        }
    }
}

impl Path<'_> {
    fn is_empty_root(&self) -> bool {
        self.parent.is_none() && matches!(self.segment, Segment::Child(""))
    }
}

/// The kinds of `field.ErrorType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    NotFound,
    Required,
    Duplicate,
    Invalid,
    NotSupported,
    Forbidden,
    TooLong,
    TooMany,
    Internal,
    TypeInvalid,
}

impl ErrorKind {
    /// `metav1.CauseType` of the error.
    pub fn reason(self) -> &'static str {
        match self {
            ErrorKind::NotFound => "FieldValueNotFound",
            ErrorKind::Required => "FieldValueRequired",
            ErrorKind::Duplicate => "FieldValueDuplicate",
            ErrorKind::Invalid => "FieldValueInvalid",
            ErrorKind::NotSupported => "FieldValueNotSupported",
            ErrorKind::Forbidden => "FieldValueForbidden",
            ErrorKind::TooLong => "FieldValueTooLong",
            ErrorKind::TooMany => "FieldValueTooMany",
            ErrorKind::Internal => "InternalError",
            ErrorKind::TypeInvalid => "FieldValueTypeInvalid",
        }
    }

    fn words(self) -> &'static str {
        match self {
            ErrorKind::NotFound => "Not found",
            ErrorKind::Required => "Required value",
            ErrorKind::Duplicate => "Duplicate value",
            ErrorKind::Invalid | ErrorKind::TypeInvalid => "Invalid value",
            ErrorKind::NotSupported => "Unsupported value",
            ErrorKind::Forbidden => "Forbidden",
            ErrorKind::TooLong => "Too long",
            ErrorKind::TooMany => "Too many",
            ErrorKind::Internal => "Internal error",
        }
    }

    fn shows_value(self) -> bool {
        !matches!(
            self,
            ErrorKind::Required | ErrorKind::Forbidden | ErrorKind::TooLong | ErrorKind::TooMany | ErrorKind::Internal
        )
    }
}

/// One thing that is wrong with one field.
#[derive(Debug, Clone, PartialEq)]
pub struct Error {
    pub kind: ErrorKind,
    pub field: String,
    /// The offending value as the message shows it (strings quoted, objects as JSON); empty where it shows none.
    pub value: String,
    /// Where the value stands, if it isn't the field's.
    pub value_of: Option<String>,
    pub detail: String,
}

impl Error {
    /// The message without the field: `Invalid value: "x": must be y`.
    pub fn body(&self) -> String {
        let mut text = String::from(self.kind.words());
        if self.kind.shows_value() && !self.value.is_empty() {
            text.push_str(": ");
            text.push_str(&self.value);
        }
        if !self.detail.is_empty() {
            text.push_str(": ");
            text.push_str(&self.detail);
        }
        text
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.body())
    }
}

/// What stands in a message for a value: strings quoted as Go's `%q`, everything else as JSON.
pub trait Shown {
    fn shown(&self) -> String;
}

impl Shown for str {
    fn shown(&self) -> String {
        go_quote(self)
    }
}

impl<T: Shown + ?Sized> Shown for &T {
    fn shown(&self) -> String {
        (**self).shown()
    }
}

impl Shown for String {
    fn shown(&self) -> String {
        go_quote(self)
    }
}

impl Shown for Value {
    fn shown(&self) -> String {
        match self {
            Value::String(text) => go_quote(text),
            other => other.to_string(),
        }
    }
}

impl Shown for i64 {
    fn shown(&self) -> String {
        self.to_string()
    }
}

impl Shown for usize {
    fn shown(&self) -> String {
        self.to_string()
    }
}

impl Shown for bool {
    fn shown(&self) -> String {
        self.to_string()
    }
}

/// Text that is to be printed as it is.
pub struct Raw(pub String);

impl Shown for Raw {
    fn shown(&self) -> String {
        self.0.clone()
    }
}

/// Go's `strconv.Quote`.
pub fn go_quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => out.push_str(&format!("\\x{:02x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Several errors as one text. Go's `Aggregate` drops repeated messages and brackets several.
pub fn aggregate<T: ToString>(errors: &[T]) -> String {
    let mut unique: Vec<String> = Vec::new();
    for error in errors {
        let text = error.to_string();
        if !unique.contains(&text) {
            unique.push(text);
        }
    }
    if unique.len() == 1 { unique.remove(0) } else { format!("[{}]", unique.join(", ")) }
}

/// What stands at a path as it is printed, and what type it is of.
fn lookup<'v, 'n>(value: &'v Value, node: Node<'n>, path: &str) -> Option<(&'v Value, Node<'n>)> {
    let mut steps = path.split(['.', '[']).map(|step| step.trim_end_matches(']')).filter(|step| !step.is_empty());
    steps.try_fold((value, node), |(value, node), step| match value {
        Value::Array(items) => Some((items.get(step.parse::<usize>().ok()?)?, node.item()?)),
        other => Some((other.get(step)?, node.field(step)?)),
    })
}

/// Copies the compact JSON of a message, with Go's names of fields, and shows in it what was given empty.
struct Filling<'t> {
    rest: &'t str,
    out: String,
}

impl Filling<'_> {
    fn copy(&mut self, length: usize) {
        let (done, rest) = self.rest.split_at(length);
        self.out.push_str(done);
        self.rest = rest;
    }

    /// The length of what stands here, which is no list or object.
    fn scalar(&self) -> usize {
        let bytes = self.rest.as_bytes();
        if bytes.first() != Some(&b'"') {
            return self.rest.find([',', ']', '}']).unwrap_or(self.rest.len());
        }
        let mut escaped = false;
        let end = bytes.iter().skip(1).position(|b| {
            let ends = *b == b'"' && !escaped;
            escaped = *b == b'\\' && !escaped;
            ends
        });
        end.map_or(self.rest.len(), |end| end + 2)
    }

    fn value(&mut self, given: Option<(&Value, Node<'_>)>) {
        match self.rest.as_bytes().first() {
            Some(b'{') => self.members(b'}', |filling, _| {
                let key = filling.scalar();
                let name = filling.rest[..key].trim_matches('"').to_owned();
                filling.copy(key + 1);
                given.and_then(|(value, node)| {
                    let Some(entry) = node.as_struct() else { return Some((value.get(&name)?, node.value()?)) };
                    let field = entry.fields().iter().find(|field| field.go_name() == name || field.name == name)?;
                    Some((value.get(&*field.name)?, node.of_field(field)))
                })
            }),
            Some(b'[') => {
                self.members(b']', |_, i| given.and_then(|(value, node)| Some((value.get(i)?, node.item()?))))
            }
            _ => {
                let length = self.scalar();
                let empty = match given {
                    Some((Value::Object(map), node)) if map.is_empty() && matches!(node.ty(), Type::Map(_)) => "{}",
                    Some((Value::Array(list), node)) if list.is_empty() && matches!(node.ty(), Type::List(_)) => "[]",
                    _ => return self.copy(length),
                };
                match &self.rest[..length] {
                    "null" => {
                        self.out.push_str(empty);
                        self.rest = &self.rest[length..];
                    }
                    _ => self.copy(length),
                }
            }
        }
    }

    /// The members of a list or object; `member` reads the name of each, if it has one, and finds what was given for it.
    fn members<'g>(&mut self, end: u8, member: impl Fn(&mut Self, usize) -> Option<(&'g Value, Node<'g>)>) {
        self.copy(1);
        let mut i = 0;
        while let Some(next) = self.rest.as_bytes().first() {
            match next {
                b if *b == end => return self.copy(1),
                b',' => self.copy(1),
                _ => {
                    let given = member(self, i);
                    self.value(given);
                    i += 1;
                }
            }
        }
    }
}

/// The errors found so far.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Errors(pub Vec<Error>);

impl Errors {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn push(&mut self, kind: ErrorKind, path: &Path<'_>, value: impl Shown, detail: impl Into<String>) {
        let (field, value, detail) = (path.to_string(), value.shown(), detail.into());
        self.0.push(Error { kind, field, value, value_of: None, detail });
    }

    /// Shows the maps and lists that were given empty as they were given. Objects don't tell them from nothing,
    /// messages do.
    pub fn show_as_given(&mut self, given: &Value, node: Node<'_>) {
        let shows = |error: &Error| error.value == "null" || error.value.starts_with(['{', '[']);
        for error in self.0.iter_mut().filter(|error| shows(error)) {
            let of = error.value_of.as_ref().unwrap_or(&error.field);
            let Some(found) = lookup(given, node, of) else { continue };
            let mut filling = Filling { rest: &error.value, out: String::with_capacity(error.value.len()) };
            filling.value(Some(found));
            error.value = filling.out;
        }
    }

    pub fn required(&mut self, path: &Path<'_>, detail: impl Into<String>) {
        self.push(ErrorKind::Required, path, "", detail);
    }

    pub fn invalid(&mut self, path: &Path<'_>, value: impl Shown, detail: impl Into<String>) {
        self.push(ErrorKind::Invalid, path, value, detail);
    }

    /// A field that is invalid for what a part of it is.
    pub fn invalid_for(&mut self, path: &Path<'_>, part: &Path<'_>, value: impl Shown, detail: impl Into<String>) {
        let (field, value, detail) = (path.to_string(), value.shown(), detail.into());
        self.0.push(Error { kind: ErrorKind::Invalid, field, value, value_of: Some(part.to_string()), detail });
    }

    /// An invalid value that the message does not show.
    pub fn invalid_unshown(&mut self, path: &Path<'_>, detail: impl Into<String>) {
        self.push(ErrorKind::Invalid, path, Raw(String::new()), detail);
    }

    pub fn forbidden(&mut self, path: &Path<'_>, detail: impl Into<String>) {
        self.push(ErrorKind::Forbidden, path, "", detail);
    }

    pub fn duplicate(&mut self, path: &Path<'_>, value: impl Shown) {
        self.push(ErrorKind::Duplicate, path, value, "");
    }

    pub fn not_found(&mut self, path: &Path<'_>, value: impl Shown) {
        self.push(ErrorKind::NotFound, path, value, "");
    }

    /// `supported` is printed in the order given, as kube-apiserver does where it has sorted it.
    pub fn not_supported(&mut self, path: &Path<'_>, value: impl Shown, supported: &[&str]) {
        let detail = if supported.is_empty() {
            String::new()
        } else {
            let quoted: Vec<String> = supported.iter().map(|s| go_quote(s)).collect();
            format!("supported values: {}", quoted.join(", "))
        };
        self.push(ErrorKind::NotSupported, path, value, detail);
    }

    pub fn too_long(&mut self, path: &Path<'_>, max: usize) {
        self.push(ErrorKind::TooLong, path, "", format!("may not be more than {max} bytes"));
    }

    pub fn too_many(&mut self, path: &Path<'_>, actual: usize, max: usize) {
        self.push(ErrorKind::TooMany, path, "", format!("{actual}: must have at most {max} items"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_print_like_kubernetes() {
        let spec = Path::new("spec");
        let containers = spec.child("containers");
        let first = containers.index(0);
        let key = first.child("labels");
        assert_eq!(key.key("a/b").to_string(), "spec.containers[0].labels[a/b]");
        let root = Path::new("");
        assert_eq!(root.child("data").to_string(), "data");
    }

    #[test]
    fn what_was_given_is_shown() {
        let mut errors = Errors::default();
        let (metadata, spec) = (Path::new("metadata"), Path::new("spec"));
        for path in [metadata.child("labels"), metadata.child("annotations"), spec] {
            errors.invalid(&path, Raw("null".into()), "");
        }
        let node = crate::schema::builtin().kind("", "v1", "Pod").expect("Pod");
        errors.show_as_given(&serde_json::json!({"metadata": {"labels": {}}, "spec": {}}), node);
        let shown: Vec<&str> = errors.0.iter().map(|error| &*error.value).collect();
        assert_eq!(shown, ["{}", "null", "null"]);
        let mut errors = Errors::default();
        let shown = r#"{"Volumes":[{"Name":"a,]\\\"","EmptyDir":null}],"NodeSelector":null,"Tolerations":null,"X":1}"#;
        errors.invalid(&spec, Raw(shown.into()), "");
        let given = serde_json::json!({"spec": {"volumes": [{"emptyDir": {}}], "nodeSelector": {}, "tolerations": []}});
        errors.show_as_given(&given, node);
        let filled = shown.replace("Selector\":null", "Selector\":{}").replace("ons\":null", "ons\":[]");
        assert_eq!(errors.0[0].value, filled);
    }

    #[test]
    fn messages_read_like_kubernetes() {
        let mut errors = Errors::default();
        errors.not_supported(&Path::new("a"), "x", &["b", "c"]);
        errors.required(&Path::new("a"), "");
        errors.invalid(&Path::new("n"), -1i64, "must be greater than or equal to 0");
        let text: Vec<String> = errors.0.iter().map(ToString::to_string).collect();
        assert_eq!(text[0], "a: Unsupported value: \"x\": supported values: \"b\", \"c\"");
        assert_eq!(text[1], "a: Required value");
        assert_eq!(text[2], "n: Invalid value: -1: must be greater than or equal to 0");
    }
}

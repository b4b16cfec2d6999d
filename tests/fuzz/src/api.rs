//! What clients send.

use std::sync::LazyLock;

use kontiki::codec::protobuf as wire;
use kontiki::codec::{
    Media, Target, Validation, canonicalize, decode, decode_body, decode_untyped, decode_untyped_strict,
    encode_for_store, from_yaml, to_pretty, to_yaml,
};
use kontiki::discovery::{Registry, Resource};
use kontiki::field::Errors;
use kontiki::kinds::{self, Kind, cel, meta};
use kontiki::managed::{self, Write, reset};
use kontiki::patch::{self, PatchKind};
use kontiki::request::{Query, RequestInfo};
use kontiki::schema::{Node, builtin};
use kontiki::selector::{FieldSelector, LabelSelector};
use kontiki::status::ApiError;
use kontiki::verbs::fields::BuiltIn;
use kontiki::verbs::list::Token;
use kontiki::{quantity as amounts, table, time as times};
use serde_json::{Value, json};

use crate::source::Source;

struct Known {
    resource: std::sync::Arc<Resource>,
    rules: &'static dyn Kind,
    node: Node<'static>,
}

impl Known {
    fn target(&self) -> Target<'_> {
        Target { group: &self.resource.group, version: &self.resource.version, kind: &self.resource.kind }
    }
}

static KNOWN: LazyLock<Vec<Known>> = LazyLock::new(|| {
    let registry = Registry::builtin();
    let versions = registry.groups().iter().flat_map(|group| &group.versions);
    let known = versions.flat_map(|version| &version.resources).filter_map(|resource| {
        let rules = kinds::find(&resource.group, &resource.kind)?;
        let node = builtin().kind(&resource.group, &resource.version, &resource.kind)?;
        Some(Known { resource: resource.clone(), rules, node })
    });
    known.collect()
});

fn pod() -> &'static Known {
    KNOWN.iter().find(|known| &*known.resource.kind == "Pod").expect("pods")
}

fn text(bytes: &[u8]) -> &str {
    let valid = std::str::from_utf8(bytes).map_or_else(|error| error.valid_up_to(), |text| text.len());
    std::str::from_utf8(&bytes[..valid]).unwrap_or_default()
}

/// What is canonical stays as it is on every way.
fn keeps(node: Node<'_>, object: &Value) {
    let (stored, _) = encode_for_store(object);
    let shown = || String::from_utf8_lossy(&stored).into_owned();
    let read = decode(node, &stored).unwrap_or_else(|error| panic!("{error}: {}", shown()));
    assert_eq!(encode_for_store(&read.value).0, stored, "{}", shown());
    let message = wire::encode(node, object);
    let mut read = wire::decode(node, &message).unwrap_or_else(|error| panic!("{error}: {}", shown()));
    canonicalize(node, &mut read);
    assert_eq!(wire::encode(node, &read), message, "{}", shown());
    // What is read first may differ: a large float without a fraction comes back from YAML as an integer.
    let through_yaml = |object| from_yaml(&to_yaml(object)).unwrap_or_else(|error| panic!("{error}: {}", shown()));
    let yaml = through_yaml(object).value;
    assert_eq!(through_yaml(&yaml).value, yaml);
    let _ = to_pretty(object);
}

pub fn json(bytes: &[u8]) {
    for known in [pod(), &KNOWN[bytes.len() % KNOWN.len()]] {
        for validation in [Validation::Ignore, Validation::Strict] {
            if let Ok((object, _)) = decode_body(known.target(), Media::Json, bytes, validation) {
                keeps(known.node, &object);
            }
        }
    }
}

pub fn untyped_json(bytes: &[u8]) {
    let read = decode_untyped(bytes);
    if let Ok((strict, _)) = decode_untyped_strict(bytes) {
        assert_eq!(read.as_ref().ok(), Some(&strict));
    }
    if let Ok(value) = read {
        assert_eq!(decode_untyped(value.to_string().as_bytes()).ok(), Some(value));
    }
}

pub fn yaml(bytes: &[u8]) {
    if let Ok(read) = from_yaml(bytes) {
        let written = to_yaml(&read.value);
        let again = from_yaml(&written).map(|yaml| yaml.value);
        assert_eq!(again.as_ref(), Ok(&read.value), "{}", String::from_utf8_lossy(&written));
    }
    let _ = decode_body(pod().target(), Media::Yaml, bytes, Validation::Strict);
}

pub fn protobuf(bytes: &[u8]) {
    let (choice, bytes) = bytes.split_first().unwrap_or((&0, &[]));
    let known = &KNOWN[usize::from(*choice) % KNOWN.len()];
    let _ = decode_body(known.target(), Media::Protobuf, bytes, Validation::Strict);
    if let Ok(mut object) = wire::decode(known.node, bytes) {
        canonicalize(known.node, &mut object);
        keeps(known.node, &object);
    }
}

/// A canonical object with defaults, as it is before admission.
fn generated(known: &Known, source: &mut Source<'_>) -> Option<Value> {
    let mut object = source.value(known.node, 0);
    object["apiVersion"] = known.resource.api_version().into();
    object["kind"] = json!(known.resource.kind);
    let body = object.to_string();
    let (mut object, _) = decode_body(known.target(), Media::Json, body.as_bytes(), Validation::Warn).ok()?;
    keeps(known.node, &object);
    known.rules.default(&mut object);
    known.rules.to_storage(&mut object);
    Some(object)
}

/// What is decided of a new object and of a change to it, but for what depends on other objects.
pub fn object(bytes: &[u8]) {
    let mut source = Source(bytes);
    let known = &KNOWN[source.byte() % KNOWN.len()];
    let (rules, namespaced) = (known.rules, known.resource.namespaced);
    let Some(mut object) = generated(known, &mut source) else { return };
    let (stored_api_version, kind) = (object["apiVersion"].clone(), &*known.resource.kind);
    let (group, version) = stored_api_version.as_str().and_then(|text| text.split_once('/')).unwrap_or(("", "v1"));
    let node = builtin().kind(group, version, kind).expect("a stored version");
    managed::update(write(known), None, &mut object);
    rules.prepare_create(&mut object);
    canonicalize(node, &mut object);
    let mut errors = Errors::default();
    meta::validate_create(rules, namespaced, &object, &mut errors);
    rules.validate(&object, &mut errors);
    errors.show_as_given(&object, node);
    let _ = ApiError::invalid(group, kind, "a", &errors.0);
    rules.warnings(&object, None);
    show(known, &object);
    keeps(node, &object);

    let Some(mut changed) = generated(known, &mut source) else { return };
    managed::update(write(known), Some(&object), &mut changed);
    let mut status = changed.clone();
    rules.prepare_update(&mut changed, &object);
    canonicalize(node, &mut changed);
    let mut errors = Errors::default();
    meta::validate_update(rules, namespaced, &changed, &object, &mut errors);
    rules.validate_update(&changed, &object, &mut errors);
    rules.generation_moves(&changed, &object);
    rules.warnings(&changed, Some(&object));
    show(known, &changed);
    rules.prepare_status_update(&mut status, &object);
    canonicalize(node, &mut status);
    meta::validate_subresource_update(namespaced, &status, &object, &mut errors);
    rules.validate_status_update(&status, &object, &mut errors);
    let _ = ApiError::invalid(group, kind, "a", &errors.0);
    show(known, &status);
}

fn show(known: &Known, object: &Value) {
    let cells = table::cells(&known.resource.table, object);
    // One kind has a cell without a column, as upstream has.
    let columns = table::columns(&known.resource.table).as_array().map_or(0, Vec::len);
    assert!(cells.len() >= columns, "{}: {cells:?}", known.resource.kind);
    for (_, of) in known.rules.selectable() {
        of(object);
    }
    known.rules.grace(object, None);
    let mut shown = object.clone();
    known.rules.from_storage(&mut shown, &known.resource.version);
}

fn write(known: &Known) -> Write<'_> {
    let api_version = match (&*known.resource.group, &*known.resource.version) {
        ("", version) => version,
        (group, version) => {
            API_VERSIONS.iter().find(|text| text.split_once('/') == Some((group, version))).map_or("v1", |text| text)
        }
    };
    Write {
        versions: &BuiltIn,
        api_version,
        subresource: "",
        manager: "m",
        reset: reset::of(&known.resource.kind, ""),
        now: "2026-01-02T03:04:05Z",
    }
}

static API_VERSIONS: LazyLock<Vec<String>> =
    LazyLock::new(|| KNOWN.iter().map(|known| known.resource.api_version()).collect());

const CURRENT: &str = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a","namespace":"n","labels":{"a":"b"},"finalizers":["x/y"],
    "managedFields":[{"manager":"o","operation":"Apply","apiVersion":"v1","fieldsType":"FieldsV1","fieldsV1":{"f:spec":{"f:containers":{"k:{\"name\":\"c\"}":{".":{},"f:image":{},"f:name":{}}}}}}]},
    "spec":{"containers":[{"name":"c","image":"i","ports":[{"containerPort":80,"protocol":"TCP"}],"env":[{"name":"A","value":"B"}]}],
    "tolerations":[{"key":"k"}],"volumes":[{"name":"v","emptyDir":{}}]}}"#;

static POD: LazyLock<Value> =
    LazyLock::new(|| decode(pod().node, CURRENT.as_bytes()).map(|decoded| decoded.value).expect("a pod"));

pub fn patch(bytes: &[u8]) {
    let (choice, body) = bytes.split_first().unwrap_or((&0, &[]));
    patched(pod(), &POD, *choice, body);
}

/// A patch whose members exist, on an object of any kind.
pub fn generated_patch(bytes: &[u8]) {
    let mut source = Source(bytes);
    let known = &KNOWN[source.byte() % KNOWN.len()];
    let choice = source.byte() as u8;
    let Some(mut object) = generated(known, &mut source) else { return };
    managed::update(write(known), None, &mut object);
    let mut body = source.value(known.node, 0);
    body["apiVersion"] = known.resource.api_version().into();
    body["kind"] = json!(known.resource.kind);
    patched(known, &object, choice, body.to_string().as_bytes());
}

fn patched(known: &Known, object: &Value, choice: u8, body: &[u8]) {
    let kind = match choice % 4 {
        0 => PatchKind::Json,
        1 => PatchKind::Merge,
        2 => PatchKind::Strategic,
        _ => {
            let force = choice & 4 == 0;
            let applied = managed::apply(write(known), known.target(), Some(object), body, Validation::Warn, force);
            return applied.map_or((), |(object, _)| keeps(known.node, &object));
        }
    };
    for validation in [Validation::Ignore, Validation::Strict] {
        if let Ok(patched) = patch::apply(kind, known.target(), known.node, object, body, validation) {
            keeps(known.node, &patched.object);
        }
    }
}

pub fn label_selector(bytes: &[u8]) {
    if let Ok(selector) = LabelSelector::parse(text(bytes)) {
        selector.matches(|label| (label.len() % 2 == 0).then_some("12"));
    }
}

pub fn field_selector(bytes: &[u8]) {
    if let Ok(selector) = FieldSelector::parse(text(bytes)) {
        selector.exact("metadata.name");
    }
}

pub fn quantity(bytes: &[u8]) {
    let text = text(bytes);
    if let Ok(canonical) = amounts::canonical(text) {
        let again = amounts::canonical(&canonical);
        assert_eq!(again.as_deref().ok(), Some(&*canonical), "{text:?}");
    }
    if let Ok(amount) = amounts::Quantity::parse(text) {
        let read = amounts::Quantity::parse(&amount.to_string());
        assert_eq!(read.map(|read| read.nanos()).ok(), Some(amount.nanos()), "{text:?} is printed as {amount}");
        let _ = (amount.value(), amount.milli_value(), amount.plus(&amount).to_string(), amount.round_up_milli());
    }
}

pub fn time(bytes: &[u8]) {
    let text = text(bytes);
    if let Ok(time) = times::parse(text) {
        assert_eq!(times::parse(&time.to_string()).map(|read| read.unix()), Ok(time.unix()), "{text:?}");
    }
    if let Ok(time) = times::parse_micro(text) {
        assert_eq!(
            times::parse_micro(&time.to_micro_string()).map(|read| read.to_micro_string()),
            Ok(time.to_micro_string())
        );
    }
    let _ = (times::canonical(text), times::canonical_micro(text));
    if let Ok(nanos) = times::parse_duration(text) {
        assert_eq!(times::parse_duration(&times::print_duration(nanos)), Ok(nanos), "{text:?}");
    }
}

pub fn expression(bytes: &[u8]) {
    let text = text(bytes);
    for scope in [cel::Scope::device(), cel::Scope::schema_rule(), cel::Scope::policy(true, true, false)] {
        cel::problem(text, &scope, cel::Output::Bool);
    }
    cel::uses(text, "variables");
}

pub fn request(bytes: &[u8]) {
    let line = text(bytes);
    let (method, uri) = line.split_once(' ').unwrap_or(("GET", line));
    let (path, query) = uri.split_once('?').map_or((uri, None), |(path, query)| (path, Some(query)));
    let query = Query::read(query);
    if let Ok(method) = method.parse() {
        RequestInfo::read(&method, path, &query);
    }
    query.all("labelSelector").for_each(drop);
}

pub fn continue_token(bytes: &[u8]) {
    if let Ok(token) = Token::decode(text(bytes)) {
        assert_eq!(Token::decode(&token.encode()).map(|read| read.encode()), Ok(token.encode()));
    }
}

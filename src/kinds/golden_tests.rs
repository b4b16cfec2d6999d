//! The rules of all kinds against recorded writes of kube-apiserver, without a server.
//!
//! Each recorded create, update and patch of a kind that has rules is decoded, defaulted, prepared and validated here,
//! and what comes out is compared with the answer: the object without what the server sets, the causes of a refusal,
//! the warnings. What belongs to the way of a write (conflicts, preconditions, most of admission, patches that can't be
//! applied) is not looked at.
//!
//! `GOLDEN=statefulset cargo test -p kontiki golden -- --nocapture` shows what differs in the files with that in their name.

use std::collections::{BTreeMap, HashMap};
use std::sync::LazyLock;

use serde_json::{Map, Value, json};

use super::certificates::CertificateSigningRequest;
use super::pods::{admission, subresources};
use super::{Kind, find, meta};
use crate::codec::tests::{files, shared};
use crate::codec::{Media, Target, Validation, canonicalize, decode_body};
use crate::discovery::Registry;
use crate::field::Errors;
use crate::object::Fields;
use crate::patch::{PatchKind, Patched};
use crate::schema::{Node, builtin};
use crate::status::ApiError;

/// Kinds of which some recorded writes come out differently.
const OPEN: &[&str] = &[
    // Its addresses and ports are claimed beside these rules.
    "Service",
    // The decoder does not tell a certificate bundle of no bytes from none.
    "ValidatingWebhookConfiguration",
    // A patch that brings raw JSON into another spelling changes nothing here.
    "ResourceClaim",
];

/// How much of `generateName` goes into a name.
const MAX_PREFIX: usize = 58;

const CATEGORIES: &[&str] =
    &["defaults", "validation", "services", "patch", "subresources", "write-options", "watch", "crd"];

static REGISTRY: LazyLock<Registry> = LazyLock::new(Registry::builtin);

/// What a path of the API names.
#[derive(Debug, Clone, Default)]
struct Place {
    group: String,
    version: String,
    namespace: String,
    plural: String,
    name: String,
    subresource: String,
    /// The path of the object, without subresource and query.
    object: String,
    ignores_findings: bool,
}

impl Place {
    fn read(path: &str) -> Option<Place> {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let mut parts = path.split('/').skip(1).peekable();
        let group = match parts.next()? {
            "api" => "",
            "apis" => parts.next()?,
            _ => return None,
        };
        let mut place = Place { group: group.into(), version: parts.next()?.into(), ..Place::default() };
        place.ignores_findings = query.contains("fieldValidation=Ignore");
        let rest: Vec<&str> = parts.collect();
        let rest = match rest[..] {
            ["namespaces", namespace, _, ..] if !matches!(rest[2], "status" | "finalize") => {
                place.namespace = namespace.into();
                &rest[2..]
            }
            _ => &rest[..],
        };
        place.plural = rest.first().copied().unwrap_or_default().into();
        place.name = rest.get(1).copied().unwrap_or_default().into();
        place.subresource = rest.get(2..).unwrap_or_default().join("/");
        let tail = if place.subresource.is_empty() { 0 } else { place.subresource.len() + 1 };
        place.object = path[..path.len() - tail].to_owned();
        Some(place)
    }

    fn validation(&self) -> Validation {
        if self.ignores_findings { Validation::Ignore } else { Validation::Warn }
    }

    fn namespaced(&self) -> bool {
        !self.namespace.is_empty()
    }
}

/// Rules and schemas of the kind that a body is of, in the version that is served and the one that is stored.
struct Subject {
    rules: &'static dyn Kind,
    kind: String,
    group: String,
    version: String,
}

type Prepare = fn(&mut Value, &Value);
type Check = fn(&Value, &Value, &mut Errors);

/// Subresources of pods that are updates of the pod, with their rules.
const POD_SUBRESOURCES: &[(&str, Prepare, Check)] = &[
    ("resize", subresources::prepare_resize, subresources::validate_resize),
    ("ephemeralcontainers", subresources::prepare_ephemeral_update, subresources::validate_ephemeral_update),
];

/// Admission fills in a new pod before its rules see it.
fn admit_pod(pod: &mut Value) {
    admission::add_service_account(pod, &json!({}), "kube-api-access-00001");
    for (field, value) in [("priority", json!(0)), ("preemptionPolicy", json!("PreemptLowerPriority"))] {
        if let Some(spec) = pod.at_mut(&["spec"]) {
            spec.set_default(field, value);
        }
    }
}

type Answer = Result<(Value, Vec<String>), ApiError>;

impl Subject {
    fn node(&self, object: &Value) -> Node<'static> {
        let api_version = object.text_at(&["apiVersion"]);
        let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
        builtin().kind(group, version, &self.kind).expect("a version of the kind")
    }

    /// Reads a body up to the stored version, defaults filled in.
    fn read(&self, place: &Place, body: &Value) -> Answer {
        let target = Target { group: &self.group, version: &self.version, kind: &self.kind };
        let (mut object, mut warnings) =
            decode_body(target, Media::Json, body.to_string().as_bytes(), place.validation())?;
        warnings.extend(self.rules.deprecated().map(str::to_owned));
        self.rules.default(&mut object);
        if self.kind == "Pod" && place.subresource.is_empty() {
            admission::add_tolerations(&mut object);
        }
        if place.namespaced() {
            object.set(&["metadata", "namespace"], place.namespace.as_str());
        } else {
            object.take_at(&["metadata", "namespace"]);
        }
        for field in ["managedFields", "selfLink"] {
            object.take_at(&["metadata", field]);
        }
        self.rules.to_storage(&mut object);
        Ok((object, warnings))
    }

    fn finish(&self, mut object: Value, warnings: Vec<String>, mut errors: Errors, given: &Value) -> Answer {
        if !errors.is_empty() {
            errors.show_as_given(given, self.node(&object));
            let name = object.text_at(&["metadata", "name"]);
            let group = object.text_at(&["apiVersion"]).split_once('/').map_or("", |(group, _)| group);
            return Err(ApiError::invalid(group, &self.kind, name, &errors.0));
        }
        canonicalize(self.node(&object), &mut object);
        self.rules.from_storage(&mut object, &self.version);
        canonicalize(self.node(&object), &mut object);
        Ok((object, warnings))
    }

    fn create(&self, place: &Place, body: &Value) -> Answer {
        let (mut object, mut warnings) = self.read(place, body)?;
        let prefix = object.text_at(&["metadata", "generateName"]).to_owned();
        if object.text_at(&["metadata", "name"]).is_empty() && !prefix.is_empty() {
            let kept = prefix.len().min(MAX_PREFIX);
            let name = if self.rules.generates_names() { format!("{}00001", &prefix[..kept]) } else { prefix };
            object.set(&["metadata", "name"], name);
        }
        object.set(&["metadata", "uid"], "00000000-0000-0000-0000-000000000000");
        object.set(&["metadata", "creationTimestamp"], meta::now());
        for field in ["deletionTimestamp", "deletionGracePeriodSeconds"] {
            object.take_at(&["metadata", field]);
        }
        if self.kind == "Pod" {
            admit_pod(&mut object);
        }
        self.rules.prepare_create(&mut object);
        if self.kind == "CertificateSigningRequest" {
            let groups = ["system:masters", "system:authenticated"].map(str::to_owned);
            CertificateSigningRequest::set_requester(&mut object, "admin", "admin-uid", &groups, Value::Null);
        }
        if self.rules.counts_generation() {
            object.set(&["metadata", "generation"], 1);
        }
        canonicalize(self.node(&object), &mut object);
        let mut errors = Errors::default();
        self.rules.validate(&object, &mut errors);
        meta::validate_create(self.rules, place.namespaced(), &object, &mut errors);
        warnings.extend(self.rules.warnings(&object, None));
        self.finish(object, warnings, errors, body)
    }

    /// What was given is what the request had in its body, the object itself or a patch.
    fn update(&self, place: &Place, body: &Value, given: &Value, old: &Value) -> Answer {
        let (mut object, mut warnings) = self.read(place, body)?;
        let mut old = old.clone();
        self.rules.to_storage(&mut old);
        canonicalize(self.node(&old), &mut old);
        let status = place.subresource == "status";
        let kept = ["uid", "creationTimestamp", "generation", "deletionTimestamp", "deletionGracePeriodSeconds"];
        for field in kept {
            let path = ["metadata", field];
            match old.at(&path) {
                Some(value) if field != "uid" || object.at(&path).is_none() => object.set(&path, value.clone()),
                _ => {}
            }
        }
        let own = POD_SUBRESOURCES.iter().find(|(name, ..)| *name == place.subresource);
        match own {
            Some((_, prepare, _)) => prepare(&mut object, &old),
            None if status => self.rules.prepare_status_update(&mut object, &old),
            None => self.rules.prepare_update(&mut object, &old),
        }
        canonicalize(self.node(&object), &mut object);
        if !status && self.rules.counts_generation() && self.rules.generation_moves(&object, &old) {
            let generation = old.int_at(&["metadata", "generation"]).unwrap_or_default();
            object.set(&["metadata", "generation"], generation + 1);
        }
        let mut errors = Errors::default();
        if let Some((_, _, validate)) = own {
            meta::validate_subresource_update(place.namespaced(), &object, &old, &mut errors);
            validate(&object, &old, &mut errors);
        } else if status {
            meta::validate_subresource_update(place.namespaced(), &object, &old, &mut errors);
            self.rules.validate_status_update(&object, &old, &mut errors);
        } else {
            meta::validate_update(self.rules, place.namespaced(), &object, &old, &mut errors);
            self.rules.validate_update(&object, &old, &mut errors);
            warnings.extend(self.rules.warnings(&object, Some(&old)));
        }
        self.finish(object, warnings, errors, given)
    }
}

/// A recorded scenario, as far as it has come.
#[derive(Default)]
struct Scenario {
    objects: HashMap<String, Value>,
    variables: HashMap<String, Value>,
}

enum Outcome {
    NotLookedAt,
    Same,
    Different(Vec<String>),
}

impl Scenario {
    fn step(&mut self, step: &Value) -> (Option<&'static str>, Outcome) {
        let request = &step["request"];
        let path = self.interpolated(&request["path"]);
        let method = request.text_at(&["method"]);
        let recorded = &step["response"];
        let succeeded = recorded.int_at(&["status"]).is_some_and(|status| status < 300);
        let Some(place) = Place::read(path.as_str().unwrap_or_default()) else { return (None, Outcome::NotLookedAt) };
        let body = self.body(request);
        let mut looked_at = (None, Outcome::NotLookedAt);
        let mut ours = None;
        let patched = (method == "PATCH").then(|| self.patched(&place, request, &body)).flatten();
        let written = match patched {
            None => self.answer(method, &place, &body, &body),
            Some(Patched { object, warnings }) => {
                let with_findings = |(object, more)| (object, [warnings, more].concat());
                self.answer("PUT", &place, &object, &body).map(|(subject, answer)| (subject, answer.map(with_findings)))
            }
        };
        if let Some((subject, answer)) = written {
            let outcome = judge(step, &answer);
            ours = answer.ok().map(|(object, _)| object);
            looked_at = (Some(subject.rules.kind()), outcome);
        }
        let dry = path.as_str().is_some_and(|path| path.contains("dryRun=All"));
        let answered = match recorded.at(&["body"]) {
            Some(body) => Some(concrete(body)),
            None => ours.or_else(|| self.objects.get(&place.object).filter(|_| method == "GET").cloned()),
        };
        for (name, path) in step["capture"].as_object().into_iter().flatten() {
            let value = answered.as_ref().and_then(|answer| lookup(answer, path.as_str()?)).unwrap_or_default();
            self.variables.insert(name.clone(), value);
        }
        if succeeded && !dry && method != "GET" && matches!(&*place.subresource, "" | "status" | "resize") {
            let mut key = place.object.clone();
            if method == "POST" {
                key += "/";
                key += answered.as_ref().map(|object| object.text_at(&["metadata", "name"])).unwrap_or_default();
            }
            match answered.filter(|object| method != "DELETE" && object["kind"] != "Status") {
                Some(mut object) => {
                    object.take_at(&["metadata", "managedFields"]);
                    self.objects.insert(key, object)
                }
                None => self.objects.remove(&key),
            };
        } else if succeeded && !dry && method != "GET" {
            self.objects.remove(&place.object);
        }
        looked_at
    }

    fn answer(&self, method: &str, place: &Place, body: &Value, given: &Value) -> Option<(Subject, Answer)> {
        let says = body.text_at(&["apiVersion"]);
        let expected =
            if place.group.is_empty() { place.version.clone() } else { format!("{}/{}", place.group, place.version) };
        let kind = body.text_at(&["kind"]);
        let taken = REGISTRY.find(&place.group, &place.version, &place.plural).is_some_and(|taken| taken.kind == kind);
        let rules = find(&place.group, kind).filter(|_| says == expected && taken)?;
        let (group, version) = (place.group.clone(), place.version.clone());
        let subject = Subject { rules, kind: kind.to_owned(), group, version };
        let answer = match (method, &*place.subresource) {
            ("POST", "") if place.name.is_empty() => subject.create(place, body),
            ("PUT", "" | "status" | "resize" | "ephemeralcontainers") => {
                let old =
                    self.objects.get(&place.object).filter(|_| body.text_at(&["metadata", "name"]) == place.name)?;
                let unconditional = body.text_at(&["metadata", "resourceVersion"]).is_empty();
                if unconditional && !rules.unconditional_update() {
                    return None;
                }
                subject.update(place, body, given, old)
            }
            _ => return None,
        };
        Some((subject, answer))
    }

    /// What a patch makes of the object, with which it is replaced; none where it can't be applied, which has tests of
    /// its own.
    fn patched(&self, place: &Place, request: &Value, body: &Value) -> Option<Patched> {
        let content_type = request.text_at(&["headers", "Content-Type"]);
        let patch = PatchKind::of(content_type, false).ok().filter(|patch| *patch != PatchKind::Apply)?;
        let old = self.objects.get(&place.object)?;
        let (group, version, kind) = (&*place.group, &*place.version, old.text_at(&["kind"]));
        let node = builtin().kind(group, version, kind)?;
        let target = Target { group, version, kind };
        let body = body.to_string();
        crate::patch::apply(patch, target, node, old, body.as_bytes(), place.validation()).ok()
    }

    fn body(&self, request: &Value) -> Value {
        let Some(from) = request.at(&["body_from"]) else { return self.interpolated(&request["body"]) };
        let mut object = self.variables.get(from.text_at(&["var"])).cloned().unwrap_or_default();
        if let Some(patch) = from.at(&["patch"]) {
            merge(&mut object, &self.interpolated(patch));
        }
        for (path, value) in from.map_at(&["set"]).into_iter().flatten() {
            set(&mut object, path, &self.interpolated(value));
        }
        object
    }

    fn interpolated(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => {
                let mut text = text.clone();
                for (name, value) in &self.variables {
                    let mark = format!("${{{name}}}");
                    if text == mark {
                        return value.clone();
                    }
                    if text.contains(&mark) {
                        let shown = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                        text = text.replace(&mark, &shown);
                    }
                }
                text.into()
            }
            Value::Array(items) => items.iter().map(|item| self.interpolated(item)).collect(),
            Value::Object(map) => {
                let pairs = map.iter().map(|(key, value)| {
                    let key = self.interpolated(&key.as_str().into());
                    (key.as_str().unwrap_or_default().to_owned(), self.interpolated(value))
                });
                Value::Object(pairs.collect::<Map<_, _>>())
            }
            other => other.clone(),
        }
    }
}

fn merge(object: &mut Value, patch: &Value) {
    let Some(patch) = patch.as_object() else {
        *object = patch.clone();
        return;
    };
    let map = object.make_map(&[]);
    for (key, value) in patch {
        if value.is_null() {
            map.remove(key);
        } else {
            merge(map.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}

/// The steps of a path such as `a.b[0]["c.d"]`.
fn tokens(path: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = path.strip_prefix('$').unwrap_or(path);
    while !rest.is_empty() {
        if let Some((key, tail)) = rest.strip_prefix("[\"").and_then(|quoted| quoted.split_once("\"]")) {
            found.push(key);
            rest = tail;
        } else {
            let (start, stops) = if rest.starts_with('[') { (1, &[']'][..]) } else { (0, &['.', '['][..]) };
            let end = rest[start..].find(stops).map_or(rest.len(), |at| at + start);
            if end > start {
                found.push(&rest[start..end]);
            }
            rest = rest[end..].strip_prefix(['.', ']']).unwrap_or(&rest[end..]);
        }
    }
    found
}

fn lookup(object: &Value, path: &str) -> Option<Value> {
    let found = tokens(path).into_iter().try_fold(object, |value, step| match step.parse::<usize>() {
        Ok(index) if value.is_array() => value.get(index),
        _ => value.get(step),
    });
    found.cloned()
}

fn set(object: &mut Value, path: &str, value: &Value) {
    let steps = tokens(path);
    let Some((last, above)) = steps.split_last() else { return };
    let place = above.iter().try_fold(object, |value, step| match value {
        Value::Array(items) => items.get_mut(step.parse::<usize>().ok()?),
        other => other.get_mut(step),
    });
    match (place, last.parse::<usize>()) {
        (Some(Value::Array(items)), Ok(index)) if index < items.len() => {
            if value.is_null() {
                items.remove(index);
            } else {
                items[index] = value.clone();
            }
        }
        (Some(Value::Object(map)), _) => {
            if value.is_null() {
                map.remove(*last);
            } else {
                map.insert((*last).to_owned(), value.clone());
            }
        }
        _ => {}
    }
}

/// What stands for a value that changes from run to run (`<uid:1>`): where, its name and number.
fn placeholder(text: &str) -> Option<(std::ops::Range<usize>, &str, &str)> {
    let start = text.find('<')?;
    let end = start + text[start..].find('>')?;
    let (name, number) = text[start + 1..end].split_once(':').unwrap_or((&text[start + 1..end], "1"));
    let known = ["uid", "rv", "gen", "ip", "port", "time", "mtime", "any", "age", "hash"];
    known.contains(&name).then_some((start..end + 1, name, number))
}

/// A text with values in the places of its placeholders.
fn filled(text: &str) -> String {
    let Some((at, name, number)) = placeholder(text) else { return text.to_owned() };
    let value = match name {
        "uid" => format!("00000000-0000-0000-0000-{number:0>12}"),
        "gen" => "00001".to_owned(),
        "ip" => format!("10.0.0.{number}"),
        "port" => format!("3{number:0>4}"),
        "time" => "2026-01-01T00:00:00Z".to_owned(),
        "mtime" => "2026-01-01T00:00:00.000000Z".to_owned(),
        _ => number.to_owned(),
    };
    format!("{}{value}{}", &text[..at.start], filled(&text[at.end..]))
}

/// A recorded object with values in the places of its placeholders.
fn concrete(value: &Value) -> Value {
    match value {
        Value::String(text) if text.starts_with("<port:") => filled(text).parse().unwrap_or_default(),
        Value::String(text) => filled(text).into(),
        Value::Array(items) => items.iter().map(concrete).collect(),
        Value::Object(map) => {
            let known = map.iter().filter(|(_, value)| *value != "<any>");
            known.map(|(key, value)| (key.clone(), concrete(value))).collect()
        }
        other => other.clone(),
    }
}

fn matches_pattern(pattern: &str, path: &str) -> bool {
    let regex = regex::escape(pattern).replace(r"\*\*", ".*").replace(r"\[\*\]", r"\[\d+\]").replace(r"\*", r"[^.\[]+");
    regex::Regex::new(&format!(r"^{regex}([.\[].*)?$")).is_ok_and(|regex| regex.is_match(path))
}

const SET_BY_SERVER: &[&str] =
    &["metadata.managedFields", "metadata.resourceVersion", "metadata.uid", "metadata.creationTimestamp"];

fn differences(at: &str, theirs: &Value, ours: &Value, ignored: &[&str], found: &mut Vec<String>) {
    if ignored.iter().any(|pattern| matches_pattern(pattern, at)) {
        return;
    }
    match (theirs, ours) {
        (Value::Object(a), Value::Object(b)) => {
            let names: std::collections::BTreeSet<_> = a.keys().chain(b.keys()).collect();
            for name in names {
                let at = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
                let (a, b) = (a.get(name).unwrap_or(&Value::Null), b.get(name).unwrap_or(&Value::Null));
                differences(&at, a, b, ignored, found);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (i, (a, b)) in a.iter().zip(b).enumerate() {
                differences(&format!("{at}[{i}]"), a, b, ignored, found);
            }
        }
        (Value::String(text), other) if placeholder(text).is_some() && !other.is_null() => {}
        _ if theirs == ours => {}
        _ => found.push(format!("{at}: expected {theirs}, got {ours}")),
    }
}

/// The causes of a refusal, in an order of their own, with what it is about.
fn causes(status: &Value) -> Vec<String> {
    let details = &status["details"];
    let mut lines: Vec<String> =
        details["causes"].as_array().into_iter().flatten().map(|c| filled(&c.to_string())).collect();
    lines.sort();
    lines.insert(0, filled(&format!("{} {} {}", details["kind"], details["group"], details["name"])));
    lines
}

fn judge(step: &Value, answer: &Answer) -> Outcome {
    let recorded = &step["response"];
    let status = recorded.int_at(&["status"]).unwrap_or_default();
    let mut found = Vec::new();
    match (status, answer) {
        (200 | 201, Ok((object, warnings))) => {
            if let Some(body) = recorded.at(&["body"]) {
                let ignored = step.list_at(&["ignore"]).iter().filter_map(Value::as_str);
                let ignored: Vec<&str> = ignored.chain(SET_BY_SERVER.iter().copied()).collect();
                differences("", body, object, &ignored, &mut found);
            }
            let theirs = recorded.list_at(&["headers", "warning"]).iter().filter_map(Value::as_str);
            let mut theirs: Vec<String> = theirs.map(unquoted).collect();
            let mut ours = warnings.clone();
            // The order of findings is that of the fields in the text, which is lost here.
            theirs.sort();
            ours.sort();
            if theirs != ours {
                found.push(format!("expected warnings {theirs:?}, got {ours:?}"));
            }
        }
        (422, Err(error)) if error.code == 422 => {
            let (theirs, ours) = (causes(&recorded["body"]), causes(&error.to_status()));
            let only = |a: &[String], b: &[String]| {
                let mut left = b.to_vec();
                let mut only = a.to_vec();
                only.retain(|line| match left.iter().position(|other| other == line) {
                    Some(at) => {
                        left.swap_remove(at);
                        false
                    }
                    None => true,
                });
                only
            };
            found.extend(only(&theirs, &ours).into_iter().map(|line| format!("missing: {line}")));
            found.extend(only(&ours, &theirs).into_iter().map(|line| format!("too many: {line}")));
        }
        (400, Err(error)) => {
            let theirs = recorded.text_at(&["body", "message"]);
            if error.message != theirs {
                found.push(format!("expected {theirs:?}, got {:?}", error.message));
            }
        }
        // What else is refused is refused on the way to the rules or after them.
        (status, Ok(_)) if status != 422 => return Outcome::NotLookedAt,
        (422, _) if recorded.text_at(&["body", "details", "kind"]).ends_with("Options") => return Outcome::NotLookedAt,
        (422, _) if recorded.list_at(&["body", "details", "causes"]).iter().any(|cause| cause["field"] == "patch") => {
            return Outcome::NotLookedAt;
        }
        (403 | 409 | 500, _) => return Outcome::NotLookedAt,
        (_, Ok(_)) => found.extend(causes(&recorded["body"]).into_iter().map(|line| format!("missing: {line}"))),
        (_, Err(error)) => found.push(format!("expected {status}, got {}: {}", error.code, error.message)),
    }
    if found.is_empty() { Outcome::Same } else { Outcome::Different(found) }
}

/// The text of a `Warning` header.
fn unquoted(header: &str) -> String {
    let inner = header.strip_prefix("299 - \"").and_then(|text| text.strip_suffix('"')).unwrap_or(header);
    inner.replace("\\\"", "\"").replace("\\\\", "\\")
}

/// The steps of a scenario, and those that it makes while it watches.
fn steps(scenario: &Value) -> impl Iterator<Item = &Value> {
    let steps = scenario["steps"].as_array().into_iter().flatten();
    steps.flat_map(|step| step["steps"].as_array().map_or(std::slice::from_ref(step), Vec::as_slice))
}

#[test]
fn recorded_writes_come_out_the_same() {
    let Some(dir) = shared("golden") else { return };
    let shown = std::env::var("GOLDEN").ok();
    let mut table: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    let mut wrong = Vec::new();
    for file in CATEGORIES.iter().flat_map(|category| files(&dir.join(category), "json")) {
        let text = std::fs::read(&file).expect("readable");
        let recorded: Value = serde_json::from_slice(&text).expect("JSON");
        let mut scenario = Scenario::default();
        for step in steps(&recorded) {
            let (Some(kind), outcome) = scenario.step(step) else { continue };
            let count = table.entry(kind).or_default();
            match outcome {
                Outcome::NotLookedAt => continue,
                Outcome::Same => count.0 += 1,
                Outcome::Different(found) => {
                    let name = file.file_stem().unwrap_or_default().to_string_lossy();
                    let what = format!("{name} ({}):\n  {}", step.text_at(&["note"]), found.join("\n  "));
                    if shown.as_deref().is_some_and(|part| name.contains(part)) {
                        eprintln!("{what}");
                    }
                    if !OPEN.contains(&kind) {
                        wrong.push(what);
                    }
                }
            }
            count.1 += 1;
        }
    }
    for (kind, (same, all)) in &table {
        eprintln!("{kind}: {same} of {all}");
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn paths_of_the_api_are_read() {
    let place = Place::read("/apis/apps/v1/namespaces/n/deployments/a/status?dryRun=All").expect("a place");
    assert_eq!((&*place.namespace, &*place.name, &*place.subresource), ("n", "a", "status"));
    assert_eq!(place.object, "/apis/apps/v1/namespaces/n/deployments/a");
    assert!(!Place::read("/api/v1/namespaces/n").is_some_and(|place| place.namespaced()));
    assert_eq!(tokens("$.a.b[0][\"c.d\"].e"), ["a", "b", "0", "c.d", "e"]);
}

//! Create: `POST` to a collection, and the second half of a `PUT` or an apply to a name that isn't there yet.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use kontiki_storage::{Condition, Key, View};
use rand::Rng;
use serde_json::{Value, json};

use super::commit::{Plan, Reply, carry_out};
use super::options::WriteOptions;
use super::subresource::Face;
use super::{Answer, Request, fields, input, key, services, target};
use crate::admission::{self, Operation};
use crate::auth::{Attributes, User};
use crate::codec::{canonicalize, encode_for_store};
use crate::field::Errors;
use crate::kinds::certificates::CertificateSigningRequest;
use crate::kinds::{Kind, meta};
use crate::object::Fields;
use crate::request::Verb;
use crate::status::{ApiError, Details, Result};
use crate::time;

pub async fn create(request: &mut Request) -> Result<Answer> {
    let options = WriteOptions::read(request, "CreateOptions", None)?;
    let mut first = Some(read(request, &options)?);
    carry_out(request, options.dry_run, |request, view| {
        let mut object = match first.take() {
            Some(object) => object,
            None => again(request, |request| read(request, &options))?,
        };
        fields::manage(request, &options, Face::Main, None, &mut object);
        decide(request, view, &options, object)
    })
    .await
}

/// Repeats what has already given its warnings.
pub fn again<T>(request: &mut Request, make: impl FnOnce(&mut Request) -> Result<T>) -> Result<T> {
    let warnings = request.warnings.len();
    let made = make(request);
    request.warnings.truncate(warnings);
    made
}

/// The object of the body in the stored version, with defaults.
fn read(request: &mut Request, options: &WriteOptions) -> Result<Value> {
    let resource = request.resource.clone();
    let mut object = input::decode(request, target(&resource, ""), options)?;
    let rules = request.kind()?;
    rules.default(&mut object);
    rules.to_storage(&mut object);
    input::forget_system_fields(&mut object);
    input::agree_on_namespace(request, &mut object)?;
    input::single_owners(&mut object, false, &mut request.warnings);
    Ok(object)
}

/// The names that are tried before a generated one is given up.
const NAMES: usize = 8;

/// Decides on a new object that has come from the client.
pub fn decide(request: &mut Request, view: &View, options: &WriteOptions, mut object: Value) -> Result<Plan> {
    let resource = request.resource.clone();
    let rules = request.kind()?;
    let write = admission::Write { operation: Operation::Create, old: None };
    let admitted = admission::mutate(request, view, write, &mut object)?;
    input::single_owners(&mut object, true, &mut request.warnings);
    object.set(&["metadata", "uid"], new_uid());
    object.set(&["metadata", "creationTimestamp"], time::now());
    draw_name(request, view, rules, &mut object);
    let claims = services::create(request, view, &mut object, options.dry_run)?;
    rules.prepare_create(&mut object);
    if &*resource.kind == "CertificateSigningRequest" {
        let User { name, uid, groups, extra } = &*request.user;
        CertificateSigningRequest::set_requester(&mut object, name, uid, groups, json!(extra));
    }
    if rules.counts_generation() {
        object.set(&["metadata", "generation"], 1);
    }
    canonicalize(request.stored_node()?, &mut object);
    let name = object.text_at(&["metadata", "name"]).to_owned();
    let mut errors = Errors::default();
    meta::validate_create(rules, resource.namespaced, &object, &mut errors);
    rules.validate(&object, &mut errors);
    if !errors.is_empty() {
        return Err(request.invalid(&name, errors));
    }
    request.warnings.extend(rules.warnings(&object, None));
    // Who may update may not always create.
    if request.info.verb != Verb::Create {
        let attributes = Attributes { verb: "create", ..Attributes::of(&request.user, &request.info, &request.query) };
        request.server.authorizer.check(&attributes)?;
    }
    let validated = admission::validate(request, view, write, &object)?;
    match object.text_at(&["metadata", "resourceVersion"]) {
        "" => {}
        text => match parse_version(text)? {
            0 => {}
            _ => return Err(ApiError::new(500, "", "resourceVersion should not be set on objects to be created")),
        },
    }
    let key = key(&resource, object.text_at(&["metadata", "namespace"]), &name);
    if view.get(key.as_str()).is_some() {
        return Err(taken(request, view, &key, &object, &name));
    }
    let (value, revision_at) = encode_for_store(&object);
    let value = Bytes::from(value);
    let mut plan = Plan::new(Reply::Stored { code: 201, value: value.clone(), revision_at }, None)
        .on(Condition::Absent(key.clone()));
    plan.join(admitted);
    plan.join(validated);
    plan.put(key, value, revision_at, expiry(request));
    claims.enter(&mut plan, &object);
    Ok(plan)
}

/// Draws the name of an object that has only a prefix of one.
fn draw_name(request: &Request, view: &View, rules: &dyn Kind, object: &mut Value) {
    let prefix = object.text_at(&["metadata", "generateName"]).to_owned();
    if prefix.is_empty() || !object.text_at(&["metadata", "name"]).is_empty() {
        return;
    }
    if !rules.generates_names() {
        return object.set(&["metadata", "name"], prefix);
    }
    let namespace = object.text_at(&["metadata", "namespace"]).to_owned();
    for _ in 0..NAMES {
        let name = generated(&prefix);
        let taken = view.get(key(&request.resource, &namespace, &name).as_str()).is_some();
        object.set(&["metadata", "name"], name);
        if !taken {
            break;
        }
    }
}

fn taken(request: &Request, view: &View, key: &Key, object: &Value, name: &str) -> ApiError {
    let resource = &request.resource;
    let mut error = ApiError::already_exists(&resource.group, &resource.plural, name);
    if !object.text_at(&["metadata", "generateName"]).is_empty() {
        error.message.push_str(", the server was not able to generate a unique name for the object");
        error.details = error.details.map(|details| Details { retry_after_seconds: 1, ..details });
    }
    let old: Option<Value> = view.get(key.as_str()).and_then(|record| serde_json::from_slice(&record.value).ok());
    if old.is_some_and(|old| old.at(&["metadata", "deletionTimestamp"]).is_some()) {
        error.message.insert_str(0, "object is being deleted: ");
    }
    error
}

/// Of the random part of a name; without vowels and what looks alike.
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
const MOST_OF_PREFIX: usize = 58;

/// A name that begins like this and that hardly anybody has yet.
pub fn generated(prefix: &str) -> String {
    let mut end = prefix.len().min(MOST_OF_PREFIX);
    while !prefix.is_char_boundary(end) {
        end -= 1;
    }
    let mut rng = rand::rng();
    let suffix = (0..5).map(|_| char::from(ALPHABET[rng.random_range(0..ALPHABET.len())]));
    prefix[..end].chars().chain(suffix).collect()
}

pub fn new_uid() -> String {
    uuid::Builder::from_random_bytes(rand::random()).into_uuid().to_string()
}

/// `metadata.resourceVersion` as upstream reads it.
pub fn parse_version(text: &str) -> Result<u64> {
    super::list::uint("", text).map_err(|_| {
        let text = crate::field::go_quote(text);
        ApiError::new(500, "", format!("strconv.ParseUint: parsing {text}: invalid syntax"))
    })
}

/// When the object is to go by itself.
pub fn expiry(request: &Request) -> Option<u64> {
    if &*request.resource.table != "events" {
        return None;
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Some((now + request.server.settings.event_ttl).as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_names_end_in_five_characters() {
        let name = generated("web-");
        assert_eq!((name.len(), &name[..4]), (9, "web-"));
        assert!(name[4..].bytes().all(|b| ALPHABET.contains(&b)), "{name}");
        assert_eq!(generated(&"é".repeat(40)).chars().count(), 29 + 5);
    }
}

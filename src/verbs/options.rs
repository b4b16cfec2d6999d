//! The options of writes: `CreateOptions`, `UpdateOptions` and `PatchOptions` from the query, `DeleteOptions` from the
//! body or the query.

use serde_json::Value;

use super::list::int;
use super::{Request, input};
use crate::codec::{self, Media, Meta, Target, Validation};
use crate::field::{Errors, Path, Raw, go_quote};
use crate::object::Fields;
use crate::status::{ApiError, Result};

/// What a create, update or patch is to do beside its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriteOptions {
    pub dry_run: bool,
    /// Who is said to manage the fields that the write sets.
    pub manager: String,
    pub validation: Validation,
    /// Of an apply: take fields that others manage.
    pub force: bool,
}

/// The most characters that a field manager's name may have.
const MAX_MANAGER: usize = 128;

impl WriteOptions {
    /// `kind` names the options in errors. `apply`: whether this is a patch of that type; none for other verbs.
    pub fn read(request: &Request, kind: &str, apply: Option<bool>) -> Result<WriteOptions> {
        let query = &request.query;
        let manager = query.text("fieldManager");
        let mut errors = Errors::default();
        match apply {
            Some(true) if manager.is_empty() => {
                errors.required(&Path::new("fieldManager"), "is required for apply patch");
            }
            Some(false) if query.get("force").is_some() => {
                errors.forbidden(&Path::new("force"), "may not be specified for non-apply patch");
            }
            _ => {}
        }
        check_manager(manager, &mut errors);
        let dry_run: Vec<&str> = query.all("dryRun").collect();
        check_dry_run(&dry_run, &mut errors);
        let validation = match query.text("fieldValidation") {
            "" | "Warn" => Validation::Warn,
            "Ignore" => Validation::Ignore,
            "Strict" => Validation::Strict,
            other => {
                let supported = ["", "Ignore", "Strict", "Warn"];
                errors.not_supported(&Path::new("fieldValidation"), other, &supported);
                Validation::Warn
            }
        };
        if !errors.is_empty() {
            return Err(ApiError::invalid("meta.k8s.io", kind, "", &errors.0));
        }
        let manager = if manager.is_empty() { manager_of_agent(request) } else { manager.to_owned() };
        Ok(WriteOptions { dry_run: !dry_run.is_empty(), manager, validation, force: query.flag("force") })
    }
}

fn check_manager(name: &str, errors: &mut Errors) {
    let path = Path::new("fieldManager");
    if name.len() > MAX_MANAGER {
        errors.too_long(&path, MAX_MANAGER);
    }
    for (at, c) in name.char_indices().filter(|(_, c)| !printable(*c)) {
        errors.invalid(&path, name, format!("invalid character U+{:04X} (at position {at})", u32::from(c)));
    }
}

fn check_dry_run(dry_run: &[&str], errors: &mut Errors) {
    if dry_run.iter().any(|value| *value != "All") {
        let shown = Value::from(dry_run.to_vec()).to_string();
        errors.not_supported(&Path::new("dryRun"), Raw(shown), &["All"]);
    }
}

/// Go's `unicode.IsPrint`, near enough: of the spaces only the plain one is.
fn printable(c: char) -> bool {
    c == ' ' || !(c.is_control() || c.is_whitespace())
}

/// What precedes the first slash of the user agent.
fn manager_of_agent(request: &Request) -> String {
    let agent = request.headers.get(http::header::USER_AGENT).map(|value| String::from_utf8_lossy(value.as_bytes()));
    let agent = agent.unwrap_or_default();
    let mut name = String::new();
    for c in agent.split('/').next().unwrap_or_default().chars().filter(|c| printable(*c)) {
        if name.len() + c.len_utf8() > MAX_MANAGER {
            break;
        }
        name.push(c);
    }
    name
}

/// `propagationPolicy`, the old `orphanDependents` included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    Orphan,
    Background,
    Foreground,
}

/// `metav1.DeleteOptions`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeleteOptions {
    pub dry_run: bool,
    pub grace: Option<i64>,
    pub propagation: Option<Propagation>,
    /// Said in the old way that a deletion need not wait for anything: the answer's code tells whether it did.
    pub orphan_false: bool,
    pub uid: Option<String>,
    pub version: Option<String>,
}

/// The scheme that reads the bodies of deletions, as errors name it.
const SCHEME: &str = "k8s.io/apimachinery/pkg/apis/meta/internalversion/scheme/register.go:27";
const DELETE_OPTIONS: Target<'static> = Target { group: "meta.k8s.io", version: "v1", kind: "DeleteOptions" };
/// The other kinds that the scheme has in whichever version.
const UNVERSIONED: &[&str] =
    &["APIGroup", "APIGroupList", "APIResourceList", "APIVersions", "CreateOptions", "Status", "UpdateOptions"];

impl DeleteOptions {
    pub fn read(request: &Request) -> Result<DeleteOptions> {
        let value = if request.body.is_empty() { of_query(request)? } else { of_body(request)? };
        DeleteOptions::from_value(&value)
    }

    /// From the object; also where it is part of another (evictions).
    pub fn from_value(value: &Value) -> Result<DeleteOptions> {
        let mut errors = Errors::default();
        let path = Path::new("propagationPolicy");
        let orphan = value.bool_at(&["orphanDependents"]);
        let policy = value.at(&["propagationPolicy"]).and_then(Value::as_str);
        if let (Some(_), Some(policy)) = (orphan, policy) {
            errors.invalid(&path, policy, "orphanDependents and deletionPropagation cannot be both set");
        }
        let propagation = match policy {
            Some("Orphan") => Some(Propagation::Orphan),
            Some("Background") => Some(Propagation::Background),
            Some("Foreground") => Some(Propagation::Foreground),
            Some(other) => {
                errors.not_supported(&path, other, &["Foreground", "Background", "Orphan", "nil"]);
                None
            }
            None => orphan.map(|orphan| if orphan { Propagation::Orphan } else { Propagation::Background }),
        };
        let dry_run: Vec<&str> = value.list_at(&["dryRun"]).iter().filter_map(Value::as_str).collect();
        check_dry_run(&dry_run, &mut errors);
        if !errors.is_empty() {
            return Err(ApiError::invalid("meta.k8s.io", "DeleteOptions", "", &errors.0));
        }
        let text = |path: &[&str]| value.at(path).and_then(Value::as_str).map(str::to_owned);
        Ok(DeleteOptions {
            dry_run: !dry_run.is_empty(),
            grace: value.int_at(&["gracePeriodSeconds"]),
            propagation,
            orphan_false: orphan == Some(false),
            uid: text(&["preconditions", "uid"]),
            version: text(&["preconditions", "resourceVersion"]),
        })
    }

    /// The preconditions, in the words of the check before a deletion.
    pub fn check(&self, group: &str, kind: &str, old: &Value) -> Result<()> {
        let meta = |field: &str| old.text_at(&["metadata", field]);
        let checks = [
            (&self.uid, "uid", "UID", "The object might have been deleted and then recreated"),
            (&self.version, "resourceVersion", "ResourceVersion", "The object might have been modified"),
        ];
        for (wanted, field, word, hint) in checks {
            let found = meta(field);
            if let Some(wanted) = wanted.as_deref().filter(|wanted| *wanted != found) {
                let why = format!(
                    "the {word} in the precondition ({wanted}) does not match the {word} in record ({found}). {hint}"
                );
                return Err(ApiError::conflict(group, kind, meta("name"), why));
            }
        }
        Ok(())
    }
}

fn of_query(request: &Request) -> Result<Value> {
    let query = &request.query;
    let mut value = Value::Object(serde_json::Map::new());
    if let Some(text) = query.get("gracePeriodSeconds") {
        value.set(&["gracePeriodSeconds"], int(text)?);
    }
    if query.get("orphanDependents").is_some() {
        value.set(&["orphanDependents"], query.flag("orphanDependents"));
    }
    if let Some(policy) = query.get("propagationPolicy") {
        value.set(&["propagationPolicy"], policy);
    }
    let dry_run: Vec<&str> = query.all("dryRun").collect();
    if !dry_run.is_empty() {
        value.set(&["dryRun"], dry_run);
    }
    Ok(value)
}

/// Any kind that calls itself `DeleteOptions` will do, whichever group it says it is of.
fn of_body(request: &Request) -> Result<Value> {
    let body = &request.body;
    let media = input::media(&request.headers)?;
    if media == Media::Protobuf {
        let unreadable = |why: codec::protobuf::Error| ApiError::bad_request(why.to_string());
        let envelope = codec::protobuf::unwrap(body).map_err(unreadable)?;
        check_kind(Meta { api_version: envelope.api_version, kind: envelope.kind })?;
        return codec::protobuf::decode(options_schema()?, &envelope.raw).map_err(unreadable);
    }
    let yaml = match media {
        Media::Yaml => Some(codec::from_yaml(body).map_err(|why| ApiError::bad_request(why.to_string()))?),
        _ => None,
    };
    let text = yaml.map(|yaml| yaml.value.to_string().into_bytes());
    let text = text.as_deref().unwrap_or(body);
    check_kind(Meta::read(text).map_err(ApiError::bad_request)?)?;
    let decoded = codec::decode(options_schema()?, text);
    decoded.map(|decoded| decoded.value).map_err(|why| ApiError::bad_request(why.to_string()))
}

fn check_kind(meta: Meta) -> Result<()> {
    let actual = meta.actual(DELETE_OPTIONS).map_err(ApiError::bad_request)?;
    let (kind, version) = (&*actual.kind, actual.api_version());
    if kind == DELETE_OPTIONS.kind {
        return Ok(());
    }
    Err(ApiError::bad_request(match UNVERSIONED.contains(&kind) {
        true => format!("converting (v1.{kind}) to (v1.DeleteOptions): unknown conversion"),
        false => {
            let (kind, version) = (go_quote(kind), go_quote(&version));
            format!("no kind {kind} is registered for version {version} in scheme \"{SCHEME}\"")
        }
    }))
}

fn options_schema() -> Result<crate::schema::Node<'static>> {
    let node = crate::schema::builtin().kind("", "v1", "DeleteOptions");
    node.ok_or_else(|| ApiError::internal("no schema for kind DeleteOptions"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deletion_takes_nothing_but_its_options() {
        let told = |body: &str| {
            let meta = Meta::read(body.as_bytes()).map_err(ApiError::bad_request);
            meta.and_then(check_kind).err().map(|error| error.message).unwrap_or_default()
        };
        for (body, expected) in [
            ("{}", ""),
            ("null", ""),
            (r#"{"kind": "DeleteOptions", "apiVersion": "apps/v9"}"#, ""),
            (r#"{"kind": "DeleteOptions", "apiVersion": "a/b/c"}"#, "unexpected GroupVersion string: a/b/c"),
            (
                r#"{"kind": "Pod", "apiVersion": "v1"}"#,
                r#"no kind "Pod" is registered for version "v1" in scheme "k8s.io/apimachinery/pkg/apis/meta/internalversion/scheme/register.go:27""#,
            ),
            (r#"{"kind": "Status"}"#, "converting (v1.Status) to (v1.DeleteOptions): unknown conversion"),
            (
                r#"{"kind": 5}"#,
                "couldn't get version/kind; json parse error: json: cannot unmarshal number into Go struct field .kind of type string",
            ),
            (
                "[]",
                r#"couldn't get version/kind; json parse error: json: cannot unmarshal array into Go value of type struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }"#,
            ),
        ] {
            assert_eq!(told(body), expected, "{body}");
        }
    }
}

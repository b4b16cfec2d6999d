//! CustomResourceDefinition: the names, versions and schemas of what users bring.
//!
//! Upstream checks its internal form, in which what all versions have alike stands once for all of them; errors name the
//! fields there (`spec.validation` for the schema).

use serde_json::{Value, json};

use super::custom_schemas::{self, SCHEMA};
use super::go_shape::{self, Part};
use super::meta;
use super::names;
use super::webhooks;
use super::{Kind, NameForm, copy_field};
use crate::field::{Errors, Path, Raw};
use crate::object::Fields;

pub static KINDS: &[&dyn Kind] = &[&CustomResourceDefinition];

const APPROVAL: &str = "api-approved.kubernetes.io";
const COLUMN_TYPES: &[&str] = &["boolean", "date", "integer", "number", "string"];
const COLUMN_FORMATS: &[&str] = &["byte", "date", "date-time", "double", "float", "int32", "int64", "password"];
const REVIEW_VERSIONS: &[&str] = &["v1", "v1beta1"];
const MAX_SELECTABLE: usize = 8;
const MAX_WARNING: usize = 256;

/// The formats of strings that are checked.
const FORMATS: &[&str] = &[
    "bsonobjectid",
    "uri",
    "email",
    "hostname",
    "ipv4",
    "ipv6",
    "cidr",
    "mac",
    "uuid",
    "uuid3",
    "uuid4",
    "uuid5",
    "isbn",
    "isbn10",
    "isbn13",
    "creditcard",
    "ssn",
    "hexcolor",
    "rgbcolor",
    "byte",
    "password",
    "date",
    "duration",
    "datetime",
    "k8sshortname",
    "k8slongname",
];

const COLUMNS: Part = Part::List(&[
    ("Name", "name", Part::Text),
    ("Type", "type", Part::Text),
    ("Format", "format", Part::Text),
    ("Description", "description", Part::Text),
    ("Priority", "priority", Part::Int),
    ("JSONPath", "jsonPath", Part::Text),
]);

static VERSION: [(&str, &str, Part); 9] = [
    ("Name", "name", Part::Text),
    ("Served", "served", Part::Bool),
    ("Storage", "storage", Part::Bool),
    ("Deprecated", "deprecated", Part::Bool),
    ("DeprecationWarning", "deprecationWarning", Part::Plain),
    ("Schema", "schema", Part::Pointer(&[("OpenAPIV3Schema", "openAPIV3Schema", Part::Pointer(&SCHEMA))])),
    (
        "Subresources",
        "subresources",
        Part::Pointer(&[
            ("Status", "status", Part::Plain),
            (
                "Scale",
                "scale",
                Part::Pointer(&[
                    ("SpecReplicasPath", "specReplicasPath", Part::Text),
                    ("StatusReplicasPath", "statusReplicasPath", Part::Text),
                    ("LabelSelectorPath", "labelSelectorPath", Part::Plain),
                ]),
            ),
        ]),
    ),
    ("AdditionalPrinterColumns", "additionalPrinterColumns", COLUMNS),
    ("SelectableFields", "selectableFields", Part::List(&[("JSONPath", "jsonPath", Part::Text)])),
];

static VERSIONS: [(&str, &str, Part); 1] = [("Versions", "versions", Part::List(&VERSION))];

pub struct CustomResourceDefinition;

fn versions(object: &Value) -> &[Value] {
    object.list_at(&["spec", "versions"])
}

fn storage_version(object: &Value) -> Option<&str> {
    versions(object).iter().find(|version| version.bool_at(&["storage"]) == Some(true)).map(|v| v.text_at(&["name"]))
}

/// The storage version is among those in which objects may be stored.
fn remember_storage(object: &mut Value) {
    let Some(name) = storage_version(object).map(str::to_owned) else { return };
    if let Value::Array(stored) = object.make_map(&["status"]).entry("storedVersions").or_insert_with(|| json!([]))
        && !stored.iter().any(|version| *version == name)
    {
        stored.push(name.into());
    }
}

impl Kind for CustomResourceDefinition {
    fn group(&self) -> &'static str {
        "apiextensions.k8s.io"
    }

    fn kind(&self) -> &'static str {
        "CustomResourceDefinition"
    }

    fn name_form(&self) -> NameForm {
        NameForm::Own
    }

    fn counts_generation(&self) -> bool {
        true
    }

    fn unconditional_update(&self) -> bool {
        false
    }

    fn default(&self, object: &mut Value) {
        let kind = object.text_at(&["spec", "names", "kind"]).to_owned();
        if !kind.is_empty() {
            for (field, value) in [("singular", kind.to_lowercase()), ("listKind", format!("{kind}List"))] {
                if object.text_at(&["spec", "names", field]).is_empty() {
                    object.set(&["spec", "names", field], value);
                }
            }
        }
        if object.at(&["spec", "conversion"]).is_none() {
            object.set(&["spec", "conversion"], json!({ "strategy": "None" }));
        }
        if let Some(service) = object.at_mut(&["spec", "conversion", "webhook", "clientConfig", "service"]) {
            service.set_default("port", 443);
        }
        if object.list_at(&["status", "storedVersions"]).is_empty() {
            remember_storage(object);
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        super::reset_status(object);
        remember_storage(object);
    }

    fn prepare_update(&self, object: &mut Value, old: &Value) {
        copy_field(object, old, "status");
        remember_storage(object);
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        check_name(object, errors);
        check_spec(object, errors);
        check_status(object, errors);
        check_stored(object, errors);
        check_approval(object, None, errors);
        check_preserve(object, None, errors);
    }

    fn validate_update(&self, object: &Value, old: &Value, errors: &mut Errors) {
        check_spec(object, errors);
        let spec = Path::new("spec");
        let names = spec.child("names");
        let established = old
            .list_at(&["status", "conditions"])
            .iter()
            .any(|condition| condition.text_at(&["type"]) == "Established" && condition.text_at(&["status"]) == "True");
        let mut stays = |path: &Path<'_>, steps: &[&str]| {
            let new = object.text_at(steps);
            if new != old.text_at(steps) {
                errors.invalid(path, new, meta::FIELD_IMMUTABLE);
            }
        };
        if established {
            stays(&spec.child("scope"), &["spec", "scope"]);
            stays(&names.child("kind"), &["spec", "names", "kind"]);
        }
        stays(&spec.child("group"), &["spec", "group"]);
        stays(&names.child("plural"), &["spec", "names", "plural"]);
        check_status(object, errors);
        check_stored(object, errors);
        check_approval(object, Some(old), errors);
        check_preserve(object, Some(old), errors);
    }

    fn validate_status_update(&self, object: &Value, _old: &Value, errors: &mut Errors) {
        check_status(object, errors);
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        let known = old.map(unknown_formats).unwrap_or_default();
        let formats = unknown_formats(object).into_iter().filter(|format| !known.contains(format));
        formats.map(|format| format!("unrecognized format {}", crate::field::go_quote(&format))).collect()
    }

    fn meta_looks(&self) -> meta::MetaLooks {
        meta::MetaLooks { finalizers: false, change: true, whole: 0 }
    }
}

fn unknown_formats(object: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let schemas: Vec<&Value> = alike(object, "schema").map_or_else(
        || versions(object).iter().filter_map(|version| version.at(&["schema"])).collect(),
        |schema| schema.into_iter().collect(),
    );
    for schema in schemas.into_iter().filter_map(|schema| schema.at(&["openAPIV3Schema"])) {
        custom_schemas::walk(schema, &mut |schema| {
            let format = schema.text_at(&["format"]);
            let known = match schema.text_at(&["type"]) {
                "" | "string" => FORMATS.contains(&format.replace('-', "").as_str()),
                "integer" => matches!(format, "int32" | "int64"),
                "number" => matches!(format, "float" | "double"),
                _ => true,
            };
            if !format.is_empty() && !known {
                found.push(format.to_owned());
            }
        });
    }
    found
}

/// A field of the versions that stands once for all of them, because they have it alike (or all lack it).
fn alike<'a>(object: &'a Value, field: &str) -> Option<Option<&'a Value>> {
    let (first, rest) = versions(object).split_first()?;
    let value =
        |version: &'a Value| version.at(&[field]).filter(|value| value.as_array().is_none_or(|l| !l.is_empty()));
    let first = value(first);
    rest.iter().all(|version| value(version) == first).then_some(first)
}

fn check_name(object: &Value, errors: &mut Errors) {
    let metadata = Path::new("metadata");
    let wanted = format!("{}.{}", object.text_at(&["spec", "names", "plural"]), object.text_at(&["spec", "group"]));
    for field in ["generateName", "name"] {
        let name = object.text_at(&["metadata", field]);
        if name.is_empty() {
            continue;
        }
        let form = if field == "name" { name.to_owned() } else { names::masked(name) };
        let mut messages = names::dns_subdomain(&form);
        if name != wanted {
            messages.push("must be spec.names.plural+\".\"+spec.group".to_owned());
        }
        names::invalid_each(errors, &metadata.child(field), name, messages);
    }
}

fn check_spec(object: &Value, errors: &mut Errors) {
    let path = Path::new("spec");
    let empty = json!({});
    let spec = object.at(&["spec"]).unwrap_or(&empty);
    let group = spec.text_at(&["group"]);
    let messages = names::dns_subdomain(group);
    let at = path.child("group");
    match group {
        "" => errors.required(&at, ""),
        _ if !messages.is_empty() => errors.invalid(&at, group, messages.join(",")),
        _ if !group.contains('.') => errors.invalid(&at, group, "should be a domain with at least one dot"),
        _ => {}
    }
    match spec.text_at(&["scope"]) {
        "" => errors.required(&path.child("scope"), ""),
        "Cluster" | "Namespaced" => {}
        scope => errors.not_supported(&path.child("scope"), scope, &["Cluster", "Namespaced"]),
    }
    let preserve = spec.bool_at(&["preserveUnknownFields"]) == Some(true);
    if preserve && has_defaults(object) {
        let detail = "must be false in order to use defaults in the schema";
        errors.invalid(&path.child("preserveUnknownFields"), true, detail);
    }
    check_versions(object, spec, &path, errors);
    let names = path.child("names");
    for field in ["plural", "singular", "kind", "listKind"] {
        if spec.text_at(&["names", field]).is_empty() {
            errors.required(&names.child(field), "");
        }
    }
    check_names(&spec["names"], &names, errors);
    let conversion = path.child("conversion");
    let strategy = spec.text_at(&["conversion", "strategy"]);
    if strategy != "None" && preserve {
        let detail = "must be None if spec.preserveUnknownFields is true";
        errors.invalid(&conversion.child("strategy"), strategy, detail);
    }
    check_conversion(&spec["conversion"], &conversion, errors);
}

fn has_defaults(object: &Value) -> bool {
    let mut found = false;
    for schema in versions(object).iter().filter_map(|version| version.at(&["schema", "openAPIV3Schema"])) {
        custom_schemas::walk(schema, &mut |schema| found |= schema.at(&["default"]).is_some());
    }
    found
}

fn has_status(version: &Value) -> bool {
    version.at(&["subresources", "status"]).is_some()
}

fn check_versions(object: &Value, spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let list = path.child("versions");
    let all = versions(object);
    let schema_alike = alike(object, "schema");
    let whole = schema_alike.flatten().and_then(|schema| schema.at(&["openAPIV3Schema"]));
    for (i, version) in all.iter().enumerate() {
        let path = list.index(i);
        let schema = version.at(&["schema", "openAPIV3Schema"]);
        if whole.is_none() && (schema_alike.is_some() || schema.is_none()) {
            errors.required(&path.child("schema").child("openAPIV3Schema"), "");
        }
        let name = version.text_at(&["name"]);
        let messages = names::dns1035_label(name);
        if !messages.is_empty() {
            errors.invalid(&path.child("name"), name, messages.join(","));
        }
        check_deprecation(version, &path, errors);
        if let Some(schema) = schema.filter(|_| schema_alike.is_none()) {
            custom_schemas::check(schema, has_status(version), &path.child("schema"), errors);
        }
        check_parts(object, version, schema.filter(|_| schema_alike.is_none()), false, &path, errors);
    }
    let name = all.first().map(|version| version.text_at(&["name"])).unwrap_or_default();
    check_version_set(object, spec, &list, errors);
    let messages = names::dns1035_label(name);
    if !name.is_empty() && !messages.is_empty() {
        errors.invalid(&path.child("version"), name, messages.join(","));
    }
    if let Some(schema) = whole {
        custom_schemas::check(schema, all.iter().any(has_status), &path.child("validation"), errors);
    }
    if let Some(first) = all.first() {
        let schema = schema_alike.flatten().map(|schema| schema.at(&["openAPIV3Schema"]).unwrap_or(&Value::Null));
        check_parts(object, first, schema, true, path, errors);
    }
}

/// Subresources, columns and selectable fields: of one version, or (`together`) of all where they have them alike.
fn check_parts(
    object: &Value,
    version: &Value,
    schema: Option<&Value>,
    together: bool,
    path: &Path<'_>,
    errors: &mut Errors,
) {
    let stands_here = |field: &str| alike(object, field).is_some() == together;
    if stands_here("subresources")
        && let Some(scale) = version.at(&["subresources", "scale"])
    {
        check_scale(scale, &path.child("subresources"), errors);
    }
    if stands_here("additionalPrinterColumns") {
        let list = path.child("additionalPrinterColumns");
        for (i, column) in version.list_at(&["additionalPrinterColumns"]).iter().enumerate() {
            check_column(column, &list.index(i), errors);
        }
    }
    let fields = version.list_at(&["selectableFields"]);
    if fields.is_empty() || !stands_here("selectableFields") {
        return;
    }
    let list = path.child("selectableFields");
    match schema {
        Some(schema) => check_selectable(fields, schema, &list, errors),
        None if together => errors.invalid(&list, "", "may only be set when validations.schema is included"),
        None => {
            errors.invalid(&list, "", "may only be set when `version.schema.openAPIV3Schema` is not included");
        }
    }
}

fn check_version_set(object: &Value, spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let all = versions(object);
    let names: Vec<&str> = all.iter().map(|version| version.text_at(&["name"])).collect();
    let repeated = names.iter().enumerate().any(|(i, name)| names[..i].contains(name));
    let stored = all.iter().filter(|version| version.bool_at(&["storage"]) == Some(true)).count();
    if !repeated && stored == 1 {
        return;
    }
    let mut shown = json!({ "versions": spec.at(&["versions"]).cloned() });
    for field in ["schema", "subresources", "additionalPrinterColumns", "selectableFields"] {
        if alike(object, field).is_some() {
            shown.items_mut(&["versions"]).for_each(|version| drop(version.take_at(&[field])));
        }
    }
    let shown = go_shape::by_value(Some(&shown), &VERSIONS).0;
    let shown = shown.strip_prefix("{\"Versions\":").and_then(|text| text.strip_suffix('}')).unwrap_or(&shown);
    if repeated {
        errors.invalid(path, Raw(shown.to_owned()), "must contain unique version names");
    }
    if stored != 1 {
        errors.invalid(path, Raw(shown.to_owned()), "must have exactly one version marked as storage version");
    }
}

fn check_deprecation(version: &Value, path: &Path<'_>, errors: &mut Errors) {
    let Some(warning) = version.at(&["deprecationWarning"]).and_then(Value::as_str) else { return };
    let path = path.child("deprecationWarning");
    if version.bool_at(&["deprecated"]) != Some(true) {
        return errors.invalid(&path, warning, "can only be set for deprecated versions");
    }
    if warning.len() > MAX_WARNING {
        errors.invalid(&path, warning, "must be <= 256 characters long");
    }
    if warning.is_empty() {
        errors.invalid(&path, warning, "must not be an empty string");
    }
    if let Some((at, _)) = warning.char_indices().find(|(_, c)| c.is_control() || (c.is_whitespace() && *c != ' ')) {
        let detail =
            format!("must only contain printable UTF-8 characters; non-printable character found at index {at}");
        errors.invalid(&path, warning, detail);
    }
}

/// The names in the spec, or those that were accepted.
fn check_names(all: &Value, path: &Path<'_>, errors: &mut Errors) {
    for (field, mixed) in [("plural", false), ("singular", false), ("kind", true), ("listKind", true)] {
        let name = all.text_at(&[field]);
        let form = if mixed { name.to_lowercase() } else { name.to_owned() };
        let messages = names::dns1035_label(&form);
        if !name.is_empty() && !messages.is_empty() {
            let prefix = if mixed { "may have mixed case, but should otherwise match: " } else { "" };
            errors.invalid(&path.child(field), name, format!("{prefix}{}", messages.join(",")));
        }
    }
    let list_kind = all.text_at(&["listKind"]);
    if !list_kind.is_empty() && list_kind == all.text_at(&["kind"]) {
        errors.invalid(&path.child("listKind"), list_kind, "kind and listKind may not be the same");
    }
    for field in ["shortNames", "categories"] {
        let list = path.child(field);
        for (i, name) in all.list_at(&[field]).iter().enumerate() {
            let name = name.as_str().unwrap_or_default();
            let messages = names::dns1035_label(name);
            if !messages.is_empty() {
                errors.invalid(&list.index(i), name, messages.join(","));
            }
        }
    }
}

fn check_conversion(conversion: &Value, path: &Path<'_>, errors: &mut Errors) {
    let config = conversion.at(&["webhook", "clientConfig"]);
    let reviews = conversion.list_at(&["webhook", "conversionReviewVersions"]);
    let (config_at, reviews_at) = (path.child("webhookClientConfig"), path.child("conversionReviewVersions"));
    match conversion.text_at(&["strategy"]) {
        "" => errors.required(&path.child("strategy"), ""),
        "None" | "Webhook" => {}
        strategy => errors.not_supported(&path.child("strategy"), strategy, &["None", "Webhook"]),
    }
    if conversion.text_at(&["strategy"]) != "Webhook" {
        let detail = "should not be set when strategy is not set to Webhook";
        if config.is_some() {
            errors.forbidden(&config_at, detail);
        }
        if !reviews.is_empty() {
            errors.forbidden(&reviews_at, detail);
        }
        return;
    }
    match config {
        None => errors.required(&config_at, "required when strategy is set to Webhook"),
        Some(config) => {
            let place = (config.at(&["url"]), config.at(&["service"]));
            webhooks::check_place(place, "exactly one of url or service is required", &config_at, errors);
        }
    }
    if reviews.is_empty() {
        return errors.required(&reviews_at, "");
    }
    for (i, version) in reviews.iter().enumerate() {
        let text = version.as_str().unwrap_or_default();
        if reviews[..i].contains(version) {
            errors.invalid(&reviews_at.index(i), text, "duplicate version");
            continue;
        }
        names::invalid_each(errors, &reviews_at.index(i), text, names::dns1035_label(text));
    }
    if !reviews.iter().any(|version| REVIEW_VERSIONS.iter().any(|known| version == known)) {
        let detail = format!("must include at least one of {}", REVIEW_VERSIONS.join(", "));
        errors.invalid(&reviews_at, &conversion["webhook"]["conversionReviewVersions"], detail);
    }
}

/// A path of dots and names.
fn check_simple_path(path: &str, at: &Path<'_>, errors: &mut Errors) -> bool {
    if path.starts_with('.') {
        return true;
    }
    errors.invalid(at, path, "must be a simple json path starting with .");
    false
}

fn check_scale(scale: &Value, path: &Path<'_>, errors: &mut Errors) {
    let paths = [
        ("specReplicasPath", "scale.specReplicasPath", &[".spec."][..], ".spec"),
        ("statusReplicasPath", "scale.statusReplicasPath", &[".status."], ".status"),
        ("labelSelectorPath", "scale.labelSelectorPath", &[".spec.", ".status."], "either .spec or .status"),
    ];
    for (field, reported, starts, words) in paths {
        let text = scale.text_at(&[field]);
        let at = path.child(reported);
        if text.is_empty() {
            if field != "labelSelectorPath" {
                errors.required(&at, "");
            }
        } else if check_simple_path(text, &at, errors) && !starts.iter().any(|start| text.starts_with(start)) {
            errors.invalid(&at, text, format!("should be a json path under {words}"));
        }
    }
}

fn check_column(column: &Value, path: &Path<'_>, errors: &mut Errors) {
    if column.text_at(&["name"]).is_empty() {
        errors.required(&path.child("name"), "");
    }
    let kind = column.text_at(&["type"]);
    let detail = format!("must be one of {}", COLUMN_TYPES.join(","));
    if kind.is_empty() {
        errors.required(&path.child("type"), detail);
    } else if !COLUMN_TYPES.contains(&kind) {
        errors.invalid(&path.child("type"), kind, detail);
    }
    let format = column.text_at(&["format"]);
    if !format.is_empty() && !COLUMN_FORMATS.contains(&format) {
        errors.invalid(&path.child("format"), format, format!("must be one of {}", COLUMN_FORMATS.join(",")));
    }
    let text = column.text_at(&["jsonPath"]);
    if text.is_empty() {
        errors.required(&path.child("JSONPath"), "");
    } else {
        check_simple_path(text, &path.child("JSONPath"), errors);
    }
}

fn check_selectable(fields: &[Value], schema: &Value, path: &Path<'_>, errors: &mut Errors) {
    let mut seen: Vec<&str> = Vec::new();
    for (i, field) in fields.iter().enumerate() {
        let at = path.index(i);
        let at = at.child("jsonPath");
        let text = field.text_at(&["jsonPath"]);
        if text.is_empty() {
            errors.required(&at, "");
            continue;
        }
        let found = match custom_schemas::find(schema, text, false) {
            Ok(found) => found,
            Err(why) => {
                errors.invalid(&at, text, format!("is an invalid path: {why}"));
                continue;
            }
        };
        if text == ".metadata" || text.starts_with(".metadata.") {
            errors.invalid(&at, text, "must not point to fields in metadata");
        }
        if !matches!(found.text_at(&["type"]), "string" | "boolean" | "integer") {
            let detail = "must point to a field of type string, boolean or integer. Enum string fields and strings with \
                          formats are allowed.";
            errors.invalid(&at, text, detail);
        }
        if seen.contains(&text) {
            errors.duplicate(&at, text);
        } else {
            seen.push(text);
        }
    }
    if seen.len() > MAX_SELECTABLE {
        errors.too_many(path, seen.len(), MAX_SELECTABLE);
    }
}

fn check_status(object: &Value, errors: &mut Errors) {
    let status = Path::new("status");
    check_names(&object["status"]["acceptedNames"], &status.child("acceptedNames"), errors);
}

fn check_stored(object: &Value, errors: &mut Errors) {
    let status = Path::new("status");
    let path = status.child("storedVersions");
    let stored = object.list_at(&["status", "storedVersions"]);
    if stored.is_empty() {
        return errors.invalid(&path, Raw("null".to_owned()), "must have at least one stored version");
    }
    for version in versions(object).iter().filter(|version| version.bool_at(&["storage"]) == Some(true)) {
        let name = version.text_at(&["name"]);
        if !stored.iter().any(|stored| stored == name) {
            let detail = format!("must have the storage version {name}");
            errors.invalid(&path, &object["status"]["storedVersions"], detail);
        }
    }
    for (i, name) in stored.iter().enumerate() {
        let name = name.as_str().unwrap_or_default();
        if !versions(object).iter().any(|version| version.text_at(&["name"]) == name) {
            let detail = format!(
                "missing from spec.versions; {name} was previously a storage version, and must remain in spec.versions \
                 until a storage migration ensures no data remains persisted in {name} and removes {name} from \
                 status.storedVersions"
            );
            errors.invalid(&path.index(i), name, detail);
        }
    }
}

#[derive(PartialEq)]
enum Approval {
    Missing,
    Invalid,
    Given,
    Bypassed,
}

fn approval(object: &Value) -> Approval {
    let text = object.text_at(&["metadata", "annotations", APPROVAL]);
    let is_url = text.split_once("://").is_some_and(|(scheme, rest)| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic()) && !rest.is_empty() && !rest.starts_with('/')
    });
    match text {
        "" => Approval::Missing,
        _ if text.starts_with("unapproved") => Approval::Bypassed,
        _ if is_url => Approval::Given,
        _ => Approval::Invalid,
    }
}

/// Groups of the community's need its approval.
fn check_approval(object: &Value, old: Option<&Value>, errors: &mut Errors) {
    let group = object.text_at(&["spec", "group"]);
    let protected = ["k8s.io", "kubernetes.io"];
    if !protected
        .iter()
        .any(|domain| group.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')))
    {
        return;
    }
    let state = approval(object);
    if old.is_some_and(|old| approval(old) == state) {
        return;
    }
    let metadata = Path::new("metadata");
    let annotations = metadata.child("annotations");
    let path = annotations.key(APPROVAL);
    let see = "see https://github.com/kubernetes/enhancements/pull/1111";
    match state {
        Approval::Missing => {
            errors.required(&path, format!("protected groups must have approval annotation \"{APPROVAL}\", {see}"));
        }
        Approval::Invalid => {
            let detail = format!(
                "protected groups must have approval annotation \"{APPROVAL}\" with either a URL or a reason starting \
                 with \"unapproved\", {see}"
            );
            errors.invalid(&path, object.text_at(&["metadata", "annotations", APPROVAL]), detail);
        }
        Approval::Given | Approval::Bypassed => {}
    }
}

fn check_preserve(object: &Value, old: Option<&Value>, errors: &mut Errors) {
    let preserves = |object: &Value| object.bool_at(&["spec", "preserveUnknownFields"]) == Some(true);
    if preserves(object) && !old.is_some_and(preserves) {
        let spec = Path::new("spec");
        let detail =
            "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead";
        errors.invalid(&spec.child("preserveUnknownFields"), true, detail);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(versions: Value) -> Value {
        let names = json!({"kind": "Widget", "plural": "widgets"});
        let mut object = json!({
            "metadata": {"name": "widgets.example.com"},
            "spec": {"group": "example.com", "scope": "Namespaced", "names": names, "versions": versions},
        });
        CustomResourceDefinition.default(&mut object);
        CustomResourceDefinition.prepare_create(&mut object);
        object
    }

    fn run(object: &Value) -> Vec<String> {
        let mut errors = Errors::default();
        CustomResourceDefinition.validate(object, &mut errors);
        errors.0.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_versions_have_alike_stands_once() {
        let version = |name: &str, kind: &str| json!({"name": name, "served": true, "storage": name == "v1", "schema": {"openAPIV3Schema": {"type": kind}}});
        let good = definition(json!([version("v1", "object")]));
        assert_eq!(good["spec"]["names"]["listKind"], "WidgetList");
        assert_eq!(good["status"]["storedVersions"], json!(["v1"]));
        assert_eq!(run(&good), Vec::<String>::new());
        let path = "type: Invalid value: \"string\": must be object at the root";
        assert_eq!(
            run(&definition(json!([version("v1", "string"), version("v2", "string")]))),
            [format!("spec.validation.openAPIV3Schema.{path}")]
        );
        assert_eq!(
            run(&definition(json!([version("v1", "object"), version("v2", "string")]))),
            [format!("spec.versions[1].schema.openAPIV3Schema.{path}")]
        );
    }

    #[test]
    fn one_version_is_stored() {
        let version = json!({"name": "v1", "served": true, "schema": {"openAPIV3Schema": {"type": "object"}}});
        let errors = run(&definition(json!([version])));
        assert_eq!(
            errors,
            [
                "spec.versions: Invalid value: [{\"Name\":\"v1\",\"Served\":true,\"Storage\":false,\"Deprecated\":false,\"DeprecationWarning\":null,\"Schema\":null,\"Subresources\":null,\"AdditionalPrinterColumns\":null,\"SelectableFields\":null}]: must have exactly one version marked as storage version",
                "status.storedVersions: Invalid value: null: must have at least one stored version",
            ]
        );
    }

    #[test]
    fn the_communitys_groups_need_approval() {
        let mut object = definition(json!([]));
        object["spec"]["group"] = json!("x.k8s.io");
        assert!(
            run(&object)
                .iter()
                .any(|error| error.starts_with("metadata.annotations[api-approved.kubernetes.io]: Required"))
        );
        object["metadata"]["annotations"] = json!({APPROVAL: "https://example.com/1"});
        assert!(!run(&object).iter().any(|error| error.contains("annotations")));
    }
}

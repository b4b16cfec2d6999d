//! FlowSchema and PriorityLevelConfiguration: which requests belong together, and how much of the server they may have.

use serde_json::{Value, json};

use super::go_shape::{self, Part, Shape};
use super::meta;
use super::names;
use super::{Kind, copy_field, keep_metadata};
use crate::field::{Errors, Path};
use crate::object::Fields;

const GROUP: &str = "flowcontrol.apiserver.k8s.io";

pub static KINDS: &[&dyn Kind] = &[&FlowSchema, &PriorityLevelConfiguration];

const LOOKS: meta::MetaLooks = meta::MetaLooks { finalizers: true, change: false, whole: 1 };

const DISTINGUISHERS: &[&str] = &["ByNamespace", "ByUser"];
const VERBS: &[&str] = &["create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];
const MAX_PRECEDENCE: i64 = 10_000;
const DEFAULT_PRECEDENCE: i64 = 1000;

const FLOW_SCHEMA_SPEC: Shape = &[
    ("PriorityLevelConfiguration", "priorityLevelConfiguration", Part::Struct(&[("Name", "name", Part::Text)])),
    ("MatchingPrecedence", "matchingPrecedence", Part::Int),
    ("DistinguisherMethod", "distinguisherMethod", Part::Pointer(DISTINGUISHER)),
    (
        "Rules",
        "rules",
        Part::List(&[
            (
                "Subjects",
                "subjects",
                Part::List(&[
                    ("Kind", "kind", Part::Text),
                    ("User", "user", Part::Pointer(NAMED)),
                    ("Group", "group", Part::Pointer(NAMED)),
                    (
                        "ServiceAccount",
                        "serviceAccount",
                        Part::Pointer(&[("Namespace", "namespace", Part::Text), ("Name", "name", Part::Text)]),
                    ),
                ]),
            ),
            (
                "ResourceRules",
                "resourceRules",
                Part::List(&[
                    ("Verbs", "verbs", Part::Plain),
                    ("APIGroups", "apiGroups", Part::Plain),
                    ("Resources", "resources", Part::Plain),
                    ("ClusterScope", "clusterScope", Part::Bool),
                    ("Namespaces", "namespaces", Part::Plain),
                ]),
            ),
            (
                "NonResourceRules",
                "nonResourceRules",
                Part::List(&[("Verbs", "verbs", Part::Plain), ("NonResourceURLs", "nonResourceURLs", Part::Plain)]),
            ),
        ]),
    ),
];

const DISTINGUISHER: Shape = &[("Type", "type", Part::Text)];
const NAMED: Shape = &[("Name", "name", Part::Text)];

const PRIORITY_LEVEL_SPEC: Shape = &[
    ("Type", "type", Part::Text),
    (
        "Limited",
        "limited",
        Part::Pointer(&[
            ("NominalConcurrencyShares", "nominalConcurrencyShares", Part::Int),
            (
                "LimitResponse",
                "limitResponse",
                Part::Struct(&[
                    ("Type", "type", Part::Text),
                    (
                        "Queuing",
                        "queuing",
                        Part::Pointer(&[
                            ("Queues", "queues", Part::Int),
                            ("HandSize", "handSize", Part::Int),
                            ("QueueLengthLimit", "queueLengthLimit", Part::Int),
                        ]),
                    ),
                ]),
            ),
            ("LendablePercent", "lendablePercent", Part::Plain),
            ("BorrowingLimitPercent", "borrowingLimitPercent", Part::Plain),
        ]),
    ),
    (
        "Exempt",
        "exempt",
        Part::Pointer(&[
            ("NominalConcurrencyShares", "nominalConcurrencyShares", Part::Plain),
            ("LendablePercent", "lendablePercent", Part::Plain),
        ]),
    ),
];

/// The spec that a schema must have because the server counts on it.
fn mandatory_schema(name: &str) -> Option<Value> {
    let rules = |groups: &[&str]| {
        let subjects: Vec<Value> =
            groups.iter().map(|group| json!({"kind": "Group", "group": {"name": group}})).collect();
        json!([{
            "subjects": subjects,
            "resourceRules": [
                {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "clusterScope": true, "namespaces": ["*"]}
            ],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
        }])
    };
    match name {
        "exempt" => Some(json!({
            "priorityLevelConfiguration": {"name": "exempt"},
            "matchingPrecedence": 1,
            "rules": rules(&["system:masters"]),
        })),
        "catch-all" => Some(json!({
            "priorityLevelConfiguration": {"name": "catch-all"},
            "matchingPrecedence": MAX_PRECEDENCE,
            "distinguisherMethod": {"type": "ByUser"},
            "rules": rules(&["system:unauthenticated", "system:authenticated"]),
        })),
        _ => None,
    }
}

/// A number of a struct that Go holds by value: zero where it is absent.
fn number(object: &Value, path: &[&str]) -> i64 {
    object.int_at(path).unwrap_or_default()
}

/// Sets numbers that are zero or absent.
fn default_numbers(object: &mut Value, defaults: &[(&str, i64)]) {
    for (field, value) in defaults {
        if number(object, &[field]) == 0 {
            object.set(&[field], *value);
        }
    }
}

fn check_conditions(object: &Value, errors: &mut Errors) {
    let status = Path::new("status");
    let list = status.child("conditions");
    let conditions = object.list_at(&["status", "conditions"]);
    for (i, condition) in conditions.iter().enumerate() {
        let kind = condition.text_at(&["type"]);
        let path = list.index(i);
        if conditions[..i].iter().any(|other| other.text_at(&["type"]) == kind) {
            errors.duplicate(&path.child("type"), kind);
        }
        if kind.is_empty() {
            errors.required(&path.child("type"), "must not be empty");
        }
    }
}

pub struct FlowSchema;

impl Kind for FlowSchema {
    fn group(&self) -> &'static str {
        GROUP
    }

    fn kind(&self) -> &'static str {
        "FlowSchema"
    }

    fn counts_generation(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        object.make_map(&["spec"]);
        if let Some(spec) = object.at_mut(&["spec"]) {
            default_numbers(spec, &[("matchingPrecedence", DEFAULT_PRECEDENCE)]);
        }
    }

    fn prepare_status_update(&self, object: &mut Value, old: &Value) {
        copy_field(object, old, "spec");
        keep_metadata(object, old);
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        let name = object.text_at(&["metadata", "name"]);
        let path = Path::new("spec");
        let spec = &object["spec"];
        check_schema(name, spec, &path, errors);
        if mandatory_schema(name).is_some_and(|fixed| fixed != *spec) {
            let shown = go_shape::by_value(Some(spec), FLOW_SCHEMA_SPEC);
            errors.invalid(&path, shown, format!("spec of '{name}' must equal the fixed value"));
        }
        check_conditions(object, errors);
    }

    fn validate_status_update(&self, object: &Value, _old: &Value, errors: &mut Errors) {
        check_conditions(object, errors);
    }

    fn meta_looks(&self) -> meta::MetaLooks {
        LOOKS
    }
}

fn check_schema(name: &str, spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let precedence = number(spec, &["matchingPrecedence"]);
    let at = path.child("matchingPrecedence");
    if precedence <= 0 {
        errors.invalid(&at, precedence, "must be a positive value");
    }
    if precedence > MAX_PRECEDENCE {
        errors.invalid(&at, precedence, format!("must not be greater than {MAX_PRECEDENCE}"));
    }
    if precedence == 1 && name != "exempt" {
        errors.invalid(&at, precedence, "only the schema named 'exempt' may have matchingPrecedence 1");
    }
    if let Some(method) = spec.at(&["distinguisherMethod"])
        && !DISTINGUISHERS.contains(&method.text_at(&["type"]))
    {
        let at = path.child("distinguisherMethod");
        errors.not_supported(&at.child("type"), go_shape::pointer(Some(method), DISTINGUISHER), DISTINGUISHERS);
    }
    let level = spec.text_at(&["priorityLevelConfiguration", "name"]);
    let at = path.child("priorityLevelConfiguration");
    if level.is_empty() {
        errors.required(&at.child("name"), "must reference a priority level");
    } else {
        names::invalid_each(errors, &at.child("name"), level, names::dns_subdomain(level));
    }
    let list = path.child("rules");
    for (i, rule) in spec.list_at(&["rules"]).iter().enumerate() {
        check_rule(rule, &list.index(i), errors);
    }
}

fn check_rule(rule: &Value, path: &Path<'_>, errors: &mut Errors) {
    let subjects = rule.list_at(&["subjects"]);
    let list = path.child("subjects");
    if subjects.is_empty() {
        errors.required(&list, "subjects must contain at least one value");
    }
    for (i, subject) in subjects.iter().enumerate() {
        check_subject(subject, &list.index(i), errors);
    }
    let (resources, others) = (rule.list_at(&["resourceRules"]), rule.list_at(&["nonResourceRules"]));
    if resources.is_empty() && others.is_empty() {
        errors.required(path, "at least one of resourceRules and nonResourceRules has to be non-empty");
    }
    let list = path.child("resourceRules");
    for (i, rule) in resources.iter().enumerate() {
        check_resource_rule(rule, &list.index(i), errors);
    }
    let list = path.child("nonResourceRules");
    for (i, rule) in others.iter().enumerate() {
        check_url_rule(rule, &list.index(i), errors);
    }
}

/// A subject's kinds, and the fields that hold them.
const SUBJECTS: &[(&str, &str)] = &[("User", "user"), ("Group", "group"), ("ServiceAccount", "serviceAccount")];

fn check_subject(subject: &Value, path: &Path<'_>, errors: &mut Errors) {
    let kind = subject.text_at(&["kind"]);
    let Some((_, own)) = SUBJECTS.iter().find(|(known, _)| *known == kind) else {
        return errors.not_supported(&path.child("kind"), kind, &["Group", "ServiceAccount", "User"]);
    };
    let at = path.child(own);
    match subject.at(&[own]) {
        None => errors.required(&at, format!("{own} is required when subject kind is '{kind}'")),
        Some(named) => {
            let name = named.text_at(&["name"]);
            if name.is_empty() {
                errors.required(&at.child("name"), "");
            }
            if kind == "ServiceAccount" {
                check_service_account(named, name, &at, errors);
            }
        }
    }
    for (other, field) in SUBJECTS.iter().filter(|(other, field)| *other != kind && subject.at(&[field]).is_some()) {
        errors.forbidden(&path.child(field), format!("{field} is forbidden when subject kind is not '{other}'"));
    }
}

fn check_service_account(account: &Value, name: &str, path: &Path<'_>, errors: &mut Errors) {
    if !matches!(name, "" | "*") {
        names::invalid_each(errors, &path.child("name"), name, names::dns_subdomain(name));
    }
    let namespace = account.text_at(&["namespace"]);
    if namespace.is_empty() {
        errors.required(&path.child("namespace"), "must specify namespace for service account");
    } else {
        names::invalid_each(errors, &path.child("namespace"), namespace, names::dns_label(namespace));
    }
}

/// A list that is all or some, but not nothing. Says whether its members are to be checked.
fn check_list(rule: &Value, field: &str, (none, others): (&str, &str), path: &Path<'_>, errors: &mut Errors) -> bool {
    let values = rule.list_at(&[field]);
    let path = path.child(field);
    if values.is_empty() {
        errors.required(&path, none);
        return false;
    }
    let all = values.iter().any(|value| value == "*");
    if all && values.len() > 1 {
        errors.invalid(&path, &rule[field], format!("if '*' is present, must not specify other {others}"));
    }
    !all
}

fn check_verbs(rule: &Value, path: &Path<'_>, errors: &mut Errors) {
    let some = check_list(rule, "verbs", ("verbs must contain at least one value", "verbs"), path, errors);
    if some && !rule.list_at(&["verbs"]).iter().all(|verb| VERBS.iter().any(|known| verb == known)) {
        errors.not_supported(&path.child("verbs"), &rule["verbs"], VERBS);
    }
}

fn check_resource_rule(rule: &Value, path: &Path<'_>, errors: &mut Errors) {
    check_verbs(rule, path, errors);
    let none = |what: &str| format!("resource rules must supply at least one {what}");
    check_list(rule, "apiGroups", (&none("api group"), "api groups"), path, errors);
    check_list(rule, "resources", (&none("resource"), "resources"), path, errors);
    if rule.list_at(&["namespaces"]).is_empty() && rule.bool_at(&["clusterScope"]) == Some(true) {
        return;
    }
    let none = "resource rules that are not cluster scoped must supply at least one namespace";
    if check_list(rule, "namespaces", (none, "namespaces"), path, errors) {
        let list = path.child("namespaces");
        for (i, namespace) in rule.list_at(&["namespaces"]).iter().enumerate() {
            let text = namespace.as_str().unwrap_or_default();
            for message in names::dns_label(text) {
                let detail = format!("each member of this list must be '*' or a DNS-1123 label; {message}");
                errors.invalid(&list.index(i), text, detail);
            }
        }
    }
}

fn check_url_rule(rule: &Value, path: &Path<'_>, errors: &mut Errors) {
    check_verbs(rule, path, errors);
    let words = ("nonResourceURLs must contain at least one value", "non-resource URLs");
    if check_list(rule, "nonResourceURLs", words, path, errors) {
        let list = path.child("nonResourceURLs");
        for (i, url) in rule.list_at(&["nonResourceURLs"]).iter().enumerate() {
            let url = url.as_str().unwrap_or_default();
            if let Some(wrong) = wrong_url(url) {
                errors.invalid(&list.index(i), url, wrong);
            }
        }
    }
}

fn wrong_url(path: &str) -> Option<&'static str> {
    let stars = path.matches('*').count();
    match path {
        "" => Some("must not be empty"),
        "/" => None,
        _ if !path.starts_with('/') => Some("must start with slash"),
        _ if path.contains(' ') => Some("must not contain white-space"),
        _ if path.contains("//") => Some("must not contain double slash"),
        _ if stars > 1 || (stars == 1 && !path.ends_with("/*")) => Some("wildcard can only do suffix matching"),
        _ => None,
    }
}

pub struct PriorityLevelConfiguration;

const MAX_QUEUES: i64 = 10_000_000;
/// The bits of a hash that may be used to deal a request's queues.
const MAX_HASH_BITS: i64 = 60;

impl Kind for PriorityLevelConfiguration {
    fn group(&self) -> &'static str {
        GROUP
    }

    fn kind(&self) -> &'static str {
        "PriorityLevelConfiguration"
    }

    fn counts_generation(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        if let Some(limited) = object.at_mut(&["spec", "limited"]) {
            limited.set_default("nominalConcurrencyShares", 30);
            limited.set_default("lendablePercent", 0);
            if let Some(queuing) = limited.at_mut(&["limitResponse", "queuing"]) {
                default_numbers(queuing, &[("queues", 64), ("handSize", 8), ("queueLengthLimit", 50)]);
            }
        }
        if let Some(exempt) = object.at_mut(&["spec", "exempt"]) {
            exempt.set_default("nominalConcurrencyShares", 0);
            exempt.set_default("lendablePercent", 0);
        }
    }

    fn prepare_status_update(&self, object: &mut Value, old: &Value) {
        copy_field(object, old, "spec");
        keep_metadata(object, old);
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        let name = object.text_at(&["metadata", "name"]);
        let path = Path::new("spec");
        let spec = &object["spec"];
        check_level(name, spec, &path, errors);
        let fixed = match name {
            // How much the exempt requests count for others is for the administrator to say.
            "exempt" => spec.at(&["limited"]).is_some() || spec.text_at(&["type"]) != "Exempt",
            "catch-all" => {
                let response = json!({"type": "Reject"});
                let limited = json!({"nominalConcurrencyShares": 5, "limitResponse": response, "lendablePercent": 0});
                *spec != json!({"type": "Limited", "limited": limited})
            }
            _ => false,
        };
        if fixed {
            let except = if name == "exempt" { " except the 'spec.exempt' field" } else { "" };
            let shown = go_shape::by_value(Some(spec), PRIORITY_LEVEL_SPEC);
            errors.invalid(&path, shown, format!("spec of '{name}'{except} must equal the fixed value"));
        }
        check_conditions(object, errors);
    }

    fn validate_status_update(&self, object: &Value, _old: &Value, errors: &mut Errors) {
        check_conditions(object, errors);
    }

    fn meta_looks(&self) -> meta::MetaLooks {
        LOOKS
    }
}

fn check_level(name: &str, spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let kind = spec.text_at(&["type"]);
    if (name == "exempt") != (kind == "Exempt") {
        errors.invalid(&path.child("type"), kind, "type must be 'Exempt' if and only if name is 'exempt'");
    }
    let (limited, exempt) = (spec.at(&["limited"]), spec.at(&["exempt"]));
    match kind {
        "Exempt" => {
            if limited.is_some() {
                errors.forbidden(&path.child("limited"), "must be nil if the type is not Limited");
            }
            if let Some(exempt) = exempt {
                check_shares(exempt, &path.child("exempt"), errors);
            }
        }
        "Limited" => {
            if exempt.is_some() {
                errors.forbidden(&path.child("exempt"), "must be nil if the type is Limited");
            }
            match limited {
                None => errors.required(&path.child("limited"), "must not be empty when type is Limited"),
                Some(limited) => check_limited(limited, &path.child("limited"), errors),
            }
        }
        _ => errors.not_supported(&path.child("type"), kind, &["Exempt", "Limited"]),
    }
}

fn check_shares(level: &Value, path: &Path<'_>, errors: &mut Errors) {
    let field = "nominalConcurrencyShares";
    if let Some(shares) = level.int_at(&[field]).filter(|n| *n < 0) {
        errors.invalid(&path.child(field), shares, "must be a non-negative integer");
    }
    let field = "lendablePercent";
    if let Some(percent) = level.int_at(&[field]).filter(|n| !(0..=100).contains(n)) {
        errors.invalid(&path.child(field), percent, "must be between 0 and 100, inclusive");
    }
}

fn check_limited(limited: &Value, path: &Path<'_>, errors: &mut Errors) {
    check_shares(limited, path, errors);
    let response = path.child("limitResponse");
    let queuing = limited.at(&["limitResponse", "queuing"]);
    let at = response.child("queuing");
    match limited.text_at(&["limitResponse", "type"]) {
        "Reject" if queuing.is_some() => {
            errors.forbidden(&at, "must be nil if limited.limitResponse.type is not Limited");
        }
        "Reject" => {}
        "Queue" => match queuing {
            None => errors.required(&at, "must not be empty if limited.limitResponse.type is Limited"),
            Some(queuing) => check_queuing(queuing, &at, errors),
        },
        kind => errors.not_supported(&response.child("type"), kind, &["Queue", "Reject"]),
    }
    let field = "borrowingLimitPercent";
    if let Some(percent) = limited.int_at(&[field]).filter(|n| *n < 0) {
        errors.invalid(&path.child(field), percent, "if specified, must be a non-negative integer");
    }
}

fn check_queuing(queuing: &Value, path: &Path<'_>, errors: &mut Errors) {
    let limit = number(queuing, &["queueLengthLimit"]);
    if limit <= 0 {
        errors.invalid(&path.child("queueLengthLimit"), limit, "must be positive");
    }
    let queues = number(queuing, &["queues"]);
    if queues <= 0 {
        errors.invalid(&path.child("queues"), queues, "must be positive");
    } else if queues > MAX_QUEUES {
        errors.invalid(&path.child("queues"), queues, format!("must not be greater than {MAX_QUEUES}"));
    }
    let hand = number(queuing, &["handSize"]);
    let at = path.child("handSize");
    let bits = ((queues as f64).log2() * hand as f64).ceil() as i64;
    if hand <= 0 {
        errors.invalid(&at, hand, "must be positive");
    } else if hand > queues {
        errors.invalid(&at, hand, format!("should not be greater than queues ({queues})"));
    } else if bits > MAX_HASH_BITS {
        let detail = format!(
            "required entropy bits of deckSize {queues} and handSize {hand} should not be greater than {MAX_HASH_BITS}"
        );
        errors.invalid(&at, hand, detail);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(kind: &dyn Kind, mut object: Value) -> Vec<String> {
        kind.default(&mut object);
        let mut errors = Errors::default();
        kind.validate(&object, &mut errors);
        errors.0.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_the_server_counts_on_stays() {
        let exempt = |precedence: i64| {
            let mut spec = mandatory_schema("exempt").unwrap_or_default();
            spec["matchingPrecedence"] = json!(precedence);
            json!({"metadata": {"name": "exempt"}, "spec": spec})
        };
        assert!(run(&FlowSchema, exempt(1)).is_empty());
        let errors = run(&FlowSchema, exempt(2));
        assert!(errors[0].starts_with(r#"spec: Invalid value: {"PriorityLevelConfiguration":{"Name":"exempt"},"#));
        let level =
            json!({"metadata": {"name": "exempt"}, "spec": {"type": "Exempt", "exempt": {"lendablePercent": 50}}});
        assert!(run(&PriorityLevelConfiguration, level).is_empty());
    }

    #[test]
    fn queues_are_dealt_from_sixty_bits() {
        let level = |queuing: Value| {
            let limited = json!({"limitResponse": {"type": "Queue", "queuing": queuing}});
            json!({"metadata": {"name": "a"}, "spec": {"type": "Limited", "limited": limited}})
        };
        assert!(run(&PriorityLevelConfiguration, level(json!({}))).is_empty());
        let errors = run(&PriorityLevelConfiguration, level(json!({"queues": 1024, "handSize": 7})));
        assert!(errors[0].ends_with("deckSize 1024 and handSize 7 should not be greater than 60"));
    }

    #[test]
    fn a_subject_is_of_one_kind() {
        let mut errors = Errors::default();
        let subject = json!({"kind": "User", "user": {"name": ""}, "group": {"name": "g"}});
        check_subject(&subject, &Path::new("s"), &mut errors);
        assert_eq!(
            errors.0.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["s.user.name: Required value", "s.group: Forbidden: group is forbidden when subject kind is not 'Group'"]
        );
    }
}

//! ValidatingWebhookConfiguration and MutatingWebhookConfiguration, and what admission policies and conversion webhooks
//! have in common with them: rules, match conditions, where a webhook is.

use serde_json::{Value, json};

use super::Kind;
use super::cel::{self, Scope};
use super::meta;
use super::names;
use crate::field::{Errors, Path};
use crate::object::Fields;

pub const GROUP: &str = "admissionregistration.k8s.io";

pub static KINDS: &[&dyn Kind] = &[
    &WebhookConfiguration { kind: "ValidatingWebhookConfiguration", mutating: false },
    &WebhookConfiguration { kind: "MutatingWebhookConfiguration", mutating: true },
];

/// What reads only the metadata of the new object as a whole, and lets any finalizer pass.
pub const WHOLE_ONLY: meta::MetaLooks = meta::MetaLooks { finalizers: false, change: false, whole: 1 };

const FAILURE_POLICIES: &[&str] = &["Fail", "Ignore"];
const MATCH_POLICIES: &[&str] = &["Equivalent", "Exact"];
const REINVOCATION_POLICIES: &[&str] = &["IfNeeded", "Never"];
const SIDE_EFFECTS: &[&str] = &["None", "NoneOnDryRun"];
const REVIEW_VERSIONS: &[&str] = &["v1", "v1beta1"];
const OPERATIONS: &[&str] = &["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
const SCOPES: &[&str] = &["*", "Cluster", "Namespaced"];
const MAX_MATCH_CONDITIONS: usize = 64;

struct WebhookConfiguration {
    kind: &'static str,
    mutating: bool,
}

impl Kind for WebhookConfiguration {
    fn group(&self) -> &'static str {
        GROUP
    }

    fn kind(&self) -> &'static str {
        self.kind
    }

    fn has_status(&self) -> bool {
        false
    }

    fn counts_generation(&self) -> bool {
        true
    }

    fn unconditional_update(&self) -> bool {
        false
    }

    fn default(&self, object: &mut Value) {
        for hook in object.items_mut(&["webhooks"]) {
            hook.set_default("failurePolicy", "Fail");
            default_matching(hook);
            hook.set_default("timeoutSeconds", 10);
            if self.mutating {
                hook.set_default("reinvocationPolicy", "Never");
            }
            default_rules(hook, "rules");
            if let Some(service) = hook.at_mut(&["clientConfig", "service"]) {
                service.set_default("port", 443);
            }
        }
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        self.check(object, true, errors);
    }

    /// Match conditions that stay as they are were compiled when they came.
    fn validate_update(&self, object: &Value, old: &Value, errors: &mut Errors) {
        let (new, old) = (object.list_at(&["webhooks"]), old.list_at(&["webhooks"]));
        let same = |(a, b): (&Value, &Value)| a.get("matchConditions") == b.get("matchConditions");
        self.check(object, new.len() != old.len() || !new.iter().zip(old).all(same), errors);
    }

    fn meta_looks(&self) -> meta::MetaLooks {
        WHOLE_ONLY
    }
}

impl WebhookConfiguration {
    fn check(&self, object: &Value, conditions: bool, errors: &mut Errors) {
        let list = Path::new("webhooks");
        let hooks = object.list_at(&["webhooks"]);
        for (i, hook) in hooks.iter().enumerate() {
            let path = list.index(i);
            let name = hook.text_at(&["name"]);
            self.check_hook(hook, conditions, &path, errors);
            check_review_versions(hook, &path.child("admissionReviewVersions"), errors);
            if !name.is_empty() && hooks[..i].iter().any(|other| other.text_at(&["name"]) == name) {
                errors.duplicate(&path.child("name"), name);
            }
        }
    }

    fn check_hook(&self, hook: &Value, conditions: bool, path: &Path<'_>, errors: &mut Errors) {
        check_full_name(hook.text_at(&["name"]), &path.child("name"), errors);
        let rules = path.child("rules");
        for (i, rule) in hook.list_at(&["rules"]).iter().enumerate() {
            check_rule(rule, &rules.index(i), errors);
        }
        check_choice(hook, "failurePolicy", FAILURE_POLICIES, path, errors);
        check_choice(hook, "matchPolicy", MATCH_POLICIES, path, errors);
        if hook.at(&["sideEffects"]).is_none() {
            let detail = format!("must specify one of {}", SIDE_EFFECTS.join(", "));
            errors.required(&path.child("sideEffects"), detail);
        }
        check_choice(hook, "sideEffects", SIDE_EFFECTS, path, errors);
        if let Some(seconds) = hook.int_at(&["timeoutSeconds"]).filter(|n| !(1..=30).contains(n)) {
            let detail = "the timeout value must be between 1 and 30 seconds";
            errors.invalid(&path.child("timeoutSeconds"), seconds, detail);
        }
        for selector in ["namespaceSelector", "objectSelector"] {
            if let Some(value) = hook.at(&[selector]) {
                meta::label_selector(errors, &path.child(selector), value);
            }
        }
        if self.mutating {
            check_choice(hook, "reinvocationPolicy", REINVOCATION_POLICIES, path, errors);
        }
        let config = path.child("clientConfig");
        let place = (hook.at(&["clientConfig", "url"]), hook.at(&["clientConfig", "service"]));
        check_place(place, "exactly one of url or service is required", &config, errors);
        if conditions {
            check_match_conditions(hook, &Scope::condition(false), path, errors);
        }
    }
}

fn check_review_versions(hook: &Value, path: &Path<'_>, errors: &mut Errors) {
    let versions = hook.list_at(&["admissionReviewVersions"]);
    if versions.is_empty() {
        return errors.required(path, format!("must specify one of {}", REVIEW_VERSIONS.join(", ")));
    }
    for (i, version) in versions.iter().enumerate() {
        let text = version.as_str().unwrap_or_default();
        if versions[..i].contains(version) {
            errors.invalid(&path.index(i), text, "duplicate version");
            continue;
        }
        names::invalid_each(errors, &path.index(i), text, names::dns1035_label(text));
    }
    if !versions.iter().any(|version| REVIEW_VERSIONS.iter().any(|known| version == known)) {
        let detail = format!("must include at least one of {}", REVIEW_VERSIONS.join(", "));
        errors.invalid(path, &hook["admissionReviewVersions"], detail);
    }
}

/// How objects are matched, where nothing is said: whatever the version, in every namespace, whatever the labels.
pub fn default_matching(object: &mut Value) {
    object.set_default("matchPolicy", "Equivalent");
    object.set_default("namespaceSelector", json!({}));
    object.set_default("objectSelector", json!({}));
}

pub fn default_rules(object: &mut Value, field: &str) {
    for rule in object.items_mut(&[field]) {
        rule.set_default("scope", "*");
    }
}

/// A field that is absent or one of the values.
pub fn check_choice(object: &Value, field: &str, known: &[&str], path: &Path<'_>, errors: &mut Errors) {
    if let Some(value) = object.at(&[field]).and_then(Value::as_str)
        && !known.contains(&value)
    {
        errors.not_supported(&path.child(field), value, known);
    }
}

/// The same for a field that must be there.
pub fn check_required_choice(object: &Value, field: &str, known: &[&str], path: &Path<'_>, errors: &mut Errors) {
    if object.at(&[field]).is_none() {
        errors.required(&path.child(field), "");
    }
    check_choice(object, field, known, path, errors);
}

pub fn check_failure_policy(object: &Value, path: &Path<'_>, errors: &mut Errors) {
    check_required_choice(object, "failurePolicy", FAILURE_POLICIES, path, errors);
}

pub fn check_match_policy(object: &Value, path: &Path<'_>, errors: &mut Errors) {
    check_required_choice(object, "matchPolicy", MATCH_POLICIES, path, errors);
}

pub fn check_reinvocation_policy(object: &Value, path: &Path<'_>, errors: &mut Errors) {
    check_required_choice(object, "reinvocationPolicy", REINVOCATION_POLICIES, path, errors);
}

/// A name of at least three segments.
fn check_full_name(name: &str, path: &Path<'_>, errors: &mut Errors) {
    if name.is_empty() {
        return errors.required(path, "");
    }
    let messages = names::dns_subdomain(name);
    if !messages.is_empty() {
        errors.invalid(path, name, messages.join(","));
    } else if name.split('.').count() < 3 {
        errors.invalid(path, name, "should be a domain with at least three segments separated by dots");
    }
}

fn wildcard_alone(rule: &Value, field: &str, what: &str, path: &Path<'_>, errors: &mut Errors) {
    let values = rule.list_at(&[field]);
    if values.len() > 1 && values.iter().any(|value| value == "*") {
        errors.invalid(&path.child(field), &rule[field], format!("if '*' is present, must not specify other {what}"));
    }
}

/// What a webhook or policy is asked about: operations on resources.
pub fn check_rule(rule: &Value, path: &Path<'_>, errors: &mut Errors) {
    let require = |field: &str, errors: &mut Errors| {
        if rule.list_at(&[field]).is_empty() {
            errors.required(&path.child(field), "");
        }
    };
    require("operations", errors);
    wildcard_alone(rule, "operations", "operations", path, errors);
    let operations = path.child("operations");
    for (i, operation) in rule.list_at(&["operations"]).iter().enumerate() {
        let operation = operation.as_str().unwrap_or_default();
        if !OPERATIONS.contains(&operation) {
            errors.not_supported(&operations.index(i), operation, OPERATIONS);
        }
    }
    require("apiGroups", errors);
    wildcard_alone(rule, "apiGroups", "API groups", path, errors);
    require("apiVersions", errors);
    wildcard_alone(rule, "apiVersions", "API versions", path, errors);
    let versions = path.child("apiVersions");
    for (i, version) in rule.list_at(&["apiVersions"]).iter().enumerate() {
        if version == "" {
            errors.required(&versions.index(i), "");
        }
    }
    require("resources", errors);
    check_resources(rule, &path.child("resources"), errors);
    check_choice(rule, "scope", SCOPES, path, errors);
}

fn check_resources(rule: &Value, path: &Path<'_>, errors: &mut Errors) {
    let resources: Vec<&str> = rule.list_at(&["resources"]).iter().filter_map(Value::as_str).collect();
    let (mut all_of, mut of_all): (Vec<&str>, Vec<&str>) = (Vec::new(), Vec::new());
    // Upstream looks at the last resource that has no subresource only.
    let mut plain = false;
    for (i, resource) in resources.iter().enumerate() {
        let path = path.index(i);
        if resource.is_empty() {
            errors.required(&path, "");
            continue;
        }
        let Some((parent, sub)) = resource.split_once('/') else {
            plain = *resource != "*";
            continue;
        };
        for (covered, by) in
            [(all_of.contains(&parent), format!("{parent}/*")), (of_all.contains(&sub), format!("*/{sub}"))]
        {
            if covered {
                errors.invalid(&path, *resource, format!("if '{by}' is present, must not specify {resource}"));
            }
        }
        if sub == "*" {
            all_of.push(parent);
        }
        if parent == "*" {
            of_all.push(sub);
        }
    }
    let shown = &rule["resources"];
    if resources.len() > 1 && resources.contains(&"*/*") {
        errors.invalid(path, shown, "if '*/*' is present, must not specify other resources");
    }
    if plain && resources.contains(&"*") {
        errors.invalid(path, shown, "if '*' is present, must not specify other resources without subresources");
    }
}

/// The conditions under which a webhook or policy is asked at all.
pub fn check_match_conditions(object: &Value, scope: &Scope, path: &Path<'_>, errors: &mut Errors) {
    let list = path.child("matchConditions");
    let conditions = object.list_at(&["matchConditions"]);
    if conditions.len() > MAX_MATCH_CONDITIONS {
        errors.too_many(&list, conditions.len(), MAX_MATCH_CONDITIONS);
    }
    for (i, condition) in conditions.iter().enumerate() {
        let path = list.index(i);
        let expression = condition.text_at(&["expression"]).trim();
        if expression.is_empty() {
            errors.required(&path.child("expression"), "");
        } else {
            cel::check(expression, scope, cel::Output::Bool, &path.child("expression"), errors);
        }
        let name = condition.text_at(&["name"]);
        if name.is_empty() {
            errors.required(&path.child("name"), "");
            continue;
        }
        names::invalid_each(errors, &path.child("name"), name, names::qualified_name(name));
        if conditions[..i].iter().any(|other| other.text_at(&["name"]) == name) {
            errors.duplicate(&path.child("name"), name);
        }
    }
}

/// Where a webhook is: a URL or a service of the cluster, one of them.
pub fn check_place(place: (Option<&Value>, Option<&Value>), else_detail: &str, path: &Path<'_>, errors: &mut Errors) {
    match place {
        (Some(url), None) => check_url(url.as_str().unwrap_or_default(), &path.child("url"), errors),
        (None, Some(service)) => check_service(service, &path.child("service"), errors),
        _ => errors.required(path, else_detail),
    }
}

const URL_FORM: &str = "; desired format: https://host[/path]";

fn check_url(text: &str, path: &Path<'_>, errors: &mut Errors) {
    let url = match Url::parse(text) {
        Ok(url) => url,
        Err(why) => {
            return errors.required(
                path,
                format!("url must be a valid URL: parse {}: {why}{URL_FORM}", crate::field::go_quote(text)),
            );
        }
    };
    if url.scheme != "https" {
        errors.invalid(path, url.scheme.as_str(), format!("'https' is the only allowed URL scheme{URL_FORM}"));
    }
    if url.host.is_empty() {
        errors.invalid(path, "", format!("host must be specified{URL_FORM}"));
    }
    if let Some(user) = url.user {
        errors.invalid(path, user, "user information is not permitted in the URL");
    }
    if !url.fragment.is_empty() {
        errors.invalid(path, url.fragment, "fragments are not permitted in the URL");
    }
    if !url.query.is_empty() {
        errors.invalid(path, url.query, "query parameters are not permitted in the URL");
    }
}

/// A URL as Go's `net/url` takes it apart, as far as webhooks are concerned.
struct Url<'a> {
    scheme: String,
    user: Option<&'a str>,
    host: &'a str,
    query: &'a str,
    fragment: &'a str,
}

impl<'a> Url<'a> {
    fn parse(text: &'a str) -> Result<Url<'a>, String> {
        let (rest, fragment) = text.split_once('#').unwrap_or((text, ""));
        if rest.bytes().any(|b| b < 0x20 || b == 0x7f) {
            return Err("net/url: invalid control character in URL".to_owned());
        }
        if text.is_empty() {
            return Ok(Url { scheme: String::new(), user: None, host: "", query: "", fragment });
        }
        let (scheme, rest) = Self::scheme(rest)?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let rooted = rest.starts_with('/');
        if !rooted && scheme.is_empty() && rest.split('/').next().is_some_and(|first| first.contains(':')) {
            return Err("first path segment in URL cannot contain colon".to_owned());
        }
        let Some(rest) = rest.strip_prefix("//") else {
            return Ok(Url { scheme, user: None, host: "", query, fragment });
        };
        let authority = rest.split('/').next().unwrap_or_default();
        let (user, host) = match authority.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, authority),
        };
        Self::check_host(host)?;
        Ok(Url { scheme, user, host, query, fragment })
    }

    fn scheme(text: &str) -> Result<(String, &str), String> {
        for (i, b) in text.bytes().enumerate() {
            match b {
                b'a'..=b'z' | b'A'..=b'Z' => {}
                b'0'..=b'9' | b'+' | b'-' | b'.' if i > 0 => {}
                b':' if i == 0 => return Err("missing protocol scheme".to_owned()),
                b':' => return Ok((text[..i].to_ascii_lowercase(), &text[i + 1..])),
                _ => break,
            }
        }
        Ok((String::new(), text))
    }

    fn check_host(host: &str) -> Result<(), String> {
        let port = match host.strip_prefix('[') {
            Some(rest) => match rest.split_once(']') {
                Some((_, port)) => port,
                None => return Err("missing ']' in host".to_owned()),
            },
            None => host.rfind(':').map_or("", |at| &host[at..]),
        };
        let digits = port.strip_prefix(':').unwrap_or(port);
        if (!port.is_empty() && !port.starts_with(':')) || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(format!("invalid port {} after host", crate::field::go_quote(port)));
        }
        match host.chars().find(|c| matches!(c, ' ' | '"' | '<' | '>' | '\\' | '^' | '`' | '{' | '|' | '}')) {
            Some(c) => Err(format!("invalid character {} in host name", crate::field::go_quote(&c.to_string()))),
            None => Ok(()),
        }
    }
}

fn check_service(service: &Value, path: &Path<'_>, errors: &mut Errors) {
    // Upstream hands the two over in the wrong order, and so names the one when the other is missing.
    for (field, reported) in [("namespace", "name"), ("name", "namespace")] {
        if service.text_at(&[field]).is_empty() {
            errors.required(&path.child(reported), "");
        }
    }
    let port = service.int_at(&["port"]).unwrap_or_default();
    if !(1..=65535).contains(&port) {
        errors.invalid(&path.child("port"), port, "port is not valid: must be between 1 and 65535, inclusive");
    }
    let text = service.text_at(&["path"]);
    let path = path.child("path");
    if matches!(text, "" | "/") {
        return;
    }
    if text == "//" {
        return errors.invalid(&path, text, "segment[0] may not be empty");
    }
    if !text.starts_with('/') {
        errors.invalid(&path, text, "must start with a '/'");
    }
    let mut rest = text.chars();
    rest.next();
    let rest = rest.as_str();
    for (i, segment) in rest.strip_suffix('/').unwrap_or(rest).split('/').enumerate() {
        if segment.is_empty() {
            errors.invalid(&path, text, format!("segment[{i}] may not be empty"));
            continue;
        }
        for message in names::dns_subdomain(segment) {
            errors.invalid(&path, text, format!("segment[{i}]: {message}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(errors: &Errors) -> Vec<String> {
        errors.0.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_hook_needs_a_name_effects_a_place_and_versions() {
        let mut object = json!({"webhooks": [{}]});
        KINDS[1].default(&mut object);
        assert_eq!(object["webhooks"][0]["reinvocationPolicy"], "Never");
        let mut errors = Errors::default();
        KINDS[1].validate(&object, &mut errors);
        assert_eq!(
            texts(&errors),
            [
                "webhooks[0].name: Required value",
                "webhooks[0].sideEffects: Required value: must specify one of None, NoneOnDryRun",
                "webhooks[0].clientConfig: Required value: exactly one of url or service is required",
                "webhooks[0].admissionReviewVersions: Required value: must specify one of v1, v1beta1"
            ]
        );
    }

    #[test]
    fn urls_are_read_as_go_reads_them() {
        let of = |url: &str| {
            let mut errors = Errors::default();
            check_url(url, &Path::new("url"), &mut errors);
            texts(&errors)
        };
        assert!(of("https://a.example.com:8443/x").is_empty());
        assert_eq!(of("http://u@a/?q#f").len(), 4);
        assert_eq!(of("Bad Value!").len(), 2);
        assert!(of("https://a:b")[0].contains(r#"parse "https://a:b": invalid port ":b" after host"#));
    }

    #[test]
    fn a_resource_is_said_once() {
        let mut errors = Errors::default();
        let rule = json!({"resources": ["pods/*", "pods/log", "*", "pods"]});
        check_resources(&rule, &Path::new("r"), &mut errors);
        assert_eq!(errors.0.iter().map(|e| e.field.as_str()).collect::<Vec<_>>(), ["r[1]", "r"]);
    }
}

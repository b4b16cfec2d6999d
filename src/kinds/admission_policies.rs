//! ValidatingAdmissionPolicy, MutatingAdmissionPolicy and their bindings.

use serde_json::{Value, json};

use super::Kind;
use super::cel::{self, Output, Scope};
use super::meta;
use super::names;
use super::webhooks::{self, GROUP, WHOLE_ONLY, check_choice};
use crate::field::{Errors, Path};
use crate::object::Fields;

pub static KINDS: &[&dyn Kind] = &[
    &Policy { kind: "ValidatingAdmissionPolicy", mutating: false },
    &Policy { kind: "MutatingAdmissionPolicy", mutating: true },
    &Binding { kind: "ValidatingAdmissionPolicyBinding", mutating: false },
    &Binding { kind: "MutatingAdmissionPolicyBinding", mutating: true },
];

const ACTIONS: &[&str] = &["Audit", "Deny", "Warn"];
const REASONS: &[&str] = &["Forbidden", "Invalid", "RequestEntityTooLarge"];
const PATCH_TYPES: &[&str] = &["ApplyConfiguration", "JSONPatch"];
const MUTATED_OPERATIONS: &[&str] = &["*", "CONNECT", "CREATE", "UPDATE"];
const PARAMETER_ACTIONS: &[&str] = &["Deny", "Allow"];
const RESERVED: &[&str] = &[
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];
const MAX_AUDIT_ANNOTATIONS: usize = 20;
const MAX_AUDIT_EXPRESSION: usize = 5 * 1024;

struct Policy {
    kind: &'static str,
    mutating: bool,
}

impl Kind for Policy {
    fn group(&self) -> &'static str {
        GROUP
    }

    fn kind(&self) -> &'static str {
        self.kind
    }

    fn has_status(&self) -> bool {
        !self.mutating
    }

    fn counts_generation(&self) -> bool {
        true
    }

    fn unconditional_update(&self) -> bool {
        false
    }

    fn default(&self, object: &mut Value) {
        if let Some(spec) = object.at_mut(&["spec"]) {
            spec.set_default("failurePolicy", "Fail");
            if let Some(matched) = spec.at_mut(&["matchConstraints"]) {
                default_resources(matched);
            }
        }
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        self.check(object, true, errors);
    }

    /// Match conditions that stay as they are, over the same parameters, were compiled when they came.
    fn validate_update(&self, object: &Value, old: &Value, errors: &mut Errors) {
        let same = |field: &str| object.at(&["spec", field]) == old.at(&["spec", field]);
        self.check(object, !(same("paramKind") && same("matchConditions")), errors);
    }

    fn validate_status_update(&self, object: &Value, _old: &Value, errors: &mut Errors) {
        let status = Path::new("status");
        let checking = status.child("typeChecking");
        let list = checking.child("expressionWarnings");
        for (i, warning) in object.list_at(&["status", "typeChecking", "expressionWarnings"]).iter().enumerate() {
            let path = list.index(i);
            if warning.text_at(&["warning"]).is_empty() {
                errors.required(&path.child("warning"), "");
            }
            if warning.text_at(&["fieldRef"]).trim().is_empty() {
                errors.required(&path.child("fieldRef"), "");
            }
        }
        meta::conditions(errors, &status.child("conditions"), object.list_at(&["status", "conditions"]));
    }

    fn meta_looks(&self) -> meta::MetaLooks {
        WHOLE_ONLY
    }
}

impl Policy {
    fn check(&self, object: &Value, conditions: bool, errors: &mut Errors) {
        let path = Path::new("spec");
        let empty = json!({});
        let spec = object.at(&["spec"]).unwrap_or(&empty);
        webhooks::check_failure_policy(spec, &path, errors);
        let params = spec.at(&["paramKind"]);
        if let Some(kind) = params {
            check_param_kind(kind, &path.child("paramKind"), errors);
        }
        let constraints = path.child("matchConstraints");
        match spec.at(&["matchConstraints"]) {
            None => errors.required(&constraints, ""),
            Some(matched) => {
                check_resources(matched, &constraints, errors);
                let rules = constraints.child("resourceRules");
                if matched.list_at(&["resourceRules"]).is_empty() {
                    errors.required(&rules, "");
                }
                if self.mutating {
                    check_mutated_operations(matched, &rules.child("operations"), errors);
                }
            }
        }
        if conditions {
            webhooks::check_match_conditions(spec, &Scope::condition(params.is_some()), &path, errors);
        }
        let composed = !spec.list_at(&["variables"]).is_empty();
        let mut scope = match self.mutating {
            true => Scope::mutating_policy(params.is_some(), composed),
            false => Scope::policy(params.is_some(), true, composed),
        };
        check_variables(spec, &mut scope, &path, errors);
        if self.mutating {
            check_mutations(spec, &scope, &path, errors);
            webhooks::check_reinvocation_policy(spec, &path, errors);
        } else {
            check_validations(object, spec, &scope, &path, errors);
        }
    }
}

/// What is to match, wherever it says nothing.
fn default_resources(matched: &mut Value) {
    webhooks::default_matching(matched);
    webhooks::default_rules(matched, "resourceRules");
    webhooks::default_rules(matched, "excludeResourceRules");
}

fn check_resources(matched: &Value, path: &Path<'_>, errors: &mut Errors) {
    webhooks::check_match_policy(matched, path, errors);
    for selector in ["namespaceSelector", "objectSelector"] {
        match matched.at(&[selector]) {
            None => errors.required(&path.child(selector), ""),
            Some(value) => meta::label_selector(errors, &path.child(selector), value),
        }
    }
    for field in ["resourceRules", "excludeResourceRules"] {
        let list = path.child(field);
        for (i, rule) in matched.list_at(&[field]).iter().enumerate() {
            let path = list.index(i);
            let names_of = path.child("resourceNames");
            let names = rule.list_at(&["resourceNames"]);
            for (j, name) in names.iter().enumerate() {
                let text = name.as_str().unwrap_or_default();
                names::invalid_each(errors, &names_of.index(j), text, names::path_segment(text));
                if names[..j].contains(name) {
                    errors.duplicate(&names_of.index(j), text);
                }
            }
            webhooks::check_rule(rule, &path, errors);
        }
    }
}

/// There is nothing to change of what is being deleted.
fn check_mutated_operations(matched: &Value, path: &Path<'_>, errors: &mut Errors) {
    for rule in matched.list_at(&["resourceRules"]) {
        for operation in rule.list_at(&["operations"]).iter().filter(|operation| *operation == "DELETE") {
            errors.not_supported(path, operation, MUTATED_OPERATIONS);
        }
    }
}

fn check_param_kind(kind: &Value, path: &Path<'_>, errors: &mut Errors) {
    let at = path.child("apiVersion");
    let version = kind.text_at(&["apiVersion"]);
    match version.matches('/').count() {
        _ if version.is_empty() => errors.required(&at, ""),
        0 | 1 => {
            let (group, version_only) = version.split_once('/').unwrap_or(("", version));
            let messages = if group.is_empty() { Vec::new() } else { names::dns_subdomain(group) };
            if !messages.is_empty() {
                errors.invalid(&at, group, messages.join(","));
            }
            let messages = names::dns1035_label(version_only);
            if version_only.is_empty() {
                errors.invalid(&at, version, "version must be specified");
            } else if !messages.is_empty() {
                errors.invalid(&at, version_only, messages.join(","));
            }
        }
        _ => errors.invalid(&at, version, format!("unexpected GroupVersion string: {version}")),
    }
    let name = kind.text_at(&["kind"]);
    let messages = names::dns1035_label(&name.to_lowercase());
    if name.is_empty() {
        errors.required(&path.child("kind"), "");
    } else if !messages.is_empty() {
        let detail = format!("may have mixed case, but should otherwise match: {}", messages.join(","));
        errors.invalid(&path.child("kind"), name, detail);
    }
}

fn is_identifier(name: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    name.bytes().all(word) && !name.starts_with(|c: char| c.is_ascii_digit()) && !RESERVED.contains(&name)
}

/// A variable may use those before it.
fn check_variables(spec: &Value, scope: &mut Scope, path: &Path<'_>, errors: &mut Errors) {
    let list = path.child("variables");
    for (i, variable) in spec.list_at(&["variables"]).iter().enumerate() {
        let path = list.index(i);
        let name = variable.text_at(&["name"]);
        if name.trim().is_empty() {
            errors.required(&path.child("name"), "name is not specified");
        } else if !is_identifier(name) {
            errors.invalid(&path.child("name"), name, "name is not a valid CEL identifier");
        }
        let expression = variable.text_at(&["expression"]);
        if expression.trim().is_empty() {
            errors.required(&path.child("expression"), "expression is not specified");
        } else {
            let found = cel::check(expression, scope, Output::Any, &path.child("expression"), errors);
            scope.declare(name, found);
        }
    }
}

fn check_validations(object: &Value, spec: &Value, scope: &Scope, path: &Path<'_>, errors: &mut Errors) {
    let validations = spec.list_at(&["validations"]);
    let annotations = spec.list_at(&["auditAnnotations"]);
    if validations.is_empty() && annotations.is_empty() {
        for field in ["validations", "auditAnnotations"] {
            let detail = "validations or auditAnnotations must contain at least one item";
            errors.required(&path.child(field), detail);
        }
        return;
    }
    // The message of a denial is made without asking for further rights.
    let composed = !spec.list_at(&["variables"]).is_empty();
    let messages = Scope::policy(spec.at(&["paramKind"]).is_some(), false, composed).with_variables_of(scope);
    let list = path.child("validations");
    for (i, validation) in validations.iter().enumerate() {
        check_validation(validation, scope, &messages, &list.index(i), errors);
    }
    let list = path.child("auditAnnotations");
    if annotations.len() > MAX_AUDIT_ANNOTATIONS {
        let detail = format!("must not have more than {MAX_AUDIT_ANNOTATIONS} auditAnnotations");
        errors.invalid(&list, &spec["auditAnnotations"], detail);
    }
    let name = object.text_at(&["metadata", "name"]);
    for (i, annotation) in annotations.iter().enumerate() {
        let path = list.index(i);
        let key = annotation.text_at(&["key"]);
        check_audit_annotation(annotation, name, scope, &path, errors);
        if annotations[..i].iter().any(|other| other.text_at(&["key"]) == key) {
            errors.duplicate(&path.child("key"), key);
        }
    }
}

fn check_validation(validation: &Value, scope: &Scope, messages: &Scope, path: &Path<'_>, errors: &mut Errors) {
    let expression = validation.text_at(&["expression"]);
    if expression.trim().is_empty() {
        errors.required(&path.child("expression"), "expression is not specified");
    } else {
        cel::check(expression, scope, Output::Bool, &path.child("expression"), errors);
    }
    let at = path.child("messageExpression");
    match validation.text_at(&["messageExpression"]) {
        "" => {}
        text if text.trim().is_empty() => errors.invalid(&at, text, "must be non-empty if specified"),
        text => {
            cel::check(text, messages, Output::String, &at, errors);
        }
    }
    let message = validation.text_at(&["message"]);
    let at = path.child("message");
    if !message.is_empty() && message.trim().is_empty() {
        errors.invalid(&at, message, "message must be non-empty if specified");
    } else if message.trim().contains(['\n', '\r']) {
        errors.invalid(&at, message, "message must not contain line breaks");
    }
    check_choice(validation, "reason", REASONS, path, errors);
}

fn check_audit_annotation(annotation: &Value, policy: &str, scope: &Scope, path: &Path<'_>, errors: &mut Errors) {
    let key = annotation.text_at(&["key"]);
    if policy.is_empty() {
        errors.invalid(&path.child("key"), key, "requires metadata.name be non-empty");
    } else {
        let full = format!("{policy}/{key}");
        names::invalid_each(errors, &path.child("key"), &full, names::qualified_name(&full));
    }
    let at = path.child("valueExpression");
    let expression = annotation.text_at(&["valueExpression"]);
    match expression.trim().len() {
        0 => errors.required(&at, "valueExpression is not specified"),
        n if n > MAX_AUDIT_EXPRESSION => {
            errors.required(&at, format!("must not exceed {MAX_AUDIT_EXPRESSION} bytes in length"));
        }
        _ => {
            cel::check(expression.trim(), scope, Output::StringOrNull, &at, errors);
        }
    }
}

fn check_mutations(spec: &Value, scope: &Scope, path: &Path<'_>, errors: &mut Errors) {
    let list = path.child("mutations");
    let mutations = spec.list_at(&["mutations"]);
    if mutations.is_empty() {
        errors.required(&list, "mutations must contain at least one item");
    }
    for (i, mutation) in mutations.iter().enumerate() {
        let path = list.index(i);
        let kind = mutation.text_at(&["patchType"]);
        let (field, other, output) = match kind {
            "" => {
                errors.required(&path.child("patchType"), "");
                continue;
            }
            "ApplyConfiguration" => ("applyConfiguration", "jsonPatch", Output::Object),
            "JSONPatch" => ("jsonPatch", "applyConfiguration", Output::Patches),
            _ => {
                errors.not_supported(&path.child("patchType"), kind, PATCH_TYPES);
                continue;
            }
        };
        let at = path.child(field);
        match mutation.at(&[field]) {
            None => errors.required(&at, format!("must be specified when patchType is {kind}")),
            Some(change) => match change.text_at(&["expression"]) {
                text if text.trim().is_empty() => errors.required(&at.child("expression"), ""),
                text => {
                    cel::check(text, scope, output, &at.child("expression"), errors);
                }
            },
        }
        if mutation.at(&[other]).is_some() {
            let detail = format!("must not be specified when patchType is {kind}");
            errors.invalid(&path.child(other), format!("{{{other}}}"), detail);
        }
    }
}

struct Binding {
    kind: &'static str,
    mutating: bool,
}

impl Kind for Binding {
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
        if let Some(matched) = object.at_mut(&["spec", "matchResources"]) {
            default_resources(matched);
        }
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        let spec = Path::new("spec");
        let policy = object.text_at(&["spec", "policyName"]);
        if policy.is_empty() {
            errors.required(&spec.child("policyName"), "");
        } else {
            names::invalid_each(errors, &spec.child("policyName"), policy, names::dns_subdomain(policy));
        }
        if let Some(params) = object.at(&["spec", "paramRef"]) {
            check_param_ref(params, &spec.child("paramRef"), errors);
        }
        if let Some(matched) = object.at(&["spec", "matchResources"]) {
            check_resources(matched, &spec.child("matchResources"), errors);
        }
        if !self.mutating {
            check_actions(object, &spec.child("validationActions"), errors);
        }
    }

    fn meta_looks(&self) -> meta::MetaLooks {
        WHOLE_ONLY
    }
}

fn check_param_ref(params: &Value, path: &Path<'_>, errors: &mut Errors) {
    const EXCLUSIVE: &str = "name and selector are mutually exclusive";
    let name = params.text_at(&["name"]);
    let selector = params.at(&["selector"]);
    if !name.is_empty() {
        names::invalid_each(errors, &path.child("name"), name, names::path_segment(name));
        if selector.is_some() {
            errors.forbidden(&path.child("name"), EXCLUSIVE);
        }
    }
    if let Some(selector) = selector {
        meta::label_selector(errors, &path.child("selector"), selector);
        if !name.is_empty() {
            errors.forbidden(&path.child("selector"), EXCLUSIVE);
        }
    }
    if name.is_empty() && selector.is_none() {
        errors.required(path, "one of name or selector must be specified");
    }
    let action = params.text_at(&["parameterNotFoundAction"]);
    if action.is_empty() {
        errors.required(&path.child("parameterNotFoundAction"), "");
    } else {
        check_choice(params, "parameterNotFoundAction", PARAMETER_ACTIONS, path, errors);
    }
}

fn check_actions(object: &Value, path: &Path<'_>, errors: &mut Errors) {
    let actions = object.list_at(&["spec", "validationActions"]);
    for (i, action) in actions.iter().enumerate() {
        let text = action.as_str().unwrap_or_default();
        if !ACTIONS.contains(&text) {
            errors.not_supported(&path.index(i), text, ACTIONS);
        }
        if actions[..i].contains(action) {
            errors.duplicate(&path.index(i), text);
        }
    }
    let has = |name: &str| actions.iter().any(|action| action == name);
    if has("Deny") && has("Warn") {
        let detail = "must not contain both Deny and Warn (repeating the same validation failure information in the \
                      API response and headers serves no purpose)";
        errors.invalid(path, &object["spec"]["validationActions"], detail);
    }
    if actions.is_empty() {
        errors.required(path, "at least one validation action is required");
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
    fn a_policy_compiles_with_its_variables() {
        let rules = json!([{"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["deployments"]}]);
        let policy = |variables: Value| {
            json!({"metadata": {"name": "p"}, "spec": {
                "matchConstraints": {"resourceRules": rules}, "variables": variables,
                "validations": [{"expression": "variables.reps > 1", "messageExpression": "'x' + string(variables.reps)"}]}})
        };
        let good = json!([{"name": "all", "expression": "object.spec"}, {"name": "reps", "expression": "variables.all.replicas"}]);
        assert_eq!(run(KINDS[0], policy(good)), Vec::<String>::new());
        let errors = run(KINDS[0], policy(json!([{"name": "while", "expression": "1"}])));
        assert_eq!(errors.len(), 3);
        assert!(errors[0].ends_with("name is not a valid CEL identifier"));
    }

    #[test]
    fn a_mutation_makes_objects_or_patches() {
        let policy = |mutation: Value, operation: &str| {
            let rule = json!({"apiGroups": ["*"], "apiVersions": ["*"], "operations": [operation], "resources": ["*"]});
            json!({"metadata": {"name": "p"}, "spec": {
                "matchConstraints": {"resourceRules": [rule]}, "reinvocationPolicy": "Never", "mutations": [mutation]}})
        };
        let made = json!({"expression": "Object{metadata: Object.metadata{labels: {'a': 'b'}}}"});
        assert!(
            run(KINDS[1], policy(json!({"patchType": "ApplyConfiguration", "applyConfiguration": made}), "*"))
                .is_empty()
        );
        let patch = json!({"patchType": "JSONPatch", "jsonPatch": {"expression": "[]"}, "applyConfiguration": made});
        assert_eq!(
            run(KINDS[1], policy(patch, "DELETE")),
            [
                r#"spec.matchConstraints.resourceRules.operations: Unsupported value: "DELETE": supported values: "*", "CONNECT", "CREATE", "UPDATE""#,
                r#"spec.mutations[0].jsonPatch.expression: Invalid value: "[]": must evaluate to list(JSONPatch) but got list(dyn)"#,
                r#"spec.mutations[0].applyConfiguration: Invalid value: "{applyConfiguration}": must not be specified when patchType is JSONPatch"#,
            ]
        );
    }

    #[test]
    fn a_binding_says_what_to_do() {
        let object =
            json!({"spec": {"policyName": "p", "paramRef": {}, "validationActions": ["Deny", "Warn", "Deny"]}});
        let errors = run(KINDS[2], object);
        assert_eq!(errors.len(), 4);
        assert!(errors[3].contains("must not contain both Deny and Warn"));
    }
}

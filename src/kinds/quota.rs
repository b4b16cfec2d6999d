//! ResourceQuota and LimitRange: what a namespace may use, and what one object in it may ask for.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use serde_json::Value;

use super::Kind;
use super::go_shape::{self, Part, Shape};
use super::meta;
use super::names;
use super::pods::resources::default_amounts;
use super::quantity;
use crate::field::{Errors, Path, Raw};
use crate::object::Fields;

pub static KINDS: &[&dyn Kind] = &[&ResourceQuota, &LimitRange];

pub struct ResourceQuota;

const POD_COUNTS: &[&str] = &["pods"];
const POD_COMPUTE: &[&str] = &["cpu", "memory", "limits.cpu", "limits.memory", "requests.cpu", "requests.memory"];
const CLAIMS: &[&str] = &["persistentvolumeclaims", "requests.storage"];

/// The scopes, and the resources that a quota of that scope can limit.
const SCOPES: &[(&str, &[&[&str]])] = &[
    ("Terminating", &[POD_COUNTS, POD_COMPUTE]),
    ("NotTerminating", &[POD_COUNTS, POD_COMPUTE]),
    ("BestEffort", &[POD_COUNTS]),
    ("NotBestEffort", &[POD_COUNTS, POD_COMPUTE]),
    ("PriorityClass", &[POD_COUNTS, POD_COMPUTE]),
    ("CrossNamespacePodAffinity", &[POD_COUNTS, POD_COMPUTE]),
    ("VolumeAttributesClass", &[CLAIMS]),
];

const CONFLICTING: &[[&str; 2]] = &[["BestEffort", "NotBestEffort"], ["Terminating", "NotTerminating"]];

/// Scopes that a selector can only ask to be there.
const PLAIN_SCOPES: &[&str] =
    &["BestEffort", "NotBestEffort", "Terminating", "NotTerminating", "CrossNamespacePodAffinity"];

const SCOPE_SELECTOR: Shape = &[(
    "MatchExpressions",
    "matchExpressions",
    Part::List(&[
        ("ScopeName", "scopeName", Part::Text),
        ("Operator", "operator", Part::Text),
        ("Values", "values", Part::Plain),
    ]),
)];

fn suits(scope: &str, resource: &str) -> bool {
    let found = SCOPES.iter().find(|(name, _)| *name == scope);
    found.is_none_or(|(_, lists)| lists.iter().any(|list| list.contains(&resource)))
}

/// The limited resources that a scope does not go with.
fn unsuited<'q>(quota: &'q Value, scope: &'q str) -> impl Iterator<Item = &'q String> {
    let hard = quota.map_at(&["spec", "hard"]).into_iter().flatten().map(|(name, _)| name);
    hard.filter(move |name| quantity::is_quota_standard(name) && !suits(scope, name))
}

fn conflicts(scopes: &BTreeSet<&str>) -> usize {
    CONFLICTING.iter().filter(|pair| pair.iter().all(|scope| scopes.contains(scope))).count()
}

fn check_amounts(object: &Value, section: &str, list: &str, errors: &mut Errors) {
    let section_path = Path::new(section);
    let list_path = section_path.child(list);
    for (name, amount) in object.map_at(&[section, list]).into_iter().flatten() {
        let path = list_path.key(name);
        quantity::resource_name(errors, &path, name);
        if !name.contains('/') && !quantity::is_quota_standard(name) {
            errors.invalid(&path, name, "must be a standard resource for quota");
        }
        quantity::resource_value(errors, &path, name, amount);
    }
}

fn check_scopes(quota: &Value, errors: &mut Errors) {
    let spec = Path::new("spec");
    let path = spec.child("scopes");
    let scopes: Vec<&str> = quota.list_at(&["spec", "scopes"]).iter().filter_map(Value::as_str).collect();
    let mut complain = |detail: &str| errors.invalid(&path, &quota["spec"]["scopes"], detail);
    for scope in &scopes {
        if !SCOPES.iter().any(|(name, _)| name == scope) {
            complain("unsupported scope");
        }
        unsuited(quota, scope).for_each(|_| complain("unsupported scope applied to resource"));
    }
    for _ in 0..conflicts(&scopes.iter().copied().collect()) {
        complain("conflicting scopes");
    }
}

fn check_scope_selector(quota: &Value, errors: &mut Errors) {
    let Some(selector) = quota.at(&["spec", "scopeSelector"]) else { return };
    let spec = Path::new("spec");
    let path = spec.child("scopeSelector");
    let path = path.child("matchExpressions");
    let mut scopes = BTreeSet::new();
    for expression in selector.list_at(&["matchExpressions"]) {
        let scope = expression.text_at(&["scopeName"]);
        let operator = expression.text_at(&["operator"]);
        if !SCOPES.iter().any(|(name, _)| *name == scope) {
            errors.invalid(&path.child("scopeName"), scope, "unsupported scope");
        }
        for _ in unsuited(quota, scope) {
            let shown = go_shape::by_value(Some(selector), SCOPE_SELECTOR);
            errors.invalid(&path, shown, "unsupported scope applied to resource");
        }
        if PLAIN_SCOPES.contains(&scope) && operator != "Exists" {
            errors.invalid(
                &path.child("operator"),
                operator,
                "must be 'Exist' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, \
                 ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or \
                 ResourceQuotaScopeCrossNamespacePodAffinity",
            );
        }
        let values = path.child("values");
        match (operator, expression.list_at(&["values"])) {
            ("In" | "NotIn", []) => errors
                .required(&values, "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector"),
            ("Exists" | "DoesNotExist", [_, ..]) => errors.invalid(
                &values,
                &expression["values"],
                "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector",
            ),
            ("In" | "NotIn" | "Exists" | "DoesNotExist", _) => {}
            _ => errors.invalid(&path.child("operator"), operator, "not a valid selector operator"),
        }
        scopes.insert(scope);
    }
    for _ in 0..conflicts(&scopes) {
        let shown = quota.at(&["spec", "scopes"]).map_or("null".to_owned(), Value::to_string);
        errors.invalid(&path, Raw(shown), "conflicting scopes");
    }
}

impl ResourceQuota {
    fn check_spec(object: &Value, errors: &mut Errors) {
        check_amounts(object, "spec", "hard", errors);
        check_scopes(object, errors);
        check_scope_selector(object, errors);
    }
}

impl Kind for ResourceQuota {
    fn group(&self) -> &'static str {
        ""
    }

    fn kind(&self) -> &'static str {
        "ResourceQuota"
    }

    fn default(&self, object: &mut Value) {
        for (holder, list) in [("spec", "hard"), ("status", "hard"), ("status", "used")] {
            if let Some(holder) = object.at_mut(&[holder]) {
                default_amounts(holder, list);
            }
        }
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        Self::check_spec(object, errors);
        for list in ["hard", "used"] {
            check_amounts(object, "status", list, errors);
        }
    }

    fn validate_update(&self, object: &Value, old: &Value, errors: &mut Errors) {
        Self::check_spec(object, errors);
        let scopes = |object: &'_ Value| -> BTreeSet<String> {
            let scopes = object.list_at(&["spec", "scopes"]).iter().filter_map(Value::as_str);
            scopes.map(str::to_owned).collect()
        };
        if scopes(object) != scopes(old) {
            let spec = Path::new("spec");
            let shown = object.at(&["spec", "scopes"]).map_or("null".to_owned(), Value::to_string);
            errors.invalid(&spec.child("scopes"), Raw(shown), meta::FIELD_IMMUTABLE);
        }
    }

    fn validate_status_update(&self, object: &Value, _old: &Value, errors: &mut Errors) {
        for list in ["hard", "used"] {
            check_amounts(object, "status", list, errors);
        }
    }

    fn meta_looks(&self) -> meta::MetaLooks {
        meta::MetaLooks { finalizers: true, change: true, whole: 0 }
    }
}

pub struct LimitRange;

const LIMIT_TYPES: &[&str] = &["Pod", "Container", "PersistentVolumeClaim"];
const LISTS: &[&str] = &["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"];

/// From what the limits of containers are taken where they are not given: in this order.
const CONTAINER_DEFAULTS: &[(&str, &str)] =
    &[("max", "default"), ("default", "defaultRequest"), ("min", "defaultRequest")];

/// Pairs of amounts of one resource of which the first must not be greater: where that is reported, the amount that is
/// shown there, and the words.
const ORDERED: &[(&str, &str, &str, &str, &str)] = &[
    ("min", "max", "min", "min", "min value {} is greater than max value {}"),
    (
        "min",
        "defaultRequest",
        "defaultRequest",
        "defaultRequest",
        "min value {} is greater than default request value {}",
    ),
    (
        "defaultRequest",
        "max",
        "defaultRequest",
        "defaultRequest",
        "default request value {} is greater than max value {}",
    ),
    (
        "defaultRequest",
        "default",
        "defaultRequest",
        "defaultRequest",
        "default request value {} is greater than default limit value {}",
    ),
    ("min", "default", "default", "min", "min value {} is greater than default value {}"),
    ("default", "max", "default", "max", "default value {} is greater than max value {}"),
];

fn text(amount: &Value) -> String {
    amount.as_str().map_or_else(|| amount.to_string(), str::to_owned)
}

fn check_limit(limit: &Value, path: &Path<'_>, errors: &mut Errors) {
    let kind = limit.text_at(&["type"]);
    let mut resources = BTreeSet::new();
    for list in LISTS {
        let at = path.child(list);
        let amounts = limit.map_at(&[list]);
        if kind == "Pod" && list.starts_with("default") {
            if amounts.is_some_and(|map| !map.is_empty()) {
                errors.forbidden(&at, "may not be specified when `type` is 'Pod'");
            }
            continue;
        }
        if *list == "maxLimitRequestRatio"
            && kind == "PersistentVolumeClaim"
            && limit.at(&["min", "storage"]).or(limit.at(&["max", "storage"])).is_none()
        {
            let detail = "either minimum or maximum storage value is required, but neither was provided";
            errors.required(&path.child("limits"), detail);
        }
        for (name, _) in amounts.into_iter().flatten() {
            if matches!(kind, "Pod" | "Container") {
                quantity::container_resource_name(errors, &at.key(name), name);
            } else {
                quantity::resource_name(errors, &at.key(name), name);
            }
            resources.insert(name.as_str());
        }
    }
    for resource in resources {
        check_resource(limit, resource, path, errors);
    }
}

/// The limits of one resource fit together.
fn check_resource(limit: &Value, resource: &str, path: &Path<'_>, errors: &mut Errors) {
    let amount = |list: &str| {
        let hidden = limit.text_at(&["type"]) == "Pod" && list.starts_with("default");
        limit.at(&[list, resource]).filter(|_| !hidden)
    };
    for (low, high, at, shown, words) in ORDERED {
        if let (Some(a), Some(b)) = (amount(low), amount(high))
            && quantity::compare(a, b) == Ordering::Greater
        {
            let detail = words.replacen("{}", &text(a), 1).replacen("{}", &text(b), 1);
            let at = path.child(at);
            errors.invalid(&at.key(resource), amount(shown).unwrap_or(&Value::Null), detail);
        }
    }
    if let Some(ratio) = amount("maxLimitRequestRatio") {
        let at = path.child("maxLimitRequestRatio");
        if quantity::compare(ratio, &"1".into()) == Ordering::Less {
            errors.invalid(&at.key(resource), ratio, format!("ratio {} is less than 1", text(ratio)));
        }
        if let (Some(min), Some(max)) = (amount("min"), amount("max")) {
            let highest = quantity::ratio(max, min);
            if quantity::ratio(ratio, &"1".into()) > highest {
                let detail = format!("ratio {} is greater than max/min = {highest:.6}", text(ratio));
                errors.invalid(&at.key(resource), ratio, detail);
            }
        }
    }
    if !quantity::is_overcommitted(resource)
        && let (Some(limit), Some(request)) = (amount("default"), amount("defaultRequest"))
        && quantity::compare(limit, request) != Ordering::Equal
    {
        let at = path.child("defaultRequest");
        let (limit, shown) = (text(limit), text(request));
        let detail = format!("default value {limit} must equal to defaultRequest value {shown} in {resource}");
        errors.invalid(&at.key(resource), request, detail);
    }
}

impl Kind for LimitRange {
    fn group(&self) -> &'static str {
        ""
    }

    fn kind(&self) -> &'static str {
        "LimitRange"
    }

    fn has_status(&self) -> bool {
        false
    }

    fn create_on_update(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        for limit in object.items_mut(&["spec", "limits"]) {
            if limit.text_at(&["type"]) == "Container" {
                for (from, to) in CONTAINER_DEFAULTS {
                    let given = limit.map_at(&[from]).cloned().unwrap_or_default();
                    let map = limit.make_map(&[to]);
                    for (name, amount) in given {
                        map.entry(name).or_insert(amount);
                    }
                }
            }
            for list in LISTS {
                default_amounts(limit, list);
            }
        }
    }

    /// A limit range without a name gets one, so that it can be made by a client that only wants its limits.
    fn prepare_create(&self, object: &mut Value) {
        if object.text_at(&["metadata", "name"]).is_empty() {
            object.set(&["metadata", "name"], uuid::Uuid::new_v4().to_string());
        }
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        let spec = Path::new("spec");
        let list = spec.child("limits");
        let limits = object.list_at(&["spec", "limits"]);
        for (i, limit) in limits.iter().enumerate() {
            let path = list.index(i);
            let kind = limit.text_at(&["type"]);
            let at = path.child("type");
            let messages = names::qualified_name(kind);
            if messages.is_empty() && !kind.contains('/') && !LIMIT_TYPES.contains(&kind) {
                errors.invalid(&at, kind, "must be a standard limit type or fully qualified");
            }
            names::invalid_each(errors, &at, kind, messages);
            if limits[..i].iter().any(|other| other.text_at(&["type"]) == kind) {
                errors.duplicate(&at, kind);
            }
            check_limit(limit, &path, errors);
        }
    }

    fn meta_looks(&self) -> meta::MetaLooks {
        meta::MetaLooks { finalizers: true, change: false, whole: 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn said(kind: &dyn Kind, object: &Value) -> Vec<String> {
        let mut errors = Errors::default();
        kind.validate(object, &mut errors);
        errors.0.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn scopes_go_with_some_resources_only() {
        let quota = |scopes: Value| json!({"spec": {"hard": {"pods": "1", "cpu": "1"}, "scopes": scopes}});
        assert!(said(&ResourceQuota, &quota(json!(["NotBestEffort"]))).is_empty());
        assert_eq!(
            said(&ResourceQuota, &quota(json!(["BestEffort"]))),
            [r#"spec.scopes: Invalid value: ["BestEffort"]: unsupported scope applied to resource"#]
        );
        assert_eq!(said(&ResourceQuota, &quota(json!(["Terminating", "NotTerminating"]))).len(), 1);
        assert_eq!(said(&ResourceQuota, &json!({"spec": {"hard": {"nope": "1"}}})).len(), 2);
    }

    #[test]
    fn limits_of_containers_fill_each_other_and_fit() {
        let mut range =
            json!({"spec": {"limits": [{"type": "Container", "max": {"cpu": "2"}, "min": {"memory": "1Mi"}}]}});
        LimitRange.default(&mut range);
        let limit = &range["spec"]["limits"][0];
        assert_eq!(limit["default"], json!({"cpu": "2"}));
        assert_eq!(limit["defaultRequest"], json!({"cpu": "2", "memory": "1Mi"}));
        let range = json!({"spec": {"limits": [
            {"type": "Container", "min": {"cpu": "2"}, "max": {"cpu": "1"}, "maxLimitRequestRatio": {"cpu": "3"}},
            {"type": "Pod", "default": {"cpu": "1"}},
        ]}});
        assert_eq!(
            said(&LimitRange, &range),
            [
                r#"spec.limits[0].min[cpu]: Invalid value: "2": min value 2 is greater than max value 1"#,
                r#"spec.limits[0].maxLimitRequestRatio[cpu]: Invalid value: "3": ratio 3 is greater than max/min = 0.500000"#,
                "spec.limits[1].default: Forbidden: may not be specified when `type` is 'Pod'",
            ]
        );
    }
}

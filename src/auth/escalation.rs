//! Nobody gives rights that they haven't got: roles and bindings are checked against the rights of whoever writes them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::authorize::Target;
use super::rbac::Rule;
use super::{Attributes, Decision, MASTERS};
use crate::field::go_quote;
use crate::object::Fields;
use crate::status::{ApiError, Result};
use crate::verbs::Request;

const GROUP: &str = "rbac.authorization.k8s.io";

/// Of a role or binding that is about to be written; anything else passes.
pub fn check(request: &Request, object: &Value, old: Option<&Value>) -> Result<()> {
    let resource = &request.resource;
    if &*resource.group != GROUP || request.user.in_group(MASTERS) {
        return Ok(());
    }
    let name = object.text_at(&["metadata", "name"]);
    let same = |field: &str| old.is_some_and(|old| old.at(&[field]) == object.at(&[field]));
    let rules = match &*resource.plural {
        "roles" | "clusterroles" => {
            if (same("rules") && same("aggregationRule")) || may(request, "escalate", &resource.plural, name) {
                return Ok(());
            }
            let rules = serde_json::from_value(object.at(&["rules"]).cloned().unwrap_or(Value::Array(Vec::new())));
            let mut rules: Vec<Rule> = rules.map_err(ApiError::internal)?;
            if object.at(&["aggregationRule"]).is_some() {
                // Whatever there may be one day.
                rules.extend(Rule::everything());
            }
            rules
        }
        "rolebindings" | "clusterrolebindings" => {
            let role = |field| object.text_at(&["roleRef", field]);
            let plural = if role("kind") == "Role" { "roles" } else { "clusterroles" };
            if (same("roleRef") && same("subjects")) || may(request, "bind", plural, role("name")) {
                return Ok(());
            }
            let found = request.server.rbac.role(role("kind"), request.namespace(), role("name"));
            found.ok_or_else(|| ApiError::not_found(GROUP, plural, role("name")))?
        }
        _ => return Ok(()),
    };
    let (own, _) = request.server.rbac.rules(&request.user, request.namespace());
    let missing = missing(&own, &rules);
    if missing.is_empty() {
        return Ok(());
    }
    let groups: Vec<String> = request.user.groups.iter().map(|group| go_quote(group)).collect();
    let why = format!(
        "user {} (groups=[{}]) is attempting to grant RBAC permissions not currently held:\n{}",
        go_quote(&request.user.name),
        groups.join(" "),
        describe(missing).into_iter().collect::<Vec<_>>().join("\n")
    );
    Err(ApiError::forbidden(GROUP, &resource.plural, name, why))
}

fn may(request: &Request, verb: &str, resource: &str, name: &str) -> bool {
    let what = Target::Resource { group: GROUP, resource, subresource: "", namespace: request.namespace(), name };
    let attributes = Attributes { user: &request.user, verb, what };
    matches!(request.server.authorizer.authorize(&attributes), Decision::Allow(_))
}

/// The rights, one by one, that `given` has and `own` hasn't.
fn missing(own: &[Rule], given: &[Rule]) -> Vec<Rule> {
    given.iter().flat_map(split).filter(|right| !own.iter().any(|rule| covers(rule, right))).collect()
}

/// A rule as single rights.
fn split(rule: &Rule) -> Vec<Rule> {
    let one = |text: &String| vec![text.clone()];
    let mut rights = Vec::new();
    for group in &rule.api_groups {
        for resource in &rule.resources {
            for verb in &rule.verbs {
                let right =
                    Rule { verbs: one(verb), api_groups: one(group), resources: one(resource), ..Rule::default() };
                if rule.resource_names.is_empty() {
                    rights.push(right);
                } else {
                    let named = |name| Rule { resource_names: one(name), ..right.clone() };
                    rights.extend(rule.resource_names.iter().map(named));
                }
            }
        }
    }
    for url in &rule.non_resource_urls {
        let right = |verb| Rule { verbs: one(verb), non_resource_urls: one(url), ..Rule::default() };
        rights.extend(rule.verbs.iter().map(right));
    }
    rights
}

/// Whether a rule gives a single right.
fn covers(rule: &Rule, right: &Rule) -> bool {
    let all = |have: &[String], wanted: &[String], fits: &dyn Fn(&str, &str) -> bool| {
        wanted.iter().all(|wanted| have.iter().any(|have| have == "*" || have == wanted || fits(have, wanted)))
    };
    let exact = |_: &str, _: &str| false;
    let subresource = |have: &str, wanted: &str| {
        wanted.split_once('/').is_some_and(|(_, wanted)| have.strip_prefix("*/") == Some(wanted))
    };
    let below = |have: &str, wanted: &str| have.strip_suffix('*').is_some_and(|have| wanted.starts_with(have));
    all(&rule.verbs, &right.verbs, &exact)
        && all(&rule.api_groups, &right.api_groups, &exact)
        && all(&rule.resources, &right.resources, &subresource)
        && all(&rule.non_resource_urls, &right.non_resource_urls, &below)
        && (rule.resource_names.is_empty()
            || (!right.resource_names.is_empty()
                && right.resource_names.iter().all(|name| rule.resource_names.contains(name))))
}

/// As upstream prints them: rights on the same resource together, in order.
fn describe(rights: Vec<Rule>) -> BTreeSet<String> {
    let mut together: BTreeMap<(Vec<String>, Vec<String>, Vec<String>), Rule> = BTreeMap::new();
    let mut alone = Vec::new();
    for right in rights {
        if right.resources.is_empty() {
            alone.push(right);
            continue;
        }
        let key = (right.api_groups.clone(), right.resources.clone(), right.resource_names.clone());
        match together.entry(key) {
            std::collections::btree_map::Entry::Occupied(mut rule) => rule.get_mut().verbs.extend(right.verbs),
            std::collections::btree_map::Entry::Vacant(place) => drop(place.insert(right)),
        }
    }
    together.into_values().chain(alone).map(|rule| compact(&rule)).collect()
}

fn compact(rule: &Rule) -> String {
    let parts = [
        ("APIGroups", &rule.api_groups),
        ("Resources", &rule.resources),
        ("NonResourceURLs", &rule.non_resource_urls),
        ("ResourceNames", &rule.resource_names),
        ("Verbs", &rule.verbs),
    ];
    let parts: Vec<String> = parts
        .iter()
        .filter(|(_, list)| !list.is_empty())
        .map(|(name, list)| {
            let quoted: Vec<String> = list.iter().map(|item| go_quote(item)).collect();
            format!("{name}:[{}]", quoted.join(" "))
        })
        .collect();
    format!("{{{}}}", parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(verbs: &[&str], groups: &[&str], resources: &[&str], names: &[&str]) -> Rule {
        let list = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        Rule {
            verbs: list(verbs),
            api_groups: list(groups),
            resources: list(resources),
            resource_names: list(names),
            ..Rule::default()
        }
    }

    #[test]
    fn what_is_missing_is_told_together() {
        let own = [rule(&["get"], &[""], &["pods", "*/scale"], &[]), rule(&["*"], &["*"], &["secrets"], &["a"])];
        let given = [
            rule(&["get", "list", "watch"], &[""], &["pods", "deployments/scale"], &[]),
            rule(&["get"], &[""], &["secrets"], &["a", "b"]),
        ];
        let told: Vec<String> = describe(missing(&own, &given)).into_iter().collect();
        assert_eq!(
            told,
            [
                r#"{APIGroups:[""], Resources:["deployments/scale"], Verbs:["list" "watch"]}"#,
                r#"{APIGroups:[""], Resources:["pods"], Verbs:["list" "watch"]}"#,
                r#"{APIGroups:[""], Resources:["secrets"], ResourceNames:["b"], Verbs:["get"]}"#,
            ]
        );
        let paths = Rule { verbs: vec!["*".into()], non_resource_urls: vec!["*".into()], ..Rule::default() };
        assert_eq!(describe(missing(&own, &[paths])).first().unwrap(), r#"{NonResourceURLs:["*"], Verbs:["*"]}"#);
    }
}

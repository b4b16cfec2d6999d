//! Whether somebody holds all that some rules would give: RBAC lets nobody hand on more than that.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::rbac::Rule;
use crate::field::go_quote;

/// What the wanted rules give and the held ones don't, as upstream describes it.
pub fn missing(held: &[Rule], wanted: &[Rule]) -> BTreeSet<String> {
    let mut missing: Vec<Rule> = Vec::new();
    for atom in wanted.iter().flat_map(atoms).filter(|atom| !held.iter().any(|rule| covers(rule, atom))) {
        // Those that differ only in the verb are told as one.
        let alike = |other: &&mut Rule| {
            atom.non_resource_urls.is_empty()
                && other.api_groups == atom.api_groups
                && other.resources == atom.resources
                && other.resource_names == atom.resource_names
        };
        match missing.iter_mut().find(alike) {
            Some(other) => other.verbs.extend(atom.verbs),
            None => missing.push(atom),
        }
    }
    missing.iter().map(describe).collect()
}

/// The rule taken apart: one verb on one resource of one group, by one name or any; or one verb on one path.
fn atoms(rule: &Rule) -> Vec<Rule> {
    let one = |text: &String| vec![text.clone()];
    let mut atoms = Vec::new();
    let names: Vec<Vec<String>> = match rule.resource_names.as_slice() {
        [] => vec![Vec::new()],
        names => names.iter().map(one).collect(),
    };
    for group in &rule.api_groups {
        for resource in &rule.resources {
            for verb in &rule.verbs {
                atoms.extend(names.iter().map(|name| Rule {
                    verbs: one(verb),
                    api_groups: one(group),
                    resources: one(resource),
                    resource_names: name.clone(),
                    ..Rule::default()
                }));
            }
        }
    }
    for url in &rule.non_resource_urls {
        let of_verb = |verb| Rule { verbs: one(verb), non_resource_urls: one(url), ..Rule::default() };
        atoms.extend(rule.verbs.iter().map(of_verb));
    }
    atoms
}

fn covers(rule: &Rule, atom: &Rule) -> bool {
    let has = |list: &[String], wanted: &str| list.iter().any(|item| item == wanted);
    let all = |list: &[String], wanted: &[String]| has(list, "*") || wanted.iter().all(|item| has(list, item));
    let resource = |wanted: &String| {
        let parent = wanted.split_once('/').map(|(_, child)| format!("*/{child}"));
        has(&rule.resources, "*") || has(&rule.resources, wanted) || parent.is_some_and(|p| has(&rule.resources, &p))
    };
    let path = |wanted: &String| {
        let starts = |url: &String| url.ends_with('*') && wanted.starts_with(url.trim_end_matches('*'));
        rule.non_resource_urls.iter().any(|url| url == wanted || starts(url))
    };
    let name = match atom.resource_names.as_slice() {
        _ if rule.resource_names.is_empty() => true,
        [] => false,
        names => names.iter().all(|name| has(&rule.resource_names, name)),
    };
    all(&rule.verbs, &atom.verbs)
        && all(&rule.api_groups, &atom.api_groups)
        && atom.resources.iter().all(resource)
        && atom.non_resource_urls.iter().all(path)
        && name
}

fn describe(rule: &Rule) -> String {
    let parts = [
        ("APIGroups", &rule.api_groups),
        ("Resources", &rule.resources),
        ("NonResourceURLs", &rule.non_resource_urls),
        ("ResourceNames", &rule.resource_names),
        ("Verbs", &rule.verbs),
    ];
    let mut text = String::new();
    for (field, list) in parts.iter().filter(|(_, list)| !list.is_empty()) {
        let comma = if text.is_empty() { "" } else { ", " };
        let _ = write!(text, "{comma}{field}:{}", quoted(list));
    }
    format!("{{{text}}}")
}

/// `["a" "b"]`.
pub fn quoted(list: &[String]) -> String {
    let quoted: Vec<String> = list.iter().map(|item| go_quote(item)).collect();
    format!("[{}]", quoted.join(" "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_not_held_is_told_by_resource() {
        let rules = |value| serde_json::from_value::<Vec<Rule>>(value).unwrap();
        let held = rules(json!([
            {"verbs": ["get"], "apiGroups": [""], "resources": ["configmaps", "*/status"]},
            {"verbs": ["*"], "nonResourceURLs": ["/a*"]},
        ]));
        let of = |wanted| missing(&held, &rules(wanted)).into_iter().collect::<Vec<_>>().join("; ");
        let wanted = json!([{"verbs": ["get", "list"], "apiGroups": [""], "resources": ["configmaps", "pods/status"]}]);
        assert_eq!(
            of(wanted),
            r#"{APIGroups:[""], Resources:["configmaps"], Verbs:["list"]}; {APIGroups:[""], Resources:["pods/status"], Verbs:["list"]}"#
        );
        assert_eq!(of(json!([{"verbs": ["get"], "nonResourceURLs": ["/ab"]}])), "");
        assert_eq!(
            of(json!([{"verbs": ["x"], "apiGroups": ["*"], "resources": ["r"], "resourceNames": ["n"]}])),
            r#"{APIGroups:["*"], Resources:["r"], ResourceNames:["n"], Verbs:["x"]}"#
        );
    }
}

//! Reads `objects.txt`: roles and bindings, flow control, priority classes.

use serde_json::{Value, json};

use crate::object::Fields;

const RBAC: &str = "rbac.authorization.k8s.io";
const FLOW_CONTROL: &str = "flowcontrol.apiserver.k8s.io/v1";

/// The objects, without what the server adds.
pub fn read() -> Vec<Value> {
    let mut objects = Vec::new();
    for (number, line) in include_str!("objects.txt").lines().enumerate() {
        let read = match line.strip_prefix(' ') {
            Some(line) => objects.last_mut().and_then(|object| detail(object, line)),
            None => object(line).map(|object| objects.push(object)),
        };
        // The table is part of the program, and the tests read all of it.
        read.unwrap_or_else(|| panic!("objects.txt, line {}: {line}", number + 1));
    }
    objects
}

fn object(line: &str) -> Option<Value> {
    let (kind, rest) = line.split_once(' ')?;
    let words: Vec<&str> = rest.split(' ').collect();
    let (namespace, name) = match (kind, words[0].split_once('/')) {
        ("role" | "rolebinding", Some((namespace, name))) => (Some(namespace), name),
        _ => (None, words[0]),
    };
    let mut object = match (kind, words.as_slice()) {
        ("clusterrole", _) => json!({"kind": "ClusterRole", "rules": null}),
        ("role", _) => json!({"kind": "Role", "rules": null}),
        ("clusterrolebinding" | "rolebinding", [_, role_kind, role]) => json!({
            "kind": if kind == "rolebinding" { "RoleBinding" } else { "ClusterRoleBinding" },
            "roleRef": {"apiGroup": RBAC, "kind": role_kind, "name": role},
        }),
        ("prioritylevel", [_, shares, lendable, how]) => json!({
            "kind": "PriorityLevelConfiguration",
            "spec": level(shares.parse().ok()?, lendable.parse().ok()?, how)?,
            "status": {},
        }),
        ("flowschema", [_, level, precedence, method]) => json!({
            "kind": "FlowSchema",
            "spec": schema(level, precedence.parse().ok()?, method),
        }),
        ("priorityclass", [_, value, description @ ..]) => json!({
            "kind": "PriorityClass",
            "value": value.parse::<i64>().ok()?,
            "description": description.join(" "),
            "preemptionPolicy": "PreemptLowerPriority",
        }),
        _ => return None,
    };
    let (api_version, labels, annotations) = match kind {
        "prioritylevel" | "flowschema" => {
            (FLOW_CONTROL.to_owned(), json!({}), json!({"apf.kubernetes.io/autoupdate-spec": "true"}))
        }
        "priorityclass" => ("scheduling.k8s.io/v1".to_owned(), json!({}), json!({})),
        _ => {
            let mut labels = json!({"kubernetes.io/bootstrapping": "rbac-defaults"});
            let more = if kind.ends_with("role") { &words[1..] } else { &[] };
            more.iter().for_each(|label| labels.set(&[&format!("{RBAC}/{label}")], "true"));
            (format!("{RBAC}/v1"), labels, json!({"rbac.authorization.kubernetes.io/autoupdate": "true"}))
        }
    };
    object.set(&["apiVersion"], api_version);
    object.set(&["metadata", "name"], name);
    for (field, value) in
        [("namespace", namespace.map_or(json!({}), Value::from)), ("labels", labels), ("annotations", annotations)]
    {
        if value != json!({}) {
            object.set(&["metadata", field], value);
        }
    }
    Some(object)
}

fn level(shares: i64, lendable: i64, how: &str) -> Option<Value> {
    let numbers: Vec<i64> = how.split(':').skip(1).map_while(|number| number.parse().ok()).collect();
    let response = match (how, numbers.as_slice()) {
        ("exempt", _) => {
            let exempt = json!({"nominalConcurrencyShares": shares, "lendablePercent": lendable});
            return Some(json!({"type": "Exempt", "exempt": exempt}));
        }
        ("reject", _) => json!({"type": "Reject"}),
        (_, [queues, hand, length]) => {
            let queuing = json!({"queues": queues, "handSize": hand, "queueLengthLimit": length});
            json!({"type": "Queue", "queuing": queuing})
        }
        _ => return None,
    };
    let limited = json!({"nominalConcurrencyShares": shares, "limitResponse": response, "lendablePercent": lendable});
    Some(json!({"type": "Limited", "limited": limited}))
}

fn schema(level: &str, precedence: i64, method: &str) -> Value {
    let mut spec = json!({
        "priorityLevelConfiguration": {"name": level},
        "matchingPrecedence": precedence,
        "rules": [{"subjects": []}],
    });
    if method != "-" {
        spec.set(&["distinguisherMethod", "type"], method);
    }
    spec
}

/// A line that belongs to the object before it: a subject or a rule.
fn detail(object: &mut Value, line: &str) -> Option<()> {
    let flow = object.text_at(&["kind"]) == "FlowSchema";
    let words: Vec<&str> = line.split(' ').collect();
    match words.as_slice() {
        ["to", kind, name] => {
            let (namespace, name) = match (*kind, name.split_once('/')) {
                ("ServiceAccount", Some((namespace, name))) => (Some(namespace), name),
                _ => (None, *name),
            };
            if flow {
                let mut who = json!({"name": name});
                namespace.inspect(|namespace| who.set(&["namespace"], *namespace));
                let mut field = kind.to_string();
                field.get_mut(..1)?.make_ascii_lowercase();
                push(object.at_mut(&["spec", "rules"])?.get_mut(0)?, "subjects", json!({"kind": kind, field: who}));
            } else {
                let mut subject = json!({"kind": kind, "name": name});
                match namespace {
                    Some(namespace) => subject.set(&["namespace"], namespace),
                    None => subject.set(&["apiGroup"], RBAC),
                }
                push(object, "subjects", subject);
            }
        }
        ["aggregate", label] => {
            let selector = json!({"matchLabels": {format!("{RBAC}/{label}"): "true"}});
            if object.at(&["aggregationRule"]).is_none() {
                object.set(&["aggregationRule"], json!({}));
            }
            push(object.at_mut(&["aggregationRule"])?, "clusterRoleSelectors", selector);
        }
        [verbs, "url", urls] => {
            let rule = json!({"verbs": list(verbs), "nonResourceURLs": list(urls)});
            if flow {
                push(object.at_mut(&["spec", "rules"])?.get_mut(0)?, "nonResourceRules", rule);
            } else {
                push(object, "rules", rule);
            }
        }
        [verbs, groups, resources, more @ ..] => {
            let groups: Vec<&str> = groups.split(',').map(|group| if group == "core" { "" } else { group }).collect();
            let mut rule = json!({"verbs": list(verbs), "apiGroups": groups, "resources": list(resources)});
            if flow {
                if more == ["cluster"] {
                    rule.set(&["clusterScope"], true);
                }
                rule.set(&["namespaces"], json!(["*"]));
                push(object.at_mut(&["spec", "rules"])?.get_mut(0)?, "resourceRules", rule);
            } else {
                if let [names] = more {
                    rule.set(&["resourceNames"], list(names.strip_prefix('=')?));
                }
                push(object, "rules", rule);
            }
        }
        _ => return None,
    }
    Some(())
}

fn list(words: &str) -> Value {
    words.split(',').collect()
}

fn push(object: &mut Value, field: &str, value: Value) {
    match object.at_mut(&[field]) {
        Some(Value::Array(list)) => list.push(value),
        _ => object.set(&[field], json!([value])),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    /// What a kube-apiserver has after its start, less what differs from server to server.
    #[test]
    fn the_objects_are_those_of_kube_apiserver() {
        let shared = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/kubernetes-1.36"));
        if !shared.exists() {
            eprintln!("skipped: {} is not here", shared.display());
            return;
        }
        let ours = read();
        let mut seen = 0;
        for (file, kind) in [
            ("rbac/live-clusterroles", "ClusterRole"),
            ("rbac/live-roles", "Role"),
            ("rbac/live-clusterrolebindings", "ClusterRoleBinding"),
            ("rbac/live-rolebindings", "RoleBinding"),
            ("bootstrap/apis_flowcontrol.apiserver.k8s.io_v1_flowschemas", "FlowSchema"),
            (
                "bootstrap/apis_flowcontrol.apiserver.k8s.io_v1_prioritylevelconfigurations",
                "PriorityLevelConfiguration",
            ),
            ("bootstrap/apis_scheduling.k8s.io_v1_priorityclasses", "PriorityClass"),
        ] {
            let text = std::fs::read(shared.join(format!("{file}.json"))).unwrap();
            let list: Value = serde_json::from_slice(&text).unwrap();
            for theirs in list.list_at(&["items"]) {
                let mut theirs = theirs.clone();
                for field in ["uid", "resourceVersion", "creationTimestamp", "managedFields", "generation"] {
                    theirs.take_at(&["metadata", field]);
                }
                if kind == "FlowSchema" {
                    // A loop keeps it.
                    theirs.take_at(&["status"]);
                }
                theirs.set(&["kind"], kind);
                theirs.set(&["apiVersion"], list.text_at(&["apiVersion"]));
                let same = |o: &&Value| {
                    o.text_at(&["kind"]) == kind
                        && o.at(&["metadata", "name"]) == theirs.at(&["metadata", "name"])
                        && o.at(&["metadata", "namespace"]) == theirs.at(&["metadata", "namespace"])
                };
                assert_eq!(ours.iter().find(same), Some(&theirs));
                seen += 1;
            }
        }
        assert_eq!(seen, ours.len());
    }
}

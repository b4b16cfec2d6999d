//! Who may do what, and how much of it: roles, certificates, admission, quotas, budgets and priorities.

use serde_json::Value;

use super::Cells;
use super::cells::*;
use crate::object::Fields;

pub fn role_binding(object: &Value) -> Cells {
    let role = format!("{}/{}", object.text_at(&["roleRef", "kind"]), object.text_at(&["roleRef", "name"]));
    let subjects = |kind: &str, shown: fn(&Value) -> String| {
        let subjects = object.list_at(&["subjects"]).iter();
        subjects.filter(|subject| subject.text_at(&["kind"]) == kind).map(shown).collect::<Vec<_>>().join(", ")
    };
    let named = |subject: &Value| subject.text_at(&["name"]).to_owned();
    let account = |subject: &Value| format!("{}/{}", subject.text_at(&["namespace"]), subject.text_at(&["name"]));
    vec![
        name(object),
        role.into(),
        age(object),
        subjects("User", named).into(),
        subjects("Group", named).into(),
        subjects("ServiceAccount", account).into(),
    ]
}

pub fn certificate_signing_request(object: &Value) -> Cells {
    let mut status = match () {
        () if condition(object, "Denied").is_some() => "Denied".to_owned(),
        () if condition(object, "Approved").is_some() => "Approved".to_owned(),
        () => "Pending".to_owned(),
    };
    if condition(object, "Failed").is_some() {
        status.push_str(",Failed");
    }
    if !object.text_at(&["status", "certificate"]).is_empty() {
        status.push_str(",Issued");
    }
    vec![
        name(object),
        age(object),
        text_or(object, &["spec", "signerName"], NONE),
        text(object, &["spec", "username"]),
        object.int_at(&["spec", "expirationSeconds"]).map_or_else(|| NONE.to_owned(), duration).into(),
        status.into(),
    ]
}

pub fn webhook_configuration(object: &Value) -> Cells {
    vec![name(object), count(object, &["webhooks"]), age(object)]
}

fn param_kind(object: &Value) -> Value {
    let kind = object.at(&["spec", "paramKind"]);
    let shown = |kind: &Value| format!("{}/{}", kind.text_at(&["apiVersion"]), kind.text_at(&["kind"]));
    kind.map_or_else(|| UNSET.to_owned(), shown).into()
}

pub fn validating_admission_policy(object: &Value) -> Cells {
    vec![name(object), count(object, &["spec", "validations"]), param_kind(object), age(object)]
}

pub fn mutating_admission_policy(object: &Value) -> Cells {
    vec![name(object), count(object, &["spec", "mutations"]), param_kind(object), age(object)]
}

pub fn admission_policy_binding(object: &Value) -> Cells {
    let reference = |field| object.text_at(&["spec", "paramRef", field]);
    let param = match (reference("namespace"), reference("name"), object.at(&["spec", "paramRef", "selector"])) {
        (_, "", Some(selector)) => go_selector(selector),
        (_, "", None) => UNSET.to_owned(),
        // Whether the parameter is in a namespace isn't known here.
        (namespace, name, _) => format!("{}/{name}", or(namespace, "*")),
    };
    vec![name(object), text(object, &["spec", "policyName"]), param.into(), age(object)]
}

/// A label selector as its Go type prints itself.
fn go_selector(selector: &Value) -> String {
    let mut labels: Vec<String> = selector
        .map_at(&["matchLabels"])
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}: {},", value.as_str().unwrap_or_default()))
        .collect();
    labels.sort_unstable();
    let expressions: String = selector
        .list_at(&["matchExpressions"])
        .iter()
        .map(|expression| {
            format!(
                "LabelSelectorRequirement{{Key:{},Operator:{},Values:[{}],}},",
                expression.text_at(&["key"]),
                expression.text_at(&["operator"]),
                joined(expression.list_at(&["values"]), " "),
            )
        })
        .collect();
    format!(
        "&LabelSelector{{MatchLabels:map[string]string{{{}}},MatchExpressions:[]LabelSelectorRequirement{{{expressions}}},}}",
        labels.concat(),
    )
}

pub fn pod_disruption_budget(object: &Value) -> Cells {
    vec![
        name(object),
        shown(object.at(&["spec", "minAvailable"]), "N/A").into(),
        shown(object.at(&["spec", "maxUnavailable"]), "N/A").into(),
        number(object, &["status", "disruptionsAllowed"]),
        age(object),
    ]
}

pub fn resource_quota(object: &Value) -> Cells {
    let (mut requests, mut limits) = (Vec::new(), Vec::new());
    let mut hard: Vec<_> = object.map_at(&["status", "hard"]).into_iter().flatten().collect();
    hard.sort_unstable_by_key(|(resource, _)| *resource);
    for (resource, most) in hard {
        let used = shown(object.at(&["status", "used", resource]), "0");
        let column = if resource.starts_with("limits.") { &mut limits } else { &mut requests };
        column.push(format!("{resource}: {used}/{}", shown(Some(most), "0")));
    }
    vec![name(object), requests.join(", ").into(), limits.join(", ").into(), age(object)]
}

pub fn priority_class(object: &Value) -> Cells {
    vec![
        name(object),
        number(object, &["value"]),
        flag(object, &["globalDefault"]),
        age(object),
        text(object, &["preemptionPolicy"]),
    ]
}

pub fn flow_schema(object: &Value) -> Cells {
    let dangling = condition(object, "Dangling").map_or("?", |condition| condition.text_at(&["status"]));
    vec![
        name(object),
        text(object, &["spec", "priorityLevelConfiguration", "name"]),
        number(object, &["spec", "matchingPrecedence"]),
        shown(object.at(&["spec", "distinguisherMethod", "type"]), NONE).into(),
        age(object),
        dangling.into(),
    ]
}

pub fn priority_level_configuration(object: &Value) -> Cells {
    let number_in =
        |within: Option<&Value>, field| within.map_or_else(|| NONE.into(), |within| number(within, &[field]));
    let limited = object.at(&["spec", "limited"]);
    let queuing = object.at(&["spec", "limited", "limitResponse", "queuing"]);
    vec![
        name(object),
        text(object, &["spec", "type"]),
        number_in(limited, "nominalConcurrencyShares"),
        number_in(queuing, "queues"),
        number_in(queuing, "handSize"),
        number_in(queuing, "queueLengthLimit"),
        age(object),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn quotas_show_requests_and_limits_apart() {
        let object = json!({ "status": {
            "hard": { "pods": "4", "limits.cpu": "2", "cpu": "1" }, "used": { "pods": "1", "limits.cpu": "500m" },
        } });
        assert_eq!(resource_quota(&object)[1..3], ["cpu: 0/1, pods: 1/4", "limits.cpu: 500m/2"]);
    }

    #[test]
    fn selectors_are_shown_as_go_values() {
        let selector = json!({
            "matchLabels": { "b": "2", "a": "1" },
            "matchExpressions": [{ "key": "k", "operator": "In", "values": ["x", "y"] }],
        });
        assert_eq!(
            go_selector(&selector),
            "&LabelSelector{MatchLabels:map[string]string{a: 1,b: 2,},MatchExpressions:[]LabelSelectorRequirement{\
             LabelSelectorRequirement{Key:k,Operator:In,Values:[x y],},},}"
        );
    }
}

//! What the containers of a pod ask for together, and the class of service that follows from it.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::object::Fields;
use crate::quantity::Quantity;

pub type Amounts = BTreeMap<String, Quantity>;

fn quantity(value: &Value) -> Option<Quantity> {
    match value {
        Value::String(text) => Quantity::parse(text).ok(),
        Value::Number(number) => Quantity::parse(&number.to_string()).ok(),
        _ => None,
    }
}

/// The amounts of one list (`requests` or `limits`) of something with `resources`.
pub fn amounts(owner: &Value, list: &str) -> Amounts {
    let map = owner.map_at(&["resources", list]).into_iter().flatten();
    map.filter_map(|(name, value)| Some((name.clone(), quantity(value)?))).collect()
}

fn add(sum: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        sum.entry(name.clone()).and_modify(|sum| *sum = *sum + *amount).or_insert(*amount);
    }
}

fn raise(high: &mut Amounts, other: &Amounts) {
    for (name, amount) in other {
        high.entry(name.clone()).and_modify(|high| *high = (*high).max(*amount)).or_insert(*amount);
    }
}

/// Whether a container of the init list keeps running beside the others.
pub fn is_sidecar(container: &Value) -> bool {
    container.text_at(&["restartPolicy"]) == "Always"
}

/// What the containers ask for at most at one time: init containers run one after another, before the others, and with
/// the sidecars that were started before them.
pub fn aggregate(spec: &Value, list: &str) -> Amounts {
    let mut total = Amounts::new();
    for container in spec.list_at(&["containers"]) {
        add(&mut total, &amounts(container, list));
    }
    let (mut sidecars, mut starting) = (Amounts::new(), Amounts::new());
    for container in spec.list_at(&["initContainers"]) {
        let own = amounts(container, list);
        if is_sidecar(container) {
            add(&mut total, &own);
            add(&mut sidecars, &own);
            raise(&mut starting, &sidecars);
        } else {
            let mut now = own;
            add(&mut now, &sidecars);
            raise(&mut starting, &now);
        }
    }
    raise(&mut total, &starting);
    total
}

pub fn is_huge_pages(name: &str) -> bool {
    name.starts_with("hugepages-")
}

/// The resources that a pod as a whole may ask for.
pub fn fits_whole_pod(name: &str) -> bool {
    matches!(name, "cpu" | "memory") || is_huge_pages(name)
}

/// Whether the pod as a whole asks for anything.
pub fn asks_as_a_whole(spec: &Value) -> bool {
    let any =
        |list: &str| spec.map_at(&["resources", list]).is_some_and(|map| map.keys().any(|key| fits_whole_pod(key)));
    any("requests") || any("limits")
}

/// `status.qosClass`.
pub fn qos_class(spec: &Value) -> &'static str {
    let (mut requests, mut limits) = (Amounts::new(), Amounts::new());
    let mut guaranteed = true;
    let mut count = |owner: &Value| {
        let counted = |list: &str| {
            let mut found = amounts(owner, list);
            found.retain(|name, amount| matches!(name.as_str(), "cpu" | "memory") && amount.signum() > 0);
            found
        };
        let limited = counted("limits");
        guaranteed &= limited.len() == 2;
        add(&mut requests, &counted("requests"));
        add(&mut limits, &limited);
    };
    if asks_as_a_whole(spec) {
        count(spec);
    } else {
        spec.list_at(&["containers"]).iter().chain(spec.list_at(&["initContainers"])).for_each(&mut count);
    }
    if requests.is_empty() && limits.is_empty() {
        "BestEffort"
    } else if guaranteed && requests == limits {
        "Guaranteed"
    } else {
        "Burstable"
    }
}

/// Amounts finer than a thousandth are rounded up.
fn round_up(list: Option<&mut Value>) {
    for value in list.and_then(Value::as_object_mut).into_iter().flat_map(Map::values_mut) {
        if let Some(amount) = quantity(value) {
            let rounded = amount.round_up_milli();
            if rounded != amount {
                *value = rounded.to_string().into();
            }
        }
    }
}

/// A bare list of amounts, such as `overhead`.
pub fn default_amounts(owner: &mut Value, field: &str) {
    round_up(owner.at_mut(&[field]));
}

/// `requests` and `limits` of whatever has `resources`.
pub fn default_resources(owner: &mut Value) {
    for list in ["requests", "limits"] {
        round_up(owner.at_mut(&["resources", list]));
    }
}

/// A container of a pod asks for what it is limited to, where it does not say.
fn default_requests(container: &mut Value) {
    let Some(limits) = container.map_at(&["resources", "limits"]).filter(|limits| !limits.is_empty()).cloned() else {
        return;
    };
    let requests = container.make_map(&["resources", "requests"]);
    for (name, amount) in limits {
        requests.entry(name).or_insert(amount);
    }
}

fn fill(spec: &mut Value, list: &str, amounts: Amounts) {
    if !amounts.is_empty() {
        let map = spec.make_map(&["resources", list]);
        for (name, amount) in amounts {
            map.entry(name).or_insert_with(|| amount.to_string().into());
        }
    }
}

/// Requests and limits that a pod (not a template) gets from the others that it has.
pub fn default_pod_resources(spec: &mut Value) {
    for list in ["containers", "initContainers"] {
        spec.items_mut(&[list]).for_each(default_requests);
    }
    let has = |spec: &Value, list: &str| spec.map_at(&["resources", list]).is_some_and(|map| !map.is_empty());
    if has(spec, "limits") || has(spec, "requests") {
        let mut pages = aggregate(spec, "limits");
        pages.retain(|name, _| is_huge_pages(name) && spec.at(&["resources", "requests", name]).is_none());
        fill(spec, "limits", pages);
    }
    if has(spec, "limits") {
        let mut asked = aggregate(spec, "requests");
        asked.retain(|name, _| matches!(name.as_str(), "cpu" | "memory"));
        fill(spec, "requests", asked);
        let mut limits = amounts(spec, "limits");
        limits.retain(|name, _| fits_whole_pod(name));
        fill(spec, "requests", limits);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn container(requests: Value, limits: Value) -> Value {
        json!({"resources": {"requests": requests, "limits": limits}})
    }

    #[test]
    fn the_class_follows_from_requests_and_limits() {
        let both = json!({"cpu": "1", "memory": "1Gi"});
        let spec = |containers: Value| json!({ "containers": containers });
        assert_eq!(qos_class(&spec(json!([{}]))), "BestEffort");
        assert_eq!(qos_class(&spec(json!([container(both.clone(), both.clone())]))), "Guaranteed");
        assert_eq!(qos_class(&spec(json!([container(both.clone(), both.clone()), {}]))), "Burstable");
        assert_eq!(qos_class(&spec(json!([container(json!({"cpu": "1"}), both.clone())]))), "Burstable");
        assert_eq!(qos_class(&spec(json!([container(json!({"cpu": "0"}), json!({}))]))), "BestEffort");
        let whole = json!({"containers": [{}], "resources": {"requests": both, "limits": both}});
        assert_eq!(qos_class(&whole), "Guaranteed");
    }

    #[test]
    fn init_containers_run_before_the_others_and_sidecars_beside_them() {
        let ask = |cpu: &str| json!({"resources": {"requests": {"cpu": cpu}}});
        let mut sidecar = ask("1");
        sidecar["restartPolicy"] = "Always".into();
        let spec = json!({"containers": [ask("1")], "initContainers": [ask("3"), sidecar, ask("4")]});
        assert_eq!(aggregate(&spec, "requests")["cpu"].to_string(), "5");
    }

    #[test]
    fn requests_come_from_limits() {
        let mut spec = json!({"containers": [{"resources": {"limits": {"cpu": "2"}}}]});
        default_pod_resources(&mut spec);
        assert_eq!(spec["containers"][0]["resources"]["requests"], json!({"cpu": "2"}));
        let mut spec = json!({
            "containers": [{"resources": {"requests": {"cpu": "500m"}, "limits": {"hugepages-2Mi": "4Mi"}}}],
            "resources": {"limits": {"cpu": "2", "memory": "1Gi"}},
        });
        default_pod_resources(&mut spec);
        assert_eq!(spec["resources"]["limits"]["hugepages-2Mi"], "4Mi");
        let requests = json!({"cpu": "500m", "memory": "1Gi", "hugepages-2Mi": "4Mi"});
        assert_eq!(spec["resources"]["requests"], requests);
    }
}

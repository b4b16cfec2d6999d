//! ResourceQuota: what a new object uses is taken from the namespace's quotas, in the transaction that writes it. A
//! quota is what its status says; what is given back when objects go is counted by the quota controller.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{Admission, Operation, Plugin, unchanged};
use crate::codec::encode_for_store;
use crate::kinds::pods::resources::{aggregate, amounts, asks_as_a_whole, fits_whole_pod, qos_class};
use crate::kinds::quantity::is_extended;
use crate::object::Fields;
use crate::quantity::{Format, Quantity};
use crate::status::Result;
use kontiki_storage::{Condition, Write};

pub(super) const PLUGIN: Plugin = Plugin { handles, mutate: unchanged, validate };

type Usage = BTreeMap<String, Quantity>;

fn handles(admission: &Admission<'_>) -> bool {
    let info = &admission.request.info;
    let resource = &admission.request.resource;
    let counted = resource.namespaced && resource.stored.is_some() && admission.table() != "events";
    counted
        && matches!(
            (admission.operation, admission.table(), info.subresource.as_str()),
            (Operation::Create, _, "")
                | (Operation::Update, "services" | "persistentvolumeclaims", "")
                | (Operation::Update, "pods", "resize")
        )
}

fn validate(admission: &mut Admission<'_>, object: &Value) -> Result<()> {
    let prefix = format!("resourcequotas/{}/", admission.request.namespace());
    let records: Vec<_> = admission.view.prefix(&prefix).cloned().collect();
    if records.is_empty() {
        return Ok(());
    }
    let table = admission.table().to_owned();
    let mut interesting = Vec::new();
    for record in records {
        let quota = crate::verbs::decode_stored(&record)?;
        let hard = listed(&quota, "hard");
        let known: BTreeSet<String> = hard.keys().filter(|name| limits(&table, name)).cloned().collect();
        if known.is_empty() || !scopes_match(&quota, &table, object) {
            continue;
        }
        let name = quota.text_at(&["metadata", "name"]);
        if table == "pods"
            && let Some(why) = missing_amounts(object, &known)
        {
            return Err(admission.forbidden(object, format!("failed quota: {name}: {why}")));
        }
        let used = listed(&quota, "used");
        if !known.iter().all(|resource| used.contains_key(resource)) {
            let resources: Vec<&str> = known.iter().map(String::as_str).collect();
            let why = format!("status unknown for quota: {name}, resources: {}", resources.join(","));
            return Err(admission.forbidden(object, why));
        }
        interesting.push((record, quota, hard, used));
    }
    if interesting.is_empty() {
        return Ok(());
    }
    let mut delta = usage(&table, object);
    let negative: Vec<&str> = delta.iter().filter(|(_, n)| n.signum() < 0).map(|(name, _)| name.as_str()).collect();
    if !negative.is_empty() {
        let why = format!("quota usage is negative for resource(s): {}", negative.join(","));
        return Err(admission.forbidden(object, why));
    }
    if let Some(old) = admission.old {
        for (name, before) in usage(&table, old) {
            delta.entry(name).and_modify(|amount| *amount = *amount - before);
        }
    }
    delta.retain(|_, amount| amount.signum() > 0);
    for (record, mut quota, hard, used) in interesting {
        let requested: Usage = delta.iter().filter(|(name, _)| hard.contains_key(*name)).map(owned).collect();
        let new = |name: &String, amount: &Quantity| used.get(name).copied().map_or(*amount, |used| used + *amount);
        let exceeded: BTreeSet<&String> =
            requested.iter().filter(|(name, amount)| new(name, amount) > hard[*name]).map(|(name, _)| name).collect();
        if !exceeded.is_empty() {
            let shown = |list: &Usage| {
                let some = list.iter().filter(|(name, _)| exceeded.contains(name));
                some.map(|(name, amount)| format!("{name}={amount}")).collect::<Vec<_>>().join(",")
            };
            let why = format!(
                "exceeded quota: {}, requested: {}, used: {}, limited: {}",
                quota.text_at(&["metadata", "name"]),
                shown(&requested),
                shown(&used),
                shown(&hard)
            );
            return Err(admission.forbidden(object, why));
        }
        if requested.is_empty() {
            continue;
        }
        for (name, amount) in &requested {
            quota.set(&["status", "used", name], new(name, amount).to_string());
        }
        let (value, revision_at) = encode_for_store(&quota);
        admission.on(Condition::At(record.key.clone(), record.modified));
        admission.effects.writes.push(Write::Put {
            key: record.key.clone(),
            value: value.into(),
            revision_at: Some(revision_at),
            expires_at: None,
        });
    }
    Ok(())
}

fn owned((name, amount): (&String, &Quantity)) -> (String, Quantity) {
    (name.clone(), *amount)
}

fn listed(quota: &Value, list: &str) -> Usage {
    let map = quota.map_at(&["status", list]).into_iter().flatten();
    map.filter_map(|(name, amount)| Some((name.clone(), Quantity::parse(amount.as_str()?).ok()?))).collect()
}

/// Tables whose objects were counted under their own name before any object could be.
const COUNTED_BY_NAME: &[&str] = &["configmaps", "secrets", "resourcequotas", "replicationcontrollers"];
const OF_PODS: &[&str] = &[
    "pods",
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
];
const CLASS: &str = ".storageclass.storage.k8s.io/";

/// Whether a resource that a quota limits is used by objects of this table.
fn limits(table: &str, resource: &str) -> bool {
    if resource.strip_prefix("count/") == Some(table) {
        return true;
    }
    match table {
        "pods" => {
            OF_PODS.contains(&resource)
                || resource.starts_with("hugepages-")
                || resource.starts_with("requests.hugepages-")
                || resource.strip_prefix("requests.").is_some_and(is_extended)
        }
        "services" => matches!(resource, "services" | "services.nodeports" | "services.loadbalancers"),
        "persistentvolumeclaims" => {
            matches!(resource, "persistentvolumeclaims" | "requests.storage") || resource.contains(CLASS)
        }
        _ => COUNTED_BY_NAME.contains(&table) && resource == table,
    }
}

/// What an object uses of everything that a quota can limit.
fn usage(table: &str, object: &Value) -> Usage {
    let mut usage = Usage::new();
    let count = |n: usize| Quantity::new(n as i64, Format::DecimalSi);
    usage.insert(format!("count/{table}"), count(1));
    match table {
        "pods" => usage.extend(of_pod(object)),
        "services" => {
            let ports = object.list_at(&["spec", "ports"]);
            let allocates = object.bool_at(&["spec", "allocateLoadBalancerNodePorts"]) != Some(false);
            let asked = ports.iter().filter(|port| port.int_at(&["nodePort"]).unwrap_or_default() != 0).count();
            let (node_ports, balancers) = match object.text_at(&["spec", "type"]) {
                "NodePort" => (ports.len(), 0),
                "LoadBalancer" => (if allocates { ports.len() } else { asked }, 1),
                _ => (0, 0),
            };
            usage.insert("services".into(), count(1));
            usage.insert("services.nodeports".into(), count(node_ports));
            usage.insert("services.loadbalancers".into(), count(balancers));
        }
        "persistentvolumeclaims" => {
            let class = object.text_at(&["spec", "storageClassName"]);
            let size = amounts(&object["spec"], "requests").get("storage").copied();
            let mut both = |name: &str, amount: Quantity| {
                usage.insert(name.to_owned(), amount);
                if !class.is_empty() {
                    usage.insert(format!("{class}{CLASS}{name}"), amount);
                }
            };
            both("persistentvolumeclaims", count(1));
            size.into_iter().for_each(|size| both("requests.storage", size));
        }
        _ if COUNTED_BY_NAME.contains(&table) => drop(usage.insert(table.into(), count(1))),
        _ => {}
    }
    usage
}

fn of_pod(pod: &Value) -> Usage {
    if matches!(pod.text_at(&["status", "phase"]), "Failed" | "Succeeded") {
        return Usage::new();
    }
    let spec = &pod["spec"];
    let [mut requests, mut limits] = ["requests", "limits"].map(|list| {
        let mut sum = aggregate(spec, list);
        sum.extend(amounts(spec, list).into_iter().filter(|(name, _)| fits_whole_pod(name)));
        sum
    });
    for (name, amount) in spec.map_at(&["overhead"]).into_iter().flatten() {
        if let Some(amount) = amount.as_str().and_then(|text| Quantity::parse(text).ok()) {
            requests.entry(name.clone()).and_modify(|sum| *sum = *sum + amount).or_insert(amount);
            limits.entry(name.clone()).and_modify(|sum| *sum = *sum + amount);
        }
    }
    compute(&requests, &limits)
}

fn compute(requests: &Usage, limits: &Usage) -> Usage {
    let mut usage = Usage::new();
    usage.insert("pods".into(), Quantity::new(1, Format::DecimalSi));
    for (name, amount) in requests {
        let usual = matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-");
        if usual {
            usage.insert(name.clone(), *amount);
        }
        if usual || is_extended(name) {
            usage.insert(format!("requests.{name}"), *amount);
        }
    }
    for name in ["cpu", "memory", "ephemeral-storage"] {
        if let Some(amount) = limits.get(name) {
            usage.insert(format!("limits.{name}"), *amount);
        }
    }
    usage
}

const REQUIRED: &[&str] = &["cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"];

/// Where processor or memory are limited, each container must say how much of it it wants.
fn missing_amounts(pod: &Value, limited: &BTreeSet<String>) -> Option<String> {
    if asks_as_a_whole(&pod["spec"]) {
        return None;
    }
    let mut missing: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for list in ["containers", "initContainers"] {
        for container in pod.list_at(&["spec", list]) {
            let given = compute(&amounts(container, "requests"), &amounts(container, "limits"));
            for name in REQUIRED.iter().filter(|name| limited.contains(**name) && !given.contains_key(**name)) {
                missing.entry(name).or_default().insert(container.text_at(&["name"]));
            }
        }
    }
    let parts = missing.iter().map(|(name, containers)| {
        let containers: Vec<&str> = containers.iter().copied().collect();
        format!("{name} for: {}", containers.join(","))
    });
    let parts: Vec<String> = parts.collect();
    (!parts.is_empty()).then(|| format!("must specify {}", parts.join("; ")))
}

/// Whether the object is of those that the quota's scopes leave.
fn scopes_match(quota: &Value, table: &str, object: &Value) -> bool {
    let plain = quota.list_at(&["spec", "scopes"]).iter().filter_map(Value::as_str);
    let chosen = quota.list_at(&["spec", "scopeSelector", "matchExpressions"]);
    let any = Value::Null;
    let all = plain.map(|scope| (scope, &any)).chain(chosen.iter().map(|c| (c.text_at(&["scopeName"]), c)));
    all.into_iter().all(|(scope, selector)| scope_matches(scope, selector, table, object))
}

fn scope_matches(scope: &str, selector: &Value, table: &str, object: &Value) -> bool {
    let spec = &object["spec"];
    match (table, scope) {
        ("pods", "Terminating") => spec.int_at(&["activeDeadlineSeconds"]).is_some_and(|seconds| seconds >= 0),
        ("pods", "NotTerminating") => spec.int_at(&["activeDeadlineSeconds"]).is_none_or(|seconds| seconds < 0),
        ("pods", "BestEffort") => qos_class(spec) == "BestEffort",
        ("pods", "NotBestEffort") => qos_class(spec) != "BestEffort",
        ("pods", "PriorityClass") => selected(selector, spec.text_at(&["priorityClassName"])),
        ("pods", "CrossNamespacePodAffinity") => crosses_namespaces(spec),
        ("persistentvolumeclaims", "VolumeAttributesClass") => {
            selected(selector, spec.text_at(&["volumeAttributesClassName"]))
        }
        _ => false,
    }
}

/// Whether a name fits a selector of scopes, which without an operator only asks for any name.
fn selected(selector: &Value, name: &str) -> bool {
    let among = selector.list_at(&["values"]).iter().any(|value| value == name);
    match selector.text_at(&["operator"]) {
        "In" => among,
        "NotIn" => !among,
        "DoesNotExist" => name.is_empty(),
        _ => !name.is_empty(),
    }
}

fn crosses_namespaces(spec: &Value) -> bool {
    let crosses = |term: &Value| !term.list_at(&["namespaces"]).is_empty() || term.at(&["namespaceSelector"]).is_some();
    ["podAffinity", "podAntiAffinity"].iter().any(|kind| {
        let affinity = &spec["affinity"][*kind];
        let required = affinity.list_at(&["requiredDuringSchedulingIgnoredDuringExecution"]);
        let preferred = affinity.list_at(&["preferredDuringSchedulingIgnoredDuringExecution"]);
        required.iter().any(crosses) || preferred.iter().any(|term| term.at(&["podAffinityTerm"]).is_some_and(crosses))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn objects_use_what_they_ask_for() {
        let shown = |table: &str, object: Value| {
            let usage = usage(table, &object);
            usage.iter().map(|(name, amount)| format!("{name}={amount}")).collect::<Vec<_>>().join(" ")
        };
        let pod = json!({"spec": {"containers": [
            {"resources": {"requests": {"cpu": "500m", "a.b/c": "1"}, "limits": {"memory": "1Gi"}}},
            {"resources": {"requests": {"cpu": "1"}}},
        ]}});
        assert_eq!(
            shown("pods", pod),
            "count/pods=1 cpu=1500m limits.memory=1Gi pods=1 requests.a.b/c=1 requests.cpu=1500m"
        );
        let service = json!({"spec": {"type": "LoadBalancer", "ports": [{}, {}]}});
        assert_eq!(
            shown("services", service),
            "count/services=1 services=1 services.loadbalancers=1 services.nodeports=2"
        );
        assert_eq!(shown("deployments.apps", json!({})), "count/deployments.apps=1");
    }
}

//! What is odd about a pod or template, but not wrong.

use std::collections::BTreeSet;

use serde_json::Value;

use super::scheduling::{PREFERRED, REQUIRED};
use super::security::{APP_ARMOR, SECCOMP_CONTAINER, SECCOMP_POD, containers};
use crate::field::go_quote;
use crate::kinds::names;
use crate::kinds::node::{better_label, deprecated_label};
use crate::kinds::quantity::is_whole_amount;
use crate::object::Fields;

/// Annotations that do nothing any more.
const OLD_ANNOTATIONS: &[(&str, &str)] = &[
    (
        "scheduler.alpha.kubernetes.io/critical-pod",
        "non-functional in v1.16+; use the \"priorityClassName\" field instead",
    ),
    ("security.alpha.kubernetes.io/sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
    ("security.alpha.kubernetes.io/unsafe-sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
];

/// Volume types whose code is gone, with the name that upstream calls them by.
const OLD_VOLUMES: &[(&str, &str, &str)] = &[
    ("photonPersistentDisk", "photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("gitRepo", "gitRepo", "deprecated in v1.11, and disabled by default in v1.33+"),
    ("scaleIO", "scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("flocker", "flocker", "deprecated in v1.22, non-functional in v1.25+"),
    ("storageos", "storageOS", "deprecated in v1.22, non-functional in v1.25+"),
    ("quobyte", "quobyte", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("cephfs", "cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("rbd", "rbd", "deprecated in v1.28, non-functional in v1.31+"),
];

const SECCOMP_GONE: &str = "non-functional in v1.27+; use the \"seccompProfile\" field instead";
const APP_ARMOR_OLD: &str = "deprecated since v1.30; use the \"appArmorProfile\" field instead";
const NULL_SELECTOR: &str = "a null labelSelector results in matching no pod";

/// Warnings about a pod, where `path` is empty, or about the template at `path`.
pub fn warnings(owner: &Value, path: &str) -> Vec<String> {
    let prefix = if path.is_empty() { String::new() } else { format!("{path}.") };
    let spec_path = format!("{prefix}spec");
    let empty = Value::Null;
    let spec = owner.at(&["spec"]).unwrap_or(&empty);
    let mut found = Vec::new();
    scheduling_warnings(spec, &spec_path, &mut found);
    for (key, message) in OLD_ANNOTATIONS {
        if owner.at(&["metadata", "annotations", key]).is_some() {
            found.push(format!("{prefix}metadata.annotations[{key}]: {message}"));
        }
    }
    volume_warnings(spec, &spec_path, &mut found);
    duplicate_warnings(spec, "hostAliases", "ip", &spec_path, &mut found);
    duplicate_warnings(spec, "imagePullSecrets", "name", &spec_path, &mut found);
    for (i, secret) in spec.list_at(&["imagePullSecrets"]).iter().enumerate() {
        if secret.text_at(&["name"]).is_empty() {
            found.push(format!("{spec_path}.imagePullSecrets[{i}].name: invalid empty name \"\""));
        }
    }
    fractions(spec.at(&["overhead"]), &format!("{spec_path}.overhead"), &mut found);
    profile_warnings(owner, spec, path, &prefix, &mut found);
    for (list, i, container) in containers(spec) {
        container_warnings(container, &format!("{spec_path}.{list}[{i}]"), &mut found);
    }
    port_warnings(spec, &spec_path, &mut found);
    if spec.int_at(&["terminationGracePeriodSeconds"]).is_some_and(|seconds| seconds < 0) {
        let message = "must be >= 0; negative values are invalid and will be treated as 1";
        found.push(format!("{spec_path}.terminationGracePeriodSeconds: {message}"));
    }
    affinity_warnings(spec, &spec_path, &mut found);
    address_warnings(spec, &spec_path, &mut found);
    found
}

fn scheduling_warnings(spec: &Value, path: &str, found: &mut Vec<String>) {
    for (key, _) in spec.map_at(&["nodeSelector"]).into_iter().flatten() {
        if let Some(message) = better_label(key) {
            found.push(format!("{path}.nodeSelector[{key}]: {message}"));
        }
    }
    let node = format!("{path}.affinity.nodeAffinity");
    let terms = spec.list_at(&["affinity", "nodeAffinity", REQUIRED, "nodeSelectorTerms"]);
    for (i, term) in terms.iter().enumerate() {
        term_warnings(term, &format!("{node}.{REQUIRED}.nodeSelectorTerms[{i}]"), found);
    }
    for (i, term) in spec.list_at(&["affinity", "nodeAffinity", PREFERRED]).iter().enumerate() {
        if let Some(preference) = term.at(&["preference"]) {
            term_warnings(preference, &format!("{node}.{PREFERRED}[{i}].preference"), found);
        }
    }
    for (i, constraint) in spec.list_at(&["topologySpreadConstraints"]).iter().enumerate() {
        let at = format!("{path}.topologySpreadConstraints[{i}]");
        found.extend(deprecated_label(&format!("{at}.topologyKey"), constraint.text_at(&["topologyKey"])));
        if constraint.at(&["labelSelector"]).is_none() {
            found.push(format!("{at}.labelSelector: {NULL_SELECTOR}"));
        }
    }
}

/// Labels that nodes have under another name by now, and values that no label can have.
fn term_warnings(term: &Value, path: &str, found: &mut Vec<String>) {
    for (i, expression) in term.list_at(&["matchExpressions"]).iter().enumerate() {
        let at = format!("{path}.matchExpressions[{i}]");
        found.extend(deprecated_label(&format!("{at}.key"), expression.text_at(&["key"])));
        for (j, value) in expression.list_at(&["values"]).iter().enumerate() {
            let value = value.as_str().unwrap_or_default();
            for message in names::label_value(value) {
                found.push(format!("{at}.values[{j}]: {value} is invalid, {message}"));
            }
        }
    }
}

fn volume_warnings(spec: &Value, path: &str, found: &mut Vec<String>) {
    let volumes = spec.list_at(&["volumes"]);
    for (i, volume) in volumes.iter().enumerate() {
        for (field, shown, message) in OLD_VOLUMES {
            if volume.at(&[field]).is_some() {
                found.push(format!("{path}.volumes[{i}].{shown}: {message}"));
            }
        }
        let at = format!("{path}.volumes[{i}].ephemeral.volumeClaimTemplate.spec.resources");
        for list in ["requests", "limits"] {
            let amount = volume.at(&["ephemeral", "volumeClaimTemplate", "spec", "resources", list, "storage"]);
            if let Some(amount) = amount.filter(|amount| !is_whole_amount(amount)) {
                found.push(format!(
                    "{at}.{list}[storage]: fractional byte value {amount} is invalid, must be an integer"
                ));
            }
        }
    }
    for volume in volumes {
        overlap_warnings(volume, found);
    }
}

fn paths(source: &Value) -> Vec<&str> {
    source.list_at(&["items"]).iter().map(|item| item.text_at(&["path"])).collect()
}

/// Files of one volume that would stand in each other's way.
fn overlap_warnings(volume: &Value, found: &mut Vec<String>) {
    let name = go_quote(volume.text_at(&["name"]));
    let sources = [("configMap", "ConfigMap", "name"), ("secret", "Secret", "secretName"), ("downwardAPI", "", "")];
    for (field, kind, reference) in sources {
        let Some(source) = volume.at(&[field]) else { continue };
        let what = if kind.is_empty() {
            "DownwardAPI".to_owned()
        } else {
            format!("{kind} {}", go_quote(source.text_at(&[reference])))
        };
        overlaps(&paths(source), &format!("volume {name} ({what}): overlapping paths"), found);
    }
    let mut all: BTreeSet<&str> = BTreeSet::new();
    for source in volume.list_at(&["projected", "sources"]) {
        let Some((kind, content)) = source.as_object().and_then(|map| map.iter().next()) else {
            found.push(format!("volume {name} (Projected) has no sources provided"));
            continue;
        };
        let (what, own) = match kind.as_str() {
            "configMap" => (format!("ConfigMap {}", go_quote(content.text_at(&["name"]))), paths(content)),
            "secret" => (format!("Secret {}", go_quote(content.text_at(&["name"]))), paths(content)),
            "downwardAPI" => ("DownwardAPI".to_owned(), paths(content)),
            _ => ("ServiceAccountToken".to_owned(), vec![content.text_at(&["path"])]),
        };
        let message = format!("volume {name} (Projected {what}): overlapping paths");
        overlaps(&own, &message, found);
        let own: BTreeSet<&str> = own.into_iter().collect();
        let mut ordered: Vec<&str> = own.iter().chain(&all).copied().collect();
        ordered.sort_unstable();
        overlaps(&ordered, &message, found);
        all.extend(own);
    }
}

fn overlaps(paths: &[&str], message: &str, found: &mut Vec<String>) {
    let mut seen: Vec<&str> = Vec::new();
    for path in paths {
        let path = path.trim_end_matches('/');
        let inside = |a: &str, b: &str| format!("{a}/").starts_with(b);
        let collision = seen.iter().find(|other| inside(other, path) || inside(path, other));
        if let Some(other) = collision.filter(|other| !path.is_empty() && !other.is_empty()) {
            found.push(format!("{message}: {} with {}", go_quote(path), go_quote(other)));
        }
        if !seen.contains(&path) {
            seen.push(path);
        }
    }
}

fn duplicate_warnings(spec: &Value, list: &str, field: &str, path: &str, found: &mut Vec<String>) {
    let items = spec.list_at(&[list]);
    for (i, item) in items.iter().enumerate() {
        let text = item.text_at(&[field]);
        if items[..i].iter().any(|other| other.text_at(&[field]) == text) {
            found.push(format!("{path}.{list}[{i}].{field}: duplicate {field} {}", go_quote(text)));
        }
    }
}

/// Bytes come whole.
fn fractions(amounts: Option<&Value>, path: &str, found: &mut Vec<String>) {
    for name in ["memory", "ephemeral-storage"] {
        if let Some(amount) = amounts.and_then(|amounts| amounts.get(name)).filter(|amount| !is_whole_amount(amount)) {
            found.push(format!("{path}[{name}]: fractional byte value {amount} is invalid, must be an integer"));
        }
    }
}

/// Profiles in annotations, of which only AppArmor's still work.
fn profile_warnings(owner: &Value, spec: &Value, path: &str, prefix: &str, found: &mut Vec<String>) {
    let annotated = |key: &str| owner.at(&["metadata", "annotations", key]).is_some();
    let mut warn = |key: &str, message: &str| found.push(format!("{prefix}metadata.annotations[{key}]: {message}"));
    if spec.at(&["securityContext", "seccompProfile"]).is_none() && annotated(SECCOMP_POD) {
        warn(SECCOMP_POD, SECCOMP_GONE);
    }
    let whole = spec.at(&["securityContext", "appArmorProfile"]).is_some();
    for (_, _, container) in containers(spec) {
        let name = container.text_at(&["name"]);
        let key = format!("{SECCOMP_CONTAINER}{name}");
        if container.at(&["securityContext", "seccompProfile"]).is_none() && annotated(&key) {
            warn(&key, SECCOMP_GONE);
        }
        // A pod's annotation becomes the field at creation, which is where it is warned of.
        let key = format!("{APP_ARMOR}{name}");
        let own = container.at(&["securityContext", "appArmorProfile"]);
        if !path.is_empty() && !whole && own.is_none() && annotated(&key) {
            warn(&key, APP_ARMOR_OLD);
        }
    }
}

/// The warning about an AppArmor annotation of a pod.
pub fn app_armor_warning(container: &str) -> String {
    format!("metadata.annotations[{APP_ARMOR}{container}]: {APP_ARMOR_OLD}")
}

fn container_warnings(container: &Value, path: &str, found: &mut Vec<String>) {
    for list in ["limits", "requests"] {
        fractions(container.at(&["resources", list]), &format!("{path}.resources.{list}"), found);
    }
    let variables = container.list_at(&["env"]);
    for (i, variable) in variables.iter().enumerate() {
        let name = variable.text_at(&["name"]);
        let reference = format!("$({name})");
        let value = variable.text_at(&["value"]);
        let builds_on = variable.at(&["valueFrom"]).is_none() && value != reference && value.contains(&reference);
        if !builds_on && variables[..i].iter().any(|other| other.text_at(&["name"]) == name) {
            let message = "hides previous definition of";
            let rest = "which may be dropped when using apply";
            found.push(format!("{path}.env[{i}]: {message} {}, {rest}", go_quote(name)));
        }
    }
}

/// Ports that more than one container, or one container twice, listens on.
fn port_warnings(spec: &Value, path: &str, found: &mut Vec<String>) {
    let mut seen: Vec<(String, &Value)> = Vec::new();
    for (list, i, container) in containers(spec) {
        for (j, port) in container.list_at(&["ports"]).iter().enumerate() {
            let at = format!("{path}.{list}[{i}].ports[{j}]");
            let text = |port: &Value, field: &str| port.text_at(&[field]).to_owned();
            let number = |port: &Value, field: &str| port.int_at(&[field]).unwrap_or_default();
            let (ip, host) = (text(port, "hostIP"), number(port, "hostPort"));
            if !ip.is_empty() && host == 0 {
                found.push(format!(
                    "{at}: hostIP set without hostPort: {{Name:{} HostPort:0 ContainerPort:{} Protocol:{} HostIP:{ip}}}",
                    text(port, "name"),
                    number(port, "containerPort"),
                    text(port, "protocol"),
                ));
            }
            let same = |other: &Value| {
                number(other, "containerPort") == number(port, "containerPort")
                    && text(other, "protocol") == text(port, "protocol")
            };
            for (other_at, other) in seen.iter().filter(|(_, other)| same(other)) {
                let (other_ip, other_host) = (text(other, "hostIP"), number(other, "hostPort"));
                let what = if ip == other_ip && host == other_host {
                    "duplicate"
                } else if host == 0 || other_host == 0 {
                    "overlapping"
                } else if host == other_host && (ip.is_empty() != other_ip.is_empty()) {
                    "dangerously ambiguous"
                } else {
                    continue;
                };
                found.push(format!("{at}: {what} port definition with {other_at}"));
            }
            seen.push((at, port));
        }
    }
}

fn affinity_warnings(spec: &Value, path: &str, found: &mut Vec<String>) {
    for kind in ["podAffinity", "podAntiAffinity"] {
        for (list, inner) in [(REQUIRED, ""), (PREFERRED, ".podAffinityTerm")] {
            for (i, term) in spec.list_at(&["affinity", kind, list]).iter().enumerate() {
                let selector = if inner.is_empty() {
                    term.at(&["labelSelector"])
                } else {
                    term.at(&["podAffinityTerm", "labelSelector"])
                };
                if selector.is_none() {
                    found.push(format!("{path}.affinity.{kind}.{list}[{i}]{inner}.labelSelector: {NULL_SELECTOR}"));
                }
            }
        }
    }
}

/// Addresses in a spelling that is not the usual one.
fn address_warnings(spec: &Value, path: &str, found: &mut Vec<String>) {
    for (i, alias) in spec.list_at(&["hostAliases"]).iter().enumerate() {
        found.extend(names::spelling_warning(&format!("{path}.hostAliases[{i}].ip"), alias.text_at(&["ip"])));
    }
    let at = format!("{path}.dnsConfig.nameservers");
    found.extend(names::spelling_warnings(&at, spec.list_at(&["dnsConfig", "nameservers"])));
}

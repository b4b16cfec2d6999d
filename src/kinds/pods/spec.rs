//! The spec of a pod, wherever it stands.

use serde_json::Value;

use super::containers::{Pod, check_containers, check_ephemeral_containers, check_init_containers, check_resources};
use super::resources::{aggregate, amounts};
use super::scheduling::{check_affinity, check_spread_constraints};
use super::security::{check_os, check_pod_security_context};
use super::shapes::RESOURCE_CLAIM;
use super::volumes::check_volumes;
use super::{Latitude, security};
use crate::field::{Errors, Path};
use crate::kinds::{go_shape, meta, names, pod_parts, quantity};
use crate::object::Fields;
use crate::quantity::{Format, Quantity};

/// `pod` is the name of the pod, where this is the spec of one.
pub fn check_spec(spec: &Value, pod: Option<&str>, path: &Path<'_>, latitude: &Latitude, errors: &mut Errors) {
    let text = |field: &str| spec.text_at(&[field]);
    if spec.at(&["terminationGracePeriodSeconds"]).is_none() {
        errors.required(&path.child("terminationGracePeriodSeconds"), "");
    }
    let volumes = check_volumes(spec, pod, &path.child("volumes"), latitude, errors);
    let whole = Pod { spec, volumes, latitude };
    check_resource_claims(spec, &path.child("resourceClaims"), errors);
    check_containers(&whole, &path.child("containers"), errors);
    check_init_containers(&whole, &path.child("initContainers"), errors);
    check_ephemeral_containers(&whole, &path.child("ephemeralContainers"), errors);
    if spec.at(&["resources"]).is_some() {
        check_whole_resources(&whole, &path.child("resources"), errors);
    }
    check_host_network(spec, path, latitude, errors);
    enumerated(text("restartPolicy"), &["Always", "OnFailure", "Never"], &path.child("restartPolicy"), errors);
    let policies = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    enumerated(text("dnsPolicy"), &policies, &path.child("dnsPolicy"), errors);
    if let Some(selector) = spec.at(&["nodeSelector"]) {
        meta::labels(errors, &path.child("nodeSelector"), selector);
    }
    check_pod_security_context(spec, path, &path.child("securityContext"), latitude, errors);
    check_affinity(spec, &path.child("affinity"), latitude, errors);
    check_dns(spec, &path.child("dnsConfig"), errors);
    let gates = path.child("readinessGates");
    for (i, gate) in spec.list_at(&["readinessGates"]).iter().enumerate() {
        let at = gates.index(i);
        let kind = gate.text_at(&["conditionType"]);
        names::invalid_each(errors, &at.child("conditionType"), kind, names::qualified_name(kind));
    }
    check_scheduling_gates(spec, &path.child("schedulingGates"), errors);
    check_spread_constraints(spec, &path.child("topologySpreadConstraints"), latitude, errors);
    check_host_users(spec, path, errors);
    let forms: &[(&str, names::Check)] = &[
        ("serviceAccountName", names::dns_subdomain),
        ("nodeName", names::dns_subdomain),
        ("hostname", names::dns_label),
        ("subdomain", names::dns_label),
        ("priorityClassName", names::dns_subdomain),
    ];
    for (field, check) in forms {
        if !text(field).is_empty() {
            names::invalid_each(errors, &path.child(field), text(field), check(text(field)));
        }
    }
    if let Some(class) = spec.at(&["runtimeClassName"]).and_then(Value::as_str) {
        names::invalid_each(errors, &path.child("runtimeClassName"), class, names::dns_subdomain(class));
    }
    if let Some(seconds) = spec.int_at(&["activeDeadlineSeconds"]).filter(|s| !(1..=i64::from(i32::MAX)).contains(s)) {
        let detail = "must be between 1 and 2147483647, inclusive";
        errors.invalid(&path.child("activeDeadlineSeconds"), seconds, detail);
    }
    check_hostname_override(spec, path, errors);
    pod_parts::tolerations(errors, &path.child("tolerations"), spec.list_at(&["tolerations"]));
    check_host_aliases(spec, &path.child("hostAliases"), errors);
    if let Some(policy) = spec.at(&["preemptionPolicy"]).and_then(Value::as_str) {
        enumerated(policy, &["PreemptLowerPriority", "Never"], &path.child("preemptionPolicy"), errors);
    }
    let overhead = path.child("overhead");
    for (name, amount) in spec.map_at(&["overhead"]).into_iter().flatten() {
        quantity::container_resource_name(errors, &overhead.key(name), name);
        quantity::resource_value(errors, &overhead.key(name), name, amount);
    }
    check_os(spec, path, errors);
}

fn enumerated(text: &str, known: &[&str], path: &Path<'_>, errors: &mut Errors) {
    if text.is_empty() {
        errors.required(path, "");
    } else if !known.contains(&text) {
        errors.not_supported(path, text, known);
    }
}

fn check_resource_claims(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let claims = spec.list_at(&["resourceClaims"]);
    for (i, claim) in claims.iter().enumerate() {
        let at = path.index(i);
        match claim.text_at(&["name"]) {
            "" => errors.required(&at.child("name"), ""),
            name if claims[..i].iter().any(|other| other.text_at(&["name"]) == name) => {
                errors.duplicate(&at.child("name"), name);
            }
            name => names::invalid_each(errors, &at.child("name"), name, names::dns_label(name)),
        }
        let sources = ["resourceClaimName", "resourceClaimTemplateName"];
        let shown = || go_shape::by_value(Some(claim), RESOURCE_CLAIM);
        match sources.iter().filter(|field| claim.at(&[field]).is_some()).count() {
            0 => {
                let detail = "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`";
                errors.invalid(&at, shown(), detail);
            }
            1 => {}
            _ => {
                let detail = "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified";
                errors.invalid(&at, shown(), detail);
            }
        }
        for field in sources {
            if let Some(name) = claim.at(&[field]).and_then(Value::as_str) {
                names::invalid_each(errors, &at.child(field), name, names::dns_subdomain(name));
            }
        }
    }
}

/// What the pod as a whole asks for covers what its containers ask for.
fn check_whole_resources(pod: &Pod<'_>, path: &Path<'_>, errors: &mut Errors) {
    let spec = pod.spec;
    if spec.at(&["resources", "claims"]).is_some() {
        errors.forbidden(&path.child("claims"), "claims cannot be set for Resources at pod-level");
    }
    check_resources(spec, pod, true, path, errors);
    let requests = path.child("requests");
    let asked = amounts(spec, "requests");
    for (name, together) in aggregate(spec, "requests") {
        let own = asked.get(&name).copied().unwrap_or(Quantity::new(0, Format::DecimalSi));
        if together > own {
            let detail = format!("must be greater than or equal to aggregate container requests of {together}");
            errors.invalid(&requests.key(&name), own.to_string(), detail);
        }
    }
    let limits = amounts(spec, "limits");
    let list = path.child("containers");
    for (i, container) in spec.list_at(&["containers"]).iter().enumerate() {
        for (name, limit) in amounts(container, "limits") {
            if let Some(whole) = limits.get(&name).filter(|whole| limit > **whole) {
                let at = list.index(i);
                let at = at.key(&name);
                let detail = format!("must be less than or equal to pod limits of {whole}");
                errors.invalid(&at.child("limits"), limit.to_string(), detail);
            }
        }
    }
}

/// On the host's network a port of a container is the port of the host.
fn check_host_network(spec: &Value, path: &Path<'_>, latitude: &Latitude, errors: &mut Errors) {
    if spec.bool_at(&["hostNetwork"]) != Some(true) {
        return;
    }
    let list = path.child("containers");
    for (i, container) in spec.list_at(&["containers"]).iter().enumerate() {
        let at = list.index(i);
        let ports = at.child("ports");
        for (j, port) in container.list_at(&["ports"]).iter().enumerate() {
            let number = |field: &str| port.int_at(&[field]).unwrap_or_default();
            let (host, own) = (number("hostPort"), number("containerPort"));
            if (latitude.pod || host != 0) && host != own {
                let at = ports.index(j);
                let detail = "must match `containerPort` when `hostNetwork` is true";
                errors.invalid(&at.child("hostPort"), host, detail);
            }
        }
    }
}

const MAX_NAMESERVERS: usize = 3;
const MAX_SEARCHES: usize = 32;
const MAX_SEARCH_TEXT: usize = 2048;

fn check_dns(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let config = spec.at(&["dnsConfig"]);
    if spec.text_at(&["dnsPolicy"]) == "None" {
        match config {
            None => return errors.required(path, "must provide `dnsConfig` when `dnsPolicy` is None"),
            Some(config) if config.list_at(&["nameservers"]).is_empty() => {
                let detail = "must provide at least one DNS nameserver when `dnsPolicy` is None";
                return errors.required(&path.child("nameservers"), detail);
            }
            Some(_) => {}
        }
    }
    let Some(config) = config else { return };
    let list = path.child("nameservers");
    let servers = config.list_at(&["nameservers"]);
    if servers.len() > MAX_NAMESERVERS {
        let detail = format!("must not have more than {MAX_NAMESERVERS} nameservers");
        errors.invalid(&list, &config["nameservers"], detail);
    }
    for (i, server) in servers.iter().enumerate() {
        names::ip(errors, &list.index(i), server.as_str().unwrap_or_default());
    }
    let list = path.child("searches");
    let searches: Vec<&str> = config.list_at(&["searches"]).iter().filter_map(Value::as_str).collect();
    if searches.len() > MAX_SEARCHES {
        let detail = format!("must not have more than {MAX_SEARCHES} search paths");
        errors.invalid(&list, &config["searches"], detail);
    }
    if searches.join(" ").len() > MAX_SEARCH_TEXT {
        let detail =
            format!("must not have more than {MAX_SEARCH_TEXT} characters (including spaces) in the search list");
        errors.invalid(&list, &config["searches"], detail);
    }
    for (i, search) in searches.into_iter().enumerate().filter(|(_, search)| *search != ".") {
        let search = search.strip_suffix('.').unwrap_or(search);
        names::invalid_each(errors, &list.index(i), search, names::dns_subdomain_with_underscore(search));
    }
    let list = path.child("options");
    for (i, option) in config.list_at(&["options"]).iter().enumerate() {
        if option.text_at(&["name"]).is_empty() {
            errors.required(&list.index(i), "must not be empty");
        }
    }
}

fn check_scheduling_gates(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let gates = spec.list_at(&["schedulingGates"]);
    for (i, gate) in gates.iter().enumerate() {
        let name = gate.text_at(&["name"]);
        names::invalid_each(errors, &path.index(i), name, names::qualified_name(name));
        if gates[..i].contains(gate) {
            errors.duplicate(&path.index(i), name);
        }
    }
}

/// A pod in a user namespace of its own can't share the host's other namespaces.
fn check_host_users(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    if spec.bool_at(&["hostUsers"]) != Some(false) {
        return;
    }
    for (field, shown) in [("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC")] {
        if spec.bool_at(&[field]) == Some(true) {
            errors.forbidden(&path.child(shown), "when `pod.Spec.HostUsers` is false");
        }
    }
    for (list, i, container) in security::containers(spec) {
        if !container.list_at(&["volumeDevices"]).is_empty() {
            let list = path.child(list);
            let at = list.index(i);
            errors.forbidden(&at.child("volumeDevices"), "when `pod.Spec.HostUsers` is false");
        }
    }
}

const MAX_HOSTNAME: usize = 64;

fn check_hostname_override(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let Some(name) = spec.at(&["hostnameOverride"]).and_then(Value::as_str) else { return };
    let at = path.child("hostnameOverride");
    names::invalid_each(errors, &at, name, names::dns_subdomain(name));
    if name.len() > MAX_HOSTNAME {
        errors.too_long(&at, MAX_HOSTNAME);
    }
    if spec.bool_at(&["setHostnameAsFQDN"]) == Some(true) {
        errors.forbidden(&at, "may not be specified when setHostnameAsFQDN is true");
    }
    if spec.bool_at(&["hostNetwork"]) == Some(true) {
        errors.forbidden(&at, "may not be specified when hostNetwork is true");
    }
}

fn check_host_aliases(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    for (i, alias) in spec.list_at(&["hostAliases"]).iter().enumerate() {
        let at = path.index(i);
        names::ip(errors, &at.child("ip"), alias.text_at(&["ip"]));
        let list = at.child("hostnames");
        for (j, name) in alias.list_at(&["hostnames"]).iter().enumerate() {
            let name = name.as_str().unwrap_or_default();
            names::invalid_each(errors, &list.index(j), name, names::dns_subdomain(name));
        }
    }
}

//! Service: defaults, what a change of type drops, validation. Its addresses and ports are claimed in
//! [`super::service_alloc`], which runs before these rules.

use serde_json::{Map, Value, json};

use super::endpoints::{PROTOCOLS, not_special};
use super::go_shape::{self, Part, Shape};
use super::meta;
use super::names;
use super::networking::balancer_hostname;
use super::{Kind, NameForm, Selectable, copy_field};
use crate::field::{Errors, Path, Raw};
use crate::object::Fields;

pub static KINDS: &[&dyn Kind] = &[&Service];

pub struct Service;

const TYPES: &[&str] = &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const TRAFFIC_POLICIES: &[&str] = &["Cluster", "Local"];
const FAMILIES: &[&str] = &["IPv4", "IPv6"];
const FAMILY_POLICIES: &[&str] = &["PreferDualStack", "RequireDualStack", "SingleStack"];
const AFFINITIES: &[&str] = &["ClientIP", "None"];
const DISTRIBUTIONS: &[&str] = &["PreferClose", "PreferSameNode", "PreferSameZone"];
const AFFINITY_SECONDS: i64 = 10800;
const MAX_AFFINITY_SECONDS: i64 = 86400;
const SOURCE_RANGES_ANNOTATION: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";
const TOPOLOGY_MODE: &str = "service.kubernetes.io/topology-mode";
const TOPOLOGY_HINTS: &str = "service.kubernetes.io/topology-aware-hints";

const PORT: Shape = &[
    ("Name", "name", Part::Text),
    ("Protocol", "protocol", Part::Text),
    ("AppProtocol", "appProtocol", Part::Plain),
    ("Port", "port", Part::Int),
    ("TargetPort", "targetPort", Part::Int),
    ("NodePort", "nodePort", Part::Int),
];

fn spec<'a>(service: &'a Value, field: &str) -> Option<&'a Value> {
    service.at(&["spec", field])
}

pub(super) fn kind_of(service: &Value) -> &str {
    service.text_at(&["spec", "type"])
}

/// Whether this type gets cluster addresses.
pub(super) fn needs_cluster_ip(service: &Value) -> bool {
    kind_of(service) != "ExternalName"
}

fn known_clustered(service: &Value) -> bool {
    matches!(kind_of(service), "ClusterIP" | "NodePort" | "LoadBalancer")
}

pub(super) fn has_node_ports(service: &Value) -> bool {
    matches!(kind_of(service), "NodePort" | "LoadBalancer")
}

/// Whether the load balancer asks each node for its health on a port of its own.
pub(super) fn needs_health_check(service: &Value) -> bool {
    kind_of(service) == "LoadBalancer" && service.text_at(&["spec", "externalTrafficPolicy"]) == "Local"
}

/// Whether it is reachable from outside, and so has an `externalTrafficPolicy`.
fn external(service: &Value) -> bool {
    matches!(kind_of(service), "LoadBalancer" | "NodePort")
        || kind_of(service) == "ClusterIP" && !service.list_at(&["spec", "externalIPs"]).is_empty()
}

pub(super) fn headless(service: &Value) -> bool {
    matches!(service.list_at(&["spec", "clusterIPs"]), [only] if only == "None")
}

pub(super) fn node_ports(service: &Value) -> Vec<i64> {
    let ports = service.list_at(&["spec", "ports"]);
    ports.iter().filter_map(|port| port.int_at(&["nodePort"])).filter(|port| *port != 0).collect()
}

impl Kind for Service {
    fn group(&self) -> &'static str {
        ""
    }

    fn kind(&self) -> &'static str {
        "Service"
    }

    fn name_form(&self) -> NameForm {
        NameForm::Label
    }

    fn create_on_update(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        object.make_map(&["spec"]);
        let Some(spec) = object.at_mut(&["spec"]) else { return };
        spec.set_default("sessionAffinity", "None");
        match spec.text_at(&["sessionAffinity"]) {
            "None" => {
                spec.take_at(&["sessionAffinityConfig"]);
            }
            "ClientIP" if spec.int_at(&["sessionAffinityConfig", "clientIP", "timeoutSeconds"]).is_none() => {
                spec.set(&["sessionAffinityConfig", "clientIP", "timeoutSeconds"], AFFINITY_SECONDS);
            }
            _ => {}
        }
        spec.set_default("type", "ClusterIP");
        for port in spec.items_mut(&["ports"]) {
            port.set_default("protocol", "TCP");
            if port.at(&["targetPort"]).is_none_or(|target| target == 0 || target == "") {
                let number = port.int_at(&["port"]).unwrap_or_default();
                port.set(&["targetPort"], number);
            }
        }
        let external = external(object);
        let balancer = kind_of(object) == "LoadBalancer";
        let clustered = known_clustered(object);
        let Some(spec) = object.at_mut(&["spec"]) else { return };
        if external && spec.text_at(&["externalTrafficPolicy"]).is_empty() {
            spec.set(&["externalTrafficPolicy"], "Cluster");
        }
        if clustered {
            spec.set_default("internalTrafficPolicy", "Cluster");
        }
        if balancer {
            spec.set_default("allocateLoadBalancerNodePorts", true);
            for ingress in object.items_mut(&["status", "loadBalancer", "ingress"]) {
                if !ingress.text_at(&["ip"]).is_empty() {
                    ingress.set_default("ipMode", "VIP");
                }
            }
        }
    }

    fn prepare_update(&self, object: &mut Value, old: &Value) {
        copy_field(object, old, "status");
        drop_by_type(object, old);
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        check(object, errors);
        check_class(object, errors);
    }

    fn validate_update(&self, object: &Value, old: &Value, errors: &mut Errors) {
        check_address_change(object, old, errors);
        check_family_change(object, old, errors);
        let path = Path::new("spec");
        let balancers = kind_of(object) == "LoadBalancer" && kind_of(old) == "LoadBalancer";
        let class = spec(object, "loadBalancerClass");
        if balancers && class != spec(old, "loadBalancerClass") {
            let shown = class.map_or("null".to_owned(), Value::to_string);
            errors.invalid(&path.child("loadBalancerClass"), Raw(shown), "may not change once set");
        }
        check_class(object, errors);
        let port = ["spec", "healthCheckNodePort"];
        if needs_health_check(object) && needs_health_check(old) && object.int_at(&port) != old.int_at(&port) {
            errors.forbidden(&path.child("healthCheckNodePort"), meta::FIELD_IMMUTABLE);
        }
        check(object, errors);
    }

    fn validate_status_update(&self, object: &Value, old: &Value, errors: &mut Errors) {
        let status = Path::new("status");
        let balancer = status.child("loadBalancer");
        let list = balancer.child("ingress");
        let items = object.list_at(&["status", "loadBalancer", "ingress"]);
        if kind_of(object) != "LoadBalancer" && !items.is_empty() {
            return errors.forbidden(&list, "may only be used when `spec.type` is 'LoadBalancer'");
        }
        let known = old.list_at(&["status", "loadBalancer", "ingress"]);
        for (i, ingress) in items.iter().enumerate() {
            let path = list.index(i);
            let ip = ingress.text_at(&["ip"]);
            if !ip.is_empty() && !known.iter().any(|k| k.text_at(&["ip"]) == ip) {
                names::ip(errors, &path.child("ip"), ip);
            }
            match ingress.at(&["ipMode"]).and_then(Value::as_str) {
                None if !ip.is_empty() => {
                    errors.required(&path.child("ipMode"), "must be specified when `ip` is set");
                }
                Some(_) if ip.is_empty() => {
                    errors.forbidden(&path.child("ipMode"), "may not be specified when `ip` is not set");
                }
                Some(mode) if !matches!(mode, "VIP" | "Proxy") => {
                    errors.not_supported(&path.child("ipMode"), mode, &["Proxy", "VIP"]);
                }
                _ => {}
            }
            balancer_hostname(ingress, &path, errors);
        }
    }

    fn warnings(&self, object: &Value, _old: Option<&Value>) -> Vec<String> {
        let mut warnings = Vec::new();
        if object.at(&["metadata", "annotations", TOPOLOGY_HINTS]).is_some() {
            warnings.push(format!("annotation {TOPOLOGY_HINTS} is deprecated, please use {TOPOLOGY_MODE} instead"));
        }
        for field in ["clusterIPs", "externalIPs", "loadBalancerSourceRanges"] {
            warnings.extend(names::spelling_warnings(&format!("spec.{field}"), object.list_at(&["spec", field])));
        }
        warnings.extend(names::spelling_warning("spec.loadBalancerIP", object.text_at(&["spec", "loadBalancerIP"])));
        let external_ips = !object.list_at(&["spec", "externalIPs"]).is_empty();
        let external_name = kind_of(object) == "ExternalName";
        let headless = kind_of(object) == "ClusterIP" && object.text_at(&["spec", "clusterIP"]) == "None";
        if headless {
            for (ignored, what) in [
                (!object.text_at(&["spec", "loadBalancerIP"]).is_empty(), "loadBalancerIP"),
                (external_ips, "externalIPs"),
                (object.text_at(&["spec", "sessionAffinity"]) != "None", "SessionAffinity"),
            ] {
                if ignored {
                    warnings.push(format!("spec.{what} is ignored for headless services"));
                }
            }
        } else if external_ips && !external_name {
            warnings
                .push("spec.externalIPs is deprecated and may no longer be implemented in some clusters".to_owned());
        }
        if external_ips && external_name {
            warnings.push("spec.externalIPs is ignored when spec.type is \"ExternalName\"".to_owned());
        }
        if !external_name && !object.text_at(&["spec", "externalName"]).is_empty() {
            warnings.push("spec.externalName is ignored when spec.type is not \"ExternalName\"".to_owned());
        }
        if object.text_at(&["spec", "trafficDistribution"]) == "PreferClose" {
            warnings.push("spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"".to_owned());
        }
        warnings
    }

    fn selectable(&self) -> &'static [Selectable] {
        &[
            ("spec.clusterIP", |object| object.text_at(&["spec", "clusterIP"]).to_owned()),
            ("spec.type", |object| kind_of(object).to_owned()),
        ]
    }

    fn meta_looks(&self) -> meta::MetaLooks {
        meta::MetaLooks { finalizers: true, change: true, whole: 0 }
    }
}

/// A new type leaves fields behind that no longer mean anything. Those that the server set, and that the client did
/// not touch at the same time, go away with it.
fn drop_by_type(object: &mut Value, old: &Value) {
    let same = |object: &Value, field: &str| spec(object, field) == spec(old, field);
    let mut drop: Vec<&str> = Vec::new();
    if needs_cluster_ip(old) && !needs_cluster_ip(object) {
        if same(object, "clusterIPs") {
            drop.extend(["clusterIP", "clusterIPs"]);
        }
        drop.extend(["ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"].iter().filter(|f| same(object, f)));
    }
    if needs_health_check(old) && !needs_health_check(object) && same(object, "healthCheckNodePort") {
        drop.push("healthCheckNodePort");
    }
    if kind_of(old) == "LoadBalancer" && kind_of(object) != "LoadBalancer" {
        drop.extend(["allocateLoadBalancerNodePorts", "loadBalancerClass"].iter().filter(|f| same(object, f)));
    }
    if external(old) && !external(object) && same(object, "externalTrafficPolicy") {
        drop.push("externalTrafficPolicy");
    }
    let (before, after) = (node_ports(old), node_ports(object));
    if has_node_ports(old) && !has_node_ports(object) && after.iter().all(|port| before.contains(port)) {
        for port in object.items_mut(&["spec", "ports"]) {
            port.take_at(&["nodePort"]);
        }
    }
    for field in drop {
        object.take_at(&["spec", field]);
    }
    if kind_of(object) != "LoadBalancer" && object.at(&["status", "loadBalancer", "ingress"]).is_some() {
        object.set(&["status", "loadBalancer"], Value::Object(Map::new()));
    }
}

fn check_class(object: &Value, errors: &mut Errors) {
    let Some(class) = spec(object, "loadBalancerClass").and_then(Value::as_str) else { return };
    let path = Path::new("spec");
    let path = path.child("loadBalancerClass");
    if kind_of(object) == "LoadBalancer" {
        names::invalid_each(errors, &path, class, names::qualified_name(class));
    } else {
        errors.forbidden(&path, "may only be used when `type` is 'LoadBalancer'");
    }
}

fn check(object: &Value, errors: &mut Errors) {
    let root = Path::new("spec");
    let kind = kind_of(object);
    let headless = headless(object);
    let ports = object.list_at(&["spec", "ports"]);
    let annotation = |name: &str| object.at(&["metadata", "annotations", name]).and_then(Value::as_str);
    if let (Some(mode), Some(hints)) = (annotation(TOPOLOGY_MODE), annotation(TOPOLOGY_HINTS))
        && mode != hints
    {
        let metadata = Path::new("metadata");
        let annotations = metadata.child("annotations");
        let detail = format!("must match annotations[{TOPOLOGY_HINTS}] when both are specified");
        errors.invalid(&annotations.key(TOPOLOGY_MODE), mode, detail);
    }
    if ports.is_empty() && !headless && kind != "ExternalName" {
        errors.required(&root.child("ports"), "");
    }
    match kind {
        "LoadBalancer" | "NodePort" if headless => {
            let ips = root.child("clusterIPs");
            errors.invalid(&ips.index(0), "None", format!("may not be set to 'None' for {kind} services"));
        }
        "ExternalName" => check_external_name(object, errors),
        _ => {}
    }
    check_ports(object, kind, errors);
    if let Some(selector) = spec(object, "selector") {
        meta::labels(errors, &root.child("selector"), selector);
    }
    check_affinity(object, errors);
    check_cluster_ips(object, errors);
    let list = root.child("externalIPs");
    for (i, ip) in object.list_at(&["spec", "externalIPs"]).iter().enumerate() {
        let ip = ip.as_str().unwrap_or_default();
        let before = errors.0.len();
        names::ip(errors, &list.index(i), ip);
        if errors.0.len() == before {
            not_special(errors, &list.index(i), ip);
        }
    }
    if kind.is_empty() {
        errors.required(&root.child("type"), "");
    } else if !TYPES.contains(&kind) {
        errors.not_supported(&root.child("type"), kind, TYPES);
    }
    check_source_ranges(object, kind, errors);
    let allocate = spec(object, "allocateLoadBalancerNodePorts").is_some();
    if allocate && kind != "LoadBalancer" {
        let path = root.child("allocateLoadBalancerNodePorts");
        errors.forbidden(&path, "may only be used when `type` is 'LoadBalancer'");
    }
    if !allocate && kind == "LoadBalancer" {
        errors.required(&Path::new("allocateLoadBalancerNodePorts"), "");
    }
    check_traffic(object, errors);
}

fn check_external_name(object: &Value, errors: &mut Errors) {
    let root = Path::new("spec");
    for field in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
        let set = match spec(object, field) {
            Some(Value::Array(items)) => !items.is_empty(),
            other => other.is_some(),
        };
        if set {
            errors.forbidden(&root.child(field), "may not be set for ExternalName services");
        }
    }
    let name = object.text_at(&["spec", "externalName"]);
    let name = name.strip_suffix('.').unwrap_or(name);
    let path = root.child("externalName");
    if name.is_empty() {
        errors.required(&path, "");
    } else {
        names::invalid_each(errors, &path, name, names::dns_subdomain(name));
    }
}

fn check_ports(object: &Value, kind: &str, errors: &mut Errors) {
    let root = Path::new("spec");
    let list = root.child("ports");
    let ports = object.list_at(&["spec", "ports"]);
    let same = |a: &Value, b: &Value, field: &str| {
        a.text_at(&["protocol"]) == b.text_at(&["protocol"]) && a.int_at(&[field]) == b.int_at(&[field])
    };
    for (i, port) in ports.iter().enumerate() {
        let path = list.index(i);
        let earlier = &ports[..i];
        let name = port.text_at(&["name"]);
        if name.is_empty() && ports.len() > 1 {
            errors.required(&path.child("name"), "");
        } else if !name.is_empty() {
            names::invalid_each(errors, &path.child("name"), name, names::dns_label(name));
            if earlier.iter().any(|p| p.text_at(&["name"]) == name) {
                errors.duplicate(&path.child("name"), name);
            }
        }
        names::port_number(errors, &path.child("port"), port.int_at(&["port"]).unwrap_or_default());
        let protocol = port.text_at(&["protocol"]);
        if protocol.is_empty() {
            errors.required(&path.child("protocol"), "");
        } else if !PROTOCOLS.contains(&protocol) {
            errors.not_supported(&path.child("protocol"), protocol, PROTOCOLS);
        }
        match port.at(&["targetPort"]) {
            Some(Value::String(name)) => {
                names::invalid_each(errors, &path.child("targetPort"), name, names::port_name(name));
            }
            target => {
                let target = target.and_then(Value::as_i64).unwrap_or_default();
                names::port_number(errors, &path.child("targetPort"), target);
            }
        }
        if let Some(text) = port.at(&["appProtocol"]).and_then(Value::as_str) {
            names::invalid_each(errors, &path.child("appProtocol"), text, names::qualified_name(text));
        }
        let node_port = port.int_at(&["nodePort"]).unwrap_or_default();
        if node_port != 0 {
            if kind == "ClusterIP" {
                errors.forbidden(&path.child("nodePort"), "may not be used when `type` is 'ClusterIP'");
            }
            if earlier.iter().any(|p| same(p, port, "nodePort")) {
                errors.duplicate(&path.child("nodePort"), node_port);
            }
        }
        if earlier.iter().any(|p| same(p, port, "port")) {
            let key = json!({ "protocol": protocol, "port": port.int_at(&["port"]).unwrap_or_default() });
            errors.duplicate(&path, go_shape::by_value(Some(&key), PORT));
        }
    }
}

fn check_affinity(object: &Value, errors: &mut Errors) {
    let root = Path::new("spec");
    let affinity = object.text_at(&["spec", "sessionAffinity"]);
    if affinity.is_empty() {
        errors.required(&root.child("sessionAffinity"), "");
    } else if !AFFINITIES.contains(&affinity) {
        errors.not_supported(&root.child("sessionAffinity"), affinity, AFFINITIES);
    }
    let config = root.child("sessionAffinityConfig");
    let client = config.child("clientIP");
    let seconds = client.child("timeoutSeconds");
    match affinity {
        "None" if spec(object, "sessionAffinityConfig").is_some() => {
            errors.forbidden(&config, "must not be set when session affinity is None");
        }
        "ClientIP" => {
            let when = "when session affinity type is ClientIP";
            if spec(object, "sessionAffinityConfig").is_none() {
                return errors.required(&config, when);
            }
            if object.at(&["spec", "sessionAffinityConfig", "clientIP"]).is_none() {
                return errors.required(&client, when);
            }
            match object.int_at(&["spec", "sessionAffinityConfig", "clientIP", "timeoutSeconds"]) {
                None => errors.required(&seconds, when),
                Some(n) if !(1..=MAX_AFFINITY_SECONDS).contains(&n) => {
                    errors.invalid(&seconds, n, "must be greater than 0 and less than 86400");
                }
                Some(_) => {}
            }
        }
        _ => {}
    }
}

/// A list of strings as messages show it.
pub(super) fn shown_list(service: &Value, field: &str) -> Raw {
    Raw(spec(service, field).map_or("null".to_owned(), Value::to_string))
}

/// Whether addresses, families and policy fit together. Also asked before any address is allocated.
pub(super) fn check_cluster_ips(object: &Value, errors: &mut Errors) {
    if kind_of(object) == "ExternalName" {
        return;
    }
    let root = Path::new("spec");
    let path = root.child("clusterIPs");
    let texts: Vec<&str> = object.list_at(&["spec", "clusterIPs"]).iter().filter_map(Value::as_str).collect();
    let families: Vec<&str> = object.list_at(&["spec", "ipFamilies"]).iter().filter_map(Value::as_str).collect();
    let shown = || shown_list(object, "clusterIPs");
    match (object.text_at(&["spec", "clusterIP"]), texts.first()) {
        ("", Some(_)) => errors.invalid(&path, shown(), "must be empty when `clusterIP` is not specified"),
        ("", None) => {}
        (_, None) => errors.required(&path, ""),
        (single, Some(first)) if single != *first => {
            errors.invalid(&path, shown(), "first value must match `clusterIP`");
        }
        _ => {}
    }
    let family_list = root.child("ipFamilies");
    for (i, family) in families.iter().enumerate() {
        if !FAMILIES.contains(family) {
            errors.not_supported(&family_list.index(i), family, FAMILIES);
        }
        if families[..i].contains(family) {
            errors.duplicate(&family_list.index(i), family);
        }
    }
    if let Some(policy) = spec(object, "ipFamilyPolicy").and_then(Value::as_str)
        && !FAMILY_POLICIES.contains(&policy)
    {
        errors.not_supported(&root.child("ipFamilyPolicy"), policy, FAMILY_POLICIES);
    }
    let before = errors.0.len();
    for (i, ip) in texts.iter().enumerate() {
        if i == 0 && *ip == "None" {
            if texts.len() > 1 {
                errors.invalid(&path, shown(), "'None' must be the first and only value");
            }
            continue;
        }
        names::ip(errors, &path.index(i), ip);
    }
    let wrong = errors.0.len() > before;
    if texts.len() > 2 {
        errors.invalid(&path, shown(), "may only hold up to 2 values");
    }
    if wrong {
        return;
    }
    let is_v6 = |ip: &str| ip.contains(':');
    if texts.len() > 1 {
        let v6 = texts.iter().filter(|ip| is_v6(ip)).count();
        if v6 == 0 || v6 == texts.len() {
            errors.invalid(&path, shown(), "may specify no more than one IP for each IP family");
        }
    }
    if !headless(object) {
        for (i, (ip, family)) in texts.iter().zip(&families).enumerate() {
            if FAMILIES.contains(family) && is_v6(ip) != (*family == "IPv6") {
                let detail = format!("expected an {family} value as indicated by `ipFamilies[{i}]`");
                errors.invalid(&path.index(i), ip, detail);
            }
        }
    }
}

fn check_source_ranges(object: &Value, kind: &str, errors: &mut Errors) {
    const ONLY: &str = "may only be used when `type` is 'LoadBalancer'";
    let root = Path::new("spec");
    let ranges = object.list_at(&["spec", "loadBalancerSourceRanges"]);
    if !ranges.is_empty() {
        let path = root.child("LoadBalancerSourceRanges");
        if kind != "LoadBalancer" {
            errors.forbidden(&path, ONLY);
        }
        for (i, range) in ranges.iter().enumerate() {
            names::cidr(errors, &path.index(i), range.as_str().unwrap_or_default().trim());
        }
    } else if let Some(text) = object.at(&["metadata", "annotations", SOURCE_RANGES_ANNOTATION]).and_then(Value::as_str)
    {
        let metadata = Path::new("metadata");
        let annotations = metadata.child("annotations");
        let path = annotations.key(SOURCE_RANGES_ANNOTATION);
        if kind != "LoadBalancer" {
            errors.forbidden(&path, ONLY);
        }
        if !text.trim().is_empty() {
            text.split(',').for_each(|range| names::cidr(errors, &path, range.trim()));
        }
    }
}

fn check_traffic(object: &Value, errors: &mut Errors) {
    let root = Path::new("spec");
    let policy = object.text_at(&["spec", "externalTrafficPolicy"]);
    let path = root.child("externalTrafficPolicy");
    match (external(object), policy) {
        (false, "") => {}
        (false, _) => errors.invalid(&path, policy, "may only be set for externally-accessible services"),
        (true, "") => errors.required(&path, ""),
        (true, _) if !TRAFFIC_POLICIES.contains(&policy) => errors.not_supported(&path, policy, TRAFFIC_POLICIES),
        (true, _) => {}
    }
    let port = object.int_at(&["spec", "healthCheckNodePort"]).unwrap_or_default();
    let path = root.child("healthCheckNodePort");
    match (needs_health_check(object), port) {
        (false, 0) => {}
        (false, _) => errors.invalid(
            &path,
            port,
            "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'",
        ),
        (true, 0) => errors.required(&path, ""),
        (true, _) => names::port_number(errors, &path, port),
    }
    let path = root.child("internalTrafficPolicy");
    match spec(object, "internalTrafficPolicy").and_then(Value::as_str) {
        None if known_clustered(object) => errors.required(&path, ""),
        Some(policy) if !TRAFFIC_POLICIES.contains(&policy) => errors.not_supported(&path, policy, TRAFFIC_POLICIES),
        _ => {}
    }
    if let Some(distribution) = spec(object, "trafficDistribution").and_then(Value::as_str)
        && !DISTRIBUTIONS.contains(&distribution)
    {
        errors.not_supported(&root.child("trafficDistribution"), distribution, DISTRIBUTIONS);
    }
}

const ONCE: &str = "may not change once set";

/// A cluster address stays for the life of the service; only the second one may come and go.
fn check_address_change(object: &Value, old: &Value, errors: &mut Errors) {
    if kind_of(object) == "ExternalName" || kind_of(old) == "ExternalName" || headless(object) && headless(old) {
        return;
    }
    let root = Path::new("spec");
    let path = root.child("clusterIPs");
    let (new, before) = (object.list_at(&["spec", "clusterIPs"]), old.list_at(&["spec", "clusterIPs"]));
    let shown = || shown_list(object, "clusterIPs");
    if new.len() == before.len() {
        for (i, _) in before.iter().zip(new).enumerate().filter(|(_, (a, b))| a != b) {
            errors.invalid(&path.index(i), shown(), ONCE);
        }
        return;
    }
    if let (Some(a), Some(b)) = (before.first(), new.first())
        && a != b
    {
        errors.invalid(&path.index(0), shown(), ONCE);
    }
    if new.len() < before.len() {
        if new.is_empty() {
            errors.invalid(&path.index(0), shown(), "primary clusterIP can not be unset");
        }
        check_release(object, new.len(), "clusterIP", errors);
    }
}

fn check_release(object: &Value, left: usize, what: &str, errors: &mut Errors) {
    let root = Path::new("spec");
    if left == 1 && object.text_at(&["spec", "ipFamilyPolicy"]) != "SingleStack" {
        let policy = spec(object, "ipFamilyPolicy").map_or("null".to_owned(), Value::to_string);
        let detail = format!("must be set to 'SingleStack' when releasing the secondary {what}");
        errors.invalid(&root.child("ipFamilyPolicy"), Raw(policy), detail);
    }
}

fn check_family_change(object: &Value, old: &Value, errors: &mut Errors) {
    let external_name = kind_of(object) == "ExternalName" || kind_of(old) == "ExternalName";
    if external_name || headless(object) || headless(old) {
        return;
    }
    let root = Path::new("spec");
    let path = root.child("ipFamilies");
    let (new, before) = (object.list_at(&["spec", "ipFamilies"]), old.list_at(&["spec", "ipFamilies"]));
    if new.len() == before.len() {
        for _ in before.iter().zip(new).filter(|(a, b)| a != b) {
            errors.invalid(&path.index(0), shown_list(object, "ipFamilies"), ONCE);
        }
        return;
    }
    if new.len() < before.len() && object.list_at(&["spec", "clusterIPs"]).is_empty() {
        errors.invalid(&path.index(0), shown_list(object, "ipFamilies"), "primary ipFamily can not be unset");
    }
    if let (Some(a), Some(b)) = (before.first(), new.first())
        && a != b
    {
        errors.invalid(&path.index(0), shown_list(object, "clusterIPs"), ONCE);
    }
    if new.len() < before.len() {
        check_release(object, new.len(), "ipFamily", errors);
    }
}

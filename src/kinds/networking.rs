//! networking.k8s.io: ingresses and their classes, network policies, service address ranges.

use serde_json::{Value, json};

use super::go_shape::{self, Part, Shape};
use super::meta;
use super::names;
use super::{Kind, NameForm};
use crate::field::{Errors, Path, Raw};
use crate::object::Fields;

const GROUP: &str = "networking.k8s.io";

pub static KINDS: &[&dyn Kind] = &[&Ingress, &IngressClass, &NetworkPolicy, &IpAddress, &ServiceCidr];

pub struct Ingress;

const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";
const PATH_TYPES: &[&str] = &["Exact", "ImplementationSpecific", "Prefix"];

impl Kind for Ingress {
    fn group(&self) -> &'static str {
        GROUP
    }

    fn kind(&self) -> &'static str {
        "Ingress"
    }

    fn counts_generation(&self) -> bool {
        true
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        check_ingress(object, errors);
        let annotation = object.at(&["metadata", "annotations", CLASS_ANNOTATION]).and_then(Value::as_str);
        let class = object.at(&["spec", "ingressClassName"]).and_then(Value::as_str);
        if let (Some(annotation), Some(class)) = (annotation, class)
            && annotation != class
        {
            let annotations = Path::new("annotations");
            errors.invalid(
                &annotations.child(CLASS_ANNOTATION),
                annotation,
                "must match `ingressClassName` when both are specified",
            );
        }
    }

    fn validate_update(&self, object: &Value, _old: &Value, errors: &mut Errors) {
        check_ingress(object, errors);
    }

    fn validate_status_update(&self, object: &Value, old: &Value, errors: &mut Errors) {
        let status = Path::new("status");
        let balancer = status.child("loadBalancer");
        let list = balancer.child("ingress");
        let known = old.list_at(&["status", "loadBalancer", "ingress"]);
        for (i, ingress) in object.list_at(&["status", "loadBalancer", "ingress"]).iter().enumerate() {
            let path = list.index(i);
            let ip = ingress.text_at(&["ip"]);
            if !ip.is_empty() && !known.iter().any(|k| k.text_at(&["ip"]) == ip) {
                names::ip(errors, &path.child("ip"), ip);
            }
            balancer_hostname(ingress, &path, errors);
        }
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        if old.is_none() && object.at(&["metadata", "annotations", CLASS_ANNOTATION]).is_some() {
            return vec![format!(
                "annotation \"{CLASS_ANNOTATION}\" is deprecated, please use 'spec.ingressClassName' instead"
            )];
        }
        Vec::new()
    }
}

/// The host name that a load balancer reports.
pub fn balancer_hostname(ingress: &Value, path: &Path<'_>, errors: &mut Errors) {
    let host = ingress.text_at(&["hostname"]);
    if host.is_empty() {
        return;
    }
    names::invalid_each(errors, &path.child("hostname"), host, names::dns_subdomain(host));
    if names::parse_ip(host).is_some() {
        errors.invalid(&path.child("hostname"), host, "must be a DNS name, not an IP address");
    }
}

fn check_ingress(object: &Value, errors: &mut Errors) {
    let spec = Path::new("spec");
    let rules = object.list_at(&["spec", "rules"]);
    let backend = object.at(&["spec", "defaultBackend"]);
    if rules.is_empty() && backend.is_none() {
        let detail = "either `defaultBackend` or `rules` must be specified";
        errors.invalid_for(&spec, &spec.child("rules"), Raw("null".into()), detail);
    }
    if let Some(backend) = backend {
        check_backend(backend, &spec.child("defaultBackend"), errors);
    }
    let list = spec.child("rules");
    for (i, rule) in rules.iter().enumerate() {
        check_rule(rule, &list.index(i), errors);
    }
    let list = spec.child("tls");
    for (i, tls) in object.list_at(&["spec", "tls"]).iter().enumerate() {
        let path = list.index(i);
        let hosts = path.child("hosts");
        for (j, host) in tls.list_at(&["hosts"]).iter().enumerate() {
            let host = host.as_str().unwrap_or_default();
            names::invalid_each(errors, &hosts.index(j), host, host_messages(host));
        }
        let secret = tls.text_at(&["secretName"]);
        if !secret.is_empty() {
            names::invalid_each(errors, &path.child("secretName"), secret, names::dns_subdomain(secret));
        }
    }
    if let Some(class) = object.at(&["spec", "ingressClassName"]).and_then(Value::as_str) {
        names::invalid_each(errors, &spec.child("ingressClassName"), class, names::dns_subdomain(class));
    }
}

fn host_messages(host: &str) -> Vec<String> {
    if host.contains('*') { names::wildcard_dns_subdomain(host) } else { names::dns_subdomain(host) }
}

fn check_rule(rule: &Value, path: &Path<'_>, errors: &mut Errors) {
    let host = rule.text_at(&["host"]);
    if !host.is_empty() {
        if names::parse_ip(host).is_some() {
            errors.invalid(&path.child("host"), host, "must be a DNS name, not an IP address");
        }
        names::invalid_each(errors, &path.child("host"), host, host_messages(host));
    }
    if rule.at(&["http"]).is_none() {
        return;
    }
    let http = path.child("http");
    let list = http.child("paths");
    let paths = rule.list_at(&["http", "paths"]);
    if paths.is_empty() {
        errors.required(&list, "");
    }
    for (i, item) in paths.iter().enumerate() {
        check_path(item, &list.index(i), errors);
    }
}

fn check_path(item: &Value, path: &Path<'_>, errors: &mut Errors) {
    let Some(kind) = item.at(&["pathType"]).and_then(Value::as_str) else {
        return errors.required(&path.child("pathType"), "pathType must be specified");
    };
    let text = item.text_at(&["path"]);
    let at = path.child("path");
    match kind {
        "Exact" | "Prefix" => {
            if !text.starts_with('/') {
                errors.invalid(&at, text, "must be an absolute path");
            }
            for part in ["//", "/./", "/../", "%2f", "%2F"].into_iter().filter(|part| text.contains(part)) {
                errors.invalid(&at, text, format!("must not contain '{part}'"));
            }
            for end in ["/..", "/."].into_iter().filter(|end| text.ends_with(end)) {
                errors.invalid(&at, text, format!("cannot end with '{end}'"));
            }
        }
        "ImplementationSpecific" => {
            if !text.is_empty() && !text.starts_with('/') {
                errors.invalid(&at, text, "must be an absolute path");
            }
        }
        _ => errors.not_supported(&path.child("pathType"), kind, PATH_TYPES),
    }
    check_backend(item.at(&["backend"]).unwrap_or(&json!({})), &path.child("backend"), errors);
}

fn check_backend(backend: &Value, path: &Path<'_>, errors: &mut Errors) {
    match (backend.at(&["resource"]), backend.at(&["service"])) {
        (Some(_), Some(_)) => errors.invalid(path, "", "cannot set both resource and service backends"),
        (Some(resource), None) => {
            check_reference(resource, &path.child("resource"), errors);
        }
        (None, None) => errors.invalid(path, "", "resource or service backend is required"),
        (None, Some(service)) => {
            let at = path.child("service");
            let name = service.text_at(&["name"]);
            if name.is_empty() {
                errors.required(&at.child("name"), "");
            } else {
                names::invalid_each(errors, &at.child("name"), name, names::dns_label(name));
            }
            let port = at.child("port");
            let port_name = service.text_at(&["port", "name"]);
            let number = service.int_at(&["port", "number"]).unwrap_or_default();
            match (port_name.is_empty(), number) {
                (false, n) if n != 0 => errors.invalid(path, "", "cannot set both port name & port number"),
                (false, _) => names::invalid_each(errors, &port.child("name"), port_name, names::port_name(port_name)),
                (true, 0) => errors.required(path, "port name or number is required"),
                (true, n) => names::port_number(errors, &port.child("number"), n),
            }
        }
    }
}

/// A reference to an object of any kind in the same namespace.
fn check_reference(reference: &Value, path: &Path<'_>, errors: &mut Errors) {
    if let Some(group) = reference.at(&["apiGroup"]).and_then(Value::as_str) {
        names::invalid_each(errors, &path.child("apiGroup"), group, names::dns_subdomain(group));
    }
    for field in ["kind", "name"] {
        required_segment(reference, field, path, errors);
    }
}

fn required_segment(object: &Value, field: &str, path: &Path<'_>, errors: &mut Errors) {
    let text = object.text_at(&[field]);
    if text.is_empty() {
        errors.required(&path.child(field), "");
    } else {
        names::invalid_each(errors, &path.child(field), text, names::path_segment(text));
    }
}

pub struct IngressClass;

impl Kind for IngressClass {
    fn group(&self) -> &'static str {
        GROUP
    }

    fn kind(&self) -> &'static str {
        "IngressClass"
    }

    fn has_status(&self) -> bool {
        false
    }

    fn counts_generation(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        if let Some(parameters) = object.at_mut(&["spec", "parameters"]) {
            parameters.set_default("scope", "Cluster");
        }
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        let spec = Path::new("spec");
        let controller = object.text_at(&["spec", "controller"]);
        let path = spec.child("controller");
        if controller.is_empty() {
            errors.required(&path, "");
        } else {
            if controller.len() > 250 {
                errors.too_long(&path, 250);
            }
            names::domain_prefixed_path(errors, &path, controller);
        }
        let Some(parameters) = object.at(&["spec", "parameters"]) else { return };
        let path = spec.child("parameters");
        check_reference(parameters, &path, errors);
        let namespace = parameters.at(&["namespace"]).and_then(Value::as_str);
        match (parameters.at(&["scope"]).and_then(Value::as_str), namespace) {
            (None, _) => errors.required(&path.child("scope"), ""),
            (Some("Namespace"), None) => {
                errors.required(&path.child("namespace"), "`parameters.scope` is set to 'Namespace'");
            }
            (Some("Namespace"), Some(namespace)) => {
                names::invalid_each(errors, &path.child("namespace"), namespace, names::dns_label(namespace));
            }
            (Some("Cluster"), Some(_)) => {
                errors.forbidden(&path.child("namespace"), "`parameters.scope` is set to 'Cluster'");
            }
            (Some("Cluster"), None) => {}
            (Some(scope), _) => errors.not_supported(&path.child("scope"), scope, &["Cluster", "Namespace"]),
        }
    }

    fn validate_update(&self, object: &Value, old: &Value, errors: &mut Errors) {
        let spec = Path::new("spec");
        let field = ["spec", "controller"];
        meta::immutable_text(errors, &spec.child("controller"), object.text_at(&field), old.text_at(&field));
        self.validate(object, errors);
    }
}

pub struct NetworkPolicy;

impl Kind for NetworkPolicy {
    fn group(&self) -> &'static str {
        GROUP
    }

    fn kind(&self) -> &'static str {
        "NetworkPolicy"
    }

    fn has_status(&self) -> bool {
        false
    }

    fn counts_generation(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        object.make_map(&["spec"]);
        if object.list_at(&["spec", "policyTypes"]).is_empty() {
            let egress = !object.list_at(&["spec", "egress"]).is_empty();
            object
                .set(&["spec", "policyTypes"], if egress { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) });
        }
        for direction in ["ingress", "egress"] {
            for rule in object.items_mut(&["spec", direction]) {
                for port in rule.items_mut(&["ports"]) {
                    port.set_default("protocol", "TCP");
                }
            }
        }
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        check_policy(object, &[], errors);
    }

    /// A CIDR that was accepted once stays acceptable, wherever in the policy it now stands.
    fn validate_update(&self, object: &Value, old: &Value, errors: &mut Errors) {
        let mut known = Vec::new();
        for (direction, peers) in DIRECTIONS {
            for rule in old.list_at(&["spec", direction]) {
                for peer in rule.list_at(&[peers]) {
                    known.push(peer.text_at(&["ipBlock", "cidr"]));
                    known.extend(peer.list_at(&["ipBlock", "except"]).iter().filter_map(Value::as_str));
                }
            }
        }
        check_policy(object, &known, errors);
    }

    fn warnings(&self, object: &Value, _old: Option<&Value>) -> Vec<String> {
        let mut warnings = Vec::new();
        for (direction, peers) in DIRECTIONS {
            for (i, rule) in object.list_at(&["spec", direction]).iter().enumerate() {
                for (j, peer) in rule.list_at(&[peers]).iter().enumerate() {
                    let path = format!("spec.{direction}[{i}].{peers}[{j}].ipBlock");
                    let cidr = peer.text_at(&["ipBlock", "cidr"]);
                    warnings.extend(names::spelling_warning(&format!("{path}.cidr"), cidr));
                    let except = peer.list_at(&["ipBlock", "except"]);
                    warnings.extend(names::spelling_warnings(&format!("{path}.except"), except));
                }
            }
        }
        warnings
    }

    fn meta_looks(&self) -> meta::MetaLooks {
        meta::MetaLooks { finalizers: true, change: true, whole: 0 }
    }
}

const DIRECTIONS: [(&str, &str); 2] = [("ingress", "from"), ("egress", "to")];

fn check_policy(object: &Value, known: &[&str], errors: &mut Errors) {
    let spec = Path::new("spec");
    if let Some(selector) = object.at(&["spec", "podSelector"]) {
        meta::label_selector(errors, &spec.child("podSelector"), selector);
    }
    for (direction, peers) in DIRECTIONS {
        let list = spec.child(direction);
        for (i, rule) in object.list_at(&["spec", direction]).iter().enumerate() {
            let path = list.index(i);
            let ports = path.child("ports");
            for (j, port) in rule.list_at(&["ports"]).iter().enumerate() {
                check_policy_port(port, &ports.index(j), errors);
            }
            let at = path.child(peers);
            for (j, peer) in rule.list_at(&[peers]).iter().enumerate() {
                check_peer(peer, known, &at.index(j), errors);
            }
        }
    }
    let types = object.list_at(&["spec", "policyTypes"]);
    let path = spec.child("policyTypes");
    if types.len() > 2 {
        return errors.invalid(&path, &object["spec"]["policyTypes"], "may not specify more than two policyTypes");
    }
    for (i, kind) in types.iter().enumerate() {
        let kind = kind.as_str().unwrap_or_default();
        if !matches!(kind, "Ingress" | "Egress") {
            errors.not_supported(&path.index(i), kind, &["Ingress", "Egress"]);
        }
    }
}

fn check_policy_port(port: &Value, path: &Path<'_>, errors: &mut Errors) {
    if let Some(protocol) = port.at(&["protocol"]).and_then(Value::as_str)
        && !matches!(protocol, "TCP" | "UDP" | "SCTP")
    {
        errors.not_supported(&path.child("protocol"), protocol, &["TCP", "UDP", "SCTP"]);
    }
    let end = port.int_at(&["endPort"]);
    let at = path.child("endPort");
    match port.at(&["port"]) {
        Some(Value::String(name)) => {
            if let Some(end) = end {
                errors.invalid(&at, end, "may not be specified when `port` is non-numeric");
            }
            names::invalid_each(errors, &path.child("port"), name, names::port_name(name));
        }
        Some(number) => {
            let number = number.as_i64().unwrap_or_default();
            names::port_number(errors, &path.child("port"), number);
            if let Some(end) = end {
                if end < number {
                    errors.invalid(&at, number, "must be greater than or equal to `port`");
                }
                names::port_number(errors, &at, end);
            }
        }
        None => {
            if let Some(end) = end {
                errors.invalid(&at, end, "may not be specified when `port` is not specified");
            }
        }
    }
}

fn check_peer(peer: &Value, known: &[&str], path: &Path<'_>, errors: &mut Errors) {
    let mut count = 0;
    for field in ["podSelector", "namespaceSelector"] {
        if let Some(selector) = peer.at(&[field]) {
            count += 1;
            meta::label_selector(errors, &path.child(field), selector);
        }
    }
    if let Some(block) = peer.at(&["ipBlock"]) {
        count += 1;
        check_ip_block(block, known, &path.child("ipBlock"), errors);
        if count > 1 {
            errors.forbidden(path, "may not specify both ipBlock and another peer");
        }
    }
    if count == 0 {
        errors.required(path, "must specify a peer");
    }
}

fn check_ip_block(block: &Value, known: &[&str], path: &Path<'_>, errors: &mut Errors) {
    let cidr = block.text_at(&["cidr"]);
    if cidr.is_empty() {
        return errors.required(&path.child("cidr"), "");
    }
    let check = |errors: &mut Errors, path: &Path<'_>, text: &str| {
        if !known.contains(&text) {
            names::cidr(errors, path, text);
        }
    };
    check(errors, &path.child("cidr"), cidr);
    let Some(outer) = names::parse_cidr(cidr) else { return };
    let list = path.child("except");
    for (i, except) in block.list_at(&["except"]).iter().enumerate() {
        let text = except.as_str().unwrap_or_default();
        check(errors, &list.index(i), text);
        let Some(inner) = names::parse_cidr(text) else { continue };
        if !outer.contains(&inner.network()) || outer.prefix_len() >= inner.prefix_len() {
            errors.invalid(&list.index(i), text, "must be a strict subset of `cidr`");
        }
    }
}

pub struct IpAddress;

const PARENT_REF: Shape = &[
    ("Group", "group", Part::Text),
    ("Resource", "resource", Part::Text),
    ("Namespace", "namespace", Part::Text),
    ("Name", "name", Part::Text),
];

impl Kind for IpAddress {
    fn group(&self) -> &'static str {
        GROUP
    }

    fn kind(&self) -> &'static str {
        "IPAddress"
    }

    fn name_form(&self) -> NameForm {
        NameForm::Own
    }

    fn generates_names(&self) -> bool {
        false
    }

    fn has_status(&self) -> bool {
        false
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        let metadata = Path::new("metadata");
        for field in ["generateName", "name"] {
            let text = object.text_at(&["metadata", field]);
            if !text.is_empty() {
                names::canonical_ip(errors, &metadata.child(field), text);
            }
        }
        let spec = Path::new("spec");
        let path = spec.child("parentRef");
        let Some(parent) = object.at(&["spec", "parentRef"]) else {
            return errors.required(&path, "");
        };
        let group = parent.text_at(&["group"]);
        if !group.is_empty() {
            names::invalid_each(errors, &path.child("group"), group, names::dns_subdomain(group));
        }
        for field in ["resource", "name"] {
            required_segment(parent, field, &path, errors);
        }
        let namespace = parent.text_at(&["namespace"]);
        if !namespace.is_empty() {
            names::invalid_each(errors, &path.child("namespace"), namespace, names::path_segment(namespace));
        }
    }

    fn validate_update(&self, object: &Value, old: &Value, errors: &mut Errors) {
        self.validate(object, errors);
        let field = ["spec", "parentRef"];
        if object.at(&field) != old.at(&field) {
            let spec = Path::new("spec");
            let shown = go_shape::pointer(object.at(&field), PARENT_REF);
            errors.invalid(&spec.child("parentRef"), shown, meta::FIELD_IMMUTABLE);
        }
    }
}

pub struct ServiceCidr;

impl ServiceCidr {
    fn check(object: &Value, errors: &mut Errors) {
        let spec = Path::new("spec");
        let path = spec.child("cidrs");
        let cidrs = object.list_at(&["spec", "cidrs"]);
        match cidrs.len() {
            0 => return errors.required(&path, "at least one CIDR required"),
            1 | 2 => {}
            _ => {
                let shown = go_shape::pointer(object.at(&["spec"]), &[("CIDRs", "cidrs", Part::Plain)]);
                return errors.invalid(&path, shown, "may only hold up to 2 values");
            }
        }
        for (i, cidr) in cidrs.iter().enumerate() {
            names::canonical_cidr(errors, &path.index(i), cidr.as_str().unwrap_or_default());
        }
        let family =
            |cidr: &Value| names::parse_cidr(cidr.as_str().unwrap_or_default()).map(|net| net.addr().is_ipv4());
        if let [first, second] = cidrs
            && let (Some(a), Some(b)) = (family(first), family(second))
            && a == b
        {
            errors.invalid(
                &path,
                &object["spec"]["cidrs"],
                "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64",
            );
        }
    }
}

impl Kind for ServiceCidr {
    fn group(&self) -> &'static str {
        GROUP
    }

    fn kind(&self) -> &'static str {
        "ServiceCIDR"
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        Self::check(object, errors);
    }

    /// The only change is to become dual-stack.
    fn validate_update(&self, object: &Value, old: &Value, errors: &mut Errors) {
        let spec = Path::new("spec");
        let path = spec.child("cidrs");
        let (new, old) = (object.list_at(&["spec", "cidrs"]), old.list_at(&["spec", "cidrs"]));
        let compared = match (old.len(), new.len()) {
            (a, b) if a == b => a,
            (1, 2) => 1,
            _ => {
                let shown = object.at(&["spec", "cidrs"]).map_or("null".to_owned(), Value::to_string);
                return errors.invalid(&path, Raw(shown), meta::FIELD_IMMUTABLE);
            }
        };
        for (i, (new, _)) in new.iter().zip(old).enumerate().take(compared).filter(|(_, (new, old))| new != old) {
            errors.invalid(&path.index(i), new, meta::FIELD_IMMUTABLE);
        }
        if new.len() > old.len() {
            Self::check(object, errors);
        }
    }

    fn meta_looks(&self) -> meta::MetaLooks {
        meta::MetaLooks { finalizers: true, change: true, whole: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(kind: &dyn Kind, object: Value) -> Vec<String> {
        let mut errors = Errors::default();
        kind.validate(&object, &mut errors);
        errors.0.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn ingress_paths_are_plain() {
        let ingress = |path: &str| {
            let backend = json!({"service": {"name": "s", "port": {"number": 80}}});
            json!({"spec": {"rules": [{"http": {"paths": [{"pathType": "Exact", "path": path, "backend": backend}]}}]}})
        };
        assert!(run(&Ingress, ingress("/a")).is_empty());
        assert_eq!(run(&Ingress, ingress("/a/../b")).len(), 1);
        assert_eq!(run(&Ingress, ingress("a//.")).len(), 3);
    }

    #[test]
    fn policy_blocks_nest() {
        let policy = |except: &str| json!({"spec": {"ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": [except]}}]}]}});
        assert!(run(&NetworkPolicy, policy("10.1.0.0/16")).is_empty());
        let path = "spec.ingress[0].from[0].ipBlock.except[0]";
        assert_eq!(
            run(&NetworkPolicy, policy("11.0.0.0/16")),
            [format!("{path}: Invalid value: \"11.0.0.0/16\": must be a strict subset of `cidr`")]
        );
    }

    #[test]
    fn an_address_stays_with_its_parent() {
        let parent = |name: &str| json!({"metadata": {"name": "10.0.0.1"}, "spec": {"parentRef": {"resource": "services", "name": name}}});
        let mut errors = Errors::default();
        IpAddress.validate_update(&parent("a"), &parent("b"), &mut errors);
        assert_eq!(errors.0[0].value, r#"{"Group":"","Resource":"services","Namespace":"","Name":"a"}"#);
        assert!(run(&IpAddress, parent("a")).is_empty());
    }
}

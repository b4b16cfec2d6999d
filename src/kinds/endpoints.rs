//! Endpoints and EndpointSlice.

use serde_json::Value;

use super::Kind;
use super::meta;
use super::names;
use crate::field::{Errors, Path};
use crate::object::Fields;

pub static KINDS: &[&dyn Kind] = &[&Endpoints, &EndpointSlice];

pub const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];

/// Addresses that make no sense as the far end of a service, or that a node keeps for itself.
pub fn not_special(errors: &mut Errors, path: &Path<'_>, text: &str) {
    use std::net::IpAddr;
    let Some(ip) = names::parse_ip(text) else {
        return errors.invalid(path, text, "must be a valid IP address");
    };
    let (link_local, local_multicast) = match ip {
        IpAddr::V4(v4) => (v4.is_link_local(), v4.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(v6) => {
            let first = v6.segments()[0];
            (first & 0xffc0 == 0xfe80, first & 0xff0f == 0xff02)
        }
    };
    if ip.is_unspecified() {
        errors.invalid(path, text, format!("may not be unspecified ({text})"));
    }
    for (wrong, what) in [
        (ip.is_loopback(), "may not be in the loopback range (127.0.0.0/8, ::1/128)"),
        (link_local, "may not be in the link-local range (169.254.0.0/16, fe80::/10)"),
        (local_multicast, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"),
    ] {
        if wrong {
            errors.invalid(path, text, what);
        }
    }
}

fn check_protocol(port: &Value, path: &Path<'_>, errors: &mut Errors) {
    match port.at(&["protocol"]).and_then(Value::as_str) {
        None | Some("") => errors.required(&path.child("protocol"), ""),
        Some(protocol) if !PROTOCOLS.contains(&protocol) => {
            errors.not_supported(&path.child("protocol"), protocol, PROTOCOLS);
        }
        Some(_) => {}
    }
}

fn check_app_protocol(port: &Value, path: &Path<'_>, errors: &mut Errors) {
    if let Some(text) = port.at(&["appProtocol"]).and_then(Value::as_str) {
        names::invalid_each(errors, &path.child("appProtocol"), text, names::qualified_name(text));
    }
}

pub struct Endpoints;

impl Kind for Endpoints {
    fn group(&self) -> &'static str {
        ""
    }

    fn kind(&self) -> &'static str {
        "Endpoints"
    }

    fn has_status(&self) -> bool {
        false
    }

    fn create_on_update(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        for subset in object.items_mut(&["subsets"]) {
            for port in subset.items_mut(&["ports"]) {
                port.set_default("protocol", "TCP");
            }
        }
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        let list = Path::new("subsets");
        for (i, subset) in object.list_at(&["subsets"]).iter().enumerate() {
            let path = list.index(i);
            if ["addresses", "notReadyAddresses"].iter().all(|f| subset.list_at(&[f]).is_empty()) {
                errors.required(&path, "must specify `addresses` or `notReadyAddresses`");
            }
            for field in ["addresses", "notReadyAddresses"] {
                let at = path.child(field);
                for (j, address) in subset.list_at(&[field]).iter().enumerate() {
                    check_address(address, &at.index(j), errors);
                }
            }
            let ports = subset.list_at(&["ports"]);
            let at = path.child("ports");
            for (j, port) in ports.iter().enumerate() {
                let path = at.index(j);
                let name = port.text_at(&["name"]);
                if name.is_empty() && ports.len() > 1 {
                    errors.required(&path.child("name"), "");
                } else if !name.is_empty() {
                    names::invalid_each(errors, &path.child("name"), name, names::dns_label(name));
                }
                names::port_number(errors, &path.child("port"), port.int_at(&["port"]).unwrap_or_default());
                check_protocol(port, &path, errors);
                check_app_protocol(port, &path, errors);
            }
        }
    }

    fn warnings(&self, object: &Value, _old: Option<&Value>) -> Vec<String> {
        let mut warnings = Vec::new();
        for (i, subset) in object.list_at(&["subsets"]).iter().enumerate() {
            for field in ["addresses", "notReadyAddresses"] {
                for (j, address) in subset.list_at(&[field]).iter().enumerate() {
                    let path = format!("subsets[{i}].{field}[{j}].ip");
                    warnings.extend(names::spelling_warning(&path, address.text_at(&["ip"])));
                }
            }
        }
        warnings
    }

    fn deprecated(&self) -> Option<&'static str> {
        Some("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice")
    }
}

fn check_address(address: &Value, path: &Path<'_>, errors: &mut Errors) {
    let ip = address.text_at(&["ip"]);
    names::ip(errors, &path.child("ip"), ip);
    let host = address.text_at(&["hostname"]);
    if !host.is_empty() {
        names::invalid_each(errors, &path.child("hostname"), host, names::dns_label(host));
    }
    if let Some(node) = address.at(&["nodeName"]).and_then(Value::as_str) {
        names::invalid_each(errors, &path.child("nodeName"), node, names::dns_subdomain(node));
    }
    not_special(errors, &path.child("ip"), ip);
}

pub struct EndpointSlice;

const ADDRESS_TYPES: &[&str] = &["FQDN", "IPv4", "IPv6"];
const MAX_ENDPOINTS: usize = 1000;
const MAX_ADDRESSES: usize = 100;
const MAX_PORTS: usize = 20000;
const MAX_HINTS: usize = 8;
const MAX_TOPOLOGY_LABELS: usize = 16;

impl Kind for EndpointSlice {
    fn group(&self) -> &'static str {
        "discovery.k8s.io"
    }

    fn kind(&self) -> &'static str {
        "EndpointSlice"
    }

    fn has_status(&self) -> bool {
        false
    }

    fn counts_generation(&self) -> bool {
        true
    }

    /// The labels say which service the endpoints are for, so they count as content.
    fn generation_moves(&self, object: &Value, old: &Value) -> bool {
        ["endpoints", "ports", "addressType"].iter().any(|field| object.at(&[field]) != old.at(&[field]))
            || object.at(&["metadata", "labels"]) != old.at(&["metadata", "labels"])
    }

    fn default(&self, object: &mut Value) {
        for port in object.items_mut(&["ports"]) {
            port.set_default("name", "");
            port.set_default("protocol", "TCP");
        }
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        let kind = object.text_at(&["addressType"]);
        if kind.is_empty() {
            errors.required(&Path::new("addressType"), "");
        } else if !ADDRESS_TYPES.contains(&kind) {
            errors.not_supported(&Path::new("addressType"), kind, ADDRESS_TYPES);
        }
        let endpoints = object.list_at(&["endpoints"]);
        let list = Path::new("endpoints");
        if endpoints.len() > MAX_ENDPOINTS {
            errors.too_many(&list, endpoints.len(), MAX_ENDPOINTS);
        } else {
            for (i, endpoint) in endpoints.iter().enumerate() {
                check_endpoint(endpoint, kind, &list.index(i), errors);
            }
        }
        check_slice_ports(object, errors);
    }

    fn validate_update(&self, object: &Value, old: &Value, errors: &mut Errors) {
        self.validate(object, errors);
        let field = "addressType";
        meta::immutable_text(errors, &Path::new(field), object.text_at(&[field]), old.text_at(&[field]));
    }

    fn warnings(&self, object: &Value, _old: Option<&Value>) -> Vec<String> {
        let mut warnings = Vec::new();
        if object.text_at(&["addressType"]) == "FQDN" {
            warnings.push("spec.addressType: FQDN endpoints are deprecated".to_owned());
        }
        for (i, endpoint) in object.list_at(&["endpoints"]).iter().enumerate() {
            let path = format!("endpoints[{i}].addresses");
            warnings.extend(names::spelling_warnings(&path, endpoint.list_at(&["addresses"])));
        }
        warnings
    }

    fn meta_looks(&self) -> meta::MetaLooks {
        meta::MetaLooks { finalizers: true, change: false, whole: 1 }
    }
}

fn check_endpoint(endpoint: &Value, kind: &str, path: &Path<'_>, errors: &mut Errors) {
    let addresses = endpoint.list_at(&["addresses"]);
    let list = path.child("addresses");
    if addresses.is_empty() {
        errors.required(&list, "must contain at least 1 address");
    } else if addresses.len() > MAX_ADDRESSES {
        errors.too_many(&list, addresses.len(), MAX_ADDRESSES);
    }
    for (i, address) in addresses.iter().enumerate() {
        let text = address.as_str().unwrap_or_default();
        let at = list.index(i);
        match kind {
            "IPv4" | "IPv6" => {
                let before = errors.0.len();
                names::ip(errors, &at, text);
                if errors.0.len() > before {
                    continue;
                }
                if names::parse_ip(text).is_some_and(|ip| ip.is_ipv4() != (kind == "IPv4")) {
                    errors.invalid(&at, text, format!("must be a valid {kind} address"));
                }
                not_special(errors, &at, text);
            }
            "FQDN" => names::fully_qualified_domain_name(errors, &at, text),
            _ => {}
        }
    }
    if let Some(node) = endpoint.at(&["nodeName"]).and_then(Value::as_str) {
        names::invalid_each(errors, &path.child("nodeName"), node, names::dns_subdomain(node));
    }
    if let Some(topology) = endpoint.map_at(&["deprecatedTopology"]) {
        let at = path.child("deprecatedTopology");
        if topology.len() > MAX_TOPOLOGY_LABELS {
            errors.too_many(&at, topology.len(), MAX_TOPOLOGY_LABELS);
        }
        meta::labels(errors, &at, &endpoint["deprecatedTopology"]);
    }
    if let Some(host) = endpoint.at(&["hostname"]).and_then(Value::as_str) {
        names::invalid_each(errors, &path.child("hostname"), host, names::dns_label(host));
    }
    let hints = path.child("hints");
    let checks: [(&str, names::Check); 2] = [("forZones", names::label_value), ("forNodes", names::dns_subdomain)];
    for (field, check) in checks {
        let list = hints.child(field);
        let items = endpoint.list_at(&["hints", field]);
        if items.len() > MAX_HINTS {
            errors.too_many(&list, items.len(), MAX_HINTS);
            continue;
        }
        for (i, item) in items.iter().enumerate() {
            let name = item.text_at(&["name"]);
            let at = list.index(i);
            if items[..i].iter().any(|other| other.text_at(&["name"]) == name) {
                errors.duplicate(&at.child("name"), name);
            }
            names::invalid_each(errors, &at.child("name"), name, check(name));
        }
    }
}

fn check_slice_ports(object: &Value, errors: &mut Errors) {
    let ports = object.list_at(&["ports"]);
    let list = Path::new("ports");
    if ports.len() > MAX_PORTS {
        return errors.too_many(&list, ports.len(), MAX_PORTS);
    }
    for (i, port) in ports.iter().enumerate() {
        let path = list.index(i);
        let name = port.text_at(&["name"]);
        if !name.is_empty() {
            names::invalid_each(errors, &path.child("name"), name, names::dns_label(name));
        }
        if ports[..i].iter().any(|other| other.text_at(&["name"]) == name) {
            errors.duplicate(&path.child("name"), name);
        }
        check_protocol(port, &path, errors);
        check_app_protocol(port, &path, errors);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn special_addresses_are_refused() {
        let say = |ip: &str| {
            let mut errors = Errors::default();
            not_special(&mut errors, &Path::new("ip"), ip);
            errors.0.into_iter().map(|e| e.detail).collect::<Vec<_>>()
        };
        assert!(say("10.0.0.1").is_empty());
        assert!(say("224.0.1.1").is_empty());
        assert_eq!(say("::"), ["may not be unspecified (::)"]);
        for ip in ["127.0.0.1", "::1", "169.254.0.1", "fe80::1", "224.0.0.1", "ff02::1"] {
            assert_eq!(say(ip).len(), 1, "{ip}");
        }
    }

    #[test]
    fn labels_move_the_generation_of_a_slice() {
        let slice = |labels: Value, note: &str| json!({"metadata": {"labels": labels, "annotations": {"a": note}}, "addressType": "IPv4"});
        let old = slice(json!({"a": "b"}), "x");
        assert!(EndpointSlice.generation_moves(&slice(json!({"a": "c"}), "x"), &old));
        assert!(!EndpointSlice.generation_moves(&slice(json!({"a": "b"}), "y"), &old));
    }

    #[test]
    fn a_subset_has_addresses_and_its_ports_have_names() {
        let mut errors = Errors::default();
        let mut endpoints = json!({"subsets": [{"ports": [{"port": 80}, {"port": 0, "name": "b"}]}]});
        Endpoints.default(&mut endpoints);
        Endpoints.validate(&endpoints, &mut errors);
        let fields: Vec<&str> = errors.0.iter().map(|e| e.field.as_str()).collect();
        assert_eq!(fields, ["subsets[0]", "subsets[0].ports[0].name", "subsets[0].ports[1].port"]);
    }
}

//! Services and what leads to them.

use std::collections::BTreeSet;

use serde_json::Value;

use super::Cells;
use super::cells::*;
use crate::object::Fields;

const LOAD_BALANCER: &[&str] = &["status", "loadBalancer", "ingress"];

/// The addresses of a load balancer, an address before a host's name.
fn load_balancer(object: &Value) -> BTreeSet<&str> {
    let points = object.list_at(LOAD_BALANCER).iter();
    points.map(|point| or(point.text_at(&["ip"]), point.text_at(&["hostname"]))).filter(|a| !a.is_empty()).collect()
}

pub fn service(object: &Value) -> Cells {
    let kind = object.text_at(&["spec", "type"]);
    let own = object.list_at(&["spec", "externalIPs"]).iter().filter_map(Value::as_str);
    let external: Vec<&str> = match kind {
        "ExternalName" => vec![object.text_at(&["spec", "externalName"])],
        "LoadBalancer" => load_balancer(object).into_iter().chain(own).collect(),
        _ => own.collect(),
    };
    let none = match kind {
        "ExternalName" => "",
        "LoadBalancer" => "<pending>",
        "ClusterIP" | "NodePort" => NONE,
        _ => UNKNOWN,
    };
    let ports = object.list_at(&["spec", "ports"]).iter().map(|port| {
        let (number, protocol) = (integer(port, &["port"]), port.text_at(&["protocol"]));
        match integer(port, &["nodePort"]) {
            node @ 1.. => format!("{number}:{node}/{protocol}"),
            _ => format!("{number}/{protocol}"),
        }
    });
    let ports = ports.collect::<Vec<_>>().join(",");
    vec![
        name(object),
        kind.into(),
        object.list_at(&["spec", "clusterIPs"]).first().cloned().unwrap_or_else(|| NONE.into()),
        or(&external.join(","), none).into(),
        or(&ports, NONE).into(),
        age(object),
        labels(object, &["spec", "selector"]).into(),
    ]
}

/// `10.1.1.1:80`, `[fd00::1]:80`
fn host_port(host: &str, port: i64) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

pub fn endpoints(object: &Value) -> Cells {
    let mut shown = Vec::new();
    for subset in object.list_at(&["subsets"]) {
        let hosts = || subset.list_at(&["addresses"]).iter().map(|address| address.text_at(&["ip"]));
        let ports = subset.list_at(&["ports"]);
        if ports.is_empty() {
            shown.extend(hosts().map(str::to_owned));
        }
        for port in ports {
            shown.extend(hosts().map(|host| host_port(host, integer(port, &["port"]))));
        }
    }
    let none = if object.list_at(&["subsets"]).is_empty() { NONE } else { "" };
    vec![name(object), or(&first_of(3, &shown, ","), none).into(), age(object)]
}

pub fn endpoint_slice(object: &Value) -> Cells {
    let ports = object.list_at(&["ports"]).iter();
    let ports: Vec<String> = ports.map(|port| shown(port.at(&["port"]).or_else(|| port.at(&["name"])), "*")).collect();
    let endpoints = object.list_at(&["endpoints"]).iter();
    let addresses = endpoints.flat_map(|endpoint| endpoint.list_at(&["addresses"])).filter_map(Value::as_str);
    let addresses: Vec<String> = addresses.map(str::to_owned).collect();
    vec![
        name(object),
        text(object, &["addressType"]),
        or(&first_of(3, &ports, ","), UNSET).into(),
        or(&first_of(3, &addresses, ","), UNSET).into(),
        age(object),
    ]
}

pub fn ingress(object: &Value) -> Cells {
    let ports = if object.list_at(&["spec", "tls"]).is_empty() { "80" } else { "80, 443" };
    vec![
        name(object),
        shown(object.at(&["spec", "ingressClassName"]), NONE).into(),
        hosts(object.list_at(&["spec", "rules"])).into(),
        Vec::from_iter(load_balancer(object)).join(",").into(),
        ports.into(),
        age(object),
    ]
}

/// The first three hosts. Rules without one aren't shown, though what is left out is counted by rules.
fn hosts(rules: &[Value]) -> String {
    let mut named = Vec::new();
    let mut more = false;
    for rule in rules {
        more |= named.len() == 3;
        let host = rule.text_at(&["host"]);
        if !more && !host.is_empty() {
            named.push(host);
        }
    }
    match named.join(",") {
        shown if more => format!("{shown} + {} more...", rules.len() - 3),
        shown => or(&shown, "*").to_owned(),
    }
}

pub fn ingress_class(object: &Value) -> Cells {
    let parameters = object.at(&["spec", "parameters"]).map_or_else(
        || NONE.to_owned(),
        |parameters| {
            let group =
                parameters.at(&["apiGroup"]).map_or_else(String::new, |group| format!(".{}", shown(Some(group), "")));
            format!("{}{group}/{}", parameters.text_at(&["kind"]), parameters.text_at(&["name"]))
        },
    );
    vec![name(object), text(object, &["spec", "controller"]), parameters.into(), age(object)]
}

pub fn network_policy(object: &Value) -> Cells {
    vec![name(object), label_selector(object, &["spec", "podSelector"]).into(), age(object)]
}

pub fn service_cidr(object: &Value) -> Cells {
    vec![name(object), joined(object.list_at(&["spec", "cidrs"]), ",").into(), age(object)]
}

/// kube-apiserver has no column for the age of these, but a cell.
pub fn ip_address(object: &Value) -> Cells {
    let parent = object.at(&["spec", "parentRef"]).map_or_else(
        || NONE.to_owned(),
        |parent| {
            let text = |field| parent.text_at(&[field]);
            let mut shown = match text("group") {
                "" => text("resource").to_lowercase(),
                group => format!("{}.{group}", text("resource")).to_lowercase(),
            };
            for part in [text("namespace"), text("name")].iter().filter(|part| !part.is_empty()) {
                shown.push('/');
                shown.push_str(part);
            }
            shown
        },
    );
    vec![name(object), parent.into(), age(object)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn endpoints_are_cut_after_three() {
        let object = json!({ "subsets": [
            { "addresses": [{ "ip": "10.1.1.1" }, { "ip": "fd00::1" }], "ports": [{ "port": 80 }, { "port": 81 }] },
        ] });
        assert_eq!(endpoints(&object)[1], "10.1.1.1:80,[fd00::1]:80,10.1.1.1:81 + 1 more...");
        assert_eq!(endpoints(&json!({}))[1], "<none>");
    }

    #[test]
    fn hosts_are_cut_after_three() {
        let rules = |hosts: &[&str]| hosts.iter().map(|host| json!({ "host": host })).collect::<Vec<_>>();
        assert_eq!(hosts(&rules(&["a", "", "b"])), "a,b");
        assert_eq!(hosts(&rules(&["a", "b", "c", "d", "e"])), "a,b,c + 2 more...");
        assert_eq!(hosts(&rules(&[""])), "*");
    }
}

//! Connections to what runs on nodes: logs, commands, ports and proxies. What can be told without the node is told here:
//! whether the object is there, whether the options make sense, whether anything runs at all.

use std::ops::Bound;

use kontiki_storage::View;
use serde_json::Value;

use super::list::int;
use super::{Answer, Request, decode_stored, place};
use crate::field::{Errors, Path, go_quote};
use crate::object::Fields;
use crate::status::{ApiError, Result};
use crate::time;

/// The subresources that connect.
pub const CONNECTIONS: &[&str] = &["attach", "exec", "log", "portforward", "proxy"];

pub async fn connect(request: &mut Request) -> Result<Answer> {
    let log = request.info.subresource == "log";
    if log {
        check_log_options(request)?;
    }
    let id = request.name();
    let proxied = request.info.subresource == "proxy";
    let (name, port) = match split(id) {
        Some(parts) if proxied => parts,
        None if proxied => {
            let kind = &request.resource.singular;
            return Err(ApiError::bad_request(format!("invalid {kind} request {}", go_quote(id))));
        }
        _ => (id, ""),
    };
    let view = request.fresh_view().await?;
    let resource = &request.resource;
    let record = view.get(place(resource, request.namespace(), name)?.as_str());
    let record = record.ok_or_else(|| ApiError::not_found(&resource.group, &resource.plural, name))?;
    let object = decode_stored(record)?;
    match (&*resource.kind, request.info.subresource.as_str()) {
        ("Service", "proxy") => check_endpoints(&view, request.namespace(), &object, name, port)?,
        ("Pod", "proxy") if object.text_at(&["status", "podIP"]).is_empty() => {
            return Err(ApiError::bad_request("address not allowed"));
        }
        ("Pod", subresource @ ("log" | "exec" | "attach" | "portforward")) => {
            if subresource != "portforward" {
                check_container(&object, name, request.query.text("container"))?;
            }
            if object.text_at(&["spec", "nodeName"]).is_empty() {
                if log {
                    return Ok(Answer::Nothing);
                }
                return Err(ApiError::bad_request(format!("pod {name} does not have a host assigned")));
            }
        }
        _ => {}
    }
    Err(ApiError::unavailable("this server does not reach nodes and their pods"))
}

/// Name and port of `name`, `name:port` or `scheme:name:port`, as what is proxied to is called.
fn split(id: &str) -> Option<(&str, &str)> {
    let mut parts = id.split(':');
    let (scheme, name, port) = match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(name), None, ..) => ("", name, ""),
        (Some(name), Some(port), None, _) => ("", name, port),
        (Some(scheme), Some(name), Some(port), None) => (scheme, name, port),
        _ => return None,
    };
    (!name.is_empty() && matches!(scheme, "" | "http" | "https")).then_some((name, port))
}

/// Something must stand behind the port of the service. A port may be called by its number or by its name.
fn check_endpoints(view: &View, namespace: &str, service: &Value, name: &str, port: &str) -> Result<()> {
    let named = |port: &Value| port.text_at(&["name"]).to_owned();
    let port = match port.parse::<i64>() {
        Err(_) => port.to_owned(),
        Ok(number) => {
            let ports = service.list_at(&["spec", "ports"]).iter();
            let found = ports.into_iter().find(|port| port.int_at(&["port"]) == Some(number)).map(named);
            let why = || format!("no service port {number} found for service {}", go_quote(name));
            found.ok_or_else(|| ApiError::unavailable(why()))?
        }
    };
    let slices = view.range(&format!("endpointslices.discovery.k8s.io/{namespace}/"), Bound::Unbounded);
    for record in slices {
        let slice = decode_stored(record)?;
        let its = slice.text_at(&["metadata", "labels", "kubernetes.io/service-name"]) == name;
        let there = || slice.list_at(&["ports"]).iter().any(|other| named(other) == port);
        let ready = |endpoint: &Value| endpoint.at(&["conditions", "ready"]) != Some(&Value::Bool(false));
        if its && there() && slice.list_at(&["endpoints"]).iter().any(ready) {
            return Ok(());
        }
    }
    Err(ApiError::unavailable(format!("no endpoints available for service {}", go_quote(name))))
}

fn check_log_options(request: &Request) -> Result<()> {
    let query = &request.query;
    let number = |option: &str| match query.get(option) {
        Some(text) => int(text).map(Some),
        None => Ok(None),
    };
    // They are read in one order and checked in another.
    let since = number("sinceSeconds")?;
    if let Some(text) = query.get("sinceTime").filter(|text| !matches!(*text, "" | "null")) {
        time::parse(text).map_err(ApiError::bad_request)?;
    }
    let (tail, limit) = (number("tailLines")?, number("limitBytes")?);
    let mut errors = Errors::default();
    for (option, number, least, detail) in [
        ("tailLines", tail, 0, "must be greater than or equal to 0"),
        ("limitBytes", limit, 1, "must be greater than 0"),
        ("sinceSeconds", since, 1, "must be greater than 0"),
    ] {
        if let Some(n) = number.filter(|n| *n < least) {
            errors.invalid(&Path::new(option), n, detail);
        }
    }
    if query.get("sinceSeconds").is_some() && query.get("sinceTime").is_some() {
        let detail = "at most one of `sinceTime` or `sinceSeconds` may be specified";
        errors.0.retain(|error| error.field != "sinceSeconds");
        errors.forbidden(&Path::new("[]"), detail);
    }
    if errors.is_empty() { Ok(()) } else { Err(ApiError::invalid("", "PodLogOptions", request.name(), &errors.0)) }
}

/// A pod with one container has one that is meant when none is named.
fn check_container(pod: &Value, name: &str, container: &str) -> Result<()> {
    let names = |list: &str| -> Vec<&str> {
        pod.list_at(&["spec", list]).iter().map(|container| container.text_at(&["name"])).collect()
    };
    let [containers, init, ephemeral] = ["containers", "initContainers", "ephemeralContainers"].map(names);
    if container.is_empty() {
        if containers.len() == 1 {
            return Ok(());
        }
        let mut why = format!("a container name must be specified for pod {name}");
        if !containers.is_empty() {
            why += &format!(", choose one of: [{}]", containers.join(" "));
        }
        if !init.is_empty() {
            why += &format!(" or one of the init containers: [{}]", init.join(" "));
        }
        return Err(ApiError::bad_request(why));
    }
    if [containers, init, ephemeral].iter().any(|list| list.contains(&container)) {
        return Ok(());
    }
    Err(ApiError::bad_request(format!("container {container} is not valid for pod {name}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_proxied_to_may_have_a_scheme_and_a_port() {
        for (id, parts) in [
            ("web", Some(("web", ""))),
            ("web:80", Some(("web", "80"))),
            ("web:", Some(("web", ""))),
            (":web:http", Some(("web", "http"))),
            ("https:web:443", Some(("web", "443"))),
            ("https:web:", Some(("web", ""))),
            ("ftp:web:21", None),
            (":80", None),
            ("https::443", None),
            ("a:b:c:d", None),
            ("", None),
        ] {
            assert_eq!(split(id), parts, "{id}");
        }
    }
}

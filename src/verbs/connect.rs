//! Connections to what runs on nodes: logs, commands, ports and proxies. What can be told without the node is told here:
//! whether the object is there, whether the options make sense, whether anything runs at all.

use serde_json::Value;

use super::list::int;
use super::{Answer, Request, decode_stored};
use crate::field::{Errors, Path};
use crate::object::Fields;
use crate::status::{ApiError, Result};

/// The subresources that connect.
pub const CONNECTIONS: &[&str] = &["attach", "exec", "log", "portforward", "proxy"];

pub async fn connect(request: &mut Request) -> Result<Answer> {
    let log = request.info.subresource == "log";
    if log {
        check_log_options(request)?;
    }
    let view = request.fresh_view().await?;
    let record = view.get(request.key().as_str()).ok_or_else(|| request.not_found())?;
    let object = decode_stored(record)?;
    let name = request.name();
    match (&*request.resource.kind, request.info.subresource.as_str()) {
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

fn check_log_options(request: &Request) -> Result<()> {
    let query = &request.query;
    let number = |option: &str| match query.get(option) {
        Some(text) => int(text).map(Some),
        None => Ok(None),
    };
    let mut errors = Errors::default();
    for (option, least, detail) in [
        ("tailLines", 0, "must be greater than or equal to 0"),
        ("limitBytes", 1, "must be greater than 0"),
        ("sinceSeconds", 1, "must be greater than 0"),
    ] {
        if let Some(n) = number(option)?.filter(|n| *n < least) {
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

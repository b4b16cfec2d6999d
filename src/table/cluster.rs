//! Nodes, namespaces and other things of the cluster, and devices.

use std::collections::BTreeSet;

use serde_json::Value;

use super::Cells;
use super::cells::*;
use crate::object::Fields;

/// Of kinds that have no columns of their own.
pub fn name_and_creation(object: &Value) -> Cells {
    vec![name(object), text(object, &["metadata", "creationTimestamp"])]
}

pub fn name_and_age(object: &Value) -> Cells {
    vec![name(object), age(object)]
}

pub fn namespace(object: &Value) -> Cells {
    vec![name(object), text(object, &["status", "phase"]), age(object)]
}

pub fn node(object: &Value) -> Cells {
    let mut status = match condition(object, "Ready").map(|condition| condition.text_at(&["status"])) {
        Some("True") => "Ready".to_owned(),
        Some(_) => "NotReady".to_owned(),
        None => "Unknown".to_owned(),
    };
    if object.bool_at(&["spec", "unschedulable"]) == Some(true) {
        status.push_str(",SchedulingDisabled");
    }
    let address = |of: &str| {
        let mut addresses = object.list_at(&["status", "addresses"]).iter();
        let found = addresses.find(|address| address.text_at(&["type"]) == of);
        found.map_or_else(|| NONE.into(), |address| text(address, &["address"]))
    };
    let info = |field| object.text_at(&["status", "nodeInfo", field]);
    let kernel = match (info("kernelVersion"), info("architecture")) {
        ("", _) => UNKNOWN.to_owned(),
        (kernel, "") => kernel.to_owned(),
        (kernel, architecture) => format!("{kernel} ({architecture})"),
    };
    vec![
        name(object),
        status.into(),
        roles(object).into(),
        age(object),
        info("kubeletVersion").into(),
        address("InternalIP"),
        address("ExternalIP"),
        or(info("osImage"), UNKNOWN).into(),
        kernel.into(),
        or(info("containerRuntimeVersion"), UNKNOWN).into(),
    ]
}

/// The roles that labels give a node: `node-role.kubernetes.io/ROLE` or `kubernetes.io/role=ROLE`.
fn roles(object: &Value) -> String {
    let labels = object.map_at(&["metadata", "labels"]).into_iter().flatten();
    let roles: BTreeSet<&str> = labels
        .filter_map(|(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
            None if key == "kubernetes.io/role" => value.as_str(),
            role => role,
        })
        .filter(|role| !role.is_empty())
        .collect();
    or(&Vec::from_iter(roles).join(","), NONE).to_owned()
}

pub fn component_status(object: &Value) -> Cells {
    let mut conditions = object.list_at(&["conditions"]).iter();
    let healthy = conditions.find(|condition| condition.text_at(&["type"]) == "Healthy");
    let status = match healthy.map(|condition| condition.text_at(&["status"])) {
        Some("True") => "Healthy",
        Some(_) => "Unhealthy",
        None => "Unknown",
    };
    let said = |field| healthy.map_or("", |condition| condition.text_at(&[field])).into();
    vec![name(object), status.into(), said("message"), said("error")]
}

pub fn lease(object: &Value) -> Cells {
    vec![name(object), text(object, &["spec", "holderIdentity"]), age(object)]
}

pub fn runtime_class(object: &Value) -> Cells {
    vec![name(object), text(object, &["handler"]), age(object)]
}

pub fn api_service(object: &Value) -> Cells {
    let service = object.at(&["spec", "service"]).map_or_else(
        || "Local".to_owned(),
        |service| format!("{}/{}", service.text_at(&["namespace"]), service.text_at(&["name"])),
    );
    let available = condition(object, "Available").map_or_else(
        || "Unknown".to_owned(),
        |condition| match (condition.text_at(&["status"]), condition.text_at(&["reason"])) {
            (status @ "True", _) | (status, "") => status.to_owned(),
            (status, reason) => format!("{status} ({reason})"),
        },
    );
    vec![name(object), service.into(), available.into(), age(object)]
}

pub fn resource_claim(object: &Value) -> Cells {
    let allocated = object.at(&["status", "allocation"]).is_some();
    let reserved = allocated && !object.list_at(&["status", "reservedFor"]).is_empty();
    let deleted = is_deleted(object);
    let states =
        [(deleted, "deleted"), (!allocated && !deleted, "pending"), (allocated, "allocated"), (reserved, "reserved")];
    let states: Vec<&str> = states.iter().filter(|(is, _)| *is).map(|(_, state)| *state).collect();
    vec![name(object), states.join(",").into(), age(object)]
}

pub fn resource_slice(object: &Value) -> Cells {
    vec![
        name(object),
        text(object, &["spec", "nodeName"]),
        text(object, &["spec", "driver"]),
        text(object, &["spec", "pool", "name"]),
        age(object),
    ]
}

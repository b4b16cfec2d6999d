//! What every cluster has from its start: namespaces, roles and bindings, flow control, priority classes, API services,
//! the default service range. What is missing is made; what is there is left alone, so that every replica can do this
//! whenever it starts.

mod objects;

use futures_util::future::join_all;
use kontiki_storage::{Outcome, Transaction};
use serde_json::{Value, json};
use tokio::time::{Duration, Instant};

use crate::discovery::Registry;
use crate::internal;
use crate::object::Fields;
use crate::server::{Server, Settings};
use crate::status::Result;
use crate::time;

const DEADLINE: Duration = Duration::from_secs(30);

/// Makes what is missing.
pub async fn ensure(server: &Server) -> Result<()> {
    let deadline = Instant::now() + DEADLINE;
    let registry = server.registry();
    let view = server.replica.read_barrier(deadline).await?;
    let mut missing = Vec::new();
    for object in wanted(&server.settings, &registry) {
        if internal::find(&registry, &view, &object)?.is_none() {
            let manager = manager(&object);
            missing.push(internal::create(&registry, object, manager)?);
        }
    }
    if let Some(authorities) = server.authenticator.client_authorities() {
        let trust = trust(&authorities);
        match internal::find(&registry, &view, &trust)? {
            None => missing.push(internal::create(&registry, trust, internal::MANAGER)?),
            Some(record) => missing.push(internal::update(&registry, record, |object| {
                object.set(&["data", "client-ca-file"], authorities.as_str());
            })?),
        }
    }
    // Each has a revision of its own, but they travel together.
    let propose = |transaction: Transaction| server.replica.propose(transaction, deadline);
    let mut made = 0;
    for outcome in join_all(missing.into_iter().map(propose)).await {
        // In a conflict another replica was quicker.
        made += usize::from(matches!(outcome?, Outcome::Committed { .. }));
    }
    if made > 0 {
        tracing::info!(objects = made, "made what every cluster has");
    }
    Ok(())
}

fn manager(object: &Value) -> &'static str {
    match object.text_at(&["kind"]) {
        "FlowSchema" | "PriorityLevelConfiguration" => "api-priority-and-fairness-config-producer-v1",
        _ => internal::MANAGER,
    }
}

fn wanted(settings: &Settings, registry: &Registry) -> Vec<Value> {
    let now = time::now();
    let mut wanted: Vec<Value> =
        ["kube-system", "kube-public", "kube-node-lease", "default"].into_iter().map(namespace).collect();
    wanted.extend(objects::read());
    wanted.extend(registry.groups().iter().flat_map(|group| {
        group.versions.iter().map(|version| api_service(&group.name, group.priority, &version.name, version.priority))
    }));
    wanted.push(service_range(settings));
    wanted.push(token_tracking());
    for object in &mut wanted {
        for condition in object.items_mut(&["status", "conditions"]) {
            condition.set(&["lastTransitionTime"], now.clone());
        }
    }
    wanted
}

fn namespace(name: &str) -> Value {
    json!({
        "kind": "Namespace",
        "apiVersion": "v1",
        "metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name}},
    })
}

fn api_service(group: &str, group_priority: i32, version: &str, priority: i32) -> Value {
    let mut object = json!({
        "kind": "APIService",
        "apiVersion": "apiregistration.k8s.io/v1",
        "metadata": {
            "name": format!("{version}.{group}"),
            "labels": {"kube-aggregator.kubernetes.io/automanaged": "onstart"},
        },
        "spec": {"version": version, "groupPriorityMinimum": group_priority, "versionPriority": priority},
        "status": {"conditions": [{
            "type": "Available",
            "status": "True",
            "reason": "Local",
            "message": "Local APIServices are always available",
        }]},
    });
    if !group.is_empty() {
        object.set(&["spec", "group"], group);
    }
    object
}

fn service_range(settings: &Settings) -> Value {
    let ranges: Vec<String> = settings.service_ranges.iter().map(|range| range.trunc().to_string()).collect();
    json!({
        "kind": "ServiceCIDR",
        "apiVersion": "networking.k8s.io/v1",
        "metadata": {"name": "kubernetes"},
        "spec": {"cidrs": ranges},
        "status": {"conditions": [{
            "type": "Ready",
            "status": "True",
            "reason": "",
            "message": "Kubernetes default Service CIDR is ready",
        }]},
    })
}

/// Since when it is known which tokens in secrets are used.
fn token_tracking() -> Value {
    let mut today = time::now();
    today.truncate("2006-01-02".len());
    json!({
        "kind": "ConfigMap",
        "apiVersion": "v1",
        "metadata": {"name": "kube-apiserver-legacy-service-account-token-tracking", "namespace": "kube-system"},
        "data": {"since": today},
    })
}

/// How API servers behind this one know its clients.
fn trust(authorities: &str) -> Value {
    json!({
        "kind": "ConfigMap",
        "apiVersion": "v1",
        "metadata": {"name": "extension-apiserver-authentication", "namespace": "kube-system"},
        "data": {"client-ca-file": authorities},
    })
}

//! What every cluster has from its start: namespaces, roles and bindings, flow control, priority classes, API services,
//! the default service range. What is missing is made in one transaction; what is there is left alone, so that every
//! replica can do this whenever it starts.

mod objects;

use std::sync::Arc;

use kontiki_storage::{Condition, Outcome, Transaction, View, Write};
use serde_json::{Value, json};
use tokio::time::{Duration, Instant};

use crate::codec::{canonicalize, encode_for_store};
use crate::discovery::{Registry, Resource};
use crate::kinds;
use crate::object::Fields;
use crate::schema::builtin;
use crate::server::{Server, Settings};
use crate::status::{ApiError, Result};
use crate::{time, verbs};

const DEADLINE: Duration = Duration::from_secs(30);

/// Makes what is missing.
pub async fn ensure(server: &Server) -> Result<()> {
    let wanted = wanted(&server.settings, &server.registry());
    loop {
        let deadline = Instant::now() + DEADLINE;
        let view = server.replica.read_barrier(deadline).await.map_err(verbs::barrier_error)?;
        let mut transaction = Transaction::default();
        for object in &wanted {
            create(&server.registry(), &view, object.clone(), &mut transaction)?;
        }
        let made = transaction.writes.len();
        if made == 0 {
            return Ok(());
        }
        match server.replica.propose(transaction, deadline).await {
            Ok(Outcome::Committed { .. }) => {
                tracing::info!(objects = made, "made what every cluster has");
                return Ok(());
            }
            // Another replica was quicker with some of it.
            Ok(_) => {}
            Err(error) => return Err(ApiError::internal(error)),
        }
    }
}

/// Adds an object to the transaction, unless it is there.
pub fn create(registry: &Registry, view: &View, mut object: Value, to: &mut Transaction) -> Result<()> {
    let resource = resource_of(registry, &object)?;
    let key = verbs::key(&resource, object.text_at(&["metadata", "namespace"]), object.text_at(&["metadata", "name"]));
    if view.get(key.as_str()).is_some() {
        return Ok(());
    }
    let now = time::now();
    object.set(&["metadata", "uid"], uuid::Uuid::new_v4().to_string());
    object.set(&["metadata", "creationTimestamp"], now);
    if let Some(kind) = kinds::find(&resource.group, &resource.kind) {
        kind.default(&mut object);
        if kind.counts_generation() {
            object.set(&["metadata", "generation"], 1);
        }
    }
    to.conditions.push(Condition::Absent(key.clone()));
    to.writes.push(put(&resource, key, object)?);
    Ok(())
}

/// The write of an object as it is stored.
pub fn put(resource: &Resource, key: kontiki_storage::Key, mut object: Value) -> Result<Write> {
    let node = builtin().kind(&resource.group, &resource.version, &resource.kind);
    let node = node.ok_or_else(|| ApiError::internal(format!("kind {} has no schema", resource.kind)))?;
    canonicalize(node, &mut object);
    let (value, at) = encode_for_store(&object);
    Ok(Write::Put { key, value: value.into(), revision_at: Some(at), expires_at: None })
}

fn resource_of(registry: &Registry, object: &Value) -> Result<Arc<Resource>> {
    let (group, version) =
        object.text_at(&["apiVersion"]).split_once('/').unwrap_or(("", object.text_at(&["apiVersion"])));
    let kind = object.text_at(&["kind"]);
    let found = registry.find_kind(group, version, kind);
    found.cloned().ok_or_else(|| ApiError::internal(format!("there is no resource of kind {kind}")))
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
        "spec": {"finalizers": ["kubernetes"]},
        "status": {"phase": "Active"},
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

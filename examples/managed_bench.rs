//! Nanoseconds for field management: `cargo run --release --example managed_bench`.

use std::hint::black_box;
use std::time::Instant;

use kontiki::codec::{self, Target, Validation};
use kontiki::managed::{self, Write, reset};
use kontiki::patch::{self, PatchKind};
use kontiki::schema::builtin;
use kontiki::verbs::fields::BuiltIn;
use serde_json::{Value, json};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// A pod of about 4 KB.
fn pod() -> Value {
    let env: Vec<Value> =
        (0..34).map(|n| json!({"name": format!("VARIABLE_{n}"), "value": format!("value-{n}")})).collect();
    let container = |name: &str| {
        json!({"name": name, "image": "registry.example.com/team/app:v1.2.3", "env": env,
            "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
            "resources": {"limits": {"cpu": "500m", "memory": "512Mi"}, "requests": {"cpu": "100m", "memory": "128Mi"}},
            "livenessProbe": {"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 10},
            "volumeMounts": [{"name": "config", "mountPath": "/etc/config", "readOnly": true}]})
    };
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "web-1", "namespace": "default", "labels": {"app": "web", "tier": "front"},
            "creationTimestamp": "2026-01-02T03:04:05Z", "uid": "0a0b0c0d-0000-4000-8000-000000000000"},
        "spec": {"containers": [container("app"), container("sidecar")], "nodeName": "node-1",
            "tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute"}],
            "volumes": [{"name": "config", "configMap": {"name": "web", "defaultMode": 420}}]},
        "status": {"phase": "Pending"}})
}

fn lease(renewed: &str) -> Value {
    json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": "node-1", "namespace": "kube-node-lease", "uid": "0a0b0c0d-0000-4000-8000-000000000001"},
        "spec": {"holderIdentity": "node-1", "leaseDurationSeconds": 40, "renewTime": renewed}})
}

/// The median of many rounds; `prepare` and the drop of what a step leaves aren't counted.
fn measure<T, U>(what: &str, mut prepare: impl FnMut() -> T, mut step: impl FnMut(T) -> U) {
    const ROUND: usize = 8;
    let mut rounds: Vec<u128> = Vec::new();
    for _ in 0..2_000 {
        let prepared: Vec<T> = (0..ROUND).map(|_| prepare()).collect();
        let mut left = Vec::with_capacity(ROUND);
        let start = Instant::now();
        left.extend(prepared.into_iter().map(&mut step));
        rounds.push(start.elapsed().as_nanos() / ROUND as u128);
        black_box(left);
    }
    rounds.sort_unstable();
    println!("{what:<34}{:>8} ns", rounds[rounds.len() / 2]);
}

fn main() {
    let write = |api_version: &'static str, kind: &str, subresource: &'static str| Write {
        versions: &BuiltIn,
        api_version,
        subresource,
        manager: "kubelet",
        reset: reset::of(kind, subresource),
        now: "2026-01-02T03:04:06Z",
    };
    let Some(node) = builtin().kind("", "v1", "Pod") else { return };
    let mut created = pod();
    codec::canonicalize(node, &mut created);
    let plain = created.clone();
    managed::update(write("v1", "Pod", ""), None, &mut created);
    println!(
        "a pod of {} bytes, {} of them managed fields",
        created.to_string().len(),
        created["metadata"]["managedFields"].to_string().len()
    );
    measure("copy of the pod", || (), |()| created.clone());
    measure("drop of a copy", || created.clone(), drop);
    let copy = created.clone();
    measure("comparison of equal pods", || (), |()| copy == created);
    measure(
        "create, its fields",
        || plain.clone(),
        |mut object| {
            managed::update(write("v1", "Pod", ""), None, &mut object);
            object
        },
    );
    let target = Target { group: "", version: "v1", kind: "Pod" };
    let condition = |name: &str| json!({"type": name, "status": "True", "lastTransitionTime": "2026-01-02T03:04:05Z"});
    let body = json!({"status": {"phase": "Running", "startTime": "2026-01-02T03:04:05Z",
        "$setElementOrder/conditions": [{"type": "Initialized"}, {"type": "Ready"}],
        "conditions": [condition("Initialized"), condition("Ready")],
        "containerStatuses": [{"name": "app", "ready": true, "restartCount": 0, "image": "i", "imageID": "x"}]}});
    let body = body.to_string();
    let patched = || patch::apply(PatchKind::Strategic, target, node, &created, body.as_bytes(), Validation::Warn);
    measure("status patch itself", || (), |()| patched().is_ok());
    let Ok(patched) = patched() else { return };
    measure(
        "status patch, its fields",
        || patched.object.clone(),
        |mut object| {
            managed::update(write("v1", "Pod", "status"), Some(&created), &mut object);
            object
        },
    );
    let mut live = lease("2026-01-02T03:04:05.000000Z");
    managed::update(write("coordination.k8s.io/v1", "Lease", ""), None, &mut live);
    let sent = lease("2026-01-02T03:04:15.000000Z");
    measure(
        "lease renewal, its fields",
        || sent.clone(),
        |mut object| {
            managed::update(write("coordination.k8s.io/v1", "Lease", ""), Some(&live), &mut object);
            object
        },
    );
}

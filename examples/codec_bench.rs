//! Nanoseconds for each step of a pod's way through the codecs: `cargo run --release --example codec_bench`.

use std::hint::black_box;
use std::time::Instant;

use kontiki::{codec, schema};
use serde_json::{Value, json};

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
            "volumes": [{"name": "config", "configMap": {"name": "web", "defaultMode": 420}}]}})
}

fn measure(what: &str, mut step: impl FnMut()) {
    (0..2_000).for_each(|_| step());
    let mut best = u128::MAX;
    for _ in 0..10 {
        let start = Instant::now();
        (0..1_000).for_each(|_| step());
        best = best.min(start.elapsed().as_nanos() / 1_000);
    }
    println!("{what:<28}{best:>8} ns");
}

fn main() {
    let start = Instant::now();
    let Some(node) = schema::builtin().kind("", "v1", "Pod") else { return };
    println!("reading the table           {:>8} ns", start.elapsed().as_nanos());
    let text = pod().to_string();
    println!("a pod of {} bytes", text.len());
    let Ok(decoded) = codec::decode(node, text.as_bytes()) else { return };
    let message = codec::protobuf::encode(node, &decoded.value);
    let mut value = decoded.value.clone();
    measure("decode", || drop(black_box(codec::decode(node, text.as_bytes()))));
    measure("decode (serde_json)", || drop(black_box(serde_json::from_str::<Value>(&text))));
    measure("canonicalize", || codec::canonicalize(node, black_box(&mut value)));
    measure("encode_for_store", || drop(black_box(codec::encode_for_store(&decoded.value))));
    measure("protobuf decode", || drop(black_box(codec::protobuf::decode(node, &message))));
    measure("protobuf encode", || drop(black_box(codec::protobuf::encode(node, &decoded.value))));
}

//! kubectl against one replica and against three: what people type all day.

mod common;

use common::Cluster;

const DEPLOYMENT: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
  labels: {app: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: web
        image: registry.example/web:1
        ports: [{containerPort: 80}]
---
apiVersion: v1
kind: Service
metadata:
  name: web
spec:
  type: NodePort
  selector: {app: web}
  ports: [{port: 80}]
"#;

fn everyday(cluster: &Cluster) {
    let k = |args: &[&str]| cluster.kubectl(args);
    assert!(k(&["version"]).contains("Server Version: v1.36"));
    assert!(k(&["cluster-info"]).contains("is running at"));
    let resources = k(&["api-resources", "--no-headers"]);
    assert_eq!(resources.lines().count(), 67, "{resources}");
    assert!(k(&["api-versions"]).lines().any(|line| line == "apps/v1"));
    for namespace in ["default", "kube-system", "kube-public", "kube-node-lease"] {
        assert!(k(&["get", "namespaces", "-o", "name"]).contains(&format!("namespace/{namespace}\n")));
    }
    // Made by the leader once it serves.
    let mut address = String::new();
    for _ in 0..100 {
        let output = cluster.kubectl_output(&["get", "service", "kubernetes", "-o", "jsonpath={.spec.clusterIP}"]);
        address = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            break;
        }
    }
    assert!(address.starts_with("10.0.0."), "{address}");

    let manifest = cluster.file("web.yaml", DEPLOYMENT);
    let manifest = manifest.to_str().expect("a path");
    k(&["create", "namespace", "test"]);
    assert_eq!(k(&["apply", "-n", "test", "-f", manifest]), "deployment.apps/web created\nservice/web created\n");
    assert_eq!(k(&["apply", "-n", "test", "-f", manifest]), "deployment.apps/web unchanged\nservice/web unchanged\n");
    assert!(cluster.kubectl_fails(&["create", "-n", "test", "-f", manifest]).contains("AlreadyExists"));
    let wide = k(&["get", "deployment", "web", "-n", "test", "-o", "wide"]);
    assert!(wide.contains("UP-TO-DATE") && wide.contains("registry.example/web:1"), "{wide}");
    assert!(k(&["get", "deployment", "web", "-n", "test", "-o", "yaml"]).contains("progressDeadlineSeconds: 600"));
    let columns = "custom-columns=N:.metadata.name,R:.spec.replicas";
    assert!(k(&["get", "deployments", "-n", "test", "-o", columns]).contains("web   2"));
    assert!(k(&["describe", "deployment", "web", "-n", "test"]).contains("RollingUpdateStrategy:"));
    k(&["label", "deployment", "web", "-n", "test", "tier=front"]);
    assert_eq!(k(&["get", "deployments", "-n", "test", "-l", "tier=front", "-o", "name"]), "deployment.apps/web\n");
    k(&["annotate", "deployment", "web", "-n", "test", "note=x"]);
    for (kind, patch) in [
        ("json", r#"[{"op": "replace", "path": "/spec/replicas", "value": 3}]"#),
        ("merge", r#"{"spec": {"replicas": 4}}"#),
        (
            "strategic",
            r#"{"spec": {"template": {"spec": {"containers": [{"name": "web", "image": "registry.example/web:2"}]}}}}"#,
        ),
    ] {
        k(&["patch", "deployment", "web", "-n", "test", "--type", kind, "-p", patch]);
    }
    k(&["scale", "deployment", "web", "-n", "test", "--replicas", "5"]);
    k(&["set", "image", "deployment/web", "-n", "test", "web=registry.example/web:3"]);
    let shown = "jsonpath={.spec.replicas} {.spec.template.spec.containers[*].image} {.spec.template.spec.containers[*].ports[0].containerPort}";
    assert_eq!(k(&["get", "deployment", "web", "-n", "test", "-o", shown]), "5 registry.example/web:3 80");
    k(&["rollout", "history", "deployment/web", "-n", "test"]);
    assert!(k(&["rollout", "status", "deployment/web", "-n", "test", "--watch=false"]).contains("Waiting"));
    assert!(k(&["explain", "deployment.spec.strategy"]).contains("DESCRIPTION"));
    k(&["get", "events", "-n", "test"]);
    let wrong =
        cluster.file("wrong.yaml", &DEPLOYMENT.replace("replicas: 2", "replicsa: 2").replace("web\n", "web2\n"));
    let wrong = wrong.to_str().expect("a path");
    assert!(cluster.kubectl_fails(&["apply", "-n", "test", "-f", wrong]).contains("replicsa"));

    k(&["create", "configmap", "c", "-n", "test", "--from-literal=a=b"]);
    k(&["delete", "configmap", "c", "-n", "test"]);
    k(&["wait", "--for=delete", "configmap/c", "-n", "test", "--timeout=5s"]);
    k(&["delete", "deployment", "web", "-n", "test", "--cascade=orphan", "--wait=false"]);
    k(&["delete", "service", "web", "-n", "test"]);
    assert!(cluster.kubectl_fails(&["get", "service", "web", "-n", "test"]).contains("NotFound"));
}

#[test]
fn one_replica() {
    everyday(&Cluster::start(1, &[]));
}

#[test]
fn three_replicas() {
    everyday(&Cluster::start(3, &[]));
}

//! helm and the Python client against three replicas.

mod common;

use std::path::Path;
use std::process::{Command, Stdio};

use common::Cluster;

/// A program that `tests/tools.sh` has fetched.
fn tool(variable: &str) -> Option<String> {
    let path = std::env::var(variable).ok();
    if path.is_none() {
        eprintln!("SKIPPED: ${variable} doesn't say where to find it (tests/run does)");
    }
    path
}

fn run(cluster: &Cluster, program: &str, arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients"));
    command.env("KUBECONFIG", &cluster.kubeconfig).env("HOME", cluster.dir.path()).env("PYTHONDONTWRITEBYTECODE", "1");
    let output = command.stdin(Stdio::null()).output().expect("a program");
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(text.into_owned()) } else { Err(format!("{program} {arguments:?}: {text}")) }
}

#[test]
fn the_python_client_works() {
    let Some(python) = tool("KUBERNETES_PYTHON") else { return };
    let cluster = Cluster::start(3, &[]);
    let kubeconfig = cluster.kubeconfig.to_str().expect("a path");
    let done = run(&cluster, &python, &["python_client.py", kubeconfig]).expect("python_client.py");
    assert_eq!(done.trim(), "ok");
}

#[test]
fn helm_installs_upgrades_rolls_back_and_uninstalls() {
    let Some(helm) = tool("HELM") else { return };
    let cluster = Cluster::start(3, &[]);
    let helm = |arguments: &str| {
        let arguments: Vec<&str> = arguments.split(' ').chain(["--namespace", "charts"]).collect();
        run(&cluster, &helm, &arguments)
    };
    let level = || cluster.kubectl(&["get", "configmap", "web", "-n", "charts", "-o", "jsonpath={.data.level}"]);
    let installed = helm("install web ./chart --create-namespace --wait=hookOnly").expect("install");
    assert!(installed.contains("STATUS: deployed"), "{installed}");
    assert_eq!(level(), "low");
    assert!(helm("install web ./chart").is_err_and(|text| text.contains("cannot reuse a name that is still in use")));
    assert!(helm("list").expect("list").contains("deployed"));
    assert!(helm("get manifest web").expect("get manifest").contains("kind: Deployment"));

    helm("upgrade web ./chart --set level=high,replicas=3").expect("upgrade");
    assert_eq!(level(), "high");
    // What someone else has changed stays.
    cluster.kubectl(&["annotate", "deployment", "web", "-n", "charts", "note=x"]);
    helm("upgrade web ./chart --set level=middle").expect("upgrade");
    let shown = "jsonpath={.spec.replicas} {.metadata.annotations.note}";
    assert_eq!(cluster.kubectl(&["get", "deployment", "web", "-n", "charts", "-o", shown]), "1 x");
    assert!(
        helm("upgrade web ./chart --set replicas=-1")
            .is_err_and(|text| text.contains("must be greater than or equal to 0"))
    );
    helm("rollback web 2").expect("rollback");
    assert_eq!(level(), "high");
    let history = helm("history web").expect("history");
    assert!(history.contains("Rollback to 2") && history.contains("failed"), "{history}");
    assert!(helm("status web").expect("status").contains("STATUS: deployed"));

    helm("uninstall web").expect("uninstall");
    let left = cluster.kubectl(&["get", "deployments,services,configmaps,secrets", "-n", "charts", "-o", "name"]);
    assert_eq!(left, "");
}

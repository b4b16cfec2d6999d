//! Load in scenarios, and what an operation takes of the servers that serve it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::Bytes;
use clap::ValueEnum;
use http::Method;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::client::{Access, Answer, Client};
use crate::process::{Usage, usage};

#[derive(clap::Args)]
pub struct Args {
    /// The kubeconfig of the API server.
    #[arg(long)]
    kubeconfig: PathBuf,
    /// What to do; several run one after the other. All, where none is named.
    #[arg(long = "scenario", value_enum)]
    scenarios: Vec<Scenario>,
    /// How many clients work at the same time, each with a connection of its own.
    #[arg(long, default_value_t = 64)]
    clients: usize,
    /// How many operations in all; a scenario may take fewer (lists).
    #[arg(long, default_value_t = 20_000)]
    operations: usize,
    /// How many pods the list scenario makes first, and how many watchers the watch scenario has.
    #[arg(long, default_value_t = 5_000)]
    objects: usize,
    #[arg(long, default_value_t = 500)]
    watchers: usize,
    /// The servers' process ids, to tell CPU time, memory, and bytes written to disks.
    #[arg(long = "pid")]
    pids: Vec<u32>,
    /// Where the objects are made; removed at the end unless --keep.
    #[arg(long, default_value = "kontiki-load")]
    namespace: String,
    /// Leave the objects there.
    #[arg(long)]
    keep: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// One writer alone creates config maps.
    CreateAlone,
    CreateConfigMap,
    CreatePod,
    GetPod,
    UpdateLease,
    PatchPodStatus,
    ListPods,
    /// One writer alone makes what the watchers see: each event is a delivery of its own.
    WatchAlone,
    Watch,
}

const ALL: [Scenario; 9] = [
    Scenario::CreateAlone,
    Scenario::CreateConfigMap,
    Scenario::CreatePod,
    Scenario::GetPod,
    Scenario::UpdateLease,
    Scenario::PatchPodStatus,
    Scenario::ListPods,
    Scenario::WatchAlone,
    Scenario::Watch,
];

impl Scenario {
    fn name(self) -> &'static str {
        match self {
            Scenario::CreateAlone => "create config map, one writer",
            Scenario::CreateConfigMap => "create config map",
            Scenario::CreatePod => "create pod (4 KB)",
            Scenario::GetPod => "get pod (4 KB)",
            Scenario::UpdateLease => "update lease",
            Scenario::PatchPodStatus => "patch pod status",
            Scenario::ListPods => "list pods",
            Scenario::WatchAlone => "deliver event, one writer",
            Scenario::Watch => "deliver event to watcher",
        }
    }
}

pub async fn run(args: Args) -> anyhow::Result<()> {
    let access = Access::read(&args.kubeconfig)?;
    let admin = access.client();
    make_namespace(&admin, &args.namespace).await?;
    let scenarios = if args.scenarios.is_empty() { ALL.to_vec() } else { args.scenarios.clone() };
    println!(
        "{:<30} {:>9} {:>9} {:>9} {:>9} {:>11} {:>10} {:>9} {:>7}",
        "scenario", "ops", "ops/s", "p50 ms", "p99 ms", "CPU µs/op", "disk B/op", "RSS MB", "errors"
    );
    for scenario in scenarios {
        let report = match scenario {
            Scenario::WatchAlone => watch(&access, &args, 1).await?,
            Scenario::Watch => watch(&access, &args, args.clients.max(1)).await?,
            _ => operations(&access, &args, scenario).await?,
        };
        report.print(scenario);
    }
    if !args.keep {
        for resource in ["pods?gracePeriodSeconds=0", "configmaps"] {
            admin.delete(&format!("/api/v1/namespaces/{}/{resource}", args.namespace)).await?;
        }
        admin.delete(&format!("/apis/coordination.k8s.io/v1/namespaces/{}/leases", args.namespace)).await?;
        admin.delete(&format!("/api/v1/namespaces/{}", args.namespace)).await?;
    }
    Ok(())
}

pub async fn make_namespace(client: &Client, name: &str) -> anyhow::Result<()> {
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    let made = client.post("/api/v1/namespaces", &namespace).await?;
    if made.status != 409 {
        made.ok()?;
    }
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
    let made = client.post(&format!("/api/v1/namespaces/{name}/serviceaccounts"), &account).await?;
    if made.status != 409 {
        made.ok()?;
    }
    Ok(())
}

struct Report {
    times: Vec<Duration>,
    elapsed: Duration,
    used: Option<(Usage, Usage)>,
    errors: usize,
    first_error: Option<String>,
}

impl Report {
    fn print(&self, scenario: Scenario) {
        let mut times = self.times.clone();
        times.sort_unstable();
        let at = |part: f64| quantile(&times, part).as_secs_f64() * 1e3;
        let count = times.len().max(1);
        let (cpu, disk, rss) = match &self.used {
            Some((before, after)) => (
                format!("{:.1}", (after.cpu - before.cpu).as_secs_f64() * 1e6 / count as f64),
                format!("{:.0}", (after.written_bytes - before.written_bytes) as f64 / count as f64),
                format!("{:.0}", after.resident_bytes as f64 / 1e6),
            ),
            None => ("-".into(), "-".into(), "-".into()),
        };
        println!(
            "{:<30} {:>9} {:>9.0} {:>9.2} {:>9.2} {:>11} {:>10} {:>9} {:>7}",
            scenario.name(),
            times.len(),
            times.len() as f64 / self.elapsed.as_secs_f64(),
            at(0.50),
            at(0.99),
            cpu,
            disk,
            rss,
            self.errors,
        );
        if let Some(error) = &self.first_error {
            println!("  the first error: {error}");
        }
    }
}

/// Of times in order.
pub fn quantile(times: &[Duration], part: f64) -> Duration {
    let index = ((times.len() as f64 * part) as usize).min(times.len().saturating_sub(1));
    times.get(index).copied().unwrap_or_default()
}

fn measured(pids: &[u32]) -> anyhow::Result<Option<Usage>> {
    if pids.is_empty() { Ok(None) } else { usage(pids).map(Some) }
}

/// A pod of about 4 KB as it is stored.
pub fn pod(name: &str) -> Value {
    let env: Vec<Value> = (0..24)
        .map(|i| json!({"name": format!("SETTING_{i}"), "value": format!("value-{i}-of-a-setting-that-is-not-short")}))
        .collect();
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": "load", "tier": "backend", "pod": name}},
        "spec": {
            "automountServiceAccountToken": false,
            "containers": [{
                "name": "main",
                "image": "registry.example/app:1.2.3",
                "env": env,
                "ports": [{"containerPort": 8080, "name": "http"}],
                "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
                "readinessProbe": {"httpGet": {"path": "/ready", "port": "http"}},
            }],
        },
    })
}

fn config_map(name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name},
        "data": {"settings": "x".repeat(1024)},
    })
}

async fn operations(access: &Access, args: &Args, scenario: Scenario) -> anyhow::Result<Report> {
    let base = format!("/api/v1/namespaces/{}", args.namespace);
    let leases = format!("/apis/coordination.k8s.io/v1/namespaces/{}/leases", args.namespace);
    let clients = if scenario == Scenario::CreateAlone { 1 } else { args.clients.max(1) };
    let total = match scenario {
        Scenario::ListPods => 50,
        Scenario::CreateAlone => args.operations.min(2_000),
        _ => args.operations,
    };
    let admin = access.client();
    match scenario {
        Scenario::ListPods => prepare_pods(access, &base, "list", args.objects, clients).await?,
        Scenario::GetPod => prepare_pods(access, &base, "get", 100, clients).await?,
        Scenario::PatchPodStatus => prepare_pods(access, &base, "patch", clients, clients).await?,
        Scenario::UpdateLease => {
            for client in 0..clients {
                admin.post(&leases, &lease(&format!("lease-{client}"), 0)).await?;
            }
        }
        _ => {}
    }
    let run = format!("{:x}", std::process::id());
    let next = Arc::new(AtomicUsize::new(0));
    let before = measured(&args.pids)?;
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for client_index in 0..clients {
        let (client, next, base, leases, run) =
            (access.client(), next.clone(), base.clone(), leases.clone(), run.clone());
        tasks.spawn(async move {
            let mut times = Vec::new();
            let mut errors = Vec::new();
            // Of the lease that this client holds.
            let mut revision = Value::Null;
            if scenario == Scenario::UpdateLease
                && let Ok(held) = client.get(&format!("{leases}/lease-{client_index}")).await
            {
                revision = resource_version(&held);
            }
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= total {
                    return (times, errors);
                }
                let began = Instant::now();
                let answer = match scenario {
                    Scenario::CreateAlone => {
                        client.post(&format!("{base}/configmaps"), &config_map(&format!("alone-{run}-{index}"))).await
                    }
                    Scenario::CreateConfigMap => {
                        client.post(&format!("{base}/configmaps"), &config_map(&format!("cm-{run}-{index}"))).await
                    }
                    Scenario::CreatePod => {
                        client.post(&format!("{base}/pods"), &pod(&format!("pod-{run}-{index}"))).await
                    }
                    Scenario::GetPod => client.get(&format!("{base}/pods/get-{}", index % 100)).await,
                    Scenario::UpdateLease => {
                        let name = format!("lease-{client_index}");
                        let mut renewed = lease(&name, index);
                        renewed["metadata"]["resourceVersion"] = revision.clone();
                        client.put(&format!("{leases}/{name}"), &renewed).await
                    }
                    Scenario::PatchPodStatus => {
                        let path = format!("{base}/pods/patch-{client_index}/status");
                        let patch = json!({"status": {
                            "conditions": [{"type": "Ready", "status": if index % 2 == 0 { "True" } else { "False" },
                                "lastTransitionTime": null, "message": format!("number {index}")}],
                            "message": format!("{index}"),
                        }});
                        let body: Bytes = serde_json::to_vec(&patch).unwrap_or_default().into();
                        client.send(Method::PATCH, &path, "application/strategic-merge-patch+json", body).await
                    }
                    Scenario::ListPods => client.get(&format!("{base}/pods?labelSelector=run%3Dlist")).await,
                    Scenario::WatchAlone | Scenario::Watch => return (times, errors),
                };
                match answer.and_then(|answer| answer.ok()) {
                    Ok(answer) => {
                        times.push(began.elapsed());
                        if scenario == Scenario::UpdateLease {
                            revision = resource_version(&answer);
                        }
                    }
                    Err(error) => errors.push(error.to_string()),
                }
            }
        });
    }
    let mut report = Report { times: Vec::new(), elapsed: Duration::ZERO, used: None, errors: 0, first_error: None };
    while let Some(done) = tasks.join_next().await {
        let (times, errors) = done?;
        report.times.extend(times);
        report.errors += errors.len();
        report.first_error = report.first_error.or_else(|| errors.into_iter().next());
    }
    report.elapsed = began.elapsed();
    report.used = before.zip(measured(&args.pids)?);
    Ok(report)
}

pub fn resource_version(answer: &Answer) -> Value {
    answer.json().map(|mut object| object["metadata"]["resourceVersion"].take()).unwrap_or_default()
}

pub fn lease(name: &str, turn: usize) -> Value {
    json!({
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": name},
        "spec": {"holderIdentity": "load", "leaseDurationSeconds": 40, "leaseTransitions": turn},
    })
}

async fn prepare_pods(access: &Access, base: &str, prefix: &str, count: usize, clients: usize) -> anyhow::Result<()> {
    let next = Arc::new(AtomicUsize::new(0));
    let mut tasks: JoinSet<anyhow::Result<()>> = JoinSet::new();
    for _ in 0..clients {
        let (client, next, base, prefix) = (access.client(), next.clone(), base.to_owned(), prefix.to_owned());
        tasks.spawn(async move {
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= count {
                    return Ok(());
                }
                let mut pod = pod(&format!("{prefix}-{index}"));
                pod["metadata"]["labels"]["run"] = prefix.as_str().into();
                let made = client.post(&format!("{base}/pods"), &pod).await?;
                if made.status != 409 {
                    made.ok()?;
                }
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}

/// Some writers, many watchers: the CPU time of one event at one watcher, that of the writes included.
async fn watch(access: &Access, args: &Args, writers: usize) -> anyhow::Result<Report> {
    let base = format!("/api/v1/namespaces/{}/configmaps", args.namespace);
    let mut list = Value::Null;
    let clients: Vec<Client> = (0..writers).map(|_| access.client()).collect();
    for client in &clients {
        // Connects, so that the handshakes are not counted.
        list = client.get(&format!("{base}?limit=1")).await?.ok()?.json()?;
    }
    let revision = list["metadata"]["resourceVersion"].as_str().context("a list without a resourceVersion")?.to_owned();
    let events = (args.operations / args.watchers.max(1)).clamp(20, 400);
    let seen = Arc::new(AtomicU64::new(0));
    let mut tasks: JoinSet<anyhow::Result<Vec<Duration>>> = JoinSet::new();
    let (ready, mut readies) = tokio::sync::mpsc::channel(args.watchers.max(1));
    let epoch = Instant::now();
    for _ in 0..args.watchers {
        let client = access.client();
        let path = format!("{base}?watch=true&resourceVersion={revision}&labelSelector=watch%3Dload");
        let (ready, seen) = (ready.clone(), seen.clone());
        tasks.spawn(async move {
            let response = client.open(Method::GET, &path, "", Bytes::new()).await?;
            if !response.status().is_success() {
                bail!("watch: {}", response.status());
            }
            ready.send(()).await?;
            drop(ready);
            let mut body = response.into_body();
            let (mut delays, mut pending) = (Vec::new(), Vec::new());
            while delays.len() < events {
                let Some(frame) = body.frame().await else { bail!("the watch ended early") };
                let Ok(data) = frame?.into_data() else { continue };
                let now = epoch.elapsed();
                pending.extend_from_slice(&data);
                while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
                    let event: Value = serde_json::from_slice(&pending[..end])?;
                    pending.drain(..=end);
                    let sent = event["object"]["data"]["sent"].as_str().and_then(|text| text.parse::<u64>().ok());
                    delays.push(now.saturating_sub(Duration::from_micros(sent.context("a foreign event")?)));
                    seen.fetch_add(1, Ordering::Relaxed);
                }
            }
            Ok(delays)
        });
    }
    drop(ready);
    for _ in 0..args.watchers {
        readies.recv().await.context("a watch didn't start")?;
    }
    let before = measured(&args.pids)?;
    let began = Instant::now();
    let run = std::process::id();
    let next = Arc::new(AtomicUsize::new(0));
    let mut writes: JoinSet<anyhow::Result<()>> = JoinSet::new();
    for writer in clients {
        let (next, base) = (next.clone(), base.clone());
        writes.spawn(async move {
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= events {
                    return Ok(());
                }
                let object = json!({
                    "apiVersion": "v1",
                    "kind": "ConfigMap",
                    "metadata": {"name": format!("watched-{run:x}-{writers}-{index}"), "labels": {"watch": "load"}},
                    "data": {"sent": epoch.elapsed().as_micros().to_string()},
                });
                writer.post(&base, &object).await?.ok()?;
            }
        });
    }
    while let Some(done) = writes.join_next().await {
        done??;
    }
    let mut report = Report { times: Vec::new(), elapsed: Duration::ZERO, used: None, errors: 0, first_error: None };
    while let Some(done) = tasks.join_next().await {
        report.times.extend(done??);
    }
    report.elapsed = began.elapsed();
    report.used = before.zip(measured(&args.pids)?);
    Ok(report)
}

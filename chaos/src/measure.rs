//! What a large state costs: a restart, memory, and a snapshot for a replica that joins.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use rand::Rng;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::client::{Access, Client};
use crate::cluster::{self, Cluster};
use crate::load::{lease, make_namespace, quantile, resource_version};
use crate::process::{Usage, usage};

#[derive(clap::Args)]
#[group(id = "measure")]
pub struct Args {
    #[command(flatten)]
    cluster: cluster::Args,
    /// How many objects, and how many bytes each holds
    #[arg(long, default_value_t = 100_000)]
    objects: usize,
    #[arg(long, default_value_t = 2048)]
    bytes: usize,
    /// How many write at the same time while the cluster is filled
    #[arg(long, default_value_t = 32)]
    clients: usize,
    /// How many writes a second the leader takes while a replica joins, and before
    #[arg(long, default_value_t = 200)]
    rate: u32,
}

const NAMESPACE: &str = "kontiki-measure";
const MAPS: &str = "/api/v1/namespaces/kontiki-measure/configmaps";
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kontiki-measure/leases";
/// Writers while a replica joins; each waits for its answer.
const WRITERS: usize = 8;
const BEFORE: Duration = Duration::from_secs(15);
/// Until freed memory has been given back.
const REST: Duration = Duration::from_secs(15);

pub async fn run(args: Args) -> anyhow::Result<()> {
    let mut cluster = Cluster::start(&args.cluster, &BTreeSet::new()).await?;
    let admin = cluster.access.client();
    make_namespace(&admin, NAMESPACE).await?;
    let idle = of(&cluster, 0)?;
    let began = Instant::now();
    fill(&cluster.access, &args).await?;
    let size = admin.get(&format!("{MAPS}/m0")).await?.ok()?.body.len();
    let total = size * args.objects;
    println!(
        "{} objects of {size} bytes, {:.0} MB, in {:.1} s",
        args.objects,
        total as f64 / 1e6,
        began.elapsed().as_secs_f64()
    );
    restart(&mut cluster, &idle, total).await?;
    join(&mut cluster, &args).await
}

fn of(cluster: &Cluster, index: usize) -> anyhow::Result<Usage> {
    usage(&[cluster.pid(index).context("the replica doesn't run")?])
}

async fn fill(access: &Access, args: &Args) -> anyhow::Result<()> {
    let next = Arc::new(AtomicUsize::new(0));
    let mut tasks: JoinSet<anyhow::Result<()>> = JoinSet::new();
    for _ in 0..args.clients.max(1) {
        let (client, next, objects, bytes) = (access.client(), next.clone(), args.objects, args.bytes);
        tasks.spawn(async move {
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= objects {
                    return Ok(());
                }
                client.post(MAPS, &config_map(&format!("m{index}"), bytes)).await?.ok()?;
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}

/// Words that no compression makes nothing of.
fn config_map(name: &str, bytes: usize) -> Value {
    let mut rng = rand::rng();
    let text: String = (0..bytes).map(|_| char::from(rng.random_range(b'0'..=b'z'))).collect();
    let text = text.replace('\\', "/");
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"text": text}})
}

async fn restart(cluster: &mut Cluster, idle: &Usage, total: usize) -> anyhow::Result<()> {
    let full = of(cluster, 0)?;
    cluster.kill(0)?;
    let began = Instant::now();
    cluster.start_again(0)?;
    cluster.wait_ready(0).await?;
    cluster.replica_client(0).get(&format!("{MAPS}/m0")).await?.ok()?;
    let took = began.elapsed();
    tokio::time::sleep(REST).await;
    let after = of(cluster, 0)?;
    let times = |usage: &Usage| usage.resident_bytes.saturating_sub(idle.resident_bytes) as f64 / (total.max(1)) as f64;
    println!("restart after kill -9: serving again in {:.2} s", took.as_secs_f64());
    println!(
        "resident: {:.0} MB idle, {:.0} MB full (+{:.2} times the objects), {:.0} MB after the restart (+{:.2} times)",
        idle.resident_bytes as f64 / 1e6,
        full.resident_bytes as f64 / 1e6,
        times(&full),
        after.resident_bytes as f64 / 1e6,
        times(&after)
    );
    Ok(())
}

/// Writes at the leader at a steady rate, before and while another replica joins.
async fn join(cluster: &mut Cluster, args: &Args) -> anyhow::Result<()> {
    let leader = cluster.leader().await?;
    let client = cluster.replica_client(leader);
    let calm = Arc::new(AtomicBool::new(false));
    let (before, ()) = tokio::join!(write(&client, args.rate, &calm), async {
        tokio::time::sleep(BEFORE).await;
        calm.store(true, Ordering::Relaxed);
    });
    let joined = Arc::new(AtomicBool::new(false));
    let writing = tokio::spawn({
        let (client, rate, joined) = (client.clone(), args.rate, joined.clone());
        async move { write(&client, rate, &joined).await }
    });
    let began = Instant::now();
    cluster.join().await?;
    let took = began.elapsed();
    joined.store(true, Ordering::Relaxed);
    let (before, during) = (before?, writing.await??);
    let p99 = |times: &[Duration]| quantile(times, 0.99).as_secs_f64() * 1e3;
    println!("a replica joined by a snapshot in {:.2} s", took.as_secs_f64());
    println!(
        "writes at the leader: p99 {:.2} ms before ({}), {:.2} ms meanwhile ({}), {:.2} times",
        p99(&before),
        before.len(),
        p99(&during),
        during.len(),
        p99(&during) / p99(&before).max(f64::MIN_POSITIVE)
    );
    Ok(())
}

/// Renews leases until it is told to stop; the times that it took, in order.
async fn write(client: &Client, rate: u32, stop: &Arc<AtomicBool>) -> anyhow::Result<Vec<Duration>> {
    let mut tasks: JoinSet<anyhow::Result<Vec<Duration>>> = JoinSet::new();
    for writer in 0..WRITERS {
        let (client, stop) = (client.clone(), stop.clone());
        let mut ticks = tokio::time::interval(Duration::from_secs(WRITERS as u64) / rate.max(1));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        tasks.spawn(async move {
            let path = format!("{LEASES}/lease-{writer}");
            let made = client.post(LEASES, &lease(&format!("lease-{writer}"), 0)).await?;
            let held = if made.status == 409 { client.get(&path).await?.ok()? } else { made.ok()? };
            let mut revision = resource_version(&held);
            let mut times = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                ticks.tick().await;
                let mut renewed = lease(&format!("lease-{writer}"), times.len());
                renewed["metadata"]["resourceVersion"] = revision;
                let began = Instant::now();
                revision = resource_version(&client.put(&path, &renewed).await?.ok()?);
                times.push(began.elapsed());
            }
            Ok(times)
        });
    }
    let mut times = Vec::new();
    while let Some(done) = tasks.join_next().await {
        times.extend(done??);
    }
    times.sort_unstable();
    Ok(times)
}

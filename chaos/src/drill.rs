//! Failover drills: load through the balancer, a failure, and an account of what the clients lost.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::Bytes;
use clap::Subcommand;
use http::Method;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::client::{Access, Client};
use crate::cluster::{self, Cluster};
use crate::history::{Found, Verdict, Watched, Written, judge, longest_gap};

#[derive(Subcommand)]
pub enum Drill {
    /// `kill -9` the leader under load, start it again, repeat.
    KillLeader(KillLeader),
}

#[derive(clap::Args)]
pub struct KillLeader {
    #[command(flatten)]
    cluster: cluster::Args,
    /// How often.
    #[arg(long, default_value_t = 20)]
    repeat: usize,
    #[arg(long, default_value_t = 8)]
    writers: usize,
    #[arg(long, default_value_t = 6)]
    watchers: usize,
    /// Fail when nothing could be written for longer than this many milliseconds.
    #[arg(long)]
    max_gap: Option<u64>,
}

const NAMESPACE: &str = "kontiki-drill";
const CONFIG_MAPS: &str = "/api/v1/namespaces/kontiki-drill/configmaps";
/// A client gives up on one attempt after this.
const ATTEMPT: Duration = Duration::from_secs(10);
/// Load before the first failure and between failures.
const CALM: Duration = Duration::from_secs(1);

pub async fn run(drill: Drill) -> anyhow::Result<()> {
    match drill {
        Drill::KillLeader(args) => kill_leader(args).await,
    }
}

async fn kill_leader(args: KillLeader) -> anyhow::Result<()> {
    let mut cluster = Cluster::start(&args.cluster).await?;
    println!("{} replicas behind {}; logs in {}", cluster.len(), cluster.access.server, cluster.dir().display());
    let load = Load::start(&cluster.access, args.writers, args.watchers).await?;
    for round in 1..=args.repeat {
        tokio::time::sleep(CALM).await;
        let leader = cluster.leader().await?;
        let killed = Instant::now();
        cluster.kill(leader)?;
        let successor = cluster.leader().await?;
        let took = killed.elapsed();
        cluster.restart(leader)?;
        cluster.wait_ready(leader).await?;
        println!(
            "{round:>3}: killed {}, {} leads (seen after {} ms)",
            cluster.name(leader),
            cluster.name(successor),
            took.as_millis()
        );
    }
    tokio::time::sleep(CALM).await;
    let gap = load.finish(&cluster.access).await?;
    if let Some(most) = args.max_gap.filter(|most| gap > Duration::from_millis(*most)) {
        bail!("nothing could be written for {} ms; --max-gap is {most}", gap.as_millis());
    }
    Ok(())
}

/// Writers and watchers at work.
struct Load {
    began: Instant,
    stop: watch::Sender<Stop>,
    writers: Vec<JoinHandle<Written>>,
    watchers: Vec<JoinHandle<anyhow::Result<Watched>>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stop {
    No,
    Writers,
    /// Watchers end once they have seen this revision.
    At(u64),
}

impl Load {
    async fn start(access: &Access, writers: usize, watchers: usize) -> anyhow::Result<Load> {
        let client = access.client();
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
        client.post("/api/v1/namespaces", &namespace).await?.ok()?;
        let mut counters = Vec::new();
        let list = client.get(CONFIG_MAPS).await?.ok()?.json()?;
        let revision = revision_of(&list).context("a list without a resourceVersion")?;
        let began = Instant::now();
        let (stop, stopping) = watch::channel(Stop::No);
        let watchers = (0..watchers)
            .map(|_| tokio::spawn(watcher(access.client(), revision, stopping.clone())))
            .collect::<Vec<_>>();
        for writer in 0..writers {
            let made = client.post(CONFIG_MAPS, &counter(writer, 0)).await?.ok()?.json()?;
            counters.push(made);
        }
        let writers = counters
            .into_iter()
            .enumerate()
            .map(|(id, counter)| {
                let writer = Writer { id, client: access.client(), began, written: Written::default() };
                tokio::spawn(writer.run(counter, stopping.clone()))
            })
            .collect();
        Ok(Load { began, stop, writers, watchers })
    }

    /// Ends the load, prints the account and fails on any loss. Answers the longest time without a write.
    async fn finish(self, access: &Access) -> anyhow::Result<Duration> {
        self.stop.send(Stop::Writers)?;
        let mut written = Vec::new();
        for writer in self.writers {
            written.push(writer.await?);
        }
        let lasted = self.began.elapsed();
        let client = access.client();
        // A last event, which all watchers must get to.
        let last = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "last"}});
        let last = client.post(CONFIG_MAPS, &last).await?.ok()?.json()?;
        self.stop.send(Stop::At(revision_of(&last).context("an object without a resourceVersion")?))?;
        let mut watched = Vec::new();
        for watcher in self.watchers {
            let seen = tokio::time::timeout(Duration::from_secs(60), watcher).await;
            watched.push(seen.context("a watcher never saw the last event")???);
        }
        let mut found = Found::new();
        for item in client.get(CONFIG_MAPS).await?.ok()?.json()?["items"].as_array().into_iter().flatten() {
            let count = item["data"]["count"].as_str().and_then(|text| text.parse().ok()).unwrap_or(0);
            found.insert(item["metadata"]["name"].as_str().unwrap_or_default().to_owned(), count);
        }
        let verdict = judge(&written, &watched, &found);
        report(&written, &watched, &verdict, lasted)
    }
}

fn report(written: &[Written], watched: &[Watched], verdict: &Verdict, lasted: Duration) -> anyhow::Result<Duration> {
    let gap = longest_gap(written);
    let longest = written.iter().map(|account| account.longest).max().unwrap_or_default();
    let mut retryable: BTreeMap<&str, usize> = BTreeMap::new();
    for (what, count) in written.iter().flat_map(|account| &account.retryable) {
        *retryable.entry(what).or_default() += count;
    }
    let transport: usize = written.iter().map(|account| account.transport_errors).sum();
    let wrong: Vec<&String> = written.iter().flat_map(|account| &account.wrong).collect();
    let rate = verdict.acknowledged as f64 / lasted.as_secs_f64();
    println!("acknowledged writes          {} ({rate:.0}/s)", verdict.acknowledged);
    println!("lost                         {}", verdict.lost.len());
    println!("duplicated                   {}", verdict.duplicated.len());
    println!("connections cut under writes {transport}");
    println!("retryable errors             {retryable:?}");
    println!("other errors                 {}", wrong.len());
    println!("longest gap between writes   {} ms", gap.as_millis());
    println!("longest wait of one write    {} ms", longest.as_millis());
    let events = watched.iter().map(|account| account.events.len()).max().unwrap_or(0);
    let reconnects: usize = watched.iter().map(|account| account.reconnects).sum();
    let expired: usize = watched.iter().map(|account| account.expired).sum();
    println!(
        "watchers                     {} saw {events} events each, resumed {reconnects} times, expired {expired}; {}",
        watched.len(),
        if verdict.watch.is_empty() { "each event exactly once, in order" } else { "NOT each exactly once in order" }
    );
    for line in
        verdict.lost.iter().chain(&verdict.duplicated).chain(&verdict.watch).chain(wrong.iter().copied()).take(20)
    {
        println!("  {line}");
    }
    if !verdict.is_clean() || !wrong.is_empty() {
        bail!("the drill failed");
    }
    Ok(gap)
}

fn revision_of(object: &Value) -> Option<u64> {
    object["metadata"]["resourceVersion"].as_str()?.parse().ok()
}

fn counter(writer: usize, count: u64) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": format!("counter-{writer}")},
        "data": {"count": count.to_string()},
    })
}

struct Writer {
    id: usize,
    client: Client,
    began: Instant,
    written: Written,
}

enum Sent {
    Answer(u16, Value),
    /// No answer: nobody knows whether it was done.
    Lost,
}

impl Writer {
    async fn run(mut self, mut counter: Value, stopping: watch::Receiver<Stop>) -> Written {
        let mut number = 0;
        while *stopping.borrow() == Stop::No {
            number += 1;
            let began = Instant::now();
            if number % 2 == 0 {
                self.create(number).await;
            } else {
                self.count(&mut counter).await;
            }
            self.written.longest = self.written.longest.max(began.elapsed());
            self.written.ends.push(self.began.elapsed());
        }
        self.written
    }

    async fn attempt(&mut self, method: Method, path: &str, body: &Value) -> Sent {
        let bytes: Bytes = if body.is_null() { Bytes::new() } else { body.to_string().into() };
        let sent = tokio::time::timeout(ATTEMPT, self.client.send(method, path, "application/json", bytes)).await;
        let answer = match sent {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => {
                self.written.transport_errors += 1;
                tokio::time::sleep(Duration::from_millis(5)).await;
                return Sent::Lost;
            }
            Err(_) => {
                self.written.wrong.push(format!("no answer within {ATTEMPT:?}"));
                return Sent::Lost;
            }
        };
        let status = answer.status.as_u16();
        let body = answer.json().unwrap_or(Value::Null);
        if matches!(status, 429 | 503 | 504) {
            let reason = body["reason"].as_str().unwrap_or_default();
            *self.written.retryable.entry(format!("{status} {reason}")).or_default() += 1;
            tokio::time::sleep(Duration::from_millis(20)).await;
            return Sent::Lost;
        }
        Sent::Answer(status, body)
    }

    async fn create(&mut self, number: usize) {
        let name = format!("w{}-{number}", self.id);
        let object = json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": name},
            "data": {"by": self.id.to_string()},
        });
        let mut doubtful = false;
        loop {
            match self.attempt(Method::POST, CONFIG_MAPS, &object).await {
                Sent::Answer(201, made) => {
                    self.written.created.push((name, revision_of(&made)));
                    return;
                }
                // The attempt whose answer was lost did it.
                Sent::Answer(409, _) if doubtful => {
                    self.written.created.push((name, None));
                    return;
                }
                Sent::Answer(status, body) => {
                    self.written.wrong.push(format!("create {name}: {status} {}", body["message"]));
                    return;
                }
                Sent::Lost => doubtful = true,
            }
        }
    }

    /// Adds one to the counter, on condition that nobody else did.
    async fn count(&mut self, counter: &mut Value) {
        let path = format!("{CONFIG_MAPS}/counter-{}", self.id);
        let value = self.written.counter + 1;
        counter["data"]["count"] = value.to_string().into();
        let mut doubtful = false;
        loop {
            match self.attempt(Method::PUT, &path, counter).await {
                Sent::Answer(200, made) => {
                    self.written.counter = value;
                    self.written.counted.extend(revision_of(&made));
                    *counter = made;
                    return;
                }
                Sent::Answer(409, _) if doubtful => {
                    let Sent::Answer(200, now) = self.attempt(Method::GET, &path, &Value::Null).await else { continue };
                    if now["data"]["count"] == counter["data"]["count"] {
                        self.written.counter = value;
                        self.written.counted.extend(revision_of(&now));
                        *counter = now;
                        return;
                    }
                    self.written.wrong.push(format!("{path}: a conflict, and it holds {}", now["data"]["count"]));
                    *counter = now;
                    return;
                }
                Sent::Answer(status, body) => {
                    self.written.wrong.push(format!("update {path}: {status} {}", body["message"]));
                    return;
                }
                Sent::Lost => doubtful = true,
            }
        }
    }
}

/// Watches from `after` on, resuming at the last revision that it saw wherever the balancer sends it.
async fn watcher(client: Client, after: u64, mut stopping: watch::Receiver<Stop>) -> anyhow::Result<Watched> {
    let mut watched = Watched::default();
    let mut revision = after;
    loop {
        let path = format!("{CONFIG_MAPS}?watch=true&allowWatchBookmarks=true&resourceVersion={revision}");
        let opened = tokio::time::timeout(ATTEMPT, client.open(Method::GET, &path, "", Bytes::new())).await;
        let Ok(Ok(response)) = opened else {
            watched.reconnects += 1;
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        if !response.status().is_success() {
            watched.reconnects += 1;
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        }
        let mut body = response.into_body();
        let mut pending: Vec<u8> = Vec::new();
        loop {
            if matches!(*stopping.borrow(), Stop::At(last) if revision >= last) {
                return Ok(watched);
            }
            let frame = tokio::select! {
                frame = body.frame() => frame,
                changed = stopping.changed() => {
                    changed?;
                    continue;
                }
            };
            let Some(Ok(frame)) = frame else { break };
            let Ok(data) = frame.into_data() else { continue };
            pending.extend_from_slice(&data);
            while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
                let event: Value = serde_json::from_slice(&pending[..end])?;
                pending.drain(..=end);
                let kind = event["type"].as_str().unwrap_or_default().to_owned();
                match kind.as_str() {
                    "ERROR" => watched.expired += 1,
                    "BOOKMARK" => revision = revision.max(revision_of(&event["object"]).unwrap_or(0)),
                    _ => {
                        revision = revision_of(&event["object"]).context("an event without a resourceVersion")?;
                        let name = event["object"]["metadata"]["name"].as_str().unwrap_or_default().to_owned();
                        watched.events.push((revision, kind, name));
                    }
                }
            }
        }
        watched.reconnects += 1;
    }
}

//! The load of a drill: clients that contend for a few objects, and watchers. Everything is recorded; nothing that a server
//! may have taken is tried again, so that what was sent once must be found once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use http::{Method, StatusCode};
use http_body_util::BodyExt;
use kontiki_chaos::linearizability::{Action, Expects, Operation, Outcome, Version};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::client::{Answer, Client};
use crate::history::{Event, History, Kind, Watched};

pub const NAMESPACE: &str = "kontiki-drill";
const CONFIG_MAPS: &str = "/api/v1/namespaces/kontiki-drill/configmaps";
/// What the server is given for a request.
const TIMEOUT: &str = "timeout=3s";
/// A client gives up on one request after this: the server should have answered long before.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// Of one client, between its requests.
const PACE: Duration = Duration::from_millis(5);
const AFTER_ERROR: Duration = Duration::from_millis(25);
/// Objects that all clients share.
const KEYS: usize = 6;
/// How long watchers may take to see what is there.
const CATCH_UP: Duration = Duration::from_secs(60);

/// Answers and failures that are no part of the history, by kind.
#[derive(Debug, Default, Clone)]
pub struct Errors {
    /// Clean errors after which a client may try again, by code and reason.
    pub retryable: BTreeMap<String, usize>,
    /// Connections that weren't taken: nothing was sent.
    pub refused: usize,
    /// Connections that ended under a request.
    pub cut: usize,
    /// Requests without an answer in time.
    pub unanswered: usize,
    /// What no client should be told, likewise.
    pub other: BTreeMap<String, usize>,
    /// Of all these, what came through the balancer, by what was said or seen.
    pub balanced: BTreeMap<String, usize>,
}

impl Errors {
    pub fn add(&mut self, more: Errors) {
        for (what, count) in more.retryable {
            *self.retryable.entry(what).or_default() += count;
        }
        self.refused += more.refused;
        self.cut += more.cut;
        self.unanswered += more.unanswered;
        for (what, count) in more.other {
            *self.other.entry(what).or_default() += count;
        }
        for (what, count) in more.balanced {
            *self.balanced.entry(what).or_default() += count;
        }
    }

    pub fn retryable(&self) -> usize {
        self.retryable.values().sum()
    }

    pub fn other(&self) -> usize {
        self.other.values().sum()
    }

    fn count(&self) -> usize {
        self.retryable() + self.refused + self.cut + self.unanswered + self.other()
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stop {
    No,
    Clients,
    /// Watchers end once they have seen this revision.
    At(u64),
}

/// Whom to talk to.
pub struct Way {
    pub client: Client,
    pub balanced: bool,
}

/// Clients and watchers at work.
pub struct Load {
    began: Instant,
    stop: watch::Sender<Stop>,
    clients: Vec<JoinHandle<Account>>,
    watchers: Vec<JoinHandle<anyhow::Result<Watched>>>,
    keys: Arc<[String]>,
    label: String,
}

/// What one client did.
#[derive(Default)]
struct Account {
    operations: Vec<(String, Operation)>,
    contents: Vec<(u64, String)>,
    errors: Errors,
}

/// Everything that happened in a round, and what is there at its end.
pub struct Finished {
    pub history: History,
    pub errors: Errors,
    /// A revision after everything.
    pub revision: u64,
}

pub async fn prepare(client: &Client) -> anyhow::Result<()> {
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    client.post("/api/v1/namespaces", &namespace).await?.ok().map(drop)
}

impl Load {
    /// `admin` goes through the balancer.
    pub async fn start(
        admin: &Client,
        clients: Vec<Way>,
        watchers: Vec<Client>,
        seed: u64,
        round: usize,
    ) -> anyhow::Result<Load> {
        let list = admin.get(CONFIG_MAPS).await?.ok()?.json()?;
        let revision = revision_of(&list).context("a list without a resourceVersion")?;
        let began = Instant::now();
        let (stop, stopping) = watch::channel(Stop::No);
        let keys: Arc<[String]> = (0..KEYS).map(|number| format!("r{round}-{number}")).collect();
        let label = format!("round={round}");
        let watchers = watchers
            .into_iter()
            .map(|client| tokio::spawn(watcher(client, revision, format!("r{round}-"), began, stopping.clone())))
            .collect();
        let values = Arc::new(AtomicU64::new(1));
        let clients = clients
            .into_iter()
            .zip(0..)
            .map(|(way, number)| {
                let worker = Worker {
                    number,
                    way,
                    began,
                    round,
                    keys: keys.clone(),
                    label: label.clone(),
                    values: values.clone(),
                    rng: StdRng::seed_from_u64(seed.wrapping_add(number)),
                    account: Account::default(),
                };
                tokio::spawn(worker.run(stopping.clone()))
            })
            .collect();
        Ok(Load { began, stop, clients, watchers, keys, label })
    }

    pub async fn finish(self, admin: &Client, round: usize) -> anyhow::Result<Finished> {
        self.stop.send(Stop::Clients)?;
        let (mut history, mut errors) = (History::default(), Errors::default());
        for client in self.clients {
            let account = client.await?;
            history.operations.extend(account.operations);
            history.contents.extend(account.contents);
            errors.add(account.errors);
        }
        // A last event, which all watchers must get to.
        let last = object("last", round, 0);
        let last = admin.post(CONFIG_MAPS, &last).await?.ok()?.json()?;
        let revision = revision_of(&last).context("an object without a resourceVersion")?;
        self.stop.send(Stop::At(revision))?;
        for (number, watcher) in self.watchers.into_iter().enumerate() {
            let seen = tokio::time::timeout(CATCH_UP, watcher).await;
            history.watchers.push(seen.with_context(|| format!("watcher {number} never saw the last event"))???);
        }
        let called = self.began.elapsed().as_micros() as u64;
        let list = admin.get(&format!("{CONFIG_MAPS}?labelSelector={}", self.label)).await?.ok()?.json()?;
        let returned = self.began.elapsed().as_micros() as u64;
        history.operations.extend(
            reads(&list, &self.keys).map(|(key, found)| {
                (key, Operation { client: u64::MAX, called, returned, action: Action::Read(found) })
            }),
        );
        Ok(Finished { history, errors, revision })
    }
}

pub async fn clean_up(admin: &Client) -> anyhow::Result<()> {
    admin.delete(CONFIG_MAPS).await?.ok().map(drop)
}

/// A linearizable read of one replica, to see how it answers: the code, or that there is none.
pub async fn probe(replica: &Client, timeout: &str) -> Option<StatusCode> {
    let path = format!("{CONFIG_MAPS}/probe?timeout={timeout}");
    let answer = tokio::time::timeout(PATIENCE, replica.get(&path)).await;
    answer.ok()?.ok().map(|answer| answer.status)
}

fn revision_of(object: &Value) -> Option<u64> {
    object["metadata"]["resourceVersion"].as_str()?.parse().ok()
}

fn value_of(object: &Value) -> Option<u64> {
    object["data"]["value"].as_str()?.parse().ok()
}

fn version_of(object: &Value) -> Option<Version> {
    Some(Version { value: value_of(object)?, revision: revision_of(object) })
}

/// What a list says of each key.
fn reads(list: &Value, keys: &[String]) -> impl Iterator<Item = (String, Option<Version>)> {
    let items = list["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    keys.iter().map(|key| {
        let item = items.iter().find(|item| item["metadata"]["name"] == key.as_str());
        (key.clone(), item.and_then(version_of))
    })
}

/// `base` is what a patch leaves alone.
fn object(name: &str, round: usize, value: u64) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "labels": {"round": round.to_string()}},
        "data": {"value": value.to_string(), "base": value.to_string()},
    })
}

struct Worker {
    number: u64,
    way: Way,
    began: Instant,
    round: usize,
    keys: Arc<[String]>,
    label: String,
    values: Arc<AtomicU64>,
    rng: StdRng,
    account: Account,
}

/// What came of one request.
enum Sent {
    Answer(Answer),
    /// It was not taken: nothing happened.
    Refused,
    /// Nobody knows whether it was done.
    Lost,
}

/// What clients do, and how often of a hundred.
const MIX: &[(Do, u32)] =
    &[(Do::Get, 25), (Do::List, 5), (Do::Create, 25), (Do::Update, 25), (Do::Patch, 12), (Do::Delete, 8)];

#[derive(Clone, Copy)]
enum Do {
    Get,
    List,
    Create,
    Update,
    Patch,
    Delete,
}

impl Worker {
    async fn run(mut self, stopping: watch::Receiver<Stop>) -> Account {
        let keys = self.keys.clone();
        while *stopping.borrow() == Stop::No {
            let Ok((what, _)) = MIX.choose_weighted(&mut self.rng, |(_, weight)| *weight) else { break };
            let Some(key) = keys.choose(&mut self.rng) else { break };
            let failures = self.account.errors.count();
            match what {
                Do::Get => drop(self.get(key).await),
                Do::List => self.list().await,
                Do::Create => self.create(key).await,
                Do::Update => self.update(key).await,
                Do::Patch => self.patch(key).await,
                Do::Delete => self.delete(key).await,
            }
            let pause = if self.account.errors.count() == failures { PACE } else { AFTER_ERROR };
            tokio::time::sleep(pause.mul_f64(self.rng.random_range(0.5..1.5))).await;
        }
        self.account
    }

    fn now(&self) -> u64 {
        self.began.elapsed().as_micros() as u64
    }

    fn new_value(&self) -> u64 {
        self.values.fetch_add(1, Ordering::Relaxed)
    }

    fn record(&mut self, key: &str, called: u64, action: Action) {
        let operation = Operation { client: self.number, called, returned: self.now(), action };
        self.account.operations.push((key.to_owned(), operation));
    }

    /// Notes what an object held; what a value was written with never changes.
    fn saw(&mut self, object: &Value) {
        if let Some(value) = value_of(object) {
            self.account.contents.push((value, object["data"].to_string()));
        }
    }

    async fn send(&mut self, method: Method, path: &str, content_type: &str, body: Option<&Value>) -> Sent {
        let bytes = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
        let sent = tokio::time::timeout(PATIENCE, self.way.client.send(method, path, content_type, bytes)).await;
        let errors = &mut self.account.errors;
        let (result, what) = match sent {
            Ok(Ok(answer)) => match answer.status.as_u16() {
                429 | 503 | 504 if answer.json().is_ok_and(|body| body["kind"] == "Status") => {
                    let reason = answer.json().map(|mut body| body["reason"].take()).unwrap_or_default();
                    let code = answer.status.as_u16();
                    let what = format!("{code} {}", reason.as_str().unwrap_or_default());
                    *errors.retryable.entry(what.clone()).or_default() += 1;
                    (if code == 429 { Sent::Refused } else { Sent::Lost }, what)
                }
                _ => return Sent::Answer(answer),
            },
            Ok(Err(error)) => {
                let refused = error.downcast_ref::<hyper_util::client::legacy::Error>();
                let result = if refused.is_some_and(hyper_util::client::legacy::Error::is_connect) {
                    errors.refused += 1;
                    Sent::Refused
                } else {
                    errors.cut += 1;
                    Sent::Lost
                };
                (result, format!("{error:#}"))
            }
            Err(_) => {
                errors.unanswered += 1;
                (Sent::Lost, format!("no answer in {PATIENCE:?}"))
            }
        };
        self.failed(what);
        result
    }

    fn failed(&mut self, what: String) {
        if self.way.balanced {
            *self.account.errors.balanced.entry(what).or_default() += 1;
        }
    }

    /// An answer that fits nothing.
    fn wrong(&mut self, what: &str, answer: &Answer) {
        let message = answer.json().map(|mut body| body["message"].take()).unwrap_or_default();
        let text = format!("{what}: {} {}", answer.status, message.as_str().unwrap_or("without a message"));
        *self.account.errors.other.entry(text.clone()).or_default() += 1;
        self.failed(text);
    }

    async fn get(&mut self, key: &str) -> Option<Version> {
        let called = self.now();
        let path = format!("{CONFIG_MAPS}/{key}?{TIMEOUT}");
        let Sent::Answer(answer) = self.send(Method::GET, &path, "", None).await else { return None };
        let found = match (answer.status.as_u16(), answer.json()) {
            (200, Ok(object)) => {
                self.saw(&object);
                version_of(&object)
            }
            (404, _) => None,
            _ => {
                self.wrong("get", &answer);
                return None;
            }
        };
        self.record(key, called, Action::Read(found));
        found
    }

    async fn list(&mut self) {
        let called = self.now();
        let path = format!("{CONFIG_MAPS}?labelSelector={}&{TIMEOUT}", self.label);
        let Sent::Answer(answer) = self.send(Method::GET, &path, "", None).await else { return };
        match (answer.status.as_u16(), answer.json()) {
            (200, Ok(list)) => {
                for item in list["items"].as_array().into_iter().flatten() {
                    self.saw(item);
                }
                for (key, found) in reads(&list, &self.keys.clone()) {
                    self.record(&key, called, Action::Read(found));
                }
            }
            _ => self.wrong("list", &answer),
        }
    }

    /// Sends a write and records it. `refusal` is the code that says that what it expects isn't so.
    async fn write(&mut self, what: &str, key: &str, request: Write) {
        let Write { method, path, content_type, body, expects, value, refusals } = request;
        let called = self.now();
        let outcome = match self.send(method, &path, content_type, body.as_ref()).await {
            Sent::Refused => return,
            Sent::Lost => Outcome::Unknown,
            Sent::Answer(answer) if answer.status.is_success() => match answer.json() {
                Ok(object) if value.is_some() => {
                    self.saw(&object);
                    Outcome::Done(revision_of(&object))
                }
                _ => Outcome::Done(None),
            },
            Sent::Answer(answer) if refusals.contains(&answer.status.as_u16()) => Outcome::Refused,
            Sent::Answer(answer) => {
                self.wrong(what, &answer);
                Outcome::Unknown
            }
        };
        self.record(key, called, Action::Write { expects, value, outcome });
    }

    async fn create(&mut self, key: &str) {
        let value = self.new_value();
        let request = Write {
            method: Method::POST,
            path: format!("{CONFIG_MAPS}?{TIMEOUT}"),
            content_type: JSON,
            body: Some(object(key, self.round, value)),
            expects: Expects::Nothing,
            value: Some(value),
            refusals: &[409],
        };
        self.write("create", key, request).await;
    }

    /// Of what was just read, on condition that it is still that.
    async fn update(&mut self, key: &str) {
        let Some(Version { revision: Some(revision), .. }) = self.get(key).await else { return };
        let value = self.new_value();
        let mut body = object(key, self.round, value);
        body["metadata"]["resourceVersion"] = revision.to_string().into();
        let request = Write {
            method: Method::PUT,
            path: format!("{CONFIG_MAPS}/{key}?{TIMEOUT}"),
            content_type: JSON,
            body: Some(body),
            expects: Expects::Revision(revision),
            value: Some(value),
            refusals: &[404, 409],
        };
        self.write("update", key, request).await;
    }

    async fn patch(&mut self, key: &str) {
        let value = self.new_value();
        let merge = json!({"data": {"value": value.to_string()}});
        let (content_type, body) = match value % 3 {
            0 => ("application/merge-patch+json", merge),
            1 => ("application/strategic-merge-patch+json", merge),
            _ => (
                "application/json-patch+json",
                json!([{"op": "replace", "path": "/data/value", "value": value.to_string()}]),
            ),
        };
        let request = Write {
            method: Method::PATCH,
            path: format!("{CONFIG_MAPS}/{key}?{TIMEOUT}"),
            content_type,
            body: Some(body),
            expects: Expects::Something,
            value: Some(value),
            refusals: &[404],
        };
        self.write("patch", key, request).await;
    }

    async fn delete(&mut self, key: &str) {
        let request = Write {
            method: Method::DELETE,
            path: format!("{CONFIG_MAPS}/{key}?{TIMEOUT}"),
            content_type: JSON,
            body: None,
            expects: Expects::Something,
            value: None,
            refusals: &[404],
        };
        self.write("delete", key, request).await;
    }
}

const JSON: &str = "application/json";

struct Write {
    method: Method,
    path: String,
    content_type: &'static str,
    body: Option<Value>,
    expects: Expects,
    value: Option<u64>,
    /// Codes that say that what it expects isn't so.
    refusals: &'static [u16],
}

/// Watches from `after` on, resuming at the last revision that it saw wherever its client gets to.
async fn watcher(
    client: Client,
    after: u64,
    prefix: String,
    began: Instant,
    mut stopping: watch::Receiver<Stop>,
) -> anyhow::Result<Watched> {
    let mut watched = Watched::default();
    let mut revision = after;
    loop {
        if matches!(*stopping.borrow(), Stop::At(last) if revision >= last) {
            return Ok(watched);
        }
        let path = format!("{CONFIG_MAPS}?watch=true&allowWatchBookmarks=true&resourceVersion={revision}");
        let opened = tokio::time::timeout(PATIENCE, client.open(Method::GET, &path, "", Bytes::new())).await;
        let response = match opened {
            Ok(Ok(response)) if response.status().is_success() => response,
            Ok(Ok(response)) if response.status() == StatusCode::GONE => {
                watched.expired = Some(revision);
                return Ok(watched);
            }
            _ => {
                watched.reconnects += 1;
                tokio::time::sleep(AFTER_ERROR).await;
                continue;
            }
        };
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
                let kind = match event["type"].as_str().unwrap_or_default() {
                    "BOOKMARK" => {
                        revision = revision.max(revision_of(&event["object"]).unwrap_or(0));
                        continue;
                    }
                    "ERROR" if event["object"]["code"] == 410 => {
                        watched.expired = Some(revision);
                        return Ok(watched);
                    }
                    "ADDED" => Kind::Added,
                    "MODIFIED" => Kind::Modified,
                    "DELETED" => Kind::Deleted,
                    _ => break,
                };
                revision = revision_of(&event["object"]).context("an event without a resourceVersion")?;
                let key = event["object"]["metadata"]["name"].as_str().unwrap_or_default();
                if key.starts_with(&prefix) {
                    let value = value_of(&event["object"]).context("an event without a value")?;
                    let at = began.elapsed().as_micros() as u64;
                    watched.events.push(Event { at, revision, kind, key: key.to_owned(), value });
                }
            }
        }
        watched.reconnects += 1;
        tokio::time::sleep(AFTER_ERROR).await;
    }
}

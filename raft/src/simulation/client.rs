//! Clients of a simulated cluster. Each does one thing after another, at any replica, and writes down what it did and
//! what it was told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kontiki_chaos::linearizability::{Action, Expects, Operation, Outcome, Version};
use kontiki_storage::{Condition, Outcome as Result_, Revision, Transaction, View, Write};
use parking_lot::Mutex;
use rand::Rng;
use rand::rngs::StdRng;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};

use super::Mistake;
use super::network::Network;
use crate::replica::Replica;

/// Replicas that can be asked, and where they run.
pub(super) type Doors = Arc<Mutex<Vec<Option<(Replica, Handle)>>>>;

/// How long a replica may take, and how much longer its answer is waited for.
const DEADLINE: (u64, u64) = (200, 2000);
const GRACE: Duration = Duration::from_millis(500);

/// What all clients did and were told.
#[derive(Default)]
pub(super) struct Book {
    /// Counts calls and returns: the clock of the history.
    moments: u64,
    values: u64,
    pub(super) history: Vec<(usize, Operation)>,
    /// Values whose writes were acknowledged, and at what revision.
    pub(super) acknowledged: BTreeMap<u64, Revision>,
    /// Values whose writes were said not to happen.
    pub(super) denied: BTreeSet<u64>,
    pub(super) unknown: u64,
    pub(super) reads: u64,
    /// What is wrong whatever else happened.
    pub(super) wrong: Option<String>,
}

impl Book {
    fn moment(&mut self) -> u64 {
        self.moments += 1;
        self.moments
    }
}

#[derive(Clone)]
pub(super) struct Client {
    pub(super) id: u64,
    pub(super) network: Network,
    pub(super) doors: Doors,
    pub(super) book: Arc<Mutex<Book>>,
    /// How many keys there are beside the pair that is always written together.
    pub(super) keys: usize,
    pub(super) mistake: Option<Mistake>,
}

enum Question {
    Read,
    Write(Transaction),
    Compact(Revision),
}

impl Question {
    fn name(&self) -> &'static str {
        match self {
            Question::Read => "read",
            Question::Write(_) => "write",
            Question::Compact(_) => "compact",
        }
    }
}

enum Answer {
    Found(Vec<Option<Version>>),
    Outcome(Result_),
    NotDone,
    Unknown,
}

fn key(index: usize) -> String {
    format!("a/{index}")
}

fn version(view: &View, index: usize) -> Option<Version> {
    let record = view.get(&key(index))?;
    let value = std::str::from_utf8(&record.value).ok()?.split(' ').next()?.parse().ok()?;
    Some(Version { value, revision: Some(record.modified) })
}

fn found(view: &View, keys: usize) -> Vec<Option<Version>> {
    (0..keys + 2).map(|index| version(view, index)).collect()
}

impl Client {
    /// Works until `end`, in milliseconds of the network.
    pub(super) async fn run(self, mut rng: StdRng, end: u64, pause: u64) {
        let mut seen = vec![None; self.keys + 2];
        while self.network.now() < end {
            sleep(Duration::from_millis(rng.random_range(0..=pause))).await;
            let replica = rng.random_range(0..self.network.outside());
            match rng.random_range(0..100) {
                0..40 => drop(self.read(&mut rng, replica, &mut seen).await),
                40..98 => self.write(&mut rng, replica, &mut seen).await,
                _ => {
                    let newest = seen.iter().flatten().filter_map(|version: &Version| version.revision).max();
                    let before = newest.unwrap_or(0).saturating_sub(rng.random_range(0..50));
                    self.ask(&mut rng, replica, Question::Compact(before)).await;
                }
            }
        }
    }

    /// Reads every key at once.
    pub(super) async fn read(&self, rng: &mut StdRng, replica: usize, seen: &mut Vec<Option<Version>>) -> bool {
        let called = self.book.lock().moment();
        let Answer::Found(found) = self.ask(rng, replica, Question::Read).await else { return false };
        let mut book = self.book.lock();
        let returned = book.moment();
        for (key, version) in found.iter().enumerate() {
            let action = Action::Read(*version);
            book.history.push((key, Operation { client: self.id, called, returned, action }));
        }
        book.reads += 1;
        if found[self.keys] != found[self.keys + 1] {
            book.wrong = Some(format!("half a transaction: {:?}", &found[self.keys..]));
        }
        *seen = found;
        true
    }

    async fn write(&self, rng: &mut StdRng, replica: usize, seen: &mut [Option<Version>]) {
        let (called, value) = {
            let mut book = self.book.lock();
            book.values += 1;
            (book.moment(), book.values)
        };
        let first = rng.random_range(0..=self.keys);
        let keys = first..if first == self.keys { first + 2 } else { first + 1 };
        let expects = match seen[first].and_then(|version| version.revision) {
            Some(revision) if rng.random_bool(0.6) => Expects::Revision(revision),
            _ => [Expects::Anything, Expects::Nothing, Expects::Something][rng.random_range(0..3)],
        };
        let deletes = matches!(expects, Expects::Revision(_) | Expects::Something) && rng.random_bool(0.15);
        let condition = |key: String| match expects {
            Expects::Anything => None,
            Expects::Nothing => Some(Condition::Absent(key.as_str().into())),
            Expects::Something => Some(Condition::Exists(key.as_str().into())),
            Expects::Revision(revision) => Some(Condition::At(key.as_str().into(), revision)),
        };
        let filler = "x".repeat(rng.random_range(0..200));
        let write = |index: usize| match deletes {
            true => Write::Delete { key: key(index).into() },
            false => Write::Put {
                key: key(index).into(),
                value: Bytes::from(format!("{value} {filler}")),
                revision_at: None,
                expires_at: None,
            },
        };
        let conditions = condition(key(first)).into_iter().collect();
        let transaction = Transaction { conditions, writes: keys.clone().map(write).collect() };
        let answer = self.ask(rng, replica, Question::Write(transaction)).await;
        let mut book = self.book.lock();
        let outcome = match answer {
            Answer::Outcome(Result_::Committed { revision }) => {
                if !deletes {
                    book.acknowledged.insert(value, revision);
                }
                Outcome::Done(Some(revision))
            }
            Answer::Outcome(Result_::Conflict { .. }) => {
                book.denied.insert(value);
                Outcome::Refused
            }
            Answer::NotDone => {
                book.denied.insert(value);
                return;
            }
            Answer::Outcome(_) | Answer::Found(_) | Answer::Unknown => {
                book.unknown += 1;
                Outcome::Unknown
            }
        };
        let returned = book.moment();
        let value = (!deletes).then_some(value);
        for key in keys {
            let expects = if key == first { expects } else { Expects::Anything };
            if key != first && outcome == Outcome::Refused {
                continue;
            }
            let action = Action::Write { expects, value, outcome };
            book.history.push((key, Operation { client: self.id, called, returned, action }));
            seen[key] = match outcome {
                Outcome::Done(revision) => value.map(|value| Version { value, revision }),
                _ => seen[key],
            };
        }
    }

    async fn ask(&self, rng: &mut StdRng, replica: usize, question: Question) -> Answer {
        let within = Duration::from_millis(rng.random_range(DEADLINE.0..DEADLINE.1));
        let (reply, answer) = oneshot::channel();
        let (network, doors, keys, mistake) = (self.network.clone(), self.doors.clone(), self.keys, self.mistake);
        let outside = network.outside();
        self.network.send(outside, replica, question.name(), self.id, move || {
            let door = doors.lock()[replica].clone();
            // Nobody has heard of the question.
            let Some((replica_there, handle)) = door else { return drop(reply.send(Answer::NotDone)) };
            handle.spawn(async move {
                let believes = match mistake {
                    Some(Mistake::ReadsAtOnce) => true,
                    Some(Mistake::LeadsOnTrust) => replica_there.is_leader(),
                    _ => false,
                };
                let answer = match question {
                    Question::Read if believes => Answer::Found(found(&replica_there.store().view(), keys)),
                    question => answer_at(&replica_there, question, keys, Instant::now() + within).await,
                };
                network.send(replica, outside, "outcome", 0, move || {
                    // Whoever has given up meanwhile doesn't want it.
                    let _ = reply.send(answer);
                });
            });
        });
        match timeout(within + GRACE, answer).await {
            Ok(Ok(answer)) => answer,
            _ => Answer::Unknown,
        }
    }
}

async fn answer_at(replica: &Replica, question: Question, keys: usize, deadline: Instant) -> Answer {
    use crate::ProposeError::Unknown;
    match question {
        Question::Read => match replica.read_barrier(deadline).await {
            Ok(view) => Answer::Found(found(&view, keys)),
            Err(_) => Answer::NotDone,
        },
        Question::Write(transaction) => match replica.propose(transaction, deadline).await {
            Ok(outcome) => Answer::Outcome(outcome),
            Err(Unknown) => Answer::Unknown,
            Err(_) => Answer::NotDone,
        },
        Question::Compact(before) => match replica.compact(before, deadline).await {
            Ok(_) | Err(Unknown) => Answer::Unknown,
            Err(_) => Answer::NotDone,
        },
    }
}

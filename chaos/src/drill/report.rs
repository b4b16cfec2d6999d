//! What a drill tells people and programs.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value, json};

use super::clients::Errors;
use super::faults::Fault;
use crate::client::SENT_AGAIN;
use crate::history::{Verdict, Watched};

pub struct Round {
    pub fault: &'static Fault,
    /// What was done.
    pub note: String,
    /// Until all replicas were ready again.
    pub took: Duration,
    /// The longest time without an acknowledged write.
    pub gap: Duration,
    pub verdict: Verdict,
    pub errors: Errors,
    /// All that is wrong, with the evidence.
    pub violations: Vec<String>,
    pub watchers: Vec<Watched>,
}

const LEGEND: &str = "\
failed: rounds with a violation; acked: acknowledged writes; lost, doubled: of these; order: objects whose history no order
explains; watch: events missed, repeated or out of order; retry: clean errors after which a client tries again; other: any other
error; cut: connections that ended under a request; mute: requests without an answer; by LB: requests that failed through
the balancer; gap: milliseconds without an acknowledged write, of the rounds";

/// Of violations that are shown of one round.
const SHOWN: usize = 20;

impl Round {
    pub fn print(&self, number: usize) {
        let Round { fault, note, took, gap, verdict, errors, violations, .. } = self;
        eprintln!(
            "{number:>3}: {}: {note}; ready after {} ms; {} writes, {} ms without; {} retryable errors, {} cut; {}",
            fault.name,
            took.as_millis(),
            verdict.acknowledged,
            gap.as_millis(),
            errors.retryable(),
            errors.cut,
            if violations.is_empty() { "clean" } else { "FAILED" }
        );
        for violation in violations.iter().take(SHOWN) {
            eprintln!("     {violation}");
        }
    }
}

pub struct Report {
    seed: u64,
    pub rounds: Vec<Round>,
}

/// Of all rounds with one fault, or of all.
#[derive(Default)]
struct Sum<'a> {
    rounds: Vec<&'a Round>,
    errors: Errors,
}

impl<'a> Sum<'a> {
    fn of(rounds: impl Iterator<Item = &'a Round>) -> Sum<'a> {
        let mut sum = Sum::default();
        for round in rounds {
            sum.errors.add(round.errors.clone());
            sum.rounds.push(round);
        }
        sum
    }

    fn count(&self, what: impl Fn(&Round) -> usize) -> usize {
        self.rounds.iter().map(|round| what(round)).sum()
    }

    /// The gap that so many of a hundred rounds stay under.
    fn gap(&self, percent: usize) -> u128 {
        let mut gaps: Vec<u128> = self.rounds.iter().map(|round| round.gap.as_millis()).collect();
        gaps.sort_unstable();
        let index = (gaps.len() * percent).div_ceil(100).saturating_sub(1);
        gaps.get(index).copied().unwrap_or_default()
    }

    /// Of every column the name for programs, the heading for people, and the value.
    fn columns(&self) -> Vec<(&'static str, &'static str, usize)> {
        let gap = |percent| usize::try_from(self.gap(percent)).unwrap_or(usize::MAX);
        vec![
            ("rounds", "rounds", self.rounds.len()),
            ("failedRounds", "failed", self.count(|round| usize::from(!round.violations.is_empty()))),
            ("acknowledged", "acked", self.count(|round| round.verdict.acknowledged)),
            ("lost", "lost", self.count(|round| round.verdict.lost.len())),
            ("doubled", "doubled", self.count(|round| round.verdict.doubled.len())),
            ("notLinearizable", "order", self.count(|round| round.verdict.unordered.len())),
            ("watchViolations", "watch", self.count(|round| round.verdict.watch.len())),
            ("retryable", "retry", self.errors.retryable()),
            ("otherErrors", "other", self.errors.other()),
            ("cut", "cut", self.errors.cut),
            ("unanswered", "mute", self.errors.unanswered),
            ("failedThroughBalancer", "by LB", self.errors.balanced.values().sum()),
            ("gapMillisecondsP50", "gap p50", gap(50)),
            ("gapMillisecondsP99", "gap p99", gap(99)),
            ("gapMillisecondsMax", "gap max", gap(100)),
        ]
    }
}

impl Report {
    pub fn new(seed: u64) -> Report {
        Report { seed, rounds: Vec::new() }
    }

    pub fn failed(&self) -> bool {
        self.rounds.iter().any(|round| !round.violations.is_empty())
    }

    /// By fault in the order of their names, and of all.
    fn sums(&self) -> Vec<(&'static str, Sum<'_>)> {
        let names: BTreeMap<&'static str, ()> = self.rounds.iter().map(|round| (round.fault.name, ())).collect();
        let by_name = |name: &'static str| Sum::of(self.rounds.iter().filter(move |round| round.fault.name == name));
        let mut sums: Vec<_> = names.into_keys().map(|name| (name, by_name(name))).collect();
        if sums.len() > 1 {
            sums.push(("all", Sum::of(self.rounds.iter())));
        }
        sums
    }

    pub fn print(&self) {
        let sums = self.sums();
        let Some((_, first)) = sums.first() else { return };
        let head: String = first.columns().iter().map(|(_, heading, _)| format!(" {heading:>7}")).collect();
        println!("{:<16}{head}", "fault");
        for (name, sum) in &sums {
            let line: String = sum.columns().iter().map(|(.., value)| format!(" {value:>7}")).collect();
            println!("{name:<16}{line}");
        }
        let all = Sum::of(self.rounds.iter());
        println!("errors that a client may retry after: {:?}", all.errors.retryable);
        let watchers = self.rounds.iter().flat_map(|round| &round.watchers);
        let (events, resumed) = watchers
            .fold((0, 0), |(events, resumed), watched| (events + watched.events.len(), resumed + watched.reconnects));
        println!("watchers saw {events} events and resumed {resumed} times");
        println!("{} requests were sent again because a GOAWAY said that they were not taken", sent_again());
        println!("{LEGEND}");
    }

    pub fn json(&self) -> Value {
        let rounds = self.rounds.iter().map(|round| {
            json!({
                "fault": round.fault.name,
                "note": round.note,
                "readyMilliseconds": round.took.as_millis() as u64,
                "violations": round.violations,
                "sum": columns(&Sum::of([round].into_iter())),
            })
        });
        let faults: serde_json::Map<String, Value> =
            self.sums().iter().map(|(name, sum)| ((*name).to_owned(), columns(sum))).collect();
        json!({
            "seed": self.seed,
            "failed": self.failed(),
            "sentAgain": sent_again(),
            "faults": faults,
            "rounds": rounds.collect::<Vec<_>>(),
        })
    }
}

/// By the whole process: a request is tried again far below the rounds.
fn sent_again() -> u64 {
    SENT_AGAIN.load(Ordering::Relaxed)
}

fn columns(sum: &Sum) -> Value {
    let mut object: serde_json::Map<String, Value> =
        sum.columns().into_iter().map(|(name, _, value)| (name.to_owned(), value.into())).collect();
    object.insert("retryableErrors".into(), json!(sum.errors.retryable));
    object.into()
}

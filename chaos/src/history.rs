//! What the clients of a drill did and saw, and whether that adds up.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// One writer's account.
#[derive(Debug, Default)]
pub struct Written {
    /// Object name and the revision that the server acknowledged it at (None: acknowledged only by what was found there
    /// after an answer had been lost).
    pub created: Vec<(String, Option<u64>)>,
    /// The last value of the writer's counter that is known to be stored.
    pub counter: u64,
    /// Revisions of acknowledged counter updates.
    pub counted: Vec<u64>,
    /// When successful writes ended, since the drill began.
    pub ends: Vec<Duration>,
    /// The longest that one write took, with all its retries.
    pub longest: Duration,
    pub transport_errors: usize,
    /// By status code and reason.
    pub retryable: BTreeMap<String, usize>,
    /// What no client should be told; each a sentence.
    pub wrong: Vec<String>,
}

/// One watcher's account: the events in the order in which they came.
#[derive(Debug, Default)]
pub struct Watched {
    /// Revision, type, name.
    pub events: Vec<(u64, String, String)>,
    pub reconnects: usize,
    pub expired: usize,
}

/// What is there at the end: object name to its counter (0 for objects that aren't counters).
pub type Found = BTreeMap<String, u64>;

#[derive(Debug, Default)]
pub struct Verdict {
    pub acknowledged: usize,
    pub lost: Vec<String>,
    pub duplicated: Vec<String>,
    pub watch: Vec<String>,
}

impl Verdict {
    pub fn is_clean(&self) -> bool {
        self.lost.is_empty() && self.duplicated.is_empty() && self.watch.is_empty()
    }
}

pub fn judge(written: &[Written], watched: &[Watched], found: &Found) -> Verdict {
    let mut verdict = Verdict::default();
    for (writer, account) in written.iter().enumerate() {
        verdict.acknowledged += account.created.len() + account.counted.len();
        for (name, _) in &account.created {
            if !found.contains_key(name) {
                verdict.lost.push(format!("{name} was acknowledged and isn't there"));
            }
        }
        let counter = format!("counter-{writer}");
        match found.get(&counter).copied().unwrap_or(0) {
            now if now < account.counter => {
                verdict.lost.push(format!("{counter} is {now}, acknowledged was {}", account.counter));
            }
            now if now > account.counter => {
                verdict.duplicated.push(format!("{counter} is {now}, written was {}", account.counter));
            }
            _ => {}
        }
    }
    let acknowledged: BTreeSet<u64> = written
        .iter()
        .flat_map(|account| account.created.iter().filter_map(|(_, revision)| *revision).chain(account.counted.clone()))
        .collect();
    let all: BTreeSet<u64> = watched.iter().flat_map(|account| account.events.iter().map(|event| event.0)).collect();
    for (watcher, account) in watched.iter().enumerate() {
        for pair in account.events.windows(2) {
            if pair[1].0 == pair[0].0 {
                verdict.watch.push(format!("watcher {watcher} saw revision {} twice", pair[0].0));
            } else if pair[1].0 < pair[0].0 {
                verdict.watch.push(format!("watcher {watcher} saw revision {} after {}", pair[1].0, pair[0].0));
            }
        }
        let seen: BTreeSet<u64> = account.events.iter().map(|event| event.0).collect();
        for revision in all.union(&acknowledged).filter(|revision| !seen.contains(revision)) {
            verdict.watch.push(format!("watcher {watcher} never saw revision {revision}"));
        }
        let mut added = BTreeSet::new();
        for (revision, _, name) in account.events.iter().filter(|event| event.1 == "ADDED") {
            if !added.insert(name) {
                verdict.watch.push(format!("watcher {watcher} saw {name} added again at revision {revision}"));
            }
        }
    }
    verdict
}

/// The longest time without a successful write of anybody.
pub fn longest_gap(written: &[Written]) -> Duration {
    let mut ends: Vec<Duration> = written.iter().flat_map(|account| account.ends.iter().copied()).collect();
    ends.sort_unstable();
    ends.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(created: &[(&str, u64)], counter: u64) -> Written {
        let created = created.iter().map(|(name, revision)| ((*name).to_owned(), Some(*revision))).collect();
        Written { created, counter, ..Written::default() }
    }

    fn watched(events: &[(u64, &str)]) -> Watched {
        let events =
            events.iter().map(|(revision, name)| (*revision, "ADDED".to_owned(), (*name).to_owned())).collect();
        Watched { events, ..Watched::default() }
    }

    fn found(objects: &[(&str, u64)]) -> Found {
        objects.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
    }

    #[test]
    fn a_clean_history_is_clean() {
        let verdict = judge(
            &[written(&[("a", 3), ("b", 5)], 2)],
            &[watched(&[(3, "a"), (5, "b")])],
            &found(&[("a", 0), ("b", 0), ("counter-0", 2)]),
        );
        assert!(verdict.is_clean(), "{verdict:?}");
        assert_eq!(verdict.acknowledged, 2);
    }

    #[test]
    fn bad_histories_are_found_out() {
        let lost = judge(&[written(&[("a", 3)], 0)], &[], &found(&[]));
        assert_eq!(lost.lost.len(), 1);
        let forgot = judge(&[written(&[], 4)], &[], &found(&[("counter-0", 3)]));
        assert_eq!(forgot.lost.len(), 1);
        let twice = judge(&[written(&[], 4)], &[], &found(&[("counter-0", 5)]));
        assert_eq!(twice.duplicated.len(), 1);
        for events in [&[(5, "b"), (3, "a")][..], &[(3, "a"), (3, "a"), (5, "b")], &[(3, "a")]] {
            let verdict =
                judge(&[written(&[("a", 3), ("b", 5)], 0)], &[watched(events)], &found(&[("a", 0), ("b", 0)]));
            assert!(!verdict.watch.is_empty(), "{events:?}");
        }
    }
}

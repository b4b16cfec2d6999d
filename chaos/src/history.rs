//! What the clients of a round did and saw, and whether that adds up.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use kontiki_chaos::linearizability::{self, Action, Operation, Outcome};
use serde::{Deserialize, Serialize};

/// All of one round. Times are microseconds since its begin.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct History {
    /// Each on one key; a list is a read of every key.
    pub operations: Vec<(String, Operation)>,
    pub watchers: Vec<Watched>,
    /// What an object held, by the value that a write gave it, whenever somebody saw it.
    pub contents: Vec<(u64, String)>,
}

/// One watcher's account: the events in the order in which they came.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Watched {
    pub events: Vec<Event>,
    pub reconnects: usize,
    /// The server said that it no longer has the history from this revision on.
    pub expired: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When it came.
    pub at: u64,
    pub revision: u64,
    pub kind: Kind,
    pub key: String,
    pub value: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Kind {
    Added,
    Modified,
    Deleted,
}

/// What is wrong; each a sentence.
#[derive(Debug, Default)]
pub struct Verdict {
    pub acknowledged: usize,
    pub lost: Vec<String>,
    pub doubled: Vec<String>,
    pub watch: Vec<String>,
    pub unordered: Vec<String>,
    pub mixed_up: Vec<String>,
}

impl Verdict {
    pub fn violations(&self) -> impl Iterator<Item = String> {
        let all = [
            ("lost", &self.lost),
            ("doubled", &self.doubled),
            ("watch", &self.watch),
            ("not linearizable", &self.unordered),
            ("content", &self.mixed_up),
        ];
        all.into_iter().flat_map(|(what, found)| found.iter().map(move |text| format!("{what}: {text}")))
    }
}

pub fn judge(history: &History) -> Verdict {
    let mut verdict = Verdict { acknowledged: acknowledged(history).count(), ..Verdict::default() };
    let all: BTreeMap<u64, &Event> =
        history.watchers.iter().flat_map(|watched| &watched.events).map(|event| (event.revision, event)).collect();
    if !history.watchers.is_empty() {
        for (key, value, revision) in acknowledged(history).filter_map(|(key, value, revision)| {
            // A deletion's revision isn't told.
            Some((key, value?, revision?))
        }) {
            if all.get(&revision).is_none_or(|event| event.key != key || event.value != value) {
                verdict
                    .lost
                    .push(format!("{key}: {value} was acknowledged at revision {revision}, which holds it not"));
            }
        }
    }
    for (number, watched) in history.watchers.iter().enumerate() {
        judge_watcher(number, watched, &all, &mut verdict.watch);
    }
    verdict.doubled = doubled(history);
    let mut contents = HashMap::new();
    for (value, content) in &history.contents {
        if contents.insert(value, content).is_some_and(|before| before != content) {
            verdict.mixed_up.push(format!("{value} was written once and showed as {content} and as something else"));
        }
    }
    if let Err((key, violation)) = linearizability::check_all(settled(history, &all)) {
        verdict.unordered.push(format!("{key}: {violation}"));
    }
    verdict
}

/// Key, value and revision of each write that a client was told was done.
fn acknowledged(history: &History) -> impl Iterator<Item = (&str, Option<u64>, Option<u64>)> {
    history.operations.iter().filter_map(|(key, operation)| match operation.action {
        Action::Write { value, outcome: Outcome::Done(revision), .. } => Some((key.as_str(), value, revision)),
        _ => None,
    })
}

fn judge_watcher(number: usize, watched: &Watched, all: &BTreeMap<u64, &Event>, found: &mut Vec<String>) {
    let mut told = |text: String| found.push(format!("watcher {number} {text}"));
    if let Some(revision) = watched.expired {
        told(format!("was told at revision {revision} that the history is gone"));
    }
    let mut there: BTreeSet<&str> = BTreeSet::new();
    let mut last = 0;
    for event in &watched.events {
        if event.revision <= last {
            told(format!("saw revision {} after {last}", event.revision));
        }
        last = event.revision;
        if all.get(&event.revision).is_some_and(|other| (&other.key, other.value) != (&event.key, event.value)) {
            told(format!("saw another event than others at revision {}", event.revision));
        }
        let fits = match event.kind {
            Kind::Added => there.insert(&event.key),
            Kind::Modified => there.contains(event.key.as_str()),
            Kind::Deleted => there.remove(event.key.as_str()),
        };
        if !fits {
            told(format!("saw {} {:?} at revision {}, which doesn't follow", event.key, event.kind, event.revision));
        }
    }
    let seen: BTreeSet<u64> = watched.events.iter().map(|event| event.revision).collect();
    for revision in all.keys().filter(|revision| !seen.contains(revision)).take(5) {
        told(format!("never saw revision {revision}"));
    }
}

/// Values that were written more than once, though each was sent once.
fn doubled(history: &History) -> Vec<String> {
    let events = history.watchers.iter().flat_map(|watched| &watched.events);
    let written = events.filter(|event| event.kind != Kind::Deleted).map(|event| (event.value, event.revision));
    let read = history.operations.iter().filter_map(|(_, operation)| match operation.action {
        Action::Read(Some(version)) => Some((version.value, version.revision?)),
        _ => None,
    });
    let mut revisions: BTreeMap<u64, BTreeSet<u64>> = BTreeMap::new();
    for (value, revision) in written.chain(read) {
        revisions.entry(value).or_default().insert(revision);
    }
    let twice = revisions.into_iter().filter(|(_, revisions)| revisions.len() > 1);
    twice.map(|(value, revisions)| format!("{value} was sent once and is at revisions {revisions:?}")).collect()
}

/// The operations with unknown outcomes settled by what watchers saw, which must be everything: a search among many writes
/// that may or may not have happened would take long. Deletions don't show whose they were and stay open.
fn settled<'a>(
    history: &'a History,
    all: &'a BTreeMap<u64, &Event>,
) -> impl Iterator<Item = (&'a str, Operation)> + use<'a> {
    let written: HashMap<u64, &Event> =
        all.values().filter(|event| event.kind != Kind::Deleted).map(|event| (event.value, *event)).collect();
    history.operations.iter().filter_map(move |(key, operation)| {
        let mut operation = *operation;
        if let Action::Write { value: Some(value), outcome, .. } = &mut operation.action
            && *outcome == Outcome::Unknown
            && !history.watchers.is_empty()
        {
            let event = written.get(value)?;
            *outcome = Outcome::Done(Some(event.revision));
            operation.returned = event.at;
        }
        Some((key.as_str(), operation))
    })
}

/// The longest time without an acknowledged write.
pub fn longest_gap(history: &History) -> Duration {
    let mut ends: Vec<u64> = history
        .operations
        .iter()
        .filter(|(_, operation)| matches!(operation.action, Action::Write { outcome: Outcome::Done(_), .. }))
        .map(|(_, operation)| operation.returned)
        .collect();
    ends.sort_unstable();
    Duration::from_micros(ends.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use kontiki_chaos::linearizability::{Expects, Version};

    use super::*;

    fn write(called: u64, expects: Expects, value: u64, outcome: Outcome) -> (String, Operation) {
        let action = Action::Write { expects, value: Some(value), outcome };
        ("k".into(), Operation { client: 0, called, returned: called + 1, action })
    }

    fn read(called: u64, found: Option<(u64, u64)>) -> (String, Operation) {
        let action = Action::Read(found.map(|(value, revision)| Version { value, revision: Some(revision) }));
        ("k".into(), Operation { client: 1, called, returned: called + 1, action })
    }

    fn event(revision: u64, kind: Kind, value: u64) -> Event {
        Event { at: revision * 10 + 5, revision, kind, key: "k".into(), value }
    }

    /// Create 1 at revision 1, update it to 2 without an answer at revision 2, delete it.
    fn good() -> History {
        let deletion = Action::Write { expects: Expects::Something, value: None, outcome: Outcome::Done(None) };
        let events = vec![event(1, Kind::Added, 1), event(2, Kind::Modified, 2), event(3, Kind::Deleted, 2)];
        let watched = || Watched { events: events.clone(), ..Watched::default() };
        History {
            operations: vec![
                write(10, Expects::Nothing, 1, Outcome::Done(Some(1))),
                write(20, Expects::Revision(1), 2, Outcome::Unknown),
                write(21, Expects::Something, 3, Outcome::Unknown),
                read(26, Some((2, 2))),
                ("k".into(), Operation { client: 0, called: 30, returned: 31, action: deletion }),
                read(40, None),
            ],
            watchers: vec![watched(), watched()],
            contents: vec![(1, "a".into()), (2, "b".into()), (2, "b".into())],
        }
    }

    #[test]
    fn a_good_history_is_clean() {
        let verdict = judge(&good());
        assert_eq!(verdict.violations().collect::<Vec<_>>(), Vec::<String>::new());
        assert_eq!(verdict.acknowledged, 2);
        assert_eq!(longest_gap(&good()), Duration::from_micros(20));
    }

    #[test]
    fn bad_histories_are_found_out() {
        type Break = fn(&mut History);
        let cases: &[(&str, Break)] = &[
            ("lost: k: 1 was", |history| {
                for watched in &mut history.watchers {
                    watched.events[0].value = 9;
                }
            }),
            ("doubled: 2", |history| {
                for watched in &mut history.watchers {
                    watched.events.insert(2, Event { revision: 3, ..event(2, Kind::Modified, 2) });
                    watched.events[3].revision = 4;
                }
            }),
            ("never saw revision 2", |history| drop(history.watchers[1].events.remove(1))),
            ("after 2", |history| history.watchers[0].events.swap(0, 1)),
            ("after 1", |history| {
                let first = history.watchers[0].events[0].clone();
                history.watchers[0].events.insert(1, first);
            }),
            ("doesn't follow", |history| history.watchers[0].events[1].kind = Kind::Added),
            ("history is gone", |history| history.watchers[0].expired = Some(2)),
            ("content: 2", |history| history.contents.push((2, "c".into()))),
            // A write that nobody saw happen can't explain what is read.
            ("not linearizable: k", |history| history.operations.push(read(50, Some((3, 4))))),
            ("not linearizable: k", |history| history.operations.push(read(50, Some((2, 2))))),
        ];
        for (expected, break_it) in cases {
            let mut history = good();
            break_it(&mut history);
            let found: Vec<String> = judge(&history).violations().collect();
            assert!(found.iter().any(|text| text.contains(expected)), "{expected}: {found:?}");
        }
    }

    #[test]
    fn a_history_can_be_kept() {
        let text = serde_json::to_string(&good()).unwrap();
        let again: History = serde_json::from_str(&text).unwrap();
        assert_eq!(again.operations, good().operations);
        assert_eq!(again.watchers[0].events, good().watchers[0].events);
    }
}

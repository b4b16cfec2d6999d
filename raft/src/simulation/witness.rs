//! Sees all replicas of a simulated cluster from inside, after every step, and knows what must hold between them.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};

use kontiki_storage::{Cursor, LogPosition, Revision};

use super::client::Book;
use crate::replica::Replica;
use crate::types::{Entry, Payload, position};

/// A key, and the value that was written to it.
type Change = (String, Option<u64>);

#[derive(Default)]
pub(super) struct Witness {
    /// What every entry that was ever in a log said, and which entry came before it.
    entries: HashMap<LogPosition, (u64, Option<LogPosition>)>,
    /// By index.
    applied: BTreeMap<u64, LogPosition>,
    changes: BTreeMap<Revision, Vec<Change>>,
    values: HashMap<u64, Revision>,
    hashes: HashMap<Revision, u64>,
    compacted: HashMap<Revision, Revision>,
    replicas: HashMap<usize, Seen>,
    /// How often each replica has ended.
    ends: HashMap<usize, u64>,
    /// In which life a replica has led a term. Of two that lead one term the one with the higher id is the later; but no
    /// replica may do so twice.
    leaders: HashMap<(u64, usize), u64>,
}

/// What was seen of one life of a replica.
#[derive(Default)]
struct Seen {
    /// The entries in its log, in order.
    log: Vec<LogPosition>,
    cursor: Option<Cursor>,
    revision: Revision,
}

impl Witness {
    /// The replica's life has ended.
    pub(super) fn forget(&mut self, replica: usize) {
        self.replicas.remove(&replica);
        *self.ends.entry(replica).or_default() += 1;
    }

    pub(super) fn revision(&self) -> Revision {
        self.changes.last_key_value().map_or(0, |(revision, _)| *revision)
    }

    /// How many terms were led, by how many replicas each.
    pub(super) fn leaders(&self) -> u64 {
        self.leaders.len() as u64
    }

    pub(super) fn look(&mut self, at: usize, replica: &Replica) -> Result<(), String> {
        let mut seen = self.replicas.remove(&at).unwrap_or_default();
        let result = self.look_at_log(&mut seen, replica).and_then(|()| self.look_at_state(&mut seen, replica));
        self.replicas.insert(at, seen);
        result.and_then(|()| self.look_at_leader(at, replica)).map_err(|error| format!("replica {at}: {error}"))
    }

    fn look_at_leader(&mut self, at: usize, replica: &Replica) -> Result<(), String> {
        let now = replica.leadership().borrow().clone();
        let life = self.ends.get(&at).copied().unwrap_or_default();
        if now.is_leader && *self.leaders.entry((now.term, at)).or_insert(life) != life {
            return Err(format!("it leads term {}, which it has led before it was started anew", now.term));
        }
        Ok(())
    }

    fn look_at_log(&mut self, seen: &mut Seen, replica: &Replica) -> Result<(), String> {
        let log = replica.log();
        let Some(last) = log.last().map(|id| position(&id)) else { return Ok(()) };
        if seen.log.last() == Some(&last) {
            return Ok(());
        }
        let read = |from, to| log.read(from, to, usize::MAX).map_err(|error| error.to_string());
        // What was truncated since the last look is forgotten from the end backwards.
        while let Some(newest) = seen.log.last() {
            let same = newest.index <= last.index
                && read(newest.index, newest.index + 1)?.first().is_none_or(|entry| position(&entry.log_id) == *newest);
            if same {
                break;
            }
            seen.log.pop();
        }
        let from = seen.log.last().map_or(0, |newest| newest.index + 1);
        for entry in read(from, last.index + 1)? {
            let before = seen.log.last().copied().filter(|before| before.index + 1 == entry.log_id.index);
            let at = position(&entry.log_id);
            let found = (digest(&entry), before);
            let known = self.entries.entry(at).or_insert(found);
            if known.0 != found.0 {
                return Err(format!("entry {at:?} says something else here"));
            }
            match (known.1, before) {
                (Some(known), Some(before)) if known != before => {
                    return Err(format!("entry {at:?} follows {before:?} here, and {known:?} elsewhere"));
                }
                (None, _) => known.1 = before,
                _ => {}
            }
            seen.log.push(at);
        }
        Ok(())
    }

    fn look_at_state(&mut self, seen: &mut Seen, replica: &Replica) -> Result<(), String> {
        let store = replica.store();
        if let Some(applied) = store.applied() {
            let known = *self.applied.entry(applied.index).or_insert(applied);
            if known != applied {
                return Err(format!("it applied {applied:?}, and another replica {known:?}"));
            }
        }
        let (revision, hash) = store.state_hash();
        if revision < seen.revision {
            return Err(format!("its revision went back from {} to {revision}", seen.revision));
        }
        seen.revision = revision;
        if *self.hashes.entry(revision).or_insert(hash) != hash {
            return Err(format!("its state at revision {revision} is not that of the others"));
        }
        if let Some(compacted) = store.witness_at(revision).and_then(|witness| witness.compacted)
            && *self.compacted.entry(revision).or_insert(compacted) != compacted
        {
            return Err(format!("at revision {revision} it retained {compacted} and later ones, others did not"));
        }
        let mut news: BTreeMap<Revision, Vec<Change>> = BTreeMap::new();
        loop {
            let cursor = match &mut seen.cursor {
                Some(cursor) => cursor,
                None => {
                    let all = store.subscribe_all(store.compacted_revision()).map_err(|error| error.to_string())?;
                    seen.cursor.insert(all)
                }
            };
            match cursor.try_next() {
                Ok(Some(event)) => {
                    let text = event.record.as_ref().and_then(|record| std::str::from_utf8(&record.value).ok());
                    let value = text.and_then(|text| text.split(' ').next()?.parse().ok());
                    news.entry(event.revision).or_default().push((event.key.to_string(), value));
                }
                Ok(None) => break,
                // It got a snapshot, or the history was cut.
                Err(_) => seen.cursor = None,
            }
        }
        news.into_iter().try_for_each(|(revision, changes)| self.note(revision, changes))
    }

    fn note(&mut self, revision: Revision, changes: Vec<Change>) -> Result<(), String> {
        if let Some(known) = self.changes.get(&revision) {
            return match *known == changes {
                true => Ok(()),
                false => Err(format!("revision {revision} is {changes:?} here, and {known:?} elsewhere")),
            };
        }
        if revision != self.revision() + 1 {
            return Err(format!("revision {revision} follows {}", self.revision()));
        }
        for value in changes.iter().filter_map(|(_, value)| *value) {
            let first = *self.values.entry(value).or_insert(revision);
            if first != revision {
                return Err(format!("value {value} was written at revision {first}, and at {revision} again"));
            }
        }
        self.changes.insert(revision, changes);
        Ok(())
    }

    /// Whether what clients were told is what happened.
    pub(super) fn compare(&self, book: &Book) -> Result<(), String> {
        for (value, revision) in &book.acknowledged {
            match self.values.get(value) {
                Some(found) if found == revision => {}
                Some(found) => return Err(format!("value {value} was acknowledged at {revision}, and is at {found}")),
                None => return Err(format!("value {value} was acknowledged at {revision} and is lost")),
            }
        }
        match book.denied.iter().find_map(|value| Some((value, self.values.get(value)?))) {
            Some((value, revision)) => {
                Err(format!("value {value} was said not to be applied, and is at revision {revision}"))
            }
            None => Ok(()),
        }
    }
}

fn digest(entry: &Entry) -> u64 {
    let mut hasher = DefaultHasher::new();
    match &entry.payload {
        Payload::Blank => 0.hash(&mut hasher),
        Payload::Normal(batch) => batch.bytes().hash(&mut hasher),
        Payload::Membership(membership) => format!("{membership:?}").hash(&mut hasher),
    }
    hasher.finish()
}

use std::collections::HashSet;
use std::ops::Bound;
use std::sync::{Arc, OnceLock};

use crate::key::table_of;
use crate::state::{Rows, State, Table};
use crate::{Key, Record, Revision};

/// The whole state at one revision. It never changes; holding it keeps what it shows in memory.
#[derive(Debug, Clone)]
pub struct View {
    pub(crate) state: Arc<State>,
    past: Option<Arc<Past>>,
}

/// An earlier revision of a state: the tables that have changed since, each reconstructed when first looked at.
#[derive(Debug)]
pub(crate) struct Past {
    pub(crate) revision: Revision,
    pub(crate) state: Arc<State>,
    /// Sorted by name.
    tables: Box<[(Key, OnceLock<Rows>)]>,
}

impl Past {
    pub(crate) fn new(state: Arc<State>, revision: Revision) -> Past {
        let changed = state.tables.iter().filter(|(_, table)| table.history.last() > revision);
        let tables = changed.map(|(name, _)| (name.clone(), OnceLock::new())).collect();
        Past { revision, tables, state }
    }
}

/// The table's rows as they were at `revision`, by undoing what happened after it.
fn undo(table: &Table, revision: Revision) -> Rows {
    let mut rows = table.rows.clone();
    let newer = table.history.events.skip(table.history.first_after(revision));
    let mut done = HashSet::new();
    for event in newer.iter().filter(|event| done.insert(event.key.as_str())) {
        match &event.previous {
            Some(record) => rows.insert(event.key.clone(), record.clone()),
            None => rows.remove(event.key.as_str()),
        };
    }
    rows
}

impl View {
    pub(crate) fn now(state: Arc<State>) -> View {
        View { state, past: None }
    }

    pub(crate) fn then(past: Arc<Past>) -> View {
        View { state: past.state.clone(), past: Some(past) }
    }

    pub fn revision(&self) -> Revision {
        self.past.as_ref().map_or(self.state.revision, |past| past.revision)
    }

    pub fn get(&self, key: &str) -> Option<&Arc<Record>> {
        self.rows(table_of(key))?.get(key)
    }

    /// The records whose key starts with `prefix`, in key order within a table.
    pub fn prefix<'a>(&'a self, prefix: &str) -> impl Iterator<Item = &'a Arc<Record>> + use<'a> {
        self.range(prefix, Bound::Unbounded)
    }

    /// The records whose key starts with `prefix` and isn't before `from`.
    pub fn range<'a>(&'a self, prefix: &str, from: Bound<&str>) -> impl Iterator<Item = &'a Arc<Record>> + use<'a> {
        let start = match from {
            Bound::Included(key) | Bound::Excluded(key) if key >= prefix => from,
            _ => Bound::Included(prefix),
        };
        let tables = self.tables_of(prefix);
        // Every key of a table starts with the table's name: no need to look at each.
        let rest: Box<str> = if tables.len() == 1 && prefix.find('/') == prefix.len().checked_sub(1) {
            Box::default()
        } else {
            prefix.into()
        };
        let ranges: Vec<_> = tables.into_iter().map(|rows| rows.range::<_, str>((start, Bound::Unbounded))).collect();
        ranges.into_iter().flat_map(move |range| {
            let rest = rest.clone();
            range.take_while(move |(key, _)| key.as_str().starts_with(&*rest)).map(|(_, record)| record)
        })
    }

    /// How many keys start with `prefix`; at once for a whole table.
    pub fn count(&self, prefix: &str) -> usize {
        match prefix.strip_suffix('/') {
            Some(table) if !table.contains('/') => self.rows(table).map_or(0, |rows| rows.len()),
            _ => self.prefix(prefix).count(),
        }
    }

    /// The names of the tables that hold anything.
    pub fn tables(&self) -> impl Iterator<Item = &str> {
        self.state.tables.keys().map(Key::as_str).filter(|name| self.rows(name).is_some_and(|rows| !rows.is_empty()))
    }

    fn tables_of(&self, prefix: &str) -> Vec<&Rows> {
        if prefix.contains('/') {
            return self.rows(table_of(prefix)).into_iter().collect();
        }
        let names = self.state.tables.keys().map(Key::as_str).filter(|name| name.starts_with(prefix));
        names.filter_map(|name| self.rows(name)).collect()
    }

    fn rows(&self, table: &str) -> Option<&Rows> {
        let now = self.state.tables.get(table)?;
        if let Some(past) = &self.past
            && let Ok(index) = past.tables.binary_search_by(|(name, _)| name.as_str().cmp(table))
        {
            return Some(past.tables[index].1.get_or_init(|| undo(now, past.revision)));
        }
        Some(&now.rows)
    }
}

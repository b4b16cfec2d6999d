//! Field management: who set which fields, as `metadata.managedFields` tells, kept up to date by every write.
//!
//! A write compares the object with what was there. Its manager gets the fields that it changed or added, all others
//! lose those and the ones that are gone. Pure functions of the two objects, the schema and the time.

mod apply;
mod compare;
mod entries;
mod merge;
pub mod reset;
pub mod scale;
mod set;
mod shape;
mod typed;

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::sync::LazyLock;

use serde_json::{Value, json};

pub use self::apply::apply;
pub use self::reset::Reset;

use self::compare::{Comparison, compare};
use self::entries::{Id, Operation};
use self::set::Set;
use crate::codec::canonical::zero;
use crate::object::Fields;
use crate::schema::Node;

/// The versions in which objects can be seen: entries speak of the fields of the version that was written.
pub trait Versions {
    /// The schema of a kind in a version; none where there is no such version.
    fn node(&self, api_version: &str, kind: &str) -> Option<Node<'_>>;

    /// The object, which says what it is, in a version of its kind.
    fn convert<'o>(&self, object: &'o Value, api_version: &str) -> Option<Cow<'o, Value>>;
}

/// A write and who makes it.
#[derive(Clone, Copy)]
pub struct Write<'w> {
    pub versions: &'w dyn Versions,
    /// What the request speaks: `apps/v1`.
    pub api_version: &'w str,
    /// Empty for the object itself.
    pub subresource: &'w str,
    pub manager: &'w str,
    pub reset: Reset,
    /// The time that changed entries get.
    pub now: &'w str,
}

impl Write<'_> {
    fn id(&self, operation: Operation) -> Id<'_> {
        let manager = if self.manager.is_empty() { "unknown" } else { self.manager };
        let api_version = if operation == Operation::Apply { "" } else { self.api_version };
        Id { manager, operation, api_version, subresource: self.subresource }
    }
}

/// Keeps the entries of a created, updated or patched object: `object` is in the stored version, with defaults, and
/// before admission and what its kind resets. `live` is what was there; none at creation.
pub fn update(write: Write<'_>, live: Option<&Value>, object: &mut Value) {
    let sent = entries::take(object);
    let mut managed = known(write, sent, live);
    // An object whose fields nobody manages stays one, until somebody applies.
    if managed.is_empty() && live.is_some() {
        return;
    }
    // Where fields can't be told apart, nobody manages any.
    if track(write, live, object, &mut managed).is_some() {
        entries::put(object, managed);
    }
}

/// The entries of an object that is there.
fn entries_of(live: &Value) -> Vec<Value> {
    entries::of(live).to_vec()
}

/// The entries to begin with: the client's if it sent some that are right, otherwise those that are there.
fn known(write: Write<'_>, sent: Option<Value>, live: Option<&Value>) -> Vec<Value> {
    let of_live = live.map(entries::of).unwrap_or_default();
    match sent {
        Some(Value::Array(sent)) if sent == of_live && !sent.is_empty() => sent,
        Some(sent) if write.subresource.is_empty() => {
            if entries::is_reset(&sent) {
                return Vec::new();
            }
            entries::read(&sent).filter(|read| !read.is_empty()).unwrap_or_else(|| of_live.to_vec())
        }
        _ => of_live.to_vec(),
    }
}

/// What no entry ever tells.
static STRIPPED: LazyLock<Set> = LazyLock::new(|| {
    let all = json!({"f:apiVersion": {}, "f:kind": {}, "f:metadata": {".": {}, "f:name": {}, "f:namespace": {},
        "f:creationTimestamp": {}, "f:selfLink": {}, "f:uid": {}, "f:clusterName": {}, "f:generation": {},
        "f:managedFields": {}, "f:resourceVersion": {}}});
    set::read(&all).unwrap_or_default()
});

/// The fields that the write came to manage go to its manager's entry.
fn track(write: Write<'_>, live: Option<&Value>, object: &Value, managed: &mut Vec<Value>) -> Option<()> {
    let changes = changes(write, live, object, managed).ok()?;
    changes.displace(managed);
    let mut won = changes.ours.modified;
    set::unite(&mut won, changes.ours.added);
    set::subtract(&mut won, &STRIPPED);
    if !won.is_empty() {
        let id = write.id(Operation::Update);
        match managed.iter_mut().find(|entry| entries::id(entry) == id) {
            Some(entry) => {
                set::unite(entries::fields_mut(entry), won);
                entry.set(&["time"], write.now);
            }
            None => managed.push(entries::new(id, write.api_version, Some(write.now), won)),
        }
    }
    entries::cap(managed);
    Some(())
}

/// What a write changes, in the version that the request speaks and those of the entries.
struct Changes<'w> {
    api_version: &'w str,
    ours: Comparison,
    /// None for a version that is no more.
    others: Vec<(String, Option<Comparison>)>,
}

fn changes<'w>(write: Write<'w>, live: Option<&Value>, new: &Value, managed: &[Value]) -> Result<Changes<'w>, String> {
    let compared = |version: &str| {
        let node = write.versions.node(version, new.text_at(&["kind"]))?;
        let new = write.versions.convert(new, version)?;
        let old = match live {
            Some(live) => write.versions.convert(live, version)?,
            None => Cow::Owned(zero(node)),
        };
        let compared = compare(node, &old, &new).map(|mut changes| {
            for fields in [&mut changes.added, &mut changes.removed, &mut changes.modified] {
                reset::filter(write.reset, fields);
            }
            changes
        });
        Some(compared)
    };
    let api_version = write.api_version;
    let ours = compared(api_version).unwrap_or_else(|| Err(format!("no version {api_version}")))?;
    let mut others: Vec<(String, Option<Comparison>)> = Vec::new();
    for version in managed.iter().map(|entry| entry.text_at(&["apiVersion"])) {
        if version != api_version && !others.iter().any(|(known, _)| known == version) {
            others.push((version.to_owned(), compared(version).transpose()?));
        }
    }
    Ok(Changes { api_version, ours, others })
}

impl Changes<'_> {
    /// In the version of an entry.
    fn of(&self, entry: &Value) -> Option<&Comparison> {
        let version = entry.text_at(&["apiVersion"]);
        if version == self.api_version {
            return Some(&self.ours);
        }
        self.others.iter().find(|(known, _)| known == version).and_then(|(_, changes)| changes.as_ref())
    }

    /// Takes what was changed, added or removed from the entries. A version that is no more takes its entries with it.
    fn displace(&self, managed: &mut Vec<Value>) {
        managed.retain_mut(|entry| {
            let Some(changes) = self.of(entry) else { return false };
            let fields = entries::fields_mut(entry);
            for lost in [&changes.modified, &changes.added, &changes.removed] {
                set::subtract(fields, lost);
            }
            !fields.is_empty()
        });
    }
}

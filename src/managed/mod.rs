//! Field management: who set which fields, as `metadata.managedFields` tells, kept up to date by every write.
//!
//! A write compares the object with what was there. Its manager gets the fields that it changed or added, all others
//! lose those and the ones that are gone. Pure functions of the two objects, the schema and the time.

mod compare;
mod entries;
pub mod reset;
pub mod scale;
mod set;
mod shape;

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::sync::LazyLock;

use serde_json::{Value, json};

pub use self::reset::Reset;

use self::compare::{Comparison, compare};
use self::entries::{Id, Operation};
use self::set::Set;
use crate::codec::canonical::zero;
use crate::object::Fields;
use crate::schema::Node;

/// The versions in which an object can be seen: entries speak of the fields of the version that was written.
pub trait Versions {
    /// The schema of the kind in a version, and the object (which is in the stored version) in it; none where there is
    /// no such version.
    fn see<'o>(&self, object: &'o Value, api_version: &str) -> Option<(Node<'_>, Cow<'o, Value>)>;
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
    let changes = displace(write, live, object, managed, None)?;
    let mut won = changes.modified;
    set::unite(&mut won, changes.added);
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

/// What differs between the objects in the version that the request speaks. All entries but `own` lose it.
fn displace(
    write: Write<'_>,
    live: Option<&Value>,
    object: &Value,
    managed: &mut Vec<Value>,
    own: Option<Id<'_>>,
) -> Option<Comparison> {
    let mut others: Vec<(String, Option<Comparison>)> = Vec::new();
    let ours = compared(write, live, object, write.api_version)?.ok()?;
    let mut broken = false;
    managed.retain_mut(|entry| {
        if own.is_some_and(|own| own == entries::id(entry)) {
            return true;
        }
        let version = entry.text_at(&["apiVersion"]);
        let changes = if version == write.api_version {
            Some(&ours)
        } else {
            if !others.iter().any(|(known, _)| known == version) {
                let compared = compared(write, live, object, version).transpose();
                broken |= compared.is_err();
                others.push((version.to_owned(), compared.unwrap_or_default()));
            }
            others.iter().find(|(known, _)| known == version).and_then(|(_, changes)| changes.as_ref())
        };
        // A version that is no more takes its entries with it.
        let Some(changes) = changes else { return false };
        let fields = entries::fields_mut(entry);
        for lost in [&changes.modified, &changes.added, &changes.removed] {
            set::subtract(fields, lost);
        }
        !fields.is_empty()
    });
    (!broken).then_some(ours)
}

fn compared(
    write: Write<'_>,
    live: Option<&Value>,
    object: &Value,
    version: &str,
) -> Option<Result<Comparison, String>> {
    let (node, new) = write.versions.see(object, version)?;
    let old = match live {
        Some(live) => write.versions.see(live, version)?.1,
        None => Cow::Owned(zero(node)),
    };
    let compared = compare(node, &old, &new).map(|mut changes| {
        for fields in [&mut changes.added, &mut changes.removed, &mut changes.modified] {
            reset::filter(write.reset, fields);
        }
        changes
    });
    Some(compared)
}

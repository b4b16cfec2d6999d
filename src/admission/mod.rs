//! Admission: what the server's own plugins change about an object and whether they let it in, in upstream's order.
//!
//! A plugin sees the object in its stored version and the state that the write is decided on. What it relies on it can
//! make a condition of the write's transaction.

mod certificates;
mod escalation;
mod ingress;
mod lifecycle;
mod limits;
mod nodes;
mod pod_security;
mod pods;
mod priority;
mod quota;
mod storage;

use std::collections::HashMap;

use kontiki_storage::{Condition, Transaction, View};
use serde::Deserialize;
use serde_json::Value;

use crate::object::Fields;
use crate::status::{ApiError, Result};
use crate::verbs::Request;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    Delete,
}

/// What is about to be written.
#[derive(Clone, Copy)]
pub struct Write<'a> {
    pub operation: Operation,
    /// What is there, for updates and deletions.
    pub old: Option<&'a Value>,
}

/// One write on its way through the plugins.
struct Admission<'a> {
    request: &'a Request,
    view: &'a View,
    operation: Operation,
    old: Option<&'a Value>,
    /// What is written with the object, and what it depends on.
    effects: Transaction,
    warnings: Vec<String>,
}

impl Admission<'_> {
    /// The write is made only if this still holds.
    fn on(&mut self, condition: Condition) {
        self.effects.conditions.push(condition);
    }

    fn table(&self) -> &str {
        &self.request.resource.table
    }

    /// Whether the write is of objects of this table, and not through a subresource.
    fn is_whole(&self, table: &str) -> bool {
        self.table() == table && self.request.info.subresource.is_empty()
    }

    /// Refuses the write, in the form that all plugins use.
    fn forbidden(&self, object: &Value, why: impl std::fmt::Display) -> ApiError {
        let resource = &self.request.resource;
        ApiError::forbidden(&resource.group, &resource.plural, self.name(object), why)
    }

    /// What messages call the object; its name may not have been generated yet.
    fn name<'o>(&'o self, object: &'o Value) -> &'o str {
        let texts =
            [self.request.name(), object.text_at(&["metadata", "name"]), object.text_at(&["metadata", "generateName"])];
        texts.into_iter().find(|text| !text.is_empty()).unwrap_or("Unknown")
    }
}

/// A plugin: the writes that it looks at, and what it does about them.
struct Plugin {
    handles: fn(&Admission<'_>) -> bool,
    mutate: fn(&mut Admission<'_>, &mut Value) -> Result<()>,
    validate: fn(&mut Admission<'_>, &Value) -> Result<()>,
}

fn unchanged(_: &mut Admission<'_>, _: &mut Value) -> Result<()> {
    Ok(())
}

fn admitted(_: &mut Admission<'_>, _: &Value) -> Result<()> {
    Ok(())
}

/// In the order in which upstream runs its default plugins.
static CHAIN: &[Plugin] = &[
    lifecycle::PLUGIN,
    limits::PLUGIN,
    pods::SERVICE_ACCOUNT,
    nodes::PLUGIN,
    pod_security::PLUGIN,
    priority::PLUGIN,
    pods::TOLERATIONS,
    storage::DEFAULT_CLASS,
    storage::RESIZE,
    pods::RUNTIME_CLASS,
    certificates::APPROVAL,
    certificates::SIGNING,
    certificates::SUBJECT,
    ingress::PLUGIN,
    pods::TOPOLOGY_LABELS,
    quota::PLUGIN,
    // Not one of upstream's plugins, which checks it where it stores these kinds.
    escalation::PLUGIN,
];

/// The name of the newest object with one of these annotations set to `true`; of several of one second, the first.
fn newest_marked(view: &View, prefix: &str, marks: &[&str]) -> Option<String> {
    #[derive(Deserialize)]
    struct Object {
        metadata: Metadata,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Metadata {
        name: String,
        creation_timestamp: String,
        #[serde(default)]
        annotations: HashMap<String, String>,
    }
    let all = view.prefix(prefix).filter_map(|record| serde_json::from_slice::<Object>(&record.value).ok());
    let is_marked = |meta: &Metadata| marks.iter().any(|mark| meta.annotations.get(*mark).is_some_and(|v| v == "true"));
    let marked = all.map(|object| object.metadata).filter(is_marked);
    let newest =
        marked.min_by(|a, b| b.creation_timestamp.cmp(&a.creation_timestamp).then_with(|| a.name.cmp(&b.name)));
    newest.map(|meta| meta.name)
}

/// Lets the plugins change the object, or refuse it; gives what is to be part of the write's transaction.
pub fn mutate(request: &mut Request, view: &View, write: Write<'_>, object: &mut Value) -> Result<Transaction> {
    run(request, view, write, |plugin, admission| (plugin.mutate)(admission, object))
}

/// Asks the plugins whether they let the object in as it is now.
pub fn validate(request: &mut Request, view: &View, write: Write<'_>, object: &Value) -> Result<Transaction> {
    run(request, view, write, |plugin, admission| (plugin.validate)(admission, object))
}

fn run(
    request: &mut Request,
    view: &View,
    Write { operation, old }: Write<'_>,
    mut step: impl FnMut(&Plugin, &mut Admission<'_>) -> Result<()>,
) -> Result<Transaction> {
    let mut admission =
        Admission { request, view, operation, old, effects: Transaction::default(), warnings: Vec::new() };
    let verdict = CHAIN.iter().try_for_each(|plugin| match (plugin.handles)(&admission) {
        true => step(plugin, &mut admission),
        false => Ok(()),
    });
    let Admission { effects, warnings, .. } = admission;
    request.warnings.extend(warnings);
    verdict.map(|()| effects)
}

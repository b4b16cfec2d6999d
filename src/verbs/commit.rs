//! From a write that has been decided to its answer.
//!
//! A write is decided on this replica's own state, without asking anybody, and proposed on the condition that what it
//! was decided on still holds. Where it doesn't, or where the state is the reason not to write at all and this replica
//! may lag behind, it is decided again on a state that has everything which was acknowledged before.

use std::sync::Arc;

use bytes::Bytes;
use kontiki_raft::ProposeError;
use kontiki_storage::{Condition, Key, Outcome, Record, Revision, Transaction, View, Write};
use serde_json::Value;
use tokio::time::Instant;

use super::{Answer, Object, Request, TIMED_OUT, TOO_MANY};
use crate::object::Fields;
use crate::status::{ApiError, Result};

/// A write that is decided but not made.
pub struct Plan {
    /// Without writes, everything is already as the client wants it.
    pub transaction: Transaction,
    pub reply: Reply,
    /// What `resourceVersion` the answer shows when nothing is written.
    pub unchanged: Option<Revision>,
    /// The answer shows that version even where something is written.
    pub shows_old: bool,
}

/// What the client is told once it is made.
pub enum Reply {
    /// An object as it is stored; the revision's digits go in at `revision_at`.
    Stored { code: u16, value: Bytes, revision_at: u32 },
    /// An object as it was stored, which may be gone now.
    Record { code: u16, record: Arc<Record> },
    /// An object that is not stored like this, and shows the revision.
    Shown { code: u16, object: Value },
    /// What doesn't depend on the revision.
    Ready { code: u16, object: Value },
}

impl Plan {
    pub fn new(reply: Reply, unchanged: Option<Revision>) -> Plan {
        Plan { transaction: Transaction::default(), reply, unchanged, shows_old: false }
    }

    pub fn on(mut self, condition: Condition) -> Plan {
        self.transaction.conditions.push(condition);
        self
    }

    /// Makes what else is decided part of the same transaction.
    pub fn join(&mut self, other: Transaction) {
        self.transaction.conditions.extend(other.conditions);
        self.transaction.writes.extend(other.writes);
    }

    pub fn put(&mut self, key: Key, value: Bytes, revision_at: u32, expires_at: Option<u64>) {
        self.transaction.writes.push(Write::Put { key, value, revision_at: Some(revision_at), expires_at });
    }

    pub fn delete(&mut self, key: Key) {
        self.transaction.writes.push(Write::Delete { key });
    }
}

/// Decides and proposes until it is done, refused, or the deadline is over.
pub async fn carry_out(
    request: &mut Request,
    dry_run: bool,
    mut decide: impl FnMut(&mut Request, &View) -> Result<Plan>,
) -> Result<Answer> {
    let replica = request.server.replica.clone();
    let warnings = request.warnings.len();
    let mut view = replica.store().view();
    let mut fresh = false;
    loop {
        let plan = decide(request, &view);
        let writes = plan.as_ref().is_ok_and(|plan| !plan.transaction.writes.is_empty()) && !dry_run;
        if !writes && !fresh {
            let now = request.fresh_view().await?;
            fresh = true;
            if now.revision() != view.revision() {
                view = now;
                request.warnings.truncate(warnings);
                continue;
            }
        }
        let plan = plan?;
        if !writes {
            return answer(request, plan.reply, plan.unchanged);
        }
        match replica.propose(plan.transaction, request.deadline).await? {
            Outcome::Committed { .. } if plan.shows_old => return answer(request, plan.reply, plan.unchanged),
            Outcome::Committed { revision } => return answer(request, plan.reply, Some(revision)),
            Outcome::Conflict { .. } => {
                if Instant::now() >= request.deadline {
                    return Err(ApiError::timeout(TIMED_OUT));
                }
                view = request.fresh_view().await?;
                fresh = true;
                request.warnings.truncate(warnings);
            }
            outcome @ (Outcome::Compacted { .. } | Outcome::TooOld) => {
                return Err(ApiError::internal(format!("a write came out as {outcome:?}")));
            }
        }
    }
}

impl From<ProposeError> for ApiError {
    /// A proposal that has no outcome. Where it is sure that nothing was written, clients are asked to try again.
    fn from(error: ProposeError) -> ApiError {
        match error {
            ProposeError::Unknown => {
                ApiError::timeout(format!("{TIMED_OUT}, and may have been carried out or may be yet"))
            }
            ProposeError::NotTaken => ApiError::timeout(format!("{TIMED_OUT}, and was not carried out")).retry_after(1),
            ProposeError::Overloaded => ApiError::too_many_requests(TOO_MANY, 1),
            ProposeError::NoQuorum
            | ProposeError::NoSpace
            | ProposeError::Unsupported { .. }
            | ProposeError::ShuttingDown => ApiError::unavailable(error.to_string()).retry_after(1),
            ProposeError::TooLarge { limit, .. } => {
                ApiError::too_large(format!("Request entity too large: limit is {limit}"))
            }
        }
    }
}

fn answer(request: &Request, reply: Reply, revision: Option<Revision>) -> Result<Answer> {
    let (code, object) = match (reply, revision) {
        (Reply::Ready { code, object }, _) => (code, Object::Made(object)),
        (Reply::Record { code, record }, revision) => {
            (code, Object::Stored(record.value_at(revision.unwrap_or(record.modified))))
        }
        (Reply::Stored { code, value, revision_at }, Some(revision)) => {
            (code, Object::Stored(with_revision(&value, revision_at, revision)))
        }
        (Reply::Stored { code, value, .. }, None) => {
            let read = serde_json::from_slice(&value);
            let mut object: Value = read.map_err(|e| ApiError::internal(format!("an object as written: {e}")))?;
            object.take_at(&["metadata", "resourceVersion"]);
            request.kind()?.from_storage(&mut object, &request.resource.version);
            (code, Object::Made(object))
        }
        (Reply::Shown { code, mut object }, revision) => {
            match revision {
                Some(revision) => object.set(&["metadata", "resourceVersion"], revision.to_string()),
                None => drop(object.take_at(&["metadata", "resourceVersion"])),
            }
            (code, Object::Made(object))
        }
    };
    Ok(Answer::Object { code, object })
}

/// The bytes as the store has them now.
fn with_revision(value: &[u8], at: u32, revision: Revision) -> Bytes {
    let (before, after) = value.split_at((at as usize).min(value.len()));
    let mut digits = itoa::Buffer::new();
    [before, digits.format(revision).as_bytes(), after].concat().into()
}

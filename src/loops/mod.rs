//! What the server does by itself while it runs. Each replica says that it is alive; the leader does what has to be done
//! once: the endpoints of the API, the status of flow schemas, events whose time is over, history that nobody needs any more.

mod endpoints;
mod flow_schemas;
mod identity;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use futures_util::future::join_all;
use kontiki_storage::{Condition, Revision, Transaction, Write};
use tokio::time::{Duration, Instant, MissedTickBehavior};

pub use identity::Identity;

use crate::server::Server;

const TICK: Duration = Duration::from_secs(1);
/// How long a write of the server's own may wait for a leader; the next round tries again.
const DEADLINE: Duration = Duration::from_secs(5);
/// How many objects are removed in one round because their time is over.
const EXPIRED: usize = 1024;
/// Watches and lists can go back at least this far, unless the history grows beyond its bound.
const HISTORY: Duration = Duration::from_secs(300);
const SAMPLE: Duration = Duration::from_secs(30);
/// How many revisions of history one command gives up: writes wait for no more than that.
const STEP: u64 = 2048;

/// Starts the loops; they run until the server stops, or must not go by its state any more.
pub fn start(server: &Arc<Server>, identity: Arc<Identity>) {
    let (server, serving) = (server.clone(), server.serving.clone());
    let alive = identity::keep(server.clone(), identity.clone());
    tokio::spawn(serving.clone().run_until_cancelled_owned(alive));
    tokio::spawn(serving.run_until_cancelled_owned(lead(server, identity)));
}

/// What the leader does. Another replica's loops wait until it leads.
async fn lead(server: Arc<Server>, identity: Arc<Identity>) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut endpoints = endpoints::Reconciler::default();
    let mut flow_schemas = flow_schemas::FlowSchemas::default();
    let mut history = History::default();
    loop {
        ticks.tick().await;
        if !server.replica.is_leader() || !server.replica.has_quorum() {
            endpoints = endpoints::Reconciler::default();
            history = History::default();
            continue;
        }
        if let Err(error) = endpoints.reconcile(&server, &identity).await {
            tracing::warn!(%error, "keeping the endpoints of the API");
        }
        if let Err(error) = flow_schemas.settle(&server).await {
            tracing::debug!(%error, "keeping the status of flow schemas");
        }
        expire(&server).await;
        history.compact(&server).await;
    }
}

/// Removes what has expired.
async fn expire(server: &Server) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let expired = server.replica.store().expired(now, EXPIRED);
    let deadline = Instant::now() + DEADLINE;
    let removals = expired.into_iter().map(|(key, revision)| {
        let transaction =
            Transaction { conditions: vec![Condition::At(key.clone(), revision)], writes: vec![Write::Delete { key }] };
        server.replica.propose(transaction, deadline)
    });
    // What was written again in the meantime stays, and what had no outcome is still there in the next round.
    if let Some(Err(error)) = join_all(removals).await.into_iter().find(Result::is_err) {
        tracing::debug!(%error, "removing what has expired");
    }
}

/// Which revisions there were when.
#[derive(Default)]
struct History {
    samples: VecDeque<(Instant, Revision)>,
}

impl History {
    async fn compact(&mut self, server: &Server) {
        let (now, store) = (Instant::now(), server.replica.store());
        if self.samples.back().is_some_and(|(at, _)| now - *at < SAMPLE) {
            return;
        }
        self.samples.push_back((now, store.applied_revision()));
        let old = self.samples.iter().rposition(|(at, _)| now - *at >= HISTORY);
        let Some((_, before)) = old.and_then(|index| self.samples.drain(..=index).next_back()) else { return };
        let mut compacted = store.compacted_revision();
        while compacted < before {
            match server.replica.compact(before.min(compacted + STEP), Instant::now() + DEADLINE).await {
                Ok(revision) => compacted = revision,
                Err(error) => return tracing::debug!(%error, "compacting the history"),
            }
            tracing::debug!(compacted, "compacted the history");
        }
    }
}

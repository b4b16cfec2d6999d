//! The state machine that openraft drives: the store, and what it takes to cut the log and to bring a replica up by a
//! snapshot.

use std::borrow::Cow;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use kontiki_storage::codec::CodecError;
use kontiki_storage::{Export, Fatal, Proposal, Ready, Store};
use openraft::storage::{ApplyResponder, EntryResponder, RaftStateMachine, Snapshot};
use openraft::{OptionalSend, RaftSnapshotBuilder};

use crate::audit::Standing;
use crate::format::{decode_membership, encode_membership};
use crate::host;
use crate::log::Log;
use crate::metrics::Metrics;
use crate::types::{
    Batch, LeaderId, LogId, Member, NodeId, Payload, SnapshotMeta, StoredMembership, TypeConfig, log_id, position,
};
use crate::watch;

/// Consecutive entries are applied as one batch on disk and one view, up to this many bytes of proposals, unpacked.
const AT_ONCE: usize = 4 << 20;
/// What is applied where Raft's other tasks wait for it, if the disk has no part in it: a few milliseconds' work.
const HERE: usize = 256 << 10;
/// How often the state is tried to be written after the disk was full.
const AGAIN: Duration = Duration::from_secs(2);

pub(crate) type RaftSnapshot = Snapshot<LeaderId, NodeId, Member, Image>;

/// A snapshot on its way out or in.
pub(crate) enum Image {
    Out(Export),
    In(Box<Ready>),
}

pub(crate) struct Machine {
    store: Store,
    log: Log,
    /// The index that the store's view has.
    applied: watch::Sender<Option<u64>>,
    standing: Standing,
    metrics: Metrics,
}

/// Entries that are about to be applied at once.
#[derive(Default)]
struct Run {
    last: Option<LogId>,
    entries: Vec<(Option<Batch>, Option<ApplyResponder<TypeConfig>>)>,
    bytes: usize,
}

impl Machine {
    pub(crate) fn new(
        store: Store,
        log: Log,
        applied: watch::Sender<Option<u64>>,
        standing: Standing,
        metrics: Metrics,
    ) -> Machine {
        Machine { store, log, applied, standing, metrics }
    }

    fn shows(&self, index: u64) {
        self.log.applied(index);
        self.applied.set(Some(index));
    }

    async fn apply_run(&mut self, run: &mut Run) -> io::Result<()> {
        let Run { last: Some(last), entries, bytes } = std::mem::take(run) else { return Ok(()) };
        let (batches, responders): (Vec<_>, Vec<_>) = entries.into_iter().unzip();
        let at = position(&last);
        let undecoded = |error| io::Error::other(format!("up to {last}: {error}"));
        let here = if bytes <= HERE {
            let proposals = decode(&batches).map_err(undecoded)?;
            let applied = self.store.try_apply(at, proposals.iter().flat_map(|proposals| proposals.iter()));
            let counts = proposals.iter().map(|proposals| proposals.len()).collect();
            applied.map_err(fatal)?.map(|outcomes| (outcomes, counts))
        } else {
            None
        };
        let (outcomes, counts): (_, Vec<_>) = match here {
            Some(applied) => applied,
            None => {
                let apply = move |store: &Store| {
                    let proposals = match decode(&batches) {
                        Ok(proposals) => proposals,
                        Err(error) => return Ok(Err(error)),
                    };
                    let counts = proposals.iter().map(|proposals| proposals.len()).collect();
                    let outcomes = store.apply(at, proposals.iter().flat_map(|proposals| proposals.iter()))?;
                    Ok(Ok((outcomes, counts)))
                };
                with_space(&self.store, apply).await?.map_err(undecoded)?
            }
        };
        self.metrics.applied_proposals.inc_by(outcomes.len() as u64);
        self.shows(last.index);
        let mut outcomes = outcomes.into_iter();
        for (responder, count) in responders.into_iter().zip(counts) {
            let answer = outcomes.by_ref().take(count).collect();
            if let Some(responder) = responder {
                responder.send(answer);
            }
        }
        Ok(())
    }
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotData = Image;
    type SnapshotBuilder = Checkpoint;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        let membership = decode_membership(&self.store.membership()).map_err(io::Error::other)?;
        Ok((self.store.applied().map(log_id), membership))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        let mut run = Run::default();
        while let Some(item) = entries.next().await {
            let (entry, responder) = item?;
            match entry.payload {
                Payload::Normal(batch) => {
                    run.bytes += batch.unpacked();
                    run.entries.push((Some(batch), responder));
                }
                Payload::Blank => run.entries.push((None, responder)),
                Payload::Membership(membership) => {
                    self.apply_run(&mut run).await?;
                    let stored = StoredMembership::new(Some(entry.log_id), membership);
                    let bytes = encode_membership(&stored).map_err(io::Error::other)?;
                    let at = position(&entry.log_id);
                    let apply = move |store: &Store| store.apply_membership(at, bytes.clone());
                    with_space(&self.store, apply).await?;
                    self.shows(entry.log_id.index);
                    if let Some(responder) = responder {
                        responder.send(Vec::new());
                    }
                    continue;
                }
            }
            run.last = Some(entry.log_id);
            if run.bytes >= AT_ONCE {
                self.apply_run(&mut run).await?;
            }
        }
        self.apply_run(&mut run).await
    }

    async fn get_snapshot_builder(&mut self) -> Checkpoint {
        Checkpoint { store: self.store.clone(), log: self.log.clone() }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: Image) -> io::Result<()> {
        let Image::In(ready) = snapshot else {
            return Err(io::Error::other("a snapshot that was made here is installed here"));
        };
        let store = self.store.clone();
        host::blocking(move || store.install(*ready)).await.map_err(io::Error::other)?.map_err(fatal)?;
        if let Some(id) = &meta.last_log_id {
            self.log.checkpointed(id.index);
            self.shows(id.index);
        }
        self.standing.set(None).await;
        self.metrics.snapshots_installed.inc();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<RaftSnapshot>> {
        let store = self.store.clone();
        snapshot_of(host::blocking(move || store.export()).await.map_err(io::Error::other)?)
    }
}

/// What openraft calls building a snapshot: the state is made durable as it is, and the log before it can go.
pub(crate) struct Checkpoint {
    store: Store,
    log: Log,
}

impl RaftSnapshotBuilder<TypeConfig> for Checkpoint {
    type SnapshotData = Image;

    async fn build_snapshot(&mut self) -> io::Result<RaftSnapshot> {
        let export = self.store.export();
        let store = self.store.clone();
        match host::blocking(move || store.flush()).await.map_err(io::Error::other)? {
            Ok(_) => {}
            Err(Fatal::NoSpace(error)) => wait_for_space(&self.store, &error).await?,
            Err(error) => return Err(fatal(error)),
        }
        let snapshot = snapshot_of(export)?.ok_or_else(|| io::Error::other("nothing has been applied"))?;
        if let Some(id) = &snapshot.meta.last_log_id {
            self.log.checkpointed(id.index);
        }
        Ok(snapshot)
    }
}

/// The proposals of each.
fn decode(batches: &[Option<Batch>]) -> Result<Vec<Cow<'_, [Proposal]>>, CodecError> {
    let proposals = batches.iter().map(|batch| match batch {
        Some(batch) => batch.proposals(),
        None => Ok(Cow::Borrowed(&[][..])),
    });
    proposals.collect()
}

/// Does what may wait for the disk on a thread that may: Raft's other tasks, which this one is one with (`strand`), go on. And
/// again, once there is space, what had none.
async fn with_space<T: Send + 'static>(
    store: &Store,
    apply: impl Fn(&Store) -> Result<T, Fatal> + Send + Sync + 'static,
) -> io::Result<T> {
    let apply = Arc::new(apply);
    loop {
        let (state, apply) = (store.clone(), apply.clone());
        match host::blocking(move || apply(&state)).await.map_err(io::Error::other)? {
            Ok(done) => return Ok(done),
            Err(Fatal::NoSpace(error)) => wait_for_space(store, &error).await?,
            Err(error) => return Err(fatal(error)),
        }
    }
}

/// Until the state is on the disk again. RocksDB goes on refusing once a write in the background has failed, so the state,
/// which is whole in memory, is written out anew.
async fn wait_for_space(store: &Store, error: &str) -> io::Result<()> {
    tracing::error!(error, "there is no space for the state: waiting for some");
    loop {
        tokio::time::sleep(AGAIN).await;
        let again = store.clone();
        match host::blocking(move || again.rewrite()).await.map_err(io::Error::other)? {
            Ok(()) => {
                tracing::info!("there is space for the state again");
                return Ok(());
            }
            Err(Fatal::NoSpace(_)) => {}
            Err(error) => return Err(fatal(error)),
        }
    }
}

fn snapshot_of(export: Export) -> io::Result<Option<RaftSnapshot>> {
    let Some(position) = export.position() else { return Ok(None) };
    let last_membership = decode_membership(export.membership()).map_err(io::Error::other)?;
    let meta = SnapshotMeta { last_log_id: Some(log_id(position)), last_membership };
    Ok(Some(Snapshot { meta, snapshot: Image::Out(export) }))
}

pub(crate) fn fatal(error: Fatal) -> io::Error {
    let kind = match error {
        Fatal::NoSpace(_) => io::ErrorKind::StorageFull,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}

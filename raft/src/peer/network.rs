//! What openraft sends to peers.

use std::future::ready;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream};
use futures_util::{Stream, StreamExt};
use hyper::StatusCode;
use kontiki_storage::{Export, codec};
use openraft::OptionalSend;
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2, stream_append_sequential};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse};
use openraft::raft::{TransferLeaderRequest, TransferLeaderResponse};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout};

use super::link::Link;
use super::message::{
    APPEND, APPEND_STREAM, AppendAnswer, AppendCall, Frames, PRE_VOTE, SNAPSHOT, StreamAnswer, StreamResult, TRANSFER,
    TransferAnswer, TransferCall, VOTE, VoteAnswer, VoteCall, frame, has_gap,
};
use super::transport::PeerError;
use super::{Peer, Peers, ask};
use crate::format::VoteForm;
use crate::machine::{Image, RaftSnapshot};
use crate::types::{Member, NodeId, TypeConfig, Vote};

/// An append that isn't answered for so long is sent anew, on another stream.
const APPEND_STALL: Duration = Duration::from_secs(3);

/// How many bytes of a snapshot go out in a second at most: a leader has others to talk to, and writes to sync.
const SNAPSHOT_PACE: f64 = 15e6;

pub(crate) struct Network(Peers);

impl Network {
    pub(crate) fn new(peers: Peers) -> Network {
        Network(peers)
    }
}

/// Messages to one member, wherever it is now.
pub(crate) struct Client {
    peers: Peers,
    id: NodeId,
    /// As it was when this was made.
    first: Arc<Peer>,
    /// Appends go as one stream without waiting for answers; heartbeats are single and must not wait behind those.
    pipeline: bool,
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Client;

    async fn new_client(&mut self, target: NodeId, node: &Member) -> Client {
        Client { peers: self.0.clone(), id: target, first: self.0.peer(target, node), pipeline: true }
    }

    async fn new_heartbeat_client(&mut self, target: NodeId, node: &Member) -> Client {
        Client { pipeline: false, ..self.new_client(target, node).await }
    }
}

impl From<PeerError> for RPCError<TypeConfig> {
    fn from(error: PeerError) -> RPCError<TypeConfig> {
        match error {
            PeerError::Unreachable(_) | PeerError::Refused { .. } => Unreachable::from_string(error).into(),
            PeerError::Lost(_) | PeerError::Timeout => NetworkError::from_string(error).into(),
        }
    }
}

impl Client {
    fn peer(&self) -> Arc<Peer> {
        self.peers.get(self.id).unwrap_or_else(|| self.first.clone())
    }

    async fn pipeline<'s>(
        &'s self,
        input: impl Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static,
    ) -> Result<BoxStream<'s, Result<StreamResult, RPCError<TypeConfig>>>, RPCError<TypeConfig>> {
        let (mut input, cut_off) = until_cut(input);
        // The pause after a failure is in the stream of requests: before the first of them nothing is tried. Until openraft
        // has seen the answer to it there is a pause before the second, too, in which the peer would hear nothing.
        let Some(first) = input.next().await else {
            return cut_off().map_or_else(|| Ok(stream::empty().boxed()), Err);
        };
        let (proceed, proceeds) = oneshot::channel();
        let rest = stream::once(async { proceeds.await.ok().map(|()| input) }).filter_map(ready).flatten();
        let sent = Arc::new(AtomicU64::new(0));
        let count = sent.clone();
        let messages = stream::iter([first]).chain(rest).map(move |request| {
            count.fetch_add(1, Ordering::AcqRel);
            codec::encode(&AppendCall::of(&request)).map(|message| frame(&message)).map_err(io::Error::other)
        });
        let peer = self.peer();
        let response = timeout(APPEND_STALL, peer.bulk.stream(APPEND_STREAM, messages)).await;
        let response = response.unwrap_or(Err(PeerError::Timeout));
        let full = matches!(&response, Err(PeerError::Refused { status: StatusCode::INSUFFICIENT_STORAGE, .. }));
        if response.is_ok() || full {
            peer.full.store(full, Ordering::Relaxed);
        }
        let response = response?;
        let answers = stream::unfold(Some((Frames::new(response), 0, Some(proceed))), move |state| {
            let (sent, cut_off) = (sent.clone(), cut_off.clone());
            async move {
                let (mut frames, answered, mut proceed) = state?;
                if answered > 0
                    && let Some(proceed) = proceed.take()
                {
                    // Where nothing is sent any more there is nothing to proceed with.
                    let _ = proceed.send(());
                }
                let bytes = loop {
                    match timeout(APPEND_STALL, frames.next()).await {
                        Ok(Ok(Some(bytes))) => break bytes,
                        Ok(Ok(None)) => return cut_off().map(|error| (Err(error), None)),
                        Ok(Err(error)) => return Some((Err(PeerError::Lost(error.to_string()).into()), None)),
                        Err(_) if sent.load(Ordering::Acquire) == answered => {}
                        Err(_) => return Some((Err(PeerError::Timeout.into()), None)),
                    }
                };
                Some(match codec::decode::<StreamAnswer>(&bytes) {
                    Ok(answer) => {
                        let result = StreamResult::from(answer);
                        let next = result.is_ok().then_some((frames, answered + 1, proceed));
                        (Ok(result), next)
                    }
                    Err(error) => (Err(PeerError::Lost(error.to_string()).into()), None),
                })
            }
        });
        Ok(answers.boxed())
    }
}

impl RaftNetworkV2<TypeConfig> for Client {
    type SnapshotData = Image;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        let start = Instant::now();
        let answer: AppendAnswer = ask(&self.peer().control, APPEND, &AppendCall::of(&rpc), option.hard_ttl()).await?;
        self.peers.0.me.metrics.peer_seconds.observe(start.elapsed().as_secs_f64());
        Ok(answer.into())
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, Result<StreamResult, RPCError<TypeConfig>>>, RPCError<TypeConfig>>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        if self.pipeline {
            return Box::pin(self.pipeline(input));
        }
        stream_append_sequential(self, input, option)
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let answer: VoteAnswer = ask(&self.peer().control, VOTE, &VoteCall::from(&rpc), option.hard_ttl()).await?;
        Ok(answer.into())
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let answer: VoteAnswer = ask(&self.peer().control, PRE_VOTE, &VoteCall::from(&rpc), option.hard_ttl()).await?;
        Ok(answer.into())
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: RaftSnapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let Image::Out(export) = snapshot.snapshot else {
            return Err(Unreachable::from_string("a snapshot that came in is sent on").into());
        };
        let (bulk, metrics) = (self.peer(), &self.peers.0.me.metrics);
        let (bulk, peer) = (&bulk.bulk, &bulk.bulk.member.name);
        tracing::info!(peer, revision = export.revision(), "sending a snapshot");
        let start = Instant::now();
        let result = tokio::select! {
            biased;
            sent = timeout(option.hard_ttl(), send_snapshot(bulk, vote, export)) => {
                sent.unwrap_or(Err(PeerError::Timeout)).map_err(|error| RPCError::from(error).into())
            }
            closed = cancel => Err(StreamingError::Closed(closed)),
        };
        match &result {
            Ok(_) => {
                metrics.snapshots_sent.inc();
                tracing::info!(peer, seconds = start.elapsed().as_secs_f64(), "the snapshot was taken");
            }
            Err(error) => {
                metrics.snapshot_sends_failed.inc();
                tracing::warn!(peer, %error, "the snapshot was not taken");
            }
        }
        result
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        let call = TransferCall::from(&request);
        let answer: TransferAnswer = ask(&self.peer().control, TRANSFER, &call, option.hard_ttl()).await?;
        Ok(answer.to(&request))
    }
}

/// The requests up to the first that leaves entries out, and the error for whoever waits for the answer to that one. openraft
/// may let the log be cut while a stream still reads it: a report that belongs to a stream before counts as one of the
/// current stream (`ReplicationHandler::update_progress`), which then seems to be at rest. After an error it decides anew what
/// the peer needs.
fn until_cut(
    requests: impl Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static,
) -> (
    impl Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static,
    impl Fn() -> Option<RPCError<TypeConfig>> + Clone + Send + 'static,
) {
    let cut = Arc::new(AtomicBool::new(false));
    let seen = cut.clone();
    let whole = requests.take_while(move |request| {
        let gap = has_gap(request);
        cut.fetch_or(gap, Ordering::AcqRel);
        ready(!gap)
    });
    let error = move || {
        let missing = "the log was cut before all of it was sent";
        seen.load(Ordering::Acquire).then(|| NetworkError::from_string(missing).into())
    };
    (whole, error)
}

/// The vote first, then the chunks.
async fn send_snapshot(link: &Link, vote: Vote, export: Export) -> Result<SnapshotResponse<TypeConfig>, PeerError> {
    let head = codec::encode(&VoteForm::from(&vote)).map(|head| frame(&head)).map_err(io::Error::other);
    let chunks = stream::unfold((export, Instant::now()), |(mut export, due)| async move {
        sleep_until(due).await;
        let chunk = export.next_chunk().map_err(io::Error::other).transpose()?;
        let bytes = chunk.as_ref().map_or(0, Vec::len);
        // From now on: what a peer that was slow has missed is not sent all at once.
        let due = Instant::now() + Duration::from_secs_f64(bytes as f64 / SNAPSHOT_PACE);
        Some((chunk.map(|chunk| frame(&chunk)), (export, due)))
    });
    let messages = stream::iter([head]).chain(chunks);
    let response = link.stream(SNAPSHOT, messages).await?;
    let answer = Frames::new(response).next().await.map_err(|error| PeerError::Lost(error.to_string()))?;
    let answer: Bytes = answer.ok_or_else(|| PeerError::Lost("no answer".into()))?;
    let vote: VoteForm = codec::decode(&answer).map_err(|error| PeerError::Lost(error.to_string()))?;
    Ok(SnapshotResponse { vote: vote.into() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Entry, LeaderId, LogId, Payload};

    #[tokio::test]
    async fn nothing_is_sent_from_where_the_log_was_cut() {
        let at = |index| LogId { leader_id: LeaderId { term: 1, node_id: 7 }, index };
        let request = |before: Option<u64>, entries: std::ops::Range<u64>| AppendEntriesRequest::<TypeConfig> {
            vote: Vote::new_committed(1, 7),
            prev_log_id: before.map(at),
            entries: entries.map(|index| Entry { log_id: at(index), payload: Payload::Blank }).collect(),
            leader_commit: None,
        };
        let log = [request(None, 0..2), request(Some(1), 2..2), request(Some(1), 2..5)];
        let (whole, error) = until_cut(stream::iter(log.clone()));
        assert_eq!((whole.count().await, error().is_none()), (3, true));
        for gap in [request(Some(4), 9..12), request(None, 1..2), request(None, 5..6)] {
            let (whole, error) =
                until_cut(stream::iter(log.clone().into_iter().chain([gap, request(Some(11), 12..13)])));
            assert_eq!((whole.count().await, error().is_some()), (3, true));
        }
    }
}

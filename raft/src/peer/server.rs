//! What is done with what peers ask.

use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http_body_util::{BodyExt, Limited, StreamBody};
use hyper::body::Frame;
use hyper::{Response, StatusCode};
use kontiki_storage::{Ready, Revision, SnapshotError, Store, Witness, codec};
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::storage::Snapshot;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use super::message::{
    APPEND, APPEND_STREAM, AppendAnswer, AppendCall, CAN_LEAD, DISMISS, FRAME, FrameError, Frames, HELLO, Hello,
    MANAGE, PRE_VOTE, PROPOSE, ProposeAnswer, READ_INDEX, SNAPSHOT, STATUS, StreamAnswer, TRANSFER, TransferAnswer,
    TransferCall, VOTE, VoteAnswer, VoteCall, WITNESS, Welcome, frame,
};
use super::transport::{Body, full};
use super::{Exclusion, Me, Peers, Refusal};
use crate::barrier::Barrier;
use crate::format::{VoteForm, decode_membership};
use crate::host;
use crate::identity;
use crate::machine::Image;
use crate::membership::{Manager, Operation};
use crate::replica::Observer;
use crate::route::{Answer, Raft, propose_here};
use crate::space::Space;
use crate::types::{Batch, NodeId, SnapshotMeta, Vote, log_id};

/// Requests of all peers at once, beside streams of appends.
const REQUESTS: usize = 512;
/// How long to make sure that a caller which isn't known is no member.
const CERTAINTY: Duration = Duration::from_millis(700);
const READ_INDEX_TIMEOUT: Duration = Duration::from_secs(5);
const WITNESS_TIMEOUT: Duration = Duration::from_secs(2);

/// What answers peers.
pub(crate) struct Service {
    pub(crate) raft: Raft,
    pub(crate) store: Store,
    pub(crate) barrier: Barrier,
    pub(crate) observer: Observer,
    pub(crate) manager: Manager,
    pub(crate) space: Arc<Space>,
    peers: Peers,
    requests: Semaphore,
    /// One snapshot is taken at a time.
    snapshots: Semaphore,
}

impl Service {
    pub(crate) fn new(
        peers: &Peers,
        raft: Raft,
        store: Store,
        barrier: Barrier,
        observer: Observer,
        manager: Manager,
        space: Arc<Space>,
    ) -> Service {
        let (requests, snapshots) = (Semaphore::new(REQUESTS), Semaphore::new(1));
        let peers = peers.clone();
        Service { raft, store, barrier, observer, manager, space, peers, requests, snapshots }
    }

    fn me(&self) -> &Me {
        &self.peers.0.me
    }
}

/// Who is at the other end, by its certificate; and by its hello, once it has said that.
pub(crate) struct Caller {
    name: String,
    greeted: OnceLock<NodeId>,
}

impl Caller {
    pub(crate) fn new(name: String) -> Caller {
        Caller { name, greeted: OnceLock::new() }
    }
}

/// Why a request has no answer.
struct Rejected(StatusCode, String);

fn malformed(error: impl ToString) -> Rejected {
    Rejected(StatusCode::BAD_REQUEST, error.to_string())
}

fn no_space() -> Rejected {
    Rejected(StatusCode::INSUFFICIENT_STORAGE, "there is no space on the disk for more".into())
}

fn stopped(error: impl ToString) -> Rejected {
    Rejected(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
}

impl Service {
    pub(crate) async fn answer(self: &Arc<Service>, caller: &Caller, path: &str, body: Body) -> Response<Body> {
        match self.route(caller, path, body).await {
            Ok(body) => Response::new(body),
            Err(Rejected(status, text)) => {
                let mut response = Response::new(full(text.into_bytes()));
                *response.status_mut() = status;
                response
            }
        }
    }

    async fn route(self: &Arc<Service>, caller: &Caller, path: &str, body: Body) -> Result<Body, Rejected> {
        match caller.greeted.get() {
            None if path != HELLO => return Err(Rejected(StatusCode::FORBIDDEN, "hello comes first".into())),
            // What a leader sends is judged by its vote.
            Some(node)
                if matches!(path, VOTE | PRE_VOTE | PROPOSE | READ_INDEX | STATUS | MANAGE)
                    && self.is_removed(*node).await =>
            {
                return Err(Rejected(StatusCode::GONE, "the caller is no member any more".into()));
            }
            _ => {}
        }
        if matches!(path, APPEND_STREAM | SNAPSHOT) && !self.space.takes_entries() {
            return Err(no_space());
        }
        if path == APPEND_STREAM {
            return Ok(self.clone().append_stream(body));
        }
        if path == SNAPSHOT {
            return Box::pin(self.snapshot(body)).await;
        }
        let Ok(_place) = self.requests.try_acquire() else {
            self.me().metrics.peer_requests_rejected.inc();
            return Err(Rejected(StatusCode::TOO_MANY_REQUESTS, "too many requests at once".into()));
        };
        let bytes = Limited::new(body, FRAME).collect().await.map_err(malformed)?.to_bytes();
        match path {
            READ_INDEX => encoded(&self.read_index(caller, &bytes).await?),
            // In a box, as above: each request is a task as large as the largest of them.
            _ => Box::pin(self.other(caller, path, bytes)).await,
        }
    }

    async fn other(&self, caller: &Caller, path: &str, bytes: Bytes) -> Result<Body, Rejected> {
        match path {
            PROPOSE => encoded(&self.propose(bytes).await?),
            HELLO => encoded(&self.hello(caller, decoded(&bytes)?).await?),
            VOTE => {
                let vote = self.raft.vote(decoded::<VoteCall>(&bytes)?.into()).await;
                encoded(&VoteAnswer::from(vote.map_err(stopped)?))
            }
            PRE_VOTE => {
                let vote = self.raft.pre_vote(decoded::<VoteCall>(&bytes)?.into()).await;
                encoded(&VoteAnswer::from(vote.map_err(stopped)?))
            }
            APPEND => {
                let append = AppendCall::decode(&bytes).map_err(malformed)?;
                if !append.entries.is_empty() && !self.space.takes_entries() {
                    return Err(no_space());
                }
                let append = self.raft.append_entries(append).await;
                encoded(&AppendAnswer::from(append.map_err(stopped)?))
            }
            // The leader may not know yet that this replica's state is wrong.
            TRANSFER if self.observer.has_diverged() => Err(stopped("this replica must not lead: it has diverged")),
            TRANSFER => {
                let transfer = self.raft.handle_transfer_leader(decoded::<TransferCall>(&bytes)?.into()).await;
                encoded(&TransferAnswer::from(transfer.map_err(stopped)?))
            }
            CAN_LEAD => encoded(&(!self.observer.has_diverged() && self.space.takes_entries())),
            WITNESS => encoded(&self.witness(decoded(&bytes)?).await),
            STATUS => encoded(&self.observer.status()),
            MANAGE => encoded(&self.manager.here(&decoded::<Operation>(&bytes)?).await),
            DISMISS => {
                self.me().exclude(Exclusion::Removed(caller.name.clone()));
                encoded(&())
            }
            _ => Err(Rejected(StatusCode::NOT_FOUND, "this replica knows of no such request".into())),
        }
    }

    async fn hello(&self, caller: &Caller, hello: Hello) -> Result<Welcome, Rejected> {
        if hello.name != caller.name || !identity::fits(&hello.name, hello.incarnation, hello.node) {
            let text = format!("the certificate is for {}, and {} says hello", caller.name, hello.name);
            return Err(Rejected(StatusCode::FORBIDDEN, text));
        }
        if hello.cluster == self.me().hello.cluster && self.is_removed(hello.node).await {
            return Ok(Welcome::Removed(self.me().hello.clone()));
        }
        match self.me().admit(&hello).await {
            Ok(()) => {
                // A second hello changes nothing.
                let _ = caller.greeted.set(hello.node);
                self.peers.retry(hello.node);
                // One that has stopped sends nothing anyway.
                let _ = self.raft.trigger().reset_backoff([hello.node]).await;
                Ok(Welcome::Hello(self.me().hello.clone()))
            }
            Err(Refusal::Stranger) => Ok(Welcome::Stranger),
            Err(Refusal::Wiped) => Ok(Welcome::Wiped),
            Err(refusal) => Err(stopped(refusal)),
        }
    }

    /// Whether a replica is certainly no member any more. One that this replica hasn't heard of may be new.
    async fn is_removed(&self, node: NodeId) -> bool {
        let known = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            metrics.membership_config.log_id().is_none() || metrics.membership_config.get_node(&node).is_some()
        };
        if known || self.barrier.wait(Instant::now() + CERTAINTY).await.is_err() {
            return false;
        }
        let applied = decode_membership(&self.store.membership());
        applied.is_ok_and(|membership| membership.log_id().is_some() && membership.get_node(&node).is_none())
    }

    fn append_stream(self: Arc<Service>, body: Body) -> Body {
        let space = self.space.clone();
        let requests = stream::unfold((Frames::new(body), space), |(mut frames, space)| async move {
            // After an error the leader hears nothing more on this stream, and opens another.
            let request = match frames.next().await {
                Ok(bytes) => AppendCall::decode(&bytes?).map_err(|error| error.to_string()),
                Err(error @ (FrameError::Broken(_) | FrameError::Short)) => {
                    tracing::debug!(%error, "a stream of appends broke off");
                    return None;
                }
                Err(error) => Err(error.to_string()),
            };
            let request = request.inspect_err(|error| tracing::warn!(error, "an append can't be read")).ok()?;
            let taken = request.entries.is_empty() || space.takes_entries();
            taken.then_some((request, (frames, space)))
        });
        let answers = self.raft.stream_append(requests).map(|result| {
            let answer = result.map(StreamAnswer::from).map_err(io::Error::other)?;
            let message = codec::encode(&answer).map_err(io::Error::other)?;
            Ok(Frame::data(frame(&message)))
        });
        StreamBody::new(answers).boxed_unsync()
    }

    async fn propose(&self, bytes: Bytes) -> Result<ProposeAnswer, Rejected> {
        if !self.space.takes_proposals() {
            return Ok(ProposeAnswer::NoSpace);
        }
        // What its state would answer is wrong; another leads in a moment.
        if self.observer.has_diverged() {
            return Ok(ProposeAnswer::NotTaken);
        }
        let batch = Batch::check(bytes).map_err(malformed)?;
        Ok(match propose_here(&self.raft, batch).await {
            Answer::Outcomes(outcomes) => ProposeAnswer::Outcomes(outcomes),
            Answer::NotTaken => ProposeAnswer::NotTaken,
            Answer::Unclear => ProposeAnswer::Unclear,
            Answer::NoSpace => ProposeAnswer::NoSpace,
        })
    }

    /// A replica that is a little behind catches up first.
    async fn witness(&self, revision: Revision) -> Option<Witness> {
        // One that lags more than that has no answer.
        let _ = timeout(WITNESS_TIMEOUT, self.barrier.reach(revision)).await;
        self.store.witness_at(revision)
    }

    /// Only a leader answers, so that no two replicas ask each other.
    async fn read_index(&self, caller: &Caller, bytes: &[u8]) -> Result<Option<u64>, Rejected> {
        if !self.observer.is_leader() {
            return Ok(None);
        }
        // Replicas of older releases say nothing of their vote.
        let vouches = match caller.greeted.get() {
            Some(voter) if !bytes.is_empty() => Some((*voter, decoded::<VoteForm>(bytes)?.into())),
            _ => None,
        };
        Ok(self.barrier.confirm(vouches, Instant::now() + READ_INDEX_TIMEOUT).await)
    }

    async fn snapshot(&self, body: Body) -> Result<Body, Rejected> {
        let Ok(_only) = self.snapshots.try_acquire() else {
            return Err(Rejected(StatusCode::TOO_MANY_REQUESTS, "another snapshot is being taken".into()));
        };
        let mut frames = Frames::new(body);
        let head = frames.next().await.map_err(malformed)?.ok_or_else(|| malformed("there is no vote"))?;
        let vote: Vote = decoded::<VoteForm>(&head)?.into();
        let mine = self.raft.metrics().borrow_watched().vote;
        if mine > vote {
            return answer_vote(&mine);
        }
        let ready = self.take(&mut frames).await?;
        let position = ready.position();
        let last_membership = decode_membership(ready.membership()).map_err(malformed)?;
        let meta = SnapshotMeta { last_log_id: Some(log_id(position)), last_membership };
        tracing::info!(revision = ready.revision(), index = position.index, "installing a snapshot");
        let snapshot = Snapshot { meta, snapshot: Image::In(Box::new(ready)) };
        let response = self.raft.install_full_snapshot(vote, snapshot).await.map_err(stopped)?;
        answer_vote(&response.vote)
    }

    async fn take(&self, frames: &mut Frames) -> Result<Ready, Rejected> {
        let refused = |error: SnapshotError| {
            tracing::warn!(%error, "a snapshot can't be taken");
            Rejected(StatusCode::UNPROCESSABLE_ENTITY, error.to_string())
        };
        let store = self.store.clone();
        let mut staged = blocking(move || store.stage()).await?.map_err(|error| refused(error.into()))?;
        while let Some(chunk) = frames.next().await.map_err(malformed)? {
            if !self.space.takes_entries() {
                return Err(no_space());
            }
            let added = blocking(move || staged.add(&chunk).map(|()| staged)).await?;
            staged = added.map_err(refused)?;
        }
        blocking(move || staged.finish()).await?.map_err(refused)
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Rejected> {
    host::blocking(work).await.map_err(stopped)
}

fn answer_vote(vote: &Vote) -> Result<Body, Rejected> {
    let message = codec::encode(&VoteForm::from(vote)).map_err(stopped)?;
    Ok(full(frame(&message)))
}

fn decoded<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Rejected> {
    codec::decode(bytes).map_err(malformed)
}

fn encoded<T: Serialize>(answer: &T) -> Result<Body, Rejected> {
    Ok(full(codec::encode(answer).map_err(stopped)?))
}

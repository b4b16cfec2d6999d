//! What peers say to each other. Each message is a value of `kontiki_storage::codec`, which begins with its format
//! version; streams of them are framed by their lengths.

use bytes::{Buf, Bytes, BytesMut};
use http_body_util::BodyExt;
use kontiki_storage::codec::{self, CodecError};
use kontiki_storage::{LogPosition, Outcome};
use openraft::raft::TransferLeaderResponse;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, StreamAppendError, TransferLeaderError, TransferLeaderRequest,
    VoteRequest, VoteResponse,
};
use serde::{Deserialize, Serialize};

use super::transport::Body;
use crate::format::{EntryForm, VoteForm};
use crate::replica::Announced;
use crate::types::{LogId, NodeId, TypeConfig, log_id, position};

/// An append holds a few entries of a bounded batch each; a chunk of a snapshot is smaller.
pub(super) const FRAME: usize = 64 << 20;

pub(super) const HELLO: &str = "/hello";
pub(super) const VOTE: &str = "/vote";
pub(super) const PRE_VOTE: &str = "/pre-vote";
pub(super) const APPEND: &str = "/append";
pub(crate) const APPEND_STREAM: &str = "/append-stream";
pub(crate) const SNAPSHOT: &str = "/snapshot";
pub(super) const TRANSFER: &str = "/transfer-leader";
pub(crate) const PROPOSE: &str = "/propose";
pub(super) const READ_INDEX: &str = "/read-index";
pub(super) const STATUS: &str = "/status";
/// A revision; the answer is its witness, if it is known.
pub(super) const WITNESS: &str = "/witness";
/// Whether a replica would lead; it is asked before it is handed the leadership.
pub(super) const CAN_LEAD: &str = "/can-lead";
pub(super) const MANAGE: &str = "/manage";
pub(super) const DISMISS: &str = "/dismiss";

/// The first message on each connection, and the answer to it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub(crate) cluster: u64,
    pub(crate) node: NodeId,
    pub(crate) name: String,
    pub(crate) incarnation: u64,
    /// What its build can apply.
    pub(crate) level: u32,
    pub(crate) announced: Announced,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Welcome {
    Hello(Hello),
    /// The caller is of another cluster.
    Stranger,
    /// The caller was known with another data directory.
    Wiped,
    /// The caller is no member any more.
    /// By the replica that says hello.
    Removed(Hello),
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct VoteCall {
    vote: VoteForm,
    last: Option<LogPosition>,
    transfer: bool,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct VoteAnswer {
    vote: VoteForm,
    granted: bool,
    last: Option<LogPosition>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct AppendCall<'a> {
    vote: VoteForm,
    previous: Option<LogPosition>,
    committed: Option<LogPosition>,
    #[serde(borrow)]
    entries: Vec<EntryForm<'a>>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum AppendAnswer {
    Success,
    Partial(Option<LogPosition>),
    Conflict,
    HigherVote(VoteForm),
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum StreamAnswer {
    Matching(Option<LogPosition>),
    Conflict(LogPosition),
    HigherVote(VoteForm),
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct TransferCall {
    from: VoteForm,
    to: NodeId,
    last: Option<LogPosition>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum TransferAnswer {
    Ok,
    VoteChanged(VoteForm),
    LogNotFlushed(Option<LogPosition>),
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum ProposeAnswer {
    Outcomes(Vec<Outcome>),
    NotTaken,
    Unclear,
    NoSpace,
}

fn positions(id: &Option<LogId>) -> Option<LogPosition> {
    id.as_ref().map(position)
}

impl From<&VoteRequest<TypeConfig>> for VoteCall {
    fn from(request: &VoteRequest<TypeConfig>) -> VoteCall {
        VoteCall {
            vote: (&request.vote).into(),
            last: positions(&request.last_log_id),
            transfer: request.leadership_transfer,
        }
    }
}

impl From<VoteCall> for VoteRequest<TypeConfig> {
    fn from(call: VoteCall) -> VoteRequest<TypeConfig> {
        let mut request = VoteRequest::new(call.vote.into(), call.last.map(log_id));
        request.leadership_transfer = call.transfer;
        request
    }
}

impl From<VoteResponse<TypeConfig>> for VoteAnswer {
    fn from(response: VoteResponse<TypeConfig>) -> VoteAnswer {
        let last = positions(&response.last_log_id);
        VoteAnswer { vote: (&response.vote).into(), granted: response.vote_granted, last }
    }
}

impl From<VoteAnswer> for VoteResponse<TypeConfig> {
    fn from(answer: VoteAnswer) -> VoteResponse<TypeConfig> {
        VoteResponse { vote: answer.vote.into(), vote_granted: answer.granted, last_log_id: answer.last.map(log_id) }
    }
}

impl<'a> AppendCall<'a> {
    pub(super) fn of(request: &'a AppendEntriesRequest<TypeConfig>) -> AppendCall<'a> {
        AppendCall {
            vote: (&request.vote).into(),
            previous: positions(&request.prev_log_id),
            committed: positions(&request.leader_commit),
            entries: request.entries.iter().map(EntryForm::of).collect(),
        }
    }

    /// The entries share `bytes`.
    pub(super) fn decode(bytes: &Bytes) -> Result<AppendEntriesRequest<TypeConfig>, CodecError> {
        let call: AppendCall = codec::decode(bytes)?;
        let request = AppendEntriesRequest {
            vote: call.vote.into(),
            prev_log_id: call.previous.map(log_id),
            leader_commit: call.committed.map(log_id),
            entries: call.entries.into_iter().map(|entry| entry.restore(bytes)).collect::<Result<_, _>>()?,
        };
        match has_gap(&request) {
            false => Ok(request),
            true => Err(CodecError::Malformed("the entries of an append leave some out".into())),
        }
    }
}

/// Whether entries are missing between what these are appended to and the last of them.
pub(super) fn has_gap(request: &AppendEntriesRequest<TypeConfig>) -> bool {
    let mut before = request.prev_log_id.map(|id| id.index);
    request.entries.iter().any(|entry| {
        let index = entry.log_id.index;
        before.replace(index).map_or(Some(0), |before| before.checked_add(1)) != Some(index)
    })
}

impl From<AppendEntriesResponse<TypeConfig>> for AppendAnswer {
    fn from(response: AppendEntriesResponse<TypeConfig>) -> AppendAnswer {
        match response {
            AppendEntriesResponse::Success => AppendAnswer::Success,
            AppendEntriesResponse::PartialSuccess(matching) => AppendAnswer::Partial(positions(&matching)),
            AppendEntriesResponse::Conflict => AppendAnswer::Conflict,
            AppendEntriesResponse::HigherVote(vote) => AppendAnswer::HigherVote((&vote).into()),
        }
    }
}

impl From<AppendAnswer> for AppendEntriesResponse<TypeConfig> {
    fn from(answer: AppendAnswer) -> AppendEntriesResponse<TypeConfig> {
        match answer {
            AppendAnswer::Success => AppendEntriesResponse::Success,
            AppendAnswer::Partial(matching) => AppendEntriesResponse::PartialSuccess(matching.map(log_id)),
            AppendAnswer::Conflict => AppendEntriesResponse::Conflict,
            AppendAnswer::HigherVote(vote) => AppendEntriesResponse::HigherVote(vote.into()),
        }
    }
}

pub(super) type StreamResult = Result<Option<LogId>, StreamAppendError<TypeConfig>>;

impl From<StreamResult> for StreamAnswer {
    fn from(result: StreamResult) -> StreamAnswer {
        match result {
            Ok(matching) => StreamAnswer::Matching(positions(&matching)),
            Err(StreamAppendError::Conflict(id)) => StreamAnswer::Conflict(position(&id)),
            Err(StreamAppendError::HigherVote(vote)) => StreamAnswer::HigherVote((&vote).into()),
        }
    }
}

impl From<StreamAnswer> for StreamResult {
    fn from(answer: StreamAnswer) -> StreamResult {
        match answer {
            StreamAnswer::Matching(matching) => Ok(matching.map(log_id)),
            StreamAnswer::Conflict(id) => Err(StreamAppendError::Conflict(log_id(id))),
            StreamAnswer::HigherVote(vote) => Err(StreamAppendError::HigherVote(vote.into())),
        }
    }
}

impl From<&TransferLeaderRequest<TypeConfig>> for TransferCall {
    fn from(request: &TransferLeaderRequest<TypeConfig>) -> TransferCall {
        let last = request.last_log_id().map(position);
        TransferCall { from: request.from_leader().into(), to: *request.to_node_id(), last }
    }
}

impl From<TransferCall> for TransferLeaderRequest<TypeConfig> {
    fn from(call: TransferCall) -> TransferLeaderRequest<TypeConfig> {
        TransferLeaderRequest::new(call.from.into(), call.to, call.last.map(log_id))
    }
}

impl From<TransferLeaderResponse<TypeConfig>> for TransferAnswer {
    fn from(response: TransferLeaderResponse<TypeConfig>) -> TransferAnswer {
        match response {
            Ok(()) => TransferAnswer::Ok,
            Err(TransferLeaderError::VoteChanged { actual, .. }) => TransferAnswer::VoteChanged((&actual).into()),
            Err(TransferLeaderError::LogNotFlushed { actual, .. }) => TransferAnswer::LogNotFlushed(positions(&actual)),
        }
    }
}

impl TransferAnswer {
    pub(super) fn to(self, request: &TransferLeaderRequest<TypeConfig>) -> TransferLeaderResponse<TypeConfig> {
        match self {
            TransferAnswer::Ok => Ok(()),
            TransferAnswer::VoteChanged(actual) => {
                Err(TransferLeaderError::VoteChanged { expected: *request.from_leader(), actual: actual.into() })
            }
            TransferAnswer::LogNotFlushed(actual) => Err(TransferLeaderError::LogNotFlushed {
                expected: request.last_log_id().copied(),
                actual: actual.map(log_id),
            }),
        }
    }
}

/// A message with its length before it.
pub(super) fn frame(message: &[u8]) -> Bytes {
    let mut frame = Vec::with_capacity(4 + message.len());
    frame.extend_from_slice(&(message.len() as u32).to_be_bytes());
    frame.extend_from_slice(message);
    frame.into()
}

#[derive(Debug, thiserror::Error)]
pub(super) enum FrameError {
    #[error("a message of {0} bytes is over the limit")]
    TooLong(usize),
    #[error("the stream ends within a message")]
    Short,
    #[error("the stream broke off: {0}")]
    Broken(std::io::Error),
}

/// Reads messages from a body.
pub(super) struct Frames {
    body: Body,
    buffer: BytesMut,
}

impl Frames {
    pub(super) fn new(body: Body) -> Frames {
        Frames { body, buffer: BytesMut::new() }
    }

    /// The next message; None at the end. Safe to cancel.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, FrameError> {
        loop {
            if let Some(message) = take_frame(&mut self.buffer)? {
                return Ok(Some(message));
            }
            match self.body.frame().await {
                Some(Ok(part)) => {
                    if let Ok(data) = part.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                Some(Err(error)) => return Err(FrameError::Broken(error)),
                None if self.buffer.is_empty() => return Ok(None),
                None => return Err(FrameError::Short),
            }
        }
    }
}

pub(super) fn take_frame(buffer: &mut BytesMut) -> Result<Option<Bytes>, FrameError> {
    let Some(prefix) = buffer.first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_be_bytes(*prefix) as usize;
    if length > FRAME {
        return Err(FrameError::TooLong(length));
    }
    if buffer.len() < 4 + length {
        return Ok(None);
    }
    buffer.advance(4);
    Ok(Some(buffer.split_to(length).freeze()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Batch, Entry, Payload};
    use kontiki_storage::Proposal;
    use proptest::prelude::*;

    fn entries() -> impl Strategy<Value = Vec<Entry>> {
        let entry = (any::<u64>(), any::<u64>(), proptest::option::of(0..3u64));
        (0..u64::MAX - 4, proptest::collection::vec(entry, 0..4)).prop_map(|(first, all)| {
            let entry = |(index, (term, node, proposals)): (u64, (u64, u64, Option<u64>))| {
                let payload = proposals.map_or(Payload::Blank, |count| {
                    let compact = |sequence| Proposal {
                        client: node,
                        sequence,
                        acknowledged: 0,
                        command: kontiki_storage::Command::Compact { before: index },
                    };
                    Payload::Normal(Batch::new((0..count).map(compact).collect()).unwrap())
                });
                Entry { log_id: log_id(LogPosition { index, term, node }), payload }
            };
            (first..).zip(all).map(entry).collect()
        })
    }

    /// To be appended to what comes before the first of them.
    fn append(entries: Vec<Entry>, term: u64) -> AppendEntriesRequest<TypeConfig> {
        let first = entries.first().map_or(0, |entry| entry.log_id.index);
        let before = first.checked_sub(1).map(|index| log_id(LogPosition { index, term, node: 7 }));
        let vote = crate::types::Vote::new_committed(term, 7);
        AppendEntriesRequest { vote, prev_log_id: before, entries, leader_commit: None }
    }

    proptest! {
        #[test]
        fn an_append_is_the_same_after_its_way(entries in entries(), term: u64, cut in 0..1000usize) {
            let request = append(entries, term);
            let bytes = Bytes::from(codec::encode(&AppendCall::of(&request)).unwrap());
            let read = AppendCall::decode(&bytes).unwrap();
            prop_assert_eq!(read.vote, request.vote);
            prop_assert_eq!(read.entries.len(), request.entries.len());
            for (read, sent) in read.entries.iter().zip(&request.entries) {
                prop_assert_eq!(read.log_id, sent.log_id);
                match (&read.payload, &sent.payload) {
                    (Payload::Normal(read), Payload::Normal(sent)) => {
                        prop_assert_eq!(read.proposals().unwrap(), sent.proposals().unwrap());
                    }
                    (read, sent) => prop_assert!(matches!((read, sent), (Payload::Blank, Payload::Blank))),
                }
            }
            if cut < bytes.len() {
                prop_assert!(AppendCall::decode(&bytes.slice(..cut)).is_err());
            }
        }

        #[test]
        fn an_append_that_leaves_entries_out_is_refused(entries in entries(), term: u64, out in 0..4usize, before in 2..9u64) {
            let mut request = append(entries, term);
            if out + 1 < request.entries.len() {
                request.entries.remove(out);
            } else if let Some(id) = request.prev_log_id.as_mut().filter(|id| id.index >= before && !request.entries.is_empty()) {
                id.index -= before;
            } else {
                return Ok(());
            }
            let bytes = Bytes::from(codec::encode(&AppendCall::of(&request)).unwrap());
            prop_assert!(matches!(AppendCall::decode(&bytes), Err(CodecError::Malformed(_))));
        }

        #[test]
        fn garbage_is_refused_and_frames_survive_any_split(parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..20)) {
            for part in &parts {
                // It must not panic; some bytes do make a message.
                let _ = AppendCall::decode(&Bytes::from(part.clone()));
                let _ = codec::decode::<Hello>(part);
            }
            let whole: Vec<u8> = parts.iter().flat_map(|part| frame(part)).collect();
            let mut buffer = BytesMut::new();
            let mut read = Vec::new();
            for piece in whole.chunks(7) {
                buffer.extend_from_slice(piece);
                while let Some(message) = take_frame(&mut buffer).unwrap() {
                    read.push(message.to_vec());
                }
            }
            prop_assert_eq!(read, parts);
        }
    }
}

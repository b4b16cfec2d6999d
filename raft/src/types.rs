//! The types that openraft is instantiated with.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use kontiki_storage::codec::{self, CodecError};
use kontiki_storage::{LogPosition, Outcome, Proposal};
use openraft::vote::leader_id_adv;
use serde::{Deserialize, Serialize};

use crate::host;

pub type NodeId = u64;
/// A term may see more than one leader, each with a vote that beats the one before: two candidates that start at the same
/// moment don't split the vote, so an election takes one round.
pub(crate) type LeaderId = leader_id_adv::LeaderId<u64, NodeId>;
pub(crate) type LogId = openraft::LogId<LeaderId>;
pub(crate) type Vote = openraft::impls::Vote<LeaderId>;
pub(crate) type Payload = openraft::EntryPayload<Batch, NodeId, Member>;
pub(crate) type Entry = openraft::Entry<LeaderId, Payload>;
pub(crate) type Membership = openraft::Membership<NodeId, Member>;
pub(crate) type StoredMembership = openraft::StoredMembership<LeaderId, NodeId, Member>;
pub(crate) type SnapshotMeta = openraft::SnapshotMeta<LeaderId, NodeId, Member>;

openraft::declare_raft_types!(
    pub(crate) TypeConfig:
        D = Batch,
        R = Vec<Outcome>,
        NodeId = NodeId,
        Node = Member,
        LeaderId = LeaderId,
        AsyncRuntime = host::Runtime,
);

/// A replica as the others know it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    pub name: String,
    /// Where its peers reach it: host:port.
    pub address: String,
}

/// The proposals of one log entry. They are encoded once, where they were made: the same bytes go to the leader, into every
/// log and over every wire. A clone is a counter.
#[derive(Clone)]
pub(crate) struct Batch(Arc<Inner>);

struct Inner {
    bytes: Bytes,
    /// Known where the batch was made or has been checked; others decode when they apply it.
    proposals: Option<Vec<Proposal>>,
}

impl Batch {
    pub(crate) fn new(proposals: Vec<Proposal>) -> Result<Batch, CodecError> {
        let bytes = codec::encode(&proposals)?.into();
        Ok(Batch(Arc::new(Inner { bytes, proposals: Some(proposals) })))
    }

    /// A batch that a peer made: not appended before it is known to decode.
    pub(crate) fn check(bytes: Bytes) -> Result<Batch, CodecError> {
        let proposals = Some(codec::decode(&bytes)?);
        Ok(Batch(Arc::new(Inner { bytes, proposals })))
    }

    /// A batch of an entry that has been appended somewhere.
    pub(crate) fn stored(bytes: Bytes) -> Batch {
        Batch(Arc::new(Inner { bytes, proposals: None }))
    }

    pub(crate) fn bytes(&self) -> &Bytes {
        &self.0.bytes
    }

    pub(crate) fn proposals(&self) -> Result<Cow<'_, [Proposal]>, CodecError> {
        match &self.0.proposals {
            Some(proposals) => Ok(Cow::Borrowed(proposals)),
            None => Ok(Cow::Owned(codec::decode(&self.0.bytes)?)),
        }
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "batch of {} bytes", self.0.bytes.len())
    }
}

impl fmt::Display for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

pub(crate) fn position(id: &LogId) -> LogPosition {
    LogPosition { index: id.index, term: id.leader_id.term, node: id.leader_id.node_id }
}

pub(crate) fn log_id(position: LogPosition) -> LogId {
    LogId::new(LeaderId { term: position.term, node_id: position.node }, position.index)
}

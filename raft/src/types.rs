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
/// What this build can apply. A command that needs a level is proposed once the cluster is at it;
/// `kontiki_storage::Command::level` says which needs what.
pub const LEVEL: u32 = 1;
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
    /// What it takes in memory.
    weight: usize,
}

/// The first byte of a batch whose proposals are packed, which is no format's number: their length and a block of LZ4 follow.
/// Objects written at the same time are much alike, and every replica writes and syncs these bytes. Without it a batch is
/// the encoded proposals and begins with their format, as the first entries ever written do.
const PACKED: u8 = 0;
/// Shorter ones are not worth the time.
const PACK: usize = 1 << 10;
/// LZ4 makes nothing longer than this out of a byte.
const RATIO: usize = 255;

impl Batch {
    pub(crate) fn new(proposals: Vec<Proposal>) -> Result<Batch, CodecError> {
        let encoded = codec::encode(&proposals)?;
        let length = encoded.len();
        let bytes = pack(encoded);
        let weight = length + bytes.len();
        Ok(Batch(Arc::new(Inner { bytes, proposals: Some(proposals), weight })))
    }

    /// A batch that a peer made: not appended before it is known to decode.
    pub(crate) fn check(bytes: Bytes) -> Result<Batch, CodecError> {
        let encoded = unpack(&bytes)?;
        let proposals = Some(codec::decode(&encoded)?);
        let weight = encoded.len() + bytes.len();
        Ok(Batch(Arc::new(Inner { bytes, proposals, weight })))
    }

    /// A batch of an entry that has been appended somewhere.
    pub(crate) fn stored(bytes: Bytes) -> Batch {
        let weight = bytes.len();
        Batch(Arc::new(Inner { bytes, proposals: None, weight }))
    }

    pub(crate) fn bytes(&self) -> &Bytes {
        &self.0.bytes
    }

    pub(crate) fn weight(&self) -> usize {
        self.0.weight
    }

    /// How long its proposals are, unpacked.
    pub(crate) fn unpacked(&self) -> usize {
        match self.0.bytes.split_first() {
            Some((&PACKED, rest)) => rest.first_chunk::<4>().map_or(0, |length| u32::from_le_bytes(*length) as usize),
            _ => self.0.bytes.len(),
        }
    }

    pub(crate) fn proposals(&self) -> Result<Cow<'_, [Proposal]>, CodecError> {
        match &self.0.proposals {
            Some(proposals) => Ok(Cow::Borrowed(proposals)),
            None => Ok(Cow::Owned(codec::decode(&unpack(&self.0.bytes)?)?)),
        }
    }
}

fn pack(encoded: Vec<u8>) -> Bytes {
    let Ok(length) = u32::try_from(encoded.len()) else { return encoded.into() };
    if encoded.len() < PACK {
        return encoded.into();
    }
    let block = lz4_flex::block::compress(&encoded);
    if block.len() >= encoded.len() {
        return encoded.into();
    }
    [&[PACKED][..], &length.to_le_bytes(), &block].concat().into()
}

fn unpack(bytes: &[u8]) -> Result<Cow<'_, [u8]>, CodecError> {
    match bytes.split_first() {
        Some((&PACKED, rest)) => {
            let (length, block) = rest.split_first_chunk::<4>().ok_or(CodecError::Short)?;
            let length = u32::from_le_bytes(*length) as usize;
            if length > codec::LIMIT || length / RATIO > block.len() {
                return Err(CodecError::Malformed("its length can't be that of its block".into()));
            }
            let encoded = lz4_flex::block::decompress(block, length);
            encoded.map(Cow::Owned).map_err(|error| CodecError::Malformed(error.to_string()))
        }
        _ => Ok(Cow::Borrowed(bytes)),
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

#[cfg(test)]
mod tests {
    use kontiki_storage::{Command, Transaction, Write};
    use proptest::prelude::*;

    use super::*;

    fn proposals(values: &[Vec<u8>]) -> Vec<Proposal> {
        let proposal = |(sequence, value): (usize, &Vec<u8>)| {
            let write =
                Write::Put { key: "a/1".into(), value: value.clone().into(), revision_at: None, expires_at: None };
            let command = Command::Transact(Transaction { conditions: vec![], writes: vec![write] });
            Proposal { client: 7, sequence: sequence as u64, acknowledged: 0, command }
        };
        values.iter().enumerate().map(proposal).collect()
    }

    #[test]
    fn what_is_alike_takes_little() {
        let batch = Batch::new(proposals(&vec![b"the same words in each of them ".repeat(10); 50])).unwrap();
        assert!(batch.bytes().len() < 50 * 310 / 10, "{}", batch.bytes().len());
        // What is applied at once is bounded by what it becomes.
        let stored = Batch::stored(batch.bytes().clone());
        assert_eq!(stored.unpacked(), codec::encode(&*batch.proposals().unwrap()).unwrap().len());
    }

    proptest! {
        #[test]
        fn a_batch_is_the_same_after_its_way(values in prop::collection::vec(prop::collection::vec(0..4u8, 0..600), 0..20)) {
            let proposals = proposals(&values);
            let bytes = Batch::new(proposals.clone()).unwrap().bytes().clone();
            for batch in [Batch::check(bytes.clone()).unwrap(), Batch::stored(bytes)] {
                prop_assert_eq!(&batch.proposals().unwrap()[..], &proposals[..]);
            }
        }

        #[test]
        fn garbage_is_refused(packing in 0..3u8, bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Batch::check([vec![packing], bytes].concat().into());
        }
    }
}

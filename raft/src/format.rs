//! How votes, entries and memberships look on disk and on the wire: forms of our own, so that neither format depends on
//! how a release of openraft lays out its types.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use kontiki_storage::LogPosition;
use kontiki_storage::codec::{self, Blob, CodecError};
use openraft::vote::RaftLeaderId;
use serde::{Deserialize, Serialize};

use crate::types::{Batch, Entry, LeaderId, Member, Membership, Payload, StoredMembership, Vote, log_id, position};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VoteForm {
    term: u64,
    node: u64,
    committed: bool,
}

impl From<&Vote> for VoteForm {
    fn from(vote: &Vote) -> VoteForm {
        VoteForm { term: vote.leader_id.term, node: vote.leader_id.node_id, committed: vote.committed }
    }
}

impl From<VoteForm> for Vote {
    fn from(form: VoteForm) -> Vote {
        Vote { leader_id: LeaderId::new(form.term, form.node), committed: form.committed }
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct EntryForm<'a> {
    position: LogPosition,
    #[serde(borrow)]
    payload: PayloadForm<'a>,
}

#[derive(Debug, Serialize, Deserialize)]
enum PayloadForm<'a> {
    /// What a new leader commits first.
    Blank,
    Batch(#[serde(borrow)] Blob<'a>),
    Membership(MembershipForm),
}

impl<'a> EntryForm<'a> {
    pub(crate) fn of(entry: &'a Entry) -> EntryForm<'a> {
        let payload = match &entry.payload {
            Payload::Blank => PayloadForm::Blank,
            Payload::Normal(batch) => PayloadForm::Batch(Blob(batch.bytes())),
            Payload::Membership(membership) => PayloadForm::Membership(MembershipForm::of(membership)),
        };
        EntryForm { position: position(&entry.log_id), payload }
    }

    /// `row` is what the form was decoded from; a batch shares it.
    pub(crate) fn restore(self, row: &Bytes) -> Result<Entry, CodecError> {
        let payload = match self.payload {
            PayloadForm::Blank => Payload::Blank,
            PayloadForm::Batch(bytes) => Payload::Normal(Batch::stored(row.slice_ref(bytes.0))),
            PayloadForm::Membership(form) => Payload::Membership(form.restore()?),
        };
        Ok(Entry { log_id: log_id(self.position), payload })
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct MembershipForm {
    /// Two while a change of voters is under way.
    configs: Vec<BTreeSet<u64>>,
    nodes: BTreeMap<u64, Member>,
}

impl MembershipForm {
    fn of(membership: &Membership) -> MembershipForm {
        MembershipForm {
            configs: membership.get_joint_config().clone(),
            nodes: membership.nodes().map(|(id, member)| (*id, member.clone())).collect(),
        }
    }

    fn restore(self) -> Result<Membership, CodecError> {
        Membership::new(self.configs, self.nodes).map_err(|error| CodecError::Malformed(error.to_string()))
    }
}

/// The membership that the state machine keeps, with the entry it came from.
#[derive(Debug, Serialize, Deserialize)]
struct StoredMembershipForm {
    position: Option<LogPosition>,
    membership: MembershipForm,
}

pub(crate) fn encode_membership(stored: &StoredMembership) -> Result<Bytes, CodecError> {
    let membership = MembershipForm::of(stored.membership());
    let form = StoredMembershipForm { position: stored.log_id().as_ref().map(position), membership };
    Ok(codec::encode(&form)?.into())
}

/// No bytes: nothing has been applied yet.
pub(crate) fn decode_membership(bytes: &[u8]) -> Result<StoredMembership, CodecError> {
    if bytes.is_empty() {
        return Ok(StoredMembership::default());
    }
    let form: StoredMembershipForm = codec::decode(bytes)?;
    Ok(StoredMembership::new(form.position.map(log_id), form.membership.restore()?))
}

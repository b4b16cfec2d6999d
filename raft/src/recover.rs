//! Disaster recovery: the data directory of a replica whose cluster has lost its quorum for good becomes that of a cluster
//! of its own, with all that this replica has, applied or not. The cluster id is a new one, so that no replica of the old
//! cluster that turns up later is spoken with; revisions are left out, since clients may know some that this replica
//! never saw.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::Path;

use kontiki_storage::{Command, Proposal, Revision, Store};
use openraft::vote::RaftLeaderId;

use crate::audit::Divergence;
use crate::config::StartError;
use crate::format::decode_membership;
use crate::identity::{Identity, node_id};
use crate::lock::{idle, lock};
use crate::log::{self, DIVERGENCE, IDENTITY};
use crate::types::{Batch, Entry, LeaderId, LogId, Member, Membership, NodeId, Payload, StoredMembership, Vote};

/// A replica that doesn't run, as its data directory shows it.
#[derive(Debug)]
pub struct Survivor {
    /// Nobody starts it meanwhile.
    _held: File,
    identity: Identity,
    own: Member,
    /// The other voters that it knows.
    pub others: Vec<Member>,
    voters: BTreeSet<NodeId>,
    last: Option<LogId>,
    /// The state has applied what the log doesn't reach: a snapshot was taken in, and a crash came before the log was cut.
    ahead: Option<LogId>,
    vote: Option<Vote>,
    /// Its state was not the one that most replicas had.
    pub divergence: Option<Divergence>,
}

impl Survivor {
    /// Reads the whole log; a damaged one is no ground for a recovery.
    pub fn read(data_dir: &Path) -> Result<Survivor, StartError> {
        let (log_dir, state_dir) = (data_dir.join("log"), data_dir.join("state"));
        let foreign = |detail: &str| StartError::Foreign { path: data_dir.to_owned(), detail: detail.into() };
        if !log_dir.exists() {
            return Err(foreign("this is no data directory of a replica: it has no log"));
        }
        idle(data_dir)?;
        let held = lock(data_dir)?;
        let unreadable = |what: &str| {
            let what = what.to_owned();
            move |error| StartError::unreadable(data_dir, what, error)
        };
        let db = log::open_read_only(&log_dir)?;
        let identity = log::note::<Identity>(&db, IDENTITY).map_err(unreadable("the replica's identity"))?;
        let identity = identity.ok_or_else(|| foreign("there is no identity"))?;
        let mut damaged = None;
        let state = Store::survey(&state_dir, |error| damaged = Some(error))?;
        if let Some(error) = damaged {
            return Err(error.into());
        }
        let mut membership = decode_membership(&state.membership).map_err(unreadable("the membership"))?;
        let applied = state.position.map(crate::types::log_id);
        let mut last = None;
        let notes = log::scan(&db, &log_dir, &mut Err, |entry, _| {
            last = Some(entry.log_id);
            if let Payload::Membership(newer) = entry.payload
                && *membership.log_id() < Some(entry.log_id)
            {
                membership = StoredMembership::new(Some(entry.log_id), newer);
            }
        })?;
        let last = last.max(notes.purged);
        let divergence =
            log::note::<Option<Divergence>>(&db, DIVERGENCE).map_err(unreadable("the note of a divergence"))?;
        let own = membership
            .get_node(&identity.node)
            .cloned()
            .unwrap_or_else(|| Member { name: identity.name.clone(), address: String::new() });
        let voters: BTreeSet<NodeId> = membership.voter_ids().collect();
        let others = voters.iter().filter(|id| **id != identity.node);
        let others = others.filter_map(|id| membership.get_node(id).cloned()).collect();
        Ok(Survivor {
            _held: held,
            identity,
            own,
            others,
            voters,
            last: last.max(applied),
            ahead: applied.filter(|_| applied > last),
            vote: notes.vote,
            divergence: divergence.flatten(),
        })
    }

    pub fn name(&self) -> &str {
        &self.identity.name
    }

    pub fn address(&self) -> &str {
        &self.own.address
    }

    /// How many of the other voters would make a quorum of the old cluster, this replica being started again.
    pub fn quorum_with(&self) -> usize {
        self.voters.len() / 2 + 1 - usize::from(self.voters.contains(&self.identity.node))
    }

    /// Makes this replica the only member of a new cluster, durably and in one step; returns the cluster's id. Revisions
    /// go on so many later.
    pub fn recover(self, data_dir: &Path, address: Option<&str>, skip: Revision) -> Result<u64, StartError> {
        // The founder of a cluster, whatever it was in the old one.
        let node = node_id(&self.identity.name);
        let identity =
            Identity { cluster: rand::random(), node, incarnation: rand::random(), name: self.identity.name };
        // Newer than whatever this replica has voted for or written.
        let voted = self.vote.map_or(0, |vote| vote.leader_id.term);
        let term = voted.max(self.last.map_or(0, |last| last.leader_id.term)) + 1;
        let own = Member { address: address.map_or(self.own.address, str::to_owned), ..self.own };
        let membership = Membership::new(vec![BTreeSet::from([node])], BTreeMap::from([(node, own)]))
            .map_err(|error| StartError::Raft(error.to_string()))?;
        let leader = LeaderId::new(term, node);
        let index = self.last.map_or(0, |last| last.index + 1);
        let command = Command::Skip { revisions: skip };
        let skip = Batch::new(vec![Proposal { client: 0, sequence: 0, acknowledged: 0, command }])
            .map_err(|error| StartError::Raft(error.to_string()))?;
        let entries = [
            Entry { log_id: LogId::new(leader, index), payload: Payload::Membership(membership) },
            Entry { log_id: LogId::new(leader, index + 1), payload: Payload::Normal(skip) },
        ];
        let vote = Vote { leader_id: leader, committed: true };
        log::take_over(&data_dir.join("log"), &identity, &vote, self.ahead, &entries)?;
        Ok(identity.cluster)
    }
}

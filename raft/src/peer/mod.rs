//! The other replicas.

mod network;

use crate::replica::{ReplicaStatus, Unreachable};
use crate::route::Answer;
use crate::types::{Batch, NodeId};

pub(crate) use network::Network;

/// What a replica shows its peers, and what it knows them by.
#[derive(Clone)]
pub struct PeerTls {
    /// This member's certificate and those that lead to the CA; PEM or DER.
    pub chain: Vec<u8>,
    pub key: Vec<u8>,
    /// The cluster's CA. Whoever it has signed as a member is a peer.
    pub ca: Vec<u8>,
}

#[derive(Clone)]
pub(crate) struct Peers;

impl Peers {
    pub(crate) fn new() -> Peers {
        Peers
    }

    pub(crate) fn name_of(&self, id: NodeId) -> String {
        id.to_string()
    }

    pub(crate) async fn propose(&self, _leader: NodeId, _batch: &Batch) -> Answer {
        Answer::NotTaken
    }

    pub(crate) async fn read_index(&self, _leader: NodeId) -> Option<u64> {
        None
    }

    pub(crate) async fn statuses(&self) -> Vec<Result<ReplicaStatus, Unreachable>> {
        Vec::new()
    }
}

//! Who this replica is. It is written once, beside the log, and decides whose data directory this is.

use std::path::Path;

use kontiki_storage::codec;
use rand::Rng;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::config::{Config, StartError};
use crate::host;
use crate::log::{IDENTITY, Log};
use crate::types::{Member, NodeId};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) cluster: u64,
    pub(crate) node: NodeId,
    pub(crate) name: String,
    /// Drawn when the data directory was made: a replica that comes back with an empty one is told from its former self.
    pub(crate) incarnation: u64,
}

/// What a replica that joins is told by a member: which cluster this is, and whom it finds there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invitation {
    pub cluster: u64,
    /// The one that it was taken in with.
    pub incarnation: u64,
    pub members: Vec<(NodeId, Member)>,
}

impl Identity {
    /// Whether this replica is one that its cluster began with.
    pub(crate) fn is_founder(&self) -> bool {
        self.node == node_id(&self.name)
    }
}

/// The members that a cluster starts with, which fix its id and theirs; or those that a replica joins.
pub(crate) struct Founders {
    pub(crate) cluster: u64,
    pub(crate) members: Vec<(NodeId, Member)>,
}

impl Founders {
    pub(crate) fn of(config: &Config) -> Result<Founders, StartError> {
        if config.peer_listen.is_some() && config.tls.is_none() {
            return Err(StartError::Config("peers need certificates to know each other by".into()));
        }
        if let Some(invitation) = &config.invitation {
            if config.peer_listen.is_none() {
                return Err(StartError::Config("a replica that joins needs a peer address to listen on".into()));
            }
            return Ok(Founders { cluster: invitation.cluster, members: invitation.members.clone() });
        }
        let mut named = config.initial_cluster.clone();
        if named.is_empty() {
            named.push((config.name.clone(), config.peer_address.clone()));
        }
        named.sort();
        if let Some(twice) = named.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(StartError::Config(format!("the initial cluster names {} twice", twice[0].0)));
        }
        if !named.iter().any(|(name, _)| *name == config.name) {
            let names: Vec<_> = named.iter().map(|(name, _)| name.as_str()).collect();
            let names = names.join(", ");
            return Err(StartError::Config(format!("{} is not in the initial cluster, which is {names}", config.name)));
        }
        if named.len() > 1 && config.peer_listen.is_none() {
            return Err(StartError::Config("a cluster of several replicas needs a peer address to listen on".into()));
        }
        let text: Vec<_> = named.iter().map(|(name, address)| format!("{name}={address}")).collect();
        // A cluster of one says nothing that sets it apart from the next one.
        let cluster =
            if config.initial_cluster.is_empty() { host::rng().random() } else { hash("cluster", &text.join(",")) };
        let members = named.into_iter().map(|(name, address)| (node_id(&name), Member { name, address }));
        Ok(Founders { cluster, members: members.collect() })
    }
}

/// The same wherever and whenever it is computed, so that founders need not agree on ids first.
pub(crate) fn node_id(name: &str) -> NodeId {
    hash("member", name).max(1)
}

/// Of a replica that joins a cluster. A name that was removed and joins again with another data directory is another
/// member: nothing that the former one has voted for or acknowledged is taken for its.
pub(crate) fn joined_id(name: &str, incarnation: u64) -> NodeId {
    hash("member", &format!("{name} {incarnation:016x}")).max(1)
}

/// Whether a replica may have this id.
pub(crate) fn fits(name: &str, incarnation: u64, node: NodeId) -> bool {
    node == node_id(name) || node == joined_id(name, incarnation)
}

fn hash(kind: &str, text: &str) -> u64 {
    let digest = Sha256::digest(format!("kontiki {kind} {text}"));
    digest.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

/// The identity in the log, after checking that it is the one that `config` means; None: there is none yet.
pub(crate) fn read(config: &Config, founders: &Founders, log: &Log) -> Result<Option<Identity>, StartError> {
    let path = &config.data_dir;
    let Some(identity) = log.row::<Identity>(IDENTITY, "the replica's identity")? else { return Ok(None) };
    if identity.name != config.name {
        let detail = format!("this is the data directory of replica {0}: start it with --name {0}", identity.name);
        return Err(StartError::Foreign { path: path.clone(), detail });
    }
    if config.invitation.is_some() && identity.cluster != founders.cluster {
        let detail = "this data directory belongs to another cluster than the one to join; give another";
        return Err(StartError::Foreign { path: path.clone(), detail: detail.into() });
    }
    if !config.initial_cluster.is_empty() && identity.cluster != founders.cluster {
        let detail = "this data directory belongs to a cluster with other initial members; give the initial cluster that \
                      it was started with, or another data directory";
        return Err(StartError::Foreign { path: path.clone(), detail: detail.into() });
    }
    Ok(Some(identity))
}

/// Makes this directory a replica's, durably.
pub(crate) async fn found(config: &Config, founders: &Founders, log: &Log) -> Result<Identity, StartError> {
    let (node, incarnation) = match &config.invitation {
        Some(Invitation { incarnation, .. }) => (joined_id(&config.name, *incarnation), *incarnation),
        None => (node_id(&config.name), host::rng().random()),
    };
    let identity = Identity { cluster: founders.cluster, node, name: config.name.clone(), incarnation };
    let cannot = |path: &Path, source| StartError::Io { path: path.to_owned(), source };
    let row =
        codec::seal(IDENTITY, &identity).map_err(|error| cannot(&config.data_dir, std::io::Error::other(error)))?;
    log.put(IDENTITY, row).await.map_err(|source| cannot(&config.data_dir, source))?;
    Ok(identity)
}

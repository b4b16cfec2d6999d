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

/// The members that a cluster starts with, which fix its id and theirs.
pub(crate) struct Founders {
    pub(crate) cluster: u64,
    pub(crate) members: Vec<(NodeId, Member)>,
}

impl Founders {
    pub(crate) fn of(config: &Config) -> Result<Founders, StartError> {
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
        if config.peer_listen.is_some() && config.tls.is_none() {
            return Err(StartError::Config("peers need certificates to know each other by".into()));
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

fn hash(kind: &str, text: &str) -> u64 {
    let digest = Sha256::digest(format!("kontiki {kind} {text}"));
    digest.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

/// The identity in the log, after checking that it is the one that `config` means; None: there is none yet.
pub(crate) fn read(config: &Config, founders: &Founders, log: &Log) -> Result<Option<Identity>, StartError> {
    let path = &config.data_dir;
    let Some(row) = log.get(IDENTITY)? else { return Ok(None) };
    let identity: Identity = codec::unseal(IDENTITY, &row).map_err(|error| StartError::Corrupt {
        path: path.clone(),
        what: "the replica's identity".into(),
        detail: error.to_string(),
    })?;
    if identity.name != config.name {
        let detail = format!("this is the data directory of replica {}, not of {}", identity.name, config.name);
        return Err(StartError::Foreign { path: path.clone(), detail });
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
    let identity = Identity {
        cluster: founders.cluster,
        node: node_id(&config.name),
        name: config.name.clone(),
        incarnation: host::rng().random(),
    };
    let cannot = |path: &Path, source| StartError::Io { path: path.to_owned(), source };
    let row =
        codec::seal(IDENTITY, &identity).map_err(|error| cannot(&config.data_dir, std::io::Error::other(error)))?;
    log.put(IDENTITY, row).await.map_err(|source| cannot(&config.data_dir, source))?;
    Ok(identity)
}

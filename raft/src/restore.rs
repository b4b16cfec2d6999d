//! A new cluster of one replica from a snapshot file.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use kontiki_storage::{
    ArchiveError, Beginning, LogPosition, Revision, SnapshotHeader, check_archive, create_private_dir, restore_archive,
};

use crate::config::StartError;
use crate::format::encode_membership;
use crate::identity::{Identity, node_id};
use crate::log;
use crate::types::{Member, Membership, StoredMembership, Vote, log_id};

/// What a data directory is made of.
#[derive(Debug, Clone)]
pub struct Restore<'a> {
    pub file: &'a Path,
    pub data_dir: &'a Path,
    /// The only replica.
    pub name: &'a str,
    /// Where others will reach it, if any are to join.
    pub peer_address: &'a str,
    /// How far the revision goes on from the snapshot's. More than the old cluster has made since, so that none of its
    /// revisions is seen a second time with other content.
    pub bump_revision: u64,
}

#[derive(Debug, Clone)]
pub struct Restored {
    pub snapshot: SnapshotHeader,
    pub cluster: u64,
    pub revision: Revision,
}

#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error("{file}: {source}", file = file.display())]
    Archive { file: PathBuf, source: ArchiveError },
    #[error("{path} is there already: a snapshot is restored into a new data directory", path = path.display())]
    Exists { path: PathBuf },
    #[error("{path}: {source}", path = path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Log(#[from] StartError),
}

/// Checks the whole file before anything is written. The log is written last: without it a replica refuses to start.
pub fn restore(what: &Restore) -> Result<Restored, RestoreError> {
    let Restore { file, data_dir, name, .. } = *what;
    let damaged = |source| RestoreError::Archive { file: file.to_owned(), source };
    let snapshot = check_archive(file).map_err(damaged)?;
    let (state, log) = (data_dir.join("state"), data_dir.join("log"));
    if let Some(path) = [&state, &log].into_iter().find(|path| path.exists()) {
        return Err(RestoreError::Exists { path: path.clone() });
    }
    let io = |source| RestoreError::Io { path: data_dir.to_owned(), source };
    create_private_dir(data_dir).map_err(io)?;

    let node = node_id(name);
    let identity = Identity { cluster: rand::random(), node, name: name.to_owned(), incarnation: rand::random() };
    // The cluster begins as if this replica had led it for one term with one entry, which is no longer in the log.
    let position = LogPosition { index: 1, term: 1, node };
    let member = Member { name: name.to_owned(), address: what.peer_address.to_owned() };
    let membership = Membership::from(BTreeMap::from([(node, member)]));
    let stored = StoredMembership::new(Some(log_id(position)), membership);
    let membership = encode_membership(&stored).map_err(|error| io(io::Error::other(error)))?;
    let revision = snapshot.revision.saturating_add(what.bump_revision);
    restore_archive(&state, file, Beginning { position, revision, membership }).map_err(damaged)?;
    log::begin(&log, &identity, &Vote::new_committed(1, node), position)?;
    Ok(Restored { snapshot, cluster: identity.cluster, revision })
}

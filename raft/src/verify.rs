//! Everything that a data directory holds, read and checked while no replica runs on it.

use std::path::Path;

use kontiki_storage::{Store, Survey, codec};

use crate::config::StartError;
use crate::format::decode_membership;
use crate::identity::Identity;
use crate::lock::idle;
use crate::log::{self, IDENTITY, Notes};
use crate::types::{LogId, Payload};

/// Defects beyond these are only counted.
const NAMED: usize = 50;

/// What was read, and what is wrong with it.
#[derive(Debug, Clone, Default)]
pub struct Verified {
    /// Name, and ids of the cluster and the replica.
    pub identity: Option<(String, u64, u64)>,
    /// The first and the last entry of the log.
    pub log: Option<(u64, u64)>,
    pub entries: u64,
    pub term: u64,
    pub state: Option<Survey>,
    /// The state has applied more than the log holds.
    pub state_is_ahead: bool,
    pub defects: Vec<String>,
    /// Those that are not named.
    pub more: usize,
}

impl Verified {
    pub fn is_sound(&self) -> bool {
        self.defects.is_empty()
    }

    fn defect(&mut self, text: impl ToString) {
        if self.defects.len() < NAMED {
            self.defects.push(text.to_string());
        } else {
            self.more += 1;
        }
    }
}

/// Fails only where nothing can be said: there is no data directory, or a replica runs on it.
pub fn verify(data_dir: &Path) -> Result<Verified, StartError> {
    let (log_dir, state_dir) = (data_dir.join("log"), data_dir.join("state"));
    if !log_dir.exists() && !state_dir.exists() {
        let detail = "this is no data directory of a replica: it has neither a log nor a state".into();
        return Err(StartError::Foreign { path: data_dir.to_owned(), detail });
    }
    idle(data_dir)?;
    let mut verified = Verified::default();
    let notes = match read_log(&log_dir, &mut verified) {
        Ok(notes) => Some(notes),
        Err(error) => {
            verified.defect(error);
            None
        }
    };
    match Store::survey(&state_dir, |error| verified.defect(error)) {
        Ok(state) => verified.state = Some(state),
        Err(error) => verified.defect(error),
    }
    if let Some((notes, last)) = notes {
        compare(&notes, last, &mut verified);
    }
    Ok(verified)
}

/// What the log notes, and its last entry.
fn read_log(path: &Path, verified: &mut Verified) -> Result<(Notes, Option<LogId>), StartError> {
    let db = log::open_read_only(path)?;
    match db.get(IDENTITY) {
        Ok(Some(row)) => match codec::unseal::<Identity>(IDENTITY, &row) {
            Ok(identity) => verified.identity = Some((identity.name, identity.cluster, identity.node)),
            Err(error) => verified.defect(format!("{}: the replica's identity is damaged: {error}", path.display())),
        },
        Ok(None) => verified.defect(format!("{}: there is no identity", path.display())),
        Err(error) => verified.defect(format!("{}: the replica's identity: {error}", path.display())),
    }
    let (mut first, mut last, mut entries) = (None, None, 0);
    let mut unreadable = Vec::new();
    let mut defects = Vec::new();
    let notes = log::scan(
        &db,
        path,
        &mut |error| {
            defects.push(error);
            Ok(())
        },
        |entry, _| {
            first.get_or_insert(entry.log_id.index);
            last = Some(entry.log_id);
            entries += 1;
            if let Payload::Normal(batch) = &entry.payload
                && let Err(error) = batch.proposals()
            {
                unreadable.push(format!("{}: log entry {}: {error}", path.display(), entry.log_id.index));
            }
        },
    )?;
    defects.into_iter().for_each(|error| verified.defect(error));
    unreadable.into_iter().for_each(|text| verified.defect(text));
    verified.log = first.zip(last.map(|last| last.index));
    verified.entries = entries;
    verified.term = notes.vote.as_ref().map_or(0, |vote| vote.leader_id.term);
    let last = last.max(notes.purged);
    Ok((notes, last))
}

/// The log and the state must be of one piece.
fn compare(notes: &Notes, last: Option<LogId>, verified: &mut Verified) {
    let Some(state) = verified.state.clone() else { return };
    let applied = state.position.map_or(0, |position| position.index);
    if let Some(purged) = &notes.purged
        && purged.index > applied
    {
        let first = purged.index + 1;
        verified
            .defect(format!("the log begins with entry {first}, and the state has applied entries up to {applied}"));
    }
    // A crash between the installation of a snapshot and the cut of the log leaves it so; a start mends it.
    verified.state_is_ahead = last.map_or(0, |last| last.index) < applied;
    if let Err(error) = decode_membership(&state.membership) {
        verified.defect(format!("the membership: {error}"));
    }
}

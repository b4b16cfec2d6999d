//! Snapshot files: the records of one revision, for a person to keep and to begin a new cluster from. History and
//! remembered outcomes stay out: they mean nothing to another cluster.
//!
//! A file is [`MAGIC`], then frames with their length before them (32 bits, big endian): a header, then chunks as
//! [`crate::Export`] makes them. Each frame has a checksum, chunks under their ordinal; the last one says that it is.
//! The header has the hash of the state, which the records must come to.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::codec::{self, CodecError};
use crate::disk::{Disk, OBJECTS, Row, applied_row, membership_row};
use crate::fill::Fill;
use crate::snapshot::{Chunk, Export};
use crate::state::State;
use crate::stored::StoredRecord;
use crate::{Fatal, Key, LogPosition, OpenError, Options, Revision, Store};

pub(crate) const MAGIC: &[u8] = b"kontiki-snapshot\n";
pub(crate) const HEADER: &[u8] = b"header";
/// A chunk is closed with the record that fills it, and a record is bounded by what a log entry may hold.
const FRAME: usize = 64 << 20;

/// What a snapshot file says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotHeader {
    /// The cluster that it was taken from.
    pub cluster: u64,
    pub revision: Revision,
    /// Of the state.
    pub hash: u64,
    pub records: u64,
    /// When it was taken, in Unix seconds, and by which version.
    pub taken_at: u64,
    pub taken_by: String,
}

#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    #[error("it can't be read: {0}")]
    Io(io::Error),
    #[error("it is no snapshot of Kontiki")]
    Magic,
    #[error("its header is damaged: {0}")]
    Header(CodecError),
    #[error("it is cut short")]
    Short,
    #[error("chunk {chunk} is damaged: {source}")]
    Chunk { chunk: u64, source: CodecError },
    #[error("the record {key} is damaged: {detail}")]
    Record { key: String, detail: String },
    #[error("it goes on after its end")]
    Trailing,
    #[error("its records are not those that it was made of: some are missing or others")]
    Hash,
    #[error(transparent)]
    Write(#[from] Fatal),
    #[error(transparent)]
    Open(#[from] OpenError),
}

impl From<io::Error> for ArchiveError {
    fn from(error: io::Error) -> ArchiveError {
        ArchiveError::Io(error)
    }
}

/// A snapshot file being written out, a piece at a time. The state stays what it was when this was made.
pub struct Archive {
    pub(crate) header: Option<SnapshotHeader>,
    pub(crate) export: Export,
}

impl Archive {
    pub(crate) fn new(state: Arc<State>, cluster: u64, taken_at: u64, taken_by: &str) -> Archive {
        let header = SnapshotHeader {
            cluster,
            revision: state.revision,
            hash: state.hash,
            records: state.tables.values().map(|table| table.rows.len() as u64).sum(),
            taken_at,
            taken_by: taken_by.to_owned(),
        };
        Archive { header: Some(header), export: Export::records(state) }
    }

    /// None after the last piece.
    pub fn next_piece(&mut self) -> Result<Option<Vec<u8>>, CodecError> {
        let (mut piece, frame) = match self.header.take() {
            Some(header) => (MAGIC.to_vec(), codec::seal(HEADER, &header)?),
            None => match self.export.next_chunk()? {
                Some(chunk) => (Vec::with_capacity(4 + chunk.len()), chunk),
                None => return Ok(None),
            },
        };
        piece.extend_from_slice(&(frame.len() as u32).to_be_bytes());
        piece.extend_from_slice(&frame);
        Ok(Some(piece))
    }
}

fn open(path: &Path) -> Result<impl Read, ArchiveError> {
    Ok(BufReader::with_capacity(1 << 20, File::open(path)?))
}

/// Reads a snapshot file to its end and checks all of it; `each` gets the records as they are stored.
pub(crate) fn read(
    mut file: impl Read,
    mut each: impl FnMut(&[u8], &[u8]) -> Result<(), Fatal>,
) -> Result<SnapshotHeader, ArchiveError> {
    let mut magic = [0; MAGIC.len()];
    match file.read_exact(&mut magic) {
        Ok(()) if magic == MAGIC => {}
        Ok(()) => return Err(ArchiveError::Magic),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(ArchiveError::Magic),
        Err(error) => return Err(error.into()),
    }
    let header = next_frame(&mut file)?.ok_or(ArchiveError::Short)?;
    let header: SnapshotHeader = codec::unseal(HEADER, &header).map_err(ArchiveError::Header)?;
    let (mut hash, mut records) = (0_u64, 0);
    for ordinal in 0_u64.. {
        let bytes = next_frame(&mut file)?.ok_or(ArchiveError::Short)?;
        let chunk: Chunk = codec::unseal(&ordinal.to_be_bytes(), &bytes)
            .map_err(|source| ArchiveError::Chunk { chunk: ordinal, source })?;
        for (_, key, row) in chunk.rows {
            let damaged = |detail: String| ArchiveError::Record { key: key.0.escape_ascii().to_string(), detail };
            let stored: StoredRecord = codec::unseal(key.0, row.0).map_err(|error| damaged(error.to_string()))?;
            let name = std::str::from_utf8(key.0).map_err(|_| damaged("its key is not text".into()))?;
            let record = stored.restore(Key::from(name)).map_err(|detail| damaged(detail.into()))?;
            if record.modified > header.revision {
                return Err(damaged("it is newer than the snapshot".into()));
            }
            hash = hash.wrapping_add(record.hash());
            records += 1;
            each(key.0, row.0)?;
        }
        if chunk.last {
            break;
        }
    }
    if file.read(&mut [0])? != 0 {
        return Err(ArchiveError::Trailing);
    }
    if (hash, records) != (header.hash, header.records) {
        return Err(ArchiveError::Hash);
    }
    Ok(header)
}

/// None at the end of the file.
fn next_frame(file: &mut impl Read) -> Result<Option<Vec<u8>>, ArchiveError> {
    let mut length = Vec::with_capacity(4);
    file.by_ref().take(4).read_to_end(&mut length)?;
    let Some(length) = length.first_chunk::<4>().map(|bytes| u32::from_be_bytes(*bytes) as usize) else {
        return if length.is_empty() { Ok(None) } else { Err(ArchiveError::Short) };
    };
    if length > FRAME {
        // The length is not checked by itself: whatever it says, such a frame was never written.
        return Err(ArchiveError::Short);
    }
    let mut frame = Vec::new();
    file.by_ref().take(length as u64).read_to_end(&mut frame)?;
    if frame.len() == length { Ok(Some(frame)) } else { Err(ArchiveError::Short) }
}

/// Reads all of a snapshot file and says what it is.
pub fn check_archive(path: &Path) -> Result<SnapshotHeader, ArchiveError> {
    read(open(path)?, |_, _| Ok(()))
}

/// How the state of a new cluster begins.
#[derive(Debug, Clone)]
pub struct Beginning {
    pub position: LogPosition,
    pub revision: Revision,
    pub membership: Bytes,
}

/// Makes the state of a new cluster at `dir`, where none may be, of a snapshot file. There is no history: everything
/// before the revision that it begins with counts as compacted.
pub fn restore_archive(dir: &Path, file: &Path, begin: Beginning) -> Result<(), ArchiveError> {
    let (disk, _) = Disk::open(dir, &Options::default())?;
    let mut fill = Fill::new(disk);
    let header =
        read(open(file)?, |key, row| fill.add(Row { family: OBJECTS, key: key.to_vec(), value: row.to_vec() }))?;
    let state = State {
        position: Some(begin.position),
        revision: begin.revision,
        compacted: begin.revision,
        hash: header.hash,
        membership: begin.membership,
        ..State::default()
    };
    fill.add(applied_row(&state).map_err(Fatal::from)?)?;
    fill.add(membership_row(&state).map_err(Fatal::from)?)?;
    drop(fill.finish()?);
    // What can't be read back is better found now.
    drop(Store::open(dir, Options::default())?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Command, Proposal, Transaction, Write};

    fn filled(dir: &Path, count: usize) -> Store {
        let store = Store::open(dir, Options::default()).unwrap();
        for n in 0..count {
            let write = Write::Put {
                key: format!("a/{n}").as_str().into(),
                value: vec![b'x'; 1000].into(),
                revision_at: Some(7),
                expires_at: None,
            };
            let command = Command::Transact(Transaction { conditions: vec![], writes: vec![write] });
            let position = LogPosition { index: n as u64 + 1, term: 3, node: 4 };
            store.apply(position, &[Proposal { client: 7, sequence: n as u64 + 1, acknowledged: 0, command }]).unwrap();
        }
        store
    }

    fn save(store: &Store, path: &Path) -> Vec<u8> {
        let mut archive = store.archive(77, 1234, "test");
        let bytes = std::iter::from_fn(|| archive.next_piece().unwrap()).collect::<Vec<_>>().concat();
        std::fs::write(path, &bytes).unwrap();
        bytes
    }

    #[test]
    fn a_new_cluster_begins_with_what_was_saved_at_a_later_revision() {
        let dir = tempfile::tempdir().unwrap();
        let store = filled(&dir.path().join("old"), 1000);
        let file = dir.path().join("file");
        save(&store, &file);
        let header = check_archive(&file).unwrap();
        assert_eq!((header.cluster, header.revision, header.records), (77, 1000, 1000));
        assert_eq!((header.revision, header.hash), store.state_hash());
        let position = LogPosition { index: 1, term: 1, node: 9 };
        let begin = Beginning { position, revision: 5000, membership: "us".into() };
        restore_archive(&dir.path().join("new"), &file, begin).unwrap();
        let new = Store::open(&dir.path().join("new"), Options::default()).unwrap();
        assert_eq!((new.applied(), new.membership()), (Some(position), "us".into()));
        assert_eq!(new.state_hash(), (5000, header.hash));
        assert_eq!((new.compacted_revision(), new.stats().history_events), (5000, 0));
        assert!(new.subscribe("a", 4999).is_err() && new.subscribe("a", 5000).is_ok());
        let (new, old) = (new.view(), store.view());
        assert!(old.prefix("").map(|r| (&r.key, &r.value)).eq(new.prefix("").map(|r| (&r.key, &r.value))));
    }

    #[test]
    fn whatever_is_wrong_with_a_file_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let store = filled(&dir.path().join("old"), 700);
        let file = dir.path().join("file");
        let bytes = save(&store, &file);
        let error = |bytes: &[u8]| {
            std::fs::write(&file, bytes).unwrap();
            check_archive(&file).unwrap_err()
        };
        assert!(matches!(error(b"PK"), ArchiveError::Magic));
        assert!(matches!(error(&[&bytes[..], b"x"].concat()), ArchiveError::Trailing));
        for length in (MAGIC.len()..bytes.len()).step_by(9973).chain([bytes.len() - 1]) {
            assert!(matches!(error(&bytes[..length]), ArchiveError::Short), "{length}");
        }
        for at in (0..bytes.len()).step_by(9973).chain([bytes.len() - 1]) {
            let mut flipped = bytes.clone();
            flipped[at] ^= 4;
            error(&flipped);
        }
    }
}

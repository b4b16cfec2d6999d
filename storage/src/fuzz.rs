//! For fuzzers, who must get past checksums to what reads the bytes behind them: rows and snapshots from values that
//! anybody may have made.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::archive::{self, Archive, ArchiveError, HEADER, MAGIC, SnapshotHeader};
use crate::codec::{self, CodecError};
use crate::snapshot::Chunk;
use crate::stored::{StoredEvent, StoredRecord};
use crate::{Export, Key, Ready, SnapshotError, Staged};

/// Bytes as [`codec::seal`] would have made them of the value that they are, if they are one.
pub fn sealed(key: &[u8], body: &[u8]) -> Vec<u8> {
    let sum = codec::checksum(key, body).to_le_bytes();
    [&[codec::FORMAT], &sum[..], body].concat()
}

/// The value that the bytes are, if they are one. What is written of it reads as the same value.
pub fn settles<T: DeserializeOwned + Serialize>(body: &[u8]) -> Option<T> {
    let value: T = codec::decode(&[&[codec::FORMAT], body].concat()).ok()?;
    let written = codec::encode(&value);
    let again = written.clone().and_then(|bytes| codec::encode(&codec::decode::<T>(&bytes)?));
    assert!(again.is_ok() && written == again, "{written:?} was read as {again:?}");
    Some(value)
}

/// A record and an event that superseded it, as they are kept.
pub fn stored(record: &[u8], event: &[u8], revision: u64) {
    let record = [&[codec::FORMAT], record].concat();
    let record = codec::decode::<StoredRecord>(&record).ok();
    let record = record.and_then(|stored| stored.restore(Key::from("table/key")).ok()).map(Into::into);
    let event = [&[codec::FORMAT], event].concat();
    if let Ok(stored) = codec::decode::<StoredEvent>(&event) {
        let _ = stored.restore(revision, record);
    }
}

/// A row of a snapshot; its value lacks the checksum.
#[derive(Debug, Clone)]
pub struct Row {
    pub kind: String,
    pub key: Vec<u8>,
    pub body: Vec<u8>,
}

pub fn rows(mut export: Export) -> Result<Vec<Row>, CodecError> {
    let mut all = Vec::new();
    let mut ordinal = 0u64;
    while let Some(bytes) = export.next_chunk()? {
        let chunk: Chunk = codec::unseal(&ordinal.to_be_bytes(), &bytes)?;
        let row = |(kind, key, value): &(&str, codec::Blob, codec::Blob)| Row {
            kind: (*kind).to_owned(),
            key: key.0.to_vec(),
            body: value.0[sealed(&[], &[]).len()..].to_vec(),
        };
        all.extend(chunk.rows.iter().map(row));
        ordinal += 1;
    }
    Ok(all)
}

fn chunk(rows: &[Row]) -> Result<Vec<u8>, CodecError> {
    let sealed: Vec<_> = rows.iter().map(|row| sealed(&row.key, &row.body)).collect();
    let rows = rows.iter().zip(&sealed);
    let rows = rows.map(|(row, value)| (&*row.kind, codec::Blob(&row.key), codec::Blob(value))).collect();
    codec::seal(&0u64.to_be_bytes(), &Chunk { rows, last: true })
}

/// A snapshot of these rows.
pub fn read(mut staged: Staged, rows: &[Row]) -> Result<Ready, SnapshotError> {
    staged.add(&chunk(rows).map_err(|source| SnapshotError::Chunk { chunk: 0, source })?)?;
    staged.finish()
}

/// What a snapshot file says of itself, and its rows.
pub fn archived(archive: Archive) -> Result<(SnapshotHeader, Vec<Row>), CodecError> {
    Ok((archive.header.ok_or(CodecError::Short)?, rows(archive.export)?))
}

/// A snapshot file of these rows.
pub fn file(header: &SnapshotHeader, rows: &[Row]) -> Result<Vec<u8>, CodecError> {
    let mut bytes = MAGIC.to_vec();
    for frame in [codec::seal(HEADER, header)?, chunk(rows)?] {
        bytes.extend_from_slice(&(frame.len() as u32).to_be_bytes());
        bytes.extend_from_slice(&frame);
    }
    Ok(bytes)
}

pub fn read_file(bytes: &[u8]) -> Result<SnapshotHeader, ArchiveError> {
    archive::read(bytes, |_, _| Ok(()))
}

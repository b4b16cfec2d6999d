//! For fuzzers: how this crate reads rows of its log and what peers say.

use bytes::Bytes;
use kontiki_storage::{codec, fuzz};

use crate::format::{EntryForm, decode_membership, encode_membership};
use crate::log::read_entry;
pub use crate::peer::fuzz::message;
use crate::types::Payload;

/// A row of the log, without its checksum. What is written of it reads as the same entry.
pub fn row(body: &[u8]) {
    const KEY: &[u8] = &7u64.to_be_bytes();
    let Ok(entry) = read_entry(KEY, &Bytes::from(fuzz::sealed(KEY, body))) else { return };
    if let Payload::Normal(batch) = &entry.payload {
        let _ = batch.proposals();
    }
    let written = codec::seal(KEY, &EntryForm::of(&entry)).map_err(|error| error.to_string());
    let again = written.clone().and_then(|row| {
        let entry = read_entry(KEY, &row.into()).map_err(|error| error.to_string())?;
        codec::seal(KEY, &EntryForm::of(&entry)).map_err(|error| error.to_string())
    });
    assert!(again.is_ok() && written == again, "{written:?} was read as {again:?}");
}

/// The membership that a state machine and a snapshot carry.
pub fn membership(body: &[u8]) {
    let Ok(read) = decode_membership(&[&[codec::FORMAT], body].concat()) else { return };
    let again = encode_membership(&read).and_then(|bytes| decode_membership(&bytes));
    assert!(again.as_ref() == Ok(&read), "{read:?} was read as {again:?}");
}

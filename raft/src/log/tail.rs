//! How the files of the log's write-ahead log end. Replicas answer for what was synced: what can't be read there is
//! damage, and refused. What was still on its way to the disk when the power went may be there in part, and is nothing that
//! anybody was told of. RocksDB takes a file that is cut short for such an end; where the file was made longer before its
//! blocks were written, the rest is zeros, and only what surrounds them tells them from damage.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rocksdb::DBRecoveryMode;

use crate::config::StartError;

/// RocksDB writes records in pieces that don't cross these, each with a header: checksum, length, kind.
const BLOCK: usize = 32 << 10;
const HEADER: usize = 7;
/// What a disk writes whole.
const SECTOR: usize = 512;

#[derive(Debug, PartialEq, Eq)]
enum End {
    /// Sound, or cut short: RocksDB drops the last record then.
    Plain,
    /// The last record is there in part, and zeros follow.
    Torn,
    /// What stands from this byte on is not the end of a crash. RocksDB refuses some of it; some it drops or passes over
    /// without a word, and at a kind of a record that it doesn't expect it may stay forever.
    Damaged(usize),
}

/// How RocksDB is to read the log in `dir`: up to the torn record, if there is one, and else only what is sound.
pub(super) fn recovery_mode(dir: &Path) -> Result<DBRecoveryMode, StartError> {
    let unreadable = |source| StartError::Io { path: dir.to_owned(), source };
    let mut mode = DBRecoveryMode::TolerateCorruptedTailRecords;
    let files = files(dir).map_err(unreadable)?;
    for (index, path) in files.iter().enumerate() {
        let detail = match end_of(&fs::read(path).map_err(unreadable)?) {
            End::Plain => continue,
            End::Torn if index + 1 == files.len() => {
                tracing::warn!(path = %path.display(), "what a crash left of the last write, which was not synced, is dropped");
                mode = DBRecoveryMode::PointInTime;
                continue;
            }
            // A sync of a newer file syncs the older ones first.
            End::Torn => "its last record is there in part, and newer files follow".to_owned(),
            End::Damaged(at) => format!("what stands at byte {at} is no record, nor what a crash leaves of one"),
        };
        return Err(StartError::Corrupt { path: path.clone(), what: "a file of the log".into(), detail });
    }
    Ok(mode)
}

/// Those that hold anything, the newest last.
fn files(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        if let Some(number) = name.to_str().and_then(|name| name.strip_suffix(".log")?.parse::<u64>().ok())
            && entry.metadata()?.len() > 0
        {
            files.push((number, entry.path()));
        }
    }
    files.sort();
    Ok(files.into_iter().map(|(_, path)| path).collect())
}

fn end_of(file: &[u8]) -> End {
    let mut at = 0;
    // The first piece that can't be read, and what it says of itself.
    let (left, length, kind) = loop {
        let left = BLOCK - at % BLOCK;
        if left < HEADER {
            at += left;
            continue;
        }
        let Some(header) = file.get(at..).and_then(|rest| rest.first_chunk::<HEADER>()) else { return End::Plain };
        match piece(file, at) {
            Some(end) => at = end,
            None => break (left, HEADER + usize::from(u16::from_le_bytes([header[4], header[5]])), header[6]),
        }
    };
    let written = file.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let zeros = written.next_multiple_of(SECTOR);
    let torn = written <= at || zeros < file.len() && zeros < at + length.min(left);
    let cut_short = length <= left && at + length > file.len();
    let zero = length == HEADER && kind == 0;
    // A length that is damaged makes the last record of any other.
    if !torn && (zero || !cut_short) || (at + 1..written).any(|later| piece(file, later).is_some()) {
        return End::Damaged(at);
    }
    if torn { End::Torn } else { End::Plain }
}

/// Where the piece of a record ends that begins at `at`, if there is one.
fn piece(file: &[u8], at: usize) -> Option<usize> {
    let (header, rest) = file.get(at..)?.split_first_chunk::<HEADER>()?;
    let length = usize::from(u16::from_le_bytes([header[4], header[5]]));
    let body = rest.get(..length).filter(|_| HEADER + length <= BLOCK - at % BLOCK)?;
    (header[6] != 0 && header[..4] == checksum(header[6], body)).then_some(at + HEADER + length)
}

fn checksum(kind: u8, body: &[u8]) -> [u8; 4] {
    let sum = crc32c::crc32c_append(crc32c::crc32c(&[kind]), body);
    // So that a checksum of bytes that hold checksums is a good one.
    sum.rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of records with these lengths, and where each piece of one begins.
    fn file(lengths: &[usize]) -> (Vec<u8>, Vec<usize>) {
        let (mut file, mut pieces) = (Vec::new(), Vec::new());
        for length in lengths {
            let mut body = vec![7; *length];
            loop {
                let left = BLOCK - file.len() % BLOCK;
                if left < HEADER {
                    file.resize(file.len() + left, 0);
                    continue;
                }
                let rest = body.split_off(body.len().min(left - HEADER));
                pieces.push(file.len());
                file.extend(checksum(1, &body));
                file.extend((body.len() as u16).to_le_bytes());
                file.push(1);
                file.extend(&body);
                body = rest;
                if body.is_empty() {
                    break;
                }
            }
        }
        (file, pieces)
    }

    #[test]
    fn a_torn_end_is_told_from_damage() {
        let (sound, pieces) = file(&[100, 5000, 80_000, 3, 8000]);
        let last = *pieces.last().unwrap();
        assert_eq!(end_of(&sound), End::Plain);
        let zeros = |from: usize, len: usize| {
            let mut file = sound.clone();
            file.truncate(from);
            file.resize(len, 0);
            end_of(&file)
        };
        for len in [sound.len(), sound.len() + 1, sound.len() + 100_000] {
            for from in (last..sound.len()).filter(|from| from % SECTOR == 0) {
                assert_eq!(zeros(from, len), End::Torn, "{from} {len}");
            }
            for piece in &pieces {
                assert_eq!(zeros(*piece, len), End::Torn, "{piece} {len}");
            }
        }
        assert_eq!(zeros(sound.len(), sound.len() + 5000), End::Torn, "nothing is lost");
        for at in (0..sound.len()).step_by(997) {
            let mut flipped = sound.clone();
            flipped[at] ^= 1;
            let piece = pieces.iter().rfind(|piece| **piece <= at).unwrap();
            assert_eq!(end_of(&flipped), End::Damaged(*piece), "{at}");
        }
        // Its length, beyond the block; its kind, one that is not in use.
        for (byte, bit) in [(5, 0x80), (6, 4), (6, 8)] {
            for piece in &pieces {
                let mut flipped = sound.clone();
                flipped[piece + byte] ^= bit;
                assert_eq!(end_of(&flipped), End::Damaged(*piece), "{piece} {byte}");
            }
        }
        let mut hole = sound.clone();
        hole[BLOCK..2 * BLOCK].fill(0);
        assert_eq!(end_of(&hole), End::Damaged(BLOCK));
        // The small record, which claims now to reach beyond the end, before zeros or not.
        let small = pieces[pieces.len() - 2];
        let mut longer = sound.clone();
        longer[small + 5] ^= 0x28;
        assert_eq!(end_of(&longer), End::Damaged(small));
        longer.resize(longer.len() + 5000, 0);
        assert_eq!(end_of(&longer), End::Damaged(small));
    }
}

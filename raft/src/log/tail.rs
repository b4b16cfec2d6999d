//! How the files of the log's write-ahead log end. Replicas answer for what was synced: what can't be read there is
//! damage, and refused. What was still on its way to the disk when the power went may be there in part, and is nothing that
//! anybody was told of: each write is synced before the next one begins, so it is one record at most, of which the disk has
//! any sectors. RocksDB takes a file that is cut short for such an end; where the file was made longer before (see `ahead`),
//! what is missing is zeros, and only what surrounds them tells them from damage.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rocksdb::DBRecoveryMode;

use crate::config::StartError;

/// RocksDB writes records in pieces that don't cross these, each with a header: checksum, length, kind.
pub(super) const BLOCK: usize = 32 << 10;
pub(super) const HEADER: usize = 7;
/// Kinds of pieces that are not a whole record: its first, those within, and its last.
const FIRST: u8 = 2;
const MIDDLE: u8 = 3;
const LAST: u8 = 4;
/// What a disk writes whole.
pub(crate) const SECTOR: usize = 512;

#[derive(Debug, PartialEq, Eq)]
enum End {
    /// Sound, with zeros behind it or not, or cut short: RocksDB drops the last record then.
    Plain,
    /// Of the last record there are some sectors only.
    Torn,
    /// What stands from this byte on is not the end of a crash. RocksDB refuses some of it; some it drops or passes over
    /// without a word, and at a kind of a record that it doesn't expect it may stay forever.
    Damaged(usize),
}

/// How RocksDB is to read the log in `dir`: up to the torn record, if there is one, and else only what is sound.
pub(super) fn recovery_mode(dir: &Path) -> Result<DBRecoveryMode, StartError> {
    let unreadable = |source| StartError::Io { path: dir.to_owned(), source };
    let mut mode = DBRecoveryMode::TolerateCorruptedTailRecords;
    let mut newest = true;
    for path in files(dir).map_err(unreadable)?.into_iter().rev() {
        let file = fs::read(&path).map_err(unreadable)?;
        if file.iter().all(|byte| *byte == 0) {
            continue;
        }
        let newer = !std::mem::take(&mut newest);
        let detail = match end_of(&file) {
            End::Plain => continue,
            End::Torn if !newer => {
                tracing::warn!(path = %path.display(), "what a crash left of the last write, which was not synced, is dropped");
                mode = DBRecoveryMode::PointInTime;
                continue;
            }
            // A sync of a newer file syncs the older ones first.
            End::Torn => "its last record is there in part, and newer files follow".to_owned(),
            End::Damaged(at) => format!("what stands at byte {at} is no record, nor what a crash leaves of one"),
        };
        return Err(StartError::Corrupt { path, what: "a file of the log".into(), detail });
    }
    Ok(mode)
}

/// The newest last.
pub(crate) fn files(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        if let Some(number) = name.to_str().and_then(|name| name.strip_suffix(".log")?.parse::<u64>().ok()) {
            files.push((number, entry.path()));
        }
    }
    files.sort();
    Ok(files.into_iter().map(|(_, path)| path).collect())
}

fn end_of(file: &[u8]) -> End {
    let (at, open) = sound(file);
    let left = BLOCK - at % BLOCK;
    // What the first piece that can't be read says of itself.
    let Some(header) = file.get(at..).and_then(|rest| rest.first_chunk::<HEADER>()) else { return End::Plain };
    let (length, kind) = (HEADER + usize::from(u16::from_le_bytes([header[4], header[5]])), header[6]);
    let written = file.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    if written <= at {
        return if open { End::Torn } else { End::Plain };
    }
    // A header that is there in part doesn't say how long the piece is.
    let end = at + if kind == 0 { left } else { length.min(left) };
    let torn = (at - at % SECTOR..end.min(file.len()))
        .step_by(SECTOR)
        .any(|sector| file[sector.max(at)..file.len().min(sector + SECTOR)].iter().all(|byte| *byte == 0));
    let cut_short = kind != 0 && length <= left && at + length > file.len();
    // Of a record that was not synced any sectors may be there; nothing of another can follow it. A length that is damaged
    // makes the last record of any other.
    let begins = |later: usize| !matches!(file[later + 6], MIDDLE | LAST);
    let follows = (at + 1..written).any(|later| piece(file, later).is_some() && (!torn || begins(later)));
    match (torn, cut_short) {
        (true, _) if !follows => End::Torn,
        (false, true) if !follows => End::Plain,
        _ => End::Damaged(at),
    }
}

/// Where the first piece stands that can't be read, and whether it belongs to the record before it.
fn sound(file: &[u8]) -> (usize, bool) {
    let (mut at, mut open) = (0, false);
    loop {
        let left = BLOCK - at % BLOCK;
        if left < HEADER {
            at += left;
        } else if let Some(end) = piece(file, at) {
            open = matches!(file[at + 6], FIRST | MIDDLE);
            at = end;
        } else {
            return (at, open);
        }
    }
}

/// Where what can be read ends.
#[cfg(test)]
pub(crate) fn written(file: &[u8]) -> usize {
    sound(file).0.min(file.len())
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
            let (mut body, mut first) = (vec![7; *length], true);
            loop {
                let left = BLOCK - file.len() % BLOCK;
                if left < HEADER {
                    file.resize(file.len() + left, 0);
                    continue;
                }
                let rest = body.split_off(body.len().min(left - HEADER));
                pieces.push(file.len());
                let kind = match (first, rest.is_empty()) {
                    (true, true) => 1,
                    (true, false) => FIRST,
                    (false, false) => MIDDLE,
                    (false, true) => LAST,
                };
                first = false;
                file.extend(checksum(kind, &body));
                file.extend((body.len() as u16).to_le_bytes());
                file.push(kind);
                file.extend(&body);
                body = rest;
                if body.is_empty() {
                    break;
                }
            }
        }
        (file, pieces)
    }

    /// Of a record in several pieces, whichever sectors are missing.
    #[test]
    fn a_long_record_is_torn_anywhere() {
        let (sound, pieces) = file(&[100, 90_000]);
        let first = pieces[1];
        for sector in (first - first % SECTOR..sound.len()).step_by(SECTOR) {
            let mut file = sound.clone();
            file[sector.max(first)..(sector + SECTOR).min(sound.len())].fill(0);
            assert_eq!(end_of(&file), End::Torn, "{sector}");
            file.resize(file.len() + 100_000, 0);
            assert_eq!(end_of(&file), End::Torn, "{sector}");
            file[50] ^= 1;
            assert_eq!(end_of(&file), End::Damaged(0), "{sector}");
        }
        let (sound, _) = self::file(&[100, 90_000, 5]);
        let mut file = sound.clone();
        file[SECTOR..2 * SECTOR].fill(0);
        assert_eq!(end_of(&file), End::Damaged(first));
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
            for (index, piece) in pieces.iter().enumerate() {
                let within = index > 0 && matches!(sound[pieces[index - 1] + 6], FIRST | MIDDLE);
                assert_eq!(zeros(*piece, len), if within { End::Torn } else { End::Plain }, "{piece} {len}");
            }
        }
        assert_eq!(zeros(sound.len(), sound.len() + 500_000), End::Plain, "nothing is lost");
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
        let hole = |from: usize, upto: usize| {
            let mut file = sound.clone();
            file[from..upto].fill(0);
            file.resize(file.len() + 5000, 0);
            end_of(&file)
        };
        assert_eq!(hole(BLOCK, 2 * BLOCK), End::Damaged(BLOCK), "another record follows");
        for sector in (last - last % SECTOR..sound.len()).step_by(SECTOR) {
            let upto = (sector + SECTOR).min(sound.len());
            assert_eq!(hole(sector.max(last), upto), End::Torn, "{sector}");
            if sector + SECTOR < sound.len() {
                assert_eq!(
                    hole(sector.max(last) + 20, upto - 20),
                    End::Damaged(last),
                    "less than a sector at {sector}"
                );
            }
        }
        // The small record, which claims now to reach beyond the end, before zeros or not.
        let small = pieces[pieces.len() - 2];
        let mut longer = sound.clone();
        longer[small + 5] ^= 0x28;
        assert_eq!(end_of(&longer), End::Damaged(small));
        longer.resize(longer.len() + 5000, 0);
        assert_eq!(end_of(&longer), End::Damaged(small));
    }
}

//! The one place where values become bytes. Every encoding starts with a format version byte; what is kept on disk
//! carries a checksum over its key and its body as well, so a torn, flipped or misplaced row is found when it is read.
//! Decoding takes arbitrary bytes: it never panics, and what it allocates on the word of its input is bounded by how much
//! input there is.

use bincode::config::{Configuration, Limit, LittleEndian, Varint};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The format that this build writes. A reader accepts `1..=FORMAT`.
pub const FORMAT: u8 = 1;
/// No single encoded value may be larger: objects are bounded to 3 MiB, a log entry holds a bounded batch of them.
pub const LIMIT: usize = 256 << 20;

type Config<const MOST: usize> = Configuration<LittleEndian, Varint, Limit<MOST>>;
const CHECKSUM: usize = 4;
/// Most values are shorter than this, or most of what they are is one part.
const ROOM: usize = 128;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    #[error("the value is cut short")]
    Short,
    #[error("format version {found} is not among those this build reads (1 to {FORMAT})")]
    Version { found: u8 },
    #[error("the checksum does not match the bytes")]
    Checksum,
    #[error("{0} bytes follow the end of the value")]
    Trailing(usize),
    #[error("{0}")]
    Malformed(String),
}

/// `[format][body]`.
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, CodecError> {
    let mut out = Vec::with_capacity(ROOM);
    out.push(FORMAT);
    append(&mut out, value)?;
    Ok(out)
}

pub fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, CodecError> {
    body(version(bytes)?)
}

/// `[format][crc32c of key and body][body]`, for rows of a key-value store.
pub fn seal<T: Serialize + ?Sized>(key: &[u8], value: &T) -> Result<Vec<u8>, CodecError> {
    let mut out = Vec::with_capacity(ROOM);
    out.extend([FORMAT, 0, 0, 0, 0]);
    append(&mut out, value)?;
    let sum = checksum(key, &out[1 + CHECKSUM..]).to_le_bytes();
    out[1..1 + CHECKSUM].copy_from_slice(&sum);
    Ok(out)
}

pub fn unseal<'a, T: Deserialize<'a>>(key: &[u8], bytes: &'a [u8]) -> Result<T, CodecError> {
    let (sum, rest) = version(bytes)?.split_first_chunk::<CHECKSUM>().ok_or(CodecError::Short)?;
    if u32::from_le_bytes(*sum) != checksum(key, rest) {
        return Err(CodecError::Checksum);
    }
    body(rest)
}

/// The checksum that [`seal`] uses, for those who frame their own streams.
pub fn checksum(key: &[u8], body: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(key), body)
}

fn version(bytes: &[u8]) -> Result<&[u8], CodecError> {
    match bytes.split_first() {
        None => Err(CodecError::Short),
        Some((found, rest)) if (1..=FORMAT).contains(found) => Ok(rest),
        Some((found, _)) => Err(CodecError::Version { found: *found }),
    }
}

fn append<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) -> Result<(), CodecError> {
    let config = Config::<LIMIT>::default();
    bincode::serde::encode_into_std_write(value, out, config).map_err(|e| CodecError::Malformed(e.to_string()))?;
    Ok(())
}

fn body<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, CodecError> {
    // bincode makes room for as many bytes as a length says before it looks whether they are there. No value counts as
    // more than 16 times its bytes (a small u128 does).
    match bytes.len() {
        ..=0x1_0000 => read::<T, { 16 * 0x1_0000 }>(bytes),
        0x1_0001..=0x10_0000 => read::<T, { 16 * 0x10_0000 }>(bytes),
        _ => read::<T, LIMIT>(bytes),
    }
}

fn read<'a, T: Deserialize<'a>, const MOST: usize>(bytes: &'a [u8]) -> Result<T, CodecError> {
    let config = Config::<MOST>::default();
    let (value, used) =
        bincode::serde::borrow_decode_from_slice(bytes, config).map_err(|e| CodecError::Malformed(e.to_string()))?;
    match bytes.len() - used {
        0 => Ok(value),
        more => Err(CodecError::Trailing(more)),
    }
}

/// Borrowed bytes that serialise as bytes: serde would write a plain slice element by element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blob<'a>(pub &'a [u8]);

impl Serialize for Blob<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(self.0)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Blob<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Blob<'a>, D::Error> {
        <&[u8] as de::Deserialize>::deserialize(from).map(Blob)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_without_its_bytes_makes_no_room() {
        let length = encode(&200_000_000u64).expect("a number");
        let outcome = decode::<String>(&[&length[..], b"short"].concat());
        assert!(matches!(&outcome, Err(CodecError::Malformed(why)) if why.contains("Limit")), "{outcome:?}");
    }
}

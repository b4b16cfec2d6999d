use std::any::Any;
use std::fmt;
use std::ops::Range;
use std::sync::OnceLock;

use bytes::Bytes;

use crate::{Key, Revision};

/// One version of one key, immutable and shared.
#[derive(Debug)]
pub struct Record {
    pub key: Key,
    /// The bytes as they are served, with the revision already in its place.
    pub value: Bytes,
    /// The revision that created the key.
    pub created: Revision,
    /// The revision that wrote this version.
    pub modified: Revision,
    /// Where the decimal revision stands in `value`: offset and length.
    pub revision_span: Option<(u32, u32)>,
    /// Unix seconds after which the leader may propose the deletion.
    pub expires_at: Option<u64>,
    hash: u64,
    derived: Derived,
}

impl Record {
    /// A new version: `value` lacks its revision, which goes in at `revision_at` (at the end if that lies beyond it).
    pub(crate) fn write(
        key: Key,
        value: &[u8],
        revision_at: Option<u32>,
        expires_at: Option<u64>,
        created: Revision,
        modified: Revision,
    ) -> Record {
        let (value, span) = match revision_at {
            None => (Bytes::copy_from_slice(value), None),
            Some(at) => {
                let at = (at as usize).min(value.len());
                let (value, digits) = splice(&value[..at], modified, &value[at..]);
                (value, Some((at as u32, digits as u32)))
            }
        };
        Record::restore(key, value, span, expires_at, created, modified)
    }

    /// A version read back from where it was stored.
    pub(crate) fn restore(
        key: Key,
        value: Bytes,
        revision_span: Option<(u32, u32)>,
        expires_at: Option<u64>,
        created: Revision,
        modified: Revision,
    ) -> Record {
        let hash = hash(&key, &value, created, modified, expires_at);
        Record { key, value, created, modified, revision_span, expires_at, hash, derived: Derived::default() }
    }

    /// Facts derived once from the bytes by the embedding layer and kept beside them.
    ///
    /// # Panics
    /// When two different types are derived from one record: a record has one slot.
    pub fn derived<T: Send + Sync + 'static>(&self, make: impl FnOnce(&Record) -> T) -> &T {
        self.derived.get(|| make(self))
    }

    /// The value as it reads with another revision in its place, for events that tell of its deletion.
    pub fn value_at(&self, revision: Revision) -> Bytes {
        match self.span() {
            None => self.value.clone(),
            Some(span) => splice(&self.value[..span.start], revision, &self.value[span.end..]).0,
        }
    }

    /// The stretch of the value that holds the revision, if there is one.
    pub(crate) fn span(&self) -> Option<Range<usize>> {
        let (at, len) = self.revision_span?;
        let span = at as usize..at as usize + len as usize;
        (span.end <= self.value.len()).then_some(span)
    }

    /// What this record adds to the state's rolling hash.
    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    pub(crate) fn weight(&self) -> u64 {
        (self.key.as_str().len() + self.value.len()) as u64
    }
}

/// `before`, the decimal revision, `after` in one exact allocation; and how many digits it took.
pub(crate) fn splice(before: &[u8], revision: Revision, after: &[u8]) -> (Bytes, usize) {
    let mut buffer = [0; 20];
    let mut start = buffer.len();
    let mut rest = revision;
    loop {
        start -= 1;
        buffer[start] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    let digits = &buffer[start..];
    let mut value = Vec::with_capacity(before.len() + digits.len() + after.len());
    value.extend_from_slice(before);
    value.extend_from_slice(digits);
    value.extend_from_slice(after);
    (value.into(), digits.len())
}

/// 64 bits of a record for a sum that doesn't depend on order. Two checksums, mixed so that sums of them don't
/// inherit their linearity; it must read the same on every machine and version, which rules out the standard hashers.
fn hash(key: &Key, value: &[u8], created: Revision, modified: Revision, expires_at: Option<u64>) -> u64 {
    let sums = (u64::from(crc32c::crc32c(key.as_str().as_bytes())) << 32) | u64::from(crc32c::crc32c(value));
    [value.len() as u64, created, modified, expires_at.map_or(0, |at| at.wrapping_add(1))]
        .into_iter()
        .fold(mix(sums), |hash, part| mix(hash ^ part.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
}

/// The finalizer of splitmix64.
fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// A slot that the embedding layer fills once.
#[derive(Default)]
pub(crate) struct Derived(OnceLock<Box<dyn Any + Send + Sync>>);

impl Derived {
    pub(crate) fn get<T: Send + Sync + 'static>(&self, make: impl FnOnce() -> T) -> &T {
        match self.0.get_or_init(|| Box::new(make())).downcast_ref() {
            Some(made) => made,
            None => panic!("a slot for derived facts holds one type, and {} is another", std::any::type_name::<T>()),
        }
    }
}

impl fmt::Debug for Derived {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.get().is_some() { "derived" } else { "-" })
    }
}

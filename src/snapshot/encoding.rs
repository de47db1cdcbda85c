//! The bytes that files of a snapshot are made of: a preamble, numbers, strings and checksums.
//!
//! Numbers are little-endian and of fixed width, so a content has one form only. Reading trusts
//! nothing: a length is compared with what is there before anything is made of it.

use bytes::Bytes;
use twox_hash::XxHash3_64;

use super::error::{Kind, SnapshotError};

/// The format of most files. All versions up to the one that a file may have are read.
pub(super) const VERSION: u32 = 1;

/// The format of manifests that name held egress or savepoints. Those who do not know the ones must not miss
/// them, and those who do not know the others would delete them.
pub(super) const HELD_VERSION: u32 = 2;

/// What begins every file, in every version: eight bytes that say what it is, its version, and half
/// of the checksum of these twelve, so that damage is not taken for a newer version.
pub(super) const PREAMBLE: usize = 16;

/// XXH3 with 64 bits: faster than memory, with no table of its own, and a dependency already. It
/// guards against accidents, not against forgers; those must be kept from the store.
pub(super) fn checksum(bytes: &[u8]) -> u64 {
    XxHash3_64::oneshot(bytes)
}

pub(super) fn put_preamble(bytes: &mut Vec<u8>, magic: [u8; 8], version: u32) {
    let start = bytes.len();
    bytes.extend(magic);
    put_u32(bytes, version);
    let sum = checksum(&bytes[start..]) as u32;
    put_u32(bytes, sum);
}

/// Checks the preamble and gives the version, which is one that can be read: at most `known`.
pub(super) fn check_preamble(
    file: &str,
    bytes: &[u8],
    magic: [u8; 8],
    known: u32,
) -> Result<u32, SnapshotError> {
    let Some(preamble) = bytes.get(..PREAMBLE) else {
        return Err(SnapshotError::damaged(file, "it is cut short"));
    };
    if preamble[..8] != magic {
        return Err(SnapshotError::damaged(file, "it is a file of another kind"));
    }
    let word = |at: usize| u32::from_le_bytes(preamble[at..at + 4].try_into().expect("four bytes"));
    if word(12) != checksum(&preamble[..12]) as u32 {
        return Err(SnapshotError::damaged(file, "its preamble does not fit its checksum"));
    }
    match word(8) {
        0 => Err(SnapshotError::damaged(file, "its format version is 0")),
        found if found > known => {
            Err(Kind::NewerVersion { file: file.to_owned(), found, known }.into())
        }
        version => Ok(version),
    }
}

pub(super) fn put_u16(bytes: &mut Vec<u8>, number: u16) {
    bytes.extend(number.to_le_bytes());
}

pub(super) fn put_u32(bytes: &mut Vec<u8>, number: u32) {
    bytes.extend(number.to_le_bytes());
}

pub(super) fn put_u64(bytes: &mut Vec<u8>, number: u64) {
    bytes.extend(number.to_le_bytes());
}

pub(super) fn put_u128(bytes: &mut Vec<u8>, number: u128) {
    bytes.extend(number.to_le_bytes());
}

pub(super) fn put_bytes(bytes: &mut Vec<u8>, more: &[u8]) {
    put_u64(bytes, more.len() as u64);
    bytes.extend(more);
}

/// Reads one after another what was put.
pub(super) struct Reader<'a> {
    file: &'a str,
    rest: Bytes,
}

impl<'a> Reader<'a> {
    pub(super) fn new(file: &'a str, bytes: Bytes) -> Self {
        Reader { file, rest: bytes }
    }

    pub(super) fn damaged(&self, why: impl Into<String>) -> SnapshotError {
        SnapshotError::damaged(self.file, why)
    }

    fn take(&mut self, length: usize) -> Result<Bytes, SnapshotError> {
        if length > self.rest.len() {
            return Err(self.damaged("it ends in the middle of something"));
        }
        Ok(self.rest.split_to(length))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], SnapshotError> {
        Ok(self.take(N)?.as_ref().try_into().expect("as many as were taken"))
    }

    pub(super) fn u8(&mut self) -> Result<u8, SnapshotError> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    pub(super) fn u16(&mut self) -> Result<u16, SnapshotError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(super) fn u32(&mut self) -> Result<u32, SnapshotError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64, SnapshotError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub(super) fn u128(&mut self) -> Result<u128, SnapshotError> {
        Ok(u128::from_le_bytes(self.array()?))
    }

    pub(super) fn bytes(&mut self) -> Result<Bytes, SnapshotError> {
        let length = self.u64()?;
        self.take(usize::try_from(length).unwrap_or(usize::MAX))
    }

    pub(super) fn string(&mut self) -> Result<String, SnapshotError> {
        let bytes = self.bytes()?;
        let string = std::str::from_utf8(&bytes).map_err(|_| self.damaged("a name is no UTF-8"))?;
        Ok(string.to_owned())
    }

    /// How many things follow, of which each takes at least `least` bytes.
    pub(super) fn count(&mut self, least: usize) -> Result<usize, SnapshotError> {
        let count = self.u32()? as usize;
        if count.saturating_mul(least) > self.rest.len() {
            return Err(self.damaged("it announces more than it has"));
        }
        Ok(count)
    }

    pub(super) fn end(self) -> Result<(), SnapshotError> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.damaged("it goes on after its end")) }
    }
}

//! The bytes of a unit of state in a snapshot.
//!
//! A record is, in this order:
//!
//! | what | how |
//! |---|---|
//! | what it says | a byte, the tag |
//! | the number of its state in the list of [`StateHeader`]s that goes with it | varint |
//! | the id of its address | varint 1 and the number, as a varint, if the id is one; else twice the length of its bytes, as a varint, and these |
//! | its content | to the end |
//!
//! and its content is, by what the record says:
//!
//! | tag | content |
//! |---|---|
//! | 1, a value | the deadline, if the state expires; the bytes of the value |
//! | 2, an entry of a table | the deadline, if the state expires; the length of the key's bytes, varint; these; the bytes of the value |
//! | 3, elements of a buffer | see below |
//! | 4, a value, a table or a buffer that is gone, whatever was in it | nothing |
//! | 5, an entry of a table that is gone | the bytes of the key |
//!
//! Elements of a buffer have numbers, which never change. The content of their record is: the number of the
//! first element that is not gone; if the state expires, what reading did to the deadlines, which is two
//! deadlines: what has one after the first of these is seen until the second, if not longer; the number
//! of the first element in this record; and then, to the end, runs of elements with one deadline: this,
//! if the state expires, how many there are, and for each the length of its bytes and these. All numbers
//! are varints. There may be no run, if only deadlines changed. Elements that are before those of a
//! record are in the buffer already, or gone.
//!
//! A varint has seven bits a byte, the lowest first, and the highest bit of each byte says whether
//! there are more. A deadline is a varint: milliseconds since the beginning of 1970 from which on
//! something is not seen. The bytes of values and keys are those of their codecs.
//!
//! Nothing here says how long a record is or whether it is intact; that is for whoever keeps it.

use serde::{Deserialize, Serialize};

use super::declared::Kind;
use crate::address::Id;
use crate::expiration::Expiration;

/// A state that is declared, registered, or only stored, as it is described beside records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StateHeader {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    /// The name of the type of a table's keys; empty for other kinds.
    pub(crate) key_type: String,
    pub(crate) type_name: String,
    /// How long it lives, in milliseconds; 0 if it never expires.
    pub(crate) lifetime_ms: u64,
    /// Whether it lives on when it is read.
    pub(crate) counts_reads: bool,
}

impl StateHeader {
    pub(super) fn expires(&self) -> bool {
        self.lifetime_ms > 0
    }

    pub(super) fn expiration(&self) -> Expiration {
        Expiration::of(self.lifetime_ms, self.counts_reads)
    }
}

/// What a record says.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Tag {
    Value = 1,
    Entry = 2,
    Elements = 3,
    Cleared = 4,
    Removed = 5,
}

impl Tag {
    const ALL: [Tag; 5] = [Tag::Value, Tag::Entry, Tag::Elements, Tag::Cleared, Tag::Removed];
}

/// Begins a record.
pub(super) fn begin(to: &mut Vec<u8>, tag: Tag, column: u32, id: &Id) {
    to.push(tag as u8);
    put_varint(to, u64::from(column));
    match id.as_number() {
        Some(number) => {
            put_varint(to, 1);
            put_varint(to, number);
        }
        None => id.with_bytes(|bytes| {
            put_varint(to, 2 * bytes.len() as u64);
            to.extend_from_slice(bytes);
        }),
    }
}

pub(super) fn put_varint(to: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        to.push(number as u8 | 0x80);
        number >>= 7;
    }
    to.push(number as u8);
}

/// Adds what `write` adds, with its length before it.
pub(super) fn put_with_length<E>(
    to: &mut Vec<u8>,
    write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
) -> Result<(), E> {
    let start = to.len();
    write(to)?;
    let end = to.len();
    put_varint(to, (end - start) as u64);
    let length = to.len() - end;
    to[start..].rotate_right(length);
    Ok(())
}

/// Why bytes are no record.
pub(super) type Damage = &'static str;

/// A record, taken apart as far as that does not need to know the type of its state.
#[derive(Debug)]
pub(super) struct Record<'r> {
    pub(super) tag: Tag,
    pub(super) column: u64,
    pub(super) id: Id,
    pub(super) content: Reader<'r>,
}

impl<'r> Record<'r> {
    pub(super) fn read(bytes: &'r [u8]) -> Result<Self, Damage> {
        let mut reader = Reader(bytes);
        let tag = reader.byte()?;
        let tag = Tag::ALL.into_iter().find(|known| *known as u8 == tag);
        let tag = tag.ok_or("it says something that no record says")?;
        let column = reader.varint()?;
        let id = match reader.varint()? {
            1 => Id::from(reader.varint()?),
            length if length % 2 == 0 => {
                let bytes = reader.bytes(length / 2)?;
                Id::new(str::from_utf8(bytes).map_err(|_| "its id is no text")?)
            }
            _ => return Err("its id has no length"),
        };
        Ok(Record { tag, column, id, content: reader })
    }
}

/// What is left to read.
#[derive(Copy, Clone, Debug)]
pub(super) struct Reader<'r>(&'r [u8]);

impl<'r> Reader<'r> {
    pub(super) const EMPTY: Self = Reader(&[]);

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All that is left.
    pub(super) fn rest(self) -> &'r [u8] {
        self.0
    }

    fn byte(&mut self) -> Result<u8, Damage> {
        let (first, rest) = self.0.split_first().ok_or("it ends too early")?;
        self.0 = rest;
        Ok(*first)
    }

    pub(super) fn varint(&mut self) -> Result<u64, Damage> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                break;
            }
            number |= bits << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err("a number in it is too large")
    }

    pub(super) fn bytes(&mut self, length: u64) -> Result<&'r [u8], Damage> {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let (bytes, rest) = self.0.split_at_checked(length).ok_or("it ends too early")?;
        self.0 = rest;
        Ok(bytes)
    }

    /// Bytes with their length before them.
    pub(super) fn with_length(&mut self) -> Result<&'r [u8], Damage> {
        let length = self.varint()?;
        self.bytes(length)
    }
}

/// Records of bins, one behind the other, in chunks that are never moved.
#[derive(Default)]
pub(super) struct Records {
    chunks: std::collections::VecDeque<Vec<u8>>,
    bytes: usize,
}

/// A place between two records.
#[derive(Copy, Clone, Default)]
pub(super) struct Mark {
    chunk: usize,
    at: usize,
}

/// As much is allocated at once, or a record if it is larger.
const CHUNK: usize = 1 << 16;

impl Records {
    /// How many bytes the records take.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn push(&mut self, bin: u16, record: &[u8]) {
        // The bin, and then the length.
        let needed = 2 + 8 + record.len();
        if self.chunks.back().is_none_or(|chunk| chunk.capacity() - chunk.len() < needed) {
            self.chunks.push_back(Vec::with_capacity(needed.max(CHUNK)));
        }
        let chunk = self.chunks.back_mut().expect("there is one now");
        chunk.extend_from_slice(&bin.to_le_bytes());
        chunk.extend_from_slice(&(record.len() as u64).to_le_bytes());
        chunk.extend_from_slice(record);
        self.bytes += needed;
    }

    /// The record at a place, which moves behind it.
    pub(super) fn next(&self, mark: &mut Mark) -> Option<(u16, &[u8])> {
        let mut chunk = self.chunks.get(mark.chunk)?;
        if mark.at == chunk.len() {
            chunk = self.chunks.get(mark.chunk + 1)?;
            *mark = Mark { chunk: mark.chunk + 1, at: 0 };
        }
        let (bin, rest) = chunk[mark.at..].split_first_chunk().expect("a record begins here");
        let (length, rest) = rest.split_first_chunk().expect("it has a length");
        let length = u64::from_le_bytes(*length) as usize;
        mark.at += 10 + length;
        Some((u16::from_le_bytes(*bin), &rest[..length]))
    }

    /// Gives back the memory of records before a place.
    pub(super) fn forget_before(&mut self, mark: &mut Mark) {
        while mark.chunk > 0 {
            self.chunks.pop_front();
            mark.chunk -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_as_they_were_written() {
        for id in ["", "0", "7", "007", "18446744073709551615", "a", "ä".repeat(300).as_str()] {
            let mut bytes = Vec::new();
            begin(&mut bytes, Tag::Entry, 300, &Id::new(id));
            let put = |to: &mut Vec<u8>| -> Result<(), ()> {
                to.extend_from_slice(&[7; 200]);
                Ok(())
            };
            put_with_length(&mut bytes, put).unwrap();
            bytes.push(9);
            let mut record = Record::read(&bytes).unwrap();
            assert_eq!((record.tag, record.column, &record.id), (Tag::Entry, 300, &Id::new(id)));
            assert_eq!(record.content.with_length(), Ok(&[7; 200][..]));
            assert_eq!(record.content.rest(), [9]);
            for end in 0..bytes.len() - 202 {
                let cut_off = Record::read(&bytes[..end]).map(|mut record| {
                    record.content.with_length().expect_err("there is no key");
                });
                assert!(cut_off.is_err() || end + 1 == bytes.len() - 202);
            }
        }
    }

    #[test]
    fn numbers_of_64_bits_are_read_and_larger_ones_are_damage() {
        for number in [0, 1, 127, 128, 16_383, 16_384, u64::MAX - 1, u64::MAX] {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, number);
            let mut reader = Reader(&bytes);
            assert_eq!((reader.varint(), reader.is_empty()), (Ok(number), true));
            assert!(Reader(&bytes[..bytes.len() - 1]).varint().is_err());
        }
        assert!(Reader(&[0xff; 20]).varint().is_err());
        let mut large = [0xff; 10];
        large[9] = 2;
        assert!(Reader(&large).varint().is_err());
    }

    #[test]
    fn records_in_chunks_come_out_in_order() {
        let mut records = Records::default();
        let lengths = [0, 3, 70_000, 30_000, 30_000, 30_000, 1];
        for (bin, length) in (0..).zip(lengths) {
            records.push(bin, &vec![bin as u8; length]);
        }
        let mut mark = Mark::default();
        for (bin, length) in (0..).zip(lengths) {
            assert_eq!(records.next(&mut mark), Some((bin, &vec![bin as u8; length][..])));
            records.forget_before(&mut mark);
        }
        assert_eq!(records.next(&mut mark), None);
        assert_eq!(records.chunks.len(), 1);
        records.push(9, &[9]);
        assert_eq!(records.next(&mut mark), Some((9, &[9][..])));
    }
}

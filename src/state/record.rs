//! The bytes of a unit of state in a snapshot.
//!
//! A record is, in this order:
//!
//! | what | how |
//! |---|---|
//! | what it says | a byte, the tag |
//! | the number of its state in the list of [`StateHeader`]s that goes with it | varint |
//! | the id of its address | an id |
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
//! A header is: the name of the state; a byte that says what it is, 1 a value, 2 a table, 3 a buffer; the
//! name of the type of keys, empty if there are none; the name of the type of values; how long it lives,
//! varint; and a byte, 1 if it lives on when it is read, else 0. Names are bytes with their length.
//!
//! [`records`](crate::records) has varints and ids. A deadline is a varint: milliseconds since the
//! beginning of 1970 from which on something is not seen. The bytes of values and keys are those of their
//! codecs.

use super::declared::Kind;
use crate::address::Id;
use crate::expiration::Expiration;
use crate::records::{Damage, Reader, put_id, put_text, put_varint};

/// A state that is declared, registered, or only stored, as it is described beside records.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    const KINDS: [Kind; 3] = [Kind::Value, Kind::Table, Kind::Buffer];

    /// Adds its bytes.
    pub(crate) fn put(&self, to: &mut Vec<u8>) {
        put_text(to, &self.name);
        let kind = Self::KINDS.iter().position(|kind| *kind == self.kind);
        to.push(1 + kind.expect("these are all") as u8);
        put_text(to, &self.key_type);
        put_text(to, &self.type_name);
        put_varint(to, self.lifetime_ms);
        to.push(u8::from(self.counts_reads));
    }

    /// Reads what was put.
    ///
    /// # Errors
    ///
    /// If there is no header next.
    pub(crate) fn read(from: &mut Reader<'_>) -> Result<Self, Damage> {
        let name = from.text()?.to_owned();
        let kind = usize::from(from.byte()?).checked_sub(1).and_then(|at| Self::KINDS.get(at));
        Ok(StateHeader {
            name,
            kind: *kind.ok_or("a state in it is of no kind")?,
            key_type: from.text()?.to_owned(),
            type_name: from.text()?.to_owned(),
            lifetime_ms: from.varint()?,
            counts_reads: from.flag()?,
        })
    }

    pub(crate) fn expires(&self) -> bool {
        self.lifetime_ms > 0
    }

    pub(crate) fn expiration(&self) -> Expiration {
        Expiration::of(self.lifetime_ms, self.counts_reads)
    }
}

/// What a record says.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Tag {
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
pub(crate) fn begin(to: &mut Vec<u8>, tag: Tag, column: u32, id: &Id) {
    to.push(tag as u8);
    put_varint(to, u64::from(column));
    put_id(to, id);
}

/// A record, taken apart as far as that does not need to know the type of its state.
#[derive(Debug)]
pub(crate) struct Record<'r> {
    pub(crate) tag: Tag,
    pub(crate) column: u64,
    pub(crate) id: Id,
    pub(crate) content: Reader<'r>,
}

impl<'r> Record<'r> {
    pub(crate) fn read(bytes: &'r [u8]) -> Result<Self, Damage> {
        let mut reader = Reader::new(bytes);
        let tag = reader.byte()?;
        let tag = Tag::ALL.into_iter().find(|known| *known as u8 == tag);
        let tag = tag.ok_or("it says something that no record says")?;
        let column = reader.varint()?;
        let id = reader.id()?;
        Ok(Record { tag, column, id, content: reader })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz::{fuzz, within};
    use crate::records::put_with_length;

    #[test]
    fn headers_are_read_as_they_were_written() {
        let mut bytes = Vec::new();
        let headers = StateHeader::KINDS.map(|kind| StateHeader {
            name: format!("ä {kind}"),
            kind,
            key_type: if kind == Kind::Table { "rust/u8".to_owned() } else { String::new() },
            type_name: "a/b".to_owned(),
            lifetime_ms: if kind == Kind::Value { 0 } else { u64::MAX },
            counts_reads: kind == Kind::Buffer,
        });
        headers.iter().for_each(|header| header.put(&mut bytes));
        let mut reader = Reader::new(&bytes);
        let read = [(); 3].map(|()| StateHeader::read(&mut reader).unwrap());
        assert!(read == headers && reader.is_empty());
        let mut first = Vec::new();
        headers[0].put(&mut first);
        for end in 0..first.len() {
            StateHeader::read(&mut Reader::new(&first[..end])).expect_err("it is cut short");
        }
        let at = 1 + "ä value".len();
        assert_eq!(first[at], 1);
        for kind in [0, 4, 255] {
            first[at] = kind;
            StateHeader::read(&mut Reader::new(&first)).expect_err("there is no such kind");
        }
    }

    #[test]
    fn any_bytes_are_a_record_or_damage_and_are_written_in_one_way() {
        let mut inputs = Vec::new();
        for (tag, id) in Tag::ALL.into_iter().zip(["", "7", "007", "a", "18446744073709551615"]) {
            let mut input = Vec::new();
            begin(&mut input, tag, 300, &Id::new(id));
            input.extend([7; 9]);
            inputs.push(input);
        }
        fuzz("state", 300_000, &inputs, |input| {
            let read = within(2 * input.len(), || Record::read(input));
            let Ok(Record { tag, column, id, content }) = read else { return false };
            assert!(input.ends_with(content.rest()), "the content is what is left");
            let Ok(column) = u32::try_from(column) else { return false };
            let mut again = Vec::new();
            begin(&mut again, tag, column, &id);
            again.extend_from_slice(content.rest());
            assert!(again.len() <= input.len());
            let read = Record::read(&again).unwrap();
            assert_eq!((read.tag, read.column, &read.id), (tag, column.into(), &id));
            assert_eq!(read.content.rest(), content.rest());
            true
        });
    }

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
}

//! What records of snapshots are made of, and lists of them.
//!
//! | what | how |
//! |---|---|
//! | a varint | a number of 64 bits, seven bits a byte, the lowest first; the highest bit of each byte says whether there are more |
//! | an id | varint 1 and the number, as a varint, if the id is one; else twice the length of its bytes, as a varint, and these |
//! | bytes with their length | the length, as a varint, and the bytes |
//!
//! Nothing here says how long a record is or whether it is intact; that is for whoever keeps it.
//! Reading trusts nothing.

use std::collections::VecDeque;

use crate::address::Id;

pub(crate) fn put_varint(to: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        to.push(number as u8 | 0x80);
        number >>= 7;
    }
    to.push(number as u8);
}

/// Adds what `write` adds, with its length before it.
pub(crate) fn put_with_length<E>(
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

/// Adds a text with its length before it.
pub(crate) fn put_text(to: &mut Vec<u8>, text: &str) {
    put_varint(to, text.len() as u64);
    to.extend_from_slice(text.as_bytes());
}

/// Adds an id.
pub(crate) fn put_id(to: &mut Vec<u8>, id: &Id) {
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

/// Why bytes are no record.
pub(crate) type Damage = &'static str;

/// What is left to read.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Reader<'r>(&'r [u8]);

impl<'r> Reader<'r> {
    pub(crate) const EMPTY: Self = Reader(&[]);

    pub(crate) fn new(bytes: &'r [u8]) -> Self {
        Reader(bytes)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All that is left.
    pub(crate) fn rest(self) -> &'r [u8] {
        self.0
    }

    pub(crate) fn byte(&mut self) -> Result<u8, Damage> {
        let (first, rest) = self.0.split_first().ok_or("it ends too early")?;
        self.0 = rest;
        Ok(*first)
    }

    pub(crate) fn varint(&mut self) -> Result<u64, Damage> {
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

    pub(crate) fn bytes(&mut self, length: u64) -> Result<&'r [u8], Damage> {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let (bytes, rest) = self.0.split_at_checked(length).ok_or("it ends too early")?;
        self.0 = rest;
        Ok(bytes)
    }

    /// Bytes with their length before them.
    pub(crate) fn with_length(&mut self) -> Result<&'r [u8], Damage> {
        let length = self.varint()?;
        self.bytes(length)
    }

    /// Text with its length before it.
    pub(crate) fn text(&mut self) -> Result<&'r str, Damage> {
        str::from_utf8(self.with_length()?).map_err(|_| "a text in it is none")
    }

    pub(crate) fn id(&mut self) -> Result<Id, Damage> {
        match self.varint()? {
            1 => Ok(Id::from(self.varint()?)),
            length if length % 2 == 0 => {
                let bytes = self.bytes(length / 2)?;
                Ok(Id::new(str::from_utf8(bytes).map_err(|_| "its id is no text")?))
            }
            _ => Err("its id has no length"),
        }
    }

    /// A number of 32 bits.
    pub(crate) fn small(&mut self) -> Result<u32, Damage> {
        u32::try_from(self.varint()?).map_err(|_| "a number in it is too large")
    }

    /// A byte that says yes or no.
    pub(crate) fn flag(&mut self) -> Result<bool, Damage> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err("it says neither yes nor no"),
        }
    }
}

/// Records of bins, one behind the other, in chunks that are never moved.
#[derive(Default)]
pub(crate) struct Records {
    chunks: VecDeque<Vec<u8>>,
    bytes: usize,
}

/// A place between two records.
#[derive(Copy, Clone, Default)]
pub(crate) struct Mark {
    chunk: usize,
    at: usize,
}

/// As much is allocated at once, or a record if it is larger.
const CHUNK: usize = 1 << 16;

impl Records {
    /// How many bytes the records take that are not forgotten.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn push(&mut self, bin: u16, record: &[u8]) {
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
    pub(crate) fn next(&self, mark: &mut Mark) -> Option<(u16, &[u8])> {
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
    pub(crate) fn forget_before(&mut self, mark: &mut Mark) {
        while mark.chunk > 0 {
            self.bytes -= self.chunks.pop_front().map_or(0, |chunk| chunk.len());
            mark.chunk -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz::{Random, fuzz};

    #[test]
    fn numbers_of_64_bits_are_read_and_larger_ones_are_damage() {
        for number in [0, 1, 127, 128, 16_383, 16_384, u64::MAX - 1, u64::MAX] {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, number);
            let mut reader = Reader::new(&bytes);
            assert_eq!((reader.varint(), reader.is_empty()), (Ok(number), true));
            assert!(Reader::new(&bytes[..bytes.len() - 1]).varint().is_err());
        }
        assert!(Reader::new(&[0xff; 20]).varint().is_err());
        let mut large = [0xff; 10];
        large[9] = 2;
        assert!(Reader::new(&large).varint().is_err());
    }

    #[test]
    fn ids_are_read_as_they_were_written_and_what_is_none_is_damage() {
        for id in ["", "0", "7", "007", "18446744073709551615", "a", "ä".repeat(300).as_str()] {
            let mut bytes = Vec::new();
            put_id(&mut bytes, &Id::new(id));
            let mut reader = Reader::new(&bytes);
            assert_eq!((reader.id(), reader.is_empty()), (Ok(Id::new(id)), true));
            for end in 0..bytes.len() {
                assert!(Reader::new(&bytes[..end]).id().is_err());
            }
        }
        assert!(Reader::new(&[3, 0]).id().is_err(), "an odd length");
        assert!(Reader::new(&[2, 0xff]).id().is_err(), "no text");
    }

    /// How many bytes each item has, whose first byte says what it is, told by somebody who counts with
    /// more bits. `None` if they are no items.
    fn told(mut input: &[u8]) -> Option<Vec<usize>> {
        fn varint(bytes: &[u8]) -> Option<(usize, u128)> {
            let last = bytes.iter().take(10).position(|byte| *byte < 0x80)?;
            let bits = bytes[..=last].iter().rev();
            let number = bits.fold(0, |sum, byte| sum << 7 | u128::from(byte & 0x7f));
            (number <= u128::from(u64::MAX)).then_some((last + 1, number))
        }
        let mut items = Vec::new();
        while let Some((what, rest)) = input.split_first() {
            let what = what % 6;
            let end = match what {
                0 => varint(rest)?.0,
                4 => varint(rest).filter(|(_, number)| *number <= u128::from(u32::MAX))?.0,
                5 => rest.first().filter(|flag| **flag < 2).map(|_| 1)?,
                1..=3 => {
                    let (at, length) = varint(rest)?;
                    let (is_id, number) = (what == 3, what == 3 && length == 1);
                    let more = match number {
                        true => varint(&rest[at..])?.0,
                        false if is_id && length % 2 == 1 => return None,
                        false => usize::try_from(if is_id { length / 2 } else { length }).ok()?,
                    };
                    let text = rest[at..].get(..more)?;
                    if what > 1 && !number {
                        str::from_utf8(text).ok()?;
                    }
                    at + more
                }
                _ => unreachable!("there are six"),
            };
            items.push(end);
            input = &rest[end..];
        }
        Some(items)
    }

    /// Reads what each first byte says comes next, and writes it again.
    fn any_record(input: &[u8]) -> bool {
        let mut reader = Reader::new(input);
        let mut again = Vec::new();
        let told = told(input);
        let mut items = Vec::new();
        while !reader.is_empty() {
            let what = reader.byte().expect("there is one") % 6;
            again.push(what);
            let before = reader.rest().len();
            let read: Result<(), Damage> = match what {
                0 => reader.varint().map(|number| put_varint(&mut again, number)),
                1 => reader.with_length().map(|bytes| {
                    put_with_length(&mut again, |to| {
                        to.extend_from_slice(bytes);
                        Ok::<_, Damage>(())
                    })
                    .expect("it adds");
                }),
                2 => reader.text().map(|text| put_text(&mut again, text)),
                3 => reader.id().map(|id| put_id(&mut again, &id)),
                4 => reader.small().map(|number| put_varint(&mut again, number.into())),
                _ => reader.flag().map(|flag| again.push(flag.into())),
            };
            if let Err(why) = read {
                assert!(!why.is_empty() && told.is_none(), "{why}, but {told:?}");
                return false;
            }
            items.push(before - reader.rest().len());
        }
        assert_eq!(Some(items), told);
        // What was written is the shortest there is, and says the same.
        assert!(again.len() <= input.len(), "{again:02x?}");
        if again != input {
            assert!(any_record(&again), "{again:02x?}");
        }
        true
    }

    #[test]
    fn any_bytes_are_a_record_or_damage_and_are_written_in_one_way() {
        let mut random = Random(3);
        let inputs = (0..60).map(|_| {
            let mut input = Vec::new();
            for _ in 0..random.below(9) {
                let what = random.below(6) as u8;
                input.push(what);
                match what {
                    0 => put_varint(&mut input, random.number()),
                    1 => {
                        let bytes = random.bytes();
                        put_varint(&mut input, bytes.len() as u64);
                        input.extend(bytes);
                    }
                    2 => put_text(&mut input, &random.text()),
                    3 => put_id(&mut input, &Id::new(&random.text())),
                    4 => put_varint(&mut input, random.number() >> 32),
                    _ => input.push(random.below(2) as u8),
                }
            }
            input
        });
        let inputs: Vec<_> = inputs.collect();
        fuzz("records", 300_000, &inputs, any_record);
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
        assert_eq!((records.chunks.len(), records.bytes()), (1, 30_001 + 2 * 10));
        records.push(9, &[9]);
        assert_eq!(records.next(&mut mark), Some((9, &[9][..])));
    }
}

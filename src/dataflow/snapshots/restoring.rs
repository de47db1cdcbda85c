//! The files that one worker restores from, in their order, for each of its sets of functions.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use timely_statefun_operators::Waker;

use super::scribe::{HELD, TABLE};
use crate::dispatch::{CutType, RecordKind};
use crate::records::Reader;
use crate::snapshot::{Commit, NextPart, PartReader, Parts, Process, SnapshotError};

/// What a worker reads, and how far each set has come.
pub(in crate::dataflow) struct Reading {
    process: Arc<Process>,
    commit: Rc<Commit>,
    parts: Parts,
    /// Parts that not all sets have had, and the number of the first of them.
    read: VecDeque<Arc<PartReader>>,
    first: usize,
    /// By set, the number of the part that comes next; those that are over have the highest.
    next: Vec<usize>,
    is_over: bool,
    failed: Option<SnapshotError>,
}

/// What comes next for a set.
pub(in crate::dataflow) enum Next {
    Part(Arc<PartReader>),
    /// There will be more. The set's loop is woken.
    NotYet,
    End,
}

impl Reading {
    pub(super) fn new(process: Arc<Process>, commit: Rc<Commit>, parts: Parts) -> Self {
        Reading {
            process,
            commit,
            parts,
            read: VecDeque::new(),
            first: 0,
            next: Vec::new(),
            is_over: false,
            failed: None,
        }
    }

    /// The cut of the snapshot that is read.
    pub(in crate::dataflow) fn cut(&self) -> u64 {
        self.commit.cut()
    }

    /// The cuts of which there is held egress, in order.
    pub(in crate::dataflow) fn held_cuts(&self) -> Vec<u64> {
        self.commit.held.iter().map(|link| link.cut).collect()
    }

    /// Adds a set, which is to have all parts.
    pub(super) fn join(&mut self) {
        self.next.push(0);
    }

    /// Says how to wake the loop of a set.
    pub(in crate::dataflow) fn connect(&self, waker: Waker) {
        self.parts.connect(move || waker.wake());
    }

    /// The next part for a set.
    pub(in crate::dataflow) fn next(&mut self, set: usize) -> Result<Next, SnapshotError> {
        self.process.read(&self.commit);
        if self.next[set] == self.first + self.read.len() && !self.is_over {
            if let Some(error) = &self.failed {
                return Err(error.clone());
            }
            match self.parts.next() {
                Ok(NextPart::Part(part)) => self.read.push_back(part),
                Ok(NextPart::NotYet) => return Ok(Next::NotYet),
                Ok(NextPart::End) => self.is_over = true,
                Err(error) => {
                    self.failed = Some(error.clone());
                    return Err(error);
                }
            }
        }
        let part = self.read.get(self.next[set] - self.first).cloned();
        self.next[set] = if part.is_some() { self.next[set] + 1 } else { usize::MAX };
        let needed = self.next.iter().copied().min().unwrap_or(usize::MAX);
        while self.first < needed && self.read.pop_front().is_some() {
            self.first += 1;
        }
        Ok(part.map_or(Next::End, Next::Part))
    }
}

/// What there is in a part of a set of functions.
pub(in crate::dataflow) enum Records<'r> {
    /// First, the function types that its records refer to.
    Types(Vec<CutType>),
    /// A record: its kind, its bin and its bytes.
    Of(RecordKind, u16, &'r [u8]),
}

/// Has `each` called for what a part has of a set, of the bins of one worker of so many, in order. `sets` are
/// all that there are.
pub(in crate::dataflow) fn records_of(
    part: &PartReader,
    set: &str,
    sets: &[String],
    (worker, peers): (usize, usize),
    each: &mut dyn FnMut(Records<'_>) -> Result<(), String>,
) -> Result<(), String> {
    let Some((number, types)) = types_of(part, set, sets)? else { return Ok(()) };
    each(Records::Types(types))?;
    own_records(part, number, (worker, peers), &mut |kind, bin, record| {
        let kind = RecordKind::of(kind).ok_or("it has records of an unknown kind")?;
        Ok(each(Records::Of(kind, bin, record)))
    })
}

/// Has `each` called for what a part of held egress has of a set, of the bins of one worker of so many, in order:
/// the number of the egress, the bin, and the record after that number. Gives the names of egresses
/// as function types before.
pub(in crate::dataflow) fn held_of(
    part: &PartReader,
    set: &str,
    sets: &[String],
    place: (usize, usize),
    begin: &mut dyn FnMut(Vec<CutType>) -> Result<(), String>,
    each: &mut dyn FnMut(u64, u16, Reader<'_>) -> Result<(), String>,
) -> Result<(), String> {
    let Some((number, types)) = types_of(part, set, sets)? else { return Ok(()) };
    begin(types)?;
    own_records(part, number, place, &mut |kind, bin, record| {
        if kind != HELD {
            return Err("it has other records than held egress");
        }
        let mut record = Reader::new(record);
        let egress = record.varint()?;
        Ok(each(egress, bin, record))
    })
}

/// What a part's records of a set have as its number, and the types that they refer to. `None` if it has none.
fn types_of(
    part: &PartReader,
    set: &str,
    sets: &[String],
) -> Result<Option<(u16, Vec<CutType>)>, String> {
    let file = part.entry.name;
    let damaged = |why: &str| format!("\"{file}\" is damaged: {why}");
    // Whose sections these are: numbers of sets are those of the program that wrote them.
    let mut number = None;
    let mut types = Vec::new();
    for section in part.sections(|kind, _| kind & 0xff == TABLE) {
        let section = section.map_err(|error| error.to_string())?;
        let mut frames = Reader::new(&section.bytes);
        while !frames.is_empty() {
            let mut table = Reader::new(frames.with_length().map_err(damaged)?);
            let of = table.text().map_err(damaged)?;
            if !sets.iter().any(|set| set == of) {
                return Err(format!("\"{file}\" is of functions \"{of}\", which there are not"));
            }
            if of == set {
                number = Some(section.kind >> 8);
                types.extend(CutType::read_table(table.rest()).map_err(damaged)?);
            }
        }
    }
    Ok(number.map(|number| (number, types)))
}

/// Is told the kind, the bin and the bytes of a record. Says what is wrong with it, or else what came of it.
type OfRecord<'a> = dyn FnMut(u16, u16, &[u8]) -> Result<Result<(), String>, &'static str> + 'a;

/// Has `each` called for a part's records of a set of this number, and what is wrong with them told.
fn own_records(
    part: &PartReader,
    number: u16,
    (worker, peers): (usize, usize),
    each: &mut OfRecord<'_>,
) -> Result<(), String> {
    let file = part.entry.name;
    let damaged = |why: &str| format!("\"{file}\" is damaged: {why}");
    let own = |kind: u16, bin: u32| {
        kind >> 8 == number && kind & 0xff != TABLE && bin as usize % peers == worker
    };
    for section in part.sections(own) {
        let section = section.map_err(|error| error.to_string())?;
        let kind = section.kind & 0xff;
        let bin = u16::try_from(section.bin).map_err(|_| damaged("it has a bin there is not"))?;
        let mut frames = Reader::new(&section.bytes);
        while !frames.is_empty() {
            let record = frames.with_length().map_err(damaged)?;
            each(kind, bin, record).map_err(damaged)??;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::TypeName;
    use crate::fuzz::{fuzz, within};
    use crate::records::{put_text, put_varint, put_with_length};
    use crate::snapshot::{Gathered, PartName, PartWriter};

    const SETS: [&str; 2] = ["shop", "other"];

    /// A part whose sections these are: the tables of one set, and its records.
    fn part(tables: &[u8], records: &[u8]) -> PartReader {
        let name = PartName { execution: 1, cut: 2, worker: 3, index: 4 };
        let mut writer = PartWriter::new(name, 1 << 20);
        writer.append(5 << 8 | TABLE, 0, |section| section.extend_from_slice(tables));
        writer.append(5 << 8 | RecordKind::Queued.number(), 7, |section| {
            section.extend_from_slice(records);
        });
        let part = writer.take().map(Gathered::part).expect("there is something");
        PartReader::new(name, part.bytes).expect("it was just written")
    }

    fn with_length(bytes: &[u8]) -> Vec<u8> {
        let mut framed = Vec::new();
        let put = |to: &mut Vec<u8>| {
            to.extend_from_slice(bytes);
            Ok::<_, String>(())
        };
        put_with_length(&mut framed, put).expect("it adds");
        framed
    }

    /// Records with their lengths, which are no longer than can be counted.
    fn told(mut bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut records = Vec::new();
        while !bytes.is_empty() {
            let last = bytes.iter().position(|byte| *byte < 0x80).expect("a length ends");
            let (length, rest) = bytes.split_at(last + 1);
            let length =
                length.iter().rev().fold(0, |sum, byte| sum << 7 | usize::from(byte & 0x7f));
            records.push(rest[..length].to_vec());
            bytes = &rest[length..];
        }
        records
    }

    #[test]
    fn any_sections_are_tables_and_records_or_an_error() {
        let name = TypeName::new("shop/cart").unwrap();
        let cart = CutType { number: 3, name, is_bound: true, states: Default::default() };
        let mut table = Vec::new();
        put_text(&mut table, "shop");
        table.extend(CutType::table([&cart].into_iter()));
        let mut other = Vec::new();
        put_text(&mut other, "other");
        let tables = [with_length(&table), with_length(&other), with_length(&table)].concat();
        let records = [with_length(&[7; 200]), with_length(&[]), with_length(b"abc")].concat();
        let input = |tables: &[u8], records: &[u8]| {
            let mut input = Vec::new();
            put_varint(&mut input, tables.len() as u64);
            [&input, tables, records].concat()
        };
        let sets = SETS.map(str::to_owned);
        let inputs = [input(&tables, &records), input(&tables, &[]), input(&[], &records)];
        fuzz("sections", 20_000, &inputs, |input| {
            let mut reader = Reader::new(input);
            let Ok(tables) = reader.with_length() else { return false };
            let part = part(tables, reader.rest());
            let read = within(64 * input.len(), || {
                let (mut types, mut records) = (None, Vec::new());
                let read = records_of(&part, "shop", &sets, (0, 1), &mut |each| {
                    match each {
                        Records::Types(found) => assert!(types.replace(found).is_none(), "once"),
                        Records::Of(kind, bin, record) => {
                            assert!(types.is_some(), "types come first");
                            assert_eq!((kind, bin), (RecordKind::Queued, 7));
                            records.push(record.to_vec());
                        }
                    }
                    Ok(())
                });
                read.map(|()| (types, records))
            });
            match read {
                Ok((Some(_), records)) => {
                    assert_eq!(records, told(reader.rest()), "all of them, in order");
                    true
                }
                Ok((None, records)) => {
                    assert!(records.is_empty());
                    true
                }
                Err(why) => {
                    assert!(why.contains("part/"), "{why}");
                    false
                }
            }
        });
    }
}

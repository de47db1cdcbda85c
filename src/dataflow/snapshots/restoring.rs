//! The files that one worker restores from, in their order, for each of its sets of functions.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use timely_statefun_operators::Waker;

use super::scribe::TABLE;
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
    let Some(number) = number else { return Ok(()) };
    each(Records::Types(types))?;
    let own = |kind: u16, bin: u32| {
        kind >> 8 == number && kind & 0xff != TABLE && bin as usize % peers == worker
    };
    for section in part.sections(own) {
        let section = section.map_err(|error| error.to_string())?;
        let kind = RecordKind::of(section.kind & 0xff);
        let kind = kind.ok_or_else(|| damaged("it has records of an unknown kind"))?;
        let bin = u16::try_from(section.bin).map_err(|_| damaged("it has a bin there is not"))?;
        let mut frames = Reader::new(&section.bytes);
        while !frames.is_empty() {
            each(Records::Of(kind, bin, frames.with_length().map_err(damaged)?))?;
        }
    }
    Ok(())
}

//! One file of a snapshot: sections of bytes, found by their kind and bin.
//!
//! ```text
//! preamble │ section │ section │ … │ footer: whose part, where each section is │ its length │ checksum
//! ```
//!
//! A section is guarded by a checksum in the footer, and the footer by one at the end. So that one
//! stands for the whole file, and is what a manifest knows a part by. What a section contains is
//! nobody's business here.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::encoding::{
    PREAMBLE, Reader, VERSION, check_preamble, checksum, put_preamble, put_u16, put_u32, put_u64,
};
use super::error::SnapshotError;

const MAGIC: [u8; 8] = *b"\x89TSFpart";
/// The footer's length and its checksum.
pub(super) const TAIL: usize = 12;
/// What one section takes in the footer.
const SECTION: usize = 2 + 4 + 8 + 8 + 8;

/// Which part of which cut. Nothing else ever has the same name.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct PartName {
    pub(crate) execution: u64,
    pub(crate) cut: u64,
    /// The worker's index among all workers of all processes.
    pub(crate) worker: u32,
    /// Counts the worker's parts of the cut; from [`HELD`](Self::HELD) on, those that have held egress.
    pub(crate) index: u32,
}

/// The name of the file, from the root of the store. Files come in the order of names.
impl fmt::Display for PartName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PartName { execution, cut, worker, index } = self;
        write!(f, "part/{execution:020}/{cut:020}/{worker:06}-{index:06}")
    }
}

impl PartName {
    /// The index of a worker's first part that has held egress, and nothing else.
    pub(crate) const HELD: u32 = 500_000;

    /// Whether it has held egress.
    pub(crate) fn is_held(&self) -> bool {
        self.index >= Self::HELD
    }

    /// The part whose file this is, if it is one.
    pub(crate) fn of(file: &str) -> Option<Self> {
        let mut steps = file.strip_prefix("part/")?.split('/');
        let (execution, cut) = (steps.next()?.parse().ok()?, steps.next()?.parse().ok()?);
        let (worker, index) = steps.next()?.split_once('-')?;
        let (worker, index) = (worker.parse().ok()?, index.parse().ok()?);
        let name = PartName { execution, cut, worker, index };
        (name.to_string() == file).then_some(name)
    }
}

/// What a manifest says of a part.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PartEntry {
    pub(crate) name: PartName,
    /// How long the file is.
    pub(crate) bytes: u64,
    /// Of the footer, and so of everything.
    pub(crate) checksum: u64,
}

/// A part that is written, but not yet stored.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub(crate) entry: PartEntry,
    pub(crate) bytes: Bytes,
}

/// Gathers what one worker has for one cut, until it is enough for a part.
///
/// It is gathered as it comes, one after another in memory, which is all that a worker does. In order of
/// kind and bin it is [put](Gathered::part) elsewhere.
pub(crate) struct PartWriter {
    next: PartName,
    bytes_most: usize,
    gathered: Vec<u8>,
    pieces: Vec<Piece>,
}

/// For so many bytes room is made at once, and for pieces of so many bytes each.
const RESERVED_MAX: usize = 8 << 20;
const PIECE_BYTES: usize = 16;

/// What came at once, or one after another, of one kind and bin.
#[derive(Clone, Debug)]
struct Piece {
    kind: u16,
    bin: u32,
    /// Where it ends. It begins where the one before ends.
    end: usize,
}

/// What will be a part.
#[derive(Debug)]
pub(crate) struct Gathered {
    pub(crate) name: PartName,
    bytes: Vec<u8>,
    pieces: Vec<Piece>,
}

impl PartWriter {
    /// For a worker's parts of a cut, of about so many bytes each. `first` names the first of them.
    pub(crate) fn new(first: PartName, bytes_most: usize) -> Self {
        PartWriter { next: first, bytes_most, gathered: Vec::new(), pieces: Vec::new() }
    }

    /// Adds to what there is of this kind and bin. `write` may only append.
    ///
    /// Where a kind and bin is in several parts, it is what their sections say one after another.
    /// What is appended at once stays together.
    #[inline]
    pub(crate) fn append(&mut self, kind: u16, bin: u32, write: impl FnOnce(&mut Vec<u8>)) {
        if self.gathered.capacity() == 0 {
            // Not to be copied while it grows: memory that is not written costs nothing.
            self.gathered.reserve(self.bytes_most.min(RESERVED_MAX));
            self.pieces.reserve(self.bytes_most.min(RESERVED_MAX) / PIECE_BYTES);
        }
        let before = self.gathered.len();
        write(&mut self.gathered);
        let end = self.gathered.len();
        assert!(end >= before, "section {kind} of bin {bin} became shorter");
        match self.pieces.last_mut() {
            Some(last) if (last.kind, last.bin) == (kind, bin) => last.end = end,
            _ => self.pieces.push(Piece { kind, bin, end }),
        }
    }

    /// How much memory takes what was gathered since the last part.
    pub(crate) fn bytes(&self) -> usize {
        self.gathered.len() + self.pieces.len() * size_of::<Piece>()
    }

    /// Whether it is time to [`take`](Self::take) a part.
    pub(crate) fn is_full(&self) -> bool {
        self.gathered.len() >= self.bytes_most
    }

    /// What was gathered, for a part; `None` if that is nothing.
    pub(crate) fn take(&mut self) -> Option<Gathered> {
        if self.pieces.is_empty() {
            return None;
        }
        let name = self.next;
        self.next.index += 1;
        let (bytes, pieces) =
            (std::mem::take(&mut self.gathered), std::mem::take(&mut self.pieces));
        Some(Gathered { name, bytes, pieces })
    }
}

impl Gathered {
    /// How many bytes were gathered.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The part that it is: what was gathered, in the order of kind and bin.
    pub(crate) fn part(self) -> Part {
        let Gathered { name, bytes: gathered, pieces } = self;
        let starts = std::iter::once(0).chain(pieces.iter().map(|piece| piece.end));
        let mut places: Vec<_> = starts
            .zip(&pieces)
            .map(|(start, piece)| (piece.kind, piece.bin, start, piece.end))
            .collect();
        // In the order in which it was gathered, where kind and bin are the same.
        places.sort_unstable();
        let mut bytes = Vec::with_capacity(PREAMBLE + gathered.len() + 64 * SECTION + TAIL);
        put_preamble(&mut bytes, MAGIC, VERSION);
        let mut sections: Vec<(u16, u32, usize, usize)> = Vec::new();
        for (kind, bin, start, end) in places {
            let at = bytes.len();
            bytes.extend_from_slice(&gathered[start..end]);
            match sections.last_mut() {
                Some((last, of, _, end)) if (*last, *of) == (kind, bin) => *end = bytes.len(),
                _ => sections.push((kind, bin, at, bytes.len())),
            }
        }
        let start = bytes.len();
        put_u64(&mut bytes, name.execution);
        put_u64(&mut bytes, name.cut);
        put_u32(&mut bytes, name.worker);
        put_u32(&mut bytes, name.index);
        put_u32(&mut bytes, u32::try_from(sections.len()).expect("fewer than kinds and bins"));
        for (kind, bin, from, to) in sections {
            let sum = checksum(&bytes[from..to]);
            put_u16(&mut bytes, kind);
            put_u32(&mut bytes, bin);
            put_u64(&mut bytes, from as u64);
            put_u64(&mut bytes, (to - from) as u64);
            put_u64(&mut bytes, sum);
        }
        let footer = u32::try_from(bytes.len() - start).expect("a section takes 30 bytes of it");
        put_u32(&mut bytes, footer);
        let sum = checksum(&bytes[start..]);
        put_u64(&mut bytes, sum);
        let entry = PartEntry { name, bytes: bytes.len() as u64, checksum: sum };
        Part { entry, bytes: bytes.into() }
    }
}

/// A part whose footer has been checked.
#[derive(Clone, Debug)]
pub(crate) struct PartReader {
    pub(crate) entry: PartEntry,
    bytes: Bytes,
    sections: Vec<Place>,
}

/// Where a section is in its file.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) kind: u16,
    pub(super) bin: u32,
    pub(super) start: usize,
    pub(super) end: usize,
    checksum: u64,
}

impl Place {
    /// The bytes of the section, of what was read from `at` on, if they are those that were written.
    pub(super) fn section(
        &self,
        name: PartName,
        at: usize,
        bytes: &Bytes,
    ) -> Result<Section, SnapshotError> {
        let &Place { kind, bin, start, end, checksum: sum } = self;
        let bytes = bytes.slice(start - at..end - at);
        if checksum(&bytes) != sum {
            let why = format!("section {kind} of bin {bin} does not fit its checksum");
            return Err(SnapshotError::damaged(&name.to_string(), why));
        }
        Ok(Section { kind, bin, bytes })
    }
}

/// The bytes that a part begins with.
pub(super) fn check_beginning(name: PartName, bytes: &[u8]) -> Result<(), SnapshotError> {
    check_preamble(&name.to_string(), bytes, MAGIC, VERSION).map(drop)
}

fn cut_short(file: &str) -> SnapshotError {
    SnapshotError::damaged(file, "it is cut short")
}

/// Where the footer of a file of this length begins, as its last bytes say.
pub(super) fn footer_start(file: &str, length: u64, tail: Bytes) -> Result<u64, SnapshotError> {
    let body = length.checked_sub(TAIL as u64).ok_or_else(|| cut_short(file))?;
    let footer = u64::from(Reader::new(file, tail).u32()?);
    let start = body.checked_sub(footer).filter(|start| *start >= PREAMBLE as u64);
    start.ok_or_else(|| SnapshotError::damaged(file, "it is cut short, or its end is changed"))
}

/// Reads what begins where the footer of a part does, to the end of the file: its checksum, and where its
/// sections are.
pub(super) fn read_footer(
    name: PartName,
    start: u64,
    bytes: Bytes,
) -> Result<(u64, Vec<Place>), SnapshotError> {
    let file = &name.to_string();
    let damaged = |why: &str| SnapshotError::damaged(file, why);
    let body = bytes.len().checked_sub(TAIL).ok_or_else(|| cut_short(file))?;
    let mut tail = Reader::new(file, bytes.slice(body + 4..));
    let sum = tail.u64()?;
    if checksum(&bytes[..body + 4]) != sum {
        return Err(damaged("its footer does not fit its checksum"));
    }
    let mut reader = Reader::new(file, bytes.slice(..body));
    let (execution, cut) = (reader.u64()?, reader.u64()?);
    let found = PartName { execution, cut, worker: reader.u32()?, index: reader.u32()? };
    if found != name {
        return Err(damaged(&format!("it is \"{found}\" under another name")));
    }
    let mut sections = Vec::new();
    let mut offset = PREAMBLE as u64;
    for _ in 0..reader.count(SECTION)? {
        let (kind, bin) = (reader.u16()?, reader.u32()?);
        let (at, length, checksum) = (reader.u64()?, reader.u64()?, reader.u64()?);
        let end = at.checked_add(length).filter(|end| at == offset && *end <= start);
        offset = end.ok_or_else(|| damaged("its sections do not fit it"))?;
        let (start, end) = (at as usize, offset as usize);
        sections.push(Place { kind, bin, start, end, checksum });
    }
    reader.end()?;
    if offset != start {
        return Err(damaged("it has bytes that are in no section"));
    }
    Ok((sum, sections))
}

/// What a part has of one kind and bin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Section {
    pub(crate) kind: u16,
    pub(crate) bin: u32,
    pub(crate) bytes: Bytes,
}

impl PartReader {
    /// Reads the bytes of a file.
    ///
    /// # Errors
    ///
    /// If they are not those of a part, are damaged, of a newer version, or of another part than the
    /// name says. Sections are checked when they are read.
    pub(crate) fn new(name: PartName, bytes: Bytes) -> Result<Self, SnapshotError> {
        let file = &name.to_string();
        check_preamble(file, &bytes, MAGIC, VERSION)?;
        let length = bytes.len() as u64;
        let tail = bytes.len().checked_sub(TAIL).ok_or_else(|| cut_short(file))?;
        let start = footer_start(file, length, bytes.slice(tail..))? as usize;
        let (sum, sections) = read_footer(name, start as u64, bytes.slice(start..))?;
        let entry = PartEntry { name, bytes: bytes.len() as u64, checksum: sum };
        Ok(PartReader { entry, bytes, sections })
    }

    /// The sections that are wanted, by kind and bin, in that order.
    ///
    /// # Errors
    ///
    /// A section whose bytes are damaged.
    pub(crate) fn sections(
        &self,
        mut wanted: impl FnMut(u16, u32) -> bool,
    ) -> impl Iterator<Item = Result<Section, SnapshotError>> {
        let sections = self.sections.iter().filter(move |at| wanted(at.kind, at.bin));
        sections.map(|place| place.section(self.entry.name, 0, &self.bytes))
    }

    /// Whether every section is whole.
    pub(crate) fn check(&self) -> Result<(), SnapshotError> {
        self.sections(|_, _| true).try_for_each(|section| section.map(drop))
    }
}

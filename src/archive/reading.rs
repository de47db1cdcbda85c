//! One snapshot, read: what is known of it, and its records.
//!
//! A snapshot may be larger than memory. Where its sections are is known of all parts; records are read some
//! bins at a time, as many as fit, from all parts that have some of these, and each bin is merged by itself.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::Archive;
use super::description::Description;
use super::error::{ArchiveError, Kind as ErrorKind};
use super::merge::{Bin, From, Wrong};
use super::record::{Kind, Record, StateInfo};
use crate::address::TypeName;
use crate::dataflow::{HELD, TABLE};
use crate::dispatch::{CutType, RecordKind, egress_of};
use crate::records::Reader;
use crate::snapshot::{Commit, PartIndex, Piece, SnapshotInfo};
use crate::state::StateHeader;

/// Bytes of records that are read at a time, unless one bin has more.
const AT_ONCE: u64 = 32 << 20;

/// A function type, or an egress, that records refer to.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) name: TypeName,
    pub(super) is_bound: bool,
    pub(super) states: Vec<Arc<StateInfo>>,
}

/// What numbers of function types in a part's records mean.
#[derive(Debug, Default)]
pub(super) struct Types(HashMap<u64, Known>);

impl Types {
    pub(super) fn get(&self, number: u64) -> Result<&Known, Wrong> {
        self.0.get(&number).ok_or_else(|| "it is of a type not listed".to_owned())
    }
}

/// Which records are wanted.
#[derive(Clone, Debug, Default)]
pub(super) struct Wanted {
    /// None: of all.
    types: Option<BTreeSet<TypeName>>,
    /// None: all.
    kinds: Option<BTreeSet<Kind>>,
}

impl Wanted {
    pub(super) fn has_type(&self, name: &TypeName) -> bool {
        self.types.as_ref().is_none_or(|types| types.contains(name))
    }

    pub(super) fn has(&self, kind: Kind) -> bool {
        self.kinds.as_ref().is_none_or(|kinds| kinds.contains(&kind))
    }

    /// Whether there may be some in sections of a kind.
    fn has_section(&self, kind: u16) -> bool {
        match RecordKind::of(kind) {
            Some(RecordKind::State) => {
                Kind::ALL.iter().any(|kind| kind.is_state() && self.has(*kind))
            }
            Some(RecordKind::InFlight) => self.has(Kind::InFlight),
            Some(RecordKind::Retrying) => self.has(Kind::Retrying),
            Some(RecordKind::Queued) => self.has(Kind::Queued),
            Some(RecordKind::Logged) => self.has(Kind::Logged),
            Some(RecordKind::Operation) => self.has(Kind::Operation),
            Some(RecordKind::Delayed) => self.has(Kind::Delayed),
            // What is held is of no function type. What is unknown is damage, and read to be told.
            None => kind != HELD || (self.has(Kind::Held) && self.types.is_none()),
        }
    }
}

/// A part, and what the numbers in it mean.
struct Part {
    index: PartIndex,
    /// By the number of a set of functions: its name, and its types.
    sets: BTreeMap<u16, (Arc<str>, Types)>,
    is_last: bool,
}

/// A set of functions that a snapshot has something of.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SetInfo {
    /// Its name.
    pub name: String,
    /// The function types that something is about, by name.
    pub functions: BTreeMap<String, FunctionInfo>,
    /// The egresses of which something is held.
    pub egresses: BTreeSet<String>,
}

/// A function type that something in a snapshot is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FunctionInfo {
    /// Whether there was a function for it.
    pub is_bound: bool,
    /// Its states that were known, in the order of their names.
    pub states: Vec<StateInfo>,
}

/// A snapshot that is open to be read.
pub struct Snapshot {
    archive: Archive,
    info: SnapshotInfo,
    description: Description,
    bins: u32,
    parts: Vec<Part>,
}

impl Snapshot {
    pub(super) fn open(
        archive: Archive,
        commit: &Commit,
        info: SnapshotInfo,
    ) -> Result<Self, ArchiveError> {
        let description = Description::of(commit)?;
        let parts = commit.parts().copied().collect();
        let indexes = archive.wait(archive.store.indexes(parts))?;
        let mut states = BTreeMap::new();
        let mut parts = Vec::with_capacity(indexes.len());
        for index in indexes {
            let tables =
                archive.wait(archive.store.pieces(&[&index], &|kind, _| kind & 0xff == TABLE))?;
            let mut sets: BTreeMap<u16, (Arc<str>, Types)> = BTreeMap::new();
            for piece in tables.iter().flatten() {
                let read = read_tables(
                    &piece.section.bytes,
                    piece.section.kind >> 8,
                    &mut sets,
                    &mut states,
                );
                read.map_err(|why| {
                    let file = index.entry.name.to_string();
                    ErrorKind::File { file, why: format!("a table of function types: {why}") }
                })?;
            }
            let is_last = index.entry.name.cut == commit.cut();
            parts.push(Part { index, sets, is_last });
        }
        let bins = commit.header.bins;
        Ok(Snapshot { archive, info, description, bins, parts })
    }

    /// What its manifest says.
    pub fn info(&self) -> &SnapshotInfo {
        &self.info
    }

    /// What it says of the program besides its state and messages.
    pub fn description(&self) -> &Description {
        &self.description
    }

    /// The sets of functions that it has something of, with what was known of them.
    pub fn sets(&self) -> Vec<SetInfo> {
        let mut sets: BTreeMap<&str, SetInfo> = BTreeMap::new();
        for (name, types) in self.parts.iter().flat_map(|part| part.sets.values()) {
            let set = sets.entry(name).or_insert_with(|| SetInfo {
                name: name.to_string(),
                functions: BTreeMap::new(),
                egresses: BTreeSet::new(),
            });
            for known in types.0.values() {
                if let Some(egress) = egress_of(&known.name)
                    && known.states.is_empty()
                {
                    set.egresses.insert(egress.to_owned());
                    continue;
                }
                let function = set.functions.entry(known.name.as_str().to_owned()).or_default();
                function.is_bound |= known.is_bound;
                for state in &known.states {
                    if !function.states.iter().any(|there| there == &**state) {
                        function.states.push((**state).clone());
                    }
                }
                function.states.sort_by(|one, other| one.identity().cmp(&other.identity()));
            }
        }
        sets.into_values().collect()
    }

    /// All of its records, in an order that is always the same: bin by bin. Those of one address follow each
    /// other but for what waits elsewhere for it: a delayed message waits where its sender is.
    pub fn records(&self) -> Records<'_> {
        Records {
            snapshot: self,
            wanted: Wanted::default(),
            ranges: None,
            bins: BTreeMap::new(),
            ready: Vec::new().into_iter(),
            progress: (0, 0),
            is_over: false,
        }
    }

    fn damaged(&self, part: usize, why: &str) -> ArchiveError {
        let file = self.parts[part].index.entry.name.to_string();
        ErrorKind::File { file, why: why.to_owned() }.into()
    }

    /// How many wanted bytes each bin has.
    fn bytes(&self, wanted: &Wanted) -> Result<BTreeMap<u32, u64>, ArchiveError> {
        let mut bytes = BTreeMap::new();
        for (at, part) in self.parts.iter().enumerate() {
            for (kind, bin, length) in part.index.sections() {
                if kind & 0xff == TABLE || !wanted.has_section(kind & 0xff) {
                    continue;
                }
                if bin >= self.bins || bin > u32::from(u16::MAX) {
                    return Err(self.damaged(at, &format!("it has bin {bin}, which there is not")));
                }
                if !part.sets.contains_key(&(kind >> 8)) {
                    return Err(
                        self.damaged(at, "it has records of functions that it does not name")
                    );
                }
                *bytes.entry(bin).or_default() += length;
            }
        }
        Ok(bytes)
    }

    /// Merges what the parts have of a bin.
    fn merge(
        &self,
        bin: u32,
        pieces: Vec<(usize, Piece)>,
        wanted: &Wanted,
    ) -> Result<Vec<Record>, ArchiveError> {
        let mut sets: BTreeMap<Arc<str>, Bin> = BTreeMap::new();
        for (at, piece) in &pieces {
            let (part, bytes) = (&self.parts[*at], &piece.section.bytes);
            let (kind, number) = (piece.section.kind & 0xff, piece.section.kind >> 8);
            let (set, types) = &part.sets[&number];
            let merged = sets.entry(Arc::clone(set)).or_default();
            let name = part.index.entry.name;
            let (is_last, cut) = (part.is_last, name.cut);
            let from = From { set, types, bin: bin as u16, is_last, cut, wanted };
            let mut frames = Reader::new(bytes);
            let mut number = 0;
            while !frames.is_empty() {
                let offset = (bytes.len() - frames.rest().len()) as u64;
                number += 1;
                let taken = match frames.with_length() {
                    Err(why) => Err(why.to_owned()),
                    Ok(record) if kind == HELD && name.is_held() => {
                        merged.held(&from, record, bytes)
                    }
                    Ok(record) => match RecordKind::of(kind) {
                        Some(kind) if !name.is_held() => merged.record(&from, kind, record, bytes),
                        _ => Err("it is of an unknown kind".to_owned()),
                    },
                };
                taken.map_err(|why| ErrorKind::Record {
                    file: name.to_string(),
                    at: piece.at + offset,
                    what: RecordKind::of(kind)
                        .map_or("held egress".to_owned(), |kind| kind.to_string()),
                    bin,
                    record: number,
                    why,
                })?;
            }
        }
        let mut records = Vec::new();
        for (set, merged) in sets {
            records.extend(merged.records(&set));
        }
        Ok(records)
    }
}

/// The states that tables name, each once however many do.
type Interned = BTreeMap<Vec<u8>, Arc<StateInfo>>;

/// Reads the tables of one set in a part.
fn read_tables(
    bytes: &Bytes,
    number: u16,
    sets: &mut BTreeMap<u16, (Arc<str>, Types)>,
    states: &mut Interned,
) -> Result<(), Wrong> {
    let mut intern = |header: &StateHeader| {
        let mut key = Vec::new();
        header.put(&mut key);
        Arc::clone(states.entry(key).or_insert_with(|| Arc::new(StateInfo::of(header))))
    };
    let mut frames = Reader::new(bytes);
    while !frames.is_empty() {
        let mut table = Reader::new(frames.with_length()?);
        let name = table.text()?;
        let (known, types) = sets.entry(number).or_insert_with(|| (name.into(), Types::default()));
        if **known != *name {
            return Err("two sets of functions have one number".into());
        }
        for CutType { number, name, is_bound, states } in CutType::read_table(table.rest())? {
            let states = states.iter().map(&mut intern).collect();
            if types.0.insert(u64::from(number), Known { name, is_bound, states }).is_some() {
                return Err("it has a number twice".into());
            }
        }
    }
    Ok(())
}

/// The records of a [`Snapshot`], read as they are asked for.
///
/// After an error there is nothing more.
pub struct Records<'s> {
    snapshot: &'s Snapshot,
    wanted: Wanted,
    /// The bins that are read at a time. None before the first.
    ranges: Option<VecDeque<Range<u32>>>,
    /// What is read and not merged.
    bins: BTreeMap<u32, Vec<(usize, Piece)>>,
    ready: std::vec::IntoIter<Record>,
    /// How many bytes were read, of how many.
    progress: (u64, u64),
    is_over: bool,
}

impl Records<'_> {
    /// Only those of a function type, or of one of several if this is called several times: its state, and
    /// the messages for it.
    #[must_use]
    pub fn of_function(mut self, function_type: impl Into<TypeName>) -> Self {
        self.wanted.types.get_or_insert_default().insert(function_type.into());
        self
    }

    /// Only those of some kinds.
    #[must_use]
    pub fn of_kinds(mut self, kinds: impl IntoIterator<Item = Kind>) -> Self {
        self.wanted.kinds.get_or_insert_default().extend(kinds);
        self
    }

    /// How many bytes of the snapshot were read so far, of how many that there are.
    pub fn progress(&self) -> (u64, u64) {
        self.progress
    }

    /// The ranges of bins to read.
    fn plan(&mut self) -> Result<VecDeque<Range<u32>>, ArchiveError> {
        let bytes = self.snapshot.bytes(&self.wanted)?;
        self.progress.1 = bytes.values().sum();
        let mut ranges: VecDeque<Range<u32>> = VecDeque::new();
        let mut gathered = 0;
        for (bin, bytes) in bytes {
            match ranges.back_mut() {
                Some(range) if gathered + bytes <= AT_ONCE => range.end = bin + 1,
                _ => {
                    ranges.push_back(bin..bin + 1);
                    gathered = 0;
                }
            }
            gathered += bytes;
        }
        Ok(ranges)
    }

    /// Reads the pieces of some more bins.
    fn read(&mut self, range: Range<u32>) -> Result<(), ArchiveError> {
        let Snapshot { archive, parts, .. } = self.snapshot;
        let wanted = |kind: u16, bin: u32| {
            kind & 0xff != TABLE && range.contains(&bin) && self.wanted.has_section(kind & 0xff)
        };
        let indexes: Vec<&PartIndex> = parts.iter().map(|part| &part.index).collect();
        let pieces = archive.wait(archive.store.pieces(&indexes, &wanted))?;
        for (at, pieces) in pieces.into_iter().enumerate() {
            for piece in pieces {
                self.progress.0 += piece.section.bytes.len() as u64;
                self.bins.entry(piece.section.bin).or_default().push((at, piece));
            }
        }
        Ok(())
    }

    fn advance(&mut self) -> Result<Option<Record>, ArchiveError> {
        loop {
            if let Some(record) = self.ready.next() {
                return Ok(Some(record));
            }
            if let Some((bin, pieces)) = self.bins.pop_first() {
                self.ready = self.snapshot.merge(bin, pieces, &self.wanted)?.into_iter();
                continue;
            }
            if self.ranges.is_none() {
                self.ranges = Some(self.plan()?);
            }
            match self.ranges.as_mut().and_then(VecDeque::pop_front) {
                Some(range) => self.read(range)?,
                None => return Ok(None),
            }
        }
    }
}

impl Iterator for Records<'_> {
    type Item = Result<Record, ArchiveError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        let next = self.advance().transpose();
        self.is_over = !matches!(next, Some(Ok(_)));
        next
    }
}

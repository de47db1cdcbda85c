//! What the files of the manifest log say: a claim, with which an execution begins, or a commit, which
//! makes a snapshot count.
//!
//! A commit names every part that its snapshot needs, also those of the cuts it builds upon, and those with
//! the held egress of cuts that were not acknowledged. So one manifest is enough to restore from, whatever
//! becomes of older ones.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::encoding::{
    HELD_VERSION, PREAMBLE, Reader, VERSION, check_preamble, checksum, put_bytes, put_preamble,
    put_u32, put_u64, put_u128,
};
use super::error::SnapshotError;
use super::part::{PartEntry, PartName};
use super::savepoints;

const MAGIC: [u8; 8] = *b"\x89TSFlog\n";
const CLAIM: u8 = 1;
const COMMIT: u8 = 2;

/// The file of a slot of the log.
pub(crate) fn slot_file(slot: u64) -> String {
    format!("manifest/{slot:020}")
}

/// No log ever has so many entries. A file with a higher number was put there by somebody else, and there
/// would be no number after it.
const SLOTS_MAX: u64 = 1 << 62;

/// No store ever has a cut with a higher number, or parts of more bytes altogether. So whoever reads a
/// manifest can count on from a cut, and add up bytes.
const CUTS_MAX: u64 = 1 << 62;
const BYTES_MAX: u64 = 1 << 62;

/// The slot whose file this is, if it is one.
pub(crate) fn slot_of(file: &str) -> Option<u64> {
    let slot = file.strip_prefix("manifest/")?.parse().ok()?;
    (slot_file(slot) == file && slot < SLOTS_MAX).then_some(slot)
}

/// What all entries of the log say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// Where this stands in the log.
    pub(crate) slot: u64,
    /// The slot that the execution claimed, which is its number.
    pub(crate) execution: u64,
    /// Tells two executions apart that believe to have the same number.
    pub(crate) nonce: u128,
    /// The name of the program.
    pub(crate) program: String,
    /// Into how many bins addresses are divided.
    pub(crate) bins: u32,
    /// Slots below are deleted, or will be. What is found there nevertheless does not count.
    pub(crate) floor: u64,
    /// When it was made, in milliseconds since the beginning of 1970, by the writer's clock.
    pub(crate) at_ms: u64,
}

/// An execution begins. No older one commits anything from here on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) header: Header,
    /// The slot and the cut of the snapshot it restores. `None`: it begins without any.
    pub(crate) restores: Option<(u64, u64)>,
    /// Its cuts have at least this number, which is above all cuts before it.
    pub(crate) first_cut: u64,
}

/// A snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Commit {
    pub(crate) header: Header,
    /// What to read, oldest first: a full cut, increments upon it, and this cut itself.
    pub(crate) chain: Vec<Link>,
    /// What the writer says of the cut, by name.
    pub(crate) notes: BTreeMap<String, Bytes>,
    /// The held egress of cuts up to this one that was not acknowledged, by cut, in order.
    pub(crate) held: Vec<Link>,
}

/// One cut that a snapshot is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) execution: u64,
    pub(crate) cut: u64,
    /// In the order of their names.
    pub(crate) parts: Vec<PartEntry>,
}

impl Link {
    /// The held egress of a cut that has these parts, if there is any.
    pub(crate) fn held(execution: u64, cut: u64, parts: &[PartEntry]) -> Option<Self> {
        let held = parts.iter().filter(|part| part.name.is_held());
        let mut parts: Vec<PartEntry> = held.copied().collect();
        parts.sort_by_key(|part| part.name);
        (!parts.is_empty()).then_some(Link { execution, cut, parts })
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.bytes).sum()
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    Claim(Claim),
    Commit(Commit),
}

impl Commit {
    pub(crate) fn cut(&self) -> u64 {
        self.chain.last().expect("a chain has its own cut").cut
    }

    /// What is wrong with what it says, in the words of whoever reads that.
    pub(crate) fn damaged(&self, why: impl Into<String>) -> SnapshotError {
        SnapshotError::damaged(&slot_file(self.header.slot), why)
    }

    /// Everything that must be read to restore it, in this order.
    pub(crate) fn parts(&self) -> impl Iterator<Item = &PartEntry> {
        self.chain.iter().chain(&self.held).flat_map(|link| &link.parts)
    }
}

impl Entry {
    pub(crate) fn header(&self) -> &Header {
        match self {
            Entry::Claim(claim) => &claim.header,
            Entry::Commit(commit) => &commit.header,
        }
    }

    /// The bytes of the file.
    pub(crate) fn bytes(&self) -> Bytes {
        let mut bytes = Vec::new();
        let version = match self {
            Entry::Commit(commit) => commit.version(),
            Entry::Claim(_) => VERSION,
        };
        put_preamble(&mut bytes, MAGIC, version);
        let Header { slot, execution, nonce, program, bins, floor, at_ms } = self.header();
        bytes.push(match self {
            Entry::Claim(_) => CLAIM,
            Entry::Commit(_) => COMMIT,
        });
        put_u64(&mut bytes, *slot);
        put_u64(&mut bytes, *execution);
        put_u128(&mut bytes, *nonce);
        put_bytes(&mut bytes, program.as_bytes());
        put_u32(&mut bytes, *bins);
        put_u64(&mut bytes, *floor);
        put_u64(&mut bytes, *at_ms);
        match self {
            Entry::Claim(claim) => claim.put(&mut bytes),
            Entry::Commit(commit) => commit.put(&mut bytes),
        }
        let sum = checksum(&bytes);
        put_u64(&mut bytes, sum);
        bytes.into()
    }

    /// Reads the bytes of the file of a slot.
    ///
    /// # Errors
    ///
    /// If they are not those of an entry, are damaged, of a newer version, or of another slot.
    pub(crate) fn read(slot: u64, bytes: &Bytes) -> Result<Self, SnapshotError> {
        let file = &slot_file(slot);
        let version = check_preamble(file, bytes, MAGIC, HELD_VERSION)?;
        let body = bytes.len().checked_sub(8).filter(|body| *body >= PREAMBLE);
        let body = body.ok_or_else(|| SnapshotError::damaged(file, "it is cut short"))?;
        if Reader::new(file, bytes.slice(body..)).u64()? != checksum(&bytes[..body]) {
            return Err(SnapshotError::damaged(file, "it does not fit its checksum"));
        }
        let mut reader = Reader::new(file, bytes.slice(PREAMBLE..body));
        let kind = reader.u8()?;
        let header = Header {
            slot: reader.u64()?,
            execution: reader.u64()?,
            nonce: reader.u128()?,
            program: reader.string()?,
            bins: reader.u32()?,
            floor: reader.u64()?,
            at_ms: reader.u64()?,
        };
        if header.slot != slot {
            let why = format!("it is \"{}\" under another name", slot_file(header.slot));
            return Err(reader.damaged(why));
        }
        let claimed = if kind == CLAIM { slot..=slot } else { 0..=slot.saturating_sub(1) };
        if !claimed.contains(&header.execution) || header.floor > slot {
            return Err(reader.damaged("it contradicts itself"));
        }
        let entry = match kind {
            CLAIM if version == VERSION => Entry::Claim(Claim::read(header, &mut reader)?),
            COMMIT => Entry::Commit(Commit::read(header, version, &mut reader)?),
            other => return Err(reader.damaged(format!("there is no entry of kind {other}"))),
        };
        reader.end()?;
        Ok(entry)
    }
}

impl Claim {
    fn put(&self, bytes: &mut Vec<u8>) {
        bytes.push(u8::from(self.restores.is_some()));
        if let Some((slot, cut)) = self.restores {
            put_u64(bytes, slot);
            put_u64(bytes, cut);
        }
        put_u64(bytes, self.first_cut);
    }

    fn read(header: Header, reader: &mut Reader<'_>) -> Result<Self, SnapshotError> {
        let restores = match reader.u8()? {
            0 => None,
            1 => Some((reader.u64()?, reader.u64()?)),
            _ => return Err(reader.damaged("it contradicts itself")),
        };
        let first_cut = reader.u64()?;
        if first_cut > CUTS_MAX {
            return Err(reader.damaged("its cuts have numbers that none has"));
        }
        Ok(Claim { header, restores, first_cut })
    }
}

impl Link {
    fn put_all(links: &[Link], bytes: &mut Vec<u8>) {
        put_u32(bytes, u32::try_from(links.len()).expect("chains have a maximum"));
        for Link { execution, cut, parts } in links {
            put_u64(bytes, *execution);
            put_u64(bytes, *cut);
            put_u32(bytes, u32::try_from(parts.len()).expect("parts are large"));
            for PartEntry { name, bytes: length, checksum } in parts {
                put_u32(bytes, name.worker);
                put_u32(bytes, name.index);
                put_u64(bytes, *length);
                put_u64(bytes, *checksum);
            }
        }
    }

    /// Reads what was put. `what` they are, for messages.
    fn read_all(what: &str, reader: &mut Reader<'_>) -> Result<Vec<Link>, SnapshotError> {
        let mut links: Vec<Link> = Vec::new();
        let mut bytes = 0_u64;
        for _ in 0..reader.count(20)? {
            let (execution, cut) = (reader.u64()?, reader.u64()?);
            let mut parts: Vec<PartEntry> = Vec::new();
            for _ in 0..reader.count(24)? {
                let name = PartName { execution, cut, worker: reader.u32()?, index: reader.u32()? };
                let entry = PartEntry { name, bytes: reader.u64()?, checksum: reader.u64()? };
                if parts.last().is_some_and(|last| last.name >= name) {
                    return Err(reader.damaged("its parts are in disorder"));
                }
                bytes = bytes.saturating_add(entry.bytes);
                parts.push(entry);
            }
            if cut > CUTS_MAX || bytes > BYTES_MAX {
                return Err(reader.damaged("its cuts have numbers or parts that none has"));
            }
            if links.last().is_some_and(|last| last.cut >= cut || last.execution > execution) {
                return Err(reader.damaged(format!("its {what} is in disorder")));
            }
            links.push(Link { execution, cut, parts });
        }
        Ok(links)
    }
}

impl Commit {
    /// The format that it is written in.
    fn version(&self) -> u32 {
        match self.held.is_empty() && !self.notes.contains_key(savepoints::NOTE) {
            true => VERSION,
            false => HELD_VERSION,
        }
    }

    fn put(&self, bytes: &mut Vec<u8>) {
        Link::put_all(&self.chain, bytes);
        put_u32(bytes, u32::try_from(self.notes.len()).expect("notes are few"));
        for (name, note) in &self.notes {
            put_bytes(bytes, name.as_bytes());
            put_bytes(bytes, note);
        }
        if self.version() >= HELD_VERSION {
            Link::put_all(&self.held, bytes);
        }
    }

    fn read(header: Header, version: u32, reader: &mut Reader<'_>) -> Result<Self, SnapshotError> {
        let chain = Link::read_all("chain", reader)?;
        let Some(own) = chain.last().filter(|last| last.execution == header.execution) else {
            return Err(reader.damaged("its chain does not end with itself"));
        };
        let mut notes = BTreeMap::new();
        for _ in 0..reader.count(16)? {
            let name = reader.string()?;
            if notes.last_key_value().is_some_and(|(last, _)| *last >= name) {
                return Err(reader.damaged("its notes are in disorder"));
            }
            notes.insert(name, reader.bytes()?);
        }
        let mut held = Vec::new();
        let has_savepoints = notes.contains_key(savepoints::NOTE);
        if version >= HELD_VERSION {
            held = Link::read_all("held egress", reader)?;
            let is_held = |link: &Link| {
                let mut parts = link.parts.iter().peekable();
                parts.peek().is_some() && parts.all(|part| part.name.is_held())
            };
            let ends = held.last().map_or(has_savepoints, |last| last.cut <= own.cut);
            if !ends || !held.iter().all(is_held) {
                return Err(reader.damaged("its held egress contradicts itself"));
            }
        }
        let commit = Commit { header, chain, notes, held };
        if commit.version() != version {
            return Err(reader.damaged("its version has no savepoints"));
        }
        Ok(commit)
    }
}

//! Reading the log of manifests, from its newest entry down, by somebody who owns nothing.

use std::collections::BTreeSet;

use super::error::{Kind, SnapshotError};
use super::files::Files;
use super::manifest::{Commit, Entry, Header, slot_file, slot_of};
use super::savepoints::Named;

/// What a manifest may have at most. One of a thousand workers with a hundred parts each has 3 MB.
const MANIFEST_BYTES_MAX: u64 = 1 << 28;

/// How far to count on above a commit that cannot be read: more cuts than anybody abandons.
const CUTS_UNKNOWN: u64 = 1 << 32;

/// Whose snapshots a store has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) program: String,
    /// Into how many bins addresses are divided.
    pub(crate) bins: u32,
}

impl Identity {
    /// Whether an entry is of this program, and can be restored by it.
    pub(super) fn check(&self, header: &Header) -> Result<(), SnapshotError> {
        let foreign = |what: &str, found: String, expected: String| {
            let (file, what) = (slot_file(header.slot), what.to_owned());
            Kind::Foreign { file, what, found, expected }.into()
        };
        if header.program != self.program {
            return Err(foreign("program", header.program.clone(), self.program.clone()));
        }
        if header.bins != self.bins {
            let (found, expected) = (header.bins.to_string(), self.bins.to_string());
            return Err(foreign("a program whose number of bins is", found, expected));
        }
        Ok(())
    }
}

/// Reads an entry of the log.
pub(super) async fn read(files: &Files, slot: u64) -> Result<Option<Entry>, SnapshotError> {
    let bytes = files.read(&slot_file(slot), MANIFEST_BYTES_MAX).await?;
    bytes.map(|bytes| Entry::read(slot, &bytes)).transpose()
}

/// The slots of the log, those included that a listing which is a little old does not show.
pub(super) async fn slots(files: &Files) -> Result<BTreeSet<u64>, SnapshotError> {
    let listed = files.list("manifest").await?;
    let mut slots: BTreeSet<u64> = listed.iter().filter_map(|file| slot_of(file)).collect();
    let mut next = slots.last().map_or(1, |newest| newest + 1);
    while files.length(&slot_file(next)).await?.is_some() {
        slots.insert(next);
        next += 1;
    }
    Ok(slots)
}

/// The log from its newest entry down.
pub(super) struct Walk<'a> {
    files: &'a Files,
    slots: BTreeSet<u64>,
    /// The slot below the last one.
    next: u64,
    floor: u64,
    executions: BTreeSet<u64>,
    /// The savepoints, as the newest commit says. `None`: there was none that can be read.
    said: Option<Vec<Named>>,
    /// Until then: those of commits that say so of themselves.
    found: Vec<Named>,
}

/// An entry, as one who has seen those above it sees it.
pub(super) struct Seen {
    pub(super) slot: u64,
    pub(super) entry: Result<Entry, SnapshotError>,
    /// Whether it says something that holds. What cannot be read may.
    pub(super) counts: bool,
}

impl<'a> Walk<'a> {
    pub(super) fn new(files: &'a Files, slots: BTreeSet<u64>) -> Self {
        let next = slots.last().copied().unwrap_or(0);
        let (executions, found) = (BTreeSet::new(), Vec::new());
        Walk { files, slots, next, floor: 0, executions, said: None, found }
    }

    /// The savepoints that there are, those included that are given up, as far as is known here.
    pub(super) fn savepoints(&self) -> &[Named] {
        self.said.as_ref().unwrap_or(&self.found)
    }

    /// The savepoint whose manifest is in this slot.
    pub(super) fn savepoint(&self, slot: u64) -> Option<&Named> {
        self.savepoints().iter().find(|named| named.slot == slot)
    }

    /// Whether all savepoints are known.
    pub(super) fn knows_savepoints(&self) -> bool {
        self.said.is_some()
    }

    /// Takes in what a commit says of savepoints. Whether it is one, and that counts.
    fn learn(&mut self, commit: &Commit, counts: bool) -> Result<bool, SnapshotError> {
        if self.said.is_some() {
            return Ok(false);
        }
        let mut all = Named::all_of(commit)?;
        if counts {
            // Those that a listing does not show are missed.
            self.slots.extend(all.iter().map(|named| named.slot).filter(|slot| *slot <= self.next));
            self.said = Some(all);
            return Ok(false);
        }
        if commit.header.slot >= self.floor {
            return Ok(false);
        }
        // What says which there are cannot be read. Better one that was given up than one too few.
        all.retain(|named| named.slot == commit.header.slot);
        let is_one = !all.is_empty();
        self.found.append(&mut all);
        Ok(is_one)
    }

    /// The next older entry.
    ///
    /// # Errors
    ///
    /// If the store fails. An entry that is damaged is an entry.
    pub(super) async fn next(&mut self) -> Result<Option<Seen>, SnapshotError> {
        loop {
            // Above the floor nothing is deleted, so what is not there is missing.
            let gap = !self.executions.is_empty() && self.next >= self.floor.max(1);
            let slot = match self.slots.last() {
                Some(slot) if *slot == self.next || !gap => *slot,
                _ if gap => self.next,
                _ => return Ok(None),
            };
            self.slots.remove(&slot);
            self.next = slot.saturating_sub(1);
            let entry = match read(self.files, slot).await {
                Err(error) if error.is_unavailable() => return Err(error),
                // It was deleted meanwhile, or the listing is old.
                Ok(None) if slot < self.floor && self.savepoint(slot).is_none() => continue,
                Ok(None) => Err(SnapshotError::missing(&slot_file(slot))),
                Ok(Some(entry)) => Ok(entry),
                Err(error) => Err(error),
            };
            let mut counts = slot >= self.floor || self.savepoint(slot).is_some();
            let mut entry = entry;
            if let Ok(entry) = &entry {
                let header = entry.header();
                let newer = self.executions.range(header.execution + 1..);
                counts &= newer.into_iter().next().is_none_or(|newer| *newer > slot);
                self.floor = self.floor.max(header.floor);
                self.executions.insert(header.execution);
            }
            if let Ok(Entry::Commit(commit)) = &entry {
                match self.learn(commit, counts) {
                    Ok(is_savepoint) => counts |= is_savepoint,
                    Err(error) => entry = Err(error),
                }
            }
            return Ok(Some(Seen { slot, entry, counts }));
        }
    }
}

/// What an execution must know of the log before it claims it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Survey {
    /// The newest slot that is taken; 0 if none is.
    pub(super) newest: u64,
    /// The newest slot in which there is a commit, or something that may be one.
    pub(super) newest_commit: u64,
    /// Entries that cannot be read, above all those that can be.
    unknown: u64,
    /// Above every cut that is known.
    first_cut: u64,
    pub(super) floor: u64,
    /// The slots of the newest commits that count, newest first.
    pub(super) kept: Vec<u64>,
    /// The savepoints that there are, those included that are given up.
    pub(super) savepoints: Vec<Named>,
    /// Why this program must not claim the log: its newest entry is another program's.
    pub(super) foreign: Option<SnapshotError>,
}

impl Survey {
    /// Takes in an entry; those above it were taken in before. `keep` snapshots are of interest.
    pub(super) fn see(&mut self, identity: &Identity, seen: &Seen, keep: usize) {
        self.newest = self.newest.max(seen.slot);
        let Ok(entry) = &seen.entry else {
            self.unknown += u64::from(self.first_cut == 0);
            if seen.counts {
                self.newest_commit = self.newest_commit.max(seen.slot);
            }
            return;
        };
        if self.first_cut == 0 {
            self.foreign = identity.check(entry.header()).err();
        }
        self.floor = self.floor.max(entry.header().floor);
        match entry {
            Entry::Claim(claim) => self.first_cut = self.first_cut.max(claim.first_cut),
            Entry::Commit(commit) => {
                self.first_cut = self.first_cut.max(commit.cut() + 1);
                if seen.counts {
                    self.newest_commit = self.newest_commit.max(seen.slot);
                    if self.kept.len() < keep {
                        self.kept.push(seen.slot);
                    }
                }
            }
        }
    }

    /// Whether all was seen that an execution must know.
    pub(super) fn is_complete(&self, keep: usize) -> bool {
        self.kept.len() >= keep
    }

    /// A number above all cuts there can have been.
    pub(super) fn first_cut(&self) -> u64 {
        self.first_cut.max(1).saturating_add(self.unknown.saturating_mul(CUTS_UNKNOWN))
    }
}

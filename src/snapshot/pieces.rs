//! Snapshots for those who read or write them without a program: which there is, pieces of its parts,
//! and parts that nobody uploads.
//!
//! A part is not read as a whole: first where its sections are, then those that are wanted, in one read
//! where they lie side by side.

use std::ops::Range;

use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::encoding::PREAMBLE;
use super::error::{Kind, SnapshotError};
use super::manifest::{Commit, Entry};
use super::part::{
    Part, PartEntry, Place, Section, TAIL, check_beginning, footer_start, read_footer,
};
use super::restore::{Check, Which, whole};
use super::savepoints::given_up;
use super::store::{SnapshotInfo, SnapshotStore};
use super::survey::{Walk, slots};
use super::uploads::store;

/// A part of which is known where its sections are.
#[derive(Clone, Debug)]
pub(crate) struct PartIndex {
    pub(crate) entry: PartEntry,
    places: Vec<Place>,
}

/// A section, and where in its file it begins.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    pub(crate) at: u64,
    pub(crate) section: Section,
}

impl PartIndex {
    /// Its sections: their kinds, bins and lengths.
    pub(crate) fn sections(&self) -> impl Iterator<Item = (u16, u32, u64)> {
        self.places.iter().map(|place| (place.kind, place.bin, (place.end - place.start) as u64))
    }
}

impl SnapshotStore {
    /// Finds a snapshot, all of whose parts are there and as long as they should be.
    ///
    /// # Errors
    ///
    /// If the store fails, there is none, or it is not whole.
    pub(crate) async fn locate(
        &self,
        which: &Which,
    ) -> Result<(Commit, SnapshotInfo), SnapshotError> {
        let files = self.files();
        let given_up = given_up(files).await?;
        let mut walk = Walk::new(files, slots(files).await?);
        // What an execution has begun with is what the next one goes on from.
        let mut top = u64::MAX;
        while let Some(seen) = walk.next().await? {
            if !seen.counts || seen.slot > top {
                continue;
            }
            let savepoint = walk.savepoint(seen.slot).filter(|_| !given_up.contains(&seen.slot));
            let is_it = |commit: &Commit| match which {
                Which::Newest => true,
                Which::Cut(cut) => commit.cut() == *cut,
                Which::Savepoint(name) => savepoint.is_some_and(|named| named.name == *name),
            };
            match (seen.entry, which) {
                (Ok(Entry::Commit(commit)), _) if is_it(&commit) => {
                    let fetches_max = self.options().fetches_max;
                    whole(files, &commit, Check::Lengths, fetches_max).await?;
                    let info = SnapshotInfo::new(&commit, savepoint);
                    return Ok((commit, info));
                }
                (Ok(Entry::Claim(claim)), Which::Newest) if top == u64::MAX => {
                    match claim.restores {
                        Some((slot, _)) => top = slot,
                        None => break,
                    }
                }
                (Err(error), Which::Newest) => return Err(error),
                (Err(error), Which::Savepoint(name))
                    if savepoint.is_some_and(|named| named.name == *name) =>
                {
                    return Err(error);
                }
                _ => {}
            }
        }
        Err(match which {
            Which::Newest => Kind::NoSnapshot.into(),
            Which::Cut(cut) => Kind::NoSuchCut { cut: *cut }.into(),
            Which::Savepoint(name) => Kind::NoSuchSavepoint { name: name.clone() }.into(),
        })
    }

    /// Finds out where the sections of parts are, in the order in which these are given.
    ///
    /// # Errors
    ///
    /// If the store fails, or one is missing, damaged, or not the one that is named.
    pub(crate) async fn indexes(
        &self,
        parts: Vec<PartEntry>,
    ) -> Result<Vec<PartIndex>, SnapshotError> {
        let indexes = stream::iter(parts).map(|part| self.index(part));
        indexes.buffered(self.options().fetches_max.max(1)).try_collect().await
    }

    async fn index(&self, entry: PartEntry) -> Result<PartIndex, SnapshotError> {
        let (file, length) = (entry.name.to_string(), entry.bytes);
        let read = async |range: Range<u64>| {
            let bytes = self.files().read_range(&file, range).await?;
            bytes.ok_or_else(|| SnapshotError::missing(&file))
        };
        if length < (PREAMBLE + TAIL) as u64 {
            return Err(SnapshotError::damaged(&file, "it is cut short"));
        }
        check_beginning(entry.name, &read(0..PREAMBLE as u64).await?)?;
        let start = footer_start(&file, length, read(length - TAIL as u64..length).await?)?;
        let (checksum, places) = read_footer(entry.name, start, read(start..length).await?)?;
        if checksum != entry.checksum {
            return Err(SnapshotError::damaged(&file, "it is not the one that the manifest names"));
        }
        Ok(PartIndex { entry, places })
    }

    /// Reads the sections that are wanted, by kind and bin, of each of these parts.
    ///
    /// # Errors
    ///
    /// If the store fails, or one is damaged.
    pub(crate) async fn pieces(
        &self,
        parts: &[&PartIndex],
        wanted: &(dyn Fn(u16, u32) -> bool + Sync),
    ) -> Result<Vec<Vec<Piece>>, SnapshotError> {
        let pieces = stream::iter(parts).map(|part| self.pieces_of(part, wanted));
        pieces.buffered(self.options().fetches_max.max(1)).try_collect().await
    }

    async fn pieces_of(
        &self,
        part: &PartIndex,
        wanted: &(dyn Fn(u16, u32) -> bool + Sync),
    ) -> Result<Vec<Piece>, SnapshotError> {
        let name = part.entry.name;
        let file = name.to_string();
        let places: Vec<&Place> =
            part.places.iter().filter(|place| wanted(place.kind, place.bin)).collect();
        let mut pieces = Vec::with_capacity(places.len());
        for run in places.chunk_by(|one, next| one.end == next.start) {
            let (start, end) = (run[0].start, run[run.len() - 1].end);
            let bytes = match start == end {
                true => Some(bytes::Bytes::new()),
                false => self.files().read_range(&file, start as u64..end as u64).await?,
            };
            let bytes = bytes.ok_or_else(|| SnapshotError::missing(&file))?;
            for place in run {
                let section = place.section(name, start, &bytes)?;
                pieces.push(Piece { at: place.start as u64, section });
            }
        }
        Ok(pieces)
    }

    /// Stores a part, and waits until it is.
    ///
    /// # Errors
    ///
    /// If the store fails, or there is another part of its name.
    pub(crate) async fn store_part(&self, part: Part) -> Result<PartEntry, SnapshotError> {
        store(self.files(), part).await
    }

    /// Makes sure that the names of parts survive a loss of power.
    pub(crate) async fn settle(&self, parts: &[PartEntry]) -> Result<(), SnapshotError> {
        let names: Vec<String> = parts.iter().map(|part| part.name.to_string()).collect();
        self.files().settle(names.iter().map(String::as_str)).await
    }
}

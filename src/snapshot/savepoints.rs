//! Snapshots that have a name: which there are, and which of them are given up.
//!
//! Each commit says in a note which savepoints there are, with its own, if it is one. So one comes to be
//! in the moment in which its snapshot does, and the note of the newest commit counts. What it names
//! counts as well, also below the floor of the log.
//!
//! Who gives one up need not own the log, so that is noted in a file of its own. From then on the savepoint has
//! no name, and the next commit of whoever owns the log leaves it out: then it is a snapshot like others.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::encoding::{Reader, put_bytes, put_u32, put_u64};
use super::error::SnapshotError;
use super::files::Files;
use super::manifest::{Commit, slot_file};

/// The note with which a name is asked for, of a cut that is not committed yet.
pub(crate) const NAME: &str = "savepoint";
/// The note that says which savepoints there are.
pub(super) const NOTE: &str = "savepoints";

/// A savepoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Named {
    /// Where its manifest is.
    pub(super) slot: u64,
    pub(super) cut: u64,
    pub(super) name: String,
}

impl Named {
    /// The savepoints that there are, as a commit says, in the order of their slots.
    pub(super) fn all_of(commit: &Commit) -> Result<Vec<Self>, SnapshotError> {
        let Some(note) = commit.notes.get(NOTE) else { return Ok(Vec::new()) };
        let file = slot_file(commit.header.slot);
        let mut reader = Reader::new(&file, note.clone());
        let mut all: Vec<Named> = Vec::new();
        for _ in 0..reader.count(24)? {
            let named = Named { slot: reader.u64()?, cut: reader.u64()?, name: reader.string()? };
            let is_own = named.slot == commit.header.slot && named.cut == commit.cut();
            let is_older = named.slot < commit.header.slot;
            if !(is_own || is_older) || all.last().is_some_and(|last| last.slot >= named.slot) {
                return Err(reader.damaged("its savepoints are in disorder"));
            }
            all.push(named);
        }
        reader.end()?;
        Ok(all)
    }

    /// The note that says so; none if there are none.
    pub(super) fn note(all: &[Self]) -> Option<Bytes> {
        if all.is_empty() {
            return None;
        }
        let mut bytes = Vec::new();
        put_u32(&mut bytes, u32::try_from(all.len()).expect("somebody thought of each name"));
        for Named { slot, cut, name } in all {
            put_u64(&mut bytes, *slot);
            put_u64(&mut bytes, *cut);
            put_bytes(&mut bytes, name.as_bytes());
        }
        Some(bytes.into())
    }
}

/// The file that says that the savepoint of a slot is given up.
pub(super) fn given_up_file(slot: u64) -> String {
    format!("savepoint/{slot:020}-given-up")
}

/// The slots of savepoints that are given up.
pub(super) async fn given_up(files: &Files) -> Result<BTreeSet<u64>, SnapshotError> {
    let listed = files.list("savepoint").await?;
    let slots = listed.iter().filter_map(|file| {
        let slot = file.strip_prefix("savepoint/")?.strip_suffix("-given-up")?.parse().ok()?;
        (given_up_file(slot) == *file).then_some(slot)
    });
    Ok(slots.collect())
}

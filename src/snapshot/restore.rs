//! Finding the snapshot to restore, and reading it.
//!
//! Nothing is believed to be there, or whole, because a manifest names it. What is not whole is
//! reported, and what is older and whole is offered; whether to take it is the program's decision.

use std::collections::BTreeSet;

use futures_util::stream::{self, Stream, StreamExt};

use super::error::{Kind, SnapshotError};
use super::files::Files;
use super::manifest::{Commit, Entry, slot_file};
use super::part::{PartEntry, PartReader};
use super::savepoints::{Named, given_up};
use super::survey::{Identity, Survey, Walk, slots};

/// Which snapshot is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    /// The last one of the execution before, or what that execution restored itself.
    Newest,
    /// That of this cut.
    Cut(u64),
    /// The savepoint of this name.
    Savepoint(String),
}

/// What makes a snapshot whole.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Check {
    /// All of its parts are there and as long as they should be.
    Lengths,
    /// All of its bytes are those that were written, so all are read.
    Contents,
}

/// What there is to restore.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    /// `None`: there was never a snapshot, or none is whole, or the execution before chose to begin
    /// without any.
    pub(crate) snapshot: Option<Commit>,
    /// What would have been restored instead of it, newest first: its file, and why it cannot be.
    pub(crate) skipped: Vec<(String, SnapshotError)>,
    /// What is needed to claim the log.
    pub(crate) survey: Survey,
}

/// How to look.
#[derive(Copy, Clone, Debug)]
pub(super) struct Looking {
    pub(super) check: Check,
    /// How many snapshots the store is to keep.
    pub(super) keep: usize,
    /// How many files are read at a time.
    pub(super) fetches_max: usize,
}

/// Finds the newest whole snapshot, or that of a cut.
///
/// # Errors
///
/// If the store fails, or there is no snapshot of this cut or name, or it is not whole.
pub(super) async fn find(
    files: &Files,
    identity: &Identity,
    which: Which,
    looking: Looking,
) -> Result<Found, SnapshotError> {
    let Looking { check, keep, fetches_max } = looking;
    let mut walk = Walk::new(files, slots(files).await?);
    let mut found = Found { snapshot: None, skipped: Vec::new(), survey: Survey::default() };
    let given_up = match &which {
        Which::Savepoint(_) => given_up(files).await?,
        _ => BTreeSet::new(),
    };
    let mut over = false;
    // Nothing above this slot is what is restored.
    let mut top = u64::MAX;
    while !(over && found.survey.is_complete(keep) && walk.knows_savepoints()) {
        let Some(seen) = walk.next().await? else { break };
        found.survey.see(identity, &seen, keep);
        if over || !seen.counts || seen.slot > top {
            continue;
        }
        let file = slot_file(seen.slot);
        if let Which::Savepoint(name) = &which {
            let is_it = |named: &Named| named.name == *name && !given_up.contains(&named.slot);
            if !walk.savepoint(seen.slot).is_some_and(is_it) {
                continue;
            }
        }
        let commit = match seen.entry.and_then(|entry| {
            identity.check(entry.header())?;
            Ok(entry)
        }) {
            Err(error) if matches!(which, Which::Savepoint(_)) => return Err(error),
            Err(error) => {
                found.skipped.push((file, error));
                continue;
            }
            Ok(Entry::Claim(claim)) => {
                if which == Which::Newest && top == u64::MAX {
                    top = claim.restores.map_or(0, |(slot, _)| slot);
                    over = claim.restores.is_none();
                }
                continue;
            }
            Ok(Entry::Commit(commit)) => commit,
        };
        if matches!(which, Which::Cut(cut) if commit.cut() != cut) {
            continue;
        }
        if let Which::Cut(_) | Which::Savepoint(_) = which {
            whole(files, &commit, check, fetches_max).await?;
        } else if let Err(error) = whole(files, &commit, check, fetches_max).await {
            if error.is_unavailable() {
                return Err(error);
            }
            found.skipped.push((file, error));
            continue;
        }
        found.snapshot = Some(commit);
        over = true;
    }
    found.survey.savepoints = walk.savepoints().to_vec();
    match which {
        // It was there when the execution before began with it.
        Which::Newest if found.snapshot.is_none() && found.skipped.is_empty() => {
            if top != u64::MAX && top != 0 {
                let file = slot_file(top);
                let error = SnapshotError::missing(&file);
                found.skipped.push((file, error));
            }
            Ok(found)
        }
        Which::Savepoint(name) if found.snapshot.is_none() => {
            Err(Kind::NoSuchSavepoint { name }.into())
        }
        Which::Cut(cut) if found.snapshot.is_none() => Err(Kind::NoSuchCut { cut }.into()),
        _ => Ok(found),
    }
}

/// Whether everything that a snapshot needs is there.
pub(super) async fn whole(
    files: &Files,
    commit: &Commit,
    check: Check,
    fetches_max: usize,
) -> Result<(), SnapshotError> {
    // Owned, so that whoever waits for this may do so on any thread.
    let parts: Vec<PartEntry> = commit.parts().copied().collect();
    let checks = parts.into_iter().map(|part| check_part(files.clone(), part, check));
    let mut checks = stream::iter(checks).buffer_unordered(fetches_max.max(1));
    while let Some(checked) = checks.next().await {
        checked?;
    }
    Ok(())
}

/// The parts of a snapshot, in the order in which they build upon each other, some of them read ahead.
/// Each is the one that the manifest names; its sections are checked when they are read.
pub(super) fn parts(
    files: &Files,
    commit: &Commit,
    fetches_max: usize,
) -> impl Stream<Item = Result<PartReader, SnapshotError>> + Send + use<> {
    let parts: Vec<PartEntry> = commit.parts().copied().collect();
    let files = files.clone();
    stream::iter(parts).map(move |part| read_part(files.clone(), part)).buffered(fetches_max.max(1))
}

async fn check_part(files: Files, part: PartEntry, check: Check) -> Result<(), SnapshotError> {
    if check == Check::Contents {
        return read_part(files, part).await?.check();
    }
    let file = part.name.to_string();
    match files.length(&file).await? {
        None => Err(SnapshotError::missing(&file)),
        Some(length) if length != part.bytes => Err(wrong_length(&part, length)),
        Some(_) => Ok(()),
    }
}

async fn read_part(files: Files, part: PartEntry) -> Result<PartReader, SnapshotError> {
    let file = part.name.to_string();
    let bytes = files.read(&file, part.bytes).await?;
    let bytes = bytes.ok_or_else(|| SnapshotError::missing(&file))?;
    if bytes.len() as u64 != part.bytes {
        return Err(wrong_length(&part, bytes.len() as u64));
    }
    let reader = PartReader::new(part.name, bytes)?;
    if reader.entry != part {
        return Err(SnapshotError::damaged(&file, "it is not the one that the manifest names"));
    }
    Ok(reader)
}

fn wrong_length(part: &PartEntry, length: u64) -> SnapshotError {
    let why = format!("it has {length} bytes, and {} are expected", part.bytes);
    SnapshotError::damaged(&part.name.to_string(), why)
}

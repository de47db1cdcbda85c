//! Deleting what no snapshot needs any more.
//!
//! Only an execution that has just committed deletes: first manifests, oldest first and never the newest,
//! then parts that no manifest names. [Savepoints](super::savepoints) stay until they are given up. Why one that falls asleep in the middle of it, while a newer execution
//! works, does no harm: it deletes parts of its own execution or older ones, of cuts up to its own
//! last commit, that this commit does not name. A newer execution builds upon the newest commit, or writes
//! everything anew.
//!
//! Nothing is deleted before it was seen to be unneeded for the grace period, by the clock of the
//! execution. So one that reads a snapshot which was just given up has that long, and a listing may be
//! that old: a slot that somebody else has taken is not free again as long as a listing does not show
//! what came after it.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::error::SnapshotError;
use super::log::Log;
use super::manifest::{Commit, Entry, slot_file, slot_of};
use super::part::PartName;
use super::savepoints::{Named, given_up, given_up_file};
use super::survey::read;

/// What this execution has found to be unneeded, and since when.
#[derive(Debug, Default)]
pub(crate) struct Garbage {
    since_ms: BTreeMap<String, u64>,
    /// What manifests name, for each slot, so that each is read once.
    named: BTreeMap<u64, Names>,
}

/// What a manifest names.
#[derive(Debug, Default)]
struct Names {
    parts: Vec<PartName>,
    /// The slots of savepoints.
    savepoints: Vec<u64>,
}

/// What was deleted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Collected {
    pub(crate) manifests: usize,
    pub(crate) parts: usize,
    /// A manifest that cannot be read. It may name any part, so no part is deleted until it is gone.
    pub(crate) held_back: Option<SnapshotError>,
}

impl Names {
    fn of(commit: &Commit) -> Result<Self, SnapshotError> {
        let savepoints = Named::all_of(commit)?.into_iter().map(|named| named.slot).collect();
        Ok(Names { parts: commit.parts().map(|part| part.name).collect(), savepoints })
    }
}

impl Garbage {
    /// Deletes what nobody needs. Does nothing before the first commit.
    ///
    /// # Errors
    ///
    /// Fenced, if a newer execution has claimed the log. If the store fails, some of it is deleted.
    pub(crate) async fn collect(
        &mut self,
        log: &mut Log,
        now_ms: u64,
        grace_ms: u64,
    ) -> Result<Collected, SnapshotError> {
        let mut collected = Collected::default();
        let Some(last) = log.last() else { return Ok(collected) };
        #[cfg(statefun_planted)]
        crate::planted::reach("collecting");
        let files = log.files().clone();
        let listed = files.list("manifest").await?;
        let mut slots: BTreeSet<u64> = listed.iter().filter_map(|file| slot_of(file)).collect();
        if let Some(newer) = slots.range(last.slot + 1..).next_back() {
            return Err(log.fence(*newer));
        }
        let newest = slots.last().copied().unwrap_or(0);
        if newest < log.execution() {
            // The listing is older than this execution. There will be another.
            return Ok(collected);
        }
        // What it does not show yet was committed by this execution, and not deleted since.
        slots.extend(newest + 1..=last.slot);
        let given_up = given_up(&files).await?;
        log.give_up(given_up.iter().copied());
        let savepoints: BTreeSet<u64> = log.savepoint_slots().collect();
        slots.extend(&savepoints);
        let below = slots.range(..log.floor()).filter(|slot| !savepoints.contains(slot));
        let below: Vec<u64> = below.copied().collect();
        let mut unneeded: BTreeSet<String> = below.iter().map(|slot| slot_file(*slot)).collect();
        let manifests = self.over(&unneeded, now_ms, grace_ms);
        for manifest in &manifests {
            // One by one, so that those that are left begin somewhere and have no gap.
            files.delete(std::slice::from_ref(manifest)).await?;
            #[cfg(statefun_planted)]
            crate::planted::reach("manifest-deleted");
            slots.remove(&slot_of(manifest).expect("it was made of a slot"));
        }
        collected.manifests = manifests.len();

        self.named.retain(|slot, _| slots.contains(slot));
        for slot in &slots {
            if !self.named.contains_key(slot) {
                let names = match read(&files, *slot).await {
                    Ok(Some(Entry::Commit(commit))) => Names::of(&commit),
                    // A savepoint whose manifest somebody took away may need any part.
                    Ok(None) if savepoints.contains(slot) => {
                        Err(SnapshotError::missing(&slot_file(*slot)))
                    }
                    Ok(_) => Ok(Names::default()),
                    Err(error) => Err(error),
                };
                let names = match names {
                    Ok(names) => names,
                    Err(error) if error.is_unavailable() => return Err(error),
                    Err(error) => {
                        collected.held_back = Some(error);
                        continue;
                    }
                };
                self.named.insert(*slot, names);
            }
        }
        let names = self.named.values();
        let named: HashSet<PartName> = names.flat_map(|names| &names.parts).copied().collect();
        let parts = files.list("part").await?;
        let parts = parts.iter().filter_map(|file| PartName::of(file));
        let unnamed = parts.filter(|part| {
            let own_or_older = (part.execution, part.cut) <= (log.execution(), last.cut);
            own_or_older && !named.contains(part)
        });
        let unnamed: BTreeSet<String> = unnamed.map(|part| part.to_string()).collect();
        if collected.held_back.is_none() {
            let parts = self.over(&unnamed, now_ms, grace_ms);
            files.delete(&parts).await?;
            #[cfg(statefun_planted)]
            if !parts.is_empty() {
                crate::planted::reach("parts-deleted");
            }
            collected.parts = parts.len();
            let directory =
                |file: &String| file.rsplit_once('/').map(|(above, _)| above.to_owned());
            files.sweep(parts.iter().filter_map(directory).collect()).await?;
        }
        unneeded.extend(unnamed);
        if collected.held_back.is_none() {
            // That one is given up is known as long as something that counts says that it is there.
            let above = self.named.range(log.floor()..);
            let names = above.flat_map(|(_, names)| &names.savepoints);
            let said: BTreeSet<u64> = names.copied().chain(slots.iter().copied()).collect();
            let notes: BTreeSet<String> =
                given_up.difference(&said).map(|slot| given_up_file(*slot)).collect();
            files.delete(&self.over(&notes, now_ms, grace_ms)).await?;
            unneeded.extend(notes);
        }
        self.since_ms.retain(|file, _| unneeded.contains(file));
        Ok(collected)
    }

    /// Those that were unneeded for so long.
    fn over(&mut self, unneeded: &BTreeSet<String>, now_ms: u64, grace_ms: u64) -> Vec<String> {
        let mut over = Vec::new();
        for file in unneeded {
            let since_ms = *self.since_ms.entry(file.clone()).or_insert(now_ms);
            if now_ms.saturating_sub(since_ms) >= grace_ms {
                over.push(file.clone());
            }
        }
        over
    }
}

//! How an execution begins: it chooses what it restores, and claims the store.
//!
//! One worker of all does this, and tells the others what came of it. Nobody reads or writes anything
//! before.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::error::SnapshotError;
use super::log::Log;
use super::manifest::{Commit, Entry};
use super::restore::{Check, Which};
use super::store::SnapshotStore;
use super::survey::Identity;

/// How often one looks again for what to begin with, because an older execution that still runs has just
/// committed a cut. It takes one longer than to find the newest snapshot, so it is not often twice.
const OVERTAKEN_MAX: u32 = 16;

/// Which snapshot a program begins with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum RestoreFrom {
    /// The newest one. If it is not whole, that is an [error](SnapshotError), which says which older one
    /// [is](SnapshotError::offered). Where there never was one, the program begins without.
    #[default]
    Newest,
    /// The newest one that is whole. What came after it is done again, and what depends on that is
    /// given up: egress that was released for a newer cut may come again, and differ.
    NewestWhole,
    /// That of this cut. What came after it is given up, as above.
    Cut(u64),
    /// The [savepoint](crate::Snapshots::savepoint) of this name. What came after it is given up, as above.
    Savepoint(String),
    /// None: the program begins anew. Cuts go on to be numbered above all there were.
    Nothing,
}

/// What all workers must know of an execution.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Begun {
    pub(crate) execution: u64,
    /// The number of its first cut, which is above all cuts before it.
    pub(crate) first_cut: u64,
    /// The cut that its first one may be an increment of.
    pub(crate) base: Option<u64>,
    /// The slot of what is restored, and the bytes of its manifest.
    restores: Option<(u64, Bytes)>,
}

impl Begun {
    /// What is restored.
    pub(crate) fn restores(&self) -> Option<Commit> {
        let (slot, bytes) = self.restores.as_ref()?;
        match Entry::read(*slot, bytes) {
            Ok(Entry::Commit(commit)) => Some(commit),
            other => unreachable!("it was a commit when it was chosen: {other:?}"),
        }
    }
}

impl SnapshotStore {
    /// Begins an execution. `verify` says whether every byte of what is restored is looked at before.
    ///
    /// # Errors
    ///
    /// If the store fails or belongs to another program; if what is wanted is not there or not whole; if
    /// somebody else is just beginning as well.
    pub(crate) async fn begin(
        &self,
        identity: &Identity,
        from: RestoreFrom,
        verify: bool,
        now_ms: u64,
    ) -> Result<(Begun, Log), SnapshotError> {
        let mut overtaken = 0;
        loop {
            match self.try_to_begin(identity, &from, verify, now_ms).await {
                Err(error) if error.is_overtaken() && overtaken < OVERTAKEN_MAX => overtaken += 1,
                begun => return begun,
            }
        }
    }

    async fn try_to_begin(
        &self,
        identity: &Identity,
        from: &RestoreFrom,
        verify: bool,
        now_ms: u64,
    ) -> Result<(Begun, Log), SnapshotError> {
        let which = match from {
            RestoreFrom::Cut(cut) => Which::Cut(*cut),
            RestoreFrom::Savepoint(name) => Which::Savepoint(name.clone()),
            RestoreFrom::Newest | RestoreFrom::NewestWhole | RestoreFrom::Nothing => Which::Newest,
        };
        // What is not looked at cannot be known to be whole.
        let check = match from {
            RestoreFrom::Nothing => Check::Lengths,
            RestoreFrom::NewestWhole => Check::Contents,
            RestoreFrom::Newest | RestoreFrom::Cut(_) | RestoreFrom::Savepoint(_) => match verify {
                true => Check::Contents,
                false => Check::Lengths,
            },
        };
        let is_one = matches!(from, RestoreFrom::Cut(_) | RestoreFrom::Savepoint(_));
        let found = match self.find(identity, which, check).await {
            Err(error) if is_one && !error.is_unavailable() => {
                let whole = self.find(identity, Which::Newest, check).await?.snapshot;
                return Err(error.offering(whole.map(|commit| commit.cut())));
            }
            found => found?,
        };
        let restores = match from {
            RestoreFrom::Nothing => None,
            RestoreFrom::Newest if !found.skipped.is_empty() => {
                let (_, error) = found.skipped.into_iter().next().expect("there is one");
                return Err(error.offering(found.snapshot.map(|commit| commit.cut())));
            }
            RestoreFrom::Newest
            | RestoreFrom::NewestWhole
            | RestoreFrom::Cut(_)
            | RestoreFrom::Savepoint(_) => found.snapshot.clone(),
        };
        let log = self.claim(identity, &found, restores.as_ref(), now_ms).await?;
        let begun = Begun {
            execution: log.execution(),
            first_cut: log.first_cut(),
            base: log.base(),
            restores: restores.map(|commit| {
                let slot = commit.header.slot;
                (slot, Entry::Commit(commit).bytes())
            }),
        };
        Ok((begun, log))
    }
}

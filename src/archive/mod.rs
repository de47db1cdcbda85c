//! Snapshots without a program: what is in them, as records, and new ones from records.
//!
//! An [`Archive`] is a [`SnapshotStore`] that is read and written offline. Nothing of a program runs, and
//! none need: a snapshot is [read](Archive::newest) record by record, [written](Archive::write) from records in
//! any order, and [changed](Changes) on the way from one to the other. What is written is a snapshot like any
//! other: a program that is built for it begins with it, on whatever number of workers.
//!
//! ```
//! use timely_statefun::archive::{Archive, Description, Draft};
//! use timely_statefun::{FunctionType, SnapshotOptions, SnapshotStore, ValueSpec};
//!
//! const ACCOUNT: FunctionType<i64> = FunctionType::new("bank/account");
//! const BALANCE: ValueSpec<i64> = ValueSpec::new("balance");
//!
//! let store = SnapshotStore::open("memory:", SnapshotOptions::default())?;
//! let archive = Archive::of(&store)?;
//! // "accounts" is what the program's `Functions` are named.
//! let draft = Draft::of("accounts");
//! let records = (0..1000u64).map(|id| draft.value(ACCOUNT, id, BALANCE, &100));
//! let written = archive.write(&Description::beginning("bank", &0u64)?, records)?;
//!
//! let snapshot = archive.newest()?;
//! assert_eq!(snapshot.info().cut, written.cut);
//! assert_eq!(snapshot.records().count(), 1000);
//! # Ok::<(), timely_statefun::archive::ArchiveError>(())
//! ```
//!
//! This room knows files and records. It knows no dataflow, runs no function, and looks at no clock but to
//! stamp a manifest.

mod changes;
mod description;
mod draft;
mod error;
mod merge;
mod reading;
mod record;
mod sort;
#[cfg(test)]
mod tests;
mod writing;

use std::fmt;
use std::future::Future;
use std::rc::Rc;

use tokio::runtime::{Builder, Runtime};

pub use changes::Changes;
pub use description::Description;
pub use draft::Draft;
pub use error::ArchiveError;
pub use reading::{FunctionInfo, Records, SetInfo, Snapshot};
pub use record::{
    Attempt, Content, HeldRecord, Kind, MessageRecord, Record, Standing, StateInfo, StateRecord,
    Stored, Waits,
};
pub use writing::Writer;

use crate::snapshot::{SnapshotError, SnapshotInfo, SnapshotStore, Which};

/// A store of snapshots, offline. All clones are one.
#[derive(Clone)]
pub struct Archive {
    store: SnapshotStore,
    runtime: Rc<Runtime>,
}

impl Archive {
    /// The archive of a store.
    ///
    /// All that it does waits until it is done, on a runtime of its own. In asynchronous code it belongs on a
    /// thread where one may wait: elsewhere tokio panics.
    ///
    /// # Errors
    ///
    /// If the system lets no runtime start.
    pub fn of(store: &SnapshotStore) -> Result<Self, ArchiveError> {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(error::Kind::Runtime)?;
        Ok(Archive { store: store.clone(), runtime: Rc::new(runtime) })
    }

    fn wait<X>(&self, done: impl Future<Output = X>) -> X {
        self.runtime.block_on(done)
    }

    /// The snapshots that there are, newest first; in the place of one that cannot be read, why. As
    /// [`SnapshotStore::list`].
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub fn list(&self) -> Result<Vec<Result<SnapshotInfo, SnapshotError>>, ArchiveError> {
        Ok(self.wait(self.store.list())?)
    }

    /// Opens the snapshot that a program would go on from.
    ///
    /// What is opened is that snapshot, whatever a program does meanwhile, unless it deletes files that this
    /// still reads: see [`SnapshotOptions::grace`](crate::SnapshotOptions::grace).
    ///
    /// # Errors
    ///
    /// If the store fails; if there is [none](SnapshotError::is_no_snapshot); if it is not whole.
    pub fn newest(&self) -> Result<Snapshot, ArchiveError> {
        self.open(&Which::Newest)
    }

    /// Opens the snapshot of a cut.
    ///
    /// # Errors
    ///
    /// If the store fails; if there is [none](SnapshotError::is_no_such_cut); if it is not whole.
    pub fn cut(&self, cut: u64) -> Result<Snapshot, ArchiveError> {
        self.open(&Which::Cut(cut))
    }

    /// Opens the [savepoint](crate::Snapshots::savepoint) of a name.
    ///
    /// # Errors
    ///
    /// If the store fails; if there is [none](SnapshotError::is_no_such_savepoint); if it is not whole.
    pub fn savepoint(&self, name: &str) -> Result<Snapshot, ArchiveError> {
        self.open(&Which::Savepoint(name.to_owned()))
    }

    fn open(&self, which: &Which) -> Result<Snapshot, ArchiveError> {
        let (commit, info) = self.wait(self.store.locate(which))?;
        Snapshot::open(self.clone(), &commit, info)
    }
}

impl fmt::Debug for Archive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Archive").field(&self.store).finish()
    }
}

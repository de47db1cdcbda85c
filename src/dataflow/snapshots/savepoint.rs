//! A savepoint as the program sees it, on the worker that asked for it: what becomes of it is told here, once.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;

use super::SnapshotDone;
use crate::snapshot::SnapshotError;

/// A snapshot that was [asked for](crate::Snapshots::savepoint) with a name. All clones are one.
pub struct Savepoint<T> {
    name: Rc<str>,
    outcome: Rc<RefCell<Option<Outcome<T>>>>,
}

/// What becomes of a savepoint.
pub(super) type Outcome<T> = Result<SnapshotDone<T>, SnapshotError>;

impl<T> Savepoint<T> {
    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What became of it: the snapshot is durable and has the name, or came to nothing. `None`: that is not
    /// known yet. This worker is woken when it is, so
    /// [`run_while`](timely_statefun_operators::LoopHandle::run_while) waits for it.
    ///
    /// # Errors
    ///
    /// [Taken](SnapshotError::is_savepoint_taken), if there is a savepoint of this name;
    /// [abandoned](SnapshotError::is_abandoned), if the snapshot was given up, or the program came to its end
    /// before; if the store failed. It may be asked for again. Where the store failed, the savepoint may be
    /// there after a restart.
    pub fn outcome(&self) -> Option<Result<SnapshotDone<T>, SnapshotError>>
    where
        T: Clone,
    {
        self.outcome.borrow().clone()
    }
}

impl<T> Clone for Savepoint<T> {
    fn clone(&self) -> Self {
        Savepoint { name: Rc::clone(&self.name), outcome: Rc::clone(&self.outcome) }
    }
}

impl<T: fmt::Debug> fmt::Debug for Savepoint<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Savepoint")
            .field("name", &self.name)
            .field("outcome", &self.outcome.borrow())
            .finish()
    }
}

/// The savepoints that a worker has asked for and knows nothing of yet.
pub(super) struct Asked<T> {
    last: u64,
    waiting: BTreeMap<u64, Savepoint<T>>,
}

impl<T> Asked<T> {
    pub(super) fn new() -> Self {
        Asked { last: 0, waiting: BTreeMap::new() }
    }

    /// Notes another one, and says by which number it is known to this worker.
    pub(super) fn add(&mut self, name: &str) -> (u64, Savepoint<T>) {
        self.last += 1;
        let savepoint = Savepoint { name: name.into(), outcome: Rc::default() };
        self.waiting.insert(self.last, savepoint.clone());
        (self.last, savepoint)
    }

    /// Tells what became of one.
    pub(super) fn tell(&mut self, number: u64, outcome: Outcome<T>) {
        if let Some(savepoint) = self.waiting.remove(&number) {
            *savepoint.outcome.borrow_mut() = Some(outcome);
        }
    }
}

/// Nothing more is heard.
impl<T> Drop for Asked<T> {
    fn drop(&mut self) {
        for Savepoint { name, outcome } in self.waiting.values() {
            let error = SnapshotError::not_taken(name, "the program ended before");
            *outcome.borrow_mut() = Some(Err(error));
        }
    }
}

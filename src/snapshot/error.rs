//! What can be wrong with a store of snapshots, or with what it holds.

use std::error::Error as StdError;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::dead_letter::chain;

/// A store of snapshots failed, or holds something that cannot be used.
///
/// The message names the file and the reason; what kind of error it is, is asked with the
/// predicates. What the store itself said is the [`source`](StdError::source).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SnapshotError {
    pub(super) kind: Kind,
    /// The cut of an older snapshot that is whole.
    offered: Option<u64>,
}

impl From<Kind> for SnapshotError {
    fn from(kind: Kind) -> Self {
        SnapshotError { kind, offered: None }
    }
}

impl fmt::Display for SnapshotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.kind, f)?;
        match self.offered {
            Some(cut) => write!(f, "; the newest snapshot that is whole is that of cut {cut}"),
            None => Ok(()),
        }
    }
}

impl StdError for SnapshotError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.kind.source()
    }
}

/// What a store said, and what caused that, as text: it is told on other workers as well.
#[derive(Clone, Debug, thiserror::Error, Serialize, Deserialize)]
#[error("{0}")]
pub(super) struct Cause(String);

impl Cause {
    pub(super) fn of(error: &dyn StdError) -> Self {
        Cause(chain(error))
    }
}

#[derive(Clone, Debug, thiserror::Error, Serialize, Deserialize)]
pub(super) enum Kind {
    #[error("the snapshot store \"{url}\" cannot be opened: {why}")]
    Url { url: String, why: String },
    #[error("\"{file}\" is missing")]
    Missing { file: String },
    #[error("\"{file}\" is damaged: {why}")]
    Damaged { file: String, why: String },
    #[error("\"{file}\" has format version {found}, and this program reads up to {known}")]
    NewerVersion { file: String, found: u32, known: u32 },
    #[error("\"{file}\" belongs to {what} \"{found}\", not to \"{expected}\"")]
    Foreign { file: String, what: String, found: String, expected: String },
    #[error("execution {execution} is fenced: a newer execution wrote \"{file}\"")]
    Fenced { execution: u64, file: String },
    #[error("an older execution that still runs has just written \"{file}\"")]
    Overtaken { file: String },
    #[error("there is no snapshot of cut {cut}")]
    NoSuchCut { cut: u64 },
    #[error("there is no snapshot that a program would go on from")]
    NoSnapshot,
    #[error("there is no savepoint \"{name}\"")]
    NoSuchSavepoint { name: String },
    #[error("there is a savepoint \"{name}\" already")]
    SavepointTaken { name: String },
    #[error("savepoint \"{name}\" is not taken: {why}")]
    NotTaken { name: String, why: String },
    #[error("cut {cut} is not committed: {why}")]
    Refused { cut: u64, why: String },
    #[error("cut {cut} is abandoned")]
    Abandoned { cut: u64 },
    #[error("the runtime has shut down")]
    RuntimeGone,
    #[error("the store failed to {what} \"{file}\"")]
    Store {
        what: String,
        file: String,
        /// Whether another attempt may succeed.
        passing: bool,
        #[source]
        source: Cause,
    },
}

impl SnapshotError {
    pub(super) fn damaged(file: &str, why: impl Into<String>) -> Self {
        Kind::Damaged { file: file.to_owned(), why: why.into() }.into()
    }

    pub(super) fn missing(file: &str) -> Self {
        Kind::Missing { file: file.to_owned() }.into()
    }

    /// A savepoint came to nothing.
    pub(crate) fn not_taken(name: &str, why: impl Into<String>) -> Self {
        Kind::NotTaken { name: name.to_owned(), why: why.into() }.into()
    }

    /// The runtime ended before an answer came.
    pub(crate) fn runtime_is_gone() -> Self {
        Kind::RuntimeGone.into()
    }

    /// The URL names no store that this program was built for, or one that cannot be opened.
    pub fn is_invalid_url(&self) -> bool {
        matches!(self.kind, Kind::Url { .. })
    }

    /// A file that should be there is not.
    pub fn is_missing(&self) -> bool {
        matches!(self.kind, Kind::Missing { .. })
    }

    /// A file is not what was written: cut short, changed, or put in the place of another.
    pub fn is_damaged(&self) -> bool {
        matches!(self.kind, Kind::Damaged { .. })
    }

    /// A file was written by a newer version of this library, which must be used to read it.
    pub fn is_newer_version(&self) -> bool {
        matches!(self.kind, Kind::NewerVersion { .. })
    }

    /// The store belongs to another program, or to one that is built in another way.
    pub fn is_foreign(&self) -> bool {
        matches!(self.kind, Kind::Foreign { .. })
    }

    /// A newer execution has taken the store over. This one must stop; nothing of what it did since
    /// its last commit counts.
    pub fn is_fenced(&self) -> bool {
        matches!(self.kind, Kind::Fenced { .. })
    }

    /// An older execution has just committed a cut where this one was to begin.
    pub(super) fn is_overtaken(&self) -> bool {
        matches!(self.kind, Kind::Overtaken { .. })
    }

    /// There is no snapshot of the cut that was asked for.
    pub fn is_no_such_cut(&self) -> bool {
        matches!(self.kind, Kind::NoSuchCut { .. })
    }

    /// There is no snapshot yet, or the execution before began without one.
    pub fn is_no_snapshot(&self) -> bool {
        matches!(self.kind, Kind::NoSnapshot)
    }

    /// There is no savepoint of the name that was asked for.
    pub fn is_no_such_savepoint(&self) -> bool {
        matches!(self.kind, Kind::NoSuchSavepoint { .. })
    }

    /// There is a savepoint of the name that another one was to get.
    pub fn is_savepoint_taken(&self) -> bool {
        matches!(self.kind, Kind::SavepointTaken { .. })
    }

    /// A cut was to be committed that does not follow from what is committed.
    pub fn is_refused(&self) -> bool {
        matches!(self.kind, Kind::Refused { .. })
    }

    /// What was asked for belongs to a cut that was given up.
    pub fn is_abandoned(&self) -> bool {
        matches!(self.kind, Kind::Abandoned { .. } | Kind::NotTaken { .. })
    }

    /// The store itself failed: it cannot be reached, is out of space, or refuses access. What was
    /// asked of it may have happened nevertheless.
    pub fn is_unavailable(&self) -> bool {
        matches!(self.kind, Kind::Store { .. })
    }

    /// The cut of the newest snapshot that is whole, where what was wanted is not. It is restored if it
    /// is [asked for](crate::RestoreFrom).
    pub fn offered(&self) -> Option<u64> {
        self.offered
    }

    pub(super) fn offering(self, cut: Option<u64>) -> Self {
        SnapshotError { offered: cut, ..self }
    }

    /// Whether the same may succeed when it is tried again.
    pub(super) fn is_passing(&self) -> bool {
        matches!(self.kind, Kind::Store { passing: true, .. })
    }
}

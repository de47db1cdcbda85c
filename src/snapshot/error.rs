//! What can be wrong with a store of snapshots, or with what it holds.

use std::error::Error as StdError;
use std::sync::Arc;

/// A store of snapshots failed, or holds something that cannot be used.
///
/// The message names the file and the reason; what kind of error it is, is asked with the
/// predicates. What the store itself said is the [`source`](StdError::source).
#[derive(Clone, Debug, thiserror::Error)]
#[error(transparent)]
pub struct SnapshotError(#[from] pub(super) Kind);

#[derive(Clone, Debug, thiserror::Error)]
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
    Foreign { file: String, what: &'static str, found: String, expected: String },
    #[error("execution {execution} is fenced: a newer execution wrote \"{file}\"")]
    Fenced { execution: u64, file: String },
    #[error("there is no snapshot of cut {cut}")]
    NoSuchCut { cut: u64 },
    #[error("cut {cut} is not committed: {why}")]
    Refused { cut: u64, why: String },
    #[error("cut {cut} is abandoned")]
    Abandoned { cut: u64 },
    #[error("the store failed to {what} \"{file}\"")]
    Store {
        what: &'static str,
        file: String,
        /// Whether another attempt may succeed.
        passing: bool,
        #[source]
        source: Arc<dyn StdError + Send + Sync>,
    },
}

impl SnapshotError {
    pub(super) fn damaged(file: &str, why: impl Into<String>) -> Self {
        Kind::Damaged { file: file.to_owned(), why: why.into() }.into()
    }

    pub(super) fn missing(file: &str) -> Self {
        Kind::Missing { file: file.to_owned() }.into()
    }

    /// The URL names no store that this program was built for, or one that cannot be opened.
    pub fn is_invalid_url(&self) -> bool {
        matches!(self.0, Kind::Url { .. })
    }

    /// A file that should be there is not.
    pub fn is_missing(&self) -> bool {
        matches!(self.0, Kind::Missing { .. })
    }

    /// A file is not what was written: cut short, changed, or put in the place of another.
    pub fn is_damaged(&self) -> bool {
        matches!(self.0, Kind::Damaged { .. })
    }

    /// A file was written by a newer version of this library, which must be used to read it.
    pub fn is_newer_version(&self) -> bool {
        matches!(self.0, Kind::NewerVersion { .. })
    }

    /// The store belongs to another program, or to one that is built in another way.
    pub fn is_foreign(&self) -> bool {
        matches!(self.0, Kind::Foreign { .. })
    }

    /// A newer execution has taken the store over. This one must stop; nothing of what it did since
    /// its last commit counts.
    pub fn is_fenced(&self) -> bool {
        matches!(self.0, Kind::Fenced { .. })
    }

    /// There is no snapshot of the cut that was asked for.
    pub fn is_no_such_cut(&self) -> bool {
        matches!(self.0, Kind::NoSuchCut { .. })
    }

    /// A cut was to be committed that does not follow from what is committed.
    pub fn is_refused(&self) -> bool {
        matches!(self.0, Kind::Refused { .. })
    }

    /// What was asked for belongs to a cut that was given up.
    pub fn is_abandoned(&self) -> bool {
        matches!(self.0, Kind::Abandoned { .. })
    }

    /// The store itself failed: it cannot be reached, is out of space, or refuses access. What was
    /// asked of it may have happened nevertheless.
    pub fn is_unavailable(&self) -> bool {
        matches!(self.0, Kind::Store { .. })
    }

    /// Whether the same may succeed when it is tried again.
    pub(super) fn is_passing(&self) -> bool {
        matches!(self.0, Kind::Store { passing: true, .. })
    }
}

//! What can be wrong with an archive, with what it holds, or with what is to become one.

use std::error::Error as StdError;
use std::io;

use crate::snapshot::SnapshotError;

/// A snapshot cannot be read or written offline.
///
/// The message names the file or the record and the reason; what kind of error it is, is asked with the
/// predicates. What caused it is the [`source`](StdError::source).
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct ArchiveError(#[from] pub(super) Kind);

#[derive(Debug, thiserror::Error)]
pub(super) enum Kind {
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    #[error("\"{file}\" is damaged at byte {at}: record {record} of {what} of bin {bin}: {why}")]
    Record { file: String, at: u64, what: String, bin: u32, record: u64, why: String },
    #[error("\"{file}\" is damaged: {why}")]
    File { file: String, why: String },
    #[error("records {first} and {second} are both {what}")]
    Duplicate { first: u64, second: u64, what: String },
    #[error("record {record} cannot be written: {why}")]
    Unwritable { record: u64, why: String },
    #[error("{what} {why}")]
    Invalid { what: String, why: String },
    #[error("{what} cannot be converted")]
    Conversion { what: String, source: Box<dyn StdError + Send + Sync> },
    #[error("the store has snapshots already, the newest of which is cut {cut}")]
    NotEmpty { cut: u64 },
    #[error("what is given cannot be read")]
    Input(#[source] Box<dyn StdError + Send + Sync>),
    #[error("records cannot be sorted in temporary files in \"{directory}\"")]
    Temporary { directory: String, source: io::Error },
    #[error("no runtime can be started")]
    Runtime(#[source] io::Error),
}

impl From<SnapshotError> for ArchiveError {
    fn from(error: SnapshotError) -> Self {
        Kind::Snapshot(error).into()
    }
}

impl ArchiveError {
    /// What is to be written could not be read, wherever it comes from.
    pub fn input(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Kind::Input(error.into()).into()
    }

    /// What was to be written [could not be read](Self::input).
    pub fn is_input(&self) -> bool {
        matches!(self.0, Kind::Input(_))
    }

    pub(super) fn invalid(what: impl Into<String>, why: impl Into<String>) -> Self {
        Kind::Invalid { what: what.into(), why: why.into() }.into()
    }

    /// A file is not what was written, or says what none says.
    pub fn is_damaged(&self) -> bool {
        match &self.0 {
            Kind::Record { .. } | Kind::File { .. } => true,
            Kind::Snapshot(error) => error.is_damaged(),
            _ => false,
        }
    }

    /// Two records say what the same piece of state is, or have the same token.
    pub fn is_duplicate(&self) -> bool {
        matches!(self.0, Kind::Duplicate { .. })
    }

    /// The numbers of the records that are at fault, in the order in which they were given, the first of
    /// all being 1: two of a [duplicate](Self::is_duplicate), or one that cannot be written.
    pub fn records(&self) -> Vec<u64> {
        match &self.0 {
            Kind::Duplicate { first, second, .. } => vec![*first, *second],
            Kind::Unwritable { record, .. } => vec![*record],
            _ => Vec::new(),
        }
    }

    /// What was to be written is no name, no value of its type, or nothing that a snapshot can have.
    pub fn is_invalid(&self) -> bool {
        matches!(self.0, Kind::Unwritable { .. } | Kind::Invalid { .. })
    }

    /// A function that changes records failed.
    pub fn is_conversion(&self) -> bool {
        matches!(self.0, Kind::Conversion { .. })
    }

    /// There are snapshots where a first one was to be written.
    pub fn is_not_empty(&self) -> bool {
        matches!(self.0, Kind::NotEmpty { .. })
    }

    /// Temporary files failed: there is no space, or no access.
    pub fn is_temporary(&self) -> bool {
        matches!(self.0, Kind::Temporary { .. })
    }

    /// What went wrong with the store, or with a file of it, if that is what did.
    pub fn snapshot_error(&self) -> Option<&SnapshotError> {
        match &self.0 {
            Kind::Snapshot(error) => Some(error),
            _ => None,
        }
    }
}

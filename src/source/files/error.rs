//! What can be wrong with a file that is read, and where.

use std::fmt;
use std::path::PathBuf;

/// What is wrong with a file, or with a record of it, and where that is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileError {
    /// The file.
    pub path: PathBuf,
    /// The line, counted from 1, on which what is wrong begins; `None` where the file cannot be read to count them.
    pub line: Option<u64>,
    /// The byte, counted from 0, at which it begins, or up to which the file was read.
    pub offset: u64,
    /// What is wrong.
    pub kind: FileErrorKind,
}

/// What is wrong with a file, or with a record of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FileErrorKind {
    /// There is no such file.
    #[error("it is missing")]
    Missing,
    /// The system does not let it be read.
    #[error("it cannot be read: {0}")]
    Unreadable(String),
    /// It has fewer bytes than were read of it, by now or before a restart.
    #[error("it has {bytes} bytes, fewer than were read")]
    Shrank {
        /// How many it has.
        bytes: u64,
    },
    /// It is another file than the one that was read, by now or before a restart.
    #[error("it is another file than was read")]
    Replaced,
    /// A record has more bytes than [it may](super::Files::record_bytes_max).
    #[error("a record is longer than {bytes_max} bytes")]
    TooLong {
        /// How many it may have.
        bytes_max: usize,
    },
    /// A line is no UTF-8.
    #[error("it is not UTF-8")]
    NotUtf8,
    /// A record is not of the format, or does not have what is expected.
    #[error("{0}")]
    Malformed(String),
}

impl FileErrorKind {
    /// Whether nothing more can be read of the file.
    pub(super) fn is_of_file(&self) -> bool {
        use FileErrorKind::{Missing, Replaced, Shrank, Unreadable};
        matches!(self, Missing | Unreadable(_) | Shrank { .. } | Replaced)
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let FileError { path, line, offset, kind } = self;
        write!(f, "file \"{}\"", path.display())?;
        match line {
            Some(line) => write!(f, ", line {line}, byte {offset}: {kind}"),
            None => write!(f, ", byte {offset}: {kind}"),
        }
    }
}

impl std::error::Error for FileError {}

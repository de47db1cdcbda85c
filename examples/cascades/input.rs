//! The lines of a call record file, and what a line must say to be a call.
//!
//! Nothing here knows which worker a line belongs to or what is found out about its call.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use serde::{Deserialize, Serialize};
use timely_statefun::Id;

/// A line as it was read.
#[derive(Clone, Debug)]
pub struct Line {
    /// Its number in the file, from 1. A call's id is the number of its line.
    pub number: u64,
    /// What it says, without the end of line.
    pub text: Vec<u8>,
    /// The latest start of the calls above it.
    pub clock: u64,
}

/// A call record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The number of its line.
    pub number: u64,
    /// The phone that called.
    pub caller: Id,
    /// The phone that was called.
    pub callee: Id,
    /// When it started, in seconds.
    pub start: u64,
    /// When it ended, in seconds.
    pub end: u64,
}

/// A line that is not a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejected {
    /// The number of the line.
    pub line: u64,
    /// What is wrong with it.
    pub wrong: Wrong,
}

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum Wrong {
    #[error("it is not UTF-8 text")]
    NotText,
    #[error("it has {0} fields where caller, callee, start and duration are wanted")]
    Fields(usize),
    #[error("the {field} \"{found}\" is not a whole number below 2^64")]
    NotANumber { field: String, found: String },
    #[error("a call of {duration} s from {start} ends out of range")]
    EndOutOfRange { start: u64, duration: u64 },
    #[error("it starts at {start}, before a call above it, which starts at {clock}")]
    OutOfOrder { start: u64, clock: u64 },
}

/// The lines of a file, without their ends.
pub fn lines(path: &Path) -> io::Result<impl Iterator<Item = io::Result<Vec<u8>>> + use<>> {
    Ok(BufReader::new(File::open(path)?).split(b'\n'))
}

impl Line {
    /// Whether the line is meant to say nothing: it is empty or a comment.
    pub fn is_silent(&self) -> bool {
        let text = self.text.trim_ascii_start();
        text.is_empty() || text.starts_with(b"#")
    }

    /// The call that the line records.
    pub fn parse(&self) -> Result<Call, Rejected> {
        let rejected = |wrong| Rejected { line: self.number, wrong };
        let text = std::str::from_utf8(&self.text).map_err(|_| rejected(Wrong::NotText))?;
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [caller, callee, start, duration] = fields[..] else {
            return Err(rejected(Wrong::Fields(fields.len())));
        };
        let number = |field: &str, found: &str| {
            let not_a_number =
                || Wrong::NotANumber { field: field.to_owned(), found: found.to_owned() };
            found.parse::<u64>().map_err(|_| rejected(not_a_number()))
        };
        let (start, duration) = (number("start", start)?, number("duration", duration)?);
        let Some(end) = start.checked_add(duration) else {
            return Err(rejected(Wrong::EndOutOfRange { start, duration }));
        };
        if start < self.clock {
            return Err(rejected(Wrong::OutOfOrder { start, clock: self.clock }));
        }
        let (caller, callee) = (Id::new(caller), Id::new(callee));
        Ok(Call { number: self.number, caller, callee, start, end })
    }
}

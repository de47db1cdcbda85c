//! What workers tell each other about cuts.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use timely_statefun_operators::Positions;

use super::savepoint::Outcome;
use super::{SetNumber, SnapshotCounts};
use crate::dead_letter::Reason;
use crate::snapshot::PartEntry;

/// What one worker tells another.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum News<T> {
    /// To worker 0: all that this worker has of a cut is stored, or why it never will be.
    Written { cut: u64, written: Result<Written<T>, Failure> },
    /// From worker 0 to all: what became of a cut.
    Fate(Fate),
    /// To worker 0: that was taken note of. The next cut may be announced when all have said so.
    Heard { cut: u64 },
    /// To worker 0: one of those that take a held egress has all of it up to a cut.
    Acknowledged { set: SetNumber, egress: u32, by: u32, cut: u64 },
    /// To worker 0: a snapshot is wanted.
    Asked,
    /// To worker 0: one is wanted that is aligned to the frontier of these times.
    AskedAligned(Vec<T>),
    /// To worker 0: a savepoint is wanted, which the asking worker knows by a number.
    Savepoint { number: u64, name: String, stops: bool },
    /// From worker 0 to all: what became of the savepoint that this worker knows by this number.
    Saved { worker: usize, number: u64, outcome: Outcome<T> },
    /// From worker 0 to all: the program must stop.
    Stop(Reason),
}

/// What one worker has of a cut.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Written<T> {
    pub(super) parts: Vec<PartEntry>,
    pub(super) positions: BTreeMap<String, Positions>,
    pub(super) latest: Vec<T>,
    pub(super) complete: Vec<T>,
    /// The time at which events happened, the latest of all sets.
    pub(super) events: Option<T>,
    /// If the cut is aligned to a frontier, whether all gates could keep to it.
    pub(super) aligned: Option<bool>,
    pub(super) counts: SnapshotCounts,
}

/// Why a worker cannot write its part of a cut.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Failure {
    pub(super) why: String,
    /// Whether it could write a full one.
    pub(super) wants_full: bool,
}

/// What became of a cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::dataflow) struct Fate {
    pub(in crate::dataflow) cut: u64,
    /// Whether it is durable. It is given up otherwise.
    pub(in crate::dataflow) committed: bool,
    /// What the next cut is an increment of; `None` if it is full.
    pub(super) base: Option<u64>,
}

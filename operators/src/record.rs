//! What travels on the edges of a loop.
//!
//! A record carries its own ingress time. The batch it travels in may be earlier, because one batch
//! carries records of many times; nothing reads a record's time off its batch.

use serde::{Deserialize, Serialize};

/// A message on its way from one worker of the loop to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record<T, M> {
    pub(crate) time: T,
    /// The worker that sent it and waits to hear that it arrived.
    pub(crate) from: u32,
    pub(crate) message: M,
}

/// A message on its way from a gate to the loop, with the gate that waits for it to be handled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Admitted<T, M> {
    pub(crate) time: T,
    pub(crate) gate: GateAddress,
    pub(crate) message: M,
}

/// One gate of one worker.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct GateAddress {
    pub(crate) worker: u32,
    pub(crate) gate: u32,
}

/// What the workers of a loop tell each other about the loop itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Signal<T, F> {
    /// `records` that the gate admitted for worker `by` have been handled there.
    Credit { gate: u32, by: u32, records: usize },
    /// `records` that the worker sent to worker `by` have arrived there.
    Arrived { by: u32, records: usize },
    /// Worker `by` holds too much: no gate may admit anything, but for records up to a time, in `Ord`,
    /// that it cannot go on without.
    Pause { by: u32, up_to: Option<T> },
    /// Worker `by` has room again.
    Resume { by: u32 },
    /// Worker `by` begins or ceases to have gates hold back messages of a class.
    Class { by: u32, class: u32, held_back: bool },
    /// The loop has stopped.
    Stop(F),
}

/// A signal and the worker it is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Addressed<T, F> {
    pub(crate) worker: u32,
    pub(crate) signal: Signal<T, F>,
}

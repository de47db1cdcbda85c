//! What travels on the edges of a loop.
//!
//! A record carries its own ingress time. The batch it travels in may be earlier, because one batch
//! carries records of many times; nothing reads a record's time off its batch.

use serde::{Deserialize, Serialize};
use timely::ExchangeData;
use timely::progress::Timestamp;

use crate::crossing::Crossing;

/// A message on its way from one worker of the loop to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record<T, M> {
    pub(crate) time: T,
    /// The worker that sent it and waits to hear that it arrived.
    pub(crate) from: u32,
    pub(crate) message: M,
}

impl<T: Timestamp, M: ExchangeData> Crossing for Record<T, M> {
    type Head = (T, u32);
    type Message = M;

    fn head(&self) -> (T, u32) {
        (self.time.clone(), self.from)
    }

    fn message(&self) -> &M {
        &self.message
    }

    #[inline]
    fn has(&self, (time, from): &(T, u32)) -> bool {
        self.from == *from && self.time == *time
    }

    #[inline]
    fn new((time, from): &(T, u32), message: M) -> Self {
        Record { time: time.clone(), from: *from, message }
    }
}

/// A message on its way from a gate to the loop, with the gate that waits for it to be handled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Admitted<T, M> {
    pub(crate) time: T,
    pub(crate) gate: GateAddress,
    pub(crate) message: M,
}

impl<T: Timestamp, M: ExchangeData> Crossing for Admitted<T, M> {
    type Head = (T, GateAddress);
    type Message = M;

    fn head(&self) -> (T, GateAddress) {
        (self.time.clone(), self.gate)
    }

    fn message(&self) -> &M {
        &self.message
    }

    #[inline]
    fn has(&self, (time, gate): &(T, GateAddress)) -> bool {
        self.gate == *gate && self.time == *time
    }

    #[inline]
    fn new((time, gate): &(T, GateAddress), message: M) -> Self {
        Admitted { time: time.clone(), gate: *gate, message }
    }
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

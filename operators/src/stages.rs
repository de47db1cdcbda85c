//! Messages in the order of time: each waits until nothing earlier can come.
//!
//! A [`Stage`] is an ingress time and a depth, the number of messages that led to a message. Stages
//! are handled in their order, whole, once the frontiers show that no message of this stage or an
//! earlier one can arrive. A worker's own messages go through the same: what is sent at one depth
//! is handled at the next, here as elsewhere.

use std::collections::BTreeMap;

use timely::order::Product;
use timely::progress::Timestamp;
use timely::progress::frontier::{AntichainRef, MutableAntichain};

use crate::flow::Waiting;
use crate::gate::LoopTime;
use crate::record::GateAddress;

/// An ingress time and a depth. Where messages are handled as they arrive, all depths count as 0.
pub(crate) type Stage<T> = Product<T, u64>;

/// A message that waits for its stage.
pub(crate) struct Staged<M> {
    /// The gate it came through, number and worker; those that functions sent have none.
    pub(crate) gate: Option<(u32, u32)>,
    pub(crate) waiting: Waiting<M>,
}

impl<M> Staged<M> {
    /// One that came through a gate.
    pub(crate) fn admitted(gate: GateAddress, waiting: Waiting<M>) -> Self {
        Staged { gate: Some((gate.gate, gate.worker)), waiting }
    }

    /// One that did not.
    pub(crate) fn sent(waiting: Waiting<M>) -> Self {
        Staged { gate: None, waiting }
    }
}

/// The messages of one worker that wait for their stage.
pub(crate) struct Stages<T: Timestamp, M> {
    waiting: BTreeMap<Stage<T>, Vec<Staged<M>>>,
    messages: usize,
    /// The times of ingress records that were not handled yet.
    records: MutableAntichain<T>,
    /// The stage that is being handled, and how many of its messages are ingress records.
    open: Option<(Stage<T>, i64)>,
}

impl<T: Timestamp, M> Stages<T, M> {
    pub(crate) fn new() -> Self {
        let records = MutableAntichain::new();
        Stages { waiting: BTreeMap::new(), messages: 0, records, open: None }
    }

    /// How many messages wait for their stage.
    pub(crate) fn len(&self) -> usize {
        self.messages
    }

    pub(crate) fn push(&mut self, stage: Stage<T>, staged: Staged<M>) {
        if staged.gate.is_some() {
            self.records.update_iter(std::iter::once((stage.outer.clone(), 1)));
        }
        self.messages += 1;
        self.waiting.entry(stage).or_default().push(staged);
    }

    /// Gives out the first stage if no message of it can arrive any more.
    pub(crate) fn open_next(&mut self, bound: Option<&Stage<T>>) -> Option<Vec<Staged<M>>> {
        self.close();
        let first = self.waiting.first_entry()?;
        if bound.is_some_and(|bound| first.key() >= bound) {
            return None;
        }
        let (stage, messages) = first.remove_entry();
        self.messages -= messages.len();
        let records = messages.iter().filter(|staged| staged.gate.is_some()).count();
        self.open = Some((stage, records as i64));
        Some(messages)
    }

    /// Notes that the open stage has been handled. Says whether there was one.
    pub(crate) fn close(&mut self) -> bool {
        let Some((stage, records)) = self.open.take() else { return false };
        if records > 0 {
            self.records.update_iter(std::iter::once((stage.outer, -records)));
        }
        true
    }

    /// The minimal times of ingress records that were not handled yet.
    pub(crate) fn records(&self) -> AntichainRef<'_, T> {
        self.records.frontier()
    }

    /// The first ingress time, in `Ord`, that messages wait at.
    pub(crate) fn first_time(&self) -> Option<&T> {
        let open = self.open.as_ref().map(|(stage, _)| &stage.outer);
        open.or_else(|| self.waiting.keys().next().map(|stage| &stage.outer))
    }

    /// All that wait, in the order of their stages, and in each as they arrived.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Waiting<M>> {
        self.waiting.values().flatten().map(|staged| &staged.waiting)
    }
}

/// The first stage, in `Ord`, of which a message can still arrive, given the frontier of an input
/// whose messages have made `hops` more than their time says; `None` if nothing can arrive.
pub(crate) fn bound<'a, T: Timestamp>(
    frontier: impl Iterator<Item = &'a LoopTime<T>>,
    hops: u64,
    cuts: u64,
) -> Option<Stage<T>> {
    let stages = frontier.map(|time| {
        // Somebody who has taken fewer cuts will go on with fewer hops after the next, and the
        // frontier does not show those: only that the ingress time is not over.
        let depth = if time.inner.cuts >= cuts { time.inner.hops + hops } else { 0 };
        Product::new(time.outer.clone(), depth)
    });
    stages.min()
}

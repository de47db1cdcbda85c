//! Messages in the order of time: each waits until nothing earlier can come.
//!
//! A [`Stage`] is an ingress time and a depth, the number of messages that led to a message. Stages
//! are handled in their order, whole, once the frontiers show that no message of this stage or an
//! earlier one can arrive. A worker's own messages go through the same: what is sent at one depth
//! is handled at the next, here as elsewhere.
//!
//! A cut marks all that waits by the number of messages that each stage had: a stage notes it when
//! the first message comes after the cut. A walk goes through the stages in their order.

use std::collections::BTreeMap;
use std::ops::{Bound, Range};

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
    /// Whether it must be handed over to a cut: known once its stage is open.
    pub(crate) marked: bool,
    pub(crate) waiting: Waiting<M>,
}

impl<M> Staged<M> {
    /// One that came through a gate.
    pub(crate) fn admitted(gate: GateAddress, waiting: Waiting<M>) -> Self {
        Staged { gate: Some((gate.gate, gate.worker)), marked: false, waiting }
    }

    /// One that did not.
    pub(crate) fn sent(waiting: Waiting<M>) -> Self {
        Staged { gate: None, marked: false, waiting }
    }
}

/// The messages that wait for one stage, as they came.
struct Bucket<M> {
    messages: Vec<Staged<M>>,
    /// The last cut that was taken when the last message came.
    cut: u64,
    /// How many of the messages were there when that cut was taken.
    marked: usize,
}

impl<M> Bucket<M> {
    /// How many of the messages, from the first, were there when a cut was taken, the last there was.
    fn marked(&self, cut: u64) -> usize {
        if self.cut < cut { self.messages.len() } else { self.marked }
    }
}

/// Where the walk for a cut has come to.
struct StageWalk<T> {
    cut: u64,
    /// Marked messages that were not handed over.
    left: usize,
    /// The stage it is in, or was last in.
    at: Bound<Stage<T>>,
    /// Messages of the stage it is in that were handed over.
    told: usize,
}

/// The messages of one worker that wait for their stage.
pub(crate) struct Stages<T: Timestamp, M> {
    waiting: BTreeMap<Stage<T>, Bucket<M>>,
    messages: usize,
    /// The times of ingress records that were not handled yet.
    records: MutableAntichain<T>,
    /// The stage that is being handled, and how many of its messages are ingress records.
    open: Option<(Stage<T>, i64)>,
    walk: StageWalk<T>,
}

impl<T: Timestamp, M> Stages<T, M> {
    pub(crate) fn new() -> Self {
        let records = MutableAntichain::new();
        let walk = StageWalk { cut: 0, left: 0, at: Bound::Unbounded, told: 0 };
        Stages { waiting: BTreeMap::new(), messages: 0, records, open: None, walk }
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
        let cut = self.walk.cut;
        let empty = || Bucket { messages: Vec::new(), cut, marked: 0 };
        let bucket = self.waiting.entry(stage).or_insert_with(empty);
        if bucket.cut < cut {
            (bucket.marked, bucket.cut) = (bucket.messages.len(), cut);
        }
        bucket.messages.push(staged);
    }

    /// Gives out the first stage if no message of it can arrive any more. What of it must be handed
    /// over to a cut is marked: the walk leaves that to whoever has the messages now.
    pub(crate) fn open_next(&mut self, bound: Option<&Stage<T>>) -> Option<Vec<Staged<M>>> {
        self.close();
        let first = self.waiting.first_entry()?;
        if bound.is_some_and(|bound| first.key() >= bound) {
            return None;
        }
        let (stage, bucket) = first.remove_entry();
        let marked = self.walk.leave(&stage, &bucket);
        let mut messages = bucket.messages;
        messages[marked].iter_mut().for_each(|staged| staged.marked = true);
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

    /// All that wait, by stage.
    #[cfg(test)]
    pub(crate) fn list(&self) -> impl Iterator<Item = (&Stage<T>, &[Staged<M>])> {
        self.waiting.iter().map(|(stage, bucket)| (stage, &bucket.messages[..]))
    }

    /// Marks all that wait for a cut, whatever was marked before.
    pub(crate) fn begin_walk(&mut self, cut: u64) {
        self.walk = StageWalk { cut, left: self.messages, at: Bound::Unbounded, told: 0 };
    }

    /// Whether marked messages wait that were not handed over.
    pub(crate) fn walk_is_on(&self) -> bool {
        self.walk.left > 0
    }

    /// Up to `most` marked messages that come next in the walk, all of one stage; there are none if
    /// it passes over a stage. `sort` puts messages of one stage in the order they will be handled in.
    pub(crate) fn advance_walk(
        &mut self,
        most: usize,
        sort: impl FnOnce(&mut [Staged<M>]),
    ) -> Option<(&Stage<T>, &[Staged<M>])> {
        let walk = &mut self.walk;
        if walk.left == 0 {
            return None;
        }
        let rest = (walk.at.as_ref(), Bound::Unbounded);
        let next = self.waiting.range_mut::<Stage<T>, _>(rest).next();
        let (stage, bucket) = next.expect("what is left of the walk waits for a stage");
        let marked = bucket.marked(walk.cut);
        if walk.told == 0 {
            // The sort is stable: the order it will make of these together with later ones is the same.
            sort(&mut bucket.messages[..marked]);
        }
        let range = walk.told..marked.min(walk.told.saturating_add(most));
        walk.left -= range.len();
        if range.end == marked {
            (walk.at, walk.told) = (Bound::Excluded(stage.clone()), 0);
        } else {
            (walk.at, walk.told) = (Bound::Included(stage.clone()), range.end);
        }
        Some((stage, &bucket.messages[range]))
    }
}

impl<T: Timestamp> StageWalk<T> {
    /// Leaves out a stage, the first of all. Says which of its messages must still be handed over.
    fn leave<M>(&mut self, stage: &Stage<T>, bucket: &Bucket<M>) -> Range<usize> {
        if self.left == 0 {
            return 0..0;
        }
        let marked = bucket.marked(self.cut);
        let told = match &self.at {
            Bound::Included(at) if at == stage => std::mem::take(&mut self.told),
            // The walk has passed it, or it was begun since.
            Bound::Included(at) | Bound::Excluded(at) if stage <= at => marked,
            _ => 0,
        };
        self.left -= marked - told;
        told..marked
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

//! What is counted of messages: plain integers, which whoever measures reads from time to time.
//!
//! Nothing here knows to whom the numbers are told, and nothing looks at a clock. Totals begin at zero with
//! each execution. What there is now is counted where it comes and goes, also when it is brought back from a
//! snapshot, so it needs no repair.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;

use super::{Dispatcher, TypeIndex};
use crate::address::TypeName;
use crate::placement::{BINS, bin};

/// What has happened to the messages of one function type on one worker.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Messages that came to it, each once however often it is tried.
    pub(crate) received: u64,
    /// Messages that it sent to this worker, and to others, without a delay.
    pub(crate) sent_here: u64,
    pub(crate) sent_away: u64,
    /// Records that it emitted.
    pub(crate) emitted: u64,
    /// Invocations that failed, and answers that could not be done.
    pub(crate) failures: u64,
    /// Attempts at calls that failed.
    pub(crate) call_failures: u64,
    /// How many messages went together in a call, each with how often that was, since somebody took it. There
    /// are no more of them than a batch may have messages.
    batches: BTreeMap<usize, u64>,
    /// Messages that were given up, by what became of them and why.
    ended: BTreeMap<(Ended, &'static str), u64>,
}

/// What became of a message that was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Ended {
    DeadLetter,
    Skipped,
}

impl Counts {
    pub(super) fn note_batch(&mut self, messages: usize) {
        *self.batches.entry(messages).or_default() += 1;
    }

    pub(super) fn note_ended(&mut self, how: Ended, why: &'static str) {
        *self.ended.entry((how, why)).or_default() += 1;
    }

    /// Takes the sizes of batches since the last time, each with how often it was.
    pub(crate) fn take_batches(&mut self) -> BTreeMap<usize, u64> {
        std::mem::take(&mut self.batches)
    }

    /// How many messages were given up, by what became of them and why.
    pub(crate) fn ended(&self) -> impl Iterator<Item = (Ended, &'static str, u64)> + '_ {
        self.ended.iter().map(|((how, why), count)| (*how, *why, *count))
    }
}

/// What there is now of one function type on one worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Present {
    /// Messages that wait for a call, not those that are in one.
    pub(crate) backlog: usize,
    /// Addresses for which as many wait as one call takes, or more.
    pub(crate) blocked: usize,
    /// Calls under way.
    pub(crate) calls: usize,
    /// Messages that wait for another attempt, or behind one that does.
    pub(crate) retrying: usize,
    /// Asynchronous operations under way, or waiting for their turn.
    pub(crate) operations: usize,
    /// Delayed messages for it that wait here.
    pub(crate) delayed: usize,
}

impl std::ops::AddAssign for Present {
    fn add_assign(&mut self, other: Self) {
        self.backlog += other.backlog;
        self.blocked += other.blocked;
        self.calls += other.calls;
        self.retrying += other.retrying;
        self.operations += other.operations;
        self.delayed += other.delayed;
    }
}

/// How many there are now, by function type.
#[derive(Debug, Default)]
pub(super) struct Tally(Vec<usize>);

impl Tally {
    pub(super) fn add(&mut self, of: TypeIndex, more: usize) {
        let at = of as usize;
        if self.0.len() <= at {
            self.0.resize(at + 1, 0);
        }
        self.0[at] += more;
    }

    pub(super) fn remove(&mut self, of: TypeIndex, fewer: usize) {
        self.0[of as usize] -= fewer;
    }

    /// Counts `now` where `before` was counted.
    pub(super) fn replace(&mut self, of: TypeIndex, before: usize, now: usize) {
        if before != now {
            self.add(of, now);
            self.remove(of, before);
        }
    }

    pub(super) fn of(&self, of: TypeIndex) -> usize {
        self.0.get(of as usize).copied().unwrap_or(0)
    }
}

/// How many messages each bin had handled on one worker. Clones are the same.
#[derive(Clone)]
pub(crate) struct Loads(Rc<[Cell<u32>]>, Rc<[Cell<u32>]>);

impl Default for Loads {
    /// 16 KiB stay in a processor's first cache beside what a message needs, and 32 KiB would not: where a
    /// number wraps around is noted elsewhere.
    fn default() -> Self {
        let none = || (0..BINS).map(|_| Cell::new(0)).collect();
        Loads(none(), none())
    }
}

impl Loads {
    #[inline]
    pub(super) fn note(&self, hash: u64) {
        let Loads(low, high) = self;
        let at = bin(hash) as usize;
        let count = low[at].get().wrapping_add(1);
        low[at].set(count);
        if count == 0 {
            high[at].set(high[at].get() + 1);
        }
    }

    /// The total of each bin.
    pub(crate) fn totals(&self) -> impl Iterator<Item = u64> + '_ {
        let Loads(low, high) = self;
        let both = low.iter().zip(high.iter());
        both.map(|(low, high)| u64::from(high.get()) << 32 | u64::from(low.get()))
    }
}

impl<M, T, H> Dispatcher<M, T, H> {
    /// How many messages each bin has had.
    pub(crate) fn loads(&self) -> Loads {
        self.loads.clone()
    }

    /// How many records have left each egress, in the order in which they were bound, and then others.
    pub(crate) fn left_of_all(&self) -> &[u64] {
        self.egresses.left_of_all()
    }

    /// Shows what was counted of each function type that is bound, or that something was counted of.
    pub(crate) fn counted(
        &mut self,
        to: &mut dyn FnMut(TypeIndex, &TypeName, &mut Counts, Present),
    ) {
        for at in 0..self.names.len() {
            let index = at as TypeIndex;
            let present = Present {
                backlog: self.calls.backlog.of(index),
                blocked: self.calls.blocked.of(index),
                calls: self.calls.under_way.of(index),
                retrying: self.mailboxes.present.of(index),
                operations: self.operations.present.of(index),
                delayed: self.later.present.of(index),
            };
            // A type that something is to be sent to later may have had no message.
            let (mut none, entry) = (Counts::default(), self.entries.get_mut(at));
            let is_bound = entry.as_ref().is_some_and(|entry| entry.body.is_some());
            let counts = entry.map_or(&mut none, |entry| &mut entry.counts);
            let is_counted = counts.received > 0 || !counts.ended.is_empty();
            if is_bound || is_counted || present != Present::default() {
                to(index, self.names.known(index), counts, present);
            }
        }
    }
}

#[cfg(test)]
impl<M: 'static, T: Clone + PartialEq + 'static, H> Dispatcher<M, T, H> {
    /// Checks that what is told of what there is now is what there is.
    pub(super) fn check_counts(&mut self) {
        let mut found = BTreeMap::<TypeIndex, Present>::new();
        for (.., routed) in self.later.list() {
            found.entry(routed.head.target_type).or_default().delayed += 1;
        }
        for (_, (_, _, first, behind)) in self.mailboxes.list() {
            for (routed, _) in first.into_iter().chain(behind) {
                found.entry(routed.head.target_type).or_default().retrying += 1;
            }
        }
        for (routed, _) in self.operations.list() {
            found.entry(routed.head.target_type).or_default().operations += 1;
        }
        for (of, waiting, is_blocked, is_called) in self.calls.recount() {
            let found = found.entry(of).or_default();
            found.backlog += waiting;
            found.blocked += usize::from(is_blocked);
            found.calls += usize::from(is_called);
        }
        let mut told = BTreeMap::new();
        self.counted(&mut |index, _, _, present| {
            if present != Present::default() {
                told.insert(index, present);
            }
        });
        found.retain(|_, present| *present != Present::default());
        assert_eq!(told, found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bin_counts_on_where_its_number_wraps_around() {
        let loads = Loads::default();
        loads.0[7].set(u32::MAX - 1);
        let hash = 7 << (64 - BINS.trailing_zeros());
        (0..3).for_each(|_| loads.note(hash));
        loads.note(0);
        let loads: Vec<u64> = loads.clone().totals().collect();
        assert_eq!((loads[7], loads[0], loads.len()), ((1 << 32) + 1, 1, BINS as usize));
        assert_eq!(loads.iter().sum::<u64>(), (1 << 32) + 2);
    }

    #[test]
    fn a_tally_knows_what_is_there() {
        let mut tally = Tally::default();
        assert_eq!(tally.of(3), 0);
        tally.add(3, 2);
        tally.replace(3, 2, 5);
        tally.remove(3, 1);
        assert_eq!((tally.of(3), tally.of(0), tally.of(9)), (4, 0, 0));
    }
}

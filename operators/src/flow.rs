//! What a message that is being handled can reach of the engine: the queue, the records for other
//! workers, and the times that are alive.

use std::collections::VecDeque;

use timely::order::Product;
use timely::progress::frontier::MutableAntichain;
use timely::progress::{Antichain, Timestamp};

use crate::handler::{Held, Weight};
use crate::live_times::{LiveTimes, TimeIndex};
use crate::part::{Place, Places};
use crate::record::{GateAddress, Record};
use crate::stages::{Stage, Staged, Stages};

/// A message that waits to be handled.
pub(crate) struct Waiting<M> {
    pub(crate) time: TimeIndex,
    /// Whether it is an ingress record that was put off, so that the frontier waits for it.
    pub(crate) put_off: bool,
    pub(crate) message: M,
}

/// The part of the engine that a message being handled can reach through its [`Outbox`].
pub(crate) struct Flow<T: Timestamp, M> {
    pub(crate) queue: VecDeque<Waiting<M>>,
    pub(crate) away: Vec<Record<T, M>>,
    pub(crate) refused: Vec<M>,
    pub(crate) times: LiveTimes<Stage<T>>,
    /// Where messages wait that are handled in the order of time; none if in that of arrival.
    pub(crate) stages: Option<Stages<T, M>>,
    /// What the message that is being handled sent to this worker, where it must be staged.
    pub(crate) staged: Vec<M>,
    /// The frontier that handlers see: it waits for what arrived before it moved.
    pub(crate) frontier: Antichain<T>,
    /// What that frontier would be if no ingress record had been put off.
    pub(crate) passed: Antichain<T>,
    /// The times of ingress records that were put off.
    pub(crate) put_off: MutableAntichain<T>,
    /// The ingress frontier as it is now.
    pub(crate) ingress: Antichain<T>,
    /// What it was before it became empty.
    pub(crate) last_ingress: Antichain<T>,
    /// The time at which events happened when a restored cut was taken: none happens before it.
    pub(crate) not_before: Option<T>,
    /// The time of new events after all ingress has closed, kept alive for them.
    pub(crate) kept: Option<TimeIndex>,
    /// Messages that come before all that wait, in order.
    pub(crate) first: Vec<Waiting<M>>,
    /// Messages pushed to the end of the queue by a poll.
    pub(crate) polled: u64,
    /// Things that are waited for with a time held for them.
    pub(crate) held: usize,
    /// Messages that may be taken in by a poll.
    pub(crate) budget: usize,
    pub(crate) route: fn(&M) -> u64,
    pub(crate) weight: Option<Weight<M>>,
    /// Bytes by `weight`; unused where every message weighs the same.
    pub(crate) weighed: usize,
    pub(crate) bytes_hard: usize,
    pub(crate) worker: u64,
    pub(crate) peers: u64,
    /// Records sent to each worker of which it is not known that they have arrived.
    pub(crate) under_way: Vec<usize>,
}

impl<T: Timestamp, M> Flow<T, M> {
    pub(crate) fn time(&self, index: TimeIndex) -> &T {
        &self.times.time(index).outer
    }

    /// Where a message of the queue stands.
    pub(crate) fn place(&self, waiting: &Waiting<M>) -> Place<'_, T> {
        let Product { outer, inner } = self.times.time(waiting.time);
        // In the order of time, what no message led to is a record.
        let record = waiting.put_off || (self.stages.is_some() && *inner == 0);
        Place { time: outer, depth: *inner, record }
    }

    /// Where something stands that is held.
    pub(crate) fn place_of(&self, held: &Held) -> Place<'_, T> {
        Places { times: &self.times }.of(held)
    }

    pub(crate) fn frontier(&self) -> &[T] {
        self.frontier.elements()
    }

    /// Sends a message. Says whether it stays on this worker.
    #[inline]
    pub(crate) fn send(&mut self, message: M, time: TimeIndex) -> bool {
        let target = if self.peers > 1 { (self.route)(&message) % self.peers } else { self.worker };
        #[cfg(statefun_planted)]
        let by_edge = crate::planted::takes_the_edge();
        #[cfg(not(statefun_planted))]
        let by_edge = false;
        if target != self.worker || by_edge {
            let time = self.time(time).clone();
            self.under_way[target as usize] += 1;
            self.away.push(Record { time, from: self.worker as u32, message });
            return false;
        }
        if self.bytes() >= self.bytes_hard {
            self.refused.push(message);
        } else if self.stages.is_some() {
            self.staged.push(message);
        } else {
            self.push(message, time);
        }
        true
    }

    /// The least time, in `Ord`, at which anything can still leave here: of what is alive, and of what may come.
    pub(crate) fn earliest(&self) -> Option<&T> {
        let live = self.times.minimal().iter().map(|stage| &stage.outer);
        live.chain(self.ingress.elements()).min()
    }

    /// Stages a message that came at a stage, which it keeps alive.
    pub(crate) fn stage(&mut self, stage: Stage<T>, gate: Option<GateAddress>, message: M) {
        self.stage_waiting(stage, gate, false, message);
    }

    fn stage_waiting(
        &mut self,
        stage: Stage<T>,
        gate: Option<GateAddress>,
        put_off: bool,
        message: M,
    ) {
        let stages = self.stages.as_mut().expect("messages are handled in the order of time");
        let index = self.times.index_of(&stage);
        self.times.add(index, 1);
        let waiting = Waiting { time: index, put_off, message };
        if let Some(weight) = &self.weight {
            self.weighed += weight(&waiting.message);
        }
        stages.push(
            stage,
            match gate {
                Some(gate) => Staged::admitted(gate, waiting),
                None => Staged::sent(waiting),
            },
        );
    }

    /// Queues or stages a message that stood at a place when a cut was taken.
    pub(crate) fn restore(&mut self, place: Place<'_, T>, message: M) {
        let target = (self.route)(&message) % self.peers;
        assert_eq!(target, self.worker, "a message is restored where it is not handled");
        let time = place.time.clone();
        if self.stages.is_some() {
            if place.record {
                self.put_off.update_iter(std::iter::once((time.clone(), 1)));
                self.look_at_put_off();
            }
            self.stage_waiting(Product::new(time, place.depth), None, place.record, message);
        } else {
            // The frontier that handlers see moves when all that waits has been handled: a record
            // needs no care.
            let index = self.times.index_of(&Product::new(time, 0));
            self.times.add(index, 1);
            self.polled += 1;
            self.push(message, index);
        }
    }

    pub(crate) fn restore_hold(&mut self, place: Place<'_, T>) -> Held {
        let depth = if self.stages.is_some() { place.depth } else { 0 };
        let index = self.times.index_of(&Product::new(place.time.clone(), depth));
        self.hold(index, place.record)
    }

    /// The stage of what is sent while a message of this time is handled.
    fn next_stage(&self, time: TimeIndex) -> Stage<T> {
        let Product { outer, inner } = self.times.time(time);
        Product::new(outer.clone(), inner + 1)
    }

    /// Stages what the message that was handled sent to this worker. Says how many messages.
    pub(crate) fn stage_sent(&mut self, time: TimeIndex) -> u64 {
        let messages = self.staged.len() as u64;
        if messages > 0 {
            let next = self.next_stage(time);
            let mut staged = std::mem::take(&mut self.staged);
            staged.drain(..).for_each(|message| self.stage(next.clone(), None, message));
            self.staged = staged;
        }
        messages
    }

    /// Stages what would have come before all others.
    fn stage_event(&mut self, time: TimeIndex, put_off: bool, message: M) {
        let next = self.next_stage(time);
        self.stage_waiting(next, None, put_off, message);
        self.times.finish_one(time);
    }

    #[inline]
    pub(crate) fn push(&mut self, message: M, time: TimeIndex) {
        self.push_waiting(Waiting { time, put_off: false, message });
    }

    #[inline]
    fn push_waiting(&mut self, waiting: Waiting<M>) {
        if let Some(weight) = &self.weight {
            self.weighed += weight(&waiting.message);
        }
        self.queue.push_back(waiting);
    }

    /// Puts what comes first before all that waits. Says how many that are.
    pub(crate) fn place_first(&mut self) -> u64 {
        let messages = self.first.len() as u64;
        while let Some(waiting) = self.first.pop() {
            if let Some(weight) = &self.weight {
                self.weighed += weight(&waiting.message);
            }
            self.queue.push_front(waiting);
        }
        messages
    }

    pub(crate) fn ingress(&self) -> &[T] {
        self.ingress.elements()
    }

    pub(crate) fn room(&self) -> usize {
        match self.bytes() < self.bytes_hard {
            true => self.budget.saturating_sub(self.queue.len()),
            false => 0,
        }
    }

    /// The time of an event that happens now, with work added to it.
    fn event_time(&mut self) -> TimeIndex {
        let index = match self.now().cloned() {
            Some(time) => self.times.index_of(&Product::new(time, 0)),
            None => self.kept.expect("after all ingress has closed, events are awaited"),
        };
        self.times.add(index, 1);
        index
    }

    /// The time at which events happen while there is ingress: the first, in `Ord`, that there can still be.
    ///
    /// A source that goes back after a restart begins with times that were over when the cut was taken. What
    /// events cause then must not overtake what the same senders had sent before.
    pub(crate) fn now(&self) -> Option<&T> {
        let ingress = self.ingress.elements();
        let not_before = self.not_before.as_ref();
        let not_before =
            not_before.filter(|first| ingress.iter().any(|time| time.less_equal(first)));
        not_before.or_else(|| ingress.iter().min())
    }

    /// The same, or the time that is kept for events after all ingress has closed.
    pub(crate) fn event_now(&self) -> Option<&T> {
        self.now().or_else(|| self.kept.map(|kept| self.time(kept)))
    }

    /// The stage at which events happen now.
    pub(crate) fn event_stage(&self) -> Option<Stage<T>> {
        let now = self.now();
        let now = now.map(|time| Product::new(time.clone(), 0));
        now.or_else(|| self.kept.map(|kept| self.times.time(kept).clone()))
    }

    pub(crate) fn event(&mut self, message: M) {
        let time = self.event_time();
        let target = if self.peers > 1 { (self.route)(&message) % self.peers } else { self.worker };
        if target == self.worker {
            if self.stages.is_some() {
                self.stage_event(time, false, message);
            } else {
                self.push(message, time);
                self.polled += 1;
            }
        } else {
            self.send(message, time);
            self.times.finish_one(time);
        }
    }

    pub(crate) fn event_first(&mut self, message: M) {
        let time = self.event_time();
        if self.stages.is_some() {
            self.stage_event(time, false, message);
        } else {
            self.first.push(Waiting { time, put_off: false, message });
        }
    }

    /// Makes sure that events can happen after all ingress has closed, at the last time there was,
    /// or at `time` if that is not before it.
    pub(crate) fn keep_event_time(&mut self, time: TimeIndex) {
        if self.ingress.is_empty() && self.kept.is_none() {
            let Product { outer, inner } = self.times.time(time);
            let last = self.last_ingress.elements().iter();
            let kept = last.filter(|last| outer.less_equal(last)).min().unwrap_or(outer).clone();
            // No less deep: what is handled now gives no right to that.
            self.keep(Product::new(kept, *inner));
        }
    }

    fn keep(&mut self, stage: Stage<T>) {
        let index = self.times.index_of(&stage);
        self.times.add(index, 1);
        self.kept = Some(index);
    }

    /// Notes the ingress frontier. If it has become empty and events are awaited, its last time is
    /// kept for them.
    pub(crate) fn note_ingress(&mut self, frontier: &Antichain<T>, events: bool) {
        let last = self.now().cloned();
        let before = std::mem::replace(&mut self.ingress, frontier.clone());
        if let Some(last) = last.filter(|_| frontier.is_empty()) {
            self.last_ingress = match self.not_before.as_ref() == Some(&last) {
                true => Antichain::from_elem(last.clone()),
                false => before,
            };
            if events {
                self.keep(Product::new(last, 0));
            }
        }
    }

    /// Gives the kept time back if no event is awaited any more.
    pub(crate) fn settle_events(&mut self, events: bool) {
        if !events && let Some(kept) = self.kept.take() {
            self.times.finish_one(kept);
        }
    }

    pub(crate) fn hold(&mut self, time: TimeIndex, record: bool) -> Held {
        self.times.add(time, 1);
        self.held += 1;
        if record {
            let one = std::iter::once((self.time(time).clone(), 1));
            self.put_off.update_iter(one);
            self.look_at_put_off();
        }
        Held { time, record }
    }

    pub(crate) fn hold_later(&mut self, held: TimeIndex, time: T) -> Held {
        let Product { outer, inner } = self.times.time(held);
        assert!(outer.less_equal(&time), "{time:?} is not at or after {outer:?}, which is held");
        let stage = Product::new(time, *inner);
        let index = self.times.index_of(&stage);
        self.hold(index, false)
    }

    /// Moves what is held behind something that is to be resumed, and of its ingress time, to the stage at which
    /// that comes back. Says whether it is not in the way then.
    pub(crate) fn let_pass(&mut self, first: &Held, behind: &mut Held) -> bool {
        if self.stages.is_none() {
            return true;
        }
        let next = self.next_stage(first.time);
        self.stand_at(next, behind)
    }

    /// Moves what is held behind what comes back from a place, and is of its ingress time, to the stage at which that
    /// comes back.
    pub(crate) fn stand_behind(&mut self, first: Place<'_, T>, behind: &mut Held) {
        if self.stages.is_some() {
            self.stand_at(Product::new(first.time.clone(), first.depth + 1), behind);
        }
    }

    /// Moves what is held to a stage, unless it stands there or later. Says whether it does now.
    fn stand_at(&mut self, next: Stage<T>, behind: &mut Held) -> bool {
        let now = self.times.time(behind.time);
        if *now >= next {
            return true;
        }
        if now.outer != next.outer {
            return false;
        }
        let later = self.times.index_of(&next);
        self.times.add(later, 1);
        self.times.finish_one(std::mem::replace(&mut behind.time, later));
        true
    }

    pub(crate) fn resume(&mut self, held: Held, message: M) {
        self.held -= 1;
        if self.stages.is_some() {
            return self.stage_event(held.time, held.record, message);
        }
        self.polled += 1;
        self.push_waiting(Waiting { time: held.time, put_off: held.record, message });
    }

    pub(crate) fn resume_first(&mut self, held: Held, message: M) {
        self.held -= 1;
        self.first.push(Waiting { time: held.time, put_off: held.record, message });
    }

    pub(crate) fn release(&mut self, held: Held) {
        self.held -= 1;
        if held.record {
            self.no_longer_put_off(held.time);
        }
        self.times.finish_one(held.time);
    }

    #[cold]
    pub(crate) fn no_longer_put_off(&mut self, time: TimeIndex) {
        let one = std::iter::once((self.time(time).clone(), -1));
        self.put_off.update_iter(one);
        self.look_at_put_off();
    }

    /// Makes the frontier that handlers see of what was passed and what was put off.
    pub(crate) fn look_at_put_off(&mut self) {
        if let Some(stages) = &self.stages {
            self.passed.clone_from(&self.ingress);
            self.passed.extend(stages.records().iter().cloned());
        }
        self.frontier.clone_from(&self.passed);
        for time in self.put_off.frontier().iter() {
            self.frontier.insert_ref(time);
        }
    }

    #[inline]
    pub(crate) fn pop(&mut self) -> Option<Waiting<M>> {
        let waiting = self.queue.pop_front()?;
        if let Some(weight) = &self.weight {
            self.weighed -= weight(&waiting.message);
        }
        Some(waiting)
    }

    /// Takes back what was sent since the queues had these lengths.
    pub(crate) fn take_back(&mut self, queued: usize, away: usize) {
        if let Some(weight) = &self.weight {
            self.weighed -= self.queue.range(queued..).map(|w| weight(&w.message)).sum::<usize>();
        }
        self.queue.truncate(queued);
        self.staged.clear();
        for record in self.away.drain(away..) {
            let target = (self.route)(&record.message) % self.peers;
            self.under_way[target as usize] -= 1;
        }
        self.refused.clear();
    }

    #[inline]
    pub(crate) fn bytes(&self) -> usize {
        match self.weight {
            Some(_) => self.weighed + self.held * size_of::<Waiting<M>>(),
            None => (self.waiting() + self.held) * size_of::<Waiting<M>>(),
        }
    }

    /// How many messages wait.
    #[inline]
    pub(crate) fn waiting(&self) -> usize {
        let staged = self.stages.as_ref().map_or(0, |stages| stages.len() + self.staged.len());
        self.queue.len() + staged
    }
}

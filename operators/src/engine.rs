//! One worker's part of a loop without its ports: the queue, the order things are handled in, and
//! what must be known about waiting messages.
//!
//! The engine never sees a capability or a channel. [`keyed_loop`](crate::keyed_loop) gives it what
//! arrived and asks it to run; it answers with records for other workers. Messages are handled in
//! the order they arrived or were sent, whatever their times: sorting by time would let a sender's
//! later message overtake an earlier one.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use timely::progress::frontier::MutableAntichain;
use timely::progress::{Antichain, Timestamp};

use crate::config::LoopConfig;
use crate::cuts::Cuts;
use crate::handler::{Awaits, Handler, Held, Inbox, Outbox, Verdict, Weight};
use crate::live_times::{LiveTimes, TimeIndex};
use crate::record::{Admitted, GateAddress, Record};

/// How many messages a handler is told of at once: as many as a processor can have cache misses under
/// way, a few times over.
const FORESEEN: usize = 32;

struct Waiting<M> {
    time: TimeIndex,
    /// Whether it is an ingress record that was put off, so that the frontier waits for it.
    put_off: bool,
    message: M,
}

/// What holds once everything before a point of the queue has been handled.
struct Milestone<T> {
    /// Messages handled by then, over the life of the engine.
    handled: u64,
    /// The ingress frontier, where it changed.
    frontier: Option<Antichain<T>>,
    /// Records by gate that will have been handled.
    credit: Vec<(GateAddress, usize)>,
}

/// The part of the engine that a message being handled can reach through its [`Outbox`].
pub(crate) struct Flow<T: Timestamp, M> {
    queue: VecDeque<Waiting<M>>,
    away: Vec<Record<T, M>>,
    refused: Vec<M>,
    times: LiveTimes<T>,
    /// The frontier that handlers see: it waits for what arrived before it moved.
    frontier: Antichain<T>,
    /// What that frontier would be if no ingress record had been put off.
    passed: Antichain<T>,
    /// The times of ingress records that were put off.
    put_off: MutableAntichain<T>,
    /// The ingress frontier as it is now.
    ingress: Antichain<T>,
    /// What it was before it became empty.
    last_ingress: Antichain<T>,
    /// The time of new events after all ingress has closed, kept alive for them.
    kept: Option<TimeIndex>,
    /// Messages that come before all that wait, in order.
    first: Vec<Waiting<M>>,
    /// Messages pushed to the end of the queue by a poll.
    polled: u64,
    /// Things that are waited for with a time held for them.
    held: usize,
    /// Messages that may be taken in by a poll.
    budget: usize,
    route: fn(&M) -> u64,
    weight: Option<Weight<M>>,
    /// Bytes by `weight`; unused where every message weighs the same.
    weighed: usize,
    bytes_hard: usize,
    worker: u64,
    peers: u64,
    /// Records sent to each worker of which it is not known that they have arrived.
    under_way: Vec<usize>,
}

impl<T: Timestamp, M> Flow<T, M> {
    pub(crate) fn time(&self, index: TimeIndex) -> &T {
        self.times.time(index)
    }

    pub(crate) fn frontier(&self) -> &[T] {
        self.frontier.elements()
    }

    #[inline]
    pub(crate) fn send(&mut self, message: M, time: TimeIndex) {
        let target = if self.peers > 1 { (self.route)(&message) % self.peers } else { self.worker };
        if target != self.worker {
            let time = self.times.time(time).clone();
            self.under_way[target as usize] += 1;
            self.away.push(Record { time, from: self.worker as u32, message });
        } else if self.bytes() >= self.bytes_hard {
            self.refused.push(message);
        } else {
            self.push(message, time);
        }
    }

    #[inline]
    fn push(&mut self, message: M, time: TimeIndex) {
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
    fn place_first(&mut self) -> u64 {
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
        let index = match self.ingress.elements().iter().min() {
            Some(time) => self.times.index_of(time),
            None => self.kept.expect("after all ingress has closed, events are awaited"),
        };
        self.times.add(index, 1);
        index
    }

    pub(crate) fn event(&mut self, message: M) {
        let time = self.event_time();
        let target = if self.peers > 1 { (self.route)(&message) % self.peers } else { self.worker };
        if target == self.worker {
            self.push(message, time);
            self.polled += 1;
        } else {
            self.send(message, time);
            self.times.finish_one(time);
        }
    }

    pub(crate) fn event_first(&mut self, message: M) {
        let time = self.event_time();
        self.first.push(Waiting { time, put_off: false, message });
    }

    /// Makes sure that events can happen after all ingress has closed, at the last time there was,
    /// or at `time` if that is not before it.
    pub(crate) fn keep_event_time(&mut self, time: TimeIndex) {
        if self.ingress.is_empty() && self.kept.is_none() {
            let time = self.times.time(time);
            let last = self.last_ingress.elements().iter();
            let kept = last.filter(|last| time.less_equal(last)).min().unwrap_or(time).clone();
            self.keep(&kept);
        }
    }

    fn keep(&mut self, time: &T) {
        let index = self.times.index_of(time);
        self.times.add(index, 1);
        self.kept = Some(index);
    }

    /// Notes the ingress frontier. If it has become empty and events are awaited, its last time is
    /// kept for them.
    fn note_ingress(&mut self, frontier: &Antichain<T>, events: bool) {
        let before = std::mem::replace(&mut self.ingress, frontier.clone());
        if frontier.is_empty() && !before.is_empty() {
            if events {
                let last = before.elements().iter().min().expect("it is not empty").clone();
                self.keep(&last);
            }
            self.last_ingress = before;
        }
    }

    /// Gives the kept time back if no event is awaited any more.
    fn settle_events(&mut self, events: bool) {
        if !events && let Some(kept) = self.kept.take() {
            self.times.finish_one(kept);
        }
    }

    pub(crate) fn hold(&mut self, time: TimeIndex, record: bool) -> Held {
        self.times.add(time, 1);
        self.held += 1;
        if record {
            let one = std::iter::once((self.times.time(time).clone(), 1));
            self.put_off.update_iter(one);
            self.look_at_put_off();
        }
        Held { time, record }
    }

    pub(crate) fn resume(&mut self, held: Held, message: M) {
        self.held -= 1;
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
    fn no_longer_put_off(&mut self, time: TimeIndex) {
        let one = std::iter::once((self.times.time(time).clone(), -1));
        self.put_off.update_iter(one);
        self.look_at_put_off();
    }

    /// Makes the frontier that handlers see of what was passed and what was put off.
    fn look_at_put_off(&mut self) {
        self.frontier.clone_from(&self.passed);
        for time in self.put_off.frontier().iter() {
            self.frontier.insert_ref(time);
        }
    }

    #[inline]
    fn pop(&mut self) -> Option<Waiting<M>> {
        let waiting = self.queue.pop_front()?;
        if let Some(weight) = &self.weight {
            self.weighed -= weight(&waiting.message);
        }
        Some(waiting)
    }

    /// Takes back what was sent since the queues had these lengths.
    fn take_back(&mut self, queued: usize, away: usize) {
        if let Some(weight) = &self.weight {
            self.weighed -= self.queue.range(queued..).map(|w| weight(&w.message)).sum::<usize>();
        }
        self.queue.truncate(queued);
        for record in self.away.drain(away..) {
            let target = (self.route)(&record.message) % self.peers;
            self.under_way[target as usize] -= 1;
        }
        self.refused.clear();
    }

    #[inline]
    fn bytes(&self) -> usize {
        match self.weight {
            Some(_) => self.weighed + self.held * size_of::<Waiting<M>>(),
            None => (self.queue.len() + self.held) * size_of::<Waiting<M>>(),
        }
    }
}

/// What the engine counted since it was last asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) handled: u64,
    pub(crate) sent_here: u64,
    pub(crate) sent_away: u64,
    pub(crate) logged: u64,
}

pub(crate) struct Engine<T: Timestamp, H: Handler<T>> {
    pub(crate) handler: H,
    flow: Flow<T, H::Message>,
    pub(crate) cuts: Cuts,
    milestones: VecDeque<Milestone<T>>,
    /// Records that arrived from gates since the newest milestone.
    arrived: Vec<(GateAddress, usize)>,
    pushed: u64,
    handled: u64,
    /// Credit that may be given back.
    credit: Vec<(GateAddress, usize)>,
    counts: Counts,
    refused_on_arrival: bool,
    /// Scratch space of [`settle`](Self::settle).
    holding: Antichain<T>,
    /// Records that arrived from each worker and that it was not told of.
    arrived_from: Vec<usize>,
    /// How many such records make it worth telling.
    arrived_batch: usize,
    /// Whether this worker has asked the gates to pause.
    pausing: bool,
    config: LoopConfig,
    /// Records for other workers are shipped when there are this many.
    away_batch: usize,
}

impl<T: Timestamp, H: Handler<T>> Engine<T, H> {
    pub(crate) fn new(handler: H, config: LoopConfig, worker: usize, peers: usize) -> Self {
        let away_batch =
            timely::container::buffer::default_capacity::<Record<T, H::Message>>().max(1);
        Engine {
            flow: Flow {
                queue: VecDeque::new(),
                away: Vec::new(),
                refused: Vec::new(),
                times: LiveTimes::new(),
                frontier: Antichain::from_elem(T::minimum()),
                passed: Antichain::from_elem(T::minimum()),
                put_off: MutableAntichain::new(),
                ingress: Antichain::from_elem(T::minimum()),
                last_ingress: Antichain::new(),
                kept: None,
                first: Vec::new(),
                polled: 0,
                held: 0,
                budget: config.budget_messages,
                route: H::route,
                weight: handler.weight(),
                weighed: 0,
                bytes_hard: config.loop_bytes_hard,
                worker: worker as u64,
                peers: peers as u64,
                under_way: vec![0; peers],
            },
            handler,
            cuts: Cuts::default(),
            milestones: VecDeque::new(),
            arrived: Vec::new(),
            pushed: 0,
            handled: 0,
            credit: Vec::new(),
            counts: Counts::default(),
            refused_on_arrival: false,
            holding: Antichain::new(),
            arrived_from: vec![0; peers],
            arrived_batch: (config.loop_bytes_soft / 8 / size_of::<Record<T, H::Message>>())
                .clamp(1, 4096),
            pausing: false,
            config,
            away_batch,
        }
    }

    /// Takes cut `k` unless it was taken: the handler's state and what waits now are the cut's.
    pub(crate) fn take_cut(&mut self, k: u64) -> bool {
        if !self.cuts.take(k) {
            return false;
        }
        let flow = &self.flow;
        let mut waiting = flow.queue.iter().map(|w| (flow.times.time(w.time), &w.message));
        self.handler.take_cut(k, &mut waiting);
        true
    }

    /// Closes the next cut that nothing white can reach any more.
    pub(crate) fn close_cut(&mut self, lowest: Option<u64>) -> bool {
        let closed = self.cuts.close(lowest);
        if let Some(k) = closed {
            self.handler.complete_cut(k);
        }
        closed.is_some()
    }

    /// Queues records from the gates, sent by a worker that had taken `sender` cuts.
    pub(crate) fn receive_admitted(
        &mut self,
        sender: u64,
        records: &mut Vec<Admitted<T, H::Message>>,
    ) {
        for Admitted { time, gate, message } in records.drain(..) {
            match self.arrived.last_mut() {
                Some((last, count)) if *last == gate => *count += 1,
                _ => self.arrived.push((gate, 1)),
            }
            self.receive(sender, &time, message);
        }
    }

    /// Queues records from other workers. Those there is no room for are refused.
    #[must_use]
    pub(crate) fn receive_returned(
        &mut self,
        sender: u64,
        records: &mut Vec<Record<T, H::Message>>,
    ) -> Option<H::Failure> {
        for Record { time, from, message } in records.drain(..) {
            self.arrived_from[from as usize] += 1;
            if self.flow.bytes() >= self.flow.bytes_hard {
                self.refused_on_arrival = true;
                if let Verdict::Stop(failure) = self.handler.refuse(message, &time) {
                    return Some(failure);
                }
            } else {
                self.receive(sender, &time, message);
            }
        }
        None
    }

    fn receive(&mut self, sender: u64, time: &T, message: H::Message) {
        if self.cuts.any_white_for(sender) {
            for k in self.cuts.white_for(sender) {
                self.handler.log(k, time, &message);
                self.counts.logged += 1;
            }
        }
        let index = self.flow.times.index_of(time);
        self.flow.times.add(index, 1);
        self.flow.push(message, index);
        self.pushed += 1;
    }

    /// Notes the ingress frontier and the gates' records that came with it. They hold, and may be
    /// given back, once everything that waits now has been handled.
    pub(crate) fn note_frontier(&mut self, frontier: Antichain<T>) {
        let changed = frontier != self.flow.ingress;
        if !changed && self.arrived.is_empty() {
            return;
        }
        if changed {
            self.flow.note_ingress(&frontier, self.handler.awaits().events);
        }
        self.milestones.push_back(Milestone {
            handled: self.pushed,
            frontier: changed.then_some(frontier),
            credit: std::mem::take(&mut self.arrived),
        });
        self.pass_milestones();
    }

    /// Has the handler bring in what comes neither through a stream nor from a message.
    #[must_use]
    pub(crate) fn poll(&mut self) -> Option<H::Failure> {
        let result = self.handler.poll(&mut Inbox { flow: &mut self.flow });
        self.pushed += std::mem::take(&mut self.flow.polled);
        self.place_first();
        result.err()
    }

    /// Puts what comes first before all that waits; milestones wait for it as well.
    fn place_first(&mut self) {
        if !self.flow.first.is_empty() {
            let messages = self.flow.place_first();
            self.pushed += messages;
            for milestone in &mut self.milestones {
                milestone.handled += messages;
            }
        }
    }

    /// What the handler waits for; the loop's part of waiting for events is settled with it.
    pub(crate) fn awaits(&mut self) -> Awaits {
        let awaits = self.handler.awaits();
        self.flow.settle_events(awaits.events);
        awaits
    }

    fn pass_milestones(&mut self) {
        while self.milestones.front().is_some_and(|next| next.handled <= self.handled) {
            let milestone = self.milestones.pop_front().expect("there is a first one");
            if let Some(frontier) = milestone.frontier {
                self.flow.passed = frontier;
                self.flow.look_at_put_off();
            }
            for (gate, records) in milestone.credit {
                match self.credit.iter_mut().find(|(of, _)| *of == gate) {
                    Some((_, count)) => *count += records,
                    None => self.credit.push((gate, records)),
                }
            }
        }
    }

    /// Handles waiting messages until there are none or the budget is spent. `ship` sends records
    /// to other workers; it leaves the vector empty.
    #[must_use]
    pub(crate) fn run(
        &mut self,
        mut ship: impl FnMut(&mut Vec<Record<T, H::Message>>),
    ) -> Option<H::Failure> {
        let mut left = self.config.budget_messages;
        let mut clock = Clock::new(self.config.activation_max);
        while left > 0 && !self.flow.queue.is_empty() {
            let until = self.milestones.front().map_or(u64::MAX, |next| next.handled);
            let slice = left.min(clock.slice).min(self.flow.queue.len());
            let slice = slice.min(usize::try_from(until - self.handled).unwrap_or(usize::MAX));
            let failure = self.run_slice(slice, &mut ship);
            if failure.is_some() {
                return failure;
            }
            left -= slice;
            self.pass_milestones();
            if clock.is_over() {
                break;
            }
        }
        if !self.flow.away.is_empty() {
            ship(&mut self.flow.away);
        }
        None
    }

    fn run_slice(
        &mut self,
        messages: usize,
        ship: &mut impl FnMut(&mut Vec<Record<T, H::Message>>),
    ) -> Option<H::Failure> {
        for number in 0..messages {
            if number % FORESEEN == 0 && self.flow.queue.len() >= FORESEEN {
                let upcoming = self.flow.queue.range(..FORESEEN);
                self.handler.foresee(upcoming.map(|waiting| &waiting.message));
            }
            if self.flow.away.len() >= self.away_batch {
                ship(&mut self.flow.away);
            }
            if self.flow.peers > 1 && self.flow.away.capacity() == 0 {
                self.flow.away.reserve(self.away_batch);
            }
            let Some(Waiting { time, put_off, message }) = self.flow.pop() else { break };
            let (queued, away) = (self.flow.queue.len(), self.flow.away.len());
            let outbox = &mut Outbox { flow: &mut self.flow, time };
            match self.handler.handle(message, outbox) {
                Verdict::Done => {}
                Verdict::Undone => self.flow.take_back(queued, away),
                Verdict::Stop(failure) => {
                    // The message keeps its time alive: what it should have caused did not happen.
                    self.flow.take_back(queued, away);
                    return Some(failure);
                }
            }
            let sent_here = (self.flow.queue.len() - queued) as u64;
            self.counts.handled += 1;
            self.counts.sent_here += sent_here;
            self.counts.sent_away += (self.flow.away.len() - away) as u64;
            self.pushed += sent_here;
            self.flow.times.add(time, sent_here);
            if !self.flow.refused.is_empty()
                && let Some(failure) = self.give_up_refused(time)
            {
                return Some(failure);
            }
            self.handled += 1;
            if put_off {
                self.flow.no_longer_put_off(time);
            }
            self.flow.times.finish_one(time);
            self.place_first();
        }
        None
    }

    #[cold]
    fn give_up_refused(&mut self, time: TimeIndex) -> Option<H::Failure> {
        let mut refused = std::mem::take(&mut self.flow.refused);
        for message in refused.drain(..) {
            let verdict = self.handler.refuse(message, self.flow.times.time(time));
            if let Verdict::Stop(failure) = verdict {
                return Some(failure);
            }
        }
        None
    }

    /// Whether a record was refused on arrival since this was last asked.
    pub(crate) fn refused_on_arrival(&mut self) -> bool {
        std::mem::take(&mut self.refused_on_arrival)
    }

    /// Settles the live times and returns the minimal ones among them and those of the ingress
    /// frontier, at which an event may happen.
    pub(crate) fn settle(&mut self) -> &[T] {
        let Flow { times, ingress, .. } = &mut self.flow;
        times.settle();
        self.holding.clear();
        self.holding.extend(times.minimal().iter().chain(ingress.elements()).cloned());
        self.holding.elements()
    }

    /// Credit to give back to the gates.
    pub(crate) fn take_credit(&mut self) -> std::vec::Drain<'_, (GateAddress, usize)> {
        self.credit.drain(..)
    }

    /// Workers to be told, each of how many of its records have arrived.
    pub(crate) fn take_arrived(&mut self) -> impl Iterator<Item = (usize, usize)> + '_ {
        let batch = self.arrived_batch;
        let counts = self.arrived_from.iter_mut().enumerate();
        counts
            .filter(move |(_, count)| **count >= batch)
            .map(|(worker, count)| (worker, std::mem::take(count)))
    }

    /// Notes that records sent to a worker have arrived there.
    pub(crate) fn note_arrived(&mut self, worker: u32, records: usize) {
        self.flow.under_way[worker as usize] -= records;
    }

    /// Whether this worker has just come to have too much waiting, or on its way to another worker,
    /// or to have room again. A worker that is slow to step cannot say itself that it has no room.
    pub(crate) fn pressure_changed(&mut self) -> Option<bool> {
        let under_way = self.flow.under_way.iter().copied().max().unwrap_or(0);
        let bytes = self.flow.bytes().max(under_way * size_of::<Record<T, H::Message>>());
        let soft = self.config.loop_bytes_soft;
        let pausing = if self.pausing { bytes > soft / 4 * 3 } else { bytes > soft };
        (pausing != self.pausing).then(|| {
            self.pausing = pausing;
            pausing
        })
    }

    /// Whether anything waits to be handled, or to be shipped.
    pub(crate) fn has_work(&self) -> bool {
        !self.flow.queue.is_empty() || !self.flow.away.is_empty()
    }

    pub(crate) fn waiting(&self) -> (usize, usize) {
        (self.flow.queue.len(), self.flow.bytes())
    }

    pub(crate) fn take_counts(&mut self) -> Counts {
        std::mem::take(&mut self.counts)
    }
}

/// Decides how many messages to handle before the clock is looked at again: few where messages are
/// slow, many where they are fast.
struct Clock {
    limit: Option<(Instant, Duration)>,
    slice: usize,
    looked: Duration,
}

impl Clock {
    fn new(limit: Option<Duration>) -> Self {
        match limit {
            Some(limit) => {
                Clock { limit: Some((Instant::now(), limit)), slice: 1, looked: Duration::ZERO }
            }
            None => Clock { limit: None, slice: usize::MAX, looked: Duration::ZERO },
        }
    }

    fn is_over(&mut self) -> bool {
        let Some((began, limit)) = self.limit else { return false };
        let elapsed = began.elapsed();
        let slice_took = elapsed - self.looked;
        self.looked = elapsed;
        if slice_took < limit / 16 {
            self.slice = (self.slice * 4).min(1024);
        } else if slice_took > limit / 4 {
            self.slice = 1;
        }
        elapsed >= limit
    }
}

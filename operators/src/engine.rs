//! One worker's part of a loop without its ports: the queue, the order things are handled in, and
//! what must be known about waiting messages.
//!
//! The engine never sees a capability or a channel. [`keyed_loop`](crate::keyed_loop) gives it what
//! arrived and asks it to run; it answers with records for other workers. Messages are handled in
//! the order they arrived or were sent, whatever their times: sorting by time would let a sender's
//! later message overtake an earlier one. Or they are handled in the order of time, if the loop was
//! built so; then they wait in [`stages`](crate::stages) before they come to the queue.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use timely::order::Product;
use timely::progress::frontier::MutableAntichain;
use timely::progress::{Antichain, Timestamp};

use crate::config::{LoopConfig, Order};
use crate::cuts::Cuts;
use crate::flow::{Flow, Waiting};
use crate::handler::{Awaits, Handler, Inbox, Outbox, Verdict};
use crate::live_times::{LiveTimes, TimeIndex};
use crate::part::{Place, Places, Work};
use crate::record::{Admitted, GateAddress, Record};
use crate::restore::Restore;
use crate::stages::{Stage, Staged, Stages};
use crate::walk::Walk;

/// How many messages a handler is told of at once: as many as a processor can have cache misses under
/// way, a few times over.
const FORESEEN: usize = 32;

/// What holds once everything before a point of the queue has been handled.
struct Milestone<T> {
    /// Messages handled by then, over the life of the engine.
    handled: u64,
    /// The ingress frontier, where it changed.
    frontier: Option<Antichain<T>>,
    /// Records by gate that will have been handled.
    credit: Vec<(GateAddress, usize)>,
}

/// Sends records off to other workers and leaves the vector empty. Where the order is that of time,
/// it is told the stage at which they were sent.
pub(crate) trait Ship<T: Timestamp, M> {
    fn ship(&mut self, records: &mut Vec<Record<T, M>>, stage: Option<&Stage<T>>);
}

/// Whether a worker has room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Pressure<T> {
    /// None, but for records up to a time, in `Ord`, that it cannot go on without.
    Full {
        up_to: Option<T>,
    },
    Room,
}

/// What came of [working on a cut](Engine::work_on_cut).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CutWork {
    /// A cut is complete.
    pub(crate) completed: bool,
    /// There is more to do, and nobody else will say so.
    pub(crate) more: bool,
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
    pub(crate) flow: Flow<T, H::Message>,
    pub(crate) cuts: Cuts,
    /// What waited in the queue when the open cut was taken.
    walk: Walk,
    /// What leaves after the open cut and is caused here leaves at or after one of these.
    complete: Antichain<T>,
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
    holding: Antichain<Stage<T>>,
    /// The time of the message that was handled last: what it sent to other workers may not have
    /// left. Kept where the order is that of time.
    shipping: Option<TimeIndex>,
    /// Records that arrived from each worker and that it was not told of.
    arrived_from: Vec<usize>,
    /// How many such records make it worth telling.
    arrived_batch: usize,
    /// Whether more waits than should.
    too_much: bool,
    /// What the gates were told last.
    told: Pressure<T>,
    config: LoopConfig,
    /// Records for other workers are shipped when there are this many.
    away_batch: usize,
    /// How long this activation was busy with a cut, if it was.
    busy_with_cut: Option<Duration>,
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
                stages: (config.order == Order::Time).then(Stages::new),
                staged: Vec::new(),
                frontier: Antichain::from_elem(T::minimum()),
                passed: Antichain::from_elem(T::minimum()),
                put_off: MutableAntichain::new(),
                ingress: Antichain::from_elem(T::minimum()),
                last_ingress: Antichain::new(),
                not_before: None,
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
            cuts: Cuts::after(config.cuts_before),
            walk: Walk::default(),
            complete: Antichain::new(),
            milestones: VecDeque::new(),
            arrived: Vec::new(),
            pushed: 0,
            handled: 0,
            credit: Vec::new(),
            counts: Counts::default(),
            refused_on_arrival: false,
            holding: Antichain::new(),
            shipping: None,
            arrived_from: vec![0; peers],
            arrived_batch: (config.loop_bytes_soft / 8 / size_of::<Record<T, H::Message>>())
                .clamp(1, 4096),
            too_much: false,
            told: Pressure::Room,
            config,
            away_batch,
            busy_with_cut: None,
        }
    }

    /// Takes cut `k` unless it was taken: the handler's state and what waits now are the cut's. Takes
    /// the same time however much waits.
    pub(crate) fn take_cut(&mut self, k: u64) {
        let began = Instant::now();
        let Some(taken) = self.cuts.take(k) else { return };
        if let Some(abandoned) = taken.abandoned {
            self.handler.abandon_cut(abandoned);
        }
        self.walk.begin(self.flow.queue.len());
        if let Some(stages) = &mut self.flow.stages {
            stages.begin_walk(k);
        }
        self.complete.clear();
        for time in self.flow.times.minimal().iter().map(|stage| &stage.outer) {
            self.complete.insert_ref(time);
        }
        for time in self.flow.ingress() {
            self.complete.insert_ref(time);
        }
        self.handler.take_cut(k, self.flow.event_now());
        self.note_busy(began);
    }

    fn note_busy(&mut self, since: Instant) {
        *self.busy_with_cut.get_or_insert_default() += since.elapsed();
    }

    /// How long this activation was busy with a cut: with taking it, or with writing a slice of it.
    pub(crate) fn take_busy_with_cut(&mut self) -> Option<Duration> {
        self.busy_with_cut.take()
    }

    /// Whether a cut is open.
    pub(crate) fn cut_is_open(&self) -> bool {
        self.cuts.open().is_some()
    }

    /// Writes a slice of the open cut, and closes it if that was all and nothing white for it can
    /// arrive any more, given the lowest count that still can. `others_done` says that what is not the
    /// engine's, and belongs to the cut on this worker, is known and written.
    pub(crate) fn work_on_cut(&mut self, lowest: Option<u64>, others_done: bool) -> CutWork {
        let Some(k) = self.cuts.open() else { return CutWork::default() };
        let began = Instant::now();
        let budget = self.config.cut_slice;
        let mut more = self.walk_on(k, budget);
        if !self.cuts.is_written() {
            let places = Places { times: &self.flow.times };
            match self.handler.work_on_cut(k, budget, &places) {
                Work::Done => self.cuts.note_written(),
                Work::More => more = true,
                Work::Waiting => {}
            }
        }
        let walked =
            !self.walk.is_on() && !self.flow.stages.as_ref().is_some_and(Stages::walk_is_on);
        let completed = walked && others_done && self.cuts.close(lowest).is_some();
        if completed {
            self.handler.complete_cut(k, self.complete.elements());
        }
        self.note_busy(began);
        CutWork { completed, more: more && !completed }
    }

    /// Hands over as many marked messages as the budget says. Says whether there are more.
    fn walk_on(&mut self, k: u64, mut budget: usize) -> bool {
        while budget > 0
            && let Some((at, marked)) = self.walk.advance()
        {
            budget -= 1;
            if marked {
                let waiting = &self.flow.queue[at];
                self.handler.queued(k, self.flow.place(waiting), &waiting.message);
            }
        }
        let Flow { stages: Some(stages), times, .. } = &mut self.flow else {
            return self.walk.is_on();
        };
        let handler = &mut self.handler;
        while budget > 0
            && let Some((stage, messages)) = stages.advance_walk(budget, |m| sort(handler, m))
        {
            // A stage without any has taken time as well.
            budget -= messages.len().max(1);
            for Staged { gate, waiting, .. } in messages {
                let record = gate.is_some() || waiting.put_off;
                debug_assert_eq!(times.time(waiting.time), stage);
                let place = Place { time: &stage.outer, depth: stage.inner, record };
                handler.queued(k, place, &waiting.message);
            }
        }
        self.walk.is_on() || stages.walk_is_on()
    }

    /// Hands over a message that is about to be handled, if it is marked and was not handed over.
    #[cold]
    fn hand_over_popped(&mut self, waiting: &Waiting<H::Message>) {
        if self.walk.popped() {
            let k = self.cuts.open().expect("a walk belongs to the open cut");
            self.handler.queued(k, self.flow.place(waiting), &waiting.message);
        }
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
            self.log(sender, Place { time: &time, depth: 0, record: true }, &message);
            if self.flow.stages.is_some() {
                self.flow.stage(Product::new(time, 0), Some(gate), message);
            } else {
                self.queue(time, message);
            }
        }
    }

    /// Queues records from other workers, sent after so many cuts, which have come so many hops. Those
    /// there is no room for are refused.
    #[must_use]
    pub(crate) fn receive_returned(
        &mut self,
        sender: u64,
        hops: u64,
        records: &mut Vec<Record<T, H::Message>>,
    ) -> Option<H::Failure> {
        for Record { time, from, message } in records.drain(..) {
            self.arrived_from[from as usize] += 1;
            let depth = if self.flow.stages.is_some() { hops } else { 0 };
            // Also what is refused: that happens after the cut, and so does what comes of it.
            self.log(sender, Place { time: &time, depth, record: false }, &message);
            if self.flow.bytes() >= self.flow.bytes_hard {
                self.refused_on_arrival = true;
                if let Verdict::Stop(failure) = self.handler.refuse(message, &time) {
                    return Some(failure);
                }
            } else if self.flow.stages.is_some() {
                self.flow.stage(Product::new(time, hops), None, message);
            } else {
                self.queue(time, message);
            }
        }
        None
    }

    /// Logs a message for the open cut if it is white for it.
    #[inline]
    fn log(&mut self, sender: u64, place: Place<'_, T>, message: &H::Message) {
        #[cfg(statefun_planted)]
        let sender = crate::planted::sender(sender);
        if let Some(k) = self.cuts.white_for(sender) {
            self.handler.log(k, place, message);
            self.complete.insert_ref(place.time);
            self.counts.logged += 1;
        }
    }

    fn queue(&mut self, time: T, message: H::Message) {
        let index = self.flow.times.index_of(&Product::new(time, 0));
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
        if self.flow.stages.is_some() {
            // What waits for its stage waits for other ingress: it must not use up the credit that
            // lets that in.
            let mut arrived = std::mem::take(&mut self.arrived);
            arrived.drain(..).for_each(|(gate, records)| self.give_back(gate, records));
            self.arrived = arrived;
            self.flow.look_at_put_off();
            return;
        }
        self.milestones.push_back(Milestone {
            handled: self.pushed,
            frontier: changed.then_some(frontier),
            credit: std::mem::take(&mut self.arrived),
        });
        self.pass_milestones();
    }

    /// Has the handler bring back what a restored cut held.
    pub(crate) fn restore(&mut self) -> Result<Work, H::Failure> {
        let work = self.handler.restore(&mut Restore { flow: &mut self.flow });
        self.pushed += std::mem::take(&mut self.flow.polled);
        work
    }

    /// Has the handler bring in what comes neither through a stream nor from a message.
    #[must_use]
    pub(crate) fn poll(&mut self, ship: &mut impl Ship<T, H::Message>) -> Option<H::Failure> {
        let result = self.handler.poll(&mut Inbox { flow: &mut self.flow });
        self.pushed += std::mem::take(&mut self.flow.polled);
        self.place_first();
        if !self.flow.away.is_empty() {
            let event = self.flow.event_stage();
            ship.ship(&mut self.flow.away, self.flow.stages.as_ref().and(event.as_ref()));
        }
        result.err()
    }

    /// Puts what comes first before all that waits; milestones wait for it as well.
    fn place_first(&mut self) {
        if !self.flow.first.is_empty() {
            let messages = self.flow.place_first();
            self.pushed += messages;
            self.walk.placed_first(messages as usize);
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
                self.give_back(gate, records);
            }
        }
    }

    fn give_back(&mut self, gate: GateAddress, records: usize) {
        match self.credit.iter_mut().find(|(of, _)| *of == gate) {
            Some((_, count)) => *count += records,
            None => self.credit.push((gate, records)),
        }
    }

    /// Opens the next stage, if the one before is done with and nothing earlier than `bound` can
    /// arrive any more.
    pub(crate) fn open_stage(&mut self, bound: Option<Stage<T>>) {
        let Some(stages) = &mut self.flow.stages else { return };
        if !self.flow.queue.is_empty() {
            return;
        }
        let opened = stages.open_next(bound.as_ref());
        self.flow.look_at_put_off();
        let Some(mut messages) = opened else { return };
        sort(&self.handler, &mut messages);
        if messages.iter().any(|staged| staged.marked) {
            self.walk.begin_except(messages.iter().map(|staged| !staged.marked).collect());
        }
        self.pushed += messages.len() as u64;
        self.flow.queue.extend(messages.into_iter().map(|staged| staged.waiting));
    }

    /// Handles waiting messages until there are none or the budget is spent. `ship` sends records
    /// to other workers; it leaves the vector empty.
    #[must_use]
    pub(crate) fn run(&mut self, ship: &mut impl Ship<T, H::Message>) -> Option<H::Failure> {
        let mut left = self.config.budget_messages;
        let mut clock = Clock::new(self.config.activation_max);
        while left > 0 && !self.flow.queue.is_empty() {
            let until = self.milestones.front().map_or(u64::MAX, |next| next.handled);
            let slice = left.min(clock.slice).min(self.flow.queue.len());
            let slice = slice.min(usize::try_from(until - self.handled).unwrap_or(usize::MAX));
            let failure = self.run_slice(slice, ship);
            if failure.is_some() {
                return failure;
            }
            left -= slice;
            self.pass_milestones();
            if clock.is_over() {
                break;
            }
        }
        self.ship(ship);
        None
    }

    /// Sends off what was sent to other workers. Where the order is that of time, all of it was sent
    /// at one stage.
    fn ship(&mut self, ship: &mut impl Ship<T, H::Message>) {
        let Flow { away, times, stages, .. } = &mut self.flow;
        if !away.is_empty() {
            let stage = stages.as_ref().and(self.shipping).map(|time| times.time(time));
            ship.ship(away, stage);
        }
    }

    fn run_slice(
        &mut self,
        messages: usize,
        ship: &mut impl Ship<T, H::Message>,
    ) -> Option<H::Failure> {
        for number in 0..messages {
            if number % FORESEEN == 0 && self.flow.queue.len() >= FORESEEN {
                let upcoming = self.flow.queue.range(..FORESEEN);
                self.handler.foresee(upcoming.map(|waiting| &waiting.message));
            }
            if self.flow.away.len() >= self.away_batch {
                self.ship(ship);
            }
            if self.flow.peers > 1 && self.flow.away.capacity() == 0 {
                self.flow.away.reserve(self.away_batch);
            }
            let Some(waiting) = self.flow.pop() else { break };
            if self.walk.is_on() {
                self.hand_over_popped(&waiting);
            }
            let Waiting { time, put_off, message } = waiting;
            if self.flow.stages.is_some() && self.shipping != Some(time) {
                self.ship(ship);
                self.shipping = Some(time);
            }
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
            let staged = self.flow.stage_sent(time);
            self.counts.handled += 1;
            self.counts.sent_here += sent_here + staged;
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
            let verdict = self.handler.refuse(message, self.flow.time(time));
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
    pub(crate) fn settle(&mut self) -> &[Stage<T>] {
        let Flow { times, ingress, .. } = &mut self.flow;
        times.settle();
        self.holding.clear();
        self.holding.extend(times.minimal().iter().cloned());
        self.holding.extend(ingress.iter().map(|time| Product::new(time.clone(), 0)));
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
    /// or a handler that is full, or to have room again. A worker that is slow to step cannot say
    /// itself that it has no room.
    ///
    /// Where the order is that of time, it also tells each time anew up to which ingress time it must
    /// be given records nevertheless: without those it could never go on.
    pub(crate) fn pressure_changed(&mut self) -> Option<Pressure<T>> {
        let under_way = self.flow.under_way.iter().copied().max().unwrap_or(0);
        let bytes = self.flow.bytes().max(under_way * size_of::<Record<T, H::Message>>());
        let soft = self.config.loop_bytes_soft;
        self.too_much = if self.too_much { bytes > soft / 4 * 3 } else { bytes > soft };
        let full = self.handler.is_full();
        let first = self.flow.stages.as_ref().map(|stages| stages.first_time());
        let pressure = match first {
            _ if !self.too_much && !full => Pressure::Room,
            None => Pressure::Full { up_to: None },
            Some(Some(first)) => Pressure::Full { up_to: Some(first.clone()) },
            // With nothing that waits for its stage, a handler that is full needs no record.
            Some(None) if full => Pressure::Full { up_to: None },
            // What weighs is on its way: all may come.
            Some(None) => Pressure::Room,
        };
        (pressure != self.told).then(|| {
            self.told.clone_from(&pressure);
            pressure
        })
    }

    /// Whether anything can be handled now.
    pub(crate) fn has_work(&self) -> bool {
        !self.flow.queue.is_empty()
    }

    /// Whether nothing waits, for its turn or for its stage.
    pub(crate) fn is_empty(&self) -> bool {
        self.flow.waiting() == 0
    }

    pub(crate) fn waiting(&self) -> (usize, usize) {
        (self.flow.waiting(), self.flow.bytes())
    }

    pub(crate) fn take_counts(&mut self) -> Counts {
        std::mem::take(&mut self.counts)
    }
}

/// Puts messages of one stage in the order in which they are handled.
fn sort<T: Timestamp, H: Handler<T>>(handler: &H, messages: &mut [Staged<H::Message>]) {
    messages.sort_by(|one, other| {
        let order = handler.compare(&one.waiting.message, &other.waiting.message);
        order.then_with(|| one.gate.cmp(&other.gate))
    });
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

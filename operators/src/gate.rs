//! Where ingress enters a loop, and the only place that can hold it back.
//!
//! No input of a gate is connected to its outputs: it sends under capabilities of its own, at
//! `(f, (cuts, 0))` for each `f` of its input frontier and of what it holds back. So the gate alone
//! says on which side of a cut a record is, by its own count of cuts, and a cut can be taken between
//! any two records whatever their times are. What it holds back is in no cut.
//!
//! The gate of an ingress that [another loop](mod@crate::marks) feeds is told where to take cuts. What it
//! holds back there was sent before the cut, so it lets it pass first.
//!
//! Records leave in the order in which they came, but for those that must wait for an
//! [aligned](mod@crate::alignment) cut: others pass them.

use std::collections::VecDeque;
use std::rc::Rc;

use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::{Exchange, Pipeline};
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::dataflow::{Scope, Stream};
use timely::order::Product;
use timely::progress::operate::FrontierInterest;
use timely::progress::{Antichain, Timestamp};
use timely::scheduling::Activator;

use crate::alignment::Alignment;
use crate::announcements::Announcement;
use crate::batch::Batch;
use crate::config::{LoopConfig, Order};
use crate::feed::{Feed, GateState};
use crate::handle::Shared;
use crate::handler::Handler;
use crate::holdings::Holdings;
use crate::live_times::{LiveTimes, TimeIndex};
use crate::marks::CutMarks;
use crate::positions::{AtCut, Noted, OnCut, Position, PositionOf, Positions, Replayed};
use crate::record::{Addressed, Admitted, GateAddress, Signal};
use crate::stages::Stage;
use crate::turn::Turn;

/// The time of everything inside a loop.
pub(crate) type LoopTime<T> = Product<T, Turn>;
type Records<T, M> = Vec<Admitted<T, M>>;

/// What a gate is built from: its name and number, its streams, how a record becomes a message, whom
/// to tell of a cut, and the loop that waits until it has.
pub(crate) struct GateParts<'scope, T: Timestamp, D, M, F> {
    pub(crate) name: String,
    pub(crate) number: u32,
    pub(crate) convert: Box<dyn FnMut(D) -> M>,
    pub(crate) on_cut: OnCut<T>,
    pub(crate) position: Option<PositionOf<D>>,
    pub(crate) after: Positions,
    /// The latest times of what a restored cut contains.
    pub(crate) contained: Vec<T>,
    /// Where to take cuts, if not where they are announced.
    pub(crate) marks: Option<CutMarks>,
    /// Joins it to the source whose stream this is.
    pub(crate) feed: Option<Feed>,
    pub(crate) keyed_loop: Activator,
    pub(crate) ingress: Stream<'scope, LoopTime<T>, Vec<D>>,
    pub(crate) signals: Stream<'scope, LoopTime<T>, Vec<Addressed<T, F>>>,
    pub(crate) cuts: Option<Stream<'scope, LoopTime<T>, Vec<Announcement<T>>>>,
}

/// The outputs of a gate: the records it admits, and a stream without records whose frontier is
/// that of the first.
pub(crate) type GateStreams<'scope, T, M> =
    (Stream<'scope, LoopTime<T>, Records<T, M>>, Stream<'scope, LoopTime<T>, Vec<()>>);

const RECORDS: usize = 0;

/// Builds a gate of this worker.
pub(crate) fn gate<'scope, T, D, H>(
    scope: Scope<'scope, LoopTime<T>>,
    parts: GateParts<'scope, T, D, H::Message, H::Failure>,
    config: &LoopConfig,
    shared: &Rc<Shared<H::Failure>>,
) -> GateStreams<'scope, T, H::Message>
where
    T: Timestamp,
    D: 'static,
    H: Handler<T>,
{
    let peers = scope.peers();
    let worker = scope.index() as u32;
    let own = GateAddress { worker, gate: parts.number };
    let (mut convert, mut on_cut, position) = (parts.convert, parts.on_cut, parts.position);
    let mut noted = Noted::after(parts.after.clone());
    let mut replayed = Replayed::until(parts.after);
    let unconnected = || Vec::<(usize, Antichain<_>)>::new();

    let mut builder = OperatorBuilder::new(format!("Gate [{}]", parts.name), scope);
    let mut ingress = builder.new_input(parts.ingress, Pipeline);
    let to_worker = Exchange::new(|s: &Addressed<T, H::Failure>| u64::from(s.worker));
    let mut signals = builder.new_input(parts.signals, to_worker);
    builder.set_notify_for(1, FrontierInterest::Never);
    let mut announcements = parts.cuts.map(|cuts| {
        let input = builder.new_input(cuts, Pipeline);
        builder.set_notify_for(2, FrontierInterest::Never);
        input
    });
    let marks = parts.marks;
    if let Some(marks) = &marks {
        marks.connect(scope.activator_for(builder.operator_info().address));
    }
    let (records, record_stream) =
        builder.new_output_connection::<Records<T, H::Message>, _>(unconnected());
    let (_, admitted_stream) = builder.new_output_connection::<Vec<()>, _>(unconnected());
    let mut records: OutputBuilder<_, CapacityContainerBuilder<Records<T, H::Message>>> =
        OutputBuilder::from(records);

    let state = Rc::new(GateState::default());
    state.taken.set(config.cuts_before);
    shared.gates.add(&state);
    let feed = parts.feed;
    if let Some(feed) = &feed {
        feed.join(&state);
    }
    let shared = Rc::clone(shared);
    let (credit, order) = (config.gate_credit_records, config.order);
    let cuts_before = config.cuts_before;

    builder.build(move |born| {
        // A gate's hops are none, in either order.
        let mut holdings = Holdings::<T, 2>::born(born, Order::Arrival);
        let mut gate = Gate::<T, H::Message>::new(credit, peers, order, announcements.is_some());
        parts.contained.iter().for_each(|time| gate.alignment.note(time));
        let mut cuts = cuts_before;
        let mut admitted = 0;
        let mut come = 0;
        // Of those that marks count.
        let mut read = 0;
        let mut arrived = VecDeque::new();
        move |frontiers| {
            signals.for_each(|_, signals| {
                for signal in signals.drain(..) {
                    gate.hear(own.gate, signal.signal);
                }
            });
            if let Some(announcements) = &mut announcements {
                announcements.for_each(|_, announced| {
                    for announcement in announced.drain(..) {
                        match announcement {
                            _ if marks.is_some() => {}
                            Announcement::Align(frontier) => gate.align(frontier),
                            Announcement::Cut { cut, aligned } if cut > cuts => {
                                cuts = cut; // STEP 1: what is admitted from here on is red.
                                let aligned = aligned.then(|| gate.end_alignment()).flatten();
                                on_cut(AtCut {
                                    cut,
                                    records: admitted,
                                    positions: noted.positions(),
                                    latest: gate.alignment.latest(),
                                    aligned,
                                });
                            }
                            Announcement::Cut { .. } => {}
                        }
                    }
                });
            }
            if state.taken.replace(cuts) != cuts {
                parts.keyed_loop.activate();
            }
            state.shut.set(gate.is_shut());
            if gate.stopped {
                // What is unread stays unread: its times must not be passed.
                return;
            }
            holdings.raise(Turn::after_cut(cuts));

            let admitted_before = admitted;
            let mut skipped = 0;
            if marks.is_some() {
                ingress.for_each(|batch, data| {
                    let time = batch.time().outer.clone();
                    arrived.extend(data.drain(..).map(|datum| (time.clone(), datum)));
                });
            }
            loop {
                let mut output = records.activate();
                let mut batch = Batch::new(&holdings, RECORDS, &mut output);
                let mut send = |time: &T, position: Option<Position>, message: H::Message| {
                    admitted += 1;
                    if let Some(position) = position {
                        noted.admit(position);
                    }
                    batch.push(time, Admitted { time: time.clone(), gate: own, message });
                };
                let kind = Kind { route: H::route, class: H::class };
                gate.release(kind, &mut send);
                let mut offer = |time: &T, datum: D| {
                    come += 1;
                    let position = position.as_ref().and_then(|position| position(&datum));
                    if position.is_some_and(|position| replayed.contains(position)) {
                        skipped += 1;
                        gate.alignment.note(time);
                        return;
                    }
                    gate.offer(time, position, convert(datum), kind, &mut send);
                };
                let Some(marks) = &marks else {
                    ingress.for_each(|batch, data| {
                        let time = batch.time().outer.clone();
                        data.drain(..).for_each(|datum| offer(&time, datum));
                    });
                    batch.flush();
                    break;
                };
                let before_next = arrived.len().min(marks.before_next(read));
                read += before_next as u64;
                arrived.drain(..before_next).for_each(|(time, datum)| offer(&time, datum));
                let Some(cut) = marks.take(read) else {
                    batch.flush();
                    break;
                };
                if cut > cuts {
                    gate.release_all(kind, &mut send);
                    batch.flush();
                    drop(output);
                    cuts = cut; // STEP 1, of a gate that is told where.
                    let (records, positions) = (admitted, noted.positions());
                    on_cut(AtCut { cut, records, positions, latest: &[], aligned: None });
                    holdings.raise(Turn::after_cut(cuts));
                    state.taken.set(cuts);
                    parts.keyed_loop.activate();
                } else {
                    batch.flush();
                }
            }

            state.held_back.set(gate.held_back.len() + gate.later.len().saturating_sub(credit));
            state.arrived.set(come);
            if let Some(feed) = &feed {
                feed.tell(&state, admitted);
            }
            shared.gates.tell();
            shared.update(|stats| {
                stats.admitted += admitted - admitted_before;
                stats.skipped += skipped;
            });
            let mut next: Antichain<Stage<T>> = Antichain::new();
            next.extend(
                frontiers[0].frontier().iter().map(|time| Stage::new(time.outer.clone(), 0)),
            );
            next.extend(gate.settle().iter().map(|time| Stage::new(time.clone(), 0)));
            holdings.follow(next.elements());
        }
    });
    (record_stream, admitted_stream)
}

/// What a gate must know of a message.
struct Kind<M> {
    route: fn(&M) -> u64,
    class: fn(&M) -> u32,
}

impl<M> Clone for Kind<M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M> Copy for Kind<M> {}

/// What a worker has asked of the gates.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Pause<T> {
    /// Nothing.
    No,
    /// To admit nothing.
    All,
    /// To admit nothing after a time, in `Ord`.
    After(T),
}

/// A record that is held back.
struct HeldBack<M> {
    time: TimeIndex,
    position: Option<Position>,
    message: M,
}

/// Decides what may pass: credit per worker, pauses, and the records that wait for either.
struct Gate<T, M> {
    /// Records that may still be admitted for each worker; fewer than none where some had to be.
    credit: Vec<isize>,
    /// By worker, what it has asked for.
    paused: Vec<Pause<T>>,
    /// Classes that are held back, with the worker that wants it.
    classes: Vec<(u32, u32)>,
    stopped: bool,
    /// In the order in which they came, or in that of their times.
    held_back: VecDeque<HeldBack<M>>,
    alignment: Alignment<T>,
    /// Those that wait for an aligned cut, in the order in which they came.
    later: VecDeque<HeldBack<M>>,
    order: Order,
    times: LiveTimes<T>,
}

impl<T: Timestamp, M> Gate<T, M> {
    fn new(credit: usize, peers: usize, order: Order, cuts: bool) -> Self {
        Gate {
            credit: vec![isize::try_from(credit).unwrap_or(isize::MAX); peers],
            paused: vec![Pause::No; peers],
            classes: Vec::new(),
            stopped: false,
            held_back: VecDeque::new(),
            alignment: Alignment::new(cuts),
            later: VecDeque::new(),
            order,
            times: LiveTimes::new(),
        }
    }

    fn hear<F>(&mut self, own: u32, signal: Signal<T, F>) {
        match signal {
            Signal::Credit { gate, by, records } if gate == own => {
                let credit = &mut self.credit[by as usize];
                *credit = credit.saturating_add_unsigned(records);
            }
            Signal::Credit { .. } | Signal::Arrived { .. } => {}
            Signal::Pause { by, up_to } => {
                self.paused[by as usize] = up_to.map_or(Pause::All, Pause::After);
            }
            Signal::Resume { by } => self.paused[by as usize] = Pause::No,
            Signal::Class { by, class, held_back: true } => self.classes.push((class, by)),
            Signal::Class { by, class, held_back: false } => {
                self.classes.retain(|held| *held != (class, by));
            }
            Signal::Stop(_) => self.stopped = true,
        }
    }

    fn is_shut(&self) -> bool {
        self.stopped || self.paused.contains(&Pause::All)
    }

    /// Whether some worker wants nothing of this time now.
    fn is_after_pause(&self, time: &T) -> bool {
        // Where the worker waits for what may wait here for an aligned cut, what the cut waits for must
        // pass, or each would wait for the other.
        let after = |pause: &Pause<T>| match pause {
            Pause::After(up_to) => time > up_to && !self.alignment.keeps_out_up_to(up_to),
            _ => false,
        };
        self.order == Order::Time && self.paused.iter().any(after)
    }

    /// The worker that a message is for.
    #[inline]
    fn target(&self, kind: Kind<M>, message: &M) -> usize {
        ((kind.route)(message) % self.credit.len() as u64) as usize
    }

    /// Takes credit for a record if it may pass now.
    fn admit(&mut self, kind: Kind<M>, time: &T, message: &M) -> bool {
        let target = self.target(kind, message);
        let may = self.credit[target] > 0
            && !self.is_shut()
            && !self.is_after_pause(time)
            && !self.is_class_shut(kind, message);
        if may {
            self.credit[target] -= 1;
            self.alignment.note(time);
        }
        may
    }

    #[inline]
    fn is_class_shut(&self, kind: Kind<M>, message: &M) -> bool {
        !self.classes.is_empty() && {
            let class = (kind.class)(message);
            self.classes.iter().any(|(shut, _)| *shut == class)
        }
    }

    /// Lets a new record pass, or keeps it behind those that wait.
    fn offer(
        &mut self,
        time: &T,
        position: Option<Position>,
        message: M,
        kind: Kind<M>,
        send: &mut impl FnMut(&T, Option<Position>, M),
    ) {
        if self.alignment.keeps_out(time) {
            let held = self.hold_back(time, position, message);
            return self.later.push_back(held);
        }
        // In the order of time, an earlier record must not wait behind a later one, which may wait
        // for what the earlier one causes.
        let at = match self.order {
            Order::Arrival => self.held_back.len(),
            Order::Time => {
                self.held_back.partition_point(|held| self.times.time(held.time) <= time)
            }
        };
        if at == 0 && self.admit(kind, time, &message) {
            send(time, position, message);
        } else {
            let held = self.hold_back(time, position, message);
            self.held_back.insert(at, held);
        }
    }

    fn hold_back(&mut self, time: &T, position: Option<Position>, message: M) -> HeldBack<M> {
        let index = self.times.index_of(time);
        self.times.add(index, 1);
        HeldBack { time: index, position, message }
    }

    /// Begins to hold back what is at or after an element of a frontier, also of what waits already: the
    /// rest must not wait behind it.
    fn align(&mut self, frontier: Antichain<T>) {
        self.end_alignment();
        self.alignment.begin(frontier);
        let Gate { alignment, times, .. } = self;
        let keeps_out = |held: &HeldBack<M>| alignment.keeps_out(times.time(held.time));
        (self.later, self.held_back) = self.held_back.drain(..).partition(keeps_out);
    }

    /// Has what waited for the aligned cut wait like all else, behind what came before it. Says whether
    /// nothing that should have waited had passed, if anything was to wait.
    fn end_alignment(&mut self) -> Option<bool> {
        self.held_back.append(&mut self.later);
        if self.order == Order::Time {
            let times = &self.times;
            let waiting = self.held_back.make_contiguous();
            waiting.sort_by(|one, other| times.time(one.time).cmp(times.time(other.time)));
        }
        self.alignment.end()
    }

    /// Lets what waits pass, in order, up to the first record that may not.
    fn release(&mut self, kind: Kind<M>, send: &mut impl FnMut(&T, Option<Position>, M)) {
        while let Some(held) = self.held_back.pop_front() {
            let time = self.times.time(held.time).clone();
            if !self.admit(kind, &time, &held.message) {
                self.held_back.push_front(held);
                break;
            }
            send(&time, held.position, held.message);
            self.times.finish_one(held.time);
        }
    }

    /// Lets all that waits pass, in order, whatever workers have asked for.
    fn release_all(&mut self, kind: Kind<M>, send: &mut impl FnMut(&T, Option<Position>, M)) {
        while let Some(held) = self.held_back.pop_front() {
            let target = self.target(kind, &held.message);
            self.credit[target] -= 1;
            let time = self.times.time(held.time).clone();
            send(&time, held.position, held.message);
            self.times.finish_one(held.time);
        }
    }

    /// The minimal times of what waits.
    fn settle(&mut self) -> &[T] {
        self.times.settle();
        self.times.minimal()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Messages are their own route; their class is their last digit.
    const KIND: Kind<u64> = Kind { route: |m| *m, class: |m| (m % 10) as u32 };

    fn offer(gate: &mut Gate<u64, u64>, messages: impl IntoIterator<Item = u64>) -> Vec<u64> {
        let mut passed = Vec::new();
        for message in messages {
            gate.offer(&1, None, message, KIND, &mut |_, _, m| passed.push(m));
        }
        passed
    }

    #[test]
    fn records_pass_in_order_as_far_as_credit_goes() {
        let mut gate = Gate::<u64, u64>::new(2, 2, Order::Arrival, true);
        assert_eq!(offer(&mut gate, [0, 2, 4, 1]), [0, 2], "1 must not overtake 4");
        assert_eq!(gate.held_back.len(), 2);
        gate.hear(0, Signal::<u64, ()>::Credit { gate: 1, by: 0, records: 9 });
        let mut passed = Vec::new();
        gate.release(KIND, &mut |_, _, m| passed.push(m));
        assert!(passed.is_empty(), "credit of another gate");
        gate.hear(0, Signal::<u64, ()>::Credit { gate: 0, by: 0, records: 1 });
        gate.release(KIND, &mut |_, _, m| passed.push(m));
        assert_eq!(passed, [4, 1]);
        assert_eq!(gate.credit, [0, 1]);
    }

    #[test]
    fn before_a_cut_that_lies_in_the_stream_all_passes_and_credit_is_owed() {
        let mut gate = Gate::<u64, u64>::new(1, 2, Order::Arrival, true);
        gate.hear(0, Signal::<u64, ()>::Pause { by: 1, up_to: None });
        assert_eq!(offer(&mut gate, [0, 2, 1]), []);
        let mut passed = Vec::new();
        gate.release_all(KIND, &mut |_, _, m| passed.push(m));
        assert_eq!((passed, &gate.credit), (vec![0, 2, 1], &vec![-1, 0]));
        gate.hear(0, Signal::<u64, ()>::Resume { by: 1 });
        assert_eq!(offer(&mut gate, [4]), []);
        gate.hear(0, Signal::<u64, ()>::Credit { gate: 0, by: 0, records: 2 });
        let mut passed = Vec::new();
        gate.release(KIND, &mut |_, _, m| passed.push(m));
        assert_eq!(passed, [4]);
    }

    #[test]
    fn one_worker_without_room_shuts_the_gate_for_all() {
        let mut gate = Gate::<u64, u64>::new(8, 2, Order::Arrival, true);
        gate.hear(0, Signal::<u64, ()>::Pause { by: 0, up_to: None });
        gate.hear(0, Signal::<u64, ()>::Pause { by: 1, up_to: None });
        gate.hear(0, Signal::<u64, ()>::Resume { by: 0 });
        assert!(gate.is_shut());
        assert!(offer(&mut gate, [1]).is_empty());
        gate.hear(0, Signal::<u64, ()>::Resume { by: 1 });
        assert!(offer(&mut gate, [2]).is_empty(), "still behind the first");
        let mut passed = Vec::new();
        gate.release(KIND, &mut |_, _, m| passed.push(m));
        assert_eq!(passed, [1, 2]);
        assert_eq!(gate.settle(), &[] as &[u64]);
    }

    #[test]
    fn a_class_is_held_back_as_long_as_any_worker_wants_it() {
        let mut gate = Gate::<u64, u64>::new(8, 2, Order::Arrival, true);
        let class = |by, held_back| Signal::<u64, ()>::Class { by, class: 3, held_back };
        gate.hear(0, class(0, true));
        gate.hear(0, class(1, true));
        assert_eq!(offer(&mut gate, [1, 2]), [1, 2], "other classes pass");
        assert!(offer(&mut gate, [13, 4]).is_empty(), "4 must not overtake 13");
        gate.hear(0, class(0, false));
        let mut passed = Vec::new();
        gate.release(KIND, &mut |_, _, m| passed.push(m));
        assert!(passed.is_empty());
        gate.hear(0, class(1, false));
        gate.release(KIND, &mut |_, _, m| passed.push(m));
        assert_eq!(passed, [13, 4]);
    }

    /// Otherwise a record that others wait for could wait behind those that wait for it.
    #[test]
    fn in_the_order_of_time_early_records_pass_late_ones_that_are_held_back() {
        let mut gate = Gate::<u64, u64>::new(8, 1, Order::Time, true);
        gate.hear(0, Signal::<u64, ()>::Pause { by: 0, up_to: Some(5) });
        let mut passed = Vec::new();
        for (time, message) in [(9, 90), (5, 50), (7, 70), (9, 91), (3, 30)] {
            gate.offer(&time, None, message, KIND, &mut |time, _, m| passed.push((*time, m)));
        }
        assert_eq!(passed, [(5, 50), (3, 30)]);
        assert_eq!(gate.settle(), &[7]);
        assert!(!gate.is_shut(), "what the worker waits for must be let in");
        gate.hear(0, Signal::<u64, ()>::Resume { by: 0 });
        gate.release(KIND, &mut |time, _, m| passed.push((*time, m)));
        assert_eq!(passed[2..], [(7, 70), (9, 90), (9, 91)]);
    }

    /// What a gate lets pass, with times.
    fn release<T: Timestamp>(gate: &mut Gate<T, u64>) -> Vec<(T, u64)> {
        let mut passed = Vec::new();
        gate.release(KIND, &mut |time, _, m| passed.push((time.clone(), m)));
        passed
    }

    #[test]
    fn what_comes_before_an_aligned_cut_passes_what_waits_for_it() {
        for order in [Order::Arrival, Order::Time] {
            let mut gate = Gate::<u64, u64>::new(1, 1, order, true);
            let mut passed = Vec::new();
            let mut offer = |gate: &mut Gate<u64, u64>, time, message| {
                gate.offer(&time, None, message, KIND, &mut |time, _, m| passed.push((*time, m)));
            };
            // No more credit after the first.
            for (time, message) in [(2, 20), (7, 70), (4, 40)] {
                offer(&mut gate, time, message);
            }
            gate.align(Antichain::from_elem(5));
            for (time, message) in [(9, 90), (3, 30), (5, 50), (9, 91), (8, 80)] {
                offer(&mut gate, time, message);
            }
            assert_eq!(passed, [(2, 20)]);
            assert_eq!(gate.settle(), [3]);
            gate.hear(0, Signal::<u64, ()>::Credit { gate: 0, by: 0, records: 8 });
            let early = match order {
                Order::Arrival => [(4, 40), (3, 30)],
                Order::Time => [(3, 30), (4, 40)],
            };
            assert_eq!(release(&mut gate), early, "nothing at or after 5");
            assert_eq!(gate.settle(), [5]);
            assert_eq!(gate.later.len(), 5);
            assert_eq!(gate.end_alignment(), Some(true));
            let late = match order {
                Order::Arrival => [(7, 70), (9, 90), (5, 50), (9, 91), (8, 80)],
                Order::Time => [(5, 50), (7, 70), (8, 80), (9, 90), (9, 91)],
            };
            assert_eq!(release(&mut gate), late);
            gate.align(Antichain::from_elem(5));
            assert_eq!(gate.end_alignment(), Some(false), "more has passed");
            assert_eq!(gate.settle(), &[] as &[u64]);
            assert_eq!(gate.end_alignment(), None);
        }
    }

    /// A worker has been given something at (0, 7), and is too full to be given more than it needs to go
    /// on. It needs (0, 6), which waits for the aligned cut. The cut waits for (1, 0).
    #[test]
    fn in_the_order_of_time_an_aligned_cut_and_a_full_worker_do_not_wait_for_each_other() {
        let at = |one: u64, other: u64| Product::new(one, other);
        let mut gate = Gate::<Product<u64, u64>, u64>::new(8, 1, Order::Time, true);
        gate.align(Antichain::from_elem(at(0, 5)));
        let full = |up_to| Signal::<_, ()>::Pause { by: 0, up_to: Some(up_to) };
        gate.hear(0, full(at(0, 7)));
        let mut passed = Vec::new();
        for (time, message) in [(at(0, 6), 6), (at(1, 0), 10)] {
            gate.offer(&time, None, message, KIND, &mut |_, _, m| passed.push(m));
        }
        assert_eq!(passed, [10]);
        // One that waits for nothing that is kept out here is obeyed.
        gate.hear(0, full(at(0, 4)));
        gate.offer(&at(2, 0), None, 20, KIND, &mut |_, _, m| passed.push(m));
        assert_eq!(passed, [10]);
        gate.hear(0, Signal::<_, ()>::Resume { by: 0 });
        assert_eq!(release(&mut gate), [(at(2, 0), 20)]);
    }
}

//! A keyed loop: messages that cause messages, in a cycle inside a timely dataflow, with cuts.
//!
//! # The cut, and why it is right
//!
//! Every worker has a number, its count of cuts. Everything it sends carries the count, as the
//! first part of the [`Turn`] it travels at. A cut `k` is *taken* by a worker when its count becomes
//! `k`. A message is *white* for `k` if its sender's count was below `k` when it was sent, else *red*.
//!
//! * **A gate** takes `k` when it is told (STEP 1, in [`gate`](mod@crate::gate)): records it
//!   admitted before are white, later ones red. It holds capabilities for its own count only. One that is
//!   fed by [another loop](mod@crate::marks) is told by that loop's worker, which is its own, between what
//!   left that loop before it took `k` and what left it later, and admits the former first. So these
//!   records are white or red in both loops.
//! * **A worker** takes `k` when it is told (STEP 2) or before it touches anything red for `k`
//!   (STEP 3), whichever is first. So its state at that moment was caused by white messages only.
//! * The cut then holds the state, what waits in the local queue, and, logged one by one (STEP 4),
//!   every white message that arrives later, also one that is refused then. None of it is copied when the cut is taken: what waits is
//!   marked, and handed over message by message before it is handled or in slices (STEP 4a), and so
//!   does the handler with its state (STEP 4b). What a worker does after taking `k` it does with count
//!   `k`, whoever caused it: no new white message arises once all have taken the cut.
//! * Right after taking a cut a worker moves its capabilities to the new count (STEP 5). Hence no
//!   capability for a white message is left once all workers and gates have taken it, and white
//!   messages in flight are consumed: the frontier leaves every turn with a count below `k`. When
//!   neither input can bring such a turn, nothing white can arrive, and the cut is complete as soon as
//!   all of it has been handed over and written (STEP 6), and so has what left before it and is
//!   [held](mod@crate::hold). A gate whose ingress is over keeps no capability that could tell, so the loop
//!   looks whether those of its worker have taken the cut.
//!
//! One cut is open at a time: whoever announces waits until it is complete on all workers or gives it up.
//! A worker that meets a count above that of its open cut abandons the open one, which somebody must
//! have given up, before it takes the other.
//!
//! A loop that goes on from a cut first brings back on each worker the messages that the cut holds for its
//! keys, queued before logged (STEP 0), and reads nothing before. They keep their times, which the
//! capabilities that an operator is born with allow. The counts of all workers begin at the number of
//! that cut or a higher one, and sources replay what the gates had not admitted.
//!
//! Nobody waits in any of this: messages circulate meanwhile, for ever if they like. And the ingress
//! time plays no part in it, so it may stand still, jump, or be partially ordered.
//!
//! Every message is in the cut exactly once: its effect is in the state of whoever handled it before
//! taking the cut; or it waited in a queue; or it was logged; or it is red, and then its cause was
//! handled after the cut and is in it by one of the first three.
//!
//! # What is complete at a cut
//!
//! With each cut `k`, a worker says how far it is complete: the times of all that is live on it when it
//! takes `k` (what waits, what is held, what is kept for events), the ingress frontier that it has
//! noted, and the time of each message that it logs. It is right that *what leaves the loop after `k`
//! leaves at or after a time that some worker says*. For go back from what leaves to what caused it, to
//! what caused that, and so on, as long as it is something that happened on a worker after it took `k`.
//! On the way back, times stay or fall. It ends on some worker, and with one of these:
//!
//! * What was live there when it took `k`. The worker says its time.
//! * A white message. It arrived after the worker took `k`, so it was logged.
//! * A red record of a gate. It arrived after the worker took `k` (STEP 3), and an ingress frontier is at
//!   or before all that arrives after it was seen. The noted one was seen earlier.
//! * An event. Its time is an element of the ingress frontier that was noted by then, which is at or after
//!   one of those noted when `k` was taken; or the last there was before ingress was over, if that is
//!   kept. This is why the noted frontier counts, and not the one that can be seen when `k` is taken:
//!   that ingress is over may be seen already while the last time there was is not kept yet.
//!
//! A red message from a worker is none of these: its sender had taken `k`. So only what all workers say
//! counts, each for itself knows nothing of the others' live times. When none says anything, nothing can
//! come any more.
//!
//! And what they say never goes back. What is live or logged at a later cut was so at `k`, or was caused
//! after it, since nothing white for a complete cut is still on its way; and noted frontiers advance.

use std::rc::Rc;
use std::time::Instant;

use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::{Exchange, Pipeline};
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::dataflow::operators::probe::{Handle as ProbeHandle, Probe};
use timely::dataflow::operators::{Concatenate, Enter, Leave};
use timely::dataflow::{Scope, Stream};
use timely::order::Product;
use timely::progress::frontier::MutableAntichain;
use timely::progress::operate::FrontierInterest;
use timely::progress::{Antichain, Timestamp};

use crate::announcements::{Announcement, Cuts};
use crate::batch::Batch;
use crate::config::{LoopConfig, Order};
use crate::crossing::ByRoute;
use crate::engine::{Engine, Pressure};
use crate::feed::Feed;
use crate::gate::{GateParts, LoopTime, gate};
use crate::handle::{LoopHandle, STOP_GRACE_STEPS, Shared};
use crate::handler::Handler;
use crate::hold::{self, Hold, Link, Outputs};
use crate::holdings::Holdings;
use crate::marks::CutMarks;
use crate::members::Member;
use crate::part::Work;
use crate::positions::{AtCut, OnCut, PositionOf, Positions};
use crate::record::{Addressed, Admitted, Record, Signal};
use crate::stages::{self, Stage};
use crate::turn::{Hops, Turn};
use crate::waker::{Alarm, Waker};

/// One stream into a loop: its name, its records, and how a record becomes a message.
pub struct Ingress<'scope, T: Timestamp, D, M> {
    name: String,
    stream: Stream<'scope, T, Vec<D>>,
    convert: Box<dyn FnMut(D) -> M>,
    on_cut: OnCut<T>,
    position: Option<PositionOf<D>>,
    after: Positions,
    contained: Vec<T>,
    marks: Option<CutMarks>,
    feed: Option<Feed>,
}

impl<'scope, T: Timestamp, D, M> Ingress<'scope, T, D, M> {
    /// An ingress whose records become messages through `convert`.
    pub fn new(
        name: impl Into<String>,
        stream: Stream<'scope, T, Vec<D>>,
        convert: impl FnMut(D) -> M + 'static,
    ) -> Self {
        Ingress {
            name: name.into(),
            stream,
            convert: Box::new(convert),
            on_cut: Box::new(|_| ()),
            position: None,
            after: Positions::new(),
            contained: Vec::new(),
            marks: None,
            feed: None,
        }
    }

    /// Has this worker's gate take cuts where `marks` say, and not where they are announced: of a stream
    /// that another loop emits, on the same worker, in order and without a record more or less. Then a cut
    /// of both loops contains each of these records in exactly one of them.
    ///
    /// Before it takes a cut the gate lets in all that it holds back, so that this is in the cut too. To an
    /// [alignment](crate::CutControl::request_aligned) it pays no heed: these records follow from what other
    /// gates let in.
    ///
    /// The other loop must take the same cuts.
    #[must_use]
    pub fn cut_at(mut self, marks: CutMarks) -> Self {
        self.marks = Some(marks);
        self
    }

    /// Says that the stream is that of a [source](crate::source()), as it is: the source gives no more while this
    /// gate has no room, and goes on when it has.
    #[must_use]
    pub fn fed_by(mut self, feed: Feed) -> Self {
        self.feed = Some(feed);
        self
    }

    /// Has `note` told, each time this worker's gate takes a cut, what the gate had admitted by then.
    #[must_use]
    pub fn on_cut(mut self, note: impl FnMut(AtCut<'_, T>) + 'static) -> Self {
        self.on_cut = Box::new(note);
        self
    }

    /// Tells of records where in their source they stand, if anywhere: a partition and a position
    /// in it. The gate notes the last position that it admitted of each partition, for
    /// [cuts](Self::on_cut), and skips what is not after the position of its partition in `after`: what
    /// a restored cut contains.
    ///
    /// Positions must rise within a partition, in the order in which its records come to one gate. In the
    /// [order of time](Order::Time), and where [aligned](crate::CutControl::request_aligned) cuts are
    /// taken, their times must not go back meanwhile: the time of each is at or after that of the one
    /// before.
    #[must_use]
    pub fn positions(
        mut self,
        position: impl Fn(&D) -> Option<(u64, u64)> + 'static,
        after: Positions,
    ) -> Self {
        self.position = Some(Box::new(position));
        self.after = after;
        self
    }

    /// Says the [latest](AtCut::latest) times of the ingress that a restored cut contains: what is at or after
    /// an element of a frontier then cannot be left out of a cut that is
    /// [aligned](crate::CutControl::request_aligned) to it.
    #[must_use]
    pub fn contained(mut self, latest: impl IntoIterator<Item = T>) -> Self {
        self.contained = latest.into_iter().collect();
        self
    }
}

impl<T: Timestamp, D, M> std::fmt::Debug for Ingress<'_, T, D, M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ingress").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What building a loop gives: what leaves it, and a handle on it.
pub type LoopParts<'scope, T, H> =
    (Stream<'scope, T, Vec<<H as Handler<T>>::Output>>, LoopHandle<T, <H as Handler<T>>::Failure>);

/// What building a loop that holds gives: what leaves it, and a handle on it.
pub type HoldingParts<'scope, T, H> =
    (Outputs<'scope, T, <H as Handler<T>>::Output>, LoopHandle<T, <H as Handler<T>>::Failure>);

/// Sends a stream's records into a keyed loop.
pub trait KeyedLoop<'scope, T: Timestamp, M> {
    /// Handles each record, and every message this causes, where its
    /// [route](Handler::route) says, until none is left.
    ///
    /// What a record at time `t` causes leaves at `t`. `cuts` says when to take cuts; without it none
    /// is ever taken.
    ///
    /// ```
    /// use timely::dataflow::operators::{Capture, ToStream};
    /// use timely::dataflow::operators::capture::Extract;
    /// use timely_statefun_operators::{Handler, KeyedLoop, LoopConfig, Outbox, Verdict};
    ///
    /// /// Counts down, one message a step, and emits when it reaches zero.
    /// struct Countdown(Vec<(u64, u64)>);
    ///
    /// impl Handler<u64> for Countdown {
    ///     type Message = (u64, u64);
    ///     type Output = u64;
    ///     type Failure = String;
    ///     fn route(message: &(u64, u64)) -> u64 { message.1 }
    ///     fn handle(&mut self, (start, left): (u64, u64), outbox: &mut Outbox<'_, u64, (u64, u64)>)
    ///         -> Verdict<String>
    ///     {
    ///         match left {
    ///             0 => self.0.push((*outbox.time(), start)),
    ///             _ => outbox.send((start, left - 1)),
    ///         }
    ///         Verdict::Done
    ///     }
    ///     fn emit(&mut self, emitter: &mut dyn FnMut(&u64, u64)) {
    ///         for (time, start) in self.0.drain(..) { emitter(&time, start) }
    ///     }
    /// }
    ///
    /// let captured = timely::example(|scope| {
    ///     let starts = vec![(3, 3), (7, 7)].to_stream(scope);
    ///     let (done, _handle) =
    ///         starts.keyed_loop("Countdown", LoopConfig::default(), None, Countdown(Vec::new()));
    ///     done.capture()
    /// });
    /// let mut done = captured.extract().remove(0).1;
    /// done.sort();
    /// assert_eq!(done, [3, 7]);
    /// ```
    fn keyed_loop<H>(
        self,
        name: &str,
        config: LoopConfig,
        cuts: Option<Cuts<'scope, T>>,
        handler: H,
    ) -> LoopParts<'scope, T, H>
    where
        H: Handler<T, Message = M>;
}

impl<'scope, T: Timestamp, M: timely::ExchangeData> KeyedLoop<'scope, T, M>
    for Stream<'scope, T, Vec<M>>
{
    fn keyed_loop<H>(
        self,
        name: &str,
        config: LoopConfig,
        cuts: Option<Cuts<'scope, T>>,
        handler: H,
    ) -> LoopParts<'scope, T, H>
    where
        H: Handler<T, Message = M>,
    {
        let scope = self.scope();
        keyed_loop(scope, name, vec![Ingress::new(name, self, |m| m)], config, cuts, handler)
    }
}

/// Builds a keyed loop with any number of ingresses, each with a gate of its own.
///
/// See [`KeyedLoop::keyed_loop`] for what it does.
pub fn keyed_loop<'scope, T, D, H>(
    scope: Scope<'scope, T>,
    name: &str,
    ingresses: Vec<Ingress<'scope, T, D, H::Message>>,
    config: LoopConfig,
    cuts: Option<Cuts<'scope, T>>,
    handler: H,
) -> LoopParts<'scope, T, H>
where
    T: Timestamp,
    D: 'static,
    H: Handler<T>,
{
    let (output, _, handle) = build(scope, name, ingresses, config, cuts, None, handler);
    (output, handle)
}

/// Like [`keyed_loop`], and keeps what leaves the loop until the cut it belongs to is released, or
/// [a part](Hold::keeps) of it.
///
/// The frontier of what is kept does not pass its times before it goes. A cut is complete only when what is
/// kept and left before it has been [handed over](Hold::on_cut) on this worker.
pub fn holding_loop<'scope, T, D, H>(
    scope: Scope<'scope, T>,
    name: &str,
    ingresses: Vec<Ingress<'scope, T, D, H::Message>>,
    config: LoopConfig,
    cuts: Cuts<'scope, T>,
    hold: Hold<T, H::Output>,
    handler: H,
) -> HoldingParts<'scope, T, H>
where
    T: Timestamp,
    D: 'static,
    H: Handler<T>,
{
    let (free, kept, handle) =
        build(scope, name, ingresses, config, Some(cuts), Some(hold), handler);
    (Outputs { free, kept: kept.expect("the loop was built with a hold") }, handle)
}

/// What a loop without a hold lets out, or does not keep; what it keeps, if it has a hold; and its handle.
type Built<'scope, T, D, F> =
    (Stream<'scope, T, Vec<D>>, Option<Stream<'scope, T, Vec<D>>>, LoopHandle<T, F>);

fn build<'scope, T, D, H>(
    scope: Scope<'scope, T>,
    name: &str,
    ingresses: Vec<Ingress<'scope, T, D, H::Message>>,
    config: LoopConfig,
    cuts: Option<Cuts<'scope, T>>,
    hold: Option<Hold<T, H::Output>>,
    handler: H,
) -> Built<'scope, T, H::Output, H::Failure>
where
    T: Timestamp,
    D: 'static,
    H: Handler<T>,
{
    let config = config.bounded();
    let shared = Rc::new(Shared::new());
    let admitted = ProbeHandle::new();
    let (cuts, member) = cuts.map(|cuts| cuts.join(scope, name, config.cuts_before)).unzip();
    let member = member.flatten();
    if let Some(member) = &member
        && ingresses.iter().all(|ingress| ingress.marks.is_some())
    {
        member.keeps_no_alignment();
    }
    let region = format!("Loop scope [{name}]");
    let (free, kept) = scope.scoped::<LoopTime<T>, _, _>(&region, |inner| {
        let cuts = cuts.map(|cuts| cuts.enter(inner));
        // The loop's outputs come first: its records return to itself and its signals go to gates.
        let mut builder = OperatorBuilder::new(format!("Loop [{name}]"), inner);
        let none = || Vec::<(usize, Antichain<_>)>::new();
        let (records, returned) = builder.new_output_connection(none());
        let (outputs, output) = builder.new_output_connection(none());
        let (signals, heard) =
            builder.new_output_connection::<Vec<Addressed<T, H::Failure>>, _>(none());

        let keyed_loop = inner.activator_for(builder.operator_info().address);
        let gates = ingresses.into_iter().enumerate().map(|(number, ingress)| {
            let parts = GateParts {
                name: ingress.name,
                number: u32::try_from(number).expect("fewer than 2^32 ingresses"),
                convert: ingress.convert,
                on_cut: ingress.on_cut,
                position: ingress.position,
                after: ingress.after,
                contained: ingress.contained,
                marks: ingress.marks,
                feed: ingress.feed,
                keyed_loop: keyed_loop.clone(),
                ingress: ingress.stream.enter(inner),
                signals: held_back(heard.clone(), &config),
                cuts: cuts.clone().map(|cuts| held_back(cuts, &config)),
            };
            let (records, passed) = gate::<T, D, H>(inner, parts, &config, &shared);
            passed.leave(scope).probe_with(&admitted);
            held_back(records, &config)
        });
        let gates: Vec<_> = gates.collect();
        let ingress = match gates.len() {
            1 => gates.into_iter().next().expect("there is one"),
            _ => inner.concatenate(gates),
        };
        let (free, kept, link) = match hold {
            None => (output, None, None),
            Some(hold) => {
                let link = Rc::new(Link::of(keyed_loop));
                let slice = config.cut_slice;
                let Outputs { free, kept } =
                    hold::hold(inner, name, output, hold, slice, Rc::clone(&link));
                (free, Some(kept), Some(link))
            }
        };
        let cuts = cuts.map(|cuts| held_back(cuts, &config));
        let (returned, heard) = (held_back(returned, &config), held_back(heard, &config));
        let ends =
            LoopEnds { ingress, returned, heard, cuts, records, outputs, signals, link, member };
        build_loop(builder, ends, config, handler, Rc::clone(&shared), inner);
        (free.leave(scope), kept.map(|kept| kept.leave(scope)))
    });
    let dataflow = scope.addr()[0];
    (free, kept, LoopHandle { shared, admitted, dataflow })
}

/// What goes to workers, as a test holds it back.
#[cfg(feature = "testing")]
fn held_back<'scope, T: Timestamp, D: 'static>(
    stream: Stream<'scope, T, Vec<D>>,
    config: &LoopConfig,
) -> Stream<'scope, T, Vec<D>> {
    crate::delay::delay(stream, config.delays.as_ref())
}

/// What goes to workers, which nobody holds back.
#[cfg(not(feature = "testing"))]
fn held_back<S>(stream: S, _: &LoopConfig) -> S {
    stream
}

type Output<T, C> = timely::dataflow::channels::pushers::Output<LoopTime<T>, C>;

/// The streams into the loop's operator and its outputs.
struct LoopEnds<'scope, T: Timestamp, H: Handler<T>> {
    ingress: Stream<'scope, LoopTime<T>, Vec<Admitted<T, H::Message>>>,
    returned: Stream<'scope, LoopTime<T>, Vec<Record<T, H::Message>>>,
    heard: Stream<'scope, LoopTime<T>, Vec<Addressed<T, H::Failure>>>,
    cuts: Option<Stream<'scope, LoopTime<T>, Vec<Announcement<T>>>>,
    records: Output<T, Vec<Record<T, H::Message>>>,
    outputs: Output<T, Vec<H::Output>>,
    signals: Output<T, Vec<Addressed<T, H::Failure>>>,
    /// To what keeps the outputs.
    link: Option<Rc<Link>>,
    /// To the decider, on its worker.
    member: Option<Member<T>>,
}

const RECORDS: usize = 0;
const OUTPUTS: usize = 1;

/// The builder of an output whose records are sent one by one.
type Batching<T, D> = OutputBuilder<LoopTime<T>, CapacityContainerBuilder<Vec<D>>>;

fn build_loop<'scope, T: Timestamp, H: Handler<T>>(
    mut builder: OperatorBuilder<'scope, LoopTime<T>>,
    ends: LoopEnds<'scope, T, H>,
    config: LoopConfig,
    handler: H,
    shared: Rc<Shared<H::Failure>>,
    scope: Scope<'scope, LoopTime<T>>,
) {
    let (worker, peers) = (scope.index(), scope.peers());
    let (link, member) = (ends.link, ends.member);
    let after = |hops| {
        let path = Product::new(Default::default(), Hops(hops));
        [RECORDS, OUTPUTS].map(|port| (port, Antichain::from_elem(path.clone())))
    };
    // Two ports, not a `concat`: the ingress frontier alone tells us that no more messages start
    // at a time. Their union would wait for messages we are about to send ourselves.
    let by_route = ByRoute(|r: &Admitted<T, H::Message>| H::route(&r.message));
    let mut ingress = builder.new_input_connection(ends.ingress, by_route, after(0));
    // A record that returns has made one hop; this is what keeps the cycle's times apart.
    let by_route = ByRoute(|r: &Record<T, H::Message>| H::route(&r.message));
    let mut returned = builder.new_input_connection(ends.returned, by_route, after(1));
    let to_worker = Exchange::new(|s: &Addressed<T, H::Failure>| u64::from(s.worker));
    let unconnected = Vec::<(usize, Antichain<_>)>::new();
    let mut heard = builder.new_input_connection(ends.heard, to_worker, unconnected.clone());
    builder.set_notify_for(2, FrontierInterest::Never);
    let mut announcements = ends.cuts.map(|cuts| {
        let input = builder.new_input_connection(cuts, Pipeline, unconnected);
        // That no more will come ends the loop, if nothing else keeps it.
        builder.set_notify_for(3, FrontierInterest::IfCapability);
        input
    });

    let mut records: Batching<T, Record<T, H::Message>> = OutputBuilder::from(ends.records);
    let mut outputs: Batching<T, H::Output> = OutputBuilder::from(ends.outputs);
    let mut signals: Batching<T, Addressed<T, H::Failure>> = OutputBuilder::from(ends.signals);
    let address = builder.operator_info().address;
    let waker = Waker::new(scope.worker().sync_activator_for(address.to_vec()));
    let mut alarm = Alarm::new(scope.activator_for(Rc::clone(&address)));
    let activator = scope.activator_for(address);

    builder.build(move |mut born| {
        let (spin, order) = (config.spin, config.order);
        #[cfg(test)]
        let capabilities_stay = config.capabilities_stay;
        let mut engine = Engine::new(handler, config, worker, peers);
        engine.handler.connect(waker.clone());
        // Signals concern no time in particular, and no frontier that anybody looks at depends on
        // them: one capability serves until the loop is over and takes no more cuts.
        let mut signalling = born.pop();
        // The others follow the ingress frontier, so that events can happen that no record causes.
        let mut holdings = Holdings::<T, 2>::born(born, order);
        let mut idle_since: Option<Instant> = None;
        let mut steps_stopped = 0;
        let mut restoring = true;
        move |frontiers| {
            waker.clear();
            heard.for_each(|_, signals| {
                for signal in signals.drain(..) {
                    match signal.signal {
                        Signal::Stop(failure) => {
                            shared.stopped.borrow_mut().get_or_insert(failure);
                        }
                        Signal::Arrived { by, records } => engine.note_arrived(by, records),
                        // These are for the gates.
                        Signal::Credit { .. }
                        | Signal::Pause { .. }
                        | Signal::Resume { .. }
                        | Signal::Class { .. } => {}
                    }
                }
            });
            if let Some(failure) = &*shared.stopped.borrow() {
                // What is unread stays unread and what is held stays held: no frontier passes it.
                steps_stopped += 1;
                assert!(
                    steps_stopped < STOP_GRACE_STEPS || shared.stop_seen.get(),
                    "the program did not end a dataflow whose loop had stopped: {failure}"
                );
                if !shared.stop_seen.get() {
                    activator.activate();
                }
                if let Some(member) = &member {
                    member.stop();
                }
                return;
            }
            // STEP 0: what a restored cut held comes before all else.
            if restoring {
                let restored = engine.restore();
                // What comes back as output leaves while the earliest times are held.
                emit(&mut engine.handler, &holdings, &mut outputs);
                match restored {
                    Ok(Work::Done) => restoring = false,
                    Ok(Work::More) => return activator.activate(),
                    Ok(Work::Waiting) => return,
                    Err(failure) => {
                        if let Some(capability) = &signalling {
                            let mut output = signals.activate();
                            let mut session = output.session(capability);
                            let give = |told| session.give(told);
                            tell(&mut engine, worker, peers, Some(&failure), give);
                        }
                        *shared.stopped.borrow_mut() = Some(failure);
                        return activator.activate();
                    }
                }
            }
            // STEP 2: take what is announced.
            if let Some(announcements) = &mut announcements {
                announcements.for_each(|_, announced| {
                    for announcement in announced.drain(..) {
                        match announcement {
                            Announcement::Cut { cut, .. } => engine.take_cut(cut),
                            // This is for the gates.
                            Announcement::Align(_) => {}
                        }
                    }
                });
            }
            let mut failure = None;
            ingress.for_each(|batch, records| {
                let turn = batch.time().inner;
                engine.take_cut(turn.cuts); // STEP 3: before anything red is touched.
                holdings.receive(&batch, turn);
                engine.receive_admitted(turn.cuts, records); // STEP 4: logs what is white.
            });
            returned.for_each(|batch, records| {
                let turn = batch.time().inner;
                if turn.cuts > engine.cuts.taken() && engine.refused_on_arrival() {
                    // What was refused before the cut belongs to it, and so does what came of it.
                    emit(&mut engine.handler, &holdings, &mut outputs);
                }
                engine.take_cut(turn.cuts); // STEP 3
                let hops = turn.hops + 1;
                holdings.receive(&batch, Turn { cuts: turn.cuts, hops });
                let refused = engine.receive_returned(turn.cuts, hops, records); // STEP 4
                failure = failure.take().or(refused);
            });
            engine.note_frontier(outer_frontier(&frontiers[0]));
            // STEP 5: nothing white may be sent from now on.
            #[cfg(test)]
            let after = Turn::after_cut(if capabilities_stay { 0 } else { engine.cuts.taken() });
            #[cfg(not(test))]
            let after = Turn::after_cut(engine.cuts.taken());
            #[cfg(statefun_planted)]
            let after = Turn::after_cut(crate::planted::after(after.cuts));
            holdings.raise(after);
            if let Some(link) = &link {
                link.ask(engine.cuts.taken());
            }

            if engine.refused_on_arrival() {
                emit(&mut engine.handler, &holdings, &mut outputs);
            }
            // A batch may have come at an earlier time than any of its records. Unless that time is
            // left before anything is sent on, a record that goes round for ever would carry it
            // round, and a frontier would wait for what is long over.
            if failure.is_none() {
                holdings.follow(engine.settle());
            }

            let mut worked = false;
            if failure.is_none() {
                let mut output = records.activate();
                let mut shipment = Batch::new(&holdings, RECORDS, &mut output);
                failure = engine.poll(&mut shipment);
                if order == Order::Time {
                    engine.open_stage(first_to_come(frontiers, engine.cuts.taken()));
                }
                worked = engine.has_work();
                if failure.is_none() && worked {
                    failure = engine.run(&mut shipment);
                }
                // In the order of time a stage is handled whole, and so is what is begun in it.
                if order == Order::Arrival || !engine.has_work() {
                    engine.handler.flush();
                }
            }
            emit(&mut engine.handler, &holdings, &mut outputs);
            if let Some(capability) = &signalling {
                let mut output = signals.activate();
                let mut session = output.session(capability);
                tell(&mut engine, worker, peers, failure.as_ref(), |told| session.give(told));
            }
            count(&mut engine, &shared);
            if failure.is_some() {
                *shared.stopped.borrow_mut() = failure;
                activator.activate();
                return;
            }
            let awaits = engine.awaits();
            holdings.follow(engine.settle());
            shared.update(|stats| stats.live_times = engine.flow.times.len());

            // STEPS 4a, 4b and 6: a cut is complete when all of it is written and nothing white for it
            // can arrive. Gates that are over hold nothing that a frontier would wait for.
            let taken = engine.cuts.taken();
            let kept = link.as_ref().is_none_or(|link| link.is_written(taken));
            let others_done = kept && shared.gates_have_taken(taken);
            let cut = engine.work_on_cut(lowest_count(frontiers), others_done);
            if let Some(busy) = engine.take_busy_with_cut() {
                shared.cut_times.borrow_mut().note(busy);
            }
            if cut.completed {
                shared.update(|stats| stats.cuts_complete += 1);
            }
            // On all workers: for whatever is live on one of them, it holds what port 1 waits for.
            let over = frontiers[..2].iter().all(|frontier| frontier.is_empty());
            let over = over && engine.is_empty();
            if let Some(member) = &member {
                member.note(&engine.flow.ingress, over);
            }
            // A handler may fail as long as there are cuts to take, and others must hear of it.
            let cuts_are_over = frontiers.get(3).is_none_or(|frontier| frontier.is_empty());
            if over && cuts_are_over && !engine.cut_is_open() {
                signalling = None;
            }
            alarm.set(awaits.poll_after);
            if engine.has_work() || cut.more {
                activator.activate();
                idle_since = None;
            } else if peers > 1 && !spin.is_zero() {
                if worked {
                    idle_since = Some(Instant::now());
                }
                match idle_since {
                    Some(since) if since.elapsed() < spin => activator.activate(),
                    _ => idle_since = None,
                }
            }
        }
    });
}

/// Lets what the handler emitted leave, each at its own time.
fn emit<T: Timestamp, H: Handler<T>>(
    handler: &mut H,
    holdings: &Holdings<T, 2>,
    outputs: &mut Batching<T, H::Output>,
) {
    let mut output = outputs.activate();
    let mut batch: Vec<H::Output> = Vec::new();
    let mut of: Option<T> = None;
    let mut send = |time: &T, batch: &mut Vec<H::Output>| {
        let capability = holdings.exactly(time, OUTPUTS);
        output.session(&capability).give_container(batch);
        batch.clear();
    };
    handler.emit(&mut |time, output| {
        match &of {
            Some(before) if before == time => {}
            Some(before) => {
                send(before, &mut batch);
                of = Some(time.clone());
            }
            None => of = Some(time.clone()),
        }
        batch.push(output);
    });
    if let Some(time) = of {
        send(&time, &mut batch);
    }
}

/// Tells the gates of what was handled and of room, the workers of what has arrived, and everybody
/// of a failure.
fn tell<T: Timestamp, H: Handler<T>>(
    engine: &mut Engine<T, H>,
    worker: usize,
    peers: usize,
    failure: Option<&H::Failure>,
    mut give: impl FnMut(Addressed<T, H::Failure>),
) {
    let by = worker as u32;
    let everybody = 0..peers as u32;
    for (gate, records) in engine.take_credit() {
        let signal = Signal::Credit { gate: gate.gate, by, records };
        give(Addressed { worker: gate.worker, signal });
    }
    for (worker, records) in engine.take_arrived() {
        give(Addressed { worker: worker as u32, signal: Signal::Arrived { by, records } });
    }
    if let Some(pressure) = engine.pressure_changed() {
        for worker in everybody.clone() {
            let signal = match pressure.clone() {
                Pressure::Full { up_to } => Signal::Pause { by, up_to },
                Pressure::Room => Signal::Resume { by },
            };
            give(Addressed { worker, signal });
        }
    }
    let to_all = everybody.clone();
    engine.handler.classes_changed(&mut |class, held_back| {
        for worker in to_all.clone() {
            give(Addressed { worker, signal: Signal::Class { by, class, held_back } });
        }
    });
    if let Some(failure) = failure {
        for worker in everybody {
            give(Addressed { worker, signal: Signal::Stop(failure.clone()) });
        }
    }
}

fn count<T: Timestamp, H: Handler<T>>(engine: &mut Engine<T, H>, shared: &Shared<H::Failure>) {
    let counts = engine.take_counts();
    let (waiting, waiting_bytes) = engine.waiting();
    shared.update(|stats| {
        stats.handled += counts.handled;
        stats.sent_here += counts.sent_here;
        stats.sent_away += counts.sent_away;
        stats.logged += counts.logged;
        stats.waiting = waiting;
        stats.waiting_bytes = waiting_bytes;
    });
}

fn outer_frontier<T: Timestamp>(frontier: &MutableAntichain<LoopTime<T>>) -> Antichain<T> {
    let mut outer = Antichain::new();
    for time in frontier.frontier().iter() {
        outer.insert_ref(&time.outer);
    }
    outer
}

/// The first stage of which a message can still arrive from gates or workers.
fn first_to_come<T: Timestamp>(
    frontiers: &[MutableAntichain<LoopTime<T>>],
    cuts: u64,
) -> Option<Stage<T>> {
    let admitted = stages::bound(frontiers[0].frontier().iter(), 0, cuts);
    let returned = stages::bound(frontiers[1].frontier().iter(), 1, cuts);
    admitted.into_iter().chain(returned).min()
}

/// The lowest count of cuts with which anything can still arrive from gates or workers.
fn lowest_count<T: Timestamp>(frontiers: &[MutableAntichain<LoopTime<T>>]) -> Option<u64> {
    let inputs = frontiers[..2].iter();
    inputs.flat_map(|f| f.frontier().iter().map(|t| t.inner.cuts).min()).min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handler::{Outbox, Verdict};
    use timely::dataflow::operators::Input;

    /// A message that goes round for ever.
    struct Wheel;

    impl Handler<u64> for Wheel {
        type Message = u64;
        type Output = ();
        type Failure = String;
        fn route(message: &u64) -> u64 {
            *message
        }
        fn handle(&mut self, m: u64, outbox: &mut Outbox<'_, u64, u64>) -> Verdict<String> {
            outbox.send(m);
            Verdict::Done
        }
    }

    /// How many of three cuts end within many steps while a message goes round for ever.
    fn cuts_that_end(capabilities_stay: bool) -> u64 {
        timely::execute_directly(move |worker| {
            let config = LoopConfig {
                capabilities_stay,
                budget_messages: 8,
                activation_max: None,
                ..LoopConfig::default()
            };
            let (mut input, mut cuts, handle) = worker.dataflow::<u64, _, _>(|scope| {
                let (input, stream) = scope.new_input::<Vec<u64>>();
                let (cuts, announced) = scope.new_input::<Vec<Announcement<u64>>>();
                let (_, handle) = stream.keyed_loop("wheel", config, Some(announced.into()), Wheel);
                (input, cuts, handle)
            });
            input.send(1);
            for step in 0..3000 {
                input.advance_to(step + 1);
                if step % 500 == 250 && step / 500 < 3 {
                    cuts.send(Announcement::cut(step / 500 + 1));
                    cuts.flush();
                }
                worker.step();
            }
            let complete = handle.stats().cuts_complete;
            worker.drop_dataflow(handle.dataflow);
            complete
        })
    }

    /// The second negative control of the cut (the first is in `tests/conservation.rs`): capabilities
    /// that stay behind at a cut could still send white messages, so no cut ever ends.
    #[test]
    fn without_the_downgrade_no_cut_ends() {
        assert_eq!(cuts_that_end(false), 3);
        assert_eq!(cuts_that_end(true), 0);
    }
}

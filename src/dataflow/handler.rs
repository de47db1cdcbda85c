//! The functions of one worker as the handler of its loop: passes messages between the two and
//! decides nothing.

use std::cell::{Cell, RefCell};
use std::cmp::Ordering;
use std::rc::Rc;

use timely::ExchangeData;
use timely::progress::Timestamp;
use timely_statefun_operators::{
    Awaits, CutMarks, Handler, Held, Inbox, Outbox, Place, Places, Restore, Verdict, Waker, Work,
};

use super::cutting::{Cutter, Cutting, own};
use super::egresses::dead_letters;
use super::meters::{Beside, CallMeters, LaterHandle, Meters};
use super::sources::Stops;
use crate::clock::Clock;
use crate::dead_letter::Stopped;
use crate::dispatch::Surroundings;
use crate::dispatch::{self, Batch, Called, Dispatcher, Entrance, Loads, Names, Routed};
use crate::function::Code;
use crate::functions::Functions;
use crate::metering::Spread;
use crate::placement;
use crate::remote::Caller;
use crate::runner::Runner;

/// The egresses that are ingresses of other functions, by number, and where cuts lie in them.
pub(super) type Chains = Rc<RefCell<Vec<(usize, CutMarks)>>>;

pub(super) struct FunctionHandler<M, T: Timestamp> {
    dispatcher: Dispatcher<M, T, Held>,
    /// If snapshots are taken.
    cutter: Option<Cutter<M, T>>,
    chains: Chains,
    /// Sources that may have failed.
    stops: Vec<Rc<Stops>>,
    worker: usize,
    clock: Clock,
    operations: Runner<Result<M, String>>,
    calls: Caller,
    /// If something is told of what is done here.
    meters: Option<(Meters<T>, CallMeters)>,
    #[cfg(feature = "testing")]
    watch: Option<Rc<dispatch::Watch<M, T>>>,
}

impl<M: ExchangeData, T: Timestamp> FunctionHandler<M, T> {
    pub(super) fn new(
        functions: Functions<M, T>,
        names: Names,
        dead_letters_read: Rc<Cell<bool>>,
        (worker, peers): (usize, usize),
        cutting: Option<&Cutting<'_, T>>,
        (chains, handle): (Chains, LaterHandle<T>),
    ) -> Self {
        let bodies = functions.bound();
        let endpoints = bodies.map(|(_, body)| match &body.code {
            Code::Remote(code) => Some(&code.endpoint),
            Code::Embedded(_) | Code::Awaited(_) => None,
        });
        #[cfg_attr(not(feature = "testing"), expect(unused_mut))]
        let mut calls = Caller::new(functions.runtime.clone(), endpoints);
        #[cfg(feature = "testing")]
        if let Some(answers) = &functions.answers {
            calls.answered_by(answers);
        }
        let lost = || Err("the runtime has shut down".to_owned());
        let operations = Runner::new(functions.runtime.clone(), lost);
        let (name, clock) = (functions.name.clone(), functions.clock.clone());
        let metering = functions.metering.clone();
        let egresses = functions.egresses.iter().map(|egress| egress.name).collect();
        #[cfg(feature = "testing")]
        let watch = functions.watch.clone();
        let mut dispatcher =
            functions.into_dispatcher(names, dead_letters::<M>(), dead_letters_read, worker);
        let meters = Meters::new(metering, &name, worker, egresses, dispatcher.loads(), handle);
        let meters = meters.map(|meters| {
            let calls = meters.of_calls();
            (meters, calls)
        });
        let cutter =
            cutting.map(|cutting| Cutter::new(cutting, &name, (worker, peers), &mut dispatcher));
        #[cfg(feature = "testing")]
        if let Some(watch) = &watch {
            watch.note(&dispatcher, cutter.as_ref().is_none_or(Cutter::is_restored));
        }
        FunctionHandler {
            dispatcher,
            cutter,
            chains,
            stops: Vec::new(),
            worker,
            clock,
            operations,
            calls,
            meters,
            #[cfg(feature = "testing")]
            watch,
        }
    }

    /// Stops when one of these says so.
    pub(super) fn stopped_by(mut self, stops: Vec<Rc<Stops>>) -> Self {
        self.stops = stops;
        self
    }
}

impl<M, T: Timestamp> FunctionHandler<M, T> {
    /// How many messages each bin has had.
    pub(super) fn loads(&self) -> Loads {
        self.dispatcher.loads()
    }

    fn beside(cutter: Option<&Cutter<M, T>>) -> Beside {
        cutter.map_or(Beside { held: None, snapshots: None }, Cutter::figures)
    }
}

/// What is counted when a dataflow ends is all there was.
impl<M, T: Timestamp> Drop for FunctionHandler<M, T> {
    fn drop(&mut self) {
        if let Some((meters, _)) = &mut self.meters {
            meters.tell_last(&mut self.dispatcher, Self::beside(self.cutter.as_ref()));
        }
    }
}

impl<M, T: Timestamp> Surroundings<M, T> for Outbox<'_, T, Routed<M>> {
    type Held = Held;

    fn time(&self) -> &T {
        Outbox::time(self)
    }

    fn frontier(&self) -> &[T] {
        Outbox::frontier(self)
    }

    fn send(&mut self, message: Routed<M>) -> bool {
        Outbox::send_and_tell(self, message)
    }

    fn hold(&mut self) -> Held {
        Outbox::hold(self)
    }

    fn put_off(&mut self, record: bool) -> Held {
        Outbox::put_off(self, record)
    }

    fn stand_behind(&mut self, first: &dispatch::Place<T>, behind: &mut Held) {
        let dispatch::Place { time, depth, record } = first;
        Outbox::stand_behind(self, Place { time, depth: *depth, record: *record }, behind);
    }

    fn resume_first(&mut self, held: Option<Held>, message: Routed<M>) {
        match held {
            Some(held) => Outbox::resume_first(self, held, message),
            None => self.event_first(message),
        }
    }

    fn expect_event(&mut self) {
        Outbox::expect_event(self);
    }

    fn release(&mut self, held: Held) {
        Outbox::release(self, held);
    }

    fn place(&self, held: &Held) -> dispatch::Place<T> {
        own(self.place_of(held))
    }
}

impl<M, T: Timestamp> Entrance<M, T> for Inbox<'_, T, Routed<M>> {
    type Held = Held;

    fn ingress_is_over(&self) -> bool {
        self.frontier().is_empty()
    }

    fn event_time(&self) -> Option<T> {
        Inbox::event_time(self).cloned()
    }

    fn room(&self) -> usize {
        Inbox::room(self)
    }

    fn event(&mut self, message: Routed<M>) {
        Inbox::event(self, message);
    }

    fn resume(&mut self, held: Option<Held>, message: Routed<M>) {
        match held {
            Some(held) => Inbox::resume(self, held, message),
            None => Inbox::event(self, message),
        }
    }

    fn let_pass(&mut self, first: &Held, behind: &mut Held) -> bool {
        Inbox::let_pass(self, first, behind)
    }

    fn hold_later(&mut self, held: &Held, time: T) -> Held {
        Inbox::hold_later(self, held, time)
    }

    fn resume_first(&mut self, held: Option<Held>, message: Routed<M>) {
        match held {
            Some(held) => Inbox::resume_first(self, held, message),
            None => self.event_first(message),
        }
    }

    fn place(&self, held: &Held) -> dispatch::Place<T> {
        own(self.place_of(held))
    }
}

fn verdict(verdict: dispatch::Verdict) -> Verdict<Stopped> {
    match verdict {
        dispatch::Verdict::Done => Verdict::Done,
        dispatch::Verdict::GivenUp => Verdict::Undone,
        dispatch::Verdict::Stop(stopped) => Verdict::Stop(stopped),
    }
}

impl<M: ExchangeData, T: Timestamp> Handler<T> for FunctionHandler<M, T> {
    type Message = Routed<M>;
    type Output = Batch;
    type Failure = Stopped;

    fn route(message: &Routed<M>) -> u64 {
        placement::bin(message.head.hash)
    }

    fn handle(
        &mut self,
        message: Routed<M>,
        outbox: &mut Outbox<'_, T, Routed<M>>,
    ) -> Verdict<Stopped> {
        verdict(self.dispatcher.deliver(message, outbox))
    }

    fn compare(&self, one: &Routed<M>, other: &Routed<M>) -> Ordering {
        self.dispatcher.compare(&one.head, &other.head)
    }

    fn class(message: &Routed<M>) -> u32 {
        message.head.function
    }

    fn classes_changed(&mut self, changed: &mut dyn FnMut(u32, bool)) {
        self.dispatcher.held_back_changed(changed);
    }

    fn connect(&mut self, waker: Waker) {
        let turned = waker.clone();
        self.clock.on_turn(move || turned.wake());
        self.operations.connect(waker.clone());
        self.stops.iter().for_each(|stops| stops.connect(waker.clone()));
        if let Some(cutter) = &self.cutter {
            cutter.connect(&waker);
        }
        self.calls.connect(waker);
    }

    fn restore(&mut self, back: &mut Restore<'_, T, Routed<M>>) -> Result<Work, Stopped> {
        match &mut self.cutter {
            Some(cutter) => cutter.restore(self.clock.now_ms(), &mut self.dispatcher, back),
            None => Ok(Work::Done),
        }
    }

    fn poll(&mut self, inbox: &mut Inbox<'_, T, Routed<M>>) -> Result<(), Stopped> {
        if let Some(reason) = self.stops.iter().find_map(|stops| stops.reason()) {
            return Err(Stopped { address: None, reason, worker: self.worker });
        }
        let now_ms = self.clock.now_ms();
        self.dispatcher.note_time(now_ms);
        self.dispatcher.look_who_records();
        if let Some((meters, _)) = &mut self.meters
            && meters.are_due(now_ms)
        {
            // What the loop says of itself is of the end of the last activation, and so is all else.
            let beside = Self::beside(self.cutter.as_ref());
            meters.tell(now_ms, inbox.earliest(), &mut self.dispatcher, beside);
        }
        #[cfg(feature = "testing")]
        if let Some(watch) = &self.watch {
            let time = inbox.event_time().cloned().unwrap_or_else(T::minimum);
            watch.visit(&mut self.dispatcher, &time);
        }
        if let Some(cutter) = &mut self.cutter {
            cutter.poll(&mut self.dispatcher)?;
        }
        while let Some((key, outcome)) = self.operations.ended() {
            if let dispatch::Verdict::Stop(stopped) =
                self.dispatcher.end_operation(key, outcome, inbox)
            {
                return Err(stopped);
            }
        }
        while let Some((key, Called { answer, failed })) = self.calls.ended() {
            self.dispatcher.note_failed_attempts(key, failed);
            self.dispatcher.end_call(key, answer, inbox);
        }
        self.dispatcher.poll(inbox);
        Ok(())
    }

    fn flush(&mut self) {
        for (key, task) in self.dispatcher.startable() {
            self.operations.add(key, task);
        }
        self.operations.start();
        let (calls, meters) = (&mut self.calls, &mut self.meters);
        self.dispatcher.requests(&mut |key, function, request| {
            let took = meters.as_mut().map(|(_, calls)| calls.of(&request.target.function_type));
            calls.add(key, function, &request, took.unwrap_or_else(Spread::silent));
        });
        self.calls.start();
        #[cfg(feature = "testing")]
        if let Some(watch) = &self.watch {
            let is_restored = self.cutter.as_ref().is_none_or(Cutter::is_restored);
            watch.note(&self.dispatcher, is_restored);
        }
    }

    fn awaits(&self) -> Awaits {
        let due = self.dispatcher.wake_at().and_then(|due_ms| self.clock.until(due_ms));
        let cuts = self.cutter.as_ref().and_then(Cutter::poll_after);
        let meters = self.meters.as_ref();
        let tell = meters.and_then(|(meters, _)| meters.due_after(&self.clock));
        let poll_after = due.into_iter().chain(cuts).chain(tell).min();
        Awaits { events: self.dispatcher.awaits_events(), poll_after }
    }

    fn foresee<'a>(&mut self, upcoming: impl Iterator<Item = &'a Routed<M>>)
    where
        M: 'a,
    {
        self.dispatcher.foresee(upcoming);
    }

    fn refuse(&mut self, message: Routed<M>, time: &T) -> Verdict<Stopped> {
        verdict(self.dispatcher.refuse(message, time))
    }

    fn emit(&mut self, emitter: &mut dyn FnMut(&T, Batch)) {
        self.dispatcher.drain_egresses(emitter);
    }

    fn is_full(&self) -> bool {
        self.cutter.as_ref().is_some_and(|cutter| cutter.is_full(&self.dispatcher))
    }

    fn take_cut(&mut self, cut: u64, now: Option<&T>) {
        if let Some(cutter) = &mut self.cutter {
            cutter.take_cut(cut, now, &mut self.dispatcher);
        }
        // What was emitted before has left.
        for (egress, marks) in self.chains.borrow().iter() {
            marks.mark(cut, self.dispatcher.has_left(*egress));
        }
    }

    fn queued(&mut self, cut: u64, place: Place<'_, T>, message: &Routed<M>) {
        if let Some(cutter) = &mut self.cutter {
            cutter.write_waiting(cut, place, message, false, &mut self.dispatcher);
        }
    }

    fn log(&mut self, cut: u64, place: Place<'_, T>, message: &Routed<M>) {
        if let Some(cutter) = &mut self.cutter {
            cutter.write_waiting(cut, place, message, true, &mut self.dispatcher);
        }
    }

    fn work_on_cut(&mut self, cut: u64, budget: usize, places: &Places<'_, T>) -> Work {
        match &mut self.cutter {
            Some(cutter) => cutter.work(cut, budget, places, &mut self.dispatcher),
            None => Work::Done,
        }
    }

    fn complete_cut(&mut self, cut: u64, complete: &[T]) {
        if let Some(cutter) = &mut self.cutter {
            cutter.complete(cut, complete);
        }
    }
}

//! The functions of one worker as the handler of its loop: passes messages between the two and
//! decides nothing.

use std::cell::Cell;
use std::rc::Rc;

use timely::ExchangeData;
use timely::progress::Timestamp;
use timely_statefun_operators::{Handler, Outbox, Verdict};

use crate::dataflow::egresses::dead_letters;
use crate::dead_letter::Stopped;
use crate::dispatch::{Batch, Bound, Dispatcher, Egresses, Names, Outcome, Routed, Surroundings};
use crate::functions::Functions;
use crate::placement;

pub(super) struct FunctionHandler<M, T>(Dispatcher<M, T>);

impl<M: ExchangeData, T: Timestamp> FunctionHandler<M, T> {
    pub(super) fn new(
        functions: Functions<M, T>,
        names: Names,
        dead_letters_read: Rc<Cell<bool>>,
        worker: usize,
    ) -> Self {
        let named = functions.functions.into_iter();
        let bound = Bound {
            functions: named.map(|(name, body)| (crate::TypeName::fixed(name), body)).collect(),
            namespaces: functions.namespaces,
            depth_max: functions.limits.depth_max,
            when_full: functions.limits.when_full,
            worker,
        };
        let egresses = Egresses::new(functions.egresses, dead_letters::<M>(), dead_letters_read);
        FunctionHandler(Dispatcher::new(bound, names, egresses))
    }
}

impl<M, T: Timestamp> Surroundings<M, T> for Outbox<'_, T, Routed<M>> {
    fn time(&self) -> &T {
        Outbox::time(self)
    }

    fn frontier(&self) -> &[T] {
        Outbox::frontier(self)
    }

    fn send(&mut self, message: Routed<M>) {
        Outbox::send(self, message);
    }
}

fn verdict(outcome: Outcome) -> Verdict<Stopped> {
    match outcome {
        Outcome::Done => Verdict::Done,
        Outcome::GivenUp => Verdict::Undone,
        Outcome::Stop(stopped) => Verdict::Stop(stopped),
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
        verdict(self.0.deliver(message, outbox))
    }

    fn foresee<'a>(&mut self, upcoming: impl Iterator<Item = &'a Routed<M>>)
    where
        M: 'a,
    {
        self.0.foresee(upcoming);
    }

    fn refuse(&mut self, message: Routed<M>, time: &T) -> Verdict<Stopped> {
        verdict(self.0.refuse(message, time))
    }

    fn emit(&mut self, emitter: &mut dyn FnMut(&T, Batch)) {
        self.0.drain_egresses(emitter);
    }
}

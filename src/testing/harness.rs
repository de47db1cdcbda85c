//! One message for one function, without a dataflow.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use timely::progress::Timestamp;

use super::invocation::{Delayed, Emitted, Invocation, Operation, Seen};
use crate::address::Address;
use crate::dead_letter::{DeadLetter, Reason};
use crate::dispatch::{Context, Dispatcher, Entrance, Head, Names, Place, Routed, Surroundings};
use crate::egress::Egress;
use crate::error::Error;
use crate::functions::Functions;
use crate::message::Envelope;

/// Hands one message at a time to one function, as a program would, and gives what the function did as
/// data. Nothing that it sends arrives anywhere.
///
/// ```
/// use std::time::Duration;
/// use timely_statefun::testing::FunctionHarness;
/// use timely_statefun::{Egress, Function, FunctionType, Functions, ValueSpec};
///
/// const GREETER: FunctionType<String> = FunctionType::new("example/greeter");
/// const GREETINGS: Egress<String> = Egress::new("example/greetings");
/// const SEEN: ValueSpec<u64> = ValueSpec::new("seen");
///
/// let greeter = Function::new(|context, name: &String| {
///     context.update(SEEN, |seen| *seen += 1);
///     let seen = *context.get(SEEN).expect("it was just set");
///     context.emit(GREETINGS, format!("Hello {name}, for the {seen}. time"));
///     context.send_after(Duration::from_secs(60), GREETER, name.as_str(), name.clone());
///     Ok(())
/// });
/// let functions = Functions::<String>::new();
/// let functions = functions.embedded(GREETER, greeter.value(SEEN)).egress(GREETINGS);
///
/// let mut harness = FunctionHarness::new(functions)?;
/// let ada = GREETER.at("Ada");
/// harness.with(&ada, |context| context.set(SEEN, 6));
/// let did = harness.invoke(GREETER.message("Ada", "Ada".to_owned()));
/// did.assert_emitted(GREETINGS, ["Hello Ada, for the 7. time".to_owned()])
///     .assert_delayed([(Duration::from_secs(60), GREETER.message("Ada", "Ada".to_owned()))])
///     .assert_nothing_else();
/// assert_eq!(harness.with(&ada, |context| context.get(SEEN).copied()), Some(7));
/// # Ok::<(), timely_statefun::Error>(())
/// ```
pub struct FunctionHarness<M, T = u64> {
    dispatcher: Dispatcher<M, T, ()>,
    names: Names,
    /// The names of the egresses, by number.
    egresses: Vec<&'static str>,
    outside: Outside<M, T>,
    now_ms: u64,
}

impl<M: Clone + 'static, T: Timestamp> FunctionHarness<M, T> {
    /// A harness of these functions. Ingress time is the least there is, its frontier as well, and the clock
    /// shows the beginning of 1970.
    ///
    /// # Errors
    ///
    /// If the functions were [put together wrongly](Functions::check).
    pub fn new(functions: Functions<M, T>) -> Result<Self, Error> {
        functions.check()?;
        let names = functions.names();
        let egresses = functions.egresses.iter().map(|egress| egress.name).collect();
        let letters = Egress::<DeadLetter<M>>::new("dead letters");
        let read = Rc::new(Cell::new(true));
        let dispatcher = functions.into_dispatcher(names.clone(), letters, read, 0);
        let (time, frontier) = (T::minimum(), vec![T::minimum()]);
        let outside = Outside { time, frontier, out: Vec::new() };
        Ok(FunctionHarness { dispatcher, names, egresses, outside, now_ms: 0 })
    }

    /// Sets the ingress time of the messages that follow.
    pub fn set_time(&mut self, time: T) -> &mut Self {
        self.outside.time = time;
        self
    }

    /// Sets what functions see as the [frontier](Context::frontier).
    pub fn set_frontier(&mut self, frontier: impl IntoIterator<Item = T>) -> &mut Self {
        self.outside.frontier = frontier.into_iter().collect();
        self
    }

    /// What the clock shows, in milliseconds since the beginning of 1970.
    pub fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// Hands a message to its function, once: what fails is not tried again.
    ///
    /// # Panics
    ///
    /// If its function is not bound, or is remote.
    #[track_caller]
    pub fn invoke(&mut self, envelope: Envelope<M>) -> Invocation<M> {
        let routed = self.names.route(envelope);
        self.attempt(routed)
    }

    /// Does something at an address as its function could: looks at its state, or sets it.
    ///
    /// # Panics
    ///
    /// If the function of the address is not bound or is remote, if its state is used otherwise than it is
    /// declared, or if something is done besides.
    #[track_caller]
    pub fn with<R>(
        &mut self,
        address: &Address,
        act: impl FnOnce(&mut Context<'_, M, T>) -> R,
    ) -> R {
        let head = self.names.head(address.clone(), None);
        let mut result = None;
        let did = self.run(head, |dispatcher, head, outside| {
            dispatcher.act(head, outside, |context| result = Some(act(context)))
        });
        let did_more = !did.sent.is_empty()
            || !did.delayed.is_empty()
            || !did.cancelled.is_empty()
            || !did.emitted.is_empty()
            || !did.operations.is_empty();
        assert!(!did_more, "{address}: only state is set like this");
        did.assert_succeeded();
        result.expect("it did not fail")
    }

    /// Turns the clock forward. Gives the delayed messages that are due, in order; they wait no more. State
    /// that expires expires.
    pub fn tick(&mut self, by: Duration) -> Vec<Envelope<M>> {
        let by = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        self.now_ms = self.now_ms.saturating_add(by);
        self.dispatcher.note_time(self.now_ms);
        self.dispatcher.poll(&mut self.outside);
        self.take_out()
    }

    /// Runs an asynchronous operation to its end, on a runtime of its own, and hands its outcome to its
    /// function.
    ///
    /// # Panics
    ///
    /// If nothing could be made of its outcome, which would stop a program.
    #[track_caller]
    pub fn complete(&mut self, operation: Operation<M>) -> Invocation<M> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let outcome = runtime.expect("there is a runtime").block_on(operation.task);
        if let Err(why) = &outcome {
            panic!("nothing can be made of the outcome of an operation: {why}");
        }
        // It cannot stop the program any more.
        let _ = self.dispatcher.end_operation(operation.key, outcome, &mut self.outside);
        self.attempt_told()
    }

    /// Tells the function of an asynchronous operation that nobody knows what became of it, as after a
    /// restart. The operation never runs.
    #[track_caller]
    pub fn lose(&mut self, operation: Operation<M>) -> Invocation<M> {
        drop(operation.task);
        self.dispatcher.lose_operation(operation.key, &mut self.outside);
        self.attempt_told()
    }

    #[track_caller]
    fn attempt_told(&mut self) -> Invocation<M> {
        let routed = self.outside.out.pop().expect("its outcome is told");
        self.attempt(routed)
    }

    #[track_caller]
    fn attempt(&mut self, routed: Routed<M>) -> Invocation<M> {
        let head = routed.head.clone();
        self.run(head, |dispatcher, _, outside| dispatcher.attempt(routed, outside))
    }

    #[track_caller]
    fn run(
        &mut self,
        mut head: Head,
        run: impl FnOnce(&mut Dispatcher<M, T, ()>, Head, &mut Outside<M, T>) -> Result<(), Reason>,
    ) -> Invocation<M> {
        let is_embedded = self.dispatcher.has_embedded(&mut head);
        let (address, _) = self.dispatcher.addresses(&mut head);
        assert!(is_embedded, "no embedded function is bound to {address}");
        let before = self.waiting();
        let outcome = run(&mut self.dispatcher, head, &mut self.outside);
        let after = self.waiting();
        if outcome.is_err() {
            self.outside.out.clear();
        }
        let sent = self.take_out();
        let cancelled = before.iter().filter(|(sequence, _)| !after.contains_key(sequence));
        let cancelled = cancelled.filter_map(|(_, token)| token.clone()).collect();
        let operations = self.dispatcher.startable();
        Invocation {
            address,
            outcome,
            sent,
            delayed: self.delayed_since(&before),
            cancelled,
            emitted: self.take_emitted(),
            operations: operations.into_iter().map(|(key, task)| Operation { key, task }).collect(),
            seen: Seen::default(),
        }
    }

    /// The delayed messages that wait, and their tokens.
    fn waiting(&self) -> BTreeMap<u64, Option<String>> {
        let waiting = self.dispatcher.waiting();
        waiting.map(|waits| (waits.sequence, waits.token.map(str::to_owned))).collect()
    }

    /// What waits now and did not before.
    fn delayed_since(&self, before: &BTreeMap<u64, Option<String>>) -> Vec<Delayed<M>> {
        let waiting = self.dispatcher.waiting();
        let mut since: Vec<_> =
            waiting.filter(|waits| !before.contains_key(&waits.sequence)).collect();
        since.sort_by_key(|waits| waits.sequence);
        let delayed = since.into_iter().map(|waits| Delayed {
            after: Duration::from_millis(waits.due_ms.saturating_sub(self.now_ms)),
            token: waits.token.map(str::to_owned),
            envelope: Envelope {
                target: waits.target,
                caller: waits.caller,
                message: waits.message.clone(),
                position: None,
            },
        });
        delayed.collect()
    }

    /// What has left.
    fn take_out(&mut self) -> Vec<Envelope<M>> {
        let out = std::mem::take(&mut self.outside.out).into_iter();
        let envelopes = out.map(|Routed { mut head, message }| {
            let (target, caller) = self.dispatcher.addresses(&mut head);
            Envelope { target, caller, message, position: None }
        });
        envelopes.collect()
    }

    fn take_emitted(&mut self) -> Vec<Emitted> {
        let (mut emitted, egresses) = (Vec::new(), &self.egresses);
        self.dispatcher.drain_egresses(&mut |_, batch| {
            let (egress, records) = (egresses[batch.egress], batch.records);
            emitted.push(Emitted { egress, records });
        });
        emitted
    }
}

impl<M, T: fmt::Debug> fmt::Debug for FunctionHarness<M, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FunctionHarness")
            .field("time", &self.outside.time)
            .field("now_ms", &self.now_ms)
            .finish_non_exhaustive()
    }
}

/// Where messages come from and go to: nowhere.
struct Outside<M, T> {
    time: T,
    frontier: Vec<T>,
    out: Vec<Routed<M>>,
}

impl<M, T: Clone> Surroundings<M, T> for Outside<M, T> {
    type Held = ();

    fn time(&self) -> &T {
        &self.time
    }

    fn frontier(&self) -> &[T] {
        &self.frontier
    }

    fn send(&mut self, message: Routed<M>) -> bool {
        self.out.push(message);
        true
    }

    fn hold(&mut self) {}

    fn put_off(&mut self, _record: bool) {}

    fn resume_first(&mut self, _held: Option<()>, message: Routed<M>) {
        self.out.push(message);
    }

    fn expect_event(&mut self) {}

    fn release(&mut self, (): ()) {}

    fn place(&self, (): &()) -> Place<T> {
        Place { time: self.time.clone(), depth: 0, record: false }
    }
}

impl<M, T: Clone> Entrance<M, T> for Outside<M, T> {
    type Held = ();

    fn ingress_is_over(&self) -> bool {
        self.frontier.is_empty()
    }

    fn room(&self) -> usize {
        usize::MAX
    }

    fn event(&mut self, message: Routed<M>) {
        self.out.push(message);
    }

    fn resume(&mut self, _held: Option<()>, message: Routed<M>) {
        self.out.push(message);
    }

    fn let_pass(&mut self, (): &(), (): &mut ()) -> bool {
        true
    }

    fn hold_later(&mut self, (): &(), _time: T) {}

    fn resume_first(&mut self, _held: Option<()>, message: Routed<M>) {
        self.out.push(message);
    }

    fn place(&self, (): &()) -> Place<T> {
        Place { time: self.time.clone(), depth: 0, record: false }
    }
}

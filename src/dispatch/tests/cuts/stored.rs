//! What is stored meets what is bound: functions that are gone or are others now, types that changed, and
//! what time has done to what waited.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use super::*;
use crate::dead_letter::OnFailure;
use crate::dispatch::calls::RemoteState;
use crate::dispatch::{
    Back, Bound, CallAnswer, CallEffects, CutType, Dispatcher, Egresses, Entrance, Names, Origin,
    Place, RestoreError, Routed, Surroundings, Verdict,
};
use crate::endpoint::Endpoint;
use crate::expiration::Expiration;
use crate::function::{Body, Function};
use crate::functions::OnUnbound;
use crate::retry::Retry;
use crate::{
    Address, DeadLetter, Egress, FunctionType, Mismatch, TypedMessage, TypedValue, ValueSpec,
};
use serde::{Deserialize, Serialize};

const ONE: FunctionType<i64> = FunctionType::new("test/one");
const TWO: FunctionType<i64> = FunctionType::new("test/two");
const ONE_NAME: &str = "test/one";
const TWO_NAME: &str = "test/two";
const COUNT: ValueSpec<i64> = ValueSpec::new("count");

/// A time that is held, or none.
type Came<M> = (Option<u32>, Routed<M>);

/// What comes into a loop, and is handled when it is asked for.
struct Loop<M> {
    time: u32,
    came: Vec<Came<M>>,
}

fn at(time: u32) -> Place<u32> {
    Place { time, depth: 0, record: false }
}

impl<M> Surroundings<M, u32> for Loop<M> {
    type Held = u32;

    fn time(&self) -> &u32 {
        &self.time
    }
    fn frontier(&self) -> &[u32] {
        &[]
    }
    fn send(&mut self, message: Routed<M>) -> bool {
        self.came.push((Some(self.time), message));
        true
    }
    fn hold(&mut self) -> u32 {
        self.time
    }
    fn put_off(&mut self, _: bool) -> u32 {
        self.time
    }
    fn resume_first(&mut self, held: Option<u32>, message: Routed<M>) {
        self.came.insert(0, (held, message));
    }
    fn expect_event(&mut self) {}
    fn release(&mut self, _: u32) {}
    fn place(&self, held: &u32) -> Place<u32> {
        at(*held)
    }
}

impl<M> Entrance<M, u32> for Loop<M> {
    type Held = u32;

    fn ingress_is_over(&self) -> bool {
        false
    }
    fn room(&self) -> usize {
        1000
    }
    fn event(&mut self, message: Routed<M>) {
        self.came.push((None, message));
    }
    fn let_pass(&mut self, _: &u32, _: &mut u32) -> bool {
        true
    }
    fn resume(&mut self, held: Option<u32>, message: Routed<M>) {
        self.came.push((held, message));
    }
    fn hold_later(&mut self, _: &u32, time: u32) -> u32 {
        time
    }
    fn resume_first(&mut self, held: Option<u32>, message: Routed<M>) {
        self.came.insert(0, (held, message));
    }
    fn place(&self, held: &u32) -> Place<u32> {
        at(*held)
    }
}

impl<M> Back<M, u32> for Loop<M> {
    type Held = u32;

    fn message(&mut self, place: Place<u32>, message: Routed<M>) {
        self.came.push((Some(place.time), message));
    }
    fn hold(&mut self, place: Place<u32>) -> u32 {
        place.time
    }
}

/// A dispatcher with its loop.
struct Program<M: 'static> {
    dispatcher: Dispatcher<M, u32, u32>,
    names: Names,
    outside: Loop<M>,
}

type Bodies<M> = Vec<(&'static str, Body<M, u32>)>;

impl<M: Clone + crate::Value> Program<M> {
    fn new(execution: u64, bodies: Bodies<M>) -> Self {
        Self::going_on(execution, bodies, OnUnbound::Fail)
    }

    fn going_on(execution: u64, bodies: Bodies<M>, on_unbound: OnUnbound) -> Self {
        let name = |name: &str| crate::TypeName::new(name).unwrap();
        let names: Vec<_> = bodies.iter().map(|(of, _)| name(of)).collect();
        let bodies = bodies.into_iter().map(|(of, body)| (name(of), Rc::new(body)));
        let bound = Bound {
            functions: bodies.collect(),
            namespaces: Vec::new(),
            depth_max: u32::MAX,
            delayed_messages_max: 1000,
            operations_max: 10,
            in_flight_max: 100,
            function_bytes_soft: 1_000_000,
            hurry_at_close: false,
            on_unbound,
            when_full: OnFailure::Stop,
            worker: 0,
        };
        let names = Names::new(names.into_iter(), Vec::new());
        let letters: Egress<DeadLetter<M>> = Egress::new("test/letters");
        let egresses = Egresses::new(Vec::new(), letters, Rc::new(Cell::new(true)));
        let mut dispatcher = Dispatcher::new(bound, names.clone(), egresses);
        dispatcher.keep_cuts(1000, Origin { execution, worker: 0 });
        Program { dispatcher, names, outside: Loop { time: 0, came: Vec::new() } }
    }

    /// Has a message handled that comes from ingress.
    fn deliver(&mut self, target: Address, message: M, time: u32) {
        let routed = self.names.route(crate::Envelope::new(target, message));
        self.handle(Some(time), routed);
    }

    fn handle(&mut self, held: Option<u32>, routed: Routed<M>) {
        self.outside.time = held.unwrap_or(99);
        let verdict = self.dispatcher.deliver(routed, &mut self.outside);
        assert!(matches!(verdict, Verdict::Done | Verdict::GivenUp));
    }

    /// Handles all that has come, and what that leads to.
    fn handle_all(&mut self) {
        while !self.outside.came.is_empty() {
            let (held, routed) = self.outside.came.remove(0);
            self.handle(held, routed);
        }
    }

    fn poll(&mut self, now_ms: u64) {
        self.dispatcher.note_time(now_ms);
        self.dispatcher.poll(&mut self.outside);
    }

    /// Writes a cut, with what has come, and commits it.
    fn store(&mut self, is_delta: bool) -> (Vec<CutType>, Part) {
        let mut part = Part::default();
        self.dispatcher.take_cut(is_delta);
        for (time, routed) in &self.outside.came {
            let place = at(time.unwrap_or(99));
            self.dispatcher.write_waiting(place, routed, false, &mut part).unwrap();
        }
        assert!(self.dispatcher.write_cut(ALL, &|held| at(*held), &mut part).unwrap());
        let types: std::collections::BTreeSet<_> =
            part.records.iter().flat_map(|written| written.types.clone()).collect();
        let types = types.into_iter().map(|number| self.dispatcher.cut_type(number)).collect();
        self.dispatcher.commit_cut();
        (types, part)
    }

    fn restore(&mut self, chain: &[&[(Vec<CutType>, Part)]], now_ms: u64) -> Result<(), String> {
        self.try_to_restore(chain, now_ms).map_err(|error| error.to_string())
    }

    fn try_to_restore(
        &mut self,
        chain: &[&[(Vec<CutType>, Part)]],
        now_ms: u64,
    ) -> Result<(), RestoreError> {
        let Program { dispatcher, outside, .. } = self;
        let mut restoring = dispatcher.restoring(now_ms);
        for (number, parts) in chain.iter().enumerate() {
            restoring.cut(number + 1 == chain.len());
            for (types, part) in *parts {
                restoring.part(types, dispatcher)?;
                for Written { kind, bin, record, .. } in &part.records {
                    restoring.record(*kind, *bin, record, dispatcher, outside)?;
                }
            }
        }
        restoring.finish(dispatcher, outside)
    }

    /// The calls that are made now: for whom, and about what.
    fn calls(&mut self) -> Vec<(String, Vec<TypedValue>)> {
        let mut calls = Vec::new();
        self.dispatcher.requests(&mut |_, _, request| {
            let messages = request.messages.iter().map(|(_, value)| (*value).clone());
            calls.push((request.target.to_string(), messages.collect()));
        });
        calls
    }

    fn letters(&mut self) -> Vec<DeadLetter<M>> {
        let mut letters = Vec::new();
        self.dispatcher.drain_egresses(&mut |_, batch| {
            letters.extend(*batch.records.downcast::<Vec<DeadLetter<M>>>().unwrap());
        });
        letters
    }
}

/// Notes what it handles.
fn noting(seen: &Rc<Cell<Vec<i64>>>) -> Body<i64, u32> {
    let seen = Rc::clone(seen);
    let function = Function::<i64, i64, u32>::new(move |_, message: &i64| {
        let mut all = seen.take();
        all.push(*message);
        seen.set(all);
        Ok(())
    });
    function.body
}

/// Fails at first, and is tried again after a second.
fn failing() -> Body<i64, u32> {
    let function = Function::<i64, i64, u32>::new(|_, _| Err("not today".into()));
    let retry = Retry::attempts(5).first(Duration::from_secs(1)).jitter(0.0);
    function.retry(retry).on_failure(OnFailure::DeadLetter).body
}

fn keeping() -> Body<i64, u32> {
    let function = Function::<i64, i64, u32>::new(|context, message: &i64| {
        context.set(COUNT, *message);
        Ok(())
    });
    function.value(COUNT).body
}

/// Sends messages off after a delay, to the other function: at the tens, with the ones as tokens.
fn setting() -> Body<i64, u32> {
    let function = Function::<i64, i64, u32>::new(|context, message: &i64| {
        if *message < 0 {
            context.cancel(&(-message % 10).to_string());
            return Ok(());
        }
        let delay = Duration::from_secs(*message as u64 / 10);
        context.forward_after(Some(&(message % 10).to_string()), delay, TWO.at("x"), *message)?;
        Ok(())
    });
    function.on_failure(OnFailure::DeadLetter).body
}

fn remote() -> Body<i64, u32> {
    Body::remote(Endpoint::at("http://localhost").on_failure(OnFailure::DeadLetter))
}

fn values(messages: impl IntoIterator<Item = i64>) -> Vec<TypedValue> {
    messages.into_iter().map(|message| TypedValue::of(&message)).collect()
}

#[test]
fn what_is_stored_of_functions_that_are_not_bound_any_more_is_an_error_that_names_them() {
    let three = || Address::new(crate::TypeName::new("test/three").unwrap(), "x");
    let bodies = || vec![(ONE_NAME, keeping()), (TWO_NAME, setting()), ("test/three", failing())];
    let mut program = Program::new(1, bodies());
    program.deliver(ONE.at("x"), 7, 1);
    program.deliver(TWO.at("x"), 50, 1);
    program.deliver(three(), 50, 1);
    let stored = program.store(false);
    let stored = std::slice::from_ref(&stored);
    let restore = |bodies| Program::new(2, bodies).restore(&[stored], 0);
    let error = restore(vec![("test/other", failing())]).unwrap_err();
    let all = "\"test/one\", \"test/three\", \"test/two\"";
    assert_eq!(error, format!("function types are stored that are not bound: {all}"));
    let error = restore(vec![(ONE_NAME, keeping()), ("test/three", failing())]).unwrap_err();
    assert_eq!(error, "function types are stored that are not bound: \"test/two\"");
    restore(bodies()).unwrap();
}

/// A chain: two addresses of a function keep a count in the full cut, and a third one in the delta, in which one of
/// the others is another; a message for it is delayed, and one is queued.
fn counted() -> [(Vec<CutType>, Part); 2] {
    let mut program = Program::new(1, vec![(ONE_NAME, setting()), (TWO_NAME, keeping())]);
    program.deliver(TWO.at("a"), 1, 1);
    program.deliver(TWO.at("b"), 2, 1);
    let full = program.store(false);
    program.deliver(TWO.at("b"), 20, 1);
    program.deliver(TWO.at("c"), 3, 1);
    program.deliver(ONE.at("x"), 50, 1);
    let queued = program.names.route(TWO.message("c", 4));
    program.outside.came.push((Some(2), queued));
    [full, program.store(true)]
}

/// Has a program go on with what another one stored, in a chain of which each link is one part.
fn went_on(
    bodies: Bodies<i64>,
    policy: OnUnbound,
    chain: &[&(Vec<CutType>, Part)],
) -> Program<i64> {
    let mut program = Program::going_on(2, bodies, policy);
    let chain: Vec<_> = chain.iter().map(|link| std::slice::from_ref(*link)).collect();
    program.restore(&chain, 0).unwrap();
    program
}

#[test]
fn state_of_a_function_that_is_gone_is_kept_until_it_is_there_again() {
    let [full, delta] = counted();
    let only = || vec![(ONE_NAME, setting())];
    let mut second = went_on(only(), OnUnbound::Keep, &[&full, &delta]);
    second.handle_all();
    let letters = second.letters();
    assert_eq!((letters.len(), &letters[0].target, letters[0].message), (1, &TWO.at("c"), 4));
    assert!(matches!(letters[0].reason, crate::Reason::NotBound));
    assert!(!second.dispatcher.wants_full());
    let again = second.store(true);
    assert!(again.1.records.is_empty(), "nothing of it changes");
    let mut third = went_on(only(), OnUnbound::Keep, &[&full, &delta, &again]);
    let whole = third.store(false);
    // Whoever does not say so again is told.
    let refused = Program::new(3, only()).restore(&[std::slice::from_ref(&whole)], 0);
    assert!(refused.unwrap_err().contains("not bound: \"test/two\""));
    let bodies = vec![(ONE_NAME, setting()), (TWO_NAME, keeping())];
    let mut fourth = went_on(bodies, OnUnbound::Fail, &[&whole]);
    let two = fourth.names.index(&crate::TypeName::new(TWO_NAME).unwrap()) as usize;
    let states = fourth.dispatcher.entries[two].state.list();
    let content: Vec<_> = states[0].1.iter().map(|(id, said)| format!("{id} {said}")).collect();
    assert_eq!(content.len(), 3, "{content:?}");
    // As it was stored: a tag, a length, a number.
    let has = |id: &str, count: u8| {
        content.iter().any(|unit| {
            unit.starts_with(id) && unit.ends_with(&format!("[9, {count}, 0, 0, 0, 0, 0, 0, 0]"))
        })
    };
    assert!(has("a", 1) && has("b", 20) && has("c", 3), "{content:?}");
    fourth.poll(100_000);
    assert_eq!(fourth.outside.came.len(), 1, "what was delayed waits as before");
}

#[test]
fn state_of_a_function_that_is_gone_is_left_out_from_the_next_full_cut_on() {
    let [full, delta] = counted();
    let only = || vec![(ONE_NAME, setting())];
    let mut second = went_on(only(), OnUnbound::Discard, &[&full, &delta]);
    assert!(second.dispatcher.wants_full());
    second.handle_all();
    assert_eq!(second.letters().len(), 1, "what was for it is given up as any other");
    let whole = second.store(false);
    assert!(whole.1.records.iter().all(|record| record.kind == RecordKind::Delayed));
    assert!(!second.dispatcher.wants_full());
    let bodies = vec![(ONE_NAME, setting()), (TWO_NAME, keeping())];
    let mut third = went_on(bodies, OnUnbound::Fail, &[&whole]);
    let two = third.names.index(&crate::TypeName::new(TWO_NAME).unwrap()) as usize;
    assert_eq!(third.dispatcher.entries[two].state.len(), 0);
    third = went_on(only(), OnUnbound::Fail, &[&whole]);
    third.poll(100_000);
    third.handle_all();
    assert_eq!(third.letters().len(), 1, "what was delayed comes, and is given up");
}

/// The caller of a message, or whom a message is for that nobody was there for, may be unbound.
#[test]
fn types_that_were_never_bound_and_those_of_callers_may_stay_unbound() {
    let mut program = Program::new(1, vec![(ONE_NAME, setting()), (TWO_NAME, failing())]);
    program.deliver(TWO.at("x"), 1, 1);
    program.deliver(ONE.at("x"), 50, 1);
    let nobody = Address::new(crate::TypeName::new("test/nobody").unwrap(), "x");
    let routed = program.names.route(crate::Envelope::new(nobody.clone(), 3));
    program.outside.came.push((Some(4), routed));
    let stored = program.store(false);
    // What set the delayed message is gone.
    let mut restored = Program::new(2, vec![(TWO_NAME, failing())]);
    restored.restore(&[&[stored]], 0).unwrap();
    restored.handle_all();
    let letters = restored.letters();
    assert_eq!((letters.len(), &letters[0].target, letters[0].message), (1, &nobody, 3));
    restored.poll(100_000);
    let came: Vec<_> = restored.outside.came.iter().map(|(_, routed)| routed.message).collect();
    assert_eq!(came, [1, 50]);
    let caller = restored.dispatcher.names.caller(&restored.outside.came[1].1.head);
    assert_eq!(caller, Some(ONE.at("x")));
}

#[test]
fn messages_of_a_function_that_is_embedded_now_keep_their_order() {
    let mut program = Program::new(1, vec![(ONE_NAME, remote())]);
    (0..6).for_each(|number| program.deliver(ONE.at("x"), number, 1));
    assert_eq!(program.calls().len(), 1);
    let queued = program.names.route(ONE.message("x", 6));
    program.outside.came.push((Some(2), queued));
    // Once while the call is under way, and once when its answer waits to be handled.
    for is_answered in [false, true] {
        if is_answered {
            let answer = CallAnswer::Done(CallEffects::default());
            program.dispatcher.end_call(0, Ok(answer), &mut program.outside);
        }
        let stored = program.store(false);
        let seen = Rc::default();
        let mut restored = Program::new(2, vec![(ONE_NAME, noting(&seen))]);
        restored.restore(&[&[stored]], 0).unwrap();
        restored.handle_all();
        restored.poll(1);
        restored.handle_all();
        assert_eq!(seen.take(), [0, 1, 2, 3, 4, 5, 6], "answered: {is_answered}");
        assert!(restored.dispatcher.mailboxes.list().next().is_none());
    }
}

#[test]
fn messages_of_a_function_that_is_remote_now_keep_their_order() {
    let mut program = Program::new(1, vec![(ONE_NAME, failing())]);
    (0..4).for_each(|number| program.deliver(ONE.at("x"), number, 1));
    // Once while the one that failed waits, and once when it is on its way to another attempt.
    for is_under_way in [false, true] {
        if is_under_way {
            program.poll(1_000);
            assert_eq!(program.outside.came.len(), 1);
        }
        let stored = program.store(false);
        let mut restored = Program::new(2, vec![(ONE_NAME, remote())]);
        restored.restore(&[&[stored]], 0).unwrap();
        assert_eq!(restored.calls(), [("test/one x".to_owned(), values(0..4))]);
    }
}

/// Attempts are not begun anew, and what is overdue is tried at once.
#[test]
fn a_message_that_failed_keeps_its_attempts_and_its_time() {
    let mut program = Program::new(1, vec![(ONE_NAME, failing())]);
    program.deliver(ONE.at("x"), 7, 5);
    for (attempts, now_ms) in [(1, 500), (2, 1_000), (3, 3_000)] {
        program.poll(now_ms);
        program.handle_all();
        let stored = program.store(false);
        let mut restored = Program::new(2, vec![(ONE_NAME, failing())]);
        restored.restore(&[&[stored]], now_ms).unwrap();
        let due = [1_000, 3_000, 7_000][attempts as usize - 1];
        let (_, listed) = restored.dispatcher.mailboxes.list().next().unwrap();
        assert_eq!((listed.0, listed.1), (attempts, due));
        restored.poll(due - 1);
        assert!(restored.outside.came.is_empty());
        restored.poll(due);
        let (held, routed) = restored.outside.came.pop().unwrap();
        assert_eq!((held, routed.message, routed.head.again), (Some(5), 7, true));
    }
}

/// Whoever wrote what: first what is due first, then what was set first.
#[test]
fn delayed_messages_are_sent_off_in_order_and_can_be_taken_back() {
    let bodies = || vec![(ONE_NAME, setting()), (TWO_NAME, failing())];
    let mut first = Program::new(1, bodies());
    [51, 32, 53].into_iter().for_each(|number| first.deliver(ONE.at("x"), number, 0));
    // Many that are due together, of many addresses and so in many bins.
    let many = |program: &mut Program<i64>, ids: std::ops::Range<u64>| {
        for number in 40..45 {
            ids.clone().for_each(|id| program.deliver(ONE.at(id), number, 0));
        }
    };
    many(&mut first, 0..10);
    let old = first.store(false);
    // It goes on elsewhere, where a delta is written.
    let mut second = Program::new(2, bodies());
    second.restore(&[std::slice::from_ref(&old)], 0).unwrap();
    // One is taken back that the delta must know of, and its token is used again.
    second.deliver(ONE.at("x"), -1, 0);
    [54, 31].into_iter().for_each(|number| second.deliver(ONE.at("x"), number, 0));
    second.deliver(ONE.at("y"), 35, 0);
    many(&mut second, 10..15);
    let new = second.store(true);
    assert_eq!(new.1.records.len(), 4 + 5 * 5, "a delta has what changed");
    let mut third = Program::new(3, bodies());
    third.restore(&[&[old], &[new]], 0).unwrap();
    third.deliver(ONE.at("x"), 94, 0);
    assert_eq!(third.letters().len(), 1, "the token is in use");
    third.deliver(ONE.at("x"), -4, 0);
    third.deliver(ONE.at("x"), 30, 0);
    many(&mut third, 15..20);
    third.poll(100_000);
    let head = |routed: &Routed<i64>| (routed.head.caller.to_string(), routed.message);
    let came: Vec<_> = third.outside.came.iter().map(|(_, routed)| head(routed)).collect();
    let x = |number| ("x".to_owned(), number);
    let mut expected = vec![x(32), x(31), ("y".to_owned(), 35), x(30)];
    for ids in [0..10, 10..15, 15..20] {
        let of = |number| ids.clone().map(move |id: u64| (id.to_string(), number));
        expected.extend((40..45).flat_map(of));
    }
    // The other one was taken back.
    expected.push(x(53));
    assert_eq!(came, expected);
}

/// An operation of a detached function is an event after the restore, which a delta must not forget.
#[test]
fn outcomes_that_are_unknown_and_hold_nothing_are_events_and_are_not_lost() {
    let starting = || {
        let function = Function::<i64, i64, u32>::new(|context, _: &i64| {
            context.start(
                async { Ok::<i64, std::convert::Infallible>(1) },
                |outcome| match outcome {
                    crate::Outcome::Unknown => -1,
                    _ => 1,
                },
            );
            Ok(())
        });
        function.operations(10).detached().body
    };
    let mut program = Program::new(1, vec![(ONE_NAME, starting())]);
    program.deliver(ONE.at("x"), 7, 5);
    let full = program.store(false);
    assert!(full.1.records.iter().any(|written| written.kind == RecordKind::Operation));
    let mut second = Program::new(2, vec![(ONE_NAME, starting())]);
    second.restore(&[std::slice::from_ref(&full)], 0).unwrap();
    assert!(second.dispatcher.awaits_events());
    let delta = second.store(true);
    let mut third = Program::new(3, vec![(ONE_NAME, starting())]);
    third.restore(&[&[full], &[delta]], 0).unwrap();
    third.poll(0);
    let (held, routed) = third.outside.came.pop().unwrap();
    assert_eq!((held, routed.message, routed.head.depth), (None, -1, 0));
    let x = Some(ONE.at("x"));
    assert_eq!(third.dispatcher.names.caller(&routed.head), x);
    assert!(third.outside.came.is_empty(), "it comes once");
    let (key, _) = program.dispatcher.startable().pop().unwrap();
    program.dispatcher.end_operation(key, Ok(1), &mut program.outside);
    let (held, routed) = program.outside.came.pop().unwrap();
    assert_eq!((held, routed.message, routed.head.depth), (None, 1, 0), "as it would have been");
}

/// A remote function says anew what it keeps, and finds it.
#[test]
fn a_remote_function_finds_its_state_when_it_asks_for_it_again() {
    let ask = || {
        CallAnswer::Incomplete(vec![RemoteState {
            name: "seen".to_owned(),
            type_name: "test/seen".to_owned(),
            expiration: Expiration::never(),
        }])
    };
    let mut program = Program::new(1, vec![(ONE_NAME, remote())]);
    program.deliver(ONE.at("x"), 7, 5);
    assert_eq!(program.calls().len(), 1);
    program.dispatcher.end_call(0, Ok(ask()), &mut program.outside);
    assert_eq!(program.calls().len(), 1);
    let seen = TypedValue::new("test/seen", &b"a lot"[..]).unwrap();
    let states = vec![("seen".to_owned(), Some(seen))];
    let effects = CallEffects { states, ..CallEffects::default() };
    program.dispatcher.end_call(0, Ok(CallAnswer::Done(effects)), &mut program.outside);
    program.handle_all();
    program.deliver(ONE.at("x"), 8, 6);
    let stored = program.store(false);
    let mut restored = Program::new(2, vec![(ONE_NAME, remote())]);
    restored.restore(&[&[stored]], 0).unwrap();
    assert_eq!(restored.calls(), [("test/one x".to_owned(), values([8]))]);
    restored.dispatcher.end_call(0, Ok(ask()), &mut restored.outside);
    let mut states = Vec::new();
    restored.dispatcher.requests(&mut |_, _, request| {
        let of = |(name, of, bytes): &(&str, &str, Option<bytes::Bytes>)| {
            (name.to_string(), of.to_string(), bytes.clone())
        };
        states.extend(request.states.iter().map(of));
    });
    let lot = bytes::Bytes::from_static(b"a lot");
    assert_eq!(states, [("seen".to_owned(), "test/seen".to_owned(), Some(lot))]);
}

/// What records say is read as it was written, whatever has become of a state since.
#[test]
fn a_state_that_is_registered_in_the_midst_of_a_cut_is_stored_as_it_was() {
    let ask = |expiration| {
        CallAnswer::Incomplete(vec![RemoteState {
            name: "seen".to_owned(),
            type_name: "test/seen".to_owned(),
            expiration,
        }])
    };
    let mut program = Program::new(1, vec![(ONE_NAME, remote())]);
    program.deliver(ONE.at("x"), 7, 5);
    assert_eq!(program.calls().len(), 1);
    program.dispatcher.end_call(0, Ok(ask(Expiration::never())), &mut program.outside);
    assert_eq!(program.calls().len(), 1);
    let seen = TypedValue::new("test/seen", &b"a lot"[..]).unwrap();
    let states = vec![("seen".to_owned(), Some(seen))];
    let effects = CallEffects { states, ..CallEffects::default() };
    program.dispatcher.end_call(0, Ok(CallAnswer::Done(effects)), &mut program.outside);
    program.handle_all();
    program.deliver(ONE.at("x"), 8, 6);
    let stored = program.store(false);

    // It lived for ever, and is to live for a while now.
    let mut second = Program::new(2, vec![(ONE_NAME, remote())]);
    second.restore(&[&[stored]], 1_000).unwrap();
    assert_eq!(second.calls().len(), 1);
    let mut part = Part::default();
    second.dispatcher.take_cut(false);
    let lifetime = Expiration::after_write(Duration::from_secs(60));
    second.dispatcher.end_call(0, Ok(ask(lifetime)), &mut second.outside);
    assert!(second.dispatcher.cut_bytes() > 0, "it was written before it became another");
    assert!(second.dispatcher.write_cut(ALL, &|held| at(*held), &mut part).unwrap());
    let types = vec![second.dispatcher.cut_type(0)];
    assert_eq!(types[0].states.iter().map(|state| state.lifetime_ms).collect::<Vec<_>>(), [0]);
    second.dispatcher.commit_cut();
    assert!(second.dispatcher.wants_full(), "a delta would be read otherwise");
    let mut third = Program::new(3, vec![(ONE_NAME, remote())]);
    third.restore(&[&[(types, part)]], 2_000).unwrap();
    assert_eq!(third.dispatcher.entries[0].state.list()[0].1.len(), 1);
}

#[test]
fn state_that_does_not_fit_and_messages_of_another_type_are_errors_that_say_whose() {
    let mut program = Program::new(1, vec![(ONE_NAME, keeping()), (TWO_NAME, failing())]);
    program.deliver(ONE.at("x"), 7, 5);
    let state = program.store(false);
    program.deliver(TWO.at("y"), 7, 5);
    let message = program.store(false);
    let other = || {
        let function = Function::<i64, i64, u32>::new(|_, _| Ok(()));
        function.value(ValueSpec::<String>::new("count")).body
    };
    let mut restored = Program::new(2, vec![(ONE_NAME, other()), (TWO_NAME, failing())]);
    assert_eq!(
        restored.restore(&[&[state]], 0).unwrap_err(),
        "of function type \"test/one\": state \"count\" is stored as \"io.statefun.types/long\" but \
         declared as \"io.statefun.types/string\""
    );
    let two = Function::<String, String, u32>::new(|_, _| Ok(())).body;
    let one = Function::<String, String, u32>::new(|_, _| Ok(())).value(COUNT).body;
    let mut restored = Program::new(2, vec![(ONE_NAME, one), (TWO_NAME, two)]);
    let error = restored.restore(&[&[message]], 0).unwrap_err();
    assert!(error.starts_with("a message for \"test/two y\" cannot be read: "), "{error}");
}

/// A message that a remote function cannot take any more is given up as any other that it cannot take.
#[test]
fn a_message_that_cannot_be_converted_any_more_is_given_up_when_it_is_handled() {
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[serde(transparent)]
    struct Picky(i64);

    impl TypedMessage for Picky {
        fn takes(_: &str) -> bool {
            true
        }
        fn to_typed(&self) -> Result<TypedValue, Mismatch> {
            match self.0 {
                3 => Err(Mismatch::new("anything else", "three")),
                number => Ok(TypedValue::of(&number)),
            }
        }
        fn from_typed(value: TypedValue) -> Result<Self, Mismatch> {
            value.read().map(Picky)
        }
    }

    let mut program = Program::new(1, vec![(ONE_NAME, remote())]);
    (2..5).for_each(|number| program.deliver(ONE.at("x"), number, 1));
    let stored = program.store(false);
    let endpoint = Endpoint::at("http://localhost").on_failure(OnFailure::DeadLetter);
    let mut restored = Program::<Picky>::new(2, vec![(ONE_NAME, Body::remote(endpoint))]);
    restored.restore(&[&[stored]], 0).unwrap();
    restored.handle_all();
    assert_eq!(restored.calls(), [("test/one x".to_owned(), values([2, 4]))]);
    let letters = restored.letters();
    assert_eq!((letters.len(), &letters[0].message), (1, &Picky(3)));
}

/// What no cut says is damage, or is made good.
#[test]
fn nothing_waits_for_ever_for_what_is_not_there() {
    let mut program = Program::new(1, vec![(ONE_NAME, failing()), (TWO_NAME, setting())]);
    (0..3).for_each(|number| program.deliver(ONE.at("x"), number, 1));
    program.deliver(TWO.at("x"), 50, 1);
    let (types, part) = program.store(false);
    let is_first =
        |written: &Written| written.kind == RecordKind::Retrying && written.record[0] == 1;
    let seen = Rc::default();
    let bodies = || vec![(ONE_NAME, noting(&seen)), (TWO_NAME, setting())];

    let mut without = part.clone();
    without.records.retain(|written| !is_first(written));
    let mut restored = Program::new(2, bodies());
    restored.restore(&[&[(types.clone(), without)]], 0).unwrap();
    restored.poll(0);
    restored.handle_all();
    assert_eq!(seen.take(), [1, 2], "they do not wait for it");

    let mut twice = part.clone();
    let first = twice.records.iter().find(|written| is_first(written)).unwrap().clone();
    twice.records.push(first);
    let error = Program::new(2, bodies()).restore(&[&[(types.clone(), twice)]], 0).unwrap_err();
    let record = "the record of a message that waits for another attempt is damaged";
    assert_eq!(error, format!("{record}: another one is tried as well"));

    let error = Program::new(1, bodies()).restore(&[&[(types.clone(), part.clone())]], 0);
    let record = "the record of a delayed message is damaged";
    let why = "it was set here, where nothing was set yet";
    assert_eq!(error.unwrap_err(), format!("{record}: {why}"));

    let error = Program::new(2, bodies()).restore(&[&[(types[..1].to_vec(), part.clone())]], 0);
    assert!(error.unwrap_err().ends_with("is damaged: it is of a type not listed"));
    for at in 0..part.records.len() {
        let mut elsewhere = part.clone();
        elsewhere.records[at].bin ^= 1;
        let error = Program::new(2, bodies()).restore(&[&[(types.clone(), elsewhere)]], 0);
        assert!(error.unwrap_err().ends_with("it is of another bin"));
    }
    let same = vec![types[0].clone(), types[0].clone()];
    let error = Program::new(2, bodies()).restore(&[&[(same, part)]], 0).unwrap_err();
    assert_eq!(error, "a table of function types is damaged: it has a number twice");
}

//! The dispatcher by itself, without a dataflow.

mod batches;
mod cuts;

use std::cell::{Cell, RefCell};

use super::*;
use crate::egress::Egress;
use crate::expiration::after_write;
use crate::function::Function;
use crate::{Envelope, FunctionType, Namespace, ValueSpec};

const COUNTER: FunctionType<i64> = FunctionType::new("test/counter");
const ECHO: FunctionType<i64> = FunctionType::new("test/echo");
const PLUGINS: Namespace<i64> = Namespace::new("plugins");
const COUNT: ValueSpec<i64> = ValueSpec::new("count");
const COUNTS: Egress<i64> = Egress::new("test/counts");
const LETTERS: Egress<DeadLetter<i64>> = Egress::new("test/letters");

/// Remembers what was sent.
struct Outside {
    time: u32,
    sent: RefCell<Vec<Routed<i64>>>,
}

impl Surroundings<i64, u32> for Outside {
    type Held = u32;

    fn time(&self) -> &u32 {
        &self.time
    }
    fn frontier(&self) -> &[u32] {
        &[]
    }
    fn send(&mut self, message: Routed<i64>) -> bool {
        self.sent.borrow_mut().push(message);
        true
    }
    fn hold(&mut self) -> u32 {
        self.time
    }
    fn put_off(&mut self, _: bool) -> u32 {
        self.time
    }
    fn resume_first(&mut self, _: Option<u32>, message: Routed<i64>) {
        self.sent.borrow_mut().push(message);
    }
    fn expect_event(&mut self) {}
    fn release(&mut self, _: u32) {}
    fn place(&self, held: &u32) -> Place<u32> {
        Place { time: *held, depth: 0, record: false }
    }
}

fn dispatcher(on_failure: OnFailure, depth_max: u32) -> (Dispatcher<i64, u32, u32>, Names) {
    // Adds up; fails, having written, sent and emitted, when a sum is negative.
    let counter = Function::<i64, i64, u32>::new(|context, amount: &i64| {
        let count = context.get(COUNT).copied().unwrap_or(0) + amount;
        context.set(COUNT, count);
        context.emit(COUNTS, count);
        context.send(ECHO, "out", count);
        match count {
            ..0 => Err("below zero".into()),
            13 => panic!("unlucky {count}"),
            _ => Ok(()),
        }
    });
    let plugin = Function::<i64, i64, u32>::new(|context, amount: &i64| {
        context.set(COUNT, *amount);
        context.reply(*amount)?;
        Ok(())
    });
    let counter = counter.value(COUNT).on_failure(on_failure).body;
    let plugin = plugin.value(COUNT).on_failure(OnFailure::DeadLetter).body;
    let bound = Bound {
        functions: vec![(COUNTER.name(), Rc::new(counter))],
        namespaces: vec![("plugins".into(), Rc::new(plugin))],
        depth_max,
        delayed_messages_max: 1000,
        operations_max: 1,
        in_flight_max: 1,
        function_bytes_soft: 1000,
        hurry_at_close: false,
        on_unbound: OnUnbound::Fail,
        when_full: OnFailure::Stop,
        worker: 3,
    };
    let names = Names::new([COUNTER.name()].into_iter(), vec!["plugins".into()]);
    let egresses = vec![ErasedEgress::new(COUNTS)];
    let egresses = Egresses::new(egresses, LETTERS, Rc::new(Cell::new(true)));
    (Dispatcher::new(bound, names.clone(), egresses), names)
}

fn drain(dispatcher: &mut Dispatcher<i64, u32, u32>) -> (Vec<(u32, i64)>, Vec<DeadLetter<i64>>) {
    let (mut counts, mut letters) = (Vec::new(), Vec::new());
    dispatcher.drain_egresses(&mut |time, batch| match batch.egress {
        0 => {
            let records: Box<Vec<i64>> = batch.records.downcast().unwrap();
            counts.extend(records.into_iter().map(|record| (*time, record)));
        }
        _ => letters.extend(*batch.records.downcast::<Vec<DeadLetter<i64>>>().unwrap()),
    });
    (counts, letters)
}

fn deliver(
    dispatcher: &mut Dispatcher<i64, u32, u32>,
    names: &mut Names,
    envelope: Envelope<i64>,
    time: u32,
) -> (Verdict, Vec<Routed<i64>>) {
    let mut outside = Outside { time, sent: RefCell::default() };
    let outcome = dispatcher.deliver(names.route(envelope), &mut outside);
    (outcome, outside.sent.into_inner())
}

#[test]
fn what_an_invocation_emits_leaves_at_its_time_and_what_fails_leaves_nothing() {
    let (mut dispatcher, mut names) = dispatcher(OnFailure::DeadLetter, u32::MAX);
    for (time, amount) in [(1, 5), (1, 2), (4, -100), (4, 6), (2, 1)] {
        let (outcome, _) = deliver(&mut dispatcher, &mut names, COUNTER.message("a", amount), time);
        assert_eq!(matches!(outcome, Verdict::GivenUp), [-100, 6].contains(&amount));
    }
    let (counts, letters) = drain(&mut dispatcher);
    assert_eq!(counts, [(1, 5), (1, 7), (2, 8)]);
    let reasons: Vec<_> =
        letters.iter().map(|l| (l.message, l.reason.clone(), l.attempts)).collect();
    let failed = Reason::Failed("below zero".to_owned());
    let panicked = Reason::Panicked("unlucky 13".to_owned());
    assert_eq!(reasons, [(-100, failed, 1), (6, panicked, 1)]);
    assert_eq!(drain(&mut dispatcher), (vec![], vec![]), "drained once");
}

#[test]
fn a_stop_names_address_reason_and_worker() {
    let (mut dispatcher, mut names) = dispatcher(OnFailure::Stop, u32::MAX);
    let (outcome, _) = deliver(&mut dispatcher, &mut names, COUNTER.message("a", -1), 0);
    let Verdict::Stop(stopped) = outcome else { panic!("it must stop") };
    assert_eq!(stopped.address, Some(COUNTER.at("a")));
    assert_eq!(
        stopped.to_string(),
        "stopped at \"test/counter a\" on worker 3: the function failed: below zero"
    );
}

#[test]
fn messages_for_nobody_and_at_the_end_of_long_chains_are_dead_letters() {
    let (mut dispatcher, mut names) = dispatcher(OnFailure::Stop, 2);
    let caller = COUNTER.at("asker");
    let envelope = ECHO.message("x", 1).with_caller(caller.clone());
    assert!(matches!(deliver(&mut dispatcher, &mut names, envelope, 9).0, Verdict::GivenUp));
    for (depth, outcome_is_done) in [(2, true), (3, false)] {
        let mut routed = names.route(COUNTER.message("deep", 1));
        routed.head.depth = depth;
        let mut outside = Outside { time: 9, sent: RefCell::default() };
        let outcome = dispatcher.deliver(routed, &mut outside);
        assert_eq!(matches!(outcome, Verdict::Done), outcome_is_done, "depth {depth}");
        assert!(outside.sent.borrow().iter().all(|sent| sent.head.depth == depth + 1));
    }
    let (_, letters) = drain(&mut dispatcher);
    assert_eq!(letters[0].reason, Reason::NotBound);
    assert_eq!((letters[0].attempts, &letters[0].caller), (0, &Some(caller)));
    assert_eq!(letters[1].reason, Reason::TooDeep(2));
}

#[test]
fn types_of_a_namespace_come_into_being_and_travel_by_name() {
    let (mut dispatcher, mut names) = dispatcher(OnFailure::Stop, u32::MAX);
    let envelope = PLUGINS.message("late", "p", 7).unwrap().with_caller(COUNTER.at("a"));
    let routed = names.route(envelope);
    assert!(routed.head.names.is_some(), "its number means nothing on another worker");
    let mut outside = Outside { time: 0, sent: RefCell::default() };
    assert!(matches!(dispatcher.deliver(routed, &mut outside), Verdict::Done));
    let reply = outside.sent.into_inner().pop().unwrap();
    assert_eq!(dispatcher.names.target(&reply.head), COUNTER.at("a"));
    assert_eq!(dispatcher.names.caller(&reply.head), Some(PLUGINS.at("late", "p").unwrap()));
    assert!(reply.head.names.is_some(), "the caller's number means nothing on another worker");

    let envelope = PLUGINS.message("late", "p", 7).unwrap();
    assert!(matches!(deliver(&mut dispatcher, &mut names, envelope, 0).0, Verdict::GivenUp));
    let (_, letters) = drain(&mut dispatcher);
    let reason = Reason::Failed(NoCaller.to_string());
    assert_eq!(letters[0].reason, reason, "nobody to reply to");
}

#[test]
fn state_of_all_functions_expires_by_the_time_that_was_told() {
    const LAST: ValueSpec<i64> = ValueSpec::new("last").expiring(after_write(100));
    let keeping = || {
        let function = Function::<i64, i64, u32>::new(|context, amount: &i64| {
            let last = context.get(LAST).copied();
            context.set(LAST, *amount);
            context.emit(COUNTS, last.unwrap_or(-1));
            Ok(())
        });
        Rc::new(function.value(LAST).body)
    };
    let bound = Bound {
        functions: vec![(COUNTER.name(), keeping()), (ECHO.name(), keeping())],
        namespaces: Vec::new(),
        depth_max: u32::MAX,
        delayed_messages_max: 1000,
        operations_max: 1,
        in_flight_max: 1,
        function_bytes_soft: 1000,
        hurry_at_close: false,
        on_unbound: OnUnbound::Fail,
        when_full: OnFailure::Stop,
        worker: 0,
    };
    let mut names = Names::new([COUNTER.name(), ECHO.name()].into_iter(), Vec::new());
    let egresses = vec![ErasedEgress::new(COUNTS)];
    let egresses = Egresses::new(egresses, LETTERS, Rc::new(Cell::new(true)));
    let mut dispatcher = Dispatcher::<i64, u32, u32>::new(bound, names.clone(), egresses);
    assert_eq!((dispatcher.next_expiry(), dispatcher.expire(10, None)), (None, false));

    dispatcher.note_time(1_000);
    for id in 0..20 {
        let envelope = if id < 15 { COUNTER.message(id, 1) } else { ECHO.message(id, 1) };
        deliver(&mut dispatcher, &mut names, envelope, 0);
    }
    dispatcher.note_time(1_050);
    deliver(&mut dispatcher, &mut names, COUNTER.message(0, 2), 0);
    assert!(dispatcher.next_expiry().unwrap() <= 1_100);
    let addresses = |dispatcher: &Dispatcher<i64, u32, u32>| -> Vec<usize> {
        dispatcher.entries.iter().map(|entry| entry.state.len()).collect()
    };
    dispatcher.note_time(1_099);
    assert!(!dispatcher.expire(100, None));
    assert_eq!(addresses(&dispatcher), [15, 5]);

    dispatcher.note_time(1_100);
    assert!(dispatcher.expire(8, None), "there is more");
    assert_eq!(addresses(&dispatcher).iter().sum::<usize>(), 13, "one was only looked at");
    assert_eq!(addresses(&dispatcher)[1], 1, "no type waits for another");
    drain(&mut dispatcher);
    for id in 0..20 {
        let envelope = if id < 15 { COUNTER.message(id, 3) } else { ECHO.message(id, 3) };
        deliver(&mut dispatcher, &mut names, envelope, 0);
    }
    let (counts, _) = drain(&mut dispatcher);
    let expected: Vec<_> = (0..20).map(|id| (0, if id == 0 { 2 } else { -1 })).collect();
    assert_eq!(counts, expected, "what has expired is not seen, gone or not");
    dispatcher.note_time(1_200);
    while dispatcher.expire(3, None) {}
    assert_eq!((addresses(&dispatcher), dispatcher.next_expiry()), (vec![0, 0], None));
}

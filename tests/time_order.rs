//! In the order of time, everything depends on the input alone: what functions do that depends on
//! the order of messages is the same, record for record, on any number of workers and processes, and it
//! is what a plain loop over a sorted list does.

#[path = "../operators/tests/support/cluster.rs"]
mod cluster;
mod support;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use support::{Random, Running, mix, on_workers};
use timely::dataflow::operators::{Input, Inspect};
use timely::worker::Worker;
use timely_statefun::{
    Address, Context, Egress, Envelope, Function, FunctionResult, FunctionType, Functions, Limits,
    Namespace, Order, StatefulFunctions, ValueSpec,
};

const FIRST: FunctionType<Call> = FunctionType::new("order/first");
const SECOND: FunctionType<Call> = FunctionType::new("order/second");
const FOUND: Namespace<Call> = Namespace::new("found");
/// Whom ingress records name as their caller.
const SOURCE: FunctionType<Call> = FunctionType::new("order/source");
const STATE: ValueSpec<u64> = ValueSpec::new("state");
const STATES: Egress<(String, u64)> = Egress::new("order/states");

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Call {
    world: u64,
    value: u64,
    fuel: u64,
}

const NODES: u64 = 7;

/// An address of a world. Worlds have nothing to do with each other.
fn address(world: u64, drawn: u64) -> Address {
    let id = world * NODES + drawn / 4 % NODES;
    match drawn % 4 {
        0 => FIRST.at(id),
        1 => SECOND.at(format!("text {id}")),
        kind => FOUND.at(&format!("kind-{kind}"), id).expect("a valid name"),
    }
}

/// What a call makes of a state, and whom it calls on: all of it depends on the order of calls.
fn step(state: u64, call: &Call) -> (u64, Vec<(Address, Call)>) {
    let state = mix(state.rotate_left(7) ^ call.value);
    let mut random = Random(state);
    let calls = if call.fuel == 0 { 0 } else { random.below(4) };
    let calls = (0..calls).map(|_| {
        let to = address(call.world, random.any());
        (to, Call { world: call.world, value: random.any(), fuel: call.fuel - 1 })
    });
    (state, calls.collect())
}

fn handle(context: &mut Context<'_, Call>, call: &Call) -> FunctionResult {
    let before = context.get(STATE).copied().unwrap_or(0);
    let (state, calls) = step(before, call);
    context.set(STATE, state);
    context.emit(STATES, (context.address().to_string(), state));
    calls.into_iter().for_each(|(to, call)| context.forward(to, call));
    Ok(())
}

fn functions(limits: Limits) -> Functions<Call> {
    let function = || Function::new(handle).value(STATE);
    Functions::new()
        .embedded(FIRST, function())
        .embedded(SECOND, function())
        .embedded_namespace(FOUND, function())
        .egress(STATES)
        .limits(limits)
        .order(Order::Time)
}

/// Records with their times, in the order in which a single source would give them.
fn input(worlds: std::ops::Range<u64>) -> Vec<(u64, Envelope<Call>)> {
    let mut records = Vec::new();
    for world in worlds {
        let mut random = Random(world);
        for number in 0..2 + random.below(9) {
            let call = Call { world, value: random.any(), fuel: random.below(7) };
            let envelope = Envelope::new(address(world, random.any()), call);
            let caller = SOURCE.at(format!("{world} {number}"));
            records.push((random.below(5), envelope.with_caller(caller)));
        }
    }
    records.sort_by_key(|(time, _)| *time);
    records
}

/// For each address, what it emitted, in order, with the times.
type States = BTreeMap<String, Vec<(u64, u64)>>;

/// The definition, as a loop over sorted lists.
fn model(input: Vec<(u64, Envelope<Call>)>) -> States {
    type Waiting = (Option<(String, timely_statefun::Id)>, Address, Call);
    let mut waiting: BTreeMap<(u64, u64), Vec<Waiting>> = BTreeMap::new();
    let caller = |address: &Address| (address.function_type.to_string(), address.id.clone());
    for (time, Envelope { target, caller: from, message, .. }) in input {
        let message = (from.as_ref().map(caller), target, message);
        waiting.entry((time, 0)).or_default().push(message);
    }
    let (mut state, mut states) = (BTreeMap::<String, u64>::new(), States::new());
    while let Some(((time, depth), mut calls)) = waiting.pop_first() {
        calls.sort_by(|one, other| one.0.cmp(&other.0));
        for (_, target, call) in calls {
            let name = target.to_string();
            let before = state.get(&name).copied().unwrap_or(0);
            let (after, next) = step(before, &call);
            state.insert(name.clone(), after);
            states.entry(name).or_default().push((time, after));
            for (to, call) in next {
                let next = waiting.entry((time, depth + 1)).or_default();
                next.push((Some(caller(&target)), to, call));
            }
        }
    }
    states
}

/// What one worker of several emits, given its share of the records.
fn run(worker: &mut Worker, input: &[(u64, Envelope<Call>)], limits: Limits) -> States {
    let states = Rc::new(RefCell::new(States::new()));
    let seen = Rc::clone(&states);
    let (mut ingress, handle) = worker.dataflow::<u64, _, _>(|scope| {
        let (ingress, stream) = scope.new_input::<Vec<Envelope<Call>>>();
        let egresses = stream.stateful_functions(functions(limits)).unwrap();
        egresses.stream(STATES).unwrap().inspect_time(move |time, (address, state)| {
            seen.borrow_mut().entry(address.clone()).or_default().push((*time, *state));
        });
        (ingress, egresses.handle())
    });
    let (index, peers) = (worker.index(), worker.peers());
    let mut random = Random(input.len() as u64 + index as u64);
    for (number, (time, envelope)) in input.iter().enumerate() {
        if number % peers == index {
            ingress.advance_to(*time);
            ingress.send(envelope.clone());
            if random.below(8) == 0 {
                handle.until_ready(worker).unwrap();
            }
        }
    }
    ingress.close();
    handle.run(worker).unwrap();
    states.take()
}

fn merged(parts: impl IntoIterator<Item = States>) -> States {
    let mut all = States::new();
    for (address, states) in parts.into_iter().flatten() {
        assert!(all.insert(address, states).is_none(), "an address lives on one worker");
    }
    all
}

const RUNS: u64 = 30;
const WORLDS: u64 = 100;

#[test]
fn thousands_of_worlds_go_the_same_way_on_one_two_and_four_workers() {
    for run_number in 0..RUNS {
        let worlds = run_number * WORLDS..(run_number + 1) * WORLDS;
        let _running = Running(format!("worlds {worlds:?}"));
        let records = Arc::new(input(worlds));
        let expected = model(records.to_vec());
        for workers in [1, 2, 4] {
            let records = Arc::clone(&records);
            let budget_messages = if run_number % 3 == 0 { 5 } else { 4096 };
            let limits = Limits { budget_messages, ..Limits::default() };
            let found = on_workers(workers, move |worker| run(worker, &records, limits.clone()));
            assert!(merged(found) == expected, "{workers} workers");
        }
    }
}

#[test]
fn worlds_go_the_same_way_in_two_processes() {
    const PROCESS_WORLDS: std::ops::Range<u64> = 5000..6000;
    let records = input(PROCESS_WORLDS);
    if let Some(config) = cluster::member() {
        let guards =
            timely::execute(config, move |worker| run(worker, &records, Limits::default()));
        for states in guards.unwrap().join() {
            for (address, states) in states.unwrap() {
                cluster::report(format!("{address}: {states:?}"));
            }
        }
        return;
    }
    let expected: Vec<String> =
        model(records).iter().map(|(address, states)| format!("{address}: {states:?}")).collect();
    let outcomes = cluster::run("worlds_go_the_same_way_in_two_processes", 2, 2);
    assert!(outcomes.iter().all(|outcome| outcome.success && !outcome.lines.is_empty()));
    let mut found: Vec<String> = outcomes.into_iter().flat_map(|outcome| outcome.lines).collect();
    found.sort();
    let mut expected = expected;
    expected.sort();
    assert!(found == expected);
}

/// In the order of arrival the same program goes different ways: without the option these tests would
/// see it.
#[test]
fn in_the_order_of_arrival_it_would_show() {
    let records = input(0..WORLDS);
    let expected = model(records.clone());
    let found = on_workers(2, move |worker| {
        let records = records.clone();
        let states = Rc::new(RefCell::new(States::new()));
        let seen = Rc::clone(&states);
        let (mut ingress, handle) = worker.dataflow::<u64, _, _>(|scope| {
            let (ingress, stream) = scope.new_input::<Vec<Envelope<Call>>>();
            let functions = functions(Limits::default()).order(Order::Arrival);
            let egresses = stream.stateful_functions(functions).unwrap();
            egresses.stream(STATES).unwrap().inspect_time(move |time, (address, state)| {
                seen.borrow_mut().entry(address.clone()).or_default().push((*time, *state));
            });
            (ingress, egresses.handle())
        });
        for (number, (time, envelope)) in records.into_iter().enumerate() {
            if number % 2 == worker.index() {
                ingress.advance_to(time);
                ingress.send(envelope);
            }
        }
        ingress.close();
        handle.run(worker).unwrap();
        states.take()
    });
    assert!(merged(found) != expected);
}

/// Far more waits than the limits allow, for an ingress that lags: what it waits for is let in.
#[test]
fn limits_do_not_keep_out_what_all_others_wait_for() {
    const TIMES: u64 = 200;
    let limits =
        || Limits { loop_bytes_soft: 20_000, gate_credit_records: 10, ..Limits::default() };
    let handled = on_workers(2, move |worker| {
        let index = worker.index();
        let (mut ahead, mut behind, handle) = worker.dataflow::<u64, _, _>(|scope| {
            let (ahead, one) = scope.new_input::<Vec<Envelope<Call>>>();
            let (behind, other) = scope.new_input::<Vec<Envelope<Call>>>();
            let egresses = [one, other].stateful_functions(functions(limits())).unwrap();
            (ahead, behind, egresses.handle())
        });
        let call = |world| Call { world, value: 1, fuel: 0 };
        for time in 0..TIMES {
            ahead.advance_to(time);
            (0..50).for_each(|world| ahead.send(Envelope::new(address(world, time), call(world))));
            worker.step();
        }
        ahead.close();
        for _ in 0..200 {
            worker.step_or_park(Some(Duration::from_micros(50)));
        }
        assert!(!handle.ready(), "more is held back than the limits allow");
        for time in 0..TIMES {
            behind.advance_to(time);
            behind.send(Envelope::new(address(time, index as u64), call(time)));
            worker.step();
        }
        behind.close();
        handle.run(worker).unwrap();
        handle.stats().handled
    });
    assert_eq!(handled.iter().sum::<u64>(), 2 * TIMES * 51);
}

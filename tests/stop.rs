//! A stop reaches every worker of every process, and no frontier passes what did not happen.

#[path = "../operators/tests/support/cluster.rs"]
mod cluster;
mod support;

use std::cell::RefCell;
use std::rc::Rc;

use support::on_workers;
use timely::dataflow::operators::probe::Handle as Probed;
use timely::dataflow::operators::{Input, Inspect, Probe};
use timely::worker::Worker;
use timely_statefun::{
    Egress, Envelope, Function, FunctionType, Functions, Handle, Limits, Reason, StatefulFunctions,
    Stopped,
};

const CHECKED: FunctionType<u64> = FunctionType::new("stop/checked");
const PASSED: Egress<u64> = Egress::new("stop/passed");
const ERROR: u64 = 1_000_000;
const PANIC: u64 = 2_000_000;
/// The time of the message that fails.
const FAILING: u64 = 5;
const IDS: u64 = 40;
/// What is added to a number for every time that it is sent on before it counts.
const HOP: u64 = 10_000_000;

fn functions(budget_messages: usize) -> Functions<u64> {
    let checked = Function::new(|context, number: &u64| {
        if *number >= HOP {
            let id = context.id().clone();
            context.send(CHECKED, id, number - HOP);
            return Ok(());
        }
        context.emit(PASSED, *number);
        match *number {
            ERROR => Err(std::io::Error::other("a bad number").into()),
            PANIC => panic!("a very bad number"),
            _ => Ok(()),
        }
    });
    let limits = Limits { budget_messages, ..Limits::default() };
    Functions::new().embedded(CHECKED, checked).egress(PASSED).limits(limits)
}

type Records = timely::dataflow::operators::vec::input::Handle<u64, Envelope<u64>>;
type Left = Rc<RefCell<Vec<(u64, u64)>>>;

fn build(worker: &mut Worker, budget: usize) -> (Records, Left, Probed<u64>, Handle<u64>) {
    let left = Left::default();
    let out = Rc::clone(&left);
    let (input, probe, handle) = worker.dataflow::<u64, _, _>(|scope| {
        let (input, stream) = scope.new_input::<Vec<Envelope<u64>>>();
        let egresses = stream.stateful_functions(functions(budget)).unwrap();
        let passed = egresses.stream(PASSED).unwrap();
        let passed = passed.inspect_time(move |time, n| out.borrow_mut().push((*time, *n)));
        (input, passed.probe().0, egresses.handle())
    });
    (input, left, probe, handle)
}

/// Sends what fails at its time, from worker 0, and something at a later time from each.
fn send_failing(input: &mut Records, index: usize, failing: u64) {
    input.advance_to(FAILING);
    if index == 0 {
        input.send(CHECKED.message(7, failing));
    }
    input.advance_to(FAILING + 1);
    (0..IDS).for_each(|id| input.send(CHECKED.message(id, id)));
}

/// What a worker knows of a stop: where it was, how many records left before it, and after it.
type Seen = (Stopped, usize, usize);

fn stops(worker: &mut Worker, failing: u64) -> Seen {
    let index = worker.index();
    let (mut input, left, probe, handle) = build(worker, 1);
    for time in 0..FAILING {
        input.advance_to(time);
        (0..IDS).for_each(|id| input.send(CHECKED.message(id, id)));
    }
    input.advance_to(FAILING);
    // Worker 0 sends what fails when it has seen this; others may hear of that before they see it.
    let waited = handle.run_while(worker, || probe.less_than(&FAILING));
    assert!(waited.is_ok() || index > 0, "nothing has failed yet");
    // It fails so late that nothing but the loop itself still holds its time.
    send_failing(&mut input, index, failing + 100 * HOP);
    input.close();
    while handle.stopped().is_none() {
        worker.step_or_park(None);
    }
    // Whoever does not end the dataflow at once sees the frontier stay.
    for _ in 0..100 {
        worker.step();
    }
    let stopped = handle.run(worker).expect_err("a message fails");
    assert!(probe.less_equal(&FAILING), "the frontier passed what did not happen");
    assert!(!handle.ready());
    assert_eq!(handle.stopped().as_ref(), Some(&stopped), "the same answer later");
    let left = left.borrow();
    let early = left.iter().filter(|(time, _)| *time < FAILING).count();
    let failed = left.iter().filter(|(_, number)| *number == failing).count();
    (stopped, early, failed)
}

fn reason(failing: u64) -> Reason {
    match failing {
        ERROR => Reason::Failed("a bad number".into()),
        _ => Reason::Panicked("a very bad number".into()),
    }
}

/// Every worker must name the one failure, and what was done before it must have left.
fn assert_stopped(seen: &[Seen], failing: u64) {
    let workers = seen.len();
    let (address, worker) = (CHECKED.at(7), seen[0].0.worker);
    assert!(worker < workers);
    let expected = Stopped { address: Some(address), reason: reason(failing), worker };
    let early: usize = seen.iter().map(|(_, early, _)| early).sum();
    assert_eq!(early, workers * (IDS * FAILING) as usize, "what was done before the stop left");
    for (stopped, _, failed) in seen {
        assert_eq!((stopped, *failed), (&expected, 0));
    }
    let text = format!("stopped at \"stop/checked 7\" on worker {worker}: ");
    assert_eq!(expected.to_string(), text + &reason(failing).to_string());
}

#[test]
fn a_failure_stops_every_worker() {
    for workers in [1, 2, 4] {
        for failing in [ERROR, PANIC] {
            assert_stopped(&on_workers(workers, move |w| stops(w, failing)), failing);
        }
    }
}

#[test]
fn a_failure_stops_every_worker_of_every_process() {
    if let Some(config) = cluster::member() {
        let guards = timely::execute(config, |worker| stops(worker, ERROR)).unwrap();
        for end in guards.join() {
            let (stopped, early, failed) = end.unwrap();
            let Stopped { address, reason, worker } = stopped;
            let address = address.expect("it is about an address");
            cluster::report(format!("{worker}|{early}|{failed}|{address}|{reason}"));
        }
        return;
    }
    let outcomes = cluster::run("a_failure_stops_every_worker_of_every_process", 2, 2);
    let mut seen = Vec::new();
    for outcome in &outcomes {
        assert!(outcome.success && outcome.lines.len() == 2, "{}", outcome.output);
        for line in &outcome.lines {
            let words: Vec<_> = line.split('|').collect();
            let number = |at: usize| words[at].parse::<usize>().unwrap();
            assert_eq!(words[3..], ["stop/checked 7", &reason(ERROR).to_string()]);
            let (address, reason, worker) = (Some(CHECKED.at(7)), reason(ERROR), number(0));
            seen.push((Stopped { address, reason, worker }, number(1), number(2)));
        }
    }
    assert_stopped(&seen, ERROR);
}

/// Not even if the failure comes before they had time to leave.
#[test]
fn what_was_done_before_a_stop_leaves_although_it_stops_at_once() {
    timely::execute_directly(|worker| {
        let (mut input, left, probe, handle) = build(worker, 4096);
        for time in 0..FAILING {
            input.advance_to(time);
            input.send(CHECKED.message(time, time));
        }
        send_failing(&mut input, 0, ERROR);
        input.close();
        assert!(handle.run(worker).is_err());
        assert!(probe.less_equal(&FAILING));
        let early: Vec<_> = (0..FAILING).map(|time| (time, time)).collect();
        assert_eq!(*left.borrow(), early);
    });
}

/// A program that lets timely run to the end and never asks.
fn never_asks(worker: &mut Worker, failing: u64) {
    let index = worker.index();
    let (mut input, _, _, _) = build(worker, 4096);
    send_failing(&mut input, index, failing);
}

#[test]
fn a_program_that_never_asks_is_ended_by_a_panic() {
    for workers in [1, 2, 4] {
        for failing in [ERROR, PANIC] {
            let config = timely::Config::process(workers);
            let guards = timely::execute(config, move |w| never_asks(w, failing)).unwrap();
            let ends = guards.join();
            assert_eq!(ends.len(), workers);
            assert!(ends.iter().all(Result::is_err), "{ends:?}");
        }
    }
}

/// Timely ends a process whose peer has gone, so the clear words may come from one of them only.
#[test]
fn a_program_of_two_processes_that_never_asks_is_ended_by_a_panic() {
    if let Some(config) = cluster::member() {
        let guards = timely::execute(config, |worker| never_asks(worker, ERROR)).unwrap();
        for end in guards.join() {
            end.unwrap();
        }
        return;
    }
    let name = "a_program_of_two_processes_that_never_asks_is_ended_by_a_panic";
    let outcomes = cluster::run(name, 2, 1);
    let clear = "the program did not end a dataflow whose loop had stopped";
    let output: String = outcomes.iter().map(|outcome| outcome.output.as_str()).collect();
    assert!(outcomes.iter().all(|outcome| !outcome.success), "{output}");
    assert!(output.contains(clear), "{output}");
}

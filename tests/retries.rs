//! A message that fails is tried again: as often as it may be, while later ones of its address wait
//! and nobody else does, and its time with it.

mod support;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use support::{Running, mix, on_workers};
use timely::dataflow::operators::{Input, Inspect, Probe};
use timely::worker::Worker;
use timely_statefun::{
    Clock, Egress, Envelope, Function, FunctionType, Functions, OnFailure, Reason, Retry,
    StatefulFunctions, ValueSpec,
};

const FLAKY: FunctionType<Job> = FunctionType::new("retries/flaky");
const DONE: Egress<Done> = Egress::new("retries/done");
/// How many jobs were done: it must not count those that failed.
const COUNT: ValueSpec<u64> = ValueSpec::new("count");

/// A job that succeeds at the attempt after so many failures.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Job {
    number: u64,
    failures: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Done {
    number: u64,
    at: u64,
    count: u64,
    frontier: Vec<u64>,
}

/// Fails as often as a job says. The attempts are counted outside of its state, which failure undoes.
fn flaky() -> Function<Job, Job> {
    let attempts = RefCell::new(BTreeMap::<u64, u32>::new());
    let function = Function::new(move |context, job: &Job| {
        let count = context.update(COUNT, |count| *count += 1);
        let at = context.id().as_number().ok_or("addresses have numbers")?;
        let frontier = context.frontier().to_vec();
        context.emit(DONE, Done { number: job.number, at, count, frontier });
        let mut attempts = attempts.borrow_mut();
        let attempt = attempts.entry(job.number).or_default();
        *attempt += 1;
        match *attempt <= job.failures {
            // A panic that is not reported on the way.
            true if job.number.is_multiple_of(2) => std::panic::resume_unwind(Box::new("panic")),
            true => Err(format!("attempt {attempt}").into()),
            false => Ok(()),
        }
    });
    function.value(COUNT)
}

type Seen<X> = Rc<RefCell<Vec<(u64, X)>>>;
type Built = (
    timely::dataflow::InputHandleVec<u64, Envelope<Job>>,
    timely::dataflow::ProbeHandle<u64>,
    timely_statefun::Handle<u64>,
    Seen<Done>,
    Seen<(u64, Reason, u32)>,
);

fn build(worker: &mut Worker, clock: Clock, function: Function<Job, Job>) -> Built {
    let (done, letters) = (Seen::<Done>::default(), Seen::default());
    let (seen_done, seen_letters) = (Rc::clone(&done), Rc::clone(&letters));
    worker.dataflow::<u64, _, _>(|scope| {
        let (input, stream) = scope.new_input::<Vec<Envelope<Job>>>();
        let functions = Functions::new().clock(clock).embedded(FLAKY, function).egress(DONE);
        let egresses = stream.stateful_functions(functions).unwrap();
        let stream = egresses.stream(DONE).unwrap().inspect_time(move |time, done| {
            seen_done.borrow_mut().push((*time, done.clone()));
        });
        egresses.dead_letters().unwrap().inspect_time(move |time, letter| {
            let letter = (letter.message.number, letter.reason.clone(), letter.attempts);
            seen_letters.borrow_mut().push((*time, letter));
        });
        (input, stream.probe().0, egresses.handle(), done, letters)
    })
}

fn numbers(done: &Seen<Done>) -> Vec<(u64, u64)> {
    done.borrow().iter().map(|(time, done)| (*time, done.number)).collect()
}

fn steps(worker: &mut Worker) {
    for _ in 0..30 {
        worker.step();
    }
}

#[test]
fn later_messages_of_its_address_wait_and_nobody_else_does() {
    timely::execute_directly(|worker| {
        let (clock, hands) = Clock::turned(5_000);
        let retry = Retry::attempts(4).first(Duration::from_secs(1)).jitter(0.0);
        let (mut input, probe, handle, done, letters) = build(worker, clock, flaky().retry(retry));
        input.send(FLAKY.message(1, Job { number: 1, failures: 2 }));
        input.send(FLAKY.message(1, Job { number: 2, failures: 1 }));
        input.send(FLAKY.message(2, Job { number: 3, failures: 0 }));
        input.advance_to(1);
        input.send(FLAKY.message(1, Job { number: 5, failures: 0 }));
        input.send(FLAKY.message(3, Job { number: 7, failures: 0 }));
        input.advance_to(2);
        steps(worker);
        assert_eq!(numbers(&done), [(0, 3), (1, 7)]);
        assert!(probe.less_equal(&0), "what is tried again holds its time");
        for (turn_ms, expected) in [
            (999, vec![]),
            (1, vec![]), // The second attempt at 1 fails: two seconds now.
            (1999, vec![]),
            (1, vec![(0, 1)]), // 1 succeeds, 2 is tried, and fails.
            (999, vec![]),
            (1, vec![(0, 2), (1, 5)]),
        ] {
            done.take();
            hands.advance(Duration::from_millis(turn_ms));
            steps(worker);
            assert_eq!(numbers(&done), expected, "after {turn_ms} ms");
        }
        let counts: Vec<u64> = done.borrow().iter().map(|(_, done)| done.count).collect();
        assert_eq!(counts, [2, 3], "failed attempts left no trace");
        assert!(!probe.less_than(&2));
        input.close();
        handle.run(worker).unwrap();
        assert!(letters.take().is_empty());
    });
}

#[test]
fn what_fails_too_often_is_given_up_with_the_number_of_attempts() {
    for policy in [OnFailure::DeadLetter, OnFailure::Skip, OnFailure::Stop] {
        timely::execute_directly(move |worker| {
            let (clock, hands) = Clock::turned(5_000);
            let retry = Retry::attempts(3).first(Duration::from_millis(10)).jitter(1.0);
            let function = flaky().retry(retry).on_failure(policy);
            let (mut input, probe, handle, done, letters) = build(worker, clock, function);
            input.send(FLAKY.message(1, Job { number: 1, failures: 9 }));
            input.send(FLAKY.message(1, Job { number: 3, failures: 0 }));
            input.close();
            for _ in 0..40 {
                hands.advance(Duration::from_millis(1));
                steps(worker);
            }
            let result = handle.run(worker);
            let reason = Reason::Failed("attempt 3".to_owned());
            match policy {
                OnFailure::Stop => {
                    assert_eq!(result.unwrap_err().reason, reason);
                    assert!(numbers(&done).is_empty() && probe.less_equal(&0));
                }
                _ => {
                    result.unwrap();
                    assert_eq!(numbers(&done), [(0, 3)], "the next one is handled");
                    assert!(probe.done());
                }
            }
            let expected = (policy == OnFailure::DeadLetter).then_some((0, (1, reason, 3)));
            assert_eq!(letters.take(), Vec::from_iter(expected));
        });
    }
}

#[test]
fn a_detached_function_is_tried_again_at_a_later_time() {
    timely::execute_directly(|worker| {
        let (clock, hands) = Clock::turned(5_000);
        let retry = Retry::attempts(2).first(Duration::from_secs(1)).jitter(0.0);
        let function = flaky().retry(retry).detached();
        let (mut input, probe, handle, done, _) = build(worker, clock, function);
        input.send(FLAKY.message(1, Job { number: 1, failures: 1 }));
        input.send(FLAKY.message(1, Job { number: 3, failures: 0 }));
        input.advance_to(4);
        handle.run_while(worker, || probe.less_than(&4)).unwrap();
        assert!(numbers(&done).is_empty());
        input.advance_to(6);
        steps(worker);
        input.close();
        steps(worker);
        assert!(!probe.done(), "it waits for the next attempt");
        hands.advance(Duration::from_secs(1));
        handle.run(worker).unwrap();
        assert_eq!(numbers(&done), [(6, 1), (6, 3)]);
    });
}

/// A function that decides by the frontier must not be told that nothing of a time will come while a
/// record of it waits to be tried again.
#[test]
fn the_frontier_that_functions_see_waits_for_records_that_are_tried_again() {
    timely::execute_directly(|worker| {
        let (clock, hands) = Clock::turned(5_000);
        let retry = Retry::attempts(3).first(Duration::from_secs(1)).jitter(0.0);
        let (mut input, probe, handle, done, _) = build(worker, clock, flaky().retry(retry));
        let frontier_at = |number: u64| {
            let done = done.borrow();
            let found = done.iter().find(|(_, done)| done.number == number);
            found.expect("it was done").1.frontier.clone()
        };
        input.send(FLAKY.message(1, Job { number: 1, failures: 1 }));
        input.advance_to(3);
        steps(worker);
        input.send(FLAKY.message(2, Job { number: 3, failures: 0 }));
        input.advance_to(5);
        steps(worker);
        assert_eq!(frontier_at(3), [0], "1 still waits");
        hands.advance(Duration::from_secs(1));
        handle.run_while(worker, || probe.less_than(&5)).unwrap();
        input.send(FLAKY.message(2, Job { number: 7, failures: 0 }));
        input.close();
        handle.run(worker).unwrap();
        assert_eq!(frontier_at(7), [5]);
    });
}

/// Jobs that fail as they like, on several workers: each is done once, or given up, in the order of
/// its address, and every address counts what it has done.
#[test]
fn each_job_is_done_once_in_order_or_given_up() {
    const JOBS: u64 = 400;
    const ADDRESSES: u64 = 7;
    const ATTEMPTS: u32 = 4;
    for seed in 0..4 {
        let _running = Running(format!("seed {seed}"));
        let job = move |number: u64| {
            let drawn = mix(seed * 1000 + number);
            let failures = if drawn.is_multiple_of(3) { (drawn >> 8) as u32 % 6 } else { 0 };
            (drawn % ADDRESSES, Job { number, failures })
        };
        let results = on_workers(3, move |worker| {
            let retry = Retry::attempts(ATTEMPTS)
                .first(Duration::from_millis(1))
                .longest(Duration::from_millis(3));
            let function = flaky().retry(retry).on_failure(OnFailure::DeadLetter);
            let (mut input, _, handle, done, letters) = build(worker, Clock::system(), function);
            if worker.index() == 0 {
                for number in 0..JOBS {
                    let (address, job) = job(number);
                    input.advance_to(number / 10);
                    input.send(FLAKY.message(address, job));
                    if number % 50 == 0 {
                        worker.step();
                    }
                }
            }
            input.close();
            handle.run(worker).unwrap();
            (done.take(), letters.take())
        });
        let mut expected: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        let mut given_up = Vec::new();
        for number in 0..JOBS {
            let (address, job) = job(number);
            match job.failures < ATTEMPTS {
                true => expected.entry(address).or_default().push(number),
                false => given_up.push((number, ATTEMPTS)),
            }
        }
        let mut found: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        for (time, done) in results.iter().flat_map(|(done, _)| done) {
            let before = found.entry(done.at).or_default();
            before.push(done.number);
            assert_eq!((*time, done.count), (done.number / 10, before.len() as u64));
        }
        assert_eq!(found, expected);
        let letters = results.iter().flat_map(|(_, letters)| letters);
        let mut letters: Vec<_> =
            letters.map(|(_, (number, _, tries))| (*number, *tries)).collect();
        letters.sort_unstable();
        assert_eq!(letters, given_up);
        assert!(!given_up.is_empty());
    }
}

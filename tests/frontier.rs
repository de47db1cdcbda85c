//! The frontier of an egress passes a time exactly when all consequences of that time have happened.
//!
//! Every record carries the seed of a tree of calls, so a model that never saw a loop knows how many
//! invocations each ingress time causes. No frontier may pass a time before they have all been made,
//! on any worker, whatever the times do; and once they have been made, no later time can keep the
//! frontier from passing.

#[path = "../operators/tests/support/pair.rs"]
mod pair;
mod support;

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Barrier};

use pair::Pair;
use serde::{Deserialize, Serialize};
use support::{Random, Running, mix, on_workers};
use timely::dataflow::operators::vec::UnorderedInput;
use timely::dataflow::operators::{Inspect, Probe};
use timely::progress::Timestamp;
use timely::progress::timestamp::Refines;
use timely::worker::Worker;
use timely_statefun::{
    Egress, Envelope, Function, FunctionType, Functions, Limits, StatefulFunctions,
};

const NODE: FunctionType<Call> = FunctionType::new("frontier/node");
const RUNNER: FunctionType<Call> = FunctionType::new("frontier/runner");
const DONE: Egress<usize> = Egress::new("frontier/done");
const TIMES: usize = 16;
const SEEDS: u64 = 400;
const IDS: u64 = 24;

/// A call and, through its seed, all calls that follow from it.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Call {
    /// The number of the ingress time it should be handled at.
    time: usize,
    depth: u64,
    seed: u64,
}

impl Call {
    fn followers(&self) -> Vec<Call> {
        let count = if self.depth == 0 { 0 } else { mix(self.seed) % 4 };
        let follower = |n| {
            let seed = mix(self.seed.wrapping_add(n + 1));
            Call { time: self.time, depth: self.depth - 1, seed }
        };
        (0..count).map(follower).collect()
    }

    /// How many invocations it makes in the end.
    fn invocations(&self) -> u64 {
        1 + self.followers().iter().map(Call::invocations).sum::<u64>()
    }
}

/// Ingress times, by number.
trait Times: Timestamp + Refines<()> {
    fn number(number: usize) -> Self;
}

impl Times for u64 {
    fn number(number: usize) -> u64 {
        number as u64 * 3
    }
}

/// Four by four times, most of them incomparable.
impl Times for Pair {
    fn number(number: usize) -> Self {
        Pair(number as u64 / 4, number as u64 % 4)
    }
}

/// Invocations and emitted records by ingress time, over all workers.
#[derive(Default)]
struct Counts {
    handled: [AtomicU64; TIMES],
    left: [AtomicU64; TIMES],
}

/// The records that one worker sends in a run.
fn records(seed: u64, worker: usize) -> Vec<Call> {
    let mut random = Random(seed * 16 + worker as u64);
    let record = |_| {
        let (time, depth) = (random.below(TIMES as u64) as usize, random.below(6));
        Call { time, depth, seed: random.any() }
    };
    (0..12).map(record).collect()
}

fn functions<T: Times>(counts: &Arc<Counts>, limits: Limits) -> Functions<Call, T> {
    let counts = Arc::clone(counts);
    // The frontiers that messages on this worker were shown.
    let shown: RefCell<Vec<Vec<T>>> = RefCell::default();
    let function = Function::new(move |context, call: &Call| {
        let time = T::number(call.time);
        assert_eq!(*context.time(), time);
        if context.caller().is_none() {
            for frontier in shown.borrow().iter() {
                let open = frontier.iter().any(|element| element.less_equal(&time));
                assert!(open, "a record at {time:?} came after frontier {frontier:?} was shown");
            }
        }
        let frontier = context.frontier().to_vec();
        if shown.borrow().last() != Some(&frontier) {
            shown.borrow_mut().push(frontier);
        }
        for follower in call.followers() {
            context.send(NODE, follower.seed % IDS, follower);
        }
        context.emit(DONE, call.time);
        counts.handled[call.time].fetch_add(1, SeqCst);
        Ok(())
    });
    Functions::new().embedded(NODE, function).egress(DONE).limits(limits)
}

/// One run on one worker. Says how many times the frontier had passed before the inputs ended.
fn follow<T: Times>(worker: &mut Worker, seed: u64, counts: &Arc<Counts>) -> usize {
    let (index, peers) = (worker.index(), worker.peers());
    let limits = Limits { budget_messages: [1, 3, 4096][seed as usize % 3], ..Limits::default() };
    let ((mut input, first), probe, handle) = worker.dataflow::<T, _, _>(|scope| {
        let (input, stream) = scope.new_unordered_input::<Envelope<Call>>();
        let egresses = stream.stateful_functions(functions(counts, limits)).unwrap();
        let left = Arc::clone(counts);
        let done = egresses.stream(DONE).unwrap();
        let done = done.inspect_time(move |time, number| {
            assert_eq!(*time, T::number(*number), "a record left at another time");
            left.left[*number].fetch_add(1, SeqCst);
        });
        (input, done.probe().0, egresses.handle())
    });
    let mut expected = [0; TIMES];
    for call in (0..peers).flat_map(|worker| records(seed, worker)) {
        expected[call.time] += call.invocations();
    }
    let mut passed = [false; TIMES];
    let mut look = |ended: bool| {
        for (at, passed) in passed.iter_mut().enumerate() {
            if *passed {
                continue;
            }
            if probe.less_equal(&T::number(at)) {
                assert!(!ended, "the end did not pass time {at}");
                continue;
            }
            *passed = true;
            for before in (0..TIMES).filter(|b| T::number(*b).less_equal(&T::number(at))) {
                let handled = counts.handled[before].load(SeqCst);
                let left = counts.left[before].load(SeqCst);
                let all = expected[before];
                assert_eq!((handled, left), (all, all), "passed {at}, of {before}");
            }
        }
        passed.iter().filter(|passed| **passed).count()
    };
    let mut waiting = records(seed, index);
    let mut times: Vec<_> = (0..TIMES).map(|at| Some(first.delayed(&T::number(at)))).collect();
    drop(first);
    let mut random = Random(seed * 31 + index as u64);
    let in_order = seed.is_multiple_of(2);
    while let Some(next) = times.iter().position(Option::is_some) {
        // The next time in order, or any. Its records go in, then it ends.
        let at = if in_order { next } else { random.below(TIMES as u64) as usize };
        if let Some(capability) = times[at].take() {
            for call in waiting.extract_if(.., |call| call.time == at) {
                let record = NODE.message(call.seed % IDS, call);
                input.activate().session(&capability).give(record);
            }
        }
        for _ in 0..random.below(6) {
            worker.step();
            look(false);
        }
        // Now and then all workers wait for each other, so that a time ends while others are open.
        if in_order && mix(seed + at as u64).is_multiple_of(3) {
            let waited = handle.run_while(worker, || {
                look(false);
                probe.less_equal(&T::number(at))
            });
            waited.unwrap();
        }
    }
    let passed_early = look(false);
    drop(input);
    handle
        .run_while(worker, || {
            look(false);
            true
        })
        .unwrap();
    look(true);
    passed_early
}

/// Follows all seeds in one program.
fn never_early<T: Times>(workers: usize) {
    let counts: Arc<Vec<Arc<Counts>>> = Arc::new((0..SEEDS).map(|_| Arc::default()).collect());
    let passed_early = on_workers(workers, move |worker| {
        let mut passed = 0;
        for seed in 0..SEEDS {
            let _running = Running(format!("seed {seed} on {workers} workers"));
            passed += follow::<T>(worker, seed, &counts[seed as usize]);
        }
        passed
    });
    let passed: usize = passed_early.into_iter().sum();
    assert!(passed > SEEDS as usize, "few times were passed while others were open: {passed}");
}

#[test]
fn a_frontier_is_never_early_on_one_worker() {
    never_early::<u64>(1);
}

#[test]
fn a_frontier_is_never_early_on_two_workers() {
    never_early::<u64>(2);
}

#[test]
fn a_frontier_is_never_early_at_partially_ordered_times() {
    never_early::<Pair>(1);
    never_early::<Pair>(2);
}

/// Steps within which a frontier passes a time once all is done. The way of an egress has a few
/// operators, and progress takes a step or two from worker to worker.
const LATE_MAX: usize = 30;
/// Steps that are far more than all the work takes.
const ROUNDS: usize = 500;

/// Records of each worker that go round for ever: so many that in every step some go to another
/// worker, and could carry an earlier time along.
const RUNNERS: u64 = 32;

/// Goes round for ever, at its own time, until it may not.
fn runner(running: &Arc<AtomicBool>) -> Function<Call, Call> {
    let running = Arc::clone(running);
    Function::new(move |context, call: &Call| {
        if running.load(SeqCst) {
            let call = Call { seed: mix(call.seed), ..call.clone() };
            context.send(RUNNER, call.seed % IDS, call);
        }
        Ok(())
    })
}

/// For every time, the steps in which all its work was seen to be done and to be passed.
type Seen = [(Option<usize>, Option<usize>); TIMES - 1];

/// One run on one worker. All workers step together, so that steps can be counted.
fn race(
    worker: &mut Worker,
    seed: u64,
    counts: &Arc<Counts>,
    running: &Arc<AtomicBool>,
    barrier: &Barrier,
) -> Seen {
    let (index, peers) = (worker.index(), worker.peers());
    let ((mut input, first), probe, handle) = worker.dataflow::<u64, _, _>(|scope| {
        let (input, stream) = scope.new_unordered_input::<Envelope<Call>>();
        // Of two workers each handles all there is, so that nothing but what arrives is held. Of one
        // the budget must end what goes round.
        let budget_messages = if peers == 1 { 64 } else { 4096 };
        let limits = Limits { budget_messages, activation_max: None, ..Limits::default() };
        let functions = functions::<u64>(counts, limits).embedded(RUNNER, runner(running));
        let egresses = stream.stateful_functions(functions).unwrap();
        (input, egresses.stream(DONE).unwrap().probe().0, egresses.handle())
    });
    // The runners come first, and at the latest time.
    let last = first.delayed(&u64::number(TIMES - 1));
    for seed in 0..RUNNERS {
        let call = Call { time: TIMES - 1, depth: 0, seed };
        input.activate().session(&last).give(RUNNER.message(seed % IDS, call));
    }
    let mut expected = [0; TIMES];
    for call in (0..peers).flat_map(|worker| records(seed, worker)) {
        expected[call.time] += call.invocations();
    }
    for call in records(seed, index) {
        let time = first.delayed(&u64::number(call.time));
        input.activate().session(&time).give(NODE.message(call.seed % IDS, call));
    }
    drop((first, last, input));
    let mut seen = Seen::default();
    for round in 0..ROUNDS {
        barrier.wait();
        worker.step();
        let mut all_done = true;
        for (at, (done, passed)) in seen.iter_mut().enumerate() {
            all_done &= counts.handled[at].load(SeqCst) == expected[at];
            if all_done {
                done.get_or_insert(round);
            }
            if !probe.less_equal(&u64::number(at)) {
                passed.get_or_insert(round);
            }
        }
    }
    assert!(probe.less_equal(&u64::number(TIMES - 1)), "passed what still goes on");
    running.store(false, SeqCst);
    handle.run(worker).unwrap();
    seen
}

fn never_late(workers: usize) {
    for seed in 0..10 {
        let _running = Running(format!("seed {seed} on {workers} workers"));
        let counts = Arc::<Counts>::default();
        let running = Arc::new(AtomicBool::new(true));
        let barrier = Barrier::new(workers);
        let seen =
            on_workers(workers, move |worker| race(worker, seed, &counts, &running, &barrier));
        for (at, (done, passed)) in seen.into_iter().flatten().enumerate() {
            let (at, done) = (at % (TIMES - 1), done.expect("all work was done"));
            let passed = passed.unwrap_or_else(|| panic!("time {at}, done in step {done}"));
            assert!(passed <= done + LATE_MAX, "time {at}: done in {done}, passed in {passed}");
        }
    }
}

#[test]
fn a_frontier_is_not_late_on_one_worker() {
    never_late(1);
}

#[test]
fn a_frontier_is_not_late_on_two_workers() {
    never_late(2);
}

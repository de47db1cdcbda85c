//! Everything that waits has a bound: what comes in while the program asks whether the functions
//! are ready, what they send each other, and how long a chain gets.

mod support;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Barrier};

use support::on_workers;
use timely::dataflow::operators::{Input, Inspect};
use timely::worker::Worker;
use timely_statefun::{
    DeadLetter, Envelope, Function, FunctionType, Functions, Limits, OnFailure, Reason,
    StatefulFunctions, Stopped,
};

const NODE: FunctionType<u64> = FunctionType::new("bounds/node");
const BATCH: u64 = 100;
const BATCHES: u64 = 60;
const CREDIT: usize = 50;
const BUDGET: usize = 16;
/// The soft limit, in messages.
const SOFT: usize = 200;
/// Steps that are far more than all batches take.
const ROUNDS: usize = 8000;
const IDS: u64 = 64;

/// A message is sent on as often as it says: as many messages wait after it as before.
fn passing_on(limits: Limits) -> Functions<u64> {
    let node = Function::new(|context, left: &u64| {
        if *left > 0 {
            let id = context.id().as_number().ok_or("nodes have numbers")?;
            context.send(NODE, (id * 7 + left) % IDS, left - 1);
        }
        Ok(())
    });
    Functions::new().embedded(NODE, node).limits(limits)
}

/// What a message counts for: measured, since the size of its type is nobody's business.
fn bytes_of_one() -> usize {
    timely::execute_directly(|worker| {
        let (mut input, handle) = worker.dataflow::<u64, _, _>(|scope| {
            let (input, stream) = scope.new_input::<Vec<Envelope<u64>>>();
            let limits = Limits { budget_messages: 1, ..Limits::default() };
            (input, stream.stateful_functions(passing_on(limits)).unwrap().handle())
        });
        (0..2).for_each(|id| input.send(NODE.message(id, 0)));
        input.close();
        handle.run_while(worker, || handle.stats().waiting != 1).unwrap();
        let bytes = handle.stats().waiting_bytes;
        handle.run(worker).unwrap();
        bytes
    })
}

/// Limits that `BATCHES` batches are far more than.
fn narrow() -> Limits {
    Limits {
        budget_messages: BUDGET,
        gate_credit_records: CREDIT,
        loop_bytes_soft: SOFT * bytes_of_one(),
        ..Limits::default()
    }
}

fn batch(number: u64) -> impl Iterator<Item = Envelope<u64>> {
    (0..BATCH).map(move |record| NODE.message((number * BATCH + record) % IDS, record % 10))
}

/// Feeds whenever the handle is ready after a step. All workers step together, so that none runs
/// ahead while another sleeps. Gives the most that was seen: messages that waited on this worker,
/// and records before its gate.
fn feed(worker: &mut Worker, limits: Limits, barrier: &Barrier) -> (usize, u64) {
    let (mut input, handle) = worker.dataflow::<u64, _, _>(|scope| {
        let (input, stream) = scope.new_input::<Vec<Envelope<u64>>>();
        (input, stream.stateful_functions(passing_on(limits)).unwrap().handle())
    });
    let (mut waiting, mut outside, mut next) = (0, 0, 0);
    for _ in 0..ROUNDS {
        barrier.wait();
        worker.step();
        let stats = handle.stats();
        waiting = waiting.max(stats.waiting);
        outside = outside.max(next * BATCH - stats.admitted);
        if handle.ready() && next < BATCHES {
            batch(next).for_each(|record| input.send(record));
            next += 1;
            input.advance_to(next);
        }
    }
    input.close();
    handle.run(worker).unwrap();
    assert_eq!((next, handle.stats().admitted), (BATCHES, BATCHES * BATCH), "too few rounds");
    (waiting, outside)
}

/// What waits is never more than the soft limit and what the gates had let in when it was reached,
/// on all workers together: messages may all go to one.
#[test]
fn a_source_that_obeys_stays_in_bounded_memory() {
    for workers in [1, 2] {
        let (limits, barrier) = (narrow(), Barrier::new(workers));
        let seen = on_workers(workers, move |worker| feed(worker, limits.clone(), &barrier));
        // It takes a few steps until other workers have heard that there is no room.
        let heard = if workers == 1 { 0 } else { 4 * BUDGET };
        let waiting_max = workers * (SOFT + workers * CREDIT + heard);
        for (waiting, outside) in &seen {
            assert!(*waiting <= waiting_max, "{waiting} messages waited, of at most {waiting_max}");
            assert!(*outside <= BATCH, "{outside} records waited outside, in batches of {BATCH}");
        }
        // Gates close as soon as one worker has no room; on the other it depends on whose messages came first.
        let most = seen.iter().map(|(waiting, _)| *waiting).max();
        assert!(most > Some(SOFT / 2), "no more than {most:?} messages ever waited");
    }
}

/// As the example of `until_ready` does it. A source that only asked, and did not step where the
/// answer was yes, once sent everything before a gate saw any of it.
#[test]
fn a_source_that_never_steps_by_itself_stays_in_bounded_memory() {
    timely::execute_directly(|worker| {
        let (mut input, handle) = worker.dataflow::<u64, _, _>(|scope| {
            let (input, stream) = scope.new_input::<Vec<Envelope<u64>>>();
            (input, stream.stateful_functions(passing_on(narrow())).unwrap().handle())
        });
        for number in 0..BATCHES {
            handle.until_ready(worker).unwrap();
            let outside = number * BATCH - handle.stats().admitted;
            assert!(outside <= BATCH, "{outside} records wait outside, in batches of {BATCH}");
            batch(number).for_each(|record| input.send(record));
            input.advance_to(number + 1);
        }
        input.close();
        handle.run(worker).unwrap();
    });
}

/// Which worker of two each id is on.
fn homes() -> Vec<usize> {
    let homes: Arc<Vec<AtomicU64>> = Arc::new((0..IDS).map(|_| AtomicU64::new(9)).collect());
    let found = Arc::clone(&homes);
    on_workers(2, move |worker| {
        let (index, homes) = (worker.index() as u64, Arc::clone(&found));
        let (mut input, handle) = worker.dataflow::<u64, _, _>(|scope| {
            let (input, stream) = scope.new_input::<Vec<Envelope<u64>>>();
            let node = Function::new(move |_, id: &u64| {
                homes[*id as usize].store(index, SeqCst);
                Ok(())
            });
            let functions = Functions::new().embedded(NODE, node);
            (input, stream.stateful_functions(functions).unwrap().handle())
        });
        (0..IDS).for_each(|id| input.send(NODE.message(id, id)));
        input.close();
        handle.run(worker).unwrap();
    });
    homes.iter().map(|home| home.load(SeqCst) as usize).collect()
}

/// A worker that is slow, here one that does not step at all, cannot say that it has no room. The
/// other, whose source obeys, must not send it all there is meanwhile.
#[test]
fn a_slow_worker_is_not_flooded_by_another() {
    let homes = homes();
    // A message to one of these, on worker 1, is sent on to worker 0.
    let on_one =
        |id: &u64| homes[*id as usize] == 1 && homes[(*id * 7 + 1) as usize % homes.len()] == 0;
    let ids: Vec<u64> = (0..IDS).filter(on_one).collect();
    assert!(!ids.is_empty());
    let (limits, barrier) = (narrow(), Barrier::new(2));
    let waiting = on_workers(2, move |worker| {
        let (mut input, handle) = worker.dataflow::<u64, _, _>(|scope| {
            let (input, stream) = scope.new_input::<Vec<Envelope<u64>>>();
            (input, stream.stateful_functions(passing_on(limits.clone())).unwrap().handle())
        });
        for number in 0..BATCHES * worker.index() as u64 {
            for _ in 0..40 {
                worker.step();
            }
            if handle.ready() {
                let ids = ids.iter().cycle().take(BATCH as usize);
                ids.for_each(|id| input.send(NODE.message(*id, 1)));
                input.advance_to(number + 1);
            }
        }
        barrier.wait();
        input.close();
        let mut waiting = 0;
        let end = handle.run_while(worker, || {
            waiting = waiting.max(handle.stats().waiting);
            true
        });
        end.unwrap();
        waiting
    });
    let waiting_max = 2 * (SOFT + 2 * CREDIT);
    assert!(waiting[0] <= waiting_max, "{} waited, of at most {waiting_max}", waiting[0]);
}

#[test]
fn what_waits_outside_a_gate_is_not_admitted() {
    timely::execute_directly(|worker| {
        let (mut input, handle) = worker.dataflow::<u64, _, _>(|scope| {
            let (input, stream) = scope.new_input::<Vec<Envelope<u64>>>();
            let limits = Limits { budget_messages: 1, gate_credit_records: 4, ..Limits::default() };
            (input, stream.stateful_functions(passing_on(limits)).unwrap().handle())
        });
        let (times, per_time) = (30, 10);
        for time in 0..times {
            (0..per_time).for_each(|id| input.send(NODE.message(id, 3)));
            input.advance_to(time + 1);
        }
        input.close();
        let (mut passed, mut held_back) = (0, false);
        while worker.has_dataflows() {
            worker.step();
            while passed < times && !handle.admitted().less_equal(&passed) {
                passed += 1;
            }
            let stats = handle.stats();
            assert!(stats.admitted >= passed * per_time, "{} at {passed}", stats.admitted);
            assert!(stats.admitted <= stats.handled + 4, "more was let in than there is credit");
            // The last time wholly let in must soon be passed, though more is held back.
            let behind = (stats.admitted / per_time).saturating_sub(passed);
            assert!(behind <= 1, "{} were let in and only {passed} times passed", stats.admitted);
            held_back |= !handle.ready() && passed > 0;
        }
        assert!(held_back && passed == times && handle.admitted().done());
    });
}

type Letters = Rc<RefCell<Vec<DeadLetter<u64>>>>;

/// Sends every message on twice, so that a message `n` becomes a tree of depth `n`. Gives how many
/// were handled.
fn amplify(depth: u64, limits: &Limits) -> (u64, Vec<DeadLetter<u64>>, Result<(), Stopped>) {
    let limits = limits.clone();
    timely::execute_directly(move |worker| {
        let handled = Arc::new(AtomicU64::new(0));
        let letters = Letters::default();
        let given_up = Rc::clone(&letters);
        let (mut input, handle) = worker.dataflow::<u64, _, _>(|scope| {
            let (input, stream) = scope.new_input::<Vec<Envelope<u64>>>();
            let count = Arc::clone(&handled);
            let node = Function::new(move |context, left: &u64| {
                count.fetch_add(1, SeqCst);
                for to in 0..if *left > 0 { 2 } else { 0 } {
                    context.send(NODE, to, left - 1);
                }
                Ok(())
            });
            let functions = Functions::new().embedded(NODE, node).limits(limits);
            let egresses = stream.stateful_functions(functions).unwrap();
            let letters = egresses.dead_letters().unwrap();
            letters.inspect(move |letter| given_up.borrow_mut().push(letter.clone()));
            (input, egresses.handle())
        });
        input.send(NODE.message(0, depth));
        input.close();
        let end = handle.run(worker);
        (handled.load(SeqCst), letters.take(), end)
    })
}

/// Messages of a whole binary tree of this depth.
fn tree(depth: u64) -> u64 {
    (2 << depth) - 1
}

#[test]
fn functions_that_fill_a_worker_stop() {
    let loop_bytes_hard = 100 * bytes_of_one();
    let limits = Limits { loop_bytes_soft: loop_bytes_hard, loop_bytes_hard, ..Limits::default() };
    let (handled, letters, end) = amplify(40, &limits);
    let stopped = end.expect_err("a tree of depth 40 fits nowhere");
    assert_eq!(stopped.reason, Reason::Full);
    let address = stopped.address.expect("it is about an address");
    assert_eq!(address.function_type.as_str(), "bounds/node");
    assert!(letters.is_empty());
    assert!((99..110).contains(&handled), "each adds one to what waits: {handled}");
}

#[test]
fn functions_that_fill_a_worker_lose_what_there_is_no_room_for() {
    let loop_bytes_hard = 100 * bytes_of_one();
    let when_full = OnFailure::DeadLetter;
    let limits = Limits {
        loop_bytes_soft: loop_bytes_hard,
        loop_bytes_hard,
        when_full,
        ..Limits::default()
    };
    let depth = 12;
    let (handled, letters, end) = amplify(depth, &limits);
    assert_eq!(end, Ok(()));
    assert!(!letters.is_empty());
    for letter in &letters {
        assert_eq!((&letter.reason, letter.attempts), (&Reason::Full, 0));
    }
    let lost: u64 = letters.iter().map(|letter| tree(letter.message)).sum();
    assert_eq!(handled + lost, tree(depth), "each message is handled or told of");
}

#[test]
fn a_chain_that_is_too_long_ends_in_a_dead_letter() {
    let depth_max = 6;
    let limits = Limits { depth_max, ..Limits::default() };
    let (handled, letters, end) = amplify(10, &limits);
    assert_eq!((handled, end), (tree(6), Ok(())));
    assert_eq!(letters.len(), 1 << 7, "one for each message of the seventh generation");
    for letter in &letters {
        assert_eq!((&letter.reason, letter.attempts), (&Reason::TooDeep(depth_max), 0));
        assert_eq!(letter.message, 3);
    }
    let (handled, letters, _) = amplify(6, &limits);
    assert_eq!((handled, letters.len()), (tree(6), 0), "as deep as allowed");
}

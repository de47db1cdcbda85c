//! Savepoints of running programs: which snapshot gets the name, who may ask for it, what becomes of a program
//! that stops at one, and with what another begins.

#[path = "support/executions.rs"]
mod executions;
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use executions::{Execution, memory, on_request, run, threads};
use timely::dataflow::operators::Input;
use timely_statefun::{
    Context, Egress, Envelope, Function, FunctionType, Functions, Reason, RestoreFrom, Savepoint,
    SnapshotOptions, SnapshotPolicy, SnapshotStore, Snapshots, StatefulFunctions, ValueSpec,
};

const COUNTER: FunctionType<u64> = FunctionType::new("savepoints/counter");
const COUNTS: Egress<(u64, u64)> = Egress::new("savepoints/counts");
const COUNT: ValueSpec<u64> = ValueSpec::new("count");

type Run<'w> = Execution<'w, u64, (u64, u64)>;

/// Adds what it is told, and tells what that comes to.
fn counters() -> Functions<u64> {
    let counter = Function::new(|context: &mut Context<'_, u64>, more: &u64| {
        let count = context.update(COUNT, |count| *count += more);
        let id = context.id().as_number().ok_or("counters are numbers")?;
        context.emit(COUNTS, (id, count));
        Ok(())
    });
    Functions::new().embedded(COUNTER, counter.value(COUNT)).egress(COUNTS)
}

/// One record at each time from 0, for three counters in turn.
fn source(records: u64) -> Vec<(u64, Envelope<u64>)> {
    (0..records).map(|n| (n, COUNTER.message(n % 3, 1))).collect()
}

fn wait(run: &mut Run<'_>, savepoint: &Savepoint<u64>) {
    run.until("something becomes of it", |_| savepoint.outcome().is_some());
}

/// Asks for a savepoint on one worker, while the others step, and gives what was told of it there.
fn take(run: &mut Run<'_>, worker: usize, name: &str) -> Option<Result<u64, String>> {
    let before = run.durable();
    let savepoint = (run.worker.index() == worker).then(|| run.snapshots.savepoint(name).unwrap());
    if let Some(savepoint) = &savepoint {
        wait(run, savepoint);
    } else {
        run.until("it is durable", |run| run.durable() > before);
    }
    let outcome = savepoint?.outcome()?;
    Some(outcome.map(|done| done.cut).map_err(|error| error.to_string()))
}

/// Begins on so many workers, and gives what was restored, and what each counter has.
fn look(workers: usize, store: &SnapshotStore, from: RestoreFrom) -> (Option<u64>, Vec<u64>) {
    let script = |run: &mut Run<'_>| {
        let last = run.snapshots.positions("source").get(&0).copied();
        let mut all = source(last.map_or(0, |last| last + 1));
        all.extend((0..3).map(|id| (1_000_000, COUNTER.message(id, 0))));
        run.give(&all);
        run.settle(1_000_001);
        (run.snapshots.restored().map(|done| done.cut), run.seen.take())
    };
    let policy = on_request().restore(from);
    let ran = run(workers, store, &policy, counters, COUNTS, script).unwrap();
    let cut = ran[0].0;
    let mut counts: Vec<(u64, u64)> =
        ran.into_iter().flat_map(|(_, seen)| seen).map(|(_, count)| count).collect();
    counts.sort_unstable();
    (cut, counts.into_iter().map(|(_, count)| count).collect())
}

fn named(name: &str) -> RestoreFrom {
    RestoreFrom::Savepoint(name.to_owned())
}

fn listed(store: &SnapshotStore) -> Vec<(u64, Option<String>)> {
    let list = threads().block_on(store.list()).unwrap().into_iter().map(Result::unwrap);
    list.map(|info| (info.cut, info.savepoint)).collect()
}

fn keeps_one() -> SnapshotStore {
    let options = SnapshotOptions { keep: 1, grace: Duration::ZERO, ..SnapshotOptions::default() };
    SnapshotStore::open("memory:", options).unwrap()
}

#[test]
fn a_savepoint_is_of_what_was_before_it_and_is_begun_with_by_name_on_any_number_of_workers() {
    for (workers, asking) in [(1, 0), (2, 1), (3, 2)] {
        let store = keeps_one();
        let script = move |run: &mut Run<'_>| {
            run.give(&source(9));
            run.settle(9);
            let outcome = take(run, asking, "nine");
            for time in 5..12 {
                run.give(&source(3 * time));
                run.settle(3 * time);
                run.cut();
            }
            outcome
        };
        // The first snapshot that is waited for is the savepoint.
        let ran = run(workers, &store, &on_request(), counters, COUNTS, script).unwrap();
        assert_eq!(ran[asking], Some(Ok(1)));
        assert_eq!(listed(&store).last(), Some(&(1, Some("nine".to_owned()))));
        for others in [1, 2] {
            assert_eq!(look(others, &store, named("nine")), (Some(1), vec![3, 3, 3]));
        }
        // They chose it and did nothing, so it is what is gone on from.
        assert_eq!(look(1, &store, RestoreFrom::Newest), (Some(1), vec![3, 3, 3]));
    }
}

/// What is under way when it is asked for was begun before, and so lacks what came since.
#[test]
fn a_savepoint_has_all_that_was_done_before_it_was_asked_for() {
    for round in 0..30 {
        let (store, is_known) = (memory(), Arc::<AtomicBool>::default());
        let policy = SnapshotPolicy::new("test").interval(Duration::ZERO);
        let script = move |run: &mut Run<'_>| {
            let records = 3 * (20 + round);
            run.give(&source(records));
            run.settle(records);
            let mine = (run.worker.index() == 1).then(|| run.snapshots.savepoint("x").unwrap());
            if let Some(mine) = mine {
                wait(run, &mine);
                is_known.store(true, SeqCst);
                return mine.outcome().unwrap().unwrap().positions["source"][&0] + 1 == records;
            }
            run.until("the other has it", |_| is_known.load(SeqCst));
            true
        };
        // The source is worker 0's, and the asking worker has seen the end of all it gave.
        let ran = run(2, &store, &policy, counters, COUNTS, script).unwrap();
        assert_eq!(ran, [true, true]);
    }
}

#[test]
fn a_name_that_is_taken_or_wrong_and_a_program_that_is_over_are_errors_and_nothing_else() {
    let store = memory();
    let script = |run: &mut Run<'_>| {
        let snapshots = run.snapshots.clone();
        for wrong in ["", "a b", "a*"] {
            assert!(snapshots.savepoint(wrong).unwrap_err().is_invalid_name(), "{wrong}");
        }
        run.give(&source(3));
        run.settle(3);
        // Two at once, and the same name twice.
        let asked = ["one", "two", "one"].map(|name| snapshots.savepoint(name).unwrap());
        let stopping = snapshots.stop_at_savepoint("two").unwrap();
        for savepoint in asked.iter().chain([&stopping]) {
            wait(run, savepoint);
        }
        let [one, two, again] = asked.map(|savepoint| savepoint.outcome().unwrap());
        assert_eq!((one.unwrap().cut, two.unwrap().cut), (1, 2));
        let again = again.unwrap_err();
        assert!(again.is_savepoint_taken(), "{again}");
        assert!(stopping.outcome().unwrap().unwrap_err().is_savepoint_taken());
        // What came to nothing stops nothing, and is no reason to take a snapshot.
        run.give(&source(6));
        run.settle(6);
        assert_eq!(run.durable(), 2);
        run.end().unwrap();
        assert!(snapshots.savepoint("late").unwrap_err().is_no_functions_in_snapshots());
    };
    run(1, &store, &on_request(), counters, COUNTS, script).unwrap();
    assert_eq!(look(2, &store, named("one")), (Some(1), vec![1, 1, 1]));

    let policy = on_request().restore(named("three"));
    let error = run(2, &store, &policy, counters, COUNTS, |_: &mut Run<'_>| ()).unwrap_err();
    assert!(error.is_no_such_savepoint() && error.to_string().contains("three"), "{error}");
}

/// Its time is up before it is written.
#[test]
fn a_savepoint_that_is_given_up_is_told_of_and_may_be_asked_for_again() {
    let store = memory();
    let script = |run: &mut Run<'_>| {
        run.give(&source(3));
        run.settle(3);
        let savepoint = run.snapshots.stop_at_savepoint("name").unwrap();
        wait(run, &savepoint);
        let error = savepoint.outcome().unwrap().unwrap_err();
        assert!(error.is_abandoned() && error.to_string().contains("\"name\""), "{error}");
        run.give(&source(6));
        run.end().unwrap();
    };
    let policy = on_request().deadline(Duration::ZERO);
    run(1, &store, &policy, counters, COUNTS, script).unwrap();
    let script = |run: &mut Run<'_>| take(run, 0, "name");
    let ran = run(1, &store, &on_request(), counters, COUNTS, script).unwrap();
    assert!(matches!(ran[0], Some(Ok(_))), "{ran:?}");
}

/// Whoever waits for it is not left alone.
#[test]
fn a_savepoint_of_a_program_that_is_ended_is_told_to_be_nothing() {
    let ran = support::on_workers(1, move |worker| {
        let store = memory();
        let snapshots =
            Snapshots::<u64>::begin(worker, &store, threads().handle(), &on_request()).unwrap();
        let dataflow = worker.next_dataflow_index();
        let _input = worker.dataflow::<u64, _, _>(|scope| {
            let (input, stream) = scope.new_input::<Vec<Envelope<u64>>>();
            snapshots.replayed("source", stream).stateful_functions(counters()).unwrap();
            input
        });
        let savepoint = snapshots.savepoint("name").unwrap();
        assert!(savepoint.outcome().is_none());
        worker.drop_dataflow(dataflow);
        let error = savepoint.outcome().unwrap().unwrap_err();
        (error.is_abandoned(), error.to_string())
    });
    assert_eq!(ran, [(true, "savepoint \"name\" is not taken: the program ended before".into())]);
}

/// What all workers of a program say that stops at a savepoint while its source goes on.
fn stop(run: &mut Run<'_>, asking: usize) -> (String, u64, usize) {
    run.give(&source(30));
    run.settle(30);
    if run.worker.index() == asking {
        run.snapshots.stop_at_savepoint("stop").unwrap();
    }
    let mut records = 30;
    let stopped = loop {
        records += 1;
        run.give(&source(records));
        run.input.as_mut().unwrap().advance_to(records);
        if run.worker.index() == 0 {
            // More snapshots are wanted than there can be.
            run.snapshots.request();
        }
        if let Err(stopped) = run.handle.until_ready(run.worker) {
            break stopped;
        }
    };
    assert!(matches!(stopped.reason, Reason::AtSavepoint { .. }), "{stopped}");
    let (name, cut) = stopped.at_savepoint().expect("nothing failed");
    (name.to_owned(), cut, run.durable())
}

#[test]
fn a_program_stops_at_a_savepoint_on_all_workers_and_nothing_after_it_counts() {
    for (workers, asking) in [(1, 0), (2, 0), (2, 1), (4, 3)] {
        let store = memory();
        let script = move |run: &mut Run<'_>| stop(run, asking);
        let ran = run(workers, &store, &on_request(), counters, COUNTS, script).unwrap();
        let (name, cut, _) = ran[0].clone();
        assert_eq!(name, "stop");
        assert!(ran.iter().all(|(other, of, _)| (other, *of) == (&name, cut)), "{ran:?}");
        // It is the newest as well.
        assert_eq!(listed(&store)[0], (cut, Some("stop".to_owned())));
        let (by_name, counts) = look(3, &store, named("stop"));
        assert_eq!(by_name, Some(cut));
        assert!(counts.iter().sum::<u64>() >= 30, "{counts:?}");
        assert_eq!(look(1, &store, RestoreFrom::Newest), (Some(cut), counts));
    }
}

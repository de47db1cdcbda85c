//! When snapshots are taken, what is told of them, which one is gone on from, and what becomes of a program
//! that uses them wrongly, has lost its store to another execution, or whose store fails.

#[path = "support/executions.rs"]
mod executions;
mod support;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use executions::{Execution, LIMIT, Source, memory, on_request, run, threads};
use support::on_workers;
use timely::dataflow::operators::Input;
use timely_statefun::{
    Context, Egress, Envelope, Error, Function, FunctionType, Functions, Reason, RestoreFrom,
    Retry, SnapshotOptions, SnapshotPolicy, SnapshotStore, Snapshots, StatefulFunctions, ValueSpec,
};

const COUNTER: FunctionType<u64> = FunctionType::new("snapshots/counter");
const COUNTS: Egress<(u64, u64)> = Egress::new("snapshots/counts");
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
fn source(records: u64) -> Source<u64> {
    (0..records).map(|n| (n, COUNTER.message(n % 3, 1))).collect()
}

/// Restores, and gives what one more record comes to, of each counter; and the cut that was restored.
fn look(store: &SnapshotStore, policy: &SnapshotPolicy) -> (Option<u64>, Vec<u64>) {
    let script = |run: &mut Run<'_>| {
        let restored = run.snapshots.restored().cloned();
        let last = restored.as_ref().and_then(|done| done.positions["source"].get(&0).copied());
        let next = last.map_or(0, |last| last as usize + 1);
        let mut all = source(next as u64);
        all.extend((0..3).map(|id| (1_000_000, COUNTER.message(id, 0))));
        run.give(&all);
        run.settle(1_000_001);
        let mut counts = run.seen.take();
        counts.sort_unstable();
        let counts = counts.into_iter().map(|(_, (_, count))| count).collect();
        (restored.map(|done| done.cut), counts)
    };
    run(1, store, policy, counters, COUNTS, script).unwrap().remove(0)
}

// Misuse.

/// Builds a dataflow of two ingresses on one worker, and gives the mistake.
fn misuse<const N: usize>(
    build: impl for<'scope> Fn(
        [timely::dataflow::Stream<'scope, u64, Vec<Envelope<u64>>>; 2],
        [&Snapshots<u64>; 2],
    ) -> [timely_statefun::Ingress<'scope, u64, u64>; N]
    + Send
    + Sync
    + 'static,
) -> Error {
    let (store, other) = (memory(), memory());
    let mistakes = on_workers(1, move |worker| {
        let mut begin = |store: &SnapshotStore| {
            Snapshots::<u64>::begin(worker, store, threads().handle(), &on_request()).unwrap()
        };
        let (snapshots, others) = (begin(&store), begin(&other));
        worker.dataflow::<u64, _, _>(|scope| {
            let (_, one) = scope.new_input::<Vec<Envelope<u64>>>();
            let (_, two) = scope.new_input::<Vec<Envelope<u64>>>();
            let ingresses = build([one, two], [&snapshots, &others]);
            ingresses.stateful_functions(counters()).unwrap_err()
        })
    });
    mistakes.into_iter().next().unwrap()
}

#[test]
fn ingresses_that_do_not_go_together_are_mistakes_that_name_them() {
    let mixed = misuse(|[one, two], [snapshots, _]| [snapshots.replayed("first", one), two.into()]);
    let twice = misuse(|[one, two], [snapshots, _]| {
        [snapshots.replayed("first", one), snapshots.unreplayed("first", two)]
    });
    let others = misuse(|[one, two], [snapshots, others]| {
        [snapshots.replayed("first", one), others.replayed("second", two)]
    });
    let cases = [(mixed, "ingress 1 of functions"), (twice, "\"first\""), (others, "\"second\"")];
    for (mistake, names) in cases {
        assert!(mistake.is_misused_snapshots(), "{mistake}");
        assert!(mistake.to_string().contains(names), "{mistake}");
    }
    let invalid = misuse(|[one, two], [snapshots, _]| {
        [snapshots.replayed("not a name", one), snapshots.replayed("second", two)]
    });
    assert!(invalid.is_invalid_name(), "{invalid}");
}

#[test]
fn a_record_without_a_position_stops_the_program_and_is_in_no_snapshot() {
    let store = memory();
    let script = |run: &mut Run<'_>| {
        run.give(&source(6));
        run.settle(6);
        run.cut();
        let input = run.input.as_mut().unwrap();
        input.send(COUNTER.message(0, 100));
        input.flush();
        run.snapshots.request();
        let stopped = run.end().unwrap_err();
        (run.done.borrow().len(), stopped)
    };
    let ran = run(1, &store, &on_request(), counters, COUNTS, script).unwrap().remove(0);
    assert_eq!((ran.0, ran.1.reason), (1, Reason::NoPosition("source".to_owned())));
    assert_eq!(look(&store, &on_request()).1, [2, 2, 2]);
}

/// What a snapshot names as the last position of a partition would stand for a record that it lacks.
#[test]
fn positions_that_do_not_rise_stop_the_program_and_are_in_no_snapshot() {
    for positions in [[(0, 7), (1, 3), (0, 7)], [(0, 7), (1, 3), (0, 5)], [(0, 1), (1, 4), (1, 4)]]
    {
        let store = memory();
        let script = move |run: &mut Run<'_>| {
            let input = run.input.as_mut().unwrap();
            for (partition, position) in positions {
                input.send(COUNTER.message(0, 100).read_at(partition, position));
            }
            input.flush();
            run.snapshots.request();
            let stopped = run.end().unwrap_err();
            (run.done.borrow().len(), stopped)
        };
        let ran = run(1, &store, &on_request(), counters, COUNTS, script).unwrap().remove(0);
        let Reason::PositionBack { partition, position, before, .. } = ran.1.reason else {
            panic!("{}", ran.1);
        };
        let last = positions[2];
        assert_eq!((ran.0, partition, position), (0, last.0, last.1));
        assert!(before >= position);
    }
}

// One owner.

#[test]
fn an_execution_that_another_has_replaced_stops_and_commits_nothing_more() {
    for workers in [1, 2] {
        let store = memory();
        let (begun, replaced) =
            (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let older = {
            let (store, begun, replaced) =
                (store.clone(), Arc::clone(&begun), Arc::clone(&replaced));
            let script = move |run: &mut Run<'_>| {
                run.give(&source(3));
                run.settle(3);
                run.cut();
                begun.store(true, SeqCst);
                run.until("another has begun", |_| replaced.load(SeqCst));
                // It is as alive as ever.
                run.give(&source(9));
                run.input.as_mut().unwrap().advance_to(9);
                run.snapshots.request();
                let stopped = run.end().unwrap_err();
                (stopped.reason, run.durable())
            };
            std::thread::spawn(move || {
                run(workers, &store, &on_request(), counters, COUNTS, script)
            })
        };
        let began = Instant::now();
        while !begun.load(SeqCst) {
            assert!(began.elapsed() < LIMIT);
            std::thread::yield_now();
        }
        let told = Arc::clone(&replaced);
        let script = move |run: &mut Run<'_>| {
            assert_eq!(run.snapshots.restored().unwrap().cut, 1);
            told.store(true, SeqCst);
            run.give(&source(6));
            run.settle(6);
            run.cut();
        };
        run(1, &store, &on_request(), counters, COUNTS, script).unwrap();
        for (reason, durable) in older.join().unwrap().unwrap() {
            assert!(matches!(reason, Reason::Fenced(_)), "{reason}");
            assert_eq!(durable, 1, "only that of before");
        }
        assert_eq!(look(&store, &on_request()), (Some(2), vec![2, 2, 2]));
    }
}

// When they are taken, and what is told.

#[test]
fn what_is_told_of_a_snapshot_is_true_and_its_frontier_is_what_is_complete() {
    let store = memory();
    let mut last = 0;
    for execution in 1..=3 {
        let script = move |run: &mut Run<'_>| {
            for part in 1..=3 {
                let time = 10 * execution + 3 * part;
                run.give(&source(time));
                run.settle(time);
                run.cut();
                if run.worker.index() > 0 {
                    continue;
                }
                let done = run.done.borrow().last().unwrap().clone();
                assert_eq!(done.complete, [time]);
                assert_eq!(done.positions["source"][&0], time - 1);
                assert!(done.counts.state > 0 && done.bytes > 0);
                run.until("the status shows it", |run| {
                    run.snapshots.status().last_committed == Some(done.cut)
                });
                let complete = run.complete.clone();
                run.until("the frontier is there", |_| !complete.less_than(&time));
                assert!(complete.less_equal(&time), "it is not beyond");
            }
            run.done.borrow().iter().map(|done| done.cut).collect::<Vec<_>>()
        };
        let ran = run(2, &store, &on_request(), counters, COUNTS, script).unwrap();
        assert_eq!(ran[0].len(), 3);
        for cut in &ran[0] {
            assert!(*cut > last, "cut {cut} after {last}");
            last = *cut;
        }
    }
}

/// The last snapshot used to be missing from what is told: the one before, taken when all ingress had closed,
/// had said that everything was complete, and with that the stream was over.
#[test]
fn snapshots_are_taken_on_the_interval_and_when_all_ingress_has_closed_and_at_the_end() {
    let store = memory();
    let policy = SnapshotPolicy::new("test").interval(Duration::from_millis(1));
    let script = |run: &mut Run<'_>| {
        run.until("there are some without a request", |run| run.durable() >= 5);
    };
    run(2, &store, &policy, counters, COUNTS, script).unwrap();
    let script = |run: &mut Run<'_>| {
        run.give(&source(30));
        run.end().unwrap();
        assert!(run.complete.done(), "nothing more is told");
        run.done.take()
    };
    let done = run(2, &store, &on_request(), counters, COUNTS, script).unwrap().remove(0);
    assert!((1..=2).contains(&done.len()), "{done:?}");
    let end = done.last().unwrap();
    assert_eq!((end.positions["source"][&0], end.complete.len()), (29, 0));
    let last = look(&store, &on_request());
    assert_eq!(last, (Some(end.cut), vec![10, 10, 10]));
}

#[test]
fn a_snapshot_whose_time_is_up_is_given_up_and_the_program_goes_on() {
    let store = memory();
    let policy = on_request().deadline(Duration::ZERO);
    let script = |run: &mut Run<'_>| {
        for time in 1..20 {
            run.give(&source(time));
            run.snapshots.request();
            run.settle(time);
        }
        run.end().unwrap();
        (run.done.borrow().len(), run.snapshots.status().last_committed, run.seen.borrow().len())
    };
    let ran = run(1, &store, &policy, counters, COUNTS, script).unwrap().remove(0);
    assert_eq!(ran, (0, None, 19));
    assert_eq!(look(&store, &on_request()), (None, vec![0, 0, 0]));
}

// Which one is gone on from, and which are kept.

#[test]
fn a_program_goes_on_from_the_snapshot_that_it_asks_for() {
    let store = memory();
    let script = |run: &mut Run<'_>| {
        for time in [3, 6, 9] {
            run.give(&source(time));
            run.settle(time);
            run.cut();
        }
    };
    run(2, &store, &on_request(), counters, COUNTS, script).unwrap();
    let from = |from: RestoreFrom| look(&store, &on_request().restore(from));
    assert_eq!(from(RestoreFrom::Newest), (Some(3), vec![3, 3, 3]));
    assert_eq!(from(RestoreFrom::Cut(2)), (Some(2), vec![2, 2, 2]));
    // What was chosen stays chosen, until there is another snapshot.
    assert_eq!(from(RestoreFrom::Newest), (Some(2), vec![2, 2, 2]));
    assert_eq!(from(RestoreFrom::NewestWhole), (Some(2), vec![2, 2, 2]));
    assert_eq!(from(RestoreFrom::Cut(1)), (Some(1), vec![1, 1, 1]));
    assert_eq!(from(RestoreFrom::Nothing), (None, vec![0, 0, 0]));
    let policy = on_request().restore(RestoreFrom::Cut(77));
    let script = |_: &mut Run<'_>| ();
    let error = run(2, &store, &policy, counters, COUNTS, script).unwrap_err();
    assert!(error.is_no_such_cut() && error.to_string().contains("77"), "{error}");
}

#[test]
fn as_many_snapshots_are_kept_as_are_asked_for_and_the_oldest_of_them_is_whole() {
    let options = SnapshotOptions { keep: 2, grace: Duration::ZERO, ..SnapshotOptions::default() };
    let store = SnapshotStore::open("memory:", options).unwrap();
    let script = |run: &mut Run<'_>| {
        for time in 1..=8 {
            run.give(&source(3 * time));
            run.settle(3 * time);
            run.cut();
        }
    };
    run(2, &store, &on_request(), counters, COUNTS, script).unwrap();
    let list = threads().block_on(store.list()).unwrap();
    let cuts: Vec<u64> = list.iter().map(|info| info.as_ref().unwrap().cut).collect();
    assert_eq!(cuts, [8, 7]);
    let policy = on_request().restore(RestoreFrom::Cut(7));
    assert_eq!(look(&store, &policy), (Some(7), vec![7, 7, 7]));
}

// A store that fails.

struct Directory(PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The directory of parts is in the way of no program: while nothing can be stored, snapshots are given up,
/// which shows, and everything else goes on.
#[test]
fn a_store_that_fails_delays_snapshots_and_shows_and_nothing_is_lost() {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let name = format!("snapshots-{}-{}", std::process::id(), NUMBER.fetch_add(1, SeqCst));
    let directory = Directory(std::env::temp_dir().join(name));
    let retry = Retry::attempts(2).first(Duration::from_millis(1));
    let options = SnapshotOptions { retry, ..SnapshotOptions::default() };
    let store = SnapshotStore::directory(&directory.0, options).unwrap();
    let (parts, aside) = (directory.0.join("part"), directory.0.join("aside"));
    let failed = Arc::new(Mutex::new(None));
    let told = Arc::clone(&failed);
    let script = move |run: &mut Run<'_>| {
        run.give(&source(30));
        run.settle(30);
        run.cut();
        // A file where the directory was.
        std::fs::rename(&parts, &aside).unwrap();
        std::fs::write(&parts, "in the way").unwrap();
        run.give(&source(60));
        run.settle(60);
        run.snapshots.request();
        run.until("it shows", |run| run.snapshots.status().last_error.is_some());
        *told.lock().unwrap() = run.snapshots.status().last_error;
        for time in 61..90 {
            run.give(&source(time));
            run.snapshots.request();
            run.settle(time);
        }
        assert_eq!(run.durable(), 1);
        assert_eq!(run.snapshots.status().last_committed, Some(1));
        assert_eq!(run.seen.borrow().len(), 89, "the program goes on");
        std::fs::remove_file(&parts).unwrap();
        std::fs::rename(&aside, &parts).unwrap();
        // The first may have been begun while the last record was waiting.
        run.until("snapshots are durable again", |run| {
            run.snapshots.request();
            run.durable() >= 3
        });
        let done = run.done.borrow().last().unwrap().clone();
        assert_eq!(done.positions["source"][&0], 88);
        run.until("all is well", |run| run.snapshots.status().last_error.is_none());
    };
    run(1, &store, &on_request(), counters, COUNTS, script).unwrap();
    let failed = failed.lock().unwrap().take().unwrap();
    assert!(failed.is_unavailable() && failed.to_string().contains("part/"), "{failed}");
    let (cut, counts) = look(&store, &on_request());
    assert!(cut.is_some_and(|cut| cut > 1));
    assert_eq!(counts, [30, 30, 29]);
}

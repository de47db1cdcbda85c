//! What is held leaves when its cut is durable, whole, and comes again after a restart, the same under the same
//! number on whatever workers, until it is acknowledged.

#[path = "support/held.rs"]
mod held;
mod support;

use std::time::Duration;

use held::{Cuts, Taken, as_stream, functions, notes_of, on_request, run, threads};
use support::{Random, Running, on_workers};
use timely::dataflow::operators::Input;
use timely_statefun::testing::{FaultyStore, StoreCall, StoreFault, TestProgram};
use timely_statefun::{
    Egress, Envelope, Functions, Reason, Released, RestoreFrom, Retry, SnapshotOptions,
    SnapshotStore, Snapshots, StatefulFunctions,
};

fn memory() -> SnapshotStore {
    SnapshotStore::open("memory:", SnapshotOptions::default()).unwrap()
}

#[test]
fn what_is_released_comes_again_as_it_was_on_any_number_of_workers() {
    let seed = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().subsec_nanos();
    let _running = Running(format!("seed {seed}"));
    let mut random = Random(u64::from(seed));
    let (store, mut cuts, mut records) = (memory(), Cuts::default(), 0);
    let layouts = [1, 2, 4, 2, 1, 4];
    for (at, workers) in layouts.into_iter().enumerate() {
        let (taken, more) = (2 + random.below(3), 20 + random.below(60));
        let (begins, last) = (records, at + 1 == layouts.len());
        let steps = random.below(300);
        let released = run(workers, &store, &on_request(), as_stream, move |run| {
            for cut in 1..=taken {
                run.give(begins + cut * more);
                run.cut();
            }
            run.give(begins + taken * more + 50);
            match last {
                true => run.end().unwrap(),
                // It is killed somewhere in a further cut.
                false => {
                    run.request();
                    (0..steps).for_each(|_| _ = run.worker.step());
                }
            }
            run.released()
        });
        records += taken * more;
        let before = cuts.clone();
        cuts.add(released);
        assert!(cuts.0.len() > before.0.len(), "more cuts are released by each execution");
    }
    cuts.check(records + 50);
}

#[test]
fn what_is_acknowledged_does_not_come_again_and_what_is_not_comes_first() {
    for (workers, next) in [(1, 2), (2, 1), (4, 2)] {
        let store = memory();
        let first = run(workers, &store, &on_request(), as_stream, |run| {
            for cut in 1..=4 {
                run.give(cut * 40);
                run.cut();
            }
            let cuts = run.release();
            run.acknowledge().acknowledge(cuts[1]);
            let status = |run: &held::Execution<'_>| run.snapshots.status().unacknowledged;
            run.until("it is heard", |run| status(run).iter().all(|cut| cuts[2..].contains(cut)));
            run.give(200);
            run.cut();
            (run.released(), cuts)
        });
        let acknowledged = first[0].1.clone();
        let mut cuts = Cuts::default();
        cuts.add(first.into_iter().map(|(released, _)| released).collect());
        let again = run(next, &store, &on_request(), as_stream, |run| {
            run.give(240);
            run.end().unwrap();
            run.released()
        });
        let mut seen = Cuts::default();
        seen.add(again.clone());
        assert!(!seen.0.contains_key(&acknowledged[0]) && !seen.0.contains_key(&acknowledged[1]));
        for cut in &acknowledged[2..] {
            assert_eq!(seen.0.get(cut), cuts.0.get(cut), "it comes again, and first");
        }
        cuts.add(again);
        cuts.check(240);
        // What was acknowledged after the last snapshot comes again, and nothing else.
        let known = cuts.0.len();
        cuts.add(run(next, &store, &on_request(), as_stream, |run| {
            run.end().unwrap();
            run.released()
        }));
        assert_eq!(cuts.0.len(), known);
        cuts.check(240);
    }
}

#[test]
fn nothing_leaves_and_no_frontier_passes_before_the_cut_is_durable() {
    for workers in [1, 2] {
        let ran = run(workers, &memory(), &on_request(), as_stream, |run| {
            run.give(40);
            // Far more than it takes to handle all.
            run.admit(40);
            (0..2000).for_each(|_| _ = run.worker.step());
            let before = (run.released().len(), run.probe.less_than(&1));
            let began = run.durable();
            while run.probe.less_than(&40) {
                // It may not have been in the first.
                run.request();
                run.until("it leaves, or not", |run| {
                    run.durable() > began || !run.probe.less_than(&40)
                });
                run.worker.step();
            }
            let released = run.released();
            (before, released)
        });
        let mut cuts = Cuts::default();
        for (before, _) in &ran {
            assert_eq!(*before, (0, true));
        }
        cuts.add(ran.into_iter().map(|(_, released)| released).collect());
        cuts.check(40);
    }
}

/// A store on which everything is tried once.
fn faulty(faulty: &FaultyStore) -> SnapshotStore {
    let retry = Retry::attempts(1);
    let attempt_max = Duration::from_millis(500);
    faulty.store(SnapshotOptions { retry, attempt_max, ..SnapshotOptions::default() })
}

#[test]
fn what_a_cut_held_that_is_given_up_belongs_to_the_next() {
    for (of, workers) in [("part", 1), ("manifest", 2), ("part", 2)] {
        let stores = FaultyStore::new();
        let failing = stores.clone();
        let ran = run(workers, &faulty(&stores), &on_request(), as_stream, move |run| {
            run.give(40);
            run.cut();
            if run.worker.index() == 0 {
                failing.fail_nth(StoreCall::Put, of, 1, StoreFault::Refused);
            }
            run.give(80);
            run.admit(80);
            run.request();
            let given_up = |run: &held::Execution<'_>| run.snapshots.status().last_given_up;
            run.until("a cut is given up", |run| given_up(run).is_some());
            let given_up = given_up(run).unwrap();
            run.cut();
            run.end().unwrap();
            (given_up, run.released())
        });
        let given_up = ran[0].0;
        let mut cuts = Cuts::default();
        cuts.add(ran.into_iter().map(|(_, released)| released).collect());
        cuts.check(80);
        assert!(!cuts.0.contains_key(&given_up), "{given_up}: {:?}", cuts.0.keys());
    }
}

/// The last cut was given up, and nothing came after it: what it held was held for ever.
#[test]
fn the_last_cut_is_tried_again_while_something_is_held_for_it() {
    let stores = FaultyStore::new();
    let failing = stores.clone();
    let ran = run(2, &faulty(&stores), &on_request(), as_stream, move |run| {
        run.give(40);
        run.cut();
        if run.worker.index() == 0 {
            // Those of close and end, or one that is both.
            failing.fail_next(StoreCall::Put, "manifest", [StoreFault::Refused; 2]);
        }
        run.give(80);
        run.end().unwrap();
        run.released()
    });
    let mut cuts = Cuts::default();
    cuts.add(ran);
    cuts.check(80);
    let stores = FaultyStore::new();
    let failing = stores.clone();
    let ran = run(1, &faulty(&stores), &on_request(), as_stream, move |run| {
        run.give(40);
        run.cut();
        failing.fail_next(StoreCall::Put, "manifest", [StoreFault::Refused; 99]);
        run.give(80);
        run.end().unwrap_err().reason
    });
    assert!(matches!(ran[0], Reason::NotReleased(_)), "{ran:?}");
}

#[test]
fn a_restored_older_snapshot_goes_on_above_all_numbers_there_were() {
    let store = memory();
    let first = run(2, &store, &on_request(), as_stream, |run| {
        for cut in 1..=3 {
            run.give(cut * 40);
            run.cut();
        }
        let cuts = run.release();
        (run.released(), cuts)
    });
    let numbers = first[0].1.clone();
    let mut old = Cuts::default();
    old.add(first.into_iter().map(|(released, _)| released).collect());
    let policy = on_request().restore(RestoreFrom::Cut(numbers[1]));
    let again = run(4, &store, &policy, as_stream, |run| {
        run.give(200);
        run.end().unwrap();
        run.released()
    });
    let mut new = Cuts::default();
    new.add(again);
    for number in &numbers[..2] {
        assert_eq!(new.0.get(number), old.0.get(number));
    }
    let newer: Vec<_> = new.0.keys().copied().filter(|cut| *cut > numbers[1]).collect();
    assert!(newer.iter().all(|cut| *cut > numbers[2]), "{newer:?} after {numbers:?}");
    new.check(200);
}

#[test]
fn an_execution_that_another_has_replaced_releases_nothing() {
    let store = memory();
    let other = store.clone();
    let ran = run(1, &store, &on_request(), as_stream, move |run| {
        run.give(40);
        run.admit(40);
        let other = other.clone();
        run_nothing(other);
        run.request();
        let stopped = run.end().unwrap_err();
        (stopped.reason, run.released().len())
    });
    assert!(matches!(ran[0], (Reason::Fenced(_), 0)), "{ran:?}");
}

/// Claims the store for another execution.
fn run_nothing(store: SnapshotStore) {
    run(1, &store, &on_request(), |_, _| Taken::Nothing, |_| ());
}

#[test]
fn what_nobody_takes_keeps_nothing_from_ending() {
    let policy = on_request().unacknowledged_cuts_max(1);
    let ran = run(
        2,
        &memory(),
        &policy,
        |_, _| Taken::Nothing,
        |run| {
            for cut in 1..=3 {
                run.give(cut * 40);
                run.cut();
            }
            run.end().unwrap();
            run.snapshots.status().unacknowledged
        },
    );
    assert!(ran.iter().all(Vec::is_empty), "{ran:?}");
}

#[test]
fn no_snapshot_is_taken_while_too_many_wait_and_nothing_is_lost() {
    let (store, policy) = (memory(), on_request().unacknowledged_cuts_max(2));
    let mut cuts = Cuts::default();
    let waiting = |run: &held::Execution<'_>| run.snapshots.status().unacknowledged;
    for round in 0..3 {
        let ran = run(2, &store, &policy, as_stream, move |run| {
            if round == 0 && run.worker.index() == 0 {
                for wanted in 1..=2 {
                    run.give(wanted * 40);
                    while waiting(run).len() < wanted as usize {
                        let durable = run.durable();
                        run.request();
                        run.until("a snapshot is durable", |run| run.durable() > durable);
                    }
                }
            }
            run.until("two wait", |run| waiting(run).len() == 2);
            run.give(120);
            run.admit(120);
            let durable = run.durable();
            run.request();
            // It may be long before worker 0 has announced nothing.
            (0..2000).for_each(|_| _ = run.worker.step());
            let first = waiting(run)[0];
            if round == 2 {
                run.until("the first is released", |run| run.acknowledge().ended() >= first);
                run.acknowledge().acknowledge(first);
                run.until("another is taken", |run| run.durable() > durable);
                run.end().unwrap();
            } else {
                assert_eq!(run.durable(), durable, "two wait");
            }
            run.released()
        });
        cuts.add(ran);
    }
    cuts.check(120);
}

/// What took the egress there was over before the cut was durable, and never heard of it: the program waited for
/// that worker for ever.
#[test]
fn a_worker_that_has_nothing_of_the_last_cut_acknowledges_it() {
    let ran = run(4, &memory(), &on_request(), as_stream, |run| {
        if run.worker.index() == 0 {
            let input = run.input.as_mut().unwrap();
            input.send(held::TELLER.message(1, (0, 0)).read_at(0, 0));
        }
        run.end().unwrap();
        run.released().len()
    });
    assert_eq!(ran.into_iter().sum::<usize>(), 2, "a record and an end");
}

// Misuse.

fn mistake(
    build: impl Fn(&Snapshots<u64>, Functions<held::Told>) -> Functions<held::Told>
    + Send
    + Sync
    + 'static,
    with_snapshots: bool,
    ask: impl Fn(timely_statefun::Egresses<'_, u64, held::Told>) -> timely_statefun::Error
    + Send
    + Sync
    + 'static,
) -> timely_statefun::Error {
    let store = memory();
    let mistakes = on_workers(1, move |worker| {
        let runtime = threads().handle();
        let snapshots = Snapshots::<u64>::begin(worker, &store, runtime, &on_request()).unwrap();
        worker.dataflow::<u64, _, _>(|scope| {
            let (_, stream) = scope.new_input::<Vec<Envelope<held::Told>>>();
            let functions = build(&snapshots, functions());
            let egresses = match with_snapshots {
                true => snapshots.replayed("source", stream).stateful_functions(functions),
                false => stream.stateful_functions(functions),
            };
            match egresses {
                Ok(egresses) => ask(egresses),
                Err(error) => error,
            }
        })
    });
    mistakes.into_iter().next().unwrap()
}

#[test]
fn misuse_of_held_egresses_is_an_error_that_names_them() {
    const PLAIN: Egress<u64> = Egress::new("held/plain");
    let without = mistake(|_, functions| functions, false, |_| panic!("it is a mistake"));
    let as_plain = mistake(|_, f| f, true, |egresses| egresses.stream(held::NOTES).unwrap_err());
    let as_held =
        mistake(|_, f| f.egress(PLAIN), true, |egresses| egresses.held(PLAIN).unwrap_err());
    for (mistake, name) in
        [(without, "held/notes"), (as_plain, "held/notes"), (as_held, "held/plain")]
    {
        assert!(mistake.is_misused_hold() && mistake.to_string().contains(name), "{mistake}");
    }
    let twice = mistake(
        |_, f| f,
        true,
        |egresses| {
            drop(egresses.held(held::NOTES));
            egresses.held(held::NOTES).unwrap_err()
        },
    );
    assert!(twice.is_egress_taken(), "{twice}");
}

#[test]
fn a_program_that_holds_less_than_its_snapshot_does_not_begin() {
    let store = memory();
    run(1, &store, &on_request(), as_stream, |run| {
        run.give(10);
        run.cut();
    });
    let stopped = on_workers(1, move |worker| {
        let runtime = threads().handle();
        let snapshots = Snapshots::<u64>::begin(worker, &store, runtime, &on_request()).unwrap();
        let handle = worker.dataflow::<u64, _, _>(|scope| {
            let (_, stream) = scope.new_input::<Vec<Envelope<held::Told>>>();
            let functions = Functions::new().named("tellers");
            let functions = held::plain(functions);
            let ingress = snapshots.replayed("source", stream);
            ingress.stateful_functions(functions).unwrap().handle()
        });
        handle.run(worker).unwrap_err().to_string()
    });
    assert!(stopped[0].contains("held"), "{stopped:?}");
}

/// In a test, held records are taken as others are, when a snapshot releases them.
#[test]
fn a_test_program_takes_what_is_held() {
    let mut program = TestProgram::new(functions);
    program.send(held::TELLER.message(1, (0, 0)));
    program.run();
    assert_eq!(program.take(held::NOTES), []);
    program.snapshot();
    program.run();
    assert_eq!(program.take(held::NOTES), [(0, (1, 1, 0))]);
    assert_eq!(notes_of(1), 4);
    let _: Option<Released<u64>> = None;
}

//! A sink has each record once, whole cuts in one order, whatever workers there are and however it fails; and
//! one that is slow, or never stores anything, costs a bounded amount, shows, and loses nothing.

#[path = "support/held.rs"]
mod held;
mod support;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use held::{Execution, Memory, Note, Taken, check, on_request, run};
use timely_statefun::sink::{SinkError, SinkStatus};
use timely_statefun::{Reason, RestoreFrom, SnapshotOptions, SnapshotPolicy, SnapshotStore};

fn memory() -> SnapshotStore {
    SnapshotStore::open("memory:", SnapshotOptions::default()).unwrap()
}

/// Runs an execution with a sink.
fn with_sink<R: Send + 'static>(
    workers: usize,
    store: &SnapshotStore,
    policy: &SnapshotPolicy,
    sink: &Memory,
    script: impl Fn(&mut Execution<'_>) -> R + Send + Sync + 'static,
) -> Vec<R> {
    let sink = sink.clone();
    let take = move |egresses: &timely_statefun::Egresses<'_, u64, held::Told>, _: &_| {
        Taken::Sink(egresses.held(held::NOTES).unwrap().sink(sink.clone()))
    };
    run(workers, store, policy, take, script)
}

/// The status of the worker of the only shard.
fn status(run: &Execution<'_>) -> SinkStatus {
    run.sink().status()
}

#[test]
fn a_sink_has_each_record_once_whatever_the_workers() {
    for shards in [1, 3, 7] {
        let (store, sink) = (memory(), Memory::new(shards));
        let layouts = [2, 4, 1, 2, 4];
        for (at, workers) in layouts.into_iter().enumerate() {
            let (from, last) = (at as u64 * 90, at + 1 == layouts.len());
            with_sink(workers, &store, &on_request(), &sink, move |run| {
                for cut in 1..=3 {
                    run.give(from + cut * 30);
                    run.cut();
                }
                match last {
                    true => run.end().unwrap(),
                    // It is killed while the last is on its way.
                    false => (0..from).for_each(|_| _ = run.worker.step()),
                }
            });
        }
        check(sink.notes().into_iter(), layouts.len() as u64 * 90);
        let stored = sink.stored.lock().unwrap();
        for cuts in stored.values() {
            assert!(cuts.is_sorted_by(|one, next| one.0 < next.0), "{shards} shards");
        }
    }
}

/// By shard and cut, what a sink was given.
type Given = BTreeMap<u64, Vec<Note>>;

#[test]
fn a_cut_has_one_content_and_order_on_any_number_of_workers() {
    let (store, given) = (memory(), Arc::<Mutex<Given>>::default());
    for workers in [2, 4, 1, 3] {
        let (given, seen) = (Arc::clone(&given), Arc::<Mutex<Vec<u64>>>::default());
        let (noted, refused) = (Arc::clone(&given), Arc::clone(&seen));
        // Nothing is ever stored, so all comes again.
        let sink = Memory { refuses: true, ..Memory::new(1) }.seen(move |cut, notes| {
            let mut given = noted.lock().unwrap();
            let before = given.entry(cut).or_insert_with(|| notes.to_vec());
            assert_eq!(before, notes, "cut {cut} on {workers} workers");
            refused.lock().unwrap().push(cut);
        });
        with_sink(workers, &store, &on_request(), &sink, move |run| {
            if workers == 2 {
                run.give(60);
                run.cut();
                run.give(120);
                run.cut();
            }
            let shown = |_: &Execution<'_>| !seen.lock().unwrap().is_empty();
            run.until("the sink is asked", shown);
        });
    }
    assert!(!given.lock().unwrap().is_empty());
}

#[test]
fn a_sink_that_fails_is_tried_again_and_shows_why() {
    for workers in [1, 2] {
        let store = memory();
        let (attempts, shown) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let (counted, seen) = (Arc::clone(&attempts), Arc::clone(&shown));
        let sink = Memory { attempts: u32::MAX, ..Memory::new(1) };
        let sink = sink.before(move |cut| match counted.fetch_add(1, SeqCst) % 4 {
            2 => panic!("a sink that panics"),
            // Nothing works before somebody has seen that it does not.
            3 if seen.load(SeqCst) => Ok(()),
            _ => Err(SinkError::failed(format!("no room for cut {cut}"))),
        });
        let sees = Arc::clone(&shown);
        with_sink(workers, &store, &on_request(), &sink, move |run| {
            for cut in 1..=3 {
                run.give(cut * 40);
                run.handle_all();
                run.cut();
                if run.worker.index() == 0 && cut == 1 {
                    run.until("it shows", |run| status(run).last_error.is_some());
                    let error = status(run).last_error.unwrap();
                    assert!(error.contains("no room") || error.contains("panics"), "{error}");
                    sees.store(true, SeqCst);
                }
            }
            run.end().unwrap();
            assert_eq!((status(run).last_error, status(run).records), (None, 0));
        });
        assert!(attempts.load(SeqCst) >= 4 * 3, "each of three cuts fails three times");
        check(sink.notes().into_iter(), 120);
    }
}

#[test]
fn a_sink_that_is_slow_costs_a_bounded_number_of_cuts_and_the_program_waits_for_it() {
    let policy = on_request().unacknowledged_cuts_max(2);
    let (store, open) = (memory(), Arc::<AtomicBool>::default());
    let opened = Arc::clone(&open);
    let sink = Memory { attempts: u32::MAX, ..Memory::new(1) }.before(move |_| {
        match opened.load(SeqCst) {
            true => Ok(()),
            false => Err(SinkError::failed("not yet")),
        }
    });
    let opens = Arc::clone(&open);
    let ran = with_sink(1, &store, &policy, &sink, move |run| {
        let unacknowledged = |run: &Execution<'_>| run.snapshots.status().unacknowledged;
        let mut records = 0;
        while unacknowledged(run).len() < 2 {
            records += 20;
            run.give(records);
            run.admit(records);
            run.cut();
        }
        let durable = run.durable();
        run.request();
        run.give(200);
        run.admit(200);
        (0..2000).for_each(|_| _ = run.worker.step());
        assert_eq!(run.durable(), durable, "no snapshot is taken");
        run.until("it is shown", |run| status(run).waiting == unacknowledged(run));
        let before = status(run);
        assert!(before.records > 0 && before.last_error.is_some(), "{before:?}");
        // It does not end either.
        run.input = None;
        (0..2000).for_each(|_| _ = run.worker.step());
        assert!(run.worker.has_dataflows() && run.handle.stopped().is_none());
        opens.store(true, SeqCst);
        run.end().unwrap();
        (unacknowledged(run), status(run).waiting)
    });
    assert_eq!(ran, [(vec![], vec![])]);
    check(sink.notes().into_iter(), 200);
}

#[test]
fn a_sink_that_refuses_stops_the_program_and_loses_nothing() {
    for workers in [1, 2] {
        let store = memory();
        let sink = Memory::new(1).before(|_| Err(SinkError::refused("never")));
        let ran = with_sink(workers, &store, &on_request(), &sink, |run| {
            run.give(60);
            run.end().unwrap_err().reason
        });
        for reason in &ran {
            let Reason::SinkFailed { egress, why, .. } = reason else { panic!("{reason:?}") };
            assert_eq!((&**egress, &**why), ("held/notes", "never"));
        }
        let sink = Memory::new(1);
        with_sink(3 - workers, &store, &on_request(), &sink, |run| {
            run.give(60);
            run.end().unwrap();
        });
        check(sink.notes().into_iter(), 60);
    }
}

/// It has attempts, and no more.
#[test]
fn a_sink_that_only_fails_stops_the_program_after_its_attempts() {
    let failures = Arc::<AtomicU64>::default();
    let counted = Arc::clone(&failures);
    let sink = Memory { attempts: 3, ..Memory::new(1) }.before(move |_| {
        counted.fetch_add(1, SeqCst);
        Err(SinkError::failed("not today"))
    });
    let ran = with_sink(1, &memory(), &on_request(), &sink, |run| {
        run.give(10);
        run.end().unwrap_err().reason
    });
    assert!(matches!(&ran[0], Reason::SinkFailed { why, .. } if &**why == "not today"), "{ran:?}");
    assert_eq!(failures.load(SeqCst), 3);
}

#[test]
fn an_older_snapshot_goes_on_above_the_number_that_a_sink_remembers() {
    let (store, sink) = (memory(), Memory::new(1));
    let cuts = with_sink(2, &store, &on_request(), &sink, |run| {
        for cut in 1..=3 {
            run.give(cut * 40);
            run.cut();
        }
        let cuts = run.cuts();
        let waiting = |run: &Execution<'_>| run.snapshots.status().unacknowledged;
        run.until("all is stored", |run| waiting(run).is_empty());
        cuts
    });
    let (cuts, before) = (cuts[0].clone(), sink.cuts());
    let policy = on_request().restore(RestoreFrom::Cut(cuts[0]));
    with_sink(1, &store, &policy, &sink, |run| {
        run.give(160);
        run.end().unwrap();
    });
    let new: Vec<u64> = sink.cuts().into_iter().filter(|cut| !before.contains(cut)).collect();
    assert!(!new.is_empty() && new.iter().all(|cut| *cut > cuts[2]), "{new:?} after {cuts:?}");
    // Without the branch that was given up, each record is there once.
    let stored = sink.stored.lock().unwrap()[&0].clone();
    let branch = stored.into_iter().filter(|(cut, _)| *cut <= cuts[0] || *cut > cuts[2]);
    check(branch.flat_map(|(_, notes)| notes), 160);
}

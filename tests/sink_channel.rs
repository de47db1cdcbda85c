//! What asynchronous code takes of a held egress comes again until it is acknowledged, and waits within bounds.

#[path = "support/held.rs"]
mod held;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use held::{LIMIT, NOTES, Note, Taken, notes_of, on_request, run, threads};
use timely::dataflow::operators::probe::Handle as ProbeHandle;
use timely_statefun::sink::HeldReceiver;
use timely_statefun::{Reason, SnapshotOptions, SnapshotPolicy, SnapshotStore};

fn memory() -> SnapshotStore {
    SnapshotStore::open("memory:", SnapshotOptions::default()).unwrap()
}

/// The receivers of all workers, as they are made.
type Receivers = Arc<Mutex<Vec<HeldReceiver<Note>>>>;

/// Takes the held egress through a channel, with room for so many records.
fn through(
    capacity: usize,
    receivers: &Receivers,
) -> impl Fn(&timely_statefun::Egresses<'_, u64, held::Told>, &ProbeHandle<u64>) -> Taken
+ Send
+ Sync
+ 'static {
    let receivers = Arc::clone(receivers);
    move |egresses, _| {
        let (receiver, handle) = egresses.held(NOTES).unwrap().channel(capacity);
        receivers.lock().unwrap().push(receiver);
        Taken::Sink(handle)
    }
}

/// Tasks that acknowledge all there is, and give it, by cut.
fn tasks(receivers: &Receivers) -> Vec<tokio::task::JoinHandle<Vec<(u64, Note)>>> {
    let receivers = std::mem::take(&mut *receivers.lock().unwrap());
    let task = |mut receiver: HeldReceiver<Note>| async move {
        let mut taken = Vec::new();
        while let Some(note) = receiver.recv().await {
            let cut = note.cut();
            taken.push((cut, note.acknowledge()));
        }
        taken
    };
    receivers.into_iter().map(|receiver| threads().spawn(task(receiver))).collect()
}

#[test]
fn everything_comes_once_while_all_is_acknowledged() {
    const RECORDS: u64 = 600;
    for (workers, capacity) in [(1, 1), (2, 50)] {
        let receivers = Receivers::default();
        let policy = SnapshotPolicy::new("test").interval(Duration::from_millis(2));
        let all = Receivers::clone(&receivers);
        let spawned = Arc::new(Mutex::new(Vec::new()));
        let spawn = Arc::clone(&spawned);
        run(workers, &memory(), &policy, through(capacity, &receivers), move |run| {
            spawn.lock().unwrap().extend(tasks(&all));
            for records in (0..RECORDS).step_by(20) {
                run.give(records + 20);
                (0..20).for_each(|_| _ = run.worker.step());
            }
            run.end().unwrap();
            assert!(run.sink().status().waiting.is_empty());
        });
        let tasks = std::mem::take(&mut *spawned.lock().unwrap());
        assert_eq!(tasks.len(), workers);
        let mut seen = BTreeSet::new();
        for task in tasks {
            let taken = threads().block_on(task).unwrap();
            assert!(taken.is_sorted_by_key(|(cut, _)| *cut));
            for (_, note) in taken {
                assert!(seen.insert(note), "{note:?} came twice");
            }
        }
        assert_eq!(seen.len() as u64, notes_of(RECORDS));
    }
}

/// Of a cut that lacks one acknowledgement all comes again, and of one that lacks none nothing.
#[test]
fn what_is_not_acknowledged_comes_again_and_nothing_else() {
    for (workers, next) in [(1, 2), (2, 1)] {
        let store = memory();
        let receivers = Receivers::default();
        let all = Receivers::clone(&receivers);
        let first = run(workers, &store, &on_request(), through(10_000, &receivers), move |run| {
            let mut own = all.lock().unwrap().pop().expect("there is one for each worker");
            let mut kept = Vec::new();
            // Each of the three has records of each worker.
            for cut in 1..=3 {
                run.give(cut * 40);
                run.handle_all();
                run.cut();
            }
            let cuts = run.cuts();
            let mut taken = BTreeMap::<u64, Vec<Note>>::new();
            let wanted = workers as u64;
            let began = Instant::now();
            // All of the first cut is acknowledged, and all but one record of the second.
            while run.sink().status().acknowledged.is_none_or(|last| last < cuts[0])
                || !taken.contains_key(&cuts[2])
            {
                assert!(began.elapsed() < LIMIT, "{:?}", run.sink().status());
                while let Some(note) = own.try_recv() {
                    let known = taken.entry(note.cut()).or_default();
                    known.push(*note.record());
                    match note.cut() == cuts[1] && known.len() == 1 {
                        true => kept.push(note),
                        false => _ = note.acknowledge(),
                    }
                }
                run.worker.step();
            }
            let is_heard = |run: &held::Execution<'_>| {
                !run.snapshots.status().unacknowledged.contains(&cuts[0])
            };
            run.until("it is heard", is_heard);
            assert_eq!(run.sink().status().acknowledged, Some(cuts[0]), "of {wanted}");
            assert_eq!(run.sink().status().waiting, cuts[1..].to_vec());
            // The next snapshot knows what was acknowledged.
            run.give(160);
            run.cut();
            (cuts, taken)
        });
        let cuts = first[0].0.clone();
        let mut known = BTreeMap::<u64, BTreeSet<Note>>::new();
        for (_, taken) in first {
            for (cut, notes) in taken {
                known.entry(cut).or_default().extend(notes);
            }
        }
        let receivers = Receivers::default();
        let all = Receivers::clone(&receivers);
        let spawned = Arc::new(Mutex::new(Vec::new()));
        let spawn = Arc::clone(&spawned);
        run(next, &store, &on_request(), through(7, &receivers), move |run| {
            spawn.lock().unwrap().extend(tasks(&all));
            run.give(160);
            run.end().unwrap();
        });
        let mut again = BTreeMap::<u64, BTreeSet<Note>>::new();
        for task in std::mem::take(&mut *spawned.lock().unwrap()) {
            for (cut, note) in threads().block_on(task).unwrap() {
                assert!(again.entry(cut).or_default().insert(note), "{note:?} came twice");
            }
        }
        assert!(!again.contains_key(&cuts[0]));
        assert_eq!(
            (again.get(&cuts[1]), again.get(&cuts[2])),
            (known.get(&cuts[1]), known.get(&cuts[2]))
        );
        again.insert(cuts[0], known[&cuts[0]].clone());
        let notes = again.values().map(BTreeSet::len).sum::<usize>();
        assert_eq!(notes as u64, notes_of(160));
    }
}

#[test]
fn a_receiver_that_is_dropped_stops_the_program() {
    let receivers = Receivers::default();
    let all = Receivers::clone(&receivers);
    let ran = run(2, &memory(), &on_request(), through(10, &receivers), move |run| {
        all.lock().unwrap().clear();
        run.give(40);
        run.end()
    });
    for stopped in ran {
        let reason = stopped.unwrap_err().reason;
        let Reason::SinkFailed { egress, why, .. } = reason else { panic!("{reason}") };
        assert_eq!((&*egress, &*why), ("held/notes", "nobody takes it any more"));
    }
}

/// What nobody takes stays where it is, and no more snapshots are taken than may be.
#[test]
fn who_is_slow_has_no_more_in_the_channel_than_it_takes() {
    const CAPACITY: usize = 5;
    let receivers = Receivers::default();
    let all = Receivers::clone(&receivers);
    let policy = SnapshotPolicy::new("test").interval(Duration::from_millis(1));
    let policy = policy.unacknowledged_cuts_max(2);
    let spawned = Arc::new(Mutex::new(Vec::new()));
    let spawn = Arc::clone(&spawned);
    run(1, &memory(), &policy, through(CAPACITY, &receivers), move |run| {
        for records in (0..400).step_by(20) {
            run.give(records + 20);
            (0..50).for_each(|_| _ = run.worker.step());
        }
        run.until("there are as many cuts as may be", |run| {
            run.snapshots.status().unacknowledged.len() == 2
        });
        (0..1000).for_each(|_| _ = run.worker.step());
        assert_eq!(run.snapshots.status().unacknowledged.len(), 2);
        let status = run.sink().status();
        assert!(status.records > CAPACITY, "{status:?}");
        // Without a step of the worker there is no more than fits.
        let mut receiver = all.lock().unwrap().pop().unwrap();
        let there: Vec<_> = std::iter::from_fn(|| receiver.try_recv()).collect();
        assert_eq!(there.len(), CAPACITY);
        there.into_iter().for_each(|note| _ = note.acknowledge());
        all.lock().unwrap().push(receiver);
        spawn.lock().unwrap().extend(tasks(&all));
        run.end().unwrap();
    });
    let task = spawned.lock().unwrap().pop().unwrap();
    let taken = threads().block_on(task).unwrap().len();
    assert_eq!((taken + CAPACITY) as u64, notes_of(400));
}

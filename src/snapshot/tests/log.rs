//! The log of manifests: who owns the store, and the traps on the way to it.

use std::time::Duration;

use super::super::error::Kind;
use super::super::manifest::{slot_file, slot_of};
use super::super::restore::{Check, Which};
use super::execution::{Execution, identity, newest, options, read};
use crate::testing::{FaultyStore, StoreCall, StoreFault};

#[tokio::test]
async fn what_is_committed_is_restored() {
    let store = FaultyStore::new().store(options());
    let mut first = Execution::begin(&store).await.unwrap();
    assert_eq!((first.log.execution(), first.log.first_cut()), (1, 1));
    for round in 0..20u64 {
        first.set((round % 7) as u32, round);
        if round % 5 == 0 {
            first.remove((round % 3) as u32);
        }
        let committed = first.take_cut().await.unwrap();
        assert_eq!((committed.slot, committed.cut), (round + 2, round + 1));
        let found = newest(&store).await.unwrap();
        assert!(found.skipped.is_empty());
        assert_eq!(read(&store, &found.snapshot.unwrap()).await.unwrap(), first.numbers);
    }
    let second = Execution::begin(&store).await.unwrap();
    assert_eq!((second.log.execution(), second.log.first_cut()), (22, 21));
    assert_eq!(second.numbers, first.numbers);
    let older = store.find(&identity(), Which::Cut(20), Check::Contents).await.unwrap();
    assert_eq!(read(&store, &older.snapshot.unwrap()).await.unwrap(), first.numbers);
    let none = store.find(&identity(), Which::Cut(99), Check::Lengths).await.unwrap_err();
    assert!(none.is_no_such_cut(), "{none}");
}

#[tokio::test]
async fn trap_two_executions_race_and_one_of_them_stops() {
    let store = FaultyStore::new().store(options());
    Execution::begin(&store).await.unwrap().take_cut().await.unwrap();
    let found = newest(&store).await.unwrap();
    let snapshot = found.snapshot.as_ref();
    let mut one = Execution::begin_with(&store, &found, snapshot).await.unwrap();
    // It has seen the same log, and comes too late.
    let fenced = Execution::begin_with(&store, &found, snapshot).await.err().unwrap();
    assert!(fenced.is_fenced(), "{fenced}");
    one.take_cut().await.unwrap();
}

#[tokio::test]
async fn an_older_execution_is_fenced_at_its_next_commit_and_stays_so() {
    let store = FaultyStore::new().store(options());
    let mut old = Execution::begin(&store).await.unwrap();
    old.set(1, 1);
    old.take_cut().await.unwrap();
    old.set(1, 2);
    let prepared = old.prepare().await.unwrap();
    let mut new = Execution::begin(&store).await.unwrap();
    assert_eq!(new.numbers.get(&1), Some(&1));
    let fenced = old.commit(prepared.clone()).await.unwrap_err();
    assert!(fenced.is_fenced(), "{fenced}");
    assert!(fenced.to_string().contains(&slot_file(new.log.execution())), "{fenced}");
    new.take_cut().await.unwrap();
    assert!(old.commit(prepared).await.unwrap_err().is_fenced());
    assert!(old.take_cut().await.unwrap_err().is_fenced());
}

/// Whether the claim or a commit: it was stored, but the writer was told that it failed.
#[tokio::test(start_paused = true)]
async fn trap_a_lost_reply_is_no_other_execution() {
    let faulty = FaultyStore::new();
    let store = faulty.store(options());
    for _ in 0..3 {
        faulty.fail_next(StoreCall::Put, "manifest", [StoreFault::ReplyLost]);
        let mut execution = Execution::begin(&store).await.unwrap();
        for file in ["manifest", "part"] {
            faulty.fail_next(StoreCall::Put, file, [StoreFault::ReplyLost, StoreFault::Refused]);
            execution.set(3, execution.next_cut);
            execution.take_cut().await.unwrap();
        }
    }
    let found = newest(&store).await.unwrap().snapshot.unwrap();
    assert_eq!((found.header.slot, found.cut()), (9, 6));
}

/// The store was told three times, did it, and could not say so. The execution gives the cut up and
/// goes on; the next cut finds the other in its place, and is not fenced by itself.
#[tokio::test(start_paused = true)]
async fn trap_a_cut_that_was_given_up_is_durable_after_all() {
    let faulty = FaultyStore::new();
    let store = faulty.store(options());
    let mut execution = Execution::begin(&store).await.unwrap();
    execution.set(1, 1);
    execution.take_cut().await.unwrap();
    faulty.fail_next(
        StoreCall::Put,
        "manifest",
        [StoreFault::ReplyLost, StoreFault::Refused, StoreFault::Refused],
    );
    execution.set(1, 2);
    let error = execution.take_cut().await.unwrap_err();
    assert!(error.is_unavailable(), "{error}");
    // Whoever restores now gets it, and nobody has seen anything of it that is not so.
    let found = newest(&store).await.unwrap().snapshot.unwrap();
    assert_eq!((found.cut(), found.header.slot), (2, 3));
    execution.set(2, 9);
    assert_eq!(execution.log.base(), Some(1), "what is not known to be durable is no base");
    let committed = execution.take_cut().await.unwrap();
    assert_eq!((committed.cut, committed.slot), (3, 4));
    let found = newest(&store).await.unwrap().snapshot.unwrap();
    assert_eq!(read(&store, &found).await.unwrap(), execution.numbers);
    assert_eq!(found.chain.iter().map(|link| link.cut).collect::<Vec<_>>(), [1, 3]);
}

/// The store does it after everybody has given up, when the slot is taken by the next cut.
#[tokio::test(start_paused = true)]
async fn trap_a_write_that_lands_late_changes_nothing() {
    let faulty = FaultyStore::new();
    let store = faulty.store(options());
    let mut execution = Execution::begin(&store).await.unwrap();
    execution.set(1, 1);
    faulty.fail_next(
        StoreCall::Put,
        "manifest",
        [StoreFault::Late, StoreFault::Late, StoreFault::Late],
    );
    assert!(execution.take_cut().await.unwrap_err().is_unavailable());
    execution.set(1, 2);
    execution.take_cut().await.unwrap();
    faulty.land();
    let found = newest(&store).await.unwrap().snapshot.unwrap();
    assert_eq!(found.cut(), 2);
    assert_eq!(read(&store, &found).await.unwrap(), execution.numbers);
}

/// It has stored everything but its manifest, and sleeps. Others take over, commit, delete what is old,
/// its next slot among that; then it wakes, and its manifest finds the slot free.
#[tokio::test]
async fn trap_a_zombie_that_wakes_after_garbage_collection_is_fenced() {
    for executions_between in 1..4 {
        let faulty = FaultyStore::new();
        let store = faulty.store(options());
        let mut zombie = Execution::begin(&store).await.unwrap();
        zombie.set(1, 1);
        zombie.take_cut().await.unwrap();
        zombie.set(1, 666);
        let prepared = zombie.prepare().await.unwrap();
        let mut numbers = None;
        for _ in 0..executions_between {
            let mut other = Execution::begin(&store).await.unwrap();
            assert_eq!(other.numbers.get(&1), Some(&1));
            for round in 0..9 {
                other.set(2, round);
                other.take_cut().await.unwrap();
                other.collect().await.unwrap();
            }
            numbers = Some(other.numbers);
        }
        assert!(!faulty.files().contains_key(&slot_file(3)), "its next slot was deleted");
        let fenced = zombie.commit(prepared).await.unwrap_err();
        assert!(fenced.is_fenced(), "{fenced}");
        assert!(faulty.files().contains_key(&slot_file(3)), "and taken by it");
        assert!(zombie.collect().await.unwrap_err().is_fenced());

        // What it has left does not count, for nobody.
        let list = store.list().await.unwrap();
        assert_eq!(list.len(), 3);
        assert!(list.iter().all(|info| info.as_ref().unwrap().execution != 1), "{list:?}");
        let found = newest(&store).await.unwrap();
        assert_eq!(Some(read(&store, &found.snapshot.unwrap()).await.unwrap()), numbers);
        // Not even if what is newer is damaged.
        for slot in faulty.files().keys().filter(|file| file.starts_with("manifest")).skip(2) {
            faulty.damage(slot, Some("damaged".into()));
        }
        let found = newest(&store).await.unwrap();
        assert_ne!(found.snapshot.map(|snapshot| snapshot.header.execution), Some(1));
        // And whoever commits next deletes it.
        let mut last =
            Execution::begin_with(&store, &newest(&store).await.unwrap(), None).await.unwrap();
        for _ in 0..4 {
            last.take_cut().await.unwrap();
            last.collect().await.unwrap();
        }
        assert!(!faulty.files().contains_key(&slot_file(3)));
    }
}

/// The same, and what says that its slot is given up cannot be read. The older entries that can be read
/// are of an execution which began before the zombie's slot.
#[tokio::test]
async fn trap_what_a_zombie_leaves_does_not_count_beside_those_that_fenced_it() {
    let faulty = FaultyStore::new();
    let store = faulty.store(options());
    let mut zombie = Execution::begin(&store).await.unwrap();
    zombie.set(1, 1);
    zombie.take_cut().await.unwrap();
    zombie.set(1, 666);
    let prepared = zombie.prepare().await.unwrap();
    let mut other = Execution::begin(&store).await.unwrap();
    for _ in 0..3 {
        other.take_cut().await.unwrap();
    }
    other.collect().await.unwrap();
    assert!(zombie.commit(prepared).await.unwrap_err().is_fenced());
    let slots = || faulty.files().keys().filter_map(|file| slot_of(file)).collect::<Vec<_>>();
    assert_eq!(slots(), [3, 4, 5, 6]);
    faulty.damage(&slot_file(6), Some("damaged".into()));
    let list = store.list().await.unwrap();
    assert!(list[0].as_ref().unwrap_err().is_damaged());
    assert!(list.last().unwrap().as_ref().unwrap_err().is_missing(), "it was needed, they say");
    let cuts: Vec<_> = list.iter().flatten().collect();
    assert!(cuts.iter().map(|info| (info.cut, info.execution)).eq([(3, 3), (2, 3)]), "{cuts:?}");
}

/// One that wakes in the middle of deleting deletes nothing that a newer execution needs.
#[tokio::test(start_paused = true)]
async fn trap_a_zombie_that_wakes_while_it_deletes_takes_nothing_away() {
    let faulty = FaultyStore::new();
    let store = faulty.store(options());
    let mut zombie = Execution::begin(&store).await.unwrap();
    for round in 0..12 {
        (0..20).for_each(|bin| zombie.set(bin, u64::from(bin) + round));
        zombie.take_cut().await.unwrap();
    }
    // It has listed everything, and sleeps before it deletes.
    let day = Duration::from_secs(86_400);
    let mut slept = false;
    faulty.plan(move |what, file| match (what, file) {
        (StoreCall::List, "part") if !std::mem::replace(&mut slept, true) => StoreFault::Slow(day),
        _ => StoreFault::Nothing,
    });
    let store_of_zombie = {
        let patient = super::super::store::SnapshotOptions { attempt_max: 9 * day, ..options() };
        faulty.store(patient)
    };
    zombie.store = store_of_zombie.clone();
    let mut zombie = {
        // The log has the files of the store it was claimed with, so it is claimed again.
        drop(zombie);
        let mut again = Execution::begin(&store_of_zombie).await.unwrap();
        again.set(1, 1);
        again.take_cut().await.unwrap();
        again
    };
    let deleting = tokio::spawn(async move { zombie.collect().await });
    tokio::time::sleep(Duration::from_secs(9)).await;
    let mut new = Execution::begin(&store).await.unwrap();
    for round in 0..3 {
        new.set(40, round);
        new.take_cut().await.unwrap();
    }
    let collected = deleting.await.unwrap().unwrap();
    assert!(collected.parts > 0, "it deleted something");
    let found = store.find(&identity(), Which::Newest, Check::Contents).await.unwrap();
    assert!(found.skipped.is_empty(), "{:?}", found.skipped);
    assert_eq!(read(&store, &found.snapshot.unwrap()).await.unwrap(), new.numbers);
}

/// A listing does not show what was stored a moment ago. What is younger than the grace period is found
/// nevertheless.
#[tokio::test(start_paused = true)]
async fn trap_old_listings_hide_neither_snapshots_nor_owners() {
    let faulty = FaultyStore::new();
    let grace = Duration::from_secs(60);
    let store = faulty.store(super::super::store::SnapshotOptions { grace, ..options() });
    let mut old = Execution::begin(&store).await.unwrap();
    old.set(1, 1);
    old.take_cut().await.unwrap();
    old.set(1, 666);
    let prepared = old.prepare().await.unwrap();
    faulty.plan(move |what, _| match what {
        StoreCall::List => StoreFault::OldList(Duration::from_secs(50)),
        _ => StoreFault::Nothing,
    });
    // All of this is too young to be listed.
    let mut new = Execution::begin(&store).await.unwrap();
    assert_eq!(new.numbers.get(&1), Some(&1));
    for round in 0..40 {
        new.set(2, round);
        new.take_cut().await.unwrap();
        new.now_ms += 5_000;
        tokio::time::sleep(Duration::from_secs(5)).await;
        new.collect().await.unwrap();
    }
    let found = newest(&store).await.unwrap().snapshot.unwrap();
    assert_eq!(read(&store, &found).await.unwrap(), new.numbers);
    assert!(!faulty.files().contains_key(&slot_file(3)), "it was deleted meanwhile");
    let fenced = old.commit(prepared).await.unwrap_err();
    assert!(fenced.is_fenced(), "{fenced}");
}

/// Parts of an increment cannot be stored. The next one is relative to what is committed.
#[tokio::test(start_paused = true)]
async fn trap_a_failed_delta_upload_loses_nothing() {
    let faulty = FaultyStore::new();
    let store = faulty.store(options());
    let mut execution = Execution::begin(&store).await.unwrap();
    (0..9).for_each(|bin| execution.set(bin, 1));
    execution.take_cut().await.unwrap();
    execution.set(3, 2);
    faulty.plan(|what, file| match what {
        StoreCall::Put if file.starts_with("part") => StoreFault::Refused,
        _ => StoreFault::Nothing,
    });
    let error = execution.take_cut().await.unwrap_err();
    assert!(error.is_unavailable(), "{error}");
    let status = execution.uploads().status();
    assert_eq!((status.last_committed, status.bytes_pending), (Some(1), 0));
    assert!(status.last_error.unwrap().is_unavailable());
    // That something else works does not hide it.
    assert_eq!(newest(&store).await.unwrap().snapshot.unwrap().chain.len(), 1);
    assert!(execution.uploads().status().last_error.is_some());
    faulty.heal();
    execution.set(4, 3);
    let committed = execution.take_cut().await.unwrap();
    assert_eq!(committed.cut, 3);
    assert!(execution.uploads().status().last_error.is_none());
    let found = newest(&store).await.unwrap().snapshot.unwrap();
    assert_eq!(found.chain.iter().map(|link| link.cut).collect::<Vec<_>>(), [1, 3]);
    assert_eq!(read(&store, &found).await.unwrap(), execution.numbers);
}

#[tokio::test]
async fn a_cut_that_does_not_follow_is_refused() {
    let store = FaultyStore::new().store(options());
    let mut execution = Execution::begin(&store).await.unwrap();
    execution.set(1, 1);
    let first = execution.prepare().await.unwrap();
    let mut wrong = first.clone();
    wrong.base = Some(1);
    assert!(execution.commit(wrong).await.unwrap_err().is_refused(), "there is no base");
    execution.commit(first.clone()).await.unwrap();
    assert!(execution.commit(first.clone()).await.unwrap_err().is_refused(), "it is over");
    let mut wrong = first.clone();
    wrong.cut = 7;
    assert!(execution.commit(wrong).await.unwrap_err().is_refused(), "parts of another cut");
    execution.set(2, 2);
    let mut wrong = execution.prepare().await.unwrap();
    wrong.parts.push(wrong.parts[0]);
    assert!(execution.commit(wrong).await.unwrap_err().is_refused(), "a part twice");
}

#[tokio::test]
async fn a_store_of_another_program_is_refused() {
    let store = FaultyStore::new().store(options());
    let mut execution = Execution::begin(&store).await.unwrap();
    execution.take_cut().await.unwrap();
    let mut others = [identity(), identity()];
    others[0].program = "letters".to_owned();
    others[1].bins = 128;
    for other in others {
        let found = store.find(&other, Which::Newest, Check::Lengths).await.unwrap();
        assert!(found.snapshot.is_none());
        assert!(found.skipped[0].1.is_foreign(), "{:?}", found.skipped);
        let error = store.claim(&other, &found, None, 0).await.err().unwrap();
        assert!(error.is_foreign(), "{error}");
        assert!(
            matches!(&error.kind, Kind::Foreign { file, .. } if *file == slot_file(2)),
            "{error}"
        );
    }
    execution.take_cut().await.unwrap();
}

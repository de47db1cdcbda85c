//! What is kept, what is deleted, when, and in which order.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt;

use super::super::manifest::{slot_file, slot_of};
use super::super::part::PartName;
use super::super::restore::{Check, Which};
use super::super::store::SnapshotOptions;
use super::execution::{Execution, identity, newest, options};
use crate::testing::{FaultyStore, StoreCall, StoreFault};

#[tokio::test]
async fn the_newest_are_kept_with_all_they_need_and_nothing_else() {
    for keep in [1, 2, 5] {
        let faulty = FaultyStore::new();
        let store = faulty.store(SnapshotOptions { keep, ..options() });
        let mut execution = Execution::begin(&store).await.unwrap();
        for round in 0..40u64 {
            if round == 20 {
                execution = Execution::begin(&store).await.unwrap();
            }
            (0..5).for_each(|bin| execution.set(((round + bin) % 31) as u32, round));
            // Given up: it leaves garbage.
            if round % 4 == 1 {
                drop(execution.prepare().await.unwrap());
            }
            execution.take_cut().await.unwrap();
            execution.collect().await.unwrap();
            let list = store.list().await.unwrap();
            let cuts: Vec<u64> = list.iter().map(|info| info.as_ref().unwrap().cut).collect();
            assert!(
                cuts.len() >= keep.min(round as usize + 1) && cuts.len() <= keep + 1,
                "{cuts:?}"
            );
            let mut needed = BTreeSet::new();
            for cut in cuts {
                let found = store.find(&identity(), Which::Cut(cut), Check::Contents).await;
                let snapshot = found.unwrap().snapshot.unwrap();
                needed.extend(snapshot.parts().map(|part| part.name));
            }
            let files = faulty.files();
            let there: BTreeSet<_> = files.keys().filter_map(|file| PartName::of(file)).collect();
            assert_eq!(there, needed, "in round {round} of {keep}");
        }
    }
}

#[tokio::test]
async fn a_chain_has_a_maximum_of_cuts_and_of_weight() {
    let store = FaultyStore::new().store(SnapshotOptions { chain_max: 4, ..options() });
    let mut execution = Execution::begin(&store).await.unwrap();
    (0..30).for_each(|bin| execution.set(bin, 1));
    let mut lengths = Vec::new();
    for round in 0..9 {
        execution.set(round, 2);
        execution.take_cut().await.unwrap();
        lengths.push(newest(&store).await.unwrap().snapshot.unwrap().chain.len());
    }
    assert_eq!(lengths, [1, 2, 3, 4, 1, 2, 3, 4, 1]);
    for _ in 0..4 {
        (0..30).for_each(|bin| execution.set(bin, 3));
        execution.take_cut().await.unwrap();
        lengths.push(newest(&store).await.unwrap().snapshot.unwrap().chain.len());
    }
    assert_eq!(lengths[9..], [2, 3, 1, 2], "two increments weigh more than what they build upon");
}

#[tokio::test]
async fn nothing_is_deleted_before_the_grace_period_is_over_and_a_reader_has_that_long() {
    let faulty = FaultyStore::new();
    let grace = Duration::from_millis(1000);
    let store = faulty.store(SnapshotOptions {
        keep: 1,
        fetches_max: 1,
        part_bytes: 30,
        grace,
        ..options()
    });
    let mut execution = Execution::begin(&store).await.unwrap();
    (0..30).for_each(|bin| execution.set(bin, 1));
    execution.take_cut().await.unwrap();
    let old = newest(&store).await.unwrap().snapshot.unwrap();
    let mut reading = Box::pin(store.parts(&old));
    reading.next().await.unwrap().unwrap();
    for round in 0..3 {
        // A second full cut, so that nothing needs the first.
        (0..30).for_each(|bin| execution.set(bin, 2 + round));
        execution.take_cut().await.unwrap();
    }
    let mut deleted = Vec::new();
    for now_ms in [0, 999, 1000, 1999, 2000] {
        execution.now_ms = now_ms;
        let collected = execution.collect().await.unwrap();
        deleted.push((collected.manifests > 0, collected.parts > 0));
        if now_ms < 2000 {
            reading.next().await.unwrap().unwrap();
        }
    }
    let (no, yes) = (false, true);
    assert_eq!(deleted, [(no, no), (no, no), (yes, no), (no, no), (no, yes)]);
    // It took longer than it had, and is told so.
    let lost = reading.next().await.unwrap().unwrap_err();
    assert!(lost.is_missing() && lost.to_string().contains("part/"), "{lost}");
}

#[tokio::test]
async fn manifests_go_first_oldest_first_and_never_the_newest() {
    let faulty = FaultyStore::new();
    let store = faulty.store(SnapshotOptions { keep: 2, ..options() });
    let deleted = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&deleted);
    faulty.plan(move |what, file| {
        if what == StoreCall::Delete {
            noted.lock().unwrap().push(file.to_owned());
        }
        StoreFault::Nothing
    });
    let mut execution = Execution::begin(&store).await.unwrap();
    for round in 0..30 {
        (0..9).for_each(|bin| execution.set(bin, round));
        let committed = execution.take_cut().await.unwrap();
        if round % 7 == 0 {
            execution.collect().await.unwrap();
            let deleted: Vec<String> = std::mem::take(&mut deleted.lock().unwrap());
            let (manifests, parts): (Vec<_>, Vec<_>) =
                deleted.iter().partition(|file| slot_of(file).is_some());
            assert!(
                deleted.starts_with(&manifests.iter().map(|m| (*m).clone()).collect::<Vec<_>>())
            );
            assert!(manifests.is_sorted() && !manifests.contains(&&slot_file(committed.slot)));
            assert!(round == 0 || !parts.is_empty());
        }
    }
}

#[tokio::test]
async fn what_is_open_newer_or_not_ours_is_left_alone() {
    let faulty = FaultyStore::new();
    let store = faulty.store(SnapshotOptions { keep: 1, ..options() });
    let mut execution = Execution::begin(&store).await.unwrap();
    execution.set(1, 1);
    execution.take_cut().await.unwrap();
    let part = |execution, cut| PartName { execution, cut, worker: 9, index: 0 }.to_string();
    let kept = [
        part(1, 4),
        part(2, 1),
        part(77, 0),
        "part/README".to_owned(),
        "manifest/README".to_owned(),
        "notes.txt".to_owned(),
        format!("{}.old", part(1, 1)),
    ];
    let garbage = [part(0, 9), part(1, 1), part(1, 3)];
    kept.iter().chain(&garbage).for_each(|file| faulty.damage(file, Some("content".into())));
    (0..2).for_each(|_| execution.next_cut += 1);
    execution.next_cut -= 1;
    for bin in 0..2 {
        execution.set(bin, 2);
        execution.take_cut().await.unwrap();
        if execution.next_cut == 4 {
            break;
        }
    }
    execution.collect().await.unwrap();
    let files = faulty.files();
    for file in &kept {
        assert!(files.contains_key(file), "{file} is gone");
    }
    for file in &garbage {
        assert!(!files.contains_key(file), "{file} is there");
    }
}

/// Parts that an unreadable manifest may need are kept until it is old enough to go itself.
#[tokio::test]
async fn an_unreadable_manifest_holds_parts_back_until_it_goes() {
    let faulty = FaultyStore::new();
    let store = faulty.store(SnapshotOptions { keep: 2, ..options() });
    let mut execution = Execution::begin(&store).await.unwrap();
    execution.set(1, 1);
    let first = execution.take_cut().await.unwrap();
    let second = execution.take_cut().await.unwrap();
    faulty.damage(&slot_file(first.slot), Some("damaged".into()));
    drop(execution.prepare().await.unwrap());
    execution.set(1, 2);
    faulty.damage(
        &PartName { execution: 1, cut: 1, worker: 8, index: 0 }.to_string(),
        Some("x".into()),
    );
    let collected = execution.collect().await.unwrap();
    assert_eq!(collected.parts, 0);
    let held_back = collected.held_back.unwrap().to_string();
    assert!(held_back.contains(&slot_file(first.slot)), "{held_back}");
    let third = execution.take_cut().await.unwrap();
    let collected = execution.collect().await.unwrap();
    assert!(collected.held_back.is_none() && collected.parts > 0, "{collected:?}");
    let left: Vec<_> = faulty.files().keys().filter_map(|file| slot_of(file)).collect();
    assert_eq!(left, [second.slot, third.slot]);
}

/// A listing that is far older than the grace period may keep garbage, but takes nothing away.
#[tokio::test(start_paused = true)]
async fn what_this_execution_has_committed_is_kept_although_no_listing_shows_it() {
    let faulty = FaultyStore::new();
    let store = faulty.store(SnapshotOptions { keep: 1, ..options() });
    let mut execution = Execution::begin(&store).await.unwrap();
    tokio::time::sleep(Duration::from_secs(7200)).await;
    for round in 0..9 {
        faulty.plan(|what, file| match (what, file) {
            (StoreCall::List, "manifest") => StoreFault::OldList(Duration::from_secs(3600)),
            _ => StoreFault::Nothing,
        });
        (0..9).for_each(|bin| execution.set(bin, round));
        execution.take_cut().await.unwrap();
        execution.collect().await.unwrap();
        faulty.heal();
        let found = store.find(&identity(), Which::Newest, Check::Contents).await.unwrap();
        assert_eq!(found.snapshot.unwrap().cut(), round + 1);
    }
}

/// Two snapshots are newer than what was restored, and those after it may turn out to be damaged.
#[tokio::test]
async fn what_was_restored_is_kept_until_enough_has_come_of_it() {
    let store = FaultyStore::new().store(SnapshotOptions { keep: 3, ..options() });
    let mut execution = Execution::begin(&store).await.unwrap();
    for round in 0..3 {
        execution.set(1, round);
        execution.take_cut().await.unwrap();
    }
    let found = store.find(&identity(), Which::Cut(1), Check::Lengths).await.unwrap();
    let snapshot = found.snapshot.as_ref();
    let mut execution = Execution::begin_with(&store, &found, snapshot).await.unwrap();
    for left in [true, true, false] {
        execution.take_cut().await.unwrap();
        execution.collect().await.unwrap();
        let found = store.find(&identity(), Which::Cut(1), Check::Contents).await;
        assert_eq!(found.is_ok(), left);
    }
}

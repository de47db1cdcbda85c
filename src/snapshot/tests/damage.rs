//! What is damaged, missing, mixed, foreign or too new is named, and the newest whole snapshot is
//! offered. Never is a wrong one.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::super::encoding::checksum;
use super::super::manifest::{slot_file, slot_of};
use super::super::restore::{Check, Which};
use super::super::store::{SnapshotOptions, SnapshotStore};
use super::draws;
use super::execution::{Execution, Numbers, identity, newest, options, read};
use crate::testing::FaultyStore;

/// Seven cuts of two executions, in chains of up to three, and what each cut holds.
async fn some_store(seed: u64) -> (FaultyStore, SnapshotStore, BTreeMap<u64, Numbers>) {
    let mut draw = draws(seed);
    let faulty = FaultyStore::new();
    let store = faulty.store(SnapshotOptions { chain_max: 3, keep: 9, ..options() });
    let mut cuts = BTreeMap::new();
    for _ in 0..2 {
        let mut execution = Execution::begin(&store).await.unwrap();
        for _ in 0..3 + cuts.len() / 3 {
            for _ in 0..9 {
                execution.set(draw(30) as u32, draw(1 << 40));
            }
            execution.remove(draw(30) as u32);
            let committed = execution.take_cut().await.unwrap();
            cuts.insert(committed.cut, execution.numbers.clone());
        }
    }
    assert_eq!(cuts.len(), 7);
    (faulty, store, cuts)
}

/// What can have become of a file.
fn damages(bytes: &Bytes, draw: &mut impl FnMut(u64) -> u64) -> Vec<Option<Bytes>> {
    let mut damages = vec![None, Some(Bytes::new())];
    for _ in 0..6 {
        let at = draw(bytes.len() as u64) as usize;
        damages.push(Some(bytes.slice(..at)));
        let mut flipped = bytes.to_vec();
        flipped[at] ^= 1 << draw(8);
        damages.push(Some(flipped.into()));
    }
    damages.push(Some([bytes, &b"more"[..]].concat().into()));
    damages
}

#[tokio::test]
async fn every_damage_to_every_file_is_named_and_leads_to_nothing_wrong() {
    let (faulty, store, cuts) = some_store(5).await;
    let mut draw = draws(6);
    let (mut skips, mut harmless) = (0, 0);
    for (file, bytes) in faulty.files() {
        for damage in damages(&bytes, &mut draw) {
            faulty.damage(&file, damage.clone());
            let found = store.find(&identity(), Which::Newest, Check::Contents).await.unwrap();
            let snapshot = found.snapshot.expect("an older one is whole");
            assert_eq!(read(&store, &snapshot).await.unwrap(), cuts[&snapshot.cut()], "{file}");
            // That the newest manifest was ever there, nobody can know.
            let never_was = damage.is_none() && file == slot_file(9);
            assert_eq!(found.skipped.is_empty(), snapshot.cut() == 7 || never_was, "{file}");
            for (skipped, error) in &found.skipped {
                assert!(error.is_damaged() || error.is_missing(), "{error}");
                assert!(error.to_string().contains(&file), "{file}: {error}");
                assert!(skipped.starts_with("manifest/"), "{skipped}");
            }
            skips += usize::from(!found.skipped.is_empty());
            harmless += usize::from(found.skipped.is_empty());

            // Without looking at everything before, it is noticed when it is read.
            let found = newest(&store).await.unwrap();
            let snapshot = found.snapshot.unwrap();
            match read(&store, &snapshot).await {
                Ok(numbers) => assert_eq!(numbers, cuts[&snapshot.cut()]),
                Err(error) => assert!(error.is_damaged() && error.to_string().contains(&file)),
            }
            match store.inspect(7).await {
                Ok(info) => assert_eq!((info.cut, &*info.program), (7, "numbers")),
                Err(error) => assert!(
                    error.is_damaged() || error.is_missing() || error.is_no_such_cut(),
                    "{error}"
                ),
            }
            if slot_of(&file).is_some_and(|slot| slot > 1) && file != slot_file(9) {
                let list = store.list().await.unwrap();
                let named: Vec<_> = list.iter().filter_map(|info| info.as_ref().err()).collect();
                assert!(named.len() == 1 && named[0].to_string().contains(&file), "{named:?}");
            }
            faulty.damage(&file, Some(bytes.clone()));
        }
    }
    assert!(skips > 50 && harmless > 100, "{skips} and {harmless}");
}

#[tokio::test]
async fn files_of_two_stores_that_are_mixed_make_no_third_state() {
    let (faulty, store, cuts) = some_store(7).await;
    let (other, _, other_cuts) = some_store(8).await;
    let mine = faulty.files();
    let mut draw = draws(9);
    let mut skipped = 0;
    for round in 0..60 {
        for (file, bytes) in other.files() {
            if draw(1 + round % 9) == 0 {
                faulty.damage(&file, Some(bytes));
            }
        }
        let found = store.find(&identity(), Which::Newest, Check::Contents).await.unwrap();
        if let Some(snapshot) = &found.snapshot {
            let numbers = read(&store, snapshot).await.unwrap();
            let cut = snapshot.cut();
            assert!(numbers == cuts[&cut] || numbers == other_cuts[&cut], "cut {cut}");
        }
        skipped += found.skipped.len();
        other.files().keys().for_each(|file| faulty.damage(file, None));
        mine.iter().for_each(|(file, bytes)| faulty.damage(file, Some(bytes.clone())));
    }
    assert!(skipped > 20, "{skipped}");
}

/// The store has lost its newest manifest, so nobody knows the number of its cut any more. A sink that
/// has stored that number must not take a later cut for it.
#[tokio::test]
async fn after_an_unreadable_manifest_cuts_go_on_far_above_it_and_from_anew() {
    let (faulty, store, cuts) = some_store(10).await;
    faulty.damage(&slot_file(9), Some("gone".into()));
    let refused = Execution::begin(&store).await.err().unwrap();
    assert!(refused.is_damaged(), "{refused}");
    let found = newest(&store).await.unwrap();
    assert_eq!(found.skipped.len(), 1);
    let snapshot = found.snapshot.clone().unwrap();
    assert_eq!(snapshot.cut(), 6);
    let mut execution = Execution::begin_with(&store, &found, Some(&snapshot)).await.unwrap();
    assert_eq!(execution.numbers, cuts[&6]);
    assert!(execution.log.first_cut() > 1 << 32);
    assert_eq!(execution.log.base(), None, "it may build upon nothing");
    execution.set(1, 1);
    execution.take_cut().await.unwrap();
    let next = Execution::begin(&store).await.unwrap();
    assert_eq!(next.numbers, execution.numbers);
    assert_eq!(next.log.first_cut(), execution.log.first_cut());
}

#[tokio::test]
async fn a_newer_version_is_named_and_what_is_older_is_offered() {
    let (faulty, store, cuts) = some_store(11).await;
    let mut newer = faulty.files()[&slot_file(9)].to_vec();
    newer[8..12].copy_from_slice(&3u32.to_le_bytes());
    let sum = checksum(&newer[..12]) as u32;
    newer[12..16].copy_from_slice(&sum.to_le_bytes());
    faulty.damage(&slot_file(9), Some(newer.into()));
    let error = Execution::begin(&store).await.err().unwrap();
    assert!(error.is_newer_version(), "{error}");
    assert!(error.to_string().contains("format version 3"), "{error}");
    let found = newest(&store).await.unwrap();
    assert_eq!(read(&store, &found.snapshot.unwrap()).await.unwrap(), cuts[&6]);
    let list = store.list().await.unwrap();
    assert!(list[0].as_ref().unwrap_err().is_newer_version());
    let listed: Vec<_> = list[1..].iter().map(|info| info.as_ref().unwrap().cut).collect();
    assert_eq!(listed, [6, 5, 4, 3, 2, 1]);
}

/// Who restores an older snapshot and crashes before its first commit means the older one.
#[tokio::test]
async fn the_snapshot_that_was_chosen_stays_chosen() {
    let (_, store, cuts) = some_store(12).await;
    for _ in 0..3 {
        let found = store.find(&identity(), Which::Cut(4), Check::Contents).await.unwrap();
        let snapshot = found.snapshot.clone().unwrap();
        let chosen = Execution::begin_with(&store, &found, Some(&snapshot)).await.unwrap();
        assert_eq!(chosen.numbers, cuts[&4]);
        drop(chosen);
        let mut again = Execution::begin(&store).await.unwrap();
        assert_eq!((again.numbers.clone(), again.log.first_cut()), (cuts[&4].clone(), 8));
        assert_eq!(again.log.base(), None);
        drop(again.prepare().await.unwrap());
    }
    let found = newest(&store).await.unwrap();
    drop(Execution::begin_with(&store, &found, None).await.unwrap());
    let mut anew = Execution::begin(&store).await.unwrap();
    assert!(anew.numbers.is_empty(), "it was chosen to begin without any");
    anew.set(1, 1);
    assert_eq!(anew.take_cut().await.unwrap().cut, 8);
    assert_eq!(Execution::begin(&store).await.unwrap().numbers, anew.numbers);
}

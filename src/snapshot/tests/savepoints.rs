//! Snapshots with names: how long they stay, who may have which name, and what is left of them when something
//! goes wrong.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::super::SnapshotError;
use super::super::begin::RestoreFrom;
use super::super::log::Committed;
use super::super::manifest::{Commit, Header, Link, slot_file};
use super::super::part::PartName;
use super::super::restore::{Check, Which};
use super::super::savepoints::{NAME, NOTE, Named, given_up_file};
use super::super::store::{SnapshotOptions, SnapshotStore};
use super::execution::{Execution, Numbers, identity, options, read};
use crate::fuzz::{fuzz, within};
use crate::retry::Retry;
use crate::testing::{FaultyStore, StoreCall, StoreFault};

impl Execution {
    /// Takes a cut that is a savepoint.
    pub(super) async fn take_savepoint(&mut self, name: &str) -> Result<Committed, SnapshotError> {
        self.log.check_name(name).await?;
        let mut cut = self.prepare().await?;
        cut.notes.insert(NAME.to_owned(), Bytes::copy_from_slice(name.as_bytes()));
        self.commit(cut).await
    }

    /// Many cuts, none of which has anything in common with one before, and deletes what it can.
    async fn go_on(&mut self) {
        for round in 0..12 {
            (0..20).for_each(|bin| self.set(bin, 1_000_000 + round));
            self.take_cut().await.unwrap();
            self.collect().await.unwrap();
        }
    }
}

fn named(name: &str) -> Which {
    Which::Savepoint(name.to_owned())
}

/// What a savepoint holds, every byte of which is looked at.
pub(super) async fn numbers_of(
    store: &SnapshotStore,
    name: &str,
) -> Result<Numbers, SnapshotError> {
    let found = store.find(&identity(), named(name), Check::Contents).await?;
    read(store, &found.snapshot.expect("it is there or an error")).await
}

/// The savepoints that are listed, newest first.
async fn listed(store: &SnapshotStore) -> Vec<(String, u64)> {
    let list = store.list().await.unwrap().into_iter().map(Result::unwrap);
    list.filter_map(|info| Some((info.savepoint?, info.cut))).collect()
}

async fn begin_with(store: &SnapshotStore, which: Which) -> Execution {
    let found = store.find(&identity(), which, Check::Lengths).await.unwrap();
    Execution::begin_with(store, &found, found.snapshot.as_ref()).await.unwrap()
}

fn one_kept() -> (FaultyStore, SnapshotStore) {
    let faulty = FaultyStore::new();
    let options = SnapshotOptions { keep: 1, retry: Retry::attempts(1), ..options() };
    let store = faulty.store(options);
    (faulty, store)
}

/// One of them is an increment: all that it builds upon stays as well, and nothing else.
#[tokio::test]
async fn savepoints_stay_whatever_comes_after_them_until_they_are_deleted() {
    let (faulty, store) = one_kept();
    let mut execution = Execution::begin(&store).await.unwrap();
    (0..20).for_each(|bin| execution.set(bin, u64::from(bin)));
    execution.take_cut().await.unwrap();
    execution.set(3, 33);
    execution.take_cut().await.unwrap();
    execution.set(4, 44);
    execution.take_savepoint("increment").await.unwrap();
    let increment = execution.numbers.clone();
    execution.go_on().await;
    execution.set(5, 55);
    execution.take_savepoint("second").await.unwrap();
    let second = execution.numbers.clone();
    execution.go_on().await;
    // Also what other executions do, which begin with something else.
    drop(execution);
    let mut execution = Execution::begin(&store).await.unwrap();
    execution.go_on().await;
    assert_eq!(listed(&store).await, [("second".to_owned(), 16), ("increment".to_owned(), 3)]);
    assert_eq!(numbers_of(&store, "increment").await.unwrap(), increment);
    assert_eq!(numbers_of(&store, "second").await.unwrap(), second);
    let found = store.find(&identity(), named("increment"), Check::Contents).await.unwrap();
    let snapshot = found.snapshot.unwrap();
    assert_eq!(snapshot.chain.len(), 3);
    assert_eq!(store.inspect(3).await.unwrap().savepoint.as_deref(), Some("increment"));

    store.delete_savepoint("increment").await.unwrap();
    let gone = numbers_of(&store, "increment").await.unwrap_err();
    assert!(gone.is_no_such_savepoint(), "{gone}");
    assert_eq!(gone.to_string(), "there is no savepoint \"increment\"");
    assert!(store.delete_savepoint("increment").await.unwrap_err().is_no_such_savepoint());
    execution.collect().await.unwrap();
    execution.go_on().await;
    assert_eq!(numbers_of(&store, "second").await.unwrap(), second);
    let files = faulty.files();
    let cuts: BTreeSet<u64> =
        files.keys().filter_map(|file| PartName::of(file)).map(|part| part.cut).collect();
    let needed = store.inspect(16).await.unwrap().chain;
    let old: Vec<u64> = cuts.range(..=16).copied().collect();
    assert_eq!(old, needed, "what the second builds upon is all that is left");
    assert!(!files.contains_key(&slot_file(snapshot.header.slot)));
    assert!(!files.contains_key(&given_up_file(snapshot.header.slot)), "nothing says it is there");
}

#[tokio::test]
async fn a_name_is_one_savepoints_until_that_is_deleted() {
    let (_, store) = one_kept();
    let mut execution = Execution::begin(&store).await.unwrap();
    execution.set(1, 1);
    execution.take_savepoint("name").await.unwrap();
    execution.go_on().await;
    let mut execution = Execution::begin(&store).await.unwrap();
    let taken = execution.take_savepoint("name").await.unwrap_err();
    assert!(taken.is_savepoint_taken(), "{taken}");
    assert_eq!(taken.to_string(), "there is a savepoint \"name\" already");
    // Also where nobody asks before.
    let mut cut = execution.prepare().await.unwrap();
    cut.notes.insert(NAME.to_owned(), "name".into());
    assert!(execution.commit(cut).await.unwrap_err().is_savepoint_taken());
    assert_eq!(numbers_of(&store, "name").await.unwrap(), Numbers::from([(1, 1)]));

    store.delete_savepoint("name").await.unwrap();
    execution.set(1, 2);
    execution.take_savepoint("name").await.unwrap();
    let second = execution.numbers.clone();
    assert_eq!(numbers_of(&store, "name").await.unwrap(), second);
    execution.go_on().await;
    assert_eq!(numbers_of(&store, "name").await.unwrap(), second);
    assert_eq!(listed(&store).await.len(), 1);
}

/// The name is in the manifest. So there is a savepoint if there is a snapshot, and none if there is not.
#[tokio::test]
async fn a_savepoint_is_there_with_its_manifest_and_not_before() {
    for (fault, is_there) in [(StoreFault::Refused, false), (StoreFault::ReplyLost, true)] {
        let (faulty, store) = one_kept();
        let mut execution = Execution::begin(&store).await.unwrap();
        execution.set(1, 1);
        execution.take_cut().await.unwrap();
        execution.set(1, 2);
        faulty.fail_nth(StoreCall::Put, "manifest", 1, fault);
        assert!(execution.take_savepoint("name").await.unwrap_err().is_unavailable());
        drop(execution);
        let mut execution = Execution::begin(&store).await.unwrap();
        assert_eq!(execution.numbers[&1], 1 + u64::from(is_there));
        execution.go_on().await;
        assert_eq!(numbers_of(&store, "name").await.is_ok(), is_there);
        assert_eq!(execution.take_savepoint("name").await.is_ok(), !is_there);
    }
}

/// It was told to have failed, and so it is, once its execution goes on.
#[tokio::test]
async fn a_savepoint_that_failed_has_no_name_once_its_execution_goes_on() {
    let (faulty, store) = one_kept();
    let mut execution = Execution::begin(&store).await.unwrap();
    execution.set(1, 1);
    execution.take_cut().await.unwrap();
    faulty.fail_nth(StoreCall::Put, "manifest", 1, StoreFault::ReplyLost);
    execution.take_savepoint("name").await.unwrap_err();
    execution.set(1, 2);
    execution.take_savepoint("name").await.unwrap();
    assert_eq!(numbers_of(&store, "name").await.unwrap(), Numbers::from([(1, 2)]));
    assert_eq!(listed(&store).await, [("name".to_owned(), 3)]);
}

#[tokio::test]
async fn cuts_go_on_above_all_there_were_after_a_savepoint_that_is_begun_with() {
    let (_, store) = one_kept();
    let mut execution = Execution::begin(&store).await.unwrap();
    execution.set(1, 1);
    execution.take_savepoint("name").await.unwrap();
    execution.go_on().await;
    drop(execution);
    let from = RestoreFrom::Savepoint("name".to_owned());
    let (begun, log) = store.begin(&identity(), from, true, 7).await.unwrap();
    assert_eq!(begun.restores().unwrap().cut(), 1);
    assert_eq!((begun.first_cut, begun.base), (14, None));
    drop(log);
    // Whoever begins with the newest begins with it as well, until something came of it.
    let mut execution = Execution::begin(&store).await.unwrap();
    assert_eq!(execution.numbers, Numbers::from([(1, 1)]));
    execution.set(2, 2);
    assert_eq!(execution.take_cut().await.unwrap().cut, 14);
    let execution = Execution::begin(&store).await.unwrap();
    assert_eq!(execution.numbers, Numbers::from([(1, 1), (2, 2)]));

    let from = RestoreFrom::Savepoint("other".to_owned());
    let error = store.begin(&identity(), from, true, 7).await.err().unwrap();
    assert!(error.is_no_such_savepoint() && error.offered() == Some(14), "{error}");
}

/// Deleting it must not make the next execution begin with nothing.
#[tokio::test]
async fn what_an_execution_has_begun_with_stays_until_something_came_of_it() {
    let (faulty, store) = one_kept();
    let mut execution = Execution::begin(&store).await.unwrap();
    execution.set(1, 1);
    let committed = execution.take_savepoint("name").await.unwrap();
    execution.go_on().await;
    drop(begin_with(&store, named("name")).await);
    store.delete_savepoint("name").await.unwrap();
    let mut execution = Execution::begin(&store).await.unwrap();
    assert_eq!(execution.numbers, Numbers::from([(1, 1)]));
    drop(begin_with(&store, Which::Cut(1)).await);
    // Whoever takes it away is told.
    faulty.damage(&slot_file(committed.slot), None);
    let error = Execution::begin(&store).await.err().unwrap();
    assert!(
        error.is_missing() && error.to_string().contains(&slot_file(committed.slot)),
        "{error}"
    );
    execution.take_cut().await.unwrap_err();
}

/// As any snapshot that was begun with: those that came of it may turn out to be damaged.
#[tokio::test]
async fn a_savepoint_that_was_begun_with_and_deleted_stays_until_enough_has_come_of_it() {
    let (faulty, _) = one_kept();
    let store = faulty.store(SnapshotOptions { keep: 3, ..options() });
    let mut execution = Execution::begin(&store).await.unwrap();
    execution.set(1, 1);
    execution.take_savepoint("name").await.unwrap();
    execution.go_on().await;
    let mut execution = begin_with(&store, named("name")).await;
    store.delete_savepoint("name").await.unwrap();
    for is_there in [true, true, false] {
        execution.take_cut().await.unwrap();
        execution.collect().await.unwrap();
        let found = store.find(&identity(), Which::Cut(1), Check::Contents).await;
        assert_eq!(found.is_ok(), is_there);
        assert_eq!(listed(&store).await, [], "it has no name");
    }
}

/// The newest manifest says which savepoints there are, and it is damaged.
#[tokio::test]
async fn savepoints_are_found_although_the_newest_manifest_is_damaged() {
    for (keep, is_claimed) in [(1, false), (1, true), (3, false), (3, true)] {
        let (faulty, _) = one_kept();
        let store = faulty.store(SnapshotOptions { keep, ..options() });
        let mut execution = Execution::begin(&store).await.unwrap();
        execution.set(1, 1);
        execution.take_savepoint("name").await.unwrap();
        execution.go_on().await;
        let last = execution.take_cut().await.unwrap();
        execution.collect().await.unwrap();
        if is_claimed {
            // Now something says up to where nothing counts any more, and nothing that can be read is above it.
            drop(Execution::begin(&store).await.unwrap());
        }
        faulty.damage(&slot_file(last.slot), Some("damaged".into()));
        assert_eq!(numbers_of(&store, "name").await.unwrap(), Numbers::from([(1, 1)]));
        let from = RestoreFrom::NewestWhole;
        let (begun, _) = store.begin(&identity(), from, true, 7).await.unwrap();
        assert_eq!(begun.restores().unwrap().cut(), if keep == 1 { 1 } else { 13 });
        let mut execution = Execution::begin(&store).await.unwrap();
        execution.go_on().await;
        assert_eq!(numbers_of(&store, "name").await.unwrap(), Numbers::from([(1, 1)]));
        store.delete_savepoint("name").await.unwrap();
        execution.collect().await.unwrap();
        execution.go_on().await;
        assert!(numbers_of(&store, "name").await.unwrap_err().is_no_such_savepoint());
        assert_eq!(store.list().await.unwrap().len(), keep);
    }
}

/// Nobody knows any more which parts it needs.
#[tokio::test]
async fn the_parts_of_a_savepoint_whose_manifest_is_gone_are_left_alone() {
    let (faulty, store) = one_kept();
    let mut execution = Execution::begin(&store).await.unwrap();
    execution.set(1, 1);
    let committed = execution.take_savepoint("name").await.unwrap();
    let file = slot_file(committed.slot);
    let manifest = faulty.files()[&file].clone();
    execution.go_on().await;
    faulty.damage(&file, None);
    let mut execution = Execution::begin(&store).await.unwrap();
    execution.go_on().await;
    assert!(numbers_of(&store, "name").await.unwrap_err().is_missing());
    faulty.damage(&file, Some(manifest));
    assert_eq!(numbers_of(&store, "name").await.unwrap(), Numbers::from([(1, 1)]));
}

#[test]
fn any_bytes_are_the_savepoints_that_would_be_written_so_or_damage() {
    let named = |slot, name: &str| Named { slot, cut: slot * 2, name: name.to_owned() };
    let all = [named(3, "one"), named(7, "two"), named(9, "own")];
    let inputs = [Named::note(&all), Named::note(&all[..1])].map(|note| note.unwrap().to_vec());
    fuzz("savepoints", 30_000, &inputs, |input| {
        let (slot, execution, program) = (9, 1, String::new());
        let header = Header { slot, execution, nonce: 7, program, bins: 1, floor: 1, at_ms: 0 };
        let chain = vec![Link { execution, cut: 18, parts: Vec::new() }];
        let notes = BTreeMap::from([(NOTE.to_owned(), Bytes::copy_from_slice(input))]);
        let commit = Commit { header, chain, notes, held: Vec::new() };
        let read = within(16 * input.len() + 1024, || Named::all_of(&commit));
        let Ok(read) = read else { return false };
        assert_eq!(Named::note(&read).unwrap_or_else(|| vec![0; 4].into()), *input);
        assert!(read.is_sorted_by(|one, next| one.slot < next.slot));
        assert!(read.iter().all(|named| named.slot < 9 || *named == named_own(&named.name)));
        true
    });
}

fn named_own(name: &str) -> Named {
    Named { slot: 9, cut: 18, name: name.to_owned() }
}

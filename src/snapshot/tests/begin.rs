//! Which snapshot an execution begins with, and what all its workers learn of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::mpsc::unbounded_channel;

use super::super::begin::{Begun, RestoreFrom};
use super::super::keeper::{Keeper, Kept};
use super::super::log::Cut;
use super::super::manifest::slot_file;
use super::super::part::{PartEntry, PartName, PartWriter};
use super::super::process::NextPart;
use super::super::store::{SnapshotOptions, SnapshotStore};
use super::execution::{Execution, identity, options};
use crate::clock::Clock;
use crate::retry::Retry;
use crate::testing::{FaultyStore, StoreCall, StoreFault};

/// A store with cuts 1, 2 and 3, of which each builds upon the one before.
async fn three_cuts() -> (FaultyStore, SnapshotStore) {
    let faulty = FaultyStore::new();
    let store = faulty.store(SnapshotOptions { keep: 9, ..options() });
    let mut execution = Execution::begin(&store).await.unwrap();
    for number in 1..=3 {
        // Increments are smaller, so that another may follow.
        (0..128_u32 >> (2 * number)).for_each(|bin| execution.set(bin, number * 100));
        assert_eq!(execution.take_cut().await.unwrap().cut, number);
    }
    (faulty, store)
}

async fn begin(
    store: &SnapshotStore,
    from: RestoreFrom,
    verify: bool,
) -> Result<Begun, super::super::SnapshotError> {
    store.begin(&identity(), from, verify, 7).await.map(|(begun, _)| begun)
}

fn restored(begun: &Begun) -> Option<u64> {
    begun.restores().map(|commit| commit.cut())
}

/// The one before is believed to be dead, and commits a cut between the look for what there is and the claim.
/// The new one did not begin; a simulated run found it.
#[tokio::test]
async fn an_execution_that_is_overtaken_by_an_older_one_begins_with_its_cut() {
    let faulty = FaultyStore::new();
    let store = faulty.store(SnapshotOptions { retry: Retry::attempts(1), ..options() });
    let mut older = Execution::begin(&store).await.unwrap();
    older.set(1, 1);
    older.take_cut().await.unwrap();
    older.set(1, 2);
    faulty.fail_nth(StoreCall::Put, "manifest", 1, StoreFault::Late);
    older.take_cut().await.unwrap_err();
    // It arrives where the other was to claim the store.
    let late = faulty.clone();
    faulty.plan(move |call, file| {
        if call == StoreCall::Put && file.starts_with("manifest/") {
            late.land();
        }
        StoreFault::Nothing
    });
    let begun = begin(&store, RestoreFrom::Newest, true).await.unwrap();
    assert_eq!((begun.execution, restored(&begun)), (4, Some(2)));
    older.set(1, 3);
    assert!(older.take_cut().await.unwrap_err().is_fenced());
}

#[tokio::test]
async fn an_execution_begins_with_what_it_is_told_to() {
    let (_, store) = three_cuts().await;
    for (from, cut) in [
        (RestoreFrom::Newest, Some(3)),
        (RestoreFrom::Cut(2), Some(2)),
        // What the execution before restored, which has no cuts of its own.
        (RestoreFrom::NewestWhole, Some(2)),
        (RestoreFrom::Nothing, None),
        (RestoreFrom::Newest, None),
        (RestoreFrom::Cut(3), Some(3)),
    ] {
        let begun = begin(&store, from.clone(), true).await.unwrap();
        assert_eq!(restored(&begun), cut, "{from:?}");
        assert_eq!(begun.first_cut, 4, "{from:?}");
        // Only upon the newest can be built, and only if it is what is restored.
        assert_eq!(begun.base, cut.filter(|cut| *cut == 3), "{from:?}");
        // It travels.
        let sent = rmp_serde::to_vec(&begun).unwrap();
        let told: Begun = rmp_serde::from_slice(&sent).unwrap();
        assert_eq!((restored(&told), told.execution), (cut, begun.execution));
    }
    let fresh = FaultyStore::new().store(options());
    assert_eq!(restored(&begin(&fresh, RestoreFrom::Newest, true).await.unwrap()), None);
}

#[tokio::test]
async fn a_newest_snapshot_that_is_not_whole_is_an_error_that_offers_another() {
    let (faulty, store) = three_cuts().await;
    let newest: Vec<_> = faulty.files().into_keys().filter(|file| file.contains("/3/")).collect();
    let part = faulty
        .files()
        .into_keys()
        .find(|file| PartName::of(file).is_some_and(|part| part.cut == 3));
    let part = part.unwrap_or_else(|| panic!("there is a part of cut 3: {newest:?}"));
    let whole = faulty.files()[&part].clone();
    let mut flipped = whole.to_vec();
    flipped[20] ^= 4;
    for (damage, lengths_show) in [(Some(Bytes::from(flipped)), false), (None, true)] {
        faulty.damage(&part, damage);
        for verify in [true, false] {
            let begun = begin(&store, RestoreFrom::Newest, verify).await;
            if verify || lengths_show {
                let error = begun.unwrap_err();
                assert!(error.is_damaged() || error.is_missing(), "{error}");
                assert!(error.to_string().contains(&part), "{error}");
                assert_eq!(error.offered(), Some(2));
                assert!(error.to_string().ends_with("whole is that of cut 2"), "{error}");
                let error = begin(&store, RestoreFrom::Cut(3), verify).await.unwrap_err();
                assert!(error.to_string().contains(&part) && error.offered() == Some(2), "{error}");
                // It is told on other workers as it is.
                let told = rmp_serde::to_vec(&error).unwrap();
                let told: super::super::SnapshotError = rmp_serde::from_slice(&told).unwrap();
                assert_eq!((told.to_string(), told.offered()), (error.to_string(), Some(2)));
            }
        }
    }
    let error = begin(&store, RestoreFrom::Cut(9), true).await.unwrap_err();
    assert!(error.is_no_such_cut() && error.offered() == Some(2), "{error}");
    assert_eq!(
        restored(&begin(&store, RestoreFrom::NewestWhole, false).await.unwrap()),
        Some(2),
        "it is looked at"
    );
}

#[tokio::test]
async fn a_store_that_fails_or_is_another_programs_is_an_error_and_stays_as_it_is() {
    let (faulty, store) = three_cuts().await;
    let files = faulty.files();
    let other = super::super::survey::Identity { program: "words".to_owned(), ..identity() };
    for from in [RestoreFrom::Newest, RestoreFrom::Nothing] {
        let error = store.begin(&other, from, true, 7).await.map(drop).unwrap_err();
        assert!(error.is_foreign(), "{error}");
    }
    faulty.plan(
        |what, _| if what == StoreCall::List { StoreFault::Refused } else { StoreFault::Nothing },
    );
    let error = begin(&store, RestoreFrom::Newest, true).await.unwrap_err();
    assert!(error.is_unavailable() && error.offered().is_none(), "{error}");
    assert_eq!(faulty.files(), files);
}

/// A part with something in it, stored. That of the first cut is larger than all increments.
async fn part(store: &SnapshotStore, execution: u64, cut: u64) -> PartEntry {
    let mut writer = PartWriter::new(PartName { execution, cut, worker: 0, index: 0 }, 1);
    writer.append(1, 5, |section| section.resize(if cut == 1 { 5000 } else { 50 }, 7));
    let (told, heard) = tokio::sync::oneshot::channel();
    let uploads = store.uploads(Handle::current());
    uploads.store(writer.take().unwrap(), |outcome| drop(told.send(outcome)));
    heard.await.unwrap().unwrap()
}

#[tokio::test]
async fn a_keeper_commits_in_order_and_tells_what_the_next_can_build_upon() {
    let faulty = FaultyStore::new();
    let store = faulty.store(options());
    let (begun, log) = store.begin(&identity(), RestoreFrom::Newest, true, 7).await.unwrap();
    let keeper = Keeper::start(&Handle::current(), store.clone(), log, || 9);
    let (tell, mut told) = unbounded_channel();
    let notes = BTreeMap::new;
    let cut =
        |cut, base, parts| Cut { cut, base, parts, held: Vec::new(), notes: notes(), at_ms: 8 };
    for number in 1..=3 {
        let base = (number > 1).then(|| number - 1);
        let parts = vec![part(&store, begun.execution, number).await];
        let tell = tell.clone();
        keeper.commit(cut(number, base, parts), move |kept| drop(tell.send(kept)));
        let Kept { result, base } = told.recv().await.unwrap();
        assert_eq!((result.map_err(|e| e.to_string()), base), (Ok(()), Some(number)));
    }
    // One that does not follow is refused, and the next is judged by what went before it.
    let tell_of = tell.clone();
    keeper.commit(cut(4, Some(1), Vec::new()), move |kept| drop(tell_of.send(kept)));
    let Kept { result, base } = told.recv().await.unwrap();
    assert!(result.unwrap_err().is_refused());
    assert_eq!(base, Some(3));
    // Somebody else takes over.
    begin(&store, RestoreFrom::Newest, true).await.unwrap();
    let parts = vec![part(&store, begun.execution, 5).await];
    let tell_of = tell.clone();
    keeper.commit(cut(5, Some(3), parts), move |kept| drop(tell_of.send(kept)));
    assert!(told.recv().await.unwrap().result.unwrap_err().is_fenced());
    assert!(
        faulty.files().contains_key(&slot_file(4)) && !faulty.files().contains_key(&slot_file(6))
    );
}

#[test]
fn a_keeper_whose_runtime_is_gone_tells_so() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let store = SnapshotStore::open("memory:", options()).unwrap();
    let identity = identity();
    let begun = store.begin(&identity, RestoreFrom::Newest, true, 7);
    let (_, log) = runtime.block_on(begun).unwrap();
    let keeper = Keeper::start(runtime.handle(), store, log, || 9);
    drop(runtime);
    let (tell, told) = std::sync::mpsc::channel();
    let cut = Cut {
        cut: 1,
        base: None,
        parts: Vec::new(),
        held: Vec::new(),
        notes: BTreeMap::new(),
        at_ms: 8,
    };
    keeper.commit(cut, move |kept| tell.send(kept).unwrap());
    assert!(told.recv().unwrap().result.unwrap_err().is_abandoned());
}

/// Each worker of a process has all parts in order, and is woken for each; the files are read once.
#[tokio::test]
async fn workers_of_a_process_share_what_is_read() {
    let (faulty, store) = three_cuts().await;
    let begun = begin(&store, RestoreFrom::Newest, false).await.unwrap();
    let commit = begun.restores().unwrap();
    let names: Vec<_> = commit.parts().map(|part| part.name).collect();
    assert!(names.len() > 5, "{names:?}");
    let reads = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&reads);
    faulty.plan(move |what, file| {
        counted.fetch_add(usize::from(what == StoreCall::Get && file.starts_with("part/")), SeqCst);
        StoreFault::Nothing
    });
    let process = store.process(begun.execution, &Handle::current(), &Clock::system());
    assert!(Arc::ptr_eq(
        &process,
        &store.process(begun.execution, &Handle::current(), &Clock::system())
    ));
    assert!(!Arc::ptr_eq(
        &process,
        &store.process(begun.execution + 1, &Handle::current(), &Clock::system())
    ));
    let workers: Vec<_> = (0..3).map(|worker| process.attach(worker)).collect();
    let mut read = Vec::new();
    for mut parts in workers {
        let (wake, mut woken) = unbounded_channel();
        parts.connect(move || wake.send(()).unwrap_or(()));
        let process = Arc::clone(&process);
        let commit = commit.clone();
        read.push(tokio::spawn(async move {
            process.read(&commit);
            let mut names = Vec::new();
            loop {
                match parts.next().unwrap() {
                    NextPart::Part(part) => names.push(part.entry.name),
                    NextPart::NotYet => woken.recv().await.expect("it is woken when there is more"),
                    NextPart::End => return names,
                }
            }
        }));
    }
    for worker in read {
        assert_eq!(worker.await.unwrap(), names);
    }
    assert_eq!(reads.load(SeqCst), names.len());
}

#[tokio::test]
async fn a_part_that_cannot_be_read_is_told_to_every_worker_and_is_the_last() {
    let (faulty, store) = three_cuts().await;
    let begun = begin(&store, RestoreFrom::Newest, false).await.unwrap();
    let commit = begun.restores().unwrap();
    let lost = commit.parts().nth(2).unwrap().name.to_string();
    faulty.damage(&lost, None);
    let process = store.process(begun.execution, &Handle::current(), &Clock::system());
    let mut workers = [process.attach(0), process.attach(1)];
    process.read(&commit);
    for parts in &mut workers {
        let mut good = 0;
        let error = loop {
            match parts.next() {
                Ok(NextPart::Part(_)) => good += 1,
                Ok(NextPart::NotYet) => tokio::time::sleep(Duration::from_millis(1)).await,
                Ok(NextPart::End) => panic!("it must not look like all there is"),
                Err(error) => break error,
            }
        };
        assert!(good == 2 && error.is_missing() && error.to_string().contains(&lost), "{error}");
    }
}

//! Stores by their URLs, directories that lose power, and stores that fail or stall.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::runtime::{Builder, Handle};

use super::super::part::{Gathered, PartName, PartWriter};
use super::super::restore::{Check, Which};
use super::super::store::{SnapshotOptions, SnapshotStore};
use super::draws;
use super::execution::{Execution, identity, newest, options, read};
use crate::testing::{FaultyStore, StoreCall, StoreFault};

/// A directory of one test, which is gone when the test ends.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("snapshots-{}-{count}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = fs::remove_dir_all(&path);
        Scratch(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The paths below a directory: of files and of empty directories.
fn leaves(path: &Path) -> Vec<PathBuf> {
    let inside: Vec<_> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
    let below = |path: &PathBuf| if path.is_dir() { leaves(path) } else { vec![path.clone()] };
    if inside.is_empty() { vec![path.to_owned()] } else { inside.iter().flat_map(below).collect() }
}

#[test]
fn a_url_that_names_no_store_is_an_error() {
    for (url, why) in [
        ("snapshots", "relative URL"),
        ("ftp://host/directory", "no stores of scheme \"ftp\""),
        ("https://host/directory", "no stores of scheme \"https\""),
        ("file://host/directory", "no directory"),
        ("file:///proc/nothing/can/be/made/here", ""),
    ] {
        let error = SnapshotStore::open(url, options()).unwrap_err();
        assert!(error.is_invalid_url(), "{error}");
        assert!(error.to_string().contains(why), "{error}");
        assert!(error.to_string().contains(url.trim_start_matches("file://")), "{error}");
    }
    let clouds = [
        ("s3", cfg!(feature = "s3"), "s3://bucket/path"),
        ("gcs", cfg!(feature = "gcs"), "gs://bucket/path"),
        ("azure", cfg!(feature = "azure"), "az://container/path"),
    ];
    for (feature, _, url) in clouds.iter().filter(|(_, on, _)| !on) {
        let error = SnapshotStore::open(url, options()).unwrap_err();
        assert!(error.is_invalid_url(), "{error}");
        assert!(error.to_string().contains(&format!("the feature \"{feature}\"")), "{error}");
    }
}

#[tokio::test]
async fn a_directory_keeps_snapshots_and_nothing_that_is_not_needed() {
    let scratch = Scratch::new();
    let url = format!("file://{}/deep/below", scratch.0.display());
    let mut execution =
        Execution::begin(&SnapshotStore::open(&url, options()).unwrap()).await.unwrap();
    for round in 0..30u64 {
        if round == 9 || round == 19 {
            // A process that is killed leaves what it is writing, which no listing shows.
            let part =
                PartName { execution: execution.log.execution(), cut: round, worker: 0, index: 0 };
            let file = scratch.0.join("deep/below").join(format!("{part}#1"));
            fs::write(file, "half of it").unwrap();
            let store = SnapshotStore::open(&url, options()).unwrap();
            let before = execution.numbers;
            execution = Execution::begin(&store).await.unwrap();
            assert_eq!(execution.numbers, before);
        }
        (0..9).for_each(|bin| execution.set(bin + round as u32 % 3, round));
        execution.take_cut().await.unwrap();
        execution.collect().await.unwrap();
    }
    let store = SnapshotStore::directory(scratch.0.join("deep/below"), options()).unwrap();
    let found = store.find(&identity(), Which::Newest, Check::Contents).await.unwrap();
    let snapshot = found.snapshot.unwrap();
    assert_eq!(read(&store, &snapshot).await.unwrap(), execution.numbers);
    let list = store.list().await.unwrap();
    let info = list[0].as_ref().unwrap();
    assert_eq!((info.cut, info.parts), (30, snapshot.parts().count()));
    assert_eq!(*info, store.inspect(30).await.unwrap());
    let leaves = leaves(&scratch.0);
    assert!(leaves.iter().all(|path| path.is_file()), "empty directories are left: {leaves:?}");
    let left: Vec<_> =
        leaves.iter().filter(|path| path.display().to_string().contains('#')).collect();
    assert!(left.is_empty(), "{left:?}");
    assert!(leaves.len() < 40, "{leaves:?}");
}

/// The power goes at any moment. What was said to be durable is.
#[tokio::test]
async fn what_counts_survives_a_loss_of_power() {
    let mut draw = draws(21);
    for round in 0..60 {
        let faulty = FaultyStore::new();
        let store = faulty.store(options());
        let mut durable = None;
        for _ in 0..3 {
            let mut execution = Execution::begin(&store).await.unwrap();
            if let Some((cut, numbers)) = &durable {
                assert_eq!(execution.numbers, *numbers, "round {round}, after cut {cut}");
            }
            for _ in 0..draw(6) {
                (0..9).for_each(|_| execution.set(draw(20) as u32, draw(1 << 30)));
                let committed = execution.take_cut().await.unwrap();
                durable = Some((committed.cut, execution.numbers.clone()));
                if draw(2) == 0 {
                    execution.collect().await.unwrap();
                    let files = faulty.files();
                    faulty.lose_power();
                    assert_eq!(faulty.files(), files, "what is deleted stays deleted");
                }
            }
            // In the middle of a cut, or of deleting.
            match draw(3) {
                0 => drop(execution.prepare().await.unwrap()),
                1 => {
                    faulty.fail_syncs();
                    drop(execution.collect().await);
                    faulty.heal();
                }
                _ => {}
            }
            faulty.lose_power();
        }
    }
}

/// A manifest is stored, but not its name. It does not count as committed, and nothing was released.
#[tokio::test(start_paused = true)]
async fn what_cannot_be_synced_is_not_committed() {
    let faulty = FaultyStore::new();
    let store = faulty.store(options());
    let mut execution = Execution::begin(&store).await.unwrap();
    execution.set(1, 1);
    faulty.fail_syncs();
    let error = execution.take_cut().await.unwrap_err();
    assert!(error.is_unavailable(), "{error}");
    faulty.heal();
    let cut = execution.prepare().await.unwrap();
    execution.commit(cut).await.unwrap();
    faulty.lose_power();
    assert_eq!(Execution::begin(&store).await.unwrap().numbers, execution.numbers);
}

/// A file is stored under its name, and syncing the directory fails. The next attempt finds it there,
/// which does not make it durable.
#[tokio::test(start_paused = true)]
async fn a_name_that_was_not_synced_is_synced_before_it_counts() {
    for file in ["part", "manifest"] {
        let faulty = FaultyStore::new();
        let store = faulty.store(options());
        let mut execution = Execution::begin(&store).await.unwrap();
        execution.set(1, 1);
        faulty.fail_next(StoreCall::Put, file, [StoreFault::Unsynced]);
        execution.take_cut().await.unwrap();
        faulty.lose_power();
        assert_eq!(Execution::begin(&store).await.unwrap().numbers, execution.numbers, "{file}");
    }
}

fn part(cut: u64, worker: u32, bytes: usize) -> Gathered {
    let name = PartName { execution: 1, cut, worker, index: 0 };
    let mut writer = PartWriter::new(name, bytes);
    writer.append(0, 0, |section| section.resize(bytes, 7));
    writer.take().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_slow_store_is_seen_and_pushes_back_only_past_the_bound() {
    let faulty = FaultyStore::new();
    let store =
        faulty.store(SnapshotOptions { pending_bytes_max: 5000, uploads_max: 2, ..options() });
    let uploads = store.uploads(Handle::current());
    faulty.plan(|_, _| StoreFault::Slow(Duration::from_millis(500)));
    uploads.begin(1234);
    let told = Arc::new(Mutex::new(Vec::new()));
    let mut taken = 0;
    while uploads.has_room() {
        let told = Arc::clone(&told);
        uploads.store(part(1, taken, 1000), move |outcome| told.lock().unwrap().push(outcome));
        taken += 1;
    }
    assert_eq!(taken, 5, "none was waited for");
    assert!(told.lock().unwrap().is_empty());
    let status = uploads.status();
    assert!(status.bytes_pending >= 5000);
    assert_eq!(status.uploading_since_ms, Some(1234));
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(told.lock().unwrap().len(), 2, "two at a time");
    assert!(uploads.has_room());
    tokio::time::sleep(Duration::from_millis(2100)).await;
    assert!(told.lock().unwrap().iter().all(Result::is_ok));
    assert_eq!((told.lock().unwrap().len(), uploads.status().bytes_pending), (5, 0));
}

#[tokio::test(start_paused = true)]
async fn what_stalls_or_has_no_space_is_tried_again_and_given_up_at_last() {
    let faulty = FaultyStore::new();
    let store = faulty.store(options());
    let mut execution = Execution::begin(&store).await.unwrap();
    execution.set(1, 1);
    // It stalls twice for longer than an attempt may take.
    let hour = Duration::from_secs(3600);
    faulty.fail_next(StoreCall::Put, "part", [StoreFault::Slow(hour), StoreFault::Slow(hour)]);
    let before = tokio::time::Instant::now();
    execution.take_cut().await.unwrap();
    assert!(before.elapsed() < Duration::from_secs(20), "{:?}", before.elapsed());
    let stored: usize = faulty.files().values().map(bytes::Bytes::len).sum();
    faulty.limit(stored + 10);
    execution.set(1, 2);
    let error = execution.take_cut().await.unwrap_err();
    assert!(error.is_unavailable() && error.to_string().contains("part/"), "{error}");
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("no space left"), "{source}");
    assert!(execution.uploads().status().last_error.is_some());
    faulty.heal();
    execution.take_cut().await.unwrap();
    assert_eq!(Execution::begin(&store).await.unwrap().numbers, execution.numbers);
}

#[tokio::test(start_paused = true)]
async fn a_cut_that_is_abandoned_uploads_nothing_more_and_others_go_on() {
    let faulty = FaultyStore::new();
    let store = faulty.store(options());
    let uploads = store.uploads(Handle::current());
    faulty.plan(|_, _| StoreFault::Slow(Duration::from_secs(1)));
    let told = Arc::new(Mutex::new(Vec::new()));
    for (cut, worker) in [(1, 0), (2, 0), (1, 1)] {
        let told = Arc::clone(&told);
        let tell = move |outcome: Result<_, _>| told.lock().unwrap().push((cut, outcome.is_ok()));
        uploads.store(part(cut, worker, 10), tell);
    }
    uploads.abandon(1);
    tokio::time::sleep(Duration::from_secs(9)).await;
    let mut told = told.lock().unwrap().clone();
    told.sort();
    assert_eq!(told, [(1, false), (1, false), (2, true)]);
    let stored: Vec<_> = faulty.files().keys().filter_map(|file| PartName::of(file)).collect();
    assert_eq!(stored.iter().map(|part| part.cut).collect::<Vec<_>>(), [2]);
    assert_eq!(uploads.status().bytes_pending, 0);
}

#[test]
fn a_runtime_that_has_shut_down_is_told_of() {
    let runtime = Builder::new_current_thread().enable_time().build().unwrap();
    let store = runtime.block_on(async { FaultyStore::new().store(options()) });
    let uploads = store.uploads(runtime.handle().clone());
    drop(runtime);
    let (told, was_told) = std::sync::mpsc::channel();
    uploads.store(part(1, 0, 10), move |outcome| told.send(outcome).unwrap());
    assert!(was_told.recv().unwrap().unwrap_err().is_abandoned());
    assert_eq!(uploads.status().bytes_pending, 0);
}

#[tokio::test(start_paused = true)]
async fn a_part_under_a_name_that_is_taken_is_damage() {
    let faulty = FaultyStore::new();
    let store = faulty.store(options());
    let uploads = store.uploads(Handle::current());
    faulty.damage(&part(1, 0, 10).name.to_string(), Some("something else".into()));
    let (told, was_told) = tokio::sync::oneshot::channel();
    uploads.store(part(1, 0, 10), move |outcome| told.send(outcome).unwrap());
    let error = was_told.await.unwrap().unwrap_err();
    assert!(error.is_damaged(), "{error}");
    assert!(newest(&store).await.unwrap().snapshot.is_none());
}

//! A program that has numbers in bins and takes snapshots of them, written without a dataflow.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::super::SnapshotError;
use super::super::gc::{Collected, Garbage};
use super::super::log::{Committed, Cut, Log};
use super::super::manifest::Commit;
use super::super::part::{PartEntry, PartName, PartWriter};
use super::super::restore::{Check, Found, Which};
use super::super::store::{SnapshotOptions, SnapshotStore};
use super::super::survey::Identity;
use super::super::uploads::Uploads;
use crate::retry::Retry;

/// The numbers, by bin. A bin without one has none.
pub(super) type Numbers = BTreeMap<u32, u64>;

const VALUES: u16 = 1;

pub(super) fn identity() -> Identity {
    Identity { program: "numbers".to_owned(), bins: 64 }
}

/// Three attempts, and nothing is kept longer than it must.
pub(super) fn options() -> SnapshotOptions {
    SnapshotOptions {
        grace: Duration::ZERO,
        retry: Retry::attempts(3).first(Duration::from_millis(10)).jitter(0.0),
        attempt_max: Duration::from_secs(5),
        part_bytes: 60,
        chain_max: 4,
        ..SnapshotOptions::default()
    }
}

pub(super) struct Execution {
    pub(super) store: SnapshotStore,
    pub(super) log: Log,
    pub(super) numbers: Numbers,
    pub(super) next_cut: u64,
    pub(super) now_ms: u64,
    /// Bins that were written in the cut since, or after the last cut.
    changed: BTreeMap<u32, u64>,
    uploads: Uploads,
    garbage: Garbage,
}

/// What a snapshot holds.
pub(super) async fn read(store: &SnapshotStore, commit: &Commit) -> Result<Numbers, SnapshotError> {
    let mut numbers = Numbers::new();
    let mut parts = std::pin::pin!(store.parts(commit));
    while let Some(part) = parts.next().await {
        for section in part?.sections(|_, _| true) {
            let section = section?;
            assert_eq!(section.kind, VALUES);
            // The last word in a bin holds.
            match section.bytes.chunks(8).last().map(|b| u64::from_le_bytes(b.try_into().unwrap()))
            {
                None => numbers.remove(&section.bin),
                Some(number) => numbers.insert(section.bin, number),
            };
        }
    }
    Ok(numbers)
}

/// What is to be restored, by default.
pub(super) async fn newest(store: &SnapshotStore) -> Result<Found, SnapshotError> {
    store.find(&identity(), Which::Newest, Check::Lengths).await
}

impl Execution {
    /// Begins with the newest snapshot, all of which must be whole.
    pub(super) async fn begin(store: &SnapshotStore) -> Result<Self, SnapshotError> {
        let found = newest(store).await?;
        if let Some((_, error)) = found.skipped.first() {
            return Err(error.clone());
        }
        Self::begin_with(store, &found, found.snapshot.as_ref()).await
    }

    pub(super) async fn begin_with(
        store: &SnapshotStore,
        found: &Found,
        restores: Option<&Commit>,
    ) -> Result<Self, SnapshotError> {
        let log = store.claim(&identity(), found, restores, 0).await?;
        let numbers = match restores {
            Some(commit) => read(store, commit).await?,
            None => Numbers::new(),
        };
        let uploads = store.uploads(Handle::current());
        Ok(Execution {
            store: store.clone(),
            next_cut: log.first_cut(),
            log,
            numbers,
            now_ms: 0,
            changed: BTreeMap::new(),
            uploads,
            garbage: Garbage::default(),
        })
    }

    pub(super) fn set(&mut self, bin: u32, number: u64) {
        self.numbers.insert(bin, number);
        self.changed.insert(bin, self.next_cut);
    }

    pub(super) fn remove(&mut self, bin: u32) {
        self.numbers.remove(&bin);
        self.changed.insert(bin, self.next_cut);
    }

    /// Stores the parts of the next cut, and gives what is to be committed.
    pub(super) async fn prepare(&mut self) -> Result<Cut, SnapshotError> {
        let (cut, base) = (self.next_cut, self.log.base());
        self.next_cut += 1;
        let bins: BTreeSet<u32> = match base {
            None => self.numbers.keys().copied().collect(),
            Some(base) => {
                let since = self.changed.iter().filter(|(_, at)| **at > base);
                since.map(|(bin, _)| *bin).collect()
            }
        };
        let name = PartName { execution: self.log.execution(), cut, worker: 0, index: 0 };
        let mut writer = PartWriter::new(name, self.store.options().part_bytes);
        let mut written = Vec::new();
        for bin in bins {
            let number = self.numbers.get(&bin).copied();
            writer.append(VALUES, bin, |section| {
                section.extend(number.into_iter().flat_map(u64::to_le_bytes));
            });
            if writer.is_full() {
                written.extend(writer.take());
            }
        }
        written.extend(writer.take());
        self.uploads.begin(self.now_ms);
        let mut stored: Vec<oneshot::Receiver<_>> = Vec::new();
        for part in written {
            let (told, waits) = oneshot::channel();
            self.uploads.store(part, |outcome| drop(told.send(outcome)));
            stored.push(waits);
        }
        let mut parts: Vec<PartEntry> = Vec::new();
        for stored in stored {
            match stored.await.expect("it is told whatever happens") {
                Ok(part) => parts.push(part),
                Err(error) => {
                    self.uploads.abandon(cut);
                    return Err(error);
                }
            }
        }
        let notes = BTreeMap::from([("cut".to_owned(), Bytes::from(cut.to_string()))]);
        Ok(Cut { cut, base, parts, held: Vec::new(), notes, at_ms: self.now_ms })
    }

    pub(super) async fn commit(&mut self, cut: Cut) -> Result<Committed, SnapshotError> {
        let number = cut.cut;
        match self.log.commit(cut).await {
            Ok(committed) => {
                self.uploads.committed(committed.cut, self.now_ms);
                self.changed.retain(|_, at| *at > committed.cut);
                Ok(committed)
            }
            Err(error) => {
                self.uploads.abandon(number);
                Err(error)
            }
        }
    }

    /// Takes a cut, and makes it durable.
    pub(super) async fn take_cut(&mut self) -> Result<Committed, SnapshotError> {
        let cut = self.prepare().await?;
        self.commit(cut).await
    }

    pub(super) async fn collect(&mut self) -> Result<Collected, SnapshotError> {
        self.store.collect(&mut self.garbage, &mut self.log, self.now_ms).await
    }

    pub(super) fn uploads(&self) -> &Uploads {
        &self.uploads
    }
}

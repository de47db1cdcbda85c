//! Parts on their way into the store, on the runtime; no worker waits for them.
//!
//! What is handed over is always taken, and counted. Past a bound there is no room, and those who make
//! parts are to wait until there is.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;

use super::error::{Kind, SnapshotError};
use super::files::{Created, Files};
use super::part::{Gathered, Part, PartEntry};

/// How snapshots are getting on, as one process sees it.
#[derive(Clone, Debug, Default)]
pub struct SnapshotStatus {
    /// The last cut that is durable.
    pub last_committed: Option<u64>,
    /// When it became durable, in milliseconds since the beginning of 1970.
    pub committed_at_ms: Option<u64>,
    /// The last cut that was given up: the store failed for too long, or its time was up.
    pub last_given_up: Option<u64>,
    /// Since when the open cut is being stored, in milliseconds since the beginning of 1970.
    pub uploading_since_ms: Option<u64>,
    /// Bytes that are not stored yet.
    pub bytes_pending: u64,
    /// The cuts whose records of [held](crate::Functions::held_egress) egresses were not acknowledged, as the
    /// process of worker 0 knows. Too many of them keep the next from being taken, and any the program from
    /// ending.
    pub unacknowledged: Vec<u64>,
    /// What failed last, if no cut has become durable since, as this process knows.
    pub last_error: Option<SnapshotError>,
}

/// The uploads of one process.
pub(crate) struct Uploads {
    files: Files,
    runtime: Handle,
    bytes_max: u64,
    turns: Arc<Semaphore>,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Default)]
struct Shared {
    status: SnapshotStatus,
    /// What is under way, by cut.
    tasks: BTreeMap<u64, Vec<AbortHandle>>,
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Uploads {
    pub(super) fn new(files: Files, runtime: Handle, bytes_max: u64, uploads_max: usize) -> Self {
        let turns = Arc::new(Semaphore::new(uploads_max.clamp(1, Semaphore::MAX_PERMITS)));
        Uploads { files, runtime, bytes_max, turns, shared: Arc::default() }
    }

    /// Makes a part of what was gathered and stores it, and tells what became of it on a thread of the runtime, whatever happens. What
    /// fails in passing was tried again before.
    pub(crate) fn store(
        &self,
        gathered: Gathered,
        told: impl FnOnce(Result<PartEntry, SnapshotError>) + Send + 'static,
    ) {
        let (cut, bytes) = (gathered.name.cut, gathered.len() as u64);
        lock(&self.shared).status.bytes_pending += bytes;
        let (told, shared) = (Some(Box::new(told) as Told), Arc::clone(&self.shared));
        let mut ending = Ending { cut, bytes, outcome: None, told, shared };
        let (files, turns) = (self.files.clone(), Arc::clone(&self.turns));
        // Not under the lock: a runtime that has shut down drops the task at once.
        let task = self.runtime.spawn(async move {
            // It is never closed.
            let _turn = turns.acquire().await;
            // A runtime that shuts down meanwhile stores nothing any more.
            if let Ok(part) = files.apart(|| gathered.part()).await {
                #[cfg(statefun_planted)]
                ending.tell_early(&part).await;
                ending.end_with(store(&files, part).await);
            }
        });
        let mut shared = lock(&self.shared);
        let tasks = shared.tasks.entry(cut).or_default();
        tasks.retain(|task| !task.is_finished());
        tasks.push(task.abort_handle());
    }

    /// Whether there is room for more parts.
    pub(crate) fn has_room(&self) -> bool {
        lock(&self.shared).status.bytes_pending < self.bytes_max
    }

    /// A cut is open from now on.
    pub(crate) fn begin(&self, now_ms: u64) {
        lock(&self.shared).status.uploading_since_ms = Some(now_ms);
    }

    /// A cut has become durable.
    pub(crate) fn committed(&self, cut: u64, now_ms: u64) {
        self.files.committed();
        let mut shared = lock(&self.shared);
        shared.tasks = shared.tasks.split_off(&(cut + 1));
        let status = &mut shared.status;
        status.uploading_since_ms = None;
        (status.last_committed, status.committed_at_ms) = (Some(cut), Some(now_ms));
    }

    /// A cut is given up. What it has stored is garbage.
    pub(crate) fn abandon(&self, cut: u64) {
        let tasks = {
            let mut shared = lock(&self.shared);
            shared.status.uploading_since_ms = None;
            shared.status.last_given_up = Some(cut);
            shared.tasks.remove(&cut).unwrap_or_default()
        };
        tasks.iter().for_each(AbortHandle::abort);
    }

    /// These cuts are not acknowledged.
    pub(crate) fn unacknowledged(&self, cuts: Vec<u64>) {
        lock(&self.shared).status.unacknowledged = cuts;
    }

    /// How it is getting on.
    pub(crate) fn status(&self) -> SnapshotStatus {
        let last_error = self.files.trouble();
        SnapshotStatus { last_error, ..lock(&self.shared).status.clone() }
    }
}

impl Drop for Uploads {
    fn drop(&mut self) {
        let tasks = std::mem::take(&mut lock(&self.shared).tasks);
        tasks.values().flatten().for_each(AbortHandle::abort);
    }
}

/// Stores a part that nobody else makes.
pub(super) async fn store(files: &Files, part: Part) -> Result<PartEntry, SnapshotError> {
    let file = part.entry.name.to_string();
    #[cfg(statefun_planted)]
    crate::planted::reach("part-begun");
    let created = files.create(&file, part.bytes.clone()).await?;
    #[cfg(statefun_planted)]
    crate::planted::reach("part-stored");
    match created {
        Created::New => Ok(part.entry),
        // The reply was lost, but not the part: nobody else makes parts of this name.
        Created::Exists => match files.read(&file, part.entry.bytes).await? {
            Some(bytes) if bytes == part.bytes => Ok(part.entry),
            Some(_) => Err(SnapshotError::damaged(&file, "there is another part of this name")),
            None => Err(SnapshotError::missing(&file)),
        },
    }
}

type Told = Box<dyn FnOnce(Result<PartEntry, SnapshotError>) + Send>;

/// Tells what became of a part, also when its task is dropped where it is.
struct Ending {
    cut: u64,
    bytes: u64,
    outcome: Option<Result<PartEntry, SnapshotError>>,
    told: Option<Told>,
    shared: Arc<Mutex<Shared>>,
}

impl Ending {
    fn end_with(&mut self, outcome: Result<PartEntry, SnapshotError>) {
        self.outcome = Some(outcome);
    }
}

#[cfg(statefun_planted)]
impl Ending {
    /// `manifest-first`: says that a part is stored long before it is.
    async fn tell_early(&mut self, part: &Part) {
        if crate::planted::is("manifest-first")
            && let Some(told) = self.told.take()
        {
            told(Ok(part.entry.clone()));
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        lock(&self.shared).status.bytes_pending -= self.bytes;
        let abandoned = || Err(Kind::Abandoned { cut: self.cut }.into());
        let outcome = self.outcome.take().unwrap_or_else(abandoned);
        if let Some(told) = self.told.take() {
            told(outcome);
        }
    }
}

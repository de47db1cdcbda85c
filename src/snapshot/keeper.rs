//! The execution that owns a store, at work on the runtime: it commits cuts, one after the other, and
//! deletes what is not needed any more.

use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::error::{Kind, SnapshotError};
use super::gc::Garbage;
use super::log::{Cut, Log};
use super::store::SnapshotStore;

/// What became of a cut that was to be committed.
pub(crate) struct Kept {
    pub(crate) result: Result<(), SnapshotError>,
    /// The cut that the next one may be an increment of.
    pub(crate) base: Option<u64>,
}

type Told = Box<dyn FnOnce(Kept) + Send>;
type ToldName = Box<dyn FnOnce(Result<(), SnapshotError>) + Send>;

/// Commits what it is given. What is under way when this is dropped comes to its end.
pub(crate) struct Keeper {
    jobs: UnboundedSender<Job>,
}

/// The longest time between two looks at what can be deleted, while cuts are committed.
const LOOK_AFTER_MAX_MS: u64 = 60_000;

impl Keeper {
    /// Begins to work on a runtime. `now_ms` is the clock of the execution.
    pub(crate) fn start(
        runtime: &Handle,
        store: SnapshotStore,
        log: Log,
        now_ms: impl Fn() -> u64 + Send + Sync + 'static,
    ) -> Self {
        let (jobs, received) = unbounded_channel();
        runtime.spawn(work(received, store, log, now_ms));
        Keeper { jobs }
    }

    /// Commits a cut, and tells what became of it on a thread of the runtime, whatever happens.
    pub(crate) fn commit(&self, cut: Cut, told: impl FnOnce(Kept) + Send + 'static) {
        let ending = Ending { cut: cut.cut, told: Some(Box::new(told)) };
        // Where the runtime has shut down, dropping the job tells so.
        drop(self.jobs.send(Job::Commit { cut, ending }));
    }

    /// Finds out whether a cut may be committed as a savepoint of this name, and tells so on a thread of
    /// the runtime, unless that has shut down.
    pub(crate) fn check_name(
        &self,
        name: String,
        told: impl FnOnce(Result<(), SnapshotError>) + Send + 'static,
    ) {
        drop(self.jobs.send(Job::CheckName { name, told: Box::new(told) }));
    }
}

async fn work(
    mut jobs: UnboundedReceiver<Job>,
    store: SnapshotStore,
    mut log: Log,
    now_ms: impl Fn() -> u64 + Send + Sync + 'static,
) {
    let mut garbage = Garbage::default();
    let grace_ms = u64::try_from(store.options().grace.as_millis()).unwrap_or(u64::MAX);
    let look_after_ms = (grace_ms / 8).min(LOOK_AFTER_MAX_MS);
    let mut looked_ms: Option<u64> = None;
    while let Some(job) = jobs.recv().await {
        let (cut, ending) = match job {
            Job::Commit { cut, ending } => (cut, ending),
            Job::CheckName { name, told } => {
                told(log.check_name(&name).await);
                continue;
            }
        };
        let result = log.commit(cut).await.map(drop);
        let is_committed = result.is_ok();
        ending.end_with(Kept { result, base: log.base() });
        let now = now_ms();
        let is_due = looked_ms.is_none_or(|at| now.saturating_sub(at) >= look_after_ms);
        if is_committed && is_due {
            looked_ms = Some(now);
            match store.collect(&mut garbage, &mut log, now).await {
                Ok(collected) => tracing::debug!(?collected, "deleted what is not needed"),
                // What is not deleted now is deleted another time. One that is fenced learns of it when it
                // commits.
                Err(error) => tracing::warn!(%error, "cannot delete what is not needed"),
            }
        }
        // A turn for others, also where the store is in memory.
        tokio::time::sleep(Duration::ZERO).await;
    }
}

enum Job {
    Commit { cut: Cut, ending: Ending },
    CheckName { name: String, told: ToldName },
}

/// Tells what became of a cut, also when its task is dropped where it is.
struct Ending {
    cut: u64,
    told: Option<Told>,
}

impl Ending {
    fn end_with(mut self, kept: Kept) {
        if let Some(told) = self.told.take() {
            told(kept);
        }
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        if let Some(told) = self.told.take() {
            let result = Err(Kind::Abandoned { cut: self.cut }.into());
            told(Kept { result, base: None });
        }
    }
}

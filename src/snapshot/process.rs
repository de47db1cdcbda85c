//! What the workers of one process share of an execution: its uploads, and the files that it restores, each
//! of which is read once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use futures_util::StreamExt;
use tokio::runtime::Handle;
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::error::SnapshotError;
use super::manifest::Commit;
use super::part::PartReader;
use super::store::SnapshotStore;
use super::uploads::Uploads;
use crate::clock::Clock;

/// Parts that are read and that a worker has not taken yet.
const PARTS_AHEAD: usize = 2;

/// The executions that run in this process, by number. A store has few.
#[derive(Default)]
pub(super) struct Processes {
    processes: Mutex<HashMap<u64, Weak<Process>>>,
}

/// What the workers of a process share.
pub(crate) struct Process {
    pub(crate) uploads: Uploads,
    pub(crate) clock: Clock,
    store: SnapshotStore,
    runtime: Handle,
    readers: Mutex<Vec<Reader>>,
}

/// Where parts go for one worker.
struct Reader {
    worker: usize,
    parts: Sender<Result<Arc<PartReader>, SnapshotError>>,
    wake: Arc<Mutex<Wake>>,
}

type Wake = Option<Box<dyn Fn() + Send>>;

fn lock<X>(mutex: &Mutex<X>) -> MutexGuard<'_, X> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The parts of what is restored, in their order, for one worker.
pub(crate) struct Parts {
    parts: Receiver<Result<Arc<PartReader>, SnapshotError>>,
    wake: Arc<Mutex<Wake>>,
}

/// What comes next of the parts.
pub(crate) enum NextPart {
    Part(Arc<PartReader>),
    /// There will be more. The worker is woken.
    NotYet,
    End,
}

impl Parts {
    /// Says how to wake the worker when there is more.
    pub(crate) fn connect(&self, wake: impl Fn() + Send + 'static) {
        let mut connected = lock(&self.wake);
        *connected = match connected.take() {
            None => Some(Box::new(wake)),
            Some(before) => Some(Box::new(move || {
                before();
                wake();
            })),
        };
    }

    /// The next part.
    ///
    /// # Errors
    ///
    /// If it cannot be read. There is no other after it.
    pub(crate) fn next(&mut self) -> Result<NextPart, SnapshotError> {
        use tokio::sync::mpsc::error::TryRecvError;
        match self.parts.try_recv() {
            Ok(part) => part.map(NextPart::Part),
            Err(TryRecvError::Empty) => Ok(NextPart::NotYet),
            Err(TryRecvError::Disconnected) => Ok(NextPart::End),
        }
    }
}

impl SnapshotStore {
    /// What the workers of this process share of an execution.
    pub(crate) fn process(&self, execution: u64, runtime: &Handle, clock: &Clock) -> Arc<Process> {
        #[cfg(feature = "testing")]
        if let Some(gate) = &self.gate {
            drop(lock(gate));
        }
        let mut processes = lock(&self.processes.processes);
        processes.retain(|_, process| process.strong_count() > 0);
        if let Some(process) = processes.get(&execution).and_then(Weak::upgrade) {
            return process;
        }
        let process = Arc::new(Process {
            uploads: self.uploads(runtime.clone()),
            clock: clock.clone(),
            store: self.clone(),
            runtime: runtime.clone(),
            readers: Mutex::default(),
        });
        processes.insert(execution, Arc::downgrade(&process));
        process
    }
}

impl Process {
    /// A worker that is going to restore. All of a process must have said so before the first
    /// [`read`](Self::read).
    pub(crate) fn attach(&self, worker: usize) -> Parts {
        let (sender, parts) = channel(PARTS_AHEAD);
        let wake = Arc::default();
        lock(&self.readers).push(Reader { worker, parts: sender, wake: Arc::clone(&wake) });
        Parts { parts, wake }
    }

    /// Begins to read, unless somebody did.
    pub(crate) fn read(&self, commit: &Commit) {
        let mut readers = std::mem::take(&mut *lock(&self.readers));
        if readers.is_empty() {
            return;
        }
        readers.sort_by_key(|reader| reader.worker);
        let (store, commit) = (self.store.clone(), commit.clone());
        self.runtime.spawn(async move {
            let mut parts = std::pin::pin!(store.parts(&commit));
            while let Some(part) = parts.next().await {
                let part = part.map(Arc::new);
                let is_over = part.is_err();
                for reader in &readers {
                    // A worker that has ended needs nothing more.
                    drop(reader.parts.send(part.clone()).await);
                    reader.wake();
                }
                if is_over {
                    break;
                }
            }
        });
    }
}

impl Reader {
    fn wake(&self) {
        if let Some(wake) = &*lock(&self.wake) {
            wake();
        }
    }
}

/// The last look of a worker finds that there is nothing more.
impl Drop for Reader {
    fn drop(&mut self) {
        let (closed, _) = channel(1);
        drop(std::mem::replace(&mut self.parts, closed));
        self.wake();
    }
}

//! What is under way on the program's runtime for one worker, and its way back to the worker.
//!
//! Between a worker and a runtime it is the crossing that costs, so things cross together. What is to
//! start is gathered, and one task of the runtime starts it. What has ended is left for the worker, and
//! another task wakes it when the runtime has come to the end of what is ready to run.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use timely_statefun_operators::Waker;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::AbortHandle;

/// Runs what takes time and gathers what became of it, by key. What is under way ends with this.
pub(crate) struct Runner<O> {
    runtime: Option<Handle>,
    /// What becomes of something whose task was dropped where it was.
    lost: fn() -> O,
    waker: Option<Waker>,
    has_ended: Arc<Notify>,
    sender: Sender<(u32, O)>,
    ended: Receiver<(u32, O)>,
    gathered: Vec<Job<O>>,
    starter: Option<UnboundedSender<Vec<Job<O>>>>,
}

struct Job<O> {
    task: Pin<Box<dyn Future<Output = O> + Send>>,
    ending: Ending<O>,
}

impl<O: Send + 'static> Runner<O> {
    pub(crate) fn new(runtime: Option<Handle>, lost: fn() -> O) -> Self {
        let (sender, ended) = channel();
        let (gathered, starter, has_ended) = (Vec::new(), None, Arc::default());
        Runner { runtime, lost, waker: None, has_ended, sender, ended, gathered, starter }
    }

    /// Says whom to wake when something ends.
    pub(crate) fn connect(&mut self, waker: Waker) {
        self.waker = Some(waker);
    }

    /// Takes something in that is to start with the next [`start`](Self::start).
    pub(crate) fn add(&mut self, key: u32, task: impl Future<Output = O> + Send + 'static) {
        let (sender, has_ended) = (self.sender.clone(), Arc::clone(&self.has_ended));
        let (waker, lost) = (self.waker.clone(), self.lost);
        let ending = Ending { key, outcome: None, lost, sender, waker, has_ended };
        self.gathered.push(Job { task: Box::pin(task), ending });
    }

    /// Starts what was added.
    pub(crate) fn start(&mut self) {
        if self.gathered.is_empty() {
            return;
        }
        let starter = self.starter.get_or_insert_with(|| {
            let (starter, jobs) = unbounded_channel();
            // Functions that need a runtime are not built without one.
            let runtime = self.runtime.as_ref().expect("there is a runtime");
            let waking = WakeAtLast(self.waker.clone());
            let waking = runtime.spawn(wake(Arc::clone(&self.has_ended), waking));
            runtime.spawn(start(jobs, waking.abort_handle()));
            starter
        });
        // Where the runtime has shut down, dropping what is to start tells that it is lost.
        drop(starter.send(std::mem::take(&mut self.gathered)));
    }

    /// Something that has ended; each once.
    pub(crate) fn ended(&mut self) -> Option<(u32, O)> {
        self.ended.try_recv().ok()
    }
}

/// Starts what comes, until its sender is gone; then what is under way ends.
async fn start<O: Send + 'static>(mut jobs: UnboundedReceiver<Vec<Job<O>>>, waking: AbortHandle) {
    let mut under_way = UnderWay { tasks: vec![waking] };
    while let Some(jobs) = jobs.recv().await {
        under_way.make_room(jobs.len());
        for Job { task, mut ending } in jobs {
            let task = tokio::spawn(async move { ending.end_with(task.await) });
            under_way.tasks.push(task.abort_handle());
        }
    }
}

/// Wakes the worker when something has ended.
async fn wake(has_ended: Arc<Notify>, worker: WakeAtLast) {
    loop {
        has_ended.notified().await;
        // Whatever else is ready to run may end as well.
        tokio::task::yield_now().await;
        worker.wake();
    }
}

/// Wakes the worker, and once more when it is dropped: a runtime that shuts down drops tasks where they
/// are.
struct WakeAtLast(Option<Waker>);

impl WakeAtLast {
    fn wake(&self) {
        if let Some(waker) = &self.0 {
            waker.wake();
        }
    }
}

impl Drop for WakeAtLast {
    fn drop(&mut self) {
        self.wake();
    }
}

/// Tasks that may be under way. They end with this.
struct UnderWay {
    tasks: Vec<AbortHandle>,
}

impl UnderWay {
    /// Forgets those that have ended, when there is no room for so many more.
    fn make_room(&mut self, more: usize) {
        if self.tasks.len() + more > self.tasks.capacity() {
            self.tasks.retain(|task| !task.is_finished());
            // As many again, so that each is looked at a few times only.
            self.tasks.reserve(self.tasks.len() + more);
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

/// Tells the worker that something is over, whatever happens to its task: a runtime that shuts down
/// drops tasks where they are.
struct Ending<O> {
    key: u32,
    outcome: Option<O>,
    lost: fn() -> O,
    sender: Sender<(u32, O)>,
    waker: Option<Waker>,
    has_ended: Arc<Notify>,
}

impl<O> Ending<O> {
    fn end_with(&mut self, outcome: O) {
        self.outcome = Some(outcome);
    }
}

impl<O> Drop for Ending<O> {
    fn drop(&mut self) {
        let is_lost = self.outcome.is_none();
        let outcome = self.outcome.take().unwrap_or_else(self.lost);
        // A worker that has ended waits for nothing.
        let _ = self.sender.send((self.key, outcome));
        self.has_ended.notify_one();
        // There may be nobody left to wake it.
        if is_lost && let Some(waker) = &self.waker {
            waker.wake();
        }
    }
}

//! What is under way on the program's runtime for one worker, and its way back to the worker.

use std::collections::HashMap;
use std::future::Future;
use std::sync::mpsc::{Receiver, Sender, channel};

use timely_statefun_operators::Waker;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

/// Runs what takes time and gathers what became of it, by key. What is under way ends with this.
pub(crate) struct Runner<O> {
    runtime: Option<Handle>,
    /// What becomes of something whose task was dropped where it was.
    lost: fn() -> O,
    waker: Option<Waker>,
    sender: Sender<(u32, O)>,
    ended: Receiver<(u32, O)>,
    under_way: HashMap<u32, AbortHandle>,
}

impl<O: Send + 'static> Runner<O> {
    pub(crate) fn new(runtime: Option<Handle>, lost: fn() -> O) -> Self {
        let (sender, ended) = channel();
        Runner { runtime, lost, waker: None, sender, ended, under_way: HashMap::new() }
    }

    /// Says whom to wake when something ends.
    pub(crate) fn connect(&mut self, waker: Waker) {
        self.waker = Some(waker);
    }

    pub(crate) fn start(&mut self, key: u32, task: impl Future<Output = O> + Send + 'static) {
        let (sender, waker, lost) = (self.sender.clone(), self.waker.clone(), self.lost);
        let mut ending = Ending { key, outcome: None, lost, sender, waker };
        // Functions that need a runtime are not built without one.
        let runtime = self.runtime.as_ref().expect("there is a runtime");
        let task = runtime.spawn(async move { ending.end_with(task.await) });
        self.under_way.insert(key, task.abort_handle());
    }

    /// What has ended since this was last asked.
    pub(crate) fn ended(&mut self) -> Vec<(u32, O)> {
        let ended: Vec<_> = self.ended.try_iter().collect();
        for (key, _) in &ended {
            self.under_way.remove(key);
        }
        ended
    }
}

impl<O> Drop for Runner<O> {
    fn drop(&mut self) {
        self.under_way.values().for_each(AbortHandle::abort);
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
}

impl<O> Ending<O> {
    fn end_with(&mut self, outcome: O) {
        self.outcome = Some(outcome);
    }
}

impl<O> Drop for Ending<O> {
    fn drop(&mut self) {
        let outcome = self.outcome.take().unwrap_or_else(self.lost);
        // A worker that has ended waits for nothing.
        let _ = self.sender.send((self.key, outcome));
        if let Some(waker) = &self.waker {
            waker.wake();
        }
    }
}

//! Asynchronous operations on the program's runtime, and their way back to the worker.

use std::sync::mpsc::{Receiver, Sender, channel};

use timely_statefun_operators::Waker;
use tokio::runtime::Handle;

use crate::dispatch::{OperationKey, Task};

type Ended<M> = (OperationKey, Result<M, String>);

/// Starts the operations of one worker and gathers their outcomes.
pub(super) struct Runner<M> {
    runtime: Option<Handle>,
    waker: Option<Waker>,
    sender: Sender<Ended<M>>,
    ended: Receiver<Ended<M>>,
}

impl<M: Send + 'static> Runner<M> {
    pub(super) fn new(runtime: Option<Handle>) -> Self {
        let (sender, ended) = channel();
        Runner { runtime, waker: None, sender, ended }
    }

    /// Says whom to wake when an operation ends.
    pub(super) fn connect(&mut self, waker: Waker) {
        self.waker = Some(waker);
    }

    pub(super) fn start(&self, key: OperationKey, task: Task<M>) {
        let (sender, waker) = (self.sender.clone(), self.waker.clone());
        let mut ending = Ending { key, outcome: None, sender, waker };
        // Functions that declare operations are not built without a runtime.
        let runtime = self.runtime.as_ref().expect("operations have a runtime");
        runtime.spawn(async move { ending.end_with(task.await) });
    }

    /// What has ended since this was last asked.
    pub(super) fn ended(&self) -> impl Iterator<Item = Ended<M>> + '_ {
        self.ended.try_iter()
    }
}

/// Tells the worker that an operation is over, whatever happens to its task: a runtime that shuts
/// down drops tasks where they are.
struct Ending<M> {
    key: OperationKey,
    outcome: Option<Result<M, String>>,
    sender: Sender<Ended<M>>,
    waker: Option<Waker>,
}

impl<M> Ending<M> {
    fn end_with(&mut self, outcome: Result<M, String>) {
        self.outcome = Some(outcome);
    }
}

impl<M> Drop for Ending<M> {
    fn drop(&mut self) {
        let outcome = self.outcome.take();
        let outcome = outcome.unwrap_or_else(|| Err("the runtime has shut down".to_owned()));
        // A worker that has ended waits for nothing.
        let _ = self.sender.send((self.key, outcome));
        if let Some(waker) = &self.waker {
            waker.wake();
        }
    }
}

//! Asynchronous operations: what is under way, and to whom its outcome goes.
//!
//! A function begins an operation and is told its outcome in a message of its own. An operation that
//! finds no place waits, unstarted.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};

use serde::{Deserialize, Serialize};

use super::slots::Slots;
use super::{Head, Routed, panic_message};
use crate::dead_letter::chain;

/// What became of an asynchronous operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome<V> {
    /// It gave this.
    Completed(V),
    /// It failed, or panicked, with this message.
    Failed(String),
    /// It was under way when the program ended, and nobody knows what became of it.
    Unknown,
}

/// Names an operation until it is over.
pub(crate) type OperationKey = u32;

/// An operation, which gives the message that tells its outcome. `Err` if no message can be made.
pub(crate) type Task<M> = Pin<Box<dyn Future<Output = Result<M, String>> + Send>>;

/// Makes a task of an operation: whatever becomes of it, a message tells it.
pub(super) fn task<V, E, M>(
    operation: impl Future<Output = Result<V, E>> + Send + 'static,
    message: impl Fn(Outcome<V>) -> M + Send + Sync + 'static,
) -> Task<M>
where
    V: Send + 'static,
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
    M: 'static,
{
    Box::pin(async move {
        let outcome = {
            let mut operation = pin!(operation);
            let result = poll_fn(|context| {
                let poll = AssertUnwindSafe(|| operation.as_mut().poll(context));
                match catch_unwind(poll) {
                    Ok(poll) => poll.map(Ok),
                    Err(panic) => std::task::Poll::Ready(Err(panic_message(&*panic))),
                }
            });
            match result.await {
                Ok(Ok(value)) => Outcome::Completed(value),
                Ok(Err(error)) => Outcome::Failed(chain(&*error.into())),
                Err(panic) => Outcome::Failed(format!("the operation panicked: {panic}")),
            }
        };
        catch_unwind(AssertUnwindSafe(|| message(outcome))).map_err(|panic| panic_message(&*panic))
    })
}

struct Operation<H> {
    function: usize,
    /// The address it belongs to, and whence it comes.
    head: Head,
    /// Its ingress time; none if its outcome is a new event.
    held: Option<H>,
}

/// The operations of one worker.
pub(super) struct Operations<M, H> {
    operations: Vec<Option<Operation<H>>>,
    free: Vec<OperationKey>,
    detached: usize,
    pub(super) slots: Slots<(OperationKey, Task<M>)>,
}

impl<M, H> Operations<M, H> {
    pub(super) fn new(slots: Slots<(OperationKey, Task<M>)>) -> Self {
        Operations { operations: Vec::new(), free: Vec::new(), detached: 0, slots }
    }

    /// Whether outcomes will come that are new events.
    pub(super) fn await_events(&self) -> bool {
        self.detached > 0
    }

    /// Begins an operation, now or when there is room.
    pub(super) fn begin(&mut self, function: usize, head: Head, held: Option<H>, task: Task<M>) {
        self.detached += usize::from(held.is_none());
        let operation = Some(Operation { function, head, held });
        let key = match self.free.pop() {
            Some(key) => {
                self.operations[key as usize] = operation;
                key
            }
            None => {
                self.operations.push(operation);
                (self.operations.len() - 1) as OperationKey
            }
        };
        self.slots.begin(function, (key, task));
    }

    /// Ends an operation: the message that tells its outcome, and the time held for it.
    pub(super) fn end(&mut self, key: OperationKey, message: M) -> (Routed<M>, Option<H>) {
        let (head, held) = self.remove(key);
        let depth = if held.is_some() { head.depth.saturating_add(1) } else { 0 };
        let (caller_type, caller) = (head.target_type, head.target.clone());
        let head = Head { depth, caller_type, caller, names: None, again: false, ..head };
        (Routed { head, message }, held)
    }

    /// The address of an operation that ended without a message.
    pub(super) fn end_without(&mut self, key: OperationKey) -> Head {
        self.remove(key).0
    }

    fn remove(&mut self, key: OperationKey) -> (Head, Option<H>) {
        let operation = self.operations[key as usize].take();
        let Operation { function, head, held } = operation.expect("an operation ends once");
        self.free.push(key);
        self.detached -= usize::from(held.is_none());
        self.slots.end(function);
        (head, held)
    }
}

//! Asynchronous operations: what is under way, what waits for its turn, and how much each function
//! may have.
//!
//! A function begins an operation and is told its outcome in a message of its own. An operation that
//! finds no room waits, unstarted, and its function's ingress is held back meanwhile; nothing else
//! waits.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};

use serde::{Deserialize, Serialize};

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

/// The operations of one bound function.
struct Share<M> {
    max: usize,
    under_way: usize,
    waiting: VecDeque<(OperationKey, Task<M>)>,
    /// Whether its ingress is to be held back, and whether gates have been told so.
    held_back: bool,
    told: bool,
}

impl<M> Share<M> {
    fn all(&self) -> usize {
        self.under_way + self.waiting.len()
    }
}

/// The operations of one worker.
pub(super) struct Operations<M, H> {
    max: usize,
    under_way: usize,
    operations: Vec<Option<Operation<H>>>,
    free: Vec<OperationKey>,
    /// By number of the bound function; those that declare no operations have a maximum of 0.
    shares: Vec<Share<M>>,
    /// Whose turn it is first when there is room.
    turn: usize,
    detached: usize,
    startable: Vec<(OperationKey, Task<M>)>,
    changed: bool,
}

impl<M, H> Operations<M, H> {
    /// At most `max` at once, and of each function at most what `of_function` says.
    pub(super) fn new(max: usize, of_function: impl Iterator<Item = usize>) -> Self {
        let share = |max| Share {
            max,
            under_way: 0,
            waiting: VecDeque::new(),
            held_back: false,
            told: false,
        };
        Operations {
            max: max.max(1),
            under_way: 0,
            operations: Vec::new(),
            free: Vec::new(),
            shares: of_function.map(share).collect(),
            turn: 0,
            detached: 0,
            startable: Vec::new(),
            changed: false,
        }
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
        self.shares[function].waiting.push_back((key, task));
        self.start(function);
        self.look_at(function);
    }

    /// Ends an operation: the message that tells its outcome, and the time held for it.
    pub(super) fn end(&mut self, key: OperationKey, message: M) -> (Routed<M>, Option<H>) {
        let (function, head, held) = self.remove(key);
        let depth = if held.is_some() { head.depth.saturating_add(1) } else { 0 };
        let (caller_type, caller) = (head.target_type, head.target.clone());
        // In turns, so that no function can keep the room for itself.
        for _ in 0..self.shares.len() {
            self.turn = (self.turn + 1) % self.shares.len();
            if !self.shares[self.turn].waiting.is_empty() {
                self.start(self.turn);
                self.look_at(self.turn);
            }
        }
        self.look_at(function);
        (
            Routed {
                head: Head { depth, caller_type, caller, names: None, again: false, ..head },
                message,
            },
            held,
        )
    }

    /// The address of an operation that ended without a message.
    pub(super) fn end_without(&mut self, key: OperationKey) -> Head {
        self.remove(key).1
    }

    fn remove(&mut self, key: OperationKey) -> (usize, Head, Option<H>) {
        let operation = self.operations[key as usize].take();
        let Operation { function, head, held } = operation.expect("an operation ends once");
        self.free.push(key);
        self.under_way -= 1;
        self.shares[function].under_way -= 1;
        self.detached -= usize::from(held.is_none());
        (function, head, held)
    }

    /// Starts what a function has waiting, as far as there is room.
    fn start(&mut self, function: usize) {
        while self.has_room(function)
            && let Some(task) = self.shares[function].waiting.pop_front()
        {
            self.shares[function].under_way += 1;
            self.under_way += 1;
            self.startable.push(task);
        }
    }

    /// Whether a function may start one more. Where the worker's room is nearly used up, a place is
    /// left for each other function that has none.
    fn has_room(&self, function: usize) -> bool {
        let share = &self.shares[function];
        if share.under_way == 0 {
            return share.max > 0 && (self.under_way < self.max || self.max < self.declared());
        }
        let idle = self.shares.iter().filter(|share| share.max > 0 && share.under_way == 0);
        share.under_way < share.max && self.under_way + idle.count() < self.max
    }

    /// How many functions declare operations.
    fn declared(&self) -> usize {
        self.shares.iter().filter(|share| share.max > 0).count()
    }

    /// Decides whether a function's ingress must be held back.
    fn look_at(&mut self, function: usize) {
        let share = &mut self.shares[function];
        let enough = if share.held_back { share.max - share.max / 4 } else { share.max };
        let held_back = share.all() >= enough.max(1) || !share.waiting.is_empty();
        self.changed |= held_back != share.told;
        share.held_back = held_back;
    }

    /// Tells, once each, the functions whose ingress must begin or cease to be held back.
    pub(super) fn held_back_changed(&mut self, changed: &mut dyn FnMut(u32, bool)) {
        if !std::mem::take(&mut self.changed) {
            return;
        }
        for (function, share) in self.shares.iter_mut().enumerate() {
            if share.told != share.held_back {
                share.told = share.held_back;
                changed(function as u32, share.held_back);
            }
        }
    }

    /// Operations to start now.
    pub(super) fn take_startable(&mut self) -> Vec<(OperationKey, Task<M>)> {
        std::mem::take(&mut self.startable)
    }

    pub(super) fn has_startable(&self) -> bool {
        !self.startable.is_empty()
    }
}

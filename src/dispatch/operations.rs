//! Asynchronous operations: what is under way, and to whom its outcome goes.
//!
//! A function begins an operation and is told its outcome in a message of its own. An operation that
//! finds no place waits, unstarted.
//!
//! A cut cannot contain an operation. It contains the message that says that nobody knows what became of
//! it, for each that was under way or waited for its place.

use std::future::{Future, poll_fn};
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::counts::Tally;
use super::pen::{Fault, Pen, Places, Slice};
use super::record::{Note, Standing, Written};
use super::slab::{Passage, Slab};
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

/// Makes the message that says that an outcome is unknown.
pub(super) trait Unknown<M> {
    fn unknown(&self) -> M;
}

/// What a function says makes the message.
struct Telling<V, F> {
    message: F,
    outcome: PhantomData<fn(V)>,
}

impl<V, M, F: Fn(Outcome<V>) -> M> Unknown<M> for Telling<V, F> {
    fn unknown(&self) -> M {
        (self.message)(Outcome::Unknown)
    }
}

/// An operation that is to begin.
pub(super) struct Started<M> {
    pub(super) task: Task<M>,
    pub(super) unknown: Arc<dyn Unknown<M>>,
}

/// Makes a task of an operation: whatever becomes of it, a message tells it.
pub(super) fn started<V, E, M>(
    operation: impl Future<Output = Result<V, E>> + Send + 'static,
    message: impl Fn(Outcome<V>) -> M + Send + Sync + 'static,
) -> Started<M>
where
    V: Send + 'static,
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
    M: 'static,
{
    let telling = Arc::new(Telling { message, outcome: PhantomData });
    let unknown: Arc<dyn Unknown<M>> = Arc::<Telling<V, _>>::clone(&telling);
    let task = Box::pin(async move {
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
        catch_unwind(AssertUnwindSafe(|| (telling.message)(outcome)))
            .map_err(|panic| panic_message(&*panic))
    });
    Started { task, unknown }
}

struct Operation<M, H> {
    function: usize,
    /// The address it belongs to, and whence it comes.
    head: Head,
    /// Its ingress time; none if its outcome is a new event.
    held: Option<H>,
    unknown: Arc<dyn Unknown<M>>,
    /// In which epoch it was begun.
    epoch: u32,
}

impl<M, H> Operation<M, H> {
    /// The head of the message that tells its outcome: its address is its own caller then.
    fn head_of_outcome(&self) -> Head {
        let head = self.head.clone();
        let depth = if self.held.is_some() { head.depth.saturating_add(1) } else { 0 };
        let (caller_type, caller) = (head.target_type, head.target.clone());
        Head { depth, caller_type, caller, names: None, again: false, ..head }
    }

    /// Has the message written that says that its outcome is unknown.
    fn write<T, X>(
        &self,
        places: Places<'_, T, H>,
        write: impl FnOnce(&Written<'_, M, T>) -> Result<X, Fault>,
    ) -> Result<X, Fault> {
        let head = &self.head_of_outcome();
        let message =
            catch_unwind(AssertUnwindSafe(|| self.unknown.unknown())).map_err(|panic| {
                Fault::outcome(head.target_type, head.target.clone(), panic_message(&*panic))
            })?;
        let held = self.held.as_ref();
        let standing = held.map_or(Standing::Event, |held| Standing::Held(places(held)));
        let (note, types, message) = (Note::Operation, head.types(), &message);
        write(&Written { note, head, types, standing, message })
    }
}

/// The operations of one worker.
pub(super) struct Operations<M, H> {
    operations: Slab<Operation<M, H>>,
    detached: usize,
    /// All that have not ended.
    pub(super) present: Tally,
    pub(super) slots: Slots<(OperationKey, Task<M>)>,
    pub(super) passage: Passage,
}

impl<M, H> Operations<M, H> {
    pub(super) fn new(slots: Slots<(OperationKey, Task<M>)>) -> Self {
        let (operations, passage) = (Slab::default(), Passage::default());
        Operations { operations, detached: 0, present: Tally::default(), slots, passage }
    }

    /// Whether outcomes will come that are new events.
    pub(super) fn await_events(&self) -> bool {
        self.detached > 0
    }

    /// Begins an operation, now or when there is room.
    pub(super) fn begin(
        &mut self,
        function: usize,
        head: Head,
        held: Option<H>,
        Started { task, unknown }: Started<M>,
    ) {
        self.detached += usize::from(held.is_none());
        self.present.add(head.target_type, 1);
        let epoch = self.passage.epoch();
        let key = self.operations.insert(Operation { function, head, held, unknown, epoch });
        self.slots.begin(function, (key, task));
    }

    /// Ends an operation: the message that tells its outcome, and the time held for it. If the open cut
    /// needs it, it is written first that the outcome is unknown.
    pub(super) fn end<T>(
        &mut self,
        key: OperationKey,
        message: M,
        pen: Option<&mut Pen<M, T>>,
        places: Places<'_, T, H>,
    ) -> (Routed<M>, Option<H>) {
        let operation = self.operations.remove(key).expect("an operation ends once");
        self.note_end(&operation);
        if self.passage.needs(key, operation.epoch)
            && let Some(pen) = pen
        {
            let kept = operation.write(places, |written| {
                pen.keep(written);
                Ok(())
            });
            kept.unwrap_or_else(|fault| pen.fail(fault));
        }
        (Routed { head: operation.head_of_outcome(), message }, operation.held)
    }

    /// The address of an operation that ended without a message, which stops the program.
    pub(super) fn end_without(&mut self, key: OperationKey) -> Head {
        let operation = self.operations.remove(key).expect("an operation ends once");
        self.note_end(&operation);
        operation.head
    }

    fn note_end(&mut self, operation: &Operation<M, H>) {
        self.detached -= usize::from(operation.held.is_none());
        self.present.remove(operation.head.target_type, 1);
        self.slots.end(operation.function);
    }

    /// How many have not ended.
    #[cfg(feature = "testing")]
    pub(super) fn len(&self) -> usize {
        self.operations.len()
    }

    /// The message that tells that nobody knows what became of an operation.
    #[cfg(feature = "testing")]
    pub(super) fn unknown(&self, key: OperationKey) -> M {
        self.operations.get(key).expect("it is under way").unknown.unknown()
    }

    /// All operations: the messages that would tell that nobody knows what became of them, and the times
    /// that are held for them.
    #[cfg(test)]
    pub(super) fn list(&self) -> impl Iterator<Item = (Routed<M>, Option<&H>)> {
        self.operations.iter().map(|operation| {
            let message = operation.unknown.unknown();
            (Routed { head: operation.head_of_outcome(), message }, operation.held.as_ref())
        })
    }

    /// Takes a cut, and begins to write it.
    pub(super) fn take_cut(&mut self) {
        self.passage.begin(self.operations.end());
    }

    /// Writes some more of the cut, and says whether that was all of it.
    pub(super) fn walk<T>(
        &mut self,
        slice: &mut Slice<'_, M, T>,
        places: Places<'_, T, H>,
    ) -> Result<bool, Fault> {
        while let Some(key) = self.passage.next() {
            if !slice.has_room() {
                return Ok(false);
            }
            slice.look();
            if let Some(operation) = self.operations.get(key)
                && self.passage.needs(key, operation.epoch)
            {
                operation.write(places, |written| slice.write(written))?;
            }
            self.passage.pass();
        }
        Ok(true)
    }
}

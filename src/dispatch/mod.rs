//! From a message to its effects: finds the function and its state, runs it, and makes what it did
//! happen altogether or not at all.
//!
//! This room is a state machine. It is told the time and does no input or output; what it sends goes
//! through [`Surroundings`], and what it emits waits until it is asked for.

mod context;
mod egresses;
mod names;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use context::{Context, NoCaller};
pub(crate) use egresses::{Batch, Egresses, ErasedEgress};
pub(crate) use names::Names;

use crate::address::{Id, TypeName};
use crate::dead_letter::{DeadLetter, OnFailure, Reason, Stopped};
use crate::function::Body;
use crate::state::{FunctionState, Slot};

/// The number of a function type on one worker. Types bound by themselves have the same numbers on
/// every worker; others are numbered as they appear, and travel by name.
pub(crate) type TypeIndex = u32;

/// Stands for "no caller".
pub(crate) const NOBODY: TypeIndex = TypeIndex::MAX;

/// A message inside the loop.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Routed<M> {
    pub(crate) head: Head,
    pub(crate) message: M,
}

/// Whom a message inside the loop is for, and whence it comes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Head {
    pub(crate) target_type: TypeIndex,
    pub(crate) caller_type: TypeIndex,
    /// How many messages led to this one.
    pub(crate) depth: u32,
    /// The hash of the target's id: it places the message and finds its state.
    pub(crate) hash: u64,
    pub(crate) target: Id,
    pub(crate) caller: Id,
    /// The names of target and caller, where a number would mean nothing on another worker.
    pub(crate) names: Option<Arc<(TypeName, Option<TypeName>)>>,
}

/// What a running function can reach beyond its own state.
pub(crate) trait Surroundings<M, T> {
    fn time(&self) -> &T;
    fn frontier(&self) -> &[T];
    fn send(&mut self, message: Routed<M>);
}

/// What became of a message.
pub(crate) enum Outcome {
    /// It took effect.
    Done,
    /// It had none, and was given up.
    GivenUp,
    /// It had none, and the program must stop.
    Stop(Stopped),
}

/// What is bound, and the limits that concern single messages.
pub(crate) struct Bound<M, T> {
    pub(crate) functions: Vec<(TypeName, Rc<Body<M, T>>)>,
    pub(crate) namespaces: Vec<(&'static str, Rc<Body<M, T>>)>,
    pub(crate) depth_max: u32,
    pub(crate) when_full: OnFailure,
    pub(crate) worker: usize,
}

/// Why a message had no effect, how often it was tried, and what is to become of it.
struct Failure {
    reason: Reason,
    attempts: u32,
    on_failure: OnFailure,
}

impl Failure {
    /// A message that nobody was tried on becomes a dead letter whatever is bound.
    fn untried(reason: Reason) -> Self {
        Failure { reason, attempts: 0, on_failure: OnFailure::DeadLetter }
    }
}

struct Entry<M, T> {
    body: Option<Rc<Body<M, T>>>,
    state: FunctionState,
}

/// All functions of one worker.
pub(crate) struct Dispatcher<M, T> {
    bound: Bound<M, T>,
    names: Names,
    entries: Vec<Entry<M, T>>,
    egresses: Egresses<T>,
    /// What time it is, in milliseconds since 1970.
    now_ms: u64,
    /// Scratch space of [`foresee`](Self::foresee).
    foreseen: Vec<(TypeIndex, Slot)>,
}

impl<M: 'static, T: Clone + PartialEq + 'static> Dispatcher<M, T> {
    pub(crate) fn new(bound: Bound<M, T>, names: Names, egresses: Egresses<T>) -> Self {
        let (entries, foreseen) = (Vec::new(), Vec::new());
        let mut dispatcher = Dispatcher { bound, names, entries, egresses, now_ms: 0, foreseen };
        dispatcher.make_entries();
        dispatcher
    }

    /// Makes an entry for every name known so far.
    fn make_entries(&mut self) {
        for index in self.entries.len()..self.names.len() {
            let name = self.names.name(index as TypeIndex);
            let exact = self.bound.functions.iter().find(|(bound, _)| *bound == name);
            let body = exact.map(|(_, body)| body).or_else(|| {
                let within = |(bound, _): &&(&str, _)| *bound == name.namespace();
                self.bound.namespaces.iter().find(within).map(|(_, body)| body)
            });
            let state = body.map(|body| FunctionState::new(&body.values)).unwrap_or_default();
            self.entries.push(Entry { body: body.cloned(), state });
        }
    }

    /// Says what time it is. Time does not go back: an earlier one is ignored.
    pub(crate) fn note_time(&mut self, now_ms: u64) {
        self.now_ms = self.now_ms.max(now_ms);
    }

    /// Handles one message.
    pub(crate) fn deliver(
        &mut self,
        mut routed: Routed<M>,
        surroundings: &mut dyn Surroundings<M, T>,
    ) -> Outcome {
        match self.run(&mut routed, surroundings) {
            Ok(()) => Outcome::Done,
            Err(Failure { reason, attempts, on_failure }) => match on_failure {
                OnFailure::Stop => self.stop(&routed, reason),
                OnFailure::DeadLetter => {
                    self.give_up(routed, reason, attempts, surroundings.time())
                }
            },
        }
    }

    /// Runs the function of a message and makes what it did last, or undoes it.
    #[inline]
    fn run(
        &mut self,
        routed: &mut Routed<M>,
        surroundings: &mut dyn Surroundings<M, T>,
    ) -> Result<(), Failure> {
        let Routed { head, message } = routed;
        if let Some(names) = head.names.take() {
            head.target_type = self.names.index(&names.0);
            head.caller_type = names.1.as_ref().map_or(NOBODY, |name| self.names.index(name));
        }
        if head.target_type as usize >= self.entries.len() {
            self.make_entries();
        }
        let Entry { body, state } = &mut self.entries[head.target_type as usize];
        let Some(body) = body else { return Err(Failure::untried(Reason::NotBound)) };
        if head.depth > self.bound.depth_max {
            return Err(Failure::untried(Reason::TooDeep(self.bound.depth_max)));
        }
        let mut cursor = state.seek(&head.target, head.hash);
        let mut mistake = None;
        let mut context = Context {
            head,
            now_ms: self.now_ms,
            cursor: &mut cursor,
            state: &mut *state,
            names: &mut self.names,
            egresses: &mut self.egresses,
            surroundings,
            mistake: &mut mistake,
        };
        let run = AssertUnwindSafe(|| (body.run)(&mut context, message));
        let result = match catch_unwind(run) {
            Ok(result) => result,
            Err(panic) => Err(Reason::Panicked(panic_message(&*panic))),
        };
        // A mistake comes before whatever the function made of its consequences.
        match mistake.map_or(result, Err) {
            Ok(()) => {
                state.commit(cursor);
                self.egresses.commit();
                Ok(())
            }
            Err(reason) => {
                state.rollback(cursor);
                self.egresses.rollback();
                Err(Failure { reason, attempts: 1, on_failure: body.on_failure })
            }
        }
    }

    /// Fetches the state of upcoming messages into the processor's caches.
    ///
    /// Each step asks for what all messages need before the next step uses it, so that the processor
    /// waits for memory once and not once a message.
    pub(crate) fn foresee<'a>(&mut self, upcoming: impl Iterator<Item = &'a Routed<M>>) {
        if !self.entries.iter().any(|entry| entry.state.is_large()) {
            return;
        }
        self.foreseen.clear();
        for routed in upcoming {
            let index = routed.head.target_type;
            if let Some(entry) = self.entries.get(index as usize)
                && let Some(slot) = entry.state.likely_slot(routed.head.hash)
            {
                self.foreseen.push((index, slot));
            }
        }
        for (index, slot) in &self.foreseen {
            self.entries[*index as usize].state.touch(*slot);
        }
    }

    /// Gives up a message there is no room for.
    pub(crate) fn refuse(&mut self, routed: Routed<M>, time: &T) -> Outcome {
        match self.bound.when_full {
            OnFailure::Stop => self.stop(&routed, Reason::Full),
            OnFailure::DeadLetter => self.give_up(routed, Reason::Full, 0, time),
        }
    }

    /// Hands over what was emitted, in order.
    pub(crate) fn drain_egresses(&mut self, receive: &mut dyn FnMut(&T, Batch)) {
        self.egresses.drain(receive);
    }

    fn stop(&self, routed: &Routed<M>, reason: Reason) -> Outcome {
        let worker = self.bound.worker;
        Outcome::Stop(Stopped { address: self.names.target(&routed.head), reason, worker })
    }

    fn give_up(&mut self, routed: Routed<M>, reason: Reason, attempts: u32, time: &T) -> Outcome {
        let Routed { head, message } = routed;
        let target = self.names.target(&head);
        let caller = self.names.caller(&head);
        if !self.egresses.dead_letters_are_read() {
            tracing::warn!(%target, %reason, attempts, "a message was given up");
        }
        let letter = DeadLetter { target, caller, message, reason, attempts };
        self.egresses.dead_letter(time.clone(), letter);
        Outcome::GivenUp
    }
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => (*text).to_owned(),
        (_, Some(text)) => text.clone(),
        _ => "no message".to_owned(),
    }
}

#[cfg(test)]
mod tests;

//! From a message to its effects: finds the function and its state, runs it, and makes what it did
//! happen altogether or not at all.
//!
//! This room is a state machine. It is told the time and does no input or output; what it sends goes
//! through [`Surroundings`], and what it emits waits until it is asked for.

mod buffer;
mod calls;
mod context;
mod counts;
mod cuts;
mod delayed;
#[cfg(feature = "serve")]
mod desk;
mod effects;
mod egresses;
mod expiry;
mod held;
mod kept;
mod later;
mod mailboxes;
mod meters;
mod names;
mod operations;
mod pen;
mod record;
mod remote;
mod restore;
#[cfg(feature = "testing")]
mod single;
mod slab;
mod slots;
mod spans;
mod table;
mod types;

use std::cmp::Ordering;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

pub use buffer::Buffer;
pub(crate) use calls::RemoteState as CalledState;
pub(crate) use calls::{
    CallAnswer, CallDelayed, CallEffects, CallFailure, CallKey, CallRequest, Called, Traced,
};
pub use context::{Context, NoCaller};
pub(crate) use counts::{Counts, Ended, Loads, Present};
pub use delayed::TokenInUse;
#[cfg(feature = "serve")]
pub(crate) use desk::{Asked, Desk, Turned};
pub(crate) use egresses::{Batch, Egresses, ErasedChanges, ErasedEgress};
pub(crate) use held::{HeldRecords, Holding, OfBin, egress_of, type_of};
pub(crate) use kept::{Keeping, Sums};
pub(crate) use names::Names;
pub use operations::Outcome;
pub(crate) use operations::{OperationKey, Task};
pub(crate) use pen::{CutError, CutSink};
pub(crate) use record::{
    Attempt, Codecs, Delay, Identity, Note, Origin, RecordKind, Said, Standing, Stored, Unreadable,
    Written,
};
#[cfg(test)]
pub(crate) use restore::RestoreError;
pub(crate) use restore::{Back, Restoring};
#[cfg(feature = "testing")]
pub(crate) use single::Watch;
pub(crate) use spans::TraceOf;
pub use table::Table;
pub(crate) use types::CutType;

use crate::address::{Id, TypeName};
use crate::dead_letter::{DeadLetter, OnFailure, Reason, Stopped};
use crate::function::{Body, Code};
use crate::functions::OnUnbound;
use crate::state::{FunctionState, Slot};
use calls::{Calls, RemoteState};
use cuts::{Cuts, note_bytes, pen};
use effects::{Effects, Reached};
use kept::KeptEgresses;
use later::Later;
use mailboxes::{Arrival, Mailboxes};
use meters::Meters;
use operations::Operations;
use slots::Slots;
use spans::Spans;

/// The number of a function type on one worker. Types bound by themselves have the same numbers on
/// every worker; others are numbered as they appear, and travel by name.
pub(crate) type TypeIndex = u32;

/// Pieces of expired state that are given back between two rounds of messages.
const EXPIRED_AT_ONCE: usize = 4096;

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
    /// The number of the function that the target's type is bound to, the same on every worker.
    pub(crate) function: u32,
    /// Whether it failed before and comes from its address's mailbox.
    pub(crate) again: bool,
    /// The hash of the target's id: it places the message and finds its state.
    pub(crate) hash: u64,
    pub(crate) target: Id,
    pub(crate) caller: Id,
    /// The names of target and caller, where a number would mean nothing on another worker.
    pub(crate) names: Option<Arc<(TypeName, Option<TypeName>)>>,
}

impl Head {
    /// The numbers of the target's type and of the caller's, if somebody sent the message.
    fn types(&self) -> (TypeIndex, Option<TypeIndex>) {
        (self.target_type, (self.caller_type != NOBODY).then_some(self.caller_type))
    }

    /// The hash that places it while it waits to be sent off: it waits where its sender lives. What nobody
    /// sent and is an event nevertheless, since that became of it when it was restored, waits where it goes.
    fn home(&self) -> u64 {
        match self.caller_type {
            NOBODY => self.hash,
            _ => crate::placement::hash(&self.caller),
        }
    }
}

/// Where a message stands in the loop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place<T> {
    /// Its ingress time.
    pub(crate) time: T,
    /// How deep it stands, where messages are handled in the order of time; otherwise 0.
    pub(crate) depth: u64,
    /// Whether it is known to be an ingress record, for which the frontier that functions see waits.
    pub(crate) record: bool,
}

/// What a message that is being handled can reach outside this room.
pub(crate) trait Surroundings<M, T> {
    /// Keeps an ingress time alive.
    type Held;

    fn time(&self) -> &T;
    fn frontier(&self) -> &[T];
    /// Says whether the message stays on this worker.
    fn send(&mut self, message: Routed<M>) -> bool;
    /// Keeps the message's time for something that was begun.
    fn hold(&mut self) -> Self::Held;
    /// Keeps the message's time for the message itself. `record` says that it came from ingress.
    fn put_off(&mut self, record: bool) -> Self::Held;
    /// Has something that is held come after what was held at a place and was [resumed](Entrance::resume) since.
    /// Nothing needs to be done where it is already so.
    fn stand_behind(&mut self, first: &Place<T>, behind: &mut Self::Held) {
        let _ = (first, behind);
    }
    /// Brings in a message of this worker before all others: at the time held for it, or as a new
    /// event.
    fn resume_first(&mut self, held: Option<Self::Held>, message: Routed<M>);
    /// Says that new events will come.
    fn expect_event(&mut self);
    /// Gives a time back that was held.
    fn release(&mut self, held: Self::Held);
    /// Where something stands that is held.
    fn place(&self, held: &Self::Held) -> Place<T>;
}

/// Where messages come in that no other message sent just now.
pub(crate) trait Entrance<M, T> {
    /// Keeps an ingress time alive.
    type Held;

    /// Whether no ingress will come any more.
    fn ingress_is_over(&self) -> bool;
    /// The time at which a new event would happen, if one could.
    fn event_time(&self) -> Option<T> {
        None
    }
    /// How many more messages should be brought in now.
    fn room(&self) -> usize;
    /// Brings in a new event, for whichever worker.
    fn event(&mut self, message: Routed<M>);
    /// Has something that is held stand behind what is about to be [resumed](Self::resume). If it cannot, that must
    /// be resumed first.
    fn let_pass(&mut self, first: &Self::Held, behind: &mut Self::Held) -> bool;
    /// Brings in a message of this worker at the time held for it, or as a new event.
    fn resume(&mut self, held: Option<Self::Held>, message: Routed<M>);
    /// Keeps a time alive that is at or after one that is held, which stays held.
    fn hold_later(&mut self, held: &Self::Held, time: T) -> Self::Held;
    /// Like [`resume`](Self::resume), before all others.
    fn resume_first(&mut self, held: Option<Self::Held>, message: Routed<M>);
    /// Where something stands that is held.
    fn place(&self, held: &Self::Held) -> Place<T>;
}

/// What became of a message.
pub(crate) enum Verdict {
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
    pub(crate) namespaces: Vec<(SmolStr, Rc<Body<M, T>>)>,
    pub(crate) depth_max: u32,
    pub(crate) delayed_messages_max: usize,
    pub(crate) operations_max: usize,
    pub(crate) in_flight_max: usize,
    pub(crate) function_bytes_soft: usize,
    /// Whether delayed messages are sent off at once when no ingress will come any more.
    pub(crate) hurry_at_close: bool,
    /// What becomes of the state of functions that are not bound.
    pub(crate) on_unbound: OnUnbound,
    pub(crate) when_full: OnFailure,
    pub(crate) worker: usize,
}

/// Why a message had no effect, how often it was tried, and what is to become of it.
struct Failure {
    reason: Reason,
    attempts: u32,
    on_failure: OnFailure,
    /// Whether it may go better the next time.
    may_pass: bool,
}

impl Failure {
    /// A message that nobody was tried on becomes a dead letter whatever is bound.
    fn untried(reason: Reason) -> Self {
        Failure { reason, attempts: 0, on_failure: OnFailure::DeadLetter, may_pass: false }
    }
}

struct Entry<M, T> {
    body: Option<Rc<Body<M, T>>>,
    /// Whether its state is what was emitted to an egress.
    is_egress: bool,
    /// If there is stored state of it, and nothing is bound to it: what becomes of that.
    unbound: Option<OnUnbound>,
    state: FunctionState,
    /// The states that a remote function has said it keeps.
    remote_states: Vec<RemoteState>,
    meters: Meters,
    counts: Counts,
}

impl<M, T> Entry<M, T> {
    /// Whether it keeps state, or could.
    fn has_state(&self) -> bool {
        self.body.is_some() || self.is_egress || self.unbound.is_some()
    }
}

/// All functions of one worker. `H` keeps an ingress time alive.
pub(crate) struct Dispatcher<M, T, H> {
    bound: Bound<M, T>,
    names: Names,
    entries: Vec<Entry<M, T>>,
    egresses: Egresses<T>,
    /// What time it is, in milliseconds since 1970.
    now_ms: u64,
    later: Later<M>,
    /// Whether delayed messages are sent off at once, since no ingress will come any more.
    hurrying: bool,
    /// Whether there is no time at which state that is watched could expire.
    is_timeless: bool,
    mailboxes: Mailboxes<M, H>,
    operations: Operations<M, H>,
    calls: Calls<M, T, H>,
    /// If cuts are taken.
    cuts: Option<Box<Cuts<M, T>>>,
    /// The egresses whose records are kept with cuts.
    kept: KeptEgresses,
    /// What the running invocation does; empty between invocations.
    effects: Effects<M>,
    /// Scratch space of [`foresee`](Self::foresee).
    foreseen: Vec<(TypeIndex, Slot)>,
    /// How many messages each bin has had.
    loads: Loads,
    spans: Spans<M>,
}

impl<M: 'static, T: Clone + PartialEq + 'static, H> Dispatcher<M, T, H> {
    pub(crate) fn new(bound: Bound<M, T>, names: Names, egresses: Egresses<T>) -> Self {
        let functions = bound.functions.iter().map(|(_, body)| body);
        let functions = functions.chain(bound.namespaces.iter().map(|(_, body)| body));
        let in_flight_max = functions.clone().map(|body| match &body.code {
            Code::Remote(code) => code.endpoint.options.in_flight_max.max(1),
            Code::Embedded(_) | Code::Awaited(_) => 0,
        });
        let slots = Slots::new(bound.in_flight_max, in_flight_max).gathering();
        let batches = functions.clone().map(|body| match &body.code {
            Code::Remote(code) => code.endpoint.options.batch_messages_max.max(1),
            Code::Embedded(_) | Code::Awaited(_) => 1,
        });
        let calls = Calls::new(slots, batches.collect(), bound.function_bytes_soft);
        let maxima = functions.map(|body| body.operations_max);
        let operations = Operations::new(Slots::new(bound.operations_max, maxima));
        let mut dispatcher = Dispatcher {
            bound,
            names,
            entries: Vec::new(),
            egresses,
            now_ms: 0,
            later: Later::default(),
            hurrying: false,
            is_timeless: false,
            mailboxes: Mailboxes::default(),
            operations,
            calls,
            cuts: None,
            kept: KeptEgresses::default(),
            effects: Effects::default(),
            foreseen: Vec::new(),
            loads: Loads::default(),
            spans: Spans::default(),
        };
        dispatcher.make_entries();
        dispatcher
    }

    /// Makes an entry for every name known so far.
    fn make_entries(&mut self) {
        for index in self.entries.len()..self.names.len() {
            let name = self.names.name(index as TypeIndex);
            let exact = self.bound.functions.iter().find(|(bound, _)| *bound == name);
            let body = exact.map(|(_, body)| body).or_else(|| {
                let within = |(bound, _): &&(SmolStr, _)| bound == name.namespace();
                self.bound.namespaces.iter().find(within).map(|(_, body)| body)
            });
            let body = body.cloned();
            let state = body.as_ref().map(|body| {
                let mut state = FunctionState::new(&body.values, body.registry);
                self.keep_cuts_of(&mut state);
                state.watch(self.egresses.watched_of(&name));
                state
            });
            let state = state.unwrap_or_default();
            self.entries.push(Entry {
                body,
                is_egress: false,
                unbound: None,
                state,
                remote_states: Vec::new(),
                meters: Meters::default(),
                counts: Counts::default(),
            });
        }
    }

    /// Which of two messages of one ingress time and depth is handled first, where that matters: the
    /// one whose caller comes first. Those without a caller come before all others.
    pub(crate) fn compare(&self, one: &Head, other: &Head) -> Ordering {
        let same_type =
            one.names.is_none() && other.names.is_none() && one.caller_type == other.caller_type;
        let by_type = match same_type {
            true => Ordering::Equal,
            false => self.names.caller_name(one).cmp(&self.names.caller_name(other)),
        };
        by_type.then_with(|| one.caller.cmp(&other.caller))
    }

    /// Says what time it is. Time does not go back: an earlier one is ignored.
    pub(crate) fn note_time(&mut self, now_ms: u64) {
        self.now_ms = self.now_ms.max(now_ms);
    }

    /// Handles one message.
    // Part of the loop that calls it: a call would move the message once more.
    #[inline(always)]
    pub(crate) fn deliver<S>(&mut self, mut routed: Routed<M>, outside: &mut S) -> Verdict
    where
        S: Surroundings<M, T, Held = H>,
    {
        self.resolve(&mut routed.head);
        self.loads.note(routed.head.hash);
        let counts = &mut self.entries[routed.head.target_type as usize].counts;
        counts.received += u64::from(!routed.head.again);
        let _inside = self.spans.are_recorded().then(|| self.enter_span(&routed));
        let body = self.entries[routed.head.target_type as usize].body.as_ref();
        if body.is_some_and(|body| matches!(body.code, Code::Remote(_))) {
            return self.deliver_remote(routed, outside);
        }
        let (is_again, attempts) = match self.mailboxes.meet(&routed.head) {
            Arrival::Free => (false, 0),
            Arrival::Again(attempts) => (true, attempts),
            Arrival::Behind => {
                let held = self.put_off(&routed.head, outside);
                self.mailboxes.keep_behind(routed, held);
                return Verdict::Done;
            }
        };
        let result = self.run(&routed, attempts, outside);
        if let Err(failure) = &result
            && let Some(body) = &self.entries[routed.head.target_type as usize].body
            && failure.may_pass
            && body.retry.again_after(failure.attempts)
        {
            let body = Rc::clone(body);
            let held = self.put_off(&routed.head, outside);
            let (attempts, now_ms) = (failure.attempts, self.now_ms);
            tracing::debug!(target = %self.names.target(&routed.head), reason = %failure.reason, attempts, "a message will be tried again");
            self.mailboxes.keep_failed(routed, held, attempts, &body.retry, now_ms);
            return Verdict::GivenUp;
        }
        if is_again && !matches!(&result, Err(Failure { on_failure: OnFailure::Stop, .. })) {
            let places = |held: &H| outside.place(held);
            let next = self.mailboxes.next_behind(&routed.head, pen(&mut self.cuts), &places);
            if let Some((behind, held)) = next {
                outside.resume_first(held, behind);
            }
        }
        match result {
            Ok(()) => Verdict::Done,
            Err(failure) => self.fail(routed, failure, outside.time()),
        }
    }

    /// Does with a message that failed what its function's policy says.
    fn fail(&mut self, routed: Routed<M>, failure: Failure, time: &T) -> Verdict {
        let Failure { reason, attempts, on_failure, .. } = failure;
        match on_failure {
            OnFailure::Stop => self.stop(&routed.head, reason),
            OnFailure::DeadLetter => self.give_up(routed, reason, attempts, time),
            OnFailure::Skip => {
                let target = self.names.target(&routed.head);
                tracing::info!(%target, %reason, attempts, "a message was skipped");
                self.note_ended(&routed.head, Ended::Skipped, &reason);
                Verdict::GivenUp
            }
        }
    }

    /// Keeps a message's time while it waits, unless its function is detached.
    fn put_off<S>(&self, head: &Head, outside: &mut S) -> Option<H>
    where
        S: Surroundings<M, T, Held = H>,
    {
        let body = self.entries[head.target_type as usize].body.as_ref();
        if body.is_some_and(|body| body.detached) {
            outside.expect_event();
            None
        } else {
            Some(outside.put_off(head.depth == 0))
        }
    }

    /// Makes sure that the numbers in a message's head mean something here.
    #[inline]
    fn resolve(&mut self, head: &mut Head) {
        if let Some(names) = head.names.take() {
            head.target_type = self.names.index(&names.0);
            head.caller_type = names.1.as_ref().map_or(NOBODY, |name| self.names.index(name));
        }
        if head.target_type as usize >= self.entries.len() {
            self.make_entries();
        }
    }

    /// Runs the function of a message and makes what it did last, or undoes it. `attempts` were made
    /// before.
    #[inline]
    fn run<S>(&mut self, routed: &Routed<M>, attempts: u32, outside: &mut S) -> Result<(), Failure>
    where
        S: Surroundings<M, T, Held = H>,
    {
        let head = &routed.head;
        let Some(body) = self.entries[head.target_type as usize].body.clone() else {
            return Err(Failure::untried(Reason::NotBound));
        };
        let Code::Embedded(run) = &body.code else { unreachable!("the function is embedded") };
        if head.depth > self.bound.depth_max {
            return Err(Failure::untried(Reason::TooDeep(self.bound.depth_max)));
        }
        self.run_as(head, attempts, outside, |context| run(context, &routed.message))
    }

    /// Has `act` do what there is to do at an address, and makes what it did last, or undoes it.
    #[inline]
    fn run_as<S>(
        &mut self,
        head: &Head,
        attempts: u32,
        outside: &mut S,
        act: impl FnOnce(&mut Context<'_, M, T>) -> Result<(), Reason>,
    ) -> Result<(), Failure>
    where
        S: Surroundings<M, T, Held = H>,
    {
        let entry = &mut self.entries[head.target_type as usize];
        let Entry { body, state, meters, counts, .. } = entry;
        let Some(body) = body else { return Err(Failure::untried(Reason::NotBound)) };
        let cut_bytes = state.cut_bytes();
        let mut cursor = state.seek(&head.target, head.hash, self.now_ms);
        let mut mistake = None;
        let (later, effects) = (&self.later, &mut self.effects);
        let mut reached = Reached { outside, later, effects, sent_here: 0, sent_away: 0 };
        let mut context = Context {
            head,
            now_ms: self.now_ms,
            cursor: &mut cursor,
            state: &mut *state,
            names: &mut self.names,
            meters,
            egresses: &mut self.egresses,
            reach: &mut reached,
            delayed_max: self.bound.delayed_messages_max,
            operations: body.operations_max > 0,
            mistake: &mut mistake,
        };
        let run = AssertUnwindSafe(|| act(&mut context));
        let result = match catch_unwind(run) {
            Ok(result) => result,
            Err(panic) => Err(Reason::Panicked(panic_message(&*panic))),
        };
        let misused = mistake.is_some();
        // A mistake comes before whatever the function made of its consequences.
        let mut result = mistake.map_or(result, Err);
        let is_watched = state.is_watched();
        if is_watched && result.is_ok() {
            result = state.gather(&head.target).map_err(|reason| *reason);
        }
        match result {
            Ok(()) => {
                state.commit(cursor);
                counts.sent_here += u64::from(reached.sent_here);
                counts.sent_away += u64::from(reached.sent_away);
                counts.emitted += u64::from(self.egresses.emitted());
                if is_watched {
                    self.egresses.put_changes(state, reached.outside.time());
                }
                note_bytes(&mut self.cuts, cut_bytes, state);
                if !self.kept.is_empty() {
                    self.keep_emitted(head);
                }
                if self.egresses.are_held() {
                    self.note_emitter(head);
                }
                self.egresses.commit();
                if !self.effects.is_empty() {
                    self.take_effect(head, outside);
                }
                Ok(())
            }
            Err(reason) => {
                state.rollback(cursor);
                counts.failures += 1;
                // What was adopted may have been written.
                note_bytes(&mut self.cuts, cut_bytes, state);
                self.egresses.rollback();
                if !self.effects.is_empty() {
                    self.effects.clear();
                }
                let may_pass = !misused && !matches!(reason, Reason::WrongInput(_));
                let on_failure = body.on_failure;
                Err(Failure { reason, attempts: attempts + 1, on_failure, may_pass })
            }
        }
    }

    /// Makes delayed messages and asynchronous operations of an invocation take effect.
    #[cold]
    fn take_effect<S>(&mut self, head: &Head, outside: &mut S)
    where
        S: Surroundings<M, T, Held = H>,
    {
        self.later.apply(self.effects.take_delayed(), pen(&mut self.cuts));
        if self.later.len() > 0 {
            outside.expect_event();
        }
        let function = self.names.function(head.target_type) as usize;
        let body = self.entries[head.target_type as usize].body.as_ref();
        let detached = body.is_some_and(|body| body.detached);
        for started in self.effects.started.drain(..) {
            if detached {
                outside.expect_event();
            }
            let held = (!detached).then(|| outside.hold());
            self.operations.begin(function, head.clone(), held, started);
        }
    }

    /// Brings in what is due: delayed messages, and messages that are tried again. Gives back what
    /// has expired.
    pub(crate) fn poll<E: Entrance<M, T, Held = H>>(&mut self, entrance: &mut E) {
        while entrance.room() > 0 {
            let places = |held: &H| entrance.place(held);
            let next = self.mailboxes.next_due(self.now_ms, pen(&mut self.cuts), &places);
            let Some((routed, held)) = next else { break };
            entrance.resume_first(held, routed);
        }
        self.hurrying = self.bound.hurry_at_close && entrance.ingress_is_over();
        let until = if self.hurrying { u64::MAX } else { self.now_ms };
        while self.later.len() > 0
            && entrance.room() > 0
            && let Some(routed) = self.later.next_due(until, pen(&mut self.cuts))
        {
            entrance.event(routed);
        }
        let time = entrance.event_time();
        self.expire(EXPIRED_AT_ONCE, time.as_ref());
    }

    /// Brings in the outcome of an asynchronous operation. `Err` tells why there is none, and stops
    /// the program.
    pub(crate) fn end_operation<E: Entrance<M, T, Held = H>>(
        &mut self,
        key: OperationKey,
        outcome: Result<M, String>,
        entrance: &mut E,
    ) -> Verdict {
        match outcome {
            Ok(message) => {
                let places = |held: &H| entrance.place(held);
                let cuts = pen(&mut self.cuts);
                let (routed, held) = self.operations.end(key, message, cuts, &places);
                entrance.resume(held, routed);
                Verdict::Done
            }
            Err(reason) => {
                let head = self.operations.end_without(key);
                self.stop(&head, Reason::NoResult(reason))
            }
        }
    }

    /// Operations to start now.
    #[inline]
    pub(crate) fn startable(&mut self) -> Vec<(OperationKey, Task<M>)> {
        self.operations.slots.take_startable()
    }

    /// Tells, once each, the functions whose ingress must begin or cease to be held back.
    pub(crate) fn held_back_changed(&mut self, changed: &mut dyn FnMut(u32, bool)) {
        self.operations.slots.held_back_changed(changed);
        self.calls.slots.held_back_changed(changed);
    }

    /// Whether messages will be brought in as new events.
    pub(crate) fn awaits_events(&self) -> bool {
        self.later.len() > 0
            || self.mailboxes.await_events()
            || self.operations.await_events()
            || self.calls.await_events()
    }

    /// When to poll again, in milliseconds since 1970.
    pub(crate) fn wake_at(&self) -> Option<u64> {
        // What is not waited for is due, whatever the clock shows.
        let later = match self.hurrying && self.later.len() > 0 {
            true => Some(self.now_ms),
            false => self.later.wake_at(),
        };
        let later = later.into_iter();
        later.chain(self.mailboxes.wake_at()).chain(self.next_expiry()).min()
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
    pub(crate) fn refuse(&mut self, mut routed: Routed<M>, time: &T) -> Verdict {
        self.resolve(&mut routed.head);
        match self.bound.when_full {
            OnFailure::Stop => self.stop(&routed.head, Reason::Full),
            OnFailure::DeadLetter => self.give_up(routed, Reason::Full, 0, time),
            OnFailure::Skip => {
                self.note_ended(&routed.head, Ended::Skipped, &Reason::Full);
                Verdict::GivenUp
            }
        }
    }

    fn note_ended(&mut self, head: &Head, how: Ended, why: &Reason) {
        self.entries[head.target_type as usize].counts.note_ended(how, why.kind());
    }

    /// Hands over what was emitted, in order.
    pub(crate) fn drain_egresses(&mut self, receive: &mut dyn FnMut(&T, Batch)) {
        self.egresses.drain(receive);
    }

    /// How many records have left an egress.
    pub(crate) fn has_left(&self, egress: usize) -> u64 {
        self.egresses.left(egress)
    }

    fn stop(&self, head: &Head, reason: Reason) -> Verdict {
        let worker = self.bound.worker;
        Verdict::Stop(Stopped { address: Some(self.names.target(head)), reason, worker })
    }

    fn give_up(&mut self, routed: Routed<M>, reason: Reason, attempts: u32, time: &T) -> Verdict {
        let Routed { head, message } = routed;
        self.note_ended(&head, Ended::DeadLetter, &reason);
        let target = self.names.target(&head);
        let caller = self.names.caller(&head);
        if !self.egresses.dead_letters_are_read() {
            tracing::warn!(%target, %reason, attempts, "a message was given up");
        }
        let letter = DeadLetter { target, caller, message, reason, attempts };
        self.egresses.dead_letter(time.clone(), letter);
        Verdict::GivenUp
    }
}

pub(crate) fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => (*text).to_owned(),
        (_, Some(text)) => text.clone(),
        _ => "no message".to_owned(),
    }
}

#[cfg(test)]
mod tests;

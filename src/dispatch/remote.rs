//! Messages of remote functions: what they wait for, what is asked, and what an answer does.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use bytes::Bytes;

use super::calls::{
    BatchLimits, CallAnswer, CallDelayed, CallEffects, CallFailure, CallKey, CallRequest, First,
    Kept, RemoteState,
};
use super::context::Context;
use super::cuts::{note_bytes, pen};
use super::{
    Dispatcher, Entrance, Entry, Failure, Routed, Surroundings, TypeIndex, Verdict, panic_message,
};
use crate::dead_letter::{OnFailure, Reason};
use crate::function::{Body, Code, RemoteCode};
use crate::message::Mismatch;
use crate::typed::TypedValue;
use crate::value::ValueSpec;

/// How a remote function's states are kept: as the bytes that it gave.
fn spec(state: &RemoteState) -> ValueSpec<Bytes, &str> {
    ValueSpec::raw(&state.name, &state.type_name).expiring(state.expiration)
}

fn limits<M, T>(code: &RemoteCode<M>, body: &Body<M, T>) -> BatchLimits {
    BatchLimits {
        mixes_times: body.join.is_some(),
        messages_max: code.endpoint.options.batch_messages_max,
        bytes_max: code.endpoint.options.batch_bytes_max,
        rounds_max: code.endpoint.options.incomplete_max,
    }
}

/// The value that a remote function gets for a message.
pub(super) fn convert<M>(code: &RemoteCode<M>, message: &M) -> Result<TypedValue, Reason> {
    match catch_unwind(AssertUnwindSafe(|| (code.to_typed)(message))) {
        Ok(value) => value.map_err(Reason::WrongInput),
        Err(panic) => Err(Reason::Panicked(panic_message(&*panic))),
    }
}

impl<M, T> Entry<M, T> {
    fn remote(&self) -> Option<&RemoteCode<M>> {
        match &self.body.as_ref()?.code {
            Code::Remote(code) => Some(code),
            Code::Embedded(_) | Code::Awaited(_) => None,
        }
    }
}

impl<M: 'static, T: Clone + PartialEq + 'static, H> Dispatcher<M, T, H> {
    /// Handles a message of a remote function: it waits for its call, or stands for a batch that was
    /// answered.
    pub(super) fn deliver_remote<S>(&mut self, routed: Routed<M>, outside: &mut S) -> Verdict
    where
        S: Surroundings<M, T, Held = H>,
    {
        if routed.head.again {
            return self.apply(routed, outside);
        }
        let entry = &self.entries[routed.head.target_type as usize];
        let code = entry.remote().expect("the function is remote");
        let converted = match routed.head.depth > self.bound.depth_max {
            true => Err(Failure::untried(Reason::TooDeep(self.bound.depth_max))),
            false => convert(code, &routed.message).map_err(|reason| Failure {
                on_failure: code.endpoint.options.on_failure,
                ..Failure::untried(reason)
            }),
        };
        match converted {
            Ok(value) => {
                let mut held = self.put_off(&routed.head, outside);
                // A call that was restored may be answered before what waited with it has been handled.
                let first =
                    self.calls.answered(&routed.head).and_then(|first| first.stood.as_ref());
                if let (Some(first), Some(held)) = (first, &mut held) {
                    outside.stand_behind(first, held);
                }
                let (function, time) = (routed.head.target_type, outside.time().clone());
                let function = self.names.function(function) as usize;
                self.calls.push(function, Kept { routed, value, time, held });
                Verdict::Done
            }
            Err(failure) => self.fail(routed, failure, outside.time()),
        }
    }

    /// Gives the requests to make now, each with the function's number.
    pub(crate) fn requests(&mut self, to: &mut impl FnMut(CallKey, usize, CallRequest<'_>)) {
        for key in self.calls.slots.take_startable() {
            self.request(key, to);
        }
    }

    fn request(&mut self, key: CallKey, to: &mut impl FnMut(CallKey, usize, CallRequest<'_>)) {
        let function = self.calls.function_type(key) as usize;
        let Entry { body, state, remote_states, counts, .. } = &mut self.entries[function];
        let body = body.as_ref().expect("it is bound");
        let Code::Remote(code) = &body.code else {
            unreachable!("only remote functions are called")
        };
        let batch = self.calls.batch(key, &limits(code, body));
        counts.note_batch(batch.len());
        let head = &batch[0].routed.head;
        let cut_bytes = state.cut_bytes();
        let cursor = state.seek(&head.target, head.hash, self.now_ms);
        let states = remote_states.iter().map(|kept| {
            let bytes = state.get(&cursor, spec(kept)).expect("it was registered so").cloned();
            (&*kept.name, &*kept.type_name, bytes)
        });
        let states = states.collect();
        let target = self.names.target(head);
        let messages = batch.iter().map(|kept| (self.names.caller(&kept.routed.head), &kept.value));
        let traced = self.spans.of_batch(batch.iter().map(|kept| &kept.routed.message));
        let request = CallRequest { target, states, messages: messages.collect(), traced };
        // To read a state may be to keep it for longer.
        state.commit(cursor);
        note_bytes(&mut self.cuts, cut_bytes, state);
        let function = self.names.function(function as u32) as usize;
        to(key, function, request);
    }

    /// Notes that so many attempts at a call failed, whatever became of it.
    pub(crate) fn note_failed_attempts(&mut self, key: CallKey, attempts: u32) {
        let called = self.calls.function_type(key) as usize;
        self.entries[called].counts.call_failures += u64::from(attempts);
    }

    /// Notes how a call ended.
    pub(crate) fn end_call<E: Entrance<M, T, Held = H>>(
        &mut self,
        key: CallKey,
        answer: Result<CallAnswer, CallFailure>,
        entrance: &mut E,
    ) {
        let answer = match answer {
            Ok(CallAnswer::Done(effects)) => Ok(effects),
            Ok(CallAnswer::Incomplete(states)) => match self.register(key, states) {
                Ok(()) => return self.calls.slots.start_again(key),
                Err(reason) => {
                    let reason = self.of_answer(self.calls.function_type(key), reason);
                    Err(CallFailure { reason, is_of_messages: false })
                }
            },
            Err(failure) => Err(failure),
        };
        // What takes effect for messages of several times does so when all of them are over. Until it
        // has, all those times are held.
        let body = self.entries[self.calls.function_type(key) as usize].body.as_ref();
        let join = body.and_then(|body| body.join).filter(|_| answer.is_ok());
        let joined = join.and_then(|join| self.calls.joined(key, join));
        let places = |held: &H| entrance.place(held);
        let kept = self.calls.answer(key, answer, pen(&mut self.cuts), &places);
        let Kept { routed, held, .. } = kept;
        let mut passes = true;
        if let Some(first) = &held {
            self.calls.behind(key).for_each(|behind| passes &= entrance.let_pass(first, behind));
        }
        match (joined, held) {
            (Some(joined), Some(held)) => {
                let later = entrance.hold_later(&held, joined);
                self.calls.keep_first(key, held);
                entrance.resume(Some(later), routed);
            }
            (_, held) if passes => entrance.resume(held, routed),
            (_, held) => entrance.resume_first(held, routed),
        }
    }

    /// A reason that says whose answer it is about.
    fn of_answer(&self, function: TypeIndex, reason: Reason) -> Reason {
        let code = self.entries[function as usize].remote().expect("the function is remote");
        let url = code.endpoint.shown_for(self.names.name(function).name());
        Reason::Answer { url: url.into(), why: Box::new(reason) }
    }

    /// Registers the states that a function says it keeps.
    fn register(&mut self, key: CallKey, states: Vec<RemoteState>) -> Result<(), Reason> {
        let entry = &mut self.entries[self.calls.function_type(key) as usize];
        let code = entry.remote().expect("the function is remote");
        let limits = limits(code, entry.body.as_ref().expect("it is bound"));
        if !self.calls.may_ask_again(key, &limits) {
            return Err(Reason::Incomplete(limits.rounds_max));
        }
        // What is wrong with one of them must not leave the others behind.
        let before = entry.remote_states.len();
        let mut known = entry.remote_states.clone();
        for wanted in states {
            match known.iter().find(|known| known.name == wanted.name) {
                Some(known) if known.type_name == wanted.type_name => {}
                Some(known) => {
                    return Err(Reason::StateType {
                        state: wanted.name.into(),
                        declared: known.type_name.as_str().into(),
                        used: wanted.type_name.into(),
                    });
                }
                None => known.push(wanted),
            }
        }
        let head = self.calls.first_head(key);
        let cut_bytes = entry.state.cut_bytes();
        let cursor = entry.state.seek(&head.target, head.hash, self.now_ms);
        let get = |wanted| entry.state.get(&cursor, spec(wanted)).map(drop);
        let registered = known[before..].iter().try_for_each(get);
        match &registered {
            Ok(()) => entry.state.commit(cursor),
            Err(_) => entry.state.rollback(cursor),
        }
        note_bytes(&mut self.cuts, cut_bytes, &entry.state);
        registered.map_err(|reason| *reason)?;
        entry.remote_states = known;
        Ok(())
    }

    /// Makes what an answer says happen, altogether or not at all.
    fn apply<S>(&mut self, mut routed: Routed<M>, outside: &mut S) -> Verdict
    where
        S: Surroundings<M, T, Held = H>,
    {
        routed.head.again = false;
        let entry = &self.entries[routed.head.target_type as usize];
        let code = entry.remote().expect("the function is remote");
        let (on_failure, states) = (code.endpoint.options.on_failure, entry.remote_states.clone());
        let body = entry.body.clone().expect("it is bound");
        let Code::Remote(code) = &body.code else { unreachable!("the function is remote") };
        let answer = self.calls.take_answer(&routed.head);
        let First { depth, came, stood, held: first } = self.calls.take_first(&routed.head);
        let result = match answer {
            Ok(effects) => {
                let act = |context: &mut Context<'_, M, T>| context.apply(effects, code, &states);
                let result = self.run_as(&routed.head, 0, outside, act);
                let of_answer = |reason| self.of_answer(routed.head.target_type, reason);
                result.map_err(|failure| (of_answer(failure.reason), true))
            }
            Err(failure) => Err((failure.reason, failure.is_of_messages)),
        };
        match result {
            Ok(()) => {
                let places = |held: &H| outside.place(held);
                let cuts = pen(&mut self.cuts);
                let others = self.calls.finish(&routed.head, true, cuts, &places).into_iter();
                let held = others.filter_map(|kept| kept.held).chain(first);
                held.for_each(|held| outside.release(held));
                Verdict::Done
            }
            Err((_, true)) if self.calls.others(&routed.head) > 0 => {
                let value = (code.to_typed)(&routed.message).expect("it was converted before");
                routed.head.depth = depth;
                let (time, held) = match (stood, first) {
                    (Some(place), Some(held)) => (place.time, Some(held)),
                    _ => {
                        let time = came.unwrap_or_else(|| outside.time().clone());
                        (time, self.put_off(&routed.head, outside))
                    }
                };
                self.calls.halve(Kept { routed, value, time, held });
                Verdict::GivenUp
            }
            Err((reason, _)) => {
                // Those that were in the same call share its fate.
                let batch = if on_failure == OnFailure::Stop {
                    Vec::new()
                } else {
                    let places = |held: &H| outside.place(held);
                    self.calls.finish(&routed.head, false, pen(&mut self.cuts), &places)
                };
                for Kept { routed, time, held, .. } in batch {
                    let failure =
                        Failure { attempts: 1, on_failure, ..Failure::untried(reason.clone()) };
                    match held {
                        Some(held) => {
                            self.fail(routed, failure, &time);
                            outside.release(held);
                        }
                        // Nothing holds the time at which it came.
                        None => _ = self.fail(routed, failure, outside.time()),
                    }
                }
                let failure = Failure { attempts: 1, on_failure, ..Failure::untried(reason) };
                let verdict = match &stood {
                    Some(place) => self.fail(routed, failure, &place.time),
                    None => self.fail(routed, failure, outside.time()),
                };
                // A time at which a program stops stays held.
                if let (Some(held), Verdict::GivenUp) = (first, &verdict) {
                    outside.release(held);
                }
                verdict
            }
        }
    }
}

impl<M: 'static, T: Clone + PartialEq + 'static> Context<'_, M, T> {
    /// Does what a remote function says it did.
    fn apply(
        &mut self,
        effects: CallEffects,
        code: &RemoteCode<M>,
        states: &[RemoteState],
    ) -> Result<(), Reason> {
        let message = |value: TypedValue| -> Result<M, Reason> {
            (code.from_typed)(value).map_err(|mismatch: Mismatch| Reason::WrongOutput(mismatch))
        };
        for (target, value) in effects.sent {
            self.forward(target, message(value)?);
        }
        for delayed in effects.delayed {
            match delayed {
                CallDelayed::Cancel(token) => drop(self.cancel(&token)),
                CallDelayed::Send { delay_ms, token, target, message: value } => {
                    let delay = Duration::from_millis(delay_ms);
                    self.forward_after(token.as_deref(), delay, target, message(value)?)
                        .map_err(|in_use| Reason::Failed(in_use.to_string()))?;
                }
            }
        }
        for (egress, value) in effects.emitted {
            self.emit_typed(egress.as_str(), value);
        }
        for (name, value) in effects.states {
            let Some(state) = states.iter().find(|state| state.name == name) else {
                return Err(Reason::UndeclaredState(name));
            };
            if let Some(value) = &value
                && value.type_name() != state.type_name
            {
                return Err(Reason::StateType {
                    state: name.into(),
                    declared: state.type_name.as_str().into(),
                    used: value.type_name().into(),
                });
            }
            self.put(spec(state), value.map(|value| value.bytes().clone()));
        }
        Ok(())
    }
}

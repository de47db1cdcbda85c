//! The two functions of the job: a person for each phone, which finds the calls that lead to one
//! another, and a call for each record, which finds out which cascade it is in.
//!
//! Neither depends on the order in which messages reach it. Neither knows of lines or workers.

use std::cell::Cell;
use std::rc::Rc;

use serde::{Deserialize, Serialize};
use timely_statefun::{
    Carries, Context, Egress, Function, FunctionType, Functions, Mismatch, ValueSpec,
};

pub const PERSON: FunctionType<ToPerson> = FunctionType::new("telephony/person");
pub const CALL: FunctionType<ToCall> = FunctionType::new("telephony/call");

/// Each pair of calls of which the first leads to the second, once.
pub const LINKS: Egress<(u64, u64)> = Egress::new("telephony/links");
/// Which call is in which cascade: changes of `(call, label)`, with their times.
pub const MEMBERS: Egress<((u64, u64), u64, isize)> = Egress::new("telephony/members");

const CALLS: ValueSpec<Calls> = ValueSpec::typed("calls", "telephony/calls");
const LABEL: ValueSpec<Label> = ValueSpec::typed("label", "telephony/label");
const NEIGHBOURS: ValueSpec<Vec<u64>> = ValueSpec::typed("neighbours", "telephony/neighbours");

/// What functions are told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Message {
    Person(ToPerson),
    Call(ToCall),
}

/// What a person is told: a call of theirs.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum ToPerson {
    Received { call: u64, end: u64 },
    Placed { call: u64, start: u64 },
}

/// What a call is told.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum ToCall {
    /// This call leads to it, or follows it.
    Linked { neighbour: u64 },
    /// A neighbour knows that it is in one cascade with this call.
    Label(u64),
}

impl Carries<ToPerson> for Message {
    fn pack(told: ToPerson) -> Self {
        Message::Person(told)
    }

    fn unpack<R>(&self, read: impl FnOnce(&ToPerson) -> R) -> Result<R, Mismatch> {
        match self {
            Message::Person(told) => Ok(read(told)),
            Message::Call(_) => Err(Mismatch::new("a call of a person", "a word to a call")),
        }
    }
}

impl Carries<ToCall> for Message {
    fn pack(told: ToCall) -> Self {
        Message::Call(told)
    }

    fn unpack<R>(&self, read: impl FnOnce(&ToCall) -> R) -> Result<R, Mismatch> {
        match self {
            Message::Call(told) => Ok(read(told)),
            Message::Person(_) => Err(Mismatch::new("a word to a call", "a call of a person")),
        }
    }
}

/// The calls of a person that others may still be linked to.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Calls {
    /// Calls received, with their ends.
    received: Vec<(u64, u64)>,
    /// Calls placed, with their starts.
    placed: Vec<(u64, u64)>,
}

/// The cascade that a call is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Label {
    /// The smallest call known to be in it.
    smallest: u64,
    /// When this was last found out anew.
    since: u64,
}

/// The functions and egresses of the job. See [`bodies`].
#[allow(dead_code)]
pub fn functions(window: u64, kept_max: Rc<Cell<usize>>) -> Functions<Message> {
    bodies(window, kept_max).persisted_egress(LINKS).persisted_updates(MEMBERS)
}

/// The functions of the job, without what they emit to. `kept_max` becomes the most calls that one person of this
/// worker kept from one message to the next.
pub fn bodies(window: u64, kept_max: Rc<Cell<usize>>) -> Functions<Message> {
    let person = Function::new(move |context, told| {
        let kept = hear_of_call(context, told, window);
        // A measure of the run and not state: nothing a function does depends on it.
        kept_max.set(kept_max.get().max(kept));
        Ok(())
    });
    let call = Function::new(|context, told| {
        match *told {
            ToCall::Linked { neighbour } => join(context, neighbour),
            ToCall::Label(label) => take_label(context, label),
        }
        Ok(())
    });
    Functions::new()
        .named("cascades")
        .embedded(PERSON, person.value(CALLS))
        .embedded(CALL, call.value(LABEL).value(NEIGHBOURS))
}

/// Whether a call that ended at `end` leads to one of its callee's that starts at `start`.
fn leads(end: u64, start: u64, window: u64) -> bool {
    start.checked_sub(end).is_some_and(|gap| gap < window)
}

/// Links a call of a person with those that the person remembers, remembers it as long as others
/// may be linked to it, and says how many are remembered then.
fn hear_of_call(context: &mut Context<'_, Message>, told: &ToPerson, window: u64) -> usize {
    let mut calls = context.get(CALLS).cloned().unwrap_or_default();
    // Each pair is found by whichever of the two comes second, so no order is missed and none is
    // found twice. A person who calls themself may meet one call on both sides; it does not lead to
    // itself.
    match *told {
        ToPerson::Received { call, end } => {
            for &(next, start) in &calls.placed {
                if next != call && leads(end, start, window) {
                    link(context, call, next);
                }
            }
            calls.received.push((call, end));
        }
        ToPerson::Placed { call, start } => {
            for &(before, end) in &calls.received {
                if before != call && leads(end, start, window) {
                    link(context, before, call);
                }
            }
            calls.placed.push((call, start));
        }
    }

    // All records to come start at the frontier or later. A received call can be forgotten when none
    // of them starts within its window; a placed call when none of them can end before it.
    let frontier = context.frontier().first().copied();
    calls
        .received
        .retain(|&(_, end)| frontier.is_some_and(|first| first < end || leads(end, first, window)));
    calls.placed.retain(|&(_, start)| frontier.is_some_and(|first| first <= start));
    let first = frontier.map_or(u128::MAX, u128::from);
    for &(call, end) in &calls.received {
        let passed = u128::from(end) + u128::from(window);
        assert!(passed > first, "call {call} is kept until {passed} at {frontier:?}");
    }
    for &(call, start) in &calls.placed {
        assert!(u128::from(start) >= first, "call {call} of {start} is kept at {frontier:?}");
    }

    let kept = calls.received.len() + calls.placed.len();
    if kept == 0 {
        context.clear(CALLS);
    } else {
        context.set(CALLS, calls);
    }
    kept
}

fn link(context: &mut Context<'_, Message>, before: u64, next: u64) {
    context.emit(LINKS, (before, next));
    context.send(CALL, before, ToCall::Linked { neighbour: next });
    context.send(CALL, next, ToCall::Linked { neighbour: before });
}

fn own(context: &Context<'_, Message>) -> u64 {
    context.id().as_number().expect("calls are numbered")
}

/// Remembers a neighbour and tells it what this call knows. What this call finds out later it tells
/// all its neighbours, so that both ends of a link agree when no message is under way.
fn join(context: &mut Context<'_, Message>, neighbour: u64) {
    context.update(NEIGHBOURS, |neighbours| {
        if !neighbours.contains(&neighbour) {
            neighbours.push(neighbour);
        }
    });
    let label = match context.get(LABEL) {
        Some(label) => label.smallest,
        None => {
            let own = own(context);
            change_label(context, None, own);
            own
        }
    };
    context.send(CALL, neighbour, ToCall::Label(label));
}

/// Takes a smaller label than this call has, and hands it on.
fn take_label(context: &mut Context<'_, Message>, label: u64) {
    // A label can overtake the word that there is a link; it is taken all the same.
    let before = context.get(LABEL).copied();
    let smallest = before.map_or_else(|| own(context), |before| before.smallest).min(label);
    if before.is_some_and(|before| before.smallest == smallest) {
        return;
    }
    change_label(context, before, smallest);
    let neighbours = context.get(NEIGHBOURS).cloned().unwrap_or_default();
    for neighbour in neighbours {
        context.send(CALL, neighbour, ToCall::Label(smallest));
    }
}

/// Moves this call from one cascade to another.
fn change_label(context: &mut Context<'_, Message>, before: Option<Label>, smallest: u64) {
    // Messages of a later time can be handled before those of an earlier one. Were the second change
    // put before the first, the call would be in two cascades in between, or in none.
    let since = before.map_or(0, |before| before.since).max(*context.time());
    let own = own(context);
    if let Some(before) = before {
        context.emit(MEMBERS, ((own, before.smallest), since, -1));
    }
    context.emit(MEMBERS, ((own, smallest), since, 1));
    context.set(LABEL, Label { smallest, since });
}

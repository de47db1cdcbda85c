//! Calls of remote functions: for each address that is not idle, what waits and the one batch that is
//! under way.
//!
//! A remote function is an ordinary address whose messages wait until the one call of that address
//! has been answered. This file decides what is called and what an answer means for those that wait.
//! It knows neither how requests travel nor what applying an answer does.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;

use super::counts::Tally;
use super::pen::{Fault, Pen, Places, Slice};
use super::record::{Note, Standing, Written};
use super::slab::{Marks, Passage, Slab};
use super::slots::Slots;
use super::{Head, Place, Routed, TypeIndex};
use crate::address::{Address, Id, TypeName};
use crate::dead_letter::Reason;
use crate::expiration::Expiration;
use crate::trace::TraceContext;
use crate::typed::TypedValue;

/// Names a call until it is over: the address it is for.
pub(crate) type CallKey = u32;

/// Which trace a call belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Traced {
    /// None, and nothing is said of it.
    #[default]
    No,
    /// One of its own.
    Own,
    /// That of a message.
    In(TraceContext),
}

/// What is asked of a remote function: to handle a batch of messages, given all that is kept for the
/// address.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CallRequest<'a> {
    pub(crate) target: Address,
    /// Every state that is known of the function: its name, the name of its type, and what the address
    /// keeps there.
    pub(crate) states: Vec<(&'a str, &'a str, Option<Bytes>)>,
    /// The messages, each with its caller.
    pub(crate) messages: Vec<(Option<Address>, &'a TypedValue)>,
    pub(crate) traced: Traced,
}

/// What a remote function answers.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum CallAnswer {
    /// It has handled the batch.
    Done(CallEffects),
    /// It must know more of its states before it can.
    Incomplete(Vec<RemoteState>),
}

/// How a call ended, and how many of its attempts failed.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Called {
    pub(crate) answer: Result<CallAnswer, CallFailure>,
    pub(crate) failed: u32,
}

/// What a remote function did with a batch, in the order in which it takes effect.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct CallEffects {
    pub(crate) sent: Vec<(Address, TypedValue)>,
    pub(crate) delayed: Vec<CallDelayed>,
    pub(crate) emitted: Vec<(TypeName, TypedValue)>,
    /// By name; none where it is to be kept no more.
    pub(crate) states: Vec<(String, Option<TypedValue>)>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum CallDelayed {
    Send { delay_ms: u64, token: Option<String>, target: Address, message: TypedValue },
    Cancel(String),
}

/// A state that a remote function keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RemoteState {
    pub(crate) name: String,
    pub(crate) type_name: String,
    pub(crate) expiration: Expiration,
}

/// Why a call came to nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CallFailure {
    pub(crate) reason: Reason,
    /// Whether one of the messages may be to blame: whether it is worth trying fewer of them.
    pub(crate) is_of_messages: bool,
}

/// A message of a remote function.
pub(super) struct Kept<M, T, H> {
    pub(super) routed: Routed<M>,
    pub(super) value: TypedValue,
    pub(super) time: T,
    /// Its ingress time; none if what it causes is a new event.
    pub(super) held: Option<H>,
}

enum Stage {
    /// It waits for a place, or for its request to be made.
    Queued,
    /// It was called so often for the same batch.
    Called(u32),
    Answered(Result<CallEffects, CallFailure>),
}

/// What the first message of a batch is by itself, while it stands for all of them.
pub(super) struct First<T, H> {
    /// How many messages led to it.
    pub(super) depth: u32,
    /// The time at which it came, if nothing holds that.
    pub(super) came: Option<T>,
    /// Where it stood while the call was under way, if its time is held. It comes back one stage later, or at the
    /// time of all of them.
    pub(super) stood: Option<Place<T>>,
    /// Keeps that place, where it comes back at a later time.
    pub(super) held: Option<H>,
}

/// What was counted of an address that is not idle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counted {
    waiting: usize,
    is_blocked: bool,
    is_called: bool,
}

/// An address that is not idle.
struct Busy<M, T, H> {
    function: usize,
    target_type: TypeIndex,
    stage: Stage,
    /// What the call is about, oldest first.
    batch: Vec<Kept<M, T, H>>,
    /// What the first message of the batch is, which was brought in again.
    first: Option<First<T, H>>,
    waiting: VecDeque<Kept<M, T, H>>,
    /// How many messages a batch may have, while the one that fails is looked for.
    messages_max: usize,
    /// Of the batch and then what waits.
    marks: Marks,
    counted: Counted,
}

impl<M, T, H> Busy<M, T, H> {
    fn len(&self) -> usize {
        self.batch.len() + self.waiting.len()
    }

    fn get(&self, at: usize) -> Option<&Kept<M, T, H>> {
        self.batch.get(at).or_else(|| self.waiting.get(at - self.batch.len()))
    }
}

/// Limits on a batch.
#[derive(Copy, Clone, Debug)]
pub(crate) struct BatchLimits {
    pub(crate) messages_max: usize,
    pub(crate) bytes_max: usize,
    /// How often a function may ask for more states about one batch.
    pub(crate) rounds_max: u32,
    /// Whether its messages may be of several times.
    pub(crate) mixes_times: bool,
}

/// The calls of one worker.
pub(super) struct Calls<M, T, H> {
    keys: HashMap<(TypeIndex, Id), CallKey>,
    busy: Slab<Busy<M, T, H>>,
    /// How many messages are kept without a time held for them.
    detached: usize,
    /// Bytes of what is kept, by number of the function.
    bytes: Vec<usize>,
    /// Bytes of one function above which its ingress is held back, until they are below three
    /// quarters of it.
    bytes_soft: usize,
    /// How many messages a call of a function takes, by its number.
    batches: Vec<usize>,
    /// Messages that wait for a call.
    pub(super) backlog: Tally,
    /// Addresses for which as many wait as one call takes, or more.
    pub(super) blocked: Tally,
    /// Calls that have not been answered.
    pub(super) under_way: Tally,
    pub(super) slots: Slots<CallKey>,
    pub(super) passage: Passage,
}

impl<M, T: Clone + PartialEq, H> Calls<M, T, H> {
    /// For functions of which a call takes so many messages, by number.
    pub(super) fn new(slots: Slots<CallKey>, batches: Vec<usize>, bytes_soft: usize) -> Self {
        Calls {
            keys: HashMap::new(),
            busy: Slab::default(),
            detached: 0,
            bytes: vec![0; batches.len()],
            bytes_soft,
            batches,
            backlog: Tally::default(),
            blocked: Tally::default(),
            under_way: Tally::default(),
            slots,
            passage: Passage::default(),
        }
    }

    /// Counts an address as it is now, after it has changed.
    fn count(&mut self, key: CallKey) {
        let busy = self.busy.get_mut(key).expect("the key names an address that is not idle");
        let now = Counted {
            waiting: busy.waiting.len(),
            is_blocked: busy.waiting.len() >= self.batches[busy.function],
            is_called: matches!(busy.stage, Stage::Called(_)),
        };
        let (of, before) = (busy.target_type, std::mem::replace(&mut busy.counted, now));
        self.backlog.replace(of, before.waiting, now.waiting);
        self.blocked.replace(of, before.is_blocked.into(), now.is_blocked.into());
        self.under_way.replace(of, before.is_called.into(), now.is_called.into());
    }

    /// Notes that something is kept from now on.
    fn weigh(&mut self, function: usize, kept: &Kept<M, T, H>) {
        self.detached += usize::from(kept.held.is_none());
        self.bytes[function] += weight(kept);
        if self.bytes[function] > self.bytes_soft {
            self.slots.set_full(function, true);
        }
    }

    /// Notes that something is kept no more.
    fn unweigh(&mut self, function: usize, kept: &Kept<M, T, H>) {
        self.detached -= usize::from(kept.held.is_none());
        self.bytes[function] -= weight(kept);
        if self.bytes[function] <= self.bytes_soft / 4 * 3 {
            self.slots.set_full(function, false);
        }
    }

    /// Whether answers will come that are new events.
    pub(super) fn await_events(&self) -> bool {
        self.detached > 0
    }

    /// Takes a message in: it is called for now, or waits behind those before it.
    pub(super) fn push(&mut self, function: usize, kept: Kept<M, T, H>) {
        self.weigh(function, &kept);
        let address = address_of(&kept.routed.head);
        if let Some(&key) = self.keys.get(&address) {
            self.touch(key);
            self.busy_mut(key).waiting.push_back(kept);
            return self.count(key);
        }
        let busy = Busy {
            function,
            target_type: kept.routed.head.target_type,
            stage: Stage::Queued,
            batch: Vec::new(),
            first: None,
            waiting: VecDeque::from([kept]),
            messages_max: usize::MAX,
            marks: Marks::new(&self.passage),
            counted: Counted::default(),
        };
        let key = self.busy.insert(busy);
        self.keys.insert(address, key);
        self.count(key);
        self.slots.begin(function, key);
    }

    /// Takes a message in that was stored, before all others of its address or behind them.
    pub(super) fn restore(&mut self, function: usize, kept: Kept<M, T, H>, is_first: bool) {
        match self.keys.get(&address_of(&kept.routed.head)).copied() {
            Some(key) if is_first => {
                self.weigh(function, &kept);
                self.busy_mut(key).waiting.push_front(kept);
                self.count(key);
            }
            _ => self.push(function, kept),
        }
    }

    /// How many addresses have messages that wait for a call or for its answer.
    #[cfg(feature = "testing")]
    pub(super) fn len(&self) -> usize {
        self.busy.len()
    }

    fn busy(&self, key: CallKey) -> &Busy<M, T, H> {
        self.busy.get(key).expect("the key names an address that is not idle")
    }

    fn busy_mut(&mut self, key: CallKey) -> &mut Busy<M, T, H> {
        self.busy.get_mut(key).expect("the key names an address that is not idle")
    }

    /// Notes that the messages of an address are about to change. Says whether the open cut needs some
    /// of them.
    fn touch(&mut self, key: CallKey) -> bool {
        let Calls { busy, passage, .. } = self;
        let busy = busy.get_mut(key).expect("the key names an address that is not idle");
        let messages = busy.len();
        passage.touch(key, &mut busy.marks, messages)
    }

    /// Writes the first messages of an address, which are about to be taken off, as far as the open cut
    /// needs them.
    fn write_first(
        &mut self,
        key: CallKey,
        messages: usize,
        mut pen: Option<&mut Pen<M, T>>,
        places: Places<'_, T, H>,
    ) {
        if !self.touch(key) {
            return;
        }
        let busy = self.busy_mut(key);
        for at in 0..messages {
            if busy.marks.pop()
                && let Some(pen) = pen.as_deref_mut()
                && let Some(kept) = busy.get(at)
            {
                pen.keep(&written(kept, places));
            }
        }
    }

    /// The batch to call for next: of one time, within the limits, and not without a message.
    pub(super) fn batch(&mut self, key: CallKey, limits: &BatchLimits) -> &[Kept<M, T, H>] {
        let busy = self.busy_mut(key);
        if busy.batch.is_empty() {
            let most = limits.messages_max.min(busy.messages_max).max(1);
            let mut bytes = 0;
            while let Some(next) = busy.waiting.front() {
                let first = busy.batch.first();
                bytes += next.value.bytes().len();
                let fits = busy.batch.len() < most && bytes <= limits.bytes_max;
                let same = |first: &Kept<_, _, _>| limits.mixes_times || first.time == next.time;
                if first.is_some_and(|first| !fits || !same(first)) {
                    break;
                }
                busy.batch.extend(busy.waiting.pop_front());
            }
        }
        let rounds = if let Stage::Called(rounds) = busy.stage { rounds } else { 0 };
        busy.stage = Stage::Called(rounds + 1);
        self.count(key);
        &self.busy(key).batch
    }

    /// Whether a batch may be called for once more, with more states.
    pub(super) fn may_ask_again(&mut self, key: CallKey, limits: &BatchLimits) -> bool {
        matches!(self.busy_mut(key).stage, Stage::Called(rounds) if rounds <= limits.rounds_max)
    }

    /// The type of the address that a call is for.
    pub(super) fn function_type(&self, key: CallKey) -> TypeIndex {
        self.busy(key).target_type
    }

    /// The first message of the batch that was called for.
    pub(super) fn first_head(&self, key: CallKey) -> &Head {
        &self.busy(key).batch[0].routed.head
    }

    /// The time at which all of a batch takes effect, if that is not the time of its first message.
    pub(super) fn joined(&mut self, key: CallKey, join: fn(&T, &T) -> T) -> Option<T> {
        let mut times = self.busy_mut(key).batch.iter().map(|kept| &kept.time);
        let first = times.next().expect("a batch has a message");
        let joined =
            times.fold(None, |joined, time| Some(join(joined.as_ref().unwrap_or(first), time)));
        joined.filter(|joined| joined != first)
    }

    /// Keeps the time of the first message of a batch that takes effect at a later one.
    pub(super) fn keep_first(&mut self, key: CallKey, held: H) {
        let first = self.busy_mut(key).first.as_mut();
        first.expect("it was answered").held = Some(held);
    }

    /// What the message is by itself that was brought in again.
    pub(super) fn take_first(&mut self, head: &Head) -> First<T, H> {
        let key = self.keys[&address_of(head)];
        self.busy_mut(key).first.take().expect("it comes back when it is answered")
    }

    /// Notes how a call ended. Its first message, which is to be brought in again, stands for all of
    /// them. It is written first, if the open cut needs it.
    pub(super) fn answer(
        &mut self,
        key: CallKey,
        answer: Result<CallEffects, CallFailure>,
        pen: Option<&mut Pen<M, T>>,
        places: Places<'_, T, H>,
    ) -> Kept<M, T, H> {
        self.write_first(key, 1, pen, places);
        let busy = self.busy_mut(key);
        busy.stage = Stage::Answered(answer);
        let depth = busy.batch.iter().map(|kept| kept.routed.head.depth).max().unwrap_or(0);
        let mut first = busy.batch.remove(0);
        let came = first.held.is_none().then(|| first.time.clone());
        let stood = first.held.as_ref().map(places);
        busy.first = Some(First { depth: first.routed.head.depth, came, stood, held: None });
        first.routed.head.again = true;
        first.routed.head.depth = depth;
        let function = busy.function;
        self.count(key);
        self.unweigh(function, &first);
        self.slots.end(function);
        first
    }

    /// The answer to the batch whose first message was brought in again.
    pub(super) fn take_answer(&mut self, head: &Head) -> Result<CallEffects, CallFailure> {
        let key = self.keys[&address_of(head)];
        match std::mem::replace(&mut self.busy_mut(key).stage, Stage::Queued) {
            Stage::Answered(answer) => answer,
            Stage::Queued | Stage::Called(_) => unreachable!("it comes back when it is answered"),
        }
    }

    /// What is held for the messages of an address: those of its batch, and what waits behind them.
    pub(super) fn behind(&mut self, key: CallKey) -> impl Iterator<Item = &mut H> {
        let Busy { batch, waiting, .. } = self.busy_mut(key);
        batch.iter_mut().chain(waiting).filter_map(|kept| kept.held.as_mut())
    }

    /// How many messages the batch has besides its first.
    pub(super) fn others(&mut self, head: &Head) -> usize {
        let key = self.keys[&address_of(head)];
        self.busy_mut(key).batch.len()
    }

    /// Puts a batch that failed back before all that waits; half of it is tried next.
    pub(super) fn halve(&mut self, first: Kept<M, T, H>) {
        let key = self.keys[&address_of(&first.routed.head)];
        let function = self.busy_mut(key).function;
        self.weigh(function, &first);
        let is_cut = self.touch(key);
        let busy = self.busy_mut(key);
        if is_cut {
            // It was written when it was answered, or handed over by the loop.
            busy.marks.placed_first(1);
        }
        busy.messages_max = (busy.batch.len() + 1).div_ceil(2);
        for kept in busy.batch.drain(..).rev() {
            busy.waiting.push_front(kept);
        }
        busy.waiting.push_front(first);
        self.count(key);
        self.slots.begin(function, key);
    }

    /// Ends a batch: returns its messages but the first, and has what waits called for next. They are
    /// written first, as far as the open cut needs them.
    pub(super) fn finish(
        &mut self,
        head: &Head,
        went_well: bool,
        pen: Option<&mut Pen<M, T>>,
        places: Places<'_, T, H>,
    ) -> Vec<Kept<M, T, H>> {
        let address = address_of(head);
        let key = self.keys[&address];
        self.write_first(key, self.busy(key).batch.len(), pen, places);
        let busy = self.busy_mut(key);
        let batch = std::mem::take(&mut busy.batch);
        if went_well {
            // Larger again, but not all at once: the message that fails may be further on.
            busy.messages_max = busy.messages_max.saturating_mul(2);
        }
        let (function, idle) = (busy.function, busy.waiting.is_empty());
        if idle {
            self.busy.remove(key);
            self.keys.remove(&address);
        } else {
            self.slots.begin(function, key);
        }
        batch.iter().for_each(|kept| self.unweigh(function, kept));
        batch
    }

    /// What a message is by itself that was brought in again since its batch was answered.
    pub(super) fn answered(&self, head: &Head) -> Option<&First<T, H>> {
        let key = self.keys.get(&address_of(head))?;
        self.busy(*key).first.as_ref()
    }

    /// Takes a cut, and begins to write it.
    pub(super) fn take_cut(&mut self) {
        self.passage.begin(self.busy.end());
    }

    /// Writes some more of the cut, and says whether that was all of it.
    pub(super) fn walk(
        &mut self,
        slice: &mut Slice<'_, M, T>,
        places: Places<'_, T, H>,
    ) -> Result<bool, Fault> {
        while let Some(key) = self.passage.next() {
            if !slice.has_room() {
                return Ok(false);
            }
            slice.look();
            if let Some(busy) = self.busy.get_mut(key) {
                let messages = busy.len();
                self.passage.arrive(key, &mut busy.marks, messages);
                while let Some(at) = busy.marks.advance() {
                    slice.look();
                    let kept = busy.get(at).expect("what is marked is there");
                    slice.write(&written(kept, places))?;
                    if !slice.has_room() {
                        break;
                    }
                }
                if busy.marks.is_on() {
                    return Ok(false);
                }
            }
            self.passage.pass();
        }
        Ok(true)
    }
}

/// An address, and all messages that are kept for it.
#[cfg(test)]
pub(super) type Listed<'a, M, T, H> = (&'a (TypeIndex, Id), Vec<&'a Kept<M, T, H>>);

#[cfg(test)]
impl<M, T, H> Calls<M, T, H> {
    /// All messages that are kept, by address, those of a batch first.
    pub(super) fn list(&self) -> impl Iterator<Item = Listed<'_, M, T, H>> {
        self.keys.iter().map(|(address, key)| {
            let busy = self.busy.get(*key).expect("the key names an address that is not idle");
            (address, busy.batch.iter().chain(&busy.waiting).collect())
        })
    }

    /// Of each address, its type, how many wait, whether they fill a call, and whether one is under way.
    pub(super) fn recount(&self) -> impl Iterator<Item = (TypeIndex, usize, bool, bool)> {
        self.keys.iter().map(|((of, _), key)| {
            let busy = self.busy.get(*key).expect("the key names an address that is not idle");
            let waiting = busy.waiting.len();
            let is_called = matches!(busy.stage, Stage::Called(_));
            (*of, waiting, waiting >= self.batches[busy.function], is_called)
        })
    }

    /// The first message of a batch that is called for.
    pub(super) fn first(&self, key: CallKey) -> Option<&Kept<M, T, H>> {
        self.busy.get(key)?.batch.first()
    }
}

/// A message as it is written.
fn written<'a, M, T: Clone, H>(
    kept: &'a Kept<M, T, H>,
    places: Places<'_, T, H>,
) -> Written<'a, M, T> {
    let Routed { head, message } = &kept.routed;
    let standing = match &kept.held {
        Some(held) => Standing::Held(places(held)),
        None => Standing::Came(kept.time.clone()),
    };
    let note = Note::InFlight { is_first: false };
    Written { note, head, types: head.types(), standing, message }
}

/// What a message that is kept counts for.
fn weight<M, T, H>(kept: &Kept<M, T, H>) -> usize {
    size_of::<Kept<M, T, H>>() + kept.value.bytes().len()
}

fn address_of(head: &Head) -> (TypeIndex, Id) {
    (head.target_type, head.target.clone())
}

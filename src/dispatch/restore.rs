//! A dispatcher from what was stored of it, by however many workers.
//!
//! What is stored is a chain of cuts: a full one and the deltas that follow it. Of each cut come the parts
//! that workers wrote, and of each part the records of the bins that are wanted, in their order. State is
//! applied as it comes. What waits for a call or for another attempt goes where it waited; what waited
//! in the loop goes back there, and after all else what was logged. Delayed messages are gathered until
//! it is known which of them are there in the end. Their order is that of their due times and identities,
//! whichever parts they come from.
//!
//! Nothing is trusted: whatever a record says, it is brought back or is an error.

use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;

use super::calls::Kept;
use super::record::{
    Attempt, Codecs, Identity, Note, RecordKind, Said, Standing, Stored, Unreadable,
};
use super::types::CutType;
use super::{Dispatcher, Head, NOBODY, Place, Routed, TypeIndex, remote};
use crate::address::{Address, Id, TypeName};
use crate::codec::{Codec, CodecError};
use crate::function::Code;
use crate::functions::OnUnbound;
use crate::placement;
use crate::records::{Damage, Reader};
use crate::state::{self, Conversions, StateHeader};
use crate::value::Value;

/// Where messages go back to that waited in the loop, and what keeps times alive there.
pub(crate) trait Back<M, T> {
    /// Keeps an ingress time alive.
    type Held;

    /// Brings a message back, behind those that were brought back before.
    fn message(&mut self, place: Place<T>, message: Routed<M>);
    /// Holds a time again.
    fn hold(&mut self, place: Place<T>) -> Self::Held;
}

/// Why a dispatcher cannot be restored.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RestoreError {
    /// Functions were bound to these types when they were stored.
    #[error("function types are stored that are not bound: {}", listed(.0))]
    NotBound(Vec<TypeName>),
    /// State does not fit what its function declares, or cannot be read.
    #[error("of function type \"{function_type}\": {why}")]
    State { function_type: TypeName, why: state::RestoreError },
    /// A message cannot be read.
    #[error("a message for \"{address}\" cannot be read: {why}")]
    Message { address: Address, why: CodecError },
    /// The time of something cannot be read.
    #[error("the time of {kind} cannot be read: {why}")]
    Time { kind: RecordKind, why: CodecError },
    #[error("the record of {kind} is damaged: {why}")]
    Damaged { kind: RecordKind, why: Damage },
    #[error("a table of function types is damaged: {0}")]
    Table(Damage),
}

fn listed(names: &[TypeName]) -> String {
    names.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ")
}

/// A function type that records of a part refer to.
struct Known {
    name: TypeName,
    index: TypeIndex,
    /// Whether a function was bound to it, and none is now.
    is_missing: bool,
    /// The same, and nothing of its state is restored.
    is_left_out: bool,
    states: Rc<[StateHeader]>,
    /// Brings back its state, once there is some.
    restoring: Option<state::Restoring>,
}

/// A delayed message, as it is stored.
struct Waiting {
    due_ms: u64,
    token: Option<Box<str>>,
    head: Head,
    message: Box<[u8]>,
    is_missing: bool,
}

/// Restores a dispatcher. It is told of the cuts, in their order, of the parts of each, and of the records
/// of each part.
pub(crate) struct Restoring<M, T> {
    now_ms: u64,
    codecs: Codecs<M, T>,
    /// Whether the cut is the last one, whose messages are those that there are.
    is_last: bool,
    /// By number in the records of the part.
    types: HashMap<u64, Known>,
    delayed: HashMap<Identity, Waiting>,
    /// What will be new events.
    events: Vec<Routed<M>>,
    logged: Vec<(Place<T>, Routed<M>)>,
    missing: BTreeSet<TypeName>,
}

impl<M: Value, T: Clone + PartialEq + Value, H> Dispatcher<M, T, H> {
    /// Begins to restore, at this time. Nothing else happened here yet, and nothing else happens until
    /// it is [finished](Restoring::finish); this dispatcher is the one that it is given every time.
    pub(crate) fn restoring(&mut self, now_ms: u64) -> Restoring<M, T> {
        assert_eq!(self.later.len(), 0, "something happened before");
        self.note_time(now_ms);
        Restoring {
            now_ms: self.now_ms,
            codecs: Codecs { messages: *Codec::SERDE, times: *Codec::SERDE },
            is_last: false,
            types: HashMap::new(),
            delayed: HashMap::new(),
            events: Vec::new(),
            logged: Vec::new(),
            missing: BTreeSet::new(),
        }
    }
}

impl<M: 'static, T: Clone + PartialEq + 'static> Restoring<M, T> {
    /// Begins with a cut of the chain, and says whether it is the last.
    pub(crate) fn cut(&mut self, is_last: bool) {
        self.is_last = is_last;
        self.types.clear();
    }

    /// Begins with a part of the cut, whose records refer to these function types.
    ///
    /// # Errors
    ///
    /// If a number is in the table twice.
    pub(crate) fn part<H>(
        &mut self,
        types: &[CutType],
        dispatcher: &mut Dispatcher<M, T, H>,
    ) -> Result<(), RestoreError> {
        self.types.clear();
        let mut gone = Vec::new();
        for CutType { number, name, is_bound, states } in types {
            let index = dispatcher.names.index(name);
            let is_gone = *is_bound && !dispatcher.is_bound(index);
            let policy = dispatcher.bound.on_unbound;
            let is_missing = is_gone && policy == OnUnbound::Fail;
            let is_left_out = is_gone && policy == OnUnbound::Discard;
            if is_gone && !is_missing {
                gone.push(index);
            }
            let (name, states) = (name.clone(), Rc::clone(states));
            let known = Known { name, index, is_missing, is_left_out, states, restoring: None };
            if self.types.insert(u64::from(*number), known).is_some() {
                return Err(RestoreError::Table("it has a number twice"));
            }
        }
        dispatcher.make_entries();
        for index in gone {
            dispatcher.leave_unbound(index, dispatcher.bound.on_unbound);
        }
        Ok(())
    }

    /// Restores a record of the part, of this kind and bin.
    ///
    /// # Errors
    ///
    /// If it is damaged, cannot be read, or does not fit what is bound. The dispatcher is of no use then.
    pub(crate) fn record<H, B>(
        &mut self,
        kind: RecordKind,
        bin: u16,
        record: &[u8],
        dispatcher: &mut Dispatcher<M, T, H>,
        back: &mut B,
    ) -> Result<(), RestoreError>
    where
        B: Back<M, T, Held = H>,
    {
        let damaged = |why| RestoreError::Damaged { kind, why };
        match kind {
            RecordKind::State => return self.state(bin, record, dispatcher),
            // What waited at another cut has been done since, or waits at the last one as well.
            RecordKind::Delayed => {}
            _ if !self.is_last => return Ok(()),
            _ => {}
        }
        let said = Said::read(kind, record, &self.codecs.times).map_err(|error| match error {
            Unreadable::Damaged(why) => damaged(why),
            Unreadable::Time(why) => RestoreError::Time { kind, why },
        })?;
        let stored = match said {
            Said::Message(stored) => stored,
            Said::Gone(identity) => {
                self.delayed.remove(&identity);
                return Ok(());
            }
        };
        let of = |number| self.types.get(&number).ok_or(damaged("it is of a type not listed"));
        let target = of(stored.target_type)?;
        let caller = stored.caller.as_ref().map(|(number, _)| of(*number)).transpose()?;
        let (target_type, is_missing) = (target.index, target.is_missing);
        let caller_type = caller.map_or(NOBODY, |caller| caller.index);
        let Stored { note, target, caller, depth, standing, message, .. } = stored;
        let caller = caller.map_or(Id::from(0), |(_, id)| id);
        let hash = placement::hash(&target);
        let names = &dispatcher.names;
        let head = Head {
            target_type,
            caller_type,
            depth,
            function: names.function(target_type),
            again: false,
            hash,
            target,
            caller,
            names: names.travelling(target_type, caller_type),
        };
        let home = match note {
            Note::Delayed(_) => head.home(),
            _ => hash,
        };
        if placement::bin(home) != u64::from(bin) {
            return Err(damaged("it is of another bin"));
        }
        if let Note::Delayed(delay) = note {
            if dispatcher.later.is_own(delay.identity.origin) {
                return Err(damaged("it was set here, where nothing was set yet"));
            }
            let (due_ms, token) = (delay.due_ms, delay.token.map(Into::into));
            let waiting = Waiting { due_ms, token, head, message: message.into(), is_missing };
            self.delayed.insert(delay.identity, waiting);
            return Ok(());
        }
        if is_missing {
            self.missing.insert(names.name(target_type));
            return Ok(());
        }
        let routed = read(&self.codecs, head, message, dispatcher)?;
        match (note, standing) {
            (Note::Queued, Standing::Held(place)) => back.message(place, routed),
            (Note::Logged, Standing::Held(place)) => self.logged.push((place, routed)),
            (Note::Queued | Note::Logged, _) => return Err(damaged("it stands nowhere")),
            (Note::Operation, Standing::Held(place)) => back.message(place, routed),
            (Note::Operation, _) => self.events.push(routed),
            (Note::InFlight { is_first }, standing) => {
                let first = is_first.then_some(Attempt { attempts: 0, due_ms: 0 });
                self.wait(routed, standing, first, dispatcher, back).map_err(damaged)?;
            }
            (Note::Retrying(first), standing) => {
                self.wait(routed, standing, first, dispatcher, back).map_err(damaged)?;
            }
            (Note::Delayed(_), _) => unreachable!("it waits elsewhere"),
        }
        Ok(())
    }

    /// Restores a record of state.
    fn state<H>(
        &mut self,
        bin: u16,
        record: &[u8],
        dispatcher: &mut Dispatcher<M, T, H>,
    ) -> Result<(), RestoreError> {
        let damaged = |why| RestoreError::Damaged { kind: RecordKind::State, why };
        let mut reader = Reader::new(record);
        let number = reader.varint().map_err(damaged)?;
        let known = self.types.get_mut(&number);
        let known = known.ok_or(damaged("it is of a type not listed"))?;
        let Known { name, index, is_missing, is_left_out, states, restoring } = known;
        if *is_missing {
            self.missing.insert(name.clone());
            return Ok(());
        }
        if *is_left_out {
            return Ok(());
        }
        let entry = &mut dispatcher.entries[*index as usize];
        if !entry.has_state() {
            return Err(damaged("it is of a type without a function"));
        }
        let state = &mut entry.state;
        let named = |why| RestoreError::State { function_type: name.clone(), why };
        let restoring = match restoring {
            Some(restoring) => restoring,
            None => {
                let conversions = match &entry.body {
                    Some(body) => &body.conversions,
                    None => &Conversions::default(),
                };
                let begun = state.restore(states, conversions, self.now_ms);
                restoring.insert(begun.map_err(named)?)
            }
        };
        restoring.apply(state, bin, reader.rest()).map_err(named)
    }

    /// Has a message wait at its address, as its function does today: for a call, or for another attempt
    /// at the `first` of those that wait.
    fn wait<H, B>(
        &mut self,
        mut routed: Routed<M>,
        standing: Standing<T>,
        first: Option<Attempt>,
        dispatcher: &mut Dispatcher<M, T, H>,
        back: &mut B,
    ) -> Result<(), Damage>
    where
        B: Back<M, T, Held = H>,
    {
        let Dispatcher { entries, names, mailboxes, calls, .. } = dispatcher;
        let body = entries[routed.head.target_type as usize].body.as_ref();
        let value = match body.map(|body| &body.code) {
            None => None,
            Some(Code::Remote(code)) => match (&standing, remote::convert(code, &routed.message)) {
                (Standing::Held(_) | Standing::Came(_), Ok(value)) => Some(value),
                // It fails when it is handled.
                _ => None,
            },
            Some(Code::Embedded(_) | Code::Awaited(_)) => {
                if first.is_some() && mailboxes.has_first(&routed.head) {
                    return Err("another one is tried as well");
                }
                let held = match standing {
                    Standing::Held(place) => Some(back.hold(place)),
                    Standing::Came(_) | Standing::Event => None,
                };
                routed.head.names = None;
                match first {
                    Some(attempt) => mailboxes.keep_first(routed, held, attempt),
                    None => mailboxes.keep_behind(routed, held),
                }
                return Ok(());
            }
        };
        match (value, standing) {
            (Some(value), Standing::Held(place)) => {
                let function = names.function(routed.head.target_type) as usize;
                routed.head.names = None;
                let (time, held) = (place.time.clone(), Some(back.hold(place)));
                calls.restore(function, Kept { routed, value, time, held }, first.is_some());
            }
            (Some(value), Standing::Came(time)) => {
                let function = names.function(routed.head.target_type) as usize;
                routed.head.names = None;
                calls.restore(function, Kept { routed, value, time, held: None }, first.is_some());
            }
            (None, Standing::Held(place)) => back.message(place, routed),
            (_, Standing::Came(_) | Standing::Event) => self.events.push(routed),
        }
        Ok(())
    }

    /// Brings back what had to wait for all records.
    ///
    /// # Errors
    ///
    /// If functions are not bound that were when they were stored, or a delayed message cannot be read.
    pub(crate) fn finish<H, B>(
        mut self,
        dispatcher: &mut Dispatcher<M, T, H>,
        back: &mut B,
    ) -> Result<(), RestoreError>
    where
        B: Back<M, T, Held = H>,
    {
        let mut delayed: Vec<_> = self.delayed.into_iter().collect();
        let missing = delayed.iter().filter(|(_, waiting)| waiting.is_missing);
        let names = missing.map(|(_, waiting)| dispatcher.names.name(waiting.head.target_type));
        self.missing.extend(names);
        if !self.missing.is_empty() {
            return Err(RestoreError::NotBound(self.missing.into_iter().collect()));
        }
        delayed.sort_unstable_by_key(|(identity, waiting)| (waiting.due_ms, *identity));
        let mut origins = HashMap::new();
        for (Identity { origin, sequence }, waiting) in delayed {
            let Waiting { due_ms, token, head, message, .. } = waiting;
            let routed = read(&self.codecs, head, &message, dispatcher)?;
            let later = &mut dispatcher.later;
            let origin = *origins.entry(origin).or_insert_with(|| later.add_origin(origin));
            later.restore((origin, sequence), due_ms, token, routed);
        }
        // These are due at once, and nothing that was stored knows them as delayed messages.
        for routed in self.events {
            dispatcher.later.set(0, None, routed);
        }
        dispatcher.mailboxes.settle();
        for (place, routed) in self.logged {
            back.message(place, routed);
        }
        dispatcher.measure();
        Ok(())
    }
}

/// Reads a message.
fn read<M: 'static, T: Clone + PartialEq + 'static, H>(
    codecs: &Codecs<M, T>,
    head: Head,
    message: &[u8],
    dispatcher: &Dispatcher<M, T, H>,
) -> Result<Routed<M>, RestoreError> {
    match codecs.messages.read(message) {
        Ok(message) => Ok(Routed { head, message }),
        Err(why) => Err(RestoreError::Message { address: dispatcher.names.target(&head), why }),
    }
}

//! Cuts of a dispatcher: all that waits in it and all that its functions keep, written a slice at a time
//! while messages are handled.
//!
//! Taking a cut copies nothing. Each room of the dispatcher knows what it has to write, and has it written
//! before it changes what the walk has not come to. The loop hands over what waits in it, and what it
//! logs. The dispatcher knows no files: whoever takes the records finds out from it which names the
//! numbers in them have.

use std::rc::Rc;

use super::calls::First;
use super::pen::{CutError, CutSink, Pen, Places, Slice};
use super::record::{Codecs, Note, Origin, RecordKind, Standing, Written};
use super::types::CutType;
use super::{Dispatcher, Head, NOBODY, Place, Routed, TypeIndex};
use crate::codec::Codec;
use crate::functions::OnUnbound;
use crate::records::put_varint;
use crate::state::{Budget, FunctionState, Sink, StateHeader};
use crate::value::Value;

/// What there is to cuts, if they are kept.
pub(super) struct Cuts<M, T> {
    pub(super) pen: Pen<M, T>,
    tombstone_bytes_max: usize,
    open: Option<Open>,
    /// How much memory states take for cuts.
    state_bytes: usize,
}

/// A cut that is neither committed nor abandoned.
struct Open {
    /// By number of the function type: the cut of its state, and what the records of that refer to.
    types: Vec<Option<(u32, Rc<[StateHeader]>)>>,
    /// Which room is being written.
    room: Room,
    /// What is wrong with it, until that was told.
    error: Option<CutError>,
    is_failed: bool,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Room {
    /// The state of the function type with this number.
    State(usize),
    Operations,
    Mailboxes,
    Calls,
    Delayed,
    /// All is written.
    None,
}

/// What a cut is not exact without.
#[cfg(test)]
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Without {
    Kept,
    Tombstones,
    Marks,
}

/// What writes cuts, if they are kept.
#[inline]
pub(super) fn pen<M, T>(cuts: &mut Option<Box<Cuts<M, T>>>) -> Option<&mut Pen<M, T>> {
    cuts.as_deref_mut().map(|cuts| &mut cuts.pen)
}

/// Notes how much memory a state takes for cuts after something was done with it. Before, it took
/// `before`.
#[inline]
pub(super) fn note_bytes<M, T>(
    cuts: &mut Option<Box<Cuts<M, T>>>,
    before: usize,
    state: &FunctionState,
) {
    if let Some(cuts) = cuts {
        cuts.state_bytes = cuts.state_bytes + state.cut_bytes() - before;
    }
}

/// The records of one state, on their way into a cut.
struct OfState<'a> {
    number: TypeIndex,
    /// The number, as records begin with it.
    start: &'a [u8],
    sink: &'a mut dyn CutSink,
}

impl Sink for OfState<'_> {
    fn put(&mut self, bin: u16, record: &[u8]) {
        self.sink.put(RecordKind::State, bin, &[self.number], &[self.start, record]);
    }
}

impl<M: Value, T: Clone + PartialEq + Value, H> Dispatcher<M, T, H> {
    /// From now on cuts can be taken. `origin` names, for ever, the delayed messages that are set here.
    /// Of each function type's state, and of delayed messages, what is noted of what went may take so much
    /// memory; beyond it the next cut must be a full one.
    ///
    /// It is called before anything is handled or restored.
    pub(crate) fn keep_cuts(&mut self, tombstone_bytes_max: usize, origin: Origin) {
        assert!(self.cuts.is_none(), "cuts are kept already");
        self.later.keep_cuts(origin, tombstone_bytes_max);
        self.make_kept_entries();
        for entry in self.entries.iter_mut().filter(|entry| entry.has_state()) {
            entry.state.keep_cuts(tombstone_bytes_max);
        }
        let codecs = Codecs { messages: *Codec::SERDE, times: *Codec::SERDE };
        let pen = Pen::new(codecs);
        self.cuts = Some(Box::new(Cuts { pen, tombstone_bytes_max, open: None, state_bytes: 0 }));
    }
}

impl<M: 'static, T: Clone + PartialEq + 'static, H> Dispatcher<M, T, H> {
    /// Has a state that comes into being keep cuts, if the others do.
    pub(super) fn keep_cuts_of(&self, state: &mut FunctionState) {
        if let Some(cuts) = &self.cuts {
            state.keep_cuts(cuts.tombstone_bytes_max);
        }
    }

    /// Whether there is something that can only be written in full.
    #[cfg(test)]
    pub(crate) fn wants_full(&self) -> bool {
        self.delta_fails().is_some()
    }

    /// Why a delta cannot be written.
    fn delta_fails(&self) -> Option<CutError> {
        if self.later.wants_full() {
            return Some(CutError::DelayedWantFull);
        }
        let at = self.entries.iter().position(|entry| entry.state.wants_full())?;
        Some(CutError::StateWantsFull(self.names.name(at as TypeIndex)))
    }

    /// Takes a cut, and begins to write it: of state and delayed messages everything, or what changed
    /// since the last cut that was committed, or since what was restored. It takes as long as there are
    /// function types.
    ///
    /// It is not called before the cut before it is [committed](Self::commit_cut) or
    /// [abandoned](Self::abandon_cut). A delta that cannot be written is an error of
    /// [`write_cut`](Self::write_cut).
    pub(crate) fn take_cut(&mut self, is_delta: bool) {
        let error = if is_delta { self.delta_fails() } else { None };
        let cuts = self.cuts.as_deref_mut().expect("cuts are kept");
        assert!(cuts.open.is_none(), "a cut is open");
        cuts.pen.begin(!is_delta);
        let is_failed = error.is_some();
        let mut types = Vec::new();
        if !is_failed {
            types.reserve_exact(self.entries.len());
            for entry in &mut self.entries {
                types.push(entry.has_state().then(|| {
                    let since = is_delta.then(|| entry.state.latest_committed());
                    (entry.state.take_cut(since), entry.state.declared_states())
                }));
            }
            self.operations.take_cut();
            self.mailboxes.take_cut();
            self.calls.take_cut();
            self.later.take_cut(is_delta);
        }
        cuts.open = Some(Open { types, room: Room::State(0), error, is_failed });
    }

    /// Whether something is bound to a function type, or its records are kept.
    pub(super) fn is_bound(&self, number: TypeIndex) -> bool {
        self.names.function(number) != NOBODY || self.kept.has(number)
    }

    /// Whether nothing is bound to it, and its state is kept nevertheless.
    fn is_kept_unbound(&self, number: TypeIndex) -> bool {
        let entry = self.entries.get(number as usize);
        entry.is_some_and(|entry| entry.unbound == Some(OnUnbound::Keep))
    }

    /// Has the state of a type that nothing is bound to be kept or left out, which it is stored with.
    pub(super) fn leave_unbound(&mut self, number: TypeIndex, policy: OnUnbound) {
        if self.entries[number as usize].unbound.is_some() {
            return;
        }
        let mut state = FunctionState::default();
        self.keep_cuts_of(&mut state);
        if policy == OnUnbound::Discard {
            state.want_full();
        }
        let entry = &mut self.entries[number as usize];
        (entry.unbound, entry.state) = (Some(policy), state);
    }

    /// A function type as records of the open cut refer to it.
    pub(crate) fn cut_type(&self, number: TypeIndex) -> CutType {
        let open = self.cuts.as_deref().and_then(|cuts| cuts.open.as_ref());
        let open = open.expect("a cut is open");
        let taken = open.types.get(number as usize).and_then(Option::as_ref);
        CutType {
            number,
            name: self.names.name(number),
            is_bound: self.is_bound(number) || self.is_kept_unbound(number),
            states: taken.map(|(_, states)| Rc::clone(states)).unwrap_or_default(),
        }
    }

    /// Writes a message that waited in the loop when the cut was taken, and is handed over before it is
    /// handled; or one that is logged. One that stands for a batch that was answered, or that is on its
    /// way to another attempt, is written as what it was before that.
    ///
    /// # Errors
    ///
    /// If it cannot be written. The cut must be abandoned.
    pub(crate) fn write_waiting(
        &mut self,
        place: Place<T>,
        routed: &Routed<M>,
        is_logged: bool,
        sink: &mut dyn CutSink,
    ) -> Result<(), CutError> {
        let Routed { head, message } = routed;
        let types = match &head.names {
            None => head.types(),
            Some(names) => {
                let caller = names.1.as_ref().map(|caller| self.names.index(caller));
                (self.names.index(&names.0), caller)
            }
        };
        let cuts = self.cuts.as_deref_mut().expect("cuts are kept");
        let open = cuts.open.as_mut().expect("a cut is open");
        if open.is_failed {
            return Ok(());
        }
        let tried = head.again.then(|| self.mailboxes.under_way(head)).flatten();
        let answered = head.again.then(|| self.calls.answered(head)).flatten();
        let own: Head;
        let (note, head, standing) = match (tried, answered) {
            (Some((attempt, true)), _) => {
                (Note::Retrying(Some(attempt)), head, Standing::Held(place))
            }
            (Some((attempt, false)), _) => (Note::Retrying(Some(attempt)), head, Standing::Event),
            (None, Some(First { depth, came, stood, .. })) => {
                own = Head { depth: *depth, ..head.clone() };
                // It will be called for again, and come back behind where it stood then: where it is now.
                let standing = match (came, stood) {
                    (Some(time), _) => Standing::Came(time.clone()),
                    (None, stood) => Standing::Held(stood.clone().unwrap_or(place)),
                };
                (Note::InFlight { is_first: true }, &own, standing)
            }
            (None, None) if is_logged => (Note::Logged, head, Standing::Held(place)),
            (None, None) => (Note::Queued, head, Standing::Held(place)),
        };
        let written = Written { note, head, types, standing, message };
        let result = cuts.pen.put(&written, sink);
        result.map(drop).map_err(|fault| {
            let error = fault.named(&self.names);
            self.end_walks();
            error
        })
    }

    /// Writes some more of what else the cut contains, as much as there is room for. Says whether that was
    /// all of it. `places` tells where something stands that is held.
    ///
    /// # Errors
    ///
    /// If something cannot be written, once. The cut must be abandoned.
    pub(crate) fn write_cut(
        &mut self,
        mut budget: Budget,
        places: Places<'_, T, H>,
        sink: &mut dyn CutSink,
    ) -> Result<bool, CutError> {
        let result = self.write_some(&mut budget, places, sink);
        if result.is_err() {
            self.end_walks();
        }
        result
    }

    fn write_some(
        &mut self,
        budget: &mut Budget,
        places: Places<'_, T, H>,
        sink: &mut dyn CutSink,
    ) -> Result<bool, CutError> {
        let cuts = self.cuts.as_deref_mut().expect("cuts are kept");
        let open = cuts.open.as_mut().expect("a cut is open");
        if let Some(error) = open.error.take() {
            return Err(error);
        }
        if open.is_failed {
            return Ok(false);
        }
        if let Some(fault) = cuts.pen.take_failure() {
            return Err(fault.named(&self.names));
        }
        // What was overtaken comes first: of each address, it is before what is yet to be written.
        cuts.pen.pass_on(budget, sink);
        let mut start = Vec::new();
        while budget.units > 0 && budget.bytes > 0 {
            let mut slice = Slice { pen: &mut cuts.pen, budget, sink };
            let done = match open.room {
                Room::State(at) if at < open.types.len() => {
                    slice.look();
                    if open.types[at].is_some() {
                        start.clear();
                        put_varint(&mut start, at as u64);
                        let (number, state) = (at as TypeIndex, &mut self.entries[at].state);
                        let mut out = OfState { number, start: &start, sink };
                        let before = state.cut_bytes();
                        let done = state.walk(budget, &mut out);
                        cuts.state_bytes = cuts.state_bytes + state.cut_bytes() - before;
                        let named = |why| {
                            let function_type = self.names.name(number);
                            CutError::State { function_type, why }
                        };
                        if !done.map_err(named)? {
                            return Ok(false);
                        }
                    }
                    open.room = Room::State(at + 1);
                    continue;
                }
                Room::State(_) => Ok(true),
                Room::Operations => self.operations.walk(&mut slice, places),
                Room::Mailboxes => self.mailboxes.walk(&mut slice, places),
                Room::Calls => self.calls.walk(&mut slice, places),
                Room::Delayed => self.later.walk(&mut slice),
                Room::None => return Ok(true),
            };
            if !done.map_err(|fault| fault.named(&self.names))? {
                return Ok(false);
            }
            open.room = match open.room {
                Room::State(_) => Room::Operations,
                Room::Operations => Room::Mailboxes,
                Room::Mailboxes => Room::Calls,
                Room::Calls => Room::Delayed,
                Room::Delayed | Room::None => Room::None,
            };
        }
        Ok(false)
    }

    /// Nothing more is written of the open cut, and nothing kept for it.
    fn end_walks(&mut self) {
        self.operations.passage.stop();
        self.mailboxes.passage.stop();
        self.calls.passage.stop();
        self.later.end_walk();
        if let Some(open) = self.cuts.as_deref_mut().and_then(|cuts| cuts.open.as_mut()) {
            open.is_failed = true;
        }
    }

    /// The open cut, which was written to its end, is durable. Deltas can follow it.
    pub(crate) fn commit_cut(&mut self) {
        let open = self.close();
        assert!(open.room == Room::None && !open.is_failed, "it was written");
        for (entry, taken) in self.entries.iter_mut().zip(open.types) {
            if let Some((cut, _)) = taken {
                entry.state.committed(cut);
            }
        }
        self.later.committed();
        self.measure();
    }

    /// The open cut will never be durable.
    pub(crate) fn abandon_cut(&mut self) {
        self.end_walks();
        let open = self.close();
        for (entry, taken) in self.entries.iter_mut().zip(open.types) {
            if let Some((cut, _)) = taken {
                entry.state.abandoned(cut);
            }
        }
        self.later.abandoned();
        self.measure();
    }

    fn close(&mut self) -> Open {
        let cuts = self.cuts.as_deref_mut().expect("cuts are kept");
        cuts.pen.end();
        cuts.open.take().expect("a cut is open")
    }

    /// Finds out how much memory states take for cuts.
    pub(super) fn measure(&mut self) {
        if let Some(cuts) = &mut self.cuts {
            cuts.state_bytes = self.entries.iter().map(|entry| entry.state.cut_bytes()).sum();
        }
    }

    /// How much memory is taken by what was overtaken by the open cut, and by notes of what went since the
    /// last one.
    pub(crate) fn cut_bytes(&self) -> usize {
        self.cuts
            .as_deref()
            .map_or(0, |cuts| cuts.pen.bytes() + cuts.state_bytes + self.later.tombstone_bytes())
    }

    /// How much memory states take for cuts: as it was noted, and as it is.
    #[cfg(test)]
    pub(super) fn state_bytes(&self) -> (usize, usize) {
        let noted = self.cuts.as_deref().map_or(0, |cuts| cuts.state_bytes);
        (noted, self.entries.iter().map(|entry| entry.state.cut_bytes()).sum())
    }

    /// Leaves something out that cuts are not exact without.
    #[cfg(test)]
    pub(super) fn leave_out(&mut self, without: Without) {
        match without {
            Without::Kept => {
                self.cuts.as_deref_mut().expect("cuts are kept").pen.keeps_nothing = true;
            }
            Without::Tombstones => self.later.lose_tombstones(),
            Without::Marks => {
                self.mailboxes.passage.marks_nothing = true;
                self.calls.passage.marks_nothing = true;
            }
        }
    }
}

//! What functions emitted, by egress, until it leaves: typed, in order, and undone with the
//! invocation that emitted it.

use std::any::{Any, TypeId};
use std::cell::Cell;
use std::rc::Rc;

use super::held::{Holding, OfBin};
use super::kept::{Emitter, Keeping};
use crate::address::TypeName;
use crate::egress::Egress;
use crate::message::Mismatch;
use crate::state::{Change, FunctionState, Watched};
use crate::typed::{TypedMessage, TypedValue};
use crate::value::Value;

/// Records of one egress and one time, on their way out: a `Vec` of the egress's own type, or, of an egress
/// that is held, of [`OfBin`]s of it.
pub(crate) struct Batch {
    pub(crate) egress: usize,
    /// The cut that released it. 0 if none did.
    pub(crate) cut: u64,
    pub(crate) records: Box<dyn Any>,
}

/// An egress whose type is not in sight.
pub(crate) struct ErasedEgress<T> {
    pub(crate) name: &'static str,
    /// The Rust name of the type of its records, for messages.
    pub(crate) type_name: &'static str,
    type_id: TypeId,
    make: fn() -> Box<dyn AnyBuffer<T>>,
    /// Emits what a remote function gave; none where its records are no values.
    emit_typed: Option<EmitTyped<T>>,
    /// Takes what was emitted, as values; none where they are none.
    #[cfg(feature = "serve")]
    take_typed: Option<TakeTyped<T>>,
    /// If its records are kept.
    pub(crate) keeping: Option<Keeping<T>>,
    /// If its records are held.
    pub(crate) holding: Option<Holding<T>>,
}

type EmitTyped<T> = fn(&mut dyn AnyBuffer<T>, &T, TypedValue) -> Result<(), Mismatch>;

#[cfg(feature = "serve")]
type TakeTyped<T> = fn(&mut dyn AnyBuffer<T>) -> Vec<Result<TypedValue, Mismatch>>;

impl<T> Clone for ErasedEgress<T> {
    fn clone(&self) -> Self {
        ErasedEgress { ..*self }
    }
}

impl<T: Clone + PartialEq + 'static> ErasedEgress<T> {
    pub(crate) fn new<E: 'static>(egress: Egress<E>) -> Self {
        ErasedEgress {
            name: egress.name(),
            type_name: std::any::type_name::<E>(),
            type_id: TypeId::of::<E>(),
            make: || Box::new(Buffer::<T, E>::new()),
            emit_typed: None,
            #[cfg(feature = "serve")]
            take_typed: None,
            keeping: None,
            holding: None,
        }
    }

    /// The same egress, held.
    pub(crate) fn held<E: Value>(self) -> Self {
        debug_assert!(self.carries::<E>());
        ErasedEgress {
            make: || Box::new(Buffer::<T, E> { emitters: Some(Vec::new()), ..Buffer::new() }),
            holding: Some(Holding::of::<E>()),
            ..self
        }
    }

    /// An egress whose records are kept so.
    pub(crate) fn kept<E: 'static>(egress: Egress<E>, keeping: Keeping<T>) -> Self {
        ErasedEgress { keeping: Some(keeping), ..ErasedEgress::new(egress) }
    }

    /// An egress that remote functions can emit to as well.
    pub(crate) fn typed<E: TypedMessage>(egress: Egress<E>) -> Self {
        let emit_typed: EmitTyped<T> = |buffer, time, value| {
            let record = E::from_typed(value)?;
            let buffer = buffer.as_any_mut().downcast_mut::<Buffer<T, E>>();
            let buffer = buffer.expect("the buffer was made for this egress");
            buffer.records.push((time.clone(), record));
            Ok(())
        };
        ErasedEgress {
            emit_typed: Some(emit_typed),
            #[cfg(feature = "serve")]
            take_typed: Some(|buffer| {
                let buffer = buffer.as_any_mut().downcast_mut::<Buffer<T, E>>();
                let buffer = buffer.expect("the buffer was made for this egress");
                buffer.records.drain(..).map(|(_, record)| record.to_typed()).collect()
            }),
            ..ErasedEgress::new(egress)
        }
    }

    /// Whether its records are values that others know.
    #[cfg(feature = "serve")]
    pub(crate) fn is_typed(&self) -> bool {
        self.take_typed.is_some()
    }
}

impl<T> ErasedEgress<T> {
    /// Whether its records are of this type.
    pub(crate) fn carries<E: 'static>(&self) -> bool {
        self.type_id == TypeId::of::<E>()
    }
}

/// Changes of one state of one function type, whose types are not in sight: what leaves like an egress.
pub(crate) struct ErasedChanges<T> {
    pub(crate) function: &'static str,
    pub(crate) state: Watched,
    type_id: TypeId,
    make: fn() -> Box<dyn AnyBuffer<T>>,
    /// Puts what was gathered among what leaves at this time.
    put: fn(&mut dyn AnyBuffer<T>, &T, &mut dyn Any),
}

impl<T> Clone for ErasedChanges<T> {
    fn clone(&self) -> Self {
        ErasedChanges { state: self.state.clone(), ..*self }
    }
}

impl<T: Clone + PartialEq + 'static> ErasedChanges<T> {
    pub(crate) fn new<K: 'static, V: 'static>(function: &'static str, state: Watched) -> Self {
        ErasedChanges {
            function,
            state,
            type_id: TypeId::of::<Change<K, V>>(),
            make: || Box::new(Buffer::<T, Change<K, V>>::new()),
            put: |buffer, time, gathered| {
                let buffer = buffer.as_any_mut().downcast_mut::<Buffer<T, Change<K, V>>>();
                let buffer = buffer.expect("the buffer was made for these changes");
                let gathered = gathered.downcast_mut::<Vec<Change<K, V>>>();
                let gathered = gathered.expect("they are of one type");
                gathered.drain(..).for_each(|change| buffer.push(time.clone(), change));
            },
        }
    }
}

impl<T> ErasedChanges<T> {
    /// Whether keys and values are of these types.
    pub(crate) fn are_of<K: 'static, V: 'static>(&self) -> bool {
        self.type_id == TypeId::of::<Change<K, V>>()
    }
}

pub(super) trait AnyBuffer<T> {
    fn commit(&mut self);
    fn rollback(&mut self);
    /// Says how many records there were.
    fn drain(&mut self, egress: usize, receive: &mut dyn FnMut(&T, Batch)) -> u64;
    /// Whether the running invocation has emitted nothing to it.
    fn is_untouched(&self) -> bool;
    fn as_any_mut(&mut self) -> &mut dyn Any;
}

pub(super) struct Buffer<T, E> {
    records: Vec<(T, E)>,
    /// How many of the records will certainly leave.
    committed: usize,
    /// If it matters who emitted them: the bins, each with where its records end.
    emitters: Option<Vec<(usize, u16)>>,
}

impl<T, E> Buffer<T, E> {
    fn new() -> Self {
        Buffer { records: Vec::new(), committed: 0, emitters: None }
    }

    /// What the running invocation has emitted.
    pub(super) fn uncommitted(&self) -> impl Iterator<Item = &(T, E)> {
        self.records[self.committed..].iter()
    }

    /// Notes who has emitted what the running invocation emitted.
    pub(super) fn note_emitter(&mut self, bin: u16) {
        let end = self.records.len();
        match self.emitters.as_mut().and_then(|emitters| emitters.last_mut()) {
            Some((last, of)) if *of == bin => *last = end,
            _ => self.emitters.iter_mut().for_each(|emitters| emitters.push((end, bin))),
        }
    }

    /// Adds a record that will certainly leave.
    pub(super) fn push(&mut self, time: T, record: E) {
        self.records.push((time, record));
        self.committed = self.records.len();
    }
}

impl<T: Clone + PartialEq + 'static, E: 'static> AnyBuffer<T> for Buffer<T, E> {
    fn commit(&mut self) {
        self.committed = self.records.len();
    }

    fn rollback(&mut self) {
        self.records.truncate(self.committed);
    }

    /// In the order of emission: a batch ends where the time changes.
    fn drain(&mut self, egress: usize, receive: &mut dyn FnMut(&T, Batch)) -> u64 {
        self.committed = 0;
        let count = self.records.len() as u64;
        let records = self.records.drain(..);
        match &mut self.emitters {
            None => in_batches(egress, records, receive),
            Some(emitters) => {
                let mut emitters = emitters.drain(..);
                let mut emitter = emitters.next();
                let of_bins = records.enumerate().map(|(at, (time, record))| {
                    if emitter.is_some_and(|(end, _)| end <= at) {
                        emitter = emitters.next();
                    }
                    let (_, bin) = emitter.expect("somebody emitted each record");
                    (time, (bin, record) as OfBin<E>)
                });
                in_batches(egress, of_bins, receive);
            }
        }
        count
    }

    fn is_untouched(&self) -> bool {
        self.committed == self.records.len()
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}

/// Gives records in batches, each of which has one time, in order.
fn in_batches<T: PartialEq, R: 'static>(
    egress: usize,
    mut records: impl Iterator<Item = (T, R)>,
    receive: &mut dyn FnMut(&T, Batch),
) {
    let Some((mut time, first)) = records.next() else { return };
    let mut batch = vec![first];
    for (next, record) in records {
        if next != time {
            let records = Box::new(std::mem::take(&mut batch));
            receive(&time, Batch { egress, cut: 0, records });
            time = next;
        }
        batch.push(record);
    }
    receive(&time, Batch { egress, cut: 0, records: Box::new(batch) });
}

/// A use of an egress that does not fit its binding.
pub(super) enum Mistake {
    Unknown,
    OtherType { bound: &'static str },
}

/// A use of an egress by a remote function that does not fit its binding.
pub(super) enum TypedMistake {
    Unknown,
    Untyped,
    OtherType(Mismatch),
}

/// The egresses of one worker, in the order they were bound; then come dead letters, and then changes of state.
pub(crate) struct Egresses<T> {
    bound: Vec<ErasedEgress<T>>,
    watched: Vec<ErasedChanges<T>>,
    buffers: Vec<Box<dyn AnyBuffer<T>>>,
    /// Egresses the running invocation emitted to, and how many records.
    touched: Vec<usize>,
    emitted: u32,
    /// How many records have left each.
    left: Vec<u64>,
    /// Whether some are held.
    are_held: bool,
    dead_letters_read: Rc<Cell<bool>>,
    /// To which each record went, if their order matters over all egresses.
    #[cfg(feature = "serve")]
    order: Option<Vec<usize>>,
}

impl<T> Egresses<T> {
    /// How many records have left each.
    pub(super) fn left_of_all(&self) -> &[u64] {
        &self.left
    }
}

impl<T: Clone + PartialEq + 'static> Egresses<T> {
    pub(crate) fn new<D: 'static>(
        bound: Vec<ErasedEgress<T>>,
        dead_letters: Egress<D>,
        dead_letters_read: Rc<Cell<bool>>,
    ) -> Self {
        let dead_letters = ErasedEgress::new(dead_letters);
        let buffers = bound.iter().chain([&dead_letters]).map(|egress| (egress.make)());
        let buffers: Vec<_> = buffers.collect();
        let left = vec![0; buffers.len()];
        let are_held = bound.iter().any(|egress| egress.holding.is_some());
        Egresses {
            bound,
            watched: Vec::new(),
            buffers,
            touched: Vec::new(),
            emitted: 0,
            left,
            are_held,
            dead_letters_read,
            #[cfg(feature = "serve")]
            order: None,
        }
    }

    /// The same egresses, and changes of these states.
    pub(crate) fn watching(mut self, watched: Vec<ErasedChanges<T>>) -> Self {
        self.buffers.extend(watched.iter().map(|changes| (changes.make)()));
        self.left.resize(self.buffers.len(), 0);
        Egresses { watched, ..self }
    }

    /// The states of a function type that are watched, with the numbers under which their changes leave.
    pub(super) fn watched_of(&self, function: &TypeName) -> Vec<(usize, Watched)> {
        let first = self.bound.len() + 1;
        let numbered = (first..).zip(&self.watched);
        let of = numbered.filter(|(_, changes)| changes.function == function.as_str());
        of.map(|(number, changes)| (number, changes.state.clone())).collect()
    }

    /// Has what was gathered of a state's changes leave at this time.
    pub(super) fn put_changes(&mut self, state: &mut FunctionState, time: &T) {
        let first = self.bound.len() + 1;
        state.take_gathered(&mut |number, gathered| {
            (self.watched[number - first].put)(&mut *self.buffers[number], time, gathered);
        });
    }

    /// The same egresses, of which it is known in which order they were emitted to.
    #[cfg(feature = "serve")]
    pub(crate) fn in_order(self) -> Self {
        Egresses { order: Some(Vec::new()), ..self }
    }

    /// Takes all that was emitted since the last rollback, in order, each with the name of its egress. A
    /// rollback follows.
    #[cfg(feature = "serve")]
    pub(super) fn take_typed(&mut self) -> Result<Vec<(TypeName, TypedValue)>, Mismatch> {
        let order = std::mem::take(self.order.get_or_insert_default());
        let mut taken: Vec<_> = self.bound.iter().map(|_| Vec::new().into_iter()).collect();
        for &at in &self.touched {
            let take = self.bound[at].take_typed.expect("only typed egresses are served");
            taken[at] = take(&mut *self.buffers[at]).into_iter();
        }
        let next = |at: usize| {
            let value = taken[at].next().expect("it was emitted");
            value.map(|value| (TypeName::fixed(self.bound[at].name), value))
        };
        order.into_iter().map(next).collect()
    }

    pub(super) fn emit<E: 'static>(
        &mut self,
        egress: Egress<E>,
        time: &T,
        record: E,
    ) -> Result<(), Mistake> {
        let name = egress.name();
        let same = |at: &&'static str| std::ptr::eq(*at, name) || **at == *name;
        let Some(at) = self.bound.iter().position(|bound| same(&bound.name)) else {
            return Err(Mistake::Unknown);
        };
        match self.buffers[at].as_any_mut().downcast_mut::<Buffer<T, E>>() {
            Some(buffer) => {
                if buffer.committed == buffer.records.len() {
                    self.touched.push(at);
                }
                buffer.records.push((time.clone(), record));
                self.emitted += 1;
                #[cfg(feature = "serve")]
                if let Some(order) = &mut self.order {
                    order.push(at);
                }
                Ok(())
            }
            None => Err(Mistake::OtherType { bound: self.bound[at].type_name }),
        }
    }

    /// Emits what a remote function gave.
    pub(super) fn emit_typed(
        &mut self,
        egress: &str,
        time: &T,
        value: TypedValue,
    ) -> Result<(), TypedMistake> {
        let at = self.bound.iter().position(|bound| bound.name == egress);
        let at = at.ok_or(TypedMistake::Unknown)?;
        let emit = self.bound[at].emit_typed.ok_or(TypedMistake::Untyped)?;
        let buffer = &mut *self.buffers[at];
        let untouched = buffer.is_untouched();
        emit(buffer, time, value).map_err(TypedMistake::OtherType)?;
        self.emitted += 1;
        if untouched {
            self.touched.push(at);
        }
        Ok(())
    }

    /// How many records the running invocation has emitted.
    #[inline]
    pub(super) fn emitted(&self) -> u32 {
        self.emitted
    }

    #[inline]
    pub(super) fn commit(&mut self) {
        self.emitted = 0;
        for at in self.touched.drain(..) {
            self.buffers[at].commit();
        }
    }

    pub(super) fn rollback(&mut self) {
        self.emitted = 0;
        for at in self.touched.drain(..) {
            self.buffers[at].rollback();
        }
        #[cfg(feature = "serve")]
        if let Some(order) = &mut self.order {
            order.clear();
        }
    }

    /// Emits a dead letter at once: giving a message up is never undone.
    pub(super) fn dead_letter<D: 'static>(&mut self, time: T, letter: D) {
        let buffer = self.buffers[self.bound.len()].as_any_mut().downcast_mut();
        let buffer: &mut Buffer<T, D> = buffer.expect("that of dead letters comes after all bound");
        buffer.push(time, letter);
    }

    /// How the records of each egress are kept, where they are.
    pub(super) fn keepings(&self) -> impl Iterator<Item = (usize, &'static str, Keeping<T>)> {
        let bound = self.bound.iter().enumerate();
        bound.filter_map(|(at, bound)| bound.keeping.map(|keeping| (at, bound.name, keeping)))
    }

    /// Whether some are held.
    #[inline]
    pub(super) fn are_held(&self) -> bool {
        self.are_held
    }

    /// Notes who has emitted what the running invocation emitted to those that are held.
    pub(super) fn note_emitter(&mut self, bin: u16) {
        for at in &self.touched {
            if let Some(holding) = self.bound[*at].holding {
                holding.note_emitter(&mut *self.buffers[*at], bin);
            }
        }
    }

    /// Whether the running invocation has emitted to an egress.
    pub(super) fn is_touched(&self, at: usize) -> bool {
        self.touched.contains(&at)
    }

    /// Keeps what the running invocation has emitted to an egress.
    pub(super) fn keep(&mut self, at: usize, state: &mut FunctionState, emitter: Emitter<'_>) {
        let keeping = self.bound[at].keeping.expect("it is one whose records are kept");
        keeping.keep(state, emitter, &mut *self.buffers[at]);
    }

    /// Emits again what an address has emitted to an egress.
    pub(super) fn bring_back(
        &mut self,
        at: usize,
        state: &mut FunctionState,
        emitter: Emitter<'_>,
        time: &T,
    ) {
        let keeping = self.bound[at].keeping.expect("it is one whose records are kept");
        keeping.bring_back(state, emitter, &mut *self.buffers[at], time);
    }

    pub(super) fn dead_letters_are_read(&self) -> bool {
        self.dead_letters_read.get()
    }

    pub(super) fn drain(&mut self, receive: &mut dyn FnMut(&T, Batch)) {
        for (egress, buffer) in self.buffers.iter_mut().enumerate() {
            self.left[egress] += buffer.drain(egress, receive);
        }
    }

    /// How many records have left one.
    pub(super) fn left(&self, egress: usize) -> u64 {
        self.left[egress]
    }
}

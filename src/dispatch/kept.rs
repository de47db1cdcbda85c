//! What functions have emitted to egresses whose records are kept: by the address that emitted it, as state
//! like any other, so that it is cut, stored and restored with what caused it.
//!
//! It takes effect with the invocation. Nobody reads it while the program runs; after a restart it is emitted
//! again, before anything else.

use std::any::Any;
use std::hash::Hash;

use super::egresses::{AnyBuffer, Buffer};
use super::held::type_of;
use super::{Dispatcher, Head, TypeIndex};
use crate::address::Id;
use crate::buffer::BufferSpec;
use crate::placement;
use crate::state::{Declared, FunctionState};
use crate::table::TableSpec;
use crate::value::Value;

/// What the state is called that keeps records.
const EMITTED: &str = "emitted";

/// How changes add up.
pub(crate) trait Sums<R> {
    fn add(sum: &mut R, change: &R);
    fn is_nothing(sum: &R) -> bool;
}

/// The address whose invocation emits, and when.
#[derive(Copy, Clone)]
pub(super) struct Emitter<'a> {
    pub(super) id: &'a Id,
    pub(super) hash: u64,
    pub(super) now_ms: u64,
}

/// How the records of one egress are kept.
pub(crate) struct Keeping<T> {
    declared: fn() -> Declared,
    /// Keeps what was emitted from a record on.
    keep: fn(&mut FunctionState, Emitter<'_>, &mut dyn AnyBuffer<T>),
    /// Emits again what an address has emitted, at a time.
    bring_back: fn(&mut FunctionState, Emitter<'_>, &mut dyn AnyBuffer<T>, &T),
}

impl<T> Clone for Keeping<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Keeping<T> {}

fn buffer_of<T: 'static, E: 'static>(buffer: &mut dyn AnyBuffer<T>) -> &mut Buffer<T, E> {
    let buffer: &mut dyn Any = buffer.as_any_mut();
    buffer.downcast_mut().expect("the buffer was made for this egress")
}

const fn records<E: Value>() -> BufferSpec<E> {
    BufferSpec::typed(EMITTED, "persisted/record")
}

const fn changes<D: Value, R: Value>() -> TableSpec<D, R> {
    TableSpec::typed(EMITTED, "persisted/data", "persisted/change")
}

/// Adds a change to those of an emitter.
fn add<D, R, S>(state: &mut FunctionState, emitter: Emitter<'_>, data: &D, change: &R)
where
    D: Value + Clone + Hash + Eq,
    R: Value + Clone,
    S: Sums<R>,
{
    let Emitter { id, hash, now_ms } = emitter;
    let mut cursor = state.seek(id, hash, now_ms);
    let table = state.table(&mut cursor, id, changes::<D, R>());
    let mut table = table.unwrap_or_else(|_| unreachable!("it is declared so"));
    match table.get(data).cloned() {
        Some(mut sum) => {
            S::add(&mut sum, change);
            match S::is_nothing(&sum) {
                true => drop(table.remove(data)),
                false => drop(table.insert(data.clone(), sum)),
            }
        }
        None if S::is_nothing(change) => {}
        None => drop(table.insert(data.clone(), change.clone())),
    }
    state.commit(cursor);
}

/// Has `each` called for all that an emitter has changed.
fn sums<D, R>(state: &mut FunctionState, emitter: Emitter<'_>, mut each: impl FnMut(&D, &R))
where
    D: Value + Hash + Eq,
    R: Value,
{
    let Emitter { id, hash, now_ms } = emitter;
    let mut cursor = state.seek(id, hash, now_ms);
    let table = state.table(&mut cursor, id, changes::<D, R>());
    let mut table = table.unwrap_or_else(|_| unreachable!("it is declared so"));
    table.iter().for_each(|(data, change)| each(data, change));
    state.commit(cursor);
}

impl<T: Clone + PartialEq + 'static> Keeping<T> {
    /// Keeps all records, in the order in which each address emitted its own.
    pub(crate) fn records<E: Value + Clone>() -> Self {
        Keeping {
            declared: || Declared::new(records::<E>()),
            keep: |state, Emitter { id, hash, now_ms }, buffer| {
                let mut cursor = state.seek(id, hash, now_ms);
                let kept = state.buffer(&mut cursor, id, records::<E>());
                let mut kept = kept.unwrap_or_else(|_| unreachable!("it is declared so"));
                kept.extend(
                    buffer_of::<T, E>(buffer).uncommitted().map(|(_, record)| record.clone()),
                );
                state.commit(cursor);
            },
            bring_back: |state, Emitter { id, hash, now_ms }, buffer, time| {
                let mut cursor = state.seek(id, hash, now_ms);
                let kept = state.buffer(&mut cursor, id, records::<E>());
                let mut kept = kept.unwrap_or_else(|_| unreachable!("it is declared so"));
                let buffer = buffer_of::<T, E>(buffer);
                kept.iter().for_each(|record| buffer.push(time.clone(), record.clone()));
                state.commit(cursor);
            },
        }
    }

    /// Keeps what changes add up to.
    pub(crate) fn changes<D, R, S>() -> Self
    where
        D: Value + Clone + Hash + Eq,
        R: Value + Clone,
        S: Sums<R>,
    {
        Keeping {
            declared: || Declared::new(changes::<D, R>()),
            keep: |state, emitter, buffer| {
                for (_, (data, change)) in buffer_of::<T, (D, R)>(buffer).uncommitted() {
                    add::<D, R, S>(state, emitter, data, change);
                }
            },
            bring_back: |state, emitter, buffer, time| {
                let buffer = buffer_of::<T, (D, R)>(buffer);
                sums(state, emitter, |data: &D, change: &R| {
                    buffer.push(time.clone(), (data.clone(), change.clone()));
                });
            },
        }
    }

    /// The same of changes that bring their own times, which are forgotten.
    pub(crate) fn updates<D, R, S>() -> Self
    where
        D: Value + Clone + Hash + Eq,
        R: Value + Clone,
        S: Sums<R>,
    {
        Keeping {
            declared: || Declared::new(changes::<D, R>()),
            keep: |state, emitter, buffer| {
                for (_, (data, _, change)) in buffer_of::<T, (D, T, R)>(buffer).uncommitted() {
                    add::<D, R, S>(state, emitter, data, change);
                }
            },
            bring_back: |state, emitter, buffer, time| {
                let buffer = buffer_of::<T, (D, T, R)>(buffer);
                sums(state, emitter, |data: &D, change: &R| {
                    buffer.push(time.clone(), (data.clone(), time.clone(), change.clone()));
                });
            },
        }
    }
}

impl<T> Keeping<T> {
    /// No records yet.
    pub(super) fn state(&self) -> FunctionState {
        FunctionState::new(&[(self.declared)()], None)
    }

    pub(super) fn keep(
        &self,
        state: &mut FunctionState,
        emitter: Emitter<'_>,
        buffer: &mut dyn AnyBuffer<T>,
    ) {
        (self.keep)(state, emitter, buffer);
    }

    pub(super) fn bring_back(
        &self,
        state: &mut FunctionState,
        emitter: Emitter<'_>,
        buffer: &mut dyn AnyBuffer<T>,
        time: &T,
    ) {
        (self.bring_back)(state, emitter, buffer, time);
    }
}

/// The egresses of one worker whose records are kept.
#[derive(Default)]
pub(super) struct KeptEgresses {
    /// The number of the egress, and that of the type whose state its records are.
    kept: Vec<(usize, TypeIndex)>,
    /// What is being emitted again: of which egress, by whom, and how many of these are done.
    back: Option<(usize, Vec<Id>, usize)>,
}

impl KeptEgresses {
    pub(super) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// Whether the state of this type is what was emitted to one of them.
    pub(super) fn has(&self, number: TypeIndex) -> bool {
        self.kept.iter().any(|(_, kept)| *kept == number)
    }
}

impl<M: 'static, T: Clone + PartialEq + 'static, H> Dispatcher<M, T, H> {
    /// Makes entries for the records of egresses that are kept.
    pub(super) fn make_kept_entries(&mut self) {
        let keepings: Vec<_> = self.egresses.keepings().collect();
        for (egress, name, keeping) in keepings {
            // The type whose state the records of an egress are. No function is of it.
            let number = self.names.index(&type_of(name));
            self.make_entries();
            let entry = &mut self.entries[number as usize];
            (entry.is_egress, entry.state) = (true, keeping.state());
            self.kept.kept.push((egress, number));
        }
    }

    /// Keeps what the running invocation has emitted.
    pub(super) fn keep_emitted(&mut self, head: &Head) {
        let emitter = Emitter { id: &head.target, hash: head.hash, now_ms: self.now_ms };
        for (egress, number) in &self.kept.kept {
            if self.egresses.is_touched(*egress) {
                let state = &mut self.entries[*number as usize].state;
                let cut_bytes = state.cut_bytes();
                self.egresses.keep(*egress, state, emitter);
                super::cuts::note_bytes(&mut self.cuts, cut_bytes, state);
            }
        }
    }

    /// Tells, at this time, of what was restored: what state that is watched holds, some more entries, and then
    /// what some more addresses had emitted. Says whether there is more.
    ///
    /// # Errors
    ///
    /// If something is watched as another type than it was stored as.
    pub(crate) fn bring_back(&mut self, time: &T, at_once: usize) -> Result<bool, String> {
        Ok(self.tell_contents(time, at_once)? || self.emit_again(time, at_once))
    }

    /// Tells, at this time, of some more entries of states that are watched, of what was restored. Says whether
    /// there is more.
    fn tell_contents(&mut self, time: &T, mut entries: usize) -> Result<bool, String> {
        for (number, entry) in self.entries.iter_mut().enumerate() {
            if !entry.state.is_watched() {
                continue;
            }
            let told = entry.state.gather_contents(&mut entries);
            self.egresses.put_changes(&mut entry.state, time);
            let of_type = |why| {
                let name = self.names.name(number as TypeIndex);
                format!("of function type \"{name}\": {why}")
            };
            if told.map_err(of_type)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Emits again, at this time, what some more addresses had emitted, of what was restored. Says
    /// whether there is more.
    fn emit_again(&mut self, time: &T, mut addresses: usize) -> bool {
        let mut next = self.kept.back.as_ref().map_or(0, |(at, ..)| *at);
        while let Some(&(egress, number)) = self.kept.kept.get(next) {
            let state = &mut self.entries[number as usize].state;
            let begin = || (next, state.ids(), 0);
            let (_, ids, done) = self.kept.back.get_or_insert_with(begin);
            while let Some(id) = ids.get(*done) {
                if addresses == 0 {
                    return true;
                }
                let emitter = Emitter { id, hash: placement::hash(id), now_ms: self.now_ms };
                self.egresses.bring_back(egress, state, emitter, time);
                (addresses, *done) = (addresses - 1, *done + 1);
            }
            next += 1;
            self.kept.back = None;
        }
        // Nothing is emitted a third time.
        self.kept.back = Some((next, Vec::new(), 0));
        false
    }
}

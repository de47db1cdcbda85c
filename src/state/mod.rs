//! What the functions of one type keep: which addresses there are, and a column per declared value.
//!
//! Writes happen in place and are remembered, so that an invocation that fails is undone and one
//! that succeeds costs nothing more. An address exists while it has a value; one without takes no
//! memory at all.
//!
//! Nothing here knows of messages, time or files.

mod addresses;
mod chunks;
mod column;
mod wheel;

pub(crate) use addresses::Slot;
pub(crate) use wheel::{Wheel, WheelKey};

use crate::address::Id;
use addresses::Addresses;
use column::{AnyColumn, Column};

use crate::value::{Value, ValueSpec};

/// A use of state that does not fit its declaration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Mistake {
    Undeclared(&'static str),
    OtherType { state: &'static str, declared: &'static str, used: &'static str },
}

/// A declared value: makes its column.
#[derive(Clone, Copy)]
pub(crate) struct Declared {
    pub(crate) name: &'static str,
    pub(crate) type_name: &'static str,
    rust_type: &'static str,
    column: fn() -> Box<dyn AnyColumn>,
}

/// Whether two names are the same; most often they are the same constant.
#[inline]
fn same(one: &'static str, other: &'static str) -> bool {
    std::ptr::eq(one, other) || one == other
}

impl Declared {
    pub(crate) fn new<V: Value>(spec: ValueSpec<V>) -> Self {
        Declared {
            name: spec.name(),
            type_name: spec.type_name(),
            rust_type: std::any::type_name::<V>(),
            column: || Box::new(Column::<V>::new()),
        }
    }
}

/// Addresses from which on it pays to fetch state before it is needed.
const MANY: usize = 8192;

/// The address an invocation is for.
pub(crate) struct Cursor {
    hash: u64,
    slot: Option<Slot>,
}

/// All state of one function type on one worker.
#[derive(Default)]
pub(crate) struct FunctionState {
    addresses: Addresses,
    declared: Vec<Declared>,
    columns: Vec<Box<dyn AnyColumn>>,
    /// Columns written since the last commit or rollback, each once.
    written: Vec<usize>,
}

impl FunctionState {
    pub(crate) fn new(declared: &[Declared]) -> Self {
        FunctionState {
            addresses: Addresses::default(),
            declared: declared.to_vec(),
            columns: declared.iter().map(|declared| (declared.column)()).collect(),
            written: Vec::new(),
        }
    }

    /// Finds an address by its id and the id's hash.
    pub(crate) fn seek(&self, id: &Id, hash: u64) -> Cursor {
        Cursor { hash, slot: self.addresses.find(id, hash) }
    }

    /// Whether there is more than the processor's caches hold.
    #[inline]
    pub(crate) fn is_large(&self) -> bool {
        self.addresses.len() >= MANY
    }

    /// The slot that an id with this hash most likely has.
    #[inline]
    pub(crate) fn likely_slot(&self, hash: u64) -> Option<Slot> {
        self.addresses.likely(hash)
    }

    /// Reads what is in a slot, for no other purpose than that it was read.
    #[inline]
    pub(crate) fn touch(&self, slot: Slot) {
        self.addresses.touch(slot);
        for column in &self.columns {
            column.touch(slot);
        }
    }

    /// How many addresses have state.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.addresses.len()
    }

    /// The column of a declared value.
    #[inline]
    fn column<V>(&self, spec: ValueSpec<V>) -> Result<usize, Mistake> {
        let found = self.declared.iter().position(|declared| same(declared.name, spec.name()));
        let at = found.ok_or(Mistake::Undeclared(spec.name()))?;
        match same(self.declared[at].type_name, spec.type_name()) {
            true => Ok(at),
            false => Err(self.other_type(at, spec)),
        }
    }

    /// Two types of one name can only be told apart by what Rust calls them.
    #[cold]
    fn other_type<V>(&self, at: usize, spec: ValueSpec<V>) -> Mistake {
        let Declared { name, type_name, rust_type, .. } = self.declared[at];
        let (declared, used) = match same(type_name, spec.type_name()) {
            true => (rust_type, std::any::type_name::<V>()),
            false => (type_name, spec.type_name()),
        };
        Mistake::OtherType { state: name, declared, used }
    }

    #[inline]
    pub(crate) fn get<V: Value>(
        &self,
        cursor: &Cursor,
        spec: ValueSpec<V>,
    ) -> Result<Option<&V>, Mistake> {
        let at = self.column(spec)?;
        match self.columns[at].of() {
            Some(column) => Ok(cursor.slot.and_then(|slot| column.get(slot))),
            None => Err(self.other_type(at, spec)),
        }
    }

    /// Puts a value in place, or takes it away.
    #[inline]
    pub(crate) fn put<V: Value>(
        &mut self,
        cursor: &mut Cursor,
        id: &Id,
        spec: ValueSpec<V>,
        value: Option<V>,
    ) -> Result<(), Mistake> {
        let at = self.column(spec)?;
        let Some(column) = self.columns[at].of_mut() else {
            return Err(self.other_type(at, spec));
        };
        let slot = match cursor.slot {
            Some(slot) => slot,
            None if value.is_none() => return Ok(()),
            None => {
                let slot = self.addresses.insert(id, cursor.hash);
                cursor.slot = Some(slot);
                slot
            }
        };
        if column.is_unwritten() {
            self.written.push(at);
        }
        let change = column.put(slot, value);
        self.addresses.count_values(slot, change);
        Ok(())
    }

    /// Makes what was written since the last commit last.
    pub(crate) fn commit(&mut self, cursor: Cursor) {
        for at in self.written.drain(..) {
            self.columns[at].commit();
        }
        self.release(cursor);
    }

    /// Undoes what was written since the last commit.
    pub(crate) fn rollback(&mut self, cursor: Cursor) {
        for at in self.written.drain(..) {
            let addresses = &mut self.addresses;
            self.columns[at].rollback(&mut |slot, change| addresses.count_values(slot, change));
        }
        self.release(cursor);
    }

    fn release(&mut self, cursor: Cursor) {
        if let Some(slot) = cursor.slot {
            self.addresses.release_if_empty(slot, cursor.hash);
        }
    }
}

#[cfg(test)]
mod tests;

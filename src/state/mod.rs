//! What the functions of one type keep: which addresses there are, and a column per declared value.
//!
//! Writes happen in place and are remembered, so that an invocation that fails is undone and one
//! that succeeds costs nothing more. An address exists while it has a value; one without takes no
//! memory at all.
//!
//! Nothing here knows of messages, time or files.

mod addresses;
mod column;

pub(crate) use addresses::Slot;
pub(crate) use column::Mistake;

use crate::address::Id;
use addresses::Addresses;
use column::{AnyColumn, Column};

use crate::value::{Value, ValueSpec};

/// A declared value: makes its column.
pub(crate) struct Declared {
    pub(crate) name: &'static str,
    pub(crate) type_name: &'static str,
    column: fn(&'static str, &'static str) -> Box<dyn AnyColumn>,
}

impl Declared {
    pub(crate) fn new<V: Value>(spec: ValueSpec<V>) -> Self {
        Declared {
            name: spec.name(),
            type_name: spec.type_name(),
            column: |name, type_name| Box::new(Column::<V>::new(name, type_name)),
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
    columns: Vec<Box<dyn AnyColumn>>,
    /// Columns written since the last commit or rollback, each once.
    written: Vec<usize>,
}

impl FunctionState {
    pub(crate) fn new(declared: &[Declared]) -> Self {
        FunctionState {
            addresses: Addresses::default(),
            columns: declared.iter().map(|d| (d.column)(d.name, d.type_name)).collect(),
            written: Vec::new(),
        }
    }

    /// Finds an address by its id and the id's hash.
    pub(crate) fn seek(&self, id: &Id, hash: u64) -> Cursor {
        Cursor { hash, slot: self.addresses.find(id, hash) }
    }

    /// The slot that an id with this hash most likely has; `None` where state is small enough to be
    /// in the processor's caches anyway.
    #[inline]
    pub(crate) fn likely_slot(&self, hash: u64) -> Option<Slot> {
        (self.addresses.len() >= MANY).then(|| self.addresses.likely(hash)).flatten()
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

    fn column<V: Value>(&self, spec: ValueSpec<V>) -> Result<usize, Mistake> {
        let name = spec.name();
        let same = |at: &&'static str| std::ptr::eq(*at, name) || **at == *name;
        match self.columns.iter().position(|column| same(&column.name())) {
            Some(at) => Ok(at),
            None => Err(Mistake::Undeclared(name)),
        }
    }

    pub(crate) fn get<V: Value>(
        &self,
        cursor: &Cursor,
        spec: ValueSpec<V>,
    ) -> Result<Option<&V>, Mistake> {
        let at = self.column(spec)?;
        let column = self.columns[at].typed(spec)?;
        Ok(cursor.slot.and_then(|slot| column.get(slot)))
    }

    /// Puts a value in place, or takes it away.
    pub(crate) fn put<V: Value>(
        &mut self,
        cursor: &mut Cursor,
        id: &Id,
        spec: ValueSpec<V>,
        value: Option<V>,
    ) -> Result<(), Mistake> {
        let at = self.column(spec)?;
        let column = self.columns[at].typed_mut(spec)?;
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

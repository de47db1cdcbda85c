//! One declared value of one function type, for all addresses: the value at each slot, and what it
//! was before the running invocation wrote it.

use std::any::Any;
use std::hint::black_box;

use super::addresses::Slot;
use super::chunks::Chunks;
use crate::value::Value;

/// A column of values of some type.
pub(super) trait AnyColumn: Any {
    fn touch(&self, slot: Slot);
    fn commit(&mut self);
    /// Puts the values back; tells each slot whose number of values changes by how much.
    fn rollback(&mut self, changed: &mut dyn FnMut(Slot, i32));
}

impl dyn AnyColumn {
    #[inline]
    pub(super) fn of<V: Value>(&self) -> Option<&Column<V>> {
        (self as &dyn Any).downcast_ref()
    }

    #[inline]
    pub(super) fn of_mut<V: Value>(&mut self) -> Option<&mut Column<V>> {
        (self as &mut dyn Any).downcast_mut()
    }
}

pub(super) struct Column<V> {
    cells: Chunks<Option<V>>,
    /// What was in the slots that the running invocation wrote, oldest first.
    before: Vec<(Slot, Option<V>)>,
}

impl<V: Value> Column<V> {
    pub(super) fn new() -> Self {
        Column { cells: Chunks::default(), before: Vec::new() }
    }

    #[inline]
    pub(super) fn get(&self, slot: Slot) -> Option<&V> {
        self.cells.get(slot)?.as_ref()
    }

    /// Whether nothing was written since the last commit or rollback.
    #[inline]
    pub(super) fn is_unwritten(&self) -> bool {
        self.before.is_empty()
    }

    /// Replaces a value; says by how much the slot's number of values changes.
    #[inline]
    pub(super) fn put(&mut self, slot: Slot, value: Option<V>) -> i32 {
        while self.cells.len() <= slot as usize {
            self.cells.push(None);
        }
        let cell = self.cells.get_mut(slot).expect("it was just made");
        let change = i32::from(value.is_some()) - i32::from(cell.is_some());
        self.before.push((slot, std::mem::replace(cell, value)));
        change
    }
}

impl<V: Value> AnyColumn for Column<V> {
    #[inline]
    fn touch(&self, slot: Slot) {
        black_box(self.get(slot).is_some());
    }

    #[inline]
    fn commit(&mut self) {
        self.before.clear();
    }

    fn rollback(&mut self, changed: &mut dyn FnMut(Slot, i32)) {
        while let Some((slot, before)) = self.before.pop() {
            let cell = self.cells.get_mut(slot).expect("it was written");
            let change = i32::from(before.is_some()) - i32::from(cell.is_some());
            *cell = before;
            changed(slot, change);
        }
    }
}

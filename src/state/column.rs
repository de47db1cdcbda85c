//! One declared value of one function type, for all addresses: the value at each slot, and what it
//! was before the running invocation wrote it.

use std::any::Any;
use std::hint::black_box;

use super::addresses::{Chunks, Slot};
use crate::value::{Value, ValueSpec};

/// A use of state that does not fit its declaration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Mistake {
    Undeclared(&'static str),
    OtherType { state: &'static str, declared: &'static str, used: &'static str },
}

/// A column of values of some type.
pub(super) trait AnyColumn: Any {
    fn name(&self) -> &'static str;
    fn type_name(&self) -> &'static str;
    fn touch(&self, slot: Slot);
    fn commit(&mut self);
    /// Puts the values back; tells each slot whose number of values changes by how much.
    fn rollback(&mut self, changed: &mut dyn FnMut(Slot, i32));
    fn as_any(&self) -> &dyn Any;
    fn as_any_mut(&mut self) -> &mut dyn Any;
}

impl dyn AnyColumn {
    #[inline]
    pub(super) fn typed<V: Value>(&self, spec: ValueSpec<V>) -> Result<&Column<V>, Mistake> {
        match self.as_any().downcast_ref::<Column<V>>() {
            Some(column) if column.is_called(spec.type_name()) => Ok(column),
            _ => Err(self.other_type(spec)),
        }
    }

    #[inline]
    pub(super) fn typed_mut<V: Value>(
        &mut self,
        spec: ValueSpec<V>,
    ) -> Result<&mut Column<V>, Mistake> {
        let mistake = self.other_type(spec);
        match self.as_any_mut().downcast_mut::<Column<V>>() {
            Some(column) if column.is_called(spec.type_name()) => Ok(column),
            _ => Err(mistake),
        }
    }

    fn other_type<V>(&self, spec: ValueSpec<V>) -> Mistake {
        Mistake::OtherType {
            state: self.name(),
            declared: self.type_name(),
            used: spec.type_name(),
        }
    }
}

pub(super) struct Column<V> {
    name: &'static str,
    type_name: &'static str,
    cells: Chunks<Option<V>>,
    /// What was in the slots that the running invocation wrote, oldest first.
    before: Vec<(Slot, Option<V>)>,
}

impl<V: Value> Column<V> {
    pub(super) fn new(name: &'static str, type_name: &'static str) -> Self {
        Column { name, type_name, cells: Chunks::default(), before: Vec::new() }
    }

    fn is_called(&self, type_name: &'static str) -> bool {
        std::ptr::eq(self.type_name, type_name) || self.type_name == type_name
    }

    #[inline]
    pub(super) fn get(&self, slot: Slot) -> Option<&V> {
        self.cells.get(slot)?.as_ref()
    }

    /// Whether nothing was written since the last commit or rollback.
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
    fn name(&self) -> &'static str {
        self.name
    }

    fn type_name(&self) -> &'static str {
        self.type_name
    }

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

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}

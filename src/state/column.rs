//! One declared value of one function type, for all addresses: the value at each slot, and what it
//! was before the running invocation wrote it.

use std::any::Any;
use std::hint::black_box;

use super::addresses::Slot;
use super::chunks::Cells;
use super::deadline::{Item, Upkeep};

/// One declared piece of state, of some kind and type, for all addresses.
pub(super) trait AnyColumn: Any {
    fn touch(&self, slot: Slot);
    /// Makes what was written last.
    fn commit(&mut self, upkeep: &mut Upkeep<'_>);
    /// Makes everything what it was at the last commit.
    fn rollback(&mut self, upkeep: &mut Upkeep<'_>);
    /// Looks after what an item stands for that was given out: takes away what has expired, but not
    /// more than `room` pieces, and sets the item again if there is more. Says how many pieces it
    /// took away.
    fn expire(&mut self, item: Item, now_ms: u64, room: usize, upkeep: &mut Upkeep<'_>) -> usize;
}

impl dyn AnyColumn {
    #[inline]
    pub(super) fn of<C: AnyColumn>(&self) -> Option<&C> {
        (self as &dyn Any).downcast_ref()
    }

    #[inline]
    pub(super) fn of_mut<C: AnyColumn>(&mut self) -> Option<&mut C> {
        (self as &mut dyn Any).downcast_mut()
    }
}

pub(super) struct Column<V> {
    cells: Cells<Option<V>>,
    /// What was in the slots that the running invocation wrote, oldest first.
    before: Vec<(Slot, Option<V>)>,
}

impl<V: 'static> Column<V> {
    pub(super) fn new() -> Self {
        Column { cells: Cells::default(), before: Vec::new() }
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

    /// The slots written since the last commit or rollback.
    pub(super) fn written(&self) -> impl Iterator<Item = Slot> {
        self.before.iter().map(|(slot, _)| *slot)
    }

    /// Replaces a value; says by how much the slot's number of values changes.
    #[inline]
    pub(super) fn put(&mut self, slot: Slot, value: Option<V>) -> i32 {
        let cell = self.cells.get_or_make(slot);
        let change = i32::from(value.is_some()) - i32::from(cell.is_some());
        self.before.push((slot, std::mem::replace(cell, value)));
        change
    }

    /// Takes a value away for good.
    pub(super) fn drop_value(&mut self, slot: Slot) {
        let cell = self.cells.get_mut(slot).expect("it was written");
        assert!(cell.take().is_some(), "there is a value in the slot");
    }
}

impl<V: 'static> AnyColumn for Column<V> {
    #[inline]
    fn touch(&self, slot: Slot) {
        black_box(self.get(slot).is_some());
    }

    #[inline]
    fn commit(&mut self, _: &mut Upkeep<'_>) {
        self.before.clear();
    }

    fn rollback(&mut self, upkeep: &mut Upkeep<'_>) {
        while let Some((slot, before)) = self.before.pop() {
            let cell = self.cells.get_mut(slot).expect("it was written");
            let change = i32::from(before.is_some()) - i32::from(cell.is_some());
            *cell = before;
            upkeep.count(slot, change);
        }
    }

    fn expire(&mut self, _: Item, _: u64, _: usize, _: &mut Upkeep<'_>) -> usize {
        unreachable!("these values live for ever")
    }
}

//! One declared value of one function type, for all addresses: the value at each slot, and what it
//! was before the running invocation wrote it.

use std::any::Any;
use std::hint::black_box;

use super::addresses::Slot;
use super::chunks::Cells;
use super::cuts::Cutting;
use super::deadline::{Item, Upkeep};
use super::pen::Failure;
use super::record::Tag;
use super::restore::Restored;
use super::stamps::Stamps;
#[cfg(feature = "serve")]
use super::visiting::Leave;
use super::walk::Walker;
use crate::codec::{Codec, CodecError};
use crate::expiration::Expiration;
use crate::records::Reader;

/// One declared piece of state, of some kind and type, for all addresses.
pub(super) trait AnyColumn: Any + Stored {
    fn touch(&self, slot: Slot);
    /// Makes what was written last.
    fn commit(&mut self, upkeep: &mut Upkeep<'_>);
    /// Makes everything what it was at the last commit.
    fn rollback(&mut self, upkeep: &mut Upkeep<'_>);
    /// Looks after what an item stands for that was given out: takes away what has expired, but not
    /// more than `room` pieces, and sets the item again if there is more. Says how many pieces it
    /// took away.
    fn expire(&mut self, item: Item, now_ms: u64, room: usize, upkeep: &mut Upkeep<'_>) -> usize;
    /// How what is in its slots becomes one value.
    #[cfg(feature = "serve")]
    fn leaving(&self) -> &dyn Leave;
}

/// How a column is stored and restored.
pub(super) trait Stored {
    /// Writes what a cut contains of it, from a slot on and a place within it. Says where it stopped
    /// if there was no more room.
    fn walk(
        &self,
        from: (Slot, u64),
        walker: &mut Walker<'_>,
    ) -> Result<Option<(Slot, u64)>, Failure>;
    /// Restores a record of its kind.
    fn apply(
        &mut self,
        tag: Tag,
        content: Reader<'_>,
        site: &mut Restored<'_>,
    ) -> Result<(), CodecError>;
    /// When what is in each slot was last written.
    fn stamps_mut(&mut self) -> &mut Stamps;
    /// Looks after what an item stands for that was given out while it had to wait.
    fn resume(&mut self, _: Item, _: &mut Upkeep<'_>) {
        unreachable!("it never had to wait")
    }
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

pub(super) struct Column<V: 'static> {
    pub(super) codec: &'static Codec<V>,
    pub(super) cells: Cells<Option<V>>,
    /// What was in the slot that the running invocation wrote, oldest first.
    pub(super) before: Vec<(Slot, Option<V>)>,
    pub(super) stamps: Stamps,
}

impl<V: 'static> Column<V> {
    pub(super) fn new(codec: &'static Codec<V>) -> Self {
        let (cells, before, stamps) = (Cells::default(), Vec::new(), Stamps::default());
        Column { codec, cells, before, stamps }
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

    /// Notes for cuts what was written.
    fn note(&mut self, cutting: &mut Cutting<'_>) {
        let Column { codec, cells, before, stamps } = self;
        if let Some((slot, was)) = before.first() {
            let is_there = cells.get(*slot).is_some_and(Option::is_some);
            cutting.value(stamps, *slot, was.as_ref().map(|was| (was, None)), is_there, codec);
        }
    }

    /// Puts a value in place that was stored, or takes one away.
    pub(super) fn restore(&mut self, value: Option<V>, site: &mut Restored<'_>) -> Option<Slot> {
        let slot = match value {
            Some(_) => site.settle(),
            None => site.slot()?,
        };
        let cell = self.cells.get_or_make(slot);
        let change = i32::from(value.is_some()) - i32::from(cell.is_some());
        *cell = value;
        site.upkeep.count(slot, change);
        Some(slot)
    }
}

impl<V: 'static> AnyColumn for Column<V> {
    #[inline]
    fn touch(&self, slot: Slot) {
        black_box((self.get(slot).is_some(), self.stamps.get(slot)));
    }

    #[inline]
    fn commit(&mut self, upkeep: &mut Upkeep<'_>) {
        if let Some(mut cutting) = upkeep.cutting() {
            self.note(&mut cutting);
        }
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

    #[cfg(feature = "serve")]
    fn leaving(&self) -> &dyn Leave {
        self
    }
}

impl<V: 'static> Stored for Column<V> {
    fn walk(
        &self,
        from: (Slot, u64),
        walker: &mut Walker<'_>,
    ) -> Result<Option<(Slot, u64)>, Failure> {
        let next = |at| self.cells.next(at);
        walker.each(from, next, &self.stamps, |walker, slot, _| {
            match self.get(slot) {
                Some(value) if walker.range().contains(self.stamps.get(slot)) => {
                    walker.write(walker.id(slot), |pen| pen.value(None, self.codec, value))?;
                }
                _ => {}
            }
            Ok(None)
        })
    }

    fn apply(
        &mut self,
        tag: Tag,
        mut content: Reader<'_>,
        site: &mut Restored<'_>,
    ) -> Result<(), CodecError> {
        let mut value = None;
        if tag == Tag::Value {
            let deadline = site.deadline(&mut content, Expiration::never())?;
            let read = self.codec.read(content.rest())?;
            value = deadline.map(|_| read);
        }
        self.restore(value, site);
        Ok(())
    }

    fn stamps_mut(&mut self) -> &mut Stamps {
        &mut self.stamps
    }
}

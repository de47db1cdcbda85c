//! One declared value that expires, for all addresses: a column of values, and beside it when each
//! of them is over.
//!
//! It is a column of its own so that values that live for ever pay nothing.

use std::hint::black_box;

use super::addresses::Slot;
use super::chunks::Cells;
use super::column::{AnyColumn, Column, Stored};
use super::cuts::Cutting;
use super::deadline::{Deadline, Item, Upkeep};
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

pub(super) struct ExpiringColumn<V: 'static> {
    pub(super) values: Column<V>,
    expiration: Expiration,
    deadlines: Cells<Deadline>,
    /// The deadlines that the running invocation moved, as they were, oldest first.
    before: Vec<(Slot, u64)>,
}

impl<V: 'static> ExpiringColumn<V> {
    pub(super) fn new(expiration: Expiration, codec: &'static Codec<V>) -> Self {
        let (values, deadlines) = (Column::new(codec), Cells::default());
        ExpiringColumn { values, expiration, deadlines, before: Vec::new() }
    }

    /// Whether nothing was written since the last commit or rollback.
    pub(super) fn is_unwritten(&self) -> bool {
        self.values.is_unwritten() && self.before.is_empty()
    }

    pub(super) fn deadline(&self, slot: Slot) -> u64 {
        self.deadlines.get(slot).map_or(0, |deadline| deadline.at)
    }

    /// A value that has not expired.
    pub(super) fn get(&self, slot: Slot, now_ms: u64) -> Option<&V> {
        #[cfg(statefun_planted)]
        if crate::planted::is("expired-when-written") {
            return self.values.get(slot);
        }
        self.values.get(slot).filter(|_| self.deadline(slot) > now_ms)
    }

    /// Moves the deadline of a value that is about to be read, if it must move; says whether it did.
    pub(super) fn renew(&mut self, slot: Slot, now_ms: u64) -> bool {
        if self.get(slot, now_ms).is_none() {
            return false;
        }
        let before = self.deadline(slot);
        let Some(later) = self.expiration.read(before, now_ms) else { return false };
        self.deadlines.get_mut(slot).expect("it has one").at = later;
        self.before.push((slot, before));
        true
    }

    /// Replaces a value; says by how much the slot's number of values changes.
    pub(super) fn put(&mut self, slot: Slot, value: Option<V>, now_ms: u64) -> i32 {
        if value.is_some() {
            let deadline = self.deadlines.get_or_make(slot);
            self.before.push((slot, deadline.at));
            deadline.at = self.expiration.written(now_ms);
        }
        self.values.put(slot, value)
    }

    /// Notes for cuts what was written, or had its deadline moved.
    fn note(&mut self, cutting: &mut Cutting<'_>) {
        let Column { codec, cells, before, stamps } = &mut self.values;
        let written = before.first();
        let moved = self.before.first();
        let slot = written.map(|(slot, _)| *slot).or(moved.map(|(slot, _)| *slot));
        let Some(slot) = slot else { return };
        let is_there = cells.get(slot).is_some_and(Option::is_some);
        let was = written.map_or_else(|| cells.get(slot)?.as_ref(), |(_, was)| was.as_ref());
        let until = self.deadlines.get(slot).map(|deadline| deadline.at);
        let until = moved.map(|(_, before)| *before).or(until);
        cutting.value(stamps, slot, was.map(|was| (was, until)), is_there, codec);
    }
}

impl<V: 'static> AnyColumn for ExpiringColumn<V> {
    fn touch(&self, slot: Slot) {
        self.values.touch(slot);
        black_box(self.deadline(slot));
    }

    fn commit(&mut self, upkeep: &mut Upkeep<'_>) {
        if let Some(mut cutting) = upkeep.cutting() {
            self.note(&mut cutting);
        }
        for slot in self.values.written() {
            // There is none if a value was taken away where there never was one.
            if let Some(deadline) = self.deadlines.get_mut(slot) {
                upkeep.settle(deadline, self.values.get(slot).is_some(), slot, 0);
            }
        }
        self.before.clear();
        self.values.commit(upkeep);
    }

    fn rollback(&mut self, upkeep: &mut Upkeep<'_>) {
        self.values.rollback(upkeep);
        while let Some((slot, before)) = self.before.pop() {
            self.deadlines.get_mut(slot).expect("it has one").at = before;
        }
    }

    fn expire(&mut self, item: Item, now_ms: u64, _: usize, upkeep: &mut Upkeep<'_>) -> usize {
        let deadline = self.deadlines.get_mut(item.slot).expect("what has an item has a deadline");
        deadline.was_due();
        #[cfg(statefun_planted)]
        if crate::planted::is("expired-when-written") {
            return 0;
        }
        if deadline.has_passed(now_ms) {
            if let Some(mut cutting) = upkeep.cutting() {
                let Column { codec, cells, stamps, .. } = &mut self.values;
                let was = cells.get(item.slot).and_then(Option::as_ref);
                let was = was.map(|was| (was, Some(deadline.at)));
                cutting.value(stamps, item.slot, was, false, codec);
            }
            self.values.drop_value(item.slot);
            upkeep.count(item.slot, -1);
            1
        } else {
            upkeep.settle(deadline, true, item.slot, 0);
            0
        }
    }

    #[cfg(feature = "serve")]
    fn leaving(&self) -> &dyn Leave {
        self
    }
}

impl<V: 'static> Stored for ExpiringColumn<V> {
    fn walk(
        &self,
        from: (Slot, u64),
        walker: &mut Walker<'_>,
    ) -> Result<Option<(Slot, u64)>, Failure> {
        let Column { codec, cells, stamps, .. } = &self.values;
        walker.each(
            from,
            |at| cells.next(at),
            stamps,
            |walker, slot, _| {
                match self.values.get(slot) {
                    Some(value) if walker.range().contains(stamps.get(slot)) => {
                        let until = Some(self.deadline(slot));
                        walker.write(walker.id(slot), |pen| pen.value(until, codec, value))?;
                    }
                    _ => {}
                }
                Ok(None)
            },
        )
    }

    fn apply(
        &mut self,
        tag: Tag,
        mut content: Reader<'_>,
        site: &mut Restored<'_>,
    ) -> Result<(), CodecError> {
        let (mut value, mut until) = (None, None);
        if tag == Tag::Value {
            until = site.deadline(&mut content, self.expiration)?;
            value = Some(self.values.codec.read(content.rest())?);
        }
        if let Some(slot) = self.values.restore(value, site) {
            site.set_deadline(self.deadlines.get_or_make(slot), until, 0);
        }
        Ok(())
    }

    fn stamps_mut(&mut self) -> &mut Stamps {
        &mut self.values.stamps
    }
}

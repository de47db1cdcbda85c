//! Where an invocation works on a table or a buffer: the address, the time, and what the columns of
//! its function type share.

use super::Cursor;
use super::addresses::{Addresses, Slot};
use super::deadline::Item;
use super::wheel::Wheel;
use crate::address::Id;

pub(super) struct Site<'a> {
    /// Which column.
    pub(super) at: usize,
    pub(super) id: &'a Id,
    pub(super) cursor: &'a mut Cursor,
    pub(super) addresses: &'a mut Addresses,
    pub(super) written: &'a mut Vec<usize>,
    pub(super) wheel: &'a Wheel<Item>,
}

impl Site<'_> {
    /// The slot of the address, if it has one.
    pub(super) fn slot(&self) -> Option<Slot> {
        self.cursor.slot
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.cursor.now_ms
    }

    /// The slot of the address, which gets one if it has none.
    pub(super) fn settle(&mut self) -> Slot {
        self.cursor.settle(self.id, self.addresses)
    }

    /// Notes that the column is about to be written.
    pub(super) fn note_write(&mut self, is_first: bool) {
        if is_first {
            self.written.push(self.at);
        }
    }

    /// Notes that the address has one piece of state more or less.
    pub(super) fn count(&mut self, slot: Slot, change: i32) {
        self.addresses.count_values(slot, change);
    }

    /// Whether all that has expired is gone for certain. Each piece that has a deadline has an item
    /// that is due no later, except for those written just now, which have not expired.
    pub(super) fn is_swept(&self) -> bool {
        self.wheel.wake_at().is_none_or(|due| due > self.now_ms())
    }
}

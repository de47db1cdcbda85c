//! When state is over, and how that is noticed although nobody looks.
//!
//! A deadline moves with every write, and often with reads. The wheel is not told: it has one item
//! for each piece of state that expires, from the commit that made it until it is gone. An item that
//! comes due while its deadline is further away is set again. So what is written a million times in
//! its lifetime costs the wheel two steps, and a deadline is never before its item, since it only
//! moves on.

use super::addresses::{Addresses, Slot};
use super::cuts::Cuts;
use super::wheel::{Wheel, WheelKey};

/// Where a piece of state is that expires.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Item {
    pub(super) column: u32,
    pub(super) slot: Slot,
    /// Which entry of a table; 0 for what is one piece.
    pub(super) row: u32,
}

/// The time from which on something is not seen, and its item of the wheel.
#[derive(Copy, Clone)]
pub(super) struct Deadline {
    pub(super) at: u64,
    item: WheelKey,
}

/// No item; the wheel gives out no such key.
const NONE: WheelKey = WheelKey::MAX;

impl Default for Deadline {
    fn default() -> Self {
        Deadline { at: 0, item: NONE }
    }
}

impl Deadline {
    #[inline]
    pub(super) fn has_passed(&self, now_ms: u64) -> bool {
        self.at <= now_ms
    }

    /// Notes that its item was given out.
    pub(super) fn was_due(&mut self) {
        self.item = NONE;
    }
}

/// What the columns of a function type share, for one of them.
pub(super) struct Upkeep<'a> {
    pub(super) column: u32,
    pub(super) addresses: &'a mut Addresses,
    pub(super) wheel: &'a mut Wheel<Item>,
    /// If cuts are taken.
    pub(super) cuts: Option<&'a mut Cuts>,
}

impl Upkeep<'_> {
    /// Notes that an address has one piece of state more or less.
    #[inline]
    pub(super) fn count(&mut self, slot: Slot, change: i32) {
        self.addresses.count_values(slot, change);
    }

    /// Sees to it that something has an item exactly if it is there.
    pub(super) fn settle(&mut self, deadline: &mut Deadline, is_there: bool, slot: Slot, row: u32) {
        match (is_there, deadline.item) {
            (true, NONE) => {
                let item = Item { column: self.column, slot, row };
                deadline.item = self.wheel.set(deadline.at, item);
            }
            (false, key) if key != NONE => {
                self.wheel.take_back(key);
                deadline.item = NONE;
            }
            _ => {}
        }
    }
}

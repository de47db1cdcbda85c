//! The addresses of one function type that have state: from an id to a slot, and back.
//!
//! Slots are numbers into [chunks](super::chunks) that never move. The table holds a part of each hash
//! beside the slot and grows without looking at ids.

use std::hint::black_box;

use hashbrown::HashTable;

use super::chunks::Chunks;
use crate::address::Id;
use crate::placement;

/// Where the values of one address are in every column.
pub(crate) type Slot = u32;

/// An address in its slot; free slots keep their last id until they are used again.
struct Row {
    id: Id,
    values: u32,
}

#[derive(Clone, Copy)]
struct Entry {
    /// The lower half of the hash.
    hash: u32,
    slot: Slot,
}

/// A full hash from the half that entries keep. The table wants its high bits mixed.
#[inline]
pub(super) fn spread(half: u32) -> u64 {
    u64::from(half).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[derive(Default)]
pub(super) struct Addresses {
    table: HashTable<Entry>,
    rows: Chunks<Row>,
    free: Vec<Slot>,
}

impl Addresses {
    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    #[inline]
    pub(super) fn find(&self, id: &Id, hash: u64) -> Option<Slot> {
        let half = hash as u32;
        let same = |entry: &Entry| {
            entry.hash == half && self.rows.get(entry.slot).is_some_and(|row| row.id == *id)
        };
        self.table.find(spread(half), same).map(|entry| entry.slot)
    }

    /// The slot of an address with this hash, without a look at its id.
    #[inline]
    pub(super) fn likely(&self, hash: u64) -> Option<Slot> {
        let half = hash as u32;
        self.table.find(spread(half), |entry| entry.hash == half).map(|entry| entry.slot)
    }

    #[inline]
    pub(super) fn touch(&self, slot: Slot) {
        black_box(self.rows.get(slot).map(|row| row.values));
    }

    /// The address in a slot that is taken.
    pub(super) fn id(&self, slot: Slot) -> &Id {
        &self.rows.get(slot).expect("the slot is taken").id
    }

    /// All addresses that have state.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Slot, &Id)> {
        let numbered = (0..).zip(self.rows.iter());
        numbered.filter(|(_, row)| row.values > 0).map(|(slot, row)| (slot, &row.id))
    }

    /// A slot for an address that has none.
    pub(super) fn insert(&mut self, id: &Id, hash: u64) -> Slot {
        let row = Row { id: id.clone(), values: 0 };
        let slot = match self.free.pop() {
            Some(slot) => {
                *self.rows.get_mut(slot).expect("free slots exist") = row;
                slot
            }
            None => {
                let slot = Slot::try_from(self.rows.len())
                    .expect("fewer than 2^32 addresses of one type have state on a worker");
                self.rows.push(row);
                slot
            }
        };
        let entry = Entry { hash: hash as u32, slot };
        self.table.insert_unique(spread(entry.hash), entry, |entry| spread(entry.hash));
        slot
    }

    /// Notes that an address has one value more or less.
    #[inline]
    pub(super) fn count_values(&mut self, slot: Slot, change: i32) {
        if change != 0 {
            let row = self.rows.get_mut(slot).expect("the slot is taken");
            row.values = row.values.checked_add_signed(change).expect("values are counted");
        }
    }

    /// Forgets an address that has no value left.
    #[inline]
    pub(super) fn release_if_empty(&mut self, slot: Slot, hash: u64) {
        if self.rows.get(slot).is_some_and(|row| row.values == 0) {
            let half = hash as u32;
            if let Ok(entry) = self.table.find_entry(spread(half), |entry| entry.slot == slot) {
                entry.remove();
                self.free.push(slot);
            }
        }
    }

    /// The same for an address whose hash is not at hand.
    pub(super) fn release_if_empty_by_id(&mut self, slot: Slot) {
        if let Some(row) = self.rows.get(slot) {
            self.release_if_empty(slot, placement::hash(&row.id));
        }
    }
}

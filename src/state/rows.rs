//! The entries of one table: rows that keep their numbers, and an index from keys to rows.
//!
//! The order of rows follows from what was done with them and from nothing else. The index keeps a
//! part of each hash, as the rows do, so that nothing but finding a key runs code of its type.

use std::borrow::Borrow;
use std::num::NonZeroU32;

use hashbrown::HashTable;

use super::addresses::spread;
use super::chunks::{Cells, Chunks};
use super::deadline::Deadline;
use super::stamps::{Stamp, Stamps};

/// The number of a row in its table; it stays the same while the entry is there.
pub(super) type RowNumber = u32;

/// A part of a hash. Not zero, so that a row that is free takes no room to say so.
pub(super) type Half = NonZeroU32;

/// The part of a hash that is kept.
pub(super) fn half(hash: u64) -> Half {
    Half::new(hash as u32).unwrap_or(Half::MIN)
}

pub(super) struct Row<K, V> {
    half: Half,
    pub(super) key: K,
    pub(super) value: V,
}

#[derive(Clone, Copy)]
struct Entry {
    half: Half,
    row: RowNumber,
}

fn spread_again(entry: &Entry) -> u64 {
    spread(entry.half.get())
}

/// As many rows are looked through one by one. Most tables are small, and then an index would be
/// larger than what is in them.
const UNINDEXED: usize = 8;

pub(super) struct Rows<K, V> {
    /// Of all rows that are not free, as soon as there were more than a few.
    index: HashTable<Entry>,
    rows: Chunks<Option<Row<K, V>>>,
    /// Rows that are free; the last is taken first.
    free: Vec<RowNumber>,
    /// Since when rows are not seen; none, in a table whose entries live for ever.
    deadlines: Cells<Deadline>,
    /// None, if no cuts are taken.
    stamps: Option<Box<Stamps>>,
}

impl<K, V> Default for Rows<K, V> {
    fn default() -> Self {
        let (rows, deadlines) = (Chunks::default(), Cells::default());
        Rows { index: HashTable::new(), rows, free: Vec::new(), deadlines, stamps: None }
    }
}

impl<K, V> Rows<K, V> {
    pub(super) fn len(&self) -> usize {
        self.rows.len() - self.free.len()
    }

    fn is_indexed(&self) -> bool {
        self.rows.len() > UNINDEXED
    }

    /// One more than the highest number of a row there ever was.
    pub(super) fn end(&self) -> RowNumber {
        self.rows.len() as RowNumber
    }

    pub(super) fn find<Q: Eq + ?Sized>(&self, half: Half, key: &Q) -> Option<RowNumber>
    where
        K: Borrow<Q>,
    {
        let same = |row: &Row<K, V>| row.half == half && row.key.borrow() == key;
        if !self.is_indexed() {
            return self.iter().find(|(_, row)| same(row)).map(|(number, _)| number);
        }
        let same = |entry: &Entry| entry.half == half && self.get(entry.row).is_some_and(same);
        self.index.find(spread(half.get()), same).map(|entry| entry.row)
    }

    pub(super) fn get(&self, row: RowNumber) -> Option<&Row<K, V>> {
        self.rows.get(row)?.as_ref()
    }

    /// The value in a row that is not free.
    pub(super) fn value_mut(&mut self, row: RowNumber) -> &mut V {
        let row = self.rows.get_mut(row).and_then(Option::as_mut);
        &mut row.expect("the row is not free").value
    }

    /// All rows that are not free, by number.
    pub(super) fn iter(&self) -> impl Iterator<Item = (RowNumber, &Row<K, V>)> {
        let numbered = (0..).zip(self.rows.iter());
        numbered.filter_map(|(number, row)| Some((number, row.as_ref()?)))
    }

    /// Adds an entry whose key is not there.
    pub(super) fn insert(&mut self, half: Half, key: K, value: V) -> RowNumber {
        let number = match self.free.pop() {
            Some(number) => number,
            None => {
                let number = RowNumber::try_from(self.rows.len())
                    .expect("fewer than 2^32 entries of one table are there at once");
                self.rows.push(None);
                if self.rows.len() == UNINDEXED + 1 {
                    self.make_index();
                }
                number
            }
        };
        self.fill(number, Row { half, key, value });
        number
    }

    /// Empties a row, which is the next to be filled.
    pub(super) fn take(&mut self, number: RowNumber) -> Row<K, V> {
        let row = self.rows.get_mut(number).and_then(Option::take).expect("the row is not free");
        if self.is_indexed() {
            let found = self.index.find_entry(spread(row.half.get()), |entry| entry.row == number);
            let Ok(entry) = found else { unreachable!("the row {number} is indexed") };
            entry.remove();
        }
        self.free.push(number);
        row
    }

    /// Undoes the last [`take`](Self::take).
    pub(super) fn put_back(&mut self, number: RowNumber, row: Row<K, V>) {
        assert_eq!(self.free.pop(), Some(number), "the row was emptied last");
        self.fill(number, row);
    }

    fn make_index(&mut self) {
        let numbered = (0..).zip(self.rows.iter());
        for (number, row) in numbered.filter_map(|(number, row)| Some((number, row.as_ref()?))) {
            let entry = Entry { half: row.half, row: number };
            self.index.insert_unique(spread_again(&entry), entry, spread_again);
        }
    }

    fn fill(&mut self, number: RowNumber, row: Row<K, V>) {
        if self.is_indexed() {
            let entry = Entry { half: row.half, row: number };
            self.index.insert_unique(spread_again(&entry), entry, spread_again);
        }
        *self.rows.get_mut(number).expect("there is such a row") = Some(row);
    }

    pub(super) fn deadline(&self, row: RowNumber) -> u64 {
        self.deadlines.get(row).map_or(0, |deadline| deadline.at)
    }

    pub(super) fn deadline_mut(&mut self, row: RowNumber) -> &mut Deadline {
        self.deadlines.get_or_make(row)
    }

    /// The deadlines of all rows, free or not.
    pub(super) fn deadlines_mut(&mut self) -> impl Iterator<Item = &mut Deadline> {
        self.deadlines.iter_mut()
    }
    pub(super) fn stamps(&self) -> &Stamps {
        self.stamps.as_deref().unwrap_or(Stamps::NONE)
    }

    pub(super) fn set_stamp(&mut self, row: RowNumber, stamp: Stamp) {
        self.stamps.get_or_insert_default().set(row, stamp);
    }
}

//! One declared table of one function type, for all addresses, and what the running invocation
//! changed in it.
//!
//! Every change is remembered by itself, and nothing is ever copied: what an invocation costs, also
//! one that is undone, depends on what it changes and not on how much there is.

use std::borrow::Borrow;
use std::hash::{BuildHasher, Hash, RandomState};
use std::hint::black_box;

use super::addresses::Slot;
use super::chunks::Cells;
use super::column::AnyColumn;
use super::deadline::{Item, Upkeep};
use super::rows::{Half, Row, RowNumber, Rows, half};
use super::site::Site;
use super::stamps::Stamps;
use super::table_stored::TableAside;
#[cfg(feature = "serve")]
use super::visiting::Leave;
use crate::codec::Codec;
use crate::expiration::Expiration;

pub(super) struct TableColumn<K: 'static, V: 'static> {
    /// The tables that are not empty, and those that the running invocation made or emptied.
    pub(super) cells: Cells<Option<Box<Rows<K, V>>>>,
    pub(super) expiration: Expiration,
    pub(super) codecs: (&'static Codec<K>, &'static Codec<V>),
    /// With a seed of its own, so that nobody can choose keys that are found slowly. The order of
    /// entries does not depend on it.
    hasher: RandomState,
    /// What the running invocation changed, oldest first.
    pub(super) before: Vec<(Slot, Before<K, V>)>,
    /// Of whole tables: when something in them was last written.
    pub(super) stamps: Stamps,
}

/// What there was before a change.
pub(super) enum Before<K, V> {
    NoTable,
    /// The whole of it, when the table was cleared.
    Table(Box<Rows<K, V>>),
    NoRow(RowNumber),
    Row(RowNumber, Row<K, V>),
    Value(RowNumber, V),
    Deadline(RowNumber, u64),
}

impl<K: Hash + Eq + 'static, V: 'static> TableColumn<K, V> {
    pub(super) fn new(
        expiration: Expiration,
        codecs: (&'static Codec<K>, &'static Codec<V>),
    ) -> Self {
        let (cells, hasher, before) = (Cells::default(), RandomState::new(), Vec::new());
        TableColumn { cells, expiration, codecs, hasher, before, stamps: Stamps::default() }
    }

    pub(super) fn half<Q: Hash + ?Sized>(&self, key: &Q) -> Half {
        half(self.hasher.hash_one(key))
    }

    pub(super) fn rows(&self, slot: Slot) -> Option<&Rows<K, V>> {
        self.cells.get(slot)?.as_deref()
    }

    pub(super) fn rows_mut(&mut self, slot: Slot) -> &mut Rows<K, V> {
        let rows = self.cells.get_mut(slot).and_then(Option::as_deref_mut);
        rows.expect("there is a table in the slot")
    }

    /// Whether a row that is not free can be seen.
    fn is_seen(&self, rows: &Rows<K, V>, row: RowNumber, now_ms: u64) -> bool {
        self.expiration.is_never() || rows.deadline(row) > now_ms
    }

    /// Moves a deadline, and remembers where it was.
    fn set_deadline(&mut self, slot: Slot, row: RowNumber, deadline: u64) {
        let moved = &mut self.rows_mut(slot).deadline_mut(row).at;
        let before = std::mem::replace(moved, deadline);
        self.before.push((slot, Before::Deadline(row, before)));
    }

    /// Moves the deadline of a row that was just written.
    fn set_written(&mut self, slot: Slot, row: RowNumber, now_ms: u64) {
        if !self.expiration.is_never() {
            self.set_deadline(slot, row, self.expiration.written(now_ms));
        }
    }

    /// Takes a table away that has no entry any more.
    pub(super) fn release_if_empty(&mut self, slot: Slot, upkeep: &mut Upkeep<'_>) {
        if self.rows(slot).is_some_and(|rows| rows.len() == 0) {
            let rows = self.cells.get_mut(slot).and_then(Option::take);
            rows.into_iter().for_each(|mut rows| bury(&mut rows, upkeep));
            upkeep.count(slot, -1);
        }
    }
}

/// Takes back the items of a table that is no more.
pub(super) fn bury<K, V>(rows: &mut Rows<K, V>, upkeep: &mut Upkeep<'_>) {
    for deadline in rows.deadlines_mut() {
        upkeep.settle(deadline, false, 0, 0);
    }
}

impl<K: Hash + Eq + 'static, V: 'static> AnyColumn for TableColumn<K, V> {
    fn touch(&self, slot: Slot) {
        black_box(self.rows(slot).map(Rows::len));
    }

    fn commit(&mut self, upkeep: &mut Upkeep<'_>) {
        let mut needed_from = upkeep.cutting().and_then(|mut cutting| self.note(&mut cutting));
        let mut changes = std::mem::take(&mut self.before);
        for (slot, before) in changes.drain(..) {
            match before {
                Before::Table(mut rows) => {
                    bury(&mut rows, upkeep);
                    if let Some(from) = needed_from.take()
                        && let Some(mut cutting) = upkeep.cutting()
                    {
                        let (codecs, expiration) = (self.codecs, self.expiration);
                        cutting.put_aside(slot, |id| {
                            Box::new(TableAside { id, rows, from, codecs, expiration })
                        });
                    }
                }
                // What counts is what is there now. If the table of this change was cleared since,
                // it is looked at in vain.
                Before::NoRow(row) | Before::Row(row, _) if !self.expiration.is_never() => {
                    let rows = self.cells.get_mut(slot).and_then(Option::as_deref_mut);
                    if let Some(rows) = rows {
                        let is_there = rows.get(row).is_some();
                        upkeep.settle(rows.deadline_mut(row), is_there, slot, row);
                    }
                }
                _ => {}
            }
            self.release_if_empty(slot, upkeep);
        }
        self.before = changes;
    }

    fn rollback(&mut self, upkeep: &mut Upkeep<'_>) {
        while let Some((slot, before)) = self.before.pop() {
            match before {
                Before::NoTable => {
                    let rows = self.cells.get_mut(slot).and_then(Option::take);
                    assert!(rows.is_some_and(|rows| rows.len() == 0), "all was taken out again");
                    upkeep.count(slot, -1);
                }
                Before::Table(rows) => {
                    let cell = self.cells.get_mut(slot).expect("there was a table in the slot");
                    assert!(cell.replace(rows).is_none(), "there is no other table");
                    upkeep.count(slot, 1);
                }
                Before::NoRow(row) => drop(self.rows_mut(slot).take(row)),
                Before::Row(number, row) => self.rows_mut(slot).put_back(number, row),
                Before::Value(row, value) => *self.rows_mut(slot).value_mut(row) = value,
                Before::Deadline(row, at) => self.rows_mut(slot).deadline_mut(row).at = at,
            }
        }
    }

    fn expire(&mut self, item: Item, now_ms: u64, _: usize, upkeep: &mut Upkeep<'_>) -> usize {
        let Item { slot, row, .. } = item;
        let rows = self.rows_mut(slot);
        let deadline = rows.deadline_mut(row);
        deadline.was_due();
        if !deadline.has_passed(now_ms) {
            upkeep.settle(deadline, true, slot, row);
            return 0;
        }
        if let Some(mut cutting) = upkeep.cutting() {
            self.note_expired(slot, row, &mut cutting);
        }
        let rows = self.rows_mut(slot);
        rows.take(row);
        self.release_if_empty(slot, upkeep);
        1
    }

    #[cfg(feature = "serve")]
    fn leaving(&self) -> &dyn Leave {
        self
    }
}

/// The table of one address, during an invocation.
pub(crate) struct TableAt<'a, K: 'static, V: 'static> {
    pub(super) column: &'a mut TableColumn<K, V>,
    pub(super) site: Site<'a>,
}

impl<K: Hash + Eq + 'static, V: 'static> TableAt<'_, K, V> {
    fn rows(&self) -> Option<(Slot, &Rows<K, V>)> {
        let slot = self.site.slot()?;
        Some((slot, self.column.rows(slot)?))
    }

    /// The row of a key, if it can be seen.
    fn find<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<(Slot, RowNumber)>
    where
        K: Borrow<Q>,
    {
        let (slot, rows) = self.rows()?;
        let row = rows.find(self.column.half(key), key)?;
        self.column.is_seen(rows, row, self.site.now_ms()).then_some((slot, row))
    }

    /// Moves the deadline of a row that is about to be read, if it must move.
    fn renew(&mut self, slot: Slot, row: RowNumber) {
        let column = &mut *self.column;
        let deadline = column.rows(slot).map_or(0, |rows| rows.deadline(row));
        if let Some(later) = column.expiration.read(deadline, self.site.now_ms()) {
            self.site.note_write(column.before.is_empty());
            column.set_deadline(slot, row, later);
        }
    }

    pub(crate) fn get<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let (slot, row) = self.find(key)?;
        self.renew(slot, row);
        self.column.rows(slot)?.get(row).map(|row| &row.value)
    }

    /// Says whether there was no such entry.
    pub(crate) fn insert(&mut self, key: K, value: V) -> bool {
        let (column, now_ms) = (&mut *self.column, self.site.now_ms());
        let half = column.half(&key);
        self.site.note_write(column.before.is_empty());
        let slot = self.site.settle();
        let cell = column.cells.get_or_make(slot);
        if cell.is_none() {
            *cell = Some(Box::default());
            column.before.push((slot, Before::NoTable));
            self.site.count(slot, 1);
        }
        let rows = column.rows_mut(slot);
        let Some(row) = rows.find(half, &key) else {
            let row = rows.insert(half, key, value);
            column.before.push((slot, Before::NoRow(row)));
            column.set_written(slot, row, now_ms);
            return true;
        };
        // An entry that has expired and is still there serves for the new one.
        let before = std::mem::replace(rows.value_mut(row), value);
        let was_seen = column.rows(slot).is_some_and(|rows| column.is_seen(rows, row, now_ms));
        column.before.push((slot, Before::Value(row, before)));
        column.set_written(slot, row, now_ms);
        !was_seen
    }

    /// Says whether there was such an entry.
    pub(crate) fn remove<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        let Some((slot, row)) = self.find(key) else { return false };
        self.site.note_write(self.column.before.is_empty());
        let removed = self.column.rows_mut(slot).take(row);
        self.column.before.push((slot, Before::Row(row, removed)));
        true
    }

    pub(crate) fn clear(&mut self) {
        let column = &mut *self.column;
        if let Some(slot) = self.site.slot()
            && let Some(rows) = column.cells.get_mut(slot).and_then(Option::take)
        {
            self.site.note_write(column.before.is_empty());
            column.before.push((slot, Before::Table(rows)));
            self.site.count(slot, -1);
        }
    }

    pub(crate) fn len(&self) -> usize {
        let Some((_, rows)) = self.rows() else { return 0 };
        match self.column.expiration.is_never() || self.site.is_swept() {
            true => rows.len(),
            false => self.seen().count(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.seen().next().is_none()
    }

    fn seen(&self) -> impl Iterator<Item = (RowNumber, &Row<K, V>)> {
        let (column, now_ms) = (&*self.column, self.site.now_ms());
        self.rows().into_iter().flat_map(move |(_, rows)| {
            rows.iter().filter(move |(number, _)| column.is_seen(rows, *number, now_ms))
        })
    }

    pub(crate) fn iter(&mut self) -> impl Iterator<Item = (&K, &V)> {
        self.renew_all();
        self.seen().map(|(_, row)| (&row.key, &row.value))
    }

    /// Moves the deadlines of all rows that are about to be read.
    fn renew_all(&mut self) {
        let Some((slot, rows)) = self.rows() else { return };
        if !self.column.expiration.counts_reads() {
            return;
        }
        for number in 0..rows.end() {
            let rows = self.column.rows(slot).filter(|rows| rows.get(number).is_some());
            let now_ms = self.site.now_ms();
            if rows.is_some_and(|rows| self.column.is_seen(rows, number, now_ms)) {
                self.renew(slot, number);
            }
        }
    }
}

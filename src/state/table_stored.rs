//! How tables are stored and restored: entry by entry, so that one of a million of them is a little of
//! a delta and never much of a slice.

use std::hash::Hash;

use super::addresses::Slot;
use super::column::Stored;
use super::cuts::Cutting;
use super::pen::Failure;
use super::record::Tag;
use super::restore::Restored;
use super::rows::{RowNumber, Rows};
use super::stamps::Stamps;
use super::table::{Before, TableColumn, bury};
use super::walk::{Aside, Walker};
use crate::address::Id;
use crate::codec::{Codec, CodecError};
use crate::expiration::Expiration;
use crate::records::Reader;

type Codecs<K, V> = (&'static Codec<K>, &'static Codec<V>);

/// A table that was cleared before the walk had passed it.
pub(super) struct TableAside<K: 'static, V: 'static> {
    pub(super) id: Id,
    pub(super) rows: Box<Rows<K, V>>,
    pub(super) from: u64,
    pub(super) codecs: Codecs<K, V>,
    pub(super) expiration: Expiration,
}

impl<K: 'static, V: 'static> Aside for TableAside<K, V> {
    fn walk(&mut self, walker: &mut Walker<'_>) -> Result<bool, Failure> {
        let TableAside { id, rows, from, codecs, expiration } = self;
        match walk_rows(rows, id, *from, *codecs, *expiration, walker)? {
            Some(row) => {
                *from = row;
                Ok(false)
            }
            None => Ok(true),
        }
    }
}

fn walk_rows<K, V>(
    rows: &Rows<K, V>,
    id: &Id,
    from: u64,
    codecs: Codecs<K, V>,
    expiration: Expiration,
    walker: &mut Walker<'_>,
) -> Result<Option<u64>, Failure> {
    let (stamps, range) = (rows.stamps(), walker.range());
    let next = |row: RowNumber| (row < rows.end()).then_some(row);
    let stopped = walker.each((from as RowNumber, 0), next, stamps, |walker, number, _| {
        match rows.get(number) {
            Some(row) if range.contains(stamps.get(number)) => {
                let deadline = (!expiration.is_never()).then(|| rows.deadline(number));
                let entry = (&row.key, &row.value);
                walker.write(id, |pen| pen.entry(deadline, codecs, entry))?;
            }
            _ => {}
        }
        Ok(None)
    })?;
    Ok(stopped.map(|(row, _)| u64::from(row)))
}

impl<K: Hash + Eq + 'static, V: 'static> TableColumn<K, V> {
    /// Notes for cuts what was changed. If a table was cleared of which a walk needs something yet,
    /// it says from which row on.
    pub(super) fn note(&mut self, cutting: &mut Cutting<'_>) -> Option<u64> {
        let TableColumn { cells, expiration, codecs, before, stamps, .. } = self;
        let &(slot, ref first) = before.first()?;
        let stamp = stamps.get(slot);
        let needed_from = cutting.needs_from(slot, stamp);
        let was_there = !matches!(first, Before::NoTable);
        let clears = |(_, before): &(Slot, Before<K, V>)| matches!(before, Before::Table(_));
        let last_clear = before.iter().rposition(clears);
        let first_clear = before.iter().position(clears).filter(|_| was_there);
        let mut live = cells.get_mut(slot).and_then(Option::as_deref_mut);
        // What was done with the table that was there, and what with the one that is there.
        if was_there {
            let end = first_clear.unwrap_or(before.len());
            let (changes, cleared) = before.split_at_mut(end);
            let rows = match cleared.first_mut() {
                Some((_, Before::Table(rows))) => Some(&mut **rows),
                _ => live.as_deref_mut(),
            };
            let rows = rows.expect("a table that was there is there, or was put aside");
            if needed_from.is_some() {
                keep(rows, slot, changes, *codecs, *expiration, cutting);
            }
            for (_, change) in changes {
                let number = change.row();
                let stamp = rows.stamps().get(number);
                if let Before::Row(_, row) = change {
                    cutting.removed(slot, stamp, codecs.0, &row.key);
                }
                let is_there = !matches!(change, Before::NoRow(_));
                rows.set_stamp(number, cutting.written(stamp, is_there));
            }
        }
        let since = if was_there { last_clear } else { last_clear.or(Some(0)) };
        if let (Some(since), Some(rows)) = (since, live) {
            let changes = before[since..].iter().map(|(_, change)| change);
            for change in changes.filter(|change| change.is_of_row()) {
                rows.set_stamp(change.row(), cutting.written(stamp, false));
            }
        }
        if first_clear.is_some() {
            cutting.cleared(slot, stamp);
        }
        let is_the_same = was_there && first_clear.is_none();
        stamps.set(slot, cutting.written(stamp, is_the_same));
        needed_from.filter(|_| first_clear.is_some())
    }

    /// Notes for cuts that an entry is about to be taken away since it has expired.
    pub(super) fn note_expired(
        &mut self,
        slot: Slot,
        number: RowNumber,
        cutting: &mut Cutting<'_>,
    ) {
        let codecs = self.codecs;
        let rows = self.rows_mut(slot);
        let stamp = rows.stamps().get(number);
        let row = rows.get(number).expect("what has an item is there");
        if cutting.needs(slot, number, stamp) {
            let deadline = Some(rows.deadline(number));
            cutting.keep(slot, |pen| pen.entry(deadline, codecs, (&row.key, &row.value)));
        }
        cutting.removed(slot, stamp, codecs.0, &row.key);
    }
}

/// Writes for a walk what rows were that were changed, and that it still needs.
fn keep<K, V>(
    rows: &Rows<K, V>,
    slot: Slot,
    changes: &[(Slot, Before<K, V>)],
    codecs: Codecs<K, V>,
    expiration: Expiration,
    cutting: &mut Cutting<'_>,
) {
    // Row by row, and the changes of each in turn.
    let mut order: Vec<usize> = (0..changes.len()).collect();
    order.sort_by_key(|at| (changes[*at].1.row(), *at));
    for order in order.chunk_by(|one, other| changes[*one].1.row() == changes[*other].1.row()) {
        let changes = || order.iter().map(|at| &changes[*at].1);
        let first = changes().next().expect("no group is empty");
        let number = first.row();
        if matches!(first, Before::NoRow(_))
            || !cutting.needs(slot, number, rows.stamps().get(number))
        {
            continue;
        }
        let live = rows.get(number);
        let taken = changes().find_map(|change| match change {
            Before::Row(_, row) => Some(row),
            _ => None,
        });
        // The first of these is of the entry that was there, whatever came into its row since.
        let value = changes().find_map(|change| match change {
            Before::Value(_, value) => Some(value),
            Before::Row(_, row) => Some(&row.value),
            _ => None,
        });
        let deadline = changes().find_map(|change| match change {
            Before::Deadline(_, at) => Some(*at),
            _ => None,
        });
        let row = taken.or(live).expect("an entry that was there is there, or was taken");
        let value = value.unwrap_or(&row.value);
        let deadline = deadline.unwrap_or_else(|| rows.deadline(number));
        let deadline = (!expiration.is_never()).then_some(deadline);
        cutting.keep(slot, |pen| pen.entry(deadline, codecs, (&row.key, value)));
    }
}

impl<K, V> Before<K, V> {
    fn is_of_row(&self) -> bool {
        !matches!(self, Before::NoTable | Before::Table(_))
    }

    fn row(&self) -> RowNumber {
        match self {
            Before::NoRow(row)
            | Before::Row(row, _)
            | Before::Value(row, _)
            | Before::Deadline(row, _) => *row,
            Before::NoTable | Before::Table(_) => unreachable!("a table is more than a row"),
        }
    }
}

impl<K: Hash + Eq + 'static, V: 'static> Stored for TableColumn<K, V> {
    fn walk(
        &self,
        from: (Slot, u64),
        walker: &mut Walker<'_>,
    ) -> Result<Option<(Slot, u64)>, Failure> {
        let TableColumn { cells, expiration, codecs, stamps, .. } = self;
        walker.each(
            from,
            |at| cells.next(at),
            stamps,
            |walker, slot, row| match self.rows(slot) {
                Some(rows) => walk_rows(rows, walker.id(slot), row, *codecs, *expiration, walker),
                None => Ok(None),
            },
        )
    }

    fn apply(
        &mut self,
        tag: Tag,
        mut content: Reader<'_>,
        site: &mut Restored<'_>,
    ) -> Result<(), CodecError> {
        match tag {
            Tag::Entry => {
                let deadline = site.deadline(&mut content, self.expiration)?;
                let key = self.codecs.0.read(content.with_length()?)?;
                match deadline {
                    Some(deadline) => {
                        let value = self.codecs.1.read(content.rest())?;
                        self.restore(key, value, deadline, site);
                    }
                    None => self.take_away(&key, site),
                }
            }
            Tag::Removed => self.take_away(&self.codecs.0.read(content.rest())?, site),
            _ => {
                if let Some(slot) = site.slot()
                    && let Some(mut rows) = self.cells.get_mut(slot).and_then(Option::take)
                {
                    bury(&mut rows, &mut site.upkeep);
                    site.upkeep.count(slot, -1);
                }
            }
        }
        Ok(())
    }

    fn stamps_mut(&mut self) -> &mut Stamps {
        &mut self.stamps
    }
}

impl<K: Hash + Eq + 'static, V: 'static> TableColumn<K, V> {
    fn restore(&mut self, key: K, value: V, deadline: u64, site: &mut Restored<'_>) {
        let half = self.half(&key);
        let slot = site.settle();
        let cell = self.cells.get_or_make(slot);
        if cell.is_none() {
            site.upkeep.count(slot, 1);
        }
        let rows = cell.get_or_insert_default();
        let row = match rows.find(half, &key) {
            Some(row) => {
                *rows.value_mut(row) = value;
                row
            }
            None => rows.insert(half, key, value),
        };
        if !self.expiration.is_never() {
            site.set_deadline(rows.deadline_mut(row), Some(deadline), row);
        }
    }

    fn take_away(&mut self, key: &K, site: &mut Restored<'_>) {
        let half = self.half(key);
        if let Some(slot) = site.slot()
            && let Some(rows) = self.cells.get_mut(slot).and_then(Option::as_deref_mut)
            && let Some(row) = rows.find(half, key)
        {
            rows.take(row);
            if !self.expiration.is_never() {
                site.set_deadline(rows.deadline_mut(row), None, row);
            }
            self.release_if_empty(slot, &mut site.upkeep);
        }
    }
}

//! The walk that writes what state was at a cut, a slice at a time, while invocations go on.
//!
//! Columns are walked in turn, and in each of them slots in ascending order. Whatever is written before
//! the walk has come to it is put into the walk's own records as it was, when the invocation that wrote
//! it is committed; its stamp then tells the walk to pass over it. A table or a buffer that is cleared
//! is put aside and walked where it is. So a slot that is free holds nothing that the walk still needs
//! and can be used again at once: what it held was written when it was taken away.
//!
//! A buffer is not written as it was when something is appended, since there may be much of it. It is
//! *pinned*: noted how far it went. What expires is swept from a buffer only when the walk has passed.

use std::collections::{BTreeSet, HashMap, VecDeque};

use super::addresses::{Addresses, Slot};
use super::chunks::CHUNK;
use super::column::AnyColumn;
use super::deadline::Item;
use super::elements::Elements;
use super::pen::{ELEMENTS_BYTES, Failure, Pen, Pin};
use super::stamps::{Range, Stamp, Stamps};
use super::tombstones::{self, Tombstones};
use crate::address::Id;
use crate::codec::{Codec, Unwritable};
use crate::records::{Mark, Records};

/// Takes the records of a cut, by bin.
pub(crate) trait Sink {
    /// Takes a record. Those of a bin are to be restored in the order in which they come.
    fn put(&mut self, bin: u16, record: &[u8]);
}

impl Sink for Records {
    fn put(&mut self, bin: u16, record: &[u8]) {
        self.push(bin, record);
    }
}

/// How much one call does. The last unit may be larger than what is left.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Budget {
    /// Units that are looked at, or passed over together.
    pub(crate) units: usize,
    /// Bytes that are written.
    pub(crate) bytes: usize,
}

impl Budget {
    /// No limit.
    pub(super) const NONE: Budget = Budget { units: usize::MAX, bytes: usize::MAX };
}

/// How far a walk is: the unit to look at next.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) column: u32,
    pub(super) slot: Slot,
    /// The row of a table, or how many elements of a buffer were written or swept; 0 otherwise.
    pub(super) row: u64,
}

/// What is left of a table or a buffer that was cleared before the walk had passed it.
pub(super) trait Aside {
    /// Says whether that was all of it.
    fn walk(&mut self, walker: &mut Walker<'_>) -> Result<bool, Failure>;
}

/// A cut that is being written.
pub(super) struct Walk {
    pub(super) range: Range,
    pub(super) at: Place,
    /// How many columns there were.
    columns: u32,
    /// Where in the tombstones it is; `None` behind the last.
    tombstones: Option<tombstones::Place>,
    /// What was written since, as it was.
    kept: Records,
    kept_at: Mark,
    /// By column.
    pub(super) asides: VecDeque<(u32, Box<dyn Aside>)>,
    /// By column and slot.
    pub(super) pins: HashMap<(u32, Slot), Pin>,
    /// Items of the wheel that must wait.
    pub(super) deferred: BTreeSet<Item>,
    /// The columns of which a record was read back, if they are to be.
    checked: Vec<bool>,
    /// The columns that were written out of turn.
    finished: Vec<u32>,
    /// What could not be written when it should have been.
    failed: Option<Failure>,
}

impl Walk {
    pub(super) fn new(range: Range, columns: usize) -> Self {
        Walk {
            range,
            at: Place::default(),
            columns: columns as u32,
            tombstones: range.since.map(|_| Default::default()),
            kept: Records::default(),
            kept_at: Mark::default(),
            asides: VecDeque::new(),
            pins: HashMap::new(),
            deferred: BTreeSet::new(),
            checked: vec![range.since.is_some(); columns],
            finished: Vec::new(),
            failed: None,
        }
    }

    /// How much memory that takes which was written since.
    pub(super) fn kept_bytes(&self) -> usize {
        self.kept.bytes()
    }

    /// Whether it has yet to write a unit, or something of it, that is there since this stamp.
    #[inline]
    pub(super) fn needs(&self, place: Place, stamp: Stamp) -> bool {
        self.range.contains(stamp) && self.is_to_pass(place)
    }

    /// Whether it has yet to come to a place.
    pub(super) fn is_to_pass(&self, place: Place) -> bool {
        place >= self.at && place.column < self.columns && !self.finished.contains(&place.column)
    }

    /// Writes all that is left of a column, which holds bytes, before it is replaced.
    pub(super) fn finish(&mut self, number: u32, column: &dyn AnyColumn, addresses: &Addresses) {
        if !self.is_to_pass(Place { column: number, slot: Slot::MAX, row: u64::MAX }) {
            return;
        }
        let Place { column: current, slot, row } = self.at;
        let from = if current == number { (slot, row) } else { (0, 0) };
        let (range, pins, mut checked) = (self.range, &self.pins, vec![true; number as usize + 1]);
        let budget = &mut { Budget::NONE };
        let (scratch, out) = (&mut Vec::new(), &mut self.kept);
        let checked = &mut checked;
        let mut walker =
            Walker { range, column: number, addresses, pins, budget, scratch, checked, out };
        let stopped = column.walk(from, &mut walker).expect("bytes can be written");
        assert_eq!(stopped, None, "there is always room");
        self.finished.push(number);
    }

    /// Writes a unit as it was at the cut.
    pub(super) fn keep(
        &mut self,
        column: u32,
        id: &Id,
        scratch: &mut Vec<u8>,
        write: impl FnOnce(&mut Pen<'_>) -> Result<(), Unwritable>,
    ) {
        if self.failed.is_some() {
            return;
        }
        match Pen::write(scratch, column, id, &mut self.checked, write) {
            Ok(bin) => self.kept.push(bin, scratch),
            Err(failure) => self.failed = Some(failure),
        }
    }

    /// Goes on, and says whether it has come to its end.
    pub(super) fn go(
        &mut self,
        budget: &mut Budget,
        on: &Walked<'_>,
        scratch: &mut Vec<u8>,
        out: &mut dyn Sink,
    ) -> Result<bool, Failure> {
        if let Some(failure) = self.failed.take() {
            return Err(failure);
        }
        let (range, checked, pins) = (self.range, &mut self.checked, &self.pins);
        let addresses = on.addresses;
        let mut walker =
            Walker { range, column: 0, addresses, pins, budget, scratch, checked, out };
        // Tombstones come first: what is restored on top of an older state is taken away and then
        // put there again, if it is there.
        while let Some(at) = &mut self.tombstones {
            if !walker.has_room() {
                return Ok(false);
            }
            match on.tombstones.next(at, range.cut) {
                Some((bin, record)) => walker.pass_on(bin, record),
                None => self.tombstones = None,
            }
        }
        while walker.has_room()
            && let Some((bin, record)) = self.kept.next(&mut self.kept_at)
        {
            walker.pass_on(bin, record);
            self.kept.forget_before(&mut self.kept_at);
        }
        while walker.has_room()
            && let Some((column, aside)) = self.asides.front_mut()
        {
            walker.column = *column;
            if aside.walk(&mut walker)? {
                self.asides.pop_front();
            }
        }
        while walker.has_room() && self.at.column < self.columns {
            walker.column = self.at.column;
            if self.finished.contains(&self.at.column) {
                self.at = Place { column: self.at.column + 1, slot: 0, row: 0 };
                continue;
            }
            let column = &on.columns[self.at.column as usize];
            self.at = match column.walk((self.at.slot, self.at.row), &mut walker)? {
                Some((slot, row)) => Place { slot, row, ..self.at },
                None => Place { column: self.at.column + 1, slot: 0, row: 0 },
            };
        }
        // There is no room left if anything is.
        Ok(walker.has_room())
    }
}

/// All that is in a column, which holds bytes.
pub(super) fn records_of(number: u32, column: &dyn AnyColumn, addresses: &Addresses) -> Records {
    let mut walk = Walk::new(Range::ALL, number as usize + 1);
    walk.finish(number, column, addresses);
    walk.kept
}

/// A state's name, and all that is in it: of each unit its address, what kind of record it would be, and
/// what the record would say.
#[cfg(test)]
pub(crate) type Listed = (String, Vec<(Id, String)>);

#[cfg(test)]
impl super::FunctionState {
    /// All state there is, in an order of its own, read without a trace.
    pub(crate) fn list(&self) -> Vec<Listed> {
        let states = self.declared.iter().zip(&self.columns).enumerate();
        let states = states.map(|(at, (declared, column))| {
            let records = records_of(at as u32, &**column, &self.addresses);
            let (mut units, mut mark) = (Vec::new(), Mark::default());
            while let Some((_, record)) = records.next(&mut mark) {
                let record = super::record::Record::read(record).expect("it was just written");
                units.push((record.id, format!("{:?} {:?}", record.tag, record.content.rest())));
            }
            units.sort();
            (declared.name.clone().into_owned(), units)
        });
        states.collect()
    }
}

/// What is walked.
pub(super) struct Walked<'a> {
    pub(super) addresses: &'a Addresses,
    pub(super) columns: &'a [Box<dyn AnyColumn>],
    pub(super) tombstones: &'a Tombstones,
}

/// A slice of a walk.
pub(super) struct Walker<'a> {
    range: Range,
    column: u32,
    addresses: &'a Addresses,
    pins: &'a HashMap<(u32, Slot), Pin>,
    budget: &'a mut Budget,
    scratch: &'a mut Vec<u8>,
    checked: &'a mut [bool],
    out: &'a mut dyn Sink,
}

impl<'a> Walker<'a> {
    pub(super) fn has_room(&self) -> bool {
        self.budget.units > 0 && self.budget.bytes > 0
    }

    pub(super) fn range(&self) -> Range {
        self.range
    }

    fn look(&mut self) {
        self.budget.units = self.budget.units.saturating_sub(1);
    }

    fn pass_on(&mut self, bin: u16, record: &[u8]) {
        self.look();
        self.budget.bytes = self.budget.bytes.saturating_sub(record.len());
        self.out.put(bin, record);
    }

    /// The address in a slot.
    pub(super) fn id(&self, slot: Slot) -> &'a Id {
        self.addresses.id(slot)
    }

    /// What the buffer in a slot was at the cut, if something was done with it since.
    pub(super) fn pin(&self, slot: Slot) -> Option<Pin> {
        self.pins.get(&(self.column, slot)).copied()
    }

    /// Writes the elements of a buffer from one on, and says where it stopped if there was no more
    /// room. It looks at each of them.
    pub(super) fn write_elements<E>(
        &mut self,
        id: &Id,
        elements: &Elements<E>,
        mut from: u64,
        pin: Pin,
        (codec, expires): (&Codec<E>, bool),
    ) -> Result<Option<u64>, Failure> {
        loop {
            let Budget { units, bytes } = *self.budget;
            let most = Budget { units: units.max(1), bytes: bytes.clamp(1, ELEMENTS_BYTES) };
            let first = from;
            self.write(id, |pen| {
                from = pen.elements(elements, from, pin, (codec, expires), most)?;
                Ok(())
            })?;
            self.budget.units = units.saturating_sub((from - first) as usize);
            if from >= pin.end {
                return Ok(None);
            }
            if !self.has_room() {
                return Ok(Some(from));
            }
        }
    }

    /// Writes a unit of an address.
    pub(super) fn write(
        &mut self,
        id: &Id,
        write: impl FnOnce(&mut Pen<'_>) -> Result<(), Unwritable>,
    ) -> Result<(), Failure> {
        let bin = Pen::write(self.scratch, self.column, id, self.checked, write)?;
        self.budget.bytes = self.budget.bytes.saturating_sub(self.scratch.len());
        self.out.put(bin, self.scratch);
        Ok(())
    }

    /// Visits units in ascending order, from one on, in which a visit may have stopped: those that
    /// `next` finds and of which the stamps do not say that they are too old for the cut. A visit
    /// says where in its unit it stopped, if it did. So does this.
    pub(super) fn each(
        &mut self,
        (mut at, mut within): (u32, u64),
        next: impl Fn(u32) -> Option<u32>,
        stamps: &Stamps,
        mut visit: impl FnMut(&mut Self, u32, u64) -> Result<Option<u64>, Failure>,
    ) -> Result<Option<(u32, u64)>, Failure> {
        while let Some(unit) = next(at) {
            if unit > at {
                (at, within) = (unit, 0);
            }
            self.look();
            let mut last = at;
            if self.range.is_after(stamps.highest(at)) {
                last |= CHUNK as u32 - 1;
            } else if !self.range.is_after(stamps.get(at).epoch())
                && let Some(within) = visit(self, at, within)?
            {
                return Ok(Some((at, within)));
            }
            let Some(after) = last.checked_add(1) else { break };
            (at, within) = (after, 0);
            // Not before, so that each call comes further.
            if !self.has_room() {
                return Ok(Some((at, within)));
            }
        }
        Ok(None)
    }
}

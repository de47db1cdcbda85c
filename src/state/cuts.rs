//! Cuts through the state of one function type: which were taken, what was taken away since, and the
//! one that is being written.
//!
//! Cuts divide time into *epochs*: epoch `n` ends with cut `n`, and what was there at the beginning
//! counts as written in epoch 0. Every unit that is written is stamped with the epoch, when the invocation
//! that wrote it is committed; an invocation that fails leaves nothing here. A *delta* is what was
//! written since a cut that was committed. What was taken away since is in it as *tombstones*. A unit
//! that came into being after the latest cut that counts, or may count yet, needs none.
//!
//! All of this is there only if it was asked for. Otherwise nothing is stamped.

use std::rc::Rc;

use super::FunctionState;
use super::addresses::{Addresses, Slot};
use super::deadline::{Item, Upkeep};
use super::pen::{self, Pen, Pin, WriteError};
use super::record::StateHeader;
use super::stamps::{Marks, Range, Stamp, Stamps};
use super::tombstones::Tombstones;
use super::walk::{Aside, Budget, Place, Sink, Walk, Walked};
use crate::address::Id;
use crate::codec::{Codec, CodecError, Unwritable};

#[derive(Default)]
pub(super) struct Cuts {
    /// The number of cuts that were taken, and one.
    epoch: u32,
    /// The latest cut that was committed; 0 for what was there at the beginning.
    pub(super) committed: u32,
    /// A cut that was taken and is neither committed nor abandoned.
    pending: Option<u32>,
    /// Whether all of it was written.
    is_written: bool,
    tombstones: Tombstones,
    pub(super) walk: Option<Walk>,
    scratch: Vec<u8>,
    /// What is left out, so that tests can show that they notice.
    #[cfg(test)]
    pub(super) without: Option<Without>,
}

/// What a cut is not exact without.
#[cfg(test)]
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Without {
    Kept,
    Tombstones,
    Asides,
    Pins,
    Waiting,
}

impl Cuts {
    fn new(tombstone_bytes_max: usize) -> Self {
        let tombstones = Tombstones::new(tombstone_bytes_max);
        Cuts { epoch: 1, tombstones, ..Cuts::default() }
    }

    /// The latest cut that counts, or may count yet.
    fn latest(&self) -> u32 {
        self.pending.unwrap_or(self.committed)
    }

    /// Whether something with this stamp was certainly not there at the latest cut.
    fn is_new(&self, stamp: Stamp) -> bool {
        stamp.is_young() && stamp.epoch() > self.latest()
    }

    /// The last epoch of which a delta that is being written needs tombstones.
    fn needed(&self) -> u32 {
        self.walk.as_ref().map_or(0, |walk| walk.range.cut)
    }

    fn add_tombstone(&mut self, bin: u16) {
        #[cfg(test)]
        if self.without == Some(Without::Tombstones) {
            return;
        }
        let needed = self.needed();
        self.tombstones.add(self.epoch, needed, bin, &self.scratch);
    }

    fn lose_tombstones(&mut self) {
        let needed = self.needed();
        self.tombstones.lose(self.epoch, needed);
    }

    /// Whether the next cut must be a full one.
    fn wants_full(&self) -> bool {
        self.tombstones.are_lost_since(self.committed)
    }
}

/// What a column knows of cuts when what it remembers of an invocation is committed, or when something
/// expires.
pub(super) struct Cutting<'a> {
    column: u32,
    addresses: &'a Addresses,
    pub(super) cuts: &'a mut Cuts,
}

impl Upkeep<'_> {
    /// What there is to do for cuts; nothing, most often.
    #[inline]
    pub(super) fn cutting(&mut self) -> Option<Cutting<'_>> {
        let cuts = self.cuts.as_deref_mut()?;
        Some(Cutting { column: self.column, addresses: self.addresses, cuts })
    }
}

impl Cutting<'_> {
    /// The stamp of a unit that is written now.
    pub(super) fn written(&self, before: Stamp, was_there: bool) -> Stamp {
        Stamp::new(self.cuts.epoch, !was_there || self.cuts.is_new(before))
    }

    /// Whether what a unit was is still needed, of a table's row or of a value.
    pub(super) fn needs(&self, slot: Slot, row: u32, before: Stamp) -> bool {
        let place = Place { column: self.column, slot, row: u64::from(row) };
        self.cuts.walk.as_ref().is_some_and(|walk| walk.needs(place, before))
    }

    /// Writes a unit for the walk as it was.
    pub(super) fn keep(
        &mut self,
        slot: Slot,
        write: impl FnOnce(&mut Pen<'_>) -> Result<(), Unwritable>,
    ) {
        #[cfg(test)]
        if self.cuts.without == Some(Without::Kept) {
            return;
        }
        let Cuts { walk, scratch, .. } = &mut *self.cuts;
        let walk = walk.as_mut().expect("a walk needs it");
        walk.keep(self.column, self.addresses.id(slot), scratch, write);
    }

    /// Notes that the value in a slot was written, or had its deadline moved, or was taken away. It was
    /// this until then, with its deadline.
    pub(super) fn value<V>(
        &mut self,
        stamps: &mut Stamps,
        slot: Slot,
        was: Option<(&V, Option<u64>)>,
        is_there: bool,
        codec: &Codec<V>,
    ) {
        let stamp = stamps.get(slot);
        if let Some((value, deadline)) = was {
            if self.needs(slot, 0, stamp) {
                self.keep(slot, |pen| pen.value(deadline, codec, value));
            }
            if !is_there {
                self.cleared(slot, stamp);
            }
        }
        stamps.set(slot, self.written(stamp, was.is_some()));
    }

    /// How far the walk has come in a table or a buffer; `None` if nothing of it is needed, or no more.
    pub(super) fn needs_from(&self, slot: Slot, before: Stamp) -> Option<u64> {
        let walk = self.cuts.walk.as_ref()?;
        let here = Place { column: self.column, slot, row: u64::MAX };
        if walk.range.is_after(before.epoch()) || !walk.is_to_pass(here) {
            return None;
        }
        let is_within = (walk.at.column, walk.at.slot) == (self.column, slot);
        Some(if is_within { walk.at.row } else { 0 })
    }

    /// How far the walk has come in a buffer that is written now, or of which something is to be swept;
    /// and what the buffer was at the cut. It is this now, but for what was done since the cut.
    pub(super) fn needs_buffer(&self, slot: Slot, before: Stamp, now: Pin) -> Option<(u64, Pin)> {
        let from = self.needs_from(slot, before)?;
        let walk = self.cuts.walk.as_ref()?;
        let pin = walk.pins.get(&(self.column, slot)).copied();
        let pin = pin.or_else(|| walk.range.contains(before).then_some(now))?;
        Some((from, pin))
    }

    /// Has the walk write the buffer in a slot as it was, however far it grows.
    pub(super) fn pin(&mut self, slot: Slot, pin: Pin) {
        #[cfg(test)]
        if self.cuts.without == Some(Without::Pins) {
            return;
        }
        if let Some(walk) = &mut self.cuts.walk {
            walk.pins.insert((self.column, slot), pin);
        }
    }

    /// Forgets the pin of a buffer that is no longer in its slot.
    pub(super) fn unpin(&mut self, slot: Slot) {
        if let Some(walk) = &mut self.cuts.walk {
            walk.pins.remove(&(self.column, slot));
        }
    }

    /// Has what an item stands for wait until the walk is over; says whether it must.
    pub(super) fn must_wait(&mut self, item: Item, before: Stamp, now: Pin) -> bool {
        #[cfg(test)]
        if self.cuts.without == Some(Without::Waiting) {
            return false;
        }
        if self.needs_buffer(item.slot, before, now).is_none() {
            return false;
        }
        self.cuts.walk.as_mut().is_some_and(|walk| {
            walk.deferred.insert(item);
            true
        })
    }

    /// Notes in the marks of a buffer that elements were appended, of which the first has this number.
    pub(super) fn appended(&self, marks: &mut Marks, first: u64) {
        let Cuts { epoch, committed, .. } = *self.cuts;
        marks.append(epoch, first, [committed, self.cuts.latest()]);
    }

    /// The marks of a buffer that was not there before.
    pub(super) fn new_marks(&self) -> Marks {
        Marks::new(self.cuts.epoch)
    }

    /// The range of the walk.
    pub(super) fn range(&self) -> Option<Range> {
        self.cuts.walk.as_ref().map(|walk| walk.range)
    }

    /// Has the walk come to a table or a buffer that was put aside.
    pub(super) fn put_aside(&mut self, slot: Slot, aside: impl FnOnce(Id) -> Box<dyn Aside>) {
        #[cfg(test)]
        if self.cuts.without == Some(Without::Asides) {
            return;
        }
        let walk = self.cuts.walk.as_mut().expect("a walk needs it");
        walk.asides.push_back((self.column, aside(self.addresses.id(slot).clone())));
    }

    /// Notes that an entry of a table is gone.
    pub(super) fn removed<K>(&mut self, slot: Slot, before: Stamp, codec: &Codec<K>, key: &K) {
        self.gone(slot, before, |to| Some(codec.write(key, to)));
    }

    /// Notes that what is in a slot is gone.
    pub(super) fn cleared(&mut self, slot: Slot, before: Stamp) {
        self.gone(slot, before, |_| None);
    }

    fn gone(
        &mut self,
        slot: Slot,
        before: Stamp,
        key: impl FnOnce(&mut Vec<u8>) -> Option<Result<(), CodecError>>,
    ) {
        if self.cuts.is_new(before) || self.cuts.tombstones.are_lost_of(self.cuts.epoch) {
            return;
        }
        let id = self.addresses.id(slot);
        match pen::tombstone(&mut self.cuts.scratch, self.column, id, key) {
            Ok(bin) => self.cuts.add_tombstone(bin),
            // A full cut says what is wrong with the type.
            Err(_) => self.cuts.lose_tombstones(),
        }
    }
}

impl FunctionState {
    /// From now on cuts can be taken. Tombstones may take so much memory; beyond it the next cut must
    /// be a full one.
    pub(crate) fn keep_cuts(&mut self, tombstone_bytes_max: usize) {
        assert!(self.cuts.is_none() && self.written.is_empty());
        self.cuts = Some(Box::new(Cuts::new(tombstone_bytes_max)));
        if self.is_altered {
            self.want_full();
        }
    }

    /// Makes the next cut a full one.
    pub(crate) fn want_full(&mut self) {
        self.is_altered = true;
        if let Some(cuts) = &mut self.cuts {
            cuts.lose_tombstones();
        }
    }

    fn cuts(&mut self) -> &mut Cuts {
        self.cuts.as_deref_mut().expect("cuts are kept")
    }

    /// Takes a cut, whose number it gives, and begins to write it: everything, or what was written
    /// since a cut, which is the latest that was committed; 0 stands for what was restored.
    ///
    /// It is not called during an invocation, nor before the cut before it is committed or
    /// abandoned.
    pub(crate) fn take_cut(&mut self, since: Option<u32>) -> u32 {
        assert!(self.written.is_empty(), "an invocation is under way");
        let columns = self.columns.len();
        let cuts = self.cuts();
        assert_eq!(cuts.pending, None, "a cut is open");
        if since.is_some() {
            assert_eq!(since, Some(cuts.committed), "a delta follows what was committed");
            assert!(!cuts.wants_full(), "what was taken away is no longer known");
        }
        let cut = cuts.epoch;
        cuts.walk = Some(Walk::new(Range { since, cut }, columns));
        (cuts.pending, cuts.is_written) = (Some(cut), false);
        cuts.epoch += 1;
        cut
    }

    /// Writes some more of a cut, and says whether that was all of it. What it did is taken off the
    /// budget.
    ///
    /// # Errors
    ///
    /// If a piece of state cannot be written, or not be read again. The cut must be abandoned.
    pub(crate) fn walk(
        &mut self,
        budget: &mut Budget,
        out: &mut dyn Sink,
    ) -> Result<bool, WriteError> {
        assert!(self.written.is_empty(), "an invocation is under way");
        let cuts = self.cuts.as_deref_mut().expect("cuts are kept");
        let Cuts { walk, scratch, tombstones, .. } = cuts;
        let Some(open) = walk else { return Ok(cuts.is_written) };
        let on = Walked { addresses: &self.addresses, columns: &self.columns, tombstones };
        let done = open.go(budget, &on, scratch, out);
        cuts.is_written = matches!(done, Ok(true));
        if cuts.is_written || done.is_err() {
            self.end_walk();
        }
        done.map_err(|failure| failure.named(|at| self.declared[at].name.clone().into_owned()))
    }

    fn end_walk(&mut self) {
        let Some(walk) = self.cuts().walk.take() else { return };
        for item in walk.deferred {
            let (addresses, wheel) = (&mut self.addresses, &mut self.wheel);
            let mut upkeep = Upkeep { column: item.column, addresses, wheel, cuts: None };
            self.columns[item.column as usize].resume(item, &mut upkeep);
        }
    }

    /// A cut is durable that was written to its end. Deltas can follow it.
    pub(crate) fn committed(&mut self, cut: u32) {
        let cuts = self.cuts();
        assert_eq!((cuts.pending, cuts.is_written), (Some(cut), true), "it was written");
        (cuts.pending, cuts.committed) = (None, cut);
        cuts.tombstones.forget(|epoch| epoch <= cut);
    }

    /// A cut will never be durable.
    pub(crate) fn abandoned(&mut self, cut: u32) {
        self.end_walk();
        let cuts = self.cuts();
        assert_eq!(cuts.pending, Some(cut), "it was taken and not yet decided on");
        cuts.pending = None;
        if cuts.wants_full() {
            cuts.tombstones.forget(|_| true);
        }
    }

    /// Whether the next cut must be a full one.
    pub(crate) fn wants_full(&self) -> bool {
        self.cuts.as_deref().is_some_and(Cuts::wants_full)
    }

    /// The latest cut that was committed; 0 stands for what was restored.
    pub(crate) fn latest_committed(&self) -> u32 {
        self.cuts.as_deref().map_or(0, |cuts| cuts.committed)
    }

    /// How much memory is taken by what was overtaken by the open cut, and by tombstones.
    pub(crate) fn cut_bytes(&self) -> usize {
        self.cuts.as_deref().map_or(0, |cuts| {
            cuts.tombstones.bytes() + cuts.walk.as_ref().map_or(0, Walk::kept_bytes)
        })
    }

    /// What records refer to that are written of a cut taken now. It is the same list as before while
    /// nothing is registered.
    pub(crate) fn declared_states(&self) -> Rc<[StateHeader]> {
        let headers = || self.declared.iter().map(super::Declared::header).collect();
        Rc::clone(self.headers.get_or_init(headers))
    }
}

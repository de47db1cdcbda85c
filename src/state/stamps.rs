//! When each unit of state was last written: in which epoch, counted by cuts.
//!
//! A unit is what is written by itself: a value of an address, an entry of a table, a buffer.

use super::chunks::{CHUNK, Cells};

/// The epoch in which a unit was last written.
///
/// It also says whether the unit is *young*: whether it was not there at the latest cut that counted
/// when it was written. What has no stamp was there at the beginning, if it is there.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Stamp(u32);

impl Stamp {
    pub(super) fn new(epoch: u32, is_young: bool) -> Self {
        Stamp(epoch << 1 | u32::from(is_young))
    }

    #[inline]
    pub(super) fn epoch(self) -> u32 {
        self.0 >> 1
    }

    pub(super) fn is_young(self) -> bool {
        self.0 & 1 == 1
    }
}

/// The epochs whose writes are part of a cut.
#[derive(Copy, Clone, Debug)]
pub(super) struct Range {
    /// The last that is not part of it; `None` if all are.
    pub(super) since: Option<u32>,
    pub(super) cut: u32,
}

impl Range {
    /// Whatever there is.
    pub(super) const ALL: Self = Range { since: None, cut: u32::MAX };

    #[inline]
    pub(super) fn contains(self, stamp: Stamp) -> bool {
        stamp.epoch() <= self.cut && !self.is_after(stamp.epoch())
    }

    /// Whether nothing that was last written in this epoch, or before it, is part of the cut.
    #[inline]
    pub(super) fn is_after(self, epoch: u32) -> bool {
        self.since.is_some_and(|since| epoch <= since)
    }
}

/// The stamps of units by number, and the highest of each chunk of them.
#[derive(Default)]
pub(super) struct Stamps {
    cells: Cells<Stamp>,
    highest: Vec<u32>,
}

impl Stamps {
    /// Those of what was never stamped.
    pub(super) const NONE: &'static Self = &Stamps { cells: Cells::new(), highest: Vec::new() };

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.highest.is_empty()
    }

    #[inline]
    pub(super) fn get(&self, at: u32) -> Stamp {
        self.cells.get(at).copied().unwrap_or_default()
    }

    /// Stamps a unit. Epochs never go back.
    pub(super) fn set(&mut self, at: u32, stamp: Stamp) {
        *self.cells.get_or_make(at) = stamp;
        let chunk = at as usize / CHUNK;
        if self.highest.len() <= chunk {
            self.highest.resize(chunk + 1, 0);
        }
        self.highest[chunk] = stamp.epoch();
    }

    /// The highest epoch in the chunk of a unit.
    #[inline]
    pub(super) fn highest(&self, at: u32) -> u32 {
        self.highest.get(at as usize / CHUNK).copied().unwrap_or(0)
    }
}

/// From which elements on a buffer is part of deltas.
#[derive(Copy, Clone, Debug, Default)]
pub(super) struct Marks {
    /// Epochs, in order, with the first element that was appended in each or after it.
    marks: [Option<(u32, u64)>; 2],
}

impl Marks {
    /// Those of a buffer that came into being in an epoch.
    pub(super) fn new(epoch: u32) -> Self {
        Marks { marks: [Some((epoch, 0)), None] }
    }

    /// Notes that elements were appended in an epoch, of which the first has this number. The cuts are
    /// the latest that counts and the latest that counts or may count yet.
    pub(super) fn append(&mut self, epoch: u32, first: u64, [committed, latest]: [u32; 2]) {
        let [one, two] = self.marks;
        if [one, two].into_iter().flatten().any(|(epoch, _)| epoch > latest) {
            return;
        }
        // A delta begins at the first mark after a cut that counts.
        let counts = |mark: &(u32, u64)| mark.0 > committed;
        let needed = one.filter(counts).or(two.filter(counts));
        self.marks = match needed {
            Some(needed) => [Some(needed), Some((epoch, first))],
            None => [Some((epoch, first)), None],
        };
    }

    /// The first element that a cut contains, of a buffer that ended at `end` when it was taken.
    pub(super) fn first(&self, range: Range, end: u64) -> u64 {
        if range.since.is_none() {
            return 0;
        }
        let mut marks = self.marks.into_iter().flatten();
        let mark = marks.find(|(epoch, _)| !range.is_after(*epoch));
        mark.map_or(end, |(_, first)| first.min(end))
    }
}

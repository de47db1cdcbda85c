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

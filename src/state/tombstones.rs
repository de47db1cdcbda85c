//! What was taken away, until no cut needs to know of it.
//!
//! Tombstones are kept by epoch, so that a cut that is abandoned loses none: those since the cut before
//! it are still there. When they take too much memory they are lost, and only a full cut can follow.

use std::collections::VecDeque;

use crate::records::{Mark, Records};

#[derive(Default)]
pub(crate) struct Tombstones {
    by_epoch: VecDeque<(u32, Records)>,
    bytes: usize,
    bytes_max: usize,
    /// The last epoch of which some were lost.
    lost: u32,
}

/// A place between two tombstones.
#[derive(Copy, Clone, Default)]
pub(crate) struct Place {
    epoch: usize,
    mark: Mark,
}

impl Tombstones {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Tombstones { bytes_max, ..Tombstones::default() }
    }

    /// How much memory they take.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether no delta can follow the cut that this epoch ended with.
    pub(crate) fn are_lost_since(&self, epoch: u32) -> bool {
        self.lost > epoch
    }

    /// Whether there is no use in adding one of an epoch: some of it are lost already.
    pub(crate) fn are_lost_of(&self, epoch: u32) -> bool {
        self.lost >= epoch
    }

    /// Adds one of an epoch, which is the latest there is. `needed` is the last of which a delta that is
    /// being written still needs them, whatever memory they take.
    pub(crate) fn add(&mut self, epoch: u32, needed: u32, bin: u16, record: &[u8]) {
        if self.are_lost_of(epoch) {
            return;
        }
        if self.by_epoch.back().is_none_or(|(last, _)| *last < epoch) {
            self.by_epoch.push_back((epoch, Records::default()));
        }
        let (_, records) = self.by_epoch.back_mut().expect("there is one now");
        self.bytes -= records.bytes();
        records.push(bin, record);
        self.bytes += records.bytes();
        if self.bytes > self.bytes_max {
            self.lose(epoch, needed);
        }
    }

    /// Loses all of an epoch, which is the latest there is, and of those before it that are not needed.
    pub(crate) fn lose(&mut self, epoch: u32, needed: u32) {
        self.lost = epoch;
        self.forget(|epoch| epoch > needed);
    }

    pub(crate) fn forget(&mut self, of: impl Fn(u32) -> bool) {
        let bytes = &mut self.bytes;
        self.by_epoch.retain(|(epoch, records)| {
            let is_kept = !of(*epoch);
            *bytes -= if is_kept { 0 } else { records.bytes() };
            is_kept
        });
    }

    /// The tombstone at a place, which moves behind it, if it is of this epoch or one before.
    pub(crate) fn next(&self, at: &mut Place, last: u32) -> Option<(u16, &[u8])> {
        loop {
            let (_, records) = self.by_epoch.get(at.epoch).filter(|(epoch, _)| *epoch <= last)?;
            match records.next(&mut at.mark) {
                Some(tombstone) => return Some(tombstone),
                None => *at = Place { epoch: at.epoch + 1, mark: Mark::default() },
            }
        }
    }
}

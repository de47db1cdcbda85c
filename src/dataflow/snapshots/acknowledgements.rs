//! Which cuts have held egress that was not acknowledged, and what that keeps from happening.
//!
//! It tells nobody anything. The chair asks it what a manifest must name, and whether more may be announced.

use std::collections::BTreeMap;

use super::SetNumber;
use crate::snapshot::Link;

/// The cuts whose held egress somebody has yet to acknowledge.
#[derive(Debug)]
pub(super) struct Acknowledgements {
    /// How many there may be before no more is announced.
    cuts_max: usize,
    /// By cut, the files of its held egress.
    held: BTreeMap<u64, Link>,
    /// By egress, the last cut that each of those acknowledged who are to.
    by_egress: BTreeMap<(SetNumber, u32), Vec<u64>>,
}

impl Acknowledgements {
    /// With what was not acknowledged before.
    pub(super) fn new(cuts_max: usize, restored: &[Link]) -> Self {
        let held = restored.iter().map(|link| (link.cut, link.clone())).collect();
        Acknowledgements { cuts_max: cuts_max.max(1), held, by_egress: BTreeMap::new() }
    }

    /// Waits for an egress from so many.
    pub(super) fn expect(&mut self, set: SetNumber, egress: u32, from: usize) {
        self.by_egress.insert((set, egress), vec![0; from]);
    }

    /// Whether there is an egress that somebody is to acknowledge.
    pub(super) fn are_expected(&self) -> bool {
        !self.by_egress.is_empty()
    }

    /// Somebody has all of an egress up to a cut.
    pub(super) fn hear(&mut self, set: SetNumber, egress: u32, by: u32, cut: u64) {
        let last =
            self.by_egress.get_mut(&(set, egress)).and_then(|by_all| by_all.get_mut(by as usize));
        if let Some(last) = last {
            *last = cut.max(*last);
        }
        self.settle();
    }

    /// A cut is durable that has this held egress.
    pub(super) fn committed(&mut self, held: Option<Link>) {
        self.held.extend(held.map(|link| (link.cut, link)));
        self.settle();
    }

    fn settle(&mut self) {
        // What nobody takes, nobody waits for.
        let all = self.by_egress.values().flatten().copied().min().unwrap_or(u64::MAX);
        self.held.retain(|cut, _| *cut > all);
    }

    /// What a manifest must name beside its own.
    pub(super) fn held(&self) -> Vec<Link> {
        self.held.values().cloned().collect()
    }

    /// The cuts that are not acknowledged.
    pub(super) fn cuts(&self) -> Vec<u64> {
        self.held.keys().copied().collect()
    }

    /// Whether something must be acknowledged before more is announced, or, when all is over, before the
    /// program ends.
    pub(super) fn are_missing(&self, has_ended: bool) -> bool {
        self.are_expected() && self.held.len() >= if has_ended { 1 } else { self.cuts_max }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::{PartEntry, PartName};

    fn held(cut: u64) -> Option<Link> {
        let name = PartName { execution: 1, cut, worker: 0, index: PartName::HELD };
        Link::held(1, cut, &[PartEntry { name, bytes: 1, checksum: 1 }])
    }

    #[test]
    fn a_cut_is_acknowledged_when_all_have_said_so_of_it_or_a_later_one() {
        let mut acknowledgements = Acknowledgements::new(2, &[held(3).unwrap()]);
        acknowledgements.expect(0, 0, 2);
        acknowledgements.expect(0, 7, 1);
        acknowledgements.committed(None);
        acknowledgements.committed(held(5));
        assert_eq!(acknowledgements.cuts(), [3, 5]);
        assert!(acknowledgements.are_missing(false));
        acknowledgements.hear(0, 0, 0, 5);
        acknowledgements.hear(0, 7, 0, 6);
        assert_eq!(acknowledgements.cuts(), [3, 5]);
        acknowledgements.hear(0, 0, 1, 4);
        acknowledgements.hear(0, 9, 0, 9);
        assert_eq!(acknowledgements.held().len(), 1);
        assert!(!acknowledgements.are_missing(false) && acknowledgements.are_missing(true));
        acknowledgements.hear(0, 0, 1, 5);
        acknowledgements.hear(0, 0, 1, 2);
        assert!(!acknowledgements.are_missing(true));
    }

    #[test]
    fn what_nobody_takes_nobody_waits_for() {
        let mut acknowledgements = Acknowledgements::new(1, &[]);
        acknowledgements.committed(held(1));
        assert!(acknowledgements.held().is_empty());
    }
}

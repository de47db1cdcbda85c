//! What one gate has let in, in time, and what it must keep out until an aligned cut.
//!
//! A gate is told of a frontier some time before the cut is due. From then on nothing at or after it may
//! pass. The cut is announced when the loops' ingress frontiers, which wait for everything that a gate on
//! any worker is still given or holds back, have nothing before it: then each gate has let in all the
//! rest, and what it lets in later, red, is at or after it. So the cut contains of the gate exactly the
//! rest, unless something else had passed before the gate was told. This file knows times only; the
//! records that wait are the gate's.

use timely::progress::{Antichain, Timestamp};

/// What one gate knows of times and of the alignment that is under way.
#[derive(Debug)]
pub(crate) struct Alignment<T> {
    /// Whether there may ever be one: if not, nothing need be remembered.
    possible: bool,
    /// The times of what was let in that no other such time is after.
    latest: Vec<T>,
    /// Nothing at or after an element of this may pass.
    until: Option<Antichain<T>>,
}

impl<T: Timestamp> Alignment<T> {
    pub(crate) fn new(possible: bool) -> Self {
        Alignment { possible, latest: Vec::new(), until: None }
    }

    /// Notes that something of this time was let in.
    #[inline]
    pub(crate) fn note(&mut self, time: &T) {
        if self.possible && !self.latest.iter().any(|latest| time.less_equal(latest)) {
            self.latest.retain(|latest| !latest.less_equal(time));
            self.latest.push(time.clone());
        }
    }

    /// The times of what was let in that no other such time is after.
    pub(crate) fn latest(&self) -> &[T] {
        &self.latest
    }

    /// Begins to keep out what is at or after an element of a frontier, and ends what was begun before.
    pub(crate) fn begin(&mut self, until: Antichain<T>) {
        self.until = Some(until);
    }

    /// Ends what was begun, if anything. Says whether nothing at or after the frontier was ever let in.
    pub(crate) fn end(&mut self) -> Option<bool> {
        let until = self.until.take()?;
        Some(!self.latest.iter().any(|latest| until.less_equal(latest)))
    }

    /// Whether something of this time must wait for the aligned cut.
    #[inline]
    pub(crate) fn keeps_out(&self, time: &T) -> bool {
        self.until.as_ref().is_some_and(|until| until.less_equal(time))
    }

    /// Whether anything up to a time, in `Ord`, may have to wait for the aligned cut.
    pub(crate) fn keeps_out_up_to(&self, time: &T) -> bool {
        self.until.as_ref().is_some_and(|until| until.elements().iter().any(|first| first <= time))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use timely::order::Product;

    #[test]
    fn what_is_at_or_after_the_frontier_is_kept_out_until_the_end() {
        let mut alignment = Alignment::new(true);
        assert_eq!((alignment.keeps_out(&9), alignment.end()), (false, None));
        alignment.note(&3);
        alignment.begin(Antichain::from_elem(5));
        assert_eq!([4, 5, 6].map(|time| alignment.keeps_out(&time)), [false, true, true]);
        assert_eq!([4, 5, 6].map(|time| alignment.keeps_out_up_to(&time)), [false, true, true]);
        alignment.note(&4);
        assert_eq!((alignment.end(), alignment.end()), (Some(true), None));
        assert!(!alignment.keeps_out(&5));
        alignment.note(&5);
        alignment.note(&1);
        alignment.begin(Antichain::from_elem(5));
        assert_eq!(alignment.end(), Some(false), "5 was let in before");
        alignment.begin(Antichain::new());
        assert!(!alignment.keeps_out(&u64::MAX));
        assert_eq!((alignment.end(), alignment.latest), (Some(true), vec![5]));
    }

    #[test]
    fn of_times_of_which_none_is_after_another_all_are_remembered() {
        let mut random = 7u64;
        for round in 0..200 {
            let mut below = |most: u64| {
                random = random.wrapping_mul(6364136223846793005).wrapping_add(round);
                (random >> 33) % most
            };
            let mut alignment = Alignment::new(true);
            let mut all = Vec::new();
            for _ in 0..below(12) {
                let time = Product::new(below(6), below(6));
                alignment.note(&time);
                all.push(time);
            }
            let until: Antichain<_> =
                (0..below(4)).map(|_| Product::new(below(6), below(6))).collect();
            alignment.begin(until.clone());
            let passed = all.iter().any(|time| until.less_equal(time));
            assert_eq!(alignment.end(), Some(!passed), "{all:?} {until:?}");
        }
    }
}

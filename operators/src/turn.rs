//! The loop's own coordinate of time: which cuts its sender had taken, and how often it went round.
//!
//! Inside a loop, time is `Product<T, Turn>`. `T` belongs to the program and never changes in the
//! loop. A `Turn` compares cuts first, so whatever is sent after a cut comes later than everything
//! sent before it, however many hops either has made. Both numbers have 64 bits: one can never
//! overflow into the other.

use serde::{Deserialize, Serialize};
use timely::order::{PartialOrder, TotalOrder};
use timely::progress::{PathSummary, Timestamp};

/// How far a message has come in its loop.
#[derive(
    Copy, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Turn {
    /// The highest cut its sender had taken; 0 before the first.
    pub cuts: u64,
    /// Trips round the loop, rounded up to the most any message of the same batch has made.
    pub hops: u64,
}

impl Turn {
    /// The first turn after a cut.
    pub fn after_cut(cut: u64) -> Self {
        Turn { cuts: cut, hops: 0 }
    }
}

impl PartialOrder for Turn {
    fn less_equal(&self, other: &Self) -> bool {
        self <= other
    }
    fn less_than(&self, other: &Self) -> bool {
        self < other
    }
}

impl TotalOrder for Turn {}

impl Timestamp for Turn {
    type Summary = Hops;
    fn minimum() -> Self {
        Turn::default()
    }
}

/// What a path through the loop adds to a [`Turn`]: a number of hops, never a cut.
#[derive(
    Copy, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Hops(pub u64);

impl PartialOrder for Hops {
    fn less_equal(&self, other: &Self) -> bool {
        self <= other
    }
}

impl PathSummary<Turn> for Hops {
    fn results_in(&self, turn: &Turn) -> Option<Turn> {
        let hops = turn.hops.checked_add(self.0)?;
        Some(Turn { cuts: turn.cuts, hops })
    }
    fn followed_by(&self, other: &Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Hops)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_outweighs_any_number_of_hops() {
        let before = Turn { cuts: 3, hops: u64::MAX };
        assert!(before < Turn::after_cut(4));
        assert!(!before.less_equal(&Turn { cuts: 3, hops: 0 }));
    }

    #[test]
    fn hops_add_up_and_say_when_they_cannot() {
        let turn = Turn { cuts: 7, hops: 2 };
        assert_eq!(Hops(1).results_in(&turn), Some(Turn { cuts: 7, hops: 3 }));
        assert_eq!(Hops(1).results_in(&Turn { cuts: 0, hops: u64::MAX }), None);
        assert_eq!(Hops(2).followed_by(&Hops(3)), Some(Hops(5)));
    }
}

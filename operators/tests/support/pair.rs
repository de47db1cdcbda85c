//! A partially ordered time, for tests: two coordinates, of which neither decides alone.

use serde::{Deserialize, Serialize};
use timely::PartialOrder;
use timely::progress::timestamp::Refines;
use timely::progress::{PathSummary, Timestamp};

/// A partially ordered time.
#[derive(
    Copy, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Pair(pub u64, pub u64);

impl PartialOrder for Pair {
    fn less_equal(&self, other: &Self) -> bool {
        self.0 <= other.0 && self.1 <= other.1
    }
}

impl Timestamp for Pair {
    type Summary = ();
    fn minimum() -> Self {
        Pair(0, 0)
    }
}

impl PathSummary<Pair> for () {
    fn results_in(&self, time: &Pair) -> Option<Pair> {
        Some(*time)
    }
    fn followed_by(&self, _: &()) -> Option<()> {
        Some(())
    }
}

impl Refines<()> for Pair {
    fn to_inner(_: ()) -> Self {
        Pair(0, 0)
    }
    fn to_outer(self) {}
    fn summarize(_: ()) {}
}

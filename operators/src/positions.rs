//! How far a gate has come in the partitions of its source.

use std::collections::BTreeMap;

/// Positions by partition.
///
/// Those of several workers are put together by the highest of each partition.
pub type Positions = BTreeMap<u64, u64>;

/// What a gate had admitted when it took a cut.
#[derive(Clone, Copy, Debug)]
pub struct AtCut<'a, T> {
    /// The number of the cut.
    pub cut: u64,
    /// Records that were admitted since the gate was built.
    pub records: u64,
    /// The last position that was admitted of each partition, or that the gate began after. What the
    /// gate held back is not among them.
    pub positions: &'a Positions,
    /// Everything that was admitted, or that a [restored](crate::Ingress::contained) cut contains, is at or
    /// before one of these times. Empty for a gate that takes cuts [where marks say](crate::Ingress::cut_at).
    pub latest: &'a [T],
    /// None unless the cut is [aligned](crate::CutControl::request_aligned). Then, whether it contains of
    /// this gate exactly what is not at or after the frontier: not if the gate had let in something that is,
    /// or a restored cut contains it.
    pub aligned: Option<bool>,
}

/// Is told of each cut that a gate takes.
pub(crate) type OnCut<T> = Box<dyn FnMut(AtCut<'_, T>)>;

/// A partition, and a position in it.
pub(crate) type Position = (u64, u64);

/// Tells where a record stands in its source, if anywhere.
pub(crate) type PositionOf<D> = Box<dyn Fn(&D) -> Option<Position>>;

/// The last position of each partition that was admitted.
#[derive(Debug, Default)]
pub(crate) struct Noted {
    positions: Positions,
    /// The one noted last: records of one partition come in runs.
    current: Option<Position>,
}

impl Noted {
    pub(crate) fn after(positions: Positions) -> Self {
        Noted { positions, current: None }
    }

    /// Notes that a record was admitted.
    #[inline]
    pub(crate) fn admit(&mut self, (partition, position): Position) {
        match &mut self.current {
            Some((of, last)) if *of == partition => *last = position.max(*last),
            _ => {
                self.settle();
                self.current = Some((partition, position));
            }
        }
    }

    fn settle(&mut self) {
        if let Some((partition, position)) = self.current.take() {
            let last = self.positions.entry(partition).or_insert(position);
            *last = position.max(*last);
        }
    }

    pub(crate) fn positions(&mut self) -> &Positions {
        self.settle();
        &self.positions
    }
}

/// Knows which records of a source that replays were admitted before.
#[derive(Debug, Default)]
pub(crate) struct Replayed {
    /// By partition, the last such; none once a later one has come.
    until: Positions,
}

impl Replayed {
    pub(crate) fn until(until: Positions) -> Self {
        Replayed { until }
    }

    /// Whether this record was admitted before.
    #[inline]
    pub(crate) fn contains(&mut self, (partition, position): Position) -> bool {
        !self.until.is_empty() && self.look_up(partition, position)
    }

    fn look_up(&mut self, partition: u64, position: u64) -> bool {
        match self.until.get(&partition) {
            Some(last) if position <= *last => true,
            Some(_) => {
                self.until.remove(&partition);
                false
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_position_of_each_partition_is_noted() {
        let mut noted = Noted::after(Positions::from([(1, 10), (2, 20)]));
        for position in [(1, 11), (1, 12), (3, 5), (1, 13), (3, 6)] {
            noted.admit(position);
        }
        assert_eq!(*noted.positions(), Positions::from([(1, 13), (2, 20), (3, 6)]));
        noted.admit((2, 21));
        assert_eq!(*noted.positions(), Positions::from([(1, 13), (2, 21), (3, 6)]));
    }

    #[test]
    fn what_was_admitted_before_is_known_until_something_later_comes() {
        let mut replayed = Replayed::until(Positions::from([(1, 10), (2, 20)]));
        let seen = [(1, 9), (1, 10), (2, 1), (1, 11), (3, 0), (2, 20), (2, 21)];
        let known = seen.map(|position| replayed.contains(position));
        assert_eq!(known, [true, true, true, false, false, true, false]);
        assert!(replayed.until.is_empty(), "nothing is looked up any more");
    }
}

//! Which cuts one worker has taken and which of them still wait for messages sent before them.
//!
//! A message is *white* for cut `k` if its sender had taken only cuts below `k`, as the turn of its
//! batch says, and *red* otherwise. This file holds that rule and nothing else: it knows neither
//! messages nor frontiers.

use std::collections::VecDeque;

/// One worker's view of the cuts.
#[derive(Debug, Default)]
pub(crate) struct Cuts {
    taken: u64,
    open: VecDeque<u64>,
}

impl Cuts {
    /// The highest cut taken here; 0 before the first.
    pub(crate) fn taken(&self) -> u64 {
        self.taken
    }

    /// Takes cut `k` unless it, or a later one, was taken before. Says whether it was taken now.
    pub(crate) fn take(&mut self, k: u64) -> bool {
        let new = k > self.taken;
        if new {
            self.taken = k;
            self.open.push_back(k);
        }
        new
    }

    /// The open cuts for which a message of this sender's count is white: those that must log it.
    pub(crate) fn white_for(&self, sender: u64) -> impl Iterator<Item = u64> + '_ {
        self.open.iter().copied().filter(move |k| sender < *k)
    }

    /// Whether any open cut must log messages of this sender's count.
    pub(crate) fn any_white_for(&self, sender: u64) -> bool {
        self.open.back().is_some_and(|k| sender < *k)
    }

    /// Closes and returns the first open cut if nothing white for it can arrive any more, given the
    /// lowest count that still can; `None` when nothing can arrive at all.
    pub(crate) fn close(&mut self, lowest: Option<u64>) -> Option<u64> {
        let first = *self.open.front()?;
        if lowest.is_some_and(|count| count < first) {
            return None;
        }
        self.open.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_is_taken_once_and_numbers_may_have_gaps() {
        let mut cuts = Cuts::default();
        assert!(cuts.take(3));
        assert!(!cuts.take(3), "announced, after a red message said so");
        assert!(cuts.take(7));
        assert!(!cuts.take(5), "abandoned, and later than its successor");
        assert_eq!(cuts.taken(), 7);
        assert_eq!(cuts.white_for(2).collect::<Vec<_>>(), [3, 7]);
        assert_eq!(cuts.white_for(3).collect::<Vec<_>>(), [7]);
        assert!(!cuts.any_white_for(7));
    }

    #[test]
    fn a_cut_closes_when_no_white_message_can_come() {
        let mut cuts = Cuts::default();
        cuts.take(1);
        cuts.take(2);
        assert_eq!(cuts.close(Some(0)), None);
        assert_eq!(cuts.close(Some(1)), Some(1));
        assert_eq!(cuts.close(Some(1)), None);
        assert_eq!(cuts.close(None), Some(2));
        assert_eq!(cuts.close(None), None);
    }
}

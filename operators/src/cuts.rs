//! Which cut a worker has taken, and whether it still waits for messages sent before it.
//!
//! A message is *white* for cut `k` if its sender had taken only cuts below `k`, as the turn of its
//! batch says, and *red* otherwise. One cut is open at a time: who decides on cuts announces the next
//! when the last is over everywhere, or given up. A worker that takes a cut while an older one is open
//! therefore gives up the older one. This file knows neither messages nor frontiers.

/// One worker's view of the cuts.
#[derive(Debug, Default)]
pub(crate) struct Cuts {
    taken: u64,
    open: Option<Open>,
}

/// A cut that was taken and is not complete.
#[derive(Debug)]
struct Open {
    cut: u64,
    /// Whether what is not a message has been written.
    written: bool,
}

/// What came of taking a cut.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    /// The older cut that was open and is given up.
    pub(crate) abandoned: Option<u64>,
}

impl Cuts {
    /// With the highest cut that was taken before; 0 if there was none.
    pub(crate) fn after(taken: u64) -> Self {
        Cuts { taken, open: None }
    }

    /// The highest cut taken here; 0 before the first.
    pub(crate) fn taken(&self) -> u64 {
        self.taken
    }

    /// The cut that was taken and is not complete.
    pub(crate) fn open(&self) -> Option<u64> {
        self.open.as_ref().map(|open| open.cut)
    }

    /// Takes cut `k` unless it, or a later one, was taken before.
    pub(crate) fn take(&mut self, k: u64) -> Option<Taken> {
        if k <= self.taken {
            return None;
        }
        self.taken = k;
        let before = self.open.replace(Open { cut: k, written: false });
        Some(Taken { abandoned: before.map(|open| open.cut) })
    }

    /// The open cut, if messages of this sender's count are white for it: it must log them.
    pub(crate) fn white_for(&self, sender: u64) -> Option<u64> {
        self.open().filter(|k| sender < *k)
    }

    /// Notes that what is not a message has been written for the open cut.
    pub(crate) fn note_written(&mut self) {
        if let Some(open) = &mut self.open {
            open.written = true;
        }
    }

    /// Whether that was noted.
    pub(crate) fn is_written(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.written)
    }

    /// Closes and returns the open cut if all of it is written and nothing white for it can arrive any
    /// more, given the lowest count that still can; `None` when nothing can arrive at all.
    pub(crate) fn close(&mut self, lowest: Option<u64>) -> Option<u64> {
        #[cfg(statefun_planted)]
        let lowest = crate::planted::lowest(lowest);
        let open = self.open.as_ref()?;
        if !open.written || lowest.is_some_and(|count| count < open.cut) {
            return None;
        }
        self.open.take().map(|open| open.cut)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_is_taken_once_and_numbers_may_have_gaps() {
        let mut cuts = Cuts::default();
        assert_eq!(cuts.take(3), Some(Taken { abandoned: None }));
        assert_eq!(cuts.take(3), None, "announced, after a red message said so");
        assert_eq!(cuts.take(7), Some(Taken { abandoned: Some(3) }));
        assert_eq!(cuts.take(5), None, "abandoned, and later than its successor");
        assert_eq!((cuts.taken(), cuts.open()), (7, Some(7)));
        assert_eq!(
            [2, 3, 6, 7].map(|sender| cuts.white_for(sender)),
            [Some(7), Some(7), Some(7), None]
        );
        assert_eq!(Cuts::after(4).take(4), None, "taken before this program began");
    }

    #[test]
    fn a_cut_closes_when_no_white_message_can_come_and_all_is_written() {
        let mut cuts = Cuts::default();
        cuts.take(1);
        assert_eq!(cuts.close(Some(1)), None, "not written");
        cuts.note_written();
        assert_eq!(cuts.close(Some(0)), None);
        assert_eq!(cuts.close(Some(1)), Some(1));
        assert_eq!(cuts.close(Some(1)), None);
        cuts.take(2);
        assert_eq!(cuts.white_for(1), Some(2));
        assert_eq!(cuts.close(None), None, "written was another");
        cuts.note_written();
        assert_eq!(cuts.close(None), Some(2));
        assert_eq!(cuts.close(None), None);
    }
}

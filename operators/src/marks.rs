//! Where cuts lie in a stream that comes from another loop of the same worker.
//!
//! A gate that is told of a cut takes it between any two records, wherever that is. Between two loops that
//! would not do: what the first sent before its cut might come after that of the second, or the other way
//! round. So the first says after how many of its records a cut lies, and the gate of the second takes it
//! exactly there. What has left before is then in the cut, where it is, and what leaves later is not.
//! Nothing is decided here.

use std::cell::{OnceCell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use timely::scheduling::Activator;

/// Where cuts lie in a stream of records that stays on one worker and in order: between a
/// [handler](crate::Handler) that emits them and the [ingress](crate::Ingress::cut_at) of another loop. All
/// clones are one.
#[derive(Clone, Default)]
pub struct CutMarks {
    marks: Rc<Marks>,
}

#[derive(Default)]
struct Marks {
    /// Cuts, and how many records come before each, in order.
    ahead: RefCell<VecDeque<(u64, u64)>>,
    gate: OnceCell<Activator>,
}

impl CutMarks {
    /// None yet.
    pub fn new() -> Self {
        CutMarks::default()
    }

    /// Says that a cut lies after the first `records` of all. To be called when the handler
    /// [takes](crate::Handler::take_cut) it: what it emitted before has left by then. Neither number is ever
    /// lower than before.
    pub fn mark(&self, cut: u64, records: u64) {
        // Where nobody reads, nobody takes a cut.
        let Some(gate) = self.marks.gate.get() else { return };
        self.marks.ahead.borrow_mut().push_back((cut, records));
        gate.activate();
    }

    /// Has a gate activated at each mark.
    ///
    /// # Panics
    ///
    /// If another gate takes cuts at these.
    pub(crate) fn connect(&self, gate: Activator) {
        assert!(self.marks.gate.set(gate).is_ok(), "marks are for one ingress");
    }

    /// How many records may be read before the next cut is to be taken, of which so many were.
    pub(crate) fn before_next(&self, read: u64) -> usize {
        let ahead = self.marks.ahead.borrow();
        let records = ahead.front().map(|(_, records)| records.saturating_sub(read));
        records.map_or(usize::MAX, |records| usize::try_from(records).unwrap_or(usize::MAX))
    }

    /// The cut that lies here, where so many records were read.
    pub(crate) fn take(&self, read: u64) -> Option<u64> {
        let mut ahead = self.marks.ahead.borrow_mut();
        ahead.front().filter(|(_, records)| *records <= read)?;
        ahead.pop_front().map(|(cut, _)| cut)
    }
}

impl std::fmt::Debug for CutMarks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CutMarks")
            .field("ahead", &self.marks.ahead.borrow())
            .finish_non_exhaustive()
    }
}

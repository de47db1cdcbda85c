//! What joins a source to the gates that it feeds: whether they take more, and how it comes to know when they do.
//!
//! Gates and the sources of their worker are stepped by one thread, so nothing can happen between a look at a
//! gate and the wish to be told of a change.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use timely::scheduling::Activator;

/// How far a gate is, for others on its worker.
#[derive(Default)]
pub(crate) struct GateState {
    /// Records held back, but for as many as may wait for an aligned cut.
    pub(crate) held_back: Cell<usize>,
    /// Whether some worker has no room or the loop has stopped.
    pub(crate) shut: Cell<bool>,
    /// The last cut that it has taken.
    pub(crate) taken: Cell<u64>,
    /// Records that have come to it, and that it has let in.
    pub(crate) arrived: Cell<u64>,
    pub(crate) admitted: Cell<u64>,
}

impl GateState {
    fn is_ready(&self) -> bool {
        self.held_back.get() == 0 && !self.shut.get()
    }
}

/// The gates of a loop on this worker, and the sources that wait for them.
#[derive(Default)]
pub(crate) struct Gates {
    states: RefCell<Vec<Rc<GateState>>>,
    waiting: RefCell<Vec<Activator>>,
}

impl Gates {
    pub(crate) fn add(&self, state: &Rc<GateState>) {
        self.states.borrow_mut().push(Rc::clone(state));
    }

    /// How far each is.
    pub(crate) fn look<R>(&self, look: impl FnMut(&GateState) -> R) -> Vec<R> {
        self.states.borrow().iter().map(Rc::as_ref).map(look).collect()
    }

    /// Whether all of them take more.
    pub(crate) fn are_ready(&self) -> bool {
        self.states.borrow().iter().all(|gate| gate.is_ready())
    }

    /// Whether all of them have taken a cut.
    pub(crate) fn have_taken(&self, cut: u64) -> bool {
        self.states.borrow().iter().all(|gate| gate.taken.get() >= cut)
    }

    /// Activates who waits, if it need not wait any more. To be called when a gate has changed.
    pub(crate) fn tell(&self) {
        if !self.waiting.borrow().is_empty() && self.are_ready() {
            self.waiting.borrow_mut().drain(..).for_each(|waiting| waiting.activate());
        }
    }
}

/// Joins a [source](crate::source()) to what it feeds, on one worker. All clones are one.
///
/// A source is built before its loop. So it has a feed from the beginning, which is joined to the loop later:
/// to the gate that takes its stream as it is, by [`Ingress::fed_by`](crate::Ingress::fed_by), or, where
/// operators are in between, to all gates of a loop by [`LoopHandle::feeds`](crate::LoopHandle::feeds).
/// Until then nothing holds the source back.
#[derive(Clone, Default)]
pub struct Feed {
    inner: Rc<Inner>,
}

/// Is told how many records a gate has let in.
type OnAdmitted = Box<dyn Fn(u64)>;

#[derive(Default)]
struct Inner {
    loops: RefCell<Vec<Rc<Gates>>>,
    gate: RefCell<Option<Rc<GateState>>>,
    source: RefCell<Option<Activator>>,
    /// Whether the source waits for its gate.
    waits: Cell<bool>,
    note: RefCell<Option<OnAdmitted>>,
}

impl Feed {
    /// One that is joined to nothing.
    pub fn new() -> Self {
        Feed::default()
    }

    /// Whether the source may give more, having given so many records. If not, it is activated when that may
    /// have changed.
    ///
    /// One that has a gate waits while that holds records back or has been told to let nothing in, and while more
    /// than `behind_max` of its records have not come to it yet. What other gates of the loop hold back is no
    /// concern of it.
    pub fn is_ready(&self, given: u64, behind_max: u64) -> bool {
        let Inner { gate, waits, loops, source, .. } = &*self.inner;
        if let Some(gate) = &*gate.borrow()
            && (!gate.is_ready() || given.saturating_sub(gate.arrived.get()) > behind_max)
        {
            waits.set(true);
            return false;
        }
        let loops = loops.borrow();
        let Some(shut) = loops.iter().find(|gates| !gates.are_ready()) else { return true };
        shut.waiting.borrow_mut().extend(source.borrow().clone());
        false
    }

    /// Has `note` told how many of the source's records its gate has let in, whenever that has become more. It
    /// is dropped with the source and the gate.
    pub fn on_admitted(&self, note: impl Fn(u64) + 'static) {
        *self.inner.note.borrow_mut() = Some(Box::new(note));
    }

    /// Says how to activate the source.
    pub(crate) fn of_source(&self, activator: Activator) {
        *self.inner.source.borrow_mut() = Some(activator);
    }

    /// Joins it to the gate that takes the source's stream.
    pub(crate) fn join(&self, gate: &Rc<GateState>) {
        *self.inner.gate.borrow_mut() = Some(Rc::clone(gate));
    }

    /// Has the source wait for these gates.
    pub(crate) fn obey(&self, gates: &Rc<Gates>) {
        self.inner.loops.borrow_mut().push(Rc::clone(gates));
    }

    /// Its gate has been activated, and has let in so many records.
    pub(crate) fn tell(&self, gate: &GateState, admitted: u64) {
        if gate.admitted.replace(admitted) != admitted {
            self.inner.note.borrow().iter().for_each(|note| note(admitted));
        }
        if gate.is_ready() && self.inner.waits.take() {
            self.inner.source.borrow().iter().for_each(Activator::activate);
        }
    }
}

impl std::fmt::Debug for Feed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let gate = self.inner.gate.borrow();
        let admitted = gate.as_ref().map(|gate| gate.admitted.get());
        f.debug_struct("Feed").field("admitted", &admitted).finish_non_exhaustive()
    }
}

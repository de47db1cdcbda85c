//! The loops that take a decider's cuts, on the worker that decides: how far each has come.
//!
//! A loop tells here what the frontiers of its operator say, which are those of all workers. So the
//! decider needs no input, and any number of loops can be built after it. Nothing is decided here.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use timely::progress::{Antichain, Timestamp};
use timely::scheduling::Activator;

/// All loops of one decider.
pub(crate) struct Members<T> {
    all: RefCell<Vec<Rc<State<T>>>>,
    /// The highest cut that one of them had taken before it was built.
    taken: Cell<u64>,
    /// Whether the decider wants to know of every step of ingress, and not only that it has closed.
    watched: Cell<bool>,
    /// Whether the decider needs them no more, and they need not wait for it.
    let_go: Cell<bool>,
    /// The decider's operators, any of which may decide.
    deciding: RefCell<Vec<Activator>>,
}

/// What one loop has told.
struct State<T> {
    /// The frontier of its ingress, on all workers.
    ingress: RefCell<Antichain<T>>,
    /// Whether it lets in only what other loops say, and so keeps nothing out.
    follows: Cell<bool>,
    over: Cell<bool>,
    stopped: Cell<bool>,
}

impl<T: Timestamp> Members<T> {
    /// None yet.
    pub(crate) fn new() -> Rc<Self> {
        Rc::new(Members {
            all: RefCell::default(),
            taken: Cell::new(0),
            watched: Cell::new(false),
            let_go: Cell::new(false),
            deciding: RefCell::default(),
        })
    }

    /// Has an operator of the decider activated when they have something to tell.
    pub(crate) fn activates(&self, deciding: Activator) {
        self.deciding.borrow_mut().push(deciding);
    }

    fn activate(&self) {
        self.deciding.borrow().iter().for_each(Activator::activate);
    }

    /// Adds a loop. It is not over before it has said so, which it can do once it was scheduled.
    pub(crate) fn join(self: Rc<Self>, taken: u64) -> Member<T> {
        let state = Rc::new(State {
            ingress: RefCell::new(Antichain::from_elem(T::minimum())),
            follows: Cell::new(false),
            over: Cell::new(false),
            stopped: Cell::new(false),
        });
        self.all.borrow_mut().push(Rc::clone(&state));
        self.taken.set(self.taken.get().max(taken));
        Member { members: self, state }
    }

    /// The highest cut that one of them had taken before it was built.
    pub(crate) fn taken(&self) -> u64 {
        self.taken.get()
    }

    /// Whether all ingress of all has closed.
    pub(crate) fn have_closed(&self) -> bool {
        self.all.borrow().iter().all(|state| state.ingress.borrow().is_empty())
    }

    /// Whether nothing more can come to any of them that is not at or after an element of a frontier.
    pub(crate) fn have_reached(&self, frontier: &Antichain<T>) -> bool {
        let all = self.all.borrow();
        let mut keeping = all.iter().filter(|state| !state.follows.get());
        keeping.all(|state| state.ingress.borrow().iter().all(|time| frontier.less_equal(time)))
    }

    /// Whether the decider is to be activated at every step of ingress.
    pub(crate) fn watch(&self, watch: bool) {
        self.watched.set(watch);
    }

    /// Whether all are over.
    pub(crate) fn are_over(&self) -> bool {
        self.all.borrow().iter().all(|state| state.over.get())
    }

    /// Whether nothing more comes of any cut, since one has stopped.
    pub(crate) fn are_done_for(&self) -> bool {
        self.all.borrow().iter().any(|state| state.stopped.get())
    }

    /// Has them wait for the decider no more.
    pub(crate) fn let_go(&self) {
        self.let_go.set(true);
    }

    /// Whether the decider needs them no more.
    pub(crate) fn are_let_go(&self) -> bool {
        self.let_go.get()
    }
}

/// One of the loops.
pub(crate) struct Member<T> {
    members: Rc<Members<T>>,
    state: Rc<State<T>>,
}

impl<T: Timestamp> Member<T> {
    /// Tells how far ingress has come, on all workers, and whether the loop is over on all of them.
    pub(crate) fn note(&self, ingress: &Antichain<T>, over: bool) {
        let state = &self.state;
        if *state.ingress.borrow() != *ingress {
            state.ingress.borrow_mut().clone_from(ingress);
            if ingress.is_empty() || self.members.watched.get() {
                self.members.activate();
            }
        }
        if state.over.replace(over) != over {
            self.members.activate();
        }
    }

    /// Tells that what the loop lets in comes from other loops only: alignments need not wait for it.
    pub(crate) fn keeps_no_alignment(&self) {
        self.state.follows.set(true);
    }

    /// Tells that the loop has stopped.
    pub(crate) fn stop(&self) {
        if !self.state.stopped.replace(true) {
            self.members.activate();
        }
    }
}

/// A loop that is gone before the decider let it go has stopped.
impl<T> Drop for Member<T> {
    fn drop(&mut self) {
        if !self.members.let_go.get() && !self.state.stopped.replace(true) {
            self.members.deciding.borrow().iter().for_each(Activator::activate);
        }
    }
}

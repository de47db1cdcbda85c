//! Decides when loops take their cuts, and announces them.
//!
//! There is one on every worker, and that of worker 0 decides. In the dataflow of each loop it has an
//! operator that tells the gates and the loop of all workers, over a stream that is connected to none of their
//! outputs. So no frontier that a program looks at waits for it, and nothing else does. It has no inputs:
//! the [loops](mod@crate::members) tell it on its own worker how far their ingress has come and when all of
//! them are over. It keeps their dataflows going until the last cut, taken when all is over, is committed or
//! given up.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use timely::container::CapacityContainerBuilder;
use timely::dataflow::Scope;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::dataflow::operators::vec::Broadcast;
use timely::progress::{Antichain, Timestamp};
use timely::scheduling::Activator;

use crate::announcements::{Announcement, Announcements};
use crate::decisions::{Decisions, Progress, Told};
use crate::members::{Member, Members};
use crate::waker::{Alarm, Waker};

/// Decides when [keyed loops](crate::KeyedLoop) take their cuts. All clones are one.
///
/// It is given to any number of loops of a worker, as their [cuts](crate::Cuts), in the same order on every
/// worker. A cut is announced on an interval, on [request](CutControl::request), once when all ingress of all
/// loops has closed, and once when all loops are over, unless those are one. The next is never announced
/// before somebody said what became of the one before, or its deadline passed. No loop's dataflow ends
/// before that is so of the last. If one of the loops stops, nothing more is announced, and neither is if
/// the dataflow of one is dropped.
///
/// Loops may stand in different dataflows. One that is built while a cut is open takes it as well, and one
/// that is built after the last was over takes none.
///
/// A cut may be [aligned](CutControl::request_aligned) to a frontier, so that it contains exactly the
/// ingress before it.
///
/// Every worker needs one, with the same settings. What is set on worker 0 counts.
pub struct Decider<T> {
    shared: Rc<Shared<T>>,
}

/// What all clones share.
struct Shared<T> {
    settings: Cell<Settings>,
    control: CutControl<T>,
    members: Rc<Members<T>>,
    desk: RefCell<Option<Desk<T>>>,
}

#[derive(Clone, Copy, Debug)]
struct Settings {
    interval: Option<Duration>,
    deadline: Duration,
    first: u64,
}

/// Where it is decided, once there is a loop, on worker 0.
struct Desk<T> {
    decisions: Decisions<T>,
    outlets: Vec<Rc<Outlet<T>>>,
    alarm: Alarm,
}

/// What is announced and has not left yet, by the operator of one loop.
struct Outlet<T> {
    announced: RefCell<VecDeque<Announcement<T>>>,
    activator: Activator,
}

impl<T> Outlet<T> {
    fn announce(&self, announcement: Announcement<T>) {
        self.announced.borrow_mut().push_back(announcement);
        self.activator.activate();
    }
}

impl<T: Timestamp> Decider<T> {
    /// The deadline, unless it is [set](Self::deadline).
    pub const DEADLINE: Duration = Duration::from_secs(600);

    /// Announces cuts on request and at the end, numbered from 1, under a control that the worker 0 of a
    /// program obeys. Workers of one process may share it.
    pub fn new(control: &CutControl<T>) -> Self {
        let settings = Settings { interval: None, deadline: Self::DEADLINE, first: 1 };
        let (settings, control) = (Cell::new(settings), control.clone());
        let (members, desk) = (Members::new(), RefCell::new(None));
        Decider { shared: Rc::new(Shared { settings, control, members, desk }) }
    }

    /// Announces a cut so long after the one before was announced. None by default.
    #[must_use]
    pub fn interval(self, interval: Duration) -> Self {
        self.set(|settings| settings.interval = Some(interval))
    }

    /// Gives a cut up that is not committed so long after it was announced. Default
    /// [`DEADLINE`](Self::DEADLINE).
    #[must_use]
    pub fn deadline(self, deadline: Duration) -> Self {
        self.set(|settings| settings.deadline = deadline)
    }

    /// Numbers cuts from `first`, at least 1, where cuts were taken by a program before.
    #[must_use]
    pub fn first(self, first: u64) -> Self {
        self.set(|settings| settings.first = first.max(1))
    }

    /// Counts as long as no loop has it.
    fn set(self, set: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = self.shared.settings.get();
        set(&mut settings);
        self.shared.settings.set(settings);
        self
    }

    /// Builds the operator that announces cuts to a loop which has taken some before, the last with this
    /// number. Cuts are numbered above that.
    ///
    /// # Panics
    ///
    /// On worker 0, if its control has another decider.
    pub(crate) fn join<'scope>(
        &self,
        scope: Scope<'scope, T>,
        name: &str,
        taken: u64,
    ) -> (Announcements<'scope, T>, Option<Member<T>>) {
        let mut builder = OperatorBuilder::new(format!("Decider [{name}]"), scope);
        let unconnected = Vec::<(usize, Antichain<_>)>::new();
        let (output, announced) = builder.new_output_connection(unconnected);
        let mut output: OutputBuilder<T, CapacityContainerBuilder<Vec<Announcement<T>>>> =
            OutputBuilder::from(output);
        let address = builder.operator_info().address;
        if scope.index() != 0 {
            builder.build(|_| |_| ());
            return (announced.broadcast(), None);
        }
        let waker = Waker::new(scope.worker().sync_activator_for(address.to_vec()));
        let outlet = self.shared.open(scope.activator_for(Rc::clone(&address)), &waker);
        self.shared.members.activates(scope.activator_for(address));
        let member = Rc::clone(&self.shared.members).join(taken);
        let shared = Rc::clone(&self.shared);
        builder.build(move |mut born| {
            // Held until the last cut is over.
            let mut announcing = born.pop();
            move |_| {
                waker.clear();
                let Some(capability) = &announcing else { return };
                shared.decide();
                let mut output = output.activate();
                let mut session = output.session(capability);
                session.give_iterator(outlet.announced.borrow_mut().drain(..));
                drop(session);
                if shared.members.are_let_go() {
                    announcing = None;
                }
            }
        });
        (announced.broadcast(), Some(member))
    }
}

impl<T: Timestamp> Shared<T> {
    /// A new outlet, for an operator with these ways to activate it. It hears at once of what is under way.
    fn open(&self, activator: Activator, waker: &Waker) -> Rc<Outlet<T>> {
        let outlet =
            Rc::new(Outlet { announced: RefCell::default(), activator: activator.clone() });
        if self.members.are_let_go() {
            return outlet;
        }
        let mut desk = self.desk.borrow_mut();
        let desk = desk.get_or_insert_with(|| {
            // Nothing ends the operator that it wakes as long as there is something to decide.
            let set = self.control.shared.waker.set(waker.clone());
            assert!(set.is_ok(), "a control of cuts belongs to one decider");
            let Settings { interval, deadline, first } = self.settings.get();
            Desk {
                decisions: Decisions::new(interval, deadline, first, Instant::now()),
                outlets: Vec::new(),
                alarm: Alarm::new(activator),
            }
        });
        desk.decisions.welcome().for_each(|announcement| outlet.announce(announcement));
        desk.outlets.push(Rc::clone(&outlet));
        outlet
    }

    /// Decides what there is to decide, and has all outlets announce it.
    fn decide(&self) {
        let (members, control) = (&self.members, &self.control);
        let mut desk = self.desk.borrow_mut();
        let Some(Desk { decisions, outlets, alarm }) = &mut *desk else { return };
        if !members.are_done_for() {
            decisions.skip(members.taken());
            let told = control.state(|state| std::mem::take(&mut state.told));
            told.into_iter().for_each(|told| decisions.hear(told));
            if control.state(|state| state.is_paused) {
                // Who paused it says when to go on.
                return control.state(|state| state.open = decisions.open());
            }
            let now = Instant::now();
            let progress = Progress {
                closed: members.have_closed(),
                over: members.are_over(),
                reached: &|frontier| members.have_reached(frontier),
            };
            while let Some(announcement) = decisions.decide(now, &progress) {
                outlets.iter().for_each(|outlet| outlet.announce(announcement.clone()));
            }
            members.watch(decisions.is_aligning());
            control.state(|state| {
                (state.open, state.has_ended) = (decisions.open(), decisions.has_ended());
            });
            if !decisions.is_over() {
                return alarm.set(decisions.look_after(now));
            }
        }
        members.let_go();
        outlets.iter().for_each(|outlet| outlet.activator.activate());
        *desk = None;
    }
}

impl<T> Clone for Decider<T> {
    fn clone(&self) -> Self {
        Decider { shared: Rc::clone(&self.shared) }
    }
}

impl<T> std::fmt::Debug for Decider<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Settings { interval, deadline, first } = self.shared.settings.get();
        f.debug_struct("Decider")
            .field("interval", &interval)
            .field("deadline", &deadline)
            .field("first", &first)
            .field("control", &self.shared.control)
            .finish_non_exhaustive()
    }
}

/// Tells a [decider](Decider) that a cut is wanted, and what became of one, from any thread of the
/// process that worker 0 is in. What is told before the dataflow is built is not lost.
pub struct CutControl<T> {
    shared: Arc<Telling<T>>,
}

struct Telling<T> {
    state: Mutex<State<T>>,
    waker: OnceLock<Waker>,
}

struct State<T> {
    told: Vec<Told<T>>,
    open: Option<u64>,
    is_paused: bool,
    has_ended: bool,
}

impl<T> CutControl<T> {
    /// A control that no decider has yet.
    pub fn new() -> Self {
        CutControl::default()
    }

    /// Asks for a cut, as soon as none is open. Several requests meanwhile are one.
    pub fn request(&self) {
        self.tell(Told::Request);
    }

    /// Asks for a cut that contains exactly the ingress that is not at or after an element of `frontier`.
    ///
    /// From now on gates hold back what is, and let the rest pass it. The cut is taken when the rest is all
    /// there: when the ingress of all loops, on all workers, has reached the frontier. For as long as one
    /// has not, it waits, and other cuts are taken. Ingress that has closed has reached everything. Several
    /// such requests are met one after the other.
    ///
    /// A gate that had let in something at or after the frontier before it heard of it says so
    /// ([`AtCut::aligned`](crate::AtCut::aligned)), so the frontier should be one that no ingress has come to.
    /// An aligned cut that is given up is not tried again, since more has been let in by then.
    pub fn request_aligned(&self, frontier: Antichain<T>) {
        self.tell(Told::Align(frontier));
    }

    /// Says that a cut is committed: it counts, whatever happens. Of other cuts than the open one it
    /// means nothing.
    pub fn committed(&self, cut: u64) {
        self.tell(Told::Over(cut));
    }

    /// Says that a cut is given up, so that another may be taken. Of other cuts than the open one it
    /// means nothing.
    pub fn abandoned(&self, cut: u64) {
        self.tell(Told::Over(cut));
    }

    /// Says that a cut is given up, and that what it would have held is needed: if it was the last, another is
    /// taken. Of other cuts than the open one it means nothing.
    pub fn again(&self, cut: u64) {
        self.tell(Told::Again(cut));
    }

    /// Has nothing announced from now on, and no loop's dataflow end, or everything go on again. What is open
    /// meanwhile is not given up when its deadline passes.
    pub fn pause(&self, pause: bool) {
        if self.state(|state| std::mem::replace(&mut state.is_paused, pause)) != pause
            && let Some(waker) = self.shared.waker.get()
        {
            waker.wake();
        }
    }

    /// Whether the last cut was announced: all loops were over by then.
    pub fn has_ended(&self) -> bool {
        self.state(|state| state.has_ended)
    }

    /// The cut that was announced last, unless it is over.
    pub fn open(&self) -> Option<u64> {
        self.state(|state| state.open)
    }

    fn state<R>(&self, look: impl FnOnce(&mut State<T>) -> R) -> R {
        // Nothing panics while it is locked.
        look(&mut self.shared.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn tell(&self, told: Told<T>) {
        let is_request = |told: &Told<T>| matches!(told, Told::Request);
        self.state(|state| {
            // More requests than one say no more.
            if !is_request(&told) || !state.told.iter().any(is_request) {
                state.told.push(told);
            }
        });
        if let Some(waker) = self.shared.waker.get() {
            waker.wake();
        }
    }
}

impl<T> Default for CutControl<T> {
    fn default() -> Self {
        let state =
            Mutex::new(State { told: Vec::new(), open: None, is_paused: false, has_ended: false });
        CutControl { shared: Arc::new(Telling { state, waker: OnceLock::new() }) }
    }
}

impl<T> Clone for CutControl<T> {
    fn clone(&self) -> Self {
        CutControl { shared: Arc::clone(&self.shared) }
    }
}

impl<T> std::fmt::Debug for CutControl<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CutControl").field("open", &self.open()).finish_non_exhaustive()
    }
}

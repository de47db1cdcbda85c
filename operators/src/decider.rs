//! Decides when loops take their cuts, and announces them.
//!
//! There is one on every worker, and that of worker 0 decides. It tells the gates and loops of all
//! workers over a stream that is connected to none of their outputs, so no frontier that a program
//! looks at waits for it, and nothing else does. It has no inputs: the [loops](mod@crate::members) tell it
//! on its own worker how far their ingress has come and when all of them are over. It keeps the dataflow
//! going until the last cut, taken when all is over, is committed or given up.

use std::rc::Rc;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use timely::container::CapacityContainerBuilder;
use timely::dataflow::Scope;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::progress::{Antichain, Timestamp};

use crate::announcements::{Announcement, Cuts};
use crate::decisions::{Decisions, Progress, Told};
use crate::members::Members;
use crate::waker::{Alarm, Waker};

/// Decides when [keyed loops](crate::KeyedLoop) take their cuts.
///
/// A cut is announced on an interval, on [request](CutControl::request), once when all ingress of all
/// loops has closed, and once when all loops are over, unless those are one. The next is never announced
/// before somebody said what became of the one before, or its deadline passed. The dataflow does not end
/// before that is so of the last. If one of the loops stops, nothing more is announced.
///
/// A cut may be [aligned](CutControl::request_aligned) to a frontier, so that it contains exactly the
/// ingress before it.
///
/// Every worker needs one, with the same settings. What is set on worker 0 counts.
#[derive(Debug)]
pub struct Decider<T> {
    interval: Option<Duration>,
    deadline: Duration,
    first: u64,
    control: CutControl<T>,
}

impl<T> Decider<T> {
    /// The deadline, unless it is [set](Self::deadline).
    pub const DEADLINE: Duration = Duration::from_secs(600);

    /// Announces cuts on request and at the end, numbered from 1, under a control that the worker 0 of a
    /// program obeys. Workers of one process may share it.
    pub fn new(control: &CutControl<T>) -> Self {
        let control = control.clone();
        Decider { interval: None, deadline: Self::DEADLINE, first: 1, control }
    }

    /// Announces a cut so long after the one before was announced. None by default.
    #[must_use]
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = Some(interval);
        self
    }

    /// Gives a cut up that is not committed so long after it was announced. Default
    /// [`DEADLINE`](Self::DEADLINE).
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Numbers cuts from `first`, at least 1, where cuts were taken by a program before.
    #[must_use]
    pub fn first(mut self, first: u64) -> Self {
        self.first = first.max(1);
        self
    }
}

/// Tells a [decider](Decider) that a cut is wanted, and what became of one, from any thread of the
/// process that worker 0 is in. What is told before the dataflow is built is not lost.
pub struct CutControl<T> {
    shared: Arc<Desk<T>>,
}

struct Desk<T> {
    state: Mutex<State<T>>,
    waker: OnceLock<Waker>,
}

struct State<T> {
    told: Vec<Told<T>>,
    open: Option<u64>,
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
        let state = Mutex::new(State { told: Vec::new(), open: None });
        CutControl { shared: Arc::new(Desk { state, waker: OnceLock::new() }) }
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

impl<T: Timestamp> Decider<T> {
    /// Builds the decider of this worker. What it gives is for all loops of this dataflow that are to take
    /// its cuts. Without any it ends at once.
    ///
    /// Cuts are numbered above all that one of them [has taken before](crate::LoopConfig::cuts_before).
    ///
    /// # Panics
    ///
    /// On worker 0, if its control has a decider.
    pub fn announce<'scope>(self, scope: Scope<'scope, T>, name: &str) -> Cuts<'scope, T> {
        let mut builder = OperatorBuilder::new(format!("Decider [{name}]"), scope);
        let unconnected = Vec::<(usize, Antichain<_>)>::new();
        let (output, announced) = builder.new_output_connection(unconnected);
        let mut output: OutputBuilder<T, CapacityContainerBuilder<Vec<Announcement<T>>>> =
            OutputBuilder::from(output);
        let address = builder.operator_info().address;
        if scope.index() != 0 {
            builder.build(|_| |_| ());
            return Cuts::decided(announced, None);
        }
        let waker = Waker::new(scope.worker().sync_activator_for(address.to_vec()));
        let members = Members::of(scope.activator_for(address.clone()));
        let mut alarm = Alarm::new(scope.activator_for(address));
        let Decider { interval, deadline, first, control } = self;
        assert!(
            control.shared.waker.set(waker.clone()).is_ok(),
            "a control of cuts belongs to one decider"
        );
        let loops = Rc::clone(&members);
        builder.build(move |mut born| {
            // Held until the last cut is over.
            let mut announcing = born.pop();
            let mut decisions = Decisions::new(interval, deadline, first, Instant::now());
            move |_| {
                waker.clear();
                let Some(capability) = &announcing else { return };
                if loops.are_done_for() {
                    announcing = None;
                    return;
                }
                decisions.skip(loops.taken());
                let told = control.state(|state| std::mem::take(&mut state.told));
                told.into_iter().for_each(|told| decisions.hear(told));
                let now = Instant::now();
                let progress = Progress {
                    closed: loops.have_closed(),
                    over: loops.are_over(),
                    reached: &|frontier| loops.have_reached(frontier),
                };
                let mut output = output.activate();
                let mut session = output.session(capability);
                while let Some(announcement) = decisions.decide(now, &progress) {
                    session.give(announcement);
                }
                drop(session);
                loops.watch(decisions.is_aligning());
                control.state(|state| state.open = decisions.open());
                if decisions.is_over() {
                    announcing = None;
                } else {
                    alarm.set(decisions.look_after(now));
                }
            }
        });
        Cuts::decided(announced, Some(members))
    }
}

//! What the program that built a loop can see of it and ask of it, on its own worker.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use timely::dataflow::operators::probe::Handle as ProbeHandle;
use timely::progress::Timestamp;
use timely::worker::Worker;

use crate::cut_times::CutTimes;
use crate::feed::{Feed, Gates};

/// Steps that a program has, after a loop stopped, to notice and end its dataflow. Then the loop
/// ends the worker with a panic, so that a program which never asks cannot hang.
pub const STOP_GRACE_STEPS: u32 = 10_000;

/// Steps that [`LoopHandle::run`] gives a dataflow whose loop has stopped before it drops it.
pub const STOP_STEPS: u32 = 64;

/// What one worker of a loop has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoopStats {
    /// Records that the gates let in.
    pub admitted: u64,
    /// Records that the gates skipped, since a restored cut contained them.
    pub skipped: u64,
    /// Messages handled.
    pub handled: u64,
    /// Messages sent to this worker by itself.
    pub sent_here: u64,
    /// Messages sent to other workers.
    pub sent_away: u64,
    /// Messages logged into a cut because they were sent before it and arrived after it.
    pub logged: u64,
    /// Cuts complete.
    pub cuts_complete: u64,
    /// Messages that wait now.
    pub waiting: usize,
    /// What they weigh, in bytes.
    pub waiting_bytes: usize,
    /// Ingress times that have work on this worker now; where messages are handled in the order of time, each
    /// depth of a time counts for itself.
    pub live_times: usize,
}

/// What one gate of a worker keeps out now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GateStats {
    /// Records that it holds back. Those that wait for an aligned cut are not among them, as far as they are no
    /// more than its [credit](crate::LoopConfig::gate_credit_records).
    pub held_back: usize,
    /// Whether it lets nothing in, since some worker has no room or the loop has stopped.
    pub shut: bool,
}

pub(crate) struct Shared<F> {
    pub(crate) stats: Cell<LoopStats>,
    pub(crate) cut_times: RefCell<CutTimes>,
    pub(crate) gates: Rc<Gates>,
    pub(crate) stopped: RefCell<Option<F>>,
    pub(crate) stop_seen: Cell<bool>,
}

impl<F> Shared<F> {
    pub(crate) fn new() -> Self {
        Shared {
            stats: Cell::default(),
            cut_times: RefCell::default(),
            gates: Rc::default(),
            stopped: RefCell::new(None),
            stop_seen: Cell::new(false),
        }
    }

    /// Whether all gates of this worker have taken a cut.
    pub(crate) fn gates_have_taken(&self, cut: u64) -> bool {
        self.gates.have_taken(cut)
    }

    pub(crate) fn update(&self, change: impl FnOnce(&mut LoopStats)) {
        let mut stats = self.stats.get();
        change(&mut stats);
        self.stats.set(stats);
    }
}

/// A program's handle on a loop, on the worker it was built on.
pub struct LoopHandle<T: Timestamp, F> {
    pub(crate) shared: Rc<Shared<F>>,
    pub(crate) admitted: ProbeHandle<T>,
    pub(crate) dataflow: usize,
}

impl<T: Timestamp, F: Clone> LoopHandle<T, F> {
    /// Whether this worker's gates take more: none holds records back, no worker is out of room,
    /// and the loop has not stopped.
    ///
    /// A gate sees what was sent to it when its worker is stepped, and so does this. A program that
    /// calls [`until_ready`](Self::until_ready) before it sends each batch keeps the loop in bounded
    /// memory: on top of what the [limits](crate::LoopConfig) allow there is never more than one
    /// batch per gate.
    ///
    /// What waits for an [aligned](crate::CutControl::request_aligned) cut is within the limits as long as it
    /// is no more than a gate's [credit](crate::LoopConfig::gate_credit_records). If it is more, the cut waits
    /// for ingress that lags: that must be fed whether or not the loop is ready.
    pub fn ready(&self) -> bool {
        self.shared.gates.are_ready()
    }

    /// Has a [source](crate::source()) of this worker give no more while the gates are not
    /// [ready](Self::ready), and go on when they are. A source may feed several loops.
    ///
    /// Its records come through operators in between: if they came to a gate as they are,
    /// [`Ingress::fed_by`](crate::Ingress::fed_by) would say so, and count those that are on their way.
    pub fn feeds(&self, feed: &Feed) {
        feed.obey(&self.shared.gates);
    }

    /// Probes what the gates of all workers have let in: a time that it has passed is in the loop,
    /// or was, with every earlier one.
    pub fn admitted(&self) -> &ProbeHandle<T> {
        &self.admitted
    }

    /// What this worker has done so far.
    pub fn stats(&self) -> LoopStats {
        self.shared.stats.get()
    }

    /// What the gates of this worker keep out now, in the order of the ingresses.
    pub fn gates(&self) -> Vec<GateStats> {
        self.shared
            .gates
            .look(|gate| GateStats { held_back: gate.held_back.get(), shut: gate.shut.get() })
    }

    /// How long single activations of this worker were busy with a cut. What handling a message takes
    /// longer while a cut is open, since what it changes is written first, is not in it.
    pub fn cut_times(&self) -> CutTimes {
        self.shared.cut_times.borrow().clone()
    }

    /// Forgets [how long](Self::cut_times) activations were busy so far.
    pub fn forget_cut_times(&self) {
        *self.shared.cut_times.borrow_mut() = CutTimes::default();
    }

    /// Why the loop stopped, if it did. All workers learn of the same stop; where several failed at
    /// once, each may name another of them.
    ///
    /// A program that has seen a stop is expected to end the dataflow, as [`run`](Self::run) does:
    /// it will not complete by itself, since no frontier passes what did not happen. One that does
    /// not ask within [`STOP_GRACE_STEPS`] activations of the loop is ended by a panic.
    pub fn stopped(&self) -> Option<F> {
        let stopped = self.shared.stopped.borrow().clone();
        if stopped.is_some() {
            self.shared.stop_seen.set(true);
        }
        stopped
    }

    /// Steps the worker until the loop's dataflow is complete. Inputs must have been closed, or be
    /// closed by something this worker steps.
    ///
    /// # Errors
    ///
    /// The failure, if the loop stopped. The dataflow gets [`STOP_STEPS`] more steps, in which what
    /// had left the loop reaches its consumers, and is dropped then. Its probes stay where they were.
    pub fn run(&self, worker: &mut Worker) -> Result<(), F> {
        self.run_while(worker, || true)
    }

    /// Steps the worker, at least once, until its gates take more: what a source calls before each
    /// batch. Does not wait once the dataflow is complete.
    ///
    /// ```
    /// # use timely::dataflow::operators::{Input, Inspect};
    /// # use timely_statefun_operators::{Handler, KeyedLoop, LoopConfig, Outbox, Verdict};
    /// # struct Sink;
    /// # impl Handler<u64> for Sink {
    /// #     type Message = u64; type Output = u64; type Failure = String;
    /// #     fn route(message: &u64) -> u64 { *message }
    /// #     fn handle(&mut self, _: u64, _: &mut Outbox<'_, u64, u64>) -> Verdict<String> { Verdict::Done }
    /// # }
    /// # timely::execute_directly(|worker| {
    /// # let (mut input, handle) = worker.dataflow::<u64, _, _>(|scope| {
    /// #     let (input, stream) = scope.new_input::<Vec<u64>>();
    /// #     let (_, handle) = stream.keyed_loop("Sink", LoopConfig::default(), None, Sink);
    /// #     (input, handle)
    /// # });
    /// for batch in 0..10 {
    ///     handle.until_ready(worker)?;
    ///     input.send(batch);
    ///     input.advance_to(batch + 1);
    /// }
    /// input.close();
    /// handle.run(worker)?;
    /// # assert_eq!(handle.stats().handled, 10);
    /// # Ok::<(), String>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`run`](Self::run).
    pub fn until_ready(&self, worker: &mut Worker) -> Result<(), F> {
        worker.step();
        self.run_while(worker, || !self.ready())
    }

    /// Steps the worker while `condition` holds and the loop's dataflow is not complete. The worker
    /// may park while it has nothing to do.
    ///
    /// # Errors
    ///
    /// As for [`run`](Self::run).
    pub fn run_while(
        &self,
        worker: &mut Worker,
        mut condition: impl FnMut() -> bool,
    ) -> Result<(), F> {
        loop {
            if let Some(failure) = self.stopped() {
                for _ in 0..STOP_STEPS {
                    worker.step();
                }
                worker.drop_dataflow(self.dataflow);
                return Err(failure);
            }
            if !condition() || !worker.installed_dataflows().contains(&self.dataflow) {
                return Ok(());
            }
            worker.step_or_park(None);
        }
    }
}

impl<T: Timestamp, F> Clone for LoopHandle<T, F> {
    fn clone(&self) -> Self {
        LoopHandle {
            shared: Rc::clone(&self.shared),
            admitted: self.admitted.clone(),
            dataflow: self.dataflow,
        }
    }
}

impl<T: Timestamp, F> std::fmt::Debug for LoopHandle<T, F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoopHandle")
            .field("dataflow", &self.dataflow)
            .field("stats", &self.shared.stats.get())
            .finish_non_exhaustive()
    }
}

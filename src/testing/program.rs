//! Functions in a dataflow of one worker, which a test steps.

use std::any::{Any, type_name};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;
use std::time::{Duration, Instant};

use timely::ExchangeData;
use timely::WorkerConfig;
use timely::communication::Allocator;
use timely::communication::allocator::Thread;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::InputHandle;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::Operator;
use timely::dataflow::operators::probe::Handle as ProbeHandle;
use timely::dataflow::operators::{Input, Inspect, Probe};
use timely::order::TotalOrder;
use timely::progress::Timestamp;
use timely::progress::timestamp::Refines;
use timely::worker::Worker;
use tokio::runtime::{Builder, Runtime};

use super::endpoint::TestEndpoint;
use super::turned::TurnedRuntime;
use crate::Order;
use crate::address::{Address, FunctionType};
use crate::clock::{Clock, ClockHands};
use crate::dataflow::{Handle, SnapshotDone, SnapshotPolicy, Snapshots, StatefulFunctions};
use crate::dead_letter::{DeadLetter, Stopped};
use crate::dispatch::{Context, Watch};
use crate::egress::Egress;
use crate::functions::Functions;
use crate::message::Envelope;
use crate::snapshot::{RestoreFrom, SnapshotError, SnapshotOptions, SnapshotStatus, SnapshotStore};
use crate::watched::{ChangeOf, Watchable};

/// The name of the ingress.
const INGRESS: &str = "test";
/// How long a test waits for what comes from elsewhere, such as the answer of a remote function.
const PATIENCE: Duration = Duration::from_secs(30);
/// So many steps in which nothing happens are enough to know that nothing will.
const QUIET_STEPS: u32 = 8;

/// Functions in a dataflow of one worker, which goes on only when the test says so, by a clock that the test
/// turns. It can be snapshotted, crashed and restarted.
///
/// What a test sends is its ingress: after a crash, what a snapshot does not contain comes again by itself.
///
/// ```
/// use std::time::Duration;
/// use timely_statefun::testing::TestProgram;
/// use timely_statefun::{Egress, Function, FunctionType, Functions, ValueSpec};
///
/// const COUNTER: FunctionType<u64> = FunctionType::new("example/counter");
/// const SUMS: Egress<u64> = Egress::new("example/sums");
/// const SUM: ValueSpec<u64> = ValueSpec::new("sum");
///
/// let mut program = TestProgram::new(|| {
///     let counter = Function::new(|context, number: &u64| {
///         context.update(SUM, |sum| *sum += number);
///         let sum = *context.get(SUM).expect("it was just set");
///         context.emit(SUMS, sum);
///         Ok(())
///     });
///     Functions::<u64>::new().embedded(COUNTER, counter.value(SUM)).egress(SUMS)
/// });
/// program.send(COUNTER.message("a", 1));
/// program.send(COUNTER.message("a", 2));
/// program.run();
/// assert_eq!(program.take(SUMS), [(0, 1), (0, 3)]);
/// program.snapshot();
/// program.advance_to(1);
/// program.send(COUNTER.message("a", 3));
/// program.run();
/// program.crash();
/// program.run();
/// assert_eq!(program.take(SUMS), [(1, 6)]);
/// ```
pub struct TestProgram<M: ExchangeData + Clone, T: Timestamp = u64> {
    make: Box<dyn Fn() -> Functions<M, T>>,
    store: SnapshotStore,
    clock: Clock,
    hands: ClockHands,
    /// All that was sent, in order: what comes again after a crash.
    sent: Vec<(T, Envelope<M>)>,
    time: T,
    is_closed: bool,
    /// Who answers remote functions, if not the network.
    endpoint: Option<TestEndpoint>,
    running: Option<Running<M, T>>,
    /// Ends after what runs on it.
    runtime: Runtime,
}

/// A program between two crashes.
struct Running<M: ExchangeData + Clone, T: Timestamp> {
    worker: Worker,
    input: Option<InputHandle<T, CapacityContainerBuilder<Vec<Envelope<M>>>>>,
    handle: Handle<T>,
    snapshots: Snapshots<T>,
    watch: Rc<Watch<M, T>>,
    out: Rc<Out<M, T>>,
    probe: ProbeHandle<T>,
    order: Order,
    /// What calls and asynchronous operations run on, if that is the test's. Ends after what runs on it.
    turned: Option<TurnedRuntime>,
}

/// Records of one time: a `Vec` of the egress's type.
type Batch<T> = (T, Box<dyn Any>);

/// Changes of one time: a `Vec` of [`ChangeOf`]s.
type SharedBatch<T> = (T, Rc<dyn Any>);

/// Changes of states, by function type and state.
type Changes<T> = BTreeMap<(&'static str, String), Vec<SharedBatch<T>>>;

/// What has left.
struct Out<M, T> {
    egresses: RefCell<BTreeMap<&'static str, Vec<Batch<T>>>>,
    /// Of states that are watched.
    changes: RefCell<Changes<T>>,
    letters: RefCell<Vec<(T, DeadLetter<M>)>>,
    done: RefCell<Vec<SnapshotDone<T>>>,
}

impl<M: ExchangeData + Clone, T: Timestamp + TotalOrder + Refines<()>> TestProgram<M, T> {
    /// A program of the functions that `make` makes, now and after every crash. Its time is the least
    /// there is, and its clock shows the beginning of 1970.
    ///
    /// The clock of the functions and, if they have none, their runtime, are the program's.
    ///
    /// # Panics
    ///
    /// If the functions were [put together wrongly](Functions::check).
    #[track_caller]
    pub fn new(make: impl Fn() -> Functions<M, T> + 'static) -> Self {
        let options = SnapshotOptions::default();
        let store = SnapshotStore::open("memory:", options).expect("memory is always there");
        Self::with_store(make, store)
    }

    /// The same with a store of its own for its snapshots, such as one that
    /// [fails](super::FaultyStore). If there is a snapshot in it, the program goes on from that.
    ///
    /// The store has its own time, which is the system's.
    ///
    /// # Panics
    ///
    /// If the functions were put together wrongly, or the program cannot begin with what is in the store.
    #[track_caller]
    pub fn with_store(make: impl Fn() -> Functions<M, T> + 'static, store: SnapshotStore) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let (clock, hands) = Clock::turned(0);
        let mut program = TestProgram {
            make: Box::new(make),
            store,
            clock,
            hands,
            sent: Vec::new(),
            time: T::minimum(),
            is_closed: false,
            endpoint: None,
            running: None,
            runtime: runtime.expect("there is a runtime"),
        };
        program.crash();
        program
    }

    /// Who answers the remote functions of this program from now on, in the place of the network: the same after
    /// every crash.
    ///
    /// The runtime of the functions, if they have none, is then one whose time passes with
    /// [`tick`](Self::tick) and not otherwise. So do the time that a call has and the waits before it is tried
    /// again, and what else goes by tokio's clock.
    ///
    /// It is asked for before anything is sent. Later, that is a [crash](Self::crash): what is under way went
    /// another way.
    ///
    /// # Panics
    ///
    /// As for [`crash`](Self::crash), the first time.
    #[track_caller]
    pub fn endpoint(&mut self) -> TestEndpoint {
        if let Some(endpoint) = &self.endpoint {
            return endpoint.clone();
        }
        let endpoint = TestEndpoint::new();
        self.endpoint = Some(endpoint.clone());
        self.crash();
        endpoint
    }

    /// Sends a message, at the time that was [advanced to](Self::advance_to) last. It is handled when the
    /// program is stepped.
    ///
    /// # Panics
    ///
    /// If ingress is closed.
    #[track_caller]
    pub fn send(&mut self, envelope: Envelope<M>) {
        assert!(!self.is_closed, "ingress is closed");
        let position = self.sent.len() as u64;
        self.sent.push((self.time.clone(), envelope.read_at(0, position)));
        let (_, envelope) = self.sent.last().expect("it was just sent");
        let input = self.running.as_mut().expect("it runs").input.as_mut();
        input.expect("ingress is open").send(envelope.clone());
    }

    /// Goes on to a time, which must be at or after the one before. Nothing is sent at an earlier one any
    /// more.
    pub fn advance_to(&mut self, time: T) {
        if let Some(input) = self.running.as_mut().and_then(|running| running.input.as_mut()) {
            input.advance_to(time.clone());
        }
        self.time = time;
    }

    /// Closes ingress.
    pub fn close(&mut self) {
        self.is_closed = true;
        self.running.as_mut().expect("it runs").input = None;
    }

    /// Goes on until nothing is left to do: no message waits to be handled, and no asynchronous operation or
    /// call of a remote function has yet to end. What waits for the clock waits for [`tick`](Self::tick); in the
    /// [order of time](crate::Order::Time), what cannot be handled before more ingress is ruled out waits for
    /// [`advance_to`](Self::advance_to).
    ///
    /// What waits for the test itself is not waited for. With an [endpoint](Self::endpoint) these are requests
    /// that are open and, where the functions have no runtime of their own, calls and asynchronous operations
    /// that wait for time to pass. There an operation that waits for another thread or a socket is not waited for
    /// either, so it is given a runtime of its own.
    ///
    /// # Panics
    ///
    /// If the program stops, or something does not end within half a minute.
    #[track_caller]
    pub fn run(&mut self) {
        if let Err(stopped) = self.try_run() {
            panic!("the program stopped: {stopped}");
        }
    }

    /// The same for programs that may stop.
    ///
    /// # Errors
    ///
    /// Why it stopped.
    ///
    /// # Panics
    ///
    /// If something does not end within half a minute.
    #[track_caller]
    pub fn try_run(&mut self) -> Result<(), Stopped> {
        let (mut quiet, mut before) = (0, None);
        let endpoint = self.endpoint.clone();
        self.step_until(|running| {
            let stats = running.handle.stats();
            let asked = endpoint.as_ref().map(|endpoint| (endpoint.requests(), endpoint.open()));
            let now = (stats.handled, stats.admitted, stats.skipped, running.frontier(), asked);
            let open = asked.map_or(0, |(_, open)| open);
            // What is restored comes from the store, whose time is the system's.
            let waits = match running.turned {
                Some(_) => !running.watch.is_restored(),
                None => running.watch.under_way() > open,
            };
            // In the order of time, what waits although nothing is under way waits for ingress to go on.
            let waiting = if running.order == Order::Time { 0 } else { stats.waiting };
            let is_idle = waiting == 0 && !waits;
            quiet = if is_idle && before.as_ref() == Some(&now) { quiet + 1 } else { 0 };
            before = Some(now);
            // The last snapshot is taken when nothing can leave any more.
            let is_ending = running.frontier().is_empty() && running.worker.has_dataflows();
            quiet >= QUIET_STEPS && !is_ending
        })
    }

    /// Takes one step, as far as messages can go at once.
    ///
    /// # Errors
    ///
    /// Why the program stopped, if it did.
    ///
    /// # Panics
    ///
    /// With what [serves](TestEndpoint::serve) requests, if that panicked.
    pub fn step(&mut self) -> Result<(), Stopped> {
        let running = self.running.as_mut().expect("it runs");
        if let Some(input) = &mut running.input {
            input.flush();
        }
        if let Some(turned) = &running.turned {
            turned.settle();
        }
        running.worker.step();
        if let Some(panic) = self.endpoint.as_ref().and_then(TestEndpoint::take_panic) {
            panic!("what serves requests panicked: {panic}");
        }
        running.handle.stopped().map_or(Ok(()), Err)
    }

    #[track_caller]
    fn step_until(
        &mut self,
        mut until: impl FnMut(&mut Running<M, T>) -> bool,
    ) -> Result<(), Stopped> {
        let began = Instant::now();
        loop {
            self.step()?;
            let running = self.running.as_mut().expect("it runs");
            if until(running) {
                return Ok(());
            }
            assert!(running.worker.has_dataflows(), "the program has come to its end");
            let waits = running.watch.under_way() > 0;
            if began.elapsed() > PATIENCE {
                let (stats, under_way) = (running.handle.stats(), running.watch.under_way());
                panic!("it does not end: operations or calls under way: {under_way}; {stats:?}");
            }
            if waits {
                // What is waited for ends on another thread.
                std::thread::yield_now();
            }
        }
    }

    /// Turns the clock forward, and goes on [until nothing is left to do](Self::run). What is due happens, in
    /// order; what that delays by less is then due as well. With an [endpoint](Self::endpoint) the clock stops,
    /// and the program goes on, wherever something is due on the runtime.
    ///
    /// # Panics
    ///
    /// As for [`run`](Self::run).
    #[track_caller]
    pub fn tick(&mut self, by: Duration) {
        let mut left = by;
        loop {
            let turned = &self.running.as_ref().expect("it runs").turned;
            let passed = turned.as_ref().map_or(left, |turned| turned.pass(left));
            self.hands.advance(passed);
            self.run();
            left -= passed;
            if left.is_zero() {
                return;
            }
        }
    }

    /// What the clock shows, in milliseconds since the beginning of 1970.
    pub fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    /// Takes what was emitted to an egress since it was taken before, each record with its time, in the
    /// order in which it left.
    ///
    /// # Panics
    ///
    /// If the egress is not bound, or with another type.
    #[track_caller]
    pub fn take<E: 'static>(&mut self, egress: Egress<E>) -> Vec<(T, E)> {
        let mut egresses = self.out().egresses.borrow_mut();
        let Some(batches) = egresses.get_mut(egress.name()) else {
            panic!("\"{}\" is not bound", egress.name());
        };
        let batches = std::mem::take(batches).into_iter();
        let records = batches.flat_map(|(time, batch)| match batch.downcast::<Vec<E>>() {
            Ok(records) => records.into_iter().map(move |record| (time.clone(), record)),
            Err(_) => panic!("\"{}\" does not carry {}", egress.name(), type_name::<E>()),
        });
        records.collect()
    }

    /// Takes the changes of a state that is [watched](Functions::watched) since they were taken before, each
    /// with the time of the message that caused it, in the order in which they happened.
    ///
    /// # Panics
    ///
    /// If the state is not watched, or with other types.
    #[track_caller]
    pub fn take_changes<I, S: Watchable>(
        &mut self,
        of: FunctionType<I>,
        state: S,
    ) -> Vec<(T, ChangeOf<S, T>)> {
        let (function, state) = (of.as_str(), state.name());
        let mut changes = self.out().changes.borrow_mut();
        let batches =
            changes.iter_mut().find(|(known, _)| (known.0, &*known.1) == (function, state));
        let Some((_, batches)) = batches else {
            panic!("state \"{state}\" of \"{function}\" is not watched");
        };
        let taken = std::mem::take(batches).into_iter().flat_map(|(time, batch)| {
            match batch.downcast::<Vec<ChangeOf<S, T>>>() {
                Ok(changes) => {
                    let changes = Rc::unwrap_or_clone(changes).into_iter();
                    changes.map(move |change| (time.clone(), change))
                }
                Err(_) => panic!("state \"{state}\" is watched as another type"),
            }
        });
        taken.collect()
    }

    /// Takes the messages that were given up since they were taken before, each with its time.
    pub fn take_dead_letters(&mut self) -> Vec<(T, DeadLetter<M>)> {
        self.out().letters.take()
    }

    /// The times at or after which something may still leave the functions; none when nothing can any more.
    pub fn frontier(&self) -> Vec<T> {
        self.running.as_ref().expect("it runs").frontier()
    }

    /// Does something at an address as its function could: looks at its state, or sets it. What it emits
    /// leaves.
    ///
    /// # Panics
    ///
    /// If no embedded function is bound to the address, if its state is used otherwise than it is declared,
    /// or if a message is sent or an asynchronous operation begun. Also if the program has come to its end: ingress is closed, and
    /// nothing is left to do.
    #[track_caller]
    pub fn with<R: 'static>(
        &mut self,
        address: &Address,
        act: impl FnOnce(&mut Context<'_, M, T>) -> R + 'static,
    ) -> R {
        let result = Rc::new(RefCell::new(None));
        let keep = Rc::clone(&result);
        let watch = Rc::clone(&self.running.as_ref().expect("it runs").watch);
        let told = watch.add(
            address.clone(),
            Box::new(move |context| {
                *keep.borrow_mut() = Some(act(context));
            }),
        );
        // Whoever waits for the clock looks at what there is to do.
        self.hands.advance(Duration::ZERO);
        let mut outcome = None;
        let stopped = self.step_until(|_| {
            outcome = told.take();
            outcome.is_some()
        });
        if let Err(stopped) = stopped {
            panic!("the program stopped: {stopped}");
        }
        match outcome.expect("it was done") {
            Ok(false) => result.take().expect("it did not fail"),
            Ok(true) => panic!("{address}: only state is set like this"),
            Err(reason) => panic!("{address}: {reason}"),
        }
    }

    /// Takes a snapshot, and waits until it is durable. A restart goes on from it.
    ///
    /// # Panics
    ///
    /// If the program stops, or has come to its end, or the snapshot is given up because the store fails.
    #[track_caller]
    pub fn snapshot(&mut self) -> SnapshotDone<T> {
        self.try_snapshot().expect("the store does not fail")
    }

    /// The same where the store may fail.
    ///
    /// # Errors
    ///
    /// What failed last, when the snapshot is given up: each file was tried as often as the store's
    /// [options](SnapshotOptions::retry) say.
    ///
    /// # Panics
    ///
    /// If the program stops, or has come to its end, or the store takes more than half a minute.
    #[track_caller]
    pub fn try_snapshot(&mut self) -> Result<SnapshotDone<T>, SnapshotError> {
        let before = self.out().done.borrow().len();
        let given_up = self.status().last_given_up;
        self.request_snapshot();
        let taken = self.step_until(|running| {
            let is_given_up = running.snapshots.status().last_given_up != given_up;
            is_given_up || running.out.done.borrow().len() > before
        });
        if let Err(stopped) = taken {
            panic!("the program stopped: {stopped}");
        }
        let done = self.out().done.borrow();
        match done.get(before) {
            Some(done) => Ok(done.clone()),
            None => {
                Err(self.status().last_error.expect("it was given up because something failed"))
            }
        }
    }

    /// Asks for a snapshot, which is taken and stored while the program is stepped. A [crash](Self::crash) may
    /// come in between.
    pub fn request_snapshot(&mut self) {
        self.running.as_ref().expect("it runs").snapshots.request();
    }

    /// How snapshots are getting on.
    fn status(&self) -> SnapshotStatus {
        self.running.as_ref().expect("it runs").snapshots.status()
    }

    /// Ends the program at once, wherever it is, and starts it again from its newest snapshot, or from the
    /// beginning if it has none. What was sent and is not in the snapshot comes again. Egress that was not
    /// taken is lost. Gives the number of the cut that the program goes on from.
    ///
    /// # Panics
    ///
    /// If the program cannot begin with what is in its store.
    #[track_caller]
    pub fn crash(&mut self) -> Option<u64> {
        match self.restart(RestoreFrom::Newest) {
            Ok(cut) => cut,
            Err(error) => panic!("the program cannot begin: {error}"),
        }
    }

    /// The same, with the snapshot that is wanted, where a store may be damaged.
    ///
    /// # Errors
    ///
    /// If the program cannot begin with it. It does not run then, and panics whatever is done, until it is
    /// restarted once more.
    #[track_caller]
    pub fn restart(&mut self, from: RestoreFrom) -> Result<Option<u64>, SnapshotError> {
        self.running = None;
        self.start(from)?;
        let snapshots = &self.running.as_ref().expect("it runs").snapshots;
        Ok(snapshots.restored().map(|done| done.cut))
    }

    fn out(&self) -> &Out<M, T> {
        &self.running.as_ref().expect("it runs").out
    }

    #[track_caller]
    fn start(&mut self, from: RestoreFrom) -> Result<(), SnapshotError> {
        let allocator = Allocator::Thread(Thread::default());
        let mut worker = Worker::new(WorkerConfig::default(), allocator, Some(Instant::now()));
        let policy = SnapshotPolicy::new("test program").on_request().restore(from);
        let runtime = self.runtime.handle();
        let snapshots = Snapshots::begin(&mut worker, &self.store, runtime, &policy)?;
        let watch: Rc<Watch<M, T>> = Rc::default();
        let mut functions = (self.make)().clock(self.clock.clone());
        let mut turned = None;
        if let Some(endpoint) = &self.endpoint {
            functions.answers = Some(endpoint.begin());
            if functions.runtime.is_none() {
                let own = turned.insert(TurnedRuntime::new());
                functions.runtime = Some(own.handle().clone());
            }
        }
        functions.runtime.get_or_insert_with(|| runtime.clone());
        functions.watch = Some(Rc::clone(&watch));
        let order = functions.order;
        let names = functions.egresses.iter().map(|egress| (egress.name, Vec::new()));
        let out = Rc::new(Out {
            egresses: RefCell::new(names.collect()),
            changes: RefCell::default(),
            letters: RefCell::default(),
            done: RefCell::default(),
        });
        let probe = ProbeHandle::new();
        let (input, handle) = worker.dataflow::<T, _, _>(|scope| {
            let (input, stream) = scope.new_input::<Vec<Envelope<M>>>();
            let ingress = snapshots.replayed(INGRESS, stream);
            let egresses = match ingress.stateful_functions(functions) {
                Ok(egresses) => egresses,
                Err(error) => panic!("the functions are put together wrongly: {error}"),
            };
            for (name, batches) in egresses.rest() {
                let out = Rc::clone(&out);
                batches.sink(Pipeline, "Take", move |(input, _)| {
                    input.for_each(|capability, batches| {
                        let mut egresses = out.egresses.borrow_mut();
                        let taken = egresses.get_mut(name).expect("it is bound");
                        let time = capability.time();
                        taken.extend(batches.drain(..).map(|batch| (time.clone(), batch.records)));
                    });
                });
            }
            for (of, changes) in egresses.all_changes() {
                let out = Rc::clone(&out);
                out.changes.borrow_mut().insert(of.clone(), Vec::new());
                changes.sink(Pipeline, "Take changes", move |(input, _)| {
                    input.for_each(|capability, batches| {
                        let mut changes = out.changes.borrow_mut();
                        let taken = changes.get_mut(&of).expect("it is watched");
                        let time = capability.time();
                        taken.extend(batches.drain(..).map(|batch| (time.clone(), batch)));
                    });
                });
            }
            let letters = egresses.dead_letters().expect("nobody else takes them");
            let kept = Rc::clone(&out);
            letters
                .inspect_batch(move |time, letters| {
                    let letters = letters.iter().map(|letter| (time.clone(), letter.clone()));
                    kept.letters.borrow_mut().extend(letters);
                })
                .probe_with(&probe);
            let (done, kept) = (egresses.snapshots().expect("they are taken"), Rc::clone(&out));
            done.inspect(move |done| kept.done.borrow_mut().push(done.clone()));
            (input, egresses.handle())
        });
        let mut input = input;
        for (time, envelope) in &self.sent {
            if *input.time() != *time {
                input.advance_to(time.clone());
            }
            input.send(envelope.clone());
        }
        if *input.time() != self.time {
            input.advance_to(self.time.clone());
        }
        let input = (!self.is_closed).then_some(input);
        self.running =
            Some(Running { worker, input, handle, snapshots, watch, out, probe, order, turned });
        Ok(())
    }
}

impl<M: ExchangeData + Clone, T: Timestamp> Running<M, T> {
    fn frontier(&self) -> Vec<T> {
        self.probe.with_frontier(|frontier| frontier.to_vec())
    }
}

impl<M: ExchangeData + Clone, T: Timestamp> fmt::Debug for TestProgram<M, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestProgram")
            .field("time", &self.time)
            .field("now_ms", &self.clock.now_ms())
            .field("sent", &self.sent.len())
            .finish_non_exhaustive()
    }
}

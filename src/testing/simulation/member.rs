//! One worker of a simulated program: its dataflow, its share of the ingress, and what can be seen of it.

use std::any::{Any, type_name};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use timely::ExchangeData;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::InputHandle;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::Operator;
use timely::dataflow::operators::probe::Handle as ProbeHandle;
use timely::dataflow::operators::{Input, Inspect, Probe};
use timely::progress::Antichain;
use timely::worker::Worker;
use timely_statefun_operators::Delays;
use tokio::runtime::Handle as Runtime;

use super::random::Random;
use super::shelf::{Outlet, Shelf};
use crate::address::Address;
use crate::clock::Clock;
use crate::dataflow::{Handle, SnapshotDone, SnapshotPolicy, Snapshots, StatefulFunctions};
use crate::dead_letter::DeadLetter;
use crate::dispatch::{Context, Watch};
use crate::egress::Egress;
use crate::functions::Functions;
use crate::message::Envelope;
use crate::remote::Answers;
use crate::snapshot::SnapshotStore;

/// The name of the ingress.
pub(super) const INGRESS: &str = "simulated";
/// So many steps are enough for something to be done at an address.
const STEPS_TO_VISIT: usize = 10_000;

/// Where what leaves goes.
pub(super) trait Observer: Send + Sync {
    fn note(&self, execution: u32, time: u64, records: Box<dyn Any>);
    fn as_any(&self) -> &dyn Any;
    /// The execution and the time of each record.
    fn when(&self) -> Vec<(u32, u64)>;
    /// The same, with nothing in it.
    fn fresh(&self) -> Arc<dyn Observer>;
}

/// What has left through one egress, with the execution and the time of each record.
pub(super) struct Observed<E>(pub(super) Mutex<Vec<(u32, u64, E)>>);

impl<E: Send + 'static> Observer for Observed<E> {
    fn note(&self, execution: u32, time: u64, records: Box<dyn Any>) {
        let Ok(records) = records.downcast::<Vec<E>>() else {
            panic!("an egress is observed that does not carry {}", type_name::<E>());
        };
        let records = records.into_iter().map(|record| (execution, time, record));
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(records);
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn when(&self) -> Vec<(u32, u64)> {
        let records = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        records.iter().map(|(execution, time, _)| (*execution, *time)).collect()
    }

    fn fresh(&self) -> Arc<dyn Observer> {
        Arc::new(Observed::<E>(Mutex::default()))
    }
}

pub(super) type Observers = BTreeMap<&'static str, Arc<dyn Observer>>;
pub(super) type Shelves<M> = Vec<(&'static str, Arc<dyn Shelf<M>>)>;
pub(super) type Letters<M> = Arc<Mutex<Vec<(u64, DeadLetter<M>)>>>;

/// What all workers of an execution are built with.
pub(super) struct Kit<M> {
    pub(super) make: Arc<dyn Fn() -> Functions<M> + Send + Sync>,
    pub(super) answers: Arc<dyn Answers>,
    pub(super) store: SnapshotStore,
    pub(super) clock: Clock,
    pub(super) runtime: Runtime,
    pub(super) execution: u32,
    pub(super) seed: u64,
    pub(super) messages: Arc<[Sent<M>]>,
    pub(super) end: u64,
    pub(super) observers: Observers,
    pub(super) shelves: Shelves<M>,
    pub(super) letters: Letters<M>,
    /// Whether what leaves counts. It does not once another execution knows what it goes on from.
    pub(super) counts: Arc<AtomicBool>,
    pub(super) tuning: Tuning,
}

/// Limits that chance sets, so that all sides of them are seen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tuning {
    pub(super) budget: usize,
    pub(super) credit: usize,
    pub(super) loop_bytes_soft: usize,
    /// How many activations a batch is held back at most; 0 if none is.
    pub(super) delay_max: u32,
}

/// A message of the ingress.
#[derive(Clone, Debug)]
pub(super) struct Sent<M> {
    pub(super) time: u64,
    pub(super) partition: u64,
    pub(super) position: u64,
    pub(super) envelope: Envelope<M>,
}

/// One worker.
pub(super) struct Member<M: ExchangeData + Clone> {
    worker: Worker,
    input: Option<InputHandle<u64, CapacityContainerBuilder<Vec<Envelope<M>>>>>,
    handle: Handle<u64>,
    snapshots: Snapshots<u64>,
    watch: Rc<Watch<M, u64>>,
    delays: Delays,
    probe: ProbeHandle<u64>,
    /// The least time at which something has left since that was looked at.
    left: Rc<Cell<u64>>,
    done: Rc<RefCell<Vec<SnapshotDone<u64>>>>,
    outlets: Vec<Box<dyn Outlet>>,
    feed: VecDeque<(u64, Envelope<M>)>,
    end: u64,
}

/// What can be seen of a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Look {
    /// `u64::MAX` if nothing can leave any more.
    pub(super) frontier: u64,
    /// `u64::MAX` if nothing has.
    pub(super) left: u64,
    pub(super) handled: u64,
    pub(super) sent: u64,
    pub(super) logged: u64,
    pub(super) waiting: usize,
    pub(super) waiting_bytes: usize,
    pub(super) under_way: usize,
    pub(super) delayed: usize,
    pub(super) held_back: usize,
    pub(super) to_feed: usize,
    pub(super) stopped: Option<String>,
    pub(super) is_over: bool,
    pub(super) done: Vec<SnapshotDone<u64>>,
    /// By held egress, the last cut of which all has come.
    pub(super) ended: Vec<u64>,
}

impl<M: ExchangeData + Clone + Sync> Member<M> {
    /// # Errors
    ///
    /// Why it cannot be.
    pub(super) fn new(mut worker: Worker, kit: &Kit<M>) -> Result<Self, String> {
        let policy = SnapshotPolicy::new("simulated").on_request().clock(kit.clock.clone());
        let snapshots = Snapshots::begin(&mut worker, &kit.store, &kit.runtime, &policy);
        let snapshots = snapshots.map_err(|error| format!("it cannot begin: {error}"))?;
        let (index, peers) = (worker.index() as u64, worker.peers() as u64);
        let after = snapshots.positions(INGRESS);
        let mine = |sent: &&Sent<M>| {
            let before = after.get(&sent.partition);
            sent.partition % peers == index && before.is_none_or(|before| sent.position > *before)
        };
        let feed = kit.messages.iter().filter(mine).map(|sent| {
            let envelope = sent.envelope.clone().read_at(sent.partition, sent.position);
            (sent.time, envelope)
        });
        let feed: VecDeque<_> = feed.collect();

        let Tuning { budget, credit, loop_bytes_soft, delay_max } = kit.tuning;
        let mut random = Random::branch(kit.seed, 0x1000 + u64::from(kit.execution) * 64 + index);
        let delays = Delays::new(move || match delay_max {
            0 => 0,
            // Most go at once.
            most if random.once_in(3) => random.below(u64::from(most) + 1) as u32,
            _ => 0,
        });
        snapshots.hold_back(delays.clone());
        let watch: Rc<Watch<M, u64>> = Rc::default();
        let mut functions = (kit.make)().clock(kit.clock.clone());
        functions.runtime = Some(kit.runtime.clone());
        functions.watch = Some(Rc::clone(&watch));
        functions.answers = Some(Arc::clone(&kit.answers));
        functions.delays = Some(delays.clone());
        // Nobody reads what is measured of months.
        functions.metering = functions.metering.off();
        // Nothing depends on how long something takes.
        functions.limits.activation_max = None;
        functions.limits.spin = std::time::Duration::ZERO;
        functions.limits.budget_messages = functions.limits.budget_messages.min(budget);
        functions.limits.gate_credit_records = functions.limits.gate_credit_records.min(credit);
        functions.limits.loop_bytes_soft = functions.limits.loop_bytes_soft.min(loop_bytes_soft);

        let (left, done) = (Rc::new(Cell::new(u64::MAX)), Rc::new(RefCell::new(Vec::new())));
        let probe = ProbeHandle::new();
        let built = worker.dataflow::<u64, _, _>(|scope| {
            let (input, stream) = scope.new_input::<Vec<Envelope<M>>>();
            let egresses = snapshots.replayed(INGRESS, stream).stateful_functions(functions);
            let egresses = egresses
                .map_err(|error| format!("the functions are put together wrongly: {error}"))?;
            let outlets = kit.shelves.iter().map(|(_, shelf)| shelf.take(&egresses));
            let outlets = outlets.collect::<Result<Vec<_>, String>>()?;
            let leaving = egresses.rest();
            let is_bound = |name| leaving.iter().any(|(bound, _)| *bound == name);
            if let Some(name) = kit.observers.keys().find(|name| !is_bound(**name)) {
                return Err(format!("the egress \"{name}\" is observed, and none has this name"));
            }
            for (name, batches) in leaving {
                let observer = kit.observers.get(name).cloned();
                let (left, counts) = (Rc::clone(&left), Arc::clone(&kit.counts));
                let execution = kit.execution;
                batches.probe_with(&probe).sink(Pipeline, "Observe", move |(input, _)| {
                    input.for_each(|capability, batches| {
                        let time = *capability.time();
                        left.set(left.get().min(time));
                        for batch in batches.drain(..) {
                            if let Some(observer) = &observer
                                && counts.load(Relaxed)
                            {
                                observer.note(execution, time, batch.records);
                            }
                        }
                    });
                });
            }
            let letters = egresses.dead_letters().expect("nobody else takes them");
            let (kept, counts) = (Arc::clone(&kit.letters), Arc::clone(&kit.counts));
            letters
                .inspect_batch(move |time, letters| {
                    if counts.load(Relaxed) {
                        let letters = letters.iter().map(|letter| (*time, letter.clone()));
                        kept.lock().unwrap_or_else(PoisonError::into_inner).extend(letters);
                    }
                })
                .probe_with(&probe);
            let (told, kept) = (egresses.snapshots().expect("they are taken"), Rc::clone(&done));
            told.inspect(move |done| kept.borrow_mut().push(done.clone()));
            Ok((input, egresses.handle(), outlets))
        });
        let (mut input, handle, outlets) = built?;
        let next = feed.front().map_or(kit.end, |(time, _)| *time);
        if next > 0 {
            input.advance_to(next);
        }
        let (input, end) = (Some(input), kit.end);
        Ok(Member {
            worker,
            input,
            handle,
            snapshots,
            watch,
            delays,
            probe,
            left,
            done,
            outlets,
            feed,
            end,
        })
    }

    /// The snapshot that it goes on from.
    pub(super) fn restored(&self) -> Option<SnapshotDone<u64>> {
        self.snapshots.restored().cloned()
    }

    pub(super) fn step(&mut self, steps: u64) -> Look {
        for _ in 0..steps {
            self.worker.step();
        }
        self.look()
    }

    /// Gives the functions so many more messages, if they are ready for them or `anyway`.
    pub(super) fn feed(&mut self, messages: u64, anyway: bool) {
        let Some(input) = &mut self.input else { return };
        for _ in 0..messages {
            if !anyway && !self.handle.ready() {
                break;
            }
            let Some((time, envelope)) = self.feed.pop_front() else { break };
            if *input.time() != time {
                input.advance_to(time);
            }
            input.send(envelope);
        }
        input.flush();
        let next = self.feed.front().map_or(self.end, |(time, _)| *time);
        if *input.time() != next {
            input.advance_to(next);
        }
    }

    /// Says that nothing comes before a time any more. There must be nothing left to feed.
    pub(super) fn advance_to(&mut self, time: u64) {
        self.input.as_mut().expect("it is not closed").advance_to(time);
    }

    pub(super) fn close(&mut self) {
        self.input = None;
    }

    /// Asks for a snapshot, or for one of exactly what is before a time.
    pub(super) fn request_snapshot(&self, aligned: Option<u64>) {
        match aligned {
            None => self.snapshots.request(),
            Some(time) => self.snapshots.request_aligned(Antichain::from_elem(time)),
        }
    }

    /// What has come of a cut through a held egress.
    pub(super) fn take(&self, egress: usize, cut: u64) -> Box<dyn Any + Send> {
        self.outlets[egress].take(cut)
    }

    /// What has come through a held egress up to a cut is stored.
    pub(super) fn acknowledge(&mut self, egress: usize, cut: u64) {
        self.outlets[egress].acknowledge(cut);
    }

    /// Does something at an address of this worker, and gives what came of it.
    ///
    /// # Errors
    ///
    /// Why it could not be done.
    pub(super) fn visit<R: 'static>(
        &mut self,
        address: &Address,
        act: impl FnOnce(&mut Context<'_, M>) -> R + 'static,
    ) -> Result<R, String> {
        let result = Rc::new(RefCell::new(None));
        let keep = Rc::clone(&result);
        let act = move |context: &mut Context<'_, M>| *keep.borrow_mut() = Some(act(context));
        let told = self.watch.add(address.clone(), Box::new(act));
        for _ in 0..STEPS_TO_VISIT {
            self.worker.step();
            match told.take() {
                None => {}
                Some(Ok(false)) => return Ok(result.take().expect("it was done")),
                Some(Ok(true)) => {
                    return Err(format!(
                        "{address}: a message was sent or an operation begun where state is only looked at"
                    ));
                }
                Some(Err(reason)) => return Err(format!("{address}: {reason}")),
            }
        }
        Err(format!("{address}: nothing is handled any more"))
    }

    fn look(&mut self) -> Look {
        let stats = self.handle.stats();
        let frontier = self.probe.with_frontier(|frontier| frontier.iter().min().copied());
        Look {
            frontier: frontier.unwrap_or(u64::MAX),
            left: self.left.replace(u64::MAX),
            handled: stats.handled,
            sent: stats.sent_here + stats.sent_away,
            logged: stats.logged,
            waiting: stats.waiting,
            waiting_bytes: stats.waiting_bytes,
            under_way: self.watch.under_way(),
            delayed: self.watch.delayed(),
            held_back: self.delays.held(),
            to_feed: self.feed.len(),
            stopped: self.handle.stopped().map(|stopped| stopped.to_string()),
            is_over: !self.worker.has_dataflows(),
            done: self.done.take(),
            ended: self.outlets.iter().map(|outlet| outlet.ended()).collect(),
        }
    }
}

/// What was observed of an egress.
///
/// # Panics
///
/// If it is not observed.
pub(super) fn observed<E: Clone + Send + 'static>(
    observers: &Observers,
    egress: Egress<E>,
) -> Vec<(u32, u64, E)> {
    let observer = observers.get(egress.name());
    let observer = observer.unwrap_or_else(|| panic!("\"{}\" is not observed", egress.name()));
    let observed = observer.as_any().downcast_ref::<Observed<E>>();
    let observed = observed.expect("it was observed with this type");
    observed.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

//! One run: whoever gets on next, the clock, the network and the store are in one hand.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use timely::ExchangeData;
use tokio::runtime::{Builder, Runtime};

use super::super::store::{FaultyStore, StoreFault};
use super::case::{Case, Crash, Event};
use super::crew::Crew;
use super::member::{INGRESS, Kit, Letters, Look, Member, Observers};
use super::network::Network;
use super::random::Random;
use crate::clock::{Clock, ClockHands};
use crate::dataflow::SnapshotDone;
use crate::functions::Functions;
use crate::retry::Retry;
use crate::snapshot::{SnapshotOptions, SnapshotStore};

/// What a program does in so many rounds it does for ever.
const ROUNDS_MAX: u32 = 1_000;
/// So many rounds in which nothing happens are enough to know that nothing will.
const QUIET_ROUNDS: u32 = 4;
/// The longest time by which the clock is turned at once.
const TURN_MAX: Duration = Duration::from_secs(3600);
/// So often do tasks of a runtime get their turns, up to 61 at a time; each goes on until it waits.
const SETTLES: u32 = 8;

/// Counts of a run.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) handled: u64,
    pub(super) cuts: u64,
    pub(super) crashes: u64,
    pub(super) faults: u64,
    pub(super) call_faults: u64,
    pub(super) calls: u64,
    pub(super) waiting_bytes_max: usize,
}

/// An execution of the program.
struct Execution<M: ExchangeData + Clone> {
    crew: Crew<Member<M>>,
    counts: Arc<AtomicBool>,
    /// Dropped after the workers: what they have under way ends with them.
    runtime: Runtime,
    /// How much each worker has handled.
    looks: Vec<Option<Look>>,
    /// What every worker has been told cannot come any more.
    passed: u64,
}

/// One that goes on although it is believed to be dead.
struct Zombie<M: ExchangeData + Clone> {
    execution: Execution<M>,
    /// The action at which it wakes.
    wakes: u64,
    left: u64,
}

/// One run of a case.
pub(super) struct World<'a, M: ExchangeData + Clone> {
    case: &'a Case<M>,
    make: Arc<dyn Fn() -> Functions<M> + Send + Sync>,
    pub(super) observers: Observers,
    pub(super) letters: Letters<M>,
    network: Arc<Network>,
    disk: FaultyStore,
    store: SnapshotStore,
    /// Held until it is known what an execution goes on from.
    gate: Arc<Mutex<()>>,
    clock: Clock,
    hands: ClockHands,
    random: Random,
    running: Option<Execution<M>>,
    zombies: Vec<Zombie<M>>,
    stalled: BTreeMap<usize, u64>,
    pub(super) executions: u32,
    /// The last snapshot that the program was told is durable.
    durable: Option<SnapshotDone<u64>>,
    pub(super) counts: Counts,
    trace: u64,
}

impl<'a, M: ExchangeData + Clone + Sync> World<'a, M> {
    pub(super) fn new(
        case: &'a Case<M>,
        make: Arc<dyn Fn() -> Functions<M> + Send + Sync>,
        observers: &Observers,
        services: Vec<(String, super::network::Service)>,
    ) -> Self {
        let (clock, hands) = Clock::turned(1_000_000);
        let faults = case.events.iter().filter_map(|event| match *event {
            Event::Call { number, fault } => Some((number, fault)),
            _ => None,
        });
        let network = Network::new(services, faults.collect(), Random::branch(case.seed, 4));
        let options = SnapshotOptions {
            retry: Retry::attempts(10).jitter(0.0).longest(Duration::from_secs(1)),
            part_bytes: 512,
            chain_max: 4,
            ..SnapshotOptions::default()
        };
        let disk = FaultyStore::new();
        let (store, gate) = (disk.store(options), Arc::default());
        let faults = case.events.iter().filter_map(|event| match *event {
            Event::Store { number, fault } => Some((number, fault)),
            _ => None,
        });
        let faults: BTreeMap<u64, StoreFault> = faults.collect();
        let (mut calls, mut random) = (0, Random::branch(case.seed, 6));
        disk.plan(move |_, _| {
            calls += 1;
            let fault = faults.get(&calls).copied();
            fault.unwrap_or_else(|| match random.below(3) {
                0 => StoreFault::Nothing,
                _ => StoreFault::Slow(Duration::from_millis(random.below(12))),
            })
        });
        let fresh = observers.iter().map(|(name, observer)| (*name, observer.fresh()));
        World {
            case,
            make,
            observers: fresh.collect(),
            letters: Arc::new(Mutex::default()),
            network: Arc::new(network),
            disk,
            store: store.simulated(Arc::clone(&gate)),
            gate,
            clock,
            hands,
            random: Random::branch(case.seed, 5),
            running: None,
            zombies: Vec::new(),
            stalled: BTreeMap::new(),
            executions: 0,
            durable: None,
            counts: Counts::default(),
            trace: 0,
        }
    }

    /// Lets the program run, with all that happens to it, until nothing is left to do.
    ///
    /// # Errors
    ///
    /// What it did not keep.
    pub(super) fn run(&mut self) -> Result<(), String> {
        self.start()?;
        let (mut action, last) = (0, self.case.last());
        while action <= last || self.running().to_feed() > 0 {
            self.happen(action)?;
            self.act(action)?;
            action += 1;
        }
        self.stalled.clear();
        self.zombies.clear();
        self.network.heal();
        self.disk.heal();
        self.rest()
    }

    /// Has all ingress close, and waits for the end.
    ///
    /// # Errors
    ///
    /// What the program did not keep.
    pub(super) fn end(&mut self) -> Result<(), String> {
        for worker in 0..self.running().crew.len() {
            self.running().crew.on(worker, Member::close)?;
        }
        let mut turn = Duration::from_millis(1);
        for _ in 0..ROUNDS_MAX {
            self.round()?;
            if self.running().looks.iter().flatten().all(|look| look.is_over) {
                self.counts.calls = self.network.calls();
                self.counts.call_faults = self.network.failed();
                return Ok(());
            }
            self.turn(turn);
            turn = (turn * 4).min(TURN_MAX);
        }
        Err(format!("it does not end: {:?}", self.running().looks))
    }

    /// Has a worker do something, in the order of all that is done.
    pub(super) fn on<R: Send + 'static>(
        &mut self,
        worker: usize,
        order: impl FnOnce(&mut Member<M>) -> R + Send + 'static,
    ) -> Result<R, String> {
        self.hands.advance(Duration::ZERO);
        self.running().crew.on(worker, order)
    }

    pub(super) fn workers(&self) -> usize {
        self.running.as_ref().expect("it runs").crew.len()
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    /// A number that is another one if anything went another way.
    pub(super) fn trace(&self) -> u64 {
        self.trace
    }

    fn running(&mut self) -> &mut Execution<M> {
        self.running.as_mut().expect("it runs")
    }

    fn start(&mut self) -> Result<(), String> {
        let crewing = self.case.crew(self.executions);
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = runtime.expect("there is a runtime");
        let counts = Arc::new(AtomicBool::new(true));
        let kit = Kit {
            make: Arc::clone(&self.make),
            answers: Arc::clone(&self.network) as _,
            store: self.store.clone(),
            clock: self.clock.clone(),
            runtime: runtime.handle().clone(),
            execution: self.executions,
            seed: self.case.seed,
            messages: Arc::new(self.case.messages.clone()),
            end: self.case.end(),
            observers: self.observers.clone(),
            letters: Arc::clone(&self.letters),
            counts: Arc::clone(&counts),
            tuning: self.case.tuning,
        };
        self.executions += 1;
        let gate = Arc::clone(&self.gate);
        let closed = gate.lock().unwrap_or_else(PoisonError::into_inner);
        let building =
            Crew::build(crewing.workers, crewing.as_bytes, move |worker| Member::new(worker, &kit));
        // Worker 0 has one task find out what the program goes on from. It is the only one: workers wait at
        // the gate until it is over.
        while runtime.metrics().global_queue_depth() == 0 && !building.has_failed() {
            thread::yield_now();
        }
        let mut turn = Duration::from_millis(10);
        settle(&runtime);
        while runtime.metrics().num_alive_tasks() > 0 {
            self.turn(turn);
            runtime.block_on(tokio::time::advance(turn));
            settle(&runtime);
            turn = (turn * 2).min(Duration::from_secs(2));
        }
        drop(closed);
        let crew = building.wait()?;
        let restored = crew.on(0, |member| member.restored())?;
        self.is_kept(restored.as_ref())?;
        self.durable = restored;
        let looks = vec![None; crew.len()];
        let mut execution = Execution { crew, counts, runtime, looks, passed: 0 };
        for worker in 0..crewing.workers {
            execution.step(worker, 0)?;
        }
        self.running = Some(execution);
        Ok(())
    }

    /// What was durable is what the program goes on from, or something later.
    fn is_kept(&self, restored: Option<&SnapshotDone<u64>>) -> Result<(), String> {
        let Some(durable) = &self.durable else { return Ok(()) };
        let Some(restored) = restored else {
            return Err(format!("cut {} was durable, and nothing is restored", durable.cut));
        };
        if restored.cut < durable.cut {
            return Err(format!(
                "cut {} was durable, and cut {} is restored",
                durable.cut, restored.cut
            ));
        }
        let known = durable.positions.get(INGRESS).into_iter().flatten();
        let positions = restored.positions.get(INGRESS);
        for (partition, position) in known {
            let now = positions.and_then(|positions| positions.get(partition));
            if now.is_none_or(|now| now < position) {
                return Err(format!(
                    "cut {} was durable with position {position} of partition {partition}; cut {} is \
                     restored with {now:?}",
                    durable.cut, restored.cut,
                ));
            }
        }
        Ok(())
    }

    /// What is to happen before an action.
    fn happen(&mut self, action: u64) -> Result<(), String> {
        let events = self.case.events.iter().copied();
        let due: Vec<_> = events
            .filter(|event| match event {
                Event::Snapshot { at } | Event::Crash { at, .. } | Event::Stall { at, .. } => {
                    *at == action
                }
                Event::Call { .. } | Event::Store { .. } => false,
            })
            .collect();
        for event in due {
            match event {
                Event::Snapshot { .. } => {
                    let worker = self.random.below(self.workers() as u64) as usize;
                    self.on(worker, |member| member.request_snapshot())?;
                }
                Event::Stall { worker, actions, .. } => {
                    self.counts.faults += 1;
                    self.stalled.insert(worker, action + actions);
                }
                Event::Crash { how, .. } => self.crash(how, action)?,
                Event::Call { .. } | Event::Store { .. } => {}
            }
        }
        Ok(())
    }

    fn crash(&mut self, how: Crash, action: u64) -> Result<(), String> {
        self.counts.crashes += 1;
        let execution = self.running.take().expect("it runs");
        execution.counts.store(false, Relaxed);
        match how {
            Crash::Killed => drop(execution),
            Crash::PowerLost => {
                drop(execution);
                self.disk.lose_power();
            }
            Crash::Believed { sleeps, actions } => {
                self.zombies.push(Zombie { execution, wakes: action + sleeps, left: actions });
            }
        }
        self.stalled.clear();
        self.start()
    }

    /// Somebody gets on.
    fn act(&mut self, action: u64) -> Result<(), String> {
        if !self.zombies.is_empty() && self.random.once_in(3) {
            let at = self.random.below(self.zombies.len() as u64) as usize;
            if self.zombies[at].wakes <= action {
                return self.act_dead(at);
            }
        }
        let worker = self.random.below(self.workers() as u64) as usize;
        match self.random.below(20) {
            0..=10 => {
                if !self.is_stalled(worker, action) {
                    let steps = 1 + self.random.below(4);
                    self.step(worker, steps)?;
                }
            }
            11..=14 => {
                let (messages, anyway) = (1 + self.random.below(6), self.random.once_in(8));
                self.running().crew.on(worker, move |member| member.feed(messages, anyway))?;
                if !self.is_stalled(worker, action) {
                    self.step(worker, 1)?;
                }
            }
            15 => settle(&self.running().runtime),
            _ => {
                let most = *self.random.pick(&[5, 5, 5, 20, 20, 100, 1_000, 10_000]);
                let by = Duration::from_millis(1 + self.random.below(most));
                self.turn(by);
                if self.random.once_in(20) {
                    self.disk.land();
                }
            }
        }
        Ok(())
    }

    fn is_stalled(&self, worker: usize, action: u64) -> bool {
        self.stalled.get(&worker).is_some_and(|until| *until > action)
    }

    /// One that is believed to be dead gets on, by a clock of its own: while it slept, no time passed for
    /// it.
    fn act_dead(&mut self, at: usize) -> Result<(), String> {
        let Zombie { execution, left, .. } = &mut self.zombies[at];
        match self.random.below(3) {
            0 => {
                let by = Duration::from_millis(1 + self.random.below(50));
                execution.runtime.block_on(tokio::time::advance(by));
                settle(&execution.runtime);
            }
            _ => {
                let worker = self.random.below(execution.crew.len() as u64) as usize;
                execution.crew.on(worker, |member| member.step(2))?;
            }
        }
        *left -= 1;
        if *left == 0 {
            drop(self.zombies.swap_remove(at));
        }
        Ok(())
    }

    /// Turns the clocks.
    fn turn(&mut self, by: Duration) {
        self.hands.advance(by);
        if let Some(execution) = &self.running {
            execution.runtime.block_on(tokio::time::advance(by));
            settle(&execution.runtime);
        }
    }

    /// Has a worker of the program get on, and notes what can be seen of it then.
    fn step(&mut self, worker: usize, steps: u64) -> Result<(), String> {
        let look = self.running().step(worker, steps)?;
        self.note(worker, &look);
        match look.stopped {
            None => Ok(()),
            Some(stopped) => Err(format!("it stopped: {stopped}")),
        }
    }

    fn note(&mut self, worker: usize, look: &Look) {
        let numbers = [
            worker as u64,
            look.frontier,
            look.handled,
            look.sent,
            look.logged,
            look.waiting as u64,
            look.under_way as u64,
            look.delayed as u64,
            look.held_back as u64,
            self.clock.now_ms(),
            self.network.calls(),
        ];
        let mixed = |trace: u64, number: &u64| {
            (trace ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23)
        };
        self.trace = numbers.iter().fold(self.trace, mixed);
        self.counts.waiting_bytes_max = self.counts.waiting_bytes_max.max(look.waiting_bytes);
        let before = self.running().looks[worker].as_ref().map_or(0, |look| look.handled);
        self.counts.handled += look.handled - before;
        self.running().looks[worker] = Some(look.clone());
        if let Some(done) = look.done.last() {
            self.counts.cuts += u64::from(worker == 0) * look.done.len() as u64;
            self.durable = Some(done.clone());
        }
    }

    /// Everybody gets on once.
    fn round(&mut self) -> Result<(), String> {
        settle(&self.running().runtime);
        for worker in 0..self.workers() {
            self.step(worker, 2)?;
        }
        Ok(())
    }

    /// Lets the program run until nothing is left to do. What waits for the clock gets its time.
    fn rest(&mut self) -> Result<(), String> {
        let (mut quiet, mut before) = (0, Vec::new());
        let mut turn = Duration::from_millis(1);
        for _ in 0..ROUNDS_MAX {
            self.round()?;
            let looks = self.running().looks.clone();
            let is_same = looks == before && looks.iter().flatten().all(|look| look.held_back == 0);
            before = looks;
            quiet = if is_same { quiet + 1 } else { 0 };
            if quiet < QUIET_ROUNDS {
                continue;
            }
            let end = self.case.end();
            let is_done = |look: &Look| {
                let waits = look.under_way + look.delayed + look.to_feed + look.waiting;
                waits == 0 && look.frontier == end
            };
            if before.iter().flatten().all(is_done) {
                return Ok(());
            }
            // What waits for the clock, such as another attempt, gets its time.
            self.turn(turn);
            turn = (turn * 4).min(TURN_MAX);
            quiet = 0;
        }
        Err(format!("it does not come to rest: {before:?}"))
    }
}

impl<M: ExchangeData + Clone + Sync> Execution<M> {
    /// Has a worker get on, and checks that nothing leaves at a time that is over.
    fn step(&mut self, worker: usize, steps: u64) -> Result<Look, String> {
        let look = self.crew.on(worker, move |member| member.step(steps))?;
        if look.left < self.passed {
            let (left, passed) = (look.left, self.passed);
            return Err(format!(
                "something left at {left}, and the frontier had passed it: {passed}"
            ));
        }
        self.passed = self.passed.max(look.frontier);
        Ok(look)
    }

    fn to_feed(&self) -> usize {
        self.looks.iter().map(|look| look.as_ref().map_or(1, |look| look.to_feed)).sum()
    }
}

/// Lets the tasks of a runtime get on until each waits for something: how they get their turns is tokio's
/// affair, and where they come to is not.
fn settle(runtime: &Runtime) {
    runtime.block_on(async {
        for _ in 0..SETTLES {
            tokio::task::yield_now().await;
        }
    });
}

//! One run: whoever gets on next, the clock, the network and the store are in one hand.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use timely::ExchangeData;

use super::super::store::{FaultyStore, StoreCall, StoreFault};
use super::super::turned::TurnedRuntime;
use super::case::{Case, Crash, Event};
use super::crew::{Crew, Slabs};
use super::member::{INGRESS, Kit, Letters, Look, Member, Observers, Shelves};
use super::network::Network;
use super::random::Random;
use crate::clock::{Clock, ClockHands};
use crate::dataflow::SnapshotDone;
use crate::functions::Functions;
use crate::retry::Retry;
use crate::snapshot::{SnapshotOptions, SnapshotStore};

/// What a program does in so many rounds, and in so many more for each message, it does for ever.
const ROUNDS_MAX: u32 = 1_000;
const ROUNDS_FOR_EACH: u32 = 100;
/// So many rounds in which nothing happens are enough to know that nothing will.
const QUIET_ROUNDS: u32 = 4;
/// The longest time by which the clock is turned at once.
const TURN_MAX: Duration = Duration::from_secs(3600);
/// Counts of a run.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) handled: u64,
    pub(super) cuts: u64,
    pub(super) crashes: u64,
    pub(super) faults: u64,
    pub(super) calls: u64,
    pub(super) waiting_bytes_max: usize,
}

/// An execution of the program.
struct Execution<M: ExchangeData + Clone> {
    crew: Crew<Member<M>>,
    counts: Arc<AtomicBool>,
    /// Dropped after the workers: what they have under way ends with them.
    runtime: TurnedRuntime,
    /// How much each worker has handled.
    looks: Vec<Option<Look>>,
    /// What every worker has been told cannot come any more.
    passed: u64,
    /// The cut that it began with; 0 if none.
    restored: u64,
    /// By held egress, the last cut that was stored, and that each worker has acknowledged.
    stored: Vec<(u64, Vec<u64>)>,
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
    pub(super) shelves: Shelves<M>,
    pub(super) letters: Letters<M>,
    network: Arc<Network>,
    slabs: Slabs,
    disk: FaultyStore,
    /// How often the store has failed.
    store_faults: Arc<AtomicU64>,
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
        shelves: &Shelves<M>,
        services: Vec<(String, super::network::Service)>,
        slabs: Slabs,
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
        let store_faults = Arc::new(AtomicU64::new(0));
        disk.plan(plan(faults.collect(), Random::branch(case.seed, 6), Arc::clone(&store_faults)));
        let fresh = observers.iter().map(|(name, observer)| (*name, observer.fresh()));
        World {
            case,
            make,
            observers: fresh.collect(),
            shelves: shelves.iter().map(|(name, shelf)| (*name, shelf.fresh())).collect(),
            letters: Arc::new(Mutex::default()),
            network: Arc::new(network),
            slabs,
            disk,
            store_faults,
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
        self.start(0)?;
        let (mut action, last) = (0, self.case.last());
        while action <= last || self.running().to_feed() > 0 {
            self.happen(action)?;
            self.act(action)?;
            self.put_away()?;
            self.is_served()?;
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
        for _ in 0..self.rounds_max() {
            self.round()?;
            if self.running().looks.iter().flatten().all(|look| look.is_over) {
                self.counts.calls = self.network.calls();
                let failed = self.network.failed() + self.store_faults.load(Relaxed);
                self.counts.faults += failed;
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
        let mut trace = self.trace;
        for (name, observer) in &self.observers {
            mix(&mut trace, [name.len() as u64]);
            for (execution, time) in observer.when() {
                mix(&mut trace, [execution.into(), time]);
            }
        }
        for (_, shelf) in &self.shelves {
            shelf
                .counts()
                .iter()
                .for_each(|(cut, records)| mix(&mut trace, [*cut, *records as u64]));
        }
        for (time, letter) in self.letters.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let reason = letter.reason.to_string().into_bytes();
            mix(&mut trace, std::iter::once(*time).chain(reason.into_iter().map(u64::from)));
        }
        for (name, bytes) in self.disk.files() {
            let name = name.into_bytes().into_iter().map(u64::from);
            mix(&mut trace, name.chain([bytes.len() as u64]));
        }
        trace
    }

    fn rounds_max(&self) -> u32 {
        ROUNDS_MAX + ROUNDS_FOR_EACH * self.case.messages.len() as u32
    }

    /// Whether all services have answered so far, which is theirs to do.
    fn is_served(&self) -> Result<(), String> {
        self.network.panicked().map_or(Ok(()), Err)
    }

    fn running(&mut self) -> &mut Execution<M> {
        self.running.as_mut().expect("it runs")
    }

    fn start(&mut self, action: u64) -> Result<(), String> {
        let crewing = self.case.crew(self.executions);
        let runtime = TurnedRuntime::offline();
        let counts = Arc::new(AtomicBool::new(true));
        let kit = Kit {
            make: Arc::clone(&self.make),
            answers: Arc::clone(&self.network) as _,
            store: self.store.clone(),
            clock: self.clock.clone(),
            runtime: runtime.handle().clone(),
            execution: self.executions,
            seed: self.case.seed,
            messages: Arc::clone(&self.case.messages),
            end: self.case.end(),
            observers: self.observers.clone(),
            shelves: self.shelves.clone(),
            letters: Arc::clone(&self.letters),
            counts: Arc::clone(&counts),
            tuning: self.case.tuning,
        };
        self.executions += 1;
        let gate = Arc::clone(&self.gate);
        let closed = gate.lock().unwrap_or_else(PoisonError::into_inner);
        let building =
            Crew::build(crewing.workers, crewing.as_bytes.then_some(&self.slabs), move |worker| {
                Member::new(worker, &kit)
            });
        // Worker 0 has one task find out what the program goes on from. It is the only one: workers wait at
        // the gate until it is over.
        while runtime.is_idle() && !building.has_failed() {
            thread::yield_now();
        }
        let found = self.find_out(&runtime, action);
        // Until then, one that was believed to be dead could still take a snapshot that this one goes on from.
        for zombie in &self.zombies {
            zombie.execution.counts.store(false, Relaxed);
        }
        drop(closed);
        if let Err(why) = found {
            // Workers that wait for what is found out are told that nobody does.
            drop(runtime);
            return Err(why);
        }
        let crew = building.wait()?;
        let restored = crew.on(0, |member| member.restored())?;
        self.is_kept(restored.as_ref())?;
        self.durable = restored.clone();
        let looks = vec![None; crew.len()];
        let restored = restored.map_or(0, |done| done.cut);
        let stored = vec![(0, vec![0; crew.len()]); self.shelves.len()];
        let mut execution = Execution { crew, counts, runtime, looks, passed: 0, restored, stored };
        for worker in 0..crewing.workers {
            execution.step(worker, 0)?;
        }
        self.running = Some(execution);
        Ok(())
    }

    /// Lets time pass until it is found out what an execution goes on from. Those that are believed to be dead
    /// get on meanwhile, and what was under way arrives.
    fn find_out(&mut self, runtime: &TurnedRuntime, action: u64) -> Result<(), String> {
        let mut turn = Duration::from_millis(10);
        runtime.settle();
        while runtime.has_tasks() {
            for _ in 0..self.random.below(4) {
                if let Some(at) = self.awake(action) {
                    self.act_dead(at)?;
                }
            }
            if self.random.once_in(4) {
                self.disk.land();
            }
            self.turn(turn);
            runtime.advance(turn);
            turn = (turn * 2).min(Duration::from_secs(2));
        }
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
                Event::Snapshot { at }
                | Event::Aligned { at, .. }
                | Event::Crash { at, .. }
                | Event::Stall { at, .. } => *at == action,
                Event::Call { .. } | Event::Store { .. } => false,
            })
            .collect();
        for event in due {
            match event {
                Event::Snapshot { .. } => self.request(None)?,
                Event::Aligned { time, .. } => self.request(Some(time))?,
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

    fn request(&mut self, aligned: Option<u64>) -> Result<(), String> {
        let worker = self.random.below(self.workers() as u64) as usize;
        self.on(worker, move |member| member.request_snapshot(aligned))
    }

    fn crash(&mut self, how: Crash, action: u64) -> Result<(), String> {
        self.counts.crashes += 1;
        let execution = self.running.take().expect("it runs");
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
        self.start(action)
    }

    /// Somebody gets on.
    fn act(&mut self, action: u64) -> Result<(), String> {
        if !self.zombies.is_empty()
            && self.random.once_in(3)
            && let Some(at) = self.awake(action)
        {
            return self.act_dead(at);
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
            15 => self.running().runtime.settle(),
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

    /// Has what has left through held egresses stored, and acknowledged, at times.
    fn put_away(&mut self) -> Result<(), String> {
        let World { running: Some(execution), shelves, random, .. } = self else { return Ok(()) };
        match random.once_in(4) {
            true => execution.put_away(shelves, random),
            false => Ok(()),
        }
    }

    /// Has all of it stored and acknowledged. Says whether there was any.
    fn put_all_away(&mut self) -> Result<bool, String> {
        let World { running: Some(execution), shelves, random, .. } = self else {
            return Ok(false);
        };
        let mut any = false;
        while !execution.has_put_away() {
            execution.put_away(shelves, random)?;
            any = true;
        }
        Ok(any)
    }

    /// One of those that are believed to be dead, if it is awake.
    fn awake(&mut self, action: u64) -> Option<usize> {
        if self.zombies.is_empty() {
            return None;
        }
        let at = self.random.below(self.zombies.len() as u64) as usize;
        (self.zombies[at].wakes <= action).then_some(at)
    }

    /// One that is believed to be dead gets on, by a clock of its own: while it slept, no time passed for
    /// it. It may be told that a snapshot is durable only if whoever goes on in its place goes on from that, or
    /// from a later one.
    fn act_dead(&mut self, at: usize) -> Result<(), String> {
        let Zombie { execution, left, .. } = &mut self.zombies[at];
        let mut told = None;
        match self.random.below(3) {
            0 => {
                let by = Duration::from_millis(1 + self.random.below(50));
                execution.runtime.advance(by);
            }
            _ => {
                let worker = self.random.below(execution.crew.len() as u64) as usize;
                let look = execution.crew.on(worker, |member| member.step(2))?;
                told = look.done.last().cloned();
                execution.looks[worker] = Some(look);
                execution.put_away(&self.shelves, &mut self.random)?;
            }
        }
        *left -= 1;
        if *left == 0 {
            drop(self.zombies.swap_remove(at));
        }
        let Some(told) = told else { return Ok(()) };
        match &self.running {
            Some(running) if told.cut > running.restored => Err(format!(
                "an execution that was over was told that cut {} is durable, and another one had begun with {}",
                told.cut, running.restored
            )),
            Some(_) => Ok(()),
            None => {
                let is_newer = |durable: &SnapshotDone<u64>| durable.cut < told.cut;
                if self.durable.as_ref().is_none_or(is_newer) {
                    self.durable = Some(told);
                }
                Ok(())
            }
        }
    }

    /// Turns the clocks.
    fn turn(&mut self, by: Duration) {
        self.hands.advance(by);
        if let Some(execution) = &self.running {
            execution.runtime.advance(by);
        }
    }

    /// Has a worker of the program get on, and notes what can be seen of it then.
    fn step(&mut self, worker: usize, steps: u64) -> Result<(), String> {
        let look = self.running().step(worker, steps)?;
        self.note(worker, &look);
        for done in &look.done {
            self.is_aligned(done)?;
        }
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
        mix(&mut self.trace, numbers);
        self.counts.waiting_bytes_max = self.counts.waiting_bytes_max.max(look.waiting_bytes);
        let before = self.running().looks[worker].as_ref().map_or(0, |look| look.handled);
        self.counts.handled += look.handled - before;
        self.running().looks[worker] = Some(look.clone());
        if let Some(done) = look.done.last() {
            self.counts.cuts += u64::from(worker == 0) * look.done.len() as u64;
            self.durable = Some(done.clone());
        }
    }

    /// A snapshot that is said to be aligned has exactly the ingress before one of the times that were asked for.
    fn is_aligned(&self, done: &SnapshotDone<u64>) -> Result<(), String> {
        if done.aligned != Some(true) {
            return Ok(());
        }
        let positions = done.positions.get(INGRESS);
        let is_of = |time: u64| {
            let before = self.case.messages.iter().filter(|sent| sent.time < time);
            let last: BTreeMap<_, _> = before.map(|sent| (sent.partition, sent.position)).collect();
            positions.map_or(last.is_empty(), |positions| positions.iter().eq(last.iter()))
        };
        let times = self.case.events.iter().filter_map(|event| match event {
            Event::Aligned { time, .. } => Some(*time),
            _ => None,
        });
        match times.clone().any(is_of) {
            true => Ok(()),
            false => Err(format!(
                "cut {} is said to be aligned to one of {:?}, and its positions are {positions:?}",
                done.cut,
                times.collect::<Vec<_>>()
            )),
        }
    }

    /// Everybody gets on once.
    fn round(&mut self) -> Result<(), String> {
        self.running().runtime.settle();
        for worker in 0..self.workers() {
            self.step(worker, 2)?;
        }
        self.is_served()?;
        self.put_all_away().map(drop)
    }

    /// Lets the program run until nothing is left to do. What waits for the clock gets its time.
    fn rest(&mut self) -> Result<(), String> {
        let (mut quiet, mut before, mut end) = (0, Vec::new(), self.case.end());
        let mut turn = Duration::from_millis(1);
        // What is held leaves with a snapshot that is taken after all has happened. One may be under way when it is
        // asked for, so there are two.
        let (mut snapshots, mut durable) = (if self.shelves.is_empty() { 0 } else { 2 }, None);
        for _ in 0..self.rounds_max() {
            self.round()?;
            let looks = self.running().looks.clone();
            let is_same = looks == before && looks.iter().flatten().all(|look| look.held_back == 0);
            before = looks;
            quiet = if is_same { quiet + 1 } else { 0 };
            if quiet < QUIET_ROUNDS {
                continue;
            }
            let is_done = |look: &Look| {
                let waits = look.under_way + look.delayed + look.to_feed + look.waiting;
                waits == 0 && look.frontier == end
            };
            if before.iter().flatten().all(is_done) {
                let cut = self.durable.as_ref().map_or(0, |done| done.cut);
                if durable.is_none_or(|before| cut > before) {
                    if snapshots == 0 {
                        return Ok(());
                    }
                    self.request(None)?;
                    (snapshots, durable) = (snapshots - 1, Some(cut));
                }
            }
            // What waits for the clock, such as another attempt, gets its time; and what happens then happens
            // at the time of the ingress, and may wait until that is over.
            self.turn(turn);
            end += 1;
            for worker in 0..self.workers() {
                self.running().crew.on(worker, move |member| member.advance_to(end))?;
            }
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

    /// The last cut of a held egress of which all workers have all, as far as was seen.
    fn ended(&self, egress: usize) -> u64 {
        let ended =
            self.looks.iter().map(|look| look.as_ref().map_or(0, |look| look.ended[egress]));
        ended.min().unwrap_or(0)
    }

    /// Whether all that has left through held egresses is stored, and acknowledged by all workers.
    fn has_put_away(&self) -> bool {
        let mut stored = self.stored.iter().enumerate();
        stored.all(|(egress, (cut, told))| {
            *cut == self.ended(egress) && told.iter().all(|told| told == cut)
        })
    }

    /// Stores what has come through each held egress, or has a worker acknowledge what is stored.
    fn put_away<S>(&mut self, shelves: &Shelves<S>, random: &mut Random) -> Result<(), String> {
        for (egress, (_, shelf)) in shelves.iter().enumerate() {
            let ended = self.ended(egress);
            let (cut, told) = &mut self.stored[egress];
            let behind = told.iter().position(|told| told < cut);
            match behind {
                Some(worker) if *cut == ended || random.once_in(2) => {
                    let cut = *cut;
                    told[worker] = cut;
                    self.crew.on(worker, move |member| member.acknowledge(egress, cut))?;
                }
                _ if *cut < ended => {
                    *cut = ended;
                    let workers = 0..self.crew.len();
                    let parts = workers.map(|worker| {
                        self.crew.on(worker, move |member| member.take(egress, ended))
                    });
                    shelf.store(parts.collect::<Result<Vec<_>, String>>()?)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn to_feed(&self) -> usize {
        self.looks.iter().map(|look| look.as_ref().map_or(1, |look| look.to_feed)).sum()
    }
}

/// What goes wrong with the store, by number of the call. A fault that only a put can have is the next put's.
fn plan(
    faults: BTreeMap<u64, StoreFault>,
    mut random: Random,
    count: Arc<AtomicU64>,
) -> impl FnMut(StoreCall, &str) -> StoreFault + Send {
    let (mut calls, mut postponed) = (0_u64, Vec::new());
    move |call, _| {
        let planned = faults.get(&calls).copied();
        calls += 1;
        let fits = |fault: &StoreFault| match fault {
            StoreFault::Late | StoreFault::Unsynced => call == StoreCall::Put,
            StoreFault::OldList(_) => call == StoreCall::List,
            _ => true,
        };
        postponed.extend(planned);
        if let Some(at) = postponed.iter().position(fits) {
            count.fetch_add(1, Relaxed);
            return postponed.remove(at);
        }
        match random.below(3) {
            0 => StoreFault::Nothing,
            _ => StoreFault::Slow(Duration::from_millis(random.below(12))),
        }
    }
}

fn mix(trace: &mut u64, numbers: impl IntoIterator<Item = u64>) {
    for number in numbers {
        *trace = (*trace ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23);
    }
}

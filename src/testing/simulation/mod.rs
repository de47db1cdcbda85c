//! Whole programs, of several workers, in which chance decides who gets on next and what goes wrong, and a
//! seed decides chance.
//!
//! Real workers of timely run the code that runs in production, one at a time. Clocks, the network, the store
//! and the order in which workers get on are passed in. Nothing here knows what a program is for.

mod case;
mod crew;
mod member;
mod network;
mod random;
mod shelf;
mod world;

use std::fmt;
use std::ops::{AddAssign, Range};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use timely::ExchangeData;
use timely_statefun_proto::reqreply::{FromFunction, ToFunction};

use crate::address::Address;
use crate::dead_letter::DeadLetter;
use crate::dispatch::{Context, panic_message};
use crate::egress::Egress;
use crate::functions::Functions;
use crate::message::Envelope;
use crate::placement;
use case::Case;
use crew::Slabs;
use member::{Observed, Observers, Shelves, observed};
use network::Service;
pub use random::Random;
use shelf::Stored;
use world::World;

/// How many smaller runs are tried of one that fails.
const TRIES: u32 = 400;

/// A program that is run as often as one likes, each time with another order of things and other faults:
/// workers that get nowhere for a while, messages between them that take long, calls of remote functions that
/// fail, hang or are answered late, a store that fails, and ends of the whole program, after which it goes on
/// from its newest snapshot with another number of workers. A seed decides all of it.
///
/// The program is made of the functions that `make` makes, and its ingress of the messages that `message`
/// draws. When nothing is left to do, [checks](Self::check) look at what came of it. That no frontier passes
/// what is still to come, that the program comes to rest and to its end, and that what was durable stays so,
/// is checked always.
///
/// ```
/// use timely_statefun::testing::{Random, Simulation};
/// use timely_statefun::{Egress, Function, FunctionType, Functions, ValueSpec};
///
/// const COUNTER: FunctionType<u64> = FunctionType::new("example/counter");
/// const SUMS: Egress<(String, u64)> = Egress::new("example/sums");
/// const SUM: ValueSpec<u64> = ValueSpec::new("sum");
///
/// fn functions() -> Functions<u64> {
///     let counter = Function::new(|context, number: &u64| {
///         context.update(SUM, |sum| *sum += number);
///         let sum = *context.get(SUM).expect("it was just set");
///         context.emit(SUMS, (context.address().id.to_string(), sum));
///         Ok(())
///     });
///     Functions::new().embedded(COUNTER, counter.value(SUM)).persisted_egress(SUMS)
/// }
///
/// let message = |random: &mut Random| COUNTER.message(random.below(5), 1 + random.below(9));
/// let report = Simulation::new(functions, message)
///     .observe(SUMS)
///     .check(|run| {
///         for id in 0..5_u64 {
///             let to_it = run.sent().filter(|(_, sent)| sent.target == COUNTER.at(id));
///             let expected: u64 = to_it.map(|(_, sent)| sent.message).sum();
///             let sum = run.with(&COUNTER.at(id), |context| context.get(SUM).copied());
///             assert_eq!(sum.unwrap_or(0), expected);
///         }
///         assert_eq!(run.emitted_since_restart(SUMS).len(), run.sent().count());
///     })
///     .messages(30)
///     .run(0..5);
/// assert_eq!(report.seeds, 5);
/// ```
///
/// The clock and the runtime of the functions are the simulation's, and their limits are lowered as chance says;
/// `make` is called by all workers at once. A program that always has something to do, as one that sends
/// itself delayed messages for ever, does not come to rest, which is a failure.
///
/// A seed that fails is made as small as it can be, and the panic says what is left of it. The same seed always
/// does the same, as long as neither the library nor the program is another one, and the program leaves
/// nothing to chance, the system's clock or the order of a `HashMap`.
pub struct Simulation<M: ExchangeData + Clone> {
    make: Arc<dyn Fn() -> Functions<M> + Send + Sync>,
    message: Draw<M>,
    observers: Observers,
    shelves: Shelves<M>,
    services: Vec<(String, Service)>,
    check: Check<M>,
    messages: usize,
    workers_max: usize,
    faults: bool,
    slabs: Slabs,
}

type Draw<M> = Box<dyn Fn(&mut Random) -> Envelope<M> + Send + Sync>;
type Check<M> = Box<dyn Fn(&mut Finished<'_, '_, M>) + Send + Sync>;

/// What came of some runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// How many seeds.
    pub seeds: u64,
    /// Messages that were handled.
    pub messages: u64,
    /// Snapshots that became durable.
    pub cuts: u64,
    /// Ends of the program in the middle.
    pub crashes: u64,
    /// Calls of remote functions.
    pub calls: u64,
    /// Other faults that came to pass: workers that got nowhere for a while, and calls of remote functions and
    /// of the store that went wrong.
    pub faults: u64,
    /// How far clocks were turned.
    pub simulated: Duration,
}

impl AddAssign for Report {
    fn add_assign(&mut self, other: Self) {
        self.seeds += other.seeds;
        self.messages += other.messages;
        self.cuts += other.cuts;
        self.crashes += other.crashes;
        self.calls += other.calls;
        self.faults += other.faults;
        self.simulated += other.simulated;
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { seeds, messages, cuts, crashes, calls, faults, simulated } = self;
        let hours = simulated.as_secs_f64() / 3600.0;
        write!(
            f,
            "{seeds} seeds: {messages} messages, {cuts} snapshots, {crashes} crashes, {calls} calls, \
             {faults} other faults, {hours:.1} simulated hours"
        )
    }
}

/// A seed whose run failed, and how small it could be made.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Failed {
    /// The seed. It fails again.
    pub seed: u64,
    /// How many messages it was drawn with, and how many workers at most.
    drawn: (usize, usize),
    /// What was wrong.
    pub why: String,
    /// How many messages are left of the ingress.
    pub messages: usize,
    /// What is left of the run, for people to read.
    pub smallest: String,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Failed { seed, drawn: (messages, workers), why, smallest, .. } = self;
        write!(
            f,
            "seed {seed} fails: {why}\n(It was drawn with {messages} messages and up to {workers} workers.)\n\
             The smallest run that was found to fail so:\n{smallest}"
        )
    }
}

impl std::error::Error for Failed {}

impl<M: ExchangeData + Clone + Sync + fmt::Debug> Simulation<M> {
    /// Runs of the functions that `make` makes, on each worker and after every restart, with messages that
    /// `message` draws.
    pub fn new(
        make: impl Fn() -> Functions<M> + Send + Sync + 'static,
        message: impl Fn(&mut Random) -> Envelope<M> + Send + Sync + 'static,
    ) -> Self {
        Simulation {
            make: Arc::new(make),
            message: Box::new(message),
            observers: Observers::new(),
            shelves: Vec::new(),
            slabs: Slabs::default(),
            services: Vec::new(),
            check: Box::new(|_| ()),
            messages: 100,
            workers_max: 4,
            faults: true,
        }
    }

    /// How many messages the ingress has. Default 100; at least 1.
    #[must_use]
    pub fn messages(mut self, messages: usize) -> Self {
        self.messages = messages.max(1);
        self
    }

    /// How many workers an execution has at most. Default 4; at least 1.
    #[must_use]
    pub fn workers_max(mut self, workers: usize) -> Self {
        self.workers_max = workers.max(1);
        self
    }

    /// Has nothing go wrong: only the order of things is left to chance.
    #[must_use]
    pub fn calm(mut self) -> Self {
        self.faults = false;
        self
    }

    /// Keeps what leaves through an egress, for checks.
    #[must_use]
    pub fn observe<E: Send + 'static>(mut self, egress: Egress<E>) -> Self {
        self.observers.insert(egress.name(), Arc::new(Observed::<E>(Mutex::default())));
        self
    }

    /// Stores what leaves through a [held](Functions::held_egress) egress, for checks: cut by cut, at some time after
    /// it was released, as a [sink](crate::sink) does. It may be released again, and must then be the same.
    #[must_use]
    pub fn store<E>(mut self, egress: Egress<E>) -> Self
    where
        E: Clone + Ord + fmt::Debug + Send + 'static,
    {
        self.shelves.push((egress.name(), Arc::new(Stored::of(egress))));
        self
    }

    /// Serves remote functions whose URL begins so. It may be asked the same again, as every function may be
    /// whose answer was lost.
    ///
    /// Several attempts at one call may go wrong, and clocks may be turned far at once. A function that is never to be
    /// given up has a [call timeout](crate::Endpoint::call_timeout) of hours.
    #[must_use]
    pub fn serve(
        mut self,
        url: impl Into<String>,
        service: impl Fn(&ToFunction) -> FromFunction + Send + Sync + 'static,
    ) -> Self {
        self.services.push((url.into(), Arc::new(service)));
        self
    }

    /// Looks at what came of a run, when nothing is left to do. It panics if that is wrong.
    #[must_use]
    pub fn check(
        mut self,
        check: impl Fn(&mut Finished<'_, '_, M>) + Send + Sync + 'static,
    ) -> Self {
        self.check = Box::new(check);
        self
    }

    /// Runs some seeds, one after the other.
    ///
    /// # Panics
    ///
    /// With the first seed that fails, and the smallest run like it that was found to fail. Also within a tokio
    /// runtime: a simulation has runtimes of its own.
    #[track_caller]
    pub fn run(&self, seeds: Range<u64>) -> Report {
        let mut report = Report::default();
        for seed in seeds {
            match self.try_seed(seed) {
                Ok(one) => report += one,
                Err(failed) => panic!("{failed}"),
            }
        }
        report
    }

    /// Runs one seed.
    ///
    /// # Errors
    ///
    /// What was wrong, and the smallest run like it that was found to fail.
    ///
    /// # Panics
    ///
    /// Within a tokio runtime.
    pub fn try_seed(&self, seed: u64) -> Result<Report, Box<Failed>> {
        let case = self.draw(seed);
        self.try_case(&case).map(|(report, _)| report).map_err(|why| self.shrink(case, why))
    }

    /// Runs a seed, and gives a number that is another one if anything in it went another way.
    ///
    /// # Errors
    ///
    /// What was wrong; nothing is made smaller.
    pub fn trace(&self, seed: u64) -> Result<u64, String> {
        self.try_case(&self.draw(seed)).map(|(_, trace)| trace)
    }

    fn draw(&self, seed: u64) -> Case<M> {
        Case::draw(seed, self.messages, self.workers_max, self.faults, &self.message)
    }

    fn try_case(&self, case: &Case<M>) -> Result<(Report, u64), String> {
        let within = tokio::runtime::Handle::try_current().is_ok();
        assert!(!within, "a simulation cannot be run within a tokio runtime: it has its own");
        let tried = catch_unwind(AssertUnwindSafe(|| self.run_case(case)));
        tried.unwrap_or_else(|panic| Err(panic_message(&*panic)))
    }

    fn run_case(&self, case: &Case<M>) -> Result<(Report, u64), String> {
        let (services, slabs) = (self.services.clone(), self.slabs.clone());
        let make = Arc::clone(&self.make);
        let mut world = World::new(case, make, &self.observers, &self.shelves, services, slabs);
        let began_ms = world.now_ms();
        world.run()?;
        (self.check)(&mut Finished { case, world: &mut world });
        world.end()?;
        let counts = world.counts;
        let report = Report {
            seeds: 1,
            messages: counts.handled,
            cuts: counts.cuts,
            crashes: counts.crashes,
            calls: counts.calls,
            faults: counts.faults,
            simulated: Duration::from_millis(world.now_ms() - began_ms),
        };
        Ok((report, world.trace()))
    }

    /// Leaves out of a run that fails whatever it fails without, in the same way.
    fn shrink(&self, mut case: Case<M>, why: String) -> Box<Failed> {
        let (mut tries, mut last) = (0, why.clone());
        // Again and again from the beginning, until nothing more can be left out.
        while tries < TRIES {
            let (before, mut step) = (case.size(), 0);
            while tries < TRIES
                && let Some(smaller) = case.smaller(step)
            {
                if smaller.size() == case.size() {
                    step += 1;
                    continue;
                }
                tries += 1;
                match self.try_case(&smaller) {
                    // What follows is in its place now.
                    Err(other) if kind(&other) == kind(&why) => (case, last) = (smaller, other),
                    _ => step += 1,
                }
            }
            if case.size() == before {
                break;
            }
        }
        let (seed, messages) = (case.seed, case.messages.len());
        let mut smallest = case.to_string();
        if last != why {
            smallest = format!("  {last}\n{smallest}");
        }
        let drawn = (self.messages, self.workers_max);
        Box::new(Failed { seed, drawn, why, messages, smallest })
    }
}

/// How what was wrong begins, without what is another number each time: what fails in the same way is of the same
/// kind.
fn kind(why: &str) -> String {
    let words = why.split(|c: char| !c.is_alphabetic()).filter(|word| !word.is_empty());
    words.take(6).collect::<Vec<_>>().join(" ")
}

impl<M: ExchangeData + Clone> fmt::Debug for Simulation<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Simulation")
            .field("messages", &self.messages)
            .field("workers_max", &self.workers_max)
            .field("faults", &self.faults)
            .finish_non_exhaustive()
    }
}

/// A run in which nothing is left to do, and ingress is not closed yet.
pub struct Finished<'a, 'b, M: ExchangeData + Clone> {
    case: &'b Case<M>,
    world: &'a mut World<'b, M>,
}

impl<M: ExchangeData + Clone + Sync> Finished<'_, '_, M> {
    /// The messages of the ingress, each with its time.
    pub fn sent(&self) -> impl Iterator<Item = (u64, &Envelope<M>)> {
        self.case.messages.iter().map(|sent| (sent.time, &sent.envelope))
    }

    /// All that has ever left through an egress, with the time of each record: what a sink saw. After a
    /// restart some of it leaves again.
    ///
    /// # Panics
    ///
    /// If the egress is not [observed](Simulation::observe).
    pub fn emitted<E: Clone + Send + 'static>(&self, egress: Egress<E>) -> Vec<(u64, E)> {
        let all = observed(&self.world.observers, egress).into_iter();
        all.map(|(_, time, record)| (time, record)).collect()
    }

    /// What has left through an egress since the program was started for the last time. Of a
    /// [persisted](Functions::persisted_egress) one that is all of it, once.
    ///
    /// # Panics
    ///
    /// As for [`emitted`](Self::emitted).
    pub fn emitted_since_restart<E: Clone + Send + 'static>(
        &self,
        egress: Egress<E>,
    ) -> Vec<(u64, E)> {
        let last = self.world.executions - 1;
        let all = observed(&self.world.observers, egress).into_iter();
        let of_last = all.filter(|(execution, ..)| *execution == last);
        of_last.map(|(_, time, record)| (time, record)).collect()
    }

    /// What is [stored](Simulation::store) of a held egress: in the order in which cuts released it, and in a cut, of
    /// each address in the order in which it was emitted.
    ///
    /// # Panics
    ///
    /// If the egress is not stored.
    pub fn stored<E: Clone + Send + 'static>(&self, egress: Egress<E>) -> Vec<E> {
        let shelf = self.world.shelves.iter().find(|(name, _)| *name == egress.name());
        let (_, shelf) = shelf.unwrap_or_else(|| panic!("\"{}\" is not stored", egress.name()));
        let stored = shelf.as_any().downcast_ref::<Stored<E>>();
        stored.expect("it was stored with this type").all()
    }

    /// The messages that were ever given up, each with its time. After a restart some are given up again.
    pub fn dead_letters(&self) -> Vec<(u64, DeadLetter<M>)> {
        self.world.letters.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// How often the program was ended and started again.
    pub fn restarts(&self) -> u32 {
        self.world.executions - 1
    }

    /// The most bytes of messages that waited on a worker.
    pub fn waiting_bytes_max(&self) -> usize {
        self.world.counts.waiting_bytes_max
    }

    /// Does something at an address as its function could: looks at its state.
    ///
    /// # Panics
    ///
    /// If no embedded function is bound to the address, if its state is used otherwise than it is declared, or if a
    /// message is sent or an asynchronous operation begun.
    pub fn with<R: Send + 'static>(
        &mut self,
        address: &Address,
        act: impl FnOnce(&mut Context<'_, M>) -> R + Send + 'static,
    ) -> R {
        let workers = self.world.workers() as u64;
        let worker = (placement::bin(placement::hash(&address.id)) % workers) as usize;
        let address = address.clone();
        let done = self.world.on(worker, move |member| member.visit(&address, act));
        match done.and_then(|done| done) {
            Ok(result) => result,
            Err(why) => panic!("{why}"),
        }
    }
}

impl<M: ExchangeData + Clone> fmt::Debug for Finished<'_, '_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Finished").field("seed", &self.case.seed).finish_non_exhaustive()
    }
}

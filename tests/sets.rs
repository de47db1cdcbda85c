//! Several sets of functions in one dataflow share snapshots: a cut is one over all of them, also where one
//! emits what is the ingress of another.
//!
//! A program is dropped at random moments and begun again on other numbers of workers. Numbers from replayed
//! sources walk about in one set, come out of it into a second, which adds them up, and go directly into a
//! third, which does the same. At the end the sums are those of all numbers.

mod support;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use support::{Random, Running, mix};
use timely::dataflow::operators::{Input, Inspect, Probe};
use timely::dataflow::{InputHandleVec, ProbeHandle, Stream};
use timely::worker::Worker;
use timely_statefun::{
    Egress, Envelope, Function, FunctionType, Functions, Handle, Limits, SnapshotCounts,
    SnapshotOptions, SnapshotPolicy, SnapshotStore, Snapshots, StatefulFunctions, ValueSpec,
};

#[derive(Copy, Clone, Debug, Serialize, Deserialize)]
enum Step {
    Walk {
        number: u64,
        hops: u64,
    },
    /// To say what it has added up.
    Report(u64),
}

const WALKER: FunctionType<Step> = FunctionType::new("sets/walker");
const LEDGER: FunctionType<Step> = FunctionType::new("sets/ledger");
const VISITS: ValueSpec<u64> = ValueSpec::new("visits");
const COUNT: ValueSpec<u64> = ValueSpec::new("count");
const SUM: ValueSpec<u64> = ValueSpec::new("sum");
const OUT: Egress<Step> = Egress::new("sets/out");
/// Of which ledger, how many numbers, and their sum.
const TOTALS: Egress<(u64, u64, u64)> = Egress::new("sets/totals");

const LEDGERS: u64 = 20;
const PARTITIONS: u64 = 6;
const RECORDS: u64 = 2500;
/// Records of one time.
const SLICE: u64 = 50;

/// So little that gates hold records back.
fn limits() -> Limits {
    Limits { gate_credit_records: 7, budget_messages: 20, ..Limits::default() }
}

fn walkers() -> Functions<Step> {
    let walker = Function::new(|context, step: &Step| {
        context.update(VISITS, |visits| *visits += 1);
        match *step {
            Step::Walk { number, hops } if hops > 0 => {
                let to = mix(number + hops) % 50;
                context.send(WALKER, to, Step::Walk { number, hops: hops - 1 });
            }
            done => context.emit(OUT, done),
        }
        Ok(())
    });
    let functions = Functions::new().named("walkers").embedded(WALKER, walker.value(VISITS));
    functions.egress(OUT).limits(limits())
}

fn ledgers(name: &str) -> Functions<Step> {
    let ledger = Function::new(|context, step: &Step| {
        match *step {
            Step::Walk { number, .. } => {
                context.update(COUNT, |count| *count += 1);
                context.update(SUM, |sum| *sum = sum.wrapping_add(mix(number)));
            }
            Step::Report(id) => {
                let count = context.get(COUNT).copied().unwrap_or_default();
                let sum = context.get(SUM).copied().unwrap_or_default();
                context.emit(TOTALS, (id, count, sum));
            }
        }
        Ok(())
    });
    let functions = Functions::new().named(name).embedded(LEDGER, ledger.value(COUNT).value(SUM));
    functions.egress(TOTALS).limits(limits())
}

fn to_ledger(step: Step) -> Envelope<Step> {
    match step {
        Step::Walk { number, .. } => LEDGER.message(mix(number) % LEDGERS, step),
        Step::Report(id) => LEDGER.message(id, step),
    }
}

/// What a partition has at a position: numbers, and last of all a request to each ledger.
fn record(partition: u64, position: u64) -> Option<Step> {
    match position.checked_sub(RECORDS) {
        None => {
            let number = partition * RECORDS + position;
            Some(Step::Walk { number, hops: mix(number) % 6 })
        }
        Some(at) => {
            let id = at * PARTITIONS + partition;
            (id < LEDGERS).then_some(Step::Report(id))
        }
    }
}

type Totals = BTreeMap<u64, (u64, u64)>;

fn expected() -> Totals {
    let mut totals = Totals::new();
    for number in 0..PARTITIONS * RECORDS {
        let (count, sum) = totals.entry(mix(number) % LEDGERS).or_default();
        (*count, *sum) = (*count + 1, sum.wrapping_add(mix(number)));
    }
    totals
}

/// How a worker reads its partitions into one ingress, each from where it was.
struct Source {
    input: InputHandleVec<u64, Envelope<Step>>,
    next: BTreeMap<u64, u64>,
    target: fn(Step) -> Envelope<Step>,
}

impl Source {
    fn new(
        input: InputHandleVec<u64, Envelope<Step>>,
        worker: &Worker,
        snapshots: &Snapshots<u64>,
        name: &str,
        target: fn(Step) -> Envelope<Step>,
    ) -> Self {
        let positions = snapshots.positions(name);
        let own = (0..PARTITIONS)
            .filter(|partition| partition % worker.peers() as u64 == worker.index() as u64);
        let next = own.map(|partition| {
            let next = positions.get(&partition).map_or(0, |last| last + 1);
            (partition, next)
        });
        let next = next.collect();
        Source { input, next, target }
    }

    /// The least time that is still to be read.
    fn time(&self) -> u64 {
        let times = self.next.values().map(|next| next / SLICE);
        times.min().unwrap_or(u64::MAX / 2).min(RECORDS / SLICE)
    }

    /// Reads what there is at the least time, of what may be read.
    fn feed(&mut self) {
        let time = self.time();
        for (partition, next) in &mut self.next {
            while *next < RECORDS && *next / SLICE == time {
                let step = record(*partition, *next).expect("there are so many");
                self.input.send((self.target)(step).read_at(*partition, *next));
                *next += 1;
            }
        }
        self.input.advance_to(self.time());
    }

    fn report(&mut self) {
        for (partition, next) in &mut self.next {
            while let Some(step) = record(*partition, *next) {
                self.input.send((self.target)(step).read_at(*partition, *next));
                *next += 1;
            }
        }
    }
}

fn to_walker(step: Step) -> Envelope<Step> {
    match step {
        Step::Walk { number, .. } => WALKER.message(number % 50, step),
        Step::Report(id) => WALKER.message(id, step),
    }
}

/// What the workers of one execution share.
#[derive(Default)]
struct Shared {
    durable: AtomicU64,
    dropped: AtomicBool,
    /// What the snapshot that it went on from held, and all that were taken wrote.
    restored: Mutex<SnapshotCounts>,
    totals: Mutex<[Vec<(u64, u64, u64)>; 2]>,
}

/// Far more than anything here takes.
const LIMIT: Duration = Duration::from_secs(100);

/// Runs the program until so many snapshots are durable and it is dropped, or to the end.
fn run(
    workers: usize,
    store: &SnapshotStore,
    runtime: &tokio::runtime::Handle,
    until: Option<u64>,
    chained_first: bool,
) -> Arc<Shared> {
    let shared = Arc::new(Shared::default());
    let (store, runtime, of_all) = (store.clone(), runtime.clone(), Arc::clone(&shared));
    support::on_workers(workers, move |worker| {
        let shared = Arc::clone(&of_all);
        let policy = SnapshotPolicy::new("sets").interval(Duration::from_millis(3));
        let snapshots = Snapshots::<u64>::begin(worker, &store, &runtime, &policy).unwrap();
        if let Some(restored) = snapshots.restored() {
            *shared.restored.lock().unwrap() = restored.counts;
        }
        let (inputs, handles, probes) = worker.dataflow(|scope| {
            let ((numbers, walking), (direct, witnessed)) = (scope.new_input(), scope.new_input());
            let walking = snapshots.replayed("numbers", walking);
            let witnessed = snapshots.replayed("witnessed", witnessed);
            // In whatever order they are built.
            let (walked, ledger, witness);
            if chained_first {
                walked = walking.stateful_functions(walkers()).unwrap();
                let chained = walked.chained(OUT, to_ledger).unwrap();
                ledger = chained.stateful_functions(ledgers("ledgers")).unwrap();
                witness = witnessed.stateful_functions(ledgers("witnesses")).unwrap();
            } else {
                witness = witnessed.stateful_functions(ledgers("witnesses")).unwrap();
                walked = walking.stateful_functions(walkers()).unwrap();
                let chained = walked.chained(OUT, to_ledger).unwrap();
                ledger = chained.stateful_functions(ledgers("ledgers")).unwrap();
            }
            // Each set is told of all of them.
            let told = if chained_first { &walked } else { &ledger };
            let noted = Arc::clone(&shared);
            told.snapshots().unwrap().inspect(move |_| {
                noted.durable.fetch_add(1, SeqCst);
            });
            let probes = [(0, &ledger), (1, &witness)].map(|(number, egresses)| {
                let shared = Arc::clone(&shared);
                let totals = egresses.stream(TOTALS).unwrap();
                let note = move |total: &(u64, u64, u64)| {
                    shared.totals.lock().unwrap()[number].push(*total);
                };
                totals.inspect(note).probe().0
            });
            ([numbers, direct], [walked.handle(), ledger.handle(), witness.handle()], probes)
        });
        let [numbers, direct] = inputs;
        let sources = [
            Source::new(numbers, worker, &snapshots, "numbers", to_walker),
            Source::new(direct, worker, &snapshots, "witnessed", to_ledger),
        ];
        read(worker, &shared, until, sources, &handles, &probes);
    });
    shared
}

fn read(
    worker: &mut Worker,
    shared: &Shared,
    until: Option<u64>,
    mut sources: [Source; 2],
    handles: &[Handle<u64>; 3],
    probes: &[ProbeHandle<u64>; 2],
) {
    let began = Instant::now();
    loop {
        assert!(began.elapsed() < LIMIT, "the program does not end");
        if until.is_some_and(|until| shared.durable.load(SeqCst) >= until) {
            shared.dropped.store(true, SeqCst);
        }
        if shared.dropped.load(SeqCst) {
            let dataflows = worker.installed_dataflows();
            return dataflows.into_iter().for_each(|dataflow| worker.drop_dataflow(dataflow));
        }
        let ready = handles.iter().all(Handle::ready);
        if ready {
            sources.iter_mut().for_each(Source::feed);
        }
        worker.step();
        let end = RECORDS / SLICE;
        if until.is_none() && probes.iter().all(|probe| !probe.less_than(&end)) {
            break;
        }
    }
    for source in &mut sources {
        source.report();
        source.input.advance_to(RECORDS / SLICE + 1);
    }
    let done = RECORDS / SLICE + 1;
    while probes.iter().any(|probe| probe.less_than(&done)) {
        assert!(began.elapsed() < LIMIT, "the reports do not come");
        worker.step();
    }
    drop(sources);
    for handle in handles {
        handle.run(worker).unwrap();
    }
}

#[test]
fn what_is_dropped_between_cuts_is_handled_once_in_chained_and_in_parallel_sets() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_time().build().unwrap();
    let expected = expected();
    let mut held = SnapshotCounts::default();
    for seed in 0..3 {
        let _running = Running(format!("seed {seed}"));
        let mut random = Random(seed);
        let store = SnapshotStore::open("memory:", SnapshotOptions::default()).unwrap();
        for round in 0..6 {
            let workers = [1, 2, 3, 4][random.below(4) as usize];
            let until = 1 + random.below(4);
            let first = random.below(2) == 0;
            let shared = run(workers, &store, runtime.handle(), Some(until), first);
            println!("seed {seed}, round {round}: {workers} workers, until {until}");
            let counts = *shared.restored.lock().unwrap();
            held.queued += counts.queued;
            held.logged += counts.logged;
        }
        let workers = 1 + random.below(3) as usize;
        let shared = run(workers, &store, runtime.handle(), None, true);
        for (set, totals) in shared.totals.lock().unwrap().iter().enumerate() {
            let found: Totals =
                totals.iter().map(|(id, count, sum)| (*id, (*count, *sum))).collect();
            assert_eq!(found.len(), totals.len(), "each reports once");
            assert_eq!(found, expected, "set {set}");
        }
    }
    println!("{held:?}");
    assert!(held.queued > 0 && held.logged > 0, "what was restored held little: {held:?}");
}

/// Builds sets in one dataflow, and gives what the building came to.
fn building<R: Send + 'static>(
    store: &SnapshotStore,
    build: impl for<'s> Fn(&Snapshots<u64>, Stream<'s, u64, Vec<Envelope<Step>>>) -> R
    + Send
    + Sync
    + 'static,
) -> R {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_time().build().unwrap();
    let (store, handle) = (store.clone(), runtime.handle().clone());
    let mut results = support::on_workers(1, move |worker| {
        let policy = SnapshotPolicy::new("sets").on_request();
        let snapshots = Snapshots::<u64>::begin(worker, &store, &handle, &policy).unwrap();
        worker.dataflow(|scope| {
            let (_input, stream) = scope.new_input();
            build(&snapshots, stream)
        })
    });
    results.remove(0)
}

fn memory() -> SnapshotStore {
    SnapshotStore::open("memory:", SnapshotOptions::default()).unwrap()
}

#[test]
fn sets_and_ingresses_of_one_name_are_refused() {
    let errors = building(&memory(), |snapshots, stream| {
        let first = snapshots.replayed("numbers", stream.clone());
        let first = first.stateful_functions(walkers()).unwrap();
        let again = snapshots.replayed("others", stream.clone());
        let set = again.stateful_functions(walkers()).unwrap_err();
        let again = snapshots.replayed("numbers", stream.clone());
        let ingress = again.stateful_functions(ledgers("ledgers")).unwrap_err();
        // What was refused has taken no name.
        let third = snapshots.replayed("others", stream.clone());
        let third = third.stateful_functions(ledgers("ledgers")).unwrap();
        let told = (first.snapshots().is_ok(), third.snapshots().is_ok());
        let plain = [first.chained(OUT, to_ledger).unwrap(), stream.into()];
        let mixed = plain.stateful_functions(ledgers("mixed")).unwrap_err();
        let taken = first.stream(OUT).unwrap_err();
        (told, [set, ingress, mixed, taken])
    });
    let (told, [set, ingress, mixed, taken]) = errors;
    assert_eq!(told, (true, true), "both are told of snapshots");
    assert!([&set, &ingress, &mixed].iter().all(|error| error.is_misused_snapshots()));
    assert_eq!(set.to_string(), "functions \"walkers\" takes part in the snapshots twice");
    assert_eq!(ingress.to_string(), "ingress \"numbers\" takes part in the snapshots twice");
    assert!(
        mixed.to_string().contains("ingress 1 of functions \"mixed\" takes no part"),
        "{mixed}"
    );
    assert!(taken.is_egress_taken());
}

#[test]
fn what_comes_again_as_a_whole_is_not_chained() {
    let error = building(&memory(), |snapshots, stream| {
        let walker = Function::new(|_, _: &Step| Ok(()));
        let functions = Functions::new().embedded(WALKER, walker);
        let functions = functions.persisted_egress(Egress::<u64>::new("sets/kept"));
        let kept = snapshots.replayed("numbers", stream).stateful_functions(functions).unwrap();
        let step = |number| Step::Walk { number, hops: 0 };
        kept.chained(Egress::<u64>::new("sets/kept"), move |number| to_ledger(step(number)))
            .map(|_| ())
            .unwrap_err()
    });
    assert!(error.is_misused_snapshots());
    assert!(error.to_string().contains("egress \"sets/kept\" is kept"), "{error}");
}

#[test]
fn a_set_in_another_dataflow_is_refused() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_time().build().unwrap();
    let (store, handle) = (memory(), runtime.handle().clone());
    let errors = support::on_workers(2, move |worker| {
        let policy = SnapshotPolicy::new("sets").on_request();
        let snapshots = Snapshots::<u64>::begin(worker, &store, &handle, &policy).unwrap();
        let first = worker.dataflow(|scope| {
            let (_input, stream) = scope.new_input();
            let egresses = snapshots.replayed("numbers", stream).stateful_functions(walkers());
            egresses.unwrap().handle()
        });
        let error = worker.dataflow(|scope| {
            let (_input, stream) = scope.new_input();
            let second = snapshots.replayed("others", stream);
            second.stateful_functions(ledgers("ledgers")).map(|_| ()).unwrap_err()
        });
        first.run(worker).unwrap();
        error
    });
    for error in errors {
        assert!(error.is_misused_snapshots());
        let begun = "functions \"ledgers\" were built after snapshots had begun to be taken";
        assert_eq!(error.to_string(), begun);
    }
}

/// A set that a snapshot knows, and the program does not.
#[test]
fn a_set_that_is_stored_and_not_built_stops_the_program_and_is_named() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_time().build().unwrap();
    let store = memory();
    run(2, &store, runtime.handle(), Some(2), true);
    let (of_it, handle) = (store, runtime.handle().clone());
    let stops = support::on_workers(2, move |worker| {
        let policy = SnapshotPolicy::new("sets").on_request();
        let snapshots = Snapshots::<u64>::begin(worker, &of_it, &handle, &policy).unwrap();
        let handle = worker.dataflow(|scope| {
            let (_input, stream) = scope.new_input();
            let walked = snapshots.replayed("numbers", stream).stateful_functions(walkers());
            walked.unwrap().handle()
        });
        handle.run(worker).unwrap_err().to_string()
    });
    for stop in stops {
        assert!(["ledgers", "witnesses"].iter().any(|name| stop.contains(name)), "{stop}");
    }
}

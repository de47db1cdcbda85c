//! What `persist` keeps comes back first after a restart, and operators behind it are made anew: a join before
//! functions and another behind them, which hold all they know in memory, end with what they would have
//! without interruption.

mod support;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use support::{Random, Running, mix};
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::generic::Operator;
use timely::dataflow::operators::{Input, Inspect};
use timely::dataflow::{InputHandleVec, Stream};
use timely::worker::Worker;
use timely_statefun::{
    Egress, Envelope, Function, FunctionType, Functions, Handle, SnapshotOptions, SnapshotPolicy,
    SnapshotStore, Snapshots, StatefulFunctions, ValueSpec,
};
use tokio::runtime::Runtime;

const PARTITIONS: u64 = 4;
/// Keys of one partition.
const KEYS: u64 = 15;
const ORDERS: u64 = 2000;
const NAMINGS: u64 = 600;
/// Orders of one time.
const SLICE: u64 = 25;

/// Takes what was ordered, and for how much.
const BILL: FunctionType<(u64, u64)> = FunctionType::new("persist/bill");
const OWED: ValueSpec<u64> = ValueSpec::new("owed");
const BILLS: Egress<((u64, u64), isize)> = Egress::new("persist/bills");

/// A record of a source: a partition, a position, and what it says.
type Read<D> = (u64, u64, D);
type Key = u64;
/// Records with their times, in order.
type Timed<D> = Vec<(u64, D)>;
/// A record and when it left.
type At = (u64, Read<u64>);
/// What a key is called, when, and whether that begins or ends.
type Naming = ((Key, u64), u64, isize);

fn memory() -> SnapshotStore {
    SnapshotStore::open("memory:", SnapshotOptions::default()).unwrap()
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_time().build().unwrap()
}

/// The prices of a partition, in order. Each is said once, some time after the first order of it.
fn prices(partition: u64) -> Vec<(u64, (Key, u64))> {
    let price = |at| {
        let key = partition + PARTITIONS * at;
        (3 * at, (key, 1 + mix(key) % 100))
    };
    (0..KEYS).map(price).collect()
}

/// The orders of a partition, with their times.
fn orders(partition: u64) -> Vec<(u64, (Key, u64))> {
    let order = |at| {
        let random = mix(partition << 32 | at);
        (at / SLICE, (partition + PARTITIONS * (random % KEYS), random >> 8 & 0xff))
    };
    (0..ORDERS).map(order).collect()
}

/// What the keys of a partition are called, and later are not.
fn namings(partition: u64) -> Vec<(u64, Naming)> {
    let (mut all, mut called) = (Vec::new(), BTreeMap::new());
    for at in 0..NAMINGS {
        let (time, random) = (at / 9, mix(partition << 40 | at));
        let (key, name) = (partition + PARTITIONS * (random % KEYS), random >> 8 & 0x7);
        if let Some(before) = called.insert(key, name) {
            all.push((time, ((key, before), time, -1)));
        }
        all.push((time, ((key, name), time, 1)));
    }
    all
}

/// What is owed under which name, by key, in the end.
fn expected() -> BTreeMap<(Key, u64, u64), isize> {
    let mut all = BTreeMap::new();
    for partition in 0..PARTITIONS {
        let prices: BTreeMap<_, _> =
            prices(partition).into_iter().map(|(_, price)| price).collect();
        let mut owed = BTreeMap::new();
        for (_, (key, amount)) in orders(partition) {
            *owed.entry(key).or_insert(0) += amount * prices[&key];
        }
        let mut called: BTreeMap<_, _> = BTreeMap::new();
        for (_, ((key, name), _, change)) in namings(partition) {
            if change > 0 {
                called.insert(key, name);
            }
        }
        for (key, owed) in owed {
            if let Some(name) = called.get(&key) {
                all.insert((key, owed, *name), 1);
            }
        }
    }
    all
}

/// Reads the partitions of one source that are this worker's, from where each was.
struct Source<D: Clone + 'static> {
    input: InputHandleVec<u64, Read<D>>,
    /// By partition, its records with their times, and the next of them.
    partitions: Vec<(u64, Timed<D>, usize)>,
}

impl<D: Clone + 'static> Source<D> {
    fn new(
        input: InputHandleVec<u64, Read<D>>,
        worker: &Worker,
        snapshots: &Snapshots<u64>,
        name: &str,
        records: fn(u64) -> Vec<(u64, D)>,
    ) -> Self {
        let positions = snapshots.positions(name);
        let (index, peers) = (worker.index() as u64, worker.peers() as u64);
        let own = (0..PARTITIONS).filter(|partition| partition % peers == index);
        let partitions = own.map(|partition| {
            let next = positions.get(&partition).map_or(0, |last| *last as usize + 1);
            (partition, records(partition), next)
        });
        let mut source = Source { input, partitions: partitions.collect() };
        if let Some(time) = source.time() {
            source.input.advance_to(time);
        }
        source
    }

    /// The least time of what is still to be read.
    fn time(&self) -> Option<u64> {
        let next = self.partitions.iter().filter_map(|(_, records, next)| records.get(*next));
        next.map(|(time, _)| *time).min()
    }

    /// Reads what there is at the least time. Says whether there was something.
    fn feed(&mut self) -> bool {
        let Some(time) = self.time() else { return false };
        for (partition, records, next) in &mut self.partitions {
            while let Some((_, record)) = records.get(*next).filter(|(at, _)| *at == time) {
                self.input.send((*partition, *next as u64, record.clone()));
                *next += 1;
            }
        }
        match self.time() {
            Some(time) => self.input.advance_to(time),
            None => self.input.advance_to(time + 1),
        }
        true
    }
}

/// Gives each order its price, which it knows from memory, and waits with the orders of a partition until the price
/// of the next is known.
fn priced<'scope>(
    orders: Stream<'scope, u64, Vec<Read<(Key, u64)>>>,
    prices: Stream<'scope, u64, Vec<Read<(Key, u64)>>>,
) -> Stream<'scope, u64, Vec<Envelope<(u64, u64)>>> {
    let by_partition = || Exchange::new(|(partition, ..): &Read<(Key, u64)>| *partition);
    orders.binary(prices, by_partition(), by_partition(), "Prices", |_, _| {
        let mut known = HashMap::new();
        let mut waiting: BTreeMap<u64, VecDeque<_>> = BTreeMap::new();
        move |orders, prices, output| {
            prices.for_each(|_, records| {
                known.extend(records.drain(..).map(|(_, _, price)| price));
            });
            orders.for_each(|capability, records| {
                for record in records.drain(..) {
                    let capability = capability.retain(0);
                    waiting.entry(record.0).or_default().push_back((capability, record));
                }
            });
            for waiting in waiting.values_mut() {
                while let Some((capability, (partition, position, (key, amount)))) = waiting.front()
                    && let Some(price) = known.get(key)
                {
                    let bill = BILL.message(*key, (*key, amount * price));
                    output.session(capability).give(bill.read_at(*partition, *position));
                    waiting.pop_front();
                }
            }
        }
    })
}

fn bills() -> Functions<(u64, u64)> {
    let bill = Function::new(|context, (key, amount): &(u64, u64)| {
        let before = context.get(OWED).copied();
        let owed = context.update(OWED, |owed| *owed += amount);
        if let Some(before) = before {
            context.emit(BILLS, ((*key, before), -1));
        }
        context.emit(BILLS, ((*key, owed), 1));
        Ok(())
    });
    Functions::new().named("bills").embedded(BILL, bill.value(OWED)).persisted_changes(BILLS)
}

#[derive(Default)]
struct Shared {
    durable: AtomicU64,
    dropped: AtomicBool,
    restored: AtomicBool,
    result: Mutex<BTreeMap<(Key, u64, u64), isize>>,
}

/// Far more than anything here takes.
const LIMIT: Duration = Duration::from_secs(100);

/// Runs the program until so many snapshots are durable and it is dropped, or to the end.
fn run(
    workers: usize,
    store: &SnapshotStore,
    runtime: &Runtime,
    until: Option<u64>,
) -> Arc<Shared> {
    let shared = Arc::new(Shared::default());
    let (store, runtime, of_all) = (store.clone(), runtime.handle().clone(), Arc::clone(&shared));
    support::on_workers(workers, move |worker| {
        let shared = Arc::clone(&of_all);
        let policy = SnapshotPolicy::new("persist").interval(Duration::from_millis(3));
        let snapshots = Snapshots::<u64>::begin(worker, &store, &runtime, &policy).unwrap();
        shared.restored.fetch_or(snapshots.restored().is_some(), SeqCst);
        let (inputs, handles) = worker.dataflow(|scope| {
            let (price_input, prices) = scope.new_input();
            let (order_input, orders) = scope.new_input();
            let (naming_input, namings) = scope.new_input();
            let (prices, pricing) = snapshots.persist("prices", prices).unwrap();
            let (namings, naming) = snapshots.persist_updates("namings", namings).unwrap();
            let bills_of = snapshots.replayed("orders", priced(orders, prices));
            let egresses = bills_of.stateful_functions(bills()).unwrap();
            let noted = Arc::clone(&shared);
            egresses.snapshots().unwrap().inspect(move |_| {
                noted.durable.fetch_add(1, SeqCst);
            });
            let bills = egresses.collection(BILLS).unwrap();
            let noted = Arc::clone(&shared);
            bills.join(namings).inspect(move |((key, (owed, name)), _, change)| {
                let mut result = noted.result.lock().unwrap();
                let sum = result.entry((*key, *owed, *name)).or_default();
                *sum += change;
                if *sum == 0 {
                    result.remove(&(*key, *owed, *name));
                }
            });
            ((price_input, order_input, naming_input), [pricing, naming, egresses.handle()])
        });
        let (prices_in, orders_in, namings_in) = inputs;
        let mut price = Source::new(prices_in, worker, &snapshots, "prices", prices);
        let mut order = Source::new(orders_in, worker, &snapshots, "orders", orders);
        let mut naming = Source::new(namings_in, worker, &snapshots, "namings", namings);
        let before = snapshots.execution();
        let began = Instant::now();
        let mut more = true;
        while more || until.is_some() {
            assert!(began.elapsed() < LIMIT, "execution {before} does not end");
            if until.is_some_and(|until| shared.durable.load(SeqCst) >= until) {
                shared.dropped.store(true, SeqCst);
            }
            if shared.dropped.load(SeqCst) {
                let dataflows = worker.installed_dataflows();
                return dataflows.into_iter().for_each(|dataflow| worker.drop_dataflow(dataflow));
            }
            if handles.iter().all(Handle::ready) {
                more = price.feed() | order.feed() | naming.feed();
            }
            worker.step();
        }
        drop((price, order, naming));
        for handle in handles {
            handle.run(worker).unwrap();
        }
    });
    shared
}

#[test]
fn joins_before_and_behind_functions_end_as_without_interruption() {
    let (runtime, expected) = (runtime(), expected());
    let whole = run(2, &memory(), &runtime, None);
    assert_eq!(*whole.result.lock().unwrap(), expected, "without interruption");
    let mut restored = 0;
    for seed in 0..3 {
        let _running = Running(format!("seed {seed}"));
        let (mut random, store) = (Random(seed), memory());
        for round in 0..5 {
            let (workers, until) = (1 + random.below(3) as usize, 1 + random.below(3));
            println!("seed {seed}, round {round}: {workers} workers, until {until}");
            let shared = run(workers, &store, &runtime, Some(until));
            restored += u64::from(shared.restored.load(SeqCst));
        }
        let shared = run(1 + random.below(3) as usize, &store, &runtime, None);
        assert_eq!(*shared.result.lock().unwrap(), expected);
    }
    assert!(restored >= 9, "few went on from a snapshot: {restored}");
}

/// Runs a program that keeps one stream, to its end. Gives what it lets out, with times, in order on each
/// worker.
fn keep(workers: usize, store: &SnapshotStore, positions: std::ops::Range<u64>) -> Vec<Vec<At>> {
    let runtime = runtime();
    let (store, handle) = (store.clone(), runtime.handle().clone());
    support::on_workers(workers, move |worker| {
        let policy = SnapshotPolicy::new("keep").on_request();
        let snapshots = Snapshots::<u64>::begin(worker, &store, &handle, &policy).unwrap();
        let (send, kept) = std::sync::mpsc::channel();
        let (mut input, handle) = worker.dataflow(|scope| {
            let (input, stream) = scope.new_input();
            let (kept, handle) = snapshots.persist("log", stream).unwrap();
            kept.inspect_time(move |time, read: &Read<u64>| send.send((*time, *read)).unwrap());
            (input, handle)
        });
        input.advance_to(7);
        for partition in (0..PARTITIONS).filter(|p| *p as usize % worker.peers() == worker.index())
        {
            positions.clone().for_each(|at| input.send((partition, at, mix(at))));
        }
        input.close();
        handle.run(worker).unwrap();
        kept.try_iter().collect()
    })
}

#[test]
fn a_stream_comes_first_in_order_at_the_minimum_time_and_its_source_goes_on() {
    for (before, after) in [(1, 3), (3, 2), (2, 1)] {
        let store = memory();
        keep(before, &store, 0..100);
        // The source gives some again.
        let kept = keep(after, &store, 90..150);
        let mut all = Vec::new();
        for of_worker in kept {
            let mut last = BTreeMap::new();
            for (time, (partition, position, what)) in of_worker {
                assert_eq!(time, if position < 100 { 0 } else { 7 });
                assert_eq!(what, mix(position));
                let before = last.insert(partition, position);
                assert!(before < Some(position), "partition {partition}: {position} came late");
                all.push((partition, position));
            }
        }
        all.sort_unstable();
        let expected = (0..PARTITIONS).flat_map(|p| (0..150).map(move |position| (p, position)));
        assert_eq!(all, expected.collect::<Vec<_>>());
    }
}

/// Runs a program that keeps a collection of few data which change so often, and gives what its updates add up to,
/// and how many came.
fn keep_updates(store: &SnapshotStore, changes: u64) -> (BTreeMap<(u64, u64), isize>, usize) {
    let runtime = runtime();
    let (store, handle) = (store.clone(), runtime.handle().clone());
    let kept = support::on_workers(2, move |worker| {
        let policy = SnapshotPolicy::new("keep").on_request();
        let snapshots = Snapshots::<u64>::begin(worker, &store, &handle, &policy).unwrap();
        let (send, kept) = std::sync::mpsc::channel();
        let (mut input, handle, probe) = worker.dataflow(|scope| {
            let (input, stream) = scope.new_input();
            let (kept, handle) = snapshots.persist_updates("table", stream).unwrap();
            let kept = kept.inspect(move |update: &((u64, u64), u64, isize)| {
                send.send(*update).unwrap();
            });
            (input, handle, kept.probe().0)
        });
        if worker.index() == 0 {
            for at in 0..changes {
                let (key, value) = (at % 10, at / 10);
                input.advance_to(at);
                if at >= 10 {
                    input.send((0, 2 * at, ((key, value - 1), at, -1)));
                }
                input.send((0, 2 * at + 1, ((key, value), at, 1)));
            }
        }
        // One snapshot of all of it, and no others on the way.
        input.advance_to(changes);
        while probe.less_than(&changes) {
            worker.step();
        }
        input.close();
        handle.run(worker).unwrap();
        kept.try_iter().collect::<Vec<_>>()
    });
    let (mut sums, kept) = (BTreeMap::new(), kept.concat());
    let count = kept.len();
    for (data, time, change) in kept {
        assert!(changes > 0 || time == 0, "what comes back is at the minimum time");
        *sums.entry(data).or_insert(0) += change;
    }
    sums.retain(|_, sum| *sum != 0);
    (sums, count)
}

#[test]
fn a_collection_is_kept_as_what_its_changes_add_up_to() {
    for changes in [100, 5000] {
        let store = memory();
        let (kept, _) = keep_updates(&store, changes);
        let expected: BTreeMap<_, _> = (0..10).map(|key| ((key, changes / 10 - 1), 1)).collect();
        assert_eq!(kept, expected);
        let (restored, updates) = keep_updates(&store, 0);
        assert_eq!(restored, expected);
        assert_eq!(updates, 10, "of {changes} changes of ten keys");
    }
}

#[test]
fn a_name_that_is_taken_or_none_is_refused() {
    let runtime = runtime();
    let handle = runtime.handle().clone();
    let store = memory();
    let errors = support::on_workers(1, move |worker| {
        let policy = SnapshotPolicy::new("keep").on_request();
        let snapshots = Snapshots::<u64>::begin(worker, &store, &handle, &policy).unwrap();
        worker.dataflow(|scope| {
            let (_input, stream) = scope.new_input::<Vec<Read<u64>>>();
            snapshots.persist("log", stream.clone()).unwrap();
            let persist = |name| snapshots.persist(name, stream.clone()).map(|_| ()).unwrap_err();
            [persist("log"), persist("a log")]
        })
    });
    let [twice, no_name] = &errors[0];
    assert!(twice.is_misused_snapshots());
    assert_eq!(twice.to_string(), "ingress \"log\" takes part in the snapshots twice");
    assert!(no_name.is_invalid_name());
}

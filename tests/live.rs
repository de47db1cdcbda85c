//! What functions keep, as collections: at every time what a model says that replays what they did.
//!
//! Functions write values and tables at random, send each other messages, and sometimes fail. Each invocation
//! emits all that its address keeps then. From that alone the model knows what every collection must hold at
//! every time.

#[path = "../operators/tests/support/pair.rs"]
mod pair;
mod support;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use differential_dataflow::lattice::Lattice;
use pair::Pair;
use serde::{Deserialize, Serialize};
use support::{Random, Running, on_workers};
use timely::dataflow::Stream;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::Operator;
use timely::dataflow::operators::vec::UnorderedInput;
use timely::dataflow::operators::{Input, Inspect};
use timely::progress::Timestamp;
use timely::progress::timestamp::Refines;
use timely::worker::Worker;
use timely_statefun::{
    Context, Egress, Egresses, Envelope, Function, FunctionResult, FunctionType, Functions, Id,
    OnFailure, Order, SnapshotOptions, SnapshotPolicy, SnapshotStore, Snapshots, StateChange,
    StatefulFunctions, TableSpec, ValueSpec, Watchable,
};
use tokio::runtime::Runtime;

const NODE: FunctionType<Call> = FunctionType::new("live/node");
/// How often an address was written.
const COUNT: ValueSpec<u64> = ValueSpec::new("count");
const VALUE: ValueSpec<u64> = ValueSpec::new("value");
const TABLE: TableSpec<u64, u64> = TableSpec::new("table");
const STATES: Egress<Kept> = Egress::new("live/states");

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Call {
    seed: u64,
    fuel: u64,
}

/// All that an address keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Kept {
    id: Id,
    count: u64,
    value: Option<u64>,
    table: BTreeMap<u64, u64>,
}

impl Kept {
    /// By entry: the number of the state, and the key of a table.
    fn entries(&self) -> BTreeMap<Entry, u64> {
        let entry = |state, key| (state, self.id.to_string(), key);
        let table = self.table.iter().map(|(key, value)| (entry(2, *key), *value));
        let value = self.value.map(|value| (entry(1, 0), value));
        table.chain(value).chain([(entry(0, 0), self.count)]).collect()
    }
}

type Entry = (u8, String, u64);

const NODES: u64 = 8;

/// Whether a call changes nothing in the end.
fn fails(seed: u64) -> bool {
    support::mix(seed).is_multiple_of(5)
}

fn act<T: Timestamp>(context: &mut Context<'_, Call, T>, call: &Call) -> FunctionResult {
    let mut random = Random(call.seed);
    let count = context.update(COUNT, |count| *count += 1);
    for number in 0..random.below(6) {
        // No two that are written are the same.
        let (key, value) = (random.below(5), count * 16 + number);
        match random.below(9) {
            0..=2 => context.set(VALUE, value),
            3 => context.clear(VALUE),
            4..=6 => drop(context.table(TABLE).insert(key, value)),
            7 => drop(context.table(TABLE).remove(&key)),
            _ => context.table(TABLE).clear(),
        }
    }
    if call.fuel > 0 {
        for _ in 0..random.below(4) {
            let call = Call { seed: random.any(), fuel: call.fuel - 1 };
            context.send(NODE, random.below(NODES), call);
        }
    }
    let (id, value) = (context.id().clone(), context.get(VALUE).copied());
    let table = context.table(TABLE).iter().map(|(key, value)| (*key, *value)).collect();
    context.emit(STATES, Kept { id, count, value, table });
    if fails(call.seed) {
        return Err("it changes nothing".into());
    }
    Ok(())
}

fn functions<T: Timestamp + Lattice>(order: Order) -> Functions<Call, T> {
    let node = Function::new(act::<T>).value(COUNT).value(VALUE).table(TABLE);
    Functions::new()
        .embedded(NODE, node.on_failure(OnFailure::DeadLetter))
        .egress(STATES)
        .watched(NODE, COUNT)
        .watched(NODE, VALUE)
        .watched(NODE, TABLE)
        .order(order)
}

/// What happened to an entry: at the message's time, by its stamp, from what to what.
type Told<T> = (T, T, bool, Entry, Option<u64>, Option<u64>);

/// What one worker saw.
struct Seen<T> {
    states: Vec<(T, Kept)>,
    changes: Vec<Told<T>>,
    updates: Vec<((Entry, u64), T, isize)>,
}

/// Where what is seen goes.
type Log<X> = Rc<RefCell<Vec<X>>>;

struct Logs<T> {
    states: Log<(T, Kept)>,
    changes: Log<Told<T>>,
    updates: Log<((Entry, u64), T, isize)>,
}

/// Logs records in the order in which they came, which `inspect` does not keep across times.
fn record<T: Timestamp, D: 'static, X: 'static>(
    stream: Stream<'_, T, Vec<D>>,
    log: &Log<X>,
    make: impl Fn(&T, D) -> X + 'static,
) {
    let log = Rc::clone(log);
    stream.sink(Pipeline, "Record", move |(input, _)| {
        input.for_each(|time, records| {
            log.borrow_mut().extend(records.drain(..).map(|record| make(time.time(), record)));
        });
    });
}

/// Logs what becomes of a state, each of whose keys is a number.
fn watch<T: Timestamp + Lattice, S>(
    egresses: &Egresses<'_, T, Call>,
    logs: &Logs<T>,
    (number, spec): (u8, S),
    key: fn(&S::Key) -> u64,
) where
    S: Watchable<Key: differential_dataflow::Data, Value = u64> + Copy,
{
    record(egresses.changes(NODE, spec).unwrap(), &logs.changes, move |time, change| {
        let StateChange { id, key: of, old, new, stamp, is_raised } = change;
        (time.clone(), stamp, is_raised, (number, id.to_string(), key(&of)), old, new)
    });
    let updates = egresses.state(NODE, spec).unwrap().inner;
    record(updates, &logs.updates, move |_, ((id, of, value), time, diff)| {
        (((number, id.to_string(), key(&of)), value), time, diff)
    });
}

fn log<T: Timestamp + Lattice>(egresses: &Egresses<'_, T, Call>) -> Logs<T> {
    let logs = Logs { states: Log::default(), changes: Log::default(), updates: Log::default() };
    let states = egresses.stream(STATES).unwrap();
    record(states, &logs.states, |time, kept| (time.clone(), kept));
    watch(egresses, &logs, (0, COUNT), |()| 0);
    watch(egresses, &logs, (1, VALUE), |()| 0);
    watch(egresses, &logs, (2, TABLE), |key| *key);
    logs
}

impl<T> Logs<T> {
    fn take(&self) -> Seen<T> {
        let Logs { states, changes, updates } = self;
        Seen { states: states.take(), changes: changes.take(), updates: updates.take() }
    }
}

/// For each of several ingresses, records in the order of its own times.
type Sources<T> = Vec<Vec<(T, Envelope<Call>)>>;

fn run<T>(worker: &mut Worker, sources: &Sources<T>, order: Order, seed: u64) -> Seen<T>
where
    T: Timestamp + Lattice + Refines<()>,
{
    let (mut inputs, handle, logs) = worker.dataflow::<T, _, _>(|scope| {
        let (inputs, streams): (Vec<_>, Vec<_>) =
            sources.iter().map(|_| scope.new_unordered_input::<Envelope<Call>>()).unzip();
        let egresses = streams.stateful_functions(functions(order)).unwrap();
        (inputs, egresses.handle(), log(&egresses))
    });
    let (index, peers) = (worker.index(), worker.peers());
    let mut random = Random(seed + index as u64);
    let mut next = vec![0; sources.len()];
    // One source is often far ahead of another.
    while next.iter().zip(sources).any(|(next, source)| *next < source.len()) {
        let at = random.below(sources.len() as u64) as usize;
        for _ in 0..random.below(12) {
            let Some((time, envelope)) = sources[at].get(next[at]) else { break };
            if next[at] % peers == index {
                let (input, right) = &mut inputs[at];
                right.downgrade(time);
                input.activate().session(&right).give(envelope.clone());
            }
            next[at] += 1;
        }
        for _ in 0..random.below(4) {
            worker.step();
        }
    }
    drop(inputs);
    handle.run(worker).unwrap();
    logs.take()
}

fn sources<T>(seed: u64, times: impl Fn(usize, u64) -> T) -> Sources<T> {
    let mut random = Random(seed);
    let source = |number| {
        let mut at = 0;
        let mut record = || {
            at += random.below(2);
            let call = Call { seed: random.any(), fuel: random.below(5) };
            (times(number, at), NODE.message(random.below(NODES), call))
        };
        (0..20).map(|_| record()).collect()
    };
    (0..3).map(source).collect()
}

/// What each entry must become, as changes with their stamps, given what it was at the minimum time.
fn expected<T: Timestamp + Lattice>(
    states: &[(T, Kept)],
    begin: &BTreeMap<Entry, u64>,
) -> Vec<((Entry, u64), T, isize)> {
    let mut updates: Vec<_> =
        begin.iter().map(|(entry, value)| ((entry.clone(), *value), T::minimum(), 1)).collect();
    let (mut now, mut stamps) = (begin.clone(), BTreeMap::<Entry, T>::new());
    for (time, kept) in states {
        let (id, next) = (kept.id.to_string(), kept.entries());
        let of_id = now.keys().filter(|(_, of, _)| *of == id).cloned();
        for entry in of_id.chain(next.keys().cloned()).collect::<BTreeSet<_>>() {
            let (old, new) = (now.get(&entry).copied(), next.get(&entry).copied());
            if old == new {
                continue;
            }
            let stamp = stamps.get(&entry).map_or(time.clone(), |last| last.join(time));
            updates.extend(old.map(|old| ((entry.clone(), old), stamp.clone(), -1)));
            updates.extend(new.map(|new| ((entry.clone(), new), stamp.clone(), 1)));
            stamps.insert(entry.clone(), stamp);
            match new {
                Some(new) => now.insert(entry, new),
                None => now.remove(&entry),
            };
        }
    }
    updates
}

/// What a collection holds at a time.
fn at<T: Timestamp>(updates: &[((Entry, u64), T, isize)], time: &T) -> BTreeMap<Entry, u64> {
    let mut sums = BTreeMap::<(Entry, u64), isize>::new();
    for (data, of, diff) in updates.iter().filter(|(_, of, _)| of.less_equal(time)) {
        assert!(of.less_equal(time));
        *sums.entry(data.clone()).or_default() += diff;
    }
    let mut held = BTreeMap::new();
    for ((entry, value), sum) in sums.into_iter().filter(|(_, sum)| *sum != 0) {
        assert_eq!(sum, 1, "{entry:?} is {value} so often at {time:?}");
        let before = held.insert(entry.clone(), value);
        assert_eq!(before, None, "{entry:?} has two values at {time:?}");
    }
    held
}

/// Looks at all that workers saw, and says how many stamps were raised.
fn check<T: Timestamp + Lattice + Debug>(workers: Vec<Seen<T>>, times: &[T]) -> usize {
    check_from(workers, times, &BTreeMap::new())
}

fn check_from<T: Timestamp + Lattice + Debug>(
    workers: Vec<Seen<T>>,
    times: &[T],
    begin: &BTreeMap<Entry, u64>,
) -> usize {
    let (mut wanted, mut found, mut raised) = (Vec::new(), Vec::new(), 0);
    let all: Vec<_> = workers.iter().flat_map(|seen| seen.states.iter().cloned()).collect();
    wanted.extend(expected(&all, begin));
    for seen in workers {
        found.extend(seen.updates);
        let mut last = BTreeMap::<Entry, (T, Option<u64>)>::new();
        for (time, stamp, is_raised, entry, old, new) in seen.changes {
            assert!(old.is_some() || new.is_some(), "{entry:?} did not change");
            let before = last.get(&entry);
            assert_eq!(old, before.and_then(|(_, value)| *value), "{entry:?}");
            let join = before.map_or(time.clone(), |(last, _)| last.join(&time));
            assert_eq!((&stamp, is_raised), (&join, join != time), "{entry:?} after {before:?}");
            raised += usize::from(is_raised);
            last.insert(entry, (stamp, new));
        }
    }
    for time in times {
        assert_eq!(at(&found, time), at(&wanted, time), "at {time:?}");
    }
    raised
}

const RUNS: u64 = 12;

#[test]
fn at_every_time_collections_are_what_a_model_says() {
    let times: Vec<u64> = (0..25).collect();
    for workers in [1, 2, 4] {
        let mut raised = 0;
        for seed in 0..RUNS {
            let _running = Running(format!("{workers} workers, seed {seed}"));
            let sources = Arc::new(sources(seed, |_, at| at));
            let seen = on_workers(workers, move |w| run::<u64>(w, &sources, Order::Arrival, seed));
            assert!(seen.iter().map(|seen| seen.states.len()).sum::<usize>() > 60);
            raised += check(seen, &times);
        }
        assert!(raised > 100, "{raised} stamps were raised: times are in order");
    }
}

#[test]
fn in_the_order_of_time_no_stamp_is_raised() {
    let times: Vec<u64> = (0..25).collect();
    for (workers, seed) in [(1, 1), (2, 2), (4, 3)] {
        let sources = Arc::new(sources(seed, |_, at| at));
        let seen = on_workers(workers, move |w| run::<u64>(w, &sources, Order::Time, seed));
        assert_eq!(check(seen, &times), 0);
    }
}

impl Lattice for Pair {
    fn join(&self, other: &Self) -> Self {
        Pair(self.0.max(other.0), self.1.max(other.1))
    }
    fn meet(&self, other: &Self) -> Self {
        Pair(self.0.min(other.0), self.1.min(other.1))
    }
}

#[test]
fn times_may_be_ordered_in_part() {
    let times: Vec<Pair> = (0..25).flat_map(|x| (0..25).map(move |y| Pair(x, y))).collect();
    let mut raised = 0;
    for seed in 0..8 {
        let _running = Running(format!("seed {seed}"));
        let at = |source, at| match source {
            0 => Pair(at, 3),
            1 => Pair(3, at),
            _ => Pair(at, at),
        };
        let sources = Arc::new(sources(seed, at));
        let seen = on_workers(2, move |w| run::<Pair>(w, &sources, Order::Arrival, seed));
        raised += check(seen, &times);
    }
    assert!(raised > 50, "{raised} stamps were raised");
}

fn threads() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| Runtime::new().unwrap())
}

/// Goes on from the newest snapshot up to a record of the source. Halfway a snapshot is taken; the program is
/// killed when that is durable and all is given, or comes to its end.
fn execution(
    worker: &mut Worker,
    store: &SnapshotStore,
    source: &[(u64, Envelope<Call>)],
    ends: bool,
    durable: &Arc<AtomicUsize>,
) -> Seen<u64> {
    let policy = SnapshotPolicy::new("live").on_request();
    let snapshots = Snapshots::<u64>::begin(worker, store, threads().handle(), &policy).unwrap();
    let dataflow = worker.next_dataflow_index();
    let (mut input, handle, logs) = worker.dataflow::<u64, _, _>(|scope| {
        let (input, stream) = scope.new_input::<Vec<Envelope<Call>>>();
        let ingress = snapshots.replayed("source", stream);
        let egresses = ingress.stateful_functions(functions(Order::Arrival)).unwrap();
        let durable = Arc::clone(durable);
        egresses.snapshots().unwrap().inspect(move |_| _ = durable.fetch_add(1, SeqCst));
        (input, egresses.handle(), log(&egresses))
    });
    let from = snapshots.positions("source").get(&0).map_or(0, |last| last + 1) as usize;
    let is_first = worker.index() == 0;
    let half = from + (source.len() - from) / 2;
    for (at, (time, envelope)) in source.iter().enumerate().skip(from) {
        if is_first {
            input.advance_to(*time);
            input.send(envelope.clone().read_at(0, at as u64));
            input.flush();
            if at == half {
                snapshots.request();
            }
        }
        worker.step();
    }
    let began = Instant::now();
    while durable.load(SeqCst) == 0 {
        assert!(began.elapsed() < Duration::from_secs(60), "no snapshot is durable");
        worker.step_or_park(Some(Duration::from_micros(500)));
    }
    if ends {
        drop(input);
        handle.run(worker).unwrap();
    } else {
        (0..50).for_each(|_| _ = worker.step());
        worker.drop_dataflow(dataflow);
    }
    logs.take()
}

/// What must be there first: what each address kept before the first of these states of it, or, if there is none,
/// what is said to be there, which the next execution finds out.
fn begin(seen: &[Seen<u64>], known: &BTreeMap<(String, u64), Kept>) -> BTreeMap<Entry, u64> {
    let (mut firsts, mut begin) = (BTreeMap::new(), BTreeMap::new());
    for (_, kept) in seen.iter().flat_map(|seen| &seen.states) {
        firsts.entry(kept.id.to_string()).or_insert(kept.count);
    }
    for (id, first) in firsts.iter().filter(|(_, first)| **first > 1) {
        begin.extend(known[&(id.clone(), first - 1)].entries());
    }
    for (time, stamp, _, entry, old, new) in seen.iter().flat_map(|seen| &seen.changes) {
        if !firsts.contains_key(&entry.1) {
            assert_eq!((*time, *stamp, *old), (0, 0, None), "{entry:?} changed without a state");
            begin.extend(new.map(|new| (entry.clone(), new)));
        }
    }
    begin
}

#[test]
fn after_a_restart_on_other_workers_contents_come_first() {
    let times: Vec<u64> = (0..60).collect();
    for (number, layout) in [[1, 2, 4, 1], [4, 2, 1, 2], [2, 2, 4, 4]].into_iter().enumerate() {
        let _running = Running(format!("workers {layout:?}"));
        let store = SnapshotStore::open("memory:", SnapshotOptions::default()).unwrap();
        let mut random = Random(number as u64 + 100);
        let mut record = |at: u64| {
            let call = Call { seed: random.any(), fuel: random.below(5) };
            // Times are not in the order of the source, but at 0 nothing happens.
            (1 + at / 4, NODE.message(random.below(NODES), call))
        };
        let mut source: Vec<_> = (0..160).map(&mut record).collect();
        // In the end each address says what it keeps.
        let seed = (0..).find(|seed| !fails(*seed)).unwrap();
        for id in 0..NODES {
            source.push((45, NODE.message(id, Call { seed, fuel: 0 })));
        }
        let mut known = BTreeMap::new();
        let mut told = 0;
        for (number, workers) in layout.into_iter().enumerate() {
            let is_last = number + 1 == layout.len();
            let upto = if is_last { source.len() } else { (number + 1) * 40 };
            let given: Vec<_> = source[..upto].to_vec();
            let (store, durable) = (store.clone(), Arc::<AtomicUsize>::default());
            let seen = on_workers(workers, move |worker| {
                execution(worker, &store, &given, is_last, &durable)
            });
            let begin = begin(&seen, &known);
            told += begin.len();
            for (_, kept) in seen.iter().flat_map(|seen| &seen.states) {
                known.insert((kept.id.to_string(), kept.count), kept.clone());
            }
            check_from(seen, &times, &begin);
        }
        assert!(told > 50, "only {told} entries were restored");
    }
}

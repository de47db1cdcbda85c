//! A snapshot that is aligned to a frontier contains exactly the ingress before it, and says whether it does.

mod support;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use support::mix;
use timely::dataflow::operators::{Input, Inspect, Probe};
use timely::dataflow::{InputHandleVec, ProbeHandle};
use timely::progress::Antichain;
use timely::worker::Worker;
use timely_statefun::{
    Egress, Envelope, Function, FunctionType, Functions, Handle, SnapshotDone, SnapshotOptions,
    SnapshotPolicy, SnapshotStore, Snapshots, StatefulFunctions, ValueSpec,
};

/// Adds numbers up, after some messages to itself.
const ADDER: FunctionType<(u64, u64)> = FunctionType::new("aligned/adder");
const SUM: ValueSpec<u64> = ValueSpec::new("sum");
/// Of how many numbers it is the sum.
const COUNT: ValueSpec<u64> = ValueSpec::new("count");
/// The partition, how many numbers there are, and their sum.
const SUMS: Egress<(u64, u64, u64)> = Egress::new("aligned/sums");

const PARTITIONS: u64 = 5;
/// Records of one partition at one time.
const SLICE: u64 = 10;
const FRONTIER: u64 = 7;
const END: u64 = 12;

fn number(partition: u64, position: u64) -> u64 {
    mix(partition * 1000 + position)
}

/// What the sums are of all positions before one.
fn sums(until: u64) -> BTreeMap<u64, u64> {
    let sum = |partition| {
        let numbers = (0..until).map(|position| number(partition, position));
        (partition, numbers.fold(0, u64::wrapping_add))
    };
    (0..PARTITIONS).map(sum).collect()
}

#[derive(Default)]
struct Shared {
    done: Mutex<Vec<SnapshotDone<u64>>>,
    /// By partition, what was said with the highest count: what is said of several times may come in any
    /// order of times.
    said: Mutex<BTreeMap<u64, (u64, u64)>>,
    over: AtomicBool,
}

impl Shared {
    fn sums(&self) -> BTreeMap<u64, u64> {
        let said = self.said.lock().unwrap();
        said.iter().map(|(partition, (_, sum))| (*partition, *sum)).collect()
    }
}

struct Program {
    snapshots: Snapshots<u64>,
    shared: Arc<Shared>,
    input: InputHandleVec<u64, Envelope<(u64, u64)>>,
    handle: Handle<u64>,
    probe: ProbeHandle<u64>,
    partitions: Vec<u64>,
}

const LIMIT: Duration = Duration::from_secs(60);

impl Program {
    fn build(worker: &mut Worker, snapshots: Snapshots<u64>, shared: &Arc<Shared>) -> Program {
        let (input, handle, probe) = worker.dataflow(|scope| {
            let adder = Function::new(|context, (number, hops): &(u64, u64)| {
                match hops {
                    0 => {
                        let sum = context.update(SUM, |sum| *sum = sum.wrapping_add(*number));
                        let partition = context.id().to_string().parse().expect("a number");
                        let count = context.update(COUNT, |count| *count += 1);
                        context.emit(SUMS, (partition, count, sum));
                    }
                    hops => {
                        let id = context.id().clone();
                        context.send(ADDER, id, (*number, hops - 1));
                    }
                }
                Ok(())
            });
            let functions =
                Functions::new().embedded(ADDER, adder.value(SUM).value(COUNT)).egress(SUMS);
            let (input, stream) = scope.new_input();
            let egresses = snapshots.replayed("log", stream).stateful_functions(functions).unwrap();
            let noted = Arc::clone(shared);
            let done = egresses.snapshots().unwrap();
            done.inspect(move |done| noted.done.lock().unwrap().push(done.clone()));
            let noted = Arc::clone(shared);
            let note = move |(partition, count, sum): &(u64, u64, u64)| {
                let mut said = noted.said.lock().unwrap();
                let latest = said.entry(*partition).or_default();
                *latest = (*count, *sum).max(*latest);
            };
            let probe = egresses.stream(SUMS).unwrap().inspect(note).probe().0;
            (input, egresses.handle(), probe)
        });
        let (worker, peers) = (worker.index() as u64, worker.peers() as u64);
        let partitions = (0..PARTITIONS).filter(|partition| partition % peers == worker).collect();
        Program { snapshots, shared: Arc::clone(shared), input, handle, probe, partitions }
    }

    /// Reads all records of these times.
    fn feed(&mut self, times: std::ops::Range<u64>) {
        for time in times {
            self.input.advance_to(time);
            for partition in &self.partitions {
                for position in time * SLICE..(time + 1) * SLICE {
                    let message = (number(*partition, position), position % 4);
                    let message = ADDER.message(*partition, message);
                    self.input.send(message.read_at(*partition, position));
                }
            }
            self.input.advance_to(time + 1);
        }
    }

    fn until(&self, worker: &mut Worker, what: &str, mut condition: impl FnMut() -> bool) {
        let began = Instant::now();
        while !condition() {
            assert!(began.elapsed() < LIMIT, "this never came to be: {what}");
            worker.step_or_park(Some(Duration::from_millis(1)));
        }
    }

    fn until_done(&self, worker: &mut Worker, snapshots: usize) {
        let shared = Arc::clone(&self.shared);
        self.until(worker, "a snapshot", || shared.done.lock().unwrap().len() >= snapshots);
    }

    /// Ends the program as if it were killed, when all workers have come so far.
    fn kill(self, worker: &mut Worker) {
        let shared = Arc::clone(&self.shared);
        if worker.index() == 0 {
            shared.over.store(true, SeqCst);
        }
        self.until(worker, "all are over", || shared.over.load(SeqCst));
        let dataflows = worker.installed_dataflows();
        dataflows.into_iter().for_each(|dataflow| worker.drop_dataflow(dataflow));
    }
}

/// Runs one execution of the program.
fn execute(
    workers: usize,
    store: &SnapshotStore,
    program: impl Fn(&mut Worker, Program) + Send + Sync + 'static,
) -> Arc<Shared> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_time().build().unwrap();
    let shared = Arc::new(Shared::default());
    let (store, handle, of_all) = (store.clone(), runtime.handle().clone(), Arc::clone(&shared));
    support::on_workers(workers, move |worker| {
        let policy = SnapshotPolicy::new("aligned").on_request();
        let snapshots = Snapshots::begin(worker, &store, &handle, &policy).unwrap();
        let built = Program::build(worker, snapshots, &of_all);
        program(worker, built);
    });
    shared
}

fn frontier() -> Antichain<u64> {
    Antichain::from_elem(FRONTIER)
}

#[test]
fn an_aligned_snapshot_is_the_program_as_of_a_time() {
    for (workers, later) in [(1, 2), (2, 3), (3, 1)] {
        let store = SnapshotStore::open("memory:", SnapshotOptions::default()).unwrap();
        let shared = execute(workers, &store, |worker, mut program| {
            if worker.index() + 1 == worker.peers() {
                // When the second is there, the first has come to be known.
                program.snapshots.request_aligned(frontier());
                program.snapshots.request();
            }
            program.feed(0..4);
            program.until_done(worker, 1);
            program.feed(4..END);
            program.until_done(worker, 2);
            program.kill(worker);
        });
        let done = shared.done.lock().unwrap().clone();
        assert_eq!(done.iter().map(|done| done.aligned).collect::<Vec<_>>(), [None, Some(true)]);
        let last = FRONTIER * SLICE - 1;
        let positions = (0..PARTITIONS).map(|partition| (partition, last)).collect();
        assert_eq!(done[1].positions, BTreeMap::from([("log".to_owned(), positions)]));

        // Nothing is read any more: what is asked for are the sums.
        let shared = execute(later, &store, |worker, mut program| {
            assert_eq!(program.snapshots.restored().unwrap().aligned, Some(true));
            program.input.advance_to(1);
            let probe = program.probe.clone();
            program.until(worker, "what was on its way is over", || !probe.less_than(&1));
            for partition in &program.partitions {
                let nothing = ADDER.message(*partition, (0, 0));
                program.input.send(nothing.read_at(*partition, u64::MAX));
            }
            program.input.advance_to(2);
            program.until(worker, "the sums are said", || !probe.less_than(&2));
            program.input.close();
            program.handle.run(worker).unwrap();
        });
        assert_eq!(shared.sums(), sums(FRONTIER * SLICE));
    }
}

#[test]
fn one_that_comes_too_late_says_so() {
    let store = SnapshotStore::open("memory:", SnapshotOptions::default()).unwrap();
    let shared = execute(2, &store, |worker, mut program| {
        program.feed(0..END);
        let probe = program.probe.clone();
        program.until(worker, "all was let in", || !probe.less_than(&END));
        if worker.index() == 1 {
            program.snapshots.request_aligned(frontier());
        }
        program.until_done(worker, 1);
        program.input.close();
        program.handle.run(worker).unwrap();
    });
    let done = shared.done.lock().unwrap();
    assert_eq!(done[0].aligned, Some(false));
    assert_eq!(shared.sums(), sums(END * SLICE));
}

/// Sources go on after what is restored: that some of it was at or after the frontier, only the snapshot says.
#[test]
fn one_that_comes_too_late_for_what_was_restored_says_so() {
    let store = SnapshotStore::open("memory:", SnapshotOptions::default()).unwrap();
    let shared = execute(2, &store, |worker, mut program| {
        program.feed(0..FRONTIER + 1);
        let probe = program.probe.clone();
        program.until(worker, "all was let in", || !probe.less_than(&(FRONTIER + 1)));
        program.snapshots.request();
        program.until_done(worker, 1);
        program.kill(worker);
    });
    assert_eq!(shared.done.lock().unwrap()[0].latest, [FRONTIER]);
    let shared = execute(3, &store, |worker, mut program| {
        if worker.index() == 1 {
            program.snapshots.request_aligned(frontier());
        }
        program.feed(FRONTIER + 1..END);
        program.input.close();
        program.handle.run(worker).unwrap();
    });
    let done = shared.done.lock().unwrap();
    let aligned: Vec<_> = done.iter().filter_map(|done| done.aligned).collect();
    assert_eq!((aligned, done.last().unwrap().latest.clone()), (vec![false], vec![END - 1]));
    assert_eq!(shared.sums(), sums(END * SLICE));
}

/// What never comes to the frontier hinders no other snapshot, and has come to it when it has closed.
#[test]
fn one_that_is_never_reached_is_taken_when_ingress_has_closed() {
    let store = SnapshotStore::open("memory:", SnapshotOptions::default()).unwrap();
    let shared = execute(2, &store, |worker, mut program| {
        if worker.index() == 0 {
            program.snapshots.request_aligned(Antichain::from_elem(1000));
            program.snapshots.request();
        }
        program.until_done(worker, 1);
        program.feed(0..END);
        let probe = program.probe.clone();
        program.until(worker, "all was let in", || !probe.less_than(&END));
        program.input.close();
        program.handle.run(worker).unwrap();
    });
    let done = shared.done.lock().unwrap();
    let aligned: Vec<_> = done.iter().filter_map(|done| done.aligned).collect();
    assert_eq!((done[0].aligned, aligned), (None, vec![true]));
}

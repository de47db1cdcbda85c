//! A program whose addresses send each other messages and emit to an egress that is held: each says how often it
//! has been told something, so that a record too many, too few or in a wrong place shows.
#![allow(dead_code)]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use timely::dataflow::InputHandleVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::Operator;
use timely::dataflow::operators::probe::Handle as ProbeHandle;
use timely::dataflow::operators::{Input, Inspect, Probe};
use timely::worker::Worker;
use timely_statefun::sink::{Sink, SinkError};
use timely_statefun::{
    Acknowledge, Egress, Egresses, Envelope, Function, FunctionType, Functions, Handle, Released,
    Retry, SinkHandle, SnapshotPolicy, SnapshotStore, Snapshots, StatefulFunctions, ValueSpec,
};
use tokio::runtime::Runtime;

use crate::support::on_workers;

/// Far longer than anything takes.
pub const LIMIT: Duration = Duration::from_secs(20);

/// Whom to tell on so often, and when the first was told.
pub type Told = (u64, u64);
/// Who was told, how often it has been, and when the record was read that led to it.
pub type Note = (u64, u64, u64);

pub const TELLER: FunctionType<Told> = FunctionType::new("held/teller");
pub const NOTES: Egress<Note> = Egress::new("held/notes");
const COUNT: ValueSpec<u64> = ValueSpec::new("count");
const TELLERS: u64 = 40;
/// How often each record is told on.
const TOLD_ON: u64 = 3;

pub fn threads() -> &'static Runtime {
    static RUNTIME: std::sync::OnceLock<Runtime> = std::sync::OnceLock::new();
    RUNTIME.get_or_init(|| Runtime::new().unwrap())
}

pub fn on_request() -> SnapshotPolicy {
    SnapshotPolicy::new("test").on_request().unacknowledged_cuts_max(1000)
}

pub fn functions() -> Functions<Told> {
    let functions = Functions::new().named("tellers").embedded(TELLER, teller().value(COUNT));
    functions.held_egress(NOTES)
}

/// The same, which hold nothing.
pub fn plain(functions: Functions<Told>) -> Functions<Told> {
    functions.embedded(TELLER, teller().value(COUNT)).egress(NOTES)
}

fn teller() -> Function<Told, Told> {
    Function::new(|context, (left, time): &Told| {
        let own = context.id().as_number().ok_or("tellers are numbers")?;
        let count = context.update(COUNT, |count| *count += 1);
        context.emit(NOTES, (own, count, *time));
        if *left > 0 {
            context.send(TELLER, (own * 7 + left + 1) % TELLERS, (left - 1, *time));
        }
        Ok(())
    })
}

/// How many notes come of so many records.
pub fn notes_of(records: u64) -> u64 {
    records * (TOLD_ON + 1)
}

/// What came out, with the times.
pub type Timed<E> = Rc<RefCell<Vec<(u64, E)>>>;

/// By shard, what is stored of each cut.
pub type Stored = BTreeMap<u32, Vec<(u64, Vec<Note>)>>;

/// How an execution takes its held egress.
pub enum Taken {
    Stream { released: Timed<Released<Note>>, acknowledge: Acknowledge },
    Sink(SinkHandle),
    Nothing,
}

/// One execution, on one of its workers.
pub struct Execution<'w> {
    pub worker: &'w mut Worker,
    pub snapshots: Snapshots<u64>,
    pub input: Option<InputHandleVec<u64, Envelope<Told>>>,
    pub handle: Handle<u64>,
    pub taken: Taken,
    /// The frontier of what is released.
    pub probe: ProbeHandle<u64>,
    /// The frontier of what is handled, whether it is released or not.
    handled: ProbeHandle<u64>,
    durable: Arc<Mutex<Vec<u64>>>,
    waited_for: usize,
}

impl Execution<'_> {
    #[track_caller]
    pub fn until(&mut self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let began = Instant::now();
        while !holds(self) {
            assert!(began.elapsed() < LIMIT, "it never came that {what}");
            assert_eq!(self.handle.stopped(), None, "it stopped before {what}");
            self.worker.step_or_park(Some(Duration::from_micros(500)));
        }
    }

    /// Gives what comes next of the source, up to so many records. Worker 0 reads it.
    pub fn give(&mut self, records: u64) {
        let input = self.input.as_mut().expect("it is open");
        if self.worker.index() == 0 {
            let restored = self.snapshots.positions("source").get(&0).map_or(0, |last| last + 1);
            for at in restored.max(*input.time())..records {
                input.advance_to(at);
                let envelope = TELLER.message(at % TELLERS, (TOLD_ON, at));
                input.send(envelope.read_at(0, at));
            }
        }
        if *input.time() < records {
            input.advance_to(records);
        }
        input.flush();
    }

    /// Waits until all that was given has been let in.
    pub fn admit(&mut self, records: u64) {
        self.until("it is let in", |this| !this.handle.admitted().less_than(&records));
    }

    /// Waits until all that was given has been handled, on all workers: what it emits is in the next cut.
    pub fn handle_all(&mut self) {
        let given = *self.input.as_ref().expect("it is open").time();
        self.until("it is handled", |this| !this.handled.less_than(&given));
    }

    pub fn request(&mut self) {
        if self.worker.index() == 0 {
            self.snapshots.request();
        }
    }

    /// Takes a snapshot, and waits until it is durable. All workers do this, or none.
    #[track_caller]
    pub fn cut(&mut self) {
        self.request();
        self.waited_for += 1;
        let wanted = self.waited_for;
        self.until("a snapshot is durable", |this| this.durable() >= wanted);
    }

    pub fn durable(&self) -> usize {
        self.durable.lock().unwrap().len()
    }

    /// The cuts of this execution that are durable.
    pub fn cuts(&self) -> Vec<u64> {
        self.durable.lock().unwrap().clone()
    }

    /// Waits until this worker has all of the cuts that are durable, and gives those.
    pub fn release(&mut self) -> Vec<u64> {
        let cuts = self.cuts();
        let last = *cuts.last().expect("there is one");
        self.until("all is released", |run| run.acknowledge().ended() >= last);
        cuts
    }

    /// Comes to the end, and acknowledges all that is released.
    pub fn end(&mut self) -> Result<(), timely_statefun::Stopped> {
        self.input = None;
        let began = Instant::now();
        while self.worker.has_dataflows() {
            let status = (self.snapshots.status(), self.handle.stats());
            assert!(began.elapsed() < LIMIT, "it does not end: {status:?}");
            if let Some(stopped) = self.handle.stopped() {
                return Err(stopped);
            }
            if let Taken::Stream { acknowledge, .. } = &self.taken
                && let Some(last) = acknowledge.open().last()
            {
                acknowledge.acknowledge(*last);
            }
            self.worker.step_or_park(Some(Duration::from_micros(500)));
        }
        Ok(())
    }

    /// What was released on this worker.
    pub fn released(&self) -> Vec<(u64, Released<Note>)> {
        match &self.taken {
            Taken::Stream { released, .. } => released.take(),
            _ => Vec::new(),
        }
    }

    pub fn acknowledge(&self) -> &Acknowledge {
        match &self.taken {
            Taken::Stream { acknowledge, .. } => acknowledge,
            _ => panic!("it is not taken as a stream"),
        }
    }

    pub fn sink(&self) -> &SinkHandle {
        match &self.taken {
            Taken::Sink(handle) => handle,
            _ => panic!("it goes into no sink"),
        }
    }
}

/// Takes the held egress as a stream.
pub fn as_stream(egresses: &Egresses<'_, u64, Told>, probe: &ProbeHandle<u64>) -> Taken {
    let (stream, acknowledge) = egresses.held(NOTES).unwrap().stream();
    let released = Rc::<RefCell<Vec<_>>>::default();
    let seen = Rc::clone(&released);
    // Timely's own `inspect` sorts by time what comes together.
    let stream = stream.unary(Pipeline, "See", move |_, _| {
        move |input, output| {
            input.for_each(|capability, records| {
                let time = *capability.time();
                seen.borrow_mut().extend(records.iter().map(|record| (time, record.clone())));
                output.session(&capability).give_container(records);
            });
        }
    });
    stream.probe_with(probe);
    Taken::Stream { released, acknowledge }
}

/// Runs one execution, which is killed when its script is over, and gives what the script gives.
pub fn run<R: Send + 'static>(
    workers: usize,
    store: &SnapshotStore,
    policy: &SnapshotPolicy,
    take: impl Fn(&Egresses<'_, u64, Told>, &ProbeHandle<u64>) -> Taken + Send + Sync + 'static,
    script: impl Fn(&mut Execution<'_>) -> R + Send + Sync + 'static,
) -> Vec<R> {
    let (store, policy, durable) =
        (store.clone(), policy.clone(), Arc::<Mutex<Vec<u64>>>::default());
    on_workers(workers, move |worker| {
        let runtime = threads().handle();
        let snapshots = Snapshots::<u64>::begin(worker, &store, runtime, &policy).unwrap();
        let dataflow = worker.next_dataflow_index();
        let (probe, handled) = (ProbeHandle::new(), ProbeHandle::new());
        let (input, handle, taken) = worker.dataflow::<u64, _, _>(|scope| {
            let (input, stream) = scope.new_input::<Vec<Envelope<Told>>>();
            let ingress = snapshots.replayed("source", stream);
            let egresses = ingress.stateful_functions(functions()).unwrap();
            // Dead letters are not held.
            egresses.dead_letters().unwrap().probe_with(&handled);
            let durable = Arc::clone(&durable);
            egresses
                .snapshots()
                .unwrap()
                .inspect(move |done| durable.lock().unwrap().push(done.cut));
            (input, egresses.handle(), take(&egresses, &probe))
        });
        let (input, durable) = (Some(input), Arc::clone(&durable));
        let waited_for = 0;
        let mut execution = Execution {
            worker,
            snapshots,
            input,
            handle,
            taken,
            probe,
            handled,
            durable,
            waited_for,
        };
        let result = script(&mut execution);
        if execution.worker.installed_dataflows().contains(&dataflow) {
            execution.worker.drop_dataflow(dataflow);
        }
        result
    })
}

/// What is known of cuts: by cut and bin, what was released.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cuts(pub BTreeMap<u64, BTreeMap<u16, Vec<Note>>>);

impl Cuts {
    /// Adds what workers released. A cut is released whole, or not yet: what has no end is left out. One that
    /// is known must be the same.
    #[track_caller]
    pub fn add(&mut self, workers: Vec<Vec<(u64, Released<Note>)>>) {
        let mut found = Cuts::default();
        for released in workers {
            let mut open: BTreeMap<u64, BTreeMap<u16, Vec<Note>>> = BTreeMap::new();
            let mut last = 0;
            for (time, released) in released {
                match released {
                    Released::Record { cut, bin, record } => {
                        assert!(cut >= last, "cut {cut} comes after {last}");
                        assert_eq!(time, record.2, "each leaves at its own time");
                        last = cut;
                        open.entry(cut).or_default().entry(bin).or_default().push(record);
                    }
                    Released::End { cut } => {
                        let bins = open.remove(&cut).expect("an end follows its records");
                        for (bin, notes) in bins {
                            let known = found.0.entry(cut).or_default().insert(bin, notes);
                            assert_eq!(known, None, "a bin is released on one worker, once");
                        }
                    }
                }
            }
        }
        for (cut, bins) in found.0 {
            let known = self.0.entry(cut).or_default();
            for (bin, notes) in bins {
                let before = known.entry(bin).or_insert_with(|| notes.clone());
                assert_eq!(*before, notes, "cut {cut}, bin {bin} is what it was before");
            }
        }
    }

    /// All that was released: each address counts its own without a gap, in order.
    #[track_caller]
    pub fn check(&self, records: u64) {
        let notes = self.0.values().flat_map(|bins| bins.values().flatten());
        check(notes.copied(), records);
    }
}

/// Checks that these are the notes of so many records, each once, and in order of each address.
#[track_caller]
pub fn check(notes: impl Iterator<Item = Note>, records: u64) {
    let mut counts = BTreeMap::<u64, u64>::new();
    let mut all = 0;
    for (own, count, _) in notes {
        let last = counts.entry(own).or_default();
        assert_eq!(count, *last + 1, "address {own} emits without a gap, once, in order");
        *last = count;
        all += 1;
    }
    assert_eq!(all, notes_of(records), "all of it has come");
}

/// Is shown each cut that a sink is given.
pub type Seen = Arc<dyn Fn(u64, &[Note]) + Send + Sync>;

/// What a sink does before it stores a cut.
pub type Before = Arc<dyn Fn(u64) -> Result<(), SinkError> + Send + Sync>;

/// A sink in memory, which does what a test wants before it stores a cut. All clones are one.
#[derive(Clone)]
pub struct Memory {
    pub stored: Arc<Mutex<Stored>>,
    pub shards: u32,
    pub before: Before,
    pub seen: Seen,
    pub attempts: u32,
    /// Stores nothing.
    pub refuses: bool,
}

impl Memory {
    pub fn new(shards: u32) -> Self {
        let (before, seen) = (Arc::new(|_| Ok(())), Arc::new(|_, _: &[Note]| ()));
        Memory { stored: Arc::default(), shards, before, seen, attempts: 1000, refuses: false }
    }

    pub fn seen(mut self, seen: impl Fn(u64, &[Note]) + Send + Sync + 'static) -> Self {
        self.seen = Arc::new(seen);
        self
    }

    pub fn before(
        mut self,
        before: impl Fn(u64) -> Result<(), SinkError> + Send + Sync + 'static,
    ) -> Self {
        self.before = Arc::new(before);
        self
    }

    /// All that is stored, shard by shard, in order.
    pub fn notes(&self) -> Vec<Note> {
        let stored = self.stored.lock().unwrap();
        stored.values().flatten().flat_map(|(_, notes)| notes.clone()).collect()
    }

    pub fn cuts(&self) -> Vec<u64> {
        let stored = self.stored.lock().unwrap();
        let mut cuts: Vec<_> = stored.values().flatten().map(|(cut, _)| *cut).collect();
        cuts.sort_unstable();
        cuts.dedup();
        cuts
    }
}

impl Sink<Note> for Memory {
    fn shards(&self) -> u32 {
        self.shards
    }

    fn retry(&self) -> Retry {
        Retry::attempts(self.attempts).longest(Duration::from_millis(5))
    }

    fn last(&self, shard: u32) -> Result<Option<u64>, SinkError> {
        let stored = self.stored.lock().unwrap();
        Ok(stored.get(&shard).and_then(|cuts| cuts.last()).map(|(cut, _)| *cut))
    }

    fn write(&self, shard: u32, cut: u64, records: &[Note]) -> Result<(), SinkError> {
        (self.before)(cut)?;
        (self.seen)(cut, records);
        if self.refuses {
            return Err(SinkError::failed("it never stores anything"));
        }
        let mut stored = self.stored.lock().unwrap();
        let cuts = stored.entry(shard).or_default();
        if cuts.last().is_none_or(|(last, _)| *last < cut) {
            cuts.push((cut, records.to_vec()));
        }
        Ok(())
    }
}

//! Programs that take snapshots, as tests run them: one execution after the other on one store, each of
//! which is killed where its script ends, unless the script has it come to its own end.
//!
//! What is killed is dropped where it is, with all that is on its way. Nothing tells the store.
#![allow(dead_code)]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use timely::ExchangeData;
use timely::dataflow::InputHandleVec;
use timely::dataflow::operators::probe::Handle as ProbeHandle;
use timely::dataflow::operators::{Input, Inspect, Probe};
use timely::worker::Worker;
use timely_statefun::{
    DeadLetter, Egress, Envelope, Functions, Handle, SnapshotDone, SnapshotError, SnapshotOptions,
    SnapshotPolicy, SnapshotStore, Snapshots, StatefulFunctions, Stopped,
};
use tokio::runtime::Runtime;

use crate::support::on_workers;

/// Far longer than anything takes.
pub const LIMIT: Duration = Duration::from_secs(60);

/// A record of the source, with its time. Its position is its place in the source.
pub type Source<M> = Vec<(u64, Envelope<M>)>;

/// What came out, with the times.
pub type Timed<E> = Rc<RefCell<Vec<(u64, E)>>>;

/// The runtime of all executions.
pub fn threads() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| Runtime::new().unwrap())
}

/// A new store in memory.
pub fn memory() -> SnapshotStore {
    SnapshotStore::open("memory:", SnapshotOptions::default()).unwrap()
}

/// Takes snapshots when it is asked to.
pub fn on_request() -> SnapshotPolicy {
    SnapshotPolicy::new("test").on_request()
}

/// One execution, on one of its workers.
pub struct Execution<'w, M: Clone + 'static, E> {
    pub worker: &'w mut Worker,
    pub snapshots: Snapshots<u64>,
    pub input: Option<InputHandleVec<u64, Envelope<M>>>,
    pub handle: Handle<u64>,
    /// The frontier of the egress.
    pub probe: ProbeHandle<u64>,
    /// What was emitted on this worker.
    pub seen: Timed<E>,
    pub letters: Timed<DeadLetter<M>>,
    /// What was told of snapshots; on worker 0.
    pub done: Rc<RefCell<Vec<SnapshotDone<u64>>>>,
    /// The frontier of that.
    pub complete: ProbeHandle<u64>,
    /// Snapshots that are durable, on all workers.
    durable: Arc<AtomicUsize>,
    /// Snapshots that this worker has waited for.
    waited_for: usize,
    /// How many records of the source were given, with those that were before.
    given: usize,
}

impl<M: ExchangeData + Clone, E: 'static> Execution<'_, M, E> {
    /// Steps until something holds.
    #[track_caller]
    pub fn until(&mut self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let began = Instant::now();
        while !holds(self) {
            assert!(began.elapsed() < LIMIT, "it never came that {what}");
            assert_eq!(self.handle.stopped(), None, "it stopped before {what}");
            self.worker.step_or_park(Some(Duration::from_micros(500)));
        }
    }

    /// Gives the records of the source that come next, up to the end of `source`. Worker 0 reads them.
    pub fn give(&mut self, source: &[(u64, Envelope<M>)]) {
        let restored = self.snapshots.positions("source").get(&0).map_or(0, |last| last + 1);
        let from = self.given.max(usize::try_from(restored).unwrap());
        self.given = source.len().max(from);
        if self.worker.index() > 0 {
            return;
        }
        let input = self.input.as_mut().expect("it is open");
        for (at, (time, envelope)) in source.iter().enumerate().skip(from) {
            input.advance_to(*time);
            input.send(envelope.clone().read_at(0, at as u64));
        }
        input.flush();
    }

    /// Waits until all that was caused before a time has happened.
    #[track_caller]
    pub fn settle(&mut self, time: u64) {
        self.input.as_mut().expect("it is open").advance_to(time);
        self.until("everything has happened", |this| !this.probe.less_than(&time));
    }

    /// Takes a snapshot, and waits until it is durable. All workers do this, or none.
    #[track_caller]
    pub fn cut(&mut self) {
        if self.worker.index() == 0 {
            self.snapshots.request();
        }
        self.waited_for += 1;
        let wanted = self.waited_for;
        self.until("a snapshot is durable", |this| this.durable() >= wanted);
    }

    /// How many snapshots of this execution are durable.
    pub fn durable(&self) -> usize {
        self.durable.load(SeqCst)
    }

    /// Closes the source, and comes to the end.
    pub fn end(&mut self) -> Result<(), Stopped> {
        self.input = None;
        self.handle.run(self.worker)
    }
}

/// Runs one execution, which is killed when its script is over, and gives what the script gives.
///
/// # Errors
///
/// If the execution cannot begin.
pub fn run<M: ExchangeData + Clone, E: Clone + 'static, R: Send + 'static>(
    workers: usize,
    store: &SnapshotStore,
    policy: &SnapshotPolicy,
    functions: impl Fn() -> Functions<M> + Send + Sync + 'static,
    egress: Egress<E>,
    script: impl Fn(&mut Execution<'_, M, E>) -> R + Send + Sync + 'static,
) -> Result<Vec<R>, SnapshotError> {
    let (store, policy, durable) = (store.clone(), policy.clone(), Arc::<AtomicUsize>::default());
    let ran = on_workers(workers, move |worker| {
        let runtime = threads().handle();
        let snapshots = Snapshots::<u64>::begin(worker, &store, runtime, &policy)?;
        let dataflow = worker.next_dataflow_index();
        let seen = Rc::<RefCell<Vec<_>>>::default();
        let (letters, done) = (Rc::<RefCell<Vec<_>>>::default(), Rc::<RefCell<Vec<_>>>::default());
        let (input, handle, probe, complete) = worker.dataflow::<u64, _, _>(|scope| {
            let (input, stream) = scope.new_input::<Vec<Envelope<M>>>();
            let ingress = snapshots.replayed("source", stream);
            let egresses = ingress.stateful_functions(functions()).unwrap();
            let seen = Rc::clone(&seen);
            let emitted = egresses.stream(egress).unwrap().inspect_time(move |time, record| {
                seen.borrow_mut().push((*time, record.clone()));
            });
            let letters = Rc::clone(&letters);
            egresses.dead_letters().unwrap().inspect_time(move |time, letter| {
                letters.borrow_mut().push((*time, letter.clone()));
            });
            let (done, durable) = (Rc::clone(&done), Arc::clone(&durable));
            let told = egresses.snapshots().unwrap().inspect(move |told: &SnapshotDone<u64>| {
                done.borrow_mut().push(told.clone());
                durable.fetch_add(1, SeqCst);
            });
            (input, egresses.handle(), emitted.probe().0, told.probe().0)
        });
        let durable = Arc::clone(&durable);
        let (input, waited_for, given) = (Some(input), 0, 0);
        let mut execution = Execution {
            worker,
            snapshots,
            input,
            handle,
            probe,
            seen,
            letters,
            done,
            complete,
            durable,
            waited_for,
            given,
        };
        let result = script(&mut execution);
        if execution.worker.installed_dataflows().contains(&dataflow) {
            execution.worker.drop_dataflow(dataflow);
        }
        Ok(result)
    });
    ran.into_iter().collect()
}

/// What was emitted, of all workers, by what it says.
pub fn by_record<E: Ord>(workers: Vec<Vec<(u64, E)>>) -> BTreeMap<E, Vec<u64>> {
    let mut found = BTreeMap::<E, Vec<u64>>::new();
    for (time, record) in workers.into_iter().flatten() {
        found.entry(record).or_default().push(time);
    }
    found
}

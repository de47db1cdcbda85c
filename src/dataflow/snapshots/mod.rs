//! Snapshots of a running program: what the program says of them and is told, on each of its workers.
//!
//! What a cut is, and when it is complete, is decided in the operators; how files become durable, in the
//! snapshot room; what a function type or a message is as bytes, in the core. Here these come together.

mod acknowledgements;
mod agree;
mod chair;
mod naming;
mod news;
mod restoring;
mod savepoint;
mod scribe;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use timely::dataflow::Scope;
use timely::progress::{Antichain, Timestamp};
use timely::worker::Worker;
#[cfg(feature = "testing")]
use timely_statefun_operators::council_held_back;
use timely_statefun_operators::{CutControl, Decider, Positions, bulletin, council};
use tokio::runtime::Handle;

use acknowledgements::Acknowledgements;
use chair::Chair;
pub(super) use restoring::{Next, Reading, Records, held_of, records_of};

use super::cutting::Cutting;
use crate::address;
use crate::clock::Clock;
use crate::codec::Codec;
use crate::dispatch::{Origin, RecordKind};
use crate::error::{Error, Kind};
use crate::placement::BINS;
use crate::snapshot::{
    Begun, Commit, Identity, Keeper, Parts, Process, RestoreFrom, SnapshotError, SnapshotStatus,
    SnapshotStore,
};

pub use savepoint::Savepoint;
pub(crate) use scribe::{HELD, TABLE, put_framed, section};
pub(super) use scribe::{Scribe, SetNumber};

/// When a program takes snapshots, and with which one it begins; each with its default.
///
/// ```
/// use std::time::Duration;
/// use timely_statefun::SnapshotPolicy;
///
/// let policy = SnapshotPolicy::new("shop").interval(Duration::from_secs(1));
/// # let _ = policy;
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotPolicy {
    program: String,
    interval: Option<Duration>,
    deadline: Duration,
    restore: RestoreFrom,
    verify: bool,
    unacknowledged_cuts_max: usize,
    clock: Clock,
}

impl SnapshotPolicy {
    /// The policy of a program of this name, which is stored: a store keeps the snapshots of one
    /// program. A snapshot every ten seconds, when all ingress has closed, and when nothing is left to do.
    pub fn new(program: impl Into<String>) -> Self {
        SnapshotPolicy {
            program: program.into(),
            interval: Some(Duration::from_secs(10)),
            deadline: Duration::from_secs(600),
            restore: RestoreFrom::Newest,
            verify: true,
            unacknowledged_cuts_max: 8,
            clock: Clock::system(),
        }
    }

    /// Takes a snapshot so long after the one before was begun, or as soon as that is durable. Default
    /// ten seconds.
    #[must_use]
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = Some(interval);
        self
    }

    /// Takes snapshots [on request](Snapshots::request) only, and at the end.
    #[must_use]
    pub fn on_request(mut self) -> Self {
        self.interval = None;
        self
    }

    /// Gives up a snapshot that is not written so long after it was begun; the next may follow. Default ten
    /// minutes.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Takes no more snapshots while so many have records of [held](crate::Functions::held_egress) egresses that
    /// were not acknowledged: what they hold is stored and kept in memory until it is. Default 8; at least 1.
    ///
    /// The program goes on meanwhile, and what it emits is held. When it is over it waits, at the end, until
    /// all is acknowledged. [`SnapshotStatus::unacknowledged`](crate::SnapshotStatus) says what it waits for.
    #[must_use]
    pub fn unacknowledged_cuts_max(mut self, cuts: usize) -> Self {
        self.unacknowledged_cuts_max = cuts.max(1);
        self
    }

    /// Says which clock snapshots are stamped with, and by which those that are not needed any more become
    /// old enough to be deleted. Default: the system's.
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Says which snapshot the program begins with. Default: the newest.
    #[must_use]
    pub fn restore(mut self, from: RestoreFrom) -> Self {
        self.restore = from;
        self
    }

    /// Says whether all bytes of a snapshot are looked at before anything of it is restored, so that one
    /// that is damaged is an error of [`begin`](Snapshots::begin). Otherwise only its files' lengths are,
    /// and damage stops the program when it is met: a snapshot is then read once and not twice. Default:
    /// they are looked at.
    #[must_use]
    pub fn verify(mut self, verify: bool) -> Self {
        self.verify = verify;
        self
    }
}

/// What a snapshot says of the program that it was taken of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SnapshotDone<T> {
    /// The number of its cut.
    pub cut: u64,
    /// By ingress, the last position of each partition that it contains.
    pub positions: BTreeMap<String, Positions>,
    /// What was emitted at a time that is not at or after one of these was emitted before the cut, and is
    /// not emitted again after a restart.
    pub complete: Vec<T>,
    /// All ingress that it contains is at or before one of these times, which is what the next can be
    /// [aligned](Snapshots::request_aligned) to. Empty in those of versions that did not note it.
    #[serde(default = "Vec::new")]
    pub latest: Vec<T>,
    /// The time at which new events happened, such as delayed messages, the latest of all workers: none happens
    /// before it after a restart. `None` in those of versions that did not note it.
    #[serde(default = "Option::default")]
    pub events: Option<T>,
    /// What was written of it.
    pub counts: SnapshotCounts,
    /// How many bytes were written for it, without its manifest.
    pub bytes: u64,
    /// `None` unless it was [asked for](Snapshots::request_aligned) with a frontier. Then, whether it contains
    /// of ingress exactly what is before that: not if some of the rest had been let in already.
    #[serde(default)]
    pub aligned: Option<bool>,
}

/// How much was written for a snapshot, by what it is. What an increment builds upon is not counted again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SnapshotCounts {
    /// Pieces of state: values, entries of tables, runs of elements of buffers, and those that are gone.
    pub state: u64,
    /// Messages in calls of remote functions, and those that wait behind them.
    pub in_flight: u64,
    /// Messages that failed and will be tried again, and those that wait behind them.
    pub retrying: u64,
    /// Messages that waited to be handled.
    pub queued: u64,
    /// Messages that were sent before the cut and arrived after it.
    pub logged: u64,
    /// Asynchronous operations that were under way.
    pub operations: u64,
    /// Delayed messages.
    pub delayed: u64,
    /// Delayed messages that a snapshot before had and that wait no more: they were sent off, or cancelled.
    #[serde(default)]
    pub delayed_over: u64,
    /// Records of [held](crate::Functions::held_egress) egresses.
    #[serde(default)]
    pub held: u64,
}

impl SnapshotCounts {
    pub(crate) fn count(&mut self, kind: RecordKind, is_over: bool) {
        *match kind {
            RecordKind::Delayed if is_over => &mut self.delayed_over,
            RecordKind::State => &mut self.state,
            RecordKind::InFlight => &mut self.in_flight,
            RecordKind::Retrying => &mut self.retrying,
            RecordKind::Queued => &mut self.queued,
            RecordKind::Logged => &mut self.logged,
            RecordKind::Operation => &mut self.operations,
            RecordKind::Delayed => &mut self.delayed,
        } += 1;
    }

    fn add(&mut self, other: Self) {
        self.state += other.state;
        self.in_flight += other.in_flight;
        self.retrying += other.retrying;
        self.queued += other.queued;
        self.logged += other.logged;
        self.operations += other.operations;
        self.delayed += other.delayed;
        self.delayed_over += other.delayed_over;
        self.held += other.held;
    }
}

/// The note of a manifest that has what is told of a snapshot.
pub(crate) const NOTE: &str = "program";

impl<T: Timestamp> SnapshotDone<T> {
    /// Of a cut of which nothing else is known.
    fn empty(cut: u64) -> Self {
        SnapshotDone {
            cut,
            positions: BTreeMap::new(),
            complete: Vec::new(),
            latest: Vec::new(),
            events: None,
            counts: SnapshotCounts::default(),
            bytes: 0,
            aligned: None,
        }
    }

    fn note(&self) -> (String, Bytes) {
        let note = rmp_serde::to_vec_named(self).expect("times and numbers can be written");
        (NOTE.to_owned(), note.into())
    }

    fn of(commit: &Commit) -> Result<Self, String> {
        let note = commit.notes.get(NOTE).ok_or("its manifest has no note of the program's")?;
        Self::read(note)
    }

    fn read(note: &[u8]) -> Result<Self, String> {
        let done = Codec::SERDE.read(note);
        done.map_err(|error| format!("its manifest cannot be read: {error}"))
    }
}

/// A program's snapshots, on one of its workers. All clones are one.
///
/// ```no_run
/// use std::time::Duration;
/// use timely_statefun::{SnapshotOptions, SnapshotPolicy, SnapshotStore, Snapshots};
///
/// let store = SnapshotStore::open("file:///var/lib/shop", SnapshotOptions::default())?;
/// let runtime = tokio::runtime::Builder::new_multi_thread().enable_time().build()?;
/// let handle = runtime.handle().clone();
/// timely::execute_from_args(std::env::args(), move |worker| {
///     let policy = SnapshotPolicy::new("shop").interval(Duration::from_secs(1));
///     let snapshots = Snapshots::<u64>::begin(worker, &store, &handle, &policy).expect("a store");
///     let orders = snapshots.positions("orders");
///     // Builds a dataflow whose source goes on after these positions, of functions that were given
///     // the snapshots.
/// # let _ = orders;
/// })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Snapshots<T: Timestamp> {
    inner: Rc<Inner<T>>,
}

struct Inner<T: Timestamp> {
    worker: usize,
    peers: usize,
    begun: Begun,
    commit: Option<Rc<Commit>>,
    restored: Option<SnapshotDone<T>>,
    policy: SnapshotPolicy,
    process: Arc<Process>,
    runtime: Handle,
    part_bytes: usize,
    pending_bytes_max: u64,
    control: CutControl<T>,
    state: RefCell<State<T>>,
}

/// What the sets of functions share. The first takes what there is one of.
struct State<T: Timestamp> {
    parts: Option<Parts>,
    keeper: Option<Keeper>,
    shared: Option<Shared<T>>,
    /// The names of the ingresses of all sets.
    ingresses: BTreeSet<String>,
    /// How news is held back between workers, if a test says so.
    #[cfg(feature = "testing")]
    delays: Option<timely_statefun_operators::Delays>,
}

struct Shared<T: Timestamp> {
    /// The dataflow that all sets are in.
    dataflow: usize,
    /// Those that belong to the loops, and end with them.
    scribe: Weak<RefCell<Scribe<T>>>,
    reading: Option<Weak<RefCell<Reading>>>,
    decider: Decider<T>,
}

impl<T: Timestamp> Snapshots<T> {
    /// Begins an execution of the program: chooses the snapshot that it goes on from, and claims the
    /// store, so that an older execution which still runs can do no more harm.
    ///
    /// All workers of all processes must call this, in the same order relative to the dataflows that they
    /// build, with stores of the same place. It returns when all of them know the same. Files are read and
    /// written on `runtime`, which must have a timer and live as long as the dataflow.
    ///
    /// # Errors
    ///
    /// The same on all workers: the store fails or belongs to another program; the snapshot that is wanted
    /// is missing, damaged or of a newer version (the error names the file, and
    /// [offers](SnapshotError::offered) an older one that is whole); another execution is just beginning.
    pub fn begin(
        worker: &mut Worker,
        store: &SnapshotStore,
        runtime: &Handle,
        policy: &SnapshotPolicy,
    ) -> Result<Self, SnapshotError> {
        let identity = Identity { program: policy.program.clone(), bins: BINS as u32 };
        let (from, verify) = (policy.restore.clone(), policy.verify);
        let beginning = {
            let (store, clock) = (store.clone(), policy.clock.clone());
            async move { store.begin(&identity, from, verify, clock.now_ms()).await }
        };
        let index = worker.index();
        let agreed = agree::agree(worker, runtime, beginning, |begun: &Begun| {
            let process = store.process(begun.execution, runtime, &policy.clock);
            let commit = begun.restores();
            let parts = commit.is_some().then(|| process.attach(index));
            (process, commit, parts)
        })?;
        let (begun, log, (process, commit, parts)) = agreed;
        let restored = match &commit {
            None => None,
            Some(commit) => Some(SnapshotDone::of(commit).map_err(|why| commit.damaged(why))?),
        };
        let keeper = log.map(|log| {
            let clock = policy.clock.clone();
            Keeper::start(runtime, store.clone(), log, move || clock.now_ms())
        });
        let inner = Inner {
            worker: worker.index(),
            peers: worker.peers(),
            begun,
            commit: commit.map(Rc::new),
            restored,
            policy: policy.clone(),
            process,
            runtime: runtime.clone(),
            part_bytes: store.options().part_bytes,
            pending_bytes_max: store.options().pending_bytes_max,
            control: CutControl::new(),
            state: RefCell::new(State {
                parts,
                keeper,
                shared: None,
                ingresses: BTreeSet::new(),
                #[cfg(feature = "testing")]
                delays: None,
            }),
        };
        Ok(Snapshots { inner: Rc::new(inner) })
    }

    /// What the program goes on from; `None` if it begins without a snapshot.
    pub fn restored(&self) -> Option<&SnapshotDone<T>> {
        self.inner.restored.as_ref()
    }

    /// The last position of each partition of an ingress that is restored. Empty if nothing is. A source
    /// goes on with what comes after these.
    pub fn positions(&self, ingress: &str) -> Positions {
        let restored = self.inner.restored.as_ref();
        restored.and_then(|done| done.positions.get(ingress)).cloned().unwrap_or_default()
    }

    /// The time before which no event happens after what is restored.
    pub(super) fn events_from(&self) -> Option<T> {
        self.inner.restored.as_ref().and_then(|done| done.events.clone())
    }

    /// The latest times of the ingress that is restored.
    pub(super) fn latest(&self) -> Vec<T> {
        self.inner.restored.as_ref().map_or_else(Vec::new, |done| done.latest.clone())
    }

    /// The number of this execution, which is above that of all before it.
    pub fn execution(&self) -> u64 {
        self.inner.begun.execution
    }

    /// How snapshots are getting on, as this process sees it.
    pub fn status(&self) -> SnapshotStatus {
        self.inner.process.uploads.status()
    }

    /// Asks for a snapshot, as soon as none is under way. Several requests meanwhile are one. Any
    /// worker may ask; it is forgotten if no functions are given these snapshots.
    pub fn request(&self) {
        self.tell(Scribe::ask);
    }

    /// Asks for a snapshot that contains exactly the ingress before a frontier: what is at a time that is not
    /// at or after an element of it. Any worker may ask, and one is enough; like a [request](Self::request) it
    /// is forgotten if no functions have been given these snapshots.
    ///
    /// From when it comes to be known on all workers, gates let in nothing at or after the frontier, and it is
    /// taken when all ingress of all workers has come to it. Meanwhile other snapshots are taken, and if an
    /// ingress never comes to it, it is taken when all have closed. Several are taken one after the other. Within
    /// a partition of an ingress, times must not go back. What is [chained](crate::Egresses::chained) follows
    /// from other ingress and is not held back.
    ///
    /// [`SnapshotDone::aligned`] says whether it came in time, which a frontier does that no ingress is near.
    /// One that is given up is not tried again. While a source waits until the [handle](crate::Handle) is ready,
    /// as many records as a gate's [credit](crate::Limits::gate_credit_records) may wait for the snapshot
    /// without it being less so; past that, ingress that has not come to the frontier must be fed all the same.
    pub fn request_aligned(&self, frontier: Antichain<T>) {
        self.tell(|scribe| scribe.ask_aligned(&frontier));
    }

    /// Asks for a snapshot with a name: a savepoint, of what all workers have done by now, and a little more.
    /// It is kept until it is [deleted](SnapshotStore::delete_savepoint), whatever comes after it, and a
    /// program may [begin with it](RestoreFrom::Savepoint). Until then it takes the place that it and what it
    /// builds upon have in the store.
    ///
    /// Any worker may ask, and one is enough. It is taken as soon as no other snapshot is under way; several
    /// are taken one after the other. What becomes of it is told [there](Savepoint::outcome).
    ///
    /// ```no_run
    /// # use timely_statefun::{Handle, Snapshots};
    /// # fn before_the_upgrade(
    /// #     worker: &mut timely::worker::Worker, snapshots: &Snapshots<u64>, handle: &Handle<u64>,
    /// # ) -> Result<(), Box<dyn std::error::Error>> {
    /// let savepoint = snapshots.savepoint("before-the-upgrade")?;
    /// handle.run_while(worker, || savepoint.outcome().is_none())?;
    /// let done = savepoint.outcome().expect("it was waited for")?;
    /// println!("cut {} is \"{}\"", done.cut, savepoint.name());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// If the name is [not valid](Error::is_invalid_name): like other names it is not empty, and has neither
    /// white space nor `*`. If no functions are given these snapshots, or they have
    /// [come to their end](Error::is_no_functions_in_snapshots).
    pub fn savepoint(&self, name: &str) -> Result<Savepoint<T>, Error> {
        self.ask_savepoint(name, false)
    }

    /// Asks for a [savepoint](Self::savepoint), and stops the program when it is durable: on all workers of
    /// all processes, `run` and its like then return a [`Stopped`](crate::Stopped) that
    /// [names it](crate::Stopped::at_savepoint).
    ///
    /// Nothing counts that is done after the savepoint. No later snapshot becomes durable, so whoever goes on
    /// from the savepoint does it again. Ingress is still let in until the program stops, and what leaves until
    /// then, at times that [`complete`](SnapshotDone::complete) does not cover, leaves again.
    ///
    /// If the savepoint comes to nothing, the program does not stop; if the program comes to its end at the
    /// same time, it ends as always.
    ///
    /// # Errors
    ///
    /// As above.
    pub fn stop_at_savepoint(&self, name: &str) -> Result<Savepoint<T>, Error> {
        self.ask_savepoint(name, true)
    }

    fn ask_savepoint(&self, name: &str, stops: bool) -> Result<Savepoint<T>, Error> {
        address::check_part("savepoint", name)?;
        let state = self.inner.state.borrow();
        let scribe = state.shared.as_ref().and_then(|shared| shared.scribe.upgrade());
        let scribe = scribe.ok_or(Kind::NothingToSave)?;
        let savepoint = scribe.borrow_mut().ask_savepoint(name, stops);
        Ok(savepoint)
    }

    fn tell(&self, tell: impl FnOnce(&Scribe<T>)) {
        let state = self.inner.state.borrow();
        if let Some(scribe) = state.shared.as_ref().and_then(|shared| shared.scribe.upgrade()) {
            tell(&scribe.borrow());
        }
    }

    /// Has news between workers held back on their way.
    #[cfg(feature = "testing")]
    pub(crate) fn hold_back(&self, delays: timely_statefun_operators::Delays) {
        self.inner.state.borrow_mut().delays = Some(delays);
    }

    /// Whether two are the same.
    pub(super) fn is(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.inner, &other.inner)
    }

    /// How much memory an open cut may take on a worker before ingress waits for the store.
    pub(super) fn memory_max(&self) -> usize {
        usize::try_from(self.inner.pending_bytes_max).unwrap_or(usize::MAX)
    }

    /// What files are read and written on.
    pub(super) fn runtime(&self) -> &Handle {
        &self.inner.runtime
    }

    /// Where what is restored names the delayed messages of this worker from here on.
    pub(super) fn origin(&self) -> Origin {
        Origin { execution: self.inner.begun.execution, worker: self.inner.worker as u32 }
    }

    /// A number below which all cuts were that were ever taken.
    pub(super) fn cuts_before(&self) -> u64 {
        self.inner.begun.first_cut - 1
    }

    /// Has a set of functions take part in all cuts.
    ///
    /// # Errors
    ///
    /// If it cannot any more, or a name is there already.
    pub(super) fn join<'scope>(
        &self,
        scope: Scope<'scope, T>,
        set: &str,
        ingresses: Vec<String>,
    ) -> Result<Cutting<'scope, T>, Error> {
        let mut state = self.inner.state.borrow_mut();
        let (twice, begun) = (
            |what, name| Error::from(Kind::TwiceInSnapshots { what, name }),
            || Error::from(Kind::SnapshotsBegun(set.to_owned())),
        );
        let mut names = BTreeSet::new();
        for name in ingresses {
            address::check_part("ingress", &name)?;
            if state.ingresses.contains(&name) || names.contains(&name) {
                return Err(twice("ingress", name));
            }
            names.insert(name);
        }
        let joined = match &state.shared {
            // While a dataflow is built nothing of it runs: no set of it has missed a cut.
            Some(shared) if shared.dataflow == scope.addr()[0] => {
                shared.joined().ok_or_else(begun)?
            }
            Some(_) => return Err(begun()),
            None => self.share(scope, &mut state),
        };
        let Joined { scribe, reading, decider } = joined;
        if scribe.borrow().set_names().iter().any(|name| name == set) {
            return Err(twice("functions", set.to_owned()));
        }
        let set = scribe.borrow_mut().join(set).ok_or_else(begun)?;
        if let Some(reading) = &reading {
            reading.borrow_mut().join();
        }
        state.ingresses.append(&mut names);
        let (bulletin, done) = bulletin(scope, "Snapshots");
        scribe.borrow_mut().tell_in(bulletin);
        let (snapshots, releases) = (self.clone(), None);
        Ok(Cutting { snapshots, scribe, set, reading, decider, releases, done })
    }

    /// Makes what all sets share.
    fn share(&self, scope: Scope<'_, T>, state: &mut State<T>) -> Joined<T> {
        let Inner { worker, peers, begun, policy, process, control, .. } = &*self.inner;
        #[cfg(feature = "testing")]
        let council = match &state.delays {
            Some(delays) => council_held_back(scope, "Snapshots", delays),
            None => council(scope, "Snapshots"),
        };
        #[cfg(not(feature = "testing"))]
        let council = council(scope, "Snapshots");
        let mut decider = Decider::new(control).deadline(Duration::MAX);
        if let Some(interval) = policy.interval {
            decider = decider.interval(interval);
        }
        let chair = state.keeper.take().map(|keeper| {
            let (control, deadline) = (control.clone(), policy.deadline);
            let held = self.inner.commit.as_ref().map_or(&[][..], |commit| &commit.held);
            let acknowledgements = Acknowledgements::new(policy.unacknowledged_cuts_max, held);
            let (place, clock) = ((*peers, begun.execution), policy.clock.clone());
            Chair::new(place, keeper, control, deadline, begun.base, clock, acknowledgements)
        });
        let (process, part_bytes) = (Arc::clone(process), self.inner.part_bytes);
        let execution = begun.execution;
        let scribe =
            Scribe::new(*worker, execution, process, part_bytes, council, chair, begun.base);
        let reading = state.parts.take().zip(self.inner.commit.clone()).map(|(parts, commit)| {
            let process = Arc::clone(&self.inner.process);
            Rc::new(RefCell::new(Reading::new(process, commit, parts)))
        });
        state.shared = Some(Shared {
            dataflow: scope.addr()[0],
            scribe: Rc::downgrade(&scribe),
            reading: reading.as_ref().map(Rc::downgrade),
            decider: decider.clone(),
        });
        Joined { scribe, reading, decider }
    }
}

/// What a set gets of what all share.
struct Joined<T: Timestamp> {
    scribe: Rc<RefCell<Scribe<T>>>,
    reading: Option<Rc<RefCell<Reading>>>,
    decider: Decider<T>,
}

impl<T: Timestamp> Shared<T> {
    /// For another set. `None` if the others are over.
    fn joined(&self) -> Option<Joined<T>> {
        let scribe = self.scribe.upgrade()?;
        let reading = match &self.reading {
            Some(reading) => Some(reading.upgrade()?),
            None => None,
        };
        Some(Joined { scribe, reading, decider: self.decider.clone() })
    }
}

impl<T: Timestamp> Clone for Snapshots<T> {
    fn clone(&self) -> Self {
        Snapshots { inner: Rc::clone(&self.inner) }
    }
}

impl<T: Timestamp> fmt::Debug for Snapshots<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshots")
            .field("execution", &self.inner.begun.execution)
            .field("restored", &self.inner.restored)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz::{fuzz, within};

    fn some_note() -> SnapshotDone<u64> {
        let positions = Positions::from([(0, 1), (7, u64::MAX), (300, 70_000)]);
        SnapshotDone {
            positions: BTreeMap::from([("log".to_owned(), positions), (String::new(), [].into())]),
            complete: vec![3, 1 << 40],
            latest: vec![1 << 41],
            events: Some(1 << 40),
            counts: SnapshotCounts { queued: 300, ..SnapshotCounts::default() },
            bytes: 9,
            aligned: Some(true),
            ..SnapshotDone::empty(7)
        }
    }

    /// A list of times that is only announced takes a MiB at most.
    #[test]
    fn any_bytes_are_a_note_or_an_error_and_are_written_in_one_way() {
        let inputs = [some_note(), SnapshotDone::empty(1)].map(|done| done.note().1.to_vec());
        assert_eq!(SnapshotDone::read(&inputs[0]), Ok(some_note()));
        fuzz("notes", 30_000, &inputs, |input| {
            let room = 64 * input.len() + (1 << 20);
            let read = within(room, || SnapshotDone::<u64>::read(input));
            let Ok(done) = read else { return false };
            assert_eq!(SnapshotDone::read(&done.note().1), Ok(done));
            true
        });
    }

    /// A later version may note what this one does not know. However deep that is nested, and whatever
    /// comes after a note, it ends no program: reading what is skipped took up to four MiB of a stack.
    #[test]
    fn what_is_nested_too_deep_in_a_note_or_comes_after_it_is_an_error() {
        let note = some_note().note().1;
        assert_eq!(note[0], 0x88, "eight fields");
        let with = |levels: usize| {
            let more = [&[0xa4][..], b"more", &vec![0x91; levels], &[0xc0]].concat();
            [&[0x89][..], &note[1..], &more].concat()
        };
        assert_eq!(SnapshotDone::read(&with(9)), Ok(some_note()));
        for levels in [1000, 1 << 20] {
            SnapshotDone::<u64>::read(&with(levels)).expect_err("nobody wrote that");
        }
        let longer = [&note[..], &[0]].concat();
        SnapshotDone::<u64>::read(&longer).expect_err("it goes on after its end");
    }

    /// A note as it was written before snapshots could be aligned.
    #[derive(Serialize)]
    struct Before {
        cut: u64,
        positions: BTreeMap<String, Positions>,
        complete: Vec<u64>,
        counts: SnapshotCounts,
        bytes: u64,
    }

    #[test]
    fn a_note_from_before_snapshots_could_be_aligned_is_read() {
        let before = Before {
            cut: 7,
            positions: BTreeMap::from([("log".to_owned(), Positions::from([(1, 2)]))]),
            complete: vec![3],
            counts: SnapshotCounts::default(),
            bytes: 9,
        };
        let note = rmp_serde::to_vec_named(&before).unwrap();
        let done: SnapshotDone<u64> = rmp_serde::from_slice(&note).unwrap();
        assert_eq!((done.cut, done.bytes, done.aligned), (7, 9, None));
        let aligned = SnapshotDone { aligned: Some(true), ..done };
        let note = aligned.note().1;
        assert_eq!(rmp_serde::from_slice::<SnapshotDone<u64>>(&note).unwrap(), aligned);
    }

    /// What waits no more was counted as what waits, so a snapshot without any message seemed to have some.
    #[test]
    fn a_delayed_message_that_is_over_is_not_counted_as_one() {
        let mut counts = SnapshotCounts::default();
        counts.count(RecordKind::Delayed, false);
        counts.count(RecordKind::Delayed, true);
        counts.count(RecordKind::State, true);
        let mut sum = counts;
        sum.add(counts);
        let expected = SnapshotCounts { delayed: 2, delayed_over: 2, state: 2, ..sum };
        assert_eq!((sum, sum.queued), (expected, 0));
    }

    /// Manifests of earlier versions say nothing of it.
    #[test]
    fn counts_that_were_written_before_are_read() {
        #[derive(Serialize)]
        struct Before {
            state: u64,
            in_flight: u64,
            retrying: u64,
            queued: u64,
            logged: u64,
            operations: u64,
            delayed: u64,
        }
        let before = Before {
            state: 1,
            in_flight: 2,
            retrying: 3,
            queued: 4,
            logged: 5,
            operations: 6,
            delayed: 7,
        };
        let note = rmp_serde::to_vec_named(&before).unwrap();
        let counts: SnapshotCounts = rmp_serde::from_slice(&note).unwrap();
        assert_eq!((counts.delayed, counts.delayed_over, counts.in_flight), (7, 0, 2));
    }
}

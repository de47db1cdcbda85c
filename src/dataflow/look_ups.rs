//! Look-ups into state from other threads, as of a time that is closed.
//!
//! Workers bring the changes of their addresses, each with how far its own frontier is. What has a stamp that
//! all of them have passed is applied, all of it under one lock, and what has not waits. So whoever looks sees
//! the state of one moment of the program's times, whatever the workers do meanwhile.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use timely::dataflow::Stream;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::Operator;
use timely::progress::{Antichain, Timestamp};

use crate::address::Id;
use crate::error::{Error, Kind};
use crate::placement;
use crate::watched::StateChange;

/// A look into a state that is [watched](crate::Functions::watched), for any thread: what it holds as of a time
/// that is closed, while the program runs.
///
/// It is made before the program, and each worker of this process attaches it with
/// [`Egresses::look_ups`](crate::Egresses::look_ups). It knows the addresses of these workers, and says of any
/// other that it is [not here](NotThere::is_elsewhere). So in a program of several processes each has look-ups of its
/// own, and asks that process for an address where it lives.
///
/// Keys and values are kept once more than by the functions themselves. A worker that has closed a time waits
/// for look-ups and scans that are under way, which take no longer than copying what they give.
///
/// ```
/// use timely::dataflow::operators::Input;
/// use timely_statefun::{Envelope, Function, Functions, FunctionType, LookUps, StatefulFunctions, ValueSpec};
///
/// const COUNTER: FunctionType<u64> = FunctionType::new("example/counter");
/// const TOTAL: ValueSpec<u64> = ValueSpec::new("total");
///
/// let totals = LookUps::new(2);
/// let look = totals.clone();
/// timely::execute(timely::Config::process(2), move |worker| {
///     let (mut input, handle) = worker.dataflow::<u64, _, _>(|scope| {
///         let (input, stream) = scope.new_input::<Vec<Envelope<u64>>>();
///         let counter = Function::new(|context, amount: &u64| {
///             context.update(TOTAL, |total| *total += amount);
///             Ok(())
///         });
///         let functions = Functions::new().embedded(COUNTER, counter.value(TOTAL)).watched(COUNTER, TOTAL);
///         let egresses = stream.stateful_functions(functions).expect("it is right");
///         egresses.look_ups(COUNTER, TOTAL, &totals).expect("it is watched");
///         (input, egresses.handle())
///     });
///     input.send(COUNTER.message("a", 1 + worker.index() as u64));
///     input.close();
///     handle.run(worker).expect("nothing fails");
/// })
/// .unwrap();
/// let total = look.get(&"a".into(), &()).expect("it is of this process");
/// assert_eq!(total.found, Some(3));
/// assert!(total.frontier.is_empty(), "no time is left");
/// ```
pub struct LookUps<K, V, T = u64> {
    shared: Arc<Shared<K, V, T>>,
}

struct Shared<K, V, T> {
    /// How many workers attach.
    workers: usize,
    state: RwLock<State<K, V, T>>,
}

struct State<K, V, T> {
    /// The workers that are attached.
    parts: Vec<Part<K, V, T>>,
    /// How many workers there are in all processes.
    peers: usize,
    /// What is closed on all workers.
    frontier: Arc<[T]>,
    contents: HashMap<Id, HashMap<K, V>>,
    raised: u64,
}

/// What one worker has brought.
struct Part<K, V, T> {
    worker: usize,
    frontier: Antichain<T>,
    /// Changes that are not closed on all workers, by stamp, each in the order in which they came.
    waiting: BTreeMap<T, Vec<Entry<K, V>>>,
}

/// What an entry of an address becomes.
type Entry<K, V> = (Id, K, Option<V>);

/// What was found, and as of when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AsOf<X, T = u64> {
    /// What was found.
    pub found: X,
    /// It is what follows from all changes whose [stamps](StateChange::stamp) are not at or after an element of
    /// this frontier, and from no other. Empty when the program is over.
    pub frontier: Arc<[T]>,
}

/// What comes of a look-up.
pub type LookedUp<X, T = u64> = Result<AsOf<X, T>, NotThere>;

/// Why a look-up finds nothing out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(transparent)]
pub struct NotThere(#[from] Absence);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum Absence {
    #[error("{attached} of {workers} workers are attached")]
    NotYet { attached: usize, workers: usize },
    #[error("the address lives on worker {0}, which is of another process")]
    Elsewhere(usize),
}

impl NotThere {
    /// Not all workers that are waited for have attached yet.
    pub fn is_not_yet(&self) -> bool {
        matches!(self.0, Absence::NotYet { .. })
    }

    /// The address lives in another process.
    pub fn is_elsewhere(&self) -> bool {
        matches!(self.0, Absence::Elsewhere(_))
    }
}

impl<K, V, T> LookUps<K, V, T>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    T: Timestamp + Sync,
{
    /// Look-ups that so many workers attach, all that this process has. Until they have, nothing is found out.
    pub fn new(workers: usize) -> Self {
        let (parts, contents) = (Vec::new(), HashMap::new());
        let frontier = [T::minimum()].into();
        let state = RwLock::new(State { parts, peers: 0, frontier, contents, raised: 0 });
        LookUps { shared: Arc::new(Shared { workers, state }) }
    }

    /// What an entry of an address holds. The key of a value is `()`.
    ///
    /// # Errors
    ///
    /// If not all workers have attached yet, or the address lives in another process.
    pub fn get(&self, id: &Id, key: &K) -> LookedUp<Option<V>, T> {
        let state = self.of(id)?;
        let found = state.contents.get(id).and_then(|entries| entries.get(key)).cloned();
        Ok(AsOf { found, frontier: Arc::clone(&state.frontier) })
    }

    /// All entries of an address, in any order.
    ///
    /// # Errors
    ///
    /// As for [`get`](Self::get).
    pub fn entries(&self, id: &Id) -> LookedUp<Vec<(K, V)>, T> {
        let state = self.of(id)?;
        let entries = state.contents.get(id).into_iter().flatten();
        let found = entries.map(|(key, value)| (key.clone(), value.clone())).collect();
        Ok(AsOf { found, frontier: Arc::clone(&state.frontier) })
    }

    /// All entries of all addresses of this process for which something holds, in any order, and all as of one
    /// time. No time is closed until it has been asked of each: it should be quick.
    ///
    /// # Errors
    ///
    /// If not all workers have attached yet.
    pub fn scan(&self, mut holds: impl FnMut(&Id, &K, &V) -> bool) -> LookedUp<Vec<(Id, K, V)>, T> {
        let state = self.complete()?;
        let mut found = Vec::new();
        for (id, entries) in &state.contents {
            for (key, value) in entries.iter().filter(|(key, value)| holds(id, key, value)) {
                found.push((id.clone(), key.clone(), value.clone()));
            }
        }
        Ok(AsOf { found, frontier: Arc::clone(&state.frontier) })
    }

    /// The frontier of what is closed: what a look-up would be as of.
    ///
    /// # Errors
    ///
    /// If not all workers have attached yet.
    pub fn frontier(&self) -> Result<Arc<[T]>, NotThere> {
        Ok(Arc::clone(&self.complete()?.frontier))
    }

    /// How many changes have had a stamp that was raised beyond the time of their message.
    pub fn raised(&self) -> u64 {
        self.read().raised
    }

    // Whoever panics while it looks has changed nothing, and a worker that panics while it brings changes is one
    // that does not run any more: what is there is whole or is not gone on with.
    fn read(&self) -> RwLockReadGuard<'_, State<K, V, T>> {
        self.shared.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State<K, V, T>> {
        self.shared.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn complete(&self) -> Result<RwLockReadGuard<'_, State<K, V, T>>, NotThere> {
        let state = self.read();
        let (attached, workers) = (state.parts.len(), self.shared.workers);
        match attached == workers {
            true => Ok(state),
            false => Err(Absence::NotYet { attached, workers }.into()),
        }
    }

    /// What there is, if it is what is known of an address.
    fn of(&self, id: &Id) -> Result<RwLockReadGuard<'_, State<K, V, T>>, NotThere> {
        let state = self.complete()?;
        let worker = (placement::bin(placement::hash(id)) % state.peers as u64) as usize;
        match state.parts.iter().any(|part| part.worker == worker) {
            true => Ok(state),
            false => Err(Absence::Elsewhere(worker).into()),
        }
    }

    /// Attaches a worker, of so many in all processes.
    pub(super) fn attach(
        &self,
        (worker, peers): (usize, usize),
        changes: Stream<'_, T, Vec<StateChange<K, V, T>>>,
        name: &str,
    ) -> Result<(), Error> {
        let mut state = self.write();
        let workers = self.shared.workers;
        if state.parts.len() >= workers || state.parts.iter().any(|part| part.worker == worker) {
            return Err(Kind::LookUpsTaken { worker, workers }.into());
        }
        let at = state.parts.len();
        let frontier = Antichain::from_elem(T::minimum());
        state.parts.push(Part { worker, frontier, waiting: BTreeMap::new() });
        state.peers = peers;
        drop(state);
        let (look_ups, mut came) = (self.clone(), Vec::new());
        let mut last = Antichain::from_elem(T::minimum());
        changes.sink(Pipeline, name, move |(input, frontier)| {
            input.for_each(|_, changes| came.append(changes));
            let frontier = frontier.frontier();
            if *frontier != *last.elements() {
                last = frontier.to_owned();
                look_ups.write().bring(at, &mut came, &last);
            }
        });
        Ok(())
    }
}

impl<K: Hash + Eq, V, T: Timestamp> State<K, V, T> {
    /// Brings changes of a worker, and how far it is.
    fn bring(&mut self, at: usize, came: &mut Vec<StateChange<K, V, T>>, frontier: &Antichain<T>) {
        let part = &mut self.parts[at];
        for StateChange { id, key, new, stamp, is_raised, .. } in came.drain(..) {
            self.raised += u64::from(is_raised);
            part.waiting.entry(stamp).or_default().push((id, key, new));
        }
        part.frontier.clone_from(frontier);
        let mut closed = Antichain::new();
        for part in &self.parts {
            closed.extend(part.frontier.iter().cloned());
        }
        // An entry's changes come one after the other in the order of their stamps.
        for part in &mut self.parts {
            part.waiting.retain(|stamp, changes| {
                if closed.less_equal(stamp) {
                    return true;
                }
                changes.drain(..).for_each(|change| apply(&mut self.contents, change));
                false
            });
        }
        if *self.frontier != *closed.elements() {
            self.frontier = closed.elements().into();
        }
    }
}

fn apply<K: Hash + Eq, V>(contents: &mut HashMap<Id, HashMap<K, V>>, change: Entry<K, V>) {
    match change {
        (id, key, Some(value)) => {
            contents.entry(id).or_default().insert(key, value);
        }
        (id, key, None) => {
            let Some(entries) = contents.get_mut(&id) else { return };
            entries.remove(&key);
            if entries.is_empty() {
                contents.remove(&id);
            }
        }
    }
}

impl<K, V, T> Clone for LookUps<K, V, T> {
    fn clone(&self) -> Self {
        LookUps { shared: Arc::clone(&self.shared) }
    }
}

impl<K, V, T> fmt::Debug for LookUps<K, V, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LookUps").field("workers", &self.shared.workers).finish_non_exhaustive()
    }
}

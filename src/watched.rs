//! State that is watched: which state can be, what is told of each change of it, and when it changes.
//!
//! Functions may handle messages in the order of their arrival, and so write an entry at an earlier time than
//! before. A collection must not do that: two values of one key would be there at once. So a change has a
//! *stamp*, the join of its message's time and the stamp of the change before of the same entry. Then at every
//! time a key has at most one value, and finally it has the right one.

use std::any::Any;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::hash::Hash;
use std::rc::Rc;

use differential_dataflow::lattice::Lattice;
use serde::{Deserialize, Serialize};
use timely::progress::Timestamp;

use crate::address::Id;
use crate::dispatch::ErasedChanges;
use crate::state::{Change, Watched};
use crate::table::TableSpec;
use crate::value::ValueSpec;

/// State whose changes can be [watched](crate::Functions::watched): a [`ValueSpec`] or a [`TableSpec`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be watched",
    label = "neither a `ValueSpec` nor a `TableSpec` whose keys and values are `Clone`"
)]
pub trait Watchable: sealed::Watchable<Self::Key, Self::Value> {
    /// What tells the entries of one address apart: the keys of a table, `()` for a value.
    type Key: Clone + Hash + Eq + 'static;
    /// What an entry holds.
    type Value: Clone + 'static;
}

impl<V: Clone + 'static> Watchable for ValueSpec<V> {
    type Key = ();
    type Value = V;
}

impl<K: Hash + Eq + Clone + 'static, V: Clone + 'static> Watchable for TableSpec<K, V> {
    type Key = K;
    type Value = V;
}

/// What only this crate can implement.
pub(crate) mod sealed {
    use super::{Hash, TableSpec, ValueSpec, Watched};

    /// A state with its types forgotten.
    pub struct Erased(pub(crate) Watched);

    pub trait Watchable<K, V> {
        fn name(&self) -> &'static str;
        fn erased(&self) -> Erased;
    }

    impl<V: Clone + 'static> Watchable<(), V> for ValueSpec<V> {
        fn name(&self) -> &'static str {
            ValueSpec::name(self)
        }
        fn erased(&self) -> Erased {
            Erased(Watched::value(*self))
        }
    }

    impl<K: Hash + Eq + Clone + 'static, V: Clone + 'static> Watchable<K, V> for TableSpec<K, V> {
        fn name(&self) -> &'static str {
            TableSpec::name(self)
        }
        fn erased(&self) -> Erased {
            Erased(Watched::table(*self))
        }
    }
}

/// One change of one entry of a state that is [watched](crate::Functions::watched).
///
/// It travels at the time of the message that caused it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateChange<K, V, T = u64> {
    /// The id of the address.
    pub id: Id,
    /// Which entry of the address: a key of a table, `()` for a value.
    pub key: K,
    /// What it held before; none if it was not there.
    pub old: Option<V>,
    /// What it holds now; none if it is there no more.
    pub new: Option<V>,
    /// When it changes: the join of the time of the message that caused it and the stamp of the entry's change
    /// before.
    pub stamp: T,
    /// Whether that is later than the time of the message.
    pub is_raised: bool,
}

/// What is told of each change of a state.
pub type ChangeOf<S, T = u64> = StateChange<<S as Watchable>::Key, <S as Watchable>::Value, T>;

/// An entry of a state in a collection: the id of the address, the key, and what is held.
pub type EntryOf<S> = (Id, <S as Watchable>::Key, <S as Watchable>::Value);

/// A state that is watched.
pub(crate) struct WatchedState<T> {
    /// What the core knows of it.
    pub(crate) changes: ErasedChanges<T>,
    stamper: fn() -> Box<dyn Stamp<T>>,
}

impl<T> Clone for WatchedState<T> {
    fn clone(&self) -> Self {
        WatchedState { changes: self.changes.clone(), stamper: self.stamper }
    }
}

impl<T: Timestamp + Lattice> WatchedState<T> {
    pub(crate) fn new<S: Watchable>(function: &'static str, spec: S) -> Self {
        let sealed::Erased(state) = spec.erased();
        WatchedState {
            changes: ErasedChanges::new::<S::Key, S::Value>(function, state),
            stamper: || Box::new(Stamps::<S::Key, S::Value, T>::default()),
        }
    }
}

impl<T> WatchedState<T> {
    /// What gives its changes their stamps, in their order.
    pub(crate) fn stamper(&self) -> Box<dyn Stamp<T>> {
        (self.stamper)()
    }

    /// Whether it is this one.
    pub(crate) fn is(&self, function: &str, state: &str) -> bool {
        self.changes.function == function && self.changes.state.name() == state
    }
}

/// Gives changes their stamps, whatever the types of what changes.
pub(crate) trait Stamp<T> {
    /// Makes of a `Vec` of changes, of one time, a `Vec` of [`StateChange`]s. All that come later are at or after
    /// an element of the frontier, as these are.
    fn stamp(&mut self, time: &T, frontier: &[T], changes: Box<dyn Any>) -> Rc<dyn Any>;
    /// Forgets stamps that can raise no other any more.
    fn pass(&mut self, frontier: &[T]);
}

/// The latest stamps of entries that changed at a time that later changes may not be after.
struct Stamps<K, V, T> {
    last: HashMap<(Id, K), T>,
    /// The entries of each such stamp, and some that have a later one by now.
    entries: BTreeMap<T, Vec<(Id, K)>>,
    value: std::marker::PhantomData<fn(V)>,
}

impl<K, V, T> Default for Stamps<K, V, T> {
    fn default() -> Self {
        let (last, entries) = (HashMap::new(), BTreeMap::new());
        Stamps { last, entries, value: std::marker::PhantomData }
    }
}

/// Whether all that is still to come is at or after a time.
fn is_passed<T: Timestamp>(time: &T, frontier: &[T]) -> bool {
    frontier.iter().all(|element| time.less_equal(element))
}

impl<K: Hash + Eq + Clone + 'static, V: 'static, T: Timestamp + Lattice> Stamp<T>
    for Stamps<K, V, T>
{
    fn stamp(&mut self, time: &T, frontier: &[T], changes: Box<dyn Any>) -> Rc<dyn Any> {
        let changes = changes.downcast::<Vec<Change<K, V>>>();
        let changes = changes.expect("a state's changes are of one type");
        let at_once = is_passed(time, frontier);
        let stamped = changes.into_iter().map(|Change { id, key, old, new }| {
            // The most frequent case costs nothing: whatever comes later is not earlier.
            if at_once && self.last.is_empty() {
                let stamp = time.clone();
                return StateChange { id, key, old, new, stamp, is_raised: false };
            }
            let entry = (id, key);
            let stamp = match self.last.get(&entry) {
                Some(last) => last.join(time),
                None => time.clone(),
            };
            if is_passed(&stamp, frontier) {
                self.last.remove(&entry);
            } else if self.last.insert(entry.clone(), stamp.clone()).as_ref() != Some(&stamp) {
                self.entries.entry(stamp.clone()).or_default().push(entry.clone());
            }
            let (is_raised, (id, key)) = (stamp != *time, entry);
            StateChange { id, key, old, new, stamp, is_raised }
        });
        Rc::new(stamped.collect::<Vec<_>>())
    }

    fn pass(&mut self, frontier: &[T]) {
        let last = &mut self.last;
        self.entries.retain(|stamp, entries| {
            if !is_passed(stamp, frontier) {
                return true;
            }
            for entry in entries {
                if last.get(entry) == Some(stamp) {
                    last.remove(entry);
                }
            }
            false
        });
    }
}

impl<T> fmt::Debug for WatchedState<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WatchedState({:?}, {:?})", self.changes.function, self.changes.state.name())
    }
}

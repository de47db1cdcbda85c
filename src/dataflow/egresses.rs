//! What leaves the functions, as streams of the egresses' own types.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use differential_dataflow::Data;
use differential_dataflow::difference::Semigroup;
use differential_dataflow::lattice::Lattice;
use differential_dataflow::{AsCollection, VecCollection};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::Stream;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::dataflow::operators::generic::{Operator, OutputBuilder};
use timely::progress::Timestamp;
use timely::progress::operate::FrontierInterest;
use timely_statefun_operators::CutMarks;

use super::changes::{self, Stamped};
use super::handler::Chains;
use super::ingress::{ComesBack, Ingress};
use super::{Handle, Held, LookUps, Releases, SnapshotDone, Snapshots};
use crate::address::FunctionType;
use crate::dead_letter::DeadLetter;
#[cfg(feature = "testing")]
use crate::dispatch::Holding;
use crate::dispatch::{Batch, ErasedEgress, Loads};
use crate::egress::Egress;
use crate::error::{Error, Kind};
use crate::message::Envelope;
use crate::watched::{ChangeOf, EntryOf, Watchable, WatchedState};

const DEAD_LETTERS: &str = "timely-statefun/dead-letters";
const SNAPSHOTS: &str = "timely-statefun/snapshots";

/// The egress of dead letters, which every set of functions has.
pub(super) fn dead_letters<M>() -> Egress<DeadLetter<M>> {
    Egress::new(DEAD_LETTERS)
}

/// What is told of snapshots.
type Done<'scope, T> = Stream<'scope, T, Vec<SnapshotDone<T>>>;

/// What a set that is cut has besides: its snapshots, what it holds, what it feeds, what is told of snapshots.
pub(super) type Cut<'scope, T> = (Snapshots<T>, Option<Rc<Releases<T>>>, Chains, Done<'scope, T>);

/// One egress, not yet taken.
pub(crate) type Batches<'scope, T> = Stream<'scope, T, Vec<Batch>>;

/// What leaves a set of functions, and the handle on it.
pub struct Egresses<'scope, T: Timestamp, M> {
    parts: RefCell<Vec<Option<Batches<'scope, T>>>>,
    bound: Vec<ErasedEgress<T>>,
    watched: Vec<WatchedState<T>>,
    /// The changes of each, once somebody has asked for them.
    stamped: RefCell<Vec<Option<Stamped<'scope, T>>>>,
    dead_letters_read: Rc<Cell<bool>>,
    handle: Handle<T>,
    loads: Loads,
    /// If snapshots are taken.
    cutting: Option<(Snapshots<T>, Chains)>,
    /// If something is held.
    releases: Option<Rc<Releases<T>>>,
    snapshots: RefCell<Option<Done<'scope, T>>>,
    message: std::marker::PhantomData<fn() -> M>,
}

impl<'scope, T: Timestamp, M: 'static> Egresses<'scope, T, M> {
    pub(super) fn new(
        parts: Vec<Batches<'scope, T>>,
        bound: Vec<ErasedEgress<T>>,
        watched: Vec<WatchedState<T>>,
        dead_letters_read: Rc<Cell<bool>>,
        (handle, loads): (Handle<T>, Loads),
        snapshots: Option<Cut<'scope, T>>,
    ) -> Self {
        let parts = RefCell::new(parts.into_iter().map(Some).collect());
        let (cutting, releases, snapshots) = match snapshots {
            Some((snapshots, releases, chains, done)) => {
                (Some((snapshots, chains)), releases, Some(done))
            }
            None => (None, None, None),
        };
        let (snapshots, message) = (RefCell::new(snapshots), std::marker::PhantomData);
        let stamped = RefCell::new(watched.iter().map(|_| None).collect());
        Egresses {
            parts,
            bound,
            watched,
            stamped,
            dead_letters_read,
            handle,
            loads,
            cutting,
            releases,
            snapshots,
            message,
        }
    }

    /// The records of an egress, each at the ingress time that caused it. Each egress can be taken
    /// once; the stream can be cloned.
    ///
    /// # Errors
    ///
    /// If the egress is not bound, was bound with another type, is [held](Self::held), or was taken before.
    pub fn stream<E: 'static>(
        &self,
        egress: Egress<E>,
    ) -> Result<Stream<'scope, T, Vec<E>>, Error> {
        self.take(self.number(egress)?, egress.name())
    }

    /// The records of an egress that is [held](crate::Functions::held_egress), each of which leaves when the cut
    /// is durable that contains what caused it. Each egress can be taken once.
    ///
    /// # Errors
    ///
    /// If the egress is not bound, was bound with another type, is not held, or was taken before.
    pub fn held<E: 'static>(&self, egress: Egress<E>) -> Result<Held<'scope, T, E>, Error> {
        let (at, name) = (self.number(egress)?, egress.name());
        let not_held = || Kind::NotHeld(name.to_owned());
        self.bound[at].holding.ok_or_else(not_held)?;
        let cutting = self.cutting.as_ref().zip(self.releases.clone());
        let ((snapshots, _), releases) = cutting.ok_or_else(not_held)?;
        let part = self.parts.borrow_mut()[at].take();
        let batches = part.ok_or_else(|| Kind::EgressTaken(name.to_owned()))?;
        Ok(Held::new(batches, releases, at, name, snapshots.runtime().clone()))
    }

    /// How many records are held on this worker now.
    pub fn records_held(&self) -> usize {
        self.releases.as_ref().map_or(0, |releases| releases.held())
    }

    /// The number of an egress of this type.
    fn number<E: 'static>(&self, egress: Egress<E>) -> Result<usize, Error> {
        let name = egress.name();
        let Some(at) = self.bound.iter().position(|bound| bound.name == name) else {
            return Err(Kind::UnknownEgress(name.to_owned()).into());
        };
        let (bound, asked) = (self.bound[at].type_name, std::any::type_name::<E>());
        if !self.bound[at].carries::<E>() {
            return Err(Kind::EgressType { egress: name.to_owned(), bound, asked }.into());
        }
        Ok(at)
    }

    /// An egress as an ingress of other functions, which take part in the same snapshots: a snapshot contains
    /// each record on exactly one side, so nothing is lost or handled twice between them. `envelope` says for
    /// whom a record is, and must not depend on anything else.
    ///
    /// With other operators in between, or none but [`stream`](Self::stream), that would not be so, since nobody
    /// could tell on which side of a cut a record is: then the ingress must be
    /// [replayed](crate::Snapshots::replayed).
    ///
    /// When the other functions have no room, records wait before them, and those that were emitted before a cut are
    /// let in when the cut is taken. So a source should wait until the [handles](Self::handle) of both are ready.
    ///
    /// # Errors
    ///
    /// As for [`stream`](Self::stream), and if snapshots are taken and the records of the egress are
    /// [kept](crate::Functions::persisted_egress): those come again after a restart.
    pub fn chained<E: 'static, N: 'static>(
        &self,
        egress: Egress<E>,
        envelope: impl FnMut(E) -> Envelope<N> + 'static,
    ) -> Result<Ingress<'scope, T, N>, Error> {
        let (at, name) = (self.number(egress)?, egress.name());
        if self.cutting.is_some() && self.bound[at].keeping.is_some() {
            return Err(Kind::KeptAndChained(name.to_owned()).into());
        }
        let envelopes = each(self.take(at, name)?, &format!("Chain [{name}]"), envelope);
        Ok(match &self.cutting {
            None => envelopes.into(),
            Some((snapshots, chains)) => {
                let marks = CutMarks::new();
                chains.borrow_mut().push((at, marks.clone()));
                snapshots.ingress(name.to_owned(), ComesBack::Emitted(marks), envelopes)
            }
        })
    }

    /// An egress of changes, `(data, difference)`, as a differential collection: each change happens
    /// at the ingress time that caused it.
    ///
    /// # Errors
    ///
    /// As for [`stream`](Self::stream).
    pub fn collection<D, R>(
        &self,
        egress: Egress<(D, R)>,
    ) -> Result<VecCollection<'scope, T, D, R>, Error>
    where
        T: Lattice,
        D: Data,
        R: Semigroup + 'static,
    {
        let changes = self.stream(egress)?;
        let name = format!("Collection [{}]", egress.name());
        Ok(stamp(changes, &name).as_collection())
    }

    /// An egress of changes that say themselves when they happen, `(data, time, difference)`, as a
    /// differential collection. `time` must not be before the message's own.
    ///
    /// Functions that handle messages in the order of their arrival use this: a change that follows
    /// another of the same data at an earlier time can be given the later of the two times.
    ///
    /// # Errors
    ///
    /// As for [`stream`](Self::stream).
    pub fn updates<D, R>(
        &self,
        egress: Egress<(D, T, R)>,
    ) -> Result<VecCollection<'scope, T, D, R>, Error>
    where
        T: Lattice,
        D: Data,
        R: Semigroup + 'static,
    {
        Ok(self.stream(egress)?.as_collection())
    }

    /// The changes of a state that is [watched](crate::Functions::watched), on the worker where its address lives,
    /// in the order in which they happened.
    ///
    /// Each travels at the time of the message that caused it, and says by its [stamp](crate::StateChange::stamp) when it
    /// happens to its entry, which may be later: an entry never changes before its last change. One invocation
    /// changes an entry once, whatever it does with it; one that fails changes nothing. What
    /// [expires](crate::Expiration) changes at the time of an event soon after, as a delayed message would.
    ///
    /// After a restart the contents come first, at the minimum time, as if they had just come into being.
    ///
    /// # Errors
    ///
    /// If the state is not watched, or with other types.
    pub fn changes<I, S: Watchable>(
        &self,
        of: FunctionType<I>,
        state: S,
    ) -> Result<Stream<'scope, T, Vec<ChangeOf<S, T>>>, Error> {
        let (stamped, name) = self.stamped(of.as_str(), &state)?;
        Ok(changes::changes(stamped, &format!("Changes [{name}]")))
    }

    /// What a state that is [watched](crate::Functions::watched) holds, as a differential collection of the id of
    /// the address, the key of the entry, `()` for a value, and what it holds.
    ///
    /// At every time a key has at most one value, and finally the right one. It is what the state was when all
    /// messages up to that time had been handled, and none later, if the program handles messages in
    /// [the order of time](crate::Order::Time), or gives ingress of a time only after all before has been handled.
    /// Otherwise a message of a later time may have been handled before one of an earlier, and a change then is
    /// where the [stamps](crate::StateChange::stamp) put it.
    ///
    /// # Errors
    ///
    /// As for [`changes`](Self::changes).
    pub fn state<I, S>(
        &self,
        of: FunctionType<I>,
        state: S,
    ) -> Result<VecCollection<'scope, T, EntryOf<S>, isize>, Error>
    where
        T: Lattice,
        S: Watchable<Key: Data, Value: Data>,
    {
        let name = format!("State [{} {}]", of.as_str(), state.name());
        Ok(changes::collection(self.changes(of, state)?, &name))
    }

    /// Attaches look-ups to a state that is [watched](crate::Functions::watched), on this worker.
    ///
    /// # Errors
    ///
    /// As for [`changes`](Self::changes), and if this worker has attached them, or as many as there are to be.
    pub fn look_ups<I, S>(
        &self,
        of: FunctionType<I>,
        state: S,
        look_ups: &LookUps<S::Key, S::Value, T>,
    ) -> Result<(), Error>
    where
        T: Sync,
        S: Watchable<Key: Send + Sync, Value: Send + Sync>,
    {
        let name = format!("Look-ups [{} {}]", of.as_str(), state.name());
        let changes = self.changes(of, state)?;
        let place = (changes.scope().index(), changes.scope().peers());
        look_ups.attach(place, changes, &name)
    }

    fn stamped<S: Watchable>(
        &self,
        function: &str,
        spec: &S,
    ) -> Result<(Stamped<'scope, T>, String), Error> {
        let state = spec.name();
        let is_it = |watched: &WatchedState<T>| {
            watched.is(function, state) && watched.changes.are_of::<S::Key, S::Value>()
        };
        let Some(at) = self.watched.iter().position(is_it) else {
            let (function, state) = (function.to_owned(), state.to_owned());
            return Err(Kind::NotWatched { function, state }.into());
        };
        let name = format!("{function} {state}");
        Ok((self.stamped_at(at, &name), name))
    }

    /// The changes of the state with this number, for as many as want them.
    fn stamped_at(&self, at: usize, name: &str) -> Stamped<'scope, T> {
        let mut stamped = self.stamped.borrow_mut();
        let stamped = stamped[at].get_or_insert_with(|| {
            let part = self.parts.borrow_mut()[self.bound.len() + 1 + at].take();
            let part = part.expect("nobody else takes it");
            changes::stamped(part, &format!("Stamps [{name}]"), self.watched[at].stamper())
        });
        stamped.clone()
    }

    /// The changes of all states that are watched, with the names of the function type and the state.
    #[cfg(feature = "testing")]
    pub(crate) fn all_changes(&self) -> Vec<((&'static str, String), Stamped<'scope, T>)> {
        let all = self.watched.iter().enumerate().map(|(at, watched)| {
            let (function, state) = (watched.changes.function, watched.changes.state.name());
            let stamped = self.stamped_at(at, &format!("{function} {state}"));
            ((function, state.to_owned()), stamped)
        });
        all.collect()
    }

    /// The messages that were given up, each at its ingress time. While nobody takes them, they are
    /// reported as warnings through `tracing`.
    ///
    /// # Errors
    ///
    /// If they were taken before.
    pub fn dead_letters(&self) -> Result<Stream<'scope, T, Vec<DeadLetter<M>>>, Error> {
        let letters = self.take(self.bound.len(), DEAD_LETTERS)?;
        self.dead_letters_read.set(true);
        Ok(letters)
    }

    /// What is told of each snapshot when it is durable, on worker 0. The frontier of this stream is
    /// [complete](SnapshotDone::complete): what was emitted at a time that it has passed is in a durable
    /// cut, and is not emitted again after a restart.
    ///
    /// # Errors
    ///
    /// If no snapshots are taken, or it was taken before. Each set of functions has it, where several share
    /// snapshots.
    pub fn snapshots(&self) -> Result<Stream<'scope, T, Vec<SnapshotDone<T>>>, Error> {
        let snapshots = self.snapshots.borrow_mut().take();
        Ok(snapshots.ok_or_else(|| Kind::EgressTaken(SNAPSHOTS.to_owned()))?)
    }

    /// The handle on the functions that these egresses leave.
    pub fn handle(&self) -> Handle<T> {
        self.handle.clone()
    }

    /// How the load of this worker is spread, at any time while the program runs.
    pub fn bin_loads(&self) -> BinLoads {
        BinLoads(self.loads.clone())
    }

    /// The egresses that were not taken, with their names.
    #[cfg(feature = "testing")]
    pub(crate) fn rest(&self) -> Vec<(&'static str, Batches<'scope, T>)> {
        let mut parts = self.parts.borrow_mut();
        let rest = self.bound.iter().zip(parts.iter_mut()).filter_map(|(egress, part)| {
            let part = part.take()?;
            let part = match egress.holding {
                Some(holding) => bare(part, holding),
                None => part,
            };
            Some((egress.name, part))
        });
        rest.collect()
    }

    fn take<E: 'static>(
        &self,
        at: usize,
        name: &'static str,
    ) -> Result<Stream<'scope, T, Vec<E>>, Error> {
        if self.bound.get(at).is_some_and(|egress| egress.holding.is_some()) {
            return Err(Kind::Held(name.to_owned()).into());
        }
        let part = self.parts.borrow_mut()[at].take();
        let part = part.ok_or_else(|| Kind::EgressTaken(name.to_owned()))?;
        Ok(unpack(part, name))
    }
}

/// How many messages the bins of one worker have had, since this execution began: a hot address makes its bin
/// heavier than others. Clones are the same.
///
/// ```
/// use timely::dataflow::operators::ToStream;
/// use timely_statefun::{Function, FunctionType, Functions, StatefulFunctions};
///
/// const PERSON: FunctionType<u64> = FunctionType::new("example/person");
///
/// timely::execute_directly(|worker| {
///     let (handle, loads) = worker.dataflow::<u64, _, _>(|scope| {
///         let person = Function::new(|_, _| Ok(()));
///         let functions: Functions<u64> = Functions::new().embedded(PERSON, person);
///         let messages = [PERSON.message("Ada", 1), PERSON.message("Ada", 2), PERSON.message("Bob", 3)];
///         let egresses = messages.to_stream(scope).stateful_functions(functions).unwrap();
///         (egresses.handle(), egresses.bin_loads())
///     });
///     handle.run(worker).unwrap();
///     let [(heaviest, two), (_, one)] = loads.heaviest(3)[..] else { panic!("two bins") };
///     assert_eq!((two, one, loads.all()[usize::from(heaviest)]), (2, 1, 2));
/// });
/// ```
#[derive(Clone)]
pub struct BinLoads(Loads);

impl BinLoads {
    /// The messages that each of the [`BINS`](crate::BINS) bins has had on this worker.
    pub fn all(&self) -> Vec<u64> {
        self.0.totals().collect()
    }

    /// So many bins that have had most messages, heaviest first, each with how many. Bins without any are not
    /// among them.
    pub fn heaviest(&self, bins: usize) -> Vec<(u16, u64)> {
        let mut loads: Vec<_> = (0..).zip(self.0.totals()).filter(|(_, load)| *load > 0).collect();
        loads.sort_unstable_by_key(|(bin, load)| (std::cmp::Reverse(*load), *bin));
        loads.truncate(bins);
        loads
    }
}

impl std::fmt::Debug for BinLoads {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BinLoads").field("heaviest", &self.heaviest(3)).finish_non_exhaustive()
    }
}

/// Batches of one egress as records of its type, in order.
fn unpack<'scope, T: Timestamp, E: 'static>(
    batches: Batches<'scope, T>,
    name: &str,
) -> Stream<'scope, T, Vec<E>> {
    let mut builder = OperatorBuilder::new(format!("Egress [{name}]"), batches.scope());
    let mut input = builder.new_input(batches, Pipeline);
    builder.set_notify_for(0, FrontierInterest::Never);
    let (output, records) = builder.new_output::<Vec<E>>();
    let mut output: OutputBuilder<T, CapacityContainerBuilder<Vec<E>>> =
        OutputBuilder::from(output);
    builder.build(move |_| {
        move |_| {
            let mut output = output.activate();
            input.for_each(|capability, batches| {
                let mut session = output.session(&capability);
                for batch in batches.drain(..) {
                    let records = batch.records.downcast::<Vec<E>>();
                    let mut records = records.expect("an egress carries one type");
                    session.give_container(&mut records);
                }
            });
        }
    });
    records
}

/// Batches of an egress that is held as if it were not.
#[cfg(feature = "testing")]
fn bare<'scope, T: Timestamp>(
    batches: Batches<'scope, T>,
    holding: Holding<T>,
) -> Batches<'scope, T> {
    each(batches, "Bare", move |batch: Batch| {
        let records = holding.bare(batch.records);
        Batch { records, ..batch }
    })
}

/// Another record for each, in order.
pub(super) fn each<'scope, T: Timestamp, D: 'static, E: 'static>(
    records: Stream<'scope, T, Vec<D>>,
    name: &str,
    mut make: impl FnMut(D) -> E + 'static,
) -> Stream<'scope, T, Vec<E>> {
    records.unary(Pipeline, name, |_, _| {
        move |input, output| {
            input.for_each(|capability, records| {
                output.session(&capability).give_iterator(records.drain(..).map(&mut make));
            });
        }
    })
}

/// Changes with the times at which they travel.
fn stamp<'scope, T: Timestamp, D: 'static, R: 'static>(
    changes: Stream<'scope, T, Vec<(D, R)>>,
    name: &str,
) -> Stream<'scope, T, Vec<(D, T, R)>> {
    changes.unary(Pipeline, name, |_, _| {
        |input, output| {
            input.for_each(|capability, changes| {
                let time = capability.time();
                let changes = changes.drain(..).map(|(data, change)| (data, time.clone(), change));
                output.session(&capability).give_iterator(changes);
            });
        }
    })
}

impl<T: Timestamp, M> std::fmt::Debug for Egresses<'_, T, M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<_> = self.bound.iter().map(|egress| egress.name).collect();
        f.debug_struct("Egresses").field("egresses", &names).finish_non_exhaustive()
    }
}

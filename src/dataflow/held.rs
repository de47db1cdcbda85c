//! Held egresses behind their hold: as a stream of records with the cuts that released them.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::marker::PhantomData;
use std::rc::Rc;

use timely::container::CapacityContainerBuilder;
use timely::dataflow::Stream;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::progress::{Antichain, Timestamp};
use tokio::runtime::Handle;

use super::egresses::Batches;
use super::releases::Releases;
use crate::dispatch::{Batch, OfBin};

/// An egress whose records are [held](crate::Functions::held_egress) until the cut is durable that contains what
/// caused them: [given to a sink](Self::sink), or to [asynchronous code](Self::channel), or taken as a
/// [stream](Self::stream).
///
/// What is released at a cut is released whole, on each worker, before the next cut is announced; and after a
/// restart again, with the same number and the same records, before anything newer. Each record has its own
/// ingress time, and no frontier passes what is held. Where an address emits to it, order is kept.
///
/// An egress that nobody takes is held and released all the same, and nobody waits for it.
#[must_use = "what nobody takes goes nowhere"]
pub struct Held<'scope, T: Timestamp, E> {
    pub(super) batches: Batches<'scope, T>,
    pub(super) releases: Rc<Releases<T>>,
    pub(super) egress: usize,
    pub(super) name: &'static str,
    pub(super) runtime: Handle,
    record: PhantomData<fn(E)>,
}

/// What comes of a held egress.
#[derive(
    Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
pub enum Released<E> {
    /// A record.
    Record {
        /// The number of the cut that released it.
        cut: u64,
        /// The bin of the address that emitted it.
        bin: u16,
        /// What was emitted.
        record: E,
    },
    /// All that this worker has of a cut has come. Where it has nothing of it, nothing comes.
    End {
        /// The number of the cut.
        cut: u64,
    },
}

impl<'scope, T: Timestamp, E: 'static> Held<'scope, T, E> {
    pub(super) fn new(
        batches: Batches<'scope, T>,
        releases: Rc<Releases<T>>,
        egress: usize,
        name: &'static str,
        runtime: Handle,
    ) -> Self {
        Held { batches, releases, egress, name, runtime, record: PhantomData }
    }

    /// The records of this worker, cut by cut, in order, for a program that stores them by itself; and how it
    /// says that it has.
    ///
    /// Whoever stores them keeps the [rules of a sink](crate::writing_a_sink), and must say on every worker of
    /// each cut that all of it is stored. What comes of the records in other operators, on other
    /// workers, is the program's to know.
    pub fn stream(self) -> (Stream<'scope, T, Vec<Released<E>>>, Acknowledge) {
        let Held { batches, releases, egress, name, .. } = self;
        let scope = batches.scope();
        let mut builder = OperatorBuilder::new(format!("Held [{name}]"), scope);
        let mut input = builder.new_input(batches, Pipeline);
        let (output, released) = builder.new_output::<Vec<Released<E>>>();
        let mut output: OutputBuilder<T, CapacityContainerBuilder<Vec<Released<E>>>> =
            OutputBuilder::from(output);
        // Nothing leaves by it: as long as it may, there are cuts to hear of.
        let unconnected = Vec::<(usize, Antichain<_>)>::new();
        let (_, nothing) = builder.new_output_connection::<Vec<()>, _>(unconnected);
        drop(nothing);
        let activator = scope.activator_for(builder.operator_info().address);
        releases.connect(egress, activator, scope.peers());
        let worker = scope.index();
        let acknowledge = Acknowledge::new({
            let releases = Rc::clone(&releases);
            move |cut| releases.acknowledge(egress, worker, cut)
        });
        let given = acknowledge.clone();
        let mut arrivals = Arrivals::default();
        builder.build(move |mut born| {
            let mut hearing = born.pop();
            drop(born);
            move |_| {
                arrivals.expect(&releases, egress);
                arrivals.ended().for_each(|(cut, _)| given.note(cut, false));
                let mut output = output.activate();
                input.for_each(|capability, batches| {
                    let mut session = output.session(&capability);
                    for Batch { cut, records, .. } in batches.drain(..) {
                        let records: Result<Box<Vec<OfBin<E>>>, _> = records.downcast();
                        let records = records.expect("an egress carries one type");
                        arrivals.note(cut, records.len() as u64);
                        let record = |(bin, record)| Released::Record { cut, bin, record };
                        session.give_iterator(records.into_iter().map(record));
                        for (cut, records) in arrivals.ended() {
                            if records > 0 {
                                session.give(Released::End { cut });
                            }
                            given.note(cut, records > 0);
                        }
                    }
                });
                if releases.is_over() {
                    drop(hearing.take());
                }
            }
        });
        (released, acknowledge)
    }
}

impl<T: Timestamp, E> fmt::Debug for Held<'_, T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held").field("egress", &self.name).finish_non_exhaustive()
    }
}

/// How much of a held egress has come on this worker.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    /// Cuts that are released, with how many records they have here, and how many of those have come.
    open: VecDeque<(u64, u64, u64)>,
}

impl Arrivals {
    /// Takes note of what is to come.
    pub(super) fn expect<T: Timestamp>(&mut self, releases: &Releases<T>, egress: usize) {
        while let Some((cut, records)) = releases.next_cut(egress) {
            self.open.push_back((cut, records, 0));
        }
    }

    /// So many records of a cut have come. All of the cuts before have.
    pub(super) fn note(&mut self, cut: u64, records: u64) {
        let first = self.open.front_mut().expect("what comes was announced");
        assert_eq!(first.0, cut, "cuts come one after the other");
        first.2 += records;
        assert!(first.2 <= first.1, "cut {cut} has {} records, and {} have come", first.1, first.2);
    }

    /// The next cuts of which all has come, with how many records that was.
    pub(super) fn ended(&mut self) -> impl Iterator<Item = (u64, u64)> + '_ {
        std::iter::from_fn(|| {
            let (cut, records, _) = *self.open.front().filter(|(_, all, come)| all == come)?;
            self.open.pop_front();
            Some((cut, records))
        })
    }

    /// Whether nothing more is to come of what was announced.
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }
}

/// Says, on one worker, which cuts of a [held](Held::stream) egress are stored. All clones are one.
///
/// What was not acknowledged comes again after a restart. While too many cuts are not, no snapshots are taken
/// ([`SnapshotPolicy::unacknowledged_cuts_max`](crate::SnapshotPolicy::unacknowledged_cuts_max)), and the program
/// does not end before all are.
#[derive(Clone)]
pub struct Acknowledge {
    inner: Rc<Inner>,
}

struct Inner {
    state: RefCell<Given>,
    tell: Box<dyn Fn(u64)>,
}

#[derive(Default)]
struct Given {
    /// Cuts that were given to the program, and that it has not acknowledged.
    open: VecDeque<u64>,
    /// The last cut that is over here, and the last that was told of.
    ended: u64,
    told: u64,
}

impl Acknowledge {
    fn new(tell: impl Fn(u64) + 'static) -> Self {
        Acknowledge { inner: Rc::new(Inner { state: RefCell::default(), tell: Box::new(tell) }) }
    }

    /// All that this worker was given of the cuts up to this one is stored. What has not come to its
    /// [end](Released::End) does not count.
    pub fn acknowledge(&self, cut: u64) {
        let mut state = self.inner.state.borrow_mut();
        while state.open.front().is_some_and(|open| *open <= cut) {
            state.open.pop_front();
        }
        drop(state);
        self.tell();
    }

    /// The cuts that have come to their end here and are not acknowledged.
    pub fn open(&self) -> Vec<u64> {
        self.inner.state.borrow().open.iter().copied().collect()
    }

    /// The last cut that has come to its end here, with records or without. 0 before the first.
    pub fn ended(&self) -> u64 {
        self.inner.state.borrow().ended
    }

    fn note(&self, cut: u64, has_records: bool) {
        let mut state = self.inner.state.borrow_mut();
        state.ended = cut;
        if has_records {
            state.open.push_back(cut);
        }
        drop(state);
        self.tell();
    }

    fn tell(&self) {
        let mut state = self.inner.state.borrow_mut();
        let all = state.open.front().map_or(state.ended, |open| open - 1);
        if all > state.told {
            state.told = all;
            drop(state);
            (self.inner.tell)(all);
        }
    }
}

impl fmt::Debug for Acknowledge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acknowledge").field("open", &self.open()).finish_non_exhaustive()
    }
}

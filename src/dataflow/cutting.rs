//! How one set of functions takes part in its program's cuts, on one worker: passes what its dispatcher
//! has to the scribe, and what a snapshot holds to its dispatcher. It decides nothing.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::{Rc, Weak};
use std::time::Duration;

use timely::ExchangeData;
use timely::dataflow::{Scope, Stream};
use timely::progress::Timestamp;
use timely_statefun_operators::{
    Cuts, Decider, Held, Ingress as Gate, Place, Places, Positions, Waker, Work,
};

use super::ingress::{ComesBack, Ingress, Source};
use super::meters::Beside;
use super::releases::Releases;
use super::snapshots::{self, Next, Reading, Records, Scribe, SetNumber, SnapshotDone, Snapshots};
use crate::dead_letter::{Reason, Stopped};
use crate::dispatch::{self, Back, Dispatcher, Restoring, Routed};
use crate::error::{Error, Kind};
use crate::message::Envelope;
use crate::snapshot::PartReader;
use crate::state::Budget;

/// Bytes that one activation writes of a cut: with them, it is not long until messages are handled again.
const SLICE_BYTES: usize = 64 << 10;
/// Addresses of which one activation emits again what they had emitted, and entries of watched state that it
/// tells of.
const BACK_AT_ONCE: usize = 4096;

/// What a set of functions has to do with snapshots.
pub(super) struct Cutting<'scope, T: Timestamp> {
    pub(super) snapshots: Snapshots<T>,
    pub(super) scribe: Rc<RefCell<Scribe<T>>>,
    pub(super) set: SetNumber,
    pub(super) reading: Option<Rc<RefCell<Reading>>>,
    pub(super) decider: Decider<T>,
    /// If something of what the set emits is held.
    pub(super) releases: Option<Rc<Releases<T>>>,
    /// What is told of snapshots.
    pub(super) done: Stream<'scope, T, Vec<SnapshotDone<T>>>,
}

impl<'scope, T: Timestamp> Cutting<'scope, T> {
    /// Has the set of these ingresses take part, if its program takes snapshots.
    pub(super) fn of<M>(
        scope: Scope<'scope, T>,
        set: &str,
        ingresses: &[Ingress<'scope, T, M>],
    ) -> Result<Option<Self>, Error> {
        let sources = ingresses.iter().map(|ingress| ingress.source.as_ref());
        let Some(first) = sources.clone().flatten().next() else { return Ok(None) };
        for (number, source) in sources.enumerate() {
            let source =
                source.ok_or_else(|| Kind::NotInSnapshots { set: set.to_owned(), number })?;
            if !first.snapshots.is(&source.snapshots) {
                return Err(Kind::OtherSnapshots(source.name.clone()).into());
            }
        }
        let names = ingresses.iter().flat_map(|ingress| &ingress.source);
        // What other functions emit has no positions that a snapshot would name.
        let names = names.filter(|source| !matches!(source.comes_back, ComesBack::Emitted(_)));
        let names = names.map(|source| source.name.clone());
        first.snapshots.join(scope, set, names.collect()).map(Some)
    }

    pub(super) fn cuts(&self) -> Cuts<'scope, T> {
        self.decider.clone().into()
    }
}

impl<'scope, T: Timestamp, M> Ingress<'scope, T, M> {
    /// The gate of this ingress, of a set that takes part in cuts or not.
    pub(super) fn gate<R: 'static>(
        self,
        name: String,
        cutting: Option<&Cutting<'scope, T>>,
        route: impl FnMut(Envelope<M>) -> R + 'static,
    ) -> Gate<'scope, T, Envelope<M>, R>
    where
        M: 'static,
    {
        let gate = Gate::new(name, self.stream, route);
        let (gate, passage) = match self.link {
            Some(link) => (gate.fed_by(link.feed), Some(link.passage)),
            None => (gate, None),
        };
        let Some((source, cutting)) = self.source.zip(cutting) else { return gate };
        let Source { name, comes_back, snapshots } = source;
        if let ComesBack::Emitted(marks) = comes_back {
            return gate.cut_at(marks);
        }
        let scribe = Rc::downgrade(&cutting.scribe);
        let noting = (Weak::clone(&scribe), name.clone());
        if let Some(passage) = &passage {
            cutting.scribe.borrow_mut().tell_passage(Rc::clone(passage));
        }
        let gate = gate.on_cut(move |at| {
            passage.iter().for_each(|passage| passage.cut(&at));
            Scribe::note(&noting.0, &noting.1, at);
        });
        let gate = gate.contained(snapshots.latest());
        if let ComesBack::No = comes_back {
            return gate;
        }
        let after: Positions = snapshots.positions(&name);
        let rising = RefCell::new(Rising::default());
        let position = move |envelope: &Envelope<M>| {
            let Some((partition, position)) = envelope.position else {
                Scribe::stop(&scribe, || Reason::NoPosition(name.clone()));
                return None;
            };
            // A cut names the last position that it contains, and so stands for all before it.
            if let Err(before) = rising.borrow_mut().note(partition, position) {
                let ingress = name.as_str().into();
                let stop = || Reason::PositionBack { ingress, partition, position, before };
                Scribe::stop(&scribe, stop);
            }
            envelope.position
        };
        gate.positions(position, after)
    }
}

/// The last position of each partition that an ingress has given.
#[derive(Default)]
struct Rising {
    /// The partition and the position of the last record: those of one partition come in runs.
    current: Option<(u64, u64)>,
    /// Those of other partitions.
    last: HashMap<u64, u64>,
}

impl Rising {
    /// Notes a position. An error, with the one before it, if that is not before it.
    fn note(&mut self, partition: u64, position: u64) -> Result<(), u64> {
        let before = match self.current.replace((partition, position)) {
            Some((of, before)) if of == partition => Some(before),
            current => {
                self.last.extend(current);
                self.last.get(&partition).copied()
            }
        };
        match before {
            Some(before) if before >= position => Err(before),
            _ => Ok(()),
        }
    }
}

/// The part of a set's handler that has to do with cuts.
pub(super) struct Cutter<M, T: Timestamp> {
    scribe: Rc<RefCell<Scribe<T>>>,
    set: SetNumber,
    set_name: String,
    worker: (usize, usize),
    restore: Option<Restore<M, T>>,
    releases: Option<Ending<T>>,
    /// The cut that the dispatcher has taken, and of which it does not know what became of it.
    taken: Option<u64>,
    memory_max: usize,
}

/// What is restored, until all of it is.
struct Restore<M, T> {
    reading: Rc<RefCell<Reading>>,
    /// The time before which no event happens.
    events_from: Option<T>,
    restoring: Option<Restoring<M, T>>,
    /// The cut whose parts are being read.
    cut: Option<u64>,
}

/// Says that no more cuts come, when the loop is over.
struct Ending<T: Timestamp>(Rc<Releases<T>>);

impl<T: Timestamp> Drop for Ending<T> {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl<M, T: Timestamp> Cutter<M, T> {
    /// What is known here of what is held and of snapshots, of which one set tells.
    pub(super) fn figures(&self) -> Beside {
        let held = self.releases.as_ref().map(|Ending(releases)| releases.held());
        let snapshots = (self.set == 0).then(|| self.scribe.borrow_mut().take_figures()).flatten();
        Beside { held, snapshots }
    }
}

type FunctionsOf<M, T> = Dispatcher<M, T, Held>;

impl<M: ExchangeData, T: Timestamp> Cutter<M, T> {
    /// For a set on this worker, of so many.
    pub(super) fn new(
        cutting: &Cutting<'_, T>,
        set_name: &str,
        worker: (usize, usize),
        dispatcher: &mut FunctionsOf<M, T>,
    ) -> Self {
        let memory_max = cutting.snapshots.memory_max();
        dispatcher.keep_cuts(memory_max, cutting.snapshots.origin());
        Cutter {
            scribe: Rc::clone(&cutting.scribe),
            set: cutting.set,
            set_name: set_name.to_owned(),
            worker,
            restore: cutting.reading.clone().map(|reading| Restore {
                reading,
                events_from: cutting.snapshots.events_from(),
                restoring: None,
                cut: None,
            }),
            releases: cutting.releases.clone().map(Ending),
            taken: None,
            memory_max,
        }
    }

    pub(super) fn connect(&self, waker: &Waker) {
        self.scribe.borrow().connect(waker.clone());
        if let Some(restore) = &self.restore {
            restore.reading.borrow().connect(waker.clone());
        }
    }

    /// Goes on with what has become of cuts.
    pub(super) fn poll(&mut self, dispatcher: &mut FunctionsOf<M, T>) -> Result<(), Stopped> {
        let mut scribe = self.scribe.borrow_mut();
        scribe.poll()?;
        while let Some(fate) = scribe.fate(self.set) {
            if self.taken.take_if(|taken| *taken == fate.cut).is_some() {
                match fate.committed {
                    true => {
                        dispatcher.commit_cut();
                        if let Some(Ending(releases)) = &self.releases {
                            releases.committed(fate.cut);
                        }
                    }
                    false => dispatcher.abandon_cut(),
                }
            }
        }
        Ok(())
    }

    pub(super) fn poll_after(&self) -> Option<Duration> {
        self.scribe.borrow().look_after()
    }

    /// Whether the open cut takes more memory than it may.
    pub(super) fn is_full(&self, dispatcher: &FunctionsOf<M, T>) -> bool {
        self.taken.is_some()
            && dispatcher.cut_bytes() + self.scribe.borrow().bytes() > self.memory_max
    }

    pub(super) fn take_cut(
        &mut self,
        cut: u64,
        now: Option<&T>,
        dispatcher: &mut FunctionsOf<M, T>,
    ) {
        if let Some(is_delta) = self.scribe.borrow_mut().take(cut, now) {
            self.taken = Some(cut);
            dispatcher.take_cut(is_delta);
        }
    }

    /// Writes a message that waited, or was logged.
    pub(super) fn write_waiting(
        &mut self,
        cut: u64,
        place: Place<'_, T>,
        message: &Routed<M>,
        is_logged: bool,
        dispatcher: &mut FunctionsOf<M, T>,
    ) {
        let mut scribe = self.scribe.borrow_mut();
        if !scribe.is_open(cut) {
            return;
        }
        let mut sink = scribe.sink(self.set);
        match dispatcher.write_waiting(own(place), message, is_logged, &mut sink) {
            Ok(()) => scribe.end_slice(self.set, |number| dispatcher.cut_type(number)),
            Err(why) => scribe.fail(cut, &why),
        }
    }

    /// Writes some more of what else the dispatcher has.
    pub(super) fn work(
        &mut self,
        cut: u64,
        units: usize,
        places: &Places<'_, T>,
        dispatcher: &mut FunctionsOf<M, T>,
    ) -> Work {
        let mut scribe = self.scribe.borrow_mut();
        if !scribe.is_open(cut) {
            return Work::Done;
        }
        if !scribe.takes_more(cut) {
            return Work::Waiting;
        }
        let mut sink = scribe.sink(self.set);
        let place = |held: &Held| own(places.of(held));
        match dispatcher.write_cut(Budget { units, bytes: SLICE_BYTES }, &place, &mut sink) {
            Ok(is_written) => {
                scribe.end_slice(self.set, |number| dispatcher.cut_type(number));
                if is_written { Work::Done } else { Work::More }
            }
            Err(why) => {
                scribe.fail(cut, &why);
                Work::Done
            }
        }
    }

    pub(super) fn complete(&mut self, cut: u64, complete: &[T]) {
        self.scribe.borrow_mut().complete(self.set, cut, complete);
    }

    /// Whether all is brought back that is to be.
    #[cfg(feature = "testing")]
    pub(super) fn is_restored(&self) -> bool {
        self.restore.is_none()
    }

    /// Brings back what is restored, a part at a time.
    pub(super) fn restore(
        &mut self,
        now_ms: u64,
        dispatcher: &mut FunctionsOf<M, T>,
        back: &mut Returning<'_, T, Routed<M>>,
    ) -> Result<Work, Stopped> {
        let Some(restore) = &mut self.restore else { return Ok(Work::Done) };
        let next = restore.reading.borrow_mut().next(usize::from(self.set));
        let restored = match next {
            Err(error) => Err(error.to_string()),
            Ok(Next::NotYet) => return Ok(Work::Waiting),
            Ok(Next::Part(part)) => {
                let sets = self.scribe.borrow().set_names();
                let set = (self.set_name.as_str(), &*sets);
                let releases = self.releases.as_ref().map(|Ending(releases)| &**releases);
                let part = if part.entry.name.is_held() {
                    bring_back(&part, set, self.worker, releases)
                } else {
                    restore.part(now_ms, &part, set, self.worker, dispatcher, back)
                };
                part.map(|()| Work::More)
            }
            Ok(Next::End) => match restore.restoring.take() {
                Some(restoring) => {
                    let finished = restoring.finish(dispatcher, back);
                    finished.map(|()| Work::More).map_err(|error| error.to_string())
                }
                None => match dispatcher.bring_back(&T::minimum(), BACK_AT_ONCE) {
                    Ok(false) => {
                        #[cfg(statefun_planted)]
                        crate::planted::reach("restored");
                        if let Some(Ending(releases)) = &self.releases {
                            releases.restored(&restore.reading.borrow().held_cuts());
                        }
                        if let Some(time) = restore.events_from.take() {
                            back.events_from(time);
                        }
                        self.restore = None;
                        Ok(Work::Done)
                    }
                    more => more.map(|_| Work::More),
                },
            },
        };
        restored.map_err(|why| {
            let (reason, worker) = (Reason::NotRestored(why), self.worker.0);
            Stopped { address: None, reason, worker }
        })
    }
}

/// Brings back what is held in a part.
fn bring_back<T: Timestamp>(
    part: &PartReader,
    (set, sets): (&str, &[String]),
    worker: (usize, usize),
    releases: Option<&Releases<T>>,
) -> Result<(), String> {
    let Some(releases) = releases else {
        let file = part.entry.name;
        // It may be of other sets.
        return snapshots::held_of(
            part,
            set,
            sets,
            worker,
            &mut |_| Err(format!("\"{file}\" has held egress of \"{set}\", which holds none")),
            &mut |_, _, _| Ok(()),
        );
    };
    releases.bring_back(part, set, sets, worker)
}

impl<M: ExchangeData, T: Timestamp> Restore<M, T> {
    /// Brings back what is in a part.
    fn part(
        &mut self,
        now_ms: u64,
        part: &PartReader,
        (set, sets): (&str, &[String]),
        worker: (usize, usize),
        dispatcher: &mut FunctionsOf<M, T>,
        back: &mut Returning<'_, T, Routed<M>>,
    ) -> Result<(), String> {
        let restoring = self.restoring.get_or_insert_with(|| dispatcher.restoring(now_ms));
        let cut = part.entry.name.cut;
        if self.cut != Some(cut) {
            self.cut = Some(cut);
            restoring.cut(cut == self.reading.borrow().cut());
        }
        let file = part.entry.name;
        let of_file = |why: &dyn std::fmt::Display| format!("\"{file}\": {why}");
        let mut begun = false;
        snapshots::records_of(part, set, sets, worker, &mut |records| match records {
            Records::Types(types) => {
                begun = true;
                restoring.part(&types, dispatcher).map_err(|error| of_file(&error))
            }
            Records::Of(kind, bin, record) => {
                debug_assert!(begun, "a table comes first");
                let brought = restoring.record(kind, bin, record, dispatcher, back);
                brought.map_err(|error| of_file(&error))
            }
        })
    }
}

/// Where a loop brings back what a cut held.
type Returning<'a, T, M> = timely_statefun_operators::Restore<'a, T, M>;

impl<M, T: Timestamp> Back<M, T> for Returning<'_, T, Routed<M>> {
    type Held = Held;

    fn message(&mut self, place: dispatch::Place<T>, message: Routed<M>) {
        Returning::message(self, lent(&place), message);
    }

    fn hold(&mut self, place: dispatch::Place<T>) -> Held {
        Returning::hold(self, lent(&place))
    }
}

/// A place as the dispatcher has it.
pub(super) fn own<T: Clone>(place: Place<'_, T>) -> dispatch::Place<T> {
    dispatch::Place { time: place.time.clone(), depth: place.depth, record: place.record }
}

fn lent<T>(place: &dispatch::Place<T>) -> Place<'_, T> {
    Place { time: &place.time, depth: place.depth, record: place.record }
}

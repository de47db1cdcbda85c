//! A source in a dataflow: gives what is pulled while the functions that it feeds have room, tells how it is
//! getting on, and what becomes of its records.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use timely::dataflow::{Scope, Stream};
use timely::progress::Timestamp;
use timely::scheduling::Activator;
use timely_statefun_operators::{AtCut, Feed, Portion, Positions, SourceActivators, Waker, source};

use super::ingress::{ComesBack, Ingress};
use super::snapshots::Snapshots;
use crate::dead_letter::Reason;
use crate::message::Envelope;
use crate::source::{Channel, Ledger, Pull, Pulled, SourceHandle, Times, WaitingFor};

/// Records that a source gives at once, unless it is [said](Source::batch_max).
const BATCH_MAX: usize = 1024;

/// A source on its worker, which is about to become an ingress of functions, or a stream.
///
/// As an ingress it knows by itself whether the functions have room for it: it gives a batch at a time, while none
/// of its records is held back, no worker is out of room, and all that it has given but one batch has come to
/// the functions' gate. So what waits is within their [limits](crate::Limits) and two batches. What is held back
/// of other ingresses does not concern it.
pub struct Source<'scope, T: Timestamp, D> {
    scope: Scope<'scope, T>,
    name: String,
    times: Times<T>,
    pull: Box<dyn Pull<D>>,
    ledger: Option<Arc<Ledger>>,
    batch_max: usize,
    handle: SourceHandle,
}

impl<D: Send + 'static> Channel<D> {
    /// The channel as a source of this worker, with a name: for an ingress that takes part in snapshots it is the
    /// ingress's, which is stored.
    ///
    /// It ends when all senders are dropped and all that they sent is given. One that is
    /// [empty](Channel::default) ends at once.
    pub fn source<'scope, T: Timestamp>(
        self,
        scope: Scope<'scope, T>,
        name: impl Into<String>,
        times: Times<T>,
    ) -> Source<'scope, T, D> {
        let ledger = self.ledger();
        Source::new(scope, name.into(), times, Box::new(self), ledger)
    }
}

impl<'scope, T: Timestamp, D: 'static> Source<'scope, T, D> {
    pub(crate) fn new(
        scope: Scope<'scope, T>,
        name: String,
        times: Times<T>,
        pull: Box<dyn Pull<D>>,
        ledger: Option<Arc<Ledger>>,
    ) -> Self {
        let (batch_max, handle) = (BATCH_MAX, SourceHandle::default());
        Source { scope, name, times, pull, ledger, batch_max, handle }
    }

    /// How the source is getting on, from any thread.
    pub fn handle(&self) -> SourceHandle {
        self.handle.clone()
    }

    /// Gives at most so many records at once. Default 1024; at least 1.
    #[must_use]
    pub fn batch_max(mut self, records: usize) -> Self {
        self.batch_max = records.max(1);
        self
    }

    /// An ingress of functions that take part in no snapshots. `envelope` says for whom a record is.
    pub fn ingress<M: 'static>(
        self,
        envelope: impl FnMut(D) -> Envelope<M> + 'static,
    ) -> Ingress<'scope, T, M> {
        if let Some(ledger) = &self.ledger {
            ledger.without_snapshots();
        }
        let (stream, link) = self.fed(Positions::new(), envelope);
        Ingress { stream, source: None, link: Some(link) }
    }

    /// An ingress of functions that take part in snapshots, whose records do not
    /// [come again](Snapshots::unreplayed): those that are in no durable snapshot when the program ends are lost,
    /// and whoever holds a [receipt](crate::source::Receipt) of one knows.
    pub fn unreplayed<M: 'static>(
        self,
        snapshots: &Snapshots<T>,
        envelope: impl FnMut(D) -> Envelope<M> + 'static,
    ) -> Ingress<'scope, T, M> {
        let name = self.name.clone();
        let (stream, link) = self.fed(Positions::new(), envelope);
        let ingress = snapshots.ingress(name, ComesBack::No, stream);
        Ingress { link: Some(link), ..ingress }
    }

    /// An ingress of functions that take part in snapshots, whose records [come again](Snapshots::replayed): each must
    /// say [where it was read](Envelope::read_at), and positions must rise in each partition. What a restored
    /// snapshot contains is not given again, and its receipts tell that it is durable when all before it is.
    pub fn replayed<M: 'static>(
        self,
        snapshots: &Snapshots<T>,
        envelope: impl FnMut(D) -> Envelope<M> + 'static,
    ) -> Ingress<'scope, T, M> {
        let name = self.name.clone();
        let (stream, link) = self.fed(snapshots.positions(&name), envelope);
        let ingress = snapshots.ingress(name, ComesBack::Replayed, stream);
        Ingress { link: Some(link), ..ingress }
    }

    /// A stream of the records, for any operator. Nothing holds it back until
    /// [`feeds`](crate::Handle::feeds) of the handles of functions behind it is told of the feed; and since nobody
    /// counts what is between it and them, that may be as much as it gives while its worker steps a few times.
    pub fn stream(mut self) -> (Stream<'scope, T, Vec<D>>, Feed) {
        let feed = Feed::new();
        let ledger = self.ledger.take();
        if let Some(ledger) = &ledger {
            ledger.without_snapshots();
        }
        let passage = Rc::new(Passage::new(ledger));
        let gives = Rc::clone(&passage);
        let note = move |given, _| {
            gives.give(given, 0);
            gives.admitted(gives.come.get().0);
        };
        (self.build(&feed, Rc::default(), Some, note), feed)
    }

    /// A stream of envelopes that goes into a gate as it is, but for what these positions contain.
    fn fed<M: 'static>(
        mut self,
        after: Positions,
        mut envelope: impl FnMut(D) -> Envelope<M> + 'static,
    ) -> (Stream<'scope, T, Vec<Envelope<M>>>, Link) {
        self.pull.begin(&after);
        let passage = Rc::new(Passage::new(self.ledger.take()));
        let feed = Feed::new();
        let admits = Rc::clone(&passage);
        feed.on_admitted(move |records| admits.admitted(records));
        let contains = move |(partition, position): (u64, u64)| {
            after.get(&partition).is_some_and(|last| position <= *last)
        };
        let convert = move |record| {
            let envelope = envelope(record);
            (!envelope.position.is_some_and(&contains)).then_some(envelope)
        };
        let (stops, gives) = (Rc::<Stops>::default(), Rc::clone(&passage));
        let note = move |given, contained| gives.give(given, contained);
        let stream = self.build(&feed, Rc::clone(&stops), convert, note);
        (stream, Link { feed, passage, stops })
    }

    /// The operator. `convert` makes what is given of a record, unless it is not to be given; `note` is told of
    /// runs of records that are given, each followed by some that are not, before they leave.
    fn build<E: 'static>(
        self,
        feed: &Feed,
        stops: Rc<Stops>,
        mut convert: impl FnMut(D) -> Option<E> + 'static,
        note: impl Fn(u64, u64) + 'static,
    ) -> Stream<'scope, T, Vec<E>> {
        let Source { scope, name, mut times, mut pull, batch_max, handle, .. } = self;
        let waits = feed.clone();
        source(scope, &name.clone(), feed, move |activators| {
            let SourceActivators { here, anywhere } = activators;
            let wake = anywhere.clone();
            // A worker that has ended needs no waking.
            pull.connect(Box::new(move || _ = anywhere.activate()));
            times.connect(move || _ = wake.activate());
            let mut alarm = Alarm::new(here.clone());
            let status = Ends(handle);
            let (mut pulled, mut given, mut has_failed) = (Vec::new(), 0_u64, false);
            move || {
                alarm.set(times.look_after());
                let mut portion = Portion { time: times.now(), records: Vec::new(), ends: false };
                if has_failed {
                    return Some(portion);
                }
                if !waits.is_ready(given, batch_max as u64) {
                    status.0.note(|status| status.waiting_for = WaitingFor::Credit);
                    return Some(portion);
                }
                let more = pull.pull(batch_max, &mut pulled);
                let (mut run, mut contained, mut contained_all) = (0, 0, 0);
                for record in pulled.drain(..) {
                    let Some(record) = convert(record) else {
                        contained += 1;
                        continue;
                    };
                    if contained > 0 {
                        note(run, contained);
                        contained_all += contained;
                        (run, contained) = (0, 0);
                    }
                    run += 1;
                    portion.records.push(record);
                }
                note(run, contained);
                given += portion.records.len() as u64;
                let waiting_for = match &more {
                    Pulled::More => WaitingFor::Nothing,
                    Pulled::NotNow => WaitingFor::Records,
                    Pulled::Ended | Pulled::Failed(_) => WaitingFor::Ended,
                };
                status.0.note(|status| {
                    status.waiting_for = waiting_for;
                    status.given = given;
                    status.contained += contained_all + contained;
                    pull.note(status);
                });
                match more {
                    Pulled::More => here.activate(),
                    Pulled::NotNow => {}
                    Pulled::Ended => portion.ends = true,
                    Pulled::Failed(why) => {
                        has_failed = true;
                        tracing::error!(source = name, why, "a source failed");
                        status.0.note(|status| status.last_error = Some(why.clone()));
                        let (source_name, why) = (name.as_str().into(), why.into());
                        stops.stop(Reason::SourceFailed { source_name, why });
                    }
                }
                Some(portion)
            }
        })
    }
}

impl<T: Timestamp, D> fmt::Debug for Source<'_, T, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source")
            .field("name", &self.name)
            .field("times", &self.times)
            .field("batch_max", &self.batch_max)
            .finish_non_exhaustive()
    }
}

/// Tells, when a source's operator is gone, that nothing more comes of it.
struct Ends(SourceHandle);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.note(|status| status.waiting_for = WaitingFor::Ended);
    }
}

/// Has a source looked at after some time, once however often it is asked for meanwhile.
struct Alarm {
    activator: Activator,
    rings: Option<Instant>,
}

impl Alarm {
    fn new(activator: Activator) -> Self {
        Alarm { activator, rings: None }
    }

    fn set(&mut self, after: Option<Duration>) {
        let Some(after) = after else { return };
        let now = Instant::now();
        if self.rings.is_none_or(|rings| rings <= now) {
            self.activator.activate_after(after);
            self.rings = Some(now + after);
        }
    }
}

/// What joins a source to the functions that it feeds.
pub(super) struct Link {
    pub(super) feed: Feed,
    pub(super) passage: Rc<Passage>,
    pub(super) stops: Rc<Stops>,
}

/// Why functions must stop, as sources say that feed them.
#[derive(Default)]
pub(super) struct Stops {
    reason: RefCell<Option<Reason>>,
    waker: RefCell<Option<Waker>>,
}

impl Stops {
    fn stop(&self, reason: Reason) {
        self.reason.borrow_mut().get_or_insert(reason);
        self.waker.borrow().iter().for_each(Waker::wake);
    }

    pub(super) fn connect(&self, waker: Waker) {
        *self.waker.borrow_mut() = Some(waker);
    }

    pub(super) fn reason(&self) -> Option<Reason> {
        self.reason.borrow().clone()
    }
}

/// How the records of a source pass the gate and come into cuts, for those who hold receipts.
///
/// A gate lets the records of one source in in the order in which they came, since their times never go back. So
/// how many it has let in tells which. It has no share in records that are not given to it: they are as far as
/// what came before them.
pub(super) struct Passage {
    ledger: Option<Arc<Ledger>>,
    /// Runs of records, each up to how many of those given and of all.
    runs: RefCell<VecDeque<(u64, u64)>>,
    /// How many were given, and how many there were with the others.
    come: Cell<(u64, u64)>,
    /// Of how many given it is known that they were let in, and how many those are of all.
    reached: Cell<(u64, u64)>,
    /// By cut of which is not known what became of it, how many of all it contains.
    cuts: RefCell<BTreeMap<u64, u64>>,
}

impl Passage {
    fn new(ledger: Option<Arc<Ledger>>) -> Self {
        let (runs, cuts) = (RefCell::default(), RefCell::default());
        let (come, reached) = (Cell::default(), Cell::default());
        Passage { ledger, runs, come, reached, cuts }
    }

    /// Some records are given, and after them some are not.
    fn give(&self, given: u64, contained: u64) {
        if self.ledger.is_none() || given + contained == 0 {
            return;
        }
        let (before, all) = self.come.get();
        let given = before + given;
        let come = (given, all + (given - before) + contained);
        self.come.set(come);
        let mut runs = self.runs.borrow_mut();
        match runs.back_mut() {
            Some(last) if last.1 - last.0 == come.1 - come.0 => *last = come,
            _ if contained == 0 => runs.push_back(come),
            _ => runs.extend([(given, come.1 - contained), come]),
        }
        drop(runs);
        // Nobody lets in what is not given.
        if contained > 0 {
            self.admitted(self.reached.get().0);
        }
    }

    /// How many of all were let in, when so many of those given were.
    fn reach(&self, admitted: u64) -> u64 {
        let mut all = self.reached.get().1;
        let mut runs = self.runs.borrow_mut();
        while let Some((given, end)) = runs.front().copied() {
            if given > admitted {
                all = all.max(end - (given - admitted));
                break;
            }
            all = end;
            runs.pop_front();
        }
        self.reached.set((admitted, all));
        all
    }

    fn admitted(&self, admitted: u64) {
        if let Some(ledger) = &self.ledger {
            ledger.admitted(self.reach(admitted));
        }
    }

    /// Its gate takes a cut.
    pub(super) fn cut<T>(&self, at: &AtCut<'_, T>) {
        if self.ledger.is_some() {
            let all = self.reach(at.records);
            self.cuts.borrow_mut().insert(at.cut, all);
        }
    }

    /// It is known what became of a cut.
    pub(super) fn hear(&self, cut: u64, committed: bool) {
        let Some(ledger) = &self.ledger else { return };
        let mut cuts = self.cuts.borrow_mut();
        let contains = cuts.remove(&cut).filter(|_| committed);
        // One cut is open at a time: nothing is heard of those before.
        *cuts = cuts.split_off(&cut);
        if let Some(all) = contains {
            ledger.durable(all);
        }
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        if let Some(ledger) = &self.ledger {
            ledger.end();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(cut: u64, records: u64, positions: &Positions) -> AtCut<'_, u64> {
        AtCut { cut, records, positions, latest: &[], aligned: None }
    }

    #[test]
    fn what_is_not_given_is_as_far_as_what_came_before_it() {
        let passage = Passage::new(Some(Arc::default()));
        // 0..3 are contained, 3..5 given, 5..7 contained, 7..10 given.
        passage.give(0, 3);
        assert_eq!(passage.reached.get(), (0, 3));
        passage.give(2, 2);
        passage.give(1, 0);
        passage.give(2, 0);
        let reached = [0, 1, 2, 3, 5].map(|admitted| passage.reach(admitted));
        assert_eq!(reached, [3, 4, 7, 8, 10]);
        passage.give(1, 0);
        assert_eq!((passage.reach(5), passage.reach(6)), (10, 11));
    }

    #[test]
    fn only_a_cut_that_counts_makes_records_durable() {
        let positions = Positions::new();
        let passage = Passage::new(Some(Arc::default()));
        passage.give(9, 0);
        passage.cut(&at(3, 4, &positions));
        passage.hear(3, false);
        passage.cut(&at(4, 5, &positions));
        assert_eq!(*passage.cuts.borrow(), BTreeMap::from([(4, 5)]));
        passage.cut(&at(6, 8, &positions));
        passage.hear(4, true);
        assert_eq!(*passage.cuts.borrow(), BTreeMap::from([(6, 8)]));
        let ledger = passage.ledger.as_ref().unwrap();
        assert_eq!(ledger.counts(), (5, 5), "what is durable was let in");
        passage.hear(6, true);
        assert_eq!(ledger.counts(), (8, 8));
    }
}

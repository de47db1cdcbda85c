//! Keeps what leaves a loop until somebody says that the cut it belongs to counts.
//!
//! It stands in the loop's own scope, behind its output, so the time of a batch says after how many
//! cuts it left: what left after `c` belongs to every later cut. When the loop takes cut `k`, it asks
//! for what left before. The frontier tells that all of that is here, when no turn below `k` is left in
//! it; then a slice of it is handed over in each activation, and the loop's part of the cut is complete
//! only after the last. When cut `k` is released, all that left before it goes, at its own times, in the
//! order in which it came. For each of those times a capability is held until then, so that no frontier
//! passes what is kept.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};

use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::dataflow::{Scope, Stream};
use timely::order::Product;
use timely::progress::Timestamp;
use timely::scheduling::Activator;

use crate::config::Order;
use crate::gate::LoopTime;
use crate::holdings::Holdings;
use crate::live_times::{LiveTimes, TimeIndex};
use crate::part::Work;
use crate::stages::Stage;
use crate::waker::Waker;

/// A batch that is kept until its cut is released.
#[derive(Debug)]
pub struct HeldBatch<'a, T, D> {
    /// The cut it is handed over for. It left the loop before this cut and is not released.
    pub cut: u64,
    /// The time at which it left the loop.
    pub time: &'a T,
    /// Its records, in order.
    pub records: &'a [D],
}

/// Lets go of one restored batch: the number of its cut, its time, and its records.
pub type LetGo<'a, T, D> = &'a mut dyn FnMut(u64, &T, Vec<D>);

type OnCut<T, D> = Box<dyn FnMut(HeldBatch<'_, T, D>)>;
type Stamp<D> = Box<dyn FnMut(u64, &mut D)>;
type Back<T, D> = Box<dyn FnMut(LetGo<'_, T, D>) -> Work>;

type Keeps<D> = Box<dyn FnMut(&D) -> bool>;

/// What leaves a loop that [holds](crate::holding_loop) all or a part of it. In each stream, records are in the
/// order in which they were emitted.
pub struct Outputs<'scope, T: Timestamp, D> {
    /// What is not [kept](Hold::keeps). It leaves at once, and its frontier waits for nothing that is kept.
    pub free: Stream<'scope, T, Vec<D>>,
    /// What was kept until the cut it belongs to was released. No frontier passes the time of what is kept.
    pub kept: Stream<'scope, T, Vec<D>>,
}

impl<T: Timestamp, D> std::fmt::Debug for Outputs<'_, T, D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outputs").finish_non_exhaustive()
    }
}

/// How one worker [holds](crate::holding_loop) what leaves its loop.
pub struct Hold<T, D> {
    control: HoldControl,
    /// None where all is kept.
    keeps: Option<Keeps<D>>,
    on_cut: OnCut<T, D>,
    stamp: Option<Stamp<D>>,
    back: Option<Back<T, D>>,
}

impl<T, D> Hold<T, D> {
    /// Holds everything until `control` releases it. Each worker has a control of its own.
    pub fn new(control: &HoldControl) -> Self {
        let control = control.clone();
        Hold { control, keeps: None, on_cut: Box::new(|_| ()), stamp: None, back: None }
    }

    /// Holds only what `keeps` says. The rest leaves [at once](Outputs::free), whatever becomes of its cut:
    /// if a program goes on from an earlier one, it comes again and may differ.
    #[must_use]
    pub fn keeps(mut self, keeps: impl FnMut(&D) -> bool + 'static) -> Self {
        self.keeps = Some(Box::new(keeps));
        self
    }

    /// Hands over what is kept when a cut is taken, in slices, in order, before the cut is
    /// complete on this worker.
    #[must_use]
    pub fn on_cut(mut self, write: impl FnMut(HeldBatch<'_, T, D>) + 'static) -> Self {
        self.on_cut = Box::new(write);
        self
    }

    /// Marks each record with the cut that released it, when it goes.
    #[must_use]
    pub fn stamp(mut self, stamp: impl FnMut(u64, &mut D) + 'static) -> Self {
        self.stamp = Some(Box::new(stamp));
        self
    }

    /// Lets go of what a restored cut held, before anything else that is kept: `back` is called until it says
    /// that this is [done](Work::Done). Where it says [`Work::Waiting`], the control is to
    /// [wake](HoldControl::wake) the operator.
    #[must_use]
    pub fn restored(mut self, back: impl FnMut(LetGo<'_, T, D>) -> Work + 'static) -> Self {
        self.back = Some(Box::new(back));
        self
    }
}

impl<T, D> std::fmt::Debug for Hold<T, D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hold").field("control", &self.control).finish_non_exhaustive()
    }
}

/// Releases what one worker holds, from any thread.
#[derive(Clone, Debug, Default)]
pub struct HoldControl {
    shared: Arc<Desk>,
}

#[derive(Debug, Default)]
struct Desk {
    release: AtomicU64,
    released: AtomicU64,
    held: AtomicUsize,
    waker: OnceLock<Waker>,
}

impl HoldControl {
    /// A control that nobody obeys yet.
    pub fn new() -> Self {
        HoldControl::default()
    }

    /// Lets everything go that left the loop before this cut was taken. It must be complete on this
    /// worker, and the next must not be announced before this was said on all workers: what the next holds
    /// would otherwise not be known.
    pub fn release(&self, cut: u64) {
        self.shared.release.fetch_max(cut, SeqCst);
        self.wake();
    }

    /// The last cut of which everything has gone. 0 before the first.
    pub fn released(&self) -> u64 {
        self.shared.released.load(SeqCst)
    }

    /// How many records are kept now.
    pub fn held(&self) -> usize {
        self.shared.held.load(SeqCst)
    }

    /// Activates the operator.
    pub fn wake(&self) {
        if let Some(waker) = self.shared.waker.get() {
            waker.wake();
        }
    }
}

/// What a loop and its hold, on one worker, tell each other.
#[derive(Default)]
pub(crate) struct Link {
    asked: Cell<u64>,
    written: Cell<u64>,
    hold: RefCell<Option<Activator>>,
    keyed_loop: RefCell<Option<Activator>>,
}

impl Link {
    pub(crate) fn of(keyed_loop: Activator) -> Self {
        Link { keyed_loop: RefCell::new(Some(keyed_loop)), ..Link::default() }
    }

    /// Asks for what left before this cut, which was taken.
    pub(crate) fn ask(&self, cut: u64) {
        if self.asked.replace(cut) != cut
            && let Some(hold) = &*self.hold.borrow()
        {
            hold.activate();
        }
    }

    /// Whether all that left before this cut was handed over.
    pub(crate) fn is_written(&self, cut: u64) -> bool {
        self.written.get() >= cut
    }

    fn note_written(&self, cut: u64) {
        self.written.set(cut);
        if let Some(keyed_loop) = &*self.keyed_loop.borrow() {
            keyed_loop.activate();
        }
    }
}

/// Says, when the operator is dropped, that nothing will be kept any more: an operator whose input is over
/// and that keeps nothing is not activated again.
struct AtEnd(Rc<Link>);

impl Drop for AtEnd {
    fn drop(&mut self) {
        self.0.note_written(u64::MAX);
    }
}

/// Builds the hold of this worker. It gives what is not kept, and what was.
pub(crate) fn hold<'scope, T: Timestamp, D: 'static>(
    scope: Scope<'scope, LoopTime<T>>,
    name: &str,
    stream: Stream<'scope, LoopTime<T>, Vec<D>>,
    hold: Hold<T, D>,
    slice: usize,
    link: Rc<Link>,
) -> Outputs<'scope, LoopTime<T>, D> {
    let mut builder = OperatorBuilder::new(format!("Hold [{name}]"), scope);
    let mut input = builder.new_input(stream, Pipeline);
    let (output, held) = builder.new_output::<Vec<D>>();
    let mut output: OutputBuilder<_, CapacityContainerBuilder<Vec<D>>> =
        OutputBuilder::from(output);
    let (passing, free) = builder.new_output::<Vec<D>>();
    let mut passing: OutputBuilder<_, CapacityContainerBuilder<Vec<D>>> =
        OutputBuilder::from(passing);
    let address = builder.operator_info().address;
    let waker = Waker::new(scope.worker().sync_activator_for(address.to_vec()));
    let activator = scope.activator_for(Rc::clone(&address));
    *link.hold.borrow_mut() = Some(scope.activator_for(address));
    let Hold { control, mut keeps, mut on_cut, mut stamp, mut back } = hold;
    assert!(
        control.shared.waker.set(waker.clone()).is_ok(),
        "a control of a hold belongs to one worker's hold"
    );
    builder.build(move |mut born| {
        let at_end = AtEnd(link);
        // For what is not kept, what it comes with is enough.
        born.truncate(1);
        let mut holdings = Holdings::<T, 1>::born(born, Order::Arrival);
        let mut kept = Kept::new();
        move |frontiers| {
            let link = &at_end.0;
            waker.clear();
            let mut passing = passing.activate();
            input.for_each(|batch, data| {
                let records = match &mut keeps {
                    None => std::mem::take(data),
                    Some(keeps) => {
                        let (records, mut free) = data.drain(..).partition(|record| keeps(record));
                        passing.session(&batch).give_container(&mut free);
                        records
                    }
                };
                if !records.is_empty() {
                    let LoopTime { outer, inner } = batch.time().clone();
                    holdings.receive(&batch, inner);
                    kept.keep(outer, inner.cuts, records);
                }
            });
            control.shared.held.store(kept.records, SeqCst);
            let mut output = output.activate();
            let mut go = |holdings: &Holdings<T, 1>, cut, time: &T, mut records: Vec<D>| {
                if let Some(stamp) = &mut stamp {
                    records.iter_mut().for_each(|record| stamp(cut, record));
                }
                if !records.is_empty() {
                    output.session(&holdings.exactly(time, 0)).give_container(&mut records);
                }
            };
            if let Some(restored) = &mut back {
                let released = &control.shared.released;
                match restored(&mut |cut, time, records| {
                    released.fetch_max(cut, SeqCst);
                    go(&holdings, cut, time, records);
                }) {
                    Work::Done => back = None,
                    Work::More => return activator.activate(),
                    Work::Waiting => return,
                }
            }
            // Before anything is handed over: what is released is not part of a later cut.
            let release = control.shared.release.load(SeqCst);
            kept.release(release, |time, records| go(&holdings, release, time, records));
            control.shared.held.store(kept.records, SeqCst);
            control.shared.released.fetch_max(release, SeqCst);
            let asked = link.asked.get();
            let all_here = frontiers[0].frontier().iter().all(|time| time.inner.cuts >= asked);
            if !link.is_written(asked) && all_here {
                if kept.write(asked, slice, &mut on_cut) {
                    link.note_written(asked);
                } else {
                    activator.activate();
                }
            }
            holdings.follow(kept.settle());
        }
    });
    Outputs { free, kept: held }
}

/// A batch that is kept, and after how many cuts it left.
struct KeptBatch<D> {
    time: TimeIndex,
    count: u64,
    records: Vec<D>,
}

/// What is kept, as it came: counts never fall.
struct Kept<T: Timestamp, D> {
    batches: VecDeque<KeptBatch<D>>,
    times: LiveTimes<Stage<T>>,
    records: usize,
    /// The cut that is being written, and how many of the batches were handed over for it.
    cut: u64,
    told: usize,
}

impl<T: Timestamp, D> Kept<T, D> {
    fn new() -> Self {
        let times = LiveTimes::new();
        Kept { batches: VecDeque::new(), times, records: 0, cut: 0, told: 0 }
    }

    fn keep(&mut self, time: T, count: u64, records: Vec<D>) {
        let time = self.times.index_of(&Product::new(time, 0));
        self.times.add(time, 1);
        self.records += records.len();
        self.batches.push_back(KeptBatch { time, count, records });
    }

    /// Hands over about so many records of those that left before a cut. Says whether those were all.
    fn write(&mut self, cut: u64, most: usize, on_cut: &mut OnCut<T, D>) -> bool {
        if self.cut != cut {
            (self.cut, self.told) = (cut, 0);
        }
        let mut handed_over = 0;
        while let Some(batch) = self.batches.get(self.told).filter(|batch| batch.count < cut) {
            if handed_over >= most {
                return false;
            }
            handed_over += batch.records.len();
            let time = &self.times.time(batch.time).outer;
            on_cut(HeldBatch { cut, time, records: &batch.records });
            self.told += 1;
        }
        true
    }

    /// Lets go of what left before a cut.
    fn release(&mut self, cut: u64, mut go: impl FnMut(&T, Vec<D>)) {
        #[cfg(statefun_planted)]
        let cut = self.cut_by_time(cut);
        while self.batches.front().is_some_and(|batch| batch.count < cut) {
            let batch = self.batches.pop_front().expect("there is a first one");
            self.records -= batch.records.len();
            self.told = self.told.saturating_sub(1);
            go(&self.times.time(batch.time).outer, batch.records);
            self.times.finish_one(batch.time);
        }
    }

    /// The cut that would let everything go whose time is not after one of those that belong to a cut.
    #[cfg(statefun_planted)]
    fn cut_by_time(&self, cut: u64) -> u64 {
        let times = || self.batches.iter().map(|batch| (batch.count, self.times.time(batch.time)));
        let last = times().filter(|(count, _)| *count < cut).map(|(_, time)| time).max();
        let is_over = |time: &Stage<T>| last.is_some_and(|last| time <= last);
        let later = times().filter(|(count, time)| *count >= cut && is_over(time));
        match later.map(|(count, _)| count + 1).max() {
            Some(later) if crate::planted::releases_by_time() => later,
            _ => cut,
        }
    }

    /// The minimal times of what is kept.
    fn settle(&mut self) -> &[Stage<T>] {
        self.times.settle();
        self.times.minimal()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is released while a cut is being written was there before it, and is not written twice.
    #[test]
    fn each_batch_is_written_once_for_a_cut_and_goes_once() {
        let mut kept = Kept::<u64, u64>::new();
        for (time, count, number) in [(5, 0, 1), (3, 0, 2), (5, 1, 3), (9, 1, 4), (9, 2, 5)] {
            kept.keep(time, count, vec![number, number]);
        }
        let written = Rc::new(RefCell::new(Vec::new()));
        let seen = Rc::clone(&written);
        let mut on_cut: OnCut<u64, u64> = Box::new(move |batch| {
            seen.borrow_mut().push((batch.cut, *batch.time, batch.records[0]));
        });
        assert!(!kept.write(1, 1, &mut on_cut));
        assert!(kept.write(1, 9, &mut on_cut));
        assert_eq!(written.take(), [(1, 5, 1), (1, 3, 2)]);
        // The first was given up.
        assert!(!kept.write(2, 3, &mut on_cut));
        assert_eq!(written.take(), [(2, 5, 1), (2, 3, 2)]);
        let mut gone = Vec::new();
        kept.release(1, |time, records| gone.push((*time, records[0])));
        assert_eq!(gone, [(5, 1), (3, 2)]);
        assert_eq!(kept.settle(), [Product::new(5, 0)]);
        assert!(kept.write(2, 9, &mut on_cut));
        assert_eq!(written.take(), [(2, 5, 3), (2, 9, 4)]);
        gone.clear();
        kept.release(2, |time, records| gone.push((*time, records[0])));
        assert_eq!((gone, kept.records), (vec![(5, 3), (9, 4)], 2));
        assert_eq!(kept.settle(), [Product::new(9, 0)]);
    }
}

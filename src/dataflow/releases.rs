//! What one worker holds of what a set of functions emits: writes it when a cut is taken, has it leave when the
//! cut is durable, brings it back when that cut is restored, and says of each egress when it has all of a cut.
//!
//! Records that are released arrive behind the hold at their own times, and no frontier tells that all of a
//! cut are there. What is known is how many this worker has written for it: so many must come.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::{Rc, Weak};

use timely::progress::Timestamp;
use timely::scheduling::Activator;
use timely_statefun_operators::{HeldBatch, Hold, HoldControl, LetGo, Work};

use super::snapshots::{self, Scribe, SetNumber};
use crate::codec::Codec;
use crate::dead_letter::Reason;
use crate::dispatch::{
    Batch, CutType, ErasedEgress, HeldRecords, Holding, TypeIndex, egress_of, type_of,
};
use crate::records::{put_varint, put_with_length};
use crate::snapshot::PartReader;

/// Batches that one activation lets go of what is restored.
const BACK_AT_ONCE: usize = 256;

/// Restored records of an egress at a time.
type Gathered<T> = (usize, T, Option<Box<dyn Any>>);

/// What one worker holds of a set.
pub(super) struct Releases<T: Timestamp> {
    set: SetNumber,
    scribe: Weak<RefCell<Scribe<T>>>,
    control: HoldControl,
    /// By number, the egresses that are held.
    egresses: BTreeMap<usize, (&'static str, Holding<T>)>,
    /// Records that are held, and those that are restored and have not left.
    held: Cell<usize>,
    state: RefCell<State<T>>,
}

struct State<T> {
    /// The cut that was written last, and how many records it has of each egress here.
    written: (u64, BTreeMap<usize, u64>),
    /// Whether a record of each egress was read back for it.
    read_back: BTreeMap<usize, u64>,
    scratch: Vec<u8>,
    /// What is restored and has not left: its cut, its time, its records.
    back: VecDeque<(u64, T, Batch)>,
    /// How many records each restored cut has of each egress.
    back_counts: BTreeMap<u64, BTreeMap<usize, u64>>,
    is_restored: bool,
    outlets: BTreeMap<usize, Outlet>,
    is_over: bool,
}

/// What becomes known of one egress, for whoever takes it.
#[derive(Default)]
struct Outlet {
    /// Cuts, in order, with how many records they have here.
    cuts: VecDeque<(u64, u64)>,
    activator: Option<Activator>,
}

impl Outlet {
    fn activate(&self) {
        self.activator.iter().for_each(Activator::activate);
    }
}

impl<T: Timestamp> Releases<T> {
    /// For a set whose egresses these are; `None` if none of them is held.
    pub(super) fn of(
        egresses: &[ErasedEgress<T>],
        set: SetNumber,
        scribe: &Rc<RefCell<Scribe<T>>>,
    ) -> Option<Rc<Self>> {
        let held = egresses.iter().enumerate();
        let held = held.filter_map(|(at, egress)| Some((at, (egress.name, egress.holding?))));
        let egresses: BTreeMap<_, _> = held.collect();
        if egresses.is_empty() {
            return None;
        }
        let outlets = egresses.keys().map(|egress| (*egress, Outlet::default())).collect();
        let state = State {
            written: (0, BTreeMap::new()),
            read_back: BTreeMap::new(),
            scratch: Vec::new(),
            back: VecDeque::new(),
            back_counts: BTreeMap::new(),
            is_restored: false,
            outlets,
            is_over: false,
        };
        let (scribe, control, state) =
            (Rc::downgrade(scribe), HoldControl::new(), RefCell::new(state));
        Some(Rc::new(Releases { set, scribe, control, egresses, held: Cell::new(0), state }))
    }

    /// How the loop of the set holds.
    pub(super) fn hold(self: &Rc<Self>, restores: bool) -> Hold<T, Batch> {
        let (keeps, writes, goes) = (Rc::clone(self), Rc::clone(self), Rc::clone(self));
        let hold = Hold::new(&self.control)
            .keeps(move |batch: &Batch| {
                let records = keeps.records_of(batch);
                keeps.held.set(keeps.held.get() + records.unwrap_or(0));
                records.is_some()
            })
            .on_cut(move |batch| writes.write(&batch))
            .stamp(move |cut, batch: &mut Batch| {
                batch.cut = cut;
                goes.held.set(goes.held.get() - goes.records_of(batch).unwrap_or(0));
            });
        if !restores {
            return hold;
        }
        let back = Rc::clone(self);
        hold.restored(move |let_go| back.let_go(let_go))
    }

    /// How many records are held, those that are restored and have not left among them.
    pub(super) fn held(&self) -> usize {
        self.held.get()
    }

    /// How many records a batch has, if its egress is held.
    fn records_of(&self, batch: &Batch) -> Option<usize> {
        let (_, holding) = self.egresses.get(&batch.egress)?;
        Some(holding.len(HeldRecords(&*batch.records)))
    }

    /// Writes what a cut holds, a batch of it.
    fn write(&self, batch: &HeldBatch<'_, T, Batch>) {
        let HeldBatch { cut, time, records: batches } = batch;
        let mut state = self.state.borrow_mut();
        let State { written, read_back, scratch, .. } = &mut *state;
        if written.0 != *cut {
            *written = (*cut, BTreeMap::new());
        }
        for batch in *batches {
            let (_, holding) = &self.egresses[&batch.egress];
            let bins = holding.bins(HeldRecords(&*batch.records));
            *written.1.entry(batch.egress).or_default() += bins.len() as u64;
            let Some(scribe) = self.scribe.upgrade() else { continue };
            if !scribe.borrow().is_open(*cut) {
                continue;
            }
            let reads_back = read_back.insert(batch.egress, *cut) != Some(*cut);
            for (at, bin) in bins.into_iter().enumerate() {
                scratch.clear();
                put_varint(scratch, batch.egress as u64);
                let put = put_with_length(scratch, |to| Codec::SERDE.store(*time, to, reads_back));
                let records = HeldRecords(&*batch.records);
                let put =
                    put.and_then(|()| holding.store(records, at, scratch, reads_back && at == 0));
                if let Err(why) = put {
                    let (name, _) = &self.egresses[&batch.egress];
                    let why = format!("a record of egress \"{name}\" {why}");
                    return scribe.borrow_mut().fail_to_hold(*cut, why);
                }
                scribe.borrow_mut().hold(self.set, || self.table(), bin, scratch);
            }
        }
    }

    /// What the numbers of egresses mean.
    fn table(&self) -> Vec<u8> {
        let types = self.egresses.iter().map(|(number, (name, _))| CutType {
            number: *number as TypeIndex,
            name: type_of(name),
            is_bound: true,
            states: Default::default(),
        });
        let types: Vec<_> = types.collect();
        CutType::table(types.iter())
    }

    /// A cut is durable: what is held for it leaves.
    pub(super) fn committed(&self, cut: u64) {
        let mut state = self.state.borrow_mut();
        let counts = match &mut state.written {
            (written, counts) if *written == cut => std::mem::take(counts),
            _ => BTreeMap::new(),
        };
        state.say(cut, &counts);
        drop(state);
        self.control.release(cut);
        #[cfg(statefun_planted)]
        crate::planted::reach("held-released");
    }

    /// Brings back what a part has that this worker is to release.
    pub(super) fn bring_back(
        &self,
        part: &PartReader,
        set: &str,
        sets: &[String],
        place: (usize, usize),
    ) -> Result<(), String> {
        let (file, cut) = (part.entry.name, part.entry.name.cut);
        let damaged = |why: &dyn std::fmt::Display| format!("\"{file}\" is damaged: {why}");
        let mut numbers = BTreeMap::new();
        // What comes one after another of one egress at one time.
        let mut gathered: Option<Gathered<T>> = None;
        let mut state = self.state.borrow_mut();
        let numbers = RefCell::new(&mut numbers);
        let mut begin = |types: Vec<CutType>| {
            for CutType { number, name, .. } in types {
                let is_it = |name: &str| self.egresses.iter().find(|(_, (of, _))| *of == name);
                let egress = egress_of(&name).ok_or_else(|| damaged(&"it names no egress"))?;
                let (at, _) = is_it(egress).ok_or_else(|| {
                    format!("\"{file}\" has records of egress \"{egress}\", which is not held")
                })?;
                numbers.borrow_mut().insert(u64::from(number), *at);
            }
            Ok(())
        };
        let mut finish = |gathered: Option<Gathered<T>>| {
            if let Some((egress, time, Some(records))) = gathered {
                state.back.push_back((cut, time, Batch { egress, cut, records }));
            }
        };
        let mut counts = BTreeMap::<usize, u64>::new();
        snapshots::held_of(part, set, sets, place, &mut begin, &mut |number, bin, mut record| {
            let egress = numbers.borrow().get(&number).copied();
            let egress = egress.ok_or_else(|| damaged(&"it has records of no egress"))?;
            let time = record.with_length().map_err(|why| damaged(&why))?;
            let time: T = Codec::SERDE.read(time).map_err(|why| damaged(&why))?;
            if gathered.as_ref().is_none_or(|(of, at, _)| (*of, at) != (egress, &time)) {
                finish(gathered.replace((egress, time, None)));
            }
            let (_, _, records) = gathered.as_mut().expect("it was set");
            let (name, holding) = &self.egresses[&egress];
            holding.read(records, bin, record.rest()).map_err(|why| {
                format!("\"{file}\": a record of egress \"{name}\" cannot be read: {why}")
            })?;
            *counts.entry(egress).or_default() += 1;
            self.held.set(self.held.get() + 1);
            Ok(())
        })?;
        finish(gathered);
        let known = state.back_counts.entry(cut).or_default();
        counts.into_iter().for_each(|(egress, count)| *known.entry(egress).or_default() += count);
        Ok(())
    }

    /// All that is restored is there, of these cuts.
    pub(super) fn restored(&self, cuts: &[u64]) {
        let mut state = self.state.borrow_mut();
        if std::mem::replace(&mut state.is_restored, true) {
            return;
        }
        for cut in cuts {
            let counts = state.back_counts.remove(cut).unwrap_or_default();
            state.say(*cut, &counts);
        }
        drop(state);
        self.control.wake();
    }

    /// Lets some more of what is restored go, once all of it is there.
    fn let_go(&self, let_go: LetGo<'_, T, Batch>) -> Work {
        let mut state = self.state.borrow_mut();
        if !state.is_restored {
            return Work::Waiting;
        }
        for _ in 0..BACK_AT_ONCE {
            let Some((cut, time, batch)) = state.back.pop_front() else { return Work::Done };
            let_go(cut, &time, vec![batch]);
        }
        Work::More
    }

    /// No more cuts come.
    pub(super) fn end(&self) {
        let mut state = self.state.borrow_mut();
        state.is_over = true;
        state.outlets.values().for_each(Outlet::activate);
    }

    /// Says how to activate whoever takes an egress, and of how many acknowledgements are to come of each cut.
    pub(super) fn connect(&self, egress: usize, activator: Activator, from: usize) {
        let mut state = self.state.borrow_mut();
        state.outlet(egress).activator = Some(activator);
        if let Some(scribe) = self.scribe.upgrade() {
            scribe.borrow_mut().await_acknowledgements(self.set, egress as u32, from);
        }
    }

    /// The next cut of an egress, with how many records it has here.
    pub(super) fn next_cut(&self, egress: usize) -> Option<(u64, u64)> {
        self.state.borrow_mut().outlet(egress).cuts.pop_front()
    }

    /// Whether no cut will come any more.
    pub(super) fn is_over(&self) -> bool {
        self.state.borrow().is_over
    }

    /// One of those that take an egress has all of it up to a cut.
    pub(super) fn acknowledge(&self, egress: usize, by: usize, cut: u64) {
        #[cfg(statefun_planted)]
        crate::planted::reach("cut-acknowledged");
        // When all is over, nobody waits for it.
        if let Some(scribe) = self.scribe.upgrade() {
            scribe.borrow().acknowledge(self.set, egress as u32, by, cut);
        }
    }

    /// The program must stop, if it is not over.
    pub(super) fn stop(&self, reason: Reason) {
        Scribe::stop(&self.scribe, || reason);
    }
}

impl<T> State<T> {
    fn outlet(&mut self, egress: usize) -> &mut Outlet {
        self.outlets.get_mut(&egress).expect("it is held")
    }

    /// Says of each egress how many records of a cut are to come.
    fn say(&mut self, cut: u64, counts: &BTreeMap<usize, u64>) {
        for (egress, outlet) in &mut self.outlets {
            // Nobody takes it otherwise.
            if outlet.activator.is_some() {
                outlet.cuts.push_back((cut, counts.get(egress).copied().unwrap_or(0)));
                outlet.activate();
            }
        }
    }
}

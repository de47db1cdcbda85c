//! What one worker writes of a cut: gathers it from all sets of functions, has it stored, and tells
//! worker 0.
//!
//! Held egress has files of its own, so that later snapshots can name it alone.
//!
//! Files are cut off between two slices of one set, since only then can be asked what the numbers of
//! function types mean that stand in them.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::rc::{Rc, Weak};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use timely::progress::{Antichain, Timestamp};
use timely_statefun_operators::{AtCut, Bulletin, Council, Positions, Waker};

use super::chair::Chair;
use super::news::{Failure, Fate, News, Written};
use super::savepoint::{Asked, Savepoint};
use super::{SnapshotCounts, SnapshotDone};
use crate::dataflow::meters::SnapshotFigures;
use crate::dataflow::sources::Passage;
use crate::dead_letter::{Reason, Stopped};
use crate::dispatch::{CutError, CutSink, CutType, RecordKind, TypeIndex};
use crate::records::{put_text, put_varint, put_with_length};
use crate::snapshot::{Gathered, PartEntry, PartName, PartWriter, Process, SnapshotError};

/// The number of a set of functions among those that share snapshots, in the order in which they are built.
pub(crate) type SetNumber = u8;

/// What one worker knows of cuts, and writes of the one that is open.
pub(in crate::dataflow) struct Scribe<T: Timestamp> {
    worker: usize,
    execution: u64,
    process: Arc<Process>,
    part_bytes: usize,
    council: Council<News<T>>,
    chair: Option<Chair<T>>,
    sets: Vec<Set>,
    /// What the next cut is an increment of.
    base: Option<u64>,
    open: Option<Open<T>>,
    /// The last cut of which is known what became of it.
    over: u64,
    /// What gates have noted of cuts that are not over.
    noted: BTreeMap<u64, Noted<T>>,
    stored: (Sender<Stored>, Receiver<Stored>),
    /// Sources whose records somebody may hold receipts of.
    passages: Vec<Rc<Passage>>,
    wakers: Wakers,
    /// The savepoints that this worker has asked for.
    asked: Asked<T>,
    /// Why the program must stop.
    stop: Option<Reason>,
}

type Stored = (u64, Result<PartEntry, SnapshotError>);

/// What the gates of this worker have noted of a cut.
struct Noted<T> {
    positions: BTreeMap<String, Positions>,
    /// The latest times of what was let in.
    latest: Vec<T>,
    /// If the cut is aligned to a frontier, whether all could keep to it.
    aligned: Option<bool>,
}

impl<T> Default for Noted<T> {
    fn default() -> Self {
        Noted { positions: BTreeMap::new(), latest: Vec::new(), aligned: None }
    }
}

/// Adds a time to those of which none is after another.
pub(super) fn note_latest<T: Timestamp>(latest: &mut Vec<T>, time: &T) {
    if !latest.iter().any(|known| time.less_equal(known)) {
        latest.retain(|known| !known.less_equal(time));
        latest.push(time.clone());
    }
}

/// Wakes the loops of all sets, from any thread.
#[derive(Clone, Default)]
struct Wakers(Arc<Mutex<Vec<Waker>>>);

impl Wakers {
    fn wake(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().for_each(Waker::wake);
    }
}

struct Set {
    name: String,
    /// What became of the last cut, until the set has heard of it.
    fate: Option<Fate>,
}

/// The cut that is being written.
struct Open<T> {
    cut: u64,
    writer: PartWriter,
    /// The function types that are named in the part that is being written, and those among them that it
    /// does not yet say the names of.
    named: BTreeSet<(SetNumber, TypeIndex)>,
    unnamed: Vec<(SetNumber, TypeIndex)>,
    /// The sets that the part that is being written says the names of, and whether it has records of one
    /// that it does not: there may be some that refer to no function type.
    told: BTreeSet<SetNumber>,
    is_untold: bool,
    /// What is held, and the sets that the part of it which is being written says the names of.
    held: PartWriter,
    held_told: BTreeSet<SetNumber>,
    /// Sets that have not written all of theirs.
    writing: BTreeSet<SetNumber>,
    complete: Antichain<T>,
    /// The time at which events happened, the latest of all sets.
    events: Option<T>,
    counts: SnapshotCounts,
    /// Parts that are not known to be stored.
    under_way: usize,
    parts: Vec<PartEntry>,
    /// Whether worker 0 was told how it ended here.
    is_told: bool,
}

impl<T: Timestamp> Scribe<T> {
    pub(super) fn new(
        worker: usize,
        execution: u64,
        process: Arc<Process>,
        part_bytes: usize,
        council: Council<News<T>>,
        chair: Option<Chair<T>>,
        base: Option<u64>,
    ) -> Rc<RefCell<Self>> {
        let wakers = Wakers::default();
        let woken = wakers.clone();
        council.on_news(move || woken.wake());
        Rc::new(RefCell::new(Scribe {
            worker,
            execution,
            process,
            part_bytes,
            council,
            chair,
            sets: Vec::new(),
            base,
            open: None,
            over: 0,
            noted: BTreeMap::new(),
            stored: channel(),
            passages: Vec::new(),
            wakers,
            asked: Asked::new(),
            stop: None,
        }))
    }

    /// Adds a set of functions, which takes part in all cuts. `None`: there are too many.
    pub(super) fn join(&mut self, name: &str) -> Option<SetNumber> {
        let number = SetNumber::try_from(self.sets.len()).ok()?;
        self.sets.push(Set { name: name.to_owned(), fate: None });
        Some(number)
    }

    /// Tells of snapshots in this bulletin as well, if this is worker 0.
    pub(super) fn tell_in(&mut self, bulletin: Bulletin<T, SnapshotDone<T>>) {
        if let Some(chair) = &mut self.chair {
            chair.tell_in(bulletin);
        }
    }

    /// The names of all sets.
    pub(in crate::dataflow) fn set_names(&self) -> Vec<String> {
        self.sets.iter().map(|set| set.name.clone()).collect()
    }

    /// Tells a source what becomes of cuts.
    pub(in crate::dataflow) fn tell_passage(&mut self, passage: Rc<Passage>) {
        self.passages.push(passage);
    }

    /// Says how to wake the loop of a set.
    pub(in crate::dataflow) fn connect(&self, waker: Waker) {
        self.wakers.0.lock().unwrap_or_else(PoisonError::into_inner).push(waker);
    }

    /// Asks worker 0 for a snapshot.
    pub(super) fn ask(&self) {
        self.council.tell(0, News::Asked);
    }

    /// Asks worker 0 for one that is aligned to a frontier.
    pub(super) fn ask_aligned(&self, frontier: &Antichain<T>) {
        self.council.tell(0, News::AskedAligned(frontier.elements().to_vec()));
    }

    /// Asks worker 0 for a savepoint.
    pub(super) fn ask_savepoint(&mut self, name: &str, stops: bool) -> Savepoint<T> {
        let (number, savepoint) = self.asked.add(name);
        self.council.tell(0, News::Savepoint { number, name: name.to_owned(), stops });
        savepoint
    }

    /// A set takes a cut. Says whether it is an increment of the last that was committed; `None` if the cut
    /// was given up before it came to be known here. Events happen at time `now` in it.
    pub(in crate::dataflow) fn take(&mut self, cut: u64, now: Option<&T>) -> Option<bool> {
        if cut <= self.over {
            return None;
        }
        if self.open.as_ref().is_none_or(|open| open.cut != cut) {
            #[cfg(statefun_planted)]
            crate::planted::reach("cut-taken");
            let named = |index| PartName {
                execution: self.execution,
                cut,
                worker: self.worker as u32,
                index,
            };
            self.open = Some(Open {
                cut,
                writer: PartWriter::new(named(0), self.part_bytes),
                named: BTreeSet::new(),
                unnamed: Vec::new(),
                told: BTreeSet::new(),
                is_untold: false,
                held: PartWriter::new(named(PartName::HELD), self.part_bytes),
                held_told: BTreeSet::new(),
                writing: (0..self.sets.len() as SetNumber).collect(),
                complete: Antichain::new(),
                events: None,
                counts: SnapshotCounts::default(),
                under_way: 0,
                parts: Vec::new(),
                is_told: false,
            });
            self.process.uploads.begin(self.process.clock.now_ms());
            if let Some(chair) = &mut self.chair {
                chair.opened(cut);
            }
        }
        let open = self.open.as_mut().expect("it is open");
        open.events = open.events.take().max(now.cloned());
        Some(self.base.is_some())
    }

    /// Notes what a gate had admitted when it took a cut.
    pub(in crate::dataflow) fn note(this: &Weak<RefCell<Self>>, ingress: &str, at: AtCut<'_, T>) {
        // A gate may outlive the loops at the end, when no cut comes any more.
        let Some(scribe) = this.upgrade() else { return };
        let mut scribe = scribe.borrow_mut();
        let noted = scribe.noted.entry(at.cut).or_default();
        noted.positions.insert(ingress.to_owned(), at.positions.clone());
        at.latest.iter().for_each(|time| note_latest(&mut noted.latest, time));
        noted.aligned = both(noted.aligned, at.aligned);
    }

    /// Stops the program, if nothing has before.
    pub(in crate::dataflow) fn stop(this: &Weak<RefCell<Self>>, reason: impl FnOnce() -> Reason) {
        let Some(scribe) = this.upgrade() else { return };
        let mut scribe = scribe.borrow_mut();
        scribe.stop.get_or_insert_with(reason);
        scribe.wakers.wake();
    }

    /// Whether more of a cut may be written now: it is open, and the store keeps up.
    pub(in crate::dataflow) fn takes_more(&self, cut: u64) -> bool {
        self.is_open(cut) && self.process.uploads.has_room()
    }

    /// Whether a cut is being written here.
    pub(in crate::dataflow) fn is_open(&self, cut: u64) -> bool {
        self.open.as_ref().is_some_and(|open| open.cut == cut && !open.is_told)
    }

    /// Where a set writes what belongs to the open cut.
    pub(in crate::dataflow) fn sink(&mut self, set: SetNumber) -> Sink<'_, T> {
        Sink { open: self.open.as_mut().expect("a cut is open"), set }
    }

    /// Ends a slice of what a set writes: says what the numbers in it mean, and stores it if it is enough.
    pub(in crate::dataflow) fn end_slice(
        &mut self,
        set: SetNumber,
        type_of: impl Fn(TypeIndex) -> CutType,
    ) {
        let Some(open) = &mut self.open else { return };
        if !open.unnamed.is_empty() || open.is_untold {
            open.told.insert(set);
            open.is_untold = false;
            let types: Vec<_> = open.unnamed.drain(..).map(|(_, index)| type_of(index)).collect();
            let name = &self.sets[usize::from(set)].name;
            open.writer.append(section(set, TABLE), 0, |section| {
                put_framed(section, |to| {
                    put_text(to, name);
                    to.extend(CutType::table(types.iter()));
                });
            });
        }
        if open.writer.is_full() {
            self.store_part();
        }
    }

    fn store_part(&mut self) {
        let Some(open) = &mut self.open else { return };
        debug_assert!(open.unnamed.is_empty(), "what numbers mean is said where they stand");
        debug_assert!(!open.is_untold, "whose records they are is said where they stand");
        open.named.clear();
        open.told.clear();
        let Some(gathered) = open.writer.take() else { return };
        open.under_way += 1;
        self.upload(gathered);
    }

    /// Writes a record that a set holds for the open cut. `table` says what the numbers of egresses mean.
    pub(in crate::dataflow) fn hold(
        &mut self,
        set: SetNumber,
        table: impl FnOnce() -> Vec<u8>,
        bin: u16,
        record: &[u8],
    ) {
        let Some(open) = &mut self.open else { return };
        if open.held_told.insert(set) {
            let name = &self.sets[usize::from(set)].name;
            open.held.append(section(set, TABLE), 0, |section| {
                put_framed(section, |to| {
                    put_text(to, name);
                    to.extend(table());
                });
            });
        }
        open.counts.held += 1;
        open.held.append(section(set, HELD), u32::from(bin), |section| {
            put_varint(section, record.len() as u64);
            section.extend_from_slice(record);
        });
        if open.held.is_full() {
            self.store_held();
        }
    }

    fn store_held(&mut self) {
        let Some(open) = &mut self.open else { return };
        open.held_told.clear();
        let Some(gathered) = open.held.take() else { return };
        open.under_way += 1;
        self.upload(gathered);
    }

    fn upload(&self, gathered: Gathered) {
        let (tell, cut, wakers) = (self.stored.0.clone(), gathered.name.cut, self.wakers.clone());
        self.process.uploads.store(gathered, move |outcome| {
            // A worker that has ended wants to know nothing.
            drop(tell.send((cut, outcome)));
            wakers.wake();
        });
    }

    /// How much memory takes what is written and not handed over.
    pub(in crate::dataflow) fn bytes(&self) -> usize {
        self.open.as_ref().map_or(0, |open| open.writer.bytes() + open.held.bytes())
    }

    /// A set cannot write its part of a cut.
    pub(in crate::dataflow) fn fail(&mut self, cut: u64, error: &CutError) {
        self.give_up(cut, Failure { why: error.to_string(), wants_full: error.wants_full() });
    }

    /// Something that is held cannot be written.
    pub(in crate::dataflow) fn fail_to_hold(&mut self, cut: u64, why: String) {
        self.give_up(cut, Failure { why, wants_full: false });
    }

    /// Waits for acknowledgements of an egress from so many, if this is worker 0.
    pub(in crate::dataflow) fn await_acknowledgements(
        &mut self,
        set: SetNumber,
        egress: u32,
        from: usize,
    ) {
        if let Some(chair) = &mut self.chair {
            chair.await_acknowledgements(set, egress, from);
        }
    }

    /// One of those that take an egress has all of it up to a cut.
    pub(in crate::dataflow) fn acknowledge(
        &self,
        set: SetNumber,
        egress: u32,
        by: usize,
        cut: u64,
    ) {
        self.council.tell(0, News::Acknowledged { set, egress, by: by as u32, cut });
    }

    fn give_up(&mut self, cut: u64, failure: Failure) {
        if let Some(open) = self.open.as_mut().filter(|open| open.cut == cut && !open.is_told) {
            open.is_told = true;
            self.council.tell(0, News::Written { cut, written: Err(failure) });
        }
    }

    /// All that a set has of a cut is written, and nothing that belongs to it can come any more.
    pub(in crate::dataflow) fn complete(&mut self, set: SetNumber, cut: u64, complete: &[T]) {
        let Some(open) = self.open.as_mut().filter(|open| open.cut == cut && !open.is_told) else {
            return;
        };
        open.writing.remove(&set);
        open.complete.extend(complete.iter().cloned());
        if open.writing.is_empty() {
            self.store_part();
            self.store_held();
            self.tell_if_stored();
        }
    }

    /// Tells worker 0 if all of the open cut is written and stored.
    fn tell_if_stored(&mut self) {
        let Some(open) = &mut self.open else { return };
        if open.is_told || !open.writing.is_empty() || open.under_way > 0 {
            return;
        }
        open.is_told = true;
        let noted = self.noted.remove(&open.cut).unwrap_or_default();
        let written = Written {
            parts: std::mem::take(&mut open.parts),
            positions: noted.positions,
            latest: noted.latest,
            aligned: noted.aligned,
            complete: open.complete.elements().to_vec(),
            events: open.events.take(),
            counts: open.counts,
        };
        self.council.tell(0, News::Written { cut: open.cut, written: Ok(written) });
        #[cfg(statefun_planted)]
        crate::planted::reach("written-told");
    }

    /// Takes in what has happened meanwhile. Called by each set whenever its loop is activated.
    ///
    /// # Errors
    ///
    /// Why the program must stop.
    pub(in crate::dataflow) fn poll(&mut self) -> Result<(), Stopped> {
        while let Ok((cut, stored)) = self.stored.1.try_recv() {
            let Some(open) = self.open.as_mut().filter(|open| open.cut == cut) else { continue };
            open.under_way -= 1;
            match stored {
                Ok(part) => {
                    open.parts.push(part);
                    self.tell_if_stored();
                }
                Err(error) => {
                    let why = error.to_string();
                    self.give_up(cut, Failure { why, wants_full: false });
                }
            }
        }
        while let Some((from, news)) = self.council.heard() {
            match news {
                News::Fate(fate) => self.hear(fate),
                News::Saved { worker, number, outcome } => {
                    if worker == self.worker {
                        self.asked.tell(number, outcome);
                    }
                }
                News::Stop(reason) => {
                    self.stop.get_or_insert(reason);
                    self.wakers.wake();
                }
                news => {
                    if let Some(chair) = &mut self.chair {
                        let (council, wakers) = (&self.council, self.wakers.clone());
                        let mut tell = |news| council.tell_all(news);
                        chair.hear(from, news, move || wakers.wake(), &mut tell);
                    }
                }
            }
        }
        if let Some(chair) = &mut self.chair {
            let (council, wakers) = (&self.council, self.wakers.clone());
            chair.settle(move || wakers.wake(), &mut |news| council.tell_all(news));
            chair.pause(&self.process.uploads);
        }
        match &self.stop {
            Some(reason) => {
                let (reason, worker) = (reason.clone(), self.worker);
                Err(Stopped { address: None, reason, worker })
            }
            None => Ok(()),
        }
    }

    fn hear(&mut self, fate: Fate) {
        #[cfg(statefun_planted)]
        crate::planted::reach("fate-heard");
        let Fate { cut, committed, base } = fate;
        (self.base, self.open, self.over) = (base, None, cut);
        self.noted = self.noted.split_off(&(cut + 1));
        match committed {
            true => self.process.uploads.committed(cut, self.process.clock.now_ms()),
            false => self.process.uploads.abandon(cut),
        }
        self.passages.iter().for_each(|passage| passage.hear(cut, committed));
        for set in &mut self.sets {
            set.fate = Some(fate);
        }
        self.wakers.wake();
    }

    /// Tells a set, once, what became of the last cut. When all sets know, worker 0 is told.
    pub(in crate::dataflow) fn fate(&mut self, set: SetNumber) -> Option<Fate> {
        let fate = self.sets[usize::from(set)].fate.take()?;
        if self.sets.iter().all(|set| set.fate.is_none()) {
            self.council.tell(0, News::Heard { cut: fate.cut });
        }
        Some(fate)
    }

    /// How snapshots are getting on, if this is worker 0. How long they took is told once.
    pub(in crate::dataflow) fn take_figures(&mut self) -> Option<SnapshotFigures> {
        let figures = self.chair.as_mut()?.take_figures();
        let (status, now_ms) = (self.process.uploads.status(), self.process.clock.now_ms());
        let age = status.committed_at_ms.map(|at| Duration::from_millis(now_ms.saturating_sub(at)));
        Some(SnapshotFigures { age, unacknowledged: status.unacknowledged.len(), ..figures })
    }

    /// After how long to poll again, if nothing happens.
    pub(in crate::dataflow) fn look_after(&self) -> Option<Duration> {
        self.chair.as_ref().and_then(Chair::look_after)
    }
}

/// What two parts of a cut say of its alignment, if they say something.
pub(super) fn both(one: Option<bool>, other: Option<bool>) -> Option<bool> {
    one.into_iter().chain(other).reduce(|one, other| one && other)
}

/// The kind of a section that says whose records a part has, and what numbers of function types in them
/// mean: the name of the set, and a table of types, as often as is needed.
pub(crate) const TABLE: u16 = 0;

/// The kind of a section that has held egress, in parts of its own. A record is the number of the egress,
/// varint, for which a table has its name as that of a function type; its time, with its length; and what
/// was emitted, to the end. Both are MessagePack.
pub(crate) const HELD: u16 = 8;

/// The kind of a section: of which set it is, and what it has.
pub(crate) fn section(set: SetNumber, kind: u16) -> u16 {
    u16::from(set) << 8 | kind
}

/// Adds what `write` adds, with its length before it.
pub(crate) fn put_framed(section: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let framed = put_with_length(section, |to| -> Result<(), Infallible> {
        write(to);
        Ok(())
    });
    framed.unwrap_or_else(|never| match never {});
}

/// Where a set writes what belongs to a cut.
pub(in crate::dataflow) struct Sink<'a, T> {
    open: &'a mut Open<T>,
    set: SetNumber,
}

impl<T> CutSink for Sink<'_, T> {
    fn put(&mut self, kind: RecordKind, bin: u16, types: &[TypeIndex], record: &[&[u8]]) {
        let Open { writer, named, unnamed, told, is_untold, counts, .. } = &mut *self.open;
        *is_untold |= !told.contains(&self.set);
        for index in types {
            if named.insert((self.set, *index)) {
                unnamed.push((self.set, *index));
            }
        }
        // A message has a target, and what only says that one waits no more has none.
        counts.count(kind, types.is_empty());
        writer.append(section(self.set, kind.number()), u32::from(bin), |section| {
            put_varint(section, record.iter().map(|piece| piece.len() as u64).sum());
            record.iter().for_each(|piece| section.extend_from_slice(piece));
        });
    }
}

//! What worker 0 decides of a cut: whether all workers have written it, whether it counts, and when the
//! next may be announced.
//!
//! A cut is open from its announcement until every worker has heard what became of it. Until then no
//! other is announced, so every worker knows what the next one builds upon before anything red for it
//! can reach that worker.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use bytes::Bytes;
use timely::progress::{Antichain, Timestamp};
use timely_statefun_operators::{Bulletin, CutControl};

use super::acknowledgements::Acknowledgements;
use super::naming::{Asker, Naming, Wanted};
use super::news::{Failure, Fate, News, Written};
use super::savepoint::Outcome;
use super::scribe::{both, note_latest};
use super::{SetNumber, SnapshotDone};
use crate::clock::Clock;
use crate::dataflow::meters::{SnapshotFigures, TOOK_MAX};
use crate::dead_letter::Reason;
use crate::snapshot::{Cut, Keeper, Kept, Link, PartEntry, SAVEPOINT_NAME, SnapshotError, Uploads};

/// Decides on the cuts of one execution.
pub(super) struct Chair<T: Timestamp> {
    peers: usize,
    execution: u64,
    keeper: Keeper,
    control: CutControl<T>,
    deadline: Duration,
    /// Where snapshots are told of, one for each set of functions.
    bulletins: Vec<Bulletin<T, SnapshotDone<T>>>,
    /// What the next cut is an increment of.
    base: Option<u64>,
    open: Option<Open<T>>,
    kept: (Sender<Kept>, Receiver<Kept>),
    /// The savepoints that are asked for.
    naming: Naming,
    /// What snapshots are stamped with.
    clock: Clock,
    acknowledgements: Acknowledgements,
    /// How often the last cut was given up in a row.
    last_given_up: u32,
    /// How snapshots are getting on, as far as this is known here.
    figures: SnapshotFigures,
}

/// How often the last cut may be given up while egress is held for it.
const LAST_TRIED_MAX: u32 = 3;

struct Open<T> {
    cut: u64,
    since: Instant,
    stage: Stage<T>,
    /// Whether a worker can only write it in full.
    in_full: bool,
}

enum Stage<T> {
    /// Workers write it.
    Writing(BTreeMap<usize, Written<T>>),
    /// It is being committed.
    /// It is being committed, with its held egress.
    Committing(SnapshotDone<T>, Option<Link>),
    /// So many workers have heard what became of it.
    Telling { fate: Fate, heard: usize },
}

impl<T: Timestamp> Chair<T> {
    pub(super) fn new(
        (peers, execution): (usize, u64),
        keeper: Keeper,
        control: CutControl<T>,
        deadline: Duration,
        base: Option<u64>,
        clock: Clock,
        acknowledgements: Acknowledgements,
    ) -> Self {
        let (bulletins, open, kept) = (Vec::new(), None, channel());
        Chair {
            peers,
            execution,
            keeper,
            control,
            deadline,
            bulletins,
            base,
            open,
            kept,
            naming: Naming::new(),
            clock,
            acknowledgements,
            last_given_up: 0,
            figures: SnapshotFigures::default(),
        }
    }

    /// How snapshots are getting on, as far as this is known here. How long they took is told once.
    pub(super) fn take_figures(&mut self) -> SnapshotFigures {
        let took = std::mem::take(&mut self.figures.took);
        SnapshotFigures { took, ..self.figures.clone() }
    }

    /// Waits for acknowledgements of an egress from so many.
    pub(super) fn await_acknowledgements(&mut self, set: SetNumber, egress: u32, from: usize) {
        self.acknowledgements.expect(set, egress, from);
    }

    /// Lets cuts be announced, and the program end, or not, as it stands with acknowledgements.
    pub(super) fn pause(&self, uploads: &Uploads) {
        let has_ended = self.control.has_ended();
        self.control.pause(self.acknowledgements.are_missing(has_ended));
        uploads.unacknowledged(self.acknowledgements.cuts());
    }

    /// Tells of snapshots here as well.
    pub(super) fn tell_in(&mut self, bulletin: Bulletin<T, SnapshotDone<T>>) {
        self.bulletins.push(bulletin);
    }

    /// Notes that a cut was taken, on this worker first or by what another one says.
    pub(super) fn opened(&mut self, cut: u64) {
        if self.open.is_none() {
            let stage = Stage::Writing(BTreeMap::new());
            self.naming.opened(cut);
            self.open = Some(Open { cut, since: Instant::now(), stage, in_full: false });
        }
        let open = self.open.as_ref().expect("it was set").cut;
        assert_eq!(open, cut, "one cut is open at a time");
    }

    /// Takes in what a worker says. `wake` is called when there is more to [settle](Self::settle).
    pub(super) fn hear(
        &mut self,
        from: usize,
        news: News<T>,
        wake: impl Fn() + Send + 'static,
        tell: &mut impl FnMut(News<T>),
    ) {
        match news {
            News::Written { cut, written } => {
                self.opened(cut);
                match written {
                    Ok(written) => self.gather(from, written, wake),
                    Err(Failure { why, wants_full: true }) => {
                        tracing::debug!(cut, worker = from, why, "the next snapshot is a full one");
                        self.in_full(cut, tell);
                    }
                    Err(Failure { why, wants_full: false }) => {
                        tracing::error!(cut, worker = from, why, "a snapshot is given up");
                        self.decide(false, self.base, tell);
                    }
                }
            }
            News::Heard { cut } => self.heard(cut, tell),
            News::Acknowledged { set, egress, by, cut } => {
                self.acknowledgements.hear(set, egress, by, cut);
            }
            News::Asked => self.control.request(),
            News::AskedAligned(to) => self.control.request_aligned(to.into_iter().collect()),
            News::Savepoint { number, name, stops } => {
                self.naming.ask(Wanted { by: Asker { worker: from, number }, name, stops });
            }
            News::Fate(_) | News::Saved { .. } | News::Stop(_) => {}
        }
    }

    fn gather(&mut self, from: usize, written: Written<T>, wake: impl Fn() + Send + 'static) {
        let Some(Open { cut, stage, .. }) = &mut self.open else { return };
        // One that comes after the cut was given up is of no use.
        let Stage::Writing(workers) = stage else { return };
        workers.insert(from, written);
        // After a savepoint that the program stops at nothing counts any more.
        if workers.len() < self.peers || self.naming.has_stopped() {
            return;
        }
        let (mut parts, mut done) = (Vec::new(), SnapshotDone::empty(*cut));
        let mut complete = Antichain::new();
        for written in std::mem::take(workers).into_values() {
            parts.extend(written.parts);
            complete.extend(written.complete);
            done.events = done.events.max(written.events);
            done.aligned = both(done.aligned, written.aligned);
            written.latest.iter().for_each(|time| note_latest(&mut done.latest, time));
            for (ingress, positions) in written.positions {
                let known = done.positions.entry(ingress).or_default();
                for (partition, position) in positions {
                    let highest = known.entry(partition).or_insert(position);
                    *highest = position.max(*highest);
                }
            }
            done.counts.add(written.counts);
        }
        done.complete = complete.elements().to_vec();
        done.bytes = parts.iter().map(|part: &PartEntry| part.bytes).sum();
        let number = *cut;
        let held = Link::held(self.execution, number, &parts);
        let cut = self.cut(number, parts, &done);
        let tell = self.kept.0.clone();
        self.keeper.commit(cut, move |kept| {
            // A program that has ended wants to know nothing.
            drop(tell.send(kept));
            wake();
        });
        self.open.as_mut().expect("it is open").stage = Stage::Committing(done, held);
    }

    fn cut(&self, cut: u64, parts: Vec<PartEntry>, done: &SnapshotDone<T>) -> Cut {
        let mut notes = BTreeMap::from([done.note()]);
        let name = self.naming.name(cut).map(|name| Bytes::copy_from_slice(name.as_bytes()));
        notes.extend(name.map(|name| (SAVEPOINT_NAME.to_owned(), name)));
        let held = self.acknowledgements.held();
        Cut { cut, base: self.base, parts, held, notes, at_ms: self.clock.now_ms() }
    }

    /// Goes on with what has happened meanwhile: a cut was committed or not, or its time is up.
    /// `wake` is called when there is more.
    pub(super) fn settle(
        &mut self,
        wake: impl Fn() + Send + Clone + 'static,
        tell: &mut impl FnMut(News<T>),
    ) {
        while let Ok(Kept { result, base }) = self.kept.1.try_recv() {
            let open = self.open.as_mut().map(|open| (open.since, &mut open.stage));
            let Some((since, Stage::Committing(done, held))) = open else { continue };
            match result {
                Ok(()) => {
                    let done = done.clone();
                    self.figures.durable += 1;
                    self.figures.bytes = Some(done.bytes);
                    if self.figures.took.len() < TOOK_MAX {
                        self.figures.took.push(since.elapsed());
                    }
                    self.acknowledgements.committed(held.take());
                    self.last_given_up = 0;
                    // What is complete now is said before it is known to be: the record first.
                    for bulletin in &self.bulletins {
                        bulletin.say(done.clone());
                        // Where nothing is open any more, the frontier ends with this chair: a last cut may
                        // come, of which nothing could be told afterwards.
                        if !done.complete.is_empty() {
                            bulletin.advance(&done.complete);
                        }
                    }
                    let stop = self.tell_saved(Ok(done), tell);
                    self.decide(true, base, tell);
                    stop.into_iter().for_each(|reason| tell(News::Stop(reason)));
                }
                Err(error) if error.is_fenced() => {
                    tell(News::Stop(Reason::Fenced(error.to_string())));
                }
                Err(error) => {
                    tracing::error!(%error, "a snapshot is given up");
                    self.tell_saved(Err(error), tell);
                    self.decide(false, base, tell);
                }
            }
        }
        let is_late = |open: &Open<T>| {
            matches!(open.stage, Stage::Writing(_)) && open.since.elapsed() >= self.deadline
        };
        if let Some(open) = self.open.as_ref().filter(|open| is_late(open)) {
            tracing::error!(cut = open.cut, "a snapshot is given up, since its time is up");
            self.decide(false, self.base, tell);
        }
        let wants_cut = self.naming.settle(&self.keeper, self.control.open(), wake, |by, error| {
            tell(saved(by, Err(error)));
        });
        if wants_cut {
            self.control.request();
        }
    }

    /// Tells of the open cut to who asked for it, if it is a savepoint. Why the program stops then, if it
    /// does.
    fn tell_saved(
        &mut self,
        outcome: Outcome<T>,
        tell: &mut impl FnMut(News<T>),
    ) -> Option<Reason> {
        let cut = self.open.as_ref()?.cut;
        let (by, stop) = self.naming.over(cut, &outcome)?;
        tell(saved(by, outcome));
        stop
    }

    /// After how long to look again, if nothing is heard.
    pub(super) fn look_after(&self) -> Option<Duration> {
        let open = self.open.as_ref().filter(|open| matches!(open.stage, Stage::Writing(_)))?;
        Some(self.deadline.saturating_sub(open.since.elapsed()))
    }

    /// Gives up a cut that a worker can only write in full, and has a full one taken at once: whoever asked for it
    /// has asked for that.
    fn in_full(&mut self, cut: u64, tell: &mut impl FnMut(News<T>)) {
        // Another worker may have said so before, or its time may be up.
        let is_written = |open: &&mut Open<T>| matches!(open.stage, Stage::Writing(_));
        if let Some(open) = self.open.as_mut().filter(is_written) {
            open.in_full = true;
            self.naming.passed_on(cut);
            self.decide(false, None, tell);
        }
    }

    /// Tells all workers what becomes of the open cut.
    fn decide(&mut self, committed: bool, base: Option<u64>, tell: &mut impl FnMut(News<T>)) {
        let Some(open) = &mut self.open else { return };
        if let Stage::Telling { .. } = open.stage {
            return;
        }
        let cut = open.cut;
        if !committed && let Some(name) = self.naming.name(cut) {
            let given_up = SnapshotError::not_taken(name, format!("cut {cut} was given up"));
            self.tell_saved(Err(given_up), tell);
        }
        let Some(open) = &mut self.open else { return };
        // One that is taken again at once, in full, is not given up for whoever waits for it.
        self.figures.given_up += u64::from(!committed && !open.in_full);
        let fate = Fate { cut: open.cut, committed, base };
        open.stage = Stage::Telling { fate, heard: 0 };
        self.base = base;
        tell(News::Fate(fate));
        #[cfg(statefun_planted)]
        crate::planted::reach("fate-told");
    }

    fn heard(&mut self, cut: u64, tell: &mut impl FnMut(News<T>)) {
        let Some(Open { stage: Stage::Telling { fate, heard }, in_full, .. }) = &mut self.open
        else {
            return;
        };
        *heard += usize::from(fate.cut == cut);
        if *heard < self.peers {
            return;
        }
        match fate.committed {
            true => self.control.committed(cut),
            false if *in_full => {
                self.control.again(cut);
                self.control.request();
            }
            // What is held for the last cut would never leave.
            false if self.acknowledgements.are_expected() && self.control.has_ended() => {
                self.last_given_up += 1;
                if self.last_given_up >= LAST_TRIED_MAX {
                    let why = format!("cut {cut} was the {LAST_TRIED_MAX}rd that was tried");
                    return tell(News::Stop(Reason::NotReleased(why)));
                }
                self.control.again(cut);
            }
            false => self.control.abandoned(cut),
        }
        self.open = None;
    }
}

/// What is told of a savepoint.
fn saved<T>(by: Asker, outcome: Outcome<T>) -> News<T> {
    News::Saved { worker: by.worker, number: by.number, outcome }
}

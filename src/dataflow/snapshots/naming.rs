//! Which cut gets the name of the savepoint that is asked for, on worker 0.
//!
//! One savepoint is taken after the other, since a cut has one name at most. Its cut is announced after it was
//! asked for, so what the program has seen before that is in it.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, Sender, channel};

use super::savepoint::Outcome;
use crate::dead_letter::Reason;
use crate::snapshot::{Keeper, SnapshotError};

/// Who has asked for a savepoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Asker {
    pub(super) worker: usize,
    /// The number that this worker knows it by.
    pub(super) number: u64,
}

/// A savepoint that is asked for.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) by: Asker,
    pub(super) name: String,
    /// Whether the program stops when it is durable.
    pub(super) stops: bool,
}

/// The savepoints that are asked for, the first of which is being taken.
pub(super) struct Naming {
    wanted: VecDeque<Wanted>,
    stage: Stage,
    checked: (Sender<Checked>, Receiver<Checked>),
    has_stopped: bool,
}

type Checked = Result<(), SnapshotError>;

/// How far the first of them is.
#[derive(Debug, PartialEq, Eq)]
enum Stage {
    /// Nothing is done for it.
    Idle,
    /// It is being found out whether its name is free.
    Checking,
    /// The next cut above this one gets the name.
    Above(u64),
    /// This cut has the name.
    Cut(u64),
}

impl Naming {
    pub(super) fn new() -> Self {
        let (wanted, checked) = (VecDeque::new(), channel());
        Naming { wanted, stage: Stage::Idle, checked, has_stopped: false }
    }

    pub(super) fn ask(&mut self, wanted: Wanted) {
        self.wanted.push_back(wanted);
    }

    /// Goes on with the first. `open` is the last cut that was announced; says whether another is wanted.
    /// `wake` is called when there is more to do, and `answer` with what cannot be.
    pub(super) fn settle(
        &mut self,
        keeper: &Keeper,
        open: Option<u64>,
        wake: impl Fn() + Send + Clone + 'static,
        mut answer: impl FnMut(Asker, SnapshotError),
    ) -> bool {
        let mut wants_cut = false;
        loop {
            match &self.stage {
                Stage::Idle => {
                    let Some(Wanted { name, .. }) = self.wanted.front() else { break };
                    self.stage = Stage::Checking;
                    let (tell, wake) = (self.checked.0.clone(), wake.clone());
                    keeper.check_name(name.clone(), move |checked| {
                        // A program that has ended wants to know nothing.
                        drop(tell.send(checked));
                        wake();
                    });
                }
                Stage::Checking => match self.checked.1.try_recv() {
                    Err(_) => break,
                    Ok(Ok(())) => {
                        self.stage = Stage::Above(open.unwrap_or(0));
                        wants_cut = true;
                    }
                    Ok(Err(error)) => {
                        let wanted = self.next().expect("its name was checked");
                        answer(wanted.by, error);
                    }
                },
                Stage::Above(_) | Stage::Cut(_) => break,
            }
        }
        wants_cut
    }

    /// A cut is being written.
    pub(super) fn opened(&mut self, cut: u64) {
        if let Stage::Above(below) = self.stage
            && cut > below
        {
            self.stage = Stage::Cut(cut);
        }
    }

    /// A cut is given up, and another is taken in its place, which gets its name.
    pub(super) fn passed_on(&mut self, cut: u64) {
        if self.stage == Stage::Cut(cut) {
            self.stage = Stage::Above(cut);
        }
    }

    /// The name of a cut.
    pub(super) fn name(&self, cut: u64) -> Option<&str> {
        let wanted = self.wanted.front().filter(|_| self.stage == Stage::Cut(cut))?;
        Some(&wanted.name)
    }

    /// What became of a cut. If it has a name: who is to be told, and why the program stops, if it does.
    pub(super) fn over<T>(
        &mut self,
        cut: u64,
        outcome: &Outcome<T>,
    ) -> Option<(Asker, Option<Reason>)> {
        if self.stage != Stage::Cut(cut) {
            return None;
        }
        let Wanted { by, name, stops } = self.next().expect("it has a name");
        self.has_stopped |= stops && outcome.is_ok();
        Some((by, self.has_stopped.then(|| Reason::AtSavepoint { name: name.into(), cut })))
    }

    /// Whether nothing that comes after it counts any more.
    pub(super) fn has_stopped(&self) -> bool {
        self.has_stopped
    }

    fn next(&mut self) -> Option<Wanted> {
        self.stage = Stage::Idle;
        self.wanted.pop_front()
    }
}

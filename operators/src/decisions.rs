//! When to take a cut, as a state machine that is told the time.
//!
//! A cut is due when the interval is over, when somebody asked for one, when all ingress has closed, and
//! when the loops are over and something may have happened since the last. An aligned one is due when
//! ingress has reached its frontier, which was announced before; one alignment is under way at a time. A
//! cut is decided as soon as none is open. An open one is over when somebody says that it is committed or
//! abandoned, or when its time is up.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use timely::progress::{Antichain, Timestamp};

use crate::announcements::Announcement;

/// What somebody tells whoever decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Told<T> {
    /// A cut is wanted.
    Request,
    /// A cut is wanted that is aligned to a frontier.
    Align(Antichain<T>),
    /// The cut is committed, or given up.
    Over(u64),
    /// The cut is given up, and if it was the last, another is to be taken.
    Again(u64),
}

/// What is known of loops and their ingress.
pub(crate) struct Progress<'a, T> {
    /// Whether all ingress has closed.
    pub(crate) closed: bool,
    /// Whether the loops are over.
    pub(crate) over: bool,
    /// Whether ingress has reached a frontier.
    pub(crate) reached: &'a dyn Fn(&Antichain<T>) -> bool,
}

/// When cuts are taken, and which is open.
#[derive(Debug)]
pub(crate) struct Decisions<T> {
    interval: Option<Duration>,
    deadline: Duration,
    /// The number of the next cut.
    next: u64,
    /// The open cut, and since when.
    open: Option<(u64, Instant)>,
    /// When the last was decided, or all began.
    last: Instant,
    requested: bool,
    /// The frontiers to align to, in order.
    alignments: VecDeque<Antichain<T>>,
    /// Whether the first of them was announced.
    aligning: bool,
    /// Whether there was a cut since ingress closed.
    cut_closed: bool,
    /// Whether there was a cut since the loops were over.
    cut_ended: bool,
}

impl<T: Timestamp> Decisions<T> {
    pub(crate) fn new(
        interval: Option<Duration>,
        deadline: Duration,
        first: u64,
        now: Instant,
    ) -> Self {
        Decisions {
            interval,
            deadline,
            next: first,
            open: None,
            last: now,
            requested: false,
            alignments: VecDeque::new(),
            aligning: false,
            cut_closed: false,
            cut_ended: false,
        }
    }

    /// Numbers no cut like one that was taken before.
    pub(crate) fn skip(&mut self, taken: u64) {
        self.next = self.next.max(taken + 1);
    }

    /// What a loop must be told that comes while others are there. It has not closed and is not over.
    pub(crate) fn welcome(&mut self) -> impl Iterator<Item = Announcement<T>> {
        (self.cut_closed, self.cut_ended) = (false, false);
        let aligning = self.alignments.front().filter(|_| self.aligning);
        let align = aligning.cloned().map(Announcement::Align);
        // That it was aligned concerns those that were told to align.
        self.open().map(Announcement::cut).into_iter().chain(align)
    }

    pub(crate) fn hear(&mut self, told: Told<T>) {
        match told {
            Told::Request => self.requested = true,
            Told::Align(frontier) => self.alignments.push_back(frontier),
            Told::Over(cut) => {
                self.open.take_if(|(open, _)| *open == cut);
            }
            Told::Again(cut) => {
                if self.open.take_if(|(open, _)| *open == cut).is_some() {
                    self.cut_ended = false;
                }
            }
        }
    }

    /// Whether the last cut was announced.
    pub(crate) fn has_ended(&self) -> bool {
        self.cut_ended
    }

    /// The cut that is open.
    pub(crate) fn open(&self) -> Option<u64> {
        self.open.map(|(cut, _)| cut)
    }

    /// Whether it matters how far ingress has come.
    pub(crate) fn is_aligning(&self) -> bool {
        self.aligning
    }

    /// What to announce now, if anything. To be asked until there is nothing.
    pub(crate) fn decide(
        &mut self,
        now: Instant,
        progress: &Progress<'_, T>,
    ) -> Option<Announcement<T>> {
        let Progress { closed, over, reached } = *progress;
        let alignment = self.alignments.front();
        if let Some(frontier) = alignment
            && !self.aligning
        {
            self.aligning = true;
            return Some(Announcement::Align(frontier.clone()));
        }
        self.open.take_if(|(_, since)| now.duration_since(*since) >= self.deadline);
        if self.open.is_some() {
            return None;
        }
        let aligned = alignment.is_some_and(reached);
        let elapsed =
            self.interval.is_some_and(|interval| now.duration_since(self.last) >= interval);
        // Once the loops are over, nothing happens that another cut could hold.
        let due = if over {
            !self.cut_ended
        } else {
            elapsed || self.requested || (closed && !self.cut_closed)
        };
        if !aligned && !due {
            return None;
        }
        if aligned {
            self.alignments.pop_front();
            self.aligning = false;
        }
        let cut = self.next;
        self.next += 1;
        (self.open, self.last) = (Some((cut, now)), now);
        self.requested = false;
        self.cut_closed |= closed;
        self.cut_ended |= over;
        Some(Announcement::Cut { cut, aligned })
    }

    /// Whether no cut will be taken any more, and none is open.
    pub(crate) fn is_over(&self) -> bool {
        self.cut_ended && self.open.is_none() && self.alignments.is_empty()
    }

    /// After how long to decide again if nothing is heard.
    pub(crate) fn look_after(&self, now: Instant) -> Option<Duration> {
        let due = match self.open {
            Some((_, since)) => since.checked_add(self.deadline),
            None => self.interval.and_then(|interval| self.last.checked_add(interval)),
        };
        due.map(|due| due.saturating_duration_since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn decisions(interval: Option<Duration>, first: u64) -> (Decisions<u64>, Instant) {
        let now = Instant::now();
        (Decisions::new(interval, 10 * SECOND, first, now), now)
    }

    impl Decisions<u64> {
        /// Decides on a cut where no alignment is under way.
        fn decide_plainly(&mut self, now: Instant, closed: bool, over: bool) -> Option<u64> {
            let progress = Progress { closed, over, reached: &|_| panic!("nothing is aligned") };
            match self.decide(now, &progress)? {
                Announcement::Cut { cut, aligned: false } => Some(cut),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn cuts_are_decided_on_the_interval_and_one_at_a_time() {
        let (mut decisions, began) = decisions(Some(2 * SECOND), 7);
        let mut decide = |seconds, over: Option<u64>| {
            over.into_iter().for_each(|cut| decisions.hear(Told::Over(cut)));
            let now = began + seconds * SECOND;
            let cut = decisions.decide_plainly(now, false, false);
            (cut, decisions.look_after(now).unwrap().as_secs())
        };
        assert_eq!(decide(1, None), (None, 1));
        assert_eq!(decide(2, None), (Some(7), 10));
        assert_eq!(decide(5, None), (None, 7), "one is open");
        assert_eq!(decide(5, Some(6)), (None, 7), "that was another");
        assert_eq!(decide(5, Some(7)), (Some(8), 10), "this was due long ago");
        assert_eq!(decide(6, Some(8)), (None, 1));
        assert_eq!(decide(7, None), (Some(9), 10));
        assert_eq!(decide(16, None), (None, 1));
        assert_eq!(decide(17, None), (Some(10), 10), "its time was up");
        assert_eq!(decide(18, Some(9)), (None, 9), "too late");
    }

    #[test]
    fn a_request_is_remembered_while_a_cut_is_open_and_two_are_one() {
        let (mut decisions, now) = decisions(None, 1);
        assert_eq!(
            (decisions.decide_plainly(now, false, false), decisions.look_after(now)),
            (None, None)
        );
        decisions.hear(Told::Request);
        assert_eq!(decisions.decide_plainly(now, false, false), Some(1));
        decisions.hear(Told::Request);
        decisions.hear(Told::Request);
        assert_eq!(decisions.decide_plainly(now, false, false), None);
        decisions.hear(Told::Over(1));
        assert_eq!(decisions.decide_plainly(now, false, false), Some(2));
        decisions.hear(Told::Over(2));
        assert_eq!((decisions.decide_plainly(now, false, false), decisions.open()), (None, None));
    }

    #[test]
    fn there_is_one_when_ingress_closed_and_one_when_all_is_over() {
        let (mut decisions, now) = decisions(None, 1);
        assert_eq!(decisions.decide_plainly(now, true, false), Some(1));
        decisions.hear(Told::Over(1));
        assert_eq!(decisions.decide_plainly(now, true, false), None);
        assert!(!decisions.is_over());
        decisions.hear(Told::Request);
        assert_eq!(decisions.decide_plainly(now, true, false), Some(2));
        assert_eq!(decisions.decide_plainly(now, true, true), None);
        decisions.hear(Told::Over(2));
        assert_eq!(decisions.decide_plainly(now, true, true), Some(3));
        assert!(!decisions.is_over(), "the last is open");
        decisions.hear(Told::Request);
        decisions.hear(Told::Over(3));
        assert_eq!(decisions.decide_plainly(now, true, true), None);
        assert!(decisions.is_over());
    }

    #[test]
    fn the_last_is_tried_again_where_somebody_needs_it() {
        let (mut decisions, now) = decisions(None, 1);
        assert_eq!(decisions.decide_plainly(now, true, true), Some(1));
        assert!(decisions.has_ended());
        decisions.hear(Told::Again(7));
        assert!(decisions.has_ended(), "that was another");
        decisions.hear(Told::Again(1));
        assert!(!decisions.is_over() && !decisions.has_ended());
        assert_eq!(decisions.decide_plainly(now, true, true), Some(2));
        decisions.hear(Told::Over(2));
        assert!(decisions.is_over());
    }

    #[test]
    fn one_is_enough_when_both_come_together_and_it_may_be_given_up() {
        let (mut decisions, now) = decisions(Some(SECOND), 1);
        assert_eq!(decisions.decide_plainly(now, true, true), Some(1));
        assert_eq!(decisions.decide_plainly(now + 10 * SECOND, true, true), None);
        assert!(decisions.is_over());
    }

    /// Asks until there is nothing more to announce. Ingress has come to a time.
    fn all(decisions: &mut Decisions<u64>, now: Instant, come_to: u64) -> Vec<Announcement<u64>> {
        let closed = come_to == u64::MAX;
        let reached = |frontier: &Antichain<u64>| closed || frontier.less_equal(&come_to);
        let progress = Progress { closed, over: closed, reached: &reached };
        std::iter::from_fn(|| decisions.decide(now, &progress)).collect()
    }

    fn at(time: u64) -> Antichain<u64> {
        Antichain::from_elem(time)
    }

    #[test]
    fn one_alignment_is_under_way_at_a_time_and_other_cuts_are_taken_meanwhile() {
        let (mut decisions, now) = decisions(None, 1);
        decisions.hear(Told::Align(at(10)));
        decisions.hear(Told::Align(at(8)));
        assert!(!decisions.is_aligning());
        assert_eq!(all(&mut decisions, now, 3), [Announcement::Align(at(10))]);
        assert!(decisions.is_aligning());
        decisions.hear(Told::Request);
        assert_eq!(all(&mut decisions, now, 3), [Announcement::cut(1)]);
        assert_eq!(all(&mut decisions, now, 10), [], "one is open");
        decisions.hear(Told::Over(1));
        // The second is announced while the cut of the first is open, and is due when it is not.
        let first = Announcement::Cut { cut: 2, aligned: true };
        assert_eq!(all(&mut decisions, now, 10), [first, Announcement::Align(at(8))]);
        decisions.hear(Told::Over(2));
        let second = Announcement::Cut { cut: 3, aligned: true };
        assert_eq!(all(&mut decisions, now, 11), [second]);
        assert!(!decisions.is_aligning());
        decisions.hear(Told::Over(3));
        assert_eq!(all(&mut decisions, now, 99), []);
    }

    #[test]
    fn an_alignment_that_is_never_reached_is_when_ingress_has_closed() {
        let (mut decisions, now) = decisions(None, 1);
        for frontier in [at(1000), at(2000), Antichain::new()] {
            decisions.hear(Told::Align(frontier));
        }
        assert_eq!(all(&mut decisions, now, 3), [Announcement::Align(at(1000))]);
        let cut = |cut| Announcement::Cut { cut, aligned: true };
        assert_eq!(
            all(&mut decisions, now, u64::MAX),
            [cut(1), Announcement::Align(at(2000))],
            "it is the last at the same time"
        );
        decisions.hear(Told::Over(1));
        assert!(!decisions.is_over(), "somebody waits for the others");
        assert_eq!(
            all(&mut decisions, now, u64::MAX),
            [cut(2), Announcement::Align(Antichain::new())]
        );
        decisions.hear(Told::Over(2));
        assert_eq!(all(&mut decisions, now, u64::MAX), [cut(3)]);
        decisions.hear(Told::Over(3));
        assert_eq!(all(&mut decisions, now, u64::MAX), []);
        assert!(decisions.is_over());
    }
}

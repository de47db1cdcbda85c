//! When to take a cut, as a state machine that is told the time.
//!
//! A cut is due when the interval is over, when somebody asked for one, when all ingress has closed, and
//! when the loops are over and something may have happened since the last. It is decided as soon as none
//! is open. An open one is over when somebody says that it is committed or abandoned, or when its time
//! is up.

use std::time::{Duration, Instant};

/// What somebody tells whoever decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// A cut is wanted.
    Request,
    /// The cut is committed, or given up.
    Over(u64),
}

/// When cuts are taken, and which is open.
#[derive(Debug)]
pub(crate) struct Decisions {
    interval: Option<Duration>,
    deadline: Duration,
    /// The number of the next cut.
    next: u64,
    /// The open cut, and since when.
    open: Option<(u64, Instant)>,
    /// When the last was decided, or all began.
    last: Instant,
    requested: bool,
    /// Whether there was a cut since ingress closed.
    cut_closed: bool,
    /// Whether there was a cut since the loops were over.
    cut_ended: bool,
}

impl Decisions {
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
            cut_closed: false,
            cut_ended: false,
        }
    }

    /// Numbers no cut like one that was taken before.
    pub(crate) fn skip(&mut self, taken: u64) {
        self.next = self.next.max(taken + 1);
    }

    pub(crate) fn hear(&mut self, told: Told) {
        match told {
            Told::Request => self.requested = true,
            Told::Over(cut) => {
                self.open.take_if(|(open, _)| *open == cut);
            }
        }
    }

    /// The cut that is open.
    pub(crate) fn open(&self) -> Option<u64> {
        self.open.map(|(cut, _)| cut)
    }

    /// The cut to announce now, if one is due. `closed` says that all ingress has closed, `ended` that
    /// the loops are over.
    pub(crate) fn decide(&mut self, now: Instant, closed: bool, ended: bool) -> Option<u64> {
        self.open.take_if(|(_, since)| now.duration_since(*since) >= self.deadline);
        if self.open.is_some() {
            return None;
        }
        let elapsed =
            self.interval.is_some_and(|interval| now.duration_since(self.last) >= interval);
        // Once the loops are over, nothing happens that another cut could hold.
        let due = if ended {
            !self.cut_ended
        } else {
            elapsed || self.requested || (closed && !self.cut_closed)
        };
        if !due {
            return None;
        }
        let cut = self.next;
        self.next += 1;
        (self.open, self.last) = (Some((cut, now)), now);
        self.requested = false;
        self.cut_closed |= closed;
        self.cut_ended |= ended;
        Some(cut)
    }

    /// Whether no cut will be taken any more, and none is open.
    pub(crate) fn is_over(&self) -> bool {
        self.cut_ended && self.open.is_none()
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

    fn decisions(interval: Option<Duration>, first: u64) -> (Decisions, Instant) {
        let now = Instant::now();
        (Decisions::new(interval, 10 * SECOND, first, now), now)
    }

    #[test]
    fn cuts_are_decided_on_the_interval_and_one_at_a_time() {
        let (mut decisions, began) = decisions(Some(2 * SECOND), 7);
        let mut decide = |seconds, over: Option<u64>| {
            over.into_iter().for_each(|cut| decisions.hear(Told::Over(cut)));
            let now = began + seconds * SECOND;
            let cut = decisions.decide(now, false, false);
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
        assert_eq!((decisions.decide(now, false, false), decisions.look_after(now)), (None, None));
        decisions.hear(Told::Request);
        assert_eq!(decisions.decide(now, false, false), Some(1));
        decisions.hear(Told::Request);
        decisions.hear(Told::Request);
        assert_eq!(decisions.decide(now, false, false), None);
        decisions.hear(Told::Over(1));
        assert_eq!(decisions.decide(now, false, false), Some(2));
        decisions.hear(Told::Over(2));
        assert_eq!((decisions.decide(now, false, false), decisions.open()), (None, None));
    }

    #[test]
    fn there_is_one_when_ingress_closed_and_one_when_all_is_over() {
        let (mut decisions, now) = decisions(None, 1);
        assert_eq!(decisions.decide(now, true, false), Some(1));
        decisions.hear(Told::Over(1));
        assert_eq!(decisions.decide(now, true, false), None);
        assert!(!decisions.is_over());
        decisions.hear(Told::Request);
        assert_eq!(decisions.decide(now, true, false), Some(2));
        assert_eq!(decisions.decide(now, true, true), None);
        decisions.hear(Told::Over(2));
        assert_eq!(decisions.decide(now, true, true), Some(3));
        assert!(!decisions.is_over(), "the last is open");
        decisions.hear(Told::Request);
        decisions.hear(Told::Over(3));
        assert_eq!(decisions.decide(now, true, true), None);
        assert!(decisions.is_over());
    }

    #[test]
    fn one_is_enough_when_both_come_together_and_it_may_be_given_up() {
        let (mut decisions, now) = decisions(Some(SECOND), 1);
        assert_eq!(decisions.decide(now, true, true), Some(1));
        assert_eq!(decisions.decide(now + 10 * SECOND, true, true), None);
        assert!(decisions.is_over());
    }
}

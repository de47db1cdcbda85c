//! The elements of one buffer, and when they are over.
//!
//! Elements come in the order of their deadlines, since time does not go back. So those that have
//! expired are the first, and those that were written within one millisecond share one note of their
//! deadline. Reading a buffer puts off the deadlines of all elements that have not expired by then,
//! which is one note for all of them.

use super::deadline::Deadline;
use super::deque::Deque;
use super::pen::Pin;
use crate::expiration::Expiration;

/// Elements that follow each other and have one deadline: up to a number, which is not among them.
struct Run {
    deadline: u64,
    end: u64,
}

/// What has a deadline after `since` is seen until `until`, if not longer.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Renewal {
    pub(super) since: u64,
    pub(super) until: u64,
}

pub(super) struct Elements<E> {
    elements: Deque<E>,
    /// The number of the first element: how many there were before it. Numbers never change.
    base: u64,
    /// None in a buffer whose elements live for ever.
    deadlines: Option<Box<Deadlines>>,
}

#[derive(Default)]
struct Deadlines {
    /// Of all elements.
    runs: Deque<Run>,
    renewal: Renewal,
    /// A time at which it is worth looking for what has expired.
    due: Deadline,
}

impl Deadlines {
    /// What has a deadline up to this time has expired.
    fn threshold(&self, now_ms: u64) -> u64 {
        if self.renewal.until > now_ms { self.renewal.since } else { now_ms }
    }
}

impl<E> Default for Elements<E> {
    fn default() -> Self {
        Elements { elements: Deque::default(), base: 0, deadlines: None }
    }
}

impl<E> Elements<E> {
    /// How many there are, expired or not.
    pub(super) fn len(&self) -> usize {
        self.elements.len()
    }

    /// Appends an element. One with a deadline is not to be seen from then on; either all elements of
    /// a buffer have one or none.
    pub(super) fn append(&mut self, element: E, deadline: Option<u64>) {
        self.elements.push_back(element);
        let end = self.end();
        if let Some(deadline) = deadline {
            let runs = &mut self.deadlines.get_or_insert_default().runs;
            match runs.back_mut() {
                // Nothing is over before what is in front of it, even if a clock was set back while
                // the program was down.
                Some(run) if run.deadline >= deadline => run.end = end,
                _ => runs.push_back(Run { deadline, end }),
            }
        }
    }

    /// The number of the first element.
    pub(super) fn base(&self) -> u64 {
        self.base
    }

    /// The number that the next element will have.
    pub(super) fn end(&self) -> u64 {
        self.base + self.elements.len() as u64
    }

    /// Forgets all elements before one, which may be one that is yet to come.
    pub(super) fn skip_to(&mut self, base: u64) {
        while self.base < base && self.elements.len() > 0 {
            self.drop_first();
        }
        self.base = self.base.max(base);
    }

    /// Elements with their deadlines, from one on.
    pub(super) fn iter_from(&self, from: u64) -> impl Iterator<Item = (&E, u64)> {
        let runs = self.deadlines.as_ref().map(|deadlines| &deadlines.runs);
        let mut run = runs.map_or(0, |runs| runs.partition_point(|run| run.end <= from));
        let elements = self.elements.iter_from((from - self.base) as usize);
        (from..).zip(elements).map(move |(number, element)| {
            let deadline = runs.map_or(0, |runs| {
                run += usize::from(runs.get(run).is_some_and(|run| run.end <= number));
                runs.get(run).map_or(0, |run| run.deadline)
            });
            (element, deadline)
        })
    }

    /// What it is, to be written as this later.
    pub(super) fn pin(&self) -> Pin {
        let renewal = self.deadlines.as_ref().map(|deadlines| deadlines.renewal);
        Pin { end: self.end(), renewal: renewal.unwrap_or_default() }
    }

    /// Takes the last so many elements away.
    pub(super) fn truncate_by(&mut self, count: usize) {
        for _ in 0..count {
            self.elements.pop_back();
        }
        let (base, end) = (self.base, self.end());
        let Some(Deadlines { runs, .. }) = self.deadlines.as_deref_mut() else { return };
        while runs.len() > 0 {
            let previous = runs.len().checked_sub(2).and_then(|previous| runs.get(previous));
            if previous.map_or(base, |previous| previous.end) < end {
                break;
            }
            runs.pop_back();
        }
        if let Some(run) = runs.back_mut() {
            run.end = end;
        }
    }

    /// How many elements have expired; they are the first.
    pub(super) fn expired(&self, now_ms: u64) -> usize {
        let Some(deadlines) = &self.deadlines else { return 0 };
        let (runs, threshold) = (&deadlines.runs, deadlines.threshold(now_ms));
        let expired = runs.partition_point(|run| run.deadline <= threshold);
        let last = expired.checked_sub(1).and_then(|last| runs.get(last));
        last.map_or(0, |run| (run.end - self.base) as usize)
    }

    /// All elements that have not expired.
    pub(super) fn seen(&self, now_ms: u64) -> impl Iterator<Item = &E> {
        self.elements.iter_from(self.expired(now_ms))
    }

    /// The renewal that comes of reading all elements, if it makes a difference.
    pub(super) fn read(&self, expiration: Expiration, now_ms: u64) -> Option<Renewal> {
        let deadlines = self.deadlines.as_ref()?;
        let since = deadlines.threshold(now_ms);
        let oldest = deadlines.runs.partition_point(|run| run.deadline <= since);
        let oldest = deadlines.runs.get(oldest)?;
        let until = expiration.read(oldest.deadline.max(deadlines.renewal.until), now_ms)?;
        Some(Renewal { since, until })
    }

    /// Renews the deadlines, or puts back what they were; gives what was in force.
    pub(super) fn renew(&mut self, renewal: Renewal) -> Renewal {
        std::mem::replace(&mut self.deadlines.get_or_insert_default().renewal, renewal)
    }

    /// Takes expired elements away, so many at most; says how many.
    pub(super) fn sweep(&mut self, now_ms: u64, most: usize) -> usize {
        let swept = self.expired(now_ms).min(most);
        (0..swept).for_each(|_| self.drop_first());
        swept
    }

    fn drop_first(&mut self) {
        self.elements.pop_front();
        self.base += 1;
        if let Some(Deadlines { runs, .. }) = self.deadlines.as_deref_mut()
            && runs.front().is_some_and(|run| run.end == self.base)
        {
            runs.pop_front();
        }
    }

    /// The deadline of the whole buffer for the wheel, which is that of its first element.
    pub(super) fn due_mut(&mut self) -> &mut Deadline {
        let Deadlines { runs, renewal, due } = &mut **self.deadlines.get_or_insert_default();
        if let Some(run) = runs.front() {
            let until = if run.deadline > renewal.since { renewal.until } else { 0 };
            due.at = run.deadline.max(until);
        }
        due
    }
}

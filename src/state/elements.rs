//! The elements of one buffer, and when they are over.
//!
//! Elements come in the order of their deadlines, since time does not go back. So those that have
//! expired are the first, and those that were written within one millisecond share one note of their
//! deadline. Reading a buffer puts off the deadlines of all elements that have not expired by then,
//! which is one note for all of them.

use super::deadline::Deadline;
use super::deque::Deque;
use crate::expiration::Expiration;

/// So many elements that follow each other and have one deadline.
struct Run {
    deadline: u64,
    len: usize,
}

/// What has a deadline after `since` is seen until `until`, if not longer.
#[derive(Copy, Clone, Default)]
pub(super) struct Renewal {
    since: u64,
    until: u64,
}

pub(super) struct Elements<E> {
    elements: Deque<E>,
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
        Elements { elements: Deque::default(), deadlines: None }
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
        if let Some(deadline) = deadline {
            let runs = &mut self.deadlines.get_or_insert_default().runs;
            match runs.back_mut() {
                Some(run) if run.deadline == deadline => run.len += 1,
                _ => runs.push_back(Run { deadline, len: 1 }),
            }
        }
    }

    /// Takes the last so many elements away.
    pub(super) fn truncate_by(&mut self, count: usize) {
        for _ in 0..count {
            self.elements.pop_back();
            if let Some(deadlines) = &mut self.deadlines
                && let Some(run) = deadlines.runs.back_mut()
            {
                run.len -= 1;
                if run.len == 0 {
                    deadlines.runs.pop_back();
                }
            }
        }
    }

    /// How many elements have expired; they are the first.
    pub(super) fn expired(&self, now_ms: u64) -> usize {
        let Some(deadlines) = &self.deadlines else { return 0 };
        let threshold = deadlines.threshold(now_ms);
        let expired = deadlines.runs.iter().take_while(|run| run.deadline <= threshold);
        expired.map(|run| run.len).sum()
    }

    /// All elements that have not expired.
    pub(super) fn seen(&self, now_ms: u64) -> impl Iterator<Item = &E> {
        self.elements.iter_from(self.expired(now_ms))
    }

    /// The renewal that comes of reading all elements, if it makes a difference.
    pub(super) fn read(&self, expiration: Expiration, now_ms: u64) -> Option<Renewal> {
        let deadlines = self.deadlines.as_ref()?;
        let since = deadlines.threshold(now_ms);
        let oldest = deadlines.runs.iter().find(|run| run.deadline > since)?;
        let until = expiration.read(oldest.deadline.max(deadlines.renewal.until), now_ms)?;
        Some(Renewal { since, until })
    }

    /// Renews the deadlines, or puts back what they were; gives what was in force.
    pub(super) fn renew(&mut self, renewal: Renewal) -> Renewal {
        std::mem::replace(&mut self.deadlines.get_or_insert_default().renewal, renewal)
    }

    /// Takes expired elements away, so many at most; says how many.
    pub(super) fn sweep(&mut self, now_ms: u64, most: usize) -> usize {
        let Some(deadlines) = &mut self.deadlines else { return 0 };
        let threshold = deadlines.threshold(now_ms);
        let mut swept = 0;
        while swept < most
            && let Some(run) = deadlines.runs.front_mut()
            && run.deadline <= threshold
        {
            self.elements.pop_front();
            run.len -= 1;
            if run.len == 0 {
                deadlines.runs.pop_front();
            }
            swept += 1;
        }
        swept
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

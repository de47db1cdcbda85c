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
    /// Of all elements; of none, in a buffer whose elements live for ever.
    runs: Deque<Run>,
    pub(super) renewal: Renewal,
    /// A time at which it is worth looking for what has expired.
    due: Deadline,
}

impl<E> Default for Elements<E> {
    fn default() -> Self {
        let (elements, runs) = (Deque::default(), Deque::default());
        Elements { elements, runs, renewal: Renewal::default(), due: Deadline::default() }
    }
}

impl<E> Elements<E> {
    /// How many there are, expired or not.
    pub(super) fn len(&self) -> usize {
        self.elements.len()
    }

    /// Appends an element. One with a deadline is not to be seen from then on.
    pub(super) fn append(&mut self, element: E, deadline: Option<u64>) {
        self.elements.push_back(element);
        if let Some(deadline) = deadline {
            match self.runs.back_mut() {
                Some(run) if run.deadline == deadline => run.len += 1,
                _ => self.runs.push_back(Run { deadline, len: 1 }),
            }
        }
    }

    /// Takes the last so many elements away.
    pub(super) fn truncate_by(&mut self, count: usize) {
        for _ in 0..count {
            self.elements.pop_back();
            if let Some(run) = self.runs.back_mut() {
                run.len -= 1;
                if run.len == 0 {
                    self.runs.pop_back();
                }
            }
        }
    }

    /// What has a deadline up to this time has expired.
    fn threshold(&self, now_ms: u64) -> u64 {
        if self.renewal.until > now_ms { self.renewal.since } else { now_ms }
    }

    /// How many elements have expired; they are the first.
    pub(super) fn expired(&self, now_ms: u64) -> usize {
        let threshold = self.threshold(now_ms);
        let expired = self.runs.iter().take_while(|run| run.deadline <= threshold);
        expired.map(|run| run.len).sum()
    }

    /// All elements that have not expired.
    pub(super) fn seen(&self, now_ms: u64) -> impl Iterator<Item = &E> {
        self.elements.iter_from(self.expired(now_ms))
    }

    /// The renewal that comes of reading all elements, if it makes a difference.
    pub(super) fn read(&self, expiration: Expiration, now_ms: u64) -> Option<Renewal> {
        let since = self.threshold(now_ms);
        let oldest = self.runs.iter().find(|run| run.deadline > since)?;
        let until = expiration.read(oldest.deadline.max(self.renewal.until), now_ms)?;
        Some(Renewal { since, until })
    }

    /// Takes expired elements away, so many at most; says how many.
    pub(super) fn sweep(&mut self, now_ms: u64, most: usize) -> usize {
        let threshold = self.threshold(now_ms);
        let mut swept = 0;
        while swept < most
            && let Some(run) = self.runs.front_mut()
            && run.deadline <= threshold
        {
            self.elements.pop_front();
            run.len -= 1;
            if run.len == 0 {
                self.runs.pop_front();
            }
            swept += 1;
        }
        swept
    }

    /// The deadline of the whole buffer for the wheel, which is that of its first element.
    pub(super) fn due_mut(&mut self) -> &mut Deadline {
        if let Some(run) = self.runs.front() {
            let is_renewed = run.deadline > self.renewal.since;
            let until = if is_renewed { self.renewal.until } else { 0 };
            self.due.at = run.deadline.max(until);
        }
        &mut self.due
    }
}

//! State that has expired, of all functions of a worker.

use super::cuts::note_bytes;
use super::{Dispatcher, Entry};

impl<M: 'static, T: Clone + PartialEq + 'static, H> Dispatcher<M, T, H> {
    /// A time before which no state expires, and at which it is worth asking again; `None` if none
    /// ever does.
    pub(crate) fn next_expiry(&self) -> Option<u64> {
        self.entries.iter().filter_map(|entry| self.next_expiry_of(entry)).min()
    }

    fn next_expiry_of(&self, entry: &Entry<M, T>) -> Option<u64> {
        match self.is_timeless && entry.state.is_watched() {
            // Whoever watches it could not be told.
            true => None,
            false => entry.state.next_expiry(),
        }
    }

    /// Gives back the memory of state that has expired, about `budget` pieces of it. Says whether
    /// there may be more.
    ///
    /// What has expired is not seen anyway, however late this is called. What is watched changes at the time
    /// that is given; without one it stays.
    pub(crate) fn expire(&mut self, budget: usize, time: Option<&T>) -> bool {
        let now_ms = self.now_ms;
        self.is_timeless = time.is_none();
        let is_due = |at: &usize| {
            self.next_expiry_of(&self.entries[*at]).is_some_and(|expiry| expiry <= now_ms)
        };
        let due: Vec<_> = (0..self.entries.len()).filter(is_due).collect();
        // A share for each, so that the state of none waits for that of another.
        let share = budget.checked_div(due.len()).unwrap_or(0).max(1);
        let mut more = false;
        for at in due {
            let entry = &mut self.entries[at];
            let cut_bytes = entry.state.cut_bytes();
            more |= entry.state.expire(now_ms, share);
            if let Some(time) = time.filter(|_| entry.state.is_watched()) {
                self.egresses.put_changes(&mut entry.state, time);
            }
            note_bytes(&mut self.cuts, cut_bytes, &entry.state);
        }
        more
    }
}

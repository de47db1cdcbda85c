//! State that has expired, of all functions of a worker.

use super::cuts::note_bytes;
use super::{Dispatcher, Entry};

impl<M: 'static, T: Clone + PartialEq + 'static, H> Dispatcher<M, T, H> {
    /// A time before which no state expires, and at which it is worth asking again; `None` if none
    /// ever does.
    pub(crate) fn next_expiry(&self) -> Option<u64> {
        self.entries.iter().filter_map(|entry| entry.state.next_expiry()).min()
    }

    /// Gives back the memory of state that has expired, about `budget` pieces of it. Says whether
    /// there may be more.
    ///
    /// What has expired is not seen anyway, however late this is called.
    pub(crate) fn expire(&mut self, budget: usize) -> bool {
        let now_ms = self.now_ms;
        let is_due =
            |entry: &Entry<M, T>| entry.state.next_expiry().is_some_and(|expiry| expiry <= now_ms);
        let due = self.entries.iter().filter(|entry| is_due(entry)).count();
        // A share for each, so that the state of none waits for that of another.
        let share = budget.checked_div(due).unwrap_or(0).max(1);
        let mut more = false;
        for entry in self.entries.iter_mut().filter(|entry| is_due(entry)) {
            let cut_bytes = entry.state.cut_bytes();
            more |= entry.state.expire(now_ms, share);
            note_bytes(&mut self.cuts, cut_bytes, &entry.state);
        }
        more
    }
}

//! What a handler and its loop tell each other of a cut: where a message stands that belongs to it, and
//! how far the handler has come with its own part.

use timely::progress::Timestamp;

use crate::handler::Held;
use crate::live_times::LiveTimes;
use crate::stages::Stage;

/// Where a message stands that belongs to a cut. With the message it is all that must be kept to
/// [bring the message back](crate::Restore::message).
#[derive(Debug)]
pub struct Place<'a, T> {
    /// Its ingress time.
    pub time: &'a T,
    /// How many messages led to it, where messages are handled in the
    /// [order of time](crate::Order::Time); otherwise 0.
    pub depth: u64,
    /// Whether it is known to be an ingress record, for which the frontier that handlers see waits.
    pub record: bool,
}

impl<T> Clone for Place<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Place<'_, T> {}

/// How far a handler has come with something it does in slices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// It is done.
    Done,
    /// There is more: the loop activates itself to go on.
    More,
    /// There is more, but not now: the handler wakes the loop when there is.
    Waiting,
}

/// Tells where what is held stands.
pub struct Places<'a, T: Timestamp> {
    pub(crate) times: &'a LiveTimes<Stage<T>>,
}

impl<'a, T: Timestamp> Places<'a, T> {
    /// Where something stands that is held.
    pub fn of(&self, held: &Held) -> Place<'a, T> {
        let stage = self.times.time(held.time);
        Place { time: &stage.outer, depth: stage.inner, record: held.record }
    }
}

impl<T: Timestamp> std::fmt::Debug for Places<'_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Places").finish_non_exhaustive()
    }
}

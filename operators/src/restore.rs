//! How a handler brings back what a restored cut held, before anything else.

use timely::progress::Timestamp;

use crate::flow::Flow;
use crate::handler::Held;
use crate::part::Place;

/// Where a handler brings back what a cut held, before its loop reads anything.
///
/// Everything goes back to the worker that its route names now, on however many workers the cut was taken.
/// For each target, first what was [queued](crate::Handler::queued), then what was
/// [logged](crate::Handler::log), each in its order: then the order in which a sender's messages are
/// handled is as if there had been no restore.
pub struct Restore<'a, T: Timestamp, M> {
    pub(crate) flow: &'a mut Flow<T, M>,
}

impl<T: Timestamp, M> Restore<'_, T, M> {
    /// Brings back a message, behind those that were brought back before. No frontier passes its time
    /// before it was handled.
    ///
    /// # Panics
    ///
    /// If another worker handles the message.
    pub fn message(&mut self, place: Place<'_, T>, message: M) {
        self.flow.restore(place, message);
    }

    /// Says the time at which events [happened](crate::Handler::take_cut) when the cut was taken, the latest of all
    /// workers. None happens before it, although the ingress may begin with earlier ones.
    ///
    /// This is so as far as the ingress frontier has an element at or before it. Where times are ordered only in
    /// part, and it has elements that come first and are not before it, an event happens at the first of those.
    pub fn events_from(&mut self, time: T) {
        self.flow.not_before = Some(time);
    }

    /// Holds a time again, for something that was waited for.
    pub fn hold(&mut self, place: Place<'_, T>) -> Held {
        self.flow.restore_hold(place)
    }
}

impl<T: Timestamp, M> std::fmt::Debug for Restore<'_, T, M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Restore").field("waiting", &self.flow.waiting()).finish_non_exhaustive()
    }
}

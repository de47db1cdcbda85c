//! Which messages of a queue waited in it when a cut was taken, while the queue goes on.
//!
//! Taking a cut marks all that waits at once, by its number. From the front, the queue then has what
//! was placed first since; marked messages that were handed over; marked ones that were not; and what
//! was pushed since. A marked message is handed over when a slice of the walk comes to it or when it is
//! popped, whichever is first: in either case all marked ones before it were. So they are handed
//! over in the order they wait in, each once. This file only counts.

use std::collections::VecDeque;

/// The walk over one queue for one cut. Over while nothing is [left](Walk::is_on).
#[derive(Debug, Default)]
pub(crate) struct Walk {
    /// Messages at the front that are not marked.
    before: usize,
    /// Marked messages behind them that were handed over.
    told: usize,
    /// Marked messages behind those that were not.
    left: usize,
    /// Of all marked messages, those that are not to be handed over nevertheless. Empty if there
    /// are none.
    except: VecDeque<bool>,
}

impl Walk {
    /// Marks a whole queue, whatever was marked before.
    pub(crate) fn begin(&mut self, messages: usize) {
        *self = Walk { left: messages, ..Walk::default() };
    }

    /// Marks a whole queue but for some messages.
    pub(crate) fn begin_except(&mut self, except: VecDeque<bool>) {
        let left = if except.iter().all(|except| *except) { 0 } else { except.len() };
        *self = Walk { left, except, ..Walk::default() };
    }

    /// Whether marked messages wait that were not handed over.
    #[inline]
    pub(crate) fn is_on(&self) -> bool {
        self.left > 0
    }

    /// Notes that messages were put before all others.
    pub(crate) fn placed_first(&mut self, messages: usize) {
        if self.is_on() {
            self.before += messages;
        }
    }

    /// Notes that the first message was taken off. Says whether it must be handed over now.
    pub(crate) fn popped(&mut self) -> bool {
        if self.before > 0 {
            self.before -= 1;
            return false;
        }
        let except = self.except.pop_front().unwrap_or(false);
        if self.told > 0 {
            self.told -= 1;
            return false;
        }
        self.left -= 1;
        !except
    }

    /// The position of the next marked message. Says whether it must be handed over now.
    pub(crate) fn advance(&mut self) -> Option<(usize, bool)> {
        if !self.is_on() {
            return None;
        }
        let except = self.except.get(self.told).copied().unwrap_or(false);
        let at = self.before + self.told;
        self.told += 1;
        self.left -= 1;
        Some((at, !except))
    }
}

#[cfg(test)]
mod tests;

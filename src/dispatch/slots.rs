//! Places for things that are under way outside: how many there may be, and whose turn it is.
//!
//! Each function has a limit of its own, and all of a worker share another. What finds no place waits;
//! nothing else does. A function's ingress is to be held back while something of it waits, or only when
//! what waits has used up its share of memory.

use std::collections::VecDeque;

/// The places of one bound function.
struct Share<W> {
    max: usize,
    under_way: usize,
    waiting: VecDeque<W>,
    /// Whether what waits for it has used up its share of memory.
    full: bool,
    /// Whether its ingress is to be held back, and whether gates have been told so.
    held_back: bool,
    told: bool,
}

/// The places of one worker.
pub(super) struct Slots<W> {
    max: usize,
    under_way: usize,
    /// By number of the bound function; those that need no places have a maximum of 0.
    shares: Vec<Share<W>>,
    /// Whether ingress of a function is held back as soon as something waits for a place.
    waiting_holds_back: bool,
    /// Whose turn it was last.
    turn: usize,
    startable: Vec<W>,
    changed: bool,
}

impl<W> Slots<W> {
    /// At most `max` at once, and of each function at most what `of_function` says.
    pub(super) fn new(max: usize, of_function: impl Iterator<Item = usize>) -> Self {
        let share = |max| Share {
            max,
            under_way: 0,
            waiting: VecDeque::new(),
            full: false,
            held_back: false,
            told: false,
        };
        Slots {
            max: max.max(1),
            under_way: 0,
            shares: of_function.map(share).collect(),
            waiting_holds_back: true,
            turn: 0,
            startable: Vec::new(),
            changed: false,
        }
    }

    /// The same, but that ingress is held back for a lack of memory alone: what waits then goes
    /// together when its turn comes.
    pub(super) fn gathering(mut self) -> Self {
        self.waiting_holds_back = false;
        self
    }

    /// Begins something, now or when there is a place.
    pub(super) fn begin(&mut self, function: usize, what: W) {
        self.shares[function].waiting.push_back(what);
        self.start(function);
        self.look_at(function);
    }

    /// Starts something once more that has its place.
    pub(super) fn start_again(&mut self, what: W) {
        self.startable.push(what);
    }

    /// Gives a place back.
    pub(super) fn end(&mut self, function: usize) {
        self.under_way -= 1;
        self.shares[function].under_way -= 1;
        // In turns, so that no function can keep the places for itself.
        let last = self.turn;
        for next in 1..=self.shares.len() {
            let next = (last + next) % self.shares.len();
            if !self.shares[next].waiting.is_empty() {
                self.start(next);
                self.look_at(next);
            }
        }
        self.look_at(function);
    }

    /// Starts what a function has waiting, as far as there are places.
    fn start(&mut self, function: usize) {
        while self.has_place(function)
            && let Some(what) = self.shares[function].waiting.pop_front()
        {
            self.shares[function].under_way += 1;
            self.under_way += 1;
            self.turn = function;
            self.startable.push(what);
        }
    }

    /// Whether a function may start one more. Where the worker's places are nearly used up, one is
    /// left for each other function that has none.
    fn has_place(&self, function: usize) -> bool {
        let share = &self.shares[function];
        if share.under_way == 0 {
            return share.max > 0;
        }
        let idle = self.shares.iter().filter(|share| share.max > 0 && share.under_way == 0);
        share.under_way < share.max && self.under_way + idle.count() < self.max
    }

    /// Decides whether a function's ingress must be held back.
    fn look_at(&mut self, function: usize) {
        let share = &mut self.shares[function];
        let all = share.under_way + share.waiting.len();
        let enough = if share.held_back { share.max - share.max / 4 } else { share.max };
        let waits = all >= enough.max(1) || !share.waiting.is_empty();
        let held_back = share.full || self.waiting_holds_back && waits;
        self.changed |= held_back != share.told;
        share.held_back = held_back;
    }

    /// Says whether what waits for a function has used up its share of memory.
    pub(super) fn set_full(&mut self, function: usize, full: bool) {
        if self.shares[function].full != full {
            self.shares[function].full = full;
            self.look_at(function);
        }
    }

    /// Tells, once each, the functions whose ingress must begin or cease to be held back.
    pub(super) fn held_back_changed(&mut self, changed: &mut dyn FnMut(u32, bool)) {
        if !std::mem::take(&mut self.changed) {
            return;
        }
        for (function, share) in self.shares.iter_mut().enumerate() {
            if share.told != share.held_back {
                share.told = share.held_back;
                changed(function as u32, share.held_back);
            }
        }
    }

    /// What may start now.
    pub(super) fn take_startable(&mut self) -> Vec<W> {
        std::mem::take(&mut self.startable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_has_more_than_its_own_and_a_place_is_left_for_others() {
        let mut slots = Slots::new(4, [10, 2, 0, 1].into_iter());
        (0..6).for_each(|number| slots.begin(0, (0, number)));
        assert_eq!(slots.take_startable(), [(0, 0), (0, 1)], "one for 1 and one for 3 is left");
        (0..3).for_each(|number| slots.begin(1, (1, number)));
        slots.begin(3, (3, 0));
        assert_eq!(slots.take_startable(), [(1, 0), (3, 0)]);
        slots.end(3);
        assert_eq!(slots.take_startable(), [], "it is left for 3");
        slots.end(0);
        assert_eq!(slots.take_startable(), [(0, 2)], "in turns");
        slots.end(0);
        assert_eq!(slots.take_startable(), [(1, 1)]);
        slots.end(1);
        slots.end(1);
        assert_eq!(slots.take_startable(), [(0, 3), (1, 2)]);
    }

    #[test]
    fn what_gathers_is_held_back_for_a_lack_of_memory_alone() {
        let mut slots = Slots::new(100, [2].into_iter()).gathering();
        let mut changes: Vec<bool> = Vec::new();
        (0..9).for_each(|number| slots.begin(0, number));
        slots.held_back_changed(&mut |_, held_back| changes.push(held_back));
        assert!(changes.is_empty());
        slots.set_full(0, true);
        slots.held_back_changed(&mut |_, held_back| changes.push(held_back));
        slots.set_full(0, false);
        slots.held_back_changed(&mut |_, held_back| changes.push(held_back));
        assert_eq!(changes, [true, false]);
    }

    #[test]
    fn a_function_without_room_is_told_of_once_and_again_when_it_has_some() {
        let mut slots = Slots::new(100, [4, 4].into_iter());
        let changes = |slots: &mut Slots<u32>| {
            let mut changes = Vec::new();
            slots.held_back_changed(&mut |function, held_back| changes.push((function, held_back)));
            changes
        };
        (0..3).for_each(|number| slots.begin(1, number));
        assert_eq!(changes(&mut slots), []);
        slots.begin(1, 3);
        slots.begin(1, 4);
        assert_eq!(changes(&mut slots), [(1, true)]);
        slots.end(1);
        assert_eq!(changes(&mut slots), [], "the one that waited has taken the place");
        slots.end(1);
        assert_eq!(changes(&mut slots), [], "not for a single place");
        slots.end(1);
        assert_eq!(changes(&mut slots), [(1, false)]);
    }
}

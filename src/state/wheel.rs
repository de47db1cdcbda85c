//! What becomes due: set for a time, taken back, and given out in the order of due times and, within
//! one, of setting.
//!
//! A wheel does not know what time it is; it is told. Its unit is whatever its user counts in, here
//! milliseconds. Setting and taking back cost the same however much is set.
//!
//! There are eight levels of 256 places, one level for each byte of a time. An item is at the level of
//! the highest byte in which its due time differs from where the wheel stands, at the place which that
//! byte names. When the wheel comes to a place of a higher level, what is there moves down, in order.
//! All items of one due time are therefore always in one place, in the order in which they were set.

use super::chunks::Chunks;

/// Names an item of a wheel until it is given out or taken back.
pub(crate) type WheelKey = u32;

const LEVELS: usize = 8;
const PLACES: usize = 256;
const NONE: u32 = u32::MAX;

struct Node<X> {
    due: u64,
    next: u32,
    previous: u32,
    item: Option<X>,
}

/// A list of items: its first and its last.
#[derive(Clone, Copy)]
struct List {
    first: u32,
    last: u32,
}

struct Level {
    places: [List; PLACES],
    /// Which places are not empty.
    taken: [u64; PLACES / 64],
}

impl Level {
    fn new() -> Box<Self> {
        let empty = List { first: NONE, last: NONE };
        Box::new(Level { places: [empty; PLACES], taken: [0; PLACES / 64] })
    }

    /// The first place at or after `from` that is not empty.
    fn next_taken(&self, from: usize) -> Option<usize> {
        let mut word = from / 64;
        let mut bits = *self.taken.get(word)? & (u64::MAX << (from % 64));
        while bits == 0 {
            word += 1;
            bits = *self.taken.get(word)?;
        }
        Some(word * 64 + bits.trailing_zeros() as usize)
    }
}

/// Where an item that is due at `due` belongs while the wheel stands at `at`.
fn place(due: u64, at: u64) -> (usize, usize) {
    let differs = (due ^ at).checked_ilog2().unwrap_or(0);
    let level = (differs / 8) as usize;
    (level, (due >> (8 * level)) as usize % PLACES)
}

pub(crate) struct Wheel<X> {
    nodes: Chunks<Node<X>>,
    /// The first of a list of nodes that can be used again.
    free: u32,
    levels: [Option<Box<Level>>; LEVELS],
    /// Everything due before this was given out.
    at: u64,
    len: usize,
}

impl<X> Default for Wheel<X> {
    fn default() -> Self {
        let levels = [const { None }; LEVELS];
        Wheel { nodes: Chunks::default(), free: NONE, levels, at: 0, len: 0 }
    }
}

impl<X> Wheel<X> {
    /// How many items are set.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Sets an item. One that should have been given out already is given out next, after what is
    /// due now.
    pub(crate) fn set(&mut self, due: u64, item: X) -> WheelKey {
        let due = due.max(self.at);
        let node = Node { due, next: NONE, previous: NONE, item: Some(item) };
        let key = match self.free {
            NONE => {
                let key = u32::try_from(self.nodes.len()).unwrap_or(NONE);
                assert!(key != NONE, "fewer than 2^32 items are set at once");
                self.nodes.push(node);
                key
            }
            key => {
                let free = self.node(key);
                let after = free.next;
                *free = node;
                self.free = after;
                key
            }
        };
        self.len += 1;
        self.link(key);
        key
    }

    /// Takes an item back.
    pub(crate) fn take_back(&mut self, key: WheelKey) -> X {
        self.unlink(key);
        self.release(key)
    }

    /// The item of a key.
    pub(crate) fn get(&self, key: WheelKey) -> Option<&X> {
        self.nodes.get(key)?.item.as_ref()
    }

    /// The item of a key, and when it is due.
    pub(crate) fn get_due(&self, key: WheelKey) -> Option<(u64, &X)> {
        let node = self.nodes.get(key)?;
        Some((node.due, node.item.as_ref()?))
    }

    /// All keys are below this.
    pub(crate) fn keys(&self) -> WheelKey {
        self.nodes.len() as WheelKey
    }

    /// Gives out the next item that is due at `now` or before. `now` must not go back.
    pub(crate) fn next_due(&mut self, now: u64) -> Option<(u64, X)> {
        let key = self.peek_due(now)?;
        Some((self.at, self.take_back(key)))
    }

    /// The key of the next item that is due at `now` or before. `now` must not go back.
    pub(crate) fn peek_due(&mut self, now: u64) -> Option<WheelKey> {
        loop {
            if self.len > 0
                && let Some(level) = &self.levels[0]
                && self.at <= now
            {
                let first = level.places[self.at as usize % PLACES].first;
                if first != NONE {
                    return Some(first);
                }
            }
            match self.next_place() {
                Some(next) if next <= now => self.turn_to(next),
                _ => {
                    self.at = self.at.max(now);
                    return None;
                }
            }
        }
    }

    /// A time before which nothing is due, and at which it is worth asking again; `None` if nothing
    /// is set.
    pub(crate) fn wake_at(&self) -> Option<u64> {
        if self.len == 0 {
            return None;
        }
        let here = self.at as usize % PLACES;
        let now = self.levels[0].as_ref().is_some_and(|level| level.places[here].first != NONE);
        if now { Some(self.at) } else { self.next_place() }
    }

    /// The time at which the next place begins that is not empty and not where the wheel stands.
    fn next_place(&self) -> Option<u64> {
        if self.len == 0 {
            return None;
        }
        for (number, level) in self.levels.iter().enumerate() {
            let Some(level) = level else { continue };
            let bits = 8 * number as u32;
            let here = (self.at >> bits) as usize % PLACES;
            if let Some(place) = level.next_taken(here + 1) {
                let above = self.at.checked_shr(bits + 8).unwrap_or(0);
                let above = above.checked_shl(bits + 8).unwrap_or(0);
                return Some(above | (place as u64) << bits);
            }
        }
        None
    }

    /// Moves to a time at which a place begins: what is there moves down.
    fn turn_to(&mut self, at: u64) {
        self.at = at;
        for number in (1..LEVELS).rev() {
            let bits = 8 * number as u32;
            let place = (at >> bits) as usize % PLACES;
            if at & ((1 << bits) - 1) != 0 {
                continue;
            }
            let Some(level) = &mut self.levels[number] else { continue };
            let mut key = level.places[place].first;
            level.places[place] = List { first: NONE, last: NONE };
            level.taken[place / 64] &= !(1 << (place % 64));
            while key != NONE {
                let next = self.node(key).next;
                self.link(key);
                key = next;
            }
        }
    }

    fn node(&mut self, key: u32) -> &mut Node<X> {
        self.nodes.get_mut(key).expect("nodes are never given back")
    }

    /// Puts a node at the end of its place.
    fn link(&mut self, key: u32) {
        let (number, place) = place(self.node(key).due, self.at);
        let level = self.levels[number].get_or_insert_with(Level::new);
        let last = level.places[place].last;
        if last == NONE {
            level.places[place].first = key;
            level.taken[place / 64] |= 1 << (place % 64);
        }
        level.places[place].last = key;
        if last != NONE {
            self.node(last).next = key;
        }
        let node = self.node(key);
        (node.next, node.previous) = (NONE, last);
    }

    fn unlink(&mut self, key: u32) {
        let Node { due, next, previous, .. } = *self.node(key);
        let (number, place) = place(due, self.at);
        let level = self.levels[number].as_mut().expect("a set item is at some level");
        let list = &mut level.places[place];
        if previous == NONE {
            list.first = next;
        }
        if next == NONE {
            list.last = previous;
        }
        if list.first == NONE {
            level.taken[place / 64] &= !(1 << (place % 64));
        }
        if previous != NONE {
            self.node(previous).next = next;
        }
        if next != NONE {
            self.node(next).previous = previous;
        }
    }

    fn release(&mut self, key: u32) -> X {
        let free = self.free;
        let node = self.node(key);
        node.next = free;
        let item = node.item.take().expect("the key names an item that is set");
        self.free = key;
        self.len -= 1;
        item
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, VecDeque};

    use super::*;
    use crate::fuzz::Random;

    fn draws(seed: u64) -> impl FnMut(u64) -> u64 {
        let mut random = seed;
        move |below| {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (random >> 33) % below
        }
    }

    /// Against a list that is sorted by due time and order of setting.
    #[test]
    fn random_scripts_give_out_what_a_sorted_list_would() {
        for seed in 0..300 {
            let mut draw = draws(seed);
            let mut wheel = Wheel::default();
            let mut model: Vec<(u64, u64, WheelKey)> = Vec::new();
            let mut now = draw(2) * 1_700_000_000_000 + draw(1000);
            assert!(wheel.next_due(now).is_none());
            for number in 0..2000 {
                match draw(10) {
                    0..5 => {
                        let spread = [1, 3, 300, 70_000, 20_000_000, 1 << 32][draw(6) as usize];
                        let due = now + draw(spread);
                        model.push((due, number, wheel.set(due, number)));
                    }
                    5 if !model.is_empty() => {
                        let (_, number, key) = model.swap_remove(draw(model.len() as u64) as usize);
                        assert_eq!(wheel.get(key), Some(&number));
                        assert_eq!(wheel.take_back(key), number, "seed {seed}");
                    }
                    _ => {
                        let step = [0, 1, 2, 200, 66_000, 17_000_000][draw(6) as usize];
                        now += draw(step + 1);
                        model.sort();
                        let due = model.iter().take_while(|(due, ..)| *due <= now).count();
                        let first = model.first().map(|(due, ..)| *due);
                        let wake = wheel.wake_at();
                        assert!(wake <= first && wake.is_some() == first.is_some(), "seed {seed}");
                        for (due, number, _) in model.drain(..due) {
                            assert_eq!(wheel.next_due(now), Some((due, number)), "seed {seed}");
                        }
                        assert_eq!(wheel.next_due(now), None, "seed {seed}");
                    }
                }
                assert_eq!(wheel.len(), model.len());
            }
        }
    }

    /// Against a map from when something is due to what is, in the order of setting, at all distances that
    /// 64 bits have.
    #[test]
    fn however_far_away_it_is_what_is_due_comes_out_in_order() {
        for seed in 0..400 {
            let mut random = Random(seed);
            let mut wheel = Wheel::default();
            let mut model: BTreeMap<u64, VecDeque<u64>> = BTreeMap::new();
            let mut now = random.number();
            assert_eq!(wheel.next_due(now), None);
            for number in 0..400 {
                if random.once_in(3) {
                    now = match random.below(4) {
                        // To where something is due, or just before that.
                        0 => model.keys().next().map_or(now, |due| (*due).max(now)),
                        1 => model
                            .keys()
                            .next_back()
                            .map_or(now, |due| due.saturating_sub(1).max(now)),
                        2 => wheel.wake_at().map_or(now, |at| at.max(now)),
                        _ => now.saturating_add(random.number() >> random.below(64)),
                    };
                    while let Some(entry) = model.first_entry().filter(|due| *due.key() <= now) {
                        let (due, items) = entry.remove_entry();
                        for item in items {
                            assert_eq!(wheel.next_due(now), Some((due, item)), "seed {seed}");
                        }
                    }
                    assert_eq!(wheel.next_due(now), None, "seed {seed}");
                } else {
                    let due = now.saturating_add(random.number() >> random.below(64));
                    let key = wheel.set(due, number);
                    assert_eq!(wheel.get_due(key), Some((due, &number)));
                    match random.once_in(4) {
                        true => assert_eq!(wheel.take_back(key), number),
                        false => model.entry(due).or_default().push_back(number),
                    }
                }
                let first = model.keys().next().copied();
                let wake = wheel.wake_at();
                assert!(wake <= first && wake.is_some() == first.is_some(), "seed {seed}");
                assert_eq!(wheel.len(), model.values().flatten().count(), "seed {seed}");
            }
        }
    }

    #[test]
    fn an_overdue_item_comes_after_what_is_due_now() {
        let mut wheel = Wheel::default();
        assert_eq!(wheel.next_due(100), None);
        wheel.set(100, 'a');
        wheel.set(7, 'b');
        assert_eq!(wheel.next_due(100), Some((100, 'a')));
        assert_eq!(wheel.next_due(100), Some((100, 'b')));
        wheel.set(u64::MAX, 'c');
        assert_eq!(wheel.next_due(u64::MAX - 1), None);
        assert_eq!(wheel.next_due(u64::MAX), Some((u64::MAX, 'c')));
    }

    #[test]
    fn places_are_used_again() {
        let mut wheel = Wheel::default();
        for round in 0..10_000 {
            let key = wheel.set(round + 50, round);
            assert_eq!(wheel.take_back(key), round);
        }
        assert_eq!((wheel.nodes.len(), wheel.wake_at()), (1, None));
    }
}

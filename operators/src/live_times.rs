//! The ingress times that have work on one worker, each with how much.
//!
//! A queued message names its time by a small number, and a message that causes another passes the
//! number on, so counting costs two additions a message however many times are alive. Only messages
//! from other workers are looked up.
//!
//! A time that has run out of work stays until [`LiveTimes::settle`], so that what one activation
//! empties and fills again costs nothing.

use std::collections::BTreeMap;

use timely::progress::{Antichain, Timestamp};

/// Names one live time of one worker. Valid until that time has no work and is settled.
pub(crate) type TimeIndex = u32;

struct Slot<T> {
    time: T,
    work: u64,
    live: bool,
}

pub(crate) struct LiveTimes<T> {
    slots: Vec<Slot<T>>,
    free: Vec<TimeIndex>,
    by_time: BTreeMap<T, TimeIndex>,
    /// Where the last look-up ended: records of one time come in runs.
    last: Option<TimeIndex>,
    /// Slots whose work reached zero since the last settling; a slot may be here twice.
    emptied: Vec<TimeIndex>,
    minimal: Antichain<T>,
}

impl<T: Timestamp> LiveTimes<T> {
    pub(crate) fn new() -> Self {
        LiveTimes {
            slots: Vec::new(),
            free: Vec::new(),
            by_time: BTreeMap::new(),
            last: None,
            emptied: Vec::new(),
            minimal: Antichain::new(),
        }
    }

    /// The time a number stands for.
    pub(crate) fn time(&self, index: TimeIndex) -> &T {
        &self.slots[index as usize].time
    }

    /// The number of a time, to which work must now be added.
    pub(crate) fn index_of(&mut self, time: &T) -> TimeIndex {
        if let Some(last) = self.last
            && self.slots[last as usize].time == *time
        {
            return last;
        }
        let index = match self.by_time.get(time) {
            Some(index) => *index,
            None => self.begin(time),
        };
        self.last = Some(index);
        index
    }

    #[cold]
    fn begin(&mut self, time: &T) -> TimeIndex {
        let slot = Slot { time: time.clone(), work: 0, live: true };
        let index = match self.free.pop() {
            Some(index) => {
                self.slots[index as usize] = slot;
                index
            }
            None => {
                let index = TimeIndex::try_from(self.slots.len())
                    .expect("fewer than 2^32 ingress times are alive at once");
                self.slots.push(slot);
                index
            }
        };
        self.by_time.insert(time.clone(), index);
        self.minimal.insert_ref(time);
        index
    }

    pub(crate) fn add(&mut self, index: TimeIndex, work: u64) {
        self.slots[index as usize].work += work;
    }

    pub(crate) fn finish_one(&mut self, index: TimeIndex) {
        let slot = &mut self.slots[index as usize];
        slot.work -= 1;
        if slot.work == 0 {
            self.emptied.push(index);
        }
    }

    /// Forgets the times without work. Says whether the minimal ones may have changed.
    pub(crate) fn settle(&mut self) -> bool {
        let mut minimal_gone = false;
        for index in self.emptied.drain(..) {
            let slot = &mut self.slots[index as usize];
            if slot.work > 0 || !slot.live {
                continue;
            }
            slot.live = false;
            self.by_time.remove(&slot.time);
            self.free.push(index);
            if self.last == Some(index) {
                self.last = None;
            }
            minimal_gone |= self.minimal.elements().contains(&slot.time);
        }
        #[cfg(statefun_planted)]
        if let Some(early) = crate::planted::released_early() {
            self.minimal.clear();
            for (time, index) in &self.by_time {
                if self.slots[*index as usize].work > early {
                    self.minimal.insert_ref(time);
                }
            }
            return true;
        }
        if minimal_gone {
            self.minimal.clear();
            for time in self.by_time.keys() {
                self.minimal.insert_ref(time);
            }
        }
        minimal_gone
    }

    /// The live times that no other live time is before.
    pub(crate) fn minimal(&self) -> &[T] {
        self.minimal.elements()
    }

    /// How many times are alive.
    pub(crate) fn len(&self) -> usize {
        self.by_time.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use timely::order::Product;

    #[test]
    fn a_time_lives_as_long_as_it_has_work() {
        let mut times = LiveTimes::<u64>::new();
        let five = times.index_of(&5);
        times.add(five, 2);
        let three = times.index_of(&3);
        times.add(three, 1);
        assert_eq!(times.minimal(), &[3]);
        times.finish_one(three);
        assert_eq!(times.minimal(), &[3], "kept until it is settled");
        assert!(times.settle());
        assert_eq!((times.minimal(), times.len()), (&[5][..], 1));
        times.finish_one(five);
        times.add(five, 1);
        assert!(!times.settle(), "emptied and filled again");
        times.finish_one(five);
        times.finish_one(five);
        assert!(times.settle());
        assert_eq!(times.len(), 0);
        let again = times.index_of(&9);
        assert!(times.slots.len() == 2 && times.time(again) == &9, "slots are used again");
    }

    #[test]
    fn the_minimal_times_agree_with_a_plain_model() {
        let mut rng = 1u64;
        for seed in 1..200u64 {
            let mut times = LiveTimes::<Product<u8, u8>>::new();
            let mut model: Vec<Product<u8, u8>> = Vec::new();
            for _ in 0..100 {
                rng = rng.wrapping_mul(6364136223846793005).wrapping_add(seed);
                let draw = (rng >> 33) as usize;
                if model.is_empty() || draw % 5 < 3 {
                    let time = Product::new((draw >> 3) as u8 % 5, (draw >> 8) as u8 % 5);
                    let index = times.index_of(&time);
                    times.add(index, 1);
                    model.push(time);
                } else {
                    let time = model.swap_remove(draw % model.len());
                    let index = times.index_of(&time);
                    times.finish_one(index);
                }
                times.settle();
                let mut expected = Antichain::new();
                for time in &model {
                    expected.insert_ref(time);
                }
                let mut expected = expected.elements().to_vec();
                let mut found = times.minimal().to_vec();
                expected.sort();
                found.sort();
                assert_eq!(found, expected, "seed {seed}");
            }
        }
    }
}

//! Things by small numbers, which are used again, and how far a walk over them has come that writes what
//! there was when a cut was taken.
//!
//! Whatever has come into being since has an epoch that says so, whichever number it has. Of a thing that
//! is a queue of messages, those that were in it are counted when it is first touched after the cut; then
//! the queue goes on. From its front, it has what was placed first since; marked messages that were
//! written; marked ones that were not; and what came since. A marked message is written when the walk
//! comes to it or when it is taken off, whichever is first: in either case all marked ones before it
//! were. So they are written in order, each once.

use crate::state::Chunks;

/// Things by numbers.
pub(super) struct Slab<X> {
    things: Chunks<Option<X>>,
    free: Vec<u32>,
}

impl<X> Default for Slab<X> {
    fn default() -> Self {
        Slab { things: Chunks::default(), free: Vec::new() }
    }
}

impl<X> Slab<X> {
    pub(super) fn insert(&mut self, thing: X) -> u32 {
        match self.free.pop() {
            Some(number) => {
                *self.things.get_mut(number).expect("free numbers exist") = Some(thing);
                number
            }
            None => {
                let number = u32::try_from(self.things.len());
                self.things.push(Some(thing));
                number.expect("there are fewer than 2^32 of them at once")
            }
        }
    }

    pub(super) fn remove(&mut self, number: u32) -> Option<X> {
        let thing = self.things.get_mut(number)?.take();
        if thing.is_some() {
            self.free.push(number);
        }
        thing
    }

    pub(super) fn get(&self, number: u32) -> Option<&X> {
        self.things.get(number)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, number: u32) -> Option<&mut X> {
        self.things.get_mut(number)?.as_mut()
    }

    /// How many there are.
    #[cfg(feature = "testing")]
    pub(super) fn len(&self) -> usize {
        self.things.len() - self.free.len()
    }

    /// All numbers are below this.
    pub(super) fn end(&self) -> u32 {
        self.things.len() as u32
    }

    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = &X> {
        self.things.iter().flatten()
    }
}

/// A walk over numbers, for one cut after another. Over while there is none to [look at](Passage::next).
#[derive(Debug, Default)]
pub(super) struct Passage {
    /// How many cuts were taken.
    epoch: u32,
    /// The number to look at next, and where they ended.
    at: u32,
    end: u32,
    /// Whether nothing is counted when it is touched, so that tests can show that they notice.
    #[cfg(test)]
    pub(super) marks_nothing: bool,
}

impl Passage {
    /// Begins for a cut that is taken now, when all numbers are below `end`.
    pub(super) fn begin(&mut self, end: u32) {
        (self.epoch, self.at, self.end) = (self.epoch + 1, 0, end);
    }

    /// Ends where it is.
    pub(super) fn stop(&mut self) {
        self.at = self.end;
    }

    /// The epoch of what comes into being now.
    pub(super) fn epoch(&self) -> u32 {
        self.epoch
    }

    /// The number to look at next.
    pub(super) fn next(&self) -> Option<u32> {
        (self.at < self.end).then_some(self.at)
    }

    /// Goes on to the number after it.
    pub(super) fn pass(&mut self) {
        self.at += 1;
    }

    /// Whether something is yet to be written: its number, and the epoch in which it came into being.
    pub(super) fn needs(&self, number: u32, epoch: u32) -> bool {
        epoch < self.epoch && (self.at..self.end).contains(&number)
    }

    /// Notes that a queue is about to change, which has so many messages. Says whether some of them are
    /// marked that were not written.
    #[inline]
    pub(super) fn touch(&self, number: u32, marks: &mut Marks, messages: usize) -> bool {
        #[cfg(test)]
        if self.marks_nothing {
            return false;
        }
        self.arrive(number, marks, messages)
    }

    /// The same when the walk has come to a queue.
    #[inline]
    pub(super) fn arrive(&self, number: u32, marks: &mut Marks, messages: usize) -> bool {
        if marks.epoch < self.epoch {
            let left = if self.needs(number, marks.epoch) { messages } else { 0 };
            *marks = Marks { epoch: self.epoch, before: 0, told: 0, left };
        }
        marks.left > 0 && self.at < self.end
    }
}

/// Which messages of a queue belong to a cut.
#[derive(Copy, Clone, Debug)]
pub(super) struct Marks {
    /// For which cut they were counted, or before which the queue came into being.
    epoch: u32,
    /// Messages at the front that are not marked.
    before: usize,
    /// Marked messages behind them that were written.
    told: usize,
    /// Marked messages behind those that were not.
    left: usize,
}

impl Marks {
    /// Those of a queue that comes into being: none.
    pub(super) fn new(passage: &Passage) -> Self {
        Marks { epoch: passage.epoch, before: 0, told: 0, left: 0 }
    }

    /// Notes, if some are left, that messages were put before all others.
    pub(super) fn placed_first(&mut self, messages: usize) {
        self.before += messages;
    }

    /// Notes, if some are left, that the first message is about to be taken off. Says whether it must be
    /// written.
    pub(super) fn pop(&mut self) -> bool {
        for not_needed in [&mut self.before, &mut self.told] {
            if *not_needed > 0 {
                *not_needed -= 1;
                return false;
            }
        }
        // None may be left if several are taken off.
        self.left.checked_sub(1).map(|left| self.left = left).is_some()
    }

    /// The position of the next message to write.
    pub(super) fn advance(&mut self) -> Option<usize> {
        self.left = self.left.checked_sub(1)?;
        self.told += 1;
        Some(self.before + self.told - 1)
    }

    pub(super) fn is_on(&self) -> bool {
        self.left > 0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    #[test]
    fn numbers_are_used_again() {
        let mut slab = Slab::default();
        assert_eq!((slab.insert('a'), slab.insert('b'), slab.insert('c')), (0, 1, 2));
        assert_eq!((slab.remove(1), slab.remove(1), slab.remove(7)), (Some('b'), None, None));
        assert_eq!((slab.get(1), slab.end()), (None, 3));
        assert_eq!((slab.insert('d'), slab.insert('e')), (1, 3));
        *slab.get_mut(3).unwrap() = 'f';
        assert_eq!(slab.iter().collect::<String>(), "adcf");
    }

    /// Queues that come, go and change at random, with cuts between; each cut is what there was, in order.
    #[test]
    fn what_is_written_is_what_there_was() {
        let (mut cuts, mut popped) = (0, 0);
        for seed in 0..300_u64 {
            let mut random = seed;
            let mut draw = |below: u64| {
                random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (random >> 33) % below
            };
            let mut passage = Passage::default();
            let mut slab: Slab<(Marks, VecDeque<u64>)> = Slab::default();
            let mut expected: Vec<Vec<u64>> = Vec::new();
            let mut written: Vec<Vec<u64>> = Vec::new();
            for message in 0..600 {
                let number = draw(6) as u32;
                match draw(10) {
                    0 if passage.next().is_none() || draw(30) == 0 => {
                        // What was begun and is not over is abandoned.
                        passage.begin(slab.end());
                        let was = |number| -> Vec<u64> {
                            slab.get(number).into_iter().flat_map(|it| &it.1).copied().collect()
                        };
                        expected = (0..slab.end()).map(was).collect();
                        written = vec![Vec::new(); expected.len()];
                    }
                    0 if draw(20) == 0 => {
                        passage.stop();
                        written.clear();
                        expected.clear();
                    }
                    1 => _ = slab.insert((Marks::new(&passage), VecDeque::new())),
                    2..6 => {
                        let Some((marks, queue)) = slab.get_mut(number) else { continue };
                        let is_on = passage.touch(number, marks, queue.len());
                        if draw(3) == 0 {
                            queue.push_front(message);
                            if is_on {
                                marks.placed_first(1);
                            }
                        } else {
                            queue.push_back(message);
                        }
                    }
                    6 | 7 => {
                        let Some((marks, queue)) = slab.get_mut(number) else { continue };
                        let is_on = passage.touch(number, marks, queue.len());
                        for _ in 0..draw(3) {
                            let Some(first) = queue.pop_front() else { break };
                            if is_on && marks.pop() {
                                written[number as usize].push(first);
                                popped += 1;
                            }
                        }
                        if queue.is_empty() {
                            slab.remove(number);
                        }
                    }
                    _ => {
                        let Some(number) = passage.next() else { continue };
                        if let Some((marks, queue)) = slab.get_mut(number) {
                            passage.arrive(number, marks, queue.len());
                            if let Some(at) = marks.advance() {
                                written[number as usize].push(queue[at]);
                            }
                            if marks.is_on() {
                                continue;
                            }
                        }
                        passage.pass();
                        if passage.next().is_none() {
                            assert_eq!(written, expected, "seed {seed}");
                            cuts += 1;
                        }
                    }
                }
            }
        }
        assert!(cuts > 1000 && popped > 500, "{cuts} cuts and {popped} popped");
    }
}

//! A queue with two ends in chunks: growing never moves what is there, and so never takes long.

use std::collections::VecDeque;

const CHUNK: usize = 4096;

/// Chunks of which none is empty.
pub(super) struct Deque<X> {
    chunks: VecDeque<VecDeque<X>>,
    len: usize,
}

impl<X> Default for Deque<X> {
    fn default() -> Self {
        Deque { chunks: VecDeque::new(), len: 0 }
    }
}

impl<X> Deque<X> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The element with so many before it.
    pub(super) fn get(&self, at: usize) -> Option<&X> {
        let first = self.chunks.front()?;
        match at.checked_sub(first.len()) {
            None => first.get(at),
            // All chunks between the first and the last are full.
            Some(at) => self.chunks.get(1 + at / CHUNK)?.get(at % CHUNK),
        }
    }

    /// How many elements come before those of which this is not true any more, if it is true of the
    /// first and once it is not it never is again.
    pub(super) fn partition_point(&self, is_before: impl Fn(&X) -> bool) -> usize {
        let (mut low, mut high) = (0, self.len);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.get(middle).is_some_and(&is_before) {
                true => low = middle + 1,
                false => high = middle,
            }
        }
        low
    }

    pub(super) fn front(&self) -> Option<&X> {
        self.chunks.front()?.front()
    }

    pub(super) fn back_mut(&mut self) -> Option<&mut X> {
        self.chunks.back_mut()?.back_mut()
    }

    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = &X> {
        self.chunks.iter().flatten()
    }

    /// All but the first so many.
    pub(super) fn iter_from(&self, from: usize) -> impl Iterator<Item = &X> {
        // Every chunk is passed in one step, not element by element.
        let mut skip = from;
        self.chunks.iter().flat_map(move |chunk| {
            let skipped = skip.min(chunk.len());
            skip -= skipped;
            chunk.range(skipped..)
        })
    }

    pub(super) fn push_back(&mut self, item: X) {
        if self.chunks.back().is_none_or(|chunk| chunk.len() == CHUNK) {
            self.add_chunk();
        }
        let chunk = self.chunks.back_mut().expect("there is one now");
        // The first chunk grows as it fills: most queues are short.
        if chunk.len() == chunk.capacity() {
            chunk.reserve_exact(chunk.len().max(1));
        }
        chunk.push_back(item);
        self.len += 1;
    }

    fn add_chunk(&mut self) {
        if self.chunks.is_empty() {
            self.chunks.reserve_exact(1);
            self.chunks.push_back(VecDeque::new());
        } else {
            self.chunks.push_back(VecDeque::with_capacity(CHUNK));
        }
    }

    pub(super) fn pop_back(&mut self) -> Option<X> {
        let chunk = self.chunks.back_mut()?;
        let item = chunk.pop_back();
        if chunk.is_empty() {
            self.chunks.pop_back();
        }
        self.len -= 1;
        item
    }

    pub(super) fn pop_front(&mut self) -> Option<X> {
        let chunk = self.chunks.front_mut()?;
        let item = chunk.pop_front();
        if chunk.is_empty() {
            self.chunks.pop_front();
        }
        self.len -= 1;
        item
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_does_what_one_without_chunks_does() {
        let (mut deque, mut model) = (Deque::default(), VecDeque::new());
        let mut random = 1u64;
        let mut draw = move |below: u64| {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (random >> 33) % below
        };
        for round in 0..60 {
            // Rounds that mostly push, and rounds that mostly pop.
            let pushes = if round % 2 == 0 { 8 } else { 1 };
            for item in 0..draw(6000) {
                match draw(10) {
                    n if n < pushes => {
                        deque.push_back(item);
                        model.push_back(item);
                    }
                    8 => assert_eq!(deque.pop_front(), model.pop_front()),
                    _ => assert_eq!(deque.pop_back(), model.pop_back()),
                }
                assert_eq!(deque.len(), model.len());
                assert_eq!(deque.front(), model.front());
                assert_eq!(deque.back_mut(), model.back_mut());
            }
            assert!(deque.iter().eq(&model));
            let from = draw(model.len() as u64 + 1) as usize;
            assert!(deque.iter_from(from).eq(model.range(from..)));
            assert_eq!(deque.get(from), model.get(from));
        }
    }
    #[test]
    fn a_point_is_found_wherever_it_is() {
        let mut deque = Deque::default();
        (0..20_000).for_each(|item| deque.push_back(item));
        (0..5000).for_each(|_| _ = deque.pop_front());
        for point in [0, 4999, 5000, 5001, 8191, 8192, 12_345, 19_999, 20_000, 30_000] {
            let found = deque.partition_point(|item| *item < point);
            assert_eq!(found, point.clamp(5000, 20_000) as usize - 5000);
        }
    }
}

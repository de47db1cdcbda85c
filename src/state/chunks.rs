//! A vector in chunks that never move: growing never copies what is there, and so never takes long.

const CHUNK_BITS: u32 = 12;
const CHUNK: usize = 1 << CHUNK_BITS;

/// A vector of chunks of equal size: pushing never moves what is there.
pub(super) struct Chunks<X>(Vec<Vec<X>>);

impl<X> Default for Chunks<X> {
    fn default() -> Self {
        Chunks(Vec::new())
    }
}

impl<X> Chunks<X> {
    #[inline]
    pub(super) fn get(&self, at: u32) -> Option<&X> {
        self.0.get((at >> CHUNK_BITS) as usize)?.get(at as usize & (CHUNK - 1))
    }

    #[inline]
    pub(super) fn get_mut(&mut self, at: u32) -> Option<&mut X> {
        self.0.get_mut((at >> CHUNK_BITS) as usize)?.get_mut(at as usize & (CHUNK - 1))
    }

    /// What is at a place, after as much was pushed as it takes to have one there.
    #[inline]
    pub(super) fn get_mut_or_grow(&mut self, at: u32, empty: impl Fn() -> X) -> &mut X {
        while self.len() <= at as usize {
            self.push(empty());
        }
        self.get_mut(at).expect("it was just made")
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &X> {
        self.0.iter().flatten()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut X> {
        self.0.iter_mut().flatten()
    }

    pub(super) fn len(&self) -> usize {
        match self.0.last() {
            Some(last) => (self.0.len() - 1) * CHUNK + last.len(),
            None => 0,
        }
    }

    pub(super) fn push(&mut self, item: X) {
        if self.0.last().is_none_or(|last| last.len() == CHUNK) {
            // The first chunk grows as it fills: most function types have few addresses, and most
            // tables few entries.
            let capacity = if self.0.is_empty() { 0 } else { CHUNK };
            if self.0.is_empty() {
                self.0.reserve_exact(1);
            }
            self.0.push(Vec::with_capacity(capacity));
        }
        self.0.last_mut().expect("there is one now").push(item);
    }
}

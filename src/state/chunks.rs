//! Vectors in chunks that never move: growing never copies what is there, and so never takes long.

const CHUNK_BITS: u32 = 12;
pub(super) const CHUNK: usize = 1 << CHUNK_BITS;

/// The chunk of a number, and the place in it.
#[inline]
fn place(at: u32) -> (usize, usize) {
    ((at >> CHUNK_BITS) as usize, at as usize & (CHUNK - 1))
}

/// A vector of chunks of equal size: pushing never moves what is there.
pub(crate) struct Chunks<X>(Vec<Vec<X>>);

impl<X> Default for Chunks<X> {
    fn default() -> Self {
        Chunks(Vec::new())
    }
}

impl<X> Chunks<X> {
    #[inline]
    pub(crate) fn get(&self, at: u32) -> Option<&X> {
        let (chunk, place) = place(at);
        self.0.get(chunk)?.get(place)
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, at: u32) -> Option<&mut X> {
        let (chunk, place) = place(at);
        self.0.get_mut(chunk)?.get_mut(place)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &X> {
        self.0.iter().flatten()
    }

    pub(crate) fn len(&self) -> usize {
        match self.0.last() {
            Some(last) => (self.0.len() - 1) * CHUNK + last.len(),
            None => 0,
        }
    }

    pub(crate) fn push(&mut self, item: X) {
        if self.0.last().is_none_or(|last| last.len() == CHUNK) {
            self.add_chunk();
        }
        let last = self.0.last_mut().expect("there is one now");
        // The first chunk grows as it fills: most function types have few addresses, and most
        // tables few entries.
        if last.len() == last.capacity() {
            last.reserve_exact(last.len().max(1));
        }
        last.push(item);
    }

    fn add_chunk(&mut self) {
        if self.0.is_empty() {
            self.0.reserve_exact(1);
            self.0.push(Vec::new());
        } else {
            self.0.push(Vec::with_capacity(CHUNK));
        }
    }
}

/// Cells by number, of which many may never have been written: what one costs when it is first
/// written depends on its chunk and not on its number.
pub(super) struct Cells<X>(Vec<Vec<X>>);

impl<X> Default for Cells<X> {
    fn default() -> Self {
        Cells(Vec::new())
    }
}

impl<X> Cells<X> {
    pub(super) const fn new() -> Self {
        Cells(Vec::new())
    }

    #[inline]
    pub(super) fn get(&self, at: u32) -> Option<&X> {
        let (chunk, place) = place(at);
        self.0.get(chunk)?.get(place)
    }

    #[inline]
    pub(super) fn get_mut(&mut self, at: u32) -> Option<&mut X> {
        let (chunk, place) = place(at);
        self.0.get_mut(chunk)?.get_mut(place)
    }

    /// The number of the first cell from `from` on that was written, or is near one that was.
    pub(super) fn next(&self, from: u32) -> Option<u32> {
        let (mut chunk, mut at) = place(from);
        while at >= self.0.get(chunk)?.len() {
            (chunk, at) = (chunk + 1, 0);
        }
        Some((chunk << CHUNK_BITS | at) as u32)
    }

    /// All cells that were written, and some of the others.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut X> {
        self.0.iter_mut().flatten()
    }
}

impl<X: Default> Cells<X> {
    /// A cell, which is made if it was never written.
    #[inline]
    pub(super) fn get_or_make(&mut self, at: u32) -> &mut X {
        let (chunk, place) = place(at);
        if self.0.get(chunk).is_none_or(|cells| cells.len() <= place) {
            self.make(chunk, place);
        }
        &mut self.0[chunk][place]
    }

    fn make(&mut self, chunk: usize, place: usize) {
        if self.0.is_empty() {
            self.0.reserve_exact(chunk + 1);
        }
        if self.0.len() <= chunk {
            self.0.resize_with(chunk + 1, Vec::new);
        }
        let cells = &mut self.0[chunk];
        // The first chunk grows as it fills, as above.
        if chunk > 0 {
            cells.reserve_exact(CHUNK - cells.len());
        } else if cells.capacity() <= place {
            cells.reserve_exact((place + 1).next_power_of_two() - cells.len());
        }
        cells.resize_with(place + 1, X::default);
    }
}

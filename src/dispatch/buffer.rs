//! The buffer of an address, as a function sees it.

use std::fmt;

use super::Context;
use crate::buffer::BufferSpec;
use crate::state::BufferAt;

impl<M, T: Clone + PartialEq + 'static> Context<'_, M, T> {
    /// The buffer this address keeps, which may be empty.
    pub fn buffer<E: 'static>(&mut self, spec: BufferSpec<E, &str>) -> Buffer<'_, E> {
        match self.state.buffer(self.cursor, &self.head.target, spec) {
            Ok(buffer) => Buffer(Some(buffer)),
            Err(mistake) => {
                self.mistake.get_or_insert(*mistake);
                Buffer(None)
            }
        }
    }
}

/// The buffer that an address keeps, while it handles a message.
///
/// Where the function uses a buffer in a way that does not fit how it declares it, it is empty and
/// stays so, and the invocation fails.
pub struct Buffer<'a, E: 'static>(Option<BufferAt<'a, E>>);

impl<E: 'static> Buffer<'_, E> {
    /// Keeps one more element, after all others.
    pub fn append(&mut self, element: E) {
        if let Some(buffer) = &mut self.0 {
            buffer.append(element);
        }
    }

    /// Keeps more elements, in their order, after all others. None of them is no change.
    pub fn extend(&mut self, elements: impl IntoIterator<Item = E>) {
        if let Some(buffer) = &mut self.0 {
            buffer.extend(elements);
        }
    }

    /// Keeps these elements in place of all others. None of them is to [clear](Self::clear) it.
    pub fn replace(&mut self, elements: impl IntoIterator<Item = E>) {
        if let Some(buffer) = &mut self.0 {
            buffer.replace(elements);
        }
    }

    /// Keeps nothing any more. This takes no longer for many elements than for few.
    pub fn clear(&mut self) {
        if let Some(buffer) = &mut self.0 {
            buffer.clear();
        }
    }

    /// How many elements there are. This reads none of them.
    pub fn len(&self) -> usize {
        self.0.as_ref().map_or(0, BufferAt::len)
    }

    /// Whether there is no element. This reads none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All elements, in the order in which they were appended. Where reads put
    /// [expiry](crate::Expiration) off, this is a read of all of them, however far one goes.
    pub fn iter(&mut self) -> impl Iterator<Item = &E> {
        self.0.iter_mut().flat_map(BufferAt::iter)
    }
}

impl<E: 'static> fmt::Debug for Buffer<'_, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer").field("fits", &self.0.is_some()).finish_non_exhaustive()
    }
}

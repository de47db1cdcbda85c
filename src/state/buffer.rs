//! One declared buffer of one function type, for all addresses, and what the running invocation
//! changed in it.
//!
//! Appending remembers how much was appended and nothing else; what is replaced or cleared is put
//! aside as a whole.

use std::hint::black_box;

use super::addresses::Slot;
use super::buffer_stored::BufferAside;
use super::chunks::Cells;
use super::column::AnyColumn;
use super::deadline::{Item, Upkeep};
use super::elements::{Elements, Renewal};
use super::site::Site;
use super::stamps::{Marks, Stamps};
#[cfg(feature = "serve")]
use super::visiting::Leave;
use crate::codec::Codec;
use crate::expiration::Expiration;

pub(super) struct BufferColumn<E: 'static> {
    /// The buffers that are not empty.
    pub(super) cells: Cells<Option<Box<Elements<E>>>>,
    pub(super) expiration: Expiration,
    pub(super) codec: &'static Codec<E>,
    /// What the running invocation changed, oldest first.
    pub(super) before: Vec<(Slot, Before<E>)>,
    /// Of whole buffers: when something was last done with them.
    pub(super) stamps: Stamps,
    pub(super) marks: Cells<Marks>,
}

/// What there was before a change.
pub(super) enum Before<E> {
    NoBuffer,
    /// The whole of it, when the buffer was cleared.
    Buffer(Box<Elements<E>>),
    /// So many elements less.
    Fewer(usize),
    Renewal(Renewal),
}

impl<E: 'static> BufferColumn<E> {
    pub(super) fn new(expiration: Expiration, codec: &'static Codec<E>) -> Self {
        let (cells, before) = (Cells::default(), Vec::new());
        let (stamps, marks) = (Stamps::default(), Cells::default());
        BufferColumn { cells, expiration, codec, before, stamps, marks }
    }

    pub(super) fn elements(&self, slot: Slot) -> Option<&Elements<E>> {
        self.cells.get(slot)?.as_deref()
    }

    pub(super) fn elements_mut(&mut self, slot: Slot) -> Option<&mut Elements<E>> {
        self.cells.get_mut(slot)?.as_deref_mut()
    }

    /// The deadline of an element that is written now.
    fn written(&self, now_ms: u64) -> Option<u64> {
        (!self.expiration.is_never()).then(|| self.expiration.written(now_ms))
    }
}

impl<E: 'static> AnyColumn for BufferColumn<E> {
    fn touch(&self, slot: Slot) {
        black_box(self.elements(slot).map(Elements::len));
    }

    fn commit(&mut self, upkeep: &mut Upkeep<'_>) {
        let expires = !self.expiration.is_never();
        let mut needed = upkeep.cutting().and_then(|mut cutting| self.note(&mut cutting));
        let mut changes = std::mem::take(&mut self.before);
        let matters = expires || needed.is_some();
        for (slot, before) in changes.drain(..).filter(|_| matters) {
            match before {
                Before::Buffer(mut elements) => {
                    if expires {
                        upkeep.settle(elements.due_mut(), false, slot, 0);
                    }
                    if let Some((from, pin)) = needed.take()
                        && let Some(mut cutting) = upkeep.cutting()
                    {
                        let codec = (self.codec, expires);
                        cutting.put_aside(slot, |id| {
                            Box::new(BufferAside { id, elements, from, pin, codec })
                        });
                    }
                }
                _ if !expires => {}
                Before::NoBuffer | Before::Fewer(_) => {
                    // If the buffer of this change was cleared since, there may be none.
                    if let Some(elements) = self.elements_mut(slot) {
                        upkeep.settle(elements.due_mut(), true, slot, 0);
                    }
                }
                Before::Renewal(_) => {}
            }
        }
        self.before = changes;
    }

    fn rollback(&mut self, upkeep: &mut Upkeep<'_>) {
        while let Some((slot, before)) = self.before.pop() {
            let cell = self.cells.get_mut(slot).expect("it was written");
            match (before, cell.as_deref_mut()) {
                (Before::NoBuffer, Some(_)) => {
                    *cell = None;
                    upkeep.count(slot, -1);
                }
                (Before::Buffer(elements), None) => {
                    *cell = Some(elements);
                    upkeep.count(slot, 1);
                }
                (Before::Fewer(count), Some(elements)) => elements.truncate_by(count),
                (Before::Renewal(renewal), Some(elements)) => _ = elements.renew(renewal),
                _ => unreachable!("changes are undone in turn"),
            }
        }
    }

    fn expire(&mut self, item: Item, now_ms: u64, room: usize, upkeep: &mut Upkeep<'_>) -> usize {
        let stamp = self.stamps.get(item.slot);
        let elements = self.elements_mut(item.slot).expect("what has an item is there");
        elements.due_mut().was_due();
        if let Some(mut cutting) = upkeep.cutting()
            && cutting.must_wait(item, stamp, elements.pin())
        {
            return 0;
        }
        let swept = elements.sweep(now_ms, room);
        let is_there = elements.len() > 0;
        if let Some(mut cutting) = upkeep.cutting() {
            self.stamps.set(item.slot, cutting.written(stamp, true));
            if !is_there {
                cutting.cleared(item.slot, stamp);
            }
        }
        let elements = self.elements_mut(item.slot).expect("it is still there");
        if elements.len() > 0 {
            upkeep.settle(elements.due_mut(), true, item.slot, 0);
        } else {
            self.cells.get_mut(item.slot).map(Option::take);
            upkeep.count(item.slot, -1);
        }
        swept
    }

    #[cfg(feature = "serve")]
    fn leaving(&self) -> &dyn Leave {
        self
    }
}

/// The buffer of one address, during an invocation.
pub(crate) struct BufferAt<'a, E: 'static> {
    pub(super) column: &'a mut BufferColumn<E>,
    pub(super) site: Site<'a>,
}

impl<E: 'static> BufferAt<'_, E> {
    fn elements(&self) -> Option<&Elements<E>> {
        self.column.elements(self.site.slot()?)
    }

    pub(crate) fn append(&mut self, element: E) {
        let column = &mut *self.column;
        self.site.note_write(column.before.is_empty());
        let slot = self.site.settle();
        let deadline = column.written(self.site.now_ms());
        let cell = column.cells.get_or_make(slot);
        if cell.is_none() {
            self.site.count(slot, 1);
            column.before.push((slot, Before::NoBuffer));
        }
        cell.get_or_insert_default().append(element, deadline);
        match column.before.last_mut() {
            Some((last, Before::Fewer(count))) if *last == slot => *count += 1,
            _ => column.before.push((slot, Before::Fewer(1))),
        }
    }

    pub(crate) fn extend(&mut self, elements: impl IntoIterator<Item = E>) {
        elements.into_iter().for_each(|element| self.append(element));
    }

    pub(crate) fn replace(&mut self, elements: impl IntoIterator<Item = E>) {
        let deadline = self.column.written(self.site.now_ms());
        // All of them, before anything happens: who gives them may panic.
        let mut replacement = Box::new(Elements::default());
        elements.into_iter().for_each(|element| replacement.append(element, deadline));
        self.clear();
        if replacement.len() > 0 {
            let column = &mut *self.column;
            self.site.note_write(column.before.is_empty());
            let slot = self.site.settle();
            column.before.push((slot, Before::NoBuffer));
            *column.cells.get_or_make(slot) = Some(replacement);
            self.site.count(slot, 1);
        }
    }

    pub(crate) fn clear(&mut self) {
        let column = &mut *self.column;
        if let Some(slot) = self.site.slot()
            && let Some(elements) = column.cells.get_mut(slot).and_then(Option::take)
        {
            self.site.note_write(column.before.is_empty());
            column.before.push((slot, Before::Buffer(elements)));
            self.site.count(slot, -1);
        }
    }

    pub(crate) fn len(&self) -> usize {
        let now_ms = self.site.now_ms();
        self.elements().map_or(0, |elements| elements.len() - elements.expired(now_ms))
    }

    pub(crate) fn iter(&mut self) -> impl Iterator<Item = &E> {
        self.renew();
        let now_ms = self.site.now_ms();
        self.elements().into_iter().flat_map(move |elements| elements.seen(now_ms))
    }

    /// Puts off the deadlines of all elements that are about to be read, if they must be.
    fn renew(&mut self) {
        let column = &mut *self.column;
        let (expiration, now_ms) = (column.expiration, self.site.now_ms());
        if let Some(slot) = self.site.slot()
            && let Some(elements) = column.cells.get_mut(slot).and_then(Option::as_deref_mut)
            && let Some(renewal) = elements.read(expiration, now_ms)
        {
            self.site.note_write(column.before.is_empty());
            let before = elements.renew(renewal);
            column.before.push((slot, Before::Renewal(before)));
        }
    }
}

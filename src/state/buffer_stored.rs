//! How buffers are stored and restored: as ranges of numbered elements, of which a delta contains those
//! that were appended.

use super::addresses::Slot;
use super::buffer::{Before, BufferColumn};
use super::column::Stored;
use super::cuts::Cutting;
use super::deadline::{Item, Upkeep};
use super::elements::{Elements, Renewal};
use super::pen::{Failure, Pin};
use super::record::Tag;
use super::restore::Restored;
use super::stamps::Stamps;
use super::walk::{Aside, Walker};
use crate::address::Id;
use crate::codec::{Codec, CodecError};
use crate::records::Reader;

/// No element has a number beyond this. Counting so far takes longer than anybody has.
const NUMBER_MAX: u64 = 1 << 60;

/// A buffer that was cleared before the walk had passed it.
pub(super) struct BufferAside<E: 'static> {
    pub(super) id: Id,
    pub(super) elements: Box<Elements<E>>,
    pub(super) from: u64,
    pub(super) pin: Pin,
    /// And whether elements expire.
    pub(super) codec: (&'static Codec<E>, bool),
}

impl<E: 'static> Aside for BufferAside<E> {
    fn walk(&mut self, walker: &mut Walker<'_>) -> Result<bool, Failure> {
        let BufferAside { id, elements, from, pin, codec } = self;
        let stopped = walker.write_elements(id, elements, *from, *pin, *codec)?;
        *from = stopped.unwrap_or(pin.end);
        Ok(stopped.is_none())
    }
}

impl<E: 'static> BufferColumn<E> {
    /// Notes for cuts what was done. If a buffer was cleared of which a walk needs something yet, it
    /// says from which element on, and what the buffer was.
    pub(super) fn note(&mut self, cutting: &mut Cutting<'_>) -> Option<(u64, Pin)> {
        let BufferColumn { cells, before, stamps, marks, .. } = self;
        let &(slot, ref first) = before.first()?;
        let stamp = stamps.get(slot);
        let was_there = !matches!(first, Before::NoBuffer);
        let clears = |(_, before): &(Slot, Before<E>)| matches!(before, Before::Buffer(_));
        let clear = before.iter().position(clears).filter(|_| was_there);
        let live = cells.get(slot).and_then(Option::as_deref);
        let mut needed = None;
        if was_there {
            // What was done with the buffer that was there.
            let (changes, cleared) = before.split_at(clear.unwrap_or(before.len()));
            let elements = match cleared.first() {
                Some((_, Before::Buffer(elements))) => Some(&**elements),
                _ => live,
            };
            let elements = elements.expect("a buffer that was there is there, or was put aside");
            let mut was = elements.pin();
            for (_, change) in changes.iter().rev() {
                match change {
                    Before::Fewer(count) => was.end -= *count as u64,
                    Before::Renewal(renewal) => was.renewal = *renewal,
                    Before::NoBuffer | Before::Buffer(_) => unreachable!("it was there"),
                }
            }
            needed = cutting.needs_buffer(slot, stamp, was);
            let marks = marks.get_or_make(slot);
            if clear.is_some() {
                needed = needed.map(|(from, pin)| {
                    let range = cutting.range().expect("a walk needs it");
                    let first = marks.first(range, pin.end).max(elements.base());
                    (from.max(first), pin)
                });
                cutting.unpin(slot);
                cutting.cleared(slot, stamp);
            } else {
                if let Some((_, pin)) = needed.take() {
                    cutting.pin(slot, pin);
                }
                if elements.end() > was.end {
                    cutting.appended(marks, was.end);
                }
            }
        }
        let is_the_same = was_there && clear.is_none();
        if !is_the_same {
            *marks.get_or_make(slot) = cutting.new_marks();
        }
        stamps.set(slot, cutting.written(stamp, is_the_same));
        needed
    }
}

impl<E: 'static> Stored for BufferColumn<E> {
    fn walk(
        &self,
        from: (Slot, u64),
        walker: &mut Walker<'_>,
    ) -> Result<Option<(Slot, u64)>, Failure> {
        let (range, codec) = (walker.range(), (self.codec, !self.expiration.is_never()));
        let next = |at| self.cells.next(at);
        walker.each(from, next, &self.stamps, |walker, slot, from| {
            let Some(elements) = self.elements(slot) else { return Ok(None) };
            let now = || range.contains(self.stamps.get(slot)).then(|| elements.pin());
            let Some(pin) = walker.pin(slot).or_else(now) else { return Ok(None) };
            let marks = self.marks.get(slot).copied().unwrap_or_default();
            let first = marks.first(range, pin.end).max(elements.base());
            walker.write_elements(walker.id(slot), elements, from.max(first), pin, codec)
        })
    }

    fn apply(
        &mut self,
        tag: Tag,
        content: Reader<'_>,
        site: &mut Restored<'_>,
    ) -> Result<(), CodecError> {
        if tag == Tag::Elements {
            return self.append_stored(content, site);
        }
        if let Some(slot) = site.slot()
            && let Some(mut elements) = self.cells.get_mut(slot).and_then(Option::take)
        {
            if !self.expiration.is_never() {
                site.upkeep.settle(elements.due_mut(), false, slot, 0);
            }
            site.upkeep.count(slot, -1);
        }
        Ok(())
    }

    fn resume(&mut self, item: Item, upkeep: &mut Upkeep<'_>) {
        // It may be another buffer by now.
        if let Some(elements) = self.elements_mut(item.slot) {
            upkeep.settle(elements.due_mut(), true, item.slot, 0);
        }
    }

    fn stamps_mut(&mut self) -> &mut Stamps {
        &mut self.stamps
    }
}

impl<E: 'static> BufferColumn<E> {
    fn append_stored(
        &mut self,
        mut content: Reader<'_>,
        site: &mut Restored<'_>,
    ) -> Result<(), CodecError> {
        let (expires, expiration) = (!self.expiration.is_never(), self.expiration);
        let base = content.varint()?;
        if base > NUMBER_MAX {
            return Err("it has more elements than there can be".into());
        }
        let mut renewal = Renewal::default();
        if site.expires {
            renewal = Renewal { since: content.varint()?, until: content.varint()? };
        }
        let first = content.varint()?;
        let slot = site.settle();
        let cell = self.cells.get_or_make(slot);
        if cell.is_none() {
            site.upkeep.count(slot, 1);
        }
        let elements = cell.get_or_insert_default();
        elements.skip_to(base);
        if elements.len() == 0 {
            elements.skip_to(first.min(NUMBER_MAX));
        }
        if elements.end() != first {
            return Err("elements are missing before it".into());
        }
        while !content.is_empty() {
            let stored = if site.expires { Some(content.varint()?) } else { None };
            let until = stored.map(|stored| match stored > renewal.since {
                true => stored.max(renewal.until),
                false => stored,
            });
            let is_over = site.deadline_of(until, expiration).is_none();
            let deadline = if expires { site.deadline_of(stored, expiration) } else { None };
            for _ in 0..content.varint()? {
                let element = content.with_length()?;
                if is_over && elements.len() == 0 {
                    elements.skip_to(elements.base() + 1);
                } else {
                    elements.append(self.codec.read(element)?, deadline);
                }
            }
        }
        if expires {
            if site.expires {
                elements.renew(renewal);
            }
            site.upkeep.settle(elements.due_mut(), false, slot, 0);
        }
        if elements.len() == 0 {
            *cell = None;
            site.upkeep.count(slot, -1);
        } else if expires {
            site.upkeep.settle(elements.due_mut(), true, slot, 0);
        }
        Ok(())
    }
}

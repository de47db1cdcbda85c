//! Writes one record: a unit of state, or that one is gone.

use super::elements::{Elements, Renewal};
use super::record::{self, Tag};
use super::walk::Budget;
use crate::address::Id;
use crate::codec::{Codec, CodecError, Unwritable};
use crate::placement;
use crate::records;

/// A piece of state that cannot be part of a snapshot.
#[derive(Debug, thiserror::Error)]
#[error("state \"{state}\" of \"{id}\" {why}")]
pub(crate) struct WriteError {
    pub(crate) state: String,
    pub(crate) id: Id,
    pub(crate) why: Unwritable,
}

/// Why a unit is no record, with the state and the address.
#[derive(Debug)]
pub(super) struct Failure {
    column: u32,
    id: Id,
    why: Unwritable,
}

impl Failure {
    pub(super) fn named(self, name: impl FnOnce(usize) -> String) -> WriteError {
        let Failure { column, id, why } = self;
        WriteError { state: name(column as usize), id, why }
    }
}

/// What a buffer was at the cut, if something was done with it since.
#[derive(Copy, Clone, Debug)]
pub(super) struct Pin {
    pub(super) end: u64,
    pub(super) renewal: Renewal,
}

/// Writes one record.
pub(super) struct Pen<'a> {
    to: &'a mut Vec<u8>,
    column: u32,
    id: &'a Id,
    /// Whether what is written is read back.
    reads_back: bool,
}

impl Pen<'_> {
    /// Makes `to` a record, and says of which bin.
    pub(super) fn write(
        to: &mut Vec<u8>,
        column: u32,
        id: &Id,
        checked: &mut [bool],
        write: impl FnOnce(&mut Pen<'_>) -> Result<(), Unwritable>,
    ) -> Result<u16, Failure> {
        to.clear();
        let checked = &mut checked[column as usize];
        let reads_back = !std::mem::replace(checked, true);
        match write(&mut Pen { to, column, id, reads_back }) {
            Ok(()) => Ok(placement::bin(placement::hash(id)) as u16),
            Err(why) => Err(Failure { column, id: id.clone(), why }),
        }
    }

    fn deadline(&mut self, deadline: Option<u64>) {
        if let Some(deadline) = deadline {
            records::put_varint(self.to, deadline);
        }
    }

    pub(super) fn value<V>(
        &mut self,
        deadline: Option<u64>,
        codec: &Codec<V>,
        value: &V,
    ) -> Result<(), Unwritable> {
        record::begin(self.to, Tag::Value, self.column, self.id);
        self.deadline(deadline);
        codec.store(value, self.to, self.reads_back)
    }

    pub(super) fn entry<K, V>(
        &mut self,
        deadline: Option<u64>,
        (keys, values): (&Codec<K>, &Codec<V>),
        (key, value): (&K, &V),
    ) -> Result<(), Unwritable> {
        record::begin(self.to, Tag::Entry, self.column, self.id);
        self.deadline(deadline);
        records::put_with_length(self.to, |to| keys.store(key, to, self.reads_back))?;
        values.store(value, self.to, self.reads_back)
    }
}

impl Pen<'_> {
    /// Elements of a buffer from one on, but no more than there is room for. Gives the number of the one
    /// that comes next.
    pub(super) fn elements<E>(
        &mut self,
        elements: &Elements<E>,
        from: u64,
        pin: Pin,
        (codec, expires): (&Codec<E>, bool),
        most: Budget,
    ) -> Result<u64, Unwritable> {
        record::begin(self.to, Tag::Elements, self.column, self.id);
        records::put_varint(self.to, elements.base());
        if expires {
            records::put_varint(self.to, pin.renewal.since);
            records::put_varint(self.to, pin.renewal.until);
        }
        records::put_varint(self.to, from);
        let end = pin.end.min(from.saturating_add(most.units as u64));
        let start = self.to.len();
        let mut at = from;
        let mut rest = elements.iter_from(from).peekable();
        while at < end
            && self.to.len() - start < most.bytes
            && let Some((_, deadline)) = rest.peek()
        {
            let deadline = *deadline;
            self.deadline(expires.then_some(deadline));
            let (run, first) = (self.to.len(), at);
            while at < end
                && self.to.len() - start < most.bytes
                && let Some((element, _)) = rest.next_if(|(_, other)| *other == deadline)
            {
                let reads_back = std::mem::take(&mut self.reads_back);
                records::put_with_length(self.to, |to| codec.store(element, to, reads_back))?;
                at += 1;
            }
            // How many, before them.
            let length = self.to.len();
            records::put_varint(self.to, at - first);
            let length = self.to.len() - length;
            self.to[run..].rotate_right(length);
        }
        Ok(at)
    }
}

/// A record of elements is not much longer.
pub(super) const ELEMENTS_BYTES: usize = 1 << 16;

/// A record that says that something is gone.
pub(super) fn tombstone(
    to: &mut Vec<u8>,
    column: u32,
    id: &Id,
    key: impl FnOnce(&mut Vec<u8>) -> Option<Result<(), CodecError>>,
) -> Result<u16, CodecError> {
    to.clear();
    record::begin(to, Tag::Cleared, column, id);
    if let Some(result) = key(to) {
        to[0] = Tag::Removed as u8;
        result?;
    }
    Ok(placement::bin(placement::hash(id)) as u16)
}

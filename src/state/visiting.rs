//! State that comes with a batch of messages and goes with the answer, each piece of it as one value.
//!
//! While a batch is handled nothing is committed: what was written is what has an undo log, and when the
//! answer is made, all is undone and what came is taken away. So nothing is left for the next batch,
//! whatever became of this one.
//!
//! A value travels as the bytes that it is stored as, under the name of its type. A table and a buffer travel
//! as protobuf messages:
//!
//! ```protobuf
//! message Table { repeated Entry entries = 1; }
//! message Entry { bytes key = 1; bytes value = 2; }
//! message Buffer { repeated bytes elements = 1; }
//! ```
//!
//! Keys, values and elements are what they are stored as. The name of a table's type is
//! `rust.table/KEY,VALUE`, with the names of the types of its keys and values, and of a buffer's
//! `rust.buffer/ELEMENT`; each `/` in these is a `:` there, as runtimes want one in a name.

use std::hash::Hash;

use bytes::Bytes;

use super::addresses::Slot;
use super::buffer::BufferColumn;
use super::column::Column;
use super::deadline::Upkeep;
use super::declared::{Declared, Kind};
use super::expiring::ExpiringColumn;
use super::record::Tag;
use super::restore::Restored;
use super::table::TableColumn;
use super::{Cursor, FunctionState};
use crate::address::Id;
use crate::codec::CodecError;
use crate::dead_letter::Reason;
use crate::expiration::Expiration;
use crate::records::{Reader, put_varint, put_with_length};

/// A state as others know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct VisitingState {
    pub(crate) name: String,
    pub(crate) type_name: String,
    pub(crate) expiration: Expiration,
}

/// A state that came: its name, and what is kept there with the name of its type, if something is.
pub(crate) type Given = (String, Option<(String, Bytes)>);

/// Why a batch cannot be handled.
#[derive(Debug)]
pub(crate) enum Unfit {
    /// These states did not come with it.
    Missing(Vec<VisitingState>),
    /// What came is not what is declared.
    Invalid(String),
}

/// The address whose state is here.
pub(super) struct Visit {
    id: Id,
    hash: u64,
    now_ms: u64,
    slot: Slot,
    /// What came and is not declared.
    given: Vec<Given>,
    /// The columns in which something is that came.
    came: Vec<usize>,
    /// Of states that were registered meanwhile and did not come.
    missing: Vec<usize>,
}

impl Declared {
    /// The name of the type that its content has as one value.
    fn travels_as(&self) -> String {
        let flat = |name: &str| name.replace('/', ":");
        match self.kind {
            Kind::Value => self.type_name.clone().into_owned(),
            Kind::Table => {
                let (keys, values) = (flat(&self.key_type), flat(&self.type_name));
                format!("rust.table/{keys},{values}")
            }
            Kind::Buffer => format!("rust.buffer/{}", flat(&self.type_name)),
        }
    }

    /// Why its content cannot be one value, if it cannot.
    pub(crate) fn stays_at_home(&self) -> Option<String> {
        let expires = self.kind != Kind::Value && !self.expiration.is_never();
        expires.then(|| {
            let Declared { name, kind, .. } = self;
            format!("pieces of {kind} \"{name}\" expire by themselves, and it travels as one value")
        })
    }

    fn as_visiting(&self) -> VisitingState {
        VisitingState {
            name: self.name.clone().into_owned(),
            type_name: self.travels_as(),
            expiration: self.expiration,
        }
    }
}

impl FunctionState {
    /// Puts in place what came for an address.
    ///
    /// # Errors
    ///
    /// If a state that is declared did not come, or what came is not what is declared. It has to be
    /// [dismissed](Self::dismiss) then as well.
    pub(crate) fn admit(
        &mut self,
        id: &Id,
        hash: u64,
        now_ms: u64,
        mut given: Vec<Given>,
    ) -> Result<Cursor, Unfit> {
        assert!(self.visit.is_none() && self.written.is_empty(), "one address at a time is here");
        let declared = &self.declared[..self.constants];
        let is_missing = |declared: &&Declared| !given.iter().any(|(n, _)| declared.is_called(n));
        let missing: Vec<_> = declared.iter().filter(is_missing).collect();
        if !missing.is_empty() {
            return Err(Unfit::Missing(missing.into_iter().map(Declared::as_visiting).collect()));
        }
        let slot = self.addresses.insert(id, hash);
        // It stays while its values go and come.
        self.addresses.count_values(slot, 1);
        let mut came = Vec::with_capacity(self.constants);
        given.retain_mut(|(name, value)| {
            let at = declared.iter().position(|declared| declared.is_called(name));
            came.extend(at.map(|at| (at, value.take())));
            at.is_none()
        });
        let (given, id) = (given, id.clone());
        let (visit, missing) = (Vec::new(), Vec::new());
        let visit = Visit { id, hash, now_ms, slot, given, came: visit, missing };
        self.visit = Some(Box::new(visit));
        for (at, value) in came {
            if let Some((type_name, bytes)) = value {
                self.put_given(at, &type_name, &bytes).map_err(Unfit::Invalid)?;
            }
        }
        Ok(Cursor { now_ms, hash, slot: Some(slot) })
    }

    /// Puts in place what came for a state that was just registered, or notes that nothing did.
    pub(super) fn welcome(&mut self, at: usize) -> Result<(), Box<Reason>> {
        let Some(visit) = &mut self.visit else { return Ok(()) };
        let declared = &self.declared[at];
        if let Some(why) = declared.stays_at_home() {
            return Err(Box::new(Reason::InvalidState(why)));
        }
        match visit.given.iter_mut().find(|(name, _)| declared.is_called(name)) {
            None => visit.missing.push(at),
            Some((_, value)) => {
                if let Some((type_name, bytes)) = value.take() {
                    self.put_given(at, &type_name, &bytes)
                        .map_err(|why| Box::new(Reason::InvalidState(why)))?;
                }
            }
        }
        Ok(())
    }

    fn put_given(&mut self, at: usize, type_name: &str, bytes: &[u8]) -> Result<(), String> {
        let declared = &self.declared[at];
        let expected = declared.travels_as();
        if expected != type_name {
            let name = &declared.name;
            return Err(format!("state \"{name}\" came as \"{type_name}\" and is \"{expected}\""));
        }
        let kind = declared.kind;
        let visit = self.visit.as_mut().expect("somebody is here");
        visit.came.push(at);
        let arrived = self.apply_given(at, kind, bytes);
        arrived.map_err(|why| {
            let name = &self.declared[at].name;
            format!("state \"{name}\" came as bytes that are no \"{type_name}\": {why}")
        })
    }

    fn apply_given(&mut self, at: usize, kind: Kind, bytes: &[u8]) -> Result<(), CodecError> {
        let mut record = Vec::new();
        match kind {
            Kind::Value => self.apply_here(at, Tag::Value, bytes),
            Kind::Table => fields(bytes, |number, entry| {
                if number != 1 {
                    return Ok(());
                }
                let (mut key, mut value) = (&[][..], &[][..]);
                fields(entry, |number, content| {
                    *(if number == 1 { &mut key } else { &mut value }) = content;
                    Ok(())
                })?;
                record.clear();
                put_bytes(&mut record, key);
                record.extend_from_slice(value);
                self.apply_here(at, Tag::Entry, &record)
            }),
            Kind::Buffer => {
                let (mut elements, mut count) = (Vec::with_capacity(bytes.len()), 0);
                fields(bytes, |number, element| {
                    if number == 1 {
                        put_bytes(&mut elements, element);
                        count += 1;
                    }
                    Ok(())
                })?;
                // The first number, that of the first element here, and how many there are.
                record.extend_from_slice(&[0, 0]);
                put_varint(&mut record, count);
                record.extend_from_slice(&elements);
                self.apply_here(at, Tag::Elements, &record)
            }
        }
    }

    /// Applies what a record would say.
    fn apply_here(&mut self, at: usize, tag: Tag, content: &[u8]) -> Result<(), CodecError> {
        let FunctionState { addresses, wheel, columns, visit, .. } = self;
        let Visit { id, hash, now_ms, slot, .. } = &**visit.as_ref().expect("somebody is here");
        let upkeep = Upkeep { column: at as u32, addresses, wheel, cuts: None };
        let (hash, slot, now_ms) = (*hash, Some(*slot), *now_ms);
        let mut site = Restored { id, hash, slot, now_ms, expires: false, upkeep };
        columns[at].apply(tag, Reader::new(content), &mut site)
    }

    /// Whether a state was used that did not come.
    pub(crate) fn lacks_some(&self) -> bool {
        self.visit.as_ref().is_some_and(|visit| !visit.missing.is_empty())
    }

    /// The states that were used and did not come.
    pub(crate) fn lacking(&self) -> Vec<VisitingState> {
        let missing = self.visit.iter().flat_map(|visit| &visit.missing);
        missing.map(|at| self.declared[*at].as_visiting()).collect()
    }

    /// What the states have become that were written, in the order in which they are declared: none where
    /// nothing is kept any more.
    ///
    /// # Errors
    ///
    /// If something cannot be written.
    pub(crate) fn changes(&self) -> Result<Vec<Given>, String> {
        let slot = self.visit.as_ref().expect("somebody is here").slot;
        let mut written = self.written.clone();
        written.sort_unstable();
        let change = |at: usize| {
            let declared = &self.declared[at];
            let mut bytes = Vec::new();
            let is_there = self.columns[at]
                .leaving()
                .leave(slot, &mut bytes)
                .map_err(|why| format!("state \"{}\" cannot be written: {why}", declared.name))?;
            let value = is_there.then(|| (declared.travels_as(), bytes.into()));
            Ok((declared.name.clone().into_owned(), value))
        };
        written.into_iter().map(change).collect()
    }

    /// Takes away what came, and whatever became of it.
    pub(crate) fn dismiss(&mut self) {
        let Some(visit) = &mut self.visit else { return };
        let came = std::mem::take(&mut visit.came);
        let (addresses, wheel) = (&mut self.addresses, &mut self.wheel);
        for at in self.written.drain(..) {
            let mut upkeep = Upkeep { column: at as u32, addresses, wheel, cuts: None };
            self.columns[at].rollback(&mut upkeep);
        }
        for at in came {
            self.apply_here(at, Tag::Cleared, &[]).expect("there is nothing to read in it");
        }
        self.forget_registered();
        let visit = self.visit.take().expect("somebody is here");
        self.addresses.count_values(visit.slot, -1);
        self.addresses.release_if_empty(visit.slot, visit.hash);
        debug_assert_eq!(self.addresses.len(), 0, "nothing is left");
    }
}

fn put_bytes(to: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(to, bytes.len() as u64);
    to.extend_from_slice(bytes);
}

/// Gives the fields 1 and 2 of a protobuf message whose fields are bytes, and passes over all others.
fn fields<'m>(
    message: &'m [u8],
    mut give: impl FnMut(u64, &'m [u8]) -> Result<(), CodecError>,
) -> Result<(), CodecError> {
    let mut reader = Reader::new(message);
    while !reader.is_empty() {
        let key = reader.varint()?;
        match (key >> 3, key & 7) {
            (0, _) => return Err("a field in it has no number".into()),
            (number @ (1 | 2), 2) => give(number, reader.with_length()?)?,
            (1 | 2, _) => return Err("a field in it is of another kind".into()),
            (_, 0) => drop(reader.varint()?),
            (_, 1) => drop(reader.bytes(8)?),
            (_, 2) => drop(reader.with_length()?),
            (_, 5) => drop(reader.bytes(4)?),
            _ => return Err("a field in it is of no kind".into()),
        }
    }
    Ok(())
}

/// Adds a field with bytes, which is left out where there are none and `is_listed` is not set.
fn put_field(
    to: &mut Vec<u8>,
    number: u8,
    is_listed: bool,
    write: impl FnOnce(&mut Vec<u8>) -> Result<(), CodecError>,
) -> Result<(), CodecError> {
    let start = to.len();
    to.push(number << 3 | 2);
    put_with_length(to, write)?;
    if to.len() == start + 2 && !is_listed {
        to.truncate(start);
    }
    Ok(())
}

/// How what is in a slot becomes one value.
pub(super) trait Leave {
    /// Writes it, and says whether there is something.
    fn leave(&self, slot: Slot, to: &mut Vec<u8>) -> Result<bool, CodecError>;
}

impl<V: 'static> Leave for Column<V> {
    fn leave(&self, slot: Slot, to: &mut Vec<u8>) -> Result<bool, CodecError> {
        let Some(value) = self.get(slot) else { return Ok(false) };
        self.codec.write(value, to)?;
        Ok(true)
    }
}

impl<V: 'static> Leave for ExpiringColumn<V> {
    fn leave(&self, slot: Slot, to: &mut Vec<u8>) -> Result<bool, CodecError> {
        self.values.leave(slot, to)
    }
}

impl<K: Hash + Eq + 'static, V: 'static> Leave for TableColumn<K, V> {
    fn leave(&self, slot: Slot, to: &mut Vec<u8>) -> Result<bool, CodecError> {
        let Some(rows) = self.rows(slot).filter(|rows| rows.len() > 0) else { return Ok(false) };
        for (_, row) in rows.iter() {
            put_field(to, 1, true, |to| {
                put_field(to, 1, false, |to| self.codecs.0.write(&row.key, to))?;
                put_field(to, 2, false, |to| self.codecs.1.write(&row.value, to))
            })?;
        }
        Ok(true)
    }
}

impl<E: 'static> Leave for BufferColumn<E> {
    fn leave(&self, slot: Slot, to: &mut Vec<u8>) -> Result<bool, CodecError> {
        let Some(elements) = self.elements(slot) else { return Ok(false) };
        for element in elements.seen(0) {
            put_field(to, 1, true, |to| self.codec.write(element, to))?;
        }
        Ok(true)
    }
}

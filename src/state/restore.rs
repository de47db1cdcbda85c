//! State from what was stored of it.
//!
//! Records are applied in the order in which they were written, those of a full cut first and then those of
//! each delta on top of it. Only records of the bins that are wanted need be applied, and those of
//! several workers can be, one after the other.
//!
//! A state that is stored and not declared is kept as the bytes it was stored as. It has a column like
//! any other state, so that it expires and is part of later cuts, but nobody finds it until it is
//! registered with the name and the types it was stored with.
//!
//! A function may say that a stored state is [converted](super::conversions) to another one, or left out.

use super::FunctionState;
use super::addresses::{Addresses, Slot};
use super::conversions::{self, Conversions, Steps};
use super::deadline::{Deadline, Upkeep};
use super::declared::Kind;
use super::record::{Record, StateHeader, Tag};
use crate::address::Id;
use crate::codec::CodecError;
use crate::expiration::Expiration;
use crate::placement;
use crate::records::{Damage, Reader};

/// Why state cannot be restored.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RestoreError {
    #[error("state \"{state}\" is stored as a {stored} but declared as a {declared}")]
    StateKind { state: String, stored: String, declared: String },
    #[error("state \"{state}\" is stored as \"{stored}\" but declared as \"{declared}\"")]
    StateType { state: String, stored: String, declared: String },
    #[error("state \"{0}\" is converted in a circle")]
    Circle(String),
    #[error("state \"{0}\" is stored, and so is one that is converted to it")]
    Twice(String),
    #[error("a record is damaged: {0}")]
    Damaged(Damage),
    #[error("state \"{state}\" of \"{id}\" cannot be read: {why}")]
    Unreadable { state: String, id: Id, why: CodecError },
}

/// Restores what one worker wrote of a cut, into one state.
pub(crate) struct Restoring {
    states: Vec<Of>,
    now_ms: u64,
}

/// A stored state.
struct Of {
    /// Its column, unless it is left out.
    column: Option<usize>,
    kind: Kind,
    /// Whether it was stored with deadlines.
    expires: bool,
    steps: Steps,
}

impl FunctionState {
    /// Begins to restore records that go with these headers. Nothing else happened here but
    /// restoring. `now_ms` is used where something expires that did not when it was stored.
    ///
    /// # Errors
    ///
    /// If a state is declared otherwise than it is stored, and it is not said what becomes of it.
    pub(crate) fn restore(
        &mut self,
        headers: &[StateHeader],
        conversions: &Conversions,
        now_ms: u64,
    ) -> Result<Restoring, RestoreError> {
        let mut states: Vec<Of> = Vec::with_capacity(headers.len());
        for stored in headers {
            let (kind, expires) = (stored.kind, stored.expires());
            let (header, steps) = match conversions.of(stored)? {
                conversions::Restored::As(header, steps) => (header, steps),
                conversions::Restored::LeftOut => {
                    self.want_full();
                    states.push(Of { column: None, kind, expires, steps: Steps::default() });
                    continue;
                }
            };
            if !steps.is_empty() {
                self.want_full();
            }
            let header = &header;
            let constants = self.declared[..self.constants].iter();
            let at = match constants.clone().position(|known| known.is_called(&header.name)) {
                Some(at) => {
                    self.declared[at].check_stored(header)?;
                    // What is stored is read with a look at the time, which is another one next time.
                    if self.declared[at].expiration != header.expiration() {
                        self.want_full();
                    }
                    at
                }
                None => self.orphan(header),
            };
            if states.iter().any(|of| of.column == Some(at)) {
                return Err(RestoreError::Twice(header.name.clone()));
            }
            states.push(Of { column: Some(at), kind, expires, steps });
        }
        Ok(Restoring { states, now_ms })
    }
}

impl Restoring {
    /// Applies one record of a bin, to the state that this was begun for.
    ///
    /// # Errors
    ///
    /// If it is none, or its content cannot be read. The state is then of no use.
    pub(crate) fn apply(
        &self,
        state: &mut FunctionState,
        bin: u16,
        record: &[u8],
    ) -> Result<(), RestoreError> {
        let damaged = RestoreError::Damaged;
        let Record { tag, column, id, content } = Record::read(record).map_err(damaged)?;
        let of = usize::try_from(column).ok().and_then(|at| self.states.get(at));
        let of = of.ok_or(damaged("it is of a state that is not listed"))?;
        let &Of { column, kind, expires, ref steps } = of;
        let fits = match tag {
            Tag::Value => kind == Kind::Value,
            Tag::Entry | Tag::Removed => kind == Kind::Table,
            Tag::Elements => kind == Kind::Buffer,
            Tag::Cleared => true,
        };
        if !fits {
            return Err(damaged("it is of another kind than its state"));
        }
        let hash = placement::hash(&id);
        if placement::bin(hash) != u64::from(bin) {
            return Err(damaged("it is of another bin"));
        }
        let Some(at) = column else { return Ok(()) };
        let FunctionState { addresses, wheel, columns, declared, .. } = state;
        let unreadable = |id, why| {
            let state = declared[at].name.clone().into_owned();
            RestoreError::Unreadable { state, id, why }
        };
        let converted;
        let content = if steps.is_empty() {
            content
        } else {
            let content = steps.content(tag, expires, content);
            converted = content.map_err(|why| unreadable(id.clone(), why))?;
            Reader::new(&converted)
        };
        let slot = addresses.find(&id, hash);
        let upkeep = Upkeep { column: at as u32, addresses, wheel, cuts: None };
        let mut site = Restored { id: &id, hash, slot, now_ms: self.now_ms, expires, upkeep };
        let applied = columns[at].apply(tag, content, &mut site);
        let slot = site.slot;
        applied.map_err(|why| unreadable(id, why))?;
        if let Some(slot) = slot {
            addresses.release_if_empty(slot, hash);
        }
        Ok(())
    }
}

/// Where a record is restored.
pub(super) struct Restored<'a> {
    pub(super) id: &'a Id,
    pub(super) hash: u64,
    pub(super) slot: Option<Slot>,
    pub(super) now_ms: u64,
    /// Whether it was stored with a deadline.
    pub(super) expires: bool,
    pub(super) upkeep: Upkeep<'a>,
}

impl Restored<'_> {
    /// The slot of the address, if it has one.
    pub(super) fn slot(&self) -> Option<Slot> {
        self.slot
    }

    /// The slot of the address, which gets one if it has none.
    pub(super) fn settle(&mut self) -> Slot {
        let addresses: &mut Addresses = self.upkeep.addresses;
        *self.slot.get_or_insert_with(|| addresses.insert(self.id, self.hash))
    }

    /// Reads the deadline that something was stored with, and makes of it the one it has; `None` if it
    /// is over and nobody would take it away.
    pub(super) fn deadline(
        &self,
        content: &mut Reader<'_>,
        expiration: Expiration,
    ) -> Result<Option<u64>, Damage> {
        let stored = if self.expires { Some(content.varint()?) } else { None };
        Ok(self.deadline_of(stored, expiration))
    }

    /// The same of a deadline that was read.
    pub(super) fn deadline_of(&self, stored: Option<u64>, expiration: Expiration) -> Option<u64> {
        match (stored, expiration.is_never()) {
            (Some(deadline), true) => (deadline > self.now_ms).then_some(u64::MAX),
            (Some(deadline), false) => Some(deadline),
            (None, _) => Some(expiration.written(self.now_ms)),
        }
    }

    /// Sets a deadline of something in a slot, which is there or not.
    pub(super) fn set_deadline(&mut self, deadline: &mut Deadline, at: Option<u64>, row: u32) {
        let slot = self.slot.expect("something is there, or was");
        // The item is set anew, since deadlines only move on as long as nothing is restored.
        self.upkeep.settle(deadline, false, slot, row);
        if let Some(at) = at {
            deadline.at = at;
            self.upkeep.settle(deadline, true, slot, row);
        }
    }
}

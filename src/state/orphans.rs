//! States that are stored and that nobody declares: how they are found when they are registered.
//!
//! An orphan is a column of bytes. Who registers it with its name and its types gets it: as it is, if
//! bytes are what is wanted, as for a remote function, and else as a column of values that are read
//! from these bytes, all at once. That takes time once in the life of a program and for each such
//! state; what a function declares is read while it is restored.
//!
//! Being adopted is not undone with an invocation: what the state is, is stored.

use super::addresses::Addresses;
use super::column::AnyColumn;
use super::deadline::{Item, Upkeep};
use super::declared::{Declared, Wanted};
use super::record::{Record, StateHeader, Tag};
use super::restore::Restored;
use super::walk;
use super::wheel::Wheel;
use super::{Cursor, FunctionState};
use crate::dead_letter::Reason;
use crate::placement;
use crate::records::{Mark, Reader, Records};

impl FunctionState {
    /// The column of a state that is not declared, for records.
    pub(super) fn orphan(&mut self, header: &StateHeader) -> usize {
        let is_it = |at: &&usize| {
            let known = &self.declared[**at];
            known.is_called(&header.name) && known.stores(header)
        };
        if let Some(at) = self.orphans.iter().find(is_it) {
            return *at;
        }
        let (at, orphan) = (self.columns.len(), Declared::orphan(header));
        self.columns.push(orphan.column());
        self.declared.push(orphan);
        self.headers.take();
        self.orphans.push(at);
        at
    }

    /// Makes an orphan of the wanted name what is wanted, and gives its column, if there is one.
    ///
    /// # Errors
    ///
    /// If there is one that does not fit, or that cannot be read, or as for a registration.
    #[cold]
    pub(super) fn adopt(
        &mut self,
        wanted: &Wanted<'_>,
        cursor: &Cursor,
    ) -> Result<Option<usize>, Box<Reason>> {
        let named = || self.orphans.iter().filter(|at| self.declared[**at].is_called(wanted.name));
        let Some(&any) = named().next() else { return Ok(None) };
        let is_it = |at: &&usize| self.declared[**at].stores_as(wanted);
        let Some(&at) = named().find(is_it) else {
            return Err(self.declared[any].misfit(wanted));
        };
        let registry = self.registry.as_mut().expect("only a registry looks for orphans");
        let declared = registry.adopt(wanted, at)?;
        let column = declared.column();
        let old = &self.declared[at];
        if (*column).type_id() != (*self.columns[at]).type_id()
            || old.expiration != declared.expiration
        {
            if let Err(why) = self.rebuild(at, column, cursor) {
                let registry = self.registry.as_mut().expect("it was there");
                registry.give_up(wanted.name);
                return Err(Box::new(Reason::InvalidState(why)));
            }
            // What is stored would be read otherwise next time.
            if self.declared[at].expiration != declared.expiration {
                self.want_full();
            }
        }
        self.declared[at] = declared;
        self.headers.take();
        self.orphans.retain(|orphan| *orphan != at);
        Ok(Some(at))
    }

    /// Replaces the column of an orphan by another one with the same content.
    fn rebuild(
        &mut self,
        at: usize,
        mut column: Box<dyn AnyColumn>,
        cursor: &Cursor,
    ) -> Result<(), String> {
        let FunctionState { addresses, columns, wheel, cuts, declared, .. } = self;
        if let Some(walk) = cuts.as_deref_mut().and_then(|cuts| cuts.walk.as_mut()) {
            walk.finish(at as u32, &*columns[at], addresses);
        }
        let records = walk::records_of(at as u32, &*columns[at], addresses);
        let expires = !declared[at].expiration.is_never();
        let mut replay = Replay { at, expires, cursor, addresses, wheel };
        let result = replay.apply(&records, &mut *column, false);
        // Whichever of the two is not kept leaves no trace in what columns share.
        let gone = if result.is_ok() { &mut columns[at] } else { &mut column };
        replay.apply(&records, &mut **gone, true).expect("there is nothing to read in it");
        if result.is_ok() {
            // What is there was never written, but the first elements of a buffer may be gone.
            std::mem::swap(column.stamps_mut(), columns[at].stamps_mut());
            columns[at] = column;
        }
        result.map_err(|why| format!("state \"{}\" {why}", declared[at].name))
    }
}

/// Records of a column on their way into another.
struct Replay<'a> {
    at: usize,
    expires: bool,
    cursor: &'a Cursor,
    addresses: &'a mut Addresses,
    wheel: &'a mut Wheel<Item>,
}

impl Replay<'_> {
    /// Applies records, or takes away what they are about.
    fn apply(
        &mut self,
        records: &Records,
        column: &mut dyn AnyColumn,
        is_taken: bool,
    ) -> Result<(), String> {
        let mut mark = Mark::default();
        while let Some((_, record)) = records.next(&mut mark) {
            let Record { tag, id, content, .. } = Record::read(record)?;
            let hash = placement::hash(&id);
            let slot = self.addresses.find(&id, hash);
            let (addresses, wheel) = (&mut *self.addresses, &mut *self.wheel);
            let upkeep = Upkeep { column: self.at as u32, addresses, wheel, cuts: None };
            let (now_ms, expires) = (self.cursor.now_ms, self.expires);
            let mut site = Restored { id: &id, hash, slot, now_ms, expires, upkeep };
            let (tag, content) =
                if is_taken { (Tag::Cleared, Reader::EMPTY) } else { (tag, content) };
            let applied = column.apply(tag, content, &mut site);
            applied.map_err(|why| format!("of \"{id}\" cannot be read: {why}"))?;
            // The address of the invocation stays while it lasts.
            if let Some(slot) = slot.filter(|slot| is_taken && self.cursor.slot != Some(*slot)) {
                self.addresses.release_if_empty(slot, hash);
            }
        }
        Ok(())
    }
}

//! What the functions of one type keep: which addresses there are, and a column for each piece of
//! state that is declared.
//!
//! Writes happen in place and are remembered, so that an invocation that fails is undone and one
//! that succeeds costs nothing more. An address exists while it has a value; one without takes no
//! memory at all.
//!
//! Nothing here knows of messages, clocks or files. It is told the time.

mod addresses;
mod buffer;
mod buffer_stored;
mod changes;
mod chunks;
mod column;
mod conversions;
mod cuts;
mod deadline;
mod declared;
mod deque;
mod elements;
mod expiring;
mod orphans;
mod pen;
mod record;
mod registry;
mod restore;
mod rows;
mod site;
mod stamps;
mod table;
mod table_stored;
mod tombstones;
#[cfg(feature = "serve")]
mod visiting;
mod walk;
mod wheel;

pub(crate) use addresses::Slot;
pub(crate) use buffer::BufferAt;
pub(crate) use changes::{Change, Watched};
pub(crate) use chunks::Chunks;
pub(crate) use conversions::{Conversion, Conversions};
pub(crate) use declared::{Declared, Kind};
pub(crate) use pen::WriteError;
pub(crate) use record::{Record, StateHeader, Tag, begin};
pub(crate) use restore::{RestoreError, Restoring};
pub(crate) use table::TableAt;
pub(crate) use tombstones::{Place as Tombstone, Tombstones};
#[cfg(feature = "serve")]
pub(crate) use visiting::{Given, Unfit, VisitingState};
pub(crate) use walk::{Budget, Sink};
pub(crate) use wheel::{Wheel, WheelKey};

use addresses::Addresses;
use buffer::BufferColumn;
use changes::Watching;
use column::{AnyColumn, Column};
use cuts::Cuts;
use deadline::{Item, Upkeep};
use declared::Wanted;
use expiring::ExpiringColumn;
use registry::Registry;
use site::Site;
use table::TableColumn;

use std::cell::OnceCell;
use std::hash::Hash;
use std::rc::Rc;

use crate::address::Id;
use crate::buffer::BufferSpec;
use crate::dead_letter::Reason;
use crate::table::TableSpec;
use crate::value::ValueSpec;

/// Addresses from which on it pays to fetch state before it is needed.
const MANY: usize = 8192;

/// The address an invocation is for, and the time at which it happens.
pub(crate) struct Cursor {
    now_ms: u64,
    hash: u64,
    slot: Option<Slot>,
}

/// All state of one function type on one worker.
#[derive(Default)]
pub(crate) struct FunctionState {
    addresses: Addresses,
    /// What is declared, and after that what was registered, in the order of their columns.
    declared: Vec<Declared>,
    /// The same as records refer to it, if it was asked for since it changed.
    headers: OnceCell<Rc<[StateHeader]>>,
    /// How many of these are declared.
    constants: usize,
    registry: Option<Registry>,
    /// The columns of states that are stored and neither declared nor registered.
    orphans: Vec<usize>,
    columns: Vec<Box<dyn AnyColumn>>,
    /// Columns written since the last commit or rollback, each once.
    written: Vec<usize>,
    /// What expires.
    wheel: Wheel<Item>,
    /// If cuts are taken.
    cuts: Option<Box<Cuts>>,
    /// Whether what was restored is not what a delta could follow.
    is_altered: bool,
    /// If somebody watches some of it.
    watching: Option<Box<Watching>>,
    /// The address whose state came with what is handled, if that is how it comes.
    #[cfg(feature = "serve")]
    visit: Option<Box<visiting::Visit>>,
}

impl FunctionState {
    /// No state yet of a function that declares some, and that may register so much more, if it has
    /// a registry.
    pub(crate) fn new(declared: &[Declared], states_max: Option<usize>) -> Self {
        FunctionState {
            addresses: Addresses::default(),
            declared: declared.to_vec(),
            headers: OnceCell::new(),
            constants: declared.len(),
            registry: states_max.map(Registry::new),
            orphans: Vec::new(),
            columns: declared.iter().map(Declared::column).collect(),
            written: Vec::new(),
            wheel: Wheel::default(),
            cuts: None,
            is_altered: false,
            watching: None,
            #[cfg(feature = "serve")]
            visit: None,
        }
    }

    /// Finds an address by its id and the id's hash, for something that happens now. Time does not
    /// go back.
    pub(crate) fn seek(&self, id: &Id, hash: u64, now_ms: u64) -> Cursor {
        Cursor { now_ms, hash, slot: self.addresses.find(id, hash) }
    }

    /// Whether there is more than the processor's caches hold.
    #[inline]
    pub(crate) fn is_large(&self) -> bool {
        self.addresses.len() >= MANY
    }

    /// The slot that an id with this hash most likely has.
    #[inline]
    pub(crate) fn likely_slot(&self, hash: u64) -> Option<Slot> {
        self.addresses.likely(hash)
    }

    /// Reads what is in a slot, for no other purpose than that it was read.
    #[inline]
    pub(crate) fn touch(&self, slot: Slot) {
        self.addresses.touch(slot);
        for column in &self.columns[..self.constants] {
            column.touch(slot);
        }
    }

    /// The addresses that have state.
    pub(crate) fn ids(&self) -> Vec<Id> {
        self.addresses.iter().map(|(_, id)| id.clone()).collect()
    }

    /// How many addresses have state.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.addresses.len()
    }

    /// The column of a name. Whether it fits what it is wanted for is found out by what is in it.
    #[inline]
    fn column<'n>(
        &mut self,
        name: &str,
        type_name: &str,
        wanted: impl Into<Wanted<'n>>,
        cursor: &Cursor,
    ) -> Result<usize, Box<Reason>> {
        let mut constants = self.declared[..self.constants].iter();
        match constants.position(|declared| declared.is_called(name)) {
            Some(at) if self.declared[at].has_type(type_name) => Ok(at),
            Some(at) => Err(self.declared[at].misfit(&wanted.into())),
            None => self.registered(&wanted.into(), cursor),
        }
    }

    /// The column of a state that is not declared, which is registered if there is a registry.
    fn registered(&mut self, wanted: &Wanted<'_>, cursor: &Cursor) -> Result<usize, Box<Reason>> {
        let Some(registry) = &mut self.registry else {
            return Err(Box::new(Reason::UndeclaredState(wanted.name.to_owned())));
        };
        if let Some(at) = registry.find(wanted.name) {
            let declared = &self.declared[at];
            return if declared.fits(wanted) { Ok(at) } else { Err(declared.misfit(wanted)) };
        }
        if let Some(watching) = &self.watching {
            watching.admits(wanted)?;
        }
        if !self.orphans.is_empty()
            && let Some(at) = self.adopt(wanted, cursor)?
        {
            return Ok(at);
        }
        let registry = self.registry.as_mut().expect("there is one");
        let at = self.columns.len();
        let declared = registry.register(wanted, at)?;
        self.columns.push(declared.column());
        self.declared.push(declared);
        self.headers.take();
        #[cfg(feature = "serve")]
        self.welcome(at)?;
        Ok(at)
    }

    #[inline]
    pub(crate) fn get<V: 'static>(
        &mut self,
        cursor: &Cursor,
        spec: ValueSpec<V, &str>,
    ) -> Result<Option<&V>, Box<Reason>> {
        let at = self.column(spec.name(), spec.type_name(), spec, cursor)?;
        if !spec.expiration().is_never() {
            return self.get_expiring(at, cursor, spec);
        }
        match self.columns[at].of::<Column<V>>() {
            Some(column) => Ok(cursor.slot.and_then(|slot| column.get(slot))),
            None => Err(self.declared[at].misfit(&spec.into())),
        }
    }

    fn get_expiring<V: 'static>(
        &mut self,
        at: usize,
        cursor: &Cursor,
        spec: ValueSpec<V, &str>,
    ) -> Result<Option<&V>, Box<Reason>> {
        let Some(column) = self.columns[at].of_mut::<ExpiringColumn<V>>() else {
            return Err(self.declared[at].misfit(&spec.into()));
        };
        if !self.declared[at].fits(&spec.into()) {
            return Err(self.declared[at].misfit(&spec.into()));
        }
        let Some(slot) = cursor.slot else { return Ok(None) };
        let was_unwritten = column.is_unwritten();
        if column.renew(slot, cursor.now_ms) && was_unwritten {
            self.written.push(at);
        }
        Ok(column.get(slot, cursor.now_ms))
    }

    /// Puts a value in place, or takes it away.
    #[inline]
    pub(crate) fn put<V: 'static>(
        &mut self,
        cursor: &mut Cursor,
        id: &Id,
        spec: ValueSpec<V, &str>,
        value: Option<V>,
    ) -> Result<(), Box<Reason>> {
        let at = self.column(spec.name(), spec.type_name(), spec, cursor)?;
        if !spec.expiration().is_never() {
            return self.put_expiring(at, cursor, id, spec, value);
        }
        let Some(column) = self.columns[at].of_mut::<Column<V>>() else {
            return Err(self.declared[at].misfit(&spec.into()));
        };
        if value.is_none() && cursor.slot.is_none() {
            return Ok(());
        }
        let slot = cursor.settle(id, &mut self.addresses);
        if column.is_unwritten() {
            self.written.push(at);
        }
        let change = column.put(slot, value);
        self.addresses.count_values(slot, change);
        Ok(())
    }

    fn put_expiring<V: 'static>(
        &mut self,
        at: usize,
        cursor: &mut Cursor,
        id: &Id,
        spec: ValueSpec<V, &str>,
        value: Option<V>,
    ) -> Result<(), Box<Reason>> {
        let Some(column) = self.columns[at].of_mut::<ExpiringColumn<V>>() else {
            return Err(self.declared[at].misfit(&spec.into()));
        };
        if !self.declared[at].fits(&spec.into()) {
            return Err(self.declared[at].misfit(&spec.into()));
        }
        if value.is_none() && cursor.slot.is_none() {
            return Ok(());
        }
        let slot = cursor.settle(id, &mut self.addresses);
        if column.is_unwritten() {
            self.written.push(at);
        }
        let change = column.put(slot, value, cursor.now_ms);
        self.addresses.count_values(slot, change);
        Ok(())
    }

    /// The table of an address.
    pub(crate) fn table<'a, K: Hash + Eq + 'static, V: 'static>(
        &'a mut self,
        cursor: &'a mut Cursor,
        id: &'a Id,
        spec: TableSpec<K, V, &str>,
    ) -> Result<TableAt<'a, K, V>, Box<Reason>> {
        let at = self.column(spec.name(), spec.value_type(), spec, cursor)?;
        let (column, site) = self.site::<TableColumn<K, V>>(at, cursor, id, spec.into())?;
        Ok(TableAt { column, site })
    }

    /// The buffer of an address.
    pub(crate) fn buffer<'a, E: 'static>(
        &'a mut self,
        cursor: &'a mut Cursor,
        id: &'a Id,
        spec: BufferSpec<E, &str>,
    ) -> Result<BufferAt<'a, E>, Box<Reason>> {
        let at = self.column(spec.name(), spec.type_name(), spec, cursor)?;
        let (column, site) = self.site::<BufferColumn<E>>(at, cursor, id, spec.into())?;
        Ok(BufferAt { column, site })
    }

    /// A column and what goes with it, if it is what is wanted.
    fn site<'a, C: AnyColumn>(
        &'a mut self,
        at: usize,
        cursor: &'a mut Cursor,
        id: &'a Id,
        wanted: Wanted<'_>,
    ) -> Result<(&'a mut C, Site<'a>), Box<Reason>> {
        let FunctionState { addresses, declared, columns, written, wheel, .. } = self;
        match columns[at].of_mut::<C>() {
            Some(column) if declared[at].fits(&wanted) => {
                Ok((column, Site { at, id, cursor, addresses, written, wheel }))
            }
            _ => Err(declared[at].misfit(&wanted)),
        }
    }

    /// Makes what was written since the last commit last.
    pub(crate) fn commit(&mut self, cursor: Cursor) {
        let (addresses, wheel) = (&mut self.addresses, &mut self.wheel);
        for at in self.written.drain(..) {
            let cuts = self.cuts.as_deref_mut();
            let mut upkeep = Upkeep { column: at as u32, addresses, wheel, cuts };
            self.columns[at].commit(&mut upkeep);
        }
        if let Some(registry) = &mut self.registry {
            registry.commit();
        }
        self.release(cursor);
    }

    /// Undoes what was written since the last commit.
    pub(crate) fn rollback(&mut self, cursor: Cursor) {
        let (addresses, wheel) = (&mut self.addresses, &mut self.wheel);
        for at in self.written.drain(..) {
            let cuts = self.cuts.as_deref_mut();
            let mut upkeep = Upkeep { column: at as u32, addresses, wheel, cuts };
            self.columns[at].rollback(&mut upkeep);
        }
        self.forget_registered();
        self.release(cursor);
    }

    /// Forgets what was registered since the last commit.
    fn forget_registered(&mut self) {
        if let Some(registry) = &mut self.registry {
            let new = registry.rollback(self.columns.len());
            if new > 0 {
                self.columns.truncate(self.columns.len() - new);
                self.declared.truncate(self.columns.len());
                self.headers.take();
            }
        }
    }

    fn release(&mut self, cursor: Cursor) {
        if let Some(slot) = cursor.slot {
            self.addresses.release_if_empty(slot, cursor.hash);
        }
    }

    /// A time before which nothing expires, and at which it is worth asking again; `None` if nothing
    /// ever does.
    pub(crate) fn next_expiry(&self) -> Option<u64> {
        self.wheel.wake_at()
    }

    /// Gives back the memory of what has expired, `budget` pieces at most. Says whether there may be
    /// more.
    ///
    /// What has expired is not seen anyway; when this is called makes no difference to anybody. It
    /// is not called during an invocation.
    pub(crate) fn expire(&mut self, now_ms: u64, budget: usize) -> bool {
        assert!(self.written.is_empty(), "an invocation is under way");
        let mut room = budget;
        while room > 0 {
            let Some((_, item)) = self.wheel.next_due(now_ms) else { return false };
            let gathered = self.watching.is_some() && self.gather_expired(item, now_ms);
            let (addresses, wheel) = (&mut self.addresses, &mut self.wheel);
            let cuts = self.cuts.as_deref_mut();
            let mut upkeep = Upkeep { column: item.column, addresses, wheel, cuts };
            let column = &mut self.columns[item.column as usize];
            let pieces = column.expire(item, now_ms, room, &mut upkeep);
            if gathered && pieces == 0 {
                self.forget_expired(item);
            }
            // An item that is set again counts as well: looking at it took time.
            room = room.saturating_sub(pieces.max(1));
            self.addresses.release_if_empty_by_id(item.slot);
        }
        self.wheel.wake_at().is_some_and(|due| due <= now_ms)
    }
}

impl Cursor {
    /// The slot of the address, which gets one if it has none.
    #[inline]
    fn settle(&mut self, id: &Id, addresses: &mut Addresses) -> Slot {
        *self.slot.get_or_insert_with(|| addresses.insert(id, self.hash))
    }
}

#[cfg(test)]
mod tests;

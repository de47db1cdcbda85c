//! Changes of state that somebody watches: what each entry was before an invocation, and what it is
//! after it.
//!
//! A change is gathered just before it is committed, from what the columns remember for undoing it. So an
//! invocation that fails has changed nothing, and state that nobody watches remembers nothing more. An entry
//! that expires changes when it is swept, and not before: what was told of it is what is there.
//!
//! Nothing here knows at what time a change happens.

use std::any::Any;
use std::collections::HashMap;
use std::hash::Hash;

use bytes::Bytes;

use super::FunctionState;
use super::addresses::{Addresses, Slot};
use super::column::{AnyColumn, Column};
use super::deadline::Item;
use super::declared::{Declared, Wanted};
use super::expiring::ExpiringColumn;
use super::rows::{RowNumber, Rows};
use super::table::{Before, TableColumn};
use crate::address::Id;
use crate::codec::{Codec, CodecError};
use crate::dead_letter::Reason;
use crate::error::Error;
use crate::table::TableSpec;
use crate::typed::TypedValue;
use crate::value::ValueSpec;

/// One entry of one address, as it was and as it is. A value's key is `()`.
pub(crate) struct Change<K, V> {
    pub(crate) id: Id,
    pub(crate) key: K,
    pub(crate) old: Option<V>,
    pub(crate) new: Option<V>,
}

/// A state that is watched, with its types forgotten.
#[derive(Clone)]
pub(crate) struct Watched {
    declared: Declared,
    gather: fn(&Declared) -> Box<dyn Gather>,
}

impl Watched {
    pub(crate) fn value<V: Clone + 'static>(spec: ValueSpec<V>) -> Self {
        let gather = |declared: &Declared| -> Box<dyn Gather> {
            let (type_name, codec) = (declared.type_name.clone().into_owned(), declared.codec());
            Box::new(Values::<V> { type_name, codec, changes: Vec::new() })
        };
        Watched { declared: Declared::new(spec), gather }
    }

    pub(crate) fn table<K, V>(spec: TableSpec<K, V>) -> Self
    where
        K: Hash + Eq + Clone + 'static,
        V: Clone + 'static,
    {
        let gather = |declared: &Declared| -> Box<dyn Gather> {
            Box::new(Entries::<K, V> { codecs: declared.codecs(), changes: Vec::new() })
        };
        Watched { declared: Declared::new(spec), gather }
    }

    /// What the state is called.
    pub(crate) fn name(&self) -> &str {
        &self.declared.name
    }

    /// Checks its names.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong with them.
    pub(crate) fn check(&self) -> Result<(), Error> {
        self.declared.check()
    }

    /// Which of these states it is.
    ///
    /// # Errors
    ///
    /// What differs, if it is declared otherwise.
    pub(crate) fn among<'d>(
        &self,
        declared: &'d [Declared],
    ) -> Result<Option<&'d Declared>, Box<Reason>> {
        let Some(of_name) = declared.iter().find(|of| of.name == self.declared.name) else {
            return Ok(None);
        };
        match of_name.is_same(&self.declared) {
            true => Ok(Some(of_name)),
            false => Err(of_name.differs(&self.declared)),
        }
    }
}

/// What is watched of one function type's state.
#[derive(Default)]
pub(super) struct Watching {
    states: Vec<WatchedState>,
    /// Which of them, and from which slot and row on, contents are to be told of next.
    told: (usize, (Slot, u64)),
}

struct WatchedState {
    /// What whoever watches it calls it.
    number: usize,
    declared: Declared,
    changes: Box<dyn Gather>,
}

impl Watching {
    /// The watched state that a column holds, as it is or as bytes.
    fn of(&mut self, declared: &Declared) -> Option<&mut WatchedState> {
        self.states.iter_mut().find(|state| declared.is_like(&state.declared))
    }

    /// Whether something may be registered.
    ///
    /// # Errors
    ///
    /// If it has the name of a state that is watched, and is not like it.
    pub(super) fn admits(&self, wanted: &Wanted<'_>) -> Result<(), Box<Reason>> {
        let mut named = self.states.iter().map(|state| &state.declared);
        match named.find(|declared| declared.is_called(wanted.name)) {
            Some(declared) if !declared.stores_as(wanted) => Err(declared.misfit(wanted)),
            _ => Ok(()),
        }
    }
}

impl FunctionState {
    /// Has changes of these states gathered from now on, each of which has a number.
    pub(crate) fn watch(&mut self, watched: Vec<(usize, Watched)>) {
        if watched.is_empty() {
            return;
        }
        let states = watched.into_iter().map(|(number, Watched { declared, gather })| {
            let changes = gather(&declared);
            WatchedState { number, declared, changes }
        });
        self.watching = Some(Box::new(Watching { states: states.collect(), told: (0, (0, 0)) }));
    }

    /// Whether changes are gathered.
    #[inline]
    pub(crate) fn is_watched(&self) -> bool {
        self.watching.is_some()
    }

    /// Gathers what the running invocation changed at its address.
    ///
    /// # Errors
    ///
    /// If something cannot be told, since it is not what it is watched as. Nothing is gathered then.
    pub(crate) fn gather(&mut self, id: &Id) -> Result<(), Box<Reason>> {
        let FunctionState { watching, columns, written, declared, .. } = self;
        let Some(watching) = watching else { return Ok(()) };
        for at in &*written {
            let Some(state) = watching.of(&declared[*at]) else { continue };
            if let Err(why) = state.changes.gather(&*columns[*at], id) {
                let name = &state.declared.name;
                let why = format!("state \"{name}\" is watched, and cannot be read: {why}");
                watching.states.iter_mut().for_each(|state| state.changes.forget());
                return Err(Box::new(Reason::InvalidState(why)));
            }
        }
        Ok(())
    }

    /// Gives what was gathered, to be taken out: for each state that changed its number and a `Vec` of
    /// [`Change`]s.
    pub(crate) fn take_gathered(&mut self, take: &mut dyn FnMut(usize, &mut dyn Any)) {
        for state in self.watching.iter_mut().flat_map(|watching| &mut watching.states) {
            if !state.changes.is_empty() {
                take(state.number, state.changes.gathered());
            }
        }
    }

    /// Gathers that something is about to expire. Says whether anything was gathered.
    pub(super) fn gather_expired(&mut self, item: Item, now_ms: u64) -> bool {
        let FunctionState { watching, columns, declared, addresses, .. } = self;
        let column = item.column as usize;
        let Some(watching) = watching else { return false };
        let Some(state) = watching.of(&declared[column]) else { return false };
        state.changes.expire(&*columns[column], item, now_ms, addresses)
    }

    /// Takes back that something was about to expire.
    pub(super) fn forget_expired(&mut self, item: Item) {
        let FunctionState { watching, declared, .. } = self;
        let state = watching.as_mut().and_then(|w| w.of(&declared[item.column as usize]));
        state.expect("it was gathered").changes.forget_last();
    }

    /// Gathers some more of what there is, as if it had just come into being. Says whether there is more.
    ///
    /// # Errors
    ///
    /// If something cannot be read.
    pub(crate) fn gather_contents(&mut self, budget: &mut usize) -> Result<bool, String> {
        let FunctionState { watching, columns, declared, addresses, .. } = self;
        let Some(Watching { states, told: (next, from) }) = watching.as_deref_mut() else {
            return Ok(false);
        };
        while let Some(state) = states.get_mut(*next) {
            let column = declared.iter().position(|known| known.is_like(&state.declared));
            if let Some(column) = column {
                let told = state.changes.tell(&*columns[column], *from, budget, addresses);
                let stopped = told.map_err(|why| {
                    format!(
                        "state \"{}\" is watched, and cannot be read: {why}",
                        state.declared.name
                    )
                })?;
                if let Some(at) = stopped {
                    *from = at;
                    return Ok(true);
                }
            }
            (*next, *from) = (*next + 1, (0, 0));
        }
        Ok(false)
    }
}

/// Gathers changes of one state.
trait Gather {
    /// Gathers what the running invocation wrote.
    fn gather(&mut self, column: &dyn AnyColumn, id: &Id) -> Result<(), CodecError>;
    /// Gathers that what an item stands for expires, if it does. Says whether it does.
    fn expire(&mut self, column: &dyn AnyColumn, item: Item, now: u64, of: &Addresses) -> bool;
    /// Gathers what there is, from a slot and a row on. Says where it stopped if there was no more room.
    fn tell(
        &mut self,
        column: &dyn AnyColumn,
        from: (Slot, u64),
        budget: &mut usize,
        of: &Addresses,
    ) -> Result<Option<(Slot, u64)>, CodecError>;
    fn is_empty(&self) -> bool;
    fn gathered(&mut self) -> &mut dyn Any;
    fn forget(&mut self);
    fn forget_last(&mut self);
}

/// Why state in a column of another type than the watched one's cannot be told.
const OTHER_TYPE: &str = "it is kept as another type";

/// What a value was, and what it is.
type Wrote<V> = (Option<V>, Option<V>);

struct Values<V: 'static> {
    type_name: String,
    codec: &'static Codec<V>,
    changes: Vec<Change<(), V>>,
}

/// The values of a column, expiring or not.
fn values_in<V: 'static>(column: &dyn AnyColumn) -> Option<&Column<V>> {
    let expiring = || Some(&column.of::<ExpiringColumn<V>>()?.values);
    column.of::<Column<V>>().or_else(expiring)
}

/// When a value in a slot is over.
fn deadline_in<V: 'static>(column: &dyn AnyColumn, slot: Slot) -> Option<u64> {
    Some(column.of::<ExpiringColumn<V>>()?.deadline(slot))
}

impl<V: Clone + 'static> Values<V> {
    /// A value from the bytes that a remote function gave, or that were stored.
    fn read(&self, bytes: &Bytes) -> Result<V, CodecError> {
        // Whose type is whatever it was given as.
        let mut typed = Some(TypedValue::found(&self.type_name, bytes.clone()));
        match (&mut typed as &mut dyn Any).downcast_mut::<Option<V>>() {
            Some(value) => Ok(value.take().expect("it is there")),
            None => self.codec.read(bytes),
        }
    }

    /// What the running invocation wrote in a column of values that are read so.
    fn wrote<X: 'static>(
        column: &Column<X>,
        read: impl Fn(&X) -> Result<V, CodecError>,
    ) -> Result<Option<Wrote<V>>, CodecError> {
        let Some((slot, was)) = column.before.first() else { return Ok(None) };
        let old = was.as_ref().map(&read).transpose()?;
        let new = column.get(*slot).map(&read).transpose()?;
        Ok((old.is_some() || new.is_some()).then_some((old, new)))
    }

    fn walk<X: 'static>(
        &mut self,
        column: &Column<X>,
        mut at: Slot,
        budget: &mut usize,
        of: &Addresses,
        read: impl Fn(&Self, &X) -> Result<V, CodecError>,
    ) -> Result<Option<(Slot, u64)>, CodecError> {
        while let Some(slot) = column.cells.next(at) {
            if *budget == 0 {
                return Ok(Some((slot, 0)));
            }
            *budget -= 1;
            if let Some(value) = column.get(slot) {
                let new = Some(read(self, value)?);
                self.changes.push(Change { id: of.id(slot).clone(), key: (), old: None, new });
            }
            let Some(after) = slot.checked_add(1) else { break };
            at = after;
        }
        Ok(None)
    }
}

impl<V: Clone + 'static> Gather for Values<V> {
    fn gather(&mut self, column: &dyn AnyColumn, id: &Id) -> Result<(), CodecError> {
        let wrote = if let Some(column) = values_in::<V>(column) {
            Self::wrote(column, |value| Ok(value.clone()))?
        } else if let Some(column) = values_in::<Bytes>(column) {
            Self::wrote(column, |bytes| self.read(bytes))?
        } else {
            return Err(OTHER_TYPE.into());
        };
        if let Some((old, new)) = wrote {
            self.changes.push(Change { id: id.clone(), key: (), old, new });
        }
        Ok(())
    }

    fn expire(&mut self, column: &dyn AnyColumn, item: Item, now: u64, of: &Addresses) -> bool {
        let slot = item.slot;
        let until = deadline_in::<V>(column, slot).or_else(|| deadline_in::<Bytes>(column, slot));
        if until.is_none_or(|until| until > now) {
            return false;
        }
        let own = || values_in::<V>(column)?.get(slot).cloned();
        let old = own().or_else(|| {
            let bytes = values_in::<Bytes>(column)?.get(slot)?;
            Some(self.read(bytes).expect("it was read when it was told of"))
        });
        if old.is_some() {
            self.changes.push(Change { id: of.id(slot).clone(), key: (), old, new: None });
            return true;
        }
        false
    }

    fn tell(
        &mut self,
        column: &dyn AnyColumn,
        (from, _): (Slot, u64),
        budget: &mut usize,
        of: &Addresses,
    ) -> Result<Option<(Slot, u64)>, CodecError> {
        if let Some(column) = values_in::<V>(column) {
            self.walk(column, from, budget, of, |_, value| Ok(value.clone()))
        } else if let Some(column) = values_in::<Bytes>(column) {
            self.walk(column, from, budget, of, Self::read)
        } else {
            Err(OTHER_TYPE.into())
        }
    }

    fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    fn gathered(&mut self) -> &mut dyn Any {
        &mut self.changes
    }

    fn forget(&mut self) {
        self.changes.clear();
    }

    fn forget_last(&mut self) {
        self.changes.pop();
    }
}

struct Entries<K: 'static, V: 'static> {
    codecs: (&'static Codec<K>, &'static Codec<V>),
    changes: Vec<Change<K, V>>,
}

impl<K: Hash + Eq + Clone + 'static, V: Clone + 'static> Entries<K, V> {
    /// An entry that was stored and that nobody has registered yet.
    fn read(&self, (key, value): (&Bytes, &Bytes)) -> Result<(K, V), CodecError> {
        Ok((self.codecs.0.read(key)?, self.codecs.1.read(value)?))
    }

    fn walk<A, B>(
        &mut self,
        column: &TableColumn<A, B>,
        (from, mut row): (Slot, u64),
        budget: &mut usize,
        of: &Addresses,
        read: impl Fn(&Self, (&A, &B)) -> Result<(K, V), CodecError>,
    ) -> Result<Option<(Slot, u64)>, CodecError>
    where
        A: Hash + Eq + 'static,
        B: 'static,
    {
        let mut at = from;
        while let Some(slot) = column.cells.next(at) {
            row = if slot > from { 0 } else { row };
            let end = column.rows(slot).map_or(0, |rows| u64::from(rows.end()));
            // A slot without a table has been looked at as well.
            while row < end.max(1) {
                if *budget == 0 {
                    return Ok(Some((slot, row)));
                }
                *budget -= 1;
                let entry = column.rows(slot).and_then(|rows| rows.get(row as RowNumber));
                if let Some(entry) = entry {
                    let (key, new) = read(self, (&entry.key, &entry.value))?;
                    let (id, new) = (of.id(slot).clone(), Some(new));
                    self.changes.push(Change { id, key, old: None, new });
                }
                row += 1;
            }
            let Some(after) = slot.checked_add(1) else { break };
            at = after;
        }
        Ok(None)
    }
}

impl<K: Hash + Eq + Clone + 'static, V: Clone + 'static> Gather for Entries<K, V> {
    fn gather(&mut self, column: &dyn AnyColumn, id: &Id) -> Result<(), CodecError> {
        let column = column.of::<TableColumn<K, V>>().ok_or(OTHER_TYPE)?;
        let Some((slot, _)) = column.before.first() else { return Ok(()) };
        let live = column.rows(*slot);
        for (key, old) in touched(live, &column.before) {
            let row = live.and_then(|rows| Some((rows, rows.find(column.half(key), key)?)));
            let new = row.and_then(|(rows, row)| Some(&rows.get(row)?.value));
            if old.is_some() || new.is_some() {
                let (key, old, new) = (key.clone(), old.cloned(), new.cloned());
                self.changes.push(Change { id: id.clone(), key, old, new });
            }
        }
        Ok(())
    }

    fn expire(&mut self, column: &dyn AnyColumn, item: Item, now: u64, of: &Addresses) -> bool {
        let Item { slot, row, .. } = item;
        fn over<A: Hash + Eq, B>(
            column: &TableColumn<A, B>,
            (slot, row): (Slot, RowNumber),
            now: u64,
        ) -> Option<(&A, &B)> {
            let rows = column.rows(slot).filter(|rows| rows.deadline(row) <= now)?;
            rows.get(row).map(|row| (&row.key, &row.value))
        }
        let own = column.of::<TableColumn<K, V>>().and_then(|own| over(own, (slot, row), now));
        let own = own.map(|(key, value)| (key.clone(), value.clone()));
        let old = own.or_else(|| {
            let entry = over(column.of::<TableColumn<Bytes, Bytes>>()?, (slot, row), now)?;
            Some(self.read(entry).expect("it was read when it was told of"))
        });
        let Some((key, old)) = old else { return false };
        let id = of.id(slot).clone();
        self.changes.push(Change { id, key, old: Some(old), new: None });
        true
    }

    fn tell(
        &mut self,
        column: &dyn AnyColumn,
        from: (Slot, u64),
        budget: &mut usize,
        of: &Addresses,
    ) -> Result<Option<(Slot, u64)>, CodecError> {
        if let Some(column) = column.of::<TableColumn<K, V>>() {
            let same = |_: &Self, (key, value): (&K, &V)| Ok((key.clone(), value.clone()));
            self.walk(column, from, budget, of, same)
        } else if let Some(column) = column.of::<TableColumn<Bytes, Bytes>>() {
            self.walk(column, from, budget, of, Self::read)
        } else {
            Err(OTHER_TYPE.into())
        }
    }

    fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    fn gathered(&mut self) -> &mut dyn Any {
        &mut self.changes
    }

    fn forget(&mut self) {
        self.changes.clear();
    }

    fn forget_last(&mut self) {
        self.changes.pop();
    }
}

/// The keys that changes are about, each with what it had before the first of them, in the order in which
/// they were first touched.
fn touched<'a, K: Hash + Eq, V>(
    live: Option<&'a Rows<K, V>>,
    before: &'a [(Slot, Before<K, V>)],
) -> Vec<(&'a K, Option<&'a V>)> {
    // Backwards, since what a row held then follows from what it holds now. What is found last was first.
    let mut rows = live;
    let mut taken: HashMap<RowNumber, &K> = HashMap::new();
    let mut found: HashMap<&K, ((usize, RowNumber), Option<&V>)> = HashMap::new();
    for (at, (_, change)) in before.iter().enumerate().rev() {
        match change {
            Before::NoTable | Before::Deadline(..) => {}
            Before::Table(cleared) => {
                rows = Some(cleared);
                taken.clear();
                for (number, row) in cleared.iter() {
                    found.insert(&row.key, ((at, number), Some(&row.value)));
                }
            }
            Before::Row(number, row) => {
                taken.insert(*number, &row.key);
                found.insert(&row.key, ((at, *number), Some(&row.value)));
            }
            Before::NoRow(number) => {
                let key = taken.remove(number).or_else(|| Some(&rows?.get(*number)?.key));
                found.insert(key.expect("the row was filled"), ((at, *number), None));
            }
            Before::Value(number, value) => {
                let key = taken.get(number).copied().or_else(|| Some(&rows?.get(*number)?.key));
                found.insert(key.expect("the row was filled"), ((at, *number), Some(value)));
            }
        }
    }
    let mut found: Vec<_> = found.into_iter().collect();
    found.sort_unstable_by_key(|(_, (place, _))| *place);
    found.into_iter().map(|(key, (_, old))| (key, old)).collect()
}

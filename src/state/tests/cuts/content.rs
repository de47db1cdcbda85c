//! All there is to know of the state of a function type, to be compared.

use bytes::Bytes;

use super::program::{BUFFERS, TABLES, VALUES};
use super::*;
use crate::codec::Codec;
use crate::state::elements::Renewal;
use crate::state::rows::Row;

/// Why a cut was not restored as it was.
#[derive(Debug)]
pub(super) struct Failed(pub(super) String);

/// A piece of state: everything there is to know of it.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Content {
    Value(u64, Option<u64>),
    Table(BTreeMap<String, (u64, Option<u64>)>),
    /// How many elements are gone, the others with their deadlines, and what reading did to these.
    Buffer(u64, Vec<(u64, u64)>, Option<Renewal>),
}

impl Content {
    /// How many items of the wheel there must be for it.
    pub(super) fn items(&self) -> usize {
        let expires = |deadline: &Option<u64>| usize::from(deadline.is_some());
        match self {
            Content::Value(_, deadline) => expires(deadline),
            Content::Table(rows) => rows.values().map(|(_, deadline)| expires(deadline)).sum(),
            Content::Buffer(_, _, renewal) => usize::from(renewal.is_some()),
        }
    }

    pub(super) fn rows(&mut self) -> &mut BTreeMap<String, (u64, Option<u64>)> {
        match self {
            Content::Table(rows) => rows,
            _ => panic!("it is no table"),
        }
    }

    pub(super) fn elements(&mut self) -> &mut Vec<(u64, u64)> {
        match self {
            Content::Buffer(_, elements, _) => elements,
            _ => panic!("it is no buffer"),
        }
    }
}

/// All state of a function type, by address and name.
pub(super) type Dump = BTreeMap<(Id, &'static str), Content>;

fn name_of(name: &str) -> &'static str {
    let names = VALUES.into_iter().chain(TABLES).chain(BUFFERS);
    names.into_iter().find(|known| *known == name).expect("there is no other state")
}

pub(super) fn dump(state: &FunctionState) -> Dump {
    let mut dump = Dump::new();
    let number = |bytes: &Bytes| Codec::<u64>::SERDE.read(bytes).unwrap();
    let text = |bytes: &Bytes| Codec::<String>::BUILT_IN.read(bytes).unwrap();
    for (slot, id) in state.addresses.iter() {
        for (declared, column) in state.declared.iter().zip(&state.columns) {
            let content = content::<u64, String>(&**column, slot, u64::clone, String::clone)
                .or_else(|| content(&**column, slot, number, text));
            if let Some(content) = content {
                dump.insert((id.clone(), name_of(&declared.name)), content);
            }
        }
    }
    dump
}

/// What there is of an address in a column of such values and keys, if it is one.
fn content<V: 'static, K: Hash + Eq + 'static>(
    column: &dyn AnyColumn,
    slot: Slot,
    value: impl Fn(&V) -> u64,
    key: impl Fn(&K) -> String,
) -> Option<Content> {
    if let Some(column) = column.of::<Column<V>>() {
        Some(Content::Value(value(column.get(slot)?), None))
    } else if let Some(column) = column.of::<ExpiringColumn<V>>() {
        Some(Content::Value(value(column.values.get(slot)?), Some(column.deadline(slot))))
    } else if let Some(column) = column.of::<TableColumn<K, V>>() {
        let rows = column.rows(slot)?;
        let expires = !column.expiration.is_never();
        let deadline = |number| expires.then(|| rows.deadline(number));
        let entry = |(number, row): (u32, &Row<K, V>)| {
            (key(&row.key), (value(&row.value), deadline(number)))
        };
        Some(Content::Table(rows.iter().map(entry).collect()))
    } else if let Some(column) = column.of::<BufferColumn<V>>() {
        let elements = column.elements(slot)?;
        let numbered = elements.iter_from(elements.base());
        let all = numbered.map(|(element, deadline)| (value(element), deadline)).collect();
        let renewal = (!column.expiration.is_never()).then(|| elements.pin().renewal);
        Some(Content::Buffer(elements.base(), all, renewal))
    } else {
        None
    }
}

/// Whether both are the same.
pub(super) fn same(found: &Dump, was: &Dump) -> Result<(), Failed> {
    let missing = was.iter().find(|(key, content)| found.get(key) != Some(content));
    if let Some((key, content)) = missing {
        return Err(Failed(format!("{key:?}: {content:?} became {:?}", found.get(key))));
    }
    let extra = found.iter().find(|(key, _)| !was.contains_key(key));
    extra.map_or(Ok(()), |extra| Err(Failed(format!("there should not be {extra:?}"))))
}

//! What is stored meets what is declared: types, names, lifetimes and other languages.

use std::collections::BTreeSet;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::*;

/// A state of a function that declares something, or registers everything.
pub(super) fn state(declared: &[Declared]) -> FunctionState {
    let mut state = FunctionState::new(declared, declared.is_empty().then_some(10));
    state.keep_cuts(1 << 20);
    state
}

fn restored(declared: &[Declared], parts: &[Part], now_ms: u64) -> FunctionState {
    let mut state = state(declared);
    restore(&mut state, parts, |_| true, now_ms).unwrap();
    state
}

pub(super) fn set<V: 'static>(
    state: &mut FunctionState,
    id: &str,
    spec: ValueSpec<V, &str>,
    value: V,
    now_ms: u64,
) -> Result<(), Box<Reason>> {
    let id = Id::new(id);
    let mut cursor = seek_at(state, &id, now_ms);
    let result = state.put(&mut cursor, &id, spec, Some(value));
    state.commit(cursor);
    result
}

pub(super) fn get<V: Clone + 'static>(
    state: &mut FunctionState,
    id: &str,
    spec: ValueSpec<V, &str>,
    now_ms: u64,
) -> Result<Option<V>, Box<Reason>> {
    let cursor = seek_at(state, &Id::new(id), now_ms);
    let result = state.get(&cursor, spec).map(|found| found.cloned());
    state.commit(cursor);
    result
}

const LONG: ValueSpec<i64> = ValueSpec::new("long");
const TEXT: ValueSpec<String> = ValueSpec::new("text").expiring(after_write(100));
const OWN: ValueSpec<Own> = ValueSpec::shared("own");

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Own {
    number: u8,
}

crate::json_type!(Own, "example/own");

fn embedded() -> [Declared; 3] {
    [Declared::new(LONG), Declared::new(TEXT), Declared::new(OWN)]
}

#[test]
fn a_function_that_is_served_by_another_language_finds_its_state_and_back() {
    let names = ["io.statefun.types/long", "io.statefun.types/string", "example/own"];
    let [long, text, own]: [ValueSpec<Bytes, &str>; 3] = [
        ValueSpec::raw("long", names[0]),
        ValueSpec::raw("text", names[1]).expiring(after_write(100)),
        ValueSpec::raw("own", names[2]),
    ];
    let mut first = state(&embedded());
    set(&mut first, "x", LONG, 7, 5).unwrap();
    set(&mut first, "x", TEXT, "seven".to_owned(), 5).unwrap();
    set(&mut first, "y", OWN, Own { number: 7 }, 5).unwrap();
    let stored = store(&mut first, None);

    let mut remote = restored(&[], std::slice::from_ref(&stored), 5);
    let found = get(&mut remote, "x", long, 5).unwrap().unwrap();
    assert_eq!(&found[..], [9, 7, 0, 0, 0, 0, 0, 0, 0]);
    let found = get(&mut remote, "x", text, 5).unwrap().unwrap();
    assert_eq!(&found[..], b"\x0a\x05seven");
    let found = get(&mut remote, "y", own, 5).unwrap().unwrap();
    assert_eq!(&found[..], b"{\"number\":7}");
    set(&mut remote, "x", long, Bytes::from_static(&[9, 8, 0, 0, 0, 0, 0, 0, 0]), 6).unwrap();
    set(&mut remote, "z", own, Bytes::from_static(b"{\"number\":8}"), 6).unwrap();
    let delta = store(&mut remote, Some(0));
    assert_eq!(delta.records.len(), 2);

    let mut back = restored(&embedded(), &[stored, delta], 6);
    assert_eq!(get(&mut back, "x", LONG, 6), Ok(Some(8)));
    assert_eq!(get(&mut back, "x", TEXT, 6), Ok(Some("seven".to_owned())));
    assert_eq!(get(&mut back, "y", OWN, 6), Ok(Some(Own { number: 7 })));
    assert_eq!(get(&mut back, "z", OWN, 6), Ok(Some(Own { number: 8 })));
    assert_eq!(get(&mut back, "x", TEXT, 105), Ok(None), "it is over when it would have been");
}

#[test]
fn what_nobody_declares_is_kept_from_snapshot_to_snapshot_until_it_expires() {
    let mut first = state(&embedded());
    set(&mut first, "x", LONG, 7, 0).unwrap();
    set(&mut first, "x", TEXT, "seven".to_owned(), 0).unwrap();
    let mut stored = store(&mut first, None);
    for round in 0..5 {
        let mut other = restored(&[Declared::new(COUNT)], &[stored], 50);
        let mistake = Err(Box::new(Reason::UndeclaredState("long".to_owned())));
        assert_eq!(get(&mut other, "x", LONG, 50), mistake);
        set(&mut other, "y", COUNT, round, 50).unwrap();
        if round == 2 {
            expire_all(&mut other, 100);
        }
        stored = store(&mut other, None);
        assert_eq!(stored.records.len(), if round < 2 { 3 } else { 2 });
        assert_eq!(stored.headers.len(), 4);
    }
    let mut back = restored(&embedded(), &[stored], 50);
    assert_eq!(get(&mut back, "x", LONG, 50), Ok(Some(7)));
    assert_eq!(get(&mut back, "x", TEXT, 50), Ok(None));
    let names: Vec<_> = back.declared.iter().map(|declared| declared.name.to_string()).collect();
    assert_eq!(names, ["long", "text", "own", "count"]);
}

#[test]
fn what_was_registered_is_found_by_its_name_and_its_types_only() {
    let rows: TableSpec<String, u64> = TableSpec::new("rows");
    let list: BufferSpec<u64> = BufferSpec::new("list").expiring(after_use(160));
    let id = Id::new("x");
    let mut first = state(&[]);
    set(&mut first, "x", COUNT, 1, 0).unwrap();
    let mut cursor = seek(&first, &id);
    first.table(&mut cursor, &id, rows).unwrap().insert("a".to_owned(), 1);
    first.buffer(&mut cursor, &id, list).unwrap().extend(0..100_000);
    first.commit(cursor);
    let stored = [store(&mut first, None)];

    let mut second = restored(&[], &stored, 0);
    // The walk is at the beginning when what it has to write changes its form.
    let cut = second.take_cut(Some(0));
    let text: ValueSpec<String> = ValueSpec::new("count");
    let (declared, used) = ("rust/u64".into(), "io.statefun.types/string".into());
    let mistake = Reason::StateType { state: "count".into(), declared, used };
    assert_eq!(get(&mut second, "x", text, 0), Err(Box::new(mistake)));
    let (declared, used) = ("table".into(), "buffer".into());
    let mistake = Reason::StateKind { state: "rows".into(), declared, used };
    let mut cursor = seek(&second, &id);
    let as_buffer: BufferSpec<u64> = BufferSpec::new("rows");
    assert_eq!(second.buffer(&mut cursor, &id, as_buffer).err(), Some(Box::new(mistake)));
    assert_eq!(second.table(&mut cursor, &id, rows).unwrap().get("a"), Some(&1));
    let found = second.buffer(&mut cursor, &id, list).unwrap().iter().sum::<u64>();
    assert_eq!(found, (0..100_000).sum::<u64>());
    // This is undone, and it stays what it is.
    second.rollback(cursor);
    assert_eq!(get(&mut second, "x", COUNT, 0), Ok(Some(1)));
    assert_eq!((second.len(), second.wheel.len()), (1, 1));
    let mut part = Part::default();
    assert!(second.walk(&mut { ALL }, &mut part).unwrap());
    assert!(part.records.is_empty(), "nothing was written");
    second.committed(cut);
    assert!(!second.wants_full());

    // Another one than it was written with is another deadline each time it is restored.
    let mut third = restored(&[], &stored, 0);
    assert_eq!(get(&mut third, "x", COUNT.expiring(after_write(9)), 100), Ok(Some(1)));
    assert_eq!(get(&mut third, "x", COUNT.expiring(after_write(9)), 109), Ok(None));
    assert!(third.wants_full());
}

/// Rows have other numbers when they are read again, if some are gone.
#[test]
fn a_table_is_registered_while_a_walk_is_half_way_through_it() {
    let rows: TableSpec<u64, u64> = TableSpec::new("rows").expiring(after_write(100));
    let id = Id::new("x");
    let mut first = state(&[]);
    for now in 0..50 {
        let mut cursor = seek_at(&first, &id, now);
        first.table(&mut cursor, &id, rows).unwrap().insert(now, now);
        first.commit(cursor);
    }
    let stored = [store(&mut first, None)];
    for units in 1..40 {
        let mut second = restored(&[], &stored, 50);
        expire_all(&mut second, 109);
        let cut = second.take_cut(None);
        let mut part = Part { headers: second.declared_states(), ..Part::default() };
        assert!(!second.walk(&mut Budget { units, ..ALL }, &mut part).unwrap());
        let mut cursor = seek_at(&second, &id, 109);
        let mut table = second.table(&mut cursor, &id, rows).unwrap();
        assert!(table.remove(&30) && table.insert(7, 0));
        second.commit(cursor);
        assert!(second.walk(&mut { ALL }, &mut part).unwrap());
        second.committed(cut);
        let mut third = restored(&[], &[part], 109);
        let mut cursor = seek_at(&third, &id, 109);
        let mut table = third.table(&mut cursor, &id, rows).unwrap();
        assert!(table.iter().map(|(key, _)| *key).collect::<BTreeSet<_>>().into_iter().eq(10..50));
        third.commit(cursor);
    }
}

/// All that its address kept is over, but an invocation is using the address.
#[test]
fn a_value_that_is_over_is_registered_anew_by_its_own_address() {
    let text: ValueSpec<String> = ValueSpec::new("text");
    let mut first = state(&[Declared::new(TEXT)]);
    set(&mut first, "x", TEXT, "old".to_owned(), 0).unwrap();
    set(&mut first, "y", TEXT, "old".to_owned(), 0).unwrap();
    let stored = [store(&mut first, None)];
    let mut second = restored(&[], &stored, 50);
    assert_eq!(second.len(), 2);
    set(&mut second, "x", text, "new".to_owned(), 100).unwrap();
    assert_eq!((second.len(), second.wheel.len()), (1, 0));
    set(&mut second, "z", text, "other".to_owned(), 100).unwrap();
    assert_eq!(get(&mut second, "x", text, 100), Ok(Some("new".to_owned())));
    assert_eq!(get(&mut second, "y", text, 100), Ok(None));
    assert_eq!((second.len(), store(&mut second, None).records.len()), (2, 2));
}

#[test]
fn no_more_is_registered_than_there_is_room_for_stored_or_not() {
    let mut first = state(&[]);
    let names: Vec<_> = (0..10).map(|number| format!("state-{number}")).collect();
    for name in &names {
        set(&mut first, "x", ValueSpec::new(name), 1_u64, 0).unwrap();
    }
    let stored = store(&mut first, None);
    let mut second = FunctionState::new(&[], Some(2));
    restore(&mut second, &[stored], |_| true, 0).unwrap();
    assert_eq!(get(&mut second, "x", ValueSpec::<u64, _>::new(&names[4]), 0), Ok(Some(1)));
    assert_eq!(get(&mut second, "x", ValueSpec::<u64, _>::new("new"), 0), Ok(None));
    let full = Err(Box::new(Reason::TooManyStates(2)));
    assert_eq!(get(&mut second, "x", ValueSpec::<u64, _>::new(&names[5]), 0), full);
    assert_eq!(get(&mut second, "x", ValueSpec::<u64, _>::new(&names[4]), 0), Ok(Some(1)));
}

/// A state whose name workers registered differently is found by each type it has.
#[test]
fn two_workers_may_have_registered_one_name_for_two_types() {
    let mut parts = Vec::new();
    let number: ValueSpec<u64> = ValueSpec::new("late");
    let text: ValueSpec<String> = ValueSpec::new("late");
    let mut one = state(&[]);
    set(&mut one, "x", number, 7, 0).unwrap();
    parts.push(store(&mut one, None));
    let mut other = state(&[]);
    set(&mut other, "y", text, "seven".to_owned(), 0).unwrap();
    parts.push(store(&mut other, None));
    let mut both = restored(&[], &parts, 0);
    assert_eq!(get(&mut both, "y", text, 0), Ok(Some("seven".to_owned())));
    assert!(get(&mut both, "x", number, 0).is_err(), "one name is one type, once it is used");
    assert_eq!(store(&mut both, None).records.len(), 2, "and nothing is lost");
}

#[test]
fn what_is_declared_otherwise_than_it_is_stored_names_both() {
    let mut first = state(&[Declared::new(COUNT)]);
    set(&mut first, "x", COUNT, 1, 0).unwrap();
    let stored = store(&mut first, None);
    let refused = |declared: Declared| {
        let mut state = state(&[declared]);
        let parts = std::slice::from_ref(&stored);
        restore(&mut state, parts, |_| true, 0).unwrap_err().to_string()
    };
    assert_eq!(
        refused(Declared::new(ValueSpec::<String>::new("count"))),
        "state \"count\" is stored as \"rust/u64\" but declared as \"io.statefun.types/string\""
    );
    assert_eq!(
        refused(Declared::new(TableSpec::<u64, u64>::new("count"))),
        "state \"count\" is stored as a value but declared as a table"
    );
    // Rust may know the type by another name, and then the bytes decide.
    assert_eq!(
        refused(Declared::new(ValueSpec::<Own>::typed("count", "rust/u64"))),
        "state \"count\" of \"x\" cannot be read: invalid type: integer `1`, expected struct Own"
    );
}

#[test]
fn a_lifetime_that_is_declared_anew_holds_from_then_on_and_asks_for_a_full_cut() {
    let list: BufferSpec<u64> = BufferSpec::new("list").expiring(after_write(10));
    let id = Id::new("x");
    let mut first = state(&[Declared::new(COUNT), Declared::new(TEXT), Declared::new(list)]);
    set(&mut first, "x", COUNT, 1, 0).unwrap();
    set(&mut first, "x", TEXT, "a".to_owned(), 0).unwrap();
    set(&mut first, "y", TEXT, "b".to_owned(), 50).unwrap();
    for now in [0, 5] {
        let mut cursor = seek_at(&first, &id, now);
        first.buffer(&mut cursor, &id, list).unwrap().extend([now, now]);
        first.commit(cursor);
    }
    let stored = [store(&mut first, None)];
    let count = COUNT.expiring(after_write(30));
    let text: ValueSpec<String> = ValueSpec::new("text");
    let endless: BufferSpec<u64> = BufferSpec::new("list");
    let declared = [Declared::new(count), Declared::new(text), Declared::new(endless)];
    for (now, texts, elements) in [(12, 2, 2), (100, 1, 0), (14, 2, 2)] {
        let mut second = restored(&declared, &stored, now);
        assert!(second.wants_full());
        assert_eq!(get(&mut second, "x", count, now + 29), Ok(Some(1)));
        assert_eq!(get(&mut second, "x", count, now + 30), Ok(None));
        let found = ["x", "y"].map(|id| get(&mut second, id, text, 1 << 40).unwrap());
        assert_eq!(found.into_iter().flatten().count(), texts, "what was over stays so");
        let mut cursor = seek_at(&second, &id, 1 << 40);
        let mut buffer = second.buffer(&mut cursor, &id, endless).unwrap();
        assert!(buffer.iter().eq(&vec![5; elements]));
        second.commit(cursor);
        // What was stored before is of no use for a delta.
        store(&mut second, None);
        assert!(!second.wants_full());
    }
}

#[test]
fn names_of_built_in_types_are_for_these_types() {
    let check = |declared: Declared| declared.check().map_err(|error| error.to_string());
    assert_eq!(check(Declared::new(LONG)), Ok(()));
    assert_eq!(check(Declared::new(ValueSpec::raw("x", "io.statefun.types/long"))), Ok(()));
    let text = "state type \"io.statefun.types/long\" is not a valid name: it is that of a \
                built-in type, which this is not"
        .to_owned();
    let mistake = Err(text.clone());
    let wrong: ValueSpec<i64> = ValueSpec::typed("x", "io.statefun.types/long");
    assert_eq!(check(Declared::new(wrong)), mistake);
    let keys: TableSpec<u8, u8> = TableSpec::typed("x", "io.statefun.types/long", "rust/u8");
    assert_eq!(check(Declared::new(keys)), mistake);
    let elements: BufferSpec<u8> = BufferSpec::typed("x", "io.statefun.types/long");
    assert_eq!(check(Declared::new(elements)), mistake);
    let mut state = state(&[]);
    assert_eq!(get(&mut state, "x", wrong, 0), Err(Box::new(Reason::InvalidState(text))));
}

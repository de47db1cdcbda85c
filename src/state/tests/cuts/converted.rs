//! States that are stored otherwise than they are declared, where it is said what becomes of them.

use std::collections::BTreeMap;

use super::stored::{get, set, state};
use super::*;
use crate::spec::{Spec, conversion};

const COUNT: ValueSpec<u64> = ValueSpec::new("count");
const TEXT: ValueSpec<String> = ValueSpec::new("text");
const SECOND: TableSpec<u64, u64> = TableSpec::new("rows").expiring(after_write(100));
const FIRST: TableSpec<u64, u8> = TableSpec::new("rows").expiring(after_write(100));
const OLD_LIST: BufferSpec<u8> = BufferSpec::new("list").expiring(after_write(100));
const LIST: BufferSpec<String> = BufferSpec::new("list").expiring(after_write(100));

fn convert<O: Spec, S: Spec>(
    from: O,
    to: S,
    with: impl Fn(O::Kept) -> S::Kept + Send + Sync + 'static,
) -> Conversions {
    Conversions {
        converted: vec![conversion(from, to, move |old| Ok(with(old)))],
        ..Conversions::default()
    }
}

fn then(mut one: Conversions, other: Conversions) -> Conversions {
    one.converted.extend(other.converted);
    one.discarded.extend(other.discarded);
    one
}

fn discard(name: &str, type_name: &str) -> Conversions {
    Conversions {
        discarded: vec![(name.to_owned(), type_name.to_owned())],
        ..Conversions::default()
    }
}

fn try_to_restore(
    declared: &[Declared],
    parts: &[Part],
    conversions: &Conversions,
) -> Result<FunctionState, String> {
    let mut state = state(declared);
    for part in parts {
        let restoring = state.restore(&part.headers, conversions, 50);
        let restoring = restoring.map_err(|error| error.to_string())?;
        for (bin, record) in &part.records {
            restoring.apply(&mut state, *bin, record).map_err(|error| error.to_string())?;
        }
    }
    Ok(state)
}

fn restored(declared: &[Declared], parts: &[Part], conversions: &Conversions) -> FunctionState {
    try_to_restore(declared, parts, conversions).unwrap()
}

/// A full cut of three counts, and a delta in which one is another, one is gone and one is new.
fn counts() -> [Part; 2] {
    let mut first = state(&[Declared::new(COUNT)]);
    for (id, count) in [("a", 1), ("b", 2), ("c", 3)] {
        set(&mut first, id, COUNT, count, 0).unwrap();
    }
    let full = store(&mut first, None);
    set(&mut first, "b", COUNT, 20, 0).unwrap();
    let id = Id::new("c");
    let mut cursor = seek(&first, &id);
    first.put(&mut cursor, &id, COUNT, None).unwrap();
    first.commit(cursor);
    set(&mut first, "d", COUNT, 4, 0).unwrap();
    let since = first.latest_committed();
    [full, store(&mut first, Some(since))]
}

fn texts(state: &mut FunctionState) -> Vec<String> {
    let all = ["a", "b", "c", "d"].map(|id| get(state, id, TEXT, 50).unwrap());
    all.into_iter().flatten().collect()
}

#[test]
fn a_value_has_another_type_and_another_name_from_the_next_full_cut_on() {
    let conversions = convert(COUNT, TEXT, |count| format!("{count} in all"));
    let declared = [Declared::new(TEXT)];
    let mut second = restored(&declared, &counts(), &conversions);
    let expected = ["1 in all", "20 in all", "4 in all"];
    assert_eq!(texts(&mut second), expected);
    assert!(second.wants_full());
    let stored = [store(&mut second, None)];
    assert_eq!(texts(&mut restored(&declared, &stored, &Conversions::default())), expected);
    let again = restored(&declared, &stored, &conversions);
    assert!(!again.wants_full(), "there was nothing to convert");
}

#[test]
fn a_state_is_brought_through_all_of_its_versions() {
    let second: ValueSpec<i64> = ValueSpec::new("second");
    let conversions = then(
        convert(second, TEXT, |count| count.to_string()),
        convert(COUNT, second, |count| 100 * i64::try_from(count).unwrap()),
    );
    let declared = [Declared::new(TEXT)];
    assert_eq!(texts(&mut restored(&declared, &counts(), &conversions)), ["100", "2000", "400"]);
    let circle = then(conversions, convert(TEXT, COUNT, |text| text.len() as u64));
    let refused = try_to_restore(&declared, &counts(), &circle).err().unwrap();
    assert_eq!(refused, "state \"count\" is converted in a circle");
}

#[test]
fn entries_and_elements_are_converted_one_by_one_and_live_as_long_as_before() {
    let mut first = state(&[Declared::new(FIRST), Declared::new(OLD_LIST)]);
    let id = Id::new("x");
    let mut parts = Vec::new();
    // Each is written at its number; in the end entry 3 is gone, and 5 is 50.
    for now in 0..10_u8 {
        let mut cursor = seek_at(&first, &id, now.into());
        let mut table = first.table(&mut cursor, &id, FIRST).unwrap();
        table.insert(now.into(), now);
        if now == 7 {
            table.remove(&3);
            table.insert(5, 50);
        }
        first.buffer(&mut cursor, &id, OLD_LIST).unwrap().extend([now, now + 100]);
        first.commit(cursor);
        if now == 4 || now == 9 {
            let since = (now == 9).then(|| first.latest_committed());
            parts.push(store(&mut first, since));
        }
    }
    let conversions = then(
        convert(FIRST, SECOND, |value| 1000 + u64::from(value)),
        convert(OLD_LIST, LIST, |element| format!("<{element}>")),
    );
    let declared = [Declared::new(SECOND), Declared::new(LIST)];
    for now in [50_u64, 104] {
        let mut second = restored(&declared, &parts, &conversions);
        let mut cursor = seek_at(&second, &id, now);
        let mut table = second.table(&mut cursor, &id, SECOND).unwrap();
        let found: BTreeMap<_, _> = table.iter().map(|(key, value)| (*key, *value)).collect();
        let lives = |at: u64| at + 100 > now;
        let written = |key: u64| if key == 5 { (7, 1050) } else { (key, 1000 + key) };
        let expected = (0..10).filter(|key| *key != 3 && lives(written(*key).0));
        assert_eq!(found, expected.map(|key| (key, written(key).1)).collect());
        let found: Vec<_> =
            second.buffer(&mut cursor, &id, LIST).unwrap().iter().cloned().collect();
        let expected = (0..10).filter(|at| lives(*at));
        let expected: Vec<_> =
            expected.flat_map(|at| [format!("<{at}>"), format!("<{}>", at + 100)]).collect();
        assert_eq!(found, expected);
        second.commit(cursor);
    }
}

#[test]
fn what_nobody_declares_is_converted_as_bytes_and_then_registered() {
    let conversions = convert(COUNT, TEXT, |count| count.to_string());
    let mut second = restored(&[], &counts(), &conversions);
    let mut kept = restored(&[], &[store(&mut second, None)], &Conversions::default());
    assert_eq!(texts(&mut kept), ["1", "20", "4"]);
}

#[test]
fn what_is_discarded_is_left_out_and_is_not_in_the_next_full_cut() {
    let conversions = discard("count", "rust/u64");
    for declared in
        [vec![], vec![Declared::new(TEXT)], vec![Declared::new(ValueSpec::<i64>::new("count"))]]
    {
        let mut second = restored(&declared, &counts(), &conversions);
        assert!(second.wants_full() && second.len() == 0);
        let stored = store(&mut second, None);
        assert!(stored.records.is_empty() && stored.headers.len() == declared.len());
    }
    let other = discard("count", "rust/i64");
    assert_eq!(restored(&[], &counts(), &other).len(), 3, "it is of another type");
}

#[test]
fn what_cannot_be_converted_ends_the_restart_and_is_named() {
    let refuse = |count: u64| match count {
        20 => Err("20 is no count".into()),
        _ => Ok(count.to_string()),
    };
    let conversions =
        Conversions { converted: vec![conversion(COUNT, TEXT, refuse)], ..Conversions::default() };
    let declared = [Declared::new(TEXT)];
    let refused = try_to_restore(&declared, &counts(), &conversions).err().unwrap();
    assert_eq!(refused, "state \"text\" of \"b\" cannot be read: 20 is no count");
    let conversions =
        convert(COUNT, TEXT, |count| if count == 3 { panic!("three") } else { String::new() });
    let refused = try_to_restore(&declared, &counts(), &conversions).err().unwrap();
    assert_eq!(refused, "state \"text\" of \"c\" cannot be read: it panicked: three");
}

#[test]
fn two_stored_states_do_not_become_one() {
    let mut first = state(&[Declared::new(COUNT), Declared::new(TEXT)]);
    set(&mut first, "a", COUNT, 1, 0).unwrap();
    set(&mut first, "a", TEXT, "one".to_owned(), 0).unwrap();
    let stored = [store(&mut first, None)];
    let conversions = convert(COUNT, TEXT, |count| count.to_string());
    let refused = try_to_restore(&[Declared::new(TEXT)], &stored, &conversions).err().unwrap();
    assert_eq!(refused, "state \"text\" is stored, and so is one that is converted to it");
}

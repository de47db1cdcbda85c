//! The state of a function type against a plain map.

use std::collections::BTreeMap;

use super::*;
use crate::placement::hash;

const COUNT: ValueSpec<u64> = ValueSpec::new("count");
const NAME: ValueSpec<String> = ValueSpec::new("name");

fn state() -> FunctionState {
    FunctionState::new(&[Declared::new(COUNT), Declared::new(NAME)])
}

fn seek(state: &FunctionState, id: &Id) -> Cursor {
    state.seek(id, hash(id))
}

#[test]
fn random_invocations_leave_what_a_plain_map_would_hold() {
    let mut random = 7u64;
    let mut draw = move |below: u64| {
        random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (random >> 33) % below
    };
    let mut state = state();
    let mut model: BTreeMap<String, (Option<u64>, Option<String>)> = BTreeMap::new();
    for step in 0..200_000u64 {
        let name = format!("id{}", draw(3000));
        let id = Id::new(&name);
        let mut cursor = seek(&state, &id);
        let before = model.get(&name).cloned().unwrap_or_default();
        assert_eq!(state.get(&cursor, COUNT).unwrap().copied(), before.0);
        assert_eq!(state.get(&cursor, NAME).unwrap().cloned(), before.1);
        let mut after = before.clone();
        for _ in 0..draw(4) {
            if draw(2) == 0 {
                after.0 = (draw(3) > 0).then_some(step);
                state.put(&mut cursor, &id, COUNT, after.0).unwrap();
            } else {
                after.1 = (draw(3) > 0).then(|| step.to_string());
                state.put(&mut cursor, &id, NAME, after.1.clone()).unwrap();
            }
            assert_eq!(state.get(&cursor, COUNT).unwrap().copied(), after.0, "sees its own writes");
        }
        if draw(3) == 0 {
            state.rollback(cursor);
            after = before;
        } else {
            state.commit(cursor);
        }
        if after == (None, None) {
            model.remove(&name);
        } else {
            model.insert(name, after);
        }
        assert_eq!(state.len(), model.len());
    }
    for (name, (count, text)) in &model {
        let cursor = seek(&state, &Id::new(name));
        assert_eq!(state.get(&cursor, COUNT).unwrap(), count.as_ref());
        assert_eq!(state.get(&cursor, NAME).unwrap(), text.as_ref());
    }
}

#[test]
fn an_address_without_values_is_gone_and_its_slot_is_used_again() {
    let mut state = state();
    for round in 0..10_000u64 {
        let id = Id::from(round);
        let mut cursor = seek(&state, &id);
        state.put(&mut cursor, &id, COUNT, Some(round)).unwrap();
        state.commit(cursor);
        let mut cursor = seek(&state, &id);
        state.put(&mut cursor, &id, COUNT, None).unwrap();
        state.commit(cursor);
    }
    assert_eq!(state.len(), 0);
    assert_eq!(state.addresses.insert(&Id::from(1), 0), 0, "only one slot was ever made");
}

#[test]
fn a_mismatch_names_both_types() {
    let mut state = state();
    let id = Id::new("x");
    let mut cursor = seek(&state, &id);
    let other: ValueSpec<String> = ValueSpec::new("count");
    let mistake = Mistake::OtherType {
        state: "count",
        declared: "rust/u64",
        used: "io.statefun.types/string",
    };
    assert_eq!(state.get(&cursor, other), Err(mistake.clone()));
    assert_eq!(state.put(&mut cursor, &id, other, None), Err(mistake));
    let renamed: ValueSpec<u64> = ValueSpec::typed("count", "example/count");
    assert!(matches!(state.get(&cursor, renamed), Err(Mistake::OtherType { .. })));
    let unknown: ValueSpec<u64> = ValueSpec::new("total");
    assert_eq!(state.get(&cursor, unknown), Err(Mistake::Undeclared("total")));
}

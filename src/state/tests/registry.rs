//! State that registers itself, against a plain model.

use super::*;

fn registering(states_max: usize) -> FunctionState {
    FunctionState::new(&[Declared::new(COUNT)], Some(states_max))
}

fn reason<X>(result: Result<X, Box<Reason>>) -> Reason {
    *result.err().expect("it must not be possible")
}

#[test]
fn random_registrations_last_if_the_invocation_does() {
    for seed in 0..300 {
        let mut draw = draws(seed);
        let mut state = registering(10);
        // What each name is registered as, and the values that addresses keep.
        let mut kinds: BTreeMap<String, u64> = BTreeMap::new();
        let mut values: BTreeMap<(u64, String), u64> = BTreeMap::new();
        for step in 0..300 {
            let at = format!("seed {seed}, step {step}");
            let number = draw(4);
            let id = Id::from(number);
            let mut cursor = seek(&state, &id);
            let before = (kinds.clone(), values.clone());
            for _ in 0..draw(4) {
                let (name, kind, value) = (format!("state-{}", draw(14)), draw(6), draw(100));
                let name = name.as_str();
                // Most uses are as a value.
                let kind = kind.saturating_sub(2);
                let is_put = kind == 0 && draw(2) == 0;
                let result = match kind {
                    0 if !is_put => {
                        let spec = ValueSpec::new(name);
                        state.get(&cursor, spec).map(|found: Option<&u64>| {
                            assert_eq!(found, values.get(&(number, name.to_owned())), "{at}");
                        })
                    }
                    0 => state.put(&mut cursor, &id, ValueSpec::new(name), Some(value)),
                    1 => {
                        let spec = TableSpec::<u64, u64, _>::new(name);
                        state.table(&mut cursor, &id, spec).map(|_| ())
                    }
                    2 => {
                        let spec = BufferSpec::<u64, _>::new(name);
                        state.buffer(&mut cursor, &id, spec).map(|_| ())
                    }
                    _ => state.put(&mut cursor, &id, ValueSpec::new(name), Some(false)),
                };
                let full = kinds.len() >= 10;
                match kinds.get(name) {
                    Some(registered) if *registered == kind => assert_eq!(result, Ok(()), "{at}"),
                    // Values of two types.
                    Some(registered) if [*registered, kind].iter().all(|k| [0, 3].contains(k)) => {
                        assert!(matches!(reason(result), Reason::StateType { .. }), "{at}");
                    }
                    Some(_) => {
                        assert!(matches!(reason(result), Reason::StateKind { .. }), "{at}");
                    }
                    None if full => assert_eq!(reason(result), Reason::TooManyStates(10), "{at}"),
                    None => {
                        assert_eq!(result, Ok(()), "{at}");
                        kinds.insert(name.to_owned(), kind);
                    }
                }
                if is_put && kinds.get(name) == Some(&0) {
                    values.insert((number, name.to_owned()), value);
                }
            }
            if draw(3) == 0 {
                state.rollback(cursor);
                (kinds, values) = before;
            } else {
                state.commit(cursor);
            }
            assert_eq!(state.columns.len(), 1 + kinds.len(), "{at}");
        }
        for ((number, name), value) in &values {
            let cursor = seek(&state, &Id::from(*number));
            let found = state.get::<u64>(&cursor, ValueSpec::new(name)).unwrap();
            assert_eq!(found, Some(value), "seed {seed}: {name}");
        }
    }
}

#[test]
fn names_and_expirations_are_checked_when_a_state_is_registered() {
    let mut state = registering(1);
    let cursor = seek(&state, &Id::new("x"));
    for (name, why) in [
        ("", "it is empty"),
        ("two words", "it contains white space or control characters"),
        ("*", "\"*\" stands for a whole namespace, which is bound by itself"),
    ] {
        let text = format!("state \"{name}\" is not a valid name: {why}");
        let spec = ValueSpec::<u64, _>::new(name);
        assert_eq!(reason(state.get(&cursor, spec)), Reason::InvalidState(text));
    }
    let text = "state type \"plain\" is not a valid name: it is not of the form \"namespace/name\"";
    let spec = ValueSpec::<u64, _>::typed("x", "plain");
    assert_eq!(reason(state.get(&cursor, spec)), Reason::InvalidState(text.to_owned()));
    let text = "the expiration of state \"x\" means nothing: it is zero";
    let spec = ValueSpec::<u64, _>::new("x").expiring(after_write(0));
    assert_eq!(reason(state.get(&cursor, spec)), Reason::InvalidState(text.to_owned()));
    state.rollback(cursor);
    // None of these took the only place.
    let cursor = seek(&state, &Id::new("x"));
    assert_eq!(state.get(&cursor, ValueSpec::<u64, _>::new("good")), Ok(None));
    state.commit(cursor);
}

#[test]
fn what_was_registered_keeps_its_expiration_and_expires() {
    let mut state = registering(5);
    let name = format!("late-{}", 1);
    let spec = ValueSpec::<u64, _>::new(&name).expiring(after_write(10));
    let id = Id::new("x");
    let mut cursor = seek_at(&state, &id, 5);
    state.put(&mut cursor, &id, spec, Some(1)).unwrap();
    let other = spec.expiring(after_write(11));
    let mistake = Reason::StateExpiration {
        state: name.as_str().into(),
        declared: "10 ms after write".into(),
        used: "11 ms after write".into(),
    };
    assert_eq!(reason(state.get(&cursor, other)), mistake);
    assert_eq!(
        mistake.to_string(),
        "the function used state \"late-1\" with expiration \"11 ms after write\" but declares it \
         with \"10 ms after write\""
    );
    state.commit(cursor);
    assert!(!state.expire(14, 9));
    assert_eq!(state.len(), 1);
    assert!(!state.expire(15, 9));
    assert_eq!((state.len(), state.wheel.len()), (0, 0));
}

/// What a type is called is kept with the state, and Rust knows nothing of it.
#[test]
fn what_was_registered_keeps_the_name_of_its_type() {
    let mut state = registering(1);
    let cursor = seek(&state, &Id::new("x"));
    let name = "length".to_owned();
    let metres = ValueSpec::<u64, _>::typed(&name, "test/metres");
    assert_eq!(state.get(&cursor, metres), Ok(None));
    let feet = ValueSpec::<u64, _>::typed(&name, "test/feet");
    let (declared, used) = ("test/metres".into(), "test/feet".into());
    let mistake = Reason::StateType { state: "length".into(), declared, used };
    assert_eq!(reason(state.get(&cursor, feet)), mistake);
    state.commit(cursor);
}

/// A column that was taken away must leave nothing in what the columns share.
#[test]
fn a_registration_that_is_undone_leaves_no_trace_of_what_was_written() {
    let mut state = registering(2);
    let id = Id::new("x");
    for round in 0..10 {
        let name = format!("attempt-{round}");
        let mut cursor = seek(&state, &id);
        let spec = ValueSpec::<u64, _>::new(&name).expiring(after_use(10));
        state.put(&mut cursor, &id, spec, Some(1)).unwrap();
        state.put(&mut cursor, &id, COUNT, Some(round)).unwrap();
        let rows = format!("rows-{round}");
        let spec = TableSpec::<u64, u64, _>::new(&rows).expiring(after_use(10));
        state.table(&mut cursor, &id, spec).unwrap().insert(1, 1);
        state.rollback(cursor);
        assert_eq!((state.len(), state.columns.len(), state.wheel.len()), (0, 1, 0));
    }
}

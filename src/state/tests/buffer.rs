//! The buffers of a function type against plain vectors.

use std::panic::{AssertUnwindSafe, catch_unwind};

use serde::{Deserialize, Serialize};

use super::*;

const LIFETIMES: [Lifetime; 3] = [Lifetime::Ever, Lifetime::Written(50), Lifetime::Used(160)];
const NAMES: [&str; 3] = ["ever", "written", "used"];

fn spec(which: usize) -> BufferSpec<u64> {
    BufferSpec::new(NAMES[which]).expiring(LIFETIMES[which].expiration())
}

fn buffers() -> FunctionState {
    let declared: Vec<_> = (0..3).map(|which| Declared::new(spec(which))).collect();
    FunctionState::new(&declared, None)
}

/// An address and a buffer; its elements, and since when each of them counts.
type Model = BTreeMap<(u64, usize), Vec<(u64, u64)>>;

/// Does something with a buffer and with the model of it, and compares what comes of it.
fn act(
    buffer: &mut BufferAt<'_, u64>,
    lifetime: Lifetime,
    model: &mut Vec<(u64, u64)>,
    draw: &mut impl FnMut(u64) -> u64,
    now: u64,
    at: &str,
) {
    model.retain(|(_, since)| is_seen(lifetime, *since, now) != Some(false));
    let value = draw(1000);
    match draw(16) {
        0..5 => {
            buffer.append(value);
            model.push((value, now));
        }
        5..7 => {
            let elements = value..value + draw(4);
            model.extend(elements.clone().map(|value| (value, now)));
            buffer.extend(elements);
        }
        7 => {
            let elements = value..value + draw(4);
            *model = elements.clone().map(|value| (value, now)).collect();
            buffer.replace(elements);
        }
        8 => {
            buffer.clear();
            model.clear();
        }
        9..12 => {
            let sure =
                model.iter().filter(|(_, since)| is_seen(lifetime, *since, now) == Some(true));
            assert!((sure.count()..=model.len()).contains(&buffer.len()), "{at}");
        }
        _ => {
            let len = buffer.len();
            let found: Vec<u64> = buffer.iter().copied().collect();
            assert_eq!(found.len(), len, "{at}");
            assert!(found.len() <= model.len(), "{at}: {found:?} of {model:?}");
            let gone = model.drain(..model.len() - found.len());
            for (value, since) in gone {
                assert_eq!(is_seen(lifetime, since, now), None, "{at}: {value} is missing");
            }
            assert!(model.iter().map(|(value, _)| value).eq(&found), "{at}: {found:?}");
            if let Lifetime::Used(_) = lifetime {
                model.iter_mut().for_each(|(_, since)| *since = now);
            }
        }
    }
}

#[test]
fn random_invocations_and_turns_of_the_clock_leave_what_plain_vectors_would_hold() {
    for seed in 0..500 {
        let mut draw = draws(seed);
        let mut state = buffers();
        let mut now = draw(2) * 1_700_000_000_000;
        let mut model = Model::new();
        for step in 0..300 {
            let at = format!("seed {seed}, step {step}, at {now}");
            match draw(8) {
                0 | 1 => {
                    let most = [2, 30, 200][draw(3) as usize];
                    now += draw(most);
                }
                2 => {
                    state.expire(now, 1 + draw(5) as usize);
                }
                _ => {
                    let number = draw(4);
                    let id = Id::from(number);
                    let mut cursor = seek_at(&state, &id, now);
                    let before = model.clone();
                    for _ in 0..draw(12) {
                        let which = draw(3) as usize;
                        let mut buffer = state.buffer(&mut cursor, &id, spec(which)).unwrap();
                        let known = model.entry((number, which)).or_default();
                        act(&mut buffer, LIFETIMES[which], known, &mut draw, now, &at);
                    }
                    if draw(3) == 0 {
                        state.rollback(cursor);
                        model = before;
                    } else {
                        state.commit(cursor);
                    }
                }
            }
            if draw(20) == 0 {
                expire_all(&mut state, now);
                let there = |unsure: bool| {
                    let seen = |which: usize, since| {
                        is_seen(LIFETIMES[which], since, now).unwrap_or(unsure)
                    };
                    let expiring = model.iter().filter(|((_, which), _)| *which > 0);
                    let there = expiring.filter(|((_, which), elements)| {
                        elements.iter().any(|(_, since)| seen(*which, *since))
                    });
                    there.count()
                };
                let items = state.wheel.len();
                assert!((there(false)..=there(true)).contains(&items), "{at}: {items} items");
            }
        }
        expire_all(&mut state, now + 1000);
        assert_eq!(state.wheel.len(), 0, "seed {seed}");
        let mut left =
            model.iter().filter(|((_, which), elements)| *which == 0 && !elements.is_empty());
        assert_eq!(state.len(), left.clone().count(), "seed {seed}");
        assert!(left.all(|((number, _), elements)| {
            let id = Id::from(*number);
            let mut cursor = seek_at(&state, &id, now + 1000);
            let mut buffer = state.buffer(&mut cursor, &id, spec(0)).unwrap();
            let kept = buffer.iter().eq(elements.iter().map(|(value, _)| value));
            buffer.clear();
            state.commit(cursor);
            kept
        }));
        assert_eq!(state.len(), 0, "seed {seed}");
    }
}

/// An element that nobody can copy.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Solid(u64);

#[test]
fn a_change_costs_what_changed_however_many_elements_there_are() {
    const BIG: BufferSpec<Solid> =
        BufferSpec::typed("big", "test/solid").expiring(after_write(1000));
    const ELEMENTS: u64 = 1_000_000;
    let mut state = FunctionState::new(&[Declared::new(BIG)], None);
    let id = Id::new("x");
    let mut cursor = seek(&state, &id);
    let mut buffer = state.buffer(&mut cursor, &id, BIG).unwrap();
    buffer.extend((0..ELEMENTS).map(Solid));
    assert_eq!(buffer.column.before.len(), 2, "that there was none, and how many there are now");
    state.commit(cursor);
    assert_eq!(state.wheel.len(), 1);
    for round in 1..10 {
        let mut cursor = seek_at(&state, &id, round);
        let mut buffer = state.buffer(&mut cursor, &id, BIG).unwrap();
        let first: *const Solid = buffer.iter().next().unwrap();
        buffer.append(Solid(7));
        buffer.append(Solid(8));
        assert_eq!(buffer.column.before.len(), 1, "how many there were");
        buffer.clear();
        buffer.append(Solid(9));
        buffer.replace([]);
        assert_eq!(buffer.len(), 0);
        state.rollback(cursor);
        let mut cursor = seek_at(&state, &id, round);
        let mut buffer = state.buffer(&mut cursor, &id, BIG).unwrap();
        assert_eq!(buffer.len() as u64, ELEMENTS);
        assert!(std::ptr::eq(first, buffer.iter().next().unwrap()), "nothing was moved");
        assert_eq!(buffer.iter().last(), Some(&Solid(ELEMENTS - 1)));
        state.commit(cursor);
    }
    // What expires at once is swept piece by piece.
    assert!(state.expire(1000, ELEMENTS as usize - 1));
    assert_eq!((state.len(), state.wheel.len()), (1, 1));
    assert!(!state.expire(1000, 2));
    assert_eq!((state.len(), state.wheel.len()), (0, 0));
}

/// Who gives the elements is not ours, and may panic half-way; the function may even go on.
#[test]
fn elements_that_are_never_given_leave_nothing() {
    let mut state = buffers();
    let id = Id::new("x");
    let failing = || (0..10).inspect(|n| assert!(*n < 5, "enough"));
    let mut cursor = seek(&state, &id);
    let mut buffer = state.buffer(&mut cursor, &id, spec(0)).unwrap();
    buffer.extend([1, 2, 3]);
    let panicked = catch_unwind(AssertUnwindSafe(|| buffer.replace(failing())));
    assert!(panicked.is_err() && buffer.iter().eq(&[1, 2, 3]));
    state.commit(cursor);
    let mut cursor = seek(&state, &id);
    let mut buffer = state.buffer(&mut cursor, &id, spec(0)).unwrap();
    let panicked = catch_unwind(AssertUnwindSafe(|| buffer.extend(failing())));
    assert!(panicked.is_err());
    state.rollback(cursor);
    let mut cursor = seek(&state, &id);
    assert!(state.buffer(&mut cursor, &id, spec(0)).unwrap().iter().eq(&[1, 2, 3]));
    state.commit(cursor);
}

#[test]
fn nothing_to_append_is_no_change() {
    let mut state = buffers();
    let id = Id::new("x");
    let mut cursor = seek(&state, &id);
    for which in 0..3 {
        let mut buffer = state.buffer(&mut cursor, &id, spec(which)).unwrap();
        buffer.extend([]);
        buffer.replace([]);
        buffer.clear();
        assert_eq!(buffer.len(), 0);
    }
    assert!(state.written.is_empty());
    state.commit(cursor);
    assert_eq!(state.len(), 0);
}

#[test]
fn a_mismatch_of_buffers_names_kinds_and_both_types() {
    let mut state = buffers();
    let id = Id::new("x");
    let mut cursor = seek(&state, &id);
    let other: BufferSpec<String> = BufferSpec::new("ever");
    let (declared, used) = ("rust/u64".into(), "io.statefun.types/string".into());
    let mistake = state.buffer(&mut cursor, &id, other).err().unwrap();
    assert_eq!(*mistake, Reason::StateType { state: "ever".into(), declared, used });
    let as_table: TableSpec<u64, u64> = TableSpec::new("ever");
    let (declared, used) = ("buffer".into(), "table".into());
    let mistake = state.table(&mut cursor, &id, as_table).err().unwrap();
    assert_eq!(*mistake, Reason::StateKind { state: "ever".into(), declared, used });
}

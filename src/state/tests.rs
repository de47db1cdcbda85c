//! The values of a function type against plain maps.

mod buffer;
mod cuts;
mod registry;
mod table;

use std::collections::BTreeMap;

use super::*;
use crate::expiration::{Expiration, after_use, after_write};
use crate::placement::hash;

const COUNT: ValueSpec<u64> = ValueSpec::new("count");
const NAME: ValueSpec<String> = ValueSpec::new("name");

fn state() -> FunctionState {
    FunctionState::new(&[Declared::new(COUNT), Declared::new(NAME)], None)
}

fn seek(state: &FunctionState, id: &Id) -> Cursor {
    seek_at(state, id, 0)
}

fn seek_at(state: &FunctionState, id: &Id, now_ms: u64) -> Cursor {
    state.seek(id, hash(id), now_ms)
}

/// Numbers below others, that depend on nothing but a seed.
fn draws(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut random = seed;
    move |below| {
        random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (random >> 33) % below
    }
}

#[test]
fn random_invocations_leave_what_a_plain_map_would_hold() {
    let mut draw = draws(7);
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

/// What is first written where there are many addresses costs as much as where there are few.
#[test]
fn a_value_that_few_of_many_addresses_keep_takes_memory_for_these() {
    let mut cells = chunks::Cells::<Option<u64>>::default();
    let mut draw = draws(3);
    let mut model = BTreeMap::new();
    for number in 0..100 {
        let at = draw(1 << 31) as u32;
        *cells.get_or_make(at) = Some(number);
        model.insert(at, number);
    }
    assert!(model.iter().all(|(at, number)| cells.get(*at) == Some(&Some(*number))));
    let written = cells.iter_mut().flatten().map(|number| *number);
    assert!(written.eq(model.into_values()));
    assert!(cells.iter_mut().count() <= 100 * 4096);
    assert!(cells.get(1 << 31).is_none() && cells.get_mut(u32::MAX).is_none());
}

#[test]
fn a_mismatch_names_both_types() {
    let mut state = state();
    let id = Id::new("x");
    let mut cursor = seek(&state, &id);
    let misfit = |declared: &str, used: &str| {
        let (declared, used) = (declared.into(), used.into());
        Box::new(Reason::StateType { state: "count".into(), declared, used })
    };
    let other: ValueSpec<String> = ValueSpec::new("count");
    let mistake = misfit("rust/u64", "io.statefun.types/string");
    assert_eq!(state.get(&cursor, other), Err(mistake.clone()));
    assert_eq!(state.put(&mut cursor, &id, other, None), Err(mistake));
    let renamed: ValueSpec<u64> = ValueSpec::typed("count", "example/count");
    assert_eq!(state.get(&cursor, renamed), Err(misfit("rust/u64", "example/count")));
    let disguised: ValueSpec<i8> = ValueSpec::typed("count", "rust/u64");
    assert_eq!(state.get(&cursor, disguised), Err(misfit("u64", "i8")));
    let unknown: ValueSpec<u64> = ValueSpec::new("total");
    let mistake = Reason::UndeclaredState("total".to_owned());
    assert_eq!(state.get(&cursor, unknown), Err(Box::new(mistake)));
    let expiring = COUNT.expiring(after_write(5));
    let (declared, used) = ("never".into(), "5 ms after write".into());
    let mistake = Reason::StateExpiration { state: "count".into(), declared, used };
    assert_eq!(state.get(&cursor, expiring), Err(Box::new(mistake)));
}

/// What a plain model of state that expires knows of a piece: whether it must be seen at some time,
/// or must not be. Reads may be counted with an error of a sixteenth, and then it is `None`.
fn is_seen(lifetime: Lifetime, since: u64, now: u64) -> Option<bool> {
    let age = now - since;
    match lifetime {
        Lifetime::Ever => Some(true),
        Lifetime::Written(lifetime) => Some(age < lifetime),
        Lifetime::Used(lifetime) if age < lifetime => Some(true),
        Lifetime::Used(lifetime) if age > lifetime + lifetime / 16 => Some(false),
        Lifetime::Used(_) => None,
    }
}

#[derive(Copy, Clone, Debug, PartialEq)]
enum Lifetime {
    Ever,
    Written(u64),
    Used(u64),
}

impl Lifetime {
    const fn expiration(self) -> Expiration {
        match self {
            Lifetime::Ever => Expiration::never(),
            Lifetime::Written(lifetime) => after_write(lifetime),
            Lifetime::Used(lifetime) => after_use(lifetime),
        }
    }
}

/// Calls [`FunctionState::expire`] until there is no more, a few pieces at a time.
fn expire_all(state: &mut FunctionState, now_ms: u64) {
    while state.expire(now_ms, 3) {}
}

#[test]
fn random_invocations_and_turns_of_the_clock_leave_what_plain_maps_would_hold() {
    const LIFETIMES: [Lifetime; 4] =
        [Lifetime::Ever, Lifetime::Written(50), Lifetime::Used(160), Lifetime::Used(1)];
    const NAMES: [&str; 4] = ["ever", "written", "used", "short"];
    let spec = |which: usize| -> ValueSpec<u64> {
        ValueSpec::new(NAMES[which]).expiring(LIFETIMES[which].expiration())
    };
    for seed in 0..400 {
        let mut draw = draws(seed);
        let declared: Vec<_> = (0..4).map(|which| Declared::new(spec(which))).collect();
        let mut state = FunctionState::new(&declared, None);
        let mut now = draw(2) * 1_700_000_000_000;
        // What each value is, and since when it counts.
        let mut model: BTreeMap<(u64, usize), (u64, u64)> = BTreeMap::new();
        for step in 0..400 {
            match draw(8) {
                0 | 1 => {
                    let most = [2, 30, 200][draw(3) as usize];
                    now += draw(most);
                }
                2 => {
                    state.expire(now, 1 + draw(5) as usize);
                }
                _ => {
                    let number = draw(5);
                    let id = Id::from(number);
                    let mut cursor = seek_at(&state, &id, now);
                    let before = model.clone();
                    for _ in 0..draw(5) {
                        let which = draw(4) as usize;
                        let key = (number, which);
                        match draw(5) {
                            0 | 1 => {
                                model.insert(key, (step, now));
                                state.put(&mut cursor, &id, spec(which), Some(step)).unwrap();
                            }
                            2 => {
                                model.remove(&key);
                                state.put(&mut cursor, &id, spec(which), None).unwrap();
                            }
                            _ => {
                                let found = state.get(&cursor, spec(which)).unwrap().copied();
                                let seen = model.get(&key).and_then(|(_, since)| {
                                    is_seen(LIFETIMES[which], *since, now).or(Some(found.is_some()))
                                });
                                let at = format!("seed {seed}, step {step}, at {now}: {key:?}");
                                if seen != Some(true) {
                                    assert_eq!(found, None, "{at}");
                                    model.remove(&key);
                                } else {
                                    let (value, since) = model.get_mut(&key).unwrap();
                                    assert_eq!(found, Some(*value), "{at}");
                                    if let Lifetime::Used(_) = LIFETIMES[which] {
                                        *since = now;
                                    }
                                }
                            }
                        }
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
                let seen = |unsure: bool| {
                    let expiring = model.iter().filter(|((_, which), _)| *which > 0);
                    let seen = expiring.filter(|((_, which), (_, since))| {
                        is_seen(LIFETIMES[*which], *since, now).unwrap_or(unsure)
                    });
                    seen.count()
                };
                let items = state.wheel.len();
                assert!((seen(false)..=seen(true)).contains(&items), "seed {seed}, step {step}");
            }
        }
        expire_all(&mut state, now + 1000);
        assert_eq!(state.wheel.len(), 0, "seed {seed}");
        let mut left: Vec<u64> =
            model.keys().filter(|(_, which)| *which == 0).map(|key| key.0).collect();
        left.dedup();
        assert_eq!(state.len(), left.len(), "seed {seed}: {left:?}");
    }
}

#[test]
fn what_expires_gives_its_memory_back_and_its_slot_is_used_again() {
    const CART: ValueSpec<String> = ValueSpec::new("cart").expiring(after_write(10));
    let mut state = FunctionState::new(&[Declared::new(CART)], None);
    for round in 0..100 {
        for number in 0..50 {
            let id = Id::from(round * 50 + number);
            let mut cursor = seek_at(&state, &id, round * 10);
            state.put(&mut cursor, &id, CART, Some("things".to_owned())).unwrap();
            state.commit(cursor);
        }
        assert_eq!((state.len(), state.wheel.len()), (50, 50));
        assert!(!state.expire(round * 10 + 9, 100), "nothing is over yet");
        assert!(state.next_expiry().unwrap() <= round * 10 + 10);
        assert_eq!(state.len(), 50);
        assert!(state.expire(round * 10 + 10, 49), "one is left");
        assert_eq!(state.len(), 1);
        assert!(!state.expire(round * 10 + 10, 2));
        assert_eq!((state.len(), state.wheel.len(), state.next_expiry()), (0, 0, None));
    }
    assert!(state.addresses.insert(&Id::new("next"), 0) < 50, "no more slots were ever made");
}

/// A deadline moves with each write, and the wheel is not told.
#[test]
fn a_value_that_is_written_all_the_time_is_one_item_of_the_wheel() {
    const SEEN: ValueSpec<u64> = ValueSpec::new("seen").expiring(after_write(1000));
    let mut state = FunctionState::new(&[Declared::new(SEEN)], None);
    let id = Id::new("x");
    for now in 0..1000 {
        let mut cursor = seek_at(&state, &id, now);
        state.put(&mut cursor, &id, SEEN, Some(now)).unwrap();
        state.commit(cursor);
        assert_eq!(state.wheel.len(), 1);
        assert_eq!(state.wheel.next_due(now), None);
    }
    assert!(!state.expire(1998, 10));
    assert_eq!((state.len(), state.wheel.len()), (1, 1), "it was set again");
    assert!(!state.expire(1999, 10));
    assert_eq!((state.len(), state.wheel.len()), (0, 0));
}

//! The tables of a function type against plain maps.

use std::hash::Hasher;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize, Serializer};

use super::*;

const LIFETIMES: [Lifetime; 3] = [Lifetime::Ever, Lifetime::Written(50), Lifetime::Used(160)];
const NAMES: [&str; 3] = ["ever", "written", "used"];

fn spec(which: usize) -> TableSpec<String, u64> {
    TableSpec::new(NAMES[which]).expiring(LIFETIMES[which].expiration())
}

fn tables() -> FunctionState {
    let declared: Vec<_> = (0..3).map(|which| Declared::new(spec(which))).collect();
    FunctionState::new(&declared, None)
}

/// An address, a table, and a key; the value, and since when it counts.
type Model = BTreeMap<(u64, usize, String), (u64, u64)>;

/// Does something with a table and with the model of it, and compares what comes of it.
fn act(
    table: &mut TableAt<'_, String, u64>,
    (number, which): (u64, usize),
    model: &mut Model,
    draw: &mut impl FnMut(u64) -> u64,
    now: u64,
    at: &str,
) {
    let lifetime = LIFETIMES[which];
    let key = format!("key {}", draw(12));
    let place = (number, which, key.clone());
    // What is certainly gone is of no interest any more.
    model
        .retain(|(_, which, _), (_, since)| is_seen(LIFETIMES[*which], *since, now) != Some(false));
    let certainly = |since: u64| is_seen(lifetime, since, now) == Some(true);
    let range = (number, which, String::new())..(number, which + 1, String::new());
    match draw(16) {
        0..6 => {
            let value = draw(1000);
            let is_new = table.insert(key, value);
            match model.insert(place, (value, now)) {
                None => assert!(is_new, "{at}"),
                Some((_, since)) => assert!(!is_new || !certainly(since), "{at}"),
            }
        }
        6..9 => {
            let found = table.remove(key.as_str());
            match model.remove(&place) {
                None => assert!(!found, "{at}"),
                Some((_, since)) => assert!(found || !certainly(since), "{at}"),
            }
        }
        9..13 => {
            let found = table.get(key.as_str()).copied();
            match (found, model.get_mut(&place)) {
                (None, None) => {}
                (None, Some((_, since))) => {
                    assert!(!certainly(*since), "{at}");
                    model.remove(&place);
                }
                (found, Some((value, since))) => {
                    assert_eq!(found, Some(*value), "{at}");
                    if let Lifetime::Used(_) = lifetime {
                        *since = now;
                    }
                }
                (found, None) => panic!("{at}: found {found:?}"),
            }
        }
        13 => {
            let len = table.len();
            assert_eq!(table.is_empty(), len == 0, "{at}");
            let sure = model.range(range.clone()).filter(|(_, (_, since))| certainly(*since));
            assert!((sure.count()..=model.range(range).count()).contains(&len), "{at}");
        }
        14 => {
            let found: BTreeMap<String, u64> =
                table.iter().map(|(key, value)| (key.clone(), *value)).collect();
            assert_eq!(found.len(), table.len(), "{at}");
            for (key, value) in &found {
                let place = (number, which, key.clone());
                let (known, since) = model.get_mut(&place).expect("it was put there");
                assert_eq!(known, value, "{at}");
                if let Lifetime::Used(_) = lifetime {
                    *since = now;
                }
            }
            let here: Vec<_> =
                model.range(range).map(|(place, seen)| (place.clone(), seen.1)).collect();
            for (place, since) in here {
                if !found.contains_key(&place.2) {
                    assert!(!certainly(since), "{at}: {place:?} is missing");
                    model.remove(&place);
                }
            }
        }
        _ => {
            table.clear();
            assert!(table.is_empty(), "{at}");
            model.retain(|(n, w, _), _| (*n, *w) != (number, which));
        }
    }
}

#[test]
fn random_invocations_and_turns_of_the_clock_leave_what_plain_maps_would_hold() {
    for seed in 0..500 {
        let mut draw = draws(seed);
        let mut state = tables();
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
                        let mut table = state.table(&mut cursor, &id, spec(which)).unwrap();
                        act(&mut table, (number, which), &mut model, &mut draw, now, &at);
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
                    let expiring = model.iter().filter(|((_, which, _), _)| *which > 0);
                    let seen = expiring.filter(|((_, which, _), (_, since))| {
                        is_seen(LIFETIMES[*which], *since, now).unwrap_or(unsure)
                    });
                    seen.count()
                };
                let items = state.wheel.len();
                assert!((seen(false)..=seen(true)).contains(&items), "{at}: {items} items");
            }
        }
        expire_all(&mut state, now + 1000);
        assert_eq!(state.wheel.len(), 0, "seed {seed}");
        let mut left: Vec<u64> =
            model.keys().filter(|(_, which, _)| *which == 0).map(|key| key.0).collect();
        left.dedup();
        assert_eq!(state.len(), left.len(), "seed {seed}: {left:?}");
        for number in left {
            let id = Id::from(number);
            let mut cursor = seek_at(&state, &id, now + 1000);
            state.table(&mut cursor, &id, spec(0)).unwrap().clear();
            state.commit(cursor);
        }
        assert_eq!(state.len(), 0, "seed {seed}");
    }
}

/// Every column hashes with a seed of its own.
#[test]
fn the_order_of_entries_follows_from_what_was_done_and_not_from_their_hashes() {
    const LINES: TableSpec<String, u64> = TableSpec::new("ever");
    for seed in 0..50 {
        let (mut one, mut other) = (tables(), tables());
        let mut draw = draws(seed);
        let id = Id::new("x");
        let order = |state: &mut FunctionState| -> Vec<(String, u64)> {
            let mut cursor = seek(state, &id);
            let mut table = state.table(&mut cursor, &id, LINES).unwrap();
            let order = table.iter().map(|(key, value)| (key.clone(), *value)).collect();
            state.commit(cursor);
            order
        };
        for step in 0..200 {
            let before = order(&mut one);
            let script: Vec<_> = (0..draw(6)).map(|_| (draw(20), draw(30))).collect();
            let fails = draw(2) == 0;
            for state in [&mut one, &mut other] {
                let mut cursor = seek(state, &id);
                let mut table = state.table(&mut cursor, &id, LINES).unwrap();
                for (what, key) in &script {
                    match what {
                        0 => table.clear(),
                        1..8 => _ = table.remove(&key.to_string()),
                        _ => _ = table.insert(key.to_string(), step),
                    }
                }
                match fails {
                    true => state.rollback(cursor),
                    false => state.commit(cursor),
                }
            }
            let after = order(&mut one);
            assert_eq!(after, order(&mut other), "seed {seed}, step {step}");
            assert!(!fails || after == before, "seed {seed}, step {step}: what was undone shows");
        }
    }
}

/// Counted by the one test that uses [`Counted`].
static HASHED: AtomicU64 = AtomicU64::new(0);
static COMPARED: AtomicU64 = AtomicU64::new(0);
static DROPPED: AtomicU64 = AtomicU64::new(0);

fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

fn count(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// A key that counts what is done with it. It cannot be cloned.
#[derive(Deserialize)]
struct Counted(u64);

impl Serialize for Counted {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        panic!("nobody wants it written");
    }
}

impl Hash for Counted {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        add(&HASHED);
        self.0.hash(hasher);
    }
}

impl PartialEq for Counted {
    fn eq(&self, other: &Counted) -> bool {
        add(&COMPARED);
        self.0 == other.0
    }
}

impl Eq for Counted {}

impl Drop for Counted {
    fn drop(&mut self) {
        add(&DROPPED);
    }
}

#[test]
fn a_change_costs_what_changed_however_many_entries_there_are() {
    const BIG: TableSpec<Counted, Counted> =
        TableSpec::typed("big", "test/counted", "test/counted").expiring(after_write(1000));
    const ENTRIES: u64 = 1_000_000;
    let mut state = FunctionState::new(&[Declared::new(BIG)], None);
    let id = Id::new("x");
    let mut cursor = seek(&state, &id);
    let mut table = state.table(&mut cursor, &id, BIG).unwrap();
    for number in 0..ENTRIES {
        table.insert(Counted(number), Counted(number));
    }
    assert_eq!(count(&HASHED), ENTRIES, "growing hashes nothing again");
    state.commit(cursor);
    assert_eq!((state.wheel.len(), count(&HASHED)), (ENTRIES as usize, ENTRIES));

    // What an invocation hashes and drops, how often it compares at most, what it remembers, and how
    // many items it leaves.
    let mut costs = |change: &dyn Fn(&mut TableAt<'_, Counted, Counted>), undo: bool| {
        for counter in [&HASHED, &COMPARED, &DROPPED] {
            counter.store(0, Ordering::Relaxed);
        }
        let mut cursor = seek(&state, &id);
        let mut table = state.table(&mut cursor, &id, BIG).unwrap();
        change(&mut table);
        let changes = table.column.before.len();
        match undo {
            true => state.rollback(cursor),
            false => state.commit(cursor),
        }
        assert!(count(&COMPARED) <= 20, "only what has the same half of a hash is compared");
        (count(&HASHED), count(&DROPPED), changes, state.wheel.len())
    };
    let all = ENTRIES as usize;
    for undo in [true, false] {
        // The key that was there stays; the value and the other key go.
        let cost = costs(&|table| _ = table.insert(Counted(7), Counted(0)), undo);
        assert_eq!(cost, (1, 2, 2, all), "replaced, undone: {undo}");
        let cost = costs(&|table| _ = table.insert(Counted(ENTRIES), Counted(0)), undo);
        let (dropped, items) = if undo { (2, all) } else { (0, all + 1) };
        assert_eq!(cost, (1, dropped, 2, items), "inserted, undone: {undo}");
        let cost = costs(&|table| _ = table.remove(&Counted(ENTRIES - 1)), undo);
        // One more for the key that was asked with.
        let (dropped, items) = if undo { (1, all) } else { (3, all) };
        assert_eq!(cost, (1, dropped, 1, items), "removed, undone: {undo}");
    }
    let cost = costs(&|table| table.clear(), true);
    assert_eq!(cost, (0, 0, 1, all), "cleared and undone");
    let cost = costs(&|table| table.clear(), false);
    assert_eq!(cost, (0, 2 * ENTRIES, 1, 0), "cleared");
    assert_eq!(state.len(), 0);
}

#[test]
fn a_table_that_expires_is_gone_without_being_touched() {
    const LATEST: TableSpec<u64, u64> = TableSpec::new("latest").expiring(after_write(100));
    let mut state = FunctionState::new(&[Declared::new(LATEST)], None);
    let id = Id::new("x");
    for now in 0..100 {
        let mut cursor = seek_at(&state, &id, now);
        let mut table = state.table(&mut cursor, &id, LATEST).unwrap();
        assert!((0..100).all(|key| table.insert(now * 100 + key, key)));
        state.commit(cursor);
    }
    for now in 100..200 {
        let mut cursor = seek_at(&state, &id, now);
        let mut table = state.table(&mut cursor, &id, LATEST).unwrap();
        let left = (199 - now) * 100;
        assert_eq!((table.len() as u64, table.iter().count() as u64), (left, left));
        state.commit(cursor);
        assert!(state.expire(now, 99), "one is left");
        assert!(!state.expire(now, 2));
        assert_eq!(state.wheel.len() as u64, left);
    }
    assert_eq!((state.len(), state.next_expiry()), (0, None));
}

#[test]
fn a_mismatch_of_tables_names_kinds_and_both_types() {
    let mut state = FunctionState::new(&[Declared::new(spec(0)), Declared::new(COUNT)], None);
    let id = Id::new("x");
    let mut cursor = seek(&state, &id);
    let kinds = |state: &str, declared: &str, used: &str| {
        let (state, declared, used) = (state.into(), declared.into(), used.into());
        Reason::StateKind { state, declared, used }
    };
    let as_value: ValueSpec<u64> = ValueSpec::new("ever");
    let mistake = state.get(&cursor, as_value).unwrap_err();
    assert_eq!(*mistake, kinds("ever", "table", "value"));
    let as_table: TableSpec<u64, u64> = TableSpec::new("count");
    let mistake = state.table(&mut cursor, &id, as_table).err().unwrap();
    assert_eq!(*mistake, kinds("count", "value", "table"));
    let misfit = |used: &str| {
        let (declared, used) = ("io.statefun.types/string to rust/u64".into(), used.into());
        Reason::StateType { state: "ever".into(), declared, used }
    };
    let other_key: TableSpec<u64, u64> = TableSpec::new("ever");
    let mistake = state.table(&mut cursor, &id, other_key).err().unwrap();
    assert_eq!(*mistake, misfit("rust/u64 to rust/u64"));
    let other_value: TableSpec<String, String> = TableSpec::new("ever");
    let mistake = state.table(&mut cursor, &id, other_value).err().unwrap();
    assert_eq!(*mistake, misfit("io.statefun.types/string to io.statefun.types/string"));
    let other_time = spec(0).expiring(after_use(7));
    let mistake = state.table(&mut cursor, &id, other_time).err().unwrap();
    let (declared, used) = ("never".into(), "7 ms after read or write".into());
    assert_eq!(*mistake, Reason::StateExpiration { state: "ever".into(), declared, used });
}

//! What a cut costs those who wait for it: nothing takes long, however much state there is.

use std::cell::Cell;

use serde::{Deserialize, Serialize, Serializer};

use super::*;

thread_local! {
    /// How many values were written on this thread.
    static WRITTEN: Cell<usize> = const { Cell::new(0) };
}

fn written<X>(run: impl FnOnce() -> X) -> (X, usize) {
    let before = WRITTEN.get();
    let result = run();
    (result, WRITTEN.get() - before)
}

/// A value that counts how often it is written.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize)]
struct Counted(u64);

impl Serialize for Counted {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        WRITTEN.set(WRITTEN.get() + 1);
        self.0.serialize(serializer)
    }
}

const MANY: u64 = 100_000;
const VALUE: ValueSpec<Counted> = ValueSpec::typed("value", "test/counted");
const TABLE: TableSpec<u64, Counted> = TableSpec::typed("table", "rust/u64", "test/counted");
const BUFFER: BufferSpec<Counted> =
    BufferSpec::typed("buffer", "test/counted").expiring(after_use(1600));

/// Many addresses, and one that keeps much.
fn large() -> (FunctionState, Id) {
    let declared = [Declared::new(VALUE), Declared::new(TABLE), Declared::new(BUFFER)];
    let mut state = FunctionState::new(&declared, None);
    state.keep_cuts(1 << 20);
    for number in 0..MANY {
        let id = Id::from(number);
        let mut cursor = seek(&state, &id);
        state.put(&mut cursor, &id, VALUE, Some(Counted(number))).unwrap();
        state.commit(cursor);
    }
    let id = Id::new("large");
    let mut cursor = seek(&state, &id);
    let mut table = state.table(&mut cursor, &id, TABLE).unwrap();
    (0..MANY).for_each(|number| _ = table.insert(number, Counted(number)));
    state.buffer(&mut cursor, &id, BUFFER).unwrap().extend((0..MANY).map(Counted));
    state.commit(cursor);
    (state, id)
}

/// Writes a cut a little at a time, and says how many values were written.
fn walk_slowly(state: &mut FunctionState, between: &mut dyn FnMut(&mut FunctionState)) -> usize {
    let budget = Budget { units: 100, ..ALL };
    let mut all = 0;
    for calls in 0.. {
        assert!(calls < 3 * MANY, "it comes to an end");
        let mut part = Part::default();
        let (done, count) = written(|| state.walk(&mut { budget }, &mut part).unwrap());
        // The slot of a table, and a value that is read back.
        assert!(count <= budget.units + 1 && part.records.len() <= budget.units, "{count}");
        all += count;
        if done {
            break;
        }
        between(state);
    }
    all
}

#[test]
fn no_call_touches_more_than_its_budget() {
    let (mut state, id) = large();
    let (cut, count) = written(|| state.take_cut(None));
    assert_eq!(count, 0, "a cut is taken at once");
    // One value, one row, and an element behind 100,000 others.
    let change = |state: &mut FunctionState| {
        let mut cursor = seek(state, &id);
        let mut table = state.table(&mut cursor, &id, TABLE).unwrap();
        table.insert(7, Counted(0));
        let mut buffer = state.buffer(&mut cursor, &id, BUFFER).unwrap();
        buffer.append(Counted(0));
        state.put(&mut cursor, &id, VALUE, Some(Counted(0))).unwrap();
        written(|| state.commit(cursor)).1
    };
    assert_eq!(change(&mut state), 1, "only the row was there and is not written again");
    assert_eq!(change(&mut state), 0, "it was kept already");
    let mut cursor = seek(&state, &id);
    state.table(&mut cursor, &id, TABLE).unwrap().clear();
    state.buffer(&mut cursor, &id, BUFFER).unwrap().clear();
    let ((), count) = written(|| state.commit(cursor));
    assert_eq!(count, 0, "what is cleared is put aside");
    let mut invocations = 0;
    let all = walk_slowly(&mut state, &mut |state| {
        invocations += 1;
        assert!(change(state) <= 1);
    });
    assert!(invocations > 1000);
    // All that was there at the cut, but for the row that was kept.
    assert_eq!(all as u64, 3 * MANY - 1);
    state.committed(cut);
}

/// Whatever little was written since is found without a look at all the rest.
#[test]
fn a_delta_costs_what_was_written_and_a_little_for_each_chunk() {
    let (mut state, id) = large();
    store(&mut state, None);
    let mut cursor = seek_at(&state, &id, 1);
    state.table(&mut cursor, &id, TABLE).unwrap().insert(MANY / 2, Counted(0));
    state.buffer(&mut cursor, &id, BUFFER).unwrap().append(Counted(0));
    state.commit(cursor);
    let cut = state.take_cut(Some(1));
    let mut part = Part::default();
    // 25 chunks each of addresses and rows, and the chunks in which something was written: one of
    // rows, and two of slots.
    let budget = Budget { units: 2 * 25 + 3 * 4096, ..ALL };
    let (done, count) = written(|| state.walk(&mut { budget }, &mut part).unwrap());
    assert_eq!((done, count, part.records.len()), (true, 2, 2));
    state.committed(cut);
    // A deadline that reading moves is written without the elements it is of.
    let mut cursor = seek_at(&state, &id, 1000);
    assert_eq!(state.buffer(&mut cursor, &id, BUFFER).unwrap().iter().count() as u64, MANY + 1);
    state.commit(cursor);
    let cut = state.take_cut(Some(2));
    let mut part = Part::default();
    let (done, count) = written(|| state.walk(&mut { budget }, &mut part).unwrap());
    assert_eq!((done, count, part.records.len()), (true, 0, 1));
    state.committed(cut);
}

/// Memory that a cut takes is that of what was overtaken, and it is given back.
#[test]
fn what_was_kept_for_a_walk_is_forgotten_with_it() {
    let (mut state, _) = large();
    for ends in [true, false] {
        let cut = state.take_cut(None);
        for number in 0..1000 {
            let id = Id::from(MANY - 1 - number);
            let mut cursor = seek(&state, &id);
            state.put(&mut cursor, &id, VALUE, Some(Counted(0))).unwrap();
            state.commit(cursor);
        }
        let kept = state.cut_bytes();
        assert!((1000 * 10..1000 * 40).contains(&kept), "{kept}");
        if ends {
            walk_slowly(&mut state, &mut |_| ());
            state.committed(cut);
        } else {
            state.abandoned(cut);
        }
        assert!(state.cuts.as_ref().unwrap().walk.is_none());
        assert_eq!(state.cut_bytes(), 0);
    }
}

/// Without cuts there are no stamps.
#[test]
fn where_no_cuts_are_taken_nothing_is_stamped() {
    let mut state = FunctionState::new(&[Declared::new(VALUE), Declared::new(TABLE)], None);
    let id = Id::new("x");
    let mut cursor = seek(&state, &id);
    state.put(&mut cursor, &id, VALUE, Some(Counted(0))).unwrap();
    state.table(&mut cursor, &id, TABLE).unwrap().insert(1, Counted(0));
    state.commit(cursor);
    assert!(state.columns.iter_mut().all(|column| column.stamps_mut().is_empty()));
    state.keep_cuts(0);
    let mut cursor = seek(&state, &id);
    state.put(&mut cursor, &id, VALUE, Some(Counted(0))).unwrap();
    state.commit(cursor);
    let stamped: Vec<_> =
        state.columns.iter_mut().map(|column| !column.stamps_mut().is_empty()).collect();
    assert_eq!(stamped, [true, false]);
}

//! Cuts of running state: what was stored of each is what there was when it was taken.

mod content;
mod converted;
mod cost;
mod faults;
mod program;
mod stored;

use std::collections::HashSet;

use super::*;
use crate::state::cuts::Without;
use crate::state::record::{Record, Tag};
use content::Failed;
use program::Seen;

/// What one worker wrote of one cut.
#[derive(Clone, Default)]
struct Part {
    headers: Rc<[StateHeader]>,
    records: Vec<(u16, Vec<u8>)>,
}

impl Sink for Part {
    fn put(&mut self, bin: u16, record: &[u8]) {
        self.records.push((bin, record.to_vec()));
    }
}

const ALL: Budget = Budget { units: usize::MAX, bytes: usize::MAX };

/// Takes a cut and writes all of it.
fn store(state: &mut FunctionState, since: Option<u32>) -> Part {
    try_to_store(state, since).unwrap()
}

fn try_to_store(state: &mut FunctionState, since: Option<u32>) -> Result<Part, WriteError> {
    let cut = state.take_cut(since);
    let mut part = Part { headers: state.declared_states(), ..Part::default() };
    match state.walk(&mut { ALL }, &mut part) {
        Ok(is_all) => assert!(is_all),
        Err(error) => {
            state.abandoned(cut);
            return Err(error);
        }
    }
    state.committed(cut);
    Ok(part)
}

impl Part {
    /// Whether no value and no entry is in it twice.
    fn is_frugal(&self) -> bool {
        let mut seen = HashSet::new();
        self.records.iter().all(|(_, record)| {
            let Record { tag, column, id, mut content } = Record::read(record).unwrap();
            let expires = self.headers[column as usize].lifetime_ms > 0;
            if expires && tag == Tag::Entry {
                content.varint().unwrap();
            }
            match tag {
                Tag::Value => seen.insert((column, id, Vec::new())),
                Tag::Entry => seen.insert((column, id, content.with_length().unwrap().to_vec())),
                _ => true,
            }
        })
    }
}

/// Restores a full cut and what follows it, as far as it is of some bins.
fn restore(
    state: &mut FunctionState,
    parts: &[Part],
    is_wanted: impl Fn(u16) -> bool,
    now_ms: u64,
) -> Result<(), RestoreError> {
    for part in parts {
        let restoring: Restoring = state.restore(&part.headers, &Conversions::default(), now_ms)?;
        for (bin, record) in part.records.iter().filter(|(bin, _)| is_wanted(*bin)) {
            restoring.apply(state, *bin, record)?;
        }
    }
    Ok(())
}

#[test]
fn every_cut_of_a_random_program_is_restored_as_it_was() {
    let mut seen = Vec::new();
    for seed in 0..100 {
        let run = program::run(seed, None);
        seen.push(run.unwrap_or_else(|Failed(why)| panic!("seed {seed}: {why}")));
    }
    let total = |count: fn(&Seen) -> u64| seen.iter().map(count).sum::<u64>();
    assert!(total(|seen| seen.full_cuts) > 300, "{}", total(|seen| seen.full_cuts));
    assert!(total(|seen| seen.deltas) > 1000, "{}", total(|seen| seen.deltas));
    assert!(total(|seen| seen.wanted) > 30, "{}", total(|seen| seen.wanted));
    assert!(total(|seen| seen.records) > 50_000, "{}", total(|seen| seen.records));
}

/// The test above would notice if what it is about were not so.
#[test]
fn cuts_are_not_exact_without_what_makes_them_so() {
    for without in
        [Without::Kept, Without::Tombstones, Without::Asides, Without::Pins, Without::Waiting]
    {
        let failed = (0..30).filter(|seed| program::run(*seed, Some(without)).is_err());
        assert!(failed.count() > 10, "without {without:?} most programs should fail");
    }
}

const DECLARED: [ValueSpec<u64>; 2] = [COUNT, ValueSpec::new("total")];

fn counting() -> FunctionState {
    let mut state = FunctionState::new(&DECLARED.map(Declared::new), None);
    state.keep_cuts(1 << 20);
    state
}

fn put(state: &mut FunctionState, number: u64, value: Option<u64>) {
    let id = Id::from(number);
    let mut cursor = seek(state, &id);
    state.put(&mut cursor, &id, COUNT, value).unwrap();
    state.commit(cursor);
}

#[test]
fn a_delta_holds_what_was_written_since_and_nothing_else() {
    let mut state = counting();
    (0..20_000).for_each(|number| put(&mut state, number, Some(number)));
    assert_eq!(store(&mut state, None).records.len(), 20_000);
    assert_eq!(store(&mut state, Some(1)).records.len(), 0);
    put(&mut state, 7, Some(0));
    put(&mut state, 8, None);
    // This one comes and goes, and nobody need ever know.
    put(&mut state, 20_000, Some(0));
    put(&mut state, 20_000, None);
    let cut = state.take_cut(Some(2));
    // Two chunks of the column are passed over as a whole.
    let mut part = Part::default();
    assert!(state.walk(&mut Budget { units: 2 * 4096, ..ALL }, &mut part).unwrap());
    assert_eq!(part.records.len(), 2);
    state.abandoned(cut);
    put(&mut state, 9, Some(0));
    assert_eq!(store(&mut state, Some(2)).records.len(), 3, "what was abandoned is not lost");
    assert_eq!(store(&mut state, Some(4)).records.len(), 0);
}

/// What was in a slot is written when it is taken away, so nothing keeps the slot from being used.
#[test]
fn a_slot_is_used_again_while_the_walk_has_not_come_to_it() {
    for is_full in [true, false] {
        let mut state = counting();
        (0..100).for_each(|number| put(&mut state, number, Some(number)));
        let base = store(&mut state, None);
        put(&mut state, 99, Some(0));
        let cut = state.take_cut(if is_full { None } else { Some(1) });
        let mut part = Part { headers: state.declared_states(), ..Part::default() };
        assert!(!state.walk(&mut Budget { units: 10, ..ALL }, &mut part).unwrap());
        for number in [99, 50, 5] {
            let slot = seek(&state, &Id::from(number)).slot;
            put(&mut state, number, None);
            put(&mut state, 1000 + number, Some(1));
            assert_eq!(seek(&state, &Id::from(1000 + number)).slot, slot);
        }
        assert!(state.walk(&mut { ALL }, &mut part).unwrap());
        state.committed(cut);
        let mut restored = counting();
        let parts = if is_full { vec![part] } else { vec![base, part] };
        restore(&mut restored, &parts, |_| true, 0).unwrap();
        for number in 0..2000 {
            let cursor = seek(&restored, &Id::from(number));
            let was = (number < 100).then_some(number % 99);
            let was = if number == 0 { Some(0) } else { was };
            assert_eq!(restored.get(&cursor, COUNT).unwrap().copied(), was, "{number}");
        }
    }
}

/// The list that records refer to is shared with who asked for it, and another one after a registration.
#[test]
fn what_records_refer_to_is_what_there_was_when_the_cut_was_taken() {
    let mut state = FunctionState::new(&DECLARED.map(Declared::new), Some(10));
    state.keep_cuts(1000);
    let before = state.declared_states();
    assert!(Rc::ptr_eq(&before, &state.declared_states()), "nothing is copied");
    let id = Id::new("x");
    for ends_well in [false, true] {
        let mut cursor = seek(&state, &id);
        state.put(&mut cursor, &id, ValueSpec::<u64, &str>::new("new"), Some(1)).unwrap();
        match ends_well {
            true => state.commit(cursor),
            false => state.rollback(cursor),
        }
        assert_eq!(state.declared_states().len(), if ends_well { 3 } else { 2 });
    }
    assert_eq!(before.len(), 2);
}

#[test]
fn a_record_in_another_bin_is_damaged() {
    let mut state = counting();
    put(&mut state, 1, Some(1));
    let part = store(&mut state, None);
    let (bin, record) = &part.records[0];
    let restoring = state.restore(&part.headers, &Conversions::default(), 0).unwrap();
    let error = restoring.apply(&mut state, bin ^ 1, record).unwrap_err();
    assert_eq!(error.to_string(), "a record is damaged: it is of another bin");
    restoring.apply(&mut state, *bin, record).unwrap();
}

#[test]
fn too_many_tombstones_ask_for_a_full_cut() {
    let mut state = FunctionState::new(&DECLARED.map(Declared::new), None);
    state.keep_cuts(1000);
    (0..100).for_each(|number| put(&mut state, number, Some(number)));
    store(&mut state, None);
    (0..50).for_each(|number| put(&mut state, number, None));
    assert!((500..1000).contains(&state.cut_bytes()), "tombstones are memory");
    let cut = state.take_cut(Some(1));
    // These are lost, but those that the open delta needs are not.
    assert!(!state.wants_full());
    (50..100).for_each(|number| put(&mut state, number, None));
    assert!(state.wants_full());
    let mut part = Part::default();
    assert!(state.walk(&mut { ALL }, &mut part).unwrap());
    assert_eq!(part.records.len(), 50);
    state.committed(cut);
    assert!(state.wants_full());
    let full = store(&mut state, None);
    assert_eq!((full.records.len(), state.wants_full()), (0, false));
    put(&mut state, 3, Some(3));
    assert_eq!(store(&mut state, Some(3)).records.len(), 1);
}

//! Cuts of a running dispatcher: what was stored of each is what there was when it was taken.

mod cost;
mod delayed;
mod faults;
mod functions;
mod program;
mod stored;
mod worker;

use std::panic::{UnwindSafe, catch_unwind};

use crate::dispatch::cuts::Without;
use crate::dispatch::{CutSink, RecordKind, TypeIndex};
use crate::state::Budget;
use program::Seen;

/// Numbers by chance, from a seed.
fn draws(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5555;
    move |below| {
        random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (random >> 33) % below
    }
}

/// Why a cut was not restored as it was.
#[derive(Debug)]
struct Failed(String);

const ALL: Budget = Budget { units: usize::MAX, bytes: usize::MAX };

/// What one worker wrote of one cut.
#[derive(Clone, Default)]
struct Part {
    records: Vec<Written>,
}

#[derive(Clone)]
struct Written {
    kind: RecordKind,
    bin: u16,
    types: Vec<TypeIndex>,
    record: Vec<u8>,
}

impl CutSink for Part {
    fn put(&mut self, kind: RecordKind, bin: u16, types: &[TypeIndex], record: &[&[u8]]) {
        let (types, record) = (types.to_vec(), record.concat());
        self.records.push(Written { kind, bin, types, record });
    }
}

/// What comes of a seed, which is named if it is a failure or a panic.
fn of_seed<X>(seed: u64, run: impl Fn() -> Result<X, Failed> + UnwindSafe) -> X {
    match catch_unwind(run) {
        Ok(Ok(seen)) => seen,
        Ok(Err(Failed(why))) => panic!("seed {seed}: {why}"),
        Err(_) => panic!("seed {seed}: it panicked, as is said above"),
    }
}

#[test]
fn every_cut_of_a_random_program_is_restored_as_it_was() {
    let mut seen = Vec::new();
    for seed in 0..100 {
        seen.push(of_seed(seed, || program::run(seed, None)));
    }
    let total = |count: fn(&Seen) -> u64| seen.iter().map(count).sum::<u64>();
    assert!(total(|seen| seen.full_cuts) > 200, "{}", total(|seen| seen.full_cuts));
    assert!(total(|seen| seen.deltas) > 400, "{}", total(|seen| seen.deltas));
    assert!(total(|seen| seen.abandoned) > 200, "{}", total(|seen| seen.abandoned));
    assert!(total(|seen| seen.wanted) > 150, "{}", total(|seen| seen.wanted));
    assert!(total(|seen| seen.failed) > 5, "{}", total(|seen| seen.failed));
    assert!(total(|seen| seen.restarts) > 300, "{}", total(|seen| seen.restarts));
    assert!(total(|seen| seen.again) > 2_000, "{}", total(|seen| seen.again));
    assert!(total(|seen| seen.logged) > 20_000, "{}", total(|seen| seen.logged));
    assert!(total(|seen| seen.popped) > 2_000, "{}", total(|seen| seen.popped));
    assert!(total(|seen| seen.walked) > 20_000, "{}", total(|seen| seen.walked));
    for kind in RecordKind::ALL {
        let count = |seen: &Seen| seen.records[kind.number() as usize];
        let records: u64 = seen.iter().map(count).sum();
        assert!(records > 500, "{records} of {kind}");
    }
}

/// The test above would notice if what it is about were not so.
#[test]
fn cuts_are_not_exact_without_what_makes_them_so() {
    for without in [Without::Kept, Without::Tombstones, Without::Marks] {
        // What is not marked may not be there either.
        let run = |seed| catch_unwind(|| program::run(seed, Some(without)));
        let failed = (0..20).filter(|seed| !matches!(run(*seed), Ok(Ok(_)))).count();
        assert!(failed > 10, "without {without:?} {failed} programs fail");
    }
}

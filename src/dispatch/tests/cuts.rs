//! Cuts of a running dispatcher: what was stored of each is what there was when it was taken.

mod cost;
mod delayed;
mod faults;
mod stored;

use crate::dispatch::{CutSink, RecordKind, TypeIndex};
use crate::state::Budget;

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

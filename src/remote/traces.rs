//! Numbers of traces and of calls in them, which nobody else has made.

use std::hash::{BuildHasher, RandomState};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::dispatch::Traced;
use crate::trace::TraceContext;

/// The context that a call is made with, if it is with one: its parent is the call itself.
pub(super) fn context(traced: Traced) -> Option<TraceContext> {
    match traced {
        Traced::No => None,
        Traced::Own => {
            let trace_id = u128::from(number()) << 64 | u128::from(number());
            TraceContext::new(trace_id, number(), true)
        }
        Traced::In(context) => Some(context.called_by(number())),
    }
}

/// A number that is not zero: one after the other of a row that begins, in each process, where chance says.
fn number() -> u64 {
    static FIRST: OnceLock<u64> = OnceLock::new();
    static NEXT: AtomicU64 = AtomicU64::new(0);
    // Its keys come from the system's randomness.
    let first = *FIRST.get_or_init(|| RandomState::new().hash_one(std::process::id()));
    loop {
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let number = scattered(first.wrapping_add(next.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        if number != 0 {
            return number;
        }
    }
}

/// SplitMix64, which gives another number for each.
fn scattered(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

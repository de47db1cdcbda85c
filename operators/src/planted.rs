//! Bugs that are planted, so that tests can be seen to fail: only in builds with `--cfg statefun_planted`,
//! which no normal build has.
//!
//! `STATEFUN_PLANTED` names the one that is there. This file knows no loop.

use std::cell::Cell;
use std::sync::OnceLock;

fn is(bug: &str) -> bool {
    static PLANTED: OnceLock<Option<String>> = OnceLock::new();
    let planted = PLANTED.get_or_init(|| std::env::var("STATEFUN_PLANTED").ok());
    planted.as_deref() == Some(bug)
}

/// How many cuts the sender of a message had taken. `no-log`: so many that nothing is white.
pub(crate) fn sender(cuts: u64) -> u64 {
    if is("no-log") { u64::MAX } else { cuts }
}

/// The cuts after which a worker sends from now on. `no-downgrade`: it may still send before all of them.
pub(crate) fn after(cuts: u64) -> u64 {
    if is("no-downgrade") { 0 } else { cuts }
}

/// The lowest count that can still arrive. `no-wait`: none is waited for.
pub(crate) fn lowest(count: Option<u64>) -> Option<u64> {
    count.filter(|_| !is("no-wait"))
}

/// How many messages of a time may wait when it is over. `released-early`: one.
pub(crate) fn released_early() -> Option<u64> {
    is("released-early").then_some(1)
}

/// Whether what is held is released by its ingress time. `released-by-time`: what is not after a time of the cut's
/// goes with it.
pub(crate) fn releases_by_time() -> bool {
    is("released-by-time")
}

/// Whether a message for this worker goes by way of the edge. `overtaken`: every other one does.
pub(crate) fn takes_the_edge() -> bool {
    thread_local!(static SENT: Cell<u64> = const { Cell::new(0) });
    is("overtaken") && {
        SENT.set(SENT.get() + 1);
        SENT.get().is_multiple_of(2)
    }
}

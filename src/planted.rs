//! Bugs and sudden ends that are planted, so that tests can be seen to fail and programs to survive: only in
//! builds with `--cfg statefun_planted`, which no normal build has.
//!
//! `STATEFUN_PLANTED` names the bug that is there, or says `kill-at=STEP:N`: the process ends, without a word,
//! when it comes to a step for the N-th time. This file knows nothing of what is done wrong.

use std::process::abort;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

fn planted() -> Option<&'static str> {
    static PLANTED: OnceLock<Option<String>> = OnceLock::new();
    PLANTED.get_or_init(|| std::env::var("STATEFUN_PLANTED").ok()).as_deref()
}

/// Whether the bug of a name is planted.
pub(crate) fn is(bug: &str) -> bool {
    planted() == Some(bug)
}

/// The program has come to a step, which may be its last.
pub(crate) fn reach(step: &str) {
    static TIMES: AtomicU64 = AtomicU64::new(0);
    let Some((at, last)) =
        planted().and_then(|planted| planted.strip_prefix("kill-at=")?.split_once(':'))
    else {
        return;
    };
    let last: u64 = last.parse().expect("it says the how manieth time is the last");
    if at == step && TIMES.fetch_add(1, Relaxed) + 1 == last {
        abort();
    }
}

//! What the library promises holds in some hundred simulated runs, with everything in them that can happen.
//! `cargo run --release --example simulate` runs as many as one likes.

#[path = "../examples/simulate/functions.rs"]
mod functions;
#[path = "../examples/simulate/post.rs"]
mod post;
#[path = "../examples/simulate/ways.rs"]
mod ways;

use std::time::Instant;

/// The seeds of one of the tests, which run side by side.
const SEEDS: u64 = 100;

fn holds(first: u64) {
    let began = Instant::now();
    let report = post::post().messages(25).run(first..first + SEEDS);
    println!("{report}, in {:?}", began.elapsed());
    assert!(report.messages > 150 * SEEDS && report.cuts > SEEDS, "{report}");
    assert!(report.crashes > SEEDS && report.faults > SEEDS, "{report}");
}

#[test]
fn what_is_promised_holds_for_some_seeds() {
    holds(0);
}

#[test]
fn what_is_promised_holds_for_some_others() {
    holds(1_000_000);
}

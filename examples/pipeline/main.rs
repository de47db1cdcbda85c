//! Functions of several crates in the middle of an ordinary dataflow, on two processes.
//!
//! `cargo run --release --example pipeline`, or with timely's own options one process as these say, as `-- -w 2`
//!
//! Real calls are read and parsed by ordinary operators. The program's own function hands each on to functions
//! of two bundles, each with messages and egresses of its own: one knows how long a phone has been used, and
//! so its level, the other whom it speaks with most often. Both egresses are differential collections, and are
//! joined with a table of tariffs and with each other: what each phone is offered. The table changes now and
//! then, levels and favourites do all the time, and only what changes is computed anew.
//!
//! After each month the offers must be those that a count of all calls so far comes to.
//!
//! The order of reading: `metering.rs`, `contacts.rs`, `functions.rs`, `pipeline.rs`, `tariffs.rs`, `model.rs`.

mod calls;
mod contacts;
mod functions;
mod metering;
mod model;
mod pipeline;
mod processes;
mod tariffs;

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;

use metering::Level;
use pipeline::{Change, Offer};

/// How many processes there are where timely's options do not say it.
const PROCESSES: usize = 2;

fn main() -> ExitCode {
    let ended = match std::env::args().len() {
        1 => processes::run(PROCESSES).map_err(|error| error.to_string()),
        _ => work(),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("pipeline: {why}");
            ExitCode::FAILURE
        }
    }
}

/// Is one of the processes, or the only one.
fn work() -> Result<(), String> {
    let workers = timely_statefun::execute_from_args(std::env::args(), |worker| {
        let month_over = |month, changes: &[Change]| {
            let offers = offers(changes, month);
            let premium = offers.iter().filter(|offer| offer.level == Level::Premium).count();
            let phones = offers.len();
            println!(
                "after month {month:>2}: {phones} phones have an offer, {premium} a premium one"
            );
        };
        let found = pipeline::run(worker, month_over).map_err(|stopped| stopped.to_string())?;
        Ok::<_, String>((found, worker.peers()))
    });
    for worker in workers.map_err(|error| error.to_string())? {
        // Worker 0 was told of everything, and one process has it.
        if let (Some(changes), peers) = worker? {
            report(&changes, peers)?;
        }
    }
    Ok(())
}

/// The offers after a month: each is there once.
fn offers(changes: &[Change], month: u64) -> BTreeSet<Offer> {
    let mut counts = BTreeMap::<Offer, isize>::new();
    for (offer, _, change) in changes.iter().filter(|(_, when, _)| *when <= month) {
        *counts.entry(*offer).or_default() += change;
    }
    counts.retain(|_, count| *count != 0);
    counts.iter().for_each(|(offer, count)| assert_eq!(*count, 1, "{offer:?} in month {month}"));
    counts.into_keys().collect()
}

/// Prints what was found, if it is right in each month.
fn report(changes: &[Change], workers: usize) -> Result<(), String> {
    let expected = model::offers();
    for (month, expected) in (0..).zip(&expected) {
        let found = offers(changes, month);
        if let Some(wrong) = found.symmetric_difference(expected).next() {
            return Err(match found.contains(wrong) {
                true => format!("after month {month}, {wrong:?} was found, and is not so"),
                false => format!("after month {month}, {wrong:?} was not found"),
            });
        }
    }
    let last = expected.last().ok_or("there are no calls")?;
    println!("{:>8} {:>6} {:>14} {:>16}", "level", "cents", "phones", "mutual favourites");
    for level in [Level::Basic, Level::Plus, Level::Premium] {
        let of_level: Vec<_> = last.iter().filter(|offer| offer.level == level).collect();
        let is_mutual = |offer: &&&Offer| {
            let back = (offer.favourite, offer.phone);
            last.iter().any(|other| (other.phone, other.favourite) == back)
        };
        let mutual = of_level.iter().filter(is_mutual).count();
        let cents = of_level.first().map_or(0, |offer| offer.cents);
        println!("{:>8} {cents:>6} {:>14} {mutual:>16}", format!("{level:?}"), of_level.len());
    }
    println!(
        "{} changes in {} months on {workers} workers: {} offers, in each month as counting all \
         calls finds",
        changes.len(),
        expected.len(),
        last.len()
    );
    Ok(())
}

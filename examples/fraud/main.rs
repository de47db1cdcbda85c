//! Finds transactions that look like fraud: the application on the product page of Apache Flink's Stateful
//! Functions.
//!
//! `cargo run --release --example fraud`, or `-- -w 2` for two workers
//!
//! A transaction is an address. It asks its account how many frauds were confirmed in the last thirty days, and
//! its merchant what a third party has to say; the third party takes its time, and fails now and then, so it is
//! asked again. When both answers are there, in whatever order, they go to a model, and what is too
//! suspicious is an alert. Thirty days pass in no time: the program turns the clock.
//!
//! The events then go through a plain loop, which must find the same alerts: all of them, once each, with the
//! same counts, scores and attempts.
//!
//! The order of reading: `functions.rs`, `service.rs`, `pipeline.rs`, `reference.rs`, `events.rs`.

mod events;
mod functions;
mod pipeline;
mod reference;
mod service;

use std::collections::BTreeMap;

use functions::{ATTEMPTS_MAX, Alert};

/// How often the program says how far it is.
const DAYS_BETWEEN_LINES: u64 = 30;
/// Lines in the table of accounts.
const TABLE_LINES: usize = 5;

fn main() {
    let runtime = tokio::runtime::Runtime::new().expect("the system lets threads start");
    let handle = runtime.handle().clone();
    let workers = timely_statefun::execute_from_args(std::env::args(), move |worker| {
        let evening = |day: u64, alerts| {
            if (day + 1).is_multiple_of(DAYS_BETWEEN_LINES) {
                println!("after day {:>3}: {alerts} alerts", day + 1);
            }
        };
        let found = pipeline::run(worker, &events::days(), handle.clone(), evening);
        found.map_err(|stopped| stopped.to_string())
    });
    for found in workers.expect("no worker fails") {
        // Worker 0 was told of everything, and one process has it.
        found.expect("no function fails").into_iter().for_each(check);
    }
}

/// Prints what was found, if it is right.
fn check(mut found: Vec<Alert>) {
    let days = events::days();
    let mut expected = reference::alerts(&days);
    found.sort_unstable();
    expected.sort_unstable();
    if let Some((found, expected)) = found.iter().zip(&expected).find(|(found, due)| found != due) {
        panic!("{found:?} was found, and {expected:?} was to be");
    }
    assert_eq!(found.len(), expected.len(), "alerts that were found, and that were to be");

    let mut by_account = BTreeMap::<u64, Vec<&Alert>>::new();
    found.iter().for_each(|alert| by_account.entry(alert.account).or_default().push(alert));
    let mut accounts: Vec<_> = by_account.into_iter().collect();
    accounts.sort_by_key(|(account, alerts)| (std::cmp::Reverse(alerts.len()), *account));
    println!("{:>8} {:>8} {:>16}", "account", "alerts", "frauds at most");
    for (account, alerts) in accounts.iter().take(TABLE_LINES) {
        let frauds = alerts.iter().map(|alert| alert.features.frauds).max().unwrap_or(0);
        println!("{account:>8} {:>8} {frauds:>16}", alerts.len());
    }
    let count = |holds: fn(&Alert) -> bool| found.iter().filter(|alert| holds(alert)).count();
    let again = count(|alert| alert.features.merchant.attempts > 1);
    let unknown = count(|alert| alert.features.merchant.score.is_none());
    println!("of {} alerts, {again} were there after the third party had failed,", found.len());
    println!("{unknown} of them although it did {ATTEMPTS_MAX} times");
    let transactions: usize = days.iter().map(|day| day.transactions.len()).sum();
    println!(
        "{transactions} transactions in {} days: {} alerts, as a plain loop finds",
        days.len(),
        found.len()
    );
}

//! Runs a program with most of what functions can do, again and again, on one to four workers that get on in
//! any order, with slow messages, failing calls, a failing store, and ends in the middle; and checks after each
//! run that what must be true is true. A seed decides all of it.
//!
//! `cargo run --release --example simulate -- --seed 0 --seeds 10000` runs the seeds 0 to 9,999 (`--help` for all
//! options). Of the workers one runs at a time, so `taskset -c 0 cargo run ...` is twice as fast, and
//! several processes share a machine well. A seed that fails is made as small as it can be, and fails again whenever it is run.

mod functions;
mod post;
mod ways;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use timely_statefun::testing::Report;

/// So many seeds are run if nobody says otherwise.
const SEEDS: u64 = 500;
/// Messages of the ingress of each run if nobody says otherwise.
const MESSAGES: usize = 25;
/// What they lead to, on average.
const MESSAGES_EACH: u64 = 200;
/// At most one line about progress in each of these.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);

struct Arguments {
    seed: u64,
    seeds: u64,
    messages: usize,
}

fn main() -> ExitCode {
    let arguments = match arguments() {
        Ok(Some(arguments)) => arguments,
        Ok(None) => return ExitCode::SUCCESS,
        Err(wrong) => {
            eprintln!("simulate: {wrong} (--help lists the options)");
            return ExitCode::from(2);
        }
    };
    let Arguments { seed, seeds, messages: drawn } = arguments;
    // What a panic says is part of what is told of its seed.
    std::panic::set_hook(Box::new(|_| ()));
    let by_arrival = post::post().messages(drawn);
    let unheld = post::unheld().messages(drawn);
    let by_time = post::in_time_order().messages(drawn);
    let (began, mut told) = (Instant::now(), Instant::now());
    let mut report = Report::default();
    let mut failed = 0_u64;
    for seed in seed..seed.saturating_add(seeds) {
        // One run in four handles messages in the order of time, and one holds nothing.
        let simulation = match seed % 4 {
            3 => &by_time,
            2 => &unheld,
            _ => &by_arrival,
        };
        match simulation.try_seed(seed) {
            Ok(one) => report += one,
            Err(why) => {
                failed += 1;
                eprintln!("{why}");
                break;
            }
        }
        if told.elapsed() >= PROGRESS_EVERY {
            told = Instant::now();
            let rate = report.seeds as f64 / began.elapsed().as_secs_f64();
            eprintln!("seed {seed}: {rate:.0} seeds/s; {report}");
        }
    }
    let rate = report.seeds as f64 / began.elapsed().as_secs_f64();
    println!("{report}, {rate:.0} seeds/s");
    if failed > 0 {
        return ExitCode::FAILURE;
    }
    // Runs in which too little happens show too little.
    let Report { seeds, messages, cuts, crashes, faults, .. } = report;
    let is_enough = messages >= MESSAGES_EACH * seeds && cuts.min(crashes).min(faults) >= seeds;
    if !is_enough && seeds >= SEEDS && drawn == MESSAGES {
        println!("nothing was wrong, but on average too little happened in a run");
        return ExitCode::FAILURE;
    }
    println!("nothing was wrong");
    ExitCode::SUCCESS
}

fn arguments() -> Result<Option<Arguments>, String> {
    let mut options = getopts::Options::new();
    options.optopt("", "seed", "the first seed (default 0)", "S");
    options.optopt("", "seeds", &format!("how many seeds (default {SEEDS})"), "N");
    let messages = format!("messages of the ingress of each run (default {MESSAGES})");
    options.optopt("", "messages", &messages, "N");
    options.optflag("", "help", "prints this");
    let given = options.parse(std::env::args().skip(1)).map_err(|wrong| wrong.to_string())?;
    if given.opt_present("help") {
        println!("{}", options.usage("simulate: runs that a seed decides"));
        return Ok(None);
    }
    if let Some(other) = given.free.first() {
        return Err(format!("what is \"{other}\"?"));
    }
    let number = |name: &str, default: u64| match given.opt_str(name) {
        None => Ok(default),
        Some(text) => text.parse().map_err(|_| format!("--{name} {text} is no number")),
    };
    let (seed, seeds) = (number("seed", 0)?, number("seeds", SEEDS)?);
    let messages = number("messages", MESSAGES as u64)?;
    let messages = usize::try_from(messages).map_err(|_| format!("{messages} are too many"))?;
    Ok(Some(Arguments { seed, seeds, messages }))
}

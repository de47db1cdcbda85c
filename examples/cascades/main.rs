//! Finds cascades of phone calls: calls that lead to calls, in real records.
//!
//! `cargo run --release --example cascades -- -w 2` (`-- --help` for all options)
//!
//! A call leads to another when its callee places that one within a window after hanging up. A
//! cascade is a set of at least two calls that are connected in this way. Lines are parsed and
//! routed by ordinary timely operators; a function for each phone finds the links, and a function
//! for each call finds its cascade by telling its neighbours the smallest call it has heard of, round
//! and round the loop until nobody learns anything new. What they find leaves as a differential
//! collection, in which the sizes of cascades are maintained while calls still come in.
//!
//! The order of reading: `functions.rs`, `pipeline.rs`, `input.rs`.

mod functions;
mod input;
mod pipeline;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use pipeline::{Event, Outcome, Pace};

const CALLS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/calls.txt");
const WINDOW_SECONDS: u64 = 3600;
/// Lines in the table of the largest cascades.
const TABLE_LINES: usize = 8;
/// At most one line about progress in each of these.
const PROGRESS_EVERY: Duration = Duration::from_millis(50);

struct Arguments {
    input: PathBuf,
    window: u64,
    timely: timely::Config,
}

fn main() -> ExitCode {
    let arguments = match arguments() {
        Ok(Some(arguments)) => arguments,
        Ok(None) => return ExitCode::SUCCESS,
        Err(wrong) => {
            eprintln!("cascades: {wrong} (--help lists the options)");
            return ExitCode::from(2);
        }
    };
    let Arguments { input, window, timely } = arguments;
    let workers = timely_statefun::execute(timely, move |worker| {
        let (lines, pace) = (lines(&input), Pace::default());
        let outcome = pipeline::run(worker, lines, window, pace, observer());
        outcome.map_err(|stopped| stopped.to_string())
    });
    // Nothing is printed before all workers of this process are known to have done their part.
    let workers = workers.map_err(|error| error.to_string());
    match workers.and_then(|outcomes| outcomes.into_iter().collect::<Result<Vec<_>, String>>()) {
        Ok(outcomes) => {
            // Only worker 0 has an outcome, so one process of all prints one.
            outcomes.iter().flatten().for_each(print);
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("cascades: {why}");
            ExitCode::FAILURE
        }
    }
}

/// The command line; `None` if it asks for help, which was given.
fn arguments() -> Result<Option<Arguments>, String> {
    let mut options = getopts::Options::new();
    options.optopt("", "input", "call records (default: the ones that come with this)", "FILE");
    let window =
        format!("how long after its end a call leads to others (default {WINDOW_SECONDS})");
    options.optopt("", "window", &window, "SECONDS");
    options.optflag("", "help", "print this");
    timely::Config::install_options(&mut options);
    let matches = options.parse(std::env::args().skip(1)).map_err(|wrong| wrong.to_string())?;
    if matches.opt_present("help") {
        let brief = "Finds cascades of phone calls.\n\n\
            A line of the input is a call, \"caller callee start duration\", with the start and the\n\
            duration in whole seconds, sorted by start. Lines that are empty or begin with # are\n\
            skipped. Lines that are not calls, or start before a line above them, are reported with\n\
            their numbers and left out.\n\n\
            Usage: cascades [OPTIONS]";
        println!("{}", options.usage(brief).trim_end());
        return Ok(None);
    }
    if let Some(extra) = matches.free.first() {
        return Err(format!("unexpected argument \"{extra}\""));
    }
    let input = PathBuf::from(matches.opt_str("input").unwrap_or_else(|| CALLS.to_owned()));
    // Looked at now, so that a wrong name is a message and not the end of a worker.
    drop(
        input::lines(&input)
            .map_err(|why| format!("cannot read \"{}\": {why}", input.display()))?,
    );
    let window = match matches.opt_str("window") {
        None => WINDOW_SECONDS,
        Some(text) => {
            text.parse().map_err(|_| format!("\"{text}\" is not a window in whole seconds"))?
        }
    };
    Ok(Some(Arguments { input, window, timely: timely::Config::from_matches(&matches)? }))
}

/// The lines of the input.
fn lines(path: &Path) -> impl Iterator<Item = Vec<u8>> + use<> {
    // A worker that merely stopped reading would look like one that is done, and the others would
    // report a result that lacks its lines.
    let name = path.display().to_string();
    let give_up = move |why: std::io::Error| -> ! {
        eprintln!("cascades: cannot read \"{name}\": {why}");
        std::process::exit(1)
    };
    match input::lines(path) {
        Ok(lines) => lines.map(move |line| line.unwrap_or_else(|why| give_up(why))),
        Err(why) => give_up(why),
    }
}

/// Reports what happens while the job runs.
fn observer() -> impl Fn(Event<'_>) + 'static {
    let last = std::cell::Cell::new(Instant::now());
    move |event| match event {
        Event::Resumed { cut, line } => println!("resumed from cut {cut} with line {line}"),
        Event::Saved { name, cut } => println!("savepoint {name}: {cut:?}"),
        Event::Rejected(rejected) => eprintln!("line {}: {}", rejected.line, rejected.wrong),
        Event::Progress { lines, findings } => {
            if last.get().elapsed() >= PROGRESS_EVERY {
                last.set(Instant::now());
                eprintln!("after {lines} lines: {}", findings.summary());
            }
        }
    }
}

fn print(outcome: &Outcome) {
    let Outcome { calls, findings, work } = outcome;
    let mut largest: Vec<_> = findings.cascades.keys().collect();
    largest.sort_by_key(|(first, size)| (std::cmp::Reverse(*size), *first));
    println!("{:>10} {:>13}", "calls", "first on line");
    for (first, size) in largest.iter().take(TABLE_LINES) {
        println!("{size:>10} {first:>13}");
    }
    println!("{calls} calls read, {} lines rejected", findings.rejected);
    println!("{} messages delivered, {} between workers", work.delivered, work.crossed);
    println!("at most {} calls kept by one phone", work.kept_max);
    println!("{}", findings.summary());
}

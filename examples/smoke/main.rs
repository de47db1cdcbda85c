//! The smoke test of Apache Flink's Stateful Functions: random commands for instances that follow them,
//! after which every instance must have counted exactly what it was told to count.
//!
//! `cargo run --release --example smoke -- -w 2` (`-- --help` for all options)
//!
//! A message is a tree of commands: count one more, send these commands on, send them in a millisecond
//! or when some operation is over, take a sending back. What it all adds up to is known from the
//! commands alone. The program sends them, asks every instance for its count until nothing is
//! missing any more, and fails where a count is too large, or stays too small, or more was sent than
//! there was to send. Messages are those of StateFun's own smoke test, byte for byte, so `--remote`
//! drives its command interpreters, in whatever language, as well. `--serve` is the other side: it serves the
//! interpreter of this program to others.
//!
//! The order of reading: `commands.rs`, `interpreter.rs`, `generator.rs`, `tracker.rs`,
//! `verification.rs`, `pipeline.rs`, `protobuf.rs`.

mod commands;
mod generator;
mod interpreter;
mod pipeline;
mod protobuf;
mod service;
mod tracker;
mod verification;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use generator::Plan;
use interpreter::Interpreter;
use pipeline::{Break, Outcome, Work};
use timely_statefun::{
    Endpoint, SnapshotCounts, SnapshotOptions, SnapshotPolicy, SnapshotStore, Snapshots,
};
use tracker::Tracker;

const SEED: u64 = 1;
const MESSAGES: u64 = 100_000;
const INSTANCES: u64 = 1000;
const DEPTH: u64 = 10;
const INTERVAL_MS: u64 = 100;

enum Task {
    /// Sends commands, and checks what comes of them.
    Run(Box<Arguments>),
    /// Serves the interpreter at an address.
    Serve(String),
}

struct Arguments {
    plan: Plan,
    interpreter: Interpreter,
    broken: Option<Break>,
    snapshots: Option<SnapshotStore>,
    policy: SnapshotPolicy,
    timely: timely::Config,
}

fn main() -> ExitCode {
    let arguments = match arguments() {
        Ok(Some(Task::Run(arguments))) => *arguments,
        Ok(Some(Task::Serve(place))) => return service::serve(&place),
        Ok(None) => return ExitCode::SUCCESS,
        Err(wrong) => {
            eprintln!("smoke: {wrong} (--help lists the options)");
            return ExitCode::from(2);
        }
    };
    let Arguments { plan, interpreter, broken, snapshots, policy, timely } = arguments;
    let runtime = tokio::runtime::Runtime::new().expect("the system lets threads start");
    let handle = runtime.handle().clone();
    if let Err(wrong) = interpreter::functions(&interpreter, handle.clone()).check() {
        eprintln!("smoke: {wrong}");
        return ExitCode::from(2);
    }
    let expected = Arc::new(Tracker::of(&plan));
    let Plan { messages, instances, embedded, .. } = plan;
    let increments = expected.increments();
    let summary =
        format!("smoke: {instances} instances, {messages} messages, {increments} increments");
    let what = if embedded { "messages" } else { "messages and answers" };
    let workers = timely_statefun::execute(timely, move |worker| {
        let functions = interpreter::functions(&interpreter, handle.clone());
        let snapshots = match &snapshots {
            Some(store) => {
                let begun = Snapshots::begin(worker, store, &handle, &policy);
                Some(begun.map_err(|error| error.to_string())?)
            }
            None => None,
        };
        if let Some(snapshots) = snapshots.as_ref().filter(|_| worker.index() == 0) {
            resumed(snapshots);
        }
        let outcome = pipeline::run(worker, functions, snapshots, &plan, &expected, broken);
        outcome.map_err(|failure| failure.to_string())
    });
    // Nothing is printed before all workers of this process are known to have done their part.
    let workers = workers.map_err(|error| error.to_string());
    match workers.and_then(|outcomes| outcomes.into_iter().collect::<Result<Vec<_>, String>>()) {
        Ok(outcomes) => {
            // Only worker 0 has an outcome, so one process of all prints one.
            for Outcome { work, took } in outcomes.iter().flatten() {
                let Work { delivered, crossed, rounds, .. } = work;
                let rate = messages as f64 / took.as_secs_f64();
                println!(
                    "{delivered} {what} delivered, {crossed} messages between workers, in {took:.1?}"
                );
                println!("each instance was asked for its count this often: {rounds}");
                println!("{summary}, all counts exact, {rate:.0} messages/s");
            }
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("smoke: {why}");
            ExitCode::FAILURE
        }
    }
}

/// Says what a run goes on from.
fn resumed(snapshots: &Snapshots<u64>) {
    let Some(restored) = snapshots.restored() else { return };
    let SnapshotCounts { queued, logged, in_flight, operations, delayed, .. } = restored.counts;
    println!(
        "resumed from cut {}: {queued} messages queued, {logged} logged, {in_flight} in flight, \
         {operations} operations, {delayed} delayed",
        restored.cut
    );
}

/// The command line; `None` if it asks for help, which was given.
fn arguments() -> Result<Option<Task>, String> {
    let mut options = getopts::Options::new();
    let default = |what: &str, default: u64| format!("{what} (default {default})");
    options.optopt("", "seed", &default("what chance begins with", SEED), "N");
    options.optopt("", "messages", &default("how many messages enter", MESSAGES), "N");
    options.optopt("", "instances", &default("how many instances there are", INSTANCES), "N");
    options.optopt("", "depth", &default("how deep commands are within commands", DEPTH), "N");
    let remote = "an interpreter that is served elsewhere, such as http://localhost:8000/ \
        (default: one that is part of this program)";
    options.optopt("", "remote", remote, "URL");
    options.optflag("", "grpc", "speak gRPC with the interpreter that is served elsewhere");
    let operations =
        "the interpreter that is served elsewhere is one of --serve, which does all there is to do";
    options.optflag("", "operations", operations);
    let serve = "serve the interpreter at an address such as 127.0.0.1:0, or as a Unix socket at a path with a \
        /, until the standard input ends; and nothing else";
    options.optopt("", "serve", serve, "ADDRESS");
    let snapshots = "take snapshots there, and go on from the last (default: take none)";
    options.optopt("", "snapshots", snapshots, "DIR");
    let interval = default("how long between two snapshots", INTERVAL_MS);
    options.optopt("", "interval", &interval, "MILLISECONDS");
    options.optopt("", "break", "lose or double one message, so that the run fails", "HOW");
    options.optflag("", "help", "print this");
    timely::Config::install_options(&mut options);
    let matches = options.parse(std::env::args().skip(1)).map_err(|wrong| wrong.to_string())?;
    if matches.opt_present("help") {
        let brief = "Sends random commands to instances that follow them, and checks that each has\n\
            counted exactly what it was told to count.\n\n\
            With --snapshots it may be killed at any moment and started again, on another number of\n\
            workers as well.\n\n\
            Commands for an interpreter that is served elsewhere have neither asynchronous\n\
            operations nor cancellations, unless --operations says that it can do these.\n\n\
            Usage: smoke [OPTIONS]";
        println!("{}", options.usage(brief).trim_end());
        return Ok(None);
    }
    if let Some(extra) = matches.free.first() {
        return Err(format!("unexpected argument \"{extra}\""));
    }
    let number = |option: &str, default: u64, least: u64, most: u64| match matches.opt_str(option) {
        None => Ok(default),
        Some(text) => {
            let number = text.parse().ok().filter(|number| (least..=most).contains(number));
            let range = match most {
                u64::MAX => format!("a whole number from {least}"),
                _ => format!("a whole number from {least} to {most}"),
            };
            number.ok_or_else(|| format!("--{option} \"{text}\" is not {range}"))
        }
    };
    if let Some(place) = matches.opt_str("serve") {
        return Ok(Some(Task::Serve(place)));
    }
    let interpreter = match (matches.opt_str("remote"), matches.opt_present("grpc")) {
        (None, true) => return Err("--grpc is for an interpreter that is --remote".to_owned()),
        (None, false) => Interpreter::Embedded,
        (Some(url), false) => Interpreter::Remote(Endpoint::at(url)),
        (Some(url), true) => Interpreter::Remote(Endpoint::at(url).grpc()),
    };
    let embedded = interpreter == Interpreter::Embedded;
    let plan = Plan {
        seed: number("seed", SEED, 0, u64::MAX)?,
        messages: number("messages", MESSAGES, 1, u64::MAX)?,
        instances: number("instances", INSTANCES, 1, i32::MAX as u64)?,
        // The bytes of deeper commands would be refused by protobuf's readers.
        depth: number("depth", DEPTH, 1, 30)?,
        embedded,
        operations: embedded || matches.opt_present("operations"),
    };
    let broken = match matches.opt_str("break").as_deref() {
        None => None,
        Some("lose") => Some(Break::Lose),
        Some("double") => Some(Break::Double),
        Some(other) => return Err(format!("--break \"{other}\" is neither lose nor double")),
    };
    let snapshots = match matches.opt_str("snapshots") {
        None => None,
        Some(directory) => {
            let store = SnapshotStore::directory(directory, SnapshotOptions::default());
            Some(store.map_err(|error| error.to_string())?)
        }
    };
    let interval = Duration::from_millis(number("interval", INTERVAL_MS, 1, u64::MAX)?);
    // Snapshots of another plan are of no use, and refused.
    let Plan { seed, messages, instances, depth, .. } = plan;
    let program = format!("smoke {seed} {messages} {instances} {depth}");
    let policy = SnapshotPolicy::new(program).interval(interval);
    let timely = timely::Config::from_matches(&matches)?;
    let arguments = Arguments { plan, interpreter, broken, snapshots, policy, timely };
    Ok(Some(Task::Run(Box::new(arguments))))
}

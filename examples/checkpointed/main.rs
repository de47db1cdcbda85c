//! The example `cascades` with snapshots: kill it at any moment, start it again, on another number of workers
//! if you like, and it ends with the same line.
//!
//! `cargo run --release --example checkpointed -- --snapshots DIR -w 2` (`-- --help` for all options)
//!
//! What was read, every message under way and all state are in each snapshot, and so are the cascades
//! found so far: their egress is kept with the snapshots and comes back first, so that the
//! differential collection behind it is made anew. The source goes on with the first call that the
//! snapshot lacks.
//!
//! It can be stopped at a savepoint, and started again from it by its name:
//! `-- --snapshots DIR --savepoint half --stop-at 5000`, then `-- --snapshots DIR --from half`. What restarts it
//! when it fails is `supervise.sh`, or systemd with `checkpointed.service`.
//!
//! Functions, input and dataflow are those of `cascades`.

#[path = "../cascades/functions.rs"]
mod functions;
#[path = "../cascades/input.rs"]
mod input;
#[path = "../cascades/pipeline.rs"]
mod pipeline;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use pipeline::{Event, Mark, Outcome, Pace};
use timely_statefun::{ExecuteOptions, RestoreFrom, SnapshotOptions, SnapshotPolicy};
use timely_statefun::{SnapshotStore, Snapshots};

const CALLS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/calls.txt");
const WINDOW_SECONDS: u64 = 3600;
/// Between two snapshots.
const INTERVAL: Duration = Duration::from_millis(250);
/// At most one line about progress in each of these.
const PROGRESS_EVERY: Duration = Duration::from_millis(500);

struct Arguments {
    input: PathBuf,
    window: u64,
    rate: Option<u64>,
    snapshots: PathBuf,
    interval: Duration,
    from: RestoreFrom,
    savepoint: Option<String>,
    stop_at: Option<u64>,
    execute: ExecuteOptions,
    timely: timely::Config,
}

/// How a run ended, as worker 0 knows it.
enum Ended {
    Done(Outcome),
    AtSavepoint { name: String, cut: u64 },
}

fn main() -> ExitCode {
    let arguments = match arguments() {
        Ok(Some(arguments)) => arguments,
        Ok(None) => return ExitCode::SUCCESS,
        Err(wrong) => {
            eprintln!("checkpointed: {wrong} (--help lists the options)");
            return ExitCode::from(2);
        }
    };
    match run(arguments) {
        Ok(ends) => {
            // Only worker 0 knows how it ended, so one process of all prints that.
            ends.iter().flatten().for_each(print);
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("checkpointed: {why}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<Vec<Option<Ended>>, String> {
    let Arguments { input, window, rate, snapshots, interval, from, .. } = arguments;
    let Arguments { savepoint, stop_at, execute, timely, .. } = arguments;
    let runtime = tokio::runtime::Runtime::new().expect("the system lets threads start");
    let handle = runtime.handle().clone();
    let store = SnapshotStore::directory(&snapshots, SnapshotOptions::default());
    let store = store.map_err(|error| error.to_string())?;
    let total = lines(&input)?.count();
    let mark = savepoint.map(|name| Mark {
        name,
        line: stop_at.unwrap_or(total as u64 / 2),
        stops: stop_at.is_some(),
    });
    let workers = timely_statefun::execute_with(timely, execute, move |worker| {
        let policy = SnapshotPolicy::new(format!("cascades within {window} s"));
        let policy = policy.interval(interval).restore(from.clone());
        let snapshots = Snapshots::begin(worker, &store, &handle, &policy);
        let snapshots = snapshots.map_err(|error| error.to_string())?;
        let pace = Pace { snapshots: Some(snapshots), rate, mark: mark.clone() };
        match pipeline::run(worker, lines(&input)?, window, pace, observer(total)) {
            Ok(outcome) => Ok(outcome.map(Ended::Done)),
            // Nothing failed: all workers stop at it.
            Err(stopped) => match stopped.at_savepoint() {
                Some((name, cut)) => {
                    let ended = Ended::AtSavepoint { name: name.to_owned(), cut };
                    Ok((worker.index() == 0).then_some(ended))
                }
                None => Err(stopped.to_string()),
            },
        }
    });
    // Nothing is printed before all workers of this process are known to have done their part.
    workers.map_err(|error| error.to_string())?.into_iter().collect()
}

/// The command line; `None` if it asks for help, which was given.
fn arguments() -> Result<Option<Arguments>, String> {
    let mut options = getopts::Options::new();
    options.optopt("", "snapshots", "where snapshots are kept (default: a new directory)", "DIR");
    let interval = format!("between two snapshots (default {})", INTERVAL.as_millis());
    options.optopt("", "interval", &interval, "MILLISECONDS");
    options.optopt("", "from", "starts from this savepoint (default: newest snapshot)", "NAME");
    options.optopt("", "savepoint", "takes one of this name, in the middle of the input", "NAME");
    options.optopt("", "stop-at", "takes it before this line instead, and stops", "LINE");
    options.optopt("", "rate", "reads so many lines in a second (default: all it can)", "N");
    options.optopt("", "input", "call records (default: the ones that come with this)", "FILE");
    let window =
        format!("how long after its end a call leads to others (default {WINDOW_SECONDS})");
    options.optopt("", "window", &window, "SECONDS");
    let connect_max = "how long processes wait for each other (default 60)";
    options.optopt("", "connect-max", connect_max, "SECONDS");
    options.optflag("", "help", "print this");
    timely::Config::install_options(&mut options);
    let matches = options.parse(std::env::args().skip(1)).map_err(|wrong| wrong.to_string())?;
    if matches.opt_present("help") {
        let brief = "Finds cascades of phone calls, as the example \"cascades\" does, and goes on where it was\n\
            when it is killed and started again with the same directory of snapshots.\n\n\
            Usage: checkpointed [OPTIONS]";
        println!("{}", options.usage(brief).trim_end());
        return Ok(None);
    }
    if let Some(extra) = matches.free.first() {
        return Err(format!("unexpected argument \"{extra}\""));
    }
    let number = |option: &str| match matches.opt_str(option) {
        None => Ok(None),
        Some(text) => match text.parse::<u64>() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(format!("--{option} \"{text}\" is not a whole number")),
        },
    };
    let input = PathBuf::from(matches.opt_str("input").unwrap_or_else(|| CALLS.to_owned()));
    // Looked at now, so that a wrong name is a message and not the end of a worker.
    drop(lines(&input)?);
    let snapshots = match matches.opt_str("snapshots") {
        Some(directory) => PathBuf::from(directory),
        None => std::env::temp_dir().join(format!("checkpointed-{}", std::process::id())),
    };
    let (savepoint, stop_at) = (matches.opt_str("savepoint"), number("stop-at")?);
    if stop_at.is_some() && savepoint.is_none() {
        return Err("--stop-at takes a savepoint, whose name --savepoint says".to_owned());
    }
    let mut execute = ExecuteOptions::default();
    if let Some(seconds) = number("connect-max")? {
        execute.connect_max = Duration::from_secs(seconds);
    }
    Ok(Some(Arguments {
        from: matches.opt_str("from").map_or(RestoreFrom::Newest, RestoreFrom::Savepoint),
        savepoint,
        stop_at,
        input,
        window: number("window")?.unwrap_or(WINDOW_SECONDS),
        rate: number("rate")?.map(|rate| rate.max(1)),
        snapshots,
        interval: number("interval")?.map_or(INTERVAL, Duration::from_millis),
        execute,
        timely: timely::Config::from_matches(&matches)?,
    }))
}

/// The lines of the input.
fn lines(path: &Path) -> Result<impl Iterator<Item = Vec<u8>> + use<>, String> {
    let name = path.display().to_string();
    let lines = input::lines(path).map_err(|why| format!("cannot read \"{name}\": {why}"))?;
    // A worker that merely stopped reading would look like one that is done, and the others would
    // report a result that lacks its lines.
    Ok(lines.map(move |line| {
        line.unwrap_or_else(|why| {
            eprintln!("checkpointed: cannot read \"{name}\": {why}");
            std::process::exit(1)
        })
    }))
}

/// Reports what happens while the job runs.
fn observer(total: usize) -> impl Fn(Event<'_>) + 'static {
    let last = std::cell::Cell::new(Instant::now());
    move |event| match event {
        Event::Resumed { cut, line } => {
            println!("resumed from cut {cut} at record {line} of {total}");
        }
        Event::Saved { name, cut: Ok(cut) } => println!("savepoint {name} is cut {cut}"),
        // Whoever wants it would find out too late.
        Event::Saved { name, cut: Err(why) } => {
            eprintln!("checkpointed: savepoint {name} came to nothing: {why}");
            std::process::exit(1)
        }
        Event::Rejected(rejected) => eprintln!("line {}: {}", rejected.line, rejected.wrong),
        Event::Progress { lines, findings } => {
            if last.get().elapsed() >= PROGRESS_EVERY {
                last.set(Instant::now());
                eprintln!("after {lines} lines of {total}: {}", findings.summary());
            }
        }
    }
}

fn print(ended: &Ended) {
    let Outcome { calls, findings, work } = match ended {
        Ended::Done(outcome) => outcome,
        Ended::AtSavepoint { name, cut } => {
            return println!("stopped at savepoint {name}, which is cut {cut}");
        }
    };
    println!("{calls} calls read, {} messages delivered", work.delivered);
    println!("{}", findings.summary());
}

//! What the example `cascades` finds, written into files and into a SQLite database exactly once: the program is
//! killed at random and started again on other numbers of workers until it is done, and what is written is what a
//! run writes that nobody disturbs.
//!
//! `cargo run --release --example exactly_once` (`-- --kills 50` for more of it)
//!
//! Two egresses are held until a snapshot contains what caused their records. Pairs of calls that lead to one another
//! go into a table, in one transaction for each snapshot; calls that move from one cascade to another go into a file
//! for each. Links are the same in each run. Which cascades a call moves through on its way depends on the order of
//! messages, so of moves it is compared what they add up to: one that is missing or there twice leaves a call in no
//! cascade or in two.
//!
//! Functions and input are those of `cascades`.

#[path = "../cascades/functions.rs"]
mod functions;
#[allow(dead_code)]
#[path = "../cascades/input.rs"]
mod input;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use functions::{LINKS, MEMBERS, PERSON, ToPerson};
use input::{Call, Line};
use rusqlite::Connection;
use timely::dataflow::operators::Input;
use timely_statefun::sink::{FileSink, SqliteSink};
use timely_statefun::{
    SnapshotOptions, SnapshotPolicy, SnapshotStore, Snapshots, StatefulFunctions,
};

const CALLS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/calls.txt");
const WINDOW_SECONDS: u64 = 3600;
/// Between two snapshots.
const INTERVAL: Duration = Duration::from_millis(20);
/// How often the program is killed, unless that is said.
const KILLS: usize = 20;
/// Lines that are read before the functions are waited for.
const BATCH_LINES: u64 = 64;
/// How the program is told that it is the one that does the work.
const JOB: &str = "EXACTLY_ONCE_JOB";

/// A call that moves into a cascade or out of one: the call, the cascade, when, and 1 or -1.
type Change = ((u64, u64), u64, isize);

fn main() -> ExitCode {
    let result = match std::env::var(JOB) {
        Ok(job) => work(&job),
        Err(_) => supervise(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("exactly_once: {why}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the program undisturbed, and again with kills, and compares what both have written.
fn supervise() -> Result<(), String> {
    let mut arguments = std::env::args().skip(1);
    let kills = match (arguments.next().as_deref(), arguments.next()) {
        (None, _) => KILLS,
        (Some("--kills"), Some(kills)) => kills.parse().map_err(|_| "--kills wants a number")?,
        _ => return Err("the only option is --kills N".to_owned()),
    };
    let place = std::env::temp_dir().join(format!("exactly-once-{}", std::process::id()));
    let (once, killed) = (place.join("undisturbed"), place.join("killed"));
    let began = Instant::now();
    if !start(&once, 2)?.wait().map_err(|error| error.to_string())?.success() {
        return Err("the undisturbed run failed".to_owned());
    }
    let took = began.elapsed();
    println!("undisturbed, on 2 workers: {}", Written::read(&once)?.summary());
    let mut chance = u64::from(std::process::id());
    let mut below = |bound: u64| {
        chance = chance.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (chance >> 33) % bound.max(1)
    };
    let (mut done, mut starts) = (0, BTreeMap::<u64, usize>::new());
    loop {
        let workers = [1, 2, 4][below(3) as usize];
        *starts.entry(workers).or_default() += 1;
        let mut child = start(&killed, workers)?;
        if done < kills {
            // Long enough that something is done each time, and too short to come to the end at once.
            std::thread::sleep(Duration::from_millis(50 + below(took.as_millis() as u64 / 4)));
            if child.kill().is_ok() {
                let ended = child.wait().map_err(|error| error.to_string())?;
                match ended.success() {
                    true => break,
                    false if ended.code().is_some() => return Err("a run failed".to_owned()),
                    false => done += 1,
                }
                continue;
            }
        }
        match child.wait().map_err(|error| error.to_string())?.success() {
            true => break,
            false => return Err("a run failed".to_owned()),
        }
    }
    println!(
        "killed {done} times, started on workers {starts:?}: {}",
        Written::read(&killed)?.summary()
    );
    let same = Written::read(&once)? == Written::read(&killed)?;
    drop(std::fs::remove_dir_all(&place));
    match same {
        true => println!("both have written the same, each record once"),
        false => return Err("the two runs have written different records".to_owned()),
    }
    Ok(())
}

/// Starts the program that does the work.
fn start(place: &Path, workers: u64) -> Result<std::process::Child, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut command = Command::new(program);
    command.env(JOB, format!("{workers} {}", place.display())).stdin(Stdio::null());
    command.spawn().map_err(|error| error.to_string())
}

/// What a run has written, in an order of its own: cuts fall where they fall.
#[derive(PartialEq, Eq)]
struct Written {
    links: Vec<(u64, u64)>,
    /// By call and cascade, what all changes add up to, where that is something.
    members: BTreeMap<(u64, u64), i64>,
    changes: Changes,
}

/// How many changes there were, in how many files, which is no part of what is compared.
struct Changes(usize, usize);

impl PartialEq for Changes {
    fn eq(&self, _: &Changes) -> bool {
        true
    }
}

impl Eq for Changes {}

impl Written {
    fn read(place: &Path) -> Result<Self, String> {
        let failed = |error: &dyn std::fmt::Display| error.to_string();
        let database = Connection::open(place.join("links.db")).map_err(|e| failed(&e))?;
        let mut select =
            database.prepare("SELECT before, next FROM links").map_err(|e| failed(&e))?;
        let rows = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?)));
        let links: Result<Vec<(u64, u64)>, _> = rows.map_err(|e| failed(&e))?.collect();
        let mut links = links.map_err(|e| failed(&e))?;
        links.sort_unstable();
        let (mut members, mut changes) = (BTreeMap::new(), Changes(0, 0));
        for entry in std::fs::read_dir(place.join("changes")).map_err(|e| failed(&e))? {
            let file = entry.map_err(|e| failed(&e))?;
            if file.file_name().to_string_lossy().starts_with("0000-") {
                changes.1 += 1;
                let text = std::fs::read_to_string(file.path()).map_err(|e| failed(&e))?;
                for line in text.lines() {
                    let words: Vec<&str> = line.split(' ').collect();
                    let number = |at: usize| words[at].parse::<i64>().map_err(|e| failed(&e));
                    let key = (number(0)? as u64, number(1)? as u64);
                    *members.entry(key).or_default() += number(3)?;
                    changes.0 += 1;
                }
            }
        }
        members.retain(|_, sum| *sum != 0);
        Ok(Written { links, members, changes })
    }

    fn summary(&self) -> String {
        let Written { links, members, changes: Changes(changes, files) } = self;
        let (links, members) = (links.len(), members.len());
        format!("{links} links in SQLite, {changes} changes in {files} files, {members} members")
    }
}

/// Does the work, from where it was left.
fn work(job: &str) -> Result<(), String> {
    let (workers, place) = job.split_once(' ').ok_or("the job is no job")?;
    let (workers, place) = (workers.parse().map_err(|_| "no workers")?, PathBuf::from(place));
    std::fs::create_dir_all(&place).map_err(|error| error.to_string())?;
    let runtime = tokio::runtime::Runtime::new().map_err(|error| error.to_string())?;
    let handle = runtime.handle().clone();
    let store = SnapshotStore::directory(place.join("snapshots"), SnapshotOptions::default());
    let store = store.map_err(|error| error.to_string())?;
    let config = timely::Config::process(workers);
    let ends = timely_statefun::execute(config, move |worker| {
        let policy = SnapshotPolicy::new("exactly once").interval(INTERVAL);
        let snapshots = Snapshots::<u64>::begin(worker, &store, &handle, &policy);
        let snapshots = snapshots.map_err(|error| error.to_string())?;
        let (mut input, functions) = worker.dataflow::<u64, _, _>(|scope| {
            let (input, calls) = scope.new_input();
            let functions = functions::bodies(WINDOW_SECONDS, Rc::new(Cell::new(0)))
                .held_egress(LINKS)
                .held_egress(MEMBERS);
            let calls = snapshots.replayed("calls", calls);
            let egresses = calls.stateful_functions(functions).expect("each is bound once");
            let links = egresses.held(LINKS).expect("it is held");
            links.sink(database(&place));
            let members = egresses.held(MEMBERS).expect("it is held");
            members.sink(files(&place));
            (input, egresses.handle())
        });
        if worker.index() == 0 {
            let last = snapshots.positions("calls").get(&0).copied();
            let lines = input::lines(Path::new(CALLS)).map_err(|error| error.to_string())?;
            let mut clock = 0;
            for (number, text) in (1..).zip(lines) {
                let text = text.map_err(|error| error.to_string())?;
                let line = Line { number, text, clock };
                if line.is_silent() {
                    continue;
                }
                let Ok(Call { number, caller, callee, start, end }) = line.parse() else {
                    continue;
                };
                clock = start;
                // The last may be there with one of its ends: what is there is skipped.
                if last.is_some_and(|last| number < last / 2) {
                    continue;
                }
                input.advance_to(clock);
                let received = PERSON.message(callee, ToPerson::Received { call: number, end });
                let placed = PERSON.message(caller, ToPerson::Placed { call: number, start });
                input.send(received.read_at(0, 2 * number));
                input.send(placed.read_at(0, 2 * number + 1));
                if number % BATCH_LINES == 0 {
                    input.flush();
                    functions.until_ready(worker).map_err(|stopped| stopped.to_string())?;
                    worker.step();
                }
            }
        }
        input.close();
        functions.run(worker).map_err(|stopped| stopped.to_string())
    });
    ends.map_err(|error| error.to_string())?.into_iter().collect()
}

/// Where links go.
fn database(place: &Path) -> SqliteSink<(u64, u64)> {
    let sink = SqliteSink::new(place.join("links.db"), "links", |transaction, (before, next)| {
        transaction.execute("INSERT INTO links VALUES (?1, ?2)", (before, next))?;
        Ok(())
    });
    sink.prepared("CREATE TABLE IF NOT EXISTS links (before INTEGER, next INTEGER)")
}

/// Where changes go.
fn files(place: &Path) -> FileSink<Change> {
    FileSink::new(place.join("changes"), "changes", |((call, cascade), since, change), to| {
        to.extend_from_slice(format!("{call} {cascade} {since} {change:+}\n").as_bytes());
        Ok(())
    })
}

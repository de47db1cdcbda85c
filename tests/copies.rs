//! Messages that are copies of memory reach processes of the same build, and are refused by any other.
//!
//! What they come to is what messages come to otherwise, which `results.rs` says. Another build is this
//! one with a byte behind its end, which no system looks at.

#![cfg(unix)]

#[path = "../operators/tests/support/cluster.rs"]
mod cluster;

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};
use timely::dataflow::operators::{Input, Inspect};
use timely::worker::Worker;
use timely_statefun::{
    Context, Egress, Envelope, Function, FunctionResult, FunctionType, Functions, Id,
    StatefulFunctions, execute,
};
use timely_statefun_codec_abomonation::{Abomonated, abomonable};

abomonable! {
    #[derive(Clone, Debug, Serialize, Deserialize)]
    struct Letter {
        stations: u32,
        seen: Vec<u64>,
        greeting: String,
    }
}

const STATION: FunctionType<Abomonated<Letter>> = FunctionType::new("copies/station");
const ARRIVED: Egress<u64> = Egress::new("copies/arrived");
const LETTERS: u64 = 50;

/// Sends a letter to the next station, until it has been at all.
fn pass_on(
    context: &mut Context<'_, Abomonated<Letter>>,
    letter: &Abomonated<Letter>,
) -> FunctionResult {
    let own = context.id().as_number().expect("stations are numbers");
    let mut letter = letter.clone();
    assert_eq!(letter.greeting, "from station to station");
    assert!(letter.seen.iter().copied().eq(own - letter.seen.len() as u64..own), "{letter:?}");
    letter.seen.push(own);
    if letter.seen.len() == letter.stations as usize {
        context.emit(ARRIVED, own);
    } else {
        context.send(STATION, Id::from(own + 1), letter);
    }
    Ok(())
}

/// Letters go from process to process. Returns how many messages left this worker for another.
fn run(worker: &mut Worker) -> u64 {
    let index = worker.index() as u64;
    let (mut input, handle) = worker.dataflow::<u64, _, _>(|scope| {
        let (input, stream) = scope.new_input::<Vec<Envelope<Abomonated<Letter>>>>();
        let functions = Functions::new().embedded(STATION, Function::new(pass_on)).egress(ARRIVED);
        let functions = stream.stateful_functions(functions).unwrap();
        functions
            .stream(ARRIVED)
            .unwrap()
            .inspect(|station| cluster::report(format!("arrived at {station}")));
        (input, functions.handle())
    });
    for number in 0..LETTERS {
        let greeting = "from station to station".to_owned();
        let letter = Letter { stations: 20, seen: Vec::new(), greeting };
        input.send(STATION.message(Id::from(1000 * number + 100 * index), Abomonated(letter)));
    }
    input.close();
    handle.run(worker).unwrap();
    handle.stats().sent_away
}

fn member(config: timely::Config) {
    match execute(config, run) {
        Ok(away) => away.into_iter().for_each(|away| cluster::report(format!("away {away}"))),
        Err(error) => cluster::report(format!("error {error}")),
    }
}

/// Runs a test of these programs, one in each process.
fn run_programs(name: &str, programs: [&Path; 2]) -> [Vec<String>; 2] {
    let outcomes = cluster::run_command(2, |process, addresses| {
        let mut command = Command::new(programs[process]);
        command.args([name, "--exact", "--nocapture", "--test-threads=1"]);
        command.env(cluster::MEMBER, format!("{process} 1 {}", addresses.join(" ")));
        command
    });
    let lines = outcomes.into_iter().map(|outcome| {
        assert!(outcome.success, "{}", outcome.output);
        outcome.lines
    });
    lines.collect::<Vec<_>>().try_into().unwrap()
}

#[test]
fn copies_of_memory_reach_a_process_of_the_same_build() {
    if let Some(config) = cluster::member() {
        return member(config);
    }
    let own = std::env::current_exe().unwrap();
    let name = "copies_of_memory_reach_a_process_of_the_same_build";
    let mut arrived = 0;
    for lines in run_programs(name, [&own, &own]) {
        let away = lines.iter().find_map(|line| line.strip_prefix("away "));
        let away: u64 = away.unwrap_or_else(|| panic!("{lines:?}")).parse().unwrap();
        assert!(away > 2 * LETTERS, "{away} messages crossed");
        arrived += lines.iter().filter(|line| line.starts_with("arrived")).count() as u64;
    }
    assert_eq!(arrived, 2 * LETTERS);
}

/// A file that is deleted in the end.
struct Other(PathBuf);

impl Drop for Other {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[test]
fn a_process_of_another_build_is_refused_before_anything_is_read() {
    if let Some(config) = cluster::member() {
        return member(config);
    }
    let own = std::env::current_exe().unwrap();
    let name = format!("copies-of-another-build-{}", std::process::id());
    let other = Other(Path::new(env!("CARGO_TARGET_TMPDIR")).join(name));
    fs::copy(&own, &other.0).unwrap();
    OpenOptions::new().append(true).open(&other.0).unwrap().write_all(&[0]).unwrap();
    let name = "a_process_of_another_build_is_refused_before_anything_is_read";
    let lines = run_programs(name, [&own, &other.0]);
    let refused = "a message is a copy of memory from another build of this program";
    for lines in lines {
        // Each has met a message of the other, or has been told by the other why it gave up.
        let error = lines.iter().find(|line| line.starts_with("error "));
        assert!(error.is_some_and(|error| error.contains(refused)), "{lines:?}");
        assert!(!lines.iter().any(|line| line.starts_with("arrived")), "{lines:?}");
    }
}

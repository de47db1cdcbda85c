//! Every line of a file counts once, however often a program that reads files is killed, and on whatever workers
//! it goes on.
//!
//! A child process runs the program and ends without a word: when a manifest has just appeared, or when it has
//! handled some lines.

#[path = "support/death.rs"]
mod death;
mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use death::Death;
use support::{Random, Running, on_workers};
use timely::dataflow::operators::Inspect;
use timely_statefun::source::{self, Channel, Files, Times};
use timely_statefun::{
    Egress, Function, FunctionType, Functions, SnapshotOptions, SnapshotPolicy, SnapshotStore,
    Snapshots, StatefulFunctions, ValueSpec,
};
use tokio::runtime::Runtime;

/// Counts how often it is told something; asked with nothing, it says so.
const WORD: FunctionType<String> = FunctionType::new("killed/word");
const COUNTS: Egress<(String, u64)> = Egress::new("killed/counts");
const COUNT: ValueSpec<u64> = ValueSpec::new("count");
const FILES: usize = 3;
const LINES: u64 = 1500;
const WORDS: u64 = 37;
const KILLS: usize = 20;
const JOB: &str = "STATEFUN_KILLED_SOURCE";

fn functions(death: Death) -> Functions<String> {
    let word = Function::new(move |context, text: &String| {
        if text.is_empty() {
            let count = context.get(COUNT).copied().unwrap_or(0);
            let word = context.id().to_string();
            context.emit(COUNTS, (word, count));
        } else {
            context.update(COUNT, |count| *count += 1);
            death.reach("handled");
        }
        Ok(())
    });
    Functions::new().embedded(WORD, word.value(COUNT)).egress(COUNTS)
}

/// Runs the program to its end, and gives what is answered to those who ask.
fn run(
    place: &Path,
    workers: usize,
    death: &Death,
    asks: Channel<String>,
) -> BTreeMap<String, u64> {
    let runtime = Runtime::new().unwrap();
    let (place, death, handle) = (place.to_owned(), death.clone(), runtime.handle().clone());
    let asks = Mutex::new(Some(asks));
    let answers = on_workers(workers, move |worker| {
        let snapshots = place.join("snapshots");
        let store = SnapshotStore::directory(&snapshots, SnapshotOptions::default()).unwrap();
        let policy = SnapshotPolicy::new("killed").interval(Duration::from_millis(1));
        let snapshots = Snapshots::<u64>::begin(worker, &store, &handle, &policy).unwrap();
        let answers = Arc::new(Mutex::new(BTreeMap::new()));
        let functions_handle = worker.dataflow::<u64, _, _>(|scope| {
            let paths = (0..FILES).map(|file| place.join(file.to_string()));
            let lines = Files::lines(paths).source(scope, "lines", Times::fixed(0)).batch_max(9);
            let lines = lines.replayed(&snapshots, |line| {
                line.envelope(|text| WORD.message(text.as_str(), text.clone()))
            });
            let asks = asks.lock().unwrap().take().unwrap_or_default();
            let asks = asks.source(scope, "asks", Times::fixed(0));
            let asks =
                asks.unreplayed(&snapshots, |word: String| WORD.message(word, String::new()));
            let functions = functions(death.clone());
            let egresses = [lines, asks].stateful_functions(functions).unwrap();
            let answered = Arc::clone(&answers);
            egresses.stream(COUNTS).unwrap().inspect(move |(word, count)| {
                answered.lock().unwrap().insert(word.clone(), *count);
            });
            egresses.handle()
        });
        functions_handle.run(worker).unwrap();
        let answers = answers.lock().unwrap();
        answers.clone()
    });
    answers.into_iter().flatten().collect()
}

/// What the child does; nothing where there is no child.
#[test]
fn child() {
    let Ok(job) = std::env::var(JOB) else { return };
    let job: Vec<&str> = job.split(' ').collect();
    let [place, workers, point, times] = job[..] else { panic!("{job:?}") };
    let (place, workers) = (PathBuf::from(place), workers.parse().unwrap());
    let left = Arc::new(AtomicU64::new(times.parse().unwrap()));
    let death = Death { point: point.into(), left };
    death.watch(place.join("snapshots").join("manifest"));
    run(&place, workers, &death, Channel::default());
}

/// The word of a line.
fn word(file: usize, line: u64) -> String {
    format!("word-{}", (line * 7 + file as u64) % WORDS)
}

#[test]
fn every_line_counts_once_however_often_the_program_is_killed() {
    let seed = u64::from(std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().subsec_nanos());
    let _running = Running(format!("seed {seed}"));
    let mut random = Random(seed);
    let (mut kills, mut ends) = (0, 0);
    while kills < KILLS || ends == 0 {
        let place = tempfile::tempdir().unwrap();
        let mut expected = BTreeMap::<String, u64>::new();
        for file in 0..FILES {
            let words: Vec<String> = (0..LINES).map(|line| word(file, line)).collect();
            std::fs::write(place.path().join(file.to_string()), words.join("\n")).unwrap();
            words.into_iter().for_each(|word| *expected.entry(word).or_default() += 1);
        }
        loop {
            let point = ["manifest", "handled"][random.below(2) as usize];
            let point = if kills < KILLS { point } else { "never" };
            let times = match point {
                "handled" => 1 + random.below(FILES as u64 * LINES / 3),
                _ => 1 + random.below(8),
            };
            let workers = [1, 2, 3][random.below(3) as usize];
            let job = format!("{} {workers} {point} {times}", place.path().display());
            let mut command = Command::new(std::env::current_exe().unwrap());
            command.args(["--exact", "child", "--nocapture"]).env(JOB, job);
            command.env("RUST_BACKTRACE", "0").stdout(Stdio::null()).stderr(Stdio::piped());
            let ended = command.spawn().unwrap().wait_with_output().unwrap();
            if ended.status.success() {
                break;
            }
            let said = String::from_utf8_lossy(&ended.stderr).into_owned();
            assert!(!said.contains("panicked"), "{workers} workers, {point}: {said}");
            kills += 1;
        }
        ends += 1;
        let (sender, asks) = source::channel(1000);
        for word in expected.keys() {
            sender.try_send(word.clone()).expect("there is room");
        }
        drop(sender);
        let never = Death { point: "never".into(), left: Arc::default() };
        assert_eq!(run(place.path(), 1, &never, asks), expected);
    }
    println!("{kills} kills, {ends} ends");
}

//! The sinks for files and for SQLite have each record once, in order, however often their program is killed, and
//! on whatever workers it goes on.
//!
//! A child process runs the program, and ends without a word: when a manifest has just appeared, before what it
//! releases is; in the middle of the records of a cut, before it counts; when a cut is stored, before that is
//! acknowledged; or at any moment. It is started again on another number of workers until it has come to its
//! end.

#[path = "support/death.rs"]
mod death;
#[path = "support/held.rs"]
mod held;
mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use death::Death;
use held::{Note, Taken, check};
use support::{Random, Running};
use timely_statefun::sink::{FileSink, Sink, SinkError, SqliteSink};
use timely_statefun::{Retry, SnapshotOptions, SnapshotPolicy, SnapshotStore};

const RECORDS: u64 = 1200;
/// Kills of each sink.
const KILLS: usize = 30;
const POINTS: [&str; 4] = ["manifest", "inside", "stored", "moment"];
/// How steps of the library itself are marked, in which a program ends that is built for that.
const STEP: &str = "step:";
const JOB: &str = "STATEFUN_KILLED_SINK";

/// A sink whose program may end when a cut is stored, and does not know it yet.
struct Deadly<S>(S, Death);

impl<S: Sink<Note>> Sink<Note> for Deadly<S> {
    fn shards(&self) -> u32 {
        self.0.shards()
    }

    fn retry(&self) -> Retry {
        self.0.retry()
    }

    fn last(&self, shard: u32) -> Result<Option<u64>, SinkError> {
        self.0.last(shard)
    }

    fn write(&self, shard: u32, cut: u64, records: &[Note]) -> Result<(), SinkError> {
        if cut.is_multiple_of(3) {
            // It is slow at times, so that several cuts wait for it.
            std::thread::sleep(Duration::from_millis(20));
        }
        self.0.write(shard, cut, records)?;
        self.1.reach("stored");
        Ok(())
    }
}

fn files(place: &Path, death: &Death) -> FileSink<Note> {
    let death = death.clone();
    let sink = FileSink::new(place.join("out"), "notes", move |(own, count, time): &Note, to| {
        death.reach("inside");
        to.extend_from_slice(format!("{own} {count} {time}\n").as_bytes());
        Ok(())
    });
    sink.divided(2)
}

fn database(place: &Path, death: &Death) -> SqliteSink<Note> {
    let death = death.clone();
    let insert = move |transaction: &rusqlite::Transaction<'_>, (own, count, time): &Note| {
        transaction.execute("INSERT INTO notes VALUES (?1, ?2, ?3)", (own, count, time))?;
        death.reach("inside");
        Ok(())
    };
    let table = "CREATE TABLE IF NOT EXISTS notes (own INTEGER, count INTEGER, time INTEGER)";
    SqliteSink::new(place.join("out.db"), "notes", insert).prepared(table).divided(2)
}

fn read_files(place: &Path) -> Vec<Note> {
    let entries = std::fs::read_dir(place.join("out")).unwrap();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let is_cut = |file: &&PathBuf| file.file_name().unwrap().to_string_lossy().starts_with('0');
    let left: Vec<_> = files.iter().filter(|file| !is_cut(file)).collect();
    assert_eq!(left.len(), 1, "nothing is left behind: {left:?}");
    let texts = files.iter().filter(is_cut).map(|file| std::fs::read_to_string(file).unwrap());
    let mut notes = Vec::new();
    for text in texts {
        for line in text.lines() {
            let numbers: Vec<u64> = line.split(' ').map(|word| word.parse().unwrap()).collect();
            notes.push((numbers[0], numbers[1], numbers[2]));
        }
    }
    notes
}

fn read_database(place: &Path) -> Vec<Note> {
    let database = rusqlite::Connection::open(place.join("out.db")).unwrap();
    let select = "SELECT own, count, time FROM notes ORDER BY rowid";
    let mut select = database.prepare(select).unwrap();
    let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
    select.query_map([], row).unwrap().map(Result::unwrap).collect()
}

/// What the child does; nothing where there is no child.
#[test]
fn child() {
    let Ok(job) = std::env::var(JOB) else { return };
    let job: Vec<&str> = job.split(' ').collect();
    let [sink, place, workers, point, times] = job[..] else { panic!("{job:?}") };
    let (place, workers) = (PathBuf::from(place), workers.parse().unwrap());
    let left = Arc::new(AtomicU64::new(times.parse().unwrap()));
    let death = Death { point: point.into(), left };
    let snapshots = place.join("snapshots");
    let store = SnapshotStore::directory(&snapshots, SnapshotOptions::default()).unwrap();
    death.watch(snapshots.join("manifest"));
    let policy = SnapshotPolicy::new("test").interval(Duration::from_millis(2));
    let is_file = sink == "file";
    let take = move |egresses: &timely_statefun::Egresses<'_, u64, held::Told>, _: &_| {
        let held = egresses.held(held::NOTES).unwrap();
        Taken::Sink(match is_file {
            true => held.sink(Deadly(files(&place, &death), death.clone())),
            false => held.sink(Deadly(database(&place, &death), death.clone())),
        })
    };
    held::run(workers, &store, &policy, take, |run| {
        for records in (0..RECORDS).step_by(10) {
            run.give(records + 10);
            (0..10).for_each(|_| _ = run.worker.step());
        }
        run.end().unwrap();
    });
    println!("it came to its end");
}

struct Place(PathBuf);

impl Drop for Place {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// Kills programs with a sink so often, at these points or in these steps, and checks what comes of each that ends.
fn kill(sink: &str, points: &[&'static str], read: impl Fn(&Path) -> Vec<Note>) {
    let seed = u64::from(std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().subsec_nanos());
    let _running = Running(format!("seed {seed} of {sink}"));
    let (mut random, began) = (Random(seed), Instant::now());
    let (mut kills, mut at) = (0, std::collections::BTreeMap::<&str, usize>::new());
    let mut ends = 0;
    while kills < KILLS || ends == 0 {
        let name = format!("statefun-killed-{sink}-{}-{}", std::process::id(), random.any());
        let memory = PathBuf::from("/dev/shm");
        let root = if memory.is_dir() { memory } else { std::env::temp_dir() };
        let place = Place(root.join(name));
        std::fs::create_dir_all(&place.0).unwrap();
        loop {
            let point = points[random.below(points.len() as u64) as usize];
            let point = if kills < KILLS { point } else { "never" };
            let times = match point {
                "inside" => 1 + random.below(700),
                "moment" => 0,
                _ => 1 + random.below(6),
            };
            let workers = [1, 2, 4][random.below(3) as usize];
            let job = format!("{sink} {} {workers} {point} {times}", place.0.display());
            let mut command = Command::new(std::env::current_exe().unwrap());
            command.args(["--exact", "child", "--nocapture"]).env(JOB, job);
            if let Some(step) = point.strip_prefix(STEP) {
                command.env("STATEFUN_PLANTED", format!("kill-at={step}:{times}"));
            }
            command.env("RUST_BACKTRACE", "0").stdout(Stdio::null()).stderr(Stdio::piped());
            let mut child = command.spawn().unwrap();
            if point == "moment" {
                std::thread::sleep(Duration::from_micros(random.below(150_000)));
                drop(child.kill());
            }
            let ended = child.wait_with_output().unwrap();
            if ended.status.success() {
                break;
            }
            let said = String::from_utf8_lossy(&ended.stderr).into_owned();
            assert!(!said.contains("panicked"), "{workers} workers, {point}: {said}");
            kills += 1;
            *at.entry(point).or_default() += 1;
        }
        ends += 1;
        check(read(&place.0).into_iter(), RECORDS);
    }
    println!("{sink}: {kills} kills ({at:?}), {ends} ends, in {:?}", began.elapsed());
}

#[test]
fn files_have_each_record_once_however_often_the_program_is_killed() {
    kill("file", &POINTS, read_files);
}

#[test]
fn sqlite_has_each_record_once_however_often_the_program_is_killed() {
    kill("sqlite", &POINTS, read_database);
}

/// The program ends in each step of releasing, storing and acknowledging: in builds for `tests/planted/run`.
#[cfg(statefun_planted)]
#[test]
fn sinks_have_each_record_once_whichever_step_is_the_last() {
    for step in ["step:held-released", "step:sink-has-cut", "step:cut-acknowledged"] {
        kill("file", &[step], read_files);
    }
    for step in ["step:sink-file-begun", "step:sink-file-written", "step:sink-file-renamed"] {
        kill("file", &[step], read_files);
    }
    for step in [
        "step:sink-transaction-begun",
        "step:sink-transaction-written",
        "step:sink-transaction-committed",
    ] {
        kill("sqlite", &[step], read_database);
    }
}

//! Files are read once, whatever they consist of, and followed while they grow; a program goes on with them on other
//! workers where a snapshot was; and of what is wrong with them is said what and where.

mod support;

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use support::{LIMIT, on_workers, until};
use tempfile::TempDir;
use timely::dataflow::operators::Inspect;
use timely::worker::Worker;
use timely_statefun::source::{
    CsvOptions, FileError, FileErrorKind, Files, Line, SourceHandle, SourceStatus, Times,
};
use timely_statefun::{
    Context, Egress, Function, FunctionResult, FunctionType, Functions, Reason, SnapshotOptions,
    SnapshotPolicy, SnapshotStore, Snapshots, StatefulFunctions, ValueSpec,
};
use tokio::runtime::Runtime;

/// One for each file, which must be told its lines in order.
const READER: FunctionType<String> = FunctionType::new("files/reader");
const COUNTS: Egress<(u64, u64)> = Egress::new("files/counts");
const NEXT: ValueSpec<u64> = ValueSpec::new("next");

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Order {
    customer: String,
    cents: u64,
}

fn order(customer: &str, cents: u64) -> Order {
    Order { customer: customer.to_owned(), cents }
}

fn directory() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn written(directory: &TempDir, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
    let path = directory.path().join(name);
    fs::write(&path, content).unwrap();
    path
}

fn append(path: &Path, content: &str) {
    OpenOptions::new().append(true).open(path).unwrap().write_all(content.as_bytes()).unwrap();
}

type Seen<D> = Arc<Mutex<Vec<Line<D>>>>;

/// Has this worker read files into `seen`.
fn read<D: Clone + Send + 'static>(
    worker: &mut Worker,
    files: Files<D>,
    seen: &Seen<D>,
) -> SourceHandle {
    worker.dataflow::<u64, _, _>(|scope| {
        let source = files.source(scope, "files", Times::fixed(0)).batch_max(3);
        let (handle, seen) = (source.handle(), Arc::clone(seen));
        source.stream().0.inspect(move |line| seen.lock().unwrap().push(line.clone()));
        handle
    })
}

/// All that files have, by partition and position, with its source.
fn all<D: Clone + Send + 'static>(
    workers: usize,
    files: impl Fn() -> Files<D> + Send + Sync + 'static,
) -> Vec<(u64, u64, D)> {
    let seen = Seen::default();
    let sees = Arc::clone(&seen);
    on_workers(workers, move |worker| {
        read(worker, files(), &sees);
        let began = Instant::now();
        while worker.has_dataflows() {
            assert!(began.elapsed() < LIMIT, "it does not end");
            worker.step_or_park(Some(Duration::from_micros(500)));
        }
    });
    let seen = std::mem::take(&mut *seen.lock().unwrap());
    let lines = seen.into_iter().map(|line| (line.partition, line.position, line.record));
    let mut lines: Vec<_> = lines.collect();
    // Those of one file are in order already.
    lines.sort_by_key(|(partition, _, _)| *partition);
    lines
}

#[test]
fn every_format_gives_what_is_in_the_files() {
    let directory = directory();
    let one = written(&directory, "one", "\u{feff}a\r\n\nb \nno end");
    let two = written(&directory, "two", "");
    let three = written(&directory, "three", "x\n".repeat(5000));
    let json = "{\"customer\": \"Ada\", \"cents\": 5}\n\n {\"cents\": 7, \"customer\": \"B\"}";
    let json = written(&directory, "json", json);
    let csv = "cents,customer\r\n5,\"A, \"\"d\"\"\na\"\r\n\n7,B";
    let csv = written(&directory, "csv", csv);
    let plain = written(&directory, "plain", "x;5\ny;7\n");
    for workers in [1, 2] {
        let paths = [one.clone(), two.clone(), three.clone()];
        let lines = all(workers, move || Files::lines(paths.clone()));
        let text = |line: &(u64, u64, String)| (line.0, line.1, line.2.clone());
        let first: Vec<_> = lines[..4].iter().map(text).collect();
        let expected = [(0, 6, "a"), (0, 7, ""), (0, 10, "b "), (0, 16, "no end")];
        assert_eq!(first, expected.map(|(file, end, text)| (file, end, text.to_owned())));
        let third = (1..=5000).map(|line| (2, 2 * line, "x".to_owned()));
        assert!(lines[4..].iter().map(text).eq(third));
        let path = json.clone();
        let orders = all(workers, move || Files::lines([&path]).json::<Order>());
        assert_eq!(orders, [(0, 32, order("Ada", 5)), (0, 63, order("B", 7))]);
        let path = csv.clone();
        let orders =
            all(workers, move || Files::lines([&path]).csv::<Order>(CsvOptions::default()));
        assert_eq!(orders, [(0, 32, order("A, \"d\"\na", 5)), (0, 36, order("B", 7))]);
        let path = plain.clone();
        let options = CsvOptions { headers: false, delimiter: b';' };
        let pairs = all(workers, move || Files::lines([&path]).csv::<(String, u64)>(options));
        assert_eq!(pairs, [(0, 4, ("x".to_owned(), 5)), (0, 8, ("y".to_owned(), 7))]);
    }
}

/// Without snapshots, and without functions.
#[test]
fn what_is_appended_is_read_when_its_line_has_an_end() {
    let directory = directory();
    let paths = [written(&directory, "one", "a\nb"), written(&directory, "two", "")];
    let files = Files::lines(paths.clone()).follow(Duration::from_millis(1));
    timely::execute_directly(move |worker| {
        let seen = Seen::default();
        let handle = read(worker, files, &seen);
        let texts = || -> Vec<String> {
            seen.lock().unwrap().iter().map(|line| line.record.clone()).collect()
        };
        until(worker, "a is read", || texts().len() == 1);
        append(&paths[0], "c");
        append(&paths[1], "second\n");
        until(worker, "the other is read", || texts().len() == 2);
        assert_eq!(texts(), ["a", "second"], "what has no end is not read");
        append(&paths[0], "d\ne");
        until(worker, "the rest is read", || texts().len() == 3);
        assert_eq!(texts()[2], "bcd");
        assert_eq!(seen.lock().unwrap()[2].position, 6);
        assert_eq!(handle.status().skipped, 0);
        let dataflow = worker.installed_dataflows()[0];
        worker.drop_dataflow(dataflow);
    });
}

fn functions() -> Functions<String> {
    let reader = |context: &mut Context<'_, String>, line: &String| -> FunctionResult {
        let file = context.id().as_number().ok_or("files are numbers")?;
        let next = context.get(NEXT).copied().unwrap_or(0);
        if line.trim() != next.to_string() {
            return Err(format!("{line:?} came where {next} should have").into());
        }
        context.set(NEXT, next + 1);
        context.emit(COUNTS, (file, next + 1));
        Ok(())
    };
    Functions::new().embedded(READER, Function::new(reader).value(NEXT)).egress(COUNTS)
}

/// How far each file is, when a program has ended or was dropped after so many durable snapshots.
type Counts = BTreeMap<u64, u64>;

/// Runs a program that reads files on its workers, and is dropped where it is when so many snapshots are durable.
/// Gives how far it came and what its sources say.
fn run(
    workers: usize,
    store: &SnapshotStore,
    runtime: &Runtime,
    cuts_max: u64,
    files: impl Fn() -> Files<String> + Send + Sync + 'static,
) -> Result<(Counts, Vec<SourceStatus>), Reason> {
    let (store, runtime) = (store.clone(), runtime.handle().clone());
    let (durable, stops) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let ran = on_workers(workers, move |worker| {
        let policy = SnapshotPolicy::new("files").interval(Duration::from_millis(1));
        let snapshots = Snapshots::<u64>::begin(worker, &store, &runtime, &policy).unwrap();
        let counts = Arc::new(Mutex::new(Counts::new()));
        let (handle, source) = worker.dataflow::<u64, _, _>(|scope| {
            let source = files().source(scope, "lines", Times::fixed(0)).batch_max(7);
            let handle = source.handle();
            let ingress = source.replayed(&snapshots, |line| {
                let file = line.partition;
                line.envelope(|text| READER.message(file, text))
            });
            let egresses = ingress.stateful_functions(functions()).unwrap();
            let counted = Arc::clone(&counts);
            egresses.stream(COUNTS).unwrap().inspect(move |(file, count)| {
                counted.lock().unwrap().insert(*file, *count);
            });
            let told = Arc::clone(&durable);
            egresses.snapshots().unwrap().inspect(move |_| _ = told.fetch_add(1, SeqCst));
            (egresses.handle(), handle)
        });
        let (durable, stops) = (Arc::clone(&durable), Arc::clone(&stops));
        let went_on = handle.run_while(worker, || {
            if durable.load(SeqCst) >= cuts_max {
                stops.store(true, SeqCst);
            }
            !stops.load(SeqCst)
        });
        stops.store(true, SeqCst);
        went_on.map_err(|stopped| stopped.reason)?;
        for dataflow in worker.installed_dataflows() {
            worker.drop_dataflow(dataflow);
        }
        let counts = counts.lock().unwrap().clone();
        Ok((counts, source.status()))
    });
    let ran = ran.into_iter().collect::<Result<Vec<_>, _>>()?;
    let counts = ran.iter().flat_map(|(counts, _)| counts.clone()).collect();
    Ok((counts, ran.into_iter().map(|(_, status)| status).collect()))
}

fn memory() -> SnapshotStore {
    SnapshotStore::open("memory:", SnapshotOptions::default()).unwrap()
}

/// Whatever is before the place where a program goes on is not looked at.
#[test]
fn a_program_goes_on_where_its_snapshot_was_on_any_number_of_workers() {
    const LINES: u64 = 3000;
    let (runtime, directory, store) = (Runtime::new().unwrap(), directory(), memory());
    // All lines have one length, so that it is known which is where.
    let text: String = (0..LINES).map(|line| format!("{line:>7}\n")).collect();
    let paths = [0, 1, 2].map(|file| written(&directory, &file.to_string(), &text));
    let mut highest = Counts::new();
    let (mut given, mut dropped_early) = (0, 0);
    for (workers, cuts_max) in [(2, 3), (1, 3), (3, 3), (1, 3), (2, u64::MAX), (1, u64::MAX)] {
        let paths = paths.clone();
        let read = move || Files::lines(paths.clone());
        let (counts, sources) = run(workers, &store, &runtime, cuts_max, read).unwrap();
        dropped_early += u64::from(counts.values().any(|count| *count < LINES));
        for (file, count) in counts {
            highest.entry(file).and_modify(|last| *last = count.max(*last)).or_insert(count);
        }
        given += sources.iter().map(|source| source.given).sum::<u64>();
        assert!(sources.iter().all(|source| source.contained == 0), "{sources:?}");
    }
    assert_eq!(highest, Counts::from([(0, LINES), (1, LINES), (2, LINES)]));
    assert!(given >= 3 * LINES && dropped_early > 1, "{given}, {dropped_early}");
}

/// Bytes before a position may be anything: nobody reads them again.
#[test]
fn a_program_seeks_and_does_not_read_again() {
    let (runtime, directory, store) = (Runtime::new().unwrap(), directory(), memory());
    let path = written(&directory, "lines", "0\n1\n2\n");
    let paths = [path.clone()];
    run(1, &store, &runtime, u64::MAX, move || Files::lines(paths.clone())).unwrap();
    fs::write(&path, "x\n\u{fffd}\n3\n4").unwrap();
    let paths = [path.clone()];
    let (counts, sources) =
        run(2, &store, &runtime, u64::MAX, move || Files::lines(paths.clone())).unwrap();
    assert_eq!(counts, Counts::from([(0, 5)]));
    assert_eq!(sources.iter().map(|source| source.given).sum::<u64>(), 2);
    // Where the last line had no end, it must not get longer.
    append(&path, "0\n5\n");
    let paths = [path.clone()];
    let why = run(1, &store, &runtime, u64::MAX, move || Files::lines(paths.clone())).unwrap_err();
    let text = format!(
        "source \"lines\" failed: file \"{}\", line 4, byte 9: it is another file than was read",
        path.display()
    );
    assert_eq!(why.to_string(), text);
    fs::write(&path, "0\n").unwrap();
    let paths = [path.clone()];
    let why = run(1, &store, &runtime, u64::MAX, move || Files::lines(paths.clone())).unwrap_err();
    let text = format!(
        "source \"lines\" failed: file \"{}\", byte 9: it has 2 bytes, fewer than were read",
        path.display()
    );
    assert_eq!(why.to_string(), text);
}

/// The names of fields are read again, and only they.
#[test]
fn csv_goes_on_with_its_names() {
    let directory = directory();
    let path = written(&directory, "csv", "cents,customer\n5,A\n7,B\n9,C\n");
    let (runtime, store) = (Runtime::new().unwrap(), memory());
    let mut all = Vec::new();
    for (append_text, expected) in [("", vec![5, 7, 9]), ("11,D\n", vec![11])] {
        append(&path, append_text);
        let (path, store, runtime) = (path.clone(), store.clone(), runtime.handle().clone());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let sees = Arc::clone(&seen);
        timely::execute_directly(move |worker| {
            let policy = SnapshotPolicy::new("csv");
            let snapshots = Snapshots::<u64>::begin(worker, &store, &runtime, &policy).unwrap();
            let handle = worker.dataflow::<u64, _, _>(|scope| {
                let orders = Files::lines([path]).csv::<Order>(CsvOptions::default());
                let source = orders.source(scope, "orders", Times::fixed(0));
                let ingress = source.replayed(&snapshots, move |line| {
                    sees.lock().unwrap().push(line.record.cents);
                    line.envelope(|order| READER.message(order.cents, "0".to_owned()))
                });
                ingress.stateful_functions(functions()).unwrap().handle()
            });
            handle.run(worker).unwrap();
        });
        assert_eq!(*seen.lock().unwrap(), expected);
        all.extend(expected);
    }
    assert_eq!(all, [5, 7, 9, 11]);
}

/// What is told of files that something is wrong with, and how many records they give all the same.
fn wrong<D: Clone + Send + 'static>(files: Files<D>) -> (usize, Vec<FileError>) {
    let errors = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&errors);
    let files = files.skip_bad(move |error| noted.lock().unwrap().push(error.clone()));
    let seen = Seen::default();
    let sees = Arc::clone(&seen);
    let status = timely::execute_directly(move |worker| {
        let handle = read(worker, files, &sees);
        let began = Instant::now();
        while worker.has_dataflows() {
            assert!(began.elapsed() < LIMIT, "it does not end");
            worker.step_or_park(Some(Duration::from_micros(500)));
        }
        handle.status()
    });
    let errors = errors.lock().unwrap().clone();
    assert_eq!(status.skipped, errors.len() as u64);
    assert_eq!(status.last_error, errors.last().map(ToString::to_string));
    (seen.lock().unwrap().len(), errors)
}

#[track_caller]
fn check(found: (usize, Vec<FileError>), records: usize, at: (Option<u64>, u64), kind: &str) {
    let [error] = &found.1[..] else { panic!("{found:?}") };
    assert_eq!((found.0, error.line, error.offset), (records, at.0, at.1), "{error}");
    let said = error.to_string();
    let end = said.split_once(&format!("byte {}: ", at.1)).expect(&said).1;
    assert_eq!(end, kind, "{said}");
    assert!(said.starts_with(&format!("file \"{}\"", error.path.display())), "{said}");
}

#[test]
fn of_each_thing_that_is_wrong_is_said_what_and_where() {
    let directory = directory();
    let lines = |content: &[u8]| Files::lines([written(&directory, "lines", content)]);
    let no_text = lines(b"a\nb\n\xff\xfe\nc\n");
    check(wrong(no_text), 3, (Some(3), 4), "it is not UTF-8");
    let long = "a\n".to_owned() + &"x".repeat(200_000) + "\nb\n1234\r\n";
    let found = wrong(lines(long.as_bytes()).record_bytes_max(4));
    check(found, 3, (Some(2), 2), "a record is longer than 4 bytes");
    let found = wrong(lines(b"12345").record_bytes_max(4));
    check(found, 0, (Some(1), 0), "a record is longer than 4 bytes");
    let json = lines(b"{\"customer\": \"A\", \"cents\": 1}\n{\"customer\": 7\n[]\n");
    let (records, errors) = wrong(json.json::<Order>());
    assert_eq!((records, errors.len()), (1, 2));
    assert!(errors.iter().all(|error| matches!(error.kind, FileErrorKind::Malformed(_))));
    assert_eq!(errors.iter().map(|error| error.line.unwrap()).collect::<Vec<_>>(), [2, 3]);
    assert_eq!(errors[1].offset, 45);
    let csv = |content: &str| lines(content.as_bytes()).csv::<Order>(CsvOptions::default());
    let found = wrong(csv("cents,customer\n1,A\n\"a\nb\",B\n2,C\n"));
    check(found, 2, (Some(3), 19), "field 1: invalid digit found in string");
    let found = wrong(csv("cents,customer\n1,A\n1,A,more\n"));
    check(found, 1, (Some(3), 19), "it has 3 fields, and not 2");
    let found = wrong(csv("cents,customer\n1,A\n1,\"never ends\n2,B\n").record_bytes_max(15));
    check(found, 1, (Some(3), 19), "a record is longer than 15 bytes");
    let (records, errors) = wrong(csv("\n1,A\n"));
    let text = |at: usize| errors[at].kind.to_string();
    assert_eq!((records, errors.len()), (0, 2), "{errors:?}");
    assert_eq!(text(0), "it begins with no names");
    assert_eq!(text(1), "the names of its fields could not be read");
    let there = written(&directory, "there", "a\n");
    let missing = Files::lines([directory.path().join("missing"), there.clone()]);
    check(wrong(missing), 1, (None, 0), "it is missing");
    let no_file = Files::lines([directory.path().to_owned(), there]);
    check(wrong(no_file), 1, (None, 0), "it cannot be read: it is a directory");
}

/// That is the default, and nothing that comes after it counts.
#[test]
fn what_is_wrong_stops_the_program() {
    let (runtime, directory) = (Runtime::new().unwrap(), directory());
    let path = written(&directory, "lines", b"0\n1\n\xff\n2\n");
    for workers in [1, 2] {
        let paths = [path.clone()];
        let read = move || Files::lines(paths.clone());
        let why = run(workers, &memory(), &runtime, u64::MAX, read).unwrap_err();
        let Reason::SourceFailed { source_name, why } = why else { panic!("{why}") };
        let text = format!("file \"{}\", line 3, byte 4: it is not UTF-8", path.display());
        assert_eq!((&*source_name, &*why), ("lines", &*text));
    }
    // Without snapshots as well.
    timely::execute_directly(move |worker| {
        let (handle, source) = worker.dataflow::<u64, _, _>(|scope| {
            let source = Files::lines([path]).source(scope, "lines", Times::fixed(0));
            let handle = source.handle();
            let ingress = source.ingress(|line| line.envelope(|text| READER.message(0, text)));
            (ingress.stateful_functions(functions()).unwrap().handle(), handle)
        });
        let stopped = handle.run(worker).unwrap_err();
        assert!(matches!(stopped.reason, Reason::SourceFailed { .. }), "{stopped}");
        assert!(source.status().last_error.is_some());
    });
}

/// A file that gets shorter, or in whose place another is put, is not read on as if nothing were.
#[test]
fn a_file_that_is_followed_must_stay_what_it_is() {
    let directory = directory();
    let shrinks = written(&directory, "shrinks", "a\nb\nc\n");
    let replaced = written(&directory, "replaced", "a\n");
    let stays = written(&directory, "stays", "a\n");
    let errors = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&errors);
    let files = Files::lines([shrinks.clone(), replaced.clone(), stays.clone()])
        .follow(Duration::from_millis(1))
        .skip_bad(move |error| noted.lock().unwrap().push(error.clone()));
    timely::execute_directly(move |worker| {
        let seen = Seen::default();
        let handle = read(worker, files, &seen);
        let count = |errors: usize| handle.status().skipped == errors as u64;
        until(worker, "all is read", || seen.lock().unwrap().len() == 5);
        File::create(&shrinks).unwrap().write_all(b"a\n").unwrap();
        until(worker, "it is noticed", || count(1));
        let other = written(&directory, "other", "a\nb\nc\n");
        fs::rename(other, &replaced).unwrap();
        until(worker, "it is noticed", || count(2));
        append(&stays, "b\n");
        until(worker, "the other is read", || seen.lock().unwrap().len() == 6);
        let errors = errors.lock().unwrap();
        // It may be looked at when it is empty.
        assert!(matches!(errors[0].kind, FileErrorKind::Shrank { bytes: 0 | 2 }), "{errors:?}");
        assert_eq!((errors[0].path.clone(), errors[0].offset), (shrinks, 6));
        if cfg!(unix) {
            assert_eq!((&errors[1].path, &errors[1].kind), (&replaced, &FileErrorKind::Replaced));
        }
        let dataflow = worker.installed_dataflows()[0];
        worker.drop_dataflow(dataflow);
    });
}

//! Whatever becomes of the files of its snapshots, a program goes on from a right state or not at all, and
//! says which file is wrong and why.
//!
//! A program with state, delayed messages and messages that are tried again leaves a store of three
//! snapshots behind. Every one of its files is damaged in many ways, and the program is started on it.

#[path = "support/executions.rs"]
mod executions;
mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use executions::{Execution, LIMIT, Source, on_request, run};
use serde::{Deserialize, Serialize};
use support::{Random, Running};
use timely_statefun::{
    BufferSpec, Clock, Context, Egress, Function, FunctionType, Functions, Reason, RestoreFrom,
    Retry, SnapshotError, SnapshotOptions, SnapshotPolicy, SnapshotStore, Stopped, TableSpec,
    ValueSpec,
};

const BOOK: FunctionType<Entry> = FunctionType::new("damage/book");
const PAGES: Egress<(u64, Page)> = Egress::new("damage/pages");
const BOOKS: u64 = 40;
const START_MS: u64 = 1_000_000;
/// When nothing is delayed any more, and everything succeeds.
const LATE_MS: u64 = 2_000_000;

const SUM: ValueSpec<u64> = ValueSpec::new("sum");
const COUNTS: TableSpec<u64, u64> = TableSpec::new("counts");
const ENTRIES: BufferSpec<u64> = BufferSpec::new("entries");
/// Large, and written once: so the first snapshot has several files on each worker.
const COVER: ValueSpec<String> = ValueSpec::new("cover");
const COVER_BYTES: usize = 10_000;

#[derive(Clone, Debug, Serialize, Deserialize)]
enum Entry {
    Now(u64),
    Later(u64),
    /// Fails until it is late.
    WhenLate(u64),
    Show,
}

/// What an address has: the sum of all amounts, how often there was each, and all of them.
type Page = (u64, BTreeMap<u64, u64>, Vec<u64>);

fn books(clock: &Clock) -> Functions<Entry> {
    let book = Function::new(|context: &mut Context<'_, Entry>, entry: &Entry| {
        let amount = match entry {
            Entry::Now(amount) => *amount,
            Entry::WhenLate(_) if context.now_ms() < LATE_MS => return Err("too early".into()),
            Entry::WhenLate(amount) => *amount,
            Entry::Later(amount) => {
                let this = context.id().clone();
                context.send_after(Duration::from_secs(100), BOOK, this, Entry::Now(*amount));
                return Ok(());
            }
            Entry::Show => {
                let sum = context.get(SUM).copied().unwrap_or(0);
                let counts = context.table(COUNTS).iter().map(|(of, n)| (*of, *n)).collect();
                let mut entries: Vec<_> = context.buffer(ENTRIES).iter().copied().collect();
                entries.sort_unstable();
                let id = context.id().as_number().ok_or("books are numbers")?;
                let cover = context.get(COVER).map(|cover| cover.replace(&id.to_string(), ""));
                if cover.is_some_and(|rest| id.to_string() != format!("{id}{rest}")) {
                    return Err("it has another cover".into());
                }
                context.emit(PAGES, (id, (sum, counts, entries)));
                return Ok(());
            }
        };
        if context.get(COVER).is_none() {
            let cover = context.id().to_string().repeat(COVER_BYTES);
            context.set(COVER, cover[..COVER_BYTES].to_owned());
        }
        context.update(SUM, |sum| *sum += amount);
        context.table(COUNTS).update(amount % 7, |count| *count += 1);
        context.buffer(ENTRIES).append(amount);
        Ok(())
    });
    let book = book.value(SUM).value(COVER).table(COUNTS).buffer(ENTRIES);
    let book = book.retry(Retry::attempts(1000).first(Duration::from_millis(500)));
    Functions::new().embedded(BOOK, book).egress(PAGES).clock(clock.clone())
}

/// What is read, and what comes of it.
fn source() -> (Source<Entry>, BTreeMap<u64, Page>) {
    let (mut random, mut source) = (Random(1), Source::new());
    let mut expected: BTreeMap<u64, Page> = (0..BOOKS).map(|id| (id, Page::default())).collect();
    for n in 0..400 {
        let (id, amount) = (random.below(BOOKS), random.below(1000));
        let entry = match random.below(6) {
            0 => Entry::Later(amount),
            // Each of these has an address that has nothing else to do, as what comes behind it waits.
            1 if n % 4 == 0 => Entry::WhenLate(amount),
            _ => Entry::Now(amount),
        };
        source.push((n / 100, BOOK.message(id, entry)));
        let (sum, counts, entries) = expected.get_mut(&id).unwrap();
        *sum += amount;
        *counts.entry(amount % 7).or_default() += 1;
        entries.push(amount);
    }
    expected.values_mut().for_each(|(_, _, entries)| entries.sort_unstable());
    (source, expected)
}

/// A directory that is gone with this.
struct Directory(PathBuf);

impl Directory {
    fn new(what: &str) -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, SeqCst);
        let name = format!("damage-{}-{what}-{number}", std::process::id());
        Directory(std::env::temp_dir().join(name))
    }

    fn store(&self) -> SnapshotStore {
        let options = SnapshotOptions { part_bytes: 300, ..SnapshotOptions::default() };
        SnapshotStore::directory(&self.0, options).unwrap()
    }

    /// Another directory with the same files.
    fn copy(&self) -> Directory {
        let copy = Directory::new("copy");
        for (file, bytes) in self.files() {
            copy.write(&file, &bytes);
        }
        copy
    }

    fn write(&self, file: &str, bytes: &[u8]) {
        let path = self.0.join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    /// All files, by name from the root.
    fn files(&self) -> BTreeMap<String, Vec<u8>> {
        fn gather(root: &Path, at: &Path, files: &mut BTreeMap<String, Vec<u8>>) {
            for entry in std::fs::read_dir(at).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    gather(root, &path, files);
                } else {
                    let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                    files.insert(name, std::fs::read(&path).unwrap());
                }
            }
        }
        let mut files = BTreeMap::new();
        gather(&self.0, &self.0, &mut files);
        files
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Three snapshots of a program on two workers, each of which builds upon the one before. Salt makes another
/// program of the same name.
fn some_store(salt: u64) -> Directory {
    let directory = Directory::new("store");
    let (clock, _hands) = Clock::turned(START_MS + salt);
    let (all, _) = source();
    let script = move |run: &mut Execution<'_, Entry, (u64, Page)>| {
        for end in [250, 300, 340] {
            run.give(&all[(salt as usize % 2).min(end)..end]);
            run.input.as_mut().unwrap().advance_to(end as u64 / 100);
            let admitted = run.handle.admitted().clone();
            run.until("all is admitted", |_| !admitted.less_than(&(end as u64 / 100)));
            run.cut();
        }
    };
    run(2, &directory.store(), &on_request(), move || books(&clock), PAGES, script).unwrap();
    directory
}

/// What came of starting the program.
#[derive(Debug)]
enum Outcome {
    /// It goes on from the snapshot of this cut, or from none, and all it knows in the end is right.
    Right(Option<u64>),
    Refused(SnapshotError),
    Stopped(Stopped),
}

/// Starts the program, which reads the source to its end.
fn start(directory: &Directory, policy: &SnapshotPolicy) -> Outcome {
    let (clock, hands) = Clock::turned(START_MS);
    let script = move |run: &mut Execution<'_, Entry, (u64, Page)>| {
        let (mut all, expected) = source();
        let began = Instant::now();
        run.give(&all);
        let mut time = 10;
        loop {
            // Everything that was set before is due then.
            hands.advance(Duration::from_millis(LATE_MS - START_MS));
            all.extend((0..BOOKS).map(|id| (time, BOOK.message(id, Entry::Show))));
            run.give(&all);
            time += 1;
            run.input.as_mut().unwrap().advance_to(time);
            let probe = run.probe.clone();
            run.handle.run_while(run.worker, || probe.less_than(&time))?;
            let shown: BTreeMap<_, _> = run.seen.take().into_iter().map(|(_, page)| page).collect();
            // Delayed messages hold no time, so some may still be on their way.
            if shown == expected {
                return Ok(run.snapshots.restored().map(|restored| restored.cut));
            }
            for (id, (sum, ..)) in &shown {
                assert!(*sum <= expected[id].0, "book {id} has too much");
            }
            assert!(began.elapsed() < LIMIT / 4, "it never gets right: {shown:?}");
        }
    };
    let store = directory.store();
    match run(1, &store, policy, move || books(&clock), PAGES, script) {
        Err(error) => Outcome::Refused(error),
        Ok(mut ran) => match ran.swap_remove(0) {
            Ok(cut) => Outcome::Right(cut),
            Err(stopped) => Outcome::Stopped(stopped),
        },
    }
}

/// How often there was which outcome.
#[derive(Debug, Default)]
struct Tally {
    right: usize,
    refused: usize,
    stopped: usize,
}

/// Starts the program on a damaged store in every way. `files` are those that may be named.
fn try_all(damaged: &Directory, files: &[String], tally: &mut Tally) {
    let names = |text: &str| {
        let named = files.iter().any(|file| text.contains(file.as_str()));
        assert!(named, "it names none of {files:?}: {text}");
    };
    for verify in [true, false] {
        let outcome = start(&damaged.copy(), &on_request().verify(verify));
        match outcome {
            Outcome::Right(_) => tally.right += 1,
            Outcome::Refused(error) => {
                tally.refused += 1;
                let text = error.to_string();
                names(&text);
                let is_typed = error.is_damaged() || error.is_missing() || error.is_newer_version();
                assert!(is_typed || error.is_foreign(), "{text}");
                if let Some(cut) = error.offered() {
                    assert!(text.contains(&format!("cut {cut}")), "{text}");
                    let policy = on_request().verify(verify).restore(RestoreFrom::Cut(cut));
                    let offered = start(&damaged.copy(), &policy);
                    match offered {
                        Outcome::Right(from) => assert_eq!(from, Some(cut)),
                        // What was not looked at was not known to be whole.
                        Outcome::Stopped(stopped) if !verify => names(&stopped.to_string()),
                        other => panic!("what was offered is not whole: {other:?}"),
                    }
                }
            }
            Outcome::Stopped(stopped) => {
                tally.stopped += 1;
                assert!(!verify, "it was known to be whole: {stopped}");
                assert!(matches!(stopped.reason, Reason::NotRestored(_)), "{stopped}");
                names(&stopped.to_string());
            }
        }
    }
    match start(&damaged.copy(), &on_request().restore(RestoreFrom::NewestWhole)) {
        Outcome::Right(_) => {}
        Outcome::Refused(error) if error.is_foreign() => {}
        other => panic!("the newest whole snapshot is not found: {other:?}"),
    }
}

#[test]
fn an_undamaged_store_is_restored_from_its_newest_snapshot() {
    let store = some_store(0);
    let (manifests, parts): (Vec<_>, Vec<_>) =
        store.files().into_keys().partition(|file| file.starts_with("manifest/"));
    assert_eq!(manifests.len(), 4, "a claim and three commits");
    assert!(parts.len() > 8, "{parts:?}");
    let outcome = start(&store.copy(), &on_request());
    assert!(matches!(outcome, Outcome::Right(Some(3))), "{outcome:?}");
}

/// Each file is cut short, flipped, emptied and taken away.
#[test]
fn a_file_that_is_damaged_is_named_and_the_newest_whole_snapshot_is_offered() {
    let seed = 5;
    let _running = Running(format!("seed {seed}"));
    let (mut random, began) = (Random(seed), Instant::now());
    let store = some_store(0);
    let mut tally = Tally::default();
    for (file, bytes) in store.files() {
        let length = bytes.len() as u64;
        let mut damages: Vec<Option<Vec<u8>>> = vec![None, Some(Vec::new())];
        damages.extend((0..2).map(|_| Some(bytes[..random.below(length) as usize].to_vec())));
        damages.push(Some([&bytes[..], &[0]].concat()));
        // Somewhere, and where the file says what it is.
        for at in [random.below(length), random.below(length), random.below(16), length - 1] {
            let mut flipped = bytes.clone();
            flipped[at as usize] ^= 1 << random.below(8);
            damages.push(Some(flipped));
        }
        let at = random.below(length) as usize;
        let zeroes = bytes.iter().enumerate().map(|(n, byte)| if n < at { *byte } else { 0 });
        damages.push(Some(zeroes.collect()));
        for damage in damages {
            let damaged = store.copy();
            match &damage {
                Some(bytes) => damaged.write(&file, bytes),
                None => std::fs::remove_file(damaged.0.join(&file)).unwrap(),
            }
            let length = damage.as_ref().map(Vec::len);
            let _running = Running(format!("{file} of {} bytes, now {length:?}", bytes.len()));
            // Where the newest commit is gone, the one before is the newest, and nothing is wrong.
            try_all(&damaged, std::slice::from_ref(&file), &mut tally);
        }
    }
    println!("{tally:?} in {:.1?}", began.elapsed());
    assert!(tally.refused > 50 && tally.stopped > 10 && tally.right > 1, "{tally:?}");
}

/// Files of one snapshot in the place of those of another, and of another store.
#[test]
fn files_that_are_mixed_make_no_third_state() {
    let seed = 6;
    let _running = Running(format!("seed {seed}"));
    let (mut random, began) = (Random(seed), Instant::now());
    let (store, other) = (some_store(0), some_store(1));
    let (files, others) = (store.files(), other.files());
    let names: Vec<_> = files.keys().cloned().collect();
    let mut tally = Tally::default();
    for file in &names {
        let kind = file.split('/').next().unwrap();
        let same_kind = |name: &&String| name.starts_with(kind) && *name != file;
        let siblings: Vec<_> = names.iter().filter(same_kind).collect();
        let sibling = siblings[random.below(siblings.len() as u64) as usize];
        let mut instead = vec![&files[sibling]];
        instead.extend(others.get(file).filter(|bytes| **bytes != files[file]));
        for bytes in instead {
            let mixed = store.copy();
            mixed.write(file, bytes);
            let _running = Running(format!("{file} is another, as {sibling}"));
            let may_be_named: Vec<_> = match kind {
                "part" => vec![file.clone()],
                // A commit of another store names parts that are not there.
                _ => names.iter().cloned().chain(others.keys().cloned()).collect(),
            };
            try_all(&mixed, &may_be_named, &mut tally);
        }
        // Two files that have changed places.
        let mixed = store.copy();
        mixed.write(file, &files[sibling]);
        mixed.write(sibling, &files[file]);
        try_all(&mixed, &[file.clone(), sibling.clone()], &mut tally);
    }
    println!("{tally:?} in {:.1?}", began.elapsed());
    assert!(tally.refused > 20 && tally.stopped > 3, "{tally:?}");
}

/// What was never written by this library lies among the files.
#[test]
fn what_does_not_belong_to_the_store_is_left_alone_or_named() {
    let store = some_store(0);
    let strangers: [(&str, &[u8]); 8] = [
        ("README", b"hello"),
        ("manifest/README", b"hello"),
        ("manifest/5", b"hello"),
        ("manifest/00000000000000000005#1", b"half of a manifest"),
        ("manifest/99999999999999999999", b"no slot: it is more than there can be"),
        ("manifest/18446744073709551615", b"the highest number"),
        ("part/README", b"hello"),
        ("part/00000000000000000001/00000000000000000009/000000-000000", b"never committed"),
    ];
    for (file, bytes) in strangers {
        let _running = Running(file.to_owned());
        let with = store.copy();
        with.write(file, bytes);
        let outcome = start(&with, &on_request());
        assert!(matches!(outcome, Outcome::Right(Some(3))), "{outcome:?}");
        assert_eq!(std::fs::read(with.0.join(file)).unwrap(), bytes, "it is not touched");
    }
    // In the place of an entry of the log it is one that cannot be read.
    let with = store.copy();
    with.write("manifest/00000000000000000005", b"hello");
    try_all(&with, &["manifest/00000000000000000005".to_owned()], &mut Tally::default());
}

#[test]
fn a_store_of_another_program_is_refused_by_both_names() {
    let store = some_store(0);
    for from in [RestoreFrom::Newest, RestoreFrom::NewestWhole, RestoreFrom::Nothing] {
        let policy = SnapshotPolicy::new("another").on_request().restore(from);
        let Outcome::Refused(error) = start(&store, &policy) else { panic!("it is refused") };
        assert!(error.is_foreign(), "{error}");
        let text = error.to_string();
        assert!(text.contains("\"test\"") && text.contains("\"another\""), "{text}");
    }
    let outcome = start(&store, &on_request());
    assert!(matches!(outcome, Outcome::Right(Some(3))), "nothing was touched: {outcome:?}");
}

/// The same file as a later version of this library would begin it.
fn newer(bytes: &[u8]) -> Vec<u8> {
    let mut newer = bytes.to_vec();
    newer[8..12].copy_from_slice(&9_u32.to_le_bytes());
    let sum = twox_hash::XxHash3_64::oneshot(&newer[..12]) as u32;
    newer[12..16].copy_from_slice(&sum.to_le_bytes());
    newer
}

#[test]
fn what_a_newer_version_wrote_is_refused_by_name() {
    let store = some_store(0);
    let files = store.files();
    let (newest, before) = ("manifest/00000000000000000004", "manifest/00000000000000000003");
    let part = files.keys().rfind(|file| file.starts_with("part/")).unwrap();
    for (file, offered) in [(newest, Some(2)), (part.as_str(), Some(2))] {
        let with = store.copy();
        with.write(file, &newer(&files[file]));
        let Outcome::Refused(error) = start(&with, &on_request()) else { panic!("{file}") };
        let text = error.to_string();
        assert!(error.is_newer_version(), "{text}");
        assert!(text.contains(file) && text.contains('9'), "{text}");
        assert_eq!(error.offered(), offered, "{text}");
        try_all(&with, &[file.to_owned()], &mut Tally::default());
    }
    // An older entry that cannot be read is no matter for those who want the newest.
    let with = store.copy();
    with.write(before, &newer(&files[before]));
    let outcome = start(&with, &on_request());
    assert!(matches!(outcome, Outcome::Right(Some(3))), "{outcome:?}");
}

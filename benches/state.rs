//! What do tables, buffers, delayed messages and asynchronous operations cost, beside the plainest thing
//! that does the same work without addresses, undo or a dataflow?
//!
//! * Entries of tables: a thousand changes an invocation, in one table of a million entries and in a
//!   hundred thousand small ones; the *ceiling* is a `HashMap` of a standard `HashMap`.
//! * Elements of buffers: the ceiling is a `HashMap` of `Vec`.
//! * Delayed messages: ten million are set with delays up to an hour, and sent off as a turned clock
//!   passes them; a million are set with tokens and cancelled. The ceiling is a `BinaryHeap` by due time
//!   and number, and where they are cancelled a `HashMap` by token beside it.
//! * Asynchronous operations that are ready at once, as many under way as may be: the ceiling spawns the
//!   same futures and takes their outcomes from a channel.
//! * Values that are watched, whose changes are read, and values that are not where others are: the ceiling is
//!   a program that watches nothing. The second must be at least 0.98 of it.
//! * Look-ups from another thread: the ceiling is a `HashMap` behind a lock.
//! * Addresses that keep one number each: what they take, beside a `HashMap` of ids and numbers.
//! * A snapshot written offline from records that come in no order, and read: the ceiling sorts pairs of
//!   numbers in memory, writes them into a file, and reads it. How much memory the library takes is printed as well.
//!
//! `cargo bench --bench state`, or `-- --quick` for a minute or two. Each figure is one line of JSON; what
//! a person wants to know goes to the standard error. Every case has a process of its own, since memory
//! is what the process has resident.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::fs::File;
use std::hint::black_box;
use std::io::{BufReader, BufWriter, Read, Write};
use std::process::Command;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use timely::dataflow::operators::{Input, Inspect};
use timely_statefun::archive::{Archive, Description, Draft, Record};
use timely_statefun::{
    BufferSpec, Clock, ClockHands, Envelope, Function, FunctionType, Functions, Handle, Id, Limits,
    LookUps, Outcome, SnapshotOptions, SnapshotStore, StatefulFunctions, TableSpec, ValueSpec,
};

const WORKER: FunctionType<Job> = FunctionType::new("bench/worker");
const SINK: FunctionType<Job> = FunctionType::new("bench/sink");
const TABLE: TableSpec<u64, u64> = TableSpec::new("table");
const BUFFER: BufferSpec<u64> = BufferSpec::new("buffer");

#[derive(Clone, Debug, Serialize, Deserialize)]
enum Job {
    /// Changes so many entries with keys below a bound.
    Entries {
        seed: u64,
        changes: u64,
        keys: u64,
    },
    Elements {
        changes: u64,
    },
    Clear,
    /// Sends so many delayed messages, with tokens or without.
    Delays {
        seed: u64,
        messages: u64,
        tokens: bool,
    },
    Cancel {
        seed: u64,
        messages: u64,
    },
    Due(u64),
    Operations(u64),
    Told(Outcome<u64>),
}

const HOUR_MS: u64 = 3_600_000;

fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

fn functions(clock: Clock, runtime: &tokio::runtime::Handle) -> Functions<Job> {
    let worker = Function::new(|context, job: &Job| {
        match job {
            Job::Entries { seed, changes, keys } => {
                let mut table = context.table(TABLE);
                for number in 0..*changes {
                    let drawn = mix(seed + number);
                    table.insert(drawn % keys, drawn);
                }
            }
            Job::Elements { changes } => {
                let mut buffer = context.buffer(BUFFER);
                (0..*changes).for_each(|element| buffer.append(element));
            }
            Job::Clear => {
                context.table(TABLE).clear();
                context.buffer(BUFFER).clear();
            }
            Job::Delays { seed, messages, tokens } => {
                for number in *seed..seed + messages {
                    let delay = Duration::from_millis(1 + mix(number) % HOUR_MS);
                    let message = Job::Due(number);
                    if *tokens {
                        let token = number.to_string();
                        context.send_after_unless_cancelled(&token, delay, SINK, 0, message)?;
                    } else {
                        context.send_after(delay, SINK, 0, message);
                    }
                }
            }
            Job::Cancel { seed, messages } => {
                for number in *seed..seed + messages {
                    if !context.cancel(&number.to_string()) {
                        return Err("it was there".into());
                    }
                }
            }
            Job::Operations(operations) => {
                for number in 0..*operations {
                    let operation = async move { Ok::<_, std::io::Error>(number) };
                    context.start(operation, Job::Told);
                }
            }
            Job::Due(_) | Job::Told(_) => {}
        }
        Ok(())
    });
    let sink = Function::new(|_, job: &Job| {
        black_box(job);
        Ok(())
    });
    Functions::new()
        .embedded(WORKER, worker.table(TABLE).buffer(BUFFER).operations(IN_FLIGHT))
        .embedded(SINK, sink)
        .clock(clock)
        .runtime(runtime.clone())
        .limits(Limits { operations_max: IN_FLIGHT + 2, ..Limits::default() })
}

const IN_FLIGHT: usize = 1024;

/// A program that is given jobs and waits until they are done.
struct Bench<'w> {
    worker: &'w mut timely::worker::Worker,
    input: timely::dataflow::InputHandleVec<u64, Envelope<Job>>,
    handle: Handle<u64>,
    hands: ClockHands,
}

impl Bench<'_> {
    /// How long the jobs take, until so many messages have been handled because of them.
    fn time(&mut self, jobs: impl IntoIterator<Item = (u64, Job)>, handled: u64) -> Duration {
        let until = self.handle.stats().handled + handled;
        let began = Instant::now();
        for (id, job) in jobs {
            self.input.send(WORKER.message(id, job));
        }
        self.input.flush();
        self.wait(until);
        began.elapsed()
    }

    fn wait(&mut self, until: u64) {
        let handle = &self.handle;
        handle
            .run_while(self.worker, || handle.stats().handled < until)
            .unwrap_or_else(|stopped| panic!("{stopped}"));
    }
}

/// Bytes this process has in memory.
fn resident_bytes() -> f64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<f64>().ok());
    pages.unwrap_or(f64::NAN) * 4096.0
}

fn print(case: &str, metric: &str, value: f64) {
    println!(
        "{{\"bench\":\"state\",\"case\":\"{case}\",\"metric\":\"{metric}\",\"value\":{value:.3}}}"
    );
}

fn compare(case: &str, of: f64, library: Duration, ceiling: Duration) {
    let (ours, theirs) = (of / library.as_secs_f64(), of / ceiling.as_secs_f64());
    print(case, "ceiling_per_second", theirs);
    print(case, "per_second", ours);
    print(case, "ratio_to_ceiling", ours / theirs);
    let (ours, theirs) = (ours / 1e6, theirs / 1e6);
    eprintln!("{case}: {ours:.2} of {theirs:.2} M/s, ratio {:.2}", ours / theirs);
}

fn bytes(case: &str, library: f64, ceiling: f64, of: f64) {
    print(case, "ceiling_bytes_each", ceiling / of);
    print(case, "bytes_each", library / of);
    eprintln!("{case}: {:.1} bytes each, ceiling {:.1}", library / of, ceiling / of);
}

const A_JOB: u64 = 1000;

/// Entries of tables, of `ids` addresses with `keys` keys each.
fn tables(bench: &mut Bench<'_>, case: &str, ids: u64, keys: u64, changes: u64) {
    let fill = ids * keys * 3 / A_JOB;
    let changes = changes / A_JOB;
    let per_id = A_JOB.min(keys * 3);
    let jobs = |from: u64, jobs: u64| {
        let jobs = jobs * (A_JOB / per_id);
        (from..from + jobs).map(move |number| {
            let id = if ids == 1 { 0 } else { mix(number) % ids };
            (id, Job::Entries { seed: mix(number), changes: per_id, keys })
        })
    };
    let count = |count: u64| count * (A_JOB / per_id);

    let before = resident_bytes();
    bench.time(jobs(0, fill), count(fill));
    let library_bytes = resident_bytes() - before;
    let library = bench.time(jobs(fill, changes), count(changes));

    let before = resident_bytes();
    let mut ceiling: HashMap<u64, HashMap<u64, u64>> = HashMap::new();
    let mut change = |(id, job): (u64, Job)| {
        let Job::Entries { seed, changes, keys } = job else { return };
        let table = ceiling.entry(id).or_default();
        for number in 0..changes {
            let drawn = mix(seed + number);
            table.insert(drawn % keys, drawn);
        }
    };
    jobs(0, fill).for_each(&mut change);
    let ceiling_bytes = resident_bytes() - before;
    let began = Instant::now();
    jobs(fill, changes).for_each(&mut change);
    let took = began.elapsed();
    let entries: usize = ceiling.values().map(HashMap::len).sum();
    compare(case, (changes * A_JOB) as f64, library, took);
    bytes(case, library_bytes, ceiling_bytes, entries as f64);
    bench.time((0..ids).map(|id| (id, Job::Clear)), ids);
}

/// Elements of buffers of `ids` addresses.
fn buffers(bench: &mut Bench<'_>, case: &str, ids: u64, elements: u64) {
    let changes = (elements / ids).min(A_JOB);
    let jobs = || (0..elements / changes).map(|n| (n % ids, Job::Elements { changes }));
    let before = resident_bytes();
    let library = bench.time(jobs(), elements / changes);
    let library_bytes = resident_bytes() - before;
    let before = resident_bytes();
    let began = Instant::now();
    let mut ceiling: HashMap<u64, Vec<u64>> = HashMap::new();
    for (id, _) in jobs() {
        let buffer = ceiling.entry(id).or_default();
        (0..changes).for_each(|element| buffer.push(element));
    }
    let took = began.elapsed();
    let ceiling_bytes = resident_bytes() - before;
    compare(case, elements as f64, library, took);
    bytes(case, library_bytes, ceiling_bytes, elements as f64);
    black_box(ceiling);
    bench.time((0..ids).map(|id| (id, Job::Clear)), ids);
}

/// What a delayed message is made of, for the ceiling.
struct Timer {
    number: u64,
    _target: [u64; 3],
    _caller: [u64; 3],
}

fn timer(number: u64) -> Timer {
    Timer { number, _target: [number; 3], _caller: [number; 3] }
}

type Heap = BinaryHeap<Reverse<(u64, u64)>>;

/// Delayed messages: set, and sent off as the clock passes them, a second at a time.
fn delays(bench: &mut Bench<'_>, messages: u64) {
    let ids = 1000;
    let jobs = || {
        let jobs = (0..messages / A_JOB).map(|job| (job % ids, job * A_JOB));
        jobs.map(|(id, seed)| (id, Job::Delays { seed, messages: A_JOB, tokens: false }))
    };
    let before = resident_bytes();
    let set = bench.time(jobs(), messages / A_JOB);
    let library_bytes = resident_bytes() - before;
    let (until, began) = (bench.handle.stats().handled + messages, Instant::now());
    for _ in 0..HOUR_MS / 1000 + 1 {
        bench.hands.advance(Duration::from_secs(1));
        bench.worker.step();
    }
    bench.wait(until);
    let fired = began.elapsed();

    let before = resident_bytes();
    let began = Instant::now();
    let (mut heap, mut timers) = (Heap::new(), Vec::new());
    for number in 0..messages {
        heap.push(Reverse((1 + mix(number) % HOUR_MS, number)));
        timers.push(timer(number));
    }
    let heap_set = began.elapsed();
    let heap_bytes = resident_bytes() - before;
    let began = Instant::now();
    while let Some(Reverse((_, number))) = heap.pop() {
        black_box(timers[number as usize].number);
    }
    let heap_fired = began.elapsed();
    let millions = messages / 1_000_000;
    compare(&format!("{millions}M delayed messages, set"), messages as f64, set, heap_set);
    compare(&format!("{millions}M delayed messages, sent off"), messages as f64, fired, heap_fired);
    bytes(&format!("{millions}M delayed messages"), library_bytes, heap_bytes, messages as f64);
}

/// Delayed messages with tokens: set, and cancelled.
fn cancellations(bench: &mut Bench<'_>, messages: u64) {
    let ids = 1000;
    let jobs = |cancel: bool| {
        let jobs = (0..messages / A_JOB).map(|job| (job % ids, job * A_JOB));
        jobs.map(move |(id, seed)| match cancel {
            false => (id, Job::Delays { seed, messages: A_JOB, tokens: true }),
            true => (id, Job::Cancel { seed, messages: A_JOB }),
        })
    };
    let set = bench.time(jobs(false), messages / A_JOB);
    let cancelled = bench.time(jobs(true), messages / A_JOB);
    let began = Instant::now();
    let mut heap = Heap::new();
    let mut tokens: HashMap<(u64, String), Timer> = HashMap::new();
    for number in 0..messages {
        heap.push(Reverse((1 + mix(number) % HOUR_MS, number)));
        tokens.insert((number / A_JOB % ids, number.to_string()), timer(number));
    }
    let ceiling_set = began.elapsed();
    let began = Instant::now();
    for number in 0..messages {
        // The heap forgets what is cancelled when it comes to it.
        black_box(tokens.remove(&(number / A_JOB % ids, number.to_string())));
    }
    let ceiling_cancelled = began.elapsed();
    compare("delayed messages with tokens, set", messages as f64, set, ceiling_set);
    let case = "delayed messages with tokens, cancelled";
    compare(case, messages as f64, cancelled, ceiling_cancelled);
}

fn operations(bench: &mut Bench<'_>, runtime: &tokio::runtime::Handle, operations: u64) {
    let jobs = (0..operations / 100).map(|job| (job % 1000, Job::Operations(100)));
    let library = bench.time(jobs, operations / 100 + operations);
    let (sender, outcomes) = std::sync::mpsc::channel();
    let began = Instant::now();
    let (mut begun, mut ended) = (0, 0);
    while ended < operations {
        while begun < operations && begun - ended < IN_FLIGHT as u64 {
            let (sender, number) = (sender.clone(), begun);
            runtime.spawn(async move { sender.send(Ok::<u64, std::io::Error>(number)) });
            begun += 1;
        }
        ended += u64::from(outcomes.recv().is_ok());
        ended += outcomes.try_iter().count() as u64;
    }
    compare("asynchronous operations", operations as f64, library, began.elapsed());
}

/// What of a program is watched.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Watches {
    Nothing,
    /// A value that is not written.
    Another,
    It,
}

const COUNTER: FunctionType<u64> = FunctionType::new("bench/counter");
const OTHER: FunctionType<u64> = FunctionType::new("bench/other");
const COUNT: ValueSpec<u64> = ValueSpec::new("count");
const IDS: u64 = 100_000;

/// A program of functions that count.
struct Counting {
    input: timely::dataflow::InputHandleVec<u64, Envelope<u64>>,
    handle: Handle<u64>,
    look_ups: Option<LookUps<(), u64>>,
    times: u64,
    sent: u64,
}

impl Counting {
    fn new(worker: &mut timely::worker::Worker, watches: Watches, looks: bool) -> Self {
        let look_ups = looks.then(|| LookUps::new(1));
        let (input, handle) = worker.dataflow::<u64, _, _>(|scope| {
            let (input, stream) = scope.new_input::<Vec<Envelope<u64>>>();
            let counter = || {
                Function::new(|context, number: &u64| {
                    context.update(COUNT, |count| *count += number);
                    Ok(())
                })
                .value(COUNT)
            };
            let functions = Functions::new().embedded(COUNTER, counter());
            let functions = functions.embedded(OTHER, counter());
            let functions = match watches {
                Watches::Nothing => functions,
                Watches::Another => functions.watched(OTHER, COUNT),
                Watches::It => functions.watched(COUNTER, COUNT),
            };
            let egresses = stream.stateful_functions(functions).expect("bound once each");
            if watches == Watches::It {
                let changes = egresses.changes(COUNTER, COUNT).expect("it is watched");
                changes.inspect(|change| _ = black_box(change));
            }
            if let Some(look_ups) = &look_ups {
                egresses.look_ups(COUNTER, COUNT, look_ups).expect("it is watched");
            }
            (input, egresses.handle())
        });
        Counting { input, handle, look_ups, times: 0, sent: 0 }
    }

    /// How long it takes to count so many messages, at a time of their own.
    fn time(&mut self, worker: &mut timely::worker::Worker, messages: u64) -> Duration {
        let began = Instant::now();
        self.fill(worker, (self.sent..self.sent + messages).map(|number| mix(number) % IDS));
        began.elapsed()
    }

    /// Counts once for each id, at a time of their own.
    fn fill(&mut self, worker: &mut timely::worker::Worker, ids: impl IntoIterator<Item = u64>) {
        for id in ids {
            self.input.send(COUNTER.message(id, 1));
            self.sent += 1;
        }
        self.times += 1;
        self.input.advance_to(self.times);
        let (handle, sent) = (&self.handle, self.sent);
        handle
            .run_while(worker, || handle.stats().handled < sent)
            .unwrap_or_else(|stopped| panic!("{stopped}"));
    }
}

/// Values that are watched, and values that are not where others are.
fn watched(quick: bool) {
    let (rounds, messages) = if quick { (9, 300_000) } else { (25, 1_000_000) };
    timely::execute_directly(move |worker| {
        let watches = [Watches::Nothing, Watches::Another, Watches::It];
        let mut programs = watches.map(|watches| Counting::new(worker, watches, false));
        let mut best = [Duration::MAX; 3];
        // In turns, so that whatever else the machine does concerns them all.
        for round in 0..=rounds {
            for (program, best) in programs.iter_mut().zip(&mut best) {
                let took = program.time(worker, messages);
                // The first time, addresses come into being.
                *best = if round == 0 { *best } else { took.min(*best) };
            }
        }
        let [nothing, another, it] = best;
        compare("values that are not watched, where others are", messages as f64, another, nothing);
        compare("values whose changes are read", messages as f64, it, nothing);
        for Counting { input, handle, .. } in programs {
            input.close();
            handle.run(worker).expect("nothing fails");
        }
    });
}

/// Look-ups from another thread.
fn look_ups(quick: bool) {
    let look_ups = timely::execute_directly(|worker| {
        let mut program = Counting::new(worker, Watches::It, true);
        program.time(worker, IDS * 10);
        let Counting { input, handle, look_ups, .. } = program;
        input.close();
        handle.run(worker).expect("nothing fails");
        look_ups.expect("it has some")
    });
    let count = if quick { 3_000_000u64 } else { 30_000_000 };
    let ids: Vec<Id> = (0..IDS).map(Id::from).collect();
    let began = Instant::now();
    for number in 0..count {
        let id = &ids[(mix(number) % IDS) as usize];
        black_box(look_ups.get(id, &()).expect("all workers have attached"));
    }
    let library = began.elapsed();
    let ceiling: HashMap<Id, u64> = ids.iter().map(|id| (id.clone(), 10)).collect();
    let ceiling = std::sync::RwLock::new(ceiling);
    let began = Instant::now();
    for number in 0..count {
        let id = &ids[(mix(number) % IDS) as usize];
        black_box(ceiling.read().expect("nobody panics").get(id).copied());
    }
    compare("look-ups", count as f64, library, began.elapsed());
}

/// What addresses take that keep one number each.
fn addresses(quick: bool) {
    let ids = if quick { 1_000_000u64 } else { 10_000_000 };
    let before = resident_bytes();
    timely::execute_directly(move |worker| {
        let mut program = Counting::new(worker, Watches::Nothing, false);
        let idle = resident_bytes();
        // Not all at once: messages that wait take memory as well.
        for from in (0..ids).step_by(100_000) {
            program.fill(worker, from..from + 100_000);
        }
        let library = resident_bytes() - idle;
        let between = resident_bytes();
        let ceiling: HashMap<Id, u64> = (0..ids).map(|id| (Id::from(id), 1)).collect();
        bytes("addresses with a number each", library, resident_bytes() - between, ids as f64);
        print("a program without addresses", "bytes", idle - before);
        black_box(ceiling);
        program.input.close();
        program.handle.run(worker).expect("nothing fails");
    });
}

/// The most that this process had in memory at any time.
fn peak_bytes() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kibibytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok());
    kibibytes.unwrap_or(f64::NAN) * 1024.0
}

/// A snapshot from records, and records from a snapshot.
fn archive(quick: bool) {
    let records = if quick { 1_000_000u64 } else { 10_000_000 };
    let directory = tempfile::tempdir().expect("there is a directory for what is temporary");
    let store = SnapshotStore::directory(directory.path(), SnapshotOptions::default());
    let store = store.expect("the directory is there");
    let archive = Archive::of(&store).expect("a runtime can be built");
    let draft = Draft::of("functions");
    let began = Instant::now();
    let drawn = (0..records).map(|number| draft.value(COUNTER, mix(number), COUNT, &number));
    let description = Description::beginning("bench", &0u64).expect("a number can be written");
    let info = archive.write(&description, drawn).expect("nothing fails");
    let imported = began.elapsed();
    let began = Instant::now();
    let snapshot = archive.newest().expect("it was written");
    let sum = snapshot.records().map(|record| match record {
        Ok(Record::State(state)) => state.address.id.as_number().expect("ids are numbers") & 1,
        other => panic!("there is only state: {other:?}"),
    });
    black_box(sum.sum::<u64>());
    let exported = began.elapsed();
    let peak = peak_bytes();

    let path = directory.path().join("plain");
    let began = Instant::now();
    let mut plain: Vec<(u64, u64)> = (0..records).map(|number| (mix(number), number)).collect();
    plain.sort_unstable();
    let mut file = BufWriter::new(File::create(&path).expect("the directory is there"));
    for (id, number) in plain {
        file.write_all(&id.to_le_bytes()).expect("the disk has room");
        file.write_all(&number.to_le_bytes()).expect("the disk has room");
    }
    let file = file.into_inner().expect("the disk has room");
    file.sync_all().expect("the disk works");
    let written = began.elapsed();
    let began = Instant::now();
    let mut file = BufReader::new(File::open(&path).expect("it was written"));
    let (mut record, mut sum) = ([0; 16], 0u64);
    while file.read_exact(&mut record).is_ok() {
        sum += u64::from(record[0]) & 1;
    }
    black_box(sum);
    let read = began.elapsed();

    let size = info.bytes as f64;
    compare("records imported", records as f64, imported, written);
    compare("records exported", records as f64, exported, read);
    print("records imported", "bytes_per_second", size / imported.as_secs_f64());
    print("records exported", "bytes_per_second", size / exported.as_secs_f64());
    print("records", "bytes_each", size / records as f64);
    print("records", "peak_bytes", peak);
    eprintln!(
        "{records} records: {:.1} bytes each, {:.0} MB/s imported, {:.0} MB/s exported, in {:.0} MiB of memory",
        size / records as f64,
        size / imported.as_secs_f64() / 1e6,
        size / exported.as_secs_f64() / 1e6,
        peak / 1048576.0
    );
}

/// The cases, by name.
const CASES: &[&str] = &[
    "table",
    "tables",
    "buffer",
    "buffers",
    "delays",
    "tokens",
    "operations",
    "watched",
    "look-ups",
    "addresses",
    "archive",
];

fn run(case: &str, quick: bool, bench: &mut Bench<'_>, runtime: &tokio::runtime::Handle) {
    let changes = if quick { 3_000_000 } else { 30_000_000 };
    match case {
        "table" => tables(bench, "entries of one table of 1M", 1, 1_000_000, changes),
        "tables" => tables(bench, "entries of 100k tables of 10", 100_000, 10, changes),
        "buffer" => buffers(bench, "elements of one buffer", 1, changes * 4),
        "buffers" => buffers(bench, "elements of 100k buffers", 100_000, changes * 4),
        "delays" => delays(bench, 10_000_000),
        "tokens" => cancellations(bench, if quick { 1_000_000 } else { 10_000_000 }),
        "operations" => operations(bench, runtime, if quick { 300_000 } else { 3_000_000 }),
        _ => panic!("\"{case}\" is none of {CASES:?}"),
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let quick = std::env::args().any(|argument| argument == "--quick");
    let Some(case) =
        arguments.find_map(|argument| argument.strip_prefix("case=").map(str::to_owned))
    else {
        let program = std::env::current_exe().expect("this program has a path");
        for case in CASES {
            let mut command = Command::new(&program);
            command.arg(format!("case={case}")).args(quick.then_some("--quick"));
            let status = command.status().expect("this program can be started");
            assert!(status.success(), "{case}: {status}");
        }
        return;
    };
    match &*case {
        "watched" => return watched(quick),
        "look-ups" => return look_ups(quick),
        "addresses" => return addresses(quick),
        "archive" => return archive(quick),
        _ => {}
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build();
    let runtime = runtime.expect("a runtime can be built");
    let on = runtime.handle().clone();
    timely::execute_directly(move |worker| {
        let (clock, hands) = Clock::turned(1_700_000_000_000);
        let (input, handle) = worker.dataflow::<u64, _, _>(|scope| {
            let (input, stream) = scope.new_input::<Vec<Envelope<Job>>>();
            let functions = functions(clock, &on);
            (input, stream.stateful_functions(functions).expect("bound once each").handle())
        });
        let mut bench = Bench { worker, input, handle, hands };
        run(&case, quick, &mut bench, &on);
        bench.input.close();
        bench.handle.run(bench.worker).expect("nothing fails");
    });
}

//! The job of the example `cascades` finds what a model finds that uses nothing of it.
//!
//! The model sorts the calls of each phone and joins what is linked with a union-find. The job must
//! agree with it on the real input and on small random ones, however the work is spread and in
//! whatever order messages arrive.
//!
//! The tests of the program itself need it built: `cargo test` does so. Before `cargo test --test
//! cascades`, which does not, run `cargo build --example cascades`.

#[path = "../operators/tests/support/cluster.rs"]
mod cluster;
#[path = "../examples/cascades/functions.rs"]
mod functions;
#[path = "../examples/cascades/input.rs"]
mod input;
#[path = "../examples/cascades/pipeline.rs"]
mod pipeline;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::process::Command;
use std::rc::Rc;
use std::sync::{Arc, Mutex};

use functions::{LINKS, MEMBERS, Message, PERSON, ToPerson};
use input::{Rejected, Wrong};
use pipeline::{BATCH_LINES, BATCHES_AHEAD, Event, Outcome, Pace};
use timely::dataflow::operators::Inspect;
use timely::dataflow::operators::vec::UnorderedInput;
use timely_statefun::{Envelope, StatefulFunctions};

const CALLS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/calls.txt");
const WINDOWS: [u64; 5] = [0, 60, 600, 3600, 86_400];

/// A call of the model: the number of its line, caller, callee, start and end.
#[derive(Clone, Debug)]
struct Record {
    number: u64,
    caller: u64,
    callee: u64,
    start: u64,
    end: u64,
}

impl Record {
    fn line(&self) -> String {
        let Record { caller, callee, start, end, .. } = self;
        format!("{caller} {callee} {start} {}", end - start)
    }
}

/// What the model finds: links, and cascades by their smallest call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Expected {
    links: u64,
    cascades: BTreeMap<u64, isize>,
}

impl Expected {
    fn summary(&self) -> String {
        let (links, cascades) = (self.links, self.cascades.len());
        let calls: isize = self.cascades.values().sum();
        let largest = self.cascades.values().max().unwrap_or(&0);
        format!("links {links} cascades {cascades} calls {calls} largest {largest}")
    }
}

fn model(records: &[Record], window: u64) -> Expected {
    let mut placed: HashMap<u64, Vec<(u64, usize)>> = HashMap::new();
    for (at, record) in records.iter().enumerate() {
        placed.entry(record.caller).or_default().push((record.start, at));
    }
    for calls in placed.values_mut() {
        calls.sort_unstable();
    }
    let mut parents: Vec<usize> = (0..records.len()).collect();
    fn root(parents: &mut [usize], mut of: usize) -> usize {
        while parents[of] != of {
            parents[of] = parents[parents[of]];
            of = parents[of];
        }
        of
    }
    let mut links = 0;
    for (at, record) in records.iter().enumerate() {
        let calls = placed.get(&record.callee).map_or(&[][..], |calls| calls);
        let first = calls.partition_point(|(start, _)| *start < record.end);
        for &(start, next) in &calls[first..] {
            if start - record.end >= window {
                break;
            }
            if next != at {
                links += 1;
                let (one, other) = (root(&mut parents, at), root(&mut parents, next));
                // The smaller stays root, and records are in the order of their numbers.
                parents[one.max(other)] = one.min(other);
            }
        }
    }
    let mut cascades = BTreeMap::new();
    for at in 0..records.len() {
        *cascades.entry(records[root(&mut parents, at)].number).or_insert(0) += 1;
    }
    cascades.retain(|_, size| *size > 1);
    Expected { links, cascades }
}

/// What a run found, once.
fn found(outcome: &Outcome) -> Expected {
    let links = outcome.findings.links;
    Expected { links, cascades: outcome.findings.cascades.keys().copied().collect() }
}

fn config(workers: usize) -> timely::Config {
    match workers {
        1 => timely::Config::thread(),
        _ => timely::Config::process(workers),
    }
}

/// Runs the job, and returns what worker 0 of this process was told.
fn run(
    config: timely::Config,
    lines: &Arc<Vec<Vec<u8>>>,
    window: u64,
) -> (Option<Outcome>, Vec<Rejected>) {
    let rejected = Arc::new(Mutex::new(Vec::new()));
    let (lines, told) = (Arc::clone(lines), Arc::clone(&rejected));
    let guards = timely::execute(config, move |worker| {
        let told = Arc::clone(&told);
        let lines = (0..lines.len()).map({
            let lines = Arc::clone(&lines);
            move |at| lines[at].clone()
        });
        pipeline::run(worker, lines, window, Pace::default(), move |event| match event {
            Event::Resumed { cut, line } => unreachable!("there is no cut {cut} with line {line}"),
            Event::Saved { name, cut } => unreachable!("nobody asked for {name}: {cut:?}"),
            Event::Rejected(line) => told.lock().unwrap().push(line.clone()),
            Event::Progress { lines, findings } => {
                let members = findings.members();
                assert!(members <= lines as isize, "{members} members in {lines} lines");
            }
        })
    });
    let outcomes: Vec<_> =
        guards.unwrap().join().into_iter().map(|one| one.unwrap().unwrap()).collect();
    let mut rejected = std::mem::take(&mut *rejected.lock().unwrap());
    rejected.sort_by_key(|rejected| rejected.line);
    (outcomes.into_iter().flatten().next(), rejected)
}

fn real() -> (Arc<Vec<Vec<u8>>>, Vec<Record>) {
    let lines: Vec<_> = input::lines(Path::new(CALLS)).unwrap().map(Result::unwrap).collect();
    let record = |(number, line): (u64, &Vec<u8>)| {
        let text = std::str::from_utf8(line).unwrap();
        let fields: Vec<u64> = text.split(' ').map(|field| field.parse().unwrap()).collect();
        let [caller, callee, start, duration] = fields[..] else { panic!("{text}") };
        Record { number, caller, callee, start, end: start + duration }
    };
    let records = (1..).zip(&lines).map(record).collect();
    (Arc::new(lines), records)
}

/// Splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// Few phones and few moments, so that everything coincides: calls of no duration, calls to oneself,
/// calls that start together, the same record several times. Some end at the end of time.
fn awkward(random: &mut Random) -> (Vec<Record>, u64) {
    let count = random.below(60) as usize;
    let (phones, moments) = (1 + random.below(5), 1 + random.below(80));
    let duration_max = random.below(6);
    let base = match random.below(3) {
        0 => 0,
        1 => u64::MAX - moments - duration_max + 1,
        _ => 1_000_000,
    };
    let mut starts: Vec<u64> = (0..count).map(|_| base + random.below(moments)).collect();
    starts.sort_unstable();
    let mut records: Vec<Record> = Vec::new();
    for (number, start) in (1..).zip(starts) {
        let record = match records.last() {
            Some(last) if random.below(8) == 0 => Record { number, ..last.clone() },
            _ => {
                let (caller, callee) = (random.below(phones), random.below(phones));
                let end = start + random.below(duration_max + 1);
                Record { number, caller, callee, start, end }
            }
        };
        records.push(record);
    }
    let window = match random.below(10) {
        0 => u64::MAX,
        _ => random.below(12),
    };
    (records, window)
}

fn lines_of(records: &[Record]) -> Arc<Vec<Vec<u8>>> {
    Arc::new(records.iter().map(|record| record.line().into_bytes()).collect())
}

#[test]
fn real_calls_have_the_cascades_of_the_model_on_any_number_of_workers() {
    let (lines, records) = real();
    for (number, window) in WINDOWS.into_iter().enumerate() {
        let expected = model(&records, window);
        assert_eq!(expected.links == 0, window == 0);
        // One has all layouts, and each of the others one of them.
        let layouts: &[usize] = if window == 600 { &[1, 2, 4] } else { &[[1, 2, 4][number % 3]] };
        for &workers in layouts {
            let (outcome, rejected) = run(config(workers), &lines, window);
            let outcome = outcome.unwrap();
            assert!(found(&outcome) == expected, "window {window}, {workers} workers");
            assert_eq!(outcome.findings.summary(), expected.summary());
            assert_eq!((outcome.calls, rejected.len()), (records.len() as u64, 0));
            let crosses = workers > 1 && window > 0;
            assert_eq!(outcome.work.crossed > 0, crosses, "window {window}, {workers} workers");
            let told = 2 * outcome.calls + 4 * expected.links;
            assert!(outcome.work.delivered >= told, "{} of {told}", outcome.work.delivered);
        }
    }
}

#[test]
fn two_processes_find_the_cascades_of_the_model() {
    let (lines, records) = real();
    if let Some(config) = cluster::member() {
        if let (Some(outcome), _) = run(config, &lines, 3600) {
            cluster::report(format!("{:?}", found(&outcome)));
            assert!(outcome.work.crossed > 0);
        }
        return;
    }
    let name = "two_processes_find_the_cascades_of_the_model";
    let outcomes = cluster::run(name, 2, 2);
    assert!(outcomes.iter().all(|outcome| outcome.success), "{}", outcomes[0].output);
    assert_eq!(outcomes[1].lines, [""; 0]);
    let expected = format!("{:?}", model(&records, 3600));
    assert!(outcomes[0].lines == [expected], "{}", outcomes[0].output);
}

#[test]
fn awkward_calls_have_the_cascades_of_the_model() {
    for seed in 0..200 {
        let (records, window) = awkward(&mut Random(seed));
        let (expected, lines) = (model(&records, window), lines_of(&records));
        for workers in [1, 3] {
            let (outcome, rejected) = run(config(workers), &lines, window);
            assert_eq!(rejected, [], "seed {seed}, {workers} workers");
            assert_eq!(found(&outcome.unwrap()), expected, "seed {seed}, {workers} workers");
        }
    }
}

/// The functions alone, given what two ends of calls are told in any order that timestamps allow,
/// while the frontier follows.
#[test]
fn the_order_in_which_calls_reach_a_phone_does_not_matter() {
    for seed in 0..400 {
        let mut random = Random(seed);
        let (records, window) = awkward(&mut random);
        let expected = model(&records, window);
        let mut told: Vec<(u64, Envelope<Message>)> = Vec::new();
        for Record { number, caller, callee, start, end } in records {
            let received = ToPerson::Received { call: number, end };
            let placed = ToPerson::Placed { call: number, start };
            told.push((start, PERSON.message(callee, received)));
            told.push((start, PERSON.message(caller, placed)));
        }
        // From nearly in order to any order.
        let reach = 1 + random.below(told.len() as u64 + 1) as usize;
        let mut shuffled = Vec::new();
        while !told.is_empty() {
            let next = random.below(reach.min(told.len()) as u64) as usize;
            shuffled.push(told.remove(next));
        }
        let steps = random.below(3);
        assert_eq!(found_in_order(shuffled, window, steps), expected, "seed {seed}");
    }
}

/// What the functions find when they are told this, with `steps` of the worker after each.
fn found_in_order(told: Vec<(u64, Envelope<Message>)>, window: u64, steps: u64) -> Expected {
    timely::execute_directly(move |worker| {
        let links = Rc::new(RefCell::new(BTreeSet::new()));
        let changes = Rc::new(RefCell::new(Vec::new()));
        let ((mut input, mut capability), handle) = worker.dataflow::<u64, _, _>(|scope| {
            let (input, stream) = scope.new_unordered_input();
            let functions = functions::functions(window, Rc::new(Cell::new(0)));
            let egresses = stream.stateful_functions(functions).unwrap();
            let kept = Rc::clone(&links);
            egresses.stream(LINKS).unwrap().inspect(move |link| {
                assert!(kept.borrow_mut().insert(*link), "{link:?} is found twice");
            });
            let kept = Rc::clone(&changes);
            let members = egresses.stream(MEMBERS).unwrap();
            members.inspect(move |change| kept.borrow_mut().push(*change));
            (input, egresses.handle())
        });
        for at in 0..told.len() {
            let (start, envelope) = told[at].clone();
            input.activate().session(&capability.delayed(&start)).give(envelope);
            let rest = told[at + 1..].iter().map(|(start, _)| *start).min();
            if let Some(first) = rest {
                capability.downgrade(&first);
            }
            for _ in 0..steps {
                worker.step();
            }
        }
        drop(capability);
        handle.run(worker).unwrap();

        let mut changes = changes.take();
        changes.sort_by_key(|(_, time, _)| *time);
        let labels = labels_over_time(&changes);
        let mut cascades = BTreeMap::new();
        for label in labels.values() {
            *cascades.entry(*label).or_insert(0) += 1;
        }
        let links = links.borrow().len() as u64;
        Expected { links, cascades }
    })
}

/// The label of each call in the end; fails if a call has several or loses its label at any time.
fn labels_over_time(changes: &[((u64, u64), u64, isize)]) -> BTreeMap<u64, u64> {
    let mut labels: BTreeMap<u64, BTreeMap<u64, isize>> = BTreeMap::new();
    for at_once in changes.chunk_by(|one, next| one.1 == next.1) {
        for ((call, label), _, change) in at_once {
            *labels.entry(*call).or_default().entry(*label).or_insert(0) += change;
        }
        for ((call, _), time, _) in at_once {
            let labels = labels.get_mut(call).unwrap();
            labels.retain(|_, count| *count != 0);
            let one = labels.len() == 1 && labels.values().all(|count| *count == 1);
            assert!(one, "call {call} has labels {labels:?} at {time}");
        }
    }
    labels.into_iter().map(|(call, labels)| (call, *labels.keys().next().unwrap())).collect()
}

#[test]
fn wrong_lines_are_reported_and_change_nothing() {
    let not_a_number = |field: &str, found: &str| Wrong::NotANumber {
        field: field.to_owned(),
        found: found.to_owned(),
    };
    for seed in 0..60 {
        let mut random = Random(seed);
        let (mut records, window) = awkward(&mut random);
        let (mut lines, mut expected_rejected): (Vec<Vec<u8>>, Vec<_>) = Default::default();
        let mut clock = 0u64;
        for record in &mut records {
            while random.below(2) == 0 {
                let late = clock.saturating_sub(1 + random.below(3));
                let overflow = || Wrong::EndOutOfRange { start: u64::MAX, duration: 1 };
                let early = (late < clock).then_some(Wrong::OutOfOrder { start: late, clock });
                let (text, wrong): (Vec<u8>, _) = match random.below(10) {
                    0 => (b"# caller callee".to_vec(), None),
                    1 => (b" \r".to_vec(), None),
                    2 => (b"1 2 3".to_vec(), Some(Wrong::Fields(3))),
                    3 => (b"1 2 3 4 5".to_vec(), Some(Wrong::Fields(5))),
                    // Wrong lines from the end of time must not move the clock there.
                    4 => (b"1 2 18446744073709551615 1".to_vec(), Some(overflow())),
                    5 => (
                        b"1 2 18446744073709551615 x".to_vec(),
                        Some(not_a_number("duration", "x")),
                    ),
                    6 => (
                        b"1 2 18446744073709551616 0".to_vec(),
                        Some(not_a_number("start", "18446744073709551616")),
                    ),
                    7 => (b"1 2 -1 0".to_vec(), Some(not_a_number("start", "-1"))),
                    8 => (b"1 \xff 3 4".to_vec(), Some(Wrong::NotText)),
                    _ if early.is_none() => continue,
                    _ => (format!("1 2 {late} 0").into_bytes(), early),
                };
                lines.push(text);
                let line = lines.len() as u64;
                expected_rejected.extend(wrong.map(|wrong| Rejected { line, wrong }));
            }
            lines.push(record.line().into_bytes());
            record.number = lines.len() as u64;
            clock = record.start;
        }
        let (expected, lines) = (model(&records, window), Arc::new(lines));
        for workers in [1, 2] {
            let (outcome, rejected) = run(config(workers), &lines, window);
            let outcome = outcome.unwrap();
            assert_eq!(rejected, expected_rejected, "seed {seed}, {workers} workers");
            assert_eq!(outcome.findings.rejected, rejected.len() as u64);
            assert_eq!(outcome.calls, records.len() as u64);
            assert_eq!(found(&outcome), expected, "seed {seed}, {workers} workers");
        }
    }
}

/// A phone keeps what lies within the window of the lines that the workers are at, and no more.
#[test]
fn a_phone_forgets_what_the_window_has_passed() {
    let (lines, records) = real();
    let mut totals: HashMap<u64, usize> = HashMap::new();
    for record in &records {
        *totals.entry(record.caller).or_default() += 1;
        *totals.entry(record.callee).or_default() += 1;
    }
    let busiest = *totals.values().max().unwrap();
    // A worker is at most this many lines ahead of what it knows to be done, and so are the others
    // of where that worker is.
    let spread = 2 * (BATCHES_AHEAD + 1) * BATCH_LINES;
    for window in [60, 3600] {
        let mut bound = 0;
        for block in records.chunks(BATCH_LINES) {
            let last = block.last().unwrap().number as usize;
            let frontier = records[last.saturating_sub(spread + BATCH_LINES)].start;
            let mut kept: HashMap<u64, usize> = HashMap::new();
            for record in &records[..last] {
                if record.start >= frontier {
                    *kept.entry(record.caller).or_default() += 1;
                }
                if record.end + window > frontier {
                    *kept.entry(record.callee).or_default() += 1;
                }
            }
            bound = bound.max(kept.into_values().max().unwrap_or(0));
        }
        assert!(2 * bound < busiest, "a bound of {bound} says nothing of {busiest} calls");
        for workers in [1, 2, 4] {
            let kept_max = run(config(workers), &lines, window).0.unwrap().work.kept_max;
            assert!(kept_max > 0);
            assert!(
                kept_max <= bound,
                "{workers} workers: {kept_max} kept, at most {bound} wanted"
            );
        }
    }
}

/// The example, which `cargo test` builds before it runs tests.
fn program() -> Command {
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().and_then(Path::parent).unwrap();
    let name = format!("cascades{}", std::env::consts::EXE_SUFFIX);
    let program = profile.join("examples").join(name);
    let missing = "is not built: run `cargo build --example cascades` first";
    assert!(program.exists(), "{} {missing}", program.display());
    Command::new(program)
}

#[test]
fn the_program_ends_with_one_line_in_one_process_and_in_two() {
    let expected = model(&real().1, 600).summary();
    for processes in [1, 2] {
        let hosts = std::env::temp_dir().join(format!("cascades-hosts-{}", std::process::id()));
        let outcomes = cluster::run_command(processes, |process, addresses| {
            // It is written once: the first process may be reading it when the second is started.
            if process == 0 {
                std::fs::write(&hosts, addresses.join("\n")).unwrap();
            }
            let mut command = program();
            command.args(["--window", "600", "-w", "2", "-h", hosts.to_str().unwrap()]);
            command.args(["-n", &processes.to_string(), "-p", &process.to_string()]);
            command
        });
        std::fs::remove_file(&hosts).unwrap();
        let results: Vec<Vec<&str>> = outcomes
            .iter()
            .map(|outcome| {
                assert!(outcome.success, "{}", outcome.output);
                outcome.output.lines().filter(|line| line.starts_with("links ")).collect()
            })
            .collect();
        assert_eq!(results[0], [expected.as_str()]);
        assert!(results[1..].iter().all(Vec::is_empty), "{results:?}");
    }
}

#[test]
fn the_program_reports_wrong_lines_and_wrong_arguments() {
    let file = std::env::temp_dir().join(format!("cascades-calls-{}", std::process::id()));
    std::fs::write(&file, "ann bob 100 10\nnonsense\nbob cy 115 5\ncy ann 90 1\n").unwrap();
    let output = program().arg("--input").arg(&file).args(["-w", "2"]).output().unwrap();
    std::fs::remove_file(&file).unwrap();
    assert!(output.status.success());
    let (out, err) = (String::from_utf8_lossy(&output.stdout), output.stderr);
    let err = String::from_utf8_lossy(&err);
    assert!(err.contains("line 2: it has 1 fields") && err.contains("line 4: "), "{err}");
    assert!(out.contains("2 calls read, 2 lines rejected"), "{out}");
    assert_eq!(out.lines().last(), Some("links 1 cascades 1 calls 2 largest 2"));

    for wrong in [&["--window", "1h"][..], &["--input", "/nowhere"], &["--windows"], &["extra"]] {
        let output = program().args(wrong).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{wrong:?}");
    }
    let help = program().arg("--help").output().unwrap();
    assert!(help.status.success());
    assert!(String::from_utf8_lossy(&help.stdout).contains("--window"));
}

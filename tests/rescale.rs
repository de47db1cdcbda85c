//! What some workers and processes wrote, others go on with: state, delayed messages, messages on their way and
//! positions, and between any two addresses the order of messages.
//!
//! Offices write letters to each other for ever, each with a number for its receiver, and each receiver looks
//! whether they come as 1, 2, 3 and so on. Some offices are served elsewhere; some letters are posted late and
//! have no order. A program ends without a warning on 1, 2 or 4 workers or in 2 processes, and goes on on each of
//! the others, until all offices were told to write no more. Then what was sent has come, once.

#[path = "../operators/tests/support/cluster.rs"]
#[allow(dead_code)]
mod cluster;
#[path = "support/protocol.rs"]
mod protocol;
#[allow(dead_code)]
#[path = "support/server.rs"]
mod server;
mod support;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use server::Server;
use support::{Random, mix};
use timely::dataflow::operators::{Input, Inspect};
use timely::worker::Worker;
use timely_statefun::{
    Egress, Endpoint, Envelope, Function, FunctionType, Functions, SnapshotOptions, SnapshotPolicy,
    SnapshotStore, Snapshots, StatefulFunctions, TableSpec, TypedValue, ValueSpec,
};
use timely_statefun_proto::reqreply::from_function::{
    DelayedInvocation, EgressMessage, Invocation, InvocationResponse,
};
use timely_statefun_proto::reqreply::{self, TypedValue as Wire};

const HERE: FunctionType<String> = FunctionType::new("post/here");
const ABROAD: FunctionType<String> = FunctionType::new("post/abroad");
const REPORTS: Egress<String> = Egress::new("post/reports");
const OFFICE: ValueSpec<String> = ValueSpec::new("office");
/// Letters by sender, once more.
const TALLY: TableSpec<u64, u64> = TableSpec::new("tally");

const OFFICES: u64 = 20;
const PARTITIONS: u64 = 4;
/// Records of each partition. Each makes an office write a letter, so there are always so many.
const RECORDS: u64 = 40;
/// Records that a source reads again although they are in the snapshot.
const AGAIN: u64 = 3;
/// Cuts of the first program, and of one that has gone on.
const CUTS: usize = 8;
const CUTS_ON: usize = 3;
const LAYOUTS: [(usize, usize); 4] = [(1, 1), (2, 1), (4, 1), (1, 2)];
const CUT_MAX: Duration = Duration::from_secs(60);

fn is_abroad(office: u64) -> bool {
    office % 5 == 4
}

/// What an office knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Office {
    /// By partition, the records it got and the sum of their numbers.
    records: BTreeMap<u64, (u64, u64)>,
    /// The number of the last letter to each office, and from each.
    sent: BTreeMap<u64, u64>,
    got: BTreeMap<u64, u64>,
    /// How many late letters it sent, and by sender how many it got and the sum of their numbers.
    sent_late: u64,
    got_late: BTreeMap<u64, (u64, u64)>,
    handled: u64,
    rests: bool,
}

/// What comes of a message: letters, to whom and after which delay, and what is wrong.
#[derive(Default)]
struct Effects {
    letters: Vec<(u64, String, Option<Duration>)>,
    report: Option<String>,
    /// The sender of a letter.
    tallied: Option<u64>,
}

impl Office {
    fn follow(&mut self, own: u64, text: &str) -> Effects {
        let mut effects = Effects::default();
        let words: Vec<&str> = text.split(' ').collect();
        let number = |word: &str| word.parse::<u64>().unwrap();
        let add = |to: &mut (u64, u64), number| *to = (to.0 + 1, to.1 + number);
        self.handled += 1;
        let mut writes = !self.rests;
        match words[..] {
            ["record", partition, at] => {
                add(self.records.entry(number(partition)).or_default(), number(at));
            }
            ["letter", from, at] => {
                let last = self.got.entry(number(from)).or_default();
                if *last + 1 != number(at) {
                    effects.report = Some(format!("wrong: {from} to {own}: {at} after {last}"));
                }
                *last = number(at);
                effects.tallied = Some(number(from));
            }
            ["late", from, at] => {
                add(self.got_late.entry(number(from)).or_default(), number(at));
                writes = false;
            }
            ["rest"] => (self.rests, writes) = (true, false),
            _ => panic!("nobody writes \"{text}\""),
        }
        if writes {
            let mut random = Random(mix(own << 32 | self.handled));
            let is_far = random.below(12) == 0;
            let to = (0..).map(|_| random.below(OFFICES)).find(|to| is_abroad(*to) == is_far);
            let to = to.expect("there are some");
            let last = self.sent.entry(to).or_default();
            *last += 1;
            effects.letters.push((to, format!("letter {own} {last}"), None));
            if random.below(6) == 0 {
                self.sent_late += 1;
                let delay = Duration::from_millis(1 + random.below(20));
                let text = format!("late {own} {}", self.sent_late);
                effects.letters.push((random.below(OFFICES), text, Some(delay)));
            }
        }
        if self.rests && effects.report.is_none() {
            effects.report = Some(format!("office {own} {}", serde_json::to_string(self).unwrap()));
        }
        effects
    }
}

fn read(text: &str) -> Office {
    serde_json::from_str(text).unwrap()
}

fn message(office: u64, text: String) -> Envelope<TypedValue> {
    if is_abroad(office) { ABROAD } else { HERE }.message(office, text)
}

fn functions(url: &str, runtime: &tokio::runtime::Handle) -> Functions<TypedValue> {
    let office = Function::new(move |context, text: &String| {
        let own = context.id().as_number().ok_or("an office has a number")?;
        let mut office = context.get(OFFICE).map(|office| read(office)).unwrap_or_default();
        let effects = office.follow(own, text);
        context.set(OFFICE, serde_json::to_string(&office)?);
        if let Some(from) = effects.tallied {
            let mut tally = context.table(TALLY);
            let count = tally.get(&from).copied().unwrap_or(0) + 1;
            tally.insert(from, count);
            if count != office.got[&from] {
                context.emit(REPORTS, format!("wrong: the tally of {own} says {count}"));
            }
        }
        for (to, text, delay) in effects.letters {
            let target = if is_abroad(to) { ABROAD } else { HERE };
            match delay {
                None => context.send(target, to, text),
                Some(delay) => context.send_after(delay, target, to, text),
            }
        }
        effects.report.into_iter().for_each(|report| context.emit(REPORTS, report));
        Ok(())
    });
    Functions::new()
        .named("post")
        .embedded(HERE, office.value(OFFICE).table(TALLY))
        .remote(ABROAD, Endpoint::at(url))
        .typed_egress(REPORTS)
        .runtime(runtime.clone())
}

fn serve() -> Server {
    Server::start(|request| {
        let batch = protocol::batch(&request);
        let Some(office) = protocol::state::<String>(&batch, "office") else {
            return protocol::missing(&[("office", "io.statefun.types/string", None)]);
        };
        let own: u64 = protocol::id(&batch).parse().unwrap();
        let mut office = office.map(|office| read(&office)).unwrap_or_default();
        let mut result = InvocationResponse::default();
        for invocation in &batch.invocations {
            let text = protocol::read_text(invocation.argument.as_ref());
            let effects = office.follow(own, &text);
            for (to, text, delay) in effects.letters {
                let target = Some(reqreply::Address {
                    namespace: "post".to_owned(),
                    r#type: if is_abroad(to) { "abroad" } else { "here" }.to_owned(),
                    id: to.to_string(),
                });
                let argument = protocol::text(&text);
                match delay {
                    None => result.outgoing_messages.push(Invocation { target, argument }),
                    Some(delay) => result.delayed_invocations.push(DelayedInvocation {
                        delay_in_ms: delay.as_millis() as i64,
                        target,
                        argument,
                        ..DelayedInvocation::default()
                    }),
                }
            }
            result.outgoing_egresses.extend(effects.report.map(|report| EgressMessage {
                egress_namespace: "post".to_owned(),
                egress_type: "reports".to_owned(),
                argument: protocol::text(&report),
            }));
        }
        let office = serde_json::to_string(&office).unwrap();
        result.state_mutations = vec![protocol::set("office", Some(Wire::of(&office)))];
        protocol::done(result)
    })
}

/// The office that gets a record.
fn office_of(partition: u64, at: u64) -> u64 {
    mix(partition << 32 | at) % OFFICES
}

/// The program on one worker. The first that runs ends without a warning; one that goes on comes to its end.
fn work(worker: &mut Worker, store: &SnapshotStore, url: &str, goes_on: bool) -> Vec<String> {
    let runtime = protocol::runtime().handle().clone();
    let policy = SnapshotPolicy::new("post").interval(Duration::ZERO);
    let snapshots = Snapshots::<u64>::begin(worker, store, &runtime, &policy).unwrap();
    assert_eq!(snapshots.restored().is_some(), goes_on);
    let is_first = worker.index() == 0;
    let (reports, durable) = (Rc::new(RefCell::new(Vec::new())), Rc::new(Cell::new(0)));
    let (kept, count) = (Rc::clone(&reports), Rc::clone(&durable));
    let (mut log, mut orders, handle) = worker.dataflow(|scope| {
        let (log, records) = scope.new_input::<Vec<Envelope<TypedValue>>>();
        let (orders, ordered) = scope.new_input::<Vec<Envelope<TypedValue>>>();
        let ingresses =
            [snapshots.replayed("log", records), snapshots.unreplayed("orders", ordered)];
        let egresses = ingresses.stateful_functions(functions(url, &runtime)).unwrap();
        let said = egresses.stream(REPORTS).unwrap();
        said.inspect(move |report| kept.borrow_mut().push(report.clone()));
        let done = egresses.snapshots().unwrap();
        done.inspect(move |_| count.set(count.get() + 1));
        (log, orders, egresses.handle())
    });
    if let Some(restored) = snapshots.restored().filter(|_| is_first) {
        let counts = restored.counts;
        let counts = [counts.queued, counts.logged, counts.in_flight, counts.delayed];
        cluster::report(format_args!("counts {counts:?}"));
    }
    // Every partition is read by one worker, some of it again.
    let positions = snapshots.positions("log");
    let next = |partition| {
        let next = positions.get(&partition).map_or(0, |position| position + 1);
        next.saturating_sub(AGAIN)
    };
    let own = (0..PARTITIONS).filter(|at| at % worker.peers() as u64 == worker.index() as u64);
    let mut left: Vec<(u64, u64)> = own
        .flat_map(|partition| (next(partition)..RECORDS).map(move |at| (at, partition)))
        .collect();
    left.sort_unstable();
    left.reverse();
    let (mut seen, mut since) = (0, Instant::now());
    let cuts = if goes_on { CUTS_ON } else { CUTS };
    loop {
        if durable.get() > seen {
            (seen, since) = (durable.get(), Instant::now());
        }
        assert!(!is_first || since.elapsed() < CUT_MAX, "cut after cut {seen} does not end");
        let is_over = !is_first || seen >= cuts;
        if is_over && is_first && !goes_on {
            let crossed = handle.stats().sent_away;
            assert!(worker.peers() == 1 || crossed > 0, "no message crossed workers");
            std::process::exit(0);
        }
        if is_over && goes_on && left.is_empty() {
            break;
        }
        // Not all at once, so that a program ends in the middle of it.
        if let Some((at, partition)) = left.pop() {
            let text = format!("record {partition} {at}");
            log.send(message(office_of(partition, at), text).read_at(partition, at));
            log.advance_to(log.time() + 1);
            orders.advance_to(*log.time());
        }
        worker.step_or_park(Some(Duration::from_millis(1)));
        if let Some(stopped) = handle.stopped() {
            panic!("the program stopped: {stopped}");
        }
    }
    if is_first {
        (0..OFFICES).for_each(|office| orders.send(message(office, "rest".to_owned())));
    }
    log.close();
    orders.close();
    handle.run(worker).unwrap();
    reports.take()
}

/// The body of a process.
fn be_member(config: timely::Config) {
    let given = cluster::given().unwrap();
    let [directory, url, goes_on] = given.lines().collect::<Vec<_>>()[..] else {
        panic!("{given}")
    };
    let options = SnapshotOptions { part_bytes: 4096, ..SnapshotOptions::default() };
    let store = SnapshotStore::directory(directory, options).unwrap();
    let (url, goes_on) = (url.to_owned(), goes_on == "true");
    let ended = timely_statefun::execute(config, move |worker| work(worker, &store, &url, goes_on));
    match ended {
        Ok(reports) => reports.into_iter().flatten().for_each(cluster::report),
        // The first process has ended, as it was to.
        Err(error) => {
            assert!(error.is_peer_lost() && cluster::given().unwrap().ends_with("false"), "{error}")
        }
    }
}

struct Directory(PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Runs a program on some workers, and has it go on on all kinds of workers.
fn check(name: &str, layout: usize) {
    if let Some(config) = cluster::member() {
        return be_member(config);
    }
    let server = serve();
    let mut on_their_way = [0; 4];
    for (onto, (threads_onto, processes_onto)) in LAYOUTS.into_iter().enumerate() {
        let directory = format!("rescale-{}-{layout}-{onto}", std::process::id());
        let directory = Directory(std::env::temp_dir().join(directory));
        let given = format!("{}\n{}\n", directory.0.display(), server.url());
        let (threads, processes) = LAYOUTS[layout];
        let ran = cluster::run_with(name, processes, threads, Some(&format!("{given}false")));
        assert!(ran.iter().all(|outcome| outcome.success), "{}", ran[0].output);
        let given = format!("{given}true");
        let ran = cluster::run_with(name, processes_onto, threads_onto, Some(&given));
        let what = format!("from {:?} onto {:?}", LAYOUTS[layout], LAYOUTS[onto]);
        ran.iter().for_each(|o| assert!(o.success, "{what}: {}", o.output));
        let lines: Vec<&String> = ran.iter().flat_map(|outcome| &outcome.lines).collect();
        let wrong: Vec<_> = lines.iter().filter(|line| line.starts_with("wrong")).collect();
        assert!(wrong.is_empty(), "{what}: {wrong:?}");
        let counts = lines.iter().find_map(|line| line.strip_prefix("counts ")).unwrap();
        let counts: [u64; 4] = serde_json::from_str(counts).unwrap();
        (0..4).for_each(|at| on_their_way[at] += counts[at]);
        check_offices(&lines, &what);
    }
    let [queued, logged, in_flight, delayed] = on_their_way;
    println!("{queued} queued, {logged} logged, {in_flight} in flight, {delayed} delayed");
    assert!(in_flight > 0 && delayed > 0 && (layout == 0 || logged > 0), "{on_their_way:?}");
}

/// What was sent has come, once, and every record as well.
fn check_offices(lines: &[&String], what: &str) {
    let mut offices: BTreeMap<u64, Office> = BTreeMap::new();
    for line in lines.iter().filter_map(|line| line.strip_prefix("office ")) {
        let (number, office) = line.split_once(' ').unwrap();
        let (number, office) = (number.parse().unwrap(), read(office));
        // `inspect` has an order of its own.
        if offices.get(&number).is_none_or(|known| known.handled < office.handled) {
            offices.insert(number, office);
        }
    }
    assert_eq!(offices.len() as u64, OFFICES, "{what}");
    let mut letters = 0;
    for (from, sender) in &offices {
        for (to, receiver) in &offices {
            let of = |known: &BTreeMap<u64, u64>, whom| known.get(whom).copied().unwrap_or(0);
            assert_eq!(of(&sender.sent, to), of(&receiver.got, from), "{what}: {from} to {to}");
            letters += of(&sender.sent, to);
        }
        let got = offices.values().filter_map(|office| office.got_late.get(from));
        let got = got.fold((0, 0), |sum, got| (sum.0 + got.0, sum.1 + got.1));
        let sent = sender.sent_late;
        assert_eq!(got, (sent, sent * (sent + 1) / 2), "{what}: late letters of {from}");
        let mut records = BTreeMap::<u64, (u64, u64)>::new();
        for partition in 0..PARTITIONS {
            for at in (0..RECORDS).filter(|at| office_of(partition, *at) == *from) {
                let known = records.entry(partition).or_default();
                *known = (known.0 + 1, known.1 + at);
            }
        }
        assert_eq!(sender.records, records, "{what}: records of {from}");
    }
    assert!(letters > PARTITIONS * RECORDS, "{what}: nothing went round");
}

#[test]
fn what_one_worker_wrote_others_go_on_with() {
    check("what_one_worker_wrote_others_go_on_with", 0);
}

#[test]
fn what_two_workers_wrote_others_go_on_with() {
    check("what_two_workers_wrote_others_go_on_with", 1);
}

#[test]
fn what_four_workers_wrote_others_go_on_with() {
    check("what_four_workers_wrote_others_go_on_with", 2);
}

#[test]
fn what_two_processes_wrote_others_go_on_with() {
    check("what_two_processes_wrote_others_go_on_with", 3);
}

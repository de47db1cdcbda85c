//! What do snapshots cost while a program runs, how soon are they durable, and how fast are they restored?
//!
//! The job is that of `dispatch`: tokens wander between a million addresses for ever, 100,000 at a time, and
//! whoever gets one adds one to its count. It runs on one worker
//!
//! * *without* snapshots, which is the ceiling;
//! * with snapshots and *no cut* meanwhile: what it costs that cuts could be taken;
//! * with a cut *every 10 s*, of all addresses, since all of them are written in between;
//! * with a cut *every 100 ms* in which one of a hundred addresses was written, and without cuts, with 10,000
//!   tokens;
//! * with a cut *every 100 ms* that finds all addresses written: what interval is really reached.
//!
//! Shown are messages each second, how long a hop takes (a token waits behind all others, so this is mostly
//! the length of the queue), how long single activations were busy with a cut, how long it takes from
//! asking for a cut until it is durable, and what is written for each address. Then, how long that takes
//! while calls are in flight that are answered after a second; and how fast a million addresses are
//! restored on one worker and on two, and in the full run ten million.
//!
//! Snapshots are written to a directory below the system's temporary one, and synced. `cargo bench --bench
//! snapshot`, or `-- --quick` for about a minute and a half, and `-- --only TEXT` for the cases whose names
//! contain it. Each figure is one line of JSON; what a person wants to know goes to the standard error.
//!
//! A case and its ceiling run in turns in the same thread, so that both meet the same machine.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::io::Write;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, header};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use timely::WorkerConfig;
use timely::communication::Allocator;
use timely::communication::allocator::Thread;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::InputHandle;
use timely::dataflow::operators::{Input, Inspect, Probe};
use timely::worker::Worker;
use timely_statefun::{
    Endpoint, Envelope, Function, FunctionType, Functions, Handle, Ingress, Limits, SnapshotDone,
    SnapshotOptions, SnapshotPolicy, SnapshotStore, Snapshots, StatefulFunctions, TypedValue,
    ValueSpec,
};
use tokio::runtime::Runtime;

const ADDRESSES: u64 = 1_000_000;
const IN_FLIGHT: u64 = 100_000;
/// Tokens of which each hop is timed.
const TIMED: u64 = 100;

const COUNTER: FunctionType<Token> = FunctionType::new("bench/counter");
const COUNT: ValueSpec<u64> = ValueSpec::new("count");

/// What wanders about, or is told to an address once.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Token {
    Once,
    Wandering {
        draw: u64,
        /// When it was sent, in nanoseconds since the program began, if its hops are timed.
        sent_ns: u64,
    },
}

fn mix(mut x: u64) -> u64 {
    x ^= x >> 33;
    x = x.wrapping_mul(0xff51_afd7_ed55_8ccd);
    x ^= x >> 33;
    x = x.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    x ^ (x >> 33)
}

/// What a function and the driver of its program share.
struct Shared {
    began: Instant,
    moving: AtomicBool,
    /// The addresses that tokens go to now: the first of them, and how many.
    first: AtomicU64,
    many: u64,
    hops: RefCell<Vec<u64>>,
}

fn functions(shared: &Rc<Shared>) -> Functions<Token> {
    let shared = Rc::clone(shared);
    let counter = Function::new(move |context, token: &Token| {
        context.update(COUNT, |count| *count += 1);
        let Token::Wandering { draw, sent_ns } = *token else { return Ok(()) };
        if !shared.moving.load(Relaxed) {
            return Ok(());
        }
        let sent_ns = if sent_ns == 0 {
            0
        } else {
            let now = shared.began.elapsed().as_nanos() as u64;
            shared.hops.borrow_mut().push(now - sent_ns);
            now
        };
        let draw = mix(draw.wrapping_add(0x9e37_79b9_7f4a_7c15));
        let to = (shared.first.load(Relaxed) + draw % shared.many) % ADDRESSES;
        context.send(COUNTER, to, Token::Wandering { draw, sent_ns });
        Ok(())
    });
    Functions::new().named("bench").embedded(COUNTER, counter.value(COUNT))
}

/// A directory that is gone with this.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let directory = format!("timely-statefun-bench-{}-{name}", std::process::id());
        let directory = std::env::temp_dir().join(directory);
        let _ = std::fs::remove_dir_all(&directory);
        Directory(directory)
    }

    fn store(&self) -> SnapshotStore {
        let options = SnapshotOptions { grace: Duration::ZERO, ..SnapshotOptions::default() };
        SnapshotStore::directory(&self.0, options)
            .expect("there is room in the temporary directory")
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What is varied.
#[derive(Clone, Copy, Debug)]
struct Case {
    name: &'static str,
    /// Whether snapshots can be taken, and how often they are.
    snapshots: bool,
    every: Option<Duration>,
    /// How many addresses are written between two cuts.
    written: u64,
    /// How many tokens wander about.
    tokens: u64,
}

const WITHOUT: Case =
    Case { name: "without", snapshots: false, every: None, written: ADDRESSES, tokens: IN_FLIGHT };
const NO_CUT: Case = Case { name: "no cut", snapshots: true, ..WITHOUT };
const EVERY_10_S: Case =
    Case { name: "a cut every 10 s", every: Some(Duration::from_secs(10)), ..NO_CUT };
const FEW_WITHOUT: Case = Case {
    name: "without, 1 % written",
    written: ADDRESSES / 100,
    tokens: IN_FLIGHT / 10,
    ..WITHOUT
};
const FEW_EVERY_100_MS: Case = Case {
    name: "a cut every 100 ms, 1 % written",
    snapshots: true,
    every: Some(Duration::from_millis(100)),
    ..FEW_WITHOUT
};
const ALL_EVERY_100_MS: Case =
    Case { name: "a cut every 100 ms, all written", every: FEW_EVERY_100_MS.every, ..NO_CUT };

fn at(sorted: &[u64], share: f64) -> f64 {
    match sorted.len() {
        0 => 0.0,
        len => sorted[((len - 1) as f64 * share) as usize] as f64,
    }
}

/// A snapshot, and when it was known to be durable.
type Done = (Instant, SnapshotDone<u64>);

/// A program of one case, which runs when it is stepped.
struct Program {
    case: Case,
    worker: Worker,
    input: InputHandle<u64, CapacityContainerBuilder<Vec<Envelope<Token>>>>,
    handle: Handle<u64>,
    shared: Rc<Shared>,
    snapshots: Option<Snapshots<u64>>,
    done: Rc<RefCell<Vec<Done>>>,
    /// When each cut was asked for, since the first one.
    asked: Vec<Instant>,
    cuts_before: usize,
    /// Since when these addresses are written.
    window: Instant,
    store: SnapshotStore,
    _directory: Directory,
}

impl Program {
    /// With a count at every address, a first snapshot, which is a full one, and tokens on their way.
    fn new(runtime: &Runtime, case: Case) -> Self {
        let directory = Directory::new(&case.name.replace(|c: char| !c.is_alphanumeric(), "-"));
        let store = directory.store();
        let allocator = Allocator::Thread(Thread::default());
        let mut worker = Worker::new(WorkerConfig::default(), allocator, Some(Instant::now()));
        let policy = SnapshotPolicy::new("bench").on_request();
        let snapshots = case.snapshots.then(|| {
            let begun = Snapshots::begin(&mut worker, &store, runtime.handle(), &policy);
            begun.expect("the store is empty")
        });
        let shared = Rc::new(Shared {
            began: Instant::now(),
            moving: AtomicBool::new(true),
            first: AtomicU64::new(0),
            many: case.written,
            hops: RefCell::default(),
        });
        let done: Rc<RefCell<Vec<Done>>> = Rc::default();
        let heard = Rc::clone(&done);
        let (input, handle) = worker.dataflow::<u64, _, _>(|scope| {
            let (input, stream) = scope.new_input::<Vec<Envelope<Token>>>();
            let ingress = match &snapshots {
                Some(snapshots) => snapshots.unreplayed("tokens", stream),
                None => Ingress::from(stream),
            };
            let egresses = ingress.stateful_functions(functions(&shared));
            let egresses = egresses.expect("it is bound once");
            if snapshots.is_some() {
                let done = egresses.snapshots().expect("they are taken");
                done.inspect(move |done| heard.borrow_mut().push((Instant::now(), done.clone())));
            }
            (input, egresses.handle())
        });
        let (asked, window) = (Vec::new(), Instant::now());
        let mut program = Program {
            case,
            worker,
            input,
            handle,
            shared,
            snapshots,
            done,
            asked,
            cuts_before: 0,
            window,
            store,
            _directory: directory,
        };
        program.fill();
        program
    }

    fn fill(&mut self) {
        let Program { worker, input, handle, shared, .. } = self;
        for address in 0..ADDRESSES {
            input.send(COUNTER.message(address, Token::Once));
            if address % 10_000 == 0 {
                handle.until_ready(worker).expect("nothing fails");
            }
        }
        input.flush();
        while handle.stats().handled < ADDRESSES {
            worker.step();
        }
        if let Some(snapshots) = &self.snapshots {
            snapshots.request();
            while self.done.borrow().is_empty() {
                worker.step_or_park(Some(Duration::from_millis(1)));
            }
            self.cuts_before = 1;
        }
        for token in 0..self.case.tokens {
            let sent_ns = if token < TIMED { shared.began.elapsed().as_nanos() as u64 } else { 0 };
            let token = Token::Wandering { draw: token, sent_ns };
            input.send(COUNTER.message(mix(sent_ns) % ADDRESSES, token));
        }
        input.flush();
        self.go(Duration::from_millis(500), false);
        self.handle.forget_cut_times();
        self.shared.hops.borrow_mut().clear();
    }

    /// Runs for a time, and counts messages and seconds. Cuts are asked for when they are wanted and due.
    fn go(&mut self, lasts: Duration, with_cuts: bool) -> Run {
        let (began, before) = (Instant::now(), self.handle.stats().handled);
        loop {
            self.worker.step();
            let now = Instant::now();
            // Where few are written, it is others after each tenth of a second.
            if now - self.window >= Duration::from_millis(100) {
                self.window = now;
                self.shared.first.fetch_add(self.case.written % ADDRESSES, Relaxed);
            }
            if let Some(every) = self.case.every.filter(|_| with_cuts)
                && self.asked.last().is_none_or(|last| now - *last >= every)
                && !self.has_open_cut()
            {
                self.snapshots.iter().for_each(Snapshots::request);
                self.asked.push(now);
            }
            if began.elapsed() >= lasts {
                let messages = self.handle.stats().handled - before;
                return Run { messages, seconds: began.elapsed().as_secs_f64() };
            }
        }
    }

    fn has_open_cut(&self) -> bool {
        self.done.borrow().len() < self.cuts_before + self.asked.len()
    }

    /// Runs until no cut is open.
    fn settle(&mut self) {
        while self.has_open_cut() {
            self.worker.step();
        }
    }

    fn hops(&self) -> Vec<u64> {
        let mut hops = std::mem::take(&mut *self.shared.hops.borrow_mut());
        hops.sort_unstable();
        hops
    }
}

/// How much was done in what time.
#[derive(Clone, Copy, Debug, Default)]
struct Run {
    messages: u64,
    seconds: f64,
}

impl Run {
    fn add(&mut self, other: Run) {
        self.messages += other.messages;
        self.seconds += other.seconds;
    }

    fn per_second(self) -> f64 {
        self.messages as f64 / self.seconds
    }
}

fn show(case: &str, metric: &str, value: f64) {
    let line = format!(
        "{{\"bench\":\"snapshot\",\"case\":\"{case}\",\"metric\":\"{metric}\",\"value\":{value:.3}}}"
    );
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").expect("the standard output is there");
}

/// Runs a case and its ceiling in turns, so that both meet the same machine, and shows them beside each
/// other.
fn compare(runtime: &Runtime, ceiling: &mut Program, case: Case, turn: Duration, turns: u32) {
    let mut program = Program::new(runtime, case);
    ceiling.shared.hops.borrow_mut().clear();
    let (mut without, mut with) = (Run::default(), Run::default());
    for _ in 0..turns {
        without.add(ceiling.go(turn / 2, false));
        with.add(program.go(turn, true));
        program.settle();
        without.add(ceiling.go(turn / 2, false));
    }
    let ratio = with.per_second() / without.per_second();
    let (hops, hops_without) = (program.hops(), ceiling.hops());
    let p99 = |hops: &[u64]| at(hops, 0.99) / 1e3;
    eprintln!(
        "{}: {:.2} M messages/s of {:.2} ({ratio:.3}); a hop takes {:.0} us, p99 {:.0} (without: {:.0}, {:.0})",
        case.name,
        with.per_second() / 1e6,
        without.per_second() / 1e6,
        at(&hops, 0.5) / 1e3,
        p99(&hops),
        at(&hops_without, 0.5) / 1e3,
        p99(&hops_without),
    );
    show(case.name, "messages_per_second", with.per_second());
    show(case.name, "messages_per_second_without", without.per_second());
    show(case.name, "ratio_to_ceiling", ratio);
    show(case.name, "hop_p99_us", p99(&hops));
    show(case.name, "hop_p99_us_without", p99(&hops_without));
    show_cuts(&program, with.seconds);
    let list = runtime.block_on(program.store.list()).expect("it can be listed");
    if let Some(full) = list.iter().flatten().find(|snapshot| snapshot.chain.len() == 1) {
        show(case.name, "full_bytes_per_address", full.bytes as f64 / ADDRESSES as f64);
    }
}

fn show_cuts(program: &Program, seconds: f64) {
    let (name, cuts) = (program.case.name, program.asked.len());
    if cuts == 0 {
        return;
    }
    let done = program.done.borrow();
    let done = &done[program.cuts_before..];
    let durable = program.asked.iter().zip(done).map(|(asked, (done, _))| *done - *asked);
    let durable: f64 = durable.map(|took| took.as_secs_f64()).sum::<f64>() / cuts as f64 * 1e3;
    let interval = seconds / cuts as f64 * 1e3;
    let (bytes, state) = done
        .iter()
        .fold((0, 0), |(bytes, state), (_, done)| (bytes + done.bytes, state + done.counts.state));
    let messages: u64 = done.iter().map(|(_, done)| done.counts.queued + done.counts.logged).sum();
    let per_piece = bytes as f64 / state.max(1) as f64;
    let busy = program.handle.cut_times();
    let us = |time: Duration| time.as_secs_f64() * 1e6;
    eprintln!(
        "  {cuts} cuts, one every {interval:.0} ms, durable after {durable:.1} ms; an activation is busy \
         with a cut for {:.0} us at p99.9 and {:.0} at most; {per_piece:.1} bytes for each of {} addresses, \
         with {} messages on their way",
        us(busy.percentile(0.999)),
        us(busy.longest()),
        state / cuts as u64,
        messages / cuts as u64,
    );
    show(name, "cuts", cuts as f64);
    show(name, "interval_ms", interval);
    show(name, "durable_ms", durable);
    show(name, "activation_p999_us", us(busy.percentile(0.999)));
    show(name, "activation_max_us", us(busy.longest()));
    show(name, "bytes_per_written_address", per_piece);
}

const SLOW: FunctionType<i64> = FunctionType::new("bench/slow");

/// Serves a function that does nothing, a second late.
async fn serve_slowly(listener: tokio::net::TcpListener) {
    loop {
        let (stream, _) = listener.accept().await.expect("connections come");
        tokio::spawn(async move {
            let answer = service_fn(|_: Request<Incoming>| async {
                tokio::time::sleep(Duration::from_secs(1)).await;
                let octets = "application/octet-stream";
                let response = Response::builder().header(header::CONTENT_TYPE, octets);
                Ok::<_, Infallible>(
                    response.body(Full::new(Bytes::new())).expect("it is a response"),
                )
            });
            let server = hyper::server::conn::http1::Builder::new();
            // A client that goes away is no concern of the server's.
            let _ = server.serve_connection(TokioIo::new(stream), answer).await;
        });
    }
}

/// How long a cut takes while so many calls are in flight that take a second, in milliseconds.
fn with_slow_calls(runtime: &Runtime, calls: u64) -> f64 {
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0"));
    let listener = listener.expect("there is a free port");
    let url = format!("http://{}/", listener.local_addr().expect("it has one"));
    let serving = runtime.spawn(serve_slowly(listener));
    let directory = Directory::new("slow");
    let (store, handle) = (directory.store(), runtime.handle().clone());
    let took = timely::execute_directly(move |worker| {
        let policy = SnapshotPolicy::new("bench").on_request();
        let snapshots = Snapshots::<u64>::begin(worker, &store, &handle, &policy);
        let snapshots = snapshots.expect("the store is empty");
        let done: Rc<Cell<Option<Instant>>> = Rc::default();
        let heard = Rc::clone(&done);
        let (mut input, handle) = worker.dataflow::<u64, _, _>(|scope| {
            let (input, stream) = scope.new_input::<Vec<Envelope<TypedValue>>>();
            let functions: Functions<TypedValue> = Functions::new()
                .remote(SLOW, Endpoint::at(url))
                .limits(Limits { in_flight_max: 4096, ..Limits::default() })
                .runtime(handle);
            let ingress = snapshots.unreplayed("calls", stream);
            let egresses = ingress.stateful_functions(functions).expect("it is bound once");
            let snapshots = egresses.snapshots().expect("they are taken");
            snapshots.inspect(move |_| heard.set(heard.get().or(Some(Instant::now()))));
            (input, egresses.handle())
        });
        (0..calls).for_each(|id| input.send(SLOW.message(id, 7)));
        input.flush();
        for _ in 0..100 {
            worker.step();
        }
        let asked = Instant::now();
        snapshots.request();
        while done.get().is_none() {
            worker.step_or_park(Some(Duration::from_millis(1)));
        }
        let took = done.get().expect("it was set") - asked;
        input.close();
        handle.run(worker).expect("nothing fails");
        took
    });
    serving.abort();
    took.as_secs_f64() * 1e3
}

/// Addresses restored in a second, on one worker and on two.
fn restore(runtime: &Runtime, addresses: u64) -> [f64; 2] {
    let directory = Directory::new("restore");
    let store = directory.store();
    let shared = || {
        Rc::new(Shared {
            began: Instant::now(),
            moving: AtomicBool::new(false),
            first: AtomicU64::new(0),
            many: 1,
            hops: RefCell::default(),
        })
    };
    let policy = SnapshotPolicy::new("bench").on_request();
    let program = Arc::new((store, runtime.handle().clone(), policy));
    let filling = Arc::clone(&program);
    timely::execute_directly(move |worker| {
        let (store, handle, policy) = &*filling;
        let snapshots = Snapshots::<u64>::begin(worker, store, handle, policy);
        let snapshots = snapshots.expect("the store is empty");
        let (mut input, handle) = worker.dataflow::<u64, _, _>(|scope| {
            let (input, stream) = scope.new_input::<Vec<Envelope<Token>>>();
            let ingress = snapshots.unreplayed("tokens", stream);
            let egresses = ingress.stateful_functions(functions(&shared()));
            (input, egresses.expect("it is bound once").handle())
        });
        for address in 0..addresses {
            input.send(COUNTER.message(address, Token::Once));
            if address % 10_000 == 0 {
                handle.until_ready(worker).expect("nothing fails");
            }
        }
        input.close();
        // The last cut holds all of them.
        handle.run(worker).expect("nothing fails");
    });
    [1, 2].map(|workers| {
        let program = Arc::clone(&program);
        let config = match workers {
            1 => timely::Config::thread(),
            _ => timely::Config::process(workers),
        };
        let guards = timely::execute(config, move |worker| {
            let (store, handle, policy) = &*program;
            let began = Instant::now();
            let snapshots = Snapshots::<u64>::begin(worker, store, handle, policy);
            let snapshots = snapshots.expect("the last cut is whole");
            assert!(snapshots.restored().is_some());
            let (mut input, handle, probe) = worker.dataflow::<u64, _, _>(|scope| {
                let (input, stream) = scope.new_input::<Vec<Envelope<Token>>>();
                let ingress = snapshots.unreplayed("tokens", stream);
                let egresses = ingress.stateful_functions(functions(&shared()));
                let egresses = egresses.expect("it is bound once");
                let letters = egresses.dead_letters().expect("nobody else takes them");
                (input, egresses.handle(), letters.probe().0)
            });
            input.advance_to(1);
            input.flush();
            while probe.less_than(&1) {
                worker.step_or_park(Some(Duration::from_millis(1)));
            }
            let took = began.elapsed();
            input.close();
            handle.run(worker).expect("nothing fails");
            took
        });
        let took = guards.expect("it starts").join().into_iter().map(|took| took.expect("it ends"));
        addresses as f64 / took.max().expect("there is a worker").as_secs_f64()
    })
}

fn main() {
    let quick = std::env::args().any(|argument| argument == "--quick");
    let turns = if quick { 1 } else { 5 };
    let only = std::env::args().skip_while(|argument| argument != "--only").nth(1);
    let wanted = |name: &str| only.as_deref().is_none_or(|only| name.contains(only));
    let runtime = Runtime::new().expect("a runtime can be built");
    let (second, long) = (Duration::from_secs(1), Duration::from_secs(10));
    let all = [(NO_CUT, second, 4), (EVERY_10_S, long, 1), (ALL_EVERY_100_MS, second, 4)];
    let few = [(FEW_EVERY_100_MS, second, 4)];
    for (without, cases) in [(WITHOUT, &all[..]), (FEW_WITHOUT, &few)] {
        let mut cases = cases.iter().filter(|(case, ..)| wanted(case.name)).peekable();
        if cases.peek().is_some() {
            let mut ceiling = Program::new(&runtime, without);
            for (case, turn, times) in cases {
                compare(&runtime, &mut ceiling, *case, *turn, times * turns);
            }
        }
    }

    if wanted("calls that take a second") {
        let calls = 1000;
        let took = with_slow_calls(&runtime, calls);
        eprintln!(
            "durable after {took:.1} ms while {calls} calls are in flight that take a second"
        );
        show("calls that take a second", "durable_ms", took);
    }
    if wanted("restore") {
        let many: &[u64] = if quick { &[ADDRESSES] } else { &[ADDRESSES, 10 * ADDRESSES] };
        for &addresses in many {
            for (workers, per_second) in [1, 2].into_iter().zip(restore(&runtime, addresses)) {
                eprintln!(
                    "{addresses} addresses are restored on {workers} workers at {:.2} M/s",
                    per_second / 1e6
                );
                let case = format!("restore {addresses} addresses, {workers} workers");
                show(&case, "addresses_per_second", per_second);
            }
        }
    }
}

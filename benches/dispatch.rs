//! How close does dispatching messages to stateful functions come to a timely operator written by
//! hand for just this job?
//!
//! The job: tokens wander between addresses for ever. Whoever gets one adds one to its count and
//! sends the token to an address drawn from it. The *ceiling* does it with an operator, a feedback
//! edge and a hash map, and without this library; it uses the same ids, the same hash and the same
//! payload. Both run in turn in this process. From a base case one thing is varied at a time.
//!
//! Why the ceiling is where it is: an id is 24 bytes and a message carries two of them, ids are text or
//! decimal numbers that are made and hashed for each message, and with a million addresses each message
//! waits for two reads of memory that nothing else in its short work can hide. (A ceiling with 4-byte
//! ids and nothing to make or hash reaches several times as much.) The library asks for the state of
//! the next 32 messages at once, which is how it can be ahead of the ceiling there; with a thousand
//! addresses everything is in the caches, and what is left is the price of undo, limits, and effects.
//!
//! `cargo bench --bench dispatch`, or `-- --quick` for less than a minute. Each figure is one line of
//! JSON; what a person wants to know goes to the standard error.

use std::cell::Cell;
use std::hint::black_box;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hashbrown::HashTable;
use serde::{Deserialize, Serialize};
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::vec::UnorderedInput;
use timely::dataflow::operators::{
    Capability, ConnectLoop, Enter, Feedback, InputCapability, Operator,
};
use timely::order::Product;
use timely::worker::Worker;
use timely_statefun::{
    Envelope, Function, FunctionType, Functions, Id, StatefulFunctions, ValueSpec,
};
use twox_hash::XxHash3_64;

/// What a token carries besides its way.
trait Payload: timely::ExchangeData + Clone {
    fn new(seed: u64) -> Self;
    /// The number the next address is drawn from.
    fn draw(&self) -> u64;
    /// The payload to send on.
    fn onward(&self, draw: u64) -> Self;
}

impl Payload for u64 {
    fn new(seed: u64) -> u64 {
        seed
    }
    fn draw(&self) -> u64 {
        *self
    }
    fn onward(&self, draw: u64) -> u64 {
        draw
    }
}

/// 128 bytes.
impl Payload for [u64; 16] {
    fn new(seed: u64) -> Self {
        [seed; 16]
    }
    fn draw(&self) -> u64 {
        self[0]
    }
    fn onward(&self, draw: u64) -> Self {
        let mut next = *self;
        next[0] = draw;
        next
    }
}

#[derive(Copy, Clone, Debug, PartialEq)]
enum Ids {
    Text,
    Numbers,
}

impl Ids {
    #[inline]
    fn id(self, number: u64) -> Id {
        match self {
            Ids::Numbers => Id::from(number),
            Ids::Text => {
                let mut text = *b"user-0000000";
                let mut rest = number;
                for digit in text[5..].iter_mut().rev() {
                    *digit = b'0' + (rest % 10) as u8;
                    rest /= 10;
                }
                Id::new(std::str::from_utf8(&text).unwrap_or_default())
            }
        }
    }
}

#[inline]
fn mix(mut x: u64) -> u64 {
    x ^= x >> 33;
    x = x.wrapping_mul(0xff51_afd7_ed55_8ccd);
    x ^= x >> 33;
    x = x.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    x ^ (x >> 33)
}

#[inline]
fn hash(id: &Id) -> u64 {
    id.with_bytes(XxHash3_64::oneshot)
}

#[inline]
fn bin(id: &Id) -> u64 {
    hash(id) >> 52
}

/// One setting of everything that is varied.
#[derive(Copy, Clone, Debug)]
struct Case {
    name: &'static str,
    addresses: u64,
    ids: Ids,
    wide: bool,
    workers: usize,
    in_flight: u64,
    times: u64,
    /// Every hop goes to the other of two workers.
    crossing: bool,
    /// What the design's document says the ceiling reaches here, in messages per second and worker.
    ceiling_expected: Option<f64>,
}

const BASE: Case = Case {
    name: "base: 1M addresses, text ids, 8 bytes, 1 worker, 100k in flight, 4 times",
    addresses: 1_000_000,
    ids: Ids::Text,
    wide: false,
    workers: 1,
    in_flight: 100_000,
    times: 4,
    crossing: false,
    ceiling_expected: None,
};

const CASES: &[Case] = &[
    BASE,
    Case { name: "1k addresses", addresses: 1000, ..BASE },
    Case { name: "numeric ids", ids: Ids::Numbers, ceiling_expected: Some(16e6), ..BASE },
    Case { name: "128-byte payload", wide: true, ..BASE },
    Case { name: "2 workers", workers: 2, ..BASE },
    Case {
        name: "2 workers, numeric ids",
        workers: 2,
        ids: Ids::Numbers,
        ceiling_expected: Some(14.5e6),
        ..BASE
    },
    Case { name: "100 in flight", in_flight: 100, ..BASE },
    Case { name: "1 in flight", in_flight: 1, addresses: 1000, ..BASE },
    Case {
        name: "1 in flight, every hop to the other of 2 workers",
        in_flight: 1,
        addresses: 1000,
        workers: 2,
        crossing: true,
        ..BASE
    },
    Case { name: "200 live times", times: 200, ..BASE },
    Case { name: "200 live times, 2 workers", times: 200, workers: 2, ..BASE },
];

impl Case {
    /// The address a draw leads to, from an address on worker `from`.
    #[inline]
    fn next(&self, draw: u64, from: u64) -> Id {
        let id = self.ids.id(draw % self.addresses);
        if self.crossing && bin(&id) % 2 == from {
            let others = (1..).map(|n| self.ids.id((draw + n) % self.addresses));
            return others.into_iter().find(|id| bin(id) % 2 != from).unwrap_or(id);
        }
        id
    }
}

/// What one side measured on one worker.
struct Figures {
    per_second: f64,
    bytes_per_address: f64,
    crossed: bool,
}

/// Where workers wait for each other without leaving each other's messages unread.
struct Meeting {
    workers: usize,
    arrived: AtomicUsize,
}

impl Meeting {
    fn new(workers: usize) -> Self {
        Meeting { workers, arrived: AtomicUsize::new(0) }
    }

    fn wait(&self, worker: &mut Worker) {
        let before = self.arrived.fetch_add(1, Ordering::SeqCst);
        let all = (before / self.workers + 1) * self.workers;
        while self.arrived.load(Ordering::SeqCst) < all {
            worker.step();
        }
    }
}

/// Drives one side: lets `offer` send a message to every address, then the tokens, and then counts
/// with `handled` while `step` goes on.
struct Driver<'a> {
    case: Case,
    duration: Duration,
    together: &'a Meeting,
}

impl Driver<'_> {
    fn measure(
        &self,
        worker: &mut Worker,
        mut offer: impl FnMut(u64, Vec<(u64, bool)>),
        mut settle: impl FnMut(&mut Worker),
        handled: impl Fn() -> u64,
    ) -> (f64, f64) {
        let (index, peers) = (worker.index() as u64, worker.peers() as u64);
        let own = |n: &u64| n % peers == index;
        let before = resident_bytes();
        let mut sent = 0;
        for chunk in 0..self.case.addresses.div_ceil(20_000) {
            let range = chunk * 20_000..((chunk + 1) * 20_000).min(self.case.addresses);
            let batch: Vec<_> = range.filter(own).map(|n| (n, false)).collect();
            sent += batch.len();
            offer(0, batch);
            settle(worker);
        }
        self.together.wait(worker);
        for _ in 0..1000 {
            worker.step();
        }
        let bytes = (resident_bytes() - before) / sent.max(1) as f64;
        for time in 0..self.case.times {
            let tokens = 0..self.case.in_flight;
            let tokens = tokens.filter(own).filter(|n| n / peers % self.case.times == time);
            offer(time, tokens.map(|n| (mix(n + 1) % self.case.addresses, true)).collect());
            worker.step();
        }
        let warm = Instant::now();
        while warm.elapsed() < self.duration / 4 {
            worker.step();
        }
        self.together.wait(worker);
        let (start, first) = (Instant::now(), handled());
        while start.elapsed() < self.duration {
            worker.step();
        }
        let rate = (handled() - first) as f64 / start.elapsed().as_secs_f64();
        self.together.wait(worker);
        (rate, bytes)
    }
}

/// The library's side.
fn library<P: Payload>(worker: &mut Worker, driver: &Driver<'_>) -> Figures {
    #[derive(Clone, Serialize, Deserialize)]
    struct Token<P> {
        payload: P,
        wanders: bool,
    }
    const COUNT: ValueSpec<u64> = ValueSpec::new("count");
    let case = driver.case;
    let stop = Rc::new(Cell::new(false));
    let stopped = Rc::clone(&stop);
    let index = worker.index() as u64;
    let place: FunctionType<Token<P>> = FunctionType::new("bench/place");
    let function = Function::new(move |context, token: &Token<P>| {
        let count = context.get(COUNT).copied().unwrap_or(0);
        context.set(COUNT, count + 1);
        if token.wanders && !stopped.get() {
            let draw = mix(token.payload.draw().wrapping_add(count));
            let payload = token.payload.onward(draw);
            let to = case.next(draw, index);
            context.send(place, to, Token { payload, wanders: true });
        }
        Ok(())
    });
    let functions = Functions::<Token<P>>::new().embedded(place, function.value(COUNT));
    let (mut input, mut now, handle) = worker.dataflow::<u64, _, _>(|scope| {
        let ((input, now), stream) = scope.new_unordered_input::<Envelope<Token<P>>>();
        let egresses = stream.stateful_functions(functions).expect("bound once");
        (input, now, egresses.handle())
    });
    let seeds = Cell::new(index * 1_000_003);
    let waiting = handle.clone();
    let counting = handle.clone();
    let (per_second, bytes_per_address) = driver.measure(
        worker,
        |time, batch| {
            now.downgrade(&time);
            let mut input = input.activate();
            let mut session = input.session(&now);
            for (number, wanders) in batch {
                seeds.set(seeds.get() + 1);
                let token = Token { payload: P::new(mix(seeds.get())), wanders };
                session.give(place.message(case.ids.id(number), token));
            }
        },
        |worker| {
            worker.step();
            while !waiting.ready() || waiting.stats().waiting > 0 {
                worker.step();
            }
        },
        || counting.stats().handled,
    );
    let crossed = handle.stats().sent_away > 0;
    stop.set(true);
    drop((input, now));
    handle.run(worker).expect("nothing fails");
    Figures { per_second, bytes_per_address, crossed }
}

/// The same by hand.
fn ceiling<P: Payload>(worker: &mut Worker, driver: &Driver<'_>) -> Figures {
    #[derive(Clone, Serialize, Deserialize)]
    struct Token<P> {
        from: Id,
        to: Id,
        payload: P,
        wanders: bool,
    }
    type Time = Product<u64, u64>;
    let case = driver.case;
    let stop = Rc::new(Cell::new(false));
    let stopped = Rc::clone(&stop);
    let handled = Rc::new(Cell::new(0u64));
    let counts = Rc::clone(&handled);
    let crossing = Rc::new(Cell::new(false));
    let crosses = Rc::clone(&crossing);
    let (index, peers) = (worker.index() as u64, worker.peers() as u64);
    let (mut input, mut now, dataflow) = worker.dataflow::<u64, _, _>(|scope| {
        let ((input, now), stream) = scope.new_unordered_input::<Token<P>>();
        scope.iterative::<u64, _, _>(|inner| {
            let (back, cycle) = inner.feedback::<Vec<Token<P>>>(Product::new(0, 1));
            let entered = stream.enter(inner);
            let by_bin = || Exchange::new(|token: &Token<P>| bin(&token.to));
            let sent = entered
                .binary::<_, timely::container::CapacityContainerBuilder<Vec<_>>, _, _, _, _>(
                    cycle,
                    by_bin(),
                    by_bin(),
                    "ceiling",
                    |_, _| {
                        let mut table: HashTable<(Id, u64)> = HashTable::new();
                        let mut held: Vec<(Capability<Time>, Vec<Token<P>>)> = Vec::new();
                        move |ingress, returned, output| {
                            let mut done = 0;
                            let mut handle = |token: Token<P>| {
                                done += 1;
                                let key = hash(&token.to);
                                let entry =
                                    table.entry(key, |(id, _)| *id == token.to, |(id, _)| hash(id));
                                let mut entry = entry.or_insert_with(|| (token.to.clone(), 0));
                                let count = &mut entry.get_mut().1;
                                let before = *count;
                                *count += 1;
                                if token.wanders && !stopped.get() {
                                    let draw = mix(token.payload.draw().wrapping_add(before));
                                    let payload = token.payload.onward(draw);
                                    let to = case.next(draw, index);
                                    if peers > 1 && bin(&to) % peers != index {
                                        crosses.set(true);
                                    }
                                    return Some(Token {
                                        from: token.to,
                                        to,
                                        payload,
                                        wanders: true,
                                    });
                                }
                                black_box(token.from);
                                None
                            };
                            // What one activation sends at one time leaves under the largest hop seen:
                            // without this two workers' hops drift apart and progress takes over.
                            let mut receive =
                                |time: InputCapability<Time>, tokens: &mut Vec<Token<P>>| {
                                    let at = held
                                        .iter()
                                        .position(|held| held.0.time().outer == time.outer);
                                    let (capability, out) = match at {
                                        Some(at) => &mut held[at],
                                        None => {
                                            held.push((time.retain(0), Vec::new()));
                                            held.last_mut().expect("just pushed")
                                        }
                                    };
                                    if capability.time().inner < time.inner {
                                        capability.downgrade(&time);
                                    }
                                    out.extend(tokens.drain(..).filter_map(&mut handle));
                                };
                            ingress.for_each(&mut receive);
                            returned.for_each(&mut receive);
                            for (capability, mut out) in held.drain(..) {
                                output.session(&capability).give_container(&mut out);
                            }
                            counts.set(counts.get() + done);
                        }
                    },
                );
            sent.connect_loop(back);
        });
        (input, now, scope.addr()[0])
    });
    let seeds = Cell::new(index * 1_000_003);
    let (per_second, bytes_per_address) = driver.measure(
        worker,
        |time, batch| {
            now.downgrade(&time);
            let mut input = input.activate();
            let mut session = input.session(&now);
            for (number, wanders) in batch {
                seeds.set(seeds.get() + 1);
                let payload = P::new(mix(seeds.get()));
                let to = case.ids.id(number);
                session.give(Token { from: Id::from(0), to, payload, wanders });
            }
        },
        |worker| {
            for _ in 0..8 {
                worker.step();
            }
        },
        || handled.get(),
    );
    stop.set(true);
    drop((input, now));
    while worker.installed_dataflows().contains(&dataflow) {
        worker.step();
    }
    Figures { per_second, bytes_per_address, crossed: crossing.get() }
}

/// Memory of this process, in bytes, or 0 where the system does not say.
fn resident_bytes() -> f64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<f64>().ok());
    pages.unwrap_or(0.0) * 4096.0
}

#[derive(Copy, Clone, Debug, PartialEq)]
enum Side {
    Ceiling,
    Library,
}

/// Messages per second and worker, and resident bytes per address.
fn run(side: Side, case: Case, duration: Duration) -> (f64, f64) {
    let together = Arc::new(Meeting::new(case.workers));
    let guards = timely::execute(timely::Config::process(case.workers), move |worker| {
        let driver = Driver { case, duration, together: &together };
        match (side, case.wide) {
            (Side::Ceiling, false) => ceiling::<u64>(worker, &driver),
            (Side::Ceiling, true) => ceiling::<[u64; 16]>(worker, &driver),
            (Side::Library, false) => library::<u64>(worker, &driver),
            (Side::Library, true) => library::<[u64; 16]>(worker, &driver),
        }
    });
    let figures = guards.expect("workers start").join();
    let figures: Vec<Figures> = figures.into_iter().map(|f| f.expect("a worker ends")).collect();
    assert!(case.workers == 1 || figures.iter().all(|f| f.crossed), "nothing crossed workers");
    let workers = figures.len() as f64;
    let rate = figures.iter().map(|f| f.per_second).sum::<f64>() / workers;
    (rate, figures[0].bytes_per_address)
}

fn print(case: &str, metric: &str, value: f64) {
    let value = if value >= 100.0 { format!("{value:.0}") } else { format!("{value:.3}") };
    println!(r#"{{"bench":"dispatch","case":"{case}","metric":"{metric}","value":{value}}}"#);
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Memory of idle addresses, in a process that has done nothing else.
fn idle_bytes(side: &str, ids: &str) -> f64 {
    let program = std::env::current_exe().expect("this program has a path");
    let output = std::process::Command::new(program).args(["--idle-bytes", side, ids]).output();
    let output = output.expect("this program can be started");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.trim().parse().unwrap_or_else(|_| panic!("expected a number, got {text:?}"))
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|arg| arg == "--idle-bytes") {
        let side = if args[1] == "ceiling" { Side::Ceiling } else { Side::Library };
        let ids = if args[2] == "numbers" { Ids::Numbers } else { Ids::Text };
        let case = Case { ids, in_flight: 1, ..BASE };
        println!("{}", run(side, case, Duration::from_millis(1)).1);
        return;
    }
    let quick = args.iter().any(|arg| arg == "--quick");
    let only: Vec<&String> = args.iter().filter(|arg| !arg.starts_with("--")).collect();
    let (rounds, duration) =
        if quick { (1, Duration::from_millis(600)) } else { (5, Duration::from_secs(2)) };
    let mut few_times = std::collections::HashMap::new();
    for case in CASES {
        if !only.is_empty() && !only.iter().any(|name| case.name.contains(name.as_str())) {
            continue;
        }
        let (mut hand, mut own) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            hand.push(run(Side::Ceiling, *case, duration).0);
            own.push(run(Side::Library, *case, duration).0);
        }
        let (hand, own) = (median(hand), median(own));
        print(case.name, "ceiling_messages_per_second_per_worker", hand);
        print(case.name, "messages_per_second_per_worker", own);
        print(case.name, "ratio_to_ceiling", own / hand);
        if case.in_flight == 1 {
            let workers = case.workers as f64;
            print(case.name, "ceiling_hop_ns", 1e9 / hand / workers);
            print(case.name, "hop_ns", 1e9 / own / workers);
        }
        let key = (case.workers, case.ids == Ids::Text, case.addresses, case.in_flight, case.wide);
        if case.times == BASE.times {
            few_times.insert(key, own);
        } else if let Some(few) = few_times.get(&key) {
            print(case.name, "ratio_to_few_times", own / few);
        }
        let mut line = format!("{}: {:.2} of {:.2} M/s", case.name, own / 1e6, hand / 1e6);
        if let Some(expected) = case.ceiling_expected {
            line += &format!(" (the design measured a ceiling of {:.1} M/s)", expected / 1e6);
        }
        eprintln!("{line}, ratio {:.2}", own / hand);
    }
    if only.is_empty() {
        for ids in ["text", "numbers"] {
            let case = format!("1M idle addresses, {ids}");
            print(&case, "ceiling_bytes_per_address", idle_bytes("ceiling", ids));
            print(&case, "bytes_per_address", idle_bytes("library", ids));
        }
    }
}

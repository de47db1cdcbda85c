//! Every cut of a running loop holds all the money there is.
//!
//! Money moves for ever between addresses, and some leaves, while cuts are taken. For each cut the
//! balances when it was taken, the messages that waited or were logged, and what left before it must
//! add up to what the gates had admitted, on every number of workers and whatever the ingress times
//! do. On the way each (sender, target) pair must see its messages in order.
//!
//! A run also fails if it proves nothing: if no message crossed workers or no cut logged one.

#[path = "support/cluster.rs"]
mod cluster;
#[path = "support/pair.rs"]
mod pair;

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;
use std::sync::{Arc, Mutex};

use pair::Pair;
use serde::{Deserialize, Serialize};
use timely::dataflow::operators::vec::UnorderedInput;
use timely::dataflow::operators::{Exchange, Input, Inspect, Probe};
use timely::progress::Timestamp;
use timely::progress::timestamp::Refines;
use timely_statefun_operators::{
    Announcement, Handler, Ingress, LoopConfig, LoopStats, Outbox, Place, Places, Verdict, Weight,
    Work, keyed_loop,
};

const ADDRESSES: u64 = 64;
const TOKENS: u64 = 400;
const CUTS: u64 = 40;
const AMOUNT: u64 = 1000;
/// Steps of a worker in which it admits money. Cuts are taken in these and later ones.
const ADMITTING: u64 = 300;
/// What a message weighs where there is not room for all: far more than it takes.
const WEIGHT: usize = 1 << 16;

fn mix(mut x: u64) -> u64 {
    x ^= x >> 33;
    x = x.wrapping_mul(0xff51_afd7_ed55_8ccd);
    x ^= x >> 33;
    x = x.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    x ^ (x >> 33)
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Transfer {
    from: u64,
    to: u64,
    sequence: u64,
    amount: u64,
}

/// What one worker knows of one cut.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Part {
    balances: u64,
    waiting: u64,
    logged: u64,
    admitted: u64,
    left_before: u64,
    complete: u64,
}

type Parts = Arc<Mutex<BTreeMap<u64, Part>>>;

struct Bank {
    balances: HashMap<u64, u64>,
    last: HashMap<(u64, u64), u64>,
    next: HashMap<(u64, u64), u64>,
    random: u64,
    moving: Rc<Cell<bool>>,
    cuts: u64,
    /// Balances of the open cut that are not in its part yet.
    unwritten: BTreeMap<u64, u64>,
    parts: Parts,
    logs: bool,
    /// How many messages there is room for, if not for all.
    limit: Option<usize>,
    /// The message that was logged last, and how many were refused that had just been logged.
    logged_last: Option<(u64, u64, u64)>,
    refused: Rc<Cell<u64>>,
}

impl Bank {
    fn part(&self, cut: u64, note: impl FnOnce(&mut Part)) {
        note(self.parts.lock().unwrap().entry(cut).or_default());
    }

    /// An address is about to be written to: what it had belongs to the open cut.
    fn before_write(&mut self, address: u64) {
        if let Some(balance) = self.unwritten.remove(&address) {
            self.part(self.cuts, |part| part.balances += balance);
        }
    }
}

impl<T: Timestamp> Handler<T> for BankOf<T> {
    type Message = Transfer;
    type Output = (u64, u64);
    type Failure = String;

    fn route(message: &Transfer) -> u64 {
        mix(message.to)
    }

    fn handle(&mut self, m: Transfer, outbox: &mut Outbox<'_, T, Transfer>) -> Verdict<String> {
        let bank = &mut self.bank;
        let expected = bank.last.entry((m.from, m.to)).or_insert(0);
        let next = m.sequence == *expected || bank.limit.is_some() && m.sequence > *expected;
        assert!(next, "order from {} to {}: {} is not {expected}", m.from, m.to, m.sequence);
        *expected = m.sequence + 1;
        bank.before_write(m.to);
        let balance = bank.balances.entry(m.to).or_insert(0);
        *balance += m.amount;
        if !bank.moving.get() {
            return Verdict::Done;
        }
        bank.random = mix(bank.random.wrapping_add(0x9e37_79b9_7f4a_7c15));
        let amount = bank.random % (*balance + 1);
        *balance -= amount;
        let fee = if bank.random & 7 == 0 { (*balance).min(3) } else { 0 };
        *balance -= fee;
        let to = (bank.random >> 32) % ADDRESSES;
        let sequence = bank.next.entry((m.to, to)).or_insert(0);
        outbox.send(Transfer { from: m.to, to, sequence: *sequence, amount });
        *sequence += 1;
        if fee > 0 {
            self.emitted.push((outbox.time().clone(), (bank.cuts, fee)));
        }
        Verdict::Done
    }

    fn weight(&self) -> Option<Weight<Transfer>> {
        self.bank.limit.map(|_| Box::new(|_: &_| WEIGHT) as Weight<Transfer>)
    }

    /// What there is no room for leaves.
    fn refuse(&mut self, m: Transfer, time: &T) -> Verdict<String> {
        assert!(self.bank.limit.is_some(), "there is room for all");
        if self.bank.logged_last.take() == Some((m.from, m.to, m.sequence)) {
            self.bank.refused.set(self.bank.refused.get() + 1);
        }
        self.emitted.push((time.clone(), (self.bank.cuts, m.amount)));
        Verdict::Done
    }

    fn emit(&mut self, emitter: &mut dyn FnMut(&T, (u64, u64))) {
        for (time, output) in self.emitted.drain(..) {
            emitter(&time, output);
        }
    }

    fn take_cut(&mut self, cut: u64, _: Option<&T>) {
        let bank = &mut self.bank;
        bank.cuts = cut;
        bank.unwritten =
            bank.balances.iter().map(|(address, balance)| (*address, *balance)).collect();
    }

    fn queued(&mut self, cut: u64, _: Place<'_, T>, message: &Transfer) {
        assert_eq!(cut, self.bank.cuts);
        self.bank.part(cut, |part| part.waiting += message.amount);
    }

    fn log(&mut self, cut: u64, _: Place<'_, T>, message: &Transfer) {
        self.bank.logged_last = Some((message.from, message.to, message.sequence));
        if self.bank.logs {
            self.bank.part(cut, |part| part.logged += message.amount);
        }
    }

    fn work_on_cut(&mut self, cut: u64, budget: usize, _: &Places<'_, T>) -> Work {
        for _ in 0..budget {
            let Some((_, balance)) = self.bank.unwritten.pop_first() else { return Work::Done };
            self.bank.part(cut, |part| part.balances += balance);
        }
        Work::More
    }

    fn complete_cut(&mut self, cut: u64, _: &[T]) {
        assert!(self.bank.unwritten.is_empty(), "complete, and not written");
        self.bank.part(cut, |part| part.complete += 1);
    }

    fn abandon_cut(&mut self, cut: u64) {
        panic!("cut {cut} was given up although the next was announced when it was complete");
    }
}

struct BankOf<T> {
    bank: Bank,
    emitted: Vec<(T, (u64, u64))>,
}

/// Ingress times of one kind: the time of each step on each worker.
trait Times: Timestamp + Refines<()> {
    fn at(kind: Kind, worker: u64, step: u64) -> Self;
}

#[derive(Copy, Clone, Debug, PartialEq)]
enum Kind {
    Milliseconds,
    Stuck,
    Jumping,
}

impl Times for u64 {
    fn at(kind: Kind, worker: u64, step: u64) -> u64 {
        match kind {
            Kind::Milliseconds => 1_760_000_000_000 + step * 2,
            Kind::Stuck if worker == 0 => 0,
            Kind::Stuck => step,
            Kind::Jumping => step + (step / 7) * (1 << 50),
        }
    }
}

/// The two coordinates advance in turn, another one first on every other worker, so that times of
/// two workers are often incomparable.
impl Times for Pair {
    fn at(kind: Kind, worker: u64, step: u64) -> Self {
        let (ahead, behind) = (u64::at(kind, worker, step), u64::at(kind, worker, step / 2));
        if worker.is_multiple_of(2) { Pair(ahead, behind) } else { Pair(behind, ahead) }
    }
}

/// What is special about a program.
#[derive(Copy, Clone, Debug)]
struct Special {
    budget: usize,
    logs: bool,
    limit: Option<usize>,
}

const NOTHING: Special = Special { budget: 64, logs: true, limit: None };

struct Run {
    parts: BTreeMap<u64, Part>,
    stats: Vec<LoopStats>,
    /// Messages that were logged and then refused.
    refused: u64,
}

fn run<T: Times>(config: timely::Config, kind: Kind, special: Special) -> Run {
    let Special { budget, logs, limit } = special;
    let parts: Parts = Arc::default();
    let shared = Arc::clone(&parts);
    let guards = timely::execute(config, move |worker| {
        let (index, peers) = (worker.index() as u64, worker.peers() as u64);
        let moving = Rc::new(Cell::new(true));
        let refused = Rc::new(Cell::new(0));
        let bank = Bank {
            balances: HashMap::new(),
            last: HashMap::new(),
            next: HashMap::new(),
            random: index + 1,
            moving: Rc::clone(&moving),
            cuts: 0,
            unwritten: BTreeMap::new(),
            parts: Arc::clone(&shared),
            logs,
            limit,
            logged_last: None,
            refused: Rc::clone(&refused),
        };
        let (at_gates, at_egress) = (Arc::clone(&shared), Arc::clone(&shared));
        let ((mut input, mut now), (mut control, ever), probe, handle) = worker
            .dataflow::<T, _, _>(|scope| {
                let (input, stream) = scope.new_unordered_input::<Transfer>();
                let (control, cuts) = scope.new_unordered_input::<Announcement<T>>();
                let ingress = Ingress::new("money", stream, |m| m).on_cut(move |at| {
                    let mut parts = at_gates.lock().unwrap();
                    parts.entry(at.cut).or_default().admitted += at.records * AMOUNT;
                });
                // Slices so small that a cut takes many, and messages are handled in between.
                let mut config =
                    LoopConfig { budget_messages: budget, cut_slice: 3, ..LoopConfig::default() };
                if let Some(limit) = limit {
                    config.loop_bytes_soft = limit * WEIGHT;
                    config.loop_bytes_hard = limit * WEIGHT;
                }
                let bank = BankOf { bank, emitted: Vec::new() };
                let (left, handle) =
                    keyed_loop(scope, "bank", vec![ingress], config, Some(cuts.into()), bank);
                let left = left.inspect(move |(before, amount)| {
                    // What leaves under a count belongs to every later cut.
                    let mut parts = at_egress.lock().unwrap();
                    for cut in before + 1..=CUTS {
                        parts.entry(cut).or_default().left_before += amount;
                    }
                });
                (input, control, left.probe().0, handle)
            });
        // Worker 0 learns here which cuts are complete on how many workers: one is open at a time.
        let complete = Rc::new(Cell::new(0));
        let count = Rc::clone(&complete);
        let (mut done, all_done) = worker.dataflow::<u64, _, _>(|scope| {
            let (input, stream) = scope.new_input::<Vec<u64>>();
            let told = stream.exchange(|_| 0);
            let told = told.inspect(move |_| count.set(count.get() + 1));
            (input, told.probe().0)
        });
        let mut source = 1_000_000 + index * 1_000_000;
        let (mut announced, mut told) = (0, 0);
        for step in 0.. {
            now.downgrade(&T::at(kind, index, step));
            let tokens = if step == 0 { TOKENS / peers } else { 2 };
            // A worker that waits for a slower one must not fill the loop meanwhile.
            if handle.ready() && step < ADMITTING {
                let mut input = input.activate();
                let mut session = input.session(&now);
                for _ in 0..tokens {
                    source += 1;
                    let to = mix(source) % ADDRESSES;
                    session.give(Transfer { from: source, to, sequence: 0, amount: AMOUNT });
                }
            }
            let all_complete = complete.get() == announced * peers;
            if index == 0 && announced < CUTS && step > 1 && all_complete {
                announced += 1;
                control.activate().session(&ever).give(Announcement::cut(announced));
            }
            for _ in 0..20 {
                worker.step();
            }
            std::thread::yield_now();
            while told < handle.stats().cuts_complete {
                told += 1;
                done.send(told);
                done.advance_to(told);
            }
            if told == CUTS {
                break;
            }
        }
        assert!(!probe.done() && !probe.less_than(&T::minimum()));
        // The first tokens still circulate, so nothing at or after their time is over.
        let going_on = limit.is_some() || probe.less_equal(&T::at(kind, index, 1));
        assert!(going_on, "passed a time that is still going on");
        // Nobody lets money come to rest before everybody has looked.
        done.advance_to(CUTS + 1);
        worker.step_while(|| all_done.less_than(&(CUTS + 1)));
        moving.set(false);
        drop((now, ever));
        done.close();
        handle.run(worker).unwrap();
        assert!(probe.done());
        (handle.stats(), refused.get())
    })
    .unwrap();
    let ends = guards.join().into_iter().map(|end| end.unwrap());
    let (stats, refused): (_, Vec<u64>) = ends.unzip();
    let parts = parts.lock().unwrap().clone();
    Run { parts, stats, refused: refused.into_iter().sum() }
}

/// How many cuts do not add up.
fn wrong(parts: &BTreeMap<u64, Part>) -> Vec<u64> {
    assert_eq!(parts.len() as u64, CUTS);
    let sum = |p: &Part| p.balances + p.waiting + p.logged + p.left_before;
    parts.iter().filter(|(_, p)| sum(p) != p.admitted).map(|(cut, _)| *cut).collect()
}

fn assert_proves_something(run: &Run, workers: u64) {
    assert!(run.parts.values().all(|p| p.complete == workers));
    let crossed: u64 = run.stats.iter().map(|s| s.sent_away).sum();
    let logged = run.parts.values().filter(|p| p.logged > 0).count();
    let left = run.parts.values().last().unwrap().left_before;
    assert!(left > 0, "nothing left the loop");
    let admitted: BTreeSet<u64> = run.parts.values().map(|p| p.admitted).collect();
    assert!(admitted.len() > 3, "the gates admitted nothing between cuts");
    assert!(run.parts.values().any(|p| p.waiting > 0), "nothing waited at any cut");
    if workers > 1 {
        assert!(crossed > 0, "no message crossed workers");
        assert!(logged > 0, "no cut logged a message");
    }
}

fn check<T: Times>(workers: usize, budget: usize) {
    for kind in [Kind::Milliseconds, Kind::Stuck, Kind::Jumping] {
        let config = timely::Config::process(workers);
        let run = run::<T>(config, kind, Special { budget, ..NOTHING });
        assert_eq!(wrong(&run.parts), [] as [u64; 0], "{kind:?}: {:#?}", run.parts);
        assert_proves_something(&run, workers as u64);
    }
}

#[test]
fn every_cut_holds_all_money_on_one_worker() {
    check::<u64>(1, 64);
}

#[test]
fn every_cut_holds_all_money_on_two_workers() {
    check::<u64>(2, 64);
}

#[test]
fn every_cut_holds_all_money_on_four_workers() {
    check::<u64>(4, 64);
}

#[test]
fn every_cut_holds_all_money_with_a_budget_of_one() {
    check::<u64>(2, 1);
}

#[test]
fn every_cut_holds_all_money_at_partially_ordered_times() {
    check::<Pair>(1, 64);
    check::<Pair>(2, 64);
    check::<Pair>(4, 64);
}

#[test]
fn every_cut_holds_all_money_on_two_processes() {
    if let Some(config) = cluster::member() {
        for kind in [Kind::Milliseconds, Kind::Stuck, Kind::Jumping] {
            let run = run::<u64>(config.clone(), kind, NOTHING);
            let crossed: u64 = run.stats.iter().map(|s| s.sent_away).sum();
            for (cut, p) in &run.parts {
                let numbers =
                    [p.balances, p.waiting, p.logged, p.admitted, p.left_before, p.complete];
                let numbers = numbers.map(|n| n.to_string()).join(" ");
                cluster::report(format!("{kind:?} {cut} {crossed} {numbers}"));
            }
        }
        return;
    }
    let outcomes = cluster::run("every_cut_holds_all_money_on_two_processes", 2, 1);
    let mut kinds: BTreeMap<String, (BTreeMap<u64, Part>, u64)> = BTreeMap::new();
    for outcome in outcomes {
        assert!(outcome.success, "{}", outcome.output);
        assert_eq!(outcome.lines.len() as u64, 3 * CUTS);
        for line in outcome.lines {
            let mut words = line.split(' ');
            let (parts, total) = kinds.entry(words.next().unwrap().to_owned()).or_default();
            let mut numbers = words.map(|word| word.parse::<u64>().unwrap());
            let mut number = || numbers.next().unwrap();
            let part = parts.entry(number()).or_default();
            *total += number();
            part.balances += number();
            part.waiting += number();
            part.logged += number();
            part.admitted += number();
            part.left_before += number();
            part.complete += number();
        }
    }
    assert_eq!(kinds.len(), 3);
    for (kind, (parts, crossed)) in kinds {
        assert_eq!(wrong(&parts), [] as [u64; 0], "{kind}");
        assert!(crossed > 0, "no message crossed processes");
        assert!(parts.values().any(|p| p.logged > 0), "no cut logged a message");
        assert!(parts.values().all(|p| p.complete == 2));
    }
}

/// What was sent before a cut, and finds no room when it arrives after it, is of that cut: what becomes of
/// it leaves after the cut. It used to be in no cut at all.
#[test]
fn every_cut_holds_the_money_that_there_is_no_room_for() {
    let special = Special { limit: Some(20), ..NOTHING };
    let run = run::<u64>(timely::Config::process(2), Kind::Milliseconds, special);
    assert_eq!(wrong(&run.parts), [] as [u64; 0], "{:#?}", run.parts);
    assert!(run.refused > 0, "what was refused was of no cut");
}

/// The first negative control: a cut that does not log what was sent before it and arrived after it
/// loses money. (The second, capabilities that stay behind at a cut, is in the crate itself, since
/// nothing outside can ask for it.)
#[test]
fn without_the_log_cuts_lose_money() {
    let run = run::<u64>(
        timely::Config::process(2),
        Kind::Milliseconds,
        Special { logs: false, ..NOTHING },
    );
    let lost = wrong(&run.parts);
    let logged: u64 = run.stats.iter().map(|s| s.logged).sum();
    assert!(logged > 0, "no cut would have logged a message");
    assert!(!lost.is_empty(), "{logged} messages were not logged, yet nothing is missing");
}

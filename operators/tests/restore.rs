//! A loop goes on from any complete cut, on any number of workers, as if nothing had happened.
//!
//! Money from a replayed source moves for ever between accounts, and some leaves, while a decider takes
//! cuts. From a cut that was complete everywhere another program is made, with other workers: accounts and
//! messages go where their keys now are, and the source replays all it ever had. In the end all money is
//! there, each (sender, target) pair has seen its messages in order, without a gap, across every restore,
//! and no frontier passed the time of what was brought back.

#[path = "support/cluster.rs"]
mod cluster;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};
use timely::dataflow::operators::vec::UnorderedInput;
use timely::dataflow::operators::{Inspect, Probe};
use timely_statefun_operators::{
    CutControl, Cuts, Decider, Handler, Ingress, LoopConfig, Order, Outbox, Place, Positions,
    Restore, Verdict, Work, keyed_loop,
};

const ACCOUNTS: u64 = 48;
const PARTITIONS: u64 = 5;
const POSITIONS: u64 = 240;
const AMOUNT: u64 = 1000;
/// Cuts that a program takes, and positions of each partition that the source has between two.
const CUTS: u64 = 6;
const PORTION: u64 = 12;

fn mix(mut x: u64) -> u64 {
    x ^= x >> 33;
    x = x.wrapping_mul(0xff51_afd7_ed55_8ccd);
    x ^= x >> 33;
    x = x.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    x ^ (x >> 33)
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Transfer {
    from: u64,
    to: u64,
    sequence: u64,
    amount: u64,
}

/// One partition of the source. It always has the same records, so it can replay them.
struct Source {
    partition: u64,
    position: u64,
    sequences: BTreeMap<u64, u64>,
}

impl Source {
    fn new(partition: u64) -> Self {
        Source { partition, position: 0, sequences: BTreeMap::new() }
    }

    fn next(&mut self) -> (u64, u64, Transfer) {
        self.position += 1;
        let from = 1_000_000 + self.partition;
        let to = mix(from * 7919 + self.position) % ACCOUNTS;
        let sequence = self.sequences.entry(to).or_insert(0);
        *sequence += 1;
        let transfer = Transfer { from, to, sequence: *sequence, amount: AMOUNT };
        (self.partition, self.position, transfer)
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Account {
    balance: u64,
    random: u64,
    /// The last message seen of each sender, and sent to each target.
    last: BTreeMap<u64, u64>,
    next: BTreeMap<u64, u64>,
}

type Message = (u64, u64, bool, Transfer);

/// What a cut holds.
#[derive(Clone, Debug, Default, PartialEq)]
struct Snapshot {
    cut: u64,
    accounts: BTreeMap<u64, Account>,
    /// By worker, those that were queued and those that were logged.
    queued: BTreeMap<u64, Vec<Message>>,
    logged: BTreeMap<u64, Vec<Message>>,
    positions: Positions,
    /// Money that had left.
    left: u64,
    complete: usize,
}

impl Snapshot {
    /// All messages, for each target in the order in which they are to be handled.
    fn messages(&self) -> impl Iterator<Item = &Message> {
        let workers = self.queued.keys().chain(self.logged.keys());
        let workers: BTreeSet<_> = workers.collect();
        workers.into_iter().flat_map(|worker| {
            let queued = self.queued.get(worker).into_iter().flatten();
            queued.chain(self.logged.get(worker).into_iter().flatten())
        })
    }

    fn money(&self) -> u64 {
        let balances: u64 = self.accounts.values().map(|account| account.balance).sum();
        balances + self.messages().map(|(.., m)| m.amount).sum::<u64>() + self.left
    }

    fn text(&self) -> String {
        let mut text = format!("cut {} {}\n", self.cut, self.left);
        for (address, account) in &self.accounts {
            writeln!(text, "account {address} {} {}", account.balance, account.random).unwrap();
            for (name, sequences) in [("last", &account.last), ("next", &account.next)] {
                for (other, sequence) in sequences {
                    writeln!(text, "{name} {address} {other} {sequence}").unwrap();
                }
            }
        }
        for (time, depth, record, Transfer { from, to, sequence, amount }) in self.messages() {
            let record = u64::from(*record);
            writeln!(text, "message {time} {depth} {record} {from} {to} {sequence} {amount}")
                .unwrap();
        }
        for (partition, position) in &self.positions {
            writeln!(text, "position {partition} {position}").unwrap();
        }
        text
    }

    fn read(text: &str) -> Self {
        let mut snapshot = Snapshot::default();
        for line in text.lines() {
            let (word, numbers) = line.split_once(' ').unwrap();
            let n: Vec<u64> = numbers.split(' ').map(|n| n.parse().unwrap()).collect();
            match word {
                "cut" => (snapshot.cut, snapshot.left) = (n[0], n[1]),
                "account" => {
                    let account = snapshot.accounts.entry(n[0]).or_default();
                    (account.balance, account.random) = (n[1], n[2]);
                }
                "last" => {
                    snapshot.accounts.entry(n[0]).or_default().last.insert(n[1], n[2]);
                }
                "next" => {
                    snapshot.accounts.entry(n[0]).or_default().next.insert(n[1], n[2]);
                }
                "message" => {
                    let transfer = Transfer { from: n[3], to: n[4], sequence: n[5], amount: n[6] };
                    let message = (n[0], n[1], n[2] == 1, transfer);
                    snapshot.queued.entry(0).or_default().push(message);
                }
                "position" => {
                    snapshot.positions.insert(n[0], n[1]);
                }
                _ => panic!("{line}"),
            }
        }
        snapshot
    }
}

type Snapshots = Arc<Mutex<BTreeMap<u64, Snapshot>>>;

struct Bank {
    worker: u64,
    accounts: BTreeMap<u64, Account>,
    moving: Arc<AtomicBool>,
    cuts: u64,
    snapshots: Snapshots,
    emitted: Vec<(u64, (u64, u64))>,
    /// What is to be brought back, in order.
    back: VecDeque<Message>,
    handled: Arc<AtomicU64>,
    /// What all accounts have in the end.
    balances: Arc<AtomicU64>,
}

impl Drop for Bank {
    fn drop(&mut self) {
        self.balances.store(self.accounts.values().map(|account| account.balance).sum(), SeqCst);
    }
}

impl Bank {
    fn note(&self, cut: u64, note: impl FnOnce(&mut Snapshot)) {
        let mut snapshots = self.snapshots.lock().unwrap();
        note(snapshots.entry(cut).or_insert_with(|| Snapshot { cut, ..Snapshot::default() }));
    }
}

impl Handler<u64> for Bank {
    type Message = Transfer;
    type Output = (u64, u64);
    type Failure = String;

    fn route(message: &Transfer) -> u64 {
        mix(message.to)
    }

    fn restore(&mut self, back: &mut Restore<'_, u64, Transfer>) -> Result<Work, String> {
        for _ in 0..3 {
            let Some((time, depth, record, message)) = self.back.pop_front() else {
                return Ok(Work::Done);
            };
            back.message(Place { time: &time, depth, record }, message);
        }
        Ok(Work::More)
    }

    fn handle(&mut self, m: Transfer, outbox: &mut Outbox<'_, u64, Transfer>) -> Verdict<String> {
        assert!(self.back.is_empty(), "something else came before what was brought back");
        self.handled.fetch_add(1, SeqCst);
        let account = self.accounts.entry(m.to).or_default();
        let last = account.last.entry(m.from).or_insert(0);
        assert_eq!(m.sequence, *last + 1, "order from {} to {}", m.from, m.to);
        *last += 1;
        account.balance += m.amount;
        if !self.moving.load(SeqCst) {
            return Verdict::Done;
        }
        account.random = mix(account.random.wrapping_add(0x9e37_79b9_7f4a_7c15 + m.to));
        let amount = account.random % (account.balance + 1);
        account.balance -= amount;
        let fee = if account.random & 7 == 0 { account.balance.min(3) } else { 0 };
        account.balance -= fee;
        let to = (account.random >> 32) % ACCOUNTS;
        let sequence = account.next.entry(to).or_insert(0);
        *sequence += 1;
        outbox.send(Transfer { from: m.to, to, sequence: *sequence, amount });
        if fee > 0 {
            self.emitted.push((*outbox.time(), (self.cuts, fee)));
        }
        Verdict::Done
    }

    fn emit(&mut self, emitter: &mut dyn FnMut(&u64, (u64, u64))) {
        self.emitted.drain(..).for_each(|(time, output)| emitter(&time, output));
    }

    fn take_cut(&mut self, cut: u64, _: Option<&u64>) {
        self.cuts = cut;
        self.note(cut, |snapshot| snapshot.accounts.extend(self.accounts.clone()));
    }

    fn queued(&mut self, cut: u64, place: Place<'_, u64>, m: &Transfer) {
        let message = (*place.time, place.depth, place.record, *m);
        self.note(cut, |s| s.queued.entry(self.worker).or_default().push(message));
    }

    fn log(&mut self, cut: u64, place: Place<'_, u64>, m: &Transfer) {
        let message = (*place.time, place.depth, place.record, *m);
        self.note(cut, |s| s.logged.entry(self.worker).or_default().push(message));
    }

    fn complete_cut(&mut self, cut: u64, _: &[u64]) {
        self.note(cut, |snapshot| snapshot.complete += 1);
    }
}

/// What came of a program.
struct Outcome {
    /// The cuts that were complete everywhere.
    snapshots: Vec<Snapshot>,
    /// What is left in accounts, and has left, of this process.
    money: u64,
    skipped: u64,
    sent_away: u64,
}

/// Runs a program, with so many workers in this process, from a cut until its source has no more and it has taken `cuts` cuts, and lets money
/// come to rest.
fn run(config: timely::Config, threads: u64, from: &Snapshot, cuts: u64) -> Outcome {
    let snapshots = Snapshots::default();
    let (noted, from) = (Arc::clone(&snapshots), from.clone());
    let (start, left_before) = (from.cut, from.left);
    let control = CutControl::new();
    let moving = Arc::new(AtomicBool::new(true));
    let left = Arc::new(AtomicU64::new(0));
    let (counted, committed) = (Arc::clone(&left), Arc::new(AtomicU64::new(0)));
    // Workers of this process that have nothing more to do but let money move.
    let ready = Arc::new(AtomicU64::new(0));
    let guards = timely::execute(config, move |worker| {
        let (index, peers) = (worker.index() as u64, worker.peers() as u64);
        let mine = |address: &u64| mix(*address) % peers == index;
        let accounts = from.accounts.iter().filter(|(address, _)| mine(address));
        let back: VecDeque<_> = from.messages().filter(|(.., m)| mine(&m.to)).copied().collect();
        let earliest = back.iter().map(|(time, ..)| *time).min();
        let handled = Arc::new(AtomicU64::new(0));
        let balances = Arc::new(AtomicU64::new(0));
        let bank = Bank {
            worker: index,
            accounts: accounts.map(|(address, account)| (*address, account.clone())).collect(),
            moving: Arc::clone(&moving),
            cuts: from.cut,
            snapshots: Arc::clone(&noted),
            emitted: Vec::new(),
            back,
            handled: Arc::clone(&handled),
            balances: Arc::clone(&balances),
        };
        let (at_gates, at_egress) = (Arc::clone(&noted), Arc::clone(&noted));
        let counted = Arc::clone(&counted);
        let decider = Decider::new(&control);
        let ((mut input, mut now), probe, handle) = worker.dataflow::<u64, _, _>(|scope| {
            let (input, stream) = scope.new_unordered_input::<(u64, u64, Transfer)>();
            let ingress = Ingress::new("source", stream, |(.., transfer)| transfer)
                .positions(
                    |(partition, position, _)| Some((*partition, *position)),
                    from.positions.clone(),
                )
                .on_cut(move |at| {
                    let mut snapshots = at_gates.lock().unwrap();
                    let snapshot = snapshots.entry(at.cut).or_default();
                    for (partition, position) in at.positions {
                        let highest = snapshot.positions.entry(*partition).or_default();
                        *highest = position.max(highest).to_owned();
                    }
                });
            let config = LoopConfig {
                budget_messages: 40,
                cut_slice: 5,
                cuts_before: start,
                // So little credit that the gate holds records back.
                gate_credit_records: 9,
                order: Order::Arrival,
                ..LoopConfig::default()
            };
            let decider = (cuts > 0).then(|| Cuts::from(decider));
            let (out, handle) = keyed_loop(scope, "bank", vec![ingress], config, decider, bank);
            let out = out.inspect(move |(before, amount)| {
                counted.fetch_add(*amount, SeqCst);
                let mut snapshots = at_egress.lock().unwrap();
                for cut in before + 1..=start + cuts {
                    let snapshot = snapshots.entry(cut).or_default();
                    snapshot.left += amount;
                }
            });
            (input, out.probe().0, handle)
        });
        let partitions = (0..PARTITIONS).filter(|partition| partition % peers == index);
        let mut sources: Vec<_> = partitions.map(Source::new).collect();
        let mut is_ready = false;
        while moving.load(SeqCst) {
            // What a program can have before it has taken another cut.
            let limit = match cuts {
                0 => POSITIONS,
                _ => (start + committed.load(SeqCst) + 1) * PORTION,
            };
            for source in &mut sources {
                let replay = from.positions.get(&source.partition).copied().unwrap_or(0);
                if source.position < limit.max(replay).min(POSITIONS) {
                    let record = source.next();
                    input.activate().session(&now).give(record);
                }
            }
            now.downgrade(&(*now.time() + 1));
            for _ in 0..3 {
                worker.step();
            }
            std::thread::yield_now();
            if index == 0
                && cuts > 0
                && let Some(open) = control.open()
            {
                let complete = noted.lock().unwrap().get(&open).map_or(0, |s| s.complete);
                if complete == peers as usize {
                    control.committed(open);
                    committed.fetch_add(1, SeqCst);
                }
            } else if index == 0 && committed.load(SeqCst) < cuts {
                control.request();
            }
            // Money of another process may have come to rest.
            if let Some(earliest) = earliest
                && threads == peers
                && moving.load(SeqCst)
            {
                assert!(probe.less_equal(&earliest), "passed what was brought back");
            }
            let sent = sources.iter().all(|source| source.position >= limit.min(POSITIONS));
            let enough = committed.load(SeqCst) >= cuts && handled.load(SeqCst) > 300;
            if sent && enough && handle.ready() && !is_ready {
                is_ready = true;
                ready.fetch_add(1, SeqCst);
            }
            if ready.load(SeqCst) == threads {
                moving.store(false, SeqCst);
            }
        }
        // What was never sent: cuts may have been few.
        while let Some(source) = sources.iter_mut().find(|source| source.position < POSITIONS) {
            let record = source.next();
            input.activate().session(&now).give(record);
        }
        drop((input, now));
        if index == 0 {
            // No further cut counts.
            while !worker.installed_dataflows().is_empty() {
                control.open().into_iter().for_each(|open| control.abandoned(open));
                worker.step_or_park(Some(std::time::Duration::from_millis(1)));
            }
        }
        handle.run(worker).unwrap();
        assert!(probe.done());
        let before = if index == 0 { left_before } else { 0 };
        (balances.load(SeqCst) + before, handle.stats())
    });
    let ends: Vec<_> = guards.unwrap().join().into_iter().map(|end| end.unwrap()).collect();
    let snapshots = std::mem::take(&mut *snapshots.lock().unwrap());
    let complete = snapshots
        .into_iter()
        .filter(|(cut, snapshot)| snapshot.complete == ends.len() && *cut <= start + cuts);
    let complete = complete.map(|(cut, snapshot)| Snapshot {
        cut,
        left: snapshot.left + left_before,
        ..snapshot
    });
    Outcome {
        snapshots: complete.collect(),
        money: ends.iter().map(|(money, _)| money).sum::<u64>() + left.load(SeqCst),
        skipped: ends.iter().map(|(_, stats)| stats.skipped).sum(),
        sent_away: ends.iter().map(|(_, stats)| stats.sent_away).sum(),
    }
}

fn admitted(snapshot: &Snapshot) -> u64 {
    snapshot.positions.values().sum()
}

/// Runs from a snapshot on so many workers of this process. All must be there, at every cut and at the end.
fn check(workers: usize, from: &Snapshot) -> Outcome {
    let outcome = run(timely::Config::process(workers), workers as u64, from, CUTS);
    assert_eq!(outcome.money, PARTITIONS * POSITIONS * AMOUNT, "on {workers} workers");
    assert_eq!(outcome.skipped, admitted(from), "a source replays all");
    assert_eq!(outcome.snapshots.len() as u64, CUTS);
    for snapshot in &outcome.snapshots {
        assert_eq!(snapshot.money(), admitted(snapshot) * AMOUNT, "cut {}", snapshot.cut);
    }
    // A run that proves nothing fails.
    let snapshots = &outcome.snapshots;
    assert!(snapshots.iter().any(|s| s.messages().next().is_some()), "no message was in a cut");
    assert!(admitted(&snapshots[0]) < PARTITIONS * POSITIONS, "all came before the first cut");
    if workers > 1 {
        assert!(outcome.sent_away > 0, "no message crossed workers");
    }
    outcome
}

fn choose(outcome: &Outcome, number: u64) -> &Snapshot {
    let chosen = &outcome.snapshots[(mix(number) % outcome.snapshots.len() as u64) as usize];
    assert!(chosen.messages().count() > 0, "nothing is to be brought back");
    chosen
}

#[test]
fn a_loop_goes_on_from_any_cut_on_any_number_of_workers() {
    let mut logged = 0;
    for number in 0..3 {
        let first = check(2, &Snapshot::default());
        logged += first.snapshots.iter().filter(|snapshot| !snapshot.logged.is_empty()).count();
        for workers in [1, 2, 4] {
            let second = check(workers, choose(&first, number));
            // And again, from what had been restored.
            check(3, choose(&second, number + 1));
        }
    }
    assert!(logged > 0, "no cut had logged a message");
}

#[test]
fn a_loop_goes_on_in_two_processes() {
    if let Some(config) = cluster::member() {
        let snapshot = std::fs::read_to_string(cluster::given().unwrap()).unwrap();
        let Outcome { money, skipped, sent_away, .. } =
            run(config, 1, &Snapshot::read(&snapshot), 0);
        cluster::report(format!("{money} {skipped} {sent_away}"));
        return;
    }
    let first = check(2, &Snapshot::default());
    let snapshot = choose(&first, 1);
    let read = Snapshot::read(&snapshot.text());
    assert!(read.messages().eq(snapshot.messages()) && read.accounts == snapshot.accounts);
    let name = format!("restore-{}", std::process::id());
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, snapshot.text()).unwrap();
    let given = Some(path.to_str().unwrap());
    let outcomes = cluster::run_with("a_loop_goes_on_in_two_processes", 2, 1, given);
    std::fs::remove_file(&path).unwrap();
    let mut totals = [0; 3];
    for outcome in outcomes {
        assert!(outcome.success, "{}", outcome.output);
        for (total, number) in totals.iter_mut().zip(outcome.lines[0].split(' ')) {
            *total += number.parse::<u64>().unwrap();
        }
    }
    assert_eq!(totals[0], PARTITIONS * POSITIONS * AMOUNT);
    assert_eq!(totals[1], admitted(snapshot));
    assert!(totals[2] > 0, "no message crossed processes");
}

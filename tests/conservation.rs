//! Every snapshot of a running program holds all the money there is.
//!
//! Money moves for ever between accounts, of which some are part of the program and some are served
//! elsewhere, and some of it is under way for a while; cuts are taken as often as they can be. The program
//! ends without a warning. Then each of its snapshots is restored by a program that moves nothing on and
//! says what there is, and balances and messages must add up to what had been deposited by then, to
//! the last message. From some of them the program goes on, on other workers, until it is told to stop, and
//! every account's books must be right.
//!
//! `cargo test --test conservation -- --rounds 20 --seed 7` for more of it; `-- --kill-at STEP` ends the
//! program again and again in the middle of a step of taking snapshots, where it is built for that
//! (`tests/planted/run`); `-- --sleeper` is about an execution that sleeps alone.

#[allow(dead_code)]
#[path = "../operators/tests/support/cluster.rs"]
mod cluster;
#[path = "support/protocol.rs"]
mod protocol;
#[allow(dead_code)]
#[path = "support/server.rs"]
mod server;
mod support;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use server::{Answer, Server};
use support::{Random, mix};
use timely::dataflow::InputHandleVec;
use timely::dataflow::operators::{Input, Inspect};
use timely::worker::Worker;
use timely_statefun::{
    Egress, Endpoint, Envelope, Function, FunctionType, Functions, Handle, SnapshotCounts,
    SnapshotInfo, SnapshotOptions, SnapshotPolicy, SnapshotStore, Snapshots, StatefulFunctions,
    TypedValue, ValueSpec,
};
use timely_statefun_proto::reqreply::from_function::{
    DelayedInvocation, EgressMessage, Invocation, InvocationResponse,
};
use timely_statefun_proto::reqreply::{self, TypedValue as Wire};

const HERE: FunctionType<String> = FunctionType::new("bank/here");
const THERE: FunctionType<String> = FunctionType::new("bank/there");
const REPORTS: Egress<String> = Egress::new("bank/reports");
const BALANCE: ValueSpec<i64> = ValueSpec::new("balance");
const BOOK: ValueSpec<String> = ValueSpec::new("book");

/// Accounts, of which every fourth is served elsewhere.
const ACCOUNTS: u64 = 32;
/// Who brings in money, each with a partition of its own.
const TELLERS: u64 = 4;
/// How often each does.
const DEPOSITS: u64 = 64;
const AMOUNT: i64 = 1000;
/// How long a worker waits between two deposits.
const TELLS_EVERY: Duration = Duration::from_millis(5);
/// Cuts of one execution.
const CUTS: usize = 100;
/// How many more there are before a program that has gone on may end.
const CUTS_ON: usize = 3;
/// Workers of a process, and processes.
const LAYOUTS: [(usize, usize); 4] = [(1, 1), (2, 1), (4, 1), (1, 2)];
/// Far longer than a cut takes.
const CUT_MAX: Duration = Duration::from_secs(20);

fn is_elsewhere(account: u64) -> bool {
    account % 4 == 3
}

/// A number that stands for a text.
fn print_of(text: &str) -> u64 {
    text.bytes().fold(0, |sum, byte| mix(sum ^ u64::from(byte)))
}

/// What an account does with what it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Moves money on.
    Move,
    /// Does nothing, and says what it has and what it was told.
    Report,
}

/// What an account has, and what it has done since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Account {
    balance: i64,
    book: Book,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Book {
    received: i64,
    spent: i64,
    /// How many messages it got and sent, and what they are, added up.
    got: u64,
    got_prints: u64,
    sent: u64,
    sent_prints: u64,
    /// Whether it was told to keep what it has.
    keeps: bool,
}

impl Book {
    fn write(&self) -> String {
        let Book { received, spent, got, got_prints, sent, sent_prints, keeps } = self;
        format!("{received} {spent} {got} {got_prints} {sent} {sent_prints} {keeps}")
    }

    fn read(text: &str) -> Self {
        let words: Vec<&str> = text.split(' ').collect();
        let [received, spent, got, got_prints, sent, sent_prints, keeps] = words[..] else {
            panic!("a book has seven entries: {text}")
        };
        Book {
            received: received.parse().unwrap(),
            spent: spent.parse().unwrap(),
            got: got.parse().unwrap(),
            got_prints: got_prints.parse().unwrap(),
            sent: sent.parse().unwrap(),
            sent_prints: sent_prints.parse().unwrap(),
            keeps: keeps.parse().unwrap(),
        }
    }
}

/// What comes of a message.
#[derive(Default)]
struct Effects {
    /// To whom, what, and after which delay.
    moves: Vec<(u64, String, Option<Duration>)>,
    report: Option<String>,
}

impl Account {
    /// The account as a report has it.
    fn report(&self, own: u64) -> String {
        format!("account {own} {} {}", self.balance, self.book.write())
    }

    fn follow(&mut self, own: u64, text: &str, phase: Phase) -> Effects {
        assert_eq!(self.balance, self.book.received - self.book.spent, "account {own}");
        let mut effects = Effects::default();
        let words: Vec<&str> = text.split(' ').collect();
        let amount: i64 = match words[..] {
            ["ask"] => {
                effects.report = Some(self.report(own));
                return effects;
            }
            ["keep"] => {
                self.book.keeps = true;
                effects.report = Some(self.report(own));
                return effects;
            }
            ["deposit", _, _] => AMOUNT,
            ["move", _, to, _, amount] => {
                assert_eq!(to, own.to_string(), "a message went astray");
                amount.parse().unwrap()
            }
            _ => panic!("nobody says \"{text}\""),
        };
        if phase == Phase::Report {
            effects.report = Some(format!("moved {text}"));
            return effects;
        }
        let book = &mut self.book;
        book.received += amount;
        book.got += 1;
        book.got_prints = book.got_prints.wrapping_add(print_of(text));
        self.balance += amount;
        if book.keeps {
            effects.report = Some(self.report(own));
            return effects;
        }
        let mut random = Random(print_of(text) ^ mix(book.got));
        let elsewhere = random.below(16) == 0;
        let to = loop {
            let to = random.below(ACCOUNTS);
            if is_elsewhere(to) == elsewhere {
                break to;
            }
        };
        let amount = random.below(self.balance as u64 + 1) as i64;
        let delay = (random.below(8) == 0).then(|| Duration::from_millis(1 + random.below(4)));
        let text = format!("move {own} {to} {} {amount}", book.sent);
        book.spent += amount;
        book.sent += 1;
        book.sent_prints = book.sent_prints.wrapping_add(print_of(&text));
        self.balance -= amount;
        effects.moves.push((to, text, delay));
        effects
    }
}

fn message(account: u64, text: String) -> Envelope<TypedValue> {
    if is_elsewhere(account) { THERE } else { HERE }.message(account, text)
}

/// The accounts of a program: those that are part of it, and where the others are served.
fn functions(phase: Phase, url: &str, runtime: &tokio::runtime::Handle) -> Functions<TypedValue> {
    let account = Function::new(move |context, text: &String| {
        let own = context.id().as_number().ok_or("an account has a number")?;
        let balance = context.get(BALANCE).copied().unwrap_or(0);
        let book = context.get(BOOK).map(|book| Book::read(book)).unwrap_or_default();
        let mut account = Account { balance, book };
        let before = account;
        let effects = account.follow(own, text, phase);
        if account.balance != before.balance {
            context.set(BALANCE, account.balance);
        }
        if account.book != before.book {
            context.set(BOOK, account.book.write());
        }
        for (to, text, delay) in effects.moves {
            let target = if is_elsewhere(to) { THERE } else { HERE };
            match delay {
                None => context.send(target, to, text),
                Some(delay) => context.send_after(delay, target, to, text),
            }
        }
        effects.report.into_iter().for_each(|report| context.emit(REPORTS, report));
        Ok(())
    });
    let path = if phase == Phase::Move { "move" } else { "report" };
    Functions::new()
        .named("bank")
        .embedded(HERE, account.value(BALANCE).value(BOOK))
        .remote(THERE, Endpoint::at(format!("{url}/{path}")))
        .typed_egress(REPORTS)
        .runtime(runtime.clone())
}

/// The same account, served over HTTP.
fn serve() -> Server {
    Server::start(|request| {
        let phase = if request.path == "/move" { Phase::Move } else { Phase::Report };
        answer(&protocol::batch(&request), phase)
    })
}

fn answer(batch: &reqreply::to_function::InvocationBatchRequest, phase: Phase) -> Answer {
    let balance = protocol::state::<i64>(batch, "balance");
    let book = protocol::state::<String>(batch, "book");
    let (Some(balance), Some(book)) = (balance, book) else {
        let types = ["io.statefun.types/long", "io.statefun.types/string"];
        return protocol::missing(&[("balance", types[0], None), ("book", types[1], None)]);
    };
    let own: u64 = protocol::id(batch).parse().unwrap();
    let book = book.map(|book| Book::read(&book)).unwrap_or_default();
    let mut account = Account { balance: balance.unwrap_or(0), book };
    let mut result = InvocationResponse::default();
    for invocation in &batch.invocations {
        let text = protocol::read_text(invocation.argument.as_ref());
        let effects = account.follow(own, &text, phase);
        for (to, text, delay) in effects.moves {
            let target = reqreply::Address {
                namespace: "bank".to_owned(),
                r#type: if is_elsewhere(to) { "there" } else { "here" }.to_owned(),
                id: to.to_string(),
            };
            let (target, argument) = (Some(target), protocol::text(&text));
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
            egress_namespace: "bank".to_owned(),
            egress_type: "reports".to_owned(),
            argument: protocol::text(&report),
        }));
    }
    result.state_mutations = vec![
        protocol::set("balance", Some(Wire::of(&account.balance))),
        protocol::set("book", Some(Wire::of(&account.book.write()))),
    ];
    protocol::done(result)
}

/// The deposit of a number by a teller: for which account, and what it says.
fn deposit(teller: u64, number: u64) -> (u64, String) {
    (mix(teller << 32 | number) % ACCOUNTS, format!("deposit {teller} {number}"))
}

/// What a worker has of a running bank.
struct Bank {
    snapshots: Snapshots<u64>,
    money: InputHandleVec<u64, Envelope<TypedValue>>,
    orders: InputHandleVec<u64, Envelope<TypedValue>>,
    handle: Handle<u64>,
    reports: Rc<RefCell<Vec<String>>>,
    /// Cuts of this execution that are durable.
    durable: Rc<Cell<usize>>,
}

impl Bank {
    fn open(
        worker: &mut Worker,
        store: &SnapshotStore,
        runtime: &tokio::runtime::Handle,
        functions: Functions<TypedValue>,
        interval: Option<Duration>,
    ) -> Self {
        let policy = SnapshotPolicy::new("bank");
        let policy = match interval {
            Some(interval) => policy.interval(interval),
            None => policy.on_request(),
        };
        let snapshots = Snapshots::<u64>::begin(worker, store, runtime, &policy).unwrap();
        let (reports, durable) = (Rc::new(RefCell::new(Vec::new())), Rc::new(Cell::new(0)));
        let (kept, count) = (Rc::clone(&reports), Rc::clone(&durable));
        let (money, orders, handle) = worker.dataflow(|scope| {
            let (money, deposits) = scope.new_input::<Vec<Envelope<TypedValue>>>();
            let (orders, ordered) = scope.new_input::<Vec<Envelope<TypedValue>>>();
            let ingresses =
                [snapshots.replayed("money", deposits), snapshots.unreplayed("orders", ordered)];
            let egresses = ingresses.stateful_functions(functions).unwrap();
            let said = egresses.stream(REPORTS).unwrap();
            said.inspect(move |report| kept.borrow_mut().push(report.clone()));
            let done = egresses.snapshots().unwrap();
            done.inspect(move |_| count.set(count.get() + 1));
            (money, orders, egresses.handle())
        });
        Bank { snapshots, money, orders, handle, reports, durable }
    }

    /// Brings in what this worker's tellers have, one deposit after the other, until `enough` says so, which
    /// is told whether that is all.
    fn go_on(
        &mut self,
        worker: &mut Worker,
        every: Duration,
        mut enough: impl FnMut(&Self, bool) -> bool,
    ) {
        let (index, peers) = (worker.index() as u64, worker.peers() as u64);
        let contained = self.snapshots.positions("money");
        let next = |teller| contained.get(&teller).map_or(0, |position| position + 1);
        let own = (0..TELLERS).filter(|teller| teller % peers == index);
        let mut left: VecDeque<_> =
            own.flat_map(|teller| (next(teller)..DEPOSITS).map(move |n| (n, teller))).collect();
        left.make_contiguous().sort_unstable();
        let (began, mut last) = (Instant::now(), Instant::now());
        while !enough(self, left.is_empty()) {
            if last.elapsed() >= every
                && let Some((number, teller)) = left.pop_front()
            {
                let (account, text) = deposit(teller, number);
                self.money.send(message(account, text).read_at(teller, number));
                last = Instant::now();
            }
            let time = began.elapsed().as_millis() as u64;
            self.money.advance_to(time.max(*self.money.time()));
            self.orders.advance_to(time.max(*self.orders.time()));
            worker.step_or_park(Some(Duration::from_millis(1)));
            if let Some(stopped) = self.handle.stopped() {
                panic!("the program stopped: {stopped}");
            }
        }
    }

    /// Lets the program come to its end, and gives what accounts said.
    fn close(self, worker: &mut Worker) -> Vec<String> {
        let Bank { money, orders, handle, reports, .. } = self;
        money.close();
        orders.close();
        handle.run(worker).unwrap();
        reports.take()
    }
}

/// What a program that is started by this one is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Task {
    /// Move money until so many cuts are durable, and end without a warning.
    Run { cuts: usize },
    /// The same, but do nothing any more then, until there is a file beside the directory; and go on.
    Sleep { cuts: usize },
    /// Move money until some cuts are durable, then have all accounts keep what they have, and tell it.
    Finish,
}

/// What a program is to do, where its snapshots are, and whether it keeps all of them.
#[derive(Clone, Debug)]
struct Order {
    task: Task,
    keeps_all: bool,
    directory: PathBuf,
    url: String,
}

impl Order {
    fn write(&self) -> String {
        let task = match self.task {
            Task::Run { cuts } => format!("run {cuts}"),
            Task::Sleep { cuts } => format!("sleep {cuts}"),
            Task::Finish => "finish".to_owned(),
        };
        format!("{task}\n{}\n{}\n{}", self.keeps_all, self.directory.display(), self.url)
    }

    fn read(text: &str) -> Self {
        let lines: Vec<&str> = text.lines().collect();
        let [task, keeps_all, directory, url] = lines[..] else { panic!("{text}") };
        let task = match task.split_once(' ') {
            Some(("run", cuts)) => Task::Run { cuts: cuts.parse().unwrap() },
            Some((_, cuts)) => Task::Sleep { cuts: cuts.parse().unwrap() },
            None => Task::Finish,
        };
        let keeps_all = keeps_all.parse().unwrap();
        Order { task, keeps_all, directory: directory.into(), url: url.to_owned() }
    }

    fn store(&self) -> SnapshotStore {
        let defaults = SnapshotOptions { part_bytes: 4096, ..SnapshotOptions::default() };
        let options = match self.keeps_all {
            true => {
                SnapshotOptions { keep: usize::MAX, grace: Duration::from_secs(3600), ..defaults }
            }
            false => SnapshotOptions { keep: 2, chain_max: 3, grace: Duration::ZERO, ..defaults },
        };
        SnapshotStore::directory(&self.directory, options).unwrap()
    }
}

/// One process of a program.
fn be_member(config: timely::Config) -> ExitCode {
    let order = Order::read(&cluster::given().unwrap());
    let store = order.store();
    let runtime = protocol::runtime().handle().clone();
    let ended = timely_statefun::execute(config, move |worker| {
        let functions = functions(Phase::Move, &order.url, &runtime);
        let interval = Some(Duration::ZERO);
        let mut bank = Bank::open(worker, &store, &runtime, functions, interval);
        let is_first = worker.index() == 0;
        let (mut durable, mut since) = (0, Instant::now());
        let mut count = |bank: &Bank| {
            if bank.durable.get() > durable {
                (durable, since) = (bank.durable.get(), Instant::now());
            }
            assert!(!is_first || since.elapsed() < CUT_MAX, "cut after cut {durable} does not end");
            durable
        };
        match order.task {
            Task::Run { cuts } => {
                // Only the first worker is told of snapshots, and it ends them all.
                bank.go_on(worker, TELLS_EVERY, |bank, _| count(bank) >= cuts);
                let stats = bank.handle.stats();
                cluster::report(format_args!("ran {} {}", stats.handled, stats.sent_away));
                std::process::exit(0);
            }
            Task::Sleep { cuts } => {
                bank.go_on(worker, TELLS_EVERY, |bank, _| count(bank) >= cuts);
                std::fs::write(order.directory.join("asleep"), "").unwrap();
                wait_for(&order.directory.join("awake"));
                // It is over long before, unless it takes what is not its own any more.
                bank.go_on(worker, TELLS_EVERY, |bank, _| count(bank) >= 2 * cuts);
                std::process::exit(0);
            }
            Task::Finish => {
                bank.go_on(worker, Duration::ZERO, |bank, is_all| {
                    is_all && (!is_first || count(bank) >= CUTS_ON)
                });
                if is_first {
                    (0..ACCOUNTS).for_each(|to| bank.orders.send(message(to, "keep".to_owned())));
                }
                bank.close(worker)
            }
        }
    });
    match ended {
        Ok(reports) => {
            reports.into_iter().flatten().for_each(cluster::report);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Waits until there is a file.
fn wait_for(file: &Path) {
    let began = Instant::now();
    while !file.exists() {
        assert!(began.elapsed() < Duration::from_secs(120), "{} never is", file.display());
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// What a snapshot holds, added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sum {
    balances: i64,
    received: i64,
    spent: i64,
    got: u64,
    got_prints: u64,
    sent: u64,
    sent_prints: u64,
    /// What is under way: messages, their money, and what they are.
    moved: u64,
    moved_money: i64,
    moved_prints: u64,
}

impl Sum {
    fn of(reports: &[String]) -> Self {
        let mut sum = Sum::default();
        let mut accounts = BTreeMap::new();
        for report in reports {
            if let Some(text) = report.strip_prefix("moved ") {
                let amount = match text.starts_with("deposit") {
                    true => AMOUNT,
                    false => text.rsplit(' ').next().unwrap().parse().unwrap(),
                };
                sum.moved += 1;
                sum.moved_money += amount;
                sum.moved_prints = sum.moved_prints.wrapping_add(print_of(text));
                continue;
            }
            let account = report.strip_prefix("account ").unwrap_or_else(|| panic!("{report}"));
            let (number, account) = account.split_once(' ').unwrap();
            let (balance, book) = account.split_once(' ').unwrap();
            let (number, balance) = (number.parse::<u64>().unwrap(), balance.parse().unwrap());
            let book = Book::read(book);
            // How it is in the end is what it says of the most messages: `inspect` has an order of its own.
            let known: &mut (i64, Book) = accounts.entry(number).or_insert((balance, book));
            if known.1.got <= book.got {
                *known = (balance, book);
            }
        }
        assert_eq!(accounts.len() as u64, ACCOUNTS, "every account says what it has");
        for (number, (balance, book)) in accounts {
            assert_eq!(balance, book.received - book.spent, "account {number}: {book:?}");
            sum.balances += balance;
            sum.received += book.received;
            sum.spent += book.spent;
            sum.got += book.got;
            sum.got_prints = sum.got_prints.wrapping_add(book.got_prints);
            sum.sent += book.sent;
            sum.sent_prints = sum.sent_prints.wrapping_add(book.sent_prints);
        }
        sum
    }

    /// Checks that it is all there is, after so many deposits of each teller.
    fn check(&self, deposits: &[u64], what: &str) {
        let count: u64 = deposits.iter().sum();
        let all = (0..TELLERS).zip(deposits).flat_map(|(teller, count)| {
            (0..*count).map(move |number| print_of(&deposit(teller, number).1))
        });
        let prints = all.fold(0u64, u64::wrapping_add);
        let total = count as i64 * AMOUNT;
        assert_eq!(self.balances + self.moved_money, total, "{what}: money, {self:?}");
        assert_eq!(self.got + self.moved, self.sent + count, "{what}: messages, {self:?}");
        assert_eq!(
            self.got_prints.wrapping_add(self.moved_prints),
            self.sent_prints.wrapping_add(prints),
            "{what}: what the messages are, {self:?}"
        );
    }
}

/// What was found in a snapshot.
struct Audit {
    counts: SnapshotCounts,
    moved: u64,
}

/// Restores a snapshot, and checks what it holds.
fn audit(worker: &mut Worker, order: &Order) -> Audit {
    let runtime = protocol::runtime().handle().clone();
    let functions = functions(Phase::Report, &order.url, &runtime);
    let mut bank = Bank::open(worker, &order.store(), &runtime, functions, None);
    let restored = bank.snapshots.restored().expect("there is a snapshot").clone();
    let positions = bank.snapshots.positions("money");
    let deposits = (0..TELLERS).map(|teller| positions.get(&teller).map_or(0, |at| at + 1));
    let deposits: Vec<u64> = deposits.collect();
    (0..ACCOUNTS).for_each(|to| bank.orders.send(message(to, "ask".to_owned())));
    let sum = Sum::of(&bank.close(worker));
    sum.check(&deposits, &format!("cut {}", restored.cut));
    Audit { counts: restored.counts, moved: sum.moved }
}

/// A directory that is gone with this.
struct Directory(PathBuf);

impl Directory {
    /// A new one, in memory where there is such a place: nothing is lost here but programs.
    fn new(random: &mut Random) -> Self {
        let memory = PathBuf::from("/dev/shm");
        let place = if memory.is_dir() { memory } else { std::env::temp_dir() };
        let directory = place.join(format!("conservation-{}-{}", std::process::id(), random.any()));
        std::fs::create_dir_all(&directory).unwrap();
        Directory(directory)
    }

    /// Another one with the same files, those of `only` if it is given: parts are named by execution and
    /// cut, so that those of one snapshot are easily found.
    fn copy(&self, random: &mut Random, only: Option<&SnapshotInfo>) -> Self {
        let copy = Directory::new(random);
        let is_wanted = |file: &str| {
            only.is_none_or(|snapshot| match file.split('/').collect::<Vec<_>>()[..] {
                ["part", _, cut, ..] => snapshot.chain.contains(&cut.parse().unwrap()),
                ["part", ..] | ["manifest"] => true,
                _ => file == snapshot.file,
            })
        };
        copy_files(&self.0, &copy.0, "", &is_wanted);
        copy
    }
}

fn copy_files(from: &Path, to: &Path, below: &str, is_wanted: &dyn Fn(&str) -> bool) {
    for entry in std::fs::read_dir(from.join(below)).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let file = if below.is_empty() { name } else { format!("{below}/{name}") };
        if !is_wanted(&file) {
            continue;
        }
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir_all(to.join(&file)).unwrap();
            copy_files(from, to, &file, is_wanted);
        } else {
            std::fs::copy(from.join(&file), to.join(&file)).unwrap();
        }
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What was found, of all programs.
#[derive(Debug, Default)]
struct Totals {
    cuts: usize,
    finished: usize,
    kills: usize,
    handled: u64,
    crossed: u64,
    /// By what it was, in how many cuts there was some, and how much.
    found: BTreeMap<&'static str, (usize, u64)>,
}

struct Test {
    random: Random,
    server: Server,
    totals: Totals,
}

impl Test {
    fn order(&self, directory: &Directory, task: Task, keeps_all: bool) -> Order {
        let url = format!("http://{}", self.server.address);
        Order { task, keeps_all, directory: directory.0.clone(), url }
    }

    /// Runs a program on some workers.
    fn run(&self, order: &Order, layout: usize, planted: Option<&str>) -> Vec<cluster::Outcome> {
        let (threads, processes) = LAYOUTS[layout];
        cluster::run_command(processes, |process, addresses| {
            let mut command = Command::new(std::env::current_exe().unwrap());
            let member = format!("{process} {threads} {}", addresses.join(" "));
            command.env(cluster::MEMBER, member).env(cluster::GIVEN, order.write());
            command.envs(planted.map(|planted| ("STATEFUN_PLANTED", planted)));
            command
        })
    }

    /// Restores snapshots, one after the other, and checks what they hold.
    fn audit(&mut self, orders: Vec<Order>) {
        let audits = timely::execute_directly(move |worker| {
            orders.iter().map(|order| audit(worker, order)).collect::<Vec<_>>()
        });
        for Audit { counts, moved } in audits {
            self.totals.cuts += 1;
            let found = [
                ("queued", counts.queued),
                ("logged", counts.logged),
                ("in flight", counts.in_flight),
                ("delayed", counts.delayed),
                ("under way", moved),
            ];
            for (what, count) in found {
                let (cuts, messages) = self.totals.found.entry(what).or_default();
                *cuts += usize::from(count > 0);
                *messages += count;
            }
        }
    }

    /// Checks every snapshot that there is, at least so many, each in a store of its own.
    fn audit_all(&mut self, directory: &Directory, least: usize) -> Vec<SnapshotInfo> {
        let store = self.order(directory, Task::Finish, true).store();
        let listed = protocol::runtime().block_on(store.list()).unwrap();
        let snapshots: Vec<SnapshotInfo> = listed.into_iter().map(Result::unwrap).collect();
        assert!(snapshots.len() >= least, "{} are there, of {least}", snapshots.len());
        // Copies are many small files; not all of them at once.
        for some in snapshots.chunks(16) {
            let copies = some.iter().map(|one| directory.copy(&mut self.random, Some(one)));
            let copies: Vec<Directory> = copies.collect();
            let order = |copy| self.order(copy, Task::Finish, false);
            self.audit(copies.iter().map(order).collect());
        }
        snapshots
    }

    /// Runs a program that ends without a warning, and checks every snapshot it has left, and that one can
    /// go on from some.
    fn check_all(&mut self, layout: usize) {
        let directory = Directory::new(&mut self.random);
        let order = self.order(&directory, Task::Run { cuts: CUTS }, true);
        let outcomes = self.run(&order, layout, None);
        let what = format!("on {:?}", LAYOUTS[layout]);
        assert!(outcomes[0].success, "{what}: {}", outputs(&outcomes));
        let ran = outcomes[0].lines.iter().find_map(|line| line.strip_prefix("ran "));
        let (handled, crossed) = ran.unwrap().split_once(' ').unwrap();
        let crossed: u64 = crossed.parse().unwrap();
        assert!(layout == 0 || crossed > 0, "no message crossed workers");
        self.totals.handled += handled.parse::<u64>().unwrap();
        self.totals.crossed += crossed;
        let snapshots = self.audit_all(&directory, CUTS);
        for _ in 0..2 {
            let one = &snapshots[self.random.below(snapshots.len() as u64) as usize];
            let other = (layout + 1 + self.random.below(3) as usize) % LAYOUTS.len();
            let copy = directory.copy(&mut self.random, Some(one));
            self.finish(&copy, other, &format!("cut {} of {what}", one.cut));
        }
    }

    /// Goes on until all money rests.
    fn finish(&mut self, directory: &Directory, layout: usize, what: &str) {
        let what = format!("{what}, on {:?}", LAYOUTS[layout]);
        let order = self.order(directory, Task::Finish, false);
        let outcomes = self.run(&order, layout, None);
        assert!(outcomes.iter().all(|o| o.success), "{what}: {}", outputs(&outcomes));
        let lines = outcomes.iter().flat_map(|outcome| &outcome.lines);
        let accounts = lines.filter(|line| line.starts_with("account ")).cloned();
        let sum = Sum::of(&accounts.collect::<Vec<_>>());
        sum.check(&[DEPOSITS; TELLERS as usize], &what);
        self.totals.finished += 1;
    }

    /// An execution that sleeps while another one goes on is over when it wakes, and what it did since is in
    /// no snapshot that counts.
    fn check_sleeper(&mut self) {
        let directory = Directory::new(&mut self.random);
        let sleep = self.order(&directory, Task::Sleep { cuts: 10 }, true);
        let run = self.order(&directory, Task::Run { cuts: 20 }, true);
        let slept = std::thread::scope(|scope| {
            let this = &*self;
            let sleeper = scope.spawn(move || this.run(&sleep, 1, None));
            wait_for(&directory.0.join("asleep"));
            let outcomes = this.run(&run, 2, None);
            std::fs::write(directory.0.join("awake"), "").unwrap();
            assert!(outcomes[0].success, "{}", outputs(&outcomes));
            sleeper.join().unwrap()
        });
        let output = outputs(&slept);
        let is_over = output.contains("is fenced");
        assert!(is_over, "an execution went on after a newer one had begun: {output}");
        self.audit_all(&directory, 29);
        self.finish(&directory, 0, "after an execution that slept");
    }

    /// Ends a program so often in the middle of a step of taking snapshots, on other workers each time.
    fn check_step(&mut self, step: &str, kills: usize) {
        let directory = Directory::new(&mut self.random);
        let mut executions = 0;
        let mut layout = 0;
        // Which time is the last; some steps come once in an execution, others more often.
        let mut latest = 5;
        while self.totals.kills < kills {
            executions += 1;
            assert!(executions <= 8 * kills, "{step}: the program is not ended there");
            layout = (layout + 1 + self.random.below(3) as usize) % LAYOUTS.len();
            let order = self.order(&directory, Task::Run { cuts: 12 }, false);
            let last = 1 + self.random.below(latest);
            let planted = format!("kill-at={step}:{last}");
            let outcomes = self.run(&order, layout, Some(&planted));
            let output = outputs(&outcomes);
            assert!(!output.contains("panicked"), "{step}: {output}");
            let ran = outcomes[0].lines.iter().any(|line| line.starts_with("ran "));
            self.totals.kills += usize::from(!ran);
            if ran {
                latest = (last - 1).max(1);
            }
            let store = order.store();
            let listed = protocol::runtime().block_on(store.list()).unwrap();
            if !listed.is_empty() {
                let copy = directory.copy(&mut self.random, None);
                self.audit(vec![self.order(&copy, Task::Finish, false)]);
            }
        }
        self.finish(&directory, (layout + 1) % LAYOUTS.len(), step);
        println!("conservation: {step}: {kills} kills in {executions} executions");
    }
}

fn outputs(outcomes: &[cluster::Outcome]) -> String {
    outcomes.iter().map(|outcome| outcome.output.clone()).collect::<Vec<_>>().join("\n--\n")
}

fn main() -> ExitCode {
    if let Some(config) = cluster::member() {
        return be_member(config);
    }
    let text = |name: &str| {
        let mut arguments = std::env::args().skip_while(|argument| argument != name).skip(1);
        arguments.next()
    };
    let option = |name: &str| text(name).map(|value| value.parse::<u64>().expect("a whole number"));
    let seed = option("--seed").unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        u64::from(now.subsec_nanos())
    });
    let began = Instant::now();
    let mut test = Test { random: Random(seed), server: serve(), totals: Totals::default() };
    if let Some(step) = text("--kill-at") {
        println!("conservation: ended at \"{step}\", --seed {seed}");
        test.check_step(&step, option("--rounds").unwrap_or(5) as usize);
        return ExitCode::SUCCESS;
    }
    if std::env::args().any(|argument| argument == "--sleeper") {
        println!("conservation: an execution that sleeps, --seed {seed}");
        test.check_sleeper();
        return ExitCode::SUCCESS;
    }
    let rounds = option("--rounds").unwrap_or(1);
    println!("conservation: {rounds} rounds, --seed {seed}");
    for _ in 0..rounds {
        (0..LAYOUTS.len()).for_each(|layout| test.check_all(layout));
        test.check_sleeper();
    }
    let Totals { cuts, finished, handled, crossed, found, .. } = &test.totals;
    println!("conservation: {cuts} snapshots hold all there is, {finished} went on to the end");
    println!("conservation: {handled} messages handled by the first workers, {crossed} crossed");
    for (what, (times, messages)) in found {
        println!("conservation: {what}: in {times} of these cuts, {messages} in all");
    }
    println!("conservation: {:.1?}", began.elapsed());
    for what in ["queued", "logged", "in flight", "delayed"] {
        assert!(found.get(what).is_some_and(|(times, _)| *times > 0), "no cut had any {what}");
    }
    ExitCode::SUCCESS
}

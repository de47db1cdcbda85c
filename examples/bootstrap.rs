//! A million accounts are loaded from a file into a snapshot, without a program; then a program begins with it
//! and runs on.
//!
//! `cargo run --release --example bootstrap`, or with another number of accounts behind `--`.
//!
//! The file and the transfers follow from numbers, so what must come of them is known: the example checks the
//! balance of every account that was touched, and of some that were not.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use timely::dataflow::InputHandleVec;
use timely::dataflow::operators::{Input, Inspect, Probe};
use timely_statefun::archive::{Archive, Description, Draft};
use timely_statefun::{
    Context, Egress, Envelope, Function, FunctionType, Functions, SnapshotOptions, SnapshotPolicy,
    SnapshotStore, Snapshots, StatefulFunctions, ValueSpec,
};

const ACCOUNT: FunctionType<Order> = FunctionType::new("bank/account");
const BALANCE: ValueSpec<i64> = ValueSpec::new("balance");
const BALANCES: Egress<(u64, i64)> = Egress::new("bank/balances");
const WORKERS: usize = 2;
const TRANSFERS: u64 = 10_000;

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[derive(Clone, Debug, Serialize, Deserialize)]
enum Order {
    Transfer { amount: i64, to: u64 },
    Receive(i64),
    Tell,
}

fn functions() -> Functions<Order> {
    let account = Function::new(|context: &mut Context<'_, Order>, order: &Order| {
        match order {
            Order::Transfer { amount, to } => {
                context.update(BALANCE, |balance| *balance -= amount);
                context.send(ACCOUNT, *to, Order::Receive(*amount));
            }
            Order::Receive(amount) => drop(context.update(BALANCE, |balance| *balance += amount)),
            Order::Tell => {
                let id = context.id().as_number().ok_or("accounts are numbers")?;
                let balance = context.get(BALANCE).copied().ok_or("every account was loaded")?;
                context.emit(BALANCES, (id, balance));
            }
        }
        Ok(())
    });
    Functions::new().named("accounts").embedded(ACCOUNT, account.value(BALANCE)).egress(BALANCES)
}

/// What an account has at first.
fn opening(account: u64) -> i64 {
    (account * 7919 % 10_007) as i64
}

/// From which account to which, and how much.
fn transfer(number: u64, accounts: u64) -> (u64, u64, i64) {
    let from = number * 104_729 % accounts;
    (from, (from * 31 + number) % accounts, (number % 100) as i64)
}

fn write_file(file: &Path, accounts: u64) -> Result<(), Failure> {
    let mut out = BufWriter::new(File::create(file)?);
    for account in 0..accounts {
        writeln!(out, "{account},{}", opening(account))?;
    }
    Ok(out.flush()?)
}

/// Makes a snapshot of a file. Gives how many bytes it has.
fn load(file: &Path, store: &SnapshotStore) -> Result<u64, Failure> {
    let (archive, draft) = (Archive::of(store)?, Draft::of("accounts"));
    let description = Description::beginning("bank", &0u64)?;
    let mut writer = archive.writer(&description).progress(|done, of| {
        if done == of || done % (1 << 18) == 0 {
            println!("  {done} of {of} records written");
        }
    });
    for (number, line) in (1..).zip(BufReader::new(File::open(file)?).lines()) {
        let line = line?;
        let wrong = || format!("{}:{number}: \"{line}\" is no account", file.display());
        let (account, balance) = line.split_once(',').ok_or_else(wrong)?;
        let account: u64 = account.parse().map_err(|_| wrong())?;
        let balance: i64 = balance.parse().map_err(|_| wrong())?;
        writer.push(draft.value(ACCOUNT, account, BALANCE, &balance)?)?;
    }
    Ok(writer.finish()?.bytes)
}

/// Runs the program from the snapshot on. Gives the balances that it tells.
fn run(store: &SnapshotStore, accounts: u64) -> Result<BTreeMap<u64, i64>, Failure> {
    let runtime = tokio::runtime::Runtime::new()?;
    let (handle, store) = (runtime.handle().clone(), store.clone());
    let told = Arc::new(Mutex::new(BTreeMap::new()));
    let all = Arc::clone(&told);
    let guards = timely::execute(timely::Config::process(WORKERS), move |worker| {
        let policy = SnapshotPolicy::new("bank").on_request();
        let snapshots = Snapshots::<u64>::begin(worker, &store, &handle, &policy);
        let snapshots = snapshots.map_err(|error| error.to_string())?;
        let told = Arc::clone(&all);
        let (mut input, handle, probe) = worker.dataflow(|scope| {
            let (input, stream) = scope.new_input();
            let egresses = snapshots
                .replayed("orders", stream)
                .stateful_functions(functions())
                .expect("it is put together rightly");
            let balances = egresses.stream(BALANCES).expect("it is bound");
            let balances = balances.inspect(move |(account, balance)| {
                told.lock().expect("nobody panicked").insert(*account, *balance);
            });
            (input, egresses.handle(), balances.probe().0)
        });
        let mut position = 0;
        let mut send = |input: &mut InputHandleVec<u64, Envelope<Order>>,
                        envelope: Envelope<Order>| {
            input.send(envelope.read_at(0, position));
            position += 1;
        };
        if worker.index() == 0 {
            for number in 0..TRANSFERS {
                let (from, to, amount) = transfer(number, accounts);
                send(&mut input, ACCOUNT.message(from, Order::Transfer { amount, to }));
            }
        }
        // Balances are told when all transfers have arrived.
        input.advance_to(1);
        let waited = handle.run_while(worker, || probe.less_than(&1));
        waited.map_err(|stopped| stopped.to_string())?;
        if worker.index() == 0 {
            for account in asked(accounts) {
                send(&mut input, ACCOUNT.message(account, Order::Tell));
            }
        }
        drop(input);
        handle.run(worker).map_err(|stopped| stopped.to_string())
    });
    guards?.join().into_iter().try_for_each(|end| end?)?;
    let told = told.lock().map_err(|error| error.to_string())?.clone();
    Ok(told)
}

/// The accounts whose balances are compared: those of transfers, and some others.
fn asked(accounts: u64) -> Vec<u64> {
    let touched = (0..TRANSFERS).flat_map(|number| {
        let (from, to, _) = transfer(number, accounts);
        [from, to]
    });
    let mut asked: Vec<u64> = touched.chain((0..accounts).step_by(997)).collect();
    asked.sort_unstable();
    asked.dedup();
    asked
}

fn main() -> Result<(), Failure> {
    let accounts = match std::env::args().nth(1) {
        Some(text) => {
            text.parse::<u64>().map_err(|_| format!("\"{text}\" is no number of accounts"))?
        }
        None if cfg!(debug_assertions) => 20_000,
        None => 1_000_000,
    };
    if accounts == 0 {
        return Err("there must be an account".into());
    }
    let root = tempfile::tempdir()?;
    let file = root.path().join("accounts.csv");
    write_file(&file, accounts)?;
    let store =
        SnapshotStore::directory(root.path().join("snapshots"), SnapshotOptions::default())?;

    let began = Instant::now();
    let bytes = load(&file, &store)?;
    let took = began.elapsed().as_secs_f64();
    println!(
        "{accounts} accounts loaded in {took:.2} s: {:.0} records/s, {bytes} bytes",
        accounts as f64 / took
    );

    let mut expected: BTreeMap<u64, i64> =
        asked(accounts).into_iter().map(|account| (account, opening(account))).collect();
    for number in 0..TRANSFERS {
        let (from, to, amount) = transfer(number, accounts);
        *expected.get_mut(&from).expect("it is asked") -= amount;
        *expected.get_mut(&to).expect("it is asked") += amount;
    }
    let began = Instant::now();
    let told = run(&store, accounts)?;
    if told != expected {
        return Err("the balances are not what they should be".into());
    }
    println!(
        "restored on {WORKERS} workers, and {TRANSFERS} transfers made, in {:.2} s",
        began.elapsed().as_secs_f64()
    );
    println!("{} balances are what they should be", told.len());
    Ok(())
}

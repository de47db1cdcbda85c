//! The dataflow: instructions go to the bank, and what its accounts hold is summed and ranked while they change.
//!
//! It neither reads options nor prints.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use differential_dataflow::VecCollection;
use timely::dataflow::operators::probe::Handle as ProbeHandle;
use timely::dataflow::operators::{Exchange, Input, Inspect, Probe};
use timely::worker::Worker;
use timely_statefun::{Envelope, Id, Order, StatefulFunctions, Stopped};

use crate::functions::{
    ACCOUNT, BALANCE, Message, SETTLED, Settled, TRANSFER, ToAccount, ToTransfer, Transfer,
};

/// How many are the richest.
pub const RICHEST: usize = 10;
/// Times that may be under way at once where nobody waits.
const AHEAD: u64 = 64;

/// How a program of the bank runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Instructions of a time are given when all that was before has happened.
    Rounds,
    /// Messages are handled in the order of time.
    InTimeOrder,
    /// Neither: messages are handled in the order in which they come.
    AsTheyCome,
}

/// What there is to do.
#[derive(Clone, Copy, Debug)]
pub struct Task {
    pub accounts: u64,
    /// What each account begins with, at time 0.
    pub opening: i64,
    /// From time 1 on.
    pub times: u64,
    /// At each time.
    pub transfers: u64,
}

/// What worker 0 has seen: everything, for it is sent all of it.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Changes of the sum of all balances.
    pub sums: Vec<(i64, u64, isize)>,
    /// Changes of the ten richest: the balance and the account.
    pub richest: Vec<((i64, u64), u64, isize)>,
    pub settled: Vec<(u64, Settled)>,
    /// Changes of balances, and how many of them happened later than their message.
    pub changes: u64,
    pub raised: u64,
}

/// Numbers that depend on nothing but a seed (SplitMix64).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)) % bound
    }
}

/// The richest of some accounts, as a differential collection of balances and accounts.
fn richest<'scope>(
    balances: VecCollection<'scope, u64, (i64, u64), isize>,
) -> VecCollection<'scope, u64, (i64, u64), isize> {
    // First in each of some groups, so that one change does not look at all accounts.
    let best = |accounts: VecCollection<'scope, u64, (u64, (i64, u64)), isize>| {
        accounts.reduce(|_, accounts, best| {
            let last = accounts.iter().rev().take(RICHEST);
            best.extend(last.map(|(account, _)| (**account, 1)));
        })
    };
    let groups = best(balances.map(|(balance, account)| (1 + account % 64, (balance, account))));
    best(groups.map(|(_, account)| (0, account))).map(|(_, account)| account)
}

/// Where an account is in the collection, as a number.
fn number(id: &Id) -> u64 {
    id.to_string().parse().expect("accounts have numbers")
}

/// Runs a bank to its end, and gives what worker 0 has seen.
///
/// # Errors
///
/// Why the bank stopped.
pub fn run(worker: &mut Worker, mode: Mode, task: Task) -> Result<Report, Stopped> {
    let report = Rc::<RefCell<Report>>::default();
    let probe = ProbeHandle::new();
    let (mut input, handle) = worker.dataflow::<u64, _, _>(|scope| {
        let (input, stream) = scope.new_input::<Vec<Envelope<Message>>>();
        let order = if mode == Mode::InTimeOrder { Order::Time } else { Order::Arrival };
        let functions = crate::functions::functions().order(order);
        let egresses = stream.stateful_functions(functions).expect("bound once each");

        let balances = egresses.state(ACCOUNT, BALANCE).expect("it is watched");
        let seen = Rc::clone(&report);
        let sum = balances.clone().explode(|(_, (), balance)| Some(((), balance as isize)));
        sum.count()
            .inner
            .exchange(|_| 0)
            .inspect(move |(((), sum), time, change)| {
                seen.borrow_mut().sums.push((*sum as i64, *time, *change));
            })
            .probe_with(&probe);
        let seen = Rc::clone(&report);
        richest(balances.map(|(id, (), balance)| (balance, number(&id))))
            .inner
            .exchange(|_| 0)
            .inspect(move |change| seen.borrow_mut().richest.push(*change))
            .probe_with(&probe);

        let seen = Rc::clone(&report);
        let changes = egresses.changes(ACCOUNT, BALANCE).expect("it is watched");
        changes.exchange(|_| 0).inspect(move |change| {
            let mut seen = seen.borrow_mut();
            seen.changes += 1;
            seen.raised += u64::from(change.is_raised);
        });
        let seen = Rc::clone(&report);
        let settled = egresses.stream(SETTLED).expect("it is bound").exchange(|_| 0);
        settled.inspect_time(move |time, settled| {
            seen.borrow_mut().settled.push((*time, *settled));
        });
        (input, egresses.handle())
    });

    let (index, peers) = (worker.index() as u64, worker.peers() as u64);
    let is_mine = |number: &u64| number % peers == index;
    for account in (0..task.accounts).filter(is_mine) {
        input.send(ACCOUNT.message(account, ToAccount::Deposit(task.opening)));
    }
    for time in 1..=task.times {
        input.advance_to(time);
        let behind = if mode == Mode::AsTheyCome { time.saturating_sub(AHEAD) } else { time };
        // In the order of time, what is given is handled when it is clear that nothing earlier comes.
        while mode != Mode::InTimeOrder && probe.less_than(&behind) && handle.stopped().is_none() {
            worker.step_or_park(None);
        }
        handle.until_ready(worker)?;
        for transfer in (0..task.transfers).map(|at| time * task.transfers + at).filter(is_mine) {
            let mut random = Random(transfer);
            let (from, to) = (random.below(task.accounts), random.below(task.accounts));
            let amount = 1 + random.below(2 * task.opening as u64) as i64;
            let begin = ToTransfer::Begin(Transfer { from, to, amount });
            input.send(TRANSFER.message(transfer, begin));
        }
    }
    input.close();
    handle.run(worker)?;
    while !probe.done() {
        worker.step_or_park(None);
    }
    Ok(report.take())
}

impl Report {
    /// The sum of all balances at each time from 0 on.
    pub fn sum_at(&self, times: u64) -> Vec<i64> {
        let sums = self.sums.iter().map(|(sum, time, change)| (*time, sum * *change as i64));
        running(sums, times, 0, |sum, change| *sum += change)
    }

    /// The richest at each time from 0 on, the richest first.
    pub fn richest_at(&self, times: u64) -> Vec<Vec<(i64, u64)>> {
        let changes =
            self.richest.iter().map(|(account, time, change)| (*time, (*account, *change)));
        let counts = running(changes, times, BTreeMap::new(), |counts, (account, change)| {
            *counts.entry(account).or_insert(0) += change;
            counts.retain(|_, count| *count != 0);
        });
        counts.into_iter().map(|counts| by_wealth(counts.into_keys())).collect()
    }

    /// The richest at each time, from what was settled: what the dataflow must have found.
    pub fn expected_at(&self, task: Task) -> Vec<Vec<(i64, u64)>> {
        let balances: BTreeMap<_, _> = (0..task.accounts).map(|at| (at, task.opening)).collect();
        let made = self.settled.iter().filter(|(_, settled)| settled.is_made);
        let made = made.map(|(time, settled)| (*time, settled.transfer));
        let balances = running(made, task.times, balances, |balances, transfer| {
            *balances.entry(transfer.from).or_default() -= transfer.amount;
            *balances.entry(transfer.to).or_default() += transfer.amount;
        });
        let accounts = balances.into_iter().map(|all| all.into_iter().map(|(id, sum)| (sum, id)));
        accounts.map(by_wealth).collect()
    }
}

fn by_wealth(accounts: impl Iterator<Item = (i64, u64)>) -> Vec<(i64, u64)> {
    let mut accounts: Vec<_> = accounts.collect();
    accounts.sort_unstable_by(|one, other| other.cmp(one));
    accounts.truncate(RICHEST);
    accounts
}

/// What changes make of something, at each time from 0 on.
fn running<C, X: Clone>(
    changes: impl Iterator<Item = (u64, C)>,
    times: u64,
    mut now: X,
    mut change: impl FnMut(&mut X, C),
) -> Vec<X> {
    let mut by_time = BTreeMap::<u64, Vec<C>>::new();
    changes.for_each(|(time, change)| by_time.entry(time).or_default().push(change));
    let at = |time| {
        by_time.remove(&time).into_iter().flatten().for_each(|with| change(&mut now, with));
        now.clone()
    };
    (0..=times).map(at).collect()
}

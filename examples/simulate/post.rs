//! The simulated program, and what must be true of each of its runs.

use timely_statefun::testing::{Finished, Random, Simulation};
use timely_statefun::{Envelope, Functions, Order, TypedValue};

use crate::functions::{
    ARRIVED, BALANCE, BOOK, COUNTED, DECOYS, HANDLED, LOG, OFFICE, Parcel, WRONG, courier,
    functions,
};
use crate::ways::{Expected, OFFICES};

/// Far more than waits in any run that is as it should be.
const WAITING_BYTES_MAX: usize = 1 << 20;

/// Parcels that are simulated, and checked.
pub fn post() -> Simulation<TypedValue> {
    stored(simulated(|| functions(true)))
}

/// The same where nothing is held, so that no cut waits for what is.
pub fn unheld() -> Simulation<TypedValue> {
    simulated(|| functions(false)).check(|run| _ = check(run))
}

/// The same with messages in the order of time.
pub fn in_time_order() -> Simulation<TypedValue> {
    stored(simulated(|| functions(true).order(Order::Time)))
}

/// With the book stored, and checked.
fn stored(simulation: Simulation<TypedValue>) -> Simulation<TypedValue> {
    simulation.store(BOOK).check(|run| {
        let expected = check(run);
        check_book(run, &expected);
    })
}

fn simulated(make: fn() -> Functions<TypedValue>) -> Simulation<TypedValue> {
    Simulation::new(make, parcel)
        .observe(ARRIVED)
        .observe(DECOYS)
        .observe(WRONG)
        .serve("http://courier/", courier)
}

/// A parcel that is brought to an office.
fn parcel(random: &mut Random) -> Envelope<TypedValue> {
    let id = random.number() >> 1;
    let (hops, amount) = (random.below(6), random.below(1000) as i64);
    let parcel = Parcel { id, hops, amount, from: "-".to_owned(), number: 0, time: None };
    OFFICE.message(random.below(OFFICES), parcel.write())
}

/// What was sent: id, hops and amount of each parcel.
fn sent(run: &Finished<'_, '_, TypedValue>) -> Vec<(u64, u64, i64)> {
    let texts = run.sent().map(|(_, envelope)| {
        let value: &TypedValue = &envelope.message;
        value.read::<String>().expect("parcels are text")
    });
    let parcels = texts.map(|text| {
        let words: Vec<&str> = text.split(' ').collect();
        let number = |at: usize| words[at].parse::<u64>().expect("it is a number");
        (number(1), number(2), number(3) as i64)
    });
    parcels.collect()
}

/// Gives what had to become of all parcels.
fn check(run: &mut Finished<'_, '_, TypedValue>) -> Expected {
    let wrong = run.emitted(WRONG);
    assert!(wrong.is_empty(), "{:?}", wrong[0]);

    let mut expected = Expected::default();
    let sent = sent(run);
    for (id, hops, amount) in &sent {
        expected.add(*id, *hops, *amount);
    }
    let (mut balance, mut handled) = (0, 0);
    for office in 0..OFFICES {
        let (has, did, log, counted) = run.with(&OFFICE.at(office), |context| {
            let counted = COUNTED.map(|spec| context.get(spec).copied().unwrap_or(0));
            let log: Vec<u64> = context.buffer(LOG).iter().copied().collect();
            (context.get(BALANCE).copied(), context.get(HANDLED).copied(), log, counted)
        });
        let did = did.unwrap_or(0);
        assert!(
            log.iter().copied().eq(1..=did),
            "office {office} has handled {did}, and its log is {log:?}"
        );
        assert_eq!(counted.iter().sum::<u64>(), did, "what office {office} has counted");
        balance += has.unwrap_or(0);
        handled += did;
    }
    let total: i64 = sent.iter().map(|(.., amount)| amount).sum();
    let lost: i64 = expected.lost.iter().map(|(_, amount)| amount).sum();
    assert_eq!(balance, total - lost, "the balance of all offices");
    assert_eq!(handled, expected.handled, "parcels that offices have handled");

    let mut arrived: Vec<_> =
        run.emitted_since_restart(ARRIVED).into_iter().map(|(_, parcel)| parcel).collect();
    same("arrived", &mut arrived, &mut expected.arrived);
    let mut decoys: Vec<_> =
        run.emitted_since_restart(DECOYS).into_iter().map(|(_, (decoy, _))| decoy).collect();
    same("decoys", &mut decoys, &mut expected.decoys);

    // What was given up before a snapshot is not given up again, so all executions count.
    let letters = run.dead_letters().into_iter().map(|(_, letter)| {
        let text = letter.message.read::<String>().expect("parcels are text");
        let (id, amount) = text.split_once(' ').expect("it has an id and an amount");
        (id.parse().expect("it is a number"), amount.parse().expect("it is a number"))
    });
    let mut letters: Vec<(u64, i64)> = letters.collect();
    letters.sort_unstable();
    letters.dedup();
    same("lost", &mut letters, &mut expected.lost);

    let waiting = run.waiting_bytes_max();
    assert!(waiting <= WAITING_BYTES_MAX, "{waiting} bytes of messages waited");
    expected
}

/// What has arrived is in the book once, in the order in which each office wrote it.
fn check_book(run: &Finished<'_, '_, TypedValue>, expected: &Expected) {
    let book = run.stored(BOOK);
    let mut ended = [0; OFFICES as usize];
    for (office, number, id) in &book {
        let before = &mut ended[*office as usize];
        assert_eq!(*number, *before + 1, "parcel {id} in the book of office {office}");
        *before = *number;
    }
    let mut book: Vec<u64> = book.into_iter().map(|(.., id)| id).collect();
    let mut ids: Vec<u64> = expected.arrived.iter().map(|(id, _)| *id).collect();
    same("in the book", &mut book, &mut ids);
}

fn same<X: Ord + std::fmt::Debug>(what: &str, found: &mut [X], expected: &mut [X]) {
    found.sort_unstable();
    expected.sort_unstable();
    if found != expected {
        let missing = expected.iter().find(|one| !found.contains(one));
        let extra = found.iter().find(|one| !expected.contains(one));
        let twice = found.windows(2).find(|pair| pair[0] == pair[1]);
        panic!("{what}: {missing:?} is missing, {extra:?} is too much, {twice:?} is there twice");
    }
}

//! A simulated program does what a seed says, the same each time; what is wrong is found and made small; and
//! what is right stays right whatever happens.

use std::collections::HashMap;

use timely_statefun::testing::{Random, Simulation};
use timely_statefun::{Context, Egress, Envelope, Function, FunctionType, Functions, ValueSpec};

const COUNTER: FunctionType<u64> = FunctionType::new("test/counter");
const SUMS: Egress<(u64, u64)> = Egress::new("test/sums");
const SUM: ValueSpec<u64> = ValueSpec::new("sum");

/// A number wanders on, one smaller, until it is 0; all that come by are summed up.
fn functions() -> Functions<u64> {
    let counter = Function::new(|context, number: &u64| {
        context.update(SUM, |sum| *sum += number);
        if *number > 0 {
            context.send(COUNTER, number * 7 % 11, number - 1);
        }
        context.emit(SUMS, (*context.time(), *number));
        Ok(())
    });
    Functions::new().embedded(COUNTER, counter.value(SUM)).persisted_egress(SUMS)
}

fn message(random: &mut Random) -> Envelope<u64> {
    COUNTER.message(random.below(11), random.below(4))
}

fn simulation() -> Simulation<u64> {
    Simulation::new(functions, message).observe(SUMS).check(|run| {
        let mut expected: HashMap<u64, u64> = HashMap::new();
        let mut emitted = Vec::new();
        for (time, sent) in run.sent() {
            let mut id: u64 = sent.target.id.to_string().parse().unwrap();
            let mut number = sent.message;
            loop {
                *expected.entry(id).or_default() += number;
                emitted.push((time, number));
                if number == 0 {
                    break;
                }
                id = number * 7 % 11;
                number -= 1;
            }
        }
        for (id, expected) in expected {
            let sum = run.with(&COUNTER.at(id), |context| context.get(SUM).copied());
            assert_eq!(sum, Some(expected), "the sum at {id}");
        }
        let mut found: Vec<_> = run.emitted_since_restart(SUMS);
        let mut found: Vec<_> = found.drain(..).map(|(_, emitted)| emitted).collect();
        found.sort();
        emitted.sort();
        assert_eq!(found, emitted);
    })
}

#[test]
fn whatever_happens_sums_are_exact() {
    let report = simulation().run(0..60);
    println!("{report}");
    assert!(report.cuts > 60 && report.crashes > 60, "{report}");
}

#[test]
fn a_seed_does_the_same_again() {
    for seed in 0..20 {
        let simulation = simulation();
        let first = simulation.trace(seed).unwrap();
        for _ in 0..3 {
            assert_eq!(simulation.trace(seed).unwrap(), first, "seed {seed}");
        }
    }
}

/// Whoever counts in a variable of its own, and not in its state, counts wrongly after a restart.
#[test]
fn a_function_that_keeps_its_state_elsewhere_is_found_and_the_run_made_small() {
    let careless = || {
        let sums = std::cell::RefCell::new(HashMap::<String, u64>::new());
        let counter = Function::new(move |context: &mut Context<'_, u64>, number: &u64| {
            let mut sums = sums.borrow_mut();
            let sum = sums.entry(context.id().to_string()).or_default();
            *sum += number;
            context.set(SUM, *sum);
            Ok(())
        });
        Functions::new().embedded(COUNTER, counter.value(SUM))
    };
    let simulation = Simulation::new(careless, message).messages(40).check(|run| {
        let total: u64 = run.sent().map(|(_, sent)| sent.message).sum();
        let sums =
            (0..11_u64).map(|id| run.with(&COUNTER.at(id), |context| context.get(SUM).copied()));
        assert_eq!(sums.map(Option::unwrap_or_default).sum::<u64>(), total);
    });
    let failed = (0..100).find_map(|seed| simulation.try_seed(seed).err());
    let failed = failed.expect("a hundred restarts do not hide it");
    assert!(failed.messages <= 20 && failed.smallest.contains("Crash"), "{failed}");
    assert!(failed.why.contains("left == right"), "{failed}");
    // It fails again, the same way.
    let again = simulation.try_seed(failed.seed).unwrap_err();
    assert_eq!((again.why, again.smallest), (failed.why, failed.smallest));
}

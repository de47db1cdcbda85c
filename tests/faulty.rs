//! What a program does whose store fails, when the test says so.

use std::time::Duration;

use timely_statefun::testing::{FaultyStore, StoreCall, StoreFault, TestProgram};
use timely_statefun::{
    Egress, Function, FunctionType, Functions, RestoreFrom, Retry, SnapshotOptions, ValueSpec,
};

const COUNTER: FunctionType<u64> = FunctionType::new("example/counter");
const SUMS: Egress<u64> = Egress::new("example/sums");
const SUM: ValueSpec<u64> = ValueSpec::new("sum");

fn counters() -> Functions<u64> {
    let counter = Function::new(|context, number: &u64| {
        context.update(SUM, |sum| *sum += number);
        let sum = *context.get(SUM).expect("it was just set");
        context.emit(SUMS, sum);
        Ok(())
    });
    Functions::<u64>::new().embedded(COUNTER, counter.value(SUM)).egress(SUMS)
}

/// A program whose files are tried once, and for no longer than a moment.
fn program(faulty: &FaultyStore) -> TestProgram<u64> {
    let attempt_max = Duration::from_millis(50);
    let retry = Retry::attempts(1);
    let options = SnapshotOptions { retry, attempt_max, ..SnapshotOptions::default() };
    TestProgram::with_store(counters, faulty.store(options))
}

fn add(program: &mut TestProgram<u64>, number: u64) {
    program.send(COUNTER.message("all", number));
    program.run();
}

/// The sum of all that was sent, whatever was lost.
fn sum(program: &mut TestProgram<u64>) -> u64 {
    program.run();
    program.take(SUMS).pop().expect("there is a sum").1
}

/// Whichever file it is that fails, and however.
#[test]
fn what_is_sent_counts_once_whichever_put_fails() {
    let faults = [
        StoreFault::Refused,
        StoreFault::ReplyLost,
        StoreFault::Late,
        StoreFault::Stalled,
        StoreFault::Unsynced,
        StoreFault::Torn(20),
        StoreFault::Unflushed(20),
    ];
    let mut given_up = 0;
    for fault in faults {
        for n in 1.. {
            let faulty = FaultyStore::new();
            let mut program = program(&faulty);
            let before = faulty.calls(StoreCall::Put);
            faulty.fail_nth(StoreCall::Put, "", n, fault);
            for number in [1, 10, 100] {
                add(&mut program, number);
                given_up += u32::from(program.try_snapshot().is_err());
            }
            let puts = faulty.calls(StoreCall::Put) - before;
            add(&mut program, 1000);
            faulty.heal();
            faulty.lose_power();
            let cut = program.restart(RestoreFrom::NewestWhole).unwrap();
            add(&mut program, 10_000);
            assert_eq!(sum(&mut program), 11_111, "{fault:?} of put {n}, from cut {cut:?}");
            if puts < n {
                assert!(n > 5, "{puts} puts");
                break;
            }
        }
    }
    assert!(given_up > 20, "{given_up}");
}

#[test]
fn a_torn_manifest_is_not_restored_from() {
    let faulty = FaultyStore::new();
    let mut program = program(&faulty);
    add(&mut program, 1);
    assert_eq!(program.snapshot().cut, 1);
    add(&mut program, 10);
    let before = faulty.calls(StoreCall::Put);
    faulty.fail_next(StoreCall::Put, "manifest/", [StoreFault::Torn(40)]);
    program.try_snapshot().unwrap_err();
    assert!(faulty.calls(StoreCall::Put) > before);
    let whole = faulty.files();
    faulty.lose_power();
    let torn = faulty.files();
    let new: Vec<_> = torn.iter().filter(|(file, _)| !whole.contains_key(*file)).collect();
    let [(file, bytes)] = new[..] else { panic!("{new:?}") };
    assert!(file.starts_with("manifest/") && bytes.len() == 40, "{file}: {}", bytes.len());
    let damaged = program.restart(RestoreFrom::Newest).unwrap_err();
    assert!(damaged.is_damaged() && damaged.offered() == Some(1), "{damaged}");
    assert_eq!(program.restart(RestoreFrom::NewestWhole).unwrap(), Some(1));
    assert_eq!(sum(&mut program), 11);
    // It goes on above it.
    add(&mut program, 100);
    let cut = program.snapshot().cut;
    assert!(cut > 1, "{cut}");
    faulty.lose_power();
    assert_eq!(program.crash(), Some(cut));
    add(&mut program, 1000);
    assert_eq!(sum(&mut program), 1111);
}

#[test]
fn a_crash_in_the_middle_of_a_snapshot_goes_on_from_the_one_before() {
    let faulty = FaultyStore::new();
    let mut program = program(&faulty);
    add(&mut program, 1);
    assert_eq!(program.snapshot().cut, 1);
    add(&mut program, 10);
    faulty.plan(|call, _| match call {
        StoreCall::Put => StoreFault::Stalled,
        _ => StoreFault::Nothing,
    });
    let before = faulty.calls(StoreCall::Put);
    program.request_snapshot();
    while faulty.calls(StoreCall::Put) == before {
        program.step().unwrap();
    }
    faulty.heal();
    faulty.lose_power();
    assert_eq!(program.crash(), Some(1));
    assert_eq!(sum(&mut program), 11);
}

#[test]
fn a_store_without_space_is_an_error_until_there_is_some() {
    let faulty = FaultyStore::new();
    let mut program = program(&faulty);
    add(&mut program, 1);
    faulty.limit(0);
    let error = program.try_snapshot().unwrap_err();
    assert!(error.to_string().contains("part/"), "{error}");
    faulty.heal();
    let cut = program.snapshot().cut;
    assert_eq!(program.crash(), Some(cut));
}

//! What is told of state that is watched: of embedded and remote functions, of what expires and of what fails; and
//! what other threads find out.

mod support;

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use support::{Random, on_workers};
use timely::dataflow::operators::Input;
use timely_statefun::testing::{TestEndpoint, TestProgram};
use timely_statefun::{
    BufferSpec, Endpoint, Envelope, Error, Expiration, Function, FunctionType, Functions, Id,
    LookUps, OnFailure, Order, StateChange, StatefulFunctions, TableSpec, TypedValue, ValueSpec,
    Watchable,
};
use timely_statefun_proto::reqreply::from_function::{
    IncompleteInvocationContext, InvocationResponse, PersistedValueMutation, PersistedValueSpec,
    Response,
};
use timely_statefun_proto::reqreply::{self, FromFunction};

const SECOND: Duration = Duration::from_secs(1);

const GREETER: FunctionType<String> = FunctionType::new("example/greeter");
const SEEN: ValueSpec<i32> = ValueSpec::new("seen");

fn missing(type_name: &str) -> FromFunction {
    let seen = PersistedValueSpec {
        state_name: "seen".to_owned(),
        expiration_spec: None,
        type_typename: type_name.to_owned(),
    };
    let missing = IncompleteInvocationContext { missing_values: vec![seen] };
    FromFunction { response: Some(Response::IncompleteInvocationContext(missing)) }
}

/// An answer that sets the state, or deletes it.
fn answer(seen: Option<reqreply::TypedValue>) -> FromFunction {
    let state_mutations = vec![PersistedValueMutation {
        mutation_type: i32::from(seen.is_some()),
        state_name: "seen".to_owned(),
        state_value: seen,
    }];
    let result = InvocationResponse { state_mutations, ..InvocationResponse::default() };
    FromFunction { response: Some(Response::InvocationResult(result)) }
}

fn remote<S: Watchable + Copy + 'static>(watched: S) -> (TestProgram<TypedValue>, TestEndpoint) {
    let mut program = TestProgram::new(move || {
        let endpoint = Endpoint::at("http://greeters.example/greeter");
        let endpoint = endpoint.on_failure(OnFailure::DeadLetter);
        Functions::<TypedValue>::new().remote(GREETER, endpoint).watched(GREETER, watched)
    });
    let endpoint = program.endpoint();
    (program, endpoint)
}

/// Has one message answered so.
fn greet(
    program: &mut TestProgram<TypedValue>,
    endpoint: &TestEndpoint,
    seen: Option<reqreply::TypedValue>,
) {
    program.send(GREETER.message("ann", "Ann".to_owned()));
    program.run();
    let mut request = endpoint.expect_request();
    if request.state::<i32>("seen").is_none() {
        request.answer(missing("io.statefun.types/int"));
        program.run();
        request = endpoint.expect_request();
    }
    request.answer(answer(seen));
    program.run();
}

type Told<K, V> = Vec<(u64, Id, K, Option<V>, Option<V>)>;

fn told<K, V>(changes: Vec<(u64, StateChange<K, V>)>) -> Told<K, V> {
    let told = changes.into_iter().map(|(time, change)| {
        let StateChange { id, key, old, new, stamp, is_raised } = change;
        assert_eq!((stamp, is_raised), (time, false));
        (time, id, key, old, new)
    });
    told.collect()
}

#[test]
fn a_remote_function_s_state_is_watched_as_values_of_its_type() {
    let (mut program, endpoint) = remote(SEEN);
    let int = |value: i32| Some(reqreply::TypedValue::of(&value));
    greet(&mut program, &endpoint, int(1));
    program.advance_to(7);
    greet(&mut program, &endpoint, int(2));
    let ann = || Id::from("ann");
    let changes = told(program.take_changes(GREETER, SEEN));
    assert_eq!(changes, [(0, ann(), (), None, Some(1)), (7, ann(), (), Some(1), Some(2))]);

    // What is no value of the type is given up, and nothing changes.
    let mut broken = int(3).unwrap();
    broken.value = vec![0xff; 3].into();
    greet(&mut program, &endpoint, Some(broken));
    let letters = program.take_dead_letters();
    assert_eq!(letters.len(), 1);
    let reason = letters[0].1.reason.to_string();
    assert!(reason.contains("state \"seen\" is watched, and cannot be read"), "{reason}");
    assert_eq!(told(program.take_changes(GREETER, SEEN)), []);

    // It is there first, although the function has not asked for it yet.
    program.snapshot();
    program.crash();
    program.run();
    let changes = told(program.take_changes(GREETER, SEEN));
    assert_eq!(changes, [(0, ann(), (), None, Some(2))]);
    greet(&mut program, &endpoint, None);
    let changes = told(program.take_changes(GREETER, SEEN));
    assert_eq!(changes, [(7, ann(), (), Some(2), None)]);
}

#[test]
fn a_remote_function_s_state_is_watched_as_whatever_it_is() {
    let any = ValueSpec::<TypedValue>::typed("seen", "io.statefun.types/int");
    let program = Functions::<TypedValue>::new().watched(GREETER, any);
    assert!(program.check().unwrap_err().is_not_watchable(), "it is not bound");
    let any = ValueSpec::<TypedValue>::typed("seen", "example/tally");
    let (mut program, endpoint) = remote(any);
    program.send(GREETER.message("ann", "Ann".to_owned()));
    program.run();
    endpoint.expect_request().answer(missing("example/tally"));
    program.run();
    let tally = TypedValue::new("example/tally", &b"|||"[..]).unwrap();
    let wire = reqreply::TypedValue {
        typename: "example/tally".to_owned(),
        has_value: true,
        value: b"|||"[..].into(),
    };
    endpoint.expect_request().answer(answer(Some(wire)));
    program.run();
    let changes = told(program.take_changes(GREETER, any));
    assert_eq!(changes, [(0, Id::from("ann"), (), None, Some(tally))]);

    // Under the name that is watched it can keep nothing else.
    let (mut program, endpoint) = remote(any);
    program.send(GREETER.message("ann", "Ann".to_owned()));
    program.run();
    endpoint.expect_request().answer(missing("io.statefun.types/int"));
    program.run();
    let letters = program.take_dead_letters();
    let reason = letters[0].1.reason.to_string();
    assert!(reason.contains("example/tally") && reason.contains("types/int"), "{reason}");
}

const DOOR: FunctionType<u64> = FunctionType::new("house/door");
const SHORT: ValueSpec<u64> =
    ValueSpec::new("short").expiring(Expiration::after_write(Duration::from_secs(5)));
const KEYS: TableSpec<u64, u64> =
    TableSpec::new("keys").expiring(Expiration::after_write(Duration::from_secs(9)));

fn doors() -> TestProgram<u64> {
    TestProgram::new(|| {
        let door = Function::new(|context, number: &u64| {
            context.set(SHORT, *number);
            context.table(KEYS).insert(number % 10, *number);
            Ok(())
        });
        let door = door.value(SHORT).table(KEYS);
        let functions = Functions::<u64>::new().embedded(DOOR, door);
        functions.watched(DOOR, SHORT).watched(DOOR, KEYS)
    })
}

#[test]
fn what_expires_changes_at_the_time_of_an_event() {
    let mut program = doors();
    let front = || Id::from("front");
    program.send(DOOR.message("front", 11));
    program.run();
    program.advance_to(3);
    program.run();
    program.tick(6 * SECOND);
    let changes = told(program.take_changes(DOOR, SHORT));
    assert_eq!(changes, [(0, front(), (), None, Some(11)), (3, front(), (), Some(11), None)]);
    assert_eq!(told(program.take_changes(DOOR, KEYS)), [(0, front(), 1, None, Some(11))]);
    // What is written again lives on; one that is over and was not swept yet is one change all the same.
    program.send(DOOR.message("front", 22));
    program.run();
    program.tick(4 * SECOND);
    let changes = told(program.take_changes(DOOR, KEYS));
    assert_eq!(changes, [(3, front(), 2, None, Some(22)), (3, front(), 1, Some(11), None)]);
    // Contents that are over when they are restored are there first, and then go.
    program.snapshot();
    program.tick(60 * SECOND);
    program.take_changes(DOOR, KEYS);
    program.crash();
    program.run();
    let changes = told(program.take_changes(DOOR, KEYS));
    assert_eq!(changes, [(0, front(), 2, None, Some(22)), (3, front(), 2, Some(22), None)]);
}

const CHEST: FunctionType<String> = FunctionType::new("house/chest");
const COINS: TableSpec<u64, u64> = TableSpec::new("coins");
const NOTE: ValueSpec<String> = ValueSpec::new("note");

#[test]
fn an_invocation_is_one_change_of_each_entry_or_none() {
    let mut program = TestProgram::new(|| {
        let chest = Function::new(|context, order: &String| {
            for word in order.split(' ') {
                let (what, rest) = word.split_at(1);
                let number = || rest.parse::<u64>().unwrap();
                match what {
                    "+" => drop(context.table(COINS).insert(number() % 10, number())),
                    "-" => drop(context.table(COINS).remove(&number())),
                    "0" => context.table(COINS).clear(),
                    "=" => context.set(NOTE, rest.to_owned()),
                    "/" => context.clear(NOTE),
                    _ => return Err("nobody says that".into()),
                }
            }
            Ok(())
        });
        let chest = chest.table(COINS).value(NOTE).on_failure(OnFailure::DeadLetter);
        let functions = Functions::<String>::new().embedded(CHEST, chest);
        functions.watched(CHEST, COINS).watched(CHEST, NOTE)
    });
    let mut say = |order: &str| {
        program.send(CHEST.message(1, order.to_owned()));
        program.run();
        let coins = told(program.take_changes(CHEST, COINS)).into_iter();
        let coins: Vec<_> = coins.map(|(_, _, key, old, new)| (key, old, new)).collect();
        let notes = told(program.take_changes(CHEST, NOTE)).into_iter();
        (coins, notes.map(|(_, _, (), old, new)| (old, new)).collect::<Vec<_>>())
    };
    let text = |text: &str| Some(text.to_owned());
    let none = || (vec![], vec![]);
    assert_eq!(say("+11 +21 =a =b"), (vec![(1, None, Some(21))], vec![(None, text("b"))]));
    assert_eq!(say("+12 -2 /"), (vec![], vec![(text("b"), None)]));
    assert_eq!(say("/ =c / -5"), none());
    assert_eq!(say("+31 -1 =d !"), none(), "it fails");
    assert_eq!(say("-1 +3 -3 +31"), (vec![(1, Some(21), Some(31))], vec![]));
    assert_eq!(say("+41 -1 +5"), (vec![(1, Some(31), None), (5, None, Some(5))], vec![]));
    let three = vec![(1, None, Some(1)), (2, None, Some(2)), (3, None, Some(3))];
    assert_eq!(say("+1 +2 +3").0, three);
    let cleared = [(1, Some(1), None), (5, Some(5), Some(15)), (2, Some(2), None)];
    let (mut found, _) = say("+11 -3 -1 0 +4 0 +15");
    found.sort();
    let mut wanted = [&cleared[..], &[(3, Some(3), None)]].concat();
    wanted.sort();
    assert_eq!(found, wanted);
}

const LEDGER: FunctionType<u64> = FunctionType::new("house/ledger");
const LINES: TableSpec<u64, u64> = TableSpec::new("lines");

/// Far more than are told of at once.
#[test]
fn large_contents_are_told_of_once() {
    const ENTRIES: u64 = 20_000;
    let mut program = TestProgram::new(|| {
        let ledger = Function::new(|context, first: &u64| {
            let mut lines = context.table(LINES);
            (*first..first + ENTRIES / 4).for_each(|line| _ = lines.insert(line, line + 1));
            Ok(())
        });
        let functions = Functions::<u64>::new().embedded(LEDGER, ledger.table(LINES));
        functions.watched(LEDGER, LINES)
    });
    for part in 0..4 {
        program.send(LEDGER.message(part % 2, part * ENTRIES / 4));
    }
    program.run();
    program.snapshot();
    program.advance_to(9);
    program.crash();
    program.run();
    let mut lines = told(program.take_changes(LEDGER, LINES));
    lines.sort_by_key(|(_, _, line, ..)| *line);
    assert_eq!(lines.len() as u64, ENTRIES);
    for (at, (time, id, line, old, new)) in (0..).zip(lines) {
        let part = at / (ENTRIES / 4);
        let wanted = (0, Id::from(part % 2), at, None, Some(at + 1));
        assert_eq!((time, id, line, old, new), wanted);
    }
}

const OTHER: ValueSpec<u64> = ValueSpec::new("note");
const LIST: BufferSpec<u64> = BufferSpec::new("list");

#[test]
fn what_cannot_be_watched_is_an_error_that_says_why() {
    let chest = move || Function::<String, String>::new(|_, _| Ok(())).value(NOTE).buffer(LIST);
    let functions = move || Functions::<String>::new().embedded(CHEST, chest());
    let why = |functions: Functions<String>| {
        let error: Error = functions.check().unwrap_err();
        assert!(error.is_not_watchable(), "{error}");
        error.to_string()
    };
    assert!(functions().watched(CHEST, NOTE).watched(CHEST, NOTE).check().is_ok());
    let undeclared = why(functions().watched(CHEST, COINS));
    assert!(undeclared.contains("\"coins\" of function type \"house/chest\""), "{undeclared}");
    assert!(why(functions().watched(CHEST, OTHER)).contains("rust/u64"));
    let expiring = NOTE.expiring(Expiration::after_write(SECOND));
    assert!(why(functions().watched(CHEST, expiring)).contains("expir"));
    let table = TableSpec::<u64, u64>::new("list");
    assert!(why(functions().watched(CHEST, table)).contains("buffer"));
    assert!(why(functions().watched(DOOR, SHORT)).contains("no such function is bound"));
    // A bundle says itself what of it is watched.
    let bundle = functions().watched(CHEST, COINS);
    assert!(why(Functions::<String>::new().bundle(bundle)).contains("coins"));

    on_workers(1, move |worker| {
        worker.dataflow::<u64, _, _>(|scope| {
            let (_, stream) = scope.new_input::<Vec<Envelope<String>>>();
            let egresses = stream.stateful_functions(functions().watched(CHEST, NOTE)).unwrap();
            assert!(egresses.changes(CHEST, COINS).is_err_and(|error| error.is_not_watched()));
            assert!(egresses.changes(CHEST, OTHER).is_err_and(|error| error.is_not_watched()));
            // Each of these is another stream of the same.
            egresses.changes(CHEST, NOTE).unwrap();
            egresses.state(CHEST, NOTE).unwrap();
            let look_ups = LookUps::new(2);
            egresses.look_ups(CHEST, NOTE, &look_ups).unwrap();
            let again = egresses.look_ups(CHEST, NOTE, &look_ups).unwrap_err();
            assert!(again.is_look_ups_taken(), "{again}");
            assert!(look_ups.get(&Id::from(1), &()).is_err_and(|why| why.is_not_yet()));
        });
    });
}

const ACCOUNT: FunctionType<Instruction> = FunctionType::new("bank/account");
const BALANCE: ValueSpec<i64> = ValueSpec::new("balance");

#[derive(Clone, Debug, Serialize, Deserialize)]
enum Instruction {
    Transfer { to: u64, amount: i64 },
    Deposit(i64),
}

fn accounts() -> Functions<Instruction> {
    let account = Function::new(|context, order: &Instruction| {
        match order {
            Instruction::Deposit(amount) => _ = context.update(BALANCE, |sum| *sum += amount),
            Instruction::Transfer { to, amount } => {
                context.update(BALANCE, |sum| *sum -= amount);
                context.send(ACCOUNT, *to, Instruction::Deposit(*amount));
            }
        }
        Ok(())
    });
    let functions = Functions::new().embedded(ACCOUNT, account.value(BALANCE));
    functions.watched(ACCOUNT, BALANCE).order(Order::Time)
}

/// Money goes from account to account. In the order of time there is the same of it at every time that is
/// closed, and that is what other threads see, however often they look.
#[test]
fn look_ups_are_as_of_one_time_while_the_program_runs() {
    const TIMES: u64 = 150;
    for workers in [1, 2, 4] {
        let look_ups = LookUps::<(), i64>::new(workers);
        let over = Arc::new(AtomicBool::new(false));
        let looking = {
            let (look_ups, over) = (look_ups.clone(), Arc::clone(&over));
            std::thread::spawn(move || {
                let (mut scans, mut last) = (0, 0);
                while !over.load(SeqCst) {
                    let Ok(all) = look_ups.scan(|_, (), _| true) else { continue };
                    let sum = all.found.iter().map(|(_, (), balance)| balance).sum::<i64>();
                    assert_eq!(sum, 0, "as of {:?}", all.frontier);
                    let closed = all.frontier.first().copied().unwrap_or(u64::MAX);
                    assert!(last <= closed, "{closed} after {last}");
                    scans += usize::from(last < closed && !all.found.is_empty());
                    last = closed;
                }
                scans
            })
        };
        let attached = look_ups.clone();
        let expected = Arc::new(Mutex::new(vec![0; 20]));
        let balances = Arc::clone(&expected);
        on_workers(workers, move |worker| {
            let (mut input, handle) = worker.dataflow::<u64, _, _>(|scope| {
                let (input, stream) = scope.new_input::<Vec<Envelope<Instruction>>>();
                let egresses = stream.stateful_functions(accounts()).unwrap();
                egresses.look_ups(ACCOUNT, BALANCE, &attached).unwrap();
                (input, egresses.handle())
            });
            let mut random = Random(worker.index() as u64);
            for time in 0..TIMES {
                input.advance_to(time);
                for _ in 0..5 {
                    let (from, to) = (random.below(20), random.below(20));
                    let amount = random.below(100) as i64;
                    let mut balances = balances.lock().unwrap();
                    balances[from as usize] -= amount;
                    balances[to as usize] += amount;
                    input.send(ACCOUNT.message(from, Instruction::Transfer { to, amount }));
                }
                (0..random.below(5)).for_each(|_| _ = worker.step());
            }
            input.close();
            handle.run(worker).unwrap();
        });
        over.store(true, SeqCst);
        let scans = looking.join().expect("its message is above");
        println!("{scans} scans as of different times on {workers} workers");
        assert!(scans > 0, "nobody looked while it ran");
        for (id, balance) in (0u64..).zip(&*expected.lock().unwrap()) {
            let found = look_ups.get(&id.into(), &()).unwrap();
            assert!(found.found == Some(*balance) && found.frontier.is_empty(), "{id}: {found:?}");
            assert_eq!(look_ups.entries(&id.into()).unwrap().found, [((), *balance)]);
        }
        assert_eq!(look_ups.raised(), 0);
    }
}

/// Each of two workers attaches look-ups of its own: as if they were of two processes.
#[test]
fn what_lives_elsewhere_is_not_found_here() {
    let of_each = [LookUps::<(), i64>::new(1), LookUps::new(1)];
    let attached = of_each.clone();
    on_workers(2, move |worker| {
        let (mut input, handle) = worker.dataflow::<u64, _, _>(|scope| {
            let (input, stream) = scope.new_input::<Vec<Envelope<Instruction>>>();
            let egresses = stream.stateful_functions(accounts()).unwrap();
            egresses.look_ups(ACCOUNT, BALANCE, &attached[scope.index()]).unwrap();
            (input, egresses.handle())
        });
        (0..50u64).for_each(|id| input.send(ACCOUNT.message(id, Instruction::Deposit(1))));
        input.close();
        handle.run(worker).unwrap();
    });
    let mut here = [0, 0];
    for id in 0..50u64 {
        let found = of_each.each_ref().map(|look_ups| look_ups.get(&id.into(), &()));
        let [one, other] = &found;
        assert!(one.is_ok() != other.is_ok(), "{id} is in one place: {found:?}");
        for (here, found) in here.iter_mut().zip(found) {
            match found {
                Ok(found) => {
                    *here += 1;
                    assert_eq!(found.found, Some(2));
                }
                Err(why) => assert!(why.is_elsewhere(), "{why}"),
            }
        }
    }
    assert!(here.iter().all(|here| *here > 10), "{here:?}");
}

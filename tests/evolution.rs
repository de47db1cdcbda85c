//! Programs that change between two executions: states that have other types, and functions that are gone.

#[path = "support/executions.rs"]
mod executions;
#[path = "support/protocol.rs"]
mod protocol;
#[path = "support/server.rs"]
mod server;
mod support;

use executions::{Execution, Source, memory, on_request, run};
use protocol::{GREETER, GREETINGS, batch, greeter};
use server::Server;
use timely_statefun::{
    Endpoint, Function, FunctionType, Functions, OnUnbound, RestoreFrom, SnapshotStore, TypedValue,
    ValueSpec,
};

type Run<'w> = Execution<'w, TypedValue, String>;

/// Counts what it is told by name, in a type of its own.
fn counting<V: Copy + 'static>(
    seen: ValueSpec<V>,
    first: V,
    more: fn(V) -> V,
    shown: fn(V) -> String,
) -> Function<TypedValue, String> {
    let function = Function::new(move |context, text: &String| {
        let before = context.get(seen).copied().unwrap_or(first);
        context.set(seen, more(before));
        context.emit(GREETINGS, format!("{text} {}", shown(more(before))));
        Ok(())
    });
    function.value(seen)
}

const LONG: ValueSpec<i64> = ValueSpec::new("seen");
const INT: ValueSpec<i32> = ValueSpec::new("seen");
const WEIGHT: ValueSpec<f64> = ValueSpec::new("weight");

fn first() -> Functions<TypedValue> {
    let counting = counting(LONG, 0, |seen| seen + 1, |seen| seen.to_string());
    Functions::new().embedded(GREETER, counting).typed_egress(GREETINGS)
}

/// The same, by weight.
fn weighing() -> Function<TypedValue, String> {
    counting(WEIGHT, 0.0, |seen| seen + 0.5, |seen| format!("weighs {seen}"))
}

/// Each of four is told once in each execution.
fn source(executions: u64) -> Source<TypedValue> {
    let each = |time| ["a", "b", "c", "d"].map(|id| (time, GREETER.message(id, id.to_owned())));
    (1..=executions).flat_map(each).collect()
}

/// Runs one more execution, and gives what it emitted; it takes a snapshot before it is killed.
fn more(
    workers: usize,
    number: u64,
    store: &SnapshotStore,
    functions: impl Fn() -> Functions<TypedValue> + Send + Sync + 'static,
) -> Result<Vec<String>, String> {
    let script = move |run: &mut Run<'_>| {
        run.give(&source(number));
        run.settle(number + 1);
        run.cut();
        run.seen.take()
    };
    let ran = run(workers, store, &on_request(), functions, GREETINGS, script);
    let seen = ran.map_err(|error| error.to_string())?.into_iter().flatten();
    let mut seen: Vec<_> = seen.map(|(_, text)| text).collect();
    seen.sort_unstable();
    Ok(seen)
}

fn each(what: &str) -> Vec<String> {
    ["a", "b", "c", "d"].map(|id| format!("{id} {what}")).into()
}

#[test]
fn a_state_that_is_converted_goes_on_from_what_it_was_on_any_number_of_workers() {
    for workers in [[1, 2, 1, 4], [2, 1, 4, 1]] {
        let store = memory();
        assert_eq!(more(workers[0], 1, &store, first), Ok(each("1")));
        assert_eq!(more(workers[1], 2, &store, converted), Ok(each("weighs 1.5")));
        // The conversion may stay, and may go.
        assert_eq!(more(workers[2], 3, &store, converted), Ok(each("weighs 2")));
        let plain = || Functions::new().embedded(GREETER, weighing()).typed_egress(GREETINGS);
        assert_eq!(more(workers[3], 4, &store, plain), Ok(each("weighs 2.5")));
    }
}

fn converted() -> Functions<TypedValue> {
    let function = weighing().converted(LONG, WEIGHT, |seen| Ok(seen as f64));
    Functions::new().embedded(GREETER, function).typed_egress(GREETINGS)
}

/// The first snapshot after it must be a full one: a savepoint that is asked for then, and the last of a program
/// that has nothing else to do.
#[test]
fn the_first_snapshot_after_a_conversion_is_taken_as_it_was_asked_for() {
    for workers in [1, 2] {
        let store = memory();
        more(workers, 1, &store, first).unwrap();
        let script = |run: &mut Run<'_>| {
            let is_first = run.worker.index() == 0;
            let savepoint = is_first.then(|| run.snapshots.savepoint("converted").unwrap());
            run.until("the savepoint is durable", |run| match &savepoint {
                Some(savepoint) => savepoint.outcome().is_some(),
                None => run.durable() > 0,
            });
            savepoint.map(|savepoint| savepoint.outcome().map(|outcome| outcome.is_ok()))
        };
        let ran = run(workers, &store, &on_request(), converted, GREETINGS, script).unwrap();
        assert_eq!(ran[0], Some(Some(true)));
        let from = RestoreFrom::Savepoint("converted".to_owned());
        let script = |run: &mut Run<'_>| {
            let all = source(2);
            run.give(&all);
            run.settle(3);
            run.seen.take()
        };
        let plain = || Functions::new().embedded(GREETER, weighing()).typed_egress(GREETINGS);
        let policy = on_request().restore(from);
        let ran = run(1, &store, &policy, plain, GREETINGS, script).unwrap();
        let mut seen: Vec<_> = ran.into_iter().flatten().map(|(_, text)| text).collect();
        seen.sort_unstable();
        assert_eq!(seen, each("weighs 1.5"));
    }
}

#[test]
fn a_program_that_only_converts_leaves_a_snapshot_of_that_at_its_end() {
    let store = memory();
    more(2, 1, &store, first).unwrap();
    run(2, &store, &on_request(), converted, GREETINGS, |run: &mut Run<'_>| run.end().unwrap())
        .unwrap();
    let plain = || Functions::new().embedded(GREETER, weighing()).typed_egress(GREETINGS);
    assert_eq!(more(1, 2, &store, plain), Ok(each("weighs 1.5")));
}

#[test]
fn a_state_that_is_discarded_begins_again_and_stays_as_it_is_then() {
    let store = memory();
    more(2, 1, &store, first).unwrap();
    let counting = || counting(INT, 10, |seen| seen + 1, |seen| seen.to_string());
    let discarding = move || {
        let function = counting().discarded("seen", LONG.type_name());
        Functions::new().embedded(GREETER, function).typed_egress(GREETINGS)
    };
    assert_eq!(more(1, 2, &store, discarding), Ok(each("11")));
    assert_eq!(more(2, 3, &store, discarding), Ok(each("12")));
}

#[test]
fn a_value_of_a_remote_function_is_converted_to_what_it_asks_for() {
    let store = memory();
    more(1, 1, &store, first).unwrap();
    let server = Server::start(|request| greeter(&batch(&request)));
    let url = server.url();
    let functions = move || {
        let narrow = |seen| i32::try_from(seen).map_err(Into::into);
        let endpoint = Endpoint::at(&url).converted(LONG, INT, narrow);
        protocol::remote(endpoint).typed_egress(GREETINGS)
    };
    assert_eq!(more(2, 2, &store, functions), Ok(each("2")));
}

const OTHER: FunctionType<String> = FunctionType::new("example/other");

#[test]
fn a_function_that_is_gone_ends_the_restart_or_is_kept_or_left_out_as_the_program_says() {
    let without = |policy| {
        move || {
            let nothing = Function::<TypedValue, String>::new(|_, _| Ok(()));
            let nothing = Functions::new().embedded(OTHER, nothing).typed_egress(GREETINGS);
            nothing.on_unbound(policy)
        }
    };
    // Runs without the function, and then with it again.
    let run_without = |policy| {
        let store = memory();
        more(2, 1, &store, first).unwrap();
        let script = |run: &mut Run<'_>| {
            run.cut();
            run.end().unwrap();
        };
        let policy = (without(policy), on_request());
        let ran = run(1, &store, &policy.1, policy.0, GREETINGS, script);
        ran.map_err(|error| error.to_string())?;
        more(2, 2, &store, first)
    };
    assert_eq!(run_without(OnUnbound::Keep), Ok(each("2")));
    assert_eq!(run_without(OnUnbound::Discard), Ok(each("1")));
    let store = memory();
    more(2, 1, &store, first).unwrap();
    let policy = on_request().restore(RestoreFrom::Newest);
    let stopped =
        run(1, &store, &policy, without(OnUnbound::Fail), GREETINGS, |run: &mut Run<'_>| {
            let stopped = run.end().unwrap_err();
            stopped.to_string()
        });
    let stopped = stopped.unwrap().remove(0);
    assert!(stopped.contains("not bound: \"example/greeter\""), "{stopped}");
}

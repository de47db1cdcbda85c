//! Misuse is an error from the builder that says what is wrong, before a dataflow exists.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use timely::dataflow::Stream;
use timely::dataflow::operators::{Input, Inspect, Probe};
use timely_statefun::{
    Address, BufferSpec, DeadLetter, Egress, Egresses, Envelope, Error, Expiration, Function,
    FunctionType, Functions, Namespace, Reason, StatefulFunctions, TableSpec, TypeName, ValueSpec,
};

const ONE: FunctionType<u64> = FunctionType::new("misuse/one");
const MISUSE: Namespace<u64> = Namespace::new("misuse");
const OUT: Egress<String> = Egress::new("misuse/out");
const TOTAL: ValueSpec<u64> = ValueSpec::new("total");

/// A function that emits its name, and its id.
fn named(name: &'static str) -> Function<u64, u64> {
    Function::new(move |context, _: &u64| {
        context.emit(OUT, format!("{name} {}", context.id()));
        Ok(())
    })
}

/// The error of functions that must not be built. Nothing may be added to the dataflow, and all
/// ways to ask must give the same answer.
fn refused(functions: impl Fn() -> Functions<u64> + Send + Sync + 'static) -> Error {
    let checked = functions().check().expect_err("there is a mistake");
    let built = timely::execute_directly(move |worker| {
        let error = worker.dataflow::<u64, _, _>(|scope| {
            let (mut input, stream) = scope.new_input::<Vec<Envelope<u64>>>();
            let before = scope.worker().peek_identifier();
            let error = stream.stateful_functions(functions()).expect_err("there is a mistake");
            assert_eq!(scope.worker().peek_identifier(), before, "something was built");
            input.send(ONE.message(1, 1));
            error
        });
        for _ in 0..100 {
            worker.step();
        }
        assert!(!worker.has_dataflows(), "the dataflow does not complete");
        error
    });
    assert_eq!(built, checked);
    built
}

/// The one predicate that is true of an error, by its name.
fn kind(error: &Error) -> &'static str {
    let kinds = [
        ("duplicate function", error.is_duplicate_function()),
        ("duplicate egress", error.is_duplicate_egress()),
        ("duplicate state", error.is_duplicate_state()),
        ("invalid conversion", error.is_invalid_conversion()),
        ("invalid expiration", error.is_invalid_expiration()),
        ("no ingress", error.is_no_ingress()),
        ("unknown egress", error.is_unknown_egress()),
        ("egress taken", error.is_egress_taken()),
        ("egress type", error.is_egress_type()),
        ("invalid name", error.is_invalid_name()),
    ];
    let mut kinds = kinds.into_iter().filter(|(_, is)| *is);
    let kind = kinds.next().expect("every error is of a kind").0;
    assert_eq!(kinds.next(), None, "and of one only");
    kind
}

fn assert_error(error: &Error, of: &str, text: &str) {
    assert_eq!((kind(error), error.to_string().as_str()), (of, text));
}

#[test]
fn nothing_is_bound_twice() {
    let error = refused(|| Functions::new().embedded(ONE, named("a")).embedded(ONE, named("b")));
    assert_error(&error, "duplicate function", "function type \"misuse/one\" is bound twice");
    let error = refused(|| {
        let functions = Functions::new().embedded_namespace(MISUSE, named("a"));
        functions.embedded_namespace(MISUSE, named("b"))
    });
    assert_error(&error, "duplicate function", "namespace \"misuse\" is bound twice");
    let other_type: Egress<u64> = Egress::new("misuse/out");
    let error = refused(move || Functions::new().egress(OUT).egress(other_type));
    assert_error(&error, "duplicate egress", "egress \"misuse/out\" is bound twice");
}

#[test]
fn a_function_declares_a_state_once() {
    let text = "state \"total\" of function type \"misuse/one\" is declared twice";
    let other_type: ValueSpec<bool> = ValueSpec::new("total");
    let error =
        refused(move || Functions::new().embedded(ONE, named("a").value(TOTAL).value(other_type)));
    assert_error(&error, "duplicate state", text);
    let table: TableSpec<u64, u64> = TableSpec::new("total");
    let error =
        refused(move || Functions::new().embedded(ONE, named("a").value(TOTAL).table(table)));
    assert_error(&error, "duplicate state", text);
    let buffer: BufferSpec<u64> = BufferSpec::new("total");
    let error =
        refused(move || Functions::new().embedded(ONE, named("a").table(table).buffer(buffer)));
    assert_error(&error, "duplicate state", text);
    const TWO: FunctionType<u64> = FunctionType::new("misuse/two");
    let functions = Functions::<u64>::new().embedded(ONE, named("a").value(TOTAL));
    functions.embedded(TWO, named("b").value(TOTAL)).check().expect("two functions may");
}

#[test]
fn what_becomes_of_stored_state_does_not_contradict_what_is_declared() {
    let old: ValueSpec<i32> = ValueSpec::new("total");
    let other: ValueSpec<bool> = ValueSpec::new("total");
    let check = |function: fn(Function<u64, u64>) -> Function<u64, u64>, what: &str| {
        let error =
            refused(move || Functions::new().embedded(ONE, function(named("a").value(TOTAL))));
        let text = "what becomes of stored state of function type \"misuse/one\" cannot be: ";
        assert_error(&error, "invalid conversion", &format!("{text}{what}"));
    };
    check(
        |function| function.converted(TOTAL, TOTAL, Ok),
        "value \"total\" of \"rust/u64\" is converted, and is what is declared",
    );
    let text = "value \"total\" of \"io.statefun.types/int\"";
    check(
        |function| {
            let old: ValueSpec<i32> = ValueSpec::new("total");
            let convert = |old| Ok(u64::try_from(old)?);
            function.converted(old, TOTAL, convert).converted(old, TOTAL, convert)
        },
        &format!("{text} is converted twice"),
    );
    check(
        |function| {
            let old: ValueSpec<i32> = ValueSpec::new("total");
            let other: ValueSpec<bool> = ValueSpec::new("total");
            function.converted(old, other, |old| Ok(old > 0))
        },
        "value \"total\" of \"io.statefun.types/bool\" is what another is converted to, and is not declared",
    );
    check(
        |function| function.discarded("total", "rust/u64"),
        "state \"total\" of \"rust/u64\" is discarded, and needed",
    );
    let two = named("a").value(TOTAL).converted(old, other, |old| Ok(old > 0));
    let two = two.converted(other, TOTAL, |old| Ok(old.into())).discarded("total", "rust/u8");
    Functions::<u64>::new().embedded(ONE, two).check().expect("one after the other");
}

#[test]
fn state_lives_for_some_time_that_can_be_counted() {
    for (lifetime, why) in [
        (Duration::ZERO, "it is zero"),
        (Duration::MAX, "it does not fit into 64 bits of milliseconds"),
    ] {
        let text = format!("the expiration of state \"total\" means nothing: {why}");
        for expiration in
            [Expiration::after_write(lifetime), Expiration::after_read_or_write(lifetime)]
        {
            let total = TOTAL.expiring(expiration);
            let error = refused(move || Functions::new().embedded(ONE, named("a").value(total)));
            assert_error(&error, "invalid expiration", &text);
            let table = TableSpec::<u64, u64>::new("total").expiring(expiration);
            let error = refused(move || Functions::new().embedded(ONE, named("a").table(table)));
            assert_error(&error, "invalid expiration", &text);
            let buffer = BufferSpec::<u64>::new("total").expiring(expiration);
            let error = refused(move || Functions::new().embedded(ONE, named("a").buffer(buffer)));
            assert_error(&error, "invalid expiration", &text);
        }
    }
    let total = TOTAL.expiring(Expiration::after_write(Duration::from_nanos(1)));
    Functions::<u64>::new().embedded(ONE, named("a").value(total)).check().unwrap();
}

#[test]
fn of_several_mistakes_the_first_is_told() {
    let error = refused(|| {
        let functions = Functions::new().egress(OUT).egress(OUT);
        functions.embedded(ONE, named("a")).embedded(ONE, named("b"))
    });
    assert_eq!(kind(&error), "duplicate egress");
}

#[test]
fn functions_need_a_stream() {
    let none: Vec<Stream<'_, u64, Vec<Envelope<u64>>>> = Vec::new();
    let error = none.stateful_functions(Functions::new()).unwrap_err();
    let text = "there is no ingress: functions need at least one stream of messages";
    assert_error(&error, "no ingress", text);
}

#[test]
fn egresses_are_taken_once_and_as_what_they_are() {
    timely::example(|scope| {
        let (_, stream) = scope.new_input::<Vec<Envelope<u64>>>();
        let egresses = stream.stateful_functions(Functions::new().egress(OUT)).unwrap();
        let unknown: Egress<String> = Egress::new("misuse/other");
        let error = egresses.stream(unknown).unwrap_err();
        assert_error(&error, "unknown egress", "egress \"misuse/other\" is not bound");
        let wrong: Egress<u64> = Egress::new("misuse/out");
        let text = "egress \"misuse/out\" carries alloc::string::String, not u64";
        assert_error(&egresses.stream(wrong).unwrap_err(), "egress type", text);
        egresses.stream(OUT).expect("asking wrongly takes nothing");
        let text = "egress \"misuse/out\" was already taken";
        assert_error(&egresses.stream(OUT).unwrap_err(), "egress taken", text);
        egresses.dead_letters().expect("for the first time");
        let text = "egress \"timely-statefun/dead-letters\" was already taken";
        assert_error(&egresses.dead_letters().unwrap_err(), "egress taken", text);
    });
}

const FORM: &str = "it is not of the form \"namespace/name\"";
const PART: &str = "a part of it is empty";
const STAR: &str = "\"*\" stands for a whole namespace, which is bound by itself";
const ODD: &str = "it contains white space or control characters";
const EMPTY: &str = "it is empty";

/// Names of the form `namespace/name` that are none, and why.
const TWO_PARTS: [(&str, &str); 9] = [
    ("", FORM),
    ("one", FORM),
    ("/", PART),
    ("/one", PART),
    ("misuse/", PART),
    ("misuse/*", STAR),
    ("mis use/one", ODD),
    ("misuse/one\n", ODD),
    ("misuse/\0", ODD),
];

/// Names of one part that are none, and why.
const ONE_PART: [(&str, &str); 5] =
    [("", EMPTY), ("*", STAR), ("my total", ODD), ("total\t", ODD), ("\u{7f}", ODD)];

#[test]
fn names_are_checked_where_they_are_bound() {
    let assert_invalid = |error: Error, what: &str, name: &str, why: &str| {
        let text = format!("{what} \"{name}\" is not a valid name: {why}");
        assert_error(&error, "invalid name", &text);
    };
    for (name, why) in TWO_PARTS {
        let function: FunctionType<u64> = FunctionType::new(name);
        let error = refused(move || Functions::new().embedded(function, named("a")));
        assert_invalid(error, "function type", name, why);
        let egress: Egress<u64> = Egress::new(name);
        assert_invalid(refused(move || Functions::new().egress(egress)), "egress", name, why);
        let typed: ValueSpec<u64> = ValueSpec::typed("total", name);
        let error = refused(move || Functions::new().embedded(ONE, named("a").value(typed)));
        assert_invalid(error, "state type", name, why);
        let table: TableSpec<u64, u64> = TableSpec::typed("total", name, "misuse/value");
        let error = refused(move || Functions::new().embedded(ONE, named("a").table(table)));
        assert_invalid(error, "key type", name, why);
        let table: TableSpec<u64, u64> = TableSpec::typed("total", "misuse/key", name);
        let error = refused(move || Functions::new().embedded(ONE, named("a").table(table)));
        assert_invalid(error, "state type", name, why);
        let buffer: BufferSpec<u64> = BufferSpec::typed("total", name);
        let error = refused(move || Functions::new().embedded(ONE, named("a").buffer(buffer)));
        assert_invalid(error, "state type", name, why);
        assert_invalid(TypeName::new(name).unwrap_err(), "type name", name, why);
    }
    for (name, why) in ONE_PART {
        let namespace: Namespace<u64> = Namespace::new(name);
        let error = refused(move || Functions::new().embedded_namespace(namespace, named("a")));
        assert_invalid(error, "namespace", name, why);
        let state: ValueSpec<u64> = ValueSpec::new(name);
        let error = refused(move || Functions::new().embedded(ONE, named("a").value(state)));
        assert_invalid(error, "state", name, why);
        let table: TableSpec<u64, u64> = TableSpec::new(name);
        let error = refused(move || Functions::new().embedded(ONE, named("a").table(table)));
        assert_invalid(error, "state", name, why);
        let buffer: BufferSpec<u64> = BufferSpec::new(name);
        let error = refused(move || Functions::new().embedded(ONE, named("a").buffer(buffer)));
        assert_invalid(error, "state", name, why);
        assert_invalid(MISUSE.at(name, 1).unwrap_err(), "function name", name, why);
    }
}

/// The address of a namespace belongs to it, or is refused.
#[test]
fn a_namespace_gives_addresses_of_its_own() {
    for function in ["one", "one/two", "/one", "one/"] {
        if let Ok(address) = MISUSE.at(function, 1) {
            assert_eq!(address.function_type.namespace(), "misuse", "of {function:?}");
            TypeName::new(address.function_type.as_str()).expect("it is a name");
        }
    }
}

type Letters = Rc<RefCell<Vec<DeadLetter<u64>>>>;

/// What functions emit, sorted, and their dead letters.
fn run(
    functions: impl Fn() -> Functions<u64> + Send + Sync + 'static,
    messages: Vec<Envelope<u64>>,
) -> (Vec<String>, Vec<DeadLetter<u64>>) {
    timely::execute_directly(move |worker| {
        let (out, letters) = (Rc::<RefCell<Vec<String>>>::default(), Letters::default());
        let (emitted, given_up) = (Rc::clone(&out), Rc::clone(&letters));
        let (mut input, handle) = worker.dataflow::<u64, _, _>(|scope| {
            let (input, stream) = scope.new_input::<Vec<Envelope<u64>>>();
            let egresses: Egresses<'_, _, _> = stream.stateful_functions(functions()).unwrap();
            let out = egresses.stream(OUT).unwrap();
            out.inspect(move |text| emitted.borrow_mut().push(text.clone())).probe();
            let letters = egresses.dead_letters().unwrap();
            letters.inspect(move |letter| given_up.borrow_mut().push(letter.clone()));
            (input, egresses.handle())
        });
        messages.into_iter().for_each(|message| input.send(message));
        input.close();
        handle.run(worker).unwrap();
        let mut out = out.take();
        out.sort();
        (out, letters.take())
    })
}

#[test]
fn a_function_bound_by_itself_comes_before_its_namespace() {
    let messages = || {
        let other = MISUSE.message("other", 2, 1).unwrap();
        vec![ONE.message(1, 1), other, MISUSE.message("one", 3, 1).unwrap()]
    };
    let exact_first = || {
        let functions = Functions::new().egress(OUT).embedded(ONE, named("exact"));
        functions.embedded_namespace(MISUSE, named("namespace"))
    };
    let exact_last = || {
        let functions = Functions::new().egress(OUT);
        functions.embedded_namespace(MISUSE, named("namespace")).embedded(ONE, named("exact"))
    };
    let expected = (["exact 1", "exact 3", "namespace 2"].map(str::to_owned).to_vec(), vec![]);
    assert_eq!(run(exact_first, messages()), expected);
    assert_eq!(run(exact_last, messages()), expected);
}

#[test]
fn a_message_to_nobody_is_a_dead_letter() {
    const NOBODY: FunctionType<u64> = FunctionType::new("nobody/here");
    let functions = || {
        let calling = Function::new(|context, amount: &u64| {
            context.send(NOBODY, 5, *amount);
            Ok(())
        });
        Functions::new().egress(OUT).embedded(ONE, calling)
    };
    let (out, letters) = run(functions, vec![NOBODY.message("x", 7), ONE.message("y", 8)]);
    assert!(out.is_empty());
    let letter = |target: Address, caller, message| DeadLetter {
        target,
        caller,
        message,
        reason: Reason::NotBound,
        attempts: 0,
    };
    let from_ingress = letter(NOBODY.at("x"), None, 7);
    assert_eq!(letters, [from_ingress, letter(NOBODY.at(5), Some(ONE.at("y")), 8)]);
}

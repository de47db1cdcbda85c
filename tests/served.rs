//! Functions that others call: what a request finds, what an answer tells, and what is refused.

#[path = "support/asking.rs"]
mod asking;

use std::time::Duration;

use asking::{Asking, address, ask, ask_bytes, emitted, missing, mutations, refused, serve, value};
use timely_statefun::serve::{Refusal, ServedFunctions};
use timely_statefun::{
    BufferSpec, Context, Egress, Endpoint, Expiration, Function, FunctionResult, FunctionType,
    Functions, Namespace, TableSpec, TypedValue, ValueSpec,
};
use timely_statefun_proto::Message;
use timely_statefun_proto::reqreply::from_function::expiration_spec::ExpireMode;
use timely_statefun_proto::reqreply::from_function::{DelayedInvocation, InvocationResponse};
use timely_statefun_proto::reqreply::to_function::Request;
use timely_statefun_proto::reqreply::{self, ToFunction};

const ACTIONS: FunctionType<TypedValue> = FunctionType::new("test/actions");
const PLAIN: Namespace<TypedValue> = Namespace::new("plain");
const A: ValueSpec<i32> = ValueSpec::new("a");
const B: ValueSpec<u64> = ValueSpec::new("b");
const LIVES_ON: Expiration = Expiration::after_read_or_write(Duration::from_secs(7));
const C: ValueSpec<String> = ValueSpec::new("c").expiring(LIVES_ON);
const TEXTS: Egress<String> = Egress::new("test.io/texts");
const NUMBERS: Egress<i64> = Egress::new("test.io/numbers");

fn text(text: &str) -> TypedValue {
    TypedValue::of(&text.to_owned())
}

/// What a message says is done, word by word.
fn act(context: &mut Context<'_, TypedValue>, program: &TypedValue) -> FunctionResult {
    let program: String = program.read()?;
    for action in program.split(' ').filter(|action| !action.is_empty()) {
        let (action, with) = action.split_once('=').unwrap_or((action, ""));
        match action {
            "a" => context.set(A, with.parse()?),
            "b" => context.set(B, with.parse()?),
            "c" => context.set(C, with.to_owned()),
            "drop" => {
                context.clear(A);
                context.clear(C);
            }
            "look" => {
                let (a, b) = (context.get(A).copied(), context.get(B).copied());
                let c = context.get(C).cloned();
                context.emit(TEXTS, format!("{a:?} {b:?} {c:?}"));
            }
            "emit" => match with.parse() {
                Ok(number) => context.emit(NUMBERS, number),
                Err(_) => context.emit(TEXTS, with.to_owned()),
            },
            "send" => context.send(ACTIONS, "other", text(with)),
            "reply" => context.reply(with.to_owned())?,
            "after" => context.send_after(Duration::from_micros(1500), ACTIONS, with, text("late")),
            "token" => {
                let day = Duration::from_secs(86_400);
                context.send_after_unless_cancelled(with, day, ACTIONS, 7, text("late"))?;
            }
            "cancel" => _ = context.cancel(with),
            "who" => {
                let told = format!("{} {:?}", context.address(), context.caller());
                context.emit(TEXTS, told);
            }
            "fail" => return Err(with.into()),
            "panic" => panic!("{with}"),
            other => return Err(format!("{other}?").into()),
        }
    }
    Ok(())
}

fn functions() -> Functions<TypedValue> {
    let actions = Function::new(act).value(A).value(B).value(C);
    let plain = Function::new(act);
    let functions = Functions::new().embedded(ACTIONS, actions).embedded_namespace(PLAIN, plain);
    functions.typed_egress(TEXTS).typed_egress(NUMBERS)
}

const STATES: [&str; 3] = ["a", "b", "c"];

fn asking(programs: &[&str]) -> Asking {
    let asking = Asking::of("test/actions/me").with_unset(STATES);
    programs.iter().fold(asking, |asking, program| asking.text(program))
}

#[test]
fn what_is_declared_and_does_not_come_is_asked_for_and_nothing_runs() {
    let served = serve(functions);
    let asking = Asking::of("test/actions/me").with("b", None).text("fail=ran");
    let missing = missing(&served, &asking);
    let told: Vec<_> =
        missing.iter().map(|spec| (&*spec.state_name, &*spec.type_typename)).collect();
    assert_eq!(told, [("a", "io.statefun.types/int"), ("c", "io.statefun.types/string")]);
    assert_eq!(missing[0].expiration_spec, None);
    let expiration = missing[1].expiration_spec.as_ref().unwrap();
    assert_eq!(expiration.mode(), ExpireMode::AfterInvoke);
    assert_eq!(expiration.expire_after_millis, 7000);
}

#[test]
fn a_batch_finds_what_came_with_it_and_what_it_wrote_itself() {
    let served = serve(functions);
    let asking = Asking::of("test/actions/me")
        .with("a", Some(TypedValue::of(&5)))
        .with("unknown", Some(text("whatever")))
        .with("c", Some(text("see")))
        .with("b", None)
        .text("look a=6")
        .text("look b=1 b=2");
    let result = ask(&served, &asking);
    let look = |shown: &str| ("test.io/texts".to_owned(), text(shown));
    let looks = [look("Some(5) None Some(\"see\")"), look("Some(6) None Some(\"see\")")];
    assert_eq!(emitted(&result), looks);
    let two = TypedValue::new("rust/u64", vec![2]).unwrap();
    let written = [("a".to_owned(), Some(TypedValue::of(&6))), ("b".to_owned(), Some(two))];
    assert_eq!(mutations(&result), written);
}

#[test]
fn what_is_only_read_is_not_told_and_what_is_set_or_dropped_is_whatever_it_was() {
    let served = serve(functions);
    let five = || Some(TypedValue::of(&5));
    let come = Asking::of("test/actions/me").with("a", five()).with_unset(["b", "c"]);
    let told = |program: &str| mutations(&ask(&served, &come.clone().text(program)));
    let a = |kept| ("a".to_owned(), kept);
    let gone = ("c".to_owned(), None);
    assert_eq!(told("look"), []);
    assert_eq!(told("a=5"), [a(five())]);
    assert_eq!(told("a=0"), [a(Some(TypedValue::of(&0)))]);
    assert_eq!(told("drop"), [a(None), gone.clone()]);
    assert_eq!(told("a=1 drop"), [a(None), gone.clone()]);
    assert_eq!(told("drop a=5 c=x"), [a(five()), ("c".to_owned(), Some(text("x")))]);
}

#[test]
fn effects_are_told_in_the_order_in_which_they_happened() {
    let served = serve(functions);
    let asking = asking(&["emit=1 emit=x send=p", "after=9 token=t cancel=u emit=2"])
        .message_from("some/where/id 1", text("reply=hello cancel=t token=t"));
    let result = ask(&served, &asking);
    let number = |number: i64| ("test.io/numbers".to_owned(), TypedValue::of(&number));
    let letter = ("test.io/texts".to_owned(), text("x"));
    assert_eq!(emitted(&result), [number(1), letter, number(2)]);
    let sent = |target: &str, what: &str| {
        let (target, argument) = (Some(address(target)), Some(value(text(what))));
        reqreply::from_function::Invocation { target, argument }
    };
    let expected = [sent("test/actions/other", "p"), sent("some/where/id 1", "hello")];
    assert_eq!(result.outgoing_messages, expected);
    let late = |delay_in_ms: i64, token: &str, target: &str| DelayedInvocation {
        delay_in_ms,
        target: Some(address(target)),
        argument: Some(value(text("late"))),
        cancellation_token: token.to_owned(),
        is_cancellation_request: false,
    };
    let cancel = |token: &str| DelayedInvocation {
        is_cancellation_request: true,
        cancellation_token: token.to_owned(),
        ..DelayedInvocation::default()
    };
    let token = late(86_400_000, "t", "test/actions/7");
    let first = late(2, "", "test/actions/9");
    assert_eq!(result.delayed_invocations, [first, token.clone(), cancel("u"), cancel("t"), token]);
}

#[test]
fn a_batch_of_which_one_message_fails_does_nothing() {
    let served = serve(functions);
    for (program, why) in [
        ("a=2 fail=boom", "the function failed: boom"),
        ("send=x panic=bang", "the function panicked: bang"),
        ("token=t token=t", "the function failed: a delayed message waits with the token \"t\""),
        ("cancel=", "the function failed: an empty token means none to whoever calls"),
        ("reply=x", "nobody sent this message"),
    ] {
        let refusal = refused(&served, &asking(&["a=1 emit=1", program, "b=1"]));
        let Refusal::Failed(told) = &refusal else { panic!("{refusal:?}") };
        assert!(told.contains(why), "{program}: {told}");
    }
    let other = asking(&["look"]).message(TypedValue::of(&true));
    let Refusal::Failed(told) = refused(&served, &other) else { panic!("it is no string") };
    assert_eq!(
        told,
        "the function failed: io.statefun.types/bool where io.statefun.types/string is wanted"
    );
}

#[test]
fn nothing_of_a_request_is_there_for_the_next_whatever_became_of_it() {
    let served = serve(functions);
    let look = asking(&["look"]);
    let fresh = ask(&served, &look);
    assert_eq!(emitted(&fresh), [("test.io/texts".to_owned(), text("None None None"))]);
    let all = "a=1 b=2 c=3 emit=1 emit=x send=p after=1 token=t cancel=u";
    for end in ["", " fail=x", " panic=x", " cancel=", " drop", " emit"] {
        let before = asking(&[&format!("{all}{end}"), &all.replace("=t", "=s")]);
        let outcome = ask_bytes(&served, before.bytes());
        assert_eq!(outcome.is_err(), [" fail=x", " panic=x", " cancel="].contains(&end), "{end}");
        let came = Asking::of("test/actions/me")
            .with("a", Some(TypedValue::of(&9)))
            .with("b", Some(text("no number")))
            .with("c", None)
            .text("look");
        assert!(matches!(refused(&served, &came), Refusal::Failed(_)));
        assert_eq!(ask(&served, &look), fresh, "after {all}{end}");
        let token = ask(&served, &asking(&["token=t"]));
        assert_eq!(token.delayed_invocations.len(), 1);
    }
}

#[test]
fn a_function_of_a_namespace_answers_for_each_of_its_types() {
    let served = serve(functions);
    let who = |target: &str| {
        let result = ask(&served, &Asking::of(target).message_from("x/y/z/1", text("who")));
        emitted(&result)[0].1.read::<String>().unwrap()
    };
    let address = |function: &str| PLAIN.at(function, "ä ö").unwrap();
    let caller = PLAIN.at("y", "z/1").unwrap().to_string().replace("plain", "x");
    for function in ["one", "two"] {
        let told = who(&format!("plain/{function}/ä ö"));
        assert!(told.starts_with(&format!("{} Some(", address(function))), "{told}");
        assert!(told.contains(&*caller) || told.contains("z/1"), "{told}");
    }
}

#[test]
fn state_of_another_type_or_that_cannot_be_read_is_refused() {
    let served = serve(functions);
    let come = |kept| {
        let asking = Asking::of("test/actions/me").with("a", Some(kept));
        match refused(&served, &asking.with_unset(["b", "c"]).text("look")) {
            Refusal::Failed(why) => why,
            other => panic!("{other}"),
        }
    };
    assert_eq!(
        come(text("x")),
        "state \"a\" came as \"io.statefun.types/string\" and is \"io.statefun.types/int\""
    );
    let none = TypedValue::new("io.statefun.types/int", vec![0x0d, 1]).unwrap();
    let why = come(none);
    let begin = "state \"a\" came as bytes that are no \"io.statefun.types/int\": ";
    assert!(why.starts_with(begin), "{why}");
}

#[test]
fn what_means_nothing_is_malformed_and_what_is_not_here_is_unknown() {
    let served = serve(functions);
    let malformed = |request: Vec<u8>, why: &str| match ask_bytes(&served, request) {
        Err(Refusal::Malformed(told)) => assert!(told.contains(why), "{told}"),
        other => panic!("{why}: {other:?}"),
    };
    let good = asking(&["look"]);
    malformed(Vec::new(), "it asks nothing");
    malformed(vec![0xff; 4], "it is malformed");
    let bytes = good.bytes();
    for end in 1..bytes.len() {
        assert!(matches!(ask_bytes(&served, bytes[..end].to_vec()), Err(Refusal::Malformed(_))));
    }
    let change = |change: &dyn Fn(&mut Asking)| {
        let mut changed = good.clone();
        change(&mut changed);
        changed.bytes()
    };
    malformed(change(&|asking| asking.0.target = None), "no target");
    let to = |to: &'static str| change(&|asking| asking.0.target = Some(address(to)));
    malformed(to("test/actions/"), "its target has no id");
    malformed(to("/actions/me"), "its target is none");
    malformed(to("test//me"), "its target is none");
    malformed(to("te st/actions/me"), "its target is none");
    let message = |change_it: &dyn Fn(&mut reqreply::to_function::Invocation)| {
        change(&|asking| change_it(&mut asking.0.invocations[0]))
    };
    malformed(message(&|message| message.argument = None), "a message has no value");
    let argument = |change: &dyn Fn(&mut reqreply::TypedValue)| {
        message(&|message| change(message.argument.as_mut().unwrap()))
    };
    malformed(argument(&|argument| argument.has_value = false), "a message has no value");
    malformed(argument(&|argument| argument.typename.clear()), "type name of a message is empty");
    for partial in ["a//", "/b/", "//c", "a/b/", "/b/c", "a//c"] {
        malformed(message(&|message| message.caller = Some(address(partial))), "a caller");
    }
    let nobody = message(&|message| message.caller = Some(address("//")));
    assert!(ask_bytes(&served, nobody).is_ok());
    malformed(change(&|asking| asking.0.state.push(asking.0.state[0].clone())), "comes twice");
    for unknown in ["test/other/1", "other/actions/1"] {
        let refusal = refused(&served, &Asking::of(unknown).text("look"));
        let name = unknown.rsplit_once('/').unwrap().0;
        assert_eq!(refusal, Refusal::Unknown(name.to_owned()));
    }
}

#[test]
fn unknown_fields_are_passed_over_and_a_batch_may_come_in_pieces() {
    let served = serve(functions);
    let whole = asking(&["a=1", "look"]);
    let expected = ask_bytes(&served, whole.bytes()).unwrap();
    let (mut first, mut second) = (Asking::default(), whole.clone());
    first.0.state = second.0.state.split_off(1);
    first.0.target = second.0.target.take();
    first.0.invocations.push(second.0.invocations.remove(0));
    let unknown = [0xc2, 0x0c, 3, 1, 2, 3];
    let pieces = [&unknown[..], &first.bytes(), &second.bytes(), &unknown].concat();
    let request = ToFunction::decode(&pieces[..]).unwrap().request.unwrap();
    let Request::Invocation(batch) = request;
    assert_eq!(batch.invocations, whole.0.invocations);
    assert_eq!(ask_bytes(&served, pieces), Ok(expected));
}

#[test]
fn a_request_without_messages_does_nothing() {
    let served = serve(functions);
    assert_eq!(ask(&served, &asking(&[])), InvocationResponse::default());
}

#[test]
fn a_request_that_lists_too_much_is_malformed_and_takes_no_memory() {
    let served = serve(functions);
    let request = [&[0xa2, 0x06, 0xc2, 0x9a, 0x0c][..], &[0x1a, 0].repeat(100_001)].concat();
    let Err(Refusal::Malformed(why)) = ask_bytes(&served, request) else { panic!("it is") };
    assert_eq!(why, "it lists 100001 messages and states (listed_max: 100000)");
}

#[test]
fn what_cannot_be_served_is_an_error_when_it_is_built() {
    let told = |functions: fn() -> Functions<TypedValue>| {
        let error = ServedFunctions::new(functions).unwrap_err();
        assert!(error.is_not_served(), "{error}");
        error.to_string()
    };
    assert_eq!(
        told(|| functions().egress(Egress::<u64>::new("test.io/own"))),
        "egress \"test.io/own\" cannot be served: it is not bound as a typed egress"
    );
    assert_eq!(
        told(|| {
            let other = FunctionType::<TypedValue>::new("test/other");
            functions().remote(other, Endpoint::at("http://localhost:1/"))
        }),
        "function \"test/other\" cannot be served: it is served elsewhere"
    );
    const DAY: Expiration = Expiration::after_write(Duration::from_secs(86_400));
    assert_eq!(
        told(|| {
            let table = TableSpec::<u64, u64>::new("seen").expiring(DAY);
            let other = Function::new(act).table(table);
            functions().embedded(FunctionType::new("test/other"), other)
        }),
        "function \"test/other\" cannot be served: pieces of table \"seen\" expire by \
         themselves, and it travels as one value"
    );
    assert!(
        told(|| {
            let buffer = BufferSpec::<u64>::new("seen").expiring(DAY);
            functions().embedded_namespace(Namespace::new("n"), Function::new(act).buffer(buffer))
        })
        .contains("pieces of buffer \"seen\"")
    );
    let twice = ServedFunctions::new(|| functions().embedded(ACTIONS, Function::new(act)));
    assert!(twice.unwrap_err().is_duplicate_function());
}

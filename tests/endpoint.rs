//! What a program does with the answers of remote functions, which a test gives by hand.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use timely_statefun::testing::{TestEndpoint, TestProgram, TestRequest};
use timely_statefun::{
    Egress, Endpoint, Envelope, FunctionType, Functions, Limits, OnFailure, Order, TypedValue,
};
use timely_statefun_proto::reqreply::from_function::{
    EgressMessage, IncompleteInvocationContext, InvocationResponse, PersistedValueMutation,
    PersistedValueSpec, Response,
};
use timely_statefun_proto::reqreply::{self, FromFunction, ToFunction, to_function};

const GREETER: FunctionType<String> = FunctionType::new("example/greeter");
const GREETINGS: Egress<String> = Egress::new("example/greetings");
const SECOND: Duration = Duration::from_secs(1);

/// A call has ten seconds, and is tried again after at most one.
fn greeters() -> Endpoint {
    let endpoint = Endpoint::at("http://greeters.example/{function.name}");
    let endpoint = endpoint.call_timeout(10 * SECOND).retry_longest(SECOND);
    endpoint.on_failure(OnFailure::DeadLetter)
}

fn program(endpoint: impl Fn() -> Endpoint + 'static) -> (TestProgram<TypedValue>, TestEndpoint) {
    let mut program = TestProgram::new(move || {
        Functions::<TypedValue>::new().remote(GREETER, endpoint()).typed_egress(GREETINGS)
    });
    let endpoint = program.endpoint();
    (program, endpoint)
}

fn greet(id: &str, name: &str) -> Envelope<TypedValue> {
    GREETER.message(id, name.to_owned())
}

fn seen_is_missing() -> FromFunction {
    let seen = PersistedValueSpec {
        state_name: "seen".to_owned(),
        expiration_spec: None,
        type_typename: "io.statefun.types/int".to_owned(),
    };
    let missing = IncompleteInvocationContext { missing_values: vec![seen] };
    FromFunction { response: Some(Response::IncompleteInvocationContext(missing)) }
}

fn greeted(names: &[String], mut seen: i32) -> FromFunction {
    let mut result = InvocationResponse::default();
    for name in names {
        seen += 1;
        result.outgoing_egresses.push(EgressMessage {
            egress_namespace: "example".to_owned(),
            egress_type: "greetings".to_owned(),
            argument: Some(reqreply::TypedValue::of(&format!("{name} {seen}"))),
        });
    }
    result.state_mutations = vec![PersistedValueMutation {
        mutation_type: 1,
        state_name: "seen".to_owned(),
        state_value: Some(reqreply::TypedValue::of(&seen)),
    }];
    FromFunction { response: Some(Response::InvocationResult(result)) }
}

/// The same without state, which nobody has to have asked for.
fn greeted_once(name: &str) -> FromFunction {
    let mut answer = greeted(&[name.to_owned()], 0);
    if let Some(Response::InvocationResult(result)) = &mut answer.response {
        result.state_mutations.clear();
    }
    answer
}

fn greet_by_hand(request: TestRequest) {
    let names = request.arguments::<String>();
    let seen = request.state::<i32>("seen").expect("it is known").unwrap_or(0);
    request.answer(greeted(&names, seen));
}

/// What a greeter answers that knows its protocol.
fn greeter(message: &ToFunction) -> FromFunction {
    let Some(to_function::Request::Invocation(batch)) = &message.request else { panic!("a batch") };
    let Some(seen) = batch.state.first() else { return seen_is_missing() };
    let read = |value: &reqreply::TypedValue| value.typed().unwrap().read().unwrap();
    let seen = seen.state_value.as_ref().map_or(0, read);
    let names = batch.invocations.iter().map(|invocation| {
        invocation.argument.as_ref().unwrap().typed().unwrap().read::<String>().unwrap()
    });
    greeted(&names.collect::<Vec<_>>(), seen)
}

fn greetings<const N: usize>(all: [&str; N]) -> Vec<(u64, String)> {
    all.into_iter().map(|text| (0, text.to_owned())).collect()
}

#[test]
fn a_request_is_answered_by_hand_and_its_state_comes_back_with_the_next() {
    let (mut program, endpoint) = program(greeters);
    assert!(endpoint.take_request().is_none());
    program.send(greet("ann", "Ann"));
    program.send(greet("bob", "Bob"));
    program.run();
    assert_eq!(endpoint.open(), 2);
    let (ann, bob) = (endpoint.expect_request(), endpoint.expect_request());
    assert_eq!(endpoint.open(), 2, "they are taken, and not answered");
    assert_eq!(ann.url(), "http://greeters.example/greeter");
    assert_eq!(bob.target(), GREETER.at("bob"));
    assert_eq!(ann.state::<i32>("seen"), None, "nobody has said that there is such a state");
    ann.answer(seen_is_missing());
    bob.answer(seen_is_missing());
    program.run();
    let ann = endpoint.expect_request_to(&GREETER.at("ann"));
    assert_eq!(ann.state::<i32>("seen"), Some(None));
    // What comes meanwhile waits, and goes together.
    program.send(greet("ann", "Anna"));
    program.send(greet("ann", "Annie"));
    program.run();
    assert_eq!(ann.arguments::<String>(), ["Ann"]);
    greet_by_hand(ann);
    program.run();
    assert_eq!(program.take(GREETINGS), greetings(["Ann 1"]));
    let ann = endpoint.expect_request_to(&GREETER.at("ann"));
    assert_eq!(ann.arguments::<String>(), ["Anna", "Annie"]);
    assert_eq!(ann.state::<i32>("seen"), Some(Some(1)));
    greet_by_hand(ann);
    program.run();
    assert_eq!(program.take(GREETINGS), greetings(["Anna 2", "Annie 3"]));
    program.close();
    program.run();
    assert_eq!(program.frontier(), [0], "Bob is not greeted yet");
    greet_by_hand(endpoint.expect_request());
    program.run();
    assert_eq!(program.take(GREETINGS), greetings(["Bob 1"]));
    assert_eq!((program.frontier(), endpoint.open()), (vec![], 0));
}

/// Each kind of failure that may pass: the next attempt comes when its time has come, and not before.
#[test]
fn what_fails_is_tried_again_when_the_clock_says_so() {
    let failures: [fn(TestRequest); 4] = [
        |request| request.answer_with(500, &[("content-type", "text/plain")], "it is broken"),
        TestRequest::refuse,
        TestRequest::lose,
        drop,
    ];
    for (at, fail) in failures.into_iter().enumerate() {
        let (mut program, endpoint) = program(greeters);
        program.send(greet("ann", "Ann"));
        program.run();
        fail(endpoint.expect_request());
        program.run();
        assert_eq!((endpoint.open(), endpoint.requests()), (0, 1), "{at}");
        program.tick(2 * SECOND);
        assert_eq!((endpoint.open(), endpoint.requests()), (1, 2), "{at}");
        endpoint.expect_request().answer(greeted_once("Ann"));
        program.run();
        assert_eq!(program.take(GREETINGS), greetings(["Ann 1"]), "{at}");
    }
}

#[test]
fn a_request_that_is_left_open_is_given_up_when_its_time_is_over() {
    let (mut program, endpoint) = program(greeters);
    program.send(greet("ann", "Ann"));
    program.run();
    let request = endpoint.expect_request();
    program.tick(10 * SECOND - Duration::from_millis(1));
    assert!(request.is_open() && program.take_dead_letters().is_empty());
    program.tick(Duration::from_millis(1));
    assert!(!request.is_open());
    let letters = program.take_dead_letters();
    let [(0, letter)] = &letters[..] else { panic!("{letters:?}") };
    assert!(letter.reason.to_string().contains("no answer in time"), "{}", letter.reason);
    assert_eq!(endpoint.requests(), 1);
    // It is too late for this.
    request.answer(greeted_once("Ann"));
    program.run();
    assert_eq!(program.take(GREETINGS), []);
}

/// The clock stops where the first has no more time, which is when the second begins.
#[test]
fn a_call_that_begins_when_another_ends_has_its_own_time() {
    let (mut program, endpoint) = program(greeters);
    program.send(greet("ann", "Ann"));
    program.run();
    program.send(greet("ann", "Anna"));
    program.run();
    program.tick(20 * SECOND - Duration::from_millis(1));
    assert_eq!((program.take_dead_letters().len(), endpoint.requests()), (1, 2));
    program.tick(Duration::from_millis(1));
    assert_eq!((program.take_dead_letters().len(), endpoint.requests()), (1, 2));
    assert_eq!(program.now_ms(), 20_000);
}

#[test]
fn attempts_go_on_until_the_time_of_the_call_is_over() {
    let (mut program, endpoint) = program(greeters);
    program.send(greet("ann", "Ann"));
    program.run();
    while let Some(request) = endpoint.take_request() {
        request.lose();
        program.tick(SECOND);
    }
    let letters = program.take_dead_letters();
    let [(0, letter)] = &letters[..] else { panic!("{letters:?}") };
    let attempts = endpoint.requests();
    assert!(attempts > 5, "{attempts}");
    let said = format!("(attempts: {attempts})");
    assert!(letter.reason.to_string().contains(&said), "{said}: {}", letter.reason);
    assert!(program.now_ms() <= 11_000, "{}", program.now_ms());
}

#[test]
fn an_answer_that_means_nothing_is_a_dead_letter_or_a_stop_as_the_policy_says() {
    for policy in [OnFailure::DeadLetter, OnFailure::Stop] {
        let (mut program, endpoint) = program(move || greeters().on_failure(policy));
        program.send(greet("ann", "Ann"));
        program.run();
        let octets = [("content-type", "application/octet-stream")];
        endpoint.expect_request().answer_with(200, &octets, &b"\xff\xff nonsense"[..]);
        let stopped = program.try_run();
        assert_eq!(stopped.is_err(), policy == OnFailure::Stop, "{stopped:?}");
        let why = match stopped {
            Err(stopped) => stopped.to_string(),
            Ok(()) => program.take_dead_letters()[0].1.reason.to_string(),
        };
        assert!(why.contains("malformed"), "{why}");
    }
}

#[test]
fn a_program_is_served_by_a_function_and_its_state_survives_a_crash() {
    let (mut program, endpoint) = program(greeters);
    endpoint.serve(greeter);
    for _ in 0..3 {
        program.send(greet("ann", "Ann"));
        program.run();
    }
    assert_eq!(program.take(GREETINGS), greetings(["Ann 1", "Ann 2", "Ann 3"]));
    program.snapshot();
    program.send(greet("ann", "Ann"));
    endpoint.stop_serving();
    program.run();
    let before = endpoint.expect_request();
    assert!(before.is_open());
    assert_eq!(program.crash(), Some(1));
    assert!(!before.is_open(), "who asked is gone");
    program.run();
    // It asks anew, and whoever answers says anew which state it wants: that of the snapshot.
    let after = endpoint.expect_request();
    assert_eq!(
        (after.arguments::<String>(), after.state::<i32>("seen")),
        (vec!["Ann".into()], None)
    );
    after.answer(seen_is_missing());
    before.answer(greeted_once("nobody"));
    program.run();
    greet_by_hand(endpoint.expect_request());
    program.run();
    assert_eq!(program.take(GREETINGS), greetings(["Ann 4"]));
}

/// A call that is under way is in a snapshot as one to make again.
#[test]
fn a_snapshot_does_not_wait_for_an_open_request() {
    let (mut program, endpoint) = program(greeters);
    program.send(greet("ann", "Ann"));
    program.run();
    let before = endpoint.expect_request();
    assert_eq!(program.snapshot().counts.in_flight, 1);
    assert!(before.is_open());
    program.crash();
    program.run();
    let after = endpoint.expect_request();
    assert_eq!(after.body(), before.body());
    after.answer(greeted_once("Ann"));
    program.run();
    assert_eq!(program.take(GREETINGS), greetings(["Ann 1"]));
}

/// Time is the system's there, and requests are waited for until they are open.
#[test]
#[should_panic(expected = "what serves requests panicked: nobody is called Bob")]
fn what_serves_requests_and_panics_is_said() {
    let (mut program, endpoint) = program(greeters);
    endpoint.serve(|_| panic!("nobody is called Bob"));
    program.send(greet("a", "Bob"));
    program.run();
}

/// What waited with a message for the same call, or behind it, kept the answer from being handled: that is a stage
/// later than what it waited for.
#[test]
fn in_the_order_of_time_what_comes_together_is_called_for_together() {
    for most in [1, 2, 100] {
        let mut program = TestProgram::new(move || {
            let limits = Limits { budget_messages: 1, ..Limits::default() };
            let endpoint = greeters().batch_messages_max(most);
            let functions = Functions::<TypedValue>::new().remote(GREETER, endpoint);
            functions.typed_egress(GREETINGS).order(Order::Time).limits(limits)
        });
        let batches = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&batches);
        program.endpoint().serve(move |message| {
            if let Some(to_function::Request::Invocation(batch)) = &message.request
                && !batch.state.is_empty()
            {
                seen.lock().unwrap().push(batch.invocations.len());
            }
            greeter(message)
        });
        for name in ["Ada", "Bob", "Cai", "Dan", "Eva"] {
            program.send(greet("a", name));
        }
        program.advance_to(1);
        program.run();
        let expected = ["Ada 1", "Bob 2", "Cai 3", "Dan 4", "Eva 5"];
        assert_eq!(program.take(GREETINGS), greetings(expected), "{most} together");
        let expected = match most {
            1 => vec![1, 1, 1, 1, 1],
            2 => vec![2, 2, 1],
            _ => vec![5],
        };
        assert_eq!(*batches.lock().unwrap(), expected);
        assert_eq!(program.frontier().first(), Some(&1));
    }
}

#[test]
fn functions_with_a_runtime_of_their_own_are_answered_as_well() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let handle = runtime.handle().clone();
    let mut program = TestProgram::new(move || {
        let functions = Functions::<TypedValue>::new().remote(GREETER, greeters());
        functions.typed_egress(GREETINGS).runtime(handle.clone())
    });
    let endpoint = program.endpoint();
    for id in ["ann", "bob", "cid"] {
        program.send(greet(id, id));
    }
    program.run();
    assert_eq!(endpoint.open(), 3);
    endpoint.expect_request_to(&GREETER.at("ann")).lose();
    program.run();
    assert_eq!((endpoint.open(), endpoint.requests()), (3, 4), "it was asked once more");
    program.crash();
    program.run();
    assert_eq!(endpoint.open(), 3, "and nobody waits who was there before");
    endpoint.serve(greeter);
    while let Some(request) = endpoint.take_request() {
        request.answer(seen_is_missing());
    }
    program.run();
    let mut all = program.take(GREETINGS);
    all.sort();
    assert_eq!(all, greetings(["ann 1", "bob 1", "cid 1"]));
}

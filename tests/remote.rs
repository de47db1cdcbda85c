//! Remote functions do what embedded ones do: they keep state, send, delay, cancel and emit, one call
//! an address at a time; and what cannot be handled is given up alone.

#[path = "support/protocol.rs"]
mod protocol;
#[path = "support/server.rs"]
mod server;
mod support;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use protocol::*;
use server::{Answer, Server};
use timely::dataflow::operators::{Input, Inspect};
use timely_statefun::{
    Address, Clock, Endpoint, Envelope, Function, FunctionType, Functions, Limits, OnFailure,
    Reason, StatefulFunctions, TypedValue,
};
use timely_statefun_proto::reqreply;
use timely_statefun_proto::reqreply::from_function::{
    DelayedInvocation, EgressMessage, ExpirationSpec, Invocation, InvocationResponse,
};

const EMBEDDED: FunctionType<String> = FunctionType::new("example/embedded");

type Letters = Vec<(String, Reason)>;

/// Runs functions on one worker, and gives what was emitted, with the times, and what was given up.
fn run(
    functions: impl Fn() -> Functions<TypedValue> + Send + Sync + 'static,
    messages: Vec<(u64, Envelope<TypedValue>)>,
) -> (Vec<(u64, String)>, Letters) {
    let ran = run_on(1, functions, messages);
    assert_eq!(ran.stopped, None);
    let letter = |letter: Letter| (letter.message, letter.reason);
    (ran.greetings, ran.letters.into_iter().map(letter).collect())
}

#[test]
fn a_greeter_keeps_its_state_and_each_greeting_leaves_at_its_time() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let server = Server::start(move |request| {
        counted.fetch_add(1, SeqCst);
        assert_eq!(request.path, "/greeter");
        greeter(&batch(&request))
    });
    let url = server.url();
    let people = ["Ada", "Grace", "Ada", "Ada", "Grace", "Barbara"];
    let messages = people.iter().zip(0..).map(|(person, time)| greet(time / 2, person)).collect();
    let (mut greetings, letters) = run(move || remote(Endpoint::at(&url)), messages);
    greetings.sort();
    let expected = [
        (0, "Ada 1"),
        (0, "Grace 1"),
        (1, "Ada 2"),
        (1, "Ada 3"),
        (2, "Barbara 1"),
        (2, "Grace 2"),
    ];
    assert!(greetings.iter().map(|(time, text)| (*time, text.as_str())).eq(expected));
    assert!(letters.is_empty());
    assert!(calls.load(SeqCst) <= 9, "each address asks for states once at most: {calls:?}");
}

#[test]
fn what_waits_goes_together_in_order_and_one_call_an_address_at_a_time() {
    const MESSAGES: usize = 500;
    let batches = Arc::new(Mutex::new(Vec::new()));
    let (seen, busy) = (Arc::clone(&batches), Arc::new(Mutex::new(BTreeSet::new())));
    let server = Server::start(move |request| {
        let batch = batch(&request);
        let id = batch.target.as_ref().unwrap().id.clone();
        assert!(busy.lock().unwrap().insert(id.clone()), "one call an address at a time");
        std::thread::sleep(Duration::from_millis(1));
        let answer = greeter(&batch);
        seen.lock().unwrap().push(batch.invocations.len());
        busy.lock().unwrap().remove(&id);
        answer
    });
    let url = server.url();
    let messages = (0..MESSAGES).map(|number| {
        let message = GREETER.message(format!("hot {}", number % 3), number.to_string());
        (number as u64 / 100, message)
    });
    let endpoint = move || Endpoint::at(&url).batch_messages_max(7);
    let (greetings, _) = run(move || remote(endpoint()), messages.collect());
    let mut last = BTreeMap::new();
    for (time, greeting) in &greetings {
        let (number, count) = greeting.split_once(' ').unwrap();
        let (number, count): (usize, usize) = (number.parse().unwrap(), count.parse().unwrap());
        assert_eq!((*time, count), (number as u64 / 100, number / 3 + 1), "in order, at its time");
        last.insert(number % 3, count);
    }
    assert_eq!(greetings.len(), MESSAGES);
    let batches = batches.lock().unwrap();
    assert!(batches.iter().all(|batch| *batch <= 7) && batches.contains(&7));
}

#[test]
fn remote_and_embedded_functions_message_each_other() {
    // Sends on to an embedded function, which replies; a delayed message is cancelled, another comes.
    let server = Server::start(|request| {
        let batch = batch(&request);
        let target = batch.target.clone().unwrap();
        let mut result = InvocationResponse::default();
        for invocation in &batch.invocations {
            let message = read_text(invocation.argument.as_ref());
            let address = |of: &Address| reqreply::Address {
                namespace: of.function_type.namespace().to_owned(),
                r#type: of.function_type.name().to_owned(),
                id: of.id.to_string(),
            };
            let later = |token: &str, text_: &str| DelayedInvocation {
                delay_in_ms: 5,
                target: Some(target.clone()),
                argument: text(text_),
                is_cancellation_request: false,
                cancellation_token: token.to_owned(),
            };
            match message.as_str() {
                "start" => {
                    assert_eq!(invocation.caller, None, "absent means absent");
                    let to = Some(address(&EMBEDDED.at("e")));
                    result.outgoing_messages.push(Invocation { target: to, argument: text("ask") });
                    let cancel = DelayedInvocation {
                        is_cancellation_request: true,
                        cancellation_token: "never".to_owned(),
                        ..DelayedInvocation::default()
                    };
                    result.delayed_invocations =
                        vec![later("never", "never"), cancel, later("", "later")];
                }
                other => {
                    let caller = invocation.caller.as_ref().map(|caller| caller.id.clone());
                    result.outgoing_egresses.push(egress(&format!("{other} from {caller:?}")));
                }
            }
        }
        done(result)
    });
    let url = server.url();
    let functions = move || {
        let embedded = Function::new(|context, asked: &String| {
            context.reply(format!("{asked}ed"))?;
            Ok(())
        });
        remote(Endpoint::at(&url)).embedded(EMBEDDED, embedded)
    };
    let (mut greetings, letters) =
        run(functions, vec![(3, GREETER.message("g", "start".to_owned()))]);
    greetings.sort_by(|one, other| one.1.cmp(&other.1));
    assert_eq!(greetings[0], (3, "asked from Some(\"e\")".to_owned()));
    assert_eq!(greetings[1].1, "later from Some(\"g\")");
    assert_eq!((greetings.len(), letters), (2, vec![]));
}

/// Sixty messages for one address, and among them one that it cannot handle.
fn poisoned() -> Vec<(u64, Envelope<TypedValue>)> {
    let numbers = (0..60).map(|number: u64| number.to_string());
    let mut texts: Vec<_> = numbers.collect();
    texts.insert(37, "poison".to_owned());
    texts.into_iter().map(|text| (0, GREETER.message("one", text))).collect()
}

#[test]
fn one_message_that_fails_is_found_in_its_batch_and_given_up_alone() {
    let server = Server::start(|request| {
        let batch = batch(&request);
        // Time for others to wait, so that they come together.
        std::thread::sleep(Duration::from_millis(3));
        let poison = batch.invocations.iter().any(|i| read_text(i.argument.as_ref()) == "poison");
        if poison {
            let head = "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n";
            return Answer::Raw(head.as_bytes().to_vec());
        }
        greeter(&batch)
    });
    let url = server.url();
    let endpoint = move || Endpoint::at(&url).on_failure(OnFailure::DeadLetter);
    let (greetings, letters) = run(move || remote(endpoint()), poisoned());
    let expected = (0..60).map(|n| (0, format!("{n} {}", n + 1)));
    assert!(expected.eq(greetings), "all others, in order");
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].0, "poison");
    let Reason::Call(why) = &letters[0].1 else { panic!("{:?}", letters[0].1) };
    assert!(why.contains("example/greeter one") && why.contains("400"), "{why}");
    assert!(why.contains("/greeter"), "it names the URL: {why}");
}

/// Functions of every SDK answer 500 when they fail, which may pass. If it took the whole time of a call to
/// find that it does not, one message among a thousand would hold the others up ten times as long.
#[test]
fn several_messages_are_not_tried_for_long_when_the_function_fails() {
    let tried = Arc::new(Mutex::new(BTreeMap::<Vec<String>, usize>::new()));
    let seen = Arc::clone(&tried);
    let server = Server::start(move |request| {
        let batch = batch(&request);
        std::thread::sleep(Duration::from_millis(3));
        let texts = batch.invocations.iter().map(|i| read_text(i.argument.as_ref()));
        let texts: Vec<_> = texts.collect();
        if texts.iter().any(|text| text == "poison") {
            *seen.lock().unwrap().entry(texts).or_default() += 1;
            let head = "HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n";
            return Answer::Raw(head.as_bytes().to_vec());
        }
        greeter(&batch)
    });
    let url = server.url();
    let endpoint = move || {
        let endpoint = Endpoint::at(&url).retry_first(Duration::from_millis(1));
        let endpoint = endpoint.retry_longest(Duration::from_millis(2));
        endpoint.call_timeout(Duration::from_millis(1500)).on_failure(OnFailure::DeadLetter)
    };
    let (greetings, letters) = run(move || remote(endpoint()), poisoned());
    assert_eq!((greetings.len(), letters.len()), (60, 1));
    let tried = tried.lock().unwrap();
    let alone = tried[&vec!["poison".to_owned()]];
    let together = tried.iter().filter(|(texts, _)| texts.len() > 1);
    let together: Vec<_> = together.map(|(_, times)| *times).collect();
    assert!(!together.is_empty() && together.iter().all(|times| *times <= 3), "{together:?}");
    assert!(alone > 3, "a message that is alone has the whole time of a call: {alone}");
}

#[test]
fn a_flaky_endpoint_is_called_until_it_answers_and_its_effects_count_once() {
    let failures = AtomicUsize::new(0);
    let server = Server::start(move |request| {
        let batch = batch(&request);
        if failures.fetch_add(1, SeqCst) % 3 != 2 {
            let head = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";
            return Answer::Raw(head.as_bytes().to_vec());
        }
        greeter(&batch)
    });
    let url = server.url();
    let messages = (0..20).map(|number| greet(number, ["a", "b"][number as usize % 2])).collect();
    let endpoint = move || Endpoint::at(&url).retry_first(Duration::from_millis(1));
    let (mut greetings, letters) = run(move || remote(endpoint()), messages);
    greetings.sort();
    let expected = (0..20).map(|n| (n, format!("{} {}", ["a", "b"][n as usize % 2], n / 2 + 1)));
    assert!(expected.eq(greetings));
    assert!(letters.is_empty());
}

#[test]
fn answers_that_mean_nothing_are_dead_letters_that_say_why() {
    /// A name, what is answered, and what the dead letter must say.
    type Case = (&'static str, fn() -> Answer, &'static str);
    let cases: Vec<Case> = vec![
        ("garbage", || Answer::Ok(vec![0xff; 4]), "malformed"),
        ("truncated", || Answer::Ok(vec![0xa2, 0x06, 0x0f]), "malformed"),
        (
            "text",
            || {
                let text =
                    "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\nhi";
                Answer::Raw(text.as_bytes().to_vec())
            },
            "content type",
        ),
        (
            "unknown state",
            || {
                let state_mutations = vec![set("nobody", text("x"))];
                done(InvocationResponse { state_mutations, ..Default::default() })
            },
            "state \"nobody\"",
        ),
        (
            "cancellation without a token",
            || {
                let cancel =
                    DelayedInvocation { is_cancellation_request: true, ..Default::default() };
                let delayed_invocations = vec![cancel];
                done(InvocationResponse { delayed_invocations, ..Default::default() })
            },
            "no token",
        ),
        (
            "unknown egress",
            || {
                let record = EgressMessage { egress_type: "nowhere".into(), ..egress("x") };
                let outgoing_egresses = vec![record];
                done(InvocationResponse { outgoing_egresses, ..Default::default() })
            },
            "egress \"example/nowhere\"",
        ),
        (
            "empty type name",
            || {
                let argument =
                    Some(reqreply::TypedValue { typename: String::new(), ..text("x").unwrap() });
                let outgoing_egresses = vec![EgressMessage { argument, ..egress("x") }];
                done(InvocationResponse { outgoing_egresses, ..Default::default() })
            },
            "type name",
        ),
        (
            "negative delay",
            || {
                let later = DelayedInvocation { delay_in_ms: -1, ..Default::default() };
                let delayed_invocations = vec![later];
                done(InvocationResponse { delayed_invocations, ..Default::default() })
            },
            "-1 ms",
        ),
        (
            "endless incomplete",
            || missing(&[("seen", "io.statefun.types/int", None)]),
            "more states more than 8 times",
        ),
        ("too large", || Answer::Ok(vec![0; 2000]), "larger than 1000 bytes"),
        (
            "redirect",
            || {
                let head = "HTTP/1.1 302 Found\r\nlocation: /other\r\ncontent-length: 0\r\n\r\n";
                Answer::Raw(head.as_bytes().to_vec())
            },
            "302",
        ),
        ("closed", || Answer::Raw(Vec::new()), "failed (attempts: "),
    ];
    for (name, make, why) in cases {
        let server = Server::start(move |request| {
            let batch = batch(&request);
            match id(&batch) {
                "bad" => make(),
                _ => greeter(&batch),
            }
        });
        let url = server.url();
        let endpoint = move || {
            Endpoint::at(&url)
                .on_failure(OnFailure::DeadLetter)
                .call_timeout(Duration::from_millis(300))
                .response_bytes_max(1000)
        };
        let messages = vec![greet(0, "good"), greet(0, "bad"), greet(1, "good")];
        let (greetings, letters) = run(move || remote(endpoint()), messages);
        assert_eq!(greetings, [(0, "good 1".into()), (1, "good 2".into())], "{name}");
        assert_eq!(letters.len(), 1, "{name}");
        let reason = letters[0].1.to_string();
        assert!(letters[0].0 == "bad" && reason.contains(why), "{name}: {reason}");
    }
}

#[test]
fn an_endpoint_that_never_answers_delays_nobody_else() {
    let server = Server::start(|request| {
        let batch = batch(&request);
        if request.path == "/never" {
            return Answer::never(|| {});
        }
        greeter(&batch)
    });
    let url = server.url();
    let functions = move || {
        let never = Endpoint::at(&url)
            .call_timeout(Duration::from_millis(400))
            .on_failure(OnFailure::DeadLetter);
        remote(Endpoint::at(&url)).remote_namespace(FOUND, never)
    };
    let never = |n: u64| (0, FOUND.message("never", n, "lost".to_owned()).unwrap());
    let mut messages: Vec<_> = (0..50).map(never).collect();
    messages.extend((0..100).map(|n| (0, GREETER.message(n, "x".to_owned()))));
    let (greetings, letters) = run(functions, messages);
    assert_eq!((greetings.len(), letters.len()), (100, 50));
    for (_, reason) in &letters {
        let reason = reason.to_string();
        assert!(reason.contains("there was no answer"), "{reason}");
    }
}

/// One address that is slow to answer has far more sent to it than its share of memory: its own ingress
/// waits, and another function's does not.
#[test]
fn a_function_with_too_much_waiting_has_its_ingress_held_back_and_nobody_elses() {
    let open = Arc::new(std::sync::Barrier::new(2));
    let opened = Arc::clone(&open);
    let first = AtomicUsize::new(0);
    let server = Server::start(move |request| {
        let batch = batch(&request);
        if request.path == "/slow" && first.fetch_add(1, SeqCst) == 0 {
            open.wait();
        }
        greeter(&batch)
    });
    let url = server.url();
    timely::execute_directly(move |worker| {
        let greetings = Rc::new(RefCell::new(Vec::new()));
        let seen = Rc::clone(&greetings);
        let limits = Limits {
            function_bytes_soft: Some(20_000),
            gate_credit_records: 10,
            ..Limits::default()
        };
        let (mut slow, mut quick, handle) = worker.dataflow::<u64, _, _>(|scope| {
            let (slow, one) = scope.new_input::<Vec<Envelope<TypedValue>>>();
            let (quick, other) = scope.new_input::<Vec<Envelope<TypedValue>>>();
            let functions = remote(Endpoint::at(&url)).limits(limits);
            let functions = functions.remote_namespace(FOUND, Endpoint::at(&url));
            let functions = functions.typed_egress(GREETINGS);
            let egresses = [one, other].stateful_functions(functions).unwrap();
            let greetings = egresses.stream(GREETINGS).unwrap();
            greetings.inspect(move |greeting| seen.borrow_mut().push(greeting.clone()));
            (slow, quick, egresses.handle())
        });
        for number in 0..1000 {
            slow.send(FOUND.message("slow", "one", number.to_string()).unwrap());
        }
        slow.close();
        for _ in 0..300 {
            worker.step_or_park(Some(Duration::from_micros(100)));
        }
        let admitted = handle.stats().admitted;
        assert!((20..300).contains(&admitted), "{admitted} came in");
        for number in 0..100 {
            quick.send(GREETER.message(number, "x".to_owned()));
        }
        quick.close();
        let answered = || greetings.borrow().iter().filter(|text| text.starts_with('x')).count();
        handle.run_while(worker, || answered() < 100).unwrap();
        opened.wait();
        handle.run(worker).unwrap();
        let slow = greetings.borrow().iter().filter(|text| !text.starts_with('x')).count();
        assert_eq!(slow, 1000, "nothing is lost");
    });
}

#[test]
fn state_expires_as_the_function_said_and_a_new_function_needs_no_restart() {
    let (clock, hands) = Clock::turned(1_000_000);
    let server = Server::start(move |request| {
        let batch = batch(&request);
        let mode = if request.path == "/written" { 1 } else { 2 };
        let expiration = ExpirationSpec { mode, expire_after_millis: 1000 };
        let Some(seen) = state::<i64>(&batch, "seen") else {
            return missing(&[("seen", "io.statefun.types/long", Some(expiration))]);
        };
        hands.advance(Duration::from_millis(600));
        let emitted = egress(&format!("{} {seen:?}", &request.path[1..]));
        let first = read_text(batch.invocations[0].argument.as_ref()) == "set";
        let change = first.then(|| set("seen", Some(reqreply::TypedValue::of(&0_i64))));
        done(InvocationResponse {
            outgoing_egresses: vec![emitted],
            state_mutations: change.into_iter().collect(),
            ..Default::default()
        })
    });
    let url = server.url();
    let functions = move || {
        let functions = Functions::new().remote_namespace(FOUND, Endpoint::at(&url));
        functions.runtime(runtime().handle().clone()).clock(clock.clone())
    };
    let message = |time, function: &str, text: &str| {
        (time, FOUND.message(function, "x", text.to_owned()).unwrap())
    };
    let messages = |function: &str| -> Vec<_> {
        let texts = ["set", "look", "look", "look"].into_iter().zip(0..);
        texts.map(|(text, time)| message(time, function, text)).collect()
    };
    let of = |greetings: &[(u64, String)], function: &str| -> Vec<String> {
        let greetings = greetings.iter().filter_map(|(_, text)| text.strip_prefix(function));
        greetings.map(|text| text.trim().to_owned()).collect()
    };
    // The clock turns by 600 ms with each call, and a state lives for 1000.
    let (greetings, _) = run(functions.clone(), messages("written"));
    assert_eq!(of(&greetings, "written"), ["None", "Some(0)", "Some(0)", "None"]);
    let (greetings, _) = run(functions, messages("used"));
    assert_eq!(of(&greetings, "used"), ["None", "Some(0)", "Some(0)", "Some(0)"]);
}

#[test]
fn misuse_is_an_error_before_anything_runs() {
    let bound = |functions: Functions<TypedValue>| functions.check().unwrap_err();
    let error =
        bound(remote(Endpoint::at("http://localhost/")).remote(GREETER, Endpoint::at("http://x/")));
    assert!(error.is_duplicate_function());
    let embedded = Function::new(|_, _: &String| Ok(()));
    let error = bound(remote(Endpoint::at("http://localhost/")).embedded(GREETER, embedded));
    assert!(error.is_duplicate_function());
    for url in ["localhost:8000", "ftp://localhost/", "http://", "not a url"] {
        let error = bound(remote(Endpoint::at(url)));
        assert!(error.is_invalid_endpoint(), "{url}: {error}");
    }
    let functions: Functions<TypedValue> =
        Functions::new().remote(GREETER, Endpoint::at("http://x/"));
    assert!(bound(functions).is_no_runtime());
}

/// An endpoint, and what is said of it.
type Wrong = (fn(Endpoint) -> Endpoint, &'static str);

#[test]
fn an_option_that_means_nothing_is_an_error_that_names_it() {
    const MILLI: Duration = Duration::from_millis(1);
    const MINUTE: Duration = Duration::from_secs(60);
    let wrong: [Wrong; 19] = [
        (|at| at.call_timeout(Duration::ZERO), "call_timeout is 0"),
        (|at| at.connect_timeout(Duration::ZERO), "connect_timeout is 0"),
        (|at| at.write_timeout(Duration::ZERO), "write_timeout is 0"),
        (|at| at.read_timeout(Duration::ZERO), "read_timeout is 0"),
        (
            |at| at.call_timeout(MINUTE).connect_timeout(MINUTE + MILLI),
            "connect_timeout is 60.001s",
        ),
        (|at| at.write_timeout(MINUTE + MILLI).call_timeout(MINUTE), "write_timeout is 60.001s"),
        (|at| at.call_timeout(MINUTE).read_timeout(MINUTE + MILLI), "more than call_timeout, 60s"),
        (|at| at.batch_messages_max(0), "batch_messages_max is 0"),
        (|at| at.batch_bytes_max(0), "batch_bytes_max is 0"),
        (|at| at.in_flight_max(0), "in_flight_max is 0"),
        (|at| at.response_bytes_max(0), "response_bytes_max is 0"),
        (|at| at.effects_max(0), "effects_max is 0"),
        (|at| at.retry_first(MILLI / 2), "retry_first is 500µs"),
        (|at| at.retry_first(MINUTE).retry_longest(MINUTE - MILLI), "retry_longest is 59.999s"),
        (|at| at.header("a b", "c"), "header \"a b\""),
        (|at| at.header("a", "b\nc"), "header \"a\""),
        (|at| at.header("Content-Type", "text/plain"), "not for others"),
        (|at| at.header("transfer-encoding", "chunked"), "not for others"),
        (|at| at.header("Accept-Encoding", "gzip"), "not for others"),
    ];
    for (set, why) in wrong {
        let error = remote(set(Endpoint::at("http://localhost/"))).check().unwrap_err();
        assert!(error.is_invalid_endpoint(), "{error}");
        let text = error.to_string();
        assert!(text.contains(why) && text.contains(r#""http://localhost/""#), "{why}: {text}");
    }
    // Defaults give way, and bounds are within them.
    let right: [fn(Endpoint) -> Endpoint; 5] = [
        |at| at.call_timeout(MILLI),
        |at| at.call_timeout(MINUTE).connect_timeout(MINUTE).read_timeout(MINUTE),
        |at| at.retry_first(MINUTE),
        |at| at.connections_idle_max(0).connection_idle(Duration::ZERO),
        |at| at.incomplete_max(0).states_max(0).call_timeout(Duration::MAX),
    ];
    for set in right {
        remote(set(Endpoint::at("http://localhost/"))).check().unwrap();
    }
}

#[test]
fn no_secret_of_an_endpoint_is_shown() {
    let endpoint = Endpoint::at("http://localhost/a?code=s3cret").header("x-key", "s3cret");
    let shown = format!("{endpoint:?}");
    assert!(shown.contains("http://localhost/a?…") && shown.contains("x-key"), "{shown}");
    assert!(!shown.contains("s3cret"), "{shown}");
    for url in ["http://user:s3cret@localhost/", "http://s3cret@x/", "https://user:s3cret@x/"] {
        let error = remote(Endpoint::at(url)).check().unwrap_err();
        assert!(error.is_invalid_endpoint() && !error.to_string().contains("s3cret"), "{error}");
    }
}

//! What an endpoint answers badly costs what was asked, and nothing else: everybody else keeps their pace,
//! nothing is lost, nothing happens twice, and what was asked ends as the policy says.

#[path = "support/protocol.rs"]
mod protocol;
#[path = "support/server.rs"]
mod server;
mod support;

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use protocol::*;
use server::{Answer, HEAD, Server};
use timely_statefun::{CallError, Endpoint, Envelope, Functions, OnFailure, TypedValue};
use timely_statefun_proto::Message;
use timely_statefun_proto::reqreply;
use timely_statefun_proto::reqreply::FromFunction;
use timely_statefun_proto::reqreply::from_function::{
    DelayedInvocation, EgressMessage, Invocation, InvocationResponse, PersistedValueMutation,
    Response,
};
use timely_statefun_proto::reqreply::to_function::InvocationBatchRequest;

/// How often the bad answer is given to one batch: once, or until nobody asks any more.
#[derive(Copy, Clone, Debug, PartialEq)]
enum Asked {
    Once,
    Again,
}
use Asked::{Again, Once};

/// What is answered badly, how often that is asked for, and what the dead letter must say.
struct Fault {
    name: &'static str,
    answer: fn(&InvocationBatchRequest) -> Answer,
    asked: Asked,
    why: &'static str,
}

const fn fault(
    name: &'static str,
    answer: fn(&InvocationBatchRequest) -> Answer,
    asked: Asked,
    why: &'static str,
) -> Fault {
    Fault { name, answer, asked, why }
}

/// An answer with one change to what a function may do.
fn did(change: impl FnOnce(&mut InvocationResponse)) -> Answer {
    let mut result = InvocationResponse {
        outgoing_egresses: vec![egress("never 1")],
        ..InvocationResponse::default()
    };
    change(&mut result);
    done(result)
}

fn chunked(body: &[u8], more: &str) -> Answer {
    let head = format!("{HEAD}transfer-encoding: chunked\r\n\r\n{:x}\r\n", body.len());
    Answer::Raw([head.as_bytes(), body, more.as_bytes()].concat())
}

fn of_length(length: usize, body: &[u8]) -> Answer {
    let head = format!("{HEAD}content-length: {length}\r\n\r\n");
    Answer::Raw([head.as_bytes(), body].concat())
}

/// The good answer, with other headers.
fn under(batch: &InvocationBatchRequest, headers: &str) -> Answer {
    let Answer::Ok(body) = greeter(batch) else { panic!("the greeter answers well") };
    let head = format!("HTTP/1.1 200 OK\r\n{headers}content-length: {}\r\n\r\n", body.len());
    Answer::Keep([head.into_bytes(), body].concat())
}

fn nowhere() -> Option<reqreply::Address> {
    Some(reqreply::Address::default())
}

/// Answers may have so many bytes, and list so many effects.
const BYTES_MAX: usize = 20_000;
const EFFECTS_MAX: usize = 500;

const FAULTS: &[Fault] = &[
    // Statuses.
    fault("400", |_| Answer::status(400, "what is this?"), Once, "400 Bad Request: what is this?"),
    fault("404", |_| Answer::status(404, ""), Again, "404"),
    fault("408", |_| Answer::status(408, ""), Again, "408"),
    fault("409", |_| Answer::status(409, ""), Again, "409"),
    fault("413", |_| Answer::status(413, ""), Once, "413"),
    fault("415", |_| Answer::status(415, ""), Once, "415"),
    fault("420", |_| Answer::status(420, ""), Again, "420"),
    fault("425", |_| Answer::status(425, ""), Again, "425"),
    fault("429", |_| Answer::status(429, ""), Again, "429"),
    fault("499", |_| Answer::status(499, ""), Again, "499"),
    fault(
        "500",
        |_| Answer::status(500, "Traceback:\n  x"),
        Again,
        "500 Internal Server Error: Traceback:   x",
    ),
    fault("503", |_| Answer::status(503, ""), Again, "503"),
    fault("599", |_| Answer::status(599, ""), Again, "599"),
    fault(
        "an error without end",
        |_| {
            let head = "HTTP/1.1 400 No\r\ncontent-type: text/plain\r\n\r\n";
            Answer::By(Box::new(move |stream| {
                let mut go_on = stream.write_all(head.as_bytes()).is_ok();
                while go_on {
                    go_on = stream.write_all(&[b'x'; 4096]).is_ok();
                }
            }))
        },
        Once,
        "xxxx…",
    ),
    fault(
        "a redirect to the real place",
        |_| {
            let head = "HTTP/1.1 302 Found\r\nlocation: /greeter\r\ncontent-length: 0\r\n\r\n";
            Answer::Keep(head.as_bytes().to_vec())
        },
        Once,
        "302",
    ),
    fault(
        "a redirect that keeps the method",
        |_| {
            let head = "HTTP/1.1 307 No\r\nlocation: /greeter\r\ncontent-length: 0\r\n\r\n";
            Answer::Keep(head.as_bytes().to_vec())
        },
        Once,
        "307",
    ),
    // Not HTTP, or not to its end.
    fault("nothing", |_| Answer::Raw(Vec::new()), Again, "connection"),
    fault("no HTTP", |_| Answer::Raw(b"SSH-2.0-x\r\n\r\n".to_vec()), Again, "HTTP"),
    fault(
        "half a head",
        |_| Answer::Raw(b"HTTP/1.1 200 OK\r\nconte".to_vec()),
        Again,
        "connection",
    ),
    fault("half a body", |_| of_length(100, &[0xa2, 0x06]), Again, "body"),
    fault("half a chunk", |_| chunked(&[0xa2, 0x06, 0x00], "\r\n9\r\nx"), Again, "body"),
    fault("chunks without end", |_| chunked(&[0xa2, 0x06, 0x00], "\r\n"), Again, "body"),
    // Of another form.
    fault("text", |b| under(b, "content-type: text/plain\r\n"), Once, "type is \"text/plain\""),
    fault("no type", |b| under(b, ""), Once, "content type is missing"),
    fault(
        "packed",
        |b| under(b, "content-type: application/octet-stream\r\ncontent-encoding: gzip\r\n"),
        Once,
        "encoding is \"gzip\"",
    ),
    fault("garbage", |_| Answer::Ok(vec![0xff; 4]), Once, "malformed"),
    fault("truncated", |_| Answer::Ok(vec![0xa2, 0x06, 0x0f]), Once, "malformed"),
    fault("too long", |_| Answer::Ok(vec![0; BYTES_MAX + 1]), Once, "larger than 20000 bytes"),
    fault("too long by itself", |_| of_length(1 << 40, &[]), Once, "larger than 20000 bytes"),
    fault(
        "too long in chunks",
        |_| chunked(&vec![0; BYTES_MAX + 1], "\r\n0\r\n\r\n"),
        Once,
        "larger than 20000 bytes",
    ),
    fault(
        "too much",
        |_| did(|it| it.outgoing_messages = vec![Invocation::default(); EFFECTS_MAX]),
        Once,
        "lists 501 effects or states (effects_max: 500)",
    ),
    fault(
        "too many states",
        |_| missing(&vec![("x", "a/b", None); EFFECTS_MAX + 1]),
        Once,
        "lists 501 effects or states (effects_max: 500)",
    ),
    // Of no meaning.
    fault(
        "an unknown state",
        |_| did(|it| it.state_mutations = vec![set("nobody", text("x"))]),
        Once,
        "state \"nobody\"",
    ),
    fault(
        "a state of another type",
        |_| did(|it| it.state_mutations = vec![set("seen", text("x"))]),
        Once,
        "state \"seen\" as \"io.statefun.types/string\"",
    ),
    fault(
        "a state of nothing",
        |_| {
            did(|it| {
                let change = PersistedValueMutation { mutation_type: 1, ..set("seen", None) };
                it.state_mutations = vec![change];
            })
        },
        Once,
        "set to nothing",
    ),
    fault(
        "an unknown change",
        |_| {
            did(|it| {
                let change = PersistedValueMutation { mutation_type: 7, ..set("seen", None) };
                it.state_mutations = vec![change];
            })
        },
        Once,
        "mutation type 7",
    ),
    fault(
        "a name without end",
        |_| did(|it| it.state_mutations = vec![set(&"x".repeat(5000), None)]),
        Once,
        "5000 bytes, of 4096",
    ),
    fault(
        "a cancellation without a token",
        |_| {
            did(|it| {
                let cancel =
                    DelayedInvocation { is_cancellation_request: true, ..Default::default() };
                it.delayed_invocations = vec![cancel];
            })
        },
        Once,
        "no token",
    ),
    fault(
        "a negative delay",
        |_| {
            did(|it| {
                let later = DelayedInvocation { delay_in_ms: -1, ..Default::default() };
                it.delayed_invocations = vec![later];
            })
        },
        Once,
        "-1 ms",
    ),
    fault(
        "a token given twice",
        |batch| {
            let target = batch.target.clone();
            did(|it| {
                let later = DelayedInvocation {
                    delay_in_ms: 1,
                    target,
                    argument: text("never"),
                    cancellation_token: "twice".into(),
                    ..Default::default()
                };
                it.delayed_invocations = vec![later.clone(), later];
            })
        },
        Once,
        "token \"twice\"",
    ),
    fault(
        "an unknown egress",
        |_| {
            did(|it| {
                let record = EgressMessage { egress_type: "nowhere".into(), ..egress("x") };
                it.outgoing_egresses.push(record);
            })
        },
        Once,
        "egress \"example/nowhere\"",
    ),
    fault(
        "a record of another type",
        |_| {
            did(|it| {
                let argument = Some(reqreply::TypedValue::of(&7_i32));
                it.outgoing_egresses.push(EgressMessage { argument, ..egress("x") });
            })
        },
        Once,
        "io.statefun.types/int",
    ),
    fault(
        "a type without a name",
        |_| {
            did(|it| {
                let argument =
                    Some(reqreply::TypedValue { typename: String::new(), ..text("x").unwrap() });
                it.outgoing_egresses.push(EgressMessage { argument, ..egress("x") });
            })
        },
        Once,
        "type name",
    ),
    fault(
        "a message for nobody",
        |_| {
            did(|it| {
                let sent = Invocation { target: nowhere(), argument: text("x") };
                it.outgoing_messages = vec![sent];
            })
        },
        Once,
        "type name \"/\"",
    ),
    fault(
        "a message without a target",
        |_| did(|it| it.outgoing_messages = vec![Invocation { target: None, argument: text("x") }]),
        Once,
        "no target",
    ),
    fault(
        "a message of nothing",
        |b| {
            let target = b.target.clone();
            did(|it| it.outgoing_messages = vec![Invocation { target, argument: None }])
        },
        Once,
        "no value",
    ),
    fault(
        "a state with two types",
        |_| missing(&[("late", "io.statefun.types/int", None), ("late", "a/b", None)]),
        Once,
        "state \"late\" as \"a/b\"",
    ),
    fault(
        "a known state with another type",
        |_| missing(&[("late", "io.statefun.types/int", None), ("seen", "a/b", None)]),
        Once,
        "state \"seen\" as \"a/b\"",
    ),
    fault(
        "a state of no type",
        |_| missing(&[("late", "io.statefun.types/int", None), ("more", "", None)]),
        Once,
        "type name",
    ),
    fault(
        "a state of half a type",
        |_| missing(&[("late", "io.statefun.types/int", None), ("more", "x", None)]),
        Once,
        "state type \"x\"",
    ),
    fault(
        "a hundred states",
        |_| {
            let names: Vec<String> = (0..100).map(|number| format!("late{number}")).collect();
            let states: Vec<_> = names.iter().map(|name| (name.as_str(), "a/b", None)).collect();
            missing(&states)
        },
        Once,
        "more than 50 states",
    ),
];

/// Addresses that are answered well, and what each is sent.
const GOOD: usize = 12;
const EACH: usize = 5;

/// Counts what was served, and lets others wait for it.
#[derive(Default)]
struct Served(Mutex<usize>, Condvar);

impl Served {
    fn add(&self, more: usize) {
        *self.0.lock().unwrap() += more;
        self.1.notify_all();
    }

    /// Whether so much was served before it took too long.
    fn reaches(&self, enough: usize) -> bool {
        let long = Duration::from_secs(60);
        let served = self.0.lock().unwrap();
        !self.1.wait_timeout_while(served, long, |served| *served < enough).unwrap().1.timed_out()
    }
}

/// Serves well, but for one message: that is answered badly, and not before everybody else has been
/// served. Counts how often it was asked for.
fn serve_one_badly(fault: &'static Fault) -> (Server, Arc<AtomicUsize>) {
    let (served, asked) = (Served::default(), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&asked);
    let server = Server::start(move |request| {
        let batch = batch(&request);
        let has =
            |text: &str| batch.invocations.iter().any(|i| read_text(i.argument.as_ref()) == text);
        assert!(!batch.state.iter().any(|state| state.state_name.starts_with("late")));
        if has("bad") {
            assert!(served.reaches(GOOD * EACH), "others wait for what is answered badly");
            count.fetch_add(1, SeqCst);
            return (fault.answer)(&batch);
        }
        let Answer::Ok(body) = greeter(&batch) else { panic!("the greeter answers well") };
        let is_answer = matches!(
            FromFunction::decode(&body[..]).unwrap().response,
            Some(Response::InvocationResult(_))
        );
        if is_answer && id(&batch) != "bad" {
            served.add(batch.invocations.len());
        }
        Answer::Ok(body)
    });
    (server, asked)
}

/// One message that will be answered badly, between two that will not, and many for others.
fn messages() -> Vec<(u64, Envelope<TypedValue>)> {
    let mut messages = Vec::new();
    for (time, text) in (0..).zip(["first", "bad", "last"]) {
        messages.push((time, GREETER.message("bad", text.to_owned())));
        for round in (0..EACH).filter(|round| *round as u64 % 3 == time) {
            for good in 0..GOOD / 2 {
                messages.push((time, GREETER.message(good as u64, format!("greeter-{good}"))));
                let found = FOUND.message("other", good as u64, format!("found-{good}"));
                messages.push((time, found.unwrap()));
            }
            let _ = round;
        }
    }
    messages
}

/// The same endpoint for two functions. What may be asked for again is, three times in all.
fn functions(url: &str, on_failure: OnFailure) -> Functions<TypedValue> {
    let attempts = AtomicUsize::new(0);
    let again = move |error: &CallError| error.may_pass() && attempts.fetch_add(1, SeqCst) < 2;
    let endpoint = Endpoint::at(url)
        .on_failure(on_failure)
        .response_bytes_max(BYTES_MAX)
        .effects_max(EFFECTS_MAX)
        .states_max(50)
        .retry_first(Duration::from_millis(1))
        .read_timeout(Duration::from_secs(100))
        .retry_if(again);
    remote(endpoint.clone()).remote_namespace(FOUND, endpoint)
}

/// How often each was greeted; each time once.
fn counts(ran: &Ran) -> BTreeMap<String, usize> {
    let mut greetings: Vec<_> = ran.greetings.iter().map(|(_, text)| text.as_str()).collect();
    greetings.sort_unstable();
    let all = greetings.len();
    greetings.dedup();
    assert_eq!(greetings.len(), all, "nothing happens twice");
    let mut counts = BTreeMap::new();
    for greeting in greetings {
        *counts.entry(greeting.split(' ').next().unwrap().to_owned()).or_insert(0) += 1;
    }
    counts
}

fn check(fault: &'static Fault, on_failure: OnFailure, workers: usize) {
    let _running = support::Running(format!("{}, {on_failure:?}, {workers} workers", fault.name));
    let (server, asked) = serve_one_badly(fault);
    let url = server.url();
    let ran = run_on(workers, move || functions(&url, on_failure), messages());
    assert_eq!(asked.load(SeqCst), if fault.asked == Again { 3 } else { 1 });
    let counts = counts(&ran);
    for good in 0..GOOD / 2 {
        for of in ["greeter", "found"] {
            let count = counts.get(&format!("{of}-{good}")).copied().unwrap_or(0);
            // What others were answered may not have come back when everything stops.
            assert!(count == EACH || on_failure == OnFailure::Stop, "nothing of others is lost");
        }
    }
    assert!(ran.greetings.contains(&(0, "first 1".to_owned())));
    assert_eq!(counts.get("never"), None, "nothing of a bad answer happens");
    let reason = if on_failure == OnFailure::Stop {
        assert!(ran.letters.is_empty() && !counts.contains_key("last"));
        let stopped = ran.stopped.expect("it stops");
        assert_eq!(stopped.address, Some(GREETER.at("bad")));
        stopped.reason
    } else {
        assert_eq!(ran.stopped, None);
        assert!(ran.greetings.contains(&(2, "last 2".to_owned())), "the address goes on");
        let [letter] = &ran.letters[..] else {
            assert_eq!((on_failure, ran.letters.len()), (OnFailure::Skip, 0));
            return;
        };
        assert_eq!(on_failure, OnFailure::DeadLetter);
        assert_eq!((&letter.target, letter.message.as_str()), (&GREETER.at("bad"), "bad"));
        letter.reason.clone()
    };
    let text = reason.to_string();
    assert!(text.contains(fault.why) && text.len() < 10_000, "{text}");
    let url = format!("http://{}/greeter", server.address);
    assert!(text.contains(&url), "it names where that was answered: {text}");
    if let timely_statefun::Reason::Call(text) = reason {
        let place = format!("calling \"example/greeter bad\" at {url}");
        assert!(text.starts_with(&place), "it names who was called, and where: {text}");
        assert!(text.contains(if fault.asked == Again {
            "(attempts: 3)"
        } else {
            "(attempts: 1)"
        }));
    }
}

#[test]
fn a_bad_answer_makes_one_dead_letter_that_says_why_and_nobody_else_waits() {
    for fault in FAULTS {
        check(fault, OnFailure::DeadLetter, 1);
    }
}

#[test]
fn so_it_is_on_two_workers() {
    for fault in FAULTS {
        check(fault, OnFailure::DeadLetter, 2);
    }
}

#[test]
fn a_bad_answer_stops_the_program_or_is_skipped_where_the_policy_says_so() {
    for fault in FAULTS.iter().step_by(7) {
        for workers in [1, 2] {
            check(fault, OnFailure::Stop, workers);
            check(fault, OnFailure::Skip, workers);
        }
    }
}

/// Whatever may pass does after a while, and then everything has happened once.
#[test]
fn what_fails_for_a_while_is_asked_again_and_happens_once() {
    for fault in FAULTS.iter().filter(|fault| fault.asked == Again) {
        for workers in [1, 2] {
            let _running = support::Running(format!("{}, {workers} workers", fault.name));
            let bad = AtomicUsize::new(0);
            let server = Server::start(move |request| {
                let batch = batch(&request);
                match bad.fetch_add(1, SeqCst) % 3 {
                    2 => greeter(&batch),
                    _ => (fault.answer)(&batch),
                }
            });
            let url = server.url();
            let functions =
                move || remote(Endpoint::at(&url).retry_first(Duration::from_millis(1)));
            let messages =
                (0..30).map(|number| greet(number / 10, ["a", "b", "c"][number as usize % 3]));
            let ran = run_on(workers, functions, messages.collect());
            let expected = ["a", "b", "c"].map(|name| (name.to_owned(), 10));
            assert_eq!(counts(&ran), BTreeMap::from(expected));
            assert!(ran.letters.is_empty() && ran.stopped.is_none());
        }
    }
}

/// A function that keeps asking for states is asked no more than is allowed, whether it asks for the
/// same ones or for others each time.
#[test]
fn a_function_that_never_knows_enough_is_given_up() {
    for others in [false, true] {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let server = Server::start(move |request| {
            let round = count.fetch_add(1, SeqCst);
            let batch = batch(&request);
            let name = if others { format!("state{round}") } else { "state".to_owned() };
            assert_eq!(batch.state.len(), if others { round } else { round.min(1) });
            missing(&[(&name, "a/b", None)])
        });
        let url = server.url();
        let endpoint =
            move || Endpoint::at(&url).on_failure(OnFailure::DeadLetter).incomplete_max(3);
        let ran = run_on(1, move || remote(endpoint()), vec![greet(0, "x")]);
        assert_eq!((asked.load(SeqCst), ran.letters.len()), (4, 1));
        let text = ran.letters[0].reason.to_string();
        assert!(text.contains("more states more than 3 times"), "{text}");
    }
}

/// Answers that are unusual, but right.
#[test]
fn an_answer_may_be_empty_and_its_type_may_have_parameters() {
    let good: [fn(&InvocationBatchRequest) -> Answer; 5] = [
        |_| Answer::Ok(Vec::new()),
        |_| Answer::Ok(vec![0xa2, 0x06, 0x00]),
        |batch| under(batch, "content-type: Application/Octet-Stream; charset=utf-8\r\n"),
        |batch| {
            under(batch, "content-type: application/octet-stream\r\ncontent-encoding: identity\r\n")
        },
        |batch| {
            let Answer::Ok(body) = greeter(batch) else { panic!("the greeter answers well") };
            chunked(&body, "\r\n0\r\n\r\n")
        },
    ];
    for (number, good) in good.into_iter().enumerate() {
        let server = Server::start(move |request| good(&batch(&request)));
        let url = server.url();
        let ran = run_on(1, move || remote(Endpoint::at(&url)), vec![greet(0, "x"), greet(1, "x")]);
        assert_eq!((ran.greetings.len(), &ran.stopped), (if number < 2 { 0 } else { 2 }, &None));
    }
}

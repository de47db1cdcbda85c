//! Remote functions over Unix sockets do what they do over TCP, and a socket that is not there is somebody
//! who is not there.
#![cfg(unix)]

#[path = "support/protocol.rs"]
mod protocol;
#[path = "support/server.rs"]
mod server;
#[path = "support/sockets.rs"]
mod sockets;
mod support;

use std::collections::BTreeSet;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use protocol::*;
use server::Answer;
use sockets::{Directory, Listener, Served, serve};
use support::{Random, Running};
use timely_statefun::{CallError, Endpoint, Envelope, Functions, OnFailure, TypedValue};

const MILLI: Duration = Duration::from_millis(1);

fn url(socket: &Path, path: &str) -> String {
    format!("http+unix://{}{path}", socket.display())
}

fn quick(url: &str) -> Endpoint {
    let endpoint = Endpoint::at(url).call_timeout(Duration::from_secs(20));
    endpoint.retry_first(MILLI).retry_longest(20 * MILLI)
}

fn greeters(listener: Listener) -> Served {
    serve(listener, None, |request| greeter(&batch(&request)))
}

fn visits(times: u64) -> Vec<(u64, Envelope<TypedValue>)> {
    (0..times).map(|time| greet(time, "x")).collect()
}

/// Why the one call of an address was given up.
fn given_up(endpoint: Endpoint) -> String {
    let endpoint = endpoint.on_failure(OnFailure::DeadLetter);
    let ran = run_on(1, move || remote(endpoint.clone()), visits(1));
    assert!(ran.greetings.is_empty() && ran.stopped.is_none(), "{ran:?}");
    let [letter] = &ran.letters[..] else { panic!("{ran:?}") };
    letter.reason.to_string()
}

#[test]
fn what_functions_do_is_the_same_over_tcp_and_over_a_socket() {
    let seed = 0x50c4e7;
    let _running = Running(format!("seed {seed:#x}"));
    let mut random = Random(seed);
    let messages: Vec<_> = (0..500)
        .map(|at| greet(at / 10, ["ann", "bob", "eve", "joe", "zoe"][random.below(5) as usize]))
        .collect();
    let run = |url: &str, http2| {
        let endpoint = quick(url).http2(http2).in_flight_max(3);
        let ran = run_on(2, move || remote(endpoint.clone()), messages.clone());
        assert!(ran.letters.is_empty() && ran.stopped.is_none(), "{ran:?}");
        assert_eq!(ran.greetings.len(), 500);
        ran.greetings.into_iter().collect::<BTreeSet<_>>()
    };
    let directory = Directory::new();
    let ((tcp, port), socket) = (Listener::tcp(), directory.at("functions.sock"));
    let _served = (greeters(tcp), greeters(Listener::unix(&socket)));
    let expected = run(&format!("http://127.0.0.1:{port}/"), false);
    for http2 in [false, true] {
        assert_eq!(run(&url(&socket, "/"), http2), expected, "http2: {http2}");
    }
}

#[test]
fn a_server_is_asked_for_the_path_after_its_socket_with_all_headers() {
    let directory = Directory::new();
    // What is escaped in the URL is not in the name of the file.
    let socket = directory.at("my functions.sock");
    let (asked, told) = channel();
    let asked = Mutex::new(asked);
    let _served = serve(Listener::unix(&socket), None, move |request| {
        let answer = greeter(&batch(&request));
        drop(asked.lock().unwrap().send(request));
        answer
    });
    for (http2, version) in [(false, "HTTP/1.1"), (true, "HTTP/2.0")] {
        let socket = directory.at("my%20functions.sock");
        let endpoint = quick(&url(&socket, "/a/{function.name}?code=s3cret"));
        let endpoint = endpoint.http2(http2).header("x-tenant", "north");
        let ran = run_on(1, move || remote(endpoint.clone()), visits(1));
        assert_eq!(ran.greetings, [(0, "x 1".to_owned())]);
        let requests: Vec<_> = told.try_iter().collect();
        // It asks for its state first.
        assert_eq!(requests.len(), 2);
        for request in requests {
            assert_eq!(request.path, "/a/greeter?code=s3cret");
            let has = |name: &str, value: &str| {
                request.headers.contains(&(name.to_owned(), value.to_owned()))
            };
            assert!(has(":version", version) && has("x-tenant", "north"), "{:?}", request.headers);
            assert!(http2 || has("host", "localhost"), "{:?}", request.headers);
        }
    }
}

/// A server that starts again removes its socket and makes another, while it is called.
#[test]
fn a_server_that_starts_again_at_the_same_path_is_found() {
    const SERVERS: usize = 4;
    for http2 in [false, true] {
        let directory = Directory::new();
        let socket = directory.at("f.sock");
        let (tired, told) = channel();
        let answers = Arc::new([const { AtomicUsize::new(0) }; SERVERS]);
        let start = {
            let (socket, answers) = (socket.clone(), Arc::clone(&answers));
            move |number: usize| {
                let (tired, answers) = (Mutex::new(tired.clone()), Arc::clone(&answers));
                serve(Listener::unix(&socket), None, move |request| {
                    // All but the last have had enough after some, which somebody sees to.
                    if answers[number].fetch_add(1, SeqCst) >= 5 && number + 1 < SERVERS {
                        let _ = tired.lock().unwrap().send(number);
                        return Answer::status(503, "");
                    }
                    greeter(&batch(&request))
                })
            }
        };
        let mut running = start(0);
        let restarts = thread::spawn({
            let socket = socket.clone();
            move || {
                for next in 1..SERVERS {
                    while told.recv().unwrap() + 1 != next {}
                    drop(running);
                    std::fs::remove_file(&socket).unwrap();
                    running = start(next);
                }
                running
            }
        });
        let endpoint = quick(&url(&socket, "/")).http2(http2);
        let ran = run_on(1, move || remote(endpoint.clone()), visits(40));
        assert!(ran.letters.is_empty() && ran.stopped.is_none(), "{ran:?}");
        let expected: Vec<_> = (0..40).map(|time| (time, format!("x {}", time + 1))).collect();
        assert_eq!(ran.greetings, expected, "http2: {http2}");
        assert!(answers.iter().all(|answers| answers.load(SeqCst) > 0), "{answers:?}");
        drop(restarts.join().unwrap());
    }
}

#[test]
fn who_does_not_listen_is_not_reached_and_called_until_somebody_does() {
    let missing: fn(&Path) = |_| {};
    // What a server leaves that was killed: a file that nobody listens at.
    let stale: fn(&Path) = |socket| drop(UnixListener::bind(socket).unwrap());
    let no_socket: fn(&Path) = |socket| std::fs::write(socket, "text").unwrap();
    for before in [missing, stale, no_socket] {
        let directory = Directory::new();
        let socket = directory.at("f.sock");
        before(&socket);
        let (missed, told) = channel();
        let missed = Mutex::new(missed);
        let endpoint = quick(&url(&socket, "/")).retry_if(move |error: &CallError| {
            drop(missed.lock().unwrap().send(error.clone()));
            error.may_pass()
        });
        let server = thread::spawn(move || {
            for _ in 0..3 {
                let error = told.recv().unwrap();
                assert!(error.is_connect() && error.may_pass(), "{error}");
            }
            let _ = std::fs::remove_file(&socket);
            greeters(Listener::unix(&socket))
        });
        let ran = run_on(1, move || remote(endpoint.clone()), visits(3));
        assert!(ran.letters.is_empty() && ran.stopped.is_none(), "{ran:?}");
        assert_eq!(ran.greetings.len(), 3);
        drop(server.join().unwrap());
    }
}

#[test]
fn a_dead_letter_names_the_url_as_it_was_given() {
    let directory = Directory::new();
    let given = url(&directory.at("f.sock"), "/a/{function.name}?code=s3cret");
    let why = given_up(quick(&given).call_timeout(50 * MILLI));
    let shown = url(&directory.at("f.sock"), "/a/greeter?…");
    assert!(why.contains(&format!("\"example/greeter x\" at {shown} failed")), "{why}");
    assert!(why.contains("No such file") && !why.contains("s3cret"), "{why}");
    // It is there, and says nothing.
    let _listener = UnixListener::bind(directory.at("f.sock")).unwrap();
    let once = |error: &CallError| {
        assert!(error.is_stalled(), "{error}");
        false
    };
    let why = given_up(quick(&given).read_timeout(50 * MILLI).retry_if(once));
    assert!(why.contains(&shown) && why.contains("no answer for 50ms"), "{why}");
}

#[test]
fn connections_are_kept_as_long_as_the_endpoint_says() {
    for (idle_max, connections) in [(1024, 1), (0, 10)] {
        let directory = Directory::new();
        let socket = directory.at("f.sock");
        // It is asked for a state first, which is one more call.
        let served = greeters(Listener::unix(&socket));
        let endpoint = quick(&url(&socket, "/")).connections_idle_max(idle_max);
        let ran = run_on(1, move || remote(endpoint.clone()), visits(9));
        assert_eq!(ran.greetings.len(), 9);
        assert_eq!(served.connections.load(SeqCst), connections);
    }
}

/// Names become known when they are sent to, and each is served, or not, at a socket of its own.
#[test]
fn each_function_may_have_a_socket_of_its_own() {
    let directory = Directory::new();
    let served = ["ann.sock", "bob.x.sock", "50%.sock"]
        .map(|name| greeters(Listener::unix(&directory.at(name))));
    let endpoint = quick(&url(&directory.at("{function.name}.sock"), "/{function.name}"));
    let endpoint = endpoint.on_failure(OnFailure::DeadLetter).retry_if(|_: &CallError| false);
    let long = "l".repeat(120);
    let names = ["ann", "..", "bob.x", "50%", "none", &long, "ann"];
    let messages: Vec<_> = names
        .iter()
        .enumerate()
        .map(|(at, name)| (at as u64, FOUND.message(name, "x", (*name).to_owned()).unwrap()))
        .collect();
    let functions = move || {
        let functions: Functions<TypedValue> = Functions::new();
        let functions = functions.remote_namespace(FOUND, endpoint.clone());
        functions.runtime(runtime().handle().clone())
    };
    let ran = run_on(1, functions, messages);
    let greeted: BTreeSet<&str> = ran.greetings.iter().map(|(_, text)| text.as_str()).collect();
    assert_eq!(greeted, BTreeSet::from(["ann 1", "ann 2", "bob.x 1", "50% 1"]), "{ran:?}");
    let why = |name: &str| {
        let found = ran.letters.iter().find(|letter| letter.message == name);
        found.unwrap_or_else(|| panic!("{name}: {ran:?}")).reason.to_string()
    };
    assert!(why("..").contains("no part of a URL"), "{}", why(".."));
    assert!(why("none").contains("/none.sock/none failed"), "{}", why("none"));
    assert!(why(&long).contains("too long for this system"), "{}", why(&long));
    assert_eq!(served.map(|served| served.connections.load(SeqCst)), [1; 3]);
}

#[test]
fn a_url_that_names_no_socket_is_an_error_before_anything_runs() {
    let long = format!("http+unix:///{}.sock/", "x".repeat(150));
    for (url, why) in [
        ("http+unix:///run/functions", "ends with .sock"),
        ("http+unix://run/f.sock/a", "must be absolute"),
        ("http+unix:f.sock", "must be absolute"),
        ("http+unix:///run/../f.sock/", "can be \"..\""),
        (&long, "too long for this system"),
    ] {
        let error = remote(Endpoint::at(url)).check().unwrap_err();
        assert!(error.is_invalid_endpoint(), "{url}: {error}");
        let text = error.to_string();
        assert!(text.contains(why) && text.contains(&format!("\"{url}\"")), "{why}: {text}");
    }
    // Where its name is known, so is the name of its socket.
    let url = format!("http+unix:///{}/{{function.name}}.sock/", "x".repeat(95));
    let error = remote(Endpoint::at(&url)).check().unwrap_err();
    assert!(error.to_string().contains("it has 109 bytes"), "{error}");
    let functions = Functions::<TypedValue>::new().remote_namespace(FOUND, Endpoint::at(&url));
    functions.runtime(runtime().handle().clone()).check().unwrap();
}

//! Connections that are refused, lost, slow or silent cost time and nothing else, and all of them end with
//! the dataflow.

#[path = "support/protocol.rs"]
mod protocol;
#[path = "support/server.rs"]
mod server;
mod support;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use protocol::*;
use server::{Answer, HEAD, Server, serve};
use support::on_workers;
use timely::dataflow::operators::Input;
use timely::worker::Worker;
use timely_statefun::{
    CallError, Endpoint, Envelope, Function, FunctionType, Functions, Namespace, OnFailure,
    StatefulFunctions, TypedValue,
};
use timely_statefun_proto::reqreply::to_function::InvocationBatchRequest;

const MILLI: Duration = Duration::from_millis(1);
const LONG: Duration = Duration::from_secs(60);

fn quick(url: &str) -> Endpoint {
    Endpoint::at(url).retry_first(MILLI).retry_longest(20 * MILLI)
}

/// The greetings of one person who comes so often, and is forgotten never.
fn greeted(times: u64) -> Vec<(u64, String)> {
    (0..times).map(|time| (time, format!("x {}", time + 1))).collect()
}

fn visits(times: u64) -> Vec<(u64, Envelope<TypedValue>)> {
    (0..times).map(|time| greet(time, "x")).collect()
}

/// Runs one address on a server, with what was emitted if nothing was given up.
fn all_went_well(endpoint: Endpoint, times: u64) {
    let endpoint = endpoint.call_timeout(LONG);
    let ran = run_on(1, move || remote(endpoint.clone()), visits(times));
    assert!(ran.letters.is_empty() && ran.stopped.is_none(), "{ran:?}");
    assert_eq!(ran.greetings, greeted(times));
}

/// Why the one call of an address was given up.
fn given_up(endpoint: Endpoint) -> String {
    let endpoint = endpoint.on_failure(OnFailure::DeadLetter);
    let ran = run_on(1, move || remote(endpoint.clone()), visits(1));
    assert!(ran.greetings.is_empty() && ran.stopped.is_none(), "{ran:?}");
    let [letter] = &ran.letters[..] else { panic!("{ran:?}") };
    letter.reason.to_string()
}

fn good_bytes(batch: &InvocationBatchRequest) -> Vec<u8> {
    let Answer::Ok(body) = greeter(batch) else { panic!("the greeter answers well") };
    [format!("{HEAD}content-length: {}\r\n\r\n", body.len()).into_bytes(), body].concat()
}

/// Node closes what was not used for five seconds, at any moment: also when a request is under way.
#[test]
fn a_connection_that_is_closed_when_it_is_used_again_is_nobodys_fault() {
    // What a server does with a connection on which it has answered.
    let ends: [fn(&mut TcpStream); 4] = [
        |_| {},
        // Not before the next request has come, so that it is certainly used again.
        |stream| drop(stream.read(&mut [0; 1 << 16])),
        // Something was not read: this resets it.
        |stream| drop(stream.read(&mut [0; 20])),
        |stream| {
            drop(stream.read(&mut [0; 1 << 16]));
            drop(stream.write_all(b"HTTP/1.1 200 O"));
        },
    ];
    for end in ends {
        let server = Server::start(move |request| {
            let good = good_bytes(&batch(&request));
            Answer::By(Box::new(move |stream| {
                stream.write_all(&good).unwrap();
                end(stream);
            }))
        });
        all_went_well(quick(&server.url()), 20);
    }
}

#[test]
fn who_is_absent_for_a_while_is_called_until_somebody_is_there() {
    // A port that is ours, and where nobody listens.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let url = format!("http://{}/greeter", socket.local_addr().unwrap());
    let (missed, told) = channel();
    let missed = Mutex::new(missed);
    let endpoint = quick(&url).retry_if(move |error: &CallError| {
        drop(missed.lock().unwrap().send(error.clone()));
        error.may_pass()
    });
    let server = thread::spawn(move || {
        for _ in 0..3 {
            let error = told.recv().unwrap();
            assert!(error.is_connect() && error.may_pass(), "{error}");
            assert!(!error.is_lost() && !error.is_stalled() && error.status().is_none());
        }
        let _in_runtime = runtime().enter();
        let listener = socket.listen(16).unwrap().into_std().unwrap();
        listener.set_nonblocking(false).unwrap();
        Server::on(listener, |request| greeter(&batch(&request)))
    });
    all_went_well(endpoint, 5);
    drop(server.join().unwrap());
}

#[test]
fn a_place_where_nobody_is_makes_dead_letters_that_say_so() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let once = |error: &CallError| !error.is_connect();
    let why = given_up(quick(&format!("http://{address}/x?key=s3cret")).retry_if(once));
    assert!(why.contains(&format!("at http://{address}/x?… failed (attempts: 1)")), "{why}");
    assert!(!why.contains("s3cret"), "{why}");
    let why =
        given_up(quick("http://nowhere.invalid/").connect_timeout(500 * MILLI).retry_if(once));
    assert!(why.contains("http://nowhere.invalid/"), "{why}");
}

/// Another may be opened while one is on its way back, so what counts is that none is given up.
#[test]
fn a_connection_is_kept_after_an_error_whose_text_came_slowly() {
    const CALLS: usize = 40;
    let (calls, given_up) = (AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
    let (ended, seen) = (Arc::clone(&given_up), Arc::new(AtomicUsize::new(usize::MAX)));
    let sees = Arc::clone(&seen);
    let answer = move |request| {
        let batch = batch(&request);
        let call = calls.fetch_add(1, SeqCst);
        if call == CALLS - 1 {
            sees.store(given_up.load(SeqCst), SeqCst);
        }
        if call % 4 == 3 {
            return greeter(&batch);
        }
        let text = "x".repeat(10_000);
        let Answer::Keep(all) = Answer::status([500, 503, 429][call % 4], &text) else {
            panic!("a status keeps the connection")
        };
        // The text is not there yet when the status is.
        let body = all.len() - text.len();
        Answer::Slowly(all, body, MILLI)
    };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = Server::accept(listener, move |_, stream| {
        serve(&stream, &answer);
        ended.fetch_add(1, SeqCst);
    });
    all_went_well(quick(&server.url()), CALLS as u64 / 4);
    assert_eq!(seen.load(SeqCst), 0);
}

#[test]
fn an_answer_that_goes_on_may_take_longer_than_it_may_pause() {
    const PAUSE: Duration = Duration::from_millis(20);
    const LIMIT: Duration = Duration::from_millis(25 * 20);
    let server = Server::start(|request| {
        let good = good_bytes(&batch(&request));
        Answer::By(Box::new(move |stream| {
            let body = good.windows(4).position(|end| end == b"\r\n\r\n").unwrap() + 4;
            drop(stream.write_all(&good[..body]));
            for byte in &good[body..] {
                thread::sleep(PAUSE);
                drop(stream.write_all(&[*byte]));
            }
        }))
    });
    let began = Instant::now();
    // The server closes each connection after its answer, and the next request may have gone to that one.
    let lasting = |error: &CallError| {
        assert!(error.is_lost(), "{error}");
        true
    };
    all_went_well(quick(&server.url()).read_timeout(LIMIT).retry_if(lasting), 1);
    assert!(began.elapsed() > 2 * LIMIT, "there were two answers, each longer than the limit");
}

#[test]
fn an_answer_that_stops_is_given_up() {
    for part in [0, 10, HEAD.len() + 30] {
        let server = Server::start(move |request| {
            let good = good_bytes(&batch(&request));
            Answer::By(Box::new(move |stream| {
                stream.write_all(&good[..part]).unwrap();
                drop(stream.read(&mut [0]));
            }))
        });
        let limit = 100 * MILLI;
        let once = |error: &CallError| {
            assert!(error.is_stalled() && error.may_pass(), "{error}");
            false
        };
        let why = given_up(quick(&server.url()).read_timeout(limit).retry_if(once));
        let expected = if part < HEAD.len() {
            "no answer for 100ms"
        } else {
            "answer made no progress for 100ms"
        };
        assert!(why.contains(expected), "{part}: {why}");
    }
}

#[test]
fn an_answer_without_end_is_given_up_when_the_call_has_taken_too_long() {
    let server = Server::start(|_| {
        Answer::By(Box::new(|stream| {
            let mut go_on = write!(stream, "{HEAD}content-length: 9999\r\n\r\n").is_ok();
            while go_on {
                thread::sleep(10 * MILLI);
                go_on = stream.write_all(&[0]).is_ok();
            }
        }))
    });
    let why = given_up(quick(&server.url()).call_timeout(300 * MILLI));
    assert!(why.contains("there was no answer in time"), "{why}");
}

/// More than what a connection takes in before anybody reads it.
const LARGE: usize = 24 << 20;

#[test]
fn a_request_that_nobody_reads_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (open, closed) = channel::<()>();
    let closed = Mutex::new(closed);
    let server = Server::accept(listener, move |_, mut stream| {
        // The head, and then nothing more while the test runs.
        drop(stream.read(&mut [0; 100]));
        closed.lock().unwrap().recv().unwrap_err();
    });
    let once = |error: &CallError| {
        assert!(error.is_stalled(), "{error}");
        false
    };
    let endpoint =
        quick(&server.url()).write_timeout(200 * MILLI).read_timeout(LONG).retry_if(once);
    let endpoint = endpoint.on_failure(OnFailure::DeadLetter);
    let large = GREETER.message("x", "x".repeat(LARGE));
    let ran = run_on(1, move || remote(endpoint.clone()), vec![(0, large)]);
    let why = ran.letters[0].reason.to_string();
    assert!(why.contains("the request made no progress for 200ms"), "{why}");
    drop(open);
}

#[test]
fn a_request_that_goes_on_may_take_longer_than_it_or_the_answer_may_pause() {
    const LIMIT: Duration = Duration::from_millis(800);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = Server::accept(listener, |_, stream| {
        // The first request is read slowly, and not looked at.
        let mut left = LARGE;
        while left > 0 {
            thread::sleep(3 * LIMIT / 80);
            let mut taken = 0;
            while taken < left.min(LARGE / 80) {
                let mut bytes = vec![0; left.min(LARGE / 80) - taken];
                match (&stream).read(&mut bytes) {
                    Ok(read) if read > 0 => taken += read,
                    _ => return,
                }
            }
            left -= taken;
        }
        drop((&stream).write_all(format!("{HEAD}content-length: 0\r\n\r\n").as_bytes()));
        drop((&stream).read(&mut [0; 1 << 16]));
    });
    let lasting = |error: &CallError| panic!("{error}");
    let endpoint = quick(&server.url()).write_timeout(LIMIT).read_timeout(LIMIT).retry_if(lasting);
    let large = GREETER.message("x", "x".repeat(LARGE));
    let began = Instant::now();
    let ran = run_on(1, move || remote(endpoint.clone()), vec![(0, large)]);
    assert!(ran.letters.is_empty() && ran.stopped.is_none(), "{ran:?}");
    assert!(began.elapsed() > 2 * LIMIT, "it took longer than each limit");
}

#[test]
fn who_asks_to_be_left_alone_is_but_no_longer_than_the_longest_wait() {
    for (asked, waits_ms) in [("1", 1000..), ("1000000", 0..), ("Wed, 21 Oct", 0..), ("-1", 0..)] {
        let calls = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&calls);
        let server = Server::start(move |request| {
            let batch = batch(&request);
            seen.lock().unwrap().push(Instant::now());
            if seen.lock().unwrap().len() > 1 {
                return greeter(&batch);
            }
            let head =
                format!("HTTP/1.1 429 No\r\nretry-after: {asked}\r\ncontent-length: 0\r\n\r\n");
            Answer::Keep(head.into_bytes())
        });
        let longest = if asked == "1" { LONG } else { MILLI };
        all_went_well(Endpoint::at(server.url()).retry_first(MILLI).retry_longest(longest), 1);
        let calls = calls.lock().unwrap();
        let waited = calls[1] - calls[0];
        assert!(waits_ms.contains(&waited.as_millis()), "{asked}: {waited:?}");
    }
}

#[test]
fn headers_are_sent_as_often_as_they_are_given_and_names_stay_within_their_part_of_the_url() {
    let requests = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&requests);
    let server = Server::start(move |request| {
        let answer = greeter(&asked(&request.body));
        seen.lock().unwrap().push((request.path, request.headers));
        answer
    });
    let url = format!("http://{}/in/{{function.name}}/here?q={{function.name}}", server.address);
    let functions = move || {
        let endpoint = quick(&url)
            .header("x-tag", "one")
            .header("X-Tag", "two")
            .header("user-agent", "somebody else")
            .on_failure(OnFailure::DeadLetter);
        Functions::new().remote_namespace(FOUND, endpoint).runtime(runtime().handle().clone())
    };
    let names = ["plain-Name_1.x~", "a?b#c%d&e", "ü@:\\", "..", "."];
    let messages = names.map(|name| (0, FOUND.message(name, "x", name.to_owned()).unwrap()));
    let ran = run_on(1, functions, messages.to_vec());
    assert_eq!((ran.greetings.len(), ran.letters.len()), (3, 2));
    for letter in &ran.letters {
        assert!(letter.message.starts_with('.'), "{letter:?}");
        assert!(letter.reason.to_string().starts_with("there is no URL for \"."), "{letter:?}");
    }
    let mut paths: Vec<String> = Vec::new();
    for (path, headers) in &*requests.lock().unwrap() {
        paths.push(path.clone());
        let of = |name: &str| -> Vec<&str> {
            let found = headers.iter().filter(|(header, _)| header == name);
            found.map(|(_, value)| value.as_str()).collect()
        };
        assert_eq!(of("x-tag"), ["one", "two"]);
        assert_eq!(of("user-agent"), ["somebody else"]);
        assert_eq!(of("content-type"), ["application/octet-stream"]);
        assert_eq!(of("accept"), ["application/octet-stream"]);
        assert_eq!((of("content-length").len(), of("transfer-encoding").len()), (1, 0));
    }
    paths.sort();
    paths.dedup();
    assert_eq!(
        paths,
        [
            "/in/%C3%BC%40%3A%5C/here?q=%C3%BC%40%3A%5C",
            "/in/a%3Fb%23c%25d%26e/here?q=a%3Fb%23c%25d%26e",
            "/in/plain-Name_1.x~/here?q=plain-Name_1.x~",
        ]
    );
}

const STOPPER: FunctionType<String> = FunctionType::new("example/stopper");
const SILENT: Namespace<String> = Namespace::new("silent");
const CALLS: usize = 8;

/// A server that never answers, and tells when a call has come and when its connection was closed.
fn silent(came: Sender<()>, closed: Sender<()>) -> Server {
    let (came, closed) = (Mutex::new(came), Mutex::new(closed));
    Server::start(move |_| {
        let closed = closed.lock().unwrap().clone();
        came.lock().unwrap().send(()).unwrap();
        Answer::never(move || closed.send(()).unwrap_or_default())
    })
}

/// A dataflow whose calls are never answered, until it ends in this way.
fn ends(workers: usize, stops: bool) {
    let (came, all_came) = channel();
    let (closed, all_closed) = channel();
    let server = silent(came, closed);
    let url = server.url();
    let all_came = Mutex::new(all_came);
    let waited = AtomicUsize::new(0);
    let program = move |worker: &mut Worker| {
        let (mut input, handle) = worker.dataflow::<u64, _, _>(|scope| {
            let (input, stream) = scope.new_input::<Vec<Envelope<TypedValue>>>();
            let stopper = Function::new(|_, _: &String| Err("enough".into()));
            let functions = Functions::new()
                .remote_namespace(
                    SILENT,
                    Endpoint::at(&url).call_timeout(10 * LONG).read_timeout(10 * LONG),
                )
                .embedded(STOPPER, stopper)
                .runtime(runtime().handle().clone());
            (input, stream.stateful_functions(functions).unwrap().handle())
        });
        if worker.index() == 0 {
            for number in 0..CALLS as u64 {
                input.send(SILENT.message("x", number, "hello".to_owned()).unwrap());
            }
        }
        input.flush();
        let all_here = || {
            if let Ok(()) = all_came.lock().unwrap().try_recv() {
                waited.fetch_add(1, SeqCst);
            }
            waited.load(SeqCst) == CALLS
        };
        while !all_here() {
            worker.step_or_park(Some(MILLI));
        }
        if stops {
            input.send(STOPPER.message("x", "stop".to_owned()));
            input.close();
            assert!(handle.run(worker).is_err());
        } else {
            let dataflow = worker.installed_dataflows()[0];
            worker.drop_dataflow(dataflow);
        }
        // The worker goes on, and the calls have ended nevertheless.
    };
    on_workers(workers, program);
    for _ in 0..CALLS {
        all_closed
            .recv_timeout(LONG)
            .expect("the connection of a call that nobody awaits is closed");
    }
    drop(server);
}

#[test]
fn calls_end_with_their_dataflow() {
    for workers in [1, 2] {
        ends(workers, false);
        ends(workers, true);
    }
}

#[test]
fn http_1_is_spoken_unless_something_else_was_said() {
    for (http2, line) in [(false, "POST /greeter HTTP/1.1\r\n"), (true, "PRI * HTTP/2.0\r\n\r\nSM")]
    {
        let (sender, lines) = channel();
        let sender = Mutex::new(sender);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Server::accept(listener, move |_, mut stream| {
            let mut line = [0; 20];
            stream.read_exact(&mut line).unwrap();
            drop(sender.lock().unwrap().send(String::from_utf8(line.to_vec()).unwrap()));
            drop(stream.shutdown(std::net::Shutdown::Both));
        });
        given_up(quick(&server.url()).http2(http2).retry_if(|_: &CallError| false));
        let found = lines.recv().unwrap();
        assert!(line.starts_with(&found) || found.starts_with(line), "{found}");
    }
    // And it is understood.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = Server::accept(listener, |_, stream| {
        serve(&stream, &|request| greeter(&batch(&request)));
    });
    all_went_well(quick(&server.url()), 3);
}

//! HTTP/2 without TLS, against a server that speaks nothing else.

#[path = "support/protocol.rs"]
mod protocol;
#[path = "support/server.rs"]
mod server;
mod support;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{Request, Response};
use protocol::*;
use server::Answer;
use timely_statefun::{Endpoint, Envelope, OnFailure, TypedValue};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What is done with a connection, by number.
#[derive(Copy, Clone, Debug, PartialEq)]
enum Serve {
    /// Requests are answered, for ever.
    Well,
    /// It is told to go away after so many requests, which are answered.
    So(usize),
    /// Every second stream is refused before anything was done.
    Half,
    /// Nobody is there any more.
    Silent,
}

struct Server {
    url: String,
    connections: Arc<AtomicUsize>,
    /// Those over which somebody was called.
    used: Arc<AtomicUsize>,
    accepting: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Serves the greeter over HTTP/2 until it is dropped.
fn start(how: fn(usize) -> Serve) -> Server {
    let listener = runtime().block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let url = format!("http://{}/{{function.name}}", listener.local_addr().unwrap());
    let connections = Arc::<AtomicUsize>::default();
    let used = Arc::<AtomicUsize>::default();
    let (count, count_used) = (Arc::clone(&connections), Arc::clone(&used));
    let accepting = runtime().spawn(async move {
        // What is silent is kept, or it would be closed.
        let mut kept = Vec::new();
        loop {
            let Ok((stream, _)) = listener.accept().await else { return };
            match how(count.fetch_add(1, SeqCst)) {
                Serve::Silent => kept.push(stream),
                how => drop(tokio::spawn(connection(stream, how, Arc::clone(&count_used)))),
            }
        }
    });
    Server { url, connections, used, accepting }
}

async fn connection(stream: TcpStream, how: Serve, used: Arc<AtomicUsize>) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    let mut requests = 0;
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        requests += 1;
        used.fetch_add(usize::from(requests == 1), SeqCst);
        if how == Serve::Half && requests % 2 == 1 {
            respond.send_reset(Reason::REFUSED_STREAM);
            continue;
        }
        tokio::spawn(async move { drop(answer(request, respond).await) });
        if matches!(how, Serve::So(most) if requests >= most) {
            connection.graceful_shutdown();
        }
    }
}

async fn answer(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) -> Result<(), h2::Error> {
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
    assert_eq!(header("content-type"), Some("application/octet-stream"));
    assert_eq!(header("user-agent"), Some("statefun"));
    let length: usize = header("content-length").unwrap().parse().unwrap();
    let mut body = request.into_body();
    let mut bytes = Vec::new();
    while let Some(piece) = body.data().await {
        let piece = piece?;
        bytes.extend_from_slice(&piece);
        body.flow_control().release_capacity(piece.len())?;
    }
    assert_eq!(bytes.len(), length);
    let Answer::Ok(body) = greeter(&asked(&bytes)) else { panic!("the greeter answers well") };
    let head = Response::builder().header("content-type", "application/octet-stream");
    let mut sent = respond.send_response(head.body(()).unwrap(), false)?;
    sent.send_data(body.into(), true)
}

fn endpoint(server: &Server) -> Endpoint {
    let endpoint = Endpoint::at(&server.url).http2(true).on_failure(OnFailure::DeadLetter);
    endpoint.retry_first(Duration::from_millis(1)).retry_longest(Duration::from_millis(20))
}

/// Each of many is greeted exactly as often as it came.
fn all_are_greeted(endpoint: Endpoint, workers: usize, messages: Vec<(u64, Envelope<TypedValue>)>) {
    let expected: BTreeSet<String> = {
        let mut times = std::collections::BTreeMap::new();
        let of = |envelope: &Envelope<TypedValue>| envelope.message.read::<String>().unwrap();
        let names = messages.iter().map(|(_, envelope)| of(envelope));
        let mut count = |name: String| {
            let times = times.entry(name.clone()).or_insert(0);
            *times += 1;
            format!("{name} {times}")
        };
        names.map(&mut count).collect()
    };
    let ran = run_on(workers, move || remote(endpoint.clone()), messages);
    assert!(ran.letters.is_empty() && ran.stopped.is_none(), "{:?}", ran.letters.first());
    let all = ran.greetings.len();
    let greetings: BTreeSet<String> = ran.greetings.into_iter().map(|(_, text)| text).collect();
    assert!(greetings == expected && all == expected.len());
}

fn people(count: u64, visits: u64) -> Vec<(u64, Envelope<TypedValue>)> {
    let visits = (0..visits).flat_map(|time| (0..count).map(move |person| (time, person)));
    visits.map(|(time, person)| greet(time, &format!("person{person}"))).collect()
}

/// A call that finds no connection while the first is just being finished makes another, and goes over the first
/// nevertheless: nobody is called over the other one.
#[test]
fn many_calls_share_one_connection() {
    for workers in [1, 2] {
        let server = start(|_| Serve::Well);
        all_are_greeted(endpoint(&server), workers, people(200, 5));
        assert_eq!(server.used.load(SeqCst), workers);
    }
}

#[test]
fn requests_and_answers_may_be_larger_than_a_window() {
    let server = start(|_| Serve::Well);
    let large = "large".repeat(200_000);
    let messages = (0..3).map(|time| (time, GREETER.message("x", large.clone())));
    all_are_greeted(endpoint(&server), 1, messages.collect());
}

#[test]
fn who_is_sent_away_comes_back_over_another_connection() {
    let server = start(|_| Serve::So(7));
    // A person is called again only when it has answered, and ten of them share a connection, which is told
    // when seven have called and hears it two answers later at most: it does for thirty calls or so.
    all_are_greeted(endpoint(&server), 2, people(20, 40));
    assert!(server.connections.load(SeqCst) > 10);
}

#[test]
fn a_call_that_is_refused_is_tried_again() {
    let server = start(|_| Serve::Half);
    all_are_greeted(endpoint(&server), 1, people(20, 5));
}

/// All calls go over one connection. When a machine vanishes, nothing closes it, and every further call
/// would be lost on it.
#[test]
fn a_connection_with_nobody_at_its_other_end_is_given_up() {
    let server = start(|number| if number == 0 { Serve::Silent } else { Serve::Well });
    let read = Duration::from_millis(100);
    let endpoint = endpoint(&server).read_timeout(read).call_timeout(Duration::from_secs(30));
    all_are_greeted(endpoint, 1, people(5, 3));
    assert!(server.connections.load(SeqCst) > 1);
}

/// HTTP/1.1 is not HTTP/2, whichever side speaks it.
#[test]
fn what_the_other_side_does_not_speak_is_said_to_fail() {
    let server = start(|_| Serve::Well);
    let plain = server::Server::start(|request| greeter(&batch(&request)));
    let wrong = [Endpoint::at(&server.url), Endpoint::at(plain.url()).http2(true)];
    let errors = Arc::new(Mutex::new(Vec::new()));
    for endpoint in wrong {
        let seen = Arc::clone(&errors);
        let endpoint = endpoint.on_failure(OnFailure::DeadLetter).retry_if(move |error| {
            seen.lock().unwrap().push(error.clone());
            false
        });
        let endpoint = endpoint.read_timeout(Duration::from_secs(2));
        let ran = run_on(1, move || remote(endpoint.clone()), vec![greet(0, "x")]);
        assert_eq!((ran.greetings.len(), ran.letters.len()), (0, 1), "{ran:?}");
    }
    assert_eq!(errors.lock().unwrap().len(), 2);
}

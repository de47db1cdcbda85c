//! A server of functions answers whoever asks well, refuses who does not, waits for nobody longer than it
//! says, and ends without losing what it began.

#[path = "serving/tls.rs"]
mod tls;
#[cfg(unix)]
#[path = "serving/unix.rs"]
mod unix;

use std::collections::BTreeMap;
use std::future::Future;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use timely_statefun::serve::{Answer, Ended, Refusal, RequestReply, Server, Serving};
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;

/// What a test waits for at most, which is never reached where all is well.
const PATIENCE: Duration = Duration::from_secs(30);
/// What a server is told where a test waits until it has enough.
const SHORT: Duration = Duration::from_millis(100);
/// What it is told otherwise.
const LONG: Duration = Duration::from_secs(300);

fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| Runtime::new().unwrap())
}

/// Answers with what it is asked, or as that says.
#[derive(Clone)]
struct Echo {
    asked: Arc<AtomicUsize>,
    /// Answers to "wait" that were dropped before they were there.
    dropped: Arc<AtomicUsize>,
    /// So many of those who asked to "wait" may go on.
    gate: Arc<Semaphore>,
}

impl Default for Echo {
    fn default() -> Self {
        let gate = Arc::new(Semaphore::new(0));
        Echo { asked: Arc::default(), dropped: Arc::default(), gate }
    }
}

struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, SeqCst);
    }
}

impl RequestReply for Echo {
    fn answer(&self, request: Bytes) -> Answer {
        self.asked.fetch_add(1, SeqCst);
        if request.starts_with(b"wait") {
            let (gate, dropped) = (Arc::clone(&self.gate), Counted(Arc::clone(&self.dropped)));
            return Box::pin(async move {
                gate.acquire().await.unwrap().forget();
                std::mem::forget(dropped);
                Ok(request)
            });
        }
        let large = || Bytes::from(vec![b'x'; LARGE]);
        let answer = match &*request {
            b"unknown" => Err(Refusal::Unknown("shop/cart".to_owned())),
            b"unavailable" => Err(Refusal::Unavailable("not yet".to_owned())),
            b"panic" => panic!("a secret"),
            b"large" => Ok(large()),
            _ => Ok(request),
        };
        Box::pin(async { answer })
    }
}

/// More than the system takes at once for anybody.
const LARGE: usize = 24 << 20;

impl Echo {
    fn asked(&self) -> usize {
        self.asked.load(SeqCst)
    }

    fn let_go(&self, answers: usize) {
        self.gate.add_permits(answers);
    }

    /// A server that waits long, but for what the test says.
    fn serve(&self, how: impl FnOnce(Server) -> Server) -> Serving {
        let server = Server::new(self.clone()).grace(LONG).connection_idle(LONG);
        let server = server.head_timeout(LONG).read_timeout(LONG).write_timeout(LONG);
        runtime().block_on(how(server).bind("127.0.0.1:0")).unwrap()
    }
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < PATIENCE, "it never was so that {what}");
        std::thread::yield_now();
    }
}

fn within<F: Future>(future: F) -> F::Output {
    runtime().block_on(async { tokio::time::timeout(PATIENCE, future).await }).unwrap()
}

/// Somebody who speaks HTTP/1.1 by hand.
struct Caller<S = TcpStream> {
    stream: S,
    reader: BufReader<S>,
}

#[derive(Debug)]
struct Said {
    status: u16,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Caller {
    fn of(serving: &Serving) -> Self {
        let stream = TcpStream::connect(serving.local_addr().unwrap()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        let reader = BufReader::new(stream.try_clone().unwrap());
        Caller { stream, reader }
    }
}

impl<S: Read + Write> Caller<S> {
    fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
    }

    fn post(&mut self, body: impl AsRef<[u8]>) {
        self.send(request(body));
    }

    /// The next answer; none if the connection ends before it begins.
    fn hear(&mut self) -> Option<Said> {
        let line = self.line()?;
        let status = line.split(' ').nth(1).expect("a status").parse().unwrap();
        let mut headers = BTreeMap::new();
        while let Some((name, value)) = self.line().expect("a whole head").split_once(": ") {
            headers.insert(name.to_lowercase(), value.to_owned());
        }
        let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
        let mut body = vec![0; length];
        self.reader.read_exact(&mut body).unwrap();
        Some(Said { status, headers, body })
    }

    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        match self.reader.read_line(&mut line) {
            Ok(0) => None,
            Ok(_) => Some(line.trim_end().to_owned()),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => None,
            Err(error) => panic!("{error}"),
        }
    }

    fn ask(&mut self, body: impl AsRef<[u8]>) -> Said {
        self.post(body);
        self.hear().expect("an answer")
    }

    /// It ends, and nothing more is said.
    #[track_caller]
    fn ends(&mut self) {
        if let Some(line) = self.line() {
            panic!("there is more: {line}");
        }
    }
}

fn request(body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let head = "POST /x HTTP/1.1\r\nhost: x\r\ncontent-type: application/octet-stream\r\n";
    let head = format!("{head}content-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

#[test]
fn requests_are_answered_one_after_the_other_over_one_connection() {
    let echo = Echo::default();
    let serving = echo.serve(|server| server);
    let address = serving.local_addr().unwrap();
    assert_eq!(serving.url(), format!("http://{address}"));
    let mut caller = Caller::of(&serving);
    for (body, status) in [("one", 200), ("unknown", 500), ("unavailable", 503), ("panic", 500)] {
        let said = caller.ask(body);
        assert_eq!(said.status, status, "{body}");
        assert_eq!(said.headers.get("connection"), None);
        assert!(status != 200 || said.body == body.as_bytes());
    }
    // Several that are sent before the first is answered are answered in their order.
    caller.send([request("a"), request("b"), request("unknown"), request("c")].concat());
    let heard: Vec<_> = (0..4).map(|_| caller.hear().unwrap()).collect();
    let statuses: Vec<_> = heard.iter().map(|said| said.status).collect();
    assert_eq!(statuses, [200, 200, 500, 200]);
    assert_eq!((&*heard[0].body, &*heard[3].body), (&b"a"[..], &b"c"[..]));
}

#[test]
fn bodies_come_in_chunks_and_wait_to_be_asked_for() {
    let echo = Echo::default();
    let serving = echo.serve(|server| server.body_bytes_max(100));
    let mut caller = Caller::of(&serving);
    caller.send("POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n");
    caller.send("3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n");
    assert_eq!(caller.hear().unwrap().body, b"abcde");

    let expecting = |length, kind| {
        let head = format!("POST / HTTP/1.1\r\nhost: x\r\ncontent-type: {kind}\r\n");
        format!("{head}content-length: {length}\r\nexpect: 100-continue\r\n\r\n")
    };
    caller.send(expecting(3, "application/octet-stream"));
    assert_eq!(caller.hear().unwrap().status, 100);
    caller.send("abc");
    assert_eq!(caller.hear().unwrap().body, b"abc");
    // What is wrong with a head is said before the body is sent.
    for (length, kind, status) in [(3, "text/plain", 415), (101, "application/octet-stream", 413)] {
        let mut caller = Caller::of(&serving);
        caller.send(expecting(length, kind));
        let said = caller.hear().unwrap();
        assert_eq!((said.status, &*said.headers["connection"]), (status, "close"));
        caller.ends();
    }
    assert_eq!(echo.asked(), 2);
}

#[test]
fn what_is_no_request_is_refused() {
    let echo = Echo::default();
    let serving = echo.serve(|server| server);
    for (bytes, status) in [
        (&b"\x00\xff\xfe garbage\r\n\r\n"[..], 400),
        (b"POST / HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", 405),
        (b"PUT / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\nx", 405),
    ] {
        let mut caller = Caller::of(&serving);
        caller.send(bytes);
        let shown = String::from_utf8_lossy(bytes);
        assert_eq!(caller.hear().unwrap().status, status, "{shown}");
    }
    let mut caller = Caller::of(&serving);
    let filler = "x".repeat(100_000);
    // It may be refused before all of it is sent.
    let _ = caller.stream.write_all(format!("POST / HTTP/1.1\r\nx: {filler}\r\n\r\n").as_bytes());
    assert_eq!(caller.hear().unwrap().status, 431);
    assert_eq!(echo.asked(), 0);
}

/// Whoever sends all before it listens would otherwise learn nothing but that the connection was reset.
#[test]
fn who_sends_too_much_hears_so_also_when_all_is_sent() {
    let echo = Echo::default();
    let serving = echo.serve(|server| server.body_bytes_max(1000));
    for announced in [true, false] {
        let mut caller = Caller::of(&serving);
        let body = vec![b'x'; 4 << 20];
        if announced {
            caller.post(&body);
        } else {
            caller.send("POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n");
            caller.send(format!("{:x}\r\n", body.len()));
            caller.send(&body);
            caller.send("\r\n0\r\n\r\n");
        }
        let said = caller.hear().unwrap();
        assert_eq!((said.status, &*said.headers["connection"]), (413, "close"));
        caller.ends();
    }
    assert_eq!(echo.asked(), 0);
}

#[test]
fn a_body_that_ends_early_runs_nothing_and_is_not_answered() {
    let echo = Echo::default();
    let serving = echo.serve(|server| server);
    let request = request("all of it");
    let mut caller = Caller::of(&serving);
    caller.send(&request[..request.len() - 1]);
    caller.stream.shutdown(Shutdown::Write).unwrap();
    caller.ends();
    let mut caller = Caller::of(&serving);
    caller.send("POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3\r\nab");
    caller.stream.shutdown(Shutdown::Write).unwrap();
    caller.ends();
    // A head that is not whole is nothing either.
    let mut caller = Caller::of(&serving);
    caller.send("POST / HTTP/1.1\r\nhost: x\r\n");
    caller.stream.shutdown(Shutdown::Write).unwrap();
    caller.ends();
    assert_eq!(echo.asked(), 0);
}

#[test]
fn an_answer_that_nobody_waits_for_is_dropped() {
    let echo = Echo::default();
    let serving = echo.serve(|server| server);
    let mut caller = Caller::of(&serving);
    caller.post("wait");
    until("it is asked", || echo.asked() == 1);
    drop(caller);
    until("it is dropped", || echo.dropped.load(SeqCst) == 1);
    // Half-closed is the same: there is no telling it from closed.
    let mut caller = Caller::of(&serving);
    caller.post("wait");
    until("it is asked", || echo.asked() == 2);
    caller.stream.shutdown(Shutdown::Write).unwrap();
    caller.ends();
    until("it is dropped", || echo.dropped.load(SeqCst) == 2);
}

#[test]
fn heads_and_bodies_that_do_not_come_are_given_up() {
    let echo = Echo::default();
    let serving = echo.serve(|server| server.head_timeout(SHORT));
    for head in ["P", "PRI * HTT", "POST / HTTP/1.1\r\nhost: x\r\n"] {
        let mut caller = Caller::of(&serving);
        caller.send(head);
        let began = Instant::now();
        // A byte now and then makes it no better.
        while caller.stream.write_all(b"x").is_ok() {
            assert!(began.elapsed() < PATIENCE, "{head} is waited for");
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(began.elapsed() >= SHORT / 2, "{head} had its time");
    }
    // The next request over a connection is no better than the first.
    let mut caller = Caller::of(&serving);
    assert_eq!(caller.ask("hello").status, 200);
    caller.send("POST / HT");
    caller.ends();

    let serving = echo.serve(|server| server.read_timeout(SHORT));
    let mut caller = Caller::of(&serving);
    let request = request("hello");
    caller.send(&request[..request.len() - 2]);
    let said = caller.hear().unwrap();
    assert_eq!((said.status, &*said.headers["connection"]), (408, "close"));
    assert_eq!(said.body, b"the body did not come within 100ms\n");
    caller.ends();
    assert_eq!(echo.asked(), 1);
}

#[test]
fn a_connection_that_nobody_uses_is_closed_and_one_that_is_used_is_not() {
    let echo = Echo::default();
    let serving = echo.serve(|server| server.connection_idle(SHORT));
    Caller::of(&serving).ends();
    let mut caller = Caller::of(&serving);
    assert_eq!(caller.ask("hello").status, 200);
    caller.ends();
    let mut caller = Caller::of(&serving);
    caller.post("wait");
    until("it is asked", || echo.asked() == 2);
    std::thread::sleep(2 * SHORT);
    echo.let_go(1);
    assert_eq!(caller.hear().unwrap().status, 200);
    caller.ends();
}

#[test]
fn answers_that_are_not_taken_end_the_connection_and_slow_ones_do_not() {
    let echo = Echo::default();
    let serving = echo.serve(|server| server.write_timeout(SHORT));
    let mut slow = Caller::of(&serving);
    slow.post("large");
    let said = slow.hear().unwrap();
    assert_eq!((said.status, said.body.len()), (200, LARGE));

    let mut stuck = Caller::of(&serving);
    stuck.post("large");
    until("it is asked", || echo.asked() == 2);
    assert_eq!(within(serving.shutdown()), Ended::default(), "it is over by itself");
    let mut rest = Vec::new();
    let _ = stuck.reader.read_to_end(&mut rest);
    assert!(rest.len() < LARGE);
}

#[test]
fn only_so_many_connections_are_there_and_others_wait() {
    let echo = Echo::default();
    let serving = echo.serve(|server| server.connections_max(2));
    let mut callers: Vec<_> = (0..3).map(|_| Caller::of(&serving)).collect();
    callers[2].post("third");
    for caller in &mut callers[..2] {
        assert_eq!(caller.ask("hello").status, 200);
    }
    assert_eq!(echo.asked(), 2);
    drop(callers.remove(0));
    assert_eq!(callers[1].hear().unwrap().body, b"third");
}

#[test]
fn a_shutdown_answers_what_was_begun_and_takes_no_more() {
    let echo = Echo::default();
    let serving = echo.serve(|server| server.health("/healthz"));
    let mut idle = Caller::of(&serving);
    assert_eq!(idle.ask("hello").status, 200);
    idle.send("GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n");
    assert_eq!(idle.hear().unwrap().status, 200);
    let mut callers: Vec<_> = (0..20).map(|_| Caller::of(&serving)).collect();
    callers.iter_mut().for_each(|caller| caller.post("wait"));
    until("all are asked", || echo.asked() == 21);
    let address = serving.local_addr().unwrap();
    let shutdown = runtime().spawn(serving.shutdown());
    idle.ends();
    until("nobody can connect", || TcpStream::connect(address).is_err());
    assert!(!shutdown.is_finished());
    echo.let_go(20);
    for caller in &mut callers {
        let said = caller.hear().unwrap();
        assert_eq!((said.status, &*said.headers["connection"]), (200, "close"));
        caller.ends();
    }
    let ended = within(shutdown).unwrap();
    assert!(ended.is_graceful(), "{ended:?}");
}

#[test]
fn a_shutdown_sends_answers_to_their_end() {
    let echo = Echo::default();
    let serving = echo.serve(|server| server);
    let mut caller = Caller::of(&serving);
    caller.post("large");
    let address = serving.local_addr().unwrap();
    // It has begun to come, and more of it is there than fits anywhere.
    let line = caller.line().unwrap();
    assert_eq!(line, "HTTP/1.1 200 OK");
    let shutdown = runtime().spawn(serving.shutdown());
    until("nobody can connect", || TcpStream::connect(address).is_err());
    let mut rest = Vec::new();
    caller.reader.read_to_end(&mut rest).unwrap();
    assert!(rest.len() > LARGE, "{}", rest.len());
    assert!(within(shutdown).unwrap().is_graceful());
}

#[test]
fn the_grace_time_cuts_what_hangs() {
    let echo = Echo::default();
    let serving = echo.serve(|server| server.grace(SHORT));
    let mut callers: Vec<_> = (0..3).map(|_| Caller::of(&serving)).collect();
    callers.iter_mut().for_each(|caller| caller.post("wait"));
    until("all are asked", || echo.asked() == 3);
    let began = Instant::now();
    let ended = within(serving.shutdown());
    assert!(began.elapsed() >= SHORT);
    assert_eq!((ended.connections_cut, ended.requests_cut), (3, 3));
    callers.iter_mut().for_each(Caller::ends);
    assert_eq!(echo.dropped.load(SeqCst), 3);
}

#[test]
fn who_drops_a_server_cuts_all_there_is() {
    let echo = Echo::default();
    let serving = echo.serve(|server| server);
    let address = serving.local_addr().unwrap();
    let mut caller = Caller::of(&serving);
    caller.post("wait");
    let mut client = Http2::of(&serving);
    let second = client.post("wait");
    until("both are asked", || echo.asked() == 2);
    drop(serving);
    caller.ends();
    assert!(within(second).unwrap().is_err());
    until("nothing is waited for", || echo.dropped.load(SeqCst) == 2);
    until("nobody can connect", || TcpStream::connect(address).is_err());
}

#[test]
fn health_is_said_where_it_was_asked_for_and_first_when_a_server_leaves() {
    let echo = Echo::default();
    let serving = echo.serve(|server| server.health("/healthz").notice(LONG));
    let mut caller = Caller::of(&serving);
    let mut ask = |what: &str| {
        caller.send(format!("{what} HTTP/1.1\r\nhost: x\r\n\r\n"));
        let status = caller.line().unwrap();
        while !caller.line().unwrap().is_empty() {}
        if what.starts_with("GET") {
            caller.line().unwrap();
        }
        status
    };
    assert_eq!(ask("GET /healthz"), "HTTP/1.1 200 OK");
    assert_eq!(ask("HEAD /healthz"), "HTTP/1.1 200 OK");
    assert_eq!(ask("GET /healthz?x"), "HTTP/1.1 200 OK");
    assert_eq!(ask("GET /"), "HTTP/1.1 405 Method Not Allowed");
    let mut other = Caller::of(&serving);
    other.send("POST /healthz HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\nx");
    assert_eq!(other.hear().unwrap().status, 200);
    let shutdown = serving.shutdown();
    assert_eq!(ask("GET /healthz"), "HTTP/1.1 503 Service Unavailable");
    assert_eq!(other.ask("still").status, 200);
    drop(shutdown);
    other.ends();
}

/// Somebody who speaks HTTP/2.
struct Http2 {
    send: h2::client::SendRequest<Bytes>,
}

impl Http2 {
    fn of(serving: &Serving) -> Self {
        let address = serving.local_addr().unwrap();
        let send = within(async {
            let stream = tokio::net::TcpStream::connect(address).await.unwrap();
            let (send, connection) = h2::client::handshake(stream).await.unwrap();
            tokio::spawn(connection);
            send
        });
        Http2 { send }
    }

    fn post(
        &mut self,
        body: &'static str,
    ) -> tokio::task::JoinHandle<Result<(u16, Vec<u8>), h2::Error>> {
        let send = self.send.clone();
        runtime().spawn(async move {
            let request = http::Request::post("http://x/").body(()).unwrap();
            let (response, mut stream) = send.ready().await?.send_request(request, false)?;
            stream.send_data(Bytes::from_static(body.as_bytes()), true)?;
            let response = response.await?;
            let (head, mut body) = response.into_parts();
            let mut all = Vec::new();
            while let Some(piece) = body.data().await {
                let piece = piece?;
                body.flow_control().release_capacity(piece.len())?;
                all.extend_from_slice(&piece);
            }
            assert_eq!(head.headers["content-length"], all.len().to_string());
            Ok((head.status.as_u16(), all))
        })
    }

    fn ask(&mut self, body: &'static str) -> (u16, Vec<u8>) {
        within(self.post(body)).unwrap().unwrap()
    }
}

#[test]
fn the_same_port_speaks_http2() {
    let echo = Echo::default();
    let serving = echo.serve(|server| server.body_bytes_max(20).streams_max(3));
    let mut client = Http2::of(&serving);
    assert_eq!(client.ask("hello"), (200, b"hello".to_vec()));
    assert_eq!(client.ask("unknown").0, 500);
    assert_eq!(client.ask("").0, 400);
    assert_eq!(client.ask("more than twenty bytes").0, 413);
    assert_eq!(client.ask("panic").0, 500);
    // The connection is not the requests', and no answer waits for another, up to a number.
    let waiting: Vec<_> = (0..5).map(|_| client.post("wait")).collect();
    until("three are asked", || echo.asked() == 6);
    echo.let_go(5);
    for answer in waiting {
        assert_eq!(within(answer).unwrap().unwrap().0, 200);
    }
    assert_eq!(Caller::of(&serving).ask("hello").status, 200);
}

#[test]
fn a_shutdown_over_http2_answers_what_was_begun() {
    let echo = Echo::default();
    let serving = echo.serve(|server| server);
    let (mut client, idle) = (Http2::of(&serving), Http2::of(&serving));
    let waiting: Vec<_> = (0..20).map(|_| client.post("wait")).collect();
    until("all are asked", || echo.asked() == 20);
    let shutdown = runtime().spawn(serving.shutdown());
    // Whoever is sent away cannot ask any more.
    let gone = async {
        let mut client = idle.send.clone();
        while std::future::poll_fn(|cx| client.poll_ready(cx)).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    within(gone);
    assert!(!shutdown.is_finished());
    echo.let_go(20);
    for answer in waiting {
        assert_eq!(within(answer).unwrap().unwrap().0, 200);
    }
    assert!(within(shutdown).unwrap().is_graceful());
}

#[test]
fn an_idle_or_silent_connection_of_http2_ends() {
    let echo = Echo::default();
    let serving = echo.serve(|server| server.connection_idle(SHORT).head_timeout(SHORT));
    let mut client = Http2::of(&serving);
    assert_eq!(client.ask("hello").0, 200);
    let gone = async {
        let mut client = client.send.clone();
        while std::future::poll_fn(|cx| client.poll_ready(cx)).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    within(gone);
    // One who never says anything after the preface is cut in the end.
    let mut silent = Caller::of(&serving);
    silent.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
    let mut rest = Vec::new();
    let _ = silent.reader.read_to_end(&mut rest);
}

/// Many ask as fast as they can while the server ends: each request is answered, or its connection ended before it.
#[test]
fn a_shutdown_under_load_loses_no_answer() {
    for http2 in [false, true] {
        let echo = Echo::default();
        let serving = echo.serve(|server| server);
        let answered = Arc::new(AtomicUsize::new(0));
        let lost = Arc::new(Mutex::new(Vec::new()));
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let (answered, lost) = (Arc::clone(&answered), Arc::clone(&lost));
                let (mut caller, mut client) =
                    (Caller::of(&serving), http2.then(|| Http2::of(&serving)));
                std::thread::spawn(move || {
                    loop {
                        let said = match &mut client {
                            Some(client) => within(client.post("hello")).unwrap().ok(),
                            None => match caller.stream.write_all(&request("hello")) {
                                Ok(()) => caller.hear().map(|said| (said.status, said.body)),
                                Err(_) => None,
                            },
                        };
                        let Some((status, body)) = said else { return };
                        if (status, &*body) != (200, b"hello") {
                            lost.lock().unwrap().push(status);
                        }
                        answered.fetch_add(1, SeqCst);
                    }
                })
            })
            .collect();
        until("there is load", || answered.load(SeqCst) > 200);
        let ended = within(serving.shutdown());
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert!(ended.is_graceful(), "{ended:?}");
        assert_eq!(*lost.lock().unwrap(), [0_u16; 0]);
        assert_eq!(echo.asked(), answered.load(SeqCst), "what was begun was answered");
    }
}

#[test]
fn settings_and_addresses_that_are_wrong_are_errors() {
    let bind = |server: Server, address: &str| {
        runtime().block_on(server.bind(address)).expect_err("it is wrong")
    };
    let server = || Server::new(Echo::default());
    for (wrong, said) in [
        (server().body_bytes_max(0), "body_bytes_max is 0"),
        (server().connections_max(0), "connections_max is 0"),
        (server().streams_max(0), "streams_max is 0"),
        (server().head_timeout(Duration::ZERO), "head_timeout is 0"),
        (server().read_timeout(Duration::ZERO), "read_timeout is 0"),
        (server().body_timeout(Duration::ZERO), "body_timeout is 0"),
        (server().write_timeout(Duration::ZERO), "write_timeout is 0"),
        (server().connection_idle(Duration::ZERO), "connection_idle is 0"),
        (server().health("healthz"), "health is at \"healthz\", which is no path"),
    ] {
        let error = bind(wrong, "127.0.0.1:0");
        assert!(error.is_setting());
        assert_eq!(error.to_string(), said);
    }
    let serving = Echo::default().serve(|server| server.read_timeout(Duration::MAX));
    let taken = serving.local_addr().unwrap().to_string();
    let error = bind(server(), &taken);
    assert!(error.is_in_use() && !error.is_denied(), "{error:?}");
    assert_eq!(error.to_string(), format!("cannot listen at {taken}"));
    assert!(std::error::Error::source(&error).is_some());
    assert!(bind(server(), "no port").is_unresolved());
    // Times that are never over are times.
    let never = server().head_timeout(Duration::MAX).connection_idle(Duration::MAX);
    let never = never.write_timeout(Duration::MAX).grace(Duration::MAX);
    let never = runtime().block_on(never.bind("127.0.0.1:0")).unwrap();
    assert_eq!(Caller::of(&never).ask("hello").status, 200);
    assert!(within(never.shutdown()).is_graceful());
}

//! Functions over gRPC do what they do over HTTP, for who calls and for who serves, whatever the other side
//! sends.
//!
//! The other side is this library in some tests, and frames that are written by hand over `h2` in the others.

#[path = "support/protocol.rs"]
mod protocol;
#[path = "support/server.rs"]
mod server;
#[cfg(unix)]
#[path = "support/sockets.rs"]
mod sockets;
mod support;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::server::SendResponse;
use http::{HeaderMap, HeaderValue, Request, Response};
use protocol::*;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use timely_statefun::serve::{self, Ended, Refusal, RequestReply, Server, Serving};
use timely_statefun::{CallError, Endpoint, Envelope, OnFailure, Pem, TraceContext, TypedValue};
use timely_statefun_proto::Message;
use timely_statefun_proto::reqreply::{ToFunction, to_function};
use timely_statefun_proto::service_names::INVOKE_PATH;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

const MILLI: Duration = Duration::from_millis(1);
/// What a test waits for at most, which is never reached where all is well.
const PATIENCE: Duration = Duration::from_secs(30);

fn frame(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[0], &length[..], message].concat()
}

/// The greeter, or what bytes say that are no request.
#[derive(Clone)]
struct Greeter {
    asked: Arc<AtomicUsize>,
    /// So many of those who asked to "wait" may go on.
    gate: Arc<Semaphore>,
}

impl Default for Greeter {
    fn default() -> Self {
        Greeter { asked: Arc::default(), gate: Arc::new(Semaphore::new(0)) }
    }
}

impl RequestReply for Greeter {
    fn answer(&self, request: Bytes) -> serve::Answer {
        self.asked.fetch_add(1, SeqCst);
        let answer = match &*request {
            b"wait" => {
                let gate = Arc::clone(&self.gate);
                return Box::pin(async move {
                    gate.acquire().await.unwrap().forget();
                    Ok(Bytes::from_static(b"waited"))
                });
            }
            b"echo" => Ok(request),
            b"nothing" => Ok(Bytes::new()),
            b"malformed" => Err(Refusal::Malformed("it is\nstrange: ä%".to_owned())),
            b"unknown" => Err(Refusal::Unknown("shop/cart".to_owned())),
            b"failed" => Err(Refusal::Failed("it failed".to_owned())),
            b"unavailable" => Err(Refusal::Unavailable("not yet".to_owned())),
            b"panic" => panic!("a secret"),
            _ => match ToFunction::decode(request) {
                Ok(ToFunction { request: Some(to_function::Request::Invocation(batch)) }) => {
                    let server::Answer::Ok(answer) = greeter(&batch) else { panic!("it answers") };
                    Ok(answer.into())
                }
                _ => Err(Refusal::Malformed("it is no batch".to_owned())),
            },
        };
        Box::pin(async { answer })
    }
}

fn serving(greeter: &Greeter, address: &str) -> Serving {
    runtime().block_on(Server::new(greeter.clone()).bind(address)).unwrap()
}

fn quick(url: &str) -> Endpoint {
    let endpoint = Endpoint::at(url).on_failure(OnFailure::DeadLetter);
    endpoint.retry_first(MILLI).retry_longest(20 * MILLI)
}

fn visits(times: u64, people: u64) -> Vec<(u64, Envelope<TypedValue>)> {
    let visits = (0..times).flat_map(|time| (0..people).map(move |person| (time, person)));
    visits.map(|(time, person)| greet(time, &format!("person{person}"))).collect()
}

fn greetings(endpoint: Endpoint, messages: Vec<(u64, Envelope<TypedValue>)>) -> BTreeSet<String> {
    let count = messages.len();
    let ran = run_on(2, move || remote(endpoint.clone()), messages);
    assert!(ran.letters.is_empty() && ran.stopped.is_none(), "{:?}", ran.letters.first());
    let greetings: BTreeSet<_> =
        ran.greetings.into_iter().map(|(time, text)| format!("{time}: {text}")).collect();
    assert_eq!(greetings.len(), count);
    greetings
}

/// What went wrong with each attempt at one call, and why it was given up.
fn given_up(endpoint: Endpoint, again: bool) -> (Vec<CallError>, String) {
    let errors = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&errors);
    let endpoint = endpoint.on_failure(OnFailure::DeadLetter).retry_if(move |error| {
        seen.lock().unwrap().push(error.clone());
        again
    });
    let ran = run_on(1, move || remote(endpoint.clone()), visits(1, 1));
    assert!(ran.greetings.is_empty() && ran.stopped.is_none(), "{ran:?}");
    let [letter] = &ran.letters[..] else { panic!("{ran:?}") };
    let errors = errors.lock().unwrap().clone();
    (errors, letter.reason.to_string())
}

/// Why a call was given up after one attempt.
fn failed(url: &str, how: impl FnOnce(Endpoint) -> Endpoint) -> CallError {
    let (errors, letter) = given_up(how(quick(url).grpc()), false);
    let [error] = &errors[..] else { panic!("{errors:?}") };
    assert!(letter.contains(&error.to_string()), "{letter}");
    error.clone()
}

#[test]
fn what_functions_do_is_the_same_over_grpc_and_over_http_on_one_port() {
    let greeter = Greeter::default();
    let serving = serving(&greeter, "127.0.0.1:0");
    let messages = || visits(20, 20);
    let expected = greetings(quick(serving.url()), messages());
    assert_eq!(greetings(quick(serving.url()).http2(true), messages()), expected);
    assert_eq!(greetings(quick(serving.url()).grpc(), messages()), expected);
    assert!(runtime().block_on(serving.shutdown()).is_graceful());
}

#[test]
fn requests_and_answers_may_be_larger_than_a_window() {
    let serving = serving(&Greeter::default(), "127.0.0.1:0");
    let large = "large".repeat(200_000);
    let messages: Vec<_> = (0..3).map(|time| (time, GREETER.message("x", large.clone()))).collect();
    let expected = greetings(quick(serving.url()), messages.clone());
    assert_eq!(greetings(quick(serving.url()).grpc(), messages), expected);
}

#[test]
#[cfg(unix)]
fn what_functions_do_is_the_same_over_a_socket() {
    let directory = sockets::Directory::new();
    let path = directory.at("example.sock");
    let server = Server::new(Greeter::default());
    let serving = runtime().block_on(server.bind_unix(&path)).unwrap();
    let expected = greetings(quick(serving.url()), visits(5, 5));
    assert_eq!(greetings(quick(serving.url()).grpc(), visits(5, 5)), expected);
}

#[test]
fn a_server_goes_away_and_comes_back_and_no_message_is_lost() {
    let greeter = Greeter::default();
    let first = serving(&greeter, "127.0.0.1:0");
    let address = first.local_addr().unwrap();
    let (asked, done) = (Arc::clone(&greeter.asked), Arc::new(AtomicUsize::new(0)));
    let over = Arc::clone(&done);
    let replacing = std::thread::spawn(move || {
        let (mut current, mut replaced) = (first, 0);
        while over.load(SeqCst) == 0 {
            let before = asked.load(SeqCst);
            while over.load(SeqCst) == 0 && asked.load(SeqCst) < before + 50 {
                std::thread::yield_now();
            }
            assert_eq!(runtime().block_on(current.shutdown()), Ended::default());
            current = serving(&greeter, &address.to_string());
            replaced += 1;
        }
        replaced
    });
    let all = greetings(quick(&format!("http://{address}")).grpc(), visits(30, 20));
    done.store(1, SeqCst);
    let replaced: usize = replacing.join().unwrap();
    assert_eq!(all.len(), 600);
    assert!(replaced > 2, "{replaced}");
}

#[test]
fn a_url_says_who_is_asked_and_nothing_more() {
    let greeter = |url: &str, how: fn(Endpoint) -> Endpoint| {
        let endpoint = how(Endpoint::at(url).grpc());
        remote(endpoint).check().map_err(|error| error.to_string())
    };
    let same = |endpoint| endpoint;
    for url in ["http://localhost", "http://localhost:8000/", "http://{function.name}.local:80"] {
        assert_eq!(greeter(url, same), Ok(()), "{url}");
    }
    for url in ["http://a/{function.name}", "http://a/b", "http://a/?b", "http://a#b"] {
        let error = greeter(url, same).unwrap_err();
        assert!(error.contains("a path of its own"), "{error}");
    }
    let reserved = |endpoint: Endpoint| endpoint.header("grpc-timeout", "1S");
    let error = greeter("http://a", reserved).unwrap_err();
    assert!(error.contains("grpc-timeout") && error.contains("for itself"), "{error}");
}

// --- A server that is written by hand.

/// What to answer a request with.
enum Say {
    /// The head, pieces of the body, and what comes behind it, if anything does.
    All(Response<()>, Vec<Bytes>, Option<HeaderMap>),
    /// The head, a part of the body, and then nothing any more.
    Hang(Option<(Response<()>, Bytes)>),
    Reset,
}

struct Heard {
    head: http::request::Parts,
    body: Vec<u8>,
}

struct ByHand {
    url: String,
    accepting: JoinHandle<()>,
}

impl Drop for ByHand {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// What is said to whoever asks.
type Speaker = Arc<dyn Fn(Heard) -> Say + Send + Sync>;

fn by_hand(say: impl Fn(Heard) -> Say + Send + Sync + 'static) -> ByHand {
    by_hand_with(None, say)
}

fn by_hand_with(
    tls: Option<TlsAcceptor>,
    say: impl Fn(Heard) -> Say + Send + Sync + 'static,
) -> ByHand {
    let say: Speaker = Arc::new(say);
    let listener = runtime().block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let port = listener.local_addr().unwrap().port();
    let url = match tls {
        Some(_) => format!("https://localhost:{port}"),
        None => format!("http://127.0.0.1:{port}"),
    };
    let accepting = runtime().spawn(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else { return };
            let (say, tls) = (Arc::clone(&say), tls.clone());
            tokio::spawn(async move {
                match tls {
                    None => speak(stream, say).await,
                    Some(tls) => {
                        let Ok(stream) = tls.accept(stream).await else { return };
                        speak(stream, say).await;
                    }
                }
            });
        }
    });
    ByHand { url, accepting }
}

async fn speak(stream: impl AsyncRead + AsyncWrite + Unpin, say: Speaker) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    while let Some(Ok((request, respond))) = connection.accept().await {
        let say = Arc::clone(&say);
        tokio::spawn(async move { drop(hear(request, respond, &*say).await) });
    }
}

async fn hear(
    request: Request<h2::RecvStream>,
    mut respond: SendResponse<Bytes>,
    say: &(dyn Fn(Heard) -> Say + Send + Sync),
) -> Result<(), h2::Error> {
    let (head, mut body) = request.into_parts();
    let mut bytes = Vec::new();
    while let Some(piece) = body.data().await {
        let piece = piece?;
        bytes.extend_from_slice(&piece);
        body.flow_control().release_capacity(piece.len())?;
    }
    match say(Heard { head, body: bytes }) {
        Say::All(head, pieces, trailers) => {
            let empty = pieces.is_empty() && trailers.is_none();
            let mut sent = respond.send_response(head, empty)?;
            let last = pieces.len();
            for (at, piece) in pieces.into_iter().enumerate() {
                sent.send_data(piece, at + 1 == last && trailers.is_none())?;
            }
            if let Some(trailers) = trailers {
                sent.send_trailers(trailers)?;
            }
        }
        Say::Hang(begun) => {
            let mut sent = None;
            if let Some((head, piece)) = begun {
                let mut stream = respond.send_response(head, false)?;
                stream.send_data(piece, false)?;
                sent = Some(stream);
            }
            std::future::pending::<()>().await;
            drop(sent);
        }
        Say::Reset => respond.send_reset(h2::Reason::INTERNAL_ERROR),
    }
    Ok(())
}

fn head() -> Response<()> {
    Response::builder().header("content-type", "application/grpc+proto").body(()).unwrap()
}

fn fields(fields: &[(&'static str, &str)]) -> HeaderMap {
    let field = |&(name, value): &(&'static str, &str)| {
        (http::HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
    };
    fields.iter().map(field).collect()
}

fn ok(body: &[u8]) -> Say {
    let pieces = vec![Bytes::copy_from_slice(body)];
    Say::All(head(), pieces, Some(fields(&[("grpc-status", "0")])))
}

/// A status without a message, in the head.
fn status(trailers: &[(&'static str, &str)]) -> Say {
    let mut head = head();
    head.headers_mut().extend(fields(trailers));
    Say::All(head, Vec::new(), None)
}

#[test]
fn a_request_is_what_a_server_of_grpc_expects() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&seen);
    let server = by_hand(move |heard| {
        let server::Answer::Ok(answer) = greeter(&asked(&heard.body[5..])) else { panic!() };
        assert_eq!(heard.body, frame(&heard.body[5..]));
        told.lock().unwrap().push(heard.head);
        // In pieces that are no frames.
        let body = frame(&answer);
        let pieces = body.chunks(3).map(Bytes::copy_from_slice).collect();
        Say::All(head(), pieces, Some(fields(&[("grpc-status", "0"), ("x-other", "y")])))
    });
    let endpoint =
        quick(&server.url).grpc().header("x-tenant", "north").header("x-key-bin", "AAEC");
    let endpoint = endpoint.call_timeout(Duration::from_secs(20));
    assert_eq!(greetings(endpoint, visits(1, 1)).len(), 1);
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 2);
    for head in &*seen {
        assert_eq!((head.method.as_str(), head.uri.path()), ("POST", INVOKE_PATH));
        for (name, value) in [
            ("content-type", "application/grpc"),
            ("te", "trailers"),
            ("user-agent", "statefun"),
            ("x-tenant", "north"),
            ("x-key-bin", "AAEC"),
        ] {
            let found: Vec<_> = head.headers.get_all(name).iter().collect();
            assert_eq!(found, [value], "{name}");
        }
        let left = head.headers["grpc-timeout"].to_str().unwrap();
        let micros: u64 = left.strip_suffix('u').unwrap().parse().unwrap();
        assert!((1_000_000..=20_000_000).contains(&micros), "{left}");
    }
}

#[test]
fn a_call_over_grpc_says_to_which_trace_it_belongs_if_the_program_says_so() {
    for is_traced in [false, true] {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&seen);
        let server = by_hand(move |heard| {
            let server::Answer::Ok(answer) = greeter(&asked(&heard.body[5..])) else { panic!() };
            told.lock().unwrap().push(heard.head);
            ok(&frame(&answer))
        });
        let endpoint = quick(&server.url).grpc();
        let functions = move || match is_traced {
            true => remote(endpoint.clone()).traced(),
            false => remote(endpoint.clone()),
        };
        assert_eq!(run_on(1, functions, vec![greet(0, "ann")]).greetings.len(), 1);
        let seen = seen.lock().unwrap();
        let said = seen.iter().map(|head| {
            let said: Vec<_> = head.headers.get_all("traceparent").iter().collect();
            assert_eq!(said.len(), usize::from(is_traced));
            said.first().map(|said| said.to_str().unwrap().parse::<TraceContext>().unwrap())
        });
        let said: Vec<Option<TraceContext>> = said.collect();
        assert!(said.len() == 2 && (!is_traced || said[0] != said[1]), "{said:?}");
    }
}

/// Who calls over gRPC and says nothing of HTTP/2 offered HTTP/1.1 in the handshake, which servers of gRPC refuse.
#[test]
fn a_server_with_tls_that_speaks_nothing_but_http2_is_called() {
    let mut authority = CertificateParams::new(Vec::<String>::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(["localhost".to_owned()]).unwrap();
    let certificate = certificate.signed_by(&key, &authority).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let chain = vec![CertificateDer::from(certificate.der().to_vec())];
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let mut config = config.with_single_cert(chain, key).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let server = by_hand_with(Some(TlsAcceptor::from(Arc::new(config))), |heard| {
        let server::Answer::Ok(answer) = greeter(&asked(&heard.body[5..])) else { panic!() };
        ok(&frame(&answer))
    });
    let endpoint = quick(&server.url).grpc().trusted_roots(Pem::bytes(authority.pem()));
    greetings(endpoint.call_timeout(Duration::from_secs(5)), visits(3, 3));
}

#[test]
fn each_status_is_tried_again_as_the_table_says() {
    for (code, name, http, again) in [
        (1, "CANCELLED", 499, true),
        (2, "UNKNOWN", 500, true),
        (3, "INVALID_ARGUMENT", 400, false),
        (4, "DEADLINE_EXCEEDED", 504, true),
        (5, "NOT_FOUND", 404, true),
        (6, "ALREADY_EXISTS", 409, true),
        (7, "PERMISSION_DENIED", 403, false),
        (8, "RESOURCE_EXHAUSTED", 429, true),
        (9, "FAILED_PRECONDITION", 400, false),
        (10, "ABORTED", 409, true),
        (11, "OUT_OF_RANGE", 400, false),
        (12, "UNIMPLEMENTED", 501, true),
        (13, "INTERNAL", 500, true),
        (14, "UNAVAILABLE", 503, true),
        (15, "DATA_LOSS", 500, true),
        (16, "UNAUTHENTICATED", 401, false),
        (2, "UNKNOWN", 500, true),
    ] {
        for in_head in [true, false] {
            let server = by_hand(move |_| {
                let said = code.to_string();
                // What is behind a percent sign is escaped, and details are bytes that mean nothing here.
                let said = [
                    ("grpc-status", said.as_str()),
                    ("grpc-message", "no%0Atime"),
                    ("grpc-status-details-bin", "?!"),
                ];
                match in_head {
                    true => status(&said),
                    false => Say::All(head(), vec![], Some(fields(&said))),
                }
            });
            let error = failed(&server.url, |endpoint| endpoint);
            assert_eq!((error.grpc_status(), error.status()), (Some(code), Some(http)), "{error}");
            assert_eq!(error.to_string(), format!("the answer is {name}: no time"));
            assert_eq!(error.may_pass(), again, "{error}");
        }
    }
    let server = by_hand(|_| status(&[("grpc-status", "77")]));
    assert_eq!(failed(&server.url, |endpoint| endpoint).grpc_status(), Some(2));
    let long = "x".repeat(5000);
    let server = by_hand(move |_| status(&[("grpc-status", "3"), ("grpc-message", &long)]));
    let error = failed(&server.url, |endpoint| endpoint);
    assert!(error.to_string().len() < 400, "{error}");
}

/// A message behind which an error follows is none.
#[test]
fn a_message_counts_when_its_status_says_so() {
    let server = by_hand(|_| {
        let trailers = Some(fields(&[("grpc-status", "13"), ("grpc-message", "after all")]));
        Say::All(head(), vec![frame(&[0xa2, 6, 0]).into()], trailers)
    });
    let error = failed(&server.url, |endpoint| endpoint);
    assert_eq!((error.grpc_status(), error.may_pass()), (Some(13), true));
}

#[test]
fn a_server_that_asks_to_be_left_alone_is_waited_for() {
    let calls = AtomicUsize::new(0);
    let server = by_hand(move |heard| match calls.fetch_add(1, SeqCst) {
        0 => status(&[("grpc-status", "14"), ("grpc-retry-pushback-ms", "300")]),
        _ => {
            let server::Answer::Ok(answer) = greeter(&asked(&heard.body[5..])) else { panic!() };
            ok(&frame(&answer))
        }
    });
    let began = std::time::Instant::now();
    let endpoint = quick(&server.url).grpc().retry_longest(Duration::from_secs(9));
    greetings(endpoint, visits(1, 1));
    assert!(began.elapsed() >= Duration::from_millis(300));
}

/// What somebody says each time.
type Saying = Box<dyn Fn() -> Say + Send + Sync>;

#[test]
fn whoever_is_no_server_of_grpc_is_said_to_be_none() {
    type Check = fn(&CallError) -> bool;
    let compressed = [&[1], &frame(&[0xa2, 6, 0])[1..]].concat();
    let two = [frame(&[0xa2, 6, 0]), frame(&[])].concat();
    let announced = [0, 0xff, 0xff, 0xff, 0xff];
    let other = |status: u16, kind: &str, text: &'static str| {
        let head = Response::builder().status(status).header("content-type", kind);
        (head.body(()).unwrap(), vec![Bytes::from_static(text.as_bytes())])
    };
    let meaningless: Check = CallError::is_meaningless;
    let lost: Check = CallError::is_lost;
    let gzip = || {
        let head = Response::builder().header("content-type", "application/grpc");
        head.header("grpc-encoding", "gzip").body(()).unwrap()
    };
    let zero = || Some(fields(&[("grpc-status", "0")]));
    let cases: Vec<(&str, Check, Saying)> = vec![
        ("compressed", meaningless, Box::new(move || ok(&compressed))),
        ("compression", meaningless, Box::new(|| ok(b"garbage, and more of it"))),
        ("more behind", meaningless, Box::new(move || ok(&two))),
        ("more behind", meaningless, Box::new(|| ok(&[&frame(b"")[..], &[0, 0]].concat()))),
        ("larger than 33554432", meaningless, Box::new(move || ok(&announced))),
        ("Missing", meaningless, Box::new(|| ok(&frame(b"abc")[..6]))),
        ("Missing", meaningless, Box::new(|| ok(&[]))),
        ("Missing", meaningless, Box::new(|| status(&[("grpc-status", "0")]))),
        ("malformed", meaningless, Box::new(|| ok(&frame(&[0xff; 4])))),
        ("gzip", meaningless, Box::new(move || Say::All(gzip(), vec![], zero()))),
        ("without a status", lost, Box::new(|| Say::All(head(), vec![frame(b"").into()], None))),
        ("", lost, Box::new(|| Say::Reset)),
        (
            "content type is \"text/html\"",
            meaningless,
            Box::new(move || {
                let (head, body) = other(200, "text/html", "hello");
                Say::All(head, body, None)
            }),
        ),
        (
            "503 Service Unavailable: no healthy upstream",
            |error| error.status() == Some(503) && error.grpc_status().is_none(),
            Box::new(move || {
                let (head, body) = other(503, "text/plain", "no healthy\nupstream");
                Say::All(head, body, None)
            }),
        ),
    ];
    for (text, check, say) in cases {
        let server = by_hand(move |_| say());
        let error = failed(&server.url, |endpoint| endpoint);
        assert!(check(&error) && error.to_string().contains(text), "{text}: {error:?}");
    }
    let plain = server::Server::start(|_| server::Answer::status(400, "no"));
    let origin = format!("http://{}", plain.address);
    let error = failed(&origin, |endpoint| endpoint.read_timeout(Duration::from_secs(2)));
    // What the answer looks like to HTTP/2 depends on how much of it has come.
    assert!(error.is_lost() && error.to_string().contains("HTTP"), "{error:?}");
}

#[test]
fn an_answer_has_no_more_bytes_and_effects_than_it_may() {
    let exact = || vec![Bytes::from(frame(&[0xa2, 6, 0]))];
    let server = by_hand(move |_| Say::All(head(), exact(), Some(fields(&[("grpc-status", "0")]))));
    let endpoint = quick(&server.url).grpc().response_bytes_max(3);
    let ran = run_on(1, move || remote(endpoint.clone()), visits(1, 1));
    assert!(ran.letters.is_empty(), "{ran:?}");
    let error = failed(&server.url, |endpoint| endpoint.response_bytes_max(2));
    assert!(error.is_meaningless(), "{error:?}");
    assert_eq!(error.to_string(), "the answer is larger than 2 bytes");
    // Many messages are no way around it.
    let server = by_hand(|_| ok(&frame(&[]).repeat(100)));
    let error = failed(&server.url, |endpoint| endpoint.response_bytes_max(100));
    assert_eq!(error.to_string(), "the answer is larger than 100 bytes");
    let five = [&[0xa2, 6, 10][..], &[0x12, 0].repeat(5)].concat();
    let server = by_hand(move |_| ok(&frame(&five)));
    let error = failed(&server.url, |endpoint| endpoint.effects_max(4));
    assert!(error.is_meaningless() && error.to_string().contains("effects_max: 4"), "{error:?}");
}

#[test]
fn a_server_that_hangs_is_given_up_in_time() {
    let short = Duration::from_millis(200);
    let begun = || (head(), Bytes::from_static(&[0, 0]));
    for (begin, text) in [(false, "there was no answer for"), (true, "the answer made no progress")]
    {
        let server = by_hand(move |_| Say::Hang(begin.then(begun)));
        let error = failed(&server.url, |endpoint| endpoint.read_timeout(short));
        assert!(error.is_stalled() && error.to_string().contains(text), "{error:?}");
        let began = std::time::Instant::now();
        let (errors, letter) = given_up(quick(&server.url).grpc().call_timeout(short), true);
        assert!(letter.contains("no answer in time") || !errors.is_empty(), "{letter}");
        assert!(began.elapsed() >= short && began.elapsed() < PATIENCE);
    }
}

// --- A client that is written by hand.

struct Said {
    head: http::response::Parts,
    body: Vec<u8>,
    trailers: HeaderMap,
}

impl Said {
    fn header(&self, name: &str) -> Option<&str> {
        let found = self.trailers.get(name).or_else(|| self.head.headers.get(name));
        found.map(|value| value.to_str().unwrap())
    }

    fn status(&self) -> (&str, String) {
        assert_eq!(self.head.status, 200);
        assert_eq!(self.head.headers["content-type"], "application/grpc");
        let message = self.header("grpc-message").unwrap_or_default();
        (self.header("grpc-status").expect("there is a status"), message.to_owned())
    }
}

struct Client {
    send: SendRequest<Bytes>,
}

impl Client {
    fn of(address: SocketAddr) -> Self {
        runtime().block_on(async {
            let stream = TcpStream::connect(address).await.unwrap();
            let (send, connection) = h2::client::handshake(stream).await.unwrap();
            tokio::spawn(connection);
            Client { send }
        })
    }

    fn request(&self, path: &str, headers: &[(&'static str, &str)], body: &[u8]) -> Said {
        let request = Request::builder().method("POST").uri(format!("http://a{path}"));
        let mut request = request.body(()).unwrap();
        let typed = headers.iter().any(|(name, _)| *name == "content-type");
        if !typed {
            let kind = HeaderValue::from_static("application/grpc");
            request.headers_mut().insert("content-type", kind);
        }
        request.headers_mut().extend(fields(headers));
        let asking = async {
            let mut send = self.send.clone().ready().await.unwrap();
            let (response, mut stream) = send.send_request(request, false).unwrap();
            // Whoever refuses to read the rest resets the stream.
            let _ = stream.send_data(Bytes::copy_from_slice(body), true);
            let (head, mut stream) = response.await.unwrap().into_parts();
            let mut body = Vec::new();
            while let Some(Ok(piece)) = stream.data().await {
                body.extend_from_slice(&piece);
                stream.flow_control().release_capacity(piece.len()).unwrap();
            }
            let trailers = stream.trailers().await.ok().flatten().unwrap_or_default();
            Said { head, body, trailers }
        };
        runtime().block_on(async { tokio::time::timeout(PATIENCE, asking).await }).unwrap()
    }

    fn invoke(&self, message: &[u8]) -> Said {
        self.request(INVOKE_PATH, &[], &frame(message))
    }
}

#[test]
fn a_served_request_is_answered_or_refused_with_its_status() {
    let serving = serving(&Greeter::default(), "127.0.0.1:0");
    let client = Client::of(serving.local_addr().unwrap());
    for (message, answer) in [(&b"echo"[..], &b"echo"[..]), (b"nothing", b"")] {
        let said = client.invoke(message);
        assert_eq!(said.body, frame(answer));
        assert_eq!(said.status().0, "0");
        assert!(said.trailers.contains_key("grpc-status"), "it comes last");
    }
    for (message, status, text) in [
        (&b"malformed"[..], "3", "the request means nothing: it is strange: %C3%A4%25"),
        (b"unknown", "5", "no function is served here as \"shop/cart\""),
        (b"failed", "2", "it failed"),
        (b"unavailable", "14", "not yet"),
        (b"panic", "13", "answering the request panicked"),
        (b"", "3", "the request is empty"),
    ] {
        let said = client.invoke(message);
        let (code, found) = said.status();
        let found = found.replace("%20", " ").replace("%22", "\"");
        assert_eq!((code, found.as_str()), (status, text));
        assert!(said.body.is_empty());
        let pushback = (status == "14").then_some("1000");
        assert_eq!(said.header("grpc-retry-pushback-ms"), pushback);
    }
}

#[test]
fn a_served_request_that_is_none_says_why() {
    let greeter = Greeter::default();
    let server = Server::new(greeter.clone()).body_bytes_max(100);
    let serving = runtime().block_on(server.bind("127.0.0.1:0")).unwrap();
    let client = Client::of(serving.local_addr().unwrap());
    let echo = frame(b"echo");
    let compressed = [&[1], &echo[1..]].concat();
    let invalid = [&[9], &echo[1..]].concat();
    let two = [&echo[..], &echo].concat();
    for (path, headers, body, status) in [
        ("/other", &[][..], &echo[..], "12"),
        ("/io.statefun.sdk.reqreply.RequestReply/Other", &[], &echo, "12"),
        (INVOKE_PATH, &[("grpc-encoding", "gzip")], &compressed, "12"),
        (INVOKE_PATH, &[], &compressed, "13"),
        (INVOKE_PATH, &[], &invalid, "13"),
        (INVOKE_PATH, &[], &two, "13"),
        (INVOKE_PATH, &[], &echo[..7], "13"),
        (INVOKE_PATH, &[], &echo[..3], "13"),
        (INVOKE_PATH, &[], b"", "13"),
        (INVOKE_PATH, &[], &[0, 0xff, 0xff, 0xff, 0xff], "11"),
        (INVOKE_PATH, &[], &frame(&[b'x'; 101]), "11"),
        (INVOKE_PATH, &[("content-length", "1000")], &frame(&[b'x'; 995]), "11"),
        (INVOKE_PATH, &[("grpc-timeout", "soon")], &echo, "3"),
        (INVOKE_PATH, &[("grpc-timeout", "123456789S")], &echo, "3"),
        (INVOKE_PATH, &[("grpc-timeout", "S")], &echo, "3"),
    ] {
        let said = client.request(path, headers, body);
        assert_eq!(said.status().0, status, "{path} {headers:?} {body:?}");
        assert!(said.body.is_empty());
    }
    assert_eq!(greeter.asked.load(SeqCst), 0);
    // As large as it may be, it is asked about.
    assert_eq!(client.invoke(&[b'x'; 100]).status().0, "3");
    assert_eq!(greeter.asked.load(SeqCst), 1);
    // What is not of gRPC is what it was.
    for (kind, status) in [
        ("application/octet-stream", 200),
        ("application/grpc-web", 415),
        ("application/grpc+json", 415),
    ] {
        let said = client.request("/any", &[("content-type", kind)], b"echo");
        assert_eq!((said.head.status.as_u16(), said.trailers.len()), (status, 0), "{kind}");
    }
    let said = client.request(INVOKE_PATH, &[("content-type", "application/grpc+proto")], &echo);
    assert_eq!(said.status().0, "0");
}

#[test]
fn an_answer_is_dropped_when_the_callers_time_is_over() {
    let greeter = Greeter::default();
    let serving = serving(&greeter, "127.0.0.1:0");
    let client = Client::of(serving.local_addr().unwrap());
    for left in ["50m", "50000u", "50000000n", "0S"] {
        let said = client.request(INVOKE_PATH, &[("grpc-timeout", left)], &frame(b"wait"));
        assert_eq!(said.status().0, "4", "{left}");
    }
    greeter.gate.add_permits(3);
    for left in ["30S", "5M", "99999999H"] {
        let said = client.request(INVOKE_PATH, &[("grpc-timeout", left)], &frame(b"wait"));
        assert_eq!((said.status().0, &said.body[5..]), ("0", &b"waited"[..]), "{left}");
    }
}

#[test]
fn a_server_that_stops_answers_what_it_began() {
    let greeter = Greeter::default();
    let serving = serving(&greeter, "127.0.0.1:0");
    let client = Client::of(serving.local_addr().unwrap());
    let waiting = std::thread::spawn(move || client.invoke(b"wait"));
    while greeter.asked.load(SeqCst) == 0 {
        std::thread::yield_now();
    }
    let stopping = runtime().spawn(serving.shutdown());
    greeter.gate.add_permits(1);
    assert_eq!(waiting.join().unwrap().body, frame(b"waited"));
    assert!(runtime().block_on(stopping).unwrap().is_graceful());
}

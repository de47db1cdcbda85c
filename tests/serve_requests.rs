//! A request over HTTP is answered as its head, its body and the functions say, and mounts in any router.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, Version};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Full};
use timely_statefun::serve::{Answer, HttpService, Refusal, RequestReply, ResponseBody};
use tokio::runtime::Runtime;
use tower_service::Service;

/// Answers with what it is asked, or as that says; counts what it is asked.
#[derive(Clone, Default)]
struct Echo {
    asked: Arc<AtomicUsize>,
}

impl RequestReply for Echo {
    fn answer(&self, request: Bytes) -> Answer {
        self.asked.fetch_add(1, SeqCst);
        let said = String::from_utf8_lossy(&request).into_owned();
        let (what, why) = said.split_once(' ').unwrap_or((&said, ""));
        let why = why.to_owned();
        let answer = match what {
            "malformed" => Err(Refusal::Malformed(why)),
            "unknown" => Err(Refusal::Unknown(why)),
            "failed" => Err(Refusal::Failed(why)),
            "unavailable" => Err(Refusal::Unavailable(why)),
            "panic" => panic!("a secret"),
            "panic_later" => return Box::pin(async { panic!("a secret") }),
            "nothing" => Ok(Bytes::new()),
            _ => Ok(request),
        };
        Box::pin(async { answer })
    }
}

/// A body of pieces, after which it ends, fails or goes on for ever without another.
struct Pieces {
    pieces: VecDeque<Bytes>,
    end: End,
}

#[derive(Copy, Clone, Debug, PartialEq)]
enum End {
    Whole,
    Broken,
    Never,
}

impl Pieces {
    fn of(pieces: &[&'static [u8]], end: End) -> Self {
        Pieces { pieces: pieces.iter().map(|piece| Bytes::from_static(piece)).collect(), end }
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        match (self.pieces.pop_front(), self.end) {
            (Some(piece), _) => Poll::Ready(Some(Ok(Frame::data(piece)))),
            (None, End::Whole) => Poll::Ready(None),
            (None, End::Broken) => Poll::Ready(Some(Err(std::io::ErrorKind::BrokenPipe.into()))),
            (None, End::Never) => Poll::Pending,
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::new()
    }
}

/// Time passes when there is nothing else to do.
fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
}

/// A response: status, headers as text, body as text.
struct Said {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
}

impl Said {
    fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(header, _)| header == name);
        found.map(|(_, value)| value.as_str())
    }
}

fn said(
    service: &HttpService,
    request: Request<impl Body<Data = Bytes, Error: Send> + Send + 'static>,
) -> Said {
    let mut service = service.clone();
    let (head, body) = runtime().block_on(async {
        let response: Result<Response<ResponseBody>, Infallible> = service.call(request).await;
        let (head, body) = response.unwrap().into_parts();
        (head, body.collect().await.unwrap().to_bytes())
    });
    let text = |value: &http::HeaderValue| value.to_str().unwrap().to_owned();
    let headers = head.headers.iter().map(|(name, value)| (name.to_string(), text(value)));
    let said = Said {
        status: head.status.as_u16(),
        headers: headers.collect(),
        body: String::from_utf8(body.to_vec()).unwrap(),
    };
    // What is true of every response.
    assert_eq!(said.header("content-length"), Some(&*said.body.len().to_string()));
    if said.status == 200 {
        assert_eq!(said.header("content-type"), Some("application/octet-stream"));
    } else {
        assert_eq!(said.header("content-type"), Some("text/plain; charset=utf-8"));
        assert_eq!(said.body.lines().count(), 1, "{}", said.body);
        assert!(said.body.ends_with('\n') && said.body.len() < 1100, "{}", said.body);
        assert!(!said.body.contains("secret"), "{}", said.body);
    }
    said
}

fn post(body: &str) -> Request<Full<Bytes>> {
    let request = Request::post("/any/path").header("content-type", "application/octet-stream");
    request.body(Full::from(body.to_owned())).unwrap()
}

#[test]
fn what_is_answered_is_said_as_the_protocol_has_it() {
    let service = HttpService::new(Echo::default());
    let whole = said(&service, post("hello"));
    assert_eq!((whole.status, &*whole.body), (200, "hello"));
    // An answer of no bytes is one.
    assert_eq!((said(&service, post("nothing")).status), 200);
    let pieces = Pieces::of(&[b"he", b"", b"ll", b"o"], End::Whole);
    let pieces = said(&service, Request::post("/").body(pieces).unwrap());
    assert_eq!((pieces.status, &*pieces.body), (200, "hello"));
}

#[test]
fn refusals_are_said_with_their_status_in_one_short_line() {
    let service = HttpService::new(Echo::default());
    for (asked, status, what) in [
        ("malformed it ends early", 400, "the request means nothing: it ends early\n"),
        ("unknown shop/cart", 500, "no function is served here as \"shop/cart\"\n"),
        ("failed two\r\nlines", 500, "two  lines\n"),
        ("unavailable not yet", 503, "not yet\n"),
    ] {
        let said = said(&service, post(asked));
        assert_eq!((said.status, &*said.body), (status, what));
        assert_eq!(said.header("retry-after"), (status == 503).then_some("1"));
        // The body was read, and so the connection can be used again.
        assert_eq!(said.header("connection"), None);
    }
    let long = said(&service, post(&format!("failed {}", "é".repeat(100_000))));
    assert_eq!(long.body, format!("{}…\n", "é".repeat(512)));
}

#[test]
fn a_panic_is_a_failure_and_says_nothing_of_what_it_said() {
    let service = HttpService::new(Echo::default());
    for asked in ["panic", "panic_later"] {
        let said = said(&service, post(asked));
        assert_eq!((said.status, &*said.body), (500, "answering the request panicked\n"));
    }
}

#[test]
fn only_post_is_answered() {
    let echo = Echo::default();
    let service = HttpService::new(echo.clone());
    for method in [Method::GET, Method::HEAD, Method::PUT, Method::DELETE, Method::OPTIONS] {
        let mut request = post("hello");
        *request.method_mut() = method;
        let said = said(&service, request);
        assert_eq!((said.status, said.header("allow")), (405, Some("POST")));
        assert_eq!(said.header("connection"), Some("close"));
    }
    assert_eq!(echo.asked.load(SeqCst), 0);
}

#[test]
fn other_types_and_encodings_are_refused_as_the_go_sdk_does() {
    let echo = Echo::default();
    let service = HttpService::new(echo.clone());
    for (header, value, status) in [
        ("content-type", "application/octet-stream", 200),
        ("content-type", "", 200),
        ("content-type", "text/plain", 415),
        ("content-type", "application/octet-stream; charset=utf-8", 415),
        ("content-type", "application/octet-stream;", 415),
        ("content-encoding", "identity", 200),
        ("content-encoding", "", 200),
        ("content-encoding", "gzip", 415),
        ("content-encoding", "identity, gzip", 415),
    ] {
        let request = Request::post("/").header(header, value);
        let said = said(&service, request.body(Full::from("hello")).unwrap());
        assert_eq!(said.status, status, "{header}: {value}");
    }
    // One that is right does not hide one that is not.
    let request = Request::post("/").header("content-type", "application/octet-stream");
    let request = request.header("content-type", "text/html").body(Full::from("hello")).unwrap();
    assert_eq!(said(&service, request).status, 415);
    let request = Request::post("/").body(Full::from("hello")).unwrap();
    assert_eq!(said(&service, request).status, 200);
    assert_eq!(echo.asked.load(SeqCst), 5);
}

#[test]
fn a_body_is_neither_empty_nor_too_large() {
    let echo = Echo::default();
    let service = HttpService::new(echo.clone()).body_bytes_max(10);
    assert_eq!(said(&service, post("")).status, 400);
    assert_eq!(said(&service, post("0123456789")).status, 200);
    let announced = said(&service, post("0123456789a"));
    assert_eq!((announced.status, announced.header("connection")), (413, Some("close")));
    // Nobody waits for what is announced.
    let request = Request::post("/").header("content-length", "11");
    let request = request.body(Pieces::of(&[], End::Never)).unwrap();
    assert_eq!(said(&service, request).status, 413);
    for pieces in [&[&b"0123456789a"[..]][..], &[b"01234567", b"89", b"a"]] {
        let request = Request::post("/").body(Pieces::of(pieces, End::Never)).unwrap();
        let said = said(&service, request);
        assert_eq!((said.status, said.header("connection")), (413, Some("close")));
    }
    let request = Request::post("/").body(Pieces::of(&[b"01234567", b"89"], End::Whole)).unwrap();
    assert_eq!(said(&service, request).status, 200);
    assert_eq!(echo.asked.load(SeqCst), 2);
    // With HTTP/2, the connection is not the request's.
    let mut request = post("0123456789a");
    *request.version_mut() = Version::HTTP_2;
    assert_eq!(said(&service, request).header("connection"), None);
}

#[test]
fn a_body_that_stops_or_breaks_runs_nothing() {
    let echo = Echo::default();
    let service = HttpService::new(echo.clone());
    for (end, status) in [(End::Never, 408), (End::Broken, 400)] {
        let request = Request::post("/").body(Pieces::of(&[b"hel"], end)).unwrap();
        let said = said(&service, request);
        assert_eq!((said.status, said.header("connection")), (status, Some("close")));
    }
    assert_eq!(echo.asked.load(SeqCst), 0);
}

/// A byte every nine seconds.
struct Dribble(Pin<Box<tokio::time::Sleep>>);

impl Body for Dribble {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        std::task::ready!(self.0.as_mut().poll(cx));
        let next = self.0.deadline() + Duration::from_secs(9);
        self.0.as_mut().reset(next);
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b".")))))
    }
}

#[test]
fn a_body_that_dribbles_has_an_end() {
    let mut service = HttpService::new(Echo::default()).body_timeout(Duration::from_secs(60));
    runtime().block_on(async {
        let began = tokio::time::Instant::now();
        let body = Dribble(Box::pin(tokio::time::sleep(Duration::from_secs(9))));
        let response = service.call(Request::post("/").body(body).unwrap()).await.unwrap();
        assert_eq!(response.status(), StatusCode::REQUEST_TIMEOUT);
        let took = began.elapsed();
        assert!((60..=61).contains(&took.as_secs()), "{took:?}");
    });
}

#[test]
fn it_mounts_in_a_router_beside_other_routes() {
    let functions = HttpService::new(Echo::default());
    let mut router = axum::Router::new()
        .route("/about", axum::routing::get(async || "a shop"))
        .route_service("/functions", functions.clone())
        .route_service("/shop/{function}", functions);
    runtime().block_on(async {
        for (method, path, status, what) in [
            ("POST", "/functions", 200, "hello"),
            ("POST", "/shop/cart", 200, "hello"),
            ("GET", "/functions", 405, "the method is GET, not POST\n"),
            ("GET", "/about", 200, "a shop"),
            ("POST", "/elsewhere", 404, ""),
        ] {
            let request = Request::builder().method(method).uri(path);
            let request = request.body(axum::body::Body::from("hello")).unwrap();
            let response = router.call(request).await.unwrap();
            assert_eq!(response.status(), status, "{method} {path}");
            let body = response.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(body, what, "{method} {path}");
        }
    });
}

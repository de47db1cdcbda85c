//! Requests over HTTP, one at a time: what of them is answered, and how.
//!
//! What comes in over which connection, and when it is closed, is not known here.

use std::any::Any;
use std::convert::Infallible;
use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ALLOW, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER,
};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::Body;
use tower_service::Service;

use super::body::{BodyLimits, Lacking, whole};
#[cfg(feature = "grpc")]
use super::grpc;
use super::response::ResponseBody;
use super::{Refusal, RequestReply};
use crate::dispatch::panic_message;

const OCTETS: &str = "application/octet-stream";
/// How many bytes are said of what is wrong.
const SAID_BYTES: usize = 1024;

/// Serves functions over HTTP, as a [`tower_service::Service`] that mounts wherever such services do: in a router
/// of axum, in a server of hyper.
///
/// It answers each request whatever its path, since callers put names of functions there as they like
/// (`{function.name}` in the URL of an [`Endpoint`](crate::Endpoint)); what is asked of whom stands in the request.
///
/// | request | status |
/// |---|---|
/// | it is answered | 200, `application/octet-stream` |
/// | its body is empty, or ends early | 400 |
/// | another method than POST | 405, with `Allow` |
/// | its body does not come in time | 408 |
/// | its body is too large | 413 |
/// | a content type that is not exactly `application/octet-stream`, or none; a content encoding | 415 |
/// | a [`Refusal`] | [`Refusal::status`]; 503 with `Retry-After: 1` |
/// | answering it panics | 500 |
///
/// With the feature `grpc`, requests over HTTP/2 of the content type `application/grpc`, or `application/grpc+proto`,
/// are answered over gRPC, as `RequestReply.Invoke` in the `.proto` files of `timely-statefun-proto` has it. gRPC
/// has a path of its own, `/io.statefun.sdk.reqreply.RequestReply/Invoke`, at which the service must then be mounted, as
/// it is in a [`Server`](super::Server).
///
/// | request over gRPC | status |
/// |---|---|
/// | it is answered | OK |
/// | its message is empty; `grpc-timeout` is malformed | INVALID_ARGUMENT |
/// | its message does not come in time, or is not answered within `grpc-timeout` | DEADLINE_EXCEEDED |
/// | its message is too large | OUT_OF_RANGE, as servers made with tonic say |
/// | its frame is malformed, or there are several | INTERNAL |
/// | it is compressed, or for another path | UNIMPLEMENTED |
/// | a [`Refusal`] | INVALID_ARGUMENT, NOT_FOUND, UNKNOWN, UNAVAILABLE, [in that order](Refusal) |
/// | answering it panics | INTERNAL |
///
/// An error is one line of text. Where a body was not read to its end, the connection is not used again
/// (`Connection: close`, with HTTP/1.1). What is wrong with a request's head is said before its body is asked for, also
/// where the caller waits for that (`Expect: 100-continue`).
///
/// Each clone serves the same. It waits with the time of tokio, so it must be polled on a runtime that has it.
///
/// | setting | default |
/// |---|---|
/// | [`body_bytes_max`](Self::body_bytes_max) | 32 MiB |
/// | [`read_timeout`](Self::read_timeout) | 10 s |
/// | [`body_timeout`](Self::body_timeout) | 2 min |
///
/// With axum:
///
/// ```
/// use bytes::Bytes;
/// use timely_statefun::serve::{Answer, HttpService, Refusal, RequestReply};
///
/// struct Nobody;
///
/// impl RequestReply for Nobody {
///     fn answer(&self, _: Bytes) -> Answer {
///         Box::pin(async { Err(Refusal::Unavailable("not yet".to_owned())) })
///     }
/// }
///
/// let functions = HttpService::new(Nobody).body_bytes_max(1 << 20);
/// let router: axum::Router = axum::Router::new().route_service("/functions", functions);
/// # drop(router);
/// ```
#[derive(Clone)]
pub struct HttpService {
    functions: Arc<dyn RequestReply>,
    pub(super) limits: BodyLimits,
}

impl HttpService {
    /// Serves what answers requests.
    pub fn new(functions: impl RequestReply) -> Self {
        let limits = BodyLimits {
            bytes_max: 32 << 20,
            read_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(120),
        };
        HttpService { functions: Arc::new(functions), limits }
    }

    /// How many bytes the body of a request may have. Default: 32 MiB.
    ///
    /// One that announces more is refused before it is read.
    #[must_use]
    pub fn body_bytes_max(mut self, bytes: usize) -> Self {
        self.limits.bytes_max = bytes;
        self
    }

    /// How long nothing may come of a body that is not complete. Default: 10 s.
    #[must_use]
    pub fn read_timeout(mut self, timeout: Duration) -> Self {
        self.limits.read_timeout = timeout;
        self
    }

    /// How long all of a body may take. Default: 2 min, which is how long StateFun waits for an answer.
    #[must_use]
    pub fn body_timeout(mut self, timeout: Duration) -> Self {
        self.limits.body_timeout = timeout;
        self
    }
}

impl fmt::Debug for HttpService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpService")
            .field("body_bytes_max", &self.limits.bytes_max)
            .field("read_timeout", &self.limits.read_timeout)
            .field("body_timeout", &self.limits.body_timeout)
            .finish_non_exhaustive()
    }
}

/// The response to a request that is on its way.
pub type Responding =
    Pin<Box<dyn Future<Output = Result<Response<ResponseBody>, Infallible>> + Send>>;

impl<B> Service<Request<B>> for HttpService
where
    B: Body + Send + 'static,
    B::Data: Send,
{
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = Responding;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Responding {
        let (functions, limits) = (Arc::clone(&self.functions), self.limits);
        Box::pin(async move { Ok(respond(&*functions, request, &limits).await) })
    }
}

/// Marks the response to a request that was not complete: there is nobody to answer.
#[derive(Copy, Clone, Debug)]
pub(super) struct Incomplete;

async fn respond<B: Body>(
    functions: &dyn RequestReply,
    request: Request<B>,
    limits: &BodyLimits,
) -> Response<ResponseBody> {
    let (head, body) = request.into_parts();
    let announced = announced(&head, &body);
    #[cfg(feature = "grpc")]
    if grpc::is_request(&head) {
        return grpc::respond(functions, head, body, announced, limits).await;
    }
    let complete = body.is_end_stream();
    if let Some(refused) = refused(&head.method, &head.headers) {
        return if complete { refused } else { close(&head, refused) };
    }
    match gathered(&head, body, announced, limits).await {
        Ok(request) if request.is_empty() => text(StatusCode::BAD_REQUEST, "the body is empty"),
        Ok(request) => answered(functions, request).await,
        Err(response) => response,
    }
}

/// How many bytes a body will have at least.
pub(super) fn announced<B: Body>(head: &Parts, body: &B) -> u64 {
    let announced = head.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    let announced = announced.and_then(|value| value.parse().ok()).unwrap_or(0);
    body.size_hint().lower().max(announced)
}

/// A response that comes before the end of the body leaves the rest of it in the way of the next request.
pub(super) fn close(head: &Parts, mut response: Response<ResponseBody>) -> Response<ResponseBody> {
    if head.version < Version::HTTP_2 {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// All of a body, or what is said where it does not come.
pub(super) async fn gathered<B: Body>(
    head: &Parts,
    body: B,
    announced: u64,
    limits: &BodyLimits,
) -> Result<Bytes, Response<ResponseBody>> {
    let lacking = match whole(body, announced, limits).await {
        Ok(body) => return Ok(body),
        Err(lacking) => lacking,
    };
    let response = match lacking {
        Lacking::TooLarge => {
            let what = format!("the body is larger than {} bytes", limits.bytes_max);
            text(StatusCode::PAYLOAD_TOO_LARGE, &what)
        }
        Lacking::TooSlow(within) => {
            let what = format!("the body did not come within {within:?}");
            text(StatusCode::REQUEST_TIMEOUT, &what)
        }
        Lacking::Broken => {
            let mut response = text(StatusCode::BAD_REQUEST, "the body ended before its end");
            response.extensions_mut().insert(Incomplete);
            response
        }
    };
    Err(close(head, response))
}

/// The response to a request whose body nobody here would understand.
fn refused(method: &Method, headers: &HeaderMap) -> Option<Response<ResponseBody>> {
    if method != Method::POST {
        let what = format!("the method is {}, not POST", method.as_str());
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, &what);
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
        return Some(response);
    }
    let other = |value: &&HeaderValue| !value.is_empty() && *value != OCTETS;
    if let Some(found) = headers.get_all(CONTENT_TYPE).iter().find(other) {
        let found = String::from_utf8_lossy(found.as_bytes());
        let what = format!("the content type is \"{found}\", not {OCTETS}");
        return Some(text(StatusCode::UNSUPPORTED_MEDIA_TYPE, &what));
    }
    encoded(headers)
}

/// The response to a request whose body is something else first.
pub(super) fn encoded(headers: &HeaderMap) -> Option<Response<ResponseBody>> {
    let other = |value: &&HeaderValue| {
        !value.is_empty() && !value.as_bytes().eq_ignore_ascii_case(b"identity")
    };
    let found = headers.get_all(CONTENT_ENCODING).iter().find(other)?;
    let found = String::from_utf8_lossy(found.as_bytes());
    let what = format!("the content encoding is \"{found}\", not identity");
    Some(text(StatusCode::UNSUPPORTED_MEDIA_TYPE, &what))
}

async fn answered(functions: &dyn RequestReply, request: Bytes) -> Response<ResponseBody> {
    let refusal = match unless_it_panics(functions, request).await {
        Ok(Ok(answer)) => {
            let mut response = Response::new(ResponseBody::from(answer));
            complete(&mut response, OCTETS);
            return response;
        }
        Ok(Err(refusal)) => refusal,
        Err(panic) => panicked(&*panic),
    };
    let status = StatusCode::from_u16(refusal.status()).expect("a refusal's status is one");
    tracing::debug!(status = status.as_u16(), %refusal, "a request is refused");
    let mut response = text(status, &refusal.to_string());
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

/// What is said of a panic.
pub(super) fn panicked(panic: &(dyn Any + Send)) -> Refusal {
    // What it says may be meant for nobody outside.
    let message = panic_message(panic);
    tracing::error!(message, "answering a request panicked");
    Refusal::Failed("answering the request panicked".to_owned())
}

/// What somebody answers, or what they panic with.
pub(super) async fn unless_it_panics(
    functions: &dyn RequestReply,
    request: Bytes,
) -> Result<Result<Bytes, Refusal>, Box<dyn Any + Send>> {
    // What panicked is not used again.
    let mut answer = catch_unwind(AssertUnwindSafe(|| functions.answer(request)))?;
    poll_fn(|context| {
        let polled = catch_unwind(AssertUnwindSafe(|| answer.as_mut().poll(context)));
        match polled {
            Ok(polled) => polled.map(Ok),
            Err(panic) => Poll::Ready(Err(panic)),
        }
    })
    .await
}

/// What is said, on one line that is not longer than anybody wants to read.
pub(super) fn line(what: &str) -> String {
    let line: String = what.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let end = line.char_indices().map(|(at, c)| at + c.len_utf8());
    let end = end.take_while(|end| *end <= SAID_BYTES).last().unwrap_or(0);
    let more = if end < line.len() { "…" } else { "" };
    format!("{}{more}", &line[..end])
}

/// A response that says something in one line.
pub(super) fn text(status: StatusCode, what: &str) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::from(format!("{}\n", line(what))));
    *response.status_mut() = status;
    complete(&mut response, "text/plain; charset=utf-8");
    response
}

/// Says what a response is and how long, also where nobody else would.
pub(super) fn complete(response: &mut Response<ResponseBody>, content_type: &'static str) {
    let length = response.body().size_hint().exact().expect("it is whole");
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
}

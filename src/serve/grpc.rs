//! Requests over gRPC, one at a time: what of them is answered, and with which status.
//!
//! tonic reads frames and makes them, and statuses. How much a request may have, and how long it may take to come, is
//! the same as over HTTP.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderMap, Method, Request, Response, Version};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use tokio::time::{Instant, timeout_at};
use tonic::metadata::MetadataValue;
use tonic::server::{Grpc, UnaryService};
use tonic::{Code, Status};

use super::body::{BodyLimits, Lacking, whole};
use super::response::ResponseBody;
use super::service::{Incomplete, line, panicked, unless_it_panics};
use super::{Refusal, RequestReply};
use crate::grpc::{AsBytes, FRAME_BYTES, INVOKE_PATH, is_grpc};

/// After how many milliseconds others should ask again who ask before or after a server serves.
const PUSHBACK: (&str, &str) = ("grpc-retry-pushback-ms", "1000");
const TIMEOUT: &str = "grpc-timeout";
/// How long a request may take that says nothing, or says more than an instant can tell.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Whether a request is one of gRPC.
pub(super) fn is_request(head: &Parts) -> bool {
    let kind = head.headers.get(CONTENT_TYPE);
    let grpc = kind.is_some_and(|kind| is_grpc(kind.as_bytes()));
    grpc && head.method == Method::POST && head.version == Version::HTTP_2
}

/// Answers a request of gRPC.
pub(super) async fn respond<B: Body>(
    functions: &dyn RequestReply,
    head: Parts,
    body: B,
    announced: u64,
    limits: &BodyLimits,
) -> Response<ResponseBody> {
    let arrived = Instant::now();
    if head.uri.path() != INVOKE_PATH {
        let what = format!("nothing is served at \"{}\", only at {INVOKE_PATH}", head.uri.path());
        return refused(Status::unimplemented(line(&what)));
    }
    let within = match time_left(&head.headers) {
        Ok(within) => within.unwrap_or(LONGEST).min(LONGEST),
        Err(status) => return refused(status),
    };
    let answering = answer(functions, head, body, announced, limits);
    match timeout_at(arrived + within, answering).await {
        Ok(response) => response,
        Err(_) => refused(Status::deadline_exceeded("the caller's time is over")),
    }
}

async fn answer<B: Body>(
    functions: &dyn RequestReply,
    head: Parts,
    body: B,
    announced: u64,
    limits: &BodyLimits,
) -> Response<ResponseBody> {
    let bytes_max = limits.bytes_max.saturating_add(FRAME_BYTES);
    let request = match whole(body, announced, &BodyLimits { bytes_max, ..*limits }).await {
        Ok(request) => request,
        Err(Lacking::TooLarge) => return refused(too_large(limits)),
        Err(Lacking::TooSlow(within)) => {
            let what = format!("the request did not come within {within:?}");
            return refused(Status::deadline_exceeded(what));
        }
        Err(Lacking::Broken) => {
            let mut response = refused(Status::cancelled("the request ended before its end"));
            response.extensions_mut().insert(Incomplete);
            return response;
        }
    };
    // Frames that announce more than there is would have tonic make room for it.
    if let Some(announced) = request.get(1..FRAME_BYTES) {
        let announced = announced.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        if announced > limits.bytes_max as u64 {
            return refused(too_large(limits));
        }
        if FRAME_BYTES as u64 + announced != request.len() as u64 {
            return refused(Status::internal("the request is not one whole message"));
        }
    }
    let invoke = Invoke { functions };
    let request = Request::from_parts(head, Full::new(request));
    let mut grpc = Grpc::new(AsBytes).max_decoding_message_size(limits.bytes_max);
    let (head, body) = grpc.unary(invoke, request).await.into_parts();
    match body.collect().await {
        Ok(body) => {
            let trailers = body.trailers().cloned();
            let body = ResponseBody::with_trailers(body.to_bytes(), trailers);
            Response::from_parts(head, body)
        }
        Err(status) => refused(status),
    }
}

/// The status that says why a request is not answered.
fn status(refusal: &Refusal) -> Status {
    let code = match refusal {
        Refusal::Malformed(_) => Code::InvalidArgument,
        Refusal::Unknown(_) => Code::NotFound,
        Refusal::Failed(_) => Code::Unknown,
        Refusal::Unavailable(_) => Code::Unavailable,
    };
    tracing::debug!(status = ?code, %refusal, "a request is refused");
    let mut status = Status::new(code, line(&refusal.to_string()));
    if code == Code::Unavailable {
        let (name, value) = PUSHBACK;
        status.metadata_mut().insert(name, MetadataValue::from_static(value));
    }
    status
}

/// The response to a request that is not answered.
fn refused(status: Status) -> Response<ResponseBody> {
    status.into_http()
}

fn too_large(limits: &BodyLimits) -> Status {
    Status::out_of_range(format!("the request is larger than {} bytes", limits.bytes_max))
}

/// How long the caller waits, if it says.
fn time_left(headers: &HeaderMap) -> Result<Option<Duration>, Status> {
    let Some(value) = headers.get(TIMEOUT) else { return Ok(None) };
    let malformed = || Status::invalid_argument("grpc-timeout is malformed");
    let (unit, digits) = value.as_bytes().split_last().ok_or_else(malformed)?;
    if !(1..=8).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) {
        return Err(malformed());
    }
    let count = digits.iter().fold(0, |count, digit| 10 * count + u64::from(digit - b'0'));
    Ok(Some(match unit {
        b'H' => Duration::from_secs(count * 60 * 60),
        b'M' => Duration::from_secs(count * 60),
        b'S' => Duration::from_secs(count),
        b'm' => Duration::from_millis(count),
        b'u' => Duration::from_micros(count),
        b'n' => Duration::from_nanos(count),
        _ => return Err(malformed()),
    }))
}

/// The one method that is served.
struct Invoke<'a> {
    functions: &'a dyn RequestReply,
}

type Invoked<'a> =
    Pin<Box<dyn Future<Output = Result<tonic::Response<Bytes>, Status>> + Send + 'a>>;

impl<'a> UnaryService<Bytes> for Invoke<'a> {
    type Response = Bytes;
    type Future = Invoked<'a>;

    fn call(&mut self, request: tonic::Request<Bytes>) -> Invoked<'a> {
        let functions = self.functions;
        Box::pin(async move {
            let request = request.into_inner();
            if request.is_empty() {
                return Err(Status::invalid_argument("the request is empty"));
            }
            match unless_it_panics(functions, request).await {
                Ok(Ok(answer)) => Ok(tonic::Response::new(answer)),
                Ok(Err(refusal)) => Err(status(&refusal)),
                Err(panic) => Err(Status::internal(panicked(&*panic).to_string())),
            }
        })
    }
}

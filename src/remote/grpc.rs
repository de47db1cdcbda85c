//! One attempt at a call over gRPC, carried as a request over HTTP is.
//!
//! tonic makes frames, and reads them and statuses. How long anything may take, and whether there is another
//! attempt, is not known here.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::uri::PathAndQuery;
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use reqwest::Response;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName};
use timely_statefun_proto::Bytes;
use tonic::client::{Grpc, GrpcService};
use tonic::{Code, Request, Status};

use super::body::{Pieces, Progress};
use super::client::brief;
use super::place::Place;
use super::transport::{self, Transport};
use crate::call_error::CallError;
use crate::grpc::{AsBytes, FRAME_BYTES, INVOKE_PATH, is_grpc};

/// How much time is asked for at most; a year means no limit, and more would not fit its form.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// What nobody here reads, and what tonic takes for granted to be well formed.
const DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");
const STATUS: HeaderName = HeaderName::from_static("grpc-status");
/// After how many milliseconds a server wants to be asked again.
const PUSHBACK: &str = "grpc-retry-pushback-ms";

/// What an attempt is made with.
pub(super) struct Exchange<'a> {
    pub(super) transport: &'a Transport,
    pub(super) place: &'a Place,
    /// What is sent beside what gRPC asks for.
    pub(super) headers: &'a HeaderMap,
    /// How many bytes the answer may have.
    pub(super) bytes_max: usize,
    /// How much time the call has left.
    pub(super) left: Duration,
    pub(super) progress: &'a Progress,
}

/// Why there is no answer.
pub(super) enum Missing {
    /// It went wrong, and the server asks to be left alone for so long.
    Error(CallError, Option<Duration>),
    /// Somebody answered who does not speak gRPC, with a status of HTTP that is no success.
    Other(Box<Response>),
}

/// Sends a request, and waits for all of its answer.
pub(super) async fn invoke(exchange: &Exchange<'_>, body: Bytes) -> Result<Bytes, Missing> {
    let heard = Hearing::default();
    let carrier = Carrier { exchange, heard: heard.clone() };
    let mut grpc = Grpc::new(carrier).max_decoding_message_size(exchange.bytes_max);
    let mut request = Request::new(body);
    request.set_timeout(exchange.left.min(LONGEST));
    let path = PathAndQuery::from_static(INVOKE_PATH);
    let outcome = grpc.unary(request, path, AsBytes).await;
    let heard = std::mem::take(&mut *heard.lock());
    let meaningless = |what: &str| {
        Err(Missing::Error(
            CallError::meaningless(format!("the answer means nothing: {what}")),
            None,
        ))
    };
    match (outcome, heard) {
        (_, Heard { failed: Some(missing), .. }) => Err(missing),
        (Ok(answer), heard) => {
            let answer = answer.into_inner();
            match heard.bytes == FRAME_BYTES + answer.len() {
                true => Ok(answer),
                false => meaningless("there is more behind its message"),
            }
        }
        (Err(status), Heard { said_ok: Some(false), .. }) => Err(said(&status)),
        (Err(_), Heard { said_ok: None, over: true, .. }) => {
            let what = "the answer ended without a status".to_owned();
            Err(Missing::Error(CallError::lost(what), None))
        }
        // tonic sees it before it has come.
        (Err(status), _) if status.code() == Code::OutOfRange => {
            Err(Missing::Error(too_large(exchange.bytes_max), None))
        }
        (Err(status), _) => meaningless(&brief(status.message())),
    }
}

fn too_large(bytes_max: usize) -> CallError {
    CallError::meaningless(format!("the answer is larger than {bytes_max} bytes"))
}

/// What the status of an answer says.
fn said(status: &Status) -> Missing {
    let (name, http) = meaning(status.code());
    let message = brief(status.message().trim());
    let message = if message.is_empty() { message } else { format!(": {message}") };
    let text = format!("the answer is {name}{message}");
    let wait = matches!(status.code(), Code::Unavailable | Code::ResourceExhausted)
        .then(|| status.metadata().get(PUSHBACK)?.to_str().ok()?.trim().parse().ok())
        .flatten();
    let error = CallError::of_grpc_status(status.code() as i32, http, text);
    Missing::Error(error, wait.map(Duration::from_millis))
}

/// A status as it is called, and the one that means the same over HTTP.
///
/// Source: `google/rpc/code.proto` of googleapis.
fn meaning(code: Code) -> (&'static str, u16) {
    match code {
        Code::Ok => ("OK", 200),
        Code::Cancelled => ("CANCELLED", 499),
        Code::Unknown => ("UNKNOWN", 500),
        Code::InvalidArgument => ("INVALID_ARGUMENT", 400),
        Code::DeadlineExceeded => ("DEADLINE_EXCEEDED", 504),
        Code::NotFound => ("NOT_FOUND", 404),
        Code::AlreadyExists => ("ALREADY_EXISTS", 409),
        Code::PermissionDenied => ("PERMISSION_DENIED", 403),
        Code::ResourceExhausted => ("RESOURCE_EXHAUSTED", 429),
        Code::FailedPrecondition => ("FAILED_PRECONDITION", 400),
        Code::Aborted => ("ABORTED", 409),
        Code::OutOfRange => ("OUT_OF_RANGE", 400),
        Code::Unimplemented => ("UNIMPLEMENTED", 501),
        Code::Internal => ("INTERNAL", 500),
        Code::Unavailable => ("UNAVAILABLE", 503),
        Code::DataLoss => ("DATA_LOSS", 500),
        Code::Unauthenticated => ("UNAUTHENTICATED", 401),
    }
}

/// What is known of an answer beside its message.
#[derive(Default)]
struct Heard {
    /// What kept it from coming.
    failed: Option<Missing>,
    /// Whether its status is OK, if there is one.
    said_ok: Option<bool>,
    /// It came to its end.
    over: bool,
    /// How many bytes it has, with what stands before its message.
    bytes: usize,
}

impl Heard {
    /// Notes a status, if there is one here, and takes away what it may not have.
    fn note(&mut self, headers: &mut HeaderMap) {
        headers.remove(DETAILS);
        if let Some(status) = headers.get(STATUS) {
            self.said_ok = Some(status == "0");
        }
    }
}

#[derive(Clone, Default)]
struct Hearing(Arc<Mutex<Heard>>);

impl Hearing {
    fn lock(&self) -> MutexGuard<'_, Heard> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fail(&self, error: CallError) -> Failed {
        self.lock().failed.get_or_insert(Missing::Error(error, None));
        Failed
    }
}

/// An attempt came to nothing, for a reason that was noted.
#[derive(Debug, thiserror::Error)]
#[error("the attempt failed")]
struct Failed;

/// Carries one request of tonic's, as any other is carried.
struct Carrier<'a> {
    exchange: &'a Exchange<'a>,
    heard: Hearing,
}

impl<'a> GrpcService<tonic::body::Body> for Carrier<'a> {
    type ResponseBody = Answer;
    type Error = Failed;
    type Future = BoxFuture<'a, Result<http::Response<Answer>, Failed>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        Box::pin(carry(self.exchange, self.heard.clone(), request))
    }
}

async fn carry(
    exchange: &Exchange<'_>,
    heard: Hearing,
    request: http::Request<tonic::body::Body>,
) -> Result<http::Response<Answer>, Failed> {
    let (head, body) = request.into_parts();
    // It is a message that is there already, in one piece.
    let frame = body.collect().await.map_err(|status| {
        heard.fail(CallError::meaningless(format!("there is no request: {}", status.message())))
    })?;
    let mut headers = exchange.headers.clone();
    // What gRPC asks for.
    headers.extend(head.headers);
    let body = Pieces::telling(frame.to_bytes(), exchange.progress.clone());
    let response = exchange.transport.post(exchange.place, &headers, body).await;
    let mut response = response.map_err(|error| heard.fail(error))?;
    exchange.progress.answered();
    heard.lock().note(response.headers_mut());
    if heard.lock().said_ok.is_none() {
        if !response.status().is_success() {
            heard.lock().failed = Some(Missing::Other(Box::new(response)));
            return Err(Failed);
        }
        let found = response.headers().get(CONTENT_TYPE).map(|found| found.as_bytes());
        if !found.is_some_and(is_grpc) {
            let found = found.map_or("missing".to_owned(), |found| {
                format!("\"{}\"", brief(&String::from_utf8_lossy(found)))
            });
            let what = format!("the answer's content type is {found}, not application/grpc");
            return Err(heard.fail(CallError::meaningless(what)));
        }
    }
    let response: http::Response<reqwest::Body> = response.into();
    let (progress, bytes_max) = (exchange.progress.clone(), exchange.bytes_max);
    Ok(response.map(|body| Answer { body, heard, progress, bytes_max }))
}

/// The body of an answer, which is no longer than it may be.
struct Answer {
    body: reqwest::Body,
    heard: Hearing,
    progress: Progress,
    bytes_max: usize,
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Failed;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failed>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        self.progress.answered();
        let mut heard = self.heard.lock();
        let mut frame = match frame {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => {
                drop(heard);
                return Poll::Ready(Some(Err(self.heard.fail(transport::error(error)))));
            }
            None => {
                heard.over = true;
                return Poll::Ready(None);
            }
        };
        if let Some(trailers) = frame.trailers_mut() {
            heard.over = true;
            heard.note(trailers);
        }
        if let Some(data) = frame.data_ref() {
            heard.bytes = heard.bytes.saturating_add(data.len());
            if heard.bytes > self.bytes_max.saturating_add(FRAME_BYTES) {
                drop(heard);
                return Poll::Ready(Some(Err(self.heard.fail(too_large(self.bytes_max)))));
            }
        }
        drop(heard);
        Poll::Ready(Some(Ok(frame)))
    }
}

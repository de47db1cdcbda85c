//! The ingress over HTTP: `PUT /namespace/function/id` sends a record to a function.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Response, StatusCode};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use super::request::{self, Meaningless};
use super::spec::Ack;
use crate::message::Envelope;
use crate::serve::pages::{self, Page, Pages, not_allowed, page, said};
use crate::serve::{ResponseBody, Server};
use crate::source::ChannelSender;
use crate::typed::TypedMessage;

/// How many bytes a record may have.
const BODY_BYTES_MAX: usize = 1 << 20;
const CONNECTIONS_MAX: usize = 1024;
/// Times are counted from now on, and those that are longer would not fit.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);
const TEXT: &str = "text/plain; charset=utf-8";

/// Records for functions, over HTTP, on their way into a [channel](crate::source::channel).
///
/// | setting | default | |
/// |---|---|---|
/// | [`ack`](Self::ack) | [`Ack::Durable`] | |
/// | [`waiting_max`](Self::waiting_max) | 1,024 | then 503 |
/// | [`answer_timeout`](Self::answer_timeout) | 30 s | then 503 |
pub struct Ingress<M> {
    sender: ChannelSender<Envelope<M>>,
    ack: Ack,
    waiting_max: usize,
    answer_timeout: Duration,
}

impl<M: TypedMessage + Send> Ingress<M> {
    /// An ingress whose records go into a channel.
    pub fn new(sender: ChannelSender<Envelope<M>>) -> Self {
        let answer_timeout = Duration::from_secs(30);
        Ingress { sender, ack: Ack::default(), waiting_max: 1024, answer_timeout }
    }

    /// When a record is answered. Default: when it is durable.
    #[must_use]
    pub fn ack(mut self, ack: Ack) -> Self {
        self.ack = ack;
        self
    }

    /// How many records may wait for room in the channel, or for the snapshot that makes them durable; at least 1.
    /// Default: 1,024.
    #[must_use]
    pub fn waiting_max(mut self, records: usize) -> Self {
        self.waiting_max = records.clamp(1, Semaphore::MAX_PERMITS);
        self
    }

    /// How long a record may wait. Default: 30 s. It should be longer than the program's
    /// [interval](crate::SnapshotPolicy::interval) of snapshots.
    #[must_use]
    pub fn answer_timeout(mut self, timeout: Duration) -> Self {
        self.answer_timeout = timeout;
        self
    }

    /// A server that takes records, to be [bound](Server::bind) where it is to listen.
    ///
    /// `PUT /namespace/function/id`, or `POST`, sends a function what its body is, of the type that the content type names: `application/vnd.`
    /// and the name, such as `application/vnd.example/GreetRequest`. Without such a content type, the body is a
    /// text in UTF-8, and the function gets a value of the type `io.statefun.types/string`.
    ///
    /// In each part of the path `%2F` and the like stand for bytes of UTF-8. An id may have further `/`.
    ///
    /// | request | status |
    /// |---|---|
    /// | the record is durable | 200 |
    /// | the record is in the channel, with [`Ack::Accepted`] | 202 |
    /// | the body is no value of the type that it is said to be, where the type is known | 400 |
    /// | another path | 404 |
    /// | another method | 405, with `Allow` |
    /// | the body does not come in time | 408 |
    /// | the body has more than 1 MiB | 413 |
    /// | a content type that names no type; a content encoding | 415 |
    /// | too many records wait; it has waited too long; the program ends | 503 with `Retry-After: 1` |
    ///
    /// A record is sent once all of its body has come, whether somebody still waits for an answer or not. What
    /// was answered with 503 says whether the record was taken: if it may have been, sending it again may
    /// send it twice. An error is one line of text.
    ///
    /// Where a [server's defaults](Server) are not these: up to 1,024 connections.
    pub fn server(self) -> Server {
        pages::server(
            Door(Arc::new(Shared {
                places: Arc::new(Semaphore::new(self.waiting_max)),
                sender: self.sender,
                ack: self.ack,
                answer_timeout: self.answer_timeout.min(LONGEST),
            })),
            BODY_BYTES_MAX,
        )
        .connections_max(CONNECTIONS_MAX)
    }
}

impl<M> fmt::Debug for Ingress<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ingress")
            .field("ack", &self.ack)
            .field("waiting_max", &self.waiting_max)
            .field("answer_timeout", &self.answer_timeout)
            .finish_non_exhaustive()
    }
}

struct Door<M>(Arc<Shared<M>>);

struct Shared<M> {
    sender: ChannelSender<Envelope<M>>,
    ack: Ack,
    places: Arc<Semaphore>,
    answer_timeout: Duration,
}

impl<M: TypedMessage + Send> Pages for Door<M> {
    fn refused(&self, head: &Parts) -> Option<Response<ResponseBody>> {
        if !matches!(head.method, Method::PUT | Method::POST) {
            return Some(not_allowed(head, "PUT, POST"));
        }
        request::check(head).err().map(meaningless)
    }

    fn answer(&self, head: Parts, body: Bytes) -> Page {
        let envelope = match read(&head, body) {
            Ok(envelope) => envelope,
            Err(wrong) => return Box::pin(async { meaningless(wrong) }),
        };
        let shared = Arc::clone(&self.0);
        let Ok(place) = Arc::clone(&shared.places).try_acquire_owned() else {
            return Box::pin(async {
                unavailable("too many records wait already; this one was not taken")
            });
        };
        // What has come is sent, whether anybody waits for the answer or not.
        let sending = tokio::spawn(async move {
            let answer = send(&shared, envelope).await;
            drop(place);
            answer
        });
        Box::pin(async {
            let gone = "the program ends; whether it has taken the record is not known";
            sending.await.unwrap_or_else(|_| unavailable(gone))
        })
    }
}

/// The message that a request has.
fn read<M: TypedMessage>(head: &Parts, body: Bytes) -> Result<Envelope<M>, Meaningless> {
    let target = request::target(head.uri.path())?;
    let message = M::from_typed(request::value(&head.headers, body)?);
    let message = message.map_err(|mismatch| {
        Meaningless(StatusCode::BAD_REQUEST, format!("the record is {mismatch}"))
    })?;
    Ok(Envelope::new(target, message))
}

async fn send<M: Send + 'static>(
    shared: &Shared<M>,
    envelope: Envelope<M>,
) -> Response<ResponseBody> {
    let until = Instant::now() + shared.answer_timeout;
    let receipt = match timeout_at(until, shared.sender.send(envelope)).await {
        Ok(Ok(receipt)) => receipt,
        Ok(Err(_)) => return unavailable("the program has ended; the record was not taken"),
        Err(_) => return unavailable("there is no room in time; the record was not taken"),
    };
    if shared.ack == Ack::Accepted {
        return page(StatusCode::ACCEPTED, TEXT, Bytes::new());
    }
    match timeout_at(until, receipt.durable()).await {
        Ok(Ok(())) => page(StatusCode::OK, TEXT, Bytes::new()),
        Ok(Err(lost)) => {
            let what = format!("{lost}; the record was taken, and is not known to be durable");
            unavailable(&what)
        }
        Err(_) => unavailable("the record was taken, and is not durable yet"),
    }
}

fn meaningless(Meaningless(status, what): Meaningless) -> Response<ResponseBody> {
    said(status, &what)
}

fn unavailable(what: &str) -> Response<ResponseBody> {
    said(StatusCode::SERVICE_UNAVAILABLE, what)
}

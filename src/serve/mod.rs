//! Functions that others call over the request-reply protocol.
//!
//! What serves is in two halves that meet here: who answers requests, and how requests come and answers go.
//! This room knows neither loops nor snapshots.

mod accept;
mod activity;
mod answering;
mod body;
mod connection;
mod error;
mod functions;
mod health;
mod queue;
mod refusal;
mod server;
mod service;
mod thread;
#[cfg(feature = "tls")]
mod tls;
#[cfg(unix)]
mod unix;
mod watched;
mod wire;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;

pub use accept::Ended;
pub use error::ServeError;
pub use functions::{ServedFunctions, ServedOptions};
pub use refusal::Refusal;
pub use server::{Server, Serving};
pub use service::{HttpService, Responding};
#[cfg(feature = "tls")]
pub use tls::{ServerTls, TlsError};

/// An answer that is on its way.
pub type Answer = Pin<Box<dyn Future<Output = Result<Bytes, Refusal>> + Send>>;

/// Who answers requests of the request-reply protocol, whichever way they come.
///
/// A request is a `ToFunction` and an answer a `FromFunction`, as bytes. An answer that is dropped before it is
/// there is not waited for any more.
pub trait RequestReply: Send + Sync + 'static {
    /// Answers a request.
    ///
    /// # Errors
    ///
    /// Why there is no answer. Then nothing of the request took effect.
    fn answer(&self, request: Bytes) -> Answer;
}

impl<R: RequestReply + ?Sized> RequestReply for Arc<R> {
    fn answer(&self, request: Bytes) -> Answer {
        (**self).answer(request)
    }
}

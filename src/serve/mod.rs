//! Functions that others call over the request-reply protocol.
//!
//! What serves is in two halves that meet here: who answers requests, and how requests come and answers go.
//! This room knows neither loops nor snapshots.
//!
//! The protocol is that of StateFun 3.x, so who calls may be another program of this library or a StateFun
//! cluster. A request is a batch of messages for one address with all that is kept there, and an answer is what
//! they did. So nothing is kept here between requests.
//!
//! # What a function finds
//!
//! Functions are written as for a dataflow, and find what they find there, but:
//!
//! * [`time`](crate::Context::time) is the least there is, and the [frontier](crate::Context::frontier) as well.
//! * [`now_ms`](crate::Context::now_ms) is when the request came, by the [clock](crate::Functions::clock) of the
//!   functions. It stands still while the batch is handled, and nothing expires meanwhile: what is kept for how
//!   long is the affair of whoever keeps it, who is told when the state is first asked for.
//! * A batch fails altogether. [`on_failure`](crate::Function::on_failure) and [`retry`](crate::Function::retry)
//!   do not count: whoever calls decides what becomes of it.
//! * [`cancel`](crate::Context::cancel) says that there was a message, unless this batch has cancelled it
//!   before: only whoever calls knows. A token of a message that waits there is not known to be in use, and
//!   using it again makes the batch fail where it takes effect. An empty token cannot travel.
//! * A state of a [registry](crate::Function::registry) that did not come with the request is asked for, and the
//!   batch is begun anew. It is registered for the request alone.
//! * Operations that a function [starts](crate::Context::start) are awaited, and their outcomes handled, after
//!   the messages of the batch and in the order in which they end. [`Function::operations`] says how many of a
//!   request are under way at once.
//! * [`Function::new_async`] makes a function that waits while it handles a message.
//!
//! [`Function::operations`]: crate::Function::operations
//! [`Function::new_async`]: crate::Function::new_async
//!
//! Every egress is bound with [`typed_egress`](crate::Functions::typed_egress); whether it is
//! [held](crate::Functions::held_typed_egress) is again the affair of whoever calls.
//!
//! # What travels
//!
//! A value travels as the bytes it is stored as, under the name of its type. So a function of which all states are
//! values may be embedded, served here and, if their types are known there, served by another language in turn,
//! and keeps its state.
//!
//! A table travels as one value of the type `rust.table/KEY,VALUE`, and a buffer of the type
//! `rust.buffer/ELEMENT`, with the names of the types of what is in them, in which each `/` is a `:`. Their
//! bytes are those of the protobuf messages
//!
//! ```protobuf
//! message Table { repeated Entry entries = 1; }
//! message Entry { bytes key = 1; bytes value = 2; }
//! message Buffer { repeated bytes elements = 1; }
//! ```
//!
//! whose keys, values and elements are what they are stored as: of a type that is built into the SDKs, its own
//! bytes, and otherwise MessagePack. All of it travels with each request, so a large one is better kept by a
//! function that is embedded. To whoever calls it is a value: it can move between servers, and cannot become the
//! table or buffer of an embedded function, nor can that of an embedded function be served.

mod accept;
mod activity;
mod answering;
mod body;
mod connection;
mod error;
mod functions;
#[cfg(feature = "grpc")]
mod grpc;
mod health;
#[cfg(feature = "playground")]
pub(crate) mod pages;
mod queue;
mod refusal;
mod response;
mod served;
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
pub use response::ResponseBody;
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

#[cfg(test)]
mod tests;

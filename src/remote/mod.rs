//! Remote functions over HTTP and gRPC: requests out, answers back.
//!
//! This room knows the network, the runtime and the wire. It decides nothing about functions: what to
//! ask, and what an answer does, is the dispatcher's affair.

mod body;
mod client;
pub(crate) mod elements;
#[cfg(feature = "grpc")]
mod grpc;
mod place;
mod request;
mod timer;
#[cfg(feature = "tls")]
mod tls;
mod traces;
mod transport;
mod wire;

use std::collections::HashMap;
use std::sync::Arc;

#[cfg(feature = "testing")]
use bytes::Bytes;
use timely_statefun_operators::Waker;
use tokio::runtime::Handle;
use tracing::{Instrument, field};

use crate::address::TypeName;
#[cfg(feature = "testing")]
use crate::call_error::CallError;
use crate::dispatch::{CallFailure, CallKey, CallRequest, Called};
use crate::endpoint::{Endpoint, shown};
use crate::error::{Error, Kind};
use crate::metering::Spread;
use crate::runner::Runner;
use client::{Call, Client, Route};

/// Reads the files that an endpoint names, and checks what can be checked without calling it, for a function
/// or for a whole namespace, whose names are not known.
///
/// # Errors
///
/// If its URL, a header or an option is not valid, or a file.
pub(crate) fn check(
    function: &str,
    name: Option<&str>,
    endpoint: &mut Endpoint,
) -> Result<(), Error> {
    #[cfg(feature = "tls")]
    let read = tls::read(&mut endpoint.options.tls);
    #[cfg(not(feature = "tls"))]
    let read = Ok(());
    let client = read.and_then(|()| Client::new(endpoint));
    let route = |client: Client| name.map(|name| client.route(name)).transpose().map(drop);
    client.and_then(route).map_err(|why| {
        let (function, url) = (function.to_owned(), shown(&endpoint.options.url));
        Kind::InvalidEndpoint { function, url, why }.into()
    })
}

/// Who answers requests in the place of the network.
#[cfg(feature = "testing")]
pub(crate) trait Answers: Send + Sync {
    /// What becomes of a request to a URL.
    fn answer(&self, url: &str, body: Bytes) -> Answered;
}

/// The answer to a request, once it is there.
#[cfg(feature = "testing")]
pub(crate) type Answered =
    futures_util::future::BoxFuture<'static, Result<http::Response<Bytes>, CallError>>;

/// The target of spans of calls, by which they are filtered.
const CALLS: &str = "timely_statefun::call";

/// Makes the calls of one worker. They end with it.
pub(crate) struct Caller {
    /// By number of the bound function; none for those that are embedded.
    clients: Vec<Option<Arc<Client>>>,
    /// How functions are reached that were called, or what is wrong with that.
    routes: HashMap<(usize, TypeName), Result<Arc<Route>, CallFailure>>,
    runner: Runner<Called>,
}

/// So many routes are kept, with the connections of those that have a socket of their own; they are made
/// anew when there were more.
const ROUTES: usize = 1024;

impl Caller {
    pub(crate) fn new<'a>(
        runtime: Option<Handle>,
        endpoints: impl Iterator<Item = Option<&'a Endpoint>>,
    ) -> Self {
        let client = |endpoint| Arc::new(Client::new(endpoint).expect("it was checked"));
        let clients = endpoints.map(|endpoint| endpoint.map(client)).collect();
        let lost = || {
            let why = "the runtime has shut down, or has no I/O or no timer";
            Called { answer: Err(client::failure(why, false)), failed: 0 }
        };
        Caller { clients, routes: HashMap::new(), runner: Runner::new(runtime, lost) }
    }

    /// Has somebody else than the network answer. Nothing was called yet.
    #[cfg(feature = "testing")]
    pub(crate) fn answered_by(&mut self, answers: &Arc<dyn Answers>) {
        for client in self.clients.iter_mut().flatten() {
            let client = Arc::get_mut(client).expect("nothing was called yet");
            client.answered_by(Arc::clone(answers));
        }
    }

    /// Says whom to wake when a call ends.
    pub(crate) fn connect(&mut self, waker: Waker) {
        self.runner.connect(waker);
    }

    /// Takes in a call of a bound function that is to start with the next [`start`](Self::start). `took` is told how
    /// long each attempt took.
    pub(crate) fn add(
        &mut self,
        key: CallKey,
        function: usize,
        request: &CallRequest<'_>,
        took: Spread,
    ) {
        let client = self.clients[function].as_ref().expect("the function is remote");
        let name = request.target.function_type.clone();
        if self.routes.len() >= ROUTES {
            self.routes.clear();
        }
        let route = self.routes.entry((function, name)).or_insert_with_key(|(_, name)| {
            let route = client.route_of_call(name.name());
            route.map(Arc::new)
        });
        let (client, route) = (Arc::clone(client), route.clone());
        let (target, body) = (request.target.clone(), request::body(request));
        let messages = request.messages.len();
        let trace = traces::context(request.traced);
        let span = tracing::debug_span!(
            target: CALLS,
            "call",
            function = %target.function_type,
            id = %target.id,
            messages,
            trace_id = field::Empty,
            span_id = field::Empty,
        );
        if let Some(trace) = &trace {
            span.record("trace_id", field::display(format_args!("{:032x}", trace.trace_id())));
            span.record("span_id", field::display(format_args!("{:016x}", trace.parent_id())));
        }
        let call = async move {
            let mut failed = 0;
            let answer = match route {
                Ok(route) => {
                    let (target, route) = (&target, &*route);
                    let call = Call { target, route, body, messages, took, trace };
                    client.call(call, &mut failed).await
                }
                Err(failure) => Err(failure),
            };
            Called { answer, failed }
        };
        self.runner.add(key, call.instrument(span));
    }

    /// Starts the calls that were added.
    pub(crate) fn start(&mut self) {
        self.runner.start();
    }

    /// A call that has ended.
    pub(crate) fn ended(&mut self) -> Option<(CallKey, Called)> {
        self.runner.ended()
    }
}

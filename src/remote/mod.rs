//! Remote functions over HTTP: requests out, answers back.
//!
//! This room knows the network, the runtime and the wire. It decides nothing about functions: what to
//! ask, and what an answer does, is the dispatcher's affair.

mod client;
mod wire;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use timely_statefun_operators::Waker;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use crate::dispatch::{CallAnswer, CallFailure, CallKey, CallRequest};
use crate::endpoint::Endpoint;
use crate::error::{Error, Kind};
use client::Client;

type Ended = (CallKey, Result<CallAnswer, CallFailure>);

/// Checks what of an endpoint can be checked without calling it.
///
/// # Errors
///
/// If its URL or a header is not valid.
pub(crate) fn check(function: &str, endpoint: &Endpoint) -> Result<(), Error> {
    Client::new(endpoint).map(drop).map_err(|why| {
        let (function, url) = (function.to_owned(), endpoint.url.clone());
        Kind::InvalidEndpoint { function, url, why }.into()
    })
}

/// Makes the calls of one worker.
pub(crate) struct Caller {
    runtime: Option<Handle>,
    /// By number of the bound function; none for those that are embedded.
    clients: Vec<Option<Arc<Client>>>,
    waker: Option<Waker>,
    sender: Sender<Ended>,
    ended: Receiver<Ended>,
    under_way: HashMap<CallKey, AbortHandle>,
}

impl Caller {
    pub(crate) fn new<'a>(
        runtime: Option<Handle>,
        endpoints: impl Iterator<Item = Option<&'a Endpoint>>,
    ) -> Self {
        let (sender, ended) = channel();
        let client = |endpoint| Arc::new(Client::new(endpoint).expect("it was checked"));
        let clients = endpoints.map(|endpoint| endpoint.map(client)).collect();
        Caller { runtime, clients, waker: None, sender, ended, under_way: HashMap::new() }
    }

    /// Says whom to wake when a call ends.
    pub(crate) fn connect(&mut self, waker: Waker) {
        self.waker = Some(waker);
    }

    /// Begins a call of a bound function.
    pub(crate) fn start(&mut self, key: CallKey, function: usize, request: CallRequest) {
        let runtime = self.runtime.as_ref().expect("remote functions have a runtime");
        let client = self.clients[function].as_ref().expect("the function is remote");
        let client = Arc::clone(client);
        let mut ending =
            Ending { key, answer: None, sender: self.sender.clone(), waker: self.waker.clone() };
        let task = runtime.spawn(async move { ending.end_with(client.call(&request).await) });
        self.under_way.insert(key, task.abort_handle());
    }

    /// What has ended since this was last asked.
    pub(crate) fn ended(&mut self) -> Vec<Ended> {
        let ended: Vec<Ended> = self.ended.try_iter().collect();
        for (key, _) in &ended {
            self.under_way.remove(key);
        }
        ended
    }
}

/// Calls end with the dataflow they are for.
impl Drop for Caller {
    fn drop(&mut self) {
        self.under_way.values().for_each(AbortHandle::abort);
    }
}

/// Tells the worker that a call is over, whatever happens to its task: a runtime that shuts down
/// drops tasks where they are.
struct Ending {
    key: CallKey,
    answer: Option<Result<CallAnswer, CallFailure>>,
    sender: Sender<Ended>,
    waker: Option<Waker>,
}

impl Ending {
    fn end_with(&mut self, answer: Result<CallAnswer, CallFailure>) {
        self.answer = Some(answer);
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        let answer = self.answer.take();
        let answer =
            answer.unwrap_or_else(|| Err(client::failure("the runtime has shut down", false)));
        // A worker that has ended waits for nothing.
        let _ = self.sender.send((self.key, answer));
        if let Some(waker) = &self.waker {
            waker.wake();
        }
    }
}

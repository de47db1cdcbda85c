//! How a request leaves, and how its answer begins.

use reqwest::header::HeaderMap;
use reqwest::{Body, Client, Method, Request, Response};

use super::body::Pieces;
use super::client::brief;
use super::place::Place;
use crate::call_error::CallError;
use crate::dead_letter::chain;
use crate::endpoint::Options;

/// Who carries requests. Clones share their connections.
#[derive(Clone)]
pub(super) enum Transport {
    Network(Client),
    /// A test, in the place of the network and of all that is behind it.
    #[cfg(feature = "testing")]
    Given(std::sync::Arc<dyn super::Answers>),
}

impl Transport {
    /// One that has no connection yet, and has them through a place's socket if it has one.
    ///
    /// # Errors
    ///
    /// What keeps the program from having connections at all.
    pub(super) fn through(endpoint: &Options, place: &Place) -> Result<Self, String> {
        let read = endpoint.read_timeout_or_default();
        let mut http = Client::builder()
            .connect_timeout(endpoint.connect_timeout_or_default())
            .pool_max_idle_per_host(endpoint.connections_idle_max)
            .pool_idle_timeout(endpoint.connection_idle)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy();
        if endpoint.http2 {
            // All calls go over one connection. If nobody is at its other end any more, nothing else
            // says so.
            http = http
                .http2_prior_knowledge()
                .http2_keep_alive_interval(read)
                .http2_keep_alive_timeout(read);
        } else {
            http = http.http1_only();
        }
        #[cfg(unix)]
        if let Some(socket) = &place.socket {
            http = http.unix_socket(socket.as_path());
        }
        http.build().map(Transport::Network).map_err(|error| chain(&error))
    }

    /// Sends a request, and waits for its answer to begin.
    pub(super) async fn post(
        &self,
        place: &Place,
        headers: &HeaderMap,
        body: Pieces,
    ) -> Result<Response, CallError> {
        match self {
            Transport::Network(client) => {
                let mut request = Request::new(Method::POST, place.url.clone());
                *request.headers_mut() = headers.clone();
                *request.body_mut() = Some(Body::wrap(body));
                client.execute(request).await.map_err(error)
            }
            #[cfg(feature = "testing")]
            Transport::Given(answers) => {
                let answer = answers.answer(&place.given, body.into_bytes());
                answer.await.map(Response::from)
            }
        }
    }
}

/// What the client that sends requests says went wrong.
pub(super) fn error(error: reqwest::Error) -> CallError {
    let (connect, stalled) = (error.is_connect(), error.is_timeout());
    let text = brief(&chain(&error.without_url()));
    match (connect, stalled) {
        (true, _) => CallError::connect(text),
        (false, true) => CallError::stalled(text),
        (false, false) => CallError::lost(text),
    }
}

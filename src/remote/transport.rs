//! How a request leaves, and how its answer begins.

use reqwest::header::HeaderMap;
use reqwest::{Body, Client, Method, Request, Response, Url};

use super::body::Pieces;
use super::client::brief;
use crate::call_error::CallError;
use crate::dead_letter::chain;

/// Who carries requests.
pub(super) enum Transport {
    Network(Client),
    /// A test, in the place of the network and of all that is behind it.
    #[cfg(feature = "testing")]
    Given(std::sync::Arc<dyn super::Answers>),
}

impl Transport {
    /// Sends a request, and waits for its answer to begin.
    pub(super) async fn post(
        &self,
        url: &Url,
        headers: &HeaderMap,
        body: Pieces,
    ) -> Result<Response, CallError> {
        match self {
            Transport::Network(client) => {
                let mut request = Request::new(Method::POST, url.clone());
                *request.headers_mut() = headers.clone();
                *request.body_mut() = Some(Body::wrap(body));
                client.execute(request).await.map_err(error)
            }
            #[cfg(feature = "testing")]
            Transport::Given(answers) => {
                let answer = answers.answer(url.as_str(), body.into_bytes());
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

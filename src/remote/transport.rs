//! How a request leaves, and how its answer begins.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use reqwest::header::HeaderMap;
use reqwest::{Body, Client, Method, Request, Response};

use super::body::Pieces;
use super::client::brief;
use super::place::Place;
use crate::call_error::CallError;
use crate::dead_letter::chain;
use crate::endpoint::Options;

/// How requests are kept from others; not at all without TLS.
#[derive(Clone)]
pub(super) struct Secure {
    #[cfg(feature = "tls")]
    tls: Option<super::tls::Secured>,
}

impl Secure {
    /// # Errors
    ///
    /// What is wrong with what a program says of TLS.
    #[cfg(feature = "tls")]
    pub(super) fn new(endpoint: &Options, place: &Place) -> Result<Self, String> {
        if place.is_secure() {
            let tls = super::tls::secured(&endpoint.tls, endpoint.speaks_http2())?;
            return Ok(Secure { tls: Some(tls) });
        }
        if !endpoint.tls.is_default() {
            return Err("it has options for TLS, which only https:// asks for".to_owned());
        }
        Ok(Secure { tls: None })
    }

    #[cfg(not(feature = "tls"))]
    pub(super) fn new(_: &Options, _: &Place) -> Result<Self, String> {
        Ok(Secure {})
    }
}

/// Sends requests over connections of its own.
pub(super) struct Network {
    client: Client,
    #[cfg_attr(not(feature = "tls"), expect(dead_code, reason = "it is nothing"))]
    secure: Secure,
    http2: bool,
    /// Whether somebody has answered so far.
    answered: AtomicBool,
}

impl Network {
    async fn post(
        &self,
        place: &Place,
        headers: &HeaderMap,
        body: Pieces,
    ) -> Result<Response, CallError> {
        let mut request = Request::new(Method::POST, place.url.clone());
        *request.headers_mut() = headers.clone();
        *request.body_mut() = Some(Body::wrap(body));
        let answer = self.client.execute(request).await.map_err(error);
        match answer {
            Ok(answer) => {
                self.answered.store(true, Ordering::Relaxed);
                Ok(answer)
            }
            Err(error) if error.is_lost() && !self.answered.load(Ordering::Relaxed) => {
                Err(self.never_answered(place, error))
            }
            Err(error) => Err(error),
        }
    }

    /// What is said of a connection that was lost, where no request was ever answered. Others may close it
    /// before it is heard why; HTTP/2 does not say at all what TLS said.
    fn never_answered(&self, place: &Place, error: CallError) -> CallError {
        #[cfg(feature = "tls")]
        match self.secure.tls.as_ref().and_then(super::tls::Secured::asked) {
            Some(false) => {
                return CallError::connect(brief(&format!("{}: {error}", super::tls::WANTED)));
            }
            // It may be because of that, or of what it was asked.
            Some(true) => {
                let why = "the server was shown the certificate of the client and answered nothing";
                return CallError::lost(brief(&format!("{why} so far: {error}")));
            }
            None => {}
        }
        let known = error.to_string().starts_with(OTHER_LANGUAGE);
        if self.http2 && !place.is_secure() && !known {
            let why = "nobody there has spoken HTTP/2 without TLS so far";
            return CallError::lost(brief(&format!("{why}: {error}")));
        }
        error
    }
}

/// Who carries requests. Clones share their connections.
#[derive(Clone)]
pub(super) enum Transport {
    Network(Arc<Network>),
    /// A test, in the place of the network and of all that is behind it.
    #[cfg(feature = "testing")]
    Given(Arc<dyn super::Answers>),
}

impl Transport {
    /// One that has no connection yet, and has them through a place's socket if it has one.
    ///
    /// # Errors
    ///
    /// What keeps the program from having connections at all.
    pub(super) fn through(
        endpoint: &Options,
        secure: &Secure,
        place: &Place,
    ) -> Result<Self, String> {
        let read = endpoint.read_timeout_or_default();
        let mut http = Client::builder()
            .connect_timeout(endpoint.connect_timeout_or_default())
            .pool_max_idle_per_host(endpoint.connections_idle_max)
            .pool_idle_timeout(endpoint.connection_idle)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy();
        if endpoint.speaks_http2() {
            // All calls go over one connection. If nobody is at its other end any more, nothing else
            // says so.
            http = http
                .http2_prior_knowledge()
                .http2_keep_alive_interval(read)
                .http2_keep_alive_timeout(read);
        } else {
            http = http.http1_only();
        }
        #[cfg(feature = "tls")]
        if let Some(tls) = &secure.tls {
            http = http.use_preconfigured_tls(tls.config.clone());
        }
        #[cfg(unix)]
        if let Some(socket) = &place.socket {
            http = http.unix_socket(socket.as_path());
        }
        let client = http.build().map_err(|error| chain(&error))?;
        Ok(Transport::Network(Arc::new(Network {
            client,
            secure: secure.clone(),
            http2: endpoint.speaks_http2(),
            answered: AtomicBool::new(false),
        })))
    }

    /// Sends a request, and waits for its answer to begin.
    pub(super) async fn post(
        &self,
        place: &Place,
        headers: &HeaderMap,
        body: Pieces,
    ) -> Result<Response, CallError> {
        match self {
            Transport::Network(network) => network.post(place, headers, body).await,
            #[cfg(feature = "testing")]
            Transport::Given(answers) => {
                let answer = answers.answer(&place.given, body.into_bytes());
                answer.await.map(Response::from)
            }
        }
    }
}

const OTHER_LANGUAGE: &str = "what answers does not speak HTTP";
/// What is said where something answers that is no HTTP, such as the alert of a server that wants TLS.
const NO_HTTP: &[&str] = &["invalid HTTP version parsed", "frame with invalid size"];

/// What the client that sends requests says went wrong.
pub(super) fn error(error: reqwest::Error) -> CallError {
    let (connect, stalled) = (error.is_connect(), error.is_timeout());
    let error = error.without_url();
    #[cfg(feature = "tls")]
    if let Some(failed) = super::tls::failed(&error) {
        let text = brief(&failed.text);
        return match connect || failed.before_all {
            true => CallError::connect(text),
            false => CallError::lost(text),
        };
    }
    let text = chain(&error);
    if NO_HTTP.iter().any(|said| text.contains(said)) {
        return CallError::lost(brief(&format!(
            "{OTHER_LANGUAGE} (if it speaks TLS, the URL begins with https): {text}"
        )));
    }
    let text = brief(&text);
    match (connect, stalled) {
        (true, _) => CallError::connect(text),
        (false, true) => CallError::stalled(text),
        (false, false) => CallError::lost(text),
    }
}

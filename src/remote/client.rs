//! Calls over HTTP: one request, tried until it is answered or its time is up.

use std::time::{Duration, Instant};

use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use timely_statefun_proto::Bytes;

use super::wire;
use crate::dead_letter::{Reason, chain};
use crate::dispatch::{CallAnswer, CallFailure, CallRequest};
use crate::endpoint::Endpoint;
use crate::retry::Retry;

const OCTETS: &str = "application/octet-stream";
/// The longest wait between two attempts.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// A failure that names no message.
pub(super) fn failure(what: impl Into<String>, is_of_messages: bool) -> CallFailure {
    CallFailure { reason: Reason::Call(what.into()), is_of_messages }
}

/// Why one attempt came to nothing.
struct Attempt {
    what: String,
    /// Whether another may go better.
    may_pass: bool,
    /// Whether the messages may be to blame, and not the way there.
    is_of_messages: bool,
}

/// Calls the functions of one endpoint.
pub(super) struct Client {
    http: reqwest::Client,
    endpoint: Endpoint,
    retry: Retry,
}

impl Client {
    /// # Errors
    ///
    /// What is wrong with the endpoint's URL or a header.
    pub(super) fn new(endpoint: &Endpoint) -> Result<Self, String> {
        let url =
            reqwest::Url::parse(&endpoint.url_of("name")).map_err(|error| error.to_string())?;
        if !matches!(url.scheme(), "http") || url.host().is_none() {
            return Err("it must begin with http:// and name a host".to_owned());
        }
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(OCTETS));
        headers.insert(ACCEPT, HeaderValue::from_static(OCTETS));
        headers.insert(USER_AGENT, HeaderValue::from_static("statefun"));
        for (name, value) in &endpoint.headers {
            let invalid = |error: &dyn std::fmt::Display| format!("header \"{name}\": {error}");
            let name = HeaderName::try_from(name).map_err(|error| invalid(&error))?;
            let value = HeaderValue::try_from(value).map_err(|error| invalid(&error))?;
            headers.append(name, value);
        }
        let call = endpoint.call_timeout;
        let mut http = reqwest::Client::builder()
            .default_headers(headers)
            .connect_timeout(endpoint.connect_timeout.min(call))
            .read_timeout(endpoint.read_timeout.min(call))
            .pool_max_idle_per_host(endpoint.connections_idle_max)
            .pool_idle_timeout(endpoint.connection_idle)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy();
        if endpoint.http2 {
            http = http.http2_prior_knowledge();
        }
        let http = http.build().map_err(|error| chain(&error))?;
        let retry = Retry::attempts(u32::MAX).first(endpoint.retry_first).longest(LONGEST_WAIT);
        Ok(Client { http, endpoint: endpoint.clone(), retry })
    }

    /// Calls a function until it answers or its time is up.
    pub(super) async fn call(&self, request: &CallRequest) -> Result<CallAnswer, CallFailure> {
        let url = self.endpoint.url_of(request.target.function_type.name());
        let body = Bytes::from(wire::request(request));
        let began = Instant::now();
        let (mut attempts, mut before) = (0, None);
        loop {
            attempts += 1;
            let left = self.endpoint.call_timeout.saturating_sub(began.elapsed());
            let attempt = tokio::time::timeout(left, self.attempt(&url, body.clone())).await;
            let failed = match attempt {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(failed)) => failed,
                Err(_) => Attempt {
                    what: match before {
                        Some(before) => format!("{before}; then there was no answer in time"),
                        None => "there was no answer in time".to_owned(),
                    },
                    may_pass: false,
                    is_of_messages: true,
                },
            };
            let chance = began.elapsed().as_nanos() as u64 ^ body.as_ptr() as u64;
            let wait = Duration::from_millis(self.retry.wait_ms(attempts, chance));
            let left = self.endpoint.call_timeout.saturating_sub(began.elapsed());
            if !failed.may_pass || wait >= left {
                let (target, what) = (&request.target, failed.what);
                let what =
                    format!("calling \"{target}\" at {url} failed (attempts: {attempts}): {what}");
                return Err(failure(what, failed.is_of_messages));
            }
            before = Some(failed.what);
            tokio::time::sleep(wait).await;
        }
    }

    async fn attempt(&self, url: &str, body: Bytes) -> Result<CallAnswer, Attempt> {
        let transport = |error: reqwest::Error| Attempt {
            is_of_messages: !error.is_connect(),
            what: chain(&error.without_url()),
            may_pass: true,
        };
        let nonsense = |what: String| Attempt { what, may_pass: false, is_of_messages: true };
        let mut response = self.http.post(url).body(body).send().await.map_err(transport)?;
        let status = response.status();
        if !status.is_success() {
            let what = format!("the answer is {status}");
            // What is wrong with the request stays so; all else may be a passing condition.
            let may_pass = !status.is_client_error()
                || matches!(status.as_u16(), 404 | 408 | 409 | 420 | 425 | 429 | 499);
            return Err(Attempt { what, may_pass, is_of_messages: true });
        }
        let content_type = response.headers().get(CONTENT_TYPE);
        if content_type.is_none_or(|found| found != OCTETS) {
            let found = content_type.map_or("missing".to_owned(), |found| format!("{found:?}"));
            return Err(nonsense(format!("the answer's content type is {found}, not {OCTETS}")));
        }
        let bytes_max = self.endpoint.response_bytes_max;
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(transport)? {
            if body.len() + chunk.len() > bytes_max {
                return Err(nonsense(format!("the answer is larger than {bytes_max} bytes")));
            }
            body.extend_from_slice(&chunk);
        }
        wire::answer(body.into())
            .map_err(|what| nonsense(format!("the answer means nothing: {what}")))
    }
}

//! Whether a server should be sent requests, for those who ask.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::header::RETRY_AFTER;
use http::{HeaderValue, Method, Request, Response, StatusCode};

use super::response::ResponseBody;
use super::service::text;

/// Says at a path, if there is one, whether a server is there for requests.
#[derive(Clone, Debug)]
pub(super) struct Health {
    path: Option<String>,
    leaving: Arc<AtomicBool>,
}

impl Health {
    pub(super) fn at(path: Option<String>) -> Self {
        Health { path, leaving: Arc::default() }
    }

    /// There is no sense in sending requests any more.
    pub(super) fn leave(&self) {
        self.leaving.store(true, Ordering::Relaxed);
    }

    /// The answer to whoever asks for it.
    pub(super) fn answer<B>(&self, request: &Request<B>) -> Option<Response<ResponseBody>> {
        let asks = matches!(*request.method(), Method::GET | Method::HEAD);
        if !asks || self.path.as_deref() != Some(request.uri().path()) {
            return None;
        }
        if !self.leaving.load(Ordering::Relaxed) {
            return Some(text(StatusCode::OK, "serving"));
        }
        let mut response = text(StatusCode::SERVICE_UNAVAILABLE, "shutting down");
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        Some(response)
    }
}

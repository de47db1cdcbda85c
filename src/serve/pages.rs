//! Requests that are not for functions: whoever answers them by method and path, behind the doors that functions have.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, RETRY_AFTER};
use http::request::Parts;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body::Body;

use super::body::BodyLimits;
use super::response::ResponseBody;
use super::served::Served;
use super::server::Server;
use super::service::{announced, close, complete, encoded, gathered, text};

/// A response that is on its way.
pub(crate) type Page = Pin<Box<dyn Future<Output = Response<ResponseBody>> + Send>>;

/// Who answers requests by what they ask for.
pub(crate) trait Pages: Send + Sync + 'static {
    /// What is said of a request whose body is not worth reading.
    fn refused(&self, head: &Parts) -> Option<Response<ResponseBody>>;

    /// Answers a request of which all has come. Dropped, nobody waits for it any more.
    fn answer(&self, head: Parts, body: Bytes) -> Page;
}

/// A server of pages, which takes bodies of so many bytes.
pub(crate) fn server(pages: impl Pages, body_bytes_max: usize) -> Server {
    let limits = BodyLimits {
        bytes_max: body_bytes_max,
        read_timeout: Duration::from_secs(10),
        body_timeout: Duration::from_secs(120),
    };
    Server::of(Served::Pages(Arc::new(pages), limits))
}

/// A response of this status with a body of this type.
pub(crate) fn page(
    status: StatusCode,
    content_type: &'static str,
    body: Bytes,
) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::from(body));
    *response.status_mut() = status;
    complete(&mut response, content_type);
    response
}

/// A response that says something in one line.
pub(crate) fn said(status: StatusCode, what: &str) -> Response<ResponseBody> {
    let mut response = text(status, what);
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

/// What is said where a method is none of those that are allowed.
pub(crate) fn not_allowed(head: &Parts, allowed: &'static str) -> Response<ResponseBody> {
    let what = format!("the method is {}, not {allowed}", head.method.as_str());
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, &what);
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    response
}

pub(super) async fn respond<B: Body>(
    pages: &Arc<dyn Pages>,
    request: Request<B>,
    limits: &BodyLimits,
) -> Response<ResponseBody> {
    let (head, body) = request.into_parts();
    let (announced, is_complete) = (announced(&head, &body), body.is_end_stream());
    if let Some(refused) = pages.refused(&head).or_else(|| encoded(&head.headers)) {
        return if is_complete { refused } else { close(&head, refused) };
    }
    match gathered(&head, body, announced, limits).await {
        Ok(body) => pages.answer(head, body).await,
        Err(response) => response,
    }
}

//! The egress over HTTP: `GET /topic` takes the next record of a topic.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CACHE_CONTROL;
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode};
use tokio::time::timeout;
use url::form_urlencoded;

use super::request::decoded;
use super::topics::{Shared, Topics};
use crate::modules::duration;
use crate::serve::pages::{self, Page, Pages, not_allowed, page, said};
use crate::serve::{ResponseBody, Server};

/// How long a request may wait for a record at most.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// How many bytes a request may have, none of which mean anything.
const BODY_BYTES_MAX: usize = 4096;
const CONNECTIONS_MAX: usize = 1024;
const TEXT: &str = "text/plain; charset=utf-8";

impl Topics {
    /// A server that hands out records, to be [bound](Server::bind) where it is to listen.
    ///
    /// `GET /topic` takes the next record of a topic: of the oldest cut that released any, and of one address in the
    /// order in which it emitted them. With `?wait=5s` it waits so long for one, up to a minute; up to 1,024 requests
    /// may wait. The name of a topic is all of the path, in which `%2F` and the like stand for bytes of UTF-8.
    ///
    /// | request | status |
    /// |---|---|
    /// | a record was there | 200, its payload as `text/plain; charset=utf-8` |
    /// | none is there, or there is no such topic | 404 |
    /// | a parameter that is not `wait`, or no duration | 400 |
    /// | another method than GET | 405, with `Allow` |
    /// | it would wait, and too many do | 503 with `Retry-After: 1` |
    ///
    /// A record is taken when it is handed out: who goes away before reading it finds the next. Where a [server's
    /// defaults](Server) are not these: up to 1,024 connections, and bodies of 4 KiB.
    pub fn server(&self) -> Server {
        let pages = Egress { topics: Arc::clone(&self.shared) };
        pages::server(pages, BODY_BYTES_MAX).connections_max(CONNECTIONS_MAX)
    }
}

struct Egress {
    topics: Arc<Shared>,
}

/// What a request asks for.
struct Asked {
    topic: String,
    wait: Duration,
}

impl Egress {
    fn asked(&self, head: &Parts) -> Result<Asked, Box<Response<ResponseBody>>> {
        if head.method != Method::GET {
            return Err(Box::new(not_allowed(head, "GET")));
        }
        let path = head.uri.path();
        let topic = decoded(path.strip_prefix('/').unwrap_or(path));
        let topic = topic.filter(|topic| self.topics.awaited.contains_key(topic));
        let Some(topic) = topic else {
            let what = self.topics.unknown(path.trim_start_matches('/'));
            return Err(Box::new(said(StatusCode::NOT_FOUND, &what)));
        };
        let bad = |what: String| Box::new(said(StatusCode::BAD_REQUEST, &what));
        let mut wait = Duration::ZERO;
        for (name, value) in form_urlencoded::parse(head.uri.query().unwrap_or("").as_bytes()) {
            if name != "wait" {
                return Err(bad(format!("there is no parameter \"{name}\", only \"wait\"")));
            }
            wait =
                duration(&value).map_err(|why| bad(format!("\"wait\" is \"{value}\": {why}")))?;
        }
        Ok(Asked { topic, wait: wait.min(WAIT_MAX) })
    }
}

impl Pages for Egress {
    fn refused(&self, head: &Parts) -> Option<Response<ResponseBody>> {
        self.asked(head).err().map(|refused| *refused)
    }

    fn answer(&self, head: Parts, _: Bytes) -> Page {
        let asked = self.asked(&head);
        let topics = Arc::clone(&self.topics);
        Box::pin(async move {
            match asked {
                Ok(asked) => answer(&topics, &asked).await,
                Err(refused) => *refused,
            }
        })
    }
}

async fn answer(topics: &Shared, Asked { topic, wait }: &Asked) -> Response<ResponseBody> {
    let mut taken = topics.take(topic);
    if taken.is_none() && !wait.is_zero() {
        let Ok(_place) = topics.places.try_acquire() else {
            return said(StatusCode::SERVICE_UNAVAILABLE, "too many wait for records");
        };
        taken = timeout(*wait, topics.next(topic)).await.ok();
    }
    match taken {
        Some(payload) => {
            let mut response = page(StatusCode::OK, TEXT, payload);
            // It is nobody else's.
            response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
            response
        }
        None => said(StatusCode::NOT_FOUND, &format!("nothing waits in topic \"{topic}\"")),
    }
}

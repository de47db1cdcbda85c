//! One connection, from its first byte to its last.

use std::error::Error;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use http::header::CONNECTION;
use http::{HeaderValue, Request, Response, Version};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::activity::{Activity, Due, Patience};
use super::health::Health;
use super::response::ResponseBody;
use super::served::Served;
use super::service::Incomplete;
#[cfg(feature = "tls")]
use super::tls::Handshake;
use super::watched::Watched;

/// What is the same for all connections of a server.
pub(super) struct Common {
    pub(super) served: Served,
    pub(super) health: Health,
    pub(super) patience: Patience,
    pub(super) http: Builder<TokioExecutor>,
    /// Whether it is told to stop.
    pub(super) stop: watch::Receiver<bool>,
    #[cfg(feature = "tls")]
    pub(super) tls: Option<Handshake>,
}

/// How much of a head is held in memory at most, and of what is read at once.
const BUFFER_BYTES: usize = 64 << 10;

/// How HTTP is spoken, either version of it.
pub(super) fn http(streams_max: u32) -> Builder<TokioExecutor> {
    let mut http = Builder::new(TokioExecutor::new());
    // How long things may take is judged in one place, which knows more than hyper does.
    http.http1().timer(TokioTimer::new()).header_read_timeout(None).max_buf_size(BUFFER_BYTES);
    http.http2().timer(TokioTimer::new()).max_concurrent_streams(streams_max);
    http
}

/// Why a request is not answered at all.
#[derive(Debug, thiserror::Error)]
#[error("the request is not complete")]
struct NobodyThere;

/// Answers a request, if there is anybody who waits for it.
async fn answer(
    common: &Common,
    activity: &Arc<Activity>,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>, NobodyThere> {
    let _under_way = activity.begin();
    let http1 = request.version() < Version::HTTP_2;
    if let Some(response) = common.health.answer(&request) {
        return Ok(response);
    }
    let mut response = common.served.respond(request).await;
    if response.extensions().get::<Incomplete>().is_some() {
        return Err(NobodyThere);
    }
    if response.headers().contains_key(CONNECTION) {
        activity.leave_unread();
    }
    // hyper says so as well, unless the answer is there before the connection has heard of it.
    if http1 && *common.stop.borrow() {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response)
}

/// Ends when a server is told to stop, or is gone.
pub(super) async fn stops(mut stop: watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Serves a connection until it is over; once the server is to stop, as soon as what is under way is answered.
pub(super) async fn serve<S>(stream: S, common: &Arc<Common>, activity: Arc<Activity>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (answers, known) = (Arc::clone(common), Arc::clone(&activity));
    let service = service_fn(move |request| {
        let (common, activity) = (Arc::clone(&answers), Arc::clone(&known));
        async move { answer(&common, &activity, request).await }
    });
    let stream = TokioIo::new(Watched::new(stream, Arc::clone(&activity)));
    let mut connection = pin!(common.http.serve_connection(stream, service));
    let mut stop = pin!(stops(common.stop.clone()));
    let (mut stopping, mut closing) = (false, false);
    let mut timer = pin!(sleep(common.patience.connection_idle));
    poll_fn(|cx| {
        loop {
            // What has come is a request that has begun, whatever else there is to do.
            if let Poll::Ready(end) = connection.as_mut().poll(cx) {
                if let Err(error) = end {
                    tracing::debug!(error = &*error as &dyn Error, "a connection failed");
                }
                return Poll::Ready(());
            }
            stopping = stopping || stop.as_mut().poll(cx).is_ready();
            let due = if stopping && !closing {
                Some((Instant::now(), Due::Close))
            } else {
                activity.due(&common.patience)
            };
            let Some((when, what)) = due else { return Poll::Pending };
            if when > Instant::now() {
                // It is set anew only if it would come too late: most of what it waits for does not happen.
                if when < timer.deadline() || timer.is_elapsed() {
                    timer.as_mut().reset(when);
                }
                if timer.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                continue;
            }
            match what {
                Due::Cut(why) => {
                    tracing::debug!(why, "a connection is cut");
                    return Poll::Ready(());
                }
                Due::Close => {
                    closing = true;
                    activity.close();
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    })
    .await;
}

//! Takes connections, until it is told to stop; then waits for those that are there.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Sleep, sleep, timeout};

use super::activity::Activity;
use super::connection::{self, Common, stops};

/// How long it waits before it asks again for a connection that the system could not give.
const PAUSE_FIRST: Duration = Duration::from_millis(10);
const PAUSE_LONGEST: Duration = Duration::from_secs(1);

/// Where connections come from. Dropped, nobody can connect any more.
pub(super) trait Listen: Send + 'static {
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Self::Stream>>;
}

impl Listen for TcpListener {
    type Stream = TcpStream;

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<TcpStream>> {
        let (stream, _) = ready!(TcpListener::poll_accept(self, cx))?;
        // An answer is written at once, and should not wait for more.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection may be slow");
        }
        Poll::Ready(Ok(stream))
    }
}

/// How a server ended.
///
/// ```
/// use timely_statefun::serve::Ended;
///
/// assert!(Ended::default().is_graceful());
/// ```
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ended {
    /// Connections that were still there after the grace time.
    pub connections_cut: usize,
    /// Requests that came and were not answered by then.
    pub requests_cut: usize,
}

impl Ended {
    /// Whether all requests were answered and all connections ended by themselves.
    pub fn is_graceful(&self) -> bool {
        *self == Ended::default()
    }
}

/// Serves whoever connects until it is told to stop, and then for as long as they have requests under way, up to a
/// grace time. Dropped, it cuts them all.
pub(super) async fn run<L: Listen>(
    mut listener: L,
    common: Arc<Common>,
    connections_max: usize,
    grace: Duration,
) -> Ended {
    let requests = Arc::<AtomicUsize>::default();
    let mut connections = JoinSet::new();
    let mut stopped = pin!(stops(common.stop.clone()));
    let mut pause = PAUSE_FIRST;
    let mut pausing: Option<Pin<Box<Sleep>>> = None;
    loop {
        let accepted = poll_fn(|cx| {
            while let Poll::Ready(Some(ended)) = connections.poll_join_next(cx) {
                check(ended);
            }
            if stopped.as_mut().poll(cx).is_ready() {
                return Poll::Ready(None);
            }
            if let Some(pause) = &mut pausing {
                ready!(pause.as_mut().poll(cx));
                pausing = None;
            }
            if connections.len() >= connections_max {
                return Poll::Pending;
            }
            listener.poll_accept(cx).map(Some)
        });
        match accepted.await {
            None => break,
            Some(Ok(stream)) => {
                pause = PAUSE_FIRST;
                let activity = Activity::new(Arc::clone(&requests));
                let common = Arc::clone(&common);
                connections.spawn(async move {
                    connection::serve(stream, &common, activity).await;
                });
            }
            Some(Err(error)) if is_of_one_connection(&error) => {
                tracing::debug!(%error, "a connection was lost before it began");
            }
            Some(Err(error)) => {
                tracing::warn!(%error, again_in = ?pause, "cannot take a connection");
                pausing = Some(Box::pin(sleep(pause)));
                pause = (pause * 2).min(PAUSE_LONGEST);
            }
        }
    }
    drop(listener);
    let all = async {
        while let Some(ended) = connections.join_next().await {
            check(ended);
        }
    };
    let _ = timeout(grace, all).await;
    let connections_cut = connections.len();
    let ended = Ended { connections_cut, requests_cut: requests.load(Ordering::Relaxed) };
    connections.shutdown().await;
    ended
}

fn check(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "serving a connection failed");
    }
}

/// Whether it says something of a connection, and nothing of the next.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

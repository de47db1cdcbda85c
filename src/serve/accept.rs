//! Takes connections, until it is told to stop; then waits for those that are there.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Sleep, sleep, timeout};

use super::activity::{Activity, Requests};
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
    let requests = Arc::<Requests>::default();
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
                    #[cfg(feature = "tls")]
                    if let Some(tls) = &common.tls {
                        let shaken = tls.shake_hands(stream, stops(common.stop.clone())).await;
                        if let Some(stream) = shaken {
                            connection::serve(stream, &common, activity).await;
                        }
                        return;
                    }
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
        // Over HTTP/2, each has a task of its own, which hears a little later that its connection is over.
        requests.over().await;
    };
    let _ = timeout(grace, all).await;
    let connections_cut = connections.len();
    let ended = Ended { connections_cut, requests_cut: requests.under_way() };
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

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::future::pending;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::sync::watch;
    use tokio::time::Instant;

    use super::super::activity::Patience;
    use super::super::health::Health;
    use super::super::served::Served;
    use super::super::service::HttpService;
    use super::super::{Answer, RequestReply};
    use super::*;

    /// Gives what it is told, and then nothing.
    struct Told {
        gives: VecDeque<io::Result<DuplexStream>>,
        asked: Arc<std::sync::Mutex<Vec<Instant>>>,
    }

    impl Listen for Told {
        type Stream = DuplexStream;

        fn poll_accept(&mut self, _: &mut Context<'_>) -> Poll<io::Result<DuplexStream>> {
            self.asked.lock().unwrap().push(Instant::now());
            self.gives.pop_front().map_or(Poll::Pending, Poll::Ready)
        }
    }

    struct Never;

    impl RequestReply for Never {
        fn answer(&self, _: bytes::Bytes) -> Answer {
            Box::pin(pending())
        }
    }

    fn common(stop: watch::Receiver<bool>) -> Arc<Common> {
        let patience = Patience {
            head_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(10),
            connection_idle: Duration::from_secs(10),
        };
        let served = Served::Functions(HttpService::new(Never));
        let http = connection::http(1);
        Arc::new(Common {
            served,
            health: Health::at(None),
            patience,
            http,
            stop,
            #[cfg(feature = "tls")]
            tls: None,
        })
    }

    /// What was never answered since its caller went away is nothing that a server cut.
    #[test]
    fn requests_of_callers_that_went_away_are_not_cut() {
        // Whether the server hears of the end of the connection or of the request first is chance.
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(2).enable_time().build().unwrap();
        for _ in 0..300 {
            runtime.block_on(async {
                let (caller, stream) = duplex(1024);
                let asked = Arc::<std::sync::Mutex<Vec<Instant>>>::default();
                let listener = Told { gives: [Ok(stream)].into(), asked };
                let (stop, stopped) = watch::channel(false);
                let grace = Duration::from_secs(60);
                let running = tokio::spawn(run(listener, common(stopped), 10, grace));
                let (mut send, connection) = h2::client::handshake(caller).await.unwrap();
                let connection = tokio::spawn(connection);
                let request = http::Request::post("http://x/").body(()).unwrap();
                let (answer, mut body) = send.send_request(request, false).unwrap();
                body.send_data(bytes::Bytes::from_static(b"x"), true).unwrap();
                sleep(Duration::from_millis(1)).await;
                stop.send_replace(true);
                connection.abort();
                drop((answer, send));
                assert_eq!(running.await.unwrap(), Ended::default());
            });
        }
    }

    /// A program that has too many files open could not serve again without a restart, or would ask as fast as it can.
    #[test]
    fn it_goes_on_when_the_system_refuses_connections_and_asks_less_often() {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let (mut caller, stream) = duplex(1024);
            let refused = || Err(io::Error::from_raw_os_error(24));
            let lost = || Err(io::ErrorKind::ConnectionAborted.into());
            let mut gives: VecDeque<_> = (0..9).map(|_| refused()).collect();
            gives.extend([lost(), lost(), Ok(stream), refused()]);
            let asked = Arc::<std::sync::Mutex<Vec<Instant>>>::default();
            let listener = Told { gives, asked: Arc::clone(&asked) };
            let (stop, stopped) = watch::channel(false);
            let grace = Duration::from_secs(1);
            let running = tokio::spawn(run(listener, common(stopped), 10, grace));
            caller.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
            let mut said = [0; 12];
            caller.read_exact(&mut said).await.unwrap();
            assert_eq!(&said, b"HTTP/1.1 405");
            sleep(Duration::from_secs(1)).await;
            stop.send_replace(true);
            assert_eq!(running.await.unwrap(), Ended::default());
            let asked = asked.lock().unwrap();
            let waits = asked.windows(2).map(|pair| (pair[1] - pair[0]).as_millis());
            let waits: Vec<_> = waits.map(|wait| wait / 10 * 10).collect();
            let expected = [10, 20, 40, 80, 160, 320, 640, 1000, 1000, 0, 0, 0, 10];
            assert!(waits.starts_with(&expected), "{waits:?}");
        });
    }
}

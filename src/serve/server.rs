//! A server of one's own: what it is told, where it listens, and how it ends.

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
#[cfg(unix)]
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, ToSocketAddrs, lookup_host};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::accept::{Ended, Listen};
use super::activity::Patience;
use super::connection::{self, Common};
use super::error::{Kind, ServeError};
use super::health::Health;
use super::served::Served;
use super::service::HttpService;
#[cfg(feature = "tls")]
use super::tls::ServerTls;
#[cfg(unix)]
use super::unix::{Listener, SocketFile};
use super::{RequestReply, accept};

/// Times are counted from now on, and those that are longer would not fit.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Serves functions over HTTP: a server that is not started yet.
///
/// It speaks HTTP/1.1, and HTTP/2 with whoever begins with it (`Endpoint::http2`), on the same port. What it answers is
/// what [`HttpService`] answers.
///
/// ```no_run
/// # use timely_statefun::serve::{RequestReply, ServeError, Server};
/// # async fn example(functions: impl RequestReply, stopped: impl Future<Output = ()>) -> Result<(), ServeError> {
/// let serving = Server::new(functions).bind("127.0.0.1:8000").await?;
/// println!("serving at {}", serving.url());
/// // Whatever says that it is time, such as `tokio::signal::ctrl_c()`.
/// stopped.await;
/// let ended = serving.shutdown().await;
/// println!("{} requests were not answered", ended.requests_cut);
/// # Ok(())
/// # }
/// ```
///
/// | setting | default | |
/// |---|---|---|
/// | [`body_bytes_max`](Self::body_bytes_max) | 32 MiB | then 413 |
/// | [`read_timeout`](Self::read_timeout) | 10 s | then 408 |
/// | [`body_timeout`](Self::body_timeout) | 2 min | then 408 |
/// | [`head_timeout`](Self::head_timeout) | 10 s | then the connection is cut |
/// | [`write_timeout`](Self::write_timeout) | 10 s | then the connection is cut |
/// | [`connection_idle`](Self::connection_idle) | 75 s | then the connection is closed |
/// | [`connections_max`](Self::connections_max) | 4,096 | then others wait |
/// | [`streams_max`](Self::streams_max) | 256 | then others wait |
/// | [`grace`](Self::grace) | 30 s | then what is under way is cut |
/// | [`notice`](Self::notice) | none | |
/// | [`health`](Self::health) | none | |
///
/// With the feature `tls`, it speaks [TLS](Server#method.tls).
#[derive(Clone)]
pub struct Server {
    served: Served,
    patience: Patience,
    connections_max: usize,
    streams_max: u32,
    grace: Duration,
    notice: Duration,
    health: Option<String>,
    #[cfg(feature = "tls")]
    tls: Option<ServerTls>,
    #[cfg(feature = "tls")]
    handshake_timeout: Duration,
}

impl Server {
    /// A server of what answers requests.
    pub fn new(functions: impl RequestReply) -> Self {
        Self::of(Served::Functions(HttpService::new(functions)))
    }

    /// A server of something else, behind the same doors.
    pub(super) fn of(served: Served) -> Self {
        Server {
            served,
            patience: Patience {
                head_timeout: Duration::from_secs(10),
                write_timeout: Duration::from_secs(10),
                connection_idle: Duration::from_secs(75),
            },
            connections_max: 4096,
            streams_max: 256,
            grace: Duration::from_secs(30),
            notice: Duration::ZERO,
            health: None,
            #[cfg(feature = "tls")]
            tls: None,
            #[cfg(feature = "tls")]
            handshake_timeout: Duration::from_secs(10),
        }
    }

    /// How many bytes the body of a request may have; at least 1. Default: 32 MiB.
    #[must_use]
    pub fn body_bytes_max(mut self, bytes: usize) -> Self {
        self.served.limits_mut().bytes_max = bytes;
        self
    }

    /// How long nothing may come of a body that is not complete; more than nothing. Default: 10 s.
    #[must_use]
    pub fn read_timeout(mut self, timeout: Duration) -> Self {
        self.served.limits_mut().read_timeout = timeout;
        self
    }

    /// How long all of a body may take; more than nothing. Default: 2 min, which is how long StateFun waits for an
    /// answer.
    #[must_use]
    pub fn body_timeout(mut self, timeout: Duration) -> Self {
        self.served.limits_mut().body_timeout = timeout;
        self
    }

    /// How long the head of a request may take from its first byte on; more than nothing. Default: 10 s.
    ///
    /// A connection that is to end, and does not, is cut after as long.
    #[must_use]
    pub fn head_timeout(mut self, timeout: Duration) -> Self {
        self.patience.head_timeout = timeout;
        self
    }

    /// How long the other side may take nothing of what is there for it; more than nothing. Default: 10 s.
    #[must_use]
    pub fn write_timeout(mut self, timeout: Duration) -> Self {
        self.patience.write_timeout = timeout;
        self
    }

    /// How long a connection is kept over which nothing is asked; more than nothing. Default: 75 s, which is
    /// longer than [`Endpoint::connection_idle`](crate::Endpoint::connection_idle): who calls should be the first to
    /// close, since a request that meets the end of its connection must be sent again.
    ///
    /// It begins with the connection, and anew whenever something was answered, or sent at all: who sends pings over
    /// HTTP/2 keeps the connection.
    #[must_use]
    pub fn connection_idle(mut self, idle: Duration) -> Self {
        self.patience.connection_idle = idle;
        self
    }

    /// How many connections there may be; at least 1. Default: 4,096. Others wait, for as long as the system has room
    /// for them, until one is over.
    #[must_use]
    pub fn connections_max(mut self, connections: usize) -> Self {
        self.connections_max = connections;
        self
    }

    /// How many requests may be under way on a connection of HTTP/2; at least 1. Default: 256.
    #[must_use]
    pub fn streams_max(mut self, streams: u32) -> Self {
        self.streams_max = streams;
        self
    }

    /// How long requests that are under way may take after [`Serving::shutdown`]. Default: 30 s.
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// For how long after [`Serving::shutdown`] all goes on as before, but for what [`health`](Self::health) says.
    /// Default: not at all.
    ///
    /// It is the time that a load balancer needs to see that it should send requests elsewhere.
    #[must_use]
    pub fn notice(mut self, notice: Duration) -> Self {
        self.notice = notice;
        self
    }

    /// Says at a path (`/healthz`), to whoever asks with GET or HEAD, whether this server is there for requests: 200, or
    /// 503 once it shuts down. Default: nowhere.
    ///
    /// A request with POST is none of that, whatever its path.
    #[must_use]
    pub fn health(mut self, path: impl Into<String>) -> Self {
        self.health = Some(path.into());
        self
    }

    /// Speaks TLS, and nothing else. Default: without.
    ///
    /// HTTP/2 and HTTP/1.1 are offered (ALPN).
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(mut self, tls: ServerTls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// How long it may take until TLS is spoken; more than nothing. Default: 10 s, and then the connection is cut.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn handshake_timeout(mut self, timeout: Duration) -> Self {
        self.handshake_timeout = timeout;
        self
    }

    /// Begins to serve at an address, on the tokio runtime that this is called on. With port 0, the system chooses one.
    ///
    /// # Errors
    ///
    /// If a setting means nothing, the address cannot be resolved, somebody else has it, or this program may not
    /// have it.
    pub async fn bind(self, address: impl ToSocketAddrs) -> Result<Serving, ServeError> {
        self.check()?;
        let addresses =
            lookup_host(address).await.map_err(|error| Kind::Unresolved(Some(error)))?;
        let mut why = Kind::Unresolved(None);
        for address in addresses {
            let bound = TcpListener::bind(address).await;
            match bound.and_then(|listener| Ok((listener.local_addr()?, listener))) {
                Ok((address, listener)) => {
                    let url = format!("{}://{address}", self.scheme());
                    return Ok(self.start(listener, url, Place::Tcp(address)));
                }
                Err(source) => why = Kind::Listen { place: address.to_string(), source },
            }
        }
        Err(why.into())
    }

    /// Begins to serve at a path, as a Unix socket, on the tokio runtime that this is called on.
    ///
    /// What is there from a server that was killed, and nobody listens at, is replaced. Who may connect is who may write
    /// to the file, which is up to the process's umask and the directory. It is removed when the server ends.
    ///
    /// # Errors
    ///
    /// If a setting means nothing, such as TLS where nobody can listen in, the path is too long, somebody else listens there or there is something that is no
    /// socket, or this program may not have it.
    #[cfg(unix)]
    pub async fn bind_unix(self, path: impl AsRef<Path>) -> Result<Serving, ServeError> {
        self.check()?;
        if self.scheme() != "http" {
            return Err(Kind::Setting("a Unix socket is served without TLS".to_owned()).into());
        }
        let path = path.as_ref();
        let (listener, file) = Listener::bind(path).await?;
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let url = format!("http+unix://{}", path.display());
        Ok(self.start(listener, url, Place::Unix(file)))
    }

    #[cfg(feature = "tls")]
    fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    #[cfg(not(feature = "tls"))]
    fn scheme(&self) -> &'static str {
        "http"
    }

    fn check(&self) -> Result<(), ServeError> {
        let (limits, patience) = (self.served.limits(), &self.patience);
        for (name, timeout) in [
            ("read_timeout", limits.read_timeout),
            ("body_timeout", limits.body_timeout),
            ("head_timeout", patience.head_timeout),
            ("write_timeout", patience.write_timeout),
            ("connection_idle", patience.connection_idle),
            #[cfg(feature = "tls")]
            ("handshake_timeout", self.handshake_timeout),
        ] {
            if timeout.is_zero() {
                return Err(Kind::Setting(format!("{name} is 0")).into());
            }
        }
        for (name, count) in [
            ("body_bytes_max", limits.bytes_max),
            ("connections_max", self.connections_max),
            ("streams_max", self.streams_max as usize),
        ] {
            if count == 0 {
                return Err(Kind::Setting(format!("{name} is 0")).into());
            }
        }
        match &self.health {
            Some(path) if !path.starts_with('/') || path.contains(['?', '#']) => {
                Err(Kind::Setting(format!("health is at \"{path}\", which is no path")).into())
            }
            _ => Ok(()),
        }
    }

    fn start(self, listener: impl Listen, url: String, place: Place) -> Serving {
        let health = Health::at(self.health);
        let Patience { head_timeout, write_timeout, connection_idle } = self.patience;
        let (stop, stopped) = watch::channel(false);
        let common = Common {
            stop: stopped,
            #[cfg(feature = "tls")]
            tls: self.tls.map(|tls| tls.handshake(self.handshake_timeout)),
            served: self.served,
            health: health.clone(),
            patience: Patience {
                head_timeout: head_timeout.min(LONGEST),
                write_timeout: write_timeout.min(LONGEST),
                connection_idle: connection_idle.min(LONGEST),
            },
            http: connection::http(self.streams_max),
        };
        let running = accept::run(listener, Arc::new(common), self.connections_max, self.grace);
        let running = tokio::spawn(running);
        Serving { running, stop, health, notice: self.notice, url, place }
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("served", &self.served)
            .field("head_timeout", &self.patience.head_timeout)
            .field("write_timeout", &self.patience.write_timeout)
            .field("connection_idle", &self.patience.connection_idle)
            .field("connections_max", &self.connections_max)
            .field("streams_max", &self.streams_max)
            .field("grace", &self.grace)
            .field("notice", &self.notice)
            .field("health", &self.health)
            .field("scheme", &self.scheme())
            .finish_non_exhaustive()
    }
}

/// Where a server listens.
enum Place {
    Tcp(SocketAddr),
    #[cfg(unix)]
    Unix(Arc<SocketFile>),
}

/// A server at work. Dropped, it stops at once, and cuts its connections.
#[must_use = "it stops when it is dropped"]
pub struct Serving {
    running: JoinHandle<Ended>,
    stop: watch::Sender<bool>,
    health: Health,
    notice: Duration,
    url: String,
    place: Place,
}

impl Serving {
    /// Where it serves, as others call it: `http://127.0.0.1:8000`, `http+unix:///run/functions.sock`, or with TLS
    /// `https://127.0.0.1:8000`, where a certificate may be for another name.
    ///
    /// A server that is bound to all addresses of its host says so (`http://0.0.0.0:8000`), which others cannot call.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The address where it listens, if it is one of the network.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match self.place {
            Place::Tcp(address) => Some(address),
            #[cfg(unix)]
            Place::Unix(_) => None,
        }
    }

    /// Stops: after the [notice](Server::notice), nobody can connect any more, and each connection ends when what
    /// is under way on it is answered (`Connection: close`, GOAWAY); what takes longer than the [grace](Server::grace)
    /// is cut. Says how it went.
    ///
    /// A future that is dropped before its end cuts at once.
    pub fn shutdown(mut self) -> impl Future<Output = Ended> + Send {
        self.health.leave();
        async move {
            if !self.notice.is_zero() {
                sleep(self.notice).await;
            }
            self.stop.send_replace(true);
            match (&mut self.running).await {
                Ok(ended) => ended,
                Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                // The runtime has ended, and everything on it.
                Err(_) => Ended::default(),
            }
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        #[cfg(unix)]
        if let Place::Unix(file) = &self.place {
            file.remove();
        }
        self.running.abort();
    }
}

impl fmt::Debug for Serving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serving").field("url", &self.url).finish_non_exhaustive()
    }
}

//! A remote function served by `hyper`: over TCP or a Unix socket, with TLS or without, over HTTP/1.1 or
//! HTTP/2 as the client likes.
#![allow(dead_code)]

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
#[cfg(unix)]
use tokio::net::UnixListener;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use crate::protocol::runtime;
use crate::server::{Answer, Request};

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

pub enum Listener {
    Tcp(TcpListener),
    #[cfg(unix)]
    Unix(UnixListener),
}

impl Listener {
    /// Listens on a port that the system chooses, and says on which.
    pub fn tcp() -> (Self, u16) {
        let listener = runtime().block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let port = listener.local_addr().unwrap().port();
        (Listener::Tcp(listener), port)
    }

    /// Listens at a socket that is not there yet.
    #[cfg(unix)]
    pub fn unix(path: &Path) -> Self {
        let _in_runtime = runtime().enter();
        Listener::Unix(UnixListener::bind(path).unwrap())
    }

    async fn accept(&self) -> Box<dyn Stream> {
        match self {
            Listener::Tcp(listener) => Box::new(listener.accept().await.unwrap().0),
            #[cfg(unix)]
            Listener::Unix(listener) => Box::new(listener.accept().await.unwrap().0),
        }
    }
}

/// Serves until it is dropped, and has closed every connection then.
pub struct Served {
    /// Connections that were accepted.
    pub connections: Arc<AtomicUsize>,
    accepting: JoinHandle<()>,
}

type Answers = Arc<dyn Fn(Request) -> Answer + Send + Sync>;

/// Serves where somebody listens, with TLS if there is what accepts that.
pub fn serve(
    listener: Listener,
    tls: Option<TlsAcceptor>,
    answer: impl Fn(Request) -> Answer + Send + Sync + 'static,
) -> Served {
    let connections = Arc::<AtomicUsize>::default();
    let count = Arc::clone(&connections);
    let answer: Answers = Arc::new(answer);
    let accepting = runtime().spawn(async move {
        let mut open = JoinSet::new();
        loop {
            let stream = listener.accept().await;
            count.fetch_add(1, SeqCst);
            let (tls, answer) = (tls.clone(), Arc::clone(&answer));
            open.spawn(async move {
                match tls {
                    None => connection(stream, answer).await,
                    Some(tls) => {
                        // Whoever is refused is told why by what accepts.
                        let Ok(stream) = tls.accept(stream).await else { return };
                        connection(stream, answer).await;
                    }
                }
            });
        }
    });
    Served { connections, accepting }
}

async fn connection(stream: impl Stream + 'static, answer: Answers) {
    let service = service_fn(move |request| respond(request, Arc::clone(&answer)));
    // It ends when the other side likes, or when the test does.
    let _ =
        Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
}

async fn respond(
    request: http::Request<Incoming>,
    answer: Answers,
) -> Result<http::Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let text = |value: &http::HeaderValue| value.to_str().unwrap().to_owned();
    let headers = head.headers.iter().map(|(name, value)| (name.to_string(), text(value)));
    let mut headers: Vec<_> = headers.collect();
    headers.push((":version".to_owned(), format!("{:?}", head.version)));
    let path = head.uri.path_and_query().unwrap().to_string();
    // Whoever goes away in the middle gets no answer.
    let body = body.collect().await.map(|body| body.to_bytes().to_vec()).unwrap_or_default();
    let head = http::Response::builder();
    Ok(match answer(Request { path, headers, body }) {
        Answer::Ok(body) => {
            head.header("content-type", "application/octet-stream").body(Full::from(body))
        }
        // Others answer badly in every way; here somebody only has no time.
        _ => head.status(503).body(Full::default()),
    }
    .unwrap())
}

impl Drop for Served {
    fn drop(&mut self) {
        self.accepting.abort();
        let _ = runtime().block_on(&mut self.accepting);
    }
}

/// A directory of this test's own, until it is dropped.
pub struct Directory(PathBuf);

impl Directory {
    /// The path is short, as paths of sockets must be.
    pub fn new() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, SeqCst);
        let path = std::env::temp_dir().join(format!("sf-{}-{number}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Directory(path)
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes a file, and says where.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.at(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

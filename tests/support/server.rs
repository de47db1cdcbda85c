//! A remote function served over HTTP/1.1, by hand: a test says what each request is answered, well or
//! badly.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// A request, as far as tests look at it.
pub struct Request {
    #[allow(dead_code)]
    pub path: String,
    /// Names in lower case.
    #[allow(dead_code)]
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

/// What to answer.
#[allow(dead_code)]
pub enum Answer {
    /// 200 with these bytes, as the protocol has it.
    Ok(Vec<u8>),
    /// Whatever these bytes are; the connection is closed after them.
    Raw(Vec<u8>),
    /// Whatever these bytes are; the connection is kept.
    Keep(Vec<u8>),
    /// The same, with a pause after so many.
    Slowly(Vec<u8>, usize, Duration),
    /// Whatever this does with the connection, which is closed after it.
    By(Box<dyn FnOnce(&mut TcpStream) + Send>),
}

#[allow(dead_code)]
impl Answer {
    /// A status with a text and nothing else; the connection is kept.
    pub fn status(status: u16, text: &str) -> Self {
        let head = format!("HTTP/1.1 {status} As Told\r\ncontent-type: text/plain\r\n");
        Answer::Keep(format!("{head}content-length: {}\r\n\r\n{text}", text.len()).into_bytes())
    }

    /// None at all, until the other side has closed the connection; `closed` is told.
    pub fn never(closed: impl FnOnce() + Send + 'static) -> Self {
        Answer::By(Box::new(move |stream| {
            let _ = stream.read(&mut [0]);
            closed();
        }))
    }
}

/// The head of a good answer, as far as it is always the same.
pub const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\n";

/// Serves until it is dropped.
pub struct Server {
    pub address: String,
    stopped: Arc<AtomicBool>,
    /// Connections that were accepted.
    #[allow(dead_code)]
    pub connections: Arc<AtomicUsize>,
    /// Connections that are open, by number.
    open: Arc<Mutex<BTreeMap<usize, TcpStream>>>,
}

impl Server {
    /// Serves on a port that the system chooses.
    #[allow(dead_code)]
    pub fn start(answer: impl Fn(Request) -> Answer + Send + Sync + 'static) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").unwrap(), answer)
    }

    /// Serves where somebody listens already.
    pub fn on(
        listener: TcpListener,
        answer: impl Fn(Request) -> Answer + Send + Sync + 'static,
    ) -> Self {
        Self::keep(listener, false, move |_, stream| serve(&stream, &answer))
    }

    /// Has every connection, by number, served by hand.
    #[allow(dead_code)]
    pub fn accept(
        listener: TcpListener,
        serve: impl Fn(usize, TcpStream) + Send + Sync + 'static,
    ) -> Self {
        Self::keep(listener, true, serve)
    }

    /// The same. Connections that are kept stay open when they have been served.
    fn keep(
        listener: TcpListener,
        keeps: bool,
        serve: impl Fn(usize, TcpStream) + Send + Sync + 'static,
    ) -> Self {
        let address = listener.local_addr().unwrap().to_string();
        let (stopped, connections) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let open: Arc<Mutex<BTreeMap<usize, TcpStream>>> = Arc::default();
        let serve = Arc::new(serve);
        let (is_stopped, count, kept) =
            (Arc::clone(&stopped), Arc::clone(&connections), Arc::clone(&open));
        thread::spawn(move || {
            for stream in listener.incoming() {
                if is_stopped.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let number = count.fetch_add(1, Ordering::SeqCst);
                kept.lock().unwrap().insert(number, stream.try_clone().unwrap());
                let (serve, kept) = (Arc::clone(&serve), Arc::clone(&kept));
                thread::spawn(move || {
                    serve(number, stream);
                    if !keeps {
                        kept.lock().unwrap().remove(&number);
                    }
                });
            }
        });
        Server { address, stopped, connections, open }
    }

    #[allow(dead_code)]
    pub fn url(&self) -> String {
        format!("http://{}/{{function.name}}", self.address)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(&self.address);
        for stream in std::mem::take(&mut *self.open.lock().unwrap()).values() {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }
}

/// Answers the requests of one connection.
pub fn serve(stream: &TcpStream, answer: &dyn Fn(Request) -> Answer) {
    let mut reader = BufReader::new(stream);
    while let Some(request) = read(&mut reader) {
        let mut writer = stream;
        let (bytes, last) = match answer(request) {
            Answer::Raw(bytes) => (bytes, true),
            Answer::Keep(bytes) => (bytes, false),
            Answer::Slowly(bytes, first, pause) => {
                if writer.write_all(&bytes[..first]).is_err() {
                    return;
                }
                thread::sleep(pause);
                (bytes[first..].to_vec(), false)
            }
            Answer::By(act) => {
                act(&mut stream.try_clone().unwrap());
                (Vec::new(), true)
            }
            Answer::Ok(body) => {
                let head = format!("{HEAD}content-length: {}\r\n\r\n", body.len());
                ([head.into_bytes(), body].concat(), false)
            }
        };
        if writer.write_all(&bytes).is_err() || last {
            let _ = stream.shutdown(std::net::Shutdown::Both);
            return;
        }
    }
}

fn read(reader: &mut BufReader<&TcpStream>) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
    let path = line.split(' ').nth(1)?.to_owned();
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.push((name.to_lowercase(), value.to_owned()));
    }
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let length = length.map_or(0, |(_, value)| value.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Request { path, headers, body })
}

//! One address behind which the server can be replaced while a program runs.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;

/// What there is behind the address now.
struct Behind {
    port: u16,
    connections: Vec<TcpStream>,
}

/// Forwards connections until it is dropped.
pub struct Forwarder {
    port: u16,
    stopped: Arc<AtomicBool>,
    behind: Arc<Mutex<Behind>>,
    /// The first line of what came in through each connection.
    first_lines: Arc<Mutex<Vec<String>>>,
}

impl Forwarder {
    /// Forwards to this port, from one that the system chooses.
    pub fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let behind = Arc::new(Mutex::new(Behind { port, connections: Vec::new() }));
        let forwarder = Forwarder {
            port: listener.local_addr().unwrap().port(),
            stopped: Arc::default(),
            behind: Arc::clone(&behind),
            first_lines: Arc::default(),
        };
        let stopped = Arc::clone(&forwarder.stopped);
        let first_lines = Arc::clone(&forwarder.first_lines);
        thread::spawn(move || {
            for inside in listener.incoming().map_while(Result::ok) {
                if stopped.load(SeqCst) {
                    return;
                }
                // Locked until both are known, so that a switch cuts them.
                let mut behind = behind.lock().unwrap();
                let Ok(outside) = TcpStream::connect(("127.0.0.1", behind.port)) else { continue };
                for stream in [&inside, &outside] {
                    let _ = stream.set_nodelay(true);
                    behind.connections.push(stream.try_clone().unwrap());
                }
                drop(behind);
                let back = (outside.try_clone().unwrap(), inside.try_clone().unwrap());
                let first_lines = Arc::clone(&first_lines);
                thread::spawn(move || {
                    let see = |start: &[u8]| {
                        let line = start.split(|byte| *byte == b'\r').next().unwrap_or_default();
                        let line = String::from_utf8_lossy(line).into_owned();
                        first_lines.lock().unwrap().push(line);
                    };
                    copy(inside, outside, see);
                });
                thread::spawn(move || copy(back.0, back.1, |_| {}));
            }
        });
        forwarder
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/functions/{{function.name}}", self.port)
    }

    /// Forwards to another port from now on, and cuts all connections that there are.
    pub fn switch(&self, port: u16) {
        let mut behind = self.behind.lock().unwrap();
        behind.port = port;
        for connection in behind.connections.drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }

    /// The first line of what came in through each connection so far.
    pub fn first_lines(&self) -> Vec<String> {
        self.first_lines.lock().unwrap().clone()
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.stopped.store(true, SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        self.switch(0);
    }
}

/// Copies what comes, until one side closes; then both are closed.
fn copy(mut from: TcpStream, mut to: TcpStream, mut see_start: impl FnMut(&[u8])) {
    let mut buffer = vec![0; 64 << 10];
    let mut is_start = true;
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        if std::mem::take(&mut is_start) {
            see_start(&buffer[..read]);
        }
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

//! A server of another language, as a process that ends with its value.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// How long a server may take until it listens.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where servers log, beside what starts them. Some SDKs say a lot.
pub fn log_of(serve: &Path) -> PathBuf {
    serve.with_extension("log")
}

/// A server that listens.
pub struct Server {
    child: Child,
    pub port: u16,
}

impl Server {
    /// Starts what serves this version, on a port that the system chooses.
    pub fn start(serve: &Path, version: u32) -> Self {
        let mut command = Command::new(serve);
        command.args(["--port", "0", "--version"]).arg(version.to_string());
        let log = OpenOptions::new().create(true).append(true).open(log_of(serve)).unwrap();
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", serve.display()));
        let output = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut server = Server { child, port: 0 };
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || {
            // To the end, so that whatever else it says finds somebody who reads it.
            for line in output.lines().map_while(Result::ok) {
                let _ = tell.send(line);
            }
        });
        let line = told.recv_timeout(PATIENCE).unwrap_or_else(|_| {
            panic!("{} did not say that it listens: {:?}", serve.display(), server.child.try_wait())
        });
        let port = line.strip_prefix("listening on ").and_then(|port| port.trim().parse().ok());
        server.port = port.unwrap_or_else(|| panic!("{} said {line:?}", serve.display()));
        server
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/{{function.name}}", self.port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

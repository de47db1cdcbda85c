//! Starts this program again, as several processes that work together.

use std::error::Error;
use std::io::{self, Write};
use std::net::TcpListener;
use std::process::{Child, Command};

use tempfile::NamedTempFile;

/// A process of this program that has begun, and is ended with this.
struct Started(Child);

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs as many processes on ports that the system chooses, until all have ended.
///
/// # Errors
///
/// If one cannot be started, or fails.
pub fn run(processes: usize) -> Result<(), Box<dyn Error>> {
    let listeners: Vec<TcpListener> =
        (0..processes).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
    let addresses = listeners.iter().map(|listener| Ok(listener.local_addr()?.to_string()));
    let addresses: Vec<String> = addresses.collect::<io::Result<_>>()?;
    // The system gives nobody else these ports for a while.
    drop(listeners);
    let mut hosts = NamedTempFile::new()?;
    hosts.write_all(addresses.join("\n").as_bytes())?;
    let started = (0..processes).map(|process| {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["-n", &processes.to_string(), "-p", &process.to_string(), "-h"]);
        command.arg(hosts.path()).spawn().map(Started)
    });
    let started: Vec<Started> = started.collect::<Result<_, _>>()?;
    for (number, mut process) in started.into_iter().enumerate() {
        let status = process.0.wait()?;
        if !status.success() {
            return Err(format!("process {number} failed: {status}").into());
        }
    }
    Ok(())
}

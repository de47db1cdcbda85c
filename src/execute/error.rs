//! Why a program ended before all of its workers had done their part.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// A program ended before all of its workers, in all of its processes, had done their part.
///
/// The message says what happened first, as far as this process knows, and where. What the operating
/// system said of what it [refused](Self::is_system) is the [`source`](std::error::Error::source).
#[derive(Clone, Debug, thiserror::Error)]
#[error(transparent)]
pub struct ExecutionError(#[from] pub(super) Kind);

#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum Kind {
    #[error("worker {worker} panicked: {message}")]
    Panic { worker: usize, message: String },
    #[error("a thread of the network panicked: {message}")]
    NetworkPanic { message: String },
    #[error("lost {peer}: {loss}")]
    Lost { peer: Peer, loss: Loss },
    #[error("not connected within {within:?}: {}", list(.missing))]
    NotConnected { missing: Vec<(Peer, String)>, within: Duration },
    #[error("{0}")]
    Config(String),
    #[error("the system refused {what}")]
    System {
        what: &'static str,
        #[source]
        source: Arc<io::Error>,
    },
}

/// Another process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Peer {
    pub(super) process: usize,
    pub(super) address: String,
}

/// How another process was lost.
#[derive(Clone, Debug)]
pub(super) enum Loss {
    /// Its connection ended, and it had not said that this was the end.
    Closed,
    /// It ended with an error, and this is what it said.
    GaveUp(String),
    /// Nothing came of what must come from any system that runs.
    Silent(Duration),
    /// It sent what it cannot mean.
    Damaged(&'static str),
    /// The connection failed.
    Broken(Arc<io::Error>),
}

impl Loss {
    /// What an error of a connection that notices silence after this time means.
    pub(super) fn of(error: io::Error, silence: Duration) -> Self {
        match error.kind() {
            io::ErrorKind::TimedOut => Loss::Silent(silence),
            // Whoever writes learns only that there is nobody who reads any more.
            io::ErrorKind::BrokenPipe | io::ErrorKind::NotConnected => Loss::Closed,
            _ => Loss::Broken(Arc::new(error)),
        }
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Loss::Closed => f.write_str("it closed the connection"),
            Loss::GaveUp(why) => write!(f, "it gave up: {why}"),
            Loss::Silent(silence) => write!(f, "it was silent for {silence:?}"),
            Loss::Damaged(what) => write!(f, "it sent {what}"),
            Loss::Broken(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                f.write_str("it reset the connection")
            }
            Loss::Broken(error) => write!(f, "the connection failed: {error}"),
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} at \"{}\"", self.process, self.address)
    }
}

fn list(missing: &[(Peer, String)]) -> String {
    let one = |(peer, why): &(Peer, String)| format!("{peer} ({why})");
    missing.iter().map(one).collect::<Vec<_>>().join(", ")
}

impl Kind {
    pub(super) fn system(what: &'static str, error: io::Error) -> Self {
        Kind::System { what, source: Arc::new(error) }
    }
}

impl ExecutionError {
    /// A worker of this process panicked. (Or one of the threads that timely sends and receives with,
    /// which would be a defect, and has no [`worker`](Self::worker).)
    pub fn is_panic(&self) -> bool {
        matches!(self.0, Kind::Panic { .. } | Kind::NetworkPanic { .. })
    }

    /// Another process was lost, and the message says how. It may have ended without a word, or have
    /// given up and said why; or nothing comes from it, or nothing that makes sense.
    pub fn is_peer_lost(&self) -> bool {
        matches!(self.0, Kind::Lost { .. })
    }

    /// Not all processes were there within
    /// [`connect_max`](crate::ExecuteOptions::connect_max). Nothing has run.
    pub fn is_not_connected(&self) -> bool {
        matches!(self.0, Kind::NotConnected { .. })
    }

    /// Arguments, hosts file, configuration or options are wrong, or do not fit those of another
    /// process. Nothing has run.
    pub fn is_invalid_config(&self) -> bool {
        matches!(self.0, Kind::Config(_))
    }

    /// The operating system refused a thread, a socket or an option of one.
    pub fn is_system(&self) -> bool {
        matches!(self.0, Kind::System { .. })
    }

    /// The worker that panicked, by its number among those of all processes.
    pub fn worker(&self) -> Option<usize> {
        match self.0 {
            Kind::Panic { worker, .. } => Some(worker),
            _ => None,
        }
    }

    /// The addresses, as the configuration has them, of the processes that were lost or did not
    /// connect.
    pub fn peers(&self) -> Vec<&str> {
        match &self.0 {
            Kind::Lost { peer, .. } => vec![&peer.address],
            Kind::NotConnected { missing, .. } => {
                missing.iter().map(|(peer, _)| peer.address.as_str()).collect()
            }
            _ => Vec::new(),
        }
    }
}

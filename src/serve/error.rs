//! Why a server does not serve.

use std::io;

/// Why a server does not serve.
///
/// What the operating system said is the [`source`](std::error::Error::source).
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct ServeError(#[from] pub(super) Kind);

#[derive(Debug, thiserror::Error)]
pub(super) enum Kind {
    #[error("{0}")]
    Setting(String),
    #[error("the address cannot be resolved")]
    Unresolved(#[source] Option<io::Error>),
    #[error("cannot listen at {place}")]
    Listen {
        place: String,
        #[source]
        source: io::Error,
    },
    #[cfg(unix)]
    #[error("somebody else listens at \"{0}\"")]
    Alive(String),
    #[cfg(unix)]
    #[error("there is something at \"{0}\" that is no socket")]
    Occupied(String),
    #[cfg(unix)]
    #[error("the path of the socket is too long, or has a byte that is zero: \"{0}\"")]
    Path(String),
}

impl ServeError {
    /// A setting means nothing, such as a limit of nothing at all.
    pub fn is_setting(&self) -> bool {
        matches!(self.0, Kind::Setting(_))
    }

    /// The name of a host is not known, or is none.
    pub fn is_unresolved(&self) -> bool {
        matches!(self.0, Kind::Unresolved(_))
    }

    /// Somebody else listens there; or at the path of a socket, there is something else.
    pub fn is_in_use(&self) -> bool {
        match &self.0 {
            Kind::Listen { source, .. } => source.kind() == io::ErrorKind::AddrInUse,
            #[cfg(unix)]
            Kind::Alive(_) | Kind::Occupied(_) => true,
            _ => false,
        }
    }

    /// This program may not listen there.
    pub fn is_denied(&self) -> bool {
        match &self.0 {
            Kind::Listen { source, .. } => source.kind() == io::ErrorKind::PermissionDenied,
            _ => false,
        }
    }

    /// The path of a socket is longer than the system takes, which is some hundred bytes.
    #[cfg(unix)]
    pub fn is_path(&self) -> bool {
        matches!(self.0, Kind::Path(_))
    }
}

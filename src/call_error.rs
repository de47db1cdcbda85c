//! What can go wrong with one attempt at calling a remote function.

use std::fmt;

/// What went wrong with one attempt at calling a remote function.
///
/// [`Endpoint::retry_if`](crate::Endpoint::retry_if) decides by it whether there is another.
///
/// ```
/// use timely_statefun::{CallError, Endpoint};
///
/// // Whoever asks for too much is told so once, and what is not there does not come back.
/// let impatient = |error: &CallError| {
///     !matches!(error.status(), Some(404 | 429)) && error.may_pass()
/// };
/// let endpoint = Endpoint::at("http://localhost:8000/").retry_if(impatient);
/// # let _ = endpoint;
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallError {
    kind: Kind,
    text: String,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Kind {
    Connect,
    Lost,
    Stalled,
    Status(u16),
    Meaningless,
}

impl CallError {
    pub(crate) fn connect(text: String) -> Self {
        CallError { kind: Kind::Connect, text }
    }

    pub(crate) fn lost(text: String) -> Self {
        CallError { kind: Kind::Lost, text }
    }

    pub(crate) fn stalled(text: String) -> Self {
        CallError { kind: Kind::Stalled, text }
    }

    pub(crate) fn of_status(status: u16, text: String) -> Self {
        CallError { kind: Kind::Status(status), text }
    }

    pub(crate) fn meaningless(text: String) -> Self {
        CallError { kind: Kind::Meaningless, text }
    }

    /// The status of an answer that does not say success.
    pub fn status(&self) -> Option<u16> {
        match self.kind {
            Kind::Status(status) => Some(status),
            _ => None,
        }
    }

    /// Nobody was reached: a name that is unknown, a connection that is refused or takes too long, a socket that is
    /// not there.
    pub fn is_connect(&self) -> bool {
        self.kind == Kind::Connect
    }

    /// The connection was lost before the answer was complete. Servers close connections that are not
    /// used for a while, so this also happens where all is well.
    pub fn is_lost(&self) -> bool {
        self.kind == Kind::Lost
    }

    /// The request, or its answer, made no progress for too long.
    pub fn is_stalled(&self) -> bool {
        self.kind == Kind::Stalled
    }

    /// The answer says success but is none: it is of another content type, too large, or malformed.
    pub fn is_meaningless(&self) -> bool {
        self.kind == Kind::Meaningless
    }

    /// Whether another attempt may go better; what decides unless
    /// [`retry_if`](crate::Endpoint::retry_if) does.
    ///
    /// So it is where nobody was reached, where a connection was lost, where nothing came in time, and
    /// with the statuses 404, 408, 409, 420, 425, 429, 499, and 500 and above. (StateFun with OkHttp: the
    /// same but for 404 and 425; with Netty: everything.)
    pub fn may_pass(&self) -> bool {
        match self.kind {
            Kind::Connect | Kind::Lost | Kind::Stalled => true,
            Kind::Status(status) => {
                status >= 500 || matches!(status, 404 | 408 | 409 | 420 | 425 | 429 | 499)
            }
            Kind::Meaningless => false,
        }
    }
}

impl CallError {
    /// Whether it is the function that failed, as far as anybody can tell, and not the way there or a
    /// server that has too much to do.
    pub(crate) fn is_of_function(&self) -> bool {
        match self.kind {
            Kind::Status(status) => !matches!(status, 408 | 420 | 425 | 429 | 499 | 502..=504),
            Kind::Meaningless => true,
            Kind::Connect | Kind::Lost | Kind::Stalled => false,
        }
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for CallError {}

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
    #[cfg(feature = "grpc")]
    Grpc {
        code: i32,
        /// What means the same over HTTP.
        status: u16,
    },
    Meaningless,
}

/// What gRPC says of a server that has too much to do, and often of a request that is too large.
#[cfg(feature = "grpc")]
const RESOURCE_EXHAUSTED: i32 = 8;

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

    /// A status of gRPC, with the one that means the same over HTTP.
    #[cfg(feature = "grpc")]
    pub(crate) fn of_grpc_status(code: i32, status: u16, text: String) -> Self {
        CallError { kind: Kind::Grpc { code, status }, text }
    }

    pub(crate) fn meaningless(text: String) -> Self {
        CallError { kind: Kind::Meaningless, text }
    }

    /// The status of an answer that does not say success. Over gRPC, it is the one that means the same over HTTP.
    pub fn status(&self) -> Option<u16> {
        match self.kind {
            Kind::Status(status) => Some(status),
            #[cfg(feature = "grpc")]
            Kind::Grpc { status, .. } => Some(status),
            _ => None,
        }
    }

    /// The status of an answer over gRPC that does not say success, by number. Numbers that gRPC does not know are 2,
    /// UNKNOWN.
    #[cfg(feature = "grpc")]
    pub fn grpc_status(&self) -> Option<i32> {
        match self.kind {
            Kind::Grpc { code, .. } => Some(code),
            _ => None,
        }
    }

    /// Nobody was reached: a name that is unknown, a connection that is refused or takes too long, a socket that is
    /// not there, a server that cannot be trusted (TLS).
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
    ///
    /// A status of gRPC counts as the one that means the same over HTTP, as Google's APIs have it:
    ///
    /// | gRPC | as | again |
    /// |---|---|---|
    /// | CANCELLED (1) | 499 | yes |
    /// | UNKNOWN (2) | 500 | yes: what failed in a server says no more |
    /// | INVALID_ARGUMENT (3) | 400 | no |
    /// | DEADLINE_EXCEEDED (4) | 504 | yes |
    /// | NOT_FOUND (5) | 404 | yes: a rollout may bring it |
    /// | ALREADY_EXISTS (6) | 409 | yes |
    /// | PERMISSION_DENIED (7) | 403 | no |
    /// | RESOURCE_EXHAUSTED (8) | 429 | yes; a batch is [divided](crate::Endpoint::on_failure), for it may be too large |
    /// | FAILED_PRECONDITION (9) | 400 | no |
    /// | ABORTED (10) | 409 | yes |
    /// | OUT_OF_RANGE (11) | 400 | no: a request is too large, for servers that are made with tonic, as ours |
    /// | UNIMPLEMENTED (12) | 501 | yes: a rollout may bring it |
    /// | INTERNAL (13) | 500 | yes |
    /// | UNAVAILABLE (14) | 503 | yes |
    /// | DATA_LOSS (15) | 500 | yes |
    /// | UNAUTHENTICATED (16) | 401 | no |
    pub fn may_pass(&self) -> bool {
        match (self.kind, self.status()) {
            (Kind::Connect | Kind::Lost | Kind::Stalled, _) => true,
            (_, Some(status)) => {
                status >= 500 || matches!(status, 404 | 408 | 409 | 420 | 425 | 429 | 499)
            }
            (_, None) => false,
        }
    }
}

impl CallError {
    /// Whether it is the function that failed, as far as anybody can tell, and not the way there or a
    /// server that has too much to do.
    pub(crate) fn is_of_function(&self) -> bool {
        match (self.kind, self.status()) {
            // It stands for a request that is too large as well.
            #[cfg(feature = "grpc")]
            (Kind::Grpc { code: RESOURCE_EXHAUSTED, .. }, _) => true,
            (_, Some(status)) => !matches!(status, 408 | 420 | 425 | 429 | 499 | 502..=504),
            (kind, None) => kind == Kind::Meaningless,
        }
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for CallError {}

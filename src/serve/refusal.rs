//! Why a request is not answered.

/// Why a request is not answered with effects.
///
/// | refusal | status | as the SDKs | over gRPC |
/// |---|---|---|---|
/// | [`Malformed`](Self::Malformed) | 400 | Go where the body is empty; 500 otherwise, and with the others | INVALID_ARGUMENT |
/// | [`Unknown`](Self::Unknown) | 500 | all | NOT_FOUND |
/// | [`Failed`](Self::Failed) | 500 | all | UNKNOWN |
/// | [`Unavailable`](Self::Unavailable) | 503 | | UNAVAILABLE |
///
/// The [default](crate::CallError::may_pass) of this library's endpoints is to try again after all of them but the
/// first.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The request means nothing, and will not when it is sent again.
    #[error("the request means nothing: {0}")]
    Malformed(String),
    /// No function of this name is served here. There may be one when another version is.
    #[error("no function is served here as \"{0}\"")]
    Unknown(String),
    /// The function failed. Nothing of the batch took effect.
    #[error("{0}")]
    Failed(String),
    /// Nothing is answered any more, or not yet.
    #[error("{0}")]
    Unavailable(String),
}

impl Refusal {
    /// The HTTP status that says so.
    pub fn status(&self) -> u16 {
        match self {
            Refusal::Malformed(_) => 400,
            Refusal::Unknown(_) | Refusal::Failed(_) => 500,
            Refusal::Unavailable(_) => 503,
        }
    }
}

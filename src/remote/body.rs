//! The body of a request, handed out piece by piece, so that it can be seen to make progress.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use http_body::{Body, Frame, SizeHint};
use timely_statefun_proto::Bytes;
use tokio::time::Instant;

/// How much is handed out at once.
const PIECE_BYTES: usize = 64 << 10;

/// How far a request is.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// There is no connection yet.
    Connecting,
    /// A piece was taken, and there are more.
    Writing,
    /// The last piece was taken.
    Written,
    /// Some of the answer has come.
    #[cfg(feature = "grpc")]
    Reading,
}

/// Tells how far a request is, and since when.
#[derive(Clone)]
pub(super) struct Progress(Arc<Mutex<(Stage, Instant)>>);

impl Progress {
    /// Of a request that has not begun.
    pub(super) fn new() -> Self {
        Progress(Arc::new(Mutex::new((Stage::Connecting, Instant::now()))))
    }

    /// Some of the answer has come.
    #[cfg(feature = "grpc")]
    pub(super) fn answered(&self) {
        self.note(Stage::Reading);
    }

    pub(super) fn look(&self) -> (Stage, Instant) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, stage: Stage) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = (stage, Instant::now());
    }
}

/// A body of known length.
pub(super) struct Pieces {
    rest: Bytes,
    progress: Progress,
}

impl Pieces {
    /// A body that tells how far it is.
    pub(super) fn telling(bytes: Bytes, progress: Progress) -> Self {
        Pieces { rest: bytes, progress }
    }

    /// All of it at once.
    #[cfg(feature = "testing")]
    pub(super) fn into_bytes(mut self) -> Bytes {
        self.progress.note(Stage::Written);
        std::mem::take(&mut self.rest)
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        let piece = this.rest.split_to(this.rest.len().min(PIECE_BYTES));
        if piece.is_empty() {
            return Poll::Ready(None);
        }
        this.progress.note(if this.rest.is_empty() { Stage::Written } else { Stage::Writing });
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}

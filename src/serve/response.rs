//! The body of a response: all of it is there, and what comes behind it.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

/// The body of a response, which is there as a whole, and with gRPC has a status behind it.
#[derive(Clone, Debug, Default)]
pub struct ResponseBody {
    data: Bytes,
    trailers: Option<HeaderMap>,
}

impl ResponseBody {
    #[cfg(feature = "grpc")]
    pub(super) fn with_trailers(data: Bytes, trailers: Option<HeaderMap>) -> Self {
        ResponseBody { data, trailers }
    }
}

impl<D: Into<Bytes>> From<D> for ResponseBody {
    fn from(data: D) -> Self {
        ResponseBody { data: data.into(), trailers: None }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if !self.data.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.data)))));
        }
        Poll::Ready(self.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.data.is_empty() && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.data.len() as u64)
    }
}

//! A request's body, gathered until it is complete, too large or too slow.

use std::pin::pin;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http_body::Body;
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout};

/// So much is made room for before anything has come, whatever is announced.
const ROOM_BYTES: usize = 64 << 10;

/// How much a body may have, and how long it may take.
#[derive(Copy, Clone, Debug)]
pub(super) struct BodyLimits {
    pub(super) bytes_max: usize,
    /// From one piece to the next.
    pub(super) read_timeout: Duration,
    /// All of it.
    pub(super) body_timeout: Duration,
}

/// Why there is no body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Lacking {
    TooLarge,
    /// Nothing has come for so long, or all of it takes longer than this.
    TooSlow(Duration),
    /// It ended before it was complete, or was not formed as it must be.
    Broken,
}

/// All of a body, of which so many bytes are announced.
pub(super) async fn whole<B: Body>(
    body: B,
    announced: u64,
    limits: &BodyLimits,
) -> Result<Bytes, Lacking> {
    if announced > limits.bytes_max as u64 {
        return Err(Lacking::TooLarge);
    }
    let began = Instant::now();
    let mut body = pin!(body);
    // Most bodies are one piece, which needs no copy.
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    loop {
        let left = limits.body_timeout.saturating_sub(began.elapsed());
        let within = limits.read_timeout.min(left);
        let Ok(frame) = timeout(within, body.frame()).await else {
            let slow = if left < limits.read_timeout { limits.body_timeout } else { within };
            return Err(Lacking::TooSlow(slow));
        };
        let frame = match frame {
            Some(Ok(frame)) => frame,
            Some(Err(_)) => return Err(Lacking::Broken),
            None if all.is_empty() => return Ok(first),
            None => return Ok(all.freeze()),
        };
        // What comes behind a body says nothing here.
        let Ok(mut piece) = frame.into_data() else { continue };
        let length = piece.remaining();
        if length > limits.bytes_max - first.len().max(all.len()) {
            return Err(Lacking::TooLarge);
        }
        if all.is_empty() && first.is_empty() {
            first = piece.copy_to_bytes(length);
            continue;
        }
        if all.is_empty() {
            all.reserve((announced as usize).min(ROOM_BYTES).max(first.len() + length));
            all.extend_from_slice(&first);
        }
        while piece.has_remaining() {
            let chunk = piece.chunk();
            all.extend_from_slice(chunk);
            let chunk = chunk.len();
            piece.advance(chunk);
        }
    }
}

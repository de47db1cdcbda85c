//! What both sides of gRPC have in common: messages that are bytes already.
//!
//! Frames, statuses and trailers are tonic's. What a request or an answer means is not known here.

use bytes::{Buf, BufMut, Bytes};
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

pub(crate) use timely_statefun_proto::service_names::INVOKE_PATH;

/// How many bytes stand before each message: whether it is compressed, and its length.
pub(crate) const FRAME_BYTES: usize = 5;

/// What comes before the rest of a content type of gRPC.
const GRPC: &str = "application/grpc";

/// Whether a content type says gRPC, with messages of protobuf.
pub(crate) fn is_grpc(content_type: &[u8]) -> bool {
    let kind = content_type.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    let (start, rest) = kind.split_at(kind.len().min(GRPC.len()));
    let proto = rest.is_empty() || rest.eq_ignore_ascii_case(b"+proto");
    start.eq_ignore_ascii_case(GRPC.as_bytes()) && proto
}

/// Passes messages on as they are.
#[derive(Copy, Clone, Debug)]
pub(crate) struct AsBytes;

impl Codec for AsBytes {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        AsBytes
    }

    fn decoder(&mut self) -> Self {
        AsBytes
    }
}

impl Encoder for AsBytes {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.reserve(message.len());
        to.put(message);
        Ok(())
    }
}

impl Decoder for AsBytes {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

#[cfg(test)]
mod tests {
    use super::is_grpc;

    #[test]
    fn what_says_grpc_says_protobuf_or_nothing_more() {
        for yes in ["application/grpc", "Application/GRPC+Proto", "application/grpc; a=b"] {
            assert!(is_grpc(yes.as_bytes()), "{yes}");
        }
        for no in ["", "application/gr", "application/grpc+json", "application/grpc-web", "a/grpc"]
        {
            assert!(!is_grpc(no.as_bytes()), "{no}");
        }
    }
}

//! The wire format of Stateful Functions: its messages, its built-in types, and their names.
//!
//! They stand in recorded messages, in stored state and in other people's programs, so they are
//! written once, here, and never change. This crate knows nothing of dataflows or networks.
//!
//! A [`reqreply::ToFunction`] is a request to a function, and a [`reqreply::FromFunction`] its answer:
//!
//! ```
//! use timely_statefun_proto::reqreply::{FromFunction, from_function::Response};
//! use timely_statefun_proto::Message;
//!
//! let nothing_done = FromFunction::decode(&[][..])?;
//! assert_eq!(nothing_done.response, None);
//!
//! let handled = FromFunction::decode(&[0xa2, 0x06, 0x00][..])?;
//! assert!(matches!(handled.response, Some(Response::InvocationResult(_))));
//! # Ok::<(), timely_statefun_proto::DecodeError>(())
//! ```
//!
//! Reading any bytes ends with a message or an error, and takes memory in proportion to the bytes. The
//! proportion can be large, though: two bytes can be an element of a list. Whoever reads what others
//! send limits the bytes, and counts on up to 300 times as much memory.
//!
//! The messages in [`types`] lose the sign of -0.0 when they are written; [`BuiltIn`] keeps it.
#![doc(html_root_url = "https://docs.rs/timely-statefun-proto")]

mod values;

pub use bytes::Bytes;
pub use prost;
pub use prost::{DecodeError, Message};
pub use values::{BuiltIn, Typed, ValueError};

/// What a runtime and a remote function say to each other.
#[rustfmt::skip]
#[path = "generated/io.statefun.sdk.reqreply.rs"]
pub mod reqreply;

/// The built-in types, each as a message with one field.
#[rustfmt::skip]
#[path = "generated/io.statefun.sdk.types.rs"]
pub mod types;

/// What functions emit to Kafka and Kinesis.
#[rustfmt::skip]
#[path = "generated/io.statefun.sdk.egress.rs"]
pub mod egress;

/// Names of the cross-language types, and of the records that egresses to other systems take.
///
/// Source: Apache Flink Stateful Functions 3.x, `types/types.proto` and the SDKs' built-in types.
pub mod type_names {
    /// `true` or `false`.
    pub const BOOL: &str = "io.statefun.types/bool";
    /// A signed integer of 32 bits.
    pub const INT: &str = "io.statefun.types/int";
    /// A signed integer of 64 bits.
    pub const LONG: &str = "io.statefun.types/long";
    /// An IEEE 754 number of 32 bits.
    pub const FLOAT: &str = "io.statefun.types/float";
    /// An IEEE 754 number of 64 bits.
    pub const DOUBLE: &str = "io.statefun.types/double";
    /// UTF-8 text.
    pub const STRING: &str = "io.statefun.types/string";
    /// A record for Kafka, a [`KafkaProducerRecord`](crate::egress::KafkaProducerRecord).
    pub const KAFKA_RECORD: &str = "type.googleapis.com/io.statefun.sdk.egress.KafkaProducerRecord";
    /// A record for Kinesis, a [`KinesisEgressRecord`](crate::egress::KinesisEgressRecord).
    pub const KINESIS_RECORD: &str =
        "type.googleapis.com/io.statefun.sdk.egress.KinesisEgressRecord";
}

/// Names under which functions are called over gRPC.
///
/// Stateful Functions has no such service: it is this library's own, and its messages are theirs. See
/// `proto/sdk/service.proto`.
pub mod service_names {
    /// The path of the only method. It takes a [`ToFunction`](crate::reqreply::ToFunction), and its answer is a
    /// [`FromFunction`](crate::reqreply::FromFunction).
    pub const INVOKE_PATH: &str = "/io.statefun.sdk.reqreply.RequestReply/Invoke";
}

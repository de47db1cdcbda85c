//! The names that Stateful Functions puts on the wire.
//!
//! They stand in recorded messages, in stored state and in other people's programs, so they are
//! written once, here, and never change. This crate knows nothing of dataflows.
#![doc(html_root_url = "https://docs.rs/timely-statefun-proto")]

/// Names of the cross-language types.
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
}

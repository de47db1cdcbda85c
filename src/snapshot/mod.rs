//! Where snapshots are: files of named bytes in a store, and the log of manifests that says which of
//! them count.
//!
//! This room knows no dataflow, no function and no state. What a section of a part means, and what the
//! notes of a manifest say, is the business of those who write and read them.

#![allow(dead_code, reason = "the dataflow does not write snapshots yet")]

mod encoding;
mod error;
mod manifest;
mod part;
#[cfg(test)]
mod tests;

pub use error::SnapshotError;

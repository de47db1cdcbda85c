//! Where snapshots are: files of named bytes in a store, and the log of manifests that says which of
//! them count.
//!
//! This room knows no dataflow, no function and no state. What a section of a part means, and what the
//! notes of a manifest say, is the business of those who write and read them.

#![expect(dead_code, reason = "the dataflow does not write snapshots yet")]

mod begin;
mod encoding;
mod error;
mod files;
mod gc;
mod ground;
mod keeper;
mod log;
mod manifest;
mod part;
mod process;
mod restore;
mod store;
mod survey;
#[cfg(test)]
mod tests;
mod uploads;

pub use begin::RestoreFrom;
pub use error::SnapshotError;
pub use store::{SnapshotInfo, SnapshotOptions, SnapshotStore};
pub use uploads::SnapshotStatus;

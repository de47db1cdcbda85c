//! Where snapshots are: files of named bytes in a store, and the log of manifests that says which of
//! them count.
//!
//! This room knows no dataflow, no function and no state. What a section of a part means, and what the
//! notes of a manifest say, is the business of those who write and read them.

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
mod pieces;
mod process;
mod restore;
mod savepoints;
mod store;
mod survey;
#[cfg(test)]
mod tests;
mod uploads;

pub use begin::RestoreFrom;
pub use error::SnapshotError;
pub use store::{SnapshotInfo, SnapshotOptions, SnapshotStore};
pub use uploads::SnapshotStatus;

pub(crate) use begin::Begun;
#[cfg(feature = "testing")]
pub(crate) use ground::Ground;
pub(crate) use keeper::{Keeper, Kept};
pub(crate) use log::{Cut, Log};
pub(crate) use manifest::{Commit, Link};
pub(crate) use part::{Gathered, PartEntry, PartName, PartReader, PartWriter};
pub(crate) use pieces::{PartIndex, Piece};
pub(crate) use process::{NextPart, Parts, Process};
pub(crate) use restore::{Check, Which};
pub(crate) use savepoints::NAME as SAVEPOINT_NAME;
pub(crate) use survey::Identity;
pub(crate) use uploads::Uploads;

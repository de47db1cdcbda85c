//! What a snapshot says besides its records: of which program it is, and how far its sources had come.

use std::collections::BTreeMap;

use bytes::Bytes;
use rmpv::Value as Any;
use serde::{Deserialize, Serialize};

use super::error::{ArchiveError, Kind};
use crate::codec::{Codec, CodecError};
use crate::dataflow::{NOTE, SnapshotCounts, SnapshotDone};
use crate::snapshot::Commit;
use crate::value::Value;

/// What a snapshot says of the program besides its state and messages.
///
/// Times are those of the program's dataflow, as MessagePack.
///
/// ```
/// use timely_statefun::archive::Description;
///
/// // The dataflow's times are `u64`, and nothing has happened yet.
/// let description = Description::beginning("bank", &0u64)?;
/// assert!(description.positions.is_empty());
/// # Ok::<(), timely_statefun::archive::ArchiveError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Description {
    /// The name of the program.
    pub program: String,
    /// The number of the cut. One that is written from this has this number, or a higher one where there
    /// were higher ones: so sinks, which know it, take what follows for new.
    pub cut: u64,
    /// By ingress, the last position of each partition that it contains.
    pub positions: BTreeMap<String, BTreeMap<u64, u64>>,
    /// What was emitted at a time that is not at or after one of these is not emitted again.
    pub complete: Vec<Bytes>,
    /// All ingress that it contains is at or before one of these times.
    pub latest: Vec<Bytes>,
    /// The time before which no new event happens.
    pub events: Option<Bytes>,
}

impl Description {
    /// Of a program of this name, of which nothing has happened before `from`, the minimum of its times.
    ///
    /// # Errors
    ///
    /// If the time cannot be written.
    pub fn beginning<T: Value>(program: &str, from: &T) -> Result<Self, ArchiveError> {
        let mut time = Vec::new();
        let written = Codec::<T>::SERDE.store(from, &mut time, true);
        written
            .map_err(|why| ArchiveError::invalid("the time of the beginning", why.to_string()))?;
        Ok(Description {
            program: program.to_owned(),
            cut: 0,
            positions: BTreeMap::new(),
            complete: vec![time.into()],
            latest: Vec::new(),
            events: None,
        })
    }

    /// Of a snapshot.
    pub(super) fn of(commit: &Commit) -> Result<Self, ArchiveError> {
        let damaged = |why: String| Kind::Snapshot(commit.damaged(why));
        let note = commit.notes.get(NOTE);
        let note = note.ok_or_else(|| damaged("it has no note of the program's".to_owned()))?;
        let done: Result<SnapshotDone<Any>, _> = Codec::SERDE.read(note);
        let done =
            done.map_err(|why| damaged(format!("the program's note cannot be read: {why}")))?;
        let SnapshotDone { positions, complete, latest, events, .. } = done;
        let bytes = |times: Vec<Any>| times.iter().map(bytes_of).collect();
        Ok(Description {
            program: commit.header.program.clone(),
            cut: commit.cut(),
            positions,
            complete: bytes(complete),
            latest: bytes(latest),
            events: events.as_ref().map(bytes_of),
        })
    }

    /// The note that says so, of a cut.
    pub(super) fn note(
        &self,
        cut: u64,
        counts: SnapshotCounts,
        bytes: u64,
    ) -> Result<(String, Bytes), ArchiveError> {
        let read = |time: &Bytes| -> Result<Any, CodecError> { Codec::SERDE.read(time) };
        let wrong = |why: CodecError| {
            ArchiveError::invalid("a time of the description", format!("is none: {why}"))
        };
        let all = |times: &[Bytes]| times.iter().map(read).collect::<Result<Vec<_>, _>>();
        let done = SnapshotDone {
            cut,
            positions: self.positions.clone(),
            complete: all(&self.complete).map_err(wrong)?,
            latest: all(&self.latest).map_err(wrong)?,
            events: self.events.as_ref().map(read).transpose().map_err(wrong)?,
            counts,
            bytes,
            aligned: None,
        };
        let mut note = Vec::new();
        Codec::SERDE.write(&done, &mut note).map_err(wrong)?;
        Ok((NOTE.to_owned(), note.into()))
    }
}

/// The bytes that a value was read from.
fn bytes_of(value: &Any) -> Bytes {
    let mut bytes = Vec::new();
    let written = Codec::<Any>::SERDE.write(value, &mut bytes);
    written.expect("what was read is not nested too deep to be written");
    bytes.into()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Serialize;

    use super::*;
    use crate::fuzz::fuzz;

    #[derive(Serialize)]
    enum Shape {
        Plain,
        Of(i8),
        Pair(f32, f64),
        Named { at: u64, raw: Bytes },
    }

    fn read(bytes: &[u8]) -> Result<Any, CodecError> {
        Codec::SERDE.read(bytes)
    }

    fn written(value: &impl Serialize) -> Vec<u8> {
        rmp_serde::to_vec_named(value).unwrap()
    }

    #[test]
    fn what_this_library_writes_stays_what_it_is() {
        let shapes = [
            Shape::Plain,
            Shape::Of(-3),
            Shape::Pair(0.1, 0.1),
            Shape::Named { at: u64::MAX, raw: vec![7].into() },
        ];
        let mut inputs: Vec<_> = shapes.iter().map(written).collect();
        inputs.push(written(&BTreeMap::from([((1_u8, "a"), Some(i64::MIN)), ((2, "b"), None)])));
        inputs.push(written(&u128::MAX));
        for input in &inputs {
            assert_eq!(bytes_of(&read(input).unwrap()), input, "{input:02x?}");
        }
        fuzz("any", 30_000, &inputs, |input| {
            let Ok(any) = read(input) else { return false };
            let again = read(&bytes_of(&any)).unwrap();
            // By their bytes, since some numbers do not equal themselves.
            assert_eq!(bytes_of(&again), bytes_of(&any));
            true
        });
    }
}

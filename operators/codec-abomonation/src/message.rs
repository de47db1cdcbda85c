//! A message that is a copy of memory between the workers of a loop, and itself everywhere else.
//!
//! All unsafe code that is not said of a type is here. It never hands out a value that lies in what was
//! received: it clones it, and forgets the original.

use std::cell::Cell;
use std::ops::{Deref, DerefMut};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use timely_statefun_operators::crossing::{self, OwnBytes};

use crate::abomonable::{ALIGN_MAX, Abomonable};
use crate::build::build_id;

/// A message that is a copy of memory between the workers of a loop. **See the [warnings](crate) first.**
///
/// In a snapshot, and for serde in general, it is the value in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Abomonated<M>(pub M);

impl<M> Deref for Abomonated<M> {
    type Target = M;

    fn deref(&self) -> &M {
        &self.0
    }
}

impl<M> DerefMut for Abomonated<M> {
    fn deref_mut(&mut self) -> &mut M {
        &mut self.0
    }
}

impl<M> From<M> for Abomonated<M> {
    fn from(message: M) -> Self {
        Abomonated(message)
    }
}

impl<M: Abomonable + Serialize + DeserializeOwned> Serialize for Abomonated<M> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        crossing::serialize(self, serializer)
    }
}

impl<'de, M: Abomonable + Serialize + DeserializeOwned> Deserialize<'de> for Abomonated<M> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        crossing::deserialize(from)
    }
}

/// Bytes of the number before each message, which tells builds and types apart.
const ID_BYTES: usize = 8;

/// As much of the space that messages are read in as is aligned together.
#[derive(Copy, Clone)]
#[repr(C, align(16))]
struct Piece([u8; ALIGN_MAX]);

const _: () = assert!(align_of::<Piece>() == ALIGN_MAX && size_of::<Piece>() == ALIGN_MAX);

thread_local! {
    /// The space that messages are read in.
    static SPACE: Cell<Vec<Piece>> = const { Cell::new(Vec::new()) };
}

/// Pieces of space that a thread keeps for the next message at most.
const KEPT_MAX: usize = (1 << 16) / ALIGN_MAX;

/// The number that this build and this type have together.
fn id<M: Abomonable>() -> Result<u64, &'static str> {
    Ok(build_id()? ^ M::LAYOUT.shape())
}

impl<M: Abomonable + Serialize + DeserializeOwned> OwnBytes for Abomonated<M> {
    type Elsewhere = M;

    fn elsewhere(&self) -> &M {
        &self.0
    }

    fn from_elsewhere(message: M) -> Self {
        Abomonated(message)
    }

    fn write(&self, to: &mut Vec<u8>) -> Result<(), String> {
        let id = id::<M>()?;
        to.extend_from_slice(&id.to_le_bytes());
        // SAFETY: all that `M` has on the heap is written with it, as `Abomonable` promises. What it does not
        // promise is that `M` has no unused bytes between its fields: that these are read is what is unsound
        // about `abomonation`, and what the documentation of this crate begins with.
        unsafe { abomonation::encode(&self.0, to) }.map_err(|error| error.to_string())
    }

    fn read(bytes: &[u8]) -> Result<Self, String> {
        const {
            assert!(size_of::<M>() > 0, "a message of no size cannot be read as a copy of memory");
            assert!(
                M::LAYOUT.is_aligned_behind::<M>(),
                "a part of this message would not be aligned in memory, since it lies behind parts of any length"
            );
        }
        let (theirs, copy) = bytes.split_first_chunk::<ID_BYTES>().ok_or_else(cut_off)?;
        let (theirs, ours) = (u64::from_le_bytes(*theirs), id::<M>()?);
        if theirs != ours {
            return Err(format!(
                "a message is a copy of memory from another build of this program, or of another type \
                 ({theirs:016x}, and not {ours:016x})"
            ));
        }
        if copy.len() < size_of::<M>() {
            return Err(cut_off());
        }
        let mut space = SPACE.take();
        space.resize(copy.len().div_ceil(ALIGN_MAX), Piece([0; ALIGN_MAX]));
        let message = read_in(&mut space, copy);
        if space.len() <= KEPT_MAX {
            SPACE.set(space);
        }
        message.map(Abomonated)
    }
}

fn cut_off() -> String {
    "a message is a copy of memory that is cut off".to_owned()
}

/// Reads a copy that this build made of an `M`, which fits into the space and is at least as long as an `M`.
fn read_in<M: Abomonable>(space: &mut [Piece], copy: &[u8]) -> Result<M, String> {
    // SAFETY: pieces are bytes, one after the other and nothing between them, and all of them are initialized.
    let bytes: &mut [u8] = unsafe {
        std::slice::from_raw_parts_mut(space.as_mut_ptr().cast(), size_of_val::<[Piece]>(space))
    };
    let bytes = &mut bytes[..copy.len()];
    bytes.copy_from_slice(copy);
    let (message, heap) = bytes.split_at_mut(size_of::<M>());
    let message: *mut M = message.as_mut_ptr().cast();
    debug_assert!(message.is_aligned());
    // SAFETY: it points to as many bytes as an `M` has, of which nobody else knows, and they are aligned, since the
    // space is and `M` needs no more. They are those of an `M` of this very build, as the number before them said;
    // only what points to the heap is not valid here. `Abomonable` promises that there is no reference or box,
    // whose mere existence would be wrong, and that all of this is replaced now, by what points into `heap`. That
    // each part of it is aligned was checked while this was compiled.
    let left = unsafe { (*message).exhume(heap) };
    match left {
        Some([]) => {
            // SAFETY: it is a valid `M` now. It is never dropped, for it owns nothing of what it points to, and the
            // clone shares nothing with it, as `Abomonable` promises.
            Ok(unsafe { (*message).clone() })
        }
        Some(left) => Err(format!("{} bytes are left over behind a copy of memory", left.len())),
        None => Err(cut_off()),
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use super::*;
    use crate::abomonable;

    abomonable! {
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        struct Order {
            number: u64,
            tip: Option<u8>,
            lines: Vec<Line>,
            to: String,
            last: Step,
        }
    }

    abomonable! {
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        struct Line {
            pieces: u32,
            price: (u64, bool),
        }
    }

    abomonable! {
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        enum Step {
            Placed,
            Refused(String),
            Sent { by: String, at: [u16; 3], to: String },
            Paid([u16; 3]),
        }
    }

    abomonable! {
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        struct Lines {
            lines: Vec<Line>,
            to: Vec<String>,
            last: Vec<u8>,
        }
    }

    fn line(pieces: u32) -> Line {
        Line { pieces, price: (u64::from(pieces) << 40, pieces.is_multiple_of(2)) }
    }

    fn lines(count: u32) -> Lines {
        let to = (0..count % 7).map(|at| "x".repeat((count * at) as usize % 90)).collect();
        Lines { lines: (0..count).map(line).collect(), to, last: vec![3; count as usize] }
    }

    fn bytes<M: Abomonable + Serialize + DeserializeOwned>(message: M) -> Vec<u8> {
        let mut bytes = Vec::new();
        crossing::write(&Abomonated(message), &mut bytes).unwrap();
        bytes
    }

    fn own_bytes<M: Abomonable + Serialize + DeserializeOwned>(message: M) -> Vec<u8> {
        let mut bytes = Vec::new();
        Abomonated(message).write(&mut bytes).unwrap();
        bytes
    }

    #[track_caller]
    fn stays<M: Abomonable + Serialize + DeserializeOwned + PartialEq + Debug>(message: M) {
        let bytes = bytes(message.clone());
        let read: Abomonated<M> = crossing::read(&bytes).unwrap();
        assert_eq!(read.0, message);
    }

    #[test]
    fn messages_are_read_as_they_were_written() {
        for count in 0..200 {
            stays(lines(count));
            stays(lines(count).to);
        }
        let order = |last| {
            let lines = vec![line(1), line(2)];
            Order { number: 1, tip: Some(9), lines, to: "Ada".to_owned(), last }
        };
        stays(order(Step::Refused("too late".to_owned())));
        stays(order(Step::Paid([1, 2, 3])));
        let (by, to) = ("mail".to_owned(), "Ben".to_owned());
        stays(order(Step::Sent { by, at: [1, 2, 3], to }));
        stays(Step::Placed);
        stays(Step::Refused("too late".to_owned()));
        stays(Step::Paid([1, 2, 3]));
        stays((7_u128, 'x', String::new(), -0.5_f64));
        stays::<Result<Vec<u64>, String>>(Ok(vec![1, 2]));
        stays::<Result<Vec<u64>, String>>(Err("none".to_owned()));
        stays([Some("a".to_owned()), None]);
    }

    #[test]
    fn what_was_not_written_by_this_build_is_refused() {
        let written = own_bytes(lines(20));
        for end in 0..written.len() {
            let error = Abomonated::<Lines>::read(&written[..end]).unwrap_err();
            assert!(error.contains("cut off"), "{end}: {error}");
        }
        let error = Abomonated::<Lines>::read(&[&written[..], &[0]].concat()).unwrap_err();
        assert_eq!(error, "1 bytes are left over behind a copy of memory");
        // The number of any other build differs somewhere.
        for bit in 0..8 * ID_BYTES {
            let mut other = written.clone();
            other[bit / 8] ^= 1 << (bit % 8);
            let error = Abomonated::<Lines>::read(&other).unwrap_err();
            assert!(error.contains("from another build"), "{error}");
        }
        // The same memory, and another type.
        let error = Abomonated::<i64>::read(&own_bytes(7_u64)).unwrap_err();
        assert!(error.contains("or of another type"), "{error}");
        assert_eq!(Abomonated::<u64>::read(&own_bytes(7_u64)).unwrap().0, 7);
    }

    #[test]
    fn whoever_stores_a_message_stores_the_value() {
        let message = lines(9);
        let stored = rmp_serde::to_vec_named(&Abomonated(message.clone())).unwrap();
        assert_eq!(stored, rmp_serde::to_vec_named(&message).unwrap());
        assert_eq!(rmp_serde::from_slice::<Abomonated<Lines>>(&stored).unwrap().0, message);
        let stored = bincode::serialize(&Abomonated(message.clone())).unwrap();
        assert_eq!(stored, bincode::serialize(&message).unwrap());
        assert_eq!(bincode::deserialize::<Abomonated<Lines>>(&stored).unwrap().0, message);
        let stored = serde_json::to_vec(&Abomonated(message.clone())).unwrap();
        assert_eq!(stored, serde_json::to_vec(&message).unwrap());
        assert_eq!(serde_json::from_slice::<Abomonated<Lines>>(&stored).unwrap().0, message);
        let stored = postcard::to_allocvec(&Abomonated(message.clone())).unwrap();
        assert_eq!(stored, postcard::to_allocvec(&message).unwrap());
        // Between workers it is something else.
        assert_ne!(bytes(message.clone())[..40], stored[..40]);
    }

    /// Wherever the bytes begin.
    #[test]
    fn messages_need_no_aligned_bytes() {
        let written = own_bytes(lines(20));
        for shift in 0..ALIGN_MAX {
            let shifted = [&vec![0; shift][..], &written].concat();
            assert_eq!(Abomonated::<Lines>::read(&shifted[shift..]).unwrap().0, lines(20));
        }
    }
}

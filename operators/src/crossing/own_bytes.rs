//! Types that have bytes of their own between processes, and another form everywhere else.
//!
//! How a value asks where it is: it names a newtype struct as nobody else does. To what is inside, the
//! [format](super::format) between processes calls itself human-readable then, and no other time; every
//! other format says of itself what it said before. So bytes of one's own are never written into a
//! snapshot or an exchange of plain timely, whoever serializes the value.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{DeserializeOwned, Visitor};
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The name of the newtype struct.
pub(super) const NAME: &str = "timely_statefun_operators::crossing::OwnBytes";

/// A type that has bytes of its own between the processes of a program.
///
/// Everywhere else, in snapshots too, it is what [`elsewhere`](Self::elsewhere) says.
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use timely_statefun_operators::crossing::{self, OwnBytes};
///
/// /// Yes or no, of which a crowd fits into a byte.
/// #[derive(Debug, PartialEq, Serialize, Deserialize)]
/// #[serde(transparent)]
/// struct Votes(#[serde(with = "crossing")] Ballots);
///
/// #[derive(Debug, PartialEq)]
/// struct Ballots(Vec<bool>);
///
/// impl OwnBytes for Ballots {
///     type Elsewhere = Vec<bool>;
///     fn elsewhere(&self) -> &Vec<bool> {
///         &self.0
///     }
///     fn from_elsewhere(votes: Vec<bool>) -> Self {
///         Ballots(votes)
///     }
///     fn write(&self, to: &mut Vec<u8>) -> Result<(), String> {
///         let eight = self.0.chunks(8).map(|votes| votes.iter().rev().fold(0, |all, vote| 2 * all + u8::from(*vote)));
///         to.push(u8::try_from(self.0.len()).map_err(|_| "more than 255 votes")?);
///         to.extend(eight);
///         Ok(())
///     }
///     fn read(bytes: &[u8]) -> Result<Self, String> {
///         let (votes, bytes) = bytes.split_first().ok_or("no votes")?;
///         let vote = |at: usize| Some(bytes.get(at / 8)? >> (at % 8) & 1 == 1);
///         let all = (0..usize::from(*votes)).map(vote).collect::<Option<_>>();
///         Ok(Ballots(all.ok_or("some are missing")?))
///     }
/// }
///
/// let votes = Votes(Ballots([true, true, false].repeat(16)));
/// let mut bytes = Vec::new();
/// crossing::write(&votes, &mut bytes)?;
/// assert_eq!(bytes.len(), 1 + 1 + 6);
/// assert_eq!(crossing::read::<Votes>(&bytes)?, votes);
/// # Ok::<(), crossing::Error>(())
/// ```
pub trait OwnBytes: Sized {
    /// What it is everywhere else.
    type Elsewhere: Serialize + DeserializeOwned;

    /// What it is everywhere else.
    fn elsewhere(&self) -> &Self::Elsewhere;

    /// The value that is this everywhere else.
    fn from_elsewhere(value: Self::Elsewhere) -> Self;

    /// Adds its bytes between processes.
    ///
    /// # Errors
    ///
    /// Why it has none. The worker that sends it panics.
    fn write(&self, to: &mut Vec<u8>) -> Result<(), String>;

    /// The value of all of the bytes, which may begin anywhere in memory.
    ///
    /// # Errors
    ///
    /// Why it is none. The worker that receives it panics: it cannot go on without a message.
    fn read(bytes: &[u8]) -> Result<Self, String>;
}

/// Serializes a value in the form that belongs to where it goes, for serde's attribute `with`.
///
/// # Errors
///
/// Those of the serializer, and that the value has no bytes.
pub fn serialize<V: OwnBytes, S: Serializer>(value: &V, serializer: S) -> Result<S::Ok, S::Error> {
    if serializer.is_human_readable() {
        return value.elsewhere().serialize(serializer);
    }
    serializer.serialize_newtype_struct(NAME, &Asking(value))
}

/// Reads a value in the form that belongs to where it comes from, for serde's attribute `with`.
///
/// # Errors
///
/// Those of the deserializer, and that bytes are no value.
pub fn deserialize<'de, V: OwnBytes, D: Deserializer<'de>>(from: D) -> Result<V, D::Error> {
    if from.is_human_readable() {
        return Deserialize::deserialize(from).map(V::from_elsewhere);
    }
    from.deserialize_newtype_struct(NAME, Asked(PhantomData))
}

/// A value that asks the serializer where it is.
struct Asking<'a, V>(&'a V);

thread_local! {
    /// Space for the bytes of a value, which a serializer takes as a whole.
    static SPACE: std::cell::Cell<Vec<u8>> = const { std::cell::Cell::new(Vec::new()) };
}

/// Bytes that a thread keeps for the next value at most.
const KEPT_MAX: usize = 1 << 16;

impl<V: OwnBytes> Serialize for Asking<'_, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if !serializer.is_human_readable() {
            return self.0.elsewhere().serialize(serializer);
        }
        let mut bytes = SPACE.take();
        bytes.clear();
        self.0.write(&mut bytes).map_err(S::Error::custom)?;
        let written = serializer.serialize_bytes(&bytes);
        if bytes.capacity() <= KEPT_MAX {
            SPACE.set(bytes);
        }
        written
    }
}

/// What a deserializer is asked with where it is.
struct Asked<V>(PhantomData<V>);

impl<'de, V: OwnBytes> Visitor<'de> for Asked<V> {
    type Value = V;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value with bytes of its own")
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, from: D) -> Result<V, D::Error> {
        if from.is_human_readable() {
            from.deserialize_bytes(self)
        } else {
            Deserialize::deserialize(from).map(V::from_elsewhere)
        }
    }

    fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<V, E> {
        V::read(bytes).map_err(E::custom)
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::crossing;

    /// A number that is three bytes between processes.
    #[derive(Debug, PartialEq)]
    struct Three(u32);

    impl OwnBytes for Three {
        type Elsewhere = u32;
        fn elsewhere(&self) -> &u32 {
            &self.0
        }
        fn from_elsewhere(number: u32) -> Self {
            Three(number)
        }
        fn write(&self, to: &mut Vec<u8>) -> Result<(), String> {
            let [bytes @ .., 0] = self.0.to_le_bytes() else {
                return Err(format!("{} has more than three bytes", self.0));
            };
            to.extend(bytes);
            Ok(())
        }
        fn read(bytes: &[u8]) -> Result<Self, String> {
            let [one, two, three] = *bytes else { return Err("not three bytes".to_owned()) };
            Ok(Three(u32::from_le_bytes([one, two, three, 0])))
        }
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Message {
        before: Option<String>,
        #[serde(with = "crossing")]
        three: Three,
        after: Named,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Named(u8);

    fn message(number: u32) -> Message {
        Message { before: Some("x".to_owned()), three: Three(number), after: Named(9) }
    }

    #[test]
    fn bytes_of_ones_own_are_written_between_processes() {
        let mut bytes = Vec::new();
        crossing::write(&message(0x01_02_03), &mut bytes).unwrap();
        assert_eq!(bytes, [1, 1, b'x', 3, 3, 2, 1, 9]);
        assert_eq!(crossing::read::<Message>(&bytes).unwrap(), message(0x01_02_03));
        let error = crossing::write(&message(1 << 24), &mut bytes).unwrap_err();
        assert_eq!(error.to_string(), "16777216 has more than three bytes");
        let error = crossing::read::<Message>(&[1, 1, b'x', 2, 2, 1, 9]).unwrap_err();
        assert_eq!(error.to_string(), "not three bytes");
    }

    /// In what timely itself exchanges, which is no format for people.
    #[test]
    fn elsewhere_nobody_sees_them() {
        use timely::communication::Bytesable;
        use timely::dataflow::channels::Message as Exchanged;
        let sent = vec![message(1 << 24), message(7)];
        let exchanged = Exchanged::new(0_u64, sent);
        let mut bytes = Vec::new();
        exchanged.into_bytes(&mut bytes);
        assert_eq!(bytes.len(), exchanged.length_in_bytes());
        // A number of 32 bits, in full.
        assert!(bytes.windows(5).any(|five| five == [0, 0, 0, 1, 9]), "{bytes:?}");
        let bytes = timely::bytes::arc::BytesMut::from(bytes).freeze();
        let read = Exchanged::<u64, Vec<Message>>::from_bytes(bytes);
        assert_eq!(read.data, [message(1 << 24), message(7)]);
    }
}

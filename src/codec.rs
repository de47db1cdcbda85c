//! How values become the bytes that are stored, and back.
//!
//! The name of a value's type says how its bytes are to be read, so a codec belongs to a spec. Types that
//! other languages share have the bytes that they have there. All others are MessagePack that names the
//! fields of structs, so that a type may get new fields with a default, and one that lost a field is
//! noticed instead of read as something else.

use std::error::Error as StdError;
use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;

use crate::typed::Typed;
use crate::value::Value;

/// How deep values may be nested that are read. A level takes up to 4 KiB of the stack where nothing is
/// optimized, and a thread has 2 MiB.
const DEEPEST: usize = 256;

/// Why a value cannot be written or read.
pub(crate) type CodecError = Box<dyn StdError + Send + Sync>;

/// Why a value cannot be part of a snapshot.
#[derive(Debug, thiserror::Error)]
#[error("{}: {why}", match is_read_back {
    false => "cannot be written",
    true => "can be written, but not be read again",
})]
pub(crate) struct Unwritable {
    is_read_back: bool,
    why: CodecError,
}

/// How values of one type become bytes, and back.
///
/// Nothing outside this crate can do anything with it.
pub struct Codec<V> {
    write: fn(&V, &mut Vec<u8>) -> Result<(), CodecError>,
    read: fn(&[u8]) -> Result<V, CodecError>,
    /// Whether the bytes are those of a type that is built into the SDKs, or of whatever type others
    /// say they are of.
    is_built_in: bool,
}

impl<V> Clone for Codec<V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<V> Copy for Codec<V> {}

impl<V> Codec<V> {
    /// Adds the bytes of a value.
    ///
    /// # Errors
    ///
    /// If the value is nothing that can be written, or the code of its type panics. What was added
    /// before that stays.
    pub(crate) fn write(&self, value: &V, to: &mut Vec<u8>) -> Result<(), CodecError> {
        caught(|| (self.write)(value, to))
    }

    /// Adds the bytes of a value for a snapshot, and reads them back if it is asked to.
    ///
    /// # Errors
    ///
    /// As for [`write`](Self::write) and [`read`](Self::read).
    pub(crate) fn store(
        &self,
        value: &V,
        to: &mut Vec<u8>,
        reads_back: bool,
    ) -> Result<(), Unwritable> {
        let start = to.len();
        self.write(value, to).map_err(|why| Unwritable { is_read_back: false, why })?;
        if reads_back {
            let read = self.read(&to[start..]).map(drop);
            read.map_err(|why| Unwritable { is_read_back: true, why })?;
        }
        Ok(())
    }

    /// The value of all of the bytes.
    ///
    /// # Errors
    ///
    /// If they are no value of the type, or its code panics.
    pub(crate) fn read(&self, bytes: &[u8]) -> Result<V, CodecError> {
        caught(|| (self.read)(bytes))
    }

    pub(crate) fn is_built_in(&self) -> bool {
        self.is_built_in
    }
}

/// What code of others comes to, which may panic.
pub(crate) fn caught<X>(run: impl FnOnce() -> Result<X, CodecError>) -> Result<X, CodecError> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        Err(format!("it panicked: {}", text.unwrap_or("of something that is no text")).into())
    })
}

impl<V: Value> Codec<V> {
    /// MessagePack.
    pub(crate) const SERDE: &'static Self = &Codec {
        write: |value, to| Ok(rmp_serde::encode::write_named(to, value)?),
        read: |bytes| {
            let mut from = rmp_serde::Deserializer::new(Cursor::new(bytes));
            from.set_max_depth(DEEPEST + 1);
            let value = V::deserialize(&mut from)?;
            match bytes.len() as u64 - from.position() {
                0 => Ok(value),
                left => Err(format!("{left} bytes are left over").into()),
            }
        },
        is_built_in: false,
    };
}

impl<V: Typed> Codec<V> {
    /// What other languages read.
    pub(crate) const TYPED: &'static Self = &Codec {
        write: |value, to| {
            to.extend_from_slice(&value.to_bytes());
            Ok(())
        },
        read: V::from_bytes,
        is_built_in: false,
    };

    /// The same of a type that is built into every SDK.
    pub(crate) const BUILT_IN: &'static Self =
        &Codec { write: Self::TYPED.write, read: Self::TYPED.read, is_built_in: true };
}

impl Codec<Bytes> {
    /// Bytes that somebody else made, whatever they are.
    pub(crate) const RAW: &'static Self = &Codec {
        write: |value, to| {
            to.extend_from_slice(value);
            Ok(())
        },
        read: |bytes| Ok(Bytes::copy_from_slice(bytes)),
        is_built_in: true,
    };
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fmt::Debug;

    use serde::{Deserialize, Serialize};

    use super::*;
    use crate::fuzz::{Random, fuzz, within};
    use crate::value::Named;

    fn bytes<V>(codec: &Codec<V>, value: &V) -> Vec<u8> {
        let mut bytes = vec![0xee];
        codec.write(value, &mut bytes).unwrap();
        assert_eq!(bytes.remove(0), 0xee, "what was there stays");
        bytes
    }

    fn stays<V: PartialEq + Debug>(codec: &Codec<V>, value: V) {
        let bytes = bytes(codec, &value);
        assert_eq!(codec.read(&bytes).unwrap(), value, "{bytes:x?}");
    }

    fn named<V: Named + Value + PartialEq + Debug>(value: V) {
        stays(V::BUILT_IN.unwrap_or(Codec::SERDE), value);
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Account {
        owner: String,
        #[serde(default)]
        limit: Option<i64>,
        kind: Kind,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Kind {
        Plain,
        Shared { with: Vec<String> },
        Rated(f64, u8),
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(untagged)]
    enum Either {
        Number(u64),
        Text(String),
    }

    #[test]
    fn every_named_type_keeps_its_values() {
        [true, false].into_iter().for_each(named);
        [i8::MIN, -1, 0, i8::MAX].into_iter().for_each(named);
        [i16::MIN, -1, 0, i16::MAX].into_iter().for_each(named);
        [i32::MIN, -1, 0, i32::MAX].into_iter().for_each(named);
        [i64::MIN, -1, 0, i64::MAX].into_iter().for_each(named);
        [i128::MIN, -1, 0, i128::MAX].into_iter().for_each(named);
        [0, u8::MAX].into_iter().for_each(named);
        [0, u16::MAX].into_iter().for_each(named);
        [0, u32::MAX].into_iter().for_each(named);
        [0, u64::MAX].into_iter().for_each(named);
        [0, u128::MAX].into_iter().for_each(named);
        [f32::MIN, -0.0, f32::INFINITY].into_iter().for_each(named);
        [f64::MIN, -0.0, f64::INFINITY].into_iter().for_each(named);
        ['\0', 'ß', '\u{10ffff}'].into_iter().for_each(named);
        ["", "hello", "\0"].into_iter().for_each(|text| named(text.to_owned()));
        named(());
    }

    #[test]
    fn types_of_ones_own_keep_their_values() {
        for kind in [Kind::Plain, Kind::Shared { with: vec![String::new()] }, Kind::Rated(0.5, 3)] {
            stays(Codec::SERDE, Account { owner: "Ada".to_owned(), limit: Some(-1), kind });
        }
        stays(Codec::SERDE, BTreeMap::from([((1, 'a'), vec![1_u8]), ((2, 'b'), vec![])]));
        stays(Codec::SERDE, vec![Either::Number(7), Either::Text("seven".to_owned())]);
        stays(Codec::RAW, Bytes::from_static(&[1, 2, 3]));
    }

    #[test]
    fn built_in_types_are_the_bytes_that_other_languages_have() {
        assert_eq!(bytes(<i64 as Named>::BUILT_IN.unwrap(), &7), [9, 7, 0, 0, 0, 0, 0, 0, 0]);
        assert!(bytes(<i32 as Named>::BUILT_IN.unwrap(), &0).is_empty());
        assert_eq!(bytes(<String as Named>::BUILT_IN.unwrap(), &"a".to_owned()), b"\x0a\x01a");
        assert!(<u64 as Named>::BUILT_IN.is_none());
    }

    #[test]
    fn a_type_may_get_a_field_with_a_default_and_may_not_lose_one() {
        #[derive(Serialize)]
        struct Before {
            owner: &'static str,
            kind: Kind,
        }
        let before = bytes_of(&Before { owner: "Ada", kind: Kind::Plain });
        let account = Codec::<Account>::SERDE.read(&before).unwrap();
        assert_eq!((account.owner.as_str(), account.limit), ("Ada", None));

        #[derive(Serialize)]
        struct Less {
            owner: &'static str,
        }
        let less = bytes_of(&Less { owner: "Ada" });
        let error = Codec::<Account>::SERDE.read(&less).unwrap_err().to_string();
        assert!(error.contains("kind"), "{error}");
    }

    fn bytes_of(value: &impl Serialize) -> Vec<u8> {
        rmp_serde::to_vec_named(value).unwrap()
    }

    #[test]
    fn what_is_no_value_or_more_than_one_is_an_error() {
        let two = [bytes(Codec::SERDE, &1_u64), bytes(Codec::SERDE, &2_u64)].concat();
        let error = Codec::<u64>::SERDE.read(&two).unwrap_err().to_string();
        assert_eq!(error, "1 bytes are left over");
        assert!(Codec::<u64>::SERDE.read(&[]).is_err());
        assert!(Codec::<String>::SERDE.read(&[0xdb, 0xff, 0xff, 0xff, 0xff]).is_err());
        let deep = |levels: usize| [vec![0x91; levels - 1], vec![0x90]].concat();
        assert!(Codec::<Nested>::SERDE.read(&deep(DEEPEST)).is_ok());
        let deep = deep(1 << 20);
        assert!(Codec::<Nested>::SERDE.read(&deep).is_err(), "and no overflow of the stack");
    }

    #[derive(Debug, Serialize, Deserialize)]
    struct Nested(Vec<Nested>);

    /// Whatever a type may be made of.
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    enum Shape {
        Nothing,
        Flag(bool),
        Small(i8),
        Number(i64),
        Large(u64),
        Huge(i128),
        Part(f64),
        Letter(char),
        Text(String),
        Raw(Bytes),
        Maybe(Option<Box<Shape>>),
        Pair(Box<(Shape, u16)>),
        List(Vec<Shape>),
        Table(BTreeMap<(u32, String), Shape>),
        Named {
            name: String,
            #[serde(default)]
            since: Option<u32>,
            of: Box<Shape>,
        },
    }

    fn shape(random: &mut Random, depth: usize) -> Shape {
        let below = if depth == 0 { 10 } else { 15 };
        let inner = |random: &mut Random| shape(random, depth - 1);
        match random.below(below) {
            0 => Shape::Nothing,
            1 => Shape::Flag(random.once_in(2)),
            2 => Shape::Small(random.number() as i8),
            3 => Shape::Number(random.number() as i64),
            4 => Shape::Large(random.number()),
            5 => Shape::Huge(i128::from(random.number() as i64) << random.below(64)),
            6 => Shape::Part(random.number() as i64 as f64 / 8.0),
            7 => Shape::Letter(*random.one_of(&['\0', 'a', 'ß', '\u{10ffff}'])),
            8 => Shape::Text(random.text()),
            9 => Shape::Raw(random.bytes().into()),
            10 => Shape::Maybe((!random.once_in(3)).then(|| Box::new(inner(random)))),
            11 => Shape::Pair(Box::new((inner(random), random.number() as u16))),
            12 => Shape::List((0..random.below(4)).map(|_| inner(random)).collect()),
            13 => {
                let entry =
                    |random: &mut Random| ((random.number() as u32, random.text()), inner(random));
                Shape::Table((0..random.below(4)).map(|_| entry(random)).collect())
            }
            _ => {
                let since = random.once_in(2).then(|| random.number() as u32);
                Shape::Named { name: random.text(), since, of: Box::new(inner(random)) }
            }
        }
    }

    #[test]
    fn values_of_any_shape_are_read_as_they_were_written() {
        for seed in 0..20_000 {
            let mut random = Random(seed);
            let depth = random.below(6);
            let value = shape(&mut random, depth);
            let bytes = bytes(Codec::SERDE, &value);
            assert_eq!(Codec::<Shape>::SERDE.read(&bytes).unwrap(), value, "seed {seed}");
            for end in [bytes.len() - 1, random.below(bytes.len())] {
                let cut_off = Codec::<Shape>::SERDE.read(&bytes[..end]);
                assert!(cut_off.is_err(), "{end} bytes of seed {seed}");
            }
        }
    }

    /// What a list that announces more than there is may take, at each level of lists.
    const ANNOUNCED_BYTES: usize = 1 << 20;

    #[test]
    fn any_bytes_are_a_value_or_an_error_and_are_written_in_one_way() {
        let mut random = Random(1);
        let inputs: Vec<_> =
            (0..200).map(|_| bytes(Codec::SERDE, &shape(&mut random, 3))).collect();
        fuzz("values", 30_000, &inputs, |input| {
            // Five bytes announce a list of any length.
            let levels = input.len() / 5 + 1;
            let room = 64 * input.len() + levels.min(DEEPEST) * ANNOUNCED_BYTES;
            let Ok(value) = within(room, || Codec::<Shape>::SERDE.read(input)) else {
                return false;
            };
            let again = bytes(Codec::SERDE, &value);
            let read = Codec::<Shape>::SERDE.read(&again).unwrap();
            // By their bytes, since some numbers do not equal themselves.
            assert_eq!(bytes(Codec::SERDE, &read), again);
            true
        });
    }

    /// A text that announces more than there is takes no more than there is.
    #[test]
    fn a_length_that_lies_takes_no_memory() {
        for begin in [&[0xdb, 0x7f, 0xff, 0xff, 0xff][..], &[0xc6, 0xff, 0xff, 0xff, 0xff]] {
            let input = [begin, &[b'a'; 100]].concat();
            within(1 << 10, || Codec::<String>::SERDE.read(&input).unwrap_err());
            within(1 << 10, || Codec::<Bytes>::SERDE.read(&input).unwrap_err());
        }
    }
}

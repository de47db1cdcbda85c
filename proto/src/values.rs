//! Values of the built-in types, and their bytes.
//!
//! What is written is canonical, since some SDKs read nothing else: the default of a type is no bytes
//! at all, and anything else is the type's message with its one field. What is read is any message
//! that protobuf allows. Nothing in here knows what a value is for.

use bytes::Bytes;
use prost::{DecodeError, Message};

use crate::reqreply::TypedValue;
use crate::{type_names, types};

/// A type that all languages have: `bool`, `i32`, `i64`, `f32`, `f64` and `String`.
///
/// ```
/// use timely_statefun_proto::BuiltIn;
///
/// assert_eq!(7_i32.to_bytes(), [0x0d, 7, 0, 0, 0][..]);
/// assert_eq!(0_i32.to_bytes(), [][..]);
/// assert_eq!(i32::from_bytes(&[0x0d, 7, 0, 0, 0])?, 7);
/// # Ok::<(), timely_statefun_proto::ValueError>(())
/// ```
pub trait BuiltIn: sealed::Sealed + Sized {
    /// The name of the type, one of [`type_names`].
    const TYPE_NAME: &'static str;

    /// The value as all SDKs read it: canonical, and no bytes if it is the type's default.
    ///
    /// Numbers keep all their bits, so -0.0 is not the default, and a NaN stays the NaN it was.
    fn to_bytes(&self) -> Bytes;

    /// The value that the bytes are. They need not be canonical: a default may be written out, the
    /// last of several counts, and unknown fields are skipped.
    ///
    /// # Errors
    ///
    /// [`ValueError::Malformed`] if they are no message, the field is of another kind, or text is not
    /// UTF-8.
    fn from_bytes(bytes: &[u8]) -> Result<Self, ValueError>;
}

/// The bytes of a value, and the name of its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Typed<'a> {
    /// The name, as it was found: it may be of any type, and may be empty.
    pub type_name: &'a str,
    /// What the type makes of the value.
    pub bytes: &'a Bytes,
}

impl Typed<'_> {
    /// The value, if it is of type `V`.
    ///
    /// # Errors
    ///
    /// [`ValueError::OtherType`] if it is of another type, and what [`BuiltIn::from_bytes`] says.
    pub fn read<V: BuiltIn>(&self) -> Result<V, ValueError> {
        if self.type_name != V::TYPE_NAME {
            let found = self.type_name.to_owned();
            return Err(ValueError::OtherType { wanted: V::TYPE_NAME, found });
        }
        V::from_bytes(self.bytes)
    }
}

/// Values that follow the rules: one that is there has `has_value` set and a type with a name.
///
/// ```
/// use timely_statefun_proto::reqreply::TypedValue;
///
/// let value = TypedValue::of(&"Ada".to_owned());
/// let typed = value.typed().expect("there is a value");
/// assert_eq!(typed.type_name, "io.statefun.types/string");
/// assert_eq!(typed.read::<String>()?, "Ada");
/// # Ok::<(), timely_statefun_proto::ValueError>(())
/// ```
impl TypedValue {
    /// A value of a type of one's own, from what the type makes of it.
    ///
    /// # Errors
    ///
    /// [`ValueError::Unnamed`] if the name is empty: nobody could read the value.
    pub fn new(
        type_name: impl Into<String>,
        bytes: impl Into<Bytes>,
    ) -> Result<TypedValue, ValueError> {
        let typename = type_name.into();
        if typename.is_empty() {
            return Err(ValueError::Unnamed);
        }
        Ok(TypedValue { typename, has_value: true, value: bytes.into() })
    }

    /// A value of a built-in type.
    pub fn of<V: BuiltIn>(value: &V) -> TypedValue {
        let typename = V::TYPE_NAME.to_owned();
        TypedValue { typename, has_value: true, value: value.to_bytes() }
    }

    /// The value, unless there is none. Bytes without `has_value` are none; a value without bytes is
    /// one.
    pub fn typed(&self) -> Option<Typed<'_>> {
        let typed = Typed { type_name: &self.typename, bytes: &self.value };
        self.has_value.then_some(typed)
    }
}

/// What is wrong with a value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ValueError {
    /// It has no type.
    #[error("type name of a value is empty")]
    Unnamed,
    /// It is of another type than the one asked for.
    #[error("value is of type \"{found}\", not \"{wanted}\"")]
    OtherType {
        /// The type asked for.
        wanted: &'static str,
        /// The type it is of.
        found: String,
    },
    /// Its bytes are not such as its type makes.
    #[error("bytes are no value of type \"{type_name}\"")]
    Malformed {
        /// Its type.
        type_name: &'static str,
        /// Where reading ended.
        source: DecodeError,
    },
}

mod sealed {
    /// There are no other built-in types.
    pub trait Sealed {}
}

/// The value in the message of a built-in type.
macro_rules! read {
    ($of:ident, $message:ident, $bytes:ident) => {{
        let message = types::$message::decode($bytes);
        let malformed = |source| ValueError::Malformed { type_name: $of::TYPE_NAME, source };
        message.map(|message| message.value).map_err(malformed)
    }};
}

/// Numbers: the field's tag, then the number, least byte first.
macro_rules! numbers {
    ($($of:ident, $name:ident, $message:ident, $tag:literal;)*) => { $(
        impl sealed::Sealed for $of {}

        impl BuiltIn for $of {
            const TYPE_NAME: &'static str = type_names::$name;

            fn to_bytes(&self) -> Bytes {
                let number = self.to_le_bytes();
                // By its bits, as -0.0 equals 0.0 and would lose its sign.
                if number.iter().all(|byte| *byte == 0) {
                    return Bytes::new();
                }
                let mut bytes = [$tag; size_of::<$of>() + 1];
                bytes[1..].copy_from_slice(&number);
                Bytes::copy_from_slice(&bytes)
            }

            fn from_bytes(bytes: &[u8]) -> Result<Self, ValueError> {
                read!($of, $message, bytes)
            }
        }
    )* };
}

numbers! {
    i32, INT, IntWrapper, 0x0d;
    i64, LONG, LongWrapper, 0x09;
    f32, FLOAT, FloatWrapper, 0x0d;
    f64, DOUBLE, DoubleWrapper, 0x09;
}

impl sealed::Sealed for bool {}

impl BuiltIn for bool {
    const TYPE_NAME: &'static str = type_names::BOOL;

    fn to_bytes(&self) -> Bytes {
        Bytes::from_static(if *self { &[0x08, 1] } else { &[] })
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, ValueError> {
        read!(bool, BooleanWrapper, bytes)
    }
}

impl sealed::Sealed for String {}

impl BuiltIn for String {
    const TYPE_NAME: &'static str = type_names::STRING;

    fn to_bytes(&self) -> Bytes {
        // Prost takes a string for the message whose field 1 it is, which is what is wanted.
        self.encode_to_vec().into()
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, ValueError> {
        read!(String, StringWrapper, bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error;
    use std::fmt::Debug;

    use super::*;

    #[track_caller]
    fn check<V: BuiltIn + PartialEq + Debug>(value: V, bytes: &[u8]) {
        assert_eq!(value.to_bytes(), bytes, "written: {value:?}");
        assert_eq!(V::from_bytes(bytes), Ok(value), "read: {bytes:02x?}");
    }

    #[track_caller]
    fn reads<V: BuiltIn + PartialEq + Debug>(bytes: &[u8], value: V) {
        assert_eq!(V::from_bytes(bytes), Ok(value), "{bytes:02x?}");
    }

    #[track_caller]
    fn malformed<V: BuiltIn + PartialEq + Debug>(bytes: &[u8]) {
        match V::from_bytes(bytes) {
            Err(ValueError::Malformed { type_name, .. }) => assert_eq!(type_name, V::TYPE_NAME),
            other => panic!("{bytes:02x?} gives {other:?}"),
        }
    }

    #[test]
    fn a_default_is_no_bytes() {
        check(false, &[]);
        check(0_i32, &[]);
        check(0_i64, &[]);
        check(0_f32, &[]);
        check(0_f64, &[]);
        check(String::new(), &[]);
    }

    #[test]
    fn values_are_written_as_all_languages_read_them() {
        check(true, &[0x08, 1]);
        check(1_i32, &[0x0d, 1, 0, 0, 0]);
        check(-1_i32, &[0x0d, 0xff, 0xff, 0xff, 0xff]);
        check(i32::MIN, &[0x0d, 0, 0, 0, 0x80]);
        check(1_i64, &[0x09, 1, 0, 0, 0, 0, 0, 0, 0]);
        check(i64::MAX, &[0x09, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]);
        check(1.5_f32, &[0x0d, 0, 0, 0xc0, 0x3f]);
        check(0.1_f64, &[0x09, 0x9a, 0x99, 0x99, 0x99, 0x99, 0x99, 0xb9, 0x3f]);
        check("hé".to_owned(), &[0x0a, 3, b'h', 0xc3, 0xa9]);
        let long = "x".repeat(300);
        check(long.clone(), &[&[0x0a, 0xac, 0x02], long.as_bytes()].concat());
    }

    #[test]
    fn the_sign_of_zero_and_the_bits_of_a_nan_are_kept() {
        assert_eq!((-0.0_f32).to_bytes(), [0x0d, 0, 0, 0, 0x80][..]);
        assert_eq!((-0.0_f64).to_bytes(), [0x09, 0, 0, 0, 0, 0, 0, 0, 0x80][..]);
        assert!(f32::from_bytes(&[0x0d, 0, 0, 0, 0x80]).unwrap().is_sign_negative());
        for bits in [0x7fc0_0000, 0x7fff_ffff, 0xffc0_0001, 0x8000_0000] {
            let bytes = f32::from_bits(bits).to_bytes();
            assert_eq!(f32::from_bytes(&bytes).unwrap().to_bits(), bits);
        }
        for bits in [0x7ff8_0000_0000_0000, 0xffff_ffff_ffff_ffff, 1 << 63] {
            let bytes = f64::from_bits(bits).to_bytes();
            assert_eq!(f64::from_bytes(&bytes).unwrap().to_bits(), bits);
        }
    }

    #[test]
    fn what_is_not_canonical_is_read() {
        reads(&[0x08, 0], false);
        reads(&[0x08, 2], true);
        reads(&[0x0d, 0, 0, 0, 0], 0_i32);
        reads(&[0x09, 0, 0, 0, 0, 0, 0, 0, 0], 0.0_f64);
        reads(&[0x0a, 0], String::new());
        // The last of two.
        reads(&[0x0d, 1, 0, 0, 0, 0x0d, 2, 0, 0, 0], 2_i32);
        reads(&[0x0a, 1, b'a', 0x0a, 1, b'b'], "b".to_owned());
        reads(&[0x08, 1, 0x08, 0], false);
        // Unknown fields before and after: a varint, bytes, and a group.
        reads(&[0x98, 0x06, 1, 0x0d, 1, 0, 0, 0], 1_i32);
        reads(&[0x0d, 1, 0, 0, 0, 0xa2, 0x06, 1, 0xff], 1_i32);
        reads(&[0x13, 0x08, 7, 0x14, 0x0a, 1, b'a'], "a".to_owned());
    }

    #[test]
    fn what_is_no_value_is_an_error() {
        // Field 1 of another kind.
        malformed::<i32>(&[0x08, 7]);
        malformed::<i64>(&[0x0d, 1, 0, 0, 0]);
        malformed::<bool>(&[0x0d, 1, 0, 0, 0]);
        malformed::<String>(&[0x08, 7]);
        // Cut off.
        malformed::<i32>(&[0x0d, 1]);
        malformed::<String>(&[0x0a, 5, b'a']);
        malformed::<String>(&[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]);
        malformed::<bool>(&[0x08]);
        // Not UTF-8, not even a tag, field 0.
        malformed::<String>(&[0x0a, 1, 0xff]);
        malformed::<f64>(&[0xff; 11]);
        malformed::<f32>(&[0x05, 0, 0, 0, 0]);
    }

    #[test]
    fn a_typed_value_has_a_value_and_a_type() {
        let own = TypedValue::new("shop/cart", vec![1, 2]).unwrap();
        assert!(own.has_value);
        let typed = own.typed().unwrap();
        assert_eq!((typed.type_name, &typed.bytes[..]), ("shop/cart", &[1, 2][..]));
        assert_eq!(TypedValue::new("", vec![1]), Err(ValueError::Unnamed));

        let zero = TypedValue::of(&0_i64);
        assert_eq!((zero.has_value, zero.value.len()), (true, 0));
        assert_eq!(zero.typed().unwrap().read::<i64>(), Ok(0));
    }

    #[test]
    fn bytes_without_a_value_are_none() {
        let unset = TypedValue { has_value: false, ..TypedValue::of(&41_i32) };
        assert_eq!(unset.typed(), None);
    }

    #[test]
    fn errors_say_what_was_found() {
        let text = TypedValue::of(&"a".to_owned());
        let error = text.typed().unwrap().read::<i32>().unwrap_err();
        let expected =
            "value is of type \"io.statefun.types/string\", not \"io.statefun.types/int\"";
        assert_eq!(error.to_string(), expected);

        let error = i32::from_bytes(&[0x08, 7]).unwrap_err();
        assert_eq!(error.to_string(), "bytes are no value of type \"io.statefun.types/int\"");
        assert!(error.source().unwrap().to_string().contains("wire type"), "{error:?}");
    }
}

//! Values that every language reads: bytes, and the name of their type.

use std::error::Error as StdError;
use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;
use timely_statefun_proto::BuiltIn;

use crate::address;
use crate::error::Error;
use crate::message::{Carries, Mismatch};
use crate::value::Named;

/// A type that other languages read as well: its name, and how its values become bytes.
///
/// `bool`, `i32`, `i64`, `f32`, `f64` and `String` are such types, as in every StateFun SDK.
/// [`json_type!`](crate::json_type) and [`protobuf_type!`](crate::protobuf_type) make one of what is JSON
/// or a protobuf message elsewhere. Any other type names itself and says how it is written:
///
/// ```
/// use bytes::Bytes;
/// use timely_statefun::{Named, Typed, TypedValue};
///
/// struct Celsius(i16);
///
/// impl Named for Celsius {
///     const TYPE_NAME: &'static str = "weather/celsius";
/// }
///
/// impl Typed for Celsius {
///     fn to_bytes(&self) -> Bytes {
///         Bytes::copy_from_slice(&self.0.to_be_bytes())
///     }
///     fn from_bytes(bytes: &[u8]) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
///         Ok(Celsius(i16::from_be_bytes(bytes.try_into()?)))
///     }
/// }
///
/// let value = TypedValue::of(&Celsius(-4));
/// assert_eq!(value.type_name(), "weather/celsius");
/// assert_eq!(value.read::<Celsius>().unwrap().0, -4);
/// assert_eq!(
///     value.read::<i32>().unwrap_err().to_string(),
///     "weather/celsius where io.statefun.types/int is wanted"
/// );
/// ```
pub trait Typed: Named + Sized + 'static {
    /// The bytes of a value, always the same for equal values.
    fn to_bytes(&self) -> Bytes;

    /// The value of the bytes.
    ///
    /// # Errors
    ///
    /// If they are no value of this type.
    fn from_bytes(bytes: &[u8]) -> Result<Self, Box<dyn StdError + Send + Sync>>;
}

macro_rules! typed {
    ($($of:ty),*) => { $(
        impl Typed for $of {
            fn to_bytes(&self) -> Bytes {
                BuiltIn::to_bytes(self)
            }
            fn from_bytes(bytes: &[u8]) -> Result<Self, Box<dyn StdError + Send + Sync>> {
                Ok(BuiltIn::from_bytes(bytes)?)
            }
        }
    )* };
}

typed!(bool, i32, i64, f32, f64, String);

/// Bytes, and the name of the type they are a value of.
///
/// This is what remote functions take, keep and send. It may be a program's message type, and then
/// [carries](Carries) every type that is [`Typed`].
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TypedValue {
    type_name: SmolStr,
    bytes: Bytes,
}

impl TypedValue {
    /// A value of the type with this name, `namespace/name`.
    ///
    /// # Errors
    ///
    /// If the name is not valid.
    pub fn new(type_name: &str, bytes: impl Into<Bytes>) -> Result<Self, Error> {
        address::check("type name", type_name)?;
        Ok(Self::found(type_name, bytes.into()))
    }

    /// A value that was found with this name.
    pub(crate) fn found(type_name: &str, bytes: Bytes) -> Self {
        TypedValue { type_name: SmolStr::new(type_name), bytes }
    }

    /// A value of a type that is known here.
    pub fn of<V: Typed>(value: &V) -> Self {
        TypedValue { type_name: SmolStr::new_static(V::TYPE_NAME), bytes: value.to_bytes() }
    }

    /// The value.
    ///
    /// # Errors
    ///
    /// If it is of another type, or its bytes are no value of its type.
    pub fn read<V: Typed>(&self) -> Result<V, Mismatch> {
        if self.type_name != V::TYPE_NAME {
            return Err(Mismatch::new(V::TYPE_NAME, &*self.type_name));
        }
        V::from_bytes(&self.bytes).map_err(|error| {
            Mismatch::new(V::TYPE_NAME, format!("something that is none ({error})"))
        })
    }

    /// The name of its type.
    pub fn type_name(&self) -> &str {
        &self.type_name
    }

    /// What its type makes of it.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}

impl fmt::Debug for TypedValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TypedValue({}, {:?})", self.type_name, self.bytes)
    }
}

impl<V: Typed> Carries<V> for TypedValue {
    fn pack(input: V) -> Self {
        TypedValue::of(&input)
    }

    fn unpack<R>(&self, read: impl FnOnce(&V) -> R) -> Result<R, Mismatch> {
        Ok(read(&self.read()?))
    }
}

/// A message, or a record of an egress, that remote functions can take and send.
///
/// Every [`Typed`] type is one, and so is [`TypedValue`]. [`messages!`](crate::messages) makes one of a
/// program's message enum, if it is told so with `: TypedMessage` and each variant holds one. By hand
/// it looks like this:
///
/// ```
/// use timely_statefun::{Mismatch, TypedMessage, TypedValue};
///
/// #[derive(Debug, PartialEq)]
/// enum Message { Name(String), Count(i64) }
///
/// impl TypedMessage for Message {
///     fn takes(type_name: &str) -> bool {
///         String::takes(type_name) || i64::takes(type_name)
///     }
///     fn to_typed(&self) -> Result<TypedValue, Mismatch> {
///         Ok(match self {
///             Message::Name(name) => TypedValue::of(name),
///             Message::Count(count) => TypedValue::of(count),
///         })
///     }
///     fn from_typed(value: TypedValue) -> Result<Self, Mismatch> {
///         match value.type_name() {
///             "io.statefun.types/string" => value.read().map(Message::Name),
///             "io.statefun.types/long" => value.read().map(Message::Count),
///             other => Err(Mismatch::new("a string or a long", other)),
///         }
///     }
/// }
///
/// let message = Message::Count(7);
/// assert_eq!(Message::from_typed(message.to_typed().unwrap()), Ok(message));
/// ```
pub trait TypedMessage: Sized + 'static {
    /// Whether there is something for values of the type with this name.
    fn takes(type_name: &str) -> bool;

    /// The value that remote functions get.
    ///
    /// # Errors
    ///
    /// If this is nothing that a remote function could read.
    fn to_typed(&self) -> Result<TypedValue, Mismatch>;

    /// The message, or record, of a value that a remote function sent.
    ///
    /// # Errors
    ///
    /// If the value is of a type that there is nothing for.
    fn from_typed(value: TypedValue) -> Result<Self, Mismatch>;
}

impl TypedMessage for TypedValue {
    fn takes(_: &str) -> bool {
        true
    }

    fn to_typed(&self) -> Result<TypedValue, Mismatch> {
        Ok(self.clone())
    }

    fn from_typed(value: TypedValue) -> Result<Self, Mismatch> {
        Ok(value)
    }
}

impl<V: Typed> TypedMessage for V {
    fn takes(type_name: &str) -> bool {
        type_name == V::TYPE_NAME
    }

    fn to_typed(&self) -> Result<TypedValue, Mismatch> {
        Ok(TypedValue::of(self))
    }

    fn from_typed(value: TypedValue) -> Result<Self, Mismatch> {
        value.read()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz::{fuzz, recorded, within};

    /// Reads bytes as a value of a type; whether they are one.
    fn one<V: Typed>(input: &Bytes) -> bool {
        let found = TypedValue::found(V::TYPE_NAME, input.clone());
        match within(2 * input.len(), || found.read::<V>()) {
            Ok(value) => {
                let again = TypedValue::of(&value);
                assert!(again.bytes().len() <= input.len() && again.type_name() == V::TYPE_NAME);
                let read = again.read::<V>().map(|value| value.to_bytes());
                assert_eq!(read.as_ref(), Ok(again.bytes()));
                true
            }
            Err(mismatch) => {
                let told = mismatch.to_string();
                assert!(told.contains(V::TYPE_NAME) && told.len() < 300, "{told}");
                false
            }
        }
    }

    #[test]
    fn any_bytes_are_a_value_of_a_type_or_told_to_be_none() {
        let mut inputs: Vec<_> = recorded("value_hex");
        inputs.retain(|input| input.len() < 64 && any_value(input));
        assert!(inputs.len() > 20, "{} values", inputs.len());
        fn any_value(input: &[u8]) -> bool {
            let input = Bytes::copy_from_slice(input);
            let numbers = one::<i32>(&input) | one::<i64>(&input) | one::<bool>(&input);
            numbers | one::<f32>(&input) | one::<f64>(&input) | one::<String>(&input)
        }
        fuzz("typed", 30_000, &inputs, any_value);
    }
}

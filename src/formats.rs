//! Types that are JSON or protobuf messages in other languages.

/// Makes a type [`Typed`](crate::Typed) whose values are JSON in other languages: its own name, and the
/// name of the type there.
///
/// The type is `Serialize` and `DeserializeOwned`. What [`to_bytes`](crate::Typed::to_bytes) gives is the
/// same for equal values if the type's fields come in the same order, which they do in a `BTreeMap` and
/// not in a `HashMap`.
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use timely_statefun::TypedValue;
///
/// #[derive(Debug, PartialEq, Serialize, Deserialize)]
/// struct User { name: String, logins: u32 }
///
/// timely_statefun::json_type!(User, "example/user");
///
/// let user = User { name: "Ada".to_owned(), logins: 7 };
/// let value = TypedValue::of(&user);
/// assert_eq!(&value.bytes()[..], br#"{"name":"Ada","logins":7}"#);
/// let spaced = TypedValue::new("example/user", &br#"{"logins": 7, "name": "Ada"}"#[..]).unwrap();
/// assert_eq!(spaced.read::<User>(), Ok(user));
/// ```
///
/// # Panics
///
/// Writing a value panics where the type cannot be JSON: if its `Serialize` fails, or if it is a map
/// whose keys are no text. In a function this is a failure like any other.
#[macro_export]
macro_rules! json_type {
    ($Type:ty, $name:literal $(,)?) => {
        impl $crate::Named for $Type {
            const TYPE_NAME: &'static ::core::primitive::str = $name;
        }

        impl $crate::Typed for $Type {
            fn to_bytes(&self) -> $crate::formats::Bytes {
                $crate::formats::json_bytes(self)
            }

            fn from_bytes(
                bytes: &[::core::primitive::u8],
            ) -> ::core::result::Result<Self, $crate::formats::ReadError> {
                $crate::formats::json_value(bytes)
            }
        }
    };
}

/// Makes a type [`Typed`](crate::Typed) whose values are protobuf messages in other languages: its own
/// name, and the name of the type there.
///
/// The type implements `prost::Message`, of the version of prost that [`formats`](crate::formats)
/// exports.
///
/// ```
/// use timely_statefun::{TypedValue, formats::prost};
///
/// #[derive(Clone, PartialEq, prost::Message)]
/// # #[prost(prost_path = "::timely_statefun::formats::prost")]
/// struct Order {
///     #[prost(string, tag = "1")]
///     article: String,
///     #[prost(uint32, tag = "2")]
///     pieces: u32,
/// }
///
/// timely_statefun::protobuf_type!(Order, "example/order");
///
/// let order = Order { article: "tea".to_owned(), pieces: 2 };
/// let value = TypedValue::of(&order);
/// assert_eq!(&value.bytes()[..], b"\x0a\x03tea\x10\x02");
/// assert_eq!(value.read::<Order>(), Ok(order));
/// ```
#[macro_export]
macro_rules! protobuf_type {
    ($Type:ty, $name:literal $(,)?) => {
        impl $crate::Named for $Type {
            const TYPE_NAME: &'static ::core::primitive::str = $name;
        }

        impl $crate::Typed for $Type {
            fn to_bytes(&self) -> $crate::formats::Bytes {
                $crate::formats::prost::Message::encode_to_vec(self).into()
            }

            fn from_bytes(
                bytes: &[::core::primitive::u8],
            ) -> ::core::result::Result<Self, $crate::formats::ReadError> {
                ::core::result::Result::Ok($crate::formats::prost::Message::decode(bytes)?)
            }
        }
    };
}

pub use bytes::Bytes;
pub use timely_statefun_proto::prost;

/// Why bytes are no value of a type.
pub type ReadError = Box<dyn std::error::Error + Send + Sync>;

/// A value as JSON.
#[doc(hidden)]
pub fn json_bytes<V: serde::Serialize>(value: &V) -> Bytes {
    let written = serde_json::to_vec(value);
    written.unwrap_or_else(|error| panic!("this cannot be JSON: {error}")).into()
}

/// The value of JSON.
#[doc(hidden)]
pub fn json_value<V: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<V, ReadError> {
    Ok(serde_json::from_slice(bytes)?)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fmt::Debug;

    use serde::{Deserialize, Serialize};
    use timely_statefun_proto::Message;

    use crate::Typed;
    use crate::fuzz::{fuzz, within};

    #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
    #[serde(default)]
    struct Shelf {
        name: String,
        pieces: Vec<u32>,
        prices: BTreeMap<String, i64>,
        below: Vec<Shelf>,
        over: Option<Box<Shelf>>,
    }

    json_type!(Shelf, "test/shelf");

    #[derive(Clone, PartialEq, Message)]
    #[prost(prost_path = "::timely_statefun_proto::prost")]
    struct Crate {
        #[prost(string, tag = "1")]
        name: String,
        #[prost(uint32, repeated, tag = "2")]
        pieces: Vec<u32>,
        #[prost(sint64, optional, tag = "3")]
        price: Option<i64>,
        #[prost(message, repeated, tag = "4")]
        within: Vec<Crate>,
    }

    protobuf_type!(Crate, "test/box");

    /// An empty element takes two bytes, and elements are as large as this. While a list grows, the old
    /// one and one of twice the size are there together.
    const BYTES_PER_BYTE: usize = 3 * size_of::<Shelf>();

    /// Reads any bytes as a value, which is then always written in the same way.
    fn any_value<V: Typed + PartialEq + Debug>(input: &[u8]) -> bool {
        let room = BYTES_PER_BYTE * input.len();
        let Ok(value) = within(room, || V::from_bytes(input)) else { return false };
        let bytes = value.to_bytes();
        let read = V::from_bytes(&bytes).unwrap();
        assert_eq!(read.to_bytes(), bytes);
        assert_eq!(read, value);
        true
    }

    #[test]
    fn any_bytes_are_json_or_an_error() {
        let small = Shelf { name: "tea".to_owned(), pieces: vec![1, 2], ..Shelf::default() };
        let prices = BTreeMap::from([("a".to_owned(), -1), ("ä\"".to_owned(), i64::MIN)]);
        let over = Some(Box::new(Shelf { prices, ..small.clone() }));
        let large = Shelf { below: vec![small.clone(), Shelf::default()], over, ..small.clone() };
        let mut inputs: Vec<_> = [small, large, Shelf::default()]
            .iter()
            .map(|shelf| shelf.to_bytes().to_vec())
            .collect();
        inputs.push(br#" {"pieces": [ 7 ], "below": [{}, {}], "other": [[[null]]] } "#.to_vec());
        fuzz("json", 30_000, &inputs, any_value::<Shelf>);
        assert!(Shelf::from_bytes(b"{} {}").is_err(), "it goes on after its end");
        for deep in ["[", "{\"over\":", "{\"x\":"] {
            assert!(Shelf::from_bytes(deep.repeat(100_000).as_bytes()).is_err());
        }
    }

    #[test]
    fn any_bytes_are_a_protobuf_message_or_an_error() {
        let small = Crate { name: "tea".to_owned(), pieces: vec![1, 300], ..Crate::default() };
        let inner =
            Crate { within: vec![Crate::default(); 3], price: Some(i64::MIN), ..small.clone() };
        let large = Crate { within: vec![inner.clone(), small.clone()], ..inner };
        let inputs = [small, large, Crate::default()].map(|one| one.to_bytes().to_vec());
        fuzz("protobuf", 30_000, &inputs, any_value::<Crate>);
        // Groups, of which nothing is known, in each other.
        assert!(Crate::from_bytes(&[0x0b].repeat(100_000)).is_err());
    }
}

//! Any value that is MessagePack, for who has to take it apart and put it together again without knowing
//! its type.

use std::fmt;

use bytes::Bytes;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::codec::{Codec, CodecError};

/// A value of whatever type. Written, it has the bytes that it was read from, as this library writes values.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Any {
    Nothing,
    Flag(bool),
    Signed(i64),
    Unsigned(u64),
    Short(f32),
    Long(f64),
    Text(String),
    Bytes(Vec<u8>),
    List(Vec<Any>),
    Map(Vec<(Any, Any)>),
}

impl Any {
    /// Reads what is MessagePack.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, CodecError> {
        Codec::<Any>::SERDE.read(bytes)
    }

    /// Its bytes.
    pub(super) fn bytes(&self) -> Bytes {
        let mut bytes = Vec::new();
        let written = Codec::<Any>::SERDE.write(self, &mut bytes);
        written.expect("what was read is not nested too deep to be written");
        bytes.into()
    }
}

impl Serialize for Any {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Any::Nothing => to.serialize_unit(),
            Any::Flag(flag) => to.serialize_bool(*flag),
            Any::Signed(number) => to.serialize_i64(*number),
            Any::Unsigned(number) => to.serialize_u64(*number),
            Any::Short(number) => to.serialize_f32(*number),
            Any::Long(number) => to.serialize_f64(*number),
            Any::Text(text) => to.serialize_str(text),
            Any::Bytes(bytes) => to.serialize_bytes(bytes),
            Any::List(list) => list.serialize(to),
            Any::Map(entries) => {
                let mut map = to.serialize_map(Some(entries.len()))?;
                entries.iter().try_for_each(|(key, value)| map.serialize_entry(key, value))?;
                map.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Any {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Reading)
    }
}

struct Reading;

impl<'de> Visitor<'de> for Reading {
    type Value = Any;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Any, E> {
        Ok(Any::Nothing)
    }

    fn visit_none<E>(self) -> Result<Any, E> {
        Ok(Any::Nothing)
    }

    fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<Any, D::Error> {
        from.deserialize_any(self)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Any, E> {
        Ok(Any::Flag(flag))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Any, E> {
        Ok(Any::Signed(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Any, E> {
        Ok(Any::Unsigned(number))
    }

    fn visit_f32<E>(self, number: f32) -> Result<Any, E> {
        Ok(Any::Short(number))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Any, E> {
        Ok(Any::Long(number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Any, E> {
        Ok(Any::Text(text.to_owned()))
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Any, E> {
        Ok(Any::Bytes(bytes.to_vec()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Any, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = from.next_element()? {
            list.push(item);
        }
        Ok(Any::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Any, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = from.next_entry()? {
            entries.push(entry);
        }
        Ok(Any::Map(entries))
    }
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
            assert_eq!(Any::read(input).unwrap().bytes(), input, "{input:02x?}");
        }
        fuzz("any", 30_000, &inputs, |input| {
            let Ok(any) = Any::read(input) else { return false };
            let again = Any::read(&any.bytes()).unwrap();
            // By their bytes, since some numbers do not equal themselves.
            assert_eq!(again.bytes(), any.bytes());
            true
        });
    }
}

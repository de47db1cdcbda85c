//! The bytes of a value of any serde type, between processes of one program.
//!
//! Nothing in them says what they are: whoever reads them knows the type. Numbers of 64 bits have their own
//! length; those of 32 bits, lengths and variants take one byte while they are small. That is for bytes
//! that are read at once by the same program, and never for any that are kept.
//!
//! Bytes that are no value of a type are refused. What is allocated meanwhile is bounded by the number of
//! bytes, apart from what the type itself allocates.

use std::fmt;

use serde::de::{self, DeserializeSeed, IntoDeserializer, Visitor};
use serde::{Deserialize, Serialize, ser};

use super::own_bytes;

/// Why a value cannot be written or read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error(Box<Why>);

/// On the heap, so that a result is small and stays in registers.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Why {
    Ends,
    Length,
    Number,
    Flag,
    Character,
    Text,
    Untold,
    Unsized,
    Batch,
    Left(usize),
    Other(String),
}

impl Error {
    #[cold]
    fn new(why: Why) -> Self {
        Error(Box::new(why))
    }

    /// A batch that its parts do not add up to.
    pub(super) fn of_batch() -> Self {
        Error::new(Why::Batch)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &*self.0 {
            Why::Ends => "the bytes end within a value",
            Why::Length => "a length that is no length of anything",
            Why::Number => "a number that is too large",
            Why::Flag => "something else where yes or no is wanted",
            Why::Character => "a number that is no character",
            Why::Text => "a text that is not UTF-8",
            Why::Untold => "its type wants the bytes to describe themselves, and they do not",
            Why::Unsized => "a sequence that does not know its length",
            Why::Batch => "a batch that its parts do not add up to",
            Why::Left(bytes) => return write!(f, "{bytes} bytes are left over"),
            Why::Other(why) => why,
        })
    }
}

impl std::error::Error for Error {}

impl ser::Error for Error {
    fn custom<D: fmt::Display>(why: D) -> Self {
        Error::new(Why::Other(why.to_string()))
    }
}

impl de::Error for Error {
    fn custom<D: fmt::Display>(why: D) -> Self {
        Error::new(Why::Other(why.to_string()))
    }
}

/// Adds the bytes of a value as they are between processes.
///
/// ```
/// use timely_statefun_operators::crossing;
///
/// let mut bytes = Vec::new();
/// crossing::write(&("Ada", 7_u64), &mut bytes)?;
/// assert_eq!(bytes.len(), 1 + 3 + 8);
/// assert_eq!(crossing::read::<(String, u64)>(&bytes)?, ("Ada".to_owned(), 7));
/// # Ok::<(), crossing::Error>(())
/// ```
///
/// # Errors
///
/// If the type has a sequence that does not know its length, or refuses to be written.
pub fn write<V: Serialize + ?Sized>(value: &V, to: &mut Vec<u8>) -> Result<(), Error> {
    value.serialize(&mut Writer { to, own: false })
}

/// The value of all of the bytes.
///
/// # Errors
///
/// If they are no value of the type, or it is one that wants bytes to describe themselves.
pub fn read<'a, V: Deserialize<'a>>(mut bytes: &'a [u8]) -> Result<V, Error> {
    let value = read_first(&mut bytes)?;
    match bytes.len() {
        0 => Ok(value),
        left => Err(Error::new(Why::Left(left))),
    }
}

/// The value at the beginning of the bytes, which is taken off them.
#[inline]
pub(super) fn read_first<'a, V: Deserialize<'a>>(from: &mut &'a [u8]) -> Result<V, Error> {
    let mut reader = Reader { from, own: false };
    let value = V::deserialize(&mut reader)?;
    *from = reader.from;
    Ok(value)
}

/// Adds a number that is mostly small.
#[inline]
pub(super) fn write_length(length: usize, to: &mut Vec<u8>) {
    let mut number = length as u64;
    while number >= 0x80 {
        to.push(number as u8 | 0x80);
        number >>= 7;
    }
    to.push(number as u8);
}

/// The length at the beginning of the bytes, which is taken off them.
pub(super) fn read_length(from: &mut &[u8]) -> Result<usize, Error> {
    let mut reader = Reader { from, own: false };
    let length = reader.length()?;
    *from = reader.from;
    Ok(length)
}

struct Writer<'a> {
    to: &'a mut Vec<u8>,
    /// Whether what is written now may have [bytes of its own](own_bytes).
    own: bool,
}

macro_rules! write_numbers {
    ($($method:ident: $of:ty,)*) => { $(
        #[inline]
        fn $method(self, number: $of) -> Result<(), Error> {
            self.to.extend_from_slice(&number.to_le_bytes());
            Ok(())
        }
    )* };
}

impl<'a, 'b> ser::Serializer for &'a mut Writer<'b> {
    type Ok = ();
    type Error = Error;
    type SerializeSeq = Many<'a, 'b>;
    type SerializeTuple = Self;
    type SerializeTupleStruct = Self;
    type SerializeTupleVariant = Self;
    type SerializeMap = Many<'a, 'b>;
    type SerializeStruct = Self;
    type SerializeStructVariant = Self;

    write_numbers! {
        serialize_i8: i8, serialize_i16: i16, serialize_i64: i64, serialize_i128: i128,
        serialize_u16: u16, serialize_u64: u64, serialize_u128: u128,
        serialize_f32: f32, serialize_f64: f64,
    }

    #[inline]
    fn serialize_u8(self, number: u8) -> Result<(), Error> {
        self.to.push(number);
        Ok(())
    }
    #[inline]
    fn serialize_bool(self, value: bool) -> Result<(), Error> {
        self.to.push(u8::from(value));
        Ok(())
    }
    #[inline]
    fn serialize_u32(self, number: u32) -> Result<(), Error> {
        write_length(number as usize, self.to);
        Ok(())
    }
    #[inline]
    fn serialize_i32(self, number: i32) -> Result<(), Error> {
        write_length(((number << 1) ^ (number >> 31)) as u32 as usize, self.to);
        Ok(())
    }
    fn serialize_char(self, value: char) -> Result<(), Error> {
        self.serialize_u32(u32::from(value))
    }
    #[inline]
    fn serialize_str(self, text: &str) -> Result<(), Error> {
        self.serialize_bytes(text.as_bytes())
    }
    #[inline]
    fn serialize_bytes(self, bytes: &[u8]) -> Result<(), Error> {
        write_length(bytes.len(), self.to);
        self.to.extend_from_slice(bytes);
        Ok(())
    }
    #[inline]
    fn serialize_none(self) -> Result<(), Error> {
        self.serialize_u8(0)
    }
    #[inline]
    fn serialize_some<V: Serialize + ?Sized>(self, value: &V) -> Result<(), Error> {
        self.to.push(1);
        value.serialize(self)
    }
    fn serialize_unit(self) -> Result<(), Error> {
        Ok(())
    }
    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Error> {
        Ok(())
    }
    #[inline]
    fn serialize_unit_variant(
        self,
        _: &'static str,
        number: u32,
        _: &'static str,
    ) -> Result<(), Error> {
        self.serialize_u32(number)
    }
    #[inline]
    fn serialize_newtype_struct<V: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &V,
    ) -> Result<(), Error> {
        self.own = name == own_bytes::NAME;
        value.serialize(&mut *self)?;
        self.own = false;
        Ok(())
    }
    #[inline]
    fn serialize_newtype_variant<V: Serialize + ?Sized>(
        self,
        _: &'static str,
        number: u32,
        _: &'static str,
        value: &V,
    ) -> Result<(), Error> {
        write_length(number as usize, self.to);
        value.serialize(self)
    }
    #[inline]
    fn serialize_seq(self, length: Option<usize>) -> Result<Many<'a, 'b>, Error> {
        Many::begin(self, length)
    }
    #[inline]
    fn serialize_tuple(self, _: usize) -> Result<Self, Error> {
        Ok(self)
    }
    #[inline]
    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self, Error> {
        Ok(self)
    }
    #[inline]
    fn serialize_tuple_variant(
        self,
        _: &'static str,
        number: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self, Error> {
        write_length(number as usize, self.to);
        Ok(self)
    }
    fn serialize_map(self, length: Option<usize>) -> Result<Many<'a, 'b>, Error> {
        Many::begin(self, length)
    }
    #[inline]
    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self, Error> {
        Ok(self)
    }
    #[inline]
    fn serialize_struct_variant(
        self,
        _: &'static str,
        number: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self, Error> {
        write_length(number as usize, self.to);
        Ok(self)
    }
    #[inline]
    fn is_human_readable(&self) -> bool {
        self.own
    }
}

/// Values one after the other, as many as was said.
struct Many<'a, 'b> {
    writer: &'a mut Writer<'b>,
}

impl<'a, 'b> Many<'a, 'b> {
    #[inline]
    fn begin(writer: &'a mut Writer<'b>, length: Option<usize>) -> Result<Self, Error> {
        let length = length.ok_or_else(|| Error::new(Why::Unsized))?;
        write_length(length, writer.to);
        Ok(Many { writer })
    }
}

impl ser::SerializeSeq for Many<'_, '_> {
    type Ok = ();
    type Error = Error;
    #[inline]
    fn serialize_element<V: Serialize + ?Sized>(&mut self, value: &V) -> Result<(), Error> {
        value.serialize(&mut *self.writer)
    }
    #[inline]
    fn end(self) -> Result<(), Error> {
        Ok(())
    }
}

impl ser::SerializeMap for Many<'_, '_> {
    type Ok = ();
    type Error = Error;
    fn serialize_key<V: Serialize + ?Sized>(&mut self, key: &V) -> Result<(), Error> {
        key.serialize(&mut *self.writer)
    }
    fn serialize_value<V: Serialize + ?Sized>(&mut self, value: &V) -> Result<(), Error> {
        value.serialize(&mut *self.writer)
    }
    fn end(self) -> Result<(), Error> {
        Ok(())
    }
}

macro_rules! write_fields {
    ($($of:ident::$method:ident($($name:ident: $named:ty)?);)*) => { $(
        impl ser::$of for &mut Writer<'_> {
            type Ok = ();
            type Error = Error;
            #[inline]
            fn $method<V: Serialize + ?Sized>(&mut self, $($name: $named,)? value: &V) -> Result<(), Error> {
                $(let _ = $name;)?
                value.serialize(&mut **self)
            }
            #[inline]
            fn end(self) -> Result<(), Error> {
                Ok(())
            }
        }
    )* };
}

write_fields! {
    SerializeTuple::serialize_element();
    SerializeTupleStruct::serialize_field();
    SerializeTupleVariant::serialize_field();
    SerializeStruct::serialize_field(name: &'static str);
    SerializeStructVariant::serialize_field(name: &'static str);
}

struct Reader<'de> {
    from: &'de [u8],
    /// Whether what is read now may have [bytes of its own](own_bytes).
    own: bool,
}

impl<'de> Reader<'de> {
    #[inline]
    fn take(&mut self, length: usize) -> Result<&'de [u8], Error> {
        let (taken, rest) =
            self.from.split_at_checked(length).ok_or_else(|| Error::new(Why::Ends))?;
        self.from = rest;
        Ok(taken)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let (taken, rest) = self.from.split_first_chunk().ok_or_else(|| Error::new(Why::Ends))?;
        self.from = rest;
        Ok(*taken)
    }

    #[inline]
    fn byte(&mut self) -> Result<u8, Error> {
        let (byte, rest) = self.from.split_first().ok_or_else(|| Error::new(Why::Ends))?;
        self.from = rest;
        Ok(*byte)
    }

    /// A number of at most 64 bits.
    #[inline]
    fn number(&mut self) -> Result<u64, Error> {
        let first = self.byte()?;
        if first < 0x80 { Ok(u64::from(first)) } else { self.longer(first) }
    }

    fn longer(&mut self, first: u8) -> Result<u64, Error> {
        let mut number = u64::from(first & 0x7f);
        for shift in (7..64).step_by(7) {
            let byte = self.byte()?;
            if shift == 63 && byte > 1 {
                break;
            }
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(Error::new(Why::Number))
    }

    #[inline]
    fn short(&mut self) -> Result<u32, Error> {
        u32::try_from(self.number()?).map_err(|_| Error::new(Why::Number))
    }

    #[inline]
    fn length(&mut self) -> Result<usize, Error> {
        usize::try_from(self.number()?).map_err(|_| Error::new(Why::Length))
    }

    #[inline]
    fn text(&mut self) -> Result<&'de str, Error> {
        let length = self.length()?;
        std::str::from_utf8(self.take(length)?).map_err(|_| Error::new(Why::Text))
    }

    #[inline]
    fn is_there(&mut self) -> Result<bool, Error> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Error::new(Why::Flag)),
        }
    }
}

macro_rules! read_numbers {
    ($($method:ident: $visit:ident, $of:ty;)*) => { $(
        #[inline]
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            visitor.$visit(<$of>::from_le_bytes(self.array()?))
        }
    )* };
}

impl<'de> de::Deserializer<'de> for &mut Reader<'de> {
    type Error = Error;

    read_numbers! {
        deserialize_i8: visit_i8, i8;
        deserialize_i16: visit_i16, i16;
        deserialize_i64: visit_i64, i64;
        deserialize_i128: visit_i128, i128;
        deserialize_u16: visit_u16, u16;
        deserialize_u64: visit_u64, u64;
        deserialize_u128: visit_u128, u128;
        deserialize_f32: visit_f32, f32;
        deserialize_f64: visit_f64, f64;
    }

    #[inline]
    fn deserialize_u8<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_u8(self.byte()?)
    }
    #[inline]
    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_bool(self.is_there()?)
    }
    #[inline]
    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_u32(self.short()?)
    }
    #[inline]
    fn deserialize_i32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let number = self.short()?;
        visitor.visit_i32((number >> 1) as i32 ^ -((number & 1) as i32))
    }
    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let number = self.short()?;
        let value = char::from_u32(number).ok_or_else(|| Error::new(Why::Character))?;
        visitor.visit_char(value)
    }
    #[inline]
    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_borrowed_str(self.text()?)
    }
    #[inline]
    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_borrowed_str(self.text()?)
    }
    #[inline]
    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let length = self.length()?;
        visitor.visit_borrowed_bytes(self.take(length)?)
    }
    #[inline]
    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_bytes(visitor)
    }
    #[inline]
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.is_there()? { visitor.visit_some(self) } else { visitor.visit_none() }
    }
    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }
    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }
    #[inline]
    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.own = name == own_bytes::NAME;
        let value = visitor.visit_newtype_struct(&mut *self)?;
        self.own = false;
        Ok(value)
    }
    #[inline]
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let left = self.length()?;
        visitor.visit_seq(Items { reader: self, left })
    }
    #[inline]
    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        left: usize,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_seq(Items { reader: self, left })
    }
    #[inline]
    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        left: usize,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_seq(Items { reader: self, left })
    }
    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let left = self.length()?;
        visitor.visit_map(Items { reader: self, left })
    }
    #[inline]
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_seq(Items { reader: self, left: fields.len() })
    }
    #[inline]
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_enum(self)
    }
    fn deserialize_identifier<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        Err(Error::new(Why::Untold))
    }
    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        Err(Error::new(Why::Untold))
    }
    fn deserialize_ignored_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        Err(Error::new(Why::Untold))
    }
    #[inline]
    fn is_human_readable(&self) -> bool {
        self.own
    }
}

struct Items<'a, 'de> {
    reader: &'a mut Reader<'de>,
    left: usize,
}

impl<'de> de::SeqAccess<'de> for Items<'_, 'de> {
    type Error = Error;
    #[inline]
    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Error> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        seed.deserialize(&mut *self.reader).map(Some)
    }
    // What takes bytes takes one at least.
    #[inline]
    fn size_hint(&self) -> Option<usize> {
        Some(self.left.min(self.reader.from.len()))
    }
}

impl<'de> de::MapAccess<'de> for Items<'_, 'de> {
    type Error = Error;
    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Error> {
        de::SeqAccess::next_element_seed(self, seed)
    }
    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Error> {
        seed.deserialize(&mut *self.reader)
    }
    fn size_hint(&self) -> Option<usize> {
        Some(self.left.min(self.reader.from.len()))
    }
}

impl<'de> de::EnumAccess<'de> for &mut Reader<'de> {
    type Error = Error;
    type Variant = Self;
    #[inline]
    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), Error> {
        let number = self.short()?;
        Ok((seed.deserialize(IntoDeserializer::<Error>::into_deserializer(number))?, self))
    }
}

impl<'de> de::VariantAccess<'de> for &mut Reader<'de> {
    type Error = Error;
    fn unit_variant(self) -> Result<(), Error> {
        Ok(())
    }
    #[inline]
    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Error> {
        seed.deserialize(self)
    }
    #[inline]
    fn tuple_variant<V: Visitor<'de>>(self, left: usize, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_seq(Items { reader: self, left })
    }
    #[inline]
    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_seq(Items { reader: self, left: fields.len() })
    }
}

#[cfg(test)]
mod tests;

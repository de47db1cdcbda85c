//! As much of protobuf's wire format as the commands need: numbers, texts and messages as fields.
//!
//! It knows no message. Fields that are the default are not written, as in proto3.

/// Bytes that are no message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("the bytes end within a field")]
    Short,
    #[error("a number has more than 64 bits")]
    LongNumber,
    #[error("there is no field {0} of this kind")]
    Field(u64),
    #[error("a text is not UTF-8")]
    NotText,
    #[error("a command says nothing")]
    NoCommand,
}

/// What stands in a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content<'a> {
    Number(u64),
    /// A text or a message.
    Bytes(&'a [u8]),
    /// A number of fixed size, which no command has.
    Fixed,
}

const NUMBER: u64 = 0;
const FIXED_64: u64 = 1;
const BYTES: u64 = 2;
const FIXED_32: u64 = 5;

fn write_varint(to: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        to.push(value as u8 | 0x80);
        value >>= 7;
    }
    to.push(value as u8);
}

/// Writes an int32, an int64 or a bool. Negative numbers take ten bytes.
pub fn write_number(to: &mut Vec<u8>, field: u64, value: i64) {
    if value != 0 {
        write_varint(to, field << 3 | NUMBER);
        write_varint(to, value as u64);
    }
}

pub fn write_text(to: &mut Vec<u8>, field: u64, text: &str) {
    if !text.is_empty() {
        write_message(to, field, text.as_bytes());
    }
}

/// Writes a message, also one that has no bytes: that it is there says something.
pub fn write_message(to: &mut Vec<u8>, field: u64, message: &[u8]) {
    write_varint(to, field << 3 | BYTES);
    write_varint(to, message.len() as u64);
    to.extend_from_slice(message);
}

/// The fields of a message, in the order in which they stand, with their numbers.
pub fn fields(message: &[u8]) -> impl Iterator<Item = Result<(u64, Content<'_>), Malformed>> {
    let mut left = message;
    std::iter::from_fn(move || {
        if left.is_empty() {
            return None;
        }
        let field = read_field(&mut left);
        if field.is_err() {
            left = &[];
        }
        Some(field)
    })
}

fn read_field<'a>(left: &mut &'a [u8]) -> Result<(u64, Content<'a>), Malformed> {
    let tag = read_varint(left)?;
    let content = match tag & 7 {
        NUMBER => Content::Number(read_varint(left)?),
        BYTES => {
            let length = read_varint(left)?;
            Content::Bytes(take(left, usize::try_from(length).map_err(|_| Malformed::Short)?)?)
        }
        FIXED_32 => take(left, 4).map(|_| Content::Fixed)?,
        FIXED_64 => take(left, 8).map(|_| Content::Fixed)?,
        _ => return Err(Malformed::Field(tag >> 3)),
    };
    match tag >> 3 {
        0 => Err(Malformed::Field(0)),
        field => Ok((field, content)),
    }
}

fn read_varint(left: &mut &[u8]) -> Result<u64, Malformed> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = left.split_first().ok_or(Malformed::Short)?;
        *left = rest;
        // Nine bytes leave room for one bit.
        if shift == 63 && *byte > 1 {
            break;
        }
        value |= u64::from(byte & 0x7f) << shift;
        if *byte < 0x80 {
            return Ok(value);
        }
    }
    Err(Malformed::LongNumber)
}

fn take<'a>(left: &mut &'a [u8], length: usize) -> Result<&'a [u8], Malformed> {
    let (taken, rest) = left.split_at_checked(length).ok_or(Malformed::Short)?;
    *left = rest;
    Ok(taken)
}

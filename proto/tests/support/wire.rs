//! Protobuf's wire format, written and read by hand after its published description.
//!
//! It shares no code with what is tested. It knows no messages, only numbers and kinds of fields.

use super::Random;

/// The fields of a message, in order: each with its number.
pub type Fields = Vec<(u32, Field)>;

/// What a field holds, as far as it can be seen, or as it is to be written.
#[derive(Clone, Debug, PartialEq)]
pub enum Field {
    /// A number of up to 64 bits, a truth value or an enum.
    Varint(u64),
    /// A number of 64 bits, or the bits of one.
    Fixed64(u64),
    /// A number of 32 bits, or the bits of one.
    Fixed32(u32),
    /// Bytes or text; when it was read, perhaps a message.
    Bytes(Vec<u8>),
    /// A message of which there is at most one. Never read.
    Message(Fields),
    /// A message of which there may be many. Never read.
    Element(Fields),
    /// What protobuf had before messages within messages. Never read.
    Group(Fields),
}

impl Field {
    fn is_default(&self) -> bool {
        match self {
            Field::Varint(number) | Field::Fixed64(number) => *number == 0,
            Field::Fixed32(number) => *number == 0,
            Field::Bytes(bytes) => bytes.is_empty(),
            Field::Message(_) | Field::Element(_) | Field::Group(_) => false,
        }
    }

    /// Another one of the same kind.
    fn other(&self, random: &mut Random) -> Field {
        match self {
            Field::Varint(_) => Field::Varint(random.number()),
            Field::Fixed64(_) => Field::Fixed64(random.number()),
            Field::Fixed32(_) => Field::Fixed32(random.number() as u32),
            Field::Bytes(_) => Field::Bytes(random.text().into_bytes()),
            messages => messages.clone(),
        }
    }
}

fn write_varint(mut number: u64, out: &mut Vec<u8>) {
    while number > 0x7f {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// The bytes of a message with these fields, in this order, all of them.
pub fn write(fields: &Fields) -> Vec<u8> {
    let mut out = Vec::new();
    for (number, field) in fields {
        let mut tag = |kind: u64| write_varint(u64::from(*number) << 3 | kind, &mut out);
        match field {
            Field::Varint(value) => {
                tag(0);
                write_varint(*value, &mut out);
            }
            Field::Fixed64(value) => {
                tag(1);
                out.extend(value.to_le_bytes());
            }
            Field::Fixed32(value) => {
                tag(5);
                out.extend(value.to_le_bytes());
            }
            Field::Bytes(bytes) => {
                tag(2);
                write_varint(bytes.len() as u64, &mut out);
                out.extend(bytes);
            }
            Field::Message(inner) | Field::Element(inner) => {
                tag(2);
                let bytes = write(inner);
                write_varint(bytes.len() as u64, &mut out);
                out.extend(bytes);
            }
            Field::Group(inner) => {
                tag(3);
                out.extend(write(inner));
                write_varint(u64::from(*number) << 3 | 4, &mut out);
            }
        }
    }
    out
}

/// The same fields without those that are the default of their kind, in every message.
#[allow(dead_code)]
pub fn canonical(fields: &Fields) -> Fields {
    let there = fields.iter().filter(|(_, field)| !field.is_default());
    let each = there.map(|(number, field)| {
        let field = match field {
            Field::Message(inner) => Field::Message(canonical(inner)),
            Field::Element(inner) => Field::Element(canonical(inner)),
            other => other.clone(),
        };
        (*number, field)
    });
    each.collect()
}

/// The fields of a message, in the order of its bytes. None if they are no message.
#[allow(dead_code)]
pub fn read(mut bytes: &[u8]) -> Option<Fields> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let tag = read_varint(&mut bytes)?;
        let field = match tag & 7 {
            0 => Field::Varint(read_varint(&mut bytes)?),
            1 => Field::Fixed64(u64::from_le_bytes(take(&mut bytes, 8)?.try_into().ok()?)),
            2 => {
                let length = read_varint(&mut bytes)?;
                Field::Bytes(take(&mut bytes, length.try_into().ok()?)?.to_vec())
            }
            5 => Field::Fixed32(u32::from_le_bytes(take(&mut bytes, 4)?.try_into().ok()?)),
            _ => return None,
        };
        fields.push(((tag >> 3).try_into().ok()?, field));
    }
    Some(fields)
}

fn read_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let byte = take(bytes, 1)?[0];
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}

/// Other fields that mean the same: in another order, some of them given before with something else,
/// single messages in pieces, defaults written out or not, and fields that nobody knows.
pub fn disturbed(fields: &Fields, random: &mut Random) -> Fields {
    let mut more = Vec::new();
    for (number, field) in fields {
        match field {
            Field::Message(inner) => {
                let mut first = disturbed(inner, random);
                if random.once_in(2) {
                    let second = first.split_off(random.below(first.len() + 1));
                    more.push((*number, Field::Message(first)));
                    more.push((*number, Field::Message(second)));
                } else {
                    more.push((*number, Field::Message(first)));
                }
            }
            Field::Element(inner) => {
                more.push((*number, Field::Element(disturbed(inner, random))));
            }
            scalar if scalar.is_default() && random.once_in(2) => {}
            scalar => {
                if random.once_in(3) {
                    more.push((*number, scalar.other(random)));
                }
                more.push((*number, scalar.clone()));
            }
        }
    }
    while random.once_in(3) {
        let number = random.one_of(&[20, 99, 102, 1_000, (1 << 29) - 1]);
        more.push((number, unknown(random)));
    }
    shuffled(more, random)
}

fn unknown(random: &mut Random) -> Field {
    match random.below(5) {
        0 => Field::Varint(random.number()),
        1 => Field::Fixed64(random.number()),
        2 => Field::Fixed32(random.number() as u32),
        3 => Field::Bytes(random.bytes()),
        _ => Field::Group(vec![(1, Field::Varint(random.number())), (2, unknown(random))]),
    }
}

/// Another order, but for fields of one number: theirs has a meaning.
fn shuffled(fields: Fields, random: &mut Random) -> Fields {
    let mut numbers: Vec<_> = fields.iter().map(|(number, _)| *number).collect();
    for at in (1..numbers.len()).rev() {
        numbers.swap(at, random.below(at + 1));
    }
    let mut left = fields;
    let next = |number| left.remove(left.iter().position(|(of, _)| *of == number).unwrap());
    numbers.into_iter().map(next).collect()
}

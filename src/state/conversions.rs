//! What becomes of states that are stored otherwise than they are declared: which are read as what, and
//! which are left out.
//!
//! A conversion is between bytes: those of the old type are read, converted, and written as the new type's,
//! and then restored as if they had been stored so. So it is the same for a state that is declared and for
//! one that is kept as bytes until it is registered.

use std::fmt;
use std::sync::Arc;

use super::declared::{Declared, Kind};
use super::record::{StateHeader, Tag};
use super::restore::RestoreError;
use crate::codec::{Codec, CodecError};
use crate::records::{Reader, put_varint, put_with_length};

type Convert = dyn Fn(&[u8], &mut Vec<u8>) -> Result<(), CodecError> + Send + Sync;

/// How what is stored of one state is read as another one.
#[derive(Clone)]
pub(crate) struct Conversion {
    pub(crate) from: Declared,
    pub(crate) to: Declared,
    convert: Arc<Convert>,
}

impl Conversion {
    /// Between two states of one kind, whose units (values of a value or a table, or elements of a buffer)
    /// have these codecs.
    pub(crate) fn new<O: 'static, V: 'static>(
        (from, old): (Declared, &'static Codec<O>),
        (to, new): (Declared, &'static Codec<V>),
        convert: impl Fn(O) -> Result<V, CodecError> + Send + Sync + 'static,
    ) -> Self {
        let convert = move |bytes: &[u8], out: &mut Vec<u8>| {
            let old = old.read(bytes)?;
            let converted = crate::codec::caught(|| convert(old))?;
            new.write(&converted, out)
        };
        Conversion { from, to, convert: Arc::new(convert) }
    }
}

/// All that a function says of this.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Conversions {
    pub(crate) converted: Vec<Conversion>,
    /// Names of states, and of the types of their values.
    pub(crate) discarded: Vec<(String, String)>,
}

/// The conversions of one stored state, one after the other; most often none.
#[derive(Clone, Default)]
pub(super) struct Steps(Vec<Arc<Convert>>);

/// What a stored state is restored as.
pub(super) enum Restored {
    As(StateHeader, Steps),
    LeftOut,
}

impl Conversions {
    /// What is restored of a state that is stored so. One that was converted may be converted again.
    pub(super) fn of(&self, stored: &StateHeader) -> Result<Restored, RestoreError> {
        let (mut header, mut steps) = (stored.clone(), Steps::default());
        loop {
            let named =
                |(name, of): &(String, String)| *name == header.name && *of == header.type_name;
            if self.discarded.iter().any(named) {
                return Ok(Restored::LeftOut);
            }
            let mut known = self.converted.iter();
            let is_it = |known: &&Conversion| {
                known.from.is_called(&header.name) && known.from.stores(&header)
            };
            let Some(next) = known.find(is_it) else { return Ok(Restored::As(header, steps)) };
            if steps.0.len() == self.converted.len() {
                return Err(RestoreError::Circle(stored.name.clone()));
            }
            steps.0.push(Arc::clone(&next.convert));
            // How long what is stored lives was said with it.
            let StateHeader { lifetime_ms, counts_reads, .. } = header;
            header = StateHeader { lifetime_ms, counts_reads, ..next.to.header() };
        }
    }
}

impl Steps {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds the bytes of a value, as its new type has them.
    fn convert(&self, value: &[u8], to: &mut Vec<u8>) -> Result<(), CodecError> {
        let Some((last, first)) = self.0.split_last() else {
            to.extend_from_slice(value);
            return Ok(());
        };
        let mut between = value.to_vec();
        for step in first {
            let mut next = Vec::new();
            step(&between, &mut next)?;
            between = next;
        }
        last(&between, to)
    }

    /// The content of a record, as it would have been stored with the new type.
    pub(super) fn content(
        &self,
        tag: Tag,
        expires: bool,
        mut content: Reader<'_>,
    ) -> Result<Vec<u8>, CodecError> {
        let mut to = Vec::new();
        match tag {
            Tag::Cleared | Tag::Removed => to.extend_from_slice(content.rest()),
            Tag::Value => {
                if expires {
                    put_varint(&mut to, content.varint()?);
                }
                self.convert(content.rest(), &mut to)?;
            }
            Tag::Entry => {
                if expires {
                    put_varint(&mut to, content.varint()?);
                }
                let key = content.with_length()?;
                put_varint(&mut to, key.len() as u64);
                to.extend_from_slice(key);
                self.convert(content.rest(), &mut to)?;
            }
            Tag::Elements => {
                // The first that is left, what reading did to deadlines, and the first of the record.
                for _ in 0..if expires { 4 } else { 2 } {
                    put_varint(&mut to, content.varint()?);
                }
                while !content.is_empty() {
                    if expires {
                        put_varint(&mut to, content.varint()?);
                    }
                    let count = content.varint()?;
                    put_varint(&mut to, count);
                    for _ in 0..count {
                        let element = content.with_length()?;
                        put_with_length(&mut to, |to| self.convert(element, to))?;
                    }
                }
            }
        }
        Ok(to)
    }
}

impl PartialEq for Conversion {
    /// Whether one is a clone of the other.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.convert, &other.convert)
    }
}

impl fmt::Debug for Conversion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Conversion({} to {})", self.from, self.to)
    }
}

/// What a state is, for those who confuse two.
impl fmt::Display for Declared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let StateHeader { name, kind, key_type, type_name, .. } = self.header();
        match kind {
            Kind::Table => write!(f, "{kind} \"{name}\" of \"{key_type}\" to \"{type_name}\""),
            Kind::Value | Kind::Buffer => write!(f, "{kind} \"{name}\" of \"{type_name}\""),
        }
    }
}

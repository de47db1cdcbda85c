//! What a function declares that it keeps, and whether what it uses fits that.

use std::any::{Any, type_name};
use std::borrow::Cow;
use std::fmt;
use std::hash::Hash;

use bytes::Bytes;

use super::buffer::BufferColumn;
use super::column::{AnyColumn, Column};
use super::expiring::ExpiringColumn;
use super::record::StateHeader;
use super::restore::RestoreError;
use super::table::TableColumn;
use crate::address;
use crate::buffer::BufferSpec;
use crate::codec::Codec;
use crate::dead_letter::Reason;
use crate::error::{self, Error};
use crate::expiration::Expiration;
use crate::table::TableSpec;
use crate::value::ValueSpec;

/// What the names of built-in types begin with. What is stored under them is read by every language.
const BUILT_IN: &str = "io.statefun.types/";

/// A spec, whatever it is of and with its types forgotten: what it says, and the column for it.
#[derive(Copy, Clone)]
pub(crate) struct Wanted<'n> {
    pub(super) kind: Kind,
    pub(super) name: &'n str,
    /// The name of a table's keys; empty for other kinds.
    pub(super) key_type: &'n str,
    pub(super) type_name: &'n str,
    pub(super) expiration: Expiration,
    /// What Rust calls the types. Two of one name can only be told apart by this.
    rust_type: fn() -> String,
    codecs: Codecs,
    column: fn(Expiration, Codecs) -> Box<dyn AnyColumn>,
}

/// The codecs of a state's types, which a column of these types knows: of a table's keys and its values,
/// otherwise twice the same.
type Codecs = [AnyCodec; 2];

#[derive(Copy, Clone)]
struct AnyCodec {
    codec: &'static (dyn Any + Send + Sync),
    is_built_in: fn(Self) -> bool,
}

impl AnyCodec {
    #[inline]
    fn new<V: 'static>(codec: &'static Codec<V>) -> Self {
        AnyCodec { codec, is_built_in: |any| any.of::<V>().is_built_in() }
    }

    fn of<V: 'static>(self) -> &'static Codec<V> {
        self.codec.downcast_ref().expect("a column has the types of its spec")
    }
}

/// What kind of state a state is.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Value,
    Table,
    Buffer,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Value => "value",
            Kind::Table => "table",
            Kind::Buffer => "buffer",
        })
    }
}

impl<'n, V: 'static> From<ValueSpec<V, &'n str>> for Wanted<'n> {
    #[inline]
    fn from(spec: ValueSpec<V, &'n str>) -> Self {
        Wanted {
            kind: Kind::Value,
            name: spec.name(),
            key_type: "",
            type_name: spec.type_name(),
            expiration: spec.expiration(),
            rust_type: || type_name::<V>().to_owned(),
            codecs: [AnyCodec::new(spec.codec()); 2],
            column: value_column::<V>,
        }
    }
}

impl<'n, K: Hash + Eq + 'static, V: 'static> From<TableSpec<K, V, &'n str>> for Wanted<'n> {
    fn from(spec: TableSpec<K, V, &'n str>) -> Self {
        Wanted {
            kind: Kind::Table,
            name: spec.name(),
            key_type: spec.key_type(),
            type_name: spec.value_type(),
            expiration: spec.expiration(),
            rust_type: || format!("{} to {}", type_name::<K>(), type_name::<V>()),
            codecs: [AnyCodec::new(spec.codecs().0), AnyCodec::new(spec.codecs().1)],
            column: table_column::<K, V>,
        }
    }
}

impl<'n, E: 'static> From<BufferSpec<E, &'n str>> for Wanted<'n> {
    fn from(spec: BufferSpec<E, &'n str>) -> Self {
        Wanted {
            kind: Kind::Buffer,
            name: spec.name(),
            key_type: "",
            type_name: spec.type_name(),
            expiration: spec.expiration(),
            rust_type: || type_name::<E>().to_owned(),
            codecs: [AnyCodec::new(spec.codec()); 2],
            column: buffer_column::<E>,
        }
    }
}

fn value_column<V: 'static>(expiration: Expiration, [codec, _]: Codecs) -> Box<dyn AnyColumn> {
    match expiration.is_never() {
        true => Box::new(Column::<V>::new(codec.of())),
        false => Box::new(ExpiringColumn::<V>::new(expiration, codec.of())),
    }
}

fn table_column<K: Hash + Eq + 'static, V: 'static>(
    expiration: Expiration,
    [keys, values]: Codecs,
) -> Box<dyn AnyColumn> {
    Box::new(TableColumn::<K, V>::new(expiration, (keys.of(), values.of())))
}

fn buffer_column<E: 'static>(expiration: Expiration, [codec, _]: Codecs) -> Box<dyn AnyColumn> {
    Box::new(BufferColumn::<E>::new(expiration, codec.of()))
}

/// A piece of state that is declared: makes its column. Nothing outside this crate can do anything with it.
#[derive(Clone)]
pub struct Declared {
    pub(crate) name: Cow<'static, str>,
    pub(super) kind: Kind,
    pub(super) key_type: Cow<'static, str>,
    pub(crate) type_name: Cow<'static, str>,
    pub(crate) expiration: Expiration,
    rust_type: fn() -> String,
    codecs: Codecs,
    column: fn(Expiration, Codecs) -> Box<dyn AnyColumn>,
}

impl Declared {
    pub(crate) fn new(spec: impl Into<Wanted<'static>>) -> Self {
        let wanted = spec.into();
        Declared {
            name: Cow::Borrowed(wanted.name),
            kind: wanted.kind,
            key_type: Cow::Borrowed(wanted.key_type),
            type_name: Cow::Borrowed(wanted.type_name),
            expiration: wanted.expiration,
            rust_type: wanted.rust_type,
            codecs: wanted.codecs,
            column: wanted.column,
        }
    }

    /// A state whose names were found out at run time.
    pub(super) fn owned(wanted: &Wanted<'_>) -> Self {
        let owned = |name: &str| Cow::Owned(name.to_owned());
        Declared {
            name: owned(wanted.name),
            kind: wanted.kind,
            key_type: owned(wanted.key_type),
            type_name: owned(wanted.type_name),
            expiration: wanted.expiration,
            rust_type: wanted.rust_type,
            codecs: wanted.codecs,
            column: wanted.column,
        }
    }

    /// A state that is stored and not declared, as whatever bytes it was stored as.
    pub(super) fn orphan(header: &StateHeader) -> Self {
        Declared {
            name: Cow::Owned(header.name.clone()),
            kind: header.kind,
            key_type: Cow::Owned(header.key_type.clone()),
            type_name: Cow::Owned(header.type_name.clone()),
            expiration: header.expiration(),
            rust_type: || "bytes".to_owned(),
            codecs: [AnyCodec::new(Codec::RAW); 2],
            column: match header.kind {
                Kind::Value => value_column::<Bytes>,
                Kind::Table => table_column::<Bytes, Bytes>,
                Kind::Buffer => buffer_column::<Bytes>,
            },
        }
    }

    /// What is stored beside records.
    pub(super) fn header(&self) -> StateHeader {
        StateHeader {
            name: self.name.clone().into_owned(),
            kind: self.kind,
            key_type: self.key_type.clone().into_owned(),
            type_name: self.type_name.clone().into_owned(),
            lifetime_ms: self.expiration.lifetime_ms(),
            counts_reads: self.expiration.counts_reads(),
        }
    }

    /// Whether something that is stored under its name is of its kind and its types.
    pub(super) fn stores(&self, header: &StateHeader) -> bool {
        self.kind == header.kind
            && self.key_type == header.key_type
            && self.type_name == header.type_name
    }

    /// Whether it has the name, the kind and the types of another.
    pub(crate) fn is_like(&self, other: &Declared) -> bool {
        self.name == other.name
            && self.kind == other.kind
            && self.key_type == other.key_type
            && self.type_name == other.type_name
    }

    /// Whether something that is wanted by its name is of its kind and its types.
    pub(super) fn stores_as(&self, wanted: &Wanted<'_>) -> bool {
        self.kind == wanted.kind
            && same(&self.type_name, wanted.type_name)
            && same(&self.key_type, wanted.key_type)
    }

    /// The same as [`stores`](Self::stores).
    ///
    /// # Errors
    ///
    /// What differs.
    pub(super) fn check_stored(&self, header: &StateHeader) -> Result<(), RestoreError> {
        let state = header.name.clone();
        if self.kind != header.kind {
            let (stored, declared) = (header.kind.to_string(), self.kind.to_string());
            return Err(RestoreError::StateKind { state, stored, declared });
        }
        if !self.stores(header) {
            let stored = names(&header.key_type, &header.type_name);
            let declared = names(&self.key_type, &self.type_name);
            return Err(RestoreError::StateType { state, stored, declared });
        }
        Ok(())
    }

    /// Checks its names and its expiration.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong with them.
    pub(crate) fn check(&self) -> Result<(), Error> {
        address::check_part("state", &self.name)?;
        if self.kind == Kind::Table {
            address::check("key type", &self.key_type)?;
        }
        address::check("state type", &self.type_name)?;
        for (name, codec) in [&self.key_type, &self.type_name].into_iter().zip(self.codecs) {
            if name.starts_with(BUILT_IN) && !(codec.is_built_in)(codec) {
                let (what, name) = ("state type", name.clone().into_owned());
                let why = "it is that of a built-in type, which this is not";
                return Err(error::Kind::InvalidName { what, name, why }.into());
            }
        }
        match self.expiration.fault() {
            None => Ok(()),
            Some(why) => {
                let state = self.name.clone().into_owned();
                Err(error::Kind::InvalidExpiration { state, why }.into())
            }
        }
    }

    /// Whether a state is this one, of the same types and with the same expiration.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.is_like(other)
            && self.expiration == other.expiration
            && (*self.column()).type_id() == (*other.column()).type_id()
    }

    /// Why another state of its name is not the same.
    pub(super) fn differs(&self, other: &Self) -> Box<Reason> {
        self.misfit(&Wanted {
            kind: other.kind,
            name: &other.name,
            key_type: &other.key_type,
            type_name: &other.type_name,
            expiration: other.expiration,
            rust_type: other.rust_type,
            codecs: other.codecs,
            column: other.column,
        })
    }

    /// The codec of its values, or of its elements.
    pub(super) fn codec<V: 'static>(&self) -> &'static Codec<V> {
        self.codecs[1].of()
    }

    /// The codecs of a table's keys and its values.
    pub(super) fn codecs<K: 'static, V: 'static>(&self) -> (&'static Codec<K>, &'static Codec<V>) {
        (self.codecs[0].of(), self.codecs[1].of())
    }

    pub(super) fn column(&self) -> Box<dyn AnyColumn> {
        (self.column)(self.expiration, self.codecs)
    }

    #[inline]
    pub(super) fn is_called(&self, name: &str) -> bool {
        same(&self.name, name)
    }

    #[inline]
    pub(super) fn has_type(&self, type_name: &str) -> bool {
        same(&self.type_name, type_name)
    }

    /// Whether something that is wanted by this name is this, as far as names tell.
    pub(super) fn fits(&self, wanted: &Wanted<'_>) -> bool {
        self.stores_as(wanted) && self.expiration == wanted.expiration
    }

    /// Why something that is wanted by this name is not this.
    #[cold]
    pub(super) fn misfit(&self, wanted: &Wanted<'_>) -> Box<Reason> {
        let state: Box<str> = self.name.as_ref().into();
        let declared = names(&self.key_type, &self.type_name);
        let used = names(wanted.key_type, wanted.type_name);
        Box::new(if self.kind != wanted.kind {
            let (declared, used) = (self.kind.to_string(), wanted.kind.to_string());
            Reason::StateKind { state, declared: declared.into(), used: used.into() }
        } else if declared != used {
            Reason::StateType { state, declared: declared.into(), used: used.into() }
        } else if self.expiration != wanted.expiration {
            let (declared, used) = (self.expiration, wanted.expiration);
            let (declared, used) = (format!("{declared:?}"), format!("{used:?}"));
            Reason::StateExpiration { state, declared: declared.into(), used: used.into() }
        } else {
            let (declared, used) = ((self.rust_type)(), (wanted.rust_type)());
            Reason::StateType { state, declared: declared.into(), used: used.into() }
        })
    }
}

/// Whether two names are the same; most often they are the same constant.
#[inline]
fn same(one: &str, other: &str) -> bool {
    std::ptr::eq(one, other) || one == other
}

/// The names of the types of keys, if there are any, and values.
fn names(key_type: &str, type_name: &str) -> String {
    match key_type {
        "" => type_name.to_owned(),
        _ => format!("{key_type} to {type_name}"),
    }
}

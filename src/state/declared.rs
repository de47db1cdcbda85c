//! What a function declares that it keeps, and whether what it uses fits that.

use std::any::type_name;
use std::borrow::Cow;
use std::fmt;
use std::hash::Hash;

use super::buffer::BufferColumn;
use super::column::{AnyColumn, Column};
use super::expiring::ExpiringColumn;
use super::table::TableColumn;
use crate::address;
use crate::buffer::BufferSpec;
use crate::dead_letter::Reason;
use crate::error::{self, Error};
use crate::expiration::Expiration;
use crate::table::TableSpec;
use crate::value::ValueSpec;

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
    column: fn(Expiration) -> Box<dyn AnyColumn>,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
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
            column: |expiration| match expiration.is_never() {
                true => Box::new(Column::<V>::new()),
                false => Box::new(ExpiringColumn::<V>::new(expiration)),
            },
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
            column: |expiration| Box::new(TableColumn::<K, V>::new(expiration)),
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
            column: |expiration| Box::new(BufferColumn::<E>::new(expiration)),
        }
    }
}

/// A piece of state that is declared: makes its column.
#[derive(Clone)]
pub(crate) struct Declared {
    pub(crate) name: Cow<'static, str>,
    kind: Kind,
    key_type: Cow<'static, str>,
    pub(crate) type_name: Cow<'static, str>,
    pub(crate) expiration: Expiration,
    rust_type: fn() -> String,
    column: fn(Expiration) -> Box<dyn AnyColumn>,
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
            column: wanted.column,
        }
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
        match self.expiration.fault() {
            None => Ok(()),
            Some(why) => {
                let state = self.name.clone().into_owned();
                Err(error::Kind::InvalidExpiration { state, why }.into())
            }
        }
    }

    pub(super) fn column(&self) -> Box<dyn AnyColumn> {
        (self.column)(self.expiration)
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
        self.kind == wanted.kind
            && same(&self.type_name, wanted.type_name)
            && same(&self.key_type, wanted.key_type)
            && self.expiration == wanted.expiration
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

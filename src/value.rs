//! The named, typed pieces of state that a function keeps for each of its addresses.

use std::fmt;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use timely_statefun_proto::type_names;

use crate::codec::Codec;
use crate::expiration::Expiration;
use crate::typed::Typed;

/// What can be kept as a value.
///
/// Everything that can be written and read again; nothing needs to be implemented. Stored, it is
/// MessagePack that names the fields of structs, so a type may get new fields, if they have a
/// `#[serde(default)]`; for any other change give it another type name.
///
/// As in JSON, `Some(None)` is read as `None`, and so is `Some(())`. A value may be nested 256 deep; one
/// that is nested deeper, such as a long list of boxes, can be written and not be read again.
pub trait Value: Serialize + DeserializeOwned + 'static {}

impl<V: Serialize + DeserializeOwned + 'static> Value for V {}

/// A type whose name is kept with the values of it. Types of one's own are named with
/// [`ValueSpec::typed`].
pub trait Named: Sized + 'static {
    /// The name. It is stored, so it must never change.
    const TYPE_NAME: &'static str;

    /// How values of a type are stored that is built into the SDKs of all languages.
    #[doc(hidden)]
    const BUILT_IN: Option<&'static Codec<Self>> = None;
}

macro_rules! named {
    ($($of:ty => $name:expr,)*) => { $(impl Named for $of { const TYPE_NAME: &'static str = $name; })* };
}

macro_rules! built_in {
    ($($of:ty => $name:expr,)*) => { $(
        impl Named for $of {
            const TYPE_NAME: &'static str = $name;
            const BUILT_IN: Option<&'static Codec<Self>> = Some(Codec::BUILT_IN);
        }
    )* };
}

built_in! {
    bool => type_names::BOOL,
    i32 => type_names::INT,
    i64 => type_names::LONG,
    f32 => type_names::FLOAT,
    f64 => type_names::DOUBLE,
    String => type_names::STRING,
}

named! {
    i8 => "rust/i8",
    i16 => "rust/i16",
    i128 => "rust/i128",
    u8 => "rust/u8",
    u16 => "rust/u16",
    u32 => "rust/u32",
    u64 => "rust/u64",
    u128 => "rust/u128",
    char => "rust/char",
    () => "rust/unit",
}

/// A value that a function keeps for each address: its name, its type, and the type's name.
///
/// ```
/// use timely_statefun::ValueSpec;
///
/// const SEEN: ValueSpec<u64> = ValueSpec::new("seen");
/// assert_eq!((SEEN.name(), SEEN.type_name()), ("seen", "rust/u64"));
/// ```
///
/// `N` is the kind of reference the names are. Specs that are declared are constants, which is what
/// `ValueSpec<u64>` says; one for a [registry](crate::Function::registry) may borrow a name that is
/// found out at run time.
///
/// ```
/// # use timely_statefun::ValueSpec;
/// let name = format!("seen-{}", 2025);
/// let seen = ValueSpec::<u64, _>::new(&name);
/// assert_eq!(seen.name(), "seen-2025");
/// ```
pub struct ValueSpec<V: 'static, N = &'static str> {
    name: N,
    type_name: N,
    expiration: Expiration,
    codec: &'static Codec<V>,
}

impl<'n, V: Named + Value> ValueSpec<V, &'n str> {
    /// A value of a type that has a name. The name of the value is checked where it is declared.
    pub const fn new(name: &'n str) -> Self {
        match V::BUILT_IN {
            Some(codec) => Self::stored(name, V::TYPE_NAME, codec),
            None => Self::typed(name, V::TYPE_NAME),
        }
    }
}

impl<'n, V: Value> ValueSpec<V, &'n str> {
    /// A value of a type of one's own, which is called `type_name` (`namespace/name`) wherever it
    /// is kept. Both names are checked where the value is declared.
    pub const fn typed(name: &'n str, type_name: &'n str) -> Self {
        Self::stored(name, type_name, Codec::SERDE)
    }
}

impl<'n, V: Typed> ValueSpec<V, &'n str> {
    /// A value of a type that other languages read as well, and that is stored as the bytes it has
    /// there. A function that keeps only such values, and those of built-in types, finds its state
    /// again when it is served by another language, and the other way round.
    ///
    /// ```
    /// use serde::{Deserialize, Serialize};
    /// use timely_statefun::ValueSpec;
    ///
    /// #[derive(Serialize, Deserialize)]
    /// struct User { name: String }
    /// timely_statefun::json_type!(User, "example/user");
    ///
    /// const USER: ValueSpec<User> = ValueSpec::shared("user");
    /// assert_eq!(USER.type_name(), "example/user");
    /// ```
    pub const fn shared(name: &'n str) -> Self {
        match V::BUILT_IN {
            Some(codec) => Self::stored(name, V::TYPE_NAME, codec),
            None => Self::stored(name, V::TYPE_NAME, Codec::TYPED),
        }
    }
}

impl<'n> ValueSpec<Bytes, &'n str> {
    /// A value of whatever type, as the bytes that others made of it.
    pub(crate) const fn raw(name: &'n str, type_name: &'n str) -> Self {
        Self::stored(name, type_name, Codec::RAW)
    }
}

impl<'n, V: 'static> ValueSpec<V, &'n str> {
    const fn stored(name: &'n str, type_name: &'n str, codec: &'static Codec<V>) -> Self {
        ValueSpec { name, type_name, expiration: Expiration::never(), codec }
    }

    pub(crate) const fn codec(&self) -> &'static Codec<V> {
        self.codec
    }

    /// The same value, which lives only for some time. Default: [`Expiration::never`].
    #[must_use]
    pub const fn expiring(mut self, expiration: Expiration) -> Self {
        self.expiration = expiration;
        self
    }

    /// The name of the value, unique in its function.
    pub const fn name(&self) -> &'n str {
        self.name
    }

    /// The name of its type.
    pub const fn type_name(&self) -> &'n str {
        self.type_name
    }

    /// How long it lives.
    pub const fn expiration(&self) -> Expiration {
        self.expiration
    }
}

impl<V: 'static, N: Copy> Clone for ValueSpec<V, N> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<V: 'static, N: Copy> Copy for ValueSpec<V, N> {}

impl<V: 'static, N: fmt::Debug> fmt::Debug for ValueSpec<V, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ValueSpec({:?}, {:?}, {:?})", self.name, self.type_name, self.expiration)
    }
}

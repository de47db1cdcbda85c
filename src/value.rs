//! The named, typed pieces of state that a function keeps for each of its addresses.

use std::fmt;
use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;
use timely_statefun_proto::type_names;

/// What can be kept as a value.
///
/// Everything that can be written and read again; nothing needs to be implemented.
pub trait Value: Serialize + DeserializeOwned + 'static {}

impl<V: Serialize + DeserializeOwned + 'static> Value for V {}

/// A type whose name is kept with the values of it. Types of one's own are named with
/// [`ValueSpec::typed`].
pub trait Named {
    /// The name. It is stored, so it must never change.
    const TYPE_NAME: &'static str;
}

macro_rules! named {
    ($($of:ty => $name:expr,)*) => { $(impl Named for $of { const TYPE_NAME: &'static str = $name; })* };
}

named! {
    bool => type_names::BOOL,
    i32 => type_names::INT,
    i64 => type_names::LONG,
    f32 => type_names::FLOAT,
    f64 => type_names::DOUBLE,
    String => type_names::STRING,
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
pub struct ValueSpec<V> {
    name: &'static str,
    type_name: &'static str,
    value: PhantomData<fn() -> V>,
}

impl<V: Named> ValueSpec<V> {
    /// A value of a type that has a name. The name of the value is checked where it is declared.
    pub const fn new(name: &'static str) -> Self {
        ValueSpec { name, type_name: V::TYPE_NAME, value: PhantomData }
    }
}

impl<V> ValueSpec<V> {
    /// A value of a type of one's own, which is called `type_name` (`namespace/name`) wherever it
    /// is kept. Both names are checked where the value is declared.
    pub const fn typed(name: &'static str, type_name: &'static str) -> Self {
        ValueSpec { name, type_name, value: PhantomData }
    }

    /// The name of the value, unique in its function.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// The name of its type.
    pub const fn type_name(&self) -> &'static str {
        self.type_name
    }
}

impl<V> Clone for ValueSpec<V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<V> Copy for ValueSpec<V> {}

impl<V> fmt::Debug for ValueSpec<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ValueSpec({:?}, {:?})", self.name, self.type_name)
    }
}

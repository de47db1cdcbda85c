//! Specs of whichever kind of state, where something is said of what they have in common.

use std::hash::Hash;

use crate::buffer::BufferSpec;
use crate::codec::{Codec, CodecError};
use crate::state::{Conversion, Declared};
use crate::table::TableSpec;
use crate::value::ValueSpec;

/// The spec of a value, a table or a buffer, which says of what type the values are that are kept.
///
/// Nothing else is one.
pub trait StateSpec: Spec {
    /// What two states must have in common for one to become the other: the kind of state, and the type of a
    /// table's keys.
    type Shape;
}

pub(crate) use sealed::Spec;
use sealed::{OfBuffer, OfTable, OfValue};

mod sealed {
    use std::marker::PhantomData;

    use super::{Codec, Declared};

    pub struct OfValue;
    pub struct OfTable<K>(PhantomData<K>);
    pub struct OfBuffer;

    pub trait Spec: Copy {
        /// What is kept: the value, the value of an entry, or an element.
        type Kept: 'static;

        #[doc(hidden)]
        fn declared(self) -> Declared;
        #[doc(hidden)]
        fn kept(self) -> &'static Codec<Self::Kept>;
    }
}

/// How what is stored of one state becomes what is kept of another.
pub(crate) fn conversion<O: Spec, S: Spec>(
    from: O,
    to: S,
    convert: impl Fn(O::Kept) -> Result<S::Kept, CodecError> + Send + Sync + 'static,
) -> Conversion {
    Conversion::new((from.declared(), from.kept()), (to.declared(), to.kept()), convert)
}

impl<V: 'static> StateSpec for ValueSpec<V> {
    type Shape = OfValue;
}

impl<V: 'static> Spec for ValueSpec<V> {
    type Kept = V;

    fn declared(self) -> Declared {
        Declared::new(self)
    }

    fn kept(self) -> &'static Codec<V> {
        self.codec()
    }
}

impl<K: Hash + Eq + 'static, V: 'static> StateSpec for TableSpec<K, V> {
    type Shape = OfTable<K>;
}

impl<K: Hash + Eq + 'static, V: 'static> Spec for TableSpec<K, V> {
    type Kept = V;

    fn declared(self) -> Declared {
        Declared::new(self)
    }

    fn kept(self) -> &'static Codec<V> {
        self.codecs().1
    }
}

impl<E: 'static> StateSpec for BufferSpec<E> {
    type Shape = OfBuffer;
}

impl<E: 'static> Spec for BufferSpec<E> {
    type Kept = E;

    fn declared(self) -> Declared {
        Declared::new(self)
    }

    fn kept(self) -> &'static Codec<E> {
        self.codec()
    }
}

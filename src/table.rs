//! Tables: maps that a function keeps, one for each address.

use std::fmt;

use crate::codec::Codec;
use crate::expiration::Expiration;
use crate::value::{Named, Value};

/// A table that a function keeps for each address: a map of which each entry is read and written by
/// itself.
///
/// What a write costs depends on the entry and not on the table, also when an invocation fails and
/// is undone, and however many entries there are. Each entry [expires](Self::expiring) by itself.
///
/// ```
/// use timely_statefun::{Context, FunctionResult, TableSpec};
///
/// /// How many of each thing there are.
/// const STOCK: TableSpec<String, u64> = TableSpec::new("stock");
///
/// fn deliver(context: &mut Context<'_, String>, thing: &String) -> FunctionResult {
///     let mut stock = context.table(STOCK);
///     stock.update(thing.clone(), |pieces| *pieces += 1);
///     println!("there are {} of {} things", stock.values().sum::<u64>(), stock.len());
///     Ok(())
/// }
/// ```
pub struct TableSpec<K: 'static, V: 'static, N = &'static str> {
    name: N,
    key_type: N,
    value_type: N,
    expiration: Expiration,
    keys: &'static Codec<K>,
    values: &'static Codec<V>,
}

impl<'n, K: Named + Value, V: Named + Value> TableSpec<K, V, &'n str> {
    /// A table of keys and values whose types have names. The name of the table is checked where it
    /// is declared.
    pub const fn new(name: &'n str) -> Self {
        let mut spec = Self::typed(name, K::TYPE_NAME, V::TYPE_NAME);
        if let Some(codec) = K::BUILT_IN {
            spec.keys = codec;
        }
        if let Some(codec) = V::BUILT_IN {
            spec.values = codec;
        }
        spec
    }
}

impl<'n, K: Value, V: Value> TableSpec<K, V, &'n str> {
    /// A table of types of one's own, which are called `key_type` and `value_type`
    /// (`namespace/name`) wherever it is kept. All names are checked where the table is declared.
    pub const fn typed(name: &'n str, key_type: &'n str, value_type: &'n str) -> Self {
        let expiration = Expiration::never();
        let (keys, values) = (Codec::SERDE, Codec::SERDE);
        TableSpec { name, key_type, value_type, expiration, keys, values }
    }
}

impl<'n, K: 'static, V: 'static> TableSpec<K, V, &'n str> {
    pub(crate) const fn codecs(&self) -> (&'static Codec<K>, &'static Codec<V>) {
        (self.keys, self.values)
    }

    /// The same table, whose entries live only for some time, each by itself. Default:
    /// [`Expiration::never`].
    #[must_use]
    pub const fn expiring(mut self, expiration: Expiration) -> Self {
        self.expiration = expiration;
        self
    }

    /// The name of the table, unique in its function.
    pub const fn name(&self) -> &'n str {
        self.name
    }

    /// The name of the type of its keys.
    pub const fn key_type(&self) -> &'n str {
        self.key_type
    }

    /// The name of the type of its values.
    pub const fn value_type(&self) -> &'n str {
        self.value_type
    }

    /// How long its entries live.
    pub const fn expiration(&self) -> Expiration {
        self.expiration
    }
}

impl<K: 'static, V: 'static, N: Copy> Clone for TableSpec<K, V, N> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K: 'static, V: 'static, N: Copy> Copy for TableSpec<K, V, N> {}

impl<K: 'static, V: 'static, N: fmt::Debug> fmt::Debug for TableSpec<K, V, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let TableSpec { name, key_type, value_type, expiration, .. } = self;
        write!(f, "TableSpec({name:?}, {key_type:?}, {value_type:?}, {expiration:?})")
    }
}

//! The table of an address, as a function sees it.

use std::borrow::Borrow;
use std::fmt;
use std::hash::Hash;

use super::Context;
use crate::state::TableAt;
use crate::table::TableSpec;

impl<M, T: Clone + PartialEq + 'static> Context<'_, M, T> {
    /// The table this address keeps, which may be empty.
    pub fn table<K: Hash + Eq + 'static, V: 'static>(
        &mut self,
        spec: TableSpec<K, V, &str>,
    ) -> Table<'_, K, V> {
        match self.state.table(self.cursor, &self.head.target, spec) {
            Ok(table) => Table(Some(table)),
            Err(mistake) => {
                self.mistake.get_or_insert(*mistake);
                Table(None)
            }
        }
    }
}

/// The table that an address keeps, while it handles a message.
///
/// Where the function uses a table in a way that does not fit how it declares it, reads find nothing,
/// writes have no effect, and the invocation fails.
///
/// In which order entries come is not specified. It follows from what was done with the table and
/// from what expired; it is not random.
pub struct Table<'a, K: 'static, V: 'static>(Option<TableAt<'a, K, V>>);

impl<K: Hash + Eq + 'static, V: 'static> Table<'_, K, V> {
    /// The value of a key, if there is one.
    pub fn get<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.0.as_mut()?.get(key)
    }

    /// Whether there is a value for a key. This counts as reading it.
    pub fn contains_key<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.get(key).is_some()
    }

    /// Keeps a value for a key, in place of the one there was. Says whether there was none.
    pub fn insert(&mut self, key: K, value: V) -> bool {
        self.0.as_mut().is_some_and(|table| table.insert(key, value))
    }

    /// Changes the value of a key, starting from the default where there is none, and returns what
    /// it became. The value is cloned, as with [`Context::update`].
    pub fn update(&mut self, key: K, change: impl FnOnce(&mut V)) -> V
    where
        V: Clone + Default,
    {
        let mut value = self.get(&key).cloned().unwrap_or_default();
        change(&mut value);
        self.insert(key, value.clone());
        value
    }

    /// Keeps nothing for a key any more. Says whether there was something.
    pub fn remove<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.0.as_mut().is_some_and(|table| table.remove(key))
    }

    /// Keeps nothing any more. This takes no longer for many entries than for few.
    pub fn clear(&mut self) {
        if let Some(table) = &mut self.0 {
            table.clear();
        }
    }

    /// How many entries there are. This reads none of them. In a table that expires, while entries
    /// have expired that nobody has looked after yet, it takes time for each entry.
    pub fn len(&self) -> usize {
        self.0.as_ref().map_or(0, TableAt::len)
    }

    /// Whether there is no entry. This reads none of them.
    pub fn is_empty(&self) -> bool {
        self.0.as_ref().is_none_or(TableAt::is_empty)
    }

    /// All entries. Where reads put [expiry](crate::Expiration) off, this is a read of all of them,
    /// however far one goes.
    pub fn iter(&mut self) -> impl Iterator<Item = (&K, &V)> {
        self.0.iter_mut().flat_map(TableAt::iter)
    }

    /// All keys, otherwise like [`iter`](Self::iter).
    pub fn keys(&mut self) -> impl Iterator<Item = &K> {
        self.iter().map(|(key, _)| key)
    }

    /// All values, otherwise like [`iter`](Self::iter).
    pub fn values(&mut self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }
}

impl<K: 'static, V: 'static> fmt::Debug for Table<'_, K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").field("fits", &self.0.is_some()).finish_non_exhaustive()
    }
}

//! Records from values of Rust's: what a function's state would be, without dealing in bytes.

use std::cell::RefCell;
use std::hash::Hash;
use std::sync::Arc;

use bytes::Bytes;

use super::error::ArchiveError;
use super::record::{
    Content, Kind, MessageRecord, Record, Standing, StateInfo, StateRecord, Stored, Waits,
};
use crate::address::{Address, Id, TypeName};
use crate::buffer::BufferSpec;
use crate::clock::Clock;
use crate::codec::Codec;
use crate::expiration::Expiration;
use crate::message::Envelope;
use crate::table::TableSpec;
use crate::typed::TypedValue;
use crate::value::{Value, ValueSpec};

/// Makes records for the functions of one name, with the specs with which these declare their state.
///
/// ```
/// use timely_statefun::archive::Draft;
/// use timely_statefun::{FunctionType, TableSpec};
///
/// const SHOP: FunctionType<String> = FunctionType::new("example/shop");
/// const STOCK: TableSpec<String, u64> = TableSpec::new("stock");
///
/// let draft = Draft::of("shops");
/// let record = draft.entry(SHOP, "Berlin", STOCK, &"pen".to_owned(), &7)?;
/// assert_eq!(record.to_string(), r#"an entry of the table "stock" of "example/shop Berlin""#);
/// # Ok::<(), timely_statefun::archive::ArchiveError>(())
/// ```
pub struct Draft {
    set: Arc<str>,
    now_ms: u64,
    /// The states that there were so far.
    states: RefCell<Vec<Arc<StateInfo>>>,
}

impl Draft {
    /// For the functions that are [named](crate::Functions::named) so, which are "functions" if they are not.
    pub fn of(set: &str) -> Self {
        let (set, now_ms) = (set.into(), Clock::system().now_ms());
        Draft { set, now_ms, states: RefCell::default() }
    }

    /// When state that expires was written, in milliseconds since the beginning of 1970. Default: now.
    #[must_use]
    pub fn written_at(mut self, now_ms: u64) -> Self {
        self.now_ms = now_ms;
        self
    }

    /// A value of an address.
    ///
    /// # Errors
    ///
    /// If it cannot be written, or is the first of its state and cannot be read again.
    pub fn value<V: 'static>(
        &self,
        function: impl Into<TypeName>,
        id: impl Into<Id>,
        spec: ValueSpec<V, &str>,
        value: &V,
    ) -> Result<Record, ArchiveError> {
        let names = (spec.name(), "", spec.type_name());
        let (state, is_new) = self.state(Kind::Value, names, spec.expiration());
        let value = self.stored(&state, &bytes_of(&state, spec.codec(), value, is_new)?);
        Ok(self.record(function, id, state, Content::Value(value)))
    }

    /// An entry of the table of an address.
    ///
    /// # Errors
    ///
    /// As for [`value`](Self::value).
    pub fn entry<K: Hash + Eq + 'static, V: 'static>(
        &self,
        function: impl Into<TypeName>,
        id: impl Into<Id>,
        spec: TableSpec<K, V, &str>,
        key: &K,
        value: &V,
    ) -> Result<Record, ArchiveError> {
        let names = (spec.name(), spec.key_type(), spec.value_type());
        let (state, is_new) = self.state(Kind::Entry, names, spec.expiration());
        let (keys, values) = spec.codecs();
        let key = bytes_of(&state, keys, key, is_new)?;
        let value = self.stored(&state, &bytes_of(&state, values, value, is_new)?);
        Ok(self.record(function, id, state, Content::Entry { key, value }))
    }

    /// The buffer of an address, with these elements, of which there must be one.
    ///
    /// # Errors
    ///
    /// As for [`value`](Self::value).
    pub fn buffer<'e, E: 'static>(
        &self,
        function: impl Into<TypeName>,
        id: impl Into<Id>,
        spec: BufferSpec<E, &str>,
        elements: impl IntoIterator<Item = &'e E>,
    ) -> Result<Record, ArchiveError> {
        let names = (spec.name(), "", spec.type_name());
        let (state, mut is_new) = self.state(Kind::Buffer, names, spec.expiration());
        let elements = elements.into_iter().map(|element| {
            let bytes = bytes_of(&state, spec.codec(), element, std::mem::take(&mut is_new))?;
            Ok(self.stored(&state, &bytes))
        });
        let elements = elements.collect::<Result<_, ArchiveError>>()?;
        Ok(self.record(function, id, state, Content::Buffer(elements)))
    }

    /// A value of an address of a [remote](crate::Functions::remote) function, under the name by which that asks
    /// for it. It lives as long as the function says.
    ///
    /// # Errors
    ///
    /// None now; what is wrong with names is found when it is written.
    pub fn remote(
        &self,
        function: impl Into<TypeName>,
        id: impl Into<Id>,
        name: &str,
        expiration: Expiration,
        value: &TypedValue,
    ) -> Result<Record, ArchiveError> {
        let (state, _) = self.state(Kind::Value, (name, "", value.type_name()), expiration);
        let value = self.stored(&state, value.bytes());
        Ok(self.record(function, id, state, Content::Value(value)))
    }

    /// A message that is delivered when it is due: so many milliseconds after the beginning of 1970, or as soon as
    /// the program runs. Whom the envelope names as caller has sent it. `M` is the program's message type.
    ///
    /// # Errors
    ///
    /// If the message cannot be written.
    pub fn delayed<M: Value>(
        &self,
        envelope: &Envelope<M>,
        due_ms: u64,
    ) -> Result<Record, ArchiveError> {
        self.message(envelope, due_ms, None)
    }

    /// The same of one that its caller can take back by a token.
    ///
    /// # Errors
    ///
    /// As for [`delayed`](Self::delayed).
    pub fn delayed_with_token<M: Value>(
        &self,
        envelope: &Envelope<M>,
        due_ms: u64,
        token: &str,
    ) -> Result<Record, ArchiveError> {
        self.message(envelope, due_ms, Some(token))
    }

    fn message<M: Value>(
        &self,
        envelope: &Envelope<M>,
        due_ms: u64,
        token: Option<&str>,
    ) -> Result<Record, ArchiveError> {
        let mut message = Vec::new();
        let written = Codec::<M>::SERDE.store(&envelope.message, &mut message, true);
        written.map_err(|why| {
            ArchiveError::invalid(format!("a message for \"{}\"", envelope.target), why.to_string())
        })?;
        Ok(Record::Message(MessageRecord {
            set: Arc::clone(&self.set),
            waits: Waits::Delayed { due_ms, token: token.map(str::to_owned) },
            target: envelope.target.clone(),
            is_bound: true,
            caller: envelope.caller.clone(),
            depth: 0,
            standing: Standing::Event,
            message: message.into(),
        }))
    }

    fn record(
        &self,
        function: impl Into<TypeName>,
        id: impl Into<Id>,
        state: Arc<StateInfo>,
        content: Content,
    ) -> Record {
        let (set, address) = (Arc::clone(&self.set), Address::new(function.into(), id));
        Record::State(StateRecord { set, address, state, content })
    }

    fn stored(&self, state: &StateInfo, bytes: &Bytes) -> Stored {
        let expiration = state.expiration;
        let deadline_ms = (!expiration.is_never()).then(|| expiration.written(self.now_ms));
        Stored { bytes: bytes.clone(), deadline_ms }
    }

    /// A state by what a spec says of it, and whether it is the first time.
    fn state(
        &self,
        kind: Kind,
        (name, key_type, type_name): (&str, &str, &str),
        expiration: Expiration,
    ) -> (Arc<StateInfo>, bool) {
        let mut states = self.states.borrow_mut();
        let identity = (name, kind, key_type, type_name);
        let is_it = |state: &&Arc<StateInfo>| {
            state.identity() == identity && state.expiration == expiration
        };
        if let Some(state) = states.iter().find(is_it) {
            return (Arc::clone(state), false);
        }
        let (name, key_type) = (name.to_owned(), key_type.to_owned());
        let type_name = type_name.to_owned();
        let state = Arc::new(StateInfo { name, kind, key_type, type_name, expiration });
        states.push(Arc::clone(&state));
        (state, true)
    }
}

/// The bytes of something that a state has.
pub(super) fn bytes_of<V>(
    state: &StateInfo,
    codec: &Codec<V>,
    value: &V,
    reads_back: bool,
) -> Result<Bytes, ArchiveError> {
    let mut bytes = Vec::new();
    let stored = codec.store(value, &mut bytes, reads_back);
    stored.map_err(|why| {
        ArchiveError::invalid(format!("something of state \"{}\"", state.name), why.to_string())
    })?;
    Ok(bytes.into())
}

impl std::fmt::Debug for Draft {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Draft").field(&self.set).finish()
    }
}

//! What is to become of records on the way from one snapshot into another.

use std::error::Error as StdError;
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use bytes::Bytes;

use super::draft::bytes_of;
use super::error::{ArchiveError, Kind as ErrorKind};
use super::record::{Content, Kind, Record, StateInfo, StateRecord, Stored};
use crate::address::TypeName;
use crate::buffer::BufferSpec;
use crate::clock::Clock;
use crate::codec::Codec;
use crate::expiration::Expiration;
use crate::table::TableSpec;
use crate::value::ValueSpec;

/// Why a function that changes something failed.
type Failure = Box<dyn StdError + Send + Sync>;

type Step = Box<dyn Fn(Record) -> Result<Option<Record>, ArchiveError>>;

/// Changes to records, which are made in the order in which they are given here.
///
/// ```
/// # use timely_statefun::archive::{Archive, ArchiveError, Changes};
/// # use timely_statefun::{FunctionType, ValueSpec};
/// const ACCOUNT: FunctionType<i64> = FunctionType::new("bank/account");
/// const EUROS: ValueSpec<f64> = ValueSpec::new("balance");
/// const CENTS: ValueSpec<i64> = ValueSpec::new("cents");
///
/// /// Has balances in cents from here on, and forgets the audits.
/// fn migrate(archive: &Archive) -> Result<(), ArchiveError> {
///     let changes = Changes::new()
///         .convert_value(ACCOUNT, EUROS, CENTS, |euros| Ok((euros * 100.0).round() as i64))
///         .drop_function(FunctionType::<()>::new("bank/audit"));
///     let snapshot = archive.newest()?;
///     let mut writer = archive.writer(snapshot.description()).branch();
///     for record in changes.of(snapshot.records()) {
///         writer.push(record?)?;
///     }
///     writer.finish()?;
///     Ok(())
/// }
/// ```
#[derive(Default)]
pub struct Changes {
    steps: Vec<Step>,
}

impl Changes {
    /// None yet.
    pub fn new() -> Self {
        Changes::default()
    }

    /// Makes any change to each record, or drops it with `None`.
    #[must_use]
    pub fn map(
        mut self,
        change: impl Fn(Record) -> Result<Option<Record>, ArchiveError> + 'static,
    ) -> Self {
        self.steps.push(Box::new(change));
        self
    }

    /// Calls a set of functions otherwise.
    #[must_use]
    pub fn rename_set(self, from: &str, to: &str) -> Self {
        let (from, to): (String, Arc<str>) = (from.to_owned(), to.into());
        self.map(move |mut record| {
            if record.set() == from {
                let set = match &mut record {
                    Record::State(record) => &mut record.set,
                    Record::Message(record) => &mut record.set,
                    Record::Held(record) => &mut record.set,
                };
                *set = Arc::clone(&to);
            }
            Ok(Some(record))
        })
    }

    /// Calls a function type otherwise: with its state, and with messages for it and from it.
    #[must_use]
    pub fn rename_function(self, from: impl Into<TypeName>, to: impl Into<TypeName>) -> Self {
        let (from, to): (TypeName, TypeName) = (from.into(), to.into());
        let rename = move |name: &mut TypeName| {
            if *name == from {
                *name = to.clone();
            }
        };
        self.map(move |mut record| {
            match &mut record {
                Record::State(record) => rename(&mut record.address.function_type),
                Record::Message(record) => {
                    rename(&mut record.target.function_type);
                    record.caller.iter_mut().for_each(|caller| rename(&mut caller.function_type));
                }
                Record::Held(_) => {}
            }
            Ok(Some(record))
        })
    }

    /// Drops all state of a function type, and all messages for it.
    #[must_use]
    pub fn drop_function(self, function: impl Into<TypeName>) -> Self {
        let function = function.into();
        self.map(move |record| Ok((record.function_type() != Some(&function)).then_some(record)))
    }

    /// Calls a state of a function type otherwise.
    #[must_use]
    pub fn rename_state(self, function: impl Into<TypeName>, from: &str, to: &str) -> Self {
        let to = to.to_owned();
        let renamed = Cached::new();
        self.states(function, from, None, move |mut record| {
            record.state =
                renamed.of(&record.state, |state| StateInfo { name: to.clone(), ..state.clone() });
            Ok(Some(record))
        })
    }

    /// Drops a state of a function type.
    #[must_use]
    pub fn drop_state(self, function: impl Into<TypeName>, state: &str) -> Self {
        self.states(function, state, None, |_| Ok(None))
    }

    /// Makes of each value of a state one of another, which may have another name, type and expiration.
    ///
    /// A state that did not expire, and is to, counts as written now; one that did, and is not to, stays
    /// where it is not over.
    #[must_use]
    pub fn convert_value<V: 'static, W: 'static>(
        self,
        function: impl Into<TypeName>,
        from: ValueSpec<V>,
        to: ValueSpec<W>,
        convert: impl Fn(V) -> Result<W, Failure> + 'static,
    ) -> Self {
        let info = info(Kind::Value, (to.name(), "", to.type_name()), to.expiration());
        let types = (Kind::Value, "", from.type_name());
        let now_ms = Clock::system().now_ms();
        self.states(function, from.name(), Some(types), move |record| {
            let Content::Value(value) = &record.content else { unreachable!("it is of its kind") };
            let Some(deadline_ms) = deadline(value, to.expiration(), now_ms) else {
                return Ok(None);
            };
            let converted = converted(&record, from.codec(), &value.bytes, &convert)?;
            let bytes = bytes_of(&info, to.codec(), &converted, false)?;
            let content = Content::Value(Stored { bytes, deadline_ms });
            Ok(Some(StateRecord { state: Arc::clone(&info), content, ..record }))
        })
    }

    /// Makes of each entry of a table one of another. Two that become entries of the same key are an error
    /// when they are written.
    #[must_use]
    pub fn convert_table<K, V, L, W>(
        self,
        function: impl Into<TypeName>,
        from: TableSpec<K, V>,
        to: TableSpec<L, W>,
        convert: impl Fn(K, V) -> Result<(L, W), Failure> + 'static,
    ) -> Self
    where
        K: Hash + Eq + 'static,
        V: 'static,
        L: Hash + Eq + 'static,
        W: 'static,
    {
        let names = (to.name(), to.key_type(), to.value_type());
        let info = info(Kind::Entry, names, to.expiration());
        let types = (Kind::Entry, from.key_type(), from.value_type());
        let now_ms = Clock::system().now_ms();
        self.states(function, from.name(), Some(types), move |record| {
            let Content::Entry { key, value } = &record.content else {
                unreachable!("it is of its kind")
            };
            let Some(deadline_ms) = deadline(value, to.expiration(), now_ms) else {
                return Ok(None);
            };
            let key = converted(&record, from.codecs().0, key, &Ok)?;
            let value = converted(&record, from.codecs().1, &value.bytes, &Ok)?;
            let (key, value) = convert(key, value).map_err(|source| failed(&record, source))?;
            let key = bytes_of(&info, to.codecs().0, &key, false)?;
            let bytes = bytes_of(&info, to.codecs().1, &value, false)?;
            let content = Content::Entry { key, value: Stored { bytes, deadline_ms } };
            Ok(Some(StateRecord { state: Arc::clone(&info), content, ..record }))
        })
    }

    /// Makes of each element of a buffer one of another.
    #[must_use]
    pub fn convert_buffer<D: 'static, E: 'static>(
        self,
        function: impl Into<TypeName>,
        from: BufferSpec<D>,
        to: BufferSpec<E>,
        convert: impl Fn(D) -> Result<E, Failure> + 'static,
    ) -> Self {
        let info = info(Kind::Buffer, (to.name(), "", to.type_name()), to.expiration());
        let types = (Kind::Buffer, "", from.type_name());
        let now_ms = Clock::system().now_ms();
        self.states(function, from.name(), Some(types), move |record| {
            let Content::Buffer(elements) = &record.content else {
                unreachable!("it is of its kind")
            };
            let mut content = Vec::with_capacity(elements.len());
            for element in elements {
                let Some(deadline_ms) = deadline(element, to.expiration(), now_ms) else {
                    continue;
                };
                let converted = converted(&record, from.codec(), &element.bytes, &convert)?;
                let bytes = bytes_of(&info, to.codec(), &converted, false)?;
                content.push(Stored { bytes, deadline_ms });
            }
            if content.is_empty() {
                return Ok(None);
            }
            let content = Content::Buffer(content);
            Ok(Some(StateRecord { state: Arc::clone(&info), content, ..record }))
        })
    }

    /// Makes other bytes of each value of a state, of a type of this name: what a
    /// [remote](crate::Functions::remote) function keeps.
    #[must_use]
    pub fn convert_bytes(
        self,
        function: impl Into<TypeName>,
        state: &str,
        type_name: &str,
        convert: impl Fn(&Bytes) -> Result<Bytes, Failure> + 'static,
    ) -> Self {
        let type_name = type_name.to_owned();
        let retyped = Cached::new();
        self.states(function, state, None, move |mut record| {
            let Content::Value(value) = &record.content else { return Ok(Some(record)) };
            let bytes = convert(&value.bytes).map_err(|source| failed(&record, source))?;
            let deadline_ms = value.deadline_ms;
            record.state = retyped.of(&record.state, |state| StateInfo {
                type_name: type_name.clone(),
                ..state.clone()
            });
            record.content = Content::Value(Stored { bytes, deadline_ms });
            Ok(Some(record))
        })
    }

    /// Changes the records of one state, which is of this kind and these types if they are given.
    fn states(
        self,
        function: impl Into<TypeName>,
        state: &str,
        types: Option<(Kind, &str, &str)>,
        change: impl Fn(StateRecord) -> Result<Option<StateRecord>, ArchiveError> + 'static,
    ) -> Self {
        let (function, state) = (function.into(), state.to_owned());
        let types = types.map(|(kind, key, value)| (kind, key.to_owned(), value.to_owned()));
        self.map(move |record| match record {
            Record::State(record)
                if record.address.function_type == function && record.state.name == state =>
            {
                let StateInfo { kind, key_type, type_name, .. } = &*record.state;
                if let Some((of, key, value)) = &types
                    && (kind, key_type, type_name) != (of, key, value)
                {
                    let why = format!(
                        "it is stored as {} and not as {}",
                        described(*kind, key_type, type_name),
                        described(*of, key, value)
                    );
                    return Err(failed(&record, why.into()));
                }
                Ok(change(record)?.map(Record::State))
            }
            record => Ok(Some(record)),
        })
    }

    /// What becomes of a record; `None` if it is dropped.
    ///
    /// # Errors
    ///
    /// If a function that changes it [fails](ArchiveError::is_conversion), or what is stored is not what it
    /// takes.
    pub fn apply(&self, record: Record) -> Result<Option<Record>, ArchiveError> {
        let mut record = Some(record);
        for step in &self.steps {
            let Some(before) = record else { break };
            record = step(before)?;
        }
        Ok(record)
    }

    /// What becomes of all records.
    pub fn of<'c>(
        &'c self,
        records: impl IntoIterator<Item = Result<Record, ArchiveError>> + 'c,
    ) -> impl Iterator<Item = Result<Record, ArchiveError>> + 'c {
        let changed = |record: Result<Record, _>| record.and_then(|record| self.apply(record));
        records.into_iter().filter_map(move |record| changed(record).transpose())
    }
}

impl fmt::Debug for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Changes").field("steps", &self.steps.len()).finish()
    }
}

/// States that were made of others, so that records of one state share it.
struct Cached(std::cell::RefCell<Vec<(Arc<StateInfo>, Arc<StateInfo>)>>);

impl Cached {
    fn new() -> Self {
        Cached(Default::default())
    }

    fn of(
        &self,
        state: &Arc<StateInfo>,
        make: impl FnOnce(&StateInfo) -> StateInfo,
    ) -> Arc<StateInfo> {
        let mut known = self.0.borrow_mut();
        if let Some((_, made)) = known.iter().find(|(of, _)| of == state) {
            return Arc::clone(made);
        }
        let made = Arc::new(make(state));
        known.push((Arc::clone(state), Arc::clone(&made)));
        made
    }
}

fn info(
    kind: Kind,
    (name, key_type, type_name): (&str, &str, &str),
    expiration: Expiration,
) -> Arc<StateInfo> {
    let (name, key_type) = (name.to_owned(), key_type.to_owned());
    Arc::new(StateInfo { name, kind, key_type, type_name: type_name.to_owned(), expiration })
}

fn described(kind: Kind, key_type: &str, type_name: &str) -> String {
    match kind {
        Kind::Entry => format!("a table of \"{key_type}\" to \"{type_name}\""),
        kind => format!("a {kind} of \"{type_name}\""),
    }
}

fn failed(record: &StateRecord, source: Failure) -> ArchiveError {
    let what = Record::State(record.clone()).to_string();
    ErrorKind::Conversion { what, source }.into()
}

/// What a function makes of something that is stored.
fn converted<V, W>(
    record: &StateRecord,
    codec: &Codec<V>,
    bytes: &Bytes,
    convert: &impl Fn(V) -> Result<W, Failure>,
) -> Result<W, ArchiveError> {
    let converted = codec.read(bytes).and_then(convert);
    converted.map_err(|source| failed(record, source))
}

/// The deadline that something gets. `None` if it is over, and would be there for ever.
fn deadline(stored: &Stored, expiration: Expiration, now_ms: u64) -> Option<Option<u64>> {
    match (stored.deadline_ms, expiration.is_never()) {
        (Some(deadline), true) => (deadline > now_ms).then_some(None),
        (None, true) => Some(None),
        (Some(deadline), false) => Some(Some(deadline)),
        (None, false) => Some(Some(expiration.written(now_ms))),
    }
}

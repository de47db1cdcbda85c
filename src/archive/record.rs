//! What a snapshot consists of, as data: state, messages, and what was emitted and is held.
//!
//! Bytes are what they are in the store. What they mean, only their types know: values of state are of the
//! type whose name is beside them, messages and times are MessagePack that names fields.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::address::{Address, Id, TypeName};
use crate::expiration::Expiration;
use crate::state::{self, StateHeader};

/// One thing that a snapshot has.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Record {
    /// A piece of state of an address.
    State(StateRecord),
    /// A message that has not been handled.
    Message(MessageRecord),
    /// What was emitted to an egress that is [held](crate::Functions::held_egress).
    Held(HeldRecord),
}

/// What a record is about.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// A value.
    Value,
    /// An entry of a table.
    Entry,
    /// A buffer, with all its elements.
    Buffer,
    /// A message in the call of a remote function, or that waits behind one.
    InFlight,
    /// A message that failed and will be tried again, or that waits behind one.
    Retrying,
    /// A message that waited to be handled.
    Queued,
    /// A message that was sent before the cut and arrived after it.
    Logged,
    /// An asynchronous operation that was under way.
    Operation,
    /// A delayed message.
    Delayed,
    /// A record of a held egress.
    Held,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Kind; 10] = [
        Kind::Value,
        Kind::Entry,
        Kind::Buffer,
        Kind::InFlight,
        Kind::Retrying,
        Kind::Queued,
        Kind::Logged,
        Kind::Operation,
        Kind::Delayed,
        Kind::Held,
    ];

    /// Its name: `value`, `entry`, `buffer`, `in_flight` and so on.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Value => "value",
            Kind::Entry => "entry",
            Kind::Buffer => "buffer",
            Kind::InFlight => "in_flight",
            Kind::Retrying => "retrying",
            Kind::Queued => "queued",
            Kind::Logged => "logged",
            Kind::Operation => "operation",
            Kind::Delayed => "delayed",
            Kind::Held => "held",
        }
    }

    /// The kind of this name, if there is one.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Whether it is about state.
    pub const fn is_state(self) -> bool {
        matches!(self, Kind::Value | Kind::Entry | Kind::Buffer)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A state of a function type, as it was declared or registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateInfo {
    /// Its name.
    pub name: String,
    /// What it is: [`Value`](Kind::Value), [`Entry`](Kind::Entry) of a table or [`Buffer`](Kind::Buffer).
    pub kind: Kind,
    /// The name of the type of a table's keys; empty for others.
    pub key_type: String,
    /// The name of the type of its values.
    pub type_name: String,
    /// How long it lives.
    pub expiration: Expiration,
}

impl StateInfo {
    pub(super) fn of(header: &StateHeader) -> Self {
        StateInfo {
            name: header.name.clone(),
            kind: match header.kind {
                state::Kind::Value => Kind::Value,
                state::Kind::Table => Kind::Entry,
                state::Kind::Buffer => Kind::Buffer,
            },
            key_type: header.key_type.clone(),
            type_name: header.type_name.clone(),
            expiration: header.expiration(),
        }
    }

    /// The same as it stands beside records; `None` if there is no state of its kind.
    pub(super) fn header(&self) -> Option<StateHeader> {
        let kind = match self.kind {
            Kind::Value => state::Kind::Value,
            Kind::Entry => state::Kind::Table,
            Kind::Buffer => state::Kind::Buffer,
            _ => return None,
        };
        Some(StateHeader {
            name: self.name.clone(),
            kind,
            key_type: self.key_type.clone(),
            type_name: self.type_name.clone(),
            lifetime_ms: self.expiration.lifetime_ms(),
            counts_reads: self.expiration.counts_reads(),
        })
    }

    /// What tells it from other states of its function type. How long it lives does not.
    pub(super) fn identity(&self) -> (&str, Kind, &str, &str) {
        (&self.name, self.kind, &self.key_type, &self.type_name)
    }
}

/// A state, by what tells it from others.
#[derive(Clone, Debug)]
pub(super) struct ByIdentity(pub(super) Arc<StateInfo>);

impl Ord for ByIdentity {
    fn cmp(&self, other: &Self) -> Ordering {
        match Arc::ptr_eq(&self.0, &other.0) {
            true => Ordering::Equal,
            false => self.0.identity().cmp(&other.0.identity()),
        }
    }
}

impl PartialOrd for ByIdentity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for ByIdentity {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for ByIdentity {}

/// A piece of state of an address.
///
/// The state of a function type that is called `egress:` and the name of an egress is what addresses have
/// emitted to that, where it is [persisted](crate::Functions::persisted_egress).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateRecord {
    /// The name of the functions.
    pub set: Arc<str>,
    /// The address whose state it is.
    pub address: Address,
    /// Which state.
    pub state: Arc<StateInfo>,
    /// What it is.
    pub content: Content,
}

/// What a piece of state is. All of one that [expires](StateInfo::expiration) has deadlines: the milliseconds
/// since the beginning of 1970 from which on something is not seen. What is over is there nevertheless, since
/// nobody looked at a clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Of a value.
    Value(Stored),
    /// Of an entry of a table.
    Entry {
        /// The bytes of the key.
        key: Bytes,
        /// The value.
        value: Stored,
    },
    /// Of a buffer: its elements in their order, at least one.
    Buffer(Vec<Stored>),
}

/// The bytes of a value or an element, and its deadline if it has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The bytes.
    pub bytes: Bytes,
    /// From when on it is not seen.
    pub deadline_ms: Option<u64>,
}

/// A message that has not been handled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageRecord {
    /// The name of the functions.
    pub set: Arc<str>,
    /// Where, and for what it waits.
    pub waits: Waits,
    /// Whom it is for.
    pub target: Address,
    /// Whether there was a function for it.
    pub is_bound: bool,
    /// Who sent it, if an address did.
    pub caller: Option<Address>,
    /// How many messages led to it.
    pub depth: u32,
    /// Where it stands in time.
    pub standing: Standing,
    /// What it says.
    pub message: Bytes,
}

/// What a message waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waits {
    /// The call of a remote function.
    InFlight {
        /// Whether it comes before all others of its address.
        is_first: bool,
    },
    /// Another attempt at it, or at one before it if this is `None`.
    Retrying(Option<Attempt>),
    /// To be handled.
    Queued,
    /// To be handled: it was sent before the cut and arrived after it.
    Logged,
    /// That the outcome of an asynchronous operation comes to be known, which it says to be unknown.
    Operation,
    /// Its time.
    Delayed {
        /// When it is due, in milliseconds since the beginning of 1970.
        due_ms: u64,
        /// By what its sender can take it back.
        token: Option<String>,
    },
}

impl Waits {
    /// What kind of record it makes of a message.
    pub const fn kind(&self) -> Kind {
        match self {
            Waits::InFlight { .. } => Kind::InFlight,
            Waits::Retrying(_) => Kind::Retrying,
            Waits::Queued => Kind::Queued,
            Waits::Logged => Kind::Logged,
            Waits::Operation => Kind::Operation,
            Waits::Delayed { .. } => Kind::Delayed,
        }
    }
}

/// A message that is tried again.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// How often it was tried.
    pub attempts: u32,
    /// When it is tried again, in milliseconds since the beginning of 1970.
    pub due_ms: u64,
}

/// Where a message stands in time. Times are those of the program's dataflow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nowhere: it will be a new event.
    Event,
    /// It came at this time, which nothing waits for, and will be a new event.
    Came(Bytes),
    /// At a time that waits for it.
    At {
        /// The time.
        time: Bytes,
        /// How deep in the order of time.
        depth: u64,
        /// Whether it is an ingress record.
        is_ingress: bool,
    },
}

/// What was emitted to an egress that is held, and was not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldRecord {
    /// The name of the functions.
    pub set: Arc<str>,
    /// The name of the egress.
    pub egress: String,
    /// The cut that it belongs to.
    pub cut: u64,
    /// The bin of the address that emitted it.
    pub bin: u16,
    /// Its time.
    pub time: Bytes,
    /// What was emitted.
    pub record: Bytes,
}

impl Record {
    /// The name of the functions that it belongs to.
    pub fn set(&self) -> &str {
        match self {
            Record::State(StateRecord { set, .. })
            | Record::Message(MessageRecord { set, .. })
            | Record::Held(HeldRecord { set, .. }) => set,
        }
    }

    /// What it is about.
    pub fn kind(&self) -> Kind {
        match self {
            Record::State(record) => match record.content {
                Content::Value(_) => Kind::Value,
                Content::Entry { .. } => Kind::Entry,
                Content::Buffer(_) => Kind::Buffer,
            },
            Record::Message(record) => record.waits.kind(),
            Record::Held(_) => Kind::Held,
        }
    }

    /// The address whose state it is, or whom it is for; what is held has none.
    pub fn address(&self) -> Option<&Address> {
        match self {
            Record::State(record) => Some(&record.address),
            Record::Message(record) => Some(&record.target),
            Record::Held(_) => None,
        }
    }

    /// The type of this address.
    pub fn function_type(&self) -> Option<&TypeName> {
        self.address().map(|address| &address.function_type)
    }

    /// The id of this address.
    pub fn id(&self) -> Option<&Id> {
        self.address().map(|address| &address.id)
    }
}

/// What a record is, in a few words.
impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Record::State(StateRecord { address, state, content, .. }) => {
                let what = match content {
                    Content::Value(_) => "the value",
                    Content::Entry { .. } => "an entry of the table",
                    Content::Buffer(_) => "the buffer",
                };
                write!(f, "{what} \"{}\" of \"{address}\"", state.name)
            }
            Record::Message(MessageRecord { target, waits, .. }) => {
                write!(f, "a message for \"{target}\" ({})", waits.kind())
            }
            Record::Held(HeldRecord { egress, cut, .. }) => {
                write!(f, "a record of egress \"{egress}\" held for cut {cut}")
            }
        }
    }
}

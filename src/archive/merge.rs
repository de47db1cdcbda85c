//! What a chain of cuts comes to, one bin at a time: what was written last counts, and what is gone is not
//! there.
//!
//! It is told of records in the order in which a program would restore them. What has expired is kept, since
//! it knows no clock.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::reading::{Types, Wanted};
use super::record::{
    Attempt, ByIdentity, Content, HeldRecord, MessageRecord, Record, Standing, StateInfo,
    StateRecord, Stored, Waits,
};
use crate::address::{Address, Id, TypeName};
use crate::codec::Codec;
use crate::dispatch::{self, Identity, Note, RecordKind, Said, Unreadable, egress_of};
use crate::placement;
use crate::records::Reader;
use crate::state::{self, Tag};

/// What one bin has of one set of functions.
#[derive(Default)]
pub(super) struct Bin {
    states: BTreeMap<(TypeName, ByIdentity, Id), Cell>,
    delayed: BTreeMap<(u64, Identity), Record>,
    /// When each delayed message is due.
    due: BTreeMap<Identity, u64>,
    waiting: Vec<Record>,
    held: Vec<Record>,
}

enum Cell {
    Value(Arc<StateInfo>, Stored),
    Table(BTreeMap<Bytes, (Arc<StateInfo>, Stored)>),
    Buffer(Buffer),
}

/// A buffer, as far as it is read.
struct Buffer {
    info: Arc<StateInfo>,
    /// The number of the first element.
    base: u64,
    elements: std::collections::VecDeque<Stored>,
    /// What has a deadline after the first of these is seen until the second, if not longer.
    renewal: (u64, u64),
}

/// Where a record comes from.
pub(super) struct From<'a> {
    pub(super) set: &'a Arc<str>,
    pub(super) types: &'a Types,
    pub(super) bin: u16,
    /// Whether it is of the last cut.
    pub(super) is_last: bool,
    pub(super) cut: u64,
    pub(super) wanted: &'a Wanted,
}

/// Why a record is none.
pub(super) type Wrong = String;

impl Bin {
    /// Takes in a record of a kind. `bytes` are those that it is part of.
    pub(super) fn record(
        &mut self,
        from: &From<'_>,
        kind: RecordKind,
        record: &[u8],
        bytes: &Bytes,
    ) -> Result<(), Wrong> {
        match kind {
            RecordKind::State => self.state(from, record, bytes),
            RecordKind::Delayed => self.message(from, kind, record, bytes),
            // What waited at another cut has been done since, or waits at the last one as well.
            _ if from.is_last => self.message(from, kind, record, bytes),
            _ => Ok(()),
        }
    }

    fn state(&mut self, from: &From<'_>, record: &[u8], bytes: &Bytes) -> Result<(), Wrong> {
        let mut reader = Reader::new(record);
        let known = from.types.get(reader.varint()?)?;
        let state::Record { tag, column, id, mut content } = state::Record::read(reader.rest())?;
        let info = usize::try_from(column).ok().and_then(|at| known.states.get(at));
        let info = info.ok_or("it is of a state that is not listed")?;
        if placement::bin(placement::hash(&id)) != u64::from(from.bin) {
            return Err("it is of another bin".into());
        }
        if !from.wanted.has_type(&known.name) || !from.wanted.has(info.kind) {
            return Ok(());
        }
        let expires = !info.expiration.is_never();
        let key = (known.name.clone(), ByIdentity(Arc::clone(info)), id);
        let fits = match tag {
            Tag::Value => info.kind == super::Kind::Value,
            Tag::Entry | Tag::Removed => info.kind == super::Kind::Entry,
            Tag::Elements => info.kind == super::Kind::Buffer,
            Tag::Cleared => true,
        };
        if !fits {
            return Err("it is of another kind than its state".into());
        }
        let deadline = |content: &mut Reader<'_>| match expires {
            true => content.varint().map(Some),
            false => Ok(None),
        };
        match tag {
            Tag::Value => {
                let deadline_ms = deadline(&mut content)?;
                let stored = Stored { bytes: bytes.slice_ref(content.rest()), deadline_ms };
                self.states.insert(key, Cell::Value(Arc::clone(info), stored));
            }
            Tag::Entry => {
                let deadline_ms = deadline(&mut content)?;
                let entry = bytes.slice_ref(content.with_length()?);
                let stored = Stored { bytes: bytes.slice_ref(content.rest()), deadline_ms };
                let cell = self.states.entry(key).or_insert_with(|| Cell::Table(BTreeMap::new()));
                if let Cell::Table(rows) = cell {
                    rows.insert(entry, (Arc::clone(info), stored));
                }
            }
            Tag::Removed => {
                if let Some(Cell::Table(rows)) = self.states.get_mut(&key) {
                    rows.remove(content.rest());
                    if rows.is_empty() {
                        self.states.remove(&key);
                    }
                }
            }
            Tag::Cleared => drop(self.states.remove(&key)),
            Tag::Elements => {
                let made = || Cell::Buffer(Buffer::new(Arc::clone(info)));
                let cell = self.states.entry(key.clone()).or_insert_with(made);
                if let Cell::Buffer(buffer) = cell {
                    buffer.append(info, content, bytes)?;
                    if buffer.elements.is_empty() {
                        self.states.remove(&key);
                    }
                }
            }
        }
        Ok(())
    }

    fn message(
        &mut self,
        from: &From<'_>,
        kind: RecordKind,
        record: &[u8],
        bytes: &Bytes,
    ) -> Result<(), Wrong> {
        let said = Said::read(kind, record, Codec::RAW).map_err(|error| match error {
            Unreadable::Damaged(why) => why.to_owned(),
            Unreadable::Time(why) => why.to_string(),
        })?;
        let stored = match said {
            Said::Message(stored) => stored,
            Said::Gone(identity) => {
                if let Some(due) = self.due.remove(&identity) {
                    self.delayed.remove(&(due, identity));
                }
                return Ok(());
            }
        };
        let dispatch::Stored { note, target_type, target, caller, depth, standing, message } =
            stored;
        let known = from.types.get(target_type)?;
        let caller = match caller {
            Some((number, id)) => Some(Address::new(from.types.get(number)?.name.clone(), id)),
            None => None,
        };
        let home = match (&note, &caller) {
            (Note::Delayed(_), Some(caller)) => &caller.id,
            _ => &target,
        };
        if placement::bin(placement::hash(home)) != u64::from(from.bin) {
            return Err("it is of another bin".into());
        }
        let mut identity = None;
        let waits = match note {
            Note::InFlight { is_first } => Waits::InFlight { is_first },
            Note::Retrying(attempt) => Waits::Retrying(
                attempt.map(|dispatch::Attempt { attempts, due_ms }| Attempt { attempts, due_ms }),
            ),
            Note::Queued => Waits::Queued,
            Note::Logged => Waits::Logged,
            Note::Operation => Waits::Operation,
            Note::Delayed(delay) => {
                identity = Some((delay.due_ms, delay.identity));
                Waits::Delayed { due_ms: delay.due_ms, token: delay.token.map(str::to_owned) }
            }
        };
        let record = Record::Message(MessageRecord {
            set: Arc::clone(from.set),
            waits,
            target: Address::new(known.name.clone(), target),
            is_bound: known.is_bound,
            caller,
            depth,
            standing: match standing {
                dispatch::Standing::Event => Standing::Event,
                dispatch::Standing::Came(time) => Standing::Came(time),
                dispatch::Standing::Held(place) => {
                    Standing::At { time: place.time, depth: place.depth, is_ingress: place.record }
                }
            },
            message: bytes.slice_ref(message),
        });
        if !from.wanted.has_type(&known.name) {
            return Ok(());
        }
        match identity {
            Some((due, identity)) => {
                if let Some(before) = self.due.insert(identity, due) {
                    self.delayed.remove(&(before, identity));
                }
                self.delayed.insert((due, identity), record);
            }
            None => self.waiting.push(record),
        }
        Ok(())
    }

    /// Takes in a record that is held.
    pub(super) fn held(
        &mut self,
        from: &From<'_>,
        record: &[u8],
        bytes: &Bytes,
    ) -> Result<(), Wrong> {
        let mut reader = Reader::new(record);
        let known = from.types.get(reader.varint()?)?;
        let egress = egress_of(&known.name).ok_or("it is of something that is no egress")?;
        let time = bytes.slice_ref(reader.with_length()?);
        self.held.push(Record::Held(HeldRecord {
            set: Arc::clone(from.set),
            egress: egress.to_owned(),
            cut: from.cut,
            bin: from.bin,
            time,
            record: bytes.slice_ref(reader.rest()),
        }));
        Ok(())
    }

    /// What there is in the end: state in the order of function types, states, ids and keys; then messages,
    /// in the order in which they are restored; then what is held.
    pub(super) fn records(self, set: &Arc<str>) -> impl Iterator<Item = Record> {
        let Bin { states, delayed, waiting, held, .. } = self;
        let states = states.into_iter().flat_map(move |((function_type, _, id), cell)| {
            let address = Address { function_type, id };
            let set = Arc::clone(set);
            let record = move |state, content| {
                let (set, address) = (Arc::clone(&set), address.clone());
                Record::State(StateRecord { set, address, state, content })
            };
            let records: Vec<Record> = match cell {
                Cell::Value(state, stored) => vec![record(state, Content::Value(own(stored)))],
                Cell::Table(rows) => rows
                    .into_iter()
                    .map(|(key, (state, stored))| {
                        let key = Bytes::copy_from_slice(&key);
                        record(state, Content::Entry { key, value: own(stored) })
                    })
                    .collect(),
                Cell::Buffer(buffer) => {
                    let (state, elements) = buffer.elements();
                    vec![record(state, Content::Buffer(elements))]
                }
            };
            records
        });
        let messages = waiting.into_iter().chain(delayed.into_values()).chain(held);
        states.chain(messages.map(own_message))
    }
}

/// What does not keep alive what else was read with it.
fn own(Stored { bytes, deadline_ms }: Stored) -> Stored {
    Stored { bytes: Bytes::copy_from_slice(&bytes), deadline_ms }
}

fn own_message(mut record: Record) -> Record {
    let own = |bytes: &mut Bytes| *bytes = Bytes::copy_from_slice(bytes);
    match &mut record {
        Record::Message(message) => own(&mut message.message),
        Record::Held(held) => {
            own(&mut held.time);
            own(&mut held.record);
        }
        Record::State(_) => {}
    }
    record
}

impl Buffer {
    fn new(info: Arc<StateInfo>) -> Self {
        let elements = std::collections::VecDeque::new();
        Buffer { info, base: 0, elements, renewal: (0, 0) }
    }

    fn skip_to(&mut self, number: u64) {
        let gone = number.saturating_sub(self.base).min(self.elements.len() as u64);
        self.elements.drain(..gone as usize);
        self.base = self.base.max(number);
    }

    /// Appends the elements of a record, in the way in which they are restored.
    fn append(
        &mut self,
        info: &Arc<StateInfo>,
        mut content: Reader<'_>,
        bytes: &Bytes,
    ) -> Result<(), Wrong> {
        let expires = !info.expiration.is_never();
        self.info = Arc::clone(info);
        self.skip_to(content.varint()?);
        if expires {
            self.renewal = (content.varint()?, content.varint()?);
        }
        let first = content.varint()?;
        if self.elements.is_empty() {
            self.skip_to(first);
        }
        if self.base.checked_add(self.elements.len() as u64) != Some(first) {
            return Err("elements are missing before it".into());
        }
        while !content.is_empty() {
            let deadline_ms = if expires { Some(content.varint()?) } else { None };
            for _ in 0..content.varint()? {
                let bytes = bytes.slice_ref(content.with_length()?);
                self.elements.push_back(Stored { bytes, deadline_ms });
            }
        }
        Ok(())
    }

    /// The elements with the deadlines that they have.
    fn elements(self) -> (Arc<StateInfo>, Vec<Stored>) {
        let (since, until) = self.renewal;
        let elements = self.elements.into_iter().map(|stored| {
            let deadline_ms =
                stored.deadline_ms.map(|at| if at > since { at.max(until) } else { at });
            own(Stored { deadline_ms, ..stored })
        });
        (self.info, elements.collect())
    }
}

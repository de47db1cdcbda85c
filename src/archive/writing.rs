//! Writes a snapshot from records that come in any order.
//!
//! They are brought into the order of bins, in temporary files if need be, and become parts in this order. Only
//! when all parts are stored the log says that there is a snapshot: what is half written is not one.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use super::Archive;
use super::description::Description;
use super::error::{ArchiveError, Kind as ErrorKind};
use super::record::{
    Content, HeldRecord, MessageRecord, Record, Standing, StateInfo, StateRecord, Stored, Waits,
};
use super::sort::Sorter;
use crate::address::{self, Address, TypeName};
use crate::clock::Clock;
use crate::codec::Codec;
use crate::dataflow::{HELD, SnapshotCounts, TABLE, put_framed, section};
use crate::dispatch::{
    self, Attempt, Codecs, CutType, Delay, Head, Identity, NOBODY, Note, Origin, Place, RecordKind,
    TypeIndex, Written, type_of,
};
use crate::placement::{self, BINS};
use crate::records::{Damage, Reader, put_id, put_text, put_varint, put_with_length};
use crate::snapshot::{
    Check, Cut, Gathered, Identity as StoreIdentity, Link, Log, PartEntry, PartName, PartWriter,
    SAVEPOINT_NAME, SnapshotInfo, Which,
};
use crate::state::{self, StateHeader, Tag};

/// Bytes of records that are gathered before they become a temporary file.
const MEMORY: usize = 64 << 20;
/// No cut that is given has a higher number.
const CUTS_MAX: u64 = 1 << 61;
/// What snapshots may have at most, as those who restore them know.
const DEPTH_MAX: u64 = 1 << 60;
const ATTEMPTS_MAX: u32 = u32::MAX / 2;

/// Is told how many records were written, of how many.
type Progress = Box<dyn FnMut(u64, u64)>;

/// A snapshot that is being written.
///
/// Nothing is in the store before it is [finished](Self::finish). One that is dropped before leaves nothing.
pub struct Writer {
    archive: Archive,
    description: Description,
    memory_max: usize,
    directory: PathBuf,
    is_branch: bool,
    savepoint: Option<String>,
    progress: Option<Progress>,
    sets: Vec<Set>,
    sorter: Option<Sorter>,
    records: u64,
    counts: SnapshotCounts,
    held_cut: u64,
    key: Vec<u8>,
    body: Vec<u8>,
}

/// A set of functions, and what the numbers mean that stand in records of it.
struct Set {
    name: Arc<str>,
    types: Vec<Type>,
    numbers: HashMap<TypeName, TypeIndex>,
    egresses: Vec<CutType>,
}

struct Type {
    name: TypeName,
    is_bound: bool,
    states: Vec<StateHeader>,
    /// By the bytes of a header, its number, and the number of the first state of its identity.
    numbers: HashMap<Vec<u8>, (u32, u32)>,
    last: Option<(Arc<StateInfo>, (u32, u32))>,
}

fn wrong(error: impl std::fmt::Display) -> String {
    error.to_string()
}

impl Archive {
    /// Begins to write a snapshot of what records say, of a program that is described so.
    pub fn writer(&self, description: &Description) -> Writer {
        Writer {
            archive: self.clone(),
            description: description.clone(),
            memory_max: MEMORY,
            directory: std::env::temp_dir(),
            is_branch: false,
            savepoint: None,
            progress: None,
            sets: Vec::new(),
            sorter: None,
            records: 0,
            counts: SnapshotCounts::default(),
            held_cut: 0,
            key: Vec::new(),
            body: Vec::new(),
        }
    }

    /// Writes a snapshot of records that come in any order, into a store that has none: what a program
    /// begins with. For anything else there is a [`writer`](Self::writer).
    ///
    /// # Errors
    ///
    /// The first error among the records, or as for [`push`](Writer::push) and [`finish`](Writer::finish).
    pub fn write(
        &self,
        description: &Description,
        records: impl IntoIterator<Item = Result<Record, ArchiveError>>,
    ) -> Result<SnapshotInfo, ArchiveError> {
        let mut writer = self.writer(description);
        records.into_iter().try_for_each(|record| writer.push(record?))?;
        writer.finish()
    }
}

impl Writer {
    /// Gathers so many bytes before they become a temporary file. Default 64 MiB. While they are merged, up to
    /// 128 files are open.
    #[must_use]
    pub fn memory(mut self, bytes: usize) -> Self {
        self.memory_max = bytes;
        self
    }

    /// Has temporary files in this directory. Default: the system's. They take as much as the records, and
    /// nothing is left of them.
    #[must_use]
    pub fn temporary(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = directory.into();
        self
    }

    /// Writes into a store that has snapshots already. The program goes on from what is written; what came
    /// before is kept as long as any snapshot that is not the newest. A program that still runs there stops
    /// when it takes its next snapshot, since somebody else owns the store then.
    #[must_use]
    pub fn branch(mut self) -> Self {
        self.is_branch = true;
        self
    }

    /// Gives the snapshot a name, so that it is kept: it is a [savepoint](crate::Snapshots::savepoint).
    #[must_use]
    pub fn named(mut self, savepoint: &str) -> Self {
        self.savepoint = Some(savepoint.to_owned());
        self
    }

    /// Has `tell` called now and then while it is finished: how many records are written, of how many.
    #[must_use]
    pub fn progress(mut self, tell: impl FnMut(u64, u64) + 'static) -> Self {
        self.progress = Some(Box::new(tell));
        self
    }

    /// How many records it was given.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Adds a record. They come in any order; messages of one kind for one address are restored in the order in
    /// which they come.
    ///
    /// # Errors
    ///
    /// If it is nothing that a snapshot can have, if temporary files fail, or, with the first record, if the
    /// store [has snapshots](ArchiveError::is_not_empty) and this is to be the first.
    pub fn push(&mut self, record: Record) -> Result<(), ArchiveError> {
        if self.sorter.is_none() {
            self.check_place()?;
            self.sorter = Some(Sorter::new(self.directory.clone(), self.memory_max));
        }
        self.records += 1;
        let number = self.records;
        let unwritable = |why: String| ErrorKind::Unwritable { record: number, why };
        self.key.clear();
        self.body.clear();
        match &record {
            Record::State(record) => self.state(record),
            Record::Message(record) => self.message(record),
            Record::Held(record) => self.held(record),
        }
        .map_err(|why| unwritable(format!("{record}: {why}")))?;
        self.key.extend(number.to_be_bytes());
        let sorter = self.sorter.as_mut().expect("it was made");
        sorter.push(&self.key, &self.body).map_err(|source| {
            let directory = sorter.directory().display().to_string();
            ErrorKind::Temporary { directory, source }.into()
        })
    }

    /// Writes the snapshot.
    ///
    /// Whoever ran on this store before is over from here on, also if this fails. If it fails, there is no new
    /// snapshot, and a program goes on from what it would have gone on from before.
    ///
    /// # Errors
    ///
    /// If two records are [the same](ArchiveError::is_duplicate) piece of state of an address, or delayed messages
    /// of one sender with the same token. If the store fails, belongs to another program, or has snapshots and
    /// this is no [branch](Self::branch); if somebody else has just begun there. If temporary files fail.
    pub fn finish(mut self) -> Result<SnapshotInfo, ArchiveError> {
        self.check_place()?;
        // What is wrong with it is said before anything is done.
        self.description.note(0, self.counts, 0)?;
        for cut in [self.description.cut, self.held_cut] {
            if cut > CUTS_MAX {
                return Err(ArchiveError::invalid(format!("cut {cut}"), "is higher than any"));
            }
        }
        let identity =
            StoreIdentity { program: self.description.program.clone(), bins: BINS as u32 };
        let (archive, now_ms) = (self.archive.clone(), Clock::system().now_ms());
        let store = &archive.store;
        let found = archive.wait(store.find(&identity, Which::Newest, Check::Lengths))?;
        // It cannot be said then what a program would go on from if this failed.
        if let Some((_, error)) = found.skipped.first() {
            return Err(error.clone().into());
        }
        let claim = store.claim(&identity, &found, found.snapshot.as_ref(), now_ms);
        let mut log: Log = archive.wait(claim)?;
        let cut = log.first_cut().max(self.description.cut).max(self.held_cut);
        let (parts, held) = self.write(log.execution(), cut)?;
        let bytes = parts.iter().map(|part| part.bytes).sum();
        let held_parts: Vec<PartEntry> =
            held.iter().flat_map(|link| &link.parts).copied().collect();
        archive.wait(store.settle(&held_parts))?;
        let mut notes = BTreeMap::from([self.description.note(cut, self.counts, bytes)?]);
        notes.extend(self.savepoint.take().map(|name| (SAVEPOINT_NAME.to_owned(), name.into())));
        archive.wait(log.commit(Cut { cut, base: None, parts, held, notes, at_ms: now_ms }))?;
        let (_, info) = archive.wait(store.locate(&Which::Cut(cut)))?;
        Ok(info)
    }

    /// Whether a snapshot may be written here.
    fn check_place(&self) -> Result<(), ArchiveError> {
        if let Some(name) = &self.savepoint {
            let checked = address::check_part("savepoint", name);
            checked.map_err(|error| {
                ArchiveError::invalid(format!("savepoint \"{name}\":"), wrong(error))
            })?;
        }
        if self.is_branch {
            return Ok(());
        }
        match self.archive.list()?.into_iter().next() {
            None => Ok(()),
            Some(Ok(info)) => Err(ErrorKind::NotEmpty { cut: info.cut }.into()),
            Some(Err(error)) => Err(error.into()),
        }
    }

    /// The number of a set of functions.
    fn set(&mut self, name: &Arc<str>) -> Result<u8, String> {
        let known = self.sets.iter().position(|set| Arc::ptr_eq(&set.name, name));
        let known = known.or_else(|| self.sets.iter().position(|set| set.name == *name));
        let at = known.unwrap_or(self.sets.len());
        let number =
            u8::try_from(at).map_err(|_| "there are too many sets of functions".to_owned())?;
        if known.is_none() {
            let name = Arc::clone(name);
            let (types, numbers, egresses) = (Vec::new(), HashMap::new(), Vec::new());
            self.sets.push(Set { name, types, numbers, egresses });
        }
        Ok(number)
    }

    fn state(&mut self, record: &StateRecord) -> Result<(), String> {
        let StateRecord { set, address, state, content } = record;
        let number = self.set(set)?;
        let types = &mut self.sets[usize::from(number)];
        let function = types.number(&address.function_type, true)?;
        let (column, identity) = types.types[function as usize].state(state)?;
        let expires = !state.expiration.is_never();
        let fits = |stored: &Stored| match (stored.deadline_ms.is_some(), expires) {
            (true, false) => Err("it has a deadline, and its state does not expire"),
            (false, true) => Err("it has no deadline, and its state expires"),
            _ => Ok(()),
        };
        let deadline = |to: &mut Vec<u8>, stored: &Stored| {
            stored.deadline_ms.iter().for_each(|at| put_varint(to, *at));
        };
        let tag = match content {
            Content::Value(_) => Tag::Value,
            Content::Entry { .. } => Tag::Entry,
            Content::Buffer(_) => Tag::Elements,
        };
        if record_kind(content) != state.kind {
            return Err("it is of another kind than its state".to_owned());
        }
        let bin = placement::bin(placement::hash(&address.id)) as u16;
        let (key, body) = (&mut self.key, &mut self.body);
        begin_key(key, bin, RecordKind::State, number);
        key.extend(function.to_be_bytes());
        key.extend(identity.to_be_bytes());
        put_id(key, &address.id);
        begin_body(body, section(number, RecordKind::State.number()), &[function]);
        put_varint(body, u64::from(function));
        state::begin(body, tag, column, &address.id);
        match content {
            Content::Value(stored) => {
                fits(stored)?;
                deadline(body, stored);
                body.extend_from_slice(&stored.bytes);
            }
            Content::Entry { key: entry, value } => {
                fits(value)?;
                put_varint(key, entry.len() as u64);
                key.extend_from_slice(entry);
                deadline(body, value);
                put_varint(body, entry.len() as u64);
                body.extend_from_slice(entry);
                body.extend_from_slice(&value.bytes);
            }
            Content::Buffer(elements) => {
                if elements.is_empty() {
                    return Err("it has no elements".to_owned());
                }
                // Elements are numbered from 0, and nothing was renewed.
                put_varint(body, 0);
                if expires {
                    put_varint(body, 0);
                    put_varint(body, 0);
                }
                put_varint(body, 0);
                for run in elements.chunk_by(|one, next| one.deadline_ms == next.deadline_ms) {
                    fits(&run[0])?;
                    deadline(body, &run[0]);
                    put_varint(body, run.len() as u64);
                    for Stored { bytes, .. } in run {
                        put_varint(body, bytes.len() as u64);
                        body.extend_from_slice(bytes);
                    }
                }
            }
        }
        self.counts.state += 1;
        Ok(())
    }

    fn message(&mut self, record: &MessageRecord) -> Result<(), String> {
        let MessageRecord { set, waits, target, is_bound, caller, depth, standing, message } =
            record;
        let number = self.set(set)?;
        let types = &mut self.sets[usize::from(number)];
        let target_type = types.number(&target.function_type, *is_bound)?;
        let caller_type = match caller {
            Some(caller) => Some(types.number(&caller.function_type, false)?),
            None => None,
        };
        let standing = match standing {
            Standing::Event => dispatch::Standing::Event,
            Standing::Came(time) => dispatch::Standing::Came(time.clone()),
            Standing::At { depth, .. } if *depth > DEPTH_MAX => {
                return Err("it stands deeper than can be".to_owned());
            }
            Standing::At { time, depth, is_ingress } => {
                let (time, depth, record) = (time.clone(), *depth, *is_ingress);
                dispatch::Standing::Held(Place { time, depth, record })
            }
        };
        let stands = matches!(standing, dispatch::Standing::Held(_));
        if matches!(waits, Waits::Queued | Waits::Logged) && !stands {
            return Err("it is not at a time".to_owned());
        }
        let origin = Origin::default();
        let note = match waits {
            Waits::InFlight { is_first } => Note::InFlight { is_first: *is_first },
            Waits::Retrying(None) => Note::Retrying(None),
            Waits::Retrying(Some(attempt)) if attempt.attempts > ATTEMPTS_MAX => {
                return Err("it was tried more often than can be".to_owned());
            }
            Waits::Retrying(Some(super::Attempt { attempts, due_ms })) => {
                Note::Retrying(Some(Attempt { attempts: *attempts, due_ms: *due_ms }))
            }
            Waits::Queued => Note::Queued,
            Waits::Logged => Note::Logged,
            Waits::Operation => Note::Operation,
            // No other has this number, and no execution has the number 0.
            Waits::Delayed { due_ms, token } => Note::Delayed(Delay {
                identity: Identity { origin, sequence: self.records },
                due_ms: *due_ms,
                token: token.as_deref(),
            }),
        };
        let kind = note.kind();
        let hash = placement::hash(&target.id);
        let home = match (waits, caller) {
            (Waits::Delayed { .. }, Some(caller)) => placement::hash(&caller.id),
            _ => hash,
        };
        let (key, body) = (&mut self.key, &mut self.body);
        begin_key(key, placement::bin(home) as u16, kind, number);
        if let Waits::Delayed { token: Some(token), .. } = waits {
            key.push(1);
            key.extend(caller_type.unwrap_or(NOBODY).to_be_bytes());
            put_id(key, caller.as_ref().map_or(&target.id, |caller| &caller.id));
            put_text(key, token);
        } else {
            key.push(0);
        }
        let types: Vec<TypeIndex> = [target_type].into_iter().chain(caller_type).collect();
        begin_body(body, section(number, kind.number()), &types);
        let head = Head {
            target_type,
            caller_type: caller_type.unwrap_or(NOBODY),
            depth: *depth,
            function: NOBODY,
            again: false,
            hash,
            target: target.id.clone(),
            caller: caller.as_ref().map_or(target.id.clone(), |Address { id, .. }| id.clone()),
            names: None,
        };
        let types = (target_type, caller_type);
        let written = Written { note, head: &head, types, standing, message };
        let codecs = Codecs { messages: *Codec::RAW, times: *Codec::RAW };
        written.put(body, &codecs, false).map_err(wrong)?;
        self.counts.count(kind, false);
        Ok(())
    }

    fn held(&mut self, record: &HeldRecord) -> Result<(), String> {
        let HeldRecord { set, egress, cut, bin, time, record } = record;
        if u64::from(*bin) >= BINS {
            return Err(format!("there is no bin {bin}"));
        }
        let number = self.set(set)?;
        let egress = self.sets[usize::from(number)].egress(egress)?;
        let (key, body) = (&mut self.key, &mut self.body);
        // After all else, cut by cut.
        key.push(1);
        key.extend(cut.to_be_bytes());
        key.extend(bin.to_be_bytes());
        key.push(number);
        begin_body(body, section(number, HELD), &[egress]);
        put_varint(body, u64::from(egress));
        let put = put_with_length(body, |to| -> Result<(), String> {
            to.extend_from_slice(time);
            Ok(())
        });
        put?;
        body.extend_from_slice(record);
        self.held_cut = self.held_cut.max(*cut);
        self.counts.held += 1;
        Ok(())
    }

    /// Writes all parts of an execution's cut: those of the cut, and those with what is held for cuts before.
    fn write(
        &mut self,
        execution: u64,
        cut: u64,
    ) -> Result<(Vec<PartEntry>, Vec<Link>), ArchiveError> {
        let Some(sorter) = self.sorter.take() else { return Ok(Default::default()) };
        let directory = sorter.directory().display().to_string();
        let temporary = |source| ErrorKind::Temporary { directory: directory.clone(), source };
        let mut sorted = sorter.finish().map_err(temporary)?;
        let mut parts = PartsOf::new(&self.archive, &self.sets, execution, cut, 0);
        let mut held: Vec<Link> = Vec::new();
        let mut own = None;
        let mut before: Vec<u8> = Vec::new();
        let mut done = 0;
        while let Some((key, body)) = sorted.next().map_err(temporary)? {
            let (unit, number) = key.split_at(key.len() - 8);
            if before.len() >= 8 && before[..before.len() - 8] == *unit && is_unit(unit) {
                let numbered =
                    |bytes: &[u8]| u64::from_be_bytes(bytes.try_into().expect("eight bytes"));
                let (first, second) = (numbered(&before[before.len() - 8..]), numbered(number));
                let what = self.name_of(unit);
                return Err(ErrorKind::Duplicate { first, second, what }.into());
            }
            let bin = match unit.split_first() {
                Some((0, rest)) => u16::from_be_bytes([rest[0], rest[1]]),
                _ => {
                    let of = u64::from_be_bytes(unit[1..9].try_into().expect("eight bytes"));
                    if parts.cut != of || own.is_none() {
                        let next =
                            PartsOf::new(&self.archive, &self.sets, execution, of, PartName::HELD);
                        let (cut, stored) = std::mem::replace(&mut parts, next).finish()?;
                        match own {
                            None => own = Some(stored),
                            Some(_) => held.push(Link { execution, cut, parts: stored }),
                        }
                    }
                    u16::from_be_bytes([unit[9], unit[10]])
                }
            };
            parts.append(bin, body)?;
            before.clear();
            before.extend_from_slice(key);
            done += 1;
            if done % 4096 == 0
                && let Some(tell) = &mut self.progress
            {
                tell(done, self.records);
            }
        }
        let (cut, stored) = parts.finish()?;
        let own = match own {
            None => stored,
            Some(own) => {
                held.push(Link { execution, cut, parts: stored });
                own
            }
        };
        if let Some(tell) = &mut self.progress {
            tell(done, self.records);
        }
        Ok((own, held))
    }

    /// What a key without the number of its record is about, which only one may be.
    fn name_of(&self, unit: &[u8]) -> String {
        let set = &self.sets[usize::from(unit[4])];
        let mut rest = Reader::new(&unit[5..]);
        let is_state = u16::from(unit[3]) == RecordKind::State.number();
        let mut read = || -> Result<String, Damage> {
            if !is_state {
                rest.byte()?;
                let caller = set.types.get(number(&mut rest)? as usize);
                let (id, token) = (rest.id()?, rest.text()?);
                return Ok(match caller {
                    Some(known) => {
                        format!(
                            "delayed messages of \"{} {id}\" with token \"{token}\"",
                            known.name
                        )
                    }
                    None => format!("delayed messages for \"{id}\" with token \"{token}\""),
                });
            }
            let function = &set.types[number(&mut rest)? as usize];
            let state = &function.states[number(&mut rest)? as usize];
            let (id, of) = (rest.id()?, &function.name);
            Ok(match state.kind {
                state::Kind::Table => {
                    format!("an entry of the table \"{}\" of \"{of} {id}\"", state.name)
                }
                kind => format!("the {kind} \"{}\" of \"{of} {id}\"", state.name),
            })
        };
        read().expect("it was written here")
    }
}

/// A number in a key.
fn number(key: &mut Reader<'_>) -> Result<u32, Damage> {
    Ok(u32::from_be_bytes(key.bytes(4)?.try_into().expect("four bytes")))
}

/// Whether only one record may have a key that is but for its number this.
fn is_unit(unit: &[u8]) -> bool {
    let is_state = unit.get(3) == Some(&(RecordKind::State.number() as u8));
    unit[0] == 0 && (is_state || unit.get(5) == Some(&1))
}

fn record_kind(content: &Content) -> super::Kind {
    match content {
        Content::Value(_) => super::Kind::Value,
        Content::Entry { .. } => super::Kind::Entry,
        Content::Buffer(_) => super::Kind::Buffer,
    }
}

fn begin_key(key: &mut Vec<u8>, bin: u16, kind: RecordKind, set: u8) {
    key.push(0);
    key.extend(bin.to_be_bytes());
    key.push(kind.number() as u8);
    key.push(set);
}

/// What goes with a record: of which section it is, and which numbers of types are in it.
fn begin_body(body: &mut Vec<u8>, section: u16, types: &[TypeIndex]) {
    body.extend(section.to_be_bytes());
    body.push(types.len() as u8);
    types.iter().for_each(|number| body.extend(number.to_be_bytes()));
}

impl Set {
    fn number(&mut self, name: &TypeName, is_bound: bool) -> Result<TypeIndex, String> {
        if let Some(number) = self.numbers.get(name) {
            self.types[*number as usize].is_bound |= is_bound;
            return Ok(*number);
        }
        TypeName::new(name.as_str()).map_err(wrong)?;
        let number =
            TypeIndex::try_from(self.types.len()).map_err(|_| "there are too many types")?;
        let (states, numbers, last) = (Vec::new(), HashMap::new(), None);
        self.types.push(Type { name: name.clone(), is_bound, states, numbers, last });
        self.numbers.insert(name.clone(), number);
        Ok(number)
    }

    fn egress(&mut self, name: &str) -> Result<TypeIndex, String> {
        let known =
            self.egresses.iter().position(|known| dispatch::egress_of(&known.name) == Some(name));
        let at = known.unwrap_or(self.egresses.len());
        let number = TypeIndex::try_from(at).map_err(|_| "there are too many egresses")?;
        if known.is_none() {
            address::check("egress", name).map_err(wrong)?;
            let (name, is_bound, states) = (type_of(name), true, Default::default());
            self.egresses.push(CutType { number, name, is_bound, states });
        }
        Ok(number)
    }
}

impl Type {
    /// The number of a state, and that of the first that is the same but for how long it lives.
    fn state(&mut self, state: &Arc<StateInfo>) -> Result<(u32, u32), String> {
        if let Some((last, numbers)) = &self.last
            && Arc::ptr_eq(last, state)
        {
            return Ok(*numbers);
        }
        let header = state.header().ok_or("there is no state of its kind")?;
        let numbers = match self.numbers.get(&bytes_of(&header)) {
            Some(numbers) => *numbers,
            None => {
                check(&header, state)?;
                let column =
                    u32::try_from(self.states.len()).map_err(|_| "there are too many states")?;
                let is_same =
                    |other: &&StateHeader| StateInfo::of(other).identity() == state.identity();
                let first = self.states.iter().position(|other| is_same(&other));
                let numbers = (column, first.map_or(column, |at| at as u32));
                self.numbers.insert(bytes_of(&header), numbers);
                self.states.push(header);
                numbers
            }
        };
        self.last = Some((Arc::clone(state), numbers));
        Ok(numbers)
    }

    fn cut_type(&self, number: TypeIndex) -> CutType {
        let Type { name, is_bound, states, .. } = self;
        CutType { number, name: name.clone(), is_bound: *is_bound, states: states.clone().into() }
    }
}

fn bytes_of(header: &StateHeader) -> Vec<u8> {
    let mut bytes = Vec::new();
    header.put(&mut bytes);
    bytes
}

/// Checks the names of a state and how long it lives.
fn check(header: &StateHeader, state: &StateInfo) -> Result<(), String> {
    address::check_part("state", &header.name).map_err(wrong)?;
    address::check("state type", &header.type_name).map_err(wrong)?;
    match header.kind {
        state::Kind::Table => address::check("key type", &header.key_type).map_err(wrong)?,
        _ if header.key_type.is_empty() => {}
        _ => return Err("its state has keys, and is no table".to_owned()),
    }
    match state.expiration.fault() {
        Some(why) => Err(format!("the expiration of its state means nothing: {why}")),
        None => Ok(()),
    }
}

/// Parts of one cut, on their way into the store.
struct PartsOf<'a> {
    archive: &'a Archive,
    sets: &'a [Set],
    cut: u64,
    name: PartName,
    writer: PartWriter,
    /// The sets and types that are named in the part that is gathered.
    named: BTreeMap<u8, std::collections::BTreeSet<TypeIndex>>,
    stored: Vec<PartEntry>,
}

impl<'a> PartsOf<'a> {
    fn new(archive: &'a Archive, sets: &'a [Set], execution: u64, cut: u64, index: u32) -> Self {
        let name = PartName { execution, cut, worker: 0, index };
        let writer = PartWriter::new(name, archive.store.options().part_bytes);
        PartsOf { archive, sets, cut, name, writer, named: BTreeMap::new(), stored: Vec::new() }
    }

    /// Adds a record of a bin, with what goes with it.
    fn append(&mut self, bin: u16, body: &[u8]) -> Result<(), ArchiveError> {
        let kind = u16::from_be_bytes([body[0], body[1]]);
        let (types, record) = body[3..].split_at(4 * usize::from(body[2]));
        let named = self.named.entry((kind >> 8) as u8).or_default();
        for number in types.chunks_exact(4) {
            named.insert(u32::from_be_bytes(number.try_into().expect("four bytes")));
        }
        self.writer.append(kind, u32::from(bin), |section| {
            put_varint(section, record.len() as u64);
            section.extend_from_slice(record);
        });
        match self.writer.is_full() {
            true => self.store(),
            false => Ok(()),
        }
    }

    /// Stores what is gathered, with what the numbers in it mean.
    fn store(&mut self) -> Result<(), ArchiveError> {
        for (number, types) in std::mem::take(&mut self.named) {
            let set = &self.sets[usize::from(number)];
            let types: Vec<CutType> = match self.name.is_held() {
                true => types.iter().map(|at| set.egresses[*at as usize].clone()).collect(),
                false => types.iter().map(|at| set.types[*at as usize].cut_type(*at)).collect(),
            };
            self.writer.append(section(number, TABLE), 0, |section| {
                put_framed(section, |to| {
                    put_text(to, &set.name);
                    to.extend(CutType::table(types.iter()));
                });
            });
        }
        let Some(gathered) = self.writer.take() else { return Ok(()) };
        let index = gathered.name.index + 1;
        let part = Gathered::part(gathered);
        self.stored.push(self.archive.wait(self.archive.store.store_part(part))?);
        // A worker has so many parts, and then another one has the rest.
        if index == PartName::HELD || index == 2 * PartName::HELD {
            let PartName { worker, index, .. } = self.name;
            self.name = PartName { worker: worker + 1, index, ..self.name };
            self.writer = PartWriter::new(self.name, self.archive.store.options().part_bytes);
        }
        Ok(())
    }

    fn finish(mut self) -> Result<(u64, Vec<PartEntry>), ArchiveError> {
        self.store()?;
        Ok((self.cut, self.stored))
    }
}

//! The bytes of messages in a snapshot, and of what is known of each.
//!
//! What a record is depends on its kind:
//!
//! | kind | a record |
//! |---|---|
//! | 1, state | the number of a function type, varint; a [record of its state](crate::state) |
//! | 2, what waits for the call of a remote function, or is in it | a byte, 1 if it comes before all others of its address, else 0; a message |
//! | 3, what waits at an address for another attempt at a message | a byte, 1 if it is that message, else 0 since it came later; if it is, how often it was tried, and when it is tried again, varints; a message |
//! | 4, what waited to be handled | a message |
//! | 5, what was sent before the cut, and arrived after it | a message |
//! | 6, an asynchronous operation that was under way | the message that says that its outcome is unknown |
//! | 7, a delayed message | see below |
//!
//! A delayed message has an *identity*, which no other ever has: the execution that set it, the worker
//! that did, and a number that this worker gave to none before, all varints. Its record is a byte: 1
//! if it waits, 2 if it waits no more. Then the identity. If it waits, when it is due, varint; its token,
//! with its length and one more, or varint 0 if it has none; and a message.
//!
//! A message is, in this order:
//!
//! | what | how |
//! |---|---|
//! | the number of its target's function type | varint |
//! | the target's id | an id |
//! | the number of its caller's function type, and one; 0 if nobody sent it | varint |
//! | the caller's id, if somebody sent it | an id |
//! | how many messages led to it | varint |
//! | where it stands | a byte: 0 nowhere, it will be a new event; 1 at a place; 2 at a place, as an ingress record; 3 at a time that nothing holds, it will be a new event |
//! | its ingress time, unless it is nowhere | with its length; MessagePack that names fields |
//! | how deep in the order of time it stands, if it is at a place | varint |
//! | what it says | MessagePack that names fields, to the end |
//!
//! Numbers of function types are those of the worker that wrote the record; a
//! [table](super::types) beside the records has their names. Times at which something is due are
//! milliseconds since the beginning of 1970. [`records`](crate::records) has varints and ids.

use std::fmt;

use super::{Head, Place, TypeIndex};
use crate::address::Id;
use crate::codec::{Codec, CodecError, Unwritable};
use crate::records::{Damage, Reader, put_id, put_varint, put_with_length};

/// What a record of a cut is about. The numbers are stored: they never change. 0 is that of
/// [tables of function types](super::types), and others are those of what other rooms write.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u16)]
pub(crate) enum RecordKind {
    State = 1,
    InFlight = 2,
    Retrying = 3,
    Queued = 4,
    Logged = 5,
    Operation = 6,
    Delayed = 7,
}

impl RecordKind {
    pub(crate) const ALL: [RecordKind; 7] = [
        RecordKind::State,
        RecordKind::InFlight,
        RecordKind::Retrying,
        RecordKind::Queued,
        RecordKind::Logged,
        RecordKind::Operation,
        RecordKind::Delayed,
    ];

    pub(crate) fn number(self) -> u16 {
        self as u16
    }

    /// The kind with this number, if there is one.
    pub(crate) fn of(number: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.number() == number)
    }
}

impl fmt::Display for RecordKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RecordKind::State => "state",
            RecordKind::InFlight => "a message in flight",
            RecordKind::Retrying => "a message that waits for another attempt",
            RecordKind::Queued => "a queued message",
            RecordKind::Logged => "a logged message",
            RecordKind::Operation => "an asynchronous operation",
            RecordKind::Delayed => "a delayed message",
        })
    }
}

/// Who gives numbers to delayed messages: a worker of an execution.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Origin {
    pub(crate) execution: u64,
    pub(crate) worker: u32,
}

/// What a delayed message has that no other ever has. One that was set later on the same worker, or in a
/// later execution, comes later.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Identity {
    pub(crate) origin: Origin,
    pub(crate) sequence: u64,
}

/// Where a message stands, and what keeps its time alive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Standing<T> {
    /// Nothing: it will be a new event.
    Event,
    /// Nothing: it came at this time, and will be a new event.
    Came(T),
    /// It stands at a place, and its time is held.
    Held(Place<T>),
}

/// What a record says of its message: its kind, and what this kind needs.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Note<'a> {
    InFlight {
        /// Whether it comes before all others of its address.
        is_first: bool,
    },
    /// The message that is tried again, or one that came later.
    Retrying(Option<Attempt>),
    Queued,
    Logged,
    Operation,
    Delayed(Delay<'a>),
}

/// A message that is tried again.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attempt {
    /// How often it was tried.
    pub(crate) attempts: u32,
    pub(crate) due_ms: u64,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Delay<'a> {
    pub(crate) identity: Identity,
    pub(crate) due_ms: u64,
    pub(crate) token: Option<&'a str>,
}

impl Note<'_> {
    pub(crate) fn kind(&self) -> RecordKind {
        match self {
            Note::InFlight { .. } => RecordKind::InFlight,
            Note::Retrying(_) => RecordKind::Retrying,
            Note::Queued => RecordKind::Queued,
            Note::Logged => RecordKind::Logged,
            Note::Operation => RecordKind::Operation,
            Note::Delayed(_) => RecordKind::Delayed,
        }
    }

    fn put(&self, to: &mut Vec<u8>) {
        match self {
            Note::InFlight { is_first } => to.push(u8::from(*is_first)),
            Note::Retrying(attempt) => {
                to.push(u8::from(attempt.is_some()));
                if let Some(Attempt { attempts, due_ms }) = attempt {
                    put_varint(to, u64::from(*attempts));
                    put_varint(to, *due_ms);
                }
            }
            Note::Queued | Note::Logged | Note::Operation => {}
            Note::Delayed(Delay { identity, due_ms, token }) => {
                put_identity(to, WAITS, *identity);
                put_varint(to, *due_ms);
                put_varint(to, token.map_or(0, |token| token.len() as u64 + 1));
                to.extend_from_slice(token.unwrap_or_default().as_bytes());
            }
        }
    }
}

const WAITS: u8 = 1;
const GONE: u8 = 2;

fn put_identity(to: &mut Vec<u8>, tag: u8, Identity { origin, sequence }: Identity) {
    to.push(tag);
    put_varint(to, origin.execution);
    put_varint(to, u64::from(origin.worker));
    put_varint(to, sequence);
}

/// Adds the record of a delayed message that waits no more.
pub(crate) fn put_gone(to: &mut Vec<u8>, identity: Identity) {
    put_identity(to, GONE, identity);
}

/// How messages and their times become bytes.
pub(crate) struct Codecs<M, T> {
    pub(crate) messages: Codec<M>,
    pub(crate) times: Codec<T>,
}

impl<M, T> Clone for Codecs<M, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M, T> Copy for Codecs<M, T> {}

/// A message as it is to be written.
pub(crate) struct Written<'a, M, T> {
    pub(crate) note: Note<'a>,
    pub(crate) head: &'a Head,
    /// The numbers of the target's type and of the caller's, if somebody sent it. Those in the head may
    /// be another worker's.
    pub(crate) types: (TypeIndex, Option<TypeIndex>),
    pub(crate) standing: Standing<T>,
    pub(crate) message: &'a M,
}

impl<M, T> Written<'_, M, T> {
    /// Adds its record.
    ///
    /// # Errors
    ///
    /// If the message or its time cannot be written, or not be read again if that is asked for.
    pub(crate) fn put(
        &self,
        to: &mut Vec<u8>,
        codecs: &Codecs<M, T>,
        reads_back: bool,
    ) -> Result<(), Unwritable> {
        let Written { note, head, types: (target_type, caller_type), standing, message } = self;
        note.put(to);
        put_varint(to, u64::from(*target_type));
        put_id(to, &head.target);
        put_varint(to, caller_type.map_or(0, |number| u64::from(number) + 1));
        if caller_type.is_some() {
            put_id(to, &head.caller);
        }
        put_varint(to, u64::from(head.depth));
        let mut put_time = |tag, time| {
            to.push(tag);
            put_with_length(to, |to| codecs.times.store(time, to, reads_back))
        };
        match standing {
            Standing::Event => to.push(0),
            Standing::Came(time) => put_time(3, time)?,
            Standing::Held(Place { time, depth, record }) => {
                put_time(if *record { 2 } else { 1 }, time)?;
                put_varint(to, *depth);
            }
        }
        codecs.messages.store(message, to, reads_back)
    }
}

/// Why there is nothing in a record that could be brought back.
#[derive(Debug)]
pub(crate) enum Unreadable {
    Damaged(Damage),
    /// The time is none of the program's.
    Time(CodecError),
}

impl From<Damage> for Unreadable {
    fn from(damage: Damage) -> Self {
        Unreadable::Damaged(damage)
    }
}

/// What a record of a message says, with its message as it is stored.
#[derive(Debug)]
pub(crate) struct Stored<'r, T> {
    pub(crate) note: Note<'r>,
    pub(crate) target_type: u64,
    pub(crate) target: Id,
    pub(crate) caller: Option<(u64, Id)>,
    pub(crate) depth: u32,
    pub(crate) standing: Standing<T>,
    pub(crate) message: &'r [u8],
}

/// What a record says, of whatever kind but state.
#[derive(Debug)]
pub(crate) enum Said<'r, T> {
    Message(Stored<'r, T>),
    /// A delayed message waits no more.
    Gone(Identity),
}

/// A place is not deeper than this: counting so far takes longer than anybody has.
const DEPTH_MAX: u64 = 1 << 60;

/// Nor was anything tried so often.
const ATTEMPTS_MAX: u32 = u32::MAX / 2;

impl<'r, T> Said<'r, T> {
    /// Reads a record of a kind, which is not state.
    ///
    /// # Errors
    ///
    /// If it is none.
    pub(crate) fn read(
        kind: RecordKind,
        record: &'r [u8],
        times: &Codec<T>,
    ) -> Result<Self, Unreadable> {
        let mut reader = Reader::new(record);
        let note = match kind {
            RecordKind::State => return Err(Unreadable::Damaged("state is no message")),
            RecordKind::InFlight => Note::InFlight { is_first: reader.flag()? },
            RecordKind::Retrying if reader.flag()? => {
                let (attempts, due_ms) = (reader.small()?, reader.varint()?);
                if attempts > ATTEMPTS_MAX {
                    return Err(Unreadable::Damaged("it was tried more often than can be"));
                }
                Note::Retrying(Some(Attempt { attempts, due_ms }))
            }
            RecordKind::Retrying => Note::Retrying(None),
            RecordKind::Queued => Note::Queued,
            RecordKind::Logged => Note::Logged,
            RecordKind::Operation => Note::Operation,
            RecordKind::Delayed => {
                let tag = reader.byte()?;
                let (execution, worker) = (reader.varint()?, reader.small()?);
                let origin = Origin { execution, worker };
                let identity = Identity { origin, sequence: reader.varint()? };
                match tag {
                    WAITS => {}
                    GONE if reader.is_empty() => return Ok(Said::Gone(identity)),
                    _ => return Err(Unreadable::Damaged("it neither waits nor is it gone")),
                }
                let due_ms = reader.varint()?;
                let token = match reader.varint()?.checked_sub(1) {
                    None => None,
                    Some(length) => {
                        let token = str::from_utf8(reader.bytes(length)?);
                        Some(token.map_err(|_| "its token is no text")?)
                    }
                };
                Note::Delayed(Delay { identity, due_ms, token })
            }
        };
        let (target_type, target) = (reader.varint()?, reader.id()?);
        let caller = match reader.varint()?.checked_sub(1) {
            None => None,
            Some(number) => Some((number, reader.id()?)),
        };
        let depth = reader.small()?;
        let standing = match reader.byte()? {
            0 => Standing::Event,
            tag @ 1..=3 => {
                let time = times.read(reader.with_length()?).map_err(Unreadable::Time)?;
                match tag {
                    3 => Standing::Came(time),
                    _ => {
                        let (depth, record) = (reader.varint()?, tag == 2);
                        if depth > DEPTH_MAX {
                            return Err(Unreadable::Damaged("it stands deeper than can be"));
                        }
                        Standing::Held(Place { time, depth, record })
                    }
                }
            }
            _ => return Err(Unreadable::Damaged("it stands nowhere")),
        };
        let message = reader.rest();
        let stored = Stored { note, target_type, target, caller, depth, standing, message };
        Ok(Said::Message(stored))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz::{fuzz, within};
    use crate::placement;

    type Time = (u32, String);

    const CODECS: Codecs<String, Time> = Codecs { messages: *Codec::SERDE, times: *Codec::SERDE };

    fn head(target: &str, caller: &str, depth: u32) -> Head {
        let (target, caller) = (Id::new(target), Id::new(caller));
        let hash = placement::hash(&target);
        let (target_type, caller_type, function) = (77, 78, 79);
        Head {
            target_type,
            caller_type,
            depth,
            function,
            again: true,
            hash,
            target,
            caller,
            names: None,
        }
    }

    fn identity(number: u64) -> Identity {
        let origin = Origin { execution: number, worker: u32::MAX - number as u32 };
        Identity { origin, sequence: u64::MAX - number }
    }

    /// Every note, with every standing, in turn with callers and ids of each form.
    fn samples(check: &mut dyn FnMut(&Written<'_, String, Time>)) {
        let attempt = |attempts, due_ms| Note::Retrying(Some(Attempt { attempts, due_ms }));
        let delay = |token| Note::Delayed(Delay { identity: identity(9), due_ms: 1 << 40, token });
        let time = (300, "t".repeat(200));
        let place = |depth, record| Standing::Held(Place { time: time.clone(), depth, record });
        for note in [
            Note::InFlight { is_first: false },
            Note::InFlight { is_first: true },
            Note::Retrying(None),
            attempt(0, 0),
            attempt(ATTEMPTS_MAX, u64::MAX),
            Note::Queued,
            Note::Logged,
            Note::Operation,
            delay(None),
            delay(Some("")),
            delay(Some("tökén")),
        ] {
            for standing in [
                Standing::Event,
                Standing::Came(time.clone()),
                place(0, false),
                place(0, true),
                place(DEPTH_MAX, true),
            ] {
                for (ids, caller_type) in
                    [(("", "x"), Some(0)), (("18", "0"), None), (("007", "ä"), Some(u32::MAX - 1))]
                {
                    check(&Written {
                        note,
                        head: &head(ids.0, ids.1, u32::MAX),
                        types: (300, caller_type),
                        standing: standing.clone(),
                        message: &"hello".repeat(ids.1.len()),
                    });
                }
            }
        }
    }

    #[test]
    fn messages_are_read_as_they_were_written() {
        let mut seen = 0;
        samples(&mut |written| {
            let mut record = Vec::new();
            written.put(&mut record, &CODECS, true).unwrap();
            let read = Said::read(written.note.kind(), &record, &CODECS.times).unwrap();
            let Said::Message(stored) = read else { panic!("it waits") };
            assert_eq!((stored.note, &stored.standing), (written.note, &written.standing));
            assert_eq!((stored.target_type, &stored.target), (300, &written.head.target));
            let caller = written.types.1.map(|number| (number.into(), written.head.caller.clone()));
            assert_eq!((stored.caller, stored.depth), (caller, u32::MAX));
            assert_eq!(CODECS.messages.read(stored.message).unwrap(), *written.message);
            seen += 1;
        });
        assert_eq!(seen, 11 * 5 * 3);
        let mut record = Vec::new();
        put_gone(&mut record, identity(3));
        let read = Said::read(RecordKind::Delayed, &record, &CODECS.times).unwrap();
        assert!(matches!(read, Said::Gone(gone) if gone == identity(3)));
    }

    /// Whatever it is, it is an error or another record, and the message is read by whoever knows it.
    #[test]
    fn damaged_records_are_errors_or_other_records() {
        let (mut errors, mut all) = (0, 0);
        let mut look = |kind, record: &[u8]| {
            let read = match Said::read(kind, record, &CODECS.times) {
                Ok(Said::Message(stored)) => CODECS.messages.read(stored.message).is_ok(),
                Ok(Said::Gone(_)) => true,
                Err(Unreadable::Damaged(why)) => why.is_empty(),
                Err(Unreadable::Time(why)) => why.to_string().is_empty(),
            };
            errors += u32::from(!read);
            all += 1;
        };
        samples(&mut |written| {
            let mut record = Vec::new();
            written.put(&mut record, &CODECS, false).unwrap();
            let kind = written.note.kind();
            for end in 0..record.len() {
                look(kind, &record[..end]);
            }
            for at in 0..record.len().min(60) {
                let was = record[at];
                for value in [0, 1, 2, 3, 0x7f, 0x80, 0xff, was ^ 0x40] {
                    record[at] = value;
                    look(kind, &record);
                }
                record[at] = was;
            }
            for other in RecordKind::ALL {
                look(other, &record);
            }
        });
        assert!(all > 50_000 && errors > all / 3, "{errors} of {all}");
    }

    /// Reads any bytes as a record of the kind that the first of them says, and writes it again. Whether
    /// they are one.
    fn any_record(input: &[u8]) -> bool {
        let Some((kind, record)) = input.split_first() else { return false };
        let kind = RecordKind::ALL[usize::from(*kind) % RecordKind::ALL.len()];
        let stored = match within(4 * input.len(), || Said::read(kind, record, &CODECS.times)) {
            Err(Unreadable::Damaged(why)) => {
                assert!(!why.is_empty());
                return false;
            }
            Err(Unreadable::Time(_)) => return false,
            Ok(Said::Gone(identity)) => {
                let mut again = Vec::new();
                put_gone(&mut again, identity);
                let read = Said::read(kind, &again, &CODECS.times).unwrap();
                assert!(matches!(read, Said::Gone(gone) if gone == identity));
                return true;
            }
            Ok(Said::Message(stored)) => stored,
        };
        assert_eq!(stored.note.kind(), kind);
        let (Ok(target_type), Ok(caller_type)) = (
            TypeIndex::try_from(stored.target_type),
            stored.caller.as_ref().map(|(number, _)| TypeIndex::try_from(*number)).transpose(),
        ) else {
            return false;
        };
        let Ok(message) = CODECS.messages.read(stored.message) else { return false };
        let mut head = head("", "", stored.depth);
        head.target = stored.target.clone();
        head.caller = stored.caller.clone().map_or(Id::new(""), |(_, id)| id);
        let written = Written {
            note: stored.note,
            head: &head,
            types: (target_type, caller_type),
            standing: stored.standing.clone(),
            message: &message,
        };
        let mut again = Vec::new();
        written.put(&mut again, &CODECS, true).unwrap();
        let Ok(Said::Message(read)) = Said::read(kind, &again, &CODECS.times) else {
            panic!("{again:02x?} is what was written");
        };
        assert_eq!((read.note, &read.standing), (stored.note, &stored.standing));
        assert_eq!((read.target_type, &read.target), (stored.target_type, &stored.target));
        assert_eq!((read.caller, read.depth), (stored.caller, stored.depth));
        assert_eq!(CODECS.messages.read(read.message).unwrap(), message);
        true
    }

    #[test]
    fn any_bytes_are_a_record_or_an_error_and_say_the_same_when_they_are_written_again() {
        let kind_of = |kind: RecordKind| {
            RecordKind::ALL.iter().position(|known| *known == kind).expect("these are all") as u8
        };
        let mut inputs = Vec::new();
        samples(&mut |written| {
            let mut input = vec![kind_of(written.note.kind())];
            written.put(&mut input, &CODECS, false).unwrap();
            inputs.push(input);
        });
        let mut gone = vec![kind_of(RecordKind::Delayed)];
        put_gone(&mut gone, identity(9));
        inputs.push(gone);
        fuzz("messages", 150_000, &inputs, any_record);
    }

    #[test]
    fn what_no_loop_could_bear_is_damage() {
        let head = head("a", "b", 0);
        let place =
            |depth| Standing::Held(Place { time: (0, String::new()), depth, record: false });
        let read = |note: Note<'_>, depth| {
            let (types, message) = ((1, None), &String::new());
            let standing = place(depth);
            let mut record = Vec::new();
            let written = Written { note, head: &head, types, standing, message };
            written.put(&mut record, &CODECS, true).unwrap();
            match Said::read(note.kind(), &record, &CODECS.times) {
                Ok(_) => String::new(),
                Err(Unreadable::Damaged(why)) => why.to_owned(),
                Err(Unreadable::Time(_)) => panic!("the time is one"),
            }
        };
        let attempt = |attempts| Note::Retrying(Some(Attempt { attempts, due_ms: 0 }));
        assert_eq!(read(attempt(ATTEMPTS_MAX), DEPTH_MAX), "");
        assert_eq!(read(Note::Queued, DEPTH_MAX + 1), "it stands deeper than can be");
        assert_eq!(read(attempt(ATTEMPTS_MAX + 1), 0), "it was tried more often than can be");
    }

    /// What was stored once is read for ever.
    #[test]
    fn records_have_the_bytes_they_always_had() {
        let bytes = |note, caller_type, standing| {
            let (head, message) = (&head("7", "b", 300), &"hi".to_owned());
            let mut record = Vec::new();
            let written = Written { note, head, types: (2, caller_type), standing, message };
            written.put(&mut record, &CODECS, true).unwrap();
            record
        };
        let time = || (5, "t".to_owned());
        let place = |record| Standing::Held(Place { time: time(), depth: 1, record });
        let attempt = Note::Retrying(Some(Attempt { attempts: 3, due_ms: 128 }));
        let origin = Origin { execution: 4, worker: 1 };
        let identity = Identity { origin, sequence: 9 };
        let delay = Note::Delayed(Delay { identity, due_ms: 7, token: Some("k") });
        let said = b"\xa2hi";
        let at = b"\x04\x92\x05\xa1t";
        let of_seven = [2, 1, 7];
        assert_eq!(
            bytes(Note::InFlight { is_first: true }, Some(0), place(false)),
            [&[1][..], &of_seven, &[1, 2, b'b', 0xac, 2, 1], at, &[1], said].concat()
        );
        assert_eq!(
            bytes(attempt, None, place(true)),
            [&[1, 3, 0x80, 1][..], &of_seven, &[0, 0xac, 2, 2], at, &[1], said].concat()
        );
        assert_eq!(
            bytes(Note::Queued, None, Standing::Came(time())),
            [&of_seven[..], &[0, 0xac, 2, 3], at, said].concat()
        );
        assert_eq!(
            bytes(delay, Some(0), Standing::Event),
            [&[1, 4, 1, 9, 7, 2, b'k'][..], &of_seven, &[1, 2, b'b', 0xac, 2, 0], said].concat()
        );
        let mut gone = Vec::new();
        put_gone(&mut gone, identity);
        assert_eq!(gone, [2, 4, 1, 9]);
    }

    #[test]
    fn kinds_have_the_numbers_they_always_had() {
        let numbers = RecordKind::ALL.map(RecordKind::number);
        assert_eq!(numbers, [1, 2, 3, 4, 5, 6, 7]);
        for kind in RecordKind::ALL {
            assert_eq!(RecordKind::of(kind.number()), Some(kind));
        }
        assert!([0, 8, 9, u16::MAX].into_iter().all(|number| RecordKind::of(number).is_none()));
    }
}

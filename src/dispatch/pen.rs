//! Writes the messages of the open cut: into the sink, or, if something is about to happen to them that
//! the walk has not come to, into records of its own, which are passed on before all else.

use super::names::Names;
use super::record::{Codecs, Note, RecordKind, Written};
use super::{Place, TypeIndex};
use crate::address::{Address, Id, TypeName};
use crate::codec::Unwritable;
use crate::placement;
use crate::records::{Mark, Records};
use crate::state::{Budget, WriteError};

/// Takes the records of a cut.
pub(crate) trait CutSink {
    /// Takes a record, which is these pieces, one after the other. It refers to these function types
    /// by their numbers. Those of a kind and a bin are to be restored in the order in which they come.
    fn put(&mut self, kind: RecordKind, bin: u16, types: &[TypeIndex], record: &[&[u8]]);
}

/// Why a cut cannot be written. It must be abandoned.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CutError {
    /// A piece of state cannot be written, or not be read again.
    #[error("of function type \"{function_type}\": {why}")]
    State { function_type: TypeName, why: WriteError },
    /// A message, or its time, cannot be written, or not be read again.
    #[error("a message for \"{address}\" {why}")]
    Message { address: Address, why: Unwritable },
    /// An operation is under way, and no message says that its outcome is unknown.
    #[error("\"{address}\" has no message for an unknown outcome: it panicked: {why}")]
    Outcome { address: Address, why: String },
    /// A delta was taken, where the state of a function type can only be written in full.
    #[error("the state of function type \"{0}\" can only be written in full")]
    StateWantsFull(TypeName),
    /// A delta was taken, where delayed messages can only be written in full.
    #[error("delayed messages can only be written in full")]
    DelayedWantFull,
}

impl CutError {
    /// Whether a full cut could be written.
    pub(crate) fn wants_full(&self) -> bool {
        matches!(self, CutError::StateWantsFull(_) | CutError::DelayedWantFull)
    }
}

/// Why a message is no record, with its address.
#[derive(Debug)]
pub(super) struct Fault {
    target_type: TypeIndex,
    id: Id,
    why: Why,
}

#[derive(Debug)]
enum Why {
    Message(Unwritable),
    Outcome(String),
}

impl Fault {
    /// There is no message for an unknown outcome.
    pub(super) fn outcome(target_type: TypeIndex, id: Id, why: String) -> Self {
        Fault { target_type, id, why: Why::Outcome(why) }
    }

    pub(super) fn named(self, names: &Names) -> CutError {
        let address = Address::new(names.name(self.target_type), self.id);
        match self.why {
            Why::Message(why) => CutError::Message { address, why },
            Why::Outcome(why) => CutError::Outcome { address, why },
        }
    }
}

/// Tells where something stands that is held.
pub(super) type Places<'a, T, H> = &'a dyn Fn(&H) -> Place<T>;

/// What stands before a record that waits to be passed on: its kind, and two types, of which each may
/// be none.
const HEADER: usize = 2 + 2 * 4;
const NO_TYPE: TypeIndex = TypeIndex::MAX;

/// Writes messages of one cut after another.
pub(super) struct Pen<M, T> {
    codecs: Codecs<M, T>,
    /// A header, and a record.
    scratch: Vec<u8>,
    kept: Records,
    kept_at: Mark,
    /// By number of the target's type, whether a message was read back in this cut. `None` if none is
    /// to be.
    checked: Option<Vec<bool>>,
    /// What could not be written when it should have been.
    failed: Option<Fault>,
    /// Whether what is overtaken is lost, so that tests can show that they notice.
    #[cfg(test)]
    pub(super) keeps_nothing: bool,
}

impl<M, T> Pen<M, T> {
    pub(super) fn new(codecs: Codecs<M, T>) -> Self {
        Pen {
            codecs,
            scratch: Vec::new(),
            kept: Records::default(),
            kept_at: Mark::default(),
            checked: None,
            failed: None,
            #[cfg(test)]
            keeps_nothing: false,
        }
    }

    /// Begins with another cut. `reads_back` says that a message for each type is read back.
    pub(super) fn begin(&mut self, reads_back: bool) {
        self.end();
        self.checked = reads_back.then(Vec::new);
    }

    /// Forgets what was kept.
    pub(super) fn end(&mut self) {
        (self.kept, self.kept_at, self.failed) = (Records::default(), Mark::default(), None);
    }

    /// How much memory that takes which was overtaken.
    pub(super) fn bytes(&self) -> usize {
        self.kept.bytes()
    }

    /// Keeps a message for the cut as it is, before it is changed.
    pub(super) fn keep(&mut self, written: &Written<'_, M, T>) {
        #[cfg(test)]
        if self.keeps_nothing {
            return;
        }
        if self.failed.is_some() {
            return;
        }
        match self.write(written) {
            Ok(bin) => self.kept.push(bin, &self.scratch),
            Err(fault) => self.failed = Some(fault),
        }
    }

    /// Notes that something cannot be written.
    pub(super) fn fail(&mut self, fault: Fault) {
        self.failed.get_or_insert(fault);
    }

    /// What could not be written when it should have been.
    pub(super) fn take_failure(&mut self) -> Option<Fault> {
        self.failed.take()
    }

    /// Makes a record in the scratch space, and says of which bin.
    fn write(&mut self, written: &Written<'_, M, T>) -> Result<u16, Fault> {
        let Pen { scratch, codecs, checked, .. } = self;
        let (target_type, caller_type) = written.types;
        scratch.clear();
        scratch.extend_from_slice(&written.note.kind().number().to_le_bytes());
        scratch.extend_from_slice(&target_type.to_le_bytes());
        scratch.extend_from_slice(&caller_type.unwrap_or(NO_TYPE).to_le_bytes());
        let reads_back = checked.as_mut().is_some_and(|checked| {
            let at = target_type as usize;
            if checked.len() <= at {
                checked.resize(at + 1, false);
            }
            !std::mem::replace(&mut checked[at], true)
        });
        written.put(scratch, codecs, reads_back).map_err(|why| Fault {
            target_type,
            id: written.head.target.clone(),
            why: Why::Message(why),
        })?;
        let hash = match written.note {
            Note::Delayed(_) => written.head.home(),
            _ => written.head.hash,
        };
        Ok(placement::bin(hash) as u16)
    }

    /// Writes a message.
    pub(super) fn put(
        &mut self,
        written: &Written<'_, M, T>,
        sink: &mut dyn CutSink,
    ) -> Result<usize, Fault> {
        let bin = self.write(written)?;
        pass_on(bin, &self.scratch, sink);
        Ok(self.scratch.len())
    }

    /// Passes on what was kept, as far as there is room.
    pub(super) fn pass_on(&mut self, budget: &mut Budget, sink: &mut dyn CutSink) {
        while has_room(budget)
            && let Some((bin, record)) = self.kept.next(&mut self.kept_at)
        {
            pass_on(bin, record, sink);
            budget.units -= 1;
            budget.bytes = budget.bytes.saturating_sub(record.len());
            self.kept.forget_before(&mut self.kept_at);
        }
    }
}

/// Passes on a record that a header stands before.
fn pass_on(bin: u16, record: &[u8], sink: &mut dyn CutSink) {
    let (header, record) = record.split_at(HEADER);
    let kind = RecordKind::of(u16::from_le_bytes([header[0], header[1]]));
    let number = |at: usize| {
        let bytes = header[at..at + 4].try_into().expect("it has four bytes");
        TypeIndex::from_le_bytes(bytes)
    };
    let types = [number(2), number(6)];
    let count = types.iter().take_while(|number| **number != NO_TYPE).count();
    sink.put(kind.expect("it was written here"), bin, &types[..count], &[record]);
}

fn has_room(budget: &Budget) -> bool {
    budget.units > 0 && budget.bytes > 0
}

/// Writes some of what an open cut contains: as much as there is room for.
pub(super) struct Slice<'a, M, T> {
    pub(super) pen: &'a mut Pen<M, T>,
    pub(super) budget: &'a mut Budget,
    pub(super) sink: &'a mut dyn CutSink,
}

impl<M, T> Slice<'_, M, T> {
    pub(super) fn has_room(&self) -> bool {
        has_room(self.budget)
    }

    /// Notes that something was looked at.
    pub(super) fn look(&mut self) {
        self.budget.units = self.budget.units.saturating_sub(1);
    }

    /// Writes a message. To have looked at it is another matter.
    pub(super) fn write(&mut self, written: &Written<'_, M, T>) -> Result<(), Fault> {
        let bytes = self.pen.put(written, self.sink)?;
        self.budget.bytes = self.budget.bytes.saturating_sub(bytes);
        Ok(())
    }

    /// Passes on a record of a delayed message that waits no more.
    pub(super) fn pass_on_gone(&mut self, bin: u16, record: &[u8]) {
        self.look();
        self.budget.bytes = self.budget.bytes.saturating_sub(record.len());
        self.sink.put(RecordKind::Delayed, bin, &[], &[record]);
    }
}

//! What one invocation of a function did, as data, and what a test expects of it.

use std::any::{Any, type_name};
use std::cell::{Cell, RefCell};
use std::fmt::{self, Debug};
use std::time::Duration;

use super::difference::{difference, shown};
use crate::address::Address;
use crate::dead_letter::Reason;
use crate::dispatch::{OperationKey, Task};
use crate::egress::Egress;
use crate::message::Envelope;

/// A message that a function sent with a delay.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Delayed<M> {
    /// After how long it is to be sent.
    pub after: Duration,
    /// The token it can be cancelled by, if it has one.
    pub token: Option<String>,
    /// What is sent, to whom, and by whom.
    pub envelope: Envelope<M>,
}

/// An asynchronous operation that a function began. It does nothing by itself:
/// [`complete`](super::FunctionHarness::complete) runs it, or [`lose`](super::FunctionHarness::lose) says
/// that nobody knows what became of it.
pub struct Operation<M> {
    pub(super) key: OperationKey,
    pub(super) task: Task<M>,
}

impl<M> Debug for Operation<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Operation").field("key", &self.key).finish_non_exhaustive()
    }
}

/// What was emitted to one egress.
pub(super) struct Emitted {
    pub(super) egress: &'static str,
    /// A `Vec` of the egress's type.
    pub(super) records: Box<dyn Any>,
}

/// What one invocation of a function did. State is looked at through the
/// [harness](super::FunctionHarness::with).
///
/// Assertions name what differs. Each covers all of its kind: what was sent, say, is sent in this order and
/// nothing else. They can be chained, and [`assert_nothing_else`](Self::assert_nothing_else) ends a chain.
#[must_use = "what the function did is to be looked at"]
pub struct Invocation<M> {
    pub(super) address: Address,
    pub(super) outcome: Result<(), Reason>,
    pub(super) sent: Vec<Envelope<M>>,
    pub(super) delayed: Vec<Delayed<M>>,
    pub(super) cancelled: Vec<String>,
    pub(super) emitted: Vec<Emitted>,
    pub(super) operations: Vec<Operation<M>>,
    pub(super) seen: Seen,
}

/// What a test has looked at.
#[derive(Default)]
pub(super) struct Seen {
    sent: Cell<bool>,
    delayed: Cell<bool>,
    cancelled: Cell<bool>,
    failure: Cell<bool>,
    operations: Cell<bool>,
    emitted: RefCell<Vec<&'static str>>,
}

impl<M> Invocation<M> {
    /// The address that handled the message.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Why it failed, if it did. Then it did nothing else.
    pub fn failure(&self) -> Option<&Reason> {
        self.outcome.as_ref().err()
    }

    /// What it sent, in order.
    pub fn sent(&self) -> &[Envelope<M>] {
        &self.sent
    }

    /// What it sent with a delay, and did not cancel again itself, in order.
    pub fn delayed(&self) -> &[Delayed<M>] {
        &self.delayed
    }

    /// The tokens of earlier messages that it cancelled.
    pub fn cancelled(&self) -> &[String] {
        &self.cancelled
    }

    /// What it emitted to an egress, in order.
    ///
    /// # Panics
    ///
    /// If the egress was bound with another type.
    #[track_caller]
    pub fn emitted<E: 'static>(&self, egress: Egress<E>) -> &[E] {
        let of_egress = self.emitted.iter().find(|emitted| emitted.egress == egress.name());
        of_egress.map_or(&[], |emitted| match emitted.records.downcast_ref::<Vec<E>>() {
            Some(records) => records,
            None => panic!("\"{}\" does not carry {}", egress.name(), type_name::<E>()),
        })
    }

    /// The asynchronous operations that it began, in order.
    pub fn take_operations(&mut self) -> Vec<Operation<M>> {
        self.seen.operations.set(true);
        std::mem::take(&mut self.operations)
    }

    /// Asserts that it did not fail.
    ///
    /// # Panics
    ///
    /// If it did.
    #[track_caller]
    pub fn assert_succeeded(&self) -> &Self {
        if let Err(reason) = &self.outcome {
            panic!("{} was to succeed, but {reason}", self.address);
        }
        self
    }

    /// Asserts that it failed, for a reason whose text contains this.
    ///
    /// # Panics
    ///
    /// If it did not.
    #[track_caller]
    pub fn assert_failed(&self, why: &str) -> &Self {
        self.seen.failure.set(true);
        match &self.outcome {
            Ok(()) => panic!("{} was to fail: {why}", self.address),
            Err(reason) if reason.to_string().contains(why) => self,
            Err(reason) => panic!("{} was to fail with \"{why}\", but {reason}", self.address),
        }
    }

    /// Asserts that it cancelled the messages of these tokens, in any order.
    ///
    /// # Panics
    ///
    /// If it cancelled others.
    #[track_caller]
    pub fn assert_cancelled<'a>(&self, tokens: impl IntoIterator<Item = &'a str>) -> &Self {
        self.seen.cancelled.set(true);
        let mut expected: Vec<String> = tokens.into_iter().map(str::to_owned).collect();
        let mut found = self.cancelled.clone();
        expected.sort_unstable();
        found.sort_unstable();
        self.differs("cancelled", &expected, &found);
        self
    }

    /// Asserts that it began so many asynchronous operations.
    ///
    /// # Panics
    ///
    /// If it began more, or fewer.
    #[track_caller]
    pub fn assert_operations(&self, count: usize) -> &Self {
        self.seen.operations.set(true);
        let begun = self.operations.len();
        assert_eq!(begun, count, "{} began {begun} operations, not {count}", self.address);
        self
    }

    #[track_caller]
    fn differs(&self, what: &str, expected: &[String], found: &[String]) {
        if let Some(difference) = difference(expected, found) {
            let failed = self.failure().map(|reason| format!("; it failed: {reason}"));
            let failed = failed.unwrap_or_default();
            panic!("{} {what} something else{failed} {difference}", self.address);
        }
    }
}

impl<M: Debug> Invocation<M> {
    /// Asserts that it sent these messages to these addresses, in this order. Who sends them is clear.
    ///
    /// # Panics
    ///
    /// If it sent others.
    #[track_caller]
    pub fn assert_sent(&self, expected: impl IntoIterator<Item = Envelope<M>>) -> &Self {
        self.seen.sent.set(true);
        let list = |envelope: &Envelope<M>| shown(&envelope.target, &envelope.message);
        let expected: Vec<_> = expected.into_iter().map(|envelope| list(&envelope)).collect();
        let found: Vec<_> = self.sent.iter().map(list).collect();
        self.differs("sent", &expected, &found);
        self
    }

    /// Asserts that it sent these messages with these delays, in this order, whatever their tokens.
    ///
    /// # Panics
    ///
    /// If it sent others.
    #[track_caller]
    pub fn assert_delayed(
        &self,
        expected: impl IntoIterator<Item = (Duration, Envelope<M>)>,
    ) -> &Self {
        self.seen.delayed.set(true);
        let list = |after: Duration, envelope: &Envelope<M>| {
            format!("after {after:?}, {}", shown(&envelope.target, &envelope.message))
        };
        let expected = expected.into_iter().map(|(after, envelope)| list(after, &envelope));
        let found = self.delayed.iter().map(|delayed| list(delayed.after, &delayed.envelope));
        self.differs("delayed", &expected.collect::<Vec<_>>(), &found.collect::<Vec<_>>());
        self
    }

    /// Asserts that it emitted these records to an egress, in this order.
    ///
    /// # Panics
    ///
    /// If it emitted others, or the egress was bound with another type.
    #[track_caller]
    pub fn assert_emitted<E: Debug + 'static>(
        &self,
        egress: Egress<E>,
        expected: impl IntoIterator<Item = E>,
    ) -> &Self {
        self.seen.emitted.borrow_mut().push(egress.name());
        let expected = expected.into_iter().map(|record| format!("{record:?}"));
        let found = self.emitted(egress).iter().map(|record| format!("{record:?}"));
        let what = format!("emitted to \"{}\"", egress.name());
        self.differs(&what, &expected.collect::<Vec<_>>(), &found.collect::<Vec<_>>());
        self
    }

    /// Asserts that it did nothing that no assertion before was about: that it did not fail, sent nothing,
    /// and so on.
    ///
    /// # Panics
    ///
    /// If it did.
    #[track_caller]
    pub fn assert_nothing_else(&self) {
        let Seen { sent, delayed, cancelled, failure, operations, emitted } = &self.seen;
        if !failure.get() {
            self.assert_succeeded();
        }
        if !sent.get() {
            self.assert_sent([]);
        }
        if !delayed.get() {
            self.assert_delayed([]);
        }
        if !cancelled.get() {
            self.assert_cancelled([]);
        }
        if !operations.get() {
            self.assert_operations(0);
        }
        let emitted = emitted.borrow();
        let other = self.emitted.iter().find(|other| !emitted.contains(&other.egress));
        if let Some(other) = other {
            panic!("{} emitted to \"{}\"", self.address, other.egress);
        }
    }
}

impl<M: Debug> Debug for Invocation<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Invocation")
            .field("address", &self.address)
            .field("outcome", &self.outcome)
            .field("sent", &self.sent)
            .field("delayed", &self.delayed)
            .field("cancelled", &self.cancelled)
            .finish_non_exhaustive()
    }
}

//! Addresses that wait for another attempt: the message that failed, and what came behind it.
//!
//! Only such addresses have a mailbox. What is in one is handled before anything that arrives later,
//! in the order in which it came.

use std::collections::{HashMap, VecDeque};

use super::{Head, Routed, TypeIndex};
use crate::address::Id;
use crate::retry::Retry;
use crate::state::Wheel;

/// A message with the time that is held for it; none if it will be a new event.
pub(super) type Kept<M, H> = (Routed<M>, Option<H>);

struct Mailbox<M, H> {
    /// The message that failed; none while it is on its way to another attempt.
    failed: Option<Kept<M, H>>,
    /// How often it was tried.
    attempts: u32,
    behind: VecDeque<Kept<M, H>>,
}

/// The mailboxes of one worker.
pub(super) struct Mailboxes<M, H> {
    boxes: HashMap<(TypeIndex, Id), Mailbox<M, H>>,
    due: Wheel<(TypeIndex, Id)>,
    /// How many messages are kept without a time held for them.
    detached: usize,
}

impl<M, H> Default for Mailboxes<M, H> {
    fn default() -> Self {
        Mailboxes { boxes: HashMap::new(), due: Wheel::default(), detached: 0 }
    }
}

/// What a message is to its address's mailbox.
pub(super) enum Arrival {
    /// There is none.
    Free,
    /// It is the message that failed before, this often.
    Again(u32),
    /// It must wait.
    Behind,
}

impl<M, H> Mailboxes<M, H> {
    /// Whether messages are kept that will be new events.
    pub(super) fn await_events(&self) -> bool {
        self.detached > 0
    }

    pub(super) fn wake_at(&self) -> Option<u64> {
        self.due.wake_at()
    }

    /// What a message that arrives is to its address's mailbox.
    #[inline]
    pub(super) fn meet(&self, head: &Head) -> Arrival {
        if self.boxes.is_empty() {
            return Arrival::Free;
        }
        match self.boxes.get(&(head.target_type, head.target.clone())) {
            None => Arrival::Free,
            Some(mailbox) if head.again => Arrival::Again(mailbox.attempts),
            Some(_) => Arrival::Behind,
        }
    }

    /// Keeps a message that must wait.
    pub(super) fn keep_behind(&mut self, routed: Routed<M>, held: Option<H>) {
        self.detached += usize::from(held.is_none());
        let address = (routed.head.target_type, routed.head.target.clone());
        let mailbox = self.boxes.get_mut(&address).expect("the message met its mailbox");
        mailbox.behind.push_back((routed, held));
    }

    /// Keeps a message that failed for the `attempts`th time until it is tried again.
    pub(super) fn keep_failed(
        &mut self,
        routed: Routed<M>,
        held: Option<H>,
        attempts: u32,
        retry: &Retry,
        now_ms: u64,
    ) {
        self.detached += usize::from(held.is_none());
        let address = (routed.head.target_type, routed.head.target.clone());
        let chance = routed.head.hash ^ u64::from(attempts).rotate_left(32) ^ now_ms;
        self.due.set(now_ms.saturating_add(retry.wait_ms(attempts, chance)), address.clone());
        let empty = || Mailbox { failed: None, attempts: 0, behind: VecDeque::new() };
        let mailbox = self.boxes.entry(address).or_insert_with(empty);
        let mut routed = routed;
        routed.head.again = true;
        mailbox.failed = Some((routed, held));
        mailbox.attempts = attempts;
    }

    /// The next message that is due to be tried again.
    pub(super) fn next_due(&mut self, now_ms: u64) -> Option<Kept<M, H>> {
        let (_, address) = self.due.next_due(now_ms)?;
        let mailbox = self.boxes.get_mut(&address).expect("a mailbox lasts until it is tried");
        let kept = mailbox.failed.take().expect("it is tried once for each failure");
        self.detached -= usize::from(kept.1.is_none());
        Some(kept)
    }

    /// Removes an address's mailbox, whose message is done with, and returns what came behind.
    pub(super) fn close(&mut self, head: &Head) -> VecDeque<Kept<M, H>> {
        let mailbox = self.boxes.remove(&(head.target_type, head.target.clone()));
        let behind = mailbox.map(|mailbox| mailbox.behind).unwrap_or_default();
        self.detached -= behind.iter().filter(|(_, held)| held.is_none()).count();
        behind
    }
}

//! Delayed messages: what waits until it is due, and the tokens by which it can be taken back.
//!
//! A message waits where its sender lives. A token belongs to its sender's address; it is in use
//! from the sending until the message is sent off or taken back.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use hashbrown::HashTable;

use super::{Head, Routed, TypeIndex};
use crate::address::Id;
use crate::state::{Wheel, WheelKey};

struct Delayed<M> {
    routed: Routed<M>,
    token: Option<Box<str>>,
}

/// What one invocation does to delayed messages, when it takes effect.
pub(super) enum Change<M> {
    Set { due_ms: u64, token: Option<Box<str>>, routed: Routed<M> },
    Cancel(WheelKey),
}

/// The delayed messages of one worker.
pub(super) struct Later<M> {
    wheel: Wheel<Delayed<M>>,
    /// The messages with a token, by sender and token.
    tokens: HashTable<WheelKey>,
    hasher: RandomState,
}

impl<M> Default for Later<M> {
    fn default() -> Self {
        let (wheel, tokens) = (Wheel::default(), HashTable::new());
        Later { wheel, tokens, hasher: RandomState::new() }
    }
}

/// Whether a token of this sender belongs to a message.
fn is_of<M>(delayed: &Delayed<M>, sender_type: TypeIndex, sender: &Id, token: &str) -> bool {
    let head = &delayed.routed.head;
    delayed.token.as_deref() == Some(token)
        && head.caller_type == sender_type
        && head.caller == *sender
}

impl<M> Later<M> {
    /// How many messages wait.
    pub(super) fn len(&self) -> usize {
        self.wheel.len()
    }

    /// When to look again.
    pub(super) fn wake_at(&self) -> Option<u64> {
        self.wheel.wake_at()
    }

    /// The message that waits with a token.
    pub(super) fn find(&self, sender: &Head, token: &str) -> Option<WheelKey> {
        let (of, id) = (sender.target_type, &sender.target);
        let same = |key: &WheelKey| {
            self.wheel.get(*key).is_some_and(|delayed| is_of(delayed, of, id, token))
        };
        self.tokens.find(self.hasher.hash_one((of, id, token)), same).copied()
    }

    /// Makes what an invocation did take effect, in order.
    pub(super) fn apply(&mut self, changes: impl Iterator<Item = Change<M>>) {
        for change in changes {
            match change {
                Change::Set { due_ms, token, routed } => self.set(due_ms, token, routed),
                Change::Cancel(key) => {
                    self.forget_token(key);
                    self.wheel.take_back(key);
                }
            }
        }
    }

    fn set(&mut self, due_ms: u64, token: Option<Box<str>>, routed: Routed<M>) {
        let has_token = token.is_some();
        let key = self.wheel.set(due_ms, Delayed { routed, token });
        if has_token {
            let Later { wheel, tokens, hasher } = self;
            let hash = |key: &WheelKey| hash_of(wheel, hasher, *key);
            tokens.insert_unique(hash(&key), key, hash);
        }
    }

    fn forget_token(&mut self, key: WheelKey) {
        let hash = hash_of(&self.wheel, &self.hasher, key);
        if let Ok(entry) = self.tokens.find_entry(hash, |other| *other == key) {
            entry.remove();
        }
    }

    /// The next message that is due at `now_ms`. It begins a chain of its own.
    pub(super) fn next_due(&mut self, now_ms: u64) -> Option<Routed<M>> {
        let key = self.wheel.peek_due(now_ms)?;
        if self.wheel.get(key).is_some_and(|delayed| delayed.token.is_some()) {
            self.forget_token(key);
        }
        let Delayed { mut routed, .. } = self.wheel.take_back(key);
        routed.head.depth = 0;
        Some(routed)
    }
}

/// The hash of a message's sender and token.
fn hash_of<M>(wheel: &Wheel<Delayed<M>>, hasher: &RandomState, key: WheelKey) -> u64 {
    let delayed = wheel.get(key).expect("the key names a message that waits");
    let head = &delayed.routed.head;
    let token = delayed.token.as_deref().unwrap_or_default();
    hasher.hash_one((head.caller_type, &head.caller, token))
}

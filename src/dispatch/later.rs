//! Delayed messages: what waits until it is due, and the tokens by which it can be taken back.
//!
//! A message waits where its sender lives. A token belongs to its sender's address; it is in use
//! from the sending until the message is sent off or taken back.
//!
//! A cut contains what waits, or what was set since the cut before it that counts, and which of the messages
//! before that wait no more. Messages are numbered as they are set, so their numbers tell which of
//! these they belong to. A message that is about to go, and that a walk has not come to, is written
//! first. A walk goes through the wheel by keys and passes over chunks of them in which none is new.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use hashbrown::HashTable;

use super::counts::Tally;
use super::pen::{Fault, Pen, Slice};
use super::record::{self, Delay, Identity, Note, Origin, Standing, Written};
use super::{Head, Routed, TypeIndex};
use crate::address::Id;
use crate::placement;
use crate::state::{Tombstone, Tombstones, Wheel, WheelKey};

struct Delayed<M> {
    routed: Routed<M>,
    token: Option<Box<str>>,
    /// How many messages its origin had set before.
    sequence: u64,
    /// Which of the [origins](Later::origins) it has.
    origin: u32,
}

/// This worker, among the origins.
const OWN: u32 = 0;

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
    /// Who set the messages that wait: this worker, and then others, from whose cuts they come.
    origins: Vec<Origin>,
    /// How many messages this worker has set.
    count: u64,
    /// By chunk of keys, how many messages it had set with the last one that it set there.
    newest: Vec<u64>,
    /// What waits, by the type of the target.
    pub(super) present: Tally,
    /// If cuts are taken.
    cuts: Option<Box<Cuts>>,
}

/// Keys that are passed over together.
const CHUNK: u32 = 4096;

/// Which cuts were taken, and what went between them.
struct Cuts {
    /// The number of cuts that were taken, and one.
    epoch: u32,
    /// The latest cut that counts: its epoch, and how many messages this worker had set by then. 0 and 0
    /// for what was restored.
    committed: (u32, u64),
    /// The same of a cut that is neither committed nor abandoned.
    pending: Option<(u32, u64)>,
    tombstones: Tombstones,
    walk: Option<Walk>,
    /// Whether no tombstone is kept, so that tests can show that they notice.
    #[cfg(test)]
    keeps_no_tombstones: bool,
}

/// A cut that is being written.
struct Walk {
    /// How many messages this worker had set at the cut that a delta follows.
    since: Option<u64>,
    /// How many it had set when the cut was taken.
    until: u64,
    epoch: u32,
    /// Where in the tombstones it is; `None` behind the last.
    tombstones: Option<Tombstone>,
    /// The key to look at next, and where they ended.
    at: WheelKey,
    end: WheelKey,
}

impl Walk {
    fn contains<M>(&self, delayed: &Delayed<M>) -> bool {
        match (delayed.origin, self.since) {
            (OWN, since) => {
                delayed.sequence < self.until && since.is_none_or(|since| delayed.sequence >= since)
            }
            (_, since) => since.is_none(),
        }
    }
}

impl<M> Default for Later<M> {
    fn default() -> Self {
        Later {
            wheel: Wheel::default(),
            tokens: HashTable::new(),
            hasher: RandomState::new(),
            origins: vec![Origin::default()],
            count: 0,
            newest: Vec::new(),
            present: Tally::default(),
            cuts: None,
        }
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

    /// Makes what an invocation did take effect, in order. What it cancels is written first, if the
    /// open cut needs it.
    pub(super) fn apply<T>(
        &mut self,
        changes: impl Iterator<Item = Change<M>>,
        mut pen: Option<&mut Pen<M, T>>,
    ) {
        for change in changes {
            match change {
                Change::Set { due_ms, token, routed } => self.set(due_ms, token, routed),
                Change::Cancel(key) => {
                    self.forget_token(key);
                    self.note_gone(key, pen.as_deref_mut());
                    self.take_off(key);
                }
            }
        }
    }

    /// Sets a message that no cut contains yet.
    pub(super) fn set(&mut self, due_ms: u64, token: Option<Box<str>>, routed: Routed<M>) {
        let sequence = self.count;
        self.count += 1;
        let key = self.keep(due_ms, Delayed { routed, token, sequence, origin: OWN });
        let chunk = (key / CHUNK) as usize;
        if self.newest.len() <= chunk {
            self.newest.resize(chunk + 1, 0);
        }
        self.newest[chunk] = self.count;
    }

    fn keep(&mut self, due_ms: u64, delayed: Delayed<M>) -> WheelKey {
        let has_token = delayed.token.is_some();
        self.present.add(delayed.routed.head.target_type, 1);
        let key = self.wheel.set(due_ms, delayed);
        if has_token {
            let Later { wheel, tokens, hasher, .. } = self;
            let hash = |key: &WheelKey| hash_of(wheel, hasher, *key);
            tokens.insert_unique(hash(&key), key, hash);
        }
        key
    }

    fn forget_token(&mut self, key: WheelKey) {
        let hash = hash_of(&self.wheel, &self.hasher, key);
        if let Ok(entry) = self.tokens.find_entry(hash, |other| *other == key) {
            entry.remove();
        }
    }

    /// The next message that is due at `now_ms`. It begins a chain of its own. It is written first, if
    /// the open cut needs it.
    pub(super) fn next_due<T>(
        &mut self,
        now_ms: u64,
        pen: Option<&mut Pen<M, T>>,
    ) -> Option<Routed<M>> {
        let key = self.wheel.peek_due(now_ms)?;
        if self.wheel.get(key).is_some_and(|delayed| delayed.token.is_some()) {
            self.forget_token(key);
        }
        self.note_gone(key, pen);
        let Delayed { mut routed, .. } = self.take_off(key);
        routed.head.depth = 0;
        Some(routed)
    }

    fn take_off(&mut self, key: WheelKey) -> Delayed<M> {
        let delayed = self.wheel.take_back(key);
        self.present.remove(delayed.routed.head.target_type, 1);
        delayed
    }

    fn identity(&self, delayed: &Delayed<M>) -> Identity {
        let origin = self.origins[delayed.origin as usize];
        Identity { origin, sequence: delayed.sequence }
    }

    /// Keeps for cuts what they must know of a message that is about to go.
    fn note_gone<T>(&mut self, key: WheelKey, pen: Option<&mut Pen<M, T>>) {
        let Some(cuts) = self.cuts.as_deref() else { return };
        let (due_ms, delayed) = self.wheel.get_due(key).expect("it waits");
        let needed = |walk: &Walk| (walk.at..walk.end).contains(&key) && walk.contains(delayed);
        if cuts.walk.as_ref().is_some_and(needed)
            && let Some(pen) = pen
        {
            pen.keep(&written(self.identity(delayed), due_ms, delayed));
        }
        let (_, latest) = cuts.pending.unwrap_or(cuts.committed);
        if delayed.origin == OWN && delayed.sequence >= latest {
            // No cut that counts, or may count yet, has heard of it.
            return;
        }
        let identity = self.identity(delayed);
        let bin = placement::bin(delayed.routed.head.home()) as u16;
        let cuts = self.cuts.as_deref_mut().expect("they are kept");
        cuts.add_tombstone(bin, identity);
    }

    /// From now on cuts can be taken. `origin` names the messages that this worker sets; nobody else ever
    /// has the same. Tombstones may take so much memory; beyond it the next cut must be a full one.
    pub(super) fn keep_cuts(&mut self, origin: Origin, tombstone_bytes_max: usize) {
        assert_eq!((self.count, self.origins.len()), (0, 1), "it is too late");
        self.origins[OWN as usize] = origin;
        self.cuts = Some(Box::new(Cuts {
            epoch: 1,
            committed: (0, 0),
            pending: None,
            tombstones: Tombstones::new(tombstone_bytes_max),
            walk: None,
            #[cfg(test)]
            keeps_no_tombstones: false,
        }));
    }

    fn cuts(&mut self) -> &mut Cuts {
        self.cuts.as_deref_mut().expect("cuts are kept")
    }

    /// Takes a cut, and begins to write it: all that waits, or what changed since the latest cut that
    /// was committed.
    pub(super) fn take_cut(&mut self, is_delta: bool) {
        let (until, end) = (self.count, self.wheel.keys());
        let cuts = self.cuts();
        assert!(!is_delta || !cuts.wants_full(), "what went is no longer known");
        let since = is_delta.then_some(cuts.committed.1);
        let tombstones = is_delta.then(Tombstone::default);
        cuts.walk = Some(Walk { since, until, epoch: cuts.epoch, tombstones, at: 0, end });
        cuts.pending = Some((cuts.epoch, until));
        cuts.epoch += 1;
    }

    /// Writes some more of the cut, and says whether that was all of it.
    pub(super) fn walk<T>(&mut self, slice: &mut Slice<'_, M, T>) -> Result<bool, Fault> {
        let Some(cuts) = self.cuts.as_deref_mut() else { return Ok(true) };
        let Cuts { walk: current, tombstones, .. } = cuts;
        let Some(walk) = current else { return Ok(true) };
        while let Some(at) = &mut walk.tombstones {
            if !slice.has_room() {
                return Ok(false);
            }
            match tombstones.next(at, walk.epoch) {
                Some((bin, tombstone)) => slice.pass_on_gone(bin, tombstone),
                None => walk.tombstones = None,
            }
        }
        while walk.at < walk.end {
            if !slice.has_room() {
                return Ok(false);
            }
            slice.look();
            let newest = self.newest.get((walk.at / CHUNK) as usize).copied().unwrap_or(0);
            if walk.since.is_some_and(|since| newest <= since) {
                walk.at = (walk.at / CHUNK + 1).saturating_mul(CHUNK);
                continue;
            }
            if let Some((due_ms, delayed)) = self.wheel.get_due(walk.at)
                && walk.contains(delayed)
            {
                let origin = self.origins[delayed.origin as usize];
                let identity = Identity { origin, sequence: delayed.sequence };
                slice.write(&written(identity, due_ms, delayed))?;
            }
            walk.at += 1;
        }
        *current = None;
        Ok(true)
    }

    /// The cut that was taken is durable. It was written to its end.
    pub(super) fn committed(&mut self) {
        let cuts = self.cuts();
        assert!(cuts.walk.is_none(), "it was written");
        cuts.committed = cuts.pending.take().expect("it was taken");
        let (epoch, _) = cuts.committed;
        cuts.tombstones.forget(|of| of <= epoch);
    }

    /// The cut that was taken, if one was, will never be durable.
    pub(super) fn abandoned(&mut self) {
        let cuts = self.cuts();
        (cuts.walk, cuts.pending) = (None, None);
        if cuts.wants_full() {
            cuts.tombstones.forget(|_| true);
        }
    }

    /// Nothing more is written of the cut that was taken.
    pub(super) fn end_walk(&mut self) {
        self.cuts().walk = None;
    }

    /// Whether the next cut must be a full one.
    pub(super) fn wants_full(&self) -> bool {
        self.cuts.as_deref().is_some_and(Cuts::wants_full)
    }

    /// How much memory tombstones take.
    pub(super) fn tombstone_bytes(&self) -> usize {
        self.cuts.as_deref().map_or(0, |cuts| cuts.tombstones.bytes())
    }

    /// Whether an origin is this worker itself.
    pub(super) fn is_own(&self, origin: Origin) -> bool {
        self.cuts.is_some() && self.origins[OWN as usize] == origin
    }

    /// A number for an origin, of which messages will be brought back.
    pub(super) fn add_origin(&mut self, origin: Origin) -> u32 {
        assert!(!self.is_own(origin), "{origin:?} is this worker itself");
        self.origins.push(origin);
        (self.origins.len() - 1) as u32
    }

    /// Brings back a message that waited at a cut. Of those that are due together, those that are brought
    /// back first are sent off first.
    pub(super) fn restore(
        &mut self,
        (origin, sequence): (u32, u64),
        due_ms: u64,
        token: Option<Box<str>>,
        routed: Routed<M>,
    ) {
        self.keep(due_ms, Delayed { routed, token, sequence, origin });
    }
}

#[cfg(any(test, feature = "testing"))]
impl<M> Later<M> {
    /// All that waits.
    pub(super) fn list(&self) -> impl Iterator<Item = (Identity, u64, Option<&str>, &Routed<M>)> {
        let waiting = (0..self.wheel.keys()).filter_map(|key| self.wheel.get_due(key));
        waiting.map(|(due_ms, delayed)| {
            (self.identity(delayed), due_ms, delayed.token.as_deref(), &delayed.routed)
        })
    }
}

#[cfg(test)]
impl<M> Later<M> {
    /// Who sets messages here.
    pub(super) fn own(&self) -> Origin {
        self.origins[OWN as usize]
    }

    /// Has no tombstones kept.
    pub(super) fn lose_tombstones(&mut self) {
        self.cuts().keeps_no_tombstones = true;
    }
}

impl Cuts {
    fn wants_full(&self) -> bool {
        self.tombstones.are_lost_since(self.committed.0)
    }

    fn add_tombstone(&mut self, bin: u16, identity: Identity) {
        #[cfg(test)]
        if self.keeps_no_tombstones {
            return;
        }
        if self.tombstones.are_lost_of(self.epoch) {
            return;
        }
        let mut tombstone = Vec::new();
        record::put_gone(&mut tombstone, identity);
        // A delta that is being written still needs its own.
        let needed = self.walk.as_ref().map_or(0, |walk| walk.epoch);
        self.tombstones.add(self.epoch, needed, bin, &tombstone);
    }
}

/// A message as it is written.
fn written<M, T>(identity: Identity, due_ms: u64, delayed: &Delayed<M>) -> Written<'_, M, T> {
    let Routed { head, message } = &delayed.routed;
    Written {
        note: Note::Delayed(Delay { identity, due_ms, token: delayed.token.as_deref() }),
        head,
        types: head.types(),
        standing: Standing::Event,
        message,
    }
}

/// The hash of a message's sender and token.
fn hash_of<M>(wheel: &Wheel<Delayed<M>>, hasher: &RandomState, key: WheelKey) -> u64 {
    let delayed = wheel.get(key).expect("the key names a message that waits");
    let head = &delayed.routed.head;
    let token = delayed.token.as_deref().unwrap_or_default();
    hasher.hash_one((head.caller_type, &head.caller, token))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// There may be many millions of them.
    #[test]
    fn an_identity_takes_no_more_than_16_bytes() {
        let without = size_of::<(Routed<u64>, Option<Box<str>>)>();
        assert!(size_of::<Delayed<u64>>() <= without + 16);
    }
}

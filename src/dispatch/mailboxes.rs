//! Addresses that wait for another attempt: the message that failed, and what came behind it.
//!
//! Only such addresses have a mailbox. What is in one is handled before anything that arrives later,
//! in the order in which it came, one message after the other: each brings in the next when it is done
//! with. So nothing takes long, however many there are.

use std::collections::{HashMap, VecDeque};

use super::counts::Tally;
use super::pen::{Fault, Pen, Places, Slice};
use super::record::{Attempt, Note, Standing, Written};
use super::slab::{Marks, Passage, Slab};
use super::{Head, Routed, TypeIndex};
use crate::address::Id;
use crate::retry::Retry;
use crate::state::Wheel;

/// A message with the time that is held for it; none if it will be a new event.
pub(super) type Kept<M, H> = (Routed<M>, Option<H>);

/// Names a mailbox as long as there is one.
type Key = u32;

struct Mailbox<M, H> {
    /// The message that is tried again; none while it is on its way to another attempt.
    first: Option<Kept<M, H>>,
    /// When it is due.
    due_ms: u64,
    /// How often it was tried.
    attempts: u32,
    /// Whether its time is held.
    is_held: bool,
    behind: VecDeque<Kept<M, H>>,
    /// Of all that is in it, in order.
    marks: Marks,
}

impl<M, H> Mailbox<M, H> {
    fn new(passage: &Passage) -> Self {
        Mailbox {
            first: None,
            due_ms: 0,
            attempts: 0,
            is_held: false,
            behind: VecDeque::new(),
            marks: Marks::new(passage),
        }
    }

    fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.behind.len()
    }

    /// The message at a position, and what is known of it.
    fn get(&self, at: usize) -> Option<(Note<'static>, &Kept<M, H>)> {
        let later = |at: usize| Some((Note::Retrying(None), self.behind.get(at)?));
        let Mailbox { attempts, due_ms, .. } = *self;
        match &self.first {
            None => later(at),
            Some(first) if at == 0 => {
                Some((Note::Retrying(Some(Attempt { attempts, due_ms })), first))
            }
            Some(_) => later(at - 1),
        }
    }
}

/// The mailboxes of one worker.
pub(super) struct Mailboxes<M, H> {
    keys: HashMap<(TypeIndex, Id), Key>,
    boxes: Slab<Mailbox<M, H>>,
    due: Wheel<Key>,
    /// How many messages are kept without a time held for them.
    detached: usize,
    /// All messages that are kept.
    pub(super) present: Tally,
    pub(super) passage: Passage,
}

impl<M, H> Default for Mailboxes<M, H> {
    fn default() -> Self {
        Mailboxes {
            keys: HashMap::new(),
            boxes: Slab::default(),
            due: Wheel::default(),
            detached: 0,
            present: Tally::default(),
            passage: Passage::default(),
        }
    }
}

/// What a message is to its address's mailbox.
pub(super) enum Arrival {
    /// There is none.
    Free,
    /// It comes from there, and was tried this often.
    Again(u32),
    /// It must wait.
    Behind,
}

impl<M, H> Mailboxes<M, H> {
    /// Whether messages are kept that will be new events.
    pub(super) fn await_events(&self) -> bool {
        self.detached > 0
    }

    /// How many addresses wait for another attempt.
    #[cfg(feature = "testing")]
    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    pub(super) fn wake_at(&self) -> Option<u64> {
        self.due.wake_at()
    }

    /// The mailbox of an address.
    fn of(&self, head: &Head) -> Option<&Mailbox<M, H>> {
        let key = self.keys.get(&(head.target_type, head.target.clone()))?;
        self.boxes.get(*key)
    }

    /// What a message that arrives is to its address's mailbox.
    #[inline]
    pub(super) fn meet(&self, head: &Head) -> Arrival {
        if self.keys.is_empty() {
            return Arrival::Free;
        }
        match self.of(head) {
            None => Arrival::Free,
            Some(mailbox) if head.again => Arrival::Again(mailbox.attempts),
            Some(_) => Arrival::Behind,
        }
    }

    /// The mailbox of an address, which gets one if it has none.
    fn open(&mut self, head: &Head) -> Key {
        let Mailboxes { keys, boxes, passage, .. } = self;
        let key = keys.entry((head.target_type, head.target.clone()));
        *key.or_insert_with(|| boxes.insert(Mailbox::new(passage)))
    }

    /// Keeps a message that must wait behind others.
    pub(super) fn keep_behind(&mut self, routed: Routed<M>, held: Option<H>) {
        self.detached += usize::from(held.is_none());
        self.present.add(routed.head.target_type, 1);
        let key = self.open(&routed.head);
        let mailbox = self.boxes.get_mut(key).expect("it was opened");
        let messages = mailbox.len();
        self.passage.touch(key, &mut mailbox.marks, messages);
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
        let chance = routed.head.hash ^ u64::from(attempts).rotate_left(32) ^ now_ms;
        let due_ms = now_ms.saturating_add(retry.wait_ms(attempts, chance));
        self.keep_first(routed, held, Attempt { attempts, due_ms });
    }

    /// Keeps a message before all others of its address until it is tried again.
    pub(super) fn keep_first(&mut self, mut routed: Routed<M>, held: Option<H>, attempt: Attempt) {
        self.detached += usize::from(held.is_none());
        self.present.add(routed.head.target_type, 1);
        routed.head.again = true;
        let key = self.open(&routed.head);
        let mailbox = self.boxes.get_mut(key).expect("it was opened");
        let messages = mailbox.len();
        if self.passage.touch(key, &mut mailbox.marks, messages) {
            mailbox.marks.placed_first(1);
        }
        (mailbox.attempts, mailbox.due_ms) = (attempt.attempts, attempt.due_ms);
        mailbox.first = Some((routed, held));
        self.due.set(attempt.due_ms, key);
    }

    /// The next message that is due to be tried again. It is written first, if the open cut needs it.
    pub(super) fn next_due<T>(
        &mut self,
        now_ms: u64,
        pen: Option<&mut Pen<M, T>>,
        places: Places<'_, T, H>,
    ) -> Option<Kept<M, H>> {
        let (_, key) = self.due.next_due(now_ms)?;
        self.write_first(key, pen, places);
        let mailbox = self.boxes.get_mut(key).expect("a mailbox lasts until it is tried");
        let kept = mailbox.first.take().expect("it is tried once for each failure");
        mailbox.is_held = kept.1.is_some();
        self.detached -= usize::from(kept.1.is_none());
        self.present.remove(kept.0.head.target_type, 1);
        Some(kept)
    }

    /// Is told that a message is done with that came from a mailbox, and gives the next one, if there is
    /// any, which is written first, if the open cut needs it. If there is none, so is the mailbox.
    pub(super) fn next_behind<T>(
        &mut self,
        head: &Head,
        pen: Option<&mut Pen<M, T>>,
        places: Places<'_, T, H>,
    ) -> Option<Kept<M, H>> {
        let address = (head.target_type, head.target.clone());
        let key = *self.keys.get(&address)?;
        self.write_first(key, pen, places);
        let mailbox = self.boxes.get_mut(key).expect("the key names a mailbox");
        let Some((mut routed, held)) = mailbox.behind.pop_front() else {
            self.keys.remove(&address);
            self.boxes.remove(key);
            return None;
        };
        routed.head.again = true;
        (mailbox.attempts, mailbox.is_held) = (0, held.is_some());
        self.detached -= usize::from(held.is_none());
        self.present.remove(routed.head.target_type, 1);
        Some((routed, held))
    }

    /// Writes the first message that a mailbox has, which is about to be taken off, if the open cut needs
    /// it.
    fn write_first<T>(&mut self, key: Key, pen: Option<&mut Pen<M, T>>, places: Places<'_, T, H>) {
        let mailbox = self.boxes.get_mut(key).expect("the key names a mailbox");
        let messages = mailbox.len();
        if self.passage.touch(key, &mut mailbox.marks, messages)
            && mailbox.marks.pop()
            && let Some(pen) = pen
            && let Some((note, kept)) = mailbox.get(0)
        {
            pen.keep(&written(note, kept, places));
        }
    }

    /// Whether a message is there that is tried again.
    pub(super) fn has_first(&self, head: &Head) -> bool {
        self.of(head).is_some_and(|mailbox| mailbox.first.is_some())
    }

    /// Has the first message of each mailbox tried at once where none is there to be tried. None is on its
    /// way.
    pub(super) fn settle(&mut self) {
        for key in 0..self.boxes.end() {
            if let Some(mailbox) = self.boxes.get_mut(key)
                && mailbox.first.is_none()
                && let Some((mut routed, held)) = mailbox.behind.pop_front()
            {
                routed.head.again = true;
                (mailbox.attempts, mailbox.due_ms) = (0, 0);
                mailbox.first = Some((routed, held));
                self.due.set(0, key);
            }
        }
    }

    /// What is known of a message that is on its way to another attempt, and whether its time is held.
    pub(super) fn under_way(&self, head: &Head) -> Option<(Attempt, bool)> {
        let mailbox = self.of(head).filter(|mailbox| mailbox.first.is_none())?;
        // It is due at once.
        Some((Attempt { attempts: mailbox.attempts, due_ms: 0 }, mailbox.is_held))
    }

    /// Takes a cut, and begins to write it.
    pub(super) fn take_cut(&mut self) {
        self.passage.begin(self.boxes.end());
    }

    /// Writes some more of the cut, and says whether that was all of it.
    pub(super) fn walk<T>(
        &mut self,
        slice: &mut Slice<'_, M, T>,
        places: Places<'_, T, H>,
    ) -> Result<bool, Fault> {
        while let Some(key) = self.passage.next() {
            if !slice.has_room() {
                return Ok(false);
            }
            slice.look();
            if let Some(mailbox) = self.boxes.get_mut(key) {
                let messages = mailbox.len();
                self.passage.arrive(key, &mut mailbox.marks, messages);
                while let Some(at) = mailbox.marks.advance() {
                    let (note, kept) = mailbox.get(at).expect("what is marked is there");
                    slice.look();
                    slice.write(&written(note, kept, places))?;
                    if !slice.has_room() {
                        break;
                    }
                }
                if mailbox.marks.is_on() {
                    return Ok(false);
                }
            }
            self.passage.pass();
        }
        Ok(true)
    }
}

/// What is in a mailbox: how often its first message was tried, when that is due, the message itself, if
/// it is there, and those behind it.
#[cfg(test)]
pub(super) type Listed<'a, M, H> = (u32, u64, Option<&'a Kept<M, H>>, &'a VecDeque<Kept<M, H>>);

#[cfg(test)]
impl<M, H> Mailboxes<M, H> {
    /// All mailboxes, by address.
    pub(super) fn list(&self) -> impl Iterator<Item = (&(TypeIndex, Id), Listed<'_, M, H>)> {
        self.keys.iter().map(|(address, key)| {
            let mailbox = self.boxes.get(*key).expect("the key names a mailbox");
            let Mailbox { attempts, due_ms, first, behind, .. } = mailbox;
            (address, (*attempts, *due_ms, first.as_ref(), behind))
        })
    }
}

/// A message as it is written.
fn written<'a, M, T, H>(
    note: Note<'static>,
    (Routed { head, message }, held): &'a Kept<M, H>,
    places: Places<'_, T, H>,
) -> Written<'a, M, T> {
    let standing = held.as_ref().map_or(Standing::Event, |held| Standing::Held(places(held)));
    Written { note, head, types: head.types(), standing, message }
}

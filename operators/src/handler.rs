//! What a loop does with a message: the trait its user implements, and what it is given to do it.

use std::cmp::Ordering;
use std::time::Duration;

use timely::ExchangeData;
use timely::progress::Timestamp;

use crate::flow::Flow;
use crate::live_times::TimeIndex;
use crate::part::{Place, Places, Work};
use crate::restore::Restore;
use crate::waker::Waker;

/// What becomes of the messages of a [keyed loop](crate::KeyedLoop).
///
/// One value handles all messages that are routed to one worker, one after the other.
///
/// # Contract
///
/// [`route`](Handler::route) must give the same number for the same message on every worker of
/// every process. [`handle`](Handler::handle) must not panic; a handler that runs code it does not
/// trust catches what that code throws.
pub trait Handler<T: Timestamp>: 'static {
    /// What travels in the loop.
    type Message: ExchangeData;
    /// What leaves it.
    type Output: 'static;
    /// Why a loop stopped, told to every worker.
    type Failure: ExchangeData + Clone + std::fmt::Display;

    /// Where a message belongs: worker `route % peers` handles it.
    fn route(message: &Self::Message) -> u64;

    /// Handles one message. What `outbox` is given takes effect with [`Verdict::Done`] only.
    fn handle(
        &mut self,
        message: Self::Message,
        outbox: &mut Outbox<'_, T, Self::Message>,
    ) -> Verdict<Self::Failure>;

    /// Which of two messages that were sent at one ingress time and depth comes first, where messages
    /// are handled in the [order of time](crate::Order::Time). Must be the same on every worker. Those
    /// that are equal are handled in the order in which their senders sent them.
    fn compare(&self, one: &Self::Message, other: &Self::Message) -> Ordering {
        let _ = (one, other);
        Ordering::Equal
    }

    /// Called once, when the loop is built on this worker: `waker` activates it from any thread.
    fn connect(&mut self, waker: Waker) {
        let _ = waker;
    }

    /// Brings back what a restored cut held. Called before anything else happens, until it says that
    /// this is [done](Work::Done): until then the loop reads no stream, and no frontier passes anything. What
    /// it [emits](Self::emit) meanwhile may be of any time, and leaves at once.
    ///
    /// # Errors
    ///
    /// What stops the loop on every worker.
    fn restore(&mut self, back: &mut Restore<'_, T, Self::Message>) -> Result<Work, Self::Failure> {
        let _ = back;
        Ok(Work::Done)
    }

    /// Called at the beginning of every activation: brings in messages that come neither through a
    /// stream nor from another message, such as results that were waited for, or what is due.
    ///
    /// # Errors
    ///
    /// What stops the loop on every worker.
    fn poll(&mut self, inbox: &mut Inbox<'_, T, Self::Message>) -> Result<(), Self::Failure> {
        let _ = inbox;
        Ok(())
    }

    /// Called towards the end of every activation, when nothing more is handled in it: what the handler
    /// has gathered for others can go out together. In the order of time, only when all of a stage was handled.
    fn flush(&mut self) {}

    /// What the handler waits for. Asked at the end of every activation.
    fn awaits(&self) -> Awaits {
        Awaits::default()
    }

    /// The class that a message belongs to, which can be [shut out](Handler::classes_changed) of the
    /// loop by itself. The same on every worker.
    fn class(message: &Self::Message) -> u32 {
        let _ = message;
        0
    }

    /// Tells, once each, the classes that gates must begin (`true`) or cease (`false`) to hold back.
    ///
    /// A gate keeps the order of its records: it holds back everything behind one it holds back.
    fn classes_changed(&mut self, changed: &mut dyn FnMut(u32, bool)) {
        let _ = changed;
    }

    /// Told of the messages that are handled next, in order, so that what they will need can be
    /// fetched into the processor's caches together. Must not change anything that can be observed.
    fn foresee<'a>(&mut self, upcoming: impl Iterator<Item = &'a Self::Message>)
    where
        Self::Message: 'a,
    {
        let _ = upcoming;
    }

    /// How many bytes a waiting message counts for. `None`, the default: the size of its type,
    /// which leaves out what it keeps on the heap.
    fn weight(&self) -> Option<Weight<Self::Message>> {
        None
    }

    /// Whether this worker has no room for a reason that only the handler knows, such as an open cut that
    /// takes much memory while whoever stores it is slow. Asked at the end of every activation.
    ///
    /// While it says so, the gates of all workers pause as they do above
    /// [the soft limit](crate::LoopConfig::loop_bytes_soft); nothing in the loop is refused for it. It must
    /// come to an end without any ingress, and the handler [wakes](Handler::connect) the loop then.
    fn is_full(&self) -> bool {
        false
    }

    /// Gives up a message that the loop itself made while it was over
    /// [its hard limit](crate::LoopConfig::loop_bytes_hard). The default panics: a handler that is
    /// used with a hard limit must say what becomes of the message.
    fn refuse(&mut self, message: Self::Message, time: &T) -> Verdict<Self::Failure> {
        let _ = message;
        panic!("a loop is over its hard limit at {time:?} and its handler does not say what to do")
    }

    /// Hands over what is to leave the loop since the last call, each at the time it belongs to.
    fn emit(&mut self, emitter: &mut dyn FnMut(&T, Self::Output)) {
        let _ = emitter;
    }

    /// Cut `cut` is taken on this worker now: the handler's state as it is belongs to the cut, and so
    /// do the messages that wait in the loop, which it is told of [one by one](Handler::queued). Events happen
    /// at time `now`, if there can be any.
    ///
    /// The loop stands still meanwhile, so this should only note that it happened.
    fn take_cut(&mut self, cut: u64, now: Option<&T>) {
        let _ = (cut, now);
    }

    /// A message waited in the loop when cut `cut` was taken here. Each such message is handed over
    /// once, before it is handled or some activations later, in the order in which they are handled.
    fn queued(&mut self, cut: u64, place: Place<'_, T>, message: &Self::Message) {
        let _ = (cut, place, message);
    }

    /// A message that was sent before cut `cut` arrived after this worker took it: it belongs to
    /// the cut as well, behind those that were [queued](Handler::queued), whether it is about to be
    /// handled or [refused](Handler::refuse).
    fn log(&mut self, cut: u64, place: Place<'_, T>, message: &Self::Message) {
        let _ = (cut, place, message);
    }

    /// Writes a part of what else belongs to cut `cut`: about `budget` units, of which each takes about as
    /// long as handing over a message. Called in every activation until it says that all is
    /// [written](Work::Done).
    ///
    /// What is changed before it was written must be written before it is changed. `places` tells
    /// where things stand that are [held](Held), as [`Outbox::place_of`] and [`Inbox::place_of`] do
    /// whenever something changes.
    fn work_on_cut(&mut self, cut: u64, budget: usize, places: &Places<'_, T>) -> Work {
        let _ = (cut, budget, places);
        Work::Done
    }

    /// Cut `cut` is complete on this worker: everything was handed over and written, and nothing that
    /// belongs to it can arrive any more.
    ///
    /// `complete`, the elements of an antichain, is this worker's part in saying up to where the cut is
    /// complete in time; only with those of all workers it means something. Then nothing that leaves the
    /// loop after the cut leaves at a time that is not at or after one of them: what left at other times
    /// left before the cut. It is empty when nothing can come any more, and from one cut to the next of a
    /// program it never goes back.
    fn complete_cut(&mut self, cut: u64, complete: &[T]) {
        let _ = (cut, complete);
    }

    /// Cut `cut`, which was taken and not complete, will not be complete: a newer one is about to be
    /// taken. Nothing more is said of it.
    fn abandon_cut(&mut self, cut: u64) {
        let _ = cut;
    }
}

/// Tells how many bytes a waiting message counts for.
pub type Weight<M> = Box<dyn Fn(&M) -> usize>;

/// What [`Handler::handle`] made of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict<F> {
    /// It took effect, with everything it sent.
    Done,
    /// It had no effect: what it sent is taken back.
    Undone,
    /// It had no effect, and the loop stops on every worker. No frontier passes the message's time.
    Stop(F),
}

/// What a [handler](Handler) waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Awaits {
    /// Whether it may still bring in [events](Inbox::event). While it does, the loop keeps the right
    /// to make them, also after all ingress has closed.
    pub events: bool,
    /// After how long it wants to be polled again, at the latest.
    pub poll_after: Option<Duration>,
}

/// Keeps an ingress time alive for something that is waited for: no frontier passes the time until
/// it is given back, to [`Inbox::resume`] or one like it.
#[derive(Debug)]
#[must_use = "a time that is held for ever is never passed"]
pub struct Held {
    pub(crate) time: TimeIndex,
    /// Whether what is held is an ingress record that was not handled yet.
    pub(crate) record: bool,
}

/// Where a handler brings in messages between others.
pub struct Inbox<'a, T: Timestamp, M> {
    pub(crate) flow: &'a mut Flow<T, M>,
}

impl<T: Timestamp, M> Inbox<'_, T, M> {
    /// The frontier of ingress as this worker knows it. Empty once all ingress has closed.
    pub fn frontier(&self) -> &[T] {
        self.flow.ingress()
    }

    /// The time at which an [event](Self::event) would happen now. None once all ingress has closed, unless the
    /// handler said that it awaits any. What is [emitted](Handler::emit) at it in the same activation leaves at it.
    pub fn event_time(&self) -> Option<&T> {
        self.flow.event_now()
    }

    /// The least time, in `Ord`, at which this worker may still emit something: that of work that is not done, or of
    /// ingress that may come. None when there is neither. What has just arrived is in it.
    pub fn earliest(&self) -> Option<&T> {
        self.flow.earliest()
    }

    /// How many messages may be brought in now without keeping others from their turn. More are
    /// taken as well.
    pub fn room(&self) -> usize {
        self.flow.room()
    }

    /// Brings in a message as a new event: its time is the smallest element, in `Ord`, of the
    /// [frontier](Self::frontier), or after all ingress has closed the last there was.
    ///
    /// # Panics
    ///
    /// After all ingress has closed, if the handler did not say that it [awaits](Awaits::events) any.
    pub fn event(&mut self, message: M) {
        self.flow.event(message);
    }

    /// Like [`event`](Self::event), to be handled before everything that waits here. The message must
    /// be one that this worker handles.
    pub fn event_first(&mut self, message: M) {
        self.flow.event_first(message);
    }

    /// The time that is held.
    pub fn time_of(&self, held: &Held) -> &T {
        self.flow.time(held.time)
    }

    /// Where something stands that is held: with it, what is about to change can be written into an open
    /// cut first.
    pub fn place_of(&self, held: &Held) -> Place<'_, T> {
        self.flow.place_of(held)
    }

    /// Keeps a time alive that is at or after one that is held, which stays held. The
    /// [frontier](Outbox::frontier) that handlers see waits for it no longer than for that one.
    ///
    /// # Panics
    ///
    /// If the time is neither.
    pub fn hold_later(&mut self, held: &Held, time: T) -> Held {
        self.flow.hold_later(held.time, time)
    }

    /// Has something that is held stand behind what is about to be [resumed](Self::resume). In the order of time
    /// that comes back a stage later than it was held, and would wait for ever for what waits for it. In the order
    /// of arrival there is nothing to do.
    ///
    /// If what waits is of an earlier ingress time, it stays in the way, and this is `false`: the other then must be
    /// [resumed first](Self::resume_first). Where times are ordered only in part, an event that happens after a
    /// restart can be earlier than what was restored.
    #[must_use]
    pub fn let_pass(&mut self, first: &Held, behind: &mut Held) -> bool {
        self.flow.let_pass(first, behind)
    }

    /// Brings in a message at a time that was held. It must be one that this worker handles. In the order of
    /// time it is handled a stage later, when nothing is held at its own any more.
    pub fn resume(&mut self, held: Held, message: M) {
        self.flow.resume(held, message);
    }

    /// Like [`resume`](Self::resume), to be handled before everything that waits here. Of several
    /// such, those that were brought in earlier come earlier.
    pub fn resume_first(&mut self, held: Held, message: M) {
        self.flow.resume_first(held, message);
    }

    /// Gives a held time back without a message. What is [emitted](Handler::emit) at it in the same
    /// activation still leaves at it.
    pub fn release(&mut self, held: Held) {
        self.flow.release(held);
    }
}

impl<T: Timestamp, M> std::fmt::Debug for Inbox<'_, T, M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inbox").field("frontier", &self.frontier()).finish_non_exhaustive()
    }
}

/// Where a message that is being handled sends others, and what it may know of time.
pub struct Outbox<'a, T: Timestamp, M> {
    pub(crate) flow: &'a mut Flow<T, M>,
    pub(crate) time: TimeIndex,
}

impl<T: Timestamp, M> Outbox<'_, T, M> {
    /// The ingress time of the message that is being handled.
    #[inline]
    pub fn time(&self) -> &T {
        self.flow.time(self.time)
    }

    /// A lower bound on the ingress records this worker will still handle: none that is not at or
    /// after an element of it will come. Empty when none will come at all.
    ///
    /// It says nothing of messages that are under way in the loop.
    pub fn frontier(&self) -> &[T] {
        self.flow.frontier()
    }

    /// Sends a message, which will be handled at the same ingress time.
    ///
    /// Messages to one worker are handled there in the order in which they were sent.
    #[inline]
    pub fn send(&mut self, message: M) {
        self.flow.send(message, self.time);
    }

    /// Like [`send`](Self::send), and says whether the message will be handled on this worker.
    #[inline]
    pub fn send_and_tell(&mut self, message: M) -> bool {
        self.flow.send(message, self.time)
    }

    /// Keeps this message's time alive for something that was begun and will be waited for.
    pub fn hold(&mut self) -> Held {
        self.flow.hold(self.time, false)
    }

    /// Keeps this message's time alive because the message itself was not handled yet. `record` says
    /// that it is an ingress record: the [frontier](Self::frontier) that handlers see does not pass it
    /// then.
    pub fn put_off(&mut self, record: bool) -> Held {
        self.flow.hold(self.time, record)
    }

    /// Has something that is held stand behind what was held at a place of the same ingress time and
    /// [resumed](Inbox::resume), and comes back a stage later: with the order of time, it would wait for what is to
    /// wait for it. In the order of arrival there is nothing to do.
    pub fn stand_behind(&mut self, first: Place<'_, T>, behind: &mut Held) {
        self.flow.stand_behind(first, behind);
    }

    /// The time that is held.
    pub fn time_of(&self, held: &Held) -> &T {
        self.flow.time(held.time)
    }

    /// Where something stands that is held: with it, what is about to change can be written into an open
    /// cut first.
    pub fn place_of(&self, held: &Held) -> Place<'_, T> {
        self.flow.place_of(held)
    }

    /// Brings in a message at a time that was held, to be handled before everything that waits here,
    /// whatever becomes of the message that is being handled. Of several such, those that were
    /// brought in earlier come earlier.
    pub fn resume_first(&mut self, held: Held, message: M) {
        self.flow.resume_first(held, message);
    }

    /// Brings in a message as a new event, to be handled before everything that waits here.
    pub fn event_first(&mut self, message: M) {
        self.flow.keep_event_time(self.time);
        self.flow.event_first(message);
    }

    /// Gives a held time back without a message.
    pub fn release(&mut self, held: Held) {
        self.flow.release(held);
    }

    /// Says that the handler will [await](Awaits::events) an event from now on: the loop keeps the
    /// right to make one.
    pub fn expect_event(&mut self) {
        self.flow.keep_event_time(self.time);
    }
}

impl<T: Timestamp, M> std::fmt::Debug for Outbox<'_, T, M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outbox")
            .field("time", self.time())
            .field("frontier", &self.frontier())
            .finish_non_exhaustive()
    }
}

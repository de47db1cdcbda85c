//! What a loop does with a message: the trait its user implements, and what it is given to do it.

use timely::ExchangeData;
use timely::progress::Timestamp;

use crate::engine::Flow;
use crate::live_times::TimeIndex;

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

    /// Cut `cut` is taken on this worker now: the handler's state is the cut's, and so are the
    /// messages that `waiting` lists, in the order in which they will be handled.
    fn take_cut(&mut self, cut: u64, waiting: &mut dyn Iterator<Item = (&T, &Self::Message)>) {
        let _ = (cut, waiting);
    }

    /// A message that was sent before cut `cut` arrived after this worker took it: it belongs to
    /// the cut as well.
    fn log(&mut self, cut: u64, time: &T, message: &Self::Message) {
        let _ = (cut, time, message);
    }

    /// Nothing that belongs to cut `cut` can arrive any more on this worker.
    fn complete_cut(&mut self, cut: u64) {
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
}

impl<T: Timestamp, M> std::fmt::Debug for Outbox<'_, T, M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outbox")
            .field("time", self.time())
            .field("frontier", &self.frontier())
            .finish_non_exhaustive()
    }
}

//! Records of a held egress on their way to asynchronous code, and back the word that they are done with.
//!
//! The queue between the two has a bound. It knows no dataflow: it is told how to wake whoever gives.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

/// Takes what a [held](crate::Functions::held_egress) egress releases on one worker, in asynchronous code of any
/// runtime. [`Held::channel`](crate::Held::channel) makes it.
///
/// Records come cut by cut, in the order in which they are released. A cut is acknowledged when all of its records
/// are, and all cuts before it: what is not comes again after a restart, with the same numbers. So each
/// record is taken at least once, and whoever remembers numbers of cuts with what they store, as a
/// [sink](crate::writing_a_sink) does, has it once.
///
/// While it is not dropped the program waits for it: when it is over, until all is acknowledged. When it is dropped,
/// and something is to be taken or acknowledged, the program [stops](crate::Reason::SinkFailed).
pub struct HeldReceiver<E> {
    shared: Arc<Shared<E>>,
}

impl<E> HeldReceiver<E> {
    /// The next record. `None` when the program is over, or stopped, and nothing is left here. If waiting is given up
    /// nothing is lost.
    pub async fn recv(&mut self) -> Option<Taken<E>> {
        poll_fn(|context| {
            let mut state = lock(&self.shared);
            if let Some(queued) = state.queue.pop_front() {
                state.wake();
                return Poll::Ready(Some(self.taken(queued)));
            }
            if state.is_over {
                return Poll::Ready(None);
            }
            state.waiting = Some(context.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// The next record, if there is one now.
    pub fn try_recv(&mut self) -> Option<Taken<E>> {
        let mut state = lock(&self.shared);
        let queued = state.queue.pop_front()?;
        state.wake();
        drop(state);
        Some(self.taken(queued))
    }

    fn taken(&self, (cut, bin, record): (u64, u16, E)) -> Taken<E> {
        Taken { cut, bin, record, shared: Arc::clone(&self.shared) }
    }
}

impl<E> Drop for HeldReceiver<E> {
    fn drop(&mut self) {
        let mut state = lock(&self.shared);
        state.is_gone = true;
        state.wake();
    }
}

impl<E> fmt::Debug for HeldReceiver<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HeldReceiver").finish_non_exhaustive()
    }
}

/// A record that was taken, until it is acknowledged. If it is dropped before, it is not: it comes again after a
/// restart, and no later cut is acknowledged before that.
#[must_use = "what is not acknowledged comes again after a restart"]
pub struct Taken<E> {
    cut: u64,
    bin: u16,
    record: E,
    shared: Arc<Shared<E>>,
}

impl<E> Taken<E> {
    /// The number of the cut that released it.
    pub fn cut(&self) -> u64 {
        self.cut
    }

    /// The bin of the address that emitted it.
    pub fn emitter_bin(&self) -> u16 {
        self.bin
    }

    /// What was emitted.
    pub fn record(&self) -> &E {
        &self.record
    }

    /// It is done with: where it goes to, it is there for good. Gives what was emitted.
    pub fn acknowledge(self) -> E {
        let Taken { cut, record, shared, .. } = self;
        let mut state = lock(&shared);
        *state.acknowledged.entry(cut).or_default() += 1;
        state.wake();
        drop(state);
        record
    }
}

impl<E: fmt::Debug> fmt::Debug for Taken<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Taken")
            .field("cut", &self.cut)
            .field("bin", &self.bin)
            .field("record", &self.record)
            .finish_non_exhaustive()
    }
}

struct Shared<E> {
    state: Mutex<State<E>>,
}

struct State<E> {
    queue: VecDeque<(u64, u16, E)>,
    capacity: usize,
    /// By cut, how many records were acknowledged since it was asked.
    acknowledged: BTreeMap<u64, u64>,
    waiting: Option<Waker>,
    wake: Option<Box<dyn Fn() + Send>>,
    /// Whether the giver was woken since it last looked.
    is_woken: bool,
    is_over: bool,
    is_gone: bool,
}

impl<E> State<E> {
    fn wake(&mut self) {
        if let (Some(wake), false) = (&self.wake, self.is_woken) {
            self.is_woken = true;
            wake();
        }
    }
}

fn lock<E>(shared: &Shared<E>) -> MutexGuard<'_, State<E>> {
    shared.state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The worker's side. Dropped, it gives no more.
pub(crate) struct Giver<E> {
    shared: Arc<Shared<E>>,
}

/// What a giver is told.
pub(crate) struct Heard {
    /// How many more records there is room for.
    pub(crate) room: usize,
    /// By cut, how many records were acknowledged since.
    pub(crate) acknowledged: BTreeMap<u64, u64>,
    /// Whether nobody takes anything any more.
    pub(crate) is_gone: bool,
}

impl<E> Giver<E> {
    /// A queue of so many records. `wake` is called when there is something to be heard.
    pub(crate) fn new(capacity: usize, wake: Box<dyn Fn() + Send>) -> (Self, HeldReceiver<E>) {
        let state = State {
            queue: VecDeque::new(),
            capacity: capacity.max(1),
            acknowledged: BTreeMap::new(),
            waiting: None,
            wake: Some(wake),
            is_woken: false,
            is_over: false,
            is_gone: false,
        };
        let shared = Arc::new(Shared { state: Mutex::new(state) });
        (Giver { shared: Arc::clone(&shared) }, HeldReceiver { shared })
    }

    pub(crate) fn hear(&self) -> Heard {
        let mut state = lock(&self.shared);
        state.is_woken = false;
        Heard {
            room: state.capacity - state.queue.len(),
            acknowledged: std::mem::take(&mut state.acknowledged),
            is_gone: state.is_gone,
        }
    }

    /// Gives records, for which there must be room.
    pub(crate) fn give(&self, records: impl Iterator<Item = (u64, u16, E)>) {
        let mut state = lock(&self.shared);
        state.queue.extend(records);
        debug_assert!(state.queue.len() <= state.capacity, "there is room for them");
        let waiting = if state.queue.is_empty() { None } else { state.waiting.take() };
        drop(state);
        waiting.into_iter().for_each(Waker::wake);
    }
}

impl<E> Drop for Giver<E> {
    fn drop(&mut self) {
        let mut state = lock(&self.shared);
        state.is_over = true;
        state.wake = None;
        let waiting = state.waiting.take();
        drop(state);
        waiting.into_iter().for_each(Waker::wake);
    }
}

//! Records that any thread or task of the process sends into a program.
//!
//! The queue between the two has a bound. It knows no dataflow: it is told how to wake whoever takes from it.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex};

use tokio::sync::Semaphore;

use super::receipts::{Ledger, Receipt};
use super::{Pull, Pulled, lock};

/// A channel into a program, of so many records, at least 1: who sends more waits, or is refused.
///
/// The sending side is cloned as often as is needed. The other becomes a [source](Channel::source) of one
/// worker; the other workers have [one that is empty](Channel::default).
///
/// ```
/// use std::sync::Mutex;
/// use timely_statefun::source::{self, Times};
/// use timely_statefun::{Function, FunctionType, Functions, StatefulFunctions, ValueSpec};
///
/// const PERSON: FunctionType<String> = FunctionType::new("example/person");
/// const SEEN: ValueSpec<u64> = ValueSpec::new("seen");
///
/// let person = || Function::<String, String>::new(|context, _greeting| {
///     context.update(SEEN, |seen| *seen += 1);
///     Ok(())
/// }).value(SEEN);
/// let (sender, channel) = source::channel(1000);
/// let channel = Mutex::new(Some(channel));
/// let runtime = tokio::runtime::Builder::new_multi_thread().build()?;
/// let sending = runtime.spawn(async move {
///     let mut receipt = sender.send(PERSON.message("Ada", "hello".to_owned())).await?;
///     Ok::<_, source::Closed<_>>(receipt.admitted().await)
/// });
/// let workers = timely::execute(timely::Config::process(2), move |worker| {
///     let channel = channel.lock().unwrap().take().unwrap_or_default();
///     let handle = worker.dataflow::<u64, _, _>(|scope| {
///         let functions = Functions::new().embedded(PERSON, person());
///         let source = channel.source(scope, "greetings", Times::fixed(0));
///         let egresses = source.ingress(|envelope| envelope).stateful_functions(functions);
///         egresses.expect("functions that fit together").handle()
///     });
///     handle.run(worker).expect("all goes well");
///     handle.stats().admitted
/// })?;
/// let admitted: u64 = workers.join().into_iter().map(|admitted| admitted.unwrap()).sum();
/// assert_eq!(admitted, 1);
/// assert_eq!(runtime.block_on(sending)?.unwrap(), Ok(()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn channel<D: Send + 'static>(capacity: usize) -> (ChannelSender<D>, Channel<D>) {
    let queue = Arc::new(Queue {
        state: Mutex::new(State {
            records: VecDeque::new(),
            sent: 0,
            senders: 1,
            is_closed: false,
            wake: None,
            is_woken: false,
        }),
        room: Semaphore::new(capacity.clamp(1, Semaphore::MAX_PERMITS)),
        ledger: Arc::default(),
    });
    (ChannelSender { queue: Arc::clone(&queue) }, Channel { queue: Some(queue) })
}

struct Queue<D> {
    state: Mutex<State<D>>,
    /// How many more records it takes. Closed when nobody takes any more.
    room: Semaphore,
    ledger: Arc<Ledger>,
}

struct State<D> {
    records: VecDeque<D>,
    /// How many have ever been sent.
    sent: u64,
    senders: usize,
    is_closed: bool,
    wake: Option<Box<dyn Fn() + Send + Sync>>,
    /// Whether the source was woken since it last looked.
    is_woken: bool,
}

impl<D> State<D> {
    /// Has the source look, once for all that comes until it does.
    fn wake(&mut self) {
        if let (Some(wake), false) = (&self.wake, self.is_woken) {
            self.is_woken = true;
            wake();
        }
    }
}

/// What sends into a [channel](channel()), from any thread or task. When all clones are dropped, the source ends
/// with what was sent.
pub struct ChannelSender<D> {
    queue: Arc<Queue<D>>,
}

impl<D: Send + 'static> ChannelSender<D> {
    /// Sends a record, and waits for room while the channel is full. Records of one task arrive in the order in which
    /// it sends them; who waits longest is next. If waiting is given up nothing is sent.
    ///
    /// # Errors
    ///
    /// Gives the record back if the program does not take any more: it ended or stopped, or dropped its side.
    pub async fn send(&self, record: D) -> Result<Receipt, Closed<D>> {
        match self.queue.room.acquire().await {
            Ok(room) => {
                room.forget();
                self.push(record).map_err(Closed)
            }
            Err(_) => Err(Closed(record)),
        }
    }

    /// Sends a record if there is room now.
    ///
    /// # Errors
    ///
    /// Gives the record back if the channel is full, or the program does not take any more.
    pub fn try_send(&self, record: D) -> Result<Receipt, TrySendError<D>> {
        match self.queue.room.try_acquire() {
            Ok(room) => {
                room.forget();
                self.push(record).map_err(TrySendError::Closed)
            }
            Err(tokio::sync::TryAcquireError::NoPermits) => Err(TrySendError::Full(record)),
            Err(tokio::sync::TryAcquireError::Closed) => Err(TrySendError::Closed(record)),
        }
    }

    /// Whether the program does not take any more.
    pub fn is_closed(&self) -> bool {
        self.queue.room.is_closed()
    }

    fn push(&self, record: D) -> Result<Receipt, D> {
        let mut state = lock(&self.queue.state);
        if state.is_closed {
            return Err(record);
        }
        let number = state.sent;
        state.sent += 1;
        state.records.push_back(record);
        state.wake();
        drop(state);
        Ok(Receipt::new(&self.queue.ledger, number))
    }
}

impl<D> Clone for ChannelSender<D> {
    fn clone(&self) -> Self {
        lock(&self.queue.state).senders += 1;
        ChannelSender { queue: Arc::clone(&self.queue) }
    }
}

impl<D> Drop for ChannelSender<D> {
    fn drop(&mut self) {
        let mut state = lock(&self.queue.state);
        state.senders -= 1;
        if state.senders == 0 {
            state.wake();
        }
    }
}

impl<D> fmt::Debug for ChannelSender<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChannelSender").finish_non_exhaustive()
    }
}

/// The program's side of a [channel](channel()), on its way to the worker that takes the records.
///
/// The default one is empty and has ended: it is for the other workers.
pub struct Channel<D> {
    queue: Option<Arc<Queue<D>>>,
}

impl<D> Channel<D> {
    pub(crate) fn ledger(&self) -> Option<Arc<Ledger>> {
        self.queue.as_ref().map(|queue| Arc::clone(&queue.ledger))
    }
}

impl<D> Default for Channel<D> {
    fn default() -> Self {
        Channel { queue: None }
    }
}

impl<D: Send + 'static> Pull<D> for Channel<D> {
    fn connect(&mut self, wake: Box<dyn Fn() + Send + Sync>) {
        if let Some(queue) = &self.queue {
            lock(&queue.state).wake = Some(wake);
        }
    }

    fn pull(&mut self, records_max: usize, to: &mut Vec<D>) -> Pulled {
        let Some(queue) = &self.queue else { return Pulled::Ended };
        let mut state = lock(&queue.state);
        state.is_woken = false;
        let taken = records_max.min(state.records.len());
        to.extend(state.records.drain(..taken));
        let pulled = match (state.records.is_empty(), state.senders) {
            (false, _) => Pulled::More,
            (true, 0) => Pulled::Ended,
            (true, _) => Pulled::NotNow,
        };
        drop(state);
        queue.room.add_permits(taken);
        pulled
    }
}

impl<D> Drop for Channel<D> {
    fn drop(&mut self) {
        let Some(queue) = &self.queue else { return };
        queue.room.close();
        let mut state = lock(&queue.state);
        state.is_closed = true;
        let (records, wake) = (std::mem::take(&mut state.records), state.wake.take());
        drop(state);
        // Dropping them may take others' code.
        drop(records);
        // Where there is a source, what had come to it may still become durable.
        if wake.is_none() {
            queue.ledger.end();
        }
    }
}

impl<D> fmt::Debug for Channel<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel").finish_non_exhaustive()
    }
}

/// The program does not take any more; with the record that was not sent.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Closed<D>(pub D);

/// Why a record was not sent at once; with the record.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum TrySendError<D> {
    /// The channel is full.
    Full(D),
    /// The program does not take any more.
    Closed(D),
}

impl<D> TrySendError<D> {
    /// The record.
    pub fn into_inner(self) -> D {
        match self {
            TrySendError::Full(record) | TrySendError::Closed(record) => record,
        }
    }
}

impl<D> fmt::Display for Closed<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the program does not take any more records")
    }
}

impl<D> fmt::Debug for Closed<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Closed(..)")
    }
}

impl<D> std::error::Error for Closed<D> {}

impl<D> fmt::Display for TrySendError<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TrySendError::Full(_) => "the channel is full",
            TrySendError::Closed(_) => "the program does not take any more records",
        })
    }
}

impl<D> fmt::Debug for TrySendError<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TrySendError::Full(_) => "Full(..)",
            TrySendError::Closed(_) => "Closed(..)",
        })
    }
}

impl<D> std::error::Error for TrySendError<D> {}

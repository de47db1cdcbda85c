//! What waits for whoever asks: the topics of a program, which its workers fill and a server empties.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::{Notify, Semaphore};

use super::record::EgressRecord;
use super::shelves::Shelves;
use crate::typed::TypedValue;

/// How many requests may wait for records.
const WAITING_MAX: usize = 1024;

/// What a program has emitted to the [egress](super::EGRESS) of the playground and nobody has taken yet, by topic.
///
/// Every worker [gives](Self::receive) it what it releases, and a [server](Self::server) hands it out. All clones are
/// one.
///
/// ```
/// use timely_statefun::playground::Topics;
///
/// let topics = Topics::new(["greetings"]);
/// let status = topics.status();
/// assert_eq!((status.waiting["greetings"], status.taken, status.rejected), (0, 0, 0));
/// ```
#[derive(Clone)]
pub struct Topics {
    pub(super) shared: Arc<Shared>,
}

/// What became of the records of a playground's egress.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TopicsStatus {
    /// By topic, how many records wait.
    pub waiting: BTreeMap<String, usize>,
    /// How many records were taken.
    pub taken: u64,
    /// How many records went to no topic.
    pub rejected: u64,
}

/// A record that went to no topic.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rejected {
    /// The number of the cut that released it.
    pub cut: u64,
    /// What was emitted.
    pub record: TypedValue,
    /// What is wrong with it.
    pub why: String,
}

type OnRejected = Box<dyn Fn(&Rejected) + Send + Sync>;
/// Wakes a worker, which has something to acknowledge.
pub(super) type Wake = Box<dyn Fn() + Send>;

pub(super) struct Shared {
    state: Mutex<State>,
    /// By topic, who waits for its next record.
    pub(super) awaited: BTreeMap<String, Notify>,
    /// How many may wait at the same time.
    pub(super) places: Semaphore,
    on_rejected: Option<OnRejected>,
}

struct State {
    shelves: Shelves,
    workers: BTreeMap<usize, Wake>,
    rejected: u64,
}

impl Topics {
    /// These topics, with nothing in them.
    pub fn new(topics: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self::made(topics, None)
    }

    /// The same, with what is told of each record that is no [`EgressRecord`], or is for a topic that is not listed:
    /// on the worker that has it, and again when it comes again.
    ///
    /// Such records are counted, and written to the log, in any case.
    pub fn reporting(
        topics: impl IntoIterator<Item = impl Into<String>>,
        on_rejected: impl Fn(&Rejected) + Send + Sync + 'static,
    ) -> Self {
        Self::made(topics, Some(Box::new(on_rejected)))
    }

    fn made(
        topics: impl IntoIterator<Item = impl Into<String>>,
        on_rejected: Option<OnRejected>,
    ) -> Self {
        let topics: Vec<String> = topics.into_iter().map(Into::into).collect();
        let awaited = topics.iter().map(|topic| (topic.clone(), Notify::new())).collect();
        let shelves = Shelves::new(topics);
        let state = State { shelves, workers: BTreeMap::new(), rejected: 0 };
        let places = Semaphore::new(WAITING_MAX);
        let shared = Shared { state: Mutex::new(state), awaited, places, on_rejected };
        Topics { shared: Arc::new(shared) }
    }

    /// What waits, and what became of the rest.
    pub fn status(&self) -> TopicsStatus {
        let state = self.shared.state();
        let State { shelves, rejected, .. } = &*state;
        TopicsStatus { waiting: shelves.waiting(), taken: shelves.taken(), rejected: *rejected }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A worker begins to give what it has.
    pub(super) fn join(&self, worker: usize, wake: Wake) {
        let mut state = self.state();
        // What an earlier execution has left comes again.
        state.shelves.leave(worker);
        state.workers.insert(worker, wake);
    }

    /// A worker has nothing to give any more, and hears of nothing.
    pub(super) fn leave(&self, worker: usize) {
        let mut state = self.state();
        state.shelves.leave(worker);
        state.workers.remove(&worker);
    }

    /// A record has come.
    pub(super) fn put(&self, worker: usize, cut: u64, value: TypedValue) {
        let why = match EgressRecord::of(&value) {
            Ok(EgressRecord { topic, payload }) => {
                let put = self.state().shelves.put(worker, cut, &topic, payload.into());
                match put {
                    Ok(()) => return self.awaited[&topic].notify_one(),
                    Err(_) => self.unknown(&topic),
                }
            }
            Err(mismatch) => mismatch.to_string(),
        };
        self.state().rejected += 1;
        let rejected = Rejected { cut, record: value, why };
        tracing::warn!(cut, why = rejected.why, "a record of the playground goes to no topic");
        self.on_rejected.iter().for_each(|on_rejected| on_rejected(&rejected));
    }

    /// All that a worker has of a cut has come.
    pub(super) fn end(&self, worker: usize, cut: u64) {
        self.state().shelves.end(worker, cut);
    }

    /// The last cut of a worker up to which all was taken, if there is a new one; and whether it waits for none.
    pub(super) fn finished(&self, worker: usize) -> (Option<u64>, bool) {
        let shelves = &mut self.state().shelves;
        (shelves.finished(worker), shelves.is_done(worker))
    }

    /// The next record of a topic.
    pub(super) fn take(&self, topic: &str) -> Option<Bytes> {
        let mut state = self.state();
        let (payload, worker) = state.shelves.take(topic)?;
        state.workers.get(&worker).into_iter().for_each(|wake| wake());
        Some(payload)
    }

    /// The next record of a topic, when there is one.
    pub(super) async fn next(&self, topic: &str) -> Bytes {
        let came = &self.awaited[topic];
        loop {
            // Whoever looks is among those who wait before, so no record comes that nobody is told of.
            let mut told = pin!(came.notified());
            told.as_mut().enable();
            match self.take(topic) {
                Some(payload) => return payload,
                None => told.await,
            }
        }
    }

    /// What is said of a topic that is none.
    pub(super) fn unknown(&self, topic: &str) -> String {
        let known: Vec<_> = self.awaited.keys().map(|topic| format!("\"{topic}\"")).collect();
        format!("there is no topic \"{topic}\"; topics are {}", known.join(", "))
    }
}

impl fmt::Debug for Topics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Topics").field(&self.status()).finish()
    }
}

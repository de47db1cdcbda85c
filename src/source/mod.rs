//! Where the messages of a program come from: sources that need nothing else, and a channel for those that need
//! something.
//!
//! A source gives a bounded batch at a time, and only while the functions that it feeds have room. What it
//! waits for can be seen from any thread, by its [`SourceHandle`]. The page on [sources](crate::sources) says
//! what each promises.
//!
//! * [`channel()`]: records that asynchronous code, or any thread, sends, with receipts that tell when a record
//!   has been let in and when a durable snapshot contains it.

mod channel;
mod files;
mod receipts;
mod times;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use timely_statefun_operators::Feed;
use timely_statefun_operators::Positions;

pub use channel::{Channel, ChannelSender, Closed, TrySendError, channel};
#[cfg(feature = "csv")]
pub use files::CsvOptions;
pub use files::{FileError, FileErrorKind, Files, Line};
pub(crate) use receipts::Ledger;
pub use receipts::{Lost, Receipt};
pub use times::Times;

pub use crate::dataflow::Source;

/// What a source waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum WaitingFor {
    /// Its worker, which has yet to look at it.
    #[default]
    Start,
    /// Nothing: it gives all the time, a batch after the other.
    Nothing,
    /// Records, of which there are none.
    Records,
    /// Room: the functions that it feeds take no more now.
    Credit,
    /// Nothing ever again: it has given all, or the program that it gave to is over.
    Ended,
}

/// How a source is getting on, as its worker sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SourceStatus {
    /// What it waits for.
    pub waiting_for: WaitingFor,
    /// How many records it has given.
    pub given: u64,
    /// How many records it did not give since a restored snapshot contains them.
    pub contained: u64,
    /// How much was [skipped](Files::skip_bad) since something was wrong with it.
    pub skipped: u64,
    /// What went wrong last.
    pub last_error: Option<String>,
}

/// How a source is getting on, on one worker, from any thread.
#[derive(Clone, Debug, Default)]
pub struct SourceHandle {
    status: Arc<Mutex<SourceStatus>>,
}

impl SourceHandle {
    /// How it is getting on.
    pub fn status(&self) -> SourceStatus {
        lock(&self.status).clone()
    }

    pub(crate) fn note(&self, note: impl FnOnce(&mut SourceStatus)) {
        note(&mut lock(&self.status));
    }
}

impl fmt::Display for WaitingFor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            WaitingFor::Start => "its worker",
            WaitingFor::Nothing => "nothing",
            WaitingFor::Records => "records",
            WaitingFor::Credit => "room in the functions that it feeds",
            WaitingFor::Ended => "nothing more: it has ended",
        })
    }
}

fn lock<X>(mutex: &Mutex<X>) -> MutexGuard<'_, X> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What has records for a source, on its worker. It never blocks.
pub(crate) trait Pull<D>: 'static {
    /// Begins behind these positions, if it can. What is pulled of what they contain is not given.
    fn begin(&mut self, _after: &Positions) {}

    /// Says how to have the source look again, from any thread.
    fn connect(&mut self, wake: Box<dyn Fn() + Send + Sync>);

    /// Adds records, up to so many, in order.
    fn pull(&mut self, records_max: usize, to: &mut Vec<D>) -> Pulled;

    /// Adds what else there is to tell.
    fn note(&mut self, _status: &mut SourceStatus) {}
}

/// Whether there is more to pull.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Pulled {
    /// There may be.
    More,
    /// Not now. The source is woken when there is.
    NotNow,
    /// Never again.
    Ended,
    /// Never again, since something is wrong. The program must stop.
    Failed(String),
}

//! Where the records of held egresses go: what a sink promises, sinks for files and for SQLite, and a channel to
//! asynchronous code.
//!
//! A sink knows cuts by their numbers and nothing else of the program: no dataflow, no function, no worker.

mod channel;
mod file;
#[cfg(feature = "sqlite")]
mod sqlite;

use std::fmt;

pub(crate) use channel::Giver;
pub use channel::{HeldReceiver, Taken};
pub use file::FileSink;
#[cfg(feature = "sqlite")]
pub use sqlite::SqliteSink;

use crate::retry::Retry;

/// Where the records of a [held](crate::Functions::held_egress) egress go, exactly once.
///
/// It is given whole cuts, one after the other, each with a number. It stores the records of a cut and the
/// number together, so that both are there or neither, and remembers the number. After a restart it is given
/// again what it may not have stored; what has a number that is not above the one it remembers is not
/// written again.
///
/// A sink may have several *shards*, each of which remembers a number of its own. Records are divided among
/// them by the address that emitted them. How many there are belongs to what is stored, as the number of
/// bins of a hash table does: it must never change, and has nothing to do with the number of workers.
///
/// All methods may take their time: they are called on threads that may wait. Each shard is written by one
/// worker at a time, one cut after the other. But an execution that is believed to be dead may still be
/// writing when another begins: see [`write`](Self::write).
///
/// ```
/// use std::collections::BTreeMap;
/// use std::sync::Mutex;
/// use timely_statefun::sink::{Sink, SinkError};
///
/// /// Keeps all in memory, with the number of the last cut.
/// #[derive(Default)]
/// struct Memory(Mutex<(Option<u64>, Vec<String>)>);
///
/// impl Sink<String> for Memory {
///     fn last(&self, _shard: u32) -> Result<Option<u64>, SinkError> {
///         Ok(self.0.lock().unwrap().0)
///     }
///     fn write(&self, _shard: u32, cut: u64, records: &[String]) -> Result<(), SinkError> {
///         let mut memory = self.0.lock().unwrap();
///         if memory.0.is_none_or(|last| last < cut) {
///             memory.0 = Some(cut);
///             memory.1.extend_from_slice(records);
///         }
///         Ok(())
///     }
/// }
///
/// let memory = Memory::default();
/// memory.write(0, 7, &["once".to_owned()])?;
/// memory.write(0, 7, &["once".to_owned()])?;
/// assert_eq!((memory.last(0)?, memory.0.lock().unwrap().1.len()), (Some(7), 1));
/// # Ok::<(), SinkError>(())
/// ```
pub trait Sink<E>: Send + Sync + 'static {
    /// How many shards there are, numbered from 0; at least 1. It is asked once, and must always be the same.
    /// Default 1.
    fn shards(&self) -> u32 {
        1
    }

    /// How often a failure is tried again before the program stops. Default 20 times, after waits of 100 ms at
    /// first and 10 s at most.
    fn retry(&self) -> Retry {
        Retry::attempts(20).longest(std::time::Duration::from_secs(10))
    }

    /// The number of the last cut that a shard has stored; `None` if it has none.
    ///
    /// # Errors
    ///
    /// If it cannot be found out. It is asked again, unless that is of [no use](SinkError::refused).
    fn last(&self, shard: u32) -> Result<Option<u64>, SinkError>;

    /// Stores the records of a cut, of which there are some, and its number, both or neither. If a cut with
    /// this number or a higher one is stored already, it stores nothing and returns `Ok`: somebody else may
    /// have written since it was asked, and a failure may have come after all was stored.
    ///
    /// Records come by bin, and in one bin in the order in which they were emitted. A cut has the same records in
    /// the same order however often it comes, on whatever number of workers.
    ///
    /// # Errors
    ///
    /// If it is not stored, or may not be. It comes again, unless that is of [no use](SinkError::refused).
    fn write(&self, shard: u32, cut: u64, records: &[E]) -> Result<(), SinkError>;
}

/// Why a sink cannot do what it is asked to. Every error becomes one, with `?`.
pub struct SinkError {
    why: Box<dyn std::error::Error + Send + Sync>,
    is_for_good: bool,
}

impl SinkError {
    /// Something is wrong that is still wrong when it is tried again. The program stops.
    pub fn refused(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        SinkError { why: why.into(), is_for_good: true }
    }

    /// Something went wrong that may go right the next time.
    pub fn failed(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        SinkError { why: why.into(), is_for_good: false }
    }

    /// Whether it is of no use to try again.
    pub fn is_refused(&self) -> bool {
        self.is_for_good
    }
}

impl<E: std::error::Error + Send + Sync + 'static> From<E> for SinkError {
    fn from(error: E) -> Self {
        SinkError::failed(error)
    }
}

impl fmt::Display for SinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut cause = Some(&*self.why as &dyn std::error::Error);
        let mut between = "";
        while let Some(error) = cause {
            write!(f, "{between}{error}")?;
            (cause, between) = (error.source(), ": ");
        }
        Ok(())
    }
}

impl fmt::Debug for SinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SinkError({:?}, {})", self.to_string(), self.is_for_good)
    }
}

/// How a sink is getting on, as one worker sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SinkStatus {
    /// The last cut that all shards of this worker have.
    pub acknowledged: Option<u64>,
    /// The cuts that some shard of this worker has yet to store.
    pub waiting: Vec<u64>,
    /// How many records of theirs are here.
    pub records: usize,
    /// How often what is being tried has failed.
    pub failures: u32,
    /// What failed last, if nothing has worked since.
    pub last_error: Option<String>,
}

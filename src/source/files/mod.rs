//! Files as a source: what is public of it, and the thread that reads them.
//!
//! A file is a partition, by its place in the list, and a position is the byte at which a record ends. So neither
//! depends on workers, and a restart goes on at a byte without reading what is before it.

mod error;
mod framing;
mod parsing;
mod reading;

use std::collections::VecDeque;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread::Thread;
use std::time::Duration;

use serde::de::DeserializeOwned;
use timely::dataflow::Scope;
use timely::progress::Timestamp;
use timely_statefun_operators::Positions;

pub use error::{FileError, FileErrorKind};
use framing::Framing;
#[cfg(feature = "csv")]
pub use parsing::CsvOptions;
use parsing::{Parse, Parser};
use reading::{Next, Reading};

use super::{Pull, Pulled, Source, SourceStatus, Times};
use crate::message::Envelope;

/// Records that are read ahead at once, and bytes of theirs, whichever is first.
const AHEAD_RECORDS: usize = 1024;
const AHEAD_BYTES: usize = 1 << 20;
/// How often as much may be there, and not be taken yet.
const AHEAD_TIMES: usize = 4;
/// Bytes of a record, unless it is said.
const RECORD_BYTES_MAX: usize = 1 << 20;

type OnBad = Arc<dyn Fn(&FileError) + Send + Sync>;

/// Files whose records are messages: lines of text, of JSON, or records of CSV; to their ends, or followed while they
/// grow.
///
/// Each file is a [partition](Line::partition), which is its place in the list, and is read by one worker. The
/// [position](Line::position) of a record is the byte at which it ends. All workers give the same list; after a
/// restart it may be longer, on any number of workers, but what was in it must stay where it was.
///
/// What is wrong with a file or a record stops the program, unless it [is skipped](Self::skip_bad). Files are read by a
/// thread of the source's own, up to four times 1024 records or 1 MiB ahead.
///
/// ```
/// use serde::Deserialize;
/// use timely_statefun::source::{Files, Times};
/// use timely_statefun::{Function, FunctionType, Functions, StatefulFunctions};
///
/// #[derive(Clone, Debug, Deserialize, serde::Serialize)]
/// struct Order { customer: u64, cents: u64 }
///
/// const CUSTOMER: FunctionType<Order> = FunctionType::new("shop/customer");
///
/// let directory = tempfile::tempdir()?;
/// let file = directory.path().join("orders");
/// std::fs::write(&file, "{\"customer\": 7, \"cents\": 100}\n{\"customer\": 8, \"cents\": 50}\n")?;
/// let handled = timely::execute_directly(move |worker| {
///     let handle = worker.dataflow::<u64, _, _>(|scope| {
///         let customer = Function::new(|_, order: &Order| {
///             assert!(order.cents > 0);
///             Ok(())
///         });
///         let functions = Functions::<Order>::new().embedded(CUSTOMER, customer);
///         let orders = Files::lines([file]).json::<Order>();
///         let source = orders.source(scope, "orders", Times::fixed(0));
///         let ingress = source.ingress(|line| {
///             line.envelope(|order| CUSTOMER.message(order.customer, order))
///         });
///         ingress.stateful_functions(functions).expect("functions that fit together").handle()
///     });
///     handle.run(worker).expect("the file is as it should be");
///     handle.stats().handled
/// });
/// assert_eq!(handled, 2);
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Files<D> {
    paths: Vec<PathBuf>,
    framing: Framing,
    parser: Parser<D>,
    follow: Option<Duration>,
    record_bytes_max: usize,
    on_bad: Option<OnBad>,
}

impl Files<String> {
    /// Files of lines of UTF-8. A line ends with a line feed, or with a carriage return before one; neither is part
    /// of it. What comes after the last line feed is a line as well, unless files are [followed](Self::follow).
    pub fn lines(paths: impl IntoIterator<Item = impl Into<PathBuf>>) -> Self {
        Files {
            paths: paths.into_iter().map(Into::into).collect(),
            framing: Framing::lines(),
            parser: parsing::text(),
            follow: None,
            record_bytes_max: RECORD_BYTES_MAX,
            on_bad: None,
        }
    }

    /// Each line is a value in JSON. Lines with nothing but white space are no records.
    pub fn json<D: DeserializeOwned + Send + 'static>(self) -> Files<D> {
        let framing = self.framing.clone();
        self.of(framing, parsing::json())
    }

    /// Each record of CSV is a value, which may take several lines. Fields are found by the names in the first record
    /// of the file, or by their order if it [has no](CsvOptions::headers) names. Empty lines are no records.
    #[cfg(feature = "csv")]
    pub fn csv<D: DeserializeOwned + Send + 'static>(self, options: CsvOptions) -> Files<D> {
        self.of(Framing::csv(options), parsing::csv(options))
    }

    fn of<D>(self, framing: Framing, parser: Parser<D>) -> Files<D> {
        let Files { paths, follow, record_bytes_max, on_bad, .. } = self;
        Files { paths, framing, parser, follow, record_bytes_max, on_bad }
    }
}

impl<D: Send + 'static> Files<D> {
    /// Goes on with what is appended to the files later: looks for it so long after nothing was found; at least a
    /// millisecond. A record that has no end yet is read when it has one. All files are open all the time, and
    /// are read in turn. The source does not end.
    ///
    /// A file that gets shorter than what was read of it, or in whose place there is another, is
    /// [an error](FileErrorKind).
    #[must_use]
    pub fn follow(mut self, interval: Duration) -> Self {
        self.follow = Some(interval.max(Duration::from_millis(1)));
        self
    }

    /// The bytes that a record may have, without its end; at least 1. Default 1 MiB. One that is longer is an error,
    /// and takes no more memory.
    #[must_use]
    pub fn record_bytes_max(mut self, bytes: usize) -> Self {
        self.record_bytes_max = bytes.max(1);
        self
    }

    /// Goes on when something is wrong: without a record that is not as it should be, or without what is left of a
    /// file that cannot be read. Each is told to `note`, on the thread that reads, and
    /// [counted](SourceStatus::skipped). Default: the program stops.
    ///
    /// After a restart, what was skipped behind the last record that counts is told of again.
    #[must_use]
    pub fn skip_bad(mut self, note: impl Fn(&FileError) + Send + Sync + 'static) -> Self {
        self.on_bad = Some(Arc::new(note));
        self
    }

    /// The files as a source, of which this worker reads every so-manieth. For an ingress that takes part in snapshots
    /// the name is the ingress's, which is stored. [`replayed`](Source::replayed) goes on behind what a
    /// snapshot has.
    ///
    /// # Panics
    ///
    /// If no thread can be had.
    pub fn source<'scope, T: Timestamp>(
        self,
        scope: Scope<'scope, T>,
        name: impl Into<String>,
        times: Times<T>,
    ) -> Source<'scope, T, Line<D>> {
        let (worker, peers) = (scope.index(), scope.peers());
        let own = self.paths.iter().enumerate().filter(|(at, _)| at % peers == worker);
        let readings = own.map(|(at, path)| {
            Reading::new(path.clone(), at as u64, self.framing.clone(), self.record_bytes_max)
        });
        let reader = Reader {
            readings: readings.collect(),
            parser: self.parser,
            follow: self.follow,
            on_bad: self.on_bad,
        };
        let pull = FilesPull {
            reader: Some(reader),
            read: None,
            batch: VecDeque::new(),
            stops: Arc::default(),
            thread: None,
            skipped: 0,
            last_error: None,
        };
        Source::new(scope, name.into(), times, Box::new(pull), None)
    }
}

impl<D> fmt::Debug for Files<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Files")
            .field("paths", &self.paths)
            .field("follow", &self.follow)
            .field("record_bytes_max", &self.record_bytes_max)
            .finish_non_exhaustive()
    }
}

/// A record of a file, and where it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Line<D> {
    /// What it says.
    pub record: D,
    /// The place of its file in the list.
    pub partition: u64,
    /// The byte at which it ends, with what ends it.
    pub position: u64,
}

impl<D> Line<D> {
    /// The message that `envelope` makes of the record, and that says where it was read.
    pub fn envelope<M>(self, envelope: impl FnOnce(D) -> Envelope<M>) -> Envelope<M> {
        envelope(self.record).read_at(self.partition, self.position)
    }
}

/// What the thread tells.
enum Told<D> {
    Batch { records: Vec<Line<D>> },
    Skipped(FileError),
    Failed(FileError),
    End,
}

/// What the thread reads.
struct Reader<D> {
    readings: Vec<Reading>,
    parser: Parser<D>,
    follow: Option<Duration>,
    on_bad: Option<OnBad>,
}

/// The worker's side.
struct FilesPull<D> {
    /// Until the thread has it.
    reader: Option<Reader<D>>,
    read: Option<Receiver<Told<D>>>,
    batch: VecDeque<Line<D>>,
    stops: Arc<AtomicBool>,
    thread: Option<Thread>,
    skipped: u64,
    last_error: Option<String>,
}

impl<D: Send + 'static> Pull<Line<D>> for FilesPull<D> {
    fn begin(&mut self, after: &Positions) {
        for reading in self.reader.iter_mut().flat_map(|reader| &mut reader.readings) {
            reading.begin(after.get(&reading.partition).copied().unwrap_or(0));
        }
    }

    fn connect(&mut self, wake: Box<dyn Fn() + Send + Sync>) {
        let reader = self.reader.take().expect("it is connected once");
        let (tell, read) = sync_channel(AHEAD_TIMES);
        let out = Out { tell: Some(tell), wake, stops: Arc::clone(&self.stops) };
        let thread = std::thread::Builder::new().name("source files".to_owned());
        let thread = thread.spawn(move || reader.run(&out)).expect("there is a thread to be had");
        (self.read, self.thread) = (Some(read), Some(thread.thread().clone()));
    }

    fn pull(&mut self, records_max: usize, to: &mut Vec<Line<D>>) -> Pulled {
        let Some(read) = &self.read else { return Pulled::Ended };
        while to.len() < records_max {
            let room = records_max - to.len();
            if !self.batch.is_empty() {
                to.extend(self.batch.drain(..room.min(self.batch.len())));
                continue;
            }
            match read.try_recv() {
                Ok(Told::Batch { records }) => self.batch.extend(records),
                Ok(Told::Skipped(error)) => {
                    self.skipped += 1;
                    self.last_error = Some(error.to_string());
                }
                Ok(Told::Failed(error)) => return Pulled::Failed(error.to_string()),
                Ok(Told::End) => return Pulled::Ended,
                Err(TryRecvError::Empty) => return Pulled::NotNow,
                Err(TryRecvError::Disconnected) => {
                    return Pulled::Failed("the thread that reads has panicked".to_owned());
                }
            }
        }
        Pulled::More
    }

    fn note(&mut self, status: &mut SourceStatus) {
        status.skipped = self.skipped;
        status.last_error.clone_from(&self.last_error);
    }
}

impl<D> Drop for FilesPull<D> {
    fn drop(&mut self) {
        // It ends by itself when it sees this. A worker does not wait for it, since it may wait for a disk.
        self.stops.store(true, Ordering::Release);
        self.thread.iter().for_each(Thread::unpark);
    }
}

/// The way from the thread to the worker.
struct Out<D> {
    tell: Option<SyncSender<Told<D>>>,
    wake: Box<dyn Fn() + Send + Sync>,
    stops: Arc<AtomicBool>,
}

/// Nobody listens any more.
struct Gone;

impl<D> Out<D> {
    fn tell(&self, told: Told<D>) -> Result<(), Gone> {
        let tell = self.tell.as_ref().expect("it is there until this is dropped");
        tell.send(told).map_err(|_| Gone)?;
        (self.wake)();
        Ok(())
    }
}

impl<D> Drop for Out<D> {
    fn drop(&mut self) {
        // Whoever is woken sees that it is gone.
        self.tell = None;
        (self.wake)();
    }
}

impl<D> Reader<D> {
    /// Reads until all is read, something is wrong, or nobody wants it.
    fn run(mut self, out: &Out<D>) {
        let mut readings = std::mem::take(&mut self.readings);
        let mut scratch = Vec::new();
        while !readings.is_empty() {
            // What ends is read one file after the other, and only that one is open.
            let at_once = if self.follow.is_some() { readings.len() } else { 1 };
            let (mut has_read, mut at) = (false, 0);
            while at < at_once.min(readings.len()) {
                match self.turn(&mut readings[at], &mut scratch, out) {
                    Ok(Turn::Some) => (has_read, at) = (true, at + 1),
                    Ok(Turn::None) => at += 1,
                    Ok(Turn::Over) => {
                        readings.remove(at);
                        has_read = true;
                    }
                    Err(Gone) => return,
                }
            }
            if !has_read {
                std::thread::park_timeout(self.follow.unwrap_or_default());
            }
            if out.stops.load(Ordering::Acquire) {
                return;
            }
        }
        // It makes no difference whether somebody hears it.
        _ = out.tell(Told::End);
    }

    /// Reads some of a file.
    fn turn(
        &mut self,
        reading: &mut Reading,
        scratch: &mut Vec<u8>,
        out: &Out<D>,
    ) -> Result<Turn, Gone> {
        let (mut records, mut bytes, mut has_read) = (Vec::new(), 0, false);
        let turn = loop {
            if records.len() >= AHEAD_RECORDS || bytes >= AHEAD_BYTES {
                break Turn::Some;
            }
            let error = match reading.next(scratch, self.follow.is_some()) {
                Ok(Next::Record { first }) => {
                    has_read = true;
                    bytes += scratch.len();
                    match self.parser.parse(scratch, reading.partition, first) {
                        Ok(Parse::Record(record)) => {
                            let (partition, position) = (reading.partition, reading.position());
                            records.push(Line { record, partition, position });
                            continue;
                        }
                        Ok(Parse::Nothing) => continue,
                        Err(kind) => reading.record_error(kind),
                    }
                }
                Ok(Next::NotYet) => break if has_read { Turn::Some } else { Turn::None },
                Ok(Next::End) => break Turn::Over,
                Err(error) => error,
            };
            has_read = true;
            if !records.is_empty() {
                out.tell(Told::Batch { records: std::mem::take(&mut records) })?;
            }
            let Some(on_bad) = &self.on_bad else {
                out.tell(Told::Failed(error))?;
                return Err(Gone);
            };
            on_bad(&error);
            let is_over = error.kind.is_of_file();
            out.tell(Told::Skipped(error))?;
            if is_over {
                break Turn::Over;
            }
        };
        if !records.is_empty() {
            out.tell(Told::Batch { records })?;
        }
        Ok(turn)
    }
}

/// What came of looking at a file.
enum Turn {
    /// There may be more.
    Some,
    /// There is nothing more now.
    None,
    /// Nothing more will be read of it.
    Over,
}

//! Functions of this program, as somebody who answers requests.

use std::fmt;
use std::sync::{Arc, mpsc};
use std::thread;

use bytes::Bytes;
use timely::progress::Timestamp;
use tokio::sync::oneshot;

use super::queue::{Job, Queue};
use super::thread::{Service, serve};
use super::{Answer, Refusal, RequestReply};
use crate::error::Error;
use crate::functions::Functions;
use crate::typed::TypedMessage;

/// How functions are served, each with its default.
///
/// ```
/// use timely_statefun::serve::ServedOptions;
///
/// let options = ServedOptions { threads: 2, ..ServedOptions::default() };
/// assert_eq!(options.under_way_max, 4096);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServedOptions {
    /// Threads that run functions. Default: as many as the system runs at once. 0 counts as 1.
    pub threads: usize,
    /// Requests that may be under way on all threads together. Those beyond wait for their turn. Each thread
    /// has the same share of them, rounded up; where no function waits for anything, each has one under
    /// way at most. Default 4,096; at least 1.
    pub under_way_max: usize,
    /// Messages and states that a request may list. One that lists more is [malformed](Refusal::Malformed).
    /// It is for memory, of which an element can take a hundred times as much as its bytes. Default 100,000.
    pub listed_max: usize,
}

impl Default for ServedOptions {
    fn default() -> Self {
        let threads = thread::available_parallelism().map_or(1, usize::from);
        ServedOptions { threads, under_way_max: 4096, listed_max: 100_000 }
    }
}

/// Functions as others call them: the same values that a dataflow [embeds](Functions::embedded), answering
/// requests of the [protocol](super).
///
/// They run on threads of their own, which end when the last clone of this is dropped; what is under way
/// then is given up. Functions cannot go from thread to thread, so they are made on each, by the closure
/// given.
///
/// ```
/// use timely_statefun::serve::{RequestReply, ServedFunctions};
/// use timely_statefun::{Egress, Function, Functions, FunctionType, TypedValue, ValueSpec};
///
/// const GREETER: FunctionType<String> = FunctionType::new("example/greeter");
/// const GREETINGS: Egress<String> = Egress::new("example/greetings");
/// const SEEN: ValueSpec<i32> = ValueSpec::new("seen");
///
/// fn functions() -> Functions<TypedValue> {
///     let greeter = Function::new(|context, name: &String| {
///         let seen = context.update(SEEN, |seen| *seen += 1);
///         context.emit(GREETINGS, format!("Hello {name}, for the {seen}. time"));
///         Ok(())
///     });
///     Functions::new().embedded(GREETER, greeter.value(SEEN)).typed_egress(GREETINGS)
/// }
///
/// let served = ServedFunctions::new(functions)?;
/// # let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
/// # let nothing = runtime.block_on(served.answer(Vec::new().into()));
/// # assert_eq!(nothing.unwrap_err().status(), 400);
/// # Ok::<(), timely_statefun::Error>(())
/// ```
#[derive(Clone)]
pub struct ServedFunctions(Arc<Threads>);

/// The threads, as long as somebody has them.
struct Threads {
    queue: Arc<Queue>,
    options: ServedOptions,
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.queue.close();
    }
}

impl ServedFunctions {
    /// Serves the functions that `functions` makes, once to check them and once on each thread.
    ///
    /// # Errors
    ///
    /// If they are put together wrongly, or [cannot be served](Error::is_not_served).
    ///
    /// # Panics
    ///
    /// If `functions` panics, or the system gives no thread.
    pub fn new<M, T, F>(functions: F) -> Result<Self, Error>
    where
        M: TypedMessage,
        T: Timestamp,
        F: Fn() -> Functions<M, T> + Send + Sync + 'static,
    {
        Self::with(ServedOptions::default(), functions)
    }

    /// The same with options.
    ///
    /// # Errors
    ///
    /// As for [`new`](Self::new).
    ///
    /// # Panics
    ///
    /// As for [`new`](Self::new).
    pub fn with<M, T, F>(options: ServedOptions, functions: F) -> Result<Self, Error>
    where
        M: TypedMessage,
        T: Timestamp,
        F: Fn() -> Functions<M, T> + Send + Sync + 'static,
    {
        functions().check_served()?;
        let (functions, queue) = (Arc::new(functions), Arc::new(Queue::default()));
        let (threads, under_way_max) = (options.threads.max(1), options.under_way_max.max(1));
        let listed_max = options.listed_max;
        let served = ServedFunctions(Arc::new(Threads { queue: Arc::clone(&queue), options }));
        let (ready, all_ready) = mpsc::channel();
        for number in 0..threads {
            let (functions, ready) = (Arc::clone(&functions), ready.clone());
            let under_way_max = under_way_max.div_ceil(threads);
            let service = Service { queue: Arc::clone(&queue), under_way_max, listed_max };
            let thread = thread::Builder::new().name(format!("serve-{number}"));
            let started = thread.spawn(move || {
                let functions = functions();
                let checked = functions.check_served();
                let is_good = checked.is_ok();
                // Nobody hears it if another thread has failed.
                let _ = ready.send(checked);
                drop(ready);
                if is_good {
                    serve(functions, service);
                }
            });
            started.expect("the system gives a thread");
        }
        drop(ready);
        let mut count = 0;
        for checked in all_ready {
            checked?;
            count += 1;
        }
        assert_eq!(count, threads, "functions were made on each thread");
        Ok(served)
    }
}

impl RequestReply for ServedFunctions {
    fn answer(&self, request: Bytes) -> Answer {
        let (answer, told) = oneshot::channel();
        self.0.queue.push(Job { request, answer });
        Box::pin(async move {
            let gone = || Refusal::Unavailable("the functions are served no more".to_owned());
            told.await.unwrap_or_else(|_| Err(gone()))
        })
    }
}

impl fmt::Debug for ServedFunctions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ServedFunctions").field(&self.0.options).finish()
    }
}

//! The workers of one execution, each on a thread of its own, of which one runs at a time: whoever gives an
//! order waits until it is done.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use timely::WorkerConfig;
use timely::communication::allocator::ProcessBuilder;
use timely::communication::{Allocator, Hooks};
use timely::worker::Worker;

use crate::dispatch::panic_message;

/// In real time: whoever has not done what it was told by then never will. Far more than anything takes.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often somebody who waits looks whether a worker has failed.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What one worker is to do.
type Order<W> = Box<dyn FnOnce(&mut W) + Send>;

/// Workers that do what they are told, one at a time.
pub(super) struct Crew<W> {
    orders: Vec<Sender<Order<W>>>,
    threads: Vec<JoinHandle<()>>,
    /// Why one has ended before it was to.
    failure: Arc<Mutex<Option<String>>>,
    /// Whether one does not come back. Nobody waits for its thread.
    is_stuck: AtomicBool,
}

/// Workers that are being built.
pub(super) struct Building<W> {
    crew: Crew<W>,
    built: Receiver<()>,
}

impl<W: 'static> Crew<W> {
    /// Begins to build so many workers, all at once: they wait for each other. What they exchange crosses as
    /// bytes, as between processes, or as it is.
    pub(super) fn build(
        workers: usize,
        as_bytes: bool,
        make: impl Fn(Worker) -> Result<W, String> + Send + Sync + 'static,
    ) -> Building<W> {
        let Hooks { refill, spill, .. } = Hooks::default();
        let allocators = match as_bytes {
            true => ProcessBuilder::new_bytes_vector(workers, refill, spill),
            false => ProcessBuilder::new_typed_vector(workers, refill, spill),
        };
        let (make, failure) = (Arc::new(make), Arc::new(Mutex::new(None)));
        let (tell, built) = channel();
        let start = |allocator: ProcessBuilder| {
            let (make, failure, tell) = (Arc::clone(&make), Arc::clone(&failure), tell.clone());
            let (order, orders) = channel::<Order<W>>();
            let thread = thread::Builder::new().name("simulated worker".to_owned());
            let thread = thread.spawn(move || {
                let done = catch_unwind(AssertUnwindSafe(|| {
                    let config = WorkerConfig::default();
                    let allocator = Allocator::Process(allocator.build());
                    let mut worker = make(Worker::new(config, allocator, Some(Instant::now())))?;
                    // Whoever builds has given up if nobody hears it.
                    let _ = tell.send(());
                    drop(tell);
                    for order in orders {
                        order(&mut worker);
                    }
                    Ok(())
                }));
                if let Err(why) = done.unwrap_or_else(|panic| Err(panic_message(&*panic))) {
                    let mut failure = failure.lock().unwrap_or_else(PoisonError::into_inner);
                    failure.get_or_insert(why);
                }
            });
            (order, thread.expect("there are threads"))
        };
        let (orders, threads) = allocators.into_iter().map(start).unzip();
        Building { crew: Crew { orders, threads, failure, is_stuck: false.into() }, built }
    }

    pub(super) fn len(&self) -> usize {
        self.orders.len()
    }

    /// Has a worker do something, and waits for it.
    ///
    /// # Errors
    ///
    /// What a worker said when it panicked, or that it does not come back.
    pub(super) fn on<R: Send + 'static>(
        &self,
        worker: usize,
        order: impl FnOnce(&mut W) -> R + Send + 'static,
    ) -> Result<R, String> {
        let (tell, told) = channel();
        let order: Order<W> = Box::new(move |worker| drop(tell.send(order(worker))));
        if self.orders[worker].send(order).is_err() {
            return Err(self.failure());
        }
        told.recv_timeout(PATIENCE).map_err(|why| match why {
            RecvTimeoutError::Disconnected => self.failure(),
            RecvTimeoutError::Timeout => self.stuck(&format!("worker {worker}")),
        })
    }

    fn stuck(&self, who: &str) -> String {
        self.is_stuck.store(true, Relaxed);
        format!("{who} has got nowhere for {PATIENCE:?} of real time: does a function not return?")
    }

    fn known_failure(&self) -> Option<String> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn failure(&self) -> String {
        // The thread says why before it ends, and the order is gone a little earlier.
        loop {
            match self.known_failure() {
                Some(failure) => return failure,
                None => thread::yield_now(),
            }
        }
    }
}

impl<W: 'static> Building<W> {
    /// Waits until the workers are built.
    ///
    /// # Errors
    ///
    /// Why one is not, or what it said when it panicked. Those that wait for it are left behind.
    pub(super) fn wait(self) -> Result<Crew<W>, String> {
        let began = Instant::now();
        let mut missing = self.crew.len();
        while missing > 0 {
            match self.built.recv_timeout(LOOK_EVERY) {
                Ok(()) => missing -= 1,
                Err(RecvTimeoutError::Disconnected) => return Err(self.crew.failure()),
                Err(RecvTimeoutError::Timeout) => {
                    if let Some(failure) = self.crew.known_failure() {
                        self.crew.is_stuck.store(true, Relaxed);
                        return Err(failure);
                    }
                    if began.elapsed() > PATIENCE {
                        return Err(self.crew.stuck("a worker that is being built"));
                    }
                }
            }
        }
        Ok(self.crew)
    }

    /// Whether a worker has failed already.
    pub(super) fn has_failed(&self) -> bool {
        self.crew.known_failure().is_some()
    }
}

/// Ends the workers where they are.
impl<W> Drop for Crew<W> {
    fn drop(&mut self) {
        for order in std::mem::take(&mut self.orders) {
            drop(order);
        }
        for thread in self.threads.drain(..) {
            // Its panic, if it had one, is known.
            if !self.is_stuck.load(Relaxed) {
                let _ = thread.join();
            }
        }
    }
}

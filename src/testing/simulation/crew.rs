//! The workers of one execution, each on a thread of its own, of which one runs at a time: whoever gives an
//! order waits until it is done.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use timely::WorkerConfig;
use timely::communication::allocator::ProcessBuilder;
use timely::communication::{Allocator, Hooks};
use timely::worker::Worker;

/// What one worker is to do.
type Order<W> = Box<dyn FnOnce(&mut W) + Send>;

/// Workers that do what they are told, one at a time.
pub(super) struct Crew<W> {
    orders: Vec<Sender<Order<W>>>,
    threads: Vec<JoinHandle<()>>,
    /// Why one has ended before it was to.
    failure: Arc<Mutex<Option<String>>>,
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
        make: impl Fn(Worker) -> W + Send + Sync + 'static,
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
                    let mut worker = make(Worker::new(config, allocator, Some(Instant::now())));
                    // Whoever builds has given up if nobody hears it.
                    let _ = tell.send(());
                    drop(tell);
                    for order in orders {
                        order(&mut worker);
                    }
                }));
                if let Err(panic) = done {
                    let mut failure = failure.lock().unwrap_or_else(PoisonError::into_inner);
                    failure.get_or_insert(text(&*panic));
                }
            });
            (order, thread.expect("there are threads"))
        };
        let (orders, threads) = allocators.into_iter().map(start).unzip();
        Building { crew: Crew { orders, threads, failure }, built }
    }

    pub(super) fn len(&self) -> usize {
        self.orders.len()
    }

    /// Has a worker do something, and waits for it.
    ///
    /// # Errors
    ///
    /// What a worker said when it panicked.
    pub(super) fn on<R: Send + 'static>(
        &self,
        worker: usize,
        order: impl FnOnce(&mut W) -> R + Send + 'static,
    ) -> Result<R, String> {
        let (tell, told) = channel();
        let order: Order<W> = Box::new(move |worker| drop(tell.send(order(worker))));
        let sent = self.orders[worker].send(order);
        sent.ok().and_then(|()| told.recv().ok()).ok_or_else(|| self.failure())
    }

    fn failure(&self) -> String {
        // The thread says why before it ends, and the order is gone a little earlier.
        loop {
            let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone();
            match failure {
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
    /// What a worker said when it panicked.
    pub(super) fn wait(self) -> Result<Crew<W>, String> {
        for _ in 0..self.crew.len() {
            if self.built.recv().is_err() {
                return Err(self.crew.failure());
            }
        }
        Ok(self.crew)
    }

    /// Whether a worker has failed already.
    pub(super) fn has_failed(&self) -> bool {
        self.crew.failure.lock().unwrap_or_else(PoisonError::into_inner).is_some()
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
            let _ = thread.join();
        }
    }
}

/// What a panic says.
pub(super) fn text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "a panic that says nothing".to_owned())
}

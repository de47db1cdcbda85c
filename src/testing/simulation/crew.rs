//! The workers of one execution, each on a thread of its own, of which one runs at a time: whoever gives an
//! order waits until it is done.
//!
//! Threads wait by parking, since most of what a run costs is that one goes on and another waits.

use std::ops::{Deref, DerefMut};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

use timely::WorkerConfig;
use timely::communication::allocator::ProcessBuilder;
use timely::communication::allocator::zero_copy::bytes_slab::BytesRefill;
use timely::communication::{Allocator, Hooks};
use timely::worker::Worker;

use crate::dispatch::panic_message;

/// In real time: whoever has not done what it was told by then never will. Far more than anything takes.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often somebody who waits looks whether a worker has failed.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What one worker is to do.
type Order<W> = Box<dyn FnOnce(&mut W) + Send>;

/// Where a worker finds what it is to do.
struct Desk<W>(Mutex<Task<W>>);

enum Task<W> {
    Nothing,
    /// And who waits for it.
    Order(Order<W>, Thread),
    /// It is done for whoever waits.
    UnderWay(Thread),
    /// The worker is to end, or has ended.
    End,
}

impl<W> Desk<W> {
    fn task(&self) -> MutexGuard<'_, Task<W>> {
        // It is replaced as a whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does what it finds, until it is to end.
    fn work(&self, worker: &mut W) {
        loop {
            let mut task = self.task();
            match std::mem::replace(&mut *task, Task::Nothing) {
                Task::Order(order, waits) => {
                    *task = Task::UnderWay(waits.clone());
                    drop(task);
                    order(worker);
                    *self.task() = Task::Nothing;
                    waits.unpark();
                }
                Task::End => return,
                Task::Nothing | Task::UnderWay(_) => {
                    drop(task);
                    thread::park();
                }
            }
        }
    }

    /// There is no worker any more. Whoever waits for one finds out.
    fn end(&self) {
        let task = std::mem::replace(&mut *self.task(), Task::End);
        if let Task::Order(_, waits) | Task::UnderWay(waits) = task {
            waits.unpark();
        }
    }
}

/// Workers that do what they are told, one at a time.
pub(super) struct Crew<W> {
    desks: Vec<Arc<Desk<W>>>,
    threads: Vec<JoinHandle<()>>,
    /// Why one has ended before it was to.
    failure: Arc<Mutex<Option<String>>>,
    /// Whether one does not come back. Nobody waits for its thread.
    is_stuck: AtomicBool,
}

/// The memory in which what workers exchange as bytes crosses. Executions give it back, and others have it then.
#[derive(Clone, Default)]
pub(super) struct Slabs(Arc<Mutex<Vec<Vec<u8>>>>);

/// Some of it.
struct Slab {
    bytes: Vec<u8>,
    of: Slabs,
}

impl Slabs {
    fn refill(&self) -> BytesRefill {
        let slabs = self.clone();
        let logic = move |size: usize| {
            let mut free = slabs.0.lock().unwrap_or_else(PoisonError::into_inner);
            let bytes = match free.iter().position(|bytes| bytes.len() == size) {
                Some(at) => free.swap_remove(at),
                None => vec![0; size],
            };
            Box::new(Slab { bytes, of: slabs.clone() }) as Box<dyn DerefMut<Target = [u8]> + Send>
        };
        BytesRefill { logic: Arc::new(logic), limit: None }
    }
}

impl Deref for Slab {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl DerefMut for Slab {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

impl Drop for Slab {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        self.of.0.lock().unwrap_or_else(PoisonError::into_inner).push(bytes);
    }
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
        as_bytes: Option<&Slabs>,
        make: impl Fn(Worker) -> Result<W, String> + Send + Sync + 'static,
    ) -> Building<W> {
        let Hooks { refill, spill, .. } = Hooks::default();
        let allocators = match as_bytes {
            Some(slabs) => ProcessBuilder::new_bytes_vector(workers, slabs.refill(), spill),
            None => ProcessBuilder::new_typed_vector(workers, refill, spill),
        };
        let (make, failure) = (Arc::new(make), Arc::new(Mutex::new(None)));
        let (tell, built) = channel();
        let start = |allocator: ProcessBuilder| {
            let (make, failure, tell) = (Arc::clone(&make), Arc::clone(&failure), tell.clone());
            let desk = Arc::new(Desk(Mutex::new(Task::Nothing)));
            let own = Arc::clone(&desk);
            let thread = thread::Builder::new().name("simulated worker".to_owned());
            let thread = thread.spawn(move || {
                let done = catch_unwind(AssertUnwindSafe(|| {
                    let config = WorkerConfig::default();
                    let allocator = Allocator::Process(allocator.build());
                    let mut worker = make(Worker::new(config, allocator, Some(Instant::now())))?;
                    // Whoever builds has given up if nobody hears it.
                    let _ = tell.send(());
                    drop(tell);
                    own.work(&mut worker);
                    Ok(())
                }));
                if let Err(why) = done.unwrap_or_else(|panic| Err(panic_message(&*panic))) {
                    let mut failure = failure.lock().unwrap_or_else(PoisonError::into_inner);
                    failure.get_or_insert(why);
                }
                own.end();
            });
            (desk, thread.expect("there are threads"))
        };
        let (desks, threads) = allocators.into_iter().map(start).unzip();
        Building { crew: Crew { desks, threads, failure, is_stuck: false.into() }, built }
    }

    pub(super) fn len(&self) -> usize {
        self.desks.len()
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
        let result = Arc::new(Mutex::new(None));
        let told = Arc::clone(&result);
        let order: Order<W> = Box::new(move |worker| {
            let result = order(worker);
            *told.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
        });
        let desk = &self.desks[worker];
        {
            let mut task = desk.task();
            if matches!(*task, Task::End) {
                return Err(self.failure());
            }
            *task = Task::Order(order, thread::current());
        }
        self.threads[worker].thread().unpark();
        let began = Instant::now();
        loop {
            thread::park_timeout(PATIENCE);
            match &*desk.task() {
                Task::Nothing => break,
                Task::End => return Err(self.failure()),
                Task::Order(..) | Task::UnderWay(_) => {}
            }
            if began.elapsed() >= PATIENCE {
                return Err(self.stuck(&format!("worker {worker}")));
            }
        }
        let result = result.lock().unwrap_or_else(PoisonError::into_inner).take();
        Ok(result.expect("the worker has done it"))
    }

    fn stuck(&self, who: &str) -> String {
        self.is_stuck.store(true, Relaxed);
        format!("{who} has got nowhere for {PATIENCE:?} of real time: does a function not return?")
    }

    fn known_failure(&self) -> Option<String> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn failure(&self) -> String {
        // The thread says why before it ends, and whoever is building hears of it a little earlier.
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
        for (desk, thread) in self.desks.iter().zip(&self.threads) {
            *desk.task() = Task::End;
            thread.thread().unpark();
        }
        for thread in self.threads.drain(..) {
            // Its panic, if it had one, is known.
            if !self.is_stuck.load(Relaxed) {
                let _ = thread.join();
            }
        }
    }
}

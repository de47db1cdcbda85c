//! One worker: what it runs, and what becomes of it.
//!
//! A worker that panics is never dropped. Its end would look to the others as if it had done its
//! part, and what they share with it would be poisoned.

use std::any::Any;
use std::mem::{ManuallyDrop, forget};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use timely::WorkerConfig;
use timely::communication::Allocator;
use timely::communication::allocator::zero_copy::allocator::TcpBuilder;
use timely::communication::allocator::{ProcessBuilder, Thread};
use timely::worker::Worker;

/// What connects a worker with the others, before it has the thread it lives on.
pub(super) enum Ties {
    None,
    Process(ProcessBuilder),
    Processes(TcpBuilder),
}

impl Ties {
    fn build(self) -> Allocator {
        match self {
            Ties::None => Allocator::Thread(Thread::default()),
            Ties::Process(builder) => Allocator::Process(builder.build()),
            Ties::Processes(builder) => Allocator::Tcp(builder.build()),
        }
    }
}

/// Runs a worker to its end.
///
/// # Errors
///
/// If something in it panics: what the panic says.
pub(super) fn run<R>(
    ties: Ties,
    config: WorkerConfig,
    program: impl Fn(&mut Worker) -> R,
) -> Result<R, String> {
    let mut place = ManuallyDrop::new(None);
    let outcome = caught(|| {
        let worker = place.insert(Worker::new(config, ties.build(), Some(Instant::now())));
        let result = program(worker);
        while worker.has_dataflows() {
            worker.step_or_park(None);
        }
        result
    });
    let result = outcome?;
    caught(|| drop(ManuallyDrop::into_inner(place)))?;
    Ok(result)
}

/// Runs something; if it panics, gives what the panic says.
pub(super) fn caught<R>(something: impl FnOnce() -> R) -> Result<R, String> {
    catch_unwind(AssertUnwindSafe(something)).map_err(|payload| {
        let message = message(&*payload);
        // Dropping it is again code of somebody else.
        forget(payload);
        message
    })
}

fn message(payload: &(dyn Any + Send)) -> String {
    if let Some(text) = payload.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text.clone()
    } else {
        "(something that is not text)".to_owned()
    }
}

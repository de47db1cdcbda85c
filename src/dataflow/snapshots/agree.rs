//! How all workers come to know the same of an execution before they build anything: worker 0 finds out,
//! and tells the others through a dataflow of its own.

use std::cell::RefCell;
use std::future::Future;
use std::rc::Rc;
use std::sync::mpsc::{TryRecvError, channel};
use std::thread;
use std::time::Duration;

use timely::dataflow::operators::vec::Broadcast;
use timely::dataflow::operators::{Input, Inspect, Probe};
use timely::worker::Worker;
use tokio::runtime::Handle;

use crate::snapshot::{Begun, Log, SnapshotError};

/// How often worker 0 looks whether it knows, while it lets the others get on.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// Has worker 0 run `beginning`, and all workers know what came of it. Each then does `prepare`, and none
/// goes on before all have. Worker 0 gets the log.
pub(super) fn agree<P>(
    worker: &mut Worker,
    runtime: &Handle,
    beginning: impl Future<Output = Result<(Begun, Log), SnapshotError>> + Send + 'static,
    prepare: impl FnOnce(&Begun) -> P,
) -> Result<(Begun, Option<Log>, P), SnapshotError> {
    let heard = Rc::new(RefCell::new(None));
    let hears = Rc::clone(&heard);
    let (mut input, probe) = worker.dataflow_named("Begin snapshots", move |scope| {
        let (input, stream) = scope.new_input::<Vec<Result<Begun, SnapshotError>>>();
        let told = stream.broadcast().inspect(move |told| *hears.borrow_mut() = Some(told.clone()));
        let (probe, _) = told.probe();
        (input, probe)
    });
    let mut log = None;
    if worker.index() == 0 {
        let (tell, told) = channel();
        let this = thread::current();
        runtime.spawn(async move {
            drop(tell.send(beginning.await));
            this.unpark();
        });
        let begun = loop {
            match told.try_recv() {
                Ok(begun) => break begun,
                Err(TryRecvError::Empty) => worker.step_or_park(Some(LOOK_EVERY)),
                Err(TryRecvError::Disconnected) => break Err(SnapshotError::runtime_is_gone()),
            };
        };
        input.send(begun.map(|(begun, claimed)| {
            log = Some(claimed);
            begun
        }));
    }
    input.advance_to(1);
    while heard.borrow().is_none() {
        worker.step_or_park(None);
    }
    let begun = heard.take().expect("it was heard");
    let begun = begun.map(|begun| {
        let prepared = prepare(&begun);
        (begun, log, prepared)
    });
    input.close();
    // Over when every worker has come so far.
    while !probe.done() {
        worker.step_or_park(None);
    }
    begun
}

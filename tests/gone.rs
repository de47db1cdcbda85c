//! A delayed message that waits no more does not come back from a snapshot.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use timely::dataflow::operators::{Input, Inspect};
use timely::worker::Worker;
use timely_statefun::{
    AtClose, Egress, Envelope, Function, FunctionType, Functions, SnapshotOptions, SnapshotPolicy,
    SnapshotStore, Snapshots, StatefulFunctions,
};

const ALARM: FunctionType<String> = FunctionType::new("test/alarm");
const RINGS: Egress<String> = Egress::new("test/rings");
const LATER: Duration = Duration::from_secs(3600);

/// A function without state: what a snapshot has of it are delayed messages, and that they are over.
fn functions() -> Functions<String> {
    let alarm = Function::new(|context, text: &String| {
        match text.as_str() {
            "set" => {
                let (id, ring) = (context.id().clone(), "ring".to_owned());
                context.send_after_unless_cancelled("token", LATER, ALARM, id, ring)?;
            }
            "cancel" => assert!(context.cancel("token"), "it waits"),
            ring => context.emit(RINGS, ring.to_owned()),
        }
        Ok(())
    });
    // What waits at the end is sent off at once.
    Functions::new().embedded(ALARM, alarm).egress(RINGS).at_close(AtClose::SendNow)
}

/// Runs the program on some messages, with a snapshot after each, and gives what rang.
fn run(
    worker: &mut Worker,
    store: &SnapshotStore,
    runtime: &tokio::runtime::Handle,
    messages: &[&str],
) -> Vec<String> {
    let policy = SnapshotPolicy::new("alarm").on_request();
    let snapshots = Snapshots::<u64>::begin(worker, store, runtime, &policy).unwrap();
    let (rings, cuts) = (Rc::new(RefCell::new(Vec::new())), Rc::new(Cell::new(0)));
    let (rang, taken) = (Rc::clone(&rings), Rc::clone(&cuts));
    let (mut input, handle) = worker.dataflow(|scope| {
        let (input, stream) = scope.new_input::<Vec<Envelope<String>>>();
        let egresses = snapshots.unreplayed("orders", stream).stateful_functions(functions());
        let egresses = egresses.unwrap();
        let heard = egresses.stream(RINGS).unwrap();
        heard.inspect(move |ring| rang.borrow_mut().push(ring.clone()));
        let done = egresses.snapshots().unwrap();
        done.inspect(move |_| taken.set(taken.get() + 1));
        (input, egresses.handle())
    });
    for message in messages {
        let (handled, before) = (handle.stats().handled, cuts.get());
        input.send(ALARM.message("one", (*message).to_owned()));
        input.flush();
        let began = Instant::now();
        let mut asked = false;
        while cuts.get() == before {
            assert!(began.elapsed() < Duration::from_secs(60), "no snapshot is taken");
            worker.step_or_park(Some(Duration::from_millis(1)));
            if !asked && handle.stats().handled > handled {
                snapshots.request();
                asked = true;
            }
        }
    }
    input.close();
    handle.run(worker).unwrap();
    rings.take()
}

/// An increment in which the only record of a worker says that a delayed message is over. Such a record
/// refers to no function type, so the file had no table that says whose records they are, and was passed
/// over: the message came back. Money that moved for ever became more, once in some hundred snapshots.
#[test]
fn a_message_that_was_cancelled_stays_so_where_nothing_else_happened() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_time().build().unwrap();
    let handle = runtime.handle().clone();
    timely::execute_directly(move |worker| {
        let store = SnapshotStore::open("memory:", SnapshotOptions::default()).unwrap();
        assert!(run(worker, &store, &handle, &["set", "cancel"]).is_empty());
        assert!(run(worker, &store, &handle, &[]).is_empty(), "what was cancelled rang");
        // The control: one that was not cancelled rings.
        assert_eq!(run(worker, &store, &handle, &["set"]), ["ring"]);
    });
}

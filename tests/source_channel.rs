//! What is sent into a channel arrives once, in order, only while there is room, and its receipts never say too
//! much.

mod support;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use support::{LIMIT, Random, on_workers, until};
use timely::dataflow::operators::vec::Map;
use timely::dataflow::operators::{Inspect, Probe};
use timely_statefun::source::{
    self, Channel, ChannelSender, Lost, Times, TrySendError, WaitingFor,
};
use timely_statefun::testing::{FaultyStore, StoreCall, StoreFault};
use timely_statefun::{
    Clock, Context, Egress, Envelope, Function, FunctionResult, FunctionType, Functions, Limits,
    Reason, Retry, SnapshotOptions, SnapshotPolicy, SnapshotStore, Snapshots, StatefulFunctions,
    ValueSpec,
};
use tokio::runtime::Runtime;
use tokio::sync::Notify;

/// Is told numbers, which must come in order.
const LISTENER: FunctionType<u64> = FunctionType::new("channel/listener");
const SLOW: FunctionType<u64> = FunctionType::new("channel/slow");
const COUNTS: Egress<u64> = Egress::new("channel/counts");
const NEXT: ValueSpec<u64> = ValueSpec::new("next");

fn listener() -> Function<u64, u64> {
    let listener = |context: &mut Context<'_, u64>, number: &u64| -> FunctionResult {
        let next = context.get(NEXT).copied().unwrap_or(0);
        if next != *number {
            return Err(format!("{number} came where {next} should have").into());
        }
        context.set(NEXT, next + 1);
        context.emit(COUNTS, next + 1);
        Ok(())
    };
    Function::new(listener).value(NEXT)
}

fn functions() -> Functions<u64> {
    Functions::new().embedded(LISTENER, listener()).egress(COUNTS)
}

/// The channel for the worker that asks first, and none for the others.
type Once<D> = Arc<Mutex<Option<Channel<D>>>>;

fn once<D>(channel: Channel<D>) -> Once<D> {
    Arc::new(Mutex::new(Some(channel)))
}

fn take<D>(once: &Once<D>) -> Channel<D> {
    once.lock().unwrap().take().unwrap_or_default()
}

#[test]
fn every_record_arrives_once_and_in_the_order_of_the_task_that_sent_it() {
    const EACH: u64 = 3000;
    let runtime = Runtime::new().unwrap();
    for workers in [1, 2] {
        let (sender, channel) = source::channel::<Envelope<u64>>(7);
        let tasks = (0..2_u64).map(|task| {
            let sender = sender.clone();
            runtime.spawn(async move {
                for number in 0..EACH {
                    sender.send(LISTENER.message(task, number)).await.unwrap();
                }
            })
        });
        let tasks: Vec<_> = tasks.collect();
        drop(sender);
        let channel = once(channel);
        let handled = on_workers(workers, move |worker| {
            let (handle, status) = worker.dataflow::<u64, _, _>(|scope| {
                let source = take(&channel).source(scope, "numbers", Times::fixed(3));
                let status = source.handle();
                let ingress = source.batch_max(100).ingress(|envelope| envelope);
                (ingress.stateful_functions(functions()).unwrap().handle(), status)
            });
            handle.run(worker).unwrap();
            assert_eq!(status.status().waiting_for, WaitingFor::Ended);
            assert_eq!(status.status().given, handle.stats().admitted);
            handle.stats().handled
        });
        assert_eq!(handled.iter().sum::<u64>(), 2 * EACH);
        for task in tasks {
            runtime.block_on(task).unwrap();
        }
    }
}

/// The functions handle less in a step than the source could give. What is between the two is bounded wherever it
/// is looked for.
#[test]
fn a_flood_waits_where_it_takes_no_memory() {
    const RECORDS: u64 = 20_000;
    const CAPACITY: u64 = 50;
    const BATCH: u64 = 64;
    const CREDIT: u64 = 100;
    let runtime = Runtime::new().unwrap();
    let (sender, channel) = source::channel::<u64>(CAPACITY as usize);
    let sent = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&sent);
    let sending = runtime.spawn(async move {
        for number in 0..RECORDS {
            sender.send(number).await.unwrap();
            counted.store(number + 1, SeqCst);
        }
    });
    let channel = once(channel);
    on_workers(1, move |worker| {
        let (handle, status) = worker.dataflow::<u64, _, _>(|scope| {
            let limits = Limits {
                budget_messages: 8,
                gate_credit_records: CREDIT as usize,
                ..Limits::default()
            };
            let source = take(&channel).source(scope, "numbers", Times::fixed(0));
            let source = source.batch_max(BATCH as usize);
            let status = source.handle();
            let ingress = source.ingress(|number| LISTENER.message("all", number));
            (ingress.stateful_functions(functions().limits(limits)).unwrap().handle(), status)
        });
        let (mut waited, mut flooded, mut last, began) = (0, 0, 0, Instant::now());
        while worker.has_dataflows() {
            assert!(began.elapsed() < LIMIT, "{:?}", status.status());
            let (before, stats) = (sent.load(SeqCst), handle.stats());
            let status = status.status();
            let (outside, inside) = (status.given - stats.admitted, stats.admitted - stats.handled);
            assert!(outside <= 2 * BATCH, "{outside} wait before the gate");
            assert!(inside <= CREDIT, "{inside} wait behind the gate");
            let all = before.saturating_sub(stats.handled);
            // One more may be on its way out of the sender's hands.
            assert!(all <= CAPACITY + 2 * BATCH + CREDIT + 1, "{all} wait altogether");
            waited += u64::from(status.waiting_for == WaitingFor::Credit);
            flooded += u64::from(all > CREDIT);
            last = stats.handled;
            assert_eq!(handle.stopped(), None);
            worker.step();
        }
        assert_eq!(last.max(handle.stats().handled), RECORDS);
        assert!(waited > 100 && flooded > 100, "it was no flood: {waited}, {flooded}");
    });
    runtime.block_on(sending).unwrap();
}

#[test]
fn what_cannot_be_sent_is_given_back() {
    let (sender, channel) = source::channel::<&str>(0);
    sender.try_send("one").expect("there is room for one, whatever is said");
    let refused = sender.try_send("two").unwrap_err();
    assert!(matches!(refused, TrySendError::Full("two")), "{refused}");
    let runtime = Runtime::new().unwrap();
    let waiting = sender.clone();
    let waiting = runtime.spawn(async move { waiting.send("three").await.map(drop) });
    drop(channel);
    assert_eq!(runtime.block_on(waiting).unwrap().unwrap_err().0, "three");
    let refused = sender.try_send("four").unwrap_err();
    assert!(matches!(refused, TrySendError::Closed("four")), "{refused}");
    assert!(sender.is_closed());
}

/// A function that waits for an operation has its ingress held back. The other ingress of the same functions goes
/// on as if nothing were.
#[test]
fn a_source_waits_for_its_own_gate_and_no_other() {
    const OTHERS: u64 = 5000;
    let runtime = Runtime::new().unwrap();
    let handle = runtime.handle().clone();
    let (slow_sender, slow_channel) = source::channel::<u64>(10_000);
    let (sender, channel) = source::channel::<u64>(100);
    (0..1000).for_each(|number| drop(slow_sender.try_send(number).unwrap()));
    let go_on = Arc::new(Notify::new());
    let waits = Arc::clone(&go_on);
    let sending = runtime.spawn(async move {
        for number in 0..OTHERS {
            sender.send(number).await.unwrap();
        }
    });
    timely::execute_directly(move |worker| {
        let slow = Function::new(move |context: &mut Context<'_, u64>, number: &u64| {
            if *number == u64::MAX {
                return Ok(());
            }
            let waits = Arc::clone(&waits);
            let operation = async move {
                waits.notified().await;
                waits.notify_one();
                Ok::<_, std::io::Error>(())
            };
            context.start(operation, |_| u64::MAX);
            Ok(())
        });
        let limits = Limits { gate_credit_records: 8, ..Limits::default() };
        let functions = functions().limits(limits).runtime(handle);
        let functions = functions.embedded(SLOW, slow.operations(2));
        let (handle, slow, other) = worker.dataflow::<u64, _, _>(|scope| {
            let slow = slow_channel.source(scope, "slow", Times::fixed(0)).batch_max(16);
            let other = channel.source(scope, "other", Times::fixed(0)).batch_max(16);
            let handles = (slow.handle(), other.handle());
            let ingresses = [
                slow.ingress(|number| SLOW.message(number, number)),
                other.ingress(|number| LISTENER.message("all", number)),
            ];
            let egresses = ingresses.stateful_functions(functions).unwrap();
            (egresses.handle(), handles.0, handles.1)
        });
        until(worker, "the slow one waits", || slow.status().waiting_for == WaitingFor::Credit);
        until(worker, "the other gives all", || other.status().given == OTHERS);
        until(worker, "it has ended", || other.status().waiting_for == WaitingFor::Ended);
        assert_eq!(slow.status().waiting_for, WaitingFor::Credit);
        assert!(slow.status().given <= 48, "{:?}", slow.status());
        assert!(!handle.ready());
        go_on.notify_one();
        drop(slow_sender);
        handle.run(worker).unwrap();
        assert_eq!(slow.status().given, 1000);
    });
    runtime.block_on(sending).unwrap();
}

#[test]
fn time_goes_on_without_records_and_ends_with_the_source() {
    let (clock, hands) = Clock::turned(1000);
    let (sender, channel) = source::channel::<u64>(10);
    let (channel, other) = (once(channel), clock.clone());
    let senders = Arc::new(Mutex::new(Some(sender)));
    on_workers(2, move |worker| {
        let index = worker.index();
        let (probe, handle) = worker.dataflow::<u64, _, _>(|scope| {
            let channel = if index == 0 { take(&channel) } else { Channel::default() };
            let times = Times::clock(&other).every(Duration::from_secs(3600));
            let ingress = channel.source(scope, "numbers", times);
            let ingress = ingress.ingress(|number| LISTENER.message("all", number));
            let egresses = ingress.stateful_functions(functions()).unwrap();
            let counts = egresses.stream(COUNTS).unwrap();
            let counts = counts.inspect_time(|time, count| assert_eq!(*time, 999 + count));
            (counts.probe().0, egresses.handle())
        });
        // Whoever steps second must not wait for what the first did only once.
        until(worker, "it is the clock's time", || !probe.less_than(&1000));
        if index == 0 {
            let sender = senders.lock().unwrap().take().unwrap();
            sender.try_send(0).unwrap();
            until(worker, "it is handled", || {
                handle.admitted().less_than(&1001) && { !probe.less_than(&1000) }
            });
            until(worker, "it was given", || handle.stats().admitted == 1);
            hands.advance(Duration::from_millis(1));
            until(worker, "time goes on", || !probe.less_than(&1001));
            sender.try_send(1).unwrap();
            until(worker, "it was given", || handle.stats().admitted == 2);
            hands.advance(Duration::from_millis(500));
            until(worker, "time goes on", || !probe.less_than(&1501));
            assert!(probe.less_equal(&1501));
        }
        handle.run(worker).unwrap();
        assert!(!probe.less_equal(&u64::MAX), "nothing comes any more");
    });
}

fn store(faulty: &FaultyStore) -> SnapshotStore {
    store_tried(faulty, 10_000)
}

/// A store in which everything is tried so often.
fn store_tried(faulty: &FaultyStore, attempts: u32) -> SnapshotStore {
    let retry = Retry::attempts(attempts).longest(Duration::from_millis(1));
    let attempt_max = Duration::from_millis(20);
    faulty.store(SnapshotOptions { retry, attempt_max, ..SnapshotOptions::default() })
}

fn policy() -> SnapshotPolicy {
    SnapshotPolicy::new("channel").interval(Duration::from_millis(5))
}

/// Runs a program whose channel this is until it ends. Gives the highest count that it emitted.
fn run(
    workers: usize,
    runtime: &Runtime,
    store: SnapshotStore,
    channel: Channel<u64>,
) -> Result<u64, Reason> {
    let (channel, runtime) = (once(channel), runtime.handle().clone());
    let counts = on_workers(workers, move |worker| {
        let snapshots = Snapshots::<u64>::begin(worker, &store, &runtime, &policy()).unwrap();
        let highest = Arc::new(AtomicU64::new(0));
        let seen = Arc::clone(&highest);
        let handle = worker.dataflow::<u64, _, _>(|scope| {
            let source = take(&channel).source(scope, "numbers", Times::fixed(0));
            let ingress = source.unreplayed(&snapshots, |number| LISTENER.message("all", number));
            let egresses = ingress.stateful_functions(functions()).unwrap();
            let counts = egresses.stream(COUNTS).unwrap();
            counts.inspect(move |count| _ = seen.fetch_max(*count, SeqCst));
            egresses.handle()
        });
        handle.run(worker).map_err(|stopped| stopped.reason)?;
        Ok(highest.load(SeqCst))
    });
    let counts: Result<Vec<u64>, Reason> = counts.into_iter().collect();
    counts.map(|counts| counts.into_iter().max().unwrap_or(0))
}

/// Sends numbers one after the other, each when the one before is durable, and gives what was in the store then.
async fn send_durably(
    sender: ChannelSender<u64>,
    faulty: FaultyStore,
    numbers: u64,
) -> Vec<BTreeMap<String, bytes::Bytes>> {
    let mut stored = Vec::new();
    for number in 0..numbers {
        let mut receipt = sender.send(number).await.unwrap();
        receipt.admitted().await.unwrap();
        receipt.durable().await.unwrap();
        stored.push(faulty.files());
    }
    stored
}

/// What is durable is in the store: a program that goes on from what is there when a receipt says so has it.
#[test]
fn a_receipt_says_durable_when_the_store_has_the_record_and_not_before() {
    const NUMBERS: u64 = 6;
    let runtime = Runtime::new().unwrap();
    for workers in [1, 2] {
        let faulty = FaultyStore::new();
        let chance = Mutex::new(Random(workers as u64));
        faulty.plan(move |call, _| match (call, chance.lock().unwrap().below(6)) {
            (StoreCall::Put, 0) => StoreFault::Refused,
            (StoreCall::Put, 1) => StoreFault::Stalled,
            (StoreCall::Put, 2) => StoreFault::Slow(Duration::from_millis(3)),
            _ => StoreFault::Nothing,
        });
        let (sender, channel) = source::channel::<u64>(10);
        let sending = runtime.spawn(send_durably(sender, faulty.clone(), NUMBERS));
        assert_eq!(run(workers, &runtime, store(&faulty), channel), Ok(NUMBERS));
        for (number, files) in runtime.block_on(sending).unwrap().into_iter().enumerate() {
            let then = FaultyStore::new();
            files.into_iter().for_each(|(file, bytes)| then.damage(&file, Some(bytes)));
            let (sender, channel) = source::channel::<u64>(10);
            // The next number is right only if this one is there.
            sender.try_send(number as u64 + 1).unwrap();
            drop(sender);
            assert_eq!(run(1, &runtime, store(&then), channel), Ok(number as u64 + 2));
        }
    }
}

/// A cut that contains a record is taken, its manifest is on its way, and it is given up, again and again.
#[test]
fn while_commits_stall_and_are_given_up_no_receipt_says_durable() {
    let runtime = Runtime::new().unwrap();
    let faulty = FaultyStore::new();
    let (stalls, stalled) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let (whether, count) = (Arc::clone(&stalls), Arc::clone(&stalled));
    faulty.plan(move |call, file| {
        if call == StoreCall::Put && file.starts_with("manifest/") && whether.load(SeqCst) {
            count.fetch_add(1, SeqCst);
            return StoreFault::Stalled;
        }
        StoreFault::Nothing
    });
    const ATTEMPTS: u32 = 2;
    let (sender, channel) = source::channel::<u64>(10);
    let sending = runtime.spawn(async move {
        sender.send(0).await.unwrap().durable().await.unwrap();
        stalls.store(true, SeqCst);
        let first = sender.send(1).await.unwrap();
        // The cut whose manifest is stalled now was taken before the next is sent.
        while stalled.load(SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        let mut second = sender.send(2).await.unwrap();
        second.admitted().await.unwrap();
        let second = second.durable();
        tokio::pin!(second);
        // That one is tried once more, and then at least two that contain it.
        let enough = stalled.load(SeqCst) + 3 * u64::from(ATTEMPTS);
        while stalled.load(SeqCst) < enough {
            let waited = tokio::time::timeout(Duration::from_millis(5), &mut second).await;
            assert!(waited.is_err(), "{waited:?}");
        }
        stalls.store(false, SeqCst);
        second.await.unwrap();
        first.durable().await.unwrap();
    });
    assert_eq!(run(2, &runtime, store_tried(&faulty, ATTEMPTS), channel), Ok(3));
    runtime.block_on(sending).unwrap();
}

#[test]
fn what_a_program_has_when_it_ends_is_durable() {
    let runtime = Runtime::new().unwrap();
    for workers in [1, 2] {
        let (sender, channel) = source::channel::<u64>(10);
        let receipts: Vec<_> =
            (0..10).map(|number| sender.try_send(number).unwrap().durable()).collect();
        drop(sender);
        assert_eq!(run(workers, &runtime, store(&FaultyStore::new()), channel), Ok(10));
        for receipt in receipts {
            assert_eq!(runtime.block_on(receipt), Ok(()));
        }
    }
}

/// Whatever the rest was waiting for, and wherever it was.
#[test]
fn when_a_program_stops_what_is_not_durable_is_lost() {
    let runtime = Runtime::new().unwrap();
    for workers in [1, 2] {
        let (sender, channel) = source::channel::<u64>(10);
        let task = runtime.spawn(async move {
            sender.send(0).await.unwrap().durable().await.unwrap();
            // That is out of order, and what comes after it may never be let in.
            let wrong = sender.send(7).await.unwrap();
            let mut left = Vec::new();
            while let Ok(receipt) = sender.send(8).await {
                left.push(receipt);
            }
            assert!(sender.is_closed());
            assert_eq!(wrong.durable().await, Err(Lost::Ended));
            let last = left.pop();
            for receipt in left {
                assert_eq!(receipt.durable().await, Err(Lost::Ended));
            }
            if let Some(mut last) = last {
                // It may be in, but not for good.
                let _ = last.admitted().await;
                assert_eq!(last.durable().await, Err(Lost::Ended));
            }
        });
        let stopped = run(workers, &runtime, store(&FaultyStore::new()), channel).unwrap_err();
        let text = "the function failed: 7 came where 1 should have";
        assert_eq!(stopped.to_string(), text);
        runtime.block_on(task).unwrap();
    }
}

#[test]
fn without_snapshots_nothing_is_durable_and_that_is_told_at_once() {
    let runtime = Runtime::new().unwrap();
    let (sender, channel) = source::channel::<u64>(10);
    let task = runtime.spawn(async move {
        let early = sender.send(0).await.unwrap();
        let mut next = sender.send(1).await.unwrap();
        assert_eq!(next.admitted().await, Ok(()));
        // The program runs as long as there is a sender.
        assert_eq!(early.durable().await, Err(Lost::NoSnapshots));
        assert_eq!(next.durable().await, Err(Lost::NoSnapshots));
        drop(sender);
    });
    timely::execute_directly(move |worker| {
        let handle = worker.dataflow::<u64, _, _>(|scope| {
            let ingress = channel.source(scope, "numbers", Times::fixed(0));
            let ingress = ingress.ingress(|number| LISTENER.message("all", number));
            ingress.stateful_functions(functions()).unwrap().handle()
        });
        handle.run(worker).unwrap();
    });
    runtime.block_on(task).unwrap();
    // Nor is it if nobody ever takes the channel.
    let (sender, channel) = source::channel::<u64>(10);
    let receipt = sender.try_send(0).unwrap();
    drop(channel);
    assert_eq!(runtime.block_on(receipt.durable()), Err(Lost::Ended));
}

/// Whoever sends from a log sends again from where it likes; what is known is not given, and is durable.
#[test]
fn what_a_snapshot_contains_is_not_given_again() {
    let runtime = Runtime::new().unwrap();
    let faulty = FaultyStore::new();
    for (from, to, contained) in [(0, 10, 0), (4, 15, 6), (0, 20, 15)] {
        let (sender, channel) = source::channel::<u64>(100);
        let receipts: Vec<_> = (from..to).map(|at| sender.try_send(at).unwrap()).collect();
        drop(sender);
        let (store, handle) = (store(&faulty), runtime.handle().clone());
        timely::execute_directly(move |worker| {
            let snapshots = Snapshots::<u64>::begin(worker, &store, &handle, &policy()).unwrap();
            let (handle, status) = worker.dataflow::<u64, _, _>(|scope| {
                let source = channel.source(scope, "numbers", Times::fixed(0));
                let status = source.handle();
                let ingress =
                    source.replayed(&snapshots, |at| LISTENER.message("all", at).read_at(0, at));
                (ingress.stateful_functions(functions()).unwrap().handle(), status)
            });
            handle.run(worker).unwrap();
            let status = status.status();
            assert_eq!((status.contained, status.given), (contained, to - from - contained));
        });
        for receipt in receipts {
            assert_eq!(runtime.block_on(receipt.durable()), Ok(()));
        }
    }
}

/// Operators between a source and functions hide its gate. It waits all the same, if it is told for whom.
#[test]
fn a_source_behind_which_there_are_operators_waits_as_well() {
    const RECORDS: u64 = 20_000;
    let (sender, channel) = source::channel::<u64>(RECORDS as usize);
    (0..RECORDS).for_each(|number| drop(sender.try_send(number).unwrap()));
    drop(sender);
    timely::execute_directly(move |worker| {
        let (handle, status) = worker.dataflow::<u64, _, _>(|scope| {
            let limits =
                Limits { budget_messages: 8, gate_credit_records: 100, ..Limits::default() };
            let source = channel.source(scope, "numbers", Times::fixed(0)).batch_max(64);
            let status = source.handle();
            let (stream, feed) = source.stream();
            let envelopes = stream.map(|number| LISTENER.message("all", number));
            let egresses = envelopes.stateful_functions(functions().limits(limits)).unwrap();
            egresses.handle().feeds(&feed);
            (egresses.handle(), status)
        });
        let (mut waited, began) = (0, Instant::now());
        while worker.has_dataflows() {
            assert!(began.elapsed() < LIMIT, "{:?}", status.status());
            let status = status.status();
            let outside = status.given - handle.stats().admitted;
            assert!(outside <= 10 * 64, "{outside} wait before the gate");
            waited += u64::from(status.waiting_for == WaitingFor::Credit);
            worker.step();
        }
        assert_eq!(handle.stats().handled, RECORDS);
        assert!(waited > 100, "{waited}");
    });
}

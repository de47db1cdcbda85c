//! A remote function that does not answer for an hour costs a bounded amount of memory, takes nothing from
//! others, and has each of its messages once when it answers again.

mod support;

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Barrier, Mutex};
use std::time::Duration;

use peak_alloc::PeakAlloc;
use support::on_workers;
use timely::dataflow::Stream;
use timely::dataflow::operators::Inspect;
use timely::worker::Worker;
use timely_statefun::source::{Channel, ChannelSender, Times, TrySendError, WaitingFor, channel};
use timely_statefun::testing::{TestEndpoint, TestRequest};
use timely_statefun::{
    Egress, Endpoint, Envelope, FunctionType, Functions, Limits, StatefulFunctions, TypedValue,
};
use timely_statefun_proto::reqreply::FromFunction;
use timely_statefun_proto::reqreply::from_function::{EgressMessage, InvocationResponse, Response};
use tokio::runtime::{Builder, Runtime};

#[global_allocator]
static PEAK: PeakAlloc = PeakAlloc;

const SLOW: FunctionType<String> = FunctionType::new("stalled/slow");
const QUICK: FunctionType<String> = FunctionType::new("stalled/quick");
const SLOW_DONE: Egress<String> = Egress::new("stalled/slow-done");
const QUICK_DONE: Egress<String> = Egress::new("stalled/quick-done");

const IDS: u64 = 16;
const HOUR_S: u64 = 3600;
/// What passes between two looks at everything.
const ROUND_S: u64 = 30;
/// Steps of the worker in a round.
const STEPS: usize = 16;

/// Records that wait in a channel, in a batch of its source, and between gates and functions.
const CHANNEL_RECORDS: usize = 64;
const BATCH_RECORDS: usize = 32;
const CREDIT_RECORDS: usize = 128;
/// What may wait for the answers of one function.
const FUNCTION_BYTES: usize = 64 << 10;
/// Bytes that a message counts for at least: its payload.
const PAYLOAD_BYTES: usize = 100;
/// What can be on its way to a function that does not answer, whatever is offered: what its share of memory has
/// room for, and what had been let in when it was reached.
const UNDER_WAY_MAX: u64 =
    (FUNCTION_BYTES / PAYLOAD_BYTES + CREDIT_RECORDS + 2 * BATCH_RECORDS + CHANNEL_RECORDS) as u64;
/// How much more the heap may have after an hour than after ten minutes, since what is under way at the moment is
/// not always the same. A few bytes for each message, or for each attempt, would be more.
const HEAP_MORE_MAX: usize = 4 * FUNCTION_BYTES;

/// A source that offers as much as is taken.
struct Offering {
    to: FunctionType<String>,
    sender: ChannelSender<Envelope<TypedValue>>,
    /// The next number. Those of a worker are as many apart as there are workers.
    next: u64,
    apart: u64,
}

impl Offering {
    fn new(to: FunctionType<String>, worker: &Worker) -> (Self, Channel<Envelope<TypedValue>>) {
        let (sender, channel) = channel(CHANNEL_RECORDS);
        let (next, apart) = (worker.index() as u64, worker.peers() as u64);
        (Offering { to, sender, next, apart }, channel)
    }

    /// Offers until nothing more is taken. Gives how many records were.
    fn offer(&mut self) -> u64 {
        let mut taken = 0;
        loop {
            let payload = format!("{:>PAYLOAD_BYTES$}", self.next);
            let id = self.next % (IDS * self.apart);
            match self.sender.try_send(self.to.message(id, payload)) {
                Ok(_) => {
                    self.next += self.apart;
                    taken += 1;
                }
                Err(TrySendError::Full(_)) => return taken,
                Err(error) => panic!("{error}"),
            }
        }
    }
}

fn is_to_slow(request: &TestRequest) -> bool {
    request.target().function_type == SLOW.at("").function_type
}

/// Answers a request: its messages are done, as an egress says.
fn answer(request: TestRequest) {
    let is_slow = is_to_slow(&request);
    let egress_type = if is_slow { "slow-done" } else { "quick-done" };
    let done = request.batch().invocations.iter().map(|invocation| EgressMessage {
        egress_namespace: "stalled".to_owned(),
        egress_type: egress_type.to_owned(),
        argument: invocation.argument.clone(),
    });
    let result = InvocationResponse { outgoing_egresses: done.collect(), ..Default::default() };
    request.answer(FromFunction { response: Some(Response::InvocationResult(result)) });
}

/// What all workers have offered to a function, and what it has done.
#[derive(Default)]
struct Ledger {
    offered: AtomicU64,
    done: Mutex<Vec<u64>>,
}

impl Ledger {
    fn note(self: &Arc<Self>, done: Stream<'_, u64, Vec<String>>) {
        let ledger = Arc::clone(self);
        done.inspect(move |number| {
            ledger.done.lock().unwrap().push(number.trim().parse().unwrap())
        });
    }

    fn done(&self) -> u64 {
        self.done.lock().unwrap().len() as u64
    }

    fn under_way(&self) -> u64 {
        self.offered.load(SeqCst) - self.done()
    }

    /// Each that was offered was done once, and at each address in order.
    fn assert_once_in_order(&self, workers: u64) {
        let done = self.done.lock().unwrap();
        let mut next: Vec<u64> = (0..IDS * workers).collect();
        for number in done.iter() {
            let next = &mut next[(number % (IDS * workers)) as usize];
            assert_eq!(number, next, "among {} that were done", done.len());
            *next += IDS * workers;
        }
        assert_eq!(done.len() as u64, self.offered.load(SeqCst));
    }
}

/// What the workers of a program have in common.
struct Common {
    endpoint: TestEndpoint,
    slow: Arc<Ledger>,
    quick: Arc<Ledger>,
    /// All workers step together, so that none is ahead.
    together: Barrier,
}

impl Common {
    fn of(workers: usize) -> Self {
        let together = Barrier::new(workers);
        Common {
            endpoint: TestEndpoint::new(),
            slow: Arc::default(),
            quick: Arc::default(),
            together,
        }
    }
}

/// One worker of a program, with its sources and a runtime whose time the test turns.
struct Member<'a> {
    worker: &'a mut Worker,
    common: &'a Common,
    runtime: Runtime,
    slow: Offering,
    quick: Offering,
    /// Requests that are left open, and whether those to the slow function are.
    stalled: Vec<TestRequest>,
    stalls: bool,
    requests: u64,
}

impl Member<'_> {
    /// Time passes, and all that can be done is done while both sources offer whatever is taken.
    fn rounds(&mut self, seconds: u64) {
        for _ in 0..seconds / ROUND_S {
            self.pass();
            for _ in 0..STEPS {
                self.common.slow.offered.fetch_add(self.slow.offer(), SeqCst);
                self.common.quick.offered.fetch_add(self.quick.offer(), SeqCst);
                self.step();
            }
        }
    }

    fn pass(&mut self) {
        self.runtime.block_on(tokio::time::advance(Duration::from_secs(ROUND_S)));
        self.stalled.retain(TestRequest::is_open);
    }

    fn step(&mut self) {
        self.common.together.wait();
        self.worker.step();
        self.runtime.block_on(async {
            for _ in 0..64 {
                tokio::task::yield_now().await;
            }
        });
        if !self.stalls {
            self.stalled.drain(..).for_each(answer);
        }
        while let Some(request) = self.common.endpoint.take_request() {
            let is_slow = is_to_slow(&request);
            if self.stalls && is_slow {
                self.requests += 1;
                self.stalled.push(request);
            } else {
                answer(request);
            }
        }
    }

    /// What all workers have done by now, seen by all alike.
    fn look<R>(&self, look: impl FnOnce(&Common) -> R) -> R {
        self.common.together.wait();
        let seen = look(self.common);
        self.common.together.wait();
        seen
    }
}

/// Gives how often the slow function was asked while it did not answer.
fn run(worker: &mut Worker, common: &Common) -> u64 {
    // Time is the runtime's alone. A call has two hours, and each attempt at it a minute.
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.unwrap();
    let remote = Endpoint::at("http://functions.example/")
        .call_timeout(Duration::from_secs(2 * HOUR_S))
        .read_timeout(Duration::from_secs(60));
    let functions = Functions::<TypedValue>::new()
        .remote(SLOW, remote.clone())
        .remote(QUICK, remote)
        .typed_egress(SLOW_DONE)
        .typed_egress(QUICK_DONE)
        .limits(Limits {
            gate_credit_records: CREDIT_RECORDS,
            function_bytes_soft: Some(FUNCTION_BYTES),
            ..Limits::default()
        })
        .answered_by(&common.endpoint)
        .runtime(runtime.handle().clone());

    let (slow, from_slow) = Offering::new(SLOW, worker);
    let (quick, from_quick) = Offering::new(QUICK, worker);
    let (handle, source) = worker.dataflow::<u64, _, _>(|scope| {
        let slow = from_slow.source(scope, "slow", Times::fixed(0)).batch_max(BATCH_RECORDS);
        let quick = from_quick.source(scope, "quick", Times::fixed(0)).batch_max(BATCH_RECORDS);
        let source = slow.handle();
        let ingresses = [slow, quick].map(|source| source.ingress(|envelope| envelope));
        let egresses = ingresses.stateful_functions(functions).unwrap();
        common.slow.note(egresses.stream(SLOW_DONE).unwrap());
        common.quick.note(egresses.stream(QUICK_DONE).unwrap());
        (egresses.handle(), source)
    });
    let workers = worker.peers() as u64;
    let (stalled, stalls, requests) = (Vec::new(), false, 0);
    let mut member = Member { worker, common, runtime, slow, quick, stalled, stalls, requests };

    // Ten minutes in which both are answered, and then an hour in which one is not.
    let part = HOUR_S / 6;
    member.rounds(part);
    let (slow, pace) = member.look(|common| (common.slow.done(), common.quick.done()));
    assert!(slow > workers * UNDER_WAY_MAX, "{slow} were done");
    member.stalls = true;
    let (mut before, mut heap_then) = (pace, 0);
    for number in 1..=6 {
        member.rounds(part);
        let (under_way, quick) =
            member.look(|common| (common.slow.under_way(), common.quick.done()));
        let done = quick - before;
        before = quick;
        assert!(done * 100 >= pace * 95, "{done} in part {number} of the hour, {pace} before");
        let most = workers * UNDER_WAY_MAX;
        assert!(under_way <= most, "{under_way} of at most {most} are under way in part {number}");
        assert_eq!(source.status().waiting_for, WaitingFor::Credit);
        // What is noted of what was done is the test's own.
        let heap = member.look(|common| {
            let done = common.quick.done.lock().unwrap();
            PEAK.current_usage() - size_of::<u64>() * done.capacity()
        });
        if number == 1 {
            heap_then = heap;
        }
        let more = heap.saturating_sub(heap_then);
        assert!(more <= HEAP_MORE_MAX, "{more} bytes more in part {number} than in the first");
    }

    // It answers again, and nothing more is offered.
    member.stalls = false;
    member.slow = Offering::new(SLOW, member.worker).0;
    member.quick = Offering::new(QUICK, member.worker).0;
    while member.look(|common| common.slow.under_way() + common.quick.under_way()) > 0 {
        assert_eq!(handle.stopped().map(|stopped| stopped.to_string()), None);
        member.pass();
        member.step();
    }
    handle.run(member.worker).unwrap();
    member.requests
}

#[test]
fn an_hour_without_an_answer_costs_a_bound_and_others_nothing() {
    for workers in [1, 2] {
        let common = Arc::new(Common::of(workers));
        let shared = Arc::clone(&common);
        let requests: u64 = on_workers(workers, move |worker| run(worker, &shared)).iter().sum();
        // Each attempt came to its end, and the next was made.
        let some = IDS * workers as u64 * HOUR_S / 240;
        assert!(requests > some, "it was asked {requests} times in the hour");
        common.slow.assert_once_in_order(workers as u64);
        common.quick.assert_once_in_order(workers as u64);
    }
}

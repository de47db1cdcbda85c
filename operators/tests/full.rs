//! A handler that is full keeps ingress out on all workers, and nothing that is in the loop waits for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use timely::dataflow::InputHandleVec;
use timely::dataflow::operators::{Input, Probe};
use timely::dataflow::{ProbeHandle, Scope};
use timely::worker::Worker;
use timely_statefun_operators::{
    Handler, Ingress, LoopConfig, LoopHandle, Order, Outbox, Verdict, Waker, keyed_loop,
};

#[derive(Clone, Debug, Serialize, Deserialize)]
enum Message {
    /// Is handled by a worker, and gone.
    Rest(u64),
    /// Goes from worker to worker while it is told to.
    Ball(u64),
}

#[derive(Default)]
struct Shared {
    full: AtomicBool,
    going: AtomicBool,
    balls: AtomicU64,
    rests: AtomicU64,
}

/// The one of a certain worker is full when it is told so.
struct Store {
    is_the_one: bool,
    shared: Arc<Shared>,
    waker: Arc<std::sync::Mutex<Option<Waker>>>,
}

impl Handler<u64> for Store {
    type Message = Message;
    type Output = ();
    type Failure = String;

    fn route(message: &Message) -> u64 {
        match message {
            Message::Rest(to) | Message::Ball(to) => *to,
        }
    }

    fn connect(&mut self, waker: Waker) {
        self.waker.lock().unwrap().replace(waker);
    }

    fn handle(
        &mut self,
        message: Message,
        outbox: &mut Outbox<'_, u64, Message>,
    ) -> Verdict<String> {
        match message {
            Message::Rest(_) => _ = self.shared.rests.fetch_add(1, SeqCst),
            Message::Ball(at) => {
                self.shared.balls.fetch_add(1, SeqCst);
                if self.shared.going.load(SeqCst) {
                    outbox.send(Message::Ball(at + 1));
                }
            }
        }
        Verdict::Done
    }

    fn is_full(&self) -> bool {
        self.is_the_one && self.shared.full.load(SeqCst)
    }
}

struct Program {
    shared: Arc<Shared>,
    waker: Arc<std::sync::Mutex<Option<Waker>>>,
    probe: ProbeHandle<u64>,
    handle: LoopHandle<u64, String>,
}

impl Program {
    fn build(
        scope: Scope<'_, u64>,
        shared: &Arc<Shared>,
        ingresses: usize,
        order: Order,
    ) -> (Vec<InputHandleVec<u64, Message>>, Self) {
        let shared = Arc::clone(shared);
        let waker = Arc::default();
        let is_the_one = scope.index() + 1 == scope.peers();
        let store = Store { is_the_one, shared: Arc::clone(&shared), waker: Arc::clone(&waker) };
        let mut inputs = Vec::new();
        let ingresses = (0..ingresses).map(|number| {
            let (input, stream) = scope.new_input::<Vec<Message>>();
            inputs.push(input);
            Ingress::new(format!("{number}"), stream, |message| message)
        });
        let ingresses = ingresses.collect();
        let config = LoopConfig { order, ..LoopConfig::default() };
        let (out, handle) = keyed_loop(scope, "store", ingresses, config, None, store);
        (inputs, Program { shared, waker, probe: out.probe().0, handle })
    }

    /// From the worker whose handler it is: it is told whatever it does.
    fn is_full(&self, full: bool) {
        self.shared.full.store(full, SeqCst);
        self.waker.lock().unwrap().as_ref().expect("it was connected").wake();
    }
}

#[track_caller]
fn until(worker: &mut Worker, what: &str, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < Duration::from_secs(60), "this never came to be: {what}");
        worker.step_or_park(Some(Duration::from_millis(1)));
    }
}

fn steps(worker: &mut Worker) {
    for _ in 0..50 {
        worker.step();
    }
}

#[test]
fn ingress_waits_on_all_workers_while_messages_go_round() {
    for workers in [1, 2, 3] {
        let shared = Arc::new(Shared::default());
        shared.going.store(true, SeqCst);
        let (done, rest) = (Arc::new(AtomicU64::new(0)), 10 * workers as u64);
        let guards = timely::execute(timely::Config::process(workers), move |worker| {
            let (index, peers) = (worker.index() as u64, worker.peers() as u64);
            let everybody = |worker: &mut Worker, step: u64| {
                done.fetch_add(1, SeqCst);
                until(worker, "all are there", || done.load(SeqCst) >= step * peers);
            };
            let (mut inputs, program) =
                worker.dataflow(|scope| Program::build(scope, &shared, 1, Order::Arrival));
            let handle = program.handle.clone();
            if index == 0 {
                inputs[0].send(Message::Ball(0));
            }
            inputs[0].advance_to(1);
            until(worker, "the ball was let in", || shared.balls.load(SeqCst) > 0);
            if index + 1 == peers {
                program.is_full(true);
            }
            until(worker, "the gate is shut", || !handle.ready());
            everybody(worker, 1);
            (0..10).for_each(|number| inputs[0].send(Message::Rest(number)));
            inputs[0].advance_to(2);
            let balls = shared.balls.load(SeqCst);
            until(worker, "the ball goes on", || shared.balls.load(SeqCst) > balls + 100);
            assert_eq!((shared.rests.load(SeqCst), handle.ready()), (0, false));
            assert!(handle.admitted().less_equal(&1), "nobody let these in");
            everybody(worker, 2);
            if index + 1 == peers {
                program.is_full(false);
            }
            until(worker, "all were let in", || shared.rests.load(SeqCst) == rest);
            until(worker, "the gate is open", || handle.ready());
            shared.going.store(false, SeqCst);
            inputs.clear();
            handle.run(worker).unwrap();
            assert!(program.probe.done());
        });
        guards.unwrap().join().into_iter().for_each(|end| end.unwrap());
    }
}

/// Messages wait for their stage until ingress has passed it: what could still come before them is let in.
/// When nothing waits any more, nothing is let in.
#[test]
fn in_the_order_of_time_what_waits_is_given_what_it_waits_for() {
    timely::execute_directly(|worker| {
        let shared = Arc::new(Shared::default());
        let (mut inputs, program) =
            worker.dataflow(|scope| Program::build(scope, &shared, 2, Order::Time));
        let handle = program.handle.clone();
        let rests = || shared.rests.load(SeqCst);
        inputs[0].advance_to(5);
        inputs[0].send(Message::Rest(0));
        inputs[0].advance_to(9);
        steps(worker);
        assert_eq!((handle.stats().admitted, rests()), (1, 0));

        program.is_full(true);
        steps(worker);
        inputs[0].send(Message::Rest(0));
        inputs[0].advance_to(10);
        inputs[1].advance_to(5);
        inputs[1].send(Message::Rest(0));
        inputs[1].advance_to(7);
        until(worker, "what waited was handled", || rests() == 2);
        steps(worker);
        inputs[1].send(Message::Rest(0));
        inputs[1].advance_to(10);
        steps(worker);
        assert_eq!((handle.stats().admitted, rests(), handle.ready()), (2, 2, false));

        program.is_full(false);
        until(worker, "all was handled", || rests() == 4);
        assert!(handle.ready());
        inputs.clear();
        handle.run(worker).unwrap();
    });
}

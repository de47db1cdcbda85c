//! Messages from one address to another are handled in the order in which they were sent, and one
//! at a time.
//!
//! Functions call each other at random while many ingress times are alive. Every call carries its
//! number among the calls from its sender to its target, and every target expects the next one.

mod support;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};
use support::{Random, Running, on_workers};
use timely::dataflow::operators::Probe;
use timely::dataflow::operators::vec::UnorderedInput;
use timely_statefun::{
    Address, Egress, Envelope, Function, FunctionType, Functions, Limits, StatefulFunctions,
};

const NODES: [FunctionType<Call>; 2] =
    [FunctionType::new("order/even"), FunctionType::new("order/odd")];
const SOURCE: FunctionType<Call> = FunctionType::new("order/source");
const DONE: Egress<u64> = Egress::new("order/done");
const TIMES: u64 = 50;
const RECORDS: u64 = 250;

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Call {
    sequence: u64,
    /// How many more calls may follow from this one, one after the other.
    depth: u32,
    seed: u64,
}

/// Half the ids are numbers, half are text.
fn target(random: &mut Random) -> Address {
    let node = NODES[random.below(2) as usize];
    match random.below(32) {
        number if number < 16 => node.at(number),
        number => node.at(format!("node-{number}")),
    }
}

/// What all workers know of all calls.
#[derive(Default)]
struct Ledger {
    sent: HashMap<(Address, Address), u64>,
    handled: HashMap<(Address, Address), u64>,
    running: HashSet<Address>,
    worker: HashMap<Address, usize>,
    calls: u64,
}

impl Ledger {
    fn next(&mut self, from: &Address, to: &Address) -> u64 {
        let sent = self.sent.entry((from.clone(), to.clone())).or_default();
        *sent += 1;
        *sent
    }

    fn begin(
        &mut self,
        from: Address,
        to: &Address,
        sequence: u64,
        worker: usize,
    ) -> Result<(), String> {
        self.calls += 1;
        if !self.running.insert(to.clone()) {
            return Err(format!("two invocations of {to} at once"));
        }
        let home = *self.worker.entry(to.clone()).or_insert(worker);
        if home != worker {
            return Err(format!("{to} ran on workers {home} and {worker}"));
        }
        let handled = self.handled.entry((from.clone(), to.clone())).or_default();
        *handled += 1;
        if *handled != sequence {
            return Err(format!("call {sequence} from {from} to {to} came as the {handled}th"));
        }
        Ok(())
    }
}

fn functions(ledger: &Arc<Mutex<Ledger>>, budget: usize, worker: usize) -> Functions<Call> {
    let limits = Limits { budget_messages: budget, ..Limits::default() };
    let functions = Functions::new().egress(DONE).limits(limits);
    NODES.into_iter().fold(functions, |functions, node| {
        let ledger = Arc::clone(ledger);
        let function = Function::new(move |context, call: &Call| {
            let me = context.address();
            let caller = context.caller().ok_or("somebody sent it")?;
            ledger.lock().unwrap().begin(caller, &me, call.sequence, worker)?;
            let mut random = Random(call.seed);
            let calls = if call.depth == 0 { 0 } else { random.below(4) };
            for _ in 0..calls {
                let to = target(&mut random);
                let sequence = ledger.lock().unwrap().next(&me, &to);
                let call = Call { sequence, depth: call.depth - 1, seed: random.any() };
                context.forward(to, call);
            }
            context.emit(DONE, call.seed);
            ledger.lock().unwrap().running.remove(&me);
            Ok(())
        });
        functions.embedded(node, function)
    })
}

fn check(workers: usize, budget: usize) {
    for seed in 0..3 {
        let _running = Running(format!("seed {seed}, {workers} workers, budget {budget}"));
        let ledger = Arc::<Mutex<Ledger>>::default();
        let shared = Arc::clone(&ledger);
        let crossed = on_workers(workers, move |worker| {
            let index = worker.index();
            let ((mut input, first), probe, handle) = worker.dataflow::<u64, _, _>(|scope| {
                let (input, stream) = scope.new_unordered_input::<Envelope<Call>>();
                let functions = functions(&shared, budget, index);
                let egresses = stream.stateful_functions(functions).unwrap();
                (input, egresses.stream(DONE).unwrap().probe().0, egresses.handle())
            });
            // All times stay alive until everything was sent, and the records of one source come at
            // times in no order: theirs is the order in which they were given to the stream.
            let times: Vec<_> = (0..TIMES).map(|time| first.delayed(&time)).collect();
            drop(first);
            let mut random = Random(seed * 100 + index as u64);
            for record in 0..RECORDS {
                let from = SOURCE.at(index as u64);
                let to = target(&mut random);
                let sequence = shared.lock().unwrap().next(&from, &to);
                let call = Call { sequence, depth: 7, seed: random.any() };
                let time = &times[random.below(TIMES) as usize];
                let envelope = Envelope::new(to, call).with_caller(from);
                input.activate().session(time).give(envelope);
                if record % 16 == 0 {
                    worker.step();
                }
            }
            drop(times);
            handle.run(worker).unwrap();
            assert!(probe.done());
            handle.stats().sent_away
        });
        let ledger = ledger.lock().unwrap();
        assert!(ledger.calls > RECORDS * workers as u64 * 4, "few calls: {}", ledger.calls);
        assert_eq!(ledger.sent, ledger.handled);
        assert_eq!(workers > 1, crossed.into_iter().sum::<u64>() > 0, "did calls cross workers?");
    }
}

const DEFAULT: usize = 4096;

#[test]
fn calls_keep_their_order_on_one_worker() {
    assert_eq!(Limits::default().budget_messages, DEFAULT);
    check(1, DEFAULT);
}

#[test]
fn calls_keep_their_order_on_two_workers() {
    check(2, DEFAULT);
}

#[test]
fn calls_keep_their_order_on_four_workers() {
    check(4, DEFAULT);
}

#[test]
fn calls_keep_their_order_with_a_budget_of_one() {
    for workers in [1, 2, 4] {
        check(workers, 1);
    }
}

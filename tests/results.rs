//! The same program gives the same results on every number of workers and processes.
//!
//! What functions do here does not depend on the order of messages, so there is one right answer.
//! Two sets of functions run in one dataflow, and what leaves the first goes into the second.
//!
//! Messages travel as the default has it, and as copies of memory.

#[path = "../operators/tests/support/cluster.rs"]
mod cluster;
mod support;

use std::cell::RefCell;
use std::rc::Rc;

use serde::{Deserialize, Serialize};
use support::{Random, on_workers};
use timely::ExchangeData;
use timely::dataflow::operators::vec::Map;
use timely::dataflow::operators::{Input, Inspect, Probe};
use timely::worker::Worker;
use timely_statefun::{
    Address, Carries, Context, Egress, Envelope, Function, FunctionResult, FunctionType, Functions,
    Id, Mismatch, Namespace, StatefulFunctions, ValueSpec,
};
use timely_statefun_codec_abomonation::{Abomonated, abomonable};

const ACCOUNT: FunctionType<Message> = FunctionType::new("results/account");
const FOUND: Namespace<Message> = Namespace::new("found");
const SUM: FunctionType<u64> = FunctionType::new("results/sum");
const TOTAL: ValueSpec<u64> = ValueSpec::new("total");
const REPLIES: ValueSpec<u64> = ValueSpec::new("replies");
const MOVES: Egress<(Id, u64)> = Egress::new("results/moves");
const STATES: Egress<String> = Egress::new("results/states");
const SUMS: Egress<String> = Egress::new("results/sums");
const RECORDS: u64 = 300;
const TIMES: u64 = 20;
const IDS: u64 = 30;

abomonable! {
    #[derive(Clone, Debug, Serialize, Deserialize)]
    enum Message {
        Add { amount: u64, hops: u32, seed: u64 },
        Reply(u64),
        Report,
    }
}

/// A message that travels as a copy of memory.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Copied(Abomonated<Message>);

impl Carries<Message> for Copied {
    fn pack(input: Message) -> Self {
        Copied(Abomonated(input))
    }
    fn unpack<R>(&self, read: impl FnOnce(&Message) -> R) -> Result<R, Mismatch> {
        Ok(read(&self.0))
    }
}

/// How a message travels.
trait Travelling: ExchangeData + Clone + Carries<Message> {}

impl<M: ExchangeData + Clone + Carries<Message>> Travelling for M {}

/// Half the ids are numbers, half text, some of it long.
fn id(number: u64) -> Id {
    match number % 4 {
        0 | 1 => Id::from(number),
        2 => Id::from(format!("n{number}")),
        _ => Id::from(format!("an id that is longer than fits in place: {number}")),
    }
}

/// The type `kind`: the first is bound by itself, others are found at run time.
fn address(kind: u64, number: u64) -> Address {
    match kind {
        0 => ACCOUNT.at(id(number)),
        _ => FOUND.at(&format!("type-{kind}"), id(number)).expect("a valid name"),
    }
}

const KINDS: u64 = 6;

/// Adds what it is told, asks others to add more, and replies to whoever sent it.
fn add<M: Travelling>(context: &mut Context<'_, M>, message: &Message) -> FunctionResult {
    match message {
        Message::Add { amount, hops, seed } => {
            context.update(TOTAL, |total| *total += amount);
            let mut random = Random(*seed);
            if *hops > 0 {
                for _ in 0..1 + random.below(2) {
                    let to = address(random.below(KINDS), random.below(IDS));
                    let (hops, seed) = (hops - 1, random.any());
                    let more = Message::Add { amount: amount + 1, hops, seed };
                    context.forward(to, M::pack(more));
                }
            }
            let id = context.id().clone();
            context.emit(MOVES, (id, *amount));
            if context.caller().is_some() {
                context.reply(Message::Reply(*amount))?;
            }
        }
        Message::Reply(amount) => {
            context.update(REPLIES, |replies| *replies += amount);
        }
        Message::Report => {
            let state = (context.get(TOTAL).copied(), context.get(REPLIES).copied());
            context.emit(STATES, format!("{}: {state:?}", context.address()));
        }
    }
    Ok(())
}

fn first<M: Travelling>() -> Functions<M> {
    let function = || Function::new(add::<M>).value(TOTAL).value(REPLIES);
    Functions::new()
        .named("first")
        .embedded(ACCOUNT, function())
        .embedded_namespace(FOUND, function())
        .egress(MOVES)
        .egress(STATES)
}

/// Sums what it is told; zero asks for the sum.
fn second() -> Functions<u64> {
    let sum = Function::new(|context, amount: &u64| {
        let sum = context.update(TOTAL, |total| *total += amount);
        if *amount == 0 {
            context.emit(SUMS, format!("sum {}: {sum}", context.id()));
        }
        Ok(())
    });
    Functions::new().named("second").embedded(SUM, sum.value(TOTAL)).egress(SUMS)
}

/// Record number `record`, the same whoever sends it. Some have a caller, of a type bound by itself
/// or found at run time.
fn record<M: Travelling>(record: u64) -> (u64, Envelope<M>) {
    let mut random = Random(record);
    let to = address(random.below(KINDS), random.below(IDS));
    let (amount, hops) = (1 + random.below(50), random.below(5) as u32);
    let message = Message::Add { amount, hops, seed: random.any() };
    let message = Envelope::new(to, M::pack(message));
    let caller = address(random.below(KINDS), random.below(IDS));
    let named = random.below(2) == 0;
    (record * TIMES / RECORDS, if named { message.with_caller(caller) } else { message })
}

/// All lines this worker saw, and how many messages left it for another in either set.
fn run<M: Travelling>(worker: &mut Worker) -> (Vec<String>, [u64; 2]) {
    let (index, peers) = (worker.index() as u64, worker.peers() as u64);
    let lines = Rc::new(RefCell::new(Vec::new()));
    let seen = |lines: &Rc<RefCell<Vec<String>>>| {
        let lines = Rc::clone(lines);
        move |time: &u64, line: &String| lines.borrow_mut().push(format!("{time} {line}"))
    };
    let (mut inputs, mut ask, probe, one, two) = worker.dataflow::<u64, _, _>(|scope| {
        let (inputs, streams): (Vec<_>, Vec<_>) =
            (0..3).map(|_| scope.new_input::<Vec<Envelope<M>>>()).unzip();
        let one = streams.stateful_functions(first::<M>()).unwrap();
        let moves = one.stream(MOVES).unwrap();
        let texts = moves.clone().map(|(id, amount)| format!("move {id}: {amount}"));
        texts.inspect_time(seen(&lines));
        one.stream(STATES).unwrap().inspect_time(seen(&lines));
        let (ask, asked) = scope.new_input::<Vec<Envelope<u64>>>();
        let moved = moves.map(|(id, amount)| SUM.message(id, amount));
        let two = [moved, asked].stateful_functions(second()).unwrap();
        let sums = two.stream(SUMS).unwrap().inspect_time(seen(&lines));
        (inputs, ask, sums.probe().0, one.handle(), two.handle())
    });
    for (number, (time, message)) in (0..RECORDS).map(|number| (number, record::<M>(number))) {
        for input in &mut inputs {
            input.advance_to(time);
        }
        if number % peers == index {
            inputs[number as usize % 3].send(message);
        }
        if number % 10 == 0 {
            worker.step();
        }
    }
    // When all is done, everybody is asked for what they have in the end.
    inputs.iter_mut().for_each(|input| input.advance_to(TIMES));
    ask.advance_to(TIMES);
    one.run_while(worker, || probe.less_than(&TIMES)).unwrap();
    for number in (0..IDS).filter(|number| number % peers == index) {
        (0..KINDS).for_each(|kind| {
            inputs[0].send(Envelope::new(address(kind, number), M::pack(Message::Report)))
        });
        ask.send(SUM.message(id(number), 0));
    }
    drop((inputs, ask));
    one.run(worker).unwrap();
    assert_eq!(two.stopped(), None);
    assert!(probe.done());
    (lines.take(), [one.stats().sent_away, two.stats().admitted])
}

fn sorted(seen: impl IntoIterator<Item = (Vec<String>, [u64; 2])>) -> (Vec<String>, u64) {
    let (mut lines, mut crossed) = (Vec::new(), 0);
    for (more, [away, fed]) in seen {
        lines.extend(more);
        crossed += away;
        assert!(fed > 0, "the second set of functions got nothing");
    }
    lines.sort();
    (lines, crossed)
}

fn expected() -> Vec<String> {
    let (lines, _) = sorted(on_workers(1, run::<Message>));
    let of = |word: &str| lines.iter().filter(|line| line.contains(word)).count() as u64;
    assert!(of("move ") > 2 * RECORDS, "few moves");
    assert_eq!((of("account") + of("found/"), of("sum ")), (KINDS * IDS, IDS));
    assert!(of("(Some(") > IDS && of(", Some(") > IDS, "few addresses have state");
    lines
}

/// On one worker sums can be checked by hand: each move adds its amount to the sum of its id.
#[test]
fn one_set_of_functions_feeds_another() {
    let lines = expected();
    for number in 0..IDS {
        let start = format!("move {}: ", id(number));
        let amounts = lines.iter().filter_map(|line| line.split_once(&start));
        let sum: u64 = amounts.map(|(_, amount)| amount.parse::<u64>().unwrap()).sum();
        let line = format!("{TIMES} sum {}: {sum}", id(number));
        assert!(lines.contains(&line), "{line}");
    }
}

#[test]
fn results_are_the_same_on_every_number_of_workers() {
    let expected = expected();
    for workers in [2, 4] {
        let (lines, crossed) = sorted(on_workers(workers, run::<Message>));
        assert!(crossed > RECORDS, "few messages crossed workers: {crossed}");
        assert_eq!(lines, expected, "on {workers} workers");
    }
}

#[test]
fn results_are_the_same_on_two_processes() {
    on_two_processes::<Message>("results_are_the_same_on_two_processes");
}

#[test]
fn results_are_the_same_on_two_processes_whose_messages_are_copies_of_memory() {
    on_two_processes::<Copied>(
        "results_are_the_same_on_two_processes_whose_messages_are_copies_of_memory",
    );
}

fn on_two_processes<M: Travelling>(name: &str) {
    if let Some(config) = cluster::member() {
        for end in timely::execute(config, run::<M>).unwrap().join() {
            let (lines, crossed) = end.unwrap();
            lines.into_iter().for_each(cluster::report);
            cluster::report(format!("crossed {crossed:?}"));
        }
        return;
    }
    let outcomes = cluster::run(name, 2, 1);
    let mut lines = Vec::new();
    for outcome in outcomes {
        assert!(outcome.success, "{}", outcome.output);
        lines.extend(outcome.lines);
    }
    let crossed = lines.extract_if(.., |line| line.starts_with("crossed ")).collect::<Vec<_>>();
    assert_eq!(crossed.len(), 2);
    assert!(crossed.iter().all(|line| !line.starts_with("crossed [0,")), "{crossed:?}");
    lines.sort();
    assert_eq!(lines, expected());
}

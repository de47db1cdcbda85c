//! An aligned cut contains exactly the ingress before its frontier.
//!
//! Every record begins a chain of messages, so it is in a cut at exactly one place: where its chain has
//! ended, or as the message that waits or is on its way. Several ingresses on each worker advance at
//! different speeds, and one does not come to the frontier before other cuts were taken.

#[path = "support/pair.rs"]
mod pair;

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pair::Pair;
use serde::{Deserialize, Serialize};
use timely::dataflow::InputHandleVec;
use timely::dataflow::operators::Input;
use timely::dataflow::operators::vec::UnorderedInput;
use timely::progress::timestamp::Refines;
use timely::progress::{Antichain, Timestamp};
use timely::worker::Worker;
use timely_statefun_operators::{
    CutControl, Cuts, Decider, Handler, Ingress, LoopConfig, LoopHandle, Order, Outbox, Place,
    Positions, Verdict, keyed_loop,
};

/// Ingresses on each worker.
const INGRESSES: u64 = 3;
const ROUNDS: u64 = 5;
/// The number of a frontier is this often the number of its round.
const LENGTH: u64 = 30;

fn mix(mut x: u64) -> u64 {
    x ^= x >> 33;
    x = x.wrapping_mul(0xff51_afd7_ed55_8ccd);
    x ^= x >> 33;
    x = x.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    x ^ (x >> 33)
}

#[derive(Copy, Clone, Debug, Serialize, Deserialize)]
struct Message {
    /// The record that it began with, and where in its partition that stood.
    record: u64,
    partition: u64,
    sequence: u64,
    first: bool,
    /// How many more messages follow.
    hops: u64,
    to: u64,
}

impl Message {
    fn record(partition: u64, sequence: u64) -> Self {
        let record = partition * 1_000_000 + sequence;
        let (hops, to) = (mix(record) % 8, mix(record) >> 8);
        Message { record, partition, sequence, first: true, hops, to }
    }
}

/// What a cut holds of all workers.
#[derive(Clone, Debug, Default)]
struct Content {
    records: Vec<u64>,
    admitted: u64,
    aligned: Vec<Option<bool>>,
    complete: usize,
}

type Contents = Arc<Mutex<BTreeMap<u64, Content>>>;

struct Chains {
    ended: BTreeSet<u64>,
    last: BTreeMap<u64, u64>,
    contents: Contents,
}

impl Chains {
    fn new(contents: &Contents) -> Self {
        let contents = Arc::clone(contents);
        Chains { ended: BTreeSet::new(), last: BTreeMap::new(), contents }
    }

    fn note(&self, cut: u64, note: impl FnOnce(&mut Content)) {
        note(self.contents.lock().unwrap().entry(cut).or_default());
    }
}

impl<T: Timestamp> Handler<T> for Chains {
    type Message = Message;
    type Output = ();
    type Failure = String;

    fn route(message: &Message) -> u64 {
        message.to
    }

    fn handle(&mut self, m: Message, outbox: &mut Outbox<'_, T, Message>) -> Verdict<String> {
        if m.first {
            let last = self.last.insert(m.partition, m.sequence);
            assert!(last < Some(m.sequence), "{m:?} came after {last:?}");
        }
        if m.hops == 0 {
            assert!(self.ended.insert(m.record), "{m:?} came twice");
        } else {
            outbox.send(Message { first: false, hops: m.hops - 1, to: mix(m.to + 1), ..m });
        }
        Verdict::Done
    }

    fn take_cut(&mut self, cut: u64, _: Option<&T>) {
        self.note(cut, |content| content.records.extend(&self.ended));
    }

    fn queued(&mut self, cut: u64, _: Place<'_, T>, m: &Message) {
        self.note(cut, |content| content.records.push(m.record));
    }

    fn log(&mut self, cut: u64, _: Place<'_, T>, m: &Message) {
        self.note(cut, |content| content.records.push(m.record));
    }

    fn complete_cut(&mut self, cut: u64, _: &[T]) {
        self.note(cut, |content| content.complete += 1);
    }
}

/// An ingress whose gate tells what it had let in at a cut.
fn ingress<'scope, T: Timestamp>(
    name: u64,
    stream: timely::dataflow::Stream<'scope, T, Vec<Message>>,
    contents: &Contents,
    after: Positions,
) -> Ingress<'scope, T, Message, Message> {
    let contents = Arc::clone(contents);
    let position = |m: &Message| Some((m.partition, m.sequence));
    Ingress::new(format!("{name}"), stream, |m| m).positions(position, after).on_cut(move |at| {
        let mut contents = contents.lock().unwrap();
        let content = contents.entry(at.cut).or_default();
        content.admitted += at.records;
        content.aligned.push(at.aligned);
    })
}

trait Times: Timestamp + Refines<()> {
    /// The time of each step of a partition.
    fn at(partition: u64, step: u64) -> Self;
    /// What every partition comes to at a step, and not before.
    fn frontier(step: u64) -> Antichain<Self>;
}

impl Times for u64 {
    fn at(_: u64, step: u64) -> u64 {
        step
    }

    fn frontier(step: u64) -> Antichain<u64> {
        Antichain::from_elem(step)
    }
}

/// Partitions go two ways, of which neither is before the other.
impl Times for Pair {
    fn at(partition: u64, step: u64) -> Pair {
        match partition % 2 {
            0 => Pair(step, step / 2),
            _ => Pair(step / 2, step),
        }
    }

    fn frontier(step: u64) -> Antichain<Pair> {
        [Pair(step, step / 2), Pair(step / 2, step)].into_iter().collect()
    }
}

struct Shared<T> {
    control: CutControl<T>,
    contents: Contents,
    sent: Mutex<BTreeMap<u64, T>>,
    /// The step that partitions may come to, and the one that the last may.
    limit: AtomicU64,
    limit_of_last: AtomicU64,
    /// The sum of the steps that partitions have come to.
    steps: AtomicU64,
    finished: AtomicBool,
}

/// Feeds and steps a worker until what has a name is so.
type GoOn<'a> = &'a mut dyn FnMut(&mut Worker, &str, &mut dyn FnMut() -> bool);

/// Far more than anything here takes.
const LIMIT: Duration = Duration::from_secs(100);

fn run<T: Times>(workers: usize, order: Order) {
    println!("{workers} workers, {order:?}");
    let shared = Arc::new(Shared::<T> {
        control: CutControl::new(),
        contents: Contents::default(),
        sent: Mutex::default(),
        limit: AtomicU64::new(0),
        limit_of_last: AtomicU64::new(0),
        steps: AtomicU64::new(0),
        finished: AtomicBool::new(false),
    });
    let guards = timely::execute(timely::Config::process(workers), move |worker| {
        let shared = Arc::clone(&shared);
        let (index, peers) = (worker.index() as u64, worker.peers() as u64);
        let partitions = peers * INGRESSES;
        let decider = Decider::new(&shared.control);
        let (mut inputs, handle) = worker.dataflow::<T, _, _>(|scope| {
            let mut inputs = Vec::new();
            let ingresses = (0..INGRESSES).map(|number| {
                let (input, stream) = scope.new_unordered_input::<Message>();
                inputs.push(input);
                ingress(number, stream, &shared.contents, Positions::new())
            });
            let ingresses = ingresses.collect();
            let config = LoopConfig {
                budget_messages: 10,
                cut_slice: 5,
                // So little that gates hold back what an aligned cut waits for.
                gate_credit_records: 5,
                loop_bytes_soft: 2000,
                order,
                ..LoopConfig::default()
            };
            let cuts = Some(Cuts::from(decider));
            let chains = Chains::new(&shared.contents);
            let (_, handle) = keyed_loop(scope, "chains", ingresses, config, cuts, chains);
            (inputs, handle)
        });
        let mut steps = vec![0; INGRESSES as usize];
        let mut sequences = vec![0; INGRESSES as usize];
        let mut random = mix(index);
        let mut feed = |worker: &mut Worker| {
            for number in 0..INGRESSES as usize {
                let partition = index * INGRESSES + number as u64;
                let limit = match partition + 1 == partitions {
                    true => shared.limit_of_last.load(SeqCst),
                    false => shared.limit.load(SeqCst),
                };
                random = mix(random + 1);
                // Some are faster.
                if steps[number] >= limit || random.is_multiple_of(2 + partition % 3) {
                    continue;
                }
                let (input, now) = &mut inputs[number];
                for _ in 0..random >> 8 & 3 {
                    sequences[number] += 1;
                    let message = Message::record(partition, sequences[number]);
                    let time = T::at(partition, steps[number]);
                    shared.sent.lock().unwrap().insert(message.record, time);
                    input.activate().session(&now).give(message);
                }
                steps[number] += 1;
                shared.steps.fetch_add(1, SeqCst);
                now.downgrade(&T::at(partition, steps[number]));
            }
            worker.step();
            std::thread::yield_now();
        };
        let mut go_on = |worker: &mut Worker, what: &str, condition: &mut dyn FnMut() -> bool| {
            let began = Instant::now();
            while !condition() {
                assert!(began.elapsed() < LIMIT, "this never came to be: {what}");
                feed(worker);
            }
        };
        if index == 0 {
            let mut cut = 0;
            let mut take = |go_on: GoOn<'_>, worker: &mut Worker| {
                cut += 1;
                let content = || shared.contents.lock().unwrap().get(&cut).cloned();
                go_on(worker, "a cut is complete", &mut || {
                    content().is_some_and(|content| content.complete as u64 == peers)
                });
                let content = content().unwrap();
                shared.control.committed(cut);
                let records: BTreeSet<_> = content.records.iter().copied().collect();
                assert_eq!(records.len(), content.records.len(), "a record is there twice");
                assert_eq!(records.len() as u64, content.admitted, "and all are there");
                (records, content.aligned)
            };
            let at_every_gate = |aligned| vec![aligned; partitions as usize];
            let mut kept_out = 0;
            for round in 1..=ROUNDS {
                let frontier = T::frontier(round * LENGTH);
                let before = || {
                    let sent = shared.sent.lock().unwrap();
                    let before = sent.iter().filter(|(_, time)| !frontier.less_equal(time));
                    before.map(|(record, _)| *record).collect::<BTreeSet<_>>()
                };
                // When this one is taken, all gates have heard of the other.
                shared.control.request_aligned(frontier.clone());
                shared.control.request();
                let (_, aligned) = take(&mut go_on, worker);
                assert_eq!(aligned, at_every_gate(None));

                let (last, others) = (round * LENGTH - 5, round * LENGTH + 20);
                shared.limit.store(others, SeqCst);
                shared.limit_of_last.store(last, SeqCst);
                let come_to = others * (partitions - 1) + last;
                let steps = || shared.steps.load(SeqCst);
                go_on(worker, "all but one are past it", &mut || steps() == come_to);
                for _ in 0..2 {
                    shared.control.request();
                    let (records, aligned) = take(&mut go_on, worker);
                    assert_eq!(aligned, at_every_gate(None), "it waits for one");
                    assert!(records.is_subset(&before()), "some of these should have waited");
                }
                let sent = shared.sent.lock().unwrap().len();
                kept_out += sent - before().len();

                shared.limit_of_last.store(others, SeqCst);
                let (records, aligned) = take(&mut go_on, worker);
                assert_eq!(aligned, at_every_gate(Some(true)));
                assert_eq!(records, before(), "round {round}");
                let come_to = others * partitions;
                go_on(worker, "all are past it", &mut || steps() == come_to);
            }
            assert!(kept_out > 100, "few records waited: {kept_out}");
            shared.finished.store(true, SeqCst);
        }
        go_on(worker, "all is done", &mut || shared.finished.load(SeqCst));
        inputs.clear();
        commit_to_the_end(worker, &shared.control, &shared.contents);
        let last = shared.contents.lock().unwrap().values().last().cloned().unwrap();
        let sent: BTreeSet<_> = shared.sent.lock().unwrap().keys().copied().collect();
        assert!(last.records.into_iter().collect::<BTreeSet<_>>() == sent, "some was lost");
        handle.run(worker).unwrap();
    });
    guards.unwrap().join().into_iter().for_each(|end| end.unwrap());
}

fn commit_to_the_end<T>(worker: &mut Worker, control: &CutControl<T>, contents: &Contents) {
    let began = Instant::now();
    while worker.has_dataflows() {
        assert!(began.elapsed() < LIMIT, "the dataflow did not end");
        if worker.index() == 0
            && let Some(open) = control.open()
            && contents.lock().unwrap().get(&open).map_or(0, |c| c.complete) == worker.peers()
        {
            control.committed(open);
        }
        worker.step_or_park(Some(Duration::from_millis(1)));
    }
}

#[test]
fn an_aligned_cut_contains_exactly_what_came_before() {
    for workers in [1, 2, 4] {
        run::<u64>(workers, Order::Arrival);
    }
}

#[test]
fn an_aligned_cut_contains_exactly_what_came_before_in_the_order_of_time() {
    for workers in [1, 2] {
        run::<u64>(workers, Order::Time);
        run::<Pair>(workers, Order::Time);
    }
}

#[test]
fn an_aligned_cut_contains_exactly_what_came_before_at_partially_ordered_times() {
    for workers in [1, 2, 4] {
        run::<Pair>(workers, Order::Arrival);
    }
}

/// A loop of one worker with two ingresses.
struct Program {
    inputs: Vec<InputHandleVec<u64, Message>>,
    handle: LoopHandle<u64, String>,
    control: CutControl<u64>,
    contents: Contents,
}

fn build(worker: &mut Worker, config: LoopConfig, after: Positions) -> Program {
    let (control, contents) = (CutControl::new(), Contents::default());
    let (inputs, handle) = worker.dataflow(|scope| {
        let mut inputs = Vec::new();
        let ingresses = [0, 1].map(|number| {
            let (input, stream) = scope.new_input::<Vec<Message>>();
            inputs.push(input);
            ingress(number, stream, &contents, after.clone())
        });
        let cuts = Some(Cuts::from(Decider::new(&control)));
        let chains = Chains::new(&contents);
        let (_, handle) = keyed_loop(scope, "chains", ingresses.into(), config, cuts, chains);
        (inputs, handle)
    });
    Program { inputs, handle, control, contents }
}

impl Program {
    /// Sends a record at the time that its input has come to.
    fn send(&mut self, partition: u64, sequence: u64) {
        let input = &mut self.inputs[partition as usize];
        input.send(Message::record(partition, sequence));
        input.flush();
    }

    /// The records of a cut and what its gates say, and commits it.
    #[track_caller]
    fn take(&self, worker: &mut Worker, cut: u64) -> (BTreeSet<u64>, Vec<Option<bool>>) {
        let content = || self.contents.lock().unwrap().get(&cut).cloned().unwrap_or_default();
        until(worker, "a cut is complete", || content().complete == 1);
        self.control.committed(cut);
        (content().records.into_iter().collect(), content().aligned)
    }
}

#[track_caller]
fn until(worker: &mut Worker, what: &str, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < LIMIT, "this never came to be: {what}");
        worker.step_or_park(Some(Duration::from_millis(1)));
    }
}

fn steps(worker: &mut Worker) {
    for _ in 0..50 {
        worker.step();
    }
}

fn at(time: u64) -> Antichain<u64> {
    Antichain::from_elem(time)
}

#[test]
fn a_gate_that_had_let_in_something_later_says_so() {
    timely::execute_directly(|worker| {
        let mut program = build(worker, LoopConfig::default(), Positions::new());
        program.send(0, 1);
        program.inputs[0].advance_to(10);
        program.send(0, 2);
        program.inputs[0].advance_to(20);
        until(worker, "it was let in", || program.handle.stats().admitted == 2);
        program.control.request_aligned(at(5));
        steps(worker);
        program.send(0, 3);
        program.send(1, 1);
        program.inputs[1].advance_to(5);
        program.send(1, 2);
        let (records, aligned) = program.take(worker, 1);
        assert_eq!(aligned, [Some(false), Some(true)]);
        assert_eq!(records, BTreeSet::from([1, 2, 1_000_001]), "the others waited");
        program.inputs.clear();
        commit_to_the_end(worker, &program.control, &program.contents);
    });
}

/// A source that replays brings again what the restored cut contains.
#[test]
fn what_was_skipped_since_a_restored_cut_contains_it_had_been_let_in() {
    timely::execute_directly(|worker| {
        let after = Positions::from([(0, 2), (1, 1)]);
        let mut program = build(worker, LoopConfig::default(), after);
        program.control.request_aligned(at(5));
        steps(worker);
        program.send(0, 1);
        program.send(1, 1);
        program.inputs[0].advance_to(6);
        program.send(0, 2);
        until(worker, "they were skipped", || program.handle.stats().skipped == 3);
        program.inputs[1].advance_to(6);
        program.send(1, 2);
        let (records, aligned) = program.take(worker, 1);
        assert_eq!((records.len(), aligned), (0, vec![Some(false), Some(true)]));
        until(worker, "the other is let in", || program.handle.stats().admitted == 1);
        program.inputs.clear();
        commit_to_the_end(worker, &program.control, &program.contents);
    });
}

#[test]
fn alignments_follow_one_another_and_those_never_reached_are_when_ingress_closes() {
    for order in [Order::Arrival, Order::Time] {
        timely::execute_directly(move |worker| {
            let config = LoopConfig { order, ..LoopConfig::default() };
            let mut program = build(worker, config, Positions::new());
            for frontier in [at(3), at(1000), Antichain::new()] {
                program.control.request_aligned(frontier);
            }
            steps(worker);
            for time in 0..6 {
                program.inputs.iter_mut().for_each(|input| input.advance_to(time));
                program.send(0, time + 1);
                program.send(1, time + 1);
            }
            let both = |sequences: std::ops::RangeInclusive<u64>| {
                sequences.flat_map(|number| [number, 1_000_000 + number]).collect()
            };
            let aligned = vec![Some(true), Some(true)];
            assert_eq!(program.take(worker, 1), (both(1..=3), aligned.clone()));
            until(worker, "the others were let in", || program.handle.stats().admitted == 12);
            // The second waits for a time that never comes, and hinders no other cut.
            program.control.request();
            assert_eq!(program.take(worker, 2), (both(1..=6), vec![None, None]));
            program.inputs.clear();
            assert_eq!(program.take(worker, 3), (both(1..=6), aligned.clone()));
            assert_eq!(program.take(worker, 4), (both(1..=6), aligned));
            commit_to_the_end(worker, &program.control, &program.contents);
        });
    }
}

/// A program may feed its ingresses in turn and wait each time until the loop is ready: one that lags comes
/// to the frontier, as long as what waits meanwhile is within the limits.
#[test]
fn a_loop_is_ready_while_few_wait_for_an_aligned_cut() {
    timely::execute_directly(|worker| {
        let config = LoopConfig { gate_credit_records: 20, ..LoopConfig::default() };
        let mut program = build(worker, config, Positions::new());
        let handle = program.handle.clone();
        program.control.request_aligned(at(30));
        steps(worker);
        for time in 0..40 {
            worker.step();
            until(worker, "it is ready", || handle.ready());
            program.inputs[0].advance_to(time);
            program.send(0, time + 1);
            worker.step();
            until(worker, "it is ready", || handle.ready());
            // Behind by so much that about ten of the other wait.
            program.inputs[1].advance_to(time.saturating_sub(10));
            program.send(1, time + 1);
        }
        assert!(handle.stats().admitted < 80, "none waits");
        program.inputs[1].advance_to(30);
        let (records, aligned) = program.take(worker, 1);
        assert_eq!((records.len(), aligned), (70, vec![Some(true), Some(true)]));

        // More than the limit.
        program.control.request_aligned(at(50));
        steps(worker);
        program.inputs[0].advance_to(50);
        (41..=60).for_each(|number| program.send(0, number));
        program.inputs[0].advance_to(51);
        steps(worker);
        assert!(handle.ready());
        program.send(0, 61);
        program.inputs[0].advance_to(52);
        steps(worker);
        assert!(!handle.ready());
        program.inputs[1].advance_to(52);
        assert_eq!(program.take(worker, 2).0.len(), 80);
        until(worker, "all is let in", || handle.ready());
        program.inputs.clear();
        commit_to_the_end(worker, &program.control, &program.contents);
        assert_eq!(handle.stats().admitted, 101);
    });
}

/// The second loop lets in what leaves the first: here, whatever its gate was given.
#[test]
fn an_aligned_cut_of_several_loops_waits_for_all_of_them() {
    timely::execute_directly(|worker| {
        let (control, contents) = (CutControl::new(), [(); 2].map(|()| Contents::default()));
        let (mut inputs, handle) = worker.dataflow::<u64, _, _>(|scope| {
            let cuts = Cuts::from(Decider::new(&control));
            let loops = [0, 1].map(|number: usize| {
                let (input, stream) = scope.new_input::<Vec<Message>>();
                let contents = &contents[number];
                let ingress = vec![ingress(0, stream, contents, Positions::new())];
                let (config, cuts) = (LoopConfig::default(), Some(cuts.clone()));
                let chains = Chains::new(contents);
                (input, keyed_loop(scope, "chains", ingress, config, cuts, chains).1)
            });
            let [(one, handle), (other, _)] = loops;
            ([one, other], handle)
        });
        control.request_aligned(at(5));
        steps(worker);
        for (number, times) in [(0, 0..8), (1, 0..5)] {
            for time in times {
                inputs[number].advance_to(time);
                inputs[number].send(Message::record(0, time + 1));
            }
        }
        steps(worker);
        assert_eq!(control.open(), None, "one has not come to it");
        inputs[1].advance_to(6);
        inputs[1].send(Message::record(0, 7));
        let complete = Rc::new(Cell::new(0));
        until(worker, "the cut is complete", || {
            let content = |contents: &Contents| contents.lock().unwrap().get(&1).cloned();
            let all = contents.iter().filter_map(content);
            complete.set(all.filter(|content| content.complete == 1).count());
            complete.get() == 2
        });
        for contents in &contents {
            let content = contents.lock().unwrap()[&1].clone();
            let records: BTreeSet<_> = content.records.into_iter().collect();
            assert_eq!((records, content.aligned), ((1..=5).collect(), vec![Some(true)]));
        }
        control.committed(1);
        drop(inputs);
        while worker.has_dataflows() {
            control.open().into_iter().for_each(|open| control.abandoned(open));
            worker.step_or_park(Some(Duration::from_millis(1)));
        }
        handle.run(worker).unwrap();
    });
}
